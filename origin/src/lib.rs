//! The registry: which workers exist in which versions, which of them take traffic, and which nodes run them.
//!
//! Reading order (the life of a deployment): [`bundle`] is what is uploaded; [`registry`] holds the rules, without HTTP, disk
//! or clock; `store` keeps records and bundles; `api` is HTTP in, registry calls, HTTP out; `feed` is the resumable stream that
//! nodes follow; `client` is how nodes and commands talk to all this.

pub mod registry;
