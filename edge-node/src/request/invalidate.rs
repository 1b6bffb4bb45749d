//! What an answer to an unsafe method makes invalid: RFC 9111, section 4.4.

use http::header::{CONTENT_LOCATION, HeaderValue, LOCATION};
use http::{Response, Uri};
use selvedge_runtime::Body;

use super::RequestPath;
use super::context::Context;
use super::reference::resolve;
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

/// Path and query of a reference to the same scheme and authority, also a relative one; none of others.
pub(super) fn same_authority(reference: &HeaderValue, context: &Context) -> Option<String> {
    let base =
        Uri::builder().scheme(context.scheme()).authority(&*context.authority).path_and_query(context.target.clone()).build().ok()?;
    let named = resolve(&base, reference)?;
    let authority = super::context::normalise(named.authority()?.as_str(), context.secure).ok()?;
    let same = named.scheme() == base.scheme() && authority == context.authority;
    same.then(|| named.path_and_query().map(|target| target.as_str().to_owned())).flatten()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::listen::{Connection, Protocol};

    #[test]
    fn references_to_the_same_authority_are_resolved() {
        let connection = Connection { peer: "1.2.3.4:5".parse().expect("an address"), protocol: Protocol::Http1, tls: None };
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
