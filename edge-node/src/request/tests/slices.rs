//! Large objects in slices: only what is wanted, each once, and never two versions in one answer.

use std::sync::Arc;

use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use parking_lot::Mutex;
use selvedge_origin::registry::CacheSettings;
use selvedge_runtime::Body;

use super::explaining::stored;
use super::world::*;
use crate::cache::key::{CacheKey, Space};
use crate::cache::purge::{Purge, Realm, Strength, Target};
use crate::cache::time::Time;
use crate::routes::Route;

/// An object of a server, which may change.
struct Object {
    bytes: Vec<u8>,
    tag: &'static str,
    cache_control: &'static str,
    asked: Vec<String>,
}

type Shared = Arc<Mutex<Object>>;

impl Object {
    fn answer(&mut self, headers: &HeaderMap) -> Response<Body> {
        let range = field(headers, "range");
        self.asked.push(range.trim_start_matches("bytes=").to_owned());
        let answer = Response::builder().header("cache-control", self.cache_control).header("etag", self.tag).header("cache-tag", "film");
        let all = self.bytes.len();
        if field(headers, "if-none-match") == self.tag {
            return answer.status(304).body(Body::empty()).expect("a response");
        }
        let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
            return answer.body(Body::full(self.bytes.clone())).expect("a response");
        };
        let (first, last): (usize, usize) =
            (first.parse().expect("a number"), last.parse().map_or(all - 1, |last: usize| last.min(all - 1)));
        let part = self.bytes.get(first..=last).expect("inside").to_vec();
        answer.status(206).header("content-range", format!("bytes {first}-{last}/{all}")).body(Body::full(part)).expect("a response")
    }
}

fn text_of(length: usize) -> Vec<u8> {
    (0..length).map(|number| b'a' + (number % 26) as u8).collect()
}

fn object(length: usize) -> Shared {
    Arc::new(Mutex::new(Object { bytes: text_of(length), tag: "\"one\"", cache_control: "max-age=60", asked: Vec::new() }))
}

async fn serving(object: &Shared) -> Server {
    let object = object.clone();
    Server::start(move |request: Request<Incoming>| {
        let answer = object.lock().answer(request.headers());
        async move { answer }
    })
    .await
}

fn sliced(server: &Server, slice_bytes: u32) -> World {
    let cache = CacheSettings { slice_bytes, ..CacheSettings::default() };
    World::new(vec![Route { cache, ..to_upstream("/*", server) }])
}

fn asked(object: &Shared) -> Vec<String> {
    std::mem::take(&mut object.lock().asked)
}

async fn range(world: &World, range: &str) -> (u16, String, String) {
    let response = world.send(get("/", &[("range", range)])).await;
    (response.status().as_u16(), field(response.headers(), "content-range"), text(response).await)
}

#[tokio::test]
async fn only_what_is_wanted_is_fetched_and_each_slice_once() {
    let object = object(95);
    let server = serving(&object).await;
    let world = sliced(&server, 10);
    let all = String::from_utf8(text_of(95)).expect("text");
    assert_eq!(range(&world, "bytes=42-57").await, (206, "bytes 42-57/95".into(), all[42..58].into()));
    assert_eq!(asked(&object), ["0-9", "40-49", "50-59"], "the first says what the whole is");
    assert_eq!(range(&world, "bytes=45-46").await.2, all[45..47]);
    assert_eq!(range(&world, "bytes=-7").await, (206, "bytes 88-94/95".into(), all[88..].into()));
    assert_eq!(asked(&object), ["80-89", "90-94"]);
    let whole = world.get("/").await;
    assert_eq!((whole.status().as_u16(), field(whole.headers(), "content-length")), (200, "95".into()));
    assert!(!whole.headers().contains_key("content-range") && !whole.headers().contains_key("cache-tag"));
    assert!(field(whole.headers(), "cache-status").contains("hit"), "{:?}", whole.headers());
    assert_eq!(text(whole).await, all);
    assert_eq!(asked(&object), ["10-19", "20-29", "30-39", "60-69", "70-79"], "what is missing, and nothing else");
    assert_eq!(world.look("/").await.2, all);
    assert_eq!(range(&world, "bytes=95-").await.0, 416);
    let resumed = world.send(get("/", &[("range", "bytes=33-"), ("if-range", "\"one\"")])).await;
    assert_eq!((resumed.status().as_u16(), text(resumed).await), (206, all[33..].into()));
    let changed = world.send(get("/", &[("range", "bytes=33-"), ("if-range", "\"zero\"")])).await;
    assert_eq!((changed.status().as_u16(), text(changed).await), (200, all));
    assert_eq!(world.send(get("/", &[("if-none-match", "\"one\"")])).await.status(), 304);
    assert!(asked(&object).is_empty());
}

#[tokio::test]
async fn an_operator_is_told_how_many_slices_are_here() {
    let object = object(95);
    let server = serving(&object).await;
    let world = sliced(&server, 10);
    let slices = async || {
        let slices = stored(&world, "/").await.slices.expect("it is in slices");
        (slices.here, slices.looked, slices.count, slices.slice_bytes)
    };
    range(&world, "bytes=42-57").await;
    assert_eq!(slices().await, (3, 10, 10, 10), "the first one, and those of the range");
    world.look("/").await;
    assert_eq!(slices().await, (10, 10, 10, 10));
    assert_eq!(asked(&object).len(), 10, "nobody was asked for the operator");
}

#[tokio::test]
async fn many_clients_at_once_have_each_slice_fetched_once() {
    let object = object(55);
    let server = serving(&object).await;
    let world = sliced(&server, 10);
    let all = String::from_utf8(text_of(55)).expect("text");
    let answers = futures::future::join_all((0..20).map(|_| world.look("/"))).await;
    assert!(answers.iter().all(|answer| answer.2 == all));
    assert_eq!(asked(&object), ["0-9", "10-19", "20-29", "30-39", "40-49", "50-54"]);
}

#[tokio::test]
async fn an_object_that_changes_is_never_mixed() {
    let object = object(50);
    let server = serving(&object).await;
    let world = sliced(&server, 10);
    let old = world.look("/").await.2;
    range(&world, "bytes=20-29").await;
    let change = |tag| {
        let mut object = object.lock();
        (object.tag, object.bytes) = (tag, text_of(50).into_iter().rev().collect());
    };
    // All of the old one is here and fresh: it is whole.
    change("\"two\"");
    assert_eq!(world.look("/").await.2, old);
    // What is stale is validated: the old slices are not used any more.
    world.pass(61);
    asked(&object);
    let new = String::from_utf8(object.lock().bytes.clone()).expect("text");
    assert_eq!(world.look("/").await.2, new);
    assert_eq!(asked(&object), ["0-9", "10-19", "20-29", "30-39", "40-49"]);
}

#[tokio::test]
async fn a_change_between_two_slices_ends_the_answer_and_the_next_one_starts_over() {
    let object = object(50);
    let server = serving(&object).await;
    let world = sliced(&server, 10);
    range(&world, "bytes=0-9").await;
    {
        let mut object = object.lock();
        (object.tag, object.bytes) = ("\"two\"", vec![b'Z'; 50]);
    }
    // The first slice is the old one's; what follows is not.
    let broken = world.get("/").await;
    assert_eq!(field(broken.headers(), "etag"), "\"one\"");
    assert!(broken.into_body().collect(99).await.is_err());
    assert_eq!(world.look("/").await.2, "Z".repeat(50));
    // A range that begins behind the first slice starts over before anything is sent.
    {
        let mut object = object.lock();
        (object.tag, object.bytes) = ("\"three\"", vec![b'Y'; 50]);
    }
    world.path.cache().invalidate(&CacheKey::new(Space::Upstream, "http", "www.example.org", "/"));
    range(&world, "bytes=0-9").await;
    object.lock().tag = "\"four\"";
    object.lock().bytes = vec![b'X'; 40];
    assert_eq!(range(&world, "bytes=30-49").await, (206, "bytes 30-39/40".into(), "X".repeat(10)));
}

#[tokio::test]
async fn purges_reach_all_slices_and_an_unsafe_method_has_the_whole_validated() {
    let object = object(50);
    let server = serving(&object).await;
    let world = sliced(&server, 10);
    let targets = [
        Target::Tag("film".into()),
        Target::Url { authority: "www.example.org".into(), target: "/".into() },
        Target::Host("www.example.org".into()),
        Target::Everything,
    ];
    for (number, target) in (1..).zip(targets) {
        world.look("/").await;
        asked(&object);
        let purge = Purge { number, at: Time(0), strength: Strength::Hard, realm: Realm::NONE, targets: vec![target.clone()] };
        world.path.cache().purges().apply(&purge);
        world.look("/").await;
        assert_eq!(asked(&object).len(), 5, "{target:?}: none of them is left");
    }
    let post = Request::builder().method("POST").uri("/").header("host", "www.example.org").body(Body::empty()).expect("a request");
    assert_eq!(world.send(post).await.status(), 200);
    world.look("/").await;
    assert_eq!(asked(&object), ["", "0-9"], "the same strong validator: the others are what they were");
}

#[tokio::test]
async fn what_cannot_be_sliced_is_answered_as_ever() {
    // Without a strong validator; without ranges; an error; something private.
    let object = object(50);
    object.lock().tag = "W/\"weak\"";
    let server = serving(&object).await;
    let world = sliced(&server, 10);
    let all = String::from_utf8(text_of(50)).expect("text");
    assert_eq!(world.look("/").await.2, all);
    assert_eq!(range(&world, "bytes=20-24").await.2, all[20..25]);

    let server = Server::fixed(&[("cache-control", "max-age=60"), ("etag", "\"a\"")], "all of it").await;
    let world = sliced(&server, 5);
    assert_eq!(world.look("/").await.2, "all of it");
    let again = world.look("/").await;
    assert!(again.1.contains("hit") && again.2 == "all of it" && server.requests() == 1, "{again:?}");

    let server = Server::start(|request: Request<Incoming>| async move {
        let status = if request.headers().contains_key("range") { 416 } else { 404 };
        response(status, &[("cache-control", "max-age=60")], "none")
    })
    .await;
    let world = sliced(&server, 5);
    assert_eq!((world.look("/").await.0, world.look("/").await.0, server.requests()), (404, 404, 2));

    let object = self::object(50);
    object.lock().cache_control = "private";
    let server = serving(&object).await;
    let world = sliced(&server, 20);
    for _ in 0..2 {
        assert_eq!(world.look("/").await.2, all);
    }
    assert_eq!((asked(&object).len(), world.path.cache().usage().0), (6, 0), "passed on in slices, and none is kept");
}

#[tokio::test]
async fn slices_survive_in_a_disk_tier_that_memory_is_too_small_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let object = object(3 << 20);
    let server = serving(&object).await;
    let cache = CacheSettings { slice_bytes: 1 << 20, ..CacheSettings::default() };
    let routes = || vec![Route { cache: cache.clone(), ..to_upstream("/*", &server) }];
    let all = String::from_utf8(text_of(3 << 20)).expect("text");
    let world = World::on_disk(routes(), 7 << 20, folder.path());
    assert_eq!(world.look("/").await.2, all);
    world.rest().await;
    assert_eq!(asked(&object).len(), 3);
    let again = range(&world, "bytes=2000000-2999999").await;
    assert_eq!((again.2 == all[2_000_000..3_000_000], asked(&object)), (true, Vec::new()));
    // A node that starts anew has them all.
    drop(world);
    let world = World::on_disk(routes(), 7 << 20, folder.path());
    world.rest().await;
    let whole = world.look("/").await;
    assert_eq!((whole.2 == all, asked(&object)), (true, Vec::new()), "{}", whole.1);
}
