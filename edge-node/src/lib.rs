//! An edge node: accepts connections, answers from its cache, runs workers, fetches from upstreams, follows the registry.
//!
//! The life of a request, in the order of the modules: [`listen`] accepts HTTP/1.1, HTTP/2 and HTTP/3 and hands every request
//! to [`request`], whose one function is the whole path: route, look up in the [`cache`], run a worker ([`workers`]) or fetch
//! from an [`upstream`], store, respond. The life of a deployment: [`deployments`] follows the registry's feed and swaps the
//! [`routes`] whole. [`node`] builds every part once.

mod admin;
pub mod cache;
pub mod config;
pub mod deployments;
pub mod limits;
pub mod listen;
pub mod metrics;
pub mod node;
pub mod request;
pub mod routes;
pub mod tasks;
pub mod upstream;
pub mod workers;

pub use config::NodeConfig;
pub use node::{Addresses, Node, StartError};

pub use selvedge_runtime::{Body, BodyError};
