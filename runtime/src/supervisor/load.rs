//! Loading a version onto a link, and where its invocations go meanwhile.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::counters::count;
use super::fleet::shed;
use super::limits::{BUSY_POLL, BUSY_WAIT_MAX, LOAD_TIMEOUT, PLACE_WAIT_MAX, PLACEMENTS_PER_VERSION_MAX, WAITING_PER_VERSION_MAX};
use super::link::Link;
use super::placement::Placement;
use super::runner::Cause;
use super::version::{Class, Version};
use super::{Inner, tasks};
use crate::backlog::{Place, Turn};
use crate::{Outcome, RunError, Work, WorkerSource};

/// Loads in a row after a version's class has changed while it was loaded: a class can change twice (proven, heavy), and
/// three times more by strikes.
const MOVES_MAX: usize = 5;

/// Whether an invocation has found all threads of its version busy for a while. On a machine with more work than processors a
/// thread often looks busy because it does not run, and would be no faster elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// It has just come.
    Fresh,
    /// It has waited: the version is loaded on one more link.
    Lost,
}

/// Who looks for a place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A request: an overloaded node loads nothing for it.
    Request,
    /// A deployment: it goes on under any load, which it may be the cure of.
    Deployment,
}

/// The way of one invocation to a place, over all that it starts in vain.
pub(super) struct Search {
    purpose: Purpose,
    deadline: Instant,
    /// It has waited for its version to be loaded.
    pub(super) cold: bool,
    /// Once it has waited for a thread.
    turn: Option<Turn>,
}

/// Why a load has no placement.
enum Unloaded {
    /// The version, or the want of a place: remembered for a while.
    Failed(RunError),
    /// The runner was lost for another reason: worth trying again.
    Lost,
}

impl Inner {
    /// Where an invocation of the version may start. Waits for a thread that is free, or for a load where there is no place.
    pub(super) async fn place(
        self: &Arc<Self>,
        version: &Arc<Version>,
        source: &Arc<WorkerSource>,
        search: &mut Search,
    ) -> Result<Arc<Placement>, RunError> {
        if search.has_waited_enough() {
            return Err(self.too_late());
        }
        if let Some(placement) = self.place_now(version, source, Patience::Fresh, search)? {
            return Ok(placement);
        }
        Box::pin(self.wait_for_place(version, source, search)).await
    }

    async fn wait_for_place(
        self: &Arc<Self>,
        version: &Arc<Version>,
        source: &Arc<WorkerSource>,
        search: &mut Search,
    ) -> Result<Arc<Placement>, RunError> {
        let Some(_waiting) = version.queue() else { return Err(self.too_many()) };
        let mut patience = Patience::Fresh;
        let mut queued: Option<Place<'_>> = None;
        loop {
            let mut changed = pin!(version.changed.notified());
            changed.as_mut().enable();
            if let Some(placement) = self.place_now(version, source, patience, search)? {
                return Ok(placement);
            }
            let now = Instant::now();
            // The wait for a load is one for all who wait, and no queue; that for a thread is one after the other.
            if queued.is_none() && !version.state.lock().ready.is_empty() {
                queued = Some(search.queue(version, now).ok_or_else(|| self.too_many())?);
            }
            if let Some(place) = &mut queued {
                search.turn = Some(place.turn());
            }
            if now >= search.deadline || search.has_waited_enough_at(now) {
                return Err(self.too_late());
            }
            if tokio::time::timeout(BUSY_POLL, changed).await.is_err() {
                patience = Patience::Lost;
            }
        }
    }

    /// A place that is free now, if there is one. Begins loading the version where it should be on more links.
    fn place_now(
        self: &Arc<Self>,
        version: &Arc<Version>,
        source: &Arc<WorkerSource>,
        patience: Patience,
        search: &mut Search,
    ) -> Result<Option<Arc<Placement>>, RunError> {
        let mut standing = version.state.lock();
        if let Some(reason) = &standing.disabled {
            return Err(RunError { outcome: Outcome::Disabled, message: reason.clone(), retry_after: None, request_body: None });
        }
        // What is loaded is prepared, also where its threads are busy.
        if search.purpose == Purpose::Deployment
            && let Some(ready) = standing.ready.iter().find(|placement| placement.link.is_open())
        {
            return Ok(Some(ready.clone()));
        }
        let choice = standing.choose();
        let all_busy = choice.placement.is_none() && !standing.ready.is_empty();
        let wanted = choice.more && (!all_busy || patience == Patience::Lost);
        if wanted && !standing.loading && standing.ready.len() < PLACEMENTS_PER_VERSION_MAX {
            match standing.failure(Instant::now()) {
                Some(error) if standing.ready.is_empty() => return Err(error.clone()),
                Some(_) => {}
                None if search.purpose == Purpose::Request && self.strain.refuses(Work::ColdStart) => {
                    if standing.ready.is_empty() && self.strain.sheds(Work::ColdStart) {
                        return Err(shed("the node is overloaded: no version is loaded for a request"));
                    }
                }
                None => {
                    standing.loading = true;
                    tasks::spawn(load(self.clone(), version.clone(), source.clone()));
                }
            }
        }
        if let Some(placement) = &choice.placement {
            placement.used(version.last_used_ms());
        } else if standing.ready.is_empty() && !std::mem::replace(&mut search.cold, true) && search.purpose == Purpose::Request {
            count(&self.counters.cold_starts);
        }
        Ok(choice.placement)
    }

    fn too_many(&self) -> RunError {
        count(&self.counters.shed);
        shed("too many invocations of the version wait for a place")
    }

    fn too_late(&self) -> RunError {
        count(&self.counters.shed);
        shed("no thread was free in time")
    }

    /// The version's class has changed: loads it where it belongs now. What it has goes when that is done.
    pub(super) fn relocate(&self, version: &Arc<Version>) {
        let mut standing = version.state.lock();
        let Some(source) = standing.ready.first().map(|placement| placement.source.clone()) else { return };
        let Some(this) = self.this.upgrade() else { return };
        if !standing.loading {
            standing.loading = true;
            tasks::spawn(load(this, version.clone(), source));
        }
    }

    async fn load_once(
        self: &Arc<Self>,
        version: &Arc<Version>,
        source: &Arc<WorkerSource>,
        class: Class,
    ) -> Result<Arc<Placement>, Unloaded> {
        let link = self.find_site(version, &class).await.map_err(Unloaded::Failed)?;
        if self.fleet.is_grown(&class) {
            link.make_room();
        }
        let (done, loaded) = oneshot::channel();
        let reserved =
            link.reserve(|slot| Placement::new(version.clone(), source.clone(), link.clone(), slot, class, done)).ok_or(Unloaded::Lost)?;
        if let Err(error) = reserved.send().await {
            reserved.unload();
            return Err(Unloaded::Failed(error));
        }
        match tokio::time::timeout(LOAD_TIMEOUT, loaded).await {
            Ok(Ok(Ok(_))) => Ok(reserved),
            Ok(Ok(Err(error))) => Err(Unloaded::Failed(error)),
            Ok(Err(_)) => Err(Unloaded::Lost),
            Err(_) => {
                self.stuck_while_loading(&link, &reserved);
                let message = format!("the version was not loaded within {} s", LOAD_TIMEOUT.as_secs());
                Err(Unloaded::Failed(RunError { outcome: Outcome::StartupFailed, message, retry_after: None, request_body: None }))
            }
        }
    }

    fn stuck_while_loading(&self, link: &Arc<Link>, placement: &Arc<Placement>) {
        let runner = self.fleet.all().into_iter().find(|runner| runner.id == link.runner);
        if let Some(runner) = runner {
            let cause = Cause::Stuck { link: link.index, stream: 0, slot: placement.slot, outcome: Outcome::StartupFailed };
            self.give_up(&runner, cause);
        }
    }
}

impl Search {
    /// Begins one.
    pub(super) fn begin(purpose: Purpose, now: Instant) -> Self {
        Self { purpose, deadline: now + PLACE_WAIT_MAX, cold: false, turn: None }
    }

    /// It had a place, and was lost with it: what it has waited for that is over.
    pub(super) fn begin_anew(&mut self) {
        self.turn = None;
    }

    /// There is no time left to wait for anything.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Waits for a thread: further, where it has done so before.
    fn queue<'a>(&self, version: &'a Version, now: Instant) -> Option<Place<'a>> {
        match self.turn {
            Some(turn) => Some(version.backlog.come_back(turn)),
            None => version.backlog.enter(now, BUSY_WAIT_MAX, WAITING_PER_VERSION_MAX),
        }
    }

    fn has_waited_enough_at(&self, now: Instant) -> bool {
        self.turn.is_some_and(|turn| now >= turn.until())
    }

    fn has_waited_enough(&self) -> bool {
        self.turn.is_some() && self.has_waited_enough_at(Instant::now())
    }
}

/// Loads a version where it belongs, and tells those who wait. The only one for its version at a time.
async fn load(inner: Arc<Inner>, version: Arc<Version>, source: Arc<WorkerSource>) {
    let mut left_over = Vec::new();
    for _ in 0..MOVES_MAX {
        let class = version.class(&version.state.lock());
        let loaded = inner.load_once(&version, &source, class.clone()).await;
        let mut standing = version.state.lock();
        match loaded {
            Ok(placement) if placement.is_alive() && standing.disabled.is_none() => {
                count(&inner.counters.loads);
                standing.succeeded();
                standing.ready.push(placement);
            }
            Ok(placement) => left_over.push(placement),
            Err(Unloaded::Failed(error)) => {
                standing.failed(error, Instant::now());
                break;
            }
            Err(Unloaded::Lost) => break,
        }
        let now = version.class(&standing);
        if now != class {
            continue;
        }
        left_over.extend(standing.ready.iter().filter(|placement| placement.class != now).cloned());
        standing.ready.retain(|placement| placement.class == now);
        break;
    }
    version.state.lock().loading = false;
    version.changed.notify_waiters();
    for placement in left_over {
        placement.unload();
    }
}
