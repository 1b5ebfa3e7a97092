//! Where the gateway may connect to of its own accord, when it fetches keys: to addresses of the public Internet, and to no
//! others (RFC 6890 and the registries of special-purpose addresses of IANA).
//!
//! A name says nothing about where it leads, so the addresses that it has are judged, all of them, and one of those is
//! connected to: whoever resolves again could be told another one. In IPv6 everything is refused that is not global
//! unicast, and of that what holds or stands for an address of IPv4, which could be any.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ranges of IPv4 that are refused: the network, the length of its prefix.
const REFUSED_V4: [([u8; 4], u32); 18] = [
    ([0, 0, 0, 0], 8),       // this network
    ([10, 0, 0, 0], 8),      // private
    ([100, 64, 0, 0], 10),   // shared by carriers
    ([127, 0, 0, 0], 8),     // loopback
    ([169, 254, 0, 0], 16),  // link-local, where clouds tell secrets
    ([172, 16, 0, 0], 12),   // private
    ([192, 0, 0, 0], 24),    // protocol assignments
    ([192, 0, 2, 0], 24),    // documentation
    ([192, 31, 196, 0], 24), // AS112
    ([192, 52, 193, 0], 24), // AMT
    ([192, 88, 99, 0], 24),  // 6to4 relays
    ([192, 168, 0, 0], 16),  // private
    ([192, 175, 48, 0], 24), // AS112
    ([198, 18, 0, 0], 15),   // benchmarks
    ([198, 51, 100, 0], 24), // documentation
    ([203, 0, 113, 0], 24),  // documentation
    ([224, 0, 0, 0], 4),     // multicast
    ([240, 0, 0, 0], 4),     // reserved, and broadcast
];

/// All of IPv6 that is global unicast. Outside of it are loopback, link-local, unique local, multicast, discard, the mapped
/// and the compatible addresses of IPv4, and both prefixes of NAT64 (`64:ff9b::/96`, `64:ff9b:1::/48`).
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Ranges of that which are refused.
const REFUSED_V6: [(Ipv6Addr, u32); 6] = [
    // Protocol assignments, among them Teredo, benchmarks and ORCHID.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // Documentation.
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    // 6to4, which holds an address of IPv4.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    // AS112.
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48),
    // The 6bone, given back.
    (Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16),
];

/// Whether the gateway may connect there of its own accord.
#[must_use]
pub fn may_reach(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let is_in = |(network, length): &([u8; 4], u32)| {
                agree(u32::from(address).into(), u32::from(Ipv4Addr::from(*network)).into(), 32, *length)
            };
            !REFUSED_V4.iter().any(is_in)
        }
        IpAddr::V6(address) => {
            let is_in =
                |(network, length): &(Ipv6Addr, u32)| agree(u128::from(address), u128::from(*network), 128, *length);
            is_in(&GLOBAL_V6) && !REFUSED_V6.iter().any(is_in)
        }
    }
}

/// Whether the first `length` of `bits` bits are the same.
fn agree(one: u128, other: u128, bits: u32, length: u32) -> bool {
    (one ^ other) >> (bits - length) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reachable(address: &str) -> bool {
        may_reach(address.parse().unwrap())
    }

    #[test]
    fn public_addresses_may_be_reached() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "2001:200::1",
            "2003::1",
            "2a00::1",
            "2620:4f:7fff::1",
            "3ffd::1",
        ] {
            assert!(reachable(address), "{address}");
        }
    }

    #[test]
    fn whatever_leads_inside_is_refused() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.1.2.3",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.171",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "192.168.255.255",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            // Loopback, unspecified, link-local, site-local, unique local, multicast, discard.
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "fc00::1",
            "fd12:3456::1",
            "fd00:ec2::254",
            "ff02::1",
            "100::1",
            // IPv4 in IPv6: mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP at its link.
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::8.8.8.8",
            "64:ff9b:1::10.0.0.1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "2001::1",
            "2001:0:7f00:1::",
            "fe80::5efe:127.0.0.1",
            // Documentation, benchmarks, ORCHID, AS112, segment routing.
            "2001:db8::1",
            "3fff::1",
            "3fff:fff::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2620:4f:8000::1",
            "5f00::1",
            "3ffe::1",
            "4000::1",
            "1fff::1",
        ] {
            assert!(!reachable(address), "{address}");
        }
    }

    proptest! {
        #[test]
        fn the_library_knows_no_inner_address_that_may_be_reached(bits: u32, wide: u128) {
            let v4 = Ipv4Addr::from(bits);
            let inner = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
            prop_assert!(!(inner && may_reach(v4.into())), "{}", v4);
            let v6 = Ipv6Addr::from(wide);
            let inner = v6.is_loopback() || v6.is_multicast() || v6.is_unspecified() || v6.is_unique_local()
                || v6.is_unicast_link_local() || v6.to_ipv4().is_some();
            prop_assert!(!(inner && may_reach(v6.into())), "{}", v6);
        }

        #[test]
        fn no_address_of_ipv4_in_ipv6_may_be_reached(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            prop_assert!(!may_reach(v4.to_ipv6_mapped().into()) && !may_reach(v4.to_ipv6_compatible().into()));
            let [a, b] = [(bits >> 16) as u16, (bits & 0xffff) as u16];
            prop_assert!(!may_reach(Ipv6Addr::new(0x2002, a, b, 0, 0, 0, 0, 1).into()));
            prop_assert!(!may_reach(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b).into()));
        }
    }
}
