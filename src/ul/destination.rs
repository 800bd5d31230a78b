//! Where an association goes to.

use super::certificates::CertificateId;
use crate::model::peer::PeerAddress;

/// Where C-MOVE may send to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Host and port.
    pub address: PeerAddress,
    /// Whether to use TLS.
    pub tls: bool,
    /// The certificates that it may have; empty: that of its host.
    pub certificates: Vec<CertificateId>,
}

impl Destination {
    /// Without TLS.
    #[must_use]
    pub fn plain(address: PeerAddress) -> Self {
        Self { address, tls: false, certificates: Vec::new() }
    }
}
