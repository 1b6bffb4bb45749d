//! The typed client: how nodes and commands talk to a registry.

mod connection;
mod error;
mod feed;
mod identity;

pub use error::ClientError;
pub use feed::FeedLines;
pub use identity::NodeIdentity;
pub(crate) use identity::request_message;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::wire::{
    Answers, Applied, BlobDigests, Deleted, Deletion, DeploymentList, Joined, LogPage, NewDeployment, NewPurge, NewQuestion, NewVersion,
    NodeAnswer, NodeJoin, NodeReport, NodeStatus, Promoted, PurgeNodes, Purged, Removal, Reported, Rollback, SiteApplied, SiteApply,
    SiteSummary, Status, VersionList, WorkerNodes, WorkerPurge, WorkerSummary, join_message,
};
use crate::bundle::Packed;
use crate::feed::{HEARD, KINDS, Position, QUESTION};
use crate::keys::Purpose;
use crate::limits::{BLOB_BYTES_MAX, CLIENT_BLOB_TIMEOUT, CLIENT_CALL_TIMEOUT, LONG_POLL_MAX, REPLY_JSON_BYTES_MAX};
use crate::registry::{Digest, NodeName, VersionRecord, WorkerName};
use crate::tokens::{Token, TokenFile};
use connection::{Call, Connection};

/// Who calls.
#[derive(Clone)]
enum Credential {
    /// A command with the admin token, or a node that joins with the node token.
    Bearer(Token),
    /// A node that has joined.
    Node(Arc<NodeIdentity>),
}

/// A registry, as seen from a command or a node. Cheap to clone; clones share one HTTP/2 connection, made when it is first needed
/// and again after it broke. Dropping a call's future cancels the call.
#[derive(Clone)]
pub struct Client {
    connection: Arc<Connection>,
    credential: Credential,
}

impl Client {
    /// A client with the token of a token file. Checks the URL (`http://` on loopback addresses only, `https://` elsewhere) but does not connect yet.
    pub fn connect(url: &str, token: &TokenFile) -> Result<Self, ClientError> {
        let connection = Connection::new(url, token.authority.clone())?;
        Ok(Self { connection: Arc::new(connection), credential: Credential::Bearer(token.token.clone()) })
    }

    /// A registry, called as a node that has joined, with the pin that it kept of its token file. Does not connect yet.
    pub fn connect_node(url: &str, authority: Option<Digest>, identity: Arc<NodeIdentity>) -> Result<Self, ClientError> {
        Ok(Self { connection: Arc::new(Connection::new(url, authority)?), credential: Credential::Node(identity) })
    }

    /// The same registry, called as a node that has joined.
    pub fn as_node(&self, identity: Arc<NodeIdentity>) -> Self {
        Self { connection: self.connection.clone(), credential: Credential::Node(identity) }
    }

    /// The registry's address.
    pub fn url(&self) -> &str {
        self.connection.url()
    }

    // Commands.

    /// Uploads what the registry lacks of a bundle. Gives how many blobs were sent.
    pub async fn upload(&self, packed: &Packed) -> Result<usize, ClientError> {
        let ask = BlobDigests { digests: packed.blobs.keys().cloned().collect() };
        let missing: BlobDigests = self.json(Method::POST, "/v1/blobs/missing", Some(&ask), CLIENT_CALL_TIMEOUT).await?;
        let mut sent = 0;
        for digest in &missing.digests {
            let Some(bytes) = packed.blobs.get(digest) else { continue };
            self.put_blob(digest, bytes.clone()).await?;
            sent += 1;
        }
        Ok(sent)
    }

    /// Stores one blob.
    pub async fn put_blob(&self, digest: &Digest, bytes: Bytes) -> Result<(), ClientError> {
        let call = Call { method: Method::PUT, path: format!("/v1/blobs/{digest}"), body: bytes, fields: vec![] };
        self.bytes(call, CLIENT_BLOB_TIMEOUT, REPLY_JSON_BYTES_MAX).await.map(drop)
    }

    /// Makes a version of an uploaded bundle.
    pub async fn create_version(&self, worker: &WorkerName, version: &NewVersion) -> Result<VersionRecord, ClientError> {
        self.post(&format!("/v1/workers/{worker}/versions"), version).await
    }

    /// Gives a worker's traffic to versions, and sets its routes in the same commit.
    pub async fn promote(&self, worker: &WorkerName, deployment: &NewDeployment) -> Result<Promoted, ClientError> {
        self.post(&format!("/v1/workers/{worker}/deployments"), deployment).await
    }

    /// Gives a worker's traffic back to an older version.
    pub async fn rollback(&self, worker: &WorkerName, rollback: &Rollback) -> Result<Promoted, ClientError> {
        self.post(&format!("/v1/workers/{worker}/rollback"), rollback).await
    }

    /// Deletes a worker with its versions and routes.
    pub async fn delete_worker(&self, worker: &WorkerName, deletion: &Deletion) -> Result<Deleted, ClientError> {
        self.json(Method::DELETE, &format!("/v1/workers/{worker}"), Some(deletion), CLIENT_CALL_TIMEOUT).await
    }

    /// Entries of the log before a number, or the last ones, newest first; at most `limit` (50 where there is none, 200 at most), fewer where
    /// they are large.
    pub async fn log(&self, before: Option<u64>, limit: Option<u64>) -> Result<LogPage, ClientError> {
        let parameters = [("before", before), ("limit", limit)];
        let given: Vec<String> = parameters.iter().filter_map(|(name, value)| value.map(|value| format!("{name}={value}"))).collect();
        self.get(&format!("/v1/log?{}", given.join("&"))).await
    }

    /// All workers.
    pub async fn workers(&self) -> Result<Vec<WorkerSummary>, ClientError> {
        self.get("/v1/workers").await
    }

    /// A worker's kept versions, newest first.
    pub async fn versions(&self, worker: &WorkerName) -> Result<VersionList, ClientError> {
        self.get(&format!("/v1/workers/{worker}/versions")).await
    }

    /// A worker's kept deployments, newest first.
    pub async fn deployments(&self, worker: &WorkerName) -> Result<DeploymentList, ClientError> {
        self.get(&format!("/v1/workers/{worker}/deployments")).await
    }

    /// A worker's deployment on all nodes. Answers at once where it is settled or any node's state differs from `seen`, else after `wait`
    /// (30 s at most). `seq` is the promotion's; pass the last answer as `seen` to wait for news.
    pub async fn worker_nodes(
        &self,
        worker: &WorkerName,
        seq: u64,
        wait: Duration,
        seen: Option<&WorkerNodes>,
    ) -> Result<WorkerNodes, ClientError> {
        let wait = wait.min(LONG_POLL_MAX);
        let seen = seen.map(|seen| format!("&seen={}", seen.fingerprint())).unwrap_or_default();
        let path = format!("/v1/workers/{worker}/nodes?seq={seq}&wait_ms={}{seen}", wait.as_millis());
        self.json::<(), _>(Method::GET, &path, None, CLIENT_CALL_TIMEOUT.saturating_add(wait)).await
    }

    /// Workers, sites, nodes.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// All nodes.
    pub async fn nodes(&self) -> Result<Vec<NodeStatus>, ClientError> {
        self.get("/v1/nodes").await
    }

    /// Revokes a node's key.
    pub async fn remove_node(&self, node: &NodeName, removal: &Removal) -> Result<(), ClientError> {
        self.json(Method::DELETE, &format!("/v1/nodes/{node}"), Some(removal), CLIENT_CALL_TIMEOUT).await
    }

    /// All sites.
    pub async fn sites(&self) -> Result<Vec<SiteSummary>, ClientError> {
        self.get("/v1/sites").await
    }

    /// Applies a site file, or says what would change.
    pub async fn apply_site(&self, site: &NodeName, apply: &SiteApply) -> Result<SiteApplied, ClientError> {
        self.json(Method::PUT, &format!("/v1/sites/{site}"), Some(apply), CLIENT_CALL_TIMEOUT).await
    }

    /// Purges: answers when the purge is durable in the log. [`Self::purge_nodes`] tells when the nodes have applied it.
    pub async fn purge(&self, purge: &NewPurge) -> Result<Purged, ClientError> {
        self.post("/v1/purges", purge).await
    }

    /// A purge on all nodes. Answers at once where no node is pending or any differs from `seen`, else after `wait` (30 s at most).
    pub async fn purge_nodes(&self, seq: u64, wait: Duration, seen: Option<&PurgeNodes>) -> Result<PurgeNodes, ClientError> {
        let wait = wait.min(LONG_POLL_MAX);
        let seen = seen.map(|seen| format!("&seen={}", seen.fingerprint())).unwrap_or_default();
        let path = format!("/v1/purges/{seq}/nodes?wait_ms={}{seen}", wait.as_millis());
        self.json::<(), _>(Method::GET, &path, None, CLIENT_CALL_TIMEOUT.saturating_add(wait)).await
    }

    /// Asks nodes. Answers when all that can be asked have answered, at the latest after the question's wait (30 s at most).
    pub async fn question(&self, question: &NewQuestion) -> Result<Answers, ClientError> {
        let wait = Duration::from_millis(question.wait_ms).min(LONG_POLL_MAX);
        self.json(Method::POST, "/v1/questions", Some(question), CLIENT_CALL_TIMEOUT.saturating_add(wait)).await
    }

    // Nodes.

    /// Joins, with the node token: announces the node's key. Joining again with the same key changes nothing but region and address.
    pub async fn join(&self, identity: &NodeIdentity, region: &str, address: Option<&str>) -> Result<Joined, ClientError> {
        let key = identity.key().public();
        let signature = identity.key().sign(Purpose::NodeJoin, join_message(identity.name(), &key).as_bytes());
        let join =
            NodeJoin { name: identity.name().clone(), region: region.to_owned(), address: address.map(str::to_owned), key, signature };
        self.post("/v1/nodes", &join).await
    }

    /// A blob, as a node or a command. The caller verifies it.
    pub async fn blob(&self, digest: &Digest) -> Result<Bytes, ClientError> {
        let call = Call { method: Method::GET, path: format!("/v1/blobs/{digest}"), body: Bytes::new(), fields: vec![] };
        self.bytes(call, CLIENT_BLOB_TIMEOUT, usize::try_from(BLOB_BYTES_MAX).unwrap_or(usize::MAX)).await
    }

    /// Reports about the node. Where this fails, the registry may have heard it or not: the next report says everything.
    pub async fn report(&self, report: &NodeReport) -> Result<Reported, ClientError> {
        self.post("/v1/nodes/self/report", report).await
    }

    /// Says that all purges up to an entry of the log are applied here.
    pub async fn applied(&self, applied: &Applied) -> Result<(), ClientError> {
        self.post("/v1/nodes/self/applied", applied).await
    }

    /// Purges what was stored for a worker, on its behalf.
    pub async fn purge_of_worker(&self, purge: &WorkerPurge) -> Result<Purged, ClientError> {
        self.post("/v1/nodes/self/purges?epoch", purge).await
    }

    /// Answers a question of the feed.
    pub async fn answer(&self, answer: &NodeAnswer) -> Result<(), ClientError> {
        self.post("/v1/nodes/self/answers", answer).await
    }

    /// The feed after a position (a snapshot first, where there is none or it is of no use), with heartbeats of a later time than the last that was heard
    /// (0: none was). Lines are as received: a [`crate::feed::FeedVerifier`] says what they are worth.
    pub async fn feed(&self, after: Option<&Position>, heard_ms: u64) -> Result<FeedLines, ClientError> {
        let path = match after {
            Some(position) => format!("/v1/feed?epoch={}&after={}&chain={}", position.epoch, position.seq, position.chain),
            None => "/v1/feed".to_owned(),
        };
        let fields = vec![(KINDS, QUESTION), (HEARD, HeaderValue::from(heard_ms))];
        let call = Call { method: Method::GET, path, body: Bytes::new(), fields };
        let answer = self.connection.send(&self.credential, call, CLIENT_CALL_TIMEOUT).await?;
        Ok(FeedLines::new(self.connection.url(), answer))
    }

    // How all of them call.

    async fn get<R: DeserializeOwned>(&self, path: &str) -> Result<R, ClientError> {
        self.json::<(), R>(Method::GET, path, None, CLIENT_CALL_TIMEOUT).await
    }

    async fn post<B: Serialize, R: DeserializeOwned>(&self, path: &str, body: &B) -> Result<R, ClientError> {
        self.json(Method::POST, path, Some(body), CLIENT_CALL_TIMEOUT).await
    }

    async fn json<B: Serialize, R: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        timeout: Duration,
    ) -> Result<R, ClientError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| ClientError::protocol(self.url(), error))?,
            None => Vec::new(),
        };
        let json = (!body.is_empty()).then_some((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        let call = Call { method, path: path.to_owned(), body: body.into(), fields: json.into_iter().collect() };
        let answer = self.bytes(call, timeout, REPLY_JSON_BYTES_MAX).await?;
        serde_json::from_slice(&answer).map_err(|error| ClientError::protocol(self.url(), error))
    }

    async fn bytes(&self, call: Call, timeout: Duration, bytes_max: usize) -> Result<Bytes, ClientError> {
        let work = async {
            let answer = self.connection.send(&self.credential, call, timeout).await?;
            connection::collect(self.url(), answer, bytes_max).await
        };
        tokio::time::timeout(timeout, work).await.map_err(|_| ClientError::timeout(self.url(), timeout))?
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.url())
    }
}
