//! Every bound of upstream connections, with unit, default and reason.

use std::time::Duration;

/// Time for a connection: name, TCP and TLS together. Three lost SYN packets (1 s, 2 s, 4 s) fit.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to the response head: as long as a worker has for its own (`Limits::head_timeout_ms`).
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time without a byte of a response body: as long as a worker has.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that a connection is kept without a request. Shorter than the 60 s after which common servers close, so that few are lost on reuse.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// How often idle connections are looked through.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Requests in flight to one upstream: what one busy server is expected to take from one node.
pub const REQUESTS_PER_UPSTREAM_MAX: usize = 1024;
/// Requests that wait for one upstream: a short burst, no more; a 503 now beats an answer in 10 s.
pub const QUEUE_PER_UPSTREAM_MAX: usize = 1024;
/// Time that a request waits in that queue, in a burst: in one that stands it is [`selvedge_runtime::limits::STANDING_WAIT`].
pub const QUEUE_WAIT: Duration = Duration::from_secs(5);
/// Idle connections kept for one upstream.
pub const IDLE_PER_UPSTREAM_MAX: usize = 256;
/// Idle connections kept for all upstreams together: file descriptors.
pub const IDLE_TOTAL_MAX: usize = 4096;
/// Connections to all upstreams together, idle or not: file descriptors.
pub const CONNECTIONS_TOTAL_MAX: usize = 16_384;
/// Time for a place among them that another connection gives up: a goodbye over HTTP/2 takes at most [`H2_GOODBYE_WAIT`].
pub const EVICTION_WAIT: Duration = Duration::from_secs(2);
/// Upstreams (scheme, host, port, reach) that are remembered. Workers choose hosts, so the number is theirs; those without a connection are forgotten first.
pub const UPSTREAMS_MAX: usize = 16_384;

/// Bytes of a response head over HTTP/1.1, and of a header list over HTTP/2.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Fields of a response head over HTTP/1.1.
pub const HEAD_FIELDS_MAX: usize = 256;
/// Bytes that one HTTP/2 stream may send before the consumer has read them.
pub const H2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes that one HTTP/2 connection may send before the consumers have read them.
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Requests that go out on a new HTTP/2 connection before the server has said how many it takes at one time: the smallest number that it should say (RFC 9113, section 6.5.2).
pub const H2_FIRST_STREAMS: usize = 100;
/// Streams that this node had to reset for the server's errors, over a connection's life; it is closed beyond.
pub const H2_LOCAL_RESETS_MAX: usize = 1024;
/// Time that a goodbye and the rest of what was to be sent may take on an HTTP/2 connection that nobody uses any more.
pub const H2_GOODBYE_WAIT: Duration = Duration::from_secs(1);
/// Interim responses to one request over HTTP/2; a server that sends more is after something else. (One a second tells a client for longer than it waits that it should wait.)
pub const INTERIM_RESPONSES_MAX: u32 = 1024;
/// An HTTP/2 connection without traffic is pinged this often, so that a dead one is found before a request is.
pub const H2_PING_INTERVAL: Duration = Duration::from_secs(15);
/// Time for the answer to such a ping.
pub const H2_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request body that wait in an HTTP/2 stream for the peer's window.
pub const H2_SEND_BUFFER_BYTES: usize = 256 << 10;

/// Head start of one connection attempt before the next (RFC 8305, section 5, "Connection Attempt Delay").
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Time that the answer for one address family waits for the other (RFC 8305, section 3, "Resolution Delay").
pub const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// Addresses of one name that are tried.
pub const ADDRESSES_MAX: usize = 16;

/// Names in the resolver's cache.
pub const NAMES_MAX: usize = 10_000;
/// Time that an answer is used at least: a zero TTL must not mean a query per request.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// Time that an answer is used at most.
pub const TTL_MAX: Duration = Duration::from_secs(300);
/// Time that "no such name" is believed.
pub const NEGATIVE_TTL: Duration = Duration::from_secs(5);
/// Time for one query.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(3);
/// Queries of one name: the first, and those after a timeout.
pub const QUERY_ATTEMPTS: usize = 2;
/// Queries in flight for all names together.
pub const QUERIES_MAX: usize = 256;
/// An answer this much beyond its TTL is still used while no name server answers (RFC 8767 allows days; addresses of servers move faster).
pub const STALE_ANSWER_MAX: Duration = Duration::from_secs(3600);
/// A connection takes no new request after this long, so that a changed DNS record takes effect.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_secs(600);
/// Time that a connection has to notice that its last response has ended; it usually takes microseconds.
pub const SETTLE_TIME: Duration = Duration::from_millis(10);
/// Bytes that are read ahead of a consumer over HTTP/1.1, beyond the head's bound.
pub const H1_READ_BYTES: usize = 64 << 10;
/// Connections that are tried for one request: an open one may disappoint twice, the last one is new.
pub const ATTEMPTS_MAX: u32 = 3;
/// A response body up to this length that is here already is handed over whole instead of as a stream.
pub const WHOLE_BYTES_MAX: u64 = 64 << 10;
/// Frames without bytes that are passed over before other tasks get their turn.
pub const EMPTY_FRAMES_MAX: usize = 64;
/// The body of an idempotent request up to this length is gathered before it takes a place of its upstream, so that it can go out again where its connection
/// turns out closed, and on another server. (Without its trailers, which go to no upstream.)
pub const REPLAY_BYTES_MAX: u64 = 64 << 10;
/// Bytes of all such bodies on one node, by the lengths that are announced, from before the first has come until they are sent: 1,024 of the longest. Where there
/// is no room, a body goes out as a long one does.
pub const GATHERED_BYTES_MAX: usize = 64 << 20;
/// Retries that an upstream's budget holds after a quiet time.
pub const RETRIES_SAVED_MAX: u32 = 10;
/// Ejections in a row after which the time of an ejection grows no more: eight times the first (2^3).
pub const EJECTION_DOUBLINGS_MAX: u32 = 3;
/// Bytes that are read of the answer to a health check.
pub const HEALTH_BODY_BYTES_MAX: u64 = 1 << 20;
/// How often it is looked at most which health checks are due; the shortest interval that can be declared is twice as long.
pub const HEALTH_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Health checks under way on one node; the others wait for the next look.
pub const HEALTH_CHECKS_MAX: usize = 256;
