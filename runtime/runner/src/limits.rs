//! Every bound of a runner process, with unit and reason. Bounds of one version are in `selvedge_runtime::Limits`, those of
//! the crossing in `selvedge_runtime::protocol`.

use std::time::Duration;

pub use selvedge_runtime::protocol::{BLANK_ISOLATES, CODE_BYTES_MAX, blank_isolates_max, data_bytes_max};

/// What is left of [`data_bytes_max`] when nothing more may begin to grow, in bytes: V8 dies where it cannot have the little that it needs to end.
pub const DATA_LAST_BYTES: u64 = 256 << 20;
/// What an entry into JavaScript may add to the process beyond what its isolate may hold, in bytes: V8's own memory, such as
/// that of its compilers.
pub const DATA_MARGIN_BYTES: u64 = 128 << 20;
/// Isolates of one thread, blank ones aside. The edge decides which to unload before; 3 MiB each at least.
pub const ISOLATES_MAX: usize = 128;
/// How long after the last load a thread keeps more of them than [`BLANK_ISOLATES`].
pub const BLANK_ISOLATES_KEPT: Duration = Duration::from_secs(60);
/// Versions of which a thread holds an incomplete set of modules.
pub const LOADS_INCOMPLETE_MAX: usize = 16;
/// Bytes that all incomplete sets of modules of a thread may announce: two of the largest versions.
pub const LOADS_INCOMPLETE_BYTES_MAX: u64 = 2 * selvedge_runtime::protocol::MODULES_BYTES_MAX;
/// Invocations that a thread starts before it lets the running ones go on and writes what they have said.
pub const STARTS_PER_TURN_MAX: usize = 64;
/// Other messages that a thread takes in one turn, for the same reason.
pub const MESSAGES_PER_TURN_MAX: usize = 512;
/// Bytes of decoded messages that may wait for a thread; nothing more is read above it.
pub const INBOX_BYTES_MAX: usize = 4 << 20;
/// Bytes in the outbox above which lines of the log are dropped: a loop around `console.log` must not fill it.
pub const LOG_OUTBOX_BYTES_MAX: usize = 1 << 20;
/// Bytes in the outbox above which the edge is taken for dead. All its streams' credit is `STREAMS_MAX * CREDIT_MAX`, four times
/// as much, but a thread takes nothing new above `protocol::OUTBOX_BYTES_MAX`.
pub const OUTBOX_ABANDON_BYTES: usize = 256 << 20;
/// Reads from a socket in one turn, of `protocol::READ_BYTES` each, before what they brought is attended to.
pub const READS_PER_TURN_MAX: usize = 4;
/// Stack of a JavaScript thread, in bytes: V8 takes about 1 MiB of it, its parser and our own frames need some more.
pub const STACK_BYTES: usize = 8 << 20;
/// Threads of a JavaScript thread's blocking pool (`crypto.subtle`): they belong to nobody, so few.
pub const BLOCKING_THREADS_MAX: usize = 2;
/// Rounds over the isolates that were woken, in one turn.
pub const POLL_ROUNDS_MAX: usize = 4;
/// How long nothing must have been loaded before a thread makes the next blank isolate: it stands still for 3 ms then, and
/// right after a cold start it has better things to do.
pub const REFILL_AFTER: Duration = Duration::from_millis(5);
/// An isolate's memory is measured again after so long at the earliest (it costs about a microsecond).
pub const HEAP_LOOK_AFTER: Duration = Duration::from_millis(1);
/// A thread that has held one turn so long is looked at every [`TICK`], and so is the memory that it holds outside its heap.
pub const LOOK_AFTER: Duration = Duration::from_millis(2);
/// A thread that has held one turn so long is busy: what has not started on it is given back to the edge.
pub const BUSY_AFTER: Duration = Duration::from_millis(10);
/// How often the watchdog looks at a thread that is in a long turn, and repeats a termination.
pub const TICK: Duration = Duration::from_millis(1);
/// CPU time of a thread between two wake-ups of the watchdog: short enough to be there before [`BUSY_AFTER`]. An idle
/// thread causes none.
pub const CPU_ALARM: Duration = Duration::from_millis(4);
/// The watchdog's beat while all threads are idle.
pub const HEARTBEAT: Duration = Duration::from_millis(250);
/// A termination that is not obeyed for so long is reported to the edge as `Stuck`.
pub const STUCK_AFTER: Duration = Duration::from_millis(50);
/// Thread CPU time of an isolate's entries into JavaScript that belong to no invocation, in [`BACKGROUND_PERIOD`] and beyond what its
/// invocations use: finalizers, promises of the module itself, and V8's own tasks, of which the end of a garbage collection of a full
/// heap is the longest. No limit of an invocation ends a loop there.
pub const BACKGROUND_CPU: Duration = Duration::from_millis(400);
/// In so long it grows from nothing to [`BACKGROUND_CPU`] again.
pub const BACKGROUND_PERIOD: Duration = Duration::from_secs(10);
/// Thread CPU time of dropping an isolate: tearing down the largest heap takes tens of milliseconds.
pub const TEARDOWN_CPU: Duration = Duration::from_millis(1000);
/// Thread CPU time of one turn outside of JavaScript, after which something of ours loops.
pub const TURN_CPU: Duration = Duration::from_millis(2000);
/// Wall time of loading a version, a top-level `await` included.
pub const LOAD_WALL: Duration = Duration::from_secs(10);
/// Spans of a thread's time up to this are charged by the monotonic clock (27 ns to read), longer ones by the thread's CPU
/// clock (0.8 µs to read on a virtual machine): a preemption is never charged, and a short span never undercharged.
pub const SPAN_EXACT_AFTER: Duration = Duration::from_micros(100);
/// How far V8's own limit of a heap lies above that of the version, in bytes. The version's is looked at after each full collection
/// and at the end of each entry, exactly; V8's own counts its young generation, too (a heap of 128 MiB was full at 112), and near it V8
/// collects again and again before it gives up, which takes hundreds of milliseconds.
pub const HEAP_MARGIN_BYTES: usize = 32 << 20;
/// What V8's own compilers and parsers may hold of an isolate before it counts as the worker's, in bytes: a large script takes 2 MiB.
pub const OWN_BYTES_FREE: u64 = 8 << 20;
/// What a near-heap-limit callback adds to the limit, in bytes, so that V8 reaches the point where it sees the termination
/// instead of aborting.
pub const HEAP_GRACE_BYTES: usize = 32 << 20;
/// How often a limit is raised so; beyond it the process dies of memory, and the edge replaces it.
pub const HEAP_GRACES_MAX: u32 = 3;
/// Pages (64 KiB) of one wasm memory: as many bytes as an isolate may have outside its heap by default.
pub const WASM_PAGES_MAX: u32 = 2048;
/// Threads that the sandbox's proof looks for. A new process of its own pid namespace numbers them from 1.
pub const PROOF_THREADS_MAX: i32 = 1024;
/// How long a thread may take to answer the proof's signal.
pub const PROOF_WAIT: Duration = Duration::from_secs(5);
/// Timers of one isolate that may wait at once; another throws a `RangeError`.
pub const TIMERS_MAX: usize = 10_000;
/// The longest delay of a timer, in milliseconds: as in browsers, 2^31 - 1.
pub const TIMER_DELAY_MS_MAX: f64 = 2_147_483_647.0;
/// The shortest period of an interval: one of 0 would spin.
pub const TIMER_PERIOD_MIN: Duration = Duration::from_millis(1);
/// Timers that one poll of an isolate runs before others get their turn.
pub const TIMERS_PER_POLL_MAX: usize = 64;
/// Completed operations of the engine that one poll of an isolate hands over.
pub const READY_PER_POLL_MAX: usize = 64;
/// Unhandled rejections that are remembered in one turn; more are dropped.
pub const REJECTIONS_MAX: usize = 256;
/// Rounds of unhandled rejections in one turn: a handler of them may reject promises in turn.
pub const REJECTION_ROUNDS_MAX: usize = 8;
/// Bytes of one line of the log; longer ones are cut. What an operator reads, not what a worker ships data with.
pub const LOG_LINE_BYTES_MAX: usize = 16 << 10;
/// Frames that are looked through for the one that called `console`: those of its own functions come first, and they are few.
pub const CALLER_FRAMES_MAX: usize = 16;
/// Bytes of that place.
pub const PLACE_BYTES_MAX: usize = 512;
/// Bytes of an exception's text, for the same reason.
pub const EXCEPTION_BYTES_MAX: usize = 16 << 10;
/// Causes of causes that are shown of an exception.
pub const EXCEPTION_CAUSES_MAX: usize = 4;
/// Frames that are shown of one stack.
pub const EXCEPTION_FRAMES_MAX: usize = 32;
/// Consumed bytes of a body that are not given back as credit at once, so that small chunks do not cost a message each.
pub const CREDIT_BATCH_BYTES: u32 = selvedge_runtime::protocol::INITIAL_CREDIT / 4;

#[cfg(test)]
mod tests {
    use selvedge_runtime::protocol::{HELD_BYTES_PER_THREAD, LINKS_MAX, versions_per_link};

    use super::*;

    #[test]
    fn the_room_for_machine_code_of_all_isolates_is_within_the_data_limit_whatever_the_threads() {
        for threads in 1..=LINKS_MAX {
            let versions = versions_per_link(threads) as u64;
            let code = threads as u64 * (versions + blank_isolates_max(threads) as u64) * CODE_BYTES_MAX as u64;
            assert!(data_bytes_max(threads) >= code + DATA_LAST_BYTES + threads as u64 * HELD_BYTES_PER_THREAD, "{threads} threads");
        }
        assert_eq!(data_bytes_max(2), 3 << 30);
    }
}
