//! The tags of a stored response: what `Cache-Tag` and `Surrogate-Key` say, as hashes. Pure.
//!
//! `Cache-Tag` separates by commas, `Surrogate-Key` by white space; both may come in several lines, and together. Case says nothing. Tags are for this node: whoever
//! sends the response takes the fields off.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::purge::{Kind, Name, Realm};

/// Commas between its tags.
pub const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
/// White space between its tags.
pub const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

/// Between nodes only: the hashes, or `*` for every tag.
pub const SELVEDGE_TAGS: HeaderName = HeaderName::from_static("selvedge-tags");

const FIELDS: [HeaderName; 3] = [CACHE_TAG, SURROGATE_KEY, SELVEDGE_TAGS];

/// Tags that one response is known by. A response with more is purged by every tag: better once too often than not.
pub const TAGS_MAX: usize = 256;
/// Bytes of one tag; a longer one counts as too many.
pub const TAG_BYTES_MAX: usize = 1024;

/// The tags of one response, hashed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags {
    names: Box<[Name]>,
    /// There were more, or longer ones, than are kept: every tag is one of them.
    overflow: bool,
}

impl Tags {
    /// Of a response.
    pub fn of(headers: &HeaderMap) -> Self {
        if !Self::are_said(headers) {
            return Self::default();
        }
        let by_comma = headers.get_all(CACHE_TAG).iter().flat_map(|line| line.as_bytes().split(|b| *b == b','));
        let by_space = headers.get_all(SURROGATE_KEY).iter().flat_map(|line| line.as_bytes().split(u8::is_ascii_whitespace));
        let (mut names, mut overflow): (SmallVec<[Name; 16]>, bool) = (SmallVec::new(), false);
        for tag in by_comma.chain(by_space).map(<[u8]>::trim_ascii).filter(|tag| !tag.is_empty()) {
            if names.len() == TAGS_MAX || tag.len() > TAG_BYTES_MAX {
                overflow = true;
                continue;
            }
            let name = Self::name(tag);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        for told in headers.get_all(SELVEDGE_TAGS).iter().flat_map(|line| line.as_bytes().split(|b| *b == b',')) {
            let name = std::str::from_utf8(told).ok().and_then(|text| u64::from_str_radix(text, 16).ok()).map(Name);
            match name {
                Some(name) if names.contains(&name) => {}
                Some(name) if names.len() < TAGS_MAX => names.push(name),
                _ => overflow = true,
            }
        }
        Self { names: names.as_slice().into(), overflow }
    }

    /// Whether the fields say any.
    pub fn are_said(headers: &HeaderMap) -> bool {
        FIELDS.iter().any(|name| headers.contains_key(name))
    }

    /// Tells another node; none where there are no tags.
    pub fn told(&self) -> Option<HeaderValue> {
        if self.overflow {
            return Some(HeaderValue::from_static("*"));
        }
        let names: Vec<String> = self.names.iter().map(|name| format!("{:016x}", name.0)).collect();
        if names.is_empty() { None } else { HeaderValue::try_from(names.join(",")).ok() }
    }

    /// Takes the fields off that say them: they are for nodes.
    pub fn strip(headers: &mut HeaderMap) {
        for name in FIELDS {
            headers.remove(name);
        }
    }

    /// As it was stored with an entry.
    pub fn restored(names: impl IntoIterator<Item = u64>, overflow: bool) -> Self {
        Self { names: names.into_iter().take(TAGS_MAX).map(Name).collect(), overflow }
    }

    /// What a tag is known by.
    pub fn name(tag: &[u8]) -> Name {
        Name::new(Kind::Tag, Realm::NONE, &[&tag.to_ascii_lowercase()])
    }

    /// What a purge of any tag raises, for those who have every one.
    pub fn every(realm: Realm) -> Name {
        Name::new(Kind::Tag, realm, &[])
    }

    /// The hashes.
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// Whether every tag counts as one of them.
    pub fn is_overflowing(&self) -> bool {
        self.overflow
    }

    /// Bytes that they take.
    pub fn weight(&self) -> usize {
        size_of_val(&*self.names)
    }
}

/// For tests/fuzz: any lines as fields; the first byte of each says as which. Each tag that is said is one that a purge finds, and another node is told the same.
pub fn fuzz(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    let mut said: Vec<Name> = Vec::new();
    for line in bytes.split(|b| *b == b'\n') {
        let Some((first, rest)) = line.split_first() else { continue };
        let Ok(value) = HeaderValue::from_bytes(rest) else { continue };
        let is_separator: fn(&u8) -> bool = match first % 3 {
            0 => |b| *b == b',',
            1 => |b| matches!(b, b' ' | b'\t'),
            _ => |_| true,
        };
        let tags = rest.split(is_separator).map(<[u8]>::trim_ascii).filter(|tag| !tag.is_empty());
        said.extend(tags.map(Tags::name));
        headers.append(FIELDS[usize::from(first % 3)].clone(), value);
    }
    let tags = Tags::of(&headers);
    assert!(tags.names().len() <= TAGS_MAX);
    assert!(tags.is_overflowing() || said.iter().all(|name| tags.names().contains(name)), "a purge by tag finds it");
    let told: HeaderMap = tags.told().map(|told| (SELVEDGE_TAGS, told)).into_iter().collect();
    let again = Tags::of(&told);
    assert_eq!(again.is_overflowing(), tags.is_overflowing());
    assert!(tags.is_overflowing() || again == tags, "{again:?} {tags:?}");
    Tags::strip(&mut headers);
    assert!(headers.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(fields: &[(HeaderName, &str)]) -> Tags {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).expect("a field value"));
        }
        Tags::of(&headers)
    }

    #[test]
    fn both_fields_are_read_in_all_their_lines() {
        let (a, b, c) = (Tags::name(b"a"), Tags::name(b"b-2"), Tags::name(b"c d"));
        assert_eq!(tags(&[(CACHE_TAG, "a, B-2 ,, c d")]).names(), [a, b, c]);
        assert_eq!(tags(&[(SURROGATE_KEY, "  a\tb-2 a")]).names(), [a, b]);
        assert_eq!(tags(&[(CACHE_TAG, "a"), (CACHE_TAG, "b-2"), (SURROGATE_KEY, "A")]).names(), [a, b]);
        assert_eq!(tags(&[(CACHE_TAG, " , ")]), Tags::default());
        assert_ne!(a, b);
    }

    #[test]
    fn what_one_node_tells_another_are_the_same_tags() {
        for fields in [&[(CACHE_TAG, "a, b")][..], &[(SURROGATE_KEY, "a")], &[(CACHE_TAG, &"x".repeat(TAG_BYTES_MAX + 1))]] {
            let said = tags(fields);
            let told = said.told().expect("tags");
            assert_eq!(tags(&[(SELVEDGE_TAGS, told.to_str().expect("text"))]), said);
        }
        assert_eq!(Tags::default().told(), None);
        assert!(tags(&[(SELVEDGE_TAGS, "nonsense")]).is_overflowing());
    }

    #[test]
    fn what_is_too_much_is_every_tag() {
        let many: String = (0..TAGS_MAX).map(|n| format!("t{n},")).collect();
        assert!(!tags(&[(CACHE_TAG, &many)]).is_overflowing());
        assert!(tags(&[(CACHE_TAG, &many), (SURROGATE_KEY, "one-more")]).is_overflowing());
        assert!(!tags(&[(CACHE_TAG, &"x".repeat(TAG_BYTES_MAX))]).is_overflowing());
        let long = tags(&[(CACHE_TAG, &"x".repeat(TAG_BYTES_MAX + 1))]);
        assert!(long.is_overflowing() && long.names().is_empty());
    }
}
