//! Another Application Entity, by name: `AET=HOST:PORT`.

use std::fmt;
use std::str::FromStr;

use crate::model::ae_title::{AeTitle, AeTitleError};

/// Where an Application Entity can be reached.
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

/// Why a text names no peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// There is no `=`.
    #[error("a peer is given as AET=HOST:PORT")]
    Form,
    /// The part before `=` is no AE title.
    #[error(transparent)]
    AeTitle(#[from] AeTitleError),
    /// The part after `=` has no host.
    #[error("the host is missing: HOST:PORT")]
    Host,
    /// The part after the last `:` is no port.
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
        // An IPv6 address stands in brackets, else its last group would be taken for the port.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
