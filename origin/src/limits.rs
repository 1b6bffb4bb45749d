//! Every bound of the registry and its client, with unit and reason.

use std::time::Duration;

// Bundles.

/// Bytes of all modules and source maps of a bundle: what a node may be asked to hold and a runner to load for one version.
pub const BUNDLE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of one blob. A bundle may consist of one module.
pub const BLOB_BYTES_MAX: u64 = BUNDLE_BYTES_MAX;
/// Bytes of a blob that are read at once for whoever pulls it: all nodes of a registry pull the same at one time.
pub const BLOB_PIECE_BYTES: usize = 64 << 10;
/// What nobody put or touched for this long, and nothing names, may go.
pub const BLOB_UNUSED_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Modules of a bundle: a bundler makes few; unbundled trees stay within thousands.
pub const MODULES_MAX: usize = 4096;
/// Bytes of a manifest: room for [`MODULES_MAX`] modules with long specifiers.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Bytes of a module's specifier.
pub const SPECIFIER_BYTES_MAX: usize = 512;

// Versions, deployments, routes.

/// Bytes of all `vars` of a version as JSON. They travel in the feed and in each start of an isolate.
pub const VARS_BYTES_MAX: usize = 512 << 10;
/// Bindings of a version.
pub const VARS_MAX: usize = 256;
/// Bytes of a binding's name.
pub const VAR_NAME_BYTES_MAX: usize = 128;
/// Levels of arrays and objects in a binding's value. Parsers of JSON stop at 128, and the log's entries wrap a value in some.
pub const VAR_DEPTH_MAX: usize = 64;
/// Compatibility flags of a version, and bytes of each.
pub const COMPATIBILITY_FLAGS_MAX: usize = 64;
/// Bytes of a compatibility flag.
pub const COMPATIBILITY_FLAG_BYTES_MAX: usize = 64;
/// CPU per invocation that a version may ask for, in milliseconds.
pub const CPU_MS_MAX: u32 = 30_000;
/// Subrequests per invocation that a version may ask for.
pub const SUBREQUESTS_MAX: u32 = 10_000;
/// Versions of a worker that are kept beside those that take traffic; older ones cannot be promoted any more.
pub const VERSIONS_KEPT: usize = 100;
/// Deployments of a worker that are kept for history and rollback.
pub const DEPLOYMENTS_KEPT: usize = 100;
/// Versions that share a worker's traffic.
pub const SHARES_MAX: usize = 16;
/// Workers of a registry: each holds records in memory here and on every node.
pub const WORKERS_MAX: usize = 20_000;
/// Routes of one owner.
pub const ROUTES_PER_OWNER_MAX: usize = 2_000;
/// Routes of all owners: a snapshot of the feed must hold them, at some 400 bytes each.
pub const ROUTES_MAX: usize = 100_000;
/// Bytes of the records of all versions that take traffic: a snapshot of the feed must hold them.
pub const SERVING_BYTES_MAX: usize = 64 << 20;
/// Site files.
pub const SITES_MAX: usize = 5_000;
/// Bytes of a route's pattern.
pub const PATTERN_BYTES_MAX: usize = 1024;
/// `*` in the path of a pattern: matching costs time for each.
pub const PATTERN_STARS_MAX: usize = 8;
/// Bytes of an upstream's address.
pub const UPSTREAM_BYTES_MAX: usize = 2048;
/// Servers of one upstream: choosing one looks at each.
pub const UPSTREAM_SERVERS_MAX: usize = 32;
/// Bytes of an upstream's name: a label in metrics.
pub const UPSTREAM_NAME_BYTES_MAX: usize = 63;
/// Largest weight of a server: shares finer than a thousandth cannot be seen.
pub const UPSTREAM_WEIGHT_MAX: u32 = 1_000;
/// Requests in flight to one server that an upstream may allow, and as many that wait: each holds memory and a descriptor.
pub const UPSTREAM_REQUESTS_MAX: u32 = 65_536;
/// Longest time for an upstream that may be set, in milliseconds.
pub const UPSTREAM_WAIT_MS_MAX: u32 = 600_000;
/// Requests on one connection that may be set.
pub const UPSTREAM_KEEP_ALIVE_REQUESTS_MAX: u32 = 1_000_000;
/// Failures in a row before a server is ejected that may be set.
pub const UPSTREAM_FAILURES_MAX: u32 = 1_000;
/// Longest first ejection of a server, in milliseconds.
pub const UPSTREAM_EJECTION_MS_MAX: u32 = 3_600_000;
/// Bytes of an upstream's private authority: a handful of certificates. It travels in the record of each route that names it.
pub const AUTHORITY_BYTES_MAX: usize = 16 << 10;
/// Certificates of a private authority: the old and the new one of a few.
pub const AUTHORITY_CERTIFICATES_MAX: usize = 8;
/// Bytes of the upstreams of all routes: a snapshot of the feed must hold them beside everything else.
pub const UPSTREAM_BYTES_OF_ALL_MAX: usize = 16 << 20;
/// Shortest time between two health checks of a server, in milliseconds: every node that routes to it asks.
pub const HEALTH_INTERVAL_MS_MIN: u32 = 100;
/// Longest time between two health checks of a server, in milliseconds.
pub const HEALTH_INTERVAL_MS_MAX: u32 = 3_600_000;
/// Health checks in a row that decide.
pub const HEALTH_STREAK_MAX: u32 = 100;
/// Bytes of a health check's path.
pub const HEALTH_PATH_BYTES_MAX: usize = 1024;
/// Servers beside the first that one request may ask.
pub const RETRIES_MAX: u32 = 10;
/// Statuses that a route may count as failures.
pub const RETRY_STATUSES_MAX: usize = 16;
/// Bytes of an operator's message.
pub const MESSAGE_BYTES_MAX: usize = 2048;
/// Longest wait for another request's fetch that a route may set, in milliseconds.
pub const COLLAPSE_WAIT_MS_MAX: u32 = 60_000;
/// Largest cached response that a route may set, in bytes.
pub const ENTRY_BYTES_MAX: u64 = 1 << 30;
/// Shortest slice in which a route's large responses are fetched, in bytes: a request each, and a few hundred bytes of memory beside it.
pub const SLICE_BYTES_MIN: u64 = 64 << 10;
/// Longest slice, in bytes: what a client that wants one byte has fetched, and what a fetch holds in memory.
pub const SLICE_BYTES_MAX: u64 = 16 << 20;

// Nodes.

/// Nodes of a registry.
pub const NODES_MAX: usize = 5_000;
/// How often a node may say in its reports that it has moved (another region, another address for other nodes) before it has to wait: each is an entry of the log.
/// Its reports go on saying it, so that the last holds in the end.
pub const NODE_MOVES_BURST: u64 = 5;
/// And then once in this time.
pub const NODE_MOVE_INTERVAL: Duration = Duration::from_secs(60);
/// Keys of removed nodes that are remembered, so that none joins again by itself; the oldest are forgotten.
pub const REVOKED_KEYS_MAX: usize = 10_000;
/// Bytes of a node's region and of its address.
pub const NODE_TEXT_BYTES_MAX: usize = 256;
/// A node whose last report is older is offline: three reports missed.
pub const NODE_OFFLINE_AFTER: Duration = Duration::from_secs(15);
/// How long the last line of the feed that a node refused is shown: the true ones that follow clear what it says of itself within a second, but somebody has
/// to look who lies.
pub const FEED_REFUSAL_KEPT: Duration = Duration::from_secs(3600);
/// Bytes of a refusal's reason in a report; longer ones are cut.
pub const REASON_BYTES_MAX: usize = 4096;
/// Workers that one report names; a node that has more to say goes on in the next. With the longest reasons it is a body of 6 MiB.
pub const REPORT_LINES_MAX: usize = 1_000;
/// Bytes of all reasons that are kept of one node. A node that cannot write its disk refuses every worker for the same reason: operators need a
/// few of them, and thousands of nodes may say so at once.
pub const NODE_REASONS_BYTES_MAX: usize = 1 << 20;
/// Positions and settled workers that are remembered of each node with the time when they were heard, for `ms` in what follows a deployment.
pub const HEARD_KEPT: usize = 64;
/// How far a node's clock may be away from the registry's: also how long a signed request could be replayed.
pub const NODE_CLOCK_SKEW: Duration = Duration::from_secs(60);

// Purges.

/// Things that one purge names. A release that touches more purges a prefix, a host or a tag.
pub const PURGE_TARGETS_MAX: usize = 1_000;
/// Bytes of a purged URL or host: requests' own bound, with the host.
pub const PURGE_URL_BYTES_MAX: usize = 17 << 10;
/// Bytes of a purged prefix: nodes keep it as text.
pub const PURGE_PREFIX_BYTES_MAX: usize = 1_024;
/// Bytes of a purged tag.
pub const PURGE_TAG_BYTES_MAX: usize = 1_024;
/// Things that the holders of the admin token may purge at once, and per second over time; beyond it 429. Nodes remember 100,000 by name.
pub const PURGE_BURST: u32 = 10_000;
/// See [`PURGE_BURST`].
pub const PURGE_TARGETS_PER_SECOND: u32 = 500;
/// The same for each worker, over all nodes.
pub const WORKER_PURGE_BURST: u32 = 500;
/// See [`WORKER_PURGE_BURST`].
pub const WORKER_PURGE_TARGETS_PER_SECOND: u32 = 20;
/// Purges whose time of commit is remembered, so that nodes' milliseconds can be shown.
pub const PURGES_TIMED: usize = 1_000;
/// Acknowledgements that are remembered of each node.
pub const ACKNOWLEDGEMENTS_KEPT: usize = 64;
/// A node that has no feed open for this long is away. It opens a lost one again after 0.2 s, where it can.
pub const FEED_AWAY_AFTER: Duration = Duration::from_secs(2);

// Questions to nodes.

/// Bytes of a question's body: [`PURGE_URL_BYTES_MAX`] and [`QUESTION_FIELDS_BYTES_MAX`], each byte written as an escape of six.
pub const QUESTION_JSON_BYTES_MAX: usize = 256 << 10;
/// Header fields of the request that a question is about.
pub const QUESTION_FIELDS_MAX: usize = 64;
/// Bytes of all of them.
pub const QUESTION_FIELDS_BYTES_MAX: usize = 16 << 10;
/// Bytes of its method; the longest registered one has 17.
pub const QUESTION_METHOD_BYTES_MAX: usize = 32;
/// Questions that wait for answers at one time: each may hold [`ANSWERS_BYTES_MAX`].
pub const QUESTIONS_AT_ONCE_MAX: usize = 8;
/// Questions that wait for their turn on one feed; a node whose feed does not move is silent.
pub const QUESTIONS_WAITING_MAX: usize = 8;
/// Bytes of one node's answer to a question; usual ones have one to four thousand.
pub const ANSWER_JSON_BYTES_MAX: usize = 256 << 10;
/// Bytes of all nodes' answers to one question.
pub const ANSWERS_BYTES_MAX: usize = 16 << 20;

// The log and the feed.

/// Entries of the log that are kept. A node that is further behind gets a snapshot, and has all it stored confirmed: it may have missed purges.
pub const LOG_ENTRIES_KEPT: u64 = 100_000;
/// Entries that an operator is shown at once, where none says how many.
pub const LOG_PAGE: u64 = 50;
/// The most of them: each may have to be read from megabytes.
pub const LOG_PAGE_MAX: u64 = 200;
/// Bytes of the entries of one page, as they are in the log; a page has one at least.
pub const LOG_PAGE_BYTES_MAX: usize = 4 << 20;
/// Signed lines of the last entries that are kept for followers, and their bytes: all nodes want the newest at once.
pub const RECENT_LINES_MAX: usize = 256;
/// See [`RECENT_LINES_MAX`].
pub const RECENT_LINES_BYTES_MAX: usize = 4 << 20;
/// Bytes of one entry of the log.
pub const ENTRY_JSON_BYTES_MAX: usize = 16 << 20;
/// Bytes of one line of the feed: a snapshot is the largest.
pub const FEED_LINE_BYTES_MAX: usize = 128 << 20;
/// An empty frame tells followers that the registry is there.
pub const FEED_HEARTBEAT: Duration = Duration::from_secs(5);
/// How far ahead of this registry's clock a heartbeat's time may be, because a node says that it has heard one as late: a clock that was put back by less than this
/// is taken for one that goes on, and whoever gets one signed for later days has it of little use.
pub const HEARD_AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);
/// A follower that has heard nothing for this long connects anew: three heartbeats missed.
pub const FEED_SILENCE_MAX: Duration = Duration::from_secs(15);
/// Entries read from the store at once for a follower.
pub const FEED_BATCH: usize = 64;
/// Bytes of entries read from the store at once for a follower.
pub const FEED_BATCH_BYTES: usize = 4 << 20;
/// Attempts to commit against a head that others move.
pub const COMMIT_ATTEMPTS_MAX: u32 = 8;
/// Batches that wait for the writer; more are refused with 503.
pub const COMMIT_QUEUE_MAX: usize = 256;
/// Batches in one transaction of the writer (group commit).
pub const COMMIT_GROUP_MAX: usize = 64;
/// Records that a start reads from the store at once.
pub const RECORDS_AT_ONCE: usize = 1_000;
/// How long the result of a request id is kept.
pub const REQUEST_IDS_KEPT: Duration = Duration::from_secs(24 * 3600);

// Routes: compression.

/// Media types that a route compresses. A page of any site needs about ten.
pub const COMPRESS_TYPES_MAX: usize = 64;
/// Bytes of one of them. RFC 6838, section 4.2 allows 127 for each half; none that is registered comes near.
pub const COMPRESS_TYPE_BYTES_MAX: usize = 100;
/// Greatest `min_bytes` of a route, in bytes.
pub const COMPRESS_BYTES_MIN_MAX: u64 = 1 << 30;

// The API.

/// Bytes of a JSON body of a request.
pub const REQUEST_JSON_BYTES_MAX: usize = 16 << 20;
/// Bytes of the JSON body of an acknowledgement, which names a position.
pub const APPLIED_JSON_BYTES_MAX: usize = 1 << 10;
/// Bytes of a JSON body of an answer, as the client accepts it.
pub const REPLY_JSON_BYTES_MAX: usize = 256 << 20;
/// Bytes of a request's path and query.
pub const REQUEST_TARGET_BYTES_MAX: usize = 4096;
/// Bytes of a request's head.
pub const REQUEST_HEAD_BYTES_MAX: usize = 32 << 10;
/// Fields of a request's head.
pub const REQUEST_FIELDS_MAX: usize = 64;
/// Open connections.
pub const CONNECTIONS_MAX: usize = 8_192;
/// Open connections of one address (IPv6: one /64) on which nobody known has made a request yet; [`HEAD_TIMEOUT`] ends them. Nodes of one place may share
/// an address, and come back together when the registry does.
pub const STRANGERS_PER_ADDRESS_MAX: usize = 512;
/// Streams of one HTTP/2 connection.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 64;
/// Until a connection's TLS handshake is done, and then until it has sent the head of a request, and one of somebody known.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// After what is no request was refused: how long its client may take to read that.
pub const REFUSED_WAIT: Duration = Duration::from_secs(1);
/// Without a request under way; feeds and long polls are.
pub const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(75);
/// Until a client takes a byte of what it is sent.
pub const SEND_STALL_MAX: Duration = Duration::from_secs(30);
/// From a node's removal until its connection is cut, where its feed does not end before: a node that reads nothing is not told that it is over.
pub const REMOVED_FEED_MAX: Duration = Duration::from_secs(10);
/// Without a byte of a request's body.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Until a request's whole body is here.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes of request bodies that are held in memory at once over all connections.
pub const BODIES_IN_MEMORY_MAX: usize = 512 << 20;
/// How often a long poll looks whether a node has gone offline: no report says so.
pub const LONG_POLL_LOOK: Duration = Duration::from_secs(1);
/// How often unused blobs are collected.
pub const COLLECT_EVERY: Duration = Duration::from_secs(3600);
/// How often the operator's certificate files are looked at for changes.
pub const CERTIFICATE_POLL: Duration = Duration::from_secs(2);
/// Descriptors beside those of connections: the database, blobs that are read, and what the runtime needs.
pub const DESCRIPTORS_BESIDE_CONNECTIONS: u64 = 1_024;
/// How long a start waits for the process before it to let go of the data folder.
pub const DATA_LOCK_WAIT: Duration = Duration::from_secs(3);
/// How often it looks meanwhile.
pub const DATA_LOCK_RETRY: Duration = Duration::from_millis(20);
/// How long a statement waits for the database where somebody else has it, such as a backup.
pub const DATABASE_WAIT: Duration = Duration::from_secs(5);
/// After accepting failed (no more descriptors, for one): time for connections to end.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait of one long poll.
pub const LONG_POLL_MAX: Duration = Duration::from_secs(30);
/// After the stop signal: how long answers may still finish.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

// The client.

/// Until a connection to the registry stands, TLS included.
pub const CLIENT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Until a call is answered, beside the wait that it asks for.
pub const CLIENT_CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Until a blob is sent or received.
pub const CLIENT_BLOB_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes of a token file.
pub const TOKEN_FILE_BYTES_MAX: u64 = 16 << 10;

/// Longest time that a route's cache gives on its own account, in seconds: a week. (What a response says of itself is not bounded by it.)
pub const ROUTE_S_MAX: u32 = 7 * 24 * 60 * 60;
/// The shortest silence of the registry that a route may mind, in seconds: it says something every 5 s, and three may be lost.
pub const DISCONNECTED_S_MIN: u32 = 15;

/// Largest share of a lifetime that jitter or early refresh may take, in percent: with more, what an upstream says of freshness would mean little.
pub const SHARE_PERCENT_MAX: u8 = 50;

/// Fields of `vary`, statuses of `status_ttl_s`, members of a normalised set and query parameters of a route's cache: each is looked at on every request.
pub const CACHE_RULES_MAX: usize = 64;

/// Bytes of such a name.
pub const CACHE_NAME_BYTES_MAX: usize = 128;
