//! The runners in use, and which link of which one a version is loaded on.

use std::sync::Arc;

use parking_lot::Mutex;

use super::Inner;
use super::exec::Start;
use super::limits::{IDLE_RUNNER_AFTER, IDLE_SPREAD_AFTER, IDLE_VERSION_AFTER, RETRY_AFTER, RUNNERS_MAX, RUNNERS_PER_CLASS_MAX};
use super::link::Link;
use super::placement::Placement;
use super::runner::{Cause, Runner};
use super::version::{Class, Version};
use crate::{Outcome, RunError};

/// Slots of a link that are kept free, by unloading what was not used for longest.
const SLOTS_SPARE: usize = 4;

/// The runners in use.
#[derive(Default)]
pub(super) struct Fleet {
    runners: Mutex<Vec<Arc<Runner>>>,
    /// Held while a runner is added, so that two versions of one class do not add two.
    growing: tokio::sync::Mutex<()>,
}

/// Whether a thread that is held by another version will do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Threads {
    Free,
    Any,
}

impl Fleet {
    pub(super) fn all(&self) -> Vec<Arc<Runner>> {
        self.runners.lock().clone()
    }

    pub(super) fn remove(&self, runner: &Arc<Runner>) {
        self.runners.lock().retain(|other| !Arc::ptr_eq(other, runner));
    }

    fn of_class(&self, class: &Class) -> Vec<Arc<Runner>> {
        self.runners.lock().iter().filter(|runner| runner.class() == Some(class) && runner.is_serving()).cloned().collect()
    }

    /// The class may have no further runner: from now on versions make room for each other.
    pub(super) fn is_grown(&self, class: &Class) -> bool {
        self.of_class(class).len() >= RUNNERS_PER_CLASS_MAX || self.runners.lock().len() >= RUNNERS_MAX
    }

    /// The least loaded link of the class that does not have the version yet.
    fn site(&self, version: &Version, class: &Class, threads: Threads) -> Option<Arc<Link>> {
        let runners = self.of_class(class);
        let links = runners.iter().flat_map(|runner| &runner.links);
        let fit = links.filter(|link| link.is_open() && (threads == Threads::Any || !link.is_busy()) && link.can_take(version));
        fit.min_by_key(|link| (link.running(), link.versions())).cloned()
    }
}

impl Inner {
    /// Finds a link for a version, with a further runner where that is needed and allowed.
    pub(super) async fn find_site(self: &Arc<Self>, version: &Version, class: &Class) -> Result<Arc<Link>, RunError> {
        if let Some(link) = self.fleet.site(version, class, Threads::Free) {
            return Ok(link);
        }
        let _growing = self.fleet.growing.lock().await;
        if let Some(link) = self.fleet.site(version, class, Threads::Free) {
            return Ok(link);
        }
        let full = self.fleet.of_class(class).len() >= RUNNERS_PER_CLASS_MAX || !self.make_room();
        if full {
            return self.fleet.site(version, class, Threads::Any).ok_or_else(|| shed("no runner has a place for the version"));
        }
        let runner = if class.is_jitless() {
            self.spawn(Start { jitless: true, aside: false }).await.map_err(|error| shed(&error.to_string()))?
        } else {
            self.standby.take().await.ok_or_else(|| shed("no standby runner in time"))?
        };
        runner.adopt(class.clone());
        runner.used(self.now_ms());
        self.fleet.runners.lock().push(runner.clone());
        runner.links.first().cloned().ok_or_else(|| shed("a runner without links"))
    }

    /// Makes room for one more runner: ends the one that was idle for longest, where there are too many.
    fn make_room(&self) -> bool {
        let runners = self.fleet.all();
        if runners.len() < RUNNERS_MAX {
            return true;
        }
        let idle = runners.iter().filter(|runner| runner.running() == 0);
        let oldest = idle.min_by_key(|runner| runner.last_used_ms());
        if let Some(oldest) = oldest {
            self.give_up(oldest, Cause::Retired);
        }
        oldest.is_some()
    }

    /// Unloads what nobody asked for in a long time, and ends runners with nothing in them.
    pub(super) fn sweep_idle(&self) {
        let now = self.now_ms();
        for runner in self.fleet.all() {
            for placement in runner.links.iter().flat_map(|link| link.placements()) {
                let idle = now.saturating_sub(placement.last_used_ms());
                let kept = if placement.version.is_elsewhere_than(&placement) { IDLE_SPREAD_AFTER } else { IDLE_VERSION_AFTER };
                if placement.is_alive() && !placement.is_loading() && idle > kept.as_millis() as u64 {
                    placement.version.forget(&placement);
                    placement.unload();
                }
            }
            if runner.links.iter().any(|link| link.versions() > 0) {
                runner.used(now);
            } else if runner.running() == 0 && now.saturating_sub(runner.last_used_ms()) > IDLE_RUNNER_AFTER.as_millis() as u64 {
                self.give_up(&runner, Cause::Retired);
            }
        }
    }
}

impl Runner {
    fn last_used_ms(&self) -> u64 {
        self.last_used_ms.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Link {
    /// Versions that are loaded here or being loaded.
    pub(super) fn versions(&self) -> usize {
        self.state.lock().slots.len()
    }

    pub(super) fn placements(&self) -> Vec<Arc<Placement>> {
        self.state.lock().slots.values().cloned().collect()
    }

    fn can_take(&self, version: &Version) -> bool {
        let state = self.state.lock();
        state.slots.len() < self.slots_max
            && !state.slots.values().any(|placement| placement.is_alive() && placement.version.id == version.id)
    }

    /// Unloads the versions that were not used for longest, where few slots are left.
    pub(super) fn make_room(&self) {
        let mut placements = self.placements();
        let surplus = (placements.len() + SLOTS_SPARE.min(self.slots_max / 4)).saturating_sub(self.slots_max);
        placements.retain(|placement| placement.is_alive() && !placement.is_loading());
        placements.sort_by_key(|placement| placement.version.last_used_ms());
        for placement in placements.iter().take(surplus) {
            placement.version.forget(placement);
            placement.unload();
        }
    }
}

/// An invocation that is refused because there is no place.
pub(super) fn shed(message: &str) -> RunError {
    RunError { outcome: Outcome::LoadShed, message: message.to_owned(), retry_after: Some(RETRY_AFTER), request_body: None }
}
