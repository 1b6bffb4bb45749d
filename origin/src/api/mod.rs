//! HTTP in, registry calls, HTTP out.

pub mod wire;
