//! Who may connect: bounds of connections in total, and of those of one address that nobody known has made a request on yet.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::limits::{CONNECTIONS_MAX, STRANGERS_PER_ADDRESS_MAX};
use crate::network::client_of;

/// Counts the connections of a registry. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Room(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    /// Connections without a request that was admitted; only addresses that have one are in it.
    strangers: HashMap<IpAddr, usize>,
}

/// The right to one connection, given back when dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Place {
    room: Room,
    /// Whose count it is in; `None`: somebody known has made a request on it.
    stranger: Option<IpAddr>,
}

impl Room {
    /// Lets a client in, where there is room.
    pub(super) fn enter(&self, client: IpAddr) -> Option<Place> {
        let address = client_of(client);
        let mut counts = self.0.lock();
        let of_address = counts.strangers.get(&address).copied().unwrap_or(0);
        if counts.total >= CONNECTIONS_MAX || of_address >= STRANGERS_PER_ADDRESS_MAX {
            return None;
        }
        counts.total += 1;
        counts.strangers.insert(address, of_address + 1);
        Some(Place { room: self.clone(), stranger: Some(address) })
    }
}

impl Place {
    /// Whether nobody known has made a request on this connection.
    pub(super) fn is_stranger(&self) -> bool {
        self.stranger.is_some()
    }

    /// A request was admitted.
    pub(super) fn admitted(&mut self) {
        let Some(address) = self.stranger.take() else { return };
        let mut counts = self.room.0.lock();
        if let Some(count) = counts.strangers.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.strangers.remove(&address);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admitted();
        let mut counts = self.room.0.lock();
        counts.total = counts.total.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(room: &Room, address: &str) -> Vec<Place> {
        let address = address.parse().expect("an address");
        std::iter::from_fn(|| room.enter(address)).collect()
    }

    #[test]
    fn one_address_cannot_lock_the_others_out() {
        let room = Room::default();
        let mut places = fill(&room, "192.0.2.1");
        assert_eq!(places.len(), STRANGERS_PER_ADDRESS_MAX);
        assert!(room.enter("::ffff:192.0.2.1".parse().expect("an address")).is_none());
        assert!(room.enter("192.0.2.2".parse().expect("an address")).is_some());
        let site = fill(&room, "2001:db8::1");
        assert!(room.enter("2001:db8::ffff:1".parse().expect("an address")).is_none(), "an IPv6 site is one client");
        places.iter_mut().for_each(Place::admitted);
        let known = fill(&room, "192.0.2.1");
        assert_eq!(known.len(), STRANGERS_PER_ADDRESS_MAX, "who is known is not counted");
        drop((places, site, known));
        let counts = room.0.lock();
        assert!(counts.total == 0 && counts.strangers.is_empty(), "nothing is kept of those that have gone");
    }

    #[test]
    fn the_total_is_bounded() {
        let room = Room::default();
        let places: Vec<Place> =
            (1..=CONNECTIONS_MAX / STRANGERS_PER_ADDRESS_MAX + 1).flat_map(|n| fill(&room, &format!("192.0.2.{n}"))).collect();
        assert_eq!(places.len(), CONNECTIONS_MAX);
    }
}
