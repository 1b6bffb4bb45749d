//! Which stored response answers which request of one key: RFC 9111, section 4.1. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue, VARY};
use selvedge_origin::registry::VaryRule;

use super::negotiate;

/// Fields that one response may vary on. More are taken for `*`: each is compared on every hit.
pub const VARY_FIELDS_MAX: usize = 16;
/// Stored variants of one key; beyond, the oldest goes. Without a bound a client could fill the cache with one URL.
pub const VARIANTS_MAX: usize = 16;

/// What `Vary` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vary {
    /// Nothing.
    Nothing,
    /// On these fields, sorted.
    On(Arc<[HeaderName]>),
    /// On what nobody can know: `*`, names that are none, or too many.
    Anything,
}

impl Vary {
    /// Which requests a response that varies so answers, when it answered this one.
    pub fn variant(&self, request: &HeaderMap) -> Variant {
        match self {
            Self::On(names) => Variant::new(names, request),
            Self::Nothing | Self::Anything => Variant::default(),
        }
    }

    /// Of a response.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(VARY).iter().peekable();
        if lines.peek().is_none() {
            return Self::Nothing;
        }
        let mut names: Vec<HeaderName> = Vec::new();
        for name in lines.flat_map(|line| line.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii) {
            if name.is_empty() {
                continue;
            }
            let Ok(name) = HeaderName::from_bytes(name) else { return Self::Anything };
            if name.as_str() == "*" || (!names.contains(&name) && names.len() == VARY_FIELDS_MAX) {
                return Self::Anything;
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        if names.is_empty() { Self::Nothing } else { Self::On(names.into()) }
    }
}

/// Fields that a node writes anew for each request, from who asks and not from what the request says: no other request is known to be the same.
const OF_ONE_REQUEST: [&str; 4] = ["cf-connecting-ip", "forwarded", "x-forwarded-for", "x-request-id"];

/// Whether what this field says to whoever answers is another thing for each request.
pub fn is_of_one_request(name: &HeaderName) -> bool {
    OF_ONE_REQUEST.contains(&name.as_str())
}

/// The fields that a stored response varies on, and what they were in the request that it answered.
#[derive(Debug, Clone, Default)]
pub struct Variant(Option<Arc<Varied>>);

#[derive(Debug)]
struct Varied {
    names: Arc<[HeaderName]>,
    values: Box<[Value]>,
    /// Their single lines as they were sent, where that is known: most requests are the same to the byte, and need no normalising. (Copies: a request's own would hold
    /// the buffer that it was read into.)
    sent: Box<[Value]>,
}

/// What a field was; none: it was not there.
type Value = Option<Box<[u8]>>;

impl Variant {
    /// Of a response whose `Vary` names these fields, to this request.
    pub fn new(names: &Arc<[HeaderName]>, request: &HeaderMap) -> Self {
        let values = names.iter().map(|name| normalised(request, name)).collect();
        let single = |name: &HeaderName| {
            let mut lines = request.get_all(name).iter();
            lines.next().filter(|_| lines.next().is_none()).map(|line| line.as_bytes().into())
        };
        let sent = names.iter().map(single).collect();
        Self(Some(Arc::new(Varied { names: names.clone(), values, sent })))
    }

    /// Whether the response answers a request with these fields too.
    pub fn matches(&self, request: &HeaderMap) -> bool {
        let Some(Varied { names, values, sent }) = self.0.as_deref() else { return true };
        names.iter().zip(values).enumerate().all(|(at, (name, stored))| {
            let mut lines = request.get_all(name).iter();
            match (lines.next(), lines.next(), stored) {
                (None, _, None) => true,
                // The usual case, without an allocation.
                (Some(only), None, Some(_)) if sent.get(at).is_some_and(|sent| sent.as_deref() == Some(only.as_bytes())) => true,
                (Some(_), _, Some(stored)) => normalised(request, name).is_some_and(|value| value == *stored),
                _ => false,
            }
        })
    }

    /// The fields, where there are some.
    pub fn names(&self) -> Option<&Arc<[HeaderName]>> {
        self.0.as_ref().map(|varied| &varied.names)
    }

    /// What the fields were in the request, in the order of [`Self::names`].
    pub fn values(&self) -> &[Option<Box<[u8]>>] {
        self.0.as_ref().map_or(&[], |varied| &varied.values)
    }

    /// As it was stored: `values` in the order of `names`.
    pub(super) fn stored(names: Arc<[HeaderName]>, values: Box<[Option<Box<[u8]>>]>) -> Self {
        Self(Some(Arc::new(Varied { names, values, sent: Box::default() })))
    }

    /// What a message that freshens its response says of what that varies on, where it says something else than was known.
    pub fn changed_by(&self, told: &HeaderMap) -> Option<Vary> {
        let vary = if told.contains_key(VARY) { Vary::of(told) } else { return None };
        let known = match &vary {
            Vary::On(names) => self.names() == Some(names),
            Vary::Nothing => self.names().is_none(),
            Vary::Anything => false,
        };
        (!known).then_some(vary)
    }

    /// Whether both stand for the same requests.
    pub fn same(&self, other: &Self) -> bool {
        self.names() == other.names() && self.values() == other.values()
    }

    /// One byte string for it, to find a fill by.
    pub fn discriminator(&self) -> Box<[u8]> {
        let mut bytes = Vec::new();
        for (name, value) in self.names().into_iter().flat_map(|names| names.iter()).zip(self.values()) {
            bytes.extend_from_slice(name.as_str().as_bytes());
            // No field value has a line end in it, so no value can pass for another field.
            bytes.push(if value.is_some() { b'=' } else { b'-' });
            bytes.extend_from_slice(value.as_deref().unwrap_or_default());
            bytes.push(b'\n');
        }
        bytes.into()
    }

    /// Bytes that it takes.
    pub fn weight(&self) -> usize {
        // What the allocator needs for each block is in these.
        let value = |value: &Value| 16 + value.as_ref().map_or(0, |value| value.len() + 16);
        let name = |name: &HeaderName| 32 + name.as_str().len() + 16;
        self.0.as_ref().map_or(0, |varied| {
            let values: usize = varied.values.iter().chain(&varied.sent).map(value).sum();
            160 + values + varied.names.iter().map(name).sum::<usize>()
        })
    }
}

/// Reduces the fields that a route normalises, in the request: whoever answers sees what the response is stored for.
pub fn normalise(request: &mut HeaderMap, rules: &BTreeMap<String, VaryRule>) {
    for (name, rule) in rules {
        if let VaryRule::Normalise(set) = rule
            && let Ok(name) = HeaderName::from_bytes(name.as_bytes())
        {
            negotiate::reduce(request, &name, set);
        }
    }
}

/// All lines of a field as one, without white space around the members of its list, and where the field's order and case say nothing, without those. (Two requests that
/// differ in more than that are different. White space and commas in a quoted string are the string's: where there is one, the lines count as they are.)
fn normalised(request: &HeaderMap, name: &HeaderName) -> Option<Box<[u8]>> {
    let mut lines = request.get_all(name).iter().peekable();
    lines.peek()?;
    if request.get_all(name).iter().any(|line| line.as_bytes().contains(&b'"')) {
        return Some(lines.map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b',').into());
    }
    let members = lines.flat_map(|line| line.as_bytes().split(|b| *b == b',')).map(|member| Cow::Borrowed(member.trim_ascii()));
    let mut members: Vec<Cow<'_, [u8]>> = members.collect();
    negotiate::canonical(name, &mut members);
    Some(members.join(&b',').into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::headers;

    fn variant(vary: &'static str, request: &[(&'static str, &'static str)]) -> Variant {
        match Vary::of(&headers(&[("vary", vary)])) {
            Vary::On(names) => Variant::new(&names, &headers(request)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn star_anywhere_is_anything() {
        for vary in ["*", "accept, *", "*, accept", "acc ept"] {
            assert_eq!(Vary::of(&headers(&[("vary", vary)])), Vary::Anything, "{vary}");
        }
        assert_eq!(Vary::of(&headers(&[("vary", "accept"), ("vary", "*")])), Vary::Anything);
        assert_eq!(Vary::of(&headers(&[("vary", "")])), Vary::Nothing);
        assert_eq!(Vary::of(&headers(&[])), Vary::Nothing);
        let many: String = (0..=VARY_FIELDS_MAX).map(|n| format!("x-{n},")).collect();
        let mut too_many = HeaderMap::new();
        too_many.insert(VARY, HeaderValue::from_str(&many).unwrap());
        assert_eq!(Vary::of(&too_many), Vary::Anything);
    }

    #[test]
    fn a_variant_answers_requests_with_the_same_fields() {
        let stored = variant("Accept-Encoding, X-A", &[("accept-encoding", "gzip, br")]);
        assert!(stored.matches(&headers(&[("accept-encoding", "gzip, br"), ("other", "1")])));
        assert!(stored.matches(&headers(&[("accept-encoding", "gzip,br")])), "white space in a list says nothing");
        assert!(stored.matches(&headers(&[("accept-encoding", "gzip"), ("accept-encoding", "br")])), "nor do lines");
        assert!(stored.matches(&headers(&[("accept-encoding", "BR, gzip;q=1")])), "nor do order and case in this field");
        assert!(!stored.matches(&headers(&[("accept-encoding", "br, gzip;q=0.5")])));
        assert!(!variant("x-a", &[("x-a", "1, 2")]).matches(&headers(&[("x-a", "2, 1")])), "in others they may");
        let quoted = variant("x-a", &[("x-a", "\"1 , 2\"")]);
        assert!(quoted.matches(&headers(&[("x-a", "\"1 , 2\"")])));
        assert!(!quoted.matches(&headers(&[("x-a", "\"1,2\"")])), "in a string white space is the string's");
        assert!(!quoted.matches(&headers(&[("x-a", "\"1"), ("x-a", "2\"")])), "and lines are none");
        assert!(!stored.matches(&headers(&[])));
        assert!(!stored.matches(&headers(&[("accept-encoding", "gzip, br"), ("x-a", "")])), "an empty field is not an absent one");
        let two_lines = variant("x-a", &[("x-a", "1"), ("x-a", "2")]);
        assert!(two_lines.matches(&headers(&[("x-a", "1,2")])) && !two_lines.matches(&headers(&[("x-a", "1")])));
        assert!(variant("x-a", &[]).matches(&headers(&[])));
        assert!(Variant::default().matches(&headers(&[("x-a", "1")])));
    }

    #[test]
    fn order_and_case_of_names_say_nothing() {
        let a = variant("X-B, X-A", &[("x-a", "1")]);
        let b = variant("x-a,x-b,x-a", &[("x-a", "1")]);
        assert!(a.same(&b));
        assert_eq!(a.discriminator(), b.discriminator());
        assert_ne!(a.discriminator(), variant("x-a, x-b", &[("x-b", "1")]).discriminator());
    }
}
