//! Runs workers: what an edge node needs to know of them, without V8.
//!
//! Reading order: a [`WorkerSource`] is what may run, an [`Invocation`] is one run of its handler, a [`Host`] is all that the
//! worker can reach, and an [`Outcome`] is how it ended. [`supervisor`] keeps the runner processes that hold V8;
//! [`protocol`] is what edge and runner say to each other, which both sides treat as hostile input. [`backlog`] and [`strain`] say what an
//! overloaded node refuses, and when.

pub mod backlog;
pub mod body;
pub mod cache;
pub mod host;
pub mod invocation;
pub mod limits;
pub mod outcome;
pub mod protocol;
pub mod purge;
pub mod source;
pub mod strain;
pub mod supervisor;

pub use body::{Body, BodyError};
pub use cache::{CacheAnswer, CacheAsk, CacheCall, FetchCache, StatusTtl};
pub use host::{FetchError, Fetched, Host, LogLevel, LogLine, Redirect, Subrequest};
pub use invocation::{ClientInfo, Invocation};
pub use limits::Limits;
pub use outcome::{Outcome, Report, RunError};
pub use purge::{CachePurge, PurgeRefusal};
pub use source::{Module, ModuleKind, Var, WorkerSource};
pub use strain::{Strain, Work};
