//! Blobs: which are missing, put one, get one.

use futures::{StreamExt as _, TryStreamExt as _};
use http::Response;
use hyper::body::Frame;

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
        let blob = self.ledger.blobs().read(digest).await?.ok_or_else(|| ApiError::NoBlob(digest.clone()))?;
        let digest = digest.clone();
        // A body that ends before its length is broken, and every reader verifies the digest.
        let pieces = blob.pieces.inspect_err(move |error| tracing::error!(blob = %digest, error = %error, "a blob cannot be read"));
        let pieces = pieces.scan((), |(), piece| std::future::ready(piece.ok().map(|piece| Ok(Frame::data(piece)))));
        Ok(reply::streamed("application/octet-stream", Some(blob.bytes), pieces))
    }
}
