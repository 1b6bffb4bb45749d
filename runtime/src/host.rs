//! The seam: all that a worker can reach outside its isolate. The edge implements it; every check is on this side, in Rust.

use futures::future::BoxFuture;

use crate::{Body, CacheAnswer, CacheAsk, CachePurge, FetchCache, PurgeRefusal, Report};

/// The capabilities of one invocation. Methods are called on the edge, never in the runner.
pub trait Host: Send + Sync + 'static {
    /// Makes one subrequest. The caller has counted it. Dropping the future cancels it.
    fn fetch(&self, subrequest: Subrequest) -> BoxFuture<'static, Result<Fetched, FetchError>>;

    /// Does one operation of a cache of the worker's own. The caller has counted it as a subrequest. Dropping the future ends it: a
    /// `put` that is not complete keeps nothing.
    fn cache(&self, ask: CacheAsk) -> BoxFuture<'static, Result<CacheAnswer, FetchError>>;

    /// Purges, of what was stored for the worker and nothing else. The caller has counted it as a subrequest. Resolves when the purge is durable at the
    /// registry and, within a bound, applied on this node. Dropping the future does not take it back.
    fn purge(&self, purge: CachePurge) -> BoxFuture<'static, Result<(), PurgeRefusal>>;

    /// The worker has called `ctx.passThroughOnException()`: if it fails, the request is for whoever answers in its place. Must not
    /// block; called before anyone hears of the failure.
    fn pass_through(&self);

    /// Takes a line of `console.*`, or an exception. Must not block; may drop lines beyond a rate.
    fn log(&self, line: LogLine);

    /// Called exactly once, when everything of the invocation has ended.
    fn finished(&self, report: Report);
}

/// One `fetch()` of a worker.
#[derive(Debug)]
pub struct Subrequest {
    /// The request; its URI is absolute.
    pub request: http::Request<Body>,
    /// What to do with a 3xx.
    pub redirect: Redirect,
    /// What is wished of the cache (`cf`); none: nothing beyond the ordinary.
    pub cache: Option<Box<FetchCache>>,
    /// How many more redirects the invocation's budget of subrequests allows.
    pub redirects_max: u32,
}

/// `RequestInit.redirect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirect {
    /// Follow, 20 at most.
    Follow,
    /// A 3xx is the response.
    Manual,
    /// A 3xx is an error.
    Error,
}

/// The answer to a subrequest.
#[derive(Debug)]
pub struct Fetched {
    /// The response.
    pub response: http::Response<Body>,
    /// `Response.url`: the last address of the chain.
    pub url: String,
    /// Redirects that were followed; each counts as a subrequest.
    pub redirects: u32,
}

/// Why a subrequest has no response. The worker sees a `TypeError` with this text.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct FetchError {
    /// Names the host and what failed; safe to show to the worker.
    pub message: String,
}

/// One line for the log of a worker.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// How loud.
    pub level: LogLevel,
    /// The formatted arguments of `console.*`, or an exception with its mapped stack.
    pub message: String,
    /// An uncaught exception rather than a call of `console.*`.
    pub exception: bool,
    /// Where `console` was called, by the sources: `FILE:LINE:COLUMN`. Empty where runners were not asked to look.
    pub place: String,
}

/// The levels of `console`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LogLevel {
    /// `console.debug`
    Debug = 0,
    /// `console.log`
    Log = 1,
    /// `console.info`
    Info = 2,
    /// `console.warn`
    Warn = 3,
    /// `console.error`
    Error = 4,
}
