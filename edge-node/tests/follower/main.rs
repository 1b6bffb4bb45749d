//! Following a registry: one that tells the truth, one that is away, and one that lies.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fleet;
mod heard;
mod hostile;
mod ordinary;
mod purges;
mod real;
mod registry;
mod reports;
