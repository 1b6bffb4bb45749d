//! Why a request has no answer of its target: facts with data. What is sent for each is decided in `respond.rs`, and only there.

use std::sync::Arc;

use http::Method;
use selvedge_runtime::{BodyError, RunError};

use crate::upstream::UpstreamError;

/// Why there is no response.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestError {
    /// The head is not one that can be answered.
    #[error("bad request: {0}")]
    Malformed(&'static str),
    /// A method that this node never forwards.
    #[error("method {0} is not served")]
    Method(Method),
    /// No pattern matches.
    #[error("no route for {authority}{path}")]
    NoRoute {
        /// The authority.
        authority: Box<str>,
        /// The path, cut.
        path: Box<str>,
    },
    /// The request has passed through too many nodes or workers already.
    #[error("passed through {depth} nodes or workers, more than {max}")]
    Loop {
        /// How many.
        depth: u32,
        /// The bound.
        max: u32,
    },
    /// One client's request has caused too many requests between routes of this node.
    #[error("caused more than {max} requests between routes of this node")]
    TooManyNested {
        /// The bound.
        max: u32,
    },
    /// The route's worker does not run here.
    #[error("worker {worker} has no active version on this node")]
    NotActive {
        /// The worker.
        worker: Arc<str>,
    },
    /// A worker asks for a URL of its own route, and the route has no upstream.
    #[error("route {pattern} of worker {worker} has no upstream: a fetch() of the worker's own route has nowhere to go")]
    NoUpstream {
        /// The pattern.
        pattern: Arc<str>,
        /// The worker.
        worker: Arc<str>,
    },
    /// The request's body is larger than the worker takes.
    #[error("request body is larger than {bytes_max} bytes")]
    BodyTooLarge {
        /// The bound, in bytes.
        bytes_max: u64,
    },
    /// Another node asked for what this one cannot answer for it.
    #[error("not answered for a peer: {0}")]
    NotForPeers(&'static str),
    /// The client asked for a stored response only, and there is none.
    #[error("only-if-cached, and nothing is stored")]
    NotStored,
    /// The upstream.
    #[error("upstream: {0}")]
    Upstream(#[from] UpstreamError),
    /// The upstream, and what is stored must not be used without it.
    #[error("upstream, without which what is stored must not be used: {0}")]
    Unconfirmed(UpstreamError),
    /// The worker.
    #[error("worker {worker} version {version}: {error}")]
    Run {
        /// The worker.
        worker: Arc<str>,
        /// The version.
        version: Arc<str>,
        /// How it ended.
        error: RunError,
    },
    /// A body ended before its time while this node read it.
    #[error(transparent)]
    Body(#[from] BodyError),
}
