//! What the ops do: the runner's side of everything that JavaScript asks for.

use std::time::Instant;

use bytes::Bytes;
use deno_core::v8;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use selvedge_runtime::protocol::{
    BodyKind, CHUNK_BYTES_MAX, HEADERS_BYTES_MAX, INITIAL_CREDIT, METHOD_BYTES_MAX, RequestHead, ToEdge, URL_BYTES_MAX,
};
use selvedge_runtime::{FetchCache, LogLevel, Outcome, Redirect};

use super::Invocations;
use super::live::Outgoing;
use crate::exception;
use crate::limits::{CREDIT_BATCH_BYTES, LOG_LINE_BYTES_MAX};
use crate::ops::{self, Asked, FieldList, Given, Host, Redirects, flat_headers};

// The ops have bounds of their own, because the build script compiles them without the protocol.
const _: () = assert!(ops::WHOLE_BYTES_MAX == CHUNK_BYTES_MAX && ops::FIELDS_BYTES_MAX <= HEADERS_BYTES_MAX);

impl Host for Invocations {
    fn request_headers<'s>(&self, scope: &mut v8::PinScope<'s, '_>, stream: u32) -> v8::Local<'s, v8::Value> {
        let head = self.live.borrow_mut().get_mut(&stream).and_then(|live| live.head.take());
        flat_headers(scope, head.map(|head| head.headers).unwrap_or_default().iter())
    }

    fn request_client<'s>(&self, scope: &mut v8::PinScope<'s, '_>, stream: u32) -> v8::Local<'s, v8::Value> {
        let client = self.live.borrow().get(&stream).map(|live| live.client.clone());
        let text = |scope: &mut v8::PinScope<'s, '_>, text: Option<&str>| -> v8::Local<'s, v8::Value> {
            text.and_then(|text| v8::String::new(scope, text)).map_or_else(|| v8::undefined(scope).into(), Into::into)
        };
        let fields = [
            text(scope, client.as_ref().map(|client| client.http_protocol)),
            text(scope, client.as_ref().and_then(|client| client.tls_version)),
            text(scope, client.as_ref().map(|client| &*client.colo)),
        ];
        v8::Array::new_with_elements(scope, &fields).into()
    }

    fn respond(&self, stream: u32, status: u16, mut fields: FieldList, mut body: Given) -> bool {
        let wanted = {
            let mut live = self.live.borrow_mut();
            let Some(live) = live.get_mut(&stream).filter(|live| !live.answered) else { return false };
            live.answered = true;
            // The length is the body's own, whatever fields a worker copied from elsewhere.
            if !(matches!(body, Given::Empty) && (live.is_head || status == 304)) {
                fields.remove(&CONTENT_LENGTH);
            }
            // A response to HEAD has a length, but no bytes: nobody would read them.
            if let Given::Stream(length) = body
                && live.is_head
            {
                if let Some(length) = length {
                    fields.push(&CONTENT_LENGTH, length.to_string().as_bytes());
                }
                body = Given::Empty;
            }
            let streams = matches!(body, Given::Stream(_));
            if streams {
                live.outgoing.push(Outgoing { part: 0, credit: INITIAL_CREDIT, starved: false });
            }
            streams
        };
        let Ok(status) = StatusCode::from_u16(status) else { return false };
        self.surroundings.respond(stream, status, &mut fields.iter(), body_kind(body));
        wanted
    }

    fn failed(&self, scope: &mut v8::PinScope<'_, '_>, stream: u32, exception: v8::Local<'_, v8::Value>, heading: Option<String>) {
        let message = exception::describe(scope, self, exception, heading);
        self.fail(stream, message);
    }

    fn ended(&self, stream: u32) {
        let outcome = self.live.borrow().get(&stream).map(|live| live.outcome);
        if let Some(outcome) = outcome {
            self.end(stream, outcome);
        }
    }

    fn body_write(&self, stream: u32, part: u32, bytes: &[u8]) -> Option<usize> {
        let taken = {
            let mut live = self.live.borrow_mut();
            let body = live.get_mut(&stream)?.outgoing(part)?;
            let taken = bytes.len().min(CHUNK_BYTES_MAX).min(body.credit as usize);
            body.credit -= taken as u32;
            body.starved = taken == 0;
            taken
        };
        if let Some(bytes) = bytes.get(..taken).filter(|bytes| !bytes.is_empty()) {
            self.surroundings.send(ToEdge::BodyData { stream, part, bytes: Bytes::copy_from_slice(bytes) });
        }
        Some(taken)
    }

    fn body_end(&self, stream: u32, part: u32, error: Option<String>) {
        {
            let mut live = self.live.borrow_mut();
            let Some(live) = live.get_mut(&stream).filter(|live| live.outgoing.iter().any(|body| body.part == part)) else { return };
            live.outgoing.retain(|body| body.part != part);
        }
        self.surroundings.send(ToEdge::BodyEnd { stream, part, error });
    }

    fn body_credit(&self, stream: u32, part: u32, bytes: u32) {
        let due = {
            let mut live = self.live.borrow_mut();
            let Some(body) = live.get_mut(&stream).and_then(|live| live.incoming(part)) else { return };
            body.owed = body.owed.saturating_add(bytes);
            if body.owed < CREDIT_BATCH_BYTES {
                return;
            }
            let due = std::mem::take(&mut body.owed);
            body.credit = body.credit.saturating_add(due);
            due
        };
        self.surroundings.send(ToEdge::Credit { stream, part, bytes: due });
    }

    fn abandon(&self, stream: u32, part: u32) {
        {
            let mut live = self.live.borrow_mut();
            let Some(live) = live.get_mut(&stream) else { return };
            live.incoming.retain(|body| body.part != part);
            if part != 0 {
                // The edge sends no answer to it.
                live.settle(part);
                live.outgoing.retain(|body| body.part != part);
            }
        }
        self.surroundings.send(ToEdge::Abandon { stream, part });
    }

    fn fetch(
        &self,
        stream: u32,
        method: http::Method,
        url: String,
        mut headers: HeaderMap,
        redirects: Redirects,
        wishes: Option<String>,
        body: Given,
    ) -> Result<u32, String> {
        headers.remove(CONTENT_LENGTH);
        if method.as_str().len() > METHOD_BYTES_MAX {
            return Err(format!("the method is longer than {METHOD_BYTES_MAX} bytes"));
        }
        if url.len() > URL_BYTES_MAX {
            return Err(format!("the URL is longer than {URL_BYTES_MAX} bytes"));
        }
        let cache = wishes.map(|json| FetchCache::read(json.as_bytes())).transpose()?.map(Box::new);
        let part = self.number_call(stream, &body, "fetch()")?;
        let redirect = match redirects {
            Redirects::Follow => Redirect::Follow,
            Redirects::Manual => Redirect::Manual,
            Redirects::Error => Redirect::Error,
        };
        let head = Box::new(RequestHead { method, url, headers });
        self.surroundings.send(ToEdge::Fetch { stream, part, head, redirect, cache, body: body_kind(body) });
        Ok(part)
    }

    fn cache(&self, stream: u32, name: Option<String>, url: String, headers: HeaderMap, asked: Asked) -> Result<u32, String> {
        self.ask_cache(stream, name, url, headers, asked)
    }

    fn purge(&self, stream: u32, purge: &str) -> Result<u32, String> {
        self.ask_purge(stream, purge)
    }

    fn pass_through(&self, stream: u32) {
        if self.is_live(stream) {
            self.surroundings.send(ToEdge::PassThrough { stream });
        }
    }

    fn log(&self, scope: &mut v8::PinScope<'_, '_>, stream: u32, level: u8, mut message: String) {
        exception::truncate(&mut message, LOG_LINE_BYTES_MAX);
        let place = if self.surroundings.places_lines() { exception::caller(scope, self) } else { String::new() };
        let level = match level {
            0 => LogLevel::Debug,
            2 => LogLevel::Info,
            3 => LogLevel::Warn,
            4 => LogLevel::Error,
            _ => LogLevel::Log,
        };
        let stream = self.attributable(stream);
        self.surroundings.send(ToEdge::Log { stream, slot: self.slot.get(), level, message, exception: false, place });
    }

    fn report(
        &self,
        scope: &mut v8::PinScope<'_, '_>,
        stream: u32,
        exception: v8::Local<'_, v8::Value>,
        heading: Option<String>,
        counts: bool,
    ) {
        let message = exception::describe(scope, self, exception, heading);
        if counts && let Some(live) = self.live.borrow_mut().get_mut(&stream) {
            live.outcome = Outcome::Exception;
        }
        self.log_exception(stream, message);
    }

    fn describe(&self, scope: &mut v8::PinScope<'_, '_>, exception: v8::Local<'_, v8::Value>) -> String {
        exception::headline(scope, exception)
    }

    fn timer_start(&self, stream: u32, delay_ms: f64, repeat: bool) -> Option<u32> {
        if !self.is_live(stream) {
            return None;
        }
        self.timers.borrow_mut().start(stream, delay_ms, repeat, Instant::now())
    }

    fn timer_clear(&self, id: u32) {
        self.timers.borrow_mut().clear(id);
    }

    fn now_ms(&self) -> f64 {
        self.now_ms.get()
    }

    fn ready(&self, stream: u32) {
        self.ready.borrow_mut().push_back(stream);
    }

    fn expect_async(&self) {
        self.expects_async.set(true);
    }

    fn expect_messages(&self) {
        self.expects_async.set(true);
        self.expects_messages.set(true);
    }
}

pub(super) fn body_kind(body: Given) -> BodyKind {
    match body {
        Given::Empty => BodyKind::Empty,
        Given::Whole(bytes) => BodyKind::Whole(bytes),
        Given::Stream(length) => BodyKind::Stream(length),
    }
}
