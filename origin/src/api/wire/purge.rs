//! Purges on the wire: asked for, made, acknowledged, and seen on all nodes.

use serde::{Deserialize, Serialize};

use crate::registry::{Digest, Epoch, NodeName, PurgeRecord, RequestId, WorkerName};

/// A purge to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewPurge {
    /// URLs, of every scheme, as clients ask for them; without a scheme, https is meant for the default port.
    pub urls: Vec<String>,
    /// Keys that workers gave by `cf.cacheKey`.
    pub keys: Vec<String>,
    /// URLs' beginnings: the host whole, then at least `/`.
    pub prefixes: Vec<String>,
    /// Hosts.
    pub hosts: Vec<String>,
    /// Tags of `Cache-Tag` and `Surrogate-Key`; case says nothing.
    pub tags: Vec<String>,
    /// All that is stored.
    pub everything: bool,
    /// Make stale instead of gone: to be validated before use, or used as the rules for stale responses allow.
    pub soft: bool,
    /// Why, for the log.
    pub reason: Option<String>,
    /// Makes a retry give the first result.
    pub request_id: Option<RequestId>,
}

/// A purge that a worker makes, sent by a node that runs it: of what was stored for the worker, nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerPurge {
    /// The worker.
    pub worker: WorkerName,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// What path and query begin with, on every host.
    #[serde(default)]
    pub path_prefixes: Vec<String>,
    /// URLs, as in [`NewPurge`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// URLs' beginnings, as in [`NewPurge`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// Hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// All of its own.
    #[serde(default)]
    pub everything: bool,
    /// Make stale instead of gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub soft: bool,
    /// Makes a retry give the first result.
    #[serde(default)]
    pub request_id: Option<RequestId>,
}

#[cfg(test)]
impl WorkerPurge {
    /// Of a worker; names nothing yet.
    pub(crate) fn of(worker: WorkerName) -> Self {
        let [tags, path_prefixes, urls, prefixes, hosts] = [const { Vec::new() }; 5];
        Self { worker, tags, path_prefixes, urls, prefixes, hosts, everything: false, soft: false, request_id: None }
    }
}

/// A purge is in the log: it is durable, and every node will apply it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purged {
    /// The log's entry.
    pub seq: u64,
    /// The log's epoch; told to those who ask for it, as nodes do: earlier releases do not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// What it names.
    pub purge: PurgeRecord,
}

/// A node has applied all purges up to an entry of the log, and will not forget them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applied {
    /// The log's epoch.
    pub epoch: Epoch,
    /// The entry.
    pub seq: u64,
}

/// A purge on all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeNodes {
    /// The log's entry.
    pub seq: u64,
    /// No node is pending.
    pub settled: bool,
    /// One line per node.
    pub nodes: Vec<PurgeNode>,
}

/// A purge on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeNode {
    /// The node.
    pub node: NodeName,
    /// Where it stands.
    pub region: String,
    /// What became of it there.
    pub state: PurgeState,
    /// From the commit until the node's acknowledgement was here, in milliseconds.
    pub ms: Option<u64>,
}

/// What became of a purge on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PurgeState {
    /// Nothing that it names is served there any more.
    Applied,
    /// Not yet heard.
    Pending,
    /// The node does not follow the log now: it serves what it has, and applies the purge before anything later when it is back.
    Away,
}

impl PurgeNodes {
    /// Differs where any node's state differs: what a long poll waits for.
    pub fn fingerprint(&self) -> Digest {
        let mut text = self.seq.to_string();
        for node in &self.nodes {
            text.push_str(&format!("\n{}\n{}", node.node, node.state));
        }
        Digest::of(text.as_bytes())
    }
}

impl std::fmt::Display for PurgeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Applied => "applied",
            Self::Pending => "pending",
            Self::Away => "away",
        })
    }
}
