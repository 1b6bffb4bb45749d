//! One stored response, ready to be sent: its fields need only `Age` and `Cache-Status`, its bytes are shared.

use std::sync::Arc;

use http::header::{AGE, CONTENT_LENGTH, CONTENT_RANGE, DATE, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, response};
use selvedge_origin::registry::Coding;

use super::control::{self, Control};
use super::date::{format_date, parse_date};
use super::freshness::{Freshness, Standing};
use super::lines::Lines;
use super::part::Part;
use super::policy::Storable;
use super::purge::{Purgeable, Stamp, Verdict};
use super::status::CACHE_STATUS;
use super::tags::Tags;
use super::time::Time;
use super::vary::Variant;
use crate::metrics::{Removal, RouteCounters};

mod body;
mod encodings;
mod fields;
mod names;
mod slot;

pub use body::StoredBody;
pub use encodings::Encoding;
pub use fields::StoredFields;
pub use slot::Slot;

/// What an entry weighs beside what its parts say of themselves: its own structure, what shares its bytes, and the allocator's part of both. (Measured with the store's own
/// by `tests/million.rs`.)
const ENTRY_OVERHEAD_BYTES: usize = 330;
/// Fields that a hit adds: `Age`, `Cache-Status`, and `Content-Length` where the upstream did not say it.
pub(super) const FIELDS_OF_A_HIT: usize = 3;

/// A stored response. Never changed: freshening makes a new one that shares the bytes.
#[derive(Debug)]
pub struct Entry {
    /// Its status.
    pub status: StatusCode,
    /// Its fields: those of a hop are gone, and so are `Age` and what a hit says in `Cache-Status`.
    fields: StoredFields,
    /// A cache nearer to the upstream has written its own `Cache-Status`.
    foreign_status: bool,
    /// Its bytes.
    pub body: StoredBody,
    /// Where they lie in the whole, where they are a part of it.
    part: Option<Box<Part>>,
    /// Its directives.
    pub control: Control,
    /// How long it is fresh.
    pub freshness: Freshness,
    /// Which requests it answers.
    pub variant: Variant,
    /// Its tags, and which purges it has survived.
    pub purgeable: Purgeable,
    /// What its bytes are in other codings: made when a client first wanted them, and gone with it.
    encodings: Box<[(Coding, Encoding)]>,
    /// Its route's, where it has one.
    pub(super) counters: Option<Arc<RouteCounters>>,
}

impl Entry {
    /// Of a response whose hop-by-hop fields are gone, and whose fetch began at `stamp`.
    pub fn new(
        mut head: response::Parts,
        body: StoredBody,
        control: Control,
        freshness: Freshness,
        variant: Variant,
        stamp: Stamp,
    ) -> Self {
        let purgeable = Purgeable::new(stamp, Tags::of(&head.headers));
        let foreign_status = head.headers.contains_key(CACHE_STATUS);
        let fields = prepare(&mut head.headers, foreign_status, freshness.received);
        let (status, part, encodings, counters) = (head.status, None, Box::default(), None);
        Self { status, fields, foreign_status, body, part, control, freshness, variant, purgeable, encodings, counters }
    }

    /// Of one that may be stored: without what is for whoever ordered it only (RFC 9111, sections 5.2.2.4 and 5.2.2.7).
    pub fn of(head: response::Parts, body: StoredBody, storable: Storable, variant: Variant, stamp: Stamp) -> Self {
        let withheld = control::withheld(&head.headers);
        Self::new(head, body, storable.control, storable.freshness, variant, stamp).without(&withheld)
    }

    /// The same as a part of a whole, or as the whole where it is all of it.
    pub fn partial(mut self, part: Part) -> Self {
        let mut headers = self.fields.to_map(1);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        self.fields = StoredFields::new(&headers, &[CONTENT_RANGE]);
        let whole = part.is_whole(self.body.len());
        self.status = if whole { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
        self.lies((!whole).then_some(part))
    }

    /// The same as a part, where it is one; its fields say so already.
    pub(super) fn lies(mut self, part: Option<Part>) -> Self {
        self.part = part.map(Box::new);
        self
    }

    /// Where its bytes lie in the whole, where they are a part of it.
    pub fn part(&self) -> Option<Part> {
        self.part.as_deref().copied()
    }

    /// The same without these fields: `private` and `no-cache` may keep some from others.
    pub fn without(mut self, fields: &[HeaderName]) -> Self {
        if fields.iter().any(|name| self.fields.has(name)) {
            self.fields = StoredFields::new(&self.fields.to_map(0), fields);
        }
        self
    }

    /// It is of a route: what becomes of it is counted there.
    pub fn count_by(&mut self, route: &Arc<RouteCounters>) {
        self.counters = Some(route.clone());
    }

    /// It is in memory no more.
    pub(super) fn removed(&self, why: Removal) {
        self.counters.iter().for_each(|route| route.removed(why));
    }

    /// The same for other requests.
    pub fn for_requests(self, variant: Variant) -> Self {
        Self { variant, ..self }
    }

    /// The same with other bytes.
    pub fn with_body(mut self, body: StoredBody) -> Self {
        self.body = body;
        self
    }

    /// Whether it answers a request for this range, or for all.
    pub fn answers(&self, range: Option<&HeaderValue>) -> bool {
        self.part.as_deref().is_none_or(|part| part.answers(range, self.body.len()).is_some())
    }

    /// Its fields, as stored.
    pub fn fields(&self) -> &StoredFields {
        &self.fields
    }

    /// Its fields for a response that is sent now.
    pub fn fields_now(&self, now: Time, cache_status: HeaderValue) -> HeaderMap {
        let mut headers = self.fields.to_map(FIELDS_OF_A_HIT);
        headers.insert(AGE, HeaderValue::from(self.freshness.age_ms(now) / 1000));
        // What a cache nearer to the upstream has said stays.
        headers.append(CACHE_STATUS, cache_status);
        headers
    }

    /// When its upstream made it: of several that answer a request, the newest by this is used (RFC 9111, section 4.1).
    pub fn date(&self) -> Option<Time> {
        self.fields.first(&DATE).and_then(parse_date)
    }

    /// Whether it is fresh: by its age, and by the purges that it was judged by.
    pub fn standing(&self, now: Time) -> Standing {
        match (self.purgeable.standing(), self.freshness.standing(now)) {
            (Verdict::Valid, standing) => standing,
            (Verdict::Soft(since), Standing::Fresh(_)) => Standing::Stale(now.ms_since(since)),
            (Verdict::Soft(since), Standing::Stale(ms)) => Standing::Stale(ms.max(now.ms_since(since))),
            // Stale beyond what any rule allows: it is asked for with its validators, and used if the upstream says so.
            (Verdict::Unproven | Verdict::Gone, _) => Standing::Stale(u64::MAX),
        }
    }

    /// The same bytes with other fields: after a `304` to a fetch that began at `stamp`.
    pub fn freshened(&self, mut headers: HeaderMap, control: Control, freshness: Freshness, stamp: Stamp) -> Self {
        // A 304 need not repeat the tags; they are not among the stored fields.
        let tags = if Tags::are_said(&headers) { Tags::of(&headers) } else { self.purgeable.tags.clone() };
        let purgeable = Purgeable::new(stamp, tags);
        let fields = prepare(&mut headers, self.foreign_status, freshness.received);
        Self { control, freshness, purgeable, ..self.like(fields, self.body.clone()) }.with_encodings_of(self)
    }

    /// Whether a cache nearer to the upstream has written its own `Cache-Status`.
    pub(super) fn has_foreign_status(&self) -> bool {
        self.foreign_status
    }

    /// Bytes that it takes, our own included.
    pub fn weight(&self) -> usize {
        let in_memory = if self.body.on_disk().is_some() { 0 } else { self.body.len() };
        let place = self.part.as_ref().map_or(0, |_| size_of::<Part>() + 16);
        let own = usize::try_from(in_memory)
            .unwrap_or(usize::MAX)
            .saturating_add(self.fields.weight() + self.variant.weight() + self.purgeable.tags.weight() + place + ENTRY_OVERHEAD_BYTES);
        own.saturating_add(self.encodings_weight())
    }
}

/// Puts `Date` where there is none (RFC 9110, section 6.6.1: whoever stores adds it), and takes off the tags, which are for us, and what a hit says anew.
fn prepare(headers: &mut HeaderMap, foreign_status: bool, received: Time) -> StoredFields {
    Tags::strip(headers);
    if !headers.contains_key(DATE) {
        headers.insert(DATE, format_date(received));
    }
    let said_anew: &[HeaderName] = if foreign_status { &[AGE] } else { &[AGE, CACHE_STATUS] };
    StoredFields::new(headers, said_anew)
}
