//! Deadlines of the timers of one isolate. What they call is JavaScript's part (`js/timers.js`).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use selvedge_runtime::protocol::StreamId;

use crate::limits::{TIMER_DELAY_MS_MAX, TIMER_PERIOD_MIN, TIMERS_MAX};

#[derive(Default)]
pub(crate) struct Timers {
    waiting: HashMap<u32, Timer>,
    /// Also holds timers that were cleared, until they would be next or are too many.
    deadlines: BinaryHeap<Reverse<(Instant, u32)>>,
    last_id: u32,
}

struct Timer {
    stream: StreamId,
    period: Option<Duration>,
    deadline: Instant,
}

impl Timers {
    /// Starts a timer. None if there are too many.
    pub(crate) fn start(&mut self, stream: StreamId, delay_ms: f64, repeat: bool, now: Instant) -> Option<u32> {
        if self.waiting.len() >= TIMERS_MAX {
            return None;
        }
        let delay_ms = if delay_ms.is_finite() { delay_ms.clamp(0.0, TIMER_DELAY_MS_MAX) } else { 0.0 };
        let delay = Duration::from_secs_f64(delay_ms / 1000.0);
        let id = self.fresh_id();
        let period = repeat.then(|| delay.max(TIMER_PERIOD_MIN));
        let deadline = now + period.unwrap_or(delay);
        self.waiting.insert(id, Timer { stream, period, deadline });
        self.deadlines.push(Reverse((deadline, id)));
        Some(id)
    }

    fn fresh_id(&mut self) -> u32 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if self.last_id != 0 && !self.waiting.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    pub(crate) fn clear(&mut self, id: u32) {
        self.waiting.remove(&id);
        while self.deadlines.peek().is_some_and(|Reverse((_, id))| !self.waiting.contains_key(id)) {
            self.deadlines.pop();
        }
        if self.deadlines.len() > 2 * self.waiting.len() + 64 {
            let waiting = &self.waiting;
            self.deadlines.retain(|Reverse((deadline, id))| waiting.get(id).is_some_and(|timer| timer.deadline == *deadline));
        }
    }

    /// Takes the next timer that is due at `now`: its id and its invocation. An interval waits again.
    pub(crate) fn due(&mut self, now: Instant) -> Option<(u32, StreamId)> {
        loop {
            let &Reverse((deadline, id)) = self.deadlines.peek()?;
            if deadline > now {
                return None;
            }
            self.deadlines.pop();
            let Some(timer) = self.waiting.get_mut(&id).filter(|timer| timer.deadline == deadline) else {
                continue;
            };
            let stream = timer.stream;
            if let Some(period) = timer.period {
                timer.deadline = now + period;
                self.deadlines.push(Reverse((timer.deadline, id)));
            } else {
                self.waiting.remove(&id);
            }
            return Some((id, stream));
        }
    }

    /// When the next timer is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.deadlines.peek().map(|Reverse((deadline, _))| *deadline)
    }

    pub(crate) fn any_of(&self, stream: StreamId) -> bool {
        self.waiting.values().any(|timer| timer.stream == stream)
    }

    /// Forgets the timers of an invocation that has ended; their ids.
    pub(crate) fn drop_of(&mut self, stream: StreamId) -> Vec<u32> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let ids: Vec<u32> = self.waiting.iter().filter(|(_, timer)| timer.stream == stream).map(|(id, _)| *id).collect();
        for id in &ids {
            self.clear(*id);
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_in_the_order_of_their_deadlines_and_intervals_come_again() {
        let mut timers = Timers::default();
        let start = Instant::now();
        let late = timers.start(1, 20.0, false, start).expect("room");
        let soon = timers.start(2, 5.0, true, start).expect("room");
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(timers.due(at(4)), None);
        assert_eq!(timers.due(at(5)), Some((soon, 2)));
        assert_eq!(timers.due(at(5)), None);
        assert_eq!(timers.due(at(20)), Some((soon, 2)));
        assert_eq!(timers.due(at(20)), Some((late, 1)));
        assert_eq!(timers.drop_of(2), vec![soon]);
        assert_eq!(timers.due(at(1000)), None);
    }

    #[test]
    fn timers_are_bounded_also_when_they_are_cleared_at_once() {
        let mut timers = Timers::default();
        let now = Instant::now();
        for _ in 0..TIMERS_MAX {
            timers.start(1, 1000.0, false, now).expect("room");
        }
        assert_eq!(timers.start(1, 1000.0, false, now), None);
        timers.drop_of(1);
        for _ in 0..TIMERS_MAX {
            let id = timers.start(1, 1000.0, false, now).expect("room");
            timers.clear(id);
        }
        assert!(timers.deadlines.len() < 200);
    }
}
