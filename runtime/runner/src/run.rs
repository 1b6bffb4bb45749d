//! The life of a runner process, from its command line to its exit code.

use std::ffi::OsString;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::sync::mpsc;

use selvedge_runtime::protocol::{Board, monotonic_ns};

use crate::alarm::{Alarms, ThreadClock};
use crate::arguments::Arguments;
use crate::last_words::{self, Exit, end};
use crate::limits::{BLOCKING_THREADS_MAX, CPU_ALARM, STACK_BYTES};
use crate::link::Link;
use crate::sandbox::{self, ORDER, Step};
use crate::station::Station;
use crate::thread::JsThread;
use crate::watchdog;

/// Becomes a runner. Must be called while the process has one thread. `arguments` are those after `selvedge runner`.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    run(arguments, &ORDER)
}

/// [`main`] with the steps of the sandbox in another order: for the test that sees the proof fail.
#[doc(hidden)]
pub fn run(arguments: impl IntoIterator<Item = OsString>, order: &[Step]) -> ExitCode {
    let arguments = match Arguments::parse(arguments) {
        Ok(arguments) => arguments,
        Err(error) => end(Exit::Usage, &error.to_string()),
    };
    last_words::install();
    // rustix finds the page size, and the clock that costs no system call, where the sandbox lets it look no more.
    let _ = (rustix::param::page_size(), monotonic_ns());
    let mut threads = None;
    let entered = sandbox::enter(&arguments, order, || {
        threads = Some(Threads::start(&arguments).map_err(|error| error.to_string())?);
        Ok(())
    });
    let (unsandboxed, threads) = match (entered, threads) {
        (Ok(unsandboxed), Some(threads)) => (unsandboxed, threads),
        (Ok(_), None) => end(Exit::Sandbox, "there are no threads"),
        (Err(error), _) => end(Exit::Sandbox, &error.to_string()),
    };
    threads.release(&unsandboxed);
    watchdog::watch(threads.watched, &threads.alarms)
}

/// The JavaScript threads. They exist before the system call filter, and wait until it has proved itself.
struct Threads {
    watched: Vec<(&'static Station, ThreadClock)>,
    gates: Vec<mpsc::Sender<String>>,
    alarms: Alarms,
}

impl Threads {
    /// Starts V8 and one thread for each link.
    fn start(arguments: &Arguments) -> std::io::Result<Self> {
        // Before V8's threads, which leave the signal to this one then.
        let alarms = Alarms::for_this_thread()?;
        crate::snapshot::init_platform(&arguments.v8_flags);
        let board = Board::open(take(arguments.board), arguments.links.len())?;
        let (mut watched, mut gates) = (Vec::new(), Vec::new());
        for (index, link) in arguments.links.iter().enumerate() {
            let station = Station::new(Link::new(take(*link))?, board.area(index), arguments.console_places);
            let station: &'static Station = Box::leak(Box::new(station));
            let (gate, opened) = mpsc::channel();
            let (ready, clock) = mpsc::channel();
            let threads = arguments.links.len();
            let body = move || serve(station, threads, &ready, &opened);
            std::thread::Builder::new().name(format!("js-{index}")).stack_size(STACK_BYTES).spawn(body)?;
            let clock = clock.recv().map_err(std::io::Error::other)??;
            alarms.add(clock, CPU_ALARM)?;
            watched.push((station, clock));
            gates.push(gate);
        }
        // The areas keep the memory mapped; its descriptor goes with the board.
        Ok(Self { watched, gates, alarms })
    }

    /// Lets the threads go.
    fn release(&self, unsandboxed: &str) {
        for gate in &self.gates {
            let _ = gate.send(unsandboxed.into());
        }
    }
}

/// A JavaScript thread. It is `ready` when it needs nothing more that the filter refuses, and goes on when its gate opens.
fn serve(station: &'static Station, threads: usize, ready: &mpsc::Sender<std::io::Result<ThreadClock>>, gate: &mpsc::Receiver<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS_MAX).build();
    let runtime = runtime.unwrap_or_else(|error| end(Exit::Internal, &error.to_string()));
    let _ = ready.send(ThreadClock::of_this_thread());
    if let Some(area) = &station.area {
        last_words::speak_for(area.clone());
    }
    let Ok(unsandboxed) = gate.recv() else { return };
    let served: std::io::Result<std::convert::Infallible> =
        runtime.block_on(async { Ok(JsThread::new(station, threads)?.serve(unsandboxed).await) });
    let Err(error) = served;
    end(Exit::Internal, &error.to_string());
}

fn take(number: RawFd) -> OwnedFd {
    // SAFETY: inherited for this, and checked in the sandbox's first step; taken once.
    unsafe { OwnedFd::from_raw_fd(number) }
}
