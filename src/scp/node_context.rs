//! The part of a node that its services see. It is a file of its own, since services and node
//! would import each other otherwise.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::access::peers::SharedPeers;
use crate::audit::Auditor;
use crate::scp::options::Options;
use crate::telemetry::log_limit::LogLimit;

/// View that a service has of its node.
#[derive(Clone, Debug)]
pub(in crate::scp) struct NodeContext {
    pub(in crate::scp) options: Arc<Options>,
    /// The peers, which can be replaced while the node runs.
    pub(in crate::scp) peers: SharedPeers,
    /// The log lines about peers whose requests were refused.
    pub(in crate::scp) log_limit: Arc<LogLimit>,
    /// The audit trail.
    pub(in crate::scp) audit: Auditor,
    /// Cancelled when the node is to stop.
    pub(in crate::scp) shutdown: CancellationToken,
}
