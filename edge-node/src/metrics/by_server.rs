//! What is shown of the servers of upstreams.

use std::collections::BTreeMap;

use super::page::Page;
use crate::upstream::ServerReading;

type Figure = (&'static str, &'static str, &'static str, fn(&ServerReading) -> u64);

const FIGURES: [Figure; 6] = [
    ("selvedge_upstream_server_up", "gauge", "1 while its health checks find it up and it is not ejected.", |server| server.up.into()),
    ("selvedge_upstream_server_requests_total", "counter", "Requests that it was asked.", |server| server.requests),
    ("selvedge_upstream_server_failures_total", "counter", "Those that failed.", |server| server.failures),
    ("selvedge_upstream_server_ejections_total", "counter", "How often it was left alone for failing.", |server| server.ejections),
    ("selvedge_upstream_server_in_flight", "gauge", "Requests in flight.", |server| server.in_flight as u64),
    ("selvedge_upstream_server_queued", "gauge", "Requests that wait for it.", |server| server.queued as u64),
];

/// Those of each upstream's name and address, at most `max`. Upstreams may have both in common and differ in how they ask: what a server was to them is added up (a scraper
/// refuses series that are there twice), and it is up where it is for all.
pub(super) fn render(page: &mut Page, servers: &[ServerReading], max: usize) {
    let mut by_name: BTreeMap<(&str, &str), ServerReading> = BTreeMap::new();
    for server in servers {
        by_name.entry((&server.upstream, &server.address)).and_modify(|sum| add(sum, server)).or_insert_with(|| server.clone());
    }
    for (name, kind, help, figure) in FIGURES {
        page.head(name, kind, help);
        for ((upstream, address), server) in by_name.iter().take(max) {
            page.line(name, &[("upstream", upstream), ("server", address)], figure(server));
        }
    }
}

fn add(sum: &mut ServerReading, other: &ServerReading) {
    sum.up &= other.up;
    sum.requests += other.requests;
    sum.failures += other.failures;
    sum.ejections += other.ejections;
    sum.in_flight += other.in_flight;
    sum.queued += other.queued;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_two_upstreams_is_shown_once_with_both_sums_and_is_up_where_it_is_for_both() {
        let server = |upstream: &str, up, requests| ServerReading {
            upstream: upstream.into(),
            address: "http://10.0.0.1/".into(),
            up,
            requests,
            failures: 1,
            ejections: 0,
            in_flight: 2,
            queued: 0,
        };
        let mut page = Page::default();
        render(&mut page, &[server("a", true, 3), server("b", true, 7), server("a", false, 4)], 9);
        let page = page.into_text();
        for (figure, a, b) in [("up", 0, 1), ("requests_total", 7, 7), ("failures_total", 2, 1), ("in_flight", 4, 2)] {
            for (upstream, value) in [("a", a), ("b", b)] {
                let line = format!("selvedge_upstream_server_{figure}{{upstream=\"{upstream}\",server=\"http://10.0.0.1/\"}} {value}");
                assert_eq!(page.lines().filter(|shown| **shown == line).count(), 1, "{line}\n{page}");
            }
        }
        assert_eq!(page.lines().filter(|line| !line.starts_with('#')).count(), 12);
    }
}
