//! The bytes of a stored response's head: the one encoding of an entry outside of memory. Pure; takes any bytes, and allocates no more than it is given.
//!
//! ```text
//! version u8 · key · status u16 · lifetime, initial age, received u64 each (milliseconds) · number and realm of the purge before its fetch u64 each
//! variant:  number of fields u16 (0xffff: varies on nothing), for each its name, then 0 or 1 and its value
//! body:     0 (in the same record), or 1 and its number and length, u64 each (in slices of their own)
//! part:     0, or 1 and the number of its first byte u64, or 2, that, and bytes of the whole u64
//! tags:     0 or 1 (there were more), number u16, u64 each; texts of the first ones (version 1 has none)
//! control:  flags u16, six times u32 (one more than the seconds, or 0 for none)   (versions 1 and 2 have none)
//! fields:   number u16, for each its name and its value
//! ```
//!
//! A name, value, key or text is its length (u32) and its bytes. The directives are those that it was stored by: a worker may have wished for others than its fields say. Of
//! versions that have none they are read from the fields. Its tags are not among those any more.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::record::META_BYTES_MAX;
use crate::cache::control::{Control, Seconds};
use crate::cache::entry::{Entry, StoredBody};
use crate::cache::freshness::Freshness;
use crate::cache::part::Part;
use crate::cache::purge::{Purgeable, Realm, Stamp};
use crate::cache::tags::Tags;
use crate::cache::time::Time;
use crate::cache::vary::{VARY_FIELDS_MAX, Variant};

const VERSION: u8 = 3;
/// Directives are those of the fields.
const VERSION_WITHOUT_CONTROL: u8 = 2;
/// Tags are hashes only.
const VERSION_WITHOUT_TEXTS: u8 = 1;
const VARIES_ON_NOTHING: u16 = u16::MAX;

/// Where a response's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyPlace {
    /// Behind its head, in the same record.
    Here,
    /// In slices of their own.
    Sliced {
        /// The number of the body.
        body: u64,
        /// Its length, in bytes.
        len: u64,
    },
}

/// A decoded head.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) key: Bytes,
    pub(super) body: BodyPlace,
    pub(super) variant: Variant,
    status: StatusCode,
    freshness: Freshness,
    stamp: Stamp,
    part: Option<Part>,
    tags: Tags,
    control: Option<Control>,
    fields: HeaderMap,
}

/// Why bytes are not a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    #[error("it ends too early")]
    Short,
    #[error("unknown version {0}")]
    Version(u8),
    #[error("bad {0}")]
    Bad(&'static str),
}

/// The bytes for an entry; none where there would be too many.
pub(super) fn encode(key: &[u8], entry: &Entry, body: BodyPlace) -> Option<Vec<u8>> {
    let mut out = Writer(Vec::with_capacity(512));
    out.0.push(VERSION);
    out.text(key);
    out.0.extend_from_slice(&entry.status.as_u16().to_le_bytes());
    let (freshness, stamp) = (&entry.freshness, entry.purgeable.stamp);
    for number in [freshness.lifetime_ms, freshness.initial_age_ms, freshness.received.0, stamp.number, stamp.realm.0] {
        out.0.extend_from_slice(&number.to_le_bytes());
    }
    match entry.variant.names() {
        None => out.0.extend_from_slice(&VARIES_ON_NOTHING.to_le_bytes()),
        Some(names) => {
            out.0.extend_from_slice(&(names.len() as u16).to_le_bytes());
            for (name, value) in names.iter().zip(entry.variant.values()) {
                out.text(name.as_str().as_bytes());
                out.0.push(value.is_some().into());
                if let Some(value) = value {
                    out.text(value);
                }
            }
        }
    }
    match body {
        BodyPlace::Here => out.0.push(0),
        BodyPlace::Sliced { body, len } => {
            out.0.push(1);
            out.0.extend_from_slice(&body.to_le_bytes());
            out.0.extend_from_slice(&len.to_le_bytes());
        }
    }
    match entry.part() {
        None => out.0.push(0),
        Some(Part { first, total }) => {
            out.0.push(1 + u8::from(total.is_some()));
            out.0.extend_from_slice(&first.to_le_bytes());
            out.0.extend(total.into_iter().flat_map(u64::to_le_bytes));
        }
    }
    let tags = &entry.purgeable.tags;
    out.0.push(tags.is_overflowing().into());
    out.0.extend_from_slice(&u16::try_from(tags.names().len()).ok()?.to_le_bytes());
    tags.names().iter().for_each(|tag| out.0.extend_from_slice(&tag.0.to_le_bytes()));
    out.text(tags.texts_stored());
    out.control(entry.control);
    let count = u16::try_from(entry.fields().len()).ok()?;
    out.0.extend_from_slice(&count.to_le_bytes());
    for (name, value) in entry.fields().iter() {
        out.text(name);
        out.text(value);
    }
    (out.0.len() <= META_BYTES_MAX).then_some(out.0)
}

/// Reads a head. The values of its fields share the bytes.
pub(super) fn decode(meta: Bytes) -> Result<Decoded, DecodeError> {
    let mut input = Reader { all: meta, at: 0 };
    let [version] = input.array()?;
    if ![VERSION, VERSION_WITHOUT_CONTROL, VERSION_WITHOUT_TEXTS].contains(&version) {
        return Err(DecodeError::Version(version));
    }
    let key = input.text()?;
    let status = StatusCode::from_u16(u16::from_le_bytes(input.array()?)).map_err(|_| DecodeError::Bad("status"))?;
    let freshness = Freshness { lifetime_ms: input.number()?, initial_age_ms: input.number()?, received: Time(input.number()?) };
    let stamp = Stamp { number: input.number()?, realm: Realm(input.number()?) };
    let variant = variant(&mut input)?;
    let body = match input.array()? {
        [0] => BodyPlace::Here,
        [1] => BodyPlace::Sliced { body: input.number()?, len: input.number()? },
        _ => return Err(DecodeError::Bad("place of the body")),
    };
    let part = match input.array()? {
        [0] => None,
        [1] => Some(Part { first: input.number()?, total: None }),
        [2] => Some(Part { first: input.number()?, total: Some(input.number()?) }),
        _ => return Err(DecodeError::Bad("part")),
    };
    let tags = match (tags(&mut input)?, version) {
        (tags, VERSION_WITHOUT_TEXTS) => tags,
        (tags, _) => tags.with_texts(&input.text()?),
    };
    let control = if version == VERSION { Some(input.control()?) } else { None };
    let mut fields = HeaderMap::new();
    for _ in 0..u16::from_le_bytes(input.array()?) {
        let (name, value) = (input.name()?, input.text()?);
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| DecodeError::Bad("field value"))?;
        fields.try_append(name, value).map_err(|_| DecodeError::Bad("number of fields"))?;
    }
    if input.at != input.all.len() {
        return Err(DecodeError::Bad("end"));
    }
    Ok(Decoded { key, body, variant, status, freshness, stamp, part, tags, control, fields })
}

impl Decoded {
    /// The entry, with its bytes.
    pub(super) fn into_entry(self, body: StoredBody) -> Entry {
        let mut head = Response::new(()).into_parts().0;
        (head.status, head.headers) = (self.status, self.fields);
        let control = self.control.unwrap_or_else(|| Control::of_response(&head.headers));
        let mut entry = Entry::new(head, body, control, self.freshness, self.variant, self.stamp);
        entry.purgeable = Purgeable::new(self.stamp, self.tags);
        entry.lies(self.part)
    }
}

fn tags(input: &mut Reader) -> Result<Tags, DecodeError> {
    let [overflow] = input.array()?;
    let mut tags = Vec::new();
    for _ in 0..u16::from_le_bytes(input.array()?) {
        tags.push(input.number()?);
    }
    Ok(Tags::restored(tags, overflow != 0))
}

fn variant(input: &mut Reader) -> Result<Variant, DecodeError> {
    let count = u16::from_le_bytes(input.array()?);
    if count == VARIES_ON_NOTHING {
        return Ok(Variant::default());
    }
    if count as usize > VARY_FIELDS_MAX {
        return Err(DecodeError::Bad("number of fields that it varies on"));
    }
    let mut names = Vec::new();
    let mut values = Vec::new();
    for _ in 0..count {
        names.push(input.name()?);
        values.push(match input.array()? {
            [0] => None,
            [1] => Some(Box::from(input.text()?.as_ref())),
            _ => return Err(DecodeError::Bad("value that it varies on")),
        });
    }
    Ok(Variant::stored(names.into(), values.into()))
}

/// The directives without a number, each at its bit.
fn flags(control: &mut Control) -> [&mut bool; 11] {
    let Control { no_store, no_cache, private, public, must_revalidate, proxy_revalidate, .. } = control;
    let Control { must_understand, no_transform, immutable, only_if_cached, targeted, .. } = control;
    [
        no_store,
        no_cache,
        private,
        public,
        must_revalidate,
        proxy_revalidate,
        must_understand,
        no_transform,
        immutable,
        only_if_cached,
        targeted,
    ]
}

/// The directives with a number of seconds, in order.
fn seconds(control: &mut Control) -> [&mut Option<Seconds>; 6] {
    let Control { max_age, s_maxage, stale_while_revalidate, stale_if_error, min_fresh, max_stale, .. } = control;
    [max_age, s_maxage, stale_while_revalidate, stale_if_error, min_fresh, max_stale]
}

struct Writer(Vec<u8>);

impl Writer {
    fn control(&mut self, mut control: Control) {
        let bits = flags(&mut control).iter().enumerate().fold(0_u16, |bits, (at, flag)| bits | (u16::from(**flag) << at));
        self.0.extend_from_slice(&bits.to_le_bytes());
        for seconds in seconds(&mut control) {
            let number = seconds.map_or(0, |seconds| u32::try_from(seconds.get() + 1).unwrap_or(u32::MAX));
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn text(&mut self, text: &[u8]) {
        self.0.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.0.extend_from_slice(text);
    }
}

struct Reader {
    all: Bytes,
    at: usize,
}

impl Reader {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let array = *self.all.get(self.at..).and_then(<[u8]>::first_chunk).ok_or(DecodeError::Short)?;
        self.at += N;
        Ok(array)
    }

    fn control(&mut self) -> Result<Control, DecodeError> {
        let mut control = Control::default();
        let mut left = u16::from_le_bytes(self.array()?);
        for flag in flags(&mut control) {
            (*flag, left) = (left & 1 == 1, left >> 1);
        }
        if left != 0 {
            return Err(DecodeError::Bad("directives"));
        }
        for seconds in seconds(&mut control) {
            *seconds = u32::from_le_bytes(self.array()?).checked_sub(1).map(|number| Seconds::new(number.into()));
        }
        Ok(control)
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<Bytes, DecodeError> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        let end = self.at.checked_add(length).filter(|end| *end <= self.all.len()).ok_or(DecodeError::Short)?;
        let text = self.all.slice(self.at..end);
        self.at = end;
        Ok(text)
    }

    fn name(&mut self) -> Result<HeaderName, DecodeError> {
        HeaderName::from_lowercase(&self.text()?).map_err(|_| DecodeError::Bad("field name"))
    }
}

/// Decodes any bytes; what is a head is encoded again, and must then be read as the same.
pub(super) fn fuzz(bytes: &[u8]) {
    let Ok(decoded) = decode(Bytes::copy_from_slice(bytes)) else { return };
    let (key, body) = (decoded.key.clone(), decoded.body);
    let entry = decoded.into_entry(StoredBody::new(&[]));
    let Some(again) = encode(&key, &entry, body) else { return };
    let again = decode(again.into()).map(|again| (again.key.clone(), again.body, again.into_entry(StoredBody::new(&[]))));
    let Ok((key_again, body_again, entry_again)) = again else { panic!("not read as written: {again:?}") };
    assert_eq!((key, body, entry.status, entry.freshness), (key_again, body_again, entry_again.status, entry_again.freshness));
    assert_eq!((entry.purgeable.stamp, &entry.purgeable.tags), (entry_again.purgeable.stamp, &entry_again.purgeable.tags));
    assert_eq!(entry.fields(), entry_again.fields());
    assert_eq!((entry.part(), entry.control), (entry_again.part(), entry_again.control));
    assert!(entry.variant.same(&entry_again.variant));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cache::tests::{entry, varied};

    fn round(entry: &Entry, body: BodyPlace) -> Entry {
        let decoded = decode(encode(b"key", entry, body).expect("a head").into()).expect("a head");
        assert_eq!((decoded.key.as_ref(), decoded.body), (&b"key"[..], body));
        decoded.into_entry(entry.body.clone())
    }

    #[test]
    fn an_entry_is_read_as_written() {
        let plain = entry(b"abc");
        let varied = varied(
            b"abc",
            &[
                ("vary", "accept, x-a"),
                ("cache-tag", "a, B"),
                ("surrogate-key", "c"),
                ("cache-control", "max-age=60, no-cache"),
                ("cache-status", "other; hit"),
                ("x-b", "1"),
            ],
            &[("accept", "text/html, */*")],
        );
        for (entry, body) in [(plain, BodyPlace::Here), (varied, BodyPlace::Sliced { body: 7, len: 1 << 40 })] {
            let again = round(&entry, body);
            assert_eq!((again.status, again.freshness, again.control), (entry.status, entry.freshness, entry.control));
            assert_eq!(again.fields(), entry.fields());
            assert!(again.variant.same(&entry.variant));
            assert_eq!(again.purgeable.tags, entry.purgeable.tags);
        }
    }

    /// Where the directives are.
    fn control_of(bytes: &[u8], entry: &Entry) -> std::ops::Range<usize> {
        let fields: usize = entry.fields().iter().map(|(name, value)| 8 + name.len() + value.len()).sum();
        let end = bytes.len() - fields - 2;
        end - 26..end
    }

    #[test]
    fn entries_of_the_versions_before_are_read_with_what_their_fields_say_and_without_the_texts_of_tags() {
        let entry = varied(b"abc", &[("cache-tag", "first,second"), ("cache-control", "public, max-age=60")], &[]);
        let mut bytes = encode(b"key", &entry, BodyPlace::Here).expect("a head");
        bytes.drain(control_of(&bytes, &entry));
        bytes[0] = VERSION_WITHOUT_CONTROL;
        let again = decode(bytes.clone().into()).expect("a head").into_entry(entry.body.clone());
        assert_eq!(again.control, entry.control);
        assert_eq!(again.purgeable.tags.texts().collect::<Vec<_>>(), [b"first".as_slice(), b"second"]);
        let texts = b"\x0c\0\0\0first\nsecond";
        let at = bytes.windows(texts.len()).position(|window| window == texts).expect("the texts");
        bytes.drain(at..at + texts.len());
        bytes[0] = VERSION_WITHOUT_TEXTS;
        let again = decode(bytes.into()).expect("a head").into_entry(entry.body.clone()).purgeable.tags;
        assert_eq!((again.names(), again.texts().count()), (entry.purgeable.tags.names(), 0));
    }

    #[test]
    fn what_it_was_stored_by_is_read_as_written_also_where_its_fields_say_otherwise() {
        let mut entry = Arc::into_inner(varied(b"abc", &[("cache-control", "no-cache")], &[])).expect("nobody else has it");
        for at in 0..11 {
            entry.control = Control { max_age: Some(Seconds::new(3600)), max_stale: Some(Seconds::new(0)), ..Control::default() };
            *flags(&mut entry.control)[at] = true;
            assert_eq!(round(&entry, BodyPlace::Here).control, entry.control);
        }
        let mut bytes = encode(b"key", &entry, BodyPlace::Here).expect("a head");
        let at = control_of(&bytes, &entry).start + 1;
        bytes[at] |= 0x80;
        assert_eq!(decode(bytes.into()).err(), Some(DecodeError::Bad("directives")));
    }

    #[test]
    fn what_ends_early_or_goes_on_is_no_head() {
        let bytes = encode(b"key", &entry(b"abc"), BodyPlace::Here).expect("a head");
        for end in 0..bytes.len() {
            assert!(decode(Bytes::copy_from_slice(&bytes[..end])).is_err(), "{end} bytes");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(decode(longer.into()).err(), Some(DecodeError::Bad("end")));
        let mut other = bytes;
        other[0] = 9;
        assert_eq!(decode(other.into()).err(), Some(DecodeError::Version(9)));
    }
}
