//! The V8 side of a runner process.

pub mod isolate;
pub mod snapshot;
