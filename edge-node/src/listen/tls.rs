//! Certificates by server name: from files, read again when they change, or made by the local authority.
//!
//! A name is looked for among the files' exact names, then their wildcards (one label, RFC 6125, section 6.4.3), then at the local authority
//! where the name is routed or `localhost`. Clients that name no server get the first file's certificate, or the local one for this node's
//! addresses. Nobody gets a certificate made for a name of his own choice.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::authority::Authority;
use crate::config::CertificateFiles;
use crate::limits;

/// Whether a name is routed by this node, lower case.
pub type Routed = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file, or what is in it.
    #[error("{}: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
}

impl CertificateError {
    pub(super) fn file(file: &Path, reason: impl ToString) -> Self {
        Self::File { file: file.to_owned(), reason: reason.to_string() }
    }
}

/// Reads a pair, and refuses it where key and certificate do not belong together.
pub fn check_certificate(files: &CertificateFiles) -> Result<(), CertificateError> {
    read(files).map(drop)
}

/// Chooses the certificate of a handshake.
pub struct Certificates {
    files: Vec<CertificateFiles>,
    loaded: ArcSwap<Loaded>,
    seen: Mutex<Vec<Option<Stamp>>>,
    authority: Authority,
    routed: Routed,
}

#[derive(Default)]
struct Loaded {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows the star's label: `example.org` for `*.example.org`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

/// What shows that a file has changed: time of change and length, of certificate and key.
type Stamp = [(SystemTime, u64); 2];

impl Certificates {
    /// Reads all files, and opens or makes the local authority.
    pub fn open(
        files: Vec<CertificateFiles>,
        data: &Path,
        addresses: Vec<std::net::IpAddr>,
        routed: Routed,
    ) -> Result<Self, CertificateError> {
        let seen = files.iter().map(stamp).collect();
        let loaded = ArcSwap::from_pointee(load(&files)?);
        Ok(Self { files, loaded, seen: Mutex::new(seen), authority: Authority::open(data, addresses)?, routed })
    }

    /// Reads the files again where one has changed. Where they cannot be used, the last good ones stay. Gives whether new ones are in use.
    pub fn refresh(&self) -> bool {
        let now: Vec<_> = self.files.iter().map(stamp).collect();
        if *self.seen.lock() == now {
            return false;
        }
        match load(&self.files) {
            Ok(loaded) => {
                self.loaded.store(Arc::new(loaded));
                *self.seen.lock() = now;
                tracing::info!("certificates read again");
                true
            }
            Err(error) => {
                // Not marked as seen: the other file of a pair may be on its way.
                tracing::warn!(%error, "changed certificates cannot be used, the last ones stay");
                false
            }
        }
    }

    fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let loaded = self.loaded.load();
        let Some(name) = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase()) else {
            return loaded.first.clone().or_else(|| self.authority.certificate(None));
        };
        if let Some(key) = loaded.exact.get(&name) {
            return Some(key.clone());
        }
        if let Some(key) = name.split_once('.').and_then(|(_, parent)| loaded.wildcard.get(parent)) {
            return Some(key.clone());
        }
        if name == "localhost" || (self.routed)(&name) {
            return self.authority.certificate(Some(&name));
        }
        // A certificate for another name lets the client say what is wrong; none at all looks like a broken server.
        loaded.first.clone()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// TLS of a listener. No early data: a replayed request would run a worker twice (RFC 8470).
pub(super) fn server_config(certificates: Arc<Certificates>, alpn: &[&[u8]]) -> Result<rustls::ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    // QUIC has TLS 1.3 only (RFC 9001, section 4.2).
    let builder = match alpn {
        [b"h3"] => builder.with_protocol_versions(&[&rustls::version::TLS13])?,
        _ => builder.with_safe_default_protocol_versions()?,
    };
    let mut config = builder.with_no_client_auth().with_cert_resolver(certificates);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    config.max_early_data_size = 0;
    Ok(config)
}

fn load(files: &[CertificateFiles]) -> Result<Loaded, CertificateError> {
    let mut loaded = Loaded::default();
    for files in files {
        let (key, names) = read(files)?;
        let key = Arc::new(key);
        for name in names {
            match name.strip_prefix("*.") {
                Some(parent) => loaded.wildcard.entry(parent.to_owned()).or_insert_with(|| key.clone()),
                None => loaded.exact.entry(name).or_insert_with(|| key.clone()),
            };
        }
        loaded.first.get_or_insert(key);
    }
    Ok(loaded)
}

fn read(files: &CertificateFiles) -> Result<(CertifiedKey, Vec<String>), CertificateError> {
    let at = |reason: String| CertificateError::file(&files.certificate, reason);
    let pem = read_bounded(&files.certificate)?;
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| at(error.to_string()))?;
    let leaf = chain.first().ok_or_else(|| at("no certificate in it".into()))?;
    let names = names(leaf).map_err(at)?;
    let key = PrivateKeyDer::from_pem_slice(&read_bounded(&files.key)?).map_err(|error| CertificateError::file(&files.key, error))?;
    let key = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
        .map_err(|error| CertificateError::file(&files.key, format!("does not fit {}: {error}", files.certificate.display())))?;
    Ok((key, names))
}

/// The DNS names that a certificate is for, lower case.
fn names(leaf: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let certificate = rustls::server::ParsedCertificate::try_from(leaf).map_err(|error| error.to_string())?;
    drop(certificate);
    let parsed = webpki::EndEntityCert::try_from(leaf).map_err(|error| error.to_string())?;
    Ok(parsed.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

fn read_bounded(file: &Path) -> Result<Vec<u8>, CertificateError> {
    let length = std::fs::metadata(file).map_err(|error| CertificateError::file(file, error))?.len();
    if length > limits::CERTIFICATE_FILE_BYTES_MAX {
        return Err(CertificateError::file(file, format!("larger than {} bytes", limits::CERTIFICATE_FILE_BYTES_MAX)));
    }
    std::fs::read(file).map_err(|error| CertificateError::file(file, error))
}

fn stamp(files: &CertificateFiles) -> Option<Stamp> {
    let of = |file: &Path| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    Some([of(&files.certificate)?, of(&files.key)?])
}
