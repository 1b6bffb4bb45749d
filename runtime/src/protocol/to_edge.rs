//! The frames from a runner's thread to the edge: a hostile party, once a worker has broken out of V8.

use bytes::BytesMut;
use http::StatusCode;

use super::decode::{Decode, Memo, ProtocolError};
use super::encode::{BodyRef, Encode, EncodeError};
use super::reader::Reader;
use super::to_runner::{read_outcome, read_request, read_response};
use super::writer::Writer;
use super::{
    CACHE_KEY_BYTES_MAX, CACHE_NAME_BYTES_MAX, CHUNK_BYTES_MAX, CacheCallHead, CacheHead, FETCH_CACHE_BYTES_MAX, METHOD_BYTES_MAX,
    NAME_BYTES_MAX, PURGE_BYTES_MAX, StreamId, ToEdge, URL_BYTES_MAX,
};
use crate::{CachePurge, FetchCache, LogLevel, Redirect};

const HELLO: u8 = 1;
const LOADED: u8 = 2;
const GONE: u8 = 3;
const BOUNCED: u8 = 4;
const RESPONSE: u8 = 5;
const BODY_DATA: u8 = 6;
const BODY_END: u8 = 7;
const CREDIT: u8 = 8;
const FETCH: u8 = 9;
const ABANDON: u8 = 10;
const LOG: u8 = 11;
const FAILED: u8 = 12;
const DONE: u8 = 13;
const STUCK: u8 = 14;
const CACHE: u8 = 15;
const PASS_THROUGH: u8 = 16;
const PURGE: u8 = 17;
const STAYS: u8 = 18;

impl Encode for ToEdge {
    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        match self {
            Self::Hello { build, unsandboxed } => Writer::begin(out, HELLO).bytes("build", build.as_bytes(), NAME_BYTES_MAX).bytes(
                "unsandboxed",
                unsandboxed.as_bytes(),
                NAME_BYTES_MAX,
            ),
            Self::Loaded { slot, cpu_us, heap_bytes } => Writer::begin(out, LOADED).u32(*slot).u64(*cpu_us).u64(*heap_bytes),
            Self::Gone { slot, outcome, message } => Writer::begin(out, GONE).u32(*slot).u8(*outcome as u8).text(message),
            Self::Bounced { stream } => Writer::begin(out, BOUNCED).u32(*stream),
            Self::Response { stream, head, body } => {
                Writer::begin(out, RESPONSE).u32(*stream).u16(head.status.as_u16()).headers(&head.headers).body(body.into())
            }
            Self::BodyData { stream, part, bytes } => {
                Writer::begin(out, BODY_DATA).u32(*stream).u32(*part).bytes("body", bytes, CHUNK_BYTES_MAX)
            }
            Self::BodyEnd { stream, part, error } => Writer::begin(out, BODY_END).u32(*stream).u32(*part).maybe_text(error.as_deref()),
            Self::Credit { stream, part, bytes } => Writer::begin(out, CREDIT).u32(*stream).u32(*part).u32(*bytes),
            Self::Fetch { stream, part, head, redirect, cache, body } => {
                let frame = Writer::begin(out, FETCH)
                    .u32(*stream)
                    .u32(*part)
                    .bytes("method", head.method.as_str().as_bytes(), METHOD_BYTES_MAX)
                    .bytes("url", head.url.as_bytes(), URL_BYTES_MAX)
                    .headers(&head.headers)
                    .u8(redirect_number(*redirect));
                write_wishes(frame, cache.as_deref())?.body(body.into())
            }
            Self::Cache { stream, part, ask } => write_cache(Writer::begin(out, CACHE).u32(*stream).u32(*part), ask),
            Self::Purge { stream, part, purge } => {
                let json = serde_json::to_vec(purge).map_err(|_| EncodeError { field: "purge", len: 0, max: 0 })?;
                Writer::begin(out, PURGE).u32(*stream).u32(*part).bytes("purge", &json, PURGE_BYTES_MAX)
            }
            Self::PassThrough { stream } => Writer::begin(out, PASS_THROUGH).u32(*stream),
            Self::Stays { stream } => Writer::begin(out, STAYS).u32(*stream),
            Self::Abandon { stream, part } => Writer::begin(out, ABANDON).u32(*stream).u32(*part),
            Self::Log { stream, slot, level, message, exception, place } => {
                let line = Writer::begin(out, LOG).u32(*stream).u32(*slot).u8(*level as u8).u8(u8::from(*exception));
                line.text(message).text(place)
            }
            Self::Failed { stream, outcome, message } => Writer::begin(out, FAILED).u32(*stream).u8(*outcome as u8).text(message),
            Self::Done { stream, outcome, cpu_us, heap_bytes } => {
                Writer::begin(out, DONE).u32(*stream).u8(*outcome as u8).u64(*cpu_us).u64(*heap_bytes)
            }
            Self::Stuck { stream, slot, outcome } => Writer::begin(out, STUCK).u32(*stream).u32(*slot).u8(*outcome as u8),
        }
        .finish()
    }
}

pub(super) fn write_response<'a>(
    out: &mut BytesMut,
    stream: StreamId,
    status: StatusCode,
    fields: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
    body: BodyRef<'_>,
) -> Result<(), EncodeError> {
    Writer::begin(out, RESPONSE).u32(stream).u16(status.as_u16()).fields(fields.len(), fields).body(body).finish()
}

impl Decode for ToEdge {
    #[allow(private_interfaces, reason = "see Decode")]
    fn decode(mut frame: Reader<'_>, _memo: &mut Memo) -> Result<Self, ProtocolError> {
        let message = match frame.u8()? {
            HELLO => {
                Self::Hello { build: frame.string("build", NAME_BYTES_MAX)?, unsandboxed: frame.string("unsandboxed", NAME_BYTES_MAX)? }
            }
            LOADED => Self::Loaded { slot: frame.u32()?, cpu_us: frame.u64()?, heap_bytes: frame.u64()? },
            GONE => Self::Gone { slot: frame.u32()?, outcome: read_outcome(&mut frame)?, message: frame.text()? },
            BOUNCED => Self::Bounced { stream: frame.stream()? },
            RESPONSE => {
                Self::Response { stream: frame.stream()?, head: Box::new(read_response(&mut frame, Reader::headers)?), body: frame.body()? }
            }
            BODY_DATA => Self::BodyData { stream: frame.stream()?, part: frame.u32()?, bytes: frame.bytes("body", CHUNK_BYTES_MAX)? },
            BODY_END => Self::BodyEnd { stream: frame.stream()?, part: frame.u32()?, error: frame.maybe_text()? },
            CREDIT => Self::Credit { stream: frame.stream()?, part: frame.u32()?, bytes: frame.u32()? },
            FETCH => Self::Fetch {
                stream: frame.stream()?,
                part: frame.u32()?,
                head: Box::new(read_request(&mut frame, Reader::headers)?),
                redirect: read_redirect(frame.u8()?)?,
                cache: read_wishes(&mut frame)?,
                body: frame.body()?,
            },
            CACHE => Self::Cache { stream: frame.stream()?, part: frame.u32()?, ask: Box::new(read_cache(&mut frame)?) },
            PURGE => Self::Purge { stream: frame.stream()?, part: frame.u32()?, purge: Box::new(read_purge(&mut frame)?) },
            PASS_THROUGH => Self::PassThrough { stream: frame.stream()? },
            STAYS => Self::Stays { stream: frame.stream()? },
            ABANDON => Self::Abandon { stream: frame.stream()?, part: frame.u32()? },
            LOG => read_log(&mut frame)?,
            FAILED => Self::Failed { stream: frame.stream()?, outcome: read_outcome(&mut frame)?, message: frame.text()? },
            DONE => {
                Self::Done { stream: frame.stream()?, outcome: read_outcome(&mut frame)?, cpu_us: frame.u64()?, heap_bytes: frame.u64()? }
            }
            STUCK => Self::Stuck { stream: frame.u32()?, slot: frame.u32()?, outcome: read_outcome(&mut frame)? },
            number => return Err(ProtocolError::UnknownNumber { field: "tag", number }),
        };
        frame.finish(message)
    }
}

fn read_log(frame: &mut Reader<'_>) -> Result<ToEdge, ProtocolError> {
    let (stream, slot) = (frame.u32()?, frame.u32()?);
    let level = match frame.u8()? {
        0 => LogLevel::Debug,
        1 => LogLevel::Log,
        2 => LogLevel::Info,
        3 => LogLevel::Warn,
        4 => LogLevel::Error,
        number => return Err(ProtocolError::UnknownNumber { field: "level", number }),
    };
    let exception = match frame.u8()? {
        0 => false,
        1 => true,
        number => return Err(ProtocolError::UnknownNumber { field: "exception", number }),
    };
    Ok(ToEdge::Log { stream, slot, level, message: frame.text()?, exception, place: frame.text()? })
}

fn write_wishes<'a>(frame: Writer<'a>, wishes: Option<&FetchCache>) -> Result<Writer<'a>, EncodeError> {
    let Some(wishes) = wishes else { return Ok(frame.u8(0)) };
    let json = serde_json::to_vec(wishes).map_err(|_| EncodeError { field: "cf", len: 0, max: 0 })?;
    Ok(frame.u8(1).bytes("cf", &json, FETCH_CACHE_BYTES_MAX))
}

fn read_wishes(frame: &mut Reader<'_>) -> Result<Option<Box<FetchCache>>, ProtocolError> {
    match frame.u8()? {
        0 => Ok(None),
        1 => {
            let json = frame.slice("cf", FETCH_CACHE_BYTES_MAX)?;
            FetchCache::read(json).map(|wishes| Some(Box::new(wishes))).map_err(|_| ProtocolError::Malformed { field: "cf" })
        }
        number => Err(ProtocolError::UnknownNumber { field: "cf", number }),
    }
}

fn write_cache<'a>(frame: Writer<'a>, ask: &CacheHead) -> Writer<'a> {
    let frame = match &ask.name {
        None => frame.u8(0),
        Some(name) => frame.u8(1).bytes("cache name", name.as_bytes(), CACHE_NAME_BYTES_MAX),
    };
    let frame = frame.bytes("key", ask.url.as_bytes(), CACHE_KEY_BYTES_MAX).headers(&ask.headers);
    match &ask.call {
        CacheCallHead::Match => frame.u8(0),
        CacheCallHead::Put(head, body) => frame.u8(1).u16(head.status.as_u16()).headers(&head.headers).body(body.into()),
        CacheCallHead::Delete => frame.u8(2),
    }
}

fn read_cache(frame: &mut Reader<'_>) -> Result<CacheHead, ProtocolError> {
    let name = match frame.u8()? {
        0 => None,
        1 => Some(frame.string("cache name", CACHE_NAME_BYTES_MAX)?),
        number => return Err(ProtocolError::UnknownNumber { field: "cache name", number }),
    };
    let (url, headers) = (frame.string("key", CACHE_KEY_BYTES_MAX)?, frame.headers()?);
    let call = match frame.u8()? {
        0 => CacheCallHead::Match,
        1 => CacheCallHead::Put(read_response(frame, Reader::headers)?, frame.body()?),
        2 => CacheCallHead::Delete,
        number => return Err(ProtocolError::UnknownNumber { field: "cache call", number }),
    };
    Ok(CacheHead { name, url, headers, call })
}

fn read_purge(frame: &mut Reader<'_>) -> Result<CachePurge, ProtocolError> {
    let json = frame.slice("purge", PURGE_BYTES_MAX)?;
    CachePurge::read(json).map_err(|_| ProtocolError::Malformed { field: "purge" })
}

const fn redirect_number(redirect: Redirect) -> u8 {
    match redirect {
        Redirect::Follow => 0,
        Redirect::Manual => 1,
        Redirect::Error => 2,
    }
}

fn read_redirect(number: u8) -> Result<Redirect, ProtocolError> {
    Ok(match number {
        0 => Redirect::Follow,
        1 => Redirect::Manual,
        2 => Redirect::Error,
        number => return Err(ProtocolError::UnknownNumber { field: "redirect", number }),
    })
}
