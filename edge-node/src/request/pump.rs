//! Moves a body from whom we asked to a fill's readers, and holds it to be stored: in memory while it is small, on disk as it arrives where it is not.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as HttpBody;
use selvedge_runtime::{Body, BodyError};

use super::route::{Aim, Answerer};
use crate::cache::Cache;
use crate::cache::collapse::Obligation;
use crate::cache::disk::Spill;
use crate::limits::FILL_IDLE_TIMEOUT;
use crate::metrics::RouteCounters;

/// What a body may take.
#[derive(Clone, Copy)]
pub(super) struct Room<'a> {
    /// Bytes in memory.
    pub(super) memory_bytes_max: u64,
    /// Bytes at all.
    pub(super) bytes_max: u64,
    /// Its length where it is known.
    pub(super) length: Option<u64>,
    /// What is too large for memory goes to its disk.
    pub(super) disk: Option<&'a Cache>,
    /// Where it is counted if it has to leave the disk.
    pub(super) route: Option<&'a Arc<RouteCounters>>,
    /// Time without a byte.
    pub(super) idle_timeout: Duration,
}

/// Where a body is, all of it or up to now.
pub(super) enum Held {
    /// In the fill's chunks.
    InMemory,
    /// On disk, or on its way there.
    OnDisk(Spill),
    /// It is not to be stored.
    Nowhere,
}

impl Held {
    pub(super) fn is_in_memory(&self) -> bool {
        matches!(self, Self::InMemory)
    }
}

/// Time without a byte of a body: what is usual, or more where the upstream's owner declares more.
pub(super) fn idle_timeout(aim: &Aim) -> Duration {
    let declared = if let Answerer::Upstream(upstream) = &aim.answerer { upstream.body_idle_timeout() } else { Duration::ZERO };
    FILL_IDLE_TIMEOUT.max(declared)
}

/// Moves the body to the readers. Gives its length, and where it is held to be stored.
pub(super) async fn pump(obligation: &Obligation, mut body: Body, room: Room<'_>) -> (Result<u64, BodyError>, Held) {
    let (mut read, mut held, mut bytes_max) = (0, Held::InMemory, room.bytes_max);
    loop {
        if matches!(held, Held::Nowhere) && !obligation.room().await {
            return (Err(BodyError::Aborted("nobody reads any more".into())), held);
        }
        let frame = tokio::time::timeout(room.idle_timeout, std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))).await;
        let data = match frame {
            Err(_) => return (Err(BodyError::Stalled { ms: room.idle_timeout.as_millis() as u64 }), Held::Nowhere),
            Ok(None) => return (Ok(read), held),
            Ok(Some(Err(error))) => return (Err(error), Held::Nowhere),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => data,
                // Trailers are of this transfer, not of the response (RFC 9110, section 6.5.1: they may be dropped).
                Err(_) => continue,
            },
        };
        read += data.len() as u64;
        // A copy, so that what is kept does not pin the connection's larger buffer.
        let data = Bytes::copy_from_slice(&data);
        let (in_memory, within) = obligation.push(data.clone());
        if matches!(held, Held::Nowhere) {
            continue;
        }
        let goes_on = read <= bytes_max && !obligation.is_discarded();
        held = match held {
            Held::InMemory if goes_on && in_memory <= room.memory_bytes_max && !room.is_large() && within => Held::InMemory,
            Held::InMemory if goes_on => {
                bytes_max = room.sliced_bytes_max();
                begin(obligation, room).await.filter(|_| read <= bytes_max).map_or(Held::Nowhere, Held::OnDisk)
            }
            Held::OnDisk(mut spill) if goes_on => {
                if spill.push(data).await.is_ok() {
                    obligation.spilled(spill.begin());
                    Held::OnDisk(spill)
                } else {
                    // Readers who are behind still have what did not get there.
                    Held::Nowhere
                }
            }
            _ => Held::Nowhere,
        };
        if matches!(held, Held::Nowhere) {
            obligation.pace();
        }
    }
}

/// Takes what has arrived to disk, where there is one that takes the whole.
async fn begin(obligation: &Obligation, room: Room<'_>) -> Option<Spill> {
    let mut spill = room.disk?.spill(room.route)?;
    if room.length.is_some_and(|length| length > room.sliced_bytes_max()) {
        return None;
    }
    for chunk in obligation.all_chunks() {
        spill.push(chunk).await.ok()?;
    }
    Some(spill)
}

impl Room<'_> {
    /// Bytes that go to disk in slices; 0 where none do.
    pub(super) fn sliced_bytes_max(&self) -> u64 {
        self.disk.map_or(0, |cache| cache.sliced_bytes_max(self.bytes_max))
    }

    /// Whether it is known to be too large for memory.
    fn is_large(&self) -> bool {
        self.length.is_some_and(|length| length > self.memory_bytes_max)
    }
}
