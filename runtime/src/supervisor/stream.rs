//! One running invocation, as its link knows it: what has been heard of it, what may be sent, and until when it may take.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::call::Refusal;
use super::limits::JOIN_BYTES;
use super::logged::Logged;
use super::phase::Phase;
use super::placement::Placement;
use super::ticket::Ticket;
use crate::protocol::{BodyKind, CREDIT_MAX, INITIAL_CREDIT, Part, ProtocolError, ResponseHead, StreamId};
use crate::{BodyError, Limits, Outcome, RunError};

/// One running invocation.
pub(super) struct Entry {
    pub(super) id: StreamId,
    pub(super) placement: Arc<Placement>,
    /// Taken when it is reported or handed back.
    pub(super) ticket: Option<Ticket>,
    pub(super) head: Head,
    pub(super) head_waker: Option<Waker>,
    /// A future or a body on the edge's side still refers to it.
    pub(super) owned: bool,
    /// The runner has said its last word about it, or is dead.
    pub(super) done: bool,
    pub(super) phase: Phase,
    /// Time since it was cancelled in which others held the thread.
    pub(super) kept_off: Duration,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    pub(super) subs: Vec<Sub>,
    /// Calls that were refused, which the runner has not been told: the outbox had no room.
    pub(super) refused: Vec<(Part, Refusal)>,
    /// The number of the last subrequest.
    pub(super) last_part: Part,
    /// What went wrong with the request's body.
    pub(super) request_body: Option<BodyError>,
    pub(super) logged: Logged,
}

/// What is known of the response's head.
pub(super) enum Head {
    /// Nothing.
    Waiting,
    /// It is here.
    Ready(Box<ResponseHead>, BodyKind),
    /// There is none.
    Failed(RunError),
    /// The handler was not started.
    Bounced,
    /// The runner died.
    Lost {
        /// The handler may have started.
        started: bool,
    },
    /// It was handed over.
    Taken,
}

/// A subrequest: its request's body comes in, its response's goes out.
pub(super) struct Sub {
    pub(super) part: Part,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    /// Its answer is complete; it is only here for the body that still comes.
    pub(super) answered: bool,
}

/// Why an invocation is over before its end, by the edge's decision.
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) message: String,
}

impl Entry {
    pub(super) fn new(id: StreamId, placement: Arc<Placement>, ticket: Ticket, now: Instant) -> Self {
        let deadline = now + placement.version.limits.head_timeout();
        Self {
            id,
            placement,
            ticket: Some(ticket),
            head: Head::Waiting,
            head_waker: None,
            owned: true,
            done: false,
            phase: Phase::Head(deadline),
            kept_off: Duration::ZERO,
            inbound: Inbound::default(),
            outbound: Outbound::new(INITIAL_CREDIT),
            subs: Vec::new(),
            refused: Vec::new(),
            last_part: 0,
            request_body: None,
            logged: Logged::default(),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.placement.version.limits
    }

    pub(super) fn inbound(&mut self, part: Part) -> Option<&mut Inbound> {
        if part == 0 {
            return Some(&mut self.inbound);
        }
        self.subs.iter_mut().find(|sub| sub.part == part).map(|sub| &mut sub.inbound)
    }

    pub(super) fn outbound(&mut self, part: Part) -> Option<&mut Outbound> {
        if part == 0 {
            return Some(&mut self.outbound);
        }
        self.subs.iter_mut().find(|sub| sub.part == part).map(|sub| &mut sub.outbound)
    }

    /// A byte has moved.
    pub(super) fn progress(&mut self, now: Instant) {
        if let Phase::Body(since) = &mut self.phase {
            *since = now;
        }
    }

    /// The response is complete; `waitUntil` may go on.
    pub(super) fn response_ends(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Head(_) | Phase::Body(_)) {
            self.phase = Phase::After(now + self.limits().wait_until_timeout());
        }
    }

    /// Its client has gone, and the runner says that `waitUntil` goes on. What a wall limit has ended does not.
    pub(super) fn stays(&mut self, now: Instant) {
        let ended = self.ticket.as_ref().is_none_or(|ticket| ticket.verdict.is_some());
        if matches!(self.phase, Phase::Cancelled(_)) && !ended {
            self.phase = Phase::After(now + self.limits().wait_until_timeout());
        }
    }

    /// Ends the invocation for its client: no response, or a response that is cut short. Returns who must be woken.
    pub(super) fn fail(&mut self, verdict: Verdict) -> Option<Waker> {
        let Verdict { outcome, message } = verdict;
        match self.head {
            Head::Waiting => {
                // A runner that does not know yet may still send a response, whose body nobody wants.
                self.inbound.ends(Err(BodyError::Worker(outcome)));
                let request_body = self.request_body.take();
                self.head = Head::Failed(RunError { outcome, message, retry_after: None, request_body });
                self.head_waker.take()
            }
            Head::Ready(..) | Head::Taken => self.inbound.ends(Err(BodyError::Worker(outcome))),
            Head::Failed(_) | Head::Bounced | Head::Lost { .. } => None,
        }
    }

    /// Nothing more will be heard of it or sent for it. Returns who must be woken.
    pub(super) fn close(&mut self, wakers: &mut impl Extend<Waker>, outcome: Outcome) {
        self.done = true;
        self.outbound.closed = true;
        wakers.extend(self.head_waker.take());
        wakers.extend(self.outbound.waker.take());
        if self.inbound.open {
            wakers.extend(self.inbound.ends(Err(BodyError::Worker(outcome))));
        }
        for mut sub in self.subs.drain(..) {
            wakers.extend(sub.outbound.waker.take());
            wakers.extend(sub.inbound.waker.take());
        }
    }

    /// Which wall limit it has reached, if one.
    pub(super) fn overdue(&self, now: Instant) -> Option<&'static str> {
        self.phase.overdue(now, self.limits())
    }

    /// For how long it has been cancelled and could have run.
    pub(super) fn cancelled_for(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Cancelled(since) if !self.done => Some(now.saturating_duration_since(since).saturating_sub(self.kept_off)),
            _ => None,
        }
    }
}

/// A body that the runner sends: bounded by the credit that the edge has given for it.
#[derive(Default)]
pub(super) struct Inbound {
    /// The runner has announced it, and it has not ended.
    pub(super) open: bool,
    /// How it ended.
    pub(super) end: Option<Result<(), BodyError>>,
    /// Nobody wants it: its bytes are dropped as they come.
    pub(super) unwanted: bool,
    pub(super) waker: Option<Waker>,
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    credit: u32,
    owed: u32,
}

impl Inbound {
    /// A body is announced.
    pub(super) fn opens(&mut self) {
        self.open = true;
        self.credit = INITIAL_CREDIT;
    }

    /// Bytes of it have come.
    pub(super) fn receive(&mut self, bytes: Bytes) -> Result<Option<Waker>, ProtocolError> {
        let len = u32::try_from(bytes.len()).map_err(|_| ProtocolError::Order("chunk beyond any credit"))?;
        self.credit = self.credit.checked_sub(len).ok_or(ProtocolError::Order("body bytes beyond the credit"))?;
        if self.unwanted {
            self.owed += len;
        } else if bytes.len() < JOIN_BYTES && (!self.chunks.is_empty() || !self.tail.is_empty()) {
            self.tail.extend_from_slice(&bytes);
        } else if len > 0 {
            self.seal();
            self.chunks.push_back(bytes);
        }
        Ok(self.waker.take())
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
    }

    /// The next bytes, for the consumer.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.seal();
        }
        let chunk = self.chunks.pop_front()?;
        // At most INITIAL_CREDIT is ever outstanding, so the sum fits.
        self.owed += chunk.len() as u32;
        Some(chunk)
    }

    /// The credit to give now: once a quarter is consumed, or nothing waits any more.
    pub(super) fn grant(&mut self) -> Option<u32> {
        let idle = self.chunks.is_empty() && self.tail.is_empty() && self.credit == 0;
        if !self.open || self.owed == 0 || (self.owed < INITIAL_CREDIT / 4 && !idle) {
            return None;
        }
        self.credit += self.owed;
        Some(std::mem::take(&mut self.owed))
    }

    /// It has ended, and all of it has been taken.
    pub(super) fn is_drained(&self) -> bool {
        self.end.is_some() && self.chunks.is_empty() && self.tail.is_empty()
    }

    /// Nobody reads it.
    pub(super) fn is_forsaken(&self) -> bool {
        self.unwanted || self.is_drained()
    }

    /// It has ended. The first end counts.
    pub(super) fn ends(&mut self, end: Result<(), BodyError>) -> Option<Waker> {
        self.open = false;
        self.end.get_or_insert(end);
        self.waker.take()
    }
}

/// A body that the edge sends: bounded by the credit that the runner has given for it.
pub(super) struct Outbound {
    credit: u32,
    /// Nobody wants more of it.
    pub(super) closed: bool,
    pub(super) waker: Option<Waker>,
}

impl Outbound {
    pub(super) fn new(credit: u32) -> Self {
        Self { credit, closed: false, waker: None }
    }

    /// The runner gives credit.
    pub(super) fn credited(&mut self, bytes: u32) -> Result<Option<Waker>, ProtocolError> {
        let sum = self.credit.checked_add(bytes).filter(|sum| *sum <= CREDIT_MAX);
        self.credit = sum.ok_or(ProtocolError::Order("credit beyond its bound"))?;
        Ok(self.waker.take())
    }

    pub(super) fn credit(&self) -> usize {
        self.credit as usize
    }

    /// Bytes have been sent; at most `credit()`.
    pub(super) fn spent(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_sub(bytes as u32);
    }
}
