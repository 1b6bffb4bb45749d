//! What of a query names a response: a route may leave it out, sort it, or keep a few parameters, so that a query that means nothing does not make another copy. Pure.
//!
//! Whoever answers is asked by the same query: one that did not name the response would otherwise decide what everybody gets (cache poisoning by an unkeyed input).

use std::borrow::Cow;

use http::uri::PathAndQuery;
use selvedge_origin::registry::QueryRule;

/// Parameters that are sorted; a query with more is left as it is.
const PARAMETERS_MAX: usize = 256;

/// Path and query by a route's rule.
pub fn name<'a>(rule: &QueryRule, target: &'a str) -> Cow<'a, str> {
    if *rule == QueryRule::Keep {
        return Cow::Borrowed(target);
    }
    let Some((path, query)) = target.split_once('?') else { return Cow::Borrowed(target) };
    let kept = |name: &str| match rule {
        QueryRule::Only(names) => names.iter().any(|only| only == name),
        _ => true,
    };
    match rule {
        QueryRule::Keep => Cow::Borrowed(target),
        QueryRule::Ignore => Cow::Borrowed(path),
        QueryRule::Sort | QueryRule::Only(_) => {
            let mut parameters: Vec<&str> = query
                .split('&')
                .filter(|parameter| !parameter.is_empty() && kept(parameter.split_once('=').map_or(*parameter, |(name, _)| name)))
                .collect();
            if parameters.len() > PARAMETERS_MAX {
                return Cow::Borrowed(target);
            }
            // Stable, and by name only: `a=2&a=1` is not `a=1&a=2`.
            parameters.sort_by_key(|parameter| parameter.split_once('=').map_or(*parameter, |(name, _)| name));
            if parameters.is_empty() { Cow::Borrowed(path) } else { Cow::Owned(format!("{path}?{}", parameters.join("&"))) }
        }
    }
}

/// The same for a request's target; none where nothing changes.
pub fn narrowed(rule: &QueryRule, target: &PathAndQuery) -> Option<PathAndQuery> {
    if *rule == QueryRule::Keep {
        return None;
    }
    let named = name(rule, target.as_str());
    (named != target.as_str()).then(|| named.parse().ok()).flatten()
}

/// For tests/fuzz: naming twice is naming once, and the path stays.
pub fn fuzz(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for rule in [QueryRule::Keep, QueryRule::Ignore, QueryRule::Sort, QueryRule::Only(vec!["a".into(), "b".into()])] {
        let once = name(&rule, text);
        assert_eq!(name(&rule, &once), once);
        assert_eq!(once.split('?').next(), text.split('?').next());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_decides_what_counts() {
        let only = QueryRule::Only(vec!["page".into(), "lang".into()]);
        for (rule, target, expected) in [
            (&QueryRule::Keep, "/a?z=1&a=2&", "/a?z=1&a=2&"),
            (&QueryRule::Ignore, "/a?z=1", "/a"),
            (&QueryRule::Ignore, "/a", "/a"),
            (&QueryRule::Sort, "/a?z=1&a=2&&b", "/a?a=2&b&z=1"),
            (&QueryRule::Sort, "/a?b=2&a=1&b=1", "/a?a=1&b=2&b=1"),
            (&QueryRule::Sort, "/a?", "/a"),
            (&only, "/a?utm=x&page=2&lang=de&bust=9", "/a?lang=de&page=2"),
            (&only, "/a?bust=9", "/a"),
            (&only, "/a?page", "/a?page"),
            (&only, "/a?Page=2", "/a"),
        ] {
            assert_eq!(name(rule, target), expected, "{rule:?} {target}");
        }
    }
}
