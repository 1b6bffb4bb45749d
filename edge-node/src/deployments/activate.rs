//! Makes what is wanted run: plan, fetch, warm, swap, retire. One worker's failure stops no other's; whatever cannot run leaves the old version in
//! place, and its reason on the board.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use selvedge_origin::api::wire::WorkerState;
use selvedge_origin::registry::{DesiredWorker, RouteRecord, VersionId, WorkerName};
use tokio::sync::watch;
use tokio::time::Instant;

use super::follow::Wanted;
use super::load::{Failure, Loader, Prepared};
use super::report::Board;
use super::state::{self, Saved};
use super::{limits, plan};
use crate::routes::{ActiveRoutes, ActiveWorker, RouteTable};

/// Brings the node to what is wanted, and keeps it there.
pub(super) struct Activator {
    wanted: watch::Receiver<Wanted>,
    loader: Arc<Loader>,
    routes: Arc<ActiveRoutes>,
    board: Arc<Board>,
    data: PathBuf,
    /// The wanted state that is being worked on.
    target: Wanted,
    active: BTreeMap<WorkerName, DesiredWorker>,
    running: BTreeMap<WorkerName, Arc<ActiveWorker>>,
    effective: BTreeMap<String, RouteRecord>,
    underway: BTreeSet<WorkerName>,
    refused: BTreeMap<WorkerName, (VersionId, String)>,
    /// Workers whose bundle cannot be fetched now: when to try again, and how long to wait after that.
    later: BTreeMap<WorkerName, (Instant, Duration)>,
    retiring: VecDeque<(Instant, VersionId)>,
    publish_at: Option<Instant>,
    published: Option<Instant>,
    collect_at: Instant,
    unsaved: bool,
}

/// The end of one activation.
struct Done {
    worker: WorkerName,
    wanted: DesiredWorker,
    result: Result<Prepared, Failure>,
}

type Jobs = FuturesUnordered<BoxFuture<'static, Done>>;

impl Activator {
    /// Activates the last state from disk, without the registry and without warming: it ran before. What cannot be loaded is left for
    /// [`Self::run`].
    pub(super) async fn restore(
        saved: Saved,
        wanted: watch::Receiver<Wanted>,
        loader: Arc<Loader>,
        routes: Arc<ActiveRoutes>,
        board: Arc<Board>,
        data: PathBuf,
    ) -> Self {
        let target = wanted.borrow().clone();
        let mut last_good = saved.desired.workers.clone();
        for (worker, kept) in saved.kept {
            match kept {
                Some(kept) => drop(last_good.insert(worker, kept)),
                None => drop(last_good.remove(&worker)),
            }
        }
        let mut this = Self {
            wanted,
            loader,
            routes,
            board,
            data,
            target,
            active: BTreeMap::new(),
            running: BTreeMap::new(),
            effective: saved.routes.unwrap_or_else(|| saved.desired.routes.clone()),
            underway: BTreeSet::new(),
            refused: BTreeMap::new(),
            later: BTreeMap::new(),
            retiring: VecDeque::new(),
            publish_at: None,
            published: None,
            collect_at: Instant::now() + limits::COLLECT_INTERVAL,
            unsaved: false,
        };
        let loads = futures::stream::iter(last_good).map(|(name, wanted)| {
            let loader = this.loader.clone();
            async move {
                let loaded = loader.from_disk(&name, &wanted).await;
                (name, wanted, loaded)
            }
        });
        let loaded: Vec<_> = loads.buffer_unordered(limits::ACTIVATIONS_MAX).collect().await;
        for (name, wanted, loaded) in loaded {
            match loaded {
                Ok(prepared) => this.install(&name, wanted, prepared),
                Err(failure) => {
                    tracing::error!(worker = %name, reason = %failure, "the last version cannot be loaded from this node's disk")
                }
            }
        }
        for (name, active) in &this.active {
            let ids = active.versions.keys().cloned().collect();
            this.board.worker(name, &active.deployment.id, WorkerState::Active, ids);
        }
        this.board.position(this.target.position.clone());
        this.publish();
        this
    }

    /// Works until the follower is gone.
    pub(super) async fn run(mut self) {
        let mut jobs = Jobs::new();
        let mut saving: Option<tokio::task::JoinHandle<std::io::Result<()>>> = None;
        loop {
            self.begin(&mut jobs);
            if saving.is_none() && self.unsaved {
                saving = Some(self.save());
            }
            let timer = self.next_timer();
            tokio::select! {
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.retarget(),
                    Err(_) => break,
                },
                Some(done) = jobs.next(), if !jobs.is_empty() => self.finish(done),
                saved = wait_for(&mut saving), if saving.is_some() => {
                    saving = None;
                    if let Err(error) = saved {
                        tracing::error!(%error, "the state cannot be written: a restart would begin with an older one");
                    }
                }
                () = tokio::time::sleep_until(timer) => self.on_time(Instant::now()).await,
            }
        }
    }

    /// Takes the newest wanted state.
    fn retarget(&mut self) {
        self.target = self.wanted.borrow_and_update().clone();
        self.unsaved = true;
        self.refused.retain(|worker, _| self.target.desired.workers.contains_key(worker));
        self.later.retain(|worker, _| self.target.desired.workers.contains_key(worker));
        let gone: Vec<_> = self.active.keys().filter(|worker| !self.target.desired.workers.contains_key(*worker)).cloned().collect();
        for worker in gone {
            tracing::info!(%worker, "worker is deleted");
            if let Some(before) = self.active.remove(&worker) {
                self.retire(&before, None);
            }
            self.running.remove(&worker);
        }
        let known: Vec<_> = self.board.shown().load().workers.keys().cloned().collect();
        for worker in known.iter().filter(|worker| !self.target.desired.workers.contains_key(*worker)) {
            self.board.forget(worker);
        }
        self.board.position(self.target.position.clone());
        self.publish_soon();
    }

    /// Begins what the plan asks for, as far as there is room.
    fn begin(&mut self, jobs: &mut Jobs) {
        let refused: BTreeMap<_, _> = self.refused.iter().map(|(worker, (deployment, _))| (worker.clone(), deployment.clone())).collect();
        let now = plan::Now { active: &self.active, underway: &self.underway, refused: &refused };
        let wanted = self.target.desired.clone();
        let due = Instant::now();
        for name in plan::plan(now, &wanted).activate {
            let Some(worker) = wanted.workers.get(&name).cloned() else { continue };
            let id = worker.deployment.id.clone();
            self.board.worker(&name, &id, WorkerState::Activating, self.active_ids(&name));
            if jobs.len() >= limits::ACTIVATIONS_MAX || self.later.get(&name).is_some_and(|(at, _)| *at > due) {
                continue;
            }
            self.underway.insert(name.clone());
            let (loader, known) = (self.loader.clone(), self.running.get(&name).cloned());
            jobs.push(Box::pin(async move {
                let result = loader.prepare(&name, &worker, known.as_deref()).await;
                Done { worker: name, wanted: worker, result }
            }));
        }
    }

    /// Takes in the end of an activation.
    fn finish(&mut self, done: Done) {
        let Done { worker, wanted, result } = done;
        self.underway.remove(&worker);
        if !self.target.desired.workers.contains_key(&worker) {
            if let Ok(prepared) = result {
                self.retire_versions(prepared.warmed);
            }
            return;
        }
        let id = wanted.deployment.id.clone();
        match result {
            Ok(prepared) => {
                tracing::info!(%worker, deployment = %id, "active");
                self.later.remove(&worker);
                self.refused.remove(&worker);
                self.install(&worker, wanted, prepared);
                self.board.worker(&worker, &id, WorkerState::Active, self.active_ids(&worker));
                self.unsaved = true;
                self.publish_soon();
            }
            Err(Failure::Refused(reason)) => {
                tracing::error!(%worker, deployment = %id, reason, "refused; what was active before still is");
                self.later.remove(&worker);
                self.board.worker(&worker, &id, WorkerState::Refused(reason.clone()), self.active_ids(&worker));
                self.refused.insert(worker, (id, reason));
                self.unsaved = true;
            }
            Err(Failure::Later(reason)) => {
                let wait = self.later.get(&worker).map_or(limits::PULL_RETRY_MIN, |(_, wait)| (*wait * 2).min(limits::PULL_RETRY_MAX));
                tracing::warn!(%worker, deployment = %id, reason, again_in_ms = wait.as_millis() as u64, "cannot be fetched now");
                self.later.insert(worker, (Instant::now() + wait, wait));
            }
        }
    }

    fn install(&mut self, worker: &WorkerName, wanted: DesiredWorker, prepared: Prepared) {
        // A version that comes back before it was retired stays.
        self.retiring.retain(|(_, version)| !wanted.versions.contains_key(version));
        self.running.insert(worker.clone(), Arc::new(ActiveWorker::new(worker.shared(), prepared.versions)));
        if let Some(before) = self.active.insert(worker.clone(), wanted) {
            let after = self.active.get(worker).cloned();
            self.retire(&before, after.as_ref());
        }
    }

    fn retire(&mut self, before: &DesiredWorker, after: Option<&DesiredWorker>) {
        self.retire_versions(plan::retired(before, after));
    }

    fn retire_versions(&mut self, versions: Vec<VersionId>) {
        let at = Instant::now() + limits::RETIRE_AFTER;
        self.retiring.extend(versions.into_iter().map(|version| (at, version)));
    }

    fn active_ids(&self, worker: &WorkerName) -> Vec<VersionId> {
        self.active.get(worker).map(|active| active.versions.keys().cloned().collect()).unwrap_or_default()
    }

    /// Publishes now, or a little later where many workers become active at once.
    fn publish_soon(&mut self) {
        let now = Instant::now();
        match self.published {
            Some(last) if now.duration_since(last) < limits::PUBLISH_INTERVAL && self.underway.len() > 1 => {
                self.publish_at = self.publish_at.or(Some(last + limits::PUBLISH_INTERVAL));
            }
            _ => self.publish(),
        }
    }

    /// Swaps the routes, whole.
    fn publish(&mut self) {
        let runs = |worker: &WorkerName| self.running.contains_key(worker);
        self.effective = plan::effective_routes(&self.effective, &self.target.desired.routes, runs);
        let (table, refused) = RouteTable::from_records(self.effective.values(), &self.running);
        for error in refused {
            tracing::error!(%error, "a route of the registry is left out");
        }
        self.routes.swap(table);
        self.published = Some(Instant::now());
        self.publish_at = None;
    }

    fn next_timer(&self) -> Instant {
        let later = self.later.iter().filter(|(worker, _)| !self.underway.contains(*worker)).map(|(_, (at, _))| *at).min();
        let retire = self.retiring.front().map(|(at, _)| *at);
        [Some(self.collect_at), later, retire, self.publish_at].into_iter().flatten().min().unwrap_or(self.collect_at)
    }

    async fn on_time(&mut self, now: Instant) {
        while let Some((_, version)) = self.retiring.pop_front_if(|(at, _)| *at <= now) {
            self.loader.retire(&version);
        }
        if self.publish_at.is_some_and(|at| at <= now) {
            self.publish();
        }
        if self.collect_at <= now {
            self.collect_at = now + limits::COLLECT_INTERVAL;
            let bundles: HashSet<_> = self
                .active
                .values()
                .chain(self.target.desired.workers.values())
                .flat_map(|worker| worker.versions.values().map(|version| version.bundle.clone()))
                .collect();
            self.loader.collect(bundles).await;
        }
    }

    /// Writes the state in the background; one write at a time, always of the newest state.
    fn save(&mut self) -> tokio::task::JoinHandle<std::io::Result<()>> {
        self.unsaved = false;
        let saved = Saved {
            position: self.target.position.clone(),
            kept: plan::deviations(&self.active, &self.target.desired),
            routes: (self.effective != self.target.desired.routes).then(|| self.effective.clone()),
            desired: (*self.target.desired).clone(),
        };
        let data = self.data.clone();
        tokio::task::spawn_blocking(move || state::save(&data, &saved))
    }
}

async fn wait_for(saving: &mut Option<tokio::task::JoinHandle<std::io::Result<()>>>) -> std::io::Result<()> {
    match saving {
        Some(handle) => handle.await.map_err(std::io::Error::other)?,
        None => std::future::pending().await,
    }
}
