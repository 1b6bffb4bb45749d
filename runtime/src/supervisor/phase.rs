//! Which wall limit holds for an invocation now. Pure: it is told what time it is.

use std::time::Instant;

use crate::Limits;

/// Where an invocation stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// The response's head must come by then.
    Head(Instant),
    /// A byte of some body must have moved since then.
    Body(Instant),
    /// `waitUntil` must end by then.
    After(Instant),
    /// It was cancelled at this time.
    Cancelled(Instant),
}

impl Phase {
    /// Which wall limit is reached at `now`, if one is.
    pub(super) fn overdue(self, now: Instant, limits: &Limits) -> Option<&'static str> {
        match self {
            Self::Head(deadline) if now >= deadline => Some("no response head in time"),
            Self::Body(since) if now >= since + limits.body_idle_timeout() => Some("no progress on a body in time"),
            Self::After(deadline) if now >= deadline => Some("waitUntil did not end in time"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_limit_is_reached_when_its_time_is_up_and_not_a_moment_before() {
        let (start, limits) = (Instant::now(), Limits::default());
        let moment = Duration::from_nanos(1);
        let phases = [
            (Phase::Head(start + limits.head_timeout()), limits.head_timeout(), "head"),
            (Phase::Body(start), limits.body_idle_timeout(), "body"),
            (Phase::After(start + limits.wait_until_timeout()), limits.wait_until_timeout(), "waitUntil"),
        ];
        for (phase, limit, named) in phases {
            assert_eq!(phase.overdue(start + limit - moment, &limits), None, "{named}");
            assert!(phase.overdue(start + limit, &limits).is_some_and(|why| why.contains(named)));
            assert!(phase.overdue(start + limit + moment, &limits).is_some_and(|why| why.contains(named)));
        }
        assert_eq!(Phase::Cancelled(start).overdue(start + Duration::from_secs(3600), &limits), None);
    }
}
