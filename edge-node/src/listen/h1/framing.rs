//! Where the body of a request ends: RFC 9112, sections 6 and 7. Pure.
//!
//! As in [`super::head`], whatever could be read in two ways is refused, and it does not matter how the bytes were cut.

use bytes::{Bytes, BytesMut};
use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

use super::head::is_token_byte;
use crate::limits::{CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX};
use crate::listen::{Refusal, check};

/// Digits of a chunk's size: 15 are below 2^60, so that no sum of sizes overflows.
const CHUNK_DIGITS_MAX: usize = 15;

/// How the body of a request is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// There is none.
    None,
    /// So many bytes, more than 0.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// What the fields of a head say. RFC 9112, section 6.1: a server may refuse what only an attacker sends.
pub(super) fn coding(version: Version, headers: &HeaderMap) -> Result<Coding, Refusal> {
    let length = check::content_length(headers)?;
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(length.filter(|length| *length > 0).map_or(Coding::None, Coding::Length));
    };
    if version != Version::HTTP_11 || length.is_some() || codings.next().is_some() {
        return Err(Refusal::BadFraming);
    }
    // Section 6.3: where chunked is not the last coding, nobody knows where the body ends. Nor are there others before it that we could undo.
    if coding.as_bytes().eq_ignore_ascii_case(b"chunked") { Ok(Coding::Chunked) } else { Err(Refusal::BadFraming) }
}

/// Follows the framing of one body.
#[derive(Debug)]
pub(super) struct Decoder(State);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Bytes left of a body with a length.
    Length(u64),
    ChunkSize,
    /// Bytes left of a chunk.
    Chunk(u64),
    ChunkEnd,
    /// Bytes of trailers so far.
    Trailers(usize),
    Ended,
}

/// A step of decoding.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Bytes of the body, at least one.
    Data(Bytes),
    /// More input is needed.
    More,
    /// The body has ended; what is left of the input is the next request's.
    End,
}

/// The body is not framed as it says. Nothing after it can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request's body is malformed: {0}")]
pub(super) struct Malformed(&'static str);

impl Decoder {
    /// For a body that is framed so; none where there is no body.
    pub(super) fn new(coding: Coding) -> Option<Self> {
        match coding {
            Coding::None => None,
            Coding::Length(length) => Some(Self(State::Length(length))),
            Coding::Chunked => Some(Self(State::ChunkSize)),
        }
    }

    /// Nothing more belongs to the body.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self.0, State::Ended | State::Length(0))
    }

    /// Bytes that are certain to come.
    pub(super) fn bytes_left(&self) -> u64 {
        match self.0 {
            State::Length(left) | State::Chunk(left) => left,
            _ => 0,
        }
    }

    /// Takes the next part of the body off `input`. After an error there is no next one.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Step, Malformed> {
        loop {
            self.0 = match self.0 {
                State::Ended | State::Length(0) => return Ok(Step::End),
                State::Chunk(0) => State::ChunkEnd,
                State::Length(_) | State::Chunk(_) if input.is_empty() => return Ok(Step::More),
                State::Length(left) => return Ok(self.take(input, left, State::Length)),
                State::Chunk(left) => return Ok(self.take(input, left, State::Chunk)),
                State::ChunkSize => match take_line(input, CHUNK_LINE_BYTES_MAX)? {
                    None => return Ok(Step::More),
                    Some(line) => match chunk_size(&line)? {
                        0 => State::Trailers(0),
                        size => State::Chunk(size),
                    },
                },
                State::ChunkEnd => match (input.first(), input.get(1)) {
                    (Some(b'\r'), Some(b'\n')) => {
                        let _ = input.split_to(2);
                        State::ChunkSize
                    }
                    (None, _) | (Some(b'\r'), None) => return Ok(Step::More),
                    _ => return Err(Malformed("a chunk is longer than its size")),
                },
                State::Trailers(so_far) => match take_line(input, TRAILER_BYTES_MAX.saturating_sub(so_far))? {
                    None => return Ok(Step::More),
                    Some(line) if line.is_empty() => State::Ended,
                    Some(line) => {
                        check_trailer(&line)?;
                        State::Trailers(so_far + line.len() + 2)
                    }
                },
            };
        }
    }

    fn take(&mut self, input: &mut BytesMut, left: u64, state: fn(u64) -> State) -> Step {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        self.0 = state(left - here as u64);
        Step::Data(input.split_to(here).freeze())
    }
}

/// A line that ends in CR LF, without these, if all of it is here. It and its end may have `bytes_max` bytes and two.
fn take_line(input: &mut BytesMut, bytes_max: usize) -> Result<Option<Bytes>, Malformed> {
    let Some(at) = memchr(b'\n', input) else {
        return if input.len() > bytes_max + 1 { Err(Malformed("a line is too long")) } else { Ok(None) };
    };
    if at > bytes_max + 1 {
        return Err(Malformed("a line is too long"));
    }
    let line = input.split_to(at + 1).freeze();
    let end = at.checked_sub(1).filter(|end| line.get(*end) == Some(&b'\r')).ok_or(Malformed("a line ends without CR"))?;
    Ok(Some(line.slice(..end)))
}

/// RFC 9112, section 7.1: digits, then extensions, which nobody uses and which are not looked into further than to see that they are text.
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let count = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if count == 0 || count > CHUNK_DIGITS_MAX {
        return Err(Malformed("a chunk's size is no number, or too large"));
    }
    let (digits, extensions) = line.split_at(count);
    let size = digits.iter().fold(0_u64, |size, digit| size * 16 + u64::from(char::from(*digit).to_digit(16).unwrap_or(0)));
    let after = extensions.trim_ascii_start();
    let named = match after.split_first() {
        None => extensions.is_empty(),
        Some((b';', name)) => name.trim_ascii_start().first().is_some_and(|byte| is_token_byte(*byte)),
        Some(_) => false,
    };
    if !named || extensions.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(Malformed("what follows a chunk's size is no extension"));
    }
    Ok(size)
}

/// A trailer is a field; it is dropped (RFC 9110, section 6.5.1), but not before it was seen to be one.
fn check_trailer(line: &Bytes) -> Result<(), Malformed> {
    let field = memchr(b':', line).and_then(|colon| {
        HeaderName::from_bytes(line.get(..colon)?).ok()?;
        HeaderValue::from_bytes(line.get(colon + 1..)?).ok()
    });
    field.map(drop).ok_or(Malformed("a trailer is no field"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    const CL: &str = "content-length";
    const TE: &str = "transfer-encoding";

    #[test]
    fn fields_say_one_framing_or_none() {
        let framed = |all: &[(&'static str, &'static str)]| coding(Version::HTTP_11, &fields(all));
        assert_eq!(framed(&[]), Ok(Coding::None));
        assert_eq!(framed(&[(CL, "0")]), Ok(Coding::None));
        assert_eq!(framed(&[(CL, "007")]), Ok(Coding::Length(7)));
        assert_eq!(framed(&[(TE, "Chunked")]), Ok(Coding::Chunked));
        for bad in [
            &[(CL, "3"), (CL, "3")][..],
            &[(CL, "3, 3")],
            &[(CL, "+3")],
            &[(CL, "-3")],
            &[(CL, "0x3")],
            &[(CL, "3 3")],
            &[(CL, "")],
            &[(CL, "3.0")],
            &[(CL, "99999999999999999999")],
            &[(TE, "chunked"), (CL, "3")],
            &[(TE, "chunked"), (TE, "chunked")],
            &[(TE, "chunked, chunked")],
            &[(TE, "gzip, chunked")],
            &[(TE, "chunked, gzip")],
            &[(TE, "chunked;q=1")],
            &[(TE, "gzip")],
            &[(TE, "identity")],
            &[(TE, "xchunked")],
            &[(TE, "")],
            &[(TE, "gzip"), (TE, "chunked")],
        ] {
            assert_eq!(framed(bad), Err(Refusal::BadFraming), "{bad:?}");
        }
        assert_eq!(coding(Version::HTTP_10, &fields(&[(TE, "chunked")])), Err(Refusal::BadFraming));
        assert_eq!(coding(Version::HTTP_10, &fields(&[(CL, "3")])), Ok(Coding::Length(3)));
    }

    /// The body, and what is left of the input.
    type Decoded = Result<(Vec<u8>, Vec<u8>), Malformed>;

    fn decoded(coding: Coding, text: &[u8], size: usize) -> Decoded {
        let mut decoder = Decoder::new(coding).unwrap();
        let (mut input, mut body) = (BytesMut::new(), Vec::new());
        for piece in text.chunks(size) {
            input.extend_from_slice(piece);
            while let Step::Data(data) = decoder.decode(&mut input)? {
                assert!(!data.is_empty());
                body.extend_from_slice(&data);
            }
        }
        assert_eq!(decoder.is_ended(), decoder.decode(&mut input) == Ok(Step::End));
        Ok((body, input.to_vec()))
    }

    fn decoded_anyhow(coding: Coding, text: &str) -> Decoded {
        let whole = decoded(coding, text.as_bytes(), text.len());
        for size in 1..text.len() {
            assert_eq!(decoded(coding, text.as_bytes(), size), whole, "{text:?} in pieces of {size}");
        }
        whole
    }

    #[test]
    fn a_body_ends_where_it_says() {
        let got = decoded_anyhow(Coding::Length(5), "12345GET /").unwrap();
        assert_eq!(got, (b"12345".to_vec(), b"GET /".to_vec()));
        for chunked in [
            "3\r\none\r\n03 \t; x=\"y\"\r\ntwo\r\n0\r\n\r\nGET /",
            "3;a;b=c\r\none\r\n3\r\ntwo\r\n000;x\r\nTrailer: x\r\nOther:\r\n\r\nGET /",
        ] {
            let got = decoded_anyhow(Coding::Chunked, chunked).unwrap();
            assert_eq!(got, (b"onetwo".to_vec(), b"GET /".to_vec()));
        }
        assert_eq!(decoded_anyhow(Coding::Chunked, "A\r\n01234567").unwrap(), (b"01234567".to_vec(), Vec::new()));
    }

    #[test]
    fn malformed_chunks_are_not_guessed_at() {
        for bad in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\na\r\n0\r\n\r\n",
            "1 \r\na\r\n0\r\n\r\n",
            "1 1\r\na\r\n0\r\n\r\n",
            "1;\r\na\r\n0\r\n\r\n",
            "1; =x\r\na\r\n0\r\n\r\n",
            "1;a\rb\r\na\r\n0\r\n\r\n",
            "1;a\0\r\na\r\n0\r\n\r\n",
            "1\na\r\n0\r\n\r\n",
            "1\r\nab\r\n0\r\n\r\n",
            "1\r\na\n0\r\n\r\n",
            "1\r\na\rx",
            "1\r\na\r\n\r\n",
            "1000000000000000\r\n",
            "ffffffffffffffffff\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\n: y\r\n\r\n",
            "0\r\n X: y\r\n\r\n",
            "0\r\nX: \0\r\n\r\n",
            "0\r\nX: a\r\n b\r\n\r\n",
        ] {
            assert!(decoded_anyhow(Coding::Chunked, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lines_are_bounded() {
        let sized = |bytes: usize| decoded(Coding::Chunked, format!("1;{}\r\na\r\n", "e".repeat(bytes)).as_bytes(), 7);
        assert!(sized(CHUNK_LINE_BYTES_MAX - 2).is_ok());
        assert!(sized(CHUNK_LINE_BYTES_MAX - 1).is_err());
        assert!(decoded(Coding::Chunked, &[b'1'; CHUNK_LINE_BYTES_MAX + 2], 7).is_err());
        let trailers = |lines: usize| decoded(Coding::Chunked, format!("0\r\n{}", "X: 12345\r\n".repeat(lines)).as_bytes(), 7);
        assert!(trailers(TRAILER_BYTES_MAX / 10).is_ok());
        assert!(trailers(TRAILER_BYTES_MAX / 10 + 1).is_err());
    }
}
