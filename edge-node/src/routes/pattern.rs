//! A route's pattern, parsed: which host and which paths it means. Pure.

use std::sync::Arc;

/// `HOST/PATH`, checked and normalised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// Which authorities.
    pub host: HostPattern,
    /// Which paths, as written: `*` stands for any bytes, also none, also `/`; without one the path is exact.
    pub path: Arc<str>,
}

/// The host of a pattern, in lower case. A request's port plays no part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// This host.
    Exact(Arc<str>),
    /// `*.example.org`: every name below `example.org`, at any depth, but not `example.org` itself.
    Below(Arc<str>),
    /// Every authority.
    Any,
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("route pattern {pattern:?}: {rule}")]
pub struct PatternError {
    /// The pattern, cut to 120 characters.
    pub pattern: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

/// Bytes of a pattern: a host has 253 (RFC 1035, section 2.3.4), and a path in a pattern is written by a person.
pub const PATTERN_BYTES_MAX: usize = 2_048;
/// Wildcards in one path: matching costs one scan for each.
pub const WILDCARDS_MAX: usize = 8;

impl Pattern {
    /// Parses `www.example.org/*`, `*.example.org/api/*`, `/*` (every authority) or `*/*` (the same).
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let refuse = |rule| PatternError { pattern: text.chars().take(120).collect(), rule };
        if text.len() > PATTERN_BYTES_MAX {
            return Err(refuse("longer than 2048 bytes"));
        }
        if text.contains("://") {
            return Err(refuse("a pattern has no scheme; write host/path, and redirect_to_https on the route for https only"));
        }
        let Some(slash) = text.find('/') else {
            return Err(refuse("no path; write example.org/* for all paths of a host"));
        };
        let (host, path) = text.split_at(slash);
        let host = parse_host(host).map_err(refuse)?;
        check_path(path).map_err(refuse)?;
        Ok(Self { host, path: path.into() })
    }
}

fn parse_host(text: &str) -> Result<HostPattern, &'static str> {
    if text.is_empty() || text == "*" {
        return Ok(HostPattern::Any);
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    if name.contains('*') {
        return Err("a host's wildcard is its whole first label: *.example.org");
    }
    let name = name.to_ascii_lowercase();
    if name.starts_with('[') {
        let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address: std::net::Ipv6Addr =
            address.and_then(|address| address.parse().ok()).ok_or("not an IPv6 address in brackets (a pattern has no port)")?;
        return if text.starts_with("*.") {
            Err("an address has no names below it")
        } else {
            Ok(HostPattern::Exact(format!("[{address}]").into()))
        };
    }
    if name.contains(':') {
        return Err("a pattern has no port: it matches every port of the host");
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err("not a host name (names outside ASCII are written in their xn-- form)");
    }
    Ok(if text.starts_with("*.") { HostPattern::Below(name.into()) } else { HostPattern::Exact(name.into()) })
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.bytes().any(|b| !(0x21..=0x7e).contains(&b)) {
        return Err("a path is printable ASCII; write other bytes as %XX");
    }
    if path.contains(['?', '#']) {
        return Err("a pattern has no query and no fragment: it matches every query");
    }
    if path.contains("**") {
        return Err("one * already stands for anything; ** says nothing more");
    }
    if path.bytes().filter(|b| *b == b'*').count() > WILDCARDS_MAX {
        return Err("more than 8 wildcards in a path");
    }
    Ok(())
}

/// Whether `text` is matched by `pattern`, in which `*` stands for anything. Without backtracking over earlier wildcards: each literal
/// piece takes its first place, which is right for every pattern whose only operator is `*`. Costs at most `text.len()` for each piece.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut pieces = rest;
    while let Some((piece, after)) = pieces.split_once('*') {
        let Some(at) = text.find(piece) else { return false };
        text = text.get(at + piece.len()..).unwrap_or_default();
        pieces = after;
    }
    text.ends_with(pieces)
}
