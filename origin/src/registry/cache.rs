//! What a route says of its cache: `[route.cache]` of a site file. The rules that read it are the edge's.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::{
    CACHE_NAME_BYTES_MAX, CACHE_RULES_MAX, COLLAPSE_WAIT_MS_MAX, DISCONNECTED_S_MIN, ENTRY_BYTES_MAX, ROUTE_S_MAX, SHARE_PERCENT_MAX,
    SLICE_BYTES_MAX, SLICE_BYTES_MIN,
};

/// `[route.cache]`. Every key has a default that no standard forbids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheSettings {
    /// Look up and store. Default: on for upstreams, off for workers (`None` means the default).
    pub enabled: Option<bool>,
    /// In front of a worker: a new version answers from what older ones left (wrangler: `cross_version_cache`). Default: no, each version has its own.
    pub cross_version: bool,
    /// Store responses that set cookies. Default: no.
    pub store_set_cookie: bool,
    /// Largest response that is stored, in bytes. Default: 64 MiB; at most [`ENTRY_BYTES_MAX`].
    pub entry_bytes_max: u64,
    /// Fetch and store what upstreams have in slices of so many bytes, each by a range, and only those that somebody wants; 0: all of it at once. Default: 0; else
    /// [`SLICE_BYTES_MIN`] to [`SLICE_BYTES_MAX`], and not more than `entry_bytes_max`.
    pub slice_bytes: u32,
    /// How long a request waits for another one's fetch of the same key, in milliseconds. Default: 10,000; at most [`COLLAPSE_WAIT_MS_MAX`].
    pub collapse_wait_ms: u32,
    /// Which directives of requests are followed. Default: those that cannot be used to make the upstream work.
    pub request_directives: RequestDirectives,
    /// Longest lifetime that is guessed from `Last-Modified`, in seconds; 0: none is. Default: a day; at most [`ROUTE_S_MAX`].
    pub heuristic_s_max: u32,
    /// How long a stale response stands in for an upstream that fails, where the response does not say, in seconds; 0: not at all. Default: a day; at most
    /// [`ROUTE_S_MAX`].
    pub stale_if_error_s: u32,
    /// For how long stored responses are good while the node does not hear its registry, in seconds: purges do not arrive then. Beyond, each is validated
    /// before it is sent; 0: never. Default: 0; else [`DISCONNECTED_S_MIN`] to [`ROUTE_S_MAX`].
    pub max_disconnected_s: u32,
    /// How long responses with these statuses are fresh that do not say it themselves, in seconds (negative caching). Default: none; at most [`ROUTE_S_MAX`].
    pub status_ttl_s: BTreeMap<u16, u32>,
    /// Up to so much of each lifetime is taken off by chance, in percent, so that what was stored together does not end together. Default: 0; at most
    /// [`SHARE_PERCENT_MAX`].
    pub ttl_jitter_percent: u8,
    /// In the last part of a lifetime, in percent of it, hits refresh the response in the background with rising odds. Default: 0; at most
    /// [`SHARE_PERCENT_MAX`].
    pub early_refresh_percent: u8,
    /// What responses may vary on, by the field's name. Fields that are not here: `pass`.
    pub vary: BTreeMap<String, VaryRule>,
    /// What of the query names a response. Default: all of it, as received.
    pub query: QueryRule,
    /// Ask the node that is the URL's shield before the upstream, where nodes of this region have peer addresses: the upstream then sees one fetch for all of
    /// them. Default: yes.
    pub shield: bool,
    /// Refuse to store a response whose path ends like a file of another type than it has (web cache deception). Default: yes.
    pub deception_check: bool,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            enabled: None,
            cross_version: false,
            store_set_cookie: false,
            entry_bytes_max: 64 << 20,
            slice_bytes: 0,
            collapse_wait_ms: 10_000,
            request_directives: RequestDirectives::Safe,
            heuristic_s_max: 86_400,
            stale_if_error_s: 86_400,
            max_disconnected_s: 0,
            status_ttl_s: BTreeMap::new(),
            ttl_jitter_percent: 0,
            early_refresh_percent: 0,
            vary: BTreeMap::new(),
            query: QueryRule::Keep,
            shield: true,
            deception_check: true,
        }
    }
}

/// Which directives of a request's `Cache-Control` are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestDirectives {
    /// None.
    None,
    /// `only-if-cached`, `max-stale`, and `no-store` where nothing fresh is stored: none of them makes a hit into a fetch.
    #[default]
    Safe,
    /// Also `no-cache`, `Pragma: no-cache`, `max-age` and `min-fresh`, by which any client can have the upstream asked.
    All,
}

/// What becomes of responses that vary on a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaryRule {
    /// They are not stored.
    Bypass,
    /// One is stored for each value.
    Pass,
    /// The request's field is reduced to the best of these (or taken off, where none suits), for the upstream and for what is stored.
    Normalise(Vec<String>),
}

/// What of the query names a response. What is left out is not sent to whoever answers either: otherwise one client's query would decide what all get.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum QueryRule {
    /// All of it, as received.
    #[default]
    Keep,
    /// Nothing.
    Ignore,
    /// All of it, its parameters in byte order.
    Sort,
    /// These parameters, in byte order.
    Only(Vec<String>),
}

impl CacheSettings {
    /// What is wrong with them: the key, and the rule that it breaks.
    pub fn check(&self) -> Result<(), (String, String)> {
        let bound = |key: &str, value: u64, max: u64| if value > max { Err((key.to_owned(), format!("at most {max}"))) } else { Ok(()) };
        bound("collapse_wait_ms", self.collapse_wait_ms.into(), COLLAPSE_WAIT_MS_MAX.into())?;
        bound("entry_bytes_max", self.entry_bytes_max, ENTRY_BYTES_MAX)?;
        let slice = u64::from(self.slice_bytes);
        if slice != 0 && !(SLICE_BYTES_MIN..=SLICE_BYTES_MAX.min(self.entry_bytes_max)).contains(&slice) {
            let rule = format!("0, or {SLICE_BYTES_MIN} to {SLICE_BYTES_MAX}, and at most entry_bytes_max");
            return Err(("slice_bytes".into(), rule));
        }
        bound("heuristic_s_max", self.heuristic_s_max.into(), ROUTE_S_MAX.into())?;
        bound("stale_if_error_s", self.stale_if_error_s.into(), ROUTE_S_MAX.into())?;
        bound("ttl_jitter_percent", self.ttl_jitter_percent.into(), SHARE_PERCENT_MAX.into())?;
        bound("early_refresh_percent", self.early_refresh_percent.into(), SHARE_PERCENT_MAX.into())?;
        if self.max_disconnected_s != 0 && !(DISCONNECTED_S_MIN..=ROUTE_S_MAX).contains(&self.max_disconnected_s) {
            return Err(("max_disconnected_s".into(), format!("0, or {DISCONNECTED_S_MIN} to {ROUTE_S_MAX}")));
        }
        self.check_status_ttl()?;
        self.check_vary()?;
        if let QueryRule::Only(names) = &self.query {
            check_names("query", names, |name| !name.bytes().any(|b| b.is_ascii_control() || matches!(b, b' ' | b'&' | b'=' | b'#')))?;
        }
        Ok(())
    }

    fn check_status_ttl(&self) -> Result<(), (String, String)> {
        if self.status_ttl_s.len() > CACHE_RULES_MAX {
            return Err(("status_ttl_s".into(), format!("at most {CACHE_RULES_MAX} statuses")));
        }
        for (status, seconds) in &self.status_ttl_s {
            let key = || format!("status_ttl_s.{status}");
            // What is partial, unchanged or not an answer yet has no lifetime of its own.
            if !(200..=999).contains(status) || matches!(status, 206 | 304) {
                return Err((key(), "a status from 200 to 999, but for 206 and 304".into()));
            }
            if *seconds > ROUTE_S_MAX {
                return Err((key(), format!("at most {ROUTE_S_MAX}")));
            }
        }
        Ok(())
    }

    fn check_vary(&self) -> Result<(), (String, String)> {
        if self.vary.len() > CACHE_RULES_MAX {
            return Err(("vary".into(), format!("at most {CACHE_RULES_MAX} fields")));
        }
        for (name, rule) in &self.vary {
            let key = format!("vary.{name}");
            let lower = http::HeaderName::from_bytes(name.as_bytes()).is_ok_and(|parsed| parsed.as_str() == name);
            if !lower || name == "*" || name.len() > CACHE_NAME_BYTES_MAX {
                return Err((key, "the name of a field, in lower case".into()));
            }
            if let VaryRule::Normalise(set) = rule {
                if !matches!(name.as_str(), "accept" | "accept-encoding" | "accept-language") {
                    return Err((key, "normalise is for accept, accept-encoding and accept-language".into()));
                }
                let token = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+' | b'/' | b'*');
                check_names(&key, set, |member| member.bytes().all(token))?;
            }
        }
        Ok(())
    }
}

fn check_names(key: &str, names: &[String], good: impl Fn(&str) -> bool) -> Result<(), (String, String)> {
    if names.is_empty() || names.len() > CACHE_RULES_MAX {
        return Err((key.to_owned(), format!("1 to {CACHE_RULES_MAX} names")));
    }
    match names.iter().find(|name| name.is_empty() || name.len() > CACHE_NAME_BYTES_MAX || !good(name)) {
        Some(bad) => Err((key.to_owned(), format!("{bad:?} is no name"))),
        None => Ok(()),
    }
}

impl fmt::Display for VaryRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bypass => f.write_str("bypass"),
            Self::Pass => f.write_str("pass"),
            Self::Normalise(set) => write!(f, "normalise:{}", set.join(",")),
        }
    }
}

impl Serialize for VaryRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VaryRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "bypass" => Ok(Self::Bypass),
            "pass" => Ok(Self::Pass),
            other => match other.strip_prefix("normalise:") {
                Some(set) => Ok(Self::Normalise(set.split(',').map(|member| member.trim().to_ascii_lowercase()).collect())),
                None => Err(de::Error::custom(format!("{other:?}: write \"bypass\", \"pass\" or \"normalise:A,B\""))),
            },
        }
    }
}

impl Serialize for QueryRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Keep => serializer.serialize_str("keep"),
            Self::Ignore => serializer.serialize_str("ignore"),
            Self::Sort => serializer.serialize_str("sort"),
            Self::Only(names) => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for QueryRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Word(String),
            Names(Vec<String>),
        }
        let what = "write \"keep\", \"ignore\", \"sort\", or a list of the parameters that count";
        match Raw::deserialize(deserializer).map_err(|_| de::Error::custom(what))? {
            Raw::Names(names) => Ok(Self::Only(names)),
            Raw::Word(word) => match word.as_str() {
                "keep" => Ok(Self::Keep),
                "ignore" => Ok(Self::Ignore),
                "sort" => Ok(Self::Sort),
                other => Err(de::Error::custom(format!("{other:?}: {what}"))),
            },
        }
    }
}

/// For tests/fuzz: any text is settings or an error; settings that pass the check are written and read as the same.
pub fn fuzz(bytes: &[u8]) {
    let Ok(settings) = serde_json::from_slice::<CacheSettings>(bytes) else { return };
    if settings.check().is_ok() {
        let text = serde_json::to_string(&settings).unwrap_or_default();
        assert_eq!(serde_json::from_str::<CacheSettings>(&text).ok().as_ref(), Some(&settings));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<CacheSettings, String> {
        serde_json::from_str::<CacheSettings>(text).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_are_read_as_they_are_written() {
        let settings = CacheSettings {
            request_directives: RequestDirectives::All,
            status_ttl_s: [(404, 10), (503, 1)].into(),
            vary: [("accept-encoding".into(), VaryRule::Normalise(vec!["br".into(), "gzip".into()])), ("cookie".into(), VaryRule::Bypass)]
                .into(),
            query: QueryRule::Only(vec!["page".into()]),
            ..CacheSettings::default()
        };
        let text = serde_json::to_string(&settings).expect("writes");
        assert!(text.contains(r#""accept-encoding":"normalise:br,gzip""#) && text.contains(r#""query":["page"]"#), "{text}");
        assert_eq!(read(&text), Ok(settings));
        assert_eq!(read("{}"), Ok(CacheSettings::default()));
    }

    #[test]
    fn what_is_not_one_is_refused_by_name() {
        for (text, expected) in [
            (r#"{"querry":"keep"}"#, "querry"),
            (r#"{"query":"kept"}"#, "kept"),
            (r#"{"vary":{"cookie":"ignore"}}"#, "ignore"),
            (r#"{"request_directives":"some"}"#, "some"),
            (r#"{"status_ttl_s":{"4xx":1}}"#, "column 20"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        for (text, key) in [
            (r#"{"ttl_jitter_percent":51}"#, "ttl_jitter_percent"),
            (r#"{"early_refresh_percent":99}"#, "early_refresh_percent"),
            (r#"{"stale_if_error_s":604801}"#, "stale_if_error_s"),
            (r#"{"heuristic_s_max":604801}"#, "heuristic_s_max"),
            (r#"{"max_disconnected_s":14}"#, "max_disconnected_s"),
            (r#"{"slice_bytes":65535}"#, "slice_bytes"),
            (r#"{"slice_bytes":16777217}"#, "slice_bytes"),
            (r#"{"slice_bytes":1048576,"entry_bytes_max":1048575}"#, "slice_bytes"),
            (r#"{"max_disconnected_s":604801}"#, "max_disconnected_s"),
            (r#"{"status_ttl_s":{"206":1}}"#, "status_ttl_s.206"),
            (r#"{"status_ttl_s":{"404":604801}}"#, "status_ttl_s.404"),
            (r#"{"vary":{"Cookie":"pass"}}"#, "vary.Cookie"),
            (r#"{"vary":{"cookie":"normalise:a"}}"#, "vary.cookie"),
            (r#"{"vary":{"accept":"normalise:"}}"#, "vary.accept"),
            (r#"{"query":[]}"#, "query"),
            (r#"{"query":["a&b"]}"#, "query"),
        ] {
            assert_eq!(read(text).expect(text).check().expect_err(text).0, key);
        }
    }
}
