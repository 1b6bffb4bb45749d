//! How a runner ends: with a line on stderr, and with an exit code that tells the edge whether memory was the reason.

use std::cell::OnceCell;
use std::ffi::{CStr, c_char};

use deno_core::v8;
use selvedge_runtime::protocol::Area;
pub(crate) use selvedge_runtime::protocol::exit::Exit;

/// What must still be allocatable for a death not to be one of memory, in bytes: more than V8 or a worker asks for at once
/// before it has been stopped by its own limits.
const PROBE_BYTES: usize = 160 << 20;

thread_local! {
    /// Where this thread notes that it was the one that ran out of memory.
    static AREA: OnceCell<Area> = const { OnceCell::new() };
}

/// The calling thread serves the link with this area.
pub(crate) fn speak_for(area: Area) {
    AREA.with(|place| _ = place.set(area));
}

/// Notes on the board that memory ran out on this thread. Safe in a signal's handler: [`speak_for`] has made the place.
fn note_memory() {
    AREA.with(|place| {
        if let Some(area) = place.get() {
            area.runs_out_of_memory();
        }
    });
}

/// Ends the process at once, whatever its threads do.
pub(crate) fn end(exit: Exit, why: &str) -> ! {
    if !why.is_empty() {
        eprintln!("runner: {exit:?}: {why}");
    }
    // SAFETY: no destructor of this process matters to anybody, and V8's threads must not run during theirs.
    unsafe { libc::_exit(exit.code().into()) }
}

/// From here on a panic ends the process, and so does what aborts it, but not what a terminal or a service manager sends to
/// the whole group: the edge drains first, and ends its runners itself.
pub(crate) fn install() {
    for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGTERM] {
        // SAFETY: no handler is installed.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        end(Exit::Internal, "a panic");
    }));
    for signal in [libc::SIGABRT, libc::SIGILL, libc::SIGTRAP] {
        // SAFETY: an all-zero sigaction is valid; the handler calls only what is safe in one.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_abort as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_ONSTACK | libc::SA_RESETHAND;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// V8's last call before it aborts for want of memory. Set on each isolate.
pub(crate) unsafe extern "C" fn on_out_of_memory(location: *const c_char, details: &v8::OomDetails) {
    let text = |text: *const c_char| {
        if text.is_null() {
            return "".into();
        }
        // SAFETY: V8 gives strings that end with a zero byte.
        unsafe { CStr::from_ptr(text) }.to_string_lossy()
    };
    note_memory();
    end(Exit::Memory, &format!("V8 is out of memory: {} {}", text(location), text(details.detail)));
}

/// A failed allocation outside of V8's heap ends in an abort. Where there is no memory left, it says so.
extern "C" fn on_abort(_signal: libc::c_int) {
    // SAFETY: only system calls, which are safe in a signal's handler. Returning runs into the default action: the
    // handler is reset, and abort() or the trapping instruction is met again.
    unsafe {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        if libc::mmap(std::ptr::null_mut(), PROBE_BYTES, protection, flags, -1, 0) == libc::MAP_FAILED {
            note_memory();
            let words = b"runner: Memory: an allocation failed\n";
            libc::write(2, words.as_ptr().cast(), words.len());
            libc::_exit(Exit::Memory.code().into());
        }
    }
}
