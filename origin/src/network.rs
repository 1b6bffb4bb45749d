//! Who counts as one client of a listener, the registry's and a node's alike.

use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 address, or an IPv6 /64 (RFC 6177: a site has at least that much).
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}
