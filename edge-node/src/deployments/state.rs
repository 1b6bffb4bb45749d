//! The node's last state on disk: position in the log, what is wanted, and what runs where that is something else. Written whole or not at
//! all; a node starts from it without the registry.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use selvedge_origin::feed::Position;
use selvedge_origin::registry::{Desired, DesiredWorker, RouteRecord, WorkerName};
use serde::{Deserialize, Serialize};

use super::limits;

/// The file in the data folder.
pub(super) const FILE: &str = "state.json";

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    /// The last entry that is in `desired`.
    pub(super) position: Option<Position>,
    /// What the registry wants.
    pub(super) desired: Arc<Desired>,
    /// Workers whose wanted deployment does not run, with what runs instead.
    pub(super) kept: BTreeMap<WorkerName, Option<DesiredWorker>>,
    /// The routes that the node answers by, where they are not those of `desired`.
    pub(super) routes: Option<BTreeMap<String, RouteRecord>>,
}

/// Reads the last state. A file that cannot be understood is put aside, loudly: the registry has everything that was in it. Blocks.
pub(super) fn load(folder: &Path) -> io::Result<Saved> {
    let path = folder.join(FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Saved::default()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(limits::STATE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    let parsed = if bytes.len() as u64 > limits::STATE_BYTES_MAX {
        Err("it is larger than its bound".to_owned())
    } else {
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    };
    match parsed {
        Ok(saved) => Ok(saved),
        Err(reason) => {
            let aside = folder.join(format!("{FILE}.unreadable"));
            tracing::error!(path = %path.display(), aside = %aside.display(), reason, "the last state cannot be read: starting without it");
            std::fs::rename(&path, &aside)?;
            Ok(Saved::default())
        }
    }
}

/// Writes the state. Blocks.
pub(super) fn save(folder: &Path, saved: &Saved) -> io::Result<()> {
    let bytes = serde_json::to_vec(saved).map_err(io::Error::from)?;
    write_whole(&folder.join(FILE), &bytes)
}

/// Writes a file whole or not at all, readable by its owner only: temporary file, fsync, rename, fsync of the folder. Blocks.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, File::sync_all)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// As [`write_whole`], but the bytes may be lost or torn where the machine (not just the process) stops before they are synced. Blocks.
pub(super) fn write_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, |_| Ok(()))
}

/// Makes renames in a folder last. Blocks.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn write(path: &Path, bytes: &[u8], sync: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        sync(&file)?;
        std::fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// A name in the same folder that nobody else uses.
pub(super) fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"))?;
    Ok(path.with_file_name(format!(".{}.{}", name.to_string_lossy(), uuid::Uuid::new_v4())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()).unwrap(), Saved::default(), "no file is no state");
        let saved = Saved { kept: BTreeMap::from([("shop".parse().unwrap(), None)]), ..Saved::default() };
        save(folder.path(), &saved).unwrap();
        assert_eq!(load(folder.path()).unwrap(), saved);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_torn_or_foreign_file_is_put_aside_and_the_node_starts_without_it() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["{\"position\":", "", "null", "{\"surprise\":1}"] {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            assert_eq!(load(folder.path()).unwrap(), Saved::default());
            assert_eq!(std::fs::read_to_string(folder.path().join("state.json.unreadable")).unwrap(), text);
            assert!(!folder.path().join(FILE).exists());
        }
    }
}
