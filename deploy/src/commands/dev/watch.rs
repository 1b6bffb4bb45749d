//! Watches files by their times: works on every file system, and rolldown says which files matter.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::limits::{WATCH_DOUBT, WATCH_INTERVAL, WATCH_SETTLE, WATCHED_FILES_MAX};

/// Looks after a change until nothing changes any more: an editor that goes on writing for a second is not waited for longer.
const SETTLE_ROUNDS: u32 = 30;

/// Time and length of a file; none where there is none.
type Stamp = Option<(SystemTime, u64)>;

/// The watched files and what they looked like.
pub(super) struct Watch {
    stamps: BTreeMap<PathBuf, Stamp>,
}

impl Watch {
    /// Watches nothing yet.
    pub(super) fn new() -> Self {
        Self { stamps: BTreeMap::new() }
    }

    /// Watches these files, which were read after `since`. Those that are watched already keep what is known of them, and one that was saved since then is
    /// taken for changed: a save while the bundler ran, or while nodes took the version, is seen.
    pub(super) fn replace(&mut self, files: Vec<PathBuf>, since: SystemTime) {
        let mut stamps = look(&with_folders(files));
        for (path, stamp) in &mut stamps {
            match self.stamps.get(path) {
                Some(known) => *stamp = *known,
                None => *stamp = stamp.filter(|(modified, _)| *modified + WATCH_DOUBT < since),
            }
        }
        self.stamps = stamps;
    }

    /// Waits until a file has changed and all of them have settled. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let now = self.now().await;
            if now == self.stamps {
                continue;
            }
            let mut last = now;
            for _ in 0..SETTLE_ROUNDS {
                tokio::time::sleep(WATCH_SETTLE).await;
                let next = self.now().await;
                if next == last {
                    break;
                }
                last = next;
            }
            self.stamps = last;
            return;
        }
    }

    async fn now(&self) -> BTreeMap<PathBuf, Stamp> {
        let paths: BTreeSet<PathBuf> = self.stamps.keys().cloned().collect();
        // The look-up can only fail by a panic or at shutdown; then nothing has changed.
        tokio::task::spawn_blocking(move || look(&paths)).await.unwrap_or_else(|_| self.stamps.clone())
    }
}

/// The files and the folders of those that are the user's own: a file that was missing may be made.
fn with_folders(files: Vec<PathBuf>) -> BTreeSet<PathBuf> {
    let own = |path: &&PathBuf| !path.components().any(|part| part.as_os_str() == "node_modules");
    let folders: Vec<PathBuf> = files.iter().filter(own).filter_map(|file| file.parent()).map(Path::to_owned).collect();
    files.into_iter().chain(folders).take(WATCHED_FILES_MAX).collect()
}

fn look(paths: &BTreeSet<PathBuf>) -> BTreeMap<PathBuf, Stamp> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, if metadata.is_dir() { 0 } else { metadata.len() }))
    };
    paths.iter().map(|path| (path.clone(), stamp(path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_changed_and_a_new_file_are_seen() {
        let dir = tempfile::tempdir().expect("folder");
        let (file, missing) = (dir.path().join("a.js"), dir.path().join("b.js"));
        std::fs::write(&file, "1").expect("file");
        let mut watch = Watch::new();
        watch.replace(vec![file.clone()], long_after());
        std::fs::write(&file, "22").expect("file");
        watch.changed().await;
        std::fs::write(&missing, "1").expect("file");
        watch.changed().await;
        assert_eq!(watch.now().await, watch.stamps);
    }

    #[tokio::test]
    async fn a_save_while_the_bundler_ran_is_not_lost() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("a.js");
        std::fs::write(&file, "1").expect("file");
        let mut watch = Watch::new();
        watch.replace(vec![file.clone()], long_after());
        std::fs::write(&file, "22").expect("file");
        watch.replace(vec![file, dir.path().join("c.js")], long_after());
        watch.changed().await;
    }

    #[tokio::test]
    async fn a_save_before_a_file_was_watched_but_after_it_was_read_is_not_lost() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("a.js");
        let read = SystemTime::now();
        std::fs::write(&file, "1").expect("file");
        let mut watch = Watch::new();
        watch.replace(vec![file], read);
        tokio::time::timeout(std::time::Duration::from_secs(20), watch.changed()).await.expect("the save is seen");
        assert_eq!(watch.now().await, watch.stamps);
    }

    /// So that what was written a moment ago counts as read.
    fn long_after() -> SystemTime {
        SystemTime::now() + 2 * WATCH_DOUBT
    }
}
