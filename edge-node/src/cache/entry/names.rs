//! Names of fields that many responses have: a stored field has a number in the place of such a name, and a response that is made of it needs no other look at the name.

use http::header::{self, HeaderName};

/// The number of a name that is not in the table.
pub(super) const OTHER: u8 = 0x7f;

/// The usual ones first: whoever stores a response goes through them. Numbers are for memory only.
static NAMES: [HeaderName; 63] = [
    header::DATE,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CACHE_CONTROL,
    header::ETAG,
    header::LAST_MODIFIED,
    header::VARY,
    header::SERVER,
    header::EXPIRES,
    header::ACCEPT_RANGES,
    header::CONTENT_ENCODING,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::STRICT_TRANSPORT_SECURITY,
    header::X_CONTENT_TYPE_OPTIONS,
    header::X_FRAME_OPTIONS,
    header::CONTENT_SECURITY_POLICY,
    header::REFERRER_POLICY,
    header::X_XSS_PROTECTION,
    header::VIA,
    header::ALT_SVC,
    header::LINK,
    header::LOCATION,
    header::SET_COOKIE,
    header::PRAGMA,
    header::CONTENT_LANGUAGE,
    header::CONTENT_DISPOSITION,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_SECURITY_POLICY_REPORT_ONLY,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
    header::ALLOW,
    header::REFRESH,
    header::RETRY_AFTER,
    header::WARNING,
    header::X_DNS_PREFETCH_CONTROL,
    HeaderName::from_static("cache-status"),
    HeaderName::from_static("cdn-cache-control"),
    HeaderName::from_static("surrogate-control"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("cross-origin-embedder-policy"),
    HeaderName::from_static("cross-origin-opener-policy"),
    HeaderName::from_static("cross-origin-resource-policy"),
    HeaderName::from_static("permissions-policy"),
    HeaderName::from_static("timing-allow-origin"),
    HeaderName::from_static("server-timing"),
    HeaderName::from_static("origin-agent-cluster"),
    HeaderName::from_static("accept-ch"),
    HeaderName::from_static("nel"),
    HeaderName::from_static("report-to"),
    HeaderName::from_static("reporting-endpoints"),
    HeaderName::from_static("x-cache"),
    HeaderName::from_static("x-cache-hits"),
    HeaderName::from_static("x-powered-by"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-robots-tag"),
    HeaderName::from_static("x-served-by"),
    HeaderName::from_static("x-timer"),
];

/// The number of a name.
pub(super) fn number(name: &HeaderName) -> u8 {
    let at = NAMES.iter().position(|known| known == name);
    at.and_then(|at| u8::try_from(at).ok()).filter(|number| *number < OTHER).unwrap_or(OTHER)
}

/// The name of a number, where it is in the table.
pub(super) fn known(number: u8) -> Option<&'static HeaderName> {
    NAMES.get(usize::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_number_of_its_own() {
        for (at, name) in NAMES.iter().enumerate() {
            assert_eq!(usize::from(number(name)), at, "{name}");
            assert_eq!(known(number(name)), Some(name));
        }
        assert_eq!(number(&HeaderName::from_static("x-other")), OTHER);
        assert_eq!(known(OTHER), None);
    }
}
