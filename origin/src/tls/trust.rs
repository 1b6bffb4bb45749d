//! A private authority, as an operator gives it for upstreams: PEM in, roots out.

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::limits::AUTHORITY_CERTIFICATES_MAX;

/// The roots that a text of PEM certificates makes; an error that says what is wrong with it. What is no certificate (a key) is an error: it has no business
/// there.
pub fn trust(pem: &str) -> Result<RootCertStore, String> {
    if pem.contains("PRIVATE KEY") {
        return Err("holds a private key; only certificates belong here".to_owned());
    }
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|error| format!("not PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("no certificate in it (PEM begins with -----BEGIN CERTIFICATE-----)".to_owned());
    }
    if certificates.len() > AUTHORITY_CERTIFICATES_MAX {
        return Err(format!("more than {AUTHORITY_CERTIFICATES_MAX} certificates"));
    }
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| format!("certificate {}: {error}", index + 1))?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_certificates_make_an_authority() {
        let made = rcgen::generate_simple_self_signed(["ca.internal".to_owned()]).expect("a certificate");
        assert_eq!(trust(&made.cert.pem()).expect("an authority").len(), 1);
        for (text, word) in [
            (String::new(), "no certificate"),
            ("hello".to_owned(), "no certificate"),
            (made.signing_key.serialize_pem(), "private key"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(), "certificate 1"),
            ("-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n".to_owned(), "not PEM"),
            (made.cert.pem().repeat(AUTHORITY_CERTIFICATES_MAX + 1), "more than"),
        ] {
            let refused = trust(&text).expect_err(&text);
            assert!(refused.contains(word), "{text:?}: {refused}");
        }
    }
}
