//! What a worker purges of its own: `ctx.cache.purge()`, by Cloudflare's names.

use serde::{Deserialize, Serialize};

use crate::protocol::{PURGE_NAME_BYTES_MAX, PURGE_NAMES_BYTES_MAX, PURGE_NAMES_MAX};

/// What it names; all that any of it reaches is purged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CachePurge {
    /// Tags of `Cache-Tag` and `Surrogate-Key`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// `pathPrefixes`: what the path begins with, whatever the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path_prefixes: Vec<String>,
    /// `urls`, or `files`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// `prefixes`: what host and path begin with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// `hosts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// `purgeEverything`: all of the worker's own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub everything: bool,
    /// `soft`: stale instead of gone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub soft: bool,
}

/// Why a purge was not made: one of the `errors` that the worker gets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct PurgeRefusal {
    /// By the numbers of HTTP statuses: 4xx where the same would be refused again, 429 where later it may not be, 503 where nobody could be asked.
    pub code: u16,
    /// Says what failed and what to try; safe to show to the worker.
    pub message: String,
}

impl CachePurge {
    /// Reads the JSON that crosses from the runner; an error names what is wrong, for the worker. The bounds are those of the crossing: what can be purged, and
    /// how much of it, is the registry's to say.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        let purge: Self = serde_json::from_slice(json).map_err(|error| format!("invalid purge: {error}"))?;
        let names = || [&purge.tags, &purge.path_prefixes, &purge.urls, &purge.prefixes, &purge.hosts].into_iter().flatten();
        if names().count() > PURGE_NAMES_MAX {
            return Err(format!("one purge names at most {PURGE_NAMES_MAX} things"));
        }
        if names().any(|name| name.len() > PURGE_NAME_BYTES_MAX) {
            return Err(format!("what a purge names has at most {PURGE_NAME_BYTES_MAX} bytes each"));
        }
        if names().map(String::len).sum::<usize>() > PURGE_NAMES_BYTES_MAX {
            return Err(format!("what one purge names has at most {PURGE_NAMES_BYTES_MAX} bytes together"));
        }
        Ok(purge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purges_survive_the_crossing_and_bounds_are_named() {
        let [tags, path_prefixes, urls, prefixes, hosts] =
            ["a", "/b/", "https://c.org/", "d.org/", "e.org"].map(|name| vec![name.to_owned()]);
        let purge = CachePurge { tags, path_prefixes, urls, prefixes, hosts, everything: true, soft: true };
        assert_eq!(CachePurge::read(&serde_json::to_vec(&purge).expect("JSON")), Ok(purge));
        assert_eq!(CachePurge::read(b"{}"), Ok(CachePurge::default()));
        let tags = |count: usize, bytes: usize| serde_json::json!({ "tags": vec!["x".repeat(bytes); count] }).to_string();
        assert!(CachePurge::read(tags(PURGE_NAMES_MAX, 1).as_bytes()).is_ok());
        assert!(CachePurge::read(tags(1, PURGE_NAME_BYTES_MAX).as_bytes()).is_ok());
        let spread =
            serde_json::json!({ "tags": vec!["t"; 400], "urls": vec!["u"; 300], "hosts": vec!["h"; 200], "prefixes": vec!["p"; 101] });
        for (json, word) in [
            (tags(PURGE_NAMES_MAX + 1, 1), "at most 1000"),
            (spread.to_string(), "at most 1000"),
            (tags(1, PURGE_NAME_BYTES_MAX + 1), "at most 1024 bytes"),
            (tags(PURGE_NAMES_BYTES_MAX / PURGE_NAME_BYTES_MAX + 1, PURGE_NAME_BYTES_MAX), "together"),
            (r#"{"files":[]}"#.to_owned(), "files"),
            (r#"{"tags":"a"}"#.to_owned(), "invalid purge"),
        ] {
            let refused = CachePurge::read(json.as_bytes()).expect_err(word);
            assert!(refused.contains(word), "{word}: {refused}");
        }
    }
}
