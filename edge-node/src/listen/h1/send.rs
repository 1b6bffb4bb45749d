//! A response on its way out: its head, then its body as it comes, framed so that a client sees where it ends, or that it was cut.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use http::{HeaderValue, Response, Version};
use http_body::{Body as HttpBody, Frame};
use selvedge_runtime::{Body, BodyError};
use tokio::io::{AsyncRead, AsyncWrite};

use super::encode::{self, Framing, LAST_CHUNK, Persistence};
use super::wire::Ended;
use super::{Facts, Talk};
use crate::cache::ready::Ready;
use crate::listen::Protocol;
use crate::listen::exchange::shape;

/// The next thing of a body.
type Next = Option<Result<Frame<Bytes>, BodyError>>;

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    /// Sends a response. What is small waits in the output for whatever comes next. An error where the connection ends with it.
    pub(super) async fn send(&mut self, mut response: Response<Body>, facts: &Facts, alt_svc: Option<&HeaderValue>) -> Result<(), Ended> {
        shape(&mut response, &facts.method, Protocol::Http1);
        let (head, mut body) = response.into_parts();
        if head.status.is_informational() {
            // An answer that is none: a client would wait for another one for ever.
            tracing::warn!(status = head.status.as_u16(), "a final response has an interim status");
            return Err(Ended::Cut);
        }
        let framing = encode::framing(&facts.method, facts.version, &head, body.size_hint().exact());
        let persistence = self.persistence(facts, framing);
        if self.wire.output.is_full() {
            self.wire.flush().await?;
        }
        encode::head(self.wire.output.buffer(), &head, framing, alt_svc, persistence);
        self.miss_invitation();
        if framing != Framing::None {
            self.send_body(&mut body, framing).await?;
        }
        // The body is dropped only now: whoever counts what runs counts it until it has been sent.
        if persistence == Persistence::Closed || self.wire.output.is_full() {
            self.wire.flush().await?;
        }
        drop(body);
        if persistence == Persistence::Closed { Err(Ended::Announced) } else { Ok(()) }
    }

    /// Sends a stored response: its head has been written before.
    pub(super) async fn send_ready(&mut self, ready: &Ready, facts: &Facts, alt_svc: Option<&HeaderValue>) -> Result<(), Ended> {
        let persistence = self.persistence(facts, Framing::Length(0));
        if self.wire.output.is_full() {
            self.wire.flush().await?;
        }
        encode::ready(self.wire.output.buffer(), ready, alt_svc, persistence);
        self.miss_invitation();
        self.wire.output.add(ready.body().clone(), b"");
        if persistence == Persistence::Closed {
            self.wire.flush().await?;
            return Err(Ended::Announced);
        }
        if self.wire.output.is_full() { self.wire.flush().await } else { Ok(()) }
    }

    fn persistence(&self, facts: &Facts, framing: Framing) -> Persistence {
        let hopeless = self.receiving.as_ref().is_some_and(super::Receiving::is_hopeless);
        if !facts.persistent || framing == Framing::Close || hopeless || self.wire.is_draining() {
            Persistence::Closed
        } else if facts.version == Version::HTTP_11 {
            Persistence::Kept
        } else {
            Persistence::KeptAndSaid
        }
    }

    async fn send_body(&mut self, body: &mut Body, framing: Framing) -> Result<(), Ended> {
        let mut left = match framing {
            Framing::Length(length) => length,
            _ => u64::MAX,
        };
        while left > 0 && !body.is_end_stream() {
            let mut data = match self.next_frame(body).await? {
                None => break,
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    tracing::debug!(%error, "response cut short");
                    return self.cut(framing).await;
                }
            };
            if data.is_empty() {
                continue;
            }
            if let Framing::Length(_) = framing {
                // Longer than it said: what is beyond would be taken for the next response.
                let excess = (data.len() as u64).saturating_sub(left);
                data.truncate(data.len() - excess as usize);
                left -= data.len() as u64;
                if excess > 0 {
                    self.put(data, framing).await?;
                    return self.cut(framing).await;
                }
            }
            self.put(data, framing).await?;
        }
        match framing {
            Framing::Length(_) if left > 0 => return self.cut(framing).await,
            Framing::Length(_) if !ends_here(body).await => return self.cut(framing).await,
            Framing::Chunked => self.wire.output.buffer().extend_from_slice(LAST_CHUNK),
            _ => {}
        }
        Ok(())
    }

    /// The next frame. What was made before it is sent before it is waited for.
    async fn next_frame(&mut self, body: &mut Body) -> Result<Next, Ended> {
        if let Poll::Ready(next) = poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await {
            return Ok(next);
        }
        self.wire.flush().await?;
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(next) = Pin::new(&mut *body).poll_frame(cx) {
                    return Poll::Ready(Ok(next));
                }
                if self.poll_meanwhile(cx)?.is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    async fn put(&mut self, data: Bytes, framing: Framing) -> Result<(), Ended> {
        if self.wire.output.is_full() {
            self.wire.flush().await?;
        }
        if framing == Framing::Chunked {
            encode::chunk_line(self.wire.output.buffer(), data.len());
            self.wire.output.add(data, b"\r\n");
        } else {
            self.wire.output.add(data, b"");
        }
        if self.wire.output.is_full() {
            self.wire.flush().await?;
        }
        Ok(())
    }

    /// The client gets what was made, and no end.
    async fn cut(&mut self, framing: Framing) -> Result<(), Ended> {
        self.wire.flush().await?;
        Err(if framing == Framing::Close { Ended::CutWithoutEnd } else { Ended::Cut })
    }
}

/// Whether a body that has given as many bytes as it said has no more.
async fn ends_here(body: &mut Body) -> bool {
    if body.is_end_stream() {
        return true;
    }
    // What is not here yet is not waited for: the client has its response.
    let next = poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await;
    match next {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().map_or(true, |data| data.is_empty()),
        Poll::Ready(Some(Err(_))) => false,
        Poll::Ready(None) | Poll::Pending => true,
    }
}
