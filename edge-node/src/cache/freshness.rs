//! How long a response is fresh, and how old it is: RFC 9111, section 4.2. Pure.

use http::StatusCode;
use http::header::{AGE, DATE, EXPIRES, HeaderMap, LAST_MODIFIED};

use super::control::{Control, Seconds, parse_seconds};
use super::date::parse_date;
use super::time::Time;

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
        let (lifetime_ms, _) = explicit_ms(headers, control, received)?;
        Some(Self { lifetime_ms, initial_age_ms: initial_age_ms(headers, requested, received), received })
    }

    /// Of a response whose lifetime is known.
    pub fn lasting(headers: &HeaderMap, lifetime_ms: u64, requested: Time, received: Time) -> Self {
        Self { lifetime_ms, initial_age_ms: initial_age_ms(headers, requested, received), received }
    }

    /// The same with a lifetime that is shorter by up to `percent`, by a draw of 0 to 1: so that what was stored at one moment does not end at one.
    pub fn jittered(self, percent: u8, draw: f64) -> Self {
        let off = self.lifetime_ms as f64 * f64::from(percent) / 100.0 * draw;
        Self { lifetime_ms: self.lifetime_ms.saturating_sub(off as u64), ..self }
    }

    /// Whether a hit with `left_ms` of freshness left refreshes the response early, by a draw of 0 to 1: within the last `percent` of its lifetime, with odds that rise
    /// towards its end. What is asked for often is so refreshed before it ends; what is not, hardly ever.
    pub fn refreshes_early(&self, left_ms: u64, percent: u8, draw: f64) -> bool {
        let window = self.lifetime_ms as f64 * f64::from(percent) / 100.0;
        let into = window - left_ms as f64;
        into > 0.0 && draw < (into / window).powi(2)
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

/// What says how long a response is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The directive.
    SMaxage,
    /// The directive.
    MaxAge,
    /// The field.
    Expires,
    /// The directive, and nothing else: it is stored to be validated.
    NoCache,
    /// The route, for responses of this status.
    RouteStatus,
    /// Nothing: it is a guess.
    Heuristic,
}

impl Source {
    /// As it is called where it is set.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SMaxage => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Expires => "Expires",
            Self::NoCache => "no-cache",
            Self::RouteStatus => "status_ttl_s of the route",
            Self::Heuristic => "heuristic",
        }
    }
}

/// `s-maxage`, else `max-age`, else `Expires` less `Date` (section 4.2.1); a response that says `no-cache` and nothing else is stored to be validated.
pub(super) fn explicit_ms(headers: &HeaderMap, control: &Control, received: Time) -> Option<(u64, Source)> {
    let stated = control.s_maxage.map(|seconds| (seconds, Source::SMaxage)).or(control.max_age.map(|seconds| (seconds, Source::MaxAge)));
    if let Some((seconds, source)) = stated {
        return Some((seconds.ms(), source));
    }
    let mut expires = headers.get_all(EXPIRES).iter();
    if let Some(first) = expires.next().filter(|_| !control.targeted) {
        // Two different lines, or anything that is not a date ("0"), mean the past (section 5.3).
        let Some(expires) = parse_date(first).filter(|_| expires.all(|other| other == first)) else { return Some((0, Source::Expires)) };
        let date = headers.get(DATE).and_then(parse_date).unwrap_or(received);
        return Some((expires.ms_since(date), Source::Expires));
    }
    control.no_cache.then_some((0, Source::NoCache))
}

/// Section 4.2.2: a tenth of the time since the last change, at most `max_ms`. Only for statuses that are cacheable by default (RFC 9110, section 15.1) and responses
/// that say `public`, and never without `Last-Modified`.
pub fn heuristic_ms(headers: &HeaderMap, status: StatusCode, control: &Control, received: Time, max_ms: u64) -> Option<u64> {
    let by_default = matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501);
    if max_ms == 0 || !(by_default || control.public) {
        return None;
    }
    let modified = headers.get(LAST_MODIFIED).and_then(parse_date)?;
    let date = headers.get(DATE).and_then(parse_date).unwrap_or(received);
    Some((date.ms_since(modified) / 10).min(max_ms))
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
    parse_seconds(first.trim_ascii()).map(Seconds::get)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::headers;
    use http::HeaderValue;
    use http::header::CACHE_CONTROL;

    const NOW: Time = Time(784_111_777_000);

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
    fn a_lifetime_is_guessed_from_last_modified_where_the_status_allows() {
        let day_old = [("last-modified", "Sat, 05 Nov 1994 08:49:37 GMT"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")];
        let guess = |fields: &[(&'static str, &'static str)], status: u16, max_ms| {
            let headers = headers(fields);
            heuristic_ms(&headers, StatusCode::from_u16(status).expect("a status"), &Control::of(&headers), NOW, max_ms)
        };
        for status in [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501] {
            assert_eq!(guess(&day_old, status, u64::MAX), Some(8_640_000), "{status}");
        }
        for status in [201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599] {
            assert_eq!(guess(&day_old, status, u64::MAX), None, "{status}");
        }
        let [modified, date] = day_old;
        assert_eq!(guess(&[modified, date, ("cache-control", "public")], 599, u64::MAX), Some(8_640_000));
        assert_eq!(guess(&[modified], 200, u64::MAX), Some(8_640_000), "without Date, to its arrival");
        assert_eq!(guess(&day_old, 200, 1_000), Some(1_000));
        assert_eq!(guess(&day_old, 200, 0), None);
        assert_eq!(guess(&[date], 200, u64::MAX), None);
        assert_eq!(guess(&[("last-modified", "Mon, 07 Nov 1994 08:49:37 GMT"), date], 200, u64::MAX), Some(0), "changed in the future");
    }

    #[test]
    fn jitter_only_shortens_and_early_refresh_rises_towards_the_end() {
        let freshness = Freshness { lifetime_ms: 1000, initial_age_ms: 0, received: NOW };
        assert_eq!(freshness.jittered(20, 0.0).lifetime_ms, 1000);
        assert_eq!(freshness.jittered(20, 0.5).lifetime_ms, 900);
        assert_eq!(freshness.jittered(0, 0.9).lifetime_ms, 1000);
        assert!(!freshness.refreshes_early(101, 10, 0.0), "not before the last tenth");
        assert!(freshness.refreshes_early(50, 10, 0.2) && !freshness.refreshes_early(50, 10, 0.3));
        assert!(freshness.refreshes_early(1, 10, 0.9));
        assert!(!freshness.refreshes_early(1, 0, 0.0));
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
