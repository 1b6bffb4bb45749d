//! Token files: what a command or a joining node needs to talk to its registry. Whoever has the file has the pins of the
//! registry's authority and signing key with it.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::keys::PublicKey;
use crate::limits::TOKEN_FILE_BYTES_MAX;
use crate::registry::Digest;

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// Everything that commands do.
    Admin,
    /// Joining as a node, nothing else.
    Node,
}

/// A bearer token. Its text is never shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// A new random token of 256 bits.
    pub fn generate() -> Result<Self, TokenError> {
        use base64::Engine as _;
        let bytes: [u8; 32] = ring::rand::generate(&ring::rand::SystemRandom::new()).map_err(|_| TokenError::NoRandom)?.expose();
        Ok(Self(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The text, for the wire only.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The content of `admin.token` and `node.token`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenFile {
    /// What the token is good for.
    pub kind: TokenKind,
    /// The token.
    pub token: Token,
    /// SHA-256 of the certificate (DER) that the registry's TLS certificate must lead to. `None`: cleartext on loopback, or a certificate
    /// of a public authority.
    pub authority: Option<Digest>,
    /// The registry's signing key: nodes apply nothing that it has not signed.
    pub signing_key: PublicKey,
}

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read or written.
    #[error("cannot use the token file {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It does not hold a token.
    #[error("{path} is not a token file: {reason}; the registry writes `admin.token` and `node.token` into its data folder")]
    Content {
        /// The file.
        path: String,
        /// What is wrong, without the token.
        reason: String,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
}

impl TokenFile {
    /// Reads a token file. Blocks.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        use std::io::Read as _;
        let failed = |source| TokenError::File { path: path.display().to_string(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut text = Vec::new();
        file.take(TOKEN_FILE_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
        // The parser's message gives line and column; for a wrong type it would quote the value, which may be the token.
        serde_json::from_slice(&text).map_err(|error| TokenError::Content {
            path: path.display().to_string(),
            reason: format!("not the expected JSON at line {} column {}", error.line(), error.column()),
        })
    }

    /// Writes a token file, mode 0600, whole or not at all. Blocks.
    pub fn write(&self, path: &Path) -> Result<(), TokenError> {
        let failed = |source| TokenError::File { path: path.display().to_string(), source };
        let mut text = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        write_private(path, &text).map_err(failed)
    }
}

/// Writes a file that only its owner may read (0600): to a temporary name, synced, renamed, folder synced. Blocks.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| std::io::Error::other("not a file name"))?;
    let temporary = folder.join(format!(".{}.{}", name.to_string_lossy(), uuid::Uuid::new_v4()));
    let written = (|| {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> TokenFile {
        let key = crate::keys::SigningKey::generate().expect("random bytes");
        TokenFile { kind: TokenKind::Node, token: Token::generate().expect("random bytes"), authority: None, signing_key: key.public() }
    }

    #[test]
    fn a_token_file_survives_writing_and_shows_no_token() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node.token");
        let file = file();
        file.write(&path).expect("writable");
        assert_eq!(TokenFile::read(&path).expect("readable"), file);
        assert!(!format!("{file:?}").contains(file.token.secret()));
    }

    #[test]
    fn a_broken_token_file_is_refused_without_quoting_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node.token");
        std::fs::write(&path, r#"{"kind":"node","token":"tell-nobody","authority":7,"signing_key":""}"#).expect("writable");
        let error = TokenFile::read(&path).expect_err("a number is no digest").to_string();
        assert!(!error.contains("tell-nobody"), "{error}");
        std::fs::write(&path, "tell-nobody").expect("writable");
        let error = TokenFile::read(&path).expect_err("not JSON").to_string();
        assert!(!error.contains("tell-nobody"), "{error}");
    }
}
