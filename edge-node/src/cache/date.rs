//! Dates in HTTP fields: RFC 9110, section 5.6.7. Pure, and without an allocation: a cache reads them in every answer and every condition.

use http::HeaderValue;

use super::time::Time;

const DAYS: [&[u8]; 7] = [b"Sunday", b"Monday", b"Tuesday", b"Wednesday", b"Thursday", b"Friday", b"Saturday"];
/// With the days of the year before each, where it is no leap year, and its own.
const MONTHS: [(&[u8], u64, u64); 12] = [
    (b"Jan", 0, 31),
    (b"Feb", 31, 28),
    (b"Mar", 59, 31),
    (b"Apr", 90, 30),
    (b"May", 120, 31),
    (b"Jun", 151, 30),
    (b"Jul", 181, 31),
    (b"Aug", 212, 31),
    (b"Sep", 243, 30),
    (b"Oct", 273, 31),
    (b"Nov", 304, 30),
    (b"Dec", 334, 31),
];

/// Parses one of the three formats, strictly but for two things: case says nothing (RFC 9111, section 4.2), and a day of the week that is not that date's is taken for a
/// slip of the pen (the RFC encourages recipients to be robust; the day adds nothing to the date). What is no date, or before 1970, is none: for `Expires` that means "in
/// the past".
pub fn parse_date(value: impl AsRef<[u8]>) -> Option<Time> {
    let text = value.as_ref();
    let seconds = fixed(text).or_else(|| rfc_850(text)).or_else(|| asctime(text))?;
    Some(Time(seconds.saturating_mul(1000)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
pub fn format_date(time: Time) -> HeaderValue {
    // The format ends with the year 9999.
    let seconds = time.seconds().min(253_402_300_799);
    let text = httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn fixed(text: &[u8]) -> Option<u64> {
    let rest = &mut Rest(text);
    rest.day_name(3)?;
    rest.literal(b", ")?;
    let day = rest.number(2)?;
    rest.literal(b" ")?;
    let month = rest.month()?;
    rest.literal(b" ")?;
    let year = rest.number(4)?;
    rest.literal(b" ")?;
    let time = rest.time()?;
    rest.literal(b" GMT")?;
    rest.end(seconds(year, month, day, time)?)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`: of years of two digits, those up to 69 are of this century, as POSIX has it.
fn rfc_850(text: &[u8]) -> Option<u64> {
    let rest = &mut Rest(text);
    rest.day_name(usize::MAX)?;
    rest.literal(b", ")?;
    let day = rest.number(2)?;
    rest.literal(b"-")?;
    let month = rest.month()?;
    rest.literal(b"-")?;
    let year = rest.number(2)?;
    rest.literal(b" ")?;
    let time = rest.time()?;
    rest.literal(b" GMT")?;
    rest.end(seconds(year + if year < 70 { 2000 } else { 1900 }, month, day, time)?)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &[u8]) -> Option<u64> {
    let rest = &mut Rest(text);
    rest.day_name(3)?;
    rest.literal(b" ")?;
    let month = rest.month()?;
    rest.literal(b" ")?;
    let day = if rest.literal(b" ").is_some() { rest.number(1)? } else { rest.number(2)? };
    rest.literal(b" ")?;
    let time = rest.time()?;
    rest.literal(b" ")?;
    let year = rest.number(4)?;
    rest.end(seconds(year, month, day, time)?)
}

/// What of a date is not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    /// Reads exactly this, in any case of letters.
    fn literal(&mut self, expected: &[u8]) -> Option<()> {
        let (read, rest) = self.0.split_at_checked(expected.len())?;
        self.0 = rest;
        read.eq_ignore_ascii_case(expected).then_some(())
    }

    /// Reads the name of a day, or its first `letters`. What it is of does not matter.
    fn day_name(&mut self, letters: usize) -> Option<()> {
        let mut names = DAYS.iter().filter_map(|name| name.get(..letters.min(name.len())));
        let name = names.find(|name| self.0.get(..name.len()).is_some_and(|read| read.eq_ignore_ascii_case(name)))?;
        self.literal(name)
    }

    /// The days of the year before it, its own, and whether it is after February.
    fn month(&mut self) -> Option<(u64, u64, bool)> {
        let (read, rest) = self.0.split_at_checked(3)?;
        self.0 = rest;
        let at = MONTHS.iter().position(|(name, _, _)| read.eq_ignore_ascii_case(name))?;
        MONTHS.get(at).map(|(_, before, own)| (*before, *own, at > 1))
    }

    /// Exactly so many digits.
    fn number(&mut self, digits: usize) -> Option<u64> {
        let (read, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        read.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
    }

    /// `08:49:37`, in seconds. A leap second is the first of the next minute.
    fn time(&mut self) -> Option<u64> {
        let hour = self.number(2).filter(|hour| *hour < 24)?;
        self.literal(b":")?;
        let minute = self.number(2).filter(|minute| *minute < 60)?;
        self.literal(b":")?;
        let second = self.number(2).filter(|second| *second <= 60)?;
        Some((hour * 60 + minute) * 60 + second)
    }

    fn end(&self, seconds: u64) -> Option<u64> {
        self.0.is_empty().then_some(seconds)
    }
}

/// Seconds since 1970, where the date exists and is not before.
fn seconds(year: u64, (before, own, after_february): (u64, u64, bool), day: u64, time: u64) -> Option<u64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let february = before == 31;
    if day == 0 || day > own + u64::from(leap && february) {
        return None;
    }
    let last = year.checked_sub(1)?;
    // Leap days up to the end of the year before, less the 477 of those before 1970.
    let leap_days = (last / 4 - last / 100 + last / 400).checked_sub(477)?;
    let days = year.checked_sub(1970)? * 365 + leap_days + before + u64::from(leap && after_february) + day - 1;
    Some(days * 86_400 + time)
}

/// For tests/fuzz: what is a date survives its own format.
pub fn fuzz(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    if let Some(time) = parse_date(&value) {
        assert_eq!(parse_date(format_date(time)), Some(time));
        let usual = std::str::from_utf8(bytes).ok().and_then(|text| httpdate::parse_http_date(text).ok());
        let usual = usual.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
        assert!(usual.is_none_or(|since| since.as_secs() == time.seconds()), "{value:?}");
    }
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
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Wednesday, 06-Nov-94 08:49:37 GMT",
            "Thu Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse_date(HeaderValue::from_static(good)), expected, "{good}");
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
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Son, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            "Sun Nov 06 08:49:37 1994 GMT",
            "Wed, 31 Feb 1994 08:49:37 GMT",
            "Wed, 29 Feb 1994 08:49:37 GMT",
            "Wed, 29 Feb 2100 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 25:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06 Nov 0000 08:49:37 GMT",
            "Wed, 31 Dec 1969 23:59:59 GMT",
        ] {
            assert_eq!(parse_date(HeaderValue::from_static(bad)), None, "{bad}");
        }
        assert_eq!(parse_date(HeaderValue::from_bytes(b"Sun, 06 N\xf6v 1994 08:49:37 GMT").expect("a value")), None);
    }

    #[test]
    fn years_of_two_digits_are_near_this_one() {
        let year = |text: &'static str| parse_date(HeaderValue::from_static(text)).map(|time| 1970 + time.seconds() / 31_556_952);
        assert_eq!(year("Thursday, 18-Aug-50 02:01:18 GMT"), Some(2050));
        assert_eq!(year("Thursday, 18-Aug-69 02:01:18 GMT"), Some(2069));
        assert_eq!(year("Thursday, 18-Aug-70 02:01:18 GMT"), Some(1970));
    }

    #[test]
    fn a_date_survives_its_own_format() {
        let time = Time(784_111_777_000);
        assert_eq!(parse_date(format_date(time)), Some(time));
        assert_eq!(format_date(Time(u64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
        // Each day of four centuries and a bit, at some time of the day.
        for day in 0..160_000u64 {
            let time = Time((day * 86_400 + day * 7919 % 86_400) * 1000);
            assert_eq!(parse_date(format_date(time)), Some(time), "{day}");
        }
        fuzz(b"Tue, 29 Feb 2000 23:59:60 GMT");
    }
}
