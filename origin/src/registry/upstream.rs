//! An upstream as its owner declares it: the customer's own servers, how they share the requests, and how they are spoken to. Pure.
//!
//! In a site file and in JSON it is an address (`"https://10.0.0.7"`: one server, everything else as it is by default) or a table.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{
    AUTHORITY_BYTES_MAX, HEALTH_INTERVAL_MS_MAX, HEALTH_INTERVAL_MS_MIN, HEALTH_PATH_BYTES_MAX, HEALTH_STREAK_MAX, RETRIES_MAX,
    RETRY_STATUSES_MAX, UPSTREAM_BYTES_MAX, UPSTREAM_EJECTION_MS_MAX, UPSTREAM_FAILURES_MAX, UPSTREAM_KEEP_ALIVE_REQUESTS_MAX,
    UPSTREAM_NAME_BYTES_MAX, UPSTREAM_REQUESTS_MAX, UPSTREAM_SERVERS_MAX, UPSTREAM_WAIT_MS_MAX, UPSTREAM_WEIGHT_MAX,
};
use crate::tls;

/// Servers that answer for a route. Where a number is not given, the node's default holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct Upstream {
    /// What status and metrics call it. Without one, its first address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The servers, 1 to 32.
    pub servers: Vec<Server>,
    /// What is spoken.
    #[serde(skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// The `Host` field that the servers get; without it, the client's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The name that TLS asks for and that certificates must carry; without it, the host of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Certificates (PEM) of the only authorities that are trusted for these servers; without it, the public ones and the node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Requests in flight from one node to one of the servers, 1 to 65,536. Default 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_max: Option<u32>,
    /// Requests that wait on one node for one of the servers beyond those, 0 to 65,536. Default 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_max: Option<u32>,
    /// Time that a request waits in that queue, in milliseconds, up to 600,000. Default 5000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_wait_ms: Option<u32>,
    /// Time for a connection (name, TCP, TLS), in milliseconds, 1 to 600,000. Default 10,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout_ms: Option<u32>,
    /// Time to the response's head, counted from the last progress of the request's body, in milliseconds, 1 to 600,000. Default 30,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_timeout_ms: Option<u32>,
    /// Time without a byte of the response's body, in milliseconds, 1 to 600,000. Default 30,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_idle_timeout_ms: Option<u32>,
    /// How long connections are kept.
    #[serde(skip_serializing_if = "is_default")]
    pub keep_alive: KeepAlive,
    /// Asks each server how it is; without it, only answers to clients tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// Leaves a server alone for a while that fails again and again.
    #[serde(skip_serializing_if = "is_default")]
    pub ejection: Ejection,
    /// Asks another server where one failed.
    #[serde(skip_serializing_if = "is_default")]
    pub retries: Retries,
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// `http://HOST[:PORT]` or `https://HOST[:PORT]`, perhaps with a path that goes before the request's.
    pub address: String,
    /// Its share among the servers, 1 to 1000.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u32,
    /// Asked only while no other server is up.
    #[serde(default, skip_serializing_if = "is_default")]
    pub backup: bool,
}

/// What is spoken to the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/2 where the server offers it in TLS, else HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    H1,
    /// HTTP/2: by TLS, or in cleartext with prior knowledge (RFC 9113, section 3.3).
    H2,
}

/// How long connections to the servers are kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeepAlive {
    /// Time without a request, in milliseconds; 0: a connection serves one request. Default 50,000, at most 600,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u32>,
    /// Requests that one connection serves, 1 to 1,000,000. Default: no such bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_max: Option<u32>,
}

/// A question that each node which routes to a server asks it again and again: a GET that 2xx and 3xx answer well.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheck {
    /// Path and query.
    pub path: String,
    /// Between two questions, in milliseconds, 100 to 3,600,000; each time up to a tenth more or less.
    pub interval_ms: u32,
    /// Until the whole answer is here, in milliseconds, 1 to 600,000.
    pub timeout_ms: u32,
    /// Good answers in a row after which a server that is down is up, 1 to 100.
    pub up_after: u32,
    /// Bad answers in a row after which a server is down, 1 to 100.
    pub down_after: u32,
}

/// What happens to a server whose answers to clients fail in a row. Never to all: where no other is up, an ejected one is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ejection {
    /// Failures in a row (no answer, or one of `retries.statuses`), up to 1000. 0: never.
    pub failures: u32,
    /// For how long the first time, in milliseconds, 1 to 3,600,000; twice as long each time in a row, up to eight times.
    pub ms: u32,
}

/// When another server is asked: for a method that may be repeated (RFC 9110, section 9.2.2) and whose body is still here, or where nothing was sent yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retries {
    /// Servers beside the first that one request may ask, up to 10.
    pub max: u32,
    /// Retries in percent of requests, up to 100 (and ten at once after a quiet time): when everything fails, retries must not multiply the load.
    pub budget_percent: u32,
    /// No further server after this long, in milliseconds, 1 to 600,000.
    pub deadline_ms: u32,
    /// Answers that count as failures, at most 16 of 500 to 599.
    pub statuses: BTreeSet<u16>,
}

/// A rule that an upstream breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {rule}")]
pub struct BadUpstream {
    /// What of the upstream: `servers[1].weight`.
    pub key: String,
    /// The rule.
    pub rule: String,
}

fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_one(weight: &u32) -> bool {
    *weight == 1
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self { path: "/".to_owned(), interval_ms: 5_000, timeout_ms: 2_000, up_after: 2, down_after: 3 }
    }
}

impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 5, ms: 10_000 }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self { max: 2, budget_percent: 20, deadline_ms: 10_000, statuses: BTreeSet::from([502, 503, 504]) }
    }
}

impl Server {
    /// A server with the weight 1.
    pub fn at(address: impl Into<String>) -> Self {
        Self { address: address.into(), weight: 1, backup: false }
    }
}

impl Upstream {
    /// One server, everything else as it is by default.
    pub fn at(address: impl Into<String>) -> Self {
        Self { servers: vec![Server::at(address)], ..Self::default() }
    }

    /// The address, where it is all that is said.
    pub fn as_address(&self) -> Option<&str> {
        let address = &self.servers.first()?.address;
        (*self == Self::at(address.as_str())).then_some(address)
    }

    /// What status and metrics call it.
    pub fn title(&self) -> &str {
        self.name.as_deref().or_else(|| self.servers.first().map(|server| server.address.as_str())).unwrap_or_default()
    }

    /// Bytes that it takes in a record, about.
    pub fn weight_bytes(&self) -> usize {
        let texts = [&self.name, &self.host, &self.server_name, &self.authority];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        texts + self.servers.iter().map(|server| server.address.len() + 64).sum::<usize>()
    }

    /// Whether it is within every bound; else the first rule that it breaks.
    pub fn check(&self) -> Result<(), BadUpstream> {
        if let Some(name) = &self.name {
            let bytes = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            rule("name", (1..=UPSTREAM_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(bytes), || {
                format!("1 to {UPSTREAM_NAME_BYTES_MAX} of a-z, A-Z, 0-9, '-', '_' and '.'")
            })?;
        }
        rule("servers", (1..=UPSTREAM_SERVERS_MAX).contains(&self.servers.len()), || format!("1 to {UPSTREAM_SERVERS_MAX} servers"))?;
        let mut addresses = BTreeSet::new();
        for (index, server) in self.servers.iter().enumerate() {
            let key = |field| format!("servers[{index}].{field}");
            let uri = check_address(&server.address).map_err(|rule| BadUpstream { key: key("address"), rule: rule.to_owned() })?;
            range(&key("weight"), Some(server.weight), 1, UPSTREAM_WEIGHT_MAX)?;
            rule(&key("address"), addresses.insert(&server.address), || format!("{} is there twice", server.address))?;
            if uri.scheme_str() == Some("http") {
                let tls_only = self.server_name.is_some() || self.authority.is_some();
                rule(&key("address"), !tls_only, || "server_name and authority are for https addresses only".to_owned())?;
            }
        }
        rule("servers", !self.servers.iter().all(|server| server.backup), || "at least one server is no backup".to_owned())?;
        self.check_tls()?;
        self.check_numbers()
    }

    fn check_tls(&self) -> Result<(), BadUpstream> {
        if let Some(host) = &self.host {
            let authority = host.parse::<http::uri::Authority>().is_ok_and(|authority| !authority.as_str().contains('@'));
            rule("host", authority && host.len() <= 255, || "a host name or address, perhaps with a port".to_owned())?;
        }
        if let Some(name) = &self.server_name {
            let known = rustls_pki_types::ServerName::try_from(name.as_str()).is_ok();
            rule("server_name", known, || "a host name or an address".to_owned())?;
        }
        if let Some(pem) = &self.authority {
            rule("authority", pem.len() <= AUTHORITY_BYTES_MAX, || format!("longer than {AUTHORITY_BYTES_MAX} bytes"))?;
            tls::trust(pem).map_err(|why| BadUpstream { key: "authority".to_owned(), rule: why })?;
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), BadUpstream> {
        range("requests_max", self.requests_max, 1, UPSTREAM_REQUESTS_MAX)?;
        range("queue_max", self.queue_max, 0, UPSTREAM_REQUESTS_MAX)?;
        range("queue_wait_ms", self.queue_wait_ms, 0, UPSTREAM_WAIT_MS_MAX)?;
        range("connect_timeout_ms", self.connect_timeout_ms, 1, UPSTREAM_WAIT_MS_MAX)?;
        range("head_timeout_ms", self.head_timeout_ms, 1, UPSTREAM_WAIT_MS_MAX)?;
        range("body_idle_timeout_ms", self.body_idle_timeout_ms, 1, UPSTREAM_WAIT_MS_MAX)?;
        range("keep_alive.idle_ms", self.keep_alive.idle_ms, 0, UPSTREAM_WAIT_MS_MAX)?;
        range("keep_alive.requests_max", self.keep_alive.requests_max, 1, UPSTREAM_KEEP_ALIVE_REQUESTS_MAX)?;
        if let Some(health) = &self.health {
            let bytes = |b: u8| (0x21..=0x7e).contains(&b) && b != b'#';
            let path = health.path.starts_with('/') && health.path.len() <= HEALTH_PATH_BYTES_MAX && health.path.bytes().all(bytes);
            rule("health.path", path, || format!("a path of at most {HEALTH_PATH_BYTES_MAX} bytes of printable ASCII, beginning with /"))?;
            range("health.interval_ms", Some(health.interval_ms), HEALTH_INTERVAL_MS_MIN, HEALTH_INTERVAL_MS_MAX)?;
            range("health.timeout_ms", Some(health.timeout_ms), 1, UPSTREAM_WAIT_MS_MAX)?;
            range("health.up_after", Some(health.up_after), 1, HEALTH_STREAK_MAX)?;
            range("health.down_after", Some(health.down_after), 1, HEALTH_STREAK_MAX)?;
        }
        range("ejection.failures", Some(self.ejection.failures), 0, UPSTREAM_FAILURES_MAX)?;
        range("ejection.ms", Some(self.ejection.ms), 1, UPSTREAM_EJECTION_MS_MAX)?;
        range("retries.max", Some(self.retries.max), 0, RETRIES_MAX)?;
        range("retries.budget_percent", Some(self.retries.budget_percent), 0, 100)?;
        range("retries.deadline_ms", Some(self.retries.deadline_ms), 1, UPSTREAM_WAIT_MS_MAX)?;
        let statuses = &self.retries.statuses;
        let known = statuses.len() <= RETRY_STATUSES_MAX && statuses.iter().all(|status| (500..=599).contains(status));
        rule("retries.statuses", known, || format!("at most {RETRY_STATUSES_MAX} statuses from 500 to 599"))
    }
}

fn rule(key: &str, holds: bool, text: impl FnOnce() -> String) -> Result<(), BadUpstream> {
    if holds { Ok(()) } else { Err(BadUpstream { key: key.to_owned(), rule: text() }) }
}

fn range(key: &str, value: Option<u32>, min: u32, max: u32) -> Result<(), BadUpstream> {
    let value = value.unwrap_or(min);
    rule(key, (min..=max).contains(&value), || format!("{value} is not from {min} to {max}"))
}

/// An absolute http or https address without user, query and fragment.
pub fn check_address(text: &str) -> Result<http::Uri, &'static str> {
    if text.len() > UPSTREAM_BYTES_MAX {
        return Err("longer than 2048 bytes");
    }
    let rule = "must be http://HOST[:PORT] or https://HOST[:PORT], perhaps with a path";
    let uri: http::Uri = text.parse().map_err(|_| rule)?;
    let authority = uri.authority().ok_or(rule)?;
    if authority.as_str().contains('@') {
        return Err("an upstream has no user or password");
    }
    if uri.query().is_some() || text.contains('#') {
        return Err("an upstream has no query and no fragment");
    }
    if authority.host().is_empty() || !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(rule);
    }
    Ok(uri)
}

impl<T: Into<String>> From<T> for Upstream {
    fn from(address: T) -> Self {
        Self::at(address)
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name} ")?;
        }
        let servers: Vec<String> = self
            .servers
            .iter()
            .map(|server| match (server.weight, server.backup) {
                (1, false) => server.address.clone(),
                (1, true) => format!("{} backup", server.address),
                (weight, false) => format!("{} weight {weight}", server.address),
                (weight, true) => format!("{} backup weight {weight}", server.address),
            })
            .collect();
        match (servers.as_slice(), &self.name) {
            ([only], None) => f.write_str(only),
            _ => write!(f, "({})", servers.join(", ")),
        }
    }
}

impl Serialize for Upstream {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_address() {
            Some(address) => serializer.serialize_str(address),
            None => Self::serialize(self, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AddressOrTable)
    }
}

struct AddressOrTable;

impl<'de> Visitor<'de> for AddressOrTable {
    type Value = Upstream;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address such as \"https://10.0.0.7\", or a table with servers")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Upstream, E> {
        Ok(Upstream::at(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Upstream, A::Error> {
        let upstream = Upstream::deserialize(MapAccessDeserializer::new(map))?;
        if upstream.servers.is_empty() {
            return Err(A::Error::custom("an upstream needs servers, such as servers = [{ address = \"https://10.0.0.7\" }]"));
        }
        Ok(upstream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Upstream, String> {
        serde_json::from_str(json).map_err(|error: serde_json::Error| error.to_string())
    }

    fn broken(json: &str) -> String {
        read(json).and_then(|upstream| upstream.check().map_err(|bad| bad.to_string())).expect_err(json)
    }

    #[test]
    fn an_address_and_the_table_that_says_no_more_are_the_same_and_stay_a_string() {
        let address = read("\"https://10.0.0.7\"").expect("reads");
        let table = read("{\"servers\": [{\"address\": \"https://10.0.0.7\"}]}").expect("reads");
        assert_eq!(address, table);
        assert_eq!(serde_json::to_string(&table).expect("writes"), "\"https://10.0.0.7\"");
    }

    #[test]
    fn a_whole_table_survives_the_wire() {
        let json = "{\"name\":\"shop\",\"servers\":[{\"address\":\"https://a\",\"weight\":3},{\"address\":\"https://b\",\"backup\":true}],\
                    \"protocol\":\"h2\",\"host\":\"shop.example\",\"server_name\":\"shop.internal\",\"requests_max\":10,\"queue_max\":0,\
                    \"keep_alive\":{\"idle_ms\":0},\"health\":{\"path\":\"/ok\",\"interval_ms\":100,\"timeout_ms\":50,\"up_after\":1,\"down_after\":1},\
                    \"ejection\":{\"failures\":0,\"ms\":1},\"retries\":{\"max\":0,\"budget_percent\":0,\"deadline_ms\":1,\"statuses\":[]}}";
        let upstream = read(json).expect("reads");
        upstream.check().expect("within its bounds");
        assert_eq!(serde_json::to_string(&upstream).expect("writes"), json);
    }

    #[test]
    fn every_number_has_a_bound_and_an_error_by_name() {
        let number = |key: &str, value: u64| match key.split_once('.') {
            Some((table, field)) => format!("{{\"servers\":[{{\"address\":\"http://a\"}}],\"{table}\":{{\"{field}\":{value}}}}}"),
            None => format!("{{\"servers\":[{{\"address\":\"http://a\"}}],\"{key}\":{value}}}"),
        };
        for (key, min, max) in [
            ("requests_max", 1, 65_536),
            ("queue_max", 0, 65_536),
            ("queue_wait_ms", 0, 600_000),
            ("connect_timeout_ms", 1, 600_000),
            ("head_timeout_ms", 1, 600_000),
            ("body_idle_timeout_ms", 1, 600_000),
            ("keep_alive.idle_ms", 0, 600_000),
            ("keep_alive.requests_max", 1, 1_000_000),
            ("health.interval_ms", 100, 3_600_000),
            ("health.timeout_ms", 1, 600_000),
            ("health.up_after", 1, 100),
            ("health.down_after", 1, 100),
            ("ejection.failures", 0, 1_000),
            ("ejection.ms", 1, 3_600_000),
            ("retries.max", 0, 10),
            ("retries.budget_percent", 0, 100),
            ("retries.deadline_ms", 1, 600_000),
        ] {
            for good in [min, max] {
                read(&number(key, good)).expect("reads").check().unwrap_or_else(|bad| panic!("{key} = {good}: {bad}"));
            }
            assert!(broken(&number(key, max + 1)).starts_with(key), "{key}");
            if let Some(below) = min.checked_sub(1) {
                assert!(broken(&number(key, below)).starts_with(key), "{key}");
            }
        }
    }

    #[test]
    fn what_is_no_upstream_is_refused_by_name() {
        let servers = |servers: &str, rest: &str| format!("{{\"servers\":[{servers}]{rest}}}");
        let a = "{\"address\":\"http://a\"}";
        for (json, word) in [
            (servers("", ""), "needs servers"),
            (servers(&vec![a; 33].join(","), ""), "servers: 1 to 32"),
            (servers(&format!("{a},{a}"), ""), "servers[1].address"),
            (servers("{\"address\":\"http://a\",\"weight\":0}", ""), "servers[0].weight"),
            (servers("{\"address\":\"http://a\",\"weight\":1001}", ""), "servers[0].weight"),
            (servers("{\"address\":\"http://a\",\"backup\":true}", ""), "no backup"),
            (servers("{\"address\":\"ftp://a\"}", ""), "servers[0].address"),
            (servers("{\"address\":\"http://u:p@a\"}", ""), "user or password"),
            (servers("{\"address\":\"http://a?b\"}", ""), "query"),
            (servers("{\"address\":\"http://a\",\"wieght\":2}", ""), "wieght"),
            (servers(a, ",\"sticky\":true"), "sticky"),
            (servers(a, ",\"protocol\":\"h3\""), "h3"),
            (servers(a, ",\"name\":\"a b\""), "name"),
            (servers(a, ",\"server_name\":\"a\""), "https addresses only"),
            (servers("{\"address\":\"https://a\"}", ",\"server_name\":\"a b\""), "server_name"),
            (servers("{\"address\":\"https://a\"}", ",\"authority\":\"no certificate\""), "authority"),
            (servers(a, ",\"host\":\"a b\""), "host"),
            (servers(a, ",\"health\":{\"path\":\"ok\"}"), "health.path"),
            (servers(a, ",\"health\":{\"path\":\"/a b\"}"), "health.path"),
            (servers(a, ",\"retries\":{\"statuses\":[404]}"), "retries.statuses"),
            ("7".to_owned(), "an address such as"),
        ] {
            let refused = broken(&json);
            assert!(refused.contains(word), "{json}: {refused}");
        }
    }
}
