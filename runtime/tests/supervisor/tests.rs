//! The sentences.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use http::Method;
use selvedge_runtime::{Body, BodyError, Limits, Outcome};

use crate::capabilities::*;
use crate::cgroups::*;
use crate::descriptors::*;
use crate::fake::within;
use crate::ladder::*;
use crate::lateness::*;
use crate::leaving::*;
use crate::overload::*;
use crate::stage::{Test, get, limited, request, send, start, supervisor, until, worker};

macro_rules! tests {
    ($($name:ident)*) => {
        /// All of them.
        pub(crate) const ALL: &[Test] = &[$((stringify!($name), || $name().boxed_local())),*];
    };
}

tests! {
    a_hello_is_answered_and_reported_once
    a_small_body_travels_with_its_head
    a_streamed_body_is_echoed_under_credit
    a_long_response_waits_for_its_reader
    one_byte_chunks_are_joined
    many_requests_share_a_link
    dropping_the_future_cancels
    dropping_the_body_cancels
    an_exception_is_an_outcome
    a_subrequest_goes_through_the_host
    subrequests_beyond_the_limit_are_refused
    what_is_put_streams_to_the_host_and_is_matched
    a_put_that_is_cut_keeps_nothing
    a_match_of_nothing_says_so
    puts_that_are_refused_leave_nothing_behind
    a_purge_goes_through_the_host_and_costs_a_subrequest
    passing_through_is_heard_before_the_failure
    a_log_is_bounded
    a_body_beyond_its_bound_says_so
    a_head_that_does_not_come_in_time_is_a_wall_time
    a_body_without_progress_is_cut
    wait_until_is_ended_in_time
    what_stays_for_wait_until_may_ask_and_is_ended_in_time
    a_runner_that_ignores_cancel_is_killed
    a_bounced_invocation_goes_elsewhere
    an_unstarted_post_is_replayed
    a_started_get_is_replayed_once
    a_started_post_is_not_replayed
    a_killed_runner_loses_only_what_ran_in_it
    out_of_memory_is_the_offenders_outcome_and_a_strike
    strikes_end_in_a_disabled_version
    strikes_lead_to_a_runner_of_its_own_then_to_one_without_a_compiler_then_to_none
    what_is_proven_runs_in_another_process_than_what_is_on_probation
    a_stuck_thread_is_answered_before_its_runner_is_dead
    a_frozen_runner_is_given_up
    hostile_runners_are_killed_and_replaced
    what_waits_for_a_runner_that_does_not_read_is_bounded
    a_late_runner_gets_all_that_waited_for_it
    messages_for_nobody_are_ignored
    a_closed_link_ends_its_runner
    a_version_that_cannot_be_loaded_says_why
    a_version_that_kills_its_runner_while_it_loads_says_so
    versions_on_probation_share_a_runner
    more_versions_than_a_runner_holds_take_further_runners
    retiring_unloads
    a_standby_that_is_ready_is_as_urgent_as_the_edge
    another_build_is_refused
    a_missing_sandbox_is_refused_unless_allowed
    a_runner_that_cannot_start_is_an_error
    a_full_socket_is_waited_for_without_a_descriptor
    a_runner_that_says_hello_when_no_descriptor_is_left_lives
    runners_that_did_not_start_leave_no_zombie
    a_process_for_which_no_descriptor_is_left_is_reaped
    shutdown_ends_every_runner
    a_response_that_streams_too_late_is_ignored
    what_is_lost_with_its_isolate_is_replayed_where_that_is_safe
    a_body_that_was_cut_is_cut_in_its_replay_too
    aborted_fetches_count_no_more
    limits_crossed_outside_of_invocations_are_strikes
    a_log_outside_of_invocations_is_bounded
    who_computes_on_for_a_client_that_is_gone_may_do_so_up_to_its_limit
    who_was_cancelled_behind_anothers_legal_turn_is_not_stuck
    a_late_tick_of_an_overloaded_machine_condemns_nobody
    an_edge_divides_the_cgroup_that_it_was_given_and_no_other
    an_overloaded_node_loads_nothing_for_a_request_and_everything_for_a_deployment
}

async fn a_hello_is_answered_and_reported_once() {
    let supervisor = supervisor().await;
    let source = worker("hello", "v1");
    let (invocation, host) = request(Method::GET, "hello", Body::empty());
    let response = supervisor.run(&source, invocation).await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert_eq!(response.into_body().as_whole().expect("whole"), "hello");
    let report = host.report().await;
    assert_eq!((report.outcome, report.cpu_us, report.cold_start), (Outcome::Ok, 11, true));
    let (invocation, host) = request(Method::GET, "hello", Body::empty());
    supervisor.run(&source, invocation).await.expect("an answer");
    assert!(!host.report().await.cold_start);
    assert_eq!(host.reports.lock().len(), 1);
    assert_eq!(supervisor.warm(&source).await.expect("warm").cpu_us, 7);
}

/// The priorities of a process's threads (proc(5), `stat`: field 19).
fn nice(process: &str) -> Vec<i64> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("a process").flatten();
    let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    stats.map(|stat| stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(16)?.parse().ok()).expect("a number")).collect()
}

async fn a_standby_that_is_ready_is_as_urgent_as_the_edge() {
    let supervisor = supervisor().await;
    send(&supervisor, &worker("hello", "v1"), Method::GET, "hello", Body::empty()).await.expect("an answer");
    let standby = || supervisor.runners().into_iter().find(|runner| runner.cordon.is_none());
    until(|| standby().is_some()).await;
    let (own, theirs) = (nice("self"), nice(&standby().expect("a standby").pid.to_string()));
    assert!(!theirs.is_empty() && theirs.iter().all(|nice| own.contains(nice)), "{own:?} {theirs:?}");
}

async fn a_small_body_travels_with_its_head() {
    let supervisor = supervisor().await;
    let answer = send(&supervisor, &worker("echo", "v1"), Method::POST, "echo", Body::full("small")).await;
    assert_eq!(answer.expect("an answer"), (200, "small".into()));
}

fn chunks(count: usize) -> Body {
    Body::chunks(futures::stream::iter((0..count).map(|n| Ok(Bytes::from(vec![n as u8; 50_000])))))
}

async fn a_streamed_body_is_echoed_under_credit() {
    let supervisor = supervisor().await;
    let (status, bytes) = send(&supervisor, &worker("echo", "v1"), Method::POST, "echo", chunks(100)).await.expect("an answer");
    assert_eq!((status, bytes.len()), (200, 5_000_000));
    assert!(bytes.chunks(50_000).enumerate().all(|(n, chunk)| chunk.iter().all(|byte| *byte == n as u8)));
}

async fn a_long_response_waits_for_its_reader() {
    let supervisor = supervisor().await;
    let (invocation, host) = request(Method::GET, "stream", Body::empty());
    let response = supervisor.run(&worker("stream", "v1"), invocation).await.expect("a head");
    // The fake sends no byte beyond its credit, so nothing more than that can be waiting here.
    get(&supervisor, &worker("stream", "v1"), "hello").await.expect("others go on");
    assert!(host.reports.lock().is_empty());
    assert_eq!(response.into_body().collect(64 << 20).await.expect("a body").len(), 8 << 20);
    assert_eq!(host.report().await.outcome, Outcome::Ok);
}

async fn one_byte_chunks_are_joined() {
    let supervisor = supervisor().await;
    let (_, bytes) = get(&supervisor, &worker("tiny", "v1"), "tiny-chunks").await.expect("an answer");
    assert_eq!(bytes.len(), 65536);
}

async fn many_requests_share_a_link() {
    let supervisor = supervisor().await;
    let source = worker("hello", "v1");
    let clients = (0..64).map(|_| {
        let (supervisor, source) = (supervisor.clone(), source.clone());
        tokio::spawn(async move {
            for _ in 0..200 {
                assert_eq!(get(&supervisor, &source, "hello").await.expect("an answer").1, "hello");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("a client that is content");
    }
    assert_eq!(supervisor.counts().loads, 1);
    assert_eq!(supervisor.runners().iter().map(|runner| runner.invocations).sum::<usize>(), 0);
}

async fn an_exception_is_an_outcome() {
    let supervisor = supervisor().await;
    let error = get(&supervisor, &worker("throw", "v1"), "throw").await.expect_err("no answer");
    assert_eq!((error.outcome, error.message.as_str()), (Outcome::Exception, "Error: no"));
}

async fn a_log_is_bounded() {
    let supervisor = supervisor().await;
    let (invocation, host) = request(Method::GET, "log", Body::empty());
    supervisor.run(&worker("log", "v1"), invocation).await.expect("an answer");
    host.report().await;
    let lines = host.lines.lock();
    assert_eq!(lines.len(), 1001);
    assert_eq!(lines.last().expect("a line").message, "more lines of this invocation are dropped");
}

async fn a_body_beyond_its_bound_says_so() {
    let supervisor = supervisor().await;
    let source = limited("echo", "v1", Limits { request_body_bytes_max: 120_000, ..Limits::default() });
    // Its length is known before: the worker never starts.
    let known = send(&supervisor, &source, Method::POST, "echo", Body::full(vec![0; 120_001])).await.expect_err("no answer");
    assert!(matches!(known.request_body, Some(BodyError::TooLarge { bytes_max: 120_000 })), "{known:?}");
    let (mut invocation, host) = request(Method::POST, "echo", chunks(3));
    invocation.request.headers_mut().insert("late", "1".parse().expect("a value"));
    let unknown = supervisor.run(&source, invocation).await.expect_err("no answer");
    assert_eq!(unknown.outcome, Outcome::Exception);
    assert!(matches!(unknown.request_body, Some(BodyError::TooLarge { bytes_max: 120_000 })), "{unknown:?}");
    host.report().await;
    let at_the_bound = send(&supervisor, &source, Method::POST, "echo", Body::full(vec![0; 120_000])).await;
    assert_eq!(at_the_bound.expect("an answer").1.len(), 120_000);
}

async fn a_head_that_does_not_come_in_time_is_a_wall_time() {
    let supervisor = supervisor().await;
    let source = limited("hang", "v1", Limits { head_timeout_ms: 200, ..Limits::default() });
    supervisor.warm(&source).await.expect("warm");
    let started = Instant::now();
    let (invocation, host) = request(Method::GET, "hang", Body::empty());
    let error = supervisor.run(&source, invocation).await.expect_err("no answer");
    assert_eq!(within(Duration::from_millis(400), started, error.outcome), Outcome::ExceededWallTime);
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!(host.report().await.outcome, Outcome::ExceededWallTime);
}

async fn a_body_without_progress_is_cut() {
    let supervisor = supervisor().await;
    let source = limited("hang", "v1", Limits { body_idle_timeout_ms: 200, ..Limits::default() });
    let (invocation, host) = request(Method::GET, "hang-body", Body::empty());
    let response = supervisor.run(&source, invocation).await.expect("a head");
    let error = response.into_body().collect(1 << 20).await.expect_err("cut");
    assert!(matches!(error, BodyError::Worker(Outcome::ExceededWallTime)), "{error:?}");
    assert_eq!(host.report().await.outcome, Outcome::ExceededWallTime);
}

async fn a_runner_that_ignores_cancel_is_killed() {
    let supervisor = supervisor().await;
    let source = limited("deaf", "v1", Limits { head_timeout_ms: 100, ..Limits::default() });
    let (invocation, host) = request(Method::GET, "hang", Body::empty());
    let error = supervisor.run(&source, invocation).await.expect_err("no answer");
    assert_eq!(error.outcome, Outcome::ExceededWallTime);
    assert_eq!(host.report().await.outcome, Outcome::ExceededWallTime);
    assert_eq!(supervisor.counts().kills_stuck, 1);
}

async fn a_bounced_invocation_goes_elsewhere() {
    let supervisor = supervisor().await;
    // Each thread bounces once.
    assert_eq!(get(&supervisor, &worker("hello", "v1"), "bounce").await.expect("an answer").1, "hello");
    assert_eq!(supervisor.counts().bounces, 1);
    let echoed = send(&supervisor, &worker("hello", "v1"), Method::POST, "bounce", chunks(3)).await;
    assert_eq!(echoed.expect("an answer").1, "hello");
}

pub(crate) fn flag() -> tempfile::TempPath {
    tempfile::NamedTempFile::new().expect("a file").into_temp_path()
}

pub(crate) async fn run_once(method: Method, path: &str) -> (Result<Bytes, Outcome>, u64) {
    let supervisor = supervisor().await;
    let flag = flag();
    let (mut invocation, host) = request(method, path, Body::empty());
    invocation.request.headers_mut().insert("once", flag.to_str().expect("a path").parse().expect("a value"));
    let result = supervisor.run(&worker("once", "v1"), invocation).await;
    assert_eq!(host.report().await.outcome, if result.is_ok() { Outcome::Ok } else { Outcome::RunnerLost });
    if let Err(error) = &result {
        assert_eq!(error.retry_after, Some(Duration::from_secs(1)));
    }
    let result = result.map(|response| response.into_body().as_whole().expect("whole")).map_err(|error| error.outcome);
    (result, supervisor.counts().replays)
}

async fn an_unstarted_post_is_replayed() {
    assert_eq!(run_once(Method::POST, "die-unstarted").await, (Ok("survived".into()), 1));
}

async fn a_started_get_is_replayed_once() {
    assert_eq!(run_once(Method::GET, "die-once").await, (Ok("survived".into()), 1));
    assert_eq!(run_once(Method::GET, "die").await, (Err(Outcome::RunnerLost), 1));
}

async fn a_started_post_is_not_replayed() {
    assert_eq!(run_once(Method::POST, "die-once").await, (Err(Outcome::RunnerLost), 0));
}

async fn a_killed_runner_loses_only_what_ran_in_it() {
    let supervisor = supervisor().await;
    let source = worker("hang", "v1");
    supervisor.warm(&source).await.expect("warm");
    let (invocation, host) = request(Method::POST, "hang", Body::empty());
    let run = tokio::spawn({
        let (supervisor, source) = (supervisor.clone(), source.clone());
        async move { supervisor.run(&source, invocation).await.map(drop) }
    });
    until(|| supervisor.runners().iter().any(|runner| runner.invocations == 1)).await;
    // The thread takes messages in order: after this answer, the other has started.
    get(&supervisor, &source, "hello").await.expect("an answer");
    let busy = supervisor.runners().into_iter().find(|runner| runner.invocations == 1).expect("a runner");
    let killed = Instant::now();
    rustix_kill(busy.pid);
    let error = run.await.expect("a task").expect_err("lost");
    assert_eq!(within(Duration::from_millis(300), killed, error.outcome), Outcome::RunnerLost);
    assert_eq!(error.retry_after, Some(Duration::from_secs(1)));
    assert_eq!(host.report().await.outcome, Outcome::RunnerLost);
    // The standby takes its place.
    assert_eq!(get(&supervisor, &source, "hello").await.expect("an answer").1, "hello");
}

fn rustix_kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is there");
}

async fn out_of_memory_is_the_offenders_outcome_and_a_strike() {
    let supervisor = supervisor().await;
    for path in ["memory", "abort"] {
        let source = worker(path, path);
        let error = get(&supervisor, &source, path).await.expect_err("no answer");
        assert_eq!(error.outcome, Outcome::ExceededMemory, "{path}");
        // It has a runner of its own now, apart from the innocent.
        get(&supervisor, &source, "hello").await.expect("an answer");
        let neighbour = worker("neighbour", "n1");
        get(&supervisor, &neighbour, "hello").await.expect("an answer");
        let with = |version: &str| supervisor.runners().iter().filter(|runner| runner.versions.iter().any(|v| **v == *version)).count();
        assert_eq!((with(path), with("n1")), (1, 1));
        assert!(!supervisor.runners().iter().any(|runner| runner.versions.len() > 1), "{path} shares a runner");
    }
    assert_eq!(supervisor.counts().deaths_memory, 2);
}

async fn strikes_end_in_a_disabled_version() {
    let supervisor = supervisor().await;
    let source = worker("memory", "v1");
    let mut outcomes = Vec::new();
    for _ in 0..8 {
        outcomes.push(get(&supervisor, &source, "memory").await.expect_err("no answer").outcome);
    }
    let last = get(&supervisor, &source, "hello").await.expect_err("no answer");
    assert_eq!(last.outcome, Outcome::Disabled, "{outcomes:?}");
    assert!(last.message.contains("out of memory"), "{}", last.message);
    until(|| supervisor.counts().disabled == 1).await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::ExceededMemory).count(), 5);
}

async fn a_stuck_thread_is_answered_before_its_runner_is_dead() {
    let supervisor = supervisor().await;
    let source = worker("stuck", "v1");
    supervisor.warm(&source).await.expect("warm");
    let started = Instant::now();
    let (invocation, host) = request(Method::GET, "stuck", Body::empty());
    let error = supervisor.run(&source, invocation).await.expect_err("no answer");
    assert_eq!(within(Duration::from_millis(80), started, error.outcome), Outcome::ExceededCpu);
    assert_eq!(host.report().await.outcome, Outcome::ExceededCpu);
    let neighbour = get(&supervisor, &worker("neighbour", "n1"), "hello").await;
    assert_eq!(neighbour.expect("an answer").1, "hello");
    assert_eq!(supervisor.counts().kills_stuck, 1);
}

async fn a_frozen_runner_is_given_up() {
    let supervisor = supervisor().await;
    let source = worker("frozen", "v1");
    let error = send(&supervisor, &source, Method::POST, "freeze", Body::empty()).await.expect_err("no answer");
    assert_eq!(error.outcome, Outcome::RunnerLost);
    assert_eq!(supervisor.counts().kills_silent, 1);
    get(&supervisor, &source, "hello").await.expect("an answer");
}

async fn hostile_runners_are_killed_and_replaced() {
    let supervisor = supervisor().await;
    let source = worker("hostile", "v1");
    let ways = ["garbage", "huge", "second-hello", "second-response", "beyond-credit", "credit-flood", "old-part"];
    for (path, kills) in ways.into_iter().zip(1..) {
        let (invocation, host) = request(Method::POST, path, Body::empty());
        // A body that is not read gives no credit.
        let result = supervisor.run(&source, invocation).await;
        until(|| supervisor.counts().kills_protocol == kills).await;
        assert!(result.is_ok() || host.report().await.outcome == Outcome::RunnerLost, "{path}");
        get(&supervisor, &source, "hello").await.expect("a new runner answers");
    }
}

async fn messages_for_nobody_are_ignored() {
    let supervisor = supervisor().await;
    let (_, text) = get(&supervisor, &worker("nobody", "v1"), "nobody").await.expect("an answer");
    assert_eq!(text, "still here");
    assert_eq!(supervisor.counts().kills_protocol, 0);
}

async fn a_closed_link_ends_its_runner() {
    let supervisor = supervisor().await;
    let error = send(&supervisor, &worker("unlink", "v1"), Method::POST, "unlink", Body::empty()).await.expect_err("no answer");
    assert_eq!(error.outcome, Outcome::RunnerLost);
}

async fn a_version_that_cannot_be_loaded_says_why() {
    let supervisor = supervisor().await;
    let source = worker("broken", "v1");
    let error = supervisor.warm(&source).await.expect_err("cannot be loaded");
    assert_eq!((error.outcome, error.message.as_str()), (Outcome::StartupFailed, "SyntaxError: no"));
    let (invocation, host) = request(Method::GET, "hello", Body::empty());
    let error = supervisor.run(&source, invocation).await.expect_err("cannot be loaded");
    assert_eq!(error.outcome, Outcome::StartupFailed);
    assert_eq!(host.report().await.outcome, Outcome::StartupFailed);
}

async fn a_version_that_kills_its_runner_while_it_loads_says_so() {
    let supervisor = supervisor().await;
    let error = supervisor.warm(&worker("bomb", "v1")).await.expect_err("cannot be loaded");
    assert_eq!(error.outcome, Outcome::ExceededMemory, "{error:?}");
}

async fn versions_on_probation_share_a_runner() {
    let supervisor = supervisor().await;
    for version in ["a1", "b1", "c1"] {
        supervisor.warm(&worker(version, version)).await.expect("warm");
    }
    until(|| supervisor.runners().len() == 2).await;
    let runners = supervisor.runners();
    let used: Vec<_> = runners.iter().filter(|runner| runner.cordon.is_some()).collect();
    assert_eq!(used.len(), 1);
    assert_eq!(used.first().expect("one").versions.len(), 3);
}

async fn more_versions_than_a_runner_holds_take_further_runners() {
    let supervisor = supervisor().await;
    for number in 0..60 {
        let name = format!("v{number}");
        get(&supervisor, &worker(&name, &name), "hello").await.expect("an answer");
    }
    let used: Vec<_> =
        supervisor.runners().into_iter().filter(|runner| runner.cordon.is_some()).map(|runner| runner.versions.len()).collect();
    assert_eq!(used.iter().sum::<usize>(), 60, "{used:?}");
    assert_eq!(used.len(), 3, "{used:?}");
}

async fn retiring_unloads() {
    let supervisor = supervisor().await;
    let source = worker("old", "v1");
    supervisor.warm(&source).await.expect("warm");
    supervisor.retire("v1");
    until(|| supervisor.runners().iter().all(|runner| runner.versions.is_empty())).await;
    get(&supervisor, &source, "hello").await.expect("it can come back");
}

async fn another_build_is_refused() {
    let error = start(&["other-build"], false).await.map(drop).expect_err("refused");
    assert!(error.to_string().contains("0.0.0-other"), "{error}");
}

async fn a_missing_sandbox_is_refused_unless_allowed() {
    let error = start(&["unsandboxed"], false).await.map(drop).expect_err("refused");
    assert!(error.to_string().contains("landlock"), "{error}");
    let allowed = start(&["unsandboxed"], true).await.expect("allowed");
    get(&allowed, &worker("hello", "v1"), "hello").await.expect("an answer");
}

async fn a_runner_that_cannot_start_is_an_error() {
    let error = start(&["no-hello"], false).await.map(drop).expect_err("no runner");
    assert!(error.to_string().contains("Sandbox"), "{error}");
}

async fn shutdown_ends_every_runner() {
    let supervisor = supervisor().await;
    let source = worker("hang", "v1");
    supervisor.warm(&source).await.expect("warm");
    let (invocation, host) = request(Method::GET, "hang", Body::empty());
    let run = tokio::spawn({
        let (supervisor, source) = (supervisor.clone(), Arc::clone(&source));
        async move { supervisor.run(&source, invocation).await.map(drop) }
    });
    until(|| supervisor.runners().iter().any(|runner| runner.invocations == 1)).await;
    supervisor.shutdown().await;
    assert_eq!(run.await.expect("a task").expect_err("ended").outcome, Outcome::Canceled);
    host.report().await;
    assert!(supervisor.runners().is_empty());
}
