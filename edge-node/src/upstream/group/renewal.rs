//! Groups for a route table that is being made: those that there are, and new ones that take over what is known of servers which a declaration that goes has, too.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use selvedge_origin::registry::{BadUpstream, Upstream};

use super::known::{Identity, Known};
use super::{Group, Groups};

/// A table's groups, one after the other.
pub struct Renewal<'a> {
    groups: &'a Groups,
    /// Servers of groups that this table does not have; the youngest of each last.
    leaving: HashMap<Identity, Vec<Arc<Known>>>,
}

impl Groups {
    /// Begins a table whose upstreams are these, and no others.
    pub fn renew<'d>(&self, declared: impl Iterator<Item = &'d Upstream>) -> Renewal<'_> {
        let wanted: HashSet<&Upstream> = declared.collect();
        let mut alive = self.alive();
        alive.sort_by_key(|group| group.number);
        let (staying, going): (Vec<_>, Vec<_>) = alive.into_iter().partition(|group| wanted.contains(&*group.declared));
        // A group may be here still for the sake of a request, though its servers have gone over already.
        let mut taken: HashSet<*const Known> =
            staying.iter().flat_map(|group| group.servers.iter()).map(|server| Arc::as_ptr(&server.known)).collect();
        let mut leaving: HashMap<Identity, Vec<Arc<Known>>> = HashMap::new();
        for (group, server) in going.iter().flat_map(|group| group.servers.iter().map(move |server| (group, server))) {
            if taken.insert(Arc::as_ptr(&server.known)) {
                leaving.entry(Identity::new(&server.known.base, &group.declared)).or_default().push(server.known.clone());
            }
        }
        Renewal { groups: self, leaving }
    }
}

impl Renewal<'_> {
    /// The group for a declaration: the one that there is, or a new one.
    pub fn get(&mut self, declared: &Upstream) -> Result<Arc<Group>, BadUpstream> {
        let there_is = self.groups.by_declaration.lock().get(declared).and_then(Weak::upgrade);
        let group = match there_is {
            Some(group) => {
                group.take_back();
                return Ok(group);
            }
            None => Arc::new(Group::with(declared, self.groups.retries.clone(), |identity| self.leaving.get_mut(identity)?.pop())?),
        };
        let mut groups = self.groups.by_declaration.lock();
        groups.retain(|_, group| group.strong_count() > 0);
        groups.insert(group.declared.clone(), Arc::downgrade(&group));
        drop(groups);
        self.groups.changed.notify_one();
        Ok(group)
    }
}

impl Group {
    /// It is in use again: its servers may have gone over to another meanwhile.
    fn take_back(&self) {
        let lost = self.servers.iter().filter(|server| !server.known.is_in(self.number));
        lost.for_each(|server| server.known.joins(self.number, &self.declared));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use selvedge_origin::registry::{Ejection, HealthCheck, Server};

    fn renewed(groups: &Groups, declared: &[&Upstream]) -> Vec<Arc<Group>> {
        let mut renewal = groups.renew(declared.iter().copied());
        declared.iter().map(|declared| renewal.get(declared).expect("a group")).collect()
    }

    #[test]
    fn a_group_is_the_same_while_a_table_has_it_and_goes_with_the_last() {
        let groups = Groups::default();
        let (a, b) = (Upstream::at("http://a"), Upstream::at("http://b"));
        let first = renewed(&groups, &[&a]);
        let second = renewed(&groups, &[&a, &b]);
        assert!(Arc::ptr_eq(&first[0], &second[0]) && !Arc::ptr_eq(&second[0], &second[1]));
        let weak = Arc::downgrade(&second[1]);
        drop(second);
        assert_eq!((groups.read().0.len(), weak.upgrade().is_none()), (1, true), "b went at once");
        assert!(groups.renew([].into_iter()).get(&Upstream::at("ftp://a")).is_err());
    }

    #[test]
    fn what_is_known_of_a_server_survives_a_change_of_everything_but_the_server() {
        let groups = Groups::default();
        let servers = vec![Server::at("http://a"), Server::at("http://b")];
        let before = Upstream { servers, ejection: Ejection { failures: 1, ms: 60_000 }, ..Upstream::default() };
        let old = renewed(&groups, &[&before]).remove(0);
        old.servers[0].known.standing.failed(&before.ejection, 0);
        old.servers[0].known.requests.store(7, Relaxed);
        let after = Upstream {
            servers: vec![Server::at("http://c"), Server { weight: 5, ..Server::at("http://a") }],
            name: Some("shop".into()),
            requests_max: Some(3),
            ..before.clone()
        };
        let new = renewed(&groups, &[&after]).remove(0);
        let readings = groups.read().0;
        let reading = |address: &str| readings.iter().filter(|reading| reading.address == address).collect::<Vec<_>>();
        let a = reading("http://a/");
        assert_eq!((a.len(), a[0].up, a[0].requests, a[0].upstream.as_str()), (1, false, 7, "shop"), "{readings:?}");
        assert!(reading("http://c/")[0].up && reading("http://b/")[0].up, "c is new, b is the old one's yet");
        assert!(Arc::ptr_eq(&old.servers[0].known, &new.servers[1].known));

        // And back, while a request holds the old one.
        let back = renewed(&groups, &[&before]).remove(0);
        assert!(Arc::ptr_eq(&back, &old) && old.servers[0].known.is_in(old.number));
    }

    #[test]
    fn two_upstreams_that_both_stay_share_nothing() {
        let groups = Groups::default();
        let a = Upstream::at("http://a");
        let old = renewed(&groups, &[&a]).remove(0);
        let narrow = Upstream { requests_max: Some(1), ..a.clone() };
        let both = renewed(&groups, &[&a, &narrow]);
        assert!(Arc::ptr_eq(&both[0], &old));
        assert!(!Arc::ptr_eq(&both[0].servers[0].known, &both[1].servers[0].known));
        // Where one of several changes, each server is taken over once.
        let (wide, wider) = (Upstream { requests_max: Some(5), ..a.clone() }, Upstream { requests_max: Some(6), ..a.clone() });
        let two = renewed(&groups, &[&wide, &wider]);
        assert!(!Arc::ptr_eq(&two[0].servers[0].known, &two[1].servers[0].known));
        // Other TLS is another server.
        let https = Upstream::at("https://s");
        let first = renewed(&groups, &[&https]).remove(0);
        let renamed = renewed(&groups, &[&Upstream { server_name: Some("x.test".into()), ..https }]).remove(0);
        assert!(!Arc::ptr_eq(&first.servers[0].known, &renamed.servers[0].known));
    }

    #[test]
    fn a_server_that_nobody_checks_any_more_is_not_down_for_ever() {
        let groups = Groups::default();
        let checked = Upstream { health: Some(HealthCheck { down_after: 1, ..HealthCheck::default() }), ..Upstream::at("http://a") };
        let old = renewed(&groups, &[&checked]).remove(0);
        old.servers[0].known.standing.checked(false, checked.health.as_ref().expect("a rule"));
        let slower = HealthCheck { interval_ms: 60_000, ..HealthCheck::default() };
        let still = renewed(&groups, &[&Upstream { health: Some(slower), ..Upstream::at("http://a") }]).remove(0);
        assert!(!still.servers[0].known.standing.is_healthy());
        let unchecked = renewed(&groups, &[&Upstream::at("http://a")]).remove(0);
        assert!(Arc::ptr_eq(&old.servers[0].known, &unchecked.servers[0].known) && unchecked.servers[0].known.standing.is_healthy());
    }
}
