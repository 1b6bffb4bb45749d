//! Modules in memory → blobs and their manifest: what `deploy` uploads.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{BlobRef, Manifest, ManifestError, ManifestModule, ModuleKind};
use crate::registry::Digest;

/// A module as a bundler gives it.
#[derive(Debug, Clone)]
pub struct PackModule {
    /// Path inside the bundle.
    pub specifier: String,
    /// How it is evaluated.
    pub kind: ModuleKind,
    /// Its bytes.
    pub bytes: Bytes,
    /// Its source map (version 3, JSON).
    pub source_map: Option<Bytes>,
}

/// A bundle ready for upload.
#[derive(Debug, Clone)]
pub struct Packed {
    /// What it consists of.
    pub manifest: Manifest,
    /// The manifest's digest: the bundle's name.
    pub digest: Digest,
    /// All blobs, the manifest among them.
    pub blobs: BTreeMap<Digest, Bytes>,
}

/// Why modules make no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// The manifest would break a rule.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Text that is none.
    #[error("module {specifier:?} is not UTF-8")]
    NotText {
        /// The module.
        specifier: String,
    },
}

/// Packs modules; `entry` is the specifier of one of them. Equal modules in any order give the same bundle.
pub fn pack(entry: &str, modules: Vec<PackModule>) -> Result<Packed, PackError> {
    let mut blobs = BTreeMap::new();
    let mut listed = Vec::with_capacity(modules.len());
    for module in modules {
        if module.kind.is_text() && std::str::from_utf8(&module.bytes).is_err() {
            return Err(PackError::NotText { specifier: module.specifier });
        }
        let mut take = |bytes: Bytes| {
            let blob = BlobRef::of(&bytes);
            blobs.insert(blob.digest.clone(), bytes);
            blob
        };
        let blob = take(module.bytes);
        let source_map = module.source_map.map(take);
        listed.push(ManifestModule { specifier: module.specifier, kind: module.kind, blob, source_map });
    }
    listed.sort_by(|a, b| a.specifier.cmp(&b.specifier));
    let manifest = Manifest { entry: entry.to_owned(), modules: listed };
    manifest.check()?;
    let bytes = Bytes::from(manifest.encode());
    let digest = Digest::of(&bytes);
    blobs.insert(digest.clone(), bytes);
    Ok(Packed { manifest, digest, blobs })
}
