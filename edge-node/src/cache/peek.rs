//! Looking at what is stored without using it: nothing becomes more popular, is promoted, forgotten or counted. For explanations; slower than a hit by far.

use std::sync::Arc;

use http::HeaderMap;

use super::entry::{Entry, Slot};
use super::key::CacheKey;
use super::purge::Verdict;
use super::refusals::Refusals;
use super::time::Time;
use super::{Cache, Found};

/// What is stored for a request.
#[derive(Debug, Clone)]
pub(crate) struct Sight {
    /// As the request would find it.
    pub(crate) found: Found,
    /// What is stored for it, also where it is not used any more.
    pub(crate) entry: Option<Arc<Entry>>,
    /// It is in memory.
    pub(crate) in_memory: bool,
    /// It is on disk.
    pub(crate) on_disk: bool,
    /// What is stored in memory under the key for other requests.
    pub(crate) others: Vec<Arc<Entry>>,
    /// A fetch of the key is on its way.
    pub(crate) fetching: bool,
}

impl Cache {
    /// What [`Self::find`] and [`Self::recall`] would find. Cancel-safe.
    pub(crate) async fn peek(self: &Arc<Self>, key: &CacheKey, request: &HeaderMap, now: Time) -> Sight {
        let slot = self.slot(key).await.unwrap_or_default();
        let on_disk = match &self.disk {
            Some(disk) if disk.may_have(key.as_bytes()) => disk.peek(key.as_bytes(), request).await,
            _ => None,
        };
        let mut found = self.among(&slot, key, request, now);
        if let (Found::Nothing(..), Some(entry)) = (&found, &on_disk) {
            found = self.recalled(entry, key, request, now).unwrap_or(found);
        }
        let used = match &found {
            Found::Fresh(entry, _) | Found::Stale(entry, ..) | Found::Incomplete(entry, _) => Some(entry.clone()),
            Found::Nothing(..) => slot.select(request).next().or(on_disk.as_ref()).cloned(),
        };
        let is_used = |entry: &Arc<Entry>| used.as_ref().is_some_and(|used| used.variant.same(&entry.variant));
        Sight {
            in_memory: slot.variants().iter().any(&is_used),
            on_disk: on_disk.iter().any(is_used) || used.as_ref().is_some_and(|entry| entry.body.on_disk().is_some()),
            others: slot.variants().iter().filter(|entry| !is_used(entry)).cloned().collect(),
            fetching: self.fills.runs(key.as_bytes()),
            entry: used,
            found,
        }
    }

    /// Whether something is stored under the key, whatever it answers and purges say of it. Reads nothing from the disk.
    pub(crate) fn has(&self, key: &CacheKey) -> bool {
        self.tier.holds(key.as_bytes()) || self.disk.as_ref().is_some_and(|disk| disk.has(key.as_bytes()))
    }

    /// What purges say of a stored response.
    pub(crate) fn verdict(&self, key: &CacheKey, entry: &Entry) -> Verdict {
        self.purges.verdict(&entry.purgeable, key.as_bytes())
    }

    /// Why answers were not stored.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// On a thread that may take its time: memory has to be searched to leave no trace in it.
    async fn slot(self: &Arc<Self>, key: &CacheKey) -> Option<Slot> {
        if !self.tier.holds(key.as_bytes()) {
            return None;
        }
        let (cache, key) = (self.clone(), key.to_boxed());
        let searched = tokio::task::spawn_blocking(move || cache.tier.peek(&key)).await;
        searched.ok().flatten()
    }
}
