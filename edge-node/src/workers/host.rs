//! What a worker can reach: the capabilities of one invocation. Every check is here, in Rust.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{CONTENT_LENGTH, HOST};
use http::{Request, Response, Uri};
use selvedge_runtime::{
    Body, CacheAnswer, CacheAsk, CachePurge, FetchCache, FetchError, Fetched, Host, LogLine, PurgeRefusal, Redirect, Report, Subrequest,
};
use tokio::time::Instant;

use super::log;
use super::redirect::{Resend, redirection};
use crate::limits::REDIRECTS_MAX;
use crate::request::{CacheAsking, Inside, RequestError, RequestPath, RequestTrail, Wish, WorkerLine, resolve, strip_hop};
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
            place: Some(line.place).filter(|place| !place.is_empty()),
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
                    RequestError::Upstream(error) | RequestError::Unconfirmed(error) => {
                        FetchError { message: format!("fetch failed: {error}") }
                    }
                    error => refuse(&url, &error.to_string()),
                })
            }
        }
    }
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
