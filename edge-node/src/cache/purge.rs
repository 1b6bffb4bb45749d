//! What an operator has purged: a purge raises a number for what it names, and nothing else happens. Whoever looks a response up, or follows a fetch, compares that
//! number with the one that was the latest when its fetch began. So a purge costs the same whatever is stored, reaches every variant and every tier, and what is
//! being fetched while it happens is never taken for newer than it. Memory and disk are given back later, as ever. No clock, no I/O.
//!
//! Three strengths: *hard*: gone; *soft*: stale from now on, and used as the rules for stale responses allow; *unproven*: this node may have missed a purge, so
//! it asks the upstream before it uses anything. How it survives a restart: [`crate::deployments`] keeps a journal.

mod table;

use std::sync::atomic::{AtomicU64, Ordering::*};

use parking_lot::RwLock;

use super::key;
use super::tags::Tags;
use super::time::Time;
pub use table::Remembered;
use table::{Mark, Table};

/// What was purged, in the order of its number: later purges have greater ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// Its number.
    pub number: u64,
    /// When this node took it in.
    pub at: Time,
    /// How strong.
    pub strength: Strength,
    /// Whose responses: those that were stored for a worker, or all.
    pub realm: Realm,
    /// What it names.
    pub targets: Vec<Target>,
}

/// What a purge makes of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    /// Gone.
    Hard,
    /// Stale.
    Soft,
    /// Not to be used before the upstream has confirmed it.
    Unproven,
}

/// What a purge names. Authorities are normalised as those of requests are; paths and queries are as requests have them. Every scheme is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All.
    Everything,
    /// A host on every port, or with its port on that one.
    Host(Box<str>),
    /// One URL.
    Url {
        /// Host, and port where it is not the default.
        authority: Box<str>,
        /// Path and query.
        target: Box<str>,
    },
    /// All whose authority, path and query begin so; the authority is whole. One that begins with `/`: on every authority.
    Prefix(Box<str>),
    /// A tag.
    Tag(Box<str>),
}

/// Whose a response is: of the worker for whose route it was stored, or of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Realm(pub u64);

/// What a purge's target is known by: 64 bits of SHA-256. Where two things had the same, a purge of one would purge the other too, and nothing worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub u64);

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// All of a realm.
    Realm,
    /// A host, or an authority with a port.
    Host,
    /// A URL.
    Url,
    /// Authorities, paths and queries that begin alike: kept as they are.
    Prefix,
    /// A tag.
    Tag,
}

/// What was the latest purge when a fetch began, and for whom it fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// The latest purge's number.
    pub number: u64,
    /// For whom.
    pub realm: Realm,
}

/// Stronger than soft: no time is as late.
const UNPROVEN: u64 = u64::MAX;

/// What a stored response needs to be judged by purges.
#[derive(Debug, Default)]
pub struct Purgeable {
    /// When its fetch began.
    pub stamp: Stamp,
    /// Its tags.
    pub tags: Tags,
    /// The latest purge that it was judged by: the next one begins there.
    seen: AtomicU64,
    /// Since when it is soft; 0: it is not; [`UNPROVEN`]: it is not to be used before it is confirmed.
    soft_since: AtomicU64,
}

/// What purges say of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Valid,
    /// It is stale since then.
    Soft(Time),
    /// It must be confirmed first.
    Unproven,
    /// It is not there any more.
    Gone,
}

/// All purges that this node has applied. Shared by everything that holds responses.
#[derive(Debug, Default)]
pub struct Purges {
    latest: AtomicU64,
    table: RwLock<Table>,
}

impl Purges {
    /// Those that a node remembers from before.
    pub fn restore(&self, remembered: &Remembered) {
        let mut table = self.table.write();
        *table = Table::restore(remembered);
        self.latest.store(table.newest(), Release);
    }

    /// What is to be remembered.
    pub fn remember(&self) -> Remembered {
        self.table.read().remember()
    }

    /// The stamp of a fetch that begins now.
    pub fn stamp(&self, realm: Realm) -> Stamp {
        Stamp { number: self.latest.load(Acquire), realm }
    }

    /// The greatest number that was applied.
    pub fn latest(&self) -> u64 {
        self.latest.load(Acquire)
    }

    /// Applies a purge. When this returns, no look-up finds what it names. Applying one again changes nothing.
    pub fn apply(&self, purge: &Purge) {
        let mut table = self.table.write();
        table.apply(purge);
        self.latest.fetch_max(purge.number, AcqRel);
    }

    /// What purges say of a response that is stored under this key. One load where nothing was purged since the last time.
    pub fn verdict(&self, of: &Purgeable, key: &[u8]) -> Verdict {
        let latest = self.latest.load(Acquire);
        if of.seen.load(Acquire).max(of.stamp.number) >= latest {
            return of.standing();
        }
        let table = self.table.read();
        let seen = of.seen.load(Acquire).max(of.stamp.number);
        match judge(&table, of.stamp, seen, key, Some(&of.tags)) {
            // Not remembered: it is on its way out.
            Verdict::Gone => return Verdict::Gone,
            Verdict::Valid => {}
            Verdict::Soft(since) => {
                let _ = of.soft_since.compare_exchange(0, since.0.clamp(1, UNPROVEN - 1), AcqRel, Acquire);
            }
            Verdict::Unproven => of.soft_since.store(UNPROVEN, Release),
        }
        of.seen.fetch_max(table.newest(), AcqRel);
        of.standing()
    }

    /// Whether whoever asks now may have what a fetch with this stamp brings. `tags` are those of its response, where its head is here.
    pub fn admits(&self, stamp: Stamp, key: &[u8], tags: Option<&Tags>) -> bool {
        if stamp.number >= self.latest.load(Acquire) {
            return true;
        }
        judge(&self.table.read(), stamp, stamp.number, key, tags) == Verdict::Valid
    }
}

impl Clone for Purgeable {
    fn clone(&self) -> Self {
        let [seen, soft_since] = [&self.seen, &self.soft_since].map(|number| AtomicU64::new(number.load(Acquire)));
        Self { stamp: self.stamp, tags: self.tags.clone(), seen, soft_since }
    }
}

impl Purgeable {
    /// Of a response with these tags whose fetch began so.
    pub fn new(stamp: Stamp, tags: Tags) -> Self {
        Self { stamp, tags, ..Self::default() }
    }

    /// What the purges that it was judged by say; never [`Verdict::Gone`].
    pub fn standing(&self) -> Verdict {
        match self.soft_since.load(Acquire) {
            0 => Verdict::Valid,
            UNPROVEN => Verdict::Unproven,
            since => Verdict::Soft(Time(since)),
        }
    }
}

impl Realm {
    /// Of no worker.
    pub const NONE: Self = Self(0);

    /// Of a worker.
    pub fn of_worker(worker: &str) -> Self {
        Self(Name::new(Kind::Realm, Self::NONE, &[worker.as_bytes()]).0.max(1))
    }
}

impl Name {
    /// Of a thing of this kind; its parts in order.
    pub fn new(kind: Kind, realm: Realm, parts: &[&[u8]]) -> Self {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        digest.update(&[kind as u8]);
        digest.update(&realm.0.to_be_bytes());
        for part in parts {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let digest = digest.finish();
        let first = digest.as_ref().first_chunk::<8>().copied().unwrap_or_default();
        Self(u64::from_be_bytes(first))
    }

    /// The same thing among those of a realm.
    fn within(self, realm: Realm) -> Self {
        if realm == Realm::NONE { self } else { Self::new(Kind::Realm, realm, &[&self.0.to_be_bytes()]) }
    }
}

/// What the table says of a response with this stamp that was last judged by purge `seen`. Without tags it counts for having every one.
fn judge(table: &Table, stamp: Stamp, seen: u64, key: &[u8], tags: Option<&Tags>) -> Verdict {
    let mut worst = Worst { stamp: stamp.number, verdict: Verdict::Valid };
    worst.add(table.everything());
    let realms = [Some(Realm::NONE), (stamp.realm != Realm::NONE).then_some(stamp.realm)];
    let (authority, target) = key::address(key);
    for realm in realms.into_iter().flatten() {
        if realm != Realm::NONE && table.is_newer(Kind::Realm, seen) {
            worst.add_named(table, Name(realm.0));
        }
        if table.is_newer(Kind::Host, seen) {
            worst.add_named(table, host_name(realm, authority));
            let host = key::without_port(authority);
            if host.len() < authority.len() {
                worst.add_named(table, host_name(realm, host));
            }
        }
        if table.is_newer(Kind::Url, seen) {
            worst.add_named(table, Name::new(Kind::Url, realm, &[authority, target]));
        }
        if table.is_newer(Kind::Prefix, seen) {
            table.prefixes_of(realm, &[authority, target].concat(), |mark| worst.add(mark));
            table.prefixes_of(realm, target, |mark| worst.add(mark));
        }
        if table.is_newer(Kind::Tag, seen) {
            match tags {
                Some(tags) if !tags.is_overflowing() => {
                    tags.names().iter().for_each(|name| worst.add_named(table, name.within(realm)));
                }
                _ => worst.add_named(table, Tags::every(realm)),
            }
        }
    }
    worst.verdict
}

fn host_name(realm: Realm, host: &[u8]) -> Name {
    Name::new(Kind::Host, realm, &[host])
}

/// Gathers the strongest verdict for a response.
struct Worst {
    stamp: u64,
    verdict: Verdict,
}

impl Worst {
    fn add_named(&mut self, table: &Table, name: Name) {
        if let Some(mark) = table.named(name) {
            self.add(mark);
        }
    }

    fn add(&mut self, mark: &Mark) {
        let verdict = mark.verdict(self.stamp);
        let strength = |verdict: &Verdict| match verdict {
            Verdict::Valid => 0,
            Verdict::Soft(_) => 1,
            Verdict::Unproven => 2,
            Verdict::Gone => 3,
        };
        let earlier = matches!((verdict, self.verdict), (Verdict::Soft(one), Verdict::Soft(other)) if one < other);
        if strength(&verdict) > strength(&self.verdict) || earlier {
            self.verdict = verdict;
        }
    }
}

#[cfg(test)]
mod tests;
