//! Connections of each upstream: idle HTTP/1.1 connections, last in first out, and one shared HTTP/2 connection. A connection is given back
//! only by a [`Lease`] whose exchange ended cleanly; every other one is closed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use selvedge_origin::registry::{self, Protocol};
use selvedge_runtime::backlog::Backlog;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::connect::{Connector, Destination, Speaks};
use super::connection::{Connection, Http1};
use super::http2::Http2;
use super::manner::Manner;
use super::slots::{Slot, Slots};
use super::{UpstreamError, UpstreamsConfig, UpstreamsConfigError, limits};

/// All upstreams' connections.
pub(super) struct Pools {
    connector: Connector,
    usual: Arc<Manner>,
    authorities: Vec<CertificateDer<'static>>,
    pools: Mutex<HashMap<Destination, Arc<Pool>>>,
    /// Those of declared servers, which hold them.
    declared: Mutex<Vec<Weak<Pool>>>,
    idle: Arc<AtomicUsize>,
    connections: Arc<Semaphore>,
    /// Room for bodies that are gathered, in bytes.
    pub(super) gathered: Arc<Semaphore>,
}

/// The connections of one upstream.
pub(super) struct Pool {
    destination: Destination,
    manner: ArcSwap<Manner>,
    /// Idle connections of all pools.
    idle_total: Arc<AtomicUsize>,
    slots: Arc<Slots>,
    backlog: Backlog,
    state: Mutex<State>,
    /// Held by the one that connects while it is not known what the upstream speaks, or that it speaks HTTP/2: one connection is enough then.
    first: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    idle: Vec<Http1>,
    shared: Option<Arc<Http2>>,
    speaks: Option<Speaks>,
    /// The last failure to connect, for those who waited while it happened.
    failed: Option<(Instant, UpstreamError)>,
}

/// Which connections will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// An open one, or else a new one.
    Any,
    /// Not one that waits idle: those have just disappointed. A shared one that disappointed is no longer there (see [`Lease::retire`]).
    New,
}

/// The right to one exchange with an upstream, and its connection. Dropping it closes an HTTP/1.1 connection; [`Lease::finish`] gives it back.
#[must_use]
pub(super) struct Lease {
    pools: Arc<Pools>,
    pool: Arc<Pool>,
    connection: Option<Connection>,
    _slot: Slot,
    /// Bytes received on the connection before this exchange.
    received_before: u64,
    condemned: bool,
    /// The connection has served others before.
    pub(super) reused: bool,
}

impl Pools {
    /// Nothing is connected yet.
    pub(super) fn new(config: UpstreamsConfig, connector: Connector) -> Result<Self, UpstreamsConfigError> {
        Ok(Self {
            connector,
            usual: Arc::new(Manner::usual(&config)?),
            authorities: config.authorities,
            pools: Mutex::default(),
            declared: Mutex::default(),
            idle: Arc::default(),
            connections: Arc::new(Semaphore::new(limits::CONNECTIONS_TOTAL_MAX)),
            gathered: Arc::new(Semaphore::new(limits::GATHERED_BYTES_MAX)),
        })
    }

    /// How the servers of an upstream are spoken to.
    pub(super) fn manner(&self, upstream: &registry::Upstream) -> Result<Arc<Manner>, String> {
        Ok(Arc::new(self.usual.declared(upstream, &self.authorities)?))
    }

    /// A pool for a declared server, which keeps it: its connections are nobody else's.
    pub(super) fn declared(&self, destination: Destination, manner: Arc<Manner>) -> Arc<Pool> {
        let pool = Arc::new(Pool::new(destination, manner, self.idle.clone()));
        let mut declared = self.declared.lock();
        declared.retain(|pool| pool.strong_count() > 0);
        declared.push(Arc::downgrade(&pool));
        pool
    }

    /// The pool of a destination.
    pub(super) fn pool(&self, destination: Destination) -> Arc<Pool> {
        let mut pools = self.pools.lock();
        if let Some(pool) = pools.get(&destination) {
            return pool.clone();
        }
        if pools.len() >= limits::UPSTREAMS_MAX {
            // Those that nobody uses; where all are used, requests in flight bound their number.
            pools.retain(|_, pool| Arc::strong_count(pool) > 1 || !pool.is_unused());
        }
        let pool = Arc::new(Pool::new(destination.clone(), self.usual.clone(), self.idle.clone()));
        pools.insert(destination, pool.clone());
        pool
    }

    /// Closes what has been idle too long, and forgets upstreams that nobody uses.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.pools.lock().retain(|_, pool| {
            self.close_idle(pool, now);
            Arc::strong_count(pool) > 1 || !pool.is_unused()
        });
        let declared: Vec<Arc<Pool>> = self.declared.lock().iter().filter_map(Weak::upgrade).collect();
        declared.iter().for_each(|pool| self.close_idle(pool, now));
    }

    fn close_idle(&self, pool: &Pool, now: Instant) {
        let idle_timeout = pool.manner.load().idle_timeout;
        let mut state = pool.state.lock();
        let before = state.idle.len();
        state.idle.retain(|connection| !connection.sender.is_closed() && now.duration_since(connection.idle_since) < idle_timeout);
        self.idle.fetch_sub(before - state.idle.len(), Ordering::Relaxed);
        if let Some(shared) = &state.shared {
            let unused = Arc::strong_count(shared) == 1 && now.duration_since(*shared.used.lock()) >= idle_timeout;
            if unused || shared.is_closed() {
                state.shared = None;
            }
        }
    }

    /// Open connections that wait for a request.
    pub(super) fn idle(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }

    /// Open connections.
    pub(super) fn open(&self) -> usize {
        limits::CONNECTIONS_TOTAL_MAX - self.connections.available_permits()
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.connections.clone().try_acquire_owned() {
            return Some(permit);
        }
        // Those that nobody uses are the first to go; one upstream's are enough.
        let evict = |pool: &Pool| {
            let mut state = pool.state.lock();
            let shared = state.shared.take_if(|shared| Arc::strong_count(shared) == 1);
            let evicted = std::mem::take(&mut state.idle);
            self.idle.fetch_sub(evicted.len(), Ordering::Relaxed);
            shared.is_some() || !evicted.is_empty()
        };
        let evicted = self.pools.lock().values().any(|pool| evict(pool))
            || self.declared.lock().iter().filter_map(Weak::upgrade).any(|pool| evict(&pool));
        // One over HTTP/2 says goodbye first.
        let wait = if evicted { limits::EVICTION_WAIT } else { Duration::ZERO };
        timeout(wait, self.connections.clone().acquire_owned()).await.ok()?.ok()
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("destination", &self.destination).finish_non_exhaustive()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.idle_total.fetch_sub(self.state.get_mut().idle.len(), Ordering::Relaxed);
    }
}

impl Pool {
    fn new(destination: Destination, manner: Arc<Manner>, idle_total: Arc<AtomicUsize>) -> Self {
        Self {
            destination,
            idle_total,
            slots: Slots::new(manner.requests_max),
            manner: ArcSwap::new(manner),
            backlog: Backlog::default(),
            state: Mutex::default(),
            first: tokio::sync::Mutex::default(),
        }
    }

    fn is_unused(&self) -> bool {
        let state = self.state.lock();
        state.idle.is_empty() && state.shared.is_none()
    }

    /// The host of its server.
    pub(super) fn host(&self) -> &Arc<str> {
        &self.destination.host
    }

    /// How its server is spoken to.
    pub(super) fn manner(&self) -> Arc<Manner> {
        self.manner.load_full()
    }

    /// From now on its server is spoken to like this. What is open stays, and what is in flight counts.
    pub(super) fn adopt(&self, manner: &Arc<Manner>) {
        if Arc::ptr_eq(&self.manner.load(), manner) {
            return;
        }
        let _one_at_a_time = self.state.lock();
        self.manner.store(manner.clone());
        self.slots.resize(manner.requests_max);
    }

    /// Requests in flight, and those that wait.
    pub(super) fn load(&self) -> (usize, usize) {
        (self.slots.taken(), self.backlog.waiting())
    }

    /// As many requests are in flight as may be.
    pub(super) fn is_full(&self) -> bool {
        self.slots.is_full()
    }

    /// Waits for a place among the requests in flight, in a bounded queue, for a bounded time; for a short one where that queue stands.
    pub(super) async fn slot(&self) -> Result<Slot, UpstreamError> {
        if let Some(slot) = self.slots.try_take() {
            return Ok(slot);
        }
        let overloaded = || UpstreamError::Overloaded { host: self.host().to_string() };
        let (queue_max, queue_wait) = {
            let manner = self.manner.load();
            (manner.queue_max, manner.queue_wait)
        };
        let mut place = self.backlog.enter(Instant::now().into_std(), queue_wait, queue_max).ok_or_else(overloaded)?;
        timeout_at(place.turn().until().into(), self.slots.take()).await.ok().flatten().ok_or_else(overloaded)
    }
}

/// A connection for one exchange. Cancel-safe.
pub(super) async fn lease(pools: &Arc<Pools>, pool: &Arc<Pool>, slot: Slot, want: Want) -> Result<Lease, UpstreamError> {
    let (connection, reused) = match open_connection(pools, pool, want).await {
        Some(connection) => (connection, true),
        None => connect(pools, pool).await?,
    };
    let received_before = connection.received();
    Ok(Lease {
        pools: pools.clone(),
        pool: pool.clone(),
        connection: Some(connection),
        _slot: slot,
        received_before,
        condemned: false,
        reused,
    })
}

/// An open connection that is ready, the one used last first.
async fn open_connection(pools: &Pools, pool: &Pool, want: Want) -> Option<Connection> {
    loop {
        let mut candidate = {
            let mut state = pool.state.lock();
            if let Some(shared) = usable_shared(&mut state, &pool.manner.load()) {
                return Some(Connection::Http2(shared));
            }
            if want == Want::New {
                return None;
            }
            let candidate = state.idle.pop()?;
            pools.idle.fetch_sub(1, Ordering::Relaxed);
            candidate
        };
        let too_old =
            candidate.idle_since.elapsed() >= pool.manner.load().idle_timeout || candidate.born.elapsed() >= limits::CONNECTION_AGE_MAX;
        if too_old || candidate.sender.is_closed() {
            continue;
        }
        // Its last response has ended, but its task may still be about to notice. One that does not settle (the request's body is still
        // going out, or bytes came that nobody asked for) is closed by being dropped.
        if candidate.sender.is_ready() || matches!(timeout(limits::SETTLE_TIME, candidate.sender.ready()).await, Ok(Ok(()))) {
            candidate.look.again();
            return Some(Connection::Http1(candidate));
        }
    }
}

/// The shared connection, where it still takes requests.
fn usable_shared(state: &mut State, manner: &Manner) -> Option<Arc<Http2>> {
    let shared = state.shared.as_ref()?;
    let is_old = shared.born.elapsed() >= limits::CONNECTION_AGE_MAX || manner.idle_timeout.is_zero();
    if shared.is_closed() || is_old || !shared.begin_request(manner.requests_per_connection_max) {
        // Streams in flight hold it, and end it.
        state.shared = None;
        return None;
    }
    *shared.used.lock() = Instant::now();
    Some(shared.clone())
}

/// A new connection. Where the upstream may speak HTTP/2, one connects and the others wait for what it finds out.
async fn connect(pools: &Pools, pool: &Pool) -> Result<(Connection, bool), UpstreamError> {
    let manner = pool.manner.load_full();
    let is_h1 = match manner.protocol {
        Protocol::H1 => true,
        Protocol::H2 => false,
        Protocol::Auto => !pool.destination.secure,
    };
    if is_h1 || pool.state.lock().speaks == Some(Speaks::Http1) {
        return Ok((connect_now(pools, pool).await?, false));
    }
    let began = Instant::now();
    let waited = timeout(manner.connect_timeout, pool.first.lock()).await;
    let first = waited.map_err(|_| manner.connect_timed_out(&pool.destination.host))?;
    let speaks = {
        let mut state = pool.state.lock();
        if let Some(shared) = usable_shared(&mut state, &manner) {
            return Ok((Connection::Http2(shared), true));
        }
        if let Some((when, error)) = &state.failed
            && *when >= began
        {
            return Err(error.clone());
        }
        state.speaks
    };
    if speaks == Some(Speaks::Http1) {
        drop(first);
    }
    Ok((connect_now(pools, pool).await?, false))
}

async fn connect_now(pools: &Pools, pool: &Pool) -> Result<Connection, UpstreamError> {
    let connected = establish(pools, pool).await;
    let mut state = pool.state.lock();
    match &connected {
        Ok(Connection::Http2(shared)) => {
            state.speaks = Some(Speaks::Http2);
            state.shared = Some(shared.clone());
        }
        Ok(Connection::Http1(_)) => state.speaks = Some(Speaks::Http1),
        Err(error) => {
            state.failed = Some((Instant::now(), error.clone()));
            state.speaks = None;
        }
    }
    connected
}

async fn establish(pools: &Pools, pool: &Pool) -> Result<Connection, UpstreamError> {
    let open = pools.permit().await.ok_or_else(|| UpstreamError::Overloaded { host: pool.host().to_string() })?;
    let manner = pool.manner.load_full();
    let (transport, speaks) = pools.connector.connect(&pool.destination, &manner).await?;
    let handshake = Connection::begin(transport, speaks, open);
    match timeout(manner.connect_timeout, handshake).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(reason)) => Err(UpstreamError::Protocol { host: pool.host().to_string(), reason }),
        Err(_) => Err(manner.connect_timed_out(&pool.destination.host)),
    }
}

impl Lease {
    /// The connection.
    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut()
    }

    /// Bytes came since the lease began: the upstream has begun to answer.
    pub(super) fn has_received(&self) -> bool {
        match &self.connection {
            Some(connection @ Connection::Http1(_)) => connection.received() > self.received_before,
            // Other streams' bytes count too; HTTP/2 says itself which streams it has not looked at.
            Some(Connection::Http2(_)) | None => true,
        }
    }

    /// The connection serves this exchange to its end, and no other.
    pub(super) fn condemn(&mut self) {
        self.condemned = true;
    }

    /// No answer came: a shared connection on which nothing at all came since takes no new requests; those in flight have their own bounds.
    pub(super) fn suspect(&self) {
        if let Some(Connection::Http2(silent)) = &self.connection
            && silent.received() == self.received_before
        {
            self.retire();
        }
    }

    /// A shared connection takes no new requests: it has just refused one. Those in flight end on it. One that others have put in its place stays.
    pub(super) fn retire(&self) {
        if let Some(Connection::Http2(ours)) = &self.connection {
            let mut state = self.pool.state.lock();
            if state.shared.as_ref().is_some_and(|shared| Arc::ptr_eq(shared, ours)) {
                state.shared = None;
            }
        }
    }

    /// How its server is spoken to.
    pub(super) fn manner(&self) -> Arc<Manner> {
        self.pool.manner()
    }

    /// Closes the connection, and keeps the right to an exchange.
    pub(super) fn into_slot(self) -> Slot {
        self._slot
    }

    /// The exchange ended cleanly: the connection may serve another.
    pub(super) fn finish(mut self) {
        if self.condemned {
            return;
        }
        match self.connection.take() {
            Some(Connection::Http1(mut connection)) => {
                let manner = self.pool.manner.load();
                let mut state = self.pool.state.lock();
                let idle_total = self.pools.idle.load(Ordering::Relaxed);
                connection.served += 1;
                if connection.sender.is_closed()
                    || manner.idle_timeout.is_zero()
                    || connection.served >= manner.requests_per_connection_max
                    || state.idle.len() >= limits::IDLE_PER_UPSTREAM_MAX
                    || idle_total >= limits::IDLE_TOTAL_MAX
                {
                    return;
                }
                connection.idle_since = Instant::now();
                state.idle.push(connection);
                self.pools.idle.fetch_add(1, Ordering::Relaxed);
            }
            Some(Connection::Http2(shared)) => *shared.used.lock() = Instant::now(),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use selvedge_runtime::Body;
    use tokio::net::TcpListener;

    use super::*;
    use crate::upstream::{Reach, forward};

    /// A server that answers every request over HTTP/2 in cleartext.
    async fn server() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                respond.send_response(Response::new(()), true).unwrap();
            }
        });
        port
    }

    #[tokio::test]
    async fn an_unused_connection_over_h2_gives_its_place_to_another_servers() {
        let config = UpstreamsConfig::default();
        let pools = Arc::new(Pools::new(config.clone(), Connector::new(&config).unwrap()).unwrap());
        let manner = Arc::new(Manner { protocol: Protocol::H2, ..Manner::usual(&config).unwrap() });
        pools.connections.forget_permits(limits::CONNECTIONS_TOTAL_MAX - 1);
        let to = |port| Destination { secure: false, host: "127.0.0.1".into(), port, reach: Reach::Operator };
        let (first, second) = (pools.declared(to(server().await), manner.clone()), pools.declared(to(server().await), manner));
        let get = || Request::get("http://127.0.0.1/").body(Body::empty()).unwrap();
        let held = lease(&pools, &first, first.slot().await.unwrap(), Want::Any).await.unwrap();
        let refused = forward::send(&pools, &second, get()).await.err().unwrap();
        assert!(matches!(refused.error, UpstreamError::Overloaded { .. }), "{}", refused.error);
        held.finish();
        assert!(forward::send(&pools, &second, get()).await.is_ok());
    }
}
