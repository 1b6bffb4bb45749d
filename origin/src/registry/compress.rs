//! What a route says about compressing answers on the fly: `[route.compress]`.

use serde::{Deserialize, Serialize};

use crate::limits::{COMPRESS_BYTES_MIN_MAX, COMPRESS_TYPE_BYTES_MAX, COMPRESS_TYPES_MAX};

/// A content coding that nodes can make (RFC 9110, section 8.4.1; RFC 7932; RFC 8878).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Coding {
    /// Brotli.
    #[serde(rename = "br")]
    Brotli,
    /// Zstandard, with a window of 8 MiB at most (RFC 9659).
    #[serde(rename = "zstd")]
    Zstd,
    /// Gzip.
    #[serde(rename = "gzip")]
    Gzip,
}

impl Coding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// As `Content-Encoding` and `Accept-Encoding` name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// `[route.compress]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompressSettings {
    /// Compress what comes without a coding for clients that accept one. Default: on.
    pub enabled: bool,
    /// Codings, the most wanted first: of those that a client accepts equally well, the first is used. Default `["br", "zstd", "gzip"]`; 1 to 3.
    pub codings: Vec<Coding>,
    /// Media types: `text/html`, `text/*`, or by suffix `*+json`. Default: text, JSON, JavaScript, XML, WebAssembly, fonts that are not compressed
    /// themselves, SVG. 1 to 64 of 3 to 100 bytes.
    pub types: Vec<String>,
    /// Bodies that are known to be shorter are left as they are, in bytes. Default 512: below, the fields weigh more than what is saved. 0 to 2^30.
    pub min_bytes: u64,
}

impl Default for CompressSettings {
    fn default() -> Self {
        const TYPES: [&str; 13] = [
            "text/*",
            "application/json",
            "application/javascript",
            "application/x-javascript",
            "application/xml",
            "application/wasm",
            "*+json",
            "*+xml",
            "application/x-ndjson",
            "font/ttf",
            "font/otf",
            "application/vnd.ms-fontobject",
            "image/bmp",
        ];
        Self { enabled: true, codings: Coding::ALL.to_vec(), types: TYPES.map(str::to_owned).to_vec(), min_bytes: 512 }
    }
}

impl CompressSettings {
    /// Refuses what is outside the documented extremes: the key, and the rule.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let twice = |(index, coding): (usize, &Coding)| self.codings.get(..index).is_some_and(|before| before.contains(coding));
        if self.codings.is_empty() || self.codings.iter().enumerate().any(twice) {
            return Err(("codings", "names one to three of br, zstd and gzip, each once; enabled = false turns compression off".into()));
        }
        if self.types.is_empty() || self.types.len() > COMPRESS_TYPES_MAX {
            return Err(("types", format!("has {} types, must have 1 to {COMPRESS_TYPES_MAX}", self.types.len())));
        }
        if let Some(bad) = self.types.iter().find(|text| !is_type(text)) {
            let cut: String = bad.chars().take(COMPRESS_TYPE_BYTES_MAX).collect();
            return Err(("types", format!("{cut:?} is not like text/html, text/* or *+json, in lower case")));
        }
        if self.min_bytes > COMPRESS_BYTES_MIN_MAX {
            return Err(("min_bytes", format!("is {}, must be 0 to {COMPRESS_BYTES_MIN_MAX}", self.min_bytes)));
        }
        Ok(())
    }
}

/// `type/subtype`, `type/*` or `*+suffix`, each of the characters of a restricted name (RFC 6838, section 4.2), in lower case.
fn is_type(text: &str) -> bool {
    let name = |part: &str| {
        let restricted = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$&-^_.+".contains(&b);
        !part.is_empty() && part.bytes().all(restricted)
    };
    if text.len() > COMPRESS_TYPE_BYTES_MAX {
        return false;
    }
    match (text.strip_prefix("*+"), text.split_once('/')) {
        (Some(suffix), None) => name(suffix),
        (None, Some((kind, subtype))) => name(kind) && (subtype == "*" || name(subtype)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_what_is_wrong_is_named() {
        let default = CompressSettings::default;
        assert_eq!(default().check(), Ok(()));
        let types = |text: &str| CompressSettings { types: vec![text.into()], ..default() };
        for good in ["text/html", "text/*", "*+json", "application/vnd.api+json"] {
            assert_eq!(types(good).check(), Ok(()), "{good}");
        }
        for bad in ["", "text", "*", "*/*", "text/", "/html", "Text/html", "text/html; charset=utf-8", "*+", &"a/".repeat(80)] {
            assert_eq!(types(bad).check().map_err(|(key, _)| key), Err("types"), "{bad}");
        }
        let key = |settings: CompressSettings| settings.check().map_err(|(key, _)| key);
        assert_eq!(key(CompressSettings { codings: vec![], ..default() }), Err("codings"));
        assert_eq!(key(CompressSettings { codings: vec![Coding::Gzip, Coding::Gzip], ..default() }), Err("codings"));
        assert_eq!(key(CompressSettings { types: vec![], ..default() }), Err("types"));
        assert_eq!(key(CompressSettings { min_bytes: COMPRESS_BYTES_MIN_MAX + 1, ..default() }), Err("min_bytes"));
    }
}
