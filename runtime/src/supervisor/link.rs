//! One link: the edge's end of the socket to one JavaScript thread of a runner, with the invocations that run there.
//!
//! Whoever has something to say appends it to the outbox; the writer sends what has gathered once per turn of the event
//! loop. Whoever waits for something leaves a waker with the invocation's entry; the reader wakes it after it has decoded all
//! that one read brought. There is one lock, held for no longer than one message takes to write.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use slab::Slab;

use super::limits::BUSY_NS;
use super::look::Look;
use super::phase::Phase;
use super::placement::Placement;
use super::socket::Socket;
use super::stream::{Entry, Head, Verdict};
use super::ticket::Ticket;
use crate::protocol::{
    Area, BodyKind, BodyRef, CHUNK_BYTES_MAX, EncodeError, OUTBOX_BYTES_MAX, Part, ResponseHead, STREAM_INDEX_BITS, STREAMS_MAX, Slot,
    StartParts, StreamId, ToRunner, encode, encode_start, monotonic_ns, versions_per_link,
};
use crate::{BodyError, Invocation, Outcome, RunError};

/// The edge's end of one link.
pub(super) struct Link {
    /// The number of its runner.
    pub(super) runner: u64,
    /// Which of the runner's links it is.
    pub(super) index: usize,
    pub(super) area: Area,
    /// Versions that it may hold.
    pub(super) slots_max: usize,
    pub(super) socket: Socket,
    pub(super) state: Mutex<State>,
    /// Bytes that calls make the edge hold.
    pub(super) held: Arc<AtomicUsize>,
    running: AtomicUsize,
    /// Held while a version is sent: one at a time, so that a runner holds one incomplete version per link.
    pub(super) sending: tokio::sync::Mutex<()>,
    /// New invocations may start here.
    open: AtomicBool,
}

/// What the link's lock protects.
pub(super) struct State {
    pub(super) streams: Slab<Entry>,
    pub(super) outbox: BytesMut,
    pub(super) slots: HashMap<Slot, Arc<Placement>>,
    /// The runner is given up or gone: nothing is started here any more.
    pub(super) closed: bool,
    /// The writer, while it has nothing to do.
    pub(super) flusher: Option<Waker>,
    /// Bodies and answers wait for the outbox to empty.
    pub(super) congested: bool,
    /// What the watchdog saw when it looked last.
    pub(super) looked: Option<Look>,
    generation: u32,
    next_slot: Slot,
}

/// Why an invocation was not started here.
pub(super) enum Refused {
    /// The link is full or closed: try another.
    Full(Ticket),
    /// No link would take it.
    Unfit(Ticket, EncodeError),
}

/// What the caller of an invocation hears of it.
pub(super) enum Heard {
    /// The response's head.
    Response(Box<ResponseHead>, BodyKind),
    /// There is none.
    Failed(RunError),
    /// The handler was not started: its duty to report comes back.
    Bounced(Option<Ticket>),
    /// The runner died.
    Lost(Option<Ticket>, /* the handler may have started */ bool),
}

/// What became of a piece of a body that was to be sent.
pub(super) enum Sent {
    /// Some or all of it went; the rest is still in the caller's buffer.
    Some(usize),
    /// There is no credit now; the task will be woken.
    Blocked,
    /// Nobody wants it.
    Closed,
}

impl Link {
    pub(super) fn new(runner: u64, (index, links): (usize, usize), area: Area, socket: Socket) -> Self {
        let state = State {
            streams: Slab::new(),
            outbox: BytesMut::new(),
            slots: HashMap::new(),
            closed: false,
            flusher: None,
            congested: false,
            looked: None,
            generation: 0,
            next_slot: 1,
        };
        Self {
            runner,
            index,
            area,
            slots_max: versions_per_link(links),
            socket,
            state: Mutex::new(state),
            held: Arc::default(),
            running: AtomicUsize::new(0),
            sending: tokio::sync::Mutex::new(()),
            open: AtomicBool::new(true),
        }
    }

    /// Running invocations.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// New invocations may start here.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Nothing new starts here any more.
    pub(super) fn shut(&self) {
        self.open.store(false, Ordering::Release);
    }

    pub(super) fn settle_count(&self, state: &State) {
        self.running.store(state.streams.len(), Ordering::Relaxed);
    }

    /// The thread is held by one isolate, or has no place for one more invocation.
    pub(super) fn is_busy(&self) -> bool {
        let since = self.area.turn_started_ns();
        (since != 0 && monotonic_ns().saturating_sub(since) > BUSY_NS) || self.running() >= STREAMS_MAX
    }

    /// Starts an invocation.
    pub(super) fn start(
        &self,
        placement: &Arc<Placement>,
        invocation: &Invocation,
        body: BodyRef<'_>,
        ticket: Ticket,
        now: Instant,
    ) -> Result<StreamId, Refused> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.closed || state.streams.len() >= STREAMS_MAX || state.outbox.len() > OUTBOX_BYTES_MAX {
            return Err(Refused::Full(ticket));
        }
        // 22 bits that count up, and never 0.
        state.generation = (state.generation + 1) & (u32::MAX >> STREAM_INDEX_BITS);
        state.generation += u32::from(state.generation == 0);
        let place = state.streams.vacant_entry();
        let stream = (state.generation << STREAM_INDEX_BITS) | (place.key() as u32);
        let Invocation { request, written, client, .. } = invocation;
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        let start = StartParts { stream, slot: placement.slot, method, uri, headers, written, client, body };
        if let Err(error) = encode_start(&mut state.outbox, start) {
            return Err(Refused::Unfit(ticket, error));
        }
        place.insert(Entry::new(stream, placement.clone(), ticket, now));
        self.running.store(state.streams.len(), Ordering::Relaxed);
        self.flush(guard);
        Ok(stream)
    }

    /// Lets what is in the outbox be written: at once where nobody could share the write, else by the writer.
    pub(super) fn flush(&self, mut state: MutexGuard<'_, State>) {
        if state.outbox.is_empty() {
            return;
        }
        // While the flusher is away, it is writing: bytes must not overtake it. And what waits for room hears of it from there.
        if state.streams.len() <= 1 && state.flusher.is_some() && !state.congested {
            let written = self.socket.try_write(&state.outbox).unwrap_or(0);
            state.outbox.advance(written);
            if state.outbox.is_empty() {
                return;
            }
        }
        let flusher = state.flusher.take();
        drop(state);
        if let Some(flusher) = flusher {
            flusher.wake();
        }
    }

    /// Appends a message that is bounded by what it answers. A message that cannot be encoded is a defect of its maker.
    pub(super) fn send(&self, message: &ToRunner) -> Result<(), EncodeError> {
        self.send_all(std::slice::from_ref(message))
    }

    /// The same for several, which are written together.
    pub(super) fn send_all(&self, messages: &[ToRunner]) -> Result<(), EncodeError> {
        let mut state = self.state.lock();
        if state.closed {
            return Ok(());
        }
        for message in messages {
            encode(&mut state.outbox, message)?;
        }
        self.flush(state);
        Ok(())
    }

    /// Waits for the response's head, or what there is instead.
    pub(super) fn poll_head(&self, stream: StreamId, cx: &mut Context<'_>) -> Poll<Heard> {
        let mut state = self.state.lock();
        let Some(entry) = state.entry(stream) else { return Poll::Ready(Heard::Lost(None, true)) };
        match std::mem::replace(&mut entry.head, Head::Taken) {
            Head::Waiting => {
                entry.head = Head::Waiting;
                if !entry.head_waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    entry.head_waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            Head::Ready(head, body) => {
                if !matches!(body, BodyKind::Stream(_)) {
                    self.disown(&mut state, stream);
                }
                Poll::Ready(Heard::Response(head, body))
            }
            Head::Failed(error) => {
                self.disown(&mut state, stream);
                Poll::Ready(Heard::Failed(error))
            }
            Head::Bounced => {
                let ticket = entry.ticket.take();
                self.disown(&mut state, stream);
                Poll::Ready(Heard::Bounced(ticket))
            }
            Head::Lost { started } => {
                let ticket = entry.ticket.take();
                self.disown(&mut state, stream);
                Poll::Ready(Heard::Lost(ticket, started))
            }
            Head::Taken => Poll::Ready(Heard::Lost(None, true)),
        }
    }

    /// Nobody on this side refers to the invocation any more; it is removed as soon as the runner has also done with it.
    fn disown(&self, state: &mut State, stream: StreamId) {
        if let Some(entry) = state.entry(stream) {
            entry.owned = false;
            if entry.done {
                self.remove(state, stream);
            }
        }
    }

    pub(super) fn remove(&self, state: &mut State, stream: StreamId) {
        let key = index(stream);
        if state.streams.contains(key) {
            state.streams.remove(key);
        }
        self.running.store(state.streams.len(), Ordering::Relaxed);
    }

    /// The caller has gone, or has had enough: cancels the invocation unless its response is complete.
    pub(super) fn abandon(&self, stream: StreamId, complete: bool, now: Instant) {
        let mut guard = self.state.lock();
        let State { streams, outbox, .. } = &mut *guard;
        let Some(entry) = streams.get_mut(index(stream)).filter(|entry| entry.id == stream) else { return };
        entry.inbound.unwanted = true;
        // Where its response is on its way already, only `waitUntil` goes on.
        if !entry.done && !complete && matches!(entry.phase, Phase::Head(_) | Phase::Body(_)) {
            entry.phase = Phase::Cancelled(now);
            entry.outbound.closed = true;
            // Cannot fail: it has no field with a bound.
            let _ = encode(outbox, &ToRunner::Cancel { stream, outcome: Outcome::Canceled });
        }
        self.disown(&mut guard, stream);
        self.flush(guard);
    }

    /// Ends an invocation by a wall limit: its client is answered now, its runner must follow.
    pub(super) fn expire(&self, state: &mut State, stream: StreamId, message: &str, now: Instant, wakers: &mut Vec<Waker>) {
        let State { streams, outbox, .. } = state;
        let Some(entry) = streams.get_mut(index(stream)).filter(|entry| entry.id == stream) else { return };
        let outcome = Outcome::ExceededWallTime;
        entry.phase = Phase::Cancelled(now);
        if let Some(ticket) = &mut entry.ticket {
            ticket.verdict.get_or_insert(outcome);
        }
        wakers.extend(entry.fail(Verdict { outcome, message: message.to_owned() }));
        entry.outbound.closed = true;
        wakers.extend(entry.outbound.waker.take());
        // Cannot fail: it has no field with a bound.
        let _ = encode(outbox, &ToRunner::Cancel { stream, outcome });
    }

    /// Sends a piece of a body within its credit.
    pub(super) fn send_body(&self, stream: StreamId, part: Part, bytes: &Bytes, cx: &mut Context<'_>, now: Instant) -> Sent {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let congested = state.is_congested();
        let State { streams, outbox, closed, .. } = state;
        let Some(entry) = streams.get_mut(index(stream)).filter(|entry| entry.id == stream && !entry.done && !*closed) else {
            return Sent::Closed;
        };
        let Some(outbound) = entry.outbound(part).filter(|outbound| !outbound.closed) else { return Sent::Closed };
        let len = bytes.len().min(outbound.credit()).min(CHUNK_BYTES_MAX);
        if len == 0 || congested {
            outbound.waker = Some(cx.waker().clone());
            state.congested |= congested;
            return Sent::Blocked;
        }
        outbound.spent(len);
        entry.progress(now);
        // Cannot fail: the piece is within CHUNK_BYTES_MAX.
        let _ = encode(outbox, &ToRunner::BodyData { stream, part, bytes: bytes.slice(..len) });
        self.flush(guard);
        Sent::Some(len)
    }

    /// Sends the end of a body.
    pub(super) fn end_body(&self, stream: StreamId, part: Part, error: Option<BodyError>) {
        let mut guard = self.state.lock();
        let State { streams, outbox, .. } = &mut *guard;
        let Some(entry) = streams.get_mut(index(stream)).filter(|entry| entry.id == stream && !entry.done) else { return };
        if entry.outbound(part).is_none_or(|outbound| outbound.closed) {
            return;
        }
        let message = ToRunner::BodyEnd { stream, part, error: error.as_ref().map(ToString::to_string) };
        if part == 0 {
            entry.request_body = error;
        }
        // Cannot fail: a text is cut to its bound.
        let _ = encode(outbox, &message);
        self.flush(guard);
    }

    /// Ready as soon as nobody wants more of a body that the edge sends.
    pub(super) fn poll_unwanted(&self, stream: StreamId, part: Part, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        let Some(entry) = state.entry(stream).filter(|entry| !entry.done) else { return Poll::Ready(()) };
        let Some(outbound) = entry.outbound(part).filter(|outbound| !outbound.closed) else { return Poll::Ready(()) };
        outbound.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Reserves a slot; none where the link is closed or full.
    pub(super) fn reserve(&self, make: impl FnOnce(Slot) -> Placement) -> Option<Arc<Placement>> {
        let mut state = self.state.lock();
        if state.closed || state.slots.len() >= self.slots_max {
            return None;
        }
        let slot = state.next_slot;
        state.next_slot = slot.checked_add(1)?;
        let placement = Arc::new(make(slot));
        state.slots.insert(slot, placement.clone());
        Some(placement)
    }
}

impl State {
    /// So much waits for the runner that what can wait does.
    pub(super) fn is_congested(&self) -> bool {
        self.outbox.len() > OUTBOX_BYTES_MAX / 2
    }

    /// The entry of a stream, unless it is gone or its place is another's.
    pub(super) fn entry(&mut self, stream: StreamId) -> Option<&mut Entry> {
        self.streams.get_mut(index(stream)).filter(|entry| entry.id == stream)
    }
}

pub(super) const fn index(stream: StreamId) -> usize {
    stream as usize & (STREAMS_MAX - 1)
}
