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
pub fn flat_headers<'s>(scope: &mut v8::PinScope<'s, '_>, headers: &HeaderMap) -> v8::Local<'s, v8::Value> {
    let mut flat: Vec<v8::Local<'s, v8::Value>> = Vec::with_capacity(headers.len() * 2);
    for (name, value) in headers {
        let name = v8::String::new_from_one_byte(scope, name.as_str().as_bytes(), v8::NewStringType::Internalized);
        let value = v8::String::new_from_one_byte(scope, value.as_bytes(), v8::NewStringType::Normal);
        if let (Some(name), Some(value)) = (name, value) {
            flat.push(name.into());
            flat.push(value.into());
        }
    }
    v8::Array::new_with_elements(scope, &flat).into()
}

/// The field section of a flat array. JavaScript has validated it; this is the check that counts.
pub fn read_flat_headers(scope: &mut v8::PinScope<'_, '_>, flat: v8::Local<'_, v8::Value>) -> Result<HeaderMap, JsErrorBox> {
    let mut headers = HeaderMap::new();
    let Ok(flat) = v8::Local::<v8::Array>::try_from(flat) else {
        return Ok(headers);
    };
    let length = flat.length();
    if length > FIELDS_MAX * 2 {
        return Err(JsErrorBox::type_error(format!("more than {FIELDS_MAX} header fields")));
    }
    let mut bytes = Vec::with_capacity(64);
    let mut total = 0;
    for index in (0..length).step_by(2) {
        let name = one_byte(scope, flat, index, &mut bytes)
            .filter(|name| name.len() <= NAME_BYTES_MAX)
            .and_then(|name| HeaderName::from_bytes(name).ok())
            .ok_or_else(|| JsErrorBox::type_error("invalid header name"))?;
        let value = one_byte(scope, flat, index + 1, &mut bytes)
            .and_then(|value| HeaderValue::from_bytes(value).ok())
            .ok_or_else(|| JsErrorBox::type_error(format!("invalid value of header {name}")))?;
        total += name.as_str().len() + value.len();
        if total > FIELDS_BYTES_MAX {
            return Err(JsErrorBox::type_error(format!("more than {FIELDS_BYTES_MAX} bytes of header fields")));
        }
        headers.try_append(name, value).map_err(|_| JsErrorBox::type_error("too many header fields"))?;
    }
    Ok(headers)
}

fn one_byte<'b>(scope: &mut v8::PinScope<'_, '_>, flat: v8::Local<'_, v8::Array>, index: u32, bytes: &'b mut Vec<u8>) -> Option<&'b [u8]> {
    let value = flat.get_index(scope, index)?;
    let text = v8::Local::<v8::String>::try_from(value).ok()?;
    if !text.contains_only_onebyte() {
        return None;
    }
    bytes.clear();
    bytes.resize(text.length(), 0);
    text.write_one_byte_v2(scope, 0, bytes, v8::WriteFlags::empty());
    Some(bytes)
}
