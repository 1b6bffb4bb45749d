//! The feed's lines as they arrive, bounded in length and in silence.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::ClientError;
use crate::limits::{FEED_LINE_BYTES_MAX, FEED_SILENCE_MAX};

/// Lines of the feed.
pub struct FeedLines {
    url: String,
    body: Incoming,
    buffer: BytesMut,
    /// Bytes of `buffer` in which no line feed was found yet.
    searched: usize,
}

impl FeedLines {
    pub(super) fn new(url: &str, answer: http::Response<Incoming>) -> Self {
        Self { url: url.to_owned(), body: answer.into_body(), buffer: BytesMut::new(), searched: 0 }
    }

    /// The next line without its line feed; `None`: the registry has ended the feed (it stops). Fails after 15 s without a byte: the
    /// registry sends a heartbeat every 5 s. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(at) = self.buffer.iter().skip(self.searched).position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(self.searched + at + 1);
                line.truncate(line.len().saturating_sub(1));
                self.searched = 0;
                return Ok(Some(line.freeze()));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > FEED_LINE_BYTES_MAX {
                return Err(ClientError::protocol(&self.url, format!("a feed line of more than {FEED_LINE_BYTES_MAX} bytes")));
            }
            let frame = tokio::time::timeout(FEED_SILENCE_MAX, self.body.frame()).await;
            match frame.map_err(|_| ClientError::timeout(&self.url, FEED_SILENCE_MAX))? {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(ClientError::broken(&self.url, "the feed ended within a line")),
                Some(frame) => {
                    if let Ok(data) = frame.map_err(|error| ClientError::broken(&self.url, error))?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}
