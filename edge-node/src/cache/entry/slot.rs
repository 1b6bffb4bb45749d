//! All that is stored under one key.

use std::sync::Arc;

use bytes::Bytes;
use http::header::HeaderMap;
use smallvec::SmallVec;

use super::Entry;
use crate::cache::time::Time;
use crate::cache::vary::VARIANTS_MAX;

/// What more than one variant, or the mark, takes beside the variants.
const SEVERAL_BYTES: usize = 200;

/// What a block takes beside its bytes: the checksums before it, which were read with it, and what shares both.
const BLOCK_OWN_BYTES: usize = 400;

/// All that is stored under one key: the variants, newest first, or the mark that its responses are not for the cache; or a block of a body that is on disk. Small, and
/// quickly cloned, for the usual one.
#[derive(Debug, Clone, Default)]
pub struct Slot(Kept);

#[derive(Debug, Clone, Default)]
enum Kept {
    #[default]
    Nothing,
    One(Arc<Entry>),
    Else(Arc<Several>),
    Block(Arc<Bytes>),
}

#[derive(Debug)]
struct Several {
    variants: Variants,
    uncollapsed_until: Option<Time>,
}

type Variants = SmallVec<[Arc<Entry>; 1]>;

impl Slot {
    /// Of variants, newest first, at most [`VARIANTS_MAX`].
    pub fn new(variants: impl IntoIterator<Item = Arc<Entry>>, uncollapsed_until: Option<Time>) -> Self {
        let mut variants: Variants = variants.into_iter().collect();
        if uncollapsed_until.is_none() && variants.len() < 2 {
            return Self(variants.pop().map_or(Kept::Nothing, Kept::One));
        }
        variants.shrink_to_fit();
        Self(Kept::Else(Arc::new(Several { variants, uncollapsed_until })))
    }

    /// Of bytes that belong to a body on disk.
    pub(in crate::cache) fn of_block(bytes: Bytes) -> Self {
        Self(Kept::Block(Arc::new(bytes)))
    }

    /// The bytes, where it is a block of a body.
    pub(in crate::cache) fn block(&self) -> Option<&Bytes> {
        if let Kept::Block(bytes) = &self.0 { Some(bytes) } else { None }
    }

    /// The variants, newest first.
    pub fn variants(&self) -> &[Arc<Entry>] {
        match &self.0 {
            Kept::Nothing | Kept::Block(_) => &[],
            Kept::One(entry) => std::slice::from_ref(entry),
            Kept::Else(several) => &several.variants,
        }
    }

    /// Until then nobody waits for another's fetch of this key: its answer was not for the cache ("hit for miss").
    pub fn uncollapsed_until(&self) -> Option<Time> {
        if let Kept::Else(several) = &self.0 { several.uncollapsed_until } else { None }
    }

    /// The same key's answers are not for the cache, until then.
    pub fn uncollapsed(&self, until: Time) -> Self {
        Self::new(self.variants().iter().cloned(), Some(until))
    }

    /// The responses that answer a request with these fields, newest first.
    pub fn select<'a>(&'a self, request: &'a HeaderMap) -> impl Iterator<Item = &'a Arc<Entry>> {
        self.variants().iter().filter(|entry| entry.variant.matches(request))
    }

    /// This slot with one more entry, which takes the place of those for the same requests.
    pub fn with(&self, entry: Arc<Entry>) -> Self {
        let others = self.others(&entry).take(VARIANTS_MAX - 1).cloned();
        Self::new(std::iter::once(entry.clone()).chain(others), None)
    }

    /// This slot without its oldest entries, as many as it takes until it weighs no more than this; the newest stays.
    pub(in crate::cache) fn within(self, bytes_max: u64) -> Self {
        if self.variants().len() < 2 || self.weight() as u64 <= bytes_max {
            return self;
        }
        let mut bytes = SEVERAL_BYTES as u64;
        let fitting = self.variants().iter().take_while(|entry| {
            bytes = bytes.saturating_add(entry.weight() as u64);
            bytes <= bytes_max
        });
        let count = fitting.count().max(1);
        Self::new(self.variants().iter().take(count).cloned(), self.uncollapsed_until())
    }

    /// Those of its entries that went where this one came, because the variants were too many, or too heavy together.
    pub(in crate::cache) fn crowded_out<'a>(&'a self, by: &'a Entry, left: &'a Self) -> impl Iterator<Item = &'a Arc<Entry>> {
        self.others(by).filter(|other| !left.variants().iter().any(|entry| Arc::ptr_eq(entry, other)))
    }

    /// This slot with one more entry, older than those that it has; the same where one of them is for the same requests.
    pub fn with_older(&self, entry: Arc<Entry>) -> Self {
        let is_welcome = self.variants().len() < VARIANTS_MAX && !self.variants().iter().any(|other| other.variant.same(&entry.variant));
        Self::new(self.variants().iter().cloned().chain(is_welcome.then_some(entry)), self.uncollapsed_until())
    }

    /// This slot without the entry for the same requests as this one.
    pub fn without(&self, entry: &Entry) -> Self {
        Self::new(self.others(entry).cloned(), self.uncollapsed_until())
    }

    /// Its entries but the one for the same requests as this one.
    fn others<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = &'a Arc<Entry>> {
        self.variants().iter().filter(|other| !other.variant.same(&entry.variant))
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Kept::Nothing)
    }

    /// Bytes that it takes.
    pub fn weight(&self) -> usize {
        let own = match &self.0 {
            Kept::Nothing | Kept::One(_) => 0,
            Kept::Else(_) => SEVERAL_BYTES,
            Kept::Block(bytes) => bytes.len() + BLOCK_OWN_BYTES,
        };
        self.variants().iter().map(|entry| entry.weight()).fold(own, usize::saturating_add)
    }
}
