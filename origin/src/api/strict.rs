//! What a request must hold, whatever it asks: nothing that two parsers could read in two ways.
//!
//! hyper's HTTP/1.1 lets much of that pass (lines that end in a bare LF, equal lengths twice, a length beside chunks, no host or several) and hides some of
//! it, so the bytes of a head are looked at before hyper gets them. A connection over HTTP/1.1 carries one request, therefore its first head is its only one.

use std::io;

use bytes::{Bytes, BytesMut};
use http::header;
use http::request::Parts;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::reply::ApiError;
use crate::limits::{REFUSED_WAIT, REQUEST_HEAD_BYTES_MAX};

/// How HTTP/2 begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes of a connection are.
#[derive(Debug)]
pub(super) enum Opening {
    /// The head of a request of HTTP/1.1.
    Http1,
    /// HTTP/2's preface.
    Http2,
    /// Nothing that is taken.
    Refused(ApiError),
    /// The client has closed it before either was whole.
    Closed,
}

/// Reads what a connection begins with into `seen`.
pub(super) async fn opening<S: AsyncRead + Unpin>(stream: &mut S, seen: &mut BytesMut) -> io::Result<Opening> {
    let mut head = Head::default();
    loop {
        if seen.starts_with(PREFACE) {
            return Ok(Opening::Http2);
        }
        if !PREFACE.starts_with(seen) {
            match head.look(seen) {
                Ok(true) => return Ok(Opening::Http1),
                Ok(false) if seen.len() >= REQUEST_HEAD_BYTES_MAX => return Ok(Opening::Refused(ApiError::HeadTooLarge)),
                Ok(false) => {}
                Err(why) => return Ok(Opening::Refused(ApiError::Malformed(why.to_owned()))),
            }
        }
        if stream.read_buf(seen).await? == 0 {
            return Ok(Opening::Closed);
        }
    }
}

/// What was seen of a head so far.
#[derive(Debug, Default)]
struct Head {
    /// Bytes that were looked at, and where the line begins that they end in.
    at: usize,
    line: usize,
    first: bool,
    is_old: bool,
    hosts: usize,
    lengths: usize,
    codings: usize,
}

impl Head {
    /// Looks at the lines that have come; gives whether the head is whole. How the bytes were cut does not matter.
    fn look(&mut self, seen: &[u8]) -> Result<bool, &'static str> {
        // Whoever speaks something else would wait for our part.
        if seen.first().is_some_and(|byte| !is_token_byte(*byte)) {
            return Err("the request does not begin with a method");
        }
        while let Some(found) = seen.get(self.at..).unwrap_or_default().iter().position(|byte| *byte == b'\n') {
            let end = self.at + found;
            let line = seen.get(self.line..end).and_then(|line| line.strip_suffix(b"\r")).ok_or("a line does not end in CR LF")?;
            (self.at, self.line) = (end + 1, end + 1);
            if !std::mem::replace(&mut self.first, true) {
                self.is_old = line.ends_with(b" HTTP/1.0");
            } else if line.is_empty() {
                return self.whole().map(|()| true);
            } else {
                self.field(line)?;
            }
        }
        self.at = seen.len();
        Ok(false)
    }

    fn field(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or("a field has no colon")?;
        let (name, value) = line.split_at(colon);
        // White space before the colon, and a line that goes on with the one before, are no names either.
        if name.is_empty() || !name.iter().copied().all(is_token_byte) {
            return Err("a field has no name, or white space beside it");
        }
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
            return is_authority(value).then_some(()).ok_or("the Host field is no authority");
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            self.lengths += 1;
            return is_number(value).then_some(()).ok_or("the Content-Length field is no number");
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.codings += 1;
            return value.eq_ignore_ascii_case(b"chunked").then_some(()).ok_or("the transfer coding is not chunked");
        }
        Ok(())
    }

    /// RFC 9112, sections 3.2 and 6.
    fn whole(&self) -> Result<(), &'static str> {
        match (self.hosts, self.lengths, self.codings) {
            (1, 0 | 1, 0) => Ok(()),
            (1, 0, 1) if !self.is_old => Ok(()),
            (1, _, _) => Err("the framing of the body is ambiguous"),
            _ => Err("there is no Host field, or more than one"),
        }
    }
}

/// What a head must hold that was read already, over HTTP/2 also: one authority, and one length at most.
pub(super) fn check(head: &Parts) -> Result<(), ApiError> {
    let malformed = |text: &str| ApiError::Malformed(text.to_owned());
    let mut hosts = head.headers.get_all(header::HOST).iter();
    match (head.uri.authority(), hosts.next(), hosts.next()) {
        (Some(target), Some(host), None) if !target.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            return Err(malformed("the Host field differs from the target"));
        }
        (Some(_), _, None) => {}
        (None, Some(host), None) if is_authority(host.as_bytes()) => {}
        _ => return Err(malformed("there is no authority, or more than one")),
    }
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(()),
        (Some(length), None) if is_number(length.as_bytes()) => Ok(()),
        _ => Err(malformed("the framing of the body is ambiguous")),
    }
}

/// Says why a connection is of no use, over HTTP/1.1, and ends it so that the client can read that.
pub(super) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, error: &ApiError) {
    let (head, body) = error.respond().into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_else(|never| match never {});
    let mut answer = format!("HTTP/1.1 {}\r\nconnection: close\r\ncontent-length: {}\r\n", head.status, body.len()).into_bytes();
    for (name, value) in &head.headers {
        answer.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    answer.extend([&b"\r\n"[..], &body].concat());
    let goodbye = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        // Closing a socket with bytes that nobody has read would take the answer back.
        tokio::io::copy(&mut stream.take(REQUEST_HEAD_BYTES_MAX as u64), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(REFUSED_WAIT, goodbye).await;
}

fn is_number(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(u8::is_ascii_digit)
}

/// A name or an address, with or without a port. The registry has one name space for all of them, so it need not be one of its own.
fn is_authority(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(byte))
}

/// RFC 9110, section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A stream whose first bytes were read already.
#[derive(Debug, Default)]
pub(super) struct Seen(Bytes);

impl Seen {
    /// Gives these bytes again.
    pub(super) fn again(bytes: BytesMut) -> Self {
        Self(bytes.freeze())
    }

    /// Gives what is left of them, as far as it fits; whether that was anything.
    pub(super) fn give(&mut self, buffer: &mut tokio::io::ReadBuf<'_>) -> bool {
        let bytes = self.0.split_to(self.0.len().min(buffer.remaining()));
        buffer.put_slice(&bytes);
        !bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn opened(bytes: &[u8], piece: usize) -> Opening {
        let (mut client, mut server) = tokio::io::duplex(piece);
        let sending = async {
            let _ = client.write_all(bytes).await;
            drop(client);
        };
        let (opening, ()) = tokio::join!(
            async {
                let opening = opening(&mut server, &mut BytesMut::new()).await.expect("reads");
                drop(server);
                opening
            },
            sending
        );
        opening
    }

    #[tokio::test]
    async fn it_does_not_matter_how_the_bytes_were_cut() {
        for piece in [1, 2, 7, 1 << 16] {
            let good = b"POST /v1/blobs/missing HTTP/1.1\r\nHost: [::1]:7700\r\nContent-Length: 2\r\n\r\n{}";
            assert!(matches!(opened(good, piece).await, Opening::Http1), "{piece}");
            assert!(matches!(opened(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n", piece).await, Opening::Http1), "{piece}");
            assert!(matches!(opened(&[PREFACE, b"\0\0"].concat(), piece).await, Opening::Http2), "{piece}");
            assert!(matches!(opened(b"PRI * HTTP/2.0\r\n\r\nSM", piece).await, Opening::Closed), "{piece}");
            assert!(matches!(opened(b"GET / HTTP/1.1\r\nhost: a\r\n", piece).await, Opening::Closed), "{piece}");
            let bad = opened(b"GET / HTTP/1.1\r\nhost: a\n\r\n", piece).await;
            assert!(matches!(bad, Opening::Refused(ApiError::Malformed(_))), "{piece}: {bad:?}");
            let long = [&b"GET / HTTP/1.1\r\nhost: a\r\nx: "[..], &[b'x'; REQUEST_HEAD_BYTES_MAX]].concat();
            assert!(matches!(opened(&long, piece).await, Opening::Refused(ApiError::HeadTooLarge)), "{piece}");
        }
    }

    #[test]
    fn one_authority_and_one_length_also_over_http2() {
        let check = |uri: &str, fields: &[(&str, &str)]| {
            let request = fields.iter().fold(http::Request::get(uri), |request, (name, value)| request.header(*name, *value));
            super::check(&request.body(()).expect("a request").into_parts().0).is_ok()
        };
        assert!(check("http://a/v1/health", &[]) && check("/v1/health", &[("host", "a")]) && check("http://A/", &[("host", "a")]));
        assert!(check("http://a/", &[("content-length", "0")]));
        for (uri, fields) in [
            ("/v1/health", &[][..]),
            ("/v1/health", &[("host", "a"), ("host", "a")]),
            ("http://a/", &[("host", "b")]),
            ("http://a/", &[("host", "a"), ("host", "a")]),
            ("http://a/", &[("content-length", "1"), ("content-length", "1")]),
            ("http://a/", &[("content-length", "1, 1")]),
            ("http://a/", &[("content-length", "+1")]),
        ] {
            assert!(!check(uri, fields), "{uri} {fields:?}");
        }
    }
}
