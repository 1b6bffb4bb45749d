//! The life of a request, stage by stage.

mod acknowledged;
mod cache;
mod certificates;
mod explain;
mod hints;
mod interim;
mod limits;
mod logging;
mod malformed;
mod metrics;
mod outcomes;
mod protocols;
mod purging;
mod shield;
mod smuggling;
mod soft;
mod subrequests;
mod waits;
mod worker;
mod worker_caches;
