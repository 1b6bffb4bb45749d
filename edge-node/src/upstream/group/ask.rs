//! A request to a group: one server, and others where that one fails and asking twice does no harm.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Request, Response, Uri, header};
use selvedge_runtime::Body;
use tokio::time::Instant;

use super::choose::{Candidate, choose};
use super::{Group, Server};
use crate::chance::draw;
use crate::upstream::UpstreamError;
use crate::upstream::forward::{self, Unanswered};
use crate::upstream::pool::{Pool, Pools};

/// The servers that one request has asked, by their index: there are at most 32.
#[derive(Default)]
struct Tried(u32);

impl Tried {
    fn has(&self, index: usize) -> bool {
        self.0 & (1 << index) != 0
    }

    fn add(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    fn count(&self) -> u32 {
        self.0.count_ones()
    }
}

impl Group {
    /// Sends a request for `target` to one of the servers. Resolves at the response's head; dropping the future, or the response's body before its end, closes
    /// the connection or resets its stream.
    pub(in crate::upstream) async fn ask(
        &self,
        pools: &Arc<Pools>,
        target: &PathAndQuery,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, UpstreamError> {
        if let Some(host) = &self.host {
            request.headers_mut().insert(header::HOST, host.clone());
        }
        self.budget.earn(self.declared.retries.budget_percent);
        let began = Instant::now();
        let mut tried = Tried::default();
        let mut server = self.next(&tried).ok_or_else(|| UpstreamError::AllDown { upstream: self.declared.title().to_owned() })?;
        loop {
            tried.add(server);
            let is_last = tried.count() > self.declared.retries.max || tried.count() as usize >= self.servers.len();
            let copy = if is_last { None } else { forward::replayable(&request) };
            let (answer, again) = match self.try_one(pools, server, target, request).await {
                Ok(response) if !self.is_failure(&response) => return Ok(response),
                Ok(response) => (Ok(response), copy),
                Err(Unanswered { error, request }) => (Err(error), request.or(copy)),
            };
            let helps = !is_last && answer.as_ref().err().is_none_or(UpstreamError::is_of_the_server);
            let next = if helps { self.next(&tried) } else { None };
            // Where there is no other, the failure is the answer.
            let (Some(next), Some(again)) = (next, again) else { return answer };
            if !self.may_retry(began) {
                return answer;
            }
            (server, request) = (next, again);
            self.retries.fetch_add(1, Relaxed);
        }
    }

    fn next(&self, tried: &Tried) -> Option<usize> {
        if let [only] = &*self.servers {
            return (only.known.standing.is_healthy() && !tried.has(0)).then_some(0);
        }
        let now = Instant::now();
        let candidates = self.servers.iter().enumerate().map(|(index, server)| Candidate {
            weight: server.weight,
            backup: server.backup,
            healthy: server.known.standing.is_healthy(),
            ejected: server.known.standing.is_ejected(server.known.ms_at(now)),
            full: server.is_full(),
            tried: tried.has(index),
        });
        choose(candidates, draw())
    }

    fn is_failure(&self, response: &Response<Body>) -> bool {
        response.status().is_server_error() && self.declared.retries.statuses.contains(&response.status().as_u16())
    }

    fn may_retry(&self, began: Instant) -> bool {
        began.elapsed() < Duration::from_millis(self.declared.retries.deadline_ms.into()) && self.budget.spend()
    }

    /// Asks one server, and remembers how it did.
    async fn try_one(
        &self,
        pools: &Arc<Pools>,
        index: usize,
        target: &PathAndQuery,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Unanswered> {
        let unanswered = |error| Unanswered { error, request: None };
        let server = self.servers.get(index).ok_or_else(|| unanswered(UpstreamError::BadRequest { reason: "no such server" }))?;
        *request.uri_mut() = server.address(target).ok_or_else(|| unanswered(UpstreamError::BadRequest { reason: "no address" }))?;
        let pool = server.pool(self, pools).map_err(unanswered)?;
        let known = &server.known;
        known.requests.fetch_add(1, Relaxed);
        let answer = forward::send(pools, &pool, request).await;
        match &answer {
            Ok(response) if !self.is_failure(response) => known.standing.answered(),
            Err(unanswered) if !unanswered.error.is_failure() => {}
            _ => {
                known.failures.fetch_add(1, Relaxed);
                if let Some(ms) = known.standing.failed(&self.declared.ejection, known.ms_at(Instant::now())) {
                    known.ejections.fetch_add(1, Relaxed);
                    tracing::warn!(upstream = self.declared.title(), server = %known.base, ms, "server fails again and again: left alone for a while");
                }
            }
        }
        answer
    }
}

impl Server {
    /// The address of a target on it: its own path, if it has one, goes first.
    pub(super) fn address(&self, target: &PathAndQuery) -> Option<Uri> {
        let mut parts = self.known.base.clone().into_parts();
        let base = self.known.base.path().trim_end_matches('/');
        parts.path_and_query = if base.is_empty() { Some(target.clone()) } else { Some(format!("{base}{target}").parse().ok()?) };
        Uri::from_parts(parts).ok()
    }

    fn is_full(&self) -> bool {
        self.known.made_pool().is_some_and(|pool| pool.is_full())
    }

    /// Its connections.
    pub(super) fn pool(&self, group: &Group, pools: &Pools) -> Result<Arc<Pool>, UpstreamError> {
        let manner = group.manner.get_or_init(|| pools.manner(&group.declared));
        self.known.pool(group.number, manner.as_ref(), pools)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use selvedge_origin::registry::Upstream;

    #[test]
    fn the_servers_path_comes_first() {
        for (server, target, expected) in [
            ("https://10.0.0.7", "/a?b", "https://10.0.0.7/a?b"),
            ("https://10.0.0.7/", "/", "https://10.0.0.7/"),
            ("http://u:8080/base/", "/a", "http://u:8080/base/a"),
        ] {
            let group = Group::new(&Upstream::at(server)).expect("a group");
            assert_eq!(group.servers[0].address(&PathAndQuery::from_static(target)).expect("an address"), expected);
        }
    }
}
