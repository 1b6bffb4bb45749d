//! The rules for traffic: promote versions, roll back, delete a worker.

use super::route::{self, TakenOver};
use super::state;
use super::version::{bad, check_message};
use super::{
    Before, Change, Deployment, Moment, Plan, Refusal, RouteOwner, RouteRecord, Share, State, VersionId, VersionRecord, WorkerName,
    WorkerState,
};
use crate::api::wire::{Deletion, NewDeployment, Rollback};
use crate::limits::{SERVING_BYTES_MAX, SHARES_MAX};

/// What a promotion or rollback gives back.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// The new deployment.
    pub deployment: Deployment,
    /// The one before.
    pub previous: Option<Deployment>,
    /// Routes that lead to the worker after it.
    pub routes: Vec<RouteRecord>,
}

/// Gives a worker's traffic to versions, and sets its routes where they are given, in one entry.
pub fn promote(state: &State, moment: &Moment, worker: &WorkerName, new: &NewDeployment) -> Result<Plan<Made>, Refusal> {
    let known = state.worker(worker).ok_or_else(|| Refusal::NoWorker { worker: worker.clone() })?;
    check_message(new.message.as_deref())?;
    check_shares(&new.versions)?;
    let mut plan = deploy(known, moment, worker, &new.versions, new.message.clone())?;
    check_room(state, worker, &plan.changes)?;
    if let Some(specs) = &new.routes {
        let owner = RouteOwner::Worker(worker.clone());
        let routes = route::own(&owner, specs)?;
        let set = route::set(state, &owner, routes, new.take_over)?;
        let taken: Vec<&str> = set.diff.taken_over.iter().map(|TakenOver { pattern, .. }| pattern.as_str()).collect();
        let others = state
            .routes()
            .values()
            .filter(|route| route.worker.as_ref() == Some(worker) && route.owner != owner && !taken.contains(&route.pattern.as_str()));
        plan.answer.routes = set.routes.iter().chain(others).cloned().collect();
        plan.changes.extend(set.changes);
        plan.before.extend(set.before);
    } else {
        plan.answer.routes = leading_to(state, worker);
    }
    Ok(plan)
}

/// Gives the traffic back to a version, or to what took it before. Routes stay where they are.
pub fn rollback(state: &State, moment: &Moment, worker: &WorkerName, rollback: &Rollback) -> Result<Plan<Made>, Refusal> {
    let known = state.worker(worker).ok_or_else(|| Refusal::NoWorker { worker: worker.clone() })?;
    check_message(rollback.message.as_deref())?;
    let present = known.deployment().ok_or_else(|| Refusal::NoDeployment { worker: worker.clone() })?;
    let shares = match &rollback.version {
        Some(version) => vec![Share { version: version.clone(), percentage: 100.0 }],
        None => {
            let is_before = |deployment: &&Deployment| {
                deployment.versions != present.versions && deployment.versions.iter().all(|share| known.version(&share.version).is_some())
            };
            let before = known.deployments.iter().rev().find(is_before);
            before.ok_or_else(|| Refusal::NothingBefore { worker: worker.clone() })?.versions.clone()
        }
    };
    let mut plan = deploy(known, moment, worker, &shares, rollback.message.clone())?;
    check_room(state, worker, &plan.changes)?;
    plan.answer.routes = leading_to(state, worker);
    Ok(plan)
}

/// Deletes a worker with its versions and routes. Answers with the routes' patterns.
pub fn delete(state: &State, worker: &WorkerName, deletion: &Deletion) -> Result<Plan<Vec<String>>, Refusal> {
    check_message(deletion.message.as_deref())?;
    if state.worker(worker).is_none() {
        return Err(Refusal::NoWorker { worker: worker.clone() });
    }
    let owner = RouteOwner::Worker(worker.clone());
    let leading = leading_to(state, worker);
    if let Some(route) = leading.iter().find(|route| route.owner != owner) {
        return Err(Refusal::WorkerInUse { worker: worker.clone(), pattern: route.pattern.clone(), owner: route.owner.clone() });
    }
    let routes = state.routes_of(&owner);
    let answer = routes.iter().map(|route| route.pattern.clone()).collect();
    Ok(Plan { changes: vec![Change::WorkerDeleted { worker: worker.clone() }], before: vec![Before::Routes { owner, routes }], answer })
}

/// A snapshot of the feed must hold what all workers serve.
fn check_room(state: &State, worker: &WorkerName, changes: &[Change]) -> Result<(), Refusal> {
    let others: usize = state.workers().iter().filter(|(name, _)| *name != worker).map(|(_, known)| known.serving_bytes).sum();
    let own: usize =
        changes.iter().map(|change| if let Change::Promoted { versions, .. } = change { state::size(versions) } else { 0 }).sum();
    if others.saturating_add(own) > SERVING_BYTES_MAX {
        return Err(Refusal::Limit { what: "bytes of the records of all serving versions".to_owned(), max: SERVING_BYTES_MAX });
    }
    Ok(())
}

fn leading_to(state: &State, worker: &WorkerName) -> Vec<RouteRecord> {
    state.routes().values().filter(|route| route.worker.as_ref() == Some(worker)).cloned().collect()
}

fn deploy(
    known: &WorkerState,
    moment: &Moment,
    worker: &WorkerName,
    shares: &[Share],
    message: Option<String>,
) -> Result<Plan<Made>, Refusal> {
    let mut versions: Vec<VersionRecord> = Vec::with_capacity(shares.len());
    for share in shares {
        let missing = || Refusal::NoVersion { worker: worker.clone(), version: share.version.clone() };
        versions.push(known.version(&share.version).ok_or_else(missing)?.clone());
    }
    let deployment = Deployment { id: moment.id.clone(), versions: shares.to_vec(), created_ms: moment.now_ms, message };
    let previous = known.deployment().cloned();
    let before = previous.iter().map(|previous| Before::Deployment { worker: worker.clone(), deployment: previous.id.clone() }).collect();
    let change = Change::Promoted { worker: worker.clone(), deployment: deployment.clone(), versions };
    Ok(Plan { changes: vec![change], before, answer: Made { deployment, previous, routes: vec![] } })
}

fn check_shares(shares: &[Share]) -> Result<(), Refusal> {
    if shares.is_empty() {
        return Err(bad("versions", "a deployment names a version at least"));
    }
    if shares.len() > SHARES_MAX {
        return Err(Refusal::Limit { what: "versions of a deployment".to_owned(), max: SHARES_MAX });
    }
    if let Some(share) = shares.iter().find(|share| !(0.0..=100.0).contains(&share.percentage)) {
        return Err(bad("percentage", format!("{} of version {} is not within 0 and 100", share.percentage, share.version)));
    }
    let mut ids: Vec<&VersionId> = shares.iter().map(|share| &share.version).collect();
    ids.sort();
    if let Some(twice) = ids.windows(2).find_map(|pair| (pair.first() == pair.last()).then(|| pair.first()).flatten()) {
        return Err(bad("versions", format!("version {twice} is named twice")));
    }
    let sum: f64 = shares.iter().map(|share| share.percentage).sum();
    // Shares are decimal fractions: thirds do not add up to the last bit.
    if (sum - 100.0).abs() > 0.01 {
        return Err(bad("percentage", format!("the shares add up to {sum}, not 100")));
    }
    Ok(())
}
