//! Bundles onto this node: modules by digest, from disk where they are, from the registry where not; verified every time they are read.

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use selvedge_origin::bundle::{BlobRef, Bundle, Manifest, Refused, verify_blob, verify_version};
use selvedge_origin::client::Client;
use selvedge_origin::keys::PublicKey;
use selvedge_origin::limits::{BLOB_BYTES_MAX, MANIFEST_BYTES_MAX};
use selvedge_origin::registry::{Digest, VersionRecord};

use super::{limits, state};

/// Why a bundle is not here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PullError {
    /// It must not be used: trying again gives the same.
    #[error("{0}")]
    Refused(String),
    /// It cannot be fetched now.
    #[error("{0}")]
    Away(String),
}

impl From<Refused> for PullError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused.to_string())
    }
}

/// Blobs on this node's disk, named by digest.
#[derive(Debug)]
pub(super) struct BundleStore {
    folder: PathBuf,
    /// Written, but perhaps not on disk yet.
    unsynced: Mutex<Vec<PathBuf>>,
}

impl BundleStore {
    /// The store in a folder, made if it is missing; what an interrupted write left behind is removed. Blocks.
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        for entry in std::fs::read_dir(&folder)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with('.') {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(Self { folder, unsynced: Mutex::default() })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.as_str())
    }

    /// The bytes, where they are here and are what the digest names. Others are removed. Blocks.
    fn read(&self, digest: &Digest, bytes_max: u64) -> Option<Bytes> {
        let mut bytes = Vec::new();
        std::fs::File::open(self.path(digest)).ok()?.take(bytes_max + 1).read_to_end(&mut bytes).ok()?;
        if bytes.len() as u64 <= bytes_max && Digest::of(&bytes) == *digest {
            return Some(bytes.into());
        }
        tracing::warn!(%digest, "a bundle's file on this node is damaged: removed");
        let _ = std::fs::remove_file(self.path(digest));
        None
    }

    /// Keeps verified bytes; [`Self::sync`] makes them last. Blocks.
    pub(super) fn write(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(digest);
        state::write_unsynced(&path, bytes)?;
        self.unsynced.lock().push(path);
        Ok(())
    }

    /// Waits until everything written is on disk: before a state names it. Whoever comes while another waits may have written what that one syncs, and waits
    /// with it. What fails is left for the next, and keeps nothing else from its disk. Blocks.
    pub(super) fn sync(&self) -> io::Result<()> {
        let mut unsynced = self.unsynced.lock();
        if unsynced.is_empty() {
            return Ok(());
        }
        let mut failed = Vec::new();
        let mut first = Ok(());
        for path in unsynced.iter() {
            match std::fs::File::open(path).and_then(|file| file.sync_all()) {
                Ok(()) => {}
                // Found damaged and removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    failed.push(path.clone());
                    first = first.and(Err(error));
                }
            }
        }
        state::sync_folder(&self.folder)?;
        *unsynced = failed;
        first
    }

    /// Removes blobs that nothing names, the oldest first, until the rest is within its bound. Blocks.
    pub(super) fn collect(&self, named: &HashSet<Digest>, bytes_max: u64) -> io::Result<u64> {
        let mut unnamed = Vec::new();
        for entry in std::fs::read_dir(&self.folder)?.flatten() {
            let digest = entry.file_name().to_string_lossy().parse::<Digest>();
            if digest.is_ok_and(|digest| !named.contains(&digest))
                && let Ok(metadata) = entry.metadata()
            {
                unnamed.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), entry.path()));
            }
        }
        unnamed.sort();
        let mut total: u64 = unnamed.iter().map(|(_, bytes_len, _)| bytes_len).sum();
        let mut removed = 0;
        for (_, bytes_len, path) in unnamed {
            if total <= bytes_max {
                break;
            }
            std::fs::remove_file(path)?;
            total -= bytes_len;
            removed += bytes_len;
        }
        Ok(removed)
    }

    /// Every blob that the bundle needs, where its manifest is here. Blocks.
    pub(super) fn names_of(&self, bundle: &Digest) -> Vec<Digest> {
        let mut names = vec![bundle.clone()];
        if let Some(bytes) = self.read(bundle, MANIFEST_BYTES_MAX as u64)
            && let Ok(manifest) = Manifest::parse(&bytes)
        {
            names.extend(manifest.blobs().map(|blob| blob.digest.clone()));
        }
        names
    }
}

/// A version's bundle, whole and verified: the registry's signature over worker, version and bundle first, then every byte by digest. Without a
/// client, from disk only.
pub(super) async fn bundle(
    store: &Arc<BundleStore>,
    client: Option<&Client>,
    key: &PublicKey,
    record: &VersionRecord,
) -> Result<Bundle, PullError> {
    verify_version(key, record).map_err(Refused::from)?;
    let named = BlobRef { digest: record.bundle.clone(), bytes_len: 0 };
    let bytes = blob(store, client, "manifest", named, MANIFEST_BYTES_MAX as u64).await?;
    let manifest = Bundle::manifest_of(key, record, &bytes)?;

    let mut wanted: Vec<(String, BlobRef)> = Vec::new();
    let mut seen = HashSet::new();
    for module in &manifest.modules {
        let of_module = std::iter::once(&module.blob).chain(&module.source_map);
        for needed in of_module.filter(|needed| seen.insert(needed.digest.clone())) {
            wanted.push((format!("module {:?}", module.specifier), needed.clone()));
        }
    }
    let pulls = futures::stream::iter(wanted).map(|(what, needed)| async move {
        let bytes_max = needed.bytes_len;
        let digest = needed.digest.clone();
        Ok::<_, PullError>((digest, blob(store, client, &what, needed, bytes_max).await?))
    });
    let blobs: std::collections::HashMap<Digest, Bytes> = pulls.buffer_unordered(limits::PULLS_MAX).try_collect().await?;
    let assembled = tokio::task::spawn_blocking(move || Bundle::assemble(&manifest, |digest| blobs.get(digest).cloned())).await;
    Ok(assembled.map_err(|error| PullError::Away(error.to_string()))??)
}

/// One blob: from disk, or from the registry, then kept. A `bytes_len` of 0 with a larger bound means that the length is not known.
async fn blob(store: &Arc<BundleStore>, client: Option<&Client>, what: &str, named: BlobRef, bytes_max: u64) -> Result<Bytes, PullError> {
    let (disk, digest) = (store.clone(), named.digest.clone());
    let here = tokio::task::spawn_blocking(move || disk.read(&digest, bytes_max.min(BLOB_BYTES_MAX))).await.ok().flatten();
    if let Some(bytes) = here {
        return Ok(bytes);
    }
    let digest = &named.digest;
    let client = client.ok_or_else(|| PullError::Away(format!("{what}: {digest} is not on this node")))?;
    let bytes = client.blob(digest).await.map_err(|error| {
        let text = format!("{what}: {error}");
        if error.is_transient_for_member() { PullError::Away(text) } else { PullError::Refused(text) }
    })?;
    let (disk, what) = (store.clone(), what.to_owned());
    let kept = tokio::task::spawn_blocking(move || {
        // The digest decides; a length that differs too is named for what it is.
        if named.bytes_len > 0 {
            verify_blob(&what, &named, &bytes)?;
        } else if bytes.len() as u64 > bytes_max || Digest::of(&bytes) != named.digest {
            return Err(PullError::from(Refused::Digest { what, digest: named.digest }));
        }
        // A disk that is full or broken costs the copy, not the deployment.
        if let Err(error) = disk.write(&named.digest, &bytes) {
            tracing::error!(digest = %named.digest, %error, "a bundle's file cannot be kept: a restart without the registry will lack it");
        }
        Ok(bytes)
    });
    kept.await.map_err(|error| PullError::Away(error.to_string()))?
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_removed_and_not_given() {
        let folder = tempfile::tempdir().unwrap();
        let store = BundleStore::open(folder.path().join("bundles")).unwrap();
        let digest = Digest::of(b"module");
        store.write(&digest, b"module").unwrap();
        assert_eq!(store.read(&digest, 100).as_deref(), Some(&b"module"[..]));
        assert_eq!(store.read(&digest, 3), None, "longer than its bound");
        store.write(&digest, b"modulo").unwrap();
        assert_eq!(store.read(&digest, 100), None);
        assert!(!store.path(&digest).exists());
    }

    #[test]
    fn what_could_not_be_synced_is_synced_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let store = BundleStore::open(folder.path().join("bundles")).unwrap();
        store.write(&Digest::of(b"module"), b"module").unwrap();
        let away = folder.path().join("away");
        std::fs::rename(&store.folder, &away).unwrap();
        assert!(store.sync().is_err(), "the folder cannot be opened");
        assert_eq!(store.unsynced.lock().len(), 1);
        std::fs::rename(&away, &store.folder).unwrap();
        store.sync().unwrap();
        assert!(store.unsynced.lock().is_empty());
    }

    #[test]
    fn one_that_cannot_be_opened_keeps_no_other_from_its_disk() {
        let folder = tempfile::tempdir().unwrap();
        let store = BundleStore::open(folder.path().join("bundles")).unwrap();
        let (bad, good) = (Digest::of(b"bad"), Digest::of(b"good"));
        store.write(&bad, b"bad").unwrap();
        store.write(&good, b"good").unwrap();
        std::fs::remove_file(store.path(&bad)).unwrap();
        std::os::unix::fs::symlink(store.path(&bad), store.path(&bad)).unwrap();
        assert!(store.sync().is_err(), "a link to itself");
        assert_eq!(*store.unsynced.lock(), [store.path(&bad)], "it is left for the next, alone");
        std::fs::remove_file(store.path(&bad)).unwrap();
        store.sync().unwrap();
        assert!(store.unsynced.lock().is_empty());
    }

    #[test]
    fn unnamed_blobs_are_collected_down_to_the_bound_and_named_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = BundleStore::open(folder.path().to_path_buf()).unwrap();
        let blobs: Vec<_> = (0..10u8).map(|number| vec![number; 100]).collect();
        for bytes in &blobs {
            store.write(&Digest::of(bytes), bytes).unwrap();
        }
        let named = HashSet::from([Digest::of(&blobs[0]), Digest::of(&blobs[1])]);
        assert_eq!(store.collect(&named, 300).unwrap(), 500);
        assert!(store.read(&Digest::of(&blobs[0]), 100).is_some());
        assert!(store.read(&Digest::of(&blobs[1]), 100).is_some());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
        assert_eq!(store.collect(&named, 0).unwrap(), 300);
    }
}
