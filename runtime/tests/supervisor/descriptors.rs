//! A node that has no descriptor left: what runs goes on. And what did not begin to run leaves nothing behind.

use std::fs::File;
use std::time::Duration;

use http::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use selvedge_runtime::Body;

use crate::stage::{get, send, start, supervisor, until, worker};

/// Every descriptor that this process may have.
struct Taken {
    limit: Rlimit,
    files: Vec<File>,
}

fn take_all() -> Taken {
    let limit = getrlimit(Resource::Nofile);
    // Few enough to take them all.
    setrlimit(Resource::Nofile, Rlimit { current: Some(512), ..limit }).expect("fewer than before");
    let mut taken = Taken { limit, files: vec![File::open("/dev/null").expect("a file")] };
    taken.take_more();
    taken
}

impl Taken {
    /// Those that were given back since.
    fn take_more(&mut self) {
        while let Some(file) = self.files.last().and_then(|last| last.try_clone().ok()) {
            self.files.push(file);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.files.clear();
        setrlimit(Resource::Nofile, self.limit).expect("as many as before");
    }
}

/// The children of this process, and their states.
fn children() -> Vec<(String, char)> {
    let threads = std::fs::read_dir("/proc/self/task").expect("threads");
    let lists = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let pids: Vec<String> = lists.flat_map(|list| list.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    let states = pids.into_iter().filter_map(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, line.rsplit_once(") ")?.1.chars().next()?))
    });
    states.collect()
}

fn living() -> Vec<String> {
    children().into_iter().filter(|(_, state)| *state != 'Z').map(|(pid, _)| pid).collect()
}

fn has_zombie() -> bool {
    children().iter().any(|(_, state)| *state == 'Z')
}

/// The processes that this one holds by a descriptor.
fn held() -> Vec<String> {
    let descriptors = std::fs::read_dir("/proc/self/fdinfo").expect("descriptors");
    let infos = descriptors.flatten().filter_map(|descriptor| std::fs::read_to_string(descriptor.path()).ok());
    infos.filter_map(|info| Some(info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().to_owned())).collect()
}

pub(crate) async fn a_full_socket_is_waited_for_without_a_descriptor() {
    let supervisor = supervisor().await;
    let source = worker("hoard", "v1");
    supervisor.warm(&source).await.expect("warm");
    let taken = take_all();
    let answer = send(&supervisor, &source, Method::GET, "hoard", Body::empty()).await;
    drop(taken);
    assert_eq!(answer.expect("an answer").1, "all");
}

pub(crate) async fn a_runner_that_says_hello_when_no_descriptor_is_left_lives() {
    until(|| living().is_empty()).await;
    let starting = tokio::spawn(async { start(&["late-hello"], false).await });
    // It is there, and its maker has the last descriptor that it needs to keep.
    until(|| held().iter().any(|pid| living().contains(pid))).await;
    let mut taken = take_all();
    // Its maker gives back others, until it has said hello.
    until(|| {
        taken.take_more();
        starting.is_finished()
    })
    .await;
    let supervisor = starting.await.expect("a task").expect("a supervisor");
    let answer = get(&supervisor, &worker("hello", "v1"), "hello").await;
    assert_eq!(answer.expect("an answer").1, "hello");
    // One that is taken for dead has some time for its last words.
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(taken);
    assert_eq!((supervisor.counts().deaths_crash, living().len()), (0, 1));
}

pub(crate) async fn runners_that_did_not_start_leave_no_zombie() {
    start(&["other-build"], false).await.map(drop).expect_err("refused");
    // Who looks after what is left is the next to start a process.
    let _supervisor = supervisor().await;
    until(|| !has_zombie()).await;
}

pub(crate) async fn a_process_for_which_no_descriptor_is_left_is_reaped() {
    // One of them lets a process be made, and leaves none to hold it by.
    for free in 0..10 {
        let mut taken = take_all();
        taken.files.truncate(taken.files.len() - free);
        let _ = start(&[], false).await;
    }
    let _supervisor = supervisor().await;
    until(|| !has_zombie()).await;
}
