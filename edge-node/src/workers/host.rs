//! What a worker can reach: the capabilities of one invocation. Every check is here, in Rust.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, COOKIE, HOST, HeaderMap, LOCATION,
};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use selvedge_runtime::{
    Body, CacheAnswer, CacheAsk, CachePurge, FetchCache, FetchError, Fetched, Host, LogLine, PurgeRefusal, Redirect, Report, Subrequest,
};
use tokio::time::Instant;

use super::log;
use crate::limits::REDIRECTS_MAX;
use crate::request::{CacheAsking, Inside, RequestError, RequestPath, RequestTrail, Wish, WorkerLine, strip_hop};
use crate::routes::ActiveWorker;

/// The capabilities of one invocation.
pub(crate) struct WorkerHost(Arc<Capabilities>);

struct Capabilities {
    path: Arc<RequestPath>,
    trail: Arc<RequestTrail>,
    worker: Arc<ActiveWorker>,
    version: Arc<str>,
    /// `passThroughOnException()` was called.
    passes_through: AtomicBool,
}

impl WorkerHost {
    pub(crate) fn new(path: Arc<RequestPath>, trail: Arc<RequestTrail>, worker: Arc<ActiveWorker>, version: Arc<str>) -> Self {
        Self(Arc::new(Capabilities { path, trail, worker, version, passes_through: AtomicBool::new(false) }))
    }

    /// Whether a failure of the worker is to be passed on to who answers in its place.
    pub(crate) fn passes_through(&self) -> bool {
        self.0.passes_through.load(Relaxed)
    }
}

impl Host for WorkerHost {
    fn fetch(&self, subrequest: Subrequest) -> BoxFuture<'static, Result<Fetched, FetchError>> {
        let capabilities = self.0.clone();
        async move { capabilities.follow(subrequest).await }.boxed()
    }

    fn cache(&self, ask: CacheAsk) -> BoxFuture<'static, Result<CacheAnswer, FetchError>> {
        let capabilities = self.0.clone();
        async move {
            let Capabilities { path, trail, worker, .. } = &*capabilities;
            path.worker_cache(CacheAsking { worker: &worker.name, realm: worker.realm, trail }, ask).await
        }
        .boxed()
    }

    fn purge(&self, purge: CachePurge) -> BoxFuture<'static, Result<(), PurgeRefusal>> {
        let capabilities = self.0.clone();
        async move {
            let Capabilities { path, worker, .. } = &*capabilities;
            let made = path.purger().submit(&worker.name, purge).await;
            made.map(drop).map_err(|error| {
                tracing::debug!(worker = %worker.name, %error, "a worker's purge is refused");
                error.refusal()
            })
        }
        .boxed()
    }

    fn pass_through(&self) {
        self.0.passes_through.store(true, Relaxed);
    }

    fn log(&self, line: LogLine) {
        let Some(dropped) = self.0.worker.log_budget().take(Instant::now()) else { return };
        let line = log::cut(line);
        let line = WorkerLine {
            worker: self.0.worker.name.clone(),
            version: self.0.version.clone(),
            request_id: self.0.trail.context.id(),
            level: line.level,
            message: line.message,
            exception: line.exception,
        };
        log::write(&line, dropped);
        self.0.path.observers().iter().for_each(|observer| observer.worker_line(&line));
    }

    fn finished(&self, report: Report) {
        self.0.trail.reported(report);
    }
}

impl Capabilities {
    /// One `fetch()`: its request, and those of the redirects that it follows, each checked like the first.
    async fn follow(&self, subrequest: Subrequest) -> Result<Fetched, FetchError> {
        let Subrequest { mut request, redirect, cache, redirects_max } = subrequest;
        let mut redirects = 0;
        loop {
            let again = match redirect {
                Redirect::Follow => Resend::of(&request),
                Redirect::Manual | Redirect::Error => None,
            };
            let url = request.uri().clone();
            let response = self.send(request, cache.as_deref()).await?;
            let Some(location) = redirection(&response) else { return Ok(fetched(response, &url, redirects)) };
            match redirect {
                Redirect::Manual => return Ok(fetched(response, &url, redirects)),
                Redirect::Error => return Err(refuse(&url, "redirects, and redirect is \"error\"")),
                Redirect::Follow => {}
            }
            if redirects == REDIRECTS_MAX {
                return Err(refuse(&url, "redirects more than 20 times"));
            }
            if redirects == redirects_max {
                return Err(refuse(&url, "redirects more often than the limit of subrequests allows"));
            }
            redirects += 1;
            let next = resolve(&url, location).ok_or_else(|| refuse(&url, "redirects to what is no http or https address"))?;
            let status = response.status();
            drop(response);
            request =
                again.and_then(|again| again.to(next, status)).ok_or_else(|| refuse(&url, "redirects a body that cannot be sent twice"))?;
        }
    }

    /// One request, to where its address belongs.
    async fn send(&self, mut request: Request<Body>, wishes: Option<&FetchCache>) -> Result<Response<Body>, FetchError> {
        let url = request.uri().clone();
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.authority().is_none() {
            return Err(refuse(&url, "is no http or https address"));
        }
        // The name is the address's; framing follows from the body, not from what the worker says of it.
        for name in [HOST, CONTENT_LENGTH] {
            request.headers_mut().remove(name);
        }
        strip_hop(request.headers_mut());
        let own = &self.trail.context;
        let asked = own.asks(&request);
        let wish =
            |wishes: &FetchCache| Arc::new(Wish { worker: self.worker.name.clone(), realm: self.worker.realm, asked: wishes.clone() });
        match self.path.inside(&asked, own, &self.worker.name) {
            Inside::Behind(route) => {
                let answer = self.path.serve_behind(request, asked.counted(), &route, &self.worker.name, wishes.map(wish), &self.trail);
                Box::pin(answer).await.map_err(|error| refuse(&url, &error.to_string()))
            }
            // What is behind another route is its owner's to keep.
            Inside::Other => Ok(Box::pin(self.path.serve_nested(request, asked.counted(), &self.trail)).await),
            Inside::Outside => {
                let wish = wish(wishes.unwrap_or(&FetchCache::default()));
                let answer = self.path.serve_outside(request, asked, wish, &self.trail);
                Box::pin(answer).await.map_err(|error| match error {
                    RequestError::Upstream(error) => FetchError { message: format!("fetch failed: {error}") },
                    error => refuse(&url, &error.to_string()),
                })
            }
        }
    }
}

/// What of a request is sent again after a redirect.
struct Resend {
    method: Method,
    from: Uri,
    headers: HeaderMap,
    body: Option<bytes::Bytes>,
}

impl Resend {
    fn of(request: &Request<Body>) -> Option<Self> {
        let (method, from) = (request.method().clone(), request.uri().clone());
        Some(Self { method, from, headers: request.headers().clone(), body: request.body().as_whole() })
    }

    /// The Fetch standard, "HTTP-redirect fetch": 303 becomes GET, and so does a POST by 301 or 302; the credentials of one origin are not another's. None: the body
    /// was a stream, and is gone.
    fn to(mut self, next: Uri, status: StatusCode) -> Option<Request<Body>> {
        let to_get = match status.as_u16() {
            303 => self.method != Method::GET && self.method != Method::HEAD,
            301 | 302 => self.method == Method::POST,
            _ => false,
        };
        if to_get {
            self.method = Method::GET;
            self.body = Some(bytes::Bytes::new());
            for name in [CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_TYPE, CONTENT_LENGTH] {
                self.headers.remove(name);
            }
        }
        if next.scheme() != self.from.scheme() || next.authority() != self.from.authority() {
            for name in [AUTHORIZATION, COOKIE] {
                self.headers.remove(name);
            }
        }
        let mut request = Request::new(Body::full(self.body?));
        *request.method_mut() = self.method;
        *request.uri_mut() = next;
        *request.headers_mut() = self.headers;
        Some(request)
    }
}

/// Where a response redirects to.
fn redirection(response: &Response<Body>) -> Option<&HeaderValue> {
    matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308).then(|| response.headers().get(LOCATION)).flatten()
}

/// A `Location` against the address that it came from (RFC 3986, section 5.2): absolute, or with an absolute path, or relative to the last `/`.
fn resolve(base: &Uri, location: &HeaderValue) -> Option<Uri> {
    let location = location.to_str().ok()?;
    let location = location.split('#').next().unwrap_or_default();
    let scheme_end = location.find(':').unwrap_or(0);
    let has_scheme =
        scheme_end > 0 && location.bytes().take(scheme_end).all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    let absolute = if has_scheme {
        location.to_owned()
    } else {
        let (scheme, authority) = (base.scheme_str()?, base.authority()?);
        if location.starts_with("//") {
            format!("{scheme}:{location}")
        } else if location.starts_with('/') {
            format!("{scheme}://{authority}{location}")
        } else if location.starts_with('?') {
            format!("{scheme}://{authority}{}{location}", base.path())
        } else if location.is_empty() {
            base.to_string()
        } else {
            let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{scheme}://{authority}{}", without_dots(&format!("{folder}/{location}")))
        }
    };
    let uri: Uri = absolute.parse().ok()?;
    let named = uri.authority().is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
    (matches!(uri.scheme_str(), Some("http" | "https")) && named).then_some(uri)
}

/// RFC 3986, section 5.2.4, on the path before a query.
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    let path = format!("/{}", kept.join("/"));
    query.map_or(path.clone(), |query| format!("{path}?{query}"))
}

fn fetched(response: Response<Body>, url: &Uri, redirects: u32) -> Fetched {
    Fetched { response, url: url.to_string(), redirects }
}

/// Names the address without its query, which may hold secrets of whoever calls.
fn refuse(url: &Uri, reason: &str) -> FetchError {
    let scheme = url.scheme_str().unwrap_or_default();
    let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    FetchError { message: format!("fetch failed: {scheme}://{authority}{}: {reason}", url.path()) }
}

/// For tests/fuzz: any bytes as a `Location`.
pub fn fuzz(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let base = Uri::from_static("https://a.org/b/c?d");
    if let Some(uri) = resolve(&base, &value) {
        assert!(uri.scheme().is_some() && uri.authority().is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_resolve_against_where_they_came_from() {
        let base = Uri::from_static("https://a.org/b/c?d");
        for (location, expected) in [
            ("http://x.org/y", Some("http://x.org/y")),
            ("//x.org/y", Some("https://x.org/y")),
            ("/y?z#f", Some("https://a.org/y?z")),
            ("y", Some("https://a.org/b/y")),
            ("../y", Some("https://a.org/y")),
            ("./y/../z?q", Some("https://a.org/b/z?q")),
            ("?q", Some("https://a.org/b/c?q")),
            ("", Some("https://a.org/b/c?d")),
            ("y?u=http://e.org", Some("https://a.org/b/y?u=http://e.org")),
            ("ftp://x.org/", None),
            ("https://user@x.org/", None),
            ("https:///x", None),
        ] {
            let found = resolve(&base, &HeaderValue::from_static(location)).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn redirects_change_method_and_keep_credentials_at_home() {
        let request = |method: &str| {
            let builder =
                Request::builder().method(method).uri("https://a.org/").header("authorization", "s").header("content-type", "a/b");
            Resend::of(&builder.body(Body::full("body")).expect("a request")).expect("it")
        };
        let next = Uri::from_static("https://b.org/");
        let sent = request("POST").to(next.clone(), StatusCode::FOUND).expect("it");
        assert_eq!((sent.method(), sent.headers().len()), (&Method::GET, 0));
        let sent = request("PUT").to(Uri::from_static("https://a.org/x"), StatusCode::TEMPORARY_REDIRECT).expect("it");
        assert_eq!((sent.method(), sent.headers().len(), sent.body().as_whole().expect("whole").len()), (&Method::PUT, 2, 4));
        let sent = request("PUT").to(next, StatusCode::SEE_OTHER).expect("it");
        assert_eq!(sent.method(), Method::GET);
    }
}
