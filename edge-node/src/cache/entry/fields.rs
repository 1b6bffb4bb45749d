//! The fields of a stored response, in one block of just their size: their lines as HTTP/1.1 sends them, which a hit copies as they are, and behind those a place for each
//! line. A map of them, for other protocols and for whoever changes them, shares the block's bytes.
//!
//! ```text
//! lines:   "name: value\r\n", in the order in which they came, those of Content-Length last
//! places:  for each line the number of its name (see [`super::names`]; the highest bit: its value is sensitive) u8, and where it ends: u16 where that is enough for all,
//!          else u32
//! ```

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};

use super::names;
use crate::cache::lines::Lines;

/// What is between a name and its value, and behind a value. No name and no value can have either in it.
const COLON: &[u8] = b": ";
const LINE_END: &[u8] = b"\r\n";
const SENSITIVE: u8 = 0x80;
/// What the block needs beside its bytes: the counts of those who share it, and the allocator's own.
const BLOCK_OVERHEAD_BYTES: usize = 16 + 16;

/// Fields, never changed.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredFields {
    block: Arc<[u8]>,
    /// Bytes of all lines.
    lines_len: u32,
    /// Bytes of those before `Content-Length`.
    shared_len: u32,
}

/// One line.
struct Line<'a> {
    /// Its name, where that is in the table.
    known: Option<&'static HeaderName>,
    is_sensitive: bool,
    /// Where it begins in the block.
    at: usize,
    /// Without its end.
    text: &'a [u8],
}

impl StoredFields {
    /// All of these, but for those `left_out`.
    pub fn new(headers: &HeaderMap, left_out: &[HeaderName]) -> Self {
        let kept = || headers.iter().filter(|(name, _)| !left_out.contains(name));
        let is_length = |name: &HeaderName| *name == CONTENT_LENGTH;
        let bytes: usize = kept().map(|(name, value)| line_len(name, value)).sum();
        let place_len = place_len(bytes);
        let mut block = Vec::with_capacity(bytes + headers.len() * place_len);
        let mut places = Vec::with_capacity(headers.len() * place_len);
        let (mut lines_len, mut shared_len) = (0, 0);
        // A head of 4 GiB does not come this far.
        let fits = u32::try_from(bytes).is_ok();
        let ordered = kept().filter(|(name, _)| !is_length(name)).chain(kept().filter(|(name, _)| is_length(name)));
        for (name, value) in ordered.filter(|_| fits) {
            for part in [name.as_str().as_bytes(), COLON, value.as_bytes(), LINE_END] {
                block.extend_from_slice(part);
            }
            let end = block.len() as u32;
            places.push(names::number(name) | if value.is_sensitive() { SENSITIVE } else { 0 });
            places.extend(end.to_le_bytes().iter().take(place_len - 1));
            lines_len = end;
            shared_len = if is_length(name) { shared_len } else { end };
        }
        block.extend_from_slice(&places);
        Self { block: block.into(), lines_len, shared_len }
    }

    /// Their lines, each with its end, without `Content-Length`.
    pub(crate) fn lines_without_length(&self) -> &[u8] {
        self.block.get(..self.shared_len as usize).unwrap_or_default()
    }

    /// Names and values of all lines.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.walk().map(|line| (line.name(), line.value()))
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.places().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A map of them, in which there is room for so many more. Their values share the block.
    pub fn to_map(&self, more: usize) -> HeaderMap {
        let block = Bytes::from_owner(self.block.clone());
        let mut map = HeaderMap::try_with_capacity(self.len() + more).unwrap_or_default();
        for line in self.walk() {
            let name_len = line.name_len();
            // What was a name is one, and so is a value.
            let other = || line.text.get(..name_len).and_then(|name| HeaderName::from_lowercase(name).ok());
            let Some(name) = line.known.cloned().or_else(other) else { continue };
            let value_at = (name_len + COLON.len()).min(line.text.len());
            let value = block.slice(line.at + value_at..line.at + line.text.len());
            let Ok(mut value) = HeaderValue::from_maybe_shared(value) else { continue };
            value.set_sensitive(line.is_sensitive);
            // A map that held them all had room for them.
            let _ = map.try_append(name, value);
        }
        map
    }

    /// Bytes that they take.
    pub fn weight(&self) -> usize {
        self.block.len() + BLOCK_OVERHEAD_BYTES
    }

    fn places(&self) -> std::slice::ChunksExact<'_, u8> {
        let lines_len = self.lines_len as usize;
        self.block.get(lines_len..).unwrap_or_default().chunks_exact(place_len(lines_len))
    }

    fn walk(&self) -> impl Iterator<Item = Line<'_>> {
        let mut at = 0;
        self.places().filter_map(move |place| {
            let (place, end) = place.split_first()?;
            let end = end.iter().rev().fold(0, |end, byte| end << 8 | usize::from(*byte));
            let begin = std::mem::replace(&mut at, end);
            let text = self.block.get(begin..end.checked_sub(LINE_END.len())?)?;
            Some(Line { known: names::known(place & !SENSITIVE), is_sensitive: place & SENSITIVE != 0, at: begin, text })
        })
    }
}

impl Lines for StoredFields {
    fn all<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.walk().filter(|line| line.is_of(name)).map(|line| line.value())
    }

    fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        self.walk().find(|line| line.is_of(name)).map(|line| line.value())
    }
}

impl std::fmt::Debug for StoredFields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |(name, value): (&[u8], &[u8])| (name.escape_ascii().to_string(), value.escape_ascii().to_string());
        f.debug_map().entries(self.iter().map(shown)).finish()
    }
}

impl<'a> Line<'a> {
    fn is_of(&self, name: &HeaderName) -> bool {
        match self.known {
            Some(known) => known == name,
            None => self.text.strip_prefix(name.as_str().as_bytes()).is_some_and(|rest| rest.starts_with(COLON)),
        }
    }

    fn name_len(&self) -> usize {
        match self.known {
            Some(known) => known.as_str().len(),
            None => memchr::memchr(b':', self.text).unwrap_or(self.text.len()),
        }
    }

    fn name(&self) -> &'a [u8] {
        self.text.get(..self.name_len()).unwrap_or_default()
    }

    fn value(&self) -> &'a [u8] {
        self.text.get(self.name_len() + COLON.len()..).unwrap_or_default()
    }
}

/// Bytes of a place, where all lines have so many.
fn place_len(lines_len: usize) -> usize {
    if lines_len <= usize::from(u16::MAX) { 3 } else { 5 }
}

fn line_len(name: &HeaderName, value: &HeaderValue) -> usize {
    name.as_str().len() + COLON.len() + value.len() + LINE_END.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::headers;

    /// The lines that HTTP/1.1 sends of a map, in its order, those of `Content-Length` last.
    fn lines(map: &HeaderMap) -> Vec<(Vec<u8>, Vec<u8>)> {
        let line = |(name, value): (&HeaderName, &HeaderValue)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec());
        let mut lines: Vec<_> = map.iter().map(line).collect();
        lines.sort_by_key(|(name, _)| name == b"content-length");
        lines
    }

    /// That a map is read as it was written, by each of the ways to read it.
    fn round(map: &HeaderMap) -> StoredFields {
        let stored = StoredFields::new(map, &[]);
        assert_eq!(&stored.to_map(2), map);
        assert_eq!(lines(&stored.to_map(0)), lines(map), "the order is the same");
        let read: Vec<_> = stored.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        assert_eq!(read, lines(map));
        assert_eq!((stored.len(), stored.is_empty()), (map.len(), map.is_empty()));
        let text: Vec<u8> = lines(map)
            .into_iter()
            .filter(|(name, _)| name != b"content-length")
            .flat_map(|(name, value)| [name, b": ".to_vec(), value, b"\r\n".to_vec()].concat())
            .collect();
        assert_eq!(stored.lines_without_length().escape_ascii().to_string(), text.escape_ascii().to_string());
        for name in map.keys() {
            assert_eq!(stored.first(name), map.first(name), "{name}");
            assert!(stored.all(name).eq(map.all(name)), "{name}");
            assert_eq!(stored.to_map(0).get(name).map(HeaderValue::is_sensitive), map.get(name).map(HeaderValue::is_sensitive), "{name}");
        }
        for name in ["x", "x-", "x-a-b", "etag-", "te", "age", "set-cookie2", "content-length"] {
            let name = HeaderName::from_static(name);
            assert_eq!((stored.has(&name), stored.first(&name)), (map.contains_key(&name), map.first(&name)), "{name}");
        }
        assert_eq!(StoredFields::new(&stored.to_map(0), &[]), stored);
        stored
    }

    #[test]
    fn fields_are_read_as_they_were_written() {
        round(&headers(&[]));
        round(&headers(&[("content-length", "5")]));
        round(&headers(&[("x-a", ""), ("etag", ""), ("vary", "")]));
        round(&headers(&[("content-length", "5"), ("date", "x"), ("x-a", "1"), ("x-a-b", "2"), ("x", "3")]));
        round(&headers(&[("x-a", ": "), ("x-b", "x-a: 1"), ("set-cookie", "etag: 2:"), ("x-c", ":")]));
    }

    #[test]
    fn several_lines_of_a_name_stay_apart_and_in_order() {
        let fields = [("set-cookie", "a=1"), ("x-a", "1"), ("set-cookie", "b=2"), ("x-a", ""), ("x-a", "1"), ("content-length", "1")];
        let stored = round(&headers(&fields));
        assert!(stored.all(&http::header::SET_COOKIE).eq([b"a=1", b"b=2"]));
        let twice = round(&headers(&[("content-length", "1"), ("content-length", "2"), ("via", "1")]));
        assert_eq!(twice.lines_without_length(), b"via: 1\r\n");
    }

    #[test]
    fn what_is_long_or_many_or_no_text_is_read_as_it_was_written() {
        let mut map = HeaderMap::new();
        for length in [0, 1, 255, 256, 65_534, 65_535, 65_536, 300_000] {
            let name = HeaderName::try_from(format!("x-{length}")).unwrap();
            map.insert(name, HeaderValue::try_from("v".repeat(length)).unwrap());
        }
        let every: Vec<u8> = (0..=255).filter(|byte| *byte == b'\t' || *byte >= 32 && *byte != 127).collect();
        map.insert(http::header::SERVER, HeaderValue::from_bytes(&every).unwrap());
        map.insert(HeaderName::from_static("x-bytes"), HeaderValue::from_bytes(&every).unwrap());
        map.insert(HeaderName::try_from("!#$%&'*+-.^_`|~0z").unwrap(), HeaderValue::from_static("odd"));
        map.insert(HeaderName::try_from("n".repeat(65_000)).unwrap(), HeaderValue::from_static("long"));
        for number in 0..200 {
            map.insert(HeaderName::try_from(format!("x-field-{number}")).unwrap(), HeaderValue::from(number));
        }
        round(&map);
    }

    #[test]
    fn places_are_small_as_long_as_that_is_enough() {
        for length in 65_500..65_560 {
            let value = HeaderValue::try_from("v".repeat(length)).unwrap();
            let mut map = headers(&[("x-b", "1"), ("content-length", "1")]);
            map.insert("x-a", value);
            let stored = round(&map);
            let lines: usize = map.iter().map(|(name, value)| line_len(name, value)).sum();
            assert_eq!(stored.block.len(), lines + 3 * if lines < 1 << 16 { 3 } else { 5 });
        }
    }

    #[test]
    fn what_is_sensitive_stays_so() {
        let mut map = headers(&[("x-a", "1"), ("etag", "\"a\"")]);
        for (name, value) in [("set-cookie", "secret"), ("x-b", "secret"), ("content-length", "1")] {
            let mut value = HeaderValue::from_static(value);
            value.set_sensitive(true);
            map.insert(name, value);
        }
        let stored = round(&map);
        assert_eq!(stored.to_map(0).values().filter(|value| value.is_sensitive()).count(), 3);
    }

    #[test]
    fn what_is_left_out_is_not_there_and_the_others_keep_their_order() {
        let map = headers(&[("x-a", "1"), ("age", "7"), ("x-b", "2"), ("age", "8"), ("via", "3")]);
        let stored = StoredFields::new(&map, &[http::header::AGE]);
        assert_eq!(stored.lines_without_length(), b"x-a: 1\r\nx-b: 2\r\nvia: 3\r\n");
        assert!(!stored.has(&http::header::AGE));
    }

    #[test]
    fn the_values_of_a_map_share_the_block() {
        let stored = StoredFields::new(&headers(&[("x-a", "1"), ("etag", "\"a\"")]), &[]);
        let map = stored.to_map(0);
        let block = stored.block.as_ptr_range();
        assert!(map.values().all(|value| block.contains(&value.as_bytes().as_ptr())));
        assert_eq!(Arc::strong_count(&stored.block), 2);
    }
}
