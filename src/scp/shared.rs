//! What all associations of a node have in common.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::access::peers::SharedPeers;
use crate::model::ae_title::AeTitle;
use crate::model::peer::CountedAs;
use crate::receive::storage::Storage;
use crate::scp::log_limit::LogLimit;
use crate::scp::negotiation::Policy;
use crate::scp::options::Options;
use crate::scp::services::commit::{Commitment, Reporting};
use crate::scp::services::find::Find;
use crate::scp::services::retrieve::Retrieve;
use crate::shares::{Share, Shares};

/// The services of a node besides Verification.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// C-STORE; refused without.
    pub storage: Option<Arc<Storage>>,
    /// C-FIND; refused without.
    pub find: Option<Arc<Find>>,
    /// C-GET and C-MOVE; refused without.
    pub retrieve: Option<Arc<Retrieve>>,
    /// Storage Commitment; refused without.
    pub commitment: Option<Arc<Commitment>>,
    /// Who may associate and for what, and where C-MOVE may send to; can be replaced while the node runs.
    pub peers: SharedPeers,
}

/// What all associations of a node have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) policy: Policy,
    pub(super) services: Services,
    /// One for each association.
    pub(super) associations: Arc<Shares>,
    /// One for each connection that has no association.
    pub(super) connections: Arc<Shares>,
    /// Bytes in memory for what arrives and for what is sent.
    pub(super) memory: Arc<Shares>,
    /// What the log has of peers that were turned away.
    pub(super) log_limit: LogLimit,
    pub(super) next_association_id: AtomicU64,
}

impl Shared {
    /// A number for the log, unique in this process.
    pub(super) fn next_association_id(&self) -> u64 {
        self.next_association_id.fetch_add(1, Ordering::Relaxed)
    }

    /// How an AE title gets reports of storage commitment.
    pub(super) fn reporting(&self, ae_title: AeTitle) -> Reporting {
        Reporting {
            own_ae_title: self.options.ae_title.clone(),
            ae_title,
            peers: self.services.peers.clone(),
            waits: self.options.waits(),
        }
    }

    /// A place for a connection without an association; `None` when its address has all that it may have.
    pub(super) fn connection_of(&self, address: IpAddr) -> Option<Share> {
        self.connections.take(&Arc::new(CountedAs::address(address)), 1)
    }
}
