//! Runs a worker for a request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderName};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use selvedge_runtime::{Body, BodyError, ClientInfo, Invocation, RunError};

use super::RequestPath;
use super::context::Context;
use super::error::RequestError;
use super::fields;
use super::pass_through::Saved;
use super::route::Aim;
use super::trail::Trail;
use crate::cache::policy::stated_length;
use crate::metrics::Source;
use crate::routes::{ActiveVersion, ActiveWorker};
use crate::workers::WorkerHost;

/// Names the version whose worker answered.
const SELVEDGE_VERSION: HeaderName = HeaderName::from_static("selvedge-version");

/// A run of one version of a worker, and what follows from how it ends.
struct Run<'a> {
    path: &'a Arc<RequestPath>,
    aim: &'a Aim,
    worker: &'a Arc<ActiveWorker>,
    version: &'a ActiveVersion,
    trail: &'a Arc<Trail>,
    host: Arc<WorkerHost>,
    saved: Option<Box<Saved>>,
    /// Set where the request's body turns out to be too large; none where its length is known.
    too_large: Option<Arc<AtomicBool>>,
}

/// Runs one version of a worker. What can be done without waiting is done before the future is there, so that it need not carry the request. Dropping the
/// future, or the response's body before its end, cancels the invocation.
pub(super) fn run<'a>(
    path: &'a Arc<RequestPath>,
    mut request: Request<Body>,
    aim: &'a Aim,
    (worker, version): (&'a Arc<ActiveWorker>, &'a ActiveVersion),
    trail: &'a Arc<Trail>,
) -> Result<impl Future<Output = Result<Response<Body>, RequestError>> + Send + 'a, RequestError> {
    trail.runs(version);
    trail.served_from(Source::Worker);
    let saved = Saved::of(&mut request, aim);
    let (body, too_large) = bounded(std::mem::take(request.body_mut()), version.source.limits.request_body_bytes_max)?;
    let written = fields::identified(request.headers_mut(), &trail.context);
    *request.uri_mut() = absolute(&trail.context).ok_or(RequestError::Malformed("the address is not one"))?;
    *request.body_mut() = body;
    let host = Arc::new(WorkerHost::new(path.clone(), trail.clone(), worker.clone(), version.source.version.clone()));
    let client =
        ClientInfo { http_protocol: trail.context.protocol.name(), tls_version: trail.context.tls_version, colo: path.node().clone() };
    let invocation = Box::new(Invocation { request, written, client, host: host.clone() });
    Ok(Run { path, aim, worker, version, trail, host, saved, too_large }.answer(invocation))
}

impl Run<'_> {
    async fn answer(mut self, invocation: Box<Invocation>) -> Result<Response<Body>, RequestError> {
        let answer = self.path.runners().run(&self.version.source, invocation).await;
        // Taken apart only now: what waits would carry everything twice.
        let saved = self.saved.take();
        let Self { path, aim, worker, version, trail, host, too_large, .. } = self;
        // Whatever the worker made of it: the client is told what was wrong with its request.
        if too_large.is_some_and(|too_large| too_large.load(Relaxed)) {
            return Err(RequestError::BodyTooLarge { bytes_max: version.source.limits.request_body_bytes_max });
        }
        let mut response = match answer {
            Ok(response) => response,
            Err(RunError { request_body: Some(error), .. }) => return Err(RequestError::Body(error)),
            Err(error) => {
                if host.passes_through()
                    && let Some(saved) = saved
                    && let Some(response) = Box::pin(saved.answer(path, aim, &worker.name, &error, trail)).await
                {
                    return Ok(response);
                }
                return Err(RequestError::Run { worker: worker.name.clone(), version: version.source.version.clone(), error });
            }
        };
        fields::clean(response.headers_mut());
        correct_length(&mut response, &trail.context.method);
        response.headers_mut().insert(SELVEDGE_VERSION, version.id.clone());
        Ok(response)
    }
}

/// The request's body, if it is not too large; a stream that may turn out to be is cut at the bound, and says so.
fn bounded(body: Body, bytes_max: u64) -> Result<(Body, Option<Arc<AtomicBool>>), RequestError> {
    if body.size_hint().lower() > bytes_max {
        return Err(RequestError::BodyTooLarge { bytes_max });
    }
    if body.size_hint().upper().is_some_and(|upper| upper <= bytes_max) {
        return Ok((body, None));
    }
    let too_large = Arc::new(AtomicBool::new(false));
    let bounded = Bounded { inner: body, left: bytes_max, bytes_max, too_large: too_large.clone() };
    Ok((Body::stream(bounded), Some(too_large)))
}

/// What a worker says of its body's length must be true: a field that is not would break the connection's framing. (In answer to HEAD there is no body to
/// contradict it.)
fn correct_length(response: &mut Response<Body>, method: &Method) {
    if *method == Method::HEAD || !response.headers().contains_key(CONTENT_LENGTH) {
        return;
    }
    let said = stated_length(response.headers());
    if said.is_none() || said != response.body().size_hint().exact() {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
}

fn absolute(context: &Context) -> Option<Uri> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if context.secure { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(Authority::from_maybe_shared(Bytes::copy_from_slice(context.authority.as_bytes())).ok()?);
    parts.path_and_query = Some(context.asked().clone());
    Uri::from_parts(parts).ok()
}

/// A body of a bounded length.
struct Bounded {
    inner: Body,
    left: u64,
    bytes_max: u64,
    too_large: Arc<AtomicBool>,
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &polled {
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            let Some(left) = self.left.checked_sub(bytes) else {
                self.too_large.store(true, Relaxed);
                return Poll::Ready(Some(Err(BodyError::TooLarge { bytes_max: self.bytes_max })));
            };
            self.left = left;
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
