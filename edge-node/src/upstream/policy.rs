//! Which addresses a worker's fetch may reach. Pure: an address in, a verdict out. Every address that a name resolves to is checked, and
//! connections go to checked addresses only, so that a name cannot change its mind in between.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

/// Why an address is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Refusal {
    /// This node listens there itself.
    OwnListener,
    /// `0.0.0.0/8` and `::`: "this host" (RFC 1122, section 3.2.1.3); Linux connects to loopback.
    ThisHost,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// RFC 1918, and unique local addresses (RFC 4193).
    Private,
    /// `169.254.0.0/16` (cloud metadata lives here), `fe80::/10`, `fec0::/10`.
    LinkLocal,
    /// `100.64.0.0/10` (RFC 6598).
    CarrierNat,
    /// RFC 5737, RFC 3849, RFC 9637.
    Documentation,
    /// `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// Everything else that the IANA special-purpose registries (RFC 6890) call not globally reachable, or have not assigned.
    Reserved,
    /// An IPv6 form that a translator may turn into an IPv4 address which is itself refused, or into one that only the network knows.
    Translated,
}

/// The rules of one node.
#[derive(Debug, Clone, Default)]
pub(super) struct Policy {
    allow: Vec<IpNet>,
    own: Vec<SocketAddr>,
}

impl Policy {
    /// Public addresses, and those in `allow`; never those of `own`, where the node itself listens.
    pub(super) fn new(allow: Vec<IpNet>, own: Vec<SocketAddr>) -> Self {
        Self { allow, own }
    }

    /// The node listens on some port of every address of the machine: then it takes `is_of_this_machine` to know one's own.
    pub(super) fn check(&self, target: SocketAddr, is_of_this_machine: impl Fn(IpAddr) -> bool) -> Result<(), Refusal> {
        let address = target.ip().to_canonical();
        for own in self.own.iter().filter(|own| own.port() == target.port()) {
            let listens = own.ip().to_canonical();
            if listens == address || (listens.is_unspecified() && is_of_this_machine(address)) {
                return Err(Refusal::OwnListener);
            }
        }
        // 0.0.0.0 and :: are aliases of loopback for connect(2), whatever list they are on.
        if address.is_unspecified() {
            return Err(Refusal::ThisHost);
        }
        if self.allow.iter().any(|net| net.contains(&address)) {
            return Ok(());
        }
        match address {
            IpAddr::V4(address) => check_v4(address),
            IpAddr::V6(address) => check_v6(address),
        }
    }
}

fn check_v4(address: Ipv4Addr) -> Result<(), Refusal> {
    let refusal = match address.octets() {
        [0, ..] => Refusal::ThisHost,
        [127, ..] => Refusal::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Refusal::Private,
        [169, 254, ..] => Refusal::LinkLocal,
        [100, 64..=127, ..] => Refusal::CarrierNat,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Refusal::Documentation,
        [224..=239, ..] => Refusal::Multicast,
        [255, 255, 255, 255] => Refusal::Broadcast,
        // IETF protocol assignments (RFC 6890), 6to4 relays (RFC 7526), benchmarks (RFC 2544), class E (RFC 1112).
        [192, 0, 0, _] | [192, 88, 99, _] | [198, 18..=19, ..] | [240..=255, ..] => Refusal::Reserved,
        _ => return Ok(()),
    };
    Err(refusal)
}

fn check_v6(address: Ipv6Addr) -> Result<(), Refusal> {
    let refusal = match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Refusal::Loopback,
        // NAT64 (RFC 6052): what counts is the IPv4 address in the last 32 bits.
        [0x64, 0xff9b, 0, 0, 0, 0, a, b] => return check_v4(embedded(a, b)).map_err(|_| Refusal::Translated),
        // NAT64 of the local network (RFC 8215): only the network knows what is behind it.
        [0x64, 0xff9b, 1, ..] => Refusal::Translated,
        // 6to4 (RFC 3056): the IPv4 address follows the prefix.
        [0x2002, a, b, ..] => return check_v4(embedded(a, b)).map_err(|_| Refusal::Translated),
        // Teredo (RFC 4380) and IPv4-compatible addresses (RFC 4291, section 2.5.5.1) embed IPv4 addresses too, and nobody needs them.
        [0x2001, 0, ..] | [0, 0, 0, 0, 0, 0, _, _] => Refusal::Translated,
        [0xfc00..=0xfdff, ..] => Refusal::Private,
        [0xfe80..=0xfeff, ..] => Refusal::LinkLocal,
        [0xff00..=0xffff, ..] => Refusal::Multicast,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Refusal::Documentation,
        // The rest of 2001::/23 is protocol assignments: benchmarks, ORCHID, AS112 (RFC 6890).
        [0x2001, 0..=0x01ff, ..] => Refusal::Reserved,
        [0x2000..=0x3fff, ..] => return Ok(()),
        _ => Refusal::Reserved,
    };
    Err(refusal)
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    fn verdict(policy: &Policy, address: &str) -> Result<(), Refusal> {
        policy.check(SocketAddr::new(address.parse().unwrap(), 443), |address| address.is_loopback())
    }

    #[test]
    fn only_public_addresses_are_within_reach() {
        let table = [
            ("0.0.0.0", Err(Refusal::ThisHost)),
            ("0.1.2.3", Err(Refusal::ThisHost)),
            ("127.0.0.1", Err(Refusal::Loopback)),
            ("127.255.255.254", Err(Refusal::Loopback)),
            ("10.0.0.7", Err(Refusal::Private)),
            ("172.15.255.255", Ok(())),
            ("172.16.0.1", Err(Refusal::Private)),
            ("172.31.255.255", Err(Refusal::Private)),
            ("172.32.0.0", Ok(())),
            ("192.168.1.1", Err(Refusal::Private)),
            ("169.254.169.254", Err(Refusal::LinkLocal)),
            ("100.63.255.255", Ok(())),
            ("100.64.0.1", Err(Refusal::CarrierNat)),
            ("100.127.255.255", Err(Refusal::CarrierNat)),
            ("100.128.0.0", Ok(())),
            ("192.0.0.1", Err(Refusal::Reserved)),
            ("192.0.2.1", Err(Refusal::Documentation)),
            ("198.51.100.1", Err(Refusal::Documentation)),
            ("203.0.113.9", Err(Refusal::Documentation)),
            ("192.88.99.1", Err(Refusal::Reserved)),
            ("198.18.0.1", Err(Refusal::Reserved)),
            ("224.0.0.1", Err(Refusal::Multicast)),
            ("239.255.255.255", Err(Refusal::Multicast)),
            ("240.0.0.1", Err(Refusal::Reserved)),
            ("255.255.255.255", Err(Refusal::Broadcast)),
            ("1.1.1.1", Ok(())),
            ("93.184.216.34", Ok(())),
            ("::", Err(Refusal::ThisHost)),
            ("::1", Err(Refusal::Loopback)),
            ("::ffff:127.0.0.1", Err(Refusal::Loopback)),
            ("::ffff:0.0.0.0", Err(Refusal::ThisHost)),
            ("::ffff:10.0.0.1", Err(Refusal::Private)),
            ("::ffff:1.1.1.1", Ok(())),
            ("::7f00:1", Err(Refusal::Translated)),
            ("64:ff9b::7f00:1", Err(Refusal::Translated)),
            ("64:ff9b::a9fe:a9fe", Err(Refusal::Translated)),
            ("64:ff9b::101:101", Ok(())),
            ("64:ff9b:1::101:101", Err(Refusal::Translated)),
            ("2002:7f00:1::", Err(Refusal::Translated)),
            ("2002:a00:1::", Err(Refusal::Translated)),
            ("2002:101:101::1", Ok(())),
            ("2001::1", Err(Refusal::Translated)),
            ("2001:2::1", Err(Refusal::Reserved)),
            ("2001:db8::1", Err(Refusal::Documentation)),
            ("3fff::1", Err(Refusal::Documentation)),
            ("fc00::1", Err(Refusal::Private)),
            ("fd12:3456::1", Err(Refusal::Private)),
            ("fe80::1", Err(Refusal::LinkLocal)),
            ("fec0::1", Err(Refusal::LinkLocal)),
            ("ff02::1", Err(Refusal::Multicast)),
            ("100::1", Err(Refusal::Reserved)),
            ("5f00::1", Err(Refusal::Reserved)),
            ("4000::1", Err(Refusal::Reserved)),
            ("2606:4700:4700::1111", Ok(())),
            ("2a00:1450:4001::1", Ok(())),
        ];
        let policy = Policy::default();
        for (address, expected) in table {
            assert_eq!(verdict(&policy, address), expected, "{address}");
        }
    }

    #[test]
    fn the_allow_list_opens_what_it_names_and_nothing_else() {
        let policy = Policy::new(vec!["127.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()], Vec::new());
        assert_eq!(verdict(&policy, "127.0.0.1"), Ok(()));
        assert_eq!(verdict(&policy, "::ffff:127.0.0.1"), Ok(()), "a mapped address is the IPv4 address");
        assert_eq!(verdict(&policy, "fd00::1"), Ok(()));
        assert_eq!(verdict(&policy, "::1"), Err(Refusal::Loopback));
        assert_eq!(verdict(&policy, "10.0.0.1"), Err(Refusal::Private));
        assert_eq!(verdict(&policy, "64:ff9b::7f00:1"), Err(Refusal::Translated), "a translated one is not");
        let everything = Policy::new(vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()], Vec::new());
        assert_eq!(verdict(&everything, "0.0.0.0"), Err(Refusal::ThisHost));
        assert_eq!(verdict(&everything, "::"), Err(Refusal::ThisHost));
    }

    #[test]
    fn own_listeners_are_refused_even_where_their_network_is_allowed() {
        let policy =
            Policy::new(vec!["127.0.0.0/8".parse().unwrap()], vec!["127.0.0.1:443".parse().unwrap(), "[::]:8443".parse().unwrap()]);
        let check = |target: &str| policy.check(target.parse().unwrap(), |address| address.is_loopback());
        assert_eq!(check("127.0.0.1:443"), Err(Refusal::OwnListener));
        assert_eq!(check("[::ffff:127.0.0.1]:443"), Err(Refusal::OwnListener));
        assert_eq!(check("127.0.0.1:80"), Ok(()));
        assert_eq!(check("127.0.0.9:8443"), Err(Refusal::OwnListener), "an unspecified listener is every address of the machine");
        assert_eq!(check("1.1.1.1:8443"), Ok(()));
    }
}
