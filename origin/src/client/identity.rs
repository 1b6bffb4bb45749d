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

    /// The value of `Authorization` for one request at one moment (Unix time in microseconds). All that is signed is in the request's head, so that the
    /// registry knows who calls before it reads a body.
    pub(crate) fn authorization(&self, method: &str, path: &str, body: &[u8], now_us: u64) -> String {
        let body = Digest::of(body);
        let sig = self.key.sign(Purpose::NodeRequest, request_message(method, path, &body, now_us).as_bytes());
        let (node, key) = (&self.name, self.key.public());
        format!("Selvedge-Node node=\"{node}\", key=\"{key}\", ts=\"{now_us}\", body=\"{body}\", sig=\"{sig}\"")
    }
}

/// What a node signs for one request; none of the parts contains a line feed.
pub(crate) fn request_message(method: &str, path: &str, body: &Digest, now_us: u64) -> String {
    format!("{method}\n{path}\n{now_us}\n{body}")
}
