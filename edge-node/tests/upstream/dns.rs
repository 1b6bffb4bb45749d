//! Names, the addresses behind them, and which of those a worker may reach.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use selvedge_edge::upstream::{Reach, UpstreamError, UpstreamsConfig};
use tokio::net::{TcpListener, UdpSocket};

use crate::servers::{Answer, fetch, get, plain, scripted, upstreams, whole};

/// A name server for a few names: answers A and AAAA over UDP (RFC 1035, section 4), and counts.
struct NameServer {
    address: SocketAddr,
    queries: Arc<AtomicUsize>,
    zone: Arc<Mutex<HashMap<String, Vec<IpAddr>>>>,
}

impl NameServer {
    async fn start(zone: &[(&str, &[&str])]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let parsed =
            zone.iter().map(|(name, addresses)| ((*name).to_owned(), addresses.iter().map(|address| address.parse().unwrap()).collect()));
        let zone = Arc::new(Mutex::new(parsed.collect::<HashMap<_, _>>()));
        let queries = Arc::new(AtomicUsize::new(0));
        let (counted, served) = (queries.clone(), zone.clone());
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((count, from)) = socket.recv_from(&mut buffer).await {
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = answer(&buffer[..count], &served.lock());
                let _ = socket.send_to(&answer, from).await;
            }
        });
        Self { address, queries, zone }
    }

    fn config(&self) -> UpstreamsConfig {
        UpstreamsConfig { resolvers: vec![self.address], ..UpstreamsConfig::default() }
    }
}

fn answer(query: &[u8], zone: &HashMap<String, Vec<IpAddr>>) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let length = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..at + 1 + length]).to_lowercase());
        at += length + 1;
    }
    let question_end = at + 5;
    let wants_v6 = query[at + 2] == 28;
    let known = zone.get(&labels.join("."));
    let records: Vec<_> = known.into_iter().flatten().filter(|address| address.is_ipv6() == wants_v6).collect();
    let mut answer = query[..2].to_vec();
    answer.extend_from_slice(&[0x81, if known.is_some() { 0x80 } else { 0x83 }]);
    answer.extend_from_slice(&[0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    answer.extend_from_slice(&query[12..question_end]);
    for record in records {
        answer.extend_from_slice(&[0xc0, 12, 0, if wants_v6 { 28 } else { 1 }, 0, 1, 0, 0, 0, 60]);
        match record {
            IpAddr::V4(address) => answer.extend_from_slice(&[&[0, 4][..], &address.octets()].concat()),
            IpAddr::V6(address) => answer.extend_from_slice(&[&[0, 16][..], &address.octets()].concat()),
        }
    }
    answer
}

#[tokio::test]
async fn a_name_is_asked_for_once_per_family_and_then_known() {
    let names = NameServer::start(&[("www.example.test", &["127.0.0.1"])]).await;
    let (address, _) = plain(|_| async { Answer::new(whole("hello")) }).await;
    let upstreams = upstreams(UpstreamsConfig { idle_timeout: std::time::Duration::ZERO, ..names.config() });
    for _ in 0..5 {
        let url = format!("http://WWW.Example.test:{}/", address.port());
        assert_eq!(fetch(&upstreams, get(url)).await.unwrap().1, "hello");
    }
    assert_eq!(names.queries.load(Ordering::SeqCst), 2, "A and AAAA");
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_an_error_that_is_remembered() {
    let names = NameServer::start(&[("empty.example.test", &[])]).await;
    let upstreams = upstreams(names.config());
    for name in ["nothing.example.test", "empty.example.test"] {
        let before = names.queries.load(Ordering::SeqCst);
        for _ in 0..3 {
            let error = fetch(&upstreams, get(format!("http://{name}/"))).await.unwrap_err();
            assert!(matches!(error, UpstreamError::Dns { .. }), "{error}");
        }
        assert_eq!(names.queries.load(Ordering::SeqCst) - before, 2, "{name}");
    }
}

#[tokio::test]
async fn localhost_and_literals_are_no_queries() {
    let names = NameServer::start(&[]).await;
    let (address, _) = plain(|_| async { Answer::new(whole("hello")) }).await;
    let upstreams = upstreams(names.config());
    for host in ["localhost", "app.localhost", "LOCALHOST.", "127.0.0.1"] {
        assert_eq!(fetch(&upstreams, get(format!("http://{host}:{}/", address.port()))).await.unwrap().1, "hello", "{host}");
    }
    assert_eq!(names.queries.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_worker_reaches_no_private_address_by_whatever_name() {
    let names = NameServer::start(&[
        ("loopback.example.test", &["127.0.0.1"]),
        ("mapped.example.test", &["::ffff:127.0.0.1"]),
        ("metadata.example.test", &["169.254.169.254"]),
        ("private.example.test", &["10.0.0.1", "fd00::1"]),
    ])
    .await;
    let (address, connections) = scripted("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let upstreams = upstreams(names.config());
    let port = address.port();
    let hosts = ["loopback.example.test", "mapped.example.test", "metadata.example.test", "private.example.test", "localhost", "127.0.0.1"];
    for host in hosts.into_iter().chain(["[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"]) {
        let error = upstreams.send(get(format!("http://{host}:{port}/")), Reach::Worker).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Prohibited { .. }), "{host}: {error}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn only_the_allowed_ones_of_a_names_addresses_are_connected_to() {
    let names = NameServer::start(&[("mixed.example.test", &["127.0.0.2", "127.0.0.1"])]).await;
    let forbidden = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = forbidden.local_addr().unwrap().port();
    let allowed = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let config = UpstreamsConfig { fetch_allow: vec!["127.0.0.1/32".parse().unwrap()], ..names.config() };
    let upstreams = upstreams(config);
    let sending = upstreams.send(get(format!("http://mixed.example.test:{port}/")), Reach::Worker);
    tokio::select! {
        _ = sending => panic!("nobody answers"),
        _ = forbidden.accept() => panic!("a connection to an address that is not allowed"),
        connected = allowed.accept() => drop(connected.unwrap()),
    }
}

#[tokio::test]
async fn a_worker_does_not_reach_the_nodes_own_listeners_even_where_their_network_is_allowed() {
    let names = NameServer::start(&[]).await;
    let (address, _) = scripted("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let allow = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
    let own = vec![SocketAddr::new("0.0.0.0".parse().unwrap(), address.port())];
    let upstreams = upstreams(UpstreamsConfig { fetch_allow: allow, own_listeners: own, ..names.config() });
    for host in ["127.0.0.1", "localhost", "127.0.0.9"] {
        let error = upstreams.send(get(format!("http://{host}:{}/", address.port())), Reach::Worker).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Prohibited { .. }), "{host}: {error}");
    }
    let other = scripted("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.0;
    assert!(upstreams.send(get(format!("http://{other}/")), Reach::Worker).await.is_ok());
}

#[tokio::test]
async fn an_address_that_refuses_hands_over_to_the_next_at_once() {
    let names = NameServer::start(&[("both.example.test", &["::1", "127.0.0.1"])]).await;
    let (address, _) = plain(|_| async { Answer::new(whole("over IPv4")) }).await;
    let url = format!("http://both.example.test:{}/", address.port());
    assert_eq!(fetch(&upstreams(names.config()), get(url)).await.unwrap().1, "over IPv4");
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_raced_by_the_next() {
    // A listener whose backlog is full does not answer a SYN.
    let silent = tokio::net::TcpSocket::new_v4().unwrap();
    silent.bind("127.0.0.3:0".parse().unwrap()).unwrap();
    let port = silent.local_addr().unwrap().port();
    let silent = silent.listen(1).unwrap();
    let mut fill = Vec::new();
    for _ in 0..8 {
        let connect = tokio::net::TcpStream::connect(("127.0.0.3", port));
        if let Ok(Ok(stream)) = tokio::time::timeout(std::time::Duration::from_millis(50), connect).await {
            fill.push(stream);
        }
    }
    let answering = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let names = NameServer::start(&[("slow.example.test", &["127.0.0.3", "127.0.0.1"])]).await;
    let upstreams = upstreams(names.config());
    let sending = upstreams.send(get(format!("http://slow.example.test:{port}/")), Reach::Operator);
    tokio::select! {
        failed = sending => panic!("{:?}", failed.map(|_| ())),
        connected = answering.accept() => drop(connected.unwrap()),
    }
    drop((silent, fill));
}

#[tokio::test]
async fn many_requests_for_one_name_are_one_query_and_a_changed_answer_waits_for_its_time() {
    let names = NameServer::start(&[("www.example.test", &["127.0.0.1"])]).await;
    let (address, _) = plain(|_| async { Answer::new(whole("hello")) }).await;
    let upstreams = upstreams(names.config());
    let url = format!("http://www.example.test:{}/", address.port());
    let all = futures::future::join_all((0..20).map(|_| fetch(&upstreams, get(&url)))).await;
    assert!(all.into_iter().all(|answer| answer.is_ok()));
    assert_eq!(names.queries.load(Ordering::SeqCst), 2);
    names.zone.lock().clear();
    assert!(fetch(&upstreams, get(&url)).await.is_ok());
    assert_eq!(names.queries.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_name_server_that_is_away_is_a_dns_error() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let config = UpstreamsConfig { resolvers: vec![socket.local_addr().unwrap()], ..UpstreamsConfig::default() };
    drop(socket);
    let error = fetch(&upstreams(config), get("http://www.example.test/")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Dns { .. }), "{error}");
}
