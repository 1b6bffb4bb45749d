//! What the tests share: an origin and edge nodes in this process or in processes of their own, and clients of every protocol.
