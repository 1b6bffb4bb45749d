//! How long a response is fresh, and how old it is: RFC 9111, section 4.2. Pure.

use http::HeaderMap;
use http::header::{AGE, DATE, EXPIRES};

use super::control::{Control, parse_seconds};
use super::time::{Time, parse_date};

/// What decides freshness, taken once when the response arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// How long it is fresh, in milliseconds of age.
    pub lifetime_ms: u64,
    /// How old it was when it arrived, in milliseconds.
    pub initial_age_ms: u64,
    /// When it arrived.
    pub received: Time,
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// For so many milliseconds more.
    Fresh(u64),
    /// For so many milliseconds already.
    Stale(u64),
}

impl Freshness {
    /// Of a response that was asked for at `requested` and arrived at `received`. None without explicit freshness: there is no default lifetime.
    pub fn of(headers: &HeaderMap, control: &Control, requested: Time, received: Time) -> Option<Self> {
        let lifetime_ms = lifetime_ms(headers, control, received)?;
        Some(Self { lifetime_ms, initial_age_ms: initial_age_ms(headers, requested, received), received })
    }

    /// Its age, in milliseconds: section 4.2.3.
    pub fn age_ms(&self, now: Time) -> u64 {
        self.initial_age_ms.saturating_add(now.ms_since(self.received))
    }

    /// Whether it is fresh: while its age is less than its lifetime.
    pub fn standing(&self, now: Time) -> Standing {
        let age = self.age_ms(now);
        match self.lifetime_ms.checked_sub(age) {
            Some(left) if left > 0 => Standing::Fresh(left),
            _ => Standing::Stale(age - self.lifetime_ms),
        }
    }
}

/// `s-maxage`, else `max-age`, else `Expires` less `Date` (section 4.2.1); a response that says `no-cache` and nothing else is stored to be validated.
fn lifetime_ms(headers: &HeaderMap, control: &Control, received: Time) -> Option<u64> {
    if let Some(seconds) = control.s_maxage.or(control.max_age) {
        return Some(seconds.saturating_mul(1000));
    }
    let mut expires = headers.get_all(EXPIRES).iter();
    if let Some(first) = expires.next().filter(|_| !control.targeted) {
        // Two different lines, or anything that is not a date ("0"), mean the past (section 5.3).
        let Some(expires) = parse_date(first).filter(|_| expires.all(|other| other == first)) else { return Some(0) };
        let date = headers.get(DATE).and_then(parse_date).unwrap_or(received);
        return Some(expires.ms_since(date));
    }
    control.no_cache.then_some(0)
}

/// Section 4.2.3: the greater of what `Date` and what `Age` say.
fn initial_age_ms(headers: &HeaderMap, requested: Time, received: Time) -> u64 {
    let apparent = headers.get(DATE).and_then(parse_date).map_or(0, |date| received.ms_since(date));
    // `Date` has whole seconds: what is below one is its rounding, not age.
    let apparent = if apparent < 1000 { 0 } else { apparent };
    let stated = age_of(headers).map_or(0, |seconds| seconds.saturating_mul(1000));
    apparent.max(stated.saturating_add(received.ms_since(requested)))
}

/// `Age`: the first member of the first line counts, and nothing that is not a number (section 5.1).
pub fn age_of(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(AGE)?.as_bytes();
    let first = value.split(|b| *b == b',').next()?;
    parse_seconds(first.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::{CACHE_CONTROL, HeaderName};

    const NOW: Time = Time(784_111_777_000);

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn lifetime(fields: &[(&'static str, &'static str)]) -> Option<u64> {
        let headers = headers(fields);
        Freshness::of(&headers, &Control::of(&headers), NOW, NOW).map(|freshness| freshness.lifetime_ms / 1000)
    }

    #[test]
    fn lifetime_is_the_most_specific_explicit_one() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let in_a_minute = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
        assert_eq!(lifetime(&[]), None);
        assert_eq!(lifetime(&[date]), None);
        assert_eq!(lifetime(&[("last-modified", "Sun, 06 Nov 1993 08:49:37 GMT")]), None, "no default lifetime");
        assert_eq!(lifetime(&[date, in_a_minute]), Some(60));
        assert_eq!(lifetime(&[in_a_minute]), Some(60), "without Date, from its arrival");
        assert_eq!(lifetime(&[date, in_a_minute, ("cache-control", "max-age=5")]), Some(5));
        assert_eq!(lifetime(&[in_a_minute, ("cache-control", "max-age=5, s-maxage=7")]), Some(7));
        assert_eq!(lifetime(&[("expires", "0")]), Some(0));
        assert_eq!(lifetime(&[("expires", "Sun, 06 Nov 1994 08:48:37 GMT")]), Some(0));
        assert_eq!(lifetime(&[("cache-control", "max-age=x"), in_a_minute]), Some(0));
        assert_eq!(lifetime(&[("cache-control", "no-cache")]), Some(0));
        let mut twice = headers(&[in_a_minute]);
        twice.append(EXPIRES, HeaderValue::from_static("Sun, 06 Nov 1994 08:51:37 GMT"));
        assert_eq!(Freshness::of(&twice, &Control::default(), NOW, NOW).map(|f| f.lifetime_ms), Some(0));
    }

    #[test]
    fn targeted_control_hides_expires() {
        let headers = headers(&[("cdn-cache-control", "public"), ("expires", "Sun, 06 Nov 1994 08:50:37 GMT")]);
        assert_eq!(Freshness::of(&headers, &Control::of_response(&headers), NOW, NOW), None);
    }

    #[test]
    fn age_counts_transit_residence_and_what_upstream_caches_say() {
        let age = |fields: &[(&'static str, &'static str)], delay| {
            let mut headers = headers(fields);
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=100"));
            let freshness = Freshness::of(&headers, &Control::of(&headers), NOW, NOW.plus_ms(delay)).expect("explicit");
            freshness.age_ms(NOW.plus_ms(delay + 10_000)) / 1000
        };
        assert_eq!(age(&[], 0), 10);
        assert_eq!(age(&[], 3_000), 13);
        assert_eq!(age(&[("age", "30")], 0), 40);
        assert_eq!(age(&[("age", "30, 99")], 0), 40);
        assert_eq!(age(&[("age", "-3")], 0), 10);
        assert_eq!(age(&[("age", "3.5")], 0), 10);
        assert_eq!(age(&[("date", "Sun, 06 Nov 1994 08:49:17 GMT")], 0), 30, "Date is 20 seconds ago");
        assert_eq!(age(&[("date", "Sun, 06 Nov 1994 08:50:17 GMT")], 0), 10, "Date is in the future");
        assert_eq!(age(&[("age", "99999999999999999999")], 0), crate::cache::control::SECONDS_MAX + 10);
    }

    #[test]
    fn fresh_ends_when_the_age_reaches_the_lifetime() {
        let freshness = Freshness { lifetime_ms: 1000, initial_age_ms: 0, received: NOW };
        assert_eq!(freshness.standing(NOW), Standing::Fresh(1000));
        assert_eq!(freshness.standing(NOW.plus_ms(999)), Standing::Fresh(1));
        assert_eq!(freshness.standing(NOW.plus_ms(1000)), Standing::Stale(0));
        assert_eq!(freshness.standing(NOW.plus_ms(1500)), Standing::Stale(500));
    }
}
