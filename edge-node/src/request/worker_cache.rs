//! The caches of a worker (`caches.default`, `caches.open`): what it puts there lives in the node's cache, under keys of its own, by the same rules of freshness,
//! bounds and purges. Nobody but that worker reads it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use selvedge_origin::registry::CacheSettings;
use selvedge_runtime::{Body, CacheAnswer, CacheAsk, CacheCall, FetchError};

use super::RequestPath;
use super::fields;
use super::respond;
use super::trail::{Origin, Trail};
use crate::cache::Found;
use crate::cache::entry::{Entry, StoredBody};
use crate::cache::key::{CacheKey, Space};
use crate::cache::policy::{self, Refusal, RequestFacts};
use crate::cache::purge::Realm;
use crate::cache::vary::Vary;
use crate::limits::{FILL_CHUNK_OVERHEAD_BYTES, FILL_IDLE_TIMEOUT};
use crate::listen::Interim;

/// What code written for Cloudflare Workers reads.
const CF_CACHE_STATUS: HeaderName = HeaderName::from_static("cf-cache-status");

/// The rules for what workers put: a put is a wish to keep it, so that a response that does not say how long is kept for as long as Cloudflare keeps one of its
/// status; nothing is ever asked again for it, so that nothing is guessed and nothing is used when it is stale.
static SETTINGS: LazyLock<CacheSettings> = LazyLock::new(|| CacheSettings {
    heuristic_s_max: 0,
    status_ttl_s: BTreeMap::from([(200, 7200), (301, 7200), (302, 1200), (303, 1200), (404, 180), (410, 180)]),
    ..CacheSettings::default()
});

/// The rules for what workers put.
pub(super) fn settings() -> &'static CacheSettings {
    &SETTINGS
}

/// Who asks, and on behalf of which request.
pub(crate) struct Asking<'a> {
    pub(crate) worker: &'a str,
    pub(crate) realm: Realm,
    pub(crate) trail: &'a Trail,
}

impl RequestPath {
    /// Does one operation of a worker's cache. Dropping the future of a `put` keeps nothing.
    pub(crate) async fn worker_cache(self: &Arc<Self>, asking: Asking<'_>, ask: CacheAsk) -> Result<CacheAnswer, FetchError> {
        let CacheAsk { name, url, mut headers, call } = ask;
        // The name is the address's.
        headers.remove(HOST);
        let mut request = Request::new(());
        *request.uri_mut() = url.parse().map_err(|_| refuse("the key is no URL"))?;
        *request.headers_mut() = headers;
        let context = asking.trail.context.asks(&request);
        if context.authority.is_empty() || !matches!(request.uri().scheme_str(), Some("http" | "https")) {
            return Err(refuse("the key is no http or https URL"));
        }
        let space = Space::WorkerCache { worker: asking.worker, name: name.as_deref() };
        let key = CacheKey::new(space, context.scheme(), &context.authority, context.target.as_str());
        let headers = request.headers();
        match call {
            CacheCall::Match => {
                let Found::Fresh(entry, left_ms) = self.cache().look(&key, headers, self.now()).await else {
                    return Ok(CacheAnswer::No(None));
                };
                let trail = Trail::new(context, Origin::Refresh, asking.trail.sinks().clone(), Interim::none());
                let mut response = respond::from_entry(self, &entry, headers, &trail, respond::fresh(left_ms), self.now());
                response.headers_mut().insert(CF_CACHE_STATUS, HeaderValue::from_static("HIT"));
                Ok(CacheAnswer::Found(response))
            }
            CacheCall::Put(response) => self.put(&key, asking.realm, headers, response).await,
            CacheCall::Delete => {
                let there = !matches!(self.cache().look(&key, headers, self.now()).await, Found::Nothing(..));
                self.cache().invalidate(&key);
                Ok(if there { CacheAnswer::Yes } else { CacheAnswer::No(None) })
            }
        }
    }

    async fn put(&self, key: &CacheKey, realm: Realm, request: &HeaderMap, response: Response<Body>) -> Result<CacheAnswer, FetchError> {
        let (mut head, body) = response.into_parts();
        if head.status == StatusCode::PARTIAL_CONTENT {
            return Err(refuse("Cannot cache response to a range request (206 Partial Content)."));
        }
        if Vary::of(&head.headers) == Vary::Anything {
            return Err(refuse("Cannot cache response with 'Vary: *' header."));
        }
        fields::strip_hop(&mut head.headers);
        head.headers.remove(CONTENT_LENGTH);
        let (stamp, now) = (self.cache().purges().stamp(realm), self.now());
        // Whose request it was to begin with is for the worker to judge.
        let facts = RequestFacts { no_store: false, authorized: false };
        let storable = match policy::may_store(facts, head.status, &head.headers, &SETTINGS, now, now) {
            Ok(storable) => storable,
            Err(refusal) => {
                self.cache().refusals().note(key.as_bytes(), refusal, now);
                return Ok(CacheAnswer::No(Some(refusal.name())));
            }
        };
        let pieces = self.gather(body).await?;
        let variant = storable.vary.variant(request);
        let body = self.cache().counted(StoredBody::new(&pieces));
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        let entry = Entry::of(head, body, storable, variant, stamp);
        self.cache().store(key.as_bytes(), Arc::new(entry));
        Ok(CacheAnswer::Yes)
    }

    /// All of a body that is put, within the bounds of one response and of all that is on its way into the cache.
    async fn gather(&self, mut body: Body) -> Result<Vec<Bytes>, FetchError> {
        let bytes_max = SETTINGS.entry_bytes_max;
        if body.size_hint().lower() > bytes_max {
            return Err(too_large(bytes_max));
        }
        let (mut pieces, mut held) = (Vec::new(), 0);
        let mut share = self.cache().share();
        loop {
            let frame = tokio::time::timeout(FILL_IDLE_TIMEOUT, std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))).await;
            let frame = match frame {
                Err(_) => return Err(refuse("nothing was kept: the response's body stopped")),
                Ok(None) => return Ok(pieces),
                Ok(Some(Err(error))) => return Err(refuse(&format!("nothing was kept: {error}"))),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            held += data.len() as u64 + FILL_CHUNK_OVERHEAD_BYTES;
            if held > bytes_max {
                return Err(too_large(bytes_max));
            }
            if !share.hold(held) {
                return Err(refuse("nothing was kept: too much is on its way into the cache of this node"));
            }
            // A copy, so that what is kept does not pin the link's larger buffer.
            pieces.push(Bytes::copy_from_slice(&data));
        }
    }
}

fn too_large(bytes_max: u64) -> FetchError {
    refuse(&format!("nothing was kept: the response is larger than {bytes_max} bytes ({})", Refusal::TooLarge.name()))
}

fn refuse(why: &str) -> FetchError {
    FetchError { message: format!("cache: {why}") }
}
