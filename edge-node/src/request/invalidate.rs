//! What an answer to an unsafe method makes invalid, and what its references mean: RFC 9111, section 4.4; RFC 3986, section 5.

use http::Response;
use http::header::{CONTENT_LOCATION, HeaderValue, LOCATION};
use selvedge_runtime::Body;

use super::RequestPath;
use super::context::Context;
use super::route::{Aim, Answerer};
use crate::cache::key::{CacheKey, Space};
use crate::cache::{policy, query};

/// After an answer that did not come through a fill (gives what it made invalid, as path and query): an unsafe method makes what is stored for its URI, and for the `Location` and `Content-Location` of the same
/// authority, invalid (RFC 9111, section 4.4).
pub(super) fn invalidate(path: &RequestPath, aim: &Aim, context: &Context, response: &Response<Body>) -> Vec<String> {
    if !policy::invalidates(&context.method, response.status()) {
        return Vec::new();
    }
    let mut targets = vec![context.target.as_str().to_owned()];
    let named = |name| response.headers().get(name).and_then(|value: &HeaderValue| same_authority(value, context));
    targets.extend([LOCATION, CONTENT_LOCATION].into_iter().filter_map(named));
    for target in &targets {
        let target = query::name(&aim.route.cache.query, target);
        path.cache().invalidate(&CacheKey::new(Space::Upstream, context.scheme(), &context.authority, &target));
        if let Some(wish) = &aim.wish {
            path.cache().invalidate(&CacheKey::new(Space::Fetched(&wish.worker), context.scheme(), &context.authority, &target));
        }
        if let Answerer::Worker(worker, _) = &aim.answerer {
            for space in [Space::AnyVersion(&worker.name), Space::Fetched(&worker.name)] {
                path.cache().invalidate(&CacheKey::new(space, context.scheme(), &context.authority, &target));
            }
            for version in worker.versions() {
                let space = Space::Worker(&version.source.version);
                path.cache().invalidate(&CacheKey::new(space, context.scheme(), &context.authority, &target));
            }
        }
    }
    targets
}

/// Path and query of a reference to the same scheme and authority, also a relative one (RFC 3986, section 5.2); none of others.
pub(super) fn same_authority(reference: &HeaderValue, context: &Context) -> Option<String> {
    let text = reference.to_str().ok()?;
    let text = text.split('#').next().unwrap_or_default();
    if text.is_empty() {
        return Some(context.target.as_str().to_owned());
    }
    let scheme_end = text.find(':').filter(|end| text.get(..*end).is_some_and(|scheme| !scheme.contains(['/', '?'])));
    let rest = match scheme_end {
        Some(end) if text.get(..end)?.eq_ignore_ascii_case(context.scheme()) => text.get(end + 1..)?,
        Some(_) => return None,
        None => text,
    };
    if let Some(after) = rest.strip_prefix("//") {
        let end = after.find(['/', '?']).unwrap_or(after.len());
        let (authority, target) = after.split_at(end);
        let same = super::context::normalise(authority, context.secure).ok()? == context.authority;
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        return same.then(|| without_dots(&target));
    }
    if rest.starts_with('/') {
        return Some(without_dots(rest));
    }
    if rest.starts_with('?') {
        return Some(format!("{}{rest}", context.target.path()));
    }
    let folder = context.target.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    Some(without_dots(&format!("{folder}/{rest}")))
}

/// Without `.` and `..` segments (RFC 3986, section 5.2.4).
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in path.split('/').skip(1) {
        ends_open = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    if ends_open {
        kept.push("");
    }
    let path = format!("/{}", kept.join("/"));
    query.map_or(path.clone(), |query| format!("{path}?{query}"))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::listen::{Connection, Protocol};

    #[test]
    fn references_to_the_same_authority_are_resolved() {
        let connection = Connection {
            peer: "1.2.3.4:5".parse().expect("an address"),
            local: "127.0.0.1:80".parse().expect("an address"),
            protocol: Protocol::Http1,
            tls: None,
        };
        let request = Request::builder().uri("/a/b?c=d").header("host", "x.org").body(()).expect("a request");
        let context = Context::of_client(&request, &connection, &[]);
        for (reference, expected) in [
            ("/y", Some("/y")),
            ("http://X.org/y?z", Some("/y?z")),
            ("http://x.org:80/y#f", Some("/y")),
            ("http://x.org", Some("/")),
            ("http://x.org?q", Some("/?q")),
            ("//x.org/y", Some("/y")),
            ("y", Some("/a/y")),
            ("./y", Some("/a/y")),
            ("../y", Some("/y")),
            ("../../../y/", Some("/y/")),
            ("..", Some("/")),
            ("?q", Some("/a/b?q")),
            ("", Some("/a/b?c=d")),
            ("#f", Some("/a/b?c=d")),
            ("https://x.org/y", None),
            ("http://other.org/y", None),
            ("//other.org/y", None),
            ("mailto:x@x.org", None),
        ] {
            assert_eq!(same_authority(&HeaderValue::from_static(reference), &context).as_deref(), expected, "{reference}");
        }
    }
}
