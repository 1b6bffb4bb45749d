//! How urgent a runner is while it starts: one that nobody waits for computes for 100 ms and more, which requests shall not notice. As soon as it is
//! ready, or somebody waits for it, it is as urgent as the edge.

use std::io;
use std::sync::mpsc;

use super::limits::STANDBY_NICER;
use super::tasks;

/// Whether a process that was made nicer can be made as urgent as the edge again. That takes `CAP_SYS_NICE` or an `RLIMIT_NICE` (`LimitNICE=+0` in a
/// systemd unit), and only trying tells; where it cannot, runners start as urgent as anything else.
pub(super) fn can_be_raised() -> io::Result<bool> {
    let (said, heard) = mpsc::channel();
    tasks::thread("selvedge-nice", move || {
        let nice = of_this_thread();
        // A priority is a thread's own on Linux: this one ends with it.
        let _ = said.send(set(0, nice + STANDBY_NICER).and_then(|()| set(0, nice)).is_ok());
    })?;
    Ok(heard.recv().unwrap_or(false))
}

/// Makes all threads of these processes as urgent as this one is.
pub(super) fn raise(processes: [u32; 2]) {
    let nice = of_this_thread();
    // Again for those that were made while the first round went on.
    for process in processes.into_iter().chain(processes) {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { continue };
        let threads = threads.flatten().filter_map(|thread| thread.file_name().to_str()?.parse().ok());
        for thread in threads {
            // One that has ended needs nothing.
            let _ = set(thread, nice);
        }
    }
}

fn of_this_thread() -> i32 {
    // SAFETY: no pointers. Every thread has a priority, so that there is no failure to tell from -1.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// Of one thread; 0: the caller.
fn set(thread: libc::id_t, nice: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, nice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
