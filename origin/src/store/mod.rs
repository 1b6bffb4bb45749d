//! Where records and bundles are kept: two seams, and the engines behind them. No type of an engine is in a signature, and one suite
//! (`contract`) is what every engine passes.

#[cfg(test)]
mod contract;
mod files;
mod schema;
mod sqlite;

pub(crate) use files::Files;
pub(crate) use sqlite::Sqlite;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::feed::Position;
use crate::registry::{Digest, RequestId, Write};

/// One commit: an entry for the log and what it does to the records. All of it or nothing.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    /// The head that the writer saw. Another head means that its rules must be asked again.
    pub(crate) expected_seq: u64,
    /// The entry's bytes.
    pub(crate) entry: Vec<u8>,
    /// The records.
    pub(crate) writes: Vec<Write>,
    /// Makes a retry give the first result.
    pub(crate) request: Option<Request>,
    /// Unix time in milliseconds.
    pub(crate) now_ms: u64,
}

/// A named request and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// Its id.
    pub(crate) id: RequestId,
    /// Of what was asked: the same id for something else is a mistake.
    pub(crate) fingerprint: Digest,
    /// The answer.
    pub(crate) answer: Vec<u8>,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEntry {
    /// Its number; numbers rise by exactly one.
    pub(crate) seq: u64,
    /// The chain's value after it.
    pub(crate) chain: Digest,
    /// Its bytes.
    pub(crate) entry: Vec<u8>,
}

/// Why the store did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StoreError {
    /// Somebody else committed first.
    #[error("the log moved on to entry {head}")]
    HeadMoved {
        /// The head there is.
        head: u64,
    },
    /// Too many commits wait.
    #[error("the store has too much to write")]
    Busy,
    /// The engine or the disk.
    #[error("the store failed: {0}")]
    Engine(String),
    /// Bytes that are not what their digest says.
    #[error("the bytes are not those that digest {expected} names; they are {got}")]
    Digest {
        /// The digest that was given.
        expected: Digest,
        /// What the bytes have.
        got: Digest,
    },
}

/// What a store's method gives.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Records and log: one total order. What a commit has answered is durable.
pub(crate) trait Meta: Send + Sync + 'static {
    /// Commits. Dropping the future does not undo it.
    fn commit(&self, batch: Batch) -> Answer<'_, Position>;
    /// One record.
    #[cfg(test)]
    fn get(&self, key: &str) -> Answer<'_, Option<Vec<u8>>>;
    /// Records after a key, ascending, at most `limit`.
    fn scan(&self, after: &str, limit: usize) -> Answer<'_, Vec<(String, Vec<u8>)>>;
    /// The end of the log. Costs nothing.
    fn head(&self) -> Position;
    /// Entries after a number, ascending, at most `limit`, fewer where they are large. Empty where the first of them is no longer kept.
    fn read_log(&self, after: u64, limit: usize) -> Answer<'_, Vec<LogEntry>>;
    /// The chain's value after an entry; `None` where the log does not reach that far (back).
    fn chain_at(&self, seq: u64) -> Answer<'_, Option<Digest>>;
    /// A request that was answered before.
    fn find_request(&self, id: &RequestId) -> Answer<'_, Option<Request>>;
}

/// A blob that is read in pieces, so that many readers of large ones fit into memory.
pub(crate) struct BlobReader {
    /// How many bytes it has.
    pub(crate) bytes: u64,
    /// Its pieces, in order.
    pub(crate) pieces: BoxStream<'static, std::io::Result<Bytes>>,
}

/// Bytes by their digest: immutable.
pub(crate) trait Blobs: Send + Sync + 'static {
    /// Stores bytes, durable when answered. Storing the same again changes nothing.
    fn put(&self, digest: &Digest, bytes: Bytes) -> Answer<'_, ()>;
    /// How many bytes a blob has; `None` where there is none, or a damaged one, so that it is uploaded again. Counts as use: what was asked for is
    /// not collected within the next day.
    fn touch(&self, digest: &Digest) -> Answer<'_, Option<u64>>;
    /// The bytes, as they are on the disk, piece by piece: who uses them verifies them.
    fn read(&self, digest: &Digest) -> Answer<'_, Option<BlobReader>>;
    /// All of them at once.
    fn get(&self, digest: &Digest) -> Answer<'_, Option<Bytes>>;
    /// Deletes blobs that are not in use and that nobody put or touched within the last day. Gives their number.
    fn collect(&self, in_use: std::collections::BTreeSet<Digest>) -> Answer<'_, usize>;
}
