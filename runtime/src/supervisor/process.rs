//! A child process, held by a descriptor so that its number cannot be taken by another (pidfd_open(2)).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions};
use tokio::io::unix::AsyncFd;

use super::cgroup::Cgroup;
use crate::protocol::exit::Exit;

/// A running child. Killed and reaped when dropped.
pub(super) struct Process {
    pid: u32,
    handle: Arc<OwnedFd>,
    cgroup: Option<Cgroup>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// With an exit code of ours.
    Exit(Exit),
    /// With one that is not.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It cannot be told.
    Unknown,
}

impl Process {
    /// Takes charge of a child that nobody has reaped. May wait for its end, where it cannot be held.
    pub(super) fn adopt(pid: i32, cgroup: Option<Cgroup>) -> io::Result<Self> {
        let number = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        match rustix::process::pidfd_open(number, PidfdFlags::empty()) {
            Ok(handle) => Ok(Self { pid: pid.unsigned_abs(), handle: Arc::new(handle), cgroup }),
            Err(error) => {
                // Its number is its own until it is reaped, and SIGKILL takes no longer than the kernel needs.
                let _ = rustix::process::kill_process(number, Signal::KILL);
                let _ = rustix::process::waitpid(Some(number), WaitOptions::empty());
                Err(error.into())
            }
        }
    }

    /// The process that holds V8: the child of the child, where the sandbox has a pid namespace.
    pub(super) fn inner_pid(&self) -> u32 {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let children = std::fs::read_to_string(path).unwrap_or_default();
        children.split_ascii_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or(self.pid)
    }

    /// The child, and the process that holds V8.
    pub(super) fn both(&self) -> [u32; 2] {
        [self.pid, self.inner_pid()]
    }

    /// Whether the kernel has killed it for want of memory; none where it has no cgroup that tells.
    pub(super) fn was_starved(&self) -> Option<bool> {
        self.cgroup.as_ref()?.was_starved()
    }

    /// SIGKILL. Does nothing when it is dead already.
    pub(super) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.handle, Signal::KILL);
    }

    /// Waits for the end and reaps it. To be called once. Takes no descriptor: there may be none left.
    pub(super) async fn ended(&self) -> Ending {
        // SAFETY: what is borrowed stays open, and the same, as long as it is.
        let Ok(handle) = (unsafe { AsyncFd::register(self.handle.as_fd()) }) else { return Ending::Unknown };
        loop {
            let Ok(mut ready) = handle.readable().await else { return Ending::Unknown };
            match rustix::process::waitid(WaitId::PidFd(self.handle.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                Ok(None) => ready.clear_ready(),
                Ok(Some(status)) => {
                    let code = status.exit_status();
                    return match (code.map(|code| (code, Exit::from_code(code))), status.terminating_signal()) {
                        (Some((_, Some(exit))), _) => Ending::Exit(exit),
                        // A shell's convention for a child's death by a signal: the outer process of a runner passes it on so.
                        (Some((code @ 129..=192, None)), _) => Ending::Signal(code - 128),
                        (Some((code, None)), _) => Ending::Code(code),
                        (None, Some(signal)) => Ending::Signal(signal),
                        (None, None) => Ending::Unknown,
                    };
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Ending::Unknown,
            }
        }
    }
}

/// Killed children that had not ended when they were dropped. They are as many as were started since the last [`sweep`].
static DYING: Mutex<Vec<Arc<OwnedFd>>> = Mutex::new(Vec::new());

/// Reaps killed children that have ended by now: zombies would remain.
pub(super) fn sweep() {
    DYING.lock().retain(|handle| !is_reaped(handle));
}

fn is_reaped(handle: &OwnedFd) -> bool {
    let reaped = rustix::process::waitid(WaitId::PidFd(handle.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    // An error says that somebody else has.
    !matches!(reaped, Ok(None))
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        sweep();
        if !is_reaped(&self.handle) {
            DYING.lock().push(self.handle.clone());
        }
    }
}
