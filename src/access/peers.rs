//! The other Application Entities that this node knows: who may associate and for what, and where
//! C-MOVE may send to.
//!
//! [`SharedPeers`] is read at each association and at each C-MOVE, and can be replaced while the
//! node runs. Open associations keep what they were granted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::model::ae_title::AeTitle;
use crate::model::peer::{AddressRange, CountedAs};
use crate::ul::certificates::CertificateId;
use crate::ul::destination::Destination;
use crate::ul::tls::{PeerRoute, SharedTls, Transport};

/// The services that a peer may use, by the names that settings give them (`echo`, `store`, …).
///
/// A service brings its own name. This module knows none of them. The default is every service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSet(Option<BTreeSet<&'static str>>);

impl ServiceSet {
    /// Every service.
    pub const ALL: Self = Self(None);

    /// Whether the set has the service of this name.
    #[must_use]
    pub fn contains(&self, service: &str) -> bool {
        self.0.as_ref().is_none_or(|services| services.contains(service))
    }
}

impl FromIterator<&'static str> for ServiceSet {
    fn from_iter<I: IntoIterator<Item = &'static str>>(services: I) -> Self {
        Self(Some(services.into_iter().collect()))
    }
}

/// The rights of a peer of the table. The default restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Addresses from which it may call. If the list is empty, any address is allowed.
    pub addresses: Vec<AddressRange>,
    /// Services that it may use.
    pub services: ServiceSet,
    /// Maximum of its associations at one time. `None` means the limit that everybody has.
    pub max_associations: Option<usize>,
    /// Security that it must use when it calls.
    pub security: Security,
    /// Its view of the worklist.
    pub worklist: WorklistGrant,
}

/// View that a peer has of the worklist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorklistGrant {
    /// Only items of the station with its AE title.
    pub own_station_only: bool,
    /// Answers always have this Specific Character Set, for devices that read no other.
    pub character_set: Option<String>,
}

/// The security that a peer must use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// With TLS or without.
    #[default]
    Any,
    /// With TLS only, and with any certificate that the authorities signed.
    Tls,
    /// With TLS only, and with one of these certificates.
    Certificates(Vec<CertificateId>),
}

impl Security {
    fn admits(&self, transport: &Transport) -> Result<(), PeerRefusal> {
        match (self, transport) {
            // A certificate that is pinned for one title proves nothing about another.
            (Self::Any | Self::Tls, Transport::Tls(Some(shown))) if shown.is_pinned_only() => {
                Err(PeerRefusal::WrongCertificate)
            }
            (Self::Any, _) | (Self::Tls, Transport::Tls(_)) => Ok(()),
            (Self::Tls | Self::Certificates(_), Transport::Plain) => Err(PeerRefusal::NoTls),
            (Self::Certificates(known), Transport::Tls(Some(shown))) if shown.is_one_of(known) => Ok(()),
            (Self::Certificates(_), Transport::Tls(_)) => Err(PeerRefusal::WrongCertificate),
        }
    }
}

/// The peers of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Peers that may associate. `None` if there is no such table. Then everybody may.
    pub table: Option<BTreeMap<AeTitle, Grant>>,
    /// Destinations of C-MOVE.
    pub destinations: BTreeMap<AeTitle, Destination>,
}

/// The reason why a peer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// No peer has this title.
    #[error("the calling AE title is not in the table of peers")]
    UnknownTitle,
    /// The peer with this title does not call from this address.
    #[error("the calling AE title may not come from this address")]
    WrongAddress,
    /// The peer called without TLS.
    #[error("the calling AE title may not come without TLS")]
    NoTls,
    /// The certificate is not bound to the title.
    #[error("the certificate is not one of the calling AE title")]
    WrongCertificate,
}

/// The rights of an association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Services that it may use.
    pub services: ServiceSet,
    /// Maximum associations of this peer at one time. `None` means the limit of the node.
    pub max_associations: Option<usize>,
    /// The peer as which it counts.
    pub counted_as: CountedAs,
}

impl Peers {
    /// Returns the SHA-256 of every certificate that the table names. These certificates are
    /// trusted themselves.
    #[must_use]
    pub fn pinned(&self) -> Vec<[u8; 32]> {
        let bound = self.table.iter().flatten().flat_map(|(_, grant)| match &grant.security {
            Security::Certificates(known) => known.as_slice(),
            Security::Any | Security::Tls => &[],
        });
        let pin = |id: &CertificateId| match id {
            CertificateId::Sha256(bytes) => Some(*bytes),
            CertificateId::CommonName(_) | CertificateId::DnsName(_) => None,
        };
        bound.filter_map(pin).collect()
    }

    /// Admits a peer, or refuses it.
    ///
    /// # Errors
    /// The reason for the refusal.
    pub fn admit(
        &self,
        calling_ae_title: &str,
        address: IpAddr,
        transport: &Transport,
    ) -> Result<Admission, PeerRefusal> {
        let Some(table) = &self.table else {
            return Ok(Admission {
                services: ServiceSet::ALL,
                max_associations: None,
                counted_as: CountedAs::address(address),
            });
        };
        let title: AeTitle = calling_ae_title.parse().map_err(|_| PeerRefusal::UnknownTitle)?;
        let grant = table.get(&title).ok_or(PeerRefusal::UnknownTitle)?;
        if !grant.addresses.is_empty() && !grant.addresses.iter().any(|range| range.contains(address)) {
            return Err(PeerRefusal::WrongAddress);
        }
        grant.security.admits(transport)?;
        let Grant { ref services, max_associations, .. } = *grant;
        Ok(Admission { services: services.clone(), max_associations, counted_as: CountedAs::Title(title) })
    }
}

/// The present peers, and the certificates that this node presents to them.
#[derive(Clone, Debug, Default)]
pub struct SharedPeers {
    peers: Arc<ArcSwap<Peers>>,
    tls: Option<SharedTls>,
}

impl SharedPeers {
    /// Starts with these. With certificates, the node accepts TLS and calls with it.
    #[must_use]
    pub fn new(peers: Peers, tls: Option<SharedTls>) -> Self {
        Self { peers: Arc::new(ArcSwap::from_pointee(peers)), tls }
    }

    /// Returns the certificates of this node, if it has some.
    #[must_use]
    pub fn tls(&self) -> Option<&SharedTls> {
        self.tls.as_ref()
    }

    /// Returns the present peers.
    #[must_use]
    pub fn current(&self) -> Arc<Peers> {
        self.peers.load_full()
    }

    /// Replaces the peers.
    pub fn replace(&self, peers: Peers) {
        self.peers.store(Arc::new(peers));
    }

    /// Returns the route to this destination of C-MOVE. `None` if it is unknown (PS3.4 C.4.2.1.5,
    /// status A801).
    #[must_use]
    pub fn destination(&self, ae_title: &AeTitle) -> Option<PeerRoute> {
        let destination = self.current().destinations.get(ae_title).cloned()?;
        Some(PeerRoute { destination, tls: self.tls.as_ref().map(SharedTls::current) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(addresses: &[&str]) -> Grant {
        Grant {
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            services: ["echo", "get"].into_iter().collect(),
            max_associations: Some(3),
            ..Grant::default()
        }
    }

    const PLAIN: &Transport = &Transport::Plain;

    #[test]
    fn without_a_table_everybody_is_let_in_and_counted_by_address() {
        let admission = Peers::default().admit("", "::ffff:10.0.0.1".parse().unwrap(), PLAIN).unwrap();
        assert_eq!(admission.counted_as, CountedAs::Address("10.0.0.1".parse().unwrap()));
        assert!(admission.services.contains("echo") && admission.services.contains("a service to come"));
    }

    #[test]
    fn with_a_table_title_and_address_have_to_be_right() {
        let table = [("CT", grant(&["10.0.0.0/8", "::1"])), ("ANY", grant(&[]))];
        let table = table.into_iter().map(|(title, grant)| (title.parse().unwrap(), grant)).collect();
        let peers = Peers { table: Some(table), ..Peers::default() };
        let admit = |title, address: &str| peers.admit(title, address.parse().unwrap(), PLAIN).map(|it| it.counted_as);
        assert_eq!(admit("CT", "10.9.9.9"), Ok(CountedAs::Title("CT".parse().unwrap())));
        assert!(admit("CT", "::1").is_ok() && admit("ANY", "192.0.2.1").is_ok());
        assert_eq!(admit("CT", "192.0.2.1"), Err(PeerRefusal::WrongAddress));
        assert_eq!(admit("ct", "10.9.9.9"), Err(PeerRefusal::UnknownTitle));
        assert_eq!(admit("", "10.9.9.9"), Err(PeerRefusal::UnknownTitle));
    }

    #[test]
    fn an_empty_table_lets_nobody_in() {
        let peers = Peers { table: Some(BTreeMap::new()), ..Peers::default() };
        assert_eq!(peers.admit("CT", "127.0.0.1".parse().unwrap(), PLAIN), Err(PeerRefusal::UnknownTitle));
    }

    #[test]
    fn a_set_has_the_services_that_it_names_and_no_other() {
        let services = grant(&[]).services;
        assert!(services.contains("echo") && services.contains("get") && !services.contains("store"));
        let none: ServiceSet = [].into_iter().collect();
        assert!(!none.contains("echo") && ServiceSet::ALL.contains("echo"));
    }
}
