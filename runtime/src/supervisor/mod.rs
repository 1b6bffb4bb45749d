//! The edge's side of running workers: keeps runner processes, places invocations in them, and outlives every one of them.
//!
//! Reading order, the path of an invocation: [`run`](Supervisor::run) (`run`) finds a place (`load`, `version`, `placement`, `fleet`,
//! `standby`, `exec`, `cgroup`), starts there (`link`, `stream`), and hears of it (`pipe`, `dispatch`); bodies flow through `upload` and
//! `download`, what a worker asks for through `call`: subrequests (`fetch`) and operations of its caches (`cache`). When something goes wrong: `watchdog`, `runner`, `burial`. Bounds: `limits`.

mod burial;
mod cache;
mod call;
mod cgroup;
mod counters;
mod dispatch;
mod download;
mod exec;
mod fetch;
mod fleet;
mod held;
mod limits;
mod link;
mod load;
mod logged;
mod look;
mod oom;
mod phase;
mod pipe;
mod placement;
mod priority;
mod process;
mod run;
mod runner;
mod socket;
mod standby;
mod stream;
mod tasks;
mod ticket;
mod upload;
mod version;
mod watchdog;

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::RwLock;
use smallvec::SmallVec;

use self::counters::{Counters, count};
use self::exec::Start;
use self::fleet::{Fleet, shed};
use self::limits::{DEAD_WAIT, FIRST_SPAWN_ATTEMPTS, SPAWN_BACKOFF_MIN, VERSIONS_MAX};
use self::link::Link;
use self::load::{Purpose, Search};
use self::runner::{Cause, Runner};
use self::standby::Standby;
use self::version::Version;
use crate::protocol::LINKS_MAX;
use crate::{Body, Invocation, RunError, Strain, WorkerSource};

pub use self::counters::Counts;

/// What a supervisor is made with.
pub struct SupervisorConfig {
    /// The program that becomes a runner (`selvedge`), opened once and exec'ed by descriptor.
    pub executable: File,
    /// Its arguments before those of the supervisor, such as `["runner"]`.
    pub arguments: Vec<String>,
    /// JavaScript threads of each runner, 1 to 64.
    pub threads: usize,
    /// Run where the kernel lacks what the sandbox needs, loudly.
    pub allow_unsandboxed: bool,
    /// How loaded the node is: whether versions are loaded for requests.
    pub strain: Arc<Strain>,
}

/// Keeps runner processes and places invocations in them. Cheap to clone. When the last clone is dropped, the runners end.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

/// What preparing a version took.
#[derive(Debug, Clone)]
pub struct Warmed {
    /// Thread CPU time of evaluating the modules, in microseconds.
    pub cpu_us: u64,
    /// V8 heap in use afterwards, in bytes.
    pub heap_bytes: u64,
}

/// A runner process, for status and tests.
#[derive(Debug, Clone)]
pub struct RunnerStatus {
    /// The process that holds V8 (as seen from the edge).
    pub pid: u32,
    /// Its cordon; none for a standby.
    pub cordon: Option<Arc<str>>,
    /// Versions loaded.
    pub versions: Vec<Arc<str>>,
    /// Invocations running.
    pub invocations: usize,
}

/// The supervisor's parts.
struct Inner {
    this: Weak<Inner>,
    started: Instant,
    allow_unsandboxed: bool,
    spawner: exec::Spawner,
    standby: Arc<Standby>,
    fleet: Fleet,
    versions: RwLock<HashMap<Arc<str>, Arc<Version>>>,
    counters: Counters,
    oom_kills: oom::OomKills,
    strain: Arc<Strain>,
    runners_made: AtomicU64,
    closing: AtomicBool,
}

impl Supervisor {
    /// Starts the first standby. Must be called inside a tokio runtime. An error says why no runner can be had.
    pub async fn start(config: SupervisorConfig) -> std::io::Result<Self> {
        if config.threads == 0 || config.threads > LINKS_MAX {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("a runner has 1 to {LINKS_MAX} threads")));
        }
        let allow_unsandboxed = config.allow_unsandboxed;
        let program =
            exec::Program { executable: config.executable, arguments: config.arguments, threads: config.threads, allow_unsandboxed };
        let spawner = exec::Spawner::start(program)?;
        let inner = Arc::new_cyclic(|this| Inner {
            this: this.clone(),
            started: Instant::now(),
            allow_unsandboxed,
            spawner,
            standby: Arc::new(Standby::default()),
            fleet: Fleet::default(),
            versions: RwLock::default(),
            counters: Counters::default(),
            oom_kills: oom::OomKills::watch(),
            strain: config.strain,
            runners_made: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        });
        inner.standby.put(inner.first().await?);
        tasks::spawn(standby::keep(Arc::downgrade(&inner)));
        tasks::spawn(watchdog::watch(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// Prepares an isolate for a version, so that its first request finds it warm, also on an overloaded node. An error says why the version cannot run.
    pub async fn warm(&self, source: &Arc<WorkerSource>) -> Result<Warmed, RunError> {
        let now = Instant::now();
        let version = self.inner.version(source, now);
        let placement = self.inner.place(&version, source, &mut Search::begin(Purpose::Deployment, now)).await?;
        placement.warmed().ok_or_else(|| shed("the version is gone already"))
    }

    /// Runs one invocation. The future resolves at the response's head; its body streams. Dropping the future, or the
    /// response's body before its end, cancels the invocation.
    pub fn run<'a>(
        &'a self,
        source: &'a Arc<WorkerSource>,
        invocation: impl Into<Box<Invocation>>,
    ) -> impl Future<Output = Result<http::Response<Body>, RunError>> + Send + 'a {
        self.inner.run(source, invocation.into())
    }

    /// Drops the isolates of a version as soon as their invocations have ended.
    pub fn retire(&self, version: &str) {
        for placement in retired(&self.inner.versions, version) {
            placement.unload();
        }
    }

    /// The runner processes now; the standby is the one without a cordon.
    pub fn runners(&self) -> Vec<RunnerStatus> {
        let runners = self.inner.fleet.all().into_iter().chain(self.inner.standby.get());
        runners.map(|runner| runner.status()).collect()
    }

    /// How loaded its node is.
    pub fn strain(&self) -> &Arc<Strain> {
        &self.inner.strain
    }

    /// What happened since the start.
    pub fn counts(&self) -> Counts {
        self.inner.counters.now()
    }

    /// Ends all runners. Running invocations get [`crate::Outcome::Canceled`].
    pub async fn shutdown(&self) {
        self.inner.closing.store(true, Ordering::Release);
        let runners: Vec<_> = self.inner.fleet.all().into_iter().chain(self.inner.standby.get()).collect();
        for runner in &runners {
            self.inner.give_up(runner, Cause::Shutdown);
        }
        for runner in runners {
            runner.dead_within(DEAD_WAIT).await;
        }
    }
}

impl Inner {
    async fn first(self: &Arc<Self>) -> std::io::Result<Arc<Runner>> {
        let mut attempt = 1;
        loop {
            match self.spawn(Start::default()).await {
                Ok(runner) => return Ok(runner),
                Err(error) if attempt >= FIRST_SPAWN_ATTEMPTS => return Err(std::io::Error::other(error)),
                Err(error) => tracing::warn!(%error, attempt, "no runner yet"),
            }
            attempt += 1;
            tokio::time::sleep(SPAWN_BACKOFF_MIN).await;
        }
    }

    fn now_ms(&self) -> u64 {
        self.ms_of(Instant::now())
    }

    fn ms_of(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// What is known of a version; a new one is on probation.
    fn version(&self, source: &Arc<WorkerSource>, now: Instant) -> Arc<Version> {
        let at = self.ms_of(now);
        if let Some(version) = self.versions.read().get(&source.version) {
            version.used(at);
            return version.clone();
        }
        let mut versions = self.versions.write();
        if versions.len() >= VERSIONS_MAX {
            forget_oldest(&mut versions);
        }
        let version = versions.entry(source.version.clone()).or_insert_with(|| Arc::new(Version::new(source, now))).clone();
        version.used(at);
        version
    }

    /// A link's thread was busy, and gave an invocation back.
    fn bounced(&self, link: &Link) {
        count(&self.counters.bounces);
        // One that bounced because its isolate was leaving says nothing about who runs.
        if link.is_busy()
            && let Some((_, holder)) = link.holder()
            && holder.version.weighs()
        {
            self.judge(&holder.version, 0, "");
        }
    }

    /// An isolate is gone.
    fn forget(&self, placement: &Arc<placement::Placement>) {
        placement.version.forget(placement);
    }
}

/// Forgets a version, and gives where it is loaded.
fn retired(versions: &RwLock<HashMap<Arc<str>, Arc<Version>>>, version: &str) -> SmallVec<[Arc<placement::Placement>; 2]> {
    let known = versions.read().get(version).cloned();
    let Some(known) = known else { return SmallVec::new() };
    // Not one lock inside the other: `forget_oldest` takes them the other way round.
    let (has_strikes, ready) = {
        let mut standing = known.state.lock();
        (standing.has_strikes(), std::mem::take(&mut standing.ready))
    };
    // One with strikes is remembered, should it come back.
    if !has_strikes {
        versions.write().remove(version);
    }
    ready
}

/// Makes room for one more version: one that is nowhere loaded and has no strikes, unused for longest.
fn forget_oldest(versions: &mut HashMap<Arc<str>, Arc<Version>>) {
    let idle = versions.values().filter(|version| {
        let standing = version.state.lock();
        standing.ready.is_empty() && !standing.loading && !standing.has_strikes()
    });
    let oldest = idle.min_by_key(|version| version.last_used_ms()).map(|version| version.id.clone());
    // Where all have strikes or are loaded, the bound gives way to what must be remembered; loaded ones are bounded themselves.
    if let Some(id) = oldest {
        versions.remove(&id);
    }
}

impl Runner {
    fn status(&self) -> RunnerStatus {
        let mut versions: Vec<_> =
            self.links.iter().flat_map(|link| link.placements()).map(|placement| placement.version.id.clone()).collect();
        versions.sort_unstable();
        versions.dedup();
        RunnerStatus { pid: self.pid, cordon: self.class().map(|class| class.cordon().clone()), versions, invocations: self.running() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_version_is_locked_while_one_that_retires_waits_for_all() {
        let source = WorkerSource {
            worker: "w".into(),
            version: "v".into(),
            cordon: "c".into(),
            entry: "index.js".into(),
            modules: Vec::new(),
            vars: Default::default(),
            compatibility_date: "2026-01-01".into(),
            compatibility_flags: Vec::new(),
            limits: crate::Limits::default(),
        };
        let version = Arc::new(Version::new(&source, Instant::now()));
        let versions = RwLock::new(HashMap::from([(version.id.clone(), version.clone())]));
        std::thread::scope(|scope| {
            let reading = versions.read();
            scope.spawn(|| retired(&versions, "v"));
            // A writer that waits lets no further reader in.
            while versions.try_read().is_some() {
                std::thread::yield_now();
            }
            let is_free = version.state.try_lock().is_some();
            drop(reading);
            assert!(is_free);
        });
        assert!(versions.read().is_empty());
    }
}
