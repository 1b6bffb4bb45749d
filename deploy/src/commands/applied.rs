//! Follows an entry of the log until every node that is there has applied it: what `apply` and `delete` wait for.

use std::time::Duration;

use anyhow::Context;
use selvedge_origin::api::wire::NodeStatus;
use selvedge_origin::client::Client;
use serde_json::json;
use tokio::time::Instant;

use super::follow::{Followed, follow};
use super::{DONE, FAILED, NOT_YET};
use crate::args::Waiting;
use crate::limits::{FIRST_NODE_GRACE, LOOK_MAX, LOOK_MIN};
use crate::output::{Cell, Output, Tone};

/// How far a node is with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Applied,
    Pending,
    /// It takes nothing of the log, and says why.
    Refused,
    Offline,
}

impl State {
    fn of(node: &NodeStatus, seq: u64) -> Self {
        match &node.report {
            _ if !node.online => Self::Offline,
            Some(said) if said.seq >= seq => Self::Applied,
            Some(said) if said.feed_refusal.is_some() => Self::Refused,
            _ => Self::Pending,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Pending => "pending",
            Self::Refused => "refused",
            Self::Offline => "offline",
        }
    }
}

/// How an entry went on the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every node that is there has applied it.
    Applied,
    /// A node takes nothing of the log.
    Refused,
    /// Not all of them in time.
    TimedOut,
    /// There is no node.
    NoNode,
    /// The origin was lost before it was over.
    Lost,
}

impl Verdict {
    fn of(followed: &Followed<Vec<NodeStatus>>, seq: u64) -> Self {
        let (Some(nodes), None) = (&followed.last, &followed.lost) else { return Self::Lost };
        let any = |state| nodes.iter().any(|node| State::of(node, seq) == state);
        if any(State::Refused) {
            Self::Refused
        } else if any(State::Pending) {
            Self::TimedOut
        } else if any(State::Applied) {
            Self::Applied
        } else {
            Self::NoNode
        }
    }

    /// The exit code.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Applied => DONE,
            Self::Refused => FAILED,
            Self::TimedOut | Self::NoNode | Self::Lost => NOT_YET,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::NoNode => "no_node",
            Self::Lost => "lost",
        }
    }
}

/// Waits as the flags say, prints how it went, and adds that to the document. None: it was not to be waited for.
pub(super) async fn settle(
    client: &Client,
    seq: u64,
    waiting: &Waiting,
    document: &mut serde_json::Value,
    output: Output,
) -> anyhow::Result<Option<Verdict>> {
    if waiting.no_wait {
        document["result"] = json!("not_waited");
        return Ok(None);
    }
    let start = Instant::now();
    let ask = async |left, seen: Option<&Vec<NodeStatus>>| {
        if seen.is_some() {
            tokio::time::sleep(look(start.elapsed()).min(left)).await;
        }
        client.nodes().await
    };
    let followed = follow(waiting.wait, output, ask, |nodes| waits_for(nodes, seq, start.elapsed()));
    let followed = followed.await.with_context(|| format!("it is done (entry {seq}), but the nodes could not be followed"))?;
    let verdict = Verdict::of(&followed, seq);
    let nodes = followed.last.unwrap_or_default();
    print(verdict, &nodes, seq, output);
    if let Some(lost) = &followed.lost {
        output.warn(format!("it is done (entry {seq}), but the nodes could not be followed: {lost}"));
    }
    let told = |node: &NodeStatus| json!({ "node": node.name, "region": node.region, "state": State::of(node, seq).name() });
    document["result"] = json!(verdict.name());
    document["nodes"] = nodes.iter().map(told).collect();
    Ok(Some(verdict))
}

/// What is waited for, after this long.
fn waits_for(nodes: &[NodeStatus], seq: u64, waited: Duration) -> Option<String> {
    // One that refused what came opens the feed again at once, and may find it true.
    let pending = nodes.iter().filter(|node| matches!(State::of(node, seq), State::Pending | State::Refused)).count();
    if pending > 0 {
        return Some(format!("waiting for {pending} of {} nodes", nodes.len()));
    }
    let nobody_yet = waited < FIRST_NODE_GRACE && nodes.iter().all(|node| node.report.is_none());
    nobody_yet.then(|| "waiting for a node".to_owned())
}

/// How long until the next look, after this long: what takes its time is looked at less often.
fn look(waited: Duration) -> Duration {
    (waited / 4).clamp(LOOK_MIN, LOOK_MAX)
}

fn print(verdict: Verdict, nodes: &[NodeStatus], seq: u64, output: Output) {
    let rows: Vec<_> = nodes.iter().map(|node| row(node, State::of(node, seq))).collect();
    if !rows.is_empty() {
        output.table(&["node", "region", "state", ""], &rows);
    }
    match verdict {
        Verdict::Applied | Verdict::Lost => {}
        Verdict::Refused => output.warn("a node takes nothing of the log and goes on as before"),
        Verdict::TimedOut => output.warn("not every node was seen to have it in time; `selvedge nodes` shows how it goes on"),
        Verdict::NoNode => output.warn("no node is there; those that come will have it"),
    }
}

fn row(node: &NodeStatus, state: State) -> Vec<Cell> {
    let (tone, remark) = match state {
        State::Applied => (Tone::Good, ""),
        State::Pending => (Tone::Plain, ""),
        State::Refused => (Tone::Bad, node.report.as_ref().and_then(|said| said.feed_refusal.as_deref()).unwrap_or_default()),
        State::Offline => (Tone::Dim, "goes on as before, and picks it up on return"),
    };
    vec![node.name.as_str().into(), node.region.as_str().into(), Cell::new(state.name(), tone), remark.into()]
}

#[cfg(test)]
mod tests {
    use selvedge_origin::api::wire::NodeSaid;

    use super::*;

    #[test]
    fn every_node_that_is_there_has_to_have_it() {
        let node = |(online, seq, refuses): &(bool, u64, bool)| NodeStatus {
            name: "n".parse().unwrap(),
            region: String::new(),
            address: None,
            online: *online,
            reported_ms_ago: Some(0),
            report: Some(NodeSaid {
                seq: *seq,
                build: String::new(),
                feed_refusal: refuses.then(|| "forged".into()),
                last_refusal: None,
                unsettled: vec![],
            }),
        };
        let (has, lacks, refuses, away) = ((true, 7, false), (true, 6, false), (true, 6, true), (false, 7, false));
        for (nodes, verdict, code) in [
            (&[has, away][..], Verdict::Applied, DONE),
            (&[has, lacks], Verdict::TimedOut, NOT_YET),
            (&[has, lacks, refuses], Verdict::Refused, FAILED),
            (&[away], Verdict::NoNode, NOT_YET),
            (&[], Verdict::NoNode, NOT_YET),
        ] {
            let followed = Followed { last: Some(nodes.iter().map(node).collect()), lost: None };
            assert_eq!((Verdict::of(&followed, 7), verdict.code()), (verdict, code), "{nodes:?}");
            let lost = Followed { lost: Some(String::new()), ..followed };
            assert_eq!(Verdict::of(&lost, 7), Verdict::Lost, "it may have changed since");
        }
    }

    #[test]
    fn a_first_report_is_waited_for_a_while_and_looks_become_rare() {
        let unheard = NodeStatus {
            name: "n".parse().unwrap(),
            region: String::new(),
            address: None,
            online: false,
            reported_ms_ago: None,
            report: None,
        };
        let said = NodeSaid { seq: 7, build: String::new(), feed_refusal: None, last_refusal: None, unsettled: vec![] };
        let heard = |online| NodeStatus { online, report: Some(said.clone()), ..unheard.clone() };
        for (nodes, waits) in
            [(vec![], true), (vec![unheard.clone()], true), (vec![heard(false)], false), (vec![heard(true), unheard.clone()], false)]
        {
            assert_eq!(waits_for(&nodes, 7, Duration::ZERO).is_some(), waits, "{nodes:?}");
            assert_eq!(waits_for(&nodes, 7, FIRST_NODE_GRACE), None, "{nodes:?}");
        }
        assert!(waits_for(&[heard(true)], 8, FIRST_NODE_GRACE).is_some(), "it has reported, and lacks the entry");
        assert_eq!([0, 1, 60].map(|seconds| look(Duration::from_secs(seconds))), [LOOK_MIN, Duration::from_millis(250), LOOK_MAX]);
    }
}
