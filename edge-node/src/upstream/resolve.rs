//! Names to addresses: A and AAAA side by side, with a cache of our own. Literals and `localhost` never become a query.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver as Hickory, TokioResolver};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::limits;

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ResolveError {
    /// It is no host name.
    #[error("not a host name")]
    BadName,
    /// The name server says that there is no such name, or no address for it.
    #[error("no such name, or no address for it")]
    NoAddress,
    /// No name server gave an answer.
    #[error("{0}")]
    Failed(String),
    /// Too many queries are under way.
    #[error("too many names are being resolved")]
    Busy,
}

/// The addresses of a name, IPv6 first within each pair (RFC 8305, section 4).
pub(super) type Addresses = Arc<[IpAddr]>;

/// Resolves names. Shared by all upstreams.
pub(super) struct Resolver {
    inner: Arc<Inner>,
}

struct Inner {
    hickory: TokioResolver,
    state: Mutex<State>,
    queries: Semaphore,
}

#[derive(Default)]
struct State {
    cache: HashMap<Arc<str>, Entry>,
    underway: HashMap<Arc<str>, WeakShared<Query>>,
}

type Query = BoxFuture<'static, Result<Addresses, ResolveError>>;

struct Entry {
    result: Result<Addresses, ResolveError>,
    expires: Instant,
}

impl Resolver {
    /// Asks `servers`, or the system's where there are none.
    pub(super) fn new(servers: &[SocketAddr]) -> Result<Self, String> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|error| error.to_string())?
        } else {
            let servers = servers.iter().map(|server| name_server(*server)).collect();
            Hickory::builder_with_config(ResolverConfig::from_name_servers(servers), TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        // The cache is ours: bounded in names, with negative answers, and cleared of nothing by a lookup for another type.
        options.cache_size = 0;
        options.timeout = limits::QUERY_TIMEOUT;
        options.attempts = limits::QUERY_ATTEMPTS.saturating_sub(1);
        options.use_hosts_file = if servers.is_empty() { ResolveHosts::Always } else { ResolveHosts::Never };
        options.try_tcp_on_error = true;
        let hickory = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { inner: Arc::new(Inner { hickory, state: Mutex::default(), queries: Semaphore::new(limits::QUERIES_MAX) }) })
    }

    /// The addresses of `host`: a name, an address, or an IPv6 address in brackets. Simultaneous calls for one name share one query;
    /// dropping the last of them drops the query.
    pub(super) async fn resolve(&self, host: &str) -> Result<Addresses, ResolveError> {
        let host = host.strip_suffix('.').unwrap_or(host);
        if let Some(literal) = literal(host) {
            return Ok(Arc::new([literal]));
        }
        let host = host.to_ascii_lowercase();
        // RFC 6761, section 6.3: localhost is loopback, and no query for it leaves the machine.
        if host == "localhost" || host.ends_with(".localhost") {
            return Ok(Arc::new([IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)]));
        }
        if !is_host_name(&host) {
            return Err(ResolveError::BadName);
        }
        match self.begin(host.into()) {
            Ok(known) => known,
            Err(query) => query.await,
        }
    }

    /// What the cache says, or the query to wait for.
    fn begin(&self, host: Arc<str>) -> Result<Result<Addresses, ResolveError>, Shared<Query>> {
        let mut state = self.inner.state.lock();
        if let Some(entry) = state.cache.get(&host)
            && entry.expires > Instant::now()
        {
            return Ok(entry.result.clone());
        }
        if let Some(query) = state.underway.get(&host).and_then(WeakShared::upgrade) {
            return Err(query);
        }
        if state.underway.len() >= limits::QUERIES_MAX {
            state.underway.retain(|_, query| query.upgrade().is_some());
            if state.underway.len() >= limits::QUERIES_MAX {
                return Ok(Err(ResolveError::Busy));
            }
        }
        let query = query(Arc::downgrade(&self.inner), host.clone()).boxed().shared();
        if let Some(weak) = query.downgrade() {
            state.underway.insert(host, weak);
        }
        Err(query)
    }
}

/// Asks for both families, and keeps the answer.
async fn query(inner: Weak<Inner>, host: Arc<str>) -> Result<Addresses, ResolveError> {
    let inner = inner.upgrade().ok_or(ResolveError::Busy)?;
    let _permit = inner.queries.acquire().await.map_err(|_| ResolveError::Busy)?;
    let (mut result, ttl) = ask(&inner.hickory, &host).await;
    let now = Instant::now();
    let mut state = inner.state.lock();
    state.underway.remove(&host);
    // RFC 8767: where no server answers, an old answer is better than none.
    if let (Err(ResolveError::Failed(_)), Some(Entry { result: Ok(old), expires })) = (&result, state.cache.get(&host))
        && *expires + limits::STALE_ANSWER_MAX > now
    {
        tracing::warn!(host = &*host, "no name server answers: using the last answer");
        return Ok(old.clone());
    }
    if let Ok(addresses) = &mut result {
        *addresses = interleave(addresses);
    }
    make_room(&mut state.cache, now);
    state.cache.insert(host, Entry { result: result.clone(), expires: now + ttl });
    result
}

/// Asks for A and AAAA together. Once one has addresses, the other has the resolution delay of RFC 8305, section 3.
async fn ask(hickory: &TokioResolver, host: &str) -> (Result<Addresses, ResolveError>, Duration) {
    let Ok(mut name) = Name::from_ascii(host) else { return (Err(ResolveError::BadName), limits::NEGATIVE_TTL) };
    // A name with a dot is absolute: a search list must not turn a customer's name into one of the network's. Single labels (`db`) may be
    // meant for the search list.
    name.set_fqdn(host.contains('.'));
    let v6 = one_family(hickory, name.clone(), RecordType::AAAA);
    let v4 = one_family(hickory, name, RecordType::A);
    tokio::pin!(v6, v4);
    let (first, second) = tokio::select! {
        first = &mut v6 => {
            let second = if first.is_ok() { tokio::time::timeout(limits::RESOLUTION_DELAY, v4).await.ok() } else { Some(v4.await) };
            (first, second)
        }
        first = &mut v4 => {
            let second = if first.is_ok() { tokio::time::timeout(limits::RESOLUTION_DELAY, v6).await.ok() } else { Some(v6.await) };
            (first, second)
        }
    };
    let answers = [Some(first), second];
    let mut addresses = Vec::new();
    let mut ttl = limits::TTL_MAX;
    let mut error = None;
    for answer in answers.into_iter().flatten() {
        match answer {
            Ok((found, found_ttl)) => {
                addresses.extend(found);
                ttl = ttl.min(found_ttl);
            }
            // A failure says more than "no such record" of the other family.
            Err(failed @ ResolveError::Failed(_)) => error = Some(failed),
            Err(other) => error = error.or(Some(other)),
        }
    }
    if addresses.is_empty() {
        let error = error.unwrap_or(ResolveError::NoAddress);
        let ttl = if error == ResolveError::NoAddress { limits::NEGATIVE_TTL } else { limits::TTL_MIN };
        return (Err(error), ttl);
    }
    (Ok(addresses.into()), ttl.max(limits::TTL_MIN))
}

async fn one_family(hickory: &TokioResolver, name: Name, kind: RecordType) -> Result<(Vec<IpAddr>, Duration), ResolveError> {
    let lookup = hickory.lookup(name, kind).await.map_err(|error: NetError| {
        if error.is_no_records_found() { ResolveError::NoAddress } else { ResolveError::Failed(error.to_string()) }
    })?;
    let mut ttl = limits::TTL_MAX;
    let mut addresses = Vec::new();
    for record in lookup.answers() {
        ttl = ttl.min(Duration::from_secs(record.ttl.into()));
        match &record.data {
            RData::A(address) => addresses.push(IpAddr::V4(address.0)),
            RData::AAAA(address) => addresses.push(IpAddr::V6(address.0)),
            _ => {}
        }
    }
    addresses.truncate(limits::ADDRESSES_MAX);
    if addresses.is_empty() { Err(ResolveError::NoAddress) } else { Ok((addresses, ttl)) }
}

/// IPv6 and IPv4 in turn, IPv6 first (RFC 8305, section 4).
fn interleave(addresses: &[IpAddr]) -> Addresses {
    let mut v6 = addresses.iter().filter(|address| address.is_ipv6());
    let mut v4 = addresses.iter().filter(|address| address.is_ipv4());
    let mut ordered = Vec::with_capacity(addresses.len());
    loop {
        match (v6.next(), v4.next()) {
            (None, None) => break,
            (first, second) => ordered.extend(first.into_iter().chain(second)),
        }
    }
    ordered.truncate(limits::ADDRESSES_MAX);
    ordered.into()
}

/// Keeps the cache within its bound: what has expired goes first, then an eighth of the rest, whichever comes.
fn make_room(cache: &mut HashMap<Arc<str>, Entry>, now: Instant) {
    if cache.len() < limits::NAMES_MAX {
        return;
    }
    cache.retain(|_, entry| entry.expires > now);
    if cache.len() >= limits::NAMES_MAX {
        let victims: Vec<_> = cache.keys().take(limits::NAMES_MAX / 8).cloned().collect();
        for victim in victims {
            cache.remove(&victim);
        }
    }
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
        .into_iter()
        .map(|mut connection| {
            connection.port = server.port();
            connection
        })
        .collect();
    NameServerConfig::new(server.ip(), true, connections)
}

/// `127.0.0.1`, `::1` or `[::1]`. Shorter and other number forms of IPv4 are no addresses here: a URL parser has normalised them before.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// RFC 1123, section 2.1, with the underscore that some names have in practice.
fn is_host_name(host: &str) -> bool {
    host.len() <= 253
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn addresses_alternate_between_families_beginning_with_ipv6() {
        let given: Vec<IpAddr> = ["1.1.1.1", "1.1.1.2", "2606::1", "1.1.1.3"].map(|address| address.parse().unwrap()).to_vec();
        let expected: Vec<IpAddr> = ["2606::1", "1.1.1.1", "1.1.1.2", "1.1.1.3"].map(|address| address.parse().unwrap()).to_vec();
        assert_eq!(&*interleave(&given), expected.as_slice());
    }

    #[test]
    fn names_that_no_server_should_see_are_refused() {
        for bad in ["", "a..b", "a b", "a/b", "exa\u{6d}ple.org\n", "x".repeat(64).as_str(), "é.example", "a@b"] {
            assert!(!is_host_name(bad), "{bad:?}");
        }
        assert!(is_host_name("www.example.org"));
        assert!(is_host_name("_dmarc.example.org"));
    }

    #[test]
    fn a_full_cache_forgets_what_has_expired_first() {
        let now = Instant::now() + Duration::from_secs(1000);
        let entry = |expires| Entry { result: Err(ResolveError::NoAddress), expires };
        let mut cache = HashMap::new();
        for number in 0..limits::NAMES_MAX {
            let expires = if number % 2 == 0 { now - Duration::from_secs(1) } else { now + Duration::from_secs(1) };
            cache.insert(Arc::from(format!("n{number}")), entry(expires));
        }
        make_room(&mut cache, now);
        assert_eq!(cache.len(), limits::NAMES_MAX / 2);
        for number in 0..limits::NAMES_MAX {
            cache.insert(Arc::from(format!("m{number}")), entry(now + Duration::from_secs(1)));
            make_room(&mut cache, now);
            assert!(cache.len() <= limits::NAMES_MAX);
        }
    }
}
