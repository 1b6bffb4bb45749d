//! `.selvedge` in the worker's folder: the data of `dev`. What lasts is the authority of the certificates; the rest begins anew.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The folder, locked for this process.
pub(super) struct DevFolder {
    path: PathBuf,
    _lock: File,
}

impl DevFolder {
    /// Opens or makes the folder in `dir`, and empties it but for the authority.
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        anyhow::ensure!(dir.is_dir(), "{}: no such folder", dir.display());
        let path = dir.join(".selvedge");
        let usable = || format!("using {}", path.display());
        std::fs::create_dir_all(path.join("edge")).with_context(usable)?;
        std::fs::write(path.join(".gitignore"), "*\n").with_context(usable)?;
        let lock = File::create(path.join("lock")).with_context(usable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => anyhow::bail!("another selvedge dev runs in {}", dir.display()),
            Err(TryLockError::Error(error)) => return Err(error).with_context(usable),
        }
        remove(&path.join("origin")).with_context(usable)?;
        for entry in std::fs::read_dir(path.join("edge")).with_context(usable)? {
            let entry = entry.with_context(usable)?;
            if entry.file_name() != "authority" {
                remove(&entry.path()).with_context(usable)?;
            }
        }
        Ok(Self { path, _lock: lock })
    }

    /// Data of the origin.
    pub(super) fn origin(&self) -> PathBuf {
        self.path.join("origin")
    }

    /// Data of the node.
    pub(super) fn edge(&self) -> PathBuf {
        self.path.join("edge")
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        std::fs::remove_dir_all(path)
    } else if path.exists() {
        std::fs::remove_file(path)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_lasts_and_the_rest_begins_anew() {
        let dir = tempfile::tempdir().expect("folder");
        let first = DevFolder::open(dir.path()).expect("opens");
        assert!(DevFolder::open(dir.path()).is_err(), "locked");
        for name in ["edge/authority", "edge/bundles", "origin"] {
            std::fs::create_dir_all(dir.path().join(".selvedge").join(name)).expect("folder");
        }
        drop(first);
        let second = DevFolder::open(dir.path()).expect("opens");
        assert!(second.edge().join("authority").exists() && !second.edge().join("bundles").exists() && !second.origin().exists());
    }
}
