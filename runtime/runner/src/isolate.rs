//! One V8 isolate that runs one version: born blank from the snapshot, loaded once, then given invocations and messages.
//!
//! Many isolates live on one thread. Every method here enters the isolate and exits it before it returns, so that between
//! calls none is entered; dropping one enters it too. Nothing here measures, limits or kills: that is the caller's part,
//! which learns through [`Surroundings`] whose JavaScript runs when.

use std::rc::Rc;
use std::task::Context;
use std::time::Instant;

use deno_core::v8;
use selvedge_runtime::protocol::{BodyKind, LoadHead, RequestHead, Slot, StreamId, ToEdge, ToRunner};
use selvedge_runtime::{ClientInfo, Module, Outcome};

/// What an isolate needs of the thread that it lives on.
pub trait Surroundings {
    /// Takes a message for the edge. Must not run JavaScript. Never called with `Done`, `Loaded` or `Gone`: they carry measurements.
    fn send(&self, message: ToEdge);

    /// JavaScript of an invocation (0: of no invocation, such as a version that loads) is about to run. Not nested.
    fn before_js(&self, stream: StreamId);

    /// It has run, microtasks included.
    fn after_js(&self, stream: StreamId);

    /// Everything of an invocation has ended: send its `Done`. Called once per stream, outside of JavaScript.
    fn finished(&self, stream: StreamId, outcome: Outcome);
}

/// What an isolate is born with.
pub struct IsolateSetup {
    /// Bound of the V8 heap, in bytes.
    pub heap_bytes_max: usize,
    /// Allocates array buffers; V8's own where there is none.
    pub allocator: Option<v8::UniqueRef<v8::Allocator>>,
    /// The thread that it lives on.
    pub surroundings: Rc<dyn Surroundings>,
}

/// Whether an isolate can go on after a call.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// It can.
    Alive,
    /// Its execution was terminated: drop it. [`Isolate::live_streams`] says what was running.
    Terminated,
}

/// How far loading a version is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadState {
    /// [`Isolate::load`] was not called.
    Blank,
    /// A top-level `await` is pending: poll.
    Loading,
    /// Invocations may start.
    Ready,
    /// The version cannot run: drop the isolate. The text is for the operator: an exception with its mapped stack, an
    /// import that does not resolve, a missing handler, a top-level `await` that nothing can end.
    Failed(String),
}

/// An invocation that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveStream {
    /// Its id.
    pub stream: StreamId,
    /// Its `Response` or `Failed` was sent.
    pub answered: bool,
}

/// Memory of an isolate, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heap {
    /// V8 heap in use.
    pub used: u64,
    /// What V8 knows to hang on its objects outside the heap.
    pub external: u64,
}

/// One V8 isolate; see the head of this file.
pub struct Isolate {}

impl Isolate {
    /// Makes a blank isolate from the snapshot (3 ms). Must be called inside an entered tokio current-thread runtime, after
    /// [`crate::snapshot::init_platform`].
    pub fn blank(setup: IsolateSetup) -> Self {
        let _ = setup;
        Self {}
    }

    /// Loads a version: at most once. See [`Isolate::load_state`] for what came of it, at once or after polls.
    pub fn load(&mut self, slot: Slot, head: LoadHead, modules: Vec<Module>) -> Pulse {
        let _ = (slot, head, modules);
        Pulse::Alive
    }

    /// How far loading is.
    pub fn load_state(&self) -> &LoadState {
        &LoadState::Blank
    }

    /// Starts an invocation of the `fetch` handler of a version that is `Ready`.
    pub fn start(&mut self, stream: StreamId, head: RequestHead, client: ClientInfo, body: BodyKind) -> Pulse {
        let _ = (stream, head, client, body);
        Pulse::Alive
    }

    /// Takes `BodyData`, `BodyEnd`, `Credit`, `Cancel` and `Fetched` of streams that were started here; others are ignored.
    pub fn deliver(&mut self, message: ToRunner) -> Pulse {
        let _ = message;
        Pulse::Alive
    }

    /// Runs due timers and whatever became ready, and arranges for a wake-up through `cx` (not for timers: see
    /// [`Isolate::next_timer`]).
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Pulse {
        let _ = cx;
        Pulse::Alive
    }

    /// When the next timer is due.
    pub fn next_timer(&self) -> Option<Instant> {
        None
    }

    /// Invocations that have not ended.
    pub fn live_streams(&self) -> Vec<LiveStream> {
        Vec::new()
    }

    /// For `terminate_execution` from another thread.
    pub fn handle(&mut self) -> v8::IsolateHandle {
        panic!("not yet")
    }

    /// Memory in use.
    pub fn heap(&mut self) -> Heap {
        Heap { used: 0, external: 0 }
    }

    /// Installs the callback that V8 asks when the heap is nearly full: `(current, initial) -> new limit`, in bytes.
    pub fn on_near_heap_limit(&mut self, callback: impl FnMut(usize, usize) -> usize + 'static) {
        let _ = callback;
    }
}
