//! The head of a response and its framing: RFC 9112, sections 4, 6 and 7. Pure.

use std::io::Write;

use http::header::{self, HeaderValue};
use http::response::Parts;
use http::{Method, StatusCode, Version};

use crate::cache::policy::stated_length;
use crate::cache::ready::Ready;
use crate::listen::{date, has_no_content};

/// How the end of a response's body is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is no body.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// The connection is closed: all that HTTP/1.0 has for a body of unknown length.
    Close,
}

/// Whether the connection takes another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persistence {
    /// It does, and HTTP/1.1 need not say so.
    Kept,
    /// It does, and HTTP/1.0 must be told.
    KeptAndSaid,
    /// It does not.
    Closed,
}

/// How a response to a request of this method and version is framed. `exact` is its body's length, where that is known.
pub(super) fn framing(method: &Method, version: Version, head: &Parts, exact: Option<u64>) -> Framing {
    if has_no_content(method, head.status) {
        return Framing::None;
    }
    match exact.or_else(|| stated_length(&head.headers)) {
        Some(length) => Framing::Length(length),
        None if version == Version::HTTP_11 => Framing::Chunked,
        None => Framing::Close,
    }
}

/// Writes a final head. Fields of a connection are gone from it already.
pub(super) fn head(out: &mut Vec<u8>, head: &Parts, framing: Framing, alt_svc: Option<&HeaderValue>, persistence: Persistence) {
    status_line(out, head.status);
    let mut dated = false;
    for (name, value) in &head.headers {
        // What is sent is what counts: see `framing`.
        if name == header::CONTENT_LENGTH && framing != Framing::None {
            continue;
        }
        dated = dated || name == header::DATE;
        field(out, name.as_str(), value.as_bytes());
    }
    match framing {
        Framing::Length(length) => length_field(out, length),
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::None | Framing::Close => {}
    }
    if !dated {
        field(out, "date", &date::now());
    }
    end(out, alt_svc, persistence);
}

/// Writes the head of a stored response.
pub(super) fn ready(out: &mut Vec<u8>, ready: &Ready, alt_svc: Option<&HeaderValue>, persistence: Persistence) {
    status_line(out, ready.status());
    ready.write_fields(out);
    end(out, alt_svc, persistence);
}

/// Writes what is the connection's own, and the empty line.
fn end(out: &mut Vec<u8>, alt_svc: Option<&HeaderValue>, persistence: Persistence) {
    if let Some(alt_svc) = alt_svc {
        field(out, "alt-svc", alt_svc.as_bytes());
    }
    match persistence {
        Persistence::Kept => {}
        Persistence::KeptAndSaid => out.extend_from_slice(b"connection: keep-alive\r\n"),
        Persistence::Closed => out.extend_from_slice(b"connection: close\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes an interim head.
pub(super) fn interim(out: &mut Vec<u8>, head: &http::Response<()>) {
    status_line(out, head.status());
    for (name, value) in head.headers() {
        field(out, name.as_str(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// What tells a client to send its body (RFC 9110, section 10.1.1).
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Writes the line before a chunk of `length` bytes, which is not 0.
pub(super) fn chunk_line(out: &mut Vec<u8>, length: usize) {
    let _ = write!(out, "{length:x}\r\n");
}

/// Ends a body of chunks. Trailers are of the transfer before (RFC 9110, section 6.5.1) and are dropped.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    if status == StatusCode::OK {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn length_field(out: &mut Vec<u8>, length: u64) {
    let _ = write!(out, "content-length: {length}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;

    fn parts(status: u16, fields: &[(&str, &str)]) -> Parts {
        let mut response = Response::builder().status(status).header("date", "now");
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap().into_parts().0
    }

    fn written(status: u16, fields: &[(&str, &str)], framing: Framing, persistence: Persistence) -> String {
        let mut out = Vec::new();
        head(&mut out, &parts(status, fields), framing, None, persistence);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_response_has_one_framing() {
        let of = |method: Method, version, status, fields: &[(&str, &str)], exact| framing(&method, version, &parts(status, fields), exact);
        let (v10, v11) = (Version::HTTP_10, Version::HTTP_11);
        assert_eq!(of(Method::GET, v11, 200, &[], Some(0)), Framing::Length(0));
        assert_eq!(of(Method::GET, v11, 200, &[("content-length", "9")], Some(5)), Framing::Length(5));
        assert_eq!(of(Method::GET, v11, 200, &[("content-length", "9")], None), Framing::Length(9));
        assert_eq!(of(Method::GET, v11, 200, &[("content-length", "9"), ("content-length", "9")], None), Framing::Chunked);
        assert_eq!(of(Method::GET, v11, 200, &[("content-length", "+9")], None), Framing::Chunked);
        assert_eq!(of(Method::GET, v10, 200, &[], None), Framing::Close);
        assert_eq!(of(Method::HEAD, v11, 200, &[("content-length", "9")], Some(0)), Framing::None);
        assert_eq!(of(Method::GET, v11, 204, &[], Some(0)), Framing::None);
        assert_eq!(of(Method::GET, v11, 304, &[], Some(0)), Framing::None);
    }

    #[test]
    fn a_head_says_its_framing_once() {
        let said = written(200, &[("content-length", "9"), ("a", "b")], Framing::Length(5), Persistence::Kept);
        assert_eq!(said, "HTTP/1.1 200 OK\r\ndate: now\r\na: b\r\ncontent-length: 5\r\n\r\n");
        let said = written(200, &[("content-length", "9"), ("content-length", "8")], Framing::Chunked, Persistence::Closed);
        assert_eq!(said, "HTTP/1.1 200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n");
        let said = written(304, &[("content-length", "9")], Framing::None, Persistence::KeptAndSaid);
        assert_eq!(said, "HTTP/1.1 304 Not Modified\r\ndate: now\r\ncontent-length: 9\r\nconnection: keep-alive\r\n\r\n");
        assert!(written(299, &[], Framing::Close, Persistence::Closed).starts_with("HTTP/1.1 299 \r\n"));
    }

    #[test]
    fn a_date_is_added_where_there_is_none() {
        let mut undated = parts(200, &[]);
        undated.headers.clear();
        let mut out = Vec::new();
        head(&mut out, &undated, Framing::Length(0), None, Persistence::Kept);
        let out = String::from_utf8(out).unwrap();
        let date = out.lines().find_map(|line| line.strip_prefix("date: ")).unwrap();
        assert!(httpdate::parse_http_date(date).is_ok(), "{out}");
    }
}
