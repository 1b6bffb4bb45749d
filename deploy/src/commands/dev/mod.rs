//! `selvedge dev`: an origin and a node in this process for one folder, with the code of production; saving a file swaps the worker.

mod folder;
mod printer;
mod watch;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use selvedge_edge::config::{Flags, NodeConfig, OriginConfig as NodeOrigin};
use selvedge_edge::{Addresses, Node};
use selvedge_origin::api::wire::{NewVersion, NodeState, Promoted, WorkerNodes};
use selvedge_origin::bundle::pack;
use selvedge_origin::client::Client;
use selvedge_origin::registry::{Digest, WorkerName};
use selvedge_origin::{Origin, OriginConfig};

use super::{DONE, deploy, logging, registry, signals::Stop};
use crate::args::DevArgs;
use crate::bundle::{BundleError, Bundled, bundle};
use crate::limits::{NODES_POLL_MS, START_TIMEOUT};
use crate::output::{Output, Tone};
use crate::project::Project;
use folder::DevFolder;
use watch::Watch;

/// Runs the command.
pub(super) async fn run(args: DevArgs, output: Output) -> anyhow::Result<u8> {
    // The node's own lines would repeat what the printer shows.
    logging::start(Some("warn,worker=off,selvedge::request=off"))?;
    let mut stop = Stop::listen()?;
    // Before the configuration is read: a save while the parts start is seen.
    let since = SystemTime::now();
    // A broken configuration at the start is an error; later on it is only shown. Nothing is made in a folder that is no project.
    let project = load(&args)?;
    let folder = DevFolder::open(&args.dir)?;
    let start = async {
        let origin = Origin::start(OriginConfig::loopback(folder.origin())).await?;
        let client = Client::connect(&origin.url(), origin.admin_token())?;
        let node = start_node(&args, &folder, &origin, output).await?;
        anyhow::Ok((origin, client, node))
    };
    let Some(started) = stop.unless(start).await else { return Ok(DONE) };
    let (origin, client, node) = started?;
    let mut session = Session { args, client, output, current: None, last: None, inputs: Vec::new() };
    session.greet(&node.addresses(), &folder);
    if let Some(failed) = stop.unless(session.follow_saves(project, since)).await {
        failed?;
    }
    output.progress("stopping");
    stop.or_again(async {
        node.drain().await;
        origin.shutdown().await;
        true
    })
    .await;
    Ok(DONE)
}

/// The folder's project with the local variables over its own.
fn load(args: &DevArgs) -> anyhow::Result<Project> {
    let mut project = Project::load(&args.dir)?;
    if args.dir.join(".env").exists() && !args.dir.join(".dev.vars").exists() {
        project.warnings.push(".env: is not read; put variables for selvedge dev into .dev.vars".to_owned());
    }
    for (name, value) in Project::dev_vars(&args.dir)? {
        project.vars.insert(name, value.into());
    }
    for (name, value) in &args.var {
        project.vars.insert(name.clone(), value.clone().into());
    }
    // Whatever name and port the node is reached by. A fetch() of the project's own routes then leaves the node, as one of any other name.
    project.routes = vec!["/*".to_owned()];
    Ok(project)
}

async fn start_node(args: &DevArgs, folder: &DevFolder, origin: &Origin, output: Output) -> anyhow::Result<Node> {
    let flags = Flags {
        name: Some("dev".to_owned()),
        data: Some(folder.edge()),
        https: Some(SocketAddr::new(args.ip, args.port)),
        allow_unsandboxed: args.allow_unsandboxed,
        // A worker in the making talks to services on the same machine.
        fetch_allow: vec!["127.0.0.0/8".parse()?, "::1/128".parse()?],
        ..Flags::default()
    };
    let mut config = NodeConfig::load(flags, None)?;
    config.origin = Some(NodeOrigin { url: origin.url(), token_file: Some(origin.node_token_path()) });
    config.drain_timeout = Duration::from_secs(2);
    config.runner.arguments.push(selvedge_runner::CONSOLE_PLACES.to_owned());
    let printer = printer::start(output)?;
    let node = Node::start_observed(config, vec![printer]).await;
    node.with_context(|| format!("starting the node (is another program on port {}? --port chooses another)", args.port))
}

/// What stays the same while the worker changes.
struct Session {
    args: DevArgs,
    client: Client,
    output: Output,
    /// The worker that takes the traffic.
    current: Option<WorkerName>,
    /// What it was made of, to see whether a save changed anything.
    last: Option<(Digest, String)>,
    /// What the last good bundle was made of: what is missing now may come back.
    inputs: Vec<PathBuf>,
}

impl Session {
    fn greet(&self, addresses: &Addresses, folder: &DevFolder) {
        if let Some(address) = addresses.https {
            let host = if address.ip().is_loopback() { "localhost".to_owned() } else { address.ip().to_string() };
            self.output.line(format!(
                "{} (HTTP/1.1, HTTP/2, HTTP/3)",
                self.output.paint(&format!("https://{host}:{}", address.port()), Tone::Good)
            ));
            self.output.line(format!("its certificate is from {}", folder.edge().join("authority/ca.pem").display()));
            if self.args.print_addresses {
                self.output.machine_line(&serde_json::json!({ "https": address }));
            }
        }
    }

    /// Swaps in the project, and again whenever a file of it is saved. Ends with an error only, where the node does not come up.
    async fn follow_saves(&mut self, project: Project, since: SystemTime) -> anyhow::Result<()> {
        // Before the first worker comes, so that its time is its own.
        registry::wait_for_nodes(&self.client, 1, self.output.quiet()).await?;
        let (mut watch, mut project, mut since) = (Watch::new(), Ok(project), since);
        loop {
            watch.replace(self.swap(project).await, since);
            watch.changed().await;
            since = SystemTime::now();
            project = load(&self.args);
        }
    }

    /// Bundles the project and gives it the traffic; says what went wrong otherwise, and the old version goes on. Gives the files to
    /// watch.
    async fn swap(&mut self, project: anyhow::Result<Project>) -> Vec<PathBuf> {
        let start = Instant::now();
        let mut inputs = configuration(&self.args.dir);
        let project = match project {
            Ok(project) => project,
            Err(error) => {
                self.failed(&format!("{error:#}"));
                inputs.extend(self.inputs.iter().cloned());
                return inputs;
            }
        };
        match bundle(&self.args.dir, &project, self.output.color()).await {
            Ok(bundled) => {
                self.inputs.clone_from(&bundled.inputs);
                inputs.extend(bundled.inputs.iter().cloned());
                if let Err(error) = self.publish(&project, bundled, start).await {
                    self.failed(&format!("{error:#}"));
                }
            }
            Err(BundleError { reports, inputs: read }) => {
                inputs.extend(read.into_iter().chain([self.args.dir.join(&project.main)]).chain(self.inputs.iter().cloned()));
                self.failed(&reports.join("\n"));
            }
        }
        inputs
    }

    fn failed(&self, text: &str) {
        let rest = if self.current.is_some() { "the old version goes on" } else { "waiting for a change" };
        self.output.warn(format!("{text}\n{rest}"));
    }

    async fn publish(&mut self, project: &Project, bundled: Bundled, start: Instant) -> anyhow::Result<()> {
        let Bundled { entry, modules, warnings, .. } = bundled;
        let packed = pack(&entry, modules)?;
        let version = deploy::new_version(project, &packed);
        let made_of = (packed.digest.clone(), settings(project, &version));
        if self.last.as_ref() == Some(&made_of) {
            return Ok(());
        }
        for warning in project.warnings.iter().chain(&warnings) {
            self.output.warn(warning);
        }
        // From here on what takes the traffic may be another: going back to what it was is a change too.
        self.last = None;
        let quiet = self.output.quiet();
        let (record, promoted) = deploy::publish(&self.client, project, &packed, &version, true, quiet).await?;
        self.wait_until_active(&project.name, &promoted).await?;
        let verb = if self.current.is_some() { "swapped in" } else { "ready" };
        self.output.line(format!("{} version {} {verb} after {} ms", project.name, record.number, start.elapsed().as_millis()));
        self.last = Some(made_of);
        let before = self.current.replace(project.name.clone());
        if let Some(old) = before.filter(|old| *old != project.name) {
            self.client.delete_worker(&old, &Default::default()).await?;
        }
        Ok(())
    }

    async fn wait_until_active(&self, worker: &WorkerName, promoted: &Promoted) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        let mut seen: Option<WorkerNodes> = None;
        loop {
            let nodes = self.client.worker_nodes(worker, promoted.seq, Duration::from_millis(NODES_POLL_MS), seen.as_ref()).await?;
            match nodes.nodes.first() {
                Some(node) if node.state == NodeState::Active => return Ok(()),
                Some(node) if node.state == NodeState::Refused => {
                    anyhow::bail!("{}", node.reason.as_deref().unwrap_or("the node refuses it"))
                }
                _ => {}
            }
            if Instant::now() >= deadline {
                let why = nodes.nodes.first().and_then(|node| node.reason.as_ref()).map(|why| format!(": {why}")).unwrap_or_default();
                anyhow::bail!("the node did not take the version within {START_TIMEOUT:?}{why}");
            }
            seen = Some(nodes);
        }
    }
}

/// Everything that the registry is told beside the bundle.
fn settings(project: &Project, version: &NewVersion) -> String {
    let version = NewVersion { request_id: None, ..version.clone() };
    format!("{} {:?} {version:?}", project.name, deploy::routes(project))
}

/// The files that say what to bundle.
fn configuration(dir: &Path) -> Vec<PathBuf> {
    crate::project::FILE_NAMES.iter().copied().chain([".dev.vars"]).map(|name| dir.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use selvedge_origin::bundle::{ModuleKind, PackModule};

    use super::*;
    use crate::project::Format;

    /// What a save of a wrangler file with these keys would tell the registry beside the bundle.
    fn told(keys: &str) -> String {
        let text = format!(r#"{{"name": "w", "main": "index.js", "compatibility_date": "2026-08-01"{keys}}}"#);
        let project = Project { routes: vec!["/*".to_owned()], ..Project::parse(Format::Json, &text).expect("reads") };
        let module = PackModule { specifier: "index.js".into(), kind: ModuleKind::EsModule, bytes: Default::default(), source_map: None };
        settings(&project, &deploy::new_version(&project, &pack("index.js", vec![module]).expect("packs")))
    }

    #[test]
    fn a_save_of_any_one_key_is_a_change_and_a_save_of_the_same_is_none() {
        let keys = [
            "",
            r#", "vars": {"A": 1}"#,
            r#", "compatibility_flags": ["nodejs_compat"]"#,
            r#", "limits": {"cpu_ms": 50}"#,
            r#", "limits": {"subrequests": 5}"#,
            r#", "cache": {"enabled": true}"#,
            r#", "compress": {"enabled": false}"#,
            r#", "compress": {"min_bytes": 9}"#,
            r#", "early_hints": true"#,
        ];
        let all: std::collections::BTreeSet<_> = keys.iter().map(|keys| told(keys)).collect();
        assert_eq!(all.len(), keys.len(), "{all:#?}");
        assert!(keys.iter().all(|keys| all.contains(&told(keys))), "the same again says the same");
    }

    /// A session without a registry, in a folder with one good source.
    fn session() -> (tempfile::TempDir, Session) {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("wrangler.jsonc"), r#"{"name": "w", "main": "src/index.js", "compatibility_date": "2026-08-01"}"#)
            .expect("writes");
        std::fs::create_dir(dir.path().join("src")).expect("makes");
        save(dir.path(), "export default {}");
        let key = selvedge_origin::keys::SigningKey::generate().expect("random bytes");
        let token = selvedge_origin::tokens::Token::generate().expect("random bytes");
        let kind = selvedge_origin::tokens::TokenKind::Admin;
        let token = selvedge_origin::tokens::TokenFile { kind, token, authority: None, signing_key: key.public() };
        // Nobody listens at port 1.
        let client = Client::connect("http://127.0.0.1:1", &token).expect("a client");
        let args = DevArgs {
            dir: dir.path().canonicalize().expect("a folder"),
            port: 0,
            ip: [127, 0, 0, 1].into(),
            var: vec![],
            allow_unsandboxed: false,
            print_addresses: false,
        };
        let output = Output::new(true).quiet();
        (dir, Session { args, client, output, current: None, last: None, inputs: Vec::new() })
    }

    fn save(dir: &Path, script: &str) {
        std::fs::write(dir.join("src/index.js"), script).expect("writes");
    }

    #[tokio::test]
    async fn sources_are_watched_while_they_are_away() {
        let (dir, mut session) = session();
        std::fs::write(dir.path().join("src/part.js"), "export const part = 1").expect("writes");
        save(dir.path(), "import { part } from './part.js'; export default { part }");
        let (main, part) = (session.args.dir.join("src/index.js"), session.args.dir.join("src/part.js"));
        let good = session.swap(load(&session.args)).await;
        assert!(good.contains(&main) && good.contains(&part), "{good:?}");
        std::fs::rename(dir.path().join("src"), dir.path().join("away")).expect("moves");
        let missing = session.swap(load(&session.args)).await;
        assert!(missing.contains(&main) && missing.contains(&part), "{missing:?}");
        std::fs::write(dir.path().join("wrangler.jsonc"), "{").expect("writes");
        let broken = session.swap(load(&session.args)).await;
        assert!(broken.contains(&part), "{broken:?}");
    }

    #[tokio::test]
    async fn going_back_after_a_failure_is_a_change() {
        let (dir, mut session) = session();
        let project = load(&session.args).expect("a project");
        let bundled = bundle(dir.path(), &project, false).await.expect("a bundle");
        let packed = pack(&bundled.entry, bundled.modules).expect("packs");
        let runs = (packed.digest.clone(), settings(&project, &deploy::new_version(&project, &packed)));
        session.last = Some(runs.clone());
        session.swap(load(&session.args)).await;
        assert_eq!(session.last, Some(runs), "the same again is no change");
        save(dir.path(), "export default { other: true }");
        session.swap(load(&session.args)).await;
        assert_eq!(session.last, None, "how far it came is not known");
    }
}
