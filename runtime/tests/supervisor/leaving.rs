//! Clients that go away, and what goes on without them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use selvedge_runtime::supervisor::Supervisor;
use selvedge_runtime::{Body, Limits, Outcome, Report, RunError, WorkerSource};
use tokio::task::JoinHandle;

use crate::ladder::placed;
use crate::stage::{Memory, get, limited, request, supervisor, until, worker};

/// Begins to ask: the first invocation of this supervisor runs, and has no head yet.
pub(crate) async fn begin(
    supervisor: &Supervisor,
    source: &Arc<WorkerSource>,
    path: &str,
) -> (JoinHandle<Result<(), RunError>>, Arc<Memory>) {
    supervisor.warm(source).await.expect("warm");
    let (invocation, host) = request(Method::GET, path, Body::empty());
    let run = tokio::spawn({
        let (supervisor, source) = (supervisor.clone(), source.clone());
        async move { supervisor.run(&source, invocation).await.map(drop) }
    });
    until(|| supervisor.runners().iter().any(|runner| runner.invocations == 1)).await;
    (run, host)
}

/// Asks, and goes away before there is a head.
pub(crate) async fn go_away(supervisor: &Supervisor, source: &Arc<WorkerSource>, path: &str) -> Arc<Memory> {
    let (run, host) = begin(supervisor, source, path).await;
    run.abort();
    run.await.expect_err("aborted");
    host
}

/// The same, and waits for the report.
async fn leave(supervisor: &Supervisor, source: &Arc<WorkerSource>, path: &str) -> Report {
    go_away(supervisor, source, path).await.report().await
}

pub(crate) async fn dropping_the_future_cancels() {
    let supervisor = supervisor().await;
    let source = worker("hang", "v1");
    assert_eq!(leave(&supervisor, &source, "hang").await.outcome, Outcome::Canceled);
    assert_eq!(get(&supervisor, &source, "cancels").await.expect("an answer").1, "1");
}

pub(crate) async fn dropping_the_body_cancels() {
    let supervisor = supervisor().await;
    let source = worker("stream", "v1");
    let (invocation, host) = request(Method::GET, "stream", Body::empty());
    drop(supervisor.run(&source, invocation).await.expect("a head"));
    assert_eq!(host.report().await.outcome, Outcome::Canceled);
    assert_eq!(get(&supervisor, &source, "cancels").await.expect("an answer").1, "1");
}

pub(crate) async fn wait_until_is_ended_in_time() {
    let supervisor = supervisor().await;
    let source = limited("late", "v1", Limits { wait_until_timeout_ms: 200, ..Limits::default() });
    let started = Instant::now();
    let (invocation, host) = request(Method::GET, "wait-until", Body::empty());
    let response = supervisor.run(&source, invocation).await.expect("an answer");
    assert_eq!(response.into_body().as_whole().expect("whole"), "early");
    assert!(host.reports.lock().is_empty());
    assert_eq!(host.report().await.outcome, Outcome::ExceededWallTime);
    assert!(started.elapsed() >= Duration::from_millis(200));
}

pub(crate) async fn what_stays_for_wait_until_may_ask_and_is_ended_in_time() {
    let supervisor = supervisor().await;
    // Longer than a runner may take to end what was cancelled.
    let limit = Duration::from_millis(1500);
    let source = limited("stays", "v1", Limits { wait_until_timeout_ms: 1500, ..Limits::default() });
    let (runner, _) = placed(&supervisor, &source).await;
    let left = Instant::now();
    let report = leave(&supervisor, &source, "stay").await;
    // The runner without V8 ends as soon as it has the answer of its subrequest.
    assert_eq!((report.outcome, report.subrequests), (Outcome::Ok, 1));
    assert!(left.elapsed() < limit);
    assert_eq!(leave(&supervisor, &source, "stay-long").await.outcome, Outcome::ExceededWallTime);
    assert!(left.elapsed() >= limit);
    assert_eq!(placed(&supervisor, &source).await.0, runner, "its runner was taken for stuck");
}
