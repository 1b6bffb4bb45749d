//! What the log adds up to, for the registry: every record. Rebuilt from the store's records at start, and changed by committed
//! changes only.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{Change, Deployment, Desired, NodeName, RouteOwner, RouteRecord, VersionId, VersionRecord, WorkerName};
use crate::keys::PublicKey;
use crate::limits::{DEPLOYMENTS_KEPT, REVOKED_KEYS_MAX, VERSIONS_KEPT};

/// Every record of the registry.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    workers: BTreeMap<WorkerName, WorkerState>,
    nodes: BTreeMap<NodeName, NodeRecord>,
    revoked: BTreeMap<PublicKey, Revoked>,
    desired: Desired,
}

/// A worker with its kept versions and deployments.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkerState {
    /// What is kept of it beside versions and deployments.
    pub record: WorkerRecord,
    /// Its kept versions, oldest first.
    pub versions: VecDeque<VersionRecord>,
    /// Its kept deployments, oldest first; the last one takes the traffic.
    pub deployments: VecDeque<Deployment>,
    /// Bytes that its serving versions take in a snapshot of the feed, about.
    pub serving_bytes: usize,
}

/// A worker's own record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerRecord {
    /// How many versions were ever made.
    pub made: u64,
    /// The log's entry of the present deployment; 0 where there is none.
    pub deployed_seq: u64,
}

/// A node that has joined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRecord {
    /// Where it stands.
    pub region: String,
    /// Where operators reach it.
    pub address: Option<String>,
    /// Where other nodes reach it, `IP:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Its key.
    pub key: PublicKey,
}

/// A deployment as the store keeps it. Ids follow the system's clock, which may be set back; the log's numbers say what came after what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    seq: u64,
    deployment: Deployment,
}

/// A key of a removed node. Earlier releases kept the name only: those are the oldest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoked {
    node: NodeName,
    seq: u64,
}

/// A change to the store's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Which record.
    pub key: String,
    /// Its new value; `None` deletes it.
    pub value: Option<Vec<u8>>,
}

/// A record of the store that this build does not understand.
#[derive(Debug, thiserror::Error)]
#[error("record {key:?} cannot be read: {reason}")]
pub struct StateError {
    /// Which record.
    pub key: String,
    /// Why.
    pub reason: String,
}

impl WorkerState {
    /// What takes the traffic.
    pub fn deployment(&self) -> Option<&Deployment> {
        self.deployments.back()
    }

    /// A kept version.
    pub fn version(&self, id: &VersionId) -> Option<&VersionRecord> {
        self.versions.iter().find(|version| version.id == *id)
    }

    fn is_serving(&self, id: &VersionId) -> bool {
        self.deployment().is_some_and(|deployment| deployment.versions.iter().any(|share| share.version == *id))
    }

    /// Versions that go when `more` are added: the oldest beyond the kept number that take no traffic.
    fn surplus_versions(&self, more: usize) -> Vec<VersionId> {
        let surplus = (self.versions.len() + more).saturating_sub(VERSIONS_KEPT);
        self.versions.iter().map(|version| &version.id).filter(|id| !self.is_serving(id)).take(surplus).cloned().collect()
    }

    /// Deployments that go when `more` are added.
    fn surplus_deployments(&self, more: usize) -> Vec<VersionId> {
        let surplus = (self.deployments.len() + more).saturating_sub(DEPLOYMENTS_KEPT);
        self.deployments.iter().take(surplus).map(|deployment| deployment.id.clone()).collect()
    }
}

impl State {
    /// All workers.
    pub fn workers(&self) -> &BTreeMap<WorkerName, WorkerState> {
        &self.workers
    }

    /// A worker.
    pub fn worker(&self, name: &WorkerName) -> Option<&WorkerState> {
        self.workers.get(name)
    }

    /// All nodes.
    pub fn nodes(&self) -> &BTreeMap<NodeName, NodeRecord> {
        &self.nodes
    }

    /// Whether a removed node had this key.
    pub fn is_revoked(&self, key: &PublicKey) -> bool {
        self.revoked.contains_key(key)
    }

    /// The key that is forgotten when one more is revoked: the oldest beyond the kept number.
    fn surplus_revoked(&self) -> Option<PublicKey> {
        let oldest = || self.revoked.iter().min_by_key(|(_, revoked)| revoked.seq).map(|(key, _)| *key);
        (self.revoked.len() >= REVOKED_KEYS_MAX).then(oldest).flatten()
    }

    /// All routes by pattern.
    pub fn routes(&self) -> &BTreeMap<String, RouteRecord> {
        &self.desired.routes
    }

    /// The routes of an owner.
    pub fn routes_of(&self, owner: &RouteOwner) -> Vec<RouteRecord> {
        self.desired.routes.values().filter(|route| route.owner == *owner).cloned().collect()
    }

    /// What nodes are to run.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Takes in a committed change, the log's entry `seq`.
    pub fn apply(&mut self, seq: u64, change: &Change) {
        self.desired.apply(change);
        match change {
            Change::VersionCreated(version) => {
                let worker = self.workers.entry(version.worker.clone()).or_default();
                let surplus = worker.surplus_versions(1);
                worker.versions.retain(|kept| !surplus.contains(&kept.id));
                worker.versions.push_back(VersionRecord::clone(version));
                worker.record.made = version.number;
            }
            Change::Promoted { worker, deployment, versions } => {
                let worker = self.workers.entry(worker.clone()).or_default();
                worker.serving_bytes = size(versions);
                let surplus = worker.surplus_deployments(1);
                worker.deployments.retain(|kept| !surplus.contains(&kept.id));
                worker.deployments.push_back(deployment.clone());
                worker.record.deployed_seq = seq;
            }
            Change::WorkerDeleted { worker } => {
                self.workers.remove(worker);
            }
            // Nodes have applied a purge or will, by the log; nothing of it is left.
            Change::RoutesSet { .. } | Change::Purged(_) => {}
            Change::NodeJoined { node, region, address, peer, key } => {
                let record = NodeRecord { region: region.clone(), address: address.clone(), peer: peer.clone(), key: *key };
                self.nodes.insert(node.clone(), record);
            }
            Change::NodeRemoved { node } => {
                if let Some(record) = self.nodes.remove(node) {
                    if let Some(oldest) = self.surplus_revoked() {
                        self.revoked.remove(&oldest);
                    }
                    self.revoked.insert(record.key, Revoked { node: node.clone(), seq });
                }
            }
        }
    }

    /// What a change that is about to be committed as entry `seq` does to the store's records. Changes of one entry concern different records.
    pub fn writes(&self, seq: u64, change: &Change) -> Vec<Write> {
        let mut writes = Vec::new();
        let mut set = |key: String, value: Option<Vec<u8>>| writes.push(Write { key, value });
        match change {
            Change::VersionCreated(version) => {
                let known = self.workers.get(&version.worker);
                let deployed_seq = known.map_or(0, |worker| worker.record.deployed_seq);
                set(worker_key(&version.worker), encode(&WorkerRecord { made: version.number, deployed_seq }));
                set(version_key(&version.worker, &version.id), encode(version));
                for id in known.map(|worker| worker.surplus_versions(1)).unwrap_or_default() {
                    set(version_key(&version.worker, &id), None);
                }
            }
            Change::Promoted { worker, deployment, .. } => {
                let known = self.workers.get(worker);
                let made = known.map_or(0, |worker| worker.record.made);
                set(worker_key(worker), encode(&WorkerRecord { made, deployed_seq: seq }));
                set(deployment_key(worker, &deployment.id), encode(&Made { seq, deployment: deployment.clone() }));
                for id in known.map(|worker| worker.surplus_deployments(1)).unwrap_or_default() {
                    set(deployment_key(worker, &id), None);
                }
            }
            Change::WorkerDeleted { worker } => {
                set(worker_key(worker), None);
                set(routes_key(&RouteOwner::Worker(worker.clone())), None);
                let Some(known) = self.workers.get(worker) else { return writes };
                known.versions.iter().for_each(|version| set(version_key(worker, &version.id), None));
                known.deployments.iter().for_each(|deployment| set(deployment_key(worker, &deployment.id), None));
            }
            Change::RoutesSet { owner, routes } => {
                set(routes_key(owner), if routes.is_empty() { None } else { encode(routes) });
            }
            Change::NodeJoined { node, region, address, peer, key } => {
                let record = NodeRecord { region: region.clone(), address: address.clone(), peer: peer.clone(), key: *key };
                set(format!("node/{node}"), encode(&record));
            }
            Change::NodeRemoved { node } => {
                set(format!("node/{node}"), None);
                if let Some(record) = self.nodes.get(node) {
                    if let Some(oldest) = self.surplus_revoked() {
                        set(format!("revoked/{oldest}"), None);
                    }
                    set(format!("revoked/{}", record.key), encode(&Revoked { node: node.clone(), seq }));
                }
            }
            Change::Purged(_) => {}
        }
        writes
    }

    /// The state that records of the store make, in any order of keys that keeps those of one prefix ascending.
    pub fn from_records(records: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<Self, StateError> {
        let mut state = Self::default();
        let mut order = BTreeMap::new();
        for (key, value) in records {
            state.restore(&key, &value, &mut order).map_err(|reason| StateError { key, reason })?;
        }
        let State { workers, desired, .. } = &mut state;
        for (name, worker) in workers {
            worker.versions.make_contiguous().sort_by_key(|version| version.number);
            worker.deployments.make_contiguous().sort_by_key(|deployment| order.get(&deployment.id).copied());
            if let Some(deployment) = worker.deployments.back().cloned() {
                let versions: Vec<_> = deployment.versions.iter().filter_map(|share| worker.version(&share.version)).cloned().collect();
                worker.serving_bytes = size(&versions);
                desired.apply(&Change::Promoted { worker: name.clone(), deployment, versions });
            }
        }
        Ok(state)
    }

    fn restore(&mut self, key: &str, value: &[u8], order: &mut BTreeMap<VersionId, u64>) -> Result<(), String> {
        let (table, rest) = key.split_once('/').ok_or("no table")?;
        match table {
            "worker" => self.workers.entry(name(rest)?).or_default().record = decode(value)?,
            "version" => {
                let version: VersionRecord = decode(value)?;
                self.workers.entry(version.worker.clone()).or_default().versions.push_back(version);
            }
            "deployment" => {
                let worker = rest.split_once('/').map_or(rest, |(worker, _)| worker);
                let Made { seq, deployment } = decode(value)?;
                order.insert(deployment.id.clone(), seq);
                self.workers.entry(name(worker)?).or_default().deployments.push_back(deployment);
            }
            "routes" => {
                let routes: Vec<RouteRecord> = decode(value)?;
                self.desired.routes.extend(routes.into_iter().map(|route| (route.pattern.clone(), route)));
            }
            "node" => {
                self.nodes.insert(name(rest)?, decode(value)?);
            }
            "revoked" => {
                let key = rest.parse().map_err(|error: crate::keys::BadKey| error.to_string())?;
                let name = || decode(value).map(|node| Revoked { node, seq: 0 });
                self.revoked.insert(key, decode(value).or_else(|_: String| name())?);
            }
            _ => return Err("a table that this build does not know".to_owned()),
        }
        Ok(())
    }
}

/// Bytes of versions' records as JSON.
pub(super) fn size(versions: &[VersionRecord]) -> usize {
    encode(&versions).map_or(0, |bytes| bytes.len())
}

fn worker_key(worker: &WorkerName) -> String {
    format!("worker/{worker}")
}

fn version_key(worker: &WorkerName, id: &VersionId) -> String {
    format!("version/{worker}/{id}")
}

fn deployment_key(worker: &WorkerName, id: &VersionId) -> String {
    format!("deployment/{worker}/{id}")
}

fn routes_key(owner: &RouteOwner) -> String {
    match owner {
        RouteOwner::Worker(name) => format!("routes/worker/{name}"),
        RouteOwner::Site(name) => format!("routes/site/{name}"),
    }
}

fn encode(value: &impl Serialize) -> Option<Vec<u8>> {
    // Records are structs of strings, numbers and JSON values with string keys: serde_json fails on none of them.
    serde_json::to_vec(value).ok()
}

fn decode<T: serde::de::DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|error| error.to_string())
}

fn name<T: std::str::FromStr<Err = super::BadName>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: super::BadName| error.to_string())
}
