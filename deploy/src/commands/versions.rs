//! `selvedge versions`: the kept versions of a worker, newest first.

use selvedge_origin::api::wire::VersionList;
use selvedge_origin::registry::VersionRecord;

use super::{DONE, registry};
use crate::args::VersionsArgs;
use crate::output::{Cell, Output, Tone};

/// Runs the command.
pub(super) async fn run(args: VersionsArgs, output: Output) -> anyhow::Result<u8> {
    let worker = args.name;
    let client = registry::connect(&args.registry)?;
    let list = registry::retry(|| client.versions(&worker)).await?;
    output.document(&serde_json::to_value(&list)?);
    let rows: Vec<_> = list.versions.iter().map(|version| row(version, &list)).collect();
    output.table(&["number", "version", "made", "traffic", "message"], &rows);
    Ok(DONE)
}

fn row(version: &VersionRecord, list: &VersionList) -> Vec<Cell> {
    let share = list.deployment.iter().flat_map(|deployment| &deployment.versions).find(|share| share.version == version.id);
    let traffic = share.map_or_else(|| Cell::from(""), |share| Cell::new(format!("{} %", share.percentage), Tone::Good));
    let message = version.message.clone().unwrap_or_default();
    vec![
        version.number.to_string().into(),
        version.id.as_str().into(),
        registry::moment(version.created_ms).into(),
        traffic,
        message.into(),
    ]
}
