//! Ed25519 keys of the registry and of nodes, and what their signatures are for. A signature made for one purpose is worthless
//! for any other: the purpose is part of what is signed.

use std::path::Path;
use std::str::FromStr;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

/// What a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The registry: an entry of the feed.
    FeedEntry,
    /// The registry: a snapshot in the feed.
    FeedReset,
    /// The registry: a sign of life in the feed.
    FeedHeartbeat,
    /// The registry: a question in the feed.
    FeedQuestion,
    /// The registry: a worker's version and its bundle.
    Version,
    /// A node: that it holds the key that it joins with.
    NodeJoin,
    /// A node: one request.
    NodeRequest,
}

impl Purpose {
    const fn prefix(self) -> &'static [u8] {
        match self {
            Self::FeedEntry => b"selvedge feed entry 1\0",
            Self::FeedReset => b"selvedge feed reset 1\0",
            Self::FeedHeartbeat => b"selvedge feed heartbeat 1\0",
            Self::FeedQuestion => b"selvedge feed question 1\0",
            Self::Version => b"selvedge version 1\0",
            Self::NodeJoin => b"selvedge node join 1\0",
            Self::NodeRequest => b"selvedge node request 1\0",
        }
    }

    fn message(self, message: &[u8]) -> Vec<u8> {
        [self.prefix(), message].concat()
    }
}

/// Why text or a file is no key or signature.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    /// Not as many hex digits as it must have.
    #[error("{what} must be {digits} lower-case hex digits")]
    NotHex {
        /// What it should be.
        what: &'static str,
        /// How many digits.
        digits: usize,
    },
    /// A file that holds no key.
    #[error("{path} holds no Ed25519 key in PKCS#8")]
    NotAKey {
        /// The file.
        path: String,
    },
    /// A file that cannot be read or written.
    #[error("cannot read or write the key {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
}

macro_rules! hex_bytes {
    ($(#[$doc:meta])* $type:ident, $what:literal, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type([u8; $len]);

        impl $type {
            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl From<[u8; $len]> for $type {
            fn from(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
        }

        impl FromStr for $type {
            type Err = BadKey;

            fn from_str(text: &str) -> Result<Self, BadKey> {
                let bad = BadKey::NotHex { what: $what, digits: $len * 2 };
                if text.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(bad);
                }
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| bad)?;
                Ok(Self(bytes))
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadKey;

            fn try_from(text: String) -> Result<Self, BadKey> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(bytes: $type) -> String {
                hex::encode(bytes.0)
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), hex::encode(self.0))
            }
        }
    };
}

hex_bytes!(
    /// An Ed25519 public key, 64 hex digits as text.
    PublicKey, "a public key", 32
);
hex_bytes!(
    /// An Ed25519 signature, 128 hex digits as text.
    Signature, "a signature", 64
);

impl PublicKey {
    /// Whether the holder of this key has signed the message for this purpose.
    #[must_use]
    pub fn verifies(&self, purpose: Purpose, message: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(&purpose.message(message), &signature.0).is_ok()
    }
}

/// An Ed25519 key pair.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    pkcs8: Vec<u8>,
}

impl SigningKey {
    /// A new random key.
    pub fn generate() -> Result<Self, BadKey> {
        let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).map_err(|_| BadKey::NoRandom)?;
        Self::from_pkcs8(document.as_ref(), Path::new("the generated key"))
    }

    /// The key in a PKCS#8 document; `path` is for the error.
    fn from_pkcs8(pkcs8: &[u8], path: &Path) -> Result<Self, BadKey> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| BadKey::NotAKey { path: path.display().to_string() })?;
        Ok(Self { pair, pkcs8: pkcs8.to_vec() })
    }

    /// The key kept in a file, made on first use with mode 0600. Blocks.
    pub fn load_or_create(path: &Path) -> Result<Self, BadKey> {
        let failed = |source| BadKey::File { path: path.display().to_string(), source };
        match std::fs::read(path) {
            Ok(pkcs8) => Self::from_pkcs8(&pkcs8, path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = Self::generate()?;
                crate::tokens::write_private(path, &key.pkcs8).map_err(failed)?;
                Ok(key)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// The pair as a PKCS#8 document, to prove in TLS who holds it. What TLS 1.3 signs begins otherwise than every message of a [`Purpose`] (RFC 8446, section
    /// 4.4.3), so neither can stand for the other; older versions would let the other side choose how it begins.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Signs a message for a purpose.
    pub fn sign(&self, purpose: Purpose, message: &[u8]) -> Signature {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(self.pair.sign(&purpose.message(message)).as_ref());
        Signature(bytes)
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey(public: {})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_purpose_and_message_only() {
        let key = SigningKey::generate().expect("random bytes");
        let signature = key.sign(Purpose::Version, b"message");
        assert!(key.public().verifies(Purpose::Version, b"message", &signature));
        assert!(!key.public().verifies(Purpose::FeedEntry, b"message", &signature));
        assert!(!key.public().verifies(Purpose::Version, b"messagf", &signature));
        let other = SigningKey::generate().expect("random bytes");
        assert!(!other.public().verifies(Purpose::Version, b"message", &signature));
    }

    #[test]
    fn keys_and_signatures_survive_their_text_and_refuse_other_text() {
        let key = SigningKey::generate().expect("random bytes");
        let text = key.public().to_string();
        assert_eq!(text.parse::<PublicKey>().expect("its own text"), key.public());
        assert!(text.to_uppercase().parse::<PublicKey>().is_err() || !text.bytes().any(|b| b.is_ascii_alphabetic()));
        assert!(text.get(..62).expect("64 digits").parse::<PublicKey>().is_err());
        assert!("".parse::<Signature>().is_err());
    }

    #[test]
    fn a_key_file_is_made_once_and_only_its_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("signing.key");
        let first = SigningKey::load_or_create(&path).expect("a new key");
        let second = SigningKey::load_or_create(&path).expect("the same key");
        assert_eq!(first.public(), second.public());
        assert_eq!(std::fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, b"nonsense").expect("writable");
        assert!(SigningKey::load_or_create(&path).is_err());
    }
}
