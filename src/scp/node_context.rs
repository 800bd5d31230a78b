//! What a service sees of the node that it belongs to.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::access::peers::SharedPeers;
use crate::audit::Auditor;
use crate::scp::options::Options;
use crate::telemetry::log_limit::LogLimit;

/// What a service sees of the node that it belongs to.
#[derive(Clone, Debug)]
pub(in crate::scp) struct NodeContext {
    pub(in crate::scp) options: Arc<Options>,
    /// The peers, which can be replaced while the node runs.
    pub(in crate::scp) peers: SharedPeers,
    /// The log lines about peers whose requests were refused.
    pub(in crate::scp) log_limit: Arc<LogLimit>,
    /// Takes who asked for what.
    pub(in crate::scp) audit: Auditor,
    /// Cancelled when the node is to stop.
    pub(in crate::scp) shutdown: CancellationToken,
}
