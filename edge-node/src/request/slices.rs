//! A large response in slices (`slice_bytes` of the route): what of it is not stored is fetched slice by slice as the client takes it, each by a range, each once for all who
//! want it. A client that wants the end of a film does not make this node fetch the film.
//!
//! Each slice takes the path that a client's request for that range takes: stored, found, validated, collapsed, from the disk or from the shield. When the object has changed
//! between two slices, the response ends early instead of going on with other bytes, and the next request starts over.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use selvedge_runtime::{Body, BodyError};

use super::RequestPath;
use super::compress::Asked;
use super::error::RequestError;
use super::respond;
use super::route::{self, Aim, Answerer};
use super::trail::Trail;
use crate::cache::range::{Selected, select};
use crate::cache::slice::{Slice, Whole};
use crate::cache::status::CACHE_STATUS;
use crate::cache::validate::range_applies;
use crate::limits::SLICE_ROUNDS_MAX;

/// All that is needed to fetch a slice.
struct Source {
    path: Arc<RequestPath>,
    /// The client's fields, without what it asks for of the whole.
    headers: HeaderMap,
    aim: Aim,
    trail: Arc<Trail>,
    /// The length of a slice.
    length: u64,
}

/// Whether the route wants slices of what answers.
pub(super) fn are_wanted(aim: &Aim) -> bool {
    aim.route.cache.slice_bytes > 0 && aim.slice.is_none() && aim.wish.is_none() && matches!(aim.answerer, Answerer::Upstream(_))
}

/// The response in slices, where the upstream can do it. None: the usual path answers. (Boxed: few routes need the room in every request's future.)
pub(super) fn fetch<'a>(
    path: &'a Arc<RequestPath>,
    asked: Asked<'a>,
    trail: &'a Arc<Trail>,
) -> BoxFuture<'a, Result<Option<Response<Body>>, RequestError>> {
    fetch_slices(path, asked, trail).boxed()
}

async fn fetch_slices(path: &Arc<RequestPath>, asked: Asked<'_>, trail: &Arc<Trail>) -> Result<Option<Response<Body>>, RequestError> {
    let aim = asked.aim;
    let length = u64::from(aim.route.cache.slice_bytes);
    let mut headers = asked.headers.clone();
    for name in [RANGE, IF_RANGE, IF_NONE_MATCH, IF_MODIFIED_SINCE] {
        headers.remove(name);
    }
    let source = Arc::new(Source { path: path.clone(), headers, aim: aim.clone(), trail: trail.clone(), length });
    for _ in 0..SLICE_ROUNDS_MAX {
        let (first, first_trail) = source.slice(Slice::first(source.length)).await?;
        let Some(whole) = Whole::of(first.status(), first.headers(), source.length) else {
            // An upstream that knows no ranges has sent all of it.
            let all = first.status() == StatusCode::OK;
            return Ok(all.then(|| {
                trail.cached_as(&first_trail);
                respond::conditional(first, asked.headers)
            }));
        };
        let (mut head, body) = first.into_parts();
        let wanted = wanted(asked.headers, &head.headers, whole.total);
        let start = whole.slice_at(wanted.start, source.length);
        let (body, slice_trail) = if start.bytes().start == 0 {
            (body, first_trail)
        } else {
            drop(body);
            let (response, slice_trail) = source.slice(start.clone()).await?;
            if !start.is(response.status(), response.headers()) {
                // Nothing has gone to the client.
                source.start_over();
                continue;
            }
            let (slice, body) = response.into_parts();
            if let Some(status) = slice.headers.get(CACHE_STATUS) {
                head.headers.insert(CACHE_STATUS, status.clone());
            }
            (body, slice_trail)
        };
        trail.cached_as(&slice_trail);
        // A response that has begun is not cut for the node's load.
        trail.let_in();
        let current = Some(Current { body, at: start.bytes().start, end: start.bytes().end });
        let slices = Slices { source: source.clone(), whole: whole.clone(), left: wanted, current, coming: None };
        return Ok(Some(respond::of_slices(head.headers, whole.total, asked.headers, Body::stream(slices))));
    }
    Ok(None)
}

/// The bytes that the client gets.
fn wanted(request: &HeaderMap, fields: &HeaderMap, total: u64) -> Range<u64> {
    match select(request.get(RANGE).filter(|_| range_applies(request, fields)), total) {
        Selected::Part(part) => part,
        _ => 0..total,
    }
}

/// What the path of a request has for a slice, and what became of that request.
type Answered = (Response<Body>, Arc<Trail>);

impl Source {
    /// Asks for a slice on the path of a request.
    fn slice(self: &Arc<Self>, slice: Slice) -> BoxFuture<'static, Result<Answered, RequestError>> {
        let source = self.clone();
        async move {
            let trail = source.trail.of_slice();
            let mut request = Request::new(Body::empty());
            *request.headers_mut() = source.headers.clone();
            request.headers_mut().insert(RANGE, slice.range());
            let aim = Aim { slice: Some(slice), ..source.aim.clone() };
            let reply = source.path.fulfil(request, &aim, &trail).await?;
            Ok((trail.answered(reply).into_response(), trail))
        }
        .boxed()
    }

    /// The same, as the next piece of a response that has begun.
    fn next(self: &Arc<Self>, slice: Slice) -> BoxFuture<'static, Result<Current, BodyError>> {
        let source = self.clone();
        async move {
            let (response, _) = source.slice(slice.clone()).await.map_err(|error| BodyError::Aborted(error.to_string()))?;
            if !slice.is(response.status(), response.headers()) {
                source.start_over();
                return Err(BodyError::Aborted("the object has changed while it was sent".into()));
            }
            Ok(Current { body: response.into_body(), at: slice.bytes().start, end: slice.bytes().end })
        }
        .boxed()
    }

    /// What is known of the whole is not true any more.
    fn start_over(&self) {
        self.path.cache().invalidate(&route::key(&self.aim, &self.trail.context));
    }
}

/// A slice that is being sent: the number of its next byte, and of the byte after it.
struct Current {
    body: Body,
    at: u64,
    end: u64,
}

/// The wanted bytes, slice after slice.
struct Slices {
    source: Arc<Source>,
    whole: Whole,
    left: Range<u64>,
    current: Option<Current>,
    coming: Option<BoxFuture<'static, Result<Current, BodyError>>>,
}

impl HttpBody for Slices {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        while !this.left.is_empty() {
            if let Some(coming) = &mut this.coming {
                let current = ready!(coming.as_mut().poll(cx));
                this.coming = None;
                match current {
                    Ok(current) => this.current = Some(current),
                    Err(error) => return this.fail(error),
                }
            }
            let Some(current) = this.current.as_mut().filter(|current| current.at < current.end) else {
                this.current = None;
                this.coming = Some(this.source.next(this.whole.slice_at(this.left.start, this.source.length)));
                continue;
            };
            let data = match ready!(Pin::new(&mut current.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return this.fail(error),
                None => return this.fail(BodyError::Aborted("a slice ended early".into())),
            };
            let here = current.at..current.at.saturating_add(data.len() as u64).min(current.end);
            current.at = here.end;
            let (start, end) = (here.start.max(this.left.start), here.end.min(this.left.end));
            if start < end {
                this.left.start = end;
                let data = data.slice((start - here.start) as usize..(end - here.start) as usize);
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.end.saturating_sub(self.left.start))
    }
}

impl Slices {
    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        (self.left, self.current) = (0..0, None);
        Poll::Ready(Some(Err(error)))
    }
}
