//! An operation of a worker's own cache: put to the host, answered to the runner.

use std::sync::Arc;

use super::link::Link;
use super::placement::Placement;
use super::{download, fetch};
use crate::protocol::{CacheCallHead, CacheHead, Part, StreamId, ToRunner};
use crate::{CacheAnswer, CacheAsk, CacheCall, Fetched};

/// The operation as the host gets it; the body of a `put` comes as the worker sends it.
pub(super) fn ask(link: &Arc<Link>, (stream, part): (StreamId, Part), head: CacheHead) -> CacheAsk {
    let CacheHead { name, url, headers, call } = head;
    let call = match call {
        CacheCallHead::Match => CacheCall::Match,
        CacheCallHead::Delete => CacheCall::Delete,
        CacheCallHead::Put(head, body) => CacheCall::Put(download::response(link, stream, part, head, body)),
    };
    CacheAsk { name, url, headers, call }
}

/// Sends the answer, and the body of what was found as the worker's credit allows.
pub(super) async fn answer(placement: &Placement, (stream, part): (StreamId, Part), answer: CacheAnswer) {
    let (yes, note) = match answer {
        CacheAnswer::Found(response) => {
            let found = Fetched { response, url: String::new(), redirects: 0 };
            return fetch::answer(placement, stream, part, found).await;
        }
        CacheAnswer::Yes => (true, None),
        CacheAnswer::No(note) => (false, note.map(str::to_owned)),
    };
    // Cannot fail: a text is cut to its bound.
    let _ = placement.link.answer(stream, part, &ToRunner::Settled { stream, part, yes, note }).await;
}
