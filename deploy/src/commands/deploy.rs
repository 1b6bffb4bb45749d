//! `selvedge deploy`: bundle, upload, promote, wait for the nodes.

use anyhow::Context;
use selvedge_origin::api::wire::{NewDeployment, NewVersion, Promoted, RouteSpec};
use selvedge_origin::bundle::{Packed, pack};
use selvedge_origin::client::Client;
use selvedge_origin::registry::{CacheSettings, RequestId, Share, VersionRecord};
use serde_json::json;

use super::{DONE, registry, rollout};
use crate::args::DeployArgs;
use crate::bundle::bundle;
use crate::output::{Cell, Output};
use crate::project::Project;

/// Runs the command.
pub(super) async fn run(args: DeployArgs, output: Output) -> anyhow::Result<u8> {
    let project = Project::load(&args.dir)?;
    for warning in &project.warnings {
        output.warn(warning);
    }
    let packed = packed(&args, &project, output).await?;
    if args.dry_run {
        return Ok(show(&project, &packed, output));
    }
    let client = registry::connect(&args.registry)?;
    let mut version = new_version(&project, &packed);
    version.cordon.clone_from(&args.cordon);
    version.message.clone_from(&args.message);
    let (record, promoted) = publish(&client, &project, &packed, &version, args.take_over, output).await?;
    if promoted.routes.is_empty() {
        output.warn(
            "no route leads to this worker, so no request reaches it: add \"routes\" to its configuration, or name it in a site file",
        );
    }
    output.line(format!("{} version {} ({})", record.worker, record.number, record.id));
    for route in &promoted.routes {
        output.line(format!("  {}", route.pattern));
    }
    let mut document = document(&record, &promoted);
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

async fn packed(args: &DeployArgs, project: &Project, output: Output) -> anyhow::Result<Packed> {
    let bundled = bundle(&args.dir, project, output.color()).await.with_context(|| format!("bundling {}", args.dir.display()))?;
    for warning in &bundled.warnings {
        output.warn(warning);
    }
    Ok(pack(&bundled.entry, bundled.modules)?)
}

/// What the registry is told of the project; `dev` uses it too.
pub(super) fn new_version(project: &Project, packed: &Packed) -> NewVersion {
    NewVersion {
        bundle: packed.digest.clone(),
        cordon: None,
        vars: project.vars.clone(),
        compatibility_date: project.compatibility_date.clone(),
        compatibility_flags: project.compatibility_flags.clone(),
        cpu_ms: project.cpu_ms,
        subrequests_max: project.subrequests,
        message: None,
        request_id: Some(RequestId::generate()),
    }
}

/// Uploads, makes the version and gives it all of the traffic on the project's routes; `dev` uses it too.
pub(super) async fn publish(
    client: &Client,
    project: &Project,
    packed: &Packed,
    version: &NewVersion,
    take_over: bool,
    output: Output,
) -> anyhow::Result<(VersionRecord, Promoted)> {
    let worker = &project.name;
    let sent = registry::retry(|| client.upload(packed)).await.context("uploading the bundle")?;
    output.progress(format!("uploaded {sent} of {} blobs", packed.blobs.len()));
    let record = registry::retry(|| client.create_version(worker, version)).await.context("making the version")?;
    let deployment = NewDeployment {
        versions: vec![Share { version: record.id.clone(), percentage: 100.0 }],
        routes: Some(routes(project)),
        take_over,
        message: version.message.clone(),
        request_id: Some(RequestId::generate()),
    };
    let promoted = registry::retry(|| client.promote(worker, &deployment)).await.context("giving the version the traffic")?;
    Ok((record, promoted))
}

/// Its routes as the registry is told of them; `dev` uses it too.
pub(super) fn routes(project: &Project) -> Vec<RouteSpec> {
    let route = |pattern: &String| RouteSpec {
        pattern: pattern.clone(),
        worker: Some(project.name.clone()),
        upstream: None,
        redirect_to_https: false,
        compress: project.compress.clone(),
        early_hints: project.early_hints,
        cache: CacheSettings { enabled: project.cache_enabled, cross_version: project.cache_cross_version, ..CacheSettings::default() },
    };
    project.routes.iter().map(route).collect()
}

fn document(record: &VersionRecord, promoted: &Promoted) -> serde_json::Value {
    let routes: Vec<_> = promoted.routes.iter().map(|route| &route.pattern).collect();
    json!({
        "worker": record.worker, "version": record.id, "number": record.number, "bundle": record.bundle,
        "deployment": promoted.deployment.id, "seq": promoted.seq, "routes": routes,
    })
}

/// `--dry-run`: what would be uploaded.
fn show(project: &Project, packed: &Packed, output: Output) -> u8 {
    let row = |module: &selvedge_origin::bundle::ManifestModule| {
        let map = module.source_map.as_ref().map(|map| map.bytes_len.to_string()).unwrap_or_default();
        vec![
            Cell::from(module.specifier.as_str()),
            format!("{:?}", module.kind).into(),
            module.blob.bytes_len.to_string().into(),
            map.into(),
        ]
    };
    let rows: Vec<_> = packed.manifest.modules.iter().map(row).collect();
    output.line(format!("{}, bundle {}", project.name, packed.digest));
    output.table(&["module", "kind", "bytes", "source map"], &rows);
    output.document(&json!({ "worker": project.name, "bundle": packed.digest, "routes": project.routes, "manifest": packed.manifest }));
    DONE
}
