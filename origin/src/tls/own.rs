//! The registry's own certificate: its authority makes a new one long before the last expires, for a registry may run for years.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::authority::TlsError;
use super::provider;

/// A certificate is good for this long.
const VALIDITY: Duration = Duration::from_secs(90 * 86_400);
/// It is made anew after this time, also where the machine slept for weeks meanwhile.
const AGE_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Clocks of clients may be behind ours by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(86_400);

/// Certificates for the same names, one after the other.
pub(super) struct OwnCertificate {
    issuer: Issuer<'static, KeyPair>,
    authority: CertificateDer<'static>,
    names: Vec<String>,
    current: Mutex<Made>,
}

struct Made {
    at: Instant,
    key: Arc<CertifiedKey>,
}

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OwnCertificate").field("names", &self.names).finish_non_exhaustive()
    }
}

impl OwnCertificate {
    /// Makes the first one.
    pub(super) fn new(
        issuer: Issuer<'static, KeyPair>,
        authority: CertificateDer<'static>,
        names: Vec<String>,
        now: Instant,
    ) -> Result<Self, TlsError> {
        let key = make(&issuer, &authority, &names)?;
        Ok(Self { issuer, authority, names, current: Mutex::new(Made { at: now, key }) })
    }

    /// The one to serve with.
    fn at(&self, now: Instant) -> Arc<CertifiedKey> {
        let mut current = self.current.lock();
        if now.saturating_duration_since(current.at) >= AGE_MAX {
            match make(&self.issuer, &self.authority, &self.names) {
                Ok(key) => {
                    tracing::info!("the registry's certificate is renewed");
                    *current = Made { at: now, key };
                }
                // The last one is good for a while yet.
                Err(error) => tracing::error!(%error, "the registry's certificate cannot be renewed"),
            }
        }
        current.key.clone()
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(Instant::now()))
    }
}

fn make(issuer: &Issuer<'static, KeyPair>, authority: &CertificateDer<'static>, names: &[String]) -> Result<Arc<CertifiedKey>, TlsError> {
    let certificate = |error: rcgen::Error| TlsError::Certificate(error.to_string());
    let mut params = CertificateParams::new(names.to_vec()).map_err(certificate)?;
    params.distinguished_name.push(DnType::CommonName, "Selvedge registry");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now();
    (params.not_before, params.not_after) = ((now - CLOCK_SKEW).into(), (now + VALIDITY).into());
    let key = KeyPair::generate().map_err(certificate)?;
    let leaf = params.signed_by(&key, issuer).map_err(certificate)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| TlsError::Certificate(error.to_owned()))?;
    // The authority is part of the chain: clients look for it there.
    let made = CertifiedKey::from_der(vec![leaf.der().clone(), authority.clone()], key, &provider());
    made.map(Arc::new).map_err(|error| TlsError::Certificate(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::authority::authority;
    use super::*;

    #[test]
    fn it_is_made_anew_before_it_is_too_old_and_not_sooner() {
        let folder = tempfile::tempdir().expect("a folder");
        let (der, issuer) = authority(folder.path()).expect("made");
        let start = Instant::now();
        let own = OwnCertificate::new(issuer, der.clone(), vec!["localhost".to_owned()], start).expect("made");
        let first = own.at(start);
        assert_eq!(own.at(start + AGE_MAX - Duration::from_secs(1)).cert, first.cert);
        let second = own.at(start + AGE_MAX);
        assert_ne!(second.cert.first(), first.cert.first());
        assert_eq!(second.cert.last(), Some(&der), "it leads to the same authority, which clients have pinned");
        assert_eq!(own.at(start + AGE_MAX + Duration::from_secs(1)).cert, second.cert);
        const { assert!(AGE_MAX.as_secs() * 2 < VALIDITY.as_secs()) };
    }
}
