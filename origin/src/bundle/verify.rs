//! What a node (and the registry at upload) checks before a bundle is used: its record's signature, then every byte by digest.

use bytes::Bytes;

use super::{BlobRef, Manifest, ManifestError, ModuleKind, Unsigned, verify_version};
use crate::keys::PublicKey;
use crate::registry::{Digest, VersionRecord};

/// A bundle all of whose bytes are here and verified.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The bundle's name.
    pub digest: Digest,
    /// The specifier of the entry.
    pub entry: String,
    /// All modules.
    pub modules: Vec<BundleModule>,
}

/// A verified module.
#[derive(Debug, Clone)]
pub struct BundleModule {
    /// Path inside the bundle.
    pub specifier: String,
    /// How it is evaluated.
    pub kind: ModuleKind,
    /// Its bytes (for text kinds: UTF-8).
    pub bytes: Bytes,
    /// Its source map.
    pub source_map: Option<Bytes>,
}

/// Why a bundle is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The record is not signed by the registry.
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
    /// The manifest breaks a rule.
    #[error("bundle {bundle}: {source}")]
    Manifest {
        /// The bundle.
        bundle: Digest,
        /// Why.
        source: ManifestError,
    },
    /// Bytes that are not those that the digest names.
    #[error("{what}: the bytes do not match digest {digest} (tampered or truncated)")]
    Digest {
        /// The manifest or which module.
        what: String,
        /// The digest that was asked for.
        digest: Digest,
    },
    /// As many bytes as the manifest does not say.
    #[error("{what}: {got} bytes where the manifest says {expected} (tampered or truncated)")]
    Size {
        /// Which module.
        what: String,
        /// Bytes there are.
        got: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// A module that is not here.
    #[error("{what}: its bytes are missing ({digest})")]
    Missing {
        /// Which module.
        what: String,
        /// Its digest.
        digest: Digest,
    },
    /// Text that is none.
    #[error("module {specifier:?} is not UTF-8")]
    NotText {
        /// The module.
        specifier: String,
    },
}

/// Checks bytes against the blob they should be; `what` names them in the refusal.
pub fn verify_blob(what: &str, blob: &BlobRef, bytes: &[u8]) -> Result<(), Refused> {
    if bytes.len() as u64 != blob.bytes_len {
        return Err(Refused::Size { what: what.to_owned(), got: bytes.len() as u64, expected: blob.bytes_len });
    }
    if Digest::of(bytes) != blob.digest {
        return Err(Refused::Digest { what: what.to_owned(), digest: blob.digest.clone() });
    }
    Ok(())
}

impl Bundle {
    /// First step: the record's signature, and the manifest's bytes against the digest in the record. Gives the manifest, whose
    /// blobs are to be fetched next.
    pub fn manifest_of(key: &PublicKey, record: &VersionRecord, manifest: &[u8]) -> Result<Manifest, Refused> {
        verify_version(key, record)?;
        Self::manifest_named(&record.bundle, manifest)
    }

    /// The manifest that a digest names.
    pub fn manifest_named(digest: &Digest, manifest: &[u8]) -> Result<Manifest, Refused> {
        if Digest::of(manifest) != *digest {
            return Err(Refused::Digest { what: "manifest".to_owned(), digest: digest.clone() });
        }
        Manifest::parse(manifest).map_err(|source| Refused::Manifest { bundle: digest.clone(), source })
    }

    /// Second step: every module's bytes against the manifest. `find` gives the bytes of a blob.
    pub fn assemble(manifest: &Manifest, mut find: impl FnMut(&Digest) -> Option<Bytes>) -> Result<Self, Refused> {
        let mut take = |what: String, blob: &BlobRef| {
            let bytes = find(&blob.digest).ok_or_else(|| Refused::Missing { what: what.clone(), digest: blob.digest.clone() })?;
            verify_blob(&what, blob, &bytes)?;
            Ok::<Bytes, Refused>(bytes)
        };
        let mut modules = Vec::with_capacity(manifest.modules.len());
        for module in &manifest.modules {
            let bytes = take(format!("module {:?}", module.specifier), &module.blob)?;
            if module.kind.is_text() && std::str::from_utf8(&bytes).is_err() {
                return Err(Refused::NotText { specifier: module.specifier.clone() });
            }
            let source_map = match &module.source_map {
                Some(blob) => Some(take(format!("source map of {:?}", module.specifier), blob)?),
                None => None,
            };
            modules.push(BundleModule { specifier: module.specifier.clone(), kind: module.kind, bytes, source_map });
        }
        Ok(Self { digest: manifest.digest(), entry: manifest.entry.clone(), modules })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{PackModule, Packed, pack, sign_version};
    use crate::keys::SigningKey;

    fn packed() -> Packed {
        let module = |specifier: &str, text: &'static str| PackModule {
            specifier: specifier.into(),
            kind: ModuleKind::EsModule,
            bytes: Bytes::from_static(text.as_bytes()),
            source_map: Some(Bytes::from_static(b"{}")),
        };
        pack("index.js", vec![module("index.js", "export default {}"), module("a.js", "export {}")]).expect("a bundle")
    }

    fn record(key: &SigningKey, worker: &str, packed: &Packed) -> VersionRecord {
        let worker = worker.parse().expect("a name");
        let id = crate::registry::VersionId::generate();
        let signature = sign_version(key, &worker, &id, &packed.digest);
        VersionRecord {
            worker,
            id,
            number: 1,
            bundle: packed.digest.clone(),
            signature,
            cordon: "shared".parse().expect("a name"),
            vars: Default::default(),
            compatibility_date: "2026-01-01".into(),
            compatibility_flags: vec![],
            cpu_ms: None,
            subrequests_max: None,
            created_ms: 0,
            message: None,
        }
    }

    #[test]
    fn a_packed_bundle_is_assembled_again() {
        let (key, packed) = (SigningKey::generate().expect("random bytes"), packed());
        let manifest = Bundle::manifest_of(&key.public(), &record(&key, "shop", &packed), &packed.blobs[&packed.digest]).expect("signed");
        let bundle = Bundle::assemble(&manifest, |digest| packed.blobs.get(digest).cloned()).expect("whole");
        assert_eq!(bundle.digest, packed.digest);
        assert_eq!(bundle.modules.len(), 2);
    }

    #[test]
    fn an_old_bundle_under_another_name_is_refused() {
        let (key, packed) = (SigningKey::generate().expect("random bytes"), packed());
        let mut record = record(&key, "shop", &packed);
        record.worker = "bank".parse().expect("a name");
        let refused = Bundle::manifest_of(&key.public(), &record, &packed.blobs[&packed.digest]).expect_err("another name");
        assert!(matches!(refused, Refused::Unsigned(_)), "{refused}");
        assert!(refused.to_string().contains("bank"));
    }

    #[test]
    fn a_bundle_of_another_registry_is_refused() {
        let (key, packed) = (SigningKey::generate().expect("random bytes"), packed());
        let other = SigningKey::generate().expect("random bytes");
        assert!(Bundle::manifest_of(&other.public(), &record(&key, "shop", &packed), &packed.blobs[&packed.digest]).is_err());
    }

    #[test]
    fn tampered_truncated_and_missing_bytes_are_refused_by_name() {
        let packed = packed();
        let victim = &packed.manifest.modules[1];
        for (bytes, word) in [
            (Some(Bytes::from_static(b"export default {!")), "tampered"),
            (Some(Bytes::from_static(b"export")), "truncated"),
            (None, "missing"),
        ] {
            let find = |digest: &Digest| if *digest == victim.blob.digest { bytes.clone() } else { packed.blobs.get(digest).cloned() };
            let refused = Bundle::assemble(&packed.manifest, find).expect_err("not the bytes").to_string();
            assert!(refused.contains(word) && refused.contains("index.js"), "{refused}");
        }
        let refused = Bundle::manifest_named(&packed.digest, b"{}").expect_err("not the manifest").to_string();
        assert!(refused.contains("manifest"), "{refused}");
    }
}
