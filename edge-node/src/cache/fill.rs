//! One fetch that fills the cache, and its readers: they get bytes as they arrive. The fetch belongs to none of them.
//!
//! While the response may be stored, the fill runs as fast as the upstream, and a slow or vanished reader hurts nobody. One that is too large for memory goes to disk as it
//! arrives: who is far behind reads from there. When it turns out too large to be stored at all, it goes on at the pace of its slowest reader, holding a bounded window,
//! and takes no new ones. One who keeps others waiting is left behind.

mod reader;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Response, response};
use parking_lot::Mutex;
use selvedge_runtime::{Body, BodyError};
use slab::Slab;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::disk::DiskBody;
use super::entry::Entry;
use super::keeping::Keeping;
use super::ledger::Share;
use super::policy::Refusal;
use super::purge::Stamp;
use super::tags::Tags;
use super::vary::Variant;
use crate::limits::{FILL_CHUNK_OVERHEAD_BYTES, FILL_NARROW_WINDOW_BYTES, FILL_WINDOW_BYTES};
use crate::request::RequestError;

use reader::Next;
pub use reader::Reader;

/// What a fill has found out, for its readers.
#[derive(Debug, Clone)]
pub enum Head {
    /// A response that is being stored, or goes by for want of room: read on.
    Streaming(Arc<StreamHead>),
    /// A stored response that the upstream has confirmed, and whether it is stored anew.
    Confirmed(Arc<Entry>, Keeping),
    /// A stored response in the place of an upstream that fails.
    Stale(Arc<Entry>),
    /// Not for the cache: whoever ordered the fill takes the response, the others fetch for themselves.
    Private(Refusal),
    /// There is no response.
    Failed(Arc<RequestError>),
    /// The fill has gone without a word.
    Abandoned,
}

/// The head of a response that is being stored.
#[derive(Debug)]
pub struct StreamHead {
    /// Status and fields, those of a hop removed.
    pub head: response::Parts,
    /// Which requests it answers.
    pub variant: Variant,
    /// Fields that are for whoever ordered the fetch only (RFC 9111, sections 5.2.2.4 and 5.2.2.7).
    pub withheld: Vec<HeaderName>,
    /// Its length where it is known.
    pub length: Option<u64>,
    /// What will become of it.
    pub keeping: Keeping,
}

/// The meeting point of a fill and its readers.
#[derive(Debug)]
pub struct Fill {
    state: Mutex<State>,
    /// When it began.
    stamp: Stamp,
    /// For how long readers wait for one that takes less than a window.
    patience: Duration,
    /// What it fetches has been invalidated meanwhile: it is not stored.
    discarded: AtomicBool,
}

#[derive(Debug)]
struct State {
    head: Option<Head>,
    /// For whoever ordered the fill, until taken.
    private: Option<Response<Body>>,
    owner_gone: bool,
    /// Where each begins in the body, and its bytes.
    chunks: VecDeque<(u64, Bytes)>,
    /// Bytes that have arrived.
    len: u64,
    held_bytes: u64,
    /// Where those are counted: as long as the last reader may want them.
    share: Share,
    /// What of the body can be read from disk: its begin.
    on_disk: Option<DiskBody>,
    end: Option<Result<(), BodyError>>,
    /// What it became.
    stored: Option<Arc<Entry>>,
    /// No longer stored: chunks go when the slowest reader has them.
    paced: bool,
    readers: Slab<ReaderState>,
    /// For how long the fetch has waited for the slowest reader, since they were last looked at.
    waited: Duration,
    /// Somebody has joined whoever ordered it.
    followed: bool,
    filler: Option<Waker>,
}

#[derive(Debug, Default)]
struct ReaderState {
    waker: Option<Waker>,
    /// Bytes that it has, and what it had when it was last looked at.
    at: u64,
    had: u64,
    /// It has kept others waiting for too long: it gets nothing more.
    left_behind: bool,
}

type Wakers = SmallVec<[Waker; 4]>;

impl Fill {
    /// One that begins now: nothing is known yet.
    pub(super) fn new(stamp: Stamp, share: Share, patience: Duration) -> Arc<Self> {
        let state = State {
            head: None,
            private: None,
            owner_gone: false,
            chunks: VecDeque::new(),
            len: 0,
            share,
            held_bytes: 0,
            on_disk: None,
            end: None,
            stored: None,
            paced: false,
            readers: Slab::new(),
            waited: Duration::ZERO,
            followed: false,
            filler: None,
        };
        Arc::new(Self { state: Mutex::new(state), stamp, patience, discarded: AtomicBool::new(false) })
    }

    /// A reader from the first byte; none where there are `readers_max`, or the first bytes have gone.
    pub(super) fn reader(self: &Arc<Self>, owner: bool, readers_max: usize) -> Option<Reader> {
        let mut state = self.state.lock();
        if state.readers.len() >= readers_max || state.paced {
            return None;
        }
        state.followed |= !owner;
        let id = state.readers.insert(ReaderState::default());
        Some(Reader { fill: self.clone(), id, owner })
    }

    /// When it began.
    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The tags of what it fetches, where its head is here.
    pub(super) fn tags(&self) -> Option<Tags> {
        match &self.state.lock().head {
            Some(Head::Streaming(stream)) => Some(Tags::of(&stream.head.headers)),
            _ => None,
        }
    }

    /// What it fetches is not to be stored.
    pub(super) fn discard(&self) {
        self.discarded.store(true, Relaxed);
    }

    /// Whether it is not to be stored.
    pub(super) fn is_discarded(&self) -> bool {
        self.discarded.load(Relaxed)
    }

    /// Whether somebody has joined whoever ordered it.
    pub(super) fn is_followed(&self) -> bool {
        self.state.lock().followed
    }

    pub(super) fn has_head(&self) -> bool {
        self.state.lock().head.is_some()
    }

    /// Tells the readers; only the first time.
    pub(super) fn tell(&self, head: Head) {
        let wakers = {
            let mut state = self.state.lock();
            if state.head.is_some() {
                return;
            }
            state.head = Some(head);
            state.take_wakers()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Leaves a response for whoever ordered the fill, and tells the others that it is not for them.
    pub(super) fn give(&self, response: Response<Body>, refusal: Refusal) {
        let mut unwanted = Some(response);
        let wakers = {
            let mut state = self.state.lock();
            if state.head.is_some() {
                return;
            }
            state.head = Some(Head::Private(refusal));
            if !state.owner_gone {
                state.private = unwanted.take();
            }
            state.take_wakers()
        };
        wakers.into_iter().for_each(Waker::wake);
        drop(unwanted);
    }

    /// Bytes have arrived. Gives what is held now, in bytes, and whether there is room for it beside what others hold.
    pub(super) fn push(&self, chunk: Bytes) -> (u64, bool) {
        let (wakers, held) = {
            let mut state = self.state.lock();
            let begin = state.len;
            state.len += chunk.len() as u64;
            let held = state.held_bytes + chunk.len() as u64 + FILL_CHUNK_OVERHEAD_BYTES;
            state.chunks.push_back((begin, chunk));
            let within = state.hold(held);
            (state.take_wakers(), (state.held_bytes, within))
        };
        wakers.into_iter().for_each(Waker::wake);
        held
    }

    /// It is not stored any more: from here on at the pace of the readers.
    pub(super) fn pace(&self) {
        let mut state = self.state.lock();
        state.paced = true;
        state.forget_read();
    }

    /// The begin of the body is on disk. What is not needed for those who are close behind is dropped.
    pub(super) fn spilled(&self, begin: DiskBody) {
        let mut state = self.state.lock();
        let written = begin.len();
        state.on_disk = Some(begin);
        while state.held_bytes > state.window()
            && let Some((at, chunk)) = state.chunks.front()
            && at + chunk.len() as u64 <= written
        {
            state.drop_first();
        }
    }

    /// Waits until a paced fill may go on. False: nobody reads any more.
    pub(super) async fn room(&self) -> bool {
        loop {
            let (began, left) = (Instant::now(), self.patience.saturating_sub(self.state.lock().waited));
            let room = tokio::time::timeout(left, self.room_for_next()).await;
            let mut state = self.state.lock();
            state.waited += began.elapsed();
            if state.waited >= self.patience {
                state.leave_behind();
            }
            if let Ok(room) = room {
                return room;
            }
        }
    }

    async fn room_for_next(&self) -> bool {
        std::future::poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.is_alone() {
                Poll::Ready(false)
            } else if state.held_bytes <= state.window() {
                Poll::Ready(true)
            } else {
                state.filler = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// It became this entry, stored or not. Its bytes are in memory once.
    pub(super) fn became(&self, entry: Arc<Entry>) {
        let mut state = self.state.lock();
        if entry.body.on_disk().is_none() && entry.body.len() == state.len {
            let mut at = 0;
            let chunks = entry.body.in_memory().iter().map(|piece| {
                at += piece.len() as u64;
                (at - piece.len() as u64, piece.clone())
            });
            state.chunks = chunks.collect();
            state.hold(0);
        }
        state.stored = Some(entry);
    }

    /// What it became.
    pub fn stored(&self) -> Option<Arc<Entry>> {
        self.state.lock().stored.clone()
    }

    /// The body has ended.
    pub(super) fn end(&self, end: Result<(), BodyError>) {
        let wakers = {
            let mut state = self.state.lock();
            state.end.get_or_insert(end);
            state.take_wakers()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// All chunks, where none has been dropped.
    pub(super) fn all_chunks(&self) -> Vec<Bytes> {
        self.state.lock().chunks.iter().map(|(_, chunk)| chunk.clone()).collect()
    }
}

impl State {
    fn take_wakers(&mut self) -> Wakers {
        self.readers.iter_mut().filter_map(|(_, reader)| reader.waker.take()).collect()
    }

    fn drop_first(&mut self) {
        if let Some((_, chunk)) = self.chunks.pop_front() {
            self.hold(self.held_bytes.saturating_sub(chunk.len() as u64 + FILL_CHUNK_OVERHEAD_BYTES));
        }
    }

    fn hold(&mut self, bytes: u64) -> bool {
        self.held_bytes = bytes;
        self.share.hold(bytes)
    }

    /// Whether nobody reads any more that it goes on for.
    fn is_alone(&self) -> bool {
        self.readers.iter().all(|(_, reader)| reader.left_behind)
    }

    /// Bytes that are held for the slowest reader.
    fn window(&self) -> u64 {
        if self.share.is_within() { FILL_WINDOW_BYTES } else { FILL_NARROW_WINDOW_BYTES }
    }

    /// What a reader that has `at` bytes reads next.
    fn next(&self, at: u64) -> Option<Next> {
        match self.chunks.front() {
            Some((first, _)) if *first <= at => {
                let index = self.chunks.partition_point(|(begin, _)| *begin <= at).checked_sub(1)?;
                let (begin, chunk) = self.chunks.get(index)?;
                let rest = chunk.slice(usize::try_from(at - begin).ok()?.min(chunk.len())..);
                (!rest.is_empty()).then_some(Next::Bytes(rest))
            }
            _ => {
                let written = self.on_disk.as_ref().filter(|written| at < written.len())?;
                Some(Next::OnDisk(written.part(at..written.len())))
            }
        }
    }

    /// Goes on without those who are behind others, and took less than a window while these waited for them.
    fn leave_behind(&mut self) {
        self.waited = Duration::ZERO;
        let waiting = self.readers.iter().filter(|(_, reader)| !reader.left_behind);
        let foremost = waiting.map(|(_, reader)| reader.at).max().unwrap_or_default();
        for (_, reader) in &mut self.readers {
            reader.left_behind |= reader.at < foremost && reader.at - reader.had < FILL_WINDOW_BYTES;
            reader.had = reader.at;
        }
        self.forget_read();
    }

    /// Drops the chunks that every reader has, or finds on disk. Only for paced fills.
    fn forget_read(&mut self) {
        if !self.paced {
            return;
        }
        let written = self.on_disk.as_ref().map_or(0, DiskBody::len);
        let followed = self.readers.iter().filter(|(_, reader)| !reader.left_behind);
        let slowest = followed.map(|(_, reader)| reader.at.max(written)).min().unwrap_or(u64::MAX);
        while let Some((at, chunk)) = self.chunks.front()
            && at + chunk.len() as u64 <= slowest
        {
            self.drop_first();
        }
        if (self.is_alone() || self.held_bytes <= self.window())
            && let Some(filler) = self.filler.take()
        {
            filler.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::ledger::Ledger;

    #[test]
    fn who_takes_little_while_others_wait_is_left_behind_and_nobody_else() {
        let fill = Fill::new(Stamp::default(), Ledger::new(0).share(0), Duration::ZERO);
        let readers = [(); 4].map(|()| fill.reader(false, 4).expect("a place"));
        let mut state = fill.state.lock();
        for (reader, (had, at)) in readers.iter().zip([(0, 0), (5, 5 + FILL_WINDOW_BYTES), (9, 8 + FILL_WINDOW_BYTES), (1 << 30, 1 << 30)])
        {
            (state.readers[reader.id].had, state.readers[reader.id].at) = (had, at);
        }
        state.leave_behind();
        let left = readers.each_ref().map(|reader| state.readers[reader.id].left_behind);
        assert_eq!(left, [true, false, true, false], "the last waits for the others");
        drop(state);
    }
}
