//! Questions to nodes, and their answers, over real sockets.

use super::*;
use crate::api::wire::{Answers, Ask, NewQuestion, NodeAnswer, Question, Told, ToldState, UpstreamServers};
use crate::client::FeedLines;

const SOON: u64 = 200;

fn question(node: Option<&str>, wait_ms: u64) -> NewQuestion {
    NewQuestion { ask: Ask::Upstreams {}, node: node.map(|name| name.parse().expect("a name")), wait_ms }
}

fn states(answers: &Answers) -> Vec<(&str, ToldState)> {
    answers.nodes.iter().map(|node| (node.node.as_str(), node.state)).collect()
}

async fn next_question(fixture: &Fixture, lines: &mut FeedLines) -> Question {
    let mut verifier = FeedVerifier::new(fixture.origin.admin_token().signing_key, None);
    loop {
        let line = lines.next().await.expect("a line").expect("not the end");
        if let Accepted::Question(question) = verifier.accept(&line).expect("signed") {
            return *question;
        }
    }
}

#[tokio::test]
async fn a_question_reaches_the_nodes_that_follow_and_names_the_others() {
    let fixture = fixture().await;
    let (answering, mute, away) = (join(&fixture, "a").await, join(&fixture, "b").await, join(&fixture, "c").await);
    let (mut lines, _open) = (answering.feed(None, 0).await.expect("the feed"), mute.feed(None, 0).await.expect("the feed"));
    let told = Told::Upstreams(UpstreamServers { servers: vec![], more: 7 });
    let new = question(None, SOON);
    let (answers, ()) = tokio::join!(fixture.admin.question(&new), async {
        let question = next_question(&fixture, &mut lines).await;
        assert_eq!(question.ask, Some(Ask::Upstreams {}));
        let answer = NodeAnswer { question: question.id, told: told.clone() };
        away.answer(&answer).await.expect("nobody heard it");
        answering.answer(&answer).await.expect("heard");
    });
    let answers = answers.expect("answers");
    assert_eq!(states(&answers), [("a", ToldState::Answered), ("b", ToldState::Silent), ("c", ToldState::Away)]);
    assert_eq!(answers.nodes[0].told, Some(told));
    assert!(answers.nodes[0].ms.is_some_and(|ms| ms <= SOON));
    let one = fixture.admin.question(&question(Some("c"), SOON)).await.expect("answers");
    assert_eq!(states(&one), [("c", ToldState::Away)]);
    let error = fixture.admin.question(&question(Some("d"), SOON)).await.expect_err("no such node");
    assert_eq!(error.code(), Some("no_node"));
}

#[tokio::test]
async fn who_may_ask_and_who_may_answer() {
    let fixture = fixture().await;
    let node = join(&fixture, "a").await;
    let error = node.question(&question(None, SOON)).await.expect_err("nodes do not ask");
    assert_eq!(error.code(), Some("forbidden"));
    let answer = NodeAnswer { question: "q".parse().expect("an id"), told: Told::Failed("x".into()) };
    let error = fixture.admin.answer(&answer).await.expect_err("operators do not answer");
    assert_eq!(error.code(), Some("forbidden"));
}
