//! The frames from the edge to a runner's thread.

use bytes::BytesMut;
use http::{Method, StatusCode};

use super::decode::{Decode, Memo, ProtocolError};
use super::encode::{Encode, EncodeError, StartParts};
use super::reader::Reader;
use super::writer::Writer;
use super::{
    CHUNK_BYTES_MAX, LOAD_HEAD_BYTES_MAX, LoadHead, METHOD_BYTES_MAX, NAME_BYTES_MAX, RequestHead, ResponseHead, SPECIFIER_BYTES_MAX,
    ToRunner, URL_BYTES_MAX,
};
use crate::{ClientInfo, ModuleKind, Outcome, PurgeRefusal};

const LOAD_BEGIN: u8 = 1;
const LOAD_MODULE: u8 = 2;
const LOAD_BYTES: u8 = 3;
const LOAD_END: u8 = 4;
const UNLOAD: u8 = 5;
const START: u8 = 6;
const BODY_DATA: u8 = 7;
const BODY_END: u8 = 8;
const CREDIT: u8 = 9;
const CANCEL: u8 = 10;
const FETCHED: u8 = 11;
const SETTLED: u8 = 12;
const PURGED: u8 = 13;

/// `request.cf.httpProtocol` by number. The first stands for what is not listed.
const HTTP_PROTOCOLS: [&str; 4] = ["HTTP/1.1", "HTTP/2", "HTTP/3", "HTTP/1.0"];
/// `request.cf.tlsVersion` by number; 0 is none.
const TLS_VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];

impl Encode for ToRunner {
    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        match self {
            Self::LoadBegin { slot, head } => {
                let json = serde_json::to_vec(head).map_err(|_| EncodeError { field: "load head", len: 0, max: 0 })?;
                Writer::begin(out, LOAD_BEGIN).u32(*slot).bytes("load head", &json, LOAD_HEAD_BYTES_MAX)
            }
            Self::LoadModule { slot, specifier, kind, bytes_len, source_map_len } => Writer::begin(out, LOAD_MODULE)
                .u32(*slot)
                .bytes("specifier", specifier.as_bytes(), SPECIFIER_BYTES_MAX)
                .u8(module_kind(*kind))
                .u64(*bytes_len)
                .u64(*source_map_len),
            Self::LoadBytes { slot, bytes } => Writer::begin(out, LOAD_BYTES).u32(*slot).bytes("module", bytes, CHUNK_BYTES_MAX),
            Self::LoadEnd { slot } => Writer::begin(out, LOAD_END).u32(*slot),
            Self::Unload { slot } => Writer::begin(out, UNLOAD).u32(*slot),
            Self::Start { stream, slot, head, client, body } => {
                let frame = Writer::begin(out, START).u32(*stream).u32(*slot);
                let frame = write_line(frame, &head.method, &[head.url.as_bytes()]).section(&head.headers);
                write_client(frame, client).body(body.into())
            }
            Self::BodyData { stream, part, bytes } => {
                Writer::begin(out, BODY_DATA).u32(*stream).u32(*part).bytes("body", bytes, CHUNK_BYTES_MAX)
            }
            Self::BodyEnd { stream, part, error } => Writer::begin(out, BODY_END).u32(*stream).u32(*part).maybe_text(error.as_deref()),
            Self::Credit { stream, part, bytes } => Writer::begin(out, CREDIT).u32(*stream).u32(*part).u32(*bytes),
            Self::Cancel { stream, outcome } => Writer::begin(out, CANCEL).u32(*stream).u8(*outcome as u8),
            Self::Settled { stream, part, yes, note } => {
                Writer::begin(out, SETTLED).u32(*stream).u32(*part).u8(u8::from(*yes)).maybe_text(note.as_deref())
            }
            Self::Purged { stream, part, refused } => {
                let frame = Writer::begin(out, PURGED).u32(*stream).u32(*part);
                match refused {
                    None => frame.u8(0),
                    Some(PurgeRefusal { code, message }) => frame.u8(1).u16(*code).text(message),
                }
            }
            Self::Fetched { stream, part, result, url, redirects } => {
                let frame = Writer::begin(out, FETCHED).u32(*stream).u32(*part);
                match result {
                    Err(message) => frame.u8(0).text(message),
                    Ok((head, body)) => frame
                        .u8(1)
                        .bytes("url", url.as_bytes(), URL_BYTES_MAX)
                        .u32(*redirects)
                        .u16(head.status.as_u16())
                        .section(&head.headers)
                        .body(body.into()),
                }
            }
        }
        .finish()
    }
}

pub(super) fn write_start(out: &mut BytesMut, parts: StartParts<'_>) -> Result<(), EncodeError> {
    let frame = Writer::begin(out, START).u32(parts.stream).u32(parts.slot);
    let scheme = parts.uri.scheme_str().unwrap_or("http").as_bytes();
    let authority = parts.uri.authority().map_or("", |authority| authority.as_str()).as_bytes();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes();
    let url: &[&[u8]] = &[scheme, b"://", authority, path];
    let frame = write_line(frame, parts.method, url).headers_and(parts.headers, parts.written);
    write_client(frame, parts.client).body(parts.body).finish()
}

fn write_line<'a>(frame: Writer<'a>, method: &Method, url: &[&[u8]]) -> Writer<'a> {
    frame.bytes("method", method.as_str().as_bytes(), METHOD_BYTES_MAX).pieces("url", url, URL_BYTES_MAX)
}

fn write_client<'a>(frame: Writer<'a>, client: &ClientInfo) -> Writer<'a> {
    let protocol = HTTP_PROTOCOLS.iter().position(|name| *name == client.http_protocol).unwrap_or(0);
    let tls = client.tls_version.and_then(|version| TLS_VERSIONS.iter().position(|name| *name == version)).map_or(0, |at| at + 1);
    frame.u8(protocol as u8).u8(tls as u8).bytes("colo", client.colo.as_bytes(), NAME_BYTES_MAX)
}

impl Decode for ToRunner {
    #[allow(private_interfaces, reason = "see Decode")]
    fn decode(mut frame: Reader<'_>, memo: &mut Memo) -> Result<Self, ProtocolError> {
        let message = match frame.u8()? {
            LOAD_BEGIN => {
                let slot = frame.u32()?;
                let json = frame.slice("load head", LOAD_HEAD_BYTES_MAX)?;
                let head: LoadHead = serde_json::from_slice(json).map_err(|_| ProtocolError::Malformed { field: "load head" })?;
                Self::LoadBegin { slot, head: Box::new(head) }
            }
            LOAD_MODULE => Self::LoadModule {
                slot: frame.u32()?,
                specifier: frame.string("specifier", SPECIFIER_BYTES_MAX)?,
                kind: read_module_kind(frame.u8()?)?,
                bytes_len: frame.u64()?,
                source_map_len: frame.u64()?,
            },
            LOAD_BYTES => Self::LoadBytes { slot: frame.u32()?, bytes: frame.bytes("module", CHUNK_BYTES_MAX)? },
            LOAD_END => Self::LoadEnd { slot: frame.u32()? },
            UNLOAD => Self::Unload { slot: frame.u32()? },
            START => Self::Start {
                stream: frame.stream()?,
                slot: frame.u32()?,
                head: Box::new(read_request(&mut frame, Reader::fields)?),
                client: read_client(&mut frame, memo)?,
                body: frame.body()?,
            },
            BODY_DATA => Self::BodyData { stream: frame.stream()?, part: frame.u32()?, bytes: frame.bytes("body", CHUNK_BYTES_MAX)? },
            BODY_END => Self::BodyEnd { stream: frame.stream()?, part: frame.u32()?, error: frame.maybe_text()? },
            CREDIT => Self::Credit { stream: frame.stream()?, part: frame.u32()?, bytes: frame.u32()? },
            CANCEL => Self::Cancel { stream: frame.stream()?, outcome: read_outcome(&mut frame)? },
            FETCHED => read_fetched(&mut frame)?,
            SETTLED => Self::Settled {
                stream: frame.stream()?,
                part: frame.u32()?,
                yes: match frame.u8()? {
                    0 => false,
                    1 => true,
                    number => return Err(ProtocolError::UnknownNumber { field: "yes", number }),
                },
                note: frame.maybe_text()?,
            },
            PURGED => Self::Purged {
                stream: frame.stream()?,
                part: frame.u32()?,
                refused: match frame.u8()? {
                    0 => None,
                    1 => Some(PurgeRefusal { code: frame.u16()?, message: frame.text()? }),
                    number => return Err(ProtocolError::UnknownNumber { field: "refused", number }),
                },
            },
            number => return Err(ProtocolError::UnknownNumber { field: "tag", number }),
        };
        frame.finish(message)
    }
}

/// `fields` reads its fields.
pub(super) fn read_request<'a, F>(
    frame: &mut Reader<'a>,
    fields: impl FnOnce(&mut Reader<'a>) -> Result<F, ProtocolError>,
) -> Result<RequestHead<F>, ProtocolError> {
    let method = Method::from_bytes(frame.slice("method", METHOD_BYTES_MAX)?);
    let method = method.map_err(|_| ProtocolError::Malformed { field: "method" })?;
    Ok(RequestHead { method, url: frame.string("url", URL_BYTES_MAX)?, headers: fields(frame)? })
}

pub(super) fn read_outcome(frame: &mut Reader<'_>) -> Result<Outcome, ProtocolError> {
    let number = frame.u8()?;
    Outcome::from_wire(number).ok_or(ProtocolError::UnknownNumber { field: "outcome", number })
}

/// `fields` reads its fields.
pub(super) fn read_response<'a, F>(
    frame: &mut Reader<'a>,
    fields: impl FnOnce(&mut Reader<'a>) -> Result<F, ProtocolError>,
) -> Result<ResponseHead<F>, ProtocolError> {
    let status = StatusCode::from_u16(frame.u16()?).map_err(|_| ProtocolError::Malformed { field: "status" })?;
    Ok(ResponseHead { status, headers: fields(frame)? })
}

fn read_client(frame: &mut Reader<'_>, memo: &mut Memo) -> Result<ClientInfo, ProtocolError> {
    let number = frame.u8()?;
    let protocol = HTTP_PROTOCOLS.get(usize::from(number)).ok_or(ProtocolError::UnknownNumber { field: "protocol", number })?;
    let tls_version = match frame.u8()? {
        0 => None,
        number => match TLS_VERSIONS.get(usize::from(number) - 1) {
            Some(version) => Some(*version),
            None => return Err(ProtocolError::UnknownNumber { field: "tls version", number }),
        },
    };
    let colo = memo.colo(frame.str("colo", NAME_BYTES_MAX)?);
    Ok(ClientInfo { http_protocol: protocol, tls_version, colo })
}

fn read_fetched(frame: &mut Reader<'_>) -> Result<ToRunner, ProtocolError> {
    let (stream, part) = (frame.stream()?, frame.u32()?);
    match frame.u8()? {
        0 => Ok(ToRunner::Fetched { stream, part, result: Err(frame.text()?), url: String::new(), redirects: 0 }),
        1 => {
            let (url, redirects) = (frame.string("url", URL_BYTES_MAX)?, frame.u32()?);
            let head = Box::new(read_response(frame, Reader::fields)?);
            Ok(ToRunner::Fetched { stream, part, result: Ok((head, frame.body()?)), url, redirects })
        }
        number => Err(ProtocolError::UnknownNumber { field: "result", number }),
    }
}

const fn module_kind(kind: ModuleKind) -> u8 {
    match kind {
        ModuleKind::EsModule => 0,
        ModuleKind::Text => 1,
        ModuleKind::Json => 2,
        ModuleKind::Data => 3,
        ModuleKind::Wasm => 4,
    }
}

fn read_module_kind(number: u8) -> Result<ModuleKind, ProtocolError> {
    Ok(match number {
        0 => ModuleKind::EsModule,
        1 => ModuleKind::Text,
        2 => ModuleKind::Json,
        3 => ModuleKind::Data,
        4 => ModuleKind::Wasm,
        number => return Err(ProtocolError::UnknownNumber { field: "module kind", number }),
    })
}
