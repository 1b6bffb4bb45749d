//! Looks at the bytes of an HTTP/1.1 connection before hyper does, and refuses what hyper 1.12 would let through or hide.
//!
//! Lines that end in a bare LF, more than one Content-Length (equal ones too), and Content-Length beside Transfer-Encoding are how two
//! parsers come to disagree about where a request ends (RFC 9112, sections 2.2, 6.1 and 6.3). The scanner follows the framing of
//! messages; where one of these appears it puts a NUL in the place of the line's end, so that hyper answers 400 and closes. hyper stays
//! the one parser: what the scanner does not understand it leaves to hyper.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a line that are kept: the names of two fields, and a number.
const LINE_BYTES_KEPT: usize = 64;

/// Wraps the stream of an h1 connection.
pub(super) struct Strict<S> {
    stream: S,
    scanner: Scanner,
}

impl<S> Strict<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, scanner: Scanner::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(new) = buffer.filled_mut().get_mut(before..) {
            self.scanner.scan(new);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Where in a message the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    /// The request line, or empty lines before it.
    #[default]
    Start,
    Fields,
    /// Bytes left of a body with a length.
    Body(u64),
    ChunkSize,
    /// Bytes left of a chunk.
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// Something was refused, or not understood: hyper ends the connection.
    Lost,
}

/// Follows the framing of the messages of one connection.
#[derive(Debug, Default)]
struct Scanner {
    at: At,
    /// The beginning of the current line.
    kept: Line,
    /// The last byte of the current line so far.
    last: u8,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Debug)]
struct Line {
    bytes: [u8; LINE_BYTES_KEPT],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; LINE_BYTES_KEPT], length: 0 }
    }
}

impl Line {
    fn extend(&mut self, more: &[u8]) {
        let room = self.bytes.get_mut(self.length..).unwrap_or_default();
        let taken = room.len().min(more.len());
        for (to, from) in room.iter_mut().zip(more) {
            *to = *from;
        }
        self.length += taken;
    }

    fn get(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// What a line that has ended means.
enum Verdict {
    Next(At),
    Refuse,
}

impl Scanner {
    /// Looks at bytes in the order in which they come; makes unusable what is refused.
    fn scan(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() && self.at != At::Lost {
            let rest = match self.at {
                At::Body(left) => self.skip(bytes, left, At::Body, At::Start),
                At::Chunk(left) => self.skip(bytes, left, At::Chunk, At::ChunkEnd),
                _ => self.line(bytes),
            };
            bytes = rest;
        }
    }

    fn skip<'a>(&mut self, bytes: &'a mut [u8], left: u64, more: fn(u64) -> At, then: At) -> &'a mut [u8] {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - here as u64;
        self.at = if left == 0 { then } else { more(left) };
        if self.at == At::Start {
            self.begin();
        }
        bytes.get_mut(here..).unwrap_or_default()
    }

    fn begin(&mut self) {
        *self = Self::default();
    }

    fn line<'a>(&mut self, bytes: &'a mut [u8]) -> &'a mut [u8] {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.kept.extend(bytes);
            self.last = bytes.last().copied().unwrap_or(self.last);
            return Default::default();
        };
        let (line, rest) = bytes.split_at_mut(end);
        self.kept.extend(line);
        let last = line.last().copied().unwrap_or(self.last);
        let verdict = if last == b'\r' { self.ended() } else { Verdict::Refuse };
        (self.kept.length, self.last) = (0, 0);
        match verdict {
            Verdict::Next(At::Start) => self.begin(),
            Verdict::Next(at) => self.at = at,
            Verdict::Refuse => {
                self.at = At::Lost;
                if let Some(line_feed) = rest.first_mut() {
                    *line_feed = 0;
                }
            }
        }
        rest.get_mut(1..).unwrap_or_default()
    }

    /// A line has ended in CR LF.
    fn ended(&mut self) -> Verdict {
        let kept = self.kept.get();
        let line = kept.strip_suffix(b"\r").unwrap_or(kept);
        match self.at {
            At::Start if line.is_empty() => Verdict::Next(At::Start),
            At::Start => Verdict::Next(At::Fields),
            At::Fields if line.is_empty() => Verdict::Next(match (self.chunked, self.length) {
                (true, _) => At::ChunkSize,
                (false, Some(length)) if length > 0 => At::Body(length),
                _ => At::Start,
            }),
            At::Fields => {
                let Some(colon) = line.iter().position(|byte| *byte == b':') else { return Verdict::Next(At::Fields) };
                let (name, value) = line.split_at(colon);
                if name.eq_ignore_ascii_case(b"content-length") {
                    if self.length.is_some() || self.chunked {
                        return Verdict::Refuse;
                    }
                    let value = value.get(1..).unwrap_or_default().trim_ascii();
                    // Something else than a number is hyper's to refuse.
                    let Some(length) = number(value, 10) else { return Verdict::Next(At::Lost) };
                    self.length = Some(length);
                } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                    if self.length.is_some() || self.chunked {
                        return Verdict::Refuse;
                    }
                    self.chunked = true;
                }
                Verdict::Next(At::Fields)
            }
            At::ChunkSize => {
                let digits = line.split(|byte| matches!(byte, b';' | b' ' | b'\t')).next().unwrap_or_default();
                Verdict::Next(match number(digits, 16) {
                    Some(0) => At::Trailers,
                    Some(size) => At::Chunk(size),
                    None => At::Lost,
                })
            }
            At::ChunkEnd => Verdict::Next(if line.is_empty() { At::ChunkSize } else { At::Lost }),
            At::Trailers => Verdict::Next(if line.is_empty() { At::Start } else { At::Trailers }),
            At::Body(_) | At::Chunk(_) | At::Lost => Verdict::Next(At::Lost),
        }
    }
}

/// Digits only: no sign, no empty text.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(radix)?;
        number.checked_mul(radix.into())?.checked_add(digit.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\r\nPOST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\na\nb\n\n\
                        POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a.example\r\n\r\n\
                        3;x=y\r\n\n\n\n\r\na\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n\
                        GET /c HTTP/1.1\r\nHost: a.example\r\n\r\n";

    /// Scans in pieces of `size` bytes; gives what came out.
    fn scanned(text: &str, size: usize) -> (String, At) {
        let mut bytes = text.as_bytes().to_vec();
        let mut scanner = Scanner::default();
        bytes.chunks_mut(size).for_each(|piece| scanner.scan(piece));
        (String::from_utf8(bytes).unwrap(), scanner.at)
    }

    #[test]
    fn good_messages_pass_unchanged_however_they_are_cut() {
        for size in 1..GOOD.len() {
            assert_eq!(scanned(GOOD, size), (GOOD.to_owned(), At::Start), "pieces of {size}");
        }
    }

    #[test]
    fn ambiguous_framing_is_made_unusable_however_it_is_cut() {
        for bad in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nCONTENT-LENGTH:1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n",
        ] {
            for before in ["", GOOD] {
                let text = format!("{before}{bad}");
                for size in 1..text.len() {
                    let (out, at) = scanned(&text, size);
                    assert_eq!(at, At::Lost, "{bad:?} in pieces of {size}");
                    assert_eq!(out.matches('\0').count(), 1, "{bad:?} in pieces of {size}");
                    assert!(out.starts_with(before));
                }
            }
        }
    }

    #[test]
    fn anything_may_come() {
        let mut seed = 1_u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        let words =
            ["\r\n", "\n", "\r", ":", "Content-Length", "Transfer-Encoding", "chunked", " ", "0", "f", "99999999999999999999", "\0", "GET"];
        for _ in 0..100_000 {
            let mut text = String::from("POST / HTTP/1.1\r\n");
            (0..random() % 24).for_each(|_| text.push_str(words[random() % words.len()]));
            let whole = scanned(&text, text.len());
            assert_eq!(scanned(&text, 1 + random() % text.len()), whole, "{text:?}");
        }
    }
}
