//! The report on a transaction, and how it goes out: an N-EVENT-REPORT-RQ (PS3.4 table J.3-2).

use std::fmt;
use std::sync::Arc;

use dicom_core::VR;
use dicom_dictionary_std::tags;
use dicom_dictionary_std::uids;
use tokio::task::spawn_blocking;

use crate::access::peers::SharedPeers;
use crate::dimse::command_set::CommandField;
use crate::dimse::message::EventReportRequest;
use crate::encoding::data_set::DataSetWriter;
use crate::encoding::syntax::Encoding;
use crate::model::ae_title::AeTitle;
use crate::model::status::Status;
use crate::scp::node_context::NodeContext;
use crate::scp::services::outbox::KeptRequest;
use crate::shares::{CountedPeer, Share};
use crate::telemetry::metrics;
use crate::ul::requestor::{Proposal, ScuAssociation, ScuError, Waits};
use crate::ul::tls::PeerRoute;

/// Storage Commitment Request Successful (PS3.4 table J.3-2).
const EVENT_SUCCESSFUL: u16 = 1;
/// Storage Commitment Request Complete - Failures Exist (PS3.4 table J.3-2).
const EVENT_FAILURES_EXIST: u16 = 2;

/// An instance that a transaction names.
pub(super) struct Reference {
    /// Consecutive references with the same SOP Class share this.
    pub(super) sop_class_uid: Arc<str>,
    pub(super) sop_instance_uid: Box<str>,
}

/// The result of a transaction.
pub(super) struct CommitReport {
    /// The presentation context of the request.
    pub(super) context_id: u8,
    pub(super) encoding: Encoding,
    pub(super) transaction_uid: String,
    pub(super) references: Arc<[Reference]>,
    /// One for each reference: success, or its Failure Reason (PS3.3 C.14.1.1).
    pub(super) statuses: Vec<Status>,
    /// The peer that asked.
    pub(super) peer: CountedPeer,
    /// The copy of its request on disk.
    pub(super) kept: Option<Arc<KeptRequest>>,
    /// Released when nobody needs the report any more.
    pub(super) _room: Share,
}

impl fmt::Debug for CommitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("committed", &self.committed().count())
            .field("failed", &self.failed().count())
            .finish()
    }
}

/// The receiver of a report, and how this node calls it.
#[derive(Clone, Debug)]
pub(super) struct Reporting {
    own_ae_title: AeTitle,
    pub(super) ae_title: AeTitle,
    pub(super) peers: SharedPeers,
    waits: Waits,
}

impl Reporting {
    pub(super) fn new(ae_title: AeTitle, node: &NodeContext) -> Self {
        Self {
            own_ae_title: node.options.ae_title.clone(),
            ae_title,
            peers: node.peers.clone(),
            waits: node.options.waits(),
        }
    }
}

impl CommitReport {
    pub(super) fn committed(&self) -> impl Iterator<Item = &Reference> {
        let all = self.references.iter().zip(&self.statuses);
        all.filter(|(_, status)| **status == Status::SUCCESS).map(|(reference, _)| reference)
    }

    pub(super) fn failed(&self) -> impl Iterator<Item = (&Reference, Status)> {
        let all = self.references.iter().zip(&self.statuses);
        all.filter(|(_, status)| **status != Status::SUCCESS).map(|(reference, status)| (reference, *status))
    }

    /// Returns the request to send, and its data set.
    pub(super) fn message_in(&self, message_id: u16, encoding: Encoding) -> (EventReportRequest<'static>, Vec<u8>) {
        let failed: Vec<_> = self.failed().collect();
        let event_type_id = if failed.is_empty() { EVENT_SUCCESSFUL } else { EVENT_FAILURES_EXIST };
        let request = EventReportRequest {
            message_id,
            affected_sop_class_uid: uids::STORAGE_COMMITMENT_PUSH_MODEL,
            affected_sop_instance_uid: uids::STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
            event_type_id,
        };
        let reference = |writer: &mut DataSetWriter, reference: &Reference| {
            writer.text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, &reference.sop_class_uid);
            writer.text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, &reference.sop_instance_uid);
        };
        let mut writer = DataSetWriter::new(encoding);
        writer.text(tags::TRANSACTION_UID, VR::UI, &self.transaction_uid);
        if !failed.is_empty() {
            writer.sequence(tags::FAILED_SOP_SEQUENCE, &failed, |writer, (failed, reason)| {
                reference(writer, failed);
                writer.unsigned_short(tags::FAILURE_REASON, reason.0);
            });
        }
        // PS3.4 table J.3-2: type 1C, required if there are committed references.
        if failed.len() < self.references.len() {
            writer.sequence(tags::REFERENCED_SOP_SEQUENCE, self.committed(), reference);
        }
        (request, writer.finish())
    }

    /// Ends the report: its room is free at once, and its copy on disk is removed. If the node
    /// stops before that, the report goes out once more after the next start.
    pub(super) fn forget(self) {
        let Self { kept, .. } = self;
        if let Some(kept) = kept {
            drop(spawn_blocking(move || kept.remove()));
        }
    }

    pub(super) async fn send(&self, to: &Reporting, destination: &PeerRoute) -> Result<(), ScuError> {
        let proposal = Proposal {
            abstract_syntax: uids::STORAGE_COMMITMENT_PUSH_MODEL.to_owned(),
            transfer_syntaxes: [Encoding::ExplicitLittle, Encoding::ImplicitLittle]
                .map(|it| it.uid().to_owned())
                .into(),
            as_scp: true,
        };
        let mut association =
            ScuAssociation::request(&to.own_ae_title, &to.ae_title, destination, &[proposal], to.waits).await?;
        let Some((context_id, encoding)) = association
            .accepted
            .first()
            .and_then(|(id, _, transfer_syntax)| Some((*id, Encoding::of_uid(transfer_syntax)?)))
        else {
            association.release().await;
            return Err(ScuError::NothingAccepted);
        };
        let (request, data_set) = self.message_in(1, encoding);
        association.send_message(context_id, &request.command_set(), Some(&data_set)).await?;
        let response = association.response(CommandField::N_EVENT_REPORT_RSP, 1).await?;
        association.release().await;
        told(response.status)
    }
}

/// Counts the response to a report.
///
/// # Errors
/// If the peer did not take the report, as while its own database is down. It goes out again.
pub(super) fn told(status: Status) -> Result<(), ScuError> {
    if status != Status::SUCCESS {
        return Err(ScuError::Status(status));
    }
    metrics::COMMITMENT_REPORTS.increment();
    Ok(())
}
