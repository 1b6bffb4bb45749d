//! The supported keys as they are written, before their values are checked.

use std::collections::BTreeMap;
use std::fmt;

use selvedge_origin::registry::CompressSettings;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

use super::Problem;
use super::format::Table;

/// The file's supported keys.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProject {
    pub(super) name: Option<String>,
    pub(super) main: Option<String>,
    pub(super) compatibility_date: Option<String>,
    #[serde(default)]
    pub(super) compatibility_flags: Vec<String>,
    #[serde(default)]
    pub(super) vars: BTreeMap<String, serde_json::Value>,
    pub(super) route: Option<RawRoute>,
    pub(super) routes: Option<Vec<RawRoute>>,
    pub(super) limits: Option<RawLimits>,
    pub(super) cache: Option<RawCache>,
    #[serde(default)]
    pub(super) compress: CompressSettings,
    #[serde(default)]
    pub(super) early_hints: bool,
}

/// `limits`.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) cpu_ms: Option<u32>,
    pub(super) subrequests: Option<u32>,
}

/// `cache`.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCache {
    pub(super) enabled: Option<bool>,
    #[serde(default)]
    pub(super) cross_version_cache: bool,
}

/// One route: a pattern, or a table with a pattern.
#[derive(Debug)]
pub(super) struct RawRoute {
    pattern: String,
    custom_domain: bool,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteTable {
    pattern: String,
    #[serde(default, rename = "zone_name")]
    _zone_name: Option<String>,
    #[serde(default, rename = "zone_id")]
    _zone_id: Option<String>,
    #[serde(default)]
    custom_domain: bool,
}

impl<'de> Deserialize<'de> for RawRoute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Route;
        impl<'de> Visitor<'de> for Route {
            type Value = RawRoute;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pattern such as \"example.org/*\", or {pattern, zone_name} or {pattern, custom_domain}")
            }

            fn visit_str<E: de::Error>(self, pattern: &str) -> Result<RawRoute, E> {
                Ok(RawRoute { pattern: pattern.to_owned(), custom_domain: false })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawRoute, A::Error> {
                let table = RouteTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RawRoute { pattern: table.pattern, custom_domain: table.custom_domain })
            }
        }
        deserializer.deserialize_any(Route)
    }
}

impl RawProject {
    /// Reads the table; an error names the key's path.
    pub(super) fn read(table: Table) -> Result<Self, Problem> {
        serde_path_to_error::deserialize(serde_json::Value::Object(table))
            .map_err(|error| Problem::value(error.path().to_string(), error.inner().to_string()))
    }
}

impl RawRoute {
    /// The pattern in the registry's form, `HOST/PATH`: a scheme is dropped, a custom domain means all of its paths. Its finer rules
    /// are the registry's.
    pub(super) fn pattern(self) -> Result<String, String> {
        let pattern = self.pattern.trim();
        let bare = pattern.strip_prefix("https://").or_else(|| pattern.strip_prefix("http://")).unwrap_or(pattern);
        if bare.is_empty() {
            return Err("the pattern is empty".to_owned());
        }
        if bare.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(format!("the pattern {bare:?} has blanks in it"));
        }
        if self.custom_domain {
            if bare.contains(['/', '*']) {
                return Err(format!("{bare:?}: a custom domain is a host name, without a path or '*'"));
            }
            return Ok(format!("{bare}/*"));
        }
        if !bare.contains('/') {
            return Err(format!("{bare:?} has no path; write \"{bare}/*\" for all of its paths"));
        }
        Ok(bare.to_owned())
    }
}
