//! One invocation from the caller's side: placed, started, heard of; placed again where it bounced or its runner died.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Response};
use http_body::Body as _;

use super::counters::count;
use super::dispatch::lost;
use super::download;
use super::fleet::shed;
use super::limits::RETRY_AFTER;
use super::link::{Heard, Link, Refused};
use super::load::{Purpose, Search};
use super::placement::Placement;
use super::ticket::Ticket;
use super::upload::{self, Gathered, Upload};
use super::{Inner, tasks};
use crate::protocol::{BodyRef, CHUNK_BYTES_MAX, StreamId};
use crate::{Body, BodyError, Invocation, Limits, Outcome, RunError, WorkerSource};

/// An invocation that has not been answered.
struct Job {
    /// Without its request's body. In a box: what waits for an answer is moved about until it waits.
    invocation: Box<Invocation>,
    body: JobBody,
    started: Instant,
    replayed: bool,
}

enum JobBody {
    Whole(Bytes),
    Stream(Box<Upload>, Option<u64>),
}

impl Inner {
    /// Runs one invocation up to its response's head.
    pub(super) async fn run(self: &Arc<Self>, source: &Arc<WorkerSource>, invocation: Box<Invocation>) -> Result<Response<Body>, RunError> {
        let started = Instant::now();
        let version = self.version(source, started);
        let mut ticket = Ticket::new(invocation.host.clone(), started);
        let mut job = match Job::new(invocation, &version.limits, started).await {
            Ok(job) => job,
            Err(error) => return Err(end(ticket, error)),
        };
        let mut search = Search::begin(Purpose::Request, started);
        loop {
            if self.closing.load(Ordering::Acquire) {
                return Err(end(ticket, closed()));
            }
            let placed = self.place(&version, source, &mut search).await;
            ticket.cold_start = search.cold;
            let placement = match placed {
                Ok(placement) => placement,
                Err(error) => return Err(end(ticket, error)),
            };
            let running = match job.start(&placement, ticket) {
                Ok(running) => running,
                Err(Refused::Unfit(ticket, error)) => return Err(end(ticket, unfit(&error.to_string()))),
                Err(Refused::Full(back)) => {
                    ticket = back;
                    if search.is_over() {
                        count(&self.counters.shed);
                        return Err(end(ticket, shed("no link had a place in time")));
                    }
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let stream = running.stream;
            ticket = match job.hear(running).await {
                Heard::Response(head, body) => return Ok(download::response(&placement.link, stream, 0, *head, body)),
                Heard::Failed(error) => return Err(error),
                Heard::Bounced(Some(ticket)) => ticket,
                Heard::Lost(Some(ticket), started) => {
                    if !job.may_replay(&ticket, started) {
                        return Err(end(ticket, lost(RETRY_AFTER)));
                    }
                    job.replayed = true;
                    search.begin_anew();
                    count(&self.counters.replays);
                    ticket
                }
                Heard::Bounced(None) | Heard::Lost(None, _) => return Err(lost(RETRY_AFTER)),
            };
            if !job.rewind() {
                return Err(end(ticket, lost(RETRY_AFTER)));
            }
        }
    }
}

/// An invocation that has been started. Dropping it cancels the invocation.
struct Running {
    link: Arc<Link>,
    stream: StreamId,
    heard: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.heard {
            self.link.abandon(self.stream, false, Instant::now());
        }
    }
}

impl Job {
    async fn new(mut invocation: Box<Invocation>, limits: &Limits, started: Instant) -> Result<Self, RunError> {
        let body = std::mem::take(invocation.request.body_mut());
        let bytes_max = limits.request_body_bytes_max;
        if body.size_hint().lower() > bytes_max {
            return Err(too_large(bytes_max));
        }
        let body = if let Some(whole) = body.as_whole().filter(|whole| whole.len() <= CHUNK_BYTES_MAX) {
            JobBody::Whole(whole)
        } else {
            match Box::pin(Upload::new(0, body, bytes_max, limits.body_idle_timeout()).gathered()).await {
                Gathered::Whole(bytes) => JobBody::Whole(bytes),
                Gathered::Stream(upload, len) => JobBody::Stream(upload, len),
            }
        };
        Ok(Self { invocation, body, started, replayed: false })
    }

    fn start(&self, placement: &Arc<Placement>, ticket: Ticket) -> Result<Running, Refused> {
        let body = match &self.body {
            JobBody::Whole(bytes) if bytes.is_empty() => BodyRef::Empty,
            JobBody::Whole(bytes) => BodyRef::Whole(bytes),
            JobBody::Stream(_, len) => BodyRef::Stream(*len),
        };
        let link = &placement.link;
        let now = if ticket.cold_start || self.replayed { Instant::now() } else { self.started };
        let stream = link.start(placement, &self.invocation, body, ticket, now)?;
        Ok(Running { link: link.clone(), stream, heard: false })
    }

    /// Waits for the head, while the request's body goes on its way.
    async fn hear(&mut self, mut running: Running) -> Heard {
        let heard = poll_fn(|cx| {
            if let Poll::Ready(heard) = running.link.poll_head(running.stream, cx) {
                return Poll::Ready(heard);
            }
            if let JobBody::Stream(upload, _) = &mut self.body
                && !upload.is_finished()
            {
                let _ = upload.poll(cx, &running.link, running.stream);
            }
            Poll::Pending
        })
        .await;
        running.heard = true;
        if let (Heard::Response(..), JobBody::Stream(upload, _)) = (&heard, &mut self.body)
            && !upload.is_finished()
        {
            // Ends with the body, or as soon as the invocation does not want more of it.
            let body = std::mem::replace(&mut self.body, JobBody::Whole(Bytes::new()));
            if let JobBody::Stream(upload, _) = body {
                tasks::spawn(upload::run(upload, running.link.clone(), running.stream));
            }
        }
        heard
    }

    /// The rules of replay: once, and only what cannot have had an effect.
    fn may_replay(&self, ticket: &Ticket, started: bool) -> bool {
        let safe = matches!(*self.invocation.request.method(), Method::GET | Method::HEAD) && ticket.subrequests == 0;
        !self.replayed && (!started || safe)
    }

    fn rewind(&mut self) -> bool {
        match &mut self.body {
            JobBody::Whole(_) => true,
            JobBody::Stream(upload, _) => upload.rewind(),
        }
    }
}

fn end(ticket: Ticket, error: RunError) -> RunError {
    ticket.finish(error.outcome, 0, 0);
    error
}

fn closed() -> RunError {
    let message = "the node is shutting down".to_owned();
    RunError { outcome: Outcome::Canceled, message, retry_after: Some(RETRY_AFTER), request_body: None }
}

fn too_large(bytes_max: u64) -> RunError {
    RunError {
        outcome: Outcome::Canceled,
        message: format!("the request's body is larger than {bytes_max} bytes"),
        retry_after: None,
        request_body: Some(BodyError::TooLarge { bytes_max }),
    }
}

fn unfit(why: &str) -> RunError {
    let message = format!("the request does not fit: {why}");
    RunError { outcome: Outcome::InternalError, message, retry_after: None, request_body: None }
}
