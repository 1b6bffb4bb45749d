//! Asks the origin again and again how something goes on the nodes, until it is over there or the wait is.

use std::time::Duration;

use selvedge_origin::client::ClientError;
use tokio::time::Instant;

use crate::limits::{ANSWER_GRACE, NODES_POLL_MS};
use crate::output::Output;

/// Before the origin is asked again after it could not be reached.
const PAUSE: Duration = Duration::from_millis(200);

/// What was seen.
#[derive(Debug)]
pub(super) struct Followed<T> {
    /// The last answer; none where there was none.
    pub(super) last: Option<T>,
    /// Why there is none later, where the origin was lost and not found again in time.
    pub(super) lost: Option<String>,
}

/// Asks until `waiting` says that nothing is waited for any more, or until `wait` is over. `ask` is told how long the origin may wait for news, and what was
/// seen last. An error that a later attempt cannot mend ends it.
pub(super) async fn follow<T>(
    wait: Duration,
    output: Output,
    ask: impl AsyncFn(Duration, Option<&T>) -> Result<T, ClientError>,
    waiting: impl Fn(&T) -> Option<String>,
) -> Result<Followed<T>, ClientError> {
    let deadline = Instant::now() + wait;
    let mut last = None;
    let lost = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let asked = ask(left.min(Duration::from_millis(NODES_POLL_MS)), last.as_ref());
        let error = match tokio::time::timeout(left + ANSWER_GRACE, asked).await {
            Ok(Ok(now)) => {
                let step = waiting(&now);
                last = Some(now);
                match step {
                    Some(step) if Instant::now() < deadline => output.step(step),
                    _ => break None,
                }
                continue;
            }
            Ok(Err(error)) if !error.is_transient() => {
                output.step_done();
                return Err(error);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the origin does not answer in time".to_owned(),
        };
        if Instant::now() + PAUSE >= deadline {
            break Some(error);
        }
        tokio::time::sleep(PAUSE).await;
    };
    output.step_done();
    Ok(Followed { last, lost })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    fn output() -> Output {
        Output::new(true).quiet()
    }

    fn unreachable() -> ClientError {
        ClientError::Connect { url: "http://127.0.0.1:1".into(), reason: "refused".into() }
    }

    #[tokio::test]
    async fn an_origin_that_is_lost_or_silent_ends_with_the_wait_and_what_was_seen() {
        let lost = follow(SHORT, output(), async |_, _: Option<&u8>| Err(unreachable()), |_| None).await.expect("no error");
        assert!(lost.last.is_none() && lost.lost.is_some(), "{lost:?}");
        let begun = Instant::now();
        let silent = async |_, seen: Option<&u8>| match seen {
            None => Ok(1),
            Some(_) => std::future::pending().await,
        };
        let silent = follow(SHORT, output(), silent, |_| Some("goes on".into())).await.expect("no error");
        assert_eq!(silent.last, Some(1));
        assert!(silent.lost.is_some() && begun.elapsed() < SHORT + ANSWER_GRACE * 2, "{silent:?}");
    }

    #[tokio::test]
    async fn it_ends_when_nothing_is_waited_for_and_when_asking_again_is_of_no_use() {
        let counts = async |_, seen: Option<&u8>| Ok(seen.map_or(1, |seen| seen + 1));
        let waiting = |now: &u8| (*now < 3).then(String::new);
        let followed = follow(Duration::from_secs(60), output(), counts, waiting).await.expect("no error");
        assert_eq!((followed.last, followed.lost), (Some(3), None));
        let refused = ClientError::Url { url: String::new(), reason: "no" };
        let refused = std::sync::Mutex::new(Some(refused));
        let ask = async |_, _: Option<&u8>| Err(refused.lock().expect("not poisoned").take().expect("asked once"));
        assert!(follow(Duration::from_secs(60), output(), ask, |_| None).await.is_err());
    }
}
