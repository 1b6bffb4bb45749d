//! Instants of the cache, and HTTP dates. Pure: whoever asks brings `now`.

use http::HeaderValue;

/// An instant: milliseconds since 1970, UTC. Ages are counted in it, as RFC 9111 does with `Date`; milliseconds, so that an entry is not stale for a second
/// more or less than its lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub u64);

impl Time {
    /// Milliseconds from `earlier`, 0 where that is later.
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// So many milliseconds later.
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// Longest text that is tried, in bytes; the longest format has 33.
const DATE_BYTES_MAX: usize = 40;

/// Parses one of the three formats of RFC 9110, section 5.6.7, strictly but for case (RFC 9111, section 4.2): existing date, right day of the week. Anything else is no
/// date (for `Expires` that means "in the past").
pub fn parse_date(value: &HeaderValue) -> Option<Time> {
    let text = value.to_str().ok().filter(|text| text.len() <= DATE_BYTES_MAX)?;
    let parsed = httpdate::parse_http_date(text).or_else(|_| httpdate::parse_http_date(&usual_case(text)));
    let since = parsed.ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Time(since.as_secs().saturating_mul(1000)))
}

/// `THU, 18 AUG 2050 02:01:18 gmt` as `Thu, 18 Aug 2050 02:01:18 GMT`.
fn usual_case(text: &str) -> String {
    let mut before = ' ';
    let usual = text.chars().map(|c| {
        let c = if before.is_ascii_alphabetic() { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() };
        before = c;
        c
    });
    let usual: String = usual.collect();
    usual.strip_suffix("Gmt").map_or(usual.clone(), |date| format!("{date}GMT"))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
pub fn format_date(time: Time) -> HeaderValue {
    // The format ends with the year 9999.
    let seconds = time.seconds().min(253_402_300_799);
    let text = httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_formats_are_dates_and_nothing_else_is() {
        let expected = Some(Time(784_111_777_000));
        for good in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "sUN, 06 nov 1994 08:49:37 gMT",
            "SUNDAY, 06-NOV-94 08:49:37 GMT",
            "SUN NOV  6 08:49:37 1994",
        ] {
            assert_eq!(parse_date(&HeaderValue::from_static(good)), expected, "{good}");
        }
        for bad in [
            "0",
            "-1",
            "",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov  1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
            "Wed, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 25:49:37 GMT",
        ] {
            assert_eq!(parse_date(&HeaderValue::from_static(bad)), None, "{bad}");
        }
    }

    #[test]
    fn a_date_survives_its_own_format() {
        let time = Time(784_111_777_000);
        assert_eq!(parse_date(&format_date(time)), Some(time));
        assert_eq!(format_date(Time(u64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
