//! The URLs of a purge as this node's routes store them: a route may leave out or sort parts of the query, and who purges a URL writes it as clients do. Pure.

use std::borrow::Cow;
use std::collections::BTreeSet;

use selvedge_origin::registry::PurgeRecord;

use crate::cache::query;
use crate::routes::{RouteTable, host_of};

/// The purge, with each URL also as the routes in use store it. As it is given it stays too: that is how a worker keeps what is its own. What was stored by an
/// earlier rule of a route is found by no request, while that rule does not come back.
pub(super) fn as_stored<'a>(purge: &'a PurgeRecord, routes: &RouteTable) -> Cow<'a, PurgeRecord> {
    let stored: BTreeSet<String> = purge.urls.iter().filter_map(|url| stored(url, routes)).collect();
    if stored.is_empty() {
        return Cow::Borrowed(purge);
    }
    let mut purge = purge.clone();
    purge.urls.extend(stored);
    Cow::Owned(purge)
}

/// A URL by the rule of its route; none where that changes nothing.
fn stored(url: &str, routes: &RouteTable) -> Option<String> {
    let (authority, target) = address(url);
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let route = routes.find(host_of(authority), path)?;
    let named = query::name(&route.cache.query, target);
    (*named != *target).then(|| format!("{authority}{named}"))
}

/// The authority, and path and query, of a URL as the registry writes it.
pub(super) fn address(url: &str) -> (&str, &str) {
    url.split_at_checked(url.find('/').unwrap_or(url.len())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{ActiveWorker, Route, Target};
    use selvedge_origin::registry::{CacheSettings, QueryRule};
    use std::sync::Arc;

    fn routes(rules: &[(&str, QueryRule)]) -> RouteTable {
        let route = |(pattern, query): &(&str, QueryRule)| Route {
            pattern: (*pattern).into(),
            target: Target::Worker(Arc::new(ActiveWorker::new("w".into(), []))),
            upstream: None,
            redirect_to_https: false,
            cache: CacheSettings { query: query.clone(), ..CacheSettings::default() },
            fingerprint: 0,
            counters: Default::default(),
            compress: Default::default(),
            early_hints: false,
        };
        RouteTable::compile(rules.iter().map(route)).expect("routes")
    }

    #[test]
    fn a_url_is_purged_by_the_rule_of_the_route_that_answers_it() {
        let routes = routes(&[
            ("keep.test/*", QueryRule::Keep),
            ("only.test/*", QueryRule::Only(vec!["b".into(), "page".into()])),
            ("only.test/all/*", QueryRule::Ignore),
            ("*.sorted.test/*", QueryRule::Sort),
        ]);
        for (url, expected) in [
            ("keep.test/a?utm=1&b=2", &["keep.test/a?utm=1&b=2"][..]),
            ("only.test/a?utm=1&b=2", &["only.test/a?utm=1&b=2", "only.test/a?b=2"]),
            ("only.test:8443/a?page=1&b=2", &["only.test:8443/a?page=1&b=2", "only.test:8443/a?b=2&page=1"]),
            ("only.test/a?b=2", &["only.test/a?b=2"]),
            ("only.test/all/x?b=2", &["only.test/all/x?b=2", "only.test/all/x"]),
            ("www.sorted.test/?z&a", &["www.sorted.test/?z&a", "www.sorted.test/?a&z"]),
            ("nobody.test/?z&a", &["nobody.test/?z&a"]),
        ] {
            let purge = PurgeRecord { urls: vec![url.to_owned()], ..PurgeRecord::default() };
            assert_eq!(as_stored(&purge, &routes).urls, expected, "{url}");
        }
    }

    #[test]
    fn nothing_but_urls_is_touched_and_what_means_the_same_is_named_once() {
        let routes = routes(&[("/*", QueryRule::Ignore)]);
        let purge = PurgeRecord {
            urls: vec!["a.test/x?1".into(), "a.test/x?2".into()],
            prefixes: vec!["a.test/y?1".into()],
            soft: true,
            ..PurgeRecord::default()
        };
        let stored = as_stored(&purge, &routes);
        assert_eq!(stored.urls, ["a.test/x?1", "a.test/x?2", "a.test/x"]);
        assert_eq!((&stored.prefixes, stored.soft), (&purge.prefixes, true));
        assert!(matches!(as_stored(&PurgeRecord { urls: vec![], ..purge.clone() }, &routes), Cow::Borrowed(_)));
    }
}
