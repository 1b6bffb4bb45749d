//! Parts of responses on their way into the cache: asking for what a stored part lacks, and putting parts together (RFC 9111, section 3.4).

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use http::{Response, StatusCode};
use selvedge_runtime::Body;

use super::lookup::Scope;
use crate::cache::chain::chain;
use crate::cache::entry::{Entry, StoredBody};
use crate::cache::part::{ContentRange, Missing, Part, same_representation, strong_validator, touch};
use crate::cache::status::CACHE_STATUS;
use crate::cache::tags::Tags;
use crate::cache::validate::freshen;

/// Makes a request one for what a stored part lacks, if the representation is still the same.
pub(super) fn ask_for_rest(request: &mut HeaderMap, stored: &Entry) {
    let Some(range) = missing(stored).and_then(Missing::range) else { return };
    request.insert(RANGE, range);
    if let Some(validator) = strong_validator(stored.fields()).and_then(|validator| HeaderValue::from_bytes(validator).ok()) {
        request.insert(IF_RANGE, validator);
    }
}

fn missing(stored: &Entry) -> Option<Missing> {
    stored.part()?.missing(stored.body.len())
}

/// What became of asking for the rest of a part.
pub(super) enum Completed {
    /// A response that stands for itself: the whole, put together or sent anew, or an error.
    Whole(Response<Body>),
    /// Something that cannot be put together with what is stored.
    Other,
}

/// Puts the rest to the stored part: the fields are the stored ones with those of the rest, the bytes those of both.
pub(super) fn completed(stored: &Entry, rest: Response<Body>) -> Completed {
    match rest.status() {
        StatusCode::PARTIAL_CONTENT => {}
        StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_MODIFIED => return Completed::Other,
        _ => return Completed::Whole(rest),
    }
    let (mut head, body) = rest.into_parts();
    let (Some(missing), Some(part)) = (missing(stored), stored.part()) else { return Completed::Other };
    let Some(range) = ContentRange::of(&head.headers).filter(|range| missing.is(*range, part.total)) else { return Completed::Other };
    let tags_are_there = Tags::are_said(&head.headers);
    // The stored fields have no tags any more: without new ones a purge would not find the whole.
    if !same_representation(stored.fields(), &head.headers) || !(tags_are_there || stored.purgeable.tags == Tags::default()) {
        return Completed::Other;
    }
    let mut fields = stored.fields().to_map(head.headers.len());
    // What a cache has said of the part says nothing of the new response.
    fields.remove(CACHE_STATUS);
    freshen(&mut fields, &head.headers);
    fields.remove(CONTENT_RANGE);
    fields.insert(CONTENT_LENGTH, HeaderValue::from(stored.body.len() + range.bytes()));
    head.status = StatusCode::OK;
    head.headers = fields;
    let here = stored.body.whole();
    let whole = match missing {
        Missing::End(_) => chain([here, body]),
        Missing::Start(_) => chain([body, here]),
    };
    Completed::Whole(Response::from_parts(head, whole))
}

/// A new part with the bytes of the stored one beside or around it, where both are of one representation.
pub(super) fn widened(new: Entry, part: Part, scope: &Scope) -> Entry {
    let Scope::Range(Some(stored)) = scope else { return new };
    // What is on disk is not brought back for this.
    let in_memory = stored.body.on_disk().is_none() && new.body.on_disk().is_none();
    let same = |old: &Part| in_memory && old.total == part.total && same_representation(stored.fields(), new.fields());
    let Some(old) = stored.part().filter(same) else {
        return new;
    };
    let (ours, theirs) = (part.bytes(new.body.len()), old.bytes(stored.body.len()));
    if !touch(&ours, &theirs) {
        return new;
    }
    let mut pieces = Vec::new();
    if theirs.start < ours.start {
        pieces.extend(stored.body.pieces(0..ours.start - theirs.start));
    }
    pieces.extend(new.body.pieces(0..new.body.len()));
    if theirs.end > ours.end {
        pieces.extend(stored.body.pieces(ours.end.max(theirs.start) - theirs.start..theirs.end - theirs.start));
    }
    let first = ours.start.min(theirs.start);
    new.with_body(StoredBody::new(&pieces)).partial(Part { first, total: part.total })
}
