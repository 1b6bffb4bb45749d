//! An edge in a cgroup that was given to it, and in ones that were not. Each is a process of its own, this program again: it moves itself.
//!
//! Where this machine has no unified hierarchy that we may write in, that is said, and there is nothing to look at; where it has no memory controller
//! there, as beside cgroups of the first version, nothing is bounded, and all else is looked at.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::FutureExt;
use selvedge_runtime::Outcome;
use selvedge_runtime::protocol::data_bytes_max;
use selvedge_runtime::supervisor::Supervisor;

use crate::stage::{self, Test, get, supervisor, until, worker};

/// What the program is told to be an edge to which its cgroup was given ...
pub(crate) const GIVEN: &str = "edge-given-its-cgroup";
/// ... and one to which it was not.
pub(crate) const NOT_GIVEN: &str = "edge-not-given-its-cgroup";
/// What the cgroup of a runner is bounded to while it takes more, in bytes.
const BOUND: &str = "67108864";
/// What the cgroup of a runner may hold beyond `RLIMIT_DATA`.
const MARGIN_BYTES: u64 = 256 << 20;
/// How long an edge of ours and its runners may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);

macro_rules! list {
    ($($name:ident)*) => { &[$((stringify!($name), || $name().boxed_local())),*] };
}

/// What holds where it was given. In this order: the first finds what was there before.
pub(crate) const DIVIDED: &[Test] = list! {
    what_a_killed_edge_has_left_is_removed_as_soon_as_nobody_is_in_it
    each_runner_is_in_a_leaf_beside_the_edges
    the_leaf_of_a_dead_runner_goes
    the_kernels_kill_is_the_outcome_of_who_took_the_memory
};

/// What holds where it was not.
pub(crate) const WHOLE: &[Test] = list! { runners_stay_in_the_cgroup_of_their_edge };

/// Plays tests as soon as the other process says that all is as they want it.
pub(crate) fn play(tests: &[Test]) {
    std::io::read_to_string(std::io::stdin()).expect("a pipe");
    stage::play(&[], tests);
}

pub(crate) async fn an_edge_divides_the_cgroup_that_it_was_given_and_no_other() {
    let Some(given) = Cgroup::make("given") else {
        return println!("no cgroup can be made here: nothing is looked at");
    };
    given.mark();
    for left in ["runner-3", "runner-5", "runner-x", "other"] {
        fs::create_dir(given.0.join(left)).expect("a cgroup");
    }
    let holder = Held::idle(&given.0.join("runner-5"));
    play_in(&given, GIVEN);
    drop(holder);
    assert!(given.0.join("other").exists() && given.0.join("runner-x").exists(), "these were nobody's");

    // The same folder, divided as it is now: the edge that comes after one that was killed is put into the leaf.
    fs::create_dir(given.0.join("runner-5")).expect("a cgroup");
    let holder = Held::idle(&given.0.join("runner-5"));
    play_in(&Cgroup(given.0.join("edge")), GIVEN);
    drop(holder);

    let shared = Cgroup::make("shared").expect("another");
    shared.mark();
    let neighbour = Held::idle(&shared.0);
    play_in(&shared, NOT_GIVEN);
    drop(neighbour);

    // What belongs to a user who is not root is that user's.
    if rustix::process::geteuid().is_root() {
        play_in(&Cgroup::make("unmarked").expect("a third"), NOT_GIVEN);
    }
}

/// A cgroup, removed with all in it.
struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes one below that of this process.
    fn make(name: &str) -> Option<Self> {
        let path = folder_of("self")?.join(format!("selvedge-test-{}-{name}", std::process::id()));
        fs::create_dir(&path).ok().map(|()| Self(path))
    }

    /// Gives it away, as systemd does.
    fn mark(&self) {
        rustix::fs::setxattr(&self.0, "user.delegate", b"1", rustix::fs::XattrFlags::empty()).expect("marked");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let begun = Instant::now();
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        while self.0.exists() && begun.elapsed() < GONE_WITHIN {
            let leaves = fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.path());
            leaves.filter(|path| path.is_dir()).chain([self.0.clone()]).for_each(|path| _ = fs::remove_dir(path));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A process of ours in a cgroup. It ends when its standard input does, or with this.
struct Held(Child);

impl Held {
    fn idle(cgroup: &Path) -> Self {
        Self::of(&mut Command::new("cat"), cgroup)
    }

    fn of(command: &mut Command, cgroup: &Path) -> Self {
        let child = command.stdin(Stdio::piped()).spawn().expect("a process");
        fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).expect("it is in the cgroup");
        Self(child)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn play_in(cgroup: &Cgroup, what: &str) {
    let program = std::env::current_exe().expect("this program");
    let mut edge = Held::of(Command::new(program).arg(what), &cgroup.0);
    edge.0.stdin.take();
    assert!(edge.0.wait().expect("it ends").success(), "{what}: see above");
}

/// The folder of a process's cgroup.
fn folder_of(process: &str) -> Option<PathBuf> {
    let cgroups = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    // "/" and nothing more joins as a trailing slash, which components do not count.
    Some(Path::new(mount.split(' ').nth(4)?).join(path).components().collect())
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).expect("a name")
}

fn subtree() -> PathBuf {
    folder_of("self").and_then(|leaf| leaf.parent().map(Path::to_owned)).expect("a cgroup above")
}

/// The number of a runner's leaf.
fn number_of(leaf: &Path) -> Option<u32> {
    name_of(leaf).strip_prefix("runner-")?.parse().ok()
}

fn numbers() -> Vec<u32> {
    let entries = fs::read_dir(subtree()).expect("a cgroup").flatten();
    entries.filter_map(|entry| number_of(&entry.path())).collect()
}

/// The process of the only runner that is no standby.
fn used(supervisor: &Supervisor) -> u32 {
    supervisor.runners().into_iter().find(|runner| runner.cordon.is_some()).expect("a runner").pid
}

fn kill(process: u32) {
    let process = rustix::process::Pid::from_raw(process as i32).expect("a process");
    rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("killed");
}

fn is_bounded() -> bool {
    subtree().join("edge/memory.max").exists()
}

async fn what_a_killed_edge_has_left_is_removed_as_soon_as_nobody_is_in_it() {
    let supervisor = supervisor().await;
    let own = folder_of("self").expect("a cgroup");
    assert_eq!(name_of(&own), "edge");
    assert!(!numbers().contains(&3) && numbers().contains(&5), "{:?}", numbers());
    let standby = supervisor.runners().first().expect("a standby").pid.to_string();
    assert!(number_of(&folder_of(&standby).expect("a cgroup")) > Some(5), "no name is used twice");
    let inside = fs::read_to_string(subtree().join("runner-5/cgroup.procs")).expect("a cgroup");
    inside.lines().for_each(|process| kill(process.parse().expect("a number")));
    // The watchdog looks every few seconds.
    until(|| !numbers().contains(&5)).await;
    supervisor.shutdown().await;
}

async fn each_runner_is_in_a_leaf_beside_the_edges() {
    let supervisor = supervisor().await;
    get(&supervisor, &worker("hello", "v1"), "hello").await.expect("an answer");
    until(|| supervisor.runners().len() == 2).await;
    let mut seen: Vec<PathBuf> = Vec::new();
    for runner in supervisor.runners() {
        let folder = folder_of(&runner.pid.to_string()).expect("a cgroup");
        assert!(folder.parent() == Some(&subtree()) && number_of(&folder).is_some() && !seen.contains(&folder), "{folder:?}");
        if is_bounded() {
            let told = |file: &str| fs::read_to_string(folder.join(file)).map(|text| text.trim().to_owned());
            assert_eq!(told("memory.max").expect("a bound"), (data_bytes_max(2) + MARGIN_BYTES).to_string());
            assert_eq!(told("memory.oom.group").expect("a flag"), "1");
            assert_eq!(told("memory.swap.max").unwrap_or("0".to_owned()), "0");
        }
        seen.push(folder);
    }
    supervisor.shutdown().await;
}

async fn the_leaf_of_a_dead_runner_goes() {
    let supervisor = supervisor().await;
    let source = worker("dies", "v1");
    get(&supervisor, &source, "hello").await.expect("an answer");
    let leaf = folder_of(&used(&supervisor).to_string()).expect("a cgroup");
    kill(used(&supervisor));
    until(|| !leaf.exists()).await;
    until(|| supervisor.counts().deaths_crash == 1).await;
    assert_eq!(supervisor.counts().deaths_memory, 0, "nobody inside is blamed");
    get(&supervisor, &source, "hello").await.expect("another runner");
    supervisor.shutdown().await;
}

async fn the_kernels_kill_is_the_outcome_of_who_took_the_memory() {
    if !is_bounded() {
        return println!("no memory controller here: nothing is bounded");
    }
    let (supervisor, other) = (supervisor().await, supervisor().await);
    let (source, neighbour) = (worker("shares", "v1"), worker("neighbour", "n1"));
    get(&supervisor, &source, "hello").await.expect("an answer");
    let leaf = folder_of(&used(&supervisor).to_string()).expect("a cgroup");
    fs::write(leaf.join("memory.max"), BOUND).expect("a lower bound");
    let error = get(&supervisor, &source, "shares").await.expect_err("no answer");
    assert_eq!(error.outcome, Outcome::ExceededMemory, "{error:?}");
    assert_eq!(supervisor.counts().deaths_memory, 1);
    get(&supervisor, &neighbour, "hello").await.expect("the edge goes on");
    until(|| !leaf.exists()).await;
    // The machine's count has risen, but nobody in this one made the kernel kill it.
    get(&other, &neighbour, "hello").await.expect("an answer");
    kill(used(&other));
    until(|| other.counts().deaths_crash == 1).await;
    assert_eq!(other.counts().deaths_memory, 0);
    supervisor.shutdown().await;
    other.shutdown().await;
}

async fn runners_stay_in_the_cgroup_of_their_edge() {
    let before = folder_of("self").expect("a cgroup");
    let supervisor = supervisor().await;
    get(&supervisor, &worker("hello", "v1"), "hello").await.expect("an answer");
    for process in supervisor.runners().iter().map(|runner| runner.pid.to_string()).chain(["self".to_owned()]) {
        assert_eq!(folder_of(&process).expect("a cgroup"), before);
    }
    let divided: Vec<_> = fs::read_dir(&before).expect("a cgroup").flatten().filter(|entry| entry.path().is_dir()).collect();
    assert!(divided.is_empty(), "{divided:?}");
    supervisor.shutdown().await;
}
