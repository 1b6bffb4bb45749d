//! Purges: made by operators and by workers, followed until every node has applied them.

use std::time::Duration;

use super::body::parameter;
use super::reply::{self, Answer, ApiError};
use super::wire::{Applied, NewPurge, PurgeNodes, Purged, WorkerPurge};
use super::{Api, Asked, Caller};
use crate::ledger::LedgerError;
use crate::registry::{self, Digest, PurgeRecord, WorkerName};

impl Api {
    pub(super) async fn purge(&self, asked: &Asked) -> Answer {
        let new: NewPurge = asked.json()?;
        let act = self.act(asked, new.reason.clone(), new.request_id.clone());
        // Asked before the log is: what the rule refuses costs no quota.
        let plan = registry::purge(&new)?;
        let pay = self.pay(None, &plan.answer);
        let purged = self.ledger.commit_paid(act, pay, move |_, _| Ok(plan.clone()), purged).await?;
        tracing::info!(seq = purged.seq, targets = purged.purge.len(), soft = purged.purge.soft, "purged");
        reply::ok(&purged)
    }

    pub(super) async fn purge_of_worker(&self, asked: &Asked) -> Answer {
        let new: WorkerPurge = asked.json()?;
        let [tell_epoch] = asked.query(["epoch"])?;
        let Caller::Node(node, _) = &asked.caller else { return Err(ApiError::Forbidden("only nodes purge for workers".to_owned())) };
        let mut act = self.act(asked, None, new.request_id.clone());
        act.actor = format!("worker {} on node {node}", new.worker);
        let plan = self.ledger.read(|state, _| registry::purge_of_worker(state, &new))?;
        let pay = self.pay(Some(new.worker.clone()), &plan.answer);
        let rule = move |state: &registry::State, _: &registry::Moment| registry::purge_of_worker(state, &new);
        let purged = self.ledger.commit_paid(act, pay, rule, purged).await?;
        // Of the log as it is now, also where a retry is given what the first one was.
        let epoch = tell_epoch.map(|_| self.ledger.meta().head().epoch);
        reply::ok(&Purged { epoch, ..purged })
    }

    /// What a purge takes of its caller's quota.
    fn pay(&self, who: Option<WorkerName>, purge: &PurgeRecord) -> impl FnOnce() -> Result<(), LedgerError> + Send + 'static {
        let (quotas, ledger, count) = (self.quotas.clone(), self.ledger.clone(), purge.len());
        move || quotas.take(who.as_ref(), count, ledger.now_ms()).map_err(|retry_after| LedgerError::Quota { retry_after })
    }

    /// A node has applied purges.
    pub(super) fn applied(&self, asked: &Asked) -> Answer {
        let applied: Applied = asked.json()?;
        let Caller::Node(node, _) = &asked.caller else { return Err(ApiError::Forbidden("only nodes acknowledge".to_owned())) };
        // The store's: a feed may have read an entry there before this process has taken it in.
        let head = self.ledger.meta().head();
        if applied.epoch != head.epoch || applied.seq > head.seq {
            return Err(ApiError::Malformed(format!("this log has no entry {} of epoch {}", applied.seq, applied.epoch)));
        }
        let now_ms = self.ledger.now_ms();
        if self.ledger.followers(|followers, _| followers.applied(node, applied.seq, now_ms)) {
            self.ledger.announce();
        }
        reply::ok(&())
    }

    /// Answers when no node is pending or any differs from what the caller has seen, at the latest after `wait_ms`.
    pub(super) async fn purge_nodes(&self, seq: u64, asked: &Asked) -> Answer {
        let [wait_ms, seen] = asked.query(["wait_ms", "seen"])?;
        let wait = Duration::from_millis(parameter("wait_ms", wait_ms)?.unwrap_or(0));
        let seen: Option<Digest> = parameter("seen", seen)?;
        if seq > self.ledger.read(|_, at| at.seq) {
            return Err(ApiError::Malformed(format!("the log has no entry {seq}")));
        }
        let nodes = self.long_poll(wait, |is_over| {
            let now_ms = self.ledger.now_ms();
            let now: PurgeNodes = self.ledger.followers(|followers, state| followers.purge_nodes(state, seq, now_ms));
            let is_news = seen.as_ref().is_some_and(|seen| now.fingerprint() != *seen);
            Ok((now.settled || is_news || is_over).then_some(now))
        });
        reply::ok(&nodes.await?)
    }
}

/// What is kept as the answer.
fn purged(seq: Option<u64>, purge: PurgeRecord) -> Purged {
    Purged { seq: seq.unwrap_or_default(), epoch: None, purge }
}
