//! The cache's memory under random use: inserts of random sizes, variants, purges, invalidations, restarts of what is asked for from disk. What the process takes stays within
//! what was configured. Runs for `SELVEDGE_SOAK_SECONDS` (30; three minutes in CI); an hour is `SELVEDGE_SOAK_SECONDS=3600 cargo test -p selvedge-edge --test soak --release -- --nocapture`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use selvedge_edge::cache::Cache;
use selvedge_edge::cache::control::Control;
use selvedge_edge::cache::disk::DiskConfig;
use selvedge_edge::cache::entry::{Entry, StoredBody};
use selvedge_edge::cache::freshness::Freshness;
use selvedge_edge::cache::key::{CacheKey, Space};
use selvedge_edge::cache::purge::{Purge, Realm, Strength, Target};
use selvedge_edge::cache::time::Time;
use selvedge_edge::cache::vary::{Variant, Vary};

const MEMORY_BYTES: u64 = 128 << 20;
const DISK_BYTES: u64 = 256 << 20;
/// What the process may take beyond what the cache was given: what waits for the disk (32 MiB), what is in hand (16 MiB), and what the allocator holds for later.
const BESIDE_BYTES: u64 = (48 << 20) + MEMORY_BYTES / 4;
const NOW: Time = Time(1_700_000_000_000);

/// xorshift: the run can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// From 50 bytes to 4 MiB, each magnitude as often as the others.
    fn size(&mut self) -> usize {
        let exponent = 6 + self.below(17);
        ((1_u64 << exponent) - self.below(1 << (exponent - 1))) as usize
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a resident size");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

fn key(number: u64) -> CacheKey {
    CacheKey::new(Space::Upstream, "https", "www.example.org", &format!("/assets/pages/{number}/index.html?version={number}"))
}

/// The fields of a usual response, as slices of one large buffer, like those that come from a connection.
fn fields(random: &mut Random, varies: bool) -> HeaderMap {
    let mut buffer = bytes::BytesMut::with_capacity(8 << 10);
    let mut map = HeaderMap::new();
    let tag = format!("page-{}", random.below(500));
    let mut pairs = vec![
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "public, max-age=86400"),
        ("etag", "\"33a64df551425fcc55e4d42a148795d9f25f89d4\""),
        ("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT"),
        ("date", "Wed, 21 Oct 2025 07:28:00 GMT"),
        ("server", "example"),
        ("strict-transport-security", "max-age=63072000; includeSubDomains"),
        ("x-content-type-options", "nosniff"),
        ("cache-tag", &tag),
    ];
    if varies {
        pairs.push(("vary", "accept-language"));
    }
    for (name, value) in pairs {
        buffer.extend_from_slice(value.as_bytes());
        let value = HeaderValue::from_maybe_shared(buffer.split().freeze()).expect("a value");
        map.append(HeaderName::from_static(name), value);
    }
    map
}

fn entry(random: &mut Random, cache: &Cache, size: usize, language: Option<u64>) -> Arc<Entry> {
    let mut head = http::Response::new(()).into_parts().0;
    head.headers = fields(random, language.is_some());
    let request = request(language);
    let variant = match Vary::of(&head.headers) {
        Vary::On(names) => Variant::new(&names, &request),
        _ => Variant::default(),
    };
    let fill = random.next() as u8;
    let body = StoredBody::new(&[Bytes::from(vec![fill; size])]);
    let control = Control::of_response(&head.headers);
    let freshness = Freshness { lifetime_ms: 86_400_000, initial_age_ms: 0, received: NOW };
    Arc::new(Entry::new(head, body, control, freshness, variant, cache.purges().stamp(Realm::default())))
}

fn request(language: Option<u64>) -> HeaderMap {
    let value = language.map(|number| HeaderValue::from_str(&format!("x-{number}")).expect("a value"));
    value.into_iter().map(|value| (http::header::ACCEPT_LANGUAGE, value)).collect()
}

fn purge(random: &mut Random, cache: &Cache) {
    let target = match random.below(10) {
        0 => Target::Everything,
        1 => Target::Prefix(format!("www.example.org/assets/pages/{}", random.below(10)).into()),
        _ => Target::Tag(format!("page-{}", random.below(500)).into()),
    };
    let strength = if random.below(2) == 0 { Strength::Hard } else { Strength::Soft };
    let number = cache.purges().latest() + 1;
    cache.purges().apply(&Purge { number, at: NOW, strength, realm: Realm::default(), targets: vec![target] });
}

async fn step(random: &mut Random, cache: &Cache) {
    let number = random.below(200_000);
    let language = number.is_multiple_of(5).then(|| random.below(40));
    match random.below(1_000) {
        0..500 => {
            let size = random.size();
            let entry = entry(random, cache, size, language);
            cache.store(key(number).as_bytes(), entry);
        }
        500..990 => {
            let _ = cache.look(&key(random.below(number.max(1))), &request(language), NOW).await;
        }
        990..999 => cache.invalidate(&key(number)),
        _ => purge(random, cache),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_within_its_bound() {
    let seconds = std::env::var("SELVEDGE_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(30);
    let folder = tempfile::tempdir().expect("a folder");
    let before = resident_bytes();
    let disk = DiskConfig { folder: folder.path().to_owned(), bytes_max: DISK_BYTES };
    let cache = Cache::with_disk(MEMORY_BYTES, &disk, Arc::default()).expect("a cache");
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (began, mut told, mut most, mut steps) = (Instant::now(), Instant::now(), 0, 0_u64);
    while began.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..100 {
            step(&mut random, &cache).await;
        }
        steps += 100;
        let taken = resident_bytes().saturating_sub(before);
        most = most.max(taken);
        let bound = MEMORY_BYTES + BESIDE_BYTES;
        let ((entries, bytes), disk) = (cache.usage(), cache.disk_usage());
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            println!("{steps} steps, {} MiB taken, {entries} entries of {} MiB, disk {disk:?}", taken >> 20, bytes >> 20);
        }
        assert!(bytes <= MEMORY_BYTES, "{entries} entries weigh {bytes} bytes");
        assert!(taken <= bound, "{taken} bytes are taken, {bound} may be; {entries} entries of {bytes} bytes, {disk:?}");
        assert!(disk.bytes <= DISK_BYTES, "{disk:?}");
    }
    println!("{steps} steps, {} MiB at most", most >> 20);
    assert!(steps > 1_000 && most > MEMORY_BYTES / 2, "the cache was full: {steps} steps, {most} bytes");
}
