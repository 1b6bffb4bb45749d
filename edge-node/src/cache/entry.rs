//! One stored response, ready to be sent: its fields need only `Age` and `Cache-Status`, its bytes are shared.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{AGE, CONTENT_LENGTH, CONTENT_RANGE, DATE, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use selvedge_origin::registry::Coding;
use selvedge_runtime::{Body, BodyError};
use smallvec::SmallVec;

use super::control::{self, Control};
use super::date::{format_date, parse_date};
use super::disk::DiskBody;
use super::freshness::{Freshness, Standing};
use super::part::Part;
use super::policy::Storable;
use super::purge::{Purgeable, Stamp, Verdict};
use super::ready::Written;
use super::status::CACHE_STATUS;
use super::tags::Tags;
use super::time::Time;
use super::vary::Variant;
use crate::metrics::{Removal, RouteCounters};

mod encodings;

pub use encodings::Encoding;

/// Bodies up to this many bytes are kept in one piece: they are sent with one write and need no list.
const ONE_PIECE_BYTES_MAX: u64 = 256 << 10;
/// Larger bodies are kept in pieces of about this size, whatever pieces they came in.
const PIECE_BYTES: usize = 64 << 10;
/// What an entry weighs beyond its bytes: structures and the store's own.
const ENTRY_OVERHEAD_BYTES: usize = 600;
/// What a place for a field weighs, beside the field's bytes; a map has places for more than it holds. (Measured with these by `tests/million.rs`.)
const FIELD_PLACE_BYTES: usize = 110;

/// A stored response. Never changed: freshening makes a new one that shares the bytes.
#[derive(Debug)]
pub struct Entry {
    /// Its status.
    pub status: StatusCode,
    /// Its fields: those of a hop are gone, and `Age` and `Cache-Status` hold places that a hit fills without moving the others.
    headers: HeaderMap,
    /// A cache nearer to the upstream has written its own `Cache-Status`.
    foreign_status: bool,
    /// Its bytes.
    pub body: StoredBody,
    /// Where they lie in the whole, where they are a part of it.
    pub part: Option<Part>,
    /// Its directives.
    pub control: Control,
    /// How long it is fresh.
    pub freshness: Freshness,
    /// Which requests it answers.
    pub variant: Variant,
    /// Its tags, and which purges it has survived.
    pub purgeable: Purgeable,
    /// What its bytes are in other codings: made when a client first wanted them, and gone with it.
    encodings: SmallVec<[(Coding, Encoding); 1]>,
    /// Its fields as HTTP/1.1 sends them.
    written: Written,
    /// Its route's, where it has one.
    counters: Option<Arc<RouteCounters>>,
}

/// The bytes of a response.
#[derive(Debug, Clone)]
pub struct StoredBody {
    pieces: Pieces,
    len: u64,
}

#[derive(Debug, Clone)]
enum Pieces {
    One(Bytes),
    Many(Arc<[Bytes]>),
    Disk(DiskBody),
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
        prepare(&mut head.headers, foreign_status, freshness.received);
        let encodings = SmallVec::new();
        let part = None;
        let (status, headers, written) = (head.status, head.headers, Written::default());
        Self { status, headers, foreign_status, body, part, control, freshness, variant, purgeable, encodings, written, counters: None }
    }

    /// Of one that may be stored: without what is for whoever ordered it only (RFC 9111, sections 5.2.2.4 and 5.2.2.7).
    pub fn of(head: response::Parts, body: StoredBody, storable: Storable, variant: Variant, stamp: Stamp) -> Self {
        let withheld = control::withheld(&head.headers);
        Self::new(head, body, storable.control, storable.freshness, variant, stamp).without(&withheld)
    }

    /// The same as a part of a whole, or as the whole where it is all of it.
    pub fn partial(mut self, part: Part) -> Self {
        self.headers.remove(CONTENT_RANGE);
        self.headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        let whole = part.is_whole(self.body.len());
        self.status = if whole { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
        self.part = (!whole).then_some(part);
        self
    }

    /// The same without these fields: `private` and `no-cache` may keep some from others.
    pub fn without(mut self, fields: &[HeaderName]) -> Self {
        for name in fields {
            self.headers.remove(name);
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

    /// The same with other bytes.
    pub fn with_body(mut self, body: StoredBody) -> Self {
        self.body = body;
        self
    }

    /// Whether it answers a request for this range, or for all.
    pub fn answers(&self, range: Option<&HeaderValue>) -> bool {
        self.part.is_none_or(|part| part.answers(range, self.body.len()).is_some())
    }

    /// Its fields, as stored.
    pub fn fields(&self) -> &HeaderMap {
        &self.headers
    }

    /// Its fields without the places that a hit fills.
    pub(crate) fn own_fields(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.headers.iter().filter(|(name, _)| *name != AGE && (self.foreign_status || *name != CACHE_STATUS))
    }

    /// Its fields for a response that is sent now.
    pub fn fields_now(&self, now: Time, cache_status: HeaderValue) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.insert(AGE, HeaderValue::from(self.freshness.age_ms(now) / 1000));
        if self.foreign_status {
            headers.append(CACHE_STATUS, cache_status);
        } else {
            headers.insert(CACHE_STATUS, cache_status);
        }
        headers
    }

    /// When its upstream made it: of several that answer a request, the newest by this is used (RFC 9111, section 4.1).
    pub fn date(&self) -> Option<Time> {
        self.headers.get(DATE).and_then(parse_date)
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
        prepare(&mut headers, self.foreign_status, freshness.received);
        Self { control, freshness, purgeable, ..self.like(headers, self.body.clone()) }.with_encodings_of(self)
    }

    /// Whether a cache nearer to the upstream has written its own `Cache-Status`.
    pub(super) fn has_foreign_status(&self) -> bool {
        self.foreign_status
    }

    /// Its fields as HTTP/1.1 sends them. (Whatever changes the fields does so before they are first sent.)
    pub(super) fn written(&self) -> &Written {
        &self.written
    }

    /// Bytes that it takes, our own included.
    pub fn weight(&self) -> usize {
        // Each is there once more when it was sent: see `Written`.
        let fields: usize = self.headers.iter().map(|(name, value)| 2 * (name.as_str().len() + value.len()) + 4).sum();
        let fields = fields + self.headers.capacity() * FIELD_PLACE_BYTES;
        let in_memory = if self.body.on_disk().is_some() { 0 } else { self.body.len };
        let own = usize::try_from(in_memory)
            .unwrap_or(usize::MAX)
            .saturating_add(fields + self.variant.weight() + self.purgeable.tags.weight() + ENTRY_OVERHEAD_BYTES);
        own.saturating_add(self.encodings_weight())
    }
}

/// The same fields, held by one block of memory: those that came from a connection are parts of its buffer, which is many times as large, and would stay as long as
/// any of them.
fn compact(headers: &HeaderMap) -> HeaderMap {
    let bytes = headers.values().map(HeaderValue::len).sum();
    let mut block = BytesMut::with_capacity(bytes);
    headers.values().for_each(|value| block.extend_from_slice(value.as_bytes()));
    let mut block = block.freeze();
    let mut compact = HeaderMap::with_capacity(headers.len() + 2);
    for (name, value) in headers {
        // What was a value is one.
        if let Ok(mut copy) = HeaderValue::from_maybe_shared(block.split_to(value.len())) {
            copy.set_sensitive(value.is_sensitive());
            compact.append(name.clone(), copy);
        }
    }
    compact
}

/// Puts `Date` where there is none (RFC 9110, section 6.6.1: whoever stores adds it), takes off the tags, which are for us, and holds the places that a hit fills.
fn prepare(headers: &mut HeaderMap, foreign_status: bool, received: Time) {
    Tags::strip(headers);
    if !headers.contains_key(DATE) {
        headers.insert(DATE, format_date(received));
    }
    headers.insert(AGE, HeaderValue::from_static("0"));
    if !foreign_status {
        headers.insert(CACHE_STATUS, HeaderValue::from_static("place"));
    }
    *headers = compact(headers);
}

impl StoredBody {
    /// Of the pieces in which it came. They are copied together, so that none pins the larger buffer that it was read into.
    pub fn new(came: &[Bytes]) -> Self {
        let len: u64 = came.iter().map(|piece| piece.len() as u64).sum();
        if let [only] = came {
            return Self { pieces: Pieces::One(only.clone()), len };
        }
        let whole = if len <= ONE_PIECE_BYTES_MAX { len as usize } else { PIECE_BYTES };
        let mut pieces = Vec::new();
        let mut piece = BytesMut::new();
        for part in came {
            // Large parts are taken as they are.
            if part.len() >= whole && piece.is_empty() {
                pieces.push(part.clone());
                continue;
            }
            piece.reserve(part.len().max(whole.saturating_sub(piece.len())));
            piece.extend_from_slice(part);
            if piece.len() >= whole {
                pieces.push(piece.split().freeze());
            }
        }
        if !piece.is_empty() {
            pieces.push(piece.freeze());
        }
        match pieces.as_slice() {
            [] => Self { pieces: Pieces::One(Bytes::new()), len },
            [only] => Self { pieces: Pieces::One(only.clone()), len },
            _ => Self { pieces: Pieces::Many(pieces.into()), len },
        }
    }

    /// Of bytes that are on disk, in slices.
    pub(crate) fn sliced(body: DiskBody) -> Self {
        let len = body.len();
        Self { pieces: Pieces::Disk(body), len }
    }

    /// The body on disk, where it is not in memory.
    pub(crate) fn on_disk(&self) -> Option<&DiskBody> {
        match &self.pieces {
            Pieces::Disk(body) => Some(body),
            Pieces::One(_) | Pieces::Many(_) => None,
        }
    }

    /// The bytes that are in memory.
    pub(super) fn in_memory(&self) -> &[Bytes] {
        match &self.pieces {
            Pieces::One(bytes) => std::slice::from_ref(bytes),
            Pieces::Many(pieces) => pieces,
            Pieces::Disk(_) => &[],
        }
    }

    /// Whether these are the very same bytes in memory, not just equal ones.
    pub fn is(&self, other: &Self) -> bool {
        match (&self.pieces, &other.pieces) {
            (Pieces::One(ours), Pieces::One(theirs)) => ours.as_ptr() == theirs.as_ptr() && ours.len() == theirs.len(),
            (Pieces::Many(ours), Pieces::Many(theirs)) => Arc::ptr_eq(ours, theirs),
            (Pieces::Disk(ours), Pieces::Disk(theirs)) => ours.is(theirs),
            _ => false,
        }
    }

    /// The pieces of a part of it; what lies beyond its end is left out.
    pub fn pieces(&self, range: Range<u64>) -> Vec<Bytes> {
        let mut at = 0;
        // Whoever puts pieces together has them in memory.
        let cut = self.in_memory().iter().filter_map(|piece| {
            let (start, end) = (at, at + piece.len() as u64);
            at = end;
            let (from, to) = (range.start.max(start), range.end.min(end));
            (from < to).then(|| piece.slice((from - start) as usize..(to - start) as usize))
        });
        cut.collect()
    }

    /// Its length, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes, where they are in memory in one piece.
    pub(super) fn one_piece(&self) -> Option<&Bytes> {
        match &self.pieces {
            Pieces::One(bytes) => Some(bytes),
            Pieces::Many(_) | Pieces::Disk(_) => None,
        }
    }

    /// All of it.
    pub fn whole(&self) -> Body {
        match &self.pieces {
            Pieces::One(bytes) => Body::full(bytes.clone()),
            Pieces::Many(pieces) => Body::stream(PiecesBody { pieces: pieces.clone(), at: 0, skip: 0, left: self.len }),
            Pieces::Disk(body) => body.part(0..self.len),
        }
    }

    /// A part of it; what lies beyond its end is left out.
    pub fn part(&self, range: Range<u64>) -> Body {
        let end = range.end.min(self.len);
        let start = range.start.min(end);
        match &self.pieces {
            Pieces::Disk(body) => body.part(start..end),
            Pieces::One(bytes) => Body::full(bytes.slice(start as usize..end as usize)),
            Pieces::Many(pieces) => {
                let (mut at, mut skip) = (0, start);
                while let Some(piece) = pieces.get(at).filter(|piece| piece.len() as u64 <= skip) {
                    skip -= piece.len() as u64;
                    at += 1;
                }
                Body::stream(PiecesBody { pieces: pieces.clone(), at, skip: skip as usize, left: end - start })
            }
        }
    }
}

impl Default for StoredBody {
    fn default() -> Self {
        Self { pieces: Pieces::One(Bytes::new()), len: 0 }
    }
}

/// Sends pieces one by one.
struct PiecesBody {
    pieces: Arc<[Bytes]>,
    at: usize,
    skip: usize,
    left: u64,
}

impl HttpBody for PiecesBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let skip = std::mem::take(&mut self.skip);
        let Some(piece) = self.pieces.get(self.at).map(|piece| piece.slice(skip.min(piece.len())..)) else { return Poll::Ready(None) };
        let piece = piece.slice(..piece.len().min(usize::try_from(self.left).unwrap_or(usize::MAX)));
        self.at += 1;
        self.left -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// All that is stored under one key: the variants, newest first, or the mark that its responses are not for the cache.
#[derive(Debug, Clone, Default)]
pub struct Slot {
    /// Newest first, at most [`super::vary::VARIANTS_MAX`].
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
        variants
            .extend(self.variants.iter().filter(|other| !other.variant.same(&entry.variant)).take(super::vary::VARIANTS_MAX - 1).cloned());
        Self { variants, uncollapsed_until: None }
    }

    /// Those of its entries that go where this one comes, because there are too many variants.
    pub(super) fn crowded_out(&self, by: &Entry) -> impl Iterator<Item = &Arc<Entry>> {
        self.variants.iter().filter(|other| !other.variant.same(&by.variant)).skip(super::vary::VARIANTS_MAX - 1)
    }

    /// This slot with one more entry, older than those that it has; the same where one of them is for the same requests.
    pub fn with_older(&self, entry: Arc<Entry>) -> Self {
        let mut variants = self.variants.clone();
        if variants.len() < super::vary::VARIANTS_MAX && !variants.iter().any(|other| other.variant.same(&entry.variant)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(body: Body) -> Vec<u8> {
        futures::executor::block_on(body.collect(u64::MAX)).expect("a stored body").to_vec()
    }

    #[test]
    fn a_body_is_the_bytes_that_came_in_whatever_pieces() {
        let all: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        for size in [1_000, 65_536, 70_000, 300_000] {
            let came: Vec<Bytes> = all.chunks(size).map(Bytes::copy_from_slice).collect();
            let body = StoredBody::new(&came);
            assert_eq!(body.len(), 300_000);
            assert_eq!(bytes(body.whole()), all, "{size}");
            for range in [0..1, 65_535..65_537, 299_999..300_000, 0..300_000, 100..100, 299_000..400_000] {
                let expected = &all[range.start as usize..(range.end as usize).min(all.len())];
                assert_eq!(bytes(body.part(range.clone())), expected, "{size} {range:?}");
                assert_eq!(body.pieces(range.clone()).concat(), expected, "{size} {range:?}");
            }
        }
        assert!(StoredBody::new(&[]).is_empty());
        assert_eq!(bytes(StoredBody::new(&[]).whole()), b"");
    }

    #[test]
    fn small_bodies_are_one_piece() {
        let came: Vec<Bytes> = (0..100).map(|_| Bytes::from_static(b"0123456789")).collect();
        assert!(StoredBody::new(&came).whole().as_whole().is_some());
    }
}
