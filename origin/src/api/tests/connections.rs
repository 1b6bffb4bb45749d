//! Connections end when nobody needs them, and stay while somebody does.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_util::sync::CancellationToken;

use super::super::Api;
use super::super::life::{Life, Waits};
use super::super::room::Room;
use super::super::serve::{Speaks, http};
use super::signed::now_us;
use crate::api::wire::{NodeJoin, join_message};
use crate::client::NodeIdentity;
use crate::keys::{Purpose, SigningKey};
use crate::ledger::{Act, Ledger};
use crate::registry;
use crate::store::{Files, Sqlite};
use crate::tokens::{Token, TokenFile, TokenKind};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(60);
/// Less than an answer of HTTP/1.1.
const PIPE_BYTES: usize = 64;

/// An API without a listener.
pub(super) struct Registry {
    pub(super) api: Arc<Api>,
    pub(super) store: Arc<Sqlite>,
    admin: Token,
    pub(super) node: NodeIdentity,
    _folder: tempfile::TempDir,
}

pub(super) async fn registry() -> Registry {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(Sqlite::open(&folder.path().join("registry.db")).expect("a store"));
    let files = Files::open(&folder.path().join("blobs")).expect("a folder of blobs");
    let key = SigningKey::generate().expect("random bytes");
    let token = |kind| TokenFile { kind, token: Token::generate().expect("random bytes"), authority: None, signing_key: key.public() };
    let (admin, node) = (token(TokenKind::Admin), token(TokenKind::Node));
    let ledger = Arc::new(Ledger::open(store.clone(), Arc::new(files), key).await.expect("an empty registry"));
    let joined = NodeIdentity::generate("edge-1".parse().expect("a name")).expect("a key");
    let public = joined.key().public();
    let signature = joined.key().sign(Purpose::NodeJoin, join_message(joined.name(), &public).as_bytes());
    let join = NodeJoin { name: joined.name().clone(), region: "here".into(), address: None, key: public, signature };
    let act = Act { actor: "test".into(), reason: None, request: None, moment: ledger.moment() };
    ledger.commit(act, move |state, _| registry::join(state, &join), |_, ()| ()).await.expect("joins");
    let api = Api::new(ledger, &admin, &node, CancellationToken::new()).expect("random bytes");
    Registry { api: Arc::new(api), store, admin: admin.token, node: joined, _folder: folder }
}

/// The client's end of a connection that is served with these waits, and the task that serves it.
fn connect(registry: &Registry, waits: Waits) -> (DuplexStream, tokio::task::JoinHandle<()>) {
    let (client, server) = tokio::io::duplex(PIPE_BYTES);
    let place = Room::default().enter([192, 0, 2, 1].into()).expect("room");
    let (api, life) = (registry.api.clone(), Life::new(place, waits));
    let task = tokio::spawn(async move { http(Speaks::Either, server, api, CancellationToken::new(), life).await });
    (client, task)
}

async fn h2(client: DuplexStream) -> SendRequest<Empty<bytes::Bytes>> {
    let (sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client)).await.expect("h2");
    tokio::spawn(driver);
    sender
}

fn ask(path: &str, token: &str) -> http::Request<Empty<bytes::Bytes>> {
    let request = http::Request::get(format!("http://registry{path}")).header("authorization", format!("Bearer {token}"));
    request.body(Empty::new()).expect("a request")
}

async fn ends(task: tokio::task::JoinHandle<()>) {
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("the connection ends").expect("no panic");
}

#[tokio::test]
async fn a_connection_on_which_nobody_known_asks_ends() {
    let registry = registry().await;
    let waits = Waits { head: SHORT, idle: LONG, stall: LONG, removed: LONG };
    for begun in ["", "PRI ", "GET /v1/status HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let (mut client, task) = connect(&registry, waits);
        client.write_all(begun.as_bytes()).await.expect("sends");
        ends(task).await;
    }
    // A client of HTTP/2 that answers pings, and one that is refused.
    let (client, task) = connect(&registry, waits);
    let mut sender = h2(client).await;
    let refused = sender.send_request(ask("/v1/status", "x")).await.expect("an answer");
    assert_eq!(refused.status(), 401);
    ends(task).await;
}

#[tokio::test]
async fn a_connection_stays_while_a_feed_is_open_and_ends_when_nothing_is_under_way() {
    let registry = registry().await;
    let (client, mut task) = connect(&registry, Waits { head: SHORT, idle: SHORT, stall: LONG, removed: LONG });
    let mut sender = h2(client).await;
    let authorization = registry.node.authorization("GET", "/v1/feed", b"", now_us());
    let feed = http::Request::get("http://registry/v1/feed").header("authorization", authorization);
    let feed = sender.send_request(feed.body(Empty::new()).expect("a request")).await.expect("an answer");
    assert_eq!(feed.status(), 200);
    assert!(tokio::time::timeout(SHORT * 5, &mut task).await.is_err(), "the feed is open");
    let status = sender.send_request(ask("/v1/status", registry.admin.secret())).await.expect("an answer");
    assert!(status.into_body().collect().await.is_ok());
    drop(feed);
    ends(task).await;
}

#[tokio::test]
async fn a_removed_node_that_answers_pings_and_reads_nothing_is_cut() {
    let registry = registry().await;
    let (client, mut task) = connect(&registry, Waits { head: LONG, idle: LONG, stall: LONG, removed: SHORT });
    // The stream takes one byte of the feed; the connection is read all the time.
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, driver) = builder.initial_stream_window_size(1).handshake(TokioIo::new(client)).await.expect("h2");
    tokio::spawn(driver);
    let authorization = registry.node.authorization("GET", "/v1/feed", b"", now_us());
    let feed = http::Request::get("http://registry/v1/feed").header("authorization", authorization);
    let _feed = sender.send_request(feed.body(Empty::<bytes::Bytes>::new()).expect("a request")).await.expect("an answer");
    assert!(tokio::time::timeout(SHORT * 5, &mut task).await.is_err(), "the node may follow");
    let (node, moment) = (registry.node.name().clone(), registry.api.ledger.moment());
    let act = Act { actor: "test".into(), reason: None, request: None, moment };
    registry.api.ledger.commit(act, move |state, _| registry::remove(state, &node), |_, ()| ()).await.expect("removes");
    ends(task).await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answers_is_cut() {
    let registry = registry().await;
    let (mut client, task) = connect(&registry, Waits { head: LONG, idle: LONG, stall: SHORT, removed: LONG });
    let request = format!("GET /v1/status HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n", registry.admin.secret());
    client.write_all(request.as_bytes()).await.expect("sends");
    ends(task).await;
    // What was sent before is still there; then comes the end.
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.expect("the end");
    assert!(rest.len() <= PIPE_BYTES, "{}", rest.len());
}
