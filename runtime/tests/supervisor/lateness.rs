//! What a runner says late, loses, or says outside of any invocation.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use selvedge_runtime::{Body, BodyError, Limits, Outcome};

use crate::leaving::{begin, go_away};
use crate::stage::{get, limited, request, send, supervisor, until, worker};
use crate::tests::{flag, run_once};

pub(crate) async fn a_response_that_streams_too_late_is_ignored() {
    let supervisor = supervisor().await;
    let source = limited("late", "v1", Limits { head_timeout_ms: 100, ..Limits::default() });
    let (invocation, host) = request(Method::GET, "late-stream", Body::empty());
    assert_eq!(supervisor.run(&source, invocation).await.expect_err("no answer").outcome, Outcome::ExceededWallTime);
    assert_eq!(host.report().await.outcome, Outcome::ExceededWallTime);
    get(&supervisor, &source, "hello").await.expect("the runner goes on");
    assert_eq!(supervisor.counts().kills_protocol, 0);
}

pub(crate) async fn what_is_lost_with_its_isolate_is_replayed_where_that_is_safe() {
    assert_eq!(run_once(Method::GET, "lose-once").await, (Ok("survived".into()), 1));
    assert_eq!(run_once(Method::POST, "lose-once").await, (Err(Outcome::RunnerLost), 0));
}

pub(crate) async fn a_body_that_was_cut_is_cut_in_its_replay_too() {
    let supervisor = supervisor().await;
    let flag = flag();
    let pieces = [Ok(Bytes::from_static(b"some")), Err(BodyError::Aborted("gone".to_owned()))];
    let (mut invocation, host) = request(Method::GET, "cut-once", Body::chunks(futures::stream::iter(pieces)));
    invocation.request.headers_mut().insert("once", flag.to_str().expect("a path").parse().expect("a value"));
    let error = supervisor.run(&worker("cut", "v1"), invocation).await.expect_err("no answer");
    assert_eq!((error.outcome, &*error.message), (Outcome::Exception, "body aborted: gone"));
    assert_eq!(host.report().await.outcome, Outcome::Exception);
    assert_eq!(supervisor.counts().replays, 1);
}

pub(crate) async fn aborted_fetches_count_no_more() {
    let supervisor = supervisor().await;
    let source = limited("abort", "v1", Limits { subrequests_max: 100, ..Limits::default() });
    assert_eq!(get(&supervisor, &source, "abort-fetches").await.expect("an answer").1, "200 ask");
}

pub(crate) async fn limits_crossed_outside_of_invocations_are_strikes() {
    let supervisor = supervisor().await;
    let source = worker("burn", "v1");
    for _ in 0..200 {
        match get(&supervisor, &source, "burn").await {
            Ok(_) => {}
            Err(error) if error.outcome == Outcome::RunnerLost => {}
            Err(error) => {
                assert_eq!(error.outcome, Outcome::Disabled, "{error:?}");
                return;
            }
        }
    }
    panic!("it goes on for ever");
}

/// Lines that versions logged outside of invocations.
static LINES: AtomicUsize = AtomicUsize::new(0);

/// Counts them.
struct Counting;

impl tracing::Subscriber for Counting {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.fields().field("level").is_some() && metadata.fields().field("version").is_some()
    }

    fn event(&self, _: &tracing::Event<'_>) {
        LINES.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

pub(crate) async fn a_log_outside_of_invocations_is_bounded() {
    tracing::subscriber::set_global_default(Counting).expect("the only one");
    let supervisor = supervisor().await;
    supervisor.warm(&worker("chatty", "v1")).await.expect("warm");
    assert_eq!(LINES.load(Ordering::Relaxed), 1001);
}

pub(crate) async fn who_computes_on_for_a_client_that_is_gone_may_do_so_up_to_its_limit() {
    let supervisor = supervisor().await;
    let host = go_away(&supervisor, &worker("hold", "v1"), "hold").await;
    assert_eq!(host.report().await.outcome, Outcome::Canceled);
    assert_eq!(supervisor.counts().kills_stuck, 0);
}

pub(crate) async fn who_was_cancelled_behind_anothers_legal_turn_is_not_stuck() {
    let supervisor = supervisor().await;
    let source = limited("occupied", "v1", Limits { cpu_ms: 30_000, ..Limits::default() });
    let (run, behind) = begin(&supervisor, &source, "hang").await;
    let occupy = async { get(&supervisor, &source, "occupy").await.expect("it is within its limit").1 };
    let leave = async {
        until(|| supervisor.runners().iter().any(|runner| runner.invocations == 2)).await;
        run.abort();
    };
    assert_eq!(tokio::join!(occupy, leave).0, "over");
    assert_eq!(behind.report().await.outcome, Outcome::Canceled);
    assert_eq!(supervisor.counts().kills_stuck, 0);
}

pub(crate) async fn a_late_tick_of_an_overloaded_machine_condemns_nobody() {
    let supervisor = supervisor().await;
    let source = worker("slow", "v1");
    let host = go_away(&supervisor, &source, "slow-cancel").await;
    // Nothing of this side runs for longer than a cancelled invocation may take, and the runner is slow, too.
    let held: Vec<_> = (0..4).map(|_| tokio::spawn(async { std::thread::sleep(Duration::from_millis(750)) })).collect();
    for held in held {
        held.await.expect("it sleeps");
    }
    assert_eq!(host.report().await.outcome, Outcome::Canceled);
    send(&supervisor, &source, Method::GET, "hello", Body::empty()).await.expect("the runner goes on");
    assert_eq!(supervisor.counts().kills_stuck, 0);
}
