//! Upstream connections against real servers: well-behaved ones of hyper, and hostile ones that write bytes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod dns;
mod groups;
mod http2;
mod interim;
mod pooling;
mod renewal;
mod servers;
mod strictness;
mod timeouts;
