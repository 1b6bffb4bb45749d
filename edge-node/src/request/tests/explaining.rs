//! What an operator is told of a request that is not made.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;
use selvedge_origin::api::wire::{Ask, ExplainAction, ExplainAsk, Explanation, Layer, Stored, Told};
use selvedge_origin::registry::{CacheSettings, RequestDirectives, VaryRule};
use tokio::sync::Notify;

use super::world::*;
use crate::cache::purge::{Purge, Realm, Strength, Target};
use crate::cache::time::Time;
use crate::deployments::Knows;

async fn explain(world: &World, method: &str, path: &str, headers: &[(&str, &str)]) -> Explanation {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let ask = Ask::Explain(ExplainAsk { url: format!("http://www.example.org{path}"), method: method.to_owned(), headers });
    match world.path.tell(&ask).await {
        Told::Explained(explanation) => *explanation,
        told => panic!("{told:?}"),
    }
}

/// Why the last answer of a path was not stored.
pub(super) async fn last_refusal(world: &World, path: &str) -> Option<String> {
    first(world, path).await.refusal.map(|refusal| refusal.reason)
}

async fn first(world: &World, path: &str) -> Layer {
    explain(world, "GET", path, &[]).await.layers.remove(0)
}

pub(super) async fn stored(world: &World, path: &str) -> Stored {
    let layer = first(world, path).await;
    layer.stored.unwrap_or_else(|| panic!("{:?}", layer.verdict))
}

/// What `Cache-Status` says before whoever answers is asked.
fn beforehand(said: &str) -> String {
    let known = |part: &&str| !part.starts_with("fwd-status=") && *part != "stored" && *part != "collapsed";
    said.split("; ").filter(known).collect::<Vec<_>>().join("; ")
}

fn with(server: &Server, settings: CacheSettings) -> Vec<crate::routes::Route> {
    vec![crate::routes::Route { cache: settings, ..to_upstream("/*", server) }]
}

#[tokio::test]
async fn the_words_are_those_that_the_request_then_gets() {
    let server = Server::start(|request| async move {
        let path = request.uri().path().to_owned();
        let fields: &[(&str, &str)] = match path.as_str() {
            "/swr" => &[("cache-control", "max-age=10, stale-while-revalidate=100")],
            "/etag" => &[("cache-control", "max-age=10"), ("etag", "\"a\"")],
            "/no-cache" => &[("cache-control", "no-cache"), ("etag", "\"a\"")],
            "/vary" => &[("cache-control", "max-age=1000"), ("vary", "x-kind")],
            "/private" => &[("cache-control", "private")],
            _ => &[("cache-control", "max-age=1000")],
        };
        response(200, fields, "page")
    })
    .await;
    let world = World::new(with(&server, CacheSettings { request_directives: RequestDirectives::All, ..CacheSettings::default() }));
    for path in ["/", "/swr", "/etag", "/no-cache", "/vary"] {
        world.look(path).await;
    }
    world.pass(20);
    use ExplainAction::{Bypass, Forward, Hit, Revalidate, Stale};
    #[allow(clippy::type_complexity, reason = "the columns of a table")]
    let cases: [(&str, &str, &[(&str, &str)], ExplainAction); 14] = [
        ("GET", "/", &[], Hit),
        ("HEAD", "/", &[], Hit),
        ("GET", "/", &[("range", "bytes=0-1")], Hit),
        ("GET", "/", &[("cache-control", "no-cache")], Forward),
        ("POST", "/", &[], Bypass),
        ("GET", "/new", &[("cache-control", "no-store")], Bypass),
        ("HEAD", "/new", &[], Bypass),
        ("GET", "/new", &[("range", "bytes=0-1,3-4")], Bypass),
        ("GET", "/new", &[("if-match", "\"x\"")], Bypass),
        ("GET", "/swr", &[], Stale),
        ("GET", "/etag", &[("cache-control", "max-stale=100")], Stale),
        ("GET", "/etag", &[], Revalidate),
        ("GET", "/no-cache", &[], Revalidate),
        ("GET", "/vary", &[("x-kind", "other")], Forward),
    ];
    for (method, path, fields, action) in cases {
        let (asked, usage) = (server.requests(), world.path.cache().usage());
        let layer = explain(&world, method, path, fields).await.layers.remove(0);
        assert_eq!((server.requests(), world.path.cache().usage()), (asked, usage), "nothing happened");
        assert_eq!(layer.verdict.action, action, "{method} {path} {fields:?}: {:?}", layer.verdict);
        let mut request = get(path, fields);
        *request.method_mut() = Method::from_bytes(method.as_bytes()).expect("a method");
        let (_, said, _) = look(world.send(request).await).await;
        assert_eq!(layer.verdict.cache_status.as_deref(), Some(beforehand(&said).as_str()), "{method} {path} {fields:?}");
        while world.tasks.running() > 0 {
            tokio::task::yield_now().await;
        }
    }
    let refused = explain(&world, "GET", "/new", &[("cache-control", "only-if-cached")]).await.layers.remove(0).verdict;
    assert_eq!(refused.action, ExplainAction::Refuse);
}

#[tokio::test]
async fn what_is_stored_is_shown_with_what_decides_about_it_and_without_secrets() {
    let server = Server::start(|_| async {
        let fields = [
            ("cache-control", "max-age=5, s-maxage=60"),
            ("cache-tag", "a, b"),
            ("vary", "cookie, x-kind"),
            ("set-cookie", "session=secret; Path=/"),
        ];
        response(200, &fields, "page")
    })
    .await;
    let world = World::new(with(&server, CacheSettings { store_set_cookie: true, ..CacheSettings::default() }));
    for kind in ["one", "two"] {
        world.send(get("/x", &[("cookie", "user=secret"), ("x-kind", kind)])).await;
    }
    world.pass(7);
    let layer = explain(&world, "GET", "/x", &[("cookie", "user=secret"), ("x-kind", "one")]).await.layers.remove(0);
    assert_eq!(layer.key, "u http www.example.org /x");
    let told = layer.stored.expect("it is stored");
    assert_eq!((told.tiers, told.status, told.body_bytes), (vec!["memory".to_owned()], 200, 4));
    assert_eq!((told.age_ms, told.lifetime_ms, told.lifetime_from.as_str()), (7_000, 60_000, "s-maxage"));
    assert_eq!((told.tags.count, told.tags.every, told.purge.verdict.as_str()), (2, false, "valid"));
    let text = |fields: &[selvedge_origin::api::wire::FieldTold]| {
        fields.iter().map(|field| format!("{}: {}", field.name, field.value.as_deref().unwrap_or("-"))).collect::<Vec<_>>()
    };
    assert_eq!(text(&told.variant), ["cookie: (11 bytes)", "x-kind: one"]);
    assert_eq!(layer.others.iter().map(|other| text(other)).collect::<Vec<_>>(), [["cookie: (11 bytes)", "x-kind: two"]]);
    let headers = text(&told.headers);
    assert!(headers.contains(&"set-cookie: session=...".to_owned()), "{headers:?}");
    assert!(!headers.iter().any(|header| header.contains("secret") || header.starts_with("age")), "{headers:?}");
}

#[tokio::test]
async fn a_lifetime_names_where_it_comes_from() {
    let server = Server::start(|request| async move {
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/cdn" => response(200, &[("cdn-cache-control", "max-age=9"), ("cache-control", "max-age=1")], ""),
            "/surrogate" => response(200, &[("surrogate-control", "max-age=9")], ""),
            "/expires" => response(200, &[("date", "Tue, 14 Nov 2023 22:13:20 GMT"), ("expires", "Tue, 14 Nov 2023 22:14:20 GMT")], ""),
            "/missing" => response(404, &[], ""),
            "/modified" => {
                response(200, &[("date", "Tue, 14 Nov 2023 22:13:20 GMT"), ("last-modified", "Tue, 14 Nov 2023 20:13:20 GMT")], "")
            }
            _ => response(200, &[("cache-control", "max-age=9")], ""),
        }
    })
    .await;
    let world = World::new(with(&server, CacheSettings { status_ttl_s: BTreeMap::from([(404, 30)]), ..CacheSettings::default() }));
    for (path, seconds, from) in [
        ("/", 9, "max-age"),
        ("/cdn", 9, "max-age of CDN-Cache-Control"),
        ("/surrogate", 9, "max-age of Surrogate-Control"),
        ("/expires", 60, "Expires"),
        ("/missing", 30, "status_ttl_s of the route"),
        ("/modified", 720, "heuristic"),
    ] {
        world.look(path).await;
        let told = stored(&world, path).await;
        assert_eq!((told.lifetime_ms / 1000, told.lifetime_from.as_str()), (seconds, from), "{path}");
    }
}

#[tokio::test]
async fn why_nothing_is_stored_is_remembered() {
    let server = Server::start(|request| async move {
        let query = request.uri().query().unwrap_or_default().to_owned();
        match query.as_str() {
            "private" => response(200, &[("cache-control", "private")], ""),
            "cookie" => response(200, &[("cache-control", "max-age=9"), ("set-cookie", "a=b")], ""),
            _ => response(200, &[], ""),
        }
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    assert_eq!(first(&world, "/?new").await.refusal, None);
    for (path, reason) in [("/?private", "private"), ("/?cookie", "set-cookie"), ("/?nothing", "no-lifetime")] {
        world.look(path).await;
        world.pass(3);
        let layer = first(&world, path).await;
        let refusal = layer.refusal.unwrap_or_else(|| panic!("{path}"));
        assert_eq!((refusal.reason.as_str(), refusal.ago_s, layer.stored), (reason, 3, None));
    }
}

#[tokio::test]
async fn what_is_purged_is_told_and_left_where_it_is() {
    let server = Server::fixed(&[("cache-control", "max-age=60"), ("etag", "\"a\"")], "page").await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    world.look("/x").await;
    let purge = |number, strength| {
        let at = Time(START_MS);
        world.path.cache().purges().apply(&Purge { number, at, strength, realm: Realm::NONE, targets: vec![Target::Everything] });
    };
    purge(1, Strength::Soft);
    world.pass(5);
    let layer = first(&world, "/x").await;
    let told = layer.stored.expect("it is there").purge;
    assert_eq!((told.verdict.as_str(), told.soft_ms, told.stamp, told.latest), ("soft", Some(5_000), 0, 1));
    assert_eq!(layer.verdict.action, ExplainAction::Revalidate);
    purge(2, Strength::Hard);
    let layer = first(&world, "/x").await;
    assert_eq!(layer.stored.expect("its bytes are there").purge.verdict, "gone");
    assert_eq!((layer.verdict.action, layer.verdict.cache_status.as_deref()), (ExplainAction::Forward, Some("edge-1; fwd=uri-miss")));
    assert_eq!(world.path.cache().usage().0, 1, "it was not swept");
    assert_eq!(world.look("/x").await.1, "edge-1; fwd=uri-miss; fwd-status=200; stored");
}

#[tokio::test]
async fn a_request_is_explained_by_what_is_keyed_of_its_fields() {
    let server = Server::fixed(&[("cache-control", "max-age=60"), ("vary", "accept-language")], "page").await;
    let rule = VaryRule::Normalise(vec!["en".into(), "de".into()]);
    let settings = CacheSettings { vary: BTreeMap::from([("accept-language".into(), rule)]), ..CacheSettings::default() };
    let world = World::new(with(&server, settings));
    world.send(get("/x", &[("accept-language", "de-AT, de;q=0.9")])).await;
    let layer = explain(&world, "GET", "/x", &[("accept-language", "de;q=0.8, fr;q=0.1")]).await.layers.remove(0);
    assert_eq!(layer.verdict.action, ExplainAction::Hit, "{:?}", layer.verdict);
}

#[tokio::test]
async fn a_fetch_that_is_on_its_way_is_told() {
    let gate = Arc::new(Notify::new());
    let held = gate.clone();
    let server = Server::start(move |_| {
        let held = held.clone();
        async move {
            held.notified().await;
            response(200, &[("cache-control", "max-age=60")], "page")
        }
    })
    .await;
    let world = World::new(vec![to_upstream("/*", &server)]);
    let told = async {
        while server.requests() == 0 {
            tokio::task::yield_now().await;
        }
        let layer = first(&world, "/x").await;
        gate.notify_one();
        layer.verdict.because
    };
    let (_, because) = tokio::join!(world.look("/x"), told);
    assert!(because.contains("on its way"), "{because}");
    assert!(!first(&world, "/x").await.verdict.because.contains("on its way"));
}

#[tokio::test]
async fn all_places_of_a_workers_route_are_told() {
    let server = Server::fixed(&[("cache-control", "max-age=60")], "page").await;
    let mut route = to_worker("/*", "shop");
    route.upstream = to_upstream("/*", &server).upstream;
    let world = World::with_worker(vec![route], |_| async { panic!("it is not asked") });
    let told = explain(&world, "GET", "/x", &[]).await;
    let route = told.route.expect("a route");
    assert_eq!((route.worker.as_deref(), route.version.as_deref()), (Some("shop"), Some("shop-version")));
    let layers: Vec<_> = told.layers.iter().map(|layer| (layer.place.as_str(), layer.key.as_str(), layer.verdict.action)).collect();
    assert_eq!(
        layers,
        [
            ("route", "wshop-version http www.example.org /x", ExplainAction::Bypass),
            ("behind the worker", "u http www.example.org /x", ExplainAction::Forward),
            ("caches.default", "cshop http www.example.org /x", ExplainAction::Absent),
        ]
    );
}

#[tokio::test]
async fn a_request_that_comes_to_no_route_is_told_why() {
    let server = Server::fixed(&[], "").await;
    let mut secure = to_upstream("/s*", &server);
    secure.redirect_to_https = true;
    let world = World::new(vec![secure]);
    let none = explain(&world, "GET", "/other", &[]).await;
    assert!(none.refused.is_some_and(|reason| reason.contains("no route for www.example.org/other")) && none.layers.is_empty());
    let redirected = explain(&world, "GET", "/s", &[]).await;
    assert!(redirected.refused.is_some_and(|reason| reason.contains("https")) && redirected.route.is_some());
    let trace = explain(&world, "TRACE", "/s", &[]).await;
    assert!(trace.refused.is_some_and(|reason| reason.contains("TRACE")));
    let wrong = Ask::Explain(ExplainAsk { url: "gopher://a.org/".into(), method: "GET".into(), headers: vec![] });
    assert!(matches!(world.path.tell(&wrong).await, Told::Failed(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_disk_is_told_and_not_promoted() {
    let server = Server::fixed(&[("cache-control", "max-age=600")], "page").await;
    let folder = tempfile::tempdir().expect("a folder");
    {
        let world = World::on_disk(vec![to_upstream("/*", &server)], 8 << 20, folder.path());
        world.look("/x").await;
        world.rest().await;
        assert_eq!(stored(&world, "/x").await.tiers, ["memory", "disk"]);
    }
    let world = World::on_disk(vec![to_upstream("/*", &server)], 8 << 20, folder.path());
    while world.path.cache().disk_usage().entries == 0 {
        tokio::task::yield_now().await;
    }
    let reads = world.metrics.disk.reads.get();
    for _ in 0..2 {
        let layer = first(&world, "/x").await;
        assert_eq!(layer.verdict.cache_status.as_deref(), Some("edge-1; hit; ttl=600; detail=disk"));
        assert_eq!(layer.stored.expect("it is there").tiers, ["disk"]);
    }
    assert_eq!((world.path.cache().usage().0, world.metrics.disk.reads.get()), (0, reads), "looked at, not used");
    assert_eq!(world.look("/x").await.1, "edge-1; hit; ttl=600; detail=disk");
    assert_eq!(stored(&world, "/x").await.tiers, ["memory", "disk"]);
    assert_eq!(server.requests(), 1);
}
