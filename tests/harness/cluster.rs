//! An origin and edge nodes in this process: the product's own parts, with real sockets, runner processes and databases.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use selvedge_edge::config::{Flags, NodeConfig, OriginConfig as Registry};
use selvedge_edge::node::Node;
use selvedge_origin::api::wire::{NewDeployment, NewPurge, NewVersion, NodeState, Promoted, RouteSpec, SiteApply, WorkerNodes};
use selvedge_origin::bundle::{ModuleKind, PackModule, pack};
use selvedge_origin::client::Client;
use selvedge_origin::registry::{Share, VersionRecord, WorkerName};
use selvedge_origin::{Origin, OriginConfig};

use crate::client::{self, Answer, Over};
use crate::daemon::selvedge;

/// How long a deployment may take to be active on every node of a test.
const ACTIVE_WAIT: Duration = Duration::from_secs(20);

/// An origin and its nodes. All of it stops when dropped.
pub struct Cluster {
    /// The registry; none after [`Cluster::stop_origin`].
    pub origin: Option<Origin>,
    /// The nodes.
    pub edges: Vec<Edge>,
    /// Calls the registry as an operator.
    pub client: Client,
    /// Where everything is kept: `origin/`, `edge-0/`, ...
    pub dir: tempfile::TempDir,
}

/// One node.
pub struct Edge {
    /// The node.
    pub node: Node,
    /// h1 and h2 over TLS, h3.
    pub https: SocketAddr,
    /// Cleartext h1.
    pub http: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
}

/// What a deployment of a test says beside the script.
#[derive(Clone, Default)]
pub struct Deploy {
    /// Modules beside the entry.
    pub modules: Vec<PackModule>,
    /// Plain bindings.
    pub vars: BTreeMap<String, serde_json::Value>,
    /// Routes; none: `NAME.test/*`.
    pub routes: Option<Vec<RouteSpec>>,
    /// The trust group.
    pub cordon: Option<&'static str>,
    /// CPU per request.
    pub cpu_ms: Option<u32>,
    /// Subrequests per request.
    pub subrequests_max: Option<u32>,
}

/// The text of `tests/workers/NAME.js`.
pub fn fixture(name: &str) -> String {
    let path = format!("{}/workers/{name}.js", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

impl Cluster {
    /// Starts an origin and `nodes` edge nodes; returns when all of them follow the registry.
    pub async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, |_| {}).await
    }

    /// The same, with nodes configured by `adjust`.
    pub async fn start_with(nodes: usize, adjust: impl Fn(&mut NodeConfig)) -> Self {
        crate::panics::watch();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let origin = Origin::start(OriginConfig::loopback(dir.path().join("origin"))).await.expect("the origin starts");
        let client = Client::connect(&origin.url(), origin.admin_token()).expect("the origin's own URL and token");
        let mut cluster = Self { origin: Some(origin), edges: Vec::new(), client, dir };
        for index in 0..nodes {
            let edge = cluster.start_edge(index, &adjust).await;
            cluster.edges.push(edge);
        }
        cluster.online(nodes).await;
        cluster
    }

    /// No parts of its own: calls a registry that runs elsewhere, once it has `nodes` nodes online.
    pub async fn around(client: Client, dir: tempfile::TempDir, nodes: usize) -> Self {
        let cluster = Self { origin: None, edges: Vec::new(), client, dir };
        cluster.online(nodes).await;
        cluster
    }

    async fn online(&self, nodes: usize) {
        let ask = async || {
            let now = self.client.nodes().await.ok()?;
            (now.iter().filter(|node| node.online).count() >= nodes).then_some(())
        };
        crate::eventually("all nodes have joined", ACTIVE_WAIT, ask).await;
    }

    /// Starts (again) the node with this number, in its folder.
    pub async fn start_edge(&self, index: usize, adjust: impl Fn(&mut NodeConfig)) -> Edge {
        let origin = self.origin.as_ref().map(|origin| Registry { url: origin.url(), token_file: Some(origin.node_token_path()) });
        let flags = Flags {
            name: Some(format!("node-{index}")),
            region: Some("test".into()),
            data: Some(self.dir.path().join(format!("edge-{index}"))),
            https: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            http: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            admin: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            threads: Some(1),
            ..Flags::default()
        };
        let mut config = NodeConfig::load(flags, None).expect("a valid configuration");
        config.origin = origin
            .or_else(|| Some(Registry { url: self.client.url().to_owned(), token_file: Some(self.dir.path().join("origin/node.token")) }));
        config.runner.executable = selvedge();
        adjust(&mut config);
        let node = Node::start(config).await.expect("the node starts");
        let addresses = node.addresses();
        Edge {
            https: addresses.https.expect("https was asked for"),
            http: addresses.http.expect("http was asked for"),
            admin: addresses.admin.expect("admin was asked for"),
            node,
        }
    }

    /// Deploys `script` as the worker `name` on `NAME.test/*`, and waits until every node runs it.
    pub async fn deploy(&self, name: &str, script: &str) -> VersionRecord {
        self.deploy_with(name, script, Deploy::default()).await
    }

    /// The same, with more to say.
    pub async fn deploy_with(&self, name: &str, script: &str, deploy: Deploy) -> VersionRecord {
        let (version, promoted) = self.promote(name, script, deploy).await;
        let nodes = self.settled(name, promoted.seq).await;
        for node in &nodes.nodes {
            assert_eq!(node.state, NodeState::Active, "{name} on {}: {:?}", node.node, node.reason);
        }
        version
    }

    /// Deploys without waiting for nodes.
    pub async fn promote(&self, name: &str, script: &str, deploy: Deploy) -> (VersionRecord, Promoted) {
        let worker: WorkerName = name.parse().expect("a valid worker name");
        let entry = PackModule {
            specifier: "index.js".into(),
            kind: ModuleKind::EsModule,
            bytes: Bytes::copy_from_slice(script.as_bytes()),
            source_map: None,
        };
        let modules = std::iter::once(entry).chain(deploy.modules).collect();
        let packed = pack("index.js", modules).expect("a valid bundle");
        self.client.upload(&packed).await.expect("blobs are uploaded");
        let new = NewVersion {
            bundle: packed.digest.clone(),
            cordon: deploy.cordon.map(|cordon| cordon.parse().expect("a valid cordon")),
            vars: deploy.vars,
            compatibility_date: "2026-01-01".into(),
            compatibility_flags: Vec::new(),
            cpu_ms: deploy.cpu_ms,
            subrequests_max: deploy.subrequests_max,
            message: None,
            request_id: None,
        };
        let version = self.client.create_version(&worker, &new).await.expect("the version is accepted");
        let routes = deploy.routes.unwrap_or_else(|| vec![route(&format!("{name}.test/*"), Some(name), None)]);
        let deployment = NewDeployment {
            versions: vec![Share { version: version.id.clone(), percentage: 100.0 }],
            routes: Some(routes),
            take_over: false,
            message: None,
            request_id: None,
        };
        let promoted = self.client.promote(&worker, &deployment).await.expect("the deployment is accepted");
        (version, promoted)
    }

    /// Waits until no node is pending, and gives what each says.
    pub async fn settled(&self, name: &str, seq: u64) -> WorkerNodes {
        let worker: WorkerName = name.parse().expect("a valid worker name");
        let ask = async || {
            let nodes = self.client.worker_nodes(&worker, seq, Duration::from_millis(500), None).await.ok()?;
            (nodes.nodes.len() >= self.edges.len() && nodes.settled).then_some(nodes)
        };
        crate::eventually(&format!("{name} is settled on all nodes"), ACTIVE_WAIT, ask).await
    }

    /// Applies routes that are not a worker's, and waits until every node has them.
    pub async fn apply(&self, routes: Vec<RouteSpec>) {
        let apply = SiteApply { routes, take_over: false, dry_run: false, message: None, request_id: None };
        let applied = self.client.apply_site(&"site".parse().expect("a valid name"), &apply).await.expect("the site is accepted");
        let Some(seq) = applied.seq else { return };
        let ask = async || {
            let nodes = self.client.nodes().await.ok()?;
            nodes.iter().all(|node| node.report.as_ref().is_some_and(|report| report.seq >= seq)).then_some(())
        };
        crate::eventually("every node has the site's routes", ACTIVE_WAIT, ask).await;
    }

    /// Purges, and waits until every node has acknowledged it.
    pub async fn purge(&self, purge: &NewPurge) {
        let seq = self.client.purge(purge).await.expect("it is accepted").seq;
        let ask = async || self.client.purge_nodes(seq, Duration::from_secs(1), None).await.ok()?.settled.then_some(());
        crate::eventually("every node has acknowledged", ACTIVE_WAIT, ask).await;
    }

    /// Asks the first node in cleartext.
    pub async fn get(&self, authority: &str, path: &str) -> Answer {
        self.send(Over::Cleartext, client::get(authority, path)).await
    }

    /// Asks the first node over a protocol.
    pub async fn send(&self, over: Over, request: Request<Bytes>) -> Answer {
        self.edges[0].send(over, request).await.unwrap_or_else(|error| panic!("{over:?}: {error:#}"))
    }

    /// Stops the origin; the nodes go on.
    pub async fn stop_origin(&mut self) {
        if let Some(origin) = self.origin.take() {
            origin.shutdown().await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        crate::panics::none_here();
    }
}

impl Edge {
    /// One request over a protocol.
    pub async fn send(&self, over: Over, request: Request<Bytes>) -> anyhow::Result<Answer> {
        let address = if over == Over::Cleartext { self.http } else { self.https };
        client::send(over, address, request).await
    }
}

/// A route as a wrangler or site file declares it.
pub fn route(pattern: &str, worker: Option<&str>, upstream: Option<&str>) -> RouteSpec {
    RouteSpec {
        pattern: pattern.to_owned(),
        worker: worker.map(|name| name.parse().expect("a valid worker name")),
        upstream: upstream.map(Into::into),
        redirect_to_https: false,
        compress: Default::default(),
        early_hints: false,
        cache: selvedge_origin::registry::CacheSettings::default(),
    }
}
