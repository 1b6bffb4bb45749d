//! `selvedge upstreams`: how each node finds the servers of upstreams.

use selvedge_origin::api::wire::{Ask, Told, UpstreamServer};
use serde_json::json;

use super::questions::{self, Verdict};
use crate::args::UpstreamsArgs;
use crate::output::{Cell, Output, Tone};

/// Runs the command.
pub(super) async fn run(args: UpstreamsArgs, output: Output) -> anyhow::Result<u8> {
    let answers = questions::ask(Ask::Upstreams {}, &args.asking).await?;
    let verdict = Verdict::of(&answers);
    let (mut rows, mut more) = (Vec::new(), 0);
    for node in &answers.nodes {
        if let Some(Told::Upstreams(upstreams)) = &node.told {
            rows.extend(upstreams.servers.iter().map(|server| row(node.node.as_str(), server)));
            more += upstreams.more;
        }
    }
    if rows.is_empty() {
        output.line("no node routes to an upstream");
    } else {
        output.table(&["node", "upstream", "server", "state", "requests", "failures", "ejections", "in flight", "queued"], &rows);
    }
    if more > 0 {
        output.line(format!("and {more} more"));
    }
    questions::warn(&answers, args.asking.connected_only, output);
    output.document(&json!({ "result": verdict.name(), "nodes": answers.nodes }));
    Ok(verdict.code(args.asking.connected_only))
}

fn row(node: &str, server: &UpstreamServer) -> Vec<Cell> {
    let state = if server.up { Cell::new("up", Tone::Good) } else { Cell::new("down", Tone::Bad) };
    let numbers = [server.requests, server.failures, server.ejections, server.in_flight as u64, server.queued as u64];
    let texts = [node, &server.upstream, &server.address].map(Cell::from);
    texts.into_iter().chain([state]).chain(numbers.map(|number| number.to_string().into())).collect()
}
