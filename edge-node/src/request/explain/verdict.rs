//! What would happen to a request, in the words of `Cache-Status` and in a sentence: the decision is that of [`Question::decide`].

use http::Request;
use http::header::{ETAG, HeaderValue, LAST_MODIFIED};
use selvedge_origin::api::wire::{ExplainAction, ExplainVerdict};
use selvedge_runtime::Body;

use crate::cache::Found;
use crate::cache::entry::Entry;
use crate::cache::lines::Lines;
use crate::cache::peek::Sight;
use crate::cache::status::{Detail, Forward};
use crate::cache::time::Time;
use crate::request::RequestPath;
use crate::request::lookup::{self, Lookup, Question};
use crate::request::respond::{self, Say};
use crate::request::route::Aim;

/// A verdict that `Cache-Status` has no words for.
pub(super) fn plain(action: ExplainAction, because: &str) -> ExplainVerdict {
    ExplainVerdict { action, cache_status: None, because: because.to_owned() }
}

/// What would happen.
pub(super) fn of(path: &RequestPath, question: &Question, request: &Request<Body>, aim: &Aim, sight: &Sight, now: Time) -> ExplainVerdict {
    let settings = &aim.route.cache;
    let found = question.trusted(path, sight.found.clone());
    let lookup = match lookup::past(request) {
        Some(past) => Ok(past),
        None => question.decide(&found, request, settings, now),
    };
    let say = |action, say: Say, because: String| {
        let cache_status = say.value(path.name()).to_str().ok().map(str::to_owned);
        ExplainVerdict { action, cache_status, because }
    };
    let fresh = |entry: &Entry, left_ms: u64| {
        let hit = respond::fresh(left_ms);
        let hit = if sight.in_memory && entry.body.on_disk().is_none() { hit } else { hit.of_disk() };
        say(ExplainAction::Hit, hit, format!("fresh for {} more", seconds(left_ms)))
    };
    let because = |entry: &Entry, detail| respond::because(entry, detail, now);
    match lookup {
        Ok(Lookup::Fresh(entry, left_ms)) => fresh(&entry, left_ms),
        Ok(Lookup::Refreshing(entry, 0, detail)) => {
            say(ExplainAction::Hit, because(&entry, detail), "fresh, and refreshed in the background before it ends".to_owned())
        }
        Ok(Lookup::Refreshing(entry, stale_ms, detail)) => {
            let text = format!("stale for {}: it answers, and is refreshed in the background", seconds(stale_ms));
            say(ExplainAction::Stale, because(&entry, detail), text)
        }
        Ok(Lookup::Stale(entry)) => {
            say(ExplainAction::Stale, because(&entry, Detail::MaxStale), "stale, and the request takes that (max-stale)".to_owned())
        }
        Ok(Lookup::Bypass(why, detail)) => {
            say(ExplainAction::Bypass, Say::As(forward(path, why, Some(detail.name()))), passed(detail).to_owned())
        }
        Ok(Lookup::Fetch | Lookup::Recall) => match question.begin(found.clone(), request.headers(), settings, now) {
            Err((entry, left_ms)) => fresh(&entry, left_ms),
            Ok(begin) => {
                let validates = begin.stale.as_ref().is_some_and(|(entry, _)| has_validator(entry));
                let action = if validates { ExplainAction::Revalidate } else { ExplainAction::Forward };
                say(action, Say::As(forward(path, begin.why, None)), fetched(begin.why, &found, sight))
            }
        },
        Err(error) => plain(ExplainAction::Refuse, &error.to_string()),
    }
}

fn forward(path: &RequestPath, why: Forward, detail: Option<&str>) -> HeaderValue {
    path.name().forward(why, None, false, false, detail)
}

fn has_validator(entry: &Entry) -> bool {
    entry.fields().has(&ETAG) || entry.fields().has(&LAST_MODIFIED)
}

/// Why whoever answers is asked.
fn fetched(why: Forward, found: &Found, sight: &Sight) -> String {
    let purged = matches!((found, &sight.entry), (Found::Nothing(..), Some(_)));
    let text = match (why, found) {
        (Forward::UriMiss, _) if purged => "what was stored is purged, or its bytes are gone".to_owned(),
        (Forward::UriMiss, _) => "nothing is stored under the key".to_owned(),
        (Forward::VaryMiss, _) => "what is stored answered requests that differ in the fields that it varies on".to_owned(),
        (Forward::Stale, Found::Stale(_, u64::MAX, _)) => "what is stored must be confirmed first: a purge may have been missed".to_owned(),
        (Forward::Stale, Found::Stale(_, 0, _)) => "what is stored says no-cache: it is confirmed each time".to_owned(),
        (Forward::Stale, Found::Stale(_, stale_ms, _)) => {
            format!("what is stored has been stale for {}, and nothing allows to use it", seconds(*stale_ms))
        }
        (Forward::Stale, _) => "what is stored is stale".to_owned(),
        (Forward::Partial, _) => "what is stored is a part without what is asked for".to_owned(),
        (Forward::Request, _) => "what is stored is fresh, but the request wants something newer".to_owned(),
        (Forward::Bypass | Forward::Method, _) => "the request is not for the cache".to_owned(),
    };
    if sight.fetching { format!("{text}; a fetch of the key is on its way") } else { text }
}

/// Why a request goes past the cache.
const fn passed(detail: Detail) -> &'static str {
    match detail {
        Detail::Method => "its method has no part in the cache",
        Detail::RequestNoStore => "it says no-store, and the route follows that",
        Detail::Head => "nothing stored answers it, and only answers to GET are stored",
        Detail::RequestRange => "nothing stored answers its ranges, and they are not one range on no condition",
        Detail::Precondition => "nothing stored fulfils its If-Match or If-Unmodified-Since",
        other => other.name(),
    }
}

fn seconds(ms: u64) -> String {
    if ms < 10_000 { format!("{}.{} s", ms / 1000, ms % 1000 / 100) } else { format!("{} s", ms / 1000) }
}
