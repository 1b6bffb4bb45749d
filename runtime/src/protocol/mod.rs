//! What edge and runner say to each other over a link: one Unix stream socket for each JavaScript thread of a runner.
//!
//! Each side queues messages into an outbox and writes what is ready once per turn of its event loop; each side reads into
//! one large buffer and decodes many messages from one read (a write per message costs 9 µs more for each request).
//! Both sides treat the other's bytes as hostile: a malformed or oversized frame, an unknown number, a message for a stream
//! that does not exist where it must, ends the link (edge: the runner is killed; runner: it exits).
//!
//! A frame is its length (4 bytes, little endian, counting what follows), a tag and the fields in order; integers are
//! little endian, strings and byte strings are preceded by their length. [`encode`] writes a frame, [`Decoder`] reads them.
//! Beside the links, a [`Board`] in shared memory carries what must be readable when a thread no longer answers.

mod board;
mod decode;
mod encode;
pub mod exit;
mod fields;
pub mod fuzz;
mod limits;
mod message;
mod reader;
mod samples;
mod to_edge;
mod to_runner;
mod writer;

pub use board::{Area, Board, monotonic_ns};
pub use decode::{Decode, Decoder, ProtocolError};
pub use encode::{BodyRef, Encode, EncodeError, StartParts, encode, encode_response, encode_start};
pub use fields::{Fields, FieldsMut};
pub use limits::*;
pub use message::*;

/// Identity of the code that speaks the protocol. Edge and runner refuse each other unless theirs are equal.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), "-", env!("SELVEDGE_RUNTIME_DIGEST"));
