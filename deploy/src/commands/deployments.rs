//! `selvedge deployments`: the kept deployments of a worker, newest first.

use std::collections::BTreeMap;

use selvedge_origin::registry::{Deployment, VersionId};

use super::{DONE, registry};
use crate::args::DeploymentsArgs;
use crate::output::{Cell, Output};

/// Runs the command.
pub(super) async fn run(args: DeploymentsArgs, output: Output) -> anyhow::Result<u8> {
    let client = registry::connect(&args.registry)?;
    let list = registry::retry(|| client.deployments(&args.name)).await?;
    output.document(&serde_json::to_value(&list)?);
    // Versions that are not kept any more have no number here.
    let versions = registry::retry(|| client.versions(&args.name)).await?.versions;
    let numbers: BTreeMap<_, _> = versions.iter().map(|version| (&version.id, version.number)).collect();
    let rows: Vec<_> = list.deployments.iter().map(|deployment| row(deployment, &numbers)).collect();
    output.table(&["made", "versions", "deployment", "message"], &rows);
    Ok(DONE)
}

fn row(deployment: &Deployment, numbers: &BTreeMap<&VersionId, u64>) -> Vec<Cell> {
    let share = |share: &selvedge_origin::registry::Share| {
        let number = numbers.get(&share.version).map_or_else(|| share.version.to_string(), u64::to_string);
        if deployment.versions.len() == 1 { number } else { format!("{number} ({} %)", share.percentage) }
    };
    let shares: Vec<_> = deployment.versions.iter().map(share).collect();
    let message = deployment.message.clone().unwrap_or_default();
    vec![registry::moment(deployment.created_ms).into(), shares.join(", ").into(), deployment.id.as_str().into(), message.into()]
}
