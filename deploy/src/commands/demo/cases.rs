//! What each node is asked, what the answer must be, and the table of it.

use super::ask::{Answer, Connection};
use super::upstream::PAGE;
use super::{DemoNode, HELLO, SHOP, SITE};
use crate::output::{Cell, Output, Tone};

/// One line of the table.
struct Case {
    name: &'static str,
    host: &'static str,
    path: &'static str,
    /// The body has this in it.
    body: &'static str,
    cache: Cache,
}

/// What `Cache-Status` (RFC 9211) must say.
#[derive(Clone, Copy)]
enum Cache {
    Hit,
    Forwarded,
    Any,
}

const CASES: [Case; 4] = [
    Case { name: "cold start", host: HELLO, path: "/cold", body: "Hello from /cold over HTTP/3", cache: Cache::Any },
    Case { name: "warm worker", host: HELLO, path: "/warm", body: "Hello from /warm over HTTP/3", cache: Cache::Any },
    Case { name: "cache hit", host: SHOP, path: "/products", body: "Selvedge denim", cache: Cache::Hit },
    Case { name: "upstream miss", host: SITE, path: "/", body: PAGE, cache: Cache::Forwarded },
];

/// How one case went on one node.
pub(super) struct Outcome {
    node: String,
    case: &'static str,
    status: u16,
    ms: f64,
    cache_status: String,
    /// What is wrong with the answer.
    pub(super) problem: Option<String>,
}

/// Asks every node.
pub(super) async fn run(nodes: &[DemoNode], output: Output) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for node in nodes {
        output.step(format!("asking {} over HTTP/3", node.name));
        for case in &CASES {
            let outcome = ask(node, case).await.unwrap_or_else(|error| Outcome {
                node: node.name.clone(),
                case: case.name,
                status: 0,
                ms: 0.0,
                cache_status: String::new(),
                problem: Some(format!("{error:#}")),
            });
            outcomes.push(outcome);
        }
    }
    output.step_done();
    Ok(outcomes)
}

async fn ask(node: &DemoNode, case: &Case) -> anyhow::Result<Outcome> {
    let mut connection = Connection::open(node.https, case.host, &node.authority).await?;
    if matches!(case.cache, Cache::Hit) {
        // The first one runs the worker and is stored.
        connection.get(case.host, case.path).await?;
    }
    if case.name == "warm worker" {
        connection.get(case.host, case.path).await?;
    }
    let answer = connection.get(case.host, case.path).await?;
    let cache_status = field(&answer, "cache-status");
    Ok(Outcome {
        node: node.name.clone(),
        case: case.name,
        status: answer.status,
        ms: answer.time.as_secs_f64() * 1_000.0,
        problem: problem(case, &answer, &cache_status),
        cache_status,
    })
}

fn problem(case: &Case, answer: &Answer, cache_status: &str) -> Option<String> {
    if answer.status != 200 {
        return Some(format!("status {}, not 200 ({})", answer.status, field(answer, "proxy-status")));
    }
    if !String::from_utf8_lossy(&answer.body).contains(case.body) {
        return Some(format!("{:?} is not in the body", case.body));
    }
    let parameters: Vec<_> = cache_status.split([';', ',']).map(str::trim).collect();
    let hit = parameters.contains(&"hit");
    let forwarded = parameters.iter().any(|parameter| parameter.starts_with("fwd="));
    match case.cache {
        Cache::Hit if !hit => Some("Cache-Status says no hit".to_owned()),
        Cache::Forwarded if hit || !forwarded => Some("Cache-Status does not say that it was forwarded".to_owned()),
        _ => None,
    }
}

fn field(answer: &Answer, name: &str) -> String {
    let values: Vec<_> = answer.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(", ")
}

/// Prints the table.
pub(super) fn print(outcomes: &[Outcome], output: Output) {
    let row = |outcome: &Outcome| {
        let tone = if outcome.problem.is_none() { Tone::Good } else { Tone::Bad };
        let status = if outcome.status == 0 { "none".to_owned() } else { outcome.status.to_string() };
        vec![
            Cell::from(outcome.node.as_str()),
            outcome.case.into(),
            Cell::new(status, tone),
            "HTTP/3".into(),
            format!("{:.1}", outcome.ms).into(),
            outcome.cache_status.as_str().into(),
            Cell::new(outcome.problem.clone().unwrap_or_default(), Tone::Bad),
        ]
    };
    let rows: Vec<_> = outcomes.iter().map(row).collect();
    output.line("");
    output.table(&["node", "request", "status", "protocol", "ms", "Cache-Status", ""], &rows);
    output.line(output.paint("cold start: the first request for the worker after the node was restarted", Tone::Dim));
    let document = |outcome: &Outcome| {
        serde_json::json!({ "node": outcome.node, "request": outcome.case, "status": outcome.status, "protocol": "HTTP/3", "ms": outcome.ms,
            "cache_status": outcome.cache_status, "problem": outcome.problem })
    };
    output.document(&outcomes.iter().map(document).collect());
}
