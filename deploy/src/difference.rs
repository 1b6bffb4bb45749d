//! What differs between two declarations of a route, key by key, for people. Pure.

use std::collections::BTreeMap;

use selvedge_origin::registry::RouteRecord;
use serde_json::Value;

/// Longest text of a value that is shown, in characters; certificates are longer.
const VALUE_CHARS_MAX: usize = 60;

/// The keys, as a site file spells them, whose values differ: `cache.entry_bytes_max: 1048576 -> 2097152`. A value that is not given is the default.
pub fn keys(before: &RouteRecord, after: &RouteRecord) -> Vec<String> {
    let (before, after) = (leaves(before), leaves(after));
    let all: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = all.into_iter().filter(|key| before.get(*key) != after.get(*key));
    changed
        .map(|key| {
            let missing = if key.starts_with("upstream.servers[") { "none" } else { "default" };
            let text = |side: &BTreeMap<String, String>| shown(side.get(key).map_or(missing, String::as_str));
            let (old, new) = (text(&before), text(&after));
            // Long texts that begin alike differ all the same.
            if old == new { format!("{key}: changed") } else { format!("{key}: {old} -> {new}") }
        })
        .collect()
}

/// The settings of a route's cache that are not the default: `cache.entry_bytes_max: 1048576`.
pub fn cache(route: &RouteRecord) -> Vec<String> {
    let (usual, own) = (leaves(&RouteRecord { cache: Default::default(), ..route.clone() }), leaves(route));
    let given = own.into_iter().filter(|(key, value)| key.starts_with("cache.") && usual.get(key) != Some(value));
    given.map(|(key, value)| format!("{key}: {}", shown(&value))).collect()
}

fn leaves(route: &RouteRecord) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    if let Ok(value) = serde_json::to_value(route) {
        flatten(String::new(), &value, &mut leaves);
    }
    if let Some(upstream) = &route.upstream {
        // An upstream that is only an address is written as that.
        leaves.remove("upstream");
        leaves.retain(|key, _| !key.starts_with("upstream.servers"));
        for server in &upstream.servers {
            let backup = if server.backup { ", backup" } else { "" };
            leaves.insert(format!("upstream.servers[{}]", server.address), format!("weight {}{backup}", server.weight));
        }
    }
    leaves
}

fn flatten(key: String, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(key, value, leaves);
            }
        }
        value => drop(leaves.insert(key, value.to_string())),
    }
}

fn shown(text: &str) -> String {
    let (begin, count): (String, usize) = (text.chars().take(VALUE_CHARS_MAX).collect(), text.chars().count());
    if count > VALUE_CHARS_MAX { format!("{begin}… ({count} characters)") } else { begin }
}

#[cfg(test)]
mod tests {
    use super::*;
    use selvedge_origin::registry::{RouteOwner, Server, Upstream};

    fn route(upstream: Upstream) -> RouteRecord {
        RouteRecord {
            pattern: "a.test/*".into(),
            owner: RouteOwner::Site("www".parse().expect("a name")),
            worker: None,
            upstream: Some(upstream),
            redirect_to_https: false,
            cache: Default::default(),
            compress: Default::default(),
            early_hints: false,
        }
    }

    #[test]
    fn a_number_is_shown_with_what_it_was() {
        let before = route("http://a".into());
        let mut after = route(Upstream { requests_max: Some(7), ..Upstream::at("http://a") });
        after.cache.entry_bytes_max = 5;
        after.cache.status_ttl_s.insert(404, 10);
        after.compress.min_bytes = 9;
        let expected = [
            "cache.entry_bytes_max: 67108864 -> 5",
            "cache.status_ttl_s.404: default -> 10",
            "compress.min_bytes: 512 -> 9",
            "upstream.requests_max: default -> 7",
        ];
        assert_eq!(keys(&before, &after), expected);
        assert_eq!(keys(&after, &before)[3], "upstream.requests_max: 7 -> default");
        assert!(keys(&after, &after).is_empty());
        assert_eq!(cache(&after), ["cache.entry_bytes_max: 5", "cache.status_ttl_s.404: 10"]);
        assert!(cache(&before).is_empty());
    }

    #[test]
    fn servers_are_told_apart_by_their_addresses_and_long_values_are_cut() {
        let servers = |servers: &[(&str, u32)]| {
            let server = |(address, weight): &(&str, u32)| Server { weight: *weight, ..Server::at(*address) };
            servers.iter().map(server).collect::<Vec<_>>()
        };
        let before = Upstream { servers: servers(&[("https://a", 1), ("https://b", 1)]), ..Upstream::default() };
        let after =
            Upstream { servers: servers(&[("https://b", 3), ("https://c", 1)]), authority: Some("x".repeat(999)), ..before.clone() };
        let other = Upstream { authority: Some(format!("{}y", "x".repeat(998))), ..after.clone() };
        let (before, after, other) = (route(before), route(after), route(other));
        let expected = [
            format!("upstream.authority: default -> \"{}… (1001 characters)", "x".repeat(59)),
            "upstream.servers[https://a]: weight 1 -> none".into(),
            "upstream.servers[https://b]: weight 1 -> weight 3".into(),
            "upstream.servers[https://c]: none -> weight 1".into(),
        ];
        assert_eq!(keys(&before, &after), expected);
        assert_eq!(keys(&after, &other), ["upstream.authority: changed"]);
    }
}
