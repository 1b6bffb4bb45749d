//! The least of an edge: starts a runner, sends it messages and waits for those that come back.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rustix::io::FdFlags;
use selvedge_runtime::protocol::{
    Area, Board, BodyKind, Decoder, Fields, LoadHead, RequestHead, ResponseHead, Slot, StreamId, ToEdge, ToRunner, encode,
};
use selvedge_runtime::{ClientInfo, Limits, ModuleKind, Outcome};

/// Longer than anything here takes, on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A runner and this side of its links.
pub(crate) struct Runner {
    pub(crate) child: Child,
    pub(crate) links: Vec<Link>,
}

/// This side of a link.
pub(crate) struct Link {
    socket: UnixStream,
    decoder: Decoder<ToEdge>,
    received: VecDeque<ToEdge>,
    pub(crate) area: Area,
}

/// How an invocation went.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) response: Option<(ResponseHead, BodyKind)>,
    pub(crate) failed: Option<(Outcome, String)>,
    pub(crate) outcome: Outcome,
    pub(crate) cpu_us: u64,
}

impl Runner {
    /// Starts a runner with one thread and takes its hello.
    pub(crate) fn start() -> Self {
        let mut runner = Self::spawn(&["runner"], 1, Stdio::inherit());
        let hello = runner.link().receive(|message| matches!(message, ToEdge::Hello { .. }));
        let ToEdge::Hello { build, unsandboxed } = hello else { unreachable!() };
        assert_eq!((build.as_str(), unsandboxed.as_str()), (selvedge_runtime::protocol::BUILD, ""));
        runner
    }

    /// Starts one with these words before its own arguments.
    pub(crate) fn spawn(words: &[&str], links: usize, stderr: Stdio) -> Self {
        Self::spawn_on(words, links, stderr, |_| ())
    }

    /// Starts one with its ends of the links made ready.
    pub(crate) fn spawn_on(words: &[&str], links: usize, stderr: Stdio, ready: impl Fn(&UnixStream)) -> Self {
        let board = Board::create(links).unwrap();
        let (ours, theirs): (Vec<_>, Vec<_>) = (0..links).map(|_| UnixStream::pair().unwrap()).unzip();
        theirs.iter().for_each(ready);
        let numbers: Vec<RawFd> = theirs.iter().map(AsRawFd::as_raw_fd).collect();
        let list = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(words).args(["--links", &list, "--board", &board.as_raw_fd().to_string()]).stderr(stderr);
        let inherited: Vec<RawFd> = numbers.into_iter().chain([board.as_raw_fd()]).collect();
        let inherit = move || {
            for number in &inherited {
                // SAFETY: open in the parent, so open in the child.
                rustix::io::fcntl_setfd(unsafe { std::os::fd::BorrowedFd::borrow_raw(*number) }, FdFlags::empty())?;
            }
            Ok(())
        };
        // SAFETY: only system calls.
        let child = unsafe { command.pre_exec(inherit) }.spawn().unwrap();
        let links = ours.into_iter().enumerate().map(|(index, socket)| Link::new(socket, board.area(index).unwrap())).collect();
        Self { child, links }
    }

    pub(crate) fn link(&mut self) -> &mut Link {
        &mut self.links[0]
    }

    /// Waits for the process's end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the runner does not end");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// The process that holds V8: the only child of the one that was started.
    pub(crate) fn inner_pid(&self) -> i32 {
        let waiter = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{waiter}/task/{waiter}/children")).unwrap();
        children.trim().parse().unwrap()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Link {
    fn new(socket: UnixStream, area: Area) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        Self { socket, decoder: Decoder::new(), received: VecDeque::new(), area }
    }

    pub(crate) fn send(&mut self, messages: &[ToRunner]) {
        let mut out = BytesMut::new();
        for message in messages {
            encode(&mut out, message).unwrap();
        }
        self.send_bytes(&out);
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// Waits for a message, leaving the others in their order. None where the link ends first.
    pub(crate) fn try_receive(&mut self, mut wanted: impl FnMut(&ToEdge) -> bool) -> Option<ToEdge> {
        let begun = Instant::now();
        loop {
            if let Some(index) = self.received.iter().position(&mut wanted) {
                return self.received.remove(index);
            }
            assert!(begun.elapsed() < PATIENCE, "the message does not come; others: {:?}", self.received);
            let mut bytes = [0; 65536];
            match self.socket.read(&mut bytes) {
                Ok(0) => return None,
                Ok(len) => self.decoder.buffer().extend_from_slice(&bytes[..len]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
            while let Some(message) = self.decoder.next().unwrap() {
                if let ToEdge::Log { message, exception: false, .. } = &message {
                    eprintln!("worker: {message}");
                }
                self.received.push_back(message);
            }
        }
    }

    pub(crate) fn receive(&mut self, wanted: impl FnMut(&ToEdge) -> bool) -> ToEdge {
        self.try_receive(wanted).expect("the link has ended")
    }

    /// Whether such a message is here already.
    pub(crate) fn has(&self, wanted: impl FnMut(&ToEdge) -> bool) -> bool {
        self.received.iter().any(wanted)
    }

    /// Sends a version of one module, without waiting.
    pub(crate) fn send_load(&mut self, slot: Slot, source: &str, limits: Limits) {
        let head = LoadHead {
            worker: "worker".into(),
            version: format!("version-{slot}"),
            entry: "index.js".into(),
            modules_len: 1,
            vars: std::collections::BTreeMap::new(),
            compatibility_date: "2026-01-01".into(),
            compatibility_flags: Vec::new(),
            limits,
        };
        let bytes = Bytes::copy_from_slice(source.as_bytes());
        let bytes_len = bytes.len() as u64;
        self.send(&[
            ToRunner::LoadBegin { slot, head: Box::new(head) },
            ToRunner::LoadModule { slot, specifier: "index.js".into(), kind: ModuleKind::EsModule, bytes_len, source_map_len: 0 },
            ToRunner::LoadBytes { slot, bytes },
            ToRunner::LoadEnd { slot },
        ]);
    }

    /// Loads a version; panics where it cannot run.
    pub(crate) fn load(&mut self, slot: Slot, source: &str) {
        self.load_with(slot, source, Limits::default());
    }

    pub(crate) fn load_with(&mut self, slot: Slot, source: &str, limits: Limits) {
        self.send_load(slot, source, limits);
        match self.receive(|message| is_loaded(message, slot) || is_gone(message, slot)) {
            ToEdge::Loaded { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    /// Loads a handler's body: `fetch(request, env, ctx)`.
    pub(crate) fn load_handler(&mut self, slot: Slot, body: &str) {
        self.load(slot, &format!("export default {{ async fetch(request, env, ctx) {{ {body} }} }}"));
    }

    pub(crate) fn start(&mut self, slot: Slot, stream: StreamId, url: &str) {
        self.send(&[start(slot, stream, url)]);
    }

    /// Runs an invocation and waits for everything of it.
    pub(crate) fn run(&mut self, slot: Slot, stream: StreamId) -> Run {
        self.run_url(slot, stream, "http://worker.test/").expect("the link has ended")
    }

    /// Runs an invocation. One that is given back (the thread was busy, such as with the teardown of a large heap) is sent
    /// again. None where the link ends first.
    pub(crate) fn run_url(&mut self, slot: Slot, stream: StreamId, url: &str) -> Option<Run> {
        self.start(slot, stream, url);
        while !self.has_ended(stream)? {
            self.receive(|message| matches!(message, ToEdge::Bounced { .. }));
            self.start(slot, stream, url);
        }
        self.finish(stream)
    }

    /// Runs an invocation, unless it gets stuck for the reason that is given then.
    pub(crate) fn run_or_stuck(&mut self, slot: Slot) -> Result<Option<Run>, Outcome> {
        loop {
            self.start(slot, slot, "http://worker.test/");
            let end = |m: &ToEdge| matches!(m, ToEdge::Done { .. } | ToEdge::Bounced { .. } | ToEdge::Stuck { .. });
            match self.try_receive(end) {
                None => return Ok(None),
                Some(ToEdge::Bounced { .. }) => {}
                Some(ToEdge::Stuck { outcome, .. }) => return Err(outcome),
                Some(done) => {
                    self.received.push_back(done);
                    return Ok(self.finish(slot));
                }
            }
        }
    }

    /// Waits for the end of an invocation; false where it was given back.
    pub(crate) fn has_ended(&mut self, stream: StreamId) -> Option<bool> {
        let done = |m: &ToEdge| matches!(m, ToEdge::Done { stream: s, .. } if *s == stream);
        let ended = |m: &ToEdge| done(m) || matches!(m, ToEdge::Bounced { stream: s } if *s == stream);
        let message = self.try_receive(ended)?;
        let is_done = done(&message);
        self.received.push_back(message);
        Some(is_done)
    }

    /// Waits for everything of an invocation. None where the link ends first.
    pub(crate) fn finish(&mut self, stream: StreamId) -> Option<Run> {
        let ToEdge::Done { outcome, cpu_us, .. } = self.try_receive(|m| matches!(m, ToEdge::Done { stream: s, .. } if *s == stream))?
        else {
            unreachable!()
        };
        let mut run = Run { response: None, failed: None, outcome, cpu_us };
        self.received.retain(|message| match message {
            ToEdge::Response { stream: s, head, body } if *s == stream => {
                run.response = Some(((**head).clone(), body.clone()));
                false
            }
            ToEdge::Failed { stream: s, outcome, message } if *s == stream => {
                run.failed = Some((*outcome, message.clone()));
                false
            }
            _ => true,
        });
        Some(run)
    }

    /// Waits until a slot is free, and says why.
    pub(crate) fn gone(&mut self, slot: Slot) -> (Outcome, String) {
        match self.receive(|message| is_gone(message, slot)) {
            ToEdge::Gone { outcome, message, .. } => (outcome, message),
            _ => unreachable!(),
        }
    }
}

impl Run {
    pub(crate) fn text(&self) -> String {
        match &self.response {
            Some((_, BodyKind::Whole(bytes))) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("no whole body: {other:?}, {:?}", self.failed),
        }
    }
}

pub(crate) fn start(slot: Slot, stream: StreamId, url: &str) -> ToRunner {
    let head = RequestHead { method: http::Method::GET, url: url.into(), headers: Fields::default() };
    let client = ClientInfo { http_protocol: "HTTP/2", tls_version: Some("TLSv1.3"), colo: "test".into() };
    ToRunner::Start { stream, slot, head: Box::new(head), client, body: BodyKind::Empty }
}

pub(crate) fn is_loaded(message: &ToEdge, slot: Slot) -> bool {
    matches!(message, ToEdge::Loaded { slot: s, .. } if *s == slot)
}

pub(crate) fn is_gone(message: &ToEdge, slot: Slot) -> bool {
    matches!(message, ToEdge::Gone { slot: s, .. } if *s == slot)
}
