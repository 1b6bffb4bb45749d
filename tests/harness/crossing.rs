//! When a worker crosses its limit, as the kernel sees it from outside: how late its answer comes is counted from there, on a machine that is busy, too,
//! where the worker itself has to wait for its CPU time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// CPU time of an invocation, by default.
pub const CPU: Duration = Duration::from_millis(200);
/// What a process has to hold more than before, in bytes: a little below the 128 MiB that a worker may have in its heap, and as much outside it, so that
/// the moment is seen early rather than late.
const HELD_BYTES: u64 = 124 << 20;
/// How often the kernel is asked.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// Below so much CPU time in so long, a process that starts has started.
const CALM: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// How long that may take.
const CALM_WAIT: Duration = Duration::from_secs(20);

/// What has to be reached.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// CPU time of one thread.
    pub cpu: Duration,
    /// Bytes that one process holds more than before.
    pub held_bytes: u64,
}

impl Default for Reach {
    fn default() -> Self {
        Self { cpu: CPU, held_bytes: HELD_BYTES }
    }
}

/// Watches the processes below one, from now on.
pub struct Crossing {
    stop: Arc<AtomicBool>,
    looking: JoinHandle<Option<Instant>>,
    begun: Instant,
    reach: Reach,
}

/// What the kernel counts: CPU of each thread, bytes of each process.
#[derive(Default)]
struct Counts {
    cpu: HashMap<(u32, String), Duration>,
    bytes: HashMap<u32, u64>,
}

impl Crossing {
    /// Waits until nothing runs below `root`: a standby that is just starting would look like a worker that computes.
    pub fn wait_until_calm(root: u32) {
        let deadline = Instant::now() + CALM_WAIT;
        let mut before = Counts::of(&descendants(root));
        loop {
            std::thread::sleep(CALM.1);
            let now = Counts::of(&descendants(root));
            if now.cpu.keys().all(|thread| before.cpu.contains_key(thread)) && now.ran_since(&before).sum::<Duration>() < CALM.0 {
                return;
            }
            assert!(Instant::now() < deadline, "something runs below {root} all the time");
            before = now;
        }
    }

    /// Begins to watch the processes that are below `root` now.
    pub fn watch(root: u32, reach: Reach) -> Self {
        let pids = descendants(root);
        let before = Counts::of(&pids);
        let stop = Arc::new(AtomicBool::new(false));
        let begun = Instant::now();
        let looking = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut last = begun;
                while !stop.load(Ordering::Relaxed) {
                    let at = Instant::now();
                    if Counts::of(&pids).are_beyond(&before, reach) {
                        // It was after the look before this one.
                        return Some(last);
                    }
                    last = at;
                    std::thread::sleep(LOOK_EVERY);
                }
                None
            }
        });
        Self { stop, looking, begun, reach }
    }

    /// The last moment at which no thread and no process had reached it, where the answer said `told`. Where none was seen to: the first at which it can have been;
    /// who used up its CPU time has run at least as long.
    pub fn moment(self, told: &str) -> Instant {
        self.stop.store(true, Ordering::Relaxed);
        let least = if told.contains("exceededCpu") { self.reach.cpu } else { Duration::ZERO };
        self.looking.join().expect("it does not panic").unwrap_or(self.begun + least)
    }
}

impl Counts {
    fn of(pids: &[u32]) -> Self {
        let mut counts = Self::default();
        for pid in pids {
            let first = |text: String, at: usize| text.split_whitespace().nth(at)?.parse::<u64>().ok();
            let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok().and_then(|text| first(text, 1));
            counts.bytes.extend(pages.map(|pages| (*pid, pages * 4096)));
            for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let ran = std::fs::read_to_string(task.path().join("schedstat")).ok().and_then(|text| first(text, 0));
                let thread = (*pid, task.file_name().to_string_lossy().into_owned());
                counts.cpu.extend(ran.map(|ran| (thread, Duration::from_nanos(ran))));
            }
        }
        counts
    }

    fn are_beyond(&self, before: &Self, reach: Reach) -> bool {
        let held = |(pid, now): (&_, &u64)| now.saturating_sub(before.bytes.get(pid).copied().unwrap_or_default());
        self.ran_since(before).any(|ran| ran >= reach.cpu) || self.bytes.iter().map(held).any(|held| held >= reach.held_bytes)
    }

    /// What each thread has run since.
    fn ran_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = Duration> + 'a {
        self.cpu.iter().map(|(thread, now)| now.saturating_sub(before.cpu.get(thread).copied().unwrap_or_default()))
    }
}

/// All processes below one.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        for task in std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        next += 1;
    }
    found.split_off(1)
}

/// Keeps every core busy until it is dropped.
pub struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    /// One thread for each core, which does nothing but run.
    pub fn all_cores() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let spin = |stop: Arc<AtomicBool>| {
            move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }
        };
        let threads = (0..cores).map(|_| std::thread::spawn(spin(stop.clone()))).collect();
        Self { stop, threads }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It ends at once, and says nothing.
            let _ = thread.join();
        }
    }
}
