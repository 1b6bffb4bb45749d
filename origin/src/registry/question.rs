//! The rule for questions: what is asked is bounded, and whom is known.

use super::version::bad;
use super::{NodeName, Refusal, State, address};
use crate::api::wire::{Ask, ExplainAsk, NewQuestion};
use crate::limits::{PURGE_URL_BYTES_MAX, QUESTION_FIELDS_BYTES_MAX, QUESTION_FIELDS_MAX, QUESTION_METHOD_BYTES_MAX};

/// The nodes that a question is for, with their regions.
pub fn question(state: &State, new: &NewQuestion) -> Result<Vec<(NodeName, String)>, Refusal> {
    match &new.ask {
        Ask::Explain(ask) => explain(ask)?,
        Ask::Upstreams {} => {}
    }
    let nodes = state.nodes().iter().filter(|(name, _)| new.node.as_ref().is_none_or(|node| node == *name));
    let nodes: Vec<_> = nodes.map(|(name, record)| (name.clone(), record.region.clone())).collect();
    match &new.node {
        Some(node) if nodes.is_empty() => Err(Refusal::NoNode { node: node.clone() }),
        _ => Ok(nodes),
    }
}

fn explain(ask: &ExplainAsk) -> Result<(), Refusal> {
    if ask.url.len() > PURGE_URL_BYTES_MAX {
        return Err(bad("URL", format!("at most {PURGE_URL_BYTES_MAX} bytes")));
    }
    address::url(&ask.url).map_err(|rule| bad(&format!("URL {:?}", ask.url.chars().take(120).collect::<String>()), rule.to_owned()))?;
    if ask.method.is_empty() || ask.method.len() > QUESTION_METHOD_BYTES_MAX {
        return Err(bad("method", format!("1 to {QUESTION_METHOD_BYTES_MAX} bytes")));
    }
    if ask.headers.len() > QUESTION_FIELDS_MAX {
        return Err(Refusal::Limit { what: "header fields of a question".to_owned(), max: QUESTION_FIELDS_MAX });
    }
    let bytes: usize = ask.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > QUESTION_FIELDS_BYTES_MAX {
        return Err(bad("header fields", format!("at most {QUESTION_FIELDS_BYTES_MAX} bytes together")));
    }
    Ok(())
}

/// For tests/fuzz: any bytes as a question, as it comes over the feed, as an answer, and as all answers.
pub fn fuzz(bytes: &[u8]) {
    use crate::api::wire::{Answers, NodeAnswer, Question};
    if let Ok(new) = serde_json::from_slice::<NewQuestion>(bytes)
        && question(&State::default(), &new).is_ok()
        && let Ask::Explain(ask) = &new.ask
    {
        assert!(ask.url.len() <= PURGE_URL_BYTES_MAX && ask.headers.len() <= QUESTION_FIELDS_MAX);
    }
    let _ = serde_json::from_slice::<Question>(bytes);
    let _ = serde_json::from_slice::<NodeAnswer>(bytes);
    let _ = serde_json::from_slice::<Answers>(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(url: &str, headers: Vec<(String, String)>) -> NewQuestion {
        let ask = ExplainAsk { url: url.to_owned(), method: "GET".to_owned(), headers };
        NewQuestion { ask: Ask::Explain(ask), node: None, wait_ms: 1 }
    }

    #[test]
    fn what_is_asked_is_bounded_and_named() {
        let state = State::default();
        assert_eq!(question(&state, &asked("https://a.org/x", vec![])), Ok(vec![]));
        let field = |bytes: usize| ("x".to_owned(), "y".repeat(bytes));
        for (new, word) in [
            (asked("ftp://a.org/", vec![]), "scheme"),
            (asked(&format!("a.org/{}", "x".repeat(PURGE_URL_BYTES_MAX)), vec![]), "at most"),
            (asked("a.org/", vec![field(1); QUESTION_FIELDS_MAX + 1]), "at most"),
            (asked("a.org/", vec![field(QUESTION_FIELDS_BYTES_MAX)]), "together"),
            (
                NewQuestion { ask: Ask::Explain(ExplainAsk { url: "a.org/".into(), ..ExplainAsk::default() }), ..asked("", vec![]) },
                "method",
            ),
            (NewQuestion { node: Some("n".parse().expect("a name")), ..asked("a.org/", vec![]) }, "no node n"),
        ] {
            let refused = question(&state, &new).expect_err(word).to_string();
            assert!(refused.contains(word), "{refused}");
        }
    }

    #[test]
    fn a_question_of_a_later_registry_is_one_that_is_not_known() {
        use crate::api::wire::Question;
        let read = |text: &str| serde_json::from_str::<Question>(text).map(|question| question.ask);
        assert_eq!(read(r#"{"id":"a","ask":{"upstreams":{}}}"#).expect("JSON"), Some(Ask::Upstreams {}));
        assert_eq!(read(r#"{"id":"a","ask":{"tomorrow":[1]}}"#).expect("JSON"), None);
        assert!(read(r#"{"id":"a"}"#).is_err());
    }
}
