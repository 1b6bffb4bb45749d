//! The head of a request: RFC 9112, sections 2 to 6, without anything that the RFC lets a lenient server take. Pure.
//!
//! What two parsers could read in two ways is refused, for that is how requests are smuggled. How the bytes were cut on their way does not matter: the
//! same bytes give the same head or the same refusal.

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};
use memchr::memchr;
use smallvec::SmallVec;

use super::framing::{Coding, coding};
use crate::limits::{FIELDS_MAX, H1_HEAD_BYTES_MAX, H1_REQUEST_LINE_BYTES_MAX, METHOD_BYTES_MAX};
use crate::listen::Refusal;

/// A request's head, and what it says of the connection.
#[derive(Debug)]
pub(super) struct Head {
    /// Its target is as it came.
    pub(super) request: Request<()>,
    /// How its body is framed.
    pub(super) coding: Coding,
    /// The client wants to go on using the connection.
    pub(super) persistent: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
}

/// How far a head that is not all here yet was looked through.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Bytes that were looked at.
    at: usize,
    /// Where the lines end, each at its CR.
    ends: SmallVec<[u32; 32]>,
    line: Option<RequestLine>,
    /// The empty line before it, which some clients send after a body (RFC 9112, section 2.2), has been seen.
    preceded: bool,
}

#[derive(Debug, Clone, Copy)]
struct RequestLine {
    method_end: usize,
    target_end: usize,
    version: Version,
}

impl Scan {
    /// Nothing of a head has come.
    pub(super) fn is_untouched(&self, input: &[u8]) -> bool {
        self.at == 0 && input.is_empty()
    }
}

/// Takes the next head off `input`; none while it is not all here. After a refusal neither is of use any more.
pub(super) fn parse(input: &mut BytesMut, scan: &mut Scan) -> Result<Option<Head>, Refusal> {
    if scan.at == 0 && !begin(input, scan)? {
        return Ok(None);
    }
    let Some(end) = find_end(input, scan)? else { return Ok(None) };
    let bytes = input.split_to(end).freeze();
    let scan = std::mem::take(scan);
    let Some(line) = scan.line else { return Err(Refusal::BadHead) };
    build(&bytes, line, &scan.ends).map(Some)
}

/// Takes off one empty line, and gives whether something follows. What cannot begin a request is refused before all of it is here: a client that speaks
/// something else would wait for our part.
fn begin(input: &mut BytesMut, scan: &mut Scan) -> Result<bool, Refusal> {
    match (input.first(), input.get(1)) {
        (Some(b'\r'), None) if !scan.preceded => Ok(false),
        (Some(b'\r'), Some(b'\n')) if !scan.preceded => {
            let _ = input.split_to(2);
            scan.preceded = true;
            begin(input, scan)
        }
        (Some(byte), _) if is_token_byte(*byte) => Ok(true),
        (Some(_), _) => Err(Refusal::BadHead),
        (None, _) => Ok(false),
    }
}

/// Looks for the empty line; gives where it ends.
fn find_end(input: &[u8], scan: &mut Scan) -> Result<Option<usize>, Refusal> {
    loop {
        let start = scan.ends.last().map_or(0, |end| *end as usize + 2);
        let found = memchr(b'\n', input.get(scan.at..).unwrap_or_default());
        let looked_at = found.map_or(input.len(), |found| scan.at + found + 1);
        if scan.line.is_none() && looked_at > H1_REQUEST_LINE_BYTES_MAX {
            return Err(Refusal::TargetTooLong);
        }
        if looked_at > H1_HEAD_BYTES_MAX {
            return Err(Refusal::FieldsTooLarge);
        }
        scan.at = looked_at;
        if found.is_none() {
            return Ok(None);
        }
        // A line ends in CR LF; the LF is the last byte that was looked at.
        let Some(line) = input.get(start..looked_at - 1).and_then(|line| line.strip_suffix(b"\r")) else { return Err(Refusal::BadHead) };
        if scan.line.is_none() {
            scan.line = Some(request_line(line)?);
        } else if line.is_empty() {
            return Ok(Some(looked_at));
        } else if scan.ends.len() > FIELDS_MAX {
            return Err(Refusal::FieldsTooLarge);
        }
        scan.ends.push((looked_at - 2) as u32);
    }
}

/// RFC 9112, section 3: three words with one space between them.
fn request_line(line: &[u8]) -> Result<RequestLine, Refusal> {
    let method_end = memchr(b' ', line).ok_or(Refusal::BadHead)?;
    let (method, rest) = line.split_at(method_end);
    if !method.iter().copied().all(is_token_byte) {
        return Err(Refusal::BadHead);
    }
    if method.len() > METHOD_BYTES_MAX {
        return Err(Refusal::MethodNotSupported);
    }
    let rest = rest.get(1..).unwrap_or_default();
    let target_length = memchr(b' ', rest).ok_or(Refusal::BadHead)?;
    let (target, version) = rest.split_at(target_length);
    // No controls; `#` begins what is the client's own affair (RFC 3986, section 3.5).
    if target.is_empty() || target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f || *byte == b'#') {
        return Err(Refusal::BadHead);
    }
    let version = match version.strip_prefix(b" HTTP/").unwrap_or_default() {
        b"1.1" => Version::HTTP_11,
        b"1.0" => Version::HTTP_10,
        [major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => return Err(Refusal::VersionNotSupported),
        _ => return Err(Refusal::BadHead),
    };
    Ok(RequestLine { method_end, target_end: method_end + 1 + target_length, version })
}

fn build(bytes: &Bytes, line: RequestLine, ends: &[u32]) -> Result<Head, Refusal> {
    let bad = |_| Refusal::BadHead;
    let mut request = Request::new(());
    let method = bytes.get(..line.method_end).unwrap_or_default();
    *request.method_mut() = if method == b"GET" { Method::GET } else { Method::from_bytes(method).map_err(|_| Refusal::BadHead)? };
    *request.uri_mut() = Uri::from_maybe_shared(bytes.slice(line.method_end + 1..line.target_end)).map_err(|_| Refusal::BadTarget)?;
    *request.version_mut() = line.version;
    let mut headers = HeaderMap::with_capacity(ends.len());
    for pair in ends.windows(2) {
        let &[before, end] = pair else { continue };
        let (start, end) = (before as usize + 2, end as usize);
        let field = bytes.get(start..end).unwrap_or_default();
        // A name with white space after it, a line that goes on with the last one (it begins with white space), and no name at all: all are no names.
        let colon = memchr(b':', field).ok_or(Refusal::BadHead)?;
        let name = HeaderName::from_bytes(field.get(..colon).unwrap_or_default()).map_err(|_| Refusal::BadHead)?;
        // It takes no controls but the tab, so no bare CR either.
        let value = HeaderValue::from_maybe_shared(bytes.slice(trim(field, start, colon + 1))).map_err(bad)?;
        headers.append(name, value);
    }
    let coding = coding(line.version, &headers)?;
    let persistent = persistent(line.version, &headers);
    let expects_continue = line.version == Version::HTTP_11
        && headers.get(header::EXPECT).is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    *request.headers_mut() = headers;
    Ok(Head { request, coding, persistent, expects_continue })
}

/// Where the value is in the head: without the white space around it.
fn trim(field: &[u8], start: usize, from: usize) -> std::ops::Range<usize> {
    let white = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let value = field.get(from..).unwrap_or_default();
    let before = value.iter().take_while(|byte| white(byte)).count();
    let after = value.iter().skip(before).rev().take_while(|byte| white(byte)).count();
    start + from + before..start + field.len() - after
}

/// RFC 9112, section 9.3.
fn persistent(version: Version, headers: &HeaderMap) -> bool {
    let mut persistent = version == Version::HTTP_11;
    for option in headers.get_all(header::CONNECTION).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b',')) {
        let option = option.trim_ascii();
        if option.eq_ignore_ascii_case(b"close") {
            return false;
        }
        persistent |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    persistent
}

/// RFC 9110, section 5.6.2.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
        || byte.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a whole head comes to; it must come to the same however it is cut, and nothing after it may be touched.
    fn parsed(text: &[u8]) -> Result<Option<Head>, Refusal> {
        let whole = cut(text, text.len().max(1));
        for size in (1..=text.len().min(40)).chain([text.len() / 2, text.len().saturating_sub(1)]) {
            let pieces = cut(text, size.max(1));
            assert_eq!(format!("{pieces:?}"), format!("{whole:?}"), "{:?} in pieces of {size}", text.escape_ascii().to_string());
        }
        whole
    }

    fn cut(text: &[u8], size: usize) -> Result<Option<Head>, Refusal> {
        let (mut input, mut scan) = (BytesMut::new(), Scan::default());
        for piece in text.chunks(size) {
            input.extend_from_slice(piece);
            if let Some(head) = parse(&mut input, &mut scan)? {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    fn head(text: &str) -> Head {
        parsed(text.as_bytes()).unwrap().unwrap()
    }

    fn refused(text: &str) -> Refusal {
        parsed(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_head_becomes_a_request() {
        let head = head("\r\nM-SEARCH /a?b HTTP/1.1\r\nHost:a.example\r\nX-A: \t one two\t \r\nx-a:\r\nX-B: \u{e4}\r\n\r\nrest");
        assert_eq!((head.request.method().as_str(), head.request.uri().to_string().as_str()), ("M-SEARCH", "/a?b"));
        let fields: Vec<_> = head.request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(fields, [("host", &b"a.example"[..]), ("x-a", b"one two"), ("x-a", b""), ("x-b", "\u{e4}".as_bytes())]);
        assert!(head.persistent && !head.expects_continue && head.coding == Coding::None);
    }

    #[test]
    fn heads_follow_one_another() {
        let mut input = BytesMut::from("GET /1 HTTP/1.1\r\n\r\n\r\nGET /2 HTTP/1.0\r\n\r\nGET");
        let mut scan = Scan::default();
        for (path, version) in [("/1", Version::HTTP_11), ("/2", Version::HTTP_10)] {
            let head = parse(&mut input, &mut scan).unwrap().unwrap();
            assert_eq!((head.request.uri().path(), head.request.version()), (path, version));
        }
        assert!(parse(&mut input, &mut scan).unwrap().is_none() && !scan.is_untouched(&input));
        assert_eq!(&input[..], b"GET");
    }

    #[test]
    fn the_connection_goes_on_as_the_version_and_the_client_say() {
        for (version, connection, persistent) in [
            ("1.1", "", true),
            ("1.1", "Connection: x, CLOSE\r\n", false),
            ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: close, keep-alive\r\n", false),
        ] {
            let head = head(&format!("GET / HTTP/{version}\r\n{connection}\r\n"));
            assert_eq!(head.persistent, persistent, "{version} {connection}");
        }
        assert!(head("POST / HTTP/1.1\r\nExpect: 100-Continue\r\n\r\n").expects_continue);
        assert!(!head("POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expects_continue);
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for text in [
            "\n",
            "\r\n\r\n",
            "\rGET / HTTP/1.1\r\n\r\n",
            " GET / HTTP/1.1\r\n\r\n",
            "\u{16}\u{3}\u{1}",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\nHost: a\rb: c\r\n\r\n",
            "GET / HTTP/1.1\r\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\r\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\u{7f}b\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\u{1}b\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\n\tX: a\r\n\r\n",
            "GET / HTTP/1.1\r\nX : a\r\n\r\n",
            "GET / HTTP/1.1\r\nX\t: a\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nX\r\n\r\n",
            "GET / HTTP/1.1\r\nX(y): a\r\n\r\n",
            "GET / HTTP/1.1\r\nX\u{e4}: a\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET /  HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 \r\n\r\n",
            "GET\t/\tHTTP/1.1\r\n\r\n",
            "GET / a HTTP/1.1\r\n\r\n",
            "GET /a#b HTTP/1.1\r\n\r\n",
            "GET /a\u{7f} HTTP/1.1\r\n\r\n",
            "GET /a\0 HTTP/1.1\r\n\r\n",
            "GE(T / HTTP/1.1\r\n\r\n",
            "GET /\r\n",
            "GET / HTTP\r\n\r\n",
            "GET / http/1.1\r\n\r\n",
            "GET / HTTP/1.10\r\n\r\n",
            "GET / HTTP/11\r\n\r\n",
            "GET / FTP/1.1\r\n\r\n",
        ] {
            assert_eq!(refused(text), Refusal::BadHead, "{text:?}");
        }
    }

    #[test]
    fn other_versions_are_told_apart() {
        for text in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/3.0\r\n\r\n", "GET / HTTP/1.2\r\n\r\n", "GET / HTTP/0.9\r\n\r\n"] {
            assert_eq!(refused(text), Refusal::VersionNotSupported, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_bounded_before_all_of_it_is_here() {
        let long_target = format!("GET /{}", "a".repeat(H1_REQUEST_LINE_BYTES_MAX));
        assert_eq!(cut(long_target.as_bytes(), 1000).unwrap_err(), Refusal::TargetTooLong);
        let long_field = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(H1_HEAD_BYTES_MAX));
        assert_eq!(cut(long_field.as_bytes(), 1000).unwrap_err(), Refusal::FieldsTooLarge);
        let with = |fields: usize| format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(fields));
        assert!(cut(with(FIELDS_MAX).as_bytes(), 1000).unwrap().is_none());
        assert_eq!(cut(with(FIELDS_MAX + 1).as_bytes(), 1000).unwrap_err(), Refusal::FieldsTooLarge);
        let method = |bytes: usize| cut(format!("{} / HTTP/1.1\r\n\r\n", "A".repeat(bytes)).as_bytes(), 1000);
        assert!(method(METHOD_BYTES_MAX).unwrap().is_some());
        assert_eq!(method(METHOD_BYTES_MAX + 1).unwrap_err(), Refusal::MethodNotSupported);
    }
}
