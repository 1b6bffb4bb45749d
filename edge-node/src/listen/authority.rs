//! The local authority: makes certificates on demand where the operator gave none, and keeps its keys in the data folder.
//!
//! It makes leaves for routed names, localhost and this node's addresses only, never for whatever name a client sends, and a bounded
//! number of them. Whoever trusts `authority/ca.pem` trusts this node for these names.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::tls::CertificateError;
use crate::limits;

/// A leaf is good for this long: below the 398 days that browsers take from public authorities.
const LEAF_VALIDITY: Duration = Duration::from_secs(90 * 86_400);

/// A leaf is made anew after this time, long before it expires.
const LEAF_AGE_MAX: Duration = Duration::from_secs(30 * 86_400);

/// The authority's own certificate. It lives as long as the data folder, and is replaced with it.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Clocks of clients may be behind ours by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(86_400);

/// Makes certificates that its own root vouches for.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// All leaves have one key: it is kept, so that a client that pinned it finds it again after a restart.
    leaf_key: KeyPair,
    addresses: Vec<IpAddr>,
    made: Mutex<HashMap<String, (Instant, Arc<CertifiedKey>)>>,
}

impl Authority {
    /// Opens the authority of a data folder, or makes one. `addresses` are the node's own, for clients that name no server.
    pub(super) fn open(data: &Path, addresses: Vec<IpAddr>) -> Result<Self, CertificateError> {
        let folder = data.join("authority");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|error| CertificateError::file(&folder, error))?;
        let key_file = folder.join("ca.key");
        let key = keep(&key_file, new_key)?;
        let key = parse_key(&key_file, &key)?;
        let certificate_file = folder.join("ca.pem");
        let pem = keep(&certificate_file, || Ok(root(&key)?.pem().into_bytes()))?;
        let pem = String::from_utf8(pem).map_err(|error| CertificateError::file(&certificate_file, error))?;
        let certificate =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| CertificateError::file(&certificate_file, error))?.into_owned();
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| CertificateError::file(&certificate_file, error))?;
        let leaf_file = folder.join("leaf.key");
        let leaf_key = parse_key(&leaf_file, &keep(&leaf_file, new_key)?)?;
        Ok(Self { issuer, certificate, leaf_key, addresses, made: Mutex::new(HashMap::new()) })
    }

    /// A certificate for a name that the caller knows to be routed or `localhost`; none: for this node's addresses and `localhost`.
    /// At most [`limits::LOCAL_CERTIFICATES_MAX`] are kept.
    pub(super) fn certificate(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let name = name.unwrap_or("localhost");
        let mut made = self.made.lock();
        if let Some((at, key)) = made.get(name)
            && at.elapsed() < LEAF_AGE_MAX
        {
            return Some(key.clone());
        }
        // A wildcard route has more names than there is room for: the oldest one is made again when somebody asks for it.
        if made.len() >= limits::LOCAL_CERTIFICATES_MAX
            && let Some(oldest) = made.iter().min_by_key(|(_, (at, _))| *at).map(|(name, _)| name.clone())
        {
            made.remove(&oldest);
        }
        match self.leaf(name) {
            Ok(key) => {
                let key = Arc::new(key);
                made.insert(name.to_owned(), (Instant::now(), key.clone()));
                Some(key)
            }
            Err(error) => {
                tracing::error!(server_name = name, %error, "the local authority cannot make a certificate");
                None
            }
        }
    }

    fn leaf(&self, name: &str) -> Result<CertifiedKey, String> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(|error| error.to_string())?;
        if name == "localhost" {
            params.subject_alt_names.extend(self.addresses.iter().map(|address| SanType::IpAddress(*address)));
        }
        // RFC 5280, section 4.1.2.6: the subject may be empty where the names are in the extension; some clients want one all the same.
        params.distinguished_name.push(DnType::CommonName, if name.len() <= 64 { name } else { "selvedge" });
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(LEAF_VALIDITY);
        let leaf = params.signed_by(&self.leaf_key, &self.issuer).map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::try_from(self.leaf_key.serialize_der()).map_err(str::to_owned)?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("made", &self.made.lock().len()).finish_non_exhaustive()
    }
}

fn root(key: &KeyPair) -> Result<rcgen::Certificate, String> {
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(|error| error.to_string())?;
    params.distinguished_name.push(DnType::CommonName, "Selvedge local authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(AUTHORITY_VALIDITY);
    params.self_signed(key).map_err(|error| error.to_string())
}

fn validity<T: From<SystemTime>>(length: Duration) -> (T, T) {
    let now = SystemTime::now();
    ((now - CLOCK_SKEW).into(), (now + length).into())
}

fn new_key() -> Result<Vec<u8>, String> {
    KeyPair::generate().map(|key| key.serialize_pem().into_bytes()).map_err(|error| error.to_string())
}

fn parse_key(file: &Path, pem: &[u8]) -> Result<KeyPair, CertificateError> {
    let pem = std::str::from_utf8(pem).map_err(|error| CertificateError::file(file, error))?;
    KeyPair::from_pem(pem).map_err(|error| CertificateError::file(file, error))
}

/// What a file of the data folder holds; made first where it is missing, readable by its owner only, whole or not at all.
pub(super) fn keep(file: &Path, make: impl FnOnce() -> Result<Vec<u8>, String>) -> Result<Vec<u8>, CertificateError> {
    match std::fs::read(file) {
        Ok(bytes) => return Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(CertificateError::file(file, error)),
    }
    let bytes = make().map_err(|error| CertificateError::file(file, error))?;
    let mut new: PathBuf = file.to_owned();
    new.set_extension("new");
    let write = || -> std::io::Result<()> {
        let mut handle = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        handle.write_all(&bytes)?;
        handle.sync_all()?;
        std::fs::rename(&new, file)
    };
    write().map_err(|error| CertificateError::file(file, error))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_certificates_are_kept_as_there_is_room_for_and_the_oldest_goes_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::open(folder.path(), Vec::new()).expect("an authority");
        let name = |number: usize| format!("n{number}.wild.test");
        let most = limits::LOCAL_CERTIFICATES_MAX;
        let first = authority.certificate(Some(&name(0))).expect("a certificate");
        for number in 1..most {
            assert!(authority.certificate(Some(&name(number))).is_some(), "{number}");
        }
        assert_eq!(authority.made.lock().len(), most);
        let again = authority.certificate(Some(&name(0))).expect("a certificate");
        assert!(Arc::ptr_eq(&first, &again), "up to there all are kept");
        for number in most..most + 3 {
            assert!(authority.certificate(Some(&name(number))).is_some(), "{number}");
        }
        let made = authority.made.lock();
        assert_eq!(made.len(), most);
        assert!(
            (0..3).all(|number| !made.contains_key(&name(number))) && made.contains_key(&name(3)) && made.contains_key(&name(most + 2))
        );
    }
}
