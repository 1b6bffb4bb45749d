//! Health checks: each server is asked again and again by every node that routes to it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::{HOST, HeaderValue, USER_AGENT};
use http::uri::PathAndQuery;
use http::{Method, Request};
use selvedge_origin::registry::HealthCheck;
use selvedge_runtime::Body;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep};

use super::known::Known;
use super::{Group, Groups, Server};
use crate::chance::draw;
use crate::tasks;
use crate::upstream::pool::Pools;
use crate::upstream::slots::Slot;
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

    /// Milliseconds until the next check; none while one is under way, whose end is told.
    fn wait_ms(&self, now_ms: u64) -> Option<u64> {
        (!self.underway.load(Relaxed)).then(|| self.due_ms.load(Relaxed).saturating_sub(now_ms))
    }

    /// The rule is another one: what it says holds from now on.
    pub(super) fn due_now(&self) {
        self.due_ms.store(0, Relaxed);
    }
}

/// Asks the servers of all groups that have health checks, until the groups or the pools go. Sleeps until one is due: for ever, where there are none.
pub(in crate::upstream) async fn watch(groups: Weak<Groups>, pools: Weak<Pools>) {
    let places = Arc::new(Semaphore::new(limits::HEALTH_CHECKS_MAX));
    let Some(changed) = groups.upgrade().map(|groups| groups.changed.clone()) else { return };
    loop {
        let (Some(alive), Some(pools)) = (groups.upgrade().map(|groups| groups.alive()), pools.upgrade()) else { return };
        let next = alive.iter().filter_map(|group| begin(group, &pools, &places, &changed)).min();
        drop((alive, pools));
        // However many there are and however often something changes, the list is gone through now and then only.
        sleep(limits::HEALTH_LOOK_INTERVAL).await;
        let due = async {
            match next {
                Some(ms) => sleep(Duration::from_millis(ms).saturating_sub(limits::HEALTH_LOOK_INTERVAL)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = changed.notified() => {}
        }
    }
}

/// Begins the checks of a group that are due. Gives the milliseconds until the next one is.
fn begin(group: &Arc<Group>, pools: &Arc<Pools>, places: &Arc<Semaphore>, changed: &Arc<Notify>) -> Option<u64> {
    let rule = group.declared.health.as_ref()?;
    let now = Instant::now();
    for known in group.own_servers().map(|server| &server.known) {
        if known.schedule.wait_ms(known.ms_at(now)) != Some(0) {
            continue;
        }
        // Whoever ends one tells.
        let Ok(place) = places.clone().try_acquire_owned() else { return None };
        if known.schedule.begin(rule, known.ms_at(now), draw()) {
            let (group, known, pools, changed) = (group.clone(), known.clone(), pools.clone(), changed.clone());
            tasks::spawn("upstream health check", async move {
                group.check(&known, &pools).await;
                drop((place, pools));
                changed.notify_one();
            });
        }
    }
    group.own_servers().filter_map(|server| server.known.schedule.wait_ms(server.known.ms_at(now))).min()
}

impl Group {
    async fn check(&self, known: &Arc<Known>, pools: &Arc<Pools>) {
        let server = self.servers.iter().find(|server| Arc::ptr_eq(&server.known, known));
        if let (Some(server), Some(rule)) = (server, &self.declared.health) {
            let within = Duration::from_millis(rule.timeout_ms.into());
            let good = tokio::time::timeout(within, self.is_well(server, rule, pools)).await.unwrap_or(false);
            // It may have been taken over by an upstream with another rule meanwhile, or with none.
            if known.is_in(self.number)
                && let Some(up) = known.standing.checked(good, rule)
            {
                let what = if up { "server is up again by its health checks" } else { "server is down by its health checks" };
                tracing::warn!(upstream = self.declared.title(), server = %known.base, "{what}");
            }
        }
        known.schedule.underway.store(false, Relaxed);
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
