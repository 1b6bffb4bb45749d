//! From clients of every protocol through a node to an upstream over HTTP/1.1, byte by byte: what two parsers could read in two ways never gets there.

#[path = "../../../edge-node/src/listen/tests/framing.rs"]
mod framing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use selvedge_tests::client::{self, H3Connection};
use selvedge_tests::{Cluster, route};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// A request as an upstream reads it: its head in lower case, and its body.
type Read = (String, Vec<u8>);

/// The first request of these bytes and what is behind it; none before all of it is here.
fn first(bytes: &[u8]) -> Option<(Read, &[u8])> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let length = head.split("\r\ncontent-length: ").nth(1).map(|rest| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
    let (body, rest) = match length {
        Some(length) => bytes[end..].split_at_checked(length).map(|(body, rest)| (body.to_vec(), rest))?,
        None if head.contains("\r\ntransfer-encoding: chunked\r\n") => chunks(&bytes[end..])?,
        None => (Vec::new(), &bytes[end..]),
    };
    Some(((head, body), rest))
}

fn chunks(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).expect("a size");
        let (chunk, rest) = bytes[end + 2..].split_at_checked(size)?;
        body.extend_from_slice(chunk);
        bytes = rest.strip_prefix(b"\r\n")?;
        if size == 0 {
            return Some((body, bytes));
        }
    }
}

/// An upstream that notes every request as it comes, and answers it.
async fn recording() -> (String, Arc<Mutex<Vec<Read>>>, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, read) = (format!("http://{}", listener.local_addr().unwrap()), Arc::new(Mutex::new(Vec::new())));
    let notes = read.clone();
    let accepting = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let notes = notes.clone();
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while socket.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
                    while let Some((request, rest)) = first(&bytes) {
                        bytes = rest.to_vec();
                        notes.lock().push(request);
                        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood").await;
                    }
                }
            });
        }
    });
    (url, read, AbortOnDropHandle::new(accepting))
}

async fn tls(address: SocketAddr, protocol: &'static [u8]) -> impl AsyncRead + AsyncWrite + Unpin {
    let socket = TcpStream::connect(address).await.expect("the listener accepts");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client::anyone(protocol)));
    connector.connect("a.example".try_into().unwrap(), socket).await.expect("TLS")
}

/// Everything that the node says to these bytes until it closes.
async fn answers(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> String {
    let _ = stream.write_all(bytes).await;
    let mut answers = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answers)).await.expect("the node closes");
    String::from_utf8_lossy(&answers).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_be_read_in_two_ways_is_400_and_ends_the_connection() {
    let (url, read, _upstream) = recording().await;
    let cluster = Cluster::start(1).await;
    cluster.apply(vec![route("a.example/*", None, Some(&url)), route("b.example/*", None, Some(&url))]).await;
    let edge = &cluster.edges[0];
    for (why, version, fields, after) in framing::FRAMING {
        for secure in [false, true] {
            read.lock().clear();
            let good = "POST /good HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\r\nbody";
            let sent = format!("{good}POST /bad {version}\r\n{fields}\r\n{after}{}", framing::HIDDEN);
            let answers = match secure {
                false => answers(TcpStream::connect(edge.http).await.expect("the listener accepts"), sent.as_bytes()).await,
                true => answers(tls(edge.https, b"http/1.1").await, sent.as_bytes()).await,
            };
            let row = format!("{why} {version} {fields:?} secure: {secure}: {answers}");
            let status = if *why == "version_not_supported" { 505 } else { 400 };
            let (_, refusal) = answers.split_once("\r\n\r\ngoodHTTP/1.1 ").unwrap_or_else(|| panic!("{row}"));
            assert!(refusal.starts_with(&format!("{status} ")) && refusal.contains("\r\nconnection: close\r\n"), "{row}");
            assert_eq!(answers.matches("HTTP/1.1 ").count(), 2, "{row}");
            let read = read.lock();
            assert!(read.len() == 1 && read[0].0.starts_with("post /good ") && read[0].1 == b"body", "{row} {read:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_names_another_host_than_its_field_reaches_nobody() {
    let (url, read, _upstream) = recording().await;
    let cluster = Cluster::start(1).await;
    cluster.apply(vec![route("a.example/*", None, Some(&url)), route("b.example/*", None, Some(&url))]).await;
    let address = cluster.edges[0].http;
    for (target, host, status) in [
        ("http://a.example/page", "a.example", 200),
        ("http://A.example/page", "a.example", 200),
        ("http://b.example/page", "a.example", 400),
        ("http://a.example/page", "b.example", 400),
        ("http://a.example:81/page", "a.example", 400),
        ("http://a.example/page", "a.example:81", 400),
        ("http://a.example@b.example/page", "a.example", 400),
        ("//b.example/page", "a.example", 200),
    ] {
        read.lock().clear();
        let sent = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = answers(TcpStream::connect(address).await.expect("the listener accepts"), sent.as_bytes()).await;
        let row = format!("{target} of {host}: {answer}");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{row}");
        let read = read.lock();
        assert_eq!(read.len(), usize::from(status == 200), "{row} {read:?}");
        for (head, _) in read.iter() {
            let path = if target.starts_with("//") { target } else { "/page" };
            assert!(head.starts_with(&format!("get {path} http/1.1\r\n")) && head.contains("\r\nhost: a.example\r\n"), "{row} {head}");
            assert_eq!(head.matches("\r\nhost:").count(), 1, "{row} {head}");
        }
    }
}

/// What the upstream gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gets {
    /// The request, once, with one framing and one host.
    One,
    /// Nothing.
    Nothing,
    /// No more than it says: the body has another length than that.
    Cut,
}

type Row = (&'static [(&'static str, &'static str)], Gets);

/// Fields of a POST over h2 and h3.
const ROWS: &[Row] = &[
    (&[], Gets::One),
    (&[("content-length", "41")], Gets::One),
    (&[("te", "trailers")], Gets::One),
    (&[("host", "a.example")], Gets::One),
    (&[("content-length", "40")], Gets::Cut),
    (&[("content-length", "42")], Gets::Cut),
    (&[("content-length", "0")], Gets::Cut),
    (&[("content-length", "41"), ("content-length", "41")], Gets::Nothing),
    (&[("content-length", "41, 41")], Gets::Nothing),
    (&[("content-length", "+41")], Gets::Nothing),
    (&[("content-length", "")], Gets::Nothing),
    (&[("transfer-encoding", "chunked")], Gets::Nothing),
    (&[("transfer-encoding", "chunked"), ("content-length", "41")], Gets::Nothing),
    (&[("transfer-encoding", "identity")], Gets::Nothing),
    (&[("connection", "close")], Gets::Nothing),
    (&[("connection", "content-length"), ("content-length", "41")], Gets::Nothing),
    (&[("keep-alive", "x")], Gets::Nothing),
    (&[("proxy-connection", "x")], Gets::Nothing),
    (&[("upgrade", "h2c")], Gets::Nothing),
    (&[("te", "gzip")], Gets::Nothing),
    (&[("host", "b.example")], Gets::Nothing),
    (&[("host", "a.example"), ("host", "a.example")], Gets::Nothing),
    (&[("host", "a.example"), ("host", "b.example")], Gets::Nothing),
    (&[("host", "b.example"), ("host", "a.example")], Gets::Nothing),
    (&[("host", "a.example, b.example")], Gets::Nothing),
    (&[("host", "")], Gets::Nothing),
];

/// Sends a request in frames, and waits until it is answered or refused.
async fn ask_h2(address: SocketAddr, fields: &[(&str, &str)]) {
    let pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", "a.example"), (":path", "/page")];
    let mut stream = tls(address, b"h2").await;
    stream.write_all(&framing::h2_request(&[&pseudo[..], fields].concat(), framing::HIDDEN)).await.unwrap();
    let answered = async {
        let mut head = [0; 9];
        while stream.read_exact(&mut head).await.is_ok() && !matches!(head[3], 1 | 3 | 7) {
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            let _ = stream.read_exact(&mut payload).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), answered).await.expect("an answer");
}

async fn ask_h3(address: SocketAddr, fields: &[(&str, &str)]) {
    let mut request = client::request("POST", "a.example", "/page", framing::HIDDEN);
    for (name, value) in fields {
        request.headers_mut().append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let mut connection = H3Connection::open(address, "a.example").await.expect("a connection");
    // Refused or not: the upstream tells.
    let _ = tokio::time::timeout(Duration::from_secs(20), connection.send(request)).await.expect("an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_h2_and_h3_carry_reaches_an_h1_upstream_in_one_reading_or_not_at_all() {
    assert_eq!(framing::HIDDEN.len(), 41, "what the rows say");
    let (url, read, _upstream) = recording().await;
    let cluster = Cluster::start(1).await;
    cluster.apply(vec![route("a.example/*", None, Some(&url)), route("b.example/*", None, Some(&url))]).await;
    let address = cluster.edges[0].https;
    for (fields, gets) in ROWS {
        for over in ["h2", "h3"] {
            read.lock().clear();
            match over {
                "h2" => ask_h2(address, fields).await,
                _ => ask_h3(address, fields).await,
            }
            let read = std::mem::take(&mut *read.lock());
            let row = format!("{over} {fields:?}: {read:?}");
            match gets {
                Gets::One => assert!(read.len() == 1 && read[0].1 == framing::HIDDEN.as_bytes(), "{row}"),
                Gets::Nothing => assert!(read.is_empty(), "{row}"),
                Gets::Cut => assert!(read.len() <= 1 && read.iter().all(|(_, body)| framing::HIDDEN.as_bytes().starts_with(body)), "{row}"),
            }
            for (head, _) in &read {
                let count = |name: &str| head.matches(&format!("\r\n{name}:")).count();
                assert!(head.starts_with("post /page http/1.1\r\n") && count("host") == 1, "{row}");
                assert!(head.contains("\r\nhost: a.example\r\n"), "{row}");
                assert_eq!(count("content-length") + count("transfer-encoding"), 1, "{row}");
            }
        }
    }
}
