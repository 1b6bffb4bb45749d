//! Rust's half of the invocations that run in one isolate: what each may still send, receive and wait for. Implements what
//! the ops call ([`Host`]); `js/invocation.js` is the other half.

mod calls;
mod live;
mod subcalls;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use deno_core::v8;
use selvedge_runtime::protocol::{CREDIT_MAX, Fields, INITIAL_CREDIT, Part, RequestHead, Slot, StreamId, ToEdge};
use selvedge_runtime::{ClientInfo, LogLevel, Outcome};
use smallvec::SmallVec;

use crate::exception;
use crate::hooks::{Hook, Hooks};
use crate::isolate::{LiveStream, Surroundings};
use crate::limits::REJECTIONS_MAX;
use crate::modules::Modules;
use crate::timers::Timers;
use live::{Incoming, Live, Streams};

/// All that the ops of one isolate work on. Shared with V8's callbacks through a slot of the isolate.
pub(crate) struct Invocations {
    surroundings: Rc<dyn Surroundings>,
    pub(crate) hooks: RefCell<Option<Hooks>>,
    pub(crate) modules: Modules,
    pub(crate) slot: Cell<Slot>,
    live: RefCell<Streams>,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) now_ms: Cell<f64>,
    /// Invocations that ended in this turn.
    ended: RefCell<Vec<(StreamId, Outcome)>>,
    pub(crate) ready: RefCell<VecDeque<StreamId>>,
    /// The engine's asynchronous operations are in use: its event loop must be polled.
    pub(crate) expects_async: Cell<bool>,
    /// Message ports are in use: what waits at one is nothing that the engine counts as under way.
    expects_messages: Cell<bool>,
    rejections: RefCell<Vec<Rejection>>,
    pub(crate) terminated: Cell<bool>,
    /// What is rejected in this turn is nobody's news: it was rejected by ending an invocation.
    pub(crate) quiet: Cell<bool>,
    /// An exception is being formatted: the worker's `Error.prepareStackTrace` must not run.
    pub(crate) formatting: Cell<bool>,
    pub(crate) stack_getter: RefCell<Option<v8::Global<v8::Value>>>,
    pub(crate) site_to_string: RefCell<Option<v8::Global<v8::Function>>>,
    pub(crate) wasm_allowed: Cell<bool>,
}

/// A promise that was rejected without a handler.
pub(crate) struct Rejection {
    pub(crate) promise: v8::Global<v8::Promise>,
    pub(crate) reason: v8::Global<v8::Value>,
    pub(crate) stream: StreamId,
}

impl Invocations {
    pub(crate) fn new(surroundings: Rc<dyn Surroundings>) -> Self {
        Self {
            surroundings,
            hooks: RefCell::default(),
            modules: Modules::default(),
            slot: Cell::new(0),
            live: RefCell::default(),
            timers: RefCell::default(),
            now_ms: Cell::new(0.0),
            ended: RefCell::default(),
            ready: RefCell::default(),
            expects_async: Cell::new(false),
            expects_messages: Cell::new(false),
            rejections: RefCell::default(),
            terminated: Cell::new(false),
            quiet: Cell::new(false),
            formatting: Cell::new(false),
            stack_getter: RefCell::default(),
            site_to_string: RefCell::default(),
            wasm_allowed: Cell::new(false),
        }
    }

    /// The state of the isolate of a scope.
    pub(crate) fn of(isolate: &v8::Isolate) -> Option<Rc<Self>> {
        isolate.get_slot::<Rc<Self>>().cloned()
    }

    pub(crate) fn surroundings(&self) -> &Rc<dyn Surroundings> {
        &self.surroundings
    }

    /// Calls one of our functions in JavaScript. They catch what a worker throws, so an exception here is a termination, an
    /// overflow of the stack, or a defect of ours.
    pub(crate) fn call<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        hook: Hook,
        arguments: &[v8::Local<'_, v8::Value>],
    ) -> Option<v8::Local<'s, v8::Value>> {
        let function = self.hooks.borrow().as_ref().map(|hooks| v8::Local::new(scope, hooks.get(hook)))?;
        let undefined = v8::undefined(scope);
        v8::tc_scope!(let scope, scope);
        let result = function.call(scope, undefined.into(), arguments);
        if result.is_none() {
            if scope.has_terminated() || scope.is_execution_terminating() {
                self.terminated.set(true);
            } else if let Some(exception) = scope.exception() {
                let text = exception::headline(scope, exception);
                let (message, place) = (format!("{}: {text}", hook.name()), String::new());
                let slot = self.slot.get();
                self.surroundings.send(ToEdge::Log { stream: 0, slot, level: LogLevel::Error, message, exception: false, place });
            }
        }
        result
    }

    /// Moves the clock. It stands still until the next turn.
    pub(crate) fn tick(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.now_ms.set(now.as_micros() as f64 / 1000.0);
    }

    /// Registers an invocation. The request's head stays here until JavaScript asks for its fields.
    pub(crate) fn begin(&self, stream: StreamId, head: RequestHead<Fields>, client: ClientInfo, body_streams: bool) {
        let mut live = Live {
            is_head: head.method == http::Method::HEAD,
            head: Some(head),
            client,
            answered: false,
            outcome: Outcome::Ok,
            last_call: 0,
            asked: SmallVec::new(),
            incoming: SmallVec::new(),
            outgoing: SmallVec::new(),
        };
        if body_streams {
            live.incoming.push(Incoming { part: 0, credit: INITIAL_CREDIT, owed: 0 });
        }
        self.live.borrow_mut().insert(stream, live);
    }

    pub(crate) fn is_live(&self, stream: StreamId) -> bool {
        self.live.borrow().contains_key(&stream)
    }

    /// The stream that the edge still knows: it may have ended in this turn, but not before.
    fn attributable(&self, stream: StreamId) -> StreamId {
        let known = self.is_live(stream) || self.ended.borrow().iter().any(|(other, _)| *other == stream);
        if known { stream } else { 0 }
    }

    pub(crate) fn live_streams(&self) -> Vec<LiveStream> {
        self.live.borrow().iter().map(|(&stream, live)| LiveStream { stream, answered: live.answered }).collect()
    }

    /// Ends an invocation from outside.
    pub(crate) fn end(&self, stream: StreamId, outcome: Outcome) {
        if self.live.borrow_mut().remove(&stream).is_some() {
            self.ended.borrow_mut().push((stream, outcome));
        }
    }

    /// Invocations that ended in this turn; called within it, so that JavaScript can forget their timers.
    pub(crate) fn forget_timers(&self, scope: &mut v8::PinScope<'_, '_>) {
        let ended: SmallVec<[StreamId; 4]> = self.ended.borrow().iter().map(|(stream, _)| *stream).collect();
        for stream in ended {
            let dropped = self.timers.borrow_mut().drop_of(stream);
            for id in dropped {
                let id = v8::Integer::new_from_unsigned(scope, id);
                self.call(scope, Hook::Drop, &[id.into()]);
            }
        }
    }

    /// The client of an invocation has gone, and it goes on: nobody takes its response, or sends more of its request.
    pub(crate) fn leave(&self, stream: StreamId) {
        {
            let mut live = self.live.borrow_mut();
            let Some(live) = live.get_mut(&stream) else { return };
            (live.answered, live.outcome) = (true, Outcome::Canceled);
            live.incoming.retain(|body| body.part != 0);
            live.outgoing.retain(|body| body.part != 0);
        }
        self.surroundings.send(ToEdge::Stays { stream });
    }

    /// Tells the thread which invocations have ended. Outside of JavaScript.
    pub(crate) fn announce_ended(&self) {
        if self.ended.borrow().is_empty() {
            return;
        }
        let ended = std::mem::take(&mut *self.ended.borrow_mut());
        for (stream, outcome) in ended {
            self.surroundings.finished(stream, outcome);
        }
    }

    /// Whether bytes of a body are expected, and within the credit that was given.
    pub(crate) fn accept(&self, stream: StreamId, part: Part, length: usize) -> bool {
        let mut live = self.live.borrow_mut();
        let Some(body) = live.get_mut(&stream).and_then(|live| live.incoming(part)) else { return false };
        match u32::try_from(length).ok().and_then(|length| body.credit.checked_sub(length)) {
            Some(credit) => {
                body.credit = credit;
                true
            }
            None => false,
        }
    }

    /// A body on its way in has ended.
    pub(crate) fn incoming_ended(&self, stream: StreamId, part: Part) {
        if let Some(live) = self.live.borrow_mut().get_mut(&stream) {
            live.incoming.retain(|body| body.part != part);
        }
    }

    /// The edge can take more of a body. True if JavaScript waits for that.
    pub(crate) fn credit(&self, stream: StreamId, part: Part, bytes: u32) -> bool {
        let mut live = self.live.borrow_mut();
        let Some(body) = live.get_mut(&stream).and_then(|live| live.outgoing(part)) else { return false };
        body.credit = body.credit.saturating_add(bytes).min(CREDIT_MAX);
        body.credit > 0 && std::mem::take(&mut body.starved)
    }

    /// Whether there is something that goes on without a message of the edge.
    pub(crate) fn can_go_on(&self) -> bool {
        self.expects_async.get() || !self.ready.borrow().is_empty() || self.timers.borrow().next().is_some()
    }

    /// Whether nothing that Rust knows of can ever wake an invocation that has not answered, unless the engine has something under way.
    pub(crate) fn is_hung(&self) -> Option<StreamId> {
        if self.expects_messages.get() || !self.ready.borrow().is_empty() {
            return None;
        }
        let live = self.live.borrow();
        let mut only = live.iter();
        let (&stream, invocation) = only.next()?;
        let waits =
            invocation.answered || !invocation.asked.is_empty() || !invocation.incoming.is_empty() || !invocation.outgoing.is_empty();
        (only.next().is_none() && !waits && !self.timers.borrow().any_of(stream)).then_some(stream)
    }

    /// Fails an invocation with a text of ours.
    pub(crate) fn fail(&self, stream: StreamId, message: String) {
        {
            let mut live = self.live.borrow_mut();
            let Some(live) = live.get_mut(&stream) else { return };
            live.outcome = Outcome::Exception;
            live.answered = true;
            live.outgoing.retain(|body| body.part != 0);
        }
        self.log_exception(stream, message.clone());
        self.surroundings.send(ToEdge::Failed { stream, outcome: Outcome::Exception, message });
    }

    fn log_exception(&self, stream: StreamId, message: String) {
        let stream = self.attributable(stream);
        let (slot, level, place) = (self.slot.get(), LogLevel::Error, String::new());
        self.surroundings.send(ToEdge::Log { stream, slot, level, message, exception: true, place });
    }

    pub(crate) fn take_rejections(&self) -> Vec<Rejection> {
        std::mem::take(&mut *self.rejections.borrow_mut())
    }

    /// Drops everything that points into the isolate's heap.
    pub(crate) fn release_handles(&self) {
        self.hooks.take();
        self.stack_getter.take();
        self.site_to_string.take();
        self.rejections.take();
        self.modules.clear();
    }

    /// Whether there is something that only a turn deals with.
    pub(crate) fn has_leftovers(&self) -> bool {
        !self.rejections.borrow().is_empty() || !self.ended.borrow().is_empty()
    }
}

/// V8's callback for promises rejected without a handler, and for those that get one after all.
pub(crate) extern "C" fn promise_rejected(message: v8::PromiseRejectMessage<'_>) {
    v8::callback_scope!(unsafe scope, &message);
    let Some(state) = Invocations::of(scope) else { return };
    let promise = message.get_promise();
    let mut rejections = state.rejections.borrow_mut();
    match message.get_event() {
        v8::PromiseRejectEvent::PromiseRejectWithNoHandler if rejections.len() < REJECTIONS_MAX => {
            let Some(reason) = message.get_value() else { return };
            let context = scope.get_continuation_preserved_embedder_data();
            let stream = v8::Local::<v8::Number>::try_from(context).map_or(0, |number| number.value() as StreamId);
            rejections.push(Rejection { promise: v8::Global::new(scope, promise), reason: v8::Global::new(scope, reason), stream });
        }
        v8::PromiseRejectEvent::PromiseHandlerAddedAfterReject => {
            rejections.retain(|rejection| rejection.promise != promise);
        }
        _ => {}
    }
}
