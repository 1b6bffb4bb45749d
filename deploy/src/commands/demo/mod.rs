//! `selvedge demo`: the product on loopback. An origin, edge nodes and an upstream, each its own process of this very program, two
//! workers deployed to them, each node asked over HTTP/3, one table.

mod ask;
mod cases;
mod child;
pub(super) mod upstream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use selvedge_origin::api::wire::{RouteSpec, SiteApply};
use selvedge_origin::bundle::pack;
use selvedge_origin::client::Client;
use selvedge_origin::registry::{CacheSettings, NodeName, RequestId};
use selvedge_origin::tokens::TokenFile;

use super::rollout::{self, Verdict};
use super::{DONE, FAILED, deploy, registry, signals::Stop};
use crate::args::DemoArgs;
use crate::bundle::bundle;
use crate::limits::START_TIMEOUT;
use crate::output::{Output, Tone};
use crate::project::Project;
use child::Child;

/// The hosts of the demonstration. Names under `localhost` are this machine, for browsers too (RFC 6761 section 6.3).
pub(super) const HELLO: &str = "hello.localhost";
pub(super) const SHOP: &str = "shop.localhost";
pub(super) const SITE: &str = "www.localhost";

/// Runs the command.
pub(super) async fn run(args: DemoArgs, output: Output) -> anyhow::Result<u8> {
    let mut stop = Stop::listen()?;
    let dir = tempfile::Builder::new().prefix("selvedge-demo-").tempdir().context("a temporary folder for the data")?;
    let mut parts = Vec::new();
    let code = tokio::select! {
        code = show(&args, dir.path(), &mut parts, output) => code,
        () = stop.wait() => Ok(FAILED),
    };
    let code = match code {
        Ok(code) if !args.once && code == DONE => stay(&mut parts, &mut stop, output).await,
        code => code,
    };
    output.progress("stopping");
    for part in parts.into_iter().rev() {
        part.stop().await;
    }
    code
}

/// Starts everything, asks every node, prints the table and where things are.
async fn show(args: &DemoArgs, dir: &Path, parts: &mut Vec<Child>, output: Output) -> anyhow::Result<u8> {
    output.progress("starting an upstream, the origin and the nodes");
    let upstream = part(parts, Child::start("upstream", &["demo-upstream"], dir).await?);
    let upstream = address(upstream, "address")?;
    let data = dir.join("origin");
    let origin = ["origin", "--data", text(&data)?, "--listen", "127.0.0.1:0", "--print-addresses"];
    let origin = part(parts, Child::start("origin", &origin, dir).await?);
    let url = origin.get("url").and_then(serde_json::Value::as_str).context("the origin printed no url")?.to_owned();
    let mut nodes = Vec::new();
    for number in 1..=args.nodes {
        nodes.push(start_node(args, number, &url, dir, parts, None).await?);
    }
    let client = Client::connect(&url, &TokenFile::read(&data.join("admin.token"))?)?;
    registry::wait_for_nodes(&client, nodes.len(), output).await?;
    for (name, main) in [("hello", None), ("shop", args.without_npm.then_some("src/index.plain.ts"))] {
        deploy_example(&client, &args.examples.join(name), main, output).await?;
    }
    declare_site(&client, upstream, output).await?;
    for (number, node) in (1..).zip(&mut nodes) {
        *node = restart(args, number, &url, dir, parts, node, output).await?;
    }
    let results = cases::run(&nodes, output).await?;
    cases::print(&results, output);
    let good = results.iter().all(|result| result.problem.is_none());
    if !good {
        output.warn("not every answer was as it should be");
    }
    if !args.once {
        where_things_are(&nodes, &url, &data, output);
    }
    Ok(if good { DONE } else { FAILED })
}

/// A node of the demonstration.
pub(super) struct DemoNode {
    /// Its name.
    pub(super) name: String,
    /// Where it speaks https.
    pub(super) https: SocketAddr,
    /// Where it speaks cleartext.
    pub(super) http: SocketAddr,
    /// Where its metrics are.
    pub(super) admin: SocketAddr,
    /// The certificate of its authority.
    pub(super) authority: PathBuf,
}

/// Starts a node, at the addresses of the one that it replaces, or at the kernel's choice.
async fn start_node(
    args: &DemoArgs,
    number: u8,
    url: &str,
    dir: &Path,
    parts: &mut Vec<Child>,
    before: Option<&DemoNode>,
) -> anyhow::Result<DemoNode> {
    let name = format!("edge-{number}");
    let (data, token) = (dir.join(&name), dir.join("origin/node.token"));
    let region = format!("region-{number}");
    let at = |address: Option<SocketAddr>| address.map_or_else(|| "127.0.0.1:0".to_owned(), |address| address.to_string());
    let (https, http, admin) = (at(before.map(|n| n.https)), at(before.map(|n| n.http)), at(before.map(|n| n.admin)));
    let mut flags =
        vec!["edge", "--name", &name, "--region", &region, "--origin", url, "--token-file", text(&token)?, "--data", text(&data)?];
    flags.extend(["--https", &https, "--http", &http, "--admin", &admin, "--print-addresses"]);
    if args.allow_unsandboxed {
        flags.push("--allow-unsandboxed");
    }
    let addresses = part(parts, Child::start(&name, &flags, dir).await?);
    let (https, http, admin) = (address(addresses, "https")?, address(addresses, "http")?, address(addresses, "admin")?);
    let authority = data.join("authority/ca.pem");
    Ok(DemoNode { https, http, admin, authority, name })
}

/// Restarts a node, which serves what is on its disk and loads a worker when the first request comes: a true cold start.
async fn restart(
    args: &DemoArgs,
    number: u8,
    url: &str,
    dir: &Path,
    parts: &mut Vec<Child>,
    node: &DemoNode,
    output: Output,
) -> anyhow::Result<DemoNode> {
    output.step(format!("restarting {}", node.name));
    if let Some(index) = parts.iter().position(|part| part.name() == node.name) {
        parts.remove(index).stop().await;
    }
    let started = start_node(args, number, url, dir, parts, Some(node)).await;
    output.step_done();
    started
}

/// Keeps the process and gives what it printed.
fn part(parts: &mut Vec<Child>, child: Child) -> &serde_json::Value {
    parts.push(child);
    // One was just pushed.
    parts.last().map_or(&serde_json::Value::Null, |child| &child.ready)
}

fn address(printed: &serde_json::Value, key: &str) -> anyhow::Result<SocketAddr> {
    let address = printed.get(key).and_then(serde_json::Value::as_str).and_then(|text| text.parse().ok());
    address.with_context(|| format!("no {key} address in {printed}"))
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{}: not UTF-8", path.display()))
}

async fn deploy_example(client: &Client, dir: &Path, main: Option<&str>, output: Output) -> anyhow::Result<()> {
    let mut project = Project::load(dir).with_context(|| "the examples (run it at the root of the repository, or say --examples DIR)")?;
    if let Some(main) = main {
        project.main = main.into();
    }
    output.progress(format!("deploying {}", dir.display()));
    let bundled = bundle(dir, &project, output.color())
        .await
        .with_context(|| format!("bundling {} (is its npm dependency installed? --without-npm deploys it without)", dir.display()))?;
    let packed = pack(&bundled.entry, bundled.modules)?;
    let version = deploy::new_version(&project, &packed);
    let (record, promoted) = deploy::publish(client, &project, &packed, &version, false, output.quiet()).await?;
    let (verdict, nodes) = rollout::settle(client, &promoted, START_TIMEOUT, output).await?;
    if verdict != Verdict::Active {
        rollout::print(verdict, &nodes, output);
        anyhow::bail!("{} is not active on every node", record.worker);
    }
    let slowest = nodes.iter().filter_map(|node| node.ms).max().unwrap_or_default();
    output.progress(format!("{} runs on {} nodes, {slowest} ms after the commit", record.worker, nodes.len()));
    Ok(())
}

/// A site file's worth: one route to the upstream.
async fn declare_site(client: &Client, upstream: SocketAddr, output: Output) -> anyhow::Result<()> {
    let site: NodeName = "demo".parse()?;
    let route = RouteSpec {
        pattern: format!("{SITE}/*"),
        worker: None,
        upstream: Some(format!("http://{upstream}").into()),
        redirect_to_https: false,
        compress: Default::default(),
        early_hints: false,
        cache: CacheSettings::default(),
    };
    let apply = SiteApply { routes: vec![route], request_id: Some(RequestId::generate()), ..SiteApply::default() };
    output.progress(format!("applying a site: {SITE}/* -> http://{upstream}"));
    let applied = client.apply_site(&site, &apply).await?;
    let seq = applied.seq.context("the origin wrote nothing for the site")?;
    let followed = async {
        loop {
            let nodes = client.nodes().await?;
            let behind = nodes.iter().filter(|node| node.report.as_ref().is_none_or(|report| report.seq < seq)).count();
            if behind == 0 {
                return Ok::<_, anyhow::Error>(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(START_TIMEOUT, followed).await.context("the nodes did not follow the site in time")?
}

fn where_things_are(nodes: &[DemoNode], url: &str, data: &Path, output: Output) {
    output.line("");
    for node in nodes {
        let port = node.https.port();
        output.line(format!("{}  https://{HELLO}:{port}/  https://{SHOP}:{port}/  https://{SITE}:{port}/", node.name));
        output.line(
            output.paint(&format!("        metrics http://{}/metrics  authority {}", node.admin, node.authority.display()), Tone::Dim),
        );
    }
    let program = std::env::current_exe().unwrap_or_else(|_| "selvedge".into());
    let token = data.join("admin.token");
    output.line(format!("origin  {} status --origin {url} --token-file {}", program.display(), token.display()));
}

/// Stays up until told to stop, or until a part ends by itself.
async fn stay(parts: &mut [Child], stop: &mut Stop, output: Output) -> anyhow::Result<u8> {
    output.line("\nup until Ctrl-C");
    let mut ended = parts.iter_mut().map(|part| Box::pin(part.ended())).collect::<Vec<_>>();
    tokio::select! {
        () = stop.wait() => Ok(DONE),
        (text, _, _) = futures::future::select_all(ended.iter_mut()) => Err(anyhow::anyhow!(text)),
    }
}
