//! A runner process without V8, for tests of the supervisor: it does what the path of a request says, also what no runner
//! should do. It is this test's own program, exec'ed like a real runner.

#[path = "asks.rs"]
mod asks;
#[path = "late.rs"]
mod late;

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use selvedge_runtime::protocol::{
    Area, BUILD, Board, BodyKind, CHUNK_BYTES_MAX, CacheCallHead, Decoder, Fields, INITIAL_CREDIT, RequestHead, ResponseHead, Slot,
    StreamId, ToEdge, ToRunner, encode, monotonic_ns,
};
use selvedge_runtime::{LogLevel, Outcome};

/// The watchdog beats while this holds.
static BEATING: AtomicBool = AtomicBool::new(true);
/// Cancels seen by this process.
static CANCELS: AtomicU32 = AtomicU32::new(0);
static LINKS: OnceLock<usize> = OnceLock::new();

/// Becomes a fake runner: `arguments` are those after `runner`.
pub(crate) fn main(arguments: &[String]) -> ! {
    let value = |name: &str| arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    let links: Vec<RawFd> = value("--links").expect("links").split(',').map(|link| link.parse().expect("a number")).collect();
    let board: RawFd = value("--board").expect("a board").parse().expect("a number");
    // SAFETY: the descriptors were inherited for this.
    let board = Board::open(unsafe { OwnedFd::from_raw_fd(board) }, links.len()).expect("a board that fits");
    LINKS.set(links.len()).expect("set once");
    let wrong = |what: &str| arguments.iter().any(|argument| argument == what);
    if wrong("no-hello") {
        std::process::exit(66);
    }
    std::thread::sleep(if wrong("late-hello") { Duration::from_millis(500) } else { Duration::ZERO });
    let build = if wrong("other-build") { "0.0.0-other" } else { BUILD };
    let unsandboxed = if wrong("unsandboxed") { "landlock" } else { "" };
    let areas: Vec<Area> = (0..links.len()).map(|index| board.area(index).expect("an area for each link")).collect();
    let threads: Vec<_> = links
        .into_iter()
        .zip(areas.clone())
        .map(|(link, area)| {
            // SAFETY: as above.
            let socket = unsafe { UnixStream::from_raw_fd(link) };
            socket.set_nonblocking(false).expect("a socket");
            let hello = ToEdge::Hello { build: build.to_owned(), unsandboxed: unsandboxed.to_owned() };
            std::thread::spawn(move || Thread::new(socket, area).serve(&hello))
        })
        .collect();
    std::thread::spawn(move || {
        while BEATING.load(Ordering::Relaxed) {
            areas.iter().for_each(|area| area.beat(monotonic_ns()));
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    for thread in threads {
        let _ = thread.join();
    }
    std::process::exit(0)
}

/// Calls of an invocation whose puts are refused: more than may run at one time.
pub(crate) const CALLS: u32 = 80;
/// A request's body on its way back.
#[derive(Default)]
struct Echo {
    waiting: BytesMut,
    credit: usize,
    ended: bool,
}

/// One JavaScript thread, so to speak.
struct Thread {
    socket: UnixStream,
    area: Area,
    out: BytesMut,
    /// Loading versions: slot and worker's name.
    workers: HashMap<Slot, String>,
    /// What is to be streamed: invocation, bytes left, credit left.
    streams: HashMap<StreamId, (u64, u64)>,
    /// Invocations that echo their request's body: what waits, and the credit for it; none where nothing is echoed.
    echoes: HashMap<StreamId, Option<Echo>>,
    /// Invocations whose puts are all refused.
    refused: HashSet<StreamId>,
    /// Invocations that wait for answers: how many still, and which is the last.
    hoards: HashMap<StreamId, (u32, u32)>,
    /// Invocations that say something when they are cancelled.
    at_cancel: HashMap<StreamId, String>,
    /// The process ends with the end of a request's body.
    dies_at_end: bool,
    bounced: u32,
    pid: u32,
}

impl Thread {
    fn new(socket: UnixStream, area: Area) -> Self {
        Self {
            socket,
            area,
            out: BytesMut::new(),
            workers: HashMap::new(),
            streams: HashMap::new(),
            echoes: HashMap::new(),
            refused: HashSet::new(),
            hoards: HashMap::new(),
            at_cancel: HashMap::new(),
            dies_at_end: false,
            bounced: 0,
            pid: std::process::id(),
        }
    }

    fn serve(mut self, hello: &ToEdge) {
        self.say(hello);
        let mut decoder = Decoder::<ToRunner>::new();
        // Made once, like a runner's: what is measured with it is the crossing, not the clearing of 64 KiB.
        let mut piece = vec![0; 65536];
        loop {
            while let Some(message) = decoder.next().expect("the edge speaks the protocol") {
                self.hear(message);
            }
            self.flush();
            match self.socket.read(&mut piece) {
                Ok(0) | Err(_) => return,
                Ok(len) => decoder.buffer().extend_from_slice(&piece[..len]),
            }
        }
    }

    fn say(&mut self, message: &ToEdge) {
        encode(&mut self.out, message).expect("a message within its bounds");
    }

    fn flush(&mut self) {
        let _ = self.socket.write_all(&self.out);
        self.out.clear();
    }

    fn hear(&mut self, message: ToRunner) {
        match message {
            ToRunner::LoadBegin { slot, head } => {
                self.workers.insert(slot, head.worker);
            }
            ToRunner::LoadEnd { slot } => self.load(slot),
            ToRunner::Unload { slot } => {
                self.workers.remove(&slot);
                self.say(&ToEdge::Gone { slot, outcome: Outcome::Ok, message: String::new() });
            }
            ToRunner::Start { stream, slot, head, body, .. } => self.start(stream, slot, &head, body),
            ToRunner::BodyData { stream, bytes, .. } => match self.echoes.get_mut(&stream) {
                Some(Some(echo)) => {
                    echo.waiting.extend_from_slice(&bytes);
                    self.echo(stream);
                }
                _ => self.say(&ToEdge::Credit { stream, part: 0, bytes: bytes.len() as u32 }),
            },
            ToRunner::BodyEnd { stream, error, .. } => self.body_end(stream, error),
            ToRunner::Credit { stream, bytes, .. } => {
                if let Some(Some(echo)) = self.echoes.get_mut(&stream) {
                    echo.credit += bytes as usize;
                    self.echo(stream);
                }
                if let Some((_, credit)) = self.streams.get_mut(&stream) {
                    *credit += u64::from(bytes);
                    self.pump(stream);
                }
            }
            ToRunner::Cancel { stream, outcome } => {
                CANCELS.fetch_add(1, Ordering::Relaxed);
                self.streams.remove(&stream);
                if let Some(path) = self.at_cancel.remove(&stream) {
                    self.cancelled(stream, &path, outcome);
                } else if !self.workers.values().any(|worker| worker == "deaf") {
                    self.done(stream, outcome);
                }
            }
            ToRunner::Fetched { stream, part, result: Err(_), .. } if self.refused.contains(&stream) && part < CALLS => {
                self.say(&ToEdge::BodyEnd { stream, part, error: Some("nobody wants it".to_owned()) });
                self.keep(stream, part + 1, "refuse");
            }
            ToRunner::Fetched { stream, part, result, .. } if self.hoards.contains_key(&stream) => self.hoarded(stream, part, result),
            ToRunner::Fetched { stream, result, .. } => {
                let text = match result {
                    Ok((head, BodyKind::Whole(bytes))) => format!("{} {}", head.status.as_u16(), String::from_utf8_lossy(&bytes)),
                    Ok((head, _)) => format!("{}", head.status.as_u16()),
                    Err(message) => message,
                };
                self.respond(stream, 200, text.into());
                self.done(stream, Outcome::Ok);
            }
            ToRunner::Settled { stream, part, yes: true, note: None } => self.ask(stream, part + 1, CacheCallHead::Match, "kept"),
            ToRunner::Settled { stream, yes, note, .. } => {
                self.respond(stream, 200, format!("{yes} {note:?}").into());
                self.done(stream, Outcome::Ok);
            }
            ToRunner::Purged { stream, part: 1, refused: None } => self.purge(stream, 2, "refuse"),
            ToRunner::Purged { stream, refused, .. } => {
                self.respond(stream, 200, format!("{refused:?}").into());
                self.done(stream, Outcome::Ok);
            }
            ToRunner::LoadModule { .. } | ToRunner::LoadBytes { .. } => {}
        }
    }

    fn body_end(&mut self, stream: StreamId, error: Option<String>) {
        if self.dies_at_end {
            std::process::exit(70);
        }
        match (self.echoes.get_mut(&stream), error) {
            (None, _) => {}
            (Some(Some(echo)), None) => {
                echo.ended = true;
                self.echo(stream);
            }
            (Some(None), None) => {
                self.respond(stream, 200, Bytes::new());
                self.done(stream, Outcome::Ok);
            }
            (Some(_), Some(message)) => {
                self.echoes.remove(&stream);
                self.say(&ToEdge::Failed { stream, outcome: Outcome::Exception, message });
                self.done(stream, Outcome::Exception);
            }
        }
    }

    fn echo(&mut self, stream: StreamId) {
        let Some(Some(echo)) = self.echoes.get_mut(&stream) else { return };
        let bytes = echo.waiting.split_to(echo.waiting.len().min(echo.credit)).freeze();
        echo.credit -= bytes.len();
        let over = echo.ended && echo.waiting.is_empty();
        if !bytes.is_empty() {
            self.say(&ToEdge::Credit { stream, part: 0, bytes: bytes.len() as u32 });
            self.say(&ToEdge::BodyData { stream, part: 0, bytes });
        }
        if over {
            self.echoes.remove(&stream);
            self.say(&ToEdge::BodyEnd { stream, part: 0, error: None });
            self.done(stream, Outcome::Ok);
        }
    }

    fn load(&mut self, slot: Slot) {
        match self.workers.get(&slot).map(String::as_str) {
            Some("broken") => {
                let message = "SyntaxError: no".to_owned();
                self.say(&ToEdge::Gone { slot, outcome: Outcome::StartupFailed, message });
            }
            Some("bomb") => {
                self.area.turn_begins(monotonic_ns(), 0);
                std::process::exit(65);
            }
            worker => {
                if worker == Some("chatty") {
                    self.chatter(slot);
                }
                self.say(&ToEdge::Loaded { slot, cpu_us: 7, heap_bytes: 1 << 20 });
            }
        }
    }

    fn respond(&mut self, stream: StreamId, status: u16, body: Bytes) {
        let mut headers = HeaderMap::new();
        headers.insert("x-pid", self.pid.into());
        let head = Box::new(ResponseHead { status: StatusCode::from_u16(status).expect("a status"), headers });
        self.say(&ToEdge::Response { stream, head, body: BodyKind::Whole(body) });
    }

    fn open(&mut self, stream: StreamId) {
        let head = Box::new(ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() });
        self.say(&ToEdge::Response { stream, head, body: BodyKind::Stream(None) });
    }

    fn done(&mut self, stream: StreamId, outcome: Outcome) {
        self.say(&ToEdge::Done { stream, outcome, cpu_us: 11, heap_bytes: 1 << 20 });
    }

    fn pump(&mut self, stream: StreamId) {
        let Some((left, credit)) = self.streams.get_mut(&stream) else { return };
        let mut chunks = Vec::new();
        while *left > 0 && *credit > 0 {
            let len = (*left).min(*credit).min(CHUNK_BYTES_MAX as u64);
            *left -= len;
            *credit -= len;
            chunks.push(len as usize);
        }
        let over = *left == 0;
        for len in chunks {
            self.say(&ToEdge::BodyData { stream, part: 0, bytes: vec![b'x'; len].into() });
        }
        if over {
            self.streams.remove(&stream);
            self.say(&ToEdge::BodyEnd { stream, part: 0, error: None });
            self.done(stream, Outcome::Ok);
        }
    }

    fn start(&mut self, stream: StreamId, slot: Slot, head: &RequestHead<Fields>, body: BodyKind) {
        let path = head.url.split('/').skip(3).collect::<Vec<_>>().join("/");
        let path = path.as_str();
        if path == "die-unstarted" {
            // Only the first process does: the flag is a file that the test names in a field.
            if once(head) {
                std::process::exit(70);
            }
            self.respond(stream, 200, "survived".into());
            return self.done(stream, Outcome::Ok);
        }
        if path == "bounce" && self.bounced < 1 {
            self.bounced += 1;
            return self.say(&ToEdge::Bounced { stream });
        }
        self.area.starts(stream);
        match path {
            "hello" | "bounce" => {
                self.respond(stream, 200, "hello".into());
                self.done(stream, Outcome::Ok);
            }
            "echo" => match body {
                BodyKind::Whole(bytes) => {
                    self.respond(stream, 200, bytes);
                    self.done(stream, Outcome::Ok);
                }
                BodyKind::Empty => self.done(stream, Outcome::Ok),
                BodyKind::Stream(_) => {
                    let late = head.headers.get("late").is_some();
                    self.echoes.insert(stream, (!late).then(|| Echo { credit: INITIAL_CREDIT as usize, ..Echo::default() }));
                    if !late {
                        self.open(stream);
                    }
                }
            },
            "stream" => {
                self.open(stream);
                self.streams.insert(stream, (8 << 20, u64::from(INITIAL_CREDIT)));
                self.pump(stream);
            }
            "cpu" => {
                self.respond(stream, 200, process_cpu_ns().to_string().into());
                self.done(stream, Outcome::Ok);
            }
            "throw" => {
                self.say(&ToEdge::Failed { stream, outcome: Outcome::Exception, message: "Error: no".to_owned() });
                self.done(stream, Outcome::Exception);
            }
            "hang" => {}
            "hang-body" => self.open(stream),
            "wait-until" => self.respond(stream, 200, "early".into()),
            "cancels" => {
                self.respond(stream, 200, CANCELS.load(Ordering::Relaxed).to_string().into());
                self.done(stream, Outcome::Ok);
            }
            "log" => {
                for line in 0..3000 {
                    let message = format!("line {line}");
                    self.say(&ToEdge::Log { stream, slot, level: LogLevel::Log, message, exception: false, place: String::new() });
                }
                self.respond(stream, 200, "logged".into());
                self.done(stream, Outcome::Ok);
            }
            "fetch" | "keep" | "cut" | "missing" | "refused" | "purge" | "pass" => self.call(stream, path),
            "fetch-body" => self.respond(stream, 200, "unused".into()),
            _ if self.late(stream, slot, path, head) || self.hoard(stream, path) => {}
            _ => self.misbehave(stream, slot, path, head),
        }
    }

    /// What ends or stops the process, or hides it.
    fn vanish(&mut self, stream: StreamId, slot: Slot, path: &str, head: &RequestHead<Fields>) -> bool {
        match path {
            "memory" => {
                self.area.turn_begins(monotonic_ns(), stream);
                self.area.runs_out_of_memory();
                std::process::exit(65);
            }
            "shares" => {
                self.area.turn_begins(monotonic_ns(), stream);
                hold_shared_memory();
            }
            "abort" => {
                self.area.turn_begins(monotonic_ns(), stream);
                std::process::abort();
            }
            "die" => std::process::exit(70),
            "die-once" => {
                if once(head) {
                    std::process::exit(70);
                }
                self.respond(stream, 200, "survived".into());
                self.done(stream, Outcome::Ok);
            }
            "stuck" => {
                self.area.turn_begins(monotonic_ns(), stream);
                self.say(&ToEdge::Stuck { stream, slot, outcome: Outcome::ExceededCpu });
                self.flush();
                std::thread::sleep(Duration::from_secs(3600));
            }
            "freeze" => BEATING.store(false, Ordering::Relaxed),
            "unlink" => {
                let _ = self.socket.shutdown(std::net::Shutdown::Both);
                std::thread::sleep(Duration::from_secs(3600));
            }
            _ => return false,
        }
        true
    }

    fn misbehave(&mut self, stream: StreamId, slot: Slot, path: &str, head: &RequestHead<Fields>) {
        if self.vanish(stream, slot, path, head) {
            return;
        }
        match path {
            "garbage" => self.out.extend_from_slice(&[9, 0, 0, 0, 200, 1, 2, 3, 4, 5, 6, 7, 8]),
            "huge" => self.out.extend_from_slice(&u32::MAX.to_le_bytes()),
            "second-hello" => self.say(&ToEdge::Hello { build: BUILD.to_owned(), unsandboxed: String::new() }),
            "second-response" => {
                self.respond(stream, 200, "one".into());
                self.respond(stream, 200, "two".into());
            }
            "beyond-credit" => {
                self.open(stream);
                for _ in 0..2 {
                    self.say(&ToEdge::BodyData { stream, part: 0, bytes: vec![0; CHUNK_BYTES_MAX].into() });
                }
            }
            "credit-flood" => {
                for _ in 0..2 {
                    self.say(&ToEdge::Credit { stream, part: 0, bytes: u32::MAX });
                }
            }
            "old-part" => {
                self.fetch(stream, 2);
                self.fetch(stream, 1);
            }
            "nobody" => {
                for other in [stream ^ 1, stream.wrapping_add(1 << 20), u32::MAX] {
                    self.respond(other, 200, "for nobody".into());
                    self.say(&ToEdge::BodyData { stream: other, part: 3, bytes: "for nobody".into() });
                    self.done(other, Outcome::Ok);
                }
                self.respond(stream, 200, "still here".into());
                self.done(stream, Outcome::Ok);
            }
            "tiny-chunks" => {
                self.open(stream);
                for _ in 0..INITIAL_CREDIT {
                    self.say(&ToEdge::BodyData { stream, part: 0, bytes: "x".into() });
                }
                self.say(&ToEdge::BodyEnd { stream, part: 0, error: None });
                self.done(stream, Outcome::Ok);
            }
            _ => {
                self.respond(stream, 404, Bytes::new());
                self.done(stream, Outcome::Ok);
            }
        }
    }
}

/// Whether the file that the request names was there; it is gone afterwards.
fn once(head: &RequestHead<Fields>) -> bool {
    let path = head.headers.get("once").and_then(|path| std::str::from_utf8(path).ok()).expect("a path");
    std::fs::remove_file(path).is_ok()
}

/// Takes shared memory, which no limit of the process counts: more than its cgroup may have in the test.
fn hold_shared_memory() {
    const BYTES: usize = 256 << 20;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, at a place that the kernel chooses; written as far as it is long, by nobody else.
    unsafe {
        let memory = libc::mmap(std::ptr::null_mut(), BYTES, protection, flags, -1, 0);
        assert_ne!(memory, libc::MAP_FAILED);
        std::ptr::write_bytes(memory.cast::<u8>(), 1, BYTES);
    }
}

/// CPU time of this process.
pub(crate) fn process_cpu_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Keeps the test honest about how long things take.
pub(crate) fn within<T>(limit: Duration, since: Instant, value: T) -> T {
    assert!(since.elapsed() < limit, "took {:?}, not {limit:?}", since.elapsed());
    value
}

/// Shared by the tests: what a host was told.
pub(crate) type Shared<T> = Arc<parking_lot::Mutex<T>>;
