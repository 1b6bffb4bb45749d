//! Wiring: every part of an edge node is built once, here, from its configuration and the outside world.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use selvedge_origin::api::wire::WorkerState;
use selvedge_origin::machine::{private_folder, raise_descriptor_limit};
use selvedge_runtime::supervisor::{Supervisor, SupervisorConfig};
use selvedge_runtime::{Body, Strain};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin};
use crate::cache::Cache;
use crate::config::{ConfigError, NodeConfig};
use crate::deployments::{Follower, FollowerConfig, FollowerStatus, Link};
use crate::limits;
use crate::listen::{self, Answer, Bound, Certificates, Connection, Interim, ListenConfig, ListenError, Refusal, Reply};
use crate::metrics::{Metrics, Readings};
use crate::peers::Peers;
use crate::request::{Clock, Observer, Parts, RequestPath};
use crate::routes::ActiveRoutes;
use crate::tasks::Tasks;
use crate::upstream::{Upstreams, UpstreamsConfig};

/// A running edge node. Usable in one process with others, as in tests. Dropping it stops it at once; [`Node::drain`] is the kind way.
pub struct Node {
    addresses: Addresses,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    supervisor: Supervisor,
    follower: SharedFollower,
    routes: Arc<ActiveRoutes>,
    cache: Arc<Cache>,
    drain_timeout: std::time::Duration,
    /// The admin listener goes last, so that a draining node says that it drains.
    admin_stop: CancellationToken,
}

/// None before it starts and once the node drains. The admin listener asks it how it goes.
type SharedFollower = Arc<Mutex<Option<Follower>>>;

/// Where a node listens; ports that the kernel chose are here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Addresses {
    /// h1 and h2 over TCP, h3 over UDP, one port.
    pub https: Option<SocketAddr>,
    /// h1 in cleartext.
    pub http: Option<SocketAddr>,
    /// Health and metrics.
    pub admin: Option<SocketAddr>,
    /// Other nodes.
    pub peer: Option<SocketAddr>,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data folder, or a file that the configuration names.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A client listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The admin listener.
    #[error("admin on {address}: {reason}")]
    Admin {
        /// Where it should be.
        address: SocketAddr,
        /// Why.
        reason: std::io::Error,
    },
    /// Runner processes.
    #[error("runner: {0}")]
    Runner(std::io::Error),
    /// Upstreams.
    #[error(transparent)]
    Upstreams(#[from] crate::upstream::UpstreamsConfigError),
    /// The last state, or joining the registry.
    #[error(transparent)]
    Follow(#[from] crate::deployments::FollowError),
}

impl Node {
    /// Builds and starts every part; returns when all listeners are open and the last state is active. Must be called inside a multi-thread
    /// tokio runtime. Does not wait for the registry. Where it fails, nothing is left running.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        Self::start_observed(config, Vec::new()).await
    }

    /// The same, with observers that are told of every complete request and every line of workers' logs beside the node's own log and
    /// metrics: what `selvedge dev` prints.
    pub async fn start_observed(config: NodeConfig, observers: Vec<Arc<dyn Observer>>) -> Result<Self, StartError> {
        config.check()?;
        prepare_machine(&config)?;
        let (mut bound, admin_socket) = bind(&config)?;
        let admin_address = admin_socket.as_ref().and_then(|socket| socket.local_addr().ok());
        let addresses = Addresses { https: bound.https(), http: bound.http(), admin: admin_address, peer: bound.peer() };
        let (metrics, tasks, routes) = (Arc::new(Metrics::default()), Tasks::new(), Arc::new(ActiveRoutes::default()));
        let certificates = open_certificates(&config, &addresses, &routes)?;
        let upstreams = Arc::new(Upstreams::new(upstreams_config(&config, &addresses)?)?);
        upstreams.watch(routes.groups());
        let cache = open_cache(&config, &metrics).await?;
        let supervisor = start_supervisor(&config).await?;
        let peers = Arc::new(Peers::new(&config.region));

        let node = Self {
            addresses,
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            supervisor: supervisor.clone(),
            follower: SharedFollower::default(),
            routes: routes.clone(),
            cache: cache.clone(),
            drain_timeout: config.drain_timeout,
            admin_stop: CancellationToken::new(),
        };
        // From here on an error drops the node, and that stops what runs.
        let following = follower_config(&config, &addresses, &peers);
        let follower = Follower::start(following, supervisor.clone(), routes.clone(), cache.purges().clone()).await?;
        let (contact, purger, questions) = (follower.contact(), follower.purger(), follower.inbox());
        *node.follower.lock() = Some(follower);
        let path = RequestPath::new(
            Parts {
                node: node.name(&config),
                routes,
                cache: cache.clone(),
                peers: peers.clone(),
                contact,
                purger,
                upstreams: upstreams.clone(),
                trusted_proxies: config.trusted_proxies,
                strain: supervisor.strain().clone(),
                metrics: metrics.clone(),
                tasks: tasks.clone(),
                observers,
                clock: Clock::default(),
            },
            supervisor.clone(),
        );
        if let Some(https) = addresses.https {
            path.announce_https(https.port());
        }
        if let Some(socket) = bound.take_peer() {
            let tls = peers.server_config().map_err(|error| ListenError::Tls(error.to_string()))?;
            listen::serve_peers(socket, Arc::new(ForPeers(path.clone())), tls, &config.limits, metrics.clone(), &tasks);
        }
        questions.ask(path.clone());
        bound.serve(Arc::new(Front(path)), certificates, metrics.clone(), &tasks)?;
        if let Some(socket) = admin_socket {
            let sources = Sources { supervisor, cache, upstreams, tasks, routes: node.routes.clone(), follower: node.follower.clone() };
            crate::tasks::spawn("admin", admin::serve(socket, sources.shown(metrics), node.admin_stop.clone()));
        }
        Ok(node)
    }

    /// The name under which the node has joined: that of the configuration, until it has joined under another.
    fn name(&self, config: &NodeConfig) -> Arc<str> {
        self.following().map_or_else(|| config.name.shared(), |status| status.node.shared())
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What it counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The routes in use.
    pub fn routes(&self) -> &Arc<ActiveRoutes> {
        &self.routes
    }

    /// Its runner processes.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// How following the registry goes.
    pub fn following(&self) -> Option<Arc<FollowerStatus>> {
        self.follower.lock().as_ref().map(Follower::status)
    }

    /// Stops accepting, says GOAWAY on h2 and h3, waits for what runs at most [`NodeConfig::drain_timeout`], cancels the rest, ends the runners. Gives
    /// whether everything ended by itself.
    pub async fn drain(self) -> bool {
        let follower = self.follower.lock().take();
        if let Some(follower) = follower {
            follower.stop().await;
        }
        let graceful = self.tasks.drain(self.drain_timeout).await;
        self.supervisor.shutdown().await;
        // What waits for the cache's disk; a disk that is slow must not hold the process.
        let _ = tokio::time::timeout(limits::DISK_FINISH_WAIT, self.cache.settled()).await;
        graceful
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.admin_stop.cancel();
        self.tasks.stop();
    }
}

/// What following the registry needs to know.
fn follower_config(config: &NodeConfig, addresses: &Addresses, peers: &Arc<Peers>) -> FollowerConfig {
    FollowerConfig {
        origin: config.origin.as_ref().map(|origin| origin.url.clone()),
        token_file: config.origin.as_ref().and_then(|origin| origin.token_file.clone()),
        data: config.data.clone(),
        name: config.name.clone(),
        region: config.region.clone(),
        address: addresses.https.or(addresses.http).map(|address| address.to_string()),
        peer: addresses.peer.map(|address| address.to_string()),
        peers: peers.clone(),
    }
}

/// The data folder holds keys and the code of workers: its owner's only. Runners inherit nothing of the descriptors.
fn prepare_machine(config: &NodeConfig) -> Result<(), StartError> {
    private_folder(&config.data).map_err(|error| file_error(&config.data, error))?;
    let wanted = config.limits.connections_max as u64 + limits::DESCRIPTORS_BESIDE_CONNECTIONS;
    raise_descriptor_limit(wanted, "limits.connections_max needs");
    Ok(())
}

fn file_error(path: &std::path::Path, reason: impl ToString) -> StartError {
    StartError::File { path: path.to_owned(), reason: reason.to_string() }
}

/// Opens the cache, once no other node uses its disk's folder.
async fn open_cache(config: &NodeConfig, metrics: &Arc<Metrics>) -> Result<Arc<Cache>, StartError> {
    let Some(disk) = &config.cache_disk else { return Ok(Arc::new(Cache::new(config.cache_memory_bytes, metrics.clone()))) };
    let begun = tokio::time::Instant::now();
    loop {
        match Cache::with_disk(config.cache_memory_bytes, disk, metrics.clone()) {
            Ok(cache) => return Ok(Arc::new(cache)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && begun.elapsed() < limits::DISK_FOLDER_WAIT => {
                tokio::time::sleep(limits::DISK_FOLDER_RETRY).await;
            }
            Err(error) => return Err(file_error(&disk.folder, error)),
        }
    }
}

fn bind(config: &NodeConfig) -> Result<(Bound, Option<tokio::net::TcpListener>), StartError> {
    let bound = Bound::bind(ListenConfig {
        https: config.https,
        http: config.http,
        peer: config.peer,
        data: config.data.clone(),
        limits: config.limits.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
    })?;
    let admin = |address: SocketAddr| listen::bind_tcp(address).map_err(|reason| StartError::Admin { address, reason });
    Ok((bound, config.admin.map(admin).transpose()?))
}

fn open_certificates(config: &NodeConfig, addresses: &Addresses, routes: &Arc<ActiveRoutes>) -> Result<Arc<Certificates>, StartError> {
    let own = addresses.https.map(listen::own_addresses).unwrap_or_default();
    let routes = routes.clone();
    let routed = Arc::new(move |name: &str| routes.load().names_host(name));
    let certificates = Certificates::open(config.certificates.clone(), &config.data, own, routed).map_err(ListenError::from)?;
    Ok(Arc::new(certificates))
}

fn upstreams_config(config: &NodeConfig, addresses: &Addresses) -> Result<UpstreamsConfig, StartError> {
    let mut authorities = Vec::new();
    for file in &config.upstream_authorities {
        let read: Result<Vec<CertificateDer<'static>>, _> =
            CertificateDer::pem_file_iter(file).and_then(Iterator::collect).map_err(|error| file_error(file, error));
        let read = read?;
        if read.is_empty() {
            return Err(file_error(file, "no certificate in it"));
        }
        authorities.extend(read);
    }
    Ok(UpstreamsConfig {
        resolvers: config.resolver.clone(),
        fetch_allow: config.fetch_allow.clone(),
        own_listeners: [addresses.https, addresses.http, addresses.admin, addresses.peer].into_iter().flatten().collect(),
        authorities,
        ..UpstreamsConfig::default()
    })
}

/// Starts the runners, and the look at the load that they and all the node go by.
async fn start_supervisor(config: &NodeConfig) -> Result<Supervisor, StartError> {
    let runner = &config.runner;
    let executable = File::open(&runner.executable).map_err(|error| file_error(&runner.executable, error))?;
    let strain = Arc::new(Strain::default());
    crate::tasks::spawn("strain", crate::strain::watch(Arc::downgrade(&strain)));
    let config = SupervisorConfig {
        executable,
        arguments: runner.arguments.clone(),
        threads: runner.threads,
        allow_unsandboxed: runner.allow_unsandboxed,
        strain,
    };
    Supervisor::start(config).await.map_err(StartError::Runner)
}

/// What the admin listener asks for the numbers that other parts keep.
struct Sources {
    supervisor: Supervisor,
    cache: Arc<Cache>,
    upstreams: Arc<Upstreams>,
    tasks: Tasks,
    routes: Arc<ActiveRoutes>,
    follower: SharedFollower,
}

impl Sources {
    fn shown(self, metrics: Arc<Metrics>) -> Arc<Admin> {
        let (tasks, strain) = (self.tasks.clone(), self.supervisor.strain().clone());
        Arc::new(Admin { metrics, readings: Box::new(move || self.read()), tasks, strain })
    }

    fn read(&self) -> Readings {
        let runners = self.supervisor.runners();
        let following = self.follower.lock().as_ref().map(Follower::status);
        let following = following.as_deref();
        let (cache_entries, cache_bytes) = self.cache.usage();
        let (upstream_servers, upstream_retries) = self.routes.groups().read();
        let routes = self.routes.load();
        Readings {
            runners: runners.len(),
            standbys: runners.iter().filter(|runner| runner.cordon.is_none()).count(),
            isolates: runners.iter().map(|runner| runner.versions.len()).sum(),
            invocations: runners.iter().map(|runner| runner.invocations).sum(),
            cache_entries,
            cache_bytes,
            disk: self.cache.disk_usage(),
            tasks: self.tasks.running(),
            upstream_connections: self.upstreams.connections().0,
            upstream_servers,
            upstream_retries,
            routes: routes.len(),
            by_route: routes.counters().filter(|route| route.is_used()).cloned().collect(),
            registry_seq: following.and_then(|status| status.position.as_ref()).map_or(0, |position| position.seq),
            registry_connected: following.is_some_and(|status| status.link == Link::Following),
            workers_refused: following
                .map_or(0, |status| status.unsettled.values().filter(|worker| matches!(worker.state, WorkerState::Refused { .. })).count()),
            supervisor: self.supervisor.counts().iter().collect(),
            strain: self.supervisor.strain().clone(),
        }
    }
}

/// The request path as other nodes see it.
struct ForPeers(Arc<RequestPath>);

impl Answer for ForPeers {
    async fn answer(&self, request: http::Request<Body>, connection: &Arc<Connection>, interim: Interim) -> Reply {
        self.0.serve_peer(request, connection, interim).await.into()
    }

    fn refuse(&self, refusal: Refusal, _: &Arc<Connection>) -> http::Response<Body> {
        self.0.refuse_peer(refusal)
    }
}

/// The request path as the listeners see it.
struct Front(Arc<RequestPath>);

impl Answer for Front {
    async fn answer(&self, request: http::Request<Body>, connection: &Arc<Connection>, interim: Interim) -> Reply {
        self.0.serve(request, connection, interim).await
    }

    fn refuse(&self, refusal: Refusal, _: &Arc<Connection>) -> http::Response<Body> {
        self.0.refuse(refusal)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_data_folder_that_was_open_to_others_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        private_folder(folder.path()).unwrap();
        assert_eq!(std::fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
