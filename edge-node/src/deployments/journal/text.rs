//! The text of the purges' file, line by line. Pure; takes any bytes.

use selvedge_origin::registry::{Epoch, PurgeRecord};
use serde::{Deserialize, Serialize};

use super::purge_of;
use crate::cache::key::{CacheKey, Space};
use crate::cache::purge::{Purgeable, Purges, Realm, Remembered, Stamp, Verdict};
use crate::cache::tags::Tags;
use crate::cache::time::Time;

/// The greatest number of a purge: a base above it can be had.
const NUMBER_MAX: u64 = (u32::MAX as u64) << 32;

/// What the numbers count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lineage {
    /// The log; none before the first entry.
    pub(super) epoch: Option<Epoch>,
    /// The number before its first entry. Bases are some seconds since 1970 in the upper half, so that a new one is greater than all numbers before, also where
    /// those are not known any more.
    pub(super) base: u64,
}

/// The file's first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) lineage: Lineage,
    pub(super) purges: Remembered,
}

/// Each of its other lines.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) at_ms: u64,
    pub(super) purge: PurgeRecord,
}

/// Reads a file, or says why not. What follows the last line's end was being written when the node stopped, and is acknowledged by nobody.
pub(super) fn parse(bytes: &[u8]) -> Result<(Head, Vec<Line>), String> {
    let whole = bytes.iter().rposition(|b| *b == b'\n').unwrap_or(0);
    let mut lines = bytes.get(..whole).unwrap_or_default().split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let head: Head = serde_json::from_slice(lines.next().ok_or("it is empty")?).map_err(|error| error.to_string())?;
    let lines = lines.map(serde_json::from_slice::<Line>).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let numbers = lines.iter().map(|line| line.number).chain([head.lineage.base, head.purges.newest()]);
    match numbers.max().filter(|number| *number >= NUMBER_MAX) {
        Some(number) => Err(format!("no purge has the number {number}")),
        None => Ok((head, lines)),
    }
}

/// One line, with its end.
pub(super) fn line(line: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A base that is greater than all numbers up to `latest`, and than all that another file of this node may have had.
pub(super) fn base_after(latest: u64, now: Time) -> u64 {
    now.seconds().max((latest >> 32) + 1).min(u64::from(u32::MAX)) << 32
}

/// For tests/fuzz: any bytes as a file. What is understood is applied, and survives being written anew.
pub fn fuzz(bytes: &[u8]) {
    let Ok((head, lines)) = parse(bytes) else { return };
    let purges = Purges::default();
    purges.restore(&head.purges);
    for Line { number, at_ms, purge } in &lines {
        purges.apply(&purge_of(*number, Time(*at_ms), purge));
    }
    assert!(base_after(purges.latest(), Time(0)) > purges.latest());
    let Ok(written) = line(&Head { lineage: head.lineage, purges: purges.remember() }) else { panic!("not written") };
    let again = match parse(&written) {
        Ok((again, lines)) if lines.is_empty() => again.purges,
        other => panic!("not read as written: {other:?}"),
    };
    let restored = Purges::default();
    restored.restore(&again);
    assert_eq!((restored.latest(), restored.remember()), (purges.latest(), purges.remember()));
    for Line { number, purge, .. } in lines {
        let realm = purge.worker.as_ref().map_or(Realm::NONE, |worker| Realm::of_worker(worker.as_str()));
        let plain = purge.urls.iter().filter(|url| url.bytes().all(|b| b.is_ascii_graphic()));
        for (authority, path) in plain.filter_map(|url| url.split_once('/')) {
            let key = CacheKey::new(Space::Upstream, "https", authority, &format!("/{path}"));
            let before = Stamp { number: number.saturating_sub(1), realm };
            let verdict = restored.verdict(&Purgeable::new(before, Tags::default()), key.as_bytes());
            assert!(number == 0 || verdict != Verdict::Valid, "{authority}/{path} is purged");
        }
    }
}

/// For tests/fuzz: files as they are written.
pub fn fuzz_seeds() -> Vec<Vec<u8>> {
    let record = PurgeRecord {
        urls: vec!["a.org/x?y=1".to_owned(), "a.org:8080/".to_owned()],
        hosts: vec!["b.org".to_owned()],
        prefixes: vec!["a.org/img/".to_owned()],
        tags: vec!["blue".to_owned()],
        ..PurgeRecord::default()
    };
    let of_worker = PurgeRecord { worker: "shop".parse().ok(), soft: true, everything: true, ..PurgeRecord::default() };
    let purges = Purges::default();
    purges.apply(&purge_of(7, Time(1_790_000_000_000), &record));
    let lineage = Lineage { epoch: "01a22a0a-c888-762c-94a8-c2226a267182".parse().ok(), base: base_after(0, Time(1_790_000_000_000)) };
    let number = lineage.base + 8;
    let Ok(head) = line(&Head { lineage, purges: purges.remember() }) else { return Vec::new() };
    let lines = [record, of_worker].map(|purge| line(&Line { number, at_ms: 1_790_000_000_001, purge }).unwrap_or_default());
    vec![head.clone(), [head, lines.concat()].concat()]
}
