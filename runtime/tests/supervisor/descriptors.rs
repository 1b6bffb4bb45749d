//! A node that has no descriptor left: what runs goes on. And what did not begin to run leaves nothing behind.

use std::fs::File;

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
    let mut files = vec![File::open("/dev/null").expect("a file")];
    while let Some(file) = files.last().and_then(|last| last.try_clone().ok()) {
        files.push(file);
    }
    Taken { limit, files }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.files.clear();
        setrlimit(Resource::Nofile, self.limit).expect("as many as before");
    }
}

/// The states of this process's children.
fn children() -> Vec<char> {
    let threads = std::fs::read_dir("/proc/self/task").expect("threads");
    let lists = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let pids: Vec<String> = lists.flat_map(|list| list.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    let states = pids.iter().filter_map(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        line.rsplit_once(") ")?.1.chars().next()
    });
    states.collect()
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
    let living = || children().iter().filter(|state| **state != 'Z').count();
    until(|| living() == 0).await;
    let starting = tokio::spawn(async { start(&["late-hello"], false).await });
    // It is there, and its maker has been back for a while.
    let mut seen = 0;
    until(|| {
        seen += living().min(1);
        seen > 5
    })
    .await;
    let taken = take_all();
    let supervisor = starting.await.expect("a task").expect("a supervisor");
    let answer = get(&supervisor, &worker("hello", "v1"), "hello").await;
    drop(taken);
    assert_eq!(answer.expect("an answer").1, "hello");
    assert_eq!(supervisor.counts().deaths_crash, 0);
}

pub(crate) async fn runners_that_did_not_start_leave_no_zombie() {
    start(&["other-build"], false).await.map(drop).expect_err("refused");
    // Who looks after what is left is the next to start a process.
    let _supervisor = supervisor().await;
    until(|| !children().contains(&'Z')).await;
}

pub(crate) async fn a_process_for_which_no_descriptor_is_left_is_reaped() {
    // One of them lets a process be made, and leaves none to hold it by.
    for free in 0..10 {
        let mut taken = take_all();
        taken.files.truncate(taken.files.len() - free);
        let _ = start(&[], false).await;
    }
    let _supervisor = supervisor().await;
    until(|| !children().contains(&'Z')).await;
}
