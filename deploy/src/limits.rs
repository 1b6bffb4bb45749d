//! Every bound of the commands, with unit and reason.

use std::time::Duration;

/// Bytes of a configuration file (`wrangler.*`, `.dev.vars`, a site file). Real ones have a few kilobytes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Nesting of a JSON configuration file: its parser recurses, and a deeper file is no configuration.
pub const CONFIG_DEPTH_MAX: usize = 64;

/// Variables of a `.dev.vars` file.
pub const DEV_VARS_MAX: usize = 1_024;

/// Files that `dev` watches: the inputs of one bundle.
pub const WATCHED_FILES_MAX: usize = 20_000;

/// How much older than it is a file's time may be: clocks of file systems tick, some in whole seconds.
pub const WATCH_DOUBT: Duration = Duration::from_secs(1);

/// How often `dev` looks at the times of the watched files. A look at 1,000 files takes about 2 ms.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// How long `dev` waits for an editor to finish writing before it bundles.
pub const WATCH_SETTLE: Duration = Duration::from_millis(30);

/// One long poll for the nodes' state, in milliseconds; the command asks again until its own `--wait` is over.
pub const NODES_POLL_MS: u64 = 5_000;

/// How long to wait for a first node where the origin has heard of none: a node that is just joining reports within it.
pub const FIRST_NODE_GRACE: Duration = Duration::from_secs(5);

/// From one look at how far the nodes are with an entry to the next, first and at most: each look is at all of them.
pub const LOOK_MIN: Duration = Duration::from_millis(100);
/// See [`LOOK_MIN`].
pub const LOOK_MAX: Duration = Duration::from_secs(1);

/// How much longer than its wait one answer may take: an origin that does not answer at all must not hold a command.
pub const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// `--wait` at most: longer waits belong into a script.
pub const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// How long `dev` and `demo` wait for one of their own parts to answer.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a child of `demo` has to end after SIGTERM before it is killed.
pub const CHILD_STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// How long `demo` waits for one answer.
pub const DEMO_ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes of an answer that `demo` reads.
pub const DEMO_BODY_BYTES_MAX: usize = 1 << 20;
