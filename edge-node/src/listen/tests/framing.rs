//! Requests that two parsers could read in two ways: the table for HTTP/1.1, and how any fields are written into frames. Sent to the listener alone (`smuggling.rs`), and to a
//! whole node by the tests of the product.

/// What is hidden behind each request of the first table, and must never be understood as one.
pub(crate) const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// Why, how the head goes on after its first line, what follows it.
pub(crate) type Row = (&'static str, &'static str, &'static str, &'static str);

/// Sent with POST to `/count`, after a good request, and before the hidden one.
pub(crate) const FRAMING: &[Row] = &[
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nContent-Length: 0\r\nContent-Length: 43\r\n", ""),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nContent-Length: 1\r\nContent-Length: 1\r\n", "x"),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nContent-Length: 1, 1\r\n", "x"),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nContent-Length: +1\r\n", "x"),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nContent-Length: -1\r\n", "x"),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nContent-Length: 1 1\r\n", "x"),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nContent-Length: 0x1\r\n", "x"),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nContent-Length: \r\n", ""),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nContent-Length: 18446744073709551617\r\n", "x"),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nTransfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nTransfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nTransfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nTransfer-Encoding:\r\n", "0\r\n\r\n"),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nTransfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"),
    ("bad_framing", "HTTP/1.0", "Host: a.example\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n", "0\r\n\r\n"),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nTransfer-Encoding: gzip\r\n", "0\r\n\r\n"),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nTransfer-Encoding: identity\r\n", ""),
    ("bad_framing", "HTTP/1.1", "Host: a.example\r\nTransfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
    ("bad_head", "HTTP/1.1", "Host: a.example\r\nTransfer-Encoding: \u{b}chunked\r\n", "0\r\n\r\n"),
    ("bad_head", "HTTP/1.1", "Host: a.example\r\nTransfer-Encoding : chunked\r\n", "0\r\n\r\n"),
    ("bad_head", "HTTP/1.1", "Host: a.example\r\n Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ("bad_head", "HTTP/1.1", "Host: a.example\r\nTransfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"),
    ("bad_head", "HTTP/1.1", "Host: a.example\r\nX: y\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ("bad_head", "HTTP/1.1", "Host: a.example\r\nX: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ("bad_head", "HTTP/1.1", "Host: a.example\r\nX: \0\r\n", ""),
    ("bad_head", "HTTP/1.1", "Host: a.example\r\n: x\r\n", ""),
    ("bad_head", "HTTP/1.1", "Host: a.example\r\nContent\u{0}-Length: 1\r\n", "x"),
    ("bad_head", "HTTP/1.1", "Host: a.example\r\nContent-Length\r\n", ""),
    ("bad_head", "HTTP/1.1\n", "Host: a.example\r\n", ""),
    ("bad_head", "", "Host: a.example\r\n", ""),
    ("bad_head", "HTTP/1.1 HTTP/1.1", "Host: a.example\r\n", ""),
    ("bad_host", "HTTP/1.1", "", ""),
    ("bad_host", "HTTP/1.0", "Connection: keep-alive\r\n", ""),
    ("bad_host", "HTTP/1.1", "Host: a.example\r\nHost: a.example\r\n", ""),
    ("bad_host", "HTTP/1.1", "Host: a.example\r\nHOST: b.example\r\n", ""),
    ("bad_host", "HTTP/1.0", "Host: a.example\r\nHost: a.example\r\nConnection: keep-alive\r\n", ""),
    ("bad_host", "HTTP/1.1", "Host: a.example, b.example\r\n", ""),
    ("bad_host", "HTTP/1.1", "Host: a.example/x\r\n", ""),
    ("bad_host", "HTTP/1.1", "Host: b@a.example\r\n", ""),
    ("version_not_supported", "HTTP/2.0", "Host: a.example\r\n", ""),
    ("version_not_supported", "HTTP/0.9", "Host: a.example\r\n", ""),
];

/// A request in HTTP/2's frames: fields are literal and never indexed (RFC 7541, section 6.2.3), so that they may be anything.
pub(crate) fn h2_request(fields: &[(&str, &str)], body: &str) -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x10);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, if body.is_empty() { 0x5 } else { 0x4 }, 1, &block));
    if !body.is_empty() {
        bytes.extend(frame(0, 0x1, 1, body.as_bytes()));
    }
    bytes
}
