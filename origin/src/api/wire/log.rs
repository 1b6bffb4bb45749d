//! The registry's log as its operators read it: who changed what, when and why.

use serde::{Deserialize, Serialize};

use crate::registry::{Before, Change, Entry, NodeName, PurgeRecord, RouteOwner, Share, VersionId, WorkerName};

/// A part of the log, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPage {
    /// Its entries.
    pub entries: Vec<Logged>,
}

/// One entry. What it changed is told in brief: the records themselves are asked for elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logged {
    /// Its number.
    pub seq: u64,
    /// Unix time in milliseconds.
    pub at_ms: u64,
    /// Who: `admin`, `joining node`, or `node NAME`.
    pub actor: String,
    /// What the operator said.
    pub reason: Option<String>,
    /// What changed.
    pub changes: Vec<Changed>,
}

/// One change, in brief.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Changed {
    /// A version exists.
    VersionCreated {
        /// The worker.
        worker: WorkerName,
        /// The version.
        version: VersionId,
        /// Its number.
        number: u64,
    },
    /// A worker's traffic goes to these versions.
    Promoted {
        /// The worker.
        worker: WorkerName,
        /// The deployment.
        deployment: VersionId,
        /// The versions, and what share each has.
        versions: Vec<Share>,
        /// The deployment before.
        before: Option<VersionId>,
    },
    /// A worker is gone, with its versions and routes.
    WorkerDeleted {
        /// The worker.
        worker: WorkerName,
    },
    /// An owner has so many routes now.
    RoutesSet {
        /// The owner.
        owner: RouteOwner,
        /// Their number.
        routes: usize,
        /// Their number before, where there were any.
        before: Option<usize>,
    },
    /// A node has joined.
    NodeJoined {
        /// Its name.
        node: NodeName,
        /// Its region.
        region: String,
        /// Where it is reached.
        address: Option<String>,
    },
    /// A node's key is revoked.
    NodeRemoved {
        /// Its name.
        node: NodeName,
    },
    /// What is stored was purged.
    Purged(PurgeRecord),
}

impl Logged {
    /// An entry in brief.
    pub(crate) fn of(seq: u64, entry: &Entry) -> Self {
        let changes = entry.changes.iter().map(|change| Changed::of(change, &entry.before)).collect();
        Self { seq, at_ms: entry.at_ms, actor: entry.actor.clone(), reason: entry.reason.clone(), changes }
    }
}

impl Changed {
    fn of(change: &Change, before: &[Before]) -> Self {
        match change {
            Change::VersionCreated(record) => {
                Self::VersionCreated { worker: record.worker.clone(), version: record.id.clone(), number: record.number }
            }
            Change::Promoted { worker, deployment, .. } => {
                let before = before.iter().find_map(|before| match before {
                    Before::Deployment { worker: of, deployment } if of == worker => Some(deployment.clone()),
                    _ => None,
                });
                let (deployment, versions) = (deployment.id.clone(), deployment.versions.clone());
                Self::Promoted { worker: worker.clone(), deployment, versions, before }
            }
            Change::WorkerDeleted { worker } => Self::WorkerDeleted { worker: worker.clone() },
            Change::RoutesSet { owner, routes } => {
                let before = before.iter().find_map(|before| match before {
                    Before::Routes { owner: of, routes } if of == owner => Some(routes.len()),
                    _ => None,
                });
                Self::RoutesSet { owner: owner.clone(), routes: routes.len(), before }
            }
            Change::NodeJoined { node, region, address, .. } => {
                Self::NodeJoined { node: node.clone(), region: region.clone(), address: address.clone() }
            }
            Change::NodeRemoved { node } => Self::NodeRemoved { node: node.clone() },
            Change::Purged(purge) => Self::Purged(PurgeRecord::clone(purge)),
        }
    }
}
