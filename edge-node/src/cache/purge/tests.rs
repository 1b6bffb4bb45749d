//! Every kind of purge against what it must and must not reach, in both orders with a fetch.

use super::*;
use crate::cache::key::{CacheKey, Space};

const AT: Time = Time(1_000);

fn purge(number: u64, strength: Strength, targets: &[Target]) -> Purge {
    Purge { number, at: AT, strength, realm: Realm::NONE, targets: targets.to_vec() }
}

fn url(authority: &str, target: &str) -> Target {
    Target::Url { authority: authority.into(), target: target.into() }
}

fn key(authority: &str, target: &str) -> CacheKey {
    CacheKey::new(Space::Upstream, "https", authority, target)
}

fn tagged(stamp: Stamp, tags: &[&str]) -> Purgeable {
    Purgeable::new(stamp, Tags::restored(tags.iter().map(|tag| Tags::name(tag.as_bytes()).0), false))
}

#[test]
fn each_target_reaches_what_it_names_and_nothing_else() {
    let reached = |target: Target, authority: &str, path: &str, tags: &[&str]| {
        let purges = Purges::default();
        let before = tagged(purges.stamp(Realm::NONE), tags);
        purges.apply(&purge(7, Strength::Hard, &[target]));
        let after = tagged(purges.stamp(Realm::NONE), tags);
        let key = key(authority, path);
        assert_eq!(purges.verdict(&after, key.as_bytes()), Verdict::Valid, "what is fetched after it is not purged");
        purges.verdict(&before, key.as_bytes()) == Verdict::Gone
    };
    let host = |text: &str| Target::Host(text.into());
    let prefix = |text: &str| Target::Prefix(text.into());
    let tag = |text: &str| Target::Tag(text.into());
    assert!(reached(Target::Everything, "a.org", "/", &[]));
    assert!(reached(host("a.org"), "a.org", "/x", &[]));
    assert!(reached(host("a.org"), "a.org:8443", "/x", &[]));
    assert!(reached(host("a.org:8443"), "a.org:8443", "/x", &[]));
    assert!(!reached(host("a.org:8443"), "a.org", "/x", &[]));
    assert!(!reached(host("a.org"), "www.a.org", "/x", &[]));
    assert!(reached(url("a.org", "/x?y"), "a.org", "/x?y", &[]));
    assert!(!reached(url("a.org", "/x?y"), "a.org", "/x", &[]));
    assert!(!reached(url("a.org", "/x"), "a.org:8443", "/x", &[]));
    for (text, is_reached) in [("a.org/", true), ("a.org/im", true), ("a.org/img/1", true), ("a.org/img/12", false), ("a.org/j", false)] {
        assert_eq!(reached(prefix(text), "a.org", "/img/1", &[]), is_reached, "{text}");
    }
    for (text, is_reached) in [("/", true), ("/im", true), ("/img/1", true), ("/img/12", false), ("/1", false), ("a.org", false)] {
        let texts = ["a.org", "b.org:8443"].map(|authority| reached(prefix(text), authority, "/img/1", &[]));
        assert_eq!(texts, [is_reached || text == "a.org", is_reached], "{text} on every authority");
    }
    assert!(reached(tag("one"), "a.org", "/", &["one", "two"]));
    assert!(reached(tag("TWO"), "a.org", "/", &["one", "two"]));
    assert!(!reached(tag("three"), "a.org", "/", &["one", "two"]));
    assert!(!reached(tag("one"), "a.org", "/", &[]));
}

#[test]
fn every_space_of_a_url_is_reached() {
    let purges = Purges::default();
    let stamp = purges.stamp(Realm::NONE);
    purges.apply(&purge(1, Strength::Hard, &[url("a.org", "/")]));
    for space in [Space::Upstream, Space::Worker("0190-a"), Space::Worker("0190-b")] {
        for scheme in ["http", "https"] {
            let key = CacheKey::new(space, scheme, "a.org", "/");
            assert_eq!(purges.verdict(&Purgeable::new(stamp, Tags::default()), key.as_bytes()), Verdict::Gone);
        }
    }
}

#[test]
fn a_soft_purge_makes_stale_and_a_hard_one_is_stronger() {
    let purges = Purges::default();
    let entry = tagged(purges.stamp(Realm::NONE), &["t"]);
    let key = key("a.org", "/");
    purges.apply(&purge(1, Strength::Soft, &[Target::Tag("t".into())]));
    assert_eq!(purges.verdict(&entry, key.as_bytes()), Verdict::Soft(AT));
    assert_eq!(purges.verdict(&entry, key.as_bytes()), Verdict::Soft(AT), "it stays so");
    purges.apply(&purge(2, Strength::Unproven, &[Target::Everything]));
    assert_eq!(purges.verdict(&entry, key.as_bytes()), Verdict::Unproven);
    purges.apply(&purge(3, Strength::Soft, &[Target::Everything]));
    assert_eq!(purges.verdict(&entry, key.as_bytes()), Verdict::Unproven);
    purges.apply(&purge(4, Strength::Hard, &[url("a.org", "/")]));
    assert_eq!(purges.verdict(&entry, key.as_bytes()), Verdict::Gone);
    let other = tagged(Stamp { number: 3, realm: Realm::NONE }, &["t"]);
    assert_eq!(purges.verdict(&other, key.as_bytes()), Verdict::Gone);
}

#[test]
fn a_worker_purges_its_own_only() {
    let purges = Purges::default();
    let (shop, blog) = (Realm::of_worker("shop"), Realm::of_worker("blog"));
    let stamps = [purges.stamp(shop), purges.stamp(blog), purges.stamp(Realm::NONE)];
    let targets =
        [Target::Everything, Target::Tag("t".into()), Target::Prefix("a.org/".into()), Target::Host("a.org".into()), url("a.org", "/x")];
    for (number, target) in (1..).zip(targets) {
        let purges = Purges::default();
        purges.apply(&Purge { realm: shop, ..purge(number, Strength::Hard, std::slice::from_ref(&target)) });
        let reached = stamps.map(|stamp| purges.verdict(&tagged(stamp, &["t"]), key("a.org", "/x").as_bytes()) == Verdict::Gone);
        assert_eq!(reached, [true, false, false], "{target:?}");
    }
}

#[test]
fn a_fetch_is_for_those_who_asked_before_a_purge_of_what_it_brings() {
    let purges = Purges::default();
    let stamp = purges.stamp(Realm::NONE);
    let key = key("a.org", "/x");
    let tags = tagged(stamp, &["one"]).tags;
    purges.apply(&purge(1, Strength::Hard, &[url("a.org", "/other")]));
    assert!(purges.admits(stamp, key.as_bytes(), None));
    purges.apply(&purge(2, Strength::Hard, &[Target::Tag("two".into())]));
    assert!(!purges.admits(stamp, key.as_bytes(), None), "it may have the tag");
    assert!(purges.admits(stamp, key.as_bytes(), Some(&tags)));
    purges.apply(&purge(3, Strength::Soft, &[Target::Prefix("a.org/".into())]));
    assert!(!purges.admits(stamp, key.as_bytes(), Some(&tags)), "a soft purge too: it could not be told that it is stale");
    assert!(purges.admits(purges.stamp(Realm::NONE), key.as_bytes(), None));
}

#[test]
fn too_many_tags_are_every_tag() {
    let purges = Purges::default();
    let entry = Purgeable::new(purges.stamp(Realm::NONE), Tags::restored([], true));
    purges.apply(&purge(1, Strength::Hard, &[Target::Tag("any".into())]));
    assert_eq!(purges.verdict(&entry, key("a.org", "/").as_bytes()), Verdict::Gone);
}

#[test]
fn names_beyond_the_bound_are_widened_not_forgotten() {
    let mut table = Table::bounded(100, 10);
    for number in 1..=150 {
        table.apply(&purge(number, Strength::Hard, &[url("a.org", &format!("/{number}"))]));
        table.apply(&purge(number, Strength::Soft, &[Target::Prefix(format!("b.org/{number}/").into())]));
    }
    let verdict = |stamp: u64, authority: &str, target: &str| {
        judge(&table, Stamp { number: stamp, realm: Realm::NONE }, stamp, key(authority, target).as_bytes(), Some(&Tags::default()))
    };
    // The last hundred are known by name; the fifty before them stand for all that was stored before the fiftieth.
    assert_eq!(verdict(60, "a.org", "/100"), Verdict::Gone);
    assert_eq!(verdict(49, "a.org", "/1"), Verdict::Gone);
    assert_eq!(verdict(49, "c.org", "/"), Verdict::Gone, "widened: too much rather than too little");
    assert_eq!(verdict(139, "c.org", "/"), Verdict::Soft(AT));
    assert_eq!(verdict(140, "c.org", "/"), Verdict::Valid);
    assert_eq!(verdict(140, "b.org", "/145/x"), Verdict::Soft(AT));
}

#[test]
fn the_same_name_again_and_again_takes_no_room() {
    let mut table = Table::bounded(4, 4);
    table.apply(&purge(1, Strength::Hard, &[url("a.org", "/first")]));
    for number in 2..10_000 {
        table.apply(&purge(number, Strength::Hard, &[url("a.org", "/again")]));
        table.apply(&purge(number, Strength::Hard, &[Target::Prefix("a.org/p".into())]));
    }
    assert_eq!(*table.everything(), Mark::default(), "nothing had to make room");
    assert!(table.remember() == Table::restore(&table.remember()).remember());
}

#[test]
fn the_number_of_a_purge_that_names_nothing_is_remembered_and_looked_at_once() {
    let purges = Purges::default();
    let stored = tagged(purges.stamp(Realm::NONE), &[]);
    purges.apply(&purge(9, Strength::Hard, &[]));
    let restored = Purges::default();
    restored.restore(&purges.remember());
    assert_eq!((purges.latest(), restored.latest()), (9, 9));
    assert_eq!(purges.verdict(&stored, key("a.org", "/").as_bytes()), Verdict::Valid);
    assert_eq!(stored.seen.load(Acquire), 9, "the next look-up begins after it");
}

#[test]
fn what_is_remembered_judges_as_before() {
    let purges = Purges::default();
    let stamp = purges.stamp(Realm::NONE);
    let targets = [Target::Host("h.org".into()), url("u.org", "/u"), Target::Prefix("p.org/p".into()), Target::Tag("t".into())];
    purges.apply(&purge(9, Strength::Hard, &targets));
    let restored = Purges::default();
    let json = serde_json::to_string(&purges.remember()).expect("JSON");
    restored.restore(&serde_json::from_str(&json).expect("as written"));
    assert_eq!(restored.latest(), 9);
    for (authority, path, tags) in [("h.org", "/", &[][..]), ("u.org", "/u", &[]), ("p.org", "/pp", &[]), ("x.org", "/", &["t"])] {
        assert_eq!(restored.verdict(&tagged(stamp, tags), key(authority, path).as_bytes()), Verdict::Gone, "{authority}");
    }
    assert_eq!(restored.verdict(&tagged(stamp, &[]), key("x.org", "/").as_bytes()), Verdict::Valid);
}

#[test]
fn prefixes_are_found_whatever_lies_between_them() {
    let texts = ["a.org/", "a.org/b", "a.org/b/c/d", "a.org/ba", "a.org/c", "a.or/", "b.org/", "a.org/b/c!"];
    let purges = Purges::default();
    for text in texts {
        purges.apply(&purge(1, Strength::Hard, &[Target::Prefix(text.into())]));
    }
    for path in ["/b/c/d/e", "/b/c", "/bz", "/ba", "/", "/z", "/b/c!x"] {
        let whole = format!("a.org{path}");
        let expected = texts.iter().filter(|text| whole.starts_with(**text)).count();
        let mut found = 0;
        purges.table.read().prefixes_of(Realm::NONE, whole.as_bytes(), |_| found += 1);
        assert_eq!(found, expected, "{path}");
    }
}
