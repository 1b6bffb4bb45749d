//! A queue that knows whether it is a burst or stands, and so how long whoever comes may wait in it.
//!
//! A burst is worked off, and who comes with it may wait. Where a queue has not been empty for a while, more comes than is done: to wait long in it
//! only makes every answer late. Newcomers wait for a short time then, so that what is done is done for those who came just now, and the others hear
//! of it soon. That is CoDel (RFC 8289), in the form that servers use: B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limits::{STANDING_WAIT, STANDS_AFTER};

/// Those who wait for one thing. It costs nothing where nobody waits.
#[derive(Debug, Default)]
pub struct Backlog(Mutex<Queue>);

/// Pure: it is told the time, and of who comes and goes.
#[derive(Debug, Default)]
struct Queue {
    waiting: usize,
    /// It was empty then for the last time.
    since: Option<Instant>,
}

/// How long one of them may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    came: Instant,
    /// When the queue was empty for the last time before, as far as is known.
    since: Instant,
    whole: Duration,
}

impl Turn {
    /// Then it has waited long enough.
    pub fn until(&self) -> Instant {
        let stood = self.came.saturating_duration_since(self.since) >= STANDS_AFTER;
        self.came + if stood { self.whole.min(STANDING_WAIT) } else { self.whole }
    }
}

/// A place in the queue, left by dropping it.
#[derive(Debug)]
#[must_use]
pub struct Place<'a> {
    backlog: &'a Backlog,
    turn: Turn,
}

impl Place<'_> {
    /// How long it may wait: less than it was said first, where others have come back since who show that the queue stood then.
    pub fn turn(&mut self) -> Turn {
        self.turn = self.backlog.0.lock().again(self.turn);
        self.turn
    }
}

impl Backlog {
    /// Waits from `now` on: for `whole` in a burst, for [`STANDING_WAIT`] at most where the queue stands. None where `max` wait already.
    pub fn enter(&self, now: Instant, whole: Duration, max: usize) -> Option<Place<'_>> {
        let turn = self.0.lock().enter(now, whole, max)?;
        Some(Place { backlog: self, turn })
    }

    /// Waits again: it got what it had waited for, and had to give it back. Its time goes on, and the queue has not been empty meanwhile.
    pub fn come_back(&self, turn: Turn) -> Place<'_> {
        self.0.lock().come_back(turn);
        Place { backlog: self, turn }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.0.lock().waiting
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.backlog.0.lock().leave();
    }
}

impl Queue {
    fn enter(&mut self, now: Instant, whole: Duration, max: usize) -> Option<Turn> {
        if self.waiting >= max {
            return None;
        }
        self.waiting += 1;
        Some(Turn { came: now, since: *self.since.get_or_insert(now), whole })
    }

    /// The turn of one that waits, by what is known now.
    fn again(&self, turn: Turn) -> Turn {
        Turn { since: self.since.map_or(turn.since, |since| since.min(turn.since)), ..turn }
    }

    fn come_back(&mut self, turn: Turn) {
        self.waiting += 1;
        self.since = Some(self.again(turn).since);
    }

    fn leave(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
        if self.waiting == 0 {
            self.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Duration = Duration::from_secs(5);
    const MS: Duration = Duration::from_millis(1);

    fn wait(queue: &mut Queue, now: Instant) -> Duration {
        queue.enter(now, WHOLE, usize::MAX).unwrap().until() - now
    }

    #[test]
    fn a_burst_waits_for_all_the_time_and_newcomers_of_a_standing_queue_for_a_short_one() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        assert_eq!(wait(&mut queue, start), WHOLE);
        assert_eq!(wait(&mut queue, start + STANDS_AFTER - MS), WHOLE);
        assert_eq!(wait(&mut queue, start + STANDS_AFTER), STANDING_WAIT);
        // As long as one of them is there.
        queue.leave();
        queue.leave();
        assert_eq!(wait(&mut queue, start + 9 * STANDS_AFTER), STANDING_WAIT);
        queue.leave();
        queue.leave();
        assert_eq!(wait(&mut queue, start + 9 * STANDS_AFTER), WHOLE, "it was empty");
    }

    #[test]
    fn who_waits_for_less_anyway_does_so_in_a_standing_queue_too() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let later = start + STANDS_AFTER;
        let _ = queue.enter(start, MS, usize::MAX);
        assert_eq!(queue.enter(later, MS, usize::MAX).map(|turn| turn.until()), Some(later + MS));
    }

    #[test]
    fn who_comes_back_has_been_there_all_the_time() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let first = queue.enter(start, WHOLE, usize::MAX).unwrap();
        queue.leave();
        let second = queue.enter(start + STANDS_AFTER, WHOLE, usize::MAX).unwrap();
        assert_eq!(second.until() - second.came, WHOLE, "it was empty, as it seems");
        queue.come_back(first);
        assert_eq!(queue.again(second).until() - second.came, STANDING_WAIT, "it was not");
        assert_eq!(queue.again(first).until() - first.came, WHOLE, "its own time goes on");
        assert_eq!(wait(&mut queue, start + STANDS_AFTER), STANDING_WAIT);
        queue.leave();
        queue.leave();
        queue.leave();
        // One that comes back to nobody.
        queue.come_back(first);
        assert_eq!(wait(&mut queue, start + STANDS_AFTER), STANDING_WAIT);
    }

    #[test]
    fn a_full_queue_takes_nobody_but_those_who_come_back() {
        let backlog = Backlog::default();
        let now = Instant::now();
        let mut first = backlog.enter(now, WHOLE, 1).unwrap();
        assert!(backlog.enter(now, WHOLE, 1).is_none());
        let mut back = backlog.come_back(first.turn());
        assert_eq!((backlog.waiting(), back.turn()), (2, first.turn()));
        drop((first, back));
        assert_eq!(backlog.waiting(), 0);
        assert!(backlog.enter(now, WHOLE, 0).is_none());
    }
}
