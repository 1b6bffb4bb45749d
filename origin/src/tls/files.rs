//! The operator's certificate: read again when its files change, for a registry outlives it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::authority::{TlsError, is_self_signed};
use super::provider;
use crate::registry::Digest;

/// A certificate chain and its key, in files.
pub(crate) struct FileCertificate {
    chain: PathBuf,
    key: PathBuf,
    /// By which clients know it; `None`: a public authority vouches.
    pub(super) pin: Option<Digest>,
    current: ArcSwap<CertifiedKey>,
    seen: Mutex<Option<Stamp>>,
}

/// What shows that a file has changed: time of change and length, of chain and key.
type Stamp = [(SystemTime, u64); 2];

impl fmt::Debug for FileCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FileCertificate").field("chain", &self.chain).field("key", &self.key).finish_non_exhaustive()
    }
}

impl FileCertificate {
    /// Reads the files. Blocks.
    pub(super) fn open(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        let seen = Mutex::new(stamp(chain, key));
        let (current, pin) = read(chain, key)?;
        Ok(Self { chain: chain.to_owned(), key: key.to_owned(), pin, current: ArcSwap::new(current), seen })
    }

    /// Reads the files again where one has changed. Where they cannot be used, the last good ones stay. Blocks.
    pub(crate) fn refresh(&self) {
        let now = stamp(&self.chain, &self.key);
        if now.is_none() || *self.seen.lock() == now {
            return;
        }
        match read(&self.chain, &self.key) {
            Ok((_, pin)) if pin != self.pin => {
                tracing::error!(chain = %self.chain.display(), "the changed certificate leads to another authority than the token files pin: the last one stays");
            }
            Ok((current, _)) => {
                self.current.store(current);
                tracing::info!(chain = %self.chain.display(), "the certificate is read again");
            }
            // Not marked as seen: the other file of the pair may be on its way.
            Err(error) => return tracing::warn!(%error, "the changed certificate cannot be used, the last one stays"),
        }
        *self.seen.lock() = now;
    }
}

impl ResolvesServerCert for FileCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// A chain that ends with a self-signed certificate is pinned by that one.
fn read(chain: &Path, key: &Path) -> Result<(Arc<CertifiedKey>, Option<Digest>), TlsError> {
    let failed = |path: &Path, reason: &dyn fmt::Display| TlsError::File { path: path.display().to_string(), reason: reason.to_string() };
    let certificates = CertificateDer::pem_file_iter(chain).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|error| failed(chain, &error))?;
    let Some(last) = certificates.last() else { return Err(failed(chain, &"holds no certificate")) };
    let pin = is_self_signed(last).then(|| Digest::of(last));
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, &error))?;
    let pair = CertifiedKey::from_der(certificates, key, &provider()).map_err(|error| TlsError::Certificate(error.to_string()))?;
    Ok((Arc::new(pair), pin))
}

fn stamp(chain: &Path, key: &Path) -> Option<Stamp> {
    let of = |path: &Path| std::fs::metadata(path).and_then(|about| Ok((about.modified()?, about.len()))).ok();
    Some([of(chain)?, of(key)?])
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, Issuer, KeyPair};

    use super::super::authority::authority;
    use super::*;

    /// Writes a chain of a new leaf and its authority, and the leaf's key, with another time than any before.
    fn write(folder: &Path, (der, issuer): &(CertificateDer<'static>, Issuer<'static, KeyPair>), second: u64) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec!["a.example".to_owned()]).expect("a name").signed_by(&key, issuer).expect("signed");
        let pem = |der: &[u8]| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64(der));
        for (name, text) in [("chain.pem", pem(leaf.der()) + &pem(der)), ("key.pem", key.serialize_pem())] {
            std::fs::write(folder.join(name), text).expect("writes");
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second);
            std::fs::File::open(folder.join(name)).and_then(|file| file.set_modified(at)).expect("a file");
        }
        leaf.der().clone()
    }

    fn base64(bytes: &[u8]) -> String {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(bytes)
    }

    #[test]
    fn changed_files_are_read_again_while_they_lead_to_the_pinned_authority() {
        let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let (mine, others) = (authority(folder.path()).expect("made"), authority(other.path()).expect("made"));
        let first = write(folder.path(), &mine, 1);
        let files = FileCertificate::open(&folder.path().join("chain.pem"), &folder.path().join("key.pem")).expect("read");
        assert_eq!(files.pin, Some(Digest::of(&mine.0)));
        let serves = || files.current.load().cert.first().cloned();
        assert_eq!(serves(), Some(first));
        let second = write(folder.path(), &mine, 2);
        files.refresh();
        assert_eq!(serves(), Some(second.clone()), "renewed");
        write(folder.path(), &others, 3);
        files.refresh();
        assert_eq!(serves(), Some(second.clone()), "no client would trust it");
        std::fs::write(folder.path().join("chain.pem"), "half").expect("writes");
        files.refresh();
        assert_eq!(serves(), Some(second), "the last good one stays");
        let last = write(folder.path(), &mine, 4);
        files.refresh();
        assert_eq!(serves(), Some(last));
    }
}
