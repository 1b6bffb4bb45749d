//! What the tests share: an origin and edge nodes in this process ([`Cluster`]) or in processes of their own ([`Daemon`]),
//! clients of every protocol ([`client`]), and a reader of what nodes count ([`Exposition`]).

pub mod client;
mod cluster;
mod crossing;
mod daemon;
mod exposition;
mod panics;
mod upstream;

pub use client::Answer;
pub use cluster::{Cluster, Deploy, Edge, fixture, route};
pub use crossing::{Busy, CPU, Crossing, Reach};
pub use daemon::{Built, Daemon, selvedge};
pub use exposition::Exposition;
pub use upstream::Upstream;

use std::time::{Duration, Instant};

/// Asks again every few milliseconds until the answer is there; fails after `wait`, naming what was waited for.
pub async fn eventually<T>(what: &str, wait: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + wait;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {wait:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
