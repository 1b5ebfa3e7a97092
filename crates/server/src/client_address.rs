//! Whose connection, or whose request, it is: addresses as they are counted, and proxies that may speak for others.
//!
//! `X-Forwarded-For` is a list to which each proxy appends the address that it was asked from. So it is read from its end:
//! what a trusted proxy has appended is true, and the first address from there that is no trusted proxy is the client's.
//! Everything before that may be forged. `Forwarded` (RFC 7239) is not read: a proxy that keeps one of the two headers
//! passes the other on as the client has sent it, and nobody can see from here which one it keeps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

/// The header that proxies write.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The proxies that may say whom a request comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

/// What is wrong with the name of a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no address, and no network such as 10.0.0.0/8 or fd00::/8")]
pub struct InvalidNetwork {
    text: String,
}

/// What counts as one client: an address of IPv4, or 64 bits of IPv6, of which a household or a host has all the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    V4(Ipv4Addr),
    V6(u64),
}

impl TrustedProxies {
    /// Networks in the form `10.0.0.0/8`, or single addresses.
    ///
    /// # Errors
    /// [`InvalidNetwork`], with the first text that is neither.
    pub fn parse<S: AsRef<str>>(networks: impl IntoIterator<Item = S>) -> Result<Self, InvalidNetwork> {
        networks.into_iter().map(|text| network(text.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whom a request comes from that a trusted proxy has passed on; `None` where the proxy does not say.
    #[must_use]
    pub fn client_behind(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let mut last = None;
        for line in headers.get_all(FORWARDED_FOR).iter().rev() {
            // Part by part: bytes that are no text may stand in what a client has sent, before what the proxy appends.
            for part in line.as_bytes().rsplit(|byte| *byte == b',') {
                // What cannot be read is from a trusted proxy, because so was everything behind it: it does not say.
                let text = str::from_utf8(part.trim_ascii()).ok();
                let Some(address) = text.and_then(address_of) else { return last };
                if !self.contains(address) {
                    return Some(address);
                }
                last = Some(address);
            }
        }
        last
    }
}

/// A network in the form `10.0.0.0/8`, or a single address.
pub(crate) fn network(text: &str) -> Result<IpNet, InvalidNetwork> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => text.parse().map_err(|_| InvalidNetwork { text: text.to_owned() }),
    }
}

/// An address as proxies write it: alone, with a port, or in brackets.
fn address_of(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse().ok().or_else(with_port).or_else(bracketed)?;
    Some(address.to_canonical())
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let prefix = address.to_bits() >> 64;
                Self::V6(u64::try_from(prefix).expect("the upper half of 128 bits is 64 bits"))
            }
        }
    }
}

impl Client {
    /// What stands for it.
    pub(crate) fn bytes(self) -> Vec<u8> {
        match self {
            Self::V4(address) => address.octets().to_vec(),
            Self::V6(prefix) => prefix.to_be_bytes().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn proxies() -> TrustedProxies {
        TrustedProxies::parse(["10.0.0.0/8", "192.0.2.7", "fd00::/8"]).unwrap()
    }

    fn client(lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HeaderName::from_static(FORWARDED_FOR), HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        proxies().client_behind(&headers).map(|address| address.to_string())
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
        let table: [(&[&str], Option<&str>); 17] = [
            (&["198.51.100.1"], Some("198.51.100.1")),
            (&["203.0.113.9, 198.51.100.1"], Some("198.51.100.1")),
            (&["203.0.113.9, 198.51.100.1, 10.1.2.3"], Some("198.51.100.1")),
            (&["203.0.113.9", "198.51.100.1", "192.0.2.7,10.1.2.3"], Some("198.51.100.1")),
            (&["forged, 198.51.100.1"], Some("198.51.100.1")),
            // Outside of ASCII: a client cannot have its proxy overheard by that.
            (&["\u{e9}, 198.51.100.1"], Some("198.51.100.1")),
            (&["\u{e9}", "198.51.100.1, 10.0.0.1"], Some("198.51.100.1")),
            (&["198.51.100.1, \u{e9}, 10.0.0.1"], Some("10.0.0.1")),
            (&["198.51.100.1:4711, 10.0.0.1:80"], Some("198.51.100.1")),
            (&["[2001:db8::1]:4711"], Some("2001:db8::1")),
            (&["2001:db8::1, [fd00::2]"], Some("2001:db8::1")),
            (&["::ffff:198.51.100.1"], Some("198.51.100.1")),
            (&["10.0.0.5, 10.0.0.1"], Some("10.0.0.5")),
            (&["198.51.100.1, unknown"], None),
            (&["unknown, 10.0.0.1"], Some("10.0.0.1")),
            (&[""], None),
            (&[], None),
        ];
        for (lines, expected) in table {
            assert_eq!(client(lines).as_deref(), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_network_is_an_address_or_a_prefix() {
        let trusts = |address: &str| proxies().contains(address.parse().unwrap());
        assert!(trusts("10.255.0.1") && trusts("::ffff:10.0.0.1") && trusts("192.0.2.7") && trusts("fd12::1"));
        assert!(!trusts("11.0.0.1") && !trusts("192.0.2.8") && !trusts("fe80::1"));
        for text in ["", "10.0.0.0/33", "proxy.example", "10.0.0.0/8/8", "10.0.0"] {
            assert!(TrustedProxies::parse([text]).is_err(), "{text}");
        }
    }

    #[test]
    fn an_ipv6_client_is_its_prefix_and_an_ipv4_client_its_address_however_it_is_spelled() {
        let client = |address: &str| Client::from(address.parse::<IpAddr>().unwrap());
        assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff::9"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_eq!(client("::ffff:198.51.100.1"), client("198.51.100.1"));
        assert_ne!(client("198.51.100.1"), client("198.51.100.2"));
    }
}
