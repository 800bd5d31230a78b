//! The other Application Entities that this node knows: who may associate and for what, and where C-MOVE may send to.
//!
//! [`SharedPeers`] is read at each association and at each C-MOVE, and can be replaced while the node runs. Associations that
//! are open keep what they were let in with.

use crate::ul::destination::Destination;
use crate::ul::tls::PeerRoute;
use crate::ul::tls::Transport;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::model::ae_title::AeTitle;
use crate::model::peer::{AddressRange, CountedAs};
use crate::model::sop_class::Service;
use crate::ul::certificates::CertificateId;
use crate::ul::tls::SharedTls;

/// A service, as access is given to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerService {
    /// C-ECHO.
    Echo,
    /// C-STORE.
    Store,
    /// C-FIND.
    Find,
    /// C-GET.
    Get,
    /// C-MOVE.
    Move,
    /// Storage Commitment.
    Commit,
}

impl PeerService {
    /// All, with the names that settings use.
    pub const ALL: [(&'static str, Self); 6] = [
        ("echo", Self::Echo),
        ("store", Self::Store),
        ("find", Self::Find),
        ("get", Self::Get),
        ("move", Self::Move),
        ("commit", Self::Commit),
    ];

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl From<Service> for PeerService {
    fn from(service: Service) -> Self {
        match service {
            Service::Verification => Self::Echo,
            Service::Storage => Self::Store,
            Service::Find(_) => Self::Find,
            Service::Get(_) => Self::Get,
            Service::Move(_) => Self::Move,
            Service::Commitment => Self::Commit,
        }
    }
}

/// Services that a peer may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceSet(u8);

impl ServiceSet {
    /// Every service.
    pub const ALL: Self = Self(u8::MAX);
    /// No service.
    pub const NONE: Self = Self(0);

    /// Whether it has this service.
    #[must_use]
    pub fn contains(self, service: PeerService) -> bool {
        self.0 & service.bit() != 0
    }

    /// Whether a presentation context for this service is worth accepting. Storage is, for who may C-GET: what is
    /// retrieved comes back in it (PS3.4 C.5.3). A C-STORE-RQ in it is refused then ([`Self::contains`]).
    #[must_use]
    pub fn may_negotiate(self, service: Service) -> bool {
        self.contains(service.into()) || (service == Service::Storage && self.contains(PeerService::Get))
    }
}

impl FromIterator<PeerService> for ServiceSet {
    fn from_iter<I: IntoIterator<Item = PeerService>>(services: I) -> Self {
        Self(services.into_iter().fold(0, |bits, service| bits | service.bit()))
    }
}

/// What a peer of the table may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// From where it may call; empty: from anywhere.
    pub addresses: Vec<AddressRange>,
    /// What it may ask for.
    pub services: ServiceSet,
    /// Its associations at one time; `None`: as for everybody.
    pub max_associations: Option<usize>,
    /// How it has to call.
    pub security: Security,
}

/// How a peer is to be spoken with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// With TLS or without.
    Any,
    /// With TLS only, whatever certificate of our authorities it has.
    Tls,
    /// With TLS only, and with one of these certificates.
    Certificates(Vec<CertificateId>),
}

impl Security {
    fn admits(&self, transport: &Transport) -> Result<(), PeerRefusal> {
        match (self, transport) {
            // What is pinned for one title says nothing of another.
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

/// All peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Who may associate; `None`: there is no such table, and everybody may.
    pub table: Option<BTreeMap<AeTitle, Grant>>,
    /// Where C-MOVE may send to.
    pub destinations: BTreeMap<AeTitle, Destination>,
}

/// Why a peer is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// No peer of this title.
    #[error("the calling AE title is not in the table of peers")]
    UnknownTitle,
    /// There is one, and it does not call from there.
    #[error("the calling AE title may not come from this address")]
    WrongAddress,
    /// It called without TLS.
    #[error("the calling AE title may not come without TLS")]
    NoTls,
    /// The certificate is not bound to the title.
    #[error("the certificate is not one of the calling AE title")]
    WrongCertificate,
}

/// What an association is let in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// What it may ask for.
    pub services: ServiceSet,
    /// Associations of this peer at one time; `None`: no limit but that of the node.
    pub max_associations: Option<usize>,
    /// Who it counts as.
    pub counted_as: CountedAs,
}

impl Peers {
    /// The SHA-256 of all certificates that are named by it: they are trusted themselves.
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

    /// Lets a peer in, or not.
    ///
    /// # Errors
    /// Why not.
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
        let Grant { services, max_associations, .. } = *grant;
        Ok(Admission { services, max_associations, counted_as: CountedAs::Title(title) })
    }
}

/// The peers that are known now, and the certificates that we show them.
#[derive(Clone, Debug, Default)]
pub struct SharedPeers {
    peers: Arc<ArcSwap<Peers>>,
    tls: Option<SharedTls>,
}

impl SharedPeers {
    /// These, until they are replaced; with certificates, to be called with TLS and to call with it.
    #[must_use]
    pub fn new(peers: Peers, tls: Option<SharedTls>) -> Self {
        Self { peers: Arc::new(ArcSwap::from_pointee(peers)), tls }
    }

    /// Our certificates, if we have some.
    #[must_use]
    pub fn tls(&self) -> Option<&SharedTls> {
        self.tls.as_ref()
    }

    /// The peers as they are now.
    #[must_use]
    pub fn current(&self) -> Arc<Peers> {
        self.peers.load_full()
    }

    /// Takes others from now on.
    pub fn replace(&self, peers: Peers) {
        self.peers.store(Arc::new(peers));
    }

    /// Where C-MOVE sends for this destination; `None`: it is unknown (PS3.4 C.4.2.1.5, status A801).
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
            services: [PeerService::Echo, PeerService::Get].into_iter().collect(),
            max_associations: Some(3),
            security: Security::Any,
        }
    }

    const PLAIN: &Transport = &Transport::Plain;

    #[test]
    fn without_a_table_everybody_is_let_in_and_counted_by_address() {
        let admission = Peers::default().admit("", "::ffff:10.0.0.1".parse().unwrap(), PLAIN).unwrap();
        assert_eq!(admission.counted_as, CountedAs::Address("10.0.0.1".parse().unwrap()));
        assert!(PeerService::ALL.iter().all(|(_, service)| admission.services.contains(*service)));
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
    fn who_may_get_may_negotiate_storage_and_not_store() {
        let services = grant(&[]).services;
        assert!(services.may_negotiate(Service::Storage) && !services.contains(PeerService::Store));
        assert!(!services.may_negotiate(Service::Find(crate::model::level::InformationModel::StudyRoot)));
        let store: ServiceSet = [PeerService::Store].into_iter().collect();
        assert!(store.may_negotiate(Service::Storage) && !store.may_negotiate(Service::Verification));
    }
}
