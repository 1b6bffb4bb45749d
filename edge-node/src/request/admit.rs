//! What an overloaded node does not begin for a request. Hits never come here, and what a worker asks for belongs to a request that was let in.

use selvedge_runtime::{Outcome, RunError, Work};

use super::RequestPath;
use super::error::RequestError;
use super::route::{Aim, Answerer};
use super::trail::Trail;
use crate::limits::RETRY_AFTER_PASSING;
use crate::upstream::UpstreamError;

/// Before whoever answers is asked. An error where the node has too much to do for that: to those who hold something stored it is an upstream that is away.
pub(super) fn admit(path: &RequestPath, aim: &Aim, trail: &Trail) -> Result<(), RequestError> {
    let sheds = |work| path.strain.refuses(work) && !trail.is_let_in() && path.strain.sheds(work);
    match &aim.answerer {
        Answerer::Worker(worker, version) if sheds(Work::Worker) => {
            trail.runs(version);
            let message = "the node is overloaded".to_owned();
            let error = RunError { outcome: Outcome::LoadShed, message, retry_after: Some(RETRY_AFTER_PASSING), request_body: None };
            Err(RequestError::Run { worker: worker.name.clone(), version: version.source.version.clone(), error })
        }
        Answerer::Upstream(_) if sheds(Work::Miss) => Err(UpstreamError::Shed.into()),
        Answerer::Worker(..) | Answerer::Upstream(_) | Answerer::Outside => Ok(()),
    }
}
