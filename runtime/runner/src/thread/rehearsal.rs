//! A worker of our own, run once before a thread says hello: the first module, request and response of a process touch pages and
//! code that were never used before, which takes milliseconds that the first real worker need not wait.

use std::rc::Rc;
use std::task::{Context, Waker};

use http::{Method, StatusCode};
use selvedge_runtime::protocol::{BodyKind, Fields, LoadHead, RequestHead, StreamId, ToEdge};
use selvedge_runtime::{ClientInfo, Limits, Module, ModuleKind, Outcome};

use crate::isolate::{FieldIter, Isolate, IsolateSetup, Surroundings};

const SCRIPT: &str = "export default { async fetch(request) {
    const { pathname } = new URL(request.url);
    return new Response(pathname + (request.headers.get('host') ?? ''), { headers: { 'content-type': 'text/plain' } });
} }";

/// Where what it says is heard by nobody.
struct Empty;

impl Surroundings for Empty {
    fn respond(&self, _: StreamId, _: StatusCode, _: &mut FieldIter<'_>, _: BodyKind) {}

    fn send(&self, _: ToEdge) {}

    fn before_js(&self, _: StreamId) {}

    fn after_js(&self, _: StreamId) {}

    fn finished(&self, _: StreamId, _: Outcome) {}
}

/// Bears an isolate, loads the worker, asks it once, and drops it. The worker is ours: nothing limits it.
pub(super) fn rehearse() {
    let heap_bytes_max = usize::try_from(Limits::default().heap_bytes_max).unwrap_or(usize::MAX);
    let mut isolate = Isolate::blank(IsolateSetup { heap_bytes_max, allocator: None, surroundings: Rc::new(Empty) });
    let head = LoadHead {
        worker: "rehearsal".to_owned(),
        version: String::new(),
        entry: "index.js".to_owned(),
        modules_len: 1,
        vars: Default::default(),
        compatibility_date: "2026-01-01".to_owned(),
        compatibility_flags: Vec::new(),
        limits: Limits::default(),
    };
    let module = Module { specifier: "index.js".to_owned(), kind: ModuleKind::EsModule, bytes: SCRIPT.as_bytes().into(), source_map: None };
    let _ = isolate.load(0, head, vec![module]);
    let request = RequestHead { method: Method::GET, url: "https://rehearsal.invalid/".to_owned(), headers: Fields::default() };
    let client = ClientInfo { http_protocol: "HTTP/1.1", tls_version: None, colo: "".into() };
    let _ = isolate.start(1, request, client, BodyKind::Empty);
    let _ = isolate.poll(&mut Context::from_waker(Waker::noop()));
}
