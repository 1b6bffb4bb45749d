//! For tests/fuzz: any bytes as what a client sends. However they are cut, they come to the same requests and the same refusal.

use std::fmt::Write;

use bytes::BytesMut;

use super::framing::{Decoder, Step};
use super::head::{self, Scan};

/// The first byte says how the rest is cut.
pub(in crate::listen) fn fuzz(bytes: &[u8]) {
    let Some((size, sent)) = bytes.split_first() else { return };
    let whole = understood(sent, sent.len().max(1));
    for size in [1, usize::from(*size).max(1)] {
        assert_eq!(understood(sent, size), whole, "in pieces of {size}");
    }
}

/// What a connection that gets these bytes in pieces of `size` makes of them.
fn understood(sent: &[u8], size: usize) -> String {
    let (mut input, mut scan) = (BytesMut::new(), Scan::default());
    let (mut text, mut body) = (String::new(), None);
    for piece in sent.chunks(size) {
        input.extend_from_slice(piece);
        loop {
            match &mut body {
                None => match head::parse(&mut input, &mut scan) {
                    Ok(None) => break,
                    Ok(Some(head)) => {
                        let _ = write!(text, "{head:?} ");
                        body = Decoder::new(head.coding);
                    }
                    Err(refusal) => return text + refusal.name(),
                },
                Some(decoder) => match decoder.decode(&mut input) {
                    Ok(Step::More) => break,
                    Ok(Step::Data(data)) => text.push_str(&data.escape_ascii().to_string()),
                    Ok(Step::End) => {
                        text.push_str(" end\n");
                        body = None;
                    }
                    Err(malformed) => return text + &malformed.to_string(),
                },
            }
        }
    }
    text
}
