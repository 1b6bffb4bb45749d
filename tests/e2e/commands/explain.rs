//! explain and upstreams: what operators read, and exit codes.

use std::time::{Duration, Instant};

use selvedge_tests::client::{self, Over, get};
use selvedge_tests::{Upstream, eventually};

use super::Installation;

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_reads_why_a_request_is_a_hit_and_which_node_is_away() {
    let upstream = Upstream::start(|_| http::Response::builder().header("cache-control", "max-age=60").body("page".into()).unwrap()).await;
    let mut installation = Installation::start();
    let http = installation.edge.as_ref().unwrap().address("http");
    let site = installation.dir.path().join("site.toml");
    std::fs::write(&site, format!("name = \"www\"\n[[route]]\npattern = \"a.test/*\"\nupstream = \"{}\"\n", upstream.url())).unwrap();
    assert_eq!(installation.run(&["apply", &site.to_string_lossy()]).code, 0);
    let status = async || client::send(Over::Cleartext, http, get("a.test", "/x")).await.unwrap().status;
    eventually("the route answers", Duration::from_secs(10), async || (status().await == 200).then_some(())).await;

    let told = installation.run(&["explain", "http://a.test/x", "--node", "node-0", "-H", "Accept: text/html"]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let document = told.document();
    let layer = &document["nodes"][0]["told"]["explained"]["layers"][0];
    assert_eq!((&document["result"], &layer["verdict"]["action"]), (&"answered".into(), &"hit".into()), "{document}");
    let shown = installation.run_for_people(&["explain", "http://a.test/x"]);
    for words in ["node-0 (", "): hit\n", "key", "u http a.test /x", "of 60 s (max-age)", "in memory", "cache-control: max-age=60"] {
        assert!(shown.stdout.contains(words), "{words:?} in\n{}", shown.stdout);
    }
    let servers = installation.run_for_people(&["upstreams"]);
    assert!(servers.code == 0 && servers.stdout.contains(" up ") && servers.stdout.contains(&upstream.url()), "{}", servers.stdout);
    assert_eq!(installation.run(&["explain", "http://a.test/x", "--node", "nobody"]).code, 1);
    assert_eq!(installation.run(&["explain", "ftp://a.test/x"]).code, 1);
    assert_eq!(installation.run(&["explain", "http://a.test/x", "-H", "no field"]).code, 2);

    // Connections are made to it, and nobody answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, begun) = (format!("http://{}", silent.local_addr().unwrap()), Instant::now());
    for command in [&["explain", "http://a.test/x"][..], &["upstreams"]] {
        let ended = installation.run(&[command, &["--origin", &address, "--wait", "300ms"]].concat());
        assert!(ended.code == 1 && ended.stderr.contains("does not answer in time"), "{} {}", ended.code, ended.stderr);
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());

    drop(installation.edge.take());
    let away = async || {
        let strict = installation.run(&["explain", "http://a.test/x", "--wait", "200ms"]);
        (strict.document()["result"] == "away").then_some(strict)
    };
    let strict = eventually("the node is away", Duration::from_secs(20), away).await;
    assert!(strict.code == 3 && strict.stderr.contains("node-0"), "{} {}", strict.code, strict.stderr);
    assert_eq!(installation.run(&["explain", "http://a.test/x", "--connected-only"]).code, 0);
}
