//! The decoders as functions of arbitrary bytes, for fuzzing. They must return for every input, in memory bounded by
//! [`super::FRAME_BYTES_MAX`], and what they accept must survive being encoded and decoded again.

use bytes::BytesMut;

use super::decode::Decode;
use super::samples;
use super::{Decoder, Encode, READ_BYTES, ToEdge, ToRunner};

/// Decodes `bytes` as the edge does. Returns how many messages there were.
pub fn to_edge(bytes: &[u8]) -> usize {
    decode::<ToEdge>(bytes)
}

/// Decodes `bytes` as a runner does. Returns how many messages there were.
pub fn to_runner(bytes: &[u8]) -> usize {
    decode::<ToRunner>(bytes)
}

fn decode<M: Decode + Encode>(bytes: &[u8]) -> usize {
    let mut decoder = Decoder::<M>::new();
    let mut messages = 0;
    for piece in bytes.chunks(READ_BYTES) {
        decoder.buffer().extend_from_slice(piece);
        loop {
            match decoder.next() {
                Ok(Some(message)) => {
                    messages += 1;
                    again(&message);
                }
                Ok(None) => break,
                Err(_) => return messages,
            }
        }
    }
    messages
}

/// What was accepted is written as bytes that are read as the same: the second encoding equals the first.
fn again<M: Decode + Encode>(message: &M) {
    let mut first = BytesMut::new();
    message.encode(&mut first).expect("a decoded message is within every bound");
    let mut decoder = Decoder::<M>::new();
    decoder.buffer().extend_from_slice(&first);
    let decoded = decoder.next().expect("an encoded message decodes").expect("an encoded message is whole");
    let mut second = BytesMut::new();
    decoded.encode(&mut second).expect("a decoded message is within every bound");
    assert_eq!(first, second, "an encoded message decodes to itself");
}

/// One valid frame of every kind, in both directions, for fuzzers to begin with.
pub fn frames() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    (samples::to_edge().iter().map(frame).collect(), samples::to_runner().iter().map(frame).collect())
}

fn frame(message: &impl Encode) -> Vec<u8> {
    let mut out = BytesMut::new();
    message.encode(&mut out).expect("a sample is within every bound");
    out.to_vec()
}
