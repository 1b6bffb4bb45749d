//! One V8 isolate that runs one version: born blank from the snapshot, loaded once, then given invocations and messages.
//!
//! Many isolates live on one thread. Every method here enters the isolate and exits it before it returns, so that between
//! calls none is entered; dropping one enters it too. Nothing here measures, limits or kills: that is the caller's part,
//! which learns through [`Surroundings`] whose JavaScript runs when.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use deno_core::{PollEventLoopOptions, v8};
use futures::task::AtomicWaker;
use selvedge_runtime::protocol::{BodyKind, LoadHead, Part, RequestHead, ResponseHead, Slot, StreamId, ToEdge, ToRunner};
use selvedge_runtime::{ClientInfo, Module, Outcome, Var};

use crate::blobs::CountingBlobs;
use crate::engine::Engine;
use crate::exception;
use crate::hooks::{Hook, Hooks};
use crate::invocations::{Invocations, promise_rejected};
use crate::modules;
use crate::ops::flat_headers;
use crate::snapshot;

/// Timers that one poll runs before others get their turn.
const TIMERS_PER_POLL_MAX: usize = 64;
/// Completed operations of the engine that one poll hands over.
const READY_PER_POLL_MAX: usize = 64;
/// Rounds of unhandled rejections in one turn: a handler of them may reject promises in turn.
const REJECTION_ROUNDS_MAX: usize = 8;

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
pub struct Isolate {
    engine: Engine,
    state: Rc<Invocations>,
    load: LoadState,
    /// The promise and the namespace of a version that is still being evaluated.
    evaluation: Option<(v8::Global<v8::Promise>, v8::Global<v8::Module>)>,
    signal: Arc<Signal>,
    blobs: Arc<CountingBlobs>,
    near_heap_limit: bool,
}

/// Wakes the thread, and remembers that it was this isolate's engine that asked.
struct Signal {
    woken: AtomicBool,
    thread: AtomicWaker,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.wake();
    }
}

impl Isolate {
    /// Makes a blank isolate from the snapshot (3 ms). Must be called inside an entered tokio current-thread runtime, after
    /// [`crate::snapshot::init_platform`].
    pub fn blank(setup: IsolateSetup) -> Self {
        let state = Rc::new(Invocations::new(setup.surroundings));
        let blobs = Arc::new(CountingBlobs::default());
        let mut engine = Engine::new(snapshot::options(setup.heap_bytes_max, setup.allocator, blobs.clone(), state.clone()));
        let signal = Arc::new(Signal { woken: AtomicBool::new(true), thread: AtomicWaker::new() });
        {
            let mut entered = engine.enter();
            furnish(entered.v8_isolate(), &state);
            deno_core::scope!(scope, entered);
            scope.get_current_context().set_allow_generation_from_strings(false);
            let (getter, to_string) = stack_functions(scope);
            *state.stack_getter.borrow_mut() = getter;
            *state.site_to_string.borrow_mut() = to_string;
            *state.hooks.borrow_mut() = Hooks::take(scope);
        }
        assert!(state.hooks.borrow().is_some(), "the snapshot has our functions: the build script made it from the same sources");
        Self { engine, state, load: LoadState::Blank, evaluation: None, signal, blobs, near_heap_limit: false }
    }

    /// Loads a version: at most once. See [`Isolate::load_state`] for what came of it, at once or after polls.
    pub fn load(&mut self, slot: Slot, head: LoadHead, modules: Vec<Module>) -> Pulse {
        if self.load != LoadState::Blank {
            return Pulse::Alive;
        }
        self.load = LoadState::Loading;
        self.state.slot.set(slot);
        self.state.modules.add(modules);
        let vars = vars_json(&head);
        let mut outcome = Err("the version could not be evaluated".to_owned());
        let pulse = self.turn(0, |scope, state| outcome = evaluate(scope, state, &head.entry, &vars));
        match outcome {
            Ok(evaluation) => self.evaluation = Some(evaluation),
            Err(message) => self.load = LoadState::Failed(message),
        }
        if pulse == Pulse::Terminated { pulse } else { self.advance_load() }
    }

    /// How far loading is.
    pub fn load_state(&self) -> &LoadState {
        &self.load
    }

    /// Looks whether the evaluation has ended, and takes the handler if it has.
    fn advance_load(&mut self) -> Pulse {
        let Some((promise, module)) = self.evaluation.take() else { return Pulse::Alive };
        let mut result = None;
        let state = self.state.clone();
        let pulse = self.turn(0, |scope, _| {
            let promise = v8::Local::new(scope, &promise);
            match promise.state() {
                v8::PromiseState::Pending => {}
                v8::PromiseState::Fulfilled => result = Some(adopt(scope, &state, &module)),
                v8::PromiseState::Rejected => {
                    promise.mark_as_handled();
                    let exception = promise.result(scope);
                    result = Some(Err(exception::describe(scope, &state, exception, None)));
                }
            }
        });
        match result {
            Some(Ok(())) => self.load = LoadState::Ready,
            Some(Err(message)) => self.load = LoadState::Failed(message),
            None if self.state.expects_async.get() || self.signal.woken.load(Ordering::Acquire) => {
                self.evaluation = Some((promise, module))
            }
            None => self.load = LoadState::Failed("a top-level await waits for something that can never happen".to_owned()),
        }
        pulse
    }

    /// Starts an invocation of the `fetch` handler of a version that is `Ready`.
    pub fn start(&mut self, stream: StreamId, head: RequestHead, client: ClientInfo, body: BodyKind) -> Pulse {
        let state = self.state.clone();
        self.turn(stream, |scope, _| {
            let number = v8::Number::new(scope, stream.into());
            let method = text(scope, head.method.as_str());
            let url = text(scope, &head.url);
            let (kind, given) = body_argument(scope, &body);
            state.begin(stream, Box::new(head), client, matches!(body, BodyKind::Stream(_)));
            state.call(scope, Hook::Start, &[number.into(), method, url, kind, given]);
        })
    }

    /// Takes `BodyData`, `BodyEnd`, `Credit`, `Cancel` and `Fetched` of streams that were started here; others are ignored.
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
            ToRunner::Fetched { stream, part, result, url, redirects } => self.fetched(stream, part, result, &url, redirects),
            _ => Pulse::Alive,
        }
    }

    fn cancel(&mut self, stream: StreamId, outcome: Outcome) -> Pulse {
        let state = self.state.clone();
        self.turn(stream, |scope, _| {
            let message = text(scope, &format!("the invocation was aborted: {outcome}"));
            let number = v8::Number::new(scope, stream.into());
            // First the end, so that nothing that the worker does about it reaches the edge.
            state.end(stream, outcome);
            state.quiet.set(true);
            state.call(scope, Hook::Cancel, &[number.into(), message]);
        })
    }

    fn fetched(
        &mut self,
        stream: StreamId,
        part: Part,
        result: Result<(Box<ResponseHead>, BodyKind), String>,
        url: &str,
        redirects: u32,
    ) -> Pulse {
        let state = self.state.clone();
        let streams = matches!(&result, Ok((_, BodyKind::Stream(_))));
        if !state.fetched(stream, part, streams) {
            return Pulse::Alive;
        }
        self.turn(stream, |scope, _| {
            let [stream, part, redirects] = numbers(scope, [stream, part, redirects]);
            match result {
                Ok((head, body)) => {
                    let status = v8::Integer::new(scope, head.status.as_u16().into());
                    let headers = flat_headers(scope, &head.headers);
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

    /// Runs due timers and whatever became ready, and arranges for a wake-up through `cx` (not for timers: see
    /// [`Isolate::next_timer`]).
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Pulse {
        if self.state.terminated.get() {
            return Pulse::Terminated;
        }
        self.signal.thread.register(cx.waker());
        if self.run_timers() == Pulse::Terminated || self.run_engine() == Pulse::Terminated {
            return Pulse::Terminated;
        }
        if self.evaluation.is_some() && self.advance_load() == Pulse::Terminated {
            return Pulse::Terminated;
        }
        self.end_hung()
    }

    fn run_timers(&mut self) -> Pulse {
        let now = Instant::now();
        for _ in 0..TIMERS_PER_POLL_MAX {
            let Some((id, stream)) = self.state.timers.borrow_mut().due(now) else { break };
            let pulse = self.turn(stream, |scope, state| {
                let id = v8::Integer::new_from_unsigned(scope, id);
                state.call(scope, Hook::Fire, &[id.into()]);
            });
            if pulse == Pulse::Terminated {
                return pulse;
            }
        }
        Pulse::Alive
    }

    /// Lets the engine's own asynchronous operations complete, then gives each a turn of its invocation.
    fn run_engine(&mut self) -> Pulse {
        if self.signal.woken.swap(false, Ordering::AcqRel) || self.state.expects_async.get() {
            self.state.tick();
            self.state.surroundings().before_js(0);
            let waker = Waker::from(self.signal.clone());
            let mut cx = Context::from_waker(&waker);
            let result = self.engine.enter().poll_event_loop(&mut cx, PollEventLoopOptions::default());
            self.state.surroundings().after_js(0);
            if let Poll::Ready(Err(_)) = result
                && self.is_terminating()
            {
                return Pulse::Terminated;
            }
            // Continuations may have run in there: what they left is taken up in a turn.
            if self.state.has_leftovers() && self.turn(0, |_, _| {}) == Pulse::Terminated {
                return Pulse::Terminated;
            }
        }
        for _ in 0..READY_PER_POLL_MAX {
            let Some(stream) = self.state.ready.borrow_mut().pop_front() else { return Pulse::Alive };
            let stream = if self.state.is_live(stream) { stream } else { 0 };
            let pulse = self.turn(stream, |scope, state| {
                state.call(scope, Hook::SettleNext, &[]);
            });
            if pulse == Pulse::Terminated {
                return pulse;
            }
        }
        // More is ready than one poll takes: come again.
        self.signal.wake_by_ref();
        Pulse::Alive
    }

    fn is_terminating(&mut self) -> bool {
        self.engine.enter().v8_isolate().is_execution_terminating()
    }

    /// Ends an invocation that nothing can ever wake again, instead of letting it wait for its wall limit.
    fn end_hung(&mut self) -> Pulse {
        if self.signal.woken.load(Ordering::Acquire) {
            return Pulse::Alive;
        }
        let Some(stream) = self.state.is_hung() else { return Pulse::Alive };
        self.state.fail(stream, "the handler's promise can never resolve: the script will never generate a response".to_owned());
        self.cancel(stream, Outcome::Exception)
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

    /// Memory in use.
    pub fn heap(&mut self) -> Heap {
        let statistics = self.engine.enter().v8_isolate().get_heap_statistics();
        let external = statistics.external_memory() as u64 + statistics.malloced_memory() as u64;
        Heap { used: statistics.used_heap_size() as u64, external: external + self.blobs.bytes() }
    }

    /// Installs the callback that V8 asks when the heap is nearly full: `(current, initial) -> new limit`, in bytes. Once.
    pub fn on_near_heap_limit(&mut self, callback: impl FnMut(usize, usize) -> usize + 'static) {
        if !std::mem::replace(&mut self.near_heap_limit, true) {
            self.engine.enter().add_near_heap_limit_callback(callback);
        }
    }

    /// One entry into JavaScript: runs `run` and then all microtasks in the context of an invocation, and reports both.
    fn turn(&mut self, stream: StreamId, run: impl FnOnce(&mut v8::PinScope<'_, '_>, &Invocations)) -> Pulse {
        if self.state.terminated.get() {
            return Pulse::Terminated;
        }
        let state = self.state.clone();
        state.tick();
        state.surroundings().before_js(stream);
        {
            let mut entered = self.engine.enter();
            deno_core::scope!(scope, entered);
            v8::tc_scope!(let scope, scope);
            enter_context(scope, stream);
            run(scope, &state);
            settle(scope, &state);
            state.quiet.set(false);
            state.forget_timers(scope);
            enter_context(scope, 0);
            if scope.has_terminated() || scope.is_execution_terminating() {
                state.terminated.set(true);
            }
        }
        state.surroundings().after_js(stream);
        state.announce_ended();
        if state.terminated.get() { Pulse::Terminated } else { Pulse::Alive }
    }
}

impl Drop for Isolate {
    fn drop(&mut self) {
        // Handles must not outlive the isolate that they point into.
        let _entered = self.engine.enter();
        self.evaluation = None;
        self.state.release_handles();
    }
}

/// The callbacks that V8 has from us instead of from deno_core.
fn furnish(isolate: &mut v8::Isolate, state: &Rc<Invocations>) {
    isolate.set_slot(state.clone());
    isolate.set_promise_reject_callback(promise_rejected);
    isolate.set_prepare_stack_trace_callback(exception::prepare_stack_trace);
    isolate.set_host_import_module_dynamically_callback(modules::import_dynamically);
    isolate.set_host_import_module_with_phase_dynamically_callback(modules::import_dynamically_with_phase);
    isolate.set_host_initialize_import_meta_object_callback(modules::import_meta);
    isolate.set_allow_wasm_code_generation_callback(modules::wasm_allowed);
    isolate.set_allow_atomics_wait(false);
    isolate.set_oom_error_handler(crate::last_words::on_out_of_memory);
}

/// V8's own `stack` getter (none where it is plain data) and `CallSite.prototype.toString`, before any worker ran.
fn stack_functions(scope: &mut v8::PinScope<'_, '_>) -> (Option<v8::Global<v8::Value>>, Option<v8::Global<v8::Function>>) {
    let source = "(() => {
        const get = Object.getOwnPropertyDescriptor(new Error(''), 'stack')?.get;
        Error.prepareStackTrace = (_, sites) => sites;
        const sites = new Error('').stack;
        delete Error.prepareStackTrace;
        return [get, sites[0]?.toString];
    })()";
    let functions = v8::String::new(scope, source)
        .and_then(|source| v8::Script::compile(scope, source, None))
        .and_then(|script| script.run(scope))
        .and_then(|pair| v8::Local::<v8::Array>::try_from(pair).ok());
    let Some(functions) = functions else { return (None, None) };
    let getter = functions.get_index(scope, 0).filter(|getter| getter.is_function()).map(|getter| v8::Global::new(scope, getter));
    let to_string = functions
        .get_index(scope, 1)
        .and_then(|function| v8::Local::<v8::Function>::try_from(function).ok())
        .map(|function| v8::Global::new(scope, function));
    (getter, to_string)
}

/// Says whose JavaScript runs: V8 carries it along with every promise.
fn enter_context(scope: &mut v8::PinScope<'_, '_>, stream: StreamId) {
    let context: v8::Local<v8::Value> =
        if stream == 0 { v8::undefined(scope).into() } else { v8::Number::new(scope, stream.into()).into() };
    scope.set_continuation_preserved_embedder_data(context);
}

/// Runs the microtasks, then hands over promises that no one handled, until there are no more.
fn settle(scope: &mut v8::PinScope<'_, '_>, state: &Invocations) {
    scope.perform_microtask_checkpoint();
    for _ in 0..REJECTION_ROUNDS_MAX {
        if state.terminated.get() || scope.is_execution_terminating() {
            return;
        }
        let rejections = state.take_rejections();
        if rejections.is_empty() {
            return;
        }
        for rejection in rejections.into_iter().filter(|_| !state.quiet.get()) {
            enter_context(scope, rejection.stream);
            let promise = v8::Local::new(scope, rejection.promise);
            let reason = v8::Local::new(scope, rejection.reason);
            state.call(scope, Hook::Unhandled, &[promise.into(), reason]);
        }
        scope.perform_microtask_checkpoint();
    }
}

/// Begins evaluating a version.
fn evaluate(
    scope: &mut v8::PinScope<'_, '_>,
    state: &Invocations,
    entry: &str,
    vars: &str,
) -> Result<(v8::Global<v8::Promise>, v8::Global<v8::Module>), String> {
    let vars = text(scope, vars);
    state.call(scope, Hook::Prepare, &[vars]);
    v8::tc_scope!(let scope, scope);
    match state.modules.evaluate(scope, state, entry) {
        Some((module, promise)) => Ok((v8::Global::new(scope, promise), v8::Global::new(scope, module))),
        None if scope.has_terminated() => {
            state.terminated.set(true);
            Err("terminated".to_owned())
        }
        None => match (scope.exception(), scope.message()) {
            (Some(exception), message) => {
                let mut text = exception::describe(scope, state, exception, None);
                if !text.contains("\n    at ")
                    && let Some(place) = message.and_then(|message| place(scope, state, message))
                {
                    text.push_str(&place);
                }
                Err(text)
            }
            (None, _) => Err("the version could not be evaluated".to_owned()),
        },
    }
}

/// Where a syntax error is: it has no stack.
fn place(scope: &mut v8::PinScope<'_, '_>, state: &Invocations, message: v8::Local<'_, v8::Message>) -> Option<String> {
    let file = message.get_script_resource_name(scope)?.to_rust_string_lossy(scope);
    let line = message.get_line_number(scope).filter(|line| *line > 0)?;
    let column = message.get_start_column().checked_add(1)?;
    let frame = state.modules.map_frame(&format!("{file}:{line}:{column}"));
    Some(format!("\n    at {frame}"))
}

/// Takes the handler from an evaluated version.
fn adopt(scope: &mut v8::PinScope<'_, '_>, state: &Invocations, module: &v8::Global<v8::Module>) -> Result<(), String> {
    let module = v8::Local::new(scope, module);
    let exported = v8::Local::<v8::Object>::try_from(module.get_module_namespace())
        .ok()
        .and_then(|namespace| v8::String::new(scope, "default").and_then(|key| namespace.get(scope, key.into())))
        .unwrap_or_else(|| v8::undefined(scope).into());
    match state.call(scope, Hook::Adopt, &[exported]) {
        Some(wrong) if wrong.is_undefined() => Ok(()),
        Some(wrong) => Err(wrong.to_rust_string_lossy(scope)),
        None => Err("its default export could not be read".to_owned()),
    }
}

/// `env` as JSON.
fn vars_json(head: &LoadHead) -> String {
    let vars: serde_json::Map<String, serde_json::Value> = head
        .vars
        .iter()
        .map(|(name, var)| {
            let value = match var {
                Var::Text(text) => serde_json::Value::String(text.clone()),
                Var::Json(value) => value.clone(),
            };
            (name.clone(), value)
        })
        .collect();
    serde_json::Value::Object(vars).to_string()
}

fn text<'s>(scope: &mut v8::PinScope<'s, '_>, text: &str) -> v8::Local<'s, v8::Value> {
    v8::String::new(scope, text).map_or_else(|| v8::undefined(scope).into(), Into::into)
}

fn numbers<'s, const N: usize>(scope: &mut v8::PinScope<'s, '_>, numbers: [u32; N]) -> [v8::Local<'s, v8::Value>; N] {
    numbers.map(|number| v8::Integer::new_from_unsigned(scope, number).into())
}

fn byte_view<'s>(scope: &mut v8::PinScope<'s, '_>, bytes: &[u8]) -> v8::Local<'s, v8::Value> {
    let buffer = modules::array_buffer(scope, bytes);
    v8::Uint8Array::new(scope, buffer, 0, bytes.len()).map_or_else(|| v8::undefined(scope).into(), Into::into)
}

/// How a body is given to JavaScript: its kind (0 none, 1 whole, 2 stream), then the bytes or the length (-1 unknown).
fn body_argument<'s>(scope: &mut v8::PinScope<'s, '_>, body: &BodyKind) -> (v8::Local<'s, v8::Value>, v8::Local<'s, v8::Value>) {
    let (kind, given) = match body {
        BodyKind::Empty => (0, v8::undefined(scope).into()),
        BodyKind::Whole(bytes) => (1, byte_view(scope, bytes)),
        BodyKind::Stream(length) => (2, v8::Number::new(scope, length.map_or(-1.0, |length| length as f64)).into()),
    };
    (v8::Integer::new(scope, kind).into(), given)
}
