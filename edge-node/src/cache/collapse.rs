//! One fetch for each key and node: who fetches has an [`Obligation`], the others follow its [`Fill`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http::header::HeaderMap;
use parking_lot::Mutex;
use selvedge_runtime::{Body, BodyError};
use smallvec::SmallVec;

use super::Hint;
use super::entry::Entry;
use super::fill::{Fill, Head, Reader};
use super::ledger::Ledger;
use super::policy::Refusal;
use super::purge::Stamp;
use super::status::Detail;
use super::vary::Variant;
use crate::limits::{FILL_IDLE_TIMEOUT, FILL_READERS_MAX, FILLS_MAX};

/// All fetches that fill the cache now.
#[derive(Debug)]
pub(super) struct Fills {
    by_key: Mutex<ByKey>,
    bounds: Bounds,
    ledger: Arc<Ledger>,
}

/// What all fetches may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Keys at one time.
    pub(crate) keys_max: usize,
    /// Readers of one fetch.
    pub(crate) readers_max: usize,
    /// For how long readers of a fetch wait for one that is slower than they are.
    pub(crate) patience: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { keys_max: FILLS_MAX, readers_max: FILL_READERS_MAX, patience: FILL_IDLE_TIMEOUT }
    }
}

/// Several for one key where responses vary, or where their answers are not shared.
type ByKey = HashMap<Box<[u8]>, SmallVec<[Registered; 1]>>;

#[derive(Debug)]
struct Registered {
    /// What tells the variants of the key apart, as far as it was known when the fetch began.
    discriminator: Box<[u8]>,
    /// Others may follow it.
    open: bool,
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
}

impl Fills {
    /// Within these bounds.
    pub(super) fn new(bounds: Bounds, ledger: &Arc<Ledger>) -> Arc<Self> {
        Arc::new(Self { by_key: Mutex::default(), bounds, ledger: ledger.clone() })
    }

    /// Whether a fetch of this key is on its way.
    pub(super) fn runs(&self, key: &[u8]) -> bool {
        self.by_key.lock().contains_key(key)
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
        let mut by_key = self.by_key.lock();
        if company == Company::Open
            && let Some(registered) =
                by_key.get(key).and_then(|list| list.iter().find(|one| one.open && one.discriminator == discriminator && admits(&one.fill)))
        {
            return registered.fill.reader(false, self.bounds.readers_max).map_or(Duty::Refused(Detail::Waiters.name()), Duty::Follow);
        }
        if by_key.len() >= self.bounds.keys_max {
            return Duty::Refused(Detail::Fills.name());
        }
        let fill = Fill::new(stamp, self.ledger.share(0), self.bounds.patience);
        let Some(reader) = fill.reader(true, self.bounds.readers_max) else { return Duty::Refused(Detail::Waiters.name()) };
        let registered = Registered { discriminator, open: company == Company::Open, fill: fill.clone() };
        by_key.entry(key.into()).or_default().push(registered);
        Duty::Fetch(Obligation { fills: self.clone(), key: key.into(), fill }, reader)
    }

    /// What is being fetched for this key is not to be stored, and nobody else follows it.
    pub(super) fn discard(&self, key: &[u8]) {
        let gone = self.by_key.lock().remove(key);
        gone.into_iter().flatten().for_each(|registered| registered.fill.discard());
    }

    fn leave(&self, key: &[u8], fill: &Arc<Fill>) {
        let mut by_key = self.by_key.lock();
        if let Some(list) = by_key.get_mut(key) {
            list.retain(|registered| !Arc::ptr_eq(&registered.fill, fill));
            if list.is_empty() {
                by_key.remove(key);
            }
        }
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
        self.fills.leave(&self.key, &self.fill);
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

    /// It is stored: as this entry.
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
            self.fills.leave(&self.key, &self.fill);
        }
        self.fill.end(end);
    }
}

impl Drop for Obligation {
    fn drop(&mut self) {
        self.fills.leave(&self.key, &self.fill);
        if self.fill.has_head() {
            // Only readers of a body that never ended see this.
            self.fill.end(Err(BodyError::Aborted("the fetch was given up".into())));
        } else {
            self.fill.tell(Head::Abandoned);
        }
    }
}
