//! Interim responses (1xx) of an upstream, on their way to whoever waits for the final one.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

type Told = dyn Fn(StatusCode, &HeaderMap) + Send + Sync;

/// An extension of a request: told of each interim response to it, in order, before the final one is there.
#[derive(Clone)]
pub struct OnInterim(Arc<Told>);

impl OnInterim {
    /// `told` must not block: whoever reads from the connection calls it.
    pub fn new(told: impl Fn(StatusCode, &HeaderMap) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }

    pub(super) fn tell(&self, status: StatusCode, headers: &HeaderMap) {
        (self.0)(status, headers);
    }
}
