//! Asking the disk after memory had nothing: one read for all who ask for a key at that moment, and what it finds goes to memory, unless it was purged or forgotten meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderMap;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::disk::{Disk, Recalled};
use super::entry::Entry;
use super::key::CacheKey;
use super::time::Time;
use super::{Cache, Found, Hint, judge};
use crate::limits::DISK_RECALL_WAIT;
use crate::metrics::RouteCounters;

/// Keys that are being asked for. As many as there are requests at most.
#[derive(Debug, Default)]
pub(super) struct Recalls(Mutex<HashMap<Box<[u8]>, Answer>>);

/// Where it is counted what becomes of what is found.
type Route<'a> = Option<&'a Arc<RouteCounters>>;

type Answer = Arc<OnceCell<Option<Arc<Entry>>>>;

/// One who asks.
struct Asking<'a> {
    recalls: &'a Recalls,
    key: &'a [u8],
    answer: Answer,
}

impl Recalls {
    fn ask<'a>(&'a self, key: &'a [u8]) -> Asking<'a> {
        let answer = self.0.lock().entry(key.into()).or_default().clone();
        Asking { recalls: self, key, answer }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut keys = self.recalls.0.lock();
        // Who comes after the answer asks anew; who leaves before it, as the last one, leaves nothing behind.
        if keys
            .get(self.key)
            .is_some_and(|answer| Arc::ptr_eq(answer, &self.answer) && (self.answer.initialized() || Arc::strong_count(answer) == 2))
        {
            keys.remove(self.key);
        }
    }
}

impl Cache {
    /// Whether the disk may have something for a key. No waiting.
    pub(crate) fn may_recall(&self, key: &CacheKey) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.may_have(key.as_bytes()))
    }

    /// What the disk has for a request; it goes to memory too. Cancel-safe.
    pub(crate) async fn recall(&self, key: &CacheKey, request: &HeaderMap, route: Route<'_>) -> Option<Arc<Entry>> {
        let disk = self.disk.as_ref()?;
        let asking = self.recalls.ask(key.as_bytes());
        let (begun, mut ours) = (Instant::now(), false);
        let look = || {
            ours = true;
            self.recall_alone(disk, key.as_bytes(), request, route)
        };
        let answer = asking.answer.get_or_init(look).await.clone();
        drop(asking);
        let is_for_us = ours || answer.as_ref().is_some_and(|entry| entry.variant.matches(request));
        // Where the disk was too slow for the other, there is no time to ask again.
        if is_for_us || begun.elapsed() >= DISK_RECALL_WAIT {
            return answer.filter(|entry| entry.variant.matches(request));
        }
        // What there is, or is not, for the other's variant says nothing of ours.
        self.recall_alone(disk, key.as_bytes(), request, route).await
    }

    /// Looks a request up in memory and on disk.
    pub async fn look(&self, key: &CacheKey, request: &HeaderMap, now: Time) -> Found {
        match self.find(key, request, now) {
            Found::Nothing(why, hint) if self.may_recall(key) => match self.recall(key, request, None).await {
                Some(entry) => self.recalled(&entry, key, request, now).unwrap_or(Found::Nothing(why, hint)),
                None => Found::Nothing(why, hint),
            },
            found => found,
        }
    }

    /// How what came from the disk is found, in the place of what memory has: memory may not have kept it.
    pub(crate) fn recalled(&self, entry: &Arc<Entry>, key: &CacheKey, request: &HeaderMap, now: Time) -> Option<Found> {
        if self.is_gone(key.as_bytes(), entry) {
            return None;
        }
        Some(judge(entry.clone(), request, Hint::of(&entry.variant), now))
    }

    async fn recall_alone(&self, disk: &Disk, key: &[u8], request: &HeaderMap, route: Route<'_>) -> Option<Arc<Entry>> {
        let mut recalled = disk.recall(key, request, route).await?;
        if let Some(entry) = Arc::get_mut(&mut recalled.entry) {
            entry.body = self.counted(std::mem::take(&mut entry.body));
        }
        if self.is_gone(key, &recalled.entry) {
            disk.discard(&recalled);
            return None;
        }
        self.promote(disk, key, recalled)
    }

    /// To memory, unless it was forgotten or replaced since it was read.
    fn promote(&self, disk: &Disk, key: &[u8], recalled: Recalled) -> Option<Arc<Entry>> {
        let fits = self.fits(&recalled.entry) && self.is_welcome(key, recalled.entry.weight() as u64);
        let mut is_current = false;
        self.tier.change(key, &mut |slot| {
            is_current = disk.is_current(&recalled);
            let old = slot.cloned().unwrap_or_default();
            let new = if is_current && fits { old.with_older(recalled.entry.clone()).within(self.memory_entry_max) } else { old };
            (!new.is_empty()).then_some(new)
        });
        is_current.then_some(recalled.entry)
    }
}
