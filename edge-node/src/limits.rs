//! Every bound of the data plane, with unit, default and reason. Bounds of a worker's run are in [`selvedge_runtime::limits`].

use std::time::Duration;

use serde::Deserialize;

mod cache;

pub use cache::*;

/// Bounds that an operator may have to turn, `[limits]` in the node's file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Client connections of all listeners together. Default 10,000; 1 to 1,000,000. Each costs 20 to 100 KiB; the process needs as many
    /// descriptors for h1 and h2.
    pub connections_max: usize,
    /// Client connections of one address (IPv6: one /64). Default 2,000; 1 to 1,000,000. One client must not use up the node; large
    /// networks share an address, and trusted proxies are exempt.
    pub connections_per_address_max: usize,
    /// Requests that run at one time on one h2 or h3 connection, in streams. Default 128; 1 to 1,000. RFC 9113, section 5.1.2 advises 100 or more.
    pub streams_per_connection_max: u32,
    /// A connection without a request, also a new one, is closed after this time, in milliseconds. Default 75,000 (above the 60 s of usual load
    /// balancers); 100 to 3,600,000.
    pub idle_timeout_ms: u64,
    /// The whole TLS or QUIC handshake, in milliseconds. Default 10,000; 100 to 60,000.
    pub handshake_timeout_ms: u64,
    /// The whole head of a request from its first byte, in milliseconds; 408 beyond on h1. Default 30,000; 100 to 600,000.
    pub head_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_address_max: 2_000,
            streams_per_connection_max: 128,
            idle_timeout_ms: 75_000,
            handshake_timeout_ms: 10_000,
            head_timeout_ms: 30_000,
        }
    }
}

impl Limits {
    /// [`Self::idle_timeout_ms`] as a duration.
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    /// [`Self::handshake_timeout_ms`] as a duration.
    pub fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms)
    }

    /// [`Self::head_timeout_ms`] as a duration.
    pub fn head_timeout(&self) -> Duration {
        Duration::from_millis(self.head_timeout_ms)
    }

    /// Refuses what is outside the documented extremes, naming the key.
    pub fn check(&self) -> Result<(), String> {
        let within = |key: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) { Ok(()) } else { Err(format!("limits.{key} is {value}, must be {low} to {high}")) }
        };
        within("connections_max", self.connections_max as u64, 1, 1_000_000)?;
        within("connections_per_address_max", self.connections_per_address_max as u64, 1, 1_000_000)?;
        within("streams_per_connection_max", self.streams_per_connection_max.into(), 1, 1_000)?;
        within("idle_timeout_ms", self.idle_timeout_ms, 100, 3_600_000)?;
        within("handshake_timeout_ms", self.handshake_timeout_ms, 100, 60_000)?;
        within("head_timeout_ms", self.head_timeout_ms, 100, 600_000)
    }
}

// --- request heads (RFC 9110, sections 2.3 and 4.1 ask for documented bounds) ---

/// Bytes of a request target. 414 beyond. RFC 9110, section 4.1 recommends at least 8,000; browsers stop at 32 KiB or above.
pub const TARGET_BYTES_MAX: usize = 16 << 10;

/// Bytes of a method. 501 beyond; the longest registered one has 17.
pub const METHOD_BYTES_MAX: usize = 64;

/// Fields of a request head. 431 beyond; a browser sends about 20.
pub const FIELDS_MAX: usize = 128;

/// Bytes of a request head: names and values, without HPACK's or QPACK's 32 bytes for each. 431 beyond. Cookies are what grows; peers take 8 to 64 KiB.
pub const HEAD_BYTES_MAX: usize = 64 << 10;

/// Bytes of a header list as h2 and h3 count it (RFC 9113, section 6.5.2: 32 bytes more for each field); announced to the client.
pub const HEADER_LIST_BYTES_MAX: u32 = (HEAD_BYTES_MAX + 32 * FIELDS_MAX) as u32;

/// Interim responses (1xx) to one request, in number; further ones are dropped. Real ones come once or twice, and each is a head that we hold for a
/// client that may not read.
pub const INTERIM_RESPONSES_MAX: usize = 16;

// --- HTTP/1.1 ---

/// Bytes of the first line of a request: a target in absolute form has a scheme and an authority too. 414 beyond.
pub const H1_REQUEST_LINE_BYTES_MAX: usize = METHOD_BYTES_MAX + TARGET_BYTES_MAX + 512;

/// Bytes of a head as it comes, line ends and white space included, before it is looked into. 431 beyond.
pub const H1_HEAD_BYTES_MAX: usize = HEAD_BYTES_MAX + TARGET_BYTES_MAX;

/// Room for one read of a connection, in bytes: a head of a browser fits, and idle connections hold no more than twice as much.
pub const H1_READ_BYTES: usize = 8 << 10;

/// Room for one read while a body is wanted, in bytes.
pub const H1_BODY_READ_BYTES: usize = 64 << 10;

/// Bytes that are read ahead of a request that is being answered (the next ones, or a body that nobody reads); at the bound the client waits.
pub const H1_READ_AHEAD_BYTES_MAX: usize = 16 << 10;

/// Bytes of a request's body that are read ahead of whoever reads it.
pub const H1_BODY_AHEAD_BYTES_MAX: usize = 64 << 10;

/// Bytes of answers that are gathered for one write.
pub const H1_OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Bytes of a piece of a body that is copied behind its head, so that one plain write takes both; larger ones are written from where they are.
pub const H1_COPIED_BYTES_MAX: usize = 4 << 10;

/// Bytes of the line before a chunk: its size, and extensions that nobody uses.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;

/// Bytes of the trailers of a body, which are dropped.
pub const TRAILER_BYTES_MAX: usize = 8 << 10;

/// A request body that nobody read is read on and dropped up to this many bytes, so that the connection can be used again; a larger one
/// closes it. Cheaper than a new TLS handshake, and below what a client can hurt with.
pub const UNREAD_BODY_BYTES_MAX: u64 = 256 << 10;

/// How long reading on may take. A client that is slow with a body nobody wants gets its connection closed.
pub const UNREAD_BODY_WAIT: Duration = Duration::from_secs(2);

// --- HTTP/2 ---

/// Receive window of one h2 stream, in bytes: a body that nobody reads holds at most this.
pub const H2_STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// Receive window of one h2 connection, in bytes: all unread bodies of a connection together.
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// Largest h2 frame that we take, in bytes: the protocol's smallest maximum (RFC 9113, section 4.2).
pub const H2_FRAME_BYTES_MAX: u32 = 16 << 10;

/// Bytes of responses that wait for one h2 stream's window.
pub const H2_SEND_BUFFER_BYTES_MAX: usize = 128 << 10;

/// Streams that a client reset before we accepted them; GOAWAY beyond (CVE-2023-44487, rapid reset).
pub const H2_PENDING_RESETS_MAX: usize = 20;

/// Streams that we had to reset for the client's errors, over a connection's life; GOAWAY beyond (CVE-2025-8671, made-you-reset).
pub const H2_LOCAL_RESETS_MAX: usize = 256;

/// Requests of one h2 connection that are taken before their answers are written: what share a write. More are taken after it.
pub const H2_ACCEPTED_AT_ONCE_MAX: usize = 32;

// --- HTTP/3 ---

/// Receive window of one QUIC stream, in bytes; see [`H2_STREAM_WINDOW_BYTES`].
pub const QUIC_STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// Receive window of one QUIC connection, in bytes. quinn's default is without bound, and its out-of-order data is held until it is whole.
pub const QUIC_CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// Bytes that one QUIC connection may have in flight to the client; bounds what we hold for a slow one.
pub const QUIC_SEND_WINDOW_BYTES: u64 = 1 << 20;

/// Unidirectional streams that a client may have open: control, QPACK encoder and decoder (RFC 9114, section 6.2), and some to grease.
pub const QUIC_UNI_STREAMS_MAX: u32 = 8;

/// Handshakes that wait for us to accept them, in connections; further first packets are dropped.
pub const QUIC_INCOMING_MAX: usize = 1_024;

/// Bytes that first packets may hold together until they are accepted.
pub const QUIC_INCOMING_BYTES_MAX: u64 = 16 << 20;

/// Bytes that the first packets of one connection may hold.
pub const QUIC_INCOMING_CONNECTION_BYTES_MAX: u64 = 64 << 10;

/// Least time between two stateless resets for packets of unknown connections: they cost a signature each.
pub const QUIC_RESET_INTERVAL: Duration = Duration::from_millis(20);

/// Bytes of the UDP socket's buffers in the kernel, each way: 1,000 full packets.
pub const UDP_SOCKET_BUFFER_BYTES: usize = 2 << 20;

/// Above this many unfinished handshakes a client must prove its address (Retry, RFC 9000, section 8.1.2) before we keep state for it.
pub const QUIC_HANDSHAKES_BEFORE_RETRY: u64 = 128;

/// Bytes that h3 may buffer of one stream between two things that it gives us: h3 0.0.8 holds a whole HEADERS or unknown frame before
/// it decodes it, whatever length the frame says, and gives flow-control credit meanwhile.
pub const H3_BUFFERED_BYTES_MAX: u64 = HEADER_LIST_BYTES_MAX as u64 + (64 << 10);

/// Bytes of a client's control and QPACK streams between two requests (same buffering; browsers send PRIORITY_UPDATE there).
pub const H3_CONTROL_BYTES_MAX: u64 = 64 << 10;

/// Bytes of one DATA frame that we send. A client must take each within [`SEND_STALL`].
pub const H3_DATA_FRAME_BYTES_MAX: usize = 64 << 10;

/// How long a GET or HEAD without Content-Length waits for its stream's end before it is taken to have a body. The end is in the packet of the
/// head or in the next one; a lost packet comes again after about this time.
pub const H3_END_WAIT: Duration = Duration::from_millis(100);

/// Empty DATA frames at the end of a request that are looked past.
pub const H3_EMPTY_FRAMES_MAX: usize = 4;

/// Streams reset or stopped by the client before their answer, over a connection's life in requests: beyond this many, and more than half of all, the
/// connection is closed (h2: ENHANCE_YOUR_CALM, CVE-2023-44487; h3: H3_EXCESSIVE_LOAD, RFC 9114, section 10.5). Browsers cancel a lot on navigation, but
/// not for ever.
pub const RESETS_MAX: u64 = 1_000;

/// Requests of one h2 or h3 connection that the client has given up, and that still run: a worker that computes is not stopped at once, and its stream is
/// free for the next. Beyond, the connection is closed in the same way. As many as the streams that a connection may have by default.
pub const GIVEN_UP_RUNNING_MAX: usize = 128;

/// When a drained h3 connection has nothing more to do: how long its client may take to acknowledge GOAWAY. Closing at once could overtake it.
pub const GOAWAY_WAIT: Duration = Duration::from_secs(1);

/// Time without packets after which a QUIC client is pinged, in seconds; a third of the idle timeout where that is shorter. NATs may forget it after 30 s
/// (RFC 9000, section 10.1.2), and clients close what is silent for that long.
pub const QUIC_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

// --- connections ---

/// Open files that a node needs beside those of clients: as many connections to upstreams as there may be, and runners' links, bundles, the cache's
/// files, other nodes.
pub const DESCRIPTORS_BESIDE_CONNECTIONS: u64 = crate::upstream::limits::CONNECTIONS_TOTAL_MAX as u64 + 8_192;

/// Pending TCP connections in the kernel, per listener.
pub const TCP_BACKLOG: i32 = 4_096;

/// Wait after `accept` failed for want of descriptors or memory: retrying at once would burn the processor.
pub const ACCEPT_RETRY_WAIT: Duration = Duration::from_millis(20);

/// A client that takes none of the bytes that we have for it for this long loses its connection (h1, h2) or its stream (h2, h3). Longer than the 30 s that a worker's
/// bodies may stand still: where a client neither sends nor takes anything, the worker's limit is crossed, and its run is named for that.
pub const SEND_STALL: Duration = Duration::from_secs(35);

/// Shortest time between two looks at what a connection does, however short its timeouts are.
pub const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// Time between GOAWAY and the end of a connection on which nothing happens any more.
pub const GOODBYE_WAIT: Duration = Duration::from_secs(5);

/// Silence on a TCP connection before the kernel asks whether the client is still there.
pub const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// Time between two such questions; the kernel gives up after nine.
pub const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Ports to try for one that is free for TCP and UDP.
pub const BIND_ATTEMPTS: usize = 16;

/// How often certificate files are looked at for changes.
pub const CERTIFICATE_POLL: Duration = Duration::from_secs(2);

/// Certificates of the local authority that are kept; the oldest gives way. Only routed names, localhost and addresses get one at all.
pub const LOCAL_CERTIFICATES_MAX: usize = 1_024;

/// Bytes of a certificate or key file.
pub const CERTIFICATE_FILE_BYTES_MAX: u64 = 1 << 20;

// --- admin ---

/// Connections of the admin listener.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// The whole head of a request on the admin listener, in milliseconds.
pub const ADMIN_HEAD_TIMEOUT_MS: u64 = 10_000;

/// After the node has drained: how long an answer of the admin listener may still take.
pub const ADMIN_DRAIN_TIMEOUT: Duration = Duration::from_millis(200);

// --- drain ---

/// After the drain's time: how long dropped tasks may take to be gone.
pub const ABANDON_WAIT: Duration = Duration::from_secs(1);

// --- peers ---

/// Requests of this node that one peer answers at one time: what one h2 connection of its carries ([`Limits::streams_per_connection_max`]), less some. Beyond, the
/// upstream is asked.
pub const PEER_REQUESTS_MAX: usize = 100;

/// A connection to a peer, TLS included: they are near one another. A miss waits no longer for a dead one.
pub const PEER_CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How often a peer that says nothing is pinged.
pub const PEER_PING_INTERVAL: Duration = Duration::from_secs(1);

/// How long it may take to answer a ping. With [`PEER_PING_INTERVAL`]: a peer that hangs holds a miss for two seconds; an upstream that is slow behind it is none
/// of its fault.
pub const PEER_PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Until a peer's answer begins: the time that its own upstream has by default (connection and head), and some more. What an upstream's owner declares comes on top.
pub const PEER_HEAD_TIMEOUT: Duration = Duration::from_secs(45);

/// How long the answer to an unsafe request waits for the shield to forget what it made invalid: a round trip between near nodes, many times over.
pub const PEER_INVALIDATION_WAIT: Duration = Duration::from_secs(1);

/// How long a peer that could not be reached is not asked.
pub const PEER_REST: Duration = Duration::from_secs(10);

// --- overload ---

/// How long the node's event loop is given between two looks at how late it is. Much longer than it runs between two pauses of a process that is starved by being
/// stopped again and again.
pub const LATE_LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Looks in a row, of which the smallest lateness counts: one pause is one late look, and a machine with more work than processors is late now and then.
pub const LATE_LOOKS: usize = 3;

/// From this lateness on no version is loaded for a request. Each wait of a request takes as long, and a cold start waits most often; it takes a process and 100 ms
/// of a processor, too. On a machine that compiles on all of its processors the smallest lateness stays below a tenth of this.
pub const LATE_COLD_STARTS: Duration = Duration::from_millis(250);

/// From this lateness on no worker runs for a client: a run waits several times, for its runner and for each of its subrequests.
pub const LATE_WORKERS: Duration = Duration::from_millis(500);

/// From this lateness on nothing is fetched for a client: it is what a client takes for a failure, and what is left is for hits.
pub const LATE_MISSES: Duration = Duration::from_secs(1);

// --- requests ---

/// When a client is told to try again after what passes by itself, such as a lost runner.
pub const RETRY_AFTER_PASSING: Duration = Duration::from_secs(1);

/// Times that a request may have passed through a Selvedge node, by its `CDN-Loop` (RFC 8586). Real chains have two or three.
pub const LOOP_DEPTH_MAX: u32 = 8;

/// Requests between routes of this node that one client's request may cause in all: workers that fetch from one another multiply.
pub const NESTED_REQUESTS_MAX: u32 = 200;

/// Bytes of a request's id that another node gives it; ours have 28.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

/// Addresses of `X-Forwarded-For` that are looked at behind trusted proxies.
pub const FORWARDED_HOPS_MAX: usize = 32;

/// Bytes of a request's body that are kept while a worker has it, so that another can answer where the worker passes through: as many as a runner is sent before the
/// worker reads.
pub const PASS_THROUGH_BODY_BYTES_MAX: u64 = 128 << 10;

/// Redirects that a worker's `fetch()` follows: the number of the Fetch standard, section 4.4.
pub const REDIRECTS_MAX: u32 = 20;

// --- workers' logs ---

/// Lines that a worker may log at once. A page load with a stack trace has tens.
pub const WORKER_LOG_BURST: u32 = 500;

/// Lines that a worker may log per second over time; what is beyond is counted and dropped.
pub const WORKER_LOG_LINES_PER_SECOND: u32 = 100;

/// Bytes of one line of a worker's log; the rest is cut.
pub const WORKER_LOG_LINE_BYTES_MAX: usize = 16 << 10;

// --- explanations ---

/// Keys whose last refusal is remembered for `selvedge explain`, at 8 bytes each; a newer one takes the place of an older one.
pub const REFUSALS_KEPT: usize = 8_192;

/// Bytes of a cache key that an explanation shows.
pub const EXPLAINED_KEY_BYTES_MAX: usize = 4 << 10;

/// Fields of a stored response that an explanation shows.
pub const EXPLAINED_FIELDS_MAX: usize = 64;

/// Bytes of one of their values; those of what responses vary on are cut to a quarter, as a key may have 16 responses that vary on 16 fields each.
pub const EXPLAINED_VALUE_BYTES_MAX: usize = 512;

/// Tags of a stored response that an explanation shows.
pub const EXPLAINED_TAGS_MAX: usize = 20;

/// Bytes of one of them.
pub const EXPLAINED_TAG_BYTES_MAX: usize = 128;

/// Slices of an object that an explanation looks for: 64 GiB in slices of 16 MiB, in some milliseconds.
pub const EXPLAINED_SLICES_MAX: usize = 4_096;

/// Servers of upstreams that an answer shows: as many as fit into what a registry takes.
pub const EXPLAINED_SERVERS_MAX: usize = 300;

// --- metrics ---

/// Routes that metrics show one by one, those that were used: a scraper keeps 50 series and more for each. (The registry takes 100,000 routes.)
pub const METRIC_ROUTES_MAX: usize = 1000;

/// Servers of upstreams that metrics show one by one: a scraper keeps a series for each.
pub const METRIC_SERVERS_MAX: usize = 1000;
