//! Header fields as they cross between Rust and JavaScript: one flat array of names and values.

use deno_core::v8;
use deno_error::JsErrorBox;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields that one head may have. Beyond it the codecs of every protocol refuse the head anyway.
const FIELDS_MAX: u32 = 512;
/// Bytes of all names and values of one head, likewise.
pub const FIELDS_BYTES_MAX: usize = 256 << 10;
/// Bytes of a name, likewise.
const NAME_BYTES_MAX: usize = 1024;

/// A flat array `[name, value, ...]` of a field section. Values are read as Latin-1 (fetch's byte strings).
pub fn flat_headers<'s, 'f>(
    scope: &mut v8::PinScope<'s, '_>,
    fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
) -> v8::Local<'s, v8::Value> {
    let mut flat: Vec<v8::Local<'s, v8::Value>> = Vec::with_capacity(32);
    for (name, value) in fields {
        let name = v8::String::new_from_one_byte(scope, name, v8::NewStringType::Internalized);
        let value = v8::String::new_from_one_byte(scope, value, v8::NewStringType::Normal);
        if let (Some(name), Some(value)) = (name, value) {
            flat.push(name.into());
            flat.push(value.into());
        }
    }
    v8::Array::new_with_elements(scope, &flat).into()
}

/// The fields of a flat array, as bytes one after the other.
#[derive(Default)]
pub struct FieldList {
    bytes: Vec<u8>,
    /// Where each field's name begins, where its value does, and where that ends.
    places: Vec<(usize, usize, usize)>,
}

impl FieldList {
    /// Reads a flat array. JavaScript has validated it; this is the check that counts.
    pub fn read(scope: &mut v8::PinScope<'_, '_>, flat: v8::Local<'_, v8::Value>) -> Result<Self, JsErrorBox> {
        let Ok(flat) = v8::Local::<v8::Array>::try_from(flat) else { return Ok(Self::default()) };
        let length = flat.length();
        if length > FIELDS_MAX * 2 {
            return Err(JsErrorBox::type_error(format!("more than {FIELDS_MAX} header fields")));
        }
        let mut list = Self { bytes: Vec::with_capacity(256), places: Vec::with_capacity(length as usize / 2) };
        for index in (0..length).step_by(2) {
            let start = list.bytes.len();
            let name = list.append(scope, flat, index).filter(|name| is_name(name));
            let middle = name.map(|name| start + name.len()).ok_or_else(|| JsErrorBox::type_error("invalid header name"))?;
            let value = list.append(scope, flat, index + 1).filter(|value| value.iter().all(|b| is_of_value(*b)));
            let end = value.map(|value| middle + value.len()).ok_or_else(|| list.bad_value(start, middle))?;
            if end > FIELDS_BYTES_MAX {
                return Err(JsErrorBox::type_error(format!("more than {FIELDS_BYTES_MAX} bytes of header fields")));
            }
            list.places.push((start, middle, end));
        }
        Ok(list)
    }

    /// Appends a string of the array; none where it is no string of bytes.
    fn append(&mut self, scope: &mut v8::PinScope<'_, '_>, flat: v8::Local<'_, v8::Array>, index: u32) -> Option<&[u8]> {
        let value = flat.get_index(scope, index)?;
        let text = v8::Local::<v8::String>::try_from(value).ok()?;
        if !text.contains_only_onebyte() {
            return None;
        }
        let start = self.bytes.len();
        self.bytes.resize(start + text.length(), 0);
        let place = self.bytes.get_mut(start..)?;
        text.write_one_byte_v2(scope, 0, place, v8::WriteFlags::empty());
        Some(place)
    }

    fn bad_value(&self, start: usize, middle: usize) -> JsErrorBox {
        let name = String::from_utf8_lossy(self.bytes.get(start..middle).unwrap_or_default());
        JsErrorBox::type_error(format!("invalid value of header {name}"))
    }

    /// Each name and value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        let part = |from, to| self.bytes.get(from..to).unwrap_or_default();
        self.places.iter().map(move |(start, middle, end)| (part(*start, *middle), part(*middle, *end)))
    }

    /// Appends one.
    pub fn push(&mut self, name: &HeaderName, value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name.as_str().as_bytes());
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.places.push((start, middle, self.bytes.len()));
    }

    /// Takes out the fields with this name, in lower case.
    pub fn remove(&mut self, name: &HeaderName) {
        let Self { bytes, places } = self;
        places.retain(|(start, middle, _)| bytes.get(*start..*middle) != Some(name.as_str().as_bytes()));
    }

    /// As a map.
    pub fn into_map(self) -> Result<HeaderMap, JsErrorBox> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.iter() {
            let field = HeaderName::from_bytes(name).ok().zip(HeaderValue::from_bytes(value).ok());
            let (name, value) = field.ok_or_else(|| JsErrorBox::type_error("invalid header field"))?;
            headers.try_append(name, value).map_err(|_| JsErrorBox::type_error("too many header fields"))?;
        }
        Ok(headers)
    }
}

/// RFC 9110, section 5.6.2; in lower case, as JavaScript has made it.
fn is_name(name: &[u8]) -> bool {
    let is_of_name = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9') || b"!#$%&'*+-.^_`|~".contains(b);
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.iter().all(is_of_name)
}

/// RFC 9110, section 5.5, and what is obsolete there.
fn is_of_value(b: u8) -> bool {
    b == b'\t' || (b >= b' ' && b != 0x7f)
}
