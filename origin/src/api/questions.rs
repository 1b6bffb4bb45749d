//! Questions of operators to nodes, and the nodes' answers.

use std::time::Duration;

use super::reply::{self, Answer, ApiError};
use super::wire::{Answers, NewQuestion, NodeAnswer};
use super::{Api, Asked, Caller};
use crate::ledger::LedgerError;
use crate::limits::LONG_POLL_MAX;
use crate::registry;

impl Api {
    /// Answers when all nodes that can be asked have answered, at the latest after `wait_ms`. Changes nothing, and is not in the log.
    pub(super) async fn question(&self, asked: &Asked) -> Answer {
        let new: NewQuestion = asked.json()?;
        let nodes = self.ledger.read(|state, _| registry::question(state, &new))?;
        let wait = Duration::from_millis(new.wait_ms).min(LONG_POLL_MAX);
        let told = tokio::select! {
            told = self.desk.ask(&new.ask, nodes, wait) => told,
            () = self.stop.cancelled() => return Err(ApiError::Overloaded),
        };
        let told = told.map_err(|error| LedgerError::Internal(error.to_string()))?;
        reply::ok(&Answers { nodes: told.ok_or(ApiError::Overloaded)? })
    }

    /// A node answers.
    pub(super) fn node_answer(&self, asked: &Asked) -> Answer {
        let answer: NodeAnswer = asked.json()?;
        let Caller::Node(node, _) = &asked.caller else { return Err(ApiError::Forbidden("only nodes answer".to_owned())) };
        self.desk.answered(node, &answer.question, answer.told, asked.body.len());
        reply::ok(&())
    }
}
