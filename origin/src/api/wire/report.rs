//! What nodes say about themselves, and what the registry makes of it.

use serde::{Deserialize, Serialize};

use crate::feed::Position;
use crate::registry::{NodeName, VersionId, WorkerName};

/// What a node says about itself, on every change and every 5 s: how far it has applied the log, and which workers do not run what that wants.
/// All others do, so a report costs what is not as it should be, not what the node runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeReport {
    /// The registry's mark of the report that this one goes on from: it says what has changed since. `None`: it says everything.
    pub since: Option<u64>,
    /// The last entry that it applied. `None`: not yet, before the first snapshot and where the next report goes on with what has changed.
    pub position: Option<Position>,
    /// Where it stands.
    pub region: String,
    /// Where operators reach it.
    pub address: Option<String>,
    /// Where other nodes reach it, `IP:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Its build.
    pub build: String,
    /// Why it takes no further entries, where it refused one.
    pub feed_refusal: Option<String>,
    /// The last line of the feed that it refused, however many it has taken since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<FeedRefusal>,
    /// Workers that do not run the deployment that is wanted. At most [`REPORT_LINES_MAX`](crate::limits::REPORT_LINES_MAX), with `settled`.
    pub unsettled: Vec<WorkerReport>,
    /// Workers of which an earlier report said that they do not, and that run it now, or are wanted no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<WorkerName>,
}

/// A line of the feed that a node refused: forged, reordered, or not to be read. It is remembered for
/// [`FEED_REFUSAL_KEPT`](crate::limits::FEED_REFUSAL_KEPT).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedRefusal {
    /// Why.
    pub reason: String,
    /// How long ago, in milliseconds.
    pub ms_ago: u64,
    /// How many it has refused, as long as none of them was forgotten before the next.
    pub count: u64,
}

/// What the registry made of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reported {
    /// What the next report may go on from. `None`: this one went on from a report that the registry does not have, and everything has to be said.
    pub mark: Option<u64>,
}

/// A worker on a node that does not run the deployment that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerReport {
    /// The worker.
    pub worker: WorkerName,
    /// The deployment that the node was last told of.
    pub deployment: VersionId,
    /// What became of it here.
    pub state: WorkerState,
    /// The versions that take traffic here now: the old ones.
    pub active: Vec<VersionId>,
}

/// Why a node does not run a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Its bundles are being fetched and warmed.
    Activating,
    /// It cannot now, and why: it is tried again.
    Waiting(String),
    /// It cannot, and why. What was active before still is.
    Refused(String),
}

impl WorkerState {
    /// Why it does not run.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Activating => None,
            Self::Waiting(reason) | Self::Refused(reason) => Some(reason),
        }
    }

    /// The same for another reason.
    pub(crate) fn because(self, because: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Activating => Self::Activating,
            Self::Waiting(reason) => Self::Waiting(because(reason)),
            Self::Refused(reason) => Self::Refused(because(reason)),
        }
    }
}

/// A node, as the registry knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeStatus {
    /// Its name.
    pub name: NodeName,
    /// Where it stands.
    pub region: String,
    /// Where operators reach it.
    pub address: Option<String>,
    /// Whether its last report is younger than 15 s.
    pub online: bool,
    /// How old its last report is, in milliseconds; `None`: none since the registry started.
    pub reported_ms_ago: Option<u64>,
    /// What its reports add up to.
    pub report: Option<NodeSaid>,
}

/// What a node's reports add up to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSaid {
    /// The last entry of the registry's log that it applied; 0: none, or it stands in another log.
    pub seq: u64,
    /// Its build.
    pub build: String,
    /// Why it takes no further entries, where it refused one.
    pub feed_refusal: Option<String>,
    /// The last line of the feed that it refused, however many it has taken since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<FeedRefusal>,
    /// The workers that do not run there what that entry wants. All others do.
    pub unsettled: Vec<WorkerReport>,
}
