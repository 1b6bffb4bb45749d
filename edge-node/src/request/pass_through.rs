//! What answers in the place of a worker that called `passThroughOnException()` and then failed before its response: what is stored for it, also where that is stale,
//! else the route's upstream. The request's body goes there too, as far as the worker's taking it left it to be sent again.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use http::header::{HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use http::{Method, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use selvedge_runtime::{Body, BodyError, RunError};

use super::route::{self, Aim};
use super::trail::Trail;
use super::{RequestPath, fetch, lookup, respond};
use crate::cache::status::Detail;
use crate::cache::{Found, policy};
use crate::limits::PASS_THROUGH_BODY_BYTES_MAX;
use crate::metrics::CacheResult;

/// On a response: it is not the worker's, whatever asked for it.
#[derive(Debug, Clone, Copy)]
struct PassedThrough;

/// Whether a response stands in the place of a worker's.
pub(super) fn is_passed(response: &Response<Body>) -> bool {
    response.extensions().get::<PassedThrough>().is_some()
}

/// A worker's request, as far as another may have to answer it.
pub(super) struct Saved {
    headers: HeaderMap,
    body: Kept,
}

enum Kept {
    Whole(Bytes),
    Lent(Arc<Mutex<Lent>>),
}

impl Saved {
    /// Keeps what is needed, where anything could take the worker's place; costs nothing elsewhere.
    pub(super) fn of(request: &mut Request<Body>, aim: &Aim) -> Option<Box<Self>> {
        if !aim.cached && aim.route.upstream.is_none() {
            return None;
        }
        let body = match request.body().as_whole() {
            Some(whole) => Kept::Whole(whole),
            None => {
                let inner = std::mem::take(request.body_mut());
                let lent = Arc::new(Mutex::new(Lent { inner: Some(inner), taken: Some(VecDeque::new()), bytes: 0, failed: false }));
                *request.body_mut() = Body::stream(Reading(lent.clone()));
                Kept::Lent(lent)
            }
        };
        Some(Box::new(Self { headers: request.headers().clone(), body }))
    }

    /// The body from its beginning; none where too much of it has been taken.
    fn body(self) -> Option<Body> {
        match self.body {
            Kept::Whole(whole) => Some(Body::full(whole)),
            Kept::Lent(lent) => {
                let mut lent = lent.lock();
                let (taken, inner) = (lent.taken.take().filter(|_| !lent.failed)?, lent.inner.take());
                Some(Body::stream(Again { taken, inner }))
            }
        }
    }

    /// Answers in the worker's place; none where nothing can, and the worker's failure is the answer.
    pub(super) async fn answer(
        self,
        path: &Arc<RequestPath>,
        aim: &Aim,
        worker: &str,
        error: &RunError,
        trail: &Trail,
    ) -> Option<Response<Body>> {
        let mut response = match self.stored(path, aim, trail).await {
            Some(response) => response,
            None => self.upstream(path, aim, trail).await?,
        };
        trail.ended(error.outcome);
        trail.failed("passed_through", error.to_string());
        respond::tell_passed(path, response.headers_mut(), worker, error);
        response.extensions_mut().insert(PassedThrough);
        Some(response)
    }

    async fn stored(&self, path: &RequestPath, aim: &Aim, trail: &Trail) -> Option<Response<Body>> {
        if !aim.cached || !matches!(trail.context.method, Method::GET | Method::HEAD) {
            return None;
        }
        let now = path.now();
        let found = path.cache().look(&route::key(aim, &trail.context), &self.headers, now).await;
        let entry = match lookup::trusted(path, aim.route.cache.max_disconnected_s, found) {
            Found::Fresh(entry, _) => entry,
            Found::Stale(entry, stale_ms, _) => {
                let usable = policy::stale_use(&entry.control, stale_ms, aim.route.cache.stale_if_error_s).if_error;
                Some(entry).filter(|_| usable)?
            }
            Found::Incomplete(..) | Found::Nothing(..) => return None,
        };
        trail.cached(CacheResult::Stale);
        let say = respond::because(&entry, Detail::PassThrough, now);
        Some(respond::from_entry(path, &entry, &self.headers, trail, say, now))
    }

    async fn upstream(self, path: &RequestPath, aim: &Aim, trail: &Trail) -> Option<Response<Body>> {
        let upstream = aim.route.upstream.as_ref()?;
        let mut headers = self.headers.clone();
        if aim.cached {
            // A fill asks whether what is stored for the worker has changed: that is not the upstream's to say.
            [IF_NONE_MATCH, IF_MODIFIED_SINCE].iter().for_each(|name| drop(headers.remove(name)));
        }
        let mut request = Request::new(self.body()?);
        *request.method_mut() = trail.context.method.clone();
        *request.headers_mut() = headers;
        // Where the upstream fails too, the worker's failure is what is told: it came first.
        fetch::get(path, request, upstream, trail).await.ok()
    }
}

/// A request's body while a worker has it: what was taken of it is kept, up to a bound.
struct Lent {
    /// None: it was taken back.
    inner: Option<Body>,
    /// None: more was taken than is kept.
    taken: Option<VecDeque<Bytes>>,
    bytes: u64,
    failed: bool,
}

struct Reading(Arc<Mutex<Lent>>);

impl HttpBody for Reading {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut lent = self.0.lock();
        let Some(inner) = &mut lent.inner else {
            return Poll::Ready(Some(Err(BodyError::Aborted("the request is answered by another".into()))));
        };
        let polled = std::task::ready!(Pin::new(inner).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    lent.bytes += data.len() as u64;
                    let within = lent.bytes <= PASS_THROUGH_BODY_BYTES_MAX;
                    match &mut lent.taken {
                        Some(taken) if within => taken.push_back(data.clone()),
                        taken => *taken = None,
                    }
                }
            }
            Some(Err(_)) => lent.failed = true,
            None => {}
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().inner.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

/// A body that begins again.
struct Again {
    taken: VecDeque<Bytes>,
    inner: Option<Body>,
}

impl HttpBody for Again {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(bytes) = self.taken.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        self.inner.as_mut().map_or(Poll::Ready(None), |inner| Pin::new(inner).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.taken.is_empty() && self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let taken: u64 = self.taken.iter().map(|bytes| bytes.len() as u64).sum();
        let left = self.inner.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(taken.saturating_add(left.lower()));
        if let Some(upper) = left.upper() {
            hint.set_upper(taken.saturating_add(upper));
        }
        hint
    }
}
