//! Workers: versions, deployments, and what became of a deployment on the nodes.

use std::time::Duration;

use super::body::parameter;
use super::reply::{self, Answer, ApiError};
use super::wire::{
    Deleted, Deletion, DeploymentList, NewDeployment, NewVersion, Promoted, Rollback, VersionList, WorkerNodes, WorkerSummary,
};
use super::{Api, Asked};
use crate::bundle::{Bundle, Manifest, sign_version};
use crate::limits::MANIFEST_BYTES_MAX;
use crate::registry::{self, Digest, Refusal, Sealed, State, WorkerName, WorkerState};

impl Api {
    pub(super) fn workers(&self) -> Answer {
        reply::ok(&self.ledger.read(|state, _| summaries(state)))
    }

    pub(super) fn versions(&self, worker: &WorkerName) -> Answer {
        let list = self.known(worker, |known| VersionList {
            worker: worker.clone(),
            versions: known.versions.iter().rev().cloned().collect(),
            deployment: known.deployment().cloned(),
        })?;
        reply::ok(&list)
    }

    pub(super) fn deployments(&self, worker: &WorkerName) -> Answer {
        let list = self.known(worker, |known| DeploymentList {
            worker: worker.clone(),
            deployments: known.deployments.iter().rev().cloned().collect(),
        })?;
        reply::ok(&list)
    }

    fn known<T>(&self, worker: &WorkerName, look: impl FnOnce(&WorkerState) -> T) -> Result<T, Refusal> {
        let found = self.ledger.read(|state, _| state.worker(worker).map(look));
        found.ok_or_else(|| Refusal::NoWorker { worker: worker.clone() })
    }

    pub(super) async fn create_version(&self, worker: WorkerName, asked: &Asked) -> Answer {
        let new: NewVersion = asked.json()?;
        self.check_complete(&new.bundle).await?;
        let act = self.act(asked, new.message.clone(), new.request_id.clone());
        let sealed = Sealed { signature: sign_version(self.ledger.key(), &worker, &act.moment.id, &new.bundle) };
        let rule = move |state: &State, moment: &registry::Moment| registry::create_version(state, moment, &worker, &new, &sealed);
        reply::ok(&self.ledger.commit(act, rule, |_, version| version).await?)
    }

    /// A bundle is stored, whole, before the commit that names it.
    async fn check_complete(&self, bundle: &Digest) -> Result<(), ApiError> {
        let blobs = self.ledger.blobs();
        let missing = |what: String| ApiError::Incomplete(format!("{what} is missing"));
        let bytes_len = blobs.touch(bundle).await?.ok_or_else(|| missing(format!("manifest {bundle}")))?;
        if bytes_len > MANIFEST_BYTES_MAX as u64 {
            return Err(ApiError::BadBundle(format!("blob {bundle} is too large for a manifest")));
        }
        let bytes = blobs.get(bundle).await?.ok_or_else(|| missing(format!("manifest {bundle}")))?;
        let manifest: Manifest = Bundle::manifest_named(bundle, &bytes).map_err(|refused| ApiError::BadBundle(refused.to_string()))?;
        for blob in manifest.blobs() {
            let bytes_len = blobs.touch(&blob.digest).await?.ok_or_else(|| missing(format!("blob {}", blob.digest)))?;
            if bytes_len != blob.bytes_len {
                let said = format!("blob {} has {bytes_len} bytes, the manifest says {}", blob.digest, blob.bytes_len);
                return Err(ApiError::BadBundle(said));
            }
        }
        Ok(())
    }

    pub(super) async fn promote(&self, worker: WorkerName, asked: &Asked) -> Answer {
        let new: NewDeployment = asked.json()?;
        let act = self.act(asked, new.message.clone(), new.request_id.clone());
        let name = worker.clone();
        let promoted = self.ledger.commit(
            act,
            move |state, moment| registry::promote(state, moment, &worker, &new),
            move |seq, made| promoted(&name, seq, made),
        );
        reply::ok(&promoted.await?)
    }

    pub(super) async fn rollback(&self, worker: WorkerName, asked: &Asked) -> Answer {
        let rollback: Rollback = asked.json()?;
        let act = self.act(asked, rollback.message.clone(), rollback.request_id.clone());
        let name = worker.clone();
        let promoted = self.ledger.commit(
            act,
            move |state, moment| registry::rollback(state, moment, &worker, &rollback),
            move |seq, made| promoted(&name, seq, made),
        );
        reply::ok(&promoted.await?)
    }

    pub(super) async fn delete_worker(&self, worker: WorkerName, asked: &Asked) -> Answer {
        let deletion: Deletion = asked.json_or_none()?;
        let act = self.act(asked, deletion.message.clone(), deletion.request_id.clone());
        let name = worker.clone();
        let deleted = self.ledger.commit(
            act,
            move |state, _| registry::delete(state, &worker, &deletion),
            move |seq, routes| Deleted { seq: seq.unwrap_or_default(), worker: name.clone(), routes },
        );
        reply::ok(&deleted.await?)
    }

    /// Answers when the deployment is settled or differs from what the caller has seen, at the latest after `wait_ms`.
    pub(super) async fn worker_nodes(&self, worker: &WorkerName, asked: &Asked) -> Answer {
        let [seq, wait_ms, seen] = asked.query(["seq", "wait_ms", "seen"])?;
        let seq: u64 = parameter("seq", seq)?.unwrap_or(0);
        let wait = Duration::from_millis(parameter("wait_ms", wait_ms)?.unwrap_or(0));
        let seen: Option<Digest> = parameter("seen", seen)?;
        let nodes = self.long_poll(wait, |is_over| {
            let now = self.worker_nodes_now(worker)?;
            let is_news = seen.as_ref().is_none_or(|seen| now.fingerprint() != *seen);
            if now.seq >= seq && (now.settled || is_news || is_over) {
                return Ok(Some(now));
            }
            if is_over {
                return Err(ApiError::Malformed(format!("worker {worker} has no deployment of entry {seq} or later")));
            }
            Ok(None)
        });
        reply::ok(&nodes.await?)
    }

    fn worker_nodes_now(&self, worker: &WorkerName) -> Result<WorkerNodes, Refusal> {
        let now_ms = self.ledger.now_ms();
        self.ledger.fleet(|fleet, state| {
            let nodes = fleet.worker_nodes(state, worker, now_ms);
            nodes.ok_or_else(|| match state.worker(worker) {
                Some(_) => Refusal::NoDeployment { worker: worker.clone() },
                None => Refusal::NoWorker { worker: worker.clone() },
            })
        })
    }
}

fn promoted(worker: &WorkerName, seq: Option<u64>, made: registry::Made) -> Promoted {
    let registry::Made { deployment, previous, routes } = made;
    Promoted { seq: seq.unwrap_or_default(), worker: worker.clone(), deployment, previous, routes }
}

/// All workers, in lists.
pub(super) fn summaries(state: &State) -> Vec<WorkerSummary> {
    let mut routes: std::collections::BTreeMap<&WorkerName, Vec<String>> = Default::default();
    for route in state.routes().values() {
        if let Some(worker) = &route.worker {
            routes.entry(worker).or_default().push(route.pattern.clone());
        }
    }
    let summary = |(name, known): (&WorkerName, &WorkerState)| {
        let serving = known.deployment().into_iter().flat_map(|deployment| &deployment.versions);
        WorkerSummary {
            name: name.clone(),
            deployment: known.deployment().cloned(),
            numbers: serving.filter_map(|share| known.version(&share.version)).map(|version| version.number).collect(),
            versions: known.record.made,
            routes: routes.get(name).cloned().unwrap_or_default(),
        }
    };
    state.workers().iter().map(summary).collect()
}
