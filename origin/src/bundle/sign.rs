//! The registry's signature on a version: binds worker, version and bundle, so that an old bundle under another name fails.

use crate::keys::{PublicKey, Purpose, Signature, SigningKey};
use crate::registry::{Digest, VersionId, VersionRecord, WorkerName};

/// A version whose signature does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the registry's key has not signed version {version} of worker {worker} with bundle {bundle}")]
pub struct Unsigned {
    /// The worker.
    pub worker: WorkerName,
    /// The version.
    pub version: VersionId,
    /// The bundle that the record names.
    pub bundle: Digest,
}

/// Signs that this bundle is this version of this worker.
pub fn sign_version(key: &SigningKey, worker: &WorkerName, version: &VersionId, bundle: &Digest) -> Signature {
    key.sign(Purpose::Version, message(worker, version, bundle).as_bytes())
}

/// Checks the signature of a version's record.
pub fn verify_version(key: &PublicKey, record: &VersionRecord) -> Result<(), Unsigned> {
    let message = message(&record.worker, &record.id, &record.bundle);
    if key.verifies(Purpose::Version, message.as_bytes(), &record.signature) {
        return Ok(());
    }
    Err(Unsigned { worker: record.worker.clone(), version: record.id.clone(), bundle: record.bundle.clone() })
}

/// None of the three can contain a line feed, so no two triples give the same message.
fn message(worker: &WorkerName, version: &VersionId, bundle: &Digest) -> String {
    format!("{worker}\n{version}\n{bundle}")
}
