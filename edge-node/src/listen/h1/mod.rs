//! HTTP/1.1 and HTTP/1.0 on one connection (RFC 9112): one request after the other, answered in order.
//!
//! [`head`] and [`framing`] read what comes in, strictly; [`intake`] hands a request's body to whoever answers; [`encode`] and [`output`] make and gather
//! what goes out; [`wire`] moves the bytes. This file is the loop. A request whose answer is there at once costs one read and one write; requests that came
//! together, and whose answers are there at once, share these. No task is spawned and no timer armed for a request.

mod encode;
mod framing;
mod fuzz;
mod head;
mod intake;
mod output;
mod receive;
mod send;
mod wire;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::{Method, Response, Version};
use selvedge_runtime::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::exchange::{Answered, Exchange};
use super::interim::Interims;
use super::{Answer, Protocol, Refusal, Reply, Shared};
use crate::limits::H1_READ_BYTES;

pub(super) use fuzz::fuzz;
use head::{Head, Scan};
use receive::Receiving;
pub(super) use wire::Abort;
use wire::{Ended, Wire};

/// A connection between two polls.
struct Talk<S> {
    wire: Wire<S>,
    /// The request's body, while it is not all here.
    receiving: Option<Receiving>,
    interims: Interims,
    head_timeout: Duration,
    idle_timeout: Duration,
}

/// What the answer to a request depends on.
#[derive(Debug, Clone)]
struct Facts {
    method: Method,
    version: Version,
    /// The connection may be used again.
    persistent: bool,
}

/// Serves a connection to its end.
pub(super) async fn serve<A: Answer, S>(stream: S, exchange: Exchange<A>, shared: &Shared<A>)
where
    S: AsyncRead + AsyncWrite + Abort + Unpin + Send,
{
    let _open = shared.metrics.connected(Protocol::Http1);
    let wire = Wire::new(stream, &shared.tasks);
    let (head_timeout, idle_timeout) = (shared.limits.head_timeout(), shared.limits.idle_timeout());
    let mut talk = Talk { wire, receiving: None, interims: Interims::default(), head_timeout, idle_timeout };
    let ended = talk.run(&exchange).await;
    tracing::debug!(client.address = %exchange.connection.peer, "connection ended: {ended}");
    match ended {
        Ended::Announced | Ended::Cut | Ended::Drained | Ended::Idle | Ended::SlowHead | Ended::UnreadBody => talk.wire.close().await,
        Ended::CutWithoutEnd => talk.wire.abort(),
        Ended::ByClient | Ended::Stalled | Ended::Io(_) => {}
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Talk<S> {
    async fn run<A: Answer>(&mut self, exchange: &Exchange<A>) -> Ended {
        let mut scan = Scan::default();
        loop {
            let served = match self.next_head(&mut scan).await {
                Ok(Ok(head)) => self.serve(head, exchange).await,
                Ok(Err(refusal)) => self.refuse(refusal, exchange).await,
                Err(ended) => Err(ended),
            };
            if let Err(ended) = served {
                return ended;
            }
        }
    }

    /// The next request. What is ready to be sent is sent before anything is waited for.
    async fn next_head(&mut self, scan: &mut Scan) -> Result<Result<Head, Refusal>, Ended> {
        let mut since = None;
        loop {
            match head::parse(&mut self.wire.input, scan) {
                Ok(Some(head)) => return Ok(Ok(head)),
                Ok(None) => {}
                Err(refusal) => return Ok(Err(refusal)),
            }
            self.wire.flush().await?;
            let begun = !scan.is_untouched(&self.wire.input);
            // The time of a head begins with its first byte.
            let since = match since {
                Some((since, as_begun)) if as_begun == begun => since,
                _ => since.insert((Instant::now(), begun)).0,
            };
            match self.more_of_a_head(since, begun).await {
                Ok(()) => {}
                Err(Ended::SlowHead) => return Ok(Err(Refusal::SlowHead)),
                Err(ended) => return Err(ended),
            }
        }
    }

    async fn more_of_a_head(&mut self, since: Instant, begun: bool) -> Result<(), Ended> {
        if !begun {
            self.wire.shrink();
        }
        let (bound, late) = if begun { (self.head_timeout, Ended::SlowHead) } else { (self.idle_timeout, Ended::Idle) };
        let mut late = Some(late);
        poll_fn(|cx| {
            if let Poll::Ready(read) = self.wire.poll_read(cx, H1_READ_BYTES) {
                return Poll::Ready(read);
            }
            if self.wire.poll_drained(cx).is_ready() && !begun {
                return Poll::Ready(Err(Ended::Drained));
            }
            self.wire.poll_late(cx, since, bound).map(|()| Err(late.take().unwrap_or(Ended::Idle)))
        })
        .await
    }

    /// Answers one request, and leaves the connection ready for the next one.
    async fn serve<A: Answer>(&mut self, head: Head, exchange: &Exchange<A>) -> Result<(), Ended> {
        let mut facts = Facts { method: head.request.method().clone(), version: head.request.version(), persistent: head.persistent };
        let (body, receiving) = receive::open(&mut self.wire.input, head.coding, head.expects_continue, &exchange.metrics);
        self.receiving = receiving;
        let answered = self.answer(head.request.map(|()| body), facts.version, exchange).await?;
        // Whoever sends what cannot be understood may have sent more of it.
        facts.persistent &= !answered.refused;
        match answered.reply {
            Reply::Ready(ready) => self.send_ready(&ready, &facts, exchange.alt_svc.as_ref()).await?,
            Reply::Made(response) => self.send(response, &facts, exchange.alt_svc.as_ref()).await?,
        }
        self.settle().await
    }

    /// The answer; what comes before it is sent while it is made.
    async fn answer<A: Answer>(
        &mut self,
        request: http::Request<Body>,
        version: Version,
        exchange: &Exchange<A>,
    ) -> Result<Answered, Ended> {
        // RFC 9110, section 15.2: HTTP/1.0 knows no interim responses.
        let interim = if version == Version::HTTP_11 { self.interims.open() } else { super::Interim::none() };
        let mut answering = pin!(exchange.answer(request, interim));
        if let Poll::Ready(answered) = poll_fn(|cx| Poll::Ready(answering.as_mut().poll(cx))).await {
            self.say_interims();
            return Ok(answered);
        }
        self.wire.flush().await?;
        let answered = poll_fn(|cx| {
            loop {
                if let Poll::Ready(answered) = answering.as_mut().poll(cx) {
                    return Poll::Ready(Ok::<_, Ended>(answered));
                }
                while let Poll::Ready(head) = self.interims.poll_next(cx) {
                    encode::interim(self.wire.output.buffer(), &head);
                }
                // Something came for the body: whoever answers may go on.
                if self.poll_meanwhile(cx)?.is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await?;
        self.say_interims();
        Ok(answered)
    }

    fn say_interims(&mut self) {
        for head in self.interims.close() {
            encode::interim(self.wire.output.buffer(), &head);
        }
    }

    /// Answers what is no request, and ends.
    async fn refuse<A: Answer>(&mut self, refusal: Refusal, exchange: &Exchange<A>) -> Result<(), Ended> {
        let response: Response<Body> = exchange.refuse(refusal);
        let facts = Facts { method: Method::GET, version: Version::HTTP_11, persistent: false };
        self.send(response, &facts, exchange.alt_svc.as_ref()).await
    }
}
