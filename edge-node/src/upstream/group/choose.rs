//! Which server is asked. Pure.

/// A server as the choice sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) weight: u32,
    pub(super) backup: bool,
    /// Its health checks say that it answers.
    pub(super) healthy: bool,
    /// It has failed again and again, and is left alone for a while.
    pub(super) ejected: bool,
    /// It has all the requests that it may have: one more would wait.
    pub(super) full: bool,
    /// This request has asked it before.
    pub(super) tried: bool,
}

/// The server for a request, by weight among the best that there are: servers that are up, else backups that are up, else ejected ones (a guess that all are down
/// must not make it true), servers before backups, those with room before those where it would wait. Never one that its health checks found down, nor one that was tried. `draw` is from 0 to 1 (exclusive).
pub(super) fn choose(candidates: impl Iterator<Item = Candidate> + Clone, draw: f64) -> Option<usize> {
    let usable = candidates.enumerate().filter(|(_, candidate)| candidate.healthy && !candidate.tried);
    let rank = |candidate: &Candidate| (candidate.ejected, candidate.backup, candidate.full);
    let best = usable.clone().map(|(_, candidate)| rank(&candidate)).min()?;
    let of_best = usable.filter(|(_, candidate)| rank(candidate) == best);
    let total: u64 = of_best.clone().map(|(_, candidate)| u64::from(candidate.weight)).sum();
    let mut left = (draw * total as f64) as u64;
    let mut last = None;
    for (index, candidate) in of_best {
        last = Some(index);
        match left.checked_sub(candidate.weight.into()) {
            Some(rest) => left = rest,
            None => break,
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Candidate = Candidate { weight: 1, backup: false, healthy: true, ejected: false, full: false, tried: false };

    fn chosen(candidates: &[Candidate], draw: f64) -> Option<usize> {
        choose(candidates.iter().copied(), draw)
    }

    #[test]
    fn weights_are_shares() {
        let candidates = [Candidate { weight: 1, ..UP }, Candidate { weight: 3, ..UP }, Candidate { weight: 6, ..UP }];
        let mut counts = [0; 3];
        (0..1000).for_each(|n| counts[chosen(&candidates, f64::from(n) / 1000.0).expect("one")] += 1);
        assert_eq!(counts, [100, 300, 600]);
        assert_eq!(chosen(&[UP], 0.999_999), Some(0));
        assert_eq!(chosen(&[], 0.5), None);
    }

    #[test]
    fn the_best_that_there_are() {
        let backup = Candidate { backup: true, ..UP };
        let full = Candidate { full: true, ..UP };
        let (ejected, down, tried) =
            (Candidate { ejected: true, ..UP }, Candidate { healthy: false, ..UP }, Candidate { tried: true, ..UP });
        for (candidates, expected) in [
            (vec![backup, UP], Some(1)),
            (vec![ejected, backup, UP], Some(2)),
            (vec![ejected, backup], Some(1)),
            (vec![Candidate { ejected: true, ..backup }, ejected], Some(1)),
            (vec![full, UP], Some(1)),
            (vec![full, backup], Some(0)),
            (vec![ejected, full], Some(1)),
            (vec![down, ejected], Some(1)),
            (vec![tried, backup], Some(1)),
            (vec![tried, down], None),
            (vec![down, Candidate { healthy: false, ..backup }], None),
        ] {
            for draw in [0.0, 0.5, 0.999] {
                assert_eq!(chosen(&candidates, draw), expected, "{candidates:?}");
            }
        }
    }
}
