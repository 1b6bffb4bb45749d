//! Who may connect: bounds of connections in total and for one address, and the permit that a connection holds.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;
use selvedge_origin::network::client_of;

use crate::limits::Limits;
use crate::metrics::ConnectionRefusal;

/// Counts the connections of all listeners. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connections_max: usize,
    connections_per_address_max: usize,
    exempt: Vec<IpNet>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    /// Only addresses with a connection are in it: at most `connections_max`.
    by_address: HashMap<IpAddr, usize>,
}

/// The right to one connection, given back when dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Permit {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Admission {
    pub(super) fn new(limits: &Limits, exempt: Vec<IpNet>) -> Self {
        Self(Arc::new(Shared {
            connections_max: limits.connections_max,
            connections_per_address_max: limits.connections_per_address_max,
            exempt,
            counts: Mutex::new(Counts::default()),
        }))
    }

    /// Lets a client in, or says why not.
    pub(super) fn admit(&self, client: IpAddr) -> Result<Permit, ConnectionRefusal> {
        let address = client_of(client);
        let exempt = self.0.exempt.iter().any(|network| network.contains(&client.to_canonical()));
        let mut counts = self.0.counts.lock();
        if counts.total >= self.0.connections_max {
            return Err(ConnectionRefusal::TooMany);
        }
        let of_address = counts.by_address.get(&address).copied().unwrap_or(0);
        if of_address >= self.0.connections_per_address_max && !exempt {
            return Err(ConnectionRefusal::TooManyOfAddress);
        }
        counts.total += 1;
        counts.by_address.insert(address, of_address + 1);
        Ok(Permit { shared: self.0.clone(), address })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.shared.counts.lock();
        counts.total = counts.total.saturating_sub(1);
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(total: usize, per_address: usize, exempt: &[&str]) -> Admission {
        let limits = Limits { connections_max: total, connections_per_address_max: per_address, ..Limits::default() };
        Admission::new(&limits, exempt.iter().map(|network| network.parse().unwrap()).collect())
    }

    #[test]
    fn one_address_gets_its_share_and_no_more() {
        let admission = admission(10, 2, &[]);
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let first = admission.admit(client).unwrap();
        let _second = admission.admit("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(admission.admit(client).unwrap_err(), ConnectionRefusal::TooManyOfAddress);
        let _other = admission.admit("192.0.2.2".parse().unwrap()).unwrap();
        drop(first);
        let _again = admission.admit(client).unwrap();
    }

    #[test]
    fn an_ipv6_site_is_one_client() {
        let admission = admission(10, 1, &[]);
        let _first = admission.admit("2001:db8::1".parse().unwrap()).unwrap();
        assert_eq!(admission.admit("2001:db8::ffff:2".parse().unwrap()).unwrap_err(), ConnectionRefusal::TooManyOfAddress);
        let _other = admission.admit("2001:db8:0:1::1".parse().unwrap()).unwrap();
    }

    #[test]
    fn proxies_are_bounded_by_the_total_only() {
        let admission = admission(2, 1, &["10.0.0.0/8"]);
        let proxy: IpAddr = "10.1.2.3".parse().unwrap();
        let _first = admission.admit(proxy).unwrap();
        let _second = admission.admit(proxy).unwrap();
        assert_eq!(admission.admit(proxy).unwrap_err(), ConnectionRefusal::TooMany);
    }

    #[test]
    fn nothing_is_kept_of_clients_that_have_gone() {
        let admission = admission(10, 2, &[]);
        drop(admission.admit("192.0.2.1".parse().unwrap()).unwrap());
        assert!(admission.0.counts.lock().by_address.is_empty());
    }
}
