//! One JavaScript thread: it reads its link, gives the messages to its isolates, polls those that woke, and writes once.
//!
//! A turn of the loop is bounded in messages and in time, so that what has been said goes out soon. What the thread does
//! not get to because one isolate holds it, the watchdog takes over.

mod background;
mod dispatch;
mod loads;
mod rehearsal;
mod seat;
mod tenant;
mod wake;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use selvedge_runtime::protocol::{Slot, ToEdge};
use slab::Slab;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;

use crate::last_words::{Exit, end};
use crate::limits::{
    BLANK_ISOLATES, BLANK_ISOLATES_KEPT, BUSY_AFTER, MESSAGES_PER_TURN_MAX, POLL_ROUNDS_MAX, REFILL_AFTER, STARTS_PER_TURN_MAX,
    blank_isolates_max,
};
use crate::link::{Fill, Flush};
use crate::station::Station;
use loads::Loads;
use seat::Shared;
use tenant::{Blank, Tenant};
use wake::Woken;

/// A thread's loop and everything that lives on it.
pub(crate) struct JsThread {
    station: &'static Station,
    shared: Rc<Shared>,
    /// Registered for reading only: with both, the thread would be woken once more whenever the edge has read.
    socket: AsyncFd<BorrowedFd<'static>>,
    /// The same while the socket is full.
    room: Option<AsyncFd<BorrowedFd<'static>>>,
    woken: Arc<Woken>,
    /// Scratch: the keys of the isolates to poll.
    to_poll: Vec<usize>,
    tenants: Slab<Tenant>,
    slots: BTreeMap<Slot, usize>,
    loads: Loads,
    blanks: Vec<Blank>,
    /// How many there should be: more, once they ran out.
    blanks_wanted: usize,
    blanks_max: usize,
    /// When to make the next blank isolate, if nothing else happens.
    refill_at: Option<Instant>,
    /// When a version was loaded last.
    loaded_at: Instant,
    isolates_born: u64,
    sleep: Pin<Box<Sleep>>,
}

impl JsThread {
    /// One of so many threads. Must be called inside its tokio runtime.
    pub(crate) fn new(station: &'static Station, threads: usize) -> std::io::Result<Self> {
        Ok(Self {
            station,
            shared: Shared::new(station),
            socket: register(station.link.socket(), Interest::READABLE)?,
            room: None,
            woken: Arc::default(),
            to_poll: Vec::new(),
            tenants: Slab::new(),
            slots: BTreeMap::new(),
            loads: Loads::default(),
            blanks: Vec::new(),
            blanks_wanted: BLANK_ISOLATES,
            blanks_max: blank_isolates_max(threads),
            refill_at: None,
            loaded_at: Instant::now(),
            isolates_born: 0,
            sleep: Box::pin(tokio::time::sleep(REFILL_AFTER)),
        })
    }

    /// Says hello, and serves the link until it ends, which ends the process.
    pub(crate) async fn serve(mut self, unsandboxed: String) -> std::convert::Infallible {
        rehearsal::rehearse();
        while self.blanks.len() < BLANK_ISOLATES {
            let blank = self.bear(None);
            self.blanks.push(blank);
        }
        self.station.link.send(&ToEdge::Hello { build: selvedge_runtime::protocol::BUILD.into(), unsandboxed });
        std::future::poll_fn(|context| self.turn(context)).await
    }

    /// One turn, in order.
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<std::convert::Infallible> {
        let begun_ns = self.shared.meter.turn_begins();
        self.station.turn_begins(begun_ns);
        self.woken.turn_begins(context.waker());
        let clogged = self.station.link.is_clogged();
        let mut again = !clogged && self.read(context);
        self.take_messages(begun_ns);
        self.wake_due();
        self.poll_isolates();
        self.write(context);
        // Nothing else would wake the thread for what it has not read.
        again |= clogged && !self.station.link.is_clogged();
        self.refill();
        again |= self.arm(context);
        again |= !self.woken.turn_ends();
        if !self.station.turn_ends() || again {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Reads what is there. True where there may be more.
    fn read(&mut self, context: &mut Context<'_>) -> bool {
        loop {
            match self.socket.poll_read_ready(context) {
                Poll::Pending => return false,
                Poll::Ready(Ok(mut ready)) => match self.station.link.fill(&mut self.station.link.inbox.lock()) {
                    Fill::Drained => ready.clear_ready(),
                    Fill::More => return true,
                },
                Poll::Ready(Err(error)) => end(Exit::Internal, &error.to_string()),
            }
        }
    }

    fn take_messages(&mut self, begun_ns: u64) {
        let (mut starts, mut others) = (0, 0);
        while starts < STARTS_PER_TURN_MAX && others < MESSAGES_PER_TURN_MAX {
            // One at a time: what is still in the inbox can be given back to the edge while this one runs.
            let Some(message) = self.station.link.inbox.lock().pop() else { return };
            if self.dispatch(message) {
                starts += 1
            } else {
                others += 1
            }
            if self.shared.meter.now_ns().saturating_sub(begun_ns) > BUSY_AFTER.as_nanos() as u64 {
                return;
            }
        }
    }

    /// Wakes the isolates that have a timer due, or have loaded for too long.
    fn wake_due(&mut self) {
        let mut now = None;
        for (_, tenant) in &self.tenants {
            if let Some(due) = tenant.due()
                && due <= *now.get_or_insert_with(Instant::now)
            {
                tenant.alarm.waker.wake_by_ref();
            }
        }
    }

    fn poll_isolates(&mut self) {
        for _ in 0..POLL_ROUNDS_MAX {
            let mut to_poll = std::mem::take(&mut self.to_poll);
            self.woken.take(&mut to_poll);
            let idle = to_poll.is_empty();
            for key in to_poll.drain(..) {
                self.poll_isolate(key);
            }
            self.to_poll = to_poll;
            if idle {
                return;
            }
        }
    }

    fn write(&mut self, context: &mut Context<'_>) {
        while self.station.link.flush() == Flush::Full {
            let room = match self.room.take() {
                Some(room) => room,
                None => match register(self.station.link.room(), Interest::WRITABLE) {
                    Ok(room) => room,
                    Err(error) => end(Exit::Internal, &error.to_string()),
                },
            };
            match room.poll_write_ready(context) {
                Poll::Pending => {
                    self.room = Some(room);
                    return;
                }
                Poll::Ready(Ok(mut ready)) => ready.clear_ready(),
                Poll::Ready(Err(error)) => end(Exit::Internal, &error.to_string()),
            }
        }
        self.room = None;
    }

    /// Makes a blank isolate where one is missing and nothing has happened for a while: the thread stands still meanwhile. When
    /// nothing was loaded for long, those that a burst of loads had wanted go again.
    fn refill(&mut self) {
        let Some(at) = self.refill_at else { return };
        let now = Instant::now();
        if at > now {
            return;
        }
        if self.blanks.len() < self.blanks_wanted {
            if self.station.link.inbox.lock().is_empty() {
                let blank = self.bear(None);
                self.blanks.push(blank);
            }
            self.refill_at = Some(Instant::now() + REFILL_AFTER);
        } else if self.blanks_wanted > BLANK_ISOLATES && now < self.loaded_at + BLANK_ISOLATES_KEPT {
            self.refill_at = Some(self.loaded_at + BLANK_ISOLATES_KEPT);
        } else {
            self.blanks_wanted = BLANK_ISOLATES;
            self.blanks.truncate(BLANK_ISOLATES);
            self.refill_at = None;
        }
    }

    /// A blank isolate was taken for a version, or there was none.
    fn blank_taken(&mut self) {
        if self.blanks.is_empty() {
            self.blanks_wanted = (self.blanks_wanted * 2).min(self.blanks_max);
        }
        self.loaded_at = Instant::now();
        self.refill_at = Some(self.loaded_at + REFILL_AFTER);
    }

    /// Sets the alarm for the next timer. True where it has gone off already.
    fn arm(&mut self, context: &mut Context<'_>) -> bool {
        let due = self.tenants.iter().filter_map(|(_, tenant)| tenant.due()).chain(self.refill_at).min();
        let Some(due) = due else { return false };
        let due = tokio::time::Instant::from_std(due);
        if self.sleep.deadline() != due {
            self.sleep.as_mut().reset(due);
        }
        self.sleep.as_mut().poll(context).is_ready()
    }
}

fn register(socket: BorrowedFd<'static>, interest: Interest) -> std::io::Result<AsyncFd<BorrowedFd<'static>>> {
    // SAFETY: a station and its descriptors live as long as the process.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}
