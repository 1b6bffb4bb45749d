//! Many small objects: what each takes in memory, that the configured bound is true for the process, and how soon a node that starts has them from disk.
//!
//! 20,000 of 1 KiB; a million is `SELVEDGE_OBJECTS=1000000 cargo test -p selvedge-edge --test million --release -- --nocapture`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use selvedge_edge::cache::control::Control;
use selvedge_edge::cache::disk::DiskConfig;
use selvedge_edge::cache::entry::{Entry, StoredBody};
use selvedge_edge::cache::freshness::Freshness;
use selvedge_edge::cache::key::{CacheKey, Space};
use selvedge_edge::cache::purge::Stamp;
use selvedge_edge::cache::time::Time;
use selvedge_edge::cache::vary::Variant;
use selvedge_edge::cache::{Cache, Found};

const NOW: Time = Time(1_700_000_000_000);
/// What each may take, by the 20,000: structures of the process that do not grow with them are in it. (Varnish takes 1,969 by the million.)
const TAKEN_BYTES_MAX: u64 = 2_250;
/// A node's start with a million objects may take a few seconds; this machine may be busy.
const LOAD_MAX: Duration = Duration::from_secs(10);

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a resident size");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

fn key(number: usize) -> CacheKey {
    CacheKey::new(Space::Upstream, "https", "www.example.org", &format!("/objects/{number}.css"))
}

fn body(number: usize) -> Vec<u8> {
    (0..1024).map(|at| (number + at) as u8).collect()
}

fn entry(number: usize) -> Arc<Entry> {
    let mut head = http::Response::new(()).into_parts().0;
    for (name, value) in [
        ("content-type", "text/css"),
        ("content-length", "1024"),
        ("cache-control", "public, max-age=86400"),
        ("etag", "\"33a64df5\""),
        ("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT"),
        ("date", "Wed, 21 Oct 2025 07:28:00 GMT"),
        ("server", "example"),
    ] {
        // Like those of a connection: parts of one large buffer.
        let mut buffer = bytes::BytesMut::with_capacity(4 << 10);
        buffer.extend_from_slice(value.as_bytes());
        let value = HeaderValue::from_maybe_shared(buffer.freeze()).expect("a value");
        head.headers.insert(HeaderName::from_static(name), value);
    }
    let control = Control::of_response(&head.headers);
    let freshness = Freshness { lifetime_ms: 86_400_000, initial_age_ms: 0, received: NOW };
    let body = StoredBody::new(&[Bytes::from(body(number))]);
    Arc::new(Entry::new(head, body, control, freshness, Variant::default(), Stamp::default()))
}

async fn waiting(cache: &Cache) -> u64 {
    cache.disk_usage().waiting_bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_objects_take_what_they_weigh_and_are_there_soon_after_a_start() {
    let objects: usize = std::env::var("SELVEDGE_OBJECTS").ok().and_then(|objects| objects.parse().ok()).unwrap_or(20_000);
    let folder = tempfile::tempdir().expect("a folder");
    let disk = DiskConfig { folder: folder.path().to_owned(), bytes_max: 16 << 30 };

    let before = resident_bytes();
    // Room for all of them, and then some.
    let cache = Cache::new(objects as u64 * (8 << 10), Arc::default());
    (0..objects).for_each(|number| cache.store(key(number).as_bytes(), entry(number)));
    let (entries, weight) = cache.usage();
    let taken = resident_bytes().saturating_sub(before);
    println!("{entries} objects in memory: {} bytes taken for each, {} weighed", taken / entries, weight / entries);
    assert_eq!(entries as usize, objects);
    assert!(taken / entries <= TAKEN_BYTES_MAX, "{} bytes for each", taken / entries);
    assert!(taken <= weight + weight / 20, "the bound is true: {taken} bytes are taken, {weight} were counted");
    drop(cache);

    let cache = Cache::with_disk(16 << 20, &disk, Arc::default()).expect("a cache");
    let began = Instant::now();
    for number in 0..objects {
        while waiting(&cache).await > 30 << 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cache.store(key(number).as_bytes(), entry(number));
    }
    cache.settled().await;
    let usage = cache.disk_usage();
    println!("{} objects on disk in {:?}: {} bytes for each", usage.entries, began.elapsed(), usage.bytes / usage.entries);
    assert_eq!(usage.entries as usize, objects);
    drop(cache);

    let before = resident_bytes();
    let began = Instant::now();
    let cache = Cache::with_disk(16 << 20, &disk, Arc::default()).expect("a cache");
    let opened = began.elapsed();
    let first = loop {
        if let Found::Fresh(..) = cache.look(&key(objects / 3), &HeaderMap::new(), NOW).await {
            break began.elapsed();
        }
    };
    cache.settled().await;
    let loaded = began.elapsed();
    println!("a start: open after {opened:?}, the first hit after {first:?}, all {} known after {loaded:?}", cache.disk_usage().entries);
    println!("the index: {} bytes for each", resident_bytes().saturating_sub(before) / objects as u64);
    assert_eq!(cache.disk_usage().entries as usize, objects);
    assert!(loaded < LOAD_MAX, "{loaded:?}");
    for number in (0..objects).step_by(objects / 97) {
        let Found::Fresh(entry, _) = cache.look(&key(number), &HeaderMap::new(), NOW).await else { panic!("{number} is there") };
        assert_eq!(entry.body.whole().collect(2048).await.expect("a body"), body(number));
    }
}
