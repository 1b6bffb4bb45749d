//! `selvedge rollback`: a new deployment that names an older version.

use std::collections::BTreeMap;

use selvedge_origin::api::wire::Rollback;
use selvedge_origin::client::Client;
use selvedge_origin::registry::{RequestId, VersionId, WorkerName};
use serde_json::json;

use super::{DONE, registry, rollout};
use crate::args::RollbackArgs;
use crate::output::Output;

/// Runs the command.
pub(super) async fn run(args: RollbackArgs, output: Output) -> anyhow::Result<u8> {
    let worker = args.name;
    let client = registry::connect(&args.registry)?;
    let version = match &args.to {
        Some(text) => Some(find(&client, &worker, text).await?),
        None => None,
    };
    let rollback = Rollback { version, message: args.message.clone(), request_id: Some(RequestId::generate()) };
    let promoted = registry::retry(|| client.rollback(&worker, &rollback)).await?;
    let versions: Vec<_> = promoted.deployment.versions.iter().map(|share| share.version.as_str()).collect();
    let numbers = numbers(&client, &worker).await;
    let named: Vec<_> = promoted.deployment.versions.iter().map(|share| numbered(&share.version, &numbers)).collect();
    output.line(format!("{worker} goes back to version {}", named.join(", ")));
    let mut document = json!({ "worker": worker, "versions": versions, "deployment": promoted.deployment.id, "seq": promoted.seq });
    if args.waiting.no_wait {
        document["result"] = json!("not_waited");
        output.document(&document);
        return Ok(DONE);
    }
    let (verdict, nodes) = rollout::settle(&client, &promoted, args.waiting.wait, output).await?;
    rollout::print(verdict, &nodes, output);
    document["result"] = json!(verdict.name());
    document["nodes"] = json!(nodes);
    output.document(&document);
    Ok(verdict.code())
}

/// The numbers of a worker's kept versions; none where they cannot be asked for now.
pub(super) async fn numbers(client: &Client, worker: &WorkerName) -> BTreeMap<VersionId, u64> {
    let list = registry::retry(|| client.versions(worker)).await;
    list.map(|list| list.versions.into_iter().map(|version| (version.id, version.number)).collect()).unwrap_or_default()
}

/// `3 (0198…)`: a version's number, as far as it is known, and its id.
pub(super) fn numbered(version: &VersionId, numbers: &BTreeMap<VersionId, u64>) -> String {
    numbers.get(version).map_or_else(|| version.to_string(), |number| format!("{number} ({version})"))
}

/// The version that the text names: its id, the beginning of it, or its number.
async fn find(client: &Client, worker: &WorkerName, text: &str) -> anyhow::Result<VersionId> {
    let list = registry::retry(|| client.versions(worker)).await?;
    // A number wins over the beginning of an id: `12` is version 12, whatever ids begin with it.
    if let Some(version) = list.versions.iter().find(|version| version.number.to_string() == text) {
        return Ok(version.id.clone());
    }
    let mut found = list.versions.iter().filter(|version| !text.is_empty() && version.id.as_str().starts_with(text));
    match (found.next(), found.next()) {
        (Some(version), None) => Ok(version.id.clone()),
        (Some(_), Some(_)) => anyhow::bail!("{text:?} is the beginning of several versions of {worker}; give more of the id"),
        _ => anyhow::bail!("{worker} has no version {text:?}; `selvedge versions {worker}` lists them"),
    }
}
