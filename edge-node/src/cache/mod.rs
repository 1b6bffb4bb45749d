//! Stored responses: RFC 9111, as pure rules around a memory store.

/// Stored responses. Built once by `node.rs`; shared.
pub struct Cache {}

impl Cache {
    /// A cache that holds at most `bytes_max` bytes of responses, their heads and our overhead included.
    pub fn new(bytes_max: u64) -> Self {
        let _ = bytes_max;
        Self {}
    }
}
