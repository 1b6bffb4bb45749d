//! Requests that two parsers could read in two ways: one table for HTTP/1.1, one for HTTP/2 frame by frame, one for HTTP/3. What goes out to upstreams has its
//! table in `request/tests/smuggling.rs`.

use std::sync::Arc;

use selvedge_origin::client::NodeIdentity;
use selvedge_origin::registry::PeerRecord;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::framing::{FRAMING, HIDDEN, h2_request};
use super::server::{Behind, Server, Site, connect_tls, pieces, soon};
use crate::limits::Limits;
use crate::listen::quic::client::Client;
use crate::listen::serve_peers;
use crate::peers::{Peers, client_of};
use crate::tasks::Tasks;

/// Bodies that are not framed as they say: whoever reads them gets an error, and the connection ends.
const CHUNKS: &[&str] = &[
    "x\r\n",
    "\r\n",
    ";a=b\r\n",
    "-1\r\n",
    "0x1\r\na\r\n0\r\n\r\n",
    " 1\r\na\r\n0\r\n\r\n",
    "1 \r\na\r\n0\r\n\r\n",
    "1\na\r\n0\r\n\r\n",
    "1;a\rb\r\na\r\n0\r\n\r\n",
    "1;\r\na\r\n0\r\n\r\n",
    "1\r\nab\r\n0\r\n\r\n",
    "1\r\na0\r\n\r\n",
    "ffffffffffffffff1\r\na\r\n0\r\n\r\n",
    "10000000000000001\r\na\r\n0\r\n\r\n",
    "0\r\nX\r\n\r\n",
    "0\r\n X: y\r\n\r\n",
    "0\r\nX: y\n\r\n",
    "0\r\nTransfer-Encoding : x\r\n\r\n",
];

/// Everything that the server says to these bytes, until it closes.
async fn answers(server: &Server, sent: &str) -> String {
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    // The server may close before all is written.
    let _ = stream.write_all(sent.as_bytes()).await;
    let mut answers = Vec::new();
    let _ = soon(stream.read_to_end(&mut answers)).await;
    String::from_utf8(answers).unwrap()
}

fn hidden_was_asked(server: &Server) -> bool {
    server.site.asked.lock().iter().any(|uri| uri.ends_with("/hidden"))
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_end_the_connection() {
    let server = Server::start();
    for (why, version, fields, after) in FRAMING {
        server.site.asked.lock().clear();
        let good = "POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\r\ngood";
        let answers = answers(&server, &format!("{good}POST /count {version}\r\n{fields}\r\n{after}{HIDDEN}")).await;
        let row = format!("{why} {version} {fields:?}: {answers}");
        assert!(answers.contains(&format!("x-refusal: {why}\r\n")) && answers.contains("connection: close\r\n"), "{row}");
        assert!(answers.contains("\r\n\r\ngoodHTTP/1.1 "), "the one before is answered: {row}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 2, "{row}");
        assert_eq!(*server.site.asked.lock(), ["http://a.example/echo"], "{row}");
    }
}

#[tokio::test]
async fn an_absolute_target_is_that_of_its_host() {
    let server = Server::start();
    for (why, target, host) in [
        ("host_mismatch", "http://b.example/count", "a.example"),
        ("host_mismatch", "http://a.example:81/count", "a.example"),
        ("bad_target", "https://a.example/count", "a.example"),
        ("bad_target", "http://u@a.example/count", "u@a.example"),
        ("bad_target", "a.example:80", "a.example:80"),
        ("bad_target", "*", "a.example"),
        ("bad_head", "/a#b", "a.example"),
        ("bad_head", "/a b", "a.example"),
    ] {
        let answers = answers(&server, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n{HIDDEN}")).await;
        assert!(answers.contains(&format!("x-refusal: {why}\r\n")) && answers.contains("connection: close\r\n"), "{target}: {answers}");
        assert!(server.site.asked.lock().is_empty(), "{target}");
    }
}

#[tokio::test]
async fn malformed_chunks_are_errors_and_end_the_connection() {
    let server = Server::start();
    for chunks in CHUNKS {
        let head = "POST /count HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answers = answers(&server, &format!("{head}{chunks}{HIDDEN}")).await;
        assert!(answers.starts_with("HTTP/1.1 502") && answers.contains("malformed"), "{chunks:?}: {answers}");
        assert!(answers.contains("connection: close\r\n") && answers.matches("HTTP/1.1 ").count() == 1, "{chunks:?}: {answers}");
        assert!(!hidden_was_asked(&server), "{chunks:?}");
    }
}

#[tokio::test]
async fn other_nodes_are_held_to_the_same() {
    let node = |name: &str| NodeIdentity::generate(name.parse().unwrap()).unwrap();
    let (asking, asked) = (node("asking"), node("asked"));
    let record = PeerRecord { region: "here".into(), address: "127.0.0.1:1".into(), key: asking.key().public() };
    let peers = Arc::new(Peers::new("here"));
    peers.joined(&asked);
    peers.update(&[(asking.name().clone(), record)].into());
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, site, tasks) = (socket.local_addr().unwrap(), Arc::new(Site::default()), Tasks::new());
    let answer = Arc::new(Behind(site.clone()));
    serve_peers(socket, answer, peers.server_config().unwrap(), &Limits::default(), Arc::default(), &tasks);
    let mut tls = client_of(&asking, asked.key().public()).unwrap();
    // A node speaks HTTP/2; what comes without it is HTTP/1.1.
    tls.alpn_protocols.clear();
    for (why, version, fields, after) in FRAMING {
        let mut stream = connect_tls(address, "peer.selvedge.internal", tls.clone()).await.unwrap();
        let sent = format!("POST /count {version}\r\n{fields}\r\n{after}{HIDDEN}");
        let _ = stream.write_all(sent.as_bytes()).await;
        let mut answers = Vec::new();
        let _ = soon(stream.read_to_end(&mut answers)).await;
        let answers = String::from_utf8(answers).unwrap();
        let row = format!("{why} {version} {fields:?}: {answers}");
        assert!(answers.contains(&format!("x-refusal: {why}\r\n")) && answers.matches("HTTP/1.1 ").count() == 1, "{row}");
        assert!(site.asked.lock().is_empty(), "{row}");
    }
}

/// How the server takes an HTTP/2 request.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    /// The status, where it is one of HPACK's static table.
    Answered(Option<u16>),
    Reset,
    Closed,
}

async fn take_h2(server: &Server, request: &[u8]) -> Taken {
    let mut stream = server.connect_tls("localhost", &[b"h2"]).await.unwrap();
    stream.write_all(request).await.unwrap();
    loop {
        let mut head = [0; 9];
        if soon(stream.read_exact(&mut head)).await.is_err() {
            return Taken::Closed;
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        soon(stream.read_exact(&mut payload)).await.unwrap();
        match head[3] {
            1 => {
                let statuses = [(0x88, 200), (0x89, 204), (0x8b, 304), (0x8c, 400), (0x8d, 404), (0x8e, 500)];
                return Taken::Answered(statuses.iter().find(|(byte, _)| *byte == payload[0]).map(|(_, status)| *status));
            }
            3 => return Taken::Reset,
            7 => return Taken::Closed,
            _ => {}
        }
    }
}

#[tokio::test]
async fn http2_cannot_carry_the_framing_of_http1() {
    let server = Server::start();
    let pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", "/echo")];
    let with = |more: &[(&'static str, &'static str)], body: &str| h2_request(&[&pseudo[..], more].concat(), body);
    assert_eq!(take_h2(&server, &with(&[("content-length", "4"), ("te", "trailers")], "body")).await, Taken::Answered(Some(200)));
    server.site.asked.lock().clear();
    for fields in [
        &[("transfer-encoding", "chunked")][..],
        &[("connection", "close")],
        &[("connection", "content-length")],
        &[("keep-alive", "x")],
        &[("proxy-connection", "x")],
        &[("upgrade", "h2c")],
        &[("te", "gzip")],
        &[("content-length", "4"), ("content-length", "4")],
        &[("content-length", "+4")],
        &[("content-length", "4, 4")],
        &[("host", "other.example")],
        &[("x", "a\r\nHost: b")],
        &[("x", "a\nb")],
        &[("x", "a\0b")],
        &[("x\r\ny", "a")],
        &[("x: y", "a")],
        &[("X", "a")],
        &[(":path", "/hidden")],
        &[(":authority", "other.example")],
    ] {
        let taken = take_h2(&server, &with(fields, "body")).await;
        assert!(matches!(taken, Taken::Reset | Taken::Closed | Taken::Answered(Some(400))), "{fields:?}: {taken:?}");
        assert!(server.site.asked.lock().is_empty(), "{fields:?}");
    }
    for (name, value) in [
        (":path", "/a b HTTP/1.1\r\nHost: b\r\n\r\n"),
        (":path", "/a#b"),
        (":path", ""),
        (":method", "GET / HTTP/1.1\r\n"),
        (":authority", "a.example\r\nX: y"),
        (":authority", "u@a.example"),
        (":authority", ""),
        (":scheme", "http"),
    ] {
        let fields: Vec<_> = pseudo.iter().map(|(n, v)| (*n, if *n == name { value } else { *v })).collect();
        let taken = take_h2(&server, &h2_request(&fields, "body")).await;
        let harmless = name == ":path" && value == "/a#b" && *server.site.asked.lock() == ["https://localhost/a"];
        assert!(harmless || matches!(taken, Taken::Reset | Taken::Closed | Taken::Answered(Some(400))), "{name} {value:?}: {taken:?}");
        assert!(harmless || server.site.asked.lock().is_empty(), "{name} {value:?}: {:?}", server.site.asked.lock());
        server.site.asked.lock().clear();
    }
    // A body of another length than it says is an error for whoever reads it.
    for length in ["3", "5"] {
        let fields = [&pseudo[..3], &[(":path", "/count"), ("content-length", length)]].concat();
        let taken = take_h2(&server, &h2_request(&fields, "body")).await;
        assert_ne!(taken, Taken::Answered(Some(200)), "{length}");
    }
}

#[tokio::test]
async fn http3_cannot_carry_the_framing_of_http1() {
    let server = Server::start();
    let mut client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    for (why, fields) in [
        ("connection_fields", &[("transfer-encoding", "chunked")][..]),
        ("connection_fields", &[("connection", "content-length")]),
        ("connection_fields", &[("keep-alive", "x")]),
        ("connection_fields", &[("proxy-connection", "x")]),
        ("connection_fields", &[("upgrade", "h2c")]),
        ("connection_fields", &[("te", "gzip")]),
        ("bad_framing", &[("content-length", "4"), ("content-length", "4")]),
        ("bad_framing", &[("content-length", "+4")]),
        ("bad_framing", &[("content-length", "4, 4")]),
        ("bad_host", &[("host", "localhost"), ("host", "other.example")]),
        ("bad_host", &[("host", "localhost"), ("host", "localhost")]),
    ] {
        let answer = soon(client.send("POST", "/echo", fields, pieces(1, 4))).await.unwrap();
        assert_eq!(answer.head.headers()["x-refusal"], why, "{fields:?}");
        assert!(server.site.asked.lock().is_empty(), "{fields:?}");
    }
}

/// A request in HTTP/3's frames: fields are literal and refer to no table (RFC 9204, section 4.5.6), so that they may be anything.
fn h3_request(fields: &[(&str, &str)], body: &str) -> Vec<u8> {
    // A text behind its length, of which the first bits lie in a byte with other bits (RFC 7541, section 5.1).
    let text = |other_bits: u8, bits: u32, text: &str| {
        let most = (1 << bits) - 1;
        let mut bytes = vec![other_bits | text.len().min(most) as u8];
        if let Some(mut rest) = text.len().checked_sub(most) {
            while rest >= 128 {
                bytes.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            bytes.push(rest as u8);
        }
        [bytes.as_slice(), text.as_bytes()].concat()
    };
    let mut block = vec![0, 0];
    for (name, value) in fields {
        block.extend(text(0x20, 3, name));
        block.extend(text(0, 7, value));
    }
    let frame = |kind: u8, payload: &[u8]| [&[kind], &(0x4000 | payload.len() as u16).to_be_bytes()[..], payload].concat();
    [frame(1, &block), frame(0, body.as_bytes())].concat()
}

/// Sends it on a connection of its own.
async fn take_h3(server: &Server, request: &[u8]) -> Taken {
    let client = Client::connect(server.https, server.client_tls(&[b"h3"])).await;
    let (mut sending, mut receiving) = soon(client.quic.open_bi()).await.unwrap();
    // The server may refuse it before all of it is there.
    let _ = sending.write_all(request).await;
    let _ = sending.finish();
    match soon(receiving.read_to_end(1 << 16)).await {
        Ok(answer) if answer.first() == Some(&1) => {
            // Behind the frame's length and the block's prefix; by RFC 9204's static table.
            let block = &answer[1 + (1 << (answer[1] >> 6)) + 2..];
            let statuses = [(&[0xd9][..], 200), (&[0xff, 0x04], 400)];
            Taken::Answered(statuses.iter().find(|(bytes, _)| block.starts_with(bytes)).map(|(_, status)| *status))
        }
        Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(_))) => Taken::Reset,
        _ => Taken::Closed,
    }
}

/// What is no field of a request.
const NO_FIELDS: &[(&str, &str)] = &[
    ("x", "a\r\nHost: b"),
    ("x", "a\nb"),
    ("x", "a\rb"),
    ("x", "a\0b"),
    ("x", "a\u{7f}b"),
    ("x\r\ny", "a"),
    ("x: y", "a"),
    ("x:", "a"),
    ("x y", "a"),
    ("x\0", "a"),
    ("X", "a"),
    ("Content-Length", "4"),
    ("Transfer-Encoding", "chunked"),
    ("transfer-encoding", "chunked"),
    ("", "a"),
    (":", "a"),
    (":x", "a"),
    (":Path", "/hidden"),
    (":path ", "/hidden"),
    ("host", "other.example"),
    ("host", "localhost\r\nX: y"),
    ("content-length", "4\r\nX: y"),
    ("content-length", "+4"),
];

/// What is nothing to ask for, each in the place of the usual one.
const NO_PSEUDO_FIELDS: &[(&str, &str)] = &[
    (":path", "/a b HTTP/1.1\r\nHost: b\r\n\r\n"),
    (":path", "/a\0b"),
    (":path", ""),
    (":path", "*"),
    (":path", "hidden"),
    (":path", "http://other.example/hidden"),
    (":method", "GET / HTTP/1.1\r\n"),
    (":method", ""),
    (":authority", "a.example\r\nX: y"),
    (":authority", "a.example/hidden"),
    (":authority", "u@a.example"),
    (":authority", "a.example, b.example"),
    (":authority", ""),
    (":scheme", "http"),
    (":scheme", "https://other.example"),
];

#[tokio::test]
async fn what_is_no_request_in_the_frames_of_http3_reaches_nobody() {
    let server = Server::start();
    let pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", "/echo")];
    let with = |more: &[(&'static str, &'static str)]| h3_request(&[&pseudo[..], more].concat(), "body");
    assert_eq!(take_h3(&server, &with(&[("content-length", "4"), ("te", "trailers")])).await, Taken::Answered(Some(200)));
    assert_eq!(std::mem::take(&mut *server.site.asked.lock()), ["https://localhost/echo"]);
    let refused = async |request: &[u8], row: &dyn std::fmt::Debug| {
        let taken = take_h3(&server, request).await;
        assert!(matches!(taken, Taken::Reset | Taken::Closed | Taken::Answered(Some(400))), "{row:?}: {taken:?}");
        assert!(server.site.asked.lock().is_empty(), "{row:?}");
    };
    for field in NO_FIELDS {
        refused(&with(&[*field]), field).await;
    }
    for (name, value) in NO_PSEUDO_FIELDS {
        let fields = pseudo.map(|(other, usual)| (other, if other == *name { value } else { usual }));
        refused(&h3_request(&fields, "body"), &(name, value)).await;
    }
    for left_out in [":method", ":authority"] {
        let fields: Vec<_> = pseudo.into_iter().filter(|(name, _)| *name != left_out).collect();
        refused(&h3_request(&fields, "body"), &left_out).await;
    }
    refused(&with(&[(":scheme", "http")]), &"a second scheme").await;
    // Of two others h3 takes the last, where it should refuse both (RFC 9114, section 4.3). It is one reading all the same: nobody before us has read it, and what is sent
    // on is written anew.
    for (field, uri) in [
        ((":path", "/count"), "https://localhost/count"),
        ((":authority", "other.example"), "https://other.example/echo"),
        ((":method", "GET"), "https://localhost/echo"),
    ] {
        take_h3(&server, &with(&[field])).await;
        let asked = std::mem::take(&mut *server.site.asked.lock());
        assert!(asked.is_empty() || asked == [uri], "{field:?}: {asked:?}");
    }
}
