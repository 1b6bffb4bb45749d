//! Purges that workers ask for (`ctx.cache.purge()`): to the registry, under the node's own identity, and back by its log like every other.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use selvedge_origin::api::wire::{Purged, WorkerPurge};
use selvedge_origin::client::{Client, ClientError};
use selvedge_origin::feed::Position;
use selvedge_origin::registry::{RequestId, WorkerName};
use selvedge_runtime::{CachePurge, PurgeRefusal};
use tokio::sync::{Semaphore, watch};

use super::limits;

/// The way of a worker's purge. Cheap to clone; by itself it leads nowhere, until the node follows a registry.
#[derive(Debug, Clone, Default)]
pub struct Purger(Arc<Way>);

#[derive(Debug)]
struct Way {
    registry: OnceLock<Registry>,
    room: Semaphore,
    /// Purges of each worker that are on their way.
    running: Mutex<BTreeMap<WorkerName, usize>>,
}

#[derive(Debug)]
struct Registry {
    client: Client,
    /// The last entry whose purges are applied here.
    applied: watch::Receiver<Option<Position>>,
}

/// Why a worker's purge was not made.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// The worker's name is none that a registry can have.
    #[error("the worker's name: {0}")]
    Worker(String),
    /// The node follows no registry.
    #[error("this node follows no registry, and purges go through one")]
    NoRegistry,
    /// Too many purges are on their way.
    #[error("too many purges of {whose} are on their way from this node; await them before the next, or name several things in one")]
    Busy {
        /// Of the worker, or of all.
        whose: &'static str,
    },
    /// No answer in time.
    #[error("the registry did not answer within {} s: the purge may be made or not; to purge again does no harm", .wait.as_secs())]
    Timeout {
        /// The bound.
        wait: Duration,
    },
    /// The registry is away, or refuses.
    #[error(transparent)]
    Registry(#[from] ClientError),
}

impl PurgeError {
    /// What the worker is told: nothing of the registry's address, or of this node's standing with it.
    pub fn refusal(&self) -> PurgeRefusal {
        const TOO_MANY: u16 = 429;
        const AWAY: u16 = 503;
        let (code, message) = match self {
            Self::Registry(ClientError::Refused { status, reply, .. }) if !matches!(status, 401 | 403) => {
                let hint = reply.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
                (*status, format!("{}{hint}", reply.message))
            }
            Self::Registry(_) => {
                let message = "this node cannot reach its registry now: the purge may be made or not; to purge again does no harm";
                (AWAY, message.to_owned())
            }
            Self::Busy { .. } => (TOO_MANY, self.to_string()),
            Self::Worker(_) | Self::NoRegistry | Self::Timeout { .. } => (AWAY, self.to_string()),
        };
        PurgeRefusal { code, message }
    }
}

impl Purger {
    pub(super) fn connected(&self, client: Client, applied: watch::Receiver<Option<Position>>) {
        let _ = self.0.registry.set(Registry { client, applied });
    }

    /// Purges for a worker: of what was stored for it, nothing else. Answers when the purge is durable, and (within 2 s) applied on this node; the other nodes
    /// follow within milliseconds. Dropping the future does not take it back.
    pub async fn submit(&self, worker: &str, purge: CachePurge) -> Result<Purged, PurgeError> {
        let registry = self.0.registry.get().ok_or(PurgeError::NoRegistry)?;
        let worker: WorkerName = worker.parse().map_err(|error| PurgeError::Worker(format!("{error}")))?;
        let _room = self.0.room.try_acquire().map_err(|_| PurgeError::Busy { whose: "all workers" })?;
        let _place = Place::take(&self.0.running, &worker).ok_or(PurgeError::Busy { whose: "this worker" })?;
        let CachePurge { tags, path_prefixes, urls, prefixes, hosts, everything, soft } = purge;
        let request_id = Some(RequestId::generate());
        let asked = WorkerPurge { worker, tags, path_prefixes, urls, prefixes, hosts, everything, soft, request_id };
        let mut applied = registry.applied.clone();
        let wait = limits::WORKER_PURGE_WAIT;
        let purged = tokio::time::timeout(wait, ask(&registry.client, &asked)).await.map_err(|_| PurgeError::Timeout { wait })??;
        let here = applied.wait_for(|applied| applied.as_ref().is_some_and(|applied| holds(&purged, applied)));
        if tokio::time::timeout(limits::WORKER_PURGE_APPLY_WAIT, here).await.is_err() {
            tracing::warn!(seq = purged.seq, "a worker's purge is made, but has not come back to this node yet");
        }
        Ok(purged)
    }
}

/// Whether a purge holds on a node that has applied the log up to here. Numbers of entries count within one epoch; a later one began with a snapshot, for which everything
/// that was stored before is confirmed before it is used.
fn holds(purged: &Purged, applied: &Position) -> bool {
    // An earlier registry does not tell its epoch.
    let epoch = purged.epoch.as_ref().unwrap_or(&applied.epoch);
    match applied.epoch.cmp(epoch) {
        Ordering::Less => false,
        Ordering::Equal => applied.seq >= purged.seq,
        Ordering::Greater => true,
    }
}

/// Asks again where the connection broke or the registry is being started anew: by the request's id it is made once.
async fn ask(client: &Client, purge: &WorkerPurge) -> Result<Purged, ClientError> {
    for _ in 1..limits::WORKER_PURGE_ATTEMPTS_MAX {
        match client.purge_of_worker(purge).await {
            // What is over a quota is so a moment later, too.
            Err(error) if error.is_transient() && !matches!(error, ClientError::Refused { status: 429, .. }) => {
                tokio::time::sleep(limits::WORKER_PURGE_RETRY_WAIT).await;
            }
            result => return result,
        }
    }
    client.purge_of_worker(purge).await
}

impl Default for Way {
    fn default() -> Self {
        Self { registry: OnceLock::new(), room: Semaphore::new(limits::WORKER_PURGES_MAX), running: Mutex::default() }
    }
}

/// One of the purges of a worker that may be on their way at the same time.
struct Place<'a> {
    running: &'a Mutex<BTreeMap<WorkerName, usize>>,
    worker: WorkerName,
}

impl<'a> Place<'a> {
    fn take(running: &'a Mutex<BTreeMap<WorkerName, usize>>, worker: &WorkerName) -> Option<Self> {
        let mut counts = running.lock();
        let count = counts.entry(worker.clone()).or_default();
        if *count >= limits::PURGES_OF_A_WORKER_MAX {
            return None;
        }
        *count += 1;
        Some(Self { running, worker: worker.clone() })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut counts = self.running.lock();
        if let Some(count) = counts.get_mut(&self.worker) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.worker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use selvedge_origin::api::wire::ErrorReply;
    use selvedge_origin::registry::{Digest, Epoch, PurgeRecord};

    #[test]
    fn a_purge_holds_where_its_entry_of_its_log_is_applied() {
        let [before, now, after] = std::array::from_fn(|_| Epoch::generate());
        let purged = |epoch| Purged { seq: 7, epoch, purge: PurgeRecord::default() };
        let at = |epoch: &Epoch, seq| Position { epoch: epoch.clone(), seq, chain: Digest::zero() };
        let of_now = purged(Some(now.clone()));
        assert!(!holds(&of_now, &at(&now, 6)) && holds(&of_now, &at(&now, 7)) && holds(&of_now, &at(&now, 8)));
        assert!(!holds(&of_now, &at(&before, 900)), "an entry of the log that was replaced is not the purge");
        assert!(holds(&of_now, &at(&after, 1)), "what was stored before is confirmed first");
        let earlier_registry = purged(None);
        assert!(!holds(&earlier_registry, &at(&now, 6)) && holds(&earlier_registry, &at(&now, 7)));
    }

    #[test]
    fn a_worker_has_so_many_purges_on_their_way_and_others_have_theirs() {
        let running = Mutex::default();
        let [shop, blog]: [WorkerName; 2] = ["shop", "blog"].map(|name| name.parse().expect("a name"));
        let mut places: Vec<_> = (0..limits::PURGES_OF_A_WORKER_MAX).filter_map(|_| Place::take(&running, &shop)).collect();
        assert_eq!(places.len(), limits::PURGES_OF_A_WORKER_MAX);
        assert!(Place::take(&running, &shop).is_none() && Place::take(&running, &blog).is_some());
        places.pop();
        assert!(Place::take(&running, &shop).is_some());
        places.clear();
        assert!(running.lock().is_empty(), "nothing is kept of workers that do not purge");
    }

    #[test]
    fn a_worker_is_told_what_to_do_and_nothing_of_the_registry() {
        let refused = |status, hint: Option<&str>| {
            let reply = ErrorReply { code: "quota".into(), message: "no".into(), hint: hint.map(str::to_owned) };
            PurgeError::Registry(ClientError::Refused { url: "https://secret:1".into(), status, reply }).refusal()
        };
        assert_eq!(refused(429, Some("later")), PurgeRefusal { code: 429, message: "no; later".into() });
        assert_eq!(refused(422, None), PurgeRefusal { code: 422, message: "no".into() });
        let broken = PurgeError::Registry(ClientError::Broken { url: "https://secret:1".into(), reason: "reset".into() });
        for away in [refused(401, None), refused(403, None), broken.refusal(), PurgeError::NoRegistry.refusal()] {
            assert!(away.code == 503 && away.message.contains("registry") && !away.message.contains("secret"), "{away}");
        }
    }
}
