//! Every bound of the supervisor, with unit and reason. Those of a version are in [`crate::Limits`], those of a link in
//! [`crate::protocol`].

use std::time::Duration;

/// How often the edge looks at the board and at wall limits: a limit is noticed at most this late.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// A tick that comes this late says that the machine is overloaded (or was asleep): silence of a runner then means nothing.
pub(super) const TICK_LATE: Duration = Duration::from_millis(200);
/// A runner whose watchdog has been silent for so long is taken for frozen. The watchdog beats each few milliseconds.
pub(super) const HEARTBEAT_LOSS: Duration = Duration::from_secs(1);
/// From giving up on a runner to SIGKILL: what runs on its other threads may end meanwhile.
pub(super) const KILL_DELAY: Duration = Duration::from_millis(100);
/// What was written before a runner's death is still read, but not for longer.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(100);
/// From `Cancel` to `Done`, when the thread is free.
pub(super) const CANCEL_GRACE: Duration = Duration::from_secs(1);
/// The same while the thread is held by others, or, beyond its CPU limit, by the cancelled one itself, whose client has gone: after it the
/// runner is taken for stuck all the same. One turn of others does not count, up to this beyond what all who run there may compute.
pub(super) const CANCEL_GRACE_MAX: Duration = Duration::from_secs(10);
/// An isolate that holds its thread for longer is busy: nothing is started there. The runner's watchdog has the same figure.
pub(super) const BUSY_NS: u64 = 10_000_000;

/// From exec to the last link's `Hello`: a debug build on a loaded machine needs seconds.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(20);
/// From the last piece of a version to `Loaded`, in wall time: more than the runner's own limit, so that its word comes first.
pub(super) const LOAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Between failed attempts to start a standby: doubled each time.
pub(super) const SPAWN_BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest of them.
pub(super) const SPAWN_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Failed attempts until `Supervisor::start` gives up.
pub(super) const FIRST_SPAWN_ATTEMPTS: u32 = 3;
/// From taking the standby to starting the next one, unless somebody waits for it: a new process computes for 100 ms and more, and whoever
/// took the last one has a request to answer.
pub(super) const STANDBY_REST: Duration = Duration::from_millis(30);
/// How much less urgent than the edge a standby is while it starts and nobody waits for it (nice(2)): a tenth of its share.
pub(super) const STANDBY_NICER: i32 = 10;
/// How long placing a version waits for a standby.
pub(super) const STANDBY_WAIT: Duration = Duration::from_secs(5);

/// What the cgroup of a runner may hold beyond its `RLIMIT_DATA`, in bytes: that counts neither the pages of the program and its snapshot,
/// nor the stack, page tables, the buffers of sockets, and the process that waits for it. Only what is none of these comes near it.
pub(super) const CGROUP_MARGIN_BYTES: u64 = 256 << 20;
/// Runner processes beside the standby: each takes 30 MiB and more.
pub(super) const RUNNERS_MAX: usize = 16;
/// Runner processes of one class (a cordon's proven versions, say).
pub(super) const RUNNERS_PER_CLASS_MAX: usize = 8;
/// Links that one version is loaded on.
pub(super) const PLACEMENTS_PER_VERSION_MAX: usize = 16;
/// Versions that the supervisor remembers, loaded or not.
pub(super) const VERSIONS_MAX: usize = 4096;
/// A version that nobody asked for in this time is unloaded.
pub(super) const IDLE_VERSION_AFTER: Duration = Duration::from_secs(600);
/// One of several places of a version that got no invocation in this time is given up.
pub(super) const IDLE_SPREAD_AFTER: Duration = Duration::from_secs(60);
/// A runner without versions is ended after this time.
pub(super) const IDLE_RUNNER_AFTER: Duration = Duration::from_secs(60);
/// How often idle versions and runners are looked for.
pub(super) const IDLE_SWEEP: Duration = Duration::from_secs(5);
/// Running invocations of a version on one link, above which it is loaded on a further one.
pub(super) const SPREAD_RUNNING: usize = 128;

/// Invocations of one version that wait for a place.
pub(super) const WAITING_PER_VERSION_MAX: usize = 512;
/// How long an invocation waits for a place: a late 503 helps nobody, but a cold start on a loaded machine takes its time.
pub(super) const PLACE_WAIT_MAX: Duration = Duration::from_secs(20);
/// How long it waits for a thread, where its version is loaded and all its threads are busy: in a burst. In a standing queue it is
/// [`crate::limits::STANDING_WAIT`].
pub(super) const BUSY_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often an invocation that found all threads busy looks again.
pub(super) const BUSY_POLL: Duration = Duration::from_millis(5);
/// What clients are told when trying again makes sense.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// CPU time without an incident that ends a version's probation, in microseconds.
pub(super) const PROBATION_CPU_US: u64 = 1_000_000;
/// An invocation that used more CPU time makes its version a heavy one: it runs apart from light ones. In microseconds.
pub(super) const HEAVY_CPU_US: u64 = 50_000;
/// Points for an incident that took a runner with it (SIGKILL by the ladder, out of memory).
pub(super) const POINTS_RUNNER_LOST: u32 = 10;
/// Points for one that the runner contained (a CPU or heap limit).
pub(super) const POINTS_CONTAINED: u32 = 1;
/// From so many points a version has a runner of its own ...
pub(super) const POINTS_ALONE: u32 = 10;
/// ... without a JIT compiler ...
pub(super) const POINTS_JITLESS: u32 = 30;
/// ... and does not run any more.
pub(super) const POINTS_DISABLED: u32 = 50;
/// One contained incident is forgotten in this time.
pub(super) const POINT_FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

/// A version that could not be loaded is not tried again for this time, doubled each time.
pub(super) const LOAD_RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest of them.
pub(super) const LOAD_RETRY_MAX: Duration = Duration::from_secs(60);

/// Lines of the log of one invocation, or of one version on one link outside of any: a loop around `console.log` must not fill the node's.
pub(super) const LOG_LINES_MAX: u32 = 1000;
/// Bytes of them.
pub(super) const LOG_BYTES_MAX: usize = 256 << 10;
/// Bytes that may wait for a runner that does not read, beyond which it is given up: bodies, answers and new work wait from [`OUTBOX_BYTES_MAX`] on at the
/// latest, and of what is said at once (a cancel, credit, the end of a body) an honest runner causes no more than half of this.
///
/// [`OUTBOX_BYTES_MAX`]: crate::protocol::OUTBOX_BYTES_MAX
pub(super) const OUTBOX_ABANDON_BYTES: usize = 64 << 20;
/// Bytes that the calls of one link may make the edge hold: heads and whole bodies of what is asked, and of answers that the runner does not take yet.
/// As much as four bodies of 64 KiB of each of its invocations; more are refused.
pub(super) const CALLS_BYTES_MAX: usize = 256 << 20;
/// The share of it that one version may take, so that the others of its link find room: a quarter.
pub(super) const CALLS_BYTES_PER_VERSION_MAX: usize = CALLS_BYTES_MAX / 4;
/// Redirects of one subrequest (Fetch standard, HTTP-redirect fetch).
pub(super) const REDIRECTS_MAX: u32 = 20;
/// Chunks of a body shorter than this are joined while they wait: a hostile runner's one-byte chunks take no more memory.
pub(super) const JOIN_BYTES: usize = 4096;
/// How long `shutdown` waits for a runner to be gone after SIGKILL.
pub(super) const DEAD_WAIT: Duration = Duration::from_secs(5);
/// From the end of a link to the end of its runner.
pub(super) const LINKLESS_WAIT: Duration = Duration::from_millis(500);
