//! Values of flags: times, variables, header fields.

use std::time::Duration;

use selvedge_origin::limits::LONG_POLL_MAX;

use crate::limits::WAIT_MAX;

/// Reads `500ms`, `30s`, `2m` or a number of seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a time such as 30s, 2m or 500ms"))?;
    let time = match unit {
        "ms" => Duration::from_millis(number),
        "" | "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err(format!("{unit:?} is not a unit; use ms, s or m")),
    };
    if time > WAIT_MAX { Err("longer than an hour".to_owned()) } else { Ok(time) }
}

/// As [`duration`], no longer than the origin waits for nodes' answers.
pub(super) fn short_duration(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time > LONG_POLL_MAX {
        Err(format!("longer than {} s, for which the origin waits at most", LONG_POLL_MAX.as_secs()))
    } else {
        Ok(time)
    }
}

/// Reads `NAME=VALUE`.
pub(super) fn var(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Reads `Name: value`.
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("{text:?} is not a header field such as \"Accept: text/html\""))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields_have_a_name_and_a_value() {
        assert_eq!(header("Accept: a:b "), Ok(("Accept".into(), "a:b".into())));
        assert!(header("Accept").is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert!(duration("1h").is_err() && duration("").is_err() && duration("99999999m").is_err());
    }
}
