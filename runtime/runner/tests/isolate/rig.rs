//! One isolate on a thread of its own runtime, and everything that it says.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use selvedge_runner::isolate::{FieldIter, Isolate, IsolateSetup, LoadState, Pulse, Surroundings};
use selvedge_runtime::protocol::{BodyKind, Fields, LoadHead, Part, RequestHead, ResponseHead, StreamId, ToEdge, ToRunner};
use selvedge_runtime::{ClientInfo, Limits, LogLevel, Module, ModuleKind, Outcome, Var};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an isolate did.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    Said(ToEdge),
    Ran(StreamId),
    Finished(StreamId, Outcome),
}

#[derive(Default)]
struct Ear {
    seen: RefCell<Vec<Seen>>,
    running: RefCell<Option<StreamId>>,
    places_lines: Cell<bool>,
}

impl Surroundings for Ear {
    fn respond(&self, stream: StreamId, status: StatusCode, fields: &mut FieldIter<'_>, body: BodyKind) {
        let field = |(name, value)| Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?));
        let headers = fields.map(|pair| field(pair).expect("a field")).collect();
        self.send(ToEdge::Response { stream, head: Box::new(ResponseHead { status, headers }), body });
    }

    fn send(&self, message: ToEdge) {
        self.seen.borrow_mut().push(Seen::Said(message));
    }

    fn before_js(&self, stream: StreamId) {
        assert!(self.running.replace(Some(stream)).is_none(), "turns are not nested");
        self.seen.borrow_mut().push(Seen::Ran(stream));
    }

    fn after_js(&self, stream: StreamId) {
        assert_eq!(self.running.take(), Some(stream));
    }

    fn places_lines(&self) -> bool {
        self.places_lines.get()
    }

    fn finished(&self, stream: StreamId, outcome: Outcome) {
        assert!(self.running.borrow().is_none(), "an end is announced outside of JavaScript");
        self.seen.borrow_mut().push(Seen::Finished(stream, outcome));
    }
}

pub(crate) struct Rig {
    pub(crate) isolate: Isolate,
    ear: Rc<Ear>,
    runtime: tokio::runtime::Runtime,
}

pub(crate) fn module(specifier: &str, kind: ModuleKind, bytes: impl Into<Vec<u8>>) -> Module {
    Module { specifier: specifier.into(), kind, bytes: Bytes::from(bytes.into()), source_map: None }
}

impl Rig {
    /// A version of one module that must load.
    pub(crate) fn worker(source: &str) -> Self {
        Self::modules(vec![module("index.js", ModuleKind::EsModule, source)])
    }

    pub(crate) fn modules(modules: Vec<Module>) -> Self {
        let mut rig = Self::try_modules(modules);
        assert_eq!(rig.loaded(), LoadState::Ready);
        rig
    }

    pub(crate) fn try_modules(modules: Vec<Module>) -> Self {
        let mut rig = Self::blank();
        {
            let _entered = rig.runtime.enter();
            let pulse = rig.isolate.load(7, head(&modules), modules);
            assert_eq!(pulse, Pulse::Alive);
        }
        rig
    }

    /// Begins to load a version of one module.
    pub(crate) fn load(&mut self, source: &str) -> Pulse {
        let modules = vec![module("index.js", ModuleKind::EsModule, source)];
        let _entered = self.runtime.enter();
        self.isolate.load(7, head(&modules), modules)
    }

    /// One poll.
    pub(crate) fn pulse(&mut self) -> Pulse {
        let isolate = &mut self.isolate;
        self.runtime.block_on(poll_fn(|cx| Poll::Ready(isolate.poll(cx))))
    }

    /// How often the isolate asks to be polled, though nothing happens.
    pub(crate) fn wakes_within(&mut self, time: Duration) -> usize {
        let isolate = &mut self.isolate;
        let mut polls = 0;
        self.runtime.block_on(async {
            let polling = poll_fn(|cx| {
                polls += 1;
                let _ = isolate.poll(cx);
                Poll::<()>::Pending
            });
            let _ = tokio::time::timeout(time, polling).await;
        });
        polls
    }

    pub(crate) fn blank() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let ear = Rc::new(Ear::default());
        let isolate = {
            let _guard = runtime.enter();
            Isolate::blank(IsolateSetup { heap_bytes_max: 128 << 20, allocator: None, surroundings: ear.clone() })
        };
        Self { isolate, ear, runtime }
    }

    /// What came of loading, once it is known.
    pub(crate) fn loaded(&mut self) -> LoadState {
        self.until(|rig| *rig.isolate.load_state() != LoadState::Loading);
        self.isolate.load_state().clone()
    }

    pub(crate) fn start(&mut self, stream: StreamId, method: Method, url: &str, headers: &[(&str, &str)], body: BodyKind) {
        let mut fields = HeaderMap::new();
        for (name, value) in headers {
            fields.append(HeaderName::from_bytes(name.as_bytes()).expect("a name"), HeaderValue::from_str(value).expect("a value"));
        }
        let client = ClientInfo { http_protocol: "HTTP/3", tls_version: Some("TLSv1.3"), colo: "here".into() };
        let _entered = self.runtime.enter();
        let _ = self.isolate.start(stream, RequestHead { method, url: url.into(), headers: Fields::from(&fields) }, client, body);
    }

    pub(crate) fn get(&mut self, stream: StreamId, url: &str) {
        self.start(stream, Method::GET, url, &[], BodyKind::Empty);
    }

    pub(crate) fn deliver(&mut self, message: ToRunner) {
        let _entered = self.runtime.enter();
        let _ = self.isolate.deliver(message);
    }

    /// Answers a subrequest: a teapot after one redirect.
    pub(crate) fn answer(&mut self, stream: StreamId, part: Part, body: BodyKind) {
        let mut headers = HeaderMap::new();
        headers.append("set-cookie", HeaderValue::from_static("a=1"));
        headers.append("set-cookie", HeaderValue::from_static("b=2"));
        let head = ResponseHead { status: StatusCode::IM_A_TEAPOT, headers: Fields::from(&headers) };
        let result = Ok((Box::new(head), body));
        self.deliver(ToRunner::Fetched { stream, part, result, url: "https://other.example/end".into(), redirects: 1 });
    }

    /// Answers a GET: the text of the response, which must end by itself.
    pub(crate) fn text(&mut self, url: &str) -> String {
        self.get(1, url);
        self.finish(1);
        self.body(1)
    }

    /// Polls until an invocation has ended.
    pub(crate) fn finish(&mut self, stream: StreamId) -> Outcome {
        self.until(|rig| rig.outcome(stream).is_some());
        self.outcome(stream).expect("it has ended")
    }

    /// Polls until something holds.
    pub(crate) fn until(&mut self, mut holds: impl FnMut(&mut Self) -> bool) {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let timer = self.isolate.next_timer();
            let isolate = &mut self.isolate;
            self.runtime.block_on(async {
                let mut polls = 0;
                let woken = poll_fn(|cx| {
                    polls += 1;
                    let _ = isolate.poll(cx);
                    if polls > 1 { Poll::Ready(()) } else { Poll::Pending }
                });
                let wait = timer.map_or(Duration::from_millis(5), |timer| timer.saturating_duration_since(std::time::Instant::now()));
                let _ = tokio::time::timeout(wait.min(Duration::from_millis(5)), woken).await;
            });
            if holds(self) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "waited in vain; said: {:#?}", self.said());
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.ear.seen.borrow().clone()
    }

    pub(crate) fn forget(&self) {
        self.ear.seen.borrow_mut().clear();
    }

    pub(crate) fn said(&self) -> Vec<ToEdge> {
        self.seen().into_iter().filter_map(|seen| if let Seen::Said(message) = seen { Some(message) } else { None }).collect()
    }

    pub(crate) fn outcome(&self, stream: StreamId) -> Option<Outcome> {
        self.seen().into_iter().find_map(|seen| match seen {
            Seen::Finished(other, outcome) if other == stream => Some(outcome),
            _ => None,
        })
    }

    pub(crate) fn response(&self, stream: StreamId) -> (ResponseHead, BodyKind) {
        self.said()
            .into_iter()
            .find_map(|message| match message {
                ToEdge::Response { stream: other, head, body } if other == stream => Some((*head, body)),
                _ => None,
            })
            .unwrap_or_else(|| panic!("no response; seen: {:#?}", self.seen()))
    }

    pub(crate) fn status(&self, stream: StreamId) -> StatusCode {
        self.response(stream).0.status
    }

    /// The body of a response so far.
    pub(crate) fn body(&self, stream: StreamId) -> String {
        match self.response(stream).1 {
            BodyKind::Empty => String::new(),
            BodyKind::Whole(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            BodyKind::Stream(_) => String::from_utf8_lossy(&self.data(stream, 0)).into_owned(),
        }
    }

    /// Bytes written to a body.
    pub(crate) fn data(&self, stream: StreamId, part: u32) -> Vec<u8> {
        let mut all = Vec::new();
        for message in self.said() {
            if let ToEdge::BodyData { stream: other, part: of, bytes } = message
                && (other, of) == (stream, part)
            {
                all.extend_from_slice(&bytes);
            }
        }
        all
    }

    pub(crate) fn ended(&self, stream: StreamId, part: u32) -> bool {
        self.said()
            .iter()
            .any(|message| matches!(message, ToEdge::BodyEnd { stream: other, part: of, error: None } if (*other, *of) == (stream, part)))
    }

    /// Lines of the log: whose, how loud, what.
    pub(crate) fn log(&self) -> Vec<(StreamId, LogLevel, String)> {
        self.said()
            .into_iter()
            .filter_map(|message| match message {
                ToEdge::Log { stream, slot: 7, level, message, .. } => Some((stream, level, message)),
                _ => None,
            })
            .collect()
    }

    /// From now on lines of the log say where they come from.
    pub(crate) fn place_lines(&self) {
        self.ear.places_lines.set(true);
    }

    /// Where they come from.
    pub(crate) fn places(&self) -> Vec<String> {
        let place = |message| if let ToEdge::Log { place, .. } = message { Some(place) } else { None };
        self.said().into_iter().filter_map(place).collect()
    }

    /// Why an invocation failed.
    pub(crate) fn failure(&self, stream: StreamId) -> Option<(Outcome, String)> {
        self.said().into_iter().find_map(|message| match message {
            ToEdge::Failed { stream: other, outcome, message } if other == stream => Some((outcome, message)),
            _ => None,
        })
    }
}

fn head(modules: &[Module]) -> LoadHead {
    LoadHead {
        worker: "fixture".into(),
        version: "v1".into(),
        entry: "index.js".into(),
        modules_len: modules.len() as u32,
        vars: [
            ("GREETING".to_owned(), Var::Text("hello".into())),
            ("SETTINGS".to_owned(), Var::Json(serde_json::json!({"depth": {"x": 1}}))),
        ]
        .into(),
        compatibility_date: "2026-08-01".into(),
        compatibility_flags: Vec::new(),
        limits: Limits::default(),
    }
}
