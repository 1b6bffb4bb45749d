//! The registry as one value: started from a configuration, stopped gracefully.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::api::{Api, Listener, serve};
use crate::keys::{PublicKey, SigningKey};
use crate::ledger::Ledger;
use crate::limits::{
    CERTIFICATE_POLL, COLLECT_EVERY, CONNECTIONS_MAX, DATA_LOCK_RETRY, DATA_LOCK_WAIT, DESCRIPTORS_BESIDE_CONNECTIONS, SHUTDOWN_GRACE,
};
use crate::machine::{private_folder, raise_descriptor_limit};
use crate::registry::Digest;
use crate::store::{Files, Sqlite};
use crate::tls::{FileCertificate, TlsServer};
use crate::tokens::{Token, TokenFile, TokenKind};

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
    is_tls: bool,
    admin: TokenFile,
    node: TokenFile,
    data: PathBuf,
    stop: CancellationToken,
    tasks: TaskTracker,
    abort: DropGuard,
}

/// What a start reads from the data folder.
struct Opened {
    lock: std::fs::File,
    store: Sqlite,
    files: Files,
    key: SigningKey,
    tls: Option<TlsServer>,
    admin: TokenFile,
    node: TokenFile,
}

impl Origin {
    /// Starts a registry on the current tokio runtime: opens (on first start: makes) its data folder, keys and token files, listens.
    pub async fn start(config: OriginConfig) -> Result<Self, OriginError> {
        raise_descriptor_limit(CONNECTIONS_MAX as u64 + DESCRIPTORS_BESIDE_CONNECTIONS, "connections need");
        let (data, listen) = (config.data.clone(), config.listen);
        let opened = tokio::task::spawn_blocking(move || open(&config)).await;
        let opened = opened.map_err(|error| data_error(&data, error))??;
        let Opened { lock, store, files, key, tls, admin, node } = opened;
        let ledger = Ledger::open(Arc::new(store), Arc::new(files), key).await.map_err(|error| data_error(&data, error))?;
        let ledger = Arc::new(ledger);

        let socket = TcpListener::bind(listen).await.map_err(|source| OriginError::Listen { address: listen, source })?;
        let address = socket.local_addr().map_err(|source| OriginError::Listen { address: listen, source })?;
        let (stop, abort, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let api = Api::new(ledger.clone(), &admin, &node, stop.child_token()).map_err(|error| data_error(&data, error))?;
        let is_tls = tls.is_some();
        if let Some(files) = tls.as_ref().and_then(|tls| tls.files.clone()) {
            let stopped = stop.clone();
            tasks.spawn(async move { stopped.run_until_cancelled(renew(files)).await });
        }
        let tls = tls.map(|tls| tokio_rustls::TlsAcceptor::from(tls.config));
        let listener = Listener { socket, tls, stop: stop.clone(), abort: abort.clone(), tasks: tasks.clone() };
        let aborted = abort.clone();
        tasks.spawn(async move {
            aborted.run_until_cancelled(serve(listener, Arc::new(api))).await;
        });
        let (stopped, aborted) = (stop.clone(), abort.clone());
        tasks.spawn(async move {
            let collecting = stopped.run_until_cancelled(collect(ledger));
            aborted.run_until_cancelled(collecting).await;
            // Held as long as anything of this registry may write.
            drop(lock);
        });
        tracing::info!(address = %address, tls = is_tls, data = %data.display(), "registry listens");
        Ok(Self { address, is_tls, admin, node, data, stop, tasks, abort: abort.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, with the address it listens on.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.address)
    }

    /// The file of the admin token.
    pub fn admin_token_path(&self) -> PathBuf {
        self.data.join(ADMIN_TOKEN)
    }

    /// The file of the node token.
    pub fn node_token_path(&self) -> PathBuf {
        self.data.join(NODE_TOKEN)
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
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(SHUTDOWN_GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!("connections that did not end in time are cut");
        }
        drop(self.abort);
        self.tasks.wait().await;
    }
}

const ADMIN_TOKEN: &str = "admin.token";
const NODE_TOKEN: &str = "node.token";

fn data_error(path: &Path, reason: impl std::fmt::Display) -> OriginError {
    OriginError::Data { path: path.display().to_string(), reason: reason.to_string() }
}

/// Opens the data folder. Blocks.
fn open(config: &OriginConfig) -> Result<Opened, OriginError> {
    let data = config.data.as_path();
    // Code, vars and keys are in there.
    private_folder(data).map_err(|error| data_error(data, error))?;
    let lock = lock(data)?;
    let key_file = data.join("signing.key");
    let key = SigningKey::load_or_create(&key_file).map_err(|error| data_error(&key_file, error))?;
    let tls = match &config.tls {
        Some((chain, key)) => Some(TlsServer::from_files(chain, key)),
        None if config.listen.ip().is_loopback() && !config.force_tls => None,
        None => Some(TlsServer::own(data, config.listen.ip())),
    };
    let tls = tls.transpose().map_err(|error| OriginError::Certificate(error.to_string()))?;
    let pin = tls.as_ref().and_then(|tls| tls.pin.clone());
    let admin = token(&data.join(ADMIN_TOKEN), TokenKind::Admin, pin.clone(), key.public())?;
    let node = token(&data.join(NODE_TOKEN), TokenKind::Node, pin, key.public())?;
    let store = Sqlite::open(&data.join("registry.db")).map_err(|error| data_error(data, error))?;
    let files = Files::open(&data.join("blobs")).map_err(|error| data_error(data, error))?;
    Ok(Opened { lock, store, files, key, tls, admin, node })
}

/// Looks at the certificate's files.
async fn renew(files: Arc<FileCertificate>) {
    let mut look = tokio::time::interval(CERTIFICATE_POLL);
    loop {
        look.tick().await;
        let files = files.clone();
        let _ = tokio::task::spawn_blocking(move || files.refresh()).await;
    }
}

/// One registry per folder. A predecessor that is just ending is waited for.
fn lock(data: &Path) -> Result<std::fs::File, OriginError> {
    let path = data.join("lock");
    let file = std::fs::File::create(&path).map_err(|error| data_error(&path, error))?;
    let start = std::time::Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) if start.elapsed() < DATA_LOCK_WAIT => {
                std::thread::sleep(DATA_LOCK_RETRY);
            }
            Err(std::fs::TryLockError::WouldBlock) => return Err(data_error(data, "another registry runs in this folder")),
            Err(std::fs::TryLockError::Error(error)) => return Err(data_error(&path, error)),
        }
    }
}

/// The token file, made on first start. Its pins follow what the registry has now; the token stays.
fn token(path: &Path, kind: TokenKind, authority: Option<Digest>, signing_key: PublicKey) -> Result<TokenFile, OriginError> {
    let failed = |error: crate::tokens::TokenError| data_error(path, error);
    let kept = if path.exists() { Some(TokenFile::read(path).map_err(failed)?) } else { None };
    let token = match &kept {
        Some(kept) => kept.token.clone(),
        None => Token::generate().map_err(failed)?,
    };
    let file = TokenFile { kind, token, authority, signing_key };
    if kept.as_ref() != Some(&file) {
        file.write(path).map_err(failed)?;
    }
    Ok(file)
}

/// Collects unused blobs now and then.
async fn collect(ledger: Arc<Ledger>) {
    loop {
        match ledger.collect().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "unused blobs were deleted"),
            Err(error) => tracing::warn!(error = %error, "unused blobs could not be collected"),
        }
        tokio::time::sleep(COLLECT_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_start_closes_its_folder_to_others_and_allows_itself_all_descriptors() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("origin");
        std::fs::create_dir(&data).expect("makes");
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).expect("its owner may");
        let _origin = Origin::start(OriginConfig::loopback(&data)).await.expect("starts");
        assert_eq!(std::fs::metadata(&data).expect("a folder").permissions().mode() & 0o777, 0o700);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
