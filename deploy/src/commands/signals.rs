//! SIGTERM and SIGINT: the wish to end. A second one ends the process at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals, listened to from now on.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Begins to listen.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one. Cancel-safe.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Works until it is done; none where a signal came first, which drops the work.
    pub(super) async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.wait() => None,
        }
    }

    /// Waits for a graceful end, but not longer than until the next signal. Gives whether it was graceful.
    pub(super) async fn or_again(&mut self, end: impl Future<Output = bool>) -> bool {
        tokio::select! {
            graceful = end => graceful,
            () = self.wait() => false,
        }
    }
}
