//! Whose request it is: the peer's address, or what a trusted proxy says of it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The most hops of a request that are looked at; there are never that many honest ones.
const MOST_HOPS: usize = 32;

/// Networks as people write them: `10.0.0.0/8,192.0.2.7,2001:db8::/32`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Networks(Vec<Network>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Network {
    base: u128,
    mask: u128,
}

impl Networks {
    /// Whether an address is in one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = bits(address);
        self.0
            .iter()
            .any(|network| address & network.mask == network.base)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Network { base, mask }) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let address = IpAddr::from(Ipv6Addr::from(*base)).to_canonical();
            let width = if address.is_ipv4() { 32 } else { 128 };
            write!(f, "{comma}{address}/{}", width - mask.trailing_zeros())?;
        }
        Ok(())
    }
}

impl FromStr for Networks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim);
        let networks = parts.filter(|part| !part.is_empty()).map(network);
        networks.collect::<Result<_, _>>().map(Self)
    }
}

fn network(text: &str) -> Result<Network, String> {
    let wrong = |what: &str| {
        format!("{text:?} {what}; give addresses or networks such as 10.0.0.0/8 or 2001:db8::/32")
    };
    let (address, length) = text
        .split_once('/')
        .map_or((text, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.parse().map_err(|_| wrong("is not a network"))?;
    let width: u32 = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        Some(length) => length.parse().map_err(|_| wrong("has no length"))?,
        None => width,
    };
    if length > width {
        return Err(wrong("has a length that its kind of address has not"));
    }
    let mask = u128::MAX.checked_shl(width - length).unwrap_or(0);
    // An IPv4 network is one of IPv4 addresses, whatever its length.
    let mask = if address.is_ipv4() {
        mask | !u128::from(u32::MAX)
    } else {
        mask
    };
    let base = bits(address);
    if base & mask != base {
        return Err(wrong("has bits set behind its length"));
    }
    Ok(Network { base, mask })
}

/// An address as the number of its IPv6 form; an IPv4 address as the mapped one (RFC 4291, section 2.5.5.2).
fn bits(address: IpAddr) -> u128 {
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    u128::from(address)
}

/// The client of a request: the peer, unless that is a trusted proxy. Then it is the last address of the `X-Forwarded-For`
/// fields, or the `for` of the `Forwarded` fields (RFC 7239), that is none of the trusted ones: what stands before it was
/// written by those who are not trusted.
///
/// A proxy that writes one of the two fields may let the other one through as the client sent it; so where both are there
/// and disagree, neither is believed, and the proxy's own address counts.
#[must_use]
pub fn client_address<'a>(
    peer: IpAddr,
    trusted: &Networks,
    x_forwarded_for: impl DoubleEndedIterator<Item = &'a str>,
    forwarded: impl DoubleEndedIterator<Item = &'a str>,
) -> IpAddr {
    let peer = peer.to_canonical();
    if !trusted.contains(peer) {
        return peer;
    }
    let old = x_forwarded_for.rev().flat_map(|value| value.rsplit(','));
    let new = forwarded
        .rev()
        .flat_map(|value| value.rsplit(','))
        .map(for_parameter);
    let old = last_untrusted(peer, trusted, old);
    let new = last_untrusted(peer, trusted, new);
    match (old, new) {
        (Some(old), Some(new)) if old != new => peer,
        (Some(client), _) | (None, Some(client)) => client,
        (None, None) => peer,
    }
}

/// Walks the hops from the nearest, as long as each is trusted to have named the next. `None`: there are none.
fn last_untrusted<'a>(
    peer: IpAddr,
    trusted: &Networks,
    hops: impl Iterator<Item = &'a str>,
) -> Option<IpAddr> {
    let mut hops = hops.take(MOST_HOPS).peekable();
    hops.peek()?;
    let mut client = peer;
    for hop in hops {
        let Some(address) = node(hop) else {
            break;
        };
        client = address;
        if !trusted.contains(client) {
            break;
        }
    }
    Some(client)
}

/// The value of `for` in an element of `Forwarded`; empty when there is none.
fn for_parameter(element: &str) -> &str {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))
        .map_or("", |(_, value)| value)
}

/// The address of a hop: an IPv4 address, or an IPv6 address with or without brackets; with a port or without.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let without_port = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => text.rsplit_once(':')?.0,
    };
    let address: IpAddr = without_port.parse().ok()?;
    Some(address.to_canonical())
}

/// What counts as one client: an IPv4 address, or the /64 that one subscriber of IPv6 has at least.
#[must_use]
pub fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from(u128::from(address) & (u128::from(u64::MAX) << 64)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(text: &str) -> Networks {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_contain_their_addresses_and_no_others() {
        let some = networks("10.0.0.0/8, 192.0.2.7,2001:db8::/32");
        for inside in [
            "10.0.0.0",
            "10.255.1.2",
            "192.0.2.7",
            "2001:db8:1::1",
            "::ffff:10.1.2.3",
        ] {
            assert!(some.contains(address(inside)), "{inside}");
        }
        for outside in ["11.0.0.0", "192.0.2.8", "2001:db9::1", "::10.1.2.3", "::1"] {
            assert!(!some.contains(address(outside)), "{outside}");
        }
        assert!(!networks("0.0.0.0/0").contains(address("2001:db8::1")));
        assert!(networks("::/0").contains(address("192.0.2.1")));
        assert!(networks("").is_empty());
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "10.0.0.0/33",
            "10.0.0.1/8",
            "ten",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/-1",
        ] {
            let error = text.parse::<Networks>().unwrap_err();
            assert!(error.contains("such as 10.0.0.0/8"), "{text}: {error}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let trusted = networks("10.0.0.0/8,2001:db8::/32");
        let cases: &[(&str, &[&str], &[&str], &str)] = &[
            // What an untrusted peer writes is nothing.
            ("192.0.2.1", &["203.0.113.9"], &[], "192.0.2.1"),
            ("192.0.2.1", &[], &["for=203.0.113.9"], "192.0.2.1"),
            // A trusted one says who asks.
            ("10.0.0.1", &["203.0.113.9"], &[], "203.0.113.9"),
            ("10.0.0.1", &[], &["for=203.0.113.9"], "203.0.113.9"),
            ("::ffff:10.0.0.1", &["203.0.113.9"], &[], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9:4711"], &[], "203.0.113.9"),
            ("10.0.0.1", &["2001:db9::1"], &[], "2001:db9::1"),
            (
                "10.0.0.1",
                &[],
                &[r#"proto=https;For="[2001:db9::1]:4711""#],
                "2001:db9::1",
            ),
            // What the client put before it does not count; further trusted hops are passed over.
            (
                "10.0.0.1",
                &["127.0.0.1, 203.0.113.9", "10.0.0.2"],
                &[],
                "203.0.113.9",
            ),
            (
                "10.0.0.1",
                &[],
                &["for=127.0.0.1, for=203.0.113.9;by=x", "for=10.0.0.2"],
                "203.0.113.9",
            ),
            // All of them trusted: the farthest.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], &[], "10.0.0.3"),
            // What is no address ends the walk.
            ("10.0.0.1", &["203.0.113.9, unknown"], &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9, _x, 10.0.0.2"], &[], "10.0.0.2"),
            ("10.0.0.1", &[""], &[], "10.0.0.1"),
            ("10.0.0.1", &[], &["proto=https"], "10.0.0.1"),
            ("10.0.0.1", &[], &[], "10.0.0.1"),
            // One of the two may be the client's own words.
            (
                "10.0.0.1",
                &["203.0.113.9"],
                &["for=198.51.100.1"],
                "10.0.0.1",
            ),
            (
                "10.0.0.1",
                &["203.0.113.9"],
                &["for=203.0.113.9"],
                "203.0.113.9",
            ),
        ];
        for (peer, old, new, expected) in cases {
            let client = client_address(
                address(peer),
                &trusted,
                old.iter().copied(),
                new.iter().copied(),
            );
            assert_eq!(client, address(expected), "{peer} {old:?} {new:?}");
        }
    }

    #[test]
    fn a_subscriber_is_an_ipv4_address_or_64_bits_of_an_ipv6_one() {
        assert_eq!(
            subscriber(address("::ffff:192.0.2.1")),
            address("192.0.2.1")
        );
        assert_eq!(
            subscriber(address("2001:db8:1:2:3:4:5:6")),
            address("2001:db8:1:2::")
        );
    }
}
