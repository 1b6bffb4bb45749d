//! The servers of a route's upstream as this node asks them: [`choose`] one by weight, [`ask`] it and perhaps another, remember its [`standing`], retry within a
//! [`budget`], and look after it with [`health`] checks.
//!
//! A group outlives the route tables that name it: a deployment forgets neither what is known of a server nor its connections. It goes with the last table that has it.

mod ask;
mod budget;
mod choose;
pub(super) mod health;
mod standing;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use http::HeaderValue;
use http::uri::Uri;
use parking_lot::Mutex;
use selvedge_origin::registry::{self, BadUpstream};
use tokio::time::Instant;

use super::connect::Destination;
use super::pool::Pool;
use super::{Reach, destination};
use budget::Budget;
use health::Schedule;
use standing::Standing;

/// The servers of an upstream.
#[derive(Debug)]
pub struct Group {
    declared: Arc<registry::Upstream>,
    host: Option<HeaderValue>,
    servers: Box<[Server]>,
    budget: Budget,
    born: Instant,
    /// Requests that asked a further server.
    retries: AtomicU64,
}

/// One of them.
#[derive(Debug)]
struct Server {
    base: Uri,
    destination: Destination,
    weight: u32,
    backup: bool,
    standing: Standing,
    schedule: Schedule,
    /// Made with the first request: or why it cannot be.
    pool: OnceLock<Result<Arc<Pool>, String>>,
    requests: AtomicU64,
    failures: AtomicU64,
    ejections: AtomicU64,
}

/// What metrics show of one server.
#[derive(Debug, Clone)]
pub struct ServerReading {
    /// What the upstream is called.
    pub upstream: String,
    /// The server's address.
    pub address: String,
    /// Its health checks find it up, and it is not ejected.
    pub up: bool,
    /// Requests that it was asked.
    pub requests: u64,
    /// Those that failed.
    pub failures: u64,
    /// How often it was ejected.
    pub ejections: u64,
    /// Requests in flight.
    pub in_flight: usize,
    /// Requests that wait for it.
    pub queued: usize,
}

/// All groups of this node, by what was declared. Shared by route tables.
#[derive(Debug, Default)]
pub struct Groups(Mutex<HashMap<Arc<registry::Upstream>, Weak<Group>>>);

impl Groups {
    /// The group for a declaration: the one that there is, or a new one.
    pub fn get(&self, declared: &registry::Upstream) -> Result<Arc<Group>, BadUpstream> {
        let mut groups = self.0.lock();
        if let Some(group) = groups.get(declared).and_then(Weak::upgrade) {
            return Ok(group);
        }
        let group = Arc::new(Group::new(declared)?);
        groups.retain(|_, group| group.strong_count() > 0);
        groups.insert(group.declared.clone(), Arc::downgrade(&group));
        Ok(group)
    }

    /// Those that a route table names.
    pub(super) fn alive(&self) -> Vec<Arc<Group>> {
        self.0.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// How each server does, and how many requests asked a further server.
    pub fn read(&self) -> (Vec<ServerReading>, u64) {
        let groups = self.alive();
        let retries = groups.iter().map(|group| group.retries.load(Relaxed)).sum();
        (groups.iter().flat_map(|group| group.servers.iter().map(|server| server.read(group))).collect(), retries)
    }
}

impl Group {
    /// The servers that were declared.
    pub fn new(declared: &registry::Upstream) -> Result<Self, BadUpstream> {
        declared.check()?;
        let server = |(index, server): (usize, &registry::Server)| {
            let bad = |rule: &str| BadUpstream { key: format!("servers[{index}].address"), rule: rule.to_owned() };
            let base = registry::check_address(&server.address).map_err(bad)?;
            Ok(Server {
                destination: destination(&base, Reach::Operator).map_err(bad)?,
                base,
                weight: server.weight,
                backup: server.backup,
                standing: Standing::default(),
                schedule: Schedule::default(),
                pool: OnceLock::new(),
                requests: AtomicU64::new(0),
                failures: AtomicU64::new(0),
                ejections: AtomicU64::new(0),
            })
        };
        Ok(Self {
            servers: declared.servers.iter().enumerate().map(server).collect::<Result<_, BadUpstream>>()?,
            host: declared.host.as_deref().and_then(|host| HeaderValue::from_str(host).ok()),
            declared: Arc::new(declared.clone()),
            budget: Budget::default(),
            born: Instant::now(),
            retries: AtomicU64::new(0),
        })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Server {
    fn read(&self, group: &Group) -> ServerReading {
        let (in_flight, queued) = self.pool.get().and_then(|pool| pool.as_ref().ok()).map_or((0, 0), |pool| pool.load());
        ServerReading {
            upstream: group.declared.title().to_owned(),
            address: self.base.to_string(),
            up: self.standing.is_healthy() && !self.standing.is_ejected(group.now_ms()),
            requests: self.requests.load(Relaxed),
            failures: self.failures.load(Relaxed),
            ejections: self.ejections.load(Relaxed),
            in_flight,
            queued,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_the_same_while_a_table_has_it_and_goes_with_the_last() {
        let groups = Groups::default();
        let (a, b) = (registry::Upstream::at("http://a"), registry::Upstream::at("http://b"));
        let first = groups.get(&a).expect("a group");
        assert!(Arc::ptr_eq(&first, &groups.get(&a).expect("a group")));
        assert!(!Arc::ptr_eq(&first, &groups.get(&b).expect("a group")));
        assert_eq!(groups.read().0.len(), 1, "b went at once");
        let weak = Arc::downgrade(&first);
        drop(first);
        assert!(weak.upgrade().is_none());
        assert!(groups.get(&registry::Upstream::at("ftp://a")).is_err());
    }
}
