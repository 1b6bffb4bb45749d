//! Who this node is: on its first start it makes a key of its own and joins the registry with the node token; ever after that key is its
//! identity, and the pins of the token file are kept beside it.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::Access;
use selvedge_origin::client::{Client, ClientError, NodeIdentity};
use selvedge_origin::keys::PublicKey;
use selvedge_origin::registry::{Digest, NodeName};
use selvedge_origin::tokens::{TokenFile, TokenKind};
use serde::{Deserialize, Serialize};

use super::{FollowError, FollowerConfig, limits, state};

const IDENTITY_FILE: &str = "node.json";
const KEY_FILE: &str = "node.key";

/// What a node keeps of having joined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    name: NodeName,
    authority: Option<Digest>,
    signing_key: PublicKey,
}

impl IdentityFile {
    /// What is kept in a data folder; none before the first join. Blocks.
    fn read(data: &Path) -> Result<Option<Self>, FollowError> {
        let path = data.join(IDENTITY_FILE);
        let failed = |reason: String| FollowError::Data { path: path.clone(), reason };
        let mut text = Vec::new();
        match std::fs::File::open(&path) {
            Ok(file) => file.take(limits::IDENTITY_BYTES_MAX).read_to_end(&mut text).map_err(|error| failed(error.to_string()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error.to_string())),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| failed(error.to_string()))
    }
}

/// Whether a node could begin with this data folder and this token file, as far as that shows without writing anything or asking the registry. Blocks.
pub fn check(data: &Path, token_file: Option<&Path>) -> Result<(), FollowError> {
    let failed = |path: &Path, reason: String| FollowError::Data { path: path.to_owned(), reason };
    // A folder that is not there yet is made in the nearest one that is.
    let there = data.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path }).find(|path| path.exists());
    let there = there.ok_or_else(|| failed(data, "no folder above it is there".to_owned()))?;
    if !there.is_dir() {
        return Err(failed(there, "is not a folder".to_owned()));
    }
    rustix::fs::access(there, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).map_err(|error| failed(there, error.to_string()))?;
    match IdentityFile::read(data)? {
        Some(_) => Ok(()),
        None => token_file.map_or(Ok(()), |file| read_token(file).map(drop)),
    }
}

/// Whether a node has joined with this data folder. Blocks.
pub(crate) fn has_joined(data: &Path) -> bool {
    data.join(IDENTITY_FILE).exists()
}

/// A node that has joined.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// Its name and key.
    pub(super) identity: Arc<NodeIdentity>,
    /// The registry's key: nothing is applied that it has not signed.
    pub(super) signing_key: PublicKey,
    /// The registry's authority, pinned.
    authority: Option<Digest>,
}

impl Member {
    /// The member that the data folder remembers; none before the first join. Blocks.
    pub(super) fn load(config: &FollowerConfig) -> Result<Option<Self>, FollowError> {
        let Some(kept) = IdentityFile::read(&config.data)? else { return Ok(None) };
        if kept.name != config.name {
            tracing::warn!(node = %kept.name, configured = %config.name, "this node joined under another name and keeps it");
        }
        let identity = Arc::new(load_key(&config.data, kept.name)?);
        Ok(Some(Self { identity, signing_key: kept.signing_key, authority: kept.authority }))
    }

    /// A client that calls the registry as this node.
    pub(super) fn client(&self, origin: &str) -> Result<Client, ClientError> {
        Client::connect_node(origin, self.authority.clone(), self.identity.clone())
    }

    fn keep(&self, data: &Path) -> Result<(), FollowError> {
        let path = data.join(IDENTITY_FILE);
        let file = IdentityFile { name: self.identity.name().clone(), authority: self.authority.clone(), signing_key: self.signing_key };
        let text = serde_json::to_vec_pretty(&file).map_err(io::Error::from);
        text.and_then(|text| state::write_whole(&path, &text)).map_err(|error| FollowError::Data { path, reason: error.to_string() })
    }
}

/// Why a join failed.
#[derive(Debug)]
pub(super) enum JoinError {
    /// The registry is not there: later, perhaps.
    Away(ClientError),
    /// It will not work by trying again.
    Final(FollowError),
}

/// Joins with the node token, under `name`, and keeps the identity. Joining again with the same key changes nothing.
pub(super) async fn join(config: &FollowerConfig, origin: &str, name: NodeName) -> Result<Member, JoinError> {
    let files = config.clone();
    let read = tokio::task::spawn_blocking(move || {
        let path = files.token_file.as_deref().ok_or_else(|| FollowError::Token { reason: "no token file is given".into() })?;
        Ok::<_, FollowError>((read_token(path)?, load_key(&files.data, name)?))
    });
    let (token, identity) =
        read.await.map_err(|error| JoinError::Final(FollowError::Token { reason: error.to_string() }))?.map_err(JoinError::Final)?;
    let refused = |error: ClientError| match error.is_transient() {
        true => JoinError::Away(error),
        false => JoinError::Final(FollowError::Join { origin: origin.to_owned(), reason: error.to_string() }),
    };
    let client = Client::connect(origin, &token).map_err(refused)?;
    client.join(&identity, &config.region, config.address.as_deref()).await.map_err(refused)?;
    let member = Member { identity: Arc::new(identity), signing_key: token.signing_key, authority: token.authority };
    let (kept, data) = (member.clone(), config.data.clone());
    let written = tokio::task::spawn_blocking(move || kept.keep(&data)).await;
    written.map_err(|error| JoinError::Final(FollowError::Token { reason: error.to_string() }))?.map_err(JoinError::Final)?;
    tracing::info!(node = %member.identity.name(), origin, "joined the registry");
    Ok(member)
}

fn read_token(path: &Path) -> Result<TokenFile, FollowError> {
    let token = TokenFile::read(path).map_err(|error| FollowError::Token { reason: error.to_string() })?;
    if token.kind != TokenKind::Node {
        let reason = format!("{} is not a node token (the registry writes node.token beside it)", path.display());
        return Err(FollowError::Token { reason });
    }
    Ok(token)
}

fn load_key(data: &Path, name: NodeName) -> Result<NodeIdentity, FollowError> {
    let path = data.join(KEY_FILE);
    NodeIdentity::load_or_create(name, &path).map_err(|error| FollowError::Data { path, reason: error.to_string() })
}
