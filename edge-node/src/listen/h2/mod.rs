//! HTTP/2 on one connection (RFC 9113), frame by frame in the crate h2: its streams become requests. What can be answered at once is answered in the
//! connection's own task, and goes out with its next write; any other request gets a task of its own.

mod request;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use ::h2::server::{Builder, Connection, SendResponse};
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::activity::Activity;
use super::exchange::Exchange;
use super::resets::Resets;
use super::watched::Watched;
use super::{Answer, Protocol, Shared};
use crate::limits;

/// Serves a connection to its end.
pub(super) async fn serve<A: Answer, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    exchange: Exchange<A>,
    shared: &Shared<A>,
) {
    let _open = shared.metrics.connected(Protocol::Http2);
    let activity = exchange.activity.clone();
    let opening = builder(shared).handshake::<_, Bytes>(Watched::new(stream, activity.clone()));
    let connection = match shared.shake_hands(opening).await {
        Ok(connection) => connection,
        Err(error) => {
            return tracing::debug!(client.address = %exchange.connection.peer, ?error, "no HTTP/2 on an h2 connection");
        }
    };
    drive(connection, Arc::new(exchange), activity, shared).await;
}

fn builder<A>(shared: &Shared<A>) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(limits::H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(shared.limits.streams_per_connection_max)
        .max_frame_size(limits::H2_FRAME_BYTES_MAX)
        .max_send_buffer_size(limits::H2_SEND_BUFFER_BYTES_MAX)
        .max_header_list_size(limits::HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(limits::H2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(limits::H2_LOCAL_RESETS_MAX));
    builder
}

/// Takes the requests of a connection until it ends: says goodbye once, when the node drains or nothing happens any more, and gives up on clients that take
/// nothing, or that give up too much.
async fn drive<A: Answer, S: AsyncRead + AsyncWrite + Unpin + Send>(
    mut connection: Connection<S, Bytes>,
    exchange: Arc<Exchange<A>>,
    activity: Arc<Activity>,
    shared: &Shared<A>,
) {
    let idle = shared.limits.idle_timeout();
    let mut look = tokio::time::interval((idle.min(limits::SEND_STALL) / 4).max(limits::LOOK_INTERVAL_MIN));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Of its own: see `Tasks::spawn`.
    let draining = shared.tasks.draining().child_token();
    let drain = draining.cancelled();
    tokio::pin!(drain);
    let resets = Arc::new(Resets::default());
    let mut goodbye: Option<Instant> = None;
    let mut accepted = Vec::new();
    loop {
        tokio::select! {
            biased;
            ended = accept(&mut connection, &mut accepted) => {
                for (request, respond) in accepted.drain(..) {
                    resets.asked();
                    if resets.excessive() {
                        tracing::debug!(client.address = %exchange.connection.peer, "h2 connection closed: too many cancelled requests");
                        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                        break;
                    }
                    shared.tasks.begin_bound(request::serve(request, respond, exchange.clone(), resets.clone())).await;
                }
                if let Some(how) = ended {
                    let error = how.err();
                    return tracing::debug!(client.address = %exchange.connection.peer, ?error, "connection ended");
                }
            }
            () = &mut drain, if goodbye.is_none() => {
                connection.graceful_shutdown();
                goodbye = Some(Instant::now());
            }
            _ = look.tick() => {
                if activity.stalled_for(limits::SEND_STALL) {
                    return tracing::debug!(client.address = %exchange.connection.peer, "connection closed: the client takes nothing");
                }
                if !activity.idle_for(idle) {
                    continue;
                }
                match goodbye {
                    None => {
                        connection.graceful_shutdown();
                        goodbye = Some(Instant::now());
                    }
                    Some(said) if said.elapsed() >= limits::GOODBYE_WAIT => return,
                    Some(_) => {}
                }
            }
        }
    }
}

/// What a client asks.
type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

/// Takes all requests that are there, so that the answers that are there at once share a write. Ready with at least one of them, or with how the connection
/// ended. Loses nothing when it is dropped.
async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<S, Bytes>,
    accepted: &mut Vec<Accepted>,
) -> Option<Result<(), ::h2::Error>> {
    poll_fn(|cx| {
        while accepted.len() < limits::H2_ACCEPTED_AT_ONCE_MAX {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok(request))) => accepted.push(request),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(Some(Ok(()))),
                Poll::Pending if accepted.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(None)
    })
    .await
}
