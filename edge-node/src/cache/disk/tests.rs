//! The tier as a whole, on real files: restarts, damage, forgetting, its bound.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::cache::Cache;
use crate::cache::Found;
use crate::cache::key::{CacheKey, Space};
use crate::cache::tests::headers;
use crate::cache::tests::{entry, varied};
use crate::cache::time::Time;
use crate::limits::{DISK_FORGETS_MAX, DISK_QUEUE_BYTES};

const NOW: Time = Time(784_111_777_000);

fn key(target: &str) -> CacheKey {
    CacheKey::new(Space::Upstream, "https", "a.org", target)
}

struct Opened {
    cache: Cache,
    metrics: Arc<Metrics>,
}

fn open(folder: &Path, memory_bytes: u64) -> Opened {
    let metrics = Arc::new(Metrics::default());
    let config = DiskConfig { folder: folder.to_owned(), bytes_max: BYTES_MIN };
    Opened { cache: Cache::with_disk(memory_bytes, &config, metrics.clone()).expect("a cache"), metrics }
}

impl Opened {
    /// The body that is found for a key, and whether it came from the disk.
    async fn body(&self, target: &str, request: &HeaderMap) -> Option<(Bytes, bool)> {
        let in_memory = !matches!(self.cache.find(&key(target), request, NOW), Found::Nothing(..));
        match self.cache.look(&key(target), request, NOW).await {
            Found::Fresh(entry, _) => Some((entry.body.whole().collect(1 << 30).await.ok()?, !in_memory)),
            _ => None,
        }
    }

    async fn is_there(&self, target: &str) -> bool {
        self.body(target, &HeaderMap::new()).await.is_some()
    }
}

fn bytes(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 + number * 31 + at % 251) as u8).collect()
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let sizes = [0, 1, 1_000, 256 << 10, (256 << 10) + 1, 1 << 20, (3 << 20) + 12_345];
    let before = open(folder.path(), 64 << 20);
    for (number, len) in sizes.iter().enumerate() {
        before.cache.store(key(&format!("/{number}")).as_bytes(), entry(&bytes(number, *len)));
    }
    before.cache.settled().await;
    // Killed: nothing is sealed, and the lock is gone with the process.
    std::fs::create_dir(folder.path().join("copy")).expect("a folder");
    for file in std::fs::read_dir(folder.path()).expect("a folder").flatten().filter(|file| file.path().is_file()) {
        std::fs::copy(file.path(), folder.path().join("copy").join(file.file_name())).expect("room");
    }
    let killed = open(&folder.path().join("copy"), 64 << 20);
    drop(before);
    let stopped = open(folder.path(), 64 << 20);
    for after in [killed, stopped] {
        after.cache.settled().await;
        for (number, len) in sizes.iter().enumerate() {
            let target = format!("/{number}");
            assert_eq!(after.body(&target, &HeaderMap::new()).await.expect("stored"), (bytes(number, *len).into(), true), "{len} bytes");
            let again = after.body(&target, &HeaderMap::new()).await.expect("stored");
            assert_eq!(again, (bytes(number, *len).into(), false), "the head is in memory now");
        }
        assert_eq!(after.cache.disk_usage().entries, sizes.len() as u64);
        assert_eq!(after.metrics.disk.damaged.get(), 0);
    }
}

#[tokio::test]
async fn a_range_of_a_large_body_is_read_without_the_rest() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = bytes(1, (5 << 20) + 99);
    let before = open(folder.path(), 64 << 20);
    before.cache.store(key("/").as_bytes(), entry(&all));
    drop(before);
    let after = open(folder.path(), 64 << 20);
    after.cache.settled().await;
    let Found::Fresh(entry, _) = after.cache.look(&key("/"), &HeaderMap::new(), NOW).await else { panic!("it is stored") };
    for range in [0..1, 65_535..65_537, (1 << 20) - 1..(1 << 20) + 1, 3_000_000..3_200_000, (5 << 20)..(5 << 20) + 99, 5_000_000..9_000_000]
    {
        let before = after.metrics.disk.read_bytes.get();
        let part = entry.body.part(range.clone()).collect(1 << 30).await.expect("a part");
        assert_eq!(part, all[range.start as usize..(range.end as usize).min(all.len())], "{range:?}");
        let read = after.metrics.disk.read_bytes.get() - before;
        assert!(read <= part.len() as u64 + 2 * 65_536, "{read} bytes for {range:?}");
    }
}

/// Reads a part of what is stored; gives how many bytes of it came from the disk.
async fn read_part(opened: &Opened, target: &str, range: std::ops::Range<usize>, all: &[u8]) -> u64 {
    let Found::Fresh(entry, _) = opened.cache.look(&key(target), &HeaderMap::new(), NOW).await else { panic!("{target} is stored") };
    let before = opened.metrics.disk.read_bytes.get();
    let part = entry.body.part(range.start as u64..range.end as u64).collect(1 << 30).await.expect("a part");
    assert_eq!(part, all[range.clone()], "{range:?}");
    opened.metrics.disk.read_bytes.get() - before
}

#[tokio::test]
async fn blocks_of_a_large_body_that_are_asked_for_again_come_from_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = bytes(1, (3 << 20) + 70_000);
    let before = open(folder.path(), 64 << 20);
    before.cache.store(key("/").as_bytes(), entry(&all));
    drop(before);
    let after = open(folder.path(), 64 << 20);
    after.cache.settled().await;
    let len = all.len();
    for from_disk in [len, len, 0] {
        assert_eq!(read_part(&after, "/", 0..len, &all).await, from_disk as u64, "once by chance, again to keep, then from memory");
    }
    for range in [0..1, 65_535..65_537, (1 << 20) - 1..(1 << 20) + 1, len - 3..len, 70_000..3_000_000] {
        assert_eq!(read_part(&after, "/", range.clone(), &all).await, 0, "{range:?}");
    }
    assert!((len..len + len / 50).contains(&(after.cache.usage().1 as usize)), "they are weighed: {:?}", after.cache.usage());
    // Another body in its place has none of its blocks.
    let other = bytes(2, len);
    after.cache.store(key("/").as_bytes(), entry(&other));
    after.cache.settled().await;
    after.cache.tier.change(key("/").as_bytes(), &mut |_| None);
    assert_eq!(read_part(&after, "/", 0..len, &other).await, len as u64);
}

#[tokio::test]
async fn a_huge_body_that_is_read_again_and_again_pushes_out_nothing_that_is_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = bytes(1, 3 << 20);
    let before = open(folder.path(), 64 << 20);
    before.cache.store(key("/huge").as_bytes(), entry(&all));
    drop(before);
    // The huge one is larger than memory; the pages take three quarters of it.
    let after = open(folder.path(), 2 << 20);
    after.cache.settled().await;
    let pages = || (0..90).map(|number| key(&format!("/{number}")));
    for _ in 0..12 {
        for page in pages() {
            if matches!(after.cache.find(&page, &HeaderMap::new(), NOW), Found::Nothing(..)) {
                after.cache.store(page.as_bytes(), entry(&[0; 16 << 10]));
            }
        }
    }
    for _ in 0..6 {
        read_part(&after, "/huge", 0..all.len(), &all).await;
    }
    let (_, held) = after.cache.usage();
    let left = pages().filter(|page| after.cache.tier.holds(page.as_bytes())).count();
    assert!(held <= 2 << 20 && left >= 85, "{left} of 90 pages, {held} bytes");
}

#[tokio::test]
async fn each_variant_is_found_for_its_requests() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = open(folder.path(), 64 << 20);
    let languages = ["de", "en", "fr", "it", "nl"];
    for language in languages {
        let entry = varied(language.as_bytes(), &[("vary", "accept-language")], &[("accept-language", language)]);
        before.cache.store(key("/").as_bytes(), entry);
    }
    drop(before);
    let after = open(folder.path(), 64 << 20);
    after.cache.settled().await;
    for language in languages.into_iter().rev() {
        let found = after.body("/", &headers(&[("accept-language", language)])).await;
        assert_eq!(found.expect("stored").0, language);
    }
    assert!(after.body("/", &headers(&[("accept-language", "pl")])).await.is_none());
}

#[tokio::test]
async fn what_was_forgotten_is_not_there_after_a_restart_whatever_was_being_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = open(folder.path(), 64 << 20);
    before.cache.store(key("/written").as_bytes(), entry(b"1"));
    before.cache.settled().await;
    before.cache.store(key("/waiting").as_bytes(), entry(b"2"));
    before.cache.store(key("/replaced").as_bytes(), entry(b"old"));
    for target in ["/written", "/waiting", "/replaced"] {
        before.cache.invalidate(&key(target));
        assert!(!before.is_there(target).await, "{target}");
    }
    before.cache.store(key("/replaced").as_bytes(), entry(b"new"));
    before.cache.settled().await;
    drop(before);
    let after = open(folder.path(), 64 << 20);
    after.cache.settled().await;
    assert!(!after.is_there("/written").await);
    assert!(!after.is_there("/waiting").await);
    assert_eq!(after.body("/replaced", &HeaderMap::new()).await.expect("stored").0, "new");
    // Also before the lists are loaded.
    drop(after);
    let early = open(folder.path(), 64 << 20);
    early.cache.invalidate(&key("/replaced"));
    early.cache.settled().await;
    assert!(!early.is_there("/replaced").await);
    drop(early);
    let last = open(folder.path(), 64 << 20);
    last.cache.settled().await;
    assert!(!last.is_there("/replaced").await);
}

#[tokio::test]
async fn no_flipped_byte_and_no_cut_gives_a_wrong_body() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = open(folder.path(), 64 << 20);
    let sizes = [10, 3_000, 100_000, 1_500_000];
    for (number, len) in sizes.iter().enumerate() {
        before.cache.store(key(&format!("/{number}")).as_bytes(), entry(&bytes(number, *len)));
    }
    drop(before);
    let file = folder.path().join(segment::file_name(1));
    let whole = std::fs::read(&file).expect("a segment");
    let mut spoilt = 0;
    for step in 0..60 {
        let at = (whole.len() - 1) * step / 59;
        let mut damaged = whole.clone();
        if step % 3 == 0 {
            damaged.truncate(at)
        } else {
            damaged[at] ^= 1 << (step % 8)
        }
        std::fs::write(&file, &damaged).expect("room");
        let after = open(folder.path(), 64 << 20);
        after.cache.settled().await;
        for (number, len) in sizes.iter().enumerate() {
            match after.body(&format!("/{number}"), &HeaderMap::new()).await {
                Some((body, _)) => assert_eq!(body, bytes(number, *len), "byte {at}"),
                None => spoilt += 1,
            }
        }
    }
    assert!(spoilt > 60, "{spoilt}: the damage was looked at");
}

#[tokio::test]
async fn files_stay_within_their_bound_and_what_is_read_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = open(folder.path(), 1 << 20);
    opened.cache.store(key("/hot").as_bytes(), entry(b"hot"));
    opened.cache.store(key("/cold").as_bytes(), entry(b"cold"));
    for number in 0..1_500 {
        opened.cache.store(key(&format!("/{number}")).as_bytes(), entry(&bytes(number, 64 << 10)));
        if number % 100 == 0 {
            opened.cache.settled().await;
            // Memory has had it long ago.
            opened.cache.tier.change(key("/hot").as_bytes(), &mut |_| None);
            assert_eq!(opened.body("/hot", &HeaderMap::new()).await, Some(("hot".into(), true)), "after {number}");
            let on_disk: u64 = std::fs::read_dir(folder.path())
                .expect("a folder")
                .flatten()
                .map(|file| file.metadata().map_or(0, |data| data.len()))
                .sum();
            assert!(on_disk <= BYTES_MIN, "{on_disk}");
        }
    }
    opened.cache.settled().await;
    assert!(!opened.is_there("/cold").await && !opened.is_there("/0").await);
    assert!(opened.is_there("/1499").await);
    assert!(opened.metrics.disk.evictions.get() > 500 && opened.metrics.disk.kept.get() >= 1);
    assert_eq!(opened.metrics.disk.skipped_queue.get(), 0);
}

#[tokio::test]
async fn what_has_no_room_on_disk_is_counted_by_its_route_slices_too_and_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let route = Arc::new(RouteCounters::new("a.org/*".into()));
    let of_route = |number: usize| {
        // Most in one record, and some in two: a head, and a slice.
        let mut entry = entry(&bytes(number, if number.is_multiple_of(10) { 300 << 10 } else { 64 << 10 }));
        Arc::get_mut(&mut entry).expect("not shared yet").count_by(&route);
        entry
    };
    let before = open(folder.path(), 1 << 20);
    for number in 0..240 {
        before.cache.store(key(&format!("/before/{number}")).as_bytes(), of_route(number));
    }
    before.cache.settled().await;
    assert_eq!(route.disk_evictions.get(), before.metrics.disk.evictions.get());
    drop(before);
    let counted = route.disk_evictions.get();
    let opened = open(folder.path(), 1 << 20);
    opened.cache.store(key("/known").as_bytes(), of_route(0));
    for number in 0..900 {
        opened.cache.store(key(&format!("/{number}")).as_bytes(), entry(&bytes(number, 64 << 10)));
        if number % 100 == 0 {
            opened.cache.settled().await;
        }
    }
    opened.cache.settled().await;
    let (of_route, all) = (route.disk_evictions.get() - counted, opened.metrics.disk.evictions.get());
    assert!(counted + of_route >= 255 && of_route < all, "{counted}, then {of_route} of {all}");
}

#[tokio::test]
async fn what_is_larger_than_its_share_of_the_memory_is_on_disk_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = open(folder.path(), 8 << 20);
    let large = bytes(3, 2 << 20);
    opened.cache.store(key("/small").as_bytes(), entry(b"small"));
    opened.cache.store(key("/large").as_bytes(), entry(&large));
    opened.cache.settled().await;
    assert!(opened.cache.usage().1 < 1 << 20);
    assert_eq!(opened.body("/large", &HeaderMap::new()).await.expect("on disk"), (large.into(), true));
    assert!(matches!(opened.cache.find(&key("/small"), &HeaderMap::new(), NOW), Found::Fresh(..)));
}

#[tokio::test]
async fn a_folder_has_one_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let _opened = open(folder.path(), 1 << 20);
    let config = DiskConfig { folder: folder.path().to_owned(), bytes_max: BYTES_MIN };
    let second = Cache::with_disk(1 << 20, &config, Arc::default());
    assert!(second.is_err_and(|error| error.to_string().contains("another process")));
}

#[tokio::test]
async fn many_who_ask_at_once_read_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = open(folder.path(), 64 << 20);
    before.cache.store(key("/").as_bytes(), entry(&bytes(1, 200_000)));
    drop(before);
    let after = open(folder.path(), 64 << 20);
    after.cache.settled().await;
    let request = HeaderMap::new();
    let asking = (0..50).map(|_| after.body("/", &request));
    let found = futures::future::join_all(asking).await;
    assert!(found.iter().all(|found| found.as_ref().is_some_and(|(body, _)| body.len() == 200_000)));
    assert_eq!(after.metrics.disk.reads.get(), 1);
}

#[tokio::test]
async fn who_asks_while_the_index_is_read_waits_for_its_part_and_does_not_ask_the_upstream() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = open(folder.path(), 64 << 20);
    for number in 0..3_000 {
        before.cache.store(key(&format!("/{number}")).as_bytes(), entry(b"small"));
    }
    drop(before);
    let after = open(folder.path(), 64 << 20);
    let request = HeaderMap::new();
    let targets: Vec<String> = (0..3_000).step_by(30).map(|number| format!("/{number}")).collect();
    let found = futures::future::join_all(targets.iter().map(|target| after.body(target, &request))).await;
    assert!(found.iter().all(Option::is_some), "{} of {}", found.iter().flatten().count(), found.len());
    assert!(!after.is_there("/never").await);
}

#[tokio::test]
async fn a_purge_reaches_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = open(folder.path(), 64 << 20);
    before.cache.store(key("/").as_bytes(), varied(b"a", &[("cache-tag", "blue")], &[]));
    before.cache.settled().await;
    drop(before);
    let after = open(folder.path(), 64 << 20);
    after.cache.settled().await;
    use crate::cache::purge::{Purge, Realm, Strength, Target};
    after.cache.purges().apply(&Purge {
        number: 1,
        at: NOW,
        strength: Strength::Hard,
        realm: Realm::default(),
        targets: vec![Target::Tag("blue".into())],
    });
    assert!(!after.is_there("/").await);
}

#[tokio::test]
async fn a_disk_that_does_not_answer_is_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = open(folder.path(), 64 << 20);
    before.cache.store(key("/").as_bytes(), entry(&bytes(1, 200_000)));
    drop(before);
    let after = open(folder.path(), 64 << 20);
    after.cache.settled().await;
    let disk = after.cache.disk.as_ref().expect("a disk");
    // All who may read do so for ever.
    let _busy = disk.shared.readers.occupy();
    let began = std::time::Instant::now();
    assert!(!after.is_there("/").await);
    assert!(began.elapsed() < DISK_RECALL_WAIT + Duration::from_secs(2));
    assert_eq!(after.metrics.disk.skipped_reads.get(), 1);
}

#[tokio::test]
async fn who_asks_for_another_variant_at_the_same_moment_is_not_told_that_there_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    // Too large for an eighth of memory: it is on disk only.
    let opened = open(folder.path(), 1 << 20);
    let stored = varied(&bytes(1, 200_000), &[("vary", "accept-language")], &[("accept-language", "en")]);
    opened.cache.store(key("/").as_bytes(), stored);
    opened.cache.settled().await;
    let (german, english) = (headers(&[("accept-language", "de")]), headers(&[("accept-language", "en")]));
    let (key, cache) = (key("/"), &opened.cache);
    let ask = async || {
        let asked =
            futures::join!(cache.recall(&key, &german, None), cache.recall(&key, &english, None), cache.recall(&key, &german, None));
        [asked.0, asked.1, asked.2].map(|entry| entry.is_some())
    };
    // On a machine that stands still the disk may be too late for the first one, once.
    let answers = [ask().await, ask().await, ask().await, ask().await];
    assert!(answers.contains(&[false, true, false]), "{answers:?}");
}

/// No writing ends as long as the guard is held: the disk hangs.
pub(crate) fn hanging(cache: &Cache) -> impl Drop {
    cache.disk.as_ref().expect("a disk").shared.segments.read()
}

/// The same, with a response in the writer's hand.
fn hang(cache: &Cache) -> impl Drop {
    let guard = hanging(cache);
    let disk = cache.disk.as_ref().expect("a disk");
    cache.store(key("/hangs").as_bytes(), entry(b"x"));
    while !disk.shared.queue.is_empty() {
        std::thread::yield_now();
    }
    guard
}

#[tokio::test]
async fn what_finds_no_room_leaves_nothing_older_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = open(folder.path(), 256 << 20);
    let hanging = hang(&opened.cache);
    opened.cache.store(key("/").as_bytes(), entry(b"older, and not written yet"));
    for number in 0..DISK_QUEUE_BYTES / (4 << 20) {
        opened.cache.store(key(&format!("/{number}")).as_bytes(), entry(&vec![0; 4 << 20]));
    }
    opened.cache.store(key("/").as_bytes(), entry(&vec![1; 4 << 20]));
    assert!(opened.metrics.disk.skipped_queue.get() >= 1);
    drop(hanging);
    opened.cache.settled().await;
    // Memory needs its room.
    opened.cache.tier.change(key("/").as_bytes(), &mut |_| None);
    assert!(!opened.is_there("/").await);
}

#[tokio::test]
async fn a_disk_that_hangs_while_much_is_forgotten_starts_afresh() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = open(folder.path(), 64 << 20);
    opened.cache.store(key("/before").as_bytes(), entry(b"1"));
    opened.cache.settled().await;
    let disk = opened.cache.disk.as_ref().expect("a disk");
    // A segment is full somewhere among these, and the next cannot begin.
    let guard = disk.shared.segments.read();
    for number in 0..25 {
        opened.cache.store(key(&format!("/more/{number}")).as_bytes(), entry(&vec![0; 200 << 10]));
    }
    for number in 0..DISK_FORGETS_MAX + 10 {
        opened.cache.invalidate(&key(&format!("/forgotten/{number}")));
    }
    opened.cache.store(key("/after").as_bytes(), entry(b"2"));
    drop(guard);
    opened.cache.settled().await;
    for (target, stays) in [("/before", false), ("/more/0", false), ("/after", true)] {
        opened.cache.tier.change(key(target).as_bytes(), &mut |_| None);
        assert_eq!(opened.is_there(target).await, stays, "{target}");
    }
    assert_eq!(opened.cache.disk_usage().entries, 1);
}
