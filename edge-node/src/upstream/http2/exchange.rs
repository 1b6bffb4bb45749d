//! One request on an HTTP/2 connection: its head and body out, interim responses, the final head and the body in.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::task::AbortOnDropHandle;

use super::Http2;
use crate::h2_stream::{self, Received, Unsent};
use crate::tasks;
use crate::upstream::body::Outgoing;
use crate::upstream::interim::OnInterim;
use crate::upstream::limits;

/// A request that got no head; with itself, where nothing of it has gone out.
pub(crate) struct Lost {
    pub(crate) error: h2::Error,
    pub(crate) unsent: Option<Request<Outgoing>>,
}

impl From<h2::Error> for Lost {
    fn from(error: h2::Error) -> Self {
        Self { error, unsent: None }
    }
}

/// Sends a request; gives the final head of its answer. A server that takes nothing of the request's body for `stall` has lost the rest of it. Dropping the future resets
/// the stream.
pub(crate) async fn ask(connection: &Arc<Http2>, request: Request<Outgoing>, stall: Duration) -> Result<Response<Incoming>, Lost> {
    let (head, body) = request.into_parts();
    let interim = head.extensions.get::<OnInterim>().cloned();
    let bodiless = body.is_end_stream();
    let (mut answering, stream) = {
        let mut opening = connection.opening.lock().await;
        if let Err(error) = poll_fn(|cx| opening.poll_ready(cx)).await {
            return Err(Lost { error, unsent: Some(Request::from_parts(head, body)) });
        }
        opening.send_request(Request::from_parts(head, ()), bodiless)?
    };
    let upload = if bodiless { None } else { begin_upload(connection, stream, body, stall)? };
    let mut interims = 0;
    let answer = poll_fn(|cx| {
        // Interim responses stand before the final one, which is not looked for until there are none.
        while let Some(head) = ready!(answering.poll_informational(cx)).transpose()? {
            interims += 1;
            if interims > limits::INTERIM_RESPONSES_MAX {
                return Poll::Ready(Err(Reason::ENHANCE_YOUR_CALM.into()));
            }
            if let Some(interim) = &interim {
                interim.tell(head.status(), head.headers());
            }
        }
        Pin::new(&mut answering).poll(cx)
    });
    Ok(answer.await.map(|answer| Incoming::open(answer, upload))?)
}

/// Sends a body while the answer is waited for. A short one that is here goes at once, and needs nobody.
fn begin_upload(
    connection: &Arc<Http2>,
    mut stream: SendStream<Bytes>,
    body: Outgoing,
    stall: Duration,
) -> Result<Option<AbortOnDropHandle<()>>, h2::Error> {
    if let Some(whole) = body.body.as_whole().filter(|whole| whole.len() as u64 <= limits::REPLAY_BYTES_MAX) {
        stream.send_data(whole, true)?;
        return Ok(None);
    }
    let connection = connection.clone();
    Ok(Some(tasks::owned("h2 client body", async move {
        let _connection = connection;
        if upload(&mut stream, body, stall).await.is_err() {
            stream.send_reset(Reason::CANCEL);
        }
    })))
}

/// The body failed, or the server does not want the rest.
struct Cut;

impl From<h2::Error> for Cut {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

impl From<Unsent> for Cut {
    fn from(_: Unsent) -> Self {
        Self
    }
}

async fn upload(stream: &mut SendStream<Bytes>, mut body: Outgoing, stall: Duration) -> Result<(), Cut> {
    while let Some(frame) = next_frame(stream, &mut body).await? {
        if let Ok(data) = frame.into_data() {
            h2_stream::send_data(stream, data, false, limits::H2_SEND_BUFFER_BYTES, stall).await?;
        }
    }
    Ok(stream.send_data(Bytes::new(), true)?)
}

/// The next frame of the body, unless the server resets the stream meanwhile.
async fn next_frame(stream: &mut SendStream<Bytes>, body: &mut Outgoing) -> Result<Option<Frame<Bytes>>, Cut> {
    poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
        Poll::Ready(frame) => Poll::Ready(frame.transpose().map_err(|_| Cut)),
        Poll::Pending => stream.poll_reset(cx).map(|_| Err(Cut)),
    })
    .await
}

/// An answer's body on its way in. Dropped before its end, it resets the stream.
pub(crate) struct Incoming {
    received: Received,
    /// Goes on after the end of the answer: a server may answer before it has all of the request (RFC 9113, section 8.1).
    upload: Option<AbortOnDropHandle<()>>,
}

impl Incoming {
    fn open(answer: Response<RecvStream>, upload: Option<AbortOnDropHandle<()>>) -> Response<Self> {
        let (head, stream) = answer.into_parts();
        let mut incoming = Self { received: Received::new(stream, &head.headers), upload };
        incoming.look_for_end();
        Response::from_parts(head, incoming)
    }

    fn look_for_end(&mut self) {
        if self.received.is_end_stream()
            && let Some(upload) = self.upload.take()
        {
            upload.detach();
        }
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let frame = ready!(Pin::new(&mut self.received).poll_frame(cx)).transpose()?;
        self.look_for_end();
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.received.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.received.size_hint()
    }
}
