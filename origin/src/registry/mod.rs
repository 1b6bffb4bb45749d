//! The rules of the registry: pure. Data and `now` in, a verdict or entries of the log out.

mod desired;
mod names;
mod records;

pub use desired::Desired;
pub use names::{BadName, Digest, NodeName, VersionId, WorkerName};
pub use records::*;
