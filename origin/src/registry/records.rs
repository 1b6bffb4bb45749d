//! The records: what the log's entries say, and what a node needs to know. All of it is JSON on disk and on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CacheSettings, CompressSettings, Digest, NodeName, Upstream, VersionId, WorkerName};
use crate::keys::{PublicKey, Signature};

/// One version of a worker: a bundle and its bindings at one moment. Never changes. A bundle is trusted through its digest in
/// this record, never by a signature of its own alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionRecord {
    /// The worker it belongs to.
    pub worker: WorkerName,
    /// Its id.
    pub id: VersionId,
    /// Counts the worker's versions from 1.
    pub number: u64,
    /// The digest of the bundle's manifest, which names every module by digest.
    pub bundle: Digest,
    /// The registry's signature over worker, id and bundle.
    pub signature: Signature,
    /// The trust group that may share a runner process.
    pub cordon: NodeName,
    /// Plain bindings: text or JSON.
    pub vars: BTreeMap<String, serde_json::Value>,
    /// `YYYY-MM-DD`.
    pub compatibility_date: String,
    /// Compatibility flags.
    pub compatibility_flags: Vec<String>,
    /// CPU per invocation, in milliseconds, where the version sets it.
    pub cpu_ms: Option<u32>,
    /// Subrequests per invocation, where the version sets it.
    pub subrequests_max: Option<u32>,
    /// Unix time in milliseconds.
    pub created_ms: u64,
    /// What the operator said.
    pub message: Option<String>,
}

/// Which versions take a worker's traffic. Append-only; a rollback is a new one that names an older version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// Its id.
    pub id: VersionId,
    /// Versions with their share in percent; the shares add up to 100.
    pub versions: Vec<Share>,
    /// Unix time in milliseconds.
    pub created_ms: u64,
    /// What the operator said.
    pub message: Option<String>,
}

/// A version's share of the traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The version.
    pub version: VersionId,
    /// In percent, 0 to 100.
    pub percentage: f64,
}

/// Who may change a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteOwner {
    /// A worker, by its wrangler file.
    Worker(WorkerName),
    /// A site file, by its `name`.
    Site(NodeName),
}

/// A pattern and what answers it. One pattern has one owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRecord {
    /// `HOST/PATH`: `www.example.org/*`, `*.example.org/api/*`, or without a host (`/*`) for every authority. In the path `*` stands
    /// for anything; without it the path is exact.
    pub pattern: String,
    /// Who may change it.
    pub owner: RouteOwner,
    /// The worker that answers.
    pub worker: Option<WorkerName>,
    /// The customer's own servers: they answer where there is no worker, and the worker's `fetch()` of its own route.
    pub upstream: Option<Upstream>,
    /// Answer cleartext requests with a redirect to https.
    #[serde(default)]
    pub redirect_to_https: bool,
    /// The cache of this route.
    #[serde(default)]
    pub cache: CacheSettings,
    /// Compression of its answers on the fly.
    #[serde(default)]
    pub compress: CompressSettings,
    /// Send `103 Early Hints` made from the `Link` fields of earlier answers (RFC 8297). Default: off.
    #[serde(default)]
    pub early_hints: bool,
}

impl std::fmt::Display for RouteOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Worker(name) => write!(f, "worker {name}"),
            Self::Site(name) => write!(f, "site {name}"),
        }
    }
}

/// One change, as the log keeps it and the feed carries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// A version exists (it takes no traffic by that).
    VersionCreated(Box<VersionRecord>),
    /// A worker's traffic goes to these versions; nodes get their records with it.
    Promoted {
        /// The worker.
        worker: WorkerName,
        /// The deployment.
        deployment: Deployment,
        /// The records of the versions that it names.
        versions: Vec<VersionRecord>,
    },
    /// The worker, its versions and its routes are gone.
    WorkerDeleted {
        /// The worker.
        worker: WorkerName,
    },
    /// These are all routes of an owner now; those it had before and that are not among them are gone.
    RoutesSet {
        /// The owner.
        owner: RouteOwner,
        /// All of its routes.
        routes: Vec<RouteRecord>,
    },
    /// A node has joined with a key of its own.
    NodeJoined {
        /// Its name.
        node: NodeName,
        /// Its region.
        region: String,
        /// Where operators reach it.
        address: Option<String>,
        /// Where other nodes reach it, `IP:PORT`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
        /// Its Ed25519 public key.
        key: PublicKey,
    },
    /// A node's key is revoked.
    NodeRemoved {
        /// Its name.
        node: NodeName,
    },
    /// What is stored is not to be used any more.
    Purged(Box<PurgeRecord>),
}

/// What a purge names, each in its one spelling.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PurgeRecord {
    /// Only what was stored for this worker; without it, whatever is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerName>,
    /// What it names is stale from now on, rather than gone.
    pub soft: bool,
    /// All.
    pub everything: bool,
    /// Hosts, on every port or with one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// `AUTHORITY/PATH?QUERY`, of every scheme.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// What authority, path and query begin with; the authority is whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// Keys that workers gave by `cf.cacheKey`, in place of URLs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// What path and query begin with, on every authority; with a slash first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path_prefixes: Vec<String>,
    /// Tags, in lower case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl PurgeRecord {
    /// How many things it names.
    pub fn len(&self) -> usize {
        let named = [&self.hosts, &self.urls, &self.keys, &self.prefixes, &self.path_prefixes, &self.tags];
        usize::from(self.everything) + named.into_iter().map(Vec::len).sum::<usize>()
    }

    /// All that it names, each with what it is, in words.
    pub fn names(&self) -> Vec<String> {
        let of = |what: &'static str, names: &[String]| names.iter().map(move |name| format!("{what} {name}")).collect::<Vec<_>>();
        let everything = self.everything.then(|| "everything".to_owned());
        let named = [
            of("URL", &self.urls),
            of("key", &self.keys),
            of("prefix", &self.prefixes),
            of("path prefix", &self.path_prefixes),
            of("host", &self.hosts),
            of("tag", &self.tags),
        ];
        everything.into_iter().chain(named.into_iter().flatten()).collect()
    }

    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One entry of the log: what one commit changed, who did it, why, and what was there before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Unix time in milliseconds.
    pub at_ms: u64,
    /// Who: `admin`, or `node NAME`.
    pub actor: String,
    /// What the operator said.
    pub reason: Option<String>,
    /// What changed.
    pub changes: Vec<Change>,
    /// What it replaced, where it replaced something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Before>,
}

/// What a change replaced; what came after it is in the change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Before {
    /// The deployment that took the worker's traffic.
    Deployment {
        /// The worker.
        worker: WorkerName,
        /// The deployment.
        deployment: VersionId,
    },
    /// The routes of an owner.
    Routes {
        /// The owner.
        owner: RouteOwner,
        /// Its routes.
        routes: Vec<RouteRecord>,
    },
}
