//! Other Application Entities. [`Peer`] says where one can be reached (`AET=HOST:PORT`).
//! [`AddressRange`] says from which addresses one may call.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::ae_title::{AeTitle, AeTitleError};

/// An Application Entity and where it can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its AE title.
    pub ae_title: AeTitle,
    /// Its address.
    pub address: PeerAddress,
}

/// Host name or IP address, and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Host name or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Reason why a text does not name a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The text has no `=`.
    #[error("a peer is given as AET=HOST:PORT")]
    Form,
    /// The part before `=` is not an AE title.
    #[error(transparent)]
    AeTitle(#[from] AeTitleError),
    /// The part after `=` has no host.
    #[error("the host is missing: HOST:PORT")]
    Host,
    /// The part after the last `:` is not a port.
    #[error("the port is missing or not from 1 to 65535: HOST:PORT")]
    Port,
}

impl FromStr for Peer {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ae_title, address) = text.split_once('=').ok_or(PeerError::Form)?;
        Ok(Self { ae_title: ae_title.parse()?, address: address.parse()? })
    }
}

impl FromStr for PeerAddress {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.trim().rsplit_once(':').ok_or(PeerError::Port)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(PeerError::Port)?;
        // An IPv6 address needs brackets. Without them its last group would be taken for the port.
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().map_err(|_| PeerError::Host)?.to_string(),
            None if host.is_empty() || host.contains([':', '[', ']', '/', '@', ' ']) => return Err(PeerError::Host),
            None => host.to_owned(),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Addresses that begin with the same bits: one address, or a network in CIDR notation (RFC 4632,
/// RFC 4291 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    network: IpAddr,
    prefix_length: u8,
}

/// Number of bits before the IPv4 address in an IPv4-mapped IPv6 address.
const MAPPED_PREFIX: u8 = 96;

/// Reason why a text is not a range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressRangeError {
    /// The part before `/` is not an IP address.
    #[error("not an IP address or a network as in 10.1.0.0/16")]
    Address,
    /// The part after `/` is not a prefix length.
    #[error("a network ends with /0 to /32, or to /128 for IPv6")]
    PrefixLength,
    /// Bits after the prefix are set, so the address or the prefix length is wrong.
    #[error("the address has bits set after the prefix of the network")]
    HostBits,
}

impl AddressRange {
    /// Whether the range contains an address. An IPv4 address from an IPv6 socket
    /// (`::ffff:10.0.0.1`) counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (network, width) = bits(self.network);
        let (address, width_of_address) = bits(address.to_canonical());
        width == width_of_address && network ^ address <= host_mask(width, self.prefix_length)
    }
}

/// Returns the bits of an address and their number.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

/// Returns a mask of the bits after the prefix.
fn host_mask(width: u8, prefix_length: u8) -> u128 {
    match width.saturating_sub(prefix_length) {
        0 => 0,
        host => u128::MAX >> (128 - host),
    }
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix_length) = match text.trim().split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text.trim(), None),
        };
        let network: IpAddr = address.parse().map_err(|_| AddressRangeError::Address)?;
        let (network_bits, width) = bits(network);
        let prefix_length = match prefix_length {
            None => width,
            Some(length) => length.parse().ok().filter(|it| *it <= width).ok_or(AddressRangeError::PrefixLength)?,
        };
        if network_bits & host_mask(width, prefix_length) != 0 {
            return Err(AddressRangeError::HostBits);
        }
        // An IPv4-mapped IPv6 address (RFC 4291 2.5.5.2) becomes the IPv4 address. The address of a
        // connection is treated the same way.
        match network.to_canonical() {
            canonical @ IpAddr::V4(_) if network.is_ipv6() && prefix_length >= MAPPED_PREFIX => {
                Ok(Self { network: canonical, prefix_length: prefix_length - MAPPED_PREFIX })
            }
            _ => Ok(Self { network, prefix_length }),
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_length)
    }
}

/// The peer to which an association is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CountedAs {
    /// A peer of the table.
    Title(AeTitle),
    /// An unchecked caller, counted by its address, since its AE title proves nothing.
    ///
    /// For IPv6, only the first 64 bits count. A caller with one address of such a network usually
    /// has all of them (RFC 4291 2.5.4).
    Address(IpAddr),
}

impl CountedAs {
    /// Returns the counter of an address.
    #[must_use]
    pub fn address(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) if !address.is_loopback() => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_one_network_of_ipv6_are_one_peer() {
        let counted = |text: &str| CountedAs::address(text.parse().unwrap());
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), counted("2001:db8:1:2::9"));
        assert_ne!(counted("2001:db8:1:2::9"), counted("2001:db8:1:3::9"));
        assert_ne!(counted("10.0.0.1"), counted("10.0.0.2"));
        assert_eq!(counted("::1"), CountedAs::Address("::1".parse().unwrap()));
    }

    #[test]
    fn names_and_both_kinds_of_addresses_are_read() {
        for (text, host, port) in [
            ("A=pacs.example:104", "pacs.example", 104),
            ("A=10.0.0.1:11112", "10.0.0.1", 11112),
            ("A=[::1]:4242", "::1", 4242),
        ] {
            let peer: Peer = text.parse().unwrap();
            assert_eq!((peer.address.host.as_str(), peer.address.port), (host, port), "{text}");
            assert_eq!(format!("{}={}", peer.ae_title, peer.address), text);
        }
    }

    #[test]
    fn what_cannot_be_reached_is_refused() {
        assert_eq!("pacs:104".parse::<Peer>(), Err(PeerError::Form));
        assert_eq!("A=pacs".parse::<Peer>(), Err(PeerError::Port));
        assert_eq!("A=pacs:0".parse::<Peer>(), Err(PeerError::Port));
        assert_eq!("A=pacs:70000".parse::<Peer>(), Err(PeerError::Port));
        assert_eq!("A=:104".parse::<Peer>(), Err(PeerError::Host));
        assert_eq!("A=::1:104".parse::<Peer>(), Err(PeerError::Host));
        assert_eq!("=pacs:104".parse::<Peer>(), Err(PeerError::AeTitle(AeTitleError::Empty)));
    }

    #[test]
    fn a_range_holds_what_begins_like_it() {
        for (range, inside, outside) in [
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("192.168.1.128/25", "192.168.1.128", "192.168.1.127"),
            ("10.1.2.3", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("::ffff:10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("::ffff:10.1.0.0/112", "::ffff:10.1.2.3", "10.2.0.0"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("::1", "::1", "127.0.0.1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
        ] {
            let range: AddressRange = range.parse().unwrap();
            assert!(range.contains(inside.parse().unwrap()), "{range} has {inside}");
            assert!(!range.contains(outside.parse().unwrap()), "{range} has not {outside}");
            assert_eq!(range.to_string().parse(), Ok(range));
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        assert_eq!("pacs".parse::<AddressRange>(), Err(AddressRangeError::Address));
        assert_eq!("10.0.0.0/33".parse::<AddressRange>(), Err(AddressRangeError::PrefixLength));
        assert_eq!("10.0.0.0/".parse::<AddressRange>(), Err(AddressRangeError::PrefixLength));
        assert_eq!("10.0.0.1/24".parse::<AddressRange>(), Err(AddressRangeError::HostBits));
    }
}
