//! Authorities and URLs in one spelling: what requests are keyed by, and what a purge names.

/// The host of an authority without its port: `Example.org:8443` gives `Example.org`, `[::1]:80` gives `[::1]`. A name's final dot is left off (RFC 3986,
/// section 3.2.2). The case stays.
pub fn host_of(authority: &str) -> &str {
    let host = if authority.starts_with('[') {
        authority.find(']').and_then(|end| authority.get(..=end)).unwrap_or(authority)
    } else {
        authority.rsplit_once(':').map_or(authority, |(host, _)| host)
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// Lower case, without the scheme's default port and a final dot. Only what can stand in a host and port.
pub fn authority(text: &str, secure: bool) -> Result<Box<str>, &'static str> {
    let host = host_of(text);
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') || (bracketed && matches!(b, b'[' | b']' | b':'));
    if host.is_empty() || host.ends_with('.') || host.len() > 255 || !host.bytes().all(allowed) || (host.starts_with('[') && !bracketed) {
        return Err("the host is not a name or an address");
    }
    let after = if bracketed {
        text.get(host.len()..).unwrap_or_default()
    } else {
        text.rsplit_once(':').map_or("", |(before, _)| text.get(before.len()..).unwrap_or_default())
    };
    let port = match after.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty() => {
            Some(digits.parse::<u16>().map_err(|_| "the port is not one")?)
        }
        // RFC 3986, section 3.2.3: an empty port is the default one.
        Some("") => None,
        None if after.is_empty() => None,
        _ => return Err("the port is not one"),
    };
    let port = port.filter(|port| *port != if secure { 443 } else { 80 });
    let mut normal = host.to_ascii_lowercase();
    if let Some(port) = port {
        normal.push(':');
        normal.push_str(&port.to_string());
    }
    Ok(normal.into())
}

/// Path and query, or the beginning of them, as requests have them.
pub(super) fn target(text: &str) -> Result<(), &'static str> {
    if text.bytes().any(|b| !(0x21..=0x7e).contains(&b)) {
        return Err("path and query are printable ASCII; write other bytes as %XX, as requests do");
    }
    Ok(())
}

/// An http or https URL, or one without a scheme (which is https), as `AUTHORITY/PATH?QUERY`: the authority normalised, a fragment left off, an empty path `/`.
pub(super) fn url(text: &str) -> Result<String, &'static str> {
    let (rest, secure) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (rest, true),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (rest, false),
        Some((scheme, _)) if !scheme.contains(['/', '?']) => return Err("the scheme is http or https"),
        _ => (text, true),
    };
    let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, target) = rest.split_at_checked(end).ok_or("not a URL")?;
    if host.contains('@') {
        return Err("a URL here has no user and no password");
    }
    self::target(target)?;
    let slash = if target.starts_with('/') { "" } else { "/" };
    Ok(format!("{}{slash}{target}", authority(host, secure)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_one_spelling() {
        for (given, expected) in [
            ("https://Example.org", "example.org/"),
            ("https://example.org:443/a?b=/c#d", "example.org/a?b=/c"),
            ("HTTP://example.org:80/a", "example.org/a"),
            ("http://example.org:443/a", "example.org:443/a"),
            ("example.org/a?b", "example.org/a?b"),
            ("example.org?b", "example.org/?b"),
            ("example.org/?u=http://b.org/", "example.org/?u=http://b.org/"),
            ("http://[::1]:8080/", "[::1]:8080/"),
            ("example.org./A", "example.org/A"),
        ] {
            assert_eq!(url(given).as_deref(), Ok(expected), "{given}");
        }
        for given in
            ["", "/a", "https://", "ftp://a.org/", "https://u:p@a.org/", "a b.org/", "a.org/a b", "a.org/ü", "https://a.org:x/", "?a"]
        {
            assert!(url(given).is_err(), "{given}");
        }
    }
}
