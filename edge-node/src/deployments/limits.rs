//! Every bound of following the registry, with unit, default and reason.

use std::time::Duration;

/// First wait before the feed is opened again.
pub const RECONNECT_MIN: Duration = Duration::from_millis(200);
/// Longest wait: a registry that was away for long finds its nodes back within this time.
pub const RECONNECT_MAX: Duration = Duration::from_secs(10);
/// Wait after the registry refused the node for a reason that time may cure, such as a clock that is wrong.
pub const REFUSED_WAIT: Duration = Duration::from_secs(30);

/// A report goes out at least this often: the registry calls a node offline after 15 s.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// From one report to the next, at least: while thousands of workers become active or are refused, not each of them makes one. A deployment's end is
/// the first report after a while, and does not wait.
pub const REPORT_SPACING: Duration = Duration::from_millis(20);
/// Characters of a reason in a report.
pub const REASON_CHARS_MAX: usize = 1_000;

/// Workers that are fetched and warmed at the same time: each may hold a bundle of 64 MiB.
pub const ACTIVATIONS_MAX: usize = 4;
/// Modules of one bundle that are fetched at the same time.
pub const PULLS_MAX: usize = 8;
/// First and longest wait before a deployment is tried again where the reason was not its own: the registry was away, a runner died, there was no room.
pub const ACTIVATE_RETRY_MIN: Duration = Duration::from_millis(500);
/// See [`ACTIVATE_RETRY_MIN`].
pub const ACTIVATE_RETRY_MAX: Duration = Duration::from_secs(30);
/// Loads of one deployment that may end with their runner, with nothing but failures between them, before it is refused: who ended a runner in silence cannot be
/// told, but one that ends each of them takes along what its neighbours run there.
pub const LOADS_LOST_MAX: u32 = 5;
/// The isolates of a version that takes no more traffic are kept this long: requests that began with the old routes may still want it, and a
/// rollback finds it warm.
pub const RETIRE_AFTER: Duration = Duration::from_secs(30);
/// Route tables are made at most this often while many workers become active.
pub const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes of blobs kept on disk that no version names any more: a rollback finds them.
pub const UNNAMED_BLOB_BYTES_MAX: u64 = 256 << 20;
/// How often unnamed blobs are looked for.
pub const COLLECT_INTERVAL: Duration = Duration::from_secs(60);
/// A change of what is wanted waits this long for the activation that follows, so that one write of the state does for both.
pub const SAVE_DELAY: Duration = Duration::from_millis(250);
/// First and longest wait before the state is written again where it could not be: a disk that is full.
pub const SAVE_RETRY_MIN: Duration = Duration::from_millis(500);
/// See [`SAVE_RETRY_MIN`].
pub const SAVE_RETRY_MAX: Duration = Duration::from_secs(30);
/// Bytes of the state file; twice the registry's bound for a snapshot.
pub const STATE_BYTES_MAX: u64 = 2 * selvedge_origin::limits::FEED_LINE_BYTES_MAX as u64;
/// Bytes of the identity file.
pub const IDENTITY_BYTES_MAX: u64 = 16 << 10;
/// Bytes of the purges' file.
pub const JOURNAL_BYTES_MAX: u64 = 64 << 20;
/// The purges' file is written anew, without what later purges say too, when it has grown by this many bytes.
pub const JOURNAL_REWRITE_BYTES: u64 = 8 << 20;
/// Entries of the log that are taken in together: one sync of the purges' file does for all.
pub const ENTRIES_TOGETHER_MAX: usize = 256;
/// First and longest wait before an acknowledgement is sent again that did not arrive.
pub const ACKNOWLEDGE_RETRY_MIN: Duration = Duration::from_millis(50);
/// See [`ACKNOWLEDGE_RETRY_MIN`].
pub const ACKNOWLEDGE_RETRY_MAX: Duration = Duration::from_secs(5);
/// Purges of workers that are on their way to the registry at the same time; more are refused.
pub const WORKER_PURGES_MAX: usize = 64;
/// Of one worker: its neighbours have theirs.
pub const PURGES_OF_A_WORKER_MAX: usize = 8;
/// How long a worker's purge may take until it is durable, with all attempts.
pub const WORKER_PURGE_WAIT: Duration = Duration::from_secs(10);
/// How often the registry is asked for one where it could not be reached.
pub const WORKER_PURGE_ATTEMPTS_MAX: u32 = 3;
/// Wait between those attempts.
pub const WORKER_PURGE_RETRY_WAIT: Duration = Duration::from_millis(250);
/// After a worker's purge is durable: how long its call waits until this node has applied it.
pub const WORKER_PURGE_APPLY_WAIT: Duration = Duration::from_secs(2);
/// Questions of operators that wait for their turn; more are not answered.
pub const QUESTIONS_WAITING_MAX: usize = 8;
/// How long an answer may take: a look at the cache takes less than a millisecond, one at a disk that is slow half a second, and a request may be looked for in three places.
pub const QUESTION_TIMEOUT: Duration = Duration::from_secs(3);
/// Feed lines longer than this are checked on a thread that may block.
pub const LINE_BYTES_INLINE: usize = 256 << 10;
