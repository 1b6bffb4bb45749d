//! The registry: which workers exist in which versions, which of them take traffic, and which nodes run them.
//!
//! Reading order (the life of a deployment): [`bundle`] is what is uploaded; [`registry`] holds the rules, without HTTP, disk
//! or clock; `store` keeps records and bundles; [`api`] is HTTP in, registry calls, HTTP out; [`feed`] is the resumable stream
//! that nodes follow; [`client`] is how nodes and commands talk to all this. [`Origin`] is the whole as one value.

pub mod api;
pub mod bundle;
pub mod client;
pub mod feed;
pub mod keys;
pub mod limits;
pub mod machine;
pub mod network;
pub mod registry;
pub mod tls;
pub mod tokens;

mod ledger;
mod origin;
mod store;

pub use origin::{Origin, OriginConfig, OriginError};
