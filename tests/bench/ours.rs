//! Selvedge under measurement: the release binary as an origin and one edge node, workers deployed through the API.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use selvedge_origin::api::wire::{NewDeployment, NewPurge, NewVersion, RouteSpec, SiteApply};
use selvedge_origin::bundle::{ModuleKind, PackModule, pack};
use selvedge_origin::client::Client;
use selvedge_origin::registry::{CacheSettings, Share};
use selvedge_origin::tokens::TokenFile;

use crate::process::{ALL_CORES, SERVER_CORE, Server};

/// How long a deployment may take.
const ACTIVE_WAIT: Duration = Duration::from_secs(30);

/// An origin, an edge, and the way to deploy.
pub(crate) struct Ours {
    /// The node under measurement.
    pub(crate) edge: Server,
    /// Its cleartext address, and that of its metrics.
    pub(crate) http: String,
    admin: String,
    client: Client,
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
    origin: Server,
    origin_url: String,
    cores: &'static str,
    /// The node's file, where it has one.
    config: Option<PathBuf>,
}

impl Ours {
    /// Starts both, the node on the core of what is measured.
    pub(crate) fn start() -> anyhow::Result<Self> {
        Self::start_on(SERVER_CORE, None)
    }

    /// The same, the node with a file.
    pub(crate) fn start_configured(config: &Path) -> anyhow::Result<Self> {
        Self::start_on(SERVER_CORE, Some(config.to_owned()))
    }

    /// Starts both, the node on all cores: for what depends on others having one to run on.
    pub(crate) fn start_on_all_cores() -> anyhow::Result<Self> {
        Self::start_on(ALL_CORES, None)
    }

    fn start_on(cores: &'static str, config: Option<PathBuf>) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let data = dir.path().join("origin");
        let origin_port = free_port()?;
        let listen = format!("127.0.0.1:{origin_port}");
        let arguments = ["origin", "--data", &data.to_string_lossy(), "--listen", &listen];
        let mut origin = Server::start_behind_the_load("selvedge origin", &binary()?, &arguments, &dir.path().join("origin.log"))?;
        origin.wait_for(&listen)?;
        let origin_url = format!("http://{listen}");
        let client = Client::connect(&origin_url, &TokenFile::read(&data.join("admin.token"))?)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (edge, http, admin) = start_edge(cores, dir.path(), &origin_url, config.as_deref())?;
        let ours = Self { edge, http, admin, client, runtime, dir, origin, origin_url, cores, config };
        ours.wait_for_node()?;
        Ok(ours)
    }

    /// Stops the node and starts it again in its folder: nothing is loaded then.
    pub(crate) fn restart_edge(self) -> anyhow::Result<Self> {
        let Self { edge, client, runtime, dir, origin, origin_url, cores, config, .. } = self;
        drop(edge);
        let (edge, http, admin) = start_edge(cores, dir.path(), &origin_url, config.as_deref())?;
        Ok(Self { edge, http, admin, client, runtime, dir, origin, origin_url, cores, config })
    }

    fn wait_for_node(&self) -> anyhow::Result<()> {
        self.until("the node has joined", async || Ok(self.client.nodes().await?.iter().any(|node| node.online)))
    }

    /// Deploys a script as `name` on `NAME.test/*`, and waits until the node runs it.
    pub(crate) fn deploy(&self, name: &str, script: &str) -> anyhow::Result<()> {
        self.deploy_in(name, script, None)
    }

    /// The same in a trust group.
    pub(crate) fn deploy_in(&self, name: &str, script: &str, cordon: Option<&str>) -> anyhow::Result<()> {
        let worker = name.parse()?;
        let entry = PackModule {
            specifier: "index.js".into(),
            kind: ModuleKind::EsModule,
            bytes: Bytes::copy_from_slice(script.as_bytes()),
            source_map: None,
        };
        let packed = pack("index.js", vec![entry])?;
        let new = NewVersion {
            bundle: packed.digest.clone(),
            cordon: cordon.map(str::parse).transpose()?,
            vars: std::collections::BTreeMap::default(),
            compatibility_date: "2026-01-01".into(),
            compatibility_flags: Vec::new(),
            cpu_ms: None,
            subrequests_max: None,
            message: None,
            request_id: None,
        };
        let promoted = self.runtime.block_on(async {
            self.client.upload(&packed).await?;
            let version = self.client.create_version(&worker, &new).await?;
            let deployment = NewDeployment {
                versions: vec![Share { version: version.id, percentage: 100.0 }],
                routes: Some(vec![route(&format!("{name}.test/*"), Some(name), None)?]),
                take_over: false,
                message: None,
                request_id: None,
            };
            anyhow::Ok(self.client.promote(&worker, &deployment).await?)
        })?;
        self.until("the worker is active", async || {
            Ok(self.client.worker_nodes(&worker, promoted.seq, Duration::from_secs(1), None).await?.settled)
        })
    }

    /// Routes `HOST/*` to an upstream.
    pub(crate) fn route_to(&self, host: &str, upstream: &str) -> anyhow::Result<()> {
        let routes = vec![route(&format!("{host}/*"), None, Some(upstream))?];
        let apply = SiteApply { routes, take_over: false, dry_run: false, message: None, request_id: None };
        let applied = self.runtime.block_on(self.client.apply_site(&"bench".parse()?, &apply))?;
        let seq = applied.seq.unwrap_or_default();
        self.until("the route is active", async || {
            Ok(self.client.nodes().await?.iter().any(|node| node.report.as_ref().is_some_and(|report| report.seq >= seq)))
        })
    }

    /// Purges stored objects by number, from a thread of its own.
    pub(crate) fn purger(&self) -> anyhow::Result<impl FnMut(u32) -> anyhow::Result<()> + Send + 'static> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = Client::connect(&self.origin_url, &TokenFile::read(&self.dir.path().join("origin/admin.token"))?)?;
        let http = self.http.clone();
        Ok(move |number: u32| {
            let purge = NewPurge { urls: vec![format!("http://{http}/1024/{number}")], ..NewPurge::default() };
            runtime.block_on(client.purge(&purge))?;
            Ok(())
        })
    }

    /// A figure of the node's metrics.
    pub(crate) fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let mut socket = std::net::TcpStream::connect(&self.admin)?;
        socket.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin).as_bytes())?;
        let mut page = String::new();
        socket.read_to_string(&mut page)?;
        let figure = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        figure.and_then(|figure| figure.trim().parse().ok()).ok_or_else(|| anyhow::anyhow!("no metric {name}"))
    }

    fn until(&self, what: &str, mut ask: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let deadline = std::time::Instant::now() + ACTIVE_WAIT;
        while !self.runtime.block_on(ask())? {
            anyhow::ensure!(std::time::Instant::now() < deadline, "not within {ACTIVE_WAIT:?}: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// The node, its cleartext address and its metrics'.
fn start_edge(cores: &str, dir: &Path, origin_url: &str, config: Option<&Path>) -> anyhow::Result<(Server, String, String)> {
    let (http, admin) = (format!("127.0.0.1:{}", free_port()?), format!("127.0.0.1:{}", free_port()?));
    let (data, token) = (dir.join("edge"), dir.join("origin/node.token"));
    let arguments = [
        "edge",
        "--name",
        "bench",
        "--data",
        &data.to_string_lossy(),
        "--origin",
        origin_url,
        "--token-file",
        &token.to_string_lossy(),
        "--http",
        &http,
        "--admin",
        &admin,
    ];
    let config = config.map(|config| config.to_string_lossy().into_owned());
    let arguments: Vec<&str> = arguments.into_iter().chain(config.iter().flat_map(|config| ["--config", config])).collect();
    let mut edge = Server::start_on(cores, "selvedge edge", &binary()?, &arguments, &dir.join("edge.log"))?;
    edge.wait_for(&http)?;
    Ok((edge, http, admin))
}

fn route(pattern: &str, worker: Option<&str>, upstream: Option<&str>) -> anyhow::Result<RouteSpec> {
    Ok(RouteSpec {
        pattern: pattern.to_owned(),
        worker: worker.map(str::parse).transpose()?,
        upstream: upstream.map(Into::into),
        redirect_to_https: false,
        compress: Default::default(),
        early_hints: false,
        cache: CacheSettings::default(),
    })
}

/// The release binary, beside the bench's own.
fn binary() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.ancestors().nth(2).unwrap_or(Path::new("target/release")).join("selvedge");
    anyhow::ensure!(path.is_file(), "{} is missing: ./x bench builds it first", path.display());
    Ok(path)
}

/// A port that is free now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
