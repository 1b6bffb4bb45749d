//! The messages. Ids are chosen by the edge; a [`Part`] tells the bodies of one invocation apart.

use bytes::Bytes;

use super::Fields;
use crate::{CachePurge, ClientInfo, FetchCache, LogLevel, ModuleKind, Outcome, PurgeRefusal, Redirect};

/// One invocation on one link. The low [`STREAM_INDEX_BITS`] are the index of its place among the link's running
/// invocations, the rest counts up, so that no late message is taken for a newer invocation's. Never 0.
pub type StreamId = u32;
/// See [`StreamId`]; also the bound of running invocations per link.
pub const STREAM_INDEX_BITS: u32 = 10;
/// One loaded version on one link. Never reused on a link.
pub type Slot = u32;
/// Which body of an invocation: 0 is the client's request (to the runner) and the worker's response (to the edge); `n` is the
/// `n`-th subrequest's response (to the runner) and request (to the edge).
pub type Part = u32;

/// How a message's body follows its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyKind {
    /// There is none.
    Empty,
    /// All of it is here.
    Whole(Bytes),
    /// `BodyData` and `BodyEnd` follow. Its length where known.
    Stream(Option<u64>),
}

/// From the edge to a runner's thread.
#[derive(Debug, Clone)]
pub enum ToRunner {
    /// Begins loading a version; its modules follow, then `LoadEnd`.
    LoadBegin {
        /// Its slot.
        slot: Slot,
        /// Everything but the modules' bytes.
        head: Box<LoadHead>,
    },
    /// Announces a module; `LoadBytes` follow: first its bytes, then its source map.
    LoadModule {
        /// The version's slot.
        slot: Slot,
        /// See [`crate::Module::specifier`].
        specifier: String,
        /// See [`crate::Module::kind`].
        kind: ModuleKind,
        /// Bytes of the module.
        bytes_len: u64,
        /// Bytes of its source map, 0 for none.
        source_map_len: u64,
    },
    /// A piece of the module announced last.
    LoadBytes {
        /// The version's slot.
        slot: Slot,
        /// The piece.
        bytes: Bytes,
    },
    /// The version is complete: make an isolate and evaluate it.
    LoadEnd {
        /// The version's slot.
        slot: Slot,
    },
    /// Drop the version's isolate as soon as its invocations have ended.
    Unload {
        /// The version's slot.
        slot: Slot,
    },
    /// Starts an invocation of the `fetch` handler.
    Start {
        /// Its id.
        stream: StreamId,
        /// Which version.
        slot: Slot,
        /// The request.
        head: Box<RequestHead<Fields>>,
        /// For `request.cf`.
        client: ClientInfo,
        /// Its body.
        body: BodyKind,
    },
    /// Bytes of a body; never more than the credit that the runner has given for it.
    BodyData {
        /// The invocation.
        stream: StreamId,
        /// Which body.
        part: Part,
        /// The bytes.
        bytes: Bytes,
    },
    /// The end of a body.
    BodyEnd {
        /// The invocation.
        stream: StreamId,
        /// Which body.
        part: Part,
        /// It was cut short, and why.
        error: Option<String>,
    },
    /// The edge can take so many more bytes of a body.
    Credit {
        /// The invocation.
        stream: StreamId,
        /// Which body.
        part: Part,
        /// How many more.
        bytes: u32,
    },
    /// The client is gone or a wall limit was crossed: abort the invocation. Answered by `Done`, or by `Stays` where the client is gone
    /// and something was promised to `waitUntil`.
    Cancel {
        /// The invocation.
        stream: StreamId,
        /// Why.
        outcome: Outcome,
    },
    /// The answer to a `Fetch`.
    Fetched {
        /// The invocation.
        stream: StreamId,
        /// The subrequest.
        part: Part,
        /// The response's head and body, or why there is none.
        result: Result<(Box<ResponseHead<Fields>>, BodyKind), String>,
        /// `Response.url`.
        url: String,
        /// Redirects that were followed.
        redirects: u32,
    },
    /// The answer to a `Cache` that has no response to give. One that failed is answered by `Fetched`, as is a `match` that found
    /// something.
    Settled {
        /// The invocation.
        stream: StreamId,
        /// The operation.
        part: Part,
        /// Kept, or was there.
        yes: bool,
        /// Why not.
        note: Option<String>,
    },
    /// The answer to a `Purge`; one that the invocation was not allowed to ask for is answered by `Fetched`.
    Purged {
        /// The invocation.
        stream: StreamId,
        /// The purge.
        part: Part,
        /// Why it was not made, where it was not.
        refused: Option<PurgeRefusal>,
    },
}

/// From a runner's thread to the edge.
#[derive(Debug, Clone)]
pub enum ToEdge {
    /// The first message of a link.
    Hello {
        /// Must equal the edge's.
        build: String,
        /// What of the sandbox does not hold (only with the flag that allows it); empty when all holds.
        unsandboxed: String,
    },
    /// The version can take invocations.
    Loaded {
        /// Its slot.
        slot: Slot,
        /// Thread CPU time of loading, in microseconds.
        cpu_us: u64,
        /// V8 heap in use.
        heap_bytes: u64,
    },
    /// The version cannot run, or its isolate was dropped after a kill. Its slot is free; running invocations get `Done`.
    Gone {
        /// Its slot.
        slot: Slot,
        /// `StartupFailed`, `ExceededCpu`, `ExceededMemory`, ...; `Ok` after `Unload`.
        outcome: Outcome,
        /// For the operator.
        message: String,
    },
    /// Not started and not going to be: its thread is busy or its isolate is gone. Place it elsewhere.
    Bounced {
        /// The invocation.
        stream: StreamId,
    },
    /// The response begins.
    Response {
        /// The invocation.
        stream: StreamId,
        /// Its head.
        head: Box<ResponseHead>,
        /// Its body.
        body: BodyKind,
    },
    /// Bytes of a body; never more than the credit that the edge has given for it.
    BodyData {
        /// The invocation.
        stream: StreamId,
        /// Which body.
        part: Part,
        /// The bytes.
        bytes: Bytes,
    },
    /// The end of a body.
    BodyEnd {
        /// The invocation.
        stream: StreamId,
        /// Which body.
        part: Part,
        /// It was cut short, and why.
        error: Option<String>,
    },
    /// The worker reads: so many more bytes of a body may be sent.
    Credit {
        /// The invocation.
        stream: StreamId,
        /// Which body.
        part: Part,
        /// How many more.
        bytes: u32,
    },
    /// A subrequest.
    Fetch {
        /// The invocation.
        stream: StreamId,
        /// Its number, counting from 1 in the invocation.
        part: Part,
        /// The request; the URL is absolute.
        head: Box<RequestHead>,
        /// What to do with a 3xx.
        redirect: Redirect,
        /// What is wished of the cache.
        cache: Option<Box<FetchCache>>,
        /// Its body.
        body: BodyKind,
    },
    /// An operation of a cache of the worker's own. Counts as a subrequest.
    Cache {
        /// The invocation.
        stream: StreamId,
        /// Its number, counting with the subrequests'.
        part: Part,
        /// What is asked.
        ask: Box<CacheHead>,
    },
    /// A purge of what is the worker's own. Counts as a subrequest.
    Purge {
        /// The invocation.
        stream: StreamId,
        /// Its number, counting with the subrequests'.
        part: Part,
        /// What is purged.
        purge: Box<CachePurge>,
    },
    /// If the worker fails, the request is for whoever answers in its place.
    PassThrough {
        /// The invocation.
        stream: StreamId,
    },
    /// Its client is gone, and it goes on until what it promised to `waitUntil` is done.
    Stays {
        /// The invocation.
        stream: StreamId,
    },
    /// The worker has aborted a subrequest, or dropped a response body. (Part 0: it dropped the request's body.)
    Abandon {
        /// The invocation.
        stream: StreamId,
        /// Which.
        part: Part,
    },
    /// A line of `console.*`, or an exception.
    Log {
        /// The invocation; 0 while a version loads.
        stream: StreamId,
        /// The version.
        slot: Slot,
        /// How loud.
        level: LogLevel,
        /// The text.
        message: String,
        /// An uncaught exception.
        exception: bool,
        /// Where `console` was called, by the sources: `FILE:LINE:COLUMN`. Empty where the runner was not asked to look, and for exceptions, whose text says it.
        place: String,
    },
    /// There will be no response (its head has not been sent), or its body is cut short. `Done` follows later.
    Failed {
        /// The invocation.
        stream: StreamId,
        /// Why.
        outcome: Outcome,
        /// For the operator.
        message: String,
    },
    /// Everything of the invocation has ended, also `waitUntil`. The last message about it.
    Done {
        /// The invocation.
        stream: StreamId,
        /// How it ended.
        outcome: Outcome,
        /// Thread CPU time.
        cpu_us: u64,
        /// The isolate's V8 heap in use.
        heap_bytes: u64,
    },
    /// The watchdog's `terminate_execution` has not been obeyed for 50 ms: answer the client, promote the standby, kill.
    Stuck {
        /// The invocation that holds the thread; 0 while a version loads.
        stream: StreamId,
        /// The version that holds the thread.
        slot: Slot,
        /// The limit that was crossed.
        outcome: Outcome,
    },
}

/// A version but for its modules' bytes; see [`crate::WorkerSource`].
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs, reason = "the fields of WorkerSource")]
pub struct LoadHead {
    pub worker: String,
    pub version: String,
    pub entry: String,
    pub modules_len: u32,
    pub vars: std::collections::BTreeMap<String, crate::Var>,
    pub compatibility_date: String,
    pub compatibility_flags: Vec<String>,
    pub limits: crate::Limits,
}

/// The head of a request. Its fields are parsed for the edge, and are as they came for a runner.
#[derive(Debug, Clone)]
pub struct RequestHead<F = http::HeaderMap> {
    /// The method, as sent.
    pub method: http::Method,
    /// The absolute URL.
    pub url: String,
    /// The fields, in order.
    pub headers: F,
}

/// An operation of a cache; see [`crate::CacheAsk`]. There is no method: a key is a GET.
#[derive(Debug, Clone)]
pub struct CacheHead {
    /// The cache's name; none: the default one.
    pub name: Option<String>,
    /// The absolute URL that is the key.
    pub url: String,
    /// The fields of the request that goes with it.
    pub headers: http::HeaderMap,
    /// What is asked.
    pub call: CacheCallHead,
}

/// What is asked of a cache.
#[derive(Debug, Clone)]
pub enum CacheCallHead {
    /// `match`
    Match,
    /// `put`
    Put(ResponseHead, BodyKind),
    /// `delete`
    Delete,
}

/// The head of a response; see [`RequestHead`].
#[derive(Debug, Clone)]
pub struct ResponseHead<F = http::HeaderMap> {
    /// The status.
    pub status: http::StatusCode,
    /// The fields, in order.
    pub headers: F,
}
