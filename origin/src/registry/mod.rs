//! The rules of the registry: pure. Data and `now` in, a verdict or entries of the log out.
//!
//! [`State`] is what the log adds up to. A rule looks at it and gives a [`Plan`] (changes to commit and what to answer) or a [`Refusal`]
//! that names what is in the way. Nothing here changes the state but [`State::apply`], with a change that was committed.

mod address;
mod cache;
mod compress;
mod deployment;
mod desired;
mod fleet;
mod followers;
mod heard;
mod names;
mod node;
mod pattern;
mod purge;
mod question;
mod records;
mod refusal;
mod route;
mod state;
#[cfg(test)]
mod tests;
mod upstream;
mod version;

pub use address::{authority, host_of};
pub use cache::{CacheSettings, QueryRule, RequestDirectives, VaryRule, fuzz as fuzz_cache_settings};
pub use compress::{Coding, CompressSettings};
pub use deployment::{Made, delete, promote, rollback};
pub use desired::{Desired, DesiredWorker, PeerRecord};
pub use fleet::{Fleet, Taken};
pub use followers::Followers;
pub use names::{BadName, Digest, Epoch, NodeName, RequestId, VersionId, WorkerName};
pub use node::{join, moved, remove};
pub use pattern::normalise as normalise_pattern;
pub use purge::{purge, purge_of_worker};
pub use question::{fuzz as fuzz_questions, question};
pub use records::*;
pub use refusal::Refusal;
pub use route::{RouteChange, RouteDiff, RouteSpec, SiteRoutes, TakenOver, apply_site};
pub use state::{NodeRecord, State, StateError, WorkerRecord, WorkerState, Write};
pub use upstream::{BadUpstream, Ejection, HealthCheck, KeepAlive, Protocol, Retries, Server, Upstream, check_address};
pub use version::{Sealed, create_version, is_date};

/// When a rule is asked, and the id that what it makes will have.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Unix time in milliseconds.
    pub now_ms: u64,
    /// A fresh id.
    pub id: VersionId,
}

/// What a rule decided: changes for one entry of the log, and what to answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan<T> {
    /// The changes, in order. None: there is nothing to commit.
    pub changes: Vec<Change>,
    /// What they replace.
    pub before: Vec<Before>,
    /// The answer.
    pub answer: T,
}
