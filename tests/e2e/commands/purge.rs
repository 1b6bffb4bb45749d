//! purge: each kind of it, on nodes that are there and on one that is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use selvedge_tests::client::{self, Over};
use selvedge_tests::{Daemon, Upstream, eventually};
use serde_json::{Value, json};

use super::Installation;

/// What is stored before each purge: host, path and query, language.
const PAGES: [(&str, &str, &str); 8] = [
    ("plain.test", "/a", "en"),
    ("plain.test", "/a", "de"),
    ("plain.test", "/b?x=1", "en"),
    ("plain.test", "/dir/1", "en"),
    ("other.test", "/a", "en"),
    ("rules.test", "/p?utm=1&page=2&b=3", "en"),
    ("rules.test", "/p?utm=1&page=2&b=3", "de"),
    ("sorted.test", "/s?b=1&a=2", "en"),
];

/// An origin, two nodes, and an upstream that never says the same twice.
struct Site {
    installation: Installation,
    nodes: Vec<Daemon>,
    upstream: Upstream,
}

impl Site {
    async fn start() -> Self {
        let number = Arc::new(AtomicUsize::new(0));
        let upstream = Upstream::start(move |request| {
            let answer = http::Response::builder().header("cache-control", "max-age=600").header("vary", "accept-language");
            let answer = answer.header("etag", "\"1\"").header("cache-tag", format!("shop, T{}", request.uri().path()));
            if request.headers().contains_key("if-none-match") {
                return answer.status(304).body(Default::default()).unwrap();
            }
            answer.body(format!("{} {}", number.fetch_add(1, Ordering::SeqCst), request.uri()).into()).unwrap()
        })
        .await;
        let installation = Installation::without_nodes();
        let mut site = Self { installation, nodes: Vec::new(), upstream };
        for number in 0..2 {
            let node = site.node(number);
            site.nodes.push(node);
        }
        site.apply().await;
        site
    }

    fn node(&self, number: usize) -> Daemon {
        let dir = self.installation.dir.path();
        Daemon::edge(&format!("node-{number}"), &dir.join(format!("edge-{number}")), self.installation.url(), &dir.join("origin"))
    }

    async fn apply(&self) {
        let route = |host: &str, query: &str| {
            let upstream = self.upstream.url();
            format!("[[route]]\npattern = \"{host}/*\"\nupstream = \"{upstream}\"\n[route.cache]\nquery = {query}\n")
        };
        let routes =
            [("plain.test", "\"keep\""), ("other.test", "\"keep\""), ("rules.test", "[\"page\", \"b\"]"), ("sorted.test", "\"sort\"")];
        let text: String = routes.map(|(host, query)| route(host, query)).concat();
        let file = self.installation.dir.path().join("site.toml");
        std::fs::write(&file, format!("name = \"www\"\n{text}")).unwrap();
        let ended = self.installation.run(&["apply", &file.to_string_lossy()]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        for node in &self.nodes {
            let http = node.address("http");
            let ask =
                async || (client::send(Over::Cleartext, http, client::get("sorted.test", "/")).await.unwrap().status == 200).then_some(());
            eventually("the routes answer", Duration::from_secs(10), ask).await;
        }
    }

    async fn ask(&self, node: usize, (host, path, language): (&str, &str, &str)) -> client::Answer {
        let mut request = client::get(host, path);
        request.headers_mut().insert("accept-language", language.parse().unwrap());
        let answer = client::send(Over::Cleartext, self.nodes[node].address("http"), request).await.unwrap();
        assert_eq!(answer.status, 200);
        answer
    }

    /// What every node says of every page.
    async fn look(&self) -> Vec<String> {
        let mut seen = Vec::new();
        for node in 0..self.nodes.len() {
            for page in PAGES {
                seen.push(self.ask(node, page).await.text());
            }
        }
        seen
    }
}

fn states(document: &Value) -> Vec<(&str, &str)> {
    let nodes = document["nodes"].as_array().unwrap();
    nodes.iter().map(|node| (node["node"].as_str().unwrap(), node["state"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_takes_back_what_it_names_and_nothing_else_on_every_node() {
    let site = Site::start().await;
    let mut before = site.look().await;
    assert_eq!(site.look().await, before, "all of it is stored");
    for (arguments, gone) in [
        (&["http://plain.test/a"][..], &[0, 1][..]),
        (&["--url", "https://PLAIN.test/b?x=1#part"], &[2]),
        (&["https://plain.test/b"], &[]),
        (&["--prefix", "plain.test/d"], &[3]),
        (&["--host", "plain.test"], &[0, 1, 2, 3]),
        (&["--tag", "t/A"], &[0, 1, 4]),
        (&["--tag", "a"], &[]),
        // As clients ask, and as it is stored: by the route's rules, with all variants.
        (&["http://rules.test/p?utm=9&b=3&page=2"], &[5, 6]),
        (&["http://rules.test/p?b=3&page=2"], &[5, 6]),
        (&["http://rules.test/p?page=2"], &[]),
        (&["http://rules.test/p"], &[]),
        (&["http://sorted.test/s?a=2&b=1"], &[7]),
        (&["http://other.test/a", "--prefix", "plain.test/b", "--tag", "T/s"], &[2, 4, 7]),
        (&["--everything"], &[0, 1, 2, 3, 4, 5, 6, 7]),
    ] {
        let ended = site.installation.run(&[&["purge"], arguments].concat());
        assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.stderr);
        let document = ended.document();
        assert_eq!((&document["result"], states(&document)), (&json!("applied"), vec![("node-0", "applied"), ("node-1", "applied")]));
        assert!(document["nodes"].as_array().unwrap().iter().all(|node| node["ms"].is_u64()), "{document}");
        let after = site.look().await;
        let new: Vec<usize> = (0..after.len()).filter(|at| after[*at] != before[*at]).collect();
        let expected: Vec<usize> = (0..2).flat_map(|node| gone.iter().map(move |at| node * PAGES.len() + at)).collect();
        assert_eq!(new, expected, "{arguments:?}");
        before = after;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_purge_has_what_is_stored_validated() {
    let site = Site::start().await;
    let before = site.look().await;
    let asked = site.upstream.asked();
    let ended = site.installation.run(&["purge", "--soft", "http://plain.test/a", "--message", "new price"]);
    assert_eq!((ended.code, &ended.document()["purge"]["soft"]), (0, &json!(true)), "{}", ended.stderr);
    let answer = site.ask(0, PAGES[0]).await;
    assert!(answer.header("cache-status").contains("fwd=stale; fwd-status=304"), "{:?}", answer.headers);
    assert_eq!((answer.text(), site.upstream.asked()), (before[0].clone(), asked + 1), "the same, once the upstream has said so");
    assert_eq!(site.look().await, before);
    let log = site.installation.run(&["log"]);
    assert!(log.stdout.contains("new price"), "{}", log.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_away_is_named_and_has_not_kept_what_was_purged_when_it_is_back() {
    let mut site = Site::start().await;
    let before = site.look().await;
    let away = site.nodes.pop().unwrap().terminate();
    assert!(away.success());
    let ended = site.installation.run(&["purge", "--tag", "shop"]);
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("node-1") && ended.stderr.contains("--connected-only"), "{}", ended.stderr);
    let document = ended.document();
    assert_eq!((&document["result"], states(&document)), (&json!("away"), vec![("node-0", "applied"), ("node-1", "away")]));
    let ended = site.installation.run(&["purge", "http://plain.test/a", "--connected-only"]);
    assert_eq!((ended.code, &ended.document()["result"]), (0, &json!("away")), "{}", ended.stderr);
    assert!(ended.stderr.contains("node-1"), "{}", ended.stderr);
    let node = site.node(1);
    site.nodes.push(node);
    let caught_up = async || {
        let ended = site.installation.run(&["purge", "http://nobody.test/"]);
        (ended.code == 0 && states(&ended.document()) == [("node-0", "applied"), ("node-1", "applied")]).then_some(())
    };
    eventually("it is back", Duration::from_secs(20), caught_up).await;
    let after = site.look().await;
    assert!(after.iter().zip(&before).all(|(after, before)| after != before), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_makes_no_sense_is_refused_with_what_to_do() {
    let installation = Installation::without_nodes();
    for (arguments, code, word) in [
        (&[][..], 2, "required"),
        (&["ftp://a.test/"], 1, "http or https"),
        (&["--prefix", "a.test"], 1, "goes on after its host"),
        (&["--host", "a.test/x"], 1, "purge a URL or a prefix"),
        (&["--tag", "a,b"], 1, "without a comma"),
        (&["--key", ""], 1, "not empty"),
    ] {
        let ended = installation.run(&[&["purge"], arguments].concat());
        assert!(ended.code == code && ended.stderr.contains(word), "{arguments:?}: {} {}", ended.code, ended.stderr);
    }
    let ended = installation.run(&["purge", "--everything"]);
    assert_eq!((ended.code, states(&ended.document())), (0, vec![]), "without nodes nothing is stored: {}", ended.stderr);
}
