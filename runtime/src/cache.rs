//! What a worker asks of caches: operations of its own ones (`caches`), and its wishes for a `fetch()` (`cf`).

use http::{HeaderMap, Response};
use serde::{Deserialize, Serialize};

use crate::Body;
use crate::protocol::{CACHE_KEY_BYTES_MAX, CACHE_TAG_BYTES_MAX, CACHE_TAGS_MAX, CACHE_TTL_RULES_MAX, CACHE_TTL_SECONDS_MAX};

/// One operation of `caches.default` or of a cache that was opened by name.
#[derive(Debug)]
pub struct CacheAsk {
    /// The cache's name, any text; none: `caches.default`.
    pub name: Option<String>,
    /// The absolute URL that is the key.
    pub url: String,
    /// The fields of the request that goes with the key: conditions, ranges, and what answers vary on.
    pub headers: HeaderMap,
    /// What is asked.
    pub call: CacheCall,
}

/// What is asked of a cache.
#[derive(Debug)]
pub enum CacheCall {
    /// `match`: the fresh response of the key, where there is one.
    Match,
    /// `put`: keep this. It is kept when all of its body has come, or not at all.
    Put(Response<Body>),
    /// `delete`: forget what is kept under the key.
    Delete,
}

/// The answer to an operation that did not fail.
#[derive(Debug)]
pub enum CacheAnswer {
    /// `match` has found this.
    Found(Response<Body>),
    /// `put` has kept it, `delete` has found something.
    Yes,
    /// Nothing there; or not kept, for this reason.
    No(Option<&'static str>),
}

/// The wishes of one `fetch()`, by Cloudflare's names `cacheTtl`, `cacheTtlByStatus`, `cacheEverything`, `cacheKey` and `cacheTags`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FetchCache {
    /// `cacheTtl`, in seconds: how long a success or a redirection is fresh, whatever it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<i64>,
    /// `cacheTtlByStatus`: the same for ranges of status codes; the first that fits decides. A negative time: not stored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ttl_by_status: Vec<StatusTtl>,
    /// `cacheEverything`. A response is stored whatever its type here, so it only asks for the cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub everything: Option<bool>,
    /// `cacheKey`: this instead of the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `cacheTags`: by which it can be purged, beside those of the response.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// One member of `cacheTtlByStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusTtl {
    /// The first status of the range.
    pub from: u16,
    /// The last.
    pub to: u16,
    /// Seconds of freshness; negative: not stored.
    pub ttl_s: i64,
}

impl FetchCache {
    /// Reads the JSON that crosses from the runner; an error names what is wrong, for the worker.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        let wishes: Self = serde_json::from_slice(json).map_err(|error| format!("invalid cf options: {error}"))?;
        wishes.check()?;
        Ok(wishes)
    }

    /// The bounds.
    fn check(&self) -> Result<(), String> {
        if self.ttl_s.is_some_and(|ttl| !(0..=CACHE_TTL_SECONDS_MAX).contains(&ttl)) {
            return Err(format!("cf.cacheTtl must be 0 to {CACHE_TTL_SECONDS_MAX} seconds"));
        }
        if self.ttl_by_status.len() > CACHE_TTL_RULES_MAX {
            return Err(format!("cf.cacheTtlByStatus has more than {CACHE_TTL_RULES_MAX} ranges"));
        }
        let fits = |rule: &StatusTtl| {
            (100..=999).contains(&rule.from) && (rule.from..=999).contains(&rule.to) && rule.ttl_s <= CACHE_TTL_SECONDS_MAX
        };
        if !self.ttl_by_status.iter().all(fits) {
            return Err(format!("cf.cacheTtlByStatus takes status codes of 100 to 999 and at most {CACHE_TTL_SECONDS_MAX} seconds"));
        }
        if self
            .key
            .as_ref()
            .is_some_and(|key| key.is_empty() || key.len() > CACHE_KEY_BYTES_MAX || key.bytes().any(|byte| byte.is_ascii_control()))
        {
            return Err(format!("cf.cacheKey must have 1 to {CACHE_KEY_BYTES_MAX} bytes and no control characters"));
        }
        if self.tags.len() > CACHE_TAGS_MAX {
            return Err(format!("cf.cacheTags has more than {CACHE_TAGS_MAX} tags"));
        }
        // What a `Cache-Tag` field can carry: tokens between commas.
        let is_tag = |tag: &String| {
            !tag.is_empty() && tag.len() <= CACHE_TAG_BYTES_MAX && tag.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
        };
        if !self.tags.iter().all(is_tag) {
            return Err(format!("a tag of cf.cacheTags must have 1 to {CACHE_TAG_BYTES_MAX} visible ASCII characters and no comma"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_survive_the_crossing_and_bounds_are_named() {
        let wishes = FetchCache {
            ttl_s: Some(5),
            ttl_by_status: vec![StatusTtl { from: 200, to: 299, ttl_s: -1 }],
            everything: Some(true),
            key: Some("k".into()),
            tags: vec!["a:b".into()],
        };
        assert_eq!(FetchCache::read(&serde_json::to_vec(&wishes).expect("JSON")), Ok(wishes));
        assert_eq!(FetchCache::read(b"{}"), Ok(FetchCache::default()));
        for (json, word) in [
            (r#"{"ttl_s":-1}"#, "cacheTtl"),
            (r#"{"ttl_s":99999999999}"#, "cacheTtl"),
            (r#"{"ttl_by_status":[{"from":300,"to":200,"ttl_s":1}]}"#, "cacheTtlByStatus"),
            (r#"{"key":""}"#, "cacheKey"),
            (r#"{"key":"a\nb"}"#, "cacheKey"),
            (r#"{"tags":["a,b"]}"#, "cacheTags"),
            (r#"{"tags":[""]}"#, "cacheTags"),
            (r#"{"other":1}"#, "other"),
        ] {
            let refused = FetchCache::read(json.as_bytes()).expect_err(json);
            assert!(refused.contains(word), "{json}: {refused}");
        }
    }
}
