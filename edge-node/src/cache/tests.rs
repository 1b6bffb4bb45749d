//! The store as a whole: finding, variants, marks, invalidation, and fills with their readers.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Response, StatusCode};
use selvedge_runtime::{Body, BodyError};

use super::collapse::{Bounds, Obligation};
use super::control::Control;
use super::entry::StoredBody;
use super::fill::{Head, Reader, StreamHead};
use super::freshness::Freshness;
use super::keeping::Keeping;
use super::key::Space;
use super::policy::Refusal;
use super::vary::{VARIANTS_MAX, Variant, Vary};
use super::*;

const NOW: Time = Time(784_111_777_000);

pub(super) fn entry(body: &[u8]) -> Arc<Entry> {
    varied(body, &[], &[])
}

/// Fields in the order in which they came, several of one name among them.
pub(crate) fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

/// An entry that is fresh for a minute, for requests like `request`.
pub(super) fn varied(body: &[u8], response: &[(&'static str, &'static str)], request: &[(&'static str, &'static str)]) -> Arc<Entry> {
    let mut head = Response::new(()).into_parts().0;
    head.headers = headers(response);
    let variant = match Vary::of(&head.headers) {
        Vary::On(names) => Variant::new(&names, &headers(request)),
        _ => Variant::default(),
    };
    let freshness = Freshness { lifetime_ms: 60_000, initial_age_ms: 0, received: NOW };
    let control = Control::of_response(&head.headers);
    Arc::new(Entry::new(head, StoredBody::new(&[Bytes::copy_from_slice(body)]), control, freshness, variant, Default::default()))
}

fn cache() -> Cache {
    Cache::new(1 << 20, Arc::default())
}

fn key(target: &str) -> CacheKey {
    CacheKey::new(Space::Upstream, "https", "a.org", target)
}

fn fetch(cache: &Cache) -> (Obligation, Reader) {
    match cache.enter(&key("/"), &Hint::default(), &HeaderMap::new(), Company::Open, Realm::NONE) {
        Duty::Fetch(obligation, reader) => (obligation, reader),
        _ => panic!("somebody else fetches"),
    }
}

fn follow(cache: &Cache) -> Reader {
    match cache.enter(&key("/"), &Hint::default(), &HeaderMap::new(), Company::Open, Realm::NONE) {
        Duty::Follow(reader) => reader,
        _ => panic!("nobody fetches"),
    }
}

fn streaming() -> Head {
    Head::Streaming(Arc::new(StreamHead {
        head: Response::new(()).into_parts().0,
        variant: Variant::default(),
        withheld: Vec::new(),
        length: None,
        keeping: Keeping::Stored,
    }))
}

#[test]
fn an_entry_is_fresh_then_stale() {
    let cache = cache();
    cache.store(key("/").as_bytes(), entry(b"a"));
    assert!(matches!(cache.find(&key("/"), &HeaderMap::new(), NOW.plus_ms(1)), Found::Fresh(_, 59_999)));
    assert!(matches!(cache.find(&key("/"), &HeaderMap::new(), NOW.plus_ms(60_001)), Found::Stale(_, 1, _)));
    assert!(matches!(cache.find(&key("/other"), &HeaderMap::new(), NOW), Found::Nothing(Forward::UriMiss, _)));
}

#[test]
fn no_cache_is_never_fresh() {
    let cache = cache();
    cache.store(key("/").as_bytes(), varied(b"a", &[("cache-control", "max-age=60, no-cache")], &[]));
    assert!(matches!(cache.find(&key("/"), &HeaderMap::new(), NOW), Found::Stale(_, 0, _)));
}

#[test]
fn variants_are_bounded_and_the_newest_stays() {
    let cache = cache();
    for number in 0..=VARIANTS_MAX {
        let language: &'static str = Box::leak(format!("l{number}").into_boxed_str());
        cache.store(key("/").as_bytes(), varied(b"a", &[("vary", "accept-language")], &[("accept-language", language)]));
    }
    let newest: &'static str = Box::leak(format!("l{VARIANTS_MAX}").into_boxed_str());
    assert!(matches!(cache.find(&key("/"), &headers(&[("accept-language", newest)]), NOW), Found::Fresh(..)));
    assert!(matches!(cache.find(&key("/"), &headers(&[("accept-language", "l0")]), NOW), Found::Nothing(Forward::VaryMiss, _)));
}

/// What is stored for `/`, in bytes, and how many bytes a key may take.
fn weighs(cache: &Cache) -> (u64, u64) {
    (cache.tier.get(key("/").as_bytes()).map_or(0, |slot| slot.weight() as u64), cache.memory_entry_max)
}

#[test]
fn all_variants_of_a_key_take_no_more_of_memory_than_one_response_may() {
    let cache = cache();
    let others = || (0..20).map(|number| key(&format!("/other/{number}")));
    others().for_each(|key| cache.store(key.as_bytes(), entry(&[0; 16 << 10])));
    let languages = ["l0", "l1", "l2", "l3", "l4", "l5", "l6", "l7", "l8"];
    for (number, language) in languages.into_iter().enumerate() {
        let bytes = if number < 7 { 100 << 10 } else { 40 << 10 };
        cache.store(key("/").as_bytes(), varied(&vec![0; bytes], &[("vary", "accept-language")], &[("accept-language", language)]));
    }
    let (bytes, bytes_max) = weighs(&cache);
    assert!(bytes <= bytes_max, "{bytes} of {bytes_max}");
    let is_there = |language| matches!(cache.find(&key("/"), &headers(&[("accept-language", language)]), NOW), Found::Fresh(..));
    assert_eq!(languages.map(is_there), [false, false, false, false, false, false, false, true, true], "the newest that fit together");
    cache.usage();
    assert!(others().all(|key| cache.tier.holds(key.as_bytes())), "others have their room");
}

#[test]
fn a_coding_that_makes_a_key_too_heavy_is_not_kept() {
    let cache = cache();
    let stored = entry(&[0; 100 << 10]);
    cache.store(key("/").as_bytes(), stored.clone());
    let made =
        |bytes: usize| Encoding::Smaller(Arc::new(stored.coded(Coding::Gzip, Some(StoredBody::new(&[Bytes::from(vec![1; bytes])])))));
    for (bytes, is_kept) in [(60 << 10, false), (20 << 10, true)] {
        cache.keep_encoding(key("/").as_bytes(), &stored, Coding::Gzip, &made(bytes));
        assert_eq!(cache.encoding(key("/").as_bytes(), &stored, Coding::Gzip).is_some(), is_kept, "{bytes}");
        let (bytes, bytes_max) = weighs(&cache);
        assert!(bytes <= bytes_max, "{bytes} of {bytes_max}");
    }
    assert!(matches!(cache.find(&key("/"), &HeaderMap::new(), NOW), Found::Fresh(..)));
}

#[test]
fn a_mark_sends_requests_alone_for_a_while() {
    let cache = cache();
    cache.mark_uncollapsed(key("/").as_bytes(), NOW);
    let Found::Nothing(_, hint) = cache.find(&key("/"), &HeaderMap::new(), NOW) else { panic!("nothing is stored") };
    assert!(hint.alone);
    let first = cache.enter(&key("/"), &hint, &HeaderMap::new(), Company::Open, Realm::NONE);
    let second = cache.enter(&key("/"), &hint, &HeaderMap::new(), Company::Open, Realm::NONE);
    assert!(matches!((first, second), (Duty::Fetch(..), Duty::Fetch(..))));
    let Found::Nothing(_, hint) = cache.find(&key("/"), &HeaderMap::new(), NOW.plus_ms(UNCOLLAPSED_MS)) else {
        panic!("nothing is stored")
    };
    assert!(!hint.alone);
}

#[test]
fn fetches_of_one_key_that_nobody_follows_are_bounded_and_leave_room_for_others() {
    let cache = cache().with_fills(Bounds { fills_max: 6, readers_max: 9, ..Bounds::default() });
    let enter = |company| cache.enter(&key("/"), &Hint::default(), &HeaderMap::new(), company, Realm::NONE);
    let alone = || match enter(Company::Alone) {
        Duty::Fetch(obligation, _) => Some(obligation),
        _ => None,
    };
    let mut fetches: Vec<Obligation> = std::iter::from_fn(alone).take(9).collect();
    assert_eq!(fetches.len(), 3);
    assert!(matches!(enter(Company::Open), Duty::Fetch(..)));
    // What was invalidated is fetched on, and is found by nobody.
    cache.invalidate(&key("/"));
    assert!(fetches.iter().all(Obligation::is_discarded) && alone().is_none() && !cache.fills.runs(key("/").as_bytes()));
    // One that goes makes room for one, and does not take another's place with it.
    drop(fetches.pop());
    let newer = alone().expect("there is room");
    fetches.clear();
    cache.invalidate(&key("/"));
    assert!(newer.is_discarded());
    drop(newer);
    assert_eq!(std::iter::from_fn(alone).take(9).collect::<Vec<_>>().len(), 3);
}

#[test]
fn invalidation_forgets_what_is_stored_and_what_is_being_fetched() {
    let cache = cache();
    cache.store(key("/").as_bytes(), entry(b"a"));
    let (obligation, _reader) = fetch(&cache);
    cache.invalidate(&key("/"));
    assert!(obligation.is_discarded());
    assert!(matches!(cache.find(&key("/"), &HeaderMap::new(), NOW), Found::Nothing(..)));
    let (_new, _reader) = fetch(&cache);
}

#[tokio::test]
async fn followers_get_bytes_as_they_arrive() {
    let cache = cache();
    let (obligation, owner) = fetch(&cache);
    let follower = follow(&cache);
    obligation.tell(streaming());
    assert!(matches!(follower.head().await, Head::Streaming(_)));
    obligation.push(Bytes::from_static(b"one"));
    let mut body = follower.into_body(None);
    assert_eq!(frame(&mut body).await.as_deref(), Some(&b"one"[..]));
    obligation.push(Bytes::from_static(b"two"));
    assert_eq!(frame(&mut body).await.as_deref(), Some(&b"two"[..]));
    obligation.end(Ok(()));
    assert_eq!(frame(&mut body).await, None);
    assert_eq!(owner.into_body(None).collect(99).await.expect("whole"), "onetwo");
}

#[tokio::test]
async fn a_vanished_first_client_hurts_nobody() {
    let cache = cache();
    let (obligation, owner) = fetch(&cache);
    let follower = follow(&cache);
    drop(owner);
    obligation.tell(streaming());
    obligation.push(Bytes::from_static(b"all"));
    obligation.end(Ok(()));
    assert_eq!(follower.into_body(None).collect(99).await.expect("whole"), "all");
}

#[tokio::test]
async fn a_response_that_is_not_for_the_cache_goes_to_who_ordered_it() {
    let cache = cache();
    let (obligation, owner) = fetch(&cache);
    let follower = follow(&cache);
    assert!(obligation.has_company());
    obligation.give(Response::new(Body::full("mine")), Refusal::Private);
    assert!(matches!(follower.head().await, Head::Private(Refusal::Private)));
    assert!(follower.take_private().is_none());
    assert!(matches!(owner.head().await, Head::Private(_)));
    assert!(owner.take_private().is_some());
}

#[tokio::test]
async fn an_obligation_that_is_dropped_frees_the_waiters() {
    let cache = cache();
    let (obligation, owner) = fetch(&cache);
    let follower = follow(&cache);
    drop(obligation);
    assert!(matches!(owner.head().await, Head::Abandoned));
    assert!(matches!(follower.head().await, Head::Abandoned));
    let (_next, _reader) = fetch(&cache);
}

#[tokio::test]
async fn a_fill_given_up_in_its_body_cuts_its_readers() {
    let cache = cache();
    let (obligation, owner) = fetch(&cache);
    obligation.tell(streaming());
    obligation.push(Bytes::from_static(b"half"));
    drop(obligation);
    assert!(matches!(owner.into_body(None).collect(99).await, Err(BodyError::Aborted(_))));
}

#[tokio::test]
async fn a_paced_fill_waits_for_its_slowest_reader_and_ends_without_any() {
    let cache = cache();
    let (obligation, owner) = fetch(&cache);
    obligation.tell(streaming());
    obligation.pace();
    let chunk = Bytes::from(vec![0; 1 << 20]);
    obligation.push(chunk.clone());
    obligation.push(chunk);
    assert!(futures::poll!(std::pin::pin!(obligation.room())).is_pending());
    let mut body = owner.into_body(None);
    assert!(frame(&mut body).await.is_some());
    assert!(frame(&mut body).await.is_some());
    assert!(obligation.room().await);
    // It has left the list: the next request begins anew.
    let (_next, _reader) = fetch(&cache);
    drop(body);
    assert!(!obligation.room().await);
}

#[test]
fn bytes_of_fills_are_counted_together() {
    let cache = cache();
    let (mut one, mut two) = (cache.share(), cache.share());
    assert!(one.hold(1_400 << 10));
    assert!(!two.hold(200 << 10));
    drop(one);
    assert!(two.hold(200 << 10));
}

async fn frame(body: &mut Body) -> Option<Bytes> {
    use http_body_util::BodyExt;
    body.frame().await.map(|frame| frame.expect("a good body").into_data().expect("data"))
}

#[test]
fn hits_carry_age_and_status_in_their_places() {
    let stored = varied(b"a", &[("x-a", "1")], &[]);
    let fields = stored.fields_now(NOW.plus_ms(2_500), HeaderValue::from_static("n; hit"));
    assert_eq!(fields.get("age").expect("age"), "2");
    assert_eq!(fields.get("cache-status").expect("status"), "n; hit");
    assert_eq!(fields.get("date").expect("date"), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(stored.status, StatusCode::OK);
    let behind = varied(b"a", &[("cache-status", "other; hit")], &[]);
    let fields = behind.fields_now(NOW, HeaderValue::from_static("n; hit"));
    assert_eq!(fields.get_all("cache-status").iter().collect::<Vec<_>>(), ["other; hit", "n; hit"]);
}
