//! One request over HTTP/2: head and body in, heads and body out, and an end when the client gives up.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::h2::server::SendResponse;
use ::h2::{Reason, RecvStream, SendStream};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use selvedge_runtime::{Body, BodyError};

use crate::cache::policy::stated_length;
use crate::h2_stream::{self, Received, Unsent};
use crate::limits;
use crate::listen::exchange::{Exchange, SentBody};
use crate::listen::interim::Interims;
use crate::listen::resets::Resets;
use crate::listen::{Answer, date};
use crate::metrics::Metrics;

/// Answers one request. Ends with its connection.
pub(super) async fn serve<A: Answer>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    exchange: Arc<Exchange<A>>,
    resets: Arc<Resets>,
) {
    let (head, receiving) = request.into_parts();
    let body = ReceivedBody::open(receiving, &head.headers, &exchange.metrics);
    let mut interims = Interims::default();
    let sent = match answer(Request::from_parts(head, body), &exchange, &mut respond, &mut interims).await {
        Ok(response) => send(response, &mut respond).await,
        Err(cut) => Err(cut),
    };
    match sent {
        Ok(()) => {}
        Err(Cut::ByClient) => resets.given_up(Some(&interims)),
        // RFC 9113, section 8.1: what is cut short must not look whole.
        Err(Cut::ByUs) => respond.send_reset(Reason::INTERNAL_ERROR),
    }
}

/// Who ended a response before its end.
enum Cut {
    /// The client reset its stream, or does not read it.
    ByClient,
    /// The body failed, or is not as long as it says.
    ByUs,
}

impl From<::h2::Error> for Cut {
    fn from(error: ::h2::Error) -> Self {
        tracing::debug!(%error, "a stream ended early");
        Self::ByClient
    }
}

/// Gives the response; what comes before it is sent while it is made.
async fn answer<A: Answer>(
    request: Request<Body>,
    exchange: &Exchange<A>,
    respond: &mut SendResponse<Bytes>,
    interims: &mut Interims,
) -> Result<Response<SentBody>, Cut> {
    let mut answering = pin!(exchange.run(request, exchange.activity.begin(), interims.open()));
    let response = loop {
        tokio::select! {
            biased;
            response = &mut answering => break response,
            head = interims.next() => respond.send_informational(head)?,
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return Err(Cut::ByClient),
        }
    };
    for head in interims.close() {
        respond.send_informational(head)?;
    }
    Ok(response)
}

/// Sends a response.
async fn send(response: Response<SentBody>, respond: &mut SendResponse<Bytes>) -> Result<(), Cut> {
    let (mut head, mut body) = response.into_parts();
    let length = stated_length(&head.headers);
    if !head.headers.contains_key(header::DATE)
        && let Ok(date) = HeaderValue::from_bytes(&date::now())
    {
        head.headers.insert(header::DATE, date);
    }
    let bodiless = body.is_end_stream();
    let mut stream = respond.send_response(Response::from_parts(head, ()), bodiless)?;
    if bodiless {
        return Ok(());
    }
    let mut sent = 0;
    while let Some(frame) = next_frame(&mut body, &mut stream).await? {
        match frame.map_err(|_| Cut::ByUs)?.into_data() {
            Ok(data) => {
                sent += data.len() as u64;
                let ends = body.is_end_stream();
                if length.is_some_and(|length| sent > length || (ends && sent < length)) {
                    return Err(Cut::ByUs);
                }
                send_data(data, ends, &mut stream).await?;
                if ends {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    if length.is_some_and(|length| length != sent) {
                        return Err(Cut::ByUs);
                    }
                    return Ok(stream.send_trailers(trailers)?);
                }
            }
        }
    }
    if length.is_some_and(|length| length != sent) {
        return Err(Cut::ByUs);
    }
    Ok(stream.send_data(Bytes::new(), true)?)
}

/// The next frame of a body, unless the client gives up meanwhile.
async fn next_frame(body: &mut SentBody, stream: &mut SendStream<Bytes>) -> Result<Option<Result<Frame<Bytes>, BodyError>>, Cut> {
    poll_fn(|cx| {
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
            return Poll::Ready(Ok(frame));
        }
        stream.poll_reset(cx).map(|_| Err(Cut::ByClient))
    })
    .await
}

/// Sends data. A client that takes nothing for [`limits::SEND_STALL`] has lost its stream.
async fn send_data(data: Bytes, ends: bool, stream: &mut SendStream<Bytes>) -> Result<(), Cut> {
    match h2_stream::send_data(stream, data, ends, limits::H2_SEND_BUFFER_BYTES_MAX, limits::SEND_STALL).await {
        Ok(()) => Ok(()),
        Err(Unsent::Gone(error)) => Err(error.map_or(Cut::ByClient, Cut::from)),
        Err(Unsent::Stalled) => {
            // Not CANCEL: there are clients that take it for the body's end.
            stream.send_reset(Reason::INTERNAL_ERROR);
            Err(Cut::ByClient)
        }
    }
}

/// A request's body on its way in.
struct ReceivedBody {
    received: Received,
    metrics: Arc<Metrics>,
}

impl ReceivedBody {
    fn open(stream: RecvStream, headers: &HeaderMap, metrics: &Arc<Metrics>) -> Body {
        if stream.is_end_stream() {
            return Body::empty();
        }
        Body::stream(Self { received: Received::new(stream, headers), metrics: metrics.clone() })
    }
}

impl HttpBody for ReceivedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.received).poll_frame(cx)).transpose();
        let frame = frame.map_err(|error| BodyError::Aborted(error.to_string()))?;
        self.metrics.received_bytes.add(frame.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.received.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.received.size_hint()
    }
}
