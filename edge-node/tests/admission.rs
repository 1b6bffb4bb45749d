//! What is asked for often stays, whatever else comes by: a scan of things that nobody asks for again, and objects that are far too large.

use std::sync::Arc;

use bytes::Bytes;
use http::header::HeaderMap;
use selvedge_edge::cache::control::Control;
use selvedge_edge::cache::entry::{Entry, StoredBody};
use selvedge_edge::cache::freshness::Freshness;
use selvedge_edge::cache::key::{CacheKey, Space};
use selvedge_edge::cache::purge::Stamp;
use selvedge_edge::cache::time::Time;
use selvedge_edge::cache::vary::Variant;
use selvedge_edge::cache::{Cache, Found};

const NOW: Time = Time(1_700_000_000_000);
const MEMORY_BYTES: u64 = 32 << 20;
/// Objects that are asked for again and again: two thirds of the memory.
const HOT: u64 = 1_600;
const OBJECT_BYTES: usize = 12 << 10;

fn key(set: &str, number: u64) -> CacheKey {
    CacheKey::new(Space::Upstream, "https", "a.org", &format!("/{set}/{number}"))
}

fn entry(bytes: usize) -> Arc<Entry> {
    let freshness = Freshness { lifetime_ms: 86_400_000, initial_age_ms: 0, received: NOW };
    let body = StoredBody::new(&[Bytes::from(vec![1; bytes])]);
    let head = http::Response::new(()).into_parts().0;
    Arc::new(Entry::new(head, body, Control::default(), freshness, Variant::default(), Stamp::default()))
}

/// Asks as a client does: what is not there is fetched and stored. Gives whether it was there.
fn ask(cache: &Cache, key: &CacheKey, bytes: usize) -> bool {
    let hit = matches!(cache.find(key, &HeaderMap::new(), NOW), Found::Fresh(..));
    if !hit {
        cache.store(key.as_bytes(), entry(bytes));
    }
    hit
}

fn hot(cache: &Cache) -> f64 {
    (0..HOT).filter(|number| ask(cache, &key("hot", *number), OBJECT_BYTES)).count() as f64 / HOT as f64
}

fn warm() -> Cache {
    let cache = Cache::new(MEMORY_BYTES, Arc::default());
    for _ in 0..5 {
        hot(&cache);
    }
    assert!(hot(&cache) > 0.99);
    cache
}

#[test]
fn a_scan_of_what_is_asked_for_once_does_not_push_out_what_is_asked_for_often() {
    let cache = warm();
    let (mut rounds, mut hits) = (0, 0.0);
    for scan in 0..20 {
        // As many as fit three times over, between two rounds of the hot ones.
        for number in 0..HOT {
            ask(&cache, &key("scan", scan * HOT + number), 3 * OBJECT_BYTES);
        }
        hits += hot(&cache);
        rounds += 1;
    }
    let ratio = hits / f64::from(rounds);
    println!("hit ratio of the hot objects during a scan: {ratio:.3}");
    // A store that forgets what was used longest ago would have none of them left.
    assert!(ratio > 0.7, "{ratio}");
}

#[test]
fn huge_objects_do_not_push_out_many_small_ones() {
    let cache = warm();
    for number in 0..50 {
        // Larger than its share: not taken at all.
        ask(&cache, &key("huge", number), (MEMORY_BYTES / 4) as usize);
        assert!(hot(&cache) > 0.99, "after {number}");
    }
    for number in 0..50 {
        // Within its share, asked for once.
        ask(&cache, &key("large", number), (MEMORY_BYTES / 10) as usize);
    }
    let ratio = hot(&cache);
    println!("hit ratio of the hot objects after large ones: {ratio:.3}");
    assert!(ratio > 0.9, "{ratio}");
}
