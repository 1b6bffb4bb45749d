//! The syntax of a route's pattern: `HOST/PATH`. The registry refuses what no node would take, and keeps one spelling of each pattern, so
//! that two owners cannot hold the same one.

use crate::limits::{PATTERN_BYTES_MAX, PATTERN_STARS_MAX};

/// Gives the one spelling of a pattern (host in lower case), or the rule that it breaks.
pub fn normalise(text: &str) -> Result<String, &'static str> {
    if text.len() > PATTERN_BYTES_MAX {
        return Err("longer than 1024 bytes");
    }
    if text.contains("://") {
        return Err("a pattern has no scheme; write host/path, and redirect_to_https on the route for https only");
    }
    let Some((host, path)) = text.find('/').and_then(|slash| text.split_at_checked(slash)) else {
        return Err("no path; write example.org/* for all paths of a host");
    };
    let host = normalise_host(host)?;
    check_path(path)?;
    Ok(host + path)
}

fn normalise_host(host: &str) -> Result<String, &'static str> {
    if host.is_empty() || host == "*" {
        return Ok(String::new());
    }
    let name = host.strip_prefix("*.").unwrap_or(host).to_ascii_lowercase();
    let below = host.starts_with("*.");
    if name.contains('*') {
        return Err("a host's wildcard is its whole first label: *.example.org");
    }
    if name.starts_with('[') {
        let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address: Option<std::net::Ipv6Addr> = address.and_then(|address| address.parse().ok());
        return match address {
            Some(address) if !below => Ok(format!("[{address}]")),
            _ => Err("not an IPv6 address in brackets (a pattern has no port, and an address no names below it)"),
        };
    }
    if name.contains(':') {
        return Err("a pattern has no port: it matches every port of the host");
    }
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err("not a host name (names outside ASCII are written in their xn-- form)");
    }
    Ok(if below { format!("*.{name}") } else { name })
}

/// A label of a host name (RFC 1123 section 2.1), with the underscore that names in the wild have.
fn is_label(label: &str) -> bool {
    let alphabet = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    (1..=63).contains(&label.len()) && alphabet && !label.starts_with('-')
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.bytes().any(|b| !(0x21..=0x7e).contains(&b)) {
        return Err("a path is printable ASCII; write other bytes as %XX");
    }
    if path.contains(['?', '#']) {
        return Err("a pattern has no query and no fragment: it matches every query");
    }
    if path.contains("**") {
        return Err("one * already stands for anything; ** says nothing more");
    }
    if path.bytes().filter(|b| *b == b'*').count() > PATTERN_STARS_MAX {
        return Err("more than 8 wildcards in a path");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_one_spelling() {
        for (given, kept) in [
            ("www.Example.ORG/*", "www.example.org/*"),
            ("*.example.org/Api/*", "*.example.org/Api/*"),
            ("/*", "/*"),
            ("*/*", "/*"),
            ("/", "/"),
            ("127.0.0.1/a", "127.0.0.1/a"),
            ("[::0001]/*", "[::1]/*"),
            ("_dmarc.example.org/%20", "_dmarc.example.org/%20"),
        ] {
            assert_eq!(normalise(given).as_deref(), Ok(kept), "{given}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_by_rule() {
        for (given, word) in [
            ("example.org", "no path"),
            ("https://example.org/*", "scheme"),
            ("example.org:443/*", "port"),
            ("*example.org/*", "first label"),
            ("a.*.org/*", "first label"),
            ("exämple.org/*", "xn--"),
            ("exa mple.org/*", "host name"),
            ("example..org/*", "host name"),
            ("-a.org/*", "host name"),
            ("[::1]:80/*", "brackets"),
            ("*.[::1]/*", "brackets"),
            ("example.org/a b", "ASCII"),
            ("example.org/ü", "ASCII"),
            ("example.org/a?b", "query"),
            ("example.org/a#b", "fragment"),
            ("example.org/**", "**"),
            ("example.org/*a*a*a*a*a*a*a*a*", "wildcards"),
            ("", "no path"),
        ] {
            let refused = normalise(given).expect_err(given);
            assert!(refused.contains(word), "{given}: {refused}");
        }
        let long = format!("{}/", "a".repeat(PATTERN_BYTES_MAX));
        assert!(normalise(&long).is_err());
    }
}
