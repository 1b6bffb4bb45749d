//! The registry's certificate: the operator's, or one of the registry's own authority, made on first start.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use rustls_pki_types::CertificateDer;

use super::files::FileCertificate;
use super::own::OwnCertificate;
use super::{ALPN_H1, ALPN_H2, provider};
use crate::registry::Digest;
use crate::tokens::write_private;

/// The server's side of TLS, and what clients pin.
pub(crate) struct TlsServer {
    /// For the listener.
    pub(crate) config: Arc<ServerConfig>,
    /// The digest that goes into token files; `None`: a public authority vouches.
    pub(crate) pin: Option<Digest>,
    /// The operator's files, to be looked at for changes.
    pub(crate) files: Option<Arc<FileCertificate>>,
}

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// Certificate and key do not make a server.
    #[error("{0}")]
    Certificate(String),
}

impl TlsServer {
    /// The operator's certificate chain and key, PEM. A chain that ends with a self-signed certificate is pinned by that one. Blocks.
    pub(crate) fn from_files(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = Arc::new(FileCertificate::open(chain, key)?);
        Ok(Self { config: server_config(files.clone())?, pin: files.pin.clone(), files: Some(files) })
    }

    /// A certificate of the registry's own authority, whose certificate and key are kept in `folder`. Blocks.
    pub(crate) fn own(folder: &Path, address: IpAddr) -> Result<Self, TlsError> {
        let (authority, issuer) = authority(folder)?;
        let mut names = vec!["localhost".to_owned(), IpAddr::from([127, 0, 0, 1]).to_string()];
        if !address.is_unspecified() && !address.is_loopback() {
            names.push(address.to_string());
        }
        let pin = Some(Digest::of(&authority));
        let own = OwnCertificate::new(issuer, authority, names, Instant::now())?;
        Ok(Self { config: server_config(Arc::new(own))?, pin, files: None })
    }
}

fn server_config(certificate: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| TlsError::Certificate(error.to_string()))?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(certificate);
    config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_H1.to_vec()];
    Ok(Arc::new(config))
}

/// The authority kept in a folder, made on first use. The key is written last: a certificate without its key is made anew. Clients know it by its digest, so
/// it is as good as its key, for as long as the folder.
pub(super) fn authority(folder: &Path) -> Result<(CertificateDer<'static>, Issuer<'static, KeyPair>), TlsError> {
    let certificate = |error: rcgen::Error| TlsError::Certificate(error.to_string());
    let (der_file, key_file) = (folder.join("authority.der"), folder.join("authority.key"));
    let failed = |path: &Path, error: std::io::Error| TlsError::File { path: path.display().to_string(), reason: error.to_string() };
    let (der, key) = match std::fs::read_to_string(&key_file) {
        Ok(pem) => {
            let der = CertificateDer::from(std::fs::read(&der_file).map_err(|error| failed(&der_file, error))?);
            (der, KeyPair::from_pem(&pem).map_err(certificate)?)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = KeyPair::generate().map_err(certificate)?;
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params.distinguished_name.push(DnType::CommonName, "Selvedge registry authority");
            let der = params.self_signed(&key).map_err(certificate)?.der().clone();
            write_private(&der_file, &der).map_err(|error| failed(&der_file, error))?;
            write_private(&key_file, key.serialize_pem().as_bytes()).map_err(|error| failed(&key_file, error))?;
            (der, key)
        }
        Err(error) => return Err(failed(&key_file, error)),
    };
    let issuer = Issuer::from_ca_cert_der(&der, key).map_err(certificate)?;
    Ok((der, issuer))
}

/// Whether issuer and subject are the same (RFC 5280 section 4.1: both follow version, serial number and algorithm, with the validity between them).
pub(super) fn is_self_signed(certificate: &[u8]) -> bool {
    let names = || {
        let (tbs, _) = element(certificate).and_then(|(content, _)| element(content))?;
        let after_version = if tbs.first() == Some(&0xa0) { element(tbs)?.1 } else { tbs };
        let (_serial, rest) = element(after_version)?;
        let (_algorithm, rest) = element(rest)?;
        let (issuer, rest) = element(rest)?;
        let (_validity, rest) = element(rest)?;
        let (subject, _) = element(rest)?;
        Some((issuer, subject))
    };
    names().is_some_and(|(issuer, subject)| issuer == subject)
}

/// One DER element: its content, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_tag, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = if *length < 0x80 {
        (usize::from(*length), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(*length & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0usize, |sum, digit| (sum << 8) | usize::from(*digit)), rest)
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_self_signed_certificate_is_pinned() {
        let folder = tempfile::tempdir().expect("a folder");
        let (der, issuer) = authority(folder.path()).expect("made");
        assert!(is_self_signed(&der));
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec!["a.example".to_owned()]).expect("a name").signed_by(&key, &issuer).expect("signed");
        assert!(!is_self_signed(leaf.der()));
        for cut in 0..der.len().min(80) {
            is_self_signed(&der[..cut]);
        }
        assert!(!is_self_signed(&[0x30, 0xff, 1, 2, 3]));
    }

    #[test]
    fn the_authority_is_made_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let address = IpAddr::from([10, 0, 0, 7]);
        let first = TlsServer::own(folder.path(), address).expect("made");
        let second = TlsServer::own(folder.path(), address).expect("read");
        assert!(first.pin.is_some());
        assert_eq!(first.pin, second.pin);
    }
}
