//! The runner tries what it must not be able to do, on each of its threads: a signal's handler runs on the very thread that
//! it was sent to, also on those of V8's platform, which run no code of ours otherwise.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Instant;

use crate::limits::{PROOF_THREADS_MAX, PROOF_WAIT};

/// What V8 calls the threads of its platform (`v8/src/libplatform/default-worker-threads-task-runner.cc`), as far as the
/// kernel keeps names (15 bytes).
const PLATFORM_THREAD_NAME: &[u8] = b"V8 DefaultWork";

/// What one thread could do: 0, or the error's number.
struct Attempt {
    root: AtomicI32,
    file: AtomicI32,
    unix_socket: AtomicI32,
    inet_socket: AtomicI32,
    execve: AtomicI32,
    of_platform: AtomicI32,
    /// The thread that has made it: set last.
    thread: AtomicI32,
}

static ATTEMPT: Attempt = Attempt {
    root: AtomicI32::new(0),
    file: AtomicI32::new(0),
    unix_socket: AtomicI32::new(0),
    inet_socket: AtomicI32::new(0),
    execve: AtomicI32::new(0),
    of_platform: AtomicI32::new(0),
    thread: AtomicI32::new(0),
};

/// Before there is a filter: no file can be opened on any thread; with Landlock not even the empty root.
pub(super) fn walls(namespaced: bool, landlocked: bool) -> Result<(), String> {
    if !namespaced {
        return Err("there is no root of its own to prove".into());
    }
    each_thread(namespaced, |thread, attempt| {
        if attempt.file.load(Ordering::Relaxed) == 0 {
            return Err(format!("thread {thread} opened a file"));
        }
        if landlocked && attempt.root.load(Ordering::Relaxed) == 0 {
            return Err(format!("thread {thread} is older than its landlock: it opened the root"));
        }
        Ok(())
    })
}

/// With the filter: open, socket and execve are refused with EPERM, which only the filter says.
pub(super) fn filter(namespaced: bool) -> Result<(), String> {
    each_thread(namespaced, |thread, attempt| {
        let calls = [
            ("open", &attempt.root),
            ("open", &attempt.file),
            ("socket", &attempt.unix_socket),
            ("socket", &attempt.inet_socket),
            ("execve", &attempt.execve),
        ];
        match calls.iter().find(|(_, errno)| errno.load(Ordering::Relaxed) != libc::EPERM) {
            None => Ok(()),
            Some((call, errno)) => Err(format!("{call} is not refused on thread {thread} (error {})", errno.load(Ordering::Relaxed))),
        }
    })
}

fn each_thread(namespaced: bool, judge: impl Fn(i32, &Attempt) -> Result<(), String>) -> Result<(), String> {
    install(libc::SIGUSR1, handler as extern "C" fn(libc::c_int) as libc::sighandler_t)?;
    let begun = Instant::now();
    loop {
        let (threads, of_platform) = ask_all(namespaced, &judge)?;
        if threads > 1 && of_platform > 0 {
            break;
        }
        // A thread gives itself its name as the first thing that it does, which may take a while on a busy machine.
        if begun.elapsed() > PROOF_WAIT {
            return Err(format!("{threads} threads were found, {of_platform} of V8's platform: there must be some"));
        }
        std::thread::yield_now();
    }
    install(libc::SIGUSR1, libc::SIG_IGN)
}

/// Makes the attempt on all threads; how many there are, and how many are of V8's platform.
fn ask_all(namespaced: bool, judge: &impl Fn(i32, &Attempt) -> Result<(), String>) -> Result<(usize, usize), String> {
    let process = std::process::id() as i32;
    let (mut threads, mut of_platform) = (0, 0);
    for thread in threads_of(process, namespaced)? {
        if try_on(process, thread)? {
            judge(thread, &ATTEMPT)?;
            threads += 1;
            of_platform += usize::from(ATTEMPT.of_platform.load(Ordering::Relaxed) != 0);
        }
    }
    Ok((threads, of_platform))
}

/// The threads that may exist. In a pid namespace of its own, numbers count from 1 and this process has the first ones. Elsewhere
/// they cannot be known: `/proc` is behind the filter.
fn threads_of(process: i32, namespaced: bool) -> Result<std::ops::RangeInclusive<i32>, String> {
    if namespaced && process == 1 { Ok(1..=PROOF_THREADS_MAX) } else { Err("there is no pid namespace to find threads in".into()) }
}

/// Makes the attempt on a thread; false where there is no such thread.
fn try_on(process: i32, thread: i32) -> Result<bool, String> {
    ATTEMPT.thread.store(0, Ordering::Release);
    // SAFETY: a signal with a handler, to a thread of this process.
    if unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1) } != 0 {
        return match std::io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            error => Err(format!("thread {thread} cannot be asked: {error}")),
        };
    }
    let begun = Instant::now();
    while ATTEMPT.thread.load(Ordering::Acquire) != thread {
        if begun.elapsed() > PROOF_WAIT {
            return Err(format!("thread {thread} did not answer"));
        }
        std::thread::yield_now();
    }
    Ok(true)
}

fn install(signal: libc::c_int, action: libc::sighandler_t) -> Result<(), String> {
    // SAFETY: an all-zero sigaction is valid; the handler calls only what is safe in one.
    let done = unsafe {
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = action;
        new.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigaction(signal, &new, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().to_string()) }
}

extern "C" fn handler(_signal: libc::c_int) {
    let directory = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let file = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: only system calls and atomics, which are safe in a signal's handler; errno is put back. `execve` gets an
    // empty path: where no filter refuses it, it fails with ENOENT and replaces nothing.
    unsafe {
        let errno = *libc::__errno_location();
        let none = std::ptr::null::<libc::c_char>();
        let arguments = [none];
        try_call(&ATTEMPT.root, libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/".as_ptr(), directory));
        try_call(&ATTEMPT.file, libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/proc/self/exe".as_ptr(), file));
        try_call(&ATTEMPT.unix_socket, libc::syscall(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0));
        try_call(&ATTEMPT.inet_socket, libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0));
        let executed = libc::syscall(libc::SYS_execve, c"".as_ptr(), arguments.as_ptr(), arguments.as_ptr());
        try_call(&ATTEMPT.execve, executed);
        let mut name = [0u8; 16];
        libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr());
        ATTEMPT.of_platform.store(i32::from(name.starts_with(PLATFORM_THREAD_NAME)), Ordering::Relaxed);
        *libc::__errno_location() = errno;
        ATTEMPT.thread.store(libc::syscall(libc::SYS_gettid) as i32, Ordering::Release);
    }
}

/// Notes what came of a call, and closes what it opened.
///
/// # Safety
/// `result` is what a call that gives a descriptor, or -1 and errno, has just returned.
unsafe fn try_call(into: &AtomicI32, result: libc::c_long) {
    // SAFETY: errno is this thread's; the descriptor was just made and nothing else knows it.
    unsafe {
        if result < 0 {
            into.store(*libc::__errno_location(), Ordering::Relaxed);
        } else {
            into.store(0, Ordering::Relaxed);
            libc::close(result as i32);
        }
    }
}
