//! What a worker asks of the edge while it runs: admitted against the budget of its invocation, carried out by the host, answered.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;

use super::fetch::{self, bytes_of, refuse};
use super::held::Held;
use super::link::{Link, State, index};
use super::phase::Phase;
use super::placement::Placement;
use super::stream::{Inbound, Outbound, Sub};
use super::{cache, dispatch::Event};
use crate::protocol::{
    BodyKind, CacheCallHead, CacheHead, EncodeError, INITIAL_CREDIT, OUTBOX_BYTES_MAX, Part, ProtocolError, RequestHead,
    SUBREQUESTS_RUNNING_MAX, StreamId, ToRunner, encode,
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
    held: Held,
}

/// Why one is not carried out.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(super) enum Refusal {
    #[error("Too many subrequests: the limit of one invocation is {0}.")]
    TooMany(u32),
    #[error("Too many subrequests at once: the limit is {}.", SUBREQUESTS_RUNNING_MAX)]
    AtOnce,
    #[error("Too many subrequests at once: they and their answers hold too much memory.")]
    TooMuch,
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
        match self {
            Self::Fetch { body, .. } => matches!(body, BodyKind::Stream(_)),
            Self::Cache(ask) => matches!(ask.call, CacheCallHead::Put(_, BodyKind::Stream(_))),
            Self::Purge(_) => false,
        }
    }

    /// What it makes the edge hold.
    fn bytes(&self) -> usize {
        match self {
            Self::Fetch { head, body, .. } => head.url.len() + bytes_of(&head.headers, body),
            Self::Cache(ask) => {
                let put = if let CacheCallHead::Put(head, body) = &ask.call { bytes_of(&head.headers, body) } else { 0 };
                ask.url.len() + bytes_of(&ask.headers, &BodyKind::Empty) + put
            }
            Self::Purge(purge) => {
                let names = [&purge.tags, &purge.path_prefixes, &purge.urls, &purge.prefixes, &purge.hosts];
                names.into_iter().flatten().map(String::len).sum()
            }
        }
    }
}

/// Counts a call as a subrequest of its invocation, or refuses it: there and then, or where the outbox has no room, as soon as it has.
pub(super) fn admit(state: &mut State, (stream, part): (StreamId, Part), asked: Asked) -> Result<Option<Event>, ProtocolError> {
    let congested = state.is_congested();
    let State { streams, outbox, .. } = state;
    let Some(entry) = streams.get_mut(index(stream)).filter(|entry| entry.id == stream && !entry.done) else { return Ok(None) };
    if part <= entry.last_part {
        return Err(ProtocolError::Order("a subrequest's number is not above the last"));
    }
    entry.last_part = part;
    let max = entry.limits().subrequests_max;
    let Some(ticket) = entry.ticket.as_mut().filter(|_| !matches!(entry.phase, Phase::Cancelled(_))) else { return Ok(None) };
    let refusal = if ticket.subrequests >= max {
        Refusal::TooMany(max)
    } else if entry.subs.iter().filter(|sub| !sub.outbound.closed).count() >= SUBREQUESTS_RUNNING_MAX {
        Refusal::AtOnce
    } else if let Some(held) = entry.placement.holding.ask(asked.bytes()) {
        ticket.subrequests += 1;
        let (left, host) = (max - ticket.subrequests, ticket.host.clone());
        let mut inbound = Inbound::default();
        if asked.streams() {
            inbound.opens();
        }
        entry.subs.push(Sub { part, inbound, outbound: Outbound::new(INITIAL_CREDIT), answered: false });
        let placement = entry.placement.clone();
        return Ok(Some(Event::Call(Box::new(Call { stream, part, asked, left, host, placement, held }))));
    } else {
        Refusal::TooMuch
    };
    if !congested {
        say(outbox, (stream, part), refusal);
    } else if entry.refused.len() < SUBREQUESTS_RUNNING_MAX {
        entry.refused.push((part, refusal));
        state.congested = true;
    } else {
        return Err(ProtocolError::Order("more calls than may wait for an answer"));
    }
    Ok(None)
}

fn say(outbox: &mut BytesMut, (stream, part): (StreamId, Part), refusal: Refusal) {
    // Cannot fail: a text is cut to its bound.
    let _ = encode(outbox, &ToRunner::Fetched { stream, part, result: Err(refusal.to_string()), url: String::new(), redirects: 0 });
}

impl State {
    /// Says which calls were refused, as far as the outbox has room.
    pub(super) fn say_refusals(&mut self) {
        for (_, entry) in &mut self.streams {
            if self.outbox.len() > OUTBOX_BYTES_MAX / 2 {
                self.congested |= !entry.refused.is_empty();
                continue;
            }
            for (part, refusal) in entry.refused.drain(..) {
                say(&mut self.outbox, (entry.id, part), refusal);
            }
        }
    }
}

/// Carries it out and sends the answer. Ends early when the worker abandons it or the invocation ends.
pub(super) async fn run(link: Arc<Link>, call: Box<Call>) {
    let Call { stream, part, asked, left, host, placement, held } = *call;
    match asked {
        Asked::Fetch { head, redirect, cache, body } => match fetch::subrequest(&link, (stream, part), *head, body) {
            Err(message) => refuse(&link, stream, part, message).await,
            Ok(request) => {
                let subrequest = fetch::limited(request, redirect, cache, left);
                match unless_abandoned(&link, (stream, part), host.fetch(subrequest)).await {
                    None => {}
                    Some(Err(error)) => refuse(&link, stream, part, error.message).await,
                    Some(Ok(fetched)) => {
                        drop(held);
                        fetch::answer(&placement, stream, part, fetched).await;
                    }
                }
            }
        },
        Asked::Cache(ask) => {
            let ask = cache::ask(&link, (stream, part), *ask);
            match unless_abandoned(&link, (stream, part), host.cache(ask)).await {
                None => {}
                Some(Err(error)) => refuse(&link, stream, part, error.message).await,
                Some(Ok(answer)) => {
                    drop(held);
                    cache::answer(&placement, (stream, part), answer).await;
                }
            }
        }
        Asked::Purge(purge) => {
            if let Some(made) = unless_abandoned(&link, (stream, part), host.purge(*purge)).await {
                // Cannot fail: a text is cut to its bound.
                let _ = link.answer(stream, part, &ToRunner::Purged { stream, part, refused: made.err() }).await;
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
    /// Sends the answer to a call as soon as the outbox has room: what its runner does not read must not gather there. Unless nobody wants it.
    pub(super) async fn answer(&self, stream: StreamId, part: Part, message: &ToRunner) -> Result<(), EncodeError> {
        poll_fn(|cx| self.poll_answer(stream, part, message, cx)).await
    }

    fn poll_answer(&self, stream: StreamId, part: Part, message: &ToRunner, cx: &mut Context<'_>) -> Poll<Result<(), EncodeError>> {
        let mut state = self.state.lock();
        let congested = state.is_congested();
        let closed = state.closed;
        let entry = state.entry(stream).filter(|entry| !entry.done && !closed);
        let Some(outbound) = entry.and_then(|entry| entry.outbound(part)).filter(|outbound| !outbound.closed) else {
            return Poll::Ready(Ok(()));
        };
        if congested {
            outbound.waker = Some(cx.waker().clone());
            state.congested = true;
            return Poll::Pending;
        }
        let sent = encode(&mut state.outbox, message);
        self.flush(state);
        Poll::Ready(sent)
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
