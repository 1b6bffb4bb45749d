//! The rules of the registry: pure. Data and `now` in, a verdict or entries of the log out.

mod desired;
mod names;
mod records;

pub use desired::{Desired, DesiredWorker};
pub use names::{BadName, Digest, Epoch, NodeName, RequestId, VersionId, WorkerName};
pub use records::*;
