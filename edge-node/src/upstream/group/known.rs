//! What a node knows of one server: it outlives declarations that keep the server.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use http::Uri;
use selvedge_origin::registry::{Protocol, Upstream};
use tokio::time::Instant;

use super::health::Schedule;
use super::standing::Standing;
use crate::upstream::UpstreamError;
use crate::upstream::connect::Destination;
use crate::upstream::manner::Manner;
use crate::upstream::pool::{Pool, Pools};

/// A server, whatever upstream has it now.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) base: Uri,
    pub(super) destination: Destination,
    pub(super) standing: Standing,
    pub(super) schedule: Schedule,
    born: Instant,
    /// Made with the first request.
    pool: OnceLock<Arc<Pool>>,
    /// The youngest group that has it: its numbers hold.
    group: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) ejections: AtomicU64,
}

/// What makes two declared servers one: the address, and how connections to it are made.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    base: Uri,
    protocol: Protocol,
    server_name: Option<String>,
    authority: Option<String>,
}

impl Identity {
    pub(super) fn new(base: &Uri, upstream: &Upstream) -> Self {
        let (server_name, authority) = (upstream.server_name.clone(), upstream.authority.clone());
        Self { base: base.clone(), protocol: upstream.protocol, server_name, authority }
    }
}

impl Known {
    /// One of which nothing is known.
    pub(super) fn new(base: Uri, destination: Destination) -> Self {
        Self {
            base,
            destination,
            standing: Standing::default(),
            schedule: Schedule::default(),
            born: Instant::now(),
            pool: OnceLock::new(),
            group: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
        }
    }

    /// From now on it is in this group.
    pub(super) fn joins(&self, group: u64, upstream: &Upstream) {
        self.group.store(group, Relaxed);
        match upstream.health {
            Some(_) => self.schedule.due_now(),
            // Nobody would find out that it is up again.
            None => self.standing.trusted(),
        }
    }

    /// Whether it is in this group, and in no younger one.
    pub(super) fn is_in(&self, group: u64) -> bool {
        self.group.load(Relaxed) == group
    }

    /// Milliseconds since it is known: its times are in these.
    pub(super) fn ms_at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }

    /// Its connections, for a request of this group.
    pub(super) fn pool(&self, group: u64, manner: Result<&Arc<Manner>, &String>, pools: &Pools) -> Result<Arc<Pool>, UpstreamError> {
        let tls = |reason: &String| UpstreamError::Tls { host: self.destination.host.to_string(), reason: reason.clone() };
        let manner = manner.map_err(tls)?;
        let pool = self.pool.get_or_init(|| pools.declared(self.destination.clone(), manner.clone()));
        if self.is_in(group) {
            pool.adopt(manner);
        }
        Ok(pool.clone())
    }

    /// Its connections, where it was ever asked.
    pub(super) fn made_pool(&self) -> Option<&Arc<Pool>> {
        self.pool.get()
    }
}
