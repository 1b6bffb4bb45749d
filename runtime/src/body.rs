//! The one body type of every HTTP message in the product: empty, whole, or a stream with back-pressure.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

/// The body of a request or a response. A stream is pulled: nothing is read before the consumer asks (back-pressure).
#[derive(Default)]
pub struct Body(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    Stream(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>),
}

/// Why a body ended before its end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BodyError {
    /// The other side went away: a client reset its stream, an upstream its connection.
    #[error("body aborted: {0}")]
    Aborted(String),
    /// More bytes than the bound allows.
    #[error("body is larger than {bytes_max} bytes")]
    TooLarge {
        /// The bound, in bytes.
        bytes_max: u64,
    },
    /// No byte moved for the given time.
    #[error("body made no progress for {ms} ms")]
    Stalled {
        /// The bound, in milliseconds.
        ms: u64,
    },
    /// The worker that makes the body failed.
    #[error("worker ended its response early: {0}")]
    Worker(crate::Outcome),
}

impl Body {
    /// A body of no bytes.
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// A body whose bytes are all here.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Self::empty() } else { Self(Kind::Full(bytes)) }
    }

    /// A streamed body.
    pub fn stream(body: impl HttpBody<Data = Bytes, Error = BodyError> + Send + 'static) -> Self {
        if body.is_end_stream() { Self::empty() } else { Self(Kind::Stream(Box::pin(body))) }
    }

    /// A streamed body from chunks.
    pub fn chunks(chunks: impl futures::Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Self {
        use futures::StreamExt;
        Self(Kind::Stream(Box::pin(http_body_util::StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))))))
    }

    /// The bytes, where all of them are here already (an empty body has none).
    pub fn as_whole(&self) -> Option<Bytes> {
        match &self.0 {
            Kind::Empty => Some(Bytes::new()),
            Kind::Full(bytes) => Some(bytes.clone()),
            Kind::Stream(_) => None,
        }
    }

    /// Reads the whole body, refusing more than `bytes_max`. Dropping the future loses what was read.
    pub async fn collect(mut self, bytes_max: u64) -> Result<Bytes, BodyError> {
        if let Some(whole) = self.as_whole() {
            return if whole.len() as u64 > bytes_max { Err(BodyError::TooLarge { bytes_max }) } else { Ok(whole) };
        }
        let mut all = bytes::BytesMut::new();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            if let Ok(data) = frame?.into_data() {
                if (all.len() + data.len()) as u64 > bytes_max {
                    return Err(BodyError::TooLarge { bytes_max });
                }
                all.extend_from_slice(&data);
            }
        }
        Ok(all.freeze())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(stream) => stream.size_hint(),
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Kind::Empty => f.write_str("Body::empty"),
            Kind::Full(bytes) => write!(f, "Body::full({} bytes)", bytes.len()),
            Kind::Stream(_) => f.write_str("Body::stream"),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}
