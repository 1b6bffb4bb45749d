//! Purges that workers ask for: to the registry, under the node's own identity, and back by its log like every other.

use std::sync::{Arc, OnceLock};

use selvedge_origin::api::wire::{Purged, WorkerPurge};
use selvedge_origin::client::{Client, ClientError};
use tokio::sync::Semaphore;

use super::limits;
use super::report::Board;

/// The way of a worker's purge. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Purger(Arc<Way>);

#[derive(Debug)]
struct Way {
    client: OnceLock<Client>,
    board: Arc<Board>,
    room: Semaphore,
}

/// Why a worker's purge was not made.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// The node follows no registry.
    #[error("this node follows no registry, and purges go through one")]
    NoRegistry,
    /// Too many purges of workers are on their way.
    #[error("too many purges are on their way from this node")]
    Busy,
    /// The registry is away, or refuses.
    #[error(transparent)]
    Registry(#[from] ClientError),
}

impl Purger {
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self(Arc::new(Way { client: OnceLock::new(), board, room: Semaphore::new(limits::WORKER_PURGES_MAX) }))
    }

    pub(super) fn connected(&self, client: Client) {
        let _ = self.0.client.set(client);
    }

    /// Purges for a worker: of what was stored for it, nothing else. Answers when the purge is durable, and (within 2 s) applied on this node; the other nodes
    /// follow within milliseconds. Dropping the future does not take it back.
    pub async fn submit(&self, purge: &WorkerPurge) -> Result<Purged, PurgeError> {
        let client = self.0.client.get().ok_or(PurgeError::NoRegistry)?;
        let _room = self.0.room.try_acquire().map_err(|_| PurgeError::Busy)?;
        let mut applied = self.0.board.watch_applied();
        let purged = client.purge_of_worker(purge).await?;
        let here = applied.wait_for(|applied| applied.as_ref().is_some_and(|position| position.seq >= purged.seq));
        if tokio::time::timeout(limits::WORKER_PURGE_APPLY_WAIT, here).await.is_err() {
            tracing::warn!(seq = purged.seq, "a worker's purge is made, but has not come back to this node yet");
        }
        Ok(purged)
    }
}
