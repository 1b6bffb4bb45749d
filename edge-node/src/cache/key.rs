//! The cache key: scheme, normalised authority, path and query, raw as received. Pure.
//!
//! The host is never left out: a default key without it was a CVE in a proxy. The variant is apart (see [`super::vary`]), and so is the method:
//! only answers to GET are stored.

use std::borrow::Cow;

use http::Uri;
use selvedge_origin::registry::authority as normalise;
use smallvec::SmallVec;

/// A key, on the stack for usual URLs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheKey(SmallVec<[u8; 192]>);

/// Whose answers: those of an upstream, of a worker, or what a worker keeps for itself. None is ever taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space<'a> {
    /// The route's upstream.
    Upstream,
    /// This version of the route's worker.
    Worker(&'a str),
    /// Any version of the route's worker of this name: `cross_version_cache`.
    AnyVersion(&'a str),
    /// What the worker of this name fetched with wishes of its own (`cf`), or from outside the node.
    Fetched(&'a str),
    /// What a worker put into a cache of its own.
    WorkerCache {
        /// Its name.
        worker: &'a str,
        /// The cache's name, any text; none: `caches.default`.
        name: Option<&'a str>,
    },
}

impl Space<'_> {
    fn write(self, key: &mut SmallVec<[u8; 192]>) {
        let (letter, owner) = match self {
            Self::Upstream => (b'u', ""),
            Self::Worker(version) => (b'w', version),
            Self::AnyVersion(worker) => (b'v', worker),
            Self::Fetched(worker) => (b'f', worker),
            Self::WorkerCache { worker, name: None } => (b'c', worker),
            Self::WorkerCache { worker, name: Some(_) } => (b'n', worker),
        };
        key.push(letter);
        key.extend_from_slice(owner.as_bytes());
        if let Self::WorkerCache { name: Some(name), .. } = self {
            // Names of workers have no slash in them.
            key.push(b'/');
            for byte in name.bytes() {
                // A name is any text: a line end in it must not pass for the end of this part.
                if byte.is_ascii_control() || byte == b'%' {
                    key.push(b'%');
                    key.extend_from_slice(&[b'a' + (byte >> 4), b'a' + (byte & 15)]);
                } else {
                    key.push(byte);
                }
            }
        }
    }
}

impl CacheKey {
    /// `authority` is normalised (lower case, no default port: see [`crate::request`]); `target` is path and query as received.
    pub fn new(space: Space<'_>, scheme: &str, authority: &str, target: &str) -> Self {
        let mut key = SmallVec::new();
        space.write(&mut key);
        // None of the parts can have a line end in it, so no two lists of parts give one key.
        for part in [scheme, authority, target] {
            key.push(b'\n');
            key.extend_from_slice(part.as_bytes());
        }
        Self(key)
    }

    /// The key of a slice of what this is the key of (see [`super::slice`]): with the same address, and never the same as that of another whole.
    pub(super) fn of_slice(&self, number: u64, length: u64, validator: &[u8]) -> Self {
        let mut key = SmallVec::new();
        // No space begins with this letter, and no field has a line end in it.
        key.push(b's');
        key.extend_from_slice(format!("{number}/{length} ").as_bytes());
        key.extend_from_slice(validator);
        key.push(b'\n');
        key.extend_from_slice(&self.0);
        Self(key)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its bytes, to keep.
    pub fn to_boxed(&self) -> Box<[u8]> {
        self.0.as_slice().into()
    }
}

/// The authority, and path and query, of a key's bytes: its last two parts, which can have no line end in them.
pub fn address(key: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = key.rsplitn(3, |b| *b == b'\n');
    let target = parts.next().unwrap_or_default();
    (parts.next().unwrap_or_default(), target)
}

/// Scheme, authority, and path and query, of a worker's `cf.cacheKey`, by which it is stored and purged: its own where it is a URL; else all of it stands for path
/// and query, of no authority.
pub fn address_of(key: &str) -> (&'static str, Box<str>, Cow<'_, str>) {
    let url = key.parse::<Uri>().ok().and_then(|uri| {
        let secure = uri.scheme_str() == Some("https");
        let authority = normalise(uri.authority()?.as_str(), secure).ok()?;
        Some((if secure { "https" } else { "http" }, authority, Cow::Owned(uri.path_and_query()?.as_str().to_owned())))
    });
    url.unwrap_or(("", "".into(), Cow::Borrowed(key)))
}

/// An authority without its port.
pub fn without_port(authority: &[u8]) -> &[u8] {
    let colon = authority.iter().rposition(|b| *b == b':');
    // The colons of an IPv6 address are in brackets.
    let port = colon.filter(|colon| authority.get(colon + 1..).is_some_and(|port| !port.is_empty() && port.iter().all(u8::is_ascii_digit)));
    port.and_then(|colon| authority.get(..colon)).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_tells_keys_apart() {
        let key = |space, scheme, authority, target| CacheKey::new(space, scheme, authority, target);
        let base = key(Space::Upstream, "https", "a.org", "/x?y");
        assert_eq!(base, key(Space::Upstream, "https", "a.org", "/x?y"));
        for other in [
            key(Space::Worker("1"), "https", "a.org", "/x?y"),
            key(Space::AnyVersion("1"), "https", "a.org", "/x?y"),
            key(Space::Fetched("1"), "https", "a.org", "/x?y"),
            key(Space::WorkerCache { worker: "1", name: None }, "https", "a.org", "/x?y"),
            key(Space::WorkerCache { worker: "1", name: Some("") }, "https", "a.org", "/x?y"),
            key(Space::Upstream, "http", "a.org", "/x?y"),
            key(Space::Upstream, "https", "b.org", "/x?y"),
            key(Space::Upstream, "https", "a.org:8443", "/x?y"),
            key(Space::Upstream, "https", "a.org", "/x"),
            key(Space::Upstream, "https", "a.org", "/X?y"),
            key(Space::Upstream, "https", "a.org", "/x?y="),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_keys_address_is_read_back() {
        for space in [Space::Upstream, Space::Worker("0190")] {
            let key = CacheKey::new(space, "https", "a.org:8443", "/x?y");
            assert_eq!(address(key.as_bytes()), (b"a.org:8443".as_slice(), b"/x?y".as_slice()));
        }
        assert_eq!(address(b""), (b"".as_slice(), b"".as_slice()));
        for (authority, host) in [("a.org:8443", "a.org"), ("a.org", "a.org"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", "")] {
            assert_eq!(without_port(authority.as_bytes()), host.as_bytes(), "{authority}");
        }
    }

    #[test]
    fn a_key_of_a_workers_own_is_a_url_or_stands_for_itself() {
        for (key, authority, target) in [
            ("https://A.org:443/x?y", "a.org", "/x?y"),
            ("http://a.org:443/x", "a.org:443", "/x"),
            ("https://a.org", "a.org", "/"),
            ("page 1", "", "page 1"),
            ("/x", "", "/x"),
            ("a.org/x", "", "a.org/x"),
            ("ä", "", "ä"),
            ("", "", ""),
        ] {
            let (_, own_authority, own_target) = address_of(key);
            assert_eq!((&*own_authority, &*own_target), (authority, target), "{key}");
        }
    }

    #[test]
    fn no_name_of_a_workers_cache_passes_for_another_key() {
        let key = |worker, name| CacheKey::new(Space::WorkerCache { worker, name }, "https", "a.org", "/x");
        let names = [
            None,
            Some(""),
            Some("a"),
            Some("a\n"),
            Some("a\nhttps\na.org\n/x"),
            Some("a%"),
            Some("a%ak"),
            Some("a\0"),
            Some("A"),
            Some("ä"),
        ];
        for worker in ["w", "w2"] {
            for (at, name) in names.iter().enumerate() {
                let own = key(worker, *name);
                assert_eq!(own.as_bytes().iter().filter(|byte| **byte == b'\n').count(), 3, "{name:?}");
                assert!(names.iter().skip(at + 1).all(|other| key(worker, *other) != own), "{name:?}");
                assert_ne!(own, key("other", *name));
            }
        }
    }
}
