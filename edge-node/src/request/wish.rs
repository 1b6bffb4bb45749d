//! What a worker wishes of the cache for one `fetch()` (`cf`), and what it fetches from outside the node: stored under keys of its own, so that no other worker and no
//! client ever gets it. Pure.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use http::StatusCode;
use http::header::{AGE, HeaderMap, HeaderValue};
use selvedge_origin::registry::{CacheSettings, CompressSettings, RequestDirectives};
use selvedge_runtime::FetchCache;

use super::context::Context;
use crate::cache::control::CDN_CACHE_CONTROL;
use crate::cache::key::{self, CacheKey, Space};
use crate::cache::purge::Realm;
use crate::cache::query;
use crate::cache::tags::CACHE_TAG;
use crate::routes::{Route, Target};

/// The rules for what comes from outside: what says how long it is fresh is stored, nothing is guessed, and the worker's own directives count.
static OUTSIDE: LazyLock<Arc<Route>> = LazyLock::new(|| {
    Arc::new(Route {
        pattern: "fetch()".into(),
        target: Target::Upstream,
        upstream: None,
        redirect_to_https: false,
        cache: CacheSettings {
            enabled: Some(true),
            heuristic_s_max: 0,
            request_directives: RequestDirectives::All,
            shield: false,
            deception_check: false,
            ..CacheSettings::default()
        },
        fingerprint: 0,
        compress: CompressSettings { enabled: false, ..CompressSettings::default() },
        early_hints: false,
        counters: Arc::default(),
    })
});

/// The route of what is outside.
pub(crate) fn outside() -> Arc<Route> {
    OUTSIDE.clone()
}

/// Whose wish it is, and what.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) worker: Arc<str>,
    pub(crate) realm: Realm,
    pub(crate) asked: FetchCache,
}

impl Wish {
    /// Under which key the answer is stored: the worker's, with its `cacheKey` in place of the URL.
    pub(crate) fn key(&self, context: &Context, settings: &CacheSettings) -> CacheKey {
        let space = Space::Fetched(&self.worker);
        let Some(key) = &self.asked.key else {
            return CacheKey::new(space, context.scheme(), &context.authority, &query::name(&settings.query, context.target.as_str()));
        };
        let (scheme, authority, target) = key::address_of(key);
        CacheKey::new(space, scheme, &authority, &target)
    }

    /// How long a response with this status is fresh by the wish, in seconds; negative: it is not stored.
    fn ttl_s(&self, status: StatusCode) -> Option<i64> {
        let code = status.as_u16();
        let by_status = self.asked.ttl_by_status.iter().find(|rule| (rule.from..=rule.to).contains(&code)).map(|rule| rule.ttl_s);
        // An error is not what whoever writes `cacheTtl` has in mind.
        by_status.or(self.asked.ttl_s.filter(|_| status.is_success() || status.is_redirection()))
    }

    /// The fields that decide about storing, where they are not the response's: a targeted `Cache-Control` (RFC 9213) is what overrides all others.
    pub(crate) fn judged<'a>(&self, status: StatusCode, headers: &'a HeaderMap) -> Cow<'a, HeaderMap> {
        let Some(ttl_s) = self.ttl_s(status) else { return Cow::Borrowed(headers) };
        let mut judged = headers.clone();
        let directive = if ttl_s < 0 { "no-store".to_owned() } else { format!("max-age={ttl_s}") };
        if let Ok(directive) = HeaderValue::from_str(&directive) {
            judged.insert(CDN_CACHE_CONTROL, directive);
        }
        // The time is from now on, however old the response is.
        judged.remove(AGE);
        judged.remove(http::header::DATE);
        Cow::Owned(judged)
    }

    /// Adds the tags by which it can be purged.
    pub(crate) fn tag(&self, headers: &mut HeaderMap) {
        if !self.asked.tags.is_empty()
            && let Ok(tags) = HeaderValue::from_str(&self.asked.tags.join(","))
        {
            headers.append(CACHE_TAG, tags);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use selvedge_runtime::StatusTtl;

    fn wish(asked: FetchCache) -> Wish {
        Wish { worker: "w".into(), realm: Realm::NONE, asked }
    }

    #[test]
    fn times_by_status_come_first_and_errors_are_kept_only_by_them() {
        let rule = |from, to, ttl_s| StatusTtl { from, to, ttl_s };
        let both = wish(FetchCache {
            ttl_s: Some(60),
            ttl_by_status: vec![rule(200, 299, 5), rule(500, 599, -1), rule(404, 404, 1)],
            ..FetchCache::default()
        });
        let plain = wish(FetchCache { ttl_s: Some(60), ..FetchCache::default() });
        for (status, by_both, by_plain) in
            [(200, Some(5), Some(60)), (301, Some(60), Some(60)), (404, Some(1), None), (500, Some(-1), None), (403, None, None)]
        {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!((both.ttl_s(status), plain.ttl_s(status)), (by_both, by_plain), "{status}");
        }
    }

    #[test]
    fn a_wish_overrides_what_the_response_says_for_the_cache_only() {
        let headers: HeaderMap =
            [(http::header::CACHE_CONTROL, HeaderValue::from_static("private, no-store")), (AGE, HeaderValue::from_static("9"))]
                .into_iter()
                .collect();
        let plain = wish(FetchCache { ttl_s: Some(60), ..FetchCache::default() });
        let judged = plain.judged(StatusCode::OK, &headers);
        assert_eq!(judged.get(CDN_CACHE_CONTROL).expect("it"), "max-age=60");
        assert!(!judged.contains_key(AGE) && matches!(plain.judged(StatusCode::NOT_FOUND, &headers), Cow::Borrowed(_)));
        let mut tagged = HeaderMap::new();
        wish(FetchCache { tags: vec!["a".into(), "b".into()], ..FetchCache::default() }).tag(&mut tagged);
        assert_eq!(tagged.get(CACHE_TAG).expect("it"), "a,b");
    }
}
