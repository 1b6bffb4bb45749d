//! A version from its record and bundle to something that runs: fetched, verified, warmed.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use selvedge_origin::bundle::{Bundle, ModuleKind as Kind};
use selvedge_origin::client::Client;
use selvedge_origin::keys::PublicKey;
use selvedge_origin::limits::{CPU_MS_MAX, SUBREQUESTS_MAX};
use selvedge_origin::registry::{DesiredWorker, Digest, VersionId, VersionRecord, WorkerName};
use selvedge_runtime::supervisor::{Supervisor, Warmed};
use selvedge_runtime::{Limits, Module, ModuleKind, Outcome, RunError, Var, WorkerSource};

use super::limits;
use super::pull::{self, BundleStore, PullError};
use crate::routes::ActiveWorker;

/// The seam to what runs versions: the supervisor.
pub trait Warm: Send + Sync + 'static {
    /// Prepares an isolate for a version; an error says why the version cannot run.
    fn warm<'a>(&'a self, source: &'a Arc<WorkerSource>) -> BoxFuture<'a, Result<Warmed, RunError>>;

    /// Drops the isolates of a version once their invocations have ended.
    fn retire(&self, version: &str);
}

impl Warm for Supervisor {
    fn warm<'a>(&'a self, source: &'a Arc<WorkerSource>) -> BoxFuture<'a, Result<Warmed, RunError>> {
        Box::pin(self.warm(source))
    }

    fn retire(&self, version: &str) {
        self.retire(version);
    }
}

/// Prepares versions.
pub(super) struct Loader {
    pub(super) store: Arc<BundleStore>,
    pub(super) client: Option<Client>,
    pub(super) key: Option<PublicKey>,
    pub(super) supervisor: Arc<dyn Warm>,
}

/// A worker's versions, ready to take traffic.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Versions with their shares.
    pub(super) versions: Vec<(Arc<WorkerSource>, f64)>,
    /// Those that were warmed for this.
    pub(super) warmed: Vec<VersionId>,
}

/// Why a deployment does not run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// It cannot: trying again gives the same.
    #[error("{0}")]
    Refused(String),
    /// Not now.
    #[error("{0}")]
    Later(String),
    /// Its runner ended while it was loaded, and nobody knows by whom: not now, nor ever where it goes on so.
    #[error("{0}")]
    RunnerLost(String),
}

impl From<PullError> for Failure {
    fn from(error: PullError) -> Self {
        match error {
            PullError::Refused(reason) => Self::Refused(reason),
            PullError::Away(reason) => Self::Later(reason),
        }
    }
}

impl Loader {
    /// Fetches and warms every version of a deployment that does not run already.
    pub(super) async fn prepare(
        &self,
        worker: &WorkerName,
        wanted: &DesiredWorker,
        known: Option<&ActiveWorker>,
    ) -> Result<Prepared, Failure> {
        let mut prepared = Prepared { versions: Vec::new(), warmed: Vec::new() };
        for share in &wanted.deployment.versions {
            let running = known.and_then(|known| known.versions().iter().find(|active| *active.source.version == *share.version.as_str()));
            let source = match running {
                Some(active) => active.source.clone(),
                None => {
                    let source = self.source(worker, record_of(worker, wanted, &share.version)?, self.client.as_ref()).await?;
                    let (warmed, ()) = futures::join!(self.warm(&source), self.sync());
                    warmed?;
                    prepared.warmed.push(share.version.clone());
                    source
                }
            };
            prepared.versions.push((source, share.percentage));
        }
        Ok(prepared)
    }

    /// As [`Self::prepare`], from this node's disk and without warming: for what ran before.
    pub(super) async fn restore(&self, worker: &WorkerName, wanted: &DesiredWorker) -> Result<Prepared, Failure> {
        let mut prepared = Prepared { versions: Vec::new(), warmed: Vec::new() };
        for share in &wanted.deployment.versions {
            let source = self.source(worker, record_of(worker, wanted, &share.version)?, None).await?;
            prepared.versions.push((source, share.percentage));
        }
        Ok(prepared)
    }

    async fn source(&self, worker: &WorkerName, record: &VersionRecord, client: Option<&Client>) -> Result<Arc<WorkerSource>, Failure> {
        let key = self.key.as_ref().ok_or_else(|| Failure::Later("this node has not joined a registry".into()))?;
        let bundle = pull::bundle(&self.store, client, key, record).await?;
        Ok(Arc::new(source(worker, record, bundle)))
    }

    /// Prepares an isolate. What is the version's own fault refuses it; for everything else it is tried again, until its strikes disable it,
    /// or too many of its loads have ended with their runner.
    async fn warm(&self, source: &Arc<WorkerSource>) -> Result<(), Failure> {
        let warmed = self.supervisor.warm(source).await.map_err(|error| match error.outcome {
            Outcome::RunnerLost => Failure::RunnerLost(error.to_string()),
            Outcome::LoadShed | Outcome::InternalError | Outcome::Canceled => Failure::Later(error.to_string()),
            _ => Failure::Refused(error.to_string()),
        })?;
        tracing::debug!(worker = &*source.worker, version = &*source.version, cpu_us = warmed.cpu_us, "warmed");
        Ok(())
    }

    /// Waits until the bundle is on disk, so that the state may name it.
    async fn sync(&self) {
        let store = self.store.clone();
        let synced = tokio::task::spawn_blocking(move || store.sync()).await;
        if let Err(error) = synced.map_err(std::io::Error::other).and_then(|synced| synced) {
            tracing::error!(%error, "a bundle cannot be made to last: a restart without the registry may lack it");
        }
    }

    /// Drops a version's isolates.
    pub(super) fn retire(&self, version: &VersionId) {
        self.supervisor.retire(version.as_str());
    }

    /// Removes what none of these bundles names from the disk, beyond a bound.
    pub(super) async fn collect(&self, bundles: HashSet<Digest>) {
        let store = self.store.clone();
        let collected = tokio::task::spawn_blocking(move || {
            let named = bundles.iter().flat_map(|bundle| store.names_of(bundle)).collect();
            store.collect(&named, limits::UNNAMED_BLOB_BYTES_MAX)
        });
        match collected.await {
            Ok(Ok(0)) => {}
            Ok(Ok(bytes)) => tracing::info!(bytes, "removed bundles that no version names"),
            Ok(Err(error)) => tracing::warn!(%error, "old bundles cannot be removed"),
            Err(error) => tracing::warn!(%error, "old bundles cannot be removed"),
        }
    }
}

/// The record of a version, where it is one of this worker: the registry's signature binds both, and so must the state that names them.
fn record_of<'a>(worker: &WorkerName, wanted: &'a DesiredWorker, version: &VersionId) -> Result<&'a VersionRecord, Failure> {
    let record = wanted.versions.get(version).ok_or_else(|| Failure::Refused(format!("version {version} has no record")))?;
    if record.worker != *worker || record.id != *version {
        let text = format!("version {version} of worker {worker} has the record of version {} of worker {}", record.id, record.worker);
        return Err(Failure::Refused(text));
    }
    Ok(record)
}

fn source(worker: &WorkerName, record: &VersionRecord, bundle: Bundle) -> WorkerSource {
    let defaults = Limits::default();
    let limits = Limits {
        cpu_ms: record.cpu_ms.map_or(defaults.cpu_ms, |cpu_ms| cpu_ms.min(CPU_MS_MAX)),
        subrequests_max: record.subrequests_max.map_or(defaults.subrequests_max, |max| max.min(SUBREQUESTS_MAX)),
        ..defaults
    };
    let vars = record.vars.iter().map(|(name, value)| {
        let value = match value {
            serde_json::Value::String(text) => Var::Text(text.clone()),
            other => Var::Json(other.clone()),
        };
        (name.clone(), value)
    });
    let modules = bundle.modules.into_iter().map(|module| Module {
        specifier: module.specifier,
        kind: match module.kind {
            Kind::EsModule => ModuleKind::EsModule,
            Kind::Text => ModuleKind::Text,
            Kind::Json => ModuleKind::Json,
            Kind::Data => ModuleKind::Data,
            Kind::Wasm => ModuleKind::Wasm,
        },
        bytes: module.bytes,
        source_map: module.source_map,
    });
    WorkerSource {
        worker: worker.shared(),
        version: record.id.shared(),
        cordon: record.cordon.shared(),
        entry: bundle.entry,
        modules: modules.collect(),
        vars: vars.collect(),
        compatibility_date: record.compatibility_date.clone(),
        compatibility_flags: record.compatibility_flags.clone(),
        limits,
    }
}
