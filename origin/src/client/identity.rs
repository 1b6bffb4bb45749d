//! A node's identity: its name and its own key, with which it signs every request after it has joined.

use std::path::Path;

use crate::keys::{BadKey, Purpose, SigningKey};
use crate::registry::{Digest, NodeName};

/// A node's name and key.
#[derive(Debug)]
pub struct NodeIdentity {
    name: NodeName,
    key: SigningKey,
}

impl NodeIdentity {
    /// The identity whose key is kept in a file, made on first use with mode 0600. Blocks.
    pub fn load_or_create(name: NodeName, key_file: &Path) -> Result<Self, BadKey> {
        Ok(Self { name, key: SigningKey::load_or_create(key_file)? })
    }

    /// An identity that is kept nowhere.
    pub fn generate(name: NodeName) -> Result<Self, BadKey> {
        Ok(Self { name, key: SigningKey::generate()? })
    }

    /// The node's name.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// The node's key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The value of `Authorization` for one request at one moment (Unix time in microseconds).
    pub(crate) fn authorization(&self, method: &str, path: &str, body: &[u8], now_us: u64) -> String {
        let message = request_message(method, path, body, now_us);
        let sig = self.key.sign(Purpose::NodeRequest, message.as_bytes());
        format!("Selvedge-Node node=\"{}\", ts=\"{now_us}\", sig=\"{sig}\"", self.name)
    }
}

/// What a node signs for one request; none of the parts contains a line feed.
pub(crate) fn request_message(method: &str, path: &str, body: &[u8], now_us: u64) -> String {
    format!("{method}\n{path}\n{now_us}\n{}", Digest::of(body))
}
