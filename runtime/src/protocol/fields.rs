//! A field section as it crosses: names and values in order, checked for their lengths and not parsed. A runner makes strings of them when a
//! worker looks at them, which most never do.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;

use super::HEADERS_MAX;

/// Bytes before each field: the lengths of its name (2) and its value (4).
pub(super) const FIELD_PREFIX: usize = 6;

/// Names and values, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    count: u16,
    /// For each field the length of its name (2 bytes, little endian), the length of its value (4), the name, the value.
    section: Bytes,
}

impl Fields {
    /// What [`super::reader::Reader::fields`] has checked.
    pub(super) fn checked(count: u16, section: Bytes) -> Self {
        Self { count, section }
    }

    /// Room for so many bytes, to [`FieldsMut::push`] into.
    pub fn with_capacity(bytes: usize) -> FieldsMut {
        FieldsMut { count: 0, section: BytesMut::with_capacity(bytes) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count.into()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.section[..];
        std::iter::from_fn(move || {
            let (name_len, after) = rest.split_first_chunk()?;
            let (value_len, after) = after.split_first_chunk()?;
            let (name, after) = after.split_at_checked(u16::from_le_bytes(*name_len).into())?;
            let (value, after) = after.split_at_checked(u32::from_le_bytes(*value_len) as usize)?;
            rest = after;
            Some((name, value))
        })
    }

    /// The value of the first field with this name, in lower case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(other, _)| *other == name.as_bytes()).map(|(_, value)| value)
    }

    pub(super) fn section(&self) -> &[u8] {
        &self.section
    }
}

impl From<&HeaderMap> for Fields {
    fn from(headers: &HeaderMap) -> Self {
        let mut fields = Self::with_capacity(headers.len() * 48);
        headers.iter().for_each(|(name, value)| fields.push(name.as_str(), value.as_bytes()));
        fields.freeze()
    }
}

/// [`Fields`] in the making.
#[derive(Debug, Default)]
pub struct FieldsMut {
    count: usize,
    section: BytesMut,
}

impl FieldsMut {
    /// Appends one. A name in lower case and a value that are what RFC 9110 allows; lengths are checked when the fields are sent.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        let (Ok(name_len), Ok(value_len)) = (u16::try_from(name.len()), u32::try_from(value.len())) else {
            // Refused when it is sent, as is any other that is too long.
            self.count = HEADERS_MAX + 1;
            return;
        };
        self.count += 1;
        self.section.reserve(FIELD_PREFIX + name.len() + value.len());
        self.section.put_u16_le(name_len);
        self.section.put_u32_le(value_len);
        self.section.put_slice(name.as_bytes());
        self.section.put_slice(value);
    }

    /// All of them.
    pub fn freeze(self) -> Fields {
        // More than the bound are as bad as any number beyond it.
        Fields { count: u16::try_from(self.count).unwrap_or(u16::MAX), section: self.section.freeze() }
    }
}
