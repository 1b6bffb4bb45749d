//! Follows a deployment until every node runs it, and prints what became of it on each.

use std::time::Duration;

use selvedge_origin::api::wire::{NodeState, WorkerNodes};
use selvedge_origin::client::Client;
use selvedge_origin::registry::WorkerName;
use tokio::time::Instant;

use super::{DONE, FAILED, NOT_YET};
use crate::limits::NODES_POLL_MS;
use crate::output::{Cell, Output, Tone};

/// How long to wait for a first node where the origin knows none: a node that is just joining reports within it.
const FIRST_NODE_GRACE: Duration = Duration::from_secs(5);

/// Before the origin is asked again after it could not be reached.
const PAUSE: Duration = Duration::from_millis(500);

/// How a deployment went on the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every node that is there runs it.
    Active,
    /// A node refuses it.
    Refused,
    /// Not all of them in time.
    TimedOut,
    /// There is no node.
    NoNode,
}

impl Verdict {
    /// The exit code.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Active => DONE,
            Self::Refused => FAILED,
            Self::TimedOut | Self::NoNode => NOT_YET,
        }
    }

    /// The stable name, for `--json`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::NoNode => "no_node",
        }
    }

    fn of(nodes: &WorkerNodes) -> Self {
        let any = |state| nodes.nodes.iter().any(|node| node.state == state);
        if any(NodeState::Refused) {
            Self::Refused
        } else if any(NodeState::Pending) {
            Self::TimedOut
        } else if any(NodeState::Active) {
            Self::Active
        } else {
            Self::NoNode
        }
    }
}

/// Waits until the nodes have settled on the deployment made by `seq`, or until `wait` is over.
pub(super) async fn follow(
    client: &Client,
    worker: &WorkerName,
    seq: u64,
    wait: Duration,
    output: Output,
) -> anyhow::Result<(Verdict, WorkerNodes)> {
    let start = Instant::now();
    let deadline = start + wait;
    let mut seen: Option<WorkerNodes> = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let poll = left.min(Duration::from_millis(NODES_POLL_MS));
        match client.worker_nodes(worker, seq, poll, seen.as_ref()).await {
            Ok(nodes) => {
                let nobody = nodes.nodes.is_empty() && start.elapsed() >= FIRST_NODE_GRACE;
                let over = nodes.settled || nobody || Instant::now() >= deadline;
                if over {
                    output.step_done();
                    return Ok((Verdict::of(&nodes), nodes));
                }
                output.step(waiting(&nodes));
                seen = Some(nodes);
            }
            Err(error) if error.is_transient() && Instant::now() + PAUSE < deadline => tokio::time::sleep(PAUSE).await,
            Err(error) => {
                output.step_done();
                return Err(anyhow::Error::new(error).context("the deployment is made, but the nodes could not be followed"));
            }
        }
    }
}

fn waiting(nodes: &WorkerNodes) -> String {
    let names = |state| nodes.nodes.iter().filter(move |node| node.state == state).map(|node| node.node.as_str());
    let pending: Vec<_> = names(NodeState::Pending).take(5).collect();
    if pending.is_empty() {
        return "waiting for a node".to_owned();
    }
    format!("{} of {} nodes run it; waiting for {}", names(NodeState::Active).count(), nodes.nodes.len(), pending.join(", "))
}

/// Prints the nodes and what the verdict means.
pub(super) fn print(verdict: Verdict, nodes: &WorkerNodes, output: Output) {
    let rows: Vec<_> = nodes.nodes.iter().map(row).collect();
    if !rows.is_empty() {
        output.table(&["node", "region", "state", "ms", ""], &rows);
    }
    match verdict {
        Verdict::Active => {}
        Verdict::Refused => output.warn("a node refuses the version and goes on with what it ran before"),
        Verdict::TimedOut => output.warn("not every node was seen to run the version in time; `selvedge status` shows how it goes on"),
        Verdict::NoNode => output.warn("no node is there; those that come will run the version"),
    }
}

fn row(node: &selvedge_origin::api::wire::WorkerNode) -> Vec<Cell> {
    let tone = match node.state {
        NodeState::Active => Tone::Good,
        NodeState::Refused => Tone::Bad,
        NodeState::Pending => Tone::Plain,
        NodeState::Offline => Tone::Dim,
    };
    let remark = match (&node.reason, node.state) {
        (Some(reason), _) => reason.clone(),
        (None, NodeState::Offline) => "picks it up on return".to_owned(),
        (None, _) => String::new(),
    };
    let ms = node.ms.map(|ms| ms.to_string()).unwrap_or_default();
    vec![node.node.as_str().into(), node.region.as_str().into(), Cell::new(node.state.to_string(), tone), ms.into(), remark.into()]
}
