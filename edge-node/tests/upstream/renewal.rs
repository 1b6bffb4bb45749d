//! A declaration changes while its servers are in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::uri::PathAndQuery;
use selvedge_edge::upstream::{Group, Groups, UpstreamError, Upstreams, UpstreamsConfig};
use selvedge_origin::registry::{HealthCheck, KeepAlive, Server, Upstream};

use crate::servers::{Answer, get, plain, upstreams, whole};

fn renewed(groups: &Groups, declared: &Upstream) -> Arc<Group> {
    groups.renew([declared].into_iter()).get(declared).expect("within the rules")
}

async fn ask(upstreams: &Upstreams, group: &Group, path: &'static str) -> Result<String, UpstreamError> {
    let answer = upstreams.ask(group, &PathAndQuery::from_static(path), get(path)).await?;
    let body = answer.into_body().collect(99).await.expect("a whole body");
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_and_requests_in_flight_survive_a_change_of_numbers_and_the_new_numbers_hold_at_once() {
    let (begun, gate) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (begin, wait) = (begun.clone(), gate.clone());
    let (address, connections) = plain(move |request| {
        let (begin, wait) = (begin.clone(), wait.clone());
        async move {
            if request.uri().path() == "/slow" {
                begin.notify_one();
                wait.notified().await;
            }
            Answer::new(whole("answer"))
        }
    })
    .await;
    let (groups, upstreams) = (Groups::default(), upstreams(UpstreamsConfig::default()));
    let before = Upstream { requests_max: Some(2), ..Upstream::at(format!("http://{address}")) };
    let old = renewed(&groups, &before);
    let slow = tokio::spawn({
        let (upstreams, old) = (upstreams.clone(), old.clone());
        async move { ask(&upstreams, &old, "/slow").await }
    });
    begun.notified().await;
    let narrow = Upstream { requests_max: Some(1), queue_max: Some(0), ..before.clone() };
    let new = renewed(&groups, &narrow);
    let error = ask(&upstreams, &new, "/").await.expect_err("the one place is taken");
    assert!(matches!(error, UpstreamError::Overloaded { .. }), "{error}");
    assert_eq!(groups.read().0[0].in_flight, 1);
    gate.notify_one();
    assert_eq!(slow.await.expect("no panic").expect("an answer"), "answer");
    assert_eq!(ask(&upstreams, &new, "/").await.expect("a place"), "answer");
    assert_eq!(connections.load(SeqCst), 1, "the connection is used again");
    let once = Upstream { keep_alive: KeepAlive { requests_max: Some(1), ..KeepAlive::default() }, ..narrow };
    let new = renewed(&groups, &once);
    for _ in 0..3 {
        ask(&upstreams, &new, "/").await.expect("an answer");
    }
    assert_eq!(connections.load(SeqCst), 3, "the open one has served its last request, and each after it only one");
    assert_eq!((groups.read().0.len(), groups.read().0[0].requests), (1, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_go_on_with_the_new_rule_and_stop_where_there_is_none() {
    let paths = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    let [one, two] = paths.clone();
    let (address, _) = plain(move |request| {
        let counted = if request.uri().path() == "/one" { &one } else { &two };
        counted.fetch_add(1, SeqCst);
        async { Answer::new(whole("well")) }
    })
    .await;
    let checked = |path: &str| {
        let health = HealthCheck { path: path.into(), interval_ms: 600_000, ..HealthCheck::default() };
        Upstream { servers: vec![Server::at(format!("http://{address}"))], health: Some(health), ..Upstream::default() }
    };
    let (groups, upstreams) = (Arc::new(Groups::default()), upstreams(UpstreamsConfig::default()));
    upstreams.watch(&groups);
    let _old = renewed(&groups, &checked("/one"));
    let until = async |counter: &AtomicUsize, count| {
        for _ in 0..1000 {
            if counter.load(SeqCst) == count {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{} and not {count} within 10 s", counter.load(SeqCst));
    };
    until(&paths[0], 1).await;
    let _new = renewed(&groups, &checked("/two"));
    until(&paths[1], 1).await;
    let _none = renewed(&groups, &Upstream::at(format!("http://{address}")));
    let _again = renewed(&groups, &checked("/two"));
    until(&paths[1], 2).await;
    assert_eq!(paths[0].load(SeqCst), 1, "the old rule asks no more");
}
