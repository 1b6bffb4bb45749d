//! The process between edge and runner: it waits for the runner, passes its death on, and dies with the edge.
//!
//! The edge's death is noticed by a pidfd, not by `PR_SET_PDEATHSIG`: that one fires when the *thread* that spawned a child
//! ends, and the edge's threads come and go.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus};

/// The edge, watched.
pub(super) struct Edge(OwnedFd);

impl Edge {
    /// The process that started this one.
    pub(super) fn of_parent() -> io::Result<Self> {
        let parent = rustix::process::getppid().ok_or_else(|| io::Error::other("the edge is gone"))?;
        Ok(Self(rustix::process::pidfd_open(parent, PidfdFlags::empty())?))
    }
}

/// In the child: be killed when the parent dies. The pipe closes with the parent, and tells whether it died before this.
pub(super) fn die_with_parent(closes_with_parent: &OwnedFd) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut byte = [0u8; 1];
    match rustix::io::read(closes_with_parent, &mut byte) {
        Err(rustix::io::Errno::AGAIN) => Ok(()),
        _ => Err(io::Error::other("the parent is gone")),
    }
}

/// In the parent: waits for the runner and ends as it did. Ends it when the edge is gone.
pub(super) fn wait(child: i32, edge: &Edge, held: OwnedFd) -> ! {
    let status = Pid::from_raw(child).and_then(|child| wait_for(child, edge).ok());
    drop(held);
    match (status.and_then(|status| status.exit_status()), status.and_then(|status| status.terminating_signal())) {
        (Some(code), _) => exit(code),
        (None, Some(signal)) => die_of(signal),
        (None, None) => exit(70),
    }
}

fn wait_for(child: Pid, edge: &Edge) -> io::Result<WaitStatus> {
    let runner = rustix::process::pidfd_open(child, PidfdFlags::empty())?;
    loop {
        let mut watched = [PollFd::new(&runner, PollFlags::IN), PollFd::new(&edge.0, PollFlags::IN)];
        match poll(&mut watched, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if watched.iter().any(|watched| watched.revents().contains(PollFlags::IN)) {
            break;
        }
    }
    // Harmless where it is the runner that has ended: its number is not free before it has been waited for.
    let _ = rustix::process::pidfd_send_signal(&runner, Signal::KILL);
    loop {
        match rustix::process::waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(status),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn exit(code: i32) -> ! {
    // SAFETY: ends the process without running the destructors of what it shares with the runner.
    unsafe { libc::_exit(code) }
}

fn die_of(signal: i32) -> ! {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain calls on this process, which has one thread and is about to end.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
    exit(128 + signal)
}
