//! Makes what is wanted run: plan, fetch, warm, swap, retire. One worker's failure stops no other's; whatever cannot run leaves the old version in
//! place, and its reason on the board.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use selvedge_origin::api::wire::{WorkerReport, WorkerState};
use selvedge_origin::feed::Position;
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
    refused: BTreeMap<WorkerName, VersionId>,
    /// Workers that wait for room to be activated.
    queue: VecDeque<WorkerName>,
    /// Workers whose wanted deployment cannot be activated now.
    later: BTreeMap<WorkerName, Later>,
    retiring: VecDeque<(Instant, VersionId)>,
    publish_at: Option<Instant>,
    published: Option<Instant>,
    collect_at: Instant,
    /// Since when something differs from what is on disk.
    unsaved: Option<Instant>,
    /// Deployments that the board calls "activating", or has called so.
    announced: BTreeMap<WorkerName, VersionId>,
    /// After a write that failed: when to try again, and how long is waited.
    save_again: Option<(Instant, Duration)>,
    /// Workers whose activation is not on disk yet.
    unconfirmed: BTreeSet<WorkerName>,
}

/// A deployment that cannot be activated now.
struct Later {
    /// When to try again; none: it is queued.
    at: Option<Instant>,
    /// How long was waited.
    wait: Duration,
    /// Loads that ended with their runner.
    lost: u32,
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
            queue: VecDeque::new(),
            later: BTreeMap::new(),
            retiring: VecDeque::new(),
            publish_at: None,
            published: None,
            collect_at: Instant::now() + limits::COLLECT_INTERVAL,
            unsaved: None,
            announced: BTreeMap::new(),
            save_again: None,
            unconfirmed: BTreeSet::new(),
        };
        let loads = futures::stream::iter(last_good).map(|(name, wanted)| {
            let loader = this.loader.clone();
            async move {
                let loaded = loader.restore(&name, &wanted).await;
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
        // What could not be loaded is said before the position is.
        this.replan();
        this.board.settled(this.target.position.clone(), []);
        this.publish();
        this
    }

    /// Works until the follower is gone.
    pub(super) async fn run(mut self) {
        let mut jobs = Jobs::new();
        let mut saving: Option<Saving> = None;
        loop {
            self.begin(&mut jobs);
            if saving.is_none() && self.is_time_to_save(jobs.is_empty()) {
                saving = Some(self.save());
            }
            let timer = self.next_timer(saving.is_some());
            tokio::select! {
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.retarget(),
                    Err(_) => break,
                },
                Some(done) = jobs.next(), if !jobs.is_empty() => self.finish(done),
                saved = written(&mut saving), if saving.is_some() => {
                    if let Some(saving) = saving.take() {
                        match saved {
                            Ok(()) => self.confirm(saving),
                            Err(error) => self.write_again(saving, &error),
                        }
                    }
                }
                () = tokio::time::sleep_until(timer) => self.on_time(Instant::now()).await,
            }
        }
    }

    /// Takes the newest wanted state.
    fn retarget(&mut self) {
        self.target = self.wanted.borrow_and_update().clone();
        self.changed();
        let workers = &self.target.desired.workers;
        let is_wanted =
            |worker: &WorkerName, deployment: &VersionId| workers.get(worker).is_some_and(|wanted| wanted.deployment.id == *deployment);
        self.refused.retain(|worker, deployment| is_wanted(worker, deployment));
        self.later.retain(|worker, _| workers.contains_key(worker));
        self.announced.retain(|worker, deployment| is_wanted(worker, deployment));
        let gone = self.replan();
        for worker in gone {
            tracing::info!(%worker, "worker is deleted");
            if let Some(before) = self.active.remove(&worker) {
                self.retire(&before, None);
            }
            self.running.remove(&worker);
        }
        let desired = self.target.desired.clone();
        // Where what is wanted is again what runs, nothing is left of the deployment in between.
        self.board.keep(|line| match desired.workers.get(&line.worker) {
            Some(wanted) => wanted.deployment.id == line.deployment || !self.runs(&line.worker, &wanted.deployment.id),
            None => false,
        });
        self.publish_soon();
    }

    /// Queues what the plan asks for, says so, and gives what is to be removed.
    fn replan(&mut self) -> Vec<WorkerName> {
        let wanted = self.target.desired.clone();
        let plan = plan::plan(self.now(), &wanted);
        let mut news = Vec::new();
        self.queue.clear();
        for name in plan.activate {
            let Some(worker) = wanted.workers.get(&name) else { continue };
            if self.announced.get(&name) != Some(&worker.deployment.id) {
                self.later.remove(&name);
                news.push(self.announce(&name, &worker.deployment.id));
            }
            if self.later.get(&name).is_none_or(|later| later.at.is_none()) {
                self.queue.push_back(name);
            }
        }
        self.board.begun(news);
        plan.remove
    }

    /// What is said of a deployment that is about to be prepared.
    fn announce(&mut self, worker: &WorkerName, deployment: &VersionId) -> WorkerReport {
        self.announced.insert(worker.clone(), deployment.clone());
        let (deployment, active) = (deployment.clone(), self.active_ids(worker));
        WorkerReport { worker: worker.clone(), deployment, state: WorkerState::Activating, active }
    }

    fn now(&self) -> plan::Now<'_> {
        plan::Now { active: &self.active, underway: &self.underway, refused: &self.refused }
    }

    /// Begins what is queued, as far as there is room.
    fn begin(&mut self, jobs: &mut Jobs) {
        while jobs.len() < limits::ACTIVATIONS_MAX {
            let Some(name) = self.queue.pop_front() else { break };
            if !plan::needs_activation(self.now(), &name, &self.target.desired) {
                continue;
            }
            let Some(worker) = self.target.desired.workers.get(&name).cloned() else { continue };
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
        let id = wanted.deployment.id.clone();
        let next = self.target.desired.workers.get(&worker).map(|wanted| wanted.deployment.id.clone());
        // Another deployment is wanted by now, or none. Where something runs, it goes on until that other one is ready: what was prepared here may be what
        // was taken back. How it failed says nothing of the other.
        if next.as_ref() != Some(&id) && (next.is_none() || result.is_err() || self.active.contains_key(&worker)) {
            self.later.remove(&worker);
            if let Ok(prepared) = result {
                self.retire_versions(prepared.warmed);
            }
            self.again(worker);
            return;
        }
        match result.map_err(|failure| self.judged(&worker, failure)) {
            Ok(prepared) => {
                tracing::info!(%worker, deployment = %id, "active");
                self.later.remove(&worker);
                self.refused.remove(&worker);
                self.install(&worker, wanted, prepared);
                self.unconfirmed.insert(worker.clone());
                self.changed();
                self.publish_soon();
            }
            Err(failure @ Failure::Refused(_)) => {
                tracing::error!(%worker, deployment = %id, reason = %failure, "refused; what was active before still is");
                self.later.remove(&worker);
                self.board.hindered(&worker, &id, failure, self.active_ids(&worker));
                self.refused.insert(worker.clone(), id);
                self.changed();
            }
            Err(failure) => {
                let (wait, lost) =
                    self.later.get(&worker).map_or((limits::ACTIVATE_RETRY_MIN, 0), |later| (longer(later.wait), later.lost));
                let lost = lost + u32::from(matches!(failure, Failure::RunnerLost(_)));
                tracing::warn!(%worker, deployment = %id, reason = %failure, again_in_ms = wait.as_millis() as u64, "cannot be activated now");
                self.board.hindered(&worker, &id, failure, self.active_ids(&worker));
                self.later.insert(worker, Later { at: Some(Instant::now() + wait), wait, lost });
                return;
            }
        }
        self.again(worker);
    }

    /// A deployment whose loads go on ending their runners is refused, though nobody could see that it is at fault.
    fn judged(&self, worker: &WorkerName, failure: Failure) -> Failure {
        let lost = self.later.get(worker).map_or(1, |later| later.lost + 1);
        match failure {
            Failure::RunnerLost(reason) if lost >= limits::LOADS_LOST_MAX => {
                Failure::Refused(format!("its runner ended {lost} times in a row while it was loaded, so it is not loaded again: {reason}"))
            }
            other => other,
        }
    }

    /// Queues a worker whose activation has ended, where another deployment is wanted by now.
    fn again(&mut self, worker: WorkerName) {
        if plan::needs_activation(self.now(), &worker, &self.target.desired)
            && let Some(next) = self.target.desired.workers.get(&worker).map(|wanted| wanted.deployment.id.clone())
        {
            let line = self.announce(&worker, &next);
            self.board.begun([line]);
            self.queue.push_back(worker);
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
        let effective = plan::effective_routes(&self.effective, &self.target.desired.routes, runs);
        if effective != self.effective {
            self.effective = effective;
            self.changed();
        }
        let (table, refused) =
            RouteTable::from_records(self.effective.values(), &self.running, self.routes.groups(), self.routes.by_route());
        for error in refused {
            tracing::error!(%error, "a route of the registry is left out");
        }
        self.routes.swap(table);
        self.published = Some(Instant::now());
        self.publish_at = None;
    }

    fn next_timer(&self, is_saving: bool) -> Instant {
        let later = self.later.values().filter_map(|later| later.at).min();
        let retire = self.retiring.front().map(|(at, _)| *at);
        let save = self.unsaved.filter(|_| !is_saving).map(|since| self.save_again.map_or(since + limits::SAVE_DELAY, |(at, _)| at));
        [Some(self.collect_at), later, retire, self.publish_at, save].into_iter().flatten().min().unwrap_or(self.collect_at)
    }

    async fn on_time(&mut self, now: Instant) {
        while let Some((_, version)) = self.retiring.pop_front_if(|(at, _)| *at <= now) {
            self.loader.retire(&version);
        }
        for (worker, later) in self.later.iter_mut().filter(|(_, later)| later.at.is_some_and(|at| at <= now)) {
            later.at = None;
            self.queue.push_back(worker.clone());
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

    fn changed(&mut self) {
        self.unsaved = self.unsaved.or(Some(Instant::now()));
    }

    /// What was activated is waited for; a change alone can wait a little for the activation that it asks for, and so can one of many.
    fn is_time_to_save(&self, nothing_underway: bool) -> bool {
        let waited = |since: Instant| since.elapsed() >= limits::SAVE_DELAY;
        let last_ones = self.queue.is_empty() && !self.unconfirmed.is_empty();
        let may_again = self.save_again.is_none_or(|(at, _)| at <= Instant::now());
        may_again && self.unsaved.is_some_and(|since| nothing_underway || last_ones || waited(since))
    }

    /// Writes the state in the background; one write at a time, always of the newest state.
    fn save(&mut self) -> Saving {
        self.unsaved = None;
        let position = self.target.position.clone();
        let saved = Saved {
            position: position.clone(),
            kept: plan::deviations(&self.active, &self.target.desired),
            routes: (self.effective != self.target.desired.routes).then(|| self.effective.clone()),
            desired: self.target.desired.clone(),
        };
        let data = self.data.clone();
        let write = tokio::task::spawn_blocking(move || state::save(&data, &saved));
        Saving { write, position, activated: std::mem::take(&mut self.unconfirmed) }
    }

    /// Nothing that is not on disk is reported: the state is written again, and what is active here waits for that.
    fn write_again(&mut self, saving: Saving, error: &std::io::Error) {
        let wait = self.save_again.map_or(limits::SAVE_RETRY_MIN, |(_, wait)| (wait * 2).min(limits::SAVE_RETRY_MAX));
        let again_in_ms = wait.as_millis() as u64;
        tracing::error!(%error, again_in_ms, "the state cannot be written: a restart would begin with an older one");
        self.save_again = Some((Instant::now() + wait, wait));
        self.changed();
        for worker in saving.activated.iter().filter(|worker| self.runs_as_wanted(worker)) {
            let Some(active) = self.active.get(worker) else { continue };
            let why = Failure::Later(format!("it runs, but the node's state cannot be written: {error}"));
            self.board.hindered(worker, &active.deployment.id, why, self.active_ids(worker));
        }
        self.unconfirmed.extend(saving.activated);
    }

    /// What is on disk is reported: a node that said "active" is active again after it was killed.
    fn confirm(&mut self, saving: Saving) {
        self.save_again = None;
        if self.publish_at.is_some() {
            self.publish();
        }
        self.board.settled(saving.position, saving.activated.iter().filter(|worker| self.runs_as_wanted(worker)));
    }

    /// Where a later deployment is underway or refused already, the board says that.
    fn runs_as_wanted(&self, worker: &WorkerName) -> bool {
        self.target.desired.workers.get(worker).is_some_and(|wanted| self.runs(worker, &wanted.deployment.id))
    }

    fn runs(&self, worker: &WorkerName, deployment: &VersionId) -> bool {
        self.active.get(worker).is_some_and(|active| active.deployment.id == *deployment)
    }
}

/// A write of the state, and what may be reported when it is done.
struct Saving {
    write: tokio::task::JoinHandle<std::io::Result<()>>,
    position: Option<Position>,
    activated: BTreeSet<WorkerName>,
}

fn longer(wait: Duration) -> Duration {
    (wait * 2).min(limits::ACTIVATE_RETRY_MAX)
}

async fn written(saving: &mut Option<Saving>) -> std::io::Result<()> {
    match saving {
        Some(saving) => (&mut saving.write).await.map_err(std::io::Error::other)?,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests;
