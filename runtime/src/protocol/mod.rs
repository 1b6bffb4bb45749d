//! What edge and runner say to each other over a link: one Unix stream socket for each JavaScript thread of a runner.
//!
//! Each side queues messages into an outbox and writes what is ready once per turn of its event loop; each side reads into
//! one large buffer and decodes many messages from one read (a write per message costs 9 µs more for each request).
//! Both sides treat the other's bytes as hostile: a malformed or oversized frame, an unknown number, a message for a stream
//! that does not exist where it must, ends the link (edge: the runner is killed; runner: it exits).

mod message;

pub use message::*;
