//! The registry as one value: started from a configuration, stopped gracefully.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::tokens::TokenFile;

/// How a registry is started.
#[derive(Debug, Clone)]
pub struct OriginConfig {
    /// The folder of its database, blobs, keys and token files; made where it does not exist.
    pub data: PathBuf,
    /// Where it listens; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Certificate chain and key, PEM files. Without them: cleartext on a loopback address, its own authority elsewhere.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Use TLS (with its own authority, where `tls` gives none) on a loopback address too.
    pub force_tls: bool,
}

impl OriginConfig {
    /// A registry in a folder on a loopback port of the kernel's choice.
    pub fn loopback(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into(), listen: SocketAddr::from(([127, 0, 0, 1], 0)), tls: None, force_tls: false }
    }
}

/// Why a registry does not start.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// A file or folder.
    #[error("cannot use {path}: {reason}")]
    Data {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// The address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Certificate or key.
    #[error("cannot use the certificate or key: {0}")]
    Certificate(String),
}

/// A running registry. Dropping it stops it at once; [`Origin::shutdown`] lets answers finish.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    tls: bool,
    admin: TokenFile,
    node: TokenFile,
    data: PathBuf,
}

impl Origin {
    /// Starts a registry on the current tokio runtime: opens (on first start: makes) its data folder, keys and token files, listens.
    pub async fn start(config: OriginConfig) -> Result<Self, OriginError> {
        Err(OriginError::Data { path: config.data.display().to_string(), reason: "not yet".to_owned() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, with the address it listens on.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }

    /// The file of the admin token.
    pub fn admin_token_path(&self) -> PathBuf {
        self.path("admin.token")
    }

    /// The file of the node token.
    pub fn node_token_path(&self) -> PathBuf {
        self.path("node.token")
    }

    /// The admin token.
    pub fn admin_token(&self) -> &TokenFile {
        &self.admin
    }

    /// The node token.
    pub fn node_token(&self) -> &TokenFile {
        &self.node
    }

    /// Stops: no new connections, feeds end, answers may finish for 5 s.
    pub async fn shutdown(self) {}

    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.data).join(name)
    }
}
