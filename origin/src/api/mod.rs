//! HTTP in, registry calls, HTTP out. Every endpoint is in [`Endpoint::find`].

mod auth;
mod blobs;
mod body;
mod desk;
mod feed;
mod fuzz;
mod life;
mod log;
mod nodes;
mod purges;
mod questions;
mod quota;
mod reply;
mod room;
mod serve;
mod sites;
mod strict;
pub mod wire;
mod workers;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::keys::BadKey;
use crate::ledger::{Act, Ledger};
use crate::limits::{
    ANSWER_JSON_BYTES_MAX, APPLIED_JSON_BYTES_MAX, BLOB_BYTES_MAX, BODIES_IN_MEMORY_MAX, LONG_POLL_LOOK, LONG_POLL_MAX,
    QUESTION_JSON_BYTES_MAX, REQUEST_JSON_BYTES_MAX, REQUEST_TARGET_BYTES_MAX,
};
use crate::registry::{Digest, NodeName, RequestId, WorkerName};
use crate::tokens::TokenFile;
use auth::{Access, Auth, Caller};
use desk::Desk;
use life::Life;
use quota::{Moves, Quotas};
use reply::{Answer, ApiError, Body};

pub use fuzz::{bodies as fuzz_bodies, heads as fuzz_heads};
pub(crate) use serve::{Listener, serve};

/// What a request asks for.
enum Endpoint {
    Health,
    Status,
    MissingBlobs,
    PutBlob(Digest),
    GetBlob(Digest),
    Workers,
    DeleteWorker(WorkerName),
    Versions(WorkerName),
    CreateVersion(WorkerName),
    Deployments(WorkerName),
    Promote(WorkerName),
    Rollback(WorkerName),
    WorkerNodes(WorkerName),
    Sites,
    ApplySite(NodeName),
    Nodes,
    Join,
    RemoveNode(NodeName),
    Report,
    Purge,
    PurgeNodes(u64),
    PurgeOfWorker,
    Applied,
    Question,
    Answer,
    Feed,
    Log,
}

impl Endpoint {
    /// Every endpoint, who may use it, and how many bytes its body may have.
    fn find(method: &Method, path: &str) -> Result<(Self, Access, usize), ApiError> {
        use Access::{Admin, Join, Node, NodeOrAdmin, Public};
        const JSON: usize = REQUEST_JSON_BYTES_MAX;
        const BLOB: usize = BLOB_BYTES_MAX as usize;
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        Ok(match (method.as_str(), segments.as_slice()) {
            ("GET", ["v1", "health"]) => (Self::Health, Public, 0),
            ("GET", ["v1", "status"]) => (Self::Status, Admin, 0),
            ("POST", ["v1", "blobs", "missing"]) => (Self::MissingBlobs, Admin, JSON),
            ("PUT", ["v1", "blobs", digest]) => (Self::PutBlob(digest.parse()?), Admin, BLOB),
            ("GET", ["v1", "blobs", digest]) => (Self::GetBlob(digest.parse()?), NodeOrAdmin, 0),
            ("GET", ["v1", "workers"]) => (Self::Workers, Admin, 0),
            ("DELETE", ["v1", "workers", name]) => (Self::DeleteWorker(name.parse()?), Admin, JSON),
            ("GET", ["v1", "workers", name, "versions"]) => (Self::Versions(name.parse()?), Admin, 0),
            ("POST", ["v1", "workers", name, "versions"]) => (Self::CreateVersion(name.parse()?), Admin, JSON),
            ("GET", ["v1", "workers", name, "deployments"]) => (Self::Deployments(name.parse()?), Admin, 0),
            ("POST", ["v1", "workers", name, "deployments"]) => (Self::Promote(name.parse()?), Admin, JSON),
            ("POST", ["v1", "workers", name, "rollback"]) => (Self::Rollback(name.parse()?), Admin, JSON),
            ("GET", ["v1", "workers", name, "nodes"]) => (Self::WorkerNodes(name.parse()?), Admin, 0),
            ("GET", ["v1", "sites"]) => (Self::Sites, Admin, 0),
            ("PUT", ["v1", "sites", name]) => (Self::ApplySite(name.parse()?), Admin, JSON),
            ("GET", ["v1", "nodes"]) => (Self::Nodes, Admin, 0),
            ("POST", ["v1", "nodes"]) => (Self::Join, Join, JSON),
            ("DELETE", ["v1", "nodes", name]) => (Self::RemoveNode(name.parse()?), Admin, JSON),
            ("POST", ["v1", "nodes", "self", "report"]) => (Self::Report, Node, JSON),
            ("POST", ["v1", "nodes", "self", "applied"]) => (Self::Applied, Node, APPLIED_JSON_BYTES_MAX),
            ("POST", ["v1", "nodes", "self", "purges"]) => (Self::PurgeOfWorker, Node, JSON),
            ("POST", ["v1", "nodes", "self", "answers"]) => (Self::Answer, Node, ANSWER_JSON_BYTES_MAX),
            ("POST", ["v1", "questions"]) => (Self::Question, Admin, QUESTION_JSON_BYTES_MAX),
            ("POST", ["v1", "purges"]) => (Self::Purge, Admin, JSON),
            ("GET", ["v1", "purges", seq, "nodes"]) => (Self::PurgeNodes(number(seq)?), Admin, 0),
            ("GET", ["v1", "feed"]) => (Self::Feed, Node, 0),
            ("GET", ["v1", "log"]) => (Self::Log, Admin, 0),
            (_, known) if is_path(known) => return Err(ApiError::Method),
            _ => return Err(ApiError::NoEndpoint),
        })
    }
}

/// Whether any method leads somewhere from here.
fn is_path(segments: &[&str]) -> bool {
    matches!(
        segments,
        ["v1", "health" | "status" | "workers" | "sites" | "nodes" | "purges" | "questions" | "feed" | "log"]
            | ["v1", "blobs" | "workers" | "sites" | "nodes", _]
            | ["v1", "workers", _, "versions" | "deployments" | "rollback" | "nodes"]
            | ["v1", "nodes", "self", "report" | "applied" | "purges" | "answers"]
            | ["v1", "purges", _, "nodes"]
    )
}

/// The number of an entry of the log.
fn number(text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| ApiError::Malformed("the number of a log's entry cannot be read".to_owned()))
}

/// A request whose caller is known and whose body is here.
struct Asked {
    head: Parts,
    body: Bytes,
    caller: Caller,
}

/// The API of one registry.
pub(crate) struct Api {
    ledger: Arc<Ledger>,
    auth: Auth,
    quotas: Arc<Quotas>,
    moves: Moves,
    desk: Arc<Desk>,
    /// Kibibytes of bodies that may be in memory.
    memory: Semaphore,
    /// Ends feeds and long polls.
    stop: CancellationToken,
}

impl Api {
    /// The API of a ledger, for the holders of these tokens, until `stop`.
    pub(crate) fn new(ledger: Arc<Ledger>, admin: &TokenFile, node: &TokenFile, stop: CancellationToken) -> Result<Self, BadKey> {
        let auth = Auth::new(&admin.token, &node.token)?;
        Ok(Self {
            ledger,
            auth,
            quotas: Arc::default(),
            moves: Moves::default(),
            desk: Arc::default(),
            memory: Semaphore::new(BODIES_IN_MEMORY_MAX >> 10),
            stop,
        })
    }

    /// Answers one request: find the endpoint, know the caller, read the body, do it.
    async fn answer(&self, request: Request<Incoming>, life: &Life) -> Response<Body> {
        let answer = self.try_answer(request, life).await;
        answer.unwrap_or_else(|error| error.respond())
    }

    /// Looks at what the ledger holds until there is something to answer: whenever there is news, and once more when `wait` (at most [`LONG_POLL_MAX`]) is
    /// over or the API stops. Then `look` is told so, and must not give none.
    async fn long_poll<T>(&self, wait: Duration, mut look: impl FnMut(bool) -> Result<Option<T>, ApiError>) -> Result<T, ApiError> {
        let deadline = Instant::now() + wait.min(LONG_POLL_MAX);
        let mut news = self.ledger.news();
        loop {
            news.mark_unchanged();
            if let Some(found) = look(Instant::now() >= deadline || self.stop.is_cancelled())? {
                return Ok(found);
            }
            let rest = tokio::time::sleep(LONG_POLL_LOOK.min(deadline.saturating_duration_since(Instant::now())));
            tokio::select! {
                _ = news.changed() => {}
                () = rest => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    async fn try_answer(&self, request: Request<Incoming>, life: &Life) -> Answer {
        let (head, body) = request.into_parts();
        strict::check(&head)?;
        if head.uri.path_and_query().is_some_and(|target| target.as_str().len() > REQUEST_TARGET_BYTES_MAX) {
            return Err(ApiError::TargetTooLong);
        }
        let (endpoint, access, bytes_max) = Endpoint::find(&head.method, head.uri.path())?;
        // Before the body is read: who has no token and no key costs nothing.
        let admitted = self.auth.admit(&self.ledger, access, &head)?;
        if admitted.caller != Caller::Anyone {
            life.admitted();
        }
        let (body, _memory) = body::read(&self.memory, &head, body, bytes_max).await?;
        let caller = admitted.with(&body)?;
        let asked = Asked { head, body, caller };
        match endpoint {
            Endpoint::Health => reply::ok(&serde_json::json!({ "ok": true })),
            Endpoint::Status => self.status(),
            Endpoint::MissingBlobs => self.missing_blobs(&asked).await,
            Endpoint::PutBlob(digest) => self.put_blob(&digest, asked).await,
            Endpoint::GetBlob(digest) => self.get_blob(&digest).await,
            Endpoint::Workers => self.workers(),
            Endpoint::DeleteWorker(worker) => self.delete_worker(worker, &asked).await,
            Endpoint::Versions(worker) => self.versions(&worker),
            Endpoint::CreateVersion(worker) => self.create_version(worker, &asked).await,
            Endpoint::Deployments(worker) => self.deployments(&worker),
            Endpoint::Promote(worker) => self.promote(worker, &asked).await,
            Endpoint::Rollback(worker) => self.rollback(worker, &asked).await,
            Endpoint::WorkerNodes(worker) => self.worker_nodes(&worker, &asked).await,
            Endpoint::Sites => self.sites(),
            Endpoint::ApplySite(site) => self.apply_site(site, &asked).await,
            Endpoint::Nodes => self.nodes(),
            Endpoint::Join => self.join(&asked).await,
            Endpoint::RemoveNode(node) => self.remove_node(node, &asked).await,
            Endpoint::Report => self.report(&asked).await,
            Endpoint::Purge => self.purge(&asked).await,
            Endpoint::PurgeNodes(seq) => self.purge_nodes(seq, &asked).await,
            Endpoint::PurgeOfWorker => self.purge_of_worker(&asked).await,
            Endpoint::Applied => self.applied(&asked),
            Endpoint::Question => self.question(&asked).await,
            Endpoint::Answer => self.node_answer(&asked),
            Endpoint::Feed => self.feed(&asked, life).await,
            Endpoint::Log => self.log(&asked).await,
        }
    }

    /// Who does something, when, and how a retry of it is known.
    fn act(&self, asked: &Asked, reason: Option<String>, request_id: Option<RequestId>) -> Act {
        let actor = match &asked.caller {
            Caller::Node(node, _) => format!("node {node}"),
            Caller::Joining => "joining node".to_owned(),
            Caller::Admin | Caller::Anyone => "admin".to_owned(),
        };
        let request = request_id.map(|id| {
            let what = [asked.head.method.as_str().as_bytes(), b"\n", asked.head.uri.path().as_bytes(), b"\n", &asked.body].concat();
            (id, Digest::of(&what))
        });
        Act { actor, reason, request, moment: self.ledger.moment() }
    }
}
