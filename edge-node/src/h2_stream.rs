//! A body on one stream of HTTP/2 (RFC 9113), in either direction: the same for clients' requests and for upstreams' answers.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::timeout;

use crate::cache::policy::stated_length;

/// A body on its way in: gives the peer room again for what was taken.
pub(crate) struct Received {
    stream: RecvStream,
    /// Bytes that are still to come, where that was said; h2 sees to it that it is true.
    left: Option<u64>,
    data_ended: bool,
}

/// Why data was not sent.
pub(crate) enum Unsent {
    /// The peer took nothing of it for as long as it may.
    Stalled,
    /// The stream is gone; with the error, where h2 gives one.
    Gone(Option<h2::Error>),
}

impl From<h2::Error> for Unsent {
    fn from(error: h2::Error) -> Self {
        Self::Gone(Some(error))
    }
}

impl Received {
    /// The body of the message with these fields.
    pub(crate) fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        Self { stream, left: stated_length(headers), data_ended: false }
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = &mut *self;
        if !this.data_ended {
            if let Some(data) = ready!(this.stream.poll_data(cx)).transpose()? {
                // Fails only where the stream is gone, and then nobody waits for room.
                let _ = this.stream.flow_control().release_capacity(data.len());
                this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            this.data_ended = true;
        }
        let trailers = ready!(this.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Sends data as the windows of the stream and the connection allow, at most `room_max` bytes at a time; with `ends`, as the body's last. A peer may take nothing
/// of it for `stall`. Cancelling it leaves part of the data sent.
pub(crate) async fn send_data(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    ends: bool,
    room_max: usize,
    stall: Duration,
) -> Result<(), Unsent> {
    if data.is_empty() && ends {
        return Ok(stream.send_data(data, true)?);
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len().min(room_max));
        if stream.capacity() == 0 {
            let room = timeout(stall, poll_fn(|cx| stream.poll_capacity(cx))).await;
            room.map_err(|_| Unsent::Stalled)?.ok_or(Unsent::Gone(None))??;
        }
        let piece = data.split_to(data.len().min(stream.capacity()));
        if !piece.is_empty() {
            stream.send_data(piece, ends && data.is_empty())?;
        }
    }
    Ok(())
}
