//! Questions to nodes: asked through the origin, answered by those that are connected; the others are named.

use anyhow::Context;
use selvedge_origin::api::wire::{Answers, Ask, NewQuestion, NodeTold, Told, ToldState};
use tokio::time::Instant;

use super::{DONE, FAILED, NOT_YET, registry};
use crate::args::Asking;
use crate::limits::ANSWER_GRACE;
use crate::output::Output;

/// Asks the nodes that the flags name. All of it takes as long as they may take, and [`ANSWER_GRACE`] for the origin.
pub(super) async fn ask(ask: Ask, asking: &Asking) -> anyhow::Result<Answers> {
    let client = registry::connect(&asking.registry)?;
    let (client, ask, deadline) = (&client, &ask, Instant::now() + asking.wait);
    let answers = registry::retry(|| async move {
        // A later attempt gives the nodes what is left.
        let left = deadline.saturating_duration_since(Instant::now());
        let wait_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        client.question(&NewQuestion { ask: ask.clone(), node: asking.node.clone(), wait_ms }).await
    });
    let answers = tokio::time::timeout_at(deadline + ANSWER_GRACE, answers).await;
    Ok(answers.with_context(|| format!("the origin at {} does not answer in time (--wait {:?})", client.url(), asking.wait))??)
}

/// How a question went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All have answered.
    Answered,
    /// Some are away; the others have answered.
    Away,
    /// One that is there has not answered in time, or cannot; or there is no node.
    Silent,
    /// One has answered that it cannot say.
    Failed,
}

impl Verdict {
    pub(super) fn of(answers: &Answers) -> Self {
        let any = |state| answers.nodes.iter().any(|node| node.state == state);
        if answers.nodes.iter().any(|node| failure(node).is_some()) {
            Self::Failed
        } else if answers.nodes.is_empty() || any(ToldState::Silent) || any(ToldState::Unable) {
            Self::Silent
        } else if any(ToldState::Away) {
            Self::Away
        } else {
            Self::Answered
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Away => "away",
            Self::Silent => "silent",
            Self::Failed => "failed",
        }
    }

    pub(super) fn code(self, connected_only: bool) -> u8 {
        match self {
            Self::Answered => DONE,
            Self::Away if connected_only => DONE,
            Self::Away | Self::Silent => NOT_YET,
            Self::Failed => FAILED,
        }
    }
}

/// Why a node cannot say.
fn failure(node: &NodeTold) -> Option<&str> {
    if let Some(Told::Failed(reason)) = &node.told { Some(reason) } else { None }
}

/// Names the nodes that did not answer.
pub(super) fn warn(answers: &Answers, connected_only: bool, output: Output) {
    if answers.nodes.is_empty() {
        output.warn("no node has joined");
    }
    for node in &answers.nodes {
        if let Some(reason) = failure(node) {
            output.warn(format!("{}: {}", node.node, crate::output::clean(reason)));
        }
    }
    let hint = if connected_only { "" } else { " (--connected-only accepts that)" };
    for (state, what, hint) in [
        (ToldState::Away, "away", hint),
        (ToldState::Silent, "no answer in time", " (--wait gives more)"),
        (ToldState::Unable, "an earlier release that takes no questions", ""),
    ] {
        let names: Vec<_> = answers.nodes.iter().filter(|node| node.state == state).map(|node| node.node.as_str()).collect();
        if !names.is_empty() {
            output.warn(format!("{what}: {}{hint}", names.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(states: &[ToldState], told: Option<Told>) -> Answers {
        let node =
            |state: &ToldState| NodeTold { node: "n".parse().unwrap(), region: String::new(), state: *state, ms: None, told: told.clone() };
        Answers { nodes: states.iter().map(node).collect() }
    }

    #[test]
    fn nodes_that_do_not_answer_fail_the_command_unless_they_are_away_and_that_is_accepted() {
        use ToldState::{Answered, Away, Silent, Unable};
        for (states, strict, lenient) in [
            (&[][..], NOT_YET, NOT_YET),
            (&[Answered], DONE, DONE),
            (&[Answered, Away], NOT_YET, DONE),
            (&[Answered, Away, Silent], NOT_YET, NOT_YET),
            (&[Answered, Unable], NOT_YET, NOT_YET),
        ] {
            let verdict = Verdict::of(&answers(states, None));
            assert_eq!((verdict.code(false), verdict.code(true)), (strict, lenient), "{states:?}");
        }
        assert_eq!(Verdict::of(&answers(&[Answered], Some(Told::Failed("no".into())))).code(true), FAILED);
    }
}
