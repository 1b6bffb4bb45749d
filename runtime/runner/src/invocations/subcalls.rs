//! What an invocation has asked the edge for: numbered, bounded, and ended.

use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use selvedge_runtime::CachePurge;
use selvedge_runtime::protocol::{
    CACHE_KEY_BYTES_MAX, CACHE_NAME_BYTES_MAX, CacheCallHead, CacheHead, INITIAL_CREDIT, Part, ResponseHead, SUBREQUESTS_RUNNING_MAX,
    StreamId, ToEdge,
};

use super::Invocations;
use super::calls::body_kind;
use super::live::{Incoming, Outgoing};
use crate::ops::{Asked, Given};

impl Invocations {
    /// The number of a new call to the edge, whose body may stream; or why there is none.
    pub(super) fn number_call(&self, stream: StreamId, body: &Given, what: &str) -> Result<Part, String> {
        let mut live = self.live.borrow_mut();
        let live = live.get_mut(&stream).ok_or_else(|| format!("the request that this {what} belongs to has ended"))?;
        if live.asked.len() >= SUBREQUESTS_RUNNING_MAX {
            return Err(format!("more than {SUBREQUESTS_RUNNING_MAX} subrequests are waiting for their answer"));
        }
        let part = live.last_call.checked_add(1).ok_or("too many subrequests")?;
        live.last_call = part;
        live.asked.push(part);
        if matches!(body, Given::Stream(_)) {
            live.outgoing.push(Outgoing { part, credit: INITIAL_CREDIT, starved: false });
        }
        Ok(part)
    }

    /// Asks for an operation of a cache; the call's number, or why there is none.
    pub(super) fn ask_cache(
        &self,
        stream: StreamId,
        name: Option<String>,
        url: String,
        headers: HeaderMap,
        asked: Asked,
    ) -> Result<Part, String> {
        if name.as_ref().is_some_and(|name| name.len() > CACHE_NAME_BYTES_MAX) {
            return Err(format!("the name of a cache is longer than {CACHE_NAME_BYTES_MAX} bytes"));
        }
        if url.len() > CACHE_KEY_BYTES_MAX {
            return Err(format!("the URL is longer than {CACHE_KEY_BYTES_MAX} bytes"));
        }
        let (part, call) = match asked {
            Asked::Match => (self.number_call(stream, &Given::Empty, "match()")?, CacheCallHead::Match),
            Asked::Delete => (self.number_call(stream, &Given::Empty, "delete()")?, CacheCallHead::Delete),
            Asked::Put { status, mut headers, body } => {
                let status = http::StatusCode::from_u16(status).map_err(|_| "invalid status")?;
                // The length is the body's own.
                headers.remove(CONTENT_LENGTH);
                // Last: a number that nothing is asked by would count as running for ever.
                let part = self.number_call(stream, &body, "put()")?;
                (part, CacheCallHead::Put(ResponseHead { status, headers }, body_kind(body)))
            }
        };
        self.surroundings.send(ToEdge::Cache { stream, part, ask: Box::new(CacheHead { name, url, headers, call }) });
        Ok(part)
    }

    /// Asks for a purge, as JSON; the call's number, or why there is none.
    pub(super) fn ask_purge(&self, stream: StreamId, purge: &str) -> Result<Part, String> {
        let purge = Box::new(CachePurge::read(purge.as_bytes())?);
        let part = self.number_call(stream, &Given::Empty, "purge()")?;
        self.surroundings.send(ToEdge::Purge { stream, part, purge });
        Ok(part)
    }

    /// A call was answered (or failed): its response's body may follow. False where nobody waits for the answer.
    pub(crate) fn answered(&self, stream: StreamId, part: Part, streams: bool) -> bool {
        let mut live = self.live.borrow_mut();
        let Some(live) = live.get_mut(&stream) else { return false };
        if !live.settle(part) {
            return false;
        }
        if streams {
            live.incoming.push(Incoming { part, credit: INITIAL_CREDIT, owed: 0 });
        }
        true
    }

    /// Nobody wants more of a body that JavaScript may still be sending. True if it waits for credit.
    pub(crate) fn unwanted(&self, stream: StreamId, part: Part) -> bool {
        let starved = {
            let mut live = self.live.borrow_mut();
            let Some(live) = live.get_mut(&stream) else { return false };
            let Some(body) = live.outgoing(part) else { return false };
            let starved = body.starved;
            live.outgoing.retain(|body| body.part != part);
            starved
        };
        self.surroundings.send(ToEdge::BodyEnd { stream, part, error: Some("nobody wants it".to_owned()) });
        starved
    }
}
