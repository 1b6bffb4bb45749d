//! What is uploaded: modules, named by a manifest. Everything is a blob named by its SHA-256; the manifest's own digest names the
//! bundle. There is no archive: content-addressed modules have no paths to escape from.

mod manifest;
mod pack;
mod sign;
mod verify;

pub use manifest::{BlobRef, Manifest, ManifestError, ManifestModule, ModuleKind};
pub use pack::{PackError, PackModule, Packed, pack};
pub use sign::{Unsigned, sign_version, verify_version};
pub use verify::{Bundle, BundleModule, Refused, verify_blob};

/// For fuzzing: parses bytes as a manifest; what parses must survive being written.
pub fn fuzz(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        assert_eq!(manifest.encode(), bytes, "a manifest has one encoding");
        let _ = manifest.blobs().count();
    }
}
