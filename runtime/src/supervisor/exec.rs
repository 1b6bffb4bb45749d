//! Starts a runner process: exec'ed by descriptor, with its links and its board and nothing else.
//!
//! The child is made with `clone(CLONE_VM | CLONE_VFORK)`, as in the C library's `posix_spawn`: an edge with gigabytes of cache must not copy
//! its page tables for each runner. `posix_spawn` itself cannot set the parent-death signal before exec.
//!
//! All children are made by one thread that lives as long as the supervisor, because the kernel sends the parent-death
//! signal when the *thread* that made the child ends (prctl(2), PR_SET_PDEATHSIG).

use std::ffi::{CString, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::mpsc;

use tokio::sync::oneshot;

use super::cgroup::{self, Cgroup};
use super::limits::{CGROUP_MARGIN_BYTES, STANDBY_NICER};
use super::process::{self, Process};
use super::socket::End;
use super::{priority, tasks};
use crate::protocol::{Board, data_bytes_max};

/// Bytes of the child's stack until exec: it calls a dozen system calls.
const STACK_BYTES: usize = 64 << 10;
/// Orders that may wait for the thread: more runners than may exist are never asked for.
const ORDERS_MAX: usize = 64;

/// A runner process that has been exec'ed, but has not said anything yet.
pub(super) struct Spawned {
    pub(super) process: Process,
    pub(super) links: Vec<End>,
    pub(super) board: Board,
    /// It is less urgent than the edge until [`priority::raise`].
    pub(super) aside: bool,
}

/// What all runner processes have in common.
pub(super) struct Program {
    pub(super) executable: File,
    pub(super) arguments: Vec<String>,
    pub(super) threads: usize,
    pub(super) allow_unsandboxed: bool,
}

/// How a runner is started.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Start {
    /// Without a JIT compiler.
    pub(super) jitless: bool,
    /// Nobody waits for it: it is less urgent than all that somebody waits for, where that can be undone.
    pub(super) aside: bool,
}

/// The thread that makes children. It ends, and the kernel kills its children, when this is dropped.
pub(super) struct Spawner {
    orders: mpsc::SyncSender<Order>,
}

struct Order {
    start: Start,
    answer: oneshot::Sender<io::Result<Spawned>>,
}

impl Spawner {
    pub(super) fn start(program: Program) -> io::Result<Self> {
        let can_be_raised = priority::can_be_raised()?;
        cgroup::given();
        let (orders, queue) = mpsc::sync_channel::<Order>(ORDERS_MAX);
        tasks::thread("selvedge-spawn", move || {
            for order in queue {
                let Start { jitless, aside } = order.start;
                let spawned = program.spawn(jitless, aside && can_be_raised);
                // Nobody waits any more: dropping the process kills it.
                let _ = order.answer.send(spawned);
            }
        })?;
        Ok(Self { orders })
    }

    /// Makes one process. Cancel-safe: a process that nobody takes is killed.
    pub(super) async fn spawn(&self, start: Start) -> io::Result<Spawned> {
        let (answer, spawned) = oneshot::channel();
        self.orders.try_send(Order { start, answer }).map_err(|_| io::Error::other("too many runners are being started"))?;
        spawned.await.map_err(|_| io::Error::other("the spawning thread is gone"))?
    }
}

impl Program {
    fn spawn(&self, jitless: bool, aside: bool) -> io::Result<Spawned> {
        process::sweep();
        let board = Board::create(self.threads)?;
        let (mut links, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..self.threads {
            let (ours, their) = End::pair()?;
            links.push(ours);
            theirs.push(their);
        }
        let numbers: Vec<String> = theirs.iter().map(|link| link.as_raw_fd().to_string()).collect();
        let mut arguments = vec!["selvedge".to_owned()];
        arguments.extend(self.arguments.iter().cloned());
        arguments.extend(["--links".to_owned(), numbers.join(","), "--board".to_owned(), board.as_raw_fd().to_string()]);
        if self.allow_unsandboxed {
            arguments.push("--allow-unsandboxed".to_owned());
        }
        if jitless {
            arguments.extend(["--v8-flags".to_owned(), "--jitless".to_owned()]);
        }
        let inherited: Vec<RawFd> = theirs.iter().map(AsRawFd::as_raw_fd).chain([board.as_raw_fd()]).collect();
        let process = exec(&self.executable, &arguments, &inherited, if aside { STANDBY_NICER } else { 0 }, self.cgroup())?;
        Ok(Spawned { process, links, board, aside })
    }

    /// A cgroup for one process, and the door to it, where the edge was given any.
    fn cgroup(&self) -> Option<(Cgroup, File)> {
        let made = cgroup::given()?.make(data_bytes_max(self.threads) + CGROUP_MARGIN_BYTES);
        made.inspect_err(|error| tracing::warn!(%error, "a runner has no cgroup of its own")).ok()
    }
}

/// What the child needs, made before it exists: it must not allocate.
struct Child<'a> {
    path: CString,
    arguments: Vec<*const c_char>,
    environment: [*const c_char; 1],
    inherited: &'a [RawFd],
    null: RawFd,
    parent: libc::pid_t,
    signals: libc::sigset_t,
    nicer: c_int,
    /// The door of its cgroup; none: -1.
    door: RawFd,
    /// Written by the child where it could not go through that.
    shut_out: c_int,
    /// Written by the child where it fails before exec.
    error: c_int,
}

fn exec(executable: &File, arguments: &[String], inherited: &[RawFd], nicer: c_int, cgroup: Option<(Cgroup, File)>) -> io::Result<Process> {
    let strings: Vec<CString> = arguments.iter().map(|argument| CString::new(argument.as_str())).collect::<Result<_, _>>()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: both sets are initialised by the calls that fill them.
    let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    // SAFETY: no handler of ours may run in the child, which shares our memory: all signals wait until it has exec'ed.
    unsafe {
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
    }
    let mut child = Child {
        path: CString::new(format!("/proc/self/fd/{}", executable.as_fd().as_raw_fd()))?,
        arguments: strings.iter().map(|argument| argument.as_ptr()).chain([std::ptr::null()]).collect(),
        environment: [std::ptr::null()],
        inherited,
        null: null.as_raw_fd(),
        parent: std::process::id() as libc::pid_t,
        signals: before,
        nicer,
        door: cgroup.as_ref().map_or(-1, |(_, door)| door.as_raw_fd()),
        shut_out: 0,
        error: 0,
    };
    let mut stack = vec![0u8; STACK_BYTES];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack outlives the child's use of it, because CLONE_VFORK holds this thread until exec or exit; its
    // top is aligned to 16 bytes; `child` is only used by the child meanwhile.
    let pid = unsafe {
        let top = stack.as_mut_ptr_range().end as usize & !15;
        libc::clone(run, top as *mut c_void, flags, (&raw mut child).cast())
    };
    let failure = io::Error::last_os_error();
    // SAFETY: puts back the mask that was there.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    if pid < 0 {
        return Err(failure);
    }
    if child.shut_out != 0 {
        tracing::warn!(error = %io::Error::from_raw_os_error(child.shut_out), "a runner is not in its cgroup");
    }
    let cgroup = cgroup.map(|(cgroup, _)| cgroup).filter(|_| child.shut_out == 0);
    let process = Process::adopt(pid, cgroup)?;
    match child.error {
        0 => Ok(process),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The child until exec. Only system calls: it shares the memory of a process with many threads.
extern "C" fn run(child: *mut c_void) -> c_int {
    // SAFETY: the parent's `exec` holds still and keeps it alive; see there.
    let child = unsafe { &mut *child.cast::<Child<'_>>() };
    // SAFETY: plain system calls with pointers that the parent keeps alive.
    unsafe {
        // A group of its own: Ctrl-C in a terminal goes to the edge, which drains while its runners still work.
        libc::setpgid(0, 0);
        // Dies with the edge, also when the edge has died already.
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 || libc::getppid() != child.parent {
            child.error = libc::ESRCH;
            libc::_exit(1);
        }
        // Before it runs a line of its program. CLONE_INTO_CGROUP, which spares the kernel a lock, takes a clone3
        // with a stack of its own: assembler for each processor.
        if child.door >= 0 && libc::write(child.door, c"0".as_ptr().cast(), 1) < 0 {
            child.shut_out = *libc::__errno_location();
        }
        libc::nice(child.nicer);
        // The kernel shall kill a runner, never the edge, when memory runs out. Where /proc is read-only, it chooses itself.
        let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if score >= 0 {
            libc::write(score, c"1000".as_ptr().cast(), 4);
        }
        // Nothing is inherited but the links, the board and stderr. A kernel before 5.11 lacks this call; all our own
        // descriptors are made close-on-exec anyway.
        libc::syscall(libc::SYS_close_range, 3, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC);
        let mut ok = libc::dup2(child.null, 0) >= 0 && libc::dup2(child.null, 1) >= 0;
        for descriptor in child.inherited {
            ok &= libc::fcntl(*descriptor, libc::F_SETFD, 0) == 0;
        }
        if ok {
            libc::pthread_sigmask(libc::SIG_SETMASK, &child.signals, std::ptr::null_mut());
            libc::execve(child.path.as_ptr(), child.arguments.as_ptr(), child.environment.as_ptr());
        }
        child.error = *libc::__errno_location();
        libc::_exit(1)
    }
}
