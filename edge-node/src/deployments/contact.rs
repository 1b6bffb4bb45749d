//! When the registry was heard last: a route may say for how long its stored responses are good without that, because purges do not arrive.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shared by who follows the registry and who answers requests.
#[derive(Debug)]
pub struct Contact {
    start: Instant,
    /// Milliseconds from the start to the last word of the registry, and one; 0: there was none.
    heard: AtomicU64,
}

impl Default for Contact {
    fn default() -> Self {
        Self { start: Instant::now(), heard: AtomicU64::new(0) }
    }
}

impl Contact {
    /// The registry has spoken, at `now`, and all that it said was taken.
    pub fn heard(&self, now: Instant) {
        self.heard.store(self.millis(now).saturating_add(1), Ordering::Relaxed);
    }

    /// Whether it has been silent at `now` for longer than this; one that was never heard has.
    pub fn is_lost_for(&self, longest: Duration, now: Instant) -> bool {
        let silent = self.heard.load(Ordering::Relaxed).checked_sub(1).map(|heard| self.millis(now).saturating_sub(heard));
        silent.is_none_or(|silent| u128::from(silent) > longest.as_millis())
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_counted_from_the_last_word_and_is_endless_before_the_first() {
        let (contact, start, minute) = (Contact::default(), Instant::now(), Duration::from_secs(60));
        assert!(contact.is_lost_for(minute, start));
        contact.heard(start);
        assert!(!contact.is_lost_for(minute, start + minute));
        assert!(contact.is_lost_for(minute, start + minute + Duration::from_secs(1)));
        contact.heard(start + minute * 2);
        assert!(!contact.is_lost_for(minute, start + minute * 3));
    }
}
