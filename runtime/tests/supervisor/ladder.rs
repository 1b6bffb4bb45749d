//! Who shares a runner with whom, and what strikes lead to: seen on the runners' processes themselves.

use std::sync::Arc;

use selvedge_runtime::supervisor::Supervisor;
use selvedge_runtime::{Outcome, WorkerSource};

use crate::stage::{get, supervisor, until, worker};

/// The process that holds a version, and what it was started with; none where no runner does.
fn runner_of(supervisor: &Supervisor, version: &str) -> Option<(u32, Vec<String>)> {
    let runners = supervisor.runners();
    let runner = runners.iter().find(|runner| runner.versions.iter().any(|held| **held == *version))?;
    let line = std::fs::read(format!("/proc/{}/cmdline", runner.pid)).ok()?;
    Some((runner.pid, line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()))
}

fn is_jitless(arguments: &[String]) -> bool {
    arguments.windows(2).any(|pair| pair == ["--v8-flags", "--jitless"])
}

/// The same of the one that it runs in now.
pub(crate) async fn placed(supervisor: &Supervisor, source: &Arc<WorkerSource>) -> (u32, Vec<String>) {
    get(supervisor, source, "hello").await.expect("an answer");
    runner_of(supervisor, &source.version).expect("it runs somewhere")
}

pub(crate) async fn strikes_lead_to_a_runner_of_its_own_then_to_one_without_a_compiler_then_to_none() {
    let supervisor = supervisor().await;
    let (source, neighbour) = (worker("memory", "v1"), worker("neighbour", "n1"));
    let mut before = 0;
    // A lost runner is ten points: from 10 a version is alone, from 30 without a JIT compiler, from 50 disabled.
    for (strikes, alone, jitless) in [(0, false, false), (1, true, false), (2, true, false), (3, true, true), (4, true, true)] {
        let (pid, arguments) = placed(&supervisor, &source).await;
        let (other, others) = placed(&supervisor, &neighbour).await;
        assert_eq!((pid != other, is_jitless(&arguments)), (alone, jitless), "after {strikes} strikes: {arguments:?}");
        assert!(!is_jitless(&others), "a neighbour pays for it: {others:?}");
        assert_ne!(pid, before, "a process that ran out of memory is not used again");
        before = pid;
        let error = get(&supervisor, &source, "memory").await.expect_err("no answer");
        assert_eq!(error.outcome, Outcome::ExceededMemory, "after {strikes} strikes");
    }
    assert_eq!(get(&supervisor, &source, "hello").await.expect_err("no answer").outcome, Outcome::Disabled);
    assert!(runner_of(&supervisor, "v1").is_none());
    placed(&supervisor, &neighbour).await;
}

pub(crate) async fn what_is_proven_runs_in_another_process_than_what_is_on_probation() {
    let supervisor = supervisor().await;
    let (old, new) = (worker("old", "v1"), worker("new", "v2"));
    assert_eq!(placed(&supervisor, &old).await.0, placed(&supervisor, &new).await.0, "both are on probation");
    // A second of CPU time, in shares that do not make it a heavy one.
    for _ in 0..=1_000 / 40 {
        get(&supervisor, &old, "works-40-ms").await.expect("an answer");
    }
    let moved = || {
        let pid = |version| runner_of(&supervisor, version).map(|(pid, _)| pid);
        pid("v1").is_some() && pid("v2").is_some() && pid("v1") != pid("v2")
    };
    until(moved).await;
    let (proven, on_probation) = (placed(&supervisor, &old).await.0, placed(&supervisor, &new).await.0);
    assert_ne!(proven, on_probation);
    assert_eq!(placed(&supervisor, &worker("newer", "v3")).await.0, on_probation, "one more on probation");
}
