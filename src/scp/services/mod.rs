//! The DIMSE services. A new service is a file here and a line in [`list`]. docs/architecture.md
//! has all steps.

pub(in crate::scp) mod audited;
mod backlog;
pub(super) mod commit;
mod echo;
pub(super) mod event_reports;
pub(super) mod find;
mod find_answers;
mod incoming_identifier;
mod mpps;
pub(super) mod outbox;
pub(super) mod retrieve;
pub(super) mod service;
pub(super) mod store;
pub(super) mod worklist;

use std::sync::Arc;

use self::commit::{Commitment, CommitmentService};
use self::echo::Echo;
use self::find::{Find, FindService};
use self::mpps::MppsService;
use self::retrieve::retriever::Retrieve;
use self::retrieve::{GetService, MoveService};
use self::service::DimseService;
use self::store::StoreService;
use self::worklist::{Worklist, WorklistService};
use crate::access::peers::SharedPeers;
use crate::audit::Auditor;
use crate::receive::storage::Storage;
use crate::scp::service_class::ServiceClass;

/// The services of a node besides Verification, the peers that may use them, and the audit trail.
#[derive(Clone, Debug, Default)]
pub struct NodeServices {
    /// C-STORE. Without it, C-STORE is refused.
    pub storage: Option<Arc<Storage>>,
    /// C-FIND. Without it, C-FIND is refused.
    pub find: Option<Arc<Find>>,
    /// C-GET and C-MOVE. Without it, both are refused.
    pub retrieve: Option<Arc<Retrieve>>,
    /// The modality worklist and the performed steps of its items. Without it, both are refused.
    pub worklist: Option<Arc<Worklist>>,
    /// Storage Commitment. Without it, N-ACTION is refused.
    pub commitment: Option<Arc<Commitment>>,
    /// Peers that may associate, what each may do, and the destinations of C-MOVE. They can be
    /// replaced while the node runs.
    pub peers: SharedPeers,
    /// The audit trail.
    pub audit: Auditor,
}

/// Returns every service, provided or not. A new service has its line here.
pub(super) fn list(node: &NodeServices) -> Vec<Arc<dyn DimseService>> {
    vec![
        Arc::new(Echo),
        Arc::new(StoreService::new(node.storage.clone(), node.retrieve.is_some())),
        Arc::new(FindService(node.find.clone())),
        Arc::new(GetService(node.retrieve.clone())),
        Arc::new(MoveService(node.retrieve.clone())),
        Arc::new(CommitmentService(node.commitment.clone())),
        Arc::new(WorklistService(node.worklist.clone())),
        Arc::new(MppsService(node.worklist.clone())),
    ]
}

/// Returns what every service says of itself. Settings and the conformance statement come from it.
#[must_use]
pub fn service_classes() -> Vec<&'static ServiceClass> {
    list(&NodeServices::default()).iter().map(|service| service.class()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abstract_syntax_belongs_to_one_service() {
        let grants = |uid: &str| -> Vec<_> {
            service_classes().iter().filter(|class| class.has(uid)).map(|class| class.grant).collect()
        };
        for (uid, grant) in [
            ("1.2.840.10008.1.1", "echo"),
            ("1.2.840.10008.5.1.4.1.1.2", "store"),
            ("1.3.12.2.1107.5.9.1", "store"),
            ("1.2.840.10008.5.1.4.1.2.2.1", "find"),
            ("1.2.840.10008.5.1.4.1.2.3.3", "get"),
            ("1.2.840.10008.5.1.4.1.2.1.2", "move"),
            ("1.2.840.10008.1.20.1", "commit"),
            ("1.2.840.10008.5.1.4.31", "worklist"),
            ("1.2.840.10008.3.1.2.3.3", "mpps"),
        ] {
            assert_eq!(grants(uid), [grant], "{uid}");
        }
        for other in ["1.2.840.10008.5.1.4.32", "1.2.840.10008.3.1.2.3.4", "", "../../etc/passwd"] {
            assert!(grants(other).is_empty(), "{other}");
        }
    }

    #[test]
    fn each_service_is_granted_by_a_name_of_its_own() {
        let mut names: Vec<_> = service_classes().iter().map(|class| class.grant).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
