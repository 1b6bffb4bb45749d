//! Stage 1, ACCEPT: connections of three protocols become requests of one kind.

mod connection;

pub use connection::{Connection, Protocol, TlsInfo};
