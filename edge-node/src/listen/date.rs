//! `Date` for responses that have none (RFC 9110, section 6.6.1), written once per second and thread.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// As in `Sun, 06 Nov 1994 08:49:37 GMT`.
type Text = [u8; 29];

thread_local! {
    static LAST: Cell<(u64, Text)> = const { Cell::new((u64::MAX, [0; 29])) };
}

/// The date now.
pub(super) fn now() -> Text {
    let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (last, text) = LAST.get();
    if last == second { text } else { renew(second) }
}

#[cold]
fn renew(second: u64) -> Text {
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
    let text = text.as_bytes().try_into().unwrap_or([b' '; 29]);
    LAST.set((second, text));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_date() {
        let before = SystemTime::now() - Duration::from_secs(1);
        for _ in 0..2 {
            let date = httpdate::parse_http_date(std::str::from_utf8(&now()).unwrap()).unwrap();
            assert!(date >= before && date <= SystemTime::now());
        }
        assert_eq!(&renew(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
