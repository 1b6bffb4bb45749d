//! One V8 isolate that runs one version: born blank from the snapshot, loaded once, then given invocations and messages.
//!
//! Many isolates live on one thread. Every method here enters the isolate and exits it before it returns, so that between
//! calls none is entered; dropping one enters it too. Nothing here measures, limits or kills: that is the caller's part,
//! which learns through [`Surroundings`] whose JavaScript runs when.

mod birth;
mod loading;
mod memory;
mod polling;
mod turn;
mod values;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use deno_core::v8;
use http::StatusCode;
use selvedge_runtime::protocol::{BodyKind, Fields, Part, RequestHead, ResponseHead, StreamId, ToEdge, ToRunner};
use selvedge_runtime::{ClientInfo, Outcome, PurgeRefusal};

use crate::blobs::CountingBlobs;
use crate::engine::Engine;
use crate::hooks::Hook;
use crate::invocations::Invocations;
use crate::ops::flat_headers;
use memory::External;
pub use memory::Heap;
pub(crate) use memory::owned_bytes;
use polling::Signal;
use values::{body_argument, byte_view, numbers, text};

/// The names and values of a response's fields, where JavaScript's strings were copied to.
pub type FieldIter<'a> = dyn ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + 'a;

/// What an isolate needs of the thread that it lives on.
pub trait Surroundings {
    /// Takes the beginning of a response for the edge, whose fields need no message of their own. Must not run JavaScript.
    fn respond(&self, stream: StreamId, status: StatusCode, fields: &mut FieldIter<'_>, body: BodyKind);

    /// Takes any other message for the edge. Must not run JavaScript. Never called with `Done`, `Loaded` or `Gone`: they carry measurements.
    fn send(&self, message: ToEdge);

    /// JavaScript of an invocation (0: of no invocation, such as a version that loads) is about to run. Not nested.
    fn before_js(&self, stream: StreamId);

    /// It has run, microtasks included.
    fn after_js(&self, stream: StreamId);

    /// Everything of an invocation has ended: send its `Done`. Called once per stream, outside of JavaScript.
    fn finished(&self, stream: StreamId, outcome: Outcome);

    /// Whether lines of the console say where it was called: that costs some microseconds for each, and the first time the reading of a source map.
    fn places_lines(&self) -> bool {
        false
    }
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

/// One V8 isolate; see the head of this file.
pub struct Isolate {
    engine: Engine,
    /// Its one context. Kept here because asking deno_core for it makes another handle each time.
    context: Option<v8::Global<v8::Context>>,
    state: Rc<Invocations>,
    load: LoadState,
    /// The promise and the namespace of a version that is still being evaluated.
    evaluation: Option<(v8::Global<v8::Promise>, v8::Global<v8::Module>)>,
    signal: Arc<Signal>,
    blobs: Arc<CountingBlobs>,
    external_at_birth: External,
    near_heap_limit: bool,
    /// What is called after a full collection; V8 holds a pointer to it.
    collected: Option<Box<memory::Collected>>,
}

impl Isolate {
    /// How far loading is.
    pub fn load_state(&self) -> &LoadState {
        &self.load
    }

    /// Starts an invocation of the `fetch` handler of a version that is `Ready`.
    pub fn start(&mut self, stream: StreamId, head: RequestHead<Fields>, client: ClientInfo, body: BodyKind) -> Pulse {
        let state = self.state.clone();
        self.turn(stream, |scope, _| {
            let number = v8::Number::new(scope, stream.into());
            let method = text(scope, head.method.as_str());
            let url = text(scope, &head.url);
            let (kind, given) = body_argument(scope, &body);
            state.begin(stream, head, client, matches!(body, BodyKind::Stream(_)));
            state.call(scope, Hook::Start, &[number.into(), method, url, kind, given]);
        })
    }

    /// Takes `BodyData`, `BodyEnd`, `Credit`, `Cancel`, `Settled`, `Purged` and `Fetched` of streams that were started here; others are ignored.
    pub fn deliver(&mut self, message: ToRunner) -> Pulse {
        let state = self.state.clone();
        match message {
            ToRunner::BodyData { stream, part, bytes } if state.accept(stream, part, bytes.len()) => self.turn(stream, |scope, _| {
                let bytes = byte_view(scope, &bytes);
                let [stream, part] = numbers(scope, [stream, part]);
                state.call(scope, Hook::BodyData, &[stream, part, bytes]);
            }),
            ToRunner::BodyEnd { stream, part, error } if state.is_live(stream) => {
                state.incoming_ended(stream, part);
                self.turn(stream, |scope, _| {
                    let error = match error {
                        Some(error) => text(scope, &error),
                        None => v8::undefined(scope).into(),
                    };
                    let [stream, part] = numbers(scope, [stream, part]);
                    state.call(scope, Hook::BodyEnd, &[stream, part, error]);
                })
            }
            ToRunner::Credit { stream, part, bytes } if state.credit(stream, part, bytes) => self.turn(stream, |scope, _| {
                let [stream, part] = numbers(scope, [stream, part]);
                state.call(scope, Hook::Credited, &[stream, part]);
            }),
            ToRunner::Cancel { stream, outcome } if state.is_live(stream) => self.cancel(stream, outcome),
            ToRunner::Settled { stream, part, yes, note } => self.settled(stream, part, yes, note.as_deref()),
            ToRunner::Purged { stream, part, refused } => self.purged(stream, part, refused),
            ToRunner::Fetched { stream, part, result, url, redirects } => self.fetched(stream, part, result, &url, redirects),
            _ => Pulse::Alive,
        }
    }

    fn cancel(&mut self, stream: StreamId, outcome: Outcome) -> Pulse {
        let state = self.state.clone();
        self.turn(stream, |scope, _| {
            let message = text(scope, &format!("the invocation was aborted: {outcome}"));
            let number = v8::Number::new(scope, stream.into()).into();
            // Its client has gone: what it promised to `waitUntil` goes on.
            let stays = outcome == Outcome::Canceled && state.call(scope, Hook::Leave, &[number]).is_some_and(|stays| stays.is_true());
            if stays {
                state.leave(stream);
            } else {
                // First the end, so that nothing that the worker does about it reaches the edge.
                state.end(stream, outcome);
            }
            state.quiet.set(true);
            let stays = v8::Boolean::new(scope, stays).into();
            state.call(scope, Hook::Cancel, &[number, message, stays]);
        })
    }

    fn fetched(
        &mut self,
        stream: StreamId,
        part: Part,
        result: Result<(Box<ResponseHead<Fields>>, BodyKind), String>,
        url: &str,
        redirects: u32,
    ) -> Pulse {
        let state = self.state.clone();
        let streams = matches!(&result, Ok((_, BodyKind::Stream(_))));
        if !state.answered(stream, part, streams) {
            return Pulse::Alive;
        }
        let starved = result.is_err() && state.unwanted(stream, part);
        self.turn(stream, |scope, _| {
            let [stream, part, redirects] = numbers(scope, [stream, part, redirects]);
            if starved {
                state.call(scope, Hook::Credited, &[stream, part]);
            }
            match result {
                Ok((head, body)) => {
                    let status = v8::Integer::new(scope, head.status.as_u16().into());
                    let headers = flat_headers(scope, head.headers.iter());
                    let (kind, given) = body_argument(scope, &body);
                    let url = text(scope, url);
                    state.call(scope, Hook::Fetched, &[stream, part, status.into(), headers, kind, given, url, redirects]);
                }
                Err(message) => {
                    let message = text(scope, &message);
                    state.call(scope, Hook::FetchFailed, &[stream, part, message]);
                }
            }
        })
    }

    fn settled(&mut self, stream: StreamId, part: Part, yes: bool, note: Option<&str>) -> Pulse {
        let state = self.state.clone();
        if !state.answered(stream, part, false) {
            return Pulse::Alive;
        }
        // What was refused need not be sent to its end.
        let starved = state.unwanted(stream, part);
        self.turn(stream, |scope, _| {
            let [stream, part] = numbers(scope, [stream, part]);
            if starved {
                state.call(scope, Hook::Credited, &[stream, part]);
            }
            let yes = v8::Boolean::new(scope, yes).into();
            let note = match note {
                Some(note) => text(scope, note),
                None => v8::undefined(scope).into(),
            };
            state.call(scope, Hook::Settled, &[stream, part, yes, note]);
        })
    }

    fn purged(&mut self, stream: StreamId, part: Part, refused: Option<PurgeRefusal>) -> Pulse {
        let state = self.state.clone();
        if !state.answered(stream, part, false) {
            return Pulse::Alive;
        }
        self.turn(stream, |scope, _| {
            let [stream, part] = numbers(scope, [stream, part]);
            let refused = match refused {
                Some(PurgeRefusal { code, message }) => [v8::Integer::new(scope, code.into()).into(), text(scope, &message)],
                None => [v8::undefined(scope).into(); 2],
            };
            state.call(scope, Hook::Purged, &[stream, part, refused[0], refused[1]]);
        })
    }

    /// When the next timer is due.
    pub fn next_timer(&self) -> Option<Instant> {
        self.state.timers.borrow().next()
    }

    /// Invocations that have not ended.
    pub fn live_streams(&self) -> Vec<LiveStream> {
        self.state.live_streams()
    }

    /// For `terminate_execution` from another thread.
    pub fn handle(&mut self) -> v8::IsolateHandle {
        self.engine.handle()
    }
}

impl Drop for Isolate {
    fn drop(&mut self) {
        self.forget_collected();
        // Handles must not outlive the isolate that they point into.
        let _entered = self.engine.enter();
        self.evaluation = None;
        self.context = None;
        self.state.release_handles();
    }
}
