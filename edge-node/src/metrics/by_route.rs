//! What is counted of each route. A route of the table has its counters at hand, so that a hit costs two additions to one line of the processor's cache: no look-up, no lock.
//! Counters belong to the pattern: they go on when the table is swapped, and go with the last table that has it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::page::Page;
use super::{CacheResult, Counter, Gauge, Histogram};

/// The counters of one route. Aligned, so that no two routes write to the same line of a processor's cache (or to a pair of lines that are fetched together); what a hit of a
/// client writes is in one.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct RouteCounters {
    clients: [Counter; CacheResult::ALL.len()],
    sent_bytes: [Counter; Source::ALL.len()],
    workers: [Counter; CacheResult::ALL.len()],
    peers: [Counter; CacheResult::ALL.len()],
    removals: [Counter; Removal::ALL.len()],
    /// Responses, and slices of large ones, that the disk had no room for.
    pub disk_evictions: Counter,
    waits: Counter,
    waiting: Gauge,
    /// From the begin of a fill to its response's head.
    pub fill_first_byte: Histogram,
    /// From the begin of a fill until it is stored.
    pub fill: Histogram,
    pattern: Arc<str>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A client.
    Client,
    /// A worker's `fetch()`.
    Worker,
    /// Another node, for which this one is the shield.
    Peer,
}

/// Where the bytes of an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// What this node holds in memory: stored, or arriving for another request.
    Memory,
    /// This node's disk.
    Disk,
    /// The key's shield.
    Shield,
    /// The customer's servers.
    Upstream,
    /// A worker.
    Worker,
    /// This node itself: errors and redirects.
    Node,
}

/// Why a stored response is in memory no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Removal {
    /// There was no room, or others were wanted more.
    Evicted,
    /// Its URL has too many variants.
    Variants,
    /// An unsafe method, or a worker, took it away.
    Invalidated,
    /// It was purged, and looked for since.
    Purged,
}

impl Asker {
    const ALL: [Self; 3] = [Self::Client, Self::Worker, Self::Peer];

    const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Worker => "worker",
            Self::Peer => "peer",
        }
    }
}

impl Source {
    const ALL: [Self; 6] = [Self::Memory, Self::Disk, Self::Shield, Self::Upstream, Self::Worker, Self::Node];

    /// The one that is this number.
    pub(crate) fn of_number(number: u8) -> Self {
        Self::ALL.into_iter().find(|source| *source as u8 == number).unwrap_or(Self::Node)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Shield => "shield",
            Self::Upstream => "upstream",
            Self::Worker => "worker",
            Self::Node => "node",
        }
    }
}

impl Removal {
    const ALL: [Self; 4] = [Self::Evicted, Self::Variants, Self::Invalidated, Self::Purged];

    const fn name(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Variants => "variants",
            Self::Invalidated => "invalidated",
            Self::Purged => "purged",
        }
    }
}

impl RouteCounters {
    /// All 0.
    pub fn new(pattern: Arc<str>) -> Self {
        Self { pattern, ..Self::default() }
    }

    /// The route's pattern.
    pub fn pattern(&self) -> &Arc<str> {
        &self.pattern
    }

    /// A request has its answer's head.
    pub fn answered(&self, asker: Asker, result: CacheResult) {
        if let Some(counter) = self.requests(asker).get(result as usize) {
            counter.add(1);
        }
    }

    /// Bytes of an answer's body were sent.
    pub fn sent(&self, source: Source, bytes: u64) {
        if let Some(counter) = self.sent_bytes.get(source as usize).filter(|_| bytes > 0) {
            counter.add(bytes);
        }
    }

    /// A stored response has left memory.
    pub fn removed(&self, why: Removal) {
        if let Some(counter) = self.removals.get(why as usize) {
            counter.add(1);
        }
    }

    /// A request waits for another's fetch, until the value is dropped.
    pub fn waits(&self) -> Waiting<'_> {
        self.waits.add(1);
        self.waiting.add(1);
        Waiting(self)
    }

    fn requests(&self, asker: Asker) -> &[Counter; CacheResult::ALL.len()] {
        match asker {
            Asker::Client => &self.clients,
            Asker::Worker => &self.workers,
            Asker::Peer => &self.peers,
        }
    }

    /// Whether there is something to show.
    pub(crate) fn is_used(&self) -> bool {
        let any = |counters: &[Counter]| counters.iter().any(|counter| counter.get() > 0);
        Asker::ALL.iter().any(|asker| any(self.requests(*asker)))
            || any(&self.removals)
            || self.disk_evictions.get() > 0
            || self.waits.get() > 0
            || self.fill_first_byte.count() > 0
    }
}

/// Counts a request as one that waits.
#[must_use]
pub struct Waiting<'a>(&'a RouteCounters);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.add(-1);
    }
}

/// The counters of all patterns that some table has.
#[derive(Debug, Default)]
pub struct ByRoute(Mutex<HashMap<Arc<str>, Weak<RouteCounters>>>);

impl ByRoute {
    /// Those of a pattern: they go on where another table has it too.
    pub fn of(&self, pattern: &Arc<str>) -> Arc<RouteCounters> {
        let mut all = self.0.lock();
        if let Some(counters) = all.get(pattern).and_then(Weak::upgrade) {
            return counters;
        }
        let counters = Arc::new(RouteCounters::new(pattern.clone()));
        all.insert(pattern.clone(), Arc::downgrade(&counters));
        counters
    }

    /// Forgets patterns that no table has any more.
    pub fn tidy(&self) {
        self.0.lock().retain(|_, counters| counters.strong_count() > 0);
    }
}

/// Those of `routes` that were used, in the order of their patterns; at most `max`.
pub(super) fn render(page: &mut Page, routes: &[Arc<RouteCounters>], max: usize) {
    let mut used: Vec<&RouteCounters> = routes.iter().map(Arc::as_ref).filter(|route| route.is_used()).collect();
    used.sort_unstable_by(|one, other| one.pattern.cmp(&other.pattern));
    used.truncate(max);
    if used.is_empty() {
        return;
    }
    let name = "selvedge_route_requests_total";
    page.head(name, "counter", "Answered requests of each route, by who asked and what the cache did.");
    for (route, asker) in used.iter().flat_map(|route| Asker::ALL.map(|asker| (route, asker))) {
        let counts = route.requests(asker).each_ref().map(Counter::get);
        if asker == Asker::Client || counts.iter().any(|count| *count > 0) {
            for (result, count) in CacheResult::ALL.iter().zip(counts) {
                page.line(name, &[("route", &route.pattern), ("asker", asker.name()), ("cache", result.name())], count);
            }
        }
    }
    let name = "selvedge_route_sent_bytes_total";
    page.head(name, "counter", "Body bytes of answers, by where they came from.");
    for route in &used {
        for (source, bytes) in Source::ALL.iter().zip(&route.sent_bytes) {
            page.line(name, &[("route", &route.pattern), ("tier", source.name())], bytes.get());
        }
    }
    let name = "selvedge_route_removals_total";
    page.head(name, "counter", "Stored responses that left memory, by cause.");
    for route in &used {
        for (why, count) in Removal::ALL.iter().zip(&route.removals) {
            page.line(name, &[("route", &route.pattern), ("cause", why.name())], count.get());
        }
    }
    let name = "selvedge_route_disk_evictions_total";
    page.head(name, "counter", "Stored responses, and slices of large ones, that the disk had no room for; counted where the route has stored something since the node started.");
    used.iter().for_each(|route| page.line(name, &[("route", &route.pattern)], route.disk_evictions.get()));
    let name = "selvedge_route_waits_total";
    page.head(name, "counter", "Requests that waited for another's fetch.");
    used.iter().for_each(|route| page.line(name, &[("route", &route.pattern)], route.waits.get()));
    let name = "selvedge_route_waiting";
    page.head(name, "gauge", "Requests that wait for another's fetch.");
    used.iter().for_each(|route| page.line(name, &[("route", &route.pattern)], route.waiting.get()));
    let name = "selvedge_route_fill_first_byte_seconds";
    page.head(name, "histogram", "Time from the begin of a fetch for the cache to its response's head.");
    used.iter().for_each(|route| page.histogram(name, &[("route", &route.pattern)], &route.fill_first_byte));
    let name = "selvedge_route_fill_seconds";
    page.head(name, "histogram", "Time from the begin of a fetch for the cache until it is stored.");
    used.iter().for_each(|route| page.histogram(name, &[("route", &route.pattern)], &route.fill));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_hit_writes_is_in_one_line_of_the_processors_cache_and_shared_with_no_other_route() {
        assert_eq!((align_of::<RouteCounters>(), size_of::<RouteCounters>() % 128), (128, 0));
        let memory = std::mem::offset_of!(RouteCounters, sent_bytes) + 8 * (Source::Memory as usize);
        assert!(memory + 8 <= 64, "{memory}");
    }

    #[test]
    fn counters_go_on_while_some_table_has_their_pattern_and_then_begin_anew() {
        let by_route = ByRoute::default();
        let pattern: Arc<str> = "a.test/*".into();
        let first = by_route.of(&pattern);
        first.answered(Asker::Client, CacheResult::Hit);
        let second = by_route.of(&"a.test/*".into());
        drop(first);
        by_route.tidy();
        assert!(Arc::ptr_eq(&second, &by_route.of(&pattern)) && second.is_used());
        drop(second);
        assert!(!by_route.of(&pattern).is_used());
        by_route.tidy();
        assert!(by_route.0.lock().is_empty());
    }

    #[test]
    fn unused_routes_show_nothing_and_used_ones_are_bounded_in_number() {
        let routes: Vec<Arc<RouteCounters>> = (0..9).map(|number| Arc::new(RouteCounters::new(format!("{number}/*").into()))).collect();
        let shown = |max| {
            let mut page = Page::default();
            render(&mut page, &routes, max);
            page.into_text()
        };
        assert_eq!(shown(9), "");
        for number in [7, 3, 5] {
            routes[number].answered(Asker::Peer, CacheResult::Miss);
        }
        let page = shown(2);
        assert!(page.contains("{route=\"3/*\",asker=\"peer\",cache=\"miss\"} 1\n") && page.contains("route=\"5/*\""), "{page}");
        assert!(!page.contains("7/*") && !page.contains("asker=\"worker\""), "{page}");
    }
}
