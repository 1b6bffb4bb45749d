//! The rule for purges: what is named has one spelling and a bound, and a worker purges its own only.

use super::address::{self, authority};
use super::version::{bad, check_message};
use super::{Change, Plan, PurgeRecord, Refusal, State, WorkerName};
use crate::api::wire::{NewPurge, WorkerPurge};
use crate::limits::{PURGE_PREFIX_BYTES_MAX, PURGE_TAG_BYTES_MAX, PURGE_TARGETS_MAX, PURGE_URL_BYTES_MAX};

/// An operator purges.
pub fn purge(new: &NewPurge) -> Result<Plan<PurgeRecord>, Refusal> {
    check_message(new.reason.as_deref())?;
    let record = PurgeRecord {
        worker: None,
        soft: new.soft,
        everything: new.everything,
        hosts: all(&new.hosts, "host", PURGE_URL_BYTES_MAX, host)?,
        urls: all(&new.urls, "URL", PURGE_URL_BYTES_MAX, address::url)?,
        keys: all(&new.keys, "key", PURGE_URL_BYTES_MAX, key)?,
        prefixes: all(&new.prefixes, "prefix", PURGE_PREFIX_BYTES_MAX, prefix)?,
        tags: all(&new.tags, "tag", PURGE_TAG_BYTES_MAX, tag)?,
        ..PurgeRecord::default()
    };
    plan(record)
}

/// A worker purges what was stored for it.
pub fn purge_of_worker(state: &State, new: &WorkerPurge) -> Result<Plan<PurgeRecord>, Refusal> {
    let known: Option<&WorkerName> = state.worker(&new.worker).and_then(|worker| worker.deployment()).map(|_| &new.worker);
    let worker = known.ok_or_else(|| Refusal::NoWorker { worker: new.worker.clone() })?;
    let record = PurgeRecord {
        worker: Some(worker.clone()),
        soft: new.soft,
        everything: new.everything,
        hosts: all(&new.hosts, "host", PURGE_URL_BYTES_MAX, host)?,
        urls: all(&new.urls, "URL", PURGE_URL_BYTES_MAX, address::url)?,
        prefixes: all(&new.prefixes, "prefix", PURGE_PREFIX_BYTES_MAX, prefix)?,
        path_prefixes: all(&new.path_prefixes, "path prefix", PURGE_PREFIX_BYTES_MAX, path_prefix)?,
        tags: all(&new.tags, "tag", PURGE_TAG_BYTES_MAX, tag)?,
        ..PurgeRecord::default()
    };
    plan(record)
}

fn plan(record: PurgeRecord) -> Result<Plan<PurgeRecord>, Refusal> {
    match record.len() {
        0 => Err(bad("purge", "names nothing: give URLs, prefixes, hosts or tags, or say everything".to_owned())),
        count if count > PURGE_TARGETS_MAX => {
            Err(Refusal::Limit { what: "things that one purge names".to_owned(), max: PURGE_TARGETS_MAX })
        }
        _ => Ok(Plan { changes: vec![Change::Purged(Box::new(record.clone()))], before: vec![], answer: record }),
    }
}

/// Each in its one spelling, none twice.
fn all(
    given: &[String],
    what: &str,
    bytes_max: usize,
    spell: impl Fn(&str) -> Result<String, &'static str>,
) -> Result<Vec<String>, Refusal> {
    if given.len() > PURGE_TARGETS_MAX {
        return Err(Refusal::Limit { what: format!("{what}s of one purge"), max: PURGE_TARGETS_MAX });
    }
    let mut spelt = Vec::with_capacity(given.len());
    for text in given {
        let shown = || format!("{what} {:?}", text.chars().take(120).collect::<String>());
        if text.len() > bytes_max {
            return Err(bad(&shown(), format!("at most {bytes_max} bytes")));
        }
        let one = spell(text).map_err(|rule| bad(&shown(), rule.to_owned()))?;
        if !spelt.contains(&one) {
            spelt.push(one);
        }
    }
    Ok(spelt)
}

fn host(text: &str) -> Result<String, &'static str> {
    if text.contains(['/', '?', '#']) {
        return Err("a host has no scheme and no path; purge a URL or a prefix");
    }
    authority(text, true).map(String::from)
}

/// A prefix names its host whole.
fn prefix(text: &str) -> Result<String, &'static str> {
    let after_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
    if !after_scheme.contains('/') {
        return Err("a prefix goes on after its host: example.org/blog/, or example.org/ for all of it");
    }
    if text.contains('*') && text.ends_with('*') {
        return Err("a prefix needs no * at its end: it is the beginning of all that it purges");
    }
    address::url(text)
}

/// What a worker may give as `cf.cacheKey`.
fn key(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.bytes().any(|b| b.is_ascii_control()) {
        return Err("a key is not empty and has no control characters");
    }
    Ok(text.to_owned())
}

/// The beginning of a path, as requests have it.
fn path_prefix(text: &str) -> Result<String, &'static str> {
    if !text.starts_with('/') {
        return Err("a path prefix begins with /, without scheme and host");
    }
    address::target(text)?;
    Ok(text.to_owned())
}

fn tag(text: &str) -> Result<String, &'static str> {
    let tag = text.trim_ascii();
    if tag.is_empty() {
        return Err("empty");
    }
    if tag.bytes().any(|b| !(0x20..=0x7e).contains(&b) || b == b',') {
        return Err("printable ASCII without a comma, as fields have it");
    }
    Ok(tag.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MESSAGE_BYTES_MAX;

    fn new() -> NewPurge {
        NewPurge::default()
    }

    fn one(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[test]
    fn what_is_named_has_one_spelling() {
        let asked = NewPurge {
            urls: vec!["https://A.org/x#y".into(), "a.org/x".into()],
            hosts: one("A.org:8443"),
            prefixes: one("https://A.org/Blog"),
            keys: one("Page 1"),
            tags: one(" Tag-1 "),
            soft: true,
            ..new()
        };
        let plan = purge(&asked).expect("a purge");
        let expected = PurgeRecord {
            soft: true,
            urls: one("a.org/x"),
            hosts: one("a.org:8443"),
            keys: one("Page 1"),
            prefixes: one("a.org/Blog"),
            tags: one("tag-1"),
            ..PurgeRecord::default()
        };
        assert_eq!(plan.answer, expected);
        assert_eq!(plan.changes, [Change::Purged(Box::new(expected))]);
    }

    #[test]
    fn what_cannot_be_purged_is_refused_by_name() {
        for (asked, word) in [
            (new(), "names nothing"),
            (NewPurge { urls: one("ftp://a.org/"), ..new() }, "scheme"),
            (NewPurge { hosts: one("a.org/x"), ..new() }, "no path"),
            (NewPurge { prefixes: one("a.org"), ..new() }, "goes on after its host"),
            (NewPurge { prefixes: one("a.org/*"), ..new() }, "no *"),
            (NewPurge { keys: one("a\nb"), ..new() }, "control"),
            (NewPurge { keys: one(""), ..new() }, "not empty"),
            (NewPurge { tags: one("a,b"), ..new() }, "comma"),
            (NewPurge { tags: one("ü"), ..new() }, "ASCII"),
            (NewPurge { tags: one(" "), ..new() }, "empty"),
            (NewPurge { tags: one(&"x".repeat(PURGE_TAG_BYTES_MAX + 1)), ..new() }, "at most"),
            (NewPurge { tags: (0..=PURGE_TARGETS_MAX).map(|n| n.to_string()).collect(), ..new() }, "at most"),
            (NewPurge { everything: true, reason: Some("x".repeat(MESSAGE_BYTES_MAX + 1)), ..new() }, "message"),
            (NewPurge { tags: vec!["same".to_owned(); PURGE_TARGETS_MAX + 1], ..new() }, "at most"),
            (NewPurge { tags: (0..PURGE_TARGETS_MAX).map(|n| n.to_string()).collect(), everything: true, ..new() }, "at most"),
        ] {
            let refused = purge(&asked).expect_err(word).to_string();
            assert!(refused.contains(word), "{refused}");
        }
        let most = NewPurge { tags: (0..PURGE_TARGETS_MAX).map(|n| n.to_string()).collect(), ..new() };
        assert!(purge(&most).is_ok());
    }

    #[test]
    fn only_a_worker_that_takes_traffic_purges() {
        let asked = WorkerPurge { tags: one("a"), ..WorkerPurge::of("shop".parse().expect("a name")) };
        assert!(matches!(purge_of_worker(&State::default(), &asked), Err(Refusal::NoWorker { .. })));
    }
}
