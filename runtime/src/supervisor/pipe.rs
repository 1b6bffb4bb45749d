//! The two tasks of a link: one reads and takes messages, one writes what has gathered.

use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Instant;

use bytes::BytesMut;

use super::Inner;
use super::dispatch::{Batch, Event};
use super::limits::LINKLESS_WAIT;
use super::link::Link;
use super::runner::{Cause, Runner};
use super::{call, tasks};
use crate::protocol::{Decoder, ProtocolError, ToEdge};

/// Bytes that an outbox keeps allocated when it is empty.
const OUTBOX_KEPT: usize = 256 << 10;

/// Reads until the link ends: the runner has exited, or is killed for what it sent.
pub(super) async fn read(supervisor: Weak<Inner>, runner: Arc<Runner>, link: Arc<Link>, mut decoder: Decoder<ToEdge>) {
    let mut batch = Batch::default();
    loop {
        // What came with the hello is decoded before the first read.
        let mut result = decode(&mut decoder, &mut batch);
        if !batch.messages.is_empty() {
            let taken = link.take(&mut batch, Instant::now());
            batch.messages.clear();
            result = taken.and(result);
            batch.wakers.drain(..).for_each(std::task::Waker::wake);
            for event in batch.events.drain(..) {
                handle(&supervisor, &runner, &link, event);
            }
        }
        if let Err(error) = result {
            if let Some(supervisor) = supervisor.upgrade() {
                supervisor.give_up(&runner, Cause::Protocol(error));
            }
            return;
        }
        match link.socket.read(decoder.buffer()).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    tasks::spawn(closed(supervisor, runner, Cause::Protocol(ProtocolError::Order("its link was closed"))));
}

/// A runner whose link has ended must end too: one that only closes its socket would keep its invocations waiting.
async fn closed(supervisor: Weak<Inner>, runner: Arc<Runner>, cause: Cause) {
    runner.dead_within(LINKLESS_WAIT).await;
    if let Some(supervisor) = supervisor.upgrade().filter(|_| !runner.is_dead()) {
        supervisor.give_up(&runner, cause);
    }
}

fn decode(decoder: &mut Decoder<ToEdge>, batch: &mut Batch) -> Result<(), ProtocolError> {
    while let Some(message) = decoder.next()? {
        batch.messages.push(message);
    }
    Ok(())
}

fn handle(supervisor: &Weak<Inner>, runner: &Arc<Runner>, link: &Arc<Link>, event: Event) {
    match event {
        Event::Finished { ticket, placement, outcome, cpu_us, heap_bytes } => {
            if let Some(ticket) = ticket {
                ticket.finish(outcome, cpu_us, heap_bytes);
            }
            if Event::points(outcome) > 0 {
                placement.struck.store(true, Ordering::Relaxed);
            }
            if placement.version.has_used(cpu_us, Event::points(outcome))
                && let Some(supervisor) = supervisor.upgrade()
            {
                supervisor.judge(&placement.version, Event::points(outcome), "crossed its CPU or memory limit");
            }
        }
        Event::Log { host, line } => host.log(line),
        Event::LoadLog { placement, line } => {
            let (worker, version) = (&placement.version.worker, &placement.version.id);
            tracing::info!(%worker, %version, level = ?line.level, message = line.message, "worker logged outside of any invocation");
        }
        Event::Call(call) => {
            tasks::spawn(call::run(link.clone(), call));
        }
        Event::Loaded { placement, cpu_us, heap_bytes } => placement.loaded(cpu_us, heap_bytes),
        Event::Gone { placement, outcome, message } => {
            // What an invocation did was counted at its end, and a load that fails is no incident.
            let counted = placement.is_loading() || placement.struck.load(Ordering::Relaxed);
            placement.gone(outcome, message);
            if let Some(supervisor) = supervisor.upgrade() {
                supervisor.forget(&placement);
                if Event::points(outcome) > 0 && !counted {
                    supervisor.judge(&placement.version, Event::points(outcome), "crossed a limit outside of any invocation");
                }
            }
        }
        Event::Stuck { stream, slot, outcome } => {
            if let Some(supervisor) = supervisor.upgrade() {
                supervisor.give_up(runner, Cause::Stuck { link: link.index, stream, slot, outcome });
            }
        }
        Event::Bounced(ticket) => {
            drop(ticket);
            if let Some(supervisor) = supervisor.upgrade() {
                supervisor.bounced(link);
            }
        }
    }
}

/// Writes until the link ends.
pub(super) async fn write(supervisor: Weak<Inner>, runner: Arc<Runner>, link: Arc<Link>) {
    let mut full = BytesMut::new();
    loop {
        let open = poll_fn(|cx| {
            let mut state = link.state.lock();
            if state.closed {
                return Poll::Ready(false);
            }
            if state.outbox.is_empty() {
                state.flusher = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(true)
        })
        .await;
        if !open {
            return;
        }
        // Every handler that is ready in this turn appends before the write: one system call for all of them.
        tokio::task::yield_now().await;
        std::mem::swap(&mut full, &mut link.state.lock().outbox);
        if let Err(error) = write_all(&link, &full).await {
            // A runner that has closed its end is its reader's business. Any other is cut off, through no fault of who runs in it.
            if error.kind() != std::io::ErrorKind::BrokenPipe {
                link.shut();
                closed(supervisor, runner, Cause::Cut(error.kind())).await;
            }
            return;
        }
        full.clear();
        if full.capacity() > OUTBOX_KEPT {
            full = BytesMut::new();
        }
        decongest(&link);
    }
}

async fn write_all(link: &Link, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match link.socket.try_write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => link.socket.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What waited for the outbox goes on.
fn decongest(link: &Link) {
    let mut state = link.state.lock();
    if !state.congested || state.is_congested() {
        return;
    }
    state.congested = false;
    state.say_refusals();
    let mut wakers = Vec::new();
    for (_, entry) in &mut state.streams {
        wakers.extend(entry.outbound.waker.take());
        wakers.extend(entry.subs.iter_mut().filter_map(|sub| sub.outbound.waker.take()));
    }
    drop(state);
    wakers.into_iter().for_each(std::task::Waker::wake);
}
