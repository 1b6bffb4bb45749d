//! Which members of `Link` fields (RFC 8288) may be hinted. Pure.
//!
//! A browser acts on a hint before it knows the answer, so a hint says no more than a page of the same origin may say: `preload` and `modulepreload` of what is of
//! the page's own origin, `preconnect` to any. A link whose context is not the page (`anchor`), or that names further addresses (`imagesrcset`), is left out.

use http::header::{HeaderMap, HeaderValue, LINK};
use http::uri::Uri;

use super::super::context::normalise;
use crate::limits::{HINT_LINKS_BYTES_MAX, HINT_LINKS_MAX};

/// Members of `Link` fields of one answer that are looked at.
const MEMBERS_MAX: usize = 64;

/// The origin of a page.
pub(super) struct Own {
    pub(super) secure: bool,
    /// Normalised.
    pub(super) authority: Box<str>,
}

/// The members that may be hinted, as they came, within their bounds.
pub(super) fn worth_hinting(own: &Own, headers: &HeaderMap) -> Vec<HeaderValue> {
    let mut links = Vec::new();
    let mut bytes_left = HINT_LINKS_BYTES_MAX;
    let members = headers.get_all(LINK).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| Separated::new(line, b','));
    for member in members.take(MEMBERS_MAX).filter(|member| is_worth_hinting(own, member)) {
        let Some(left) = bytes_left.checked_sub(member.len()).filter(|_| links.len() < HINT_LINKS_MAX) else { break };
        bytes_left = left;
        links.extend(HeaderValue::from_str(member).ok());
    }
    links
}

fn is_worth_hinting(own: &Own, member: &str) -> bool {
    let Some((target, parameters)) = member.strip_prefix('<').and_then(|rest| rest.split_once('>')) else { return false };
    let (mut related, mut preconnects, mut preloads) = (false, false, false);
    let mut parameters = Separated::new(parameters, b';');
    // What is before the first semicolon is nothing.
    if parameters.next().is_some_and(|before| !before.is_empty()) {
        return false;
    }
    for parameter in parameters {
        let (name, value) = parameter.split_once('=').map_or((parameter, ""), |(name, value)| (name.trim_end(), value.trim_start()));
        if name.eq_ignore_ascii_case("anchor") || name.eq_ignore_ascii_case("imagesrcset") {
            return false;
        }
        // RFC 8288, section 3.3: the first one counts.
        if name.eq_ignore_ascii_case("rel") && !std::mem::replace(&mut related, true) {
            for relation in value.trim_matches('"').split_ascii_whitespace() {
                preconnects |= relation.eq_ignore_ascii_case("preconnect");
                preloads |= relation.eq_ignore_ascii_case("preload") || relation.eq_ignore_ascii_case("modulepreload");
            }
        }
    }
    match preloads {
        true => is_of(own, target),
        false => preconnects && is_origin(target),
    }
}

/// Whether a reference leads to the same origin.
fn is_of(own: &Own, reference: &str) -> bool {
    if !reference.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') || reference.is_empty() {
        return false;
    }
    // A colon before the first slash, question mark or number sign ends a scheme (RFC 3986, section 4.2).
    let absolute = reference.find(':').is_some_and(|colon| !reference[..colon].contains(['/', '?', '#']));
    if !absolute && !reference.starts_with("//") {
        return true;
    }
    let scheme = if own.secure { "https" } else { "http" };
    let full = if absolute { reference.to_owned() } else { format!("{scheme}:{reference}") };
    let Ok(uri) = full.parse::<Uri>() else { return false };
    let authority = uri.authority().and_then(|authority| normalise(authority.as_str(), own.secure).ok());
    uri.scheme_str() == Some(scheme) && authority.is_some_and(|authority| authority == own.authority)
}

/// Whether a reference names an origin that a browser may connect to.
fn is_origin(reference: &str) -> bool {
    let full = if reference.starts_with("//") { format!("https:{reference}") } else { reference.to_owned() };
    let Ok(uri) = full.parse::<Uri>() else { return false };
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
}

/// The parts of a text between separators that stand neither in quotes nor in angle brackets, trimmed.
struct Separated<'a> {
    rest: Option<&'a str>,
    separator: u8,
}

impl<'a> Separated<'a> {
    fn new(text: &'a str, separator: u8) -> Self {
        Self { rest: Some(text), separator }
    }
}

impl<'a> Iterator for Separated<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest?;
        let (mut quoted, mut bracketed, mut escaped) = (false, false, false);
        let end = rest.bytes().position(|b| {
            match b {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' if !bracketed => quoted = !quoted,
                b'<' if !quoted => bracketed = true,
                b'>' if !quoted => bracketed = false,
                _ => return b == self.separator && !quoted && !bracketed,
            }
            false
        });
        // A separator is ASCII, so the text can be cut on both sides of it.
        let (part, after) = end.map_or((rest, None), |end| (&rest[..end], Some(&rest[end + 1..])));
        self.rest = after;
        Some(part.trim())
    }
}

/// For tests/fuzz: any bytes as a `Link` field. What is hinted is of the page's own origin, or only an address to connect to, and within its bounds.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let own = Own { secure: true, authority: "a.org".into() };
    let headers: HeaderMap = [(LINK, value)].into_iter().collect();
    let links = worth_hinting(&own, &headers);
    assert!(links.len() <= HINT_LINKS_MAX && links.iter().map(HeaderValue::len).sum::<usize>() <= HINT_LINKS_BYTES_MAX);
    for link in links {
        let text = link.to_str().unwrap_or_default().to_ascii_lowercase();
        assert!(text.starts_with('<') && text.contains("pre"), "{text:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hinted(lines: &[&str]) -> Vec<String> {
        let own = Own { secure: true, authority: "www.a.org".into() };
        let headers = lines.iter().map(|line| (LINK, HeaderValue::from_str(line).expect("a value"))).collect();
        worth_hinting(&own, &headers).iter().map(|link| link.to_str().expect("text").to_owned()).collect()
    }

    #[test]
    fn links_to_the_pages_own_origin_and_places_to_connect_to_are_hinted_as_they_came() {
        for link in [
            "</a.css>; rel=preload; as=style",
            "<a.css>;rel=\"preload\";as=style",
            "<https://www.a.org/x>; rel=preload; as=script; crossorigin",
            "<https://WWW.a.org:443/x>; rel=preload",
            "<//www.a.org/x>; rel=modulepreload",
            "</m.js>; REL=\"other ModulePreload\"",
            "<https://cdn.example>; rel=preconnect",
            "<//cdn.example>; rel=preconnect",
            "</a,b;c>; rel=preload; title=\"x, \\\"y; z\"",
            "<?q=a:b>; rel=preload",
        ] {
            assert_eq!(hinted(&[link]), [link]);
        }
        assert_eq!(hinted(&["</a>; rel=preload, </b>; rel=next, </c>; rel=preload", "</d>;rel=preload"]).len(), 3);
    }

    #[test]
    fn all_other_links_are_not() {
        for link in [
            "</a>; rel=next",
            "</a>",
            "",
            "/a; rel=preload",
            "</a; rel=preload",
            "<>; rel=preload",
            "<https://other.org/x>; rel=preload",
            "<http://www.a.org/x>; rel=preload",
            "<https://www.a.org:8443/x>; rel=preload",
            "<//other.org/x>; rel=preload",
            "<https://other.org/x>; rel=\"preconnect preload\"",
            "<javascript:x>; rel=preload",
            "<\\\\other.org/x>; rel=preload",
            "</a>; rel=next; rel=preload",
            "</a>; rel=preload; anchor=\"/b\"",
            "</a>; rel=preload; as=image; imagesrcset=\"https://other.org/x 2x\"",
            "</a> x; rel=preload",
            "<https://u:p@cdn.example>; rel=preconnect",
            "</x>; rel=preconnect",
        ] {
            assert_eq!(hinted(&[link]), [""; 0], "{link}");
        }
    }

    #[test]
    fn their_number_and_length_are_bounded() {
        let many = vec!["</a>; rel=preload"; 100].join(", ");
        assert_eq!(hinted(&[&many]).len(), HINT_LINKS_MAX);
        let long = format!("</{}>; rel=preload", "x".repeat(HINT_LINKS_BYTES_MAX));
        assert_eq!(hinted(&[&long]).len(), 0);
    }
}
