//! Purges, applied at once and kept across restarts: a line for each in a file that is synced before the node acknowledges, and written anew, short, when it has
//! grown. Stored responses outlive a restart on disk; what was purged must not come back with them.
//!
//! A purge's number is its entry's in the registry's log, counted from a base that rises whenever the numbers before are of no use: another log, or a file that is
//! gone. Then, and where the log no longer reaches back to this node, it may have missed purges: everything that it stored has to be confirmed by the upstream.

mod text;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use selvedge_origin::feed::Position;
use selvedge_origin::registry::{Epoch, PurgeRecord};

use super::{limits, spelling, state};
use crate::cache::key;
use crate::cache::purge::{Purge, Purges, Realm, Strength, Target};
use crate::cache::time::Time;
use text::{Head, Line, Lineage};
pub use text::{fuzz, fuzz_seeds};

/// The file in the data folder.
const FILE: &str = "purges.journal";

/// The purges of a node and their file.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    purges: Arc<Purges>,
    lineage: Lineage,
    /// Open for appending; none where the file has to be written anew.
    file: Option<File>,
    /// Bytes that were appended since it was written anew.
    appended_bytes: u64,
    /// Lines that are applied and not written yet.
    unwritten: Vec<u8>,
}

impl Journal {
    /// Reads the file into `purges`. Without one that can be understood, everything that is stored has to be confirmed. Blocks.
    pub(super) fn open(folder: &Path, purges: Arc<Purges>, now: Time) -> io::Result<Self> {
        let path = folder.join(FILE);
        let mut journal =
            Self { path, purges, lineage: Lineage { epoch: None, base: 0 }, file: None, appended_bytes: 0, unwritten: Vec::new() };
        match journal.read() {
            Ok(true) => {}
            Ok(false) => journal.begin_anew(None, 0, now),
            Err(Unreadable::Io(error)) => return Err(error),
            Err(Unreadable::Content(reason)) => {
                tracing::error!(path = %journal.path.display(), reason, "the purges cannot be read: everything stored will be confirmed");
                std::fs::rename(&journal.path, folder.join(format!("{FILE}.unreadable")))?;
                journal.begin_anew(None, 0, now);
            }
        }
        journal.sync()?;
        Ok(journal)
    }

    /// Whether there was a file.
    fn read(&mut self) -> Result<bool, Unreadable> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Unreadable::Io(error)),
        };
        let mut bytes = Vec::new();
        file.take(limits::JOURNAL_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Unreadable::Io)?;
        if bytes.len() as u64 > limits::JOURNAL_BYTES_MAX {
            return Err(Unreadable::Content("it is larger than its bound".to_owned()));
        }
        let (head, lines) = text::parse(&bytes).map_err(Unreadable::Content)?;
        self.purges.restore(&head.purges);
        self.lineage = head.lineage;
        for Line { number, at_ms, purge } in lines {
            self.purges.apply(&purge_of(number, Time(at_ms), &purge));
        }
        Ok(true)
    }

    /// Applies the purge of an entry. When this returns nothing serves what it names; [`Self::sync`] makes it last.
    pub(super) fn apply(&mut self, epoch: &Epoch, seq: u64, purge: &PurgeRecord, now: Time) {
        match &self.lineage.epoch {
            None => self.lineage.epoch = Some(epoch.clone()),
            Some(known) if known == epoch => {}
            Some(_) => self.begin_anew(Some(epoch.clone()), seq.saturating_sub(1), now),
        }
        let number = self.lineage.base.saturating_add(seq);
        self.purges.apply(&purge_of(number, now, purge));
        // A struct of strings and numbers: serde_json fails on none. The file's head holds what the lines say, where it is written anew.
        match text::line(&Line { number, at_ms: now.0, purge: purge.clone() }) {
            Ok(line) if self.file.is_some() => self.unwritten.extend_from_slice(&line),
            _ => self.file = None,
        }
    }

    /// Entries were missed up to a position: everything that is stored has to be confirmed.
    pub(super) fn missed(&mut self, to: &Position, now: Time) {
        if self.lineage.epoch.as_ref() == Some(&to.epoch) {
            self.everything_unproven(self.lineage.base.saturating_add(to.seq), now);
        } else {
            self.begin_anew(Some(to.epoch.clone()), to.seq, now);
        }
    }

    fn begin_anew(&mut self, epoch: Option<Epoch>, seq: u64, now: Time) {
        self.lineage = Lineage { epoch, base: text::base_after(self.purges.latest(), now) };
        self.everything_unproven(self.lineage.base.saturating_add(seq), now);
    }

    fn everything_unproven(&mut self, number: u64, now: Time) {
        let (realm, targets) = (Realm::NONE, vec![Target::Everything]);
        self.purges.apply(&Purge { number, at: now, strength: Strength::Unproven, realm, targets });
        self.file = None;
    }

    /// Whether something is applied that would not survive a restart.
    pub(super) fn is_behind(&self) -> bool {
        self.file.is_none() || !self.unwritten.is_empty()
    }

    /// Writes what is applied, and syncs it. Where that fails the file is removed: a node that starts without it has everything confirmed, so nothing that was purged
    /// comes back. An error says that not even that was possible. Blocks.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let written = match &mut self.file {
            Some(file) if self.appended_bytes + self.unwritten.len() as u64 <= limits::JOURNAL_REWRITE_BYTES => {
                self.appended_bytes += self.unwritten.len() as u64;
                file.write_all(&self.unwritten).and_then(|()| file.sync_data())
            }
            _ => self.rewrite(),
        };
        self.unwritten.clear();
        if let Err(error) = written {
            tracing::error!(path = %self.path.display(), %error, "the purges cannot be written: a restart will have everything stored confirmed");
            self.file = None;
            match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => state::sync_folder(self.path.parent().unwrap_or(Path::new(".")))?,
            }
        }
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let bytes = text::line(&Head { lineage: self.lineage.clone(), purges: self.purges.remember() })?;
        state::write_whole(&self.path, &bytes)?;
        self.file = Some(OpenOptions::new().append(true).mode(0o600).open(&self.path)?);
        self.appended_bytes = 0;
        Ok(())
    }
}

enum Unreadable {
    Io(io::Error),
    Content(String),
}

/// The purge of a record, for the cache.
fn purge_of(number: u64, at: Time, record: &PurgeRecord) -> Purge {
    let mut targets = Vec::with_capacity(record.len());
    targets.extend(record.everything.then_some(Target::Everything));
    targets.extend(record.hosts.iter().map(|host| Target::Host(host.as_str().into())));
    targets.extend(record.urls.iter().map(|url| {
        let (authority, target) = spelling::address(url);
        Target::Url { authority: authority.into(), target: target.into() }
    }));
    targets.extend(record.keys.iter().map(|key| {
        let (_, authority, target) = key::address_of(key);
        Target::Url { authority, target: target.into() }
    }));
    let prefixes = record.prefixes.iter().chain(&record.path_prefixes);
    targets.extend(prefixes.map(|prefix| Target::Prefix(prefix.as_str().into())));
    targets.extend(record.tags.iter().map(|tag| Target::Tag(tag.as_str().into())));
    let strength = if record.soft { Strength::Soft } else { Strength::Hard };
    let realm = record.worker.as_ref().map_or(Realm::NONE, |worker| Realm::of_worker(worker.as_str()));
    Purge { number, at, strength, realm, targets }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::cache::key::{CacheKey, Space};
    use crate::cache::purge::{Purgeable, Stamp, Verdict};
    use crate::cache::tags::Tags;
    use selvedge_origin::registry::Digest;

    const NOW: Time = Time(1_790_000_000_000);

    fn open(folder: &Path, now: Time) -> (Journal, Arc<Purges>) {
        let purges = Arc::new(Purges::default());
        (Journal::open(folder, purges.clone(), now).unwrap(), purges)
    }

    fn url(text: &str) -> PurgeRecord {
        PurgeRecord { urls: vec![text.to_owned()], ..PurgeRecord::default() }
    }

    fn verdict(purges: &Purges, stamp: Stamp, target: &str) -> Verdict {
        let key = CacheKey::new(Space::Upstream, "https", "a.org", target);
        purges.verdict(&Purgeable::new(stamp, Tags::default()), key.as_bytes())
    }

    #[test]
    fn purges_survive_a_restart_and_a_torn_last_line() {
        let folder = tempfile::tempdir().unwrap();
        let epoch = Epoch::generate();
        let (mut journal, purges) = open(folder.path(), NOW);
        let stamp = purges.stamp(Realm::NONE);
        journal.apply(&epoch, 5, &url("a.org/x"), NOW);
        assert_eq!(verdict(&purges, stamp, "/x"), Verdict::Gone, "at once");
        journal.sync().unwrap();
        journal.apply(&epoch, 6, &url("a.org/y"), NOW);
        journal.sync().unwrap();
        let after = purges.stamp(Realm::NONE);
        let file = folder.path().join(FILE);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes.extend_from_slice(b"{\"number\":7,\"at");
        std::fs::write(&file, bytes).unwrap();
        let (mut journal, purges) = open(folder.path(), NOW.plus_ms(60_000));
        assert_eq!([verdict(&purges, stamp, "/x"), verdict(&purges, stamp, "/y")], [Verdict::Gone; 2]);
        assert_eq!(verdict(&purges, stamp, "/z"), Verdict::Valid);
        assert_eq!(verdict(&purges, after, "/y"), Verdict::Valid, "what was fetched after it is still good");
        // The feed says it again, where the node's state is older than the journal.
        journal.apply(&epoch, 6, &url("a.org/y"), NOW);
        assert_eq!(verdict(&purges, after, "/y"), Verdict::Valid);
    }

    #[test]
    fn without_its_file_everything_has_to_be_confirmed() {
        let folder = tempfile::tempdir().unwrap();
        let epoch = Epoch::generate();
        let (mut journal, purges) = open(folder.path(), NOW);
        journal.apply(&epoch, 900, &url("a.org/x"), NOW);
        journal.sync().unwrap();
        let stamp = purges.stamp(Realm::NONE);
        let endless = format!("{{\"lineage\":{{\"epoch\":null,\"base\":0}},\"purges\":{{\"newest\":{}", u64::MAX);
        let endless = format!("{endless},\"by_kind\":[0,0,0,0,0],\"everything\":{{}},\"names\":[],\"prefixes\":[]}}}}\n");
        for spoil in [None, Some("nonsense\n"), Some(""), Some(endless.as_str())] {
            match spoil {
                None => std::fs::remove_file(folder.path().join(FILE)).unwrap(),
                Some(text) => std::fs::write(folder.path().join(FILE), text).unwrap(),
            }
            let (_, purges) = open(folder.path(), NOW.plus_ms(1_000));
            assert_eq!(verdict(&purges, stamp, "/z"), Verdict::Unproven, "{spoil:?}");
            assert_eq!(verdict(&purges, purges.stamp(Realm::NONE), "/z"), Verdict::Valid);
        }
    }

    #[test]
    fn a_log_that_does_not_reach_back_or_another_one_makes_everything_unproven() {
        let folder = tempfile::tempdir().unwrap();
        let position = |epoch: &Epoch, seq| Position { epoch: epoch.clone(), seq, chain: Digest::zero() };
        let (first, second) = (Epoch::generate(), Epoch::generate());
        let (mut journal, purges) = open(folder.path(), NOW);
        journal.apply(&first, 5, &url("a.org/x"), NOW);
        for (epoch, seq) in [(&first, 5_000), (&second, 3), (&second, 9)] {
            let stamp = purges.stamp(Realm::NONE);
            assert_eq!(verdict(&purges, stamp, "/z"), Verdict::Valid);
            journal.missed(&position(epoch, seq), NOW);
            assert_eq!(verdict(&purges, stamp, "/z"), Verdict::Unproven);
            journal.sync().unwrap();
            let (_, again) = open(folder.path(), NOW);
            assert_eq!(verdict(&again, stamp, "/z"), Verdict::Unproven, "also after a restart");
            assert_eq!(verdict(&again, purges.stamp(Realm::NONE), "/z"), Verdict::Valid);
        }
    }

    #[test]
    fn the_file_is_written_anew_when_it_has_grown() {
        let folder = tempfile::tempdir().unwrap();
        let epoch = Epoch::generate();
        let (mut journal, purges) = open(folder.path(), NOW);
        let stamp = purges.stamp(Realm::NONE);
        let long = format!("a.org/{}", "x".repeat(16_000));
        for seq in 1..=limits::JOURNAL_REWRITE_BYTES / 16_000 + 2 {
            journal.apply(&epoch, seq, &url(&long), NOW);
            journal.sync().unwrap();
        }
        assert!(std::fs::metadata(folder.path().join(FILE)).unwrap().len() < 100_000);
        let (_, purges) = open(folder.path(), NOW);
        assert_eq!(verdict(&purges, stamp, long.strip_prefix("a.org").unwrap()), Verdict::Gone);
    }

    #[test]
    fn however_much_is_remembered_a_purge_costs_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let epoch = Epoch::generate();
        let (mut journal, _) = open(folder.path(), NOW);
        let long = "x".repeat(1_000);
        for seq in 1..=9 {
            let prefixes = (0..1_000).map(|number| format!("a.org/{seq}-{number}/{long}")).collect();
            journal.apply(&epoch, seq, &PurgeRecord { prefixes, ..PurgeRecord::default() }, NOW);
            journal.sync().unwrap();
        }
        let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(folder.path().join(FILE)).unwrap());
        let before = inode();
        journal.apply(&epoch, 10, &url("a.org/x"), NOW);
        journal.sync().unwrap();
        journal.apply(&epoch, 11, &url("a.org/y"), NOW);
        journal.sync().unwrap();
        assert_eq!(inode(), before, "it was not written anew");
        let (_, purges) = open(folder.path(), NOW);
        assert_eq!(verdict(&purges, Stamp::default(), "/y"), Verdict::Gone);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let epoch = Epoch::generate();
        let (mut journal, _) = open(folder.path(), NOW);
        // /dev/full: a disk without room.
        journal.file = Some(OpenOptions::new().append(true).open("/dev/full").unwrap());
        journal.apply(&epoch, 1, &url("a.org/x"), NOW);
        journal.sync().unwrap();
        assert!(!folder.path().join(FILE).exists());
        assert!(journal.is_behind());
        journal.apply(&epoch, 2, &url("a.org/y"), NOW);
        journal.sync().unwrap();
        let (_, purges) = open(folder.path(), NOW);
        assert_eq!(verdict(&purges, Stamp::default(), "/x"), Verdict::Gone, "with the next that can be written, all are");
    }
}
