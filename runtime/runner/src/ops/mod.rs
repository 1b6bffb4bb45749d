//! Everything that JavaScript can ask of Rust: the attack surface of an isolate on one screen.
//!
//! The ops parse what V8 hands them and call [`Host`]; they know nothing else of the runner, because the build script compiles
//! this folder too (the snapshot must be made with the same ops in the same order). Ops of the deno_* crates that workers do
//! not need are closed in [`closed`].

mod body;
mod caches;
mod closed;
mod headers;
mod invocation;
mod time;

use std::rc::Rc;

use bytes::Bytes;
use deno_core::{Extension, OpState, v8};
use http::HeaderMap;

pub use headers::{FIELDS_BYTES_MAX, FieldList, flat_headers};
pub use invocation::WHOLE_BYTES_MAX;

/// A body as JavaScript gives it.
pub enum Given {
    /// None.
    Empty,
    /// All of it.
    Whole(Bytes),
    /// It will be written piece by piece. Its length where known.
    Stream(Option<u64>),
}

/// What to do with a redirect, by the numbers that JavaScript uses.
#[derive(Clone, Copy)]
pub enum Redirects {
    /// Follow them.
    Follow,
    /// Hand them to the worker.
    Manual,
    /// Fail.
    Error,
}

/// What is asked of a worker's own cache.
pub enum Asked {
    /// `match`
    Match,
    /// `put`
    Put {
        /// The response's status.
        status: u16,
        /// Its fields.
        headers: HeaderMap,
        /// Its body.
        body: Given,
    },
    /// `delete`
    Delete,
}

/// Rust's side of the ops. A stream that has ended is silently ignored: late continuations of a worker are no error.
pub trait Host {
    /// The fields of an invocation's request, as a flat array of names and values.
    fn request_headers<'s>(&self, scope: &mut v8::PinScope<'s, '_>, stream: u32) -> v8::Local<'s, v8::Value>;
    /// What the worker may know about the client: `[httpProtocol, tlsVersion | undefined, colo]`.
    fn request_client<'s>(&self, scope: &mut v8::PinScope<'s, '_>, stream: u32) -> v8::Local<'s, v8::Value>;
    /// The response begins. Whether its body, if it is written in pieces, is wanted.
    fn respond(&self, stream: u32, status: u16, fields: FieldList, body: Given) -> bool;
    /// The handler failed, or the stream that it responded with.
    fn failed(&self, scope: &mut v8::PinScope<'_, '_>, stream: u32, exception: v8::Local<'_, v8::Value>, heading: Option<String>);
    /// Everything of an invocation has ended.
    fn ended(&self, stream: u32);
    /// Takes as many bytes of a body as there is credit for; the number taken, or none when nobody wants the body any more.
    fn body_write(&self, stream: u32, part: u32, bytes: &[u8]) -> Option<usize>;
    /// A body is complete, or cut short and why.
    fn body_end(&self, stream: u32, part: u32, error: Option<String>);
    /// The worker has consumed so many bytes of a body.
    fn body_credit(&self, stream: u32, part: u32, bytes: u32);
    /// The worker does not want the rest of a body, or of a subrequest.
    fn abandon(&self, stream: u32, part: u32);
    /// Begins a subrequest; its number, or why there is none. `wishes`: what is wished of the cache, as JSON.
    #[allow(clippy::too_many_arguments, reason = "what a subrequest has")]
    fn fetch(
        &self,
        stream: u32,
        method: http::Method,
        url: String,
        headers: HeaderMap,
        redirects: Redirects,
        wishes: Option<String>,
        body: Given,
    ) -> Result<u32, String>;
    /// Begins an operation of a cache; its number, or why there is none.
    fn cache(&self, stream: u32, name: Option<String>, url: String, headers: HeaderMap, asked: Asked) -> Result<u32, String>;
    /// Begins a purge of what is the worker's own, as JSON; its number, or why there is none.
    fn purge(&self, stream: u32, purge: &str) -> Result<u32, String>;
    /// If the handler fails, the request is for whoever answers in its place.
    fn pass_through(&self, stream: u32);
    /// A line of the console; level 0 (debug) to 4 (error).
    fn log(&self, scope: &mut v8::PinScope<'_, '_>, stream: u32, level: u8, message: String);
    /// An uncaught exception outside of the handler's own promise. `counts`: it is the invocation's outcome all the same.
    fn report(
        &self,
        scope: &mut v8::PinScope<'_, '_>,
        stream: u32,
        exception: v8::Local<'_, v8::Value>,
        heading: Option<String>,
        counts: bool,
    );
    /// The text of an exception, for `ErrorEvent.message`.
    fn describe(&self, scope: &mut v8::PinScope<'_, '_>, exception: v8::Local<'_, v8::Value>) -> String;
    /// Starts a timer; its id, or none where an invocation has too many or there is no invocation.
    fn timer_start(&self, stream: u32, delay_ms: f64, repeat: bool) -> Option<u32>;
    /// Forgets a timer.
    fn timer_clear(&self, id: u32);
    /// Milliseconds since the Unix epoch; stands still while JavaScript runs.
    fn now_ms(&self) -> f64;
    /// A promise of an engine's own asynchronous operation settled: give its invocation a turn.
    fn ready(&self, stream: u32);
    /// The isolate uses the engine's asynchronous operations from now on.
    fn expect_async(&self);
    /// It uses message ports from now on.
    fn expect_messages(&self);
}

/// The [`Host`] of the isolate.
fn host(state: &OpState) -> Rc<dyn Host> {
    state.borrow::<Rc<dyn Host>>().clone()
}

deno_core::extension!(
    selvedge,
    deps = [deno_webidl, deno_web, deno_crypto],
    ops = [
        invocation::op_request_headers,
        invocation::op_request_client,
        invocation::op_respond,
        invocation::op_failed,
        invocation::op_ended,
        invocation::op_fetch,
        invocation::op_log,
        invocation::op_report,
        invocation::op_ready,
        invocation::op_expect_async,
        invocation::op_expect_messages,
        caches::op_cache,
        caches::op_cache_put,
        caches::op_cache_purge,
        caches::op_pass_through,
        body::op_body_write,
        body::op_body_end,
        body::op_body_credit,
        body::op_abandon,
        time::op_timer_start,
        time::op_timer_clear,
        time::op_now_ms,
        closed::op_safe_destructure_error,
        closed::op_safe_dispatch_exception,
    ],
    esm_entry_point = "ext:selvedge/globals.js",
    esm = [
        dir "src/js",
        "abort.js",
        "attributed.js",
        "body.js",
        "caches.js",
        "clock.js",
        "console.js",
        "crypto.js",
        "events.js",
        "fetch.js",
        "formdata.js",
        "globals.js",
        "headers.js",
        "incoming.js",
        "invocation.js",
        "lengths.js",
        "multipart.js",
        "outgoing.js",
        "purge.js",
        "rehearsal.js",
        "request.js",
        "response.js",
        "timers.js",
        "wishes.js",
        "worker.js",
    ],
    middleware = closed::middleware,
);

/// All extensions of a runner's isolates, in the order that the snapshot was made with.
pub fn extensions(blobs: std::sync::Arc<dyn deno_web::BlobStoreTrait>) -> Vec<Extension> {
    vec![
        closed::close(deno_webidl::deno_webidl::init()),
        closed::close(deno_web::deno_web::init(blobs, None, false, deno_web::InMemoryBroadcastChannel::default())),
        closed::close(deno_crypto::deno_crypto::init(None)),
        selvedge::init(),
    ]
}
