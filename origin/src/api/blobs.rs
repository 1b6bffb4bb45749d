//! Blobs: which are missing, put one, get one.

use http::{Response, StatusCode};

use super::reply::{self, Answer, ApiError, Body};
use super::wire::BlobDigests;
use super::{Api, Asked};
use crate::limits::MODULES_MAX;
use crate::registry::Digest;

impl Api {
    pub(super) async fn missing_blobs(&self, asked: &Asked) -> Answer {
        let asked: BlobDigests = asked.json()?;
        // A bundle has a blob and a source map for each module, and a manifest.
        let max = MODULES_MAX * 2 + 1;
        if asked.digests.len() > max {
            return Err(ApiError::Malformed(format!("more than {max} digests")));
        }
        let mut digests = Vec::new();
        for digest in asked.digests {
            if self.ledger.blobs().touch(&digest).await?.is_none() {
                digests.push(digest);
            }
        }
        reply::ok(&BlobDigests { digests })
    }

    pub(super) async fn put_blob(&self, digest: &Digest, asked: Asked) -> Answer {
        self.ledger.blobs().put(digest, asked.body).await?;
        reply::ok(&())
    }

    pub(super) async fn get_blob(&self, digest: &Digest) -> Result<Response<Body>, ApiError> {
        let bytes = self.ledger.blobs().get(digest).await?.ok_or_else(|| ApiError::NoBlob(digest.clone()))?;
        Ok(reply::whole(StatusCode::OK, "application/octet-stream", bytes))
    }
}
