//! What a reference in an answer means (RFC 3986, section 5): for redirects that a worker's `fetch()` follows, and for what an unsafe method makes invalid. Pure.

use http::{HeaderValue, Uri};

/// What a reference means against the address that it came from; none where that is no http or https address, or one with user information.
pub(crate) fn resolve(base: &Uri, reference: &HeaderValue) -> Option<Uri> {
    let reference = reference.to_str().ok()?.split('#').next().unwrap_or_default();
    if reference.is_empty() {
        return Some(base.clone());
    }
    let (scheme, rest) = match reference.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) {
        // What has a scheme has an authority, with these two.
        Some((_, rest)) if !rest.starts_with("//") => return None,
        Some(parts) => parts,
        None => (base.scheme_str()?, reference),
    };
    let (authority, target) = match rest.strip_prefix("//") {
        Some(after) => after.split_at(after.find(['/', '?']).unwrap_or(after.len())),
        None => (base.authority()?.as_str(), rest),
    };
    let folder = || base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    let target = match target.bytes().next() {
        Some(b'/') => target.to_owned(),
        _ if rest.starts_with("//") => format!("/{target}"),
        Some(b'?') => format!("{}{target}", base.path()),
        _ => format!("{}/{target}", folder()),
    };
    let uri: Uri = format!("{scheme}://{authority}{}", without_dots(&target)).parse().ok()?;
    let named = uri.authority().is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
    (matches!(uri.scheme_str(), Some("http" | "https")) && named).then_some(uri)
}

/// Section 3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Section 5.2.4, on the path before a query.
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

/// For tests/fuzz: any bytes as a `Location`.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let base = Uri::from_static("https://a.org/b/c?d");
    if let Some(uri) = resolve(&base, &value) {
        assert!(uri.scheme().is_some() && uri.authority().is_some());
        assert!(uri.path_and_query().is_some_and(|target| target.as_str().starts_with('/')));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_resolve_against_where_they_came_from() {
        let base = Uri::from_static("https://a.org/b/c?d");
        for (reference, expected) in [
            ("http://x.org/y", Some("http://x.org/y")),
            ("HTTP://x.org", Some("http://x.org/")),
            ("https://x.org?q", Some("https://x.org/?q")),
            ("https://x.org/y/../z", Some("https://x.org/z")),
            ("//x.org/y", Some("https://x.org/y")),
            ("/y?z#f", Some("https://a.org/y?z")),
            ("/y/./../z/", Some("https://a.org/z/")),
            ("y", Some("https://a.org/b/y")),
            ("../y", Some("https://a.org/y")),
            ("../../../y/", Some("https://a.org/y/")),
            ("..", Some("https://a.org/")),
            ("./y/../z?q", Some("https://a.org/b/z?q")),
            ("?q", Some("https://a.org/b/c?q")),
            ("", Some("https://a.org/b/c?d")),
            ("#f", Some("https://a.org/b/c?d")),
            ("y?u=http://e.org", Some("https://a.org/b/y?u=http://e.org")),
            ("ftp://x.org/", None),
            ("https:y", None),
            ("mailto:x@x.org", None),
            ("https://user@x.org/", None),
            ("https:///x", None),
        ] {
            let found = resolve(&base, &HeaderValue::from_static(reference));
            let text = found.as_ref().map(|uri| {
                let parts = uri.clone().into_parts();
                format!("{}://{}{}", parts.scheme.unwrap(), parts.authority.unwrap(), parts.path_and_query.unwrap().as_str())
            });
            assert_eq!(text.as_deref(), expected, "{reference}");
        }
    }
}
