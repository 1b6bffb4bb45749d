//! Compression on the fly, for clients' requests only: what has no coding yet gets one that the client accepts, by the route's settings.
//!
//! - What is stored is stored as it came. The first client that wants a coding has it made, and the coded bytes stay with the entry: in memory, within the cache's
//!   weight, gone when the entry goes (purged, replaced, evicted), kept when a `304` confirms it. A hit never compresses twice.
//! - While something is being fetched or compressed, all who want the same coding follow one compressor ([`shared`]), as they follow one fetch.
//! - What is not for the cache is compressed for its one client ([`body`]).
//!
//! Compression tells the length of secrets that stand beside what an attacker can put into the same answer (BREACH, CVE-2013-3587): a route whose pages
//! reflect input beside secrets turns it off, or sends `no-transform`.

mod body;
pub(in crate::request) mod encoder;
mod shared;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::Body as HttpBody;
use selvedge_origin::registry::Coding;
use selvedge_runtime::Body;
use tokio::sync::Semaphore;

use super::RequestPath;
use super::lookup::Question;
use super::respond::{self, Say};
use super::route::Aim;
use super::trail::Trail;
use crate::cache::coding::{encodable, encode_fields, offer, wanted};
use crate::cache::entry::{Encoding, Entry, StoredBody};
use crate::cache::fill::{Reader, StreamHead};
use crate::cache::policy::stated_length;
use crate::cache::time::Time;
use crate::cache::validate::client_has;
use crate::limits::{COMPRESS_AT_ONCE_BYTES_MAX, COMPRESSORS_MAX};
use crate::listen::Reply;
use crate::metrics::Metrics;
use body::Encoded;
use encoder::Encoder;

/// Places for compressors: each holds memory and much of a processor.
pub(super) struct Compressors {
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Compressors {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { places: Arc::new(Semaphore::new(COMPRESSORS_MAX)), metrics }
    }

    /// A compressor for a body of `length` bytes, where that is known; none where all places are taken: the client then gets the body as it is.
    fn begin(&self, coding: Coding, length: Option<u64>) -> Option<Encoder> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        self.metrics.compressions.add(1);
        Encoder::new(coding, length, place).inspect_err(|error| tracing::error!(%error, coding = coding.name(), "no compressor")).ok()
    }
}

/// What is asked, as far as it decides about coding.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) aim: &'a Aim,
    pub(super) headers: &'a HeaderMap,
    pub(super) trail: &'a Trail,
}

impl Asked<'_> {
    /// The coding that the client wants. A worker that asks this node wants none: it would have to undo it.
    pub(super) fn wanted(&self) -> Option<Coding> {
        if self.trail.is_clients() { wanted(&self.aim.route.compress, self.headers) } else { None }
    }
}

/// What will be stored says that it comes in several codings, whoever asks for it first.
pub(super) fn prepare(aim: &Aim, status: http::StatusCode, headers: &mut HeaderMap, length: Option<u64>) {
    if encodable(&aim.route.compress, status, headers, length) {
        offer(headers);
    }
}

/// Which stored response the client gets, where nothing has to be made for it; else the coding in which it has to be made.
fn at_hand<'a>(asked: Asked<'_>, entry: &'a Arc<Entry>) -> Result<&'a Arc<Entry>, Coding> {
    let Some(coding) = asked.wanted() else { return Ok(entry) };
    match entry.encoding(coding) {
        Some(Encoding::Smaller(coded)) => Ok(coded),
        Some(Encoding::NotSmaller) => Ok(entry),
        None if encodable(&asked.aim.route.compress, entry.status, entry.fields(), Some(entry.body.len())) => Err(coding),
        None => Ok(entry),
    }
}

/// A hit that is fresh for so many milliseconds more, in the coding that the client wants: as it is stored, where that is possible.
pub(super) async fn fresh(
    path: &Arc<RequestPath>,
    question: &Question,
    asked: Asked<'_>,
    entry: &Arc<Entry>,
    left_ms: u64,
    now: Time,
) -> Reply {
    match at_hand(asked, entry).ok().and_then(|entry| respond::ready(path, entry, asked, left_ms, now)) {
        Some(ready) => ready.into(),
        None => stored(path, question, asked, entry, respond::fresh(left_ms), now).await.into(),
    }
}

/// The response from a stored entry, in the coding that the client wants.
pub(super) async fn stored(
    path: &Arc<RequestPath>,
    question: &Question,
    asked: Asked<'_>,
    entry: &Arc<Entry>,
    say: Say,
    now: Time,
) -> Response<Body> {
    let respond = |entry: &Entry, say: Say| respond::from_entry(path, entry, asked.headers, asked.trail, say, now);
    let coding = match at_hand(asked, entry) {
        Ok(entry) => return respond(entry, say),
        Err(coding) => coding,
    };
    let head = entry.coded(coding, None);
    if asked.trail.context.method == Method::HEAD || (entry.status == StatusCode::OK && client_has(asked.headers, head.fields())) {
        // Nothing of the body is sent, so there is nothing to compress.
        return respond(&head, say);
    }
    if entry.body.len() <= COMPRESS_AT_ONCE_BYTES_MAX {
        // Another may have made it since this one got its entry.
        let known = path.cache().encoding(question.key.as_bytes(), entry, coding);
        let encoding = match known {
            Some(known) => known,
            None => {
                let Some(made) = at_once(path, entry, coding).await else { return respond(entry, say) };
                path.cache().keep_encoding(question.key.as_bytes(), entry, coding, &made);
                made
            }
        };
        return match &encoding {
            Encoding::Smaller(coded) => respond(coded, say),
            Encoding::NotSmaller => respond(entry, say),
        };
    }
    match shared::of_entry(path, question, asked.aim, entry, coding).await {
        Some(reader) => respond(&head, say).map(|_| reader.into_body(None)),
        None => respond(entry, say),
    }
}

/// The response from what is being fetched into the cache, in the coding that the client wants.
pub(super) async fn streaming(
    path: &Arc<RequestPath>,
    question: &Question,
    asked: Asked<'_>,
    stream: &Arc<StreamHead>,
    reader: Reader,
    cache_status: HeaderValue,
) -> Response<Body> {
    let plain = |reader: Reader, status| respond::from_stream(stream, reader, asked.headers, asked.trail, status);
    let Some(coding) = asked.wanted() else { return plain(reader, cache_status) };
    // What is kept from others is not put into bytes and heads that all share.
    if !stream.withheld.is_empty() || !encodable(&asked.aim.route.compress, stream.head.status, &stream.head.headers, stream.length) {
        return plain(reader, cache_status);
    }
    if let Some(entry) = reader.stored() {
        return stored(path, question, asked, &entry, Say::As(cache_status), path.now()).await;
    }
    match shared::of_stream(path, question, asked.aim, stream, reader, coding).await {
        Ok((head, coded)) => respond::from_stream(&head, coded, asked.headers, asked.trail, cache_status),
        Err(reader) => plain(reader, cache_status),
    }
}

/// A response that is not for the cache, in the coding that its client wants.
pub(super) fn private(path: &RequestPath, asked: Asked<'_>, response: Response<Body>) -> Response<Body> {
    one(path, asked.aim, asked.wanted(), asked.trail, response)
}

/// The same, where the request's fields have gone on: `coding` is what [`Asked::wanted`] said.
pub(super) fn one(path: &RequestPath, aim: &Aim, coding: Option<Coding>, trail: &Trail, mut response: Response<Body>) -> Response<Body> {
    if !trail.is_clients() {
        return response;
    }
    let is_head = trail.context.method == Method::HEAD;
    let length = match is_head {
        true => stated_length(response.headers()),
        false => response.body().size_hint().exact(),
    };
    if !encodable(&aim.route.compress, response.status(), response.headers(), length) {
        return response;
    }
    offer(response.headers_mut());
    let Some(coding) = coding else { return response };
    if is_head {
        encode_fields(response.headers_mut(), coding);
        return response;
    }
    let Some(encoder) = path.compressors().begin(coding, length) else { return response };
    match response.body().as_whole().filter(|whole| whole.len() as u64 <= COMPRESS_AT_ONCE_BYTES_MAX) {
        Some(whole) => {
            let Some(coded) = compress(encoder, &whole).filter(|coded| coded.len() < whole.len()) else { return response };
            encode_fields(response.headers_mut(), coding);
            response.headers_mut().insert(CONTENT_LENGTH, coded.len().into());
            response.map(|_| Body::full(coded))
        }
        None => {
            encode_fields(response.headers_mut(), coding);
            response.map(|plain| Encoded::body(plain, encoder))
        }
    }
}

/// A small stored body in a coding. None where no compressor is free.
async fn at_once(path: &RequestPath, entry: &Entry, coding: Coding) -> Option<Encoding> {
    let encoder = path.compressors().begin(coding, Some(entry.body.len()))?;
    let plain = entry.body.whole().collect(COMPRESS_AT_ONCE_BYTES_MAX).await.ok()?;
    Some(match compress(encoder, &plain)? {
        coded if coded.len() < plain.len() => {
            Encoding::Smaller(Arc::new(entry.coded(coding, Some(path.cache().counted(StoredBody::new(&[coded]))))))
        }
        _ => Encoding::NotSmaller,
    })
}

fn compress(mut encoder: Encoder, plain: &Bytes) -> Option<Bytes> {
    encoder.write(plain).ok()?;
    encoder.finish().ok()
}
