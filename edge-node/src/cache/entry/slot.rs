//! All that is stored under one key.

use std::sync::Arc;

use http::header::HeaderMap;
use smallvec::SmallVec;

use super::Entry;
use crate::cache::time::Time;
use crate::cache::vary::VARIANTS_MAX;

/// All that is stored under one key: the variants, newest first, or the mark that its responses are not for the cache.
#[derive(Debug, Clone, Default)]
pub struct Slot {
    /// Newest first, at most [`VARIANTS_MAX`].
    pub variants: SmallVec<[Arc<Entry>; 1]>,
    /// Until then nobody waits for another's fetch of this key: its answer was not for the cache ("hit for miss").
    pub uncollapsed_until: Option<Time>,
}

impl Slot {
    /// The responses that answer a request with these fields, newest first.
    pub fn select<'a>(&'a self, request: &'a HeaderMap) -> impl Iterator<Item = &'a Arc<Entry>> {
        self.variants.iter().filter(|entry| entry.variant.matches(request))
    }

    /// This slot with one more entry, which takes the place of those for the same requests.
    pub fn with(&self, entry: Arc<Entry>) -> Self {
        let mut variants: SmallVec<[Arc<Entry>; 1]> = SmallVec::new();
        variants.push(entry.clone());
        variants.extend(self.variants.iter().filter(|other| !other.variant.same(&entry.variant)).take(VARIANTS_MAX - 1).cloned());
        Self { variants, uncollapsed_until: None }
    }

    /// Those of its entries that go where this one comes, because there are too many variants.
    pub(in crate::cache) fn crowded_out(&self, by: &Entry) -> impl Iterator<Item = &Arc<Entry>> {
        self.variants.iter().filter(|other| !other.variant.same(&by.variant)).skip(VARIANTS_MAX - 1)
    }

    /// This slot with one more entry, older than those that it has; the same where one of them is for the same requests.
    pub fn with_older(&self, entry: Arc<Entry>) -> Self {
        let mut variants = self.variants.clone();
        if variants.len() < VARIANTS_MAX && !variants.iter().any(|other| other.variant.same(&entry.variant)) {
            variants.push(entry);
        }
        Self { variants, uncollapsed_until: self.uncollapsed_until }
    }

    /// This slot without the entry for the same requests as this one.
    pub fn without(&self, entry: &Entry) -> Self {
        let variants = self.variants.iter().filter(|other| !other.variant.same(&entry.variant)).cloned().collect();
        Self { variants, uncollapsed_until: self.uncollapsed_until }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.variants.is_empty() && self.uncollapsed_until.is_none()
    }

    /// Bytes that it takes.
    pub fn weight(&self) -> usize {
        self.variants.iter().map(|entry| entry.weight()).fold(200, usize::saturating_add)
    }
}
