//! A registry for tests that keeps the protocol, or breaks it as it is told; and a node that follows it, with a stand-in for V8.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use selvedge_edge::cache::purge::Purges;
use selvedge_edge::deployments::{Follower, FollowerConfig, FollowerStatus, Warm};
use selvedge_edge::routes::{ActiveRoutes, Target};
use selvedge_origin::api::wire::{Applied, ErrorReply, Joined, Reported, WorkerReport, WorkerState};
use selvedge_origin::bundle::{ModuleKind, PackModule, Packed, pack, sign_version};
use selvedge_origin::feed::{FeedSigner, HEARD, Position, next_chain};
use selvedge_origin::keys::SigningKey;
use selvedge_origin::registry::{
    Change, Deployment, Desired, Digest, Entry, Epoch, RouteOwner, RouteRecord, Share, VersionId, VersionRecord, WorkerName,
};
use selvedge_origin::tokens::{Token, TokenFile, TokenKind};
use selvedge_runtime::supervisor::Warmed;
use selvedge_runtime::{Outcome, RunError, WorkerSource};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};

use crate::heard::Heard;

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The registry.
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    pub(crate) key: SigningKey,
    pub(crate) book: Mutex<Book>,
    said: broadcast::Sender<Bytes>,
    pub(crate) heard: watch::Sender<Heard>,
    pub(crate) acknowledged: watch::Sender<Option<Applied>>,
}

/// What it knows.
pub(crate) struct Book {
    pub(crate) position: Position,
    pub(crate) desired: Desired,
    pub(crate) blobs: BTreeMap<Digest, Bytes>,
    /// Entries by number, for nodes that come back.
    log: BTreeMap<u64, (Position, Bytes)>,
    /// Which entry made a deployment.
    promoted: BTreeMap<VersionId, u64>,
    /// Refuse every call with this.
    pub(crate) refusal: Option<(StatusCode, &'static str)>,
    /// Answer that many calls for blobs with this.
    pub(crate) blobs_away: usize,
    pub(crate) away_with: StatusCode,
    pub(crate) opened: usize,
    /// Answer that many acknowledgements with 401.
    pub(crate) acknowledgements_lost: usize,
}

impl Registry {
    pub(crate) async fn start() -> Arc<Self> {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn start_on(listener: TcpListener) -> Arc<Self> {
        let position = Position { epoch: Epoch::generate(), seq: 0, chain: Digest::zero() };
        let book = Book {
            position,
            desired: Desired::default(),
            blobs: BTreeMap::new(),
            log: BTreeMap::new(),
            promoted: BTreeMap::new(),
            refusal: None,
            blobs_away: 0,
            away_with: StatusCode::SERVICE_UNAVAILABLE,
            opened: 0,
            acknowledgements_lost: 0,
        };
        let registry = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            key: SigningKey::generate().unwrap(),
            book: Mutex::new(book),
            said: broadcast::channel(100).0,
            heard: watch::channel(Heard::default()).0,
            acknowledged: watch::channel(None).0,
        });
        tokio::spawn(serve(Arc::downgrade(&registry), listener));
        registry
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn signer(&self) -> FeedSigner<'_> {
        FeedSigner::new(&self.key)
    }

    /// A version of a worker whose module is this text; its bundle is stored.
    pub(crate) fn version(&self, worker: &str, text: &str) -> VersionRecord {
        let packed = bundle(text);
        self.book.lock().blobs.extend(packed.blobs.clone());
        self.version_of(worker, &packed)
    }

    /// A version whose bundle is stored by whoever wants it to be.
    pub(crate) fn version_of(&self, worker: &str, packed: &Packed) -> VersionRecord {
        let (worker, id): (WorkerName, _) = (worker.parse().unwrap(), VersionId::generate());
        let signature = sign_version(&self.key, &worker, &id, &packed.digest);
        VersionRecord {
            worker,
            id,
            number: 1,
            bundle: packed.digest.clone(),
            signature,
            cordon: "shared".parse().unwrap(),
            vars: BTreeMap::new(),
            compatibility_date: "2026-01-01".into(),
            compatibility_flags: Vec::new(),
            cpu_ms: None,
            subrequests_max: None,
            created_ms: 0,
            message: None,
        }
    }

    /// Appends an entry to the log and gives the frame that says so.
    pub(crate) fn append(&self, changes: Vec<Change>) -> Bytes {
        let mut book = self.book.lock();
        for change in &changes {
            book.desired.apply(change);
            if let Change::Promoted { deployment, .. } = change {
                let seq = book.position.seq + 1;
                book.promoted.insert(deployment.id.clone(), seq);
            }
        }
        let entry = Entry { at_ms: 0, actor: "admin".into(), reason: None, changes, before: Vec::new() };
        let bytes = serde_json::to_vec(&entry).unwrap();
        let next =
            Position { epoch: book.position.epoch.clone(), seq: book.position.seq + 1, chain: next_chain(&book.position.chain, &bytes) };
        book.position = next.clone();
        let line = self.signer().entry(&next, &bytes).unwrap();
        book.log.insert(next.seq, (next, line.clone()));
        line
    }

    /// Makes an entry and takes it back: a true frame that the registry has not said.
    pub(crate) fn unsaid(&self, changes: Vec<Change>) -> Bytes {
        let before = {
            let book = self.book.lock();
            (book.position.clone(), book.desired.clone())
        };
        let line = self.append(changes);
        let mut book = self.book.lock();
        book.log.pop_last();
        (book.position, book.desired) = before;
        line
    }

    /// Says a frame on every open feed.
    pub(crate) fn say(&self, line: Bytes) {
        let _ = self.said.send(line);
    }

    /// Appends, and says so.
    pub(crate) fn commit(&self, changes: Vec<Change>) {
        let line = self.append(changes);
        self.say(line);
    }

    /// Gives a worker's traffic to one version, and the host of its name to the worker.
    pub(crate) fn promote(&self, record: &VersionRecord) {
        self.commit(promotion(record));
    }

    /// Waits until the reports add up to something.
    pub(crate) async fn reported(&self, says: impl FnMut(&Heard) -> bool) -> Heard {
        let mut heard = self.heard.subscribe();
        let found = tokio::time::timeout(PATIENCE, heard.wait_for(says)).await;
        let found = found.map(|heard| heard.unwrap().clone());
        match found {
            Ok(heard) => heard,
            Err(_) => panic!("the reports do not say it: {:#?}", self.heard.borrow()),
        }
    }

    /// Waits until a worker's deployment, which is the last that was promoted, is active or refused. Gives the refusal.
    pub(crate) async fn settled(&self, worker: &str, version: &VersionRecord) -> Option<WorkerReport> {
        let deployment = deployment_of(version).id;
        let seq = self.book.lock().promoted.get(&deployment).copied().unwrap();
        let worker: WorkerName = worker.parse().unwrap();
        let refusal = |heard: &Heard| {
            let line = heard.unsettled.get(&worker).filter(|line| line.deployment == deployment).cloned();
            line.filter(|line| matches!(line.state, WorkerState::Refused(_)))
        };
        let is_active = |heard: &Heard| heard.seq() >= seq && !heard.unsettled.contains_key(&worker);
        let heard = self.reported(|heard| refusal(heard).is_some() || is_active(heard)).await;
        refusal(&heard)
    }

    fn opening(&self, query: &str, heard_ms: u64) -> Vec<Bytes> {
        let mut book = self.book.lock();
        book.opened += 1;
        let after = query.split('&').find_map(|pair| pair.strip_prefix("after=")).and_then(|after| after.parse::<u64>().ok());
        let same = query.contains(book.position.epoch.as_str());
        let mut lines: Vec<_> = match after.filter(|_| same) {
            Some(after) => book.log.range(after + 1..).map(|(_, (_, line))| line.clone()).collect(),
            None => vec![self.signer().reset(&book.position, &book.desired).unwrap()],
        };
        lines.push(self.signer().heartbeat(&book.position, heard_ms.max(book.opened as u64) + 1).unwrap());
        lines
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        if let Some((status, code)) = self.book.lock().refusal {
            return error(status, code);
        }
        match path.as_str() {
            "/v1/nodes" => {
                let book = self.book.lock();
                json(&Joined { epoch: book.position.epoch.clone(), seq: book.position.seq })
            }
            "/v1/nodes/self/report" => {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut mark = None;
                self.heard.send_modify(|heard| mark = heard.take(&body));
                json(&Reported { mark })
            }
            "/v1/nodes/self/applied" => {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut book = self.book.lock();
                if book.acknowledgements_lost > 0 {
                    book.acknowledgements_lost -= 1;
                    return error(StatusCode::UNAUTHORIZED, "clock");
                }
                self.acknowledged.send_replace(Some(serde_json::from_slice(&body).unwrap()));
                json(&())
            }
            "/v1/feed" => {
                let said = self.said.subscribe();
                let heard_ms = request.headers().get(HEARD).map_or(0, |heard| heard.to_str().unwrap().parse().unwrap());
                let opening = futures::stream::iter(self.opening(&query, heard_ms));
                let rest = futures::stream::unfold(said, |mut said| async { said.recv().await.ok().map(|line| (line, said)) });
                let lines = opening.chain(rest).map(|line| Ok(Frame::data(line)));
                Response::new(BodyExt::boxed(StreamBody::new(lines)))
            }
            other => {
                let mut book = self.book.lock();
                if book.blobs_away > 0 {
                    book.blobs_away -= 1;
                    return error(book.away_with, "busy");
                }
                let digest = other.strip_prefix("/v1/blobs/").and_then(|digest| digest.parse::<Digest>().ok());
                match digest.and_then(|digest| book.blobs.get(&digest).cloned()) {
                    Some(bytes) => Response::new(Full::new(bytes).boxed()),
                    None => error(StatusCode::NOT_FOUND, "no_blob"),
                }
            }
        }
    }
}

async fn serve(registry: std::sync::Weak<Registry>, listener: TcpListener) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        if registry.strong_count() == 0 {
            return;
        }
        let Ok(Ok((stream, _))) = accepted else { continue };
        let registry = registry.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let registry = registry.upgrade();
                async move {
                    let answer = match registry {
                        Some(registry) => registry.answer(request).await,
                        None => error(StatusCode::SERVICE_UNAVAILABLE, "gone"),
                    };
                    Ok::<_, Infallible>(answer)
                }
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn json(value: &impl serde::Serialize) -> Response<BoxBody<Bytes, Infallible>> {
    Response::new(Full::new(Bytes::from(serde_json::to_vec(value).unwrap())).boxed())
}

fn error(status: StatusCode, code: &str) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = json(&ErrorReply { code: code.into(), message: format!("{code} it says"), hint: None });
    *response.status_mut() = status;
    response
}

/// A bundle of one module.
pub(crate) fn bundle(text: &str) -> Packed {
    let module = PackModule {
        specifier: "index.js".into(),
        kind: ModuleKind::EsModule,
        bytes: Bytes::copy_from_slice(text.as_bytes()),
        source_map: None,
    };
    pack("index.js", vec![module]).unwrap()
}

/// The deployment that gives everything to one version; its id is the version's.
pub(crate) fn deployment_of(record: &VersionRecord) -> Deployment {
    Deployment {
        id: record.id.clone(),
        versions: vec![Share { version: record.id.clone(), percentage: 100.0 }],
        created_ms: 0,
        message: None,
    }
}

/// What a promotion changes.
pub(crate) fn promotion(record: &VersionRecord) -> Vec<Change> {
    let worker = record.worker.clone();
    let route = RouteRecord {
        pattern: format!("{worker}.example/*"),
        owner: RouteOwner::Worker(worker.clone()),
        worker: Some(worker.clone()),
        upstream: None,
        redirect_to_https: false,
        compress: Default::default(),
        early_hints: false,
        cache: Default::default(),
    };
    vec![
        Change::Promoted { worker: worker.clone(), deployment: deployment_of(record), versions: vec![record.clone()] },
        Change::RoutesSet { owner: RouteOwner::Worker(worker), routes: vec![route] },
    ]
}

/// A stand-in for the supervisor: a version whose module says `throw` does not start.
#[derive(Clone, Default)]
pub(crate) struct Runs {
    pub(crate) warmed: Arc<Mutex<Vec<String>>>,
    /// How the next ones end, for reasons that are not the version's.
    pub(crate) hindered: Arc<Mutex<Vec<Outcome>>>,
}

impl Warm for Runs {
    fn warm<'a>(&'a self, source: &'a Arc<WorkerSource>) -> BoxFuture<'a, Result<Warmed, RunError>> {
        Box::pin(async move {
            self.warmed.lock().push(source.version.to_string());
            let refused =
                |outcome, message: &str| Err(RunError { outcome, message: message.into(), retry_after: None, request_body: None });
            if let Some(outcome) = self.hindered.lock().pop() {
                return refused(outcome, "as asked");
            }
            match source.modules.iter().any(|module| module.bytes.starts_with(b"throw")) {
                true => refused(Outcome::StartupFailed, "SyntaxError: as asked"),
                false => Ok(Warmed { cpu_us: 1, heap_bytes: 1 }),
            }
        })
    }

    fn retire(&self, _: &str) {}
}

/// A node that follows.
pub(crate) struct TestNode {
    pub(crate) follower: Follower,
    pub(crate) routes: Arc<ActiveRoutes>,
    pub(crate) runs: Runs,
    pub(crate) purges: Arc<Purges>,
}

impl TestNode {
    pub(crate) fn config(registry: &Registry, data: &Path) -> FollowerConfig {
        let token =
            TokenFile { kind: TokenKind::Node, token: Token::generate().unwrap(), authority: None, signing_key: registry.key.public() };
        let file = data.join("node.token");
        token.write(&file).unwrap();
        FollowerConfig {
            origin: Some(registry.url()),
            token_file: Some(file),
            data: data.to_path_buf(),
            name: "node-1".parse().unwrap(),
            region: "here".into(),
            address: None,
            peer: None,
            peers: std::sync::Arc::default(),
        }
    }

    pub(crate) async fn start(config: FollowerConfig) -> Self {
        let (routes, runs) = (Arc::new(ActiveRoutes::default()), Runs::default());
        let purges = Arc::new(Purges::default());
        let follower = Follower::start(config, runs.clone(), routes.clone(), purges.clone()).await.unwrap();
        Self { follower, routes, runs, purges }
    }

    /// The version that answers for a worker's host.
    pub(crate) fn serves(&self, worker: &str) -> Option<String> {
        let table = self.routes.load();
        match &table.find(&format!("{worker}.example"), "/")?.target {
            Target::Worker(worker) => Some(worker.versions().first()?.source.version.to_string()),
            Target::Upstream => Some("upstream".into()),
        }
    }

    /// Waits until the status says something.
    pub(crate) async fn until(&self, says: impl Fn(&FollowerStatus) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !says(&self.follower.status()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "the status does not say it: {:#?}", self.follower.status());
    }
}
