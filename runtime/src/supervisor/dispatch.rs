//! What the messages of a runner do to its link. All that one read brought is taken under one lock; what must happen
//! outside of it (reports, subrequests, the end of versions) comes out as events.

use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;

use super::call::{self, Asked, Call};
use super::limits::{OUTBOX_ABANDON_BYTES, POINTS_CONTAINED};
use super::link::{Link, State, index};
use super::phase::Phase;
use super::placement::Placement;
use super::stream::{Entry, Head, Verdict};
use super::ticket::Ticket;
use crate::protocol::{BodyKind, Part, ProtocolError, ResponseHead, Slot, StreamId, ToEdge, ToRunner, encode};
use crate::{BodyError, Host, LogLine, Outcome, RunError};

/// What comes of one read. Kept between reads so that it is not allocated for each.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) messages: Vec<ToEdge>,
    pub(super) wakers: Vec<Waker>,
    pub(super) events: Vec<Event>,
}

/// What must happen outside the link's lock.
pub(super) enum Event {
    /// An invocation has ended.
    Finished { ticket: Option<Ticket>, placement: Arc<Placement>, outcome: Outcome, cpu_us: u64, heap_bytes: u64 },
    /// A version can take invocations.
    Loaded { placement: Arc<Placement>, cpu_us: u64, heap_bytes: u64 },
    /// A version's isolate is gone.
    Gone { placement: Arc<Placement>, outcome: Outcome, message: String },
    /// A thread does not obey.
    Stuck { stream: StreamId, slot: Slot, outcome: Outcome },
    /// A worker asks for something.
    Call(Box<Call>),
    /// A worker logs.
    Log { host: Arc<dyn Host>, line: LogLine },
    /// A version logs outside of any invocation: while it loads, or later.
    LoadLog { placement: Arc<Placement>, line: LogLine },
    /// An invocation came back. Its report, where nobody waits for it any more.
    Bounced(Option<Ticket>),
}

impl Link {
    /// Takes all messages of `batch`. An error ends the runner; what came before it has been taken.
    pub(super) fn take(&self, batch: &mut Batch, now: Instant) -> Result<(), ProtocolError> {
        let Batch { messages, wakers, events } = batch;
        let mut state = self.state.lock();
        let mut result = Ok(());
        for message in messages.drain(..) {
            result = self.take_one(&mut state, message, (wakers, events), now);
            if result.is_err() {
                break;
            }
        }
        if state.outbox.len() > OUTBOX_ABANDON_BYTES {
            result = result.and(Err(ProtocolError::Order("what is said to it is not read")));
        }
        self.flush(state);
        result
    }

    fn take_one(
        &self,
        state: &mut State,
        message: ToEdge,
        (wakers, events): (&mut Vec<Waker>, &mut Vec<Event>),
        now: Instant,
    ) -> Result<(), ProtocolError> {
        match message {
            ToEdge::Response { stream, head, body } => {
                if let Some(entry) = live(state, stream) {
                    wakers.extend(entry.respond(head, body, now)?);
                }
            }
            ToEdge::Done { stream, outcome, cpu_us, heap_bytes } => {
                if let Some(entry) = live(state, stream) {
                    events.push(entry.finish(wakers, outcome, (cpu_us, heap_bytes)));
                    if !entry.owned {
                        self.remove(state, stream);
                    }
                }
            }
            ToEdge::Fetch { stream, part, head, redirect, cache, body } => {
                events.extend(call::admit(state, (stream, part), Asked::Fetch { head, redirect, cache, body })?);
            }
            ToEdge::Cache { stream, part, ask } => events.extend(call::admit(state, (stream, part), Asked::Cache(ask))?),
            ToEdge::Purge { stream, part, purge } => events.extend(call::admit(state, (stream, part), Asked::Purge(purge))?),
            ToEdge::PassThrough { stream } => {
                // At once, not as an event: whoever hears of the failure must find it said.
                if let Some(ticket) = live(state, stream).and_then(|entry| entry.ticket.as_ref()) {
                    ticket.host.pass_through();
                }
            }
            ToEdge::Stays { stream } => {
                if let Some(entry) = live(state, stream) {
                    entry.stays(now);
                }
            }
            ToEdge::Log { stream, slot, level, message, exception, place } => {
                events.extend(log(state, stream, slot, LogLine { level, message, exception, place }));
            }
            ToEdge::Failed { stream, outcome, message } => {
                if let Some(entry) = live(state, stream) {
                    wakers.extend(entry.failed(outcome, message, now));
                }
            }
            ToEdge::Bounced { stream } => {
                if let Some(entry) = live(state, stream) {
                    events.push(entry.bounce(wakers)?);
                    if !entry.owned {
                        self.remove(state, stream);
                    }
                }
            }
            ToEdge::Loaded { slot, cpu_us, heap_bytes } => {
                let placement = state.slots.get(&slot).cloned();
                events.extend(placement.map(|placement| Event::Loaded { placement, cpu_us, heap_bytes }));
            }
            ToEdge::Gone { slot, outcome, message } => {
                let placement = state.slots.remove(&slot);
                events.extend(placement.map(|placement| Event::Gone { placement, outcome, message }));
            }
            ToEdge::Stuck { stream, slot, outcome } => events.push(Event::Stuck { stream, slot, outcome }),
            ToEdge::Hello { .. } => return Err(ProtocolError::Order("a second hello")),
            ToEdge::BodyData { .. } | ToEdge::BodyEnd { .. } | ToEdge::Credit { .. } | ToEdge::Abandon { .. } => {
                take_flow(state, message, wakers, now)?;
            }
        }
        Ok(())
    }
}

/// Takes a message about a body.
fn take_flow(state: &mut State, message: ToEdge, wakers: &mut Vec<Waker>, now: Instant) -> Result<(), ProtocolError> {
    match message {
        ToEdge::BodyData { stream, part, bytes } => wakers.extend(body_data(state, stream, part, bytes, now)?),
        ToEdge::BodyEnd { stream, part, error } => {
            if let Some(entry) = live(state, stream) {
                wakers.extend(entry.body_end(part, error, now)?);
            }
        }
        ToEdge::Credit { stream, part, bytes } => {
            if let Some(outbound) = live(state, stream).and_then(|entry| entry.outbound(part)) {
                wakers.extend(outbound.credited(bytes)?);
            }
        }
        ToEdge::Abandon { stream, part } => {
            if let Some(entry) = live(state, stream) {
                entry.abandon(wakers, part);
            }
        }
        _ => {}
    }
    Ok(())
}

/// The entry of a stream that has not ended; a message for another one is late, and ignored.
fn live(state: &mut State, stream: StreamId) -> Option<&mut Entry> {
    state.entry(stream).filter(|entry| !entry.done)
}

impl Entry {
    fn respond(&mut self, head: Box<ResponseHead>, body: BodyKind, now: Instant) -> Result<Option<Waker>, ProtocolError> {
        match self.head {
            Head::Waiting => {}
            // The edge has given up on it, and the runner could not know.
            Head::Failed(_) => return Ok(None),
            Head::Taken if matches!(self.phase, Phase::Cancelled(_)) => return Ok(None),
            _ => return Err(ProtocolError::Order("a second response")),
        }
        match &body {
            BodyKind::Stream(_) => {
                self.inbound.opens();
                if matches!(self.phase, Phase::Head(_)) {
                    self.phase = Phase::Body(now);
                }
            }
            _ => self.response_ends(now),
        }
        self.head = Head::Ready(head, body);
        Ok(self.head_waker.take())
    }

    /// There will be no response, or no more of it.
    fn failed(&mut self, outcome: Outcome, message: String, now: Instant) -> Option<Waker> {
        let outcome = if outcome == Outcome::Ok { Outcome::InternalError } else { outcome };
        let waker = if outcome == Outcome::RunnerLost && matches!(self.head, Head::Waiting) {
            // Its isolate went with another invocation: as if its runner had died.
            self.head = Head::Lost { started: true };
            self.head_waker.take()
        } else {
            self.fail(Verdict { outcome, message })
        };
        self.response_ends(now);
        waker
    }

    fn body_end(&mut self, part: Part, error: Option<String>, now: Instant) -> Result<Option<Waker>, ProtocolError> {
        if part == 0 {
            self.response_ends(now);
        }
        let Some(inbound) = self.inbound(part) else { return Ok(None) };
        if !inbound.open {
            // It may have been cut by the edge meanwhile.
            return if inbound.end.is_some() { Ok(None) } else { Err(ProtocolError::Order("the end of no body")) };
        }
        let waker = inbound.ends(match error {
            None => Ok(()),
            Some(_) if part == 0 => Err(BodyError::Worker(Outcome::Exception)),
            Some(message) => Err(BodyError::Aborted(message)),
        });
        // A call that was answered before its body had come stayed for the body.
        self.subs.retain(|sub| sub.part != part || !sub.answered || !sub.inbound.is_forsaken());
        Ok(waker)
    }

    /// The worker wants no more of a body; of a call also neither its answer nor to send the rest of what it sends.
    fn abandon(&mut self, wakers: &mut Vec<Waker>, part: Part) {
        if let Some(outbound) = self.outbound(part) {
            outbound.closed = true;
            wakers.extend(outbound.waker.take());
        }
        self.refused.retain(|(refused, _)| *refused != part);
        if part != 0
            && let Some(inbound) = self.inbound(part)
        {
            wakers.extend(inbound.ends(Err(BodyError::Aborted("the worker abandoned its call".to_owned()))));
            self.subs.retain(|sub| sub.part != part || !sub.answered);
        }
    }

    fn bounce(&mut self, wakers: &mut Vec<Waker>) -> Result<Event, ProtocolError> {
        let given_up = matches!(self.phase, Phase::Cancelled(_));
        match self.head {
            Head::Waiting => self.head = Head::Bounced,
            // It ends here, and whoever held it has been answered.
            Head::Failed(_) | Head::Taken if given_up => {}
            _ => return Err(ProtocolError::Order("bounced after its response")),
        }
        self.close(wakers, Outcome::Canceled);
        Ok(Event::Bounced(if given_up { self.ticket.take() } else { None }))
    }

    fn finish(&mut self, wakers: &mut Vec<Waker>, outcome: Outcome, (cpu_us, heap_bytes): (u64, u64)) -> Event {
        // A handler that fails because the request's body stalled is not what failed: the limit on that wait has ended it.
        let stalled = matches!(self.request_body, Some(BodyError::Stalled { .. }));
        let outcome = if outcome == Outcome::Exception && stalled { Outcome::ExceededWallTime } else { outcome };
        if matches!(self.head, Head::Waiting) {
            let outcome = if outcome == Outcome::Ok { Outcome::InternalError } else { outcome };
            let message = "the invocation ended without a response".to_owned();
            wakers.extend(self.fail(Verdict { outcome, message }));
        }
        let cut = if outcome == Outcome::Ok { Outcome::InternalError } else { outcome };
        self.close(wakers, cut);
        // Who hears that it is lost decides whether it runs again, and has the duty to report.
        let heard = self.owned && matches!(self.head, Head::Lost { .. });
        let ticket = if heard { None } else { self.ticket.take() };
        Event::Finished { ticket, placement: self.placement.clone(), outcome, cpu_us, heap_bytes }
    }
}

fn body_data(state: &mut State, stream: StreamId, part: Part, bytes: Bytes, now: Instant) -> Result<Option<Waker>, ProtocolError> {
    let State { streams, outbox, .. } = state;
    let Some(entry) = streams.get_mut(index(stream)).filter(|entry| entry.id == stream && !entry.done) else { return Ok(None) };
    entry.progress(now);
    // A part that is gone: its subrequest has ended, and the runner could not know.
    let Some(inbound) = entry.inbound(part) else { return Ok(None) };
    if !inbound.open {
        return if inbound.end.is_some() { Ok(None) } else { Err(ProtocolError::Order("bytes of no body")) };
    }
    let waker = inbound.receive(bytes)?;
    if inbound.unwanted
        && part != 0
        && let Some(bytes) = inbound.grant()
    {
        // Cannot fail: it has no field with a bound.
        let _ = encode(outbox, &ToRunner::Credit { stream, part, bytes });
    }
    Ok(waker)
}

fn log(state: &mut State, stream: StreamId, slot: Slot, mut line: LogLine) -> Option<Event> {
    if stream == 0 {
        let placement = state.slots.get(&slot)?.clone();
        if placement.logged.lock().admits(line.message.len())? {
            line.message = "more lines outside of invocations are dropped".to_owned();
        }
        return Some(Event::LoadLog { placement, line });
    }
    let entry = live(state, stream)?;
    let host = entry.ticket.as_ref()?.host.clone();
    if entry.logged.admits(line.message.len())? {
        line.message = "more lines of this invocation are dropped".to_owned();
    }
    Some(Event::Log { host, line })
}

impl Event {
    /// Points that an outcome costs its version, where its runner has contained it.
    pub(super) const fn points(outcome: Outcome) -> u32 {
        match outcome {
            Outcome::ExceededCpu | Outcome::ExceededMemory => POINTS_CONTAINED,
            _ => 0,
        }
    }
}

/// What a link's end does to what runs there.
pub(super) struct Burial {
    /// Invocations that caused it, or are suspected to have: they are answered with this outcome and never run again.
    pub(super) offenders: Vec<StreamId>,
    /// Theirs.
    pub(super) outcome: Outcome,
    /// What is said of it.
    pub(super) message: &'static str,
}

impl Link {
    /// Ends the link: everything that runs there is answered or handed back, and nothing starts there any more.
    pub(super) fn bury(&self, burial: &Burial) -> Vec<Arc<Placement>> {
        let (mut wakers, mut tickets, mut over) = (Vec::new(), Vec::new(), Vec::new());
        let mut state = self.state.lock();
        self.shut();
        state.closed = true;
        let placements = state.slots.drain().map(|(_, placement)| placement).collect();
        for (key, entry) in &mut state.streams {
            if entry.done {
                continue;
            }
            let offender = burial.offenders.contains(&entry.id);
            let outcome = if offender { burial.outcome } else { Outcome::RunnerLost };
            if offender {
                let verdict = Verdict { outcome, message: burial.message.to_owned() };
                wakers.extend(entry.fail(verdict));
            } else if matches!(entry.head, Head::Waiting) {
                // Its caller decides whether it runs again, and has the duty to report.
                entry.head = Head::Lost { started: self.area.has_started(entry.id) };
            }
            if !entry.owned || !matches!(entry.head, Head::Lost { .. }) {
                tickets.extend(entry.ticket.take().map(|ticket| (ticket, outcome)));
            }
            entry.close(&mut wakers, outcome);
            if !entry.owned {
                over.push(key);
            }
        }
        for key in over {
            state.streams.remove(key);
        }
        wakers.extend(state.flusher.take());
        self.settle_count(&state);
        drop(state);
        for (ticket, outcome) in tickets {
            ticket.finish(outcome, 0, 0);
        }
        wakers.into_iter().for_each(Waker::wake);
        placements
    }

    /// Which invocation holds the thread, by the board, and the version it runs.
    pub(super) fn holder(&self) -> Option<(StreamId, Arc<Placement>)> {
        if self.area.turn_started_ns() == 0 {
            return None;
        }
        let mut state = self.state.lock();
        let stream = self.area.running();
        state.entry(stream).map(|entry| (stream, entry.placement.clone()))
    }
}

/// A run that ended with its runner.
pub(super) fn lost(retry_after: std::time::Duration) -> RunError {
    let message = "the runner process ended while the invocation ran".to_owned();
    RunError { outcome: Outcome::RunnerLost, message, retry_after: Some(retry_after), request_body: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Board;
    use crate::supervisor::socket::{End, Socket};

    #[tokio::test]
    async fn a_runner_that_does_not_read_is_given_up_at_a_bound() {
        let (ours, _theirs) = End::pair().expect("a socket pair");
        let area = Board::create(1).expect("a board").area(0).expect("an area");
        let link = Link::new(1, (0, 1), area, Socket::new(ours).expect("inside a runtime"));
        let take = || link.take(&mut Batch::default(), Instant::now());
        link.state.lock().outbox.resize(OUTBOX_ABANDON_BYTES, 0);
        assert_eq!(take(), Ok(()));
        link.state.lock().outbox.resize(OUTBOX_ABANDON_BYTES + 1, 0);
        assert_eq!(take(), Err(ProtocolError::Order("what is said to it is not read")));
    }
}
