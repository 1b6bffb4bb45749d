//! Wiring: every part of an edge node is built once, here, from its configuration and the outside world.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::NodeConfig;
use crate::metrics::Metrics;
use crate::request::Observer;
use crate::tasks::Tasks;

/// A running edge node. Usable in one process with others, as in tests.
pub struct Node {
    addresses: Addresses,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    config: NodeConfig,
}

/// Where a node listens; ports that the kernel chose are here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Addresses {
    /// h1 and h2 over TCP, h3 over UDP, one port.
    pub https: Option<SocketAddr>,
    /// h1 in cleartext.
    pub http: Option<SocketAddr>,
    /// Health and metrics.
    pub admin: Option<SocketAddr>,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The data folder.
    #[error("data folder {}: {reason}", folder.display())]
    Data {
        /// The folder.
        folder: std::path::PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// A listener.
    #[error("{listener} on {address}: {reason}")]
    Listen {
        /// `https`, `http` or `admin`.
        listener: &'static str,
        /// Where it should be.
        address: SocketAddr,
        /// Why.
        reason: std::io::Error,
    },
    /// Runner processes.
    #[error("runner: {0}")]
    Runner(std::io::Error),
    /// Certificates, or the local authority.
    #[error("certificates: {0}")]
    Tls(String),
    /// Upstreams.
    #[error("upstreams: {0}")]
    Upstreams(String),
    /// The last state, or the registry's token.
    #[error("deployments: {0}")]
    Deployments(String),
}

impl Node {
    /// Builds and starts every part; returns when all listeners are open. Must be called inside a multi-thread tokio runtime. Does not wait for the
    /// registry. Where it fails, nothing is left running.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        Self::start_observed(config, Vec::new()).await
    }

    /// The same, with observers that are told of every complete request and every line of workers' logs beside the node's own log and
    /// metrics: what `selvedge dev` prints.
    pub async fn start_observed(config: NodeConfig, observers: Vec<Arc<dyn Observer>>) -> Result<Self, StartError> {
        let _ = observers;
        config.check()?;
        Ok(Self { addresses: Addresses::default(), metrics: Arc::new(Metrics::default()), tasks: Tasks::new(), config })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What it counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Stops accepting, says GOAWAY on h2 and h3, waits for what runs at most [`NodeConfig::drain_timeout`], cancels the rest, ends the runners. Gives
    /// whether everything ended by itself.
    pub async fn drain(self) -> bool {
        self.tasks.drain(self.config.drain_timeout).await
    }
}
