//! One request and its answer, the same for every protocol: check → answer → shape for the wire.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use selvedge_runtime::{Body, BodyError};

use super::activity::{Activity, Running};
use super::check::{self, Arrival};
use super::{Answer, Connection, Interim, Protocol, Refusal, Reply};
use crate::metrics::{CacheResult, Metrics};
use crate::request::strip_hop;

/// What the requests of one connection share.
pub(super) struct Exchange<A> {
    pub(super) answer: Arc<A>,
    pub(super) connection: Arc<Connection>,
    pub(super) activity: Arc<Activity>,
    pub(super) metrics: Arc<Metrics>,
    /// Announces HTTP/3 (RFC 7838), where this connection is not h3 and there is one.
    pub(super) alt_svc: Option<HeaderValue>,
}

/// An answer, before it is framed.
pub(super) struct Answered {
    pub(super) reply: Reply,
    /// It was no request for us.
    pub(super) refused: bool,
}

impl<A: Answer> Exchange<A> {
    /// Answers one request for a connection that answers several at a time. Dropping the future, or the response's body before its end, cancels the work.
    pub(super) async fn run(&self, request: http::Request<Body>, running: Running, interim: Interim) -> Response<SentBody> {
        let method = request.method().clone();
        let Answered { reply, .. } = self.answer(request, interim).await;
        let mut response = match reply {
            Reply::Made(mut response) => {
                shape(&mut response, &method, self.connection.protocol);
                response
            }
            Reply::Ready(ready) => ready.into_response(),
        };
        if let Some(alt_svc) = &self.alt_svc {
            response.headers_mut().insert(header::ALT_SVC, alt_svc.clone());
        }
        response.map(|body| SentBody { body, running, activity: self.activity.clone(), handed: false, failed: None })
    }

    /// Answers one request; the answer is not yet shaped for the wire. Dropping the future, or the response's body before its end, cancels the work.
    pub(super) async fn answer(&self, mut request: http::Request<Body>, interim: Interim) -> Answered {
        let protocol = self.connection.protocol;
        let arrival = Arrival { protocol, secure: self.connection.tls.is_some() };
        match check::check(&request, arrival) {
            Ok(uri) => {
                *request.uri_mut() = uri;
                Answered { reply: self.answer.answer(request, &self.connection, interim).await, refused: false }
            }
            Err(refusal) => Answered { reply: self.refuse(refusal).into(), refused: true },
        }
    }

    /// The answer to what is no request for us.
    pub(super) fn refuse(&self, refusal: Refusal) -> Response<Body> {
        tracing::debug!(client.address = %self.connection.peer, refusal = refusal.name(), "request refused");
        let response = self.answer.refuse(refusal, &self.connection);
        self.metrics.answered(self.connection.protocol, response.status(), CacheResult::Bypass);
        response
    }
}

/// Whether a response has no content, whatever its body holds (RFC 9110, section 6.4.1).
pub(crate) fn has_no_content(method: &Method, status: StatusCode) -> bool {
    method == Method::HEAD || status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Makes a response fit for the wire: no body where the protocol has none, one length, no fields of another connection.
pub(super) fn shape(response: &mut Response<Body>, method: &Method, protocol: Protocol) {
    let status = response.status();
    let length = response.body().size_hint().exact();
    let headers = response.headers_mut();
    // RFC 9110, section 7.6.1: each listener frames its messages itself.
    strip_hop(headers);
    if has_no_content(method, status) {
        if status == StatusCode::NO_CONTENT || status.is_informational() {
            // RFC 9110, section 8.6: no Content-Length either.
            headers.remove(header::CONTENT_LENGTH);
        } else if let Some(length @ 1..) = length
            && status != StatusCode::NOT_MODIFIED
            && !headers.contains_key(header::CONTENT_LENGTH)
        {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        *response.body_mut() = Body::empty();
    } else if let Some(length) = length {
        // What is here counts more than what is said.
        if protocol != Protocol::Http1 || headers.contains_key(header::CONTENT_LENGTH) {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
    }
}

/// A response's body on its way out: keeps the request counted as running, and notes whether the client takes it.
pub(super) struct SentBody {
    body: Body,
    #[allow(dead_code, reason = "held until the body ends")]
    running: Running,
    activity: Arc<Activity>,
    handed: bool,
    /// A reset throws away what was not written yet. So an error waits one turn, in which the client gets the head and what was made before the error.
    failed: Option<BodyError>,
}

impl HttpBody for SentBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let handed = matches!(polled, Poll::Ready(Some(Ok(_))));
        this.activity.hand(&mut this.handed, handed);
        match polled {
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "response cut short");
                this.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.failed.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for SentBody {
    fn drop(&mut self) {
        self.activity.hand(&mut self.handed, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(status: u16, method: Method, body: &'static str, fields: &[(&str, &str)]) -> Response<Body> {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let mut response = response.body(Body::full(body)).unwrap();
        shape(&mut response, &method, Protocol::Http2);
        response
    }

    #[test]
    fn head_says_the_length_and_sends_nothing() {
        let response = shaped(200, Method::HEAD, "hello", &[]);
        assert_eq!(response.headers()["content-length"], "5");
        assert!(response.body().is_end_stream());
    }

    #[test]
    fn responses_without_content_have_none() {
        let response = shaped(204, Method::GET, "hello", &[("content-length", "5")]);
        assert!(!response.headers().contains_key("content-length"));
        assert!(response.body().is_end_stream());
        let response = shaped(204, Method::HEAD, "", &[("content-length", "5")]);
        assert!(!response.headers().contains_key("content-length"), "whatever was asked");
        let response = shaped(304, Method::GET, "", &[("content-length", "5")]);
        assert_eq!(response.headers()["content-length"], "5");
    }

    #[test]
    fn a_false_length_is_corrected_and_connection_fields_are_gone() {
        let response = shaped(200, Method::GET, "hello", &[("content-length", "99"), ("connection", "x"), ("x", "1"), ("keep-alive", "5")]);
        assert_eq!(response.headers()["content-length"], "5");
        assert_eq!(response.headers().len(), 1);
    }
}
