//! A route's pattern, parsed: which host and which paths it means. Pure.

use std::sync::Arc;

use selvedge_origin::registry::normalise_pattern;

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

impl Pattern {
    /// Parses `www.example.org/*`, `*.example.org/api/*`, `/*` (every authority) or `*/*` (the same), by the registry's rule.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let refuse = |rule| PatternError { pattern: text.chars().take(120).collect(), rule };
        let spelt = normalise_pattern(text).map_err(refuse)?;
        let (host, path) = spelt.split_at(spelt.find('/').unwrap_or(spelt.len()));
        let host = match host.strip_prefix("*.") {
            Some(parent) => HostPattern::Below(parent.into()),
            None if host.is_empty() => HostPattern::Any,
            None => HostPattern::Exact(host.into()),
        };
        Ok(Self { host, path: path.into() })
    }
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
