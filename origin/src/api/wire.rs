//! What the API's bodies say, in both directions. All of it is JSON; unknown fields are refused.

mod log;
mod purge;
mod question;
mod report;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::log::{Changed, LogPage, Logged};
pub use self::purge::{Applied, NewPurge, PurgeNode, PurgeNodes, PurgeState, Purged, WorkerPurge};
pub use self::question::{
    Answers, Ask, ExplainAction, ExplainAsk, ExplainVerdict, Explanation, FieldTold, LastRefusal, Layer, NewQuestion, NodeAnswer, NodeTold,
    PurgeTold, Question, RouteTold, SlicesTold, Stored, TagsTold, Told, ToldState, UpstreamServer, UpstreamServers,
};
pub use self::report::{FeedRefusal, NodeReport, NodeSaid, NodeStatus, Reported, WorkerReport, WorkerState};
use crate::keys::{PublicKey, Signature};
use crate::registry::{Deployment, Digest, Epoch, NodeName, RequestId, RouteRecord, Share, VersionId, VersionRecord, WorkerName};
pub use crate::registry::{RouteChange, RouteDiff, RouteSpec, TakenOver};

/// Every answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// Stable, for programs: `route_owned`, `not_found`, ...
    pub code: String,
    /// What is wrong, naming things.
    pub message: String,
    /// What to try.
    pub hint: Option<String>,
}

/// Which of these blobs the registry lacks. Ask and answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobDigests {
    /// The digests.
    pub digests: Vec<Digest>,
}

/// A version to be made of an uploaded bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewVersion {
    /// The digest of the manifest, which is a blob like its modules.
    pub bundle: Digest,
    /// The trust group; `shared` where not given.
    pub cordon: Option<NodeName>,
    /// Plain bindings.
    #[serde(default)]
    pub vars: BTreeMap<String, serde_json::Value>,
    /// `YYYY-MM-DD`.
    pub compatibility_date: String,
    /// Compatibility flags.
    #[serde(default)]
    pub compatibility_flags: Vec<String>,
    /// CPU per invocation, in milliseconds.
    pub cpu_ms: Option<u32>,
    /// Subrequests per invocation.
    pub subrequests_max: Option<u32>,
    /// What the operator says.
    pub message: Option<String>,
    /// Makes a retry give the first result.
    pub request_id: Option<RequestId>,
}

/// A deployment to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDeployment {
    /// Which versions take the traffic; the shares add up to 100.
    pub versions: Vec<Share>,
    /// All routes of the worker from now on; `None` leaves them as they are.
    #[serde(default)]
    pub routes: Option<Vec<RouteSpec>>,
    /// Take patterns from other owners.
    #[serde(default)]
    pub take_over: bool,
    /// What the operator says.
    #[serde(default)]
    pub message: Option<String>,
    /// Makes a retry give the first result.
    #[serde(default)]
    pub request_id: Option<RequestId>,
}

/// A rollback to be made.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// To this version; `None`: to what took the traffic before the present deployment.
    #[serde(default)]
    pub version: Option<VersionId>,
    /// What the operator says.
    #[serde(default)]
    pub message: Option<String>,
    /// Makes a retry give the first result.
    #[serde(default)]
    pub request_id: Option<RequestId>,
}

/// A deployment was made (promotion or rollback).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promoted {
    /// The log's entry.
    pub seq: u64,
    /// The worker.
    pub worker: WorkerName,
    /// The new deployment.
    pub deployment: Deployment,
    /// The deployment before it.
    pub previous: Option<Deployment>,
    /// All routes that lead to the worker now.
    pub routes: Vec<RouteRecord>,
}

/// A worker is to be deleted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deletion {
    /// What the operator says.
    pub message: Option<String>,
    /// Makes a retry give the first result.
    pub request_id: Option<RequestId>,
}

/// A worker was deleted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deleted {
    /// The log's entry.
    pub seq: u64,
    /// The worker.
    pub worker: WorkerName,
    /// Its routes, gone with it.
    pub routes: Vec<String>,
}

/// A worker, in lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerSummary {
    /// Its name.
    pub name: WorkerName,
    /// What takes its traffic; `None`: only uploaded so far.
    pub deployment: Option<Deployment>,
    /// The numbers of the versions in `deployment`, in its order.
    pub numbers: Vec<u64>,
    /// How many versions were ever made.
    pub versions: u64,
    /// The patterns that lead to it.
    pub routes: Vec<String>,
}

/// The kept versions of a worker, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionList {
    /// The worker.
    pub worker: WorkerName,
    /// Its versions.
    pub versions: Vec<VersionRecord>,
    /// What takes the traffic.
    pub deployment: Option<Deployment>,
}

/// The kept deployments of a worker, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentList {
    /// The worker.
    pub worker: WorkerName,
    /// Its deployments.
    pub deployments: Vec<Deployment>,
}

/// A site file to be applied: all routes of a site from now on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteApply {
    /// Its routes; none removes the site.
    pub routes: Vec<RouteSpec>,
    /// Take patterns from other owners.
    #[serde(default)]
    pub take_over: bool,
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// What the operator says.
    #[serde(default)]
    pub message: Option<String>,
    /// Makes a retry give the first result.
    #[serde(default)]
    pub request_id: Option<RequestId>,
}

/// What applying a site file changed, or would change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteApplied {
    /// The log's entry; `None`: nothing was written (dry run, or no difference).
    pub seq: Option<u64>,
    /// The difference.
    pub diff: RouteDiff,
}

/// A site and its routes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteSummary {
    /// Its name.
    pub name: NodeName,
    /// Its routes.
    pub routes: Vec<RouteRecord>,
}

/// A node joins: sent with the node token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeJoin {
    /// The name it wants.
    pub name: NodeName,
    /// Where it stands.
    pub region: String,
    /// Where operators reach it.
    pub address: Option<String>,
    /// Its public key.
    pub key: PublicKey,
    /// Made with that key over name and key: a node cannot join with another's key.
    pub signature: Signature,
}

/// What is signed in [`NodeJoin::signature`].
pub fn join_message(name: &NodeName, key: &PublicKey) -> String {
    format!("{name}\n{key}")
}

/// A node has joined, or had joined before with the same key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joined {
    /// The log's epoch.
    pub epoch: Epoch,
    /// The log's last entry.
    pub seq: u64,
}

/// A node is to be removed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Removal {
    /// Makes a retry give the first result.
    pub request_id: Option<RequestId>,
}

/// Everything at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The log's epoch.
    pub epoch: Epoch,
    /// The log's last entry.
    pub seq: u64,
    /// The registry's build.
    pub build: String,
    /// The workers.
    pub workers: Vec<WorkerSummary>,
    /// The sites.
    pub sites: Vec<SiteSummary>,
    /// The nodes, with what each says of workers that do not run as they should.
    pub nodes: Vec<NodeStatus>,
}

/// A worker's present deployment on all nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerNodes {
    /// The worker.
    pub worker: WorkerName,
    /// The log's entry that made the deployment.
    pub seq: u64,
    /// The deployment that is meant: later than the asked one where another followed.
    pub deployment: Deployment,
    /// Every node that is online is active or has refused, and there is one at least.
    pub settled: bool,
    /// One line per node.
    pub nodes: Vec<WorkerNode>,
}

/// A worker's deployment on one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerNode {
    /// The node.
    pub node: NodeName,
    /// Where it stands.
    pub region: String,
    /// What became of the deployment there.
    pub state: NodeState,
    /// Why it was refused, or why it has to wait.
    pub reason: Option<String>,
    /// From the commit until the node said that it is active, in milliseconds.
    pub ms: Option<u64>,
}

/// What became of a deployment on a node, as the registry sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It takes the traffic.
    Active,
    /// Not yet heard, or tried again later, see `reason`.
    Pending,
    /// It does not, see `reason`.
    Refused,
    /// The node's last report is older than 15 s; it will pick the deployment up on return.
    Offline,
}

impl std::fmt::Display for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Pending => "pending",
            Self::Refused => "refused",
            Self::Offline => "offline",
        })
    }
}

impl WorkerNodes {
    /// Differs where any node's state differs: what a long poll waits for.
    pub fn fingerprint(&self) -> Digest {
        let mut text = format!("{}\n{}\n", self.seq, self.settled);
        for node in &self.nodes {
            text.push_str(&format!("{}\n{}\n{}\n", node.node, node.state, node.reason.as_deref().unwrap_or_default()));
        }
        Digest::of(text.as_bytes())
    }
}
