//! Bundles as files named by their digest: written beside, synced, renamed; a file that has its name is whole.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::RwLock;
use tokio::io::AsyncReadExt as _;

use super::{Answer, BlobReader, Blobs, StoreError};
use crate::limits::{BLOB_BYTES_MAX, BLOB_PIECE_BYTES, BLOB_UNUSED_KEPT};
use crate::registry::Digest;

/// Blobs in a folder.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    folder: PathBuf,
    /// Shared by those who store a blob or make one young again; who removes an old one has it alone from the look at its age on.
    ages: Arc<RwLock<()>>,
}

impl Files {
    /// Opens or makes the folder. What a crash left half-written is removed. Blocks.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder.join("writing")).map_err(|error| failed(folder, &error))?;
        for left in std::fs::read_dir(folder.join("writing")).map_err(|error| failed(folder, &error))?.flatten() {
            let _ = std::fs::remove_file(left.path());
        }
        Ok(Self { folder: folder.to_owned(), ages: Arc::default() })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let (shelf, _) = digest.as_str().split_at_checked(2).unwrap_or_default();
        self.folder.join(shelf).join(digest.as_str())
    }

    fn put_now(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let got = Digest::of(bytes);
        if got != *digest {
            return Err(StoreError::Digest { expected: digest.clone(), got });
        }
        let path = self.path(digest);
        let _ages = self.ages.read();
        // A damaged file is replaced by storing its bytes again.
        if std::fs::read(&path).is_ok_and(|there| there == bytes) {
            return touch_now(&path).map_err(|error| failed(&path, &error));
        }
        let temporary = self.folder.join("writing").join(uuid::Uuid::new_v4().to_string());
        let written = write_through(&temporary, &path, bytes);
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written.map_err(|error| failed(&path, &error))
    }

    fn collect_now(&self, in_use: &BTreeSet<Digest>) -> Result<usize, StoreError> {
        let mut collected = 0;
        let shelves = std::fs::read_dir(&self.folder).map_err(|error| failed(&self.folder, &error))?;
        for shelf in shelves.flatten().filter(|shelf| shelf.file_name().len() == 2) {
            let Ok(blobs) = std::fs::read_dir(shelf.path()) else { continue };
            for blob in blobs.flatten() {
                let named: Option<Digest> = blob.file_name().to_str().and_then(|name| name.parse().ok());
                let is_unused = named.is_some_and(|digest| !in_use.contains(&digest));
                if is_unused && is_old(&blob.path()) && self.remove_old(&blob.path()) {
                    collected += 1;
                }
            }
        }
        Ok(collected)
    }

    /// Removes a blob, unless it was made young again after it was looked at.
    fn remove_old(&self, path: &Path) -> bool {
        let _ages = self.ages.write();
        is_old(path) && std::fs::remove_file(path).is_ok()
    }
}

fn is_old(path: &Path) -> bool {
    let modified = std::fs::metadata(path).and_then(|about| about.modified());
    modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > BLOB_UNUSED_KEPT))
}

/// The bytes are on the disk before the name is, and the name before anybody hears of it.
fn write_through(temporary: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let shelf = path.parent().ok_or_else(|| std::io::Error::other("a blob is on a shelf"))?;
    if !shelf.exists() {
        std::fs::create_dir_all(shelf)?;
        if let Some(folder) = shelf.parent() {
            std::fs::File::open(folder)?.sync_all()?;
        }
    }
    std::fs::rename(temporary, path)?;
    std::fs::File::open(shelf)?.sync_all()
}

fn touch_now(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.set_modified(SystemTime::now())
}

/// A file; `None` where there is none.
fn open_now(path: &Path) -> std::io::Result<Option<std::fs::File>> {
    match std::fs::File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file's bytes, no more than a blob may have; `None` where there is no file.
fn read_now(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let Some(file) = open_now(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(BLOB_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn failed(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Engine(format!("{}: {error}", path.display()))
}

fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Answer<'static, T> {
    let work = tokio::task::spawn_blocking(work);
    async move { work.await.map_err(|error| StoreError::Engine(error.to_string()))? }.boxed()
}

impl Blobs for Files {
    fn put(&self, digest: &Digest, bytes: Bytes) -> Answer<'_, ()> {
        let (files, digest) = (self.clone(), digest.clone());
        blocking(move || files.put_now(&digest, &bytes))
    }

    fn touch(&self, digest: &Digest) -> Answer<'_, Option<u64>> {
        let (path, digest, ages) = (self.path(digest), digest.clone(), self.ages.clone());
        blocking(move || {
            let _ages = ages.read();
            let Some(bytes) = read_now(&path).map_err(|error| failed(&path, &error))? else { return Ok(None) };
            if Digest::of(&bytes) != digest {
                tracing::warn!(blob = %digest, "a blob is damaged: it counts as missing");
                return Ok(None);
            }
            touch_now(&path).map_err(|error| failed(&path, &error))?;
            Ok(Some(bytes.len() as u64))
        })
    }

    fn read(&self, digest: &Digest) -> Answer<'_, Option<BlobReader>> {
        let path = self.path(digest);
        blocking(move || {
            let opened = open_now(&path).and_then(|file| file.map(|file| Ok((file.metadata()?.len(), file))).transpose());
            let Some((bytes, file)) = opened.map_err(|error| failed(&path, &error))? else { return Ok(None) };
            let bytes = bytes.min(BLOB_BYTES_MAX);
            let file = tokio::fs::File::from_std(file).take(bytes);
            let pieces = futures::stream::try_unfold(file, async |mut file| {
                let mut piece = BytesMut::with_capacity(BLOB_PIECE_BYTES);
                let read = file.read_buf(&mut piece).await?;
                Ok((read > 0).then(|| (piece.freeze(), file)))
            });
            Ok(Some(BlobReader { bytes, pieces: pieces.boxed() }))
        })
    }

    fn get(&self, digest: &Digest) -> Answer<'_, Option<Bytes>> {
        let path = self.path(digest);
        blocking(move || Ok(read_now(&path).map_err(|error| failed(&path, &error))?.map(Bytes::from)))
    }

    fn collect(&self, in_use: BTreeSet<Digest>) -> Answer<'_, usize> {
        let files = self.clone();
        blocking(move || files.collect_now(&in_use))
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;

    #[tokio::test]
    async fn files_keep_the_contract() {
        let folder = tempfile::tempdir().expect("a folder");
        contract::blobs(|| Files::open(folder.path()).expect("opens")).await;
    }

    #[tokio::test]
    async fn a_damaged_file_is_repaired_by_storing_it_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files::open(folder.path()).expect("opens");
        let digest = Digest::of(b"bytes");
        files.put(&digest, Bytes::from_static(b"bytes")).await.expect("stores");
        std::fs::write(files.path(&digest), b"byt").expect("writable");
        assert_eq!(files.touch(&digest).await.expect("reads"), None, "a damaged blob counts as missing");
        files.put(&digest, Bytes::from_static(b"bytes")).await.expect("stores");
        assert_eq!(files.get(&digest).await.expect("reads").as_deref(), Some(b"bytes".as_slice()));
    }

    #[tokio::test]
    async fn only_old_blobs_that_nothing_names_are_collected() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files::open(folder.path()).expect("opens");
        let old = SystemTime::now() - BLOB_UNUSED_KEPT * 2;
        let digests: Vec<Digest> = ["used", "unused", "young"].iter().map(|text| Digest::of(text.as_bytes())).collect();
        for (digest, text) in digests.iter().zip(["used", "unused", "young"]) {
            files.put(digest, Bytes::from_static(text.as_bytes())).await.expect("stores");
            if text != "young" {
                std::fs::File::open(files.path(digest)).and_then(|file| file.set_modified(old)).expect("a file");
            }
        }
        assert_eq!(files.collect([digests[0].clone()].into()).await.expect("collects"), 1);
        assert!(files.get(&digests[0]).await.expect("reads").is_some());
        assert!(files.get(&digests[1]).await.expect("reads").is_none());
        assert!(files.get(&digests[2]).await.expect("reads").is_some());
    }

    #[test]
    fn what_is_made_young_again_while_it_is_collected_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files::open(folder.path()).expect("opens");
        let digest = Digest::of(b"bytes");
        files.put_now(&digest, b"bytes").expect("stores");
        let blob = std::fs::File::open(files.path(&digest)).expect("a file");
        blob.set_modified(SystemTime::now() - BLOB_UNUSED_KEPT * 2).expect("a time");
        let touching = files.ages.read();
        let collector = files.clone();
        let collecting = std::thread::spawn(move || collector.collect_now(&BTreeSet::new()));
        // Who waits to be alone keeps others out: it has found the blob old.
        while files.ages.try_read().is_some() && !collecting.is_finished() {
            std::thread::yield_now();
        }
        blob.set_modified(SystemTime::now()).expect("a time");
        drop(touching);
        assert_eq!(collecting.join().expect("ends").expect("collects"), 0);
        assert!(files.path(&digest).exists());
    }
}
