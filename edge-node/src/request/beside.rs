//! What the cache takes from answers beside its fills: a `200` to HEAD confirms or refutes what is stored for GET (RFC 9111, section 4.3.5), and a `200`
//! to POST that names its own URI in `Content-Location` is stored for it (RFC 9110, section 9.3.3).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LOCATION, HeaderMap};
use http::{Method, Request, Response, StatusCode, response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use selvedge_runtime::{Body, BodyError};

use super::RequestPath;
use super::context::Context;
use super::error::RequestError;
use super::invalidate::same_authority;
use super::lookup::Question;
use super::pass_through;
use super::respond;
use super::route::Aim;
use super::store::{freshened, is_fresh_yet, is_unreachable, unconfirmed};
use super::trail::Trail;
use crate::cache::collapse::{Company, Duty, Obligation};
use crate::cache::control::Control;
use crate::cache::entry::{Entry, StoredBody};
use crate::cache::freshness::Freshness;
use crate::cache::ledger::Share;
use crate::cache::policy::{self, Storable};
use crate::cache::purge::Stamp;
use crate::cache::status::Detail;
use crate::cache::time::Time;
use crate::cache::vary::Variant;
use crate::cache::{Found, Hint, deception, query, validate};
use crate::limits::FILL_CHUNK_OVERHEAD_BYTES;
use crate::metrics::CacheResult;

/// What comes of an answer.
pub(super) enum Judged {
    /// It is the answer.
    Answer(Response<Body>),
    /// What is stored stands in for it.
    Stale(Response<Body>),
}

/// A request that goes past the cache, whose answer may tell it something.
pub(super) struct Beside {
    method: Method,
    /// Its fields, for HEAD and POST.
    headers: HeaderMap,
    requested: Time,
    stamp: Stamp,
}

impl Beside {
    /// Before the request is sent on.
    pub(super) fn begin(path: &RequestPath, request: &Request<Body>, aim: &Aim) -> Self {
        let told = *request.method() == Method::HEAD || *request.method() == Method::POST;
        Self {
            method: request.method().clone(),
            headers: if told { request.headers().clone() } else { HeaderMap::new() },
            requested: path.now(),
            stamp: path.cache().purges().stamp(aim.realm()),
        }
    }

    /// After its answer.
    pub(super) fn take(
        self,
        path: &Arc<RequestPath>,
        question: &Question,
        aim: &Aim,
        context: &Context,
        response: Response<Body>,
    ) -> Response<Body> {
        if response.status() != StatusCode::OK || pass_through::is_passed(&response) {
            return response;
        }
        if self.method == Method::HEAD {
            self.of_head(path, question, aim, response.headers());
        } else if self.method == Method::POST {
            return self.of_post(path, question, aim, context, response);
        }
        response
    }

    /// Where the upstream cannot be reached, or answers with an error of its own: what is stored answers HEAD as it answers GET.
    pub(super) fn judge(
        &self,
        path: &RequestPath,
        question: &Question,
        aim: &Aim,
        trail: &Trail,
        answer: Result<Response<Body>, RequestError>,
    ) -> Result<Judged, RequestError> {
        let failed = match &answer {
            Ok(response) => policy::is_upstream_error(response.status()),
            Err(error) => is_unreachable(error),
        };
        if self.method != Method::HEAD || !failed {
            return answer.map(Judged::Answer);
        }
        let now = path.now();
        let (entry, stale_ms) = match question.find(path, &self.headers, now) {
            Found::Fresh(entry, _) if entry.part().is_none() => (entry, 0),
            Found::Stale(entry, stale_ms, _) if entry.part().is_none() => (entry, stale_ms),
            _ => return answer.map(Judged::Answer),
        };
        let settings = &aim.route.cache;
        let usable = policy::stale_use(&entry.control, stale_ms, settings.stale_if_error_s).if_error
            || (answer.is_ok() && is_fresh_yet(&entry, stale_ms, now));
        let wanted = !validate::has_precondition(&self.headers) || validate::fulfils(&self.headers, entry.fields());
        if !usable || !wanted || question.facts.no_store {
            return answer.map(Judged::Answer).map_err(|error| unconfirmed(error, Some(&entry)));
        }
        trail.cached(CacheResult::Stale);
        let say = respond::because(&entry, Detail::IfError, now);
        Ok(Judged::Stale(respond::from_entry(path, &entry, &self.headers, trail, say, now)))
    }

    /// Freshens what is stored in memory, or drops what is stored at all. (What the disk had before the upstream was asked may have been made invalid since.)
    fn of_head(self, path: &RequestPath, question: &Question, aim: &Aim, head: &HeaderMap) {
        let now = path.now();
        let (Found::Fresh(entry, _) | Found::Stale(entry, ..)) = question.find(path, &self.headers, now) else { return };
        if entry.part().is_some() || entry.status != StatusCode::OK {
            return;
        }
        if !validate::head_confirms(head, entry.fields()) || entry.variant.changed_by(head).is_some() {
            path.cache().invalidate(&question.key);
            return;
        }
        let freshened = freshened(aim, &entry, head, (self.requested, now), self.stamp);
        if freshened.control.no_store || freshened.control.private || self.facts_refuse(question) {
            return;
        }
        path.cache().replace(question.key.as_bytes(), &entry, Arc::new(freshened));
    }

    /// An authorized answer is one client's own, and one to `no-store` leaves no trace.
    fn facts_refuse(&self, question: &Question) -> bool {
        question.facts.authorized || question.facts.no_store
    }

    /// Stores the response for GET as it passes, if it says that it is what GET would get, and for how long.
    fn of_post(
        self,
        path: &Arc<RequestPath>,
        question: &Question,
        aim: &Aim,
        context: &Context,
        response: Response<Body>,
    ) -> Response<Body> {
        let settings = &aim.route.cache;
        let own = response.headers().get(CONTENT_LOCATION).and_then(|named| same_authority(named, context));
        if own.as_deref() != Some(context.target.as_str())
            || query::name(&settings.query, context.target.as_str()) != context.target.as_str()
        {
            return response;
        }
        let (received, headers) = (path.now(), response.headers());
        let explicit = Freshness::of(headers, &Control::of_response(headers), self.requested, received).is_some();
        let verdict = policy::may_store(question.facts, response.status(), headers, settings, self.requested, received);
        let differs = settings.deception_check && deception::differs(context.target.path(), headers);
        let (Ok(storable), true, false) = (verdict, explicit, differs) else { return response };
        // A fetch like others, though nobody follows it: what invalidates the key while the client reads takes this back too.
        let Duty::Fetch(obligation, _) = path.cache().enter(&question.key, &Hint::default(), &self.headers, Company::Alone, aim.realm())
        else {
            return response;
        };
        let (head, body) = response.into_parts();
        let variant = storable.vary.variant(&self.headers);
        let passing = Passing {
            body,
            chunks: Vec::new(),
            held: 0,
            bytes_max: settings.entry_bytes_max,
            share: path.cache().share(),
            keep: Some(Keep { path: path.clone(), obligation, head: head.clone(), variant, storable, stamp: self.stamp }),
        };
        Response::from_parts(head, Body::stream(passing))
    }
}

/// What is needed to store a response when its body has passed.
struct Keep {
    path: Arc<RequestPath>,
    obligation: Obligation,
    head: response::Parts,
    variant: Variant,
    storable: Storable,
    stamp: Stamp,
}

impl Keep {
    fn store(self, chunks: &[Bytes]) {
        let body = self.path.cache().counted(StoredBody::new(chunks));
        if policy::stated_length(&self.head.headers).is_some_and(|stated| stated != body.len()) {
            return;
        }
        let cache = self.path.cache();
        let welcome = cache.welcome(&self.obligation, Some(body.len()), u64::MAX, u64::MAX);
        let entry = Entry::of(self.head, body, self.storable, self.variant, self.stamp);
        cache.fulfil(&self.obligation, Arc::new(entry), welcome);
    }
}

/// A body that is stored when all of it has gone to the client, at the client's pace.
struct Passing {
    body: Body,
    chunks: Vec<Bytes>,
    held: u64,
    bytes_max: u64,
    share: Share,
    keep: Option<Keep>,
}

impl HttpBody for Passing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref().filter(|_| self.keep.is_some()) {
                    self.held += data.len() as u64 + FILL_CHUNK_OVERHEAD_BYTES;
                    let (held, copy) = (self.held, Bytes::copy_from_slice(data));
                    self.chunks.push(copy);
                    if held > self.bytes_max || !self.share.hold(held) {
                        self.let_go();
                    }
                }
                self.end_if_whole();
            }
            Some(Err(_)) => self.let_go(),
            None => self.end(),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Passing {
    /// Whoever knows the length does not poll past the last byte.
    fn end_if_whole(&mut self) {
        if self.body.is_end_stream() {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some(keep) = self.keep.take() {
            keep.store(&self.chunks);
        }
        self.let_go();
    }

    /// Nothing is held any more, however long the client still takes.
    fn let_go(&mut self) {
        (self.keep, self.chunks) = (None, Vec::new());
        self.share.hold(0);
    }
}
