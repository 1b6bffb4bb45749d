//! What is known of a request before anything is done for it: who asks, by what name, how often it has come around. Parsed once.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request};
use ipnet::IpNet;
pub(super) use selvedge_origin::registry::authority as normalise;
use tokio::time::Instant;

use super::error::RequestError;
use super::fields::{CF_CONNECTING_IP, X_REQUEST_ID};
use crate::limits::{FORWARDED_HOPS_MAX, LOOP_DEPTH_MAX, NESTED_REQUESTS_MAX, REQUEST_ID_BYTES_MAX};
use crate::listen::{Connection, Protocol};
use crate::routes::host_of;

/// RFC 8586.
pub(crate) const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// Our name in it: the same for all nodes, so that a loop over several of them is seen.
pub(crate) const CDN_ID: &str = "selvedge";
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A request's circumstances.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) method: Method,
    pub(crate) secure: bool,
    /// Lower case, without a default port and a final dot.
    pub(crate) authority: Box<str>,
    pub(crate) target: PathAndQuery,
    /// What of the target is asked of whoever answers, where the route's cache leaves out a part of the query.
    narrowed: OnceLock<PathAndQuery>,
    pub(crate) protocol: Protocol,
    pub(crate) tls_version: Option<&'static str>,
    /// The client's address, after trusted proxies.
    pub(crate) client: IpAddr,
    /// The client, then the trusted proxies behind which it is; none where it is not behind any.
    proxied_for: Option<HeaderValue>,
    /// How often it has passed through a node or, inside this one, a route.
    pub(crate) depth: u32,
    /// `CDN-Loop` as it came.
    pub(crate) cdn_loop: Option<HeaderValue>,
    /// Inside the node: 0 for a client's own request.
    pub(crate) nesting: u32,
    pub(crate) started: Instant,
    /// Why it cannot be answered, where that is seen already.
    fault: Option<RequestError>,
    id: OnceLock<Arc<str>>,
    /// Requests between routes that the client's request has caused, all its descendants together.
    nested: OnceLock<Arc<AtomicU32>>,
}

impl Context {
    /// Of a client's request.
    pub(crate) fn of_client<B>(request: &Request<B>, connection: &Connection, trusted: &[IpNet]) -> Self {
        let headers = request.headers();
        let peer = connection.peer.ip().to_canonical();
        let believed = !trusted.is_empty() && trusted.iter().any(|network| network.contains(&peer));
        let mut secure = connection.tls.is_some();
        let (mut client, mut proxied_for) = (peer, None);
        if believed {
            (client, proxied_for) = client_behind(headers, peer, trusted);
            if let Some(proto) = headers.get(X_FORWARDED_PROTO) {
                secure = proto.as_bytes().eq_ignore_ascii_case(b"https");
            }
        }
        let authority = authority(request, secure);
        let target = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let cdn_loop = joined(headers, &CDN_LOOP);
        let mut fault = authority.as_ref().err().map(|reason| RequestError::Malformed(reason));
        if fault.is_none() && has_dot_segment(target.path()) {
            fault = Some(RequestError::Malformed("the path has . or .. segments"));
        }
        Self {
            method: request.method().clone(),
            secure,
            authority: authority.unwrap_or_default(),
            target,
            narrowed: OnceLock::new(),
            protocol: connection.protocol,
            tls_version: connection.tls.as_ref().map(|tls| tls.version),
            client,
            proxied_for,
            depth: cdn_loop.as_ref().map_or(0, times_around),
            cdn_loop,
            nesting: 0,
            started: Instant::now(),
            fault,
            id: OnceLock::new(),
            nested: OnceLock::new(),
        }
    }

    /// Of a request that another node makes on behalf of its client: who that is and how it asked, as the node says. (The node has proved that it is one.)
    pub(crate) fn of_peer<B>(request: &Request<B>, connection: &Connection) -> Self {
        let headers = request.headers();
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let secure = text(&X_FORWARDED_PROTO) == Some("https");
        let mut context = Self::of_client(request, connection, &[]);
        match authority(request, secure) {
            Ok(authority) => context.authority = authority,
            Err(reason) => context.fault = Some(RequestError::Malformed(reason)),
        }
        context.secure = secure;
        context.client = text(&CF_CONNECTING_IP).and_then(parse_address).unwrap_or(context.client);
        context.proxied_for = headers.get(X_FORWARDED_FOR).cloned();
        if let Some(id) = text(&X_REQUEST_ID).filter(|id| id.len() <= REQUEST_ID_BYTES_MAX) {
            context.id = OnceLock::from(Arc::from(id));
        }
        context
    }

    /// Of a request that a worker makes on behalf of the client of `self`. [`Self::counted`] follows where it is answered inside the node.
    pub(crate) fn asks<B>(&self, request: &Request<B>) -> Self {
        let secure = request.uri().scheme() == Some(&Scheme::HTTPS);
        let authority = authority(request, secure);
        let target = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let fault = authority.as_ref().err().map(|reason| RequestError::Malformed(reason));
        Self {
            method: request.method().clone(),
            secure,
            authority: authority.unwrap_or_default(),
            target,
            narrowed: OnceLock::new(),
            protocol: self.protocol,
            tls_version: self.tls_version,
            client: self.client,
            proxied_for: self.proxied_for.clone(),
            depth: self.depth + 1,
            cdn_loop: Some(self.cdn_loop_onward()),
            nesting: self.nesting + 1,
            started: Instant::now(),
            fault,
            id: OnceLock::from(self.id()),
            nested: OnceLock::from(self.nested.get_or_init(Arc::default).clone()),
        }
    }

    /// Counts it among those that the client's request has caused inside the node.
    pub(crate) fn counted(mut self) -> Self {
        if self.nested.get_or_init(Arc::default).fetch_add(1, Relaxed) >= NESTED_REQUESTS_MAX {
            self.fault = Some(RequestError::TooManyNested { max: NESTED_REQUESTS_MAX });
        }
        self
    }

    /// Of a background refresh of what this request asked for.
    pub(crate) fn refresh(&self) -> Self {
        Self {
            method: Method::GET,
            secure: self.secure,
            authority: self.authority.clone(),
            target: self.target.clone(),
            narrowed: self.narrowed.clone(),
            protocol: self.protocol,
            tls_version: self.tls_version,
            client: self.client,
            proxied_for: self.proxied_for.clone(),
            depth: self.depth,
            cdn_loop: self.cdn_loop.clone(),
            nesting: self.nesting,
            started: Instant::now(),
            fault: None,
            id: OnceLock::from(self.id()),
            nested: OnceLock::from(self.nested.get_or_init(Arc::default).clone()),
        }
    }

    /// The target as whoever answers is asked by.
    pub(crate) fn asked(&self) -> &PathAndQuery {
        self.narrowed.get().unwrap_or(&self.target)
    }

    /// Leaves out a part of the query for whoever answers. Only the first time counts.
    pub(crate) fn narrow(&self, target: PathAndQuery) {
        let _ = self.narrowed.set(target);
    }

    /// What is wrong with the request itself, or with how often it has come around.
    pub(crate) fn check(&self) -> Result<(), RequestError> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        if self.depth >= LOOP_DEPTH_MAX {
            return Err(RequestError::Loop { depth: self.depth, max: LOOP_DEPTH_MAX });
        }
        Ok(())
    }

    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// The authority without its port.
    pub(crate) fn host(&self) -> &str {
        host_of(&self.authority)
    }

    /// For logs and `X-Request-Id`; the same for all requests inside the node that one client's request causes.
    pub(crate) fn id(&self) -> Arc<str> {
        self.id.get_or_init(next_id).clone()
    }

    /// `X-Forwarded-For` for the next hop where that is not the client alone: the client, then the trusted proxies.
    pub(crate) fn proxied_for(&self) -> Option<&HeaderValue> {
        self.proxied_for.as_ref()
    }

    /// `CDN-Loop` for the next hop.
    pub(crate) fn cdn_loop_onward(&self) -> HeaderValue {
        let ours = HeaderValue::from_static(CDN_ID);
        let Some(came) = &self.cdn_loop else { return ours };
        let mut value = came.as_bytes().to_vec();
        value.extend_from_slice(b", ");
        value.extend_from_slice(CDN_ID.as_bytes());
        HeaderValue::from_bytes(&value).unwrap_or(ours)
    }
}

/// The authority that is asked, normalised. An absolute target and a Host field must agree (RFC 9112, section 3.2.2 would let the target win; whoever sends two names
/// is up to no good).
fn authority<B>(request: &Request<B>, secure: bool) -> Result<Box<str>, &'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err("more than one Host field"),
        (Some(host), None) => Some(host.to_str().map_err(|_| "the Host field is not ASCII")?),
        (None, _) => None,
    };
    let target = request.uri().authority().map(http::uri::Authority::as_str);
    match (target, host) {
        (Some(target), None) => normalise(target, secure),
        (None, Some(host)) => normalise(host, secure),
        (Some(target), Some(host)) => {
            let authority = normalise(target, secure)?;
            if target == host || *authority == *normalise(host, secure)? {
                Ok(authority)
            } else {
                Err("the target and the Host field name different hosts")
            }
        }
        (None, None) => Err("no Host field"),
    }
}

/// `.` and `..` segments, also percent-encoded: a client resolves them before it sends, so what is left is meant to reach another path than the one that is
/// matched here.
fn has_dot_segment(path: &str) -> bool {
    // Almost every path has neither.
    if !path.contains("/.") && !path.contains("/%2") {
        return false;
    }
    path.split('/').any(|segment| {
        let mut rest = segment;
        let mut dots = 0;
        while let Some(next) = rest.strip_prefix('.').or_else(|| rest.strip_prefix("%2e")).or_else(|| rest.strip_prefix("%2E")) {
            rest = next;
            dots += 1;
        }
        rest.is_empty() && (dots == 1 || dots == 2)
    })
}

/// The client behind trusted proxies: the last address of `X-Forwarded-For` that is not one of them. And the list that the next hop gets: from that address on.
fn client_behind(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> (IpAddr, Option<HeaderValue>) {
    let mut chain = vec![peer];
    let lines: Vec<&str> = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).collect();
    for member in lines.iter().rev().flat_map(|line| line.rsplit(',')).take(FORWARDED_HOPS_MAX) {
        let Some(address) = parse_address(member.trim()) else { break };
        chain.push(address);
        if !trusted.iter().any(|network| network.contains(&address)) {
            break;
        }
    }
    let client = chain.last().copied().unwrap_or(peer);
    let text: Vec<String> = chain.iter().rev().map(IpAddr::to_string).collect();
    (client, HeaderValue::from_str(&text.join(", ")).ok())
}

/// An address as proxies write it: bare, in brackets, or with a port.
fn parse_address(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()));
    address.or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()).map(|address: IpAddr| address.to_canonical())
}

/// How many members of `CDN-Loop` are ours (a member is a token with parameters).
fn times_around(value: &HeaderValue) -> u32 {
    let ours = |member: &&[u8]| {
        let id = member.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        id.eq_ignore_ascii_case(CDN_ID.as_bytes())
    };
    u32::try_from(value.as_bytes().split(|b| *b == b',').filter(ours).count()).unwrap_or(u32::MAX)
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    let rest: Vec<&HeaderValue> = lines.collect();
    if rest.is_empty() {
        return Some(first.clone());
    }
    let mut all = first.as_bytes().to_vec();
    for line in rest {
        all.extend_from_slice(b", ");
        all.extend_from_slice(line.as_bytes());
    }
    HeaderValue::from_bytes(&all).ok()
}

/// Unique over restarts and nodes: 64 random bits of this process, and a counter.
fn next_id() -> Arc<str> {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(|| uuid::Uuid::new_v4().as_u64_pair().0);
    format!("{process:016x}{:012x}", NEXT.fetch_add(1, Relaxed)).into()
}

/// For tests/fuzz: any bytes as the names and addresses that a client may send.
pub fn fuzz(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for secure in [false, true] {
        if let Ok(normal) = normalise(text, secure) {
            assert_eq!(normalise(&normal, secure).as_deref(), Ok(normal.as_ref()), "{text:?}");
        }
    }
    let _ = has_dot_segment(text);
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let _ = times_around(&value);
    let headers: HeaderMap = [(X_FORWARDED_FOR, value)].into_iter().collect();
    let everything = ["0.0.0.0/0", "::/0"].map(|network| network.parse().unwrap_or_default());
    let _ = client_behind(&headers, IpAddr::from([127, 0, 0, 1]), &everything);
}

#[cfg(test)]
#[path = "context_tests.rs"]
mod tests;
