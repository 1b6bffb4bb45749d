//! Why the registry refuses: each text names what is in the way, each hint what to do.

use super::{NodeName, RouteOwner, VersionId, WorkerName};

/// A rule's refusal.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// No such worker.
    #[error("there is no worker {worker}")]
    NoWorker {
        /// The worker.
        worker: WorkerName,
    },
    /// No such version, or one that is no longer kept.
    #[error("worker {worker} has no version {version} (the last {} versions are kept)", crate::limits::VERSIONS_KEPT)]
    NoVersion {
        /// The worker.
        worker: WorkerName,
        /// The version.
        version: VersionId,
    },
    /// Nothing takes traffic yet.
    #[error("worker {worker} has no deployment yet")]
    NoDeployment {
        /// The worker.
        worker: WorkerName,
    },
    /// Nothing to roll back to.
    #[error("worker {worker} has no deployment before the present one whose versions are still kept")]
    NothingBefore {
        /// The worker.
        worker: WorkerName,
    },
    /// A value outside its rule.
    #[error("{what}: {rule}")]
    Value {
        /// Which value.
        what: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// More than the registry takes.
    #[error("{what}: at most {max}")]
    Limit {
        /// What there is too much of.
        what: String,
        /// The bound.
        max: usize,
    },
    /// A pattern that another owner holds.
    #[error("route {pattern} belongs to {owner}")]
    RouteOwned {
        /// The pattern.
        pattern: String,
        /// Who holds it.
        owner: RouteOwner,
    },
    /// One pattern twice.
    #[error("route {pattern} is declared twice")]
    RouteTwice {
        /// The pattern.
        pattern: String,
    },
    /// A pattern that is none.
    #[error("route {pattern:?}: {rule}")]
    Pattern {
        /// As given, cut to 120 characters.
        pattern: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A route that names a worker that does not exist.
    #[error("route {pattern} names worker {worker}, which does not exist or takes no traffic yet")]
    RouteWorker {
        /// The pattern.
        pattern: String,
        /// The worker.
        worker: WorkerName,
    },
    /// A worker that a site's route needs.
    #[error("worker {worker} answers route {pattern} of {owner}")]
    WorkerInUse {
        /// The worker.
        worker: WorkerName,
        /// One such route.
        pattern: String,
        /// Who declares it.
        owner: RouteOwner,
    },
    /// The name belongs to another key.
    #[error("node {node} has joined with another key")]
    NodeNameTaken {
        /// The node.
        node: NodeName,
    },
    /// The key was revoked.
    #[error("this key was revoked when node {node} was removed")]
    NodeRevoked {
        /// The name it asks for.
        node: NodeName,
    },
    /// The key belongs to another node.
    #[error("this key belongs to node {node}")]
    NodeKeyTaken {
        /// The node that has it.
        node: NodeName,
    },
    /// No such node.
    #[error("there is no node {node}")]
    NoNode {
        /// The node.
        node: NodeName,
    },
}

impl Refusal {
    /// Stable, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoWorker { .. } => "no_worker",
            Self::NoVersion { .. } => "no_version",
            Self::NoDeployment { .. } => "no_deployment",
            Self::NothingBefore { .. } => "nothing_before",
            Self::Value { .. } => "bad_value",
            Self::Limit { .. } => "limit",
            Self::RouteOwned { .. } => "route_owned",
            Self::RouteTwice { .. } => "route_twice",
            Self::Pattern { .. } => "bad_pattern",
            Self::RouteWorker { .. } => "route_worker",
            Self::WorkerInUse { .. } => "worker_in_use",
            Self::NodeNameTaken { .. } => "node_name_taken",
            Self::NodeRevoked { .. } => "node_revoked",
            Self::NodeKeyTaken { .. } => "node_key_taken",
            Self::NoNode { .. } => "no_node",
        }
    }

    /// What to try.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoWorker { .. } => "`selvedge status` lists the workers".to_owned(),
            Self::NoVersion { worker, .. } => format!("`selvedge versions {worker}` lists them"),
            Self::NoDeployment { .. } => "promote a version first".to_owned(),
            Self::NothingBefore { worker } => format!("name a version: `selvedge rollback {worker} VERSION`"),
            Self::RouteOwned { .. } => "`--take-over` moves it here".to_owned(),
            Self::RouteWorker { worker, .. } => format!("deploy worker {worker} first"),
            Self::WorkerInUse { owner, .. } => format!("take the route out of {owner} first"),
            Self::NodeNameTaken { node } => format!("choose another --name, or `selvedge nodes remove {node}` first"),
            Self::NodeRevoked { .. } => "to join anew, start the node with an empty data folder".to_owned(),
            Self::NoNode { .. } => "`selvedge nodes` lists the nodes".to_owned(),
            Self::Value { .. } | Self::Limit { .. } | Self::RouteTwice { .. } | Self::Pattern { .. } | Self::NodeKeyTaken { .. } => {
                return None;
            }
        })
    }
}
