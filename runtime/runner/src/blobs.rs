//! Where the bytes of Blobs are: in Rust's memory, outside of V8's heap, so they are counted here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use deno_core::url::Url;
use deno_web::{Blob, BlobPart, BlobStore, BlobStoreTrait};
use uuid::Uuid;

/// The blob store of one isolate, which knows how much it holds.
#[derive(Debug, Default)]
pub(crate) struct CountingBlobs {
    store: BlobStore,
    bytes: AtomicU64,
}

impl CountingBlobs {
    /// Bytes of all parts.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl BlobStoreTrait for CountingBlobs {
    fn insert_part(&self, part: Arc<dyn BlobPart + Send + Sync>) -> Uuid {
        self.bytes.fetch_add(part.size() as u64, Ordering::Relaxed);
        self.store.insert_part(part)
    }

    fn get_part(&self, id: &Uuid) -> Option<Arc<dyn BlobPart + Send + Sync>> {
        self.store.get_part(id)
    }

    fn remove_part(&self, id: &Uuid) -> Option<Arc<dyn BlobPart + Send + Sync>> {
        let part = self.store.remove_part(id);
        if let Some(part) = &part {
            self.bytes.fetch_sub(part.size() as u64, Ordering::Relaxed);
        }
        part
    }

    fn get_object_url(&self, url: Url) -> Option<Arc<Blob>> {
        self.store.get_object_url(url)
    }

    fn insert_object_url(&self, blob: Blob, location: Option<Url>) -> Url {
        self.store.insert_object_url(blob, location)
    }

    fn remove_object_url(&self, url: &Url) {
        self.store.remove_object_url(url);
    }

    fn clear(&self) {
        self.store.clear();
        self.bytes.store(0, Ordering::Relaxed);
    }
}
