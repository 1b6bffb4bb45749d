//! What a worker asks of the edge while it runs: admitted against the budget of its invocation, carried out by the host, answered.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use super::fetch::{self, refuse};
use super::link::{Link, State, index};
use super::phase::Phase;
use super::placement::Placement;
use super::stream::{Inbound, Outbound, Sub};
use super::{cache, dispatch::Event};
use crate::protocol::{
    BodyKind, CacheHead, INITIAL_CREDIT, Part, ProtocolError, RequestHead, SUBREQUESTS_RUNNING_MAX, StreamId, ToRunner, encode,
};
use crate::{CachePurge, FetchCache, Host, Redirect};

/// Something that the edge shall do for a worker.
pub(super) struct Call {
    pub(super) stream: StreamId,
    pub(super) part: Part,
    pub(super) asked: Asked,
    /// Subrequests that are left after this one.
    pub(super) left: u32,
    pub(super) host: Arc<dyn Host>,
    pub(super) placement: Arc<Placement>,
}

/// What.
pub(super) enum Asked {
    /// A subrequest.
    Fetch { head: Box<RequestHead>, redirect: Redirect, cache: Option<Box<FetchCache>>, body: BodyKind },
    /// An operation of a cache of the worker's own.
    Cache(Box<CacheHead>),
    /// A purge of what is the worker's own.
    Purge(Box<CachePurge>),
}

impl Asked {
    /// Whether a body of the worker's follows.
    fn streams(&self) -> bool {
        use crate::protocol::CacheCallHead;
        match self {
            Self::Fetch { body, .. } => matches!(body, BodyKind::Stream(_)),
            Self::Cache(ask) => matches!(ask.call, CacheCallHead::Put(_, BodyKind::Stream(_))),
            Self::Purge(_) => false,
        }
    }
}

/// Counts a call as a subrequest of its invocation, or refuses it there and then.
pub(super) fn admit(state: &mut State, (stream, part): (StreamId, Part), asked: Asked) -> Result<Option<Event>, ProtocolError> {
    let State { streams, outbox, .. } = state;
    let Some(entry) = streams.get_mut(index(stream)).filter(|entry| entry.id == stream && !entry.done) else { return Ok(None) };
    if part <= entry.last_part {
        return Err(ProtocolError::Order("a subrequest's number is not above the last"));
    }
    entry.last_part = part;
    let max = entry.limits().subrequests_max;
    let Some(ticket) = entry.ticket.as_mut().filter(|_| !matches!(entry.phase, Phase::Cancelled(_))) else { return Ok(None) };
    let refusal = if ticket.subrequests >= max {
        format!("Too many subrequests: the limit of one invocation is {max}.")
    } else if entry.subs.iter().filter(|sub| !sub.outbound.closed).count() >= SUBREQUESTS_RUNNING_MAX {
        format!("Too many subrequests at once: the limit is {SUBREQUESTS_RUNNING_MAX}.")
    } else {
        ticket.subrequests += 1;
        let (left, host) = (max - ticket.subrequests, ticket.host.clone());
        let mut inbound = Inbound::default();
        if asked.streams() {
            inbound.opens();
        }
        entry.subs.push(Sub { part, inbound, outbound: Outbound::new(INITIAL_CREDIT), answered: false });
        let placement = entry.placement.clone();
        return Ok(Some(Event::Call(Box::new(Call { stream, part, asked, left, host, placement }))));
    };
    // Cannot fail: a text is cut to its bound.
    let _ = encode(outbox, &ToRunner::Fetched { stream, part, result: Err(refusal), url: String::new(), redirects: 0 });
    Ok(None)
}

/// Carries it out and sends the answer. Ends early when the worker abandons it or the invocation ends.
pub(super) async fn run(link: Arc<Link>, call: Box<Call>) {
    let Call { stream, part, asked, left, host, placement } = *call;
    let idle = placement.version.limits.body_idle_timeout();
    match asked {
        Asked::Fetch { head, redirect, cache, body } => match fetch::subrequest(&link, (stream, part), *head, body) {
            Err(message) => refuse(&link, stream, part, message),
            Ok(request) => {
                let subrequest = fetch::limited(request, redirect, cache, left);
                match unless_abandoned(&link, (stream, part), host.fetch(subrequest)).await {
                    None => {}
                    Some(Err(error)) => refuse(&link, stream, part, error.message),
                    Some(Ok(fetched)) => fetch::answer(&link, stream, part, fetched, idle).await,
                }
            }
        },
        Asked::Cache(ask) => {
            let ask = cache::ask(&link, (stream, part), *ask);
            match unless_abandoned(&link, (stream, part), host.cache(ask)).await {
                None => {}
                Some(Err(error)) => refuse(&link, stream, part, error.message),
                Some(Ok(answer)) => cache::answer(&link, (stream, part), answer, idle).await,
            }
        }
        Asked::Purge(purge) => {
            if let Some(made) = unless_abandoned(&link, (stream, part), host.purge(*purge)).await {
                // Cannot fail: a text is cut to its bound.
                let _ = link.send_for(stream, &ToRunner::Purged { stream, part, refused: made.err() });
            }
        }
    }
    link.close_part(stream, part);
}

/// What the host makes of it, unless nobody wants that any more.
async fn unless_abandoned<T>(link: &Link, (stream, part): (StreamId, Part), work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let done = work.as_mut().poll(cx);
        match (done, link.poll_unwanted(stream, part, cx)) {
            // Also where it has failed because its body was abandoned with it.
            (_, Poll::Ready(())) => Poll::Ready(None),
            (Poll::Ready(done), Poll::Pending) => Poll::Ready(Some(done)),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
        }
    })
    .await
}

impl Link {
    /// Sends a message about an invocation, unless that has ended.
    pub(super) fn send_for(&self, stream: StreamId, message: &ToRunner) -> Result<(), crate::protocol::EncodeError> {
        let alive = self.state.lock().entry(stream).is_some_and(|entry| !entry.done);
        if alive { self.send(message) } else { Ok(()) }
    }

    /// The call is over, but for a body that its consumer still reads, or that the worker still sends.
    fn close_part(&self, stream: StreamId, part: Part) {
        let mut state = self.state.lock();
        let Some(entry) = state.entry(stream) else { return };
        entry.subs.retain_mut(|sub| {
            sub.answered |= sub.part == part;
            sub.part != part || sub.inbound.open
        });
    }
}
