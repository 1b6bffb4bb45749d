//! One runner process: its links, and what must happen when it ends or has to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::exec::Spawned;
use super::limits::{HELLO_TIMEOUT, LAST_WORDS};
use super::link::Link;
use super::process::{Ending, Process};
use super::socket::Socket;
use super::version::Class;
use super::{Inner, pipe, tasks};
use crate::Outcome;
use crate::protocol::{BUILD, Decoder, ProtocolError, Slot, StreamId, ToEdge, monotonic_ns};

/// One runner process that has said hello.
pub(super) struct Runner {
    pub(super) id: u64,
    /// The process that holds V8.
    pub(super) pid: u32,
    pub(super) links: Vec<Arc<Link>>,
    /// When it said hello (monotonic clock, nanoseconds).
    pub(super) ready_ns: u64,
    /// Set when it leaves the standby.
    class: OnceLock<Class>,
    process: Process,
    cause: Mutex<Option<Cause>>,
    kill: Notify,
    /// Its process has ended and all that ran in it is answered.
    gone: watch::Sender<bool>,
    kill_after: Mutex<Duration>,
    /// When it was last seen with a version, in milliseconds since the supervisor's start.
    pub(super) last_used_ms: AtomicU64,
}

/// Why the edge gives a runner up.
#[derive(Debug, Clone)]
pub(super) enum Cause {
    /// It broke the protocol.
    Protocol(ProtocolError),
    /// A thread does not obey.
    Stuck { link: usize, stream: StreamId, slot: Slot, outcome: Outcome },
    /// Its watchdog is silent.
    Silent,
    /// Nothing can be said to it.
    Cut(std::io::ErrorKind),
    /// Nothing is left to do in it.
    Retired,
    /// The supervisor ends.
    Shutdown,
}

/// Why a process did not become a runner.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The operating system refused.
    #[error("cannot start a runner: {0}")]
    Os(#[from] std::io::Error),
    /// It ended before its hello, for instance because its sandbox could not be proved.
    #[error("runner ended before its hello: {0:?}")]
    Ended(Ending),
    /// It said nothing in time.
    #[error("runner said nothing for {} s", HELLO_TIMEOUT.as_secs())]
    Silent,
    /// Its first message is not a hello.
    #[error("runner broke the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// It was built from other sources.
    #[error("runner is build {theirs}, the edge is {}", BUILD)]
    Build {
        /// Its build.
        theirs: String,
    },
    /// Its sandbox does not hold, and nothing allows that.
    #[error("the sandbox of the runner lacks {missing}")]
    Unsandboxed {
        /// What it lacks.
        missing: String,
    },
}

/// One link after its hello.
struct Greeted {
    socket: Socket,
    decoder: Decoder<ToEdge>,
}

impl Runner {
    /// Waits for the hello on every link, then starts the tasks that serve them.
    pub(super) async fn greet(
        supervisor: &Weak<Inner>,
        id: u64,
        spawned: Spawned,
        allow_unsandboxed: bool,
    ) -> Result<Arc<Self>, StartError> {
        let Spawned { process, links, board, .. } = spawned;
        let mut greeted = Vec::with_capacity(links.len());
        let hello = async {
            for link in links {
                greeted.push(hello(Socket::new(link)?, allow_unsandboxed).await?);
            }
            Ok::<(), StartError>(())
        };
        match tokio::time::timeout(HELLO_TIMEOUT, hello).await {
            Err(_) => return Err(StartError::Silent),
            // A closed link says little: how the process ended says more.
            Ok(Err(StartError::Os(_))) => {
                process.kill();
                return Err(StartError::Ended(process.ended().await));
            }
            Ok(result) => result?,
        }
        let mut links = Vec::with_capacity(greeted.len());
        let mut decoders = Vec::with_capacity(greeted.len());
        let links_len = greeted.len();
        for (index, greeted) in greeted.into_iter().enumerate() {
            let area = board.area(index).ok_or_else(|| std::io::Error::other("the board is too small"))?;
            links.push(Arc::new(Link::new(id, (index, links_len), area, greeted.socket)));
            decoders.push(greeted.decoder);
        }
        let runner = Arc::new(Self {
            id,
            pid: process.inner_pid(),
            links,
            ready_ns: monotonic_ns(),
            class: OnceLock::new(),
            process,
            cause: Mutex::new(None),
            kill: Notify::new(),
            gone: watch::Sender::new(false),
            kill_after: Mutex::new(Duration::ZERO),
            last_used_ms: AtomicU64::new(0),
        });
        let readers = runner.links.iter().zip(decoders).map(|(link, decoder)| {
            tasks::spawn(pipe::write(supervisor.clone(), runner.clone(), link.clone()));
            tasks::spawn(pipe::read(supervisor.clone(), runner.clone(), link.clone(), decoder))
        });
        let readers = readers.collect();
        tasks::spawn(keep(supervisor.clone(), runner.clone(), readers));
        Ok(runner)
    }

    /// The process that was made, and that which holds V8.
    pub(super) fn processes(&self) -> [u32; 2] {
        self.process.both()
    }

    /// Whether the kernel has killed it for want of memory, where that is known of this one.
    pub(super) fn was_starved(&self) -> Option<bool> {
        self.process.was_starved()
    }

    pub(super) fn class(&self) -> Option<&Class> {
        self.class.get()
    }

    /// It leaves the standby. `false` where it had done so before.
    pub(super) fn adopt(&self, class: Class) -> bool {
        self.class.set(class).is_ok()
    }

    /// Nothing is wrong with it.
    pub(super) fn is_serving(&self) -> bool {
        self.cause.lock().is_none() && self.links.iter().all(|link| link.is_open())
    }

    /// Gives it up. `false` where that was done before.
    pub(super) fn condemn(&self, cause: Cause) -> bool {
        let mut place = self.cause.lock();
        let first = place.is_none();
        place.get_or_insert(cause);
        first
    }

    pub(super) fn cause(&self) -> Option<Cause> {
        self.cause.lock().clone()
    }

    /// SIGKILL, after a delay.
    pub(super) fn kill_after(&self, delay: Duration) {
        *self.kill_after.lock() = delay;
        self.kill.notify_one();
    }

    /// Waits until its process has ended and all that ran in it is answered.
    pub(super) async fn dead_within(&self, wait: Duration) {
        let mut gone = self.gone.subscribe();
        let _ = tokio::time::timeout(wait, gone.wait_for(|gone| *gone)).await;
    }

    pub(super) fn is_dead(&self) -> bool {
        *self.gone.borrow()
    }

    /// Invocations that run in it.
    pub(super) fn running(&self) -> usize {
        self.links.iter().map(|link| link.running()).sum()
    }

    pub(super) fn used(&self, at_ms: u64) {
        self.last_used_ms.store(at_ms, Ordering::Relaxed);
    }
}

async fn hello(socket: Socket, allow_unsandboxed: bool) -> Result<Greeted, StartError> {
    let mut decoder = Decoder::<ToEdge>::new();
    let message = loop {
        if let Some(message) = decoder.next()? {
            break message;
        }
        if socket.read(decoder.buffer()).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    };
    let ToEdge::Hello { build, unsandboxed } = message else { return Err(ProtocolError::Order("no hello").into()) };
    if build != BUILD {
        return Err(StartError::Build { theirs: build });
    }
    if !unsandboxed.is_empty() && !allow_unsandboxed {
        return Err(StartError::Unsandboxed { missing: unsandboxed });
    }
    if !unsandboxed.is_empty() {
        tracing::warn!(missing = unsandboxed, "a runner is not fully sandboxed: do not run code here that is not your own");
    }
    Ok(Greeted { socket, decoder })
}

/// Watches over the process until it has ended and all that ran in it is answered.
async fn keep(supervisor: Weak<Inner>, runner: Arc<Runner>, readers: Vec<JoinHandle<()>>) {
    let killed = async {
        runner.kill.notified().await;
        let delay = *runner.kill_after.lock();
        tokio::time::sleep(delay).await;
        runner.process.kill();
        std::future::pending::<()>().await;
    };
    let ending = tokio::select! {
        ending = runner.process.ended() => ending,
        () = killed => Ending::Unknown,
    };
    // What it had written before its end is still taken.
    let last_words = Instant::now() + LAST_WORDS;
    for mut reader in readers {
        if tokio::time::timeout_at(last_words.into(), &mut reader).await.is_err() {
            reader.abort();
        }
    }
    match supervisor.upgrade() {
        Some(supervisor) => supervisor.buried(&runner, ending),
        None => super::burial::bury_quietly(&runner),
    }
    runner.gone.send_replace(true);
}
