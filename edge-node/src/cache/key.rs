//! The cache key: scheme, normalised authority, path and query, raw as received. Pure.
//!
//! The host is never left out: a default key without it was a CVE in a proxy. The variant is apart (see [`super::vary`]), and so is the method:
//! only answers to GET are stored.

use smallvec::SmallVec;

/// A key, on the stack for usual URLs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheKey(SmallVec<[u8; 192]>);

/// Whose answers: those of an upstream, or those of one version of a worker. The two are never taken for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space<'a> {
    /// The route's upstream.
    Upstream,
    /// This version of its worker.
    Worker(&'a str),
}

impl CacheKey {
    /// `authority` is normalised (lower case, no default port: see [`crate::request`]); `target` is path and query as received.
    pub fn new(space: Space<'_>, scheme: &str, authority: &str, target: &str) -> Self {
        let mut key = SmallVec::new();
        match space {
            Space::Upstream => key.push(b'u'),
            Space::Worker(version) => {
                key.push(b'w');
                key.extend_from_slice(version.as_bytes());
            }
        }
        // None of the parts can have a line end in it, so no two lists of parts give one key.
        for part in [scheme, authority, target] {
            key.push(b'\n');
            key.extend_from_slice(part.as_bytes());
        }
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
}
