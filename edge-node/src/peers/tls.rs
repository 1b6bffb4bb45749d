//! TLS 1.3 between nodes with raw public keys (RFC 7250): a node's key in the registry is all there is to check, so there are no names, no authorities and no dates.
//! Sessions are not resumed: each connection proves the key anew.

use std::sync::{Arc, Weak};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use selvedge_origin::keys::{PublicKey, SigningKey};

use super::Peers;

/// HTTP/2, and nothing else.
const ALPN: &[u8] = b"h2";
/// How a SubjectPublicKeyInfo of an Ed25519 key begins (RFC 8410, section 4); the key's 32 bytes follow.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What a node proves by who it is.
#[derive(Debug, Clone)]
pub(super) struct Proof(Arc<CertifiedKey>);

impl Proof {
    /// With this key.
    pub(super) fn new(key: &SigningKey) -> Result<Self, Error> {
        let signing = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(key.pkcs8()))?;
        let raw = CertificateDer::from([&SPKI_PREFIX[..], key.public().as_bytes()].concat());
        Ok(Self(Arc::new(CertifiedKey::new(vec![raw], signing))))
    }
}

/// The key in a SubjectPublicKeyInfo.
pub(super) fn key_of(raw: &[u8]) -> Option<PublicKey> {
    let key: [u8; 32] = raw.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?;
    Some(PublicKey::from(key))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The asking side: talks to whoever holds `peer`, and to nobody else.
pub(super) fn client(proof: &Proof, peer: PublicKey) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
    let resolver = Arc::new(AlwaysResolvesClientRawPublicKeys::new(proof.0.clone()));
    let verifier = Arc::new(Only { peer, provider: provider() });
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_client_cert_resolver(resolver);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The asked side: talks to every node that the registry knows.
pub(super) fn server(peers: Arc<Peers>) -> Result<ServerConfig, Error> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
    let verifier = Arc::new(Known { peers: Arc::downgrade(&peers), provider: provider() });
    let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(Own(Arc::downgrade(&peers))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// This node's proof, once it has joined.
#[derive(Debug)]
struct Own(Weak<Peers>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.upgrade()?.itself.load().as_ref()?.proof.0.clone())
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

fn unknown() -> Error {
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

/// What both sides' verifiers say alike: signatures of TLS 1.3 by raw Ed25519 keys.
macro_rules! raw_ed25519_keys {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("nodes speak TLS 1.3 only".into()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            raw: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let raw = SubjectPublicKeyInfoDer::from(raw.as_ref());
            verify_tls13_signature_with_raw_key(message, &raw, dss, &self.provider.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

/// One node.
#[derive(Debug)]
struct Only {
    peer: PublicKey,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        raw: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if key_of(raw) == Some(self.peer) { Ok(ServerCertVerified::assertion()) } else { Err(unknown()) }
    }

    raw_ed25519_keys!();
}

/// Every node that the registry knows.
#[derive(Debug)]
struct Known {
    peers: Weak<Peers>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Known {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(&self, raw: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: UnixTime) -> Result<ClientCertVerified, Error> {
        let known = key_of(raw).and_then(|key| self.peers.upgrade()?.named(&key));
        if known.is_some() { Ok(ClientCertVerified::assertion()) } else { Err(unknown()) }
    }

    raw_ed25519_keys!();
}

/// A node that asks another one, for tests of whoever answers.
#[cfg(test)]
pub(crate) fn client_of(identity: &selvedge_origin::client::NodeIdentity, peer: PublicKey) -> Result<ClientConfig, Error> {
    client(&Proof::new(identity.key())?, peer)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rustls_pki_types::ServerName;
    use selvedge_origin::client::NodeIdentity;
    use selvedge_origin::registry::PeerRecord;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    fn identity(name: &str) -> NodeIdentity {
        NodeIdentity::generate(name.parse().expect("a name")).expect("random bytes")
    }

    /// A node that knows these others.
    fn node(itself: &NodeIdentity, others: &[&NodeIdentity]) -> Arc<Peers> {
        let peers = Arc::new(Peers::new("here"));
        peers.joined(itself);
        let record = |other: &&NodeIdentity| {
            let record = PeerRecord { region: "here".into(), address: "127.0.0.1:1".into(), key: other.key().public() };
            (other.name().clone(), record)
        };
        peers.update(&others.iter().map(record).collect::<BTreeMap<_, _>>());
        peers
    }

    /// Whether a node with `proof` that expects `expected` and one that serves as `asked` come to an understanding; and whom the latter sees.
    async fn handshake(proof: &NodeIdentity, expected: PublicKey, asked: &Arc<Peers>) -> Result<Option<PublicKey>, String> {
        let (ours, theirs) = tokio::io::duplex(16 << 10);
        let client = client(&Proof::new(proof.key()).expect("a key"), expected).expect("a configuration");
        let acceptor = TlsAcceptor::from(Arc::new(server(asked.clone()).expect("a configuration")));
        let name = ServerName::try_from("peer.selvedge.internal").expect("a name");
        let connector = TlsConnector::from(Arc::new(client));
        let (connected, accepted) = tokio::join!(connector.connect(name, ours), acceptor.accept(theirs));
        let accepted = accepted.map_err(|error| error.to_string())?;
        connected.map_err(|error| error.to_string())?;
        Ok(super::super::proven_key(accepted.get_ref().1.peer_certificates()))
    }

    #[tokio::test]
    async fn only_nodes_that_prove_the_keys_of_their_records_talk() {
        let (a, b, c) = (identity("a"), identity("b"), identity("c"));
        let serving = node(&b, &[&a]);
        assert_eq!(handshake(&a, b.key().public(), &serving).await, Ok(Some(a.key().public())));
        assert!(handshake(&a, c.key().public(), &serving).await.is_err(), "another node serves at the address");
        assert!(handshake(&c, b.key().public(), &serving).await.is_err(), "the registry does not know who asks");
        serving.update(&BTreeMap::new());
        assert!(handshake(&a, b.key().public(), &serving).await.is_err(), "it was removed");
        assert!(handshake(&a, b.key().public(), &Arc::new(Peers::new("here"))).await.is_err(), "a node that has not joined");
    }
}
