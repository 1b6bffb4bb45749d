//! Why a listener does not hand a request on: a closed list. What is sent for each is decided in `request/respond.rs`.

/// Why a request is refused before any route is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// HTTP/1.1 without a Host field, or with more than one, or with one that is no authority (RFC 9112, section 3.2): 400.
    #[error("the Host field is missing, doubled or not an authority")]
    BadHost,
    /// Host or `:authority` differs from the authority of the target (RFC 9113, section 8.3.1; for HTTP/1.1 stricter than RFC 9112, section 3.2.2): 400.
    #[error("the Host field differs from the target")]
    HostMismatch,
    /// The target has user information (RFC 9110, section 4.2.4), a fragment, or another scheme than the connection: 400.
    #[error("the target is malformed")]
    BadTarget,
    /// Transfer-Encoding with Content-Length, on HTTP/1.0, or other than `chunked` alone; a Content-Length that is no number or more than one (RFC 9112, section 6): 400.
    #[error("the framing of the body is ambiguous")]
    BadFraming,
    /// Bytes that are no head of a request (RFC 9112, sections 2 to 5): 400.
    #[error("the head is malformed")]
    BadHead,
    /// The head did not come to its end in [`crate::limits::Limits::head_timeout_ms`]: 408.
    #[error("the head took too long")]
    SlowHead,
    /// Neither HTTP/1.0 nor HTTP/1.1 on a connection that speaks these (RFC 9110, section 15.6.6): 505.
    #[error("the version is not supported")]
    VersionNotSupported,
    /// Fields that only HTTP/1.1 may have (RFC 9113, section 8.2.2; RFC 9114, section 4.2): 400.
    #[error("connection-specific fields are not allowed in this version")]
    ConnectionFields,
    /// [`crate::limits::TARGET_BYTES_MAX`]: 414.
    #[error("the target is too long")]
    TargetTooLong,
    /// [`crate::limits::HEAD_BYTES_MAX`], [`crate::limits::FIELDS_MAX`]: 431.
    #[error("the fields are too large or too many")]
    FieldsTooLarge,
    /// CONNECT, or a method beyond [`crate::limits::METHOD_BYTES_MAX`]: 501.
    #[error("the method is not supported")]
    MethodNotSupported,
}

impl Refusal {
    /// The stable name, for logs and `Proxy-Status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadHost => "bad_host",
            Self::HostMismatch => "host_mismatch",
            Self::BadTarget => "bad_target",
            Self::BadFraming => "bad_framing",
            Self::BadHead => "bad_head",
            Self::SlowHead => "slow_head",
            Self::VersionNotSupported => "version_not_supported",
            Self::ConnectionFields => "connection_fields",
            Self::TargetTooLong => "target_too_long",
            Self::FieldsTooLarge => "fields_too_large",
            Self::MethodNotSupported => "method_not_supported",
        }
    }
}
