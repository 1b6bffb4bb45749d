//! Why a call failed: every text names the registry's address and, where there is one, what to try.

use std::time::Duration;

use crate::api::wire::ErrorReply;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address cannot be used.
    #[error("registry address {url:?}: {reason}")]
    Url {
        /// As given.
        url: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// Nobody answers there.
    #[error("cannot reach the registry at {url}: {reason}; is `selvedge origin` running there?")]
    Connect {
        /// The address.
        url: String,
        /// Why.
        reason: String,
    },
    /// Somebody answers whose certificate does not hold.
    #[error("the registry at {url} cannot prove itself: {reason}; is the token file of this registry?")]
    Tls {
        /// The address.
        url: String,
        /// Why.
        reason: String,
    },
    /// The connection broke during the call.
    #[error("the connection to the registry at {url} broke: {reason}")]
    Broken {
        /// The address.
        url: String,
        /// Why.
        reason: String,
    },
    /// No answer in time.
    #[error("the registry at {url} did not answer within {ms} ms")]
    Timeout {
        /// The address.
        url: String,
        /// The bound, in milliseconds.
        ms: u128,
    },
    /// The registry says no.
    #[error("the registry at {url} refuses ({}): {}{}", .reply.code, .reply.message, .reply.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default())]
    Refused {
        /// The address.
        url: String,
        /// HTTP status.
        status: u16,
        /// What it says.
        reply: ErrorReply,
    },
    /// An answer that makes no sense.
    #[error("the registry at {url} answered what this build does not understand: {reason}; do both run the same release?")]
    Protocol {
        /// The address.
        url: String,
        /// What.
        reason: String,
    },
}

impl ClientError {
    pub(super) fn protocol(url: &str, reason: impl std::fmt::Display) -> Self {
        Self::Protocol { url: url.to_owned(), reason: reason.to_string() }
    }

    pub(super) fn broken(url: &str, reason: impl std::fmt::Display) -> Self {
        Self::Broken { url: url.to_owned(), reason: reason.to_string() }
    }

    pub(super) fn timeout(url: &str, bound: Duration) -> Self {
        Self::Timeout { url: url.to_owned(), ms: bound.as_millis() }
    }

    /// The registry's own code, where it answered with one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { reply, .. } => Some(&reply.code),
            _ => None,
        }
    }

    /// Whether the registry has removed the node that calls.
    pub fn is_revoked(&self) -> bool {
        self.code() == Some("node_revoked")
    }

    /// Whether trying the same again later may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Broken { .. } | Self::Timeout { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || matches!(status, 408 | 429),
            Self::Url { .. } | Self::Tls { .. } | Self::Protocol { .. } => false,
        }
    }

    /// The same for a node that has joined: it is known there, so where it is not now, a clock or a certificate is wrong and will be mended. (Of its removal it
    /// is told otherwise.)
    pub fn is_transient_for_member(&self) -> bool {
        match self {
            Self::Tls { .. } | Self::Refused { status: 401, .. } => true,
            _ => self.is_transient(),
        }
    }
}
