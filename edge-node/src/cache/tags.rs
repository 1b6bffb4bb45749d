//! The tags of a stored response: what `Cache-Tag` and `Surrogate-Key` say, as hashes; purges go by these alone. The first ones are kept as text too, to be shown. Pure.
//!
//! `Cache-Tag` separates by commas, `Surrogate-Key` by white space; both may come in several lines, and together. Case says nothing. Tags are for this node: whoever
//! sends the response takes the fields off.

use std::fmt::{self, Write};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::purge::{Kind, Name, Realm};

/// Commas between its tags.
pub const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
/// White space between its tags.
pub const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

/// Between nodes only: for each tag `=` and its text, percent-encoded, or its hash where the text is not kept; `*` for every tag.
pub const SELVEDGE_TAGS: HeaderName = HeaderName::from_static("selvedge-tags");

const FIELDS: [HeaderName; 3] = [CACHE_TAG, SURROGATE_KEY, SELVEDGE_TAGS];

/// Tags that one response is known by. A response with more is purged by every tag: better once too often than not.
pub const TAGS_MAX: usize = 256;
/// Bytes of one tag; a longer one counts as too many.
pub const TAG_BYTES_MAX: usize = 1024;
/// Bytes of text that are kept of a response's tags, with what is between them; the text of what is beyond is not.
pub const TEXTS_BYTES_MAX: usize = 2048;

/// Between texts: no field's value has it.
const BETWEEN: u8 = b'\n';

/// The tags of one response. Most have none: those take one word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags(Option<Box<Kept>>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Kept {
    names: Box<[Name]>,
    /// What the first names stand for.
    texts: Box<[u8]>,
    /// There were more, or longer ones, than are kept: every tag is one of them.
    overflow: bool,
}

/// Tags as they are read.
#[derive(Default)]
struct Found {
    names: SmallVec<[Name; 16]>,
    texts: SmallVec<[u8; 256]>,
    /// Names that have their text.
    texts_count: usize,
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
        let mut found = Found::default();
        for tag in by_comma.chain(by_space).map(<[u8]>::trim_ascii).filter(|tag| !tag.is_empty()) {
            found.add(tag);
        }
        for told in headers.get_all(SELVEDGE_TAGS).iter().flat_map(|line| line.as_bytes().split(|b| *b == b',')) {
            found.add_told(told);
        }
        found.kept()
    }

    /// Whether the fields say any.
    pub fn are_said(headers: &HeaderMap) -> bool {
        FIELDS.iter().any(|name| headers.contains_key(name))
    }

    /// Tells another node; none where there are no tags.
    pub fn told(&self) -> Option<HeaderValue> {
        let kept = self.0.as_ref()?;
        if kept.overflow {
            return Some(HeaderValue::from_static("*"));
        }
        let mut told = String::new();
        let mut texts = self.texts();
        for name in &kept.names {
            let between = if told.is_empty() { "" } else { "," };
            // (Writing to a string cannot fail.)
            let _ = match texts.next() {
                Some(text) => write!(told, "{between}={}", Encoded(text)),
                None => write!(told, "{between}{:016x}", name.0),
            };
        }
        HeaderValue::try_from(told).ok()
    }

    /// Takes the fields off that say them: they are for nodes.
    pub fn strip(headers: &mut HeaderMap) {
        for name in FIELDS {
            headers.remove(name);
        }
    }

    /// As it was stored with an entry.
    pub fn restored(names: impl IntoIterator<Item = u64>, overflow: bool) -> Self {
        Self::of_parts(names.into_iter().take(TAGS_MAX).map(Name).collect(), Box::default(), overflow)
    }

    /// The same with the texts of the first ones, as [`Self::texts_stored`] gave them; without any where those cannot be theirs.
    pub fn with_texts(self, texts: &[u8]) -> Self {
        let count = if texts.is_empty() { 0 } else { texts.split(|b| *b == BETWEEN).count() };
        match self.0 {
            Some(kept) if count <= kept.names.len() && texts.len() <= TEXTS_BYTES_MAX => {
                Self::of_parts(kept.names, texts.into(), kept.overflow)
            }
            kept => Self(kept),
        }
    }

    /// The same without texts, for what is never shown.
    pub fn without_texts(self) -> Self {
        self.0.map_or_else(Self::default, |kept| Self::of_parts(kept.names, Box::default(), kept.overflow))
    }

    fn of_parts(names: Box<[Name]>, texts: Box<[u8]>, overflow: bool) -> Self {
        let has_any = overflow || !names.is_empty();
        Self(has_any.then(|| Box::new(Kept { names, texts, overflow })))
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
        self.0.as_ref().map_or(&[], |kept| &kept.names)
    }

    /// What the first of the hashes stand for, as the response said it; of all, where [`TEXTS_BYTES_MAX`] allowed it.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let texts = self.texts_stored();
        let count = if texts.is_empty() { 0 } else { usize::MAX };
        texts.split(|b| *b == BETWEEN).take(count)
    }

    /// All of these as they are stored: one behind the other.
    pub fn texts_stored(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |kept| &kept.texts)
    }

    /// Whether every tag counts as one of them.
    pub fn is_overflowing(&self) -> bool {
        self.0.as_ref().is_some_and(|kept| kept.overflow)
    }

    /// Bytes that they take.
    pub fn weight(&self) -> usize {
        // With what the allocator needs for three blocks.
        self.0.as_ref().map_or(0, |kept| size_of::<Kept>() + size_of_val(&*kept.names) + kept.texts.len() + 48)
    }
}

impl Found {
    /// One more, by its text.
    fn add(&mut self, tag: &[u8]) {
        if self.names.len() == TAGS_MAX || tag.len() > TAG_BYTES_MAX {
            self.overflow = true;
            return;
        }
        let name = Tags::name(tag);
        if self.names.contains(&name) {
            return;
        }
        let between = usize::from(self.texts_count > 0);
        // Only the first ones have texts, without a gap.
        if self.texts_count == self.names.len() && self.texts.len() + between + tag.len() <= TEXTS_BYTES_MAX {
            self.texts.extend(std::iter::repeat_n(BETWEEN, between).chain(tag.iter().copied()));
            self.texts_count += 1;
        }
        self.names.push(name);
    }

    /// One more, as another node tells it.
    fn add_told(&mut self, told: &[u8]) {
        if let Some(encoded) = told.strip_prefix(b"=") {
            match decoded(encoded).filter(|tag| !tag.is_empty() && !tag.contains(&BETWEEN)) {
                Some(tag) => self.add(&tag),
                None => self.overflow = true,
            }
            return;
        }
        let name = std::str::from_utf8(told).ok().and_then(|text| u64::from_str_radix(text, 16).ok()).map(Name);
        match name {
            Some(name) if self.names.contains(&name) => {}
            Some(name) if self.names.len() < TAGS_MAX => self.names.push(name),
            _ => self.overflow = true,
        }
    }

    fn kept(self) -> Tags {
        Tags::of_parts(self.names.as_slice().into(), self.texts.as_slice().into(), self.overflow)
    }
}

/// A text in a list between nodes: visible ASCII but `,` and `%`, all else as `%` and two digits.
struct Encoded<'a>(&'a [u8]);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| match byte {
            b',' | b'%' => write!(f, "%{byte:02x}"),
            byte if byte.is_ascii_graphic() => write!(f, "{}", *byte as char),
            byte => write!(f, "%{byte:02x}"),
        })
    }
}

/// What [`Encoded`] wrote; none where that is not it.
fn decoded(encoded: &[u8]) -> Option<Vec<u8>> {
    let (mut decoded, mut rest) = (Vec::with_capacity(encoded.len()), encoded);
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        let byte = match first {
            b'%' => {
                let (digits, more) = rest.split_at_checked(2)?;
                rest = more;
                let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
                u8::from_str_radix(digits, 16).ok()?
            }
            byte => *byte,
        };
        decoded.push(byte);
    }
    Some(decoded)
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
    fn the_first_texts_are_kept_as_they_were_said() {
        let said = tags(&[(CACHE_TAG, "a, B-2 , c d"), (SURROGATE_KEY, "b-2 e,f \u{e4}")]);
        let texts: Vec<_> = said.texts().map(String::from_utf8_lossy).collect();
        assert_eq!(texts, ["a", "B-2", "c d", "e,f", "\u{e4}"]);
        assert!(said.weight() >= said.texts_stored().len());
        let (many, fit): (String, _) = ((0..200).map(|n| format!("tag-number-{n:03},")).collect(), (TEXTS_BYTES_MAX + 1) / 15);
        let many = tags(&[(CACHE_TAG, &many)]);
        assert_eq!((many.names().len(), many.texts().count(), many.is_overflowing()), (200, fit, false));
        assert!(many.texts_stored().len() <= TEXTS_BYTES_MAX);
        for said in [said, many] {
            let told = said.told().expect("tags");
            assert_eq!(tags(&[(SELVEDGE_TAGS, told.to_str().expect("visible ASCII"))]), said);
            let restored = Tags::restored(said.names().iter().map(|name| name.0), false);
            assert_eq!((restored.texts().count(), restored.names()), (0, said.names()));
            assert_eq!(restored.with_texts(said.texts_stored()), said);
            assert_eq!(said.clone().without_texts().names(), said.names());
        }
        assert_eq!(Tags::restored([1], false).with_texts(b"a\nb"), Tags::restored([1], false), "more texts than tags");
        assert_eq!((Tags::default().texts().count(), Tags::default().weight()), (0, 0));
    }

    #[test]
    fn what_a_node_of_an_earlier_release_tells_are_hashes() {
        let told = format!("{:016x}", Tags::name(b"a").0);
        let tags_of = tags(&[(SELVEDGE_TAGS, &told)]);
        assert_eq!((tags_of.names(), tags_of.texts().count()), (&[Tags::name(b"a")][..], 0));
        for nonsense in ["=", "=%", "=%4", "=%+4", "=%0a", "=a,=%zz"] {
            assert!(tags(&[(SELVEDGE_TAGS, nonsense)]).is_overflowing(), "{nonsense}");
        }
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
