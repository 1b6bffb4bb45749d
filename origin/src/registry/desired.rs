//! The desired state: what the log adds up to for a node. The registry and every node compute it with the same function.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Change, Deployment, NodeName, RouteRecord, VersionId, VersionRecord, WorkerName};
use crate::keys::PublicKey;

/// What the registry wants nodes to run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Desired {
    /// Workers that take traffic.
    pub workers: BTreeMap<WorkerName, DesiredWorker>,
    /// Routes by pattern.
    pub routes: BTreeMap<String, RouteRecord>,
    /// Nodes that others reach: what they prove who they are by, and where they stand.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub peers: BTreeMap<NodeName, PeerRecord>,
}

/// A node as other nodes know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerRecord {
    /// Where it stands.
    pub region: String,
    /// Where others reach it, `IP:PORT`.
    pub address: String,
    /// Its Ed25519 public key: whoever holds the other half is this node.
    pub key: PublicKey,
}

/// A worker that takes traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredWorker {
    /// Its deployment.
    pub deployment: Deployment,
    /// The records of the versions that the deployment names.
    pub versions: BTreeMap<VersionId, VersionRecord>,
}

impl Desired {
    /// Takes one change in. Changes that concern no node's work leave it as it is.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Promoted { worker, deployment, versions } => {
                let versions = versions.iter().map(|version| (version.id.clone(), version.clone())).collect();
                self.workers.insert(worker.clone(), DesiredWorker { deployment: deployment.clone(), versions });
            }
            Change::WorkerDeleted { worker } => {
                self.workers.remove(worker);
                self.routes.retain(|_, route| route.owner != super::RouteOwner::Worker(worker.clone()));
            }
            Change::RoutesSet { owner, routes } => {
                self.routes.retain(|_, route| route.owner != *owner);
                for route in routes {
                    self.routes.insert(route.pattern.clone(), route.clone());
                }
            }
            Change::NodeJoined { node, region, peer, key, .. } => match peer {
                Some(address) => {
                    self.peers.insert(node.clone(), PeerRecord { region: region.clone(), address: address.clone(), key: *key });
                }
                None => drop(self.peers.remove(node)),
            },
            Change::NodeRemoved { node } => drop(self.peers.remove(node)),
            Change::VersionCreated(_) | Change::Purged(_) => {}
        }
    }
}
