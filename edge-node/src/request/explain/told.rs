//! What is stored, as it is shown: cut to bounds, and without what is secret. Pure.

use http::header::{AUTHORIZATION, COOKIE, HeaderName, PROXY_AUTHORIZATION, SET_COOKIE};
use selvedge_origin::api::wire::{ExplainVerdict, FieldTold, LastRefusal, Layer, PurgeTold, RouteTold, Stored, TagsTold, UpstreamServer};
use selvedge_origin::registry::CacheSettings;

use crate::cache::control::CDN_CACHE_CONTROL;
use crate::cache::entry::Entry;
use crate::cache::freshness::Source;
use crate::cache::key::CacheKey;
use crate::cache::lines::Lines;
use crate::cache::peek::Sight;
use crate::cache::policy::{self, Refusal};
use crate::cache::purge::Verdict;
use crate::cache::tags::Tags;
use crate::cache::time::Time;
use crate::limits::{
    EXPLAINED_FIELDS_MAX, EXPLAINED_KEY_BYTES_MAX, EXPLAINED_TAG_BYTES_MAX, EXPLAINED_TAGS_MAX, EXPLAINED_VALUE_BYTES_MAX,
};
use crate::request::route::{Aim, Answerer};
use crate::upstream::ServerReading;

/// Bytes of a value that a response varies on.
const VARIANT_VALUE_BYTES_MAX: usize = EXPLAINED_VALUE_BYTES_MAX / 4;

/// Bytes of an upstream's name or a server's address.
const SERVER_TEXT_BYTES_MAX: usize = 200;

/// A route, and whoever answers it.
pub(super) fn route(aim: &Aim) -> RouteTold {
    let (worker, version) = match &aim.answerer {
        Answerer::Worker(worker, version) => (Some(worker.name.to_string()), Some(version.source.version.to_string())),
        Answerer::Upstream(_) | Answerer::Outside => (None, None),
    };
    let upstream = aim.route.upstream.as_ref().map(|group| cut(group.title().as_bytes(), SERVER_TEXT_BYTES_MAX));
    RouteTold { pattern: aim.route.pattern.to_string(), worker, version, upstream }
}

/// A place of the cache about which nothing else is known.
pub(super) fn layer(place: &str, key: &CacheKey, verdict: ExplainVerdict) -> Layer {
    let spelled: Vec<u8> = key.as_bytes().iter().map(|b| if *b == b'\n' { b' ' } else { *b }).collect();
    Layer {
        place: place.to_owned(),
        key: cut(&spelled, EXPLAINED_KEY_BYTES_MAX),
        verdict,
        stored: None,
        others: Vec::new(),
        uncollapsed: false,
        refusal: None,
    }
}

/// A stored response, with what purges say of it and the latest of them.
pub(super) fn stored(entry: &Entry, sight: &Sight, (verdict, latest): (Verdict, u64), settings: &CacheSettings, now: Time) -> Stored {
    let tiers = [("memory", sight.in_memory), ("disk", sight.on_disk)];
    Stored {
        tiers: tiers.into_iter().filter(|(_, there)| *there).map(|(tier, _)| tier.to_owned()).collect(),
        status: entry.status.as_u16(),
        body_bytes: entry.body.len(),
        range: entry.part().map(|part| {
            let last = part.first.saturating_add(entry.body.len()).saturating_sub(1);
            format!("{}-{last}/{}", part.first, part.total.map_or("*".to_owned(), |total| total.to_string()))
        }),
        age_ms: entry.freshness.age_ms(now),
        lifetime_ms: entry.freshness.lifetime_ms,
        lifetime_from: lifetime_from(entry, settings),
        variant: variant(entry),
        slices: None,
        tags: tags(&entry.purgeable.tags),
        purge: purge(entry, verdict, latest, now),
        headers: entry.fields().iter().take(EXPLAINED_FIELDS_MAX).map(|(name, value)| field(name, value)).collect(),
        headers_more: entry.fields().len().saturating_sub(EXPLAINED_FIELDS_MAX),
    }
}

/// What says how long it is fresh, by the rule that decided when it was stored; the route's settings are those of now.
fn lifetime_from(entry: &Entry, settings: &CacheSettings) -> String {
    let control = &entry.control;
    let Some((_, source)) = policy::lifetime(entry.status, &entry.fields().to_map(0), control, settings, entry.freshness.received) else {
        return "settings that the route had".to_owned();
    };
    match source {
        Source::SMaxage | Source::MaxAge | Source::NoCache if control.targeted => {
            let field = if entry.fields().has(&CDN_CACHE_CONTROL) { "CDN-Cache-Control" } else { "Surrogate-Control" };
            format!("{} of {field}", source.name())
        }
        source => source.name().to_owned(),
    }
}

/// What the request that a response answered had in the fields that it varies on.
pub(super) fn variant(entry: &Entry) -> Vec<FieldTold> {
    let names = entry.variant.names().into_iter().flat_map(|names| names.iter());
    let told = |(name, value): (&HeaderName, &Option<Box<[u8]>>)| {
        let value = value.as_deref().map(|value| if is_secret(name) { hidden(value) } else { cut(value, VARIANT_VALUE_BYTES_MAX) });
        FieldTold { name: name.to_string(), value }
    };
    names.zip(entry.variant.values()).map(told).collect()
}

/// Why the last answer was not stored.
pub(super) fn refusal((refusal, at): (Refusal, Time), now: Time) -> LastRefusal {
    LastRefusal { reason: refusal.name().to_owned(), ago_s: now.ms_since(at) / 1000 }
}

/// How a server does.
pub(super) fn server(reading: &ServerReading) -> UpstreamServer {
    UpstreamServer {
        upstream: cut(reading.upstream.as_bytes(), SERVER_TEXT_BYTES_MAX),
        address: cut(reading.address.as_bytes(), SERVER_TEXT_BYTES_MAX),
        up: reading.up,
        requests: reading.requests,
        failures: reading.failures,
        ejections: reading.ejections,
        in_flight: reading.in_flight,
        queued: reading.queued,
    }
}

fn tags(tags: &Tags) -> TagsTold {
    let names: Vec<_> = tags.texts().take(EXPLAINED_TAGS_MAX).map(|text| cut(text, EXPLAINED_TAG_BYTES_MAX)).collect();
    let hashes = tags.names().iter().take(EXPLAINED_TAGS_MAX).skip(names.len()).map(|name| format!("{:016x}", name.0)).collect();
    TagsTold { names, hashes, count: tags.names().len(), every: tags.is_overflowing() }
}

fn purge(entry: &Entry, verdict: Verdict, latest: u64, now: Time) -> PurgeTold {
    let (name, soft_ms) = match verdict {
        Verdict::Valid => ("valid", None),
        Verdict::Soft(since) => ("soft", Some(now.ms_since(since))),
        Verdict::Unproven => ("unproven", None),
        Verdict::Gone => ("gone", None),
    };
    PurgeTold { verdict: name.to_owned(), soft_ms, stamp: entry.purgeable.stamp.number, latest }
}

fn field(name: &[u8], value: &[u8]) -> FieldTold {
    let value = match name {
        name if *name == *SET_COOKIE.as_str().as_bytes() => {
            let cookie = value.split(|b| *b == b'=').next().unwrap_or_default();
            let is_named = cookie.len() < value.len();
            if is_named { format!("{}=...", cut(cookie, EXPLAINED_VALUE_BYTES_MAX)) } else { hidden(value) }
        }
        _ => cut(value, EXPLAINED_VALUE_BYTES_MAX),
    };
    FieldTold { name: String::from_utf8_lossy(name).into_owned(), value: Some(value) }
}

/// Whether what a client sent in a field is its own.
fn is_secret(name: &HeaderName) -> bool {
    [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE].contains(name)
}

fn hidden(value: &[u8]) -> String {
    format!("({} bytes)", value.len())
}

/// Its first bytes as text.
fn cut(bytes: &[u8], bytes_max: usize) -> String {
    match bytes.get(..bytes_max) {
        Some(first) if bytes.len() > bytes_max => format!("{}...", String::from_utf8_lossy(first)),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tags::CACHE_TAG;

    #[test]
    fn what_is_secret_is_not_shown() {
        let shown = |name: HeaderName, value: &str| field(name.as_str().as_bytes(), value.as_bytes()).value.expect("a value");
        assert_eq!(shown(SET_COOKIE, "session=0123; Path=/"), "session=...");
        assert_eq!(shown(SET_COOKIE, "0123"), "(4 bytes)");
        assert_eq!(shown(http::header::SERVER, "x=y"), "x=y");
        assert!(is_secret(&COOKIE) && is_secret(&AUTHORIZATION) && !is_secret(&http::header::ACCEPT));
    }

    #[test]
    fn tags_are_told_by_name_and_those_without_a_text_by_hash() {
        let said: String = (0..30).map(|n| format!("{}{n},", "x".repeat(n * 10))).collect();
        let said = Tags::of(&[(CACHE_TAG, http::HeaderValue::try_from(said).expect("a value"))].into_iter().collect());
        let told = tags(&said);
        assert_eq!((told.names.len() + told.hashes.len(), told.count, told.every), (EXPLAINED_TAGS_MAX, 30, false));
        assert_eq!(told.names[1], "xxxxxxxxxx1");
        assert!(told.names.iter().all(|name| name.len() <= EXPLAINED_TAG_BYTES_MAX + 3));
        assert_eq!(told.names.len(), said.texts().count().min(EXPLAINED_TAGS_MAX));
        let hashed = tags(&said.without_texts());
        assert_eq!((hashed.names.len(), hashed.hashes.len()), (0, EXPLAINED_TAGS_MAX));
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(cut(b"abc", 3), "abc");
        assert_eq!(cut(b"abcd", 3), "abc...");
        assert_eq!(cut("ä".as_bytes(), 1), "\u{fffd}...");
    }
}
