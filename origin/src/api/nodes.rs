//! Nodes: join, report, list, remove; and everything at a glance.

use super::reply::{self, Answer, ApiError};
use super::wire::{Joined, NodeJoin, NodeReport, Removal, Reported, Status, join_message};
use super::{Api, Asked, Caller, sites, workers};
use crate::keys::Purpose;
use crate::limits::{NODE_TEXT_BYTES_MAX, REPORT_LINES_MAX, SHARES_MAX};
use crate::registry::{self, Fleet, NodeName, State};

impl Api {
    pub(super) fn status(&self) -> Answer {
        let now_ms = self.ledger.now_ms();
        let (epoch, seq) = self.ledger.read(|_, at| (at.epoch.clone(), at.seq));
        let status = self.ledger.fleet(|fleet, state| Status {
            epoch,
            seq,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            workers: workers::summaries(state),
            sites: sites::summaries(state),
            nodes: fleet.nodes(state, now_ms),
        });
        reply::ok(&status)
    }

    pub(super) fn nodes(&self) -> Answer {
        let now_ms = self.ledger.now_ms();
        reply::ok(&self.ledger.fleet(|fleet, state| fleet.nodes(state, now_ms)))
    }

    pub(super) async fn join(&self, asked: &Asked) -> Answer {
        let join: NodeJoin = asked.json()?;
        if !join.key.verifies(Purpose::NodeJoin, join_message(&join.name, &join.key).as_bytes(), &join.signature) {
            return Err(ApiError::Forbidden("the signature is not made with the key that joins".to_owned()));
        }
        let name = join.name.clone();
        self.ledger.commit(self.act(asked, None, None), move |state, _| registry::join(state, &join), |_, ()| ()).await?;
        let joined = self.ledger.read(|_, at| Joined { epoch: at.epoch.clone(), seq: at.seq });
        tracing::info!(node = %name, "node joined");
        reply::ok(&joined)
    }

    pub(super) async fn remove_node(&self, node: NodeName, asked: &Asked) -> Answer {
        let removal: Removal = asked.json_or_none()?;
        let act = self.act(asked, None, removal.request_id);
        self.ledger.commit(act, move |state, _| registry::remove(state, &node), |_, ()| ()).await?;
        reply::ok(&())
    }

    pub(super) async fn report(&self, asked: &Asked) -> Answer {
        let mut report: NodeReport = asked.json()?;
        check(&report)?;
        let Caller::Node(node, _) = &asked.caller else { return Err(ApiError::Forbidden("only nodes report".to_owned())) };
        let stands =
            |state: &State| state.nodes().get(node).is_some_and(|known| known.region == report.region && known.peer == report.peer);
        if !self.ledger.read(|state, _| stands(state)) && self.moves.take(node, self.ledger.now_ms()) {
            let (node, region, peer) = (node.clone(), report.region.clone(), report.peer.clone());
            let moved = move |state: &State, _: &_| registry::moved(state, &node, &region, peer.as_deref());
            self.ledger.commit(self.act(asked, None, None), moved, |_, ()| ()).await?;
        }
        let is_known = |fleet: &mut Fleet, _: &State| report.position.as_ref().is_some_and(|position| fleet.stands_at(node, position));
        if !self.ledger.fleet(is_known) {
            report.position = self.usable(report.position.take()).await?;
        }
        let now_ms = self.ledger.now_ms();
        let taken = self.ledger.fleet(|fleet, state| fleet.reported(state, node, report, now_ms));
        if taken.is_news {
            self.ledger.announce();
        }
        reply::ok(&Reported { mark: taken.mark })
    }
}

/// What a report may hold.
pub(super) fn check(report: &NodeReport) -> Result<(), ApiError> {
    if report.unsettled.len().saturating_add(report.settled.len()) > REPORT_LINES_MAX {
        return Err(ApiError::Malformed(format!("a report that names more than {REPORT_LINES_MAX} workers")));
    }
    if report.unsettled.iter().any(|line| line.active.len() > SHARES_MAX) {
        return Err(ApiError::Malformed(format!("a worker of which more than {SHARES_MAX} versions are active")));
    }
    let short = [Some(&report.region), report.address.as_ref(), Some(&report.build)];
    if short.into_iter().flatten().any(|text| text.len() > NODE_TEXT_BYTES_MAX) {
        return Err(ApiError::Malformed(format!("region, address and build have at most {NODE_TEXT_BYTES_MAX} bytes")));
    }
    Ok(())
}
