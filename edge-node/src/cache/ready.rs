//! A stored response on its way to a client, as it is: all that differs from one client to the next are two fields. HTTP/1.1 sends the others as they were
//! stored; other protocols make a response of it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AGE, CONTENT_LENGTH, HeaderValue};
use http::{Response, StatusCode};
use selvedge_runtime::Body;

use super::entry::{Entry, FIELDS_OF_A_HIT};
use super::status::{CACHE_STATUS, push_decimal};
use super::time::Time;

/// The whole of a stored response, whose bytes are in memory in one piece.
#[derive(Debug)]
pub struct Ready {
    entry: Arc<Entry>,
    age_s: u64,
    cache_status: HeaderValue,
    body: Bytes,
}

impl Ready {
    /// Of a stored response; none where it takes more than its two fields to send it.
    pub fn new(entry: &Arc<Entry>, now: Time, cache_status: HeaderValue) -> Option<Self> {
        let bodiless = entry.status.is_informational() || matches!(entry.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if entry.part().is_some() || entry.has_foreign_status() || bodiless {
            return None;
        }
        let body = entry.body.one_piece()?.clone();
        let age_s = entry.freshness.age_ms(now) / 1000;
        Some(Self { entry: entry.clone(), age_s, cache_status, body })
    }

    /// The same without its bytes, for HEAD.
    pub fn without_body(mut self) -> Self {
        self.body = Bytes::new();
        self
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.entry.status
    }

    /// Bytes that are sent of it.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Writes its fields, `Content-Length` and `Date` among them, each with its line's end.
    pub fn write_fields(&self, out: &mut Vec<u8>) {
        let lines = self.entry.fields().lines_without_length();
        out.reserve(lines.len() + self.cache_status.len() + self.body.len() + 256);
        out.extend_from_slice(lines);
        out.extend_from_slice(b"content-length: ");
        push_decimal(out, self.entry.body.len());
        out.extend_from_slice(b"\r\nage: ");
        push_decimal(out, self.age_s);
        out.extend_from_slice(b"\r\ncache-status: ");
        out.extend_from_slice(self.cache_status.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// The same as a response.
    pub fn into_response(self) -> Response<Body> {
        let mut headers = self.entry.fields().to_map(FIELDS_OF_A_HIT);
        headers.insert(AGE, HeaderValue::from(self.age_s));
        headers.insert(CACHE_STATUS, self.cache_status);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.entry.body.len()));
        let mut response = Response::new(Body::full(self.body));
        (*response.status_mut(), *response.headers_mut()) = (self.entry.status, headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::entry;

    #[test]
    fn what_is_written_is_what_the_response_has() {
        let entry = entry(b"hello");
        let now = entry.freshness.received.plus_ms(12_345_000);
        let ready = || Ready::new(&entry, now, HeaderValue::from_static("n; hit; ttl=9")).unwrap();
        for _ in 0..2 {
            let mut out = Vec::new();
            ready().write_fields(&mut out);
            let text = String::from_utf8(out).unwrap();
            let mut written: Vec<_> = text.lines().map(str::to_owned).collect();
            let response = ready().into_response();
            let mut made: Vec<_> = response.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            if !response.headers().contains_key(CONTENT_LENGTH) {
                made.push("content-length: 5".into());
            }
            written.sort();
            made.sort();
            assert_eq!(written, made);
            assert!(text.contains("age: 12345\r\n") && text.ends_with("\r\n"), "{text}");
        }
        assert_eq!(ready().without_body().body().len(), 0);
    }

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 7, 10, 12_345, u64::MAX] {
            let mut out = Vec::new();
            push_decimal(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
