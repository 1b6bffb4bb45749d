//! Names and ids, checked where they enter.

use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a name, id or digest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?}: {rule}")]
pub struct BadName {
    /// What kind of name.
    pub what: &'static str,
    /// The text as given, cut to 80 characters.
    pub value: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text, shared.
            pub fn shared(&self) -> Arc<str> {
                self.0.clone()
            }
        }

        impl FromStr for $type {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(BadName { what: $what, value: text.chars().take(80).collect(), rule: $rule })
                }
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;

            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
}

name!(
    /// A worker's name.
    WorkerName, "worker name", is_label,
    "1 to 63 of a-z, 0-9, '-' and '_', beginning with a letter or digit"
);
name!(
    /// A node's name; also names of site files and cordons.
    NodeName, "name", is_label,
    "1 to 63 of a-z, 0-9, '-' and '_', beginning with a letter or digit"
);
name!(
    /// A version's id: a lower-case UUID.
    VersionId, "version id", |text| uuid::Uuid::try_parse(text).is_ok() && text.len() == 36 && !text.bytes().any(|b| b.is_ascii_uppercase()),
    "a lower-case UUID"
);
name!(
    /// A SHA-256 digest, 64 lower-case hex digits.
    Digest, "digest", |text| text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
    "64 lower-case hex digits"
);
name!(
    /// The life of a log: a lower-case UUID of version 7, so that a later epoch compares greater. A node refuses to go back to an earlier one.
    Epoch, "epoch", |text| uuid::Uuid::try_parse(text).is_ok() && text.len() == 36 && !text.bytes().any(|b| b.is_ascii_uppercase()),
    "a lower-case UUID"
);
name!(
    /// Names a request, so that repeating it gives the first result instead of doing it twice.
    RequestId, "request id",
    |text| (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'),
    "1 to 64 of a-z, A-Z, 0-9, '-' and '_'"
);

impl VersionId {
    /// A new id; later ones compare greater.
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().to_string().into())
    }
}

impl Epoch {
    /// A new epoch; later ones compare greater.
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().to_string().into())
    }
}

impl RequestId {
    /// A new id.
    pub fn generate() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }
}

impl Digest {
    /// SHA-256 of the bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes)).into())
    }

    /// 64 zeros: the chain before the first entry of a log.
    pub fn zero() -> Self {
        Self("0".repeat(64).into())
    }
}
