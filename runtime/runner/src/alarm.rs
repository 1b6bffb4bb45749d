//! CPU clocks of threads, and the signals that they send as they advance.

use std::io;
use std::time::Duration;

/// The CPU clock of one thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    /// The calling thread's.
    pub(crate) fn of_this_thread() -> io::Result<Self> {
        let mut clock = 0;
        // SAFETY: the thread is alive: it is this one.
        match unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) } {
            0 => Ok(Self(clock)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// How much the thread has computed, in nanoseconds. The same clock as `CLOCK_THREAD_CPUTIME_ID` on that thread.
    pub(crate) fn now_ns(self) -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes into a local. Threads of a runner live as long as it does.
        unsafe { libc::clock_gettime(self.0, &mut time) };
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}

/// Wakes one thread, as others use CPU time.
pub(crate) struct Alarms {
    signal: libc::sigset_t,
}

impl Alarms {
    /// For the calling thread. Threads that it starts from here on leave the signal to it.
    pub(crate) fn for_this_thread() -> io::Result<Self> {
        // SAFETY: a set of this thread's own; the calls initialise it.
        unsafe {
            let mut signal: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut signal);
            libc::sigaddset(&mut signal, libc::SIGRTMIN());
            match libc::pthread_sigmask(libc::SIG_BLOCK, &signal, std::ptr::null_mut()) {
                0 => Ok(Self { signal }),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        }
    }

    /// Lets a thread's clock send the signal to the calling thread, each time it has advanced by `period`.
    pub(crate) fn add(&self, clock: ThreadClock, period: Duration) -> io::Result<()> {
        let period = libc::timespec { tv_sec: 0, tv_nsec: i64::from(period.subsec_nanos()) };
        // SAFETY: an all-zero sigevent is valid; the thread id is this thread's; the timer lives as long as the process.
        let done = unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = libc::SIGRTMIN();
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer: libc::timer_t = std::ptr::null_mut();
            let every = libc::itimerspec { it_interval: period, it_value: period };
            libc::timer_create(clock.0, &mut event, &mut timer) == 0 && libc::timer_settime(timer, 0, &every, std::ptr::null_mut()) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits for a signal, but no longer than `most`.
    pub(crate) fn wait(&self, most: Duration) {
        let most = libc::timespec { tv_sec: most.as_secs() as i64, tv_nsec: i64::from(most.subsec_nanos()) };
        // SAFETY: reads locals only. Whether a signal came or time is up makes no difference.
        unsafe { libc::sigtimedwait(&self.signal, std::ptr::null_mut(), &most) };
    }
}
