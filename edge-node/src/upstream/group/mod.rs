//! The servers of a route's upstream as this node asks them: [`choose`] one by weight, [`ask`] it and perhaps another, remember its [`standing`], retry within a
//! [`budget`], and look after it with [`health`] checks.
//!
//! A group outlives the route tables that name it. It goes with the last table that has it; what is [`known`] of its servers, and their connections, go to the group of the
//! declaration that comes in its place (see [`renewal`]): a change of a number forgets nothing.

mod ask;
mod budget;
mod choose;
pub(super) mod health;
mod known;
mod renewal;
mod standing;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use selvedge_origin::registry::{self, BadUpstream};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::manner::Manner;
use super::{Reach, destination};
use budget::Budget;
use known::{Identity, Known};

pub use renewal::Renewal;

/// The servers of an upstream.
#[derive(Debug)]
pub struct Group {
    declared: Arc<registry::Upstream>,
    /// Rises from group to group.
    number: u64,
    host: Option<HeaderValue>,
    /// How they are spoken to: or why they cannot be.
    manner: OnceLock<Result<Arc<Manner>, String>>,
    servers: Box<[Server]>,
    budget: Budget,
    /// Requests that asked a further server: of all groups.
    retries: Arc<AtomicU64>,
}

/// One of them.
#[derive(Debug)]
struct Server {
    weight: u32,
    backup: bool,
    known: Arc<Known>,
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
pub struct Groups {
    by_declaration: Mutex<HashMap<Arc<registry::Upstream>, Weak<Group>>>,
    /// There are others than before.
    changed: Arc<Notify>,
    /// Requests that asked a further server.
    retries: Arc<AtomicU64>,
}

impl Groups {
    /// Those that a route table names.
    pub(super) fn alive(&self) -> Vec<Arc<Group>> {
        self.by_declaration.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// How each server does, and how many requests asked a further server.
    pub fn read(&self) -> (Vec<ServerReading>, u64) {
        let groups = self.alive();
        let own = |group: &Arc<Group>| group.own_servers().map(|server| server.read(group)).collect::<Vec<_>>();
        (groups.iter().flat_map(own).collect(), self.retries.load(Relaxed))
    }
}

impl Group {
    /// The servers that were declared: nothing is known of them.
    pub fn new(declared: &registry::Upstream) -> Result<Self, BadUpstream> {
        Self::with(declared, Arc::default(), |_| None)
    }

    /// Time without a byte of a response's body, where its owner says one.
    pub(crate) fn body_idle_timeout(&self) -> Duration {
        Duration::from_millis(self.declared.body_idle_timeout_ms.unwrap_or(0).into())
    }

    /// Time to a response's head, and between two bytes of its body, as far as its owner says some: with the wait for a place and the connection.
    pub(crate) fn patience(&self) -> Duration {
        let declared = &self.declared;
        let head =
            [declared.queue_wait_ms, declared.connect_timeout_ms, declared.head_timeout_ms].into_iter().flatten().map(u64::from).sum();
        Duration::from_millis(head).max(self.body_idle_timeout())
    }

    /// The same, with what is known of some.
    fn with(
        declared: &registry::Upstream,
        retries: Arc<AtomicU64>,
        mut known: impl FnMut(&Identity) -> Option<Arc<Known>>,
    ) -> Result<Self, BadUpstream> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        declared.check()?;
        let number = NUMBER.fetch_add(1, Relaxed);
        let server = |(index, server): (usize, &registry::Server)| {
            let bad = |rule: &str| BadUpstream { key: format!("servers[{index}].address"), rule: rule.to_owned() };
            let base = registry::check_address(&server.address).map_err(bad)?;
            let known = match known(&Identity::new(&base, declared)) {
                Some(known) => known,
                None => Arc::new(Known::new(base.clone(), destination(&base, Reach::Operator).map_err(bad)?)),
            };
            known.joins(number, declared);
            Ok(Server { weight: server.weight, backup: server.backup, known })
        };
        Ok(Self {
            servers: declared.servers.iter().enumerate().map(server).collect::<Result<_, BadUpstream>>()?,
            host: declared.host.as_deref().and_then(|host| HeaderValue::from_str(host).ok()),
            declared: Arc::new(declared.clone()),
            number,
            manner: OnceLock::new(),
            budget: Budget::default(),
            retries,
        })
    }

    /// What it is called.
    pub(crate) fn title(&self) -> &str {
        self.declared.title()
    }

    /// The servers that have not gone over to a younger group.
    fn own_servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.known.is_in(self.number))
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}

impl Server {
    fn read(&self, group: &Group) -> ServerReading {
        let known = &self.known;
        let (in_flight, queued) = known.made_pool().map_or((0, 0), |pool| pool.load());
        ServerReading {
            upstream: group.declared.title().to_owned(),
            address: known.base.to_string(),
            up: known.standing.is_healthy() && !known.standing.is_ejected(known.ms_at(Instant::now())),
            requests: known.requests.load(Relaxed),
            failures: known.failures.load(Relaxed),
            ejections: known.ejections.load(Relaxed),
            in_flight,
            queued,
        }
    }
}
