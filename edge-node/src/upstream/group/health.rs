//! Health checks: each server is asked again and again by every node that routes to it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::{HOST, HeaderValue, USER_AGENT};
use http::uri::PathAndQuery;
use http::{Method, Request};
use selvedge_origin::registry::HealthCheck;
use selvedge_runtime::Body;
use tokio::sync::Semaphore;

use super::{Group, Groups, Server};
use crate::routes::draw;
use crate::tasks;
use crate::upstream::pool::{Pools, Slot};
use crate::upstream::{forward, limits};

/// When a server is asked next, and whether it is being asked.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    due_ms: AtomicU64,
    underway: AtomicBool,
}

impl Schedule {
    /// Begins a check, if it is time for one. The next one is due an interval later, give or take a tenth: nodes must not ask all at once.
    fn begin(&self, rule: &HealthCheck, now_ms: u64, draw: f64) -> bool {
        if now_ms < self.due_ms.load(Relaxed) || self.underway.swap(true, Relaxed) {
            return false;
        }
        let interval = (f64::from(rule.interval_ms) * (0.9 + draw * 0.2)) as u64;
        self.due_ms.store(now_ms.saturating_add(interval), Relaxed);
        true
    }
}

/// Asks the servers of all groups that have health checks, until the pools go.
pub(in crate::upstream) async fn watch(groups: Arc<Groups>, pools: Weak<Pools>) {
    let places = Arc::new(Semaphore::new(limits::HEALTH_CHECKS_MAX));
    let mut look = tokio::time::interval(limits::HEALTH_LOOK_INTERVAL);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let Some(pools) = pools.upgrade() else { return };
        for group in groups.alive() {
            let Some(rule) = group.declared.health.clone() else { continue };
            let now = group.now_ms();
            for index in 0..group.servers.len() {
                let Ok(place) = places.clone().try_acquire_owned() else { break };
                if group.servers.get(index).is_some_and(|server| server.schedule.begin(&rule, now, draw())) {
                    let (group, pools, rule) = (group.clone(), pools.clone(), rule.clone());
                    tasks::spawn("upstream health check", async move {
                        let _place = place;
                        group.check(index, &rule, &pools).await;
                    });
                }
            }
        }
    }
}

impl Group {
    async fn check(&self, index: usize, rule: &HealthCheck, pools: &Arc<Pools>) {
        let Some(server) = self.servers.get(index) else { return };
        let within = Duration::from_millis(rule.timeout_ms.into());
        let good = tokio::time::timeout(within, self.is_well(server, rule, pools)).await.unwrap_or(false);
        if let Some(up) = server.standing.checked(good, rule) {
            let what = if up { "server is up again by its health checks" } else { "server is down by its health checks" };
            tracing::warn!(upstream = self.declared.title(), server = %server.base, "{what}");
        }
        server.schedule.underway.store(false, Relaxed);
    }

    /// Whether it answers a check with 2xx or 3xx, to the end.
    async fn is_well(&self, server: &Server, rule: &HealthCheck, pools: &Arc<Pools>) -> bool {
        let Ok(target) = rule.path.parse::<PathAndQuery>() else { return false };
        let Some(address) = server.address(&target) else { return false };
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = address;
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("selvedge-health"));
        if let Some(host) = &self.host {
            request.headers_mut().insert(HOST, host.clone());
        }
        let Ok(pool) = server.pool(self, pools) else { return false };
        match forward::send_in(pools, &pool, Slot::beside(), request).await {
            Ok(response) if response.status().is_success() || response.status().is_redirection() => {
                response.into_body().collect(limits::HEALTH_BODY_BYTES_MAX).await.is_ok()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_an_interval_apart_and_never_two_at_once() {
        let (schedule, rule) = (Schedule::default(), HealthCheck { interval_ms: 1_000, ..HealthCheck::default() });
        assert!(schedule.begin(&rule, 0, 0.0));
        assert!(!schedule.begin(&rule, 5_000, 0.5), "the first has not ended");
        schedule.underway.store(false, Relaxed);
        assert!(!schedule.begin(&rule, 899, 0.5));
        assert!(schedule.begin(&rule, 900, 1.0));
        schedule.underway.store(false, Relaxed);
        assert!(!schedule.begin(&rule, 1_999, 0.5));
        assert!(schedule.begin(&rule, 2_000, 0.5));
    }
}
