//! One version on one link: from the first byte of its modules to the end of its isolate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Warmed;
use super::held::Holding;
use super::link::Link;
use super::logged::Logged;
use super::version::{Class, Version};
use crate::protocol::{CHUNK_BYTES_MAX, EncodeError, LoadHead, MODULES_BYTES_MAX, MODULES_MAX, Slot, ToRunner};
use crate::{Module, Outcome, RunError, WorkerSource};

/// One version on one link.
pub(super) struct Placement {
    pub(super) version: Arc<Version>,
    pub(super) source: Arc<WorkerSource>,
    pub(super) link: Arc<Link>,
    pub(super) slot: Slot,
    /// The class of the runner when it was placed.
    pub(super) class: Class,
    alive: AtomicBool,
    /// Milliseconds since the supervisor's start.
    last_used_ms: AtomicU64,
    progress: Mutex<Progress>,
    /// Outside of any invocation.
    pub(super) logged: Mutex<Logged>,
    /// An invocation has crossed a limit here, which was counted.
    pub(super) struck: AtomicBool,
    /// What its calls make the edge hold.
    pub(super) holding: Holding,
}

enum Progress {
    Loading(Option<oneshot::Sender<Result<Warmed, RunError>>>),
    Ready(Warmed),
}

impl Placement {
    /// A placement that is about to be loaded, and how that ends. (The other end is dropped where its runner is lost.)
    pub(super) fn new(
        version: Arc<Version>,
        source: Arc<WorkerSource>,
        link: Arc<Link>,
        slot: Slot,
        class: Class,
        done: oneshot::Sender<Result<Warmed, RunError>>,
    ) -> Self {
        let progress = Mutex::new(Progress::Loading(Some(done)));
        let last_used_ms = AtomicU64::new(version.last_used_ms());
        let (alive, struck) = (AtomicBool::new(true), AtomicBool::new(false));
        let holding = Holding::within(&link.held);
        Self { version, source, link, slot, class, alive, last_used_ms, progress, logged: Mutex::default(), struck, holding }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    pub(super) fn used(&self, at_ms: u64) {
        self.last_used_ms.store(at_ms, Ordering::Relaxed);
    }

    pub(super) fn last_used_ms(&self) -> u64 {
        self.last_used_ms.load(Ordering::Relaxed)
    }

    /// The runner is evaluating it.
    pub(super) fn is_loading(&self) -> bool {
        matches!(*self.progress.lock(), Progress::Loading(_))
    }

    /// What loading took.
    pub(super) fn warmed(&self) -> Option<Warmed> {
        match &*self.progress.lock() {
            Progress::Ready(warmed) => Some(warmed.clone()),
            Progress::Loading(_) => None,
        }
    }

    pub(super) fn loaded(&self, cpu_us: u64, heap_bytes: u64) {
        let warmed = Warmed { cpu_us, heap_bytes };
        let before = std::mem::replace(&mut *self.progress.lock(), Progress::Ready(warmed.clone()));
        if let Progress::Loading(Some(done)) = before {
            // The load task may have given up: then it unloads what it does not want.
            let _ = done.send(Ok(warmed));
        }
    }

    /// Its isolate is gone.
    pub(super) fn gone(&self, outcome: Outcome, message: String) {
        self.alive.store(false, Ordering::Release);
        if let Progress::Loading(done) = &mut *self.progress.lock()
            && let Some(done) = done.take()
        {
            let outcome = if outcome == Outcome::Ok { Outcome::StartupFailed } else { outcome };
            let _ = done.send(Err(RunError { outcome, message, retry_after: None, request_body: None }));
        }
    }

    /// Its runner is gone: whoever waits for it may try another.
    pub(super) fn lost(&self) {
        self.alive.store(false, Ordering::Release);
        if let Progress::Loading(done) = &mut *self.progress.lock() {
            drop(done.take());
        }
    }

    /// Its isolate is dropped as soon as its invocations have ended.
    pub(super) fn unload(&self) {
        self.alive.store(false, Ordering::Release);
        // Cannot fail: it has no field with a bound.
        let _ = self.link.send(&ToRunner::Unload { slot: self.slot });
    }

    /// Sends the version. Large ones go piece by piece, as the link's outbox allows.
    pub(super) async fn send(&self) -> Result<(), RunError> {
        let source = &*self.source;
        let modules_len = u32::try_from(source.modules.len()).unwrap_or(u32::MAX);
        let bytes: u64 = source.modules.iter().map(bytes_of).sum();
        if modules_len > MODULES_MAX || bytes > MODULES_BYTES_MAX {
            return Err(unfit(&format!("{modules_len} modules of {bytes} bytes are over {MODULES_MAX} or {MODULES_BYTES_MAX}")));
        }
        let head = LoadHead {
            worker: source.worker.to_string(),
            version: source.version.to_string(),
            entry: source.entry.clone(),
            modules_len,
            vars: source.vars.clone(),
            compatibility_date: source.compatibility_date.clone(),
            compatibility_flags: source.compatibility_flags.clone(),
            limits: source.limits.clone(),
        };
        let _sending = self.link.sending.lock().await;
        // A small version goes with one write: its runner is woken once, when it has all of it.
        let messages = self.messages(head);
        let (mut from, mut held) = (0, 0);
        for (at, message) in messages.iter().enumerate() {
            held += weight(message);
            if held >= CHUNK_BYTES_MAX || at + 1 == messages.len() {
                self.append(messages.get(from..=at).unwrap_or_default()).await?;
                (from, held) = (at + 1, 0);
            }
        }
        Ok(())
    }

    /// The whole version, in pieces that share its bytes.
    fn messages(&self, head: LoadHead) -> Vec<ToRunner> {
        let slot = self.slot;
        let mut messages = vec![ToRunner::LoadBegin { slot, head: Box::new(head) }];
        for module in &self.source.modules {
            let source_map = module.source_map.clone().unwrap_or_default();
            let (bytes_len, source_map_len) = (module.bytes.len() as u64, source_map.len() as u64);
            let (specifier, kind) = (module.specifier.clone(), module.kind);
            messages.push(ToRunner::LoadModule { slot, specifier, kind, bytes_len, source_map_len });
            for mut rest in [module.bytes.clone(), source_map] {
                while !rest.is_empty() {
                    let bytes = rest.split_to(rest.len().min(CHUNK_BYTES_MAX));
                    messages.push(ToRunner::LoadBytes { slot, bytes });
                }
            }
        }
        messages.push(ToRunner::LoadEnd { slot });
        messages
    }

    async fn append(&self, messages: &[ToRunner]) -> Result<(), RunError> {
        while self.link.state.lock().is_congested() && self.link.is_open() {
            tokio::time::sleep(super::limits::BUSY_POLL).await;
        }
        self.link.send_all(messages).map_err(|error: EncodeError| unfit(&error.to_string()))
    }
}

/// About how many bytes a message takes.
fn weight(message: &ToRunner) -> usize {
    const FRAME: usize = 32;
    FRAME
        + match message {
            ToRunner::LoadModule { specifier, .. } => specifier.len(),
            ToRunner::LoadBytes { bytes, .. } => bytes.len(),
            _ => 0,
        }
}

fn bytes_of(module: &Module) -> u64 {
    module.bytes.len() as u64 + module.source_map.as_ref().map_or(0, bytes::Bytes::len) as u64
}

fn unfit(why: &str) -> RunError {
    let message = format!("the version cannot be loaded: {why}");
    RunError { outcome: Outcome::StartupFailed, message, retry_after: None, request_body: None }
}
