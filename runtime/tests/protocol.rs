//! The runner protocol's codec and board: what is written is read as the same, every bound holds on both of its sides, and no
//! bytes do more than end a link.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use selvedge_runtime::ClientInfo;
use selvedge_runtime::protocol::{
    Area, Board, BodyKind, BodyRef, CHUNK_BYTES_MAX, COPY_BYTES_MAX, Decoder, FRAME_BYTES_MAX, Fields, HEADERS_BYTES_MAX, HEADERS_MAX,
    LINKS_MAX, NAME_BYTES_MAX, ProtocolError, ResponseHead, StartParts, TEXT_BYTES_MAX, ToEdge, ToRunner, URL_BYTES_MAX, encode,
    encode_response, encode_start, fuzz,
};

/// Inputs of one run of `cargo test`, which is a debug build; a CI run gives a million and more by `SELVEDGE_FUZZ_INPUTS`.
const INPUTS: u64 = 150_000;

fn one<M: selvedge_runtime::protocol::Decode>(bytes: &[u8]) -> Result<Option<M>, ProtocolError> {
    let mut decoder = Decoder::new();
    decoder.buffer().extend_from_slice(bytes);
    decoder.next()
}

#[test]
fn every_message_is_read_as_it_was_written() {
    let (to_edge, to_runner) = fuzz::frames();
    for frame in &to_edge {
        assert_eq!(fuzz::to_edge(frame), 1);
    }
    for frame in &to_runner {
        assert_eq!(fuzz::to_runner(frame), 1);
    }
    assert_eq!(fuzz::to_edge(&to_edge.concat()), to_edge.len());
    assert_eq!(fuzz::to_runner(&to_runner.concat()), to_runner.len());
}

#[test]
fn a_frame_may_come_byte_by_byte() {
    let (to_edge, _) = fuzz::frames();
    let mut decoder = Decoder::<ToEdge>::new();
    let mut messages = 0;
    for byte in to_edge.concat() {
        decoder.buffer().extend_from_slice(&[byte]);
        while decoder.next().expect("valid").is_some() {
            messages += 1;
        }
    }
    assert_eq!(messages, to_edge.len());
}

#[test]
fn every_truncated_frame_is_refused() {
    let (to_edge, to_runner) = fuzz::frames();
    for frame in to_edge.iter().chain(&to_runner) {
        for len in 1..frame.len() - 4 {
            let mut cut = (len as u32).to_le_bytes().to_vec();
            cut.extend_from_slice(&frame[4..4 + len]);
            assert!(one::<ToEdge>(&cut).is_err() || one::<ToRunner>(&cut).is_err(), "{len} bytes of {frame:?}");
        }
    }
}

#[test]
fn a_start_from_parts_equals_the_message() {
    let uri: Uri = "https://shop.example:8443/cart?item=1".parse().expect("a URI");
    let mut headers = HeaderMap::new();
    headers.append("accept", HeaderValue::from_static("*/*"));
    let client = ClientInfo { http_protocol: "HTTP/2", tls_version: None, colo: "n".into() };
    let mut out = BytesMut::new();
    let mut written = Fields::with_capacity(0);
    written.push("host", b"shop.example");
    let written = written.freeze();
    let (method, body) = (&Method::PUT, BodyRef::Whole(b"x"));
    let parts = StartParts { stream: 5, slot: 6, method, uri: &uri, headers: &headers, written: &written, client: &client, body };
    encode_start(&mut out, parts).expect("within bounds");
    let Ok(Some(ToRunner::Start { stream: 5, slot: 6, head, client, body })) = one(&out) else { panic!("not a start") };
    assert_eq!((head.method, head.url.as_str()), (Method::PUT, "https://shop.example:8443/cart?item=1"));
    let fields: Vec<_> = head.headers.iter().collect();
    assert_eq!(fields, [(&b"accept"[..], &b"*/*"[..]), (b"host", b"shop.example")]);
    assert_eq!((client.http_protocol, client.tls_version), ("HTTP/2", None));
    assert_eq!(body, BodyKind::Whole(Bytes::from_static(b"x")));
}

#[test]
fn a_response_from_parts_equals_the_message() {
    let fields: [(&[u8], &[u8]); 2] = [(b"X-Own", b"1"), (b"x-own", b"2")];
    let mut out = BytesMut::new();
    encode_response(&mut out, 5, StatusCode::IM_A_TEAPOT, fields.into_iter(), BodyRef::Stream(None)).expect("within bounds");
    let Ok(Some(ToEdge::Response { stream: 5, head, body: BodyKind::Stream(None) })) = one(&out) else { panic!("not a response") };
    assert_eq!(head.status, 418);
    assert_eq!(head.headers.get_all("x-own").iter().collect::<Vec<_>>(), ["1", "2"]);
}

fn response_with(headers: HeaderMap) -> ToEdge {
    ToEdge::Response { stream: 1, head: Box::new(ResponseHead { status: StatusCode::OK, headers }), body: BodyKind::Empty }
}

#[test]
fn fields_hold_their_bounds() {
    let many = |count: usize| {
        let mut headers = HeaderMap::new();
        (0..count).for_each(|_| assert!(!headers.append("a", HeaderValue::from_static("")) || count > 0));
        response_with(headers)
    };
    let large = |bytes: usize| {
        let value = HeaderValue::from_bytes(&vec![b'v'; bytes - 1]).expect("a value");
        response_with(HeaderMap::from_iter([(http::HeaderName::from_static("a"), value)]))
    };
    let mut out = BytesMut::new();
    for good in [many(HEADERS_MAX), large(HEADERS_BYTES_MAX)] {
        out.clear();
        encode(&mut out, &good).expect("at the bound");
        assert!(matches!(one::<ToEdge>(&out), Ok(Some(ToEdge::Response { .. }))));
    }
    for bad in [many(HEADERS_MAX + 1), large(HEADERS_BYTES_MAX + 1)] {
        out.clear();
        assert_eq!(encode(&mut out, &bad).expect_err("beyond the bound").field, "headers");
        assert!(out.is_empty(), "a refused message leaves nothing behind");
    }
}

#[test]
fn bodies_hold_their_bound() {
    let data = |len: usize| ToEdge::BodyData { stream: 1, part: 0, bytes: vec![0; len].into() };
    let mut out = BytesMut::new();
    encode(&mut out, &data(CHUNK_BYTES_MAX)).expect("at the bound");
    assert!(matches!(one::<ToEdge>(&out), Ok(Some(ToEdge::BodyData { bytes, .. })) if bytes.len() == CHUNK_BYTES_MAX));
    assert_eq!(encode(&mut out, &data(CHUNK_BYTES_MAX + 1)).expect_err("beyond").max, CHUNK_BYTES_MAX);
    // The length inside the frame lies.
    out[13..17].copy_from_slice(&(CHUNK_BYTES_MAX as u32 + 1).to_le_bytes());
    assert!(matches!(one::<ToEdge>(&out), Err(ProtocolError::TooLong { field: "body", .. })));
}

#[test]
fn a_frame_holds_its_bound_before_anything_is_allocated() {
    for len in [0, FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
        assert_eq!(one::<ToEdge>(&len.to_le_bytes()).err(), Some(ProtocolError::Frame { len: len as usize }));
    }
    assert!(one::<ToEdge>(&(FRAME_BYTES_MAX as u32).to_le_bytes()).expect("may come").is_none());
}

#[test]
fn texts_for_operators_are_cut_at_a_character() {
    let mut out = BytesMut::new();
    let message = "é".repeat(TEXT_BYTES_MAX);
    encode(&mut out, &ToEdge::Gone { slot: 1, outcome: selvedge_runtime::Outcome::Ok, message }).expect("cut");
    let Ok(Some(ToEdge::Gone { message, .. })) = one(&out) else { panic!("not gone") };
    assert_eq!(message.len(), TEXT_BYTES_MAX);
    let long = ToEdge::Hello { build: "b".repeat(NAME_BYTES_MAX + 1), unsandboxed: String::new() };
    assert_eq!(encode(&mut out, &long).expect_err("names are not cut").field, "build");
}

#[test]
fn unknown_numbers_are_refused() {
    assert_eq!(one::<ToEdge>(&[1, 0, 0, 0, 99]).err(), Some(ProtocolError::UnknownNumber { field: "tag", number: 99 }));
    let mut out = BytesMut::new();
    encode(&mut out, &ToEdge::Stuck { stream: 0, slot: 1, outcome: selvedge_runtime::Outcome::Ok }).expect("fits");
    *out.last_mut().expect("a byte") = 200;
    assert_eq!(one::<ToEdge>(&out).err(), Some(ProtocolError::UnknownNumber { field: "outcome", number: 200 }));
}

#[test]
fn what_is_kept_of_a_small_frame_does_not_hold_the_read_buffer() {
    let mut out = BytesMut::new();
    for _ in 0..100 {
        encode(&mut out, &ToEdge::BodyData { stream: 1, part: 0, bytes: vec![1; COPY_BYTES_MAX / 2].into() }).expect("fits");
    }
    let mut decoder = Decoder::<ToEdge>::new();
    let mut kept = Vec::new();
    for piece in out.chunks(60_000) {
        decoder.buffer().extend_from_slice(piece);
        while let Some(ToEdge::BodyData { bytes, .. }) = decoder.next().expect("valid") {
            kept.push(bytes);
        }
    }
    assert_eq!(kept.len(), 100);
    assert!(kept.iter_mut().all(|bytes| std::mem::take(bytes).is_unique()));
}

#[test]
fn urls_hold_their_bound() {
    let fetch = |len: usize| ToEdge::Fetch {
        stream: 1,
        part: 1,
        head: Box::new(selvedge_runtime::protocol::RequestHead { method: Method::GET, url: "u".repeat(len), headers: HeaderMap::new() }),
        redirect: selvedge_runtime::Redirect::Follow,
        cache: None,
        body: BodyKind::Empty,
    };
    let mut out = BytesMut::new();
    encode(&mut out, &fetch(URL_BYTES_MAX)).expect("at the bound");
    assert!(one::<ToEdge>(&out).expect("valid").is_some());
    encode(&mut out, &fetch(URL_BYTES_MAX + 1)).expect_err("beyond");
}

/// xorshift64*: <https://vigna.di.unimi.it/ftp/papers/xorshift.pdf>. A fuzzer needs speed and the same inputs each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound.max(1)
    }
}

/// Valid frames with bytes changed, cut, doubled, joined; lengths made to lie; and now and then noise.
fn mutate(random: &mut Random, frames: &[Vec<u8>], input: &mut Vec<u8>) {
    input.clear();
    for _ in 0..=random.below(3) {
        input.extend_from_slice(&frames[random.below(frames.len())]);
    }
    for _ in 0..random.below(6) {
        let at = random.below(input.len());
        match random.below(6) {
            0 => input[at] = random.next() as u8,
            1 => input[at] ^= 1 << random.below(8),
            2 => input.truncate(at.max(5)),
            3 => input.insert(at, random.next() as u8),
            4 if at + 4 <= input.len() => {
                let lie = [0, 1, 0xff, 0xffff, 0x7fff_ffff, u32::MAX, random.next() as u32][random.below(7)];
                input[at..at + 4].copy_from_slice(&lie.to_le_bytes());
            }
            _ => drop(input.remove(at)),
        }
        if input.is_empty() {
            input.push(random.next() as u8);
        }
    }
    // The outer length is made true half of the time, so that the fields behind it are reached.
    if input.len() > 4 && random.below(2) == 0 {
        let len = (input.len() - 4) as u32;
        input[..4].copy_from_slice(&len.to_le_bytes());
    }
}

#[test]
fn no_bytes_do_more_than_end_a_link() {
    let inputs = std::env::var("SELVEDGE_FUZZ_INPUTS").ok().and_then(|inputs| inputs.parse().ok()).unwrap_or(INPUTS);
    let (to_edge, to_runner) = fuzz::frames();
    let mut random = Random(0x5e1_7ed6e);
    let mut input = Vec::new();
    let mut accepted = 0;
    for _ in 0..inputs / 2 {
        mutate(&mut random, &to_edge, &mut input);
        accepted += fuzz::to_edge(&input);
        mutate(&mut random, &to_runner, &mut input);
        accepted += fuzz::to_runner(&input);
    }
    // The fuzzer is no good if nothing passes the outermost checks.
    assert!(accepted as u64 > inputs / 10, "{accepted} of {inputs}");
}

#[test]
fn a_board_is_shared_and_checked() {
    let board = Board::create(2).expect("a board");
    let copy = || {
        // SAFETY: duplicating a descriptor that is open.
        let file = unsafe { std::os::fd::BorrowedFd::borrow_raw(board.as_raw_fd()) };
        file.try_clone_to_owned().expect("a descriptor")
    };
    let runner = Board::open(copy(), 2).expect("the same board");
    let (ours, theirs): (Area, Area) = (board.area(1).expect("an area"), runner.area(1).expect("an area"));
    theirs.beat(5);
    theirs.turn_begins(7, 1025);
    theirs.starts(1025);
    assert_eq!((ours.heartbeat_ns(), ours.turn_started_ns(), ours.running()), (5, 7, 1025));
    assert!(ours.has_started(1025) && !ours.has_started(2049) && !ours.has_started(1026));
    assert!(!board.area(0).expect("an area").has_started(1025));
    theirs.turn_ends();
    assert_eq!((ours.turn_started_ns(), ours.running()), (0, 0));
    assert!(board.area(2).is_none() && board.area(usize::MAX).is_none());
    assert!(Board::open(copy(), 1).is_err() && Board::open(copy(), 3).is_err(), "another size is another board");
    assert!(Board::create(0).is_err() && Board::create(LINKS_MAX + 1).is_err());
    let file = std::fs::File::from(copy());
    assert!(file.set_len(0).is_err(), "a board that can shrink would kill the edge");
    let plain = tempfile::tempfile().expect("a file");
    plain.set_len(16384).expect("a size");
    assert!(Board::open(plain.into(), 2).is_err(), "a file that is not sealed is no board");
}
