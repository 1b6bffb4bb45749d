//! The body of a request on its way in, beside everything else that a connection does.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use selvedge_runtime::{Body, BodyError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::Talk;
use super::encode::CONTINUE;
use super::framing::{Coding, Decoder, Step};
use super::intake::Intake;
use super::wire::Ended;
use crate::limits::{H1_BODY_READ_BYTES, H1_READ_AHEAD_BYTES_MAX, H1_READ_BYTES, UNREAD_BODY_BYTES_MAX, UNREAD_BODY_WAIT};
use crate::metrics::Metrics;

/// The body of the request that is being answered.
pub(super) struct Receiving {
    decoder: Decoder,
    /// None when the body has failed: nobody is told twice.
    intake: Option<Intake>,
    invitation: Invitation,
    metrics: Arc<Metrics>,
}

/// Whether a client that waits to be told to send its body is told so (RFC 9110, section 10.1.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Invitation {
    /// It does not wait, or was told.
    None,
    Due,
    /// The answer has begun: nothing may be said in the middle of it.
    Missed,
}

/// The body of a request, and what is needed to receive the rest of it. One that has come together with its head is there whole.
pub(super) fn open(input: &mut BytesMut, coding: Coding, expects_continue: bool, metrics: &Arc<Metrics>) -> (Body, Option<Receiving>) {
    let length = match coding {
        Coding::None => return (Body::empty(), None),
        Coding::Length(length) => Some(length),
        Coding::Chunked => None,
    };
    if let Some(length) = length.filter(|length| *length <= input.len() as u64) {
        metrics.received_bytes.add(length);
        return (Body::full(input.split_to(length as usize).freeze()), None);
    }
    let Some(decoder) = Decoder::new(coding) else { return (Body::empty(), None) };
    let (intake, body) = Intake::open(length);
    let invitation = if expects_continue && input.is_empty() { Invitation::Due } else { Invitation::None };
    (body, Some(Receiving { decoder, intake: Some(intake), invitation, metrics: metrics.clone() }))
}

impl Receiving {
    /// Whoever answers will not read the rest, and neither will the connection: it is closed after the answer.
    pub(super) fn is_hopeless(&self) -> bool {
        match &self.intake {
            None => true,
            Some(intake) => {
                intake.is_given_up() && (self.invitation != Invitation::None || self.decoder.bytes_left() > UNREAD_BODY_BYTES_MAX)
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    /// What a connection does while an answer is made: it hands on what is wanted of the request's body, writes what waits, and notices that the client has
    /// left. Ready when whoever answers may have got something to go on with.
    pub(super) fn poll_meanwhile(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let _ = self.wire.poll_write(cx)?;
        let _ = self.wire.poll_drained(cx);
        loop {
            if let Some(moved) = self.hand_on(cx) {
                return Poll::Ready(moved);
            }
            let wanted =
                self.receiving.as_ref().and_then(|receiving| receiving.intake.as_ref()).is_some_and(|i| i.poll_room(cx).is_ready());
            // What is not wanted now (a body that nobody reads, the next request) is held up to a bound; at the bound the client waits.
            if !wanted && self.wire.input.len() >= H1_READ_AHEAD_BYTES_MAX {
                return Poll::Pending;
            }
            if wanted && self.wire.output.is_empty() {
                self.say_continue();
                let _ = self.wire.poll_write(cx)?;
            }
            std::task::ready!(self.wire.poll_read(cx, if wanted { H1_BODY_READ_BYTES } else { H1_READ_BYTES }))?;
        }
    }

    /// The client is told to send when somebody wants to have it, if it has not sent yet.
    fn say_continue(&mut self) {
        let Some(receiving) = self.receiving.as_mut().filter(|receiving| receiving.invitation == Invitation::Due) else { return };
        receiving.invitation = Invitation::None;
        if self.wire.input.is_empty() {
            self.wire.output.buffer().extend_from_slice(CONTINUE);
        }
    }

    /// The answer begins.
    pub(super) fn miss_invitation(&mut self) {
        if let Some(receiving) = self.receiving.as_mut().filter(|receiving| receiving.invitation == Invitation::Due) {
            receiving.invitation = Invitation::Missed;
        }
    }

    /// Hands on what has come of a body that is wanted. None where that is nothing.
    fn hand_on(&mut self, cx: &mut Context<'_>) -> Option<Result<(), Ended>> {
        let receiving = self.receiving.as_mut()?;
        let mut moved = false;
        while receiving.intake.as_ref()?.poll_room(cx).is_ready() {
            match receiving.decoder.decode(&mut self.wire.input) {
                Ok(Step::Data(data)) => {
                    receiving.metrics.received_bytes.add(data.len() as u64);
                    receiving.intake.as_ref()?.push(data);
                    moved = true;
                }
                Ok(Step::More) => break,
                Ok(Step::End) => {
                    receiving.intake.take()?.end();
                    self.receiving = None;
                    return Some(Ok(()));
                }
                Err(malformed) => {
                    receiving.intake.take()?.fail(BodyError::Aborted(malformed.to_string()));
                    return Some(Ok(()));
                }
            }
            // The last byte of a body with a length, or of its last chunk, is its end for whoever reads it, whether or not there is room.
            if receiving.decoder.is_ended() {
                receiving.intake.take()?.end();
                self.receiving = None;
                return Some(Ok(()));
            }
        }
        moved.then_some(Ok(()))
    }

    /// After an answer: receives the rest of the request's body, for whoever still reads it, and then for nobody, within bounds; the next request follows it.
    pub(super) async fn settle(&mut self) -> Result<(), Ended> {
        if self.receiving.is_none() {
            return Ok(());
        }
        self.wire.flush().await?;
        self.hand_on_the_rest().await?;
        let Some(mut receiving) = self.receiving.take() else { return Ok(()) };
        if receiving.is_hopeless() {
            return Err(Ended::UnreadBody);
        }
        let discarding = async {
            let mut bytes = 0;
            loop {
                match receiving.decoder.decode(&mut self.wire.input) {
                    Ok(Step::End) => return Ok(()),
                    Ok(Step::Data(data)) => bytes += data.len() as u64,
                    Ok(Step::More) => poll_fn(|cx| self.wire.poll_read(cx, H1_READ_BYTES)).await?,
                    Err(_) => return Err(Ended::UnreadBody),
                }
                if bytes > UNREAD_BODY_BYTES_MAX {
                    return Err(Ended::UnreadBody);
                }
            }
        };
        tokio::time::timeout(UNREAD_BODY_WAIT, discarding).await.unwrap_or(Err(Ended::UnreadBody))
    }

    /// A worker may read on after its answer. It must go forward, as an idle connection must.
    async fn hand_on_the_rest(&mut self) -> Result<(), Ended> {
        let mut since = Instant::now();
        poll_fn(|cx| {
            while self.receiving.as_ref().and_then(|receiving| receiving.intake.as_ref()).is_some_and(|intake| !intake.is_given_up()) {
                if self.poll_meanwhile(cx)?.is_pending() {
                    let bound = self.idle_timeout;
                    return self.wire.poll_late(cx, since, bound).map(|()| Err(Ended::UnreadBody));
                }
                since = Instant::now();
            }
            Poll::Ready(Ok(()))
        })
        .await
    }
}
