//! What a worker asks of its host: subrequests, caches, and another to take its place.

use http::Method;
use selvedge_runtime::{Body, Limits, Outcome};

use crate::fake::CALLS;
use crate::stage::{get, limited, request, supervisor, worker};

pub(crate) async fn a_subrequest_goes_through_the_host() {
    let supervisor = supervisor().await;
    let (invocation, host) = request(Method::GET, "fetch", Body::empty());
    let response = supervisor.run(&worker("fetch", "v1"), invocation).await.expect("an answer");
    assert_eq!(response.into_body().as_whole().expect("whole"), "200 ask");
    assert_eq!(host.report().await.subrequests, 1);
}

pub(crate) async fn subrequests_beyond_the_limit_are_refused() {
    let supervisor = supervisor().await;
    let source = limited("fetch", "v1", Limits { subrequests_max: 0, ..Limits::default() });
    let (_, text) = get(&supervisor, &source, "fetch").await.expect("an answer");
    assert_eq!(text, "Too many subrequests: the limit of one invocation is 0.");
}

pub(crate) async fn what_is_put_streams_to_the_host_and_is_matched() {
    let supervisor = supervisor().await;
    let (invocation, host) = request(Method::GET, "keep", Body::empty());
    let response = supervisor.run(&worker("keep", "v1"), invocation).await.expect("an answer");
    assert_eq!(response.into_body().as_whole().expect("whole"), "200 kept");
    assert_eq!(host.report().await.subrequests, 2);
}

pub(crate) async fn a_put_that_is_cut_keeps_nothing() {
    let supervisor = supervisor().await;
    let (invocation, host) = request(Method::GET, "cut", Body::empty());
    let response = supervisor.run(&worker("cut", "v1"), invocation).await.expect("an answer");
    assert_eq!(response.into_body().as_whole().expect("whole"), "body aborted: cut");
    assert!(host.kept.lock().is_empty());
}

pub(crate) async fn a_match_of_nothing_says_so() {
    let supervisor = supervisor().await;
    assert_eq!(get(&supervisor, &worker("missing", "v1"), "missing").await.expect("an answer").1, "false None");
    let source = limited("missing", "v2", Limits { subrequests_max: 0, ..Limits::default() });
    let (_, text) = get(&supervisor, &source, "missing").await.expect("an answer");
    assert_eq!(text, "Too many subrequests: the limit of one invocation is 0.");
}

pub(crate) async fn puts_that_are_refused_leave_nothing_behind() {
    let supervisor = supervisor().await;
    let source = limited("refused", "v1", Limits { subrequests_max: CALLS, ..Limits::default() });
    assert_eq!(get(&supervisor, &source, "refused").await.expect("an answer").1, "refused");
}

pub(crate) async fn a_purge_goes_through_the_host_and_costs_a_subrequest() {
    let supervisor = supervisor().await;
    let (invocation, host) = request(Method::GET, "purge", Body::empty());
    let response = supervisor.run(&worker("purge", "v1"), invocation).await.expect("an answer");
    let text = response.into_body().as_whole().expect("whole");
    assert_eq!(text, r#"Some(PurgeRefusal { code: 429, message: "refused" })"#);
    let named: Vec<_> = host.purges.lock().iter().map(|purge| (purge.tags.concat(), purge.path_prefixes.concat())).collect();
    assert_eq!(named, [("shop".to_owned(), "/a/".to_owned()), ("refuse".to_owned(), "/a/".to_owned())]);
    assert_eq!(host.report().await.subrequests, 2);
    let source = limited("purge", "v2", Limits { subrequests_max: 0, ..Limits::default() });
    let (_, text) = get(&supervisor, &source, "purge").await.expect("an answer");
    assert_eq!(text, "Too many subrequests: the limit of one invocation is 0.");
}

pub(crate) async fn passing_through_is_heard_before_the_failure() {
    let supervisor = supervisor().await;
    let (invocation, host) = request(Method::GET, "pass", Body::empty());
    supervisor.run(&worker("pass", "v1"), invocation).await.expect_err("it failed");
    assert!(host.passes.load(std::sync::atomic::Ordering::SeqCst));
}

pub(crate) async fn what_waits_for_a_runner_that_does_not_read_is_bounded() {
    let supervisor = supervisor().await;
    let source = limited("flood", "v1", Limits { subrequests_max: 1, ..Limits::default() });
    let (invocation, host) = request(Method::POST, "flood", Body::empty());
    let error = supervisor.run(&source, invocation).await.expect_err("no answer");
    assert_eq!((error.outcome, host.report().await.outcome), (Outcome::RunnerLost, Outcome::RunnerLost));
    assert_eq!(supervisor.counts().kills_protocol, 1);
    // A worker that takes each of its calls back makes nobody's runner look like that.
    let (_, text) = get(&supervisor, &source, "takes-back").await.expect("an answer");
    assert_eq!(text, "Too many subrequests: the limit of one invocation is 1.");
    assert_eq!(supervisor.counts().kills_protocol, 1);
}

pub(crate) async fn a_late_runner_gets_all_that_waited_for_it() {
    let supervisor = supervisor().await;
    let sources = ["v1", "v2", "v3", "v4"].map(|version| worker("hoard", version));
    for source in &sources {
        supervisor.warm(source).await.expect("warm");
    }
    // 90 MiB of answers on each of two links: more than may wait for a runner at all. Of each version 45 MiB, less than one may hold.
    let runs = (0..60).map(|n| get(&supervisor, &sources[n % sources.len()], "hoard"));
    for answer in futures::future::join_all(runs).await {
        assert_eq!(answer.expect("an answer").1, "all");
    }
    assert_eq!(supervisor.counts().kills_protocol, 0);
}
