//! What is wanted changes while something is prepared, and the disk fails.

use std::time::Duration;

use selvedge_origin::api::wire::WorkerState;
use selvedge_origin::bundle::{ModuleKind, PackModule, pack, sign_version};
use selvedge_origin::keys::SigningKey;
use selvedge_origin::registry::{Change, Deployment, Desired, Digest, Epoch, RouteOwner, Share, VersionRecord};
use selvedge_runtime::supervisor::Warmed;
use selvedge_runtime::{Outcome, RunError, WorkerSource};

use super::super::load::Warm;
use super::super::pull::BundleStore;
use super::*;
use crate::routes::Target;

/// A version whose module says `shed` finds no room; one that says `ends` takes its runner along.
struct Stub;

impl Warm for Stub {
    fn warm<'a>(&'a self, source: &'a Arc<WorkerSource>) -> BoxFuture<'a, Result<Warmed, RunError>> {
        let says = |text: &[u8]| source.modules.iter().any(|module| module.bytes.starts_with(text));
        let outcome = says(b"shed").then_some(Outcome::LoadShed).or(says(b"ends").then_some(Outcome::RunnerLost));
        Box::pin(async move {
            match outcome {
                Some(outcome) => Err(RunError { outcome, message: "as asked".into(), retry_after: None, request_body: None }),
                None => Ok(Warmed { cpu_us: 1, heap_bytes: 1 }),
            }
        })
    }

    fn retire(&self, _: &str) {}
}

/// A registry's desired state, and a node that has nothing yet.
struct Bench {
    key: SigningKey,
    store: Arc<BundleStore>,
    wanted: watch::Sender<Wanted>,
    board: Arc<Board>,
    routes: Arc<ActiveRoutes>,
    folder: tempfile::TempDir,
}

impl Bench {
    /// The node's state is to be kept in this folder of the bench's.
    async fn new(data: &str) -> (Self, Activator) {
        let folder = tempfile::tempdir().unwrap();
        let bench = Self {
            key: SigningKey::generate().unwrap(),
            store: Arc::new(BundleStore::open(folder.path().join("bundles")).unwrap()),
            wanted: watch::channel(Wanted::default()).0,
            board: Arc::new(Board::new("node-1".parse().unwrap())),
            routes: Arc::default(),
            folder,
        };
        let key = Some(bench.key.public());
        let loader = Arc::new(Loader { store: bench.store.clone(), client: None, key, supervisor: Arc::new(Stub) });
        let (routes, board, data) = (bench.routes.clone(), bench.board.clone(), bench.folder.path().join(data));
        let activator = Activator::restore(Saved::default(), bench.wanted.subscribe(), loader, routes, board, data).await;
        (bench, activator)
    }

    /// The same, with a first version that has the traffic.
    async fn running() -> (Self, Activator, Jobs, VersionId) {
        let (bench, mut activator) = Self::new(".").await;
        let mut jobs = Jobs::new();
        let first = bench.promote("first");
        activator.retarget();
        activator.begin(&mut jobs);
        activator.end(&mut jobs).await;
        (bench, activator, jobs, first)
    }

    /// Gives the traffic of `shop` to a new version with this text, whose bundle is on the node.
    fn promote(&self, text: &str) -> VersionId {
        let bytes = text.to_owned().into_bytes().into();
        let packed =
            pack("a.js", vec![PackModule { specifier: "a.js".into(), kind: ModuleKind::EsModule, bytes, source_map: None }]).unwrap();
        for (digest, bytes) in &packed.blobs {
            self.store.write(digest, bytes).unwrap();
        }
        let (worker, id): (WorkerName, _) = ("shop".parse().unwrap(), VersionId::generate());
        let signature = sign_version(&self.key, &worker, &id, &packed.digest);
        let record: VersionRecord = serde_json::from_value(serde_json::json!({
            "worker": worker, "id": id, "number": 1, "bundle": packed.digest, "signature": signature, "cordon": "shared", "vars": {},
            "compatibility_date": "2026-01-01", "compatibility_flags": [], "cpu_ms": null, "subrequests_max": null, "created_ms": 0, "message": null,
        }))
        .unwrap();
        let versions = vec![Share { version: id.clone(), percentage: 100.0 }];
        let deployment = Deployment { id: id.clone(), versions, created_ms: 0, message: None };
        let route = RouteRecord {
            pattern: "shop.example/*".into(),
            owner: RouteOwner::Worker(worker.clone()),
            worker: Some(worker.clone()),
            upstream: None,
            redirect_to_https: false,
            compress: Default::default(),
            early_hints: false,
            cache: Default::default(),
        };
        self.wanted.send_modify(|wanted| {
            let mut desired = Desired::clone(&wanted.desired);
            desired.apply(&Change::Promoted { worker: worker.clone(), deployment, versions: vec![record] });
            desired.apply(&Change::RoutesSet { owner: RouteOwner::Worker(worker), routes: vec![route] });
            let seq = wanted.position.as_ref().map_or(0, |position| position.seq) + 1;
            let position = Position { epoch: Epoch::generate(), seq, chain: Digest::zero() };
            *wanted = Wanted { position: Some(position), desired: Arc::new(desired) };
        });
        id
    }

    fn serves(&self) -> Option<VersionId> {
        match &self.routes.load().find("shop.example", "/")?.target {
            Target::Worker(worker) => worker.versions().first()?.source.version.parse().ok(),
            Target::Upstream => None,
        }
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "{what}: {:#?}", self.board.status());
    }
}

impl Activator {
    /// The end of what is underway.
    async fn end(&mut self, jobs: &mut Jobs) {
        let done = jobs.next().await.unwrap();
        self.finish(done);
    }
}

#[tokio::test]
async fn what_was_taken_back_while_it_was_prepared_takes_no_traffic_and_keeps_nothing_waiting() {
    let (bench, mut activator, mut jobs, first) = Bench::running().await;
    assert_eq!(bench.serves(), Some(first.clone()));
    let second = bench.promote("second");
    activator.retarget();
    activator.begin(&mut jobs);
    bench.promote("shed, the third");
    activator.retarget();
    activator.end(&mut jobs).await;
    assert_eq!(bench.serves(), Some(first.clone()), "the second is wanted no more");
    assert!(activator.retiring.iter().any(|(_, version)| *version == second), "and it is not kept warm for ever");
    activator.begin(&mut jobs);
    let fourth = bench.promote("fourth");
    activator.retarget();
    activator.end(&mut jobs).await;
    assert_eq!((bench.serves(), activator.queue.len(), activator.later.len()), (Some(first), 1, 0), "the fourth waits for nothing");
    activator.begin(&mut jobs);
    activator.end(&mut jobs).await;
    assert_eq!(bench.serves(), Some(fourth));
}

#[tokio::test]
async fn a_deployment_that_ends_its_runner_at_each_load_is_refused() {
    let (bench, mut activator, mut jobs, first) = Bench::running().await;
    let waits = |bench: &Bench| bench.board.status().unsettled.values().any(|line| matches!(line.state, WorkerState::Waiting(_)));
    for text in ["ends each", "ends each again"] {
        bench.promote(text);
        activator.retarget();
        for load in 1..=limits::LOADS_LOST_MAX {
            activator.begin(&mut jobs);
            activator.end(&mut jobs).await;
            assert_eq!(waits(&bench), load < limits::LOADS_LOST_MAX, "{text}, load {load}: each deployment has its own count");
            activator.on_time(Instant::now() + limits::ACTIVATE_RETRY_MAX).await;
        }
        activator.begin(&mut jobs);
        assert!(jobs.is_empty() && activator.later.is_empty(), "it is not loaded again");
        let status = bench.board.status();
        let refused =
            |line: &WorkerReport| matches!(&line.state, WorkerState::Refused(reason) if reason.contains("ended 5 times in a row"));
        assert!(status.unsettled.values().any(refused), "{status:#?}");
        assert_eq!(bench.serves(), Some(first.clone()));
    }
}

#[tokio::test]
async fn a_first_deployment_is_better_than_none_while_the_next_is_prepared() {
    let (bench, mut activator) = Bench::new(".").await;
    let mut jobs = Jobs::new();
    let first = bench.promote("first");
    activator.retarget();
    activator.begin(&mut jobs);
    let second = bench.promote("second");
    activator.retarget();
    activator.end(&mut jobs).await;
    assert_eq!(bench.serves(), Some(first));
    activator.begin(&mut jobs);
    activator.end(&mut jobs).await;
    assert_eq!(bench.serves(), Some(second));
}

#[tokio::test]
async fn what_cannot_be_written_is_not_confirmed_and_written_again() {
    let (bench, activator) = Bench::new("full").await;
    let first = bench.promote("first");
    let running = tokio::spawn(activator.run());
    let waits = |bench: &Bench| {
        let status = bench.board.status();
        status.unsettled.values().any(|line| matches!(&line.state, WorkerState::Waiting(reason) if reason.contains("cannot be written")))
    };
    bench.until("it says why it waits", waits).await;
    assert_eq!((bench.serves(), bench.board.status().position), (Some(first), None), "it runs, and is not confirmed");
    std::fs::create_dir(bench.folder.path().join("full")).unwrap();
    bench.until("confirmed", |bench| bench.board.status().position.is_some_and(|position| position.seq == 1)).await;
    assert!(bench.board.status().unsettled.is_empty());
    assert!(bench.folder.path().join("full").join(state::FILE).exists());
    running.abort();
}
