//! `103 Early Hints` made from earlier answers.

use std::sync::atomic::{AtomicUsize, Ordering};

use selvedge_origin::api::wire::NewPurge;
use selvedge_tests::client::{self, Answer, Over};
use selvedge_tests::{Cluster, Upstream, route};

fn links(answer: &Answer) -> Vec<String> {
    let lines = answer.interim.iter().flat_map(|(status, headers)| {
        assert_eq!(*status, 103);
        headers.get_all("link").iter().map(|link| link.to_str().expect("text").to_owned())
    });
    lines.collect()
}

async fn hinting(answer: impl Fn(&str, usize) -> http::response::Builder + Send + Sync + 'static) -> (Cluster, Upstream) {
    let cluster = Cluster::start(1).await;
    let asked = AtomicUsize::new(0);
    let upstream = Upstream::start(move |request| {
        let number = asked.fetch_add(1, Ordering::SeqCst);
        answer(request.uri().path(), number).body(format!("answer {number}").into()).expect("an answer")
    })
    .await;
    let hinted = selvedge_origin::api::wire::RouteSpec { early_hints: true, ..route("hinted.test/*", None, Some(&upstream.url())) };
    cluster.apply(vec![hinted, route("plain.test/*", None, Some(&upstream.url()))]).await;
    (cluster, upstream)
}

const LINK: &str =
    "</style.css>; rel=preload; as=style, <https://cdn.test>; rel=preconnect, <https://other.test/x>; rel=preload, </n>; rel=next";

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_is_told_what_the_last_answer_linked_to() {
    let (cluster, _upstream) = hinting(|path, number| {
        let answer = http::Response::builder();
        match (path, number) {
            ("/", 0..2) => answer.header("link", LINK).header("cache-control", "no-cache"),
            ("/private", _) => answer.header("link", LINK).header("cache-control", "private"),
            ("/cdn", _) => answer.header("link", LINK).header("cdn-cache-control", "private").header("cache-control", "max-age=0"),
            _ => answer,
        }
    })
    .await;
    let ask = |host: &'static str, path: &'static str| cluster.send(Over::H3, client::get(host, path));
    let first = ask("hinted.test", "/").await;
    assert_eq!(links(&first), [""; 0], "nothing is known yet");
    let second = ask("hinted.test", "/").await;
    assert_eq!(links(&second), ["</style.css>; rel=preload; as=style", "<https://cdn.test>; rel=preconnect"]);
    assert_eq!((second.status, second.text().as_str()), (200, "answer 1"), "the final answer comes after");
    let mut subresource = client::get("hinted.test", "/");
    subresource.headers_mut().insert("sec-fetch-mode", "no-cors".parse().expect("a value"));
    assert_eq!(links(&cluster.send(Over::H3, subresource).await), [""; 0], "only a page that is about to be shown");
    assert_eq!(links(&ask("hinted.test", "/").await), [""; 0], "the answer before had no links");
    for (host, path) in [("hinted.test", "/other"), ("plain.test", "/"), ("hinted.test", "/private"), ("hinted.test", "/cdn")] {
        ask(host, path).await;
        assert_eq!(links(&ask(host, path).await), [""; 0], "{host}{path}");
    }
    let plain = cluster.send(Over::Cleartext, client::get("hinted.test", "/")).await;
    assert_eq!(plain.status, 200, "HTTP/1.1 has none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_needs_no_hint() {
    let (cluster, upstream) = hinting(|_, _| http::Response::builder().header("link", LINK).header("cache-control", "max-age=60")).await;
    for _ in 0..3 {
        assert_eq!(links(&cluster.send(Over::H3, client::get("hinted.test", "/")).await), [""; 0]);
    }
    assert_eq!(upstream.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_reaches_an_answer_reaches_what_was_learnt_from_it() {
    let (cluster, _upstream) =
        hinting(|_, _| http::Response::builder().header("link", LINK).header("cache-control", "no-cache").header("cache-tag", "page"))
            .await;
    let ask = async |path: &str| links(&cluster.send(Over::H3, client::get("hinted.test", path)).await).len();
    ask("/kept").await;
    let named = |what: &str| vec![what.to_owned()];
    for (purge, reached) in [
        (NewPurge { urls: named("https://hinted.test/page"), ..NewPurge::default() }, true),
        (NewPurge { prefixes: named("hinted.test/p"), ..NewPurge::default() }, true),
        (NewPurge { hosts: named("other.test"), ..NewPurge::default() }, false),
        (NewPurge { urls: named("https://hinted.test/other"), tags: named("other"), ..NewPurge::default() }, false),
        (NewPurge { urls: named("https://hinted.test/page"), soft: true, ..NewPurge::default() }, true),
    ] {
        ask("/page").await;
        assert_eq!(ask("/page").await, 2, "{purge:?}: it is known");
        cluster.purge(&purge).await;
        assert_eq!(ask("/page").await, if reached { 0 } else { 2 }, "{purge:?}");
        assert_eq!(ask("/kept").await, 2, "{purge:?}: it is another");
    }
    for purge in [
        NewPurge { hosts: named("hinted.test"), ..NewPurge::default() },
        NewPurge { tags: named("page"), ..NewPurge::default() },
        NewPurge { everything: true, ..NewPurge::default() },
    ] {
        cluster.purge(&purge).await;
        assert_eq!([ask("/page").await, ask("/kept").await], [0; 2], "{purge:?}");
    }
}
