//! Questions to nodes on the wire: what an operator asks, how it reaches a node, what the node tells, and all of it together.

use serde::{Deserialize, Serialize};

use crate::registry::{NodeName, RequestId};

/// A question of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewQuestion {
    /// What is asked.
    pub ask: Ask,
    /// Of this node; none: of all.
    #[serde(default)]
    pub node: Option<NodeName>,
    /// How long to wait for the nodes, in milliseconds; at most [`crate::limits::LONG_POLL_MAX`] counts.
    pub wait_ms: u64,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// What the cache would do with a request now, and why.
    Explain(ExplainAsk),
    /// How the servers of upstreams do.
    Upstreams {},
}

/// A request that is not made, only asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainAsk {
    /// Its URL; without a scheme, https.
    pub url: String,
    /// Its method.
    pub method: String,
    /// Its fields beside `Host`, as `(name, value)`.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

/// A question as the feed carries it to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// By which the answer is known.
    pub id: RequestId,
    /// What is asked; none: something that this build does not know.
    #[serde(deserialize_with = "known")]
    pub ask: Option<Ask>,
}

/// A question that a later registry asks must not break the feed of an earlier node.
fn known<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Ask>, D::Error> {
    let ask = Box::<serde_json::value::RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(ask.get()).ok())
}

/// A node's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeAnswer {
    /// To which question.
    pub question: RequestId,
    /// What it tells.
    pub told: Told,
}

/// What a node tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Told {
    /// See [`Ask::Explain`].
    Explained(Box<Explanation>),
    /// See [`Ask::Upstreams`].
    Upstreams(UpstreamServers),
    /// Why it cannot say.
    Failed(String),
}

/// What all nodes told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// One for each node that was meant.
    pub nodes: Vec<NodeTold>,
}

/// What one node told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeTold {
    /// The node.
    pub node: NodeName,
    /// Where it stands.
    pub region: String,
    /// Whether it answered.
    pub state: ToldState,
    /// From the question until its answer was here, in milliseconds.
    pub ms: Option<u64>,
    /// Its answer.
    pub told: Option<Told>,
}

/// Whether a node answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToldState {
    /// It did.
    Answered,
    /// Not in time.
    Silent,
    /// It does not follow the log now.
    Away,
    /// It runs a release that takes no questions.
    Unable,
}

/// What the cache of one node would do with a request, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// The route that answers.
    pub route: Option<RouteTold>,
    /// Why the request comes to no route, or to nothing behind it.
    pub refused: Option<String>,
    /// Each place of the cache that has a part in it, the client's first.
    pub layers: Vec<Layer>,
}

/// A route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTold {
    /// Its pattern.
    pub pattern: String,
    /// The worker that answers it.
    pub worker: Option<String>,
    /// The worker's version; drawn as for a request, where several share the traffic.
    pub version: Option<String>,
    /// The upstream that answers it, or that is behind the worker.
    pub upstream: Option<String>,
}

/// One place of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Which: `route`, `behind the worker` or `caches.default`.
    pub place: String,
    /// The key, as it is spelled: its lines are separated by blanks here.
    pub key: String,
    /// What would happen.
    pub verdict: ExplainVerdict,
    /// What is stored for the request.
    pub stored: Option<Stored>,
    /// What was different in the requests for which other responses are stored in memory under the key: the fields that those vary on.
    pub others: Vec<Vec<FieldTold>>,
    /// An answer of the key was not for the cache a moment ago: nobody waits for another's fetch.
    pub uncollapsed: bool,
    /// Why the last answer of the key that was refused was not stored.
    pub refusal: Option<LastRefusal>,
}

/// What would happen to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainVerdict {
    /// In one word.
    pub action: ExplainAction,
    /// What `Cache-Status` would say, as far as it is known before whoever answers is asked.
    pub cache_status: Option<String>,
    /// In words.
    pub because: String,
}

/// What would happen to a request, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExplainAction {
    /// The stored response answers.
    Hit,
    /// The stored response answers although it is stale.
    Stale,
    /// Whoever answers is asked whether what is stored still holds.
    Revalidate,
    /// Whoever answers is asked, and the answer may be stored.
    Forward,
    /// Whoever answers is asked, and the cache has no part in it.
    Bypass,
    /// The client gets an error or a redirect of this node.
    Refuse,
    /// Nothing that would be used is stored, and the worker decides what comes of that.
    Absent,
}

/// A stored response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// Where: `memory`, `disk`.
    pub tiers: Vec<String>,
    /// Its status.
    pub status: u16,
    /// Its bytes.
    pub body_bytes: u64,
    /// The bytes that it is of the whole, where it is a part.
    pub range: Option<String>,
    /// How much of the whole is here, where it is the first slice of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slices: Option<SlicesTold>,
    /// Its age, in milliseconds.
    pub age_ms: u64,
    /// How long it is fresh, in milliseconds of age.
    pub lifetime_ms: u64,
    /// What says so: `s-maxage`, `max-age`, `Expires`, `CDN-Cache-Control`, `status_ttl_s`, `heuristic`, ...
    pub lifetime_from: String,
    /// What the request that it answered had in the fields that it varies on.
    pub variant: Vec<FieldTold>,
    /// Its tags.
    pub tags: TagsTold,
    /// What purges say of it.
    pub purge: PurgeTold,
    /// Its fields, as stored; of `Set-Cookie` the names of cookies only.
    pub headers: Vec<FieldTold>,
    /// Fields that are not shown.
    pub headers_more: usize,
}

/// An object that is stored in slices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlicesTold {
    /// Those that are stored, among the ones that were looked for.
    pub here: u64,
    /// How many were looked for: the first ones.
    pub looked: u64,
    /// How many there are.
    pub count: u64,
    /// Bytes of each, the last one apart.
    pub slice_bytes: u32,
}

/// A field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldTold {
    /// Its name.
    pub name: String,
    /// Its value, perhaps cut; none: it is not there.
    pub value: Option<String>,
}

/// Tags of a stored response, as many as are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagsTold {
    /// The first ones, each perhaps cut.
    #[serde(default)]
    pub names: Vec<String>,
    /// The hashes of those that follow and whose text is not kept, 16 hex digits each.
    pub hashes: Vec<String>,
    /// How many there are.
    pub count: usize,
    /// There were more than are kept: a purge of any tag reaches it.
    pub every: bool,
}

/// What purges say of a stored response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeTold {
    /// `valid`, `soft` (stale since a purge), `unproven` (a purge may have been missed: it is confirmed before it is used) or `gone`.
    pub verdict: String,
    /// For how long it has been soft, in milliseconds.
    pub soft_ms: Option<u64>,
    /// The latest purge when its fetch began.
    pub stamp: u64,
    /// The latest purge that the node has applied.
    pub latest: u64,
}

/// Why an answer was not stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastRefusal {
    /// The `detail` of `Cache-Status`.
    pub reason: String,
    /// How long ago, in seconds.
    pub ago_s: u64,
}

/// The servers of a node's upstreams.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamServers {
    /// The servers.
    pub servers: Vec<UpstreamServer>,
    /// Servers that are not shown.
    pub more: usize,
}

/// A server of an upstream, as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamServer {
    /// What the upstream is called.
    pub upstream: String,
    /// The server's address.
    pub address: String,
    /// Its health checks find it up, and it is not ejected.
    pub up: bool,
    /// Requests that it was asked.
    pub requests: u64,
    /// Those that failed.
    pub failures: u64,
    /// How often it was ejected.
    pub ejections: u64,
    /// Requests in flight.
    pub in_flight: usize,
    /// Requests that wait for it.
    pub queued: usize,
}

impl std::fmt::Display for ToldState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Answered => "answered",
            Self::Silent => "silent",
            Self::Away => "away",
            Self::Unable => "unable",
        })
    }
}

impl std::fmt::Display for ExplainAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Revalidate => "revalidate",
            Self::Forward => "forward",
            Self::Bypass => "bypass",
            Self::Refuse => "refuse",
            Self::Absent => "absent",
        })
    }
}
