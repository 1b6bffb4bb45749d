//! Follows a deployment until every node runs it, and prints what became of it on each.

use std::time::Duration;

use anyhow::Context;
use selvedge_origin::api::wire::{NodeState, Promoted, WorkerNode, WorkerNodes};
use selvedge_origin::client::Client;
use selvedge_origin::registry::VersionId;
use tokio::time::Instant;

use super::follow::{Followed, follow};
use super::{DONE, FAILED, NOT_YET, SUPERSEDED};
use crate::limits::FIRST_NODE_GRACE;
use crate::output::{Cell, Output, Tone};

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
    /// A later deployment of the worker took its place.
    Superseded,
    /// The origin was lost before it was over.
    Lost,
}

impl Verdict {
    /// The exit code.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Active => DONE,
            Self::Refused => FAILED,
            Self::TimedOut | Self::NoNode | Self::Lost => NOT_YET,
            Self::Superseded => SUPERSEDED,
        }
    }

    /// The stable name, for `--json`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::NoNode => "no_node",
            Self::Superseded => "superseded",
            Self::Lost => "lost",
        }
    }

    fn of(followed: &Followed<WorkerNodes>, deployment: &VersionId) -> Self {
        let Some(nodes) = followed.last.as_ref() else { return Self::Lost };
        let any = |state| nodes.nodes.iter().any(|node| node.state == state);
        if nodes.deployment.id != *deployment {
            Self::Superseded
        } else if followed.lost.is_some() {
            Self::Lost
        } else if any(NodeState::Refused) {
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

/// Waits until the nodes have settled on a deployment, until another has taken its place, or until `wait` is over. What the nodes say of another deployment is
/// not about this one, and not given.
pub(super) async fn settle(
    client: &Client,
    promoted: &Promoted,
    wait: Duration,
    output: Output,
) -> anyhow::Result<(Verdict, Vec<WorkerNode>)> {
    let start = Instant::now();
    let ask = async |poll, seen: Option<&WorkerNodes>| client.worker_nodes(&promoted.worker, promoted.seq, poll, seen).await;
    let followed = follow(wait, output, ask, |nodes| {
        let nobody = nodes.nodes.is_empty() && start.elapsed() >= FIRST_NODE_GRACE;
        let is_over = nodes.settled || nobody || nodes.deployment.id != promoted.deployment.id;
        (!is_over).then(|| waiting(nodes))
    });
    let followed = followed.await.context("the deployment is made, but the nodes could not be followed")?;
    let verdict = Verdict::of(&followed, &promoted.deployment.id);
    if let Some(lost) = &followed.lost {
        output.warn(lost);
    }
    let nodes = followed.last.filter(|_| verdict != Verdict::Superseded);
    Ok((verdict, nodes.map(|nodes| nodes.nodes).unwrap_or_default()))
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
pub(super) fn print(verdict: Verdict, nodes: &[WorkerNode], output: Output) {
    let rows: Vec<_> = nodes.iter().map(row).collect();
    if !rows.is_empty() {
        output.table(&["node", "region", "state", "ms", ""], &rows);
    }
    match verdict {
        Verdict::Active => {}
        Verdict::Refused => output.warn("a node refuses the version and goes on with what it ran before"),
        Verdict::TimedOut => output.warn("not every node was seen to run the version in time; `selvedge status` shows how it goes on"),
        Verdict::NoNode => output.warn("no node is there; those that come will run the version"),
        Verdict::Superseded => output.warn("a later deployment took its place; `selvedge deployments` shows it"),
        Verdict::Lost => output.warn("the deployment is made, but the nodes could not be followed; `selvedge status` shows how it goes on"),
    }
}

fn row(node: &WorkerNode) -> Vec<Cell> {
    let tone = match node.state {
        NodeState::Active => Tone::Good,
        NodeState::Refused => Tone::Bad,
        NodeState::Pending => Tone::Plain,
        NodeState::Offline => Tone::Dim,
    };
    let remark = match (&node.reason, node.state) {
        (Some(reason), NodeState::Pending) => format!("tried again: {reason}"),
        (Some(reason), _) => reason.clone(),
        (None, NodeState::Offline) => "picks it up on return".to_owned(),
        (None, _) => String::new(),
    };
    let ms = node.ms.map(|ms| ms.to_string()).unwrap_or_default();
    vec![node.node.as_str().into(), node.region.as_str().into(), Cell::new(node.state.to_string(), tone), ms.into(), remark.into()]
}

#[cfg(test)]
mod tests {
    use selvedge_origin::registry::Deployment;

    use super::*;

    #[test]
    fn a_verdict_is_about_the_deployment_that_was_made_and_no_other() {
        let deployment = |id: &VersionId| Deployment { id: id.clone(), versions: vec![], created_ms: 0, message: None };
        let (mine, other) = (VersionId::generate(), VersionId::generate());
        let seen = |id: &VersionId, states: &[NodeState], lost: bool| {
            let node =
                |state: &NodeState| WorkerNode { node: "n".parse().unwrap(), region: String::new(), state: *state, reason: None, ms: None };
            let nodes = states.iter().map(node).collect();
            let nodes = WorkerNodes { worker: "shop".parse().unwrap(), seq: 1, deployment: deployment(id), settled: true, nodes };
            Followed { last: Some(nodes), lost: lost.then(String::new) }
        };
        use NodeState::{Active, Offline, Pending, Refused};
        for (followed, verdict, code) in [
            (seen(&mine, &[Active, Offline], false), Verdict::Active, DONE),
            (seen(&mine, &[Active, Refused], false), Verdict::Refused, FAILED),
            (seen(&mine, &[Active, Pending], false), Verdict::TimedOut, NOT_YET),
            (seen(&mine, &[Offline], false), Verdict::NoNode, NOT_YET),
            (seen(&mine, &[Active, Pending], true), Verdict::Lost, NOT_YET),
            (Followed { last: None, lost: Some(String::new()) }, Verdict::Lost, NOT_YET),
            (seen(&other, &[Active], false), Verdict::Superseded, SUPERSEDED),
            (seen(&other, &[Refused], false), Verdict::Superseded, SUPERSEDED),
        ] {
            assert_eq!((Verdict::of(&followed, &mine), verdict.code()), (verdict, code), "{followed:?}");
        }
    }
}
