//! The destination of an association.

use super::certificates::CertificateId;
use crate::model::peer::PeerAddress;

/// A destination of C-MOVE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Host and port.
    pub address: PeerAddress,
    /// Whether to use TLS.
    pub tls: bool,
    /// The certificates that it may present. If the list is empty, it needs one for its host.
    pub certificates: Vec<CertificateId>,
}

impl Destination {
    /// Returns a destination without TLS.
    #[must_use]
    pub fn plain(address: PeerAddress) -> Self {
        Self { address, tls: false, certificates: Vec::new() }
    }
}
