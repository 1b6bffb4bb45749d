//! Caches that workers use: in front of them, their own, behind their `fetch()`; and who answers where they pass through. With real isolates.

use std::time::Duration;

use http::Method;
use selvedge_tests::client::{self, Over};
use selvedge_tests::{Cluster, Deploy, Upstream, eventually, fixture, route};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_puts_is_there_for_its_next_request_and_for_no_other_worker() {
    let cluster = Cluster::start(1).await;
    for name in ["one", "two"] {
        cluster.deploy(name, &fixture("own_caches")).await;
    }
    for cache in ["default", "pages", "%00%0A%2F", "%C3%A4"] {
        assert_eq!(cluster.get("one.test", &format!("/match/{cache}")).await.status, 404);
        assert_eq!(cluster.get("one.test", &format!("/put/{cache}?{cache}")).await.text(), "undefined");
        let hit = cluster.get("one.test", &format!("/match/{cache}")).await;
        assert_eq!((hit.status, hit.text().as_str(), hit.header("cf-cache-status")), (200, cache, "HIT"));
        assert_eq!(cluster.get("two.test", &format!("/match/{cache}")).await.status, 404, "another worker's is another");
    }
    let mut request = client::get("one.test", "/match/default");
    request.headers_mut().insert("range", "bytes=0-2".parse().unwrap());
    let part = cluster.send(Over::Cleartext, request).await;
    assert_eq!((part.status, part.text().as_str()), (206, "def"));
    let mut request = client::get("one.test", "/match/default");
    request.headers_mut().insert("if-none-match", "\"1\"".parse().unwrap());
    assert_eq!(cluster.send(Over::Cleartext, request).await.status, 304);
    assert_eq!(cluster.get("one.test", "/delete/default").await.text(), "true");
    assert_eq!(cluster.get("one.test", "/delete/default").await.text(), "false");
    assert_eq!(cluster.get("one.test", "/match/default").await.status, 404);
    assert_eq!(cluster.get("one.test", "/match/pages").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_body_goes_to_the_client_and_into_the_cache() {
    let cluster = Cluster::start(1).await;
    cluster.deploy("own", &fixture("own_caches")).await;
    assert_eq!(cluster.get("own.test", "/fill/pages").await.body.len(), 300_000);
    let ask = async || {
        let found = cluster.get("own.test", "/match/pages").await;
        (found.status == 200).then_some(found)
    };
    let found = eventually("the put in waitUntil is done", Duration::from_secs(10), ask).await;
    assert!(found.body.len() == 300_000 && found.body.iter().all(|byte| *byte == b'x'));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_worker_neither_fills_the_cache_nor_gets_more_than_its_subrequests() {
    let cluster = Cluster::start(1).await;
    let deploy = Deploy { cpu_ms: Some(5_000), ..Deploy::default() };
    cluster.deploy_with("own", &fixture("own_caches"), deploy).await;
    let endless = cluster.get("own.test", "/endless/pages").await;
    assert!(endless.status == 599 && endless.text().contains("nothing was kept"), "{} {}", endless.status, endless.text());
    assert_eq!(cluster.get("own.test", "/match/pages").await.status, 404);
    let answers = cluster.get("own.test", "/parallel/pages").await.text();
    assert!(answers.contains("\"ok\"") && answers.contains("subrequests"), "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_passes_through_is_stood_in_for_by_its_upstream() {
    let cluster = Cluster::start(1).await;
    let upstream = Upstream::start(|request| {
        let text = format!("upstream: {} {}", request.method(), String::from_utf8_lossy(request.body()));
        http::Response::new(text.into())
    })
    .await;
    let routes = Some(vec![route("pass.test/*", Some("pass"), Some(&upstream.url())), route("alone.test/*", Some("pass"), None)]);
    cluster.deploy_with("pass", &fixture("passes_through"), Deploy { routes, ..Deploy::default() }).await;
    for path in ["/throw", "/spin"] {
        let answer = cluster.get("pass.test", path).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "upstream: GET "), "{path}");
        assert!(answer.header("proxy-status").contains("passed through"), "{:?}", answer.headers);
    }
    for path in ["/throw", "/read"] {
        let mut request = client::get("pass.test", path);
        *request.method_mut() = Method::POST;
        *request.body_mut() = vec![b'x'; 100_000].into();
        let answer = cluster.send(Over::H2, request).await;
        assert_eq!((answer.status, answer.body.len()), (200, "upstream: POST ".len() + 100_000), "{path}");
    }
    // What the worker has not read it has not been sent; what it has read is kept up to a bound.
    for (path, status) in [("/throw", 200), ("/read", 500)] {
        let mut request = client::get("pass.test", path);
        *request.method_mut() = Method::POST;
        *request.body_mut() = vec![b'x'; 400_000].into();
        let answer = cluster.send(Over::H2, request).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(status != 200 || answer.body.len() == "upstream: POST ".len() + 400_000);
    }
    assert_eq!(cluster.get("pass.test", "/strict").await.status, 500);
    assert_eq!(cluster.get("alone.test", "/throw").await.status, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn wishes_of_a_fetch_decide_how_long_its_answer_is_kept() {
    let cluster = Cluster::start(1).await;
    let upstream = Upstream::start(|_| http::Response::builder().header("cache-control", "no-store").body("x".into()).unwrap()).await;
    let routes = Some(vec![route("wish.test/*", Some("wish"), Some(&upstream.url()))]);
    cluster.deploy_with("wish", &fixture("wishes"), Deploy { routes, ..Deploy::default() }).await;
    let ask = async |cf: &str, path: &str| {
        let cf: String = cf.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = cluster.get("wish.test", &format!("/?cf={cf}&url=http://wish.test/{path}")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "x"));
        upstream.asked()
    };
    assert_eq!((ask("{}", "a").await, ask("{}", "a").await), (1, 2));
    let kept = r#"{"cacheTtl": 60}"#;
    assert_eq!((ask(kept, "a").await, ask(kept, "a").await, ask("{}", "a").await), (3, 3, 4));
    let keyed = r#"{"cacheTtl": 60, "cacheKey": "k", "cacheTags": ["t"]}"#;
    assert_eq!((ask(keyed, "b").await, ask(keyed, "c").await), (5, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_front_of_a_worker_the_cache_answers_heads_ranges_and_conditions_and_tells_versions_apart() {
    let script = |text: &str| {
        format!(
            "export default {{ fetch(request) {{ const headers = {{ 'cache-control': 'max-age=60', etag: '\"{text}\"', vary: 'accept-language' }};
                if (new URL(request.url).pathname === '/cookie') headers['set-cookie'] = 'a=b';
                return new Response(crypto.randomUUID() + ' {text}', {{ headers }}); }} }};"
        )
    };
    let cluster = Cluster::start(1).await;
    let deploy = |cross_version: bool, name: &str| {
        let mut front = route(&format!("{name}.test/*"), Some(name), None);
        (front.cache.enabled, front.cache.cross_version) = (Some(true), cross_version);
        Deploy { routes: Some(vec![front]), ..Deploy::default() }
    };
    for (name, cross_version) in [("own", false), ("cross", true)] {
        cluster.deploy_with(name, &script("one"), deploy(cross_version, name)).await;
        let host = format!("{name}.test");
        let first = cluster.get(&host, "/").await.text();
        assert_eq!(cluster.get(&host, "/").await.text(), first);
        let ask = async |method: Method, field: (&'static str, &str)| {
            let mut request = client::get(&host, "/");
            *request.method_mut() = method;
            request.headers_mut().insert(field.0, field.1.parse().unwrap());
            cluster.send(Over::Cleartext, request).await
        };
        assert_eq!(ask(Method::GET, ("cookie", "a=b")).await.text(), first, "a cookie of the client tells nothing apart");
        assert_ne!(ask(Method::GET, ("accept-language", "de")).await.text(), first);
        let part = ask(Method::GET, ("range", "bytes=0-3")).await;
        assert_eq!((part.status, part.text()), (206, first[..4].to_owned()));
        assert_eq!(ask(Method::GET, ("if-none-match", "\"one\"")).await.status, 304);
        let head = ask(Method::HEAD, ("accept", "*/*")).await;
        assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, "40"));
        assert_ne!(cluster.get(&host, "/cookie").await.text(), cluster.get(&host, "/cookie").await.text());
        cluster.deploy_with(name, &script("two"), deploy(cross_version, name)).await;
        let after = cluster.get(&host, "/").await.text();
        assert_eq!(after == first, cross_version, "{after}");
    }
}
