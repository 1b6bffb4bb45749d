//! Interim responses (1xx) on their way from the request path to a client's connection, while the final response is still being made.
//!
//! The path holds an [`Interim`], which may be cloned and may outlive its request; the connection holds the [`Interims`]. Nothing waits for anything:
//! what comes too late, or is too much, is dropped, for no client may depend on an interim response (RFC 9110, section 15.2).

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use http::header::{self, HeaderMap};
use http::{Response, StatusCode};
use parking_lot::Mutex;

use crate::limits::INTERIM_RESPONSES_MAX;
use crate::request::strip_hop;

/// Sends interim responses of one request to its client. Cheap to clone; the default one sends nothing.
#[derive(Debug, Clone, Default)]
pub struct Interim(Option<Outlet>);

#[derive(Debug, Clone)]
struct Outlet {
    line: Arc<Line>,
    request: u64,
}

/// The connection's end. One serves all requests of a connection that answers them one after the other.
#[derive(Debug, Default)]
pub(super) struct Interims {
    line: Arc<Line>,
    request: u64,
}

#[derive(Debug, Default)]
struct Line(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// The request whose final response has not begun.
    request: u64,
    /// Interim responses that this request has had.
    count: usize,
    heads: VecDeque<Response<()>>,
    waker: Option<Waker>,
}

impl Interim {
    /// One for a request without a client that could have interim responses.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Whether there is a client that could have one.
    pub const fn is_heard(&self) -> bool {
        self.0.is_some()
    }

    /// Sends one, where the protocol and the client can have it: `100` is the connection's own, `101` would end HTTP on it. Dropped when the final response has
    /// begun, and beyond [`INTERIM_RESPONSES_MAX`] for one request. Fields of a connection are taken off. Never blocks.
    pub fn send(&self, status: StatusCode, mut headers: HeaderMap) {
        let Some(Outlet { line, request }) = &self.0 else { return };
        if !status.is_informational() || status == StatusCode::CONTINUE || status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        strip_hop(&mut headers);
        // RFC 9110, section 8.6.
        headers.remove(header::CONTENT_LENGTH);
        let mut head = Response::new(());
        (*head.status_mut(), *head.headers_mut()) = (status, headers);
        let mut waiting = line.0.lock();
        if waiting.request != *request || waiting.count >= INTERIM_RESPONSES_MAX {
            return;
        }
        waiting.count += 1;
        waiting.heads.push_back(head);
        let waker = waiting.waker.take();
        drop(waiting);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Tells whether anybody holds a handle of a request whose connection's end is gone: then something of it runs on.
#[derive(Debug)]
pub(super) struct Outlived(Weak<Line>);

impl Outlived {
    /// Somebody does.
    pub(super) fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Interims {
    /// Whether somebody holds a handle of it beside the connection; to be asked when the connection lets go.
    pub(super) fn outlived(&self) -> Option<Outlived> {
        (Arc::strong_count(&self.line) > 1).then(|| Outlived(Arc::downgrade(&self.line)))
    }

    /// The handle of the request that is answered now.
    pub(super) fn open(&self) -> Interim {
        Interim(Some(Outlet { line: self.line.clone(), request: self.request }))
    }

    /// The next one of this request. Pending while there is none.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Response<()>> {
        let mut waiting = self.line.0.lock();
        match waiting.heads.pop_front() {
            Some(head) => Poll::Ready(head),
            None => {
                if !waiting.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    waiting.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// The next one of this request. Loses nothing when it is dropped.
    pub(super) async fn next(&self) -> Response<()> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The final response begins. Gives what must be sent before it; what the request's handles send from now on is dropped.
    pub(super) fn close(&mut self) -> VecDeque<Response<()>> {
        self.request += 1;
        let mut waiting = self.line.0.lock();
        waiting.request = self.request;
        waiting.count = 0;
        waiting.waker = None;
        std::mem::take(&mut waiting.heads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use http::HeaderValue;

    fn send(interim: &Interim, status: u16) {
        interim.send(StatusCode::from_u16(status).unwrap(), HeaderMap::new());
    }

    fn statuses(heads: VecDeque<Response<()>>) -> Vec<u16> {
        heads.into_iter().map(|head| head.status().as_u16()).collect()
    }

    #[test]
    fn they_come_in_order_and_not_after_the_final_one() {
        let mut interims = Interims::default();
        let first = interims.open();
        send(&first, 102);
        send(&first, 103);
        assert_eq!(interims.next().now_or_never().unwrap().status(), 102);
        assert_eq!(statuses(interims.close()), [103]);
        let second = interims.open();
        send(&first, 103);
        assert!(interims.next().now_or_never().is_none(), "it belongs to the request before");
        send(&second, 104);
        assert_eq!(statuses(interims.close()), [104]);
    }

    #[test]
    fn what_is_not_for_the_client_is_dropped() {
        let mut interims = Interims::default();
        let interim = interims.open();
        for status in [100, 101, 200, 304] {
            send(&interim, status);
        }
        let mut fields = HeaderMap::new();
        for name in ["connection", "transfer-encoding", "content-length", "link"] {
            fields.insert(name, HeaderValue::from_static("x"));
        }
        interim.send(StatusCode::EARLY_HINTS, fields);
        let heads = interims.close();
        assert_eq!(heads.len(), 1);
        assert_eq!(heads[0].headers().keys().map(header::HeaderName::as_str).collect::<Vec<_>>(), ["link"]);
        send(&Interim::none(), 103);
    }

    #[test]
    fn their_number_is_bounded() {
        let mut interims = Interims::default();
        let interim = interims.open();
        for _ in 0..INTERIM_RESPONSES_MAX {
            send(&interim, 103);
            assert!(interims.next().now_or_never().is_some());
        }
        send(&interim, 103);
        assert!(interims.close().is_empty());
        send(&interims.open(), 103);
        assert_eq!(interims.close().len(), 1);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let interims = Interims::default();
        let interim = interims.open();
        let waiting = interims.next();
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        send(&interim, 103);
        assert_eq!(waiting.await.status(), 103);
    }
}
