//! What nodes' reports add up to.

use super::*;
use crate::api::wire::{FeedRefusal, NodeReport, NodeSaid, NodeState, WorkerReport, WorkerState as Said};
use crate::feed::Position;
use crate::limits::{FEED_REFUSAL_KEPT, NODE_REASONS_BYTES_MAX, REASON_BYTES_MAX};

fn nothing_to_say(seq: u64) -> NodeReport {
    let epoch = "01234567-89ab-7def-8123-456789abcdef".parse().expect("an epoch");
    NodeReport {
        since: None,
        position: Some(Position { epoch, seq, chain: Digest::zero() }),
        region: "here".into(),
        address: None,
        peer: None,
        build: "test".into(),
        feed_refusal: None,
        last_refusal: None,
        unsettled: Vec::new(),
        settled: Vec::new(),
    }
}

fn saying(seq: u64, unsettled: &[WorkerReport]) -> NodeReport {
    NodeReport { unsettled: unsettled.to_vec(), ..nothing_to_say(seq) }
}

/// A registry with these nodes, and workers that take traffic.
fn with(nodes: &[&str], workers: &[&str]) -> Book {
    let mut book = Book::default();
    for name in nodes {
        let plan = join(&book.state, &joins(name, &SigningKey::generate().expect("random bytes"))).expect("joined");
        book.commit(plan);
    }
    workers.iter().for_each(|worker| drop(book.worker(worker, &[])));
    book
}

impl Book {
    /// What a node says of a worker's present deployment.
    fn line(&self, worker: &str, state: Said) -> WorkerReport {
        let deployment = self.state.worker(&name(worker)).and_then(WorkerState::deployment).expect("a deployment").id.clone();
        WorkerReport { worker: name(worker), deployment, state, active: Vec::new() }
    }

    fn said(&self, fleet: &Fleet, worker: &str, now_ms: u64) -> (NodeState, Option<u64>) {
        let nodes = fleet.worker_nodes(&self.state, &name(worker), now_ms).expect("a deployment").nodes;
        nodes.first().map(|node| (node.state, node.ms)).expect("a node")
    }

    /// What the first node's reports add up to.
    fn first(&self, fleet: &Fleet) -> NodeSaid {
        fleet.nodes(&self.state, 0).remove(0).report.expect("reported")
    }
}

#[test]
fn a_node_is_active_refused_pending_or_offline() {
    let book = with(&["edge-1", "edge-2"], &["shop"]);
    let line = |state| book.line("shop", state);
    let mut fleet = Fleet::default();
    fleet.committed(&name("shop"), book.seq, 1_000);
    let heard = |fleet: &mut Fleet, name: &str, report, now_ms| fleet.reported(&book.state, &node(name), report, now_ms).is_news;
    let look = |fleet: &Fleet, now_ms: u64| {
        let nodes = fleet.worker_nodes(&book.state, &name("shop"), now_ms).expect("a deployment");
        let states: Vec<_> = nodes.nodes.iter().map(|node| (node.state, node.ms)).collect();
        (nodes.settled, states)
    };
    assert_eq!(look(&fleet, 1_000), (false, vec![(NodeState::Offline, None), (NodeState::Offline, None)]));
    assert!(heard(&mut fleet, "edge-1", nothing_to_say(0), 1_050));
    assert!(!heard(&mut fleet, "edge-1", nothing_to_say(0), 1_060), "nothing new");
    assert_eq!(look(&fleet, 1_100).1[0], (NodeState::Pending, None));
    assert!(heard(&mut fleet, "edge-1", saying(book.seq, &[line(Said::Activating)]), 1_100));
    assert_eq!(look(&fleet, 1_100), (false, vec![(NodeState::Pending, None), (NodeState::Offline, None)]));
    assert!(heard(&mut fleet, "edge-1", saying(book.seq, &[line(Said::Waiting("no \u{1b}room".into()))]), 1_150));
    let nodes = fleet.worker_nodes(&book.state, &name("shop"), 1_150).expect("a deployment");
    assert_eq!((nodes.settled, nodes.nodes[0].state, nodes.nodes[0].reason.as_deref()), (false, NodeState::Pending, Some("no  room")));
    assert!(heard(&mut fleet, "edge-1", nothing_to_say(book.seq), 1_200));
    assert!(!heard(&mut fleet, "edge-1", nothing_to_say(book.seq), 6_200));
    assert_eq!(look(&fleet, 6_200), (true, vec![(NodeState::Active, Some(200)), (NodeState::Offline, None)]));
    let refuses = NodeReport { feed_refusal: Some("frame 7 is forged".into()), ..nothing_to_say(0) };
    heard(&mut fleet, "edge-2", refuses, 6_300);
    assert_eq!(look(&fleet, 6_300), (true, vec![(NodeState::Active, Some(200)), (NodeState::Refused, None)]));
    let long = line(Said::Refused("\u{1b}[2J".to_owned() + &"ü".repeat(9_000)));
    heard(&mut fleet, "edge-2", saying(book.seq, &[long]), 6_400);
    let nodes = fleet.worker_nodes(&book.state, &name("shop"), 6_400).expect("a deployment");
    assert!(nodes.nodes[1].reason.as_ref().is_some_and(|reason| reason.len() <= REASON_BYTES_MAX && reason.starts_with(" [2J")));
    assert_eq!(look(&fleet, 21_200).1[0].0, NodeState::Active, "15 s after its report");
    assert_eq!(look(&fleet, 21_201).1[0].0, NodeState::Offline, "and a millisecond later");
    assert!(heard(&mut fleet, "edge-1", nothing_to_say(book.seq), 21_201), "it is back");
    assert!(fleet.worker_nodes(&book.state, &name("bank"), 0).is_none());
}

#[test]
fn a_refusal_of_the_feed_is_shown_for_an_hour_whatever_was_taken_since() {
    const HOUR_MS: u64 = FEED_REFUSAL_KEPT.as_millis() as u64;
    let book = with(&["edge-1"], &["shop"]);
    let edge = node("edge-1");
    let mut fleet = Fleet::default();
    let mut heard = |last_refusal: Option<(&str, u64, u64)>, now_ms| {
        let last_refusal = last_refusal.map(|(reason, ms_ago, count)| FeedRefusal { reason: reason.into(), ms_ago, count });
        let is_news = fleet.reported(&book.state, &edge, NodeReport { last_refusal, ..nothing_to_say(book.seq) }, now_ms).is_news;
        (is_news, fleet.nodes(&book.state, now_ms).remove(0).report.expect("a report").last_refusal)
    };
    assert_eq!(heard(None, 1_000), (true, None));
    let shown = |reason: &str, ms_ago, count| Some(FeedRefusal { reason: reason.into(), ms_ago, count });
    assert_eq!(heard(Some(("frame 7\u{1b} is forged", 500, 1)), 2_000), (true, shown("frame 7  is forged", 500, 1)));
    assert_eq!(heard(Some(("frame 7\u{1b} is forged", 5_700, 1)), 7_000), (false, shown("frame 7  is forged", 5_500, 1)), "the same");
    // It starts anew, and knows nothing of before.
    assert_eq!(heard(None, 8_000), (false, shown("frame 7  is forged", 6_500, 1)));
    assert_eq!(heard(Some(("frame 8 is reordered", 0, 2)), 9_000), (true, shown("frame 8 is reordered", 0, 2)));
    assert_eq!(heard(None, 8_999 + HOUR_MS), (true, shown("frame 8 is reordered", HOUR_MS - 1, 2)));
    assert_eq!(heard(None, 9_000 + HOUR_MS), (false, None));
}

#[test]
fn a_report_goes_on_from_the_one_before_and_from_no_other() {
    let book = with(&["edge-1"], &["shop", "bank", "blog"]);
    let edge = node("edge-1");
    let mut fleet = Fleet::expecting([&edge], 1_000);
    let mut heard = |report, now_ms| fleet.reported(&book.state, &edge, report, now_ms);
    assert_eq!(heard(NodeReport { since: Some(7), ..nothing_to_say(book.seq) }, 1_000).mark, None, "never given");
    let lines = [book.line("shop", Said::Activating), book.line("bank", Said::Activating)];
    let whole = heard(saying(book.seq, &lines), 1_000).mark;
    assert!(whole.is_some());
    let refused = book.line("bank", Said::Refused("no".into()));
    let change = NodeReport { since: whole, settled: vec![name("shop")], ..saying(book.seq, std::slice::from_ref(&refused)) };
    let taken = heard(change.clone(), 1_100);
    assert!(taken.is_news && taken.mark.is_some_and(|mark| Some(mark) != whole), "{taken:?}");
    assert_eq!(heard(change, 1_200).mark, None, "the same again: it goes on from an older one");
    assert!(!heard(NodeReport { since: taken.mark, ..nothing_to_say(book.seq) }, 1_300).is_news, "what was said still holds");
    assert_eq!(book.first(&fleet).unsettled, [refused]);
    assert_eq!(book.said(&fleet, "shop", 1_300).0, NodeState::Active);
    assert_eq!(book.said(&fleet, "bank", 1_300).0, NodeState::Refused);
    assert_eq!(book.said(&fleet, "blog", 1_300).0, NodeState::Active, "no report ever named it");
    fleet.reported(&book.state, &edge, nothing_to_say(book.seq), 1_400);
    assert_eq!(book.said(&fleet, "bank", 1_400).0, NodeState::Active, "a whole report takes the place of all before");
    assert!(Fleet::expecting([&edge], 1_001).reported(&book.state, &edge, nothing_to_say(0), 1_001).mark > taken.mark, "after a restart");
}

#[test]
fn nothing_is_active_before_everything_is_said() {
    let mut book = with(&["edge-1"], &["shop"]);
    let edge = node("edge-1");
    let mut fleet = Fleet::default();
    let first = fleet.reported(&book.state, &edge, NodeReport { position: None, ..nothing_to_say(0) }, 1_000);
    assert_eq!(book.said(&fleet, "shop", 1_000).0, NodeState::Pending, "more follows");
    let rest = NodeReport { since: first.mark, ..saying(book.seq, &[book.line("shop", Said::Activating)]) };
    let mark = fleet.reported(&book.state, &edge, rest, 1_100).mark;
    assert_eq!(book.said(&fleet, "shop", 1_100).0, NodeState::Pending);
    let mark =
        fleet.reported(&book.state, &edge, NodeReport { since: mark, settled: vec![name("shop")], ..nothing_to_say(book.seq) }, 1_200).mark;
    assert_eq!(book.said(&fleet, "shop", 1_200).0, NodeState::Active);
    let before = book.seq;
    book.worker("shop", &[]);
    assert_eq!(book.said(&fleet, "shop", 1_300).0, NodeState::Pending, "the next deployment");
    let part = NodeReport { since: mark, position: None, ..saying(0, &[book.line("shop", Said::Activating)]) };
    let mark = fleet.reported(&book.state, &edge, part, 1_400).mark;
    assert_eq!(book.first(&fleet).seq, before, "where it stood, until the rest is said");
    let old_line = NodeReport {
        since: mark,
        ..saying(book.seq, &[WorkerReport { deployment: VersionId::generate(), ..book.line("shop", Said::Refused("no".into())) }])
    };
    fleet.reported(&book.state, &edge, old_line, 1_500);
    assert_eq!(book.said(&fleet, "shop", 1_500).0, NodeState::Pending, "what it refuses is another deployment");
}

#[test]
fn the_time_of_an_activation_is_when_it_was_first_heard() {
    let book = with(&["edge-1"], &["shop", "bank"]);
    let edge = node("edge-1");
    let mut fleet = Fleet::default();
    ["shop", "bank"]
        .iter()
        .for_each(|worker| fleet.committed(&name(worker), book.state.worker(&name(worker)).expect("known").record.deployed_seq, 1_000));
    let mark = fleet.reported(&book.state, &edge, saying(book.seq, &[book.line("bank", Said::Activating)]), 1_010).mark;
    fleet.reported(&book.state, &edge, NodeReport { since: mark, settled: vec![name("bank")], ..nothing_to_say(book.seq) }, 1_030);
    fleet.reported(&book.state, &edge, nothing_to_say(book.seq), 5_000);
    assert_eq!(book.said(&fleet, "shop", 5_000), (NodeState::Active, Some(10)));
    assert_eq!(book.said(&fleet, "bank", 5_000), (NodeState::Active, Some(30)));
    for seq in book.seq..book.seq + 1_000 {
        fleet.reported(&book.state, &edge, nothing_to_say(seq), 6_000);
    }
    assert_eq!(book.said(&fleet, "shop", 6_000), (NodeState::Active, None), "too long ago to be known");
}

#[test]
fn what_is_kept_of_a_hostile_node_is_bounded() {
    let names: Vec<_> = (0..400).map(|number| format!("w{number}")).collect();
    let mut state = State::default();
    for worker in &names {
        let version = VersionRecord { worker: name(worker), ..with(&[], &["shop"]).version("shop") };
        state.apply(1, &Change::VersionCreated(Box::new(version)));
    }
    let edge = node("edge-1");
    let mut fleet = Fleet::default();
    let mut mark = None;
    let refusal = |worker: &str| WorkerReport {
        worker: name(worker),
        deployment: VersionId::generate(),
        state: Said::Refused("x".repeat(REASON_BYTES_MAX)),
        active: Vec::new(),
    };
    for round in 0..5 {
        let mut lines: Vec<_> = names.iter().map(|worker| refusal(worker)).collect();
        lines.extend((0..600).map(|number| refusal(&format!("unknown-{round}-{number}"))));
        mark = fleet.reported(&state, &edge, NodeReport { since: mark, ..saying(1, &lines) }, 1_000).mark;
    }
    let joined = Change::NodeJoined {
        node: edge.clone(),
        region: "here".into(),
        address: None,
        peer: None,
        key: SigningKey::generate().expect("random bytes").public(),
    };
    state.apply(2, &joined);
    let said = |fleet: &Fleet| fleet.nodes(&state, 1_000).remove(0).report.expect("reported").unsettled;
    let reasons = said(&fleet)
        .iter()
        .map(|line| match &line.state {
            Said::Refused(reason) => reason.clone(),
            other => panic!("{other:?}"),
        })
        .collect::<Vec<_>>();
    assert_eq!(reasons.len(), names.len(), "workers that the registry knows");
    let whole: usize = reasons.iter().filter(|reason| reason.len() == REASON_BYTES_MAX).map(String::len).sum();
    assert_eq!(whole, NODE_REASONS_BYTES_MAX, "as many reasons as there is room for");
    assert!(reasons.iter().all(|reason| reason.len() == REASON_BYTES_MAX || reason.contains("its log")));
    fleet.deleted(&name("w0"));
    assert_eq!(said(&fleet).len(), names.len() - 1, "nothing is kept of a worker that is deleted");
    // Room that was given back is room.
    fleet.reported(&state, &edge, NodeReport { since: mark, ..saying(1, &[refusal("w399")]) }, 1_000);
    assert!(
        said(&fleet)
            .iter()
            .any(|line| line.worker == name("w399") && matches!(&line.state, Said::Refused(reason) if reason.starts_with("xx")))
    );
}

#[test]
fn after_a_restart_a_deployment_is_not_settled_before_its_nodes_are_heard_again() {
    let book = with(&["edge-1"], &["shop"]);
    let fleet = Fleet::expecting(book.state.nodes().keys(), 1_000);
    let look = |now_ms| {
        let nodes = fleet.worker_nodes(&book.state, &name("shop"), now_ms).expect("a deployment");
        (nodes.settled, nodes.nodes[0].state)
    };
    assert_eq!(look(16_000), (false, NodeState::Pending));
    assert_eq!(look(16_001), (false, NodeState::Offline));
}
