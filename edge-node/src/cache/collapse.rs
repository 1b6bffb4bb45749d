//! One fetch for each key and node: who fetches has an [`Obligation`], the others follow its [`Fill`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use http::Response;
use http::header::HeaderMap;
use parking_lot::Mutex;
use selvedge_runtime::{Body, BodyError};
use slab::Slab;
use smallvec::SmallVec;

use super::Hint;
use super::entry::Entry;
use super::fill::{Fill, Head, Reader};
use super::ledger::Ledger;
use super::policy::Refusal;
use super::purge::Stamp;
use super::status::Detail;
use super::vary::Variant;
use crate::limits::{FILL_READERS_MAX, FILL_READERS_PATIENCE, FILLS_ALONE_SHARE, FILLS_MAX};

/// All fetches that fill the cache now.
#[derive(Debug)]
pub(super) struct Fills {
    running: Mutex<Running>,
    bounds: Bounds,
    ledger: Arc<Ledger>,
}

/// What all fetches may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Fetches at one time.
    pub(crate) fills_max: usize,
    /// Readers of one fetch.
    pub(crate) readers_max: usize,
    /// For how long readers of a fetch wait for one that is slower than they are.
    pub(crate) patience: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { fills_max: FILLS_MAX, readers_max: FILL_READERS_MAX, patience: FILL_READERS_PATIENCE }
    }
}

#[derive(Debug, Default)]
struct Running {
    /// Those that others may follow: several for one key where responses vary.
    open: HashMap<Box<[u8]>, SmallVec<[Registered; 1]>>,
    /// Those that nobody looks for, but whoever invalidates their key.
    alone: HashMap<Box<[u8]>, Slab<Arc<Fill>>>,
    /// How many there are, those among them that were invalidated, and how many of these are alone.
    fills: usize,
    fills_alone: usize,
}

#[derive(Debug)]
struct Registered {
    /// What tells the variants of the key apart, as far as it was known when the fetch began.
    discriminator: Box<[u8]>,
    fill: Arc<Fill>,
}

/// Whether others may follow a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// They may.
    Open,
    /// Its answer is probably not for them.
    Alone,
}

/// What a request that needs a fetch has to do.
pub(crate) enum Duty {
    /// Fetch.
    Fetch(Obligation, Reader),
    /// Follow one that fetches.
    Follow(Reader),
    /// Fetch without the cache: too much is going on.
    Refused(&'static str),
}

/// The duty to fetch for a key, and to tell those who wait. Dropping it frees them.
#[derive(Debug)]
#[must_use]
pub struct Obligation {
    fills: Arc<Fills>,
    key: Box<[u8]>,
    fill: Arc<Fill>,
    /// Its place among those of its key that are alone, where it is.
    alone: Option<usize>,
    /// It has not left yet.
    counted: AtomicBool,
}

impl Running {
    /// Notes a fetch. Gives its place among those of its key that are alone, where it is.
    fn register(&mut self, key: &[u8], discriminator: Box<[u8]>, company: Company, fill: Arc<Fill>) -> Option<usize> {
        self.fills += 1;
        match company {
            Company::Open => {
                self.open.entry(key.into()).or_default().push(Registered { discriminator, fill });
                None
            }
            Company::Alone => {
                self.fills_alone += 1;
                Some(self.alone.entry(key.into()).or_default().insert(fill))
            }
        }
    }

    fn has_room(&self, company: Company, fills_max: usize) -> bool {
        self.fills < fills_max && (company == Company::Open || self.fills_alone < fills_max / FILLS_ALONE_SHARE)
    }
}

impl Fills {
    /// Within these bounds.
    pub(super) fn new(bounds: Bounds, ledger: &Arc<Ledger>) -> Arc<Self> {
        Arc::new(Self { running: Mutex::default(), bounds, ledger: ledger.clone() })
    }

    /// Whether a fetch of this key is on its way.
    pub(super) fn runs(&self, key: &[u8]) -> bool {
        let running = self.running.lock();
        running.open.contains_key(key) || running.alone.contains_key(key)
    }

    /// Joins the fetch of this key and variant that `admits`, or begins one. `hint` says what responses under the key are known to vary on, and which range is fetched.
    pub(super) fn enter(
        self: &Arc<Self>,
        key: &[u8],
        hint: &Hint,
        request: &HeaderMap,
        company: Company,
        stamp: Stamp,
        admits: impl Fn(&Fill) -> bool,
    ) -> Duty {
        let variant = hint.names.as_ref().map(|names| Variant::new(names, request).discriminator()).unwrap_or_default();
        let discriminator = match &hint.range {
            // No discriminator of a variant begins like this, and no range has a line end in it.
            Some(range) => [b"range=", range.as_bytes(), b"\n", &variant].concat().into(),
            None => variant,
        };
        let mut running = self.running.lock();
        if company == Company::Open
            && let Some(registered) =
                running.open.get(key).and_then(|list| list.iter().find(|one| one.discriminator == discriminator && admits(&one.fill)))
        {
            return registered.fill.reader(false, self.bounds.readers_max).map_or(Duty::Refused(Detail::Waiters.name()), Duty::Follow);
        }
        if !running.has_room(company, self.bounds.fills_max) {
            return Duty::Refused(Detail::Fills.name());
        }
        let fill = Fill::new(stamp, self.ledger.share(0), self.bounds.patience);
        let Some(reader) = fill.reader(true, self.bounds.readers_max) else { return Duty::Refused(Detail::Waiters.name()) };
        let alone = running.register(key, discriminator, company, fill.clone());
        Duty::Fetch(Obligation { fills: self.clone(), key: key.into(), fill, alone, counted: AtomicBool::new(true) }, reader)
    }

    /// What is being fetched for this key is not to be stored, and nobody else follows it.
    pub(super) fn discard(&self, key: &[u8]) {
        let (open, alone) = {
            let mut running = self.running.lock();
            (running.open.remove(key), running.alone.remove(key))
        };
        open.into_iter().flatten().for_each(|registered| registered.fill.discard());
        alone.into_iter().flatten().for_each(|(_, fill)| fill.discard());
    }
}

impl Obligation {
    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// When the fetch began.
    pub fn stamp(&self) -> Stamp {
        self.fill.stamp()
    }

    /// Nobody finds the fetch any more, and it takes no other's room.
    fn leave(&self) {
        let mut running = self.fills.running.lock();
        if !self.counted.swap(false, Relaxed) {
            return;
        }
        running.fills -= 1;
        let Some(place) = self.alone else {
            if let Some(list) = running.open.get_mut(&self.key) {
                list.retain(|registered| !Arc::ptr_eq(&registered.fill, &self.fill));
                if list.is_empty() {
                    running.open.remove(&self.key);
                }
            }
            return;
        };
        running.fills_alone -= 1;
        if let Some(fills) = running.alone.get_mut(&self.key) {
            // Others may have its place since it was invalidated.
            if fills.get(place).is_some_and(|fill| Arc::ptr_eq(fill, &self.fill)) {
                fills.try_remove(place);
            }
            if fills.is_empty() {
                running.alone.remove(&self.key);
            }
        }
    }

    /// Whether others follow, or have.
    pub fn has_company(&self) -> bool {
        self.fill.is_followed()
    }

    /// Tells all what was found out.
    pub fn tell(&self, head: Head) {
        self.fill.tell(head);
    }

    /// Ends with a response that is not for the cache.
    pub fn give(self, response: Response<Body>, refusal: Refusal) {
        self.fill.give(response, refusal);
    }

    /// Bytes have arrived; gives what is held now, in bytes, and whether there is room for it beside what others hold.
    pub fn push(&self, chunk: bytes::Bytes) -> (u64, bool) {
        self.fill.push(chunk)
    }

    /// Too large to be stored: no new readers, and at the pace of those that are there.
    pub fn pace(&self) {
        self.leave();
        self.fill.pace();
    }

    /// Waits until a paced fill may go on. False: nobody reads any more.
    pub async fn room(&self) -> bool {
        self.fill.room().await
    }

    /// Whether what is fetched is not to be stored: it was invalidated meanwhile.
    pub fn is_discarded(&self) -> bool {
        self.fill.is_discarded()
    }

    /// It became this entry, stored or not.
    pub fn became(&self, entry: Arc<Entry>) {
        self.fill.became(entry);
    }

    /// The begin of the body is on disk: who is far behind reads it there.
    pub fn spilled(&self, begin: super::disk::DiskBody) {
        self.fill.spilled(begin);
    }

    /// All bytes that have arrived.
    pub fn all_chunks(&self) -> Vec<bytes::Bytes> {
        self.fill.all_chunks()
    }

    /// Tells all at once: the head, and that the body that has arrived is whole.
    pub fn finish(self, head: Head) {
        self.fill.end(Ok(()));
        self.fill.tell(head);
    }

    /// The body is whole: its readers need not wait until it is stored.
    pub fn arrived(&self) {
        self.fill.end(Ok(()));
    }

    /// Ends the body.
    pub fn end(self, end: Result<(), BodyError>) {
        if end.is_err() {
            // First: nobody may join what has failed.
            self.leave();
        }
        self.fill.end(end);
    }
}

impl Drop for Obligation {
    fn drop(&mut self) {
        self.leave();
        if self.fill.has_head() {
            // Only readers of a body that never ended see this.
            self.fill.end(Err(BodyError::Aborted("the fetch was given up".into())));
        } else {
            self.fill.tell(Head::Abandoned);
        }
    }
}
