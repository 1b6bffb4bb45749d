//! `Cache-Control` and `CDN-Cache-Control`, parsed. Pure; takes any bytes.

use std::num::NonZeroU32;

use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};

use super::lines::Lines;

/// Larger numbers of seconds mean this one (RFC 9111, section 1.2.2).
pub const SECONDS_MAX: u64 = 1 << 31;

/// RFC 9213.
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// Field names that `no-cache` and `private` may list together; with more they count as without names: each is looked for when a response is stored.
pub const WITHHELD_FIELDS_MAX: usize = 32;

/// The directives of a request or a response. A directive that is given twice counts as first given (RFC 9111, section 4.2.1). `no-cache` and `private`
/// with field names are not here: they are about those fields only (sections 5.2.2.4 and 5.2.2.7), see [`withheld`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the names of RFC 9111, section 5.2, RFC 5861 and RFC 8246")]
pub struct Control {
    pub no_store: bool,
    pub no_cache: bool,
    pub private: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub no_transform: bool,
    pub immutable: bool,
    pub only_if_cached: bool,
    pub max_age: Option<Seconds>,
    pub s_maxage: Option<Seconds>,
    pub stale_while_revalidate: Option<Seconds>,
    pub stale_if_error: Option<Seconds>,
    pub min_fresh: Option<Seconds>,
    /// Without a number: any age.
    pub max_stale: Option<Seconds>,
    /// It came from `CDN-Cache-Control`: `Expires` and `Cache-Control` say nothing here (RFC 9213, section 2.2).
    pub targeted: bool,
}

/// A number of seconds, at most [`SECONDS_MAX`]. (One more than it, so that no number needs no place: every stored response has six.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(NonZeroU32);

impl Seconds {
    /// So many, or [`SECONDS_MAX`].
    pub fn new(number: u64) -> Self {
        Self(NonZeroU32::MIN.saturating_add(u32::try_from(number.min(SECONDS_MAX)).unwrap_or(u32::MAX)))
    }

    /// How many.
    pub fn get(self) -> u64 {
        u64::from(self.0.get() - 1)
    }

    /// In milliseconds.
    pub fn ms(self) -> u64 {
        self.get() * 1000
    }
}

impl Default for Seconds {
    fn default() -> Self {
        Self(NonZeroU32::MIN)
    }
}

impl Control {
    /// What `Cache-Control` says.
    pub fn of(headers: &impl Lines) -> Self {
        let mut control = Self::default();
        for line in headers.all(&CACHE_CONTROL) {
            control.parse(line);
        }
        control
    }

    /// What holds for a shared cache: `CDN-Cache-Control` where it is valid and not empty, else `Surrogate-Control` where it says something to us, else
    /// `Cache-Control`.
    pub fn of_response(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(CDN_CACHE_CONTROL).iter().peekable();
        if lines.peek().is_some()
            && let Some(control) = Self::targeted(lines)
        {
            return control;
        }
        super::surrogate::control(headers).unwrap_or_else(|| Self::of(headers))
    }

    fn parse(&mut self, line: &[u8]) {
        let mut rest = line;
        while let Some((name, argument, after)) = next_directive(rest) {
            self.set(name, argument);
            rest = after;
        }
    }

    fn set(&mut self, name: &[u8], argument: Option<&[u8]>) {
        let flag = |flag: &mut bool| *flag = true;
        // With names that can be read it is about those fields; a list that cannot be read is about all.
        let unlisted = |flag: &mut bool| *flag |= argument.and_then(field_names).is_none();
        // A number that is none makes the response stale at once (section 4.2.1).
        let seconds = |slot: &mut Option<Seconds>, without: Seconds| {
            slot.get_or_insert_with(|| argument.map_or(without, |argument| parse_seconds(argument).unwrap_or_default()));
        };
        // By length first: names have few in common.
        match name.len() {
            6 if name.eq_ignore_ascii_case(b"public") => flag(&mut self.public),
            7 if name.eq_ignore_ascii_case(b"private") => unlisted(&mut self.private),
            7 if name.eq_ignore_ascii_case(b"max-age") => seconds(&mut self.max_age, Seconds::default()),
            8 if name.eq_ignore_ascii_case(b"no-store") => flag(&mut self.no_store),
            8 if name.eq_ignore_ascii_case(b"no-cache") => unlisted(&mut self.no_cache),
            8 if name.eq_ignore_ascii_case(b"s-maxage") => seconds(&mut self.s_maxage, Seconds::default()),
            9 if name.eq_ignore_ascii_case(b"immutable") => flag(&mut self.immutable),
            9 if name.eq_ignore_ascii_case(b"min-fresh") => seconds(&mut self.min_fresh, Seconds::default()),
            9 if name.eq_ignore_ascii_case(b"max-stale") => seconds(&mut self.max_stale, Seconds::new(SECONDS_MAX)),
            12 if name.eq_ignore_ascii_case(b"no-transform") => flag(&mut self.no_transform),
            14 if name.eq_ignore_ascii_case(b"only-if-cached") => flag(&mut self.only_if_cached),
            14 if name.eq_ignore_ascii_case(b"stale-if-error") => seconds(&mut self.stale_if_error, Seconds::default()),
            15 if name.eq_ignore_ascii_case(b"must-revalidate") => flag(&mut self.must_revalidate),
            15 if name.eq_ignore_ascii_case(b"must-understand") => flag(&mut self.must_understand),
            16 if name.eq_ignore_ascii_case(b"proxy-revalidate") => flag(&mut self.proxy_revalidate),
            22 if name.eq_ignore_ascii_case(b"stale-while-revalidate") => seconds(&mut self.stale_while_revalidate, Seconds::default()),
            _ => {}
        }
    }

    /// `CDN-Cache-Control` is a structured dictionary (RFC 9213, section 2.1): one error and it is not there. Numbers are integers, flags are `?1`.
    fn targeted<'a>(lines: impl Iterator<Item = &'a HeaderValue>) -> Option<Self> {
        let mut joined = Vec::new();
        for line in lines {
            if !joined.is_empty() {
                joined.extend_from_slice(b", ");
            }
            joined.extend_from_slice(line.as_bytes());
        }
        let dictionary = sfv::Parser::new(&joined).parse::<sfv::Dictionary>().ok()?;
        if dictionary.is_empty() {
            return None;
        }
        let mut control = Self { targeted: true, ..Self::default() };
        for (name, value) in &dictionary {
            let sfv::ListEntry::Item(item) = value else { continue };
            match &item.bare_item {
                sfv::BareItem::Boolean(true) => control.set(name.as_str().as_bytes(), None),
                sfv::BareItem::Integer(number) => control.set(name.as_str().as_bytes(), Some(i64::from(*number).to_string().as_bytes())),
                // Of another type than its directive: ignored, as section 2.1 wants. `private` and `no-cache` with field names are strings.
                sfv::BareItem::String(text) if matches!(name.as_str(), "private" | "no-cache") => {
                    control.set(name.as_str().as_bytes(), Some(text.as_str().as_bytes()));
                }
                _ => {}
            }
        }
        Some(control)
    }
}

/// Takes `max-stale` off a request: a fetch that others follow shall not bring what only one of them takes (RFC 9111, section 5.2.1.2).
pub fn forbid_stale(request: &mut HeaderMap) {
    if Control::of(request).max_stale.is_none() {
        return;
    }
    let lines: Vec<HeaderValue> = request.get_all(CACHE_CONTROL).iter().cloned().collect();
    request.remove(CACHE_CONTROL);
    for line in lines {
        let (mut rest, mut left) = (line.as_bytes(), Vec::new());
        while let Some((name, _, after)) = next_directive(rest) {
            if !name.eq_ignore_ascii_case(b"max-stale") {
                left.push(trimmed(rest.get(..rest.len() - after.len()).unwrap_or_default()));
            }
            rest = after;
        }
        if let Ok(left) = HeaderValue::from_bytes(&left.join(&b", "[..])) {
            request.append(CACHE_CONTROL, left);
        }
    }
}

/// Without the commas and spaces around it.
fn trimmed(directive: &[u8]) -> &[u8] {
    let is_text = |b: &u8| !matches!(b, b' ' | b'\t' | b',');
    let (start, end) = (directive.iter().position(is_text).unwrap_or(0), directive.iter().rposition(is_text).map_or(0, |last| last + 1));
    directive.get(start..end).unwrap_or_default()
}

/// The fields that `no-cache` and `private` keep out of what is stored. (In a response that is stored at all: a list that cannot be read has set the directive itself.)
pub fn withheld(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for line in headers.get_all(CACHE_CONTROL).iter().chain(&headers.get_all(CDN_CACHE_CONTROL)) {
        let mut rest = line.as_bytes();
        while let Some((name, argument, after)) = next_directive(rest) {
            rest = after;
            if name.eq_ignore_ascii_case(b"private") || name.eq_ignore_ascii_case(b"no-cache") {
                names.extend(argument.and_then(field_names).into_iter().flatten());
            }
        }
    }
    names
}

/// A list of field names; none where it is empty, too long or has something else in it.
fn field_names(list: &[u8]) -> Option<Vec<HeaderName>> {
    let pieces = list.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|piece| !piece.is_empty());
    let names: Vec<HeaderName> = pieces.take(WITHHELD_FIELDS_MAX + 1).map(HeaderName::from_bytes).collect::<Result<_, _>>().ok()?;
    (!names.is_empty() && names.len() <= WITHHELD_FIELDS_MAX).then_some(names)
}

/// The next `name[=token|"quoted"]` of a list, and what is after it. Broken pieces are passed over up to the next comma.
#[allow(clippy::type_complexity, reason = "name, argument, rest")]
fn next_directive(line: &[u8]) -> Option<(&[u8], Option<&[u8]>, &[u8])> {
    let start = line.iter().position(|b| !matches!(b, b' ' | b'\t' | b','))?;
    let line = line.get(start..)?;
    let end = line.iter().position(|b| matches!(b, b'=' | b',')).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let Some(rest) = rest.strip_prefix(b"=") else { return Some((name.trim_ascii(), None, rest)) };
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        let mut escaped = false;
        let close = quoted.iter().position(|b| {
            let closes = *b == b'"' && !escaped;
            escaped = *b == b'\\' && !escaped;
            closes
        });
        // Without its end the string takes all that is left: nothing inside it may pass for a directive.
        let close = close.unwrap_or(quoted.len());
        let after = quoted.get(close + 1..).unwrap_or_default();
        let comma = after.iter().position(|b| *b == b',').unwrap_or(after.len());
        return Some((name.trim_ascii(), quoted.get(..close), after.get(comma..).unwrap_or_default()));
    }
    let end = rest.iter().position(|b| *b == b',').unwrap_or(rest.len());
    let (argument, rest) = rest.split_at(end);
    Some((name.trim_ascii(), Some(argument.trim_ascii()), rest))
}

/// Digits only; more than fit mean [`SECONDS_MAX`].
pub(super) fn parse_seconds(text: &[u8]) -> Option<Seconds> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = text.iter().fold(0u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(Seconds::new(number))
}

/// For tests/fuzz: any bytes are a field value or are none; parsing neither panics nor makes numbers beyond the bound.
pub fn fuzz(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let mut headers = HeaderMap::new();
    headers.append(CACHE_CONTROL, value.clone());
    headers.append(CDN_CACHE_CONTROL, value);
    let _ = withheld(&headers);
    let mut without = headers.clone();
    forbid_stale(&mut without);
    assert_eq!(Control::of(&without), Control { max_stale: None, ..Control::of(&headers) });
    for control in [Control::of(&headers), Control::of_response(&headers)] {
        for seconds in [
            control.max_age,
            control.s_maxage,
            control.stale_if_error,
            control.stale_while_revalidate,
            control.min_fresh,
            control.max_stale,
        ] {
            assert!(seconds.is_none_or(|seconds| seconds.get() <= SECONDS_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(lines: &[&'static str]) -> Control {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, HeaderValue::from_static(line));
        }
        Control::of(&headers)
    }

    #[test]
    fn directives_are_read_in_any_case_and_over_lines() {
        let read = control(&["Max-Age=60,PUBLIC ,, s-maxage=\"120\"", "must-revalidate, Stale-While-Revalidate=5"]);
        let expected = Control {
            max_age: Some(Seconds::new(60)),
            public: true,
            s_maxage: Some(Seconds::new(120)),
            must_revalidate: true,
            stale_while_revalidate: Some(Seconds::new(5)),
            ..Control::default()
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn numbers_that_are_none_mean_stale_and_large_ones_are_capped() {
        for (line, expected) in [
            ("max-age=abc", 0),
            ("max-age=-1", 0),
            ("max-age=1.5", 0),
            ("max-age", 0),
            ("max-age=", 0),
            ("max-age= 60", 60),
            ("max-age=99999999999999999999999", SECONDS_MAX),
            ("max-age=1, max-age=2", 1),
        ] {
            assert_eq!(control(&[line]).max_age, Some(Seconds::new(expected)), "{line}");
        }
    }

    #[test]
    fn nothing_inside_a_quoted_string_is_a_directive() {
        let read = control(&["private=\"set-cookie, no-store, max-age=9\", max-age=60"]);
        assert!(read.private && !read.no_store, "max-age=9 is no field's name, so it is about all");
        assert_eq!(read.max_age, Some(Seconds::new(60)));
        let read = control(&["ext=\"a\\\", no-store\", max-age=5"]);
        assert!(!read.no_store);
        assert_eq!(read.max_age, Some(Seconds::new(5)));
        assert!(!control(&["ext=\"no end, no-store"]).no_store);
    }

    #[test]
    fn lists_of_fields_are_about_those_fields() {
        let mut headers = HeaderMap::new();
        headers.append(CACHE_CONTROL, HeaderValue::from_static("private=\"Set-Cookie, x-user\", max-age=60"));
        headers.append(CACHE_CONTROL, HeaderValue::from_static("no-cache=\"x-a\""));
        assert_eq!(Control::of(&headers), Control { max_age: Some(Seconds::new(60)), ..Control::default() });
        assert_eq!(withheld(&headers), ["set-cookie", "x-user", "x-a"]);
        for all in ["private", "private=\"\"", "private=\" , \"", "private=\"a b\"", "private, private=\"a\""] {
            assert!(control(&[all]).private, "{all}");
        }
        let many = format!("no-cache=\"{}\"", (0..=WITHHELD_FIELDS_MAX).map(|number| format!("x{number}")).collect::<Vec<_>>().join(","));
        assert!(control(&[Box::leak(many.into_boxed_str())]).no_cache, "too many to look for");
    }

    #[test]
    fn surrogate_control_wins_over_cache_control_and_loses_to_the_cdns() {
        let mut headers = HeaderMap::new();
        headers.append(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.append("surrogate-control", HeaderValue::from_static("max-age=5"));
        assert_eq!(Control::of_response(&headers).max_age, Some(Seconds::new(5)));
        headers.append(CDN_CACHE_CONTROL, HeaderValue::from_static("max-age=7"));
        assert_eq!(Control::of_response(&headers).max_age, Some(Seconds::new(7)));
    }

    #[test]
    fn names_that_only_begin_like_a_directive_are_none() {
        assert_eq!(control(&["max-age-ish=60, xno-store, no-stored, no store"]), Control::default());
    }

    #[test]
    fn cdn_cache_control_wins_where_it_is_valid() {
        let read = |cdn: &'static str| {
            let mut headers = HeaderMap::new();
            headers.append(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.append(CDN_CACHE_CONTROL, HeaderValue::from_static(cdn));
            Control::of_response(&headers)
        };
        assert_eq!(read("max-age=60"), Control { max_age: Some(Seconds::new(60)), targeted: true, ..Control::default() });
        assert!(read("max-age=").no_store, "an invalid dictionary is not there");
        assert!(read("").no_store, "nor is an empty one");
        assert_eq!(read("max-age=\"60\", public").max_age, None, "a string is no integer");
        assert_eq!(read("max-age=60, max-age=1").max_age, Some(Seconds::new(1)), "a dictionary's last key counts");
    }

    #[test]
    fn arbitrary_bytes_are_parsed_without_a_panic() {
        let alphabet = b"max-age=\"\\,0s no-store\t;?1:=\xff";
        let mut seed = 1u64;
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..24 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bytes.push(alphabet[(seed >> 33) as usize % alphabet.len()]);
            }
            fuzz(&bytes);
        }
    }
}
