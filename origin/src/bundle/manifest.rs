//! The manifest: which modules a bundle has, by digest. It has one encoding, and its digest is the bundle's.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::limits::{BUNDLE_BYTES_MAX, MANIFEST_BYTES_MAX, MODULES_MAX, SPECIFIER_BYTES_MAX};
use crate::registry::Digest;

/// What an import of a module gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModuleKind {
    /// An ES module.
    EsModule,
    /// Its default export is the text.
    Text,
    /// Its default export is the parsed value.
    Json,
    /// Its default export is an `ArrayBuffer`.
    Data,
    /// Its default export is a `WebAssembly.Module`.
    Wasm,
}

impl ModuleKind {
    /// Whether the bytes must be UTF-8.
    pub const fn is_text(self) -> bool {
        matches!(self, Self::EsModule | Self::Text | Self::Json)
    }
}

/// A blob, by digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobRef {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// How many they are.
    pub bytes_len: u64,
}

impl BlobRef {
    /// Names the bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { digest: Digest::of(bytes), bytes_len: bytes.len() as u64 }
    }
}

/// One module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestModule {
    /// Path inside the bundle, such as `index.js` or `lib/a.js`.
    pub specifier: String,
    /// How it is evaluated.
    pub kind: ModuleKind,
    /// Its bytes.
    pub blob: BlobRef,
    /// Its source map (version 3, JSON).
    pub source_map: Option<BlobRef>,
}

/// The modules of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The specifier of the entry: an ES module among `modules`.
    pub entry: String,
    /// All modules, ordered by specifier.
    pub modules: Vec<ManifestModule>,
}

/// Why bytes are no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Too many bytes.
    #[error("the manifest has {bytes_len} bytes; {MANIFEST_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its size.
        bytes_len: usize,
    },
    /// Not the JSON of a manifest.
    #[error("not a manifest: {0}")]
    Json(String),
    /// The JSON says the same as a manifest but is written otherwise: a bundle has one digest.
    #[error("the manifest is not in its canonical form")]
    NotCanonical,
    /// No module, or too many.
    #[error("the bundle has {count} modules; 1 to {MODULES_MAX} are allowed")]
    ModuleCount {
        /// How many.
        count: usize,
    },
    /// A specifier that could name something else than a module of this bundle.
    #[error("module {specifier:?}: {rule}")]
    Specifier {
        /// The specifier, cut to 80 characters.
        specifier: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// Modules out of order, or one twice.
    #[error("module {specifier:?} is given twice or out of order")]
    Order {
        /// The specifier.
        specifier: String,
    },
    /// No such module.
    #[error("the entry {entry:?} is no ES module of the bundle")]
    Entry {
        /// The entry, cut to 80 characters.
        entry: String,
    },
    /// All modules and source maps together.
    #[error("the bundle has {bytes_len} bytes; {BUNDLE_BYTES_MAX} are allowed")]
    BundleTooLarge {
        /// Their size.
        bytes_len: u64,
    },
    /// One digest with two sizes.
    #[error("blob {digest} is given with two sizes")]
    TwoSizes {
        /// The digest.
        digest: Digest,
    },
}

impl Manifest {
    /// Parses and checks a manifest from anywhere.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge { bytes_len: bytes.len() });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| ManifestError::Json(error.to_string()))?;
        manifest.check()?;
        if manifest.encode() != bytes {
            return Err(ManifestError::NotCanonical);
        }
        Ok(manifest)
    }

    /// The one encoding.
    pub fn encode(&self) -> Vec<u8> {
        // Strings, numbers and closed enums: serde_json fails on none of them.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The digest of the encoding: the bundle's name.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }

    /// Every blob that the bundle needs, source maps included; one may come twice.
    pub fn blobs(&self) -> impl Iterator<Item = &BlobRef> {
        self.modules.iter().flat_map(|module| std::iter::once(&module.blob).chain(&module.source_map))
    }

    /// The rules that a manifest keeps.
    pub(super) fn check(&self) -> Result<(), ManifestError> {
        if !(1..=MODULES_MAX).contains(&self.modules.len()) {
            return Err(ManifestError::ModuleCount { count: self.modules.len() });
        }
        let mut previous: Option<&str> = None;
        for module in &self.modules {
            check_specifier(&module.specifier)?;
            if previous.is_some_and(|previous| previous >= module.specifier.as_str()) {
                return Err(ManifestError::Order { specifier: module.specifier.clone() });
            }
            previous = Some(&module.specifier);
        }
        let bytes_len = self.blobs().fold(0u64, |sum, blob| sum.saturating_add(blob.bytes_len));
        if bytes_len > BUNDLE_BYTES_MAX {
            return Err(ManifestError::BundleTooLarge { bytes_len });
        }
        let blobs: BTreeSet<_> = self.blobs().map(|blob| (&blob.digest, blob.bytes_len)).collect();
        let mut digests = BTreeSet::new();
        if let Some((digest, _)) = blobs.iter().find(|(digest, _)| !digests.insert(*digest)) {
            return Err(ManifestError::TwoSizes { digest: (*digest).clone() });
        }
        let is_entry = |module: &&ManifestModule| module.specifier == self.entry && module.kind == ModuleKind::EsModule;
        if self.modules.iter().find(is_entry).is_none() {
            return Err(ManifestError::Entry { entry: cut(&self.entry) });
        }
        Ok(())
    }
}

/// A relative path of plain segments: nothing that could be read as another place, by a URL parser or a file system.
fn check_specifier(specifier: &str) -> Result<(), ManifestError> {
    let rule = if specifier.is_empty() || specifier.len() > SPECIFIER_BYTES_MAX {
        "a specifier has 1 to 512 bytes"
    } else if specifier.contains(['\\', '?', '#', ':', '%']) {
        "a specifier has no backslash, '?', '#', ':' or '%'"
    } else if specifier.chars().any(char::is_control) {
        "a specifier has no control characters"
    } else if specifier.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        "a specifier is a relative path without empty segments, '.' and '..'"
    } else if specifier.trim() != specifier {
        "a specifier has no space at its ends"
    } else {
        return Ok(());
    };
    Err(ManifestError::Specifier { specifier: cut(specifier), rule })
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(specifier: &str) -> ManifestModule {
        ManifestModule {
            specifier: specifier.into(),
            kind: ModuleKind::EsModule,
            blob: BlobRef::of(specifier.as_bytes()),
            source_map: None,
        }
    }

    fn manifest(specifiers: &[&str]) -> Manifest {
        Manifest { entry: "index.js".into(), modules: specifiers.iter().map(|specifier| module(specifier)).collect() }
    }

    #[test]
    fn a_manifest_survives_its_encoding() {
        let manifest = manifest(&["index.js", "lib/a.js", "lib/ü.js"]);
        assert_eq!(Manifest::parse(&manifest.encode()).expect("its own encoding"), manifest);
    }

    #[test]
    fn another_writing_of_the_same_manifest_is_refused() {
        let text = String::from_utf8(manifest(&["index.js"]).encode()).expect("JSON");
        for other in [text.replace(":{", ": {"), format!("{text}\n"), text.replace("index.js", "index\\u002ejs")] {
            assert_eq!(Manifest::parse(other.as_bytes()), Err(ManifestError::NotCanonical), "{other}");
        }
    }

    #[test]
    fn specifiers_that_could_leave_the_bundle_are_refused() {
        for specifier in [
            "../a.js",
            "/a.js",
            "a/../b.js",
            "a//b.js",
            "./a.js",
            "a\\b.js",
            "file:a.js",
            "a%2e.js",
            "a?b",
            "a#b",
            "",
            "a\0b",
            " a.js",
            "a/",
        ] {
            let manifest = Manifest { entry: specifier.into(), modules: vec![module(specifier)] };
            assert!(matches!(Manifest::parse(&manifest.encode()), Err(ManifestError::Specifier { .. })), "{specifier:?}");
        }
        let long = "a".repeat(SPECIFIER_BYTES_MAX + 1);
        assert!(matches!(Manifest { entry: long.clone(), modules: vec![module(&long)] }.check(), Err(ManifestError::Specifier { .. })));
    }

    #[test]
    fn counts_order_sizes_and_entry_are_checked() {
        assert!(matches!(manifest(&[]).check(), Err(ManifestError::ModuleCount { count: 0 })));
        assert!(matches!(manifest(&["index.js", "a.js"]).check(), Err(ManifestError::Order { .. })));
        assert!(matches!(manifest(&["index.js", "index.js"]).check(), Err(ManifestError::Order { .. })));
        assert!(matches!(manifest(&["a.js"]).check(), Err(ManifestError::Entry { .. })));
        let mut text_entry = manifest(&["index.js"]);
        text_entry.modules[0].kind = ModuleKind::Text;
        assert!(matches!(text_entry.check(), Err(ManifestError::Entry { .. })));
        let mut large = manifest(&["a.js", "index.js"]);
        large.modules[0].blob.bytes_len = u64::MAX;
        assert!(matches!(large.check(), Err(ManifestError::BundleTooLarge { .. })));
        let mut two_sizes = manifest(&["a.js", "index.js"]);
        two_sizes.modules[0].blob = BlobRef { bytes_len: 9, ..two_sizes.modules[1].blob.clone() };
        two_sizes.modules[1].blob.bytes_len = 8;
        assert!(matches!(two_sizes.check(), Err(ManifestError::TwoSizes { .. })));
        let many: Vec<_> = (0..=MODULES_MAX).map(|n| format!("m{n:05}.js")).collect();
        let many = manifest(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(matches!(many.check(), Err(ManifestError::ModuleCount { .. })));
    }

    #[test]
    fn unknown_fields_and_other_json_are_refused() {
        let text = String::from_utf8(manifest(&["index.js"]).encode()).expect("JSON");
        for other in ["", "null", "[]", "{}", &text.replacen('{', "{\"extra\":1,", 1), &text.replace("es_module", "native")] {
            assert!(matches!(Manifest::parse(other.as_bytes()), Err(ManifestError::Json(_))), "{other}");
        }
    }
}
