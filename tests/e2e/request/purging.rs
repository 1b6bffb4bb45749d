//! `ctx.cache.purge()`: what a worker takes back is gone on every node, and nothing that is not its own. With real isolates, over the real registry.

use std::time::Duration;

use selvedge_origin::api::wire::NewPurge;
use selvedge_tests::client::{self, Over};
use selvedge_tests::{Cluster, Deploy, Upstream, eventually, fixture, route};
use serde_json::{Value, json};

const NODES: usize = 3;

/// Workers that are cached in front, each with an upstream behind it that never says the same twice.
async fn workers(cluster: &Cluster, upstream: &Upstream, names: &[&str]) {
    for name in names {
        let mut front = route(&format!("{name}.test/*"), Some(name), Some(&upstream.url()));
        front.cache.enabled = Some(true);
        cluster.deploy_with(name, &fixture("purges"), Deploy { routes: Some(vec![front]), ..Deploy::default() }).await;
    }
}

async fn counting() -> Upstream {
    let number = std::sync::atomic::AtomicUsize::new(0);
    Upstream::start(move |_| {
        let text = format!("page {}", number.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
        http::Response::builder().header("cache-control", "max-age=60").header("cache-tag", "t").body(text.into()).unwrap()
    })
    .await
}

async fn purge(cluster: &Cluster, worker: &str, what: &Value) -> Value {
    let request = client::request("POST", &format!("{worker}.test"), "/", what.to_string());
    serde_json::from_str(&cluster.send(Over::H2, request).await.text()).unwrap()
}

/// What a node answers now.
async fn ask(cluster: &Cluster, node: usize, url: (&str, &str)) -> String {
    let answer = cluster.edges[node].send(Over::Cleartext, client::get(&format!("{}.test", url.0), url.1)).await.unwrap();
    assert_eq!(answer.status, 200, "{url:?}: {}", answer.text());
    answer.text()
}

/// What every node answers now, by node and URL.
async fn look(cluster: &Cluster, urls: &[(&'static str, &'static str)]) -> Vec<Vec<String>> {
    let mut seen = Vec::new();
    for node in 0..NODES {
        let mut of_node = Vec::new();
        for url in urls {
            of_node.push(ask(cluster, node, *url).await);
        }
        seen.push(of_node);
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_purges_is_gone_on_every_node_and_nothing_that_is_not_its_own() {
    let (cluster, upstream) = (Cluster::start(NODES).await, counting().await);
    workers(&cluster, &upstream, &["one", "two"]).await;
    let urls = [
        ("one", "/a/1?tag=t"),
        ("one", "/b/1?tag=u"),
        ("one", "/own/1?tag=t"),
        ("one", "/behind/1"),
        ("two", "/a/1?tag=t"),
        ("two", "/own/1?tag=t"),
        ("two", "/behind/1"),
    ];
    let mut before = look(&cluster, &urls).await;
    assert_eq!(look(&cluster, &urls).await, before, "all of it is stored");
    for (what, gone) in [
        (json!({ "tags": ["T"] }), [true, false, true, true, false, false, false]),
        (json!({ "pathPrefixes": ["/a/", "/own"] }), [true, false, true, false, false, false, false]),
        (json!({ "pathPrefixes": ["/behind/1"], "tags": ["u"] }), [false, true, false, true, false, false, false]),
        (
            json!({ "urls": ["https://ONE.test/a/1?tag=t", "one.test/behind/1", "two.test/a/1?tag=t"] }),
            [true, false, false, true, false, false, false],
        ),
        (json!({ "files": ["http://one.test/b/1?tag=u"], "urls": ["one.test/a/1"] }), [false, true, false, false, false, false, false]),
        (json!({ "prefixes": ["one.test/own", "two.test/"] }), [false, false, true, false, false, false, false]),
        (json!({ "hosts": ["two.test"] }), [false; 7]),
        (json!({ "hosts": ["one.test"] }), [true, true, true, true, false, false, false]),
        (json!({ "purgeEverything": true }), [true, true, true, true, false, false, false]),
    ] {
        assert_eq!(purge(&cluster, "one", &what).await, json!({ "success": true, "errors": [] }), "{what}");
        for (at, url) in urls.iter().enumerate() {
            // The node of the worker that purges has applied it before the worker goes on.
            assert_eq!(ask(&cluster, 0, *url).await != before[0][at], gone[at], "{what} {url:?} on the worker's own node");
        }
        let after = eventually("it is gone on the other nodes", Duration::from_secs(5), async || {
            let after = look(&cluster, &urls).await;
            let is_new = |node: usize, at: usize| after[node][at] != before[node][at];
            (0..NODES).all(|node| (0..urls.len()).all(|at| is_new(node, at) || !gone[at])).then_some(after)
        })
        .await;
        for node in 0..NODES {
            let new: Vec<bool> = (0..urls.len()).map(|at| after[node][at] != before[node][at]).collect();
            assert_eq!(new, gone, "{what} on node {node}");
        }
        before = after;
    }
    let page = cluster.client.log(None, None).await.unwrap();
    assert!(page.entries.iter().any(|entry| entry.actor == "worker one on node node-0"), "who purged is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_purges_softly_is_stale_and_stands_in_while_it_is_fetched_anew() {
    let number = std::sync::atomic::AtomicUsize::new(0);
    let upstream = Upstream::start(move |_| {
        let text = format!("page {}", number.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
        http::Response::builder().header("cache-control", "max-age=60, stale-while-revalidate=60").body(text.into()).unwrap()
    })
    .await;
    let cluster = Cluster::start(1).await;
    workers(&cluster, &upstream, &["one", "two"]).await;
    let page = ("one", "/behind/1");
    let (before, other) = (ask(&cluster, 0, page).await, ask(&cluster, 0, ("two", "/behind/1")).await);
    for what in [json!({ "urls": ["one.test/behind/1"], "soft": true }), json!({ "purgeEverything": true, "soft": true })] {
        let before = ask(&cluster, 0, page).await;
        assert_eq!(purge(&cluster, "one", &what).await["success"], true, "{what}");
        assert_eq!(ask(&cluster, 0, page).await, before, "{what}: stale, and sent while it is refreshed");
        eventually("it is refreshed", Duration::from_secs(10), async || (ask(&cluster, 0, page).await != before).then_some(())).await;
    }
    let soft = ask(&cluster, 0, page).await;
    assert_eq!(purge(&cluster, "one", &json!({ "urls": ["one.test/behind/1"] })).await["success"], true);
    assert_ne!(ask(&cluster, 0, page).await, soft, "a hard one leaves nothing to send");
    assert_ne!(before, soft);
    assert_eq!(ask(&cluster, 0, ("two", "/behind/1")).await, other, "another worker's stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_is_not_made_says_why() {
    let (mut cluster, upstream) = (Cluster::start(1).await, counting().await);
    workers(&cluster, &upstream, &["one"]).await;
    let refused = async |cluster: &Cluster, what: Value| {
        let answer = purge(cluster, "one", &what).await;
        assert_eq!(answer["success"], false, "{answer}");
        let error = answer["errors"][0].clone();
        (error["code"].as_u64().unwrap(), error["message"].as_str().unwrap().to_owned())
    };
    for (what, word) in [
        (json!({}), "names nothing"),
        (json!({ "tags": ["a,b"] }), "comma"),
        (json!({ "pathPrefixes": ["https://one.test/a"] }), "begins with /"),
        (json!({ "pathPrefixes": ["/a b"] }), "printable ASCII"),
        (json!({ "soft": true }), "names nothing"),
        (json!({ "urls": ["ftp://one.test/"] }), "scheme"),
        (json!({ "hosts": ["one.test/a"] }), "no path"),
        (json!({ "prefixes": ["one.test"] }), "goes on after its host"),
    ] {
        let (code, message) = refused(&cluster, what).await;
        assert!((400..429).contains(&code) && message.contains(word), "{code} {message}");
    }
    // What breaks the crossing's bounds is the worker's own mistake.
    assert!(purge(&cluster, "one", &json!({ "zones": ["one.test"] })).await.as_str().unwrap().starts_with("TypeError"));
    // 500 things at once, 20 more each second.
    let many = |from: usize| json!({ "tags": (from..from + 450).map(|n| format!("t{n}")).collect::<Vec<_>>() });
    assert_eq!(purge(&cluster, "one", &many(0)).await["success"], true);
    let (code, message) = refused(&cluster, many(450)).await;
    assert!(code == 429 && message.contains("try again in"), "{code} {message}");
    cluster.stop_origin().await;
    let (code, message) = refused(&cluster, json!({ "tags": ["a"] })).await;
    assert!(code == 503 && message.contains("registry") && !message.contains("127.0.0.1"), "{code} {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_costs_a_subrequest_and_a_worker_has_only_so_many_on_their_way() {
    let cluster = Cluster::start(1).await;
    let script = "export default { async fetch(request, env, ctx) {
        const all = Array.from({ length: 60 }, () => ctx.cache.purge({ tags: ['a'] }));
        const said = (await Promise.allSettled(all)).map(({ value, reason }) => reason ? String(reason) : value.success ? 'made' : value.errors[0].message);
        return Response.json(said);
    } };";
    cluster.deploy_with("own", script, Deploy { subrequests_max: Some(30), ..Deploy::default() }).await;
    let said: Vec<String> = serde_json::from_str(&cluster.get("own.test", "/").await.text()).unwrap();
    let count = |word: &str| said.iter().filter(|text| text.contains(word)).count();
    assert_eq!(count("Too many subrequests"), 30, "{said:?}");
    assert!(count("made") >= 8 && count("made") + count("on their way") == 30, "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_workers_own_is_purged_by_its_name() {
    let (cluster, upstream) = (Cluster::start(1).await, counting().await);
    let routes = Some(vec![route("wish.test/*", Some("wish"), Some(&upstream.url()))]);
    cluster.deploy_with("wish", &fixture("wishes"), Deploy { routes, ..Deploy::default() }).await;
    let ask = async |key: &str| {
        let cf: String = json!({ "cacheTtl": 60, "cacheKey": key }).to_string().bytes().map(|byte| format!("%{byte:02x}")).collect();
        cluster.get("wish.test", &format!("/?cf={cf}&url=http://wish.test/page")).await.text()
    };
    let keys = ["page 1", "Page 1", "/page", "https://WISH.test:443/page?b=1"];
    let mut before = Vec::new();
    for key in keys {
        before.push(ask(key).await);
    }
    let purges = [
        (NewPurge { urls: vec!["http://wish.test/page".into()], ..NewPurge::default() }, [false; 4]),
        (NewPurge { keys: vec!["page 1".into()], ..NewPurge::default() }, [true, false, false, false]),
        (NewPurge { keys: vec!["/page".into()], ..NewPurge::default() }, [false, false, true, false]),
        (NewPurge { keys: vec!["http://wish.test:80/page?b=1".into()], ..NewPurge::default() }, [false, false, false, true]),
        (NewPurge { urls: vec!["wish.test/page?b=1".into()], ..NewPurge::default() }, [false, false, false, true]),
    ];
    for (purge, gone) in purges {
        cluster.purge(&purge).await;
        for (at, key) in keys.iter().enumerate() {
            let now = ask(key).await;
            assert_eq!(now != before[at], gone[at], "{purge:?} {key}");
            before[at] = now;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_method_and_no_field_of_a_client_purges() {
    let cluster = Cluster::start(1).await;
    let number = std::sync::atomic::AtomicUsize::new(0);
    let upstream = Upstream::start(move |request| {
        let text = format!("{} {}", request.method(), number.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
        // Of /strict it takes no other method.
        let refused = request.method() != "GET" && request.uri().path() == "/strict";
        let answer = http::Response::builder().status(if refused { 405 } else { 200 });
        answer.header("cache-control", "max-age=600").header("cache-tag", "t").body(text.into()).unwrap()
    })
    .await;
    cluster.apply(vec![route("site.test/*", None, Some(&upstream.url()))]).await;
    const FIELDS: [(&str, &str); 12] = [
        ("cache-tag", "t"),
        ("surrogate-key", "t"),
        ("selvedge-tags", "*"),
        ("selvedge-peer", "purge"),
        ("fastly-soft-purge", "1"),
        ("x-purge-method", "regex"),
        ("x-purge-regex", ".*"),
        ("x-ban-url", ".*"),
        ("x-purge-tags", "t"),
        ("x-cache-tags", "t"),
        ("x-varnish-ban", "req.url ~ ."),
        ("x-http-method-override", "PURGE"),
    ];
    for over in [Over::Cleartext, Over::H1, Over::H2, Over::H3] {
        let ask = async |path: &str| cluster.send(over, client::get("site.test", path)).await.text();
        let strange = async |method: &str, path: &str| {
            let mut request = client::request(method, "site.test", path, "");
            for (name, value) in FIELDS {
                request.headers_mut().insert(name, value.parse().unwrap());
            }
            cluster.send(over, request).await
        };
        let before = [ask("/strict").await, ask("/other").await];
        for method in ["GET", "PURGE", "BAN", "REFRESH", "PURGEALL", "XKEYPURGE", "INVALIDATE", "DELETE"] {
            let answer = strange(method, "/strict").await;
            match method {
                "GET" => assert_eq!(answer.text(), before[0], "{over:?}: a hit like any other"),
                _ => assert!(answer.status == 405 && answer.text().starts_with(method), "{over:?}: the upstream's answer: {answer:?}"),
            }
            assert_eq!([ask("/strict").await, ask("/other").await], before, "{over:?} {method}");
        }
        // An upstream that takes it for an unsafe method makes its one URL invalid by that, as by POST (RFC 9111, section 4.4), and nothing else.
        let page = ask("/page").await;
        assert_eq!(strange("PURGE", "/page").await.status, 200);
        assert_ne!(ask("/page").await, page, "{over:?}");
        assert_eq!([ask("/strict").await, ask("/other").await], before, "{over:?}");
        let _ = cluster.client.purge(&NewPurge { everything: true, ..NewPurge::default() }).await.unwrap();
        eventually("the next protocol begins anew", Duration::from_secs(10), async || (ask("/strict").await != before[0]).then_some(()))
            .await;
    }
}
