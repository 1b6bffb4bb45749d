//! Certificates: by name, by reload, by the local authority.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::server::{Server, connect_tls, soon, trusting};
use crate::config::CertificateFiles;
use crate::limits::Limits;

struct TestAuthority(CertifiedIssuer<'static, KeyPair>);

impl TestAuthority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn write(&self, folder: &Path, names: &[&str]) -> CertificateFiles {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        let files = CertificateFiles { certificate: folder.join("leaf.pem"), key: folder.join("leaf.key") };
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(&files.certificate, leaf.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    async fn accepts(&self, server: &Server, name: &str) -> bool {
        soon(connect_tls(server.https, name, trusting(self.0.pem().as_bytes(), &[]))).await.is_ok()
    }
}

#[tokio::test]
async fn certificates_are_chosen_by_name() {
    let (authority, folder) = (TestAuthority::new(), tempfile::tempdir().unwrap());
    let first = authority.write(&folder.path().join("first"), &["first.example"]);
    let wild = authority.write(&folder.path().join("wild"), &["*.wild.example"]);
    let server = Server::with(Limits::default(), vec![first, wild]);
    assert!(authority.accepts(&server, "first.example").await);
    assert!(authority.accepts(&server, "FIRST.example").await);
    assert!(authority.accepts(&server, "a.wild.example").await);
    assert!(!authority.accepts(&server, "a.b.wild.example").await);
    assert!(!authority.accepts(&server, "wild.example").await);
    assert!(!authority.accepts(&server, "other.example").await);
}

#[tokio::test]
async fn a_changed_file_is_used_and_a_broken_one_is_not() {
    let (authority, folder) = (TestAuthority::new(), tempfile::tempdir().unwrap());
    let files = authority.write(folder.path(), &["old.example"]);
    let server = Server::with(Limits::default(), vec![files.clone()]);
    assert!(authority.accepts(&server, "old.example").await);
    std::fs::write(&files.key, "half a file").unwrap();
    assert!(!server.certificates.refresh());
    assert!(authority.accepts(&server, "old.example").await, "the last good one stays");
    authority.write(folder.path(), &["new.example"]);
    // The server looks by itself every two seconds too.
    server.certificates.refresh();
    assert!(authority.accepts(&server, "new.example").await);
    assert!(!authority.accepts(&server, "old.example").await);
}

#[tokio::test]
async fn a_key_of_another_certificate_is_refused() {
    let (authority, folder) = (TestAuthority::new(), tempfile::tempdir().unwrap());
    let one = authority.write(&folder.path().join("one"), &["one.example"]);
    let two = authority.write(&folder.path().join("two"), &["two.example"]);
    let mixed = CertificateFiles { certificate: one.certificate, key: two.key.clone() };
    let error = crate::listen::check_certificate(&mixed).unwrap_err().to_string();
    assert!(error.contains(&two.key.display().to_string()), "{error}");
}

#[tokio::test]
async fn the_local_authority_makes_certificates_for_routed_names_only() {
    let server = Server::start();
    for name in ["localhost", "routed.example", "127.0.0.1", "::1"] {
        assert!(soon(server.connect_tls(name, &[])).await.is_ok(), "{name}");
    }
    for name in ["other.example", "sub.routed.example"] {
        assert!(soon(server.connect_tls(name, &[])).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn the_local_authority_is_kept_and_its_keys_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start();
    let folder = server.data.path().join("authority");
    for file in ["ca.key", "leaf.key"] {
        assert_eq!(std::fs::metadata(folder.join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    let pem = std::fs::read(folder.join("ca.pem")).unwrap();
    let routed = std::sync::Arc::new(|_: &str| true);
    drop(crate::listen::Certificates::open(Vec::new(), server.data.path(), Vec::new(), routed).unwrap());
    assert_eq!(std::fs::read(folder.join("ca.pem")).unwrap(), pem);
}
