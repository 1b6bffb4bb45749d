//! Connections of each upstream: idle HTTP/1.1 connections, last in first out, and one shared HTTP/2 connection. A connection is given back
//! only by a [`Lease`] whose exchange ended cleanly; every other one is closed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::connect::{Connector, Destination, Speaks};
use super::connection::{Connection, Http1, Http2};
use super::{UpstreamError, UpstreamsConfig, limits};

/// All upstreams' connections.
pub(super) struct Pools {
    connector: Connector,
    config: UpstreamsConfig,
    pools: Mutex<HashMap<Destination, Arc<Pool>>>,
    idle: AtomicUsize,
    connections: Arc<Semaphore>,
}

/// The connections of one upstream.
pub(super) struct Pool {
    destination: Destination,
    slots: Arc<Semaphore>,
    queued: AtomicUsize,
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
    /// A new one: open ones have just disappointed.
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

/// One of the requests in flight that an upstream may have.
pub(super) struct Slot(#[allow(dead_code, reason = "held for its Drop")] OwnedSemaphorePermit);

impl Pools {
    /// Nothing is connected yet.
    pub(super) fn new(config: UpstreamsConfig, connector: Connector) -> Self {
        Self {
            connector,
            config,
            pools: Mutex::default(),
            idle: AtomicUsize::new(0),
            connections: Arc::new(Semaphore::new(limits::CONNECTIONS_TOTAL_MAX)),
        }
    }

    /// The bounds in force.
    pub(super) fn config(&self) -> &UpstreamsConfig {
        &self.config
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
        let pool = Arc::new(Pool {
            destination: destination.clone(),
            slots: Arc::new(Semaphore::new(self.config.requests_per_upstream_max)),
            queued: AtomicUsize::new(0),
            state: Mutex::default(),
            first: tokio::sync::Mutex::default(),
        });
        pools.insert(destination, pool.clone());
        pool
    }

    /// Closes what has been idle too long, and forgets upstreams that nobody uses.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.pools.lock().retain(|_, pool| {
            let mut state = pool.state.lock();
            let before = state.idle.len();
            state.idle.retain(|connection| {
                !connection.sender.is_closed() && now.duration_since(connection.idle_since) < self.config.idle_timeout
            });
            self.idle.fetch_sub(before - state.idle.len(), Ordering::Relaxed);
            if let Some(shared) = &state.shared {
                let unused = Arc::strong_count(shared) == 1 && now.duration_since(*shared.used.lock()) >= self.config.idle_timeout;
                if unused || shared.sender.is_closed() {
                    state.shared = None;
                }
            }
            drop(state);
            Arc::strong_count(pool) > 1 || !pool.is_unused()
        });
    }

    /// Open connections that wait for a request.
    pub(super) fn idle(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }

    /// Open connections.
    pub(super) fn open(&self) -> usize {
        limits::CONNECTIONS_TOTAL_MAX - self.connections.available_permits()
    }

    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.connections.clone().try_acquire_owned() {
            return Some(permit);
        }
        // Idle connections are the first to go; one upstream's are enough.
        let pools = self.pools.lock();
        for pool in pools.values() {
            let evicted = std::mem::take(&mut pool.state.lock().idle);
            self.idle.fetch_sub(evicted.len(), Ordering::Relaxed);
            if !evicted.is_empty() {
                drop(evicted);
                break;
            }
        }
        drop(pools);
        self.connections.clone().try_acquire_owned().ok()
    }
}

impl Pool {
    fn is_unused(&self) -> bool {
        let state = self.state.lock();
        state.idle.is_empty() && state.shared.is_none()
    }

    fn host(&self) -> String {
        self.destination.host.to_string()
    }

    /// Waits for a place among the requests in flight, in a bounded queue, for a bounded time.
    pub(super) async fn slot(&self, config: &UpstreamsConfig) -> Result<Slot, UpstreamError> {
        if let Ok(permit) = self.slots.clone().try_acquire_owned() {
            return Ok(Slot(permit));
        }
        let overloaded = || UpstreamError::Overloaded { host: self.host() };
        let place = Queued::enter(&self.queued, config.queue_per_upstream_max).ok_or_else(overloaded)?;
        let permit = timeout(config.queue_wait, self.slots.clone().acquire_owned()).await;
        drop(place);
        permit.ok().and_then(Result::ok).map(Slot).ok_or_else(overloaded)
    }
}

/// A place in a queue.
struct Queued<'a>(&'a AtomicUsize);

impl<'a> Queued<'a> {
    fn enter(queue: &'a AtomicUsize, max: usize) -> Option<Self> {
        let enter = |length| (length < max).then_some(length + 1);
        queue.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter).ok().map(|_| Self(queue))
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A connection for one exchange. Cancel-safe.
pub(super) async fn lease(pools: &Arc<Pools>, pool: &Arc<Pool>, slot: Slot, want: Want) -> Result<Lease, UpstreamError> {
    let (connection, reused) = match open_connection(pools, pool, want).await {
        Some(connection) => (connection, true),
        None => connect(pools, pool, want).await?,
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
    if want == Want::New {
        return None;
    }
    loop {
        let mut candidate = {
            let mut state = pool.state.lock();
            if let Some(shared) = usable_shared(&mut state) {
                return Some(Connection::Http2(shared));
            }
            let candidate = state.idle.pop()?;
            pools.idle.fetch_sub(1, Ordering::Relaxed);
            candidate
        };
        let too_old = candidate.idle_since.elapsed() >= pools.config.idle_timeout || candidate.born.elapsed() >= limits::CONNECTION_AGE_MAX;
        if too_old || candidate.sender.is_closed() {
            continue;
        }
        // Its last response has ended, but its task may still be about to notice. One that does not settle (the request's body is still
        // going out, or bytes came that nobody asked for) is closed by being dropped.
        if candidate.sender.is_ready() || matches!(timeout(limits::SETTLE_TIME, candidate.sender.ready()).await, Ok(Ok(()))) {
            return Some(Connection::Http1(candidate));
        }
    }
}

/// The shared connection, where it still takes requests.
fn usable_shared(state: &mut State) -> Option<Arc<Http2>> {
    let shared = state.shared.as_ref()?;
    if shared.sender.is_closed() || shared.born.elapsed() >= limits::CONNECTION_AGE_MAX {
        // Streams in flight hold it, and end it.
        state.shared = None;
        return None;
    }
    *shared.used.lock() = Instant::now();
    Some(shared.clone())
}

/// A new connection. Where the upstream may speak HTTP/2, one connects and the others wait for what it finds out.
async fn connect(pools: &Pools, pool: &Pool, want: Want) -> Result<(Connection, bool), UpstreamError> {
    if !pool.destination.secure || pool.state.lock().speaks == Some(Speaks::Http1) {
        return Ok((connect_now(pools, pool).await?, false));
    }
    let began = Instant::now();
    let waited = timeout(pools.config.connect_timeout, pool.first.lock()).await;
    let _first =
        waited.map_err(|_| UpstreamError::ConnectTimeout { host: pool.host(), ms: pools.config.connect_timeout.as_millis() as u64 })?;
    let speaks = {
        let mut state = pool.state.lock();
        let fresh_enough = |shared: &Arc<Http2>| want == Want::Any || shared.born >= began;
        if let Some(shared) = usable_shared(&mut state).filter(fresh_enough) {
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
        drop(_first);
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
    let open = pools.permit().ok_or_else(|| UpstreamError::Overloaded { host: pool.host() })?;
    let (transport, speaks) = pools.connector.connect(&pool.destination).await?;
    let handshake = Connection::begin(transport, speaks, open);
    match timeout(pools.config.connect_timeout, handshake).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(UpstreamError::Protocol { host: pool.host(), reason: error.to_string() }),
        Err(_) => Err(UpstreamError::ConnectTimeout { host: pool.host(), ms: pools.config.connect_timeout.as_millis() as u64 }),
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
            let mut state = self.pool.state.lock();
            if state.shared.as_ref().is_some_and(|shared| Arc::ptr_eq(shared, silent)) {
                state.shared = None;
            }
        }
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
                let mut state = self.pool.state.lock();
                let idle_total = self.pools.idle.load(Ordering::Relaxed);
                if connection.sender.is_closed()
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
