//! What an overloaded node refuses to do: one value that whoever measures the load sets, and that all who could do the work ask.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// What a node refuses where it has too much to do, in this order. What costs most goes first; what is answered from memory is not among it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Work {
    /// To load a version that is loaded nowhere, for a request.
    ColdStart,
    /// To run a worker for a client.
    Worker,
    /// To ask an upstream, or a shield, for a client.
    Miss,
}

/// How far a node's load makes it refuse work. Shared by all of its parts; nothing is refused at first.
#[derive(Debug, Default)]
pub struct Strain {
    /// How many kinds of work are refused, from the first on.
    level: AtomicU8,
    shed: [AtomicU64; Work::ALL.len()],
}

impl Work {
    /// All of it, in order.
    pub const ALL: [Self; 3] = [Self::ColdStart, Self::Worker, Self::Miss];

    /// The stable name, as in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ColdStart => "cold",
            Self::Worker => "worker",
            Self::Miss => "miss",
        }
    }
}

impl Strain {
    /// From now on work up to this kind is refused; none: nothing is.
    pub fn refuse(&self, up_to: Option<Work>) {
        self.level.store(up_to.map_or(0, |work| work as u8 + 1), Relaxed);
    }

    /// How many kinds of work are refused now, 0 to 3.
    pub fn level(&self) -> u8 {
        self.level.load(Relaxed)
    }

    /// Whether such work is refused now.
    pub fn refuses(&self, work: Work) -> bool {
        self.level() > work as u8
    }

    /// The same of work that a request needs: it is counted where it is refused.
    pub fn sheds(&self, work: Work) -> bool {
        let refused = self.refuses(work);
        if refused && let Some(count) = self.shed.get(work as usize) {
            count.fetch_add(1, Relaxed);
        }
        refused
    }

    /// What is refused now, and how many requests for each kind of work were refused since the start.
    pub fn read(&self) -> impl Iterator<Item = (Work, bool, u64)> {
        Work::ALL.into_iter().zip(&self.shed).map(|(work, shed)| (work, self.refuses(work), shed.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_refused_in_its_order_and_counted_where_a_request_needs_it() {
        let strain = Strain::default();
        for (up_to, refused) in [
            (None, [false, false, false]),
            (Some(Work::ColdStart), [true, false, false]),
            (Some(Work::Worker), [true, true, false]),
            (Some(Work::Miss), [true, true, true]),
            (None, [false, false, false]),
        ] {
            strain.refuse(up_to);
            assert_eq!(Work::ALL.map(|work| strain.refuses(work)), refused, "{up_to:?}");
            assert_eq!(Work::ALL.map(|work| strain.sheds(work)), refused, "{up_to:?}");
        }
        let read: Vec<_> = strain.read().collect();
        assert_eq!(read, [(Work::ColdStart, false, 3), (Work::Worker, false, 2), (Work::Miss, false, 1)]);
    }
}
