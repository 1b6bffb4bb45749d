//! The numbers of purges, by what they name: bounded. Where there are too many names, the oldest is not forgotten but widened: from then on everything that was
//! stored before that purge counts as purged by it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Kind, Name, Purge, Realm, Strength, Target, Verdict, host_name};
use crate::cache::tags::Tags;
use crate::cache::time::Time;
use crate::limits::{PURGED_NAMES_MAX, PURGED_PREFIXES_MAX};

/// What is remembered of the purges of one thing: the greatest number of each strength; 0: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Mark {
    hard: u64,
    soft: u64,
    /// When the last soft one was, in milliseconds since 1970.
    soft_at: u64,
    unproven: u64,
}

/// All marks. Everything is found in time that grows with the logarithm of a bound.
#[derive(Debug)]
pub(super) struct Table {
    newest: u64,
    /// The greatest number of each kind, at the kind's place.
    by_kind: [u64; 5],
    everything: Mark,
    names: Kept<Name>,
    prefixes: Kept<Prefix>,
}

/// A realm and what an authority with path and query, or these two alone, begin with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix(Realm, Arc<[u8]>);

/// Marks by name, at most so many.
#[derive(Debug)]
struct Kept<K> {
    marks: BTreeMap<K, Mark>,
    /// Names in the order of their purges; one that was purged again has a later place too.
    order: VecDeque<(u64, K)>,
    len_max: usize,
}

/// A table as it is written to a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remembered {
    newest: u64,
    by_kind: [u64; 5],
    everything: Mark,
    names: Vec<(u64, Mark)>,
    prefixes: Vec<(u64, String, Mark)>,
}

impl Remembered {
    /// The greatest number.
    pub fn newest(&self) -> u64 {
        self.newest
    }
}

impl Mark {
    fn raise(&mut self, number: u64, strength: Strength, at: Time) {
        match strength {
            Strength::Hard => self.hard = self.hard.max(number),
            Strength::Soft if number > self.soft => (self.soft, self.soft_at) = (number, at.0),
            Strength::Soft => {}
            Strength::Unproven => self.unproven = self.unproven.max(number),
        }
    }

    fn widen(&mut self, other: &Self) {
        self.hard = self.hard.max(other.hard);
        self.unproven = self.unproven.max(other.unproven);
        self.raise(other.soft, Strength::Soft, Time(other.soft_at));
    }

    fn newest(&self) -> u64 {
        self.hard.max(self.soft).max(self.unproven)
    }

    /// What it says of a response whose fetch began after purge `stamp`.
    pub(super) fn verdict(&self, stamp: u64) -> Verdict {
        if self.hard > stamp {
            Verdict::Gone
        } else if self.unproven > stamp {
            Verdict::Unproven
        } else if self.soft > stamp {
            Verdict::Soft(Time(self.soft_at))
        } else {
            Verdict::Valid
        }
    }
}

impl<K: Ord + Clone> Kept<K> {
    fn new(len_max: usize) -> Self {
        Self { marks: BTreeMap::new(), order: VecDeque::new(), len_max }
    }

    /// Marks a name. Gives the mark of one that had to make room.
    fn raise(&mut self, name: K, purge: &Purge) -> Option<Mark> {
        self.marks.entry(name.clone()).or_default().raise(purge.number, purge.strength, purge.at);
        self.order.push_back((purge.number, name));
        // Names that are purged again and again: all but their last places go.
        if self.order.len() > self.len_max.saturating_mul(2) {
            let marks = &self.marks;
            self.order.retain(|(number, name)| marks.get(name).is_some_and(|mark| mark.newest() == *number));
        }
        while self.marks.len() > self.len_max
            && let Some((number, name)) = self.order.pop_front()
        {
            if self.marks.get(&name).is_some_and(|mark| mark.newest() <= number) {
                return self.marks.remove(&name);
            }
        }
        None
    }

    fn restore(&mut self, marks: impl IntoIterator<Item = (K, Mark)>) {
        self.marks.extend(marks.into_iter().take(self.len_max));
        let mut order: Vec<_> = self.marks.iter().map(|(name, mark)| (mark.newest(), name.clone())).collect();
        order.sort();
        self.order = order.into();
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::bounded(PURGED_NAMES_MAX, PURGED_PREFIXES_MAX)
    }
}

impl Table {
    pub(super) fn bounded(names_max: usize, prefixes_max: usize) -> Self {
        Self { newest: 0, by_kind: [0; 5], everything: Mark::default(), names: Kept::new(names_max), prefixes: Kept::new(prefixes_max) }
    }

    /// Takes in a purge: what it names, and its number also where it names nothing (a registry refuses such a one; the journal is any bytes).
    pub(super) fn apply(&mut self, purge: &Purge) {
        purge.targets.iter().for_each(|target| self.mark(purge, target));
        self.newest = self.newest.max(purge.number);
    }

    fn mark(&mut self, purge: &Purge, target: &Target) {
        let realm = purge.realm;
        let kind = match target {
            Target::Everything if realm == Realm::NONE => {
                self.everything.raise(purge.number, purge.strength, purge.at);
                return;
            }
            Target::Everything => Kind::Realm,
            Target::Host(_) => Kind::Host,
            Target::Url { .. } => Kind::Url,
            Target::Prefix(_) => Kind::Prefix,
            Target::Tag(_) => Kind::Tag,
        };
        match target {
            Target::Everything => self.name(Name(realm.0), purge),
            Target::Host(host) => self.name(host_name(realm, host.as_bytes()), purge),
            Target::Url { authority, target } => {
                self.name(Name::new(kind, realm, &[authority.as_bytes(), target.as_bytes()]), purge);
            }
            Target::Prefix(prefix) => {
                let widened = self.prefixes.raise(Prefix(realm, prefix.as_bytes().into()), purge);
                widened.into_iter().for_each(|mark| self.everything.widen(&mark));
            }
            Target::Tag(tag) => {
                self.name(Tags::every(realm), purge);
                self.name(Tags::name(tag.as_bytes()).within(realm), purge);
            }
        }
        if let Some(newest) = self.by_kind.get_mut(kind as usize) {
            *newest = (*newest).max(purge.number);
        }
    }

    fn name(&mut self, name: Name, purge: &Purge) {
        let widened = self.names.raise(name, purge);
        widened.into_iter().for_each(|mark| self.everything.widen(&mark));
    }

    /// The greatest number.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Whether anything of a kind was purged after `number`.
    pub(super) fn is_newer(&self, kind: Kind, number: u64) -> bool {
        self.by_kind.get(kind as usize).is_some_and(|newest| *newest > number)
    }

    /// What is said of all responses.
    pub(super) fn everything(&self) -> &Mark {
        &self.everything
    }

    /// What is said of a name.
    pub(super) fn named(&self, name: Name) -> Option<&Mark> {
        self.names.marks.get(&name)
    }

    /// Gives the marks of all prefixes of a text. Each step either finds one or cuts the text to what it has in common with a neighbour, so there are no more
    /// steps than prefixes that share a beginning with it.
    pub(super) fn prefixes_of(&self, realm: Realm, text: &[u8], mut each: impl FnMut(&Mark)) {
        let mut end = Included(Prefix(realm, text.into()));
        loop {
            let below = self.prefixes.marks.range((Unbounded, end.as_ref())).next_back();
            let Some((found, mark)) = below.filter(|(found, _)| found.0 == realm) else { return };
            if text.starts_with(&found.1) {
                each(mark);
                end = Excluded(found.clone());
            } else {
                let common = found.1.iter().zip(text).take_while(|(one, other)| one == other).count();
                end = Included(Prefix(realm, text.get(..common).unwrap_or_default().into()));
            }
        }
    }

    pub(super) fn remember(&self) -> Remembered {
        let prefix = |(Prefix(realm, text), mark): (&Prefix, &Mark)| (realm.0, String::from_utf8_lossy(text).into_owned(), *mark);
        Remembered {
            newest: self.newest,
            by_kind: self.by_kind,
            everything: self.everything,
            names: self.names.marks.iter().map(|(name, mark)| (name.0, *mark)).collect(),
            prefixes: self.prefixes.marks.iter().map(prefix).collect(),
        }
    }

    pub(super) fn restore(remembered: &Remembered) -> Self {
        let mut table = Self { newest: remembered.newest, by_kind: remembered.by_kind, ..Self::default() };
        table.everything = remembered.everything;
        table.names.restore(remembered.names.iter().map(|(name, mark)| (Name(*name), *mark)));
        let prefix = |(realm, text, mark): &(u64, String, Mark)| (Prefix(Realm(*realm), text.as_bytes().into()), *mark);
        table.prefixes.restore(remembered.prefixes.iter().map(prefix));
        table
    }
}
