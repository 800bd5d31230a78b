//! State that all associations of a node have in common.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

use crate::audit::Auditor;
use crate::model::peer::CountedAs;
use crate::scp::negotiation::Policy;
use crate::scp::node_context::NodeContext;
use crate::scp::options::Options;
use crate::scp::services::service::DimseService;
use crate::shares::{Share, Shares};
use crate::telemetry::log_limit::LogLimit;

/// State that all associations of a node have in common.
#[derive(Debug)]
pub(super) struct NodeShared {
    pub(super) options: Arc<Options>,
    pub(super) policy: Policy,
    pub(super) services: Arc<[Arc<dyn DimseService>]>,
    /// One for each association.
    pub(super) associations: Arc<Shares>,
    /// One for each connection without an association.
    pub(super) connections: Arc<Shares>,
    /// Bytes in memory for what arrives and for what is sent.
    pub(super) memory: Arc<Shares>,
    /// The log lines about peers that were turned away.
    pub(super) log_limit: Arc<LogLimit>,
    pub(super) next_association_id: AtomicU64,
    /// The audit trail.
    pub(super) audit: Auditor,
}

impl NodeShared {
    /// Returns a number for the log that is unique in this process.
    pub(super) fn next_association_id(&self) -> u64 {
        self.next_association_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns what services see of the node.
    pub(super) fn context(&self, shutdown: CancellationToken) -> NodeContext {
        NodeContext {
            options: Arc::clone(&self.options),
            peers: self.policy.access.peers.clone(),
            log_limit: Arc::clone(&self.log_limit),
            audit: self.audit.clone(),
            shutdown,
        }
    }

    /// Takes a place for a connection without an association. `None` if the address has all that it
    /// may have.
    pub(super) fn connection_of(&self, address: IpAddr) -> Option<Share> {
        self.connections.take(&Arc::new(CountedAs::address(address)), 1)
    }
}
