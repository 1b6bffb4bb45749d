//! Stored responses: RFC 9111 as pure rules around a store in memory and on disk.
//!
//! Reading order: a [`key`] names a response, [`control`] and [`freshness`] read what it says of itself, [`policy`] decides what may be stored and used,
//! [`vary`] which of a key's variants answers, [`validate`], [`range`] and [`part`] what a client gets of it. An [`entry`] is what is stored, in a [`tier`]; a
//! [`fill`] is a fetch that others follow, and [`collapse`] sees to it that there is one for each key. [`status`] says what happened.
//! Operators take back what is stored by [`purge`], also by its [`tags`]. The rules ask for fields by [`lines`], of a map or of what is stored.
//!
//! The request path asks [`Cache::find`] first: one look-up in memory, no lock beyond the store's, no waiting. Where that finds nothing, and the [`disk`] may have it, it
//! asks [`Cache::recall`], before it asks an upstream.

pub mod chain;
pub mod coding;
pub mod collapse;
pub mod control;
pub mod date;
pub mod deception;
pub mod disk;
mod doorkeeper;
pub mod entry;
pub mod fill;
pub mod freshness;
mod held;
pub mod keeping;
pub mod key;
pub(crate) mod ledger;
pub mod lines;
mod memory;
pub mod negotiate;
pub mod part;
pub(crate) mod peek;
pub mod policy;
pub mod purge;
pub mod query;
pub mod range;
pub mod ready;
mod recall;
pub mod refusals;
pub mod slice;
pub mod status;
pub mod surrogate;
pub mod tags;
pub mod tier;
pub mod time;
pub mod validate;
pub mod vary;

use std::sync::Arc;

use http::header::{HeaderMap, RANGE};
use http::{HeaderName, HeaderValue};
use selvedge_origin::registry::Coding;

use crate::limits::{BESIDE_MEMORY_SHARE, MEMORY_SHARE_MAX, UNCOLLAPSED_MS};
use crate::metrics::{Metrics, Removal, RouteCounters};

use collapse::{Company, Duty, Fills, Obligation};
use disk::{Disk, DiskConfig, DiskUsage, Spill};
use entry::{Encoding, Entry, Slot, StoredBody};
use fill::Fill;
use freshness::Standing;
use keeping::{Keeping, Welcome};
use key::CacheKey;
use ledger::{Ledger, Share};
use memory::Memory;
use policy::Refusal;
use purge::{Purges, Realm, Stamp, Verdict};
use recall::Recalls;
use refusals::Refusals;
use status::Forward;
use tier::Tier;
use time::Time;
use vary::Variant;

/// Stored responses. Built once by `node.rs`; shared.
pub struct Cache {
    tier: Arc<dyn Tier>,
    disk: Option<Arc<Disk>>,
    recalls: Recalls,
    /// The most that memory takes of one key, in bytes: of an entry, and of all variants with their codings together. (What replaces something is not asked whether it may come in.)
    memory_entry_max: u64,
    purges: Arc<Purges>,
    refusals: Refusals,
    fills: Arc<Fills>,
    ledger: Arc<Ledger>,
}

/// What is stored for a request.
#[derive(Debug, Clone)]
pub enum Found {
    /// A response that is fresh for so many milliseconds more.
    Fresh(Arc<Entry>, u64),
    /// One that is stale for so many milliseconds, or must be validated whatever its age.
    Stale(Arc<Entry>, u64, Hint),
    /// A fresh part of the whole, without what is asked for.
    Incomplete(Arc<Entry>, Hint),
    /// None.
    Nothing(Forward, Hint),
}

impl Found {
    /// Nothing is stored under the key.
    fn nothing() -> Self {
        Self::Nothing(Forward::UriMiss, Hint::default())
    }

    /// The same where purges may have been missed: nothing is fresh, and nothing stands in for what cannot be validated.
    pub fn distrusted(self) -> Self {
        const FOR_EVER_MS: u64 = u64::MAX;
        match self {
            Self::Fresh(entry, _) => {
                let hint = Hint::of(&entry.variant);
                Self::Stale(entry, FOR_EVER_MS, hint)
            }
            Self::Stale(entry, _, hint) => Self::Stale(entry, FOR_EVER_MS, hint),
            Self::Incomplete(_, hint) => Self::Nothing(Forward::Stale, hint),
            nothing @ Self::Nothing(..) => nothing,
        }
    }
}

/// What a fetch of the key should know beforehand.
#[derive(Debug, Clone, Default)]
pub struct Hint {
    /// The fields that stored responses of the key vary on.
    pub names: Option<Arc<[HeaderName]>>,
    /// An answer of the key was not for the cache a moment ago: nobody should wait for another's.
    pub alone: bool,
    /// The range that is fetched; none: all of it.
    pub range: Option<HeaderValue>,
}

impl Hint {
    /// That responses of the key vary on what this one varies on.
    pub fn of(variant: &Variant) -> Self {
        Self { names: variant.names().cloned(), ..Self::default() }
    }
}

impl Cache {
    /// A cache that holds at most `bytes_max` bytes of responses, their heads and our overhead included; fetches that fill it, and readers of what has left it, hold at most half
    /// as many more.
    pub fn new(bytes_max: u64, metrics: Arc<Metrics>) -> Self {
        Self::over(bytes_max, metrics, None)
    }

    /// The same, in front of a disk tier. What is stored there already is found a moment later.
    pub fn with_disk(bytes_max: u64, disk: &DiskConfig, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let disk = Disk::open(disk, metrics.clone())?;
        Ok(Self::over(bytes_max, metrics, Some(Arc::new(disk))))
    }

    /// The same with fetches within these bounds.
    #[cfg(test)]
    pub(crate) fn with_fills(self, bounds: collapse::Bounds) -> Self {
        Self { fills: Fills::new(bounds, &self.ledger), ..self }
    }

    fn over(bytes_max: u64, metrics: Arc<Metrics>, disk: Option<Arc<Disk>>) -> Self {
        let behind = disk.clone();
        let evicted = move |key: &[u8]| behind.iter().for_each(|disk| disk.left_memory(key));
        let tier: Arc<dyn Tier> = Arc::new(Memory::new(bytes_max, metrics, evicted));
        disk.iter().for_each(|disk| disk.behind(&tier));
        let ledger = Ledger::new(bytes_max.saturating_add(bytes_max / BESIDE_MEMORY_SHARE));
        Self {
            tier,
            disk,
            recalls: Recalls::default(),
            memory_entry_max: bytes_max / MEMORY_SHARE_MAX,
            purges: Arc::default(),
            refusals: Refusals::default(),
            fills: Fills::new(collapse::Bounds::default(), &ledger),
            ledger,
        }
    }

    /// Looks a request up.
    pub fn find(&self, key: &CacheKey, request: &HeaderMap, now: Time) -> Found {
        let Some(slot) = self.tier.get(key.as_bytes()) else { return Found::nothing() };
        let found = self.among(&slot, key, request, now);
        if matches!(found, Found::Nothing(..)) && slot.variants().iter().any(|entry| self.is_gone(key.as_bytes(), entry)) {
            self.sweep(key.as_bytes());
        }
        found
    }

    /// Whether an entry was purged.
    fn is_gone(&self, key: &[u8], entry: &Entry) -> bool {
        self.purges.verdict(&entry.purgeable, key) == Verdict::Gone
    }

    /// Which of a key's responses answers a request, and how it stands.
    fn among(&self, slot: &Slot, key: &CacheKey, request: &HeaderMap, now: Time) -> Found {
        let hint = |slot: &Slot| Hint {
            names: slot.variants().first().and_then(|entry| entry.variant.names().cloned()),
            alone: slot.uncollapsed_until().is_some_and(|until| now < until),
            range: None,
        };
        let is_gone = |entry: &Arc<Entry>| self.is_gone(key.as_bytes(), entry);
        let mut answering = slot.select(request).filter(|entry| !is_gone(entry));
        let Some(first) = answering.next() else {
            let why = if slot.variants().iter().all(is_gone) { Forward::UriMiss } else { Forward::VaryMiss };
            return Found::Nothing(why, hint(slot));
        };
        // Section 4.1: the newest by Date. Several answer one request only where they vary on different fields.
        let alike = |entry: &Arc<Entry>| entry.variant.names() == first.variant.names();
        let entry = match slot.variants().len() > 1 && !slot.variants().iter().all(alike) {
            true => answering.fold(first, |best, other| if other.date() > best.date() { other } else { best }),
            false => first,
        };
        judge(entry.clone(), request, hint(slot), now)
    }

    /// Joins the fetch for a key, or takes on the duty to fetch for `realm`. A fetch that began before a purge is not for whoever asks after it.
    pub(crate) fn enter(&self, key: &CacheKey, hint: &Hint, request: &HeaderMap, company: Company, realm: Realm) -> Duty {
        let company = if hint.alone { Company::Alone } else { company };
        let stamp = self.purges.stamp(realm);
        let admits = |fill: &Fill| self.purges.admits(fill.stamp(), key.as_bytes(), fill.tags().as_ref());
        self.fills.enter(key.as_bytes(), hint, request, company, stamp, admits)
    }

    /// Stores a response, unless it was purged while it was fetched. (A purge between this look and the store is seen by whoever looks it up.)
    pub fn store(&self, key: &[u8], entry: Arc<Entry>) {
        if self.is_gone(key, &entry) {
            return;
        }
        let fits = self.fits(&entry);
        self.keep(key, entry, fits, |_| true);
    }

    /// Stores a response in the place of the one in memory that it was made of, where that is still there: it may have been made invalid meanwhile.
    pub(crate) fn replace(&self, key: &[u8], old: &Arc<Entry>, new: Arc<Entry>) {
        if self.is_gone(key, &new) {
            return;
        }
        let fits = self.fits(&new);
        self.keep(key, new, fits, |slot| slot.variants().iter().any(|entry| Arc::ptr_eq(entry, old)));
    }

    /// Whether there is room for a response that is being fetched: `length` bytes, where that is known, of at most so many in memory, and on disk in slices. To be
    /// asked once for each fetch: it counts as being asked for.
    pub(crate) fn welcome(&self, obligation: &Obligation, length: Option<u64>, memory_bytes_max: u64, sliced_bytes_max: u64) -> Welcome {
        let key = obligation.key();
        // One of unknown length may be as large as any.
        let bytes = length.unwrap_or(self.memory_entry_max);
        // Others that wait are as good as having been asked before.
        let in_memory = self.is_welcome(key, bytes) || obligation.has_company();
        let disk_takes = self.disk.as_ref().is_some_and(|disk| disk.has_room(bytes.min(memory_bytes_max)));
        let largest = if disk_takes { memory_bytes_max.max(sliced_bytes_max) } else { memory_bytes_max };
        // One of unknown length has a byte at least.
        let keeping = match length.unwrap_or(1) > largest {
            true => Keeping::Not(Some(Refusal::TooLarge)),
            false if in_memory || disk_takes => Keeping::Stored,
            false => Keeping::Stranger,
        };
        Welcome { in_memory, keeping }
    }

    /// Stores what was fetched, where it was welcome or is by now, unless it was invalidated meanwhile. Says what has become of it.
    pub(crate) fn fulfil(&self, obligation: &Obligation, entry: Arc<Entry>, welcome: Welcome) -> Keeping {
        let key = obligation.key();
        if self.is_gone(key, &entry) {
            return Keeping::Not(None);
        }
        let fits = self.fits(&entry);
        let in_memory = fits && (welcome.in_memory || obligation.has_company());
        if self.keep(key, entry, in_memory, |_| !obligation.is_discarded()) {
            return Keeping::Stored;
        }
        let refusal = if fits { Refusal::Admission } else { Refusal::TooLarge };
        Keeping::Not((!obligation.is_discarded()).then_some(refusal))
    }

    /// Whether an entry is small enough for memory.
    fn fits(&self, entry: &Entry) -> bool {
        entry.weight() as u64 <= self.memory_entry_max
    }

    /// Whether memory takes so many bytes of a key: it has others of the key, or room, or was asked for it before; and slow readers do not hold too much beside it.
    fn is_welcome(&self, key: &[u8], bytes: u64) -> bool {
        self.ledger.has_room(bytes) && (self.tier.welcomes(key, bytes) || self.tier.holds(key))
    }

    /// Puts an entry into all tiers (into memory where it `fits`), if `wanted` says so of what memory has, while nobody else changes the key: whoever invalidates it does so before
    /// that or after it, never in between. Gives whether any has it.
    fn keep(&self, key: &[u8], entry: Arc<Entry>, fits: bool, wanted: impl Fn(&Slot) -> bool) -> bool {
        let mut kept = false;
        self.tier.change(key, &mut |slot| {
            let old = slot.cloned().unwrap_or_default();
            if !wanted(&old) {
                return (!old.is_empty()).then_some(old);
            }
            let on_disk = self.disk.as_ref().is_some_and(|disk| disk.put(key, &entry));
            kept = fits || on_disk;
            let new = if fits { old.with(entry.clone()).within(self.memory_entry_max) } else { old.without(&entry) };
            if fits {
                old.crowded_out(&entry, &new).for_each(|other| other.removed(Removal::Variants));
            }
            (!new.is_empty()).then_some(new)
        });
        kept
    }

    /// Drops the responses of a key that were purged.
    fn sweep(&self, key: &[u8]) {
        self.tier.change(key, &mut |slot| {
            let slot = slot?;
            let (gone, left): (Vec<_>, Vec<_>) = slot.variants().iter().cloned().partition(|entry| self.is_gone(key, entry));
            gone.iter().for_each(|entry| entry.removed(Removal::Purged));
            let left = Slot::new(left, slot.uncollapsed_until());
            (!left.is_empty()).then_some(left)
        });
    }

    /// What operators have purged.
    pub fn purges(&self) -> &Arc<Purges> {
        &self.purges
    }

    /// Joins whoever compresses the same bytes, or takes on the duty to do so. `source` stands for the bytes as long as they are compressed.
    pub(crate) fn enter_encoding(&self, source: usize, coding: Coding) -> Duty {
        // No key of a request begins like this.
        let id = [b"coding ", coding.name().as_bytes(), &source.to_ne_bytes()].concat();
        self.fills.enter(&id, &Hint::default(), &HeaderMap::new(), Company::Open, Stamp::default(), |_| true)
    }

    /// What a stored response's bytes are in a coding, where that is known by now.
    pub(crate) fn encoding(&self, key: &[u8], entry: &Entry, coding: Coding) -> Option<Encoding> {
        self.tier.get(key)?.of(&entry.body)?.encoding(coding).cloned()
    }

    /// Keeps with a stored response what its bytes are in a coding; nothing, where the response is gone, or all of the key would be too much.
    pub(crate) fn keep_encoding(&self, key: &[u8], entry: &Entry, coding: Coding, encoding: &Encoding) {
        self.tier.change(key, &mut |slot| {
            let (without, with) = (slot?, slot?.with_encoding(&entry.body, coding, encoding));
            Some(if with.weight() as u64 <= self.memory_entry_max { with } else { without.clone() })
        });
    }

    /// Remembers that the answer of a key was not for the cache. One that was said not long ago is not said again.
    pub(crate) fn mark_uncollapsed(&self, key: &[u8], now: Time) {
        let long_enough = now.plus_ms(UNCOLLAPSED_MS / 2);
        if self.tier.get(key).and_then(|slot| slot.uncollapsed_until()).is_some_and(|until| until > long_enough) {
            return;
        }
        self.tier.change(key, &mut |slot| Some(slot.cloned().unwrap_or_default().uncollapsed(now.plus_ms(UNCOLLAPSED_MS))));
    }

    /// Forgets what is stored for a key, and what is being fetched for it (RFC 9111, section 4.4).
    pub fn invalidate(&self, key: &CacheKey) {
        // First the fetches: one that ends in between must not store again.
        self.fills.discard(key.as_bytes());
        self.tier.change(key.as_bytes(), &mut |slot| {
            slot.iter().flat_map(|slot| slot.variants()).for_each(|entry| entry.removed(Removal::Invalidated));
            self.disk.iter().for_each(|disk| disk.forget(key.as_bytes()));
            None
        });
    }

    /// What the disk tier holds; nothing where there is none.
    pub fn disk_usage(&self) -> DiskUsage {
        self.disk.as_ref().map(|disk| disk.usage()).unwrap_or_default()
    }

    /// How a body that arrives may be held: the largest one in memory, in bytes, at most `bytes_max`.
    pub(crate) fn memory_entry_max(&self, bytes_max: u64) -> u64 {
        bytes_max.min(self.memory_entry_max)
    }

    /// A way to disk for a route's body that is too large for memory; none where there is no disk.
    pub(crate) fn spill(&self, route: Option<&Arc<RouteCounters>>) -> Option<Spill> {
        self.disk.as_ref().map(|disk| disk.spill(route))
    }

    /// The largest body that goes that way, in bytes, at most `bytes_max`; 0 where there is no disk.
    pub(crate) fn sliced_bytes_max(&self, bytes_max: u64) -> u64 {
        self.disk.as_ref().map_or(0, |disk| bytes_max.min(disk.body_bytes_max()))
    }

    /// Waits until the disk has what was stored until now.
    pub async fn settled(&self) {
        if let Some(disk) = &self.disk {
            disk.settled().await;
        }
    }

    /// Keys and bytes that are stored.
    pub fn usage(&self) -> (u64, u64) {
        self.tier.usage()
    }

    /// An account for bytes on their way into the cache.
    pub(crate) fn share(&self) -> Share {
        self.ledger.share(0)
    }

    /// The same body, counted for as long as anybody has some of it.
    pub(crate) fn counted(&self, body: StoredBody) -> StoredBody {
        body.counted(&self.ledger)
    }
}

/// How an entry is found.
fn judge(entry: Arc<Entry>, request: &HeaderMap, hint: Hint, now: Time) -> Found {
    // Its bytes are on disk, and were evicted there.
    if entry.body.on_disk().is_some_and(|body| !body.is_there()) {
        return Found::Nothing(Forward::UriMiss, hint);
    }
    if !entry.answers(request.get(RANGE)) {
        return match entry.standing(now) {
            Standing::Fresh(_) if !entry.control.no_cache => Found::Incomplete(entry, hint),
            _ => Found::Nothing(Forward::Stale, hint),
        };
    }
    match entry.standing(now) {
        Standing::Fresh(left_ms) if !entry.control.no_cache => Found::Fresh(entry, left_ms),
        Standing::Fresh(_) => Found::Stale(entry, 0, hint),
        Standing::Stale(stale_ms) => Found::Stale(entry, stale_ms, hint),
    }
}

#[cfg(test)]
pub(crate) mod tests;
