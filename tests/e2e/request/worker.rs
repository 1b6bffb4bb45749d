//! What a worker sees and can do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use selvedge_tests::client::{self, Over};
use selvedge_tests::{Cluster, Deploy, Upstream, eventually, fixture, route};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a worker that goes on without its client may take.
const WAIT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn it_sees_the_request_its_bindings_and_the_client() {
    let cluster = Cluster::start(1).await;
    let vars = BTreeMap::from([("TEXT".to_owned(), json!("a")), ("DATA".to_owned(), json!({"n": [1, 2]}))]);
    cluster.deploy_with("client", &fixture("client"), Deploy { vars, ..Deploy::default() }).await;
    for (over, protocol) in [(Over::Cleartext, "HTTP/1.1"), (Over::H2, "HTTP/2"), (Over::H3, "HTTP/3")] {
        let mut request = client::get("client.test", "/p?q=1");
        request.headers_mut().insert("x-forwarded-for", "6.6.6.6".parse().unwrap());
        request.headers_mut().insert("cf-connecting-ip", "6.6.6.6".parse().unwrap());
        request.headers_mut().insert("forwarded", "for=6.6.6.6".parse().unwrap());
        let answer = cluster.send(over, request).await;
        let seen: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}", answer.text()));
        let scheme = if over == Over::Cleartext { "http" } else { "https" };
        assert_eq!(seen["url"], format!("{scheme}://client.test/p?q=1"));
        assert_eq!(seen["env"], json!({"TEXT": "a", "DATA": {"n": [1, 2]}}));
        assert_eq!(seen["cf"]["httpProtocol"], protocol);
        assert_eq!(seen["headers"]["cf-connecting-ip"], "127.0.0.1", "what the client claims is not believed: {seen}");
        assert!(!answer.text().contains("6.6.6.6"), "{seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_cannot_reach_what_is_not_for_workers() {
    let cluster = Cluster::start(1).await;
    cluster.deploy("internals", &fixture("internals")).await;
    let answer = cluster.get("internals.test", "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "[]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_stream_arrives_whole() {
    let cluster = Cluster::start(1).await;
    cluster.deploy("stream", &fixture("stream")).await;
    let answer = cluster.send(Over::H2, client::get("stream.test", "/?chunks=200")).await;
    assert_eq!(answer.body.len(), 200 * 65536);
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_until_goes_on_after_the_answer_and_without_the_client() {
    let cluster = Cluster::start(1).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let upstream = Upstream::start({
        let told = told.clone();
        move |request| {
            told.lock().push(request.uri().path().to_owned());
            http::Response::new("heard".into())
        }
    })
    .await;
    let routes = Some(vec![route("wait-until.test/*", Some("wait-until"), Some(&upstream.url()))]);
    cluster.deploy_with("wait-until", &fixture("wait_until"), Deploy { routes, ..Deploy::default() }).await;
    let hears = async |what: &str| eventually(what, WAIT, async || told.lock().pop().filter(|path| path == what)).await;
    assert_eq!(cluster.get("wait-until.test", "/").await.text(), "answered");
    hears("/noted").await;
    let ask = async |path: &str| {
        let mut client = TcpStream::connect(cluster.edges[0].http).await.unwrap();
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: wait-until.test\r\n\r\n").as_bytes()).await.unwrap();
        client
    };
    let mut leaves_in_the_body = ask("/endless").await;
    leaves_in_the_body.read_exact(&mut [0; 4096]).await.unwrap();
    drop(leaves_in_the_body);
    hears("/noted").await;
    let leaves_before_the_head = ask("/never").await;
    hears("/began").await;
    drop(leaves_before_the_head);
    hears("/noted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_of_a_bundle_import_each_other() {
    use selvedge_origin::bundle::{ModuleKind, PackModule};
    let cluster = Cluster::start(1).await;
    let module = |specifier: &str, kind, text: &'static str| PackModule {
        specifier: specifier.into(),
        kind,
        bytes: bytes::Bytes::from_static(text.as_bytes()),
        source_map: None,
    };
    let modules = vec![
        module("lib/greet.js", ModuleKind::EsModule, "import data from '../data.json'; export const greet = () => data.greeting;"),
        module("data.json", ModuleKind::Json, r#"{"greeting": "hi"}"#),
        module("note.txt", ModuleKind::Text, "noted"),
    ];
    let script = "import { greet } from './lib/greet.js'; import note from './note.txt'; \
                  export default { fetch: () => new Response(greet() + ' ' + note) };";
    cluster.deploy_with("modules", script, Deploy { modules, ..Deploy::default() }).await;
    assert_eq!(cluster.get("modules.test", "/").await.text(), "hi noted");
}
