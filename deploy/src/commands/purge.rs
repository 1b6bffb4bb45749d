//! `selvedge purge`: takes back what is stored, and shows when each node has done so.

use std::time::Duration;

use anyhow::Context;
use selvedge_origin::api::wire::{NewPurge, PurgeNode, PurgeNodes, PurgeState};
use selvedge_origin::client::Client;
use selvedge_origin::registry::{PurgeRecord, RequestId};
use serde_json::json;

use super::follow::{Followed, follow};
use super::{DONE, NOT_YET, registry};
use crate::args::PurgeArgs;
use crate::output::{Cell, Output, Tone};

/// What a sentence names; the rest is counted.
const NAMED_MAX: usize = 3;

/// Runs the command.
pub(super) async fn run(args: PurgeArgs, output: Output) -> anyhow::Result<u8> {
    let client = registry::connect(&args.registry)?;
    let purge = NewPurge {
        urls: args.urls.into_iter().chain(args.more_urls).collect(),
        keys: args.keys,
        prefixes: args.prefixes,
        hosts: args.hosts,
        tags: args.tags,
        everything: args.everything,
        soft: args.soft,
        reason: args.message,
        request_id: Some(RequestId::generate()),
    };
    let purged = registry::retry(|| client.purge(&purge)).await?;
    output.line(sentence(&purged.purge));
    let followed = settle(&client, purged.seq, args.wait, output).await?;
    let verdict = Verdict::of(&followed);
    let nodes = followed.last.map(|nodes| nodes.nodes).unwrap_or_default();
    print(&nodes, output);
    if let Some(lost) = followed.lost {
        output.warn(format!("the purge is made (entry {}), but the nodes could not be followed: {lost}", purged.seq));
    }
    verdict.explain(&nodes, args.connected_only, output);
    output.document(&json!({ "seq": purged.seq, "purge": purged.purge, "result": verdict.name(), "nodes": nodes }));
    Ok(verdict.code(args.connected_only))
}

/// How a purge went on the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Every node has applied it.
    Applied,
    /// Some are away; the others have applied it.
    Away,
    /// One that is there has not, in time.
    TimedOut,
    /// The origin was lost before it was over.
    Lost,
}

impl Verdict {
    fn of(followed: &Followed<PurgeNodes>) -> Self {
        let (Some(nodes), None) = (&followed.last, &followed.lost) else { return Self::Lost };
        let any = |state| nodes.nodes.iter().any(|node| node.state == state);
        match (any(PurgeState::Pending), any(PurgeState::Away)) {
            (true, _) => Self::TimedOut,
            (false, true) => Self::Away,
            (false, false) => Self::Applied,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Away => "away",
            Self::TimedOut => "timed_out",
            Self::Lost => "lost",
        }
    }

    fn code(self, connected_only: bool) -> u8 {
        match self {
            Self::Applied => DONE,
            Self::Away if connected_only => DONE,
            Self::Away | Self::TimedOut | Self::Lost => NOT_YET,
        }
    }

    fn explain(self, nodes: &[PurgeNode], connected_only: bool, output: Output) {
        let names = |state| {
            let named: Vec<_> = nodes.iter().filter(|node| node.state == state).map(|node| node.node.as_str()).collect();
            named.join(", ")
        };
        match self {
            Self::Applied | Self::Lost => {}
            Self::Away => {
                let hint = if connected_only { "" } else { " (--connected-only accepts that)" };
                let away = names(PurgeState::Away);
                output.warn(format!("away: {away}; they serve what they have, and apply the purge before anything later{hint}"));
            }
            Self::TimedOut => {
                output.warn(format!("not acknowledged in time: {}; the purge stands, and they apply it", names(PurgeState::Pending)));
            }
        }
    }
}

/// Waits until no node is pending, or until `wait` is over.
async fn settle(client: &Client, seq: u64, wait: Duration, output: Output) -> anyhow::Result<Followed<PurgeNodes>> {
    let ask = async |poll, seen: Option<&PurgeNodes>| client.purge_nodes(seq, poll, seen).await;
    let followed = follow(wait, output, ask, |nodes| {
        let pending = nodes.nodes.iter().filter(|node| node.state == PurgeState::Pending).count();
        (!nodes.settled).then(|| format!("waiting for {pending} of {} nodes", nodes.nodes.len()))
    });
    followed.await.with_context(|| format!("the purge is made (entry {seq}), but the nodes could not be followed"))
}

fn print(nodes: &[PurgeNode], output: Output) {
    let rows: Vec<_> = nodes.iter().map(row).collect();
    if !rows.is_empty() {
        output.table(&["node", "region", "state", "ms"], &rows);
    }
}

fn row(node: &PurgeNode) -> Vec<Cell> {
    let tone = match node.state {
        PurgeState::Applied => Tone::Good,
        PurgeState::Pending => Tone::Plain,
        PurgeState::Away => Tone::Bad,
    };
    let ms = node.ms.map(|ms| ms.to_string()).unwrap_or_default();
    vec![node.node.as_str().into(), node.region.as_str().into(), Cell::new(node.state.to_string(), tone), ms.into()]
}

/// What was purged, in words.
pub(super) fn sentence(purge: &PurgeRecord) -> String {
    let names = purge.names();
    let more = names.len().saturating_sub(NAMED_MAX);
    let mut text = names.into_iter().take(NAMED_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    let of = purge.worker.as_ref().map(|worker| format!(" of worker {worker}")).unwrap_or_default();
    format!("{}purged{of}: {text}", if purge.soft { "softly " } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(states: &[PurgeState]) -> Followed<PurgeNodes> {
        let node = |state: &PurgeState| PurgeNode { node: "n".parse().unwrap(), region: String::new(), state: *state, ms: None };
        Followed { last: Some(PurgeNodes { seq: 1, settled: true, nodes: states.iter().map(node).collect() }), lost: None }
    }

    #[test]
    fn nodes_that_are_away_fail_the_command_unless_that_is_accepted() {
        use PurgeState::{Applied, Away, Pending};
        for (states, strict, lenient) in [
            (&[][..], DONE, DONE),
            (&[Applied, Applied], DONE, DONE),
            (&[Applied, Away], NOT_YET, DONE),
            (&[Applied, Away, Pending], NOT_YET, NOT_YET),
        ] {
            let verdict = Verdict::of(&nodes(states));
            assert_eq!((verdict.code(false), verdict.code(true)), (strict, lenient), "{states:?}");
        }
        let lost = Followed { lost: Some(String::new()), ..nodes(&[Applied, Away]) };
        assert_eq!(Verdict::of(&lost).code(true), NOT_YET, "it may have changed since");
    }

    #[test]
    fn a_purge_is_told_in_a_sentence() {
        let purge = PurgeRecord { tags: (0..5).map(|n| n.to_string()).collect(), soft: true, ..PurgeRecord::default() };
        assert_eq!(sentence(&purge), "softly purged: tag 0, tag 1, tag 2 and 2 more");
    }
}
