//! One request over HTTP/3: head and body in, head and body out, and an end when the client gives up.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h3::error::{Code, StreamError};
use h3::server::{RequestResolver, RequestStream};
use http::header::{self, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use selvedge_runtime::{Body, BodyError};

use super::transport::{Accepted, Intake, Receiving, Sending, Transport};
use crate::cache::policy::stated_length;
use crate::limits;
use crate::listen::activity::Running;
use crate::listen::exchange::{Exchange, SentBody};
use crate::listen::interim::Interims;
use crate::listen::resets::Resets;
use crate::listen::{Answer, date};
use crate::metrics::Metrics;

/// Takes one request and answers it. Ends with its connection.
pub(super) async fn serve<A: Answer>(
    resolver: RequestResolver<Transport, Bytes>,
    mut accepted: Accepted,
    running: Running,
    exchange: Arc<Exchange<A>>,
    resets: Arc<Resets>,
    head_timeout: Duration,
) {
    let (request, stream) = match tokio::time::timeout(head_timeout, resolver.resolve_request()).await {
        Ok(Ok(resolved)) => resolved,
        failed => {
            // h3 has answered or closed what was malformed; a head that takes too long ends with its stream.
            if let Ok(Err(StreamError::RemoteTerminate { .. })) = &failed {
                resets.given_up(None);
            }
            return tracing::debug!(error = ?failed.map(|failed| failed.err()), "no request on an h3 stream");
        }
    };
    accepted.intake.delivered();
    let (sending, receiving) = stream.split();
    let mut sending = Unfinished { stream: sending, finished: false };
    let (head, ()) = request.into_parts();
    let body = ReceivedBody::open(receiving, accepted.intake, &head, &exchange.metrics).await;
    let mut interims = Interims::default();
    let answering = async {
        let request = http::Request::from_parts(head, body);
        let response = answer(request, running, &exchange, &mut sending.stream, &mut interims).await?;
        send(response, &mut sending).await
    };
    let sent = tokio::select! {
        biased;
        sent = answering => sent,
        () = &mut accepted.stopped => Err(Cut::ByClient),
    };
    match sent {
        // The request counts as running until the client has all of it, so that a drain does not cut it off.
        Ok(body) => {
            accepted.stopped.await;
            drop(body);
        }
        Err(Cut::ByClient) => {
            resets.given_up(Some(&interims));
        }
        Err(Cut::ByUs) => {}
    }
}

/// A response that is not sent whole. RFC 9114, section 4.1: what is cut short must not look whole, and quinn ends a stream that is dropped as if it were,
/// also where its request's task panics or is dropped itself.
struct Unfinished {
    stream: RequestStream<Sending, Bytes>,
    finished: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            self.stream.stop_stream(Code::H3_INTERNAL_ERROR);
        }
    }
}

/// Who ended a response before its end.
enum Cut {
    /// The client reset its stream, or does not read it.
    ByClient,
    /// The body failed, or is not as long as it says.
    ByUs,
}

/// Gives the response; what comes before it is sent while it is made.
async fn answer<A: Answer>(
    request: http::Request<Body>,
    running: Running,
    exchange: &Exchange<A>,
    stream: &mut RequestStream<Sending, Bytes>,
    interims: &mut Interims,
) -> Result<http::Response<SentBody>, Cut> {
    let answering = exchange.run(request, running, interims.open());
    tokio::pin!(answering);
    let response = loop {
        tokio::select! {
            biased;
            response = &mut answering => break response,
            head = interims.next() => in_time(stream.send_response(head)).await?,
        }
    };
    for head in interims.close() {
        in_time(stream.send_response(head)).await?;
    }
    Ok(response)
}

/// Sends a response. Gives its ended body.
async fn send(response: http::Response<SentBody>, sending: &mut Unfinished) -> Result<SentBody, Cut> {
    let stream = &mut sending.stream;
    let (mut head, mut body) = response.into_parts();
    let length = stated_length(&head.headers);
    if !head.headers.contains_key(header::DATE)
        && let Ok(date) = HeaderValue::from_bytes(&date::now())
    {
        head.headers.insert(header::DATE, date);
    }
    let bodiless = body.is_end_stream();
    in_time(stream.send_response(http::Response::from_parts(head, ()))).await?;
    let mut sent = 0;
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.map_err(|_| Cut::ByUs)?.into_data() {
            Ok(mut data) => {
                sent += data.len() as u64;
                while !data.is_empty() {
                    let piece = data.split_to(data.len().min(limits::H3_DATA_FRAME_BYTES_MAX));
                    in_time(stream.send_data(piece)).await?;
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    in_time(stream.send_trailers(trailers)).await?;
                }
            }
        }
    }
    if length.is_some_and(|length| length != sent) && !bodiless {
        return Err(Cut::ByUs);
    }
    in_time(stream.finish()).await?;
    sending.finished = true;
    Ok(body)
}

/// A client that takes nothing for [`limits::SEND_STALL`] has lost its stream.
async fn in_time(sending: impl Future<Output = Result<(), StreamError>>) -> Result<(), Cut> {
    match tokio::time::timeout(limits::SEND_STALL, sending).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(Cut::ByClient),
    }
}

/// A request's body on its way in.
struct ReceivedBody {
    stream: RequestStream<Receiving, Bytes>,
    intake: Arc<Intake>,
    metrics: Arc<Metrics>,
    /// Content-Length.
    declared: Option<u64>,
    received: u64,
    /// Read while looking whether there is a body at all.
    first: Option<Bytes>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    Ended,
}

impl ReceivedBody {
    /// Looks whether there is a body. Mostly the end of a request comes together with its head; where the method means that there will be none,
    /// a moment is given to an end in the next packet: a body of unknown length would keep the cache from answering.
    async fn open(
        stream: RequestStream<Receiving, Bytes>,
        intake: Arc<Intake>,
        head: &http::request::Parts,
        metrics: &Arc<Metrics>,
    ) -> Body {
        let declared = stated_length(&head.headers);
        let mut body = Self { stream, intake, metrics: metrics.clone(), declared, received: 0, first: None, state: State::Data };
        let mut polled = std::future::poll_fn(|cx| Poll::Ready(body.poll_data(cx))).await;
        if polled.is_pending() && declared.is_none() && matches!(head.method, http::Method::GET | http::Method::HEAD) {
            let end = std::future::poll_fn(|cx| body.poll_data(cx));
            polled = tokio::time::timeout(limits::H3_END_WAIT, end).await.map_or(Poll::Pending, Poll::Ready);
        }
        match polled {
            Poll::Ready(Ok(None)) if declared.unwrap_or(0) == 0 && body.intake.ended() => {
                body.state = State::Ended;
                return Body::empty();
            }
            Poll::Ready(Ok(None)) => body.state = State::Trailers,
            Poll::Ready(Ok(Some(data))) => body.first = Some(data),
            Poll::Ready(Err(error)) => {
                return Body::chunks(futures::stream::once(async move { Err(error) }));
            }
            Poll::Pending => {}
        }
        Body::stream(body)
    }

    /// The next piece, or the end of the data.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        // h3 0.0.8 says "no more data" for an empty DATA frame too. Each costs the client two bytes of its intake.
        let mut ends_seen = 0;
        loop {
            let piece = ready!(self.stream.poll_recv_data(cx)).map_err(|error| BodyError::Aborted(error.to_string()))?;
            if let Some(mut piece) = piece {
                let data = piece.copy_to_bytes(piece.remaining());
                drop(piece);
                self.intake.delivered();
                self.received += data.len() as u64;
                self.metrics.received_bytes.add(data.len() as u64);
                return Poll::Ready(Ok(Some(data)));
            }
            ends_seen += 1;
            if self.intake.ended() && ends_seen > limits::H3_EMPTY_FRAMES_MAX {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// RFC 9114, section 4.1.2: a body that is not as long as it says is malformed.
    fn right_length(&mut self) -> Result<(), BodyError> {
        match self.declared {
            Some(declared) if declared != self.received => {
                self.stream.stop_sending(Code::H3_MESSAGE_ERROR);
                Err(BodyError::Aborted(format!("{} bytes of {declared}", self.received)))
            }
            _ => Ok(()),
        }
    }
}

impl HttpBody for ReceivedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.state == State::Data {
            let data = match this.first.take() {
                Some(first) => Ok(Some(first)),
                None => ready!(this.poll_data(cx)),
            };
            match data {
                Ok(Some(data)) if this.declared.is_none_or(|declared| this.received <= declared) => {
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(None) => this.state = State::Trailers,
                Ok(Some(_)) => {
                    this.state = State::Ended;
                    return Poll::Ready(this.right_length().err().map(Err));
                }
                Err(error) => {
                    this.state = State::Ended;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        if this.state == State::Trailers {
            let trailers = ready!(this.stream.poll_recv_trailers(cx));
            this.state = State::Ended;
            this.right_length()?;
            return Poll::Ready(match trailers {
                Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
                Err(error) => Some(Err(BodyError::Aborted(error.to_string()))),
            });
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::Ended
    }

    fn size_hint(&self) -> SizeHint {
        match self.declared {
            Some(declared) => {
                let held = self.first.as_ref().map_or(0, |first| first.len() as u64);
                SizeHint::with_exact(declared.saturating_sub(self.received.saturating_sub(held)))
            }
            None => SizeHint::default(),
        }
    }
}

impl Drop for ReceivedBody {
    fn drop(&mut self) {
        if !self.intake.ended() {
            // RFC 9114, section 4.1: the answer does not depend on the rest.
            self.stream.stop_sending(Code::H3_NO_ERROR);
        }
    }
}
