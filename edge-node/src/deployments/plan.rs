//! What has to happen for a node to run what the registry wants. Pure: two states in, a plan out.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_origin::registry::{Desired, DesiredWorker, RouteRecord, VersionId, WorkerName};

/// What the node is doing now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now<'a> {
    /// What takes traffic, by worker.
    pub(super) active: &'a BTreeMap<WorkerName, DesiredWorker>,
    /// Workers that are being activated; each is looked at again when that has ended.
    pub(super) underway: &'a BTreeSet<WorkerName>,
    /// Deployments that were refused: not tried again.
    pub(super) refused: &'a BTreeMap<WorkerName, VersionId>,
}

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Workers whose wanted deployment is to be fetched, warmed and swapped in.
    pub(super) activate: Vec<WorkerName>,
    /// Workers that the registry wants no more.
    pub(super) remove: Vec<WorkerName>,
}

/// The way from what is to what is wanted.
pub(super) fn plan(now: Now<'_>, wanted: &Desired) -> Plan {
    let activate = wanted.workers.keys().filter(|name| needs_activation(now, name, wanted));
    let remove = now.active.keys().filter(|name| !wanted.workers.contains_key(*name));
    Plan { activate: activate.cloned().collect(), remove: remove.cloned().collect() }
}

/// Whether a worker's wanted deployment is to be fetched, warmed and swapped in.
pub(super) fn needs_activation(now: Now<'_>, name: &WorkerName, wanted: &Desired) -> bool {
    let Some(worker) = wanted.workers.get(name) else { return false };
    let runs = now.active.get(name).is_some_and(|active| active.deployment.id == worker.deployment.id);
    let refused = now.refused.get(name) == Some(&worker.deployment.id);
    !runs && !refused && !now.underway.contains(name)
}

/// Versions of a worker that took traffic and do so no more.
pub(super) fn retired(before: &DesiredWorker, after: Option<&DesiredWorker>) -> Vec<VersionId> {
    let stays = |version: &VersionId| after.is_some_and(|after| after.versions.contains_key(version));
    before.versions.keys().filter(|version| !stays(version)).cloned().collect()
}

/// The routes that the node answers by. A wanted route whose worker does not run yet (or cannot) leaves in place what its pattern did before:
/// traffic moves only to what is ready.
pub(super) fn effective_routes(
    before: &BTreeMap<String, RouteRecord>,
    wanted: &BTreeMap<String, RouteRecord>,
    runs: impl Fn(&WorkerName) -> bool,
) -> BTreeMap<String, RouteRecord> {
    let ready = |route: &RouteRecord| route.worker.as_ref().is_none_or(&runs);
    let effective = wanted.iter().filter_map(|(pattern, route)| {
        let chosen = if ready(route) { Some(route) } else { before.get(pattern).filter(|route| ready(route)) };
        Some((pattern.clone(), chosen?.clone()))
    });
    effective.collect()
}

/// What must be kept beside the wanted state to start again with the last good one: for each worker whose wanted deployment does not run, what runs
/// instead (or nothing).
pub(super) fn deviations(active: &BTreeMap<WorkerName, DesiredWorker>, wanted: &Desired) -> BTreeMap<WorkerName, Option<DesiredWorker>> {
    let deviating = wanted.workers.iter().filter_map(|(name, worker)| {
        let active = active.get(name);
        let same = active.is_some_and(|active| active.deployment.id == worker.deployment.id);
        (!same).then(|| (name.clone(), active.cloned()))
    });
    deviating.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use selvedge_origin::registry::{Deployment, RouteOwner, Share};

    use super::*;

    fn id(number: u32) -> VersionId {
        format!("00000000-0000-7000-8000-{number:012}").parse().unwrap()
    }

    /// A worker whose deployment has this number and names these versions. Records play no part in planning.
    fn worker(deployment: u32, versions: &[(VersionId, selvedge_origin::registry::VersionRecord)]) -> DesiredWorker {
        let shares = versions.iter().map(|(version, _)| Share { version: version.clone(), percentage: 100.0 / versions.len() as f64 });
        DesiredWorker {
            deployment: Deployment { id: id(deployment), versions: shares.collect(), created_ms: 0, message: None },
            versions: versions.iter().cloned().collect(),
        }
    }

    fn name(text: &str) -> WorkerName {
        text.parse().unwrap()
    }

    fn record(version: u32) -> (VersionId, selvedge_origin::registry::VersionRecord) {
        let json = serde_json::json!({
            "worker": "w", "id": id(version), "number": version, "bundle": "0".repeat(64), "signature": "0".repeat(128), "cordon": "shared",
            "vars": {}, "compatibility_date": "2026-01-01", "compatibility_flags": [], "cpu_ms": null, "subrequests_max": null,
            "created_ms": 0, "message": null,
        });
        (id(version), serde_json::from_value(json).unwrap())
    }

    fn route(pattern: &str, worker: Option<&str>, upstream: Option<&str>) -> (String, RouteRecord) {
        let record = RouteRecord {
            pattern: pattern.into(),
            owner: RouteOwner::Site("site".parse().unwrap()),
            worker: worker.map(name),
            upstream: upstream.map(Into::into),
            redirect_to_https: false,
            compress: Default::default(),
            early_hints: false,
            cache: Default::default(),
        };
        (pattern.into(), record)
    }

    #[test]
    fn a_plan_activates_what_is_new_and_removes_what_is_gone() {
        let active = BTreeMap::from([(name("same"), worker(1, &[])), (name("old"), worker(2, &[])), (name("gone"), worker(3, &[]))]);
        let workers = [("same", 1), ("old", 9), ("new", 4)].map(|(text, deployment)| (name(text), worker(deployment, &[])));
        let wanted = Desired { workers: BTreeMap::from(workers), ..Desired::default() };
        let now = Now { active: &active, underway: &BTreeSet::new(), refused: &BTreeMap::new() };
        assert_eq!(plan(now, &wanted), Plan { activate: vec![name("new"), name("old")], remove: vec![name("gone")] });
    }

    #[test]
    fn what_is_underway_or_refused_is_not_begun_again_but_a_later_deployment_is() {
        let active = BTreeMap::new();
        let workers = [("busy", 1), ("bad", 2), ("mended", 4)].map(|(text, deployment)| (name(text), worker(deployment, &[])));
        let wanted = Desired { workers: BTreeMap::from(workers), ..Desired::default() };
        let underway = BTreeSet::from([name("busy")]);
        let refused = BTreeMap::from([(name("bad"), id(2)), (name("mended"), id(3))]);
        let now = Now { active: &active, underway: &underway, refused: &refused };
        assert_eq!(plan(now, &wanted), Plan { activate: vec![name("mended")], remove: vec![] });
    }

    #[test]
    fn nothing_to_do_is_an_empty_plan() {
        let active = BTreeMap::from([(name("same"), worker(1, &[]))]);
        let wanted = Desired { workers: active.clone(), ..Desired::default() };
        let now = Now { active: &active, underway: &BTreeSet::new(), refused: &BTreeMap::new() };
        assert_eq!(plan(now, &wanted), Plan::default());
    }

    #[test]
    fn versions_that_stay_in_the_next_deployment_are_not_retired() {
        let before = worker(1, &[record(1), record(2)]);
        let after = worker(2, &[record(2), record(3)]);
        assert_eq!(retired(&before, Some(&after)), vec![id(1)]);
        assert_eq!(retired(&before, None), vec![id(1), id(2)]);
    }

    #[test]
    fn a_route_moves_only_to_a_worker_that_runs() {
        let before = BTreeMap::from([route("a/*", None, Some("http://10.0.0.1")), route("b/*", None, Some("http://10.0.0.1"))]);
        let wanted =
            BTreeMap::from([route("a/*", Some("ready"), None), route("b/*", Some("late"), None), route("c/*", Some("late"), None)]);
        let effective = effective_routes(&before, &wanted, |worker| *worker == name("ready"));
        let workers: Vec<_> = effective.values().map(|route| (route.pattern.as_str(), route.worker.clone())).collect();
        assert_eq!(workers, [("a/*", Some(name("ready"))), ("b/*", None)]);
        let effective = effective_routes(&effective, &wanted, |_| true);
        assert_eq!(effective, wanted);
    }

    #[test]
    fn routes_that_are_wanted_no_more_go_at_once() {
        let before = BTreeMap::from([route("a/*", None, Some("http://10.0.0.1"))]);
        assert!(effective_routes(&before, &BTreeMap::new(), |_| true).is_empty());
    }

    #[test]
    fn only_workers_that_deviate_from_the_wanted_state_are_kept_beside_it() {
        let active = BTreeMap::from([(name("same"), worker(1, &[])), (name("old"), worker(2, &[]))]);
        let workers = [("same", 1), ("old", 3), ("new", 4)].map(|(text, deployment)| (name(text), worker(deployment, &[])));
        let wanted = Desired { workers: BTreeMap::from(workers), ..Desired::default() };
        let kept = deviations(&active, &wanted);
        assert_eq!(kept, BTreeMap::from([(name("old"), Some(worker(2, &[]))), (name("new"), None)]));
    }
}
