//! Storage Commitment, push model (PS3.4 annex J): N-ACTION asks, N-EVENT-REPORT answers.
//!
//! An object is committed if the index names it, and if it is the requested instance and SOP Class.
//! It must also be readable to its last byte. It must have the checksum with which it was received.
//! Objects of our own storage are synced to the disk before. The report goes out on the same
//! association while that is open. Otherwise it goes out on a new one, to the configured peer of
//! that AE title. A request of such a peer is kept on disk before it is answered (`outbox`), so
//! that its report comes after a restart too.

mod commitment;
mod report;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_dictionary_std::uids;
use tracing::{debug, info};

use self::commitment::Transaction;
pub use self::commitment::{Commitment, CommitmentLimits, FilesInPlace};
use self::report::{CommitReport, Reference, Reporting, told};
use super::event_reports::EventReport;
use super::incoming_identifier::ArrivingIdentifier;
use super::service::{ArrivedCommand, Begin, Boxed, DimseService, End, Operation, QueuedCommand, Session};
use crate::dimse::Response;
use crate::dimse::command_set::CommandField;
use crate::dimse::message::{ActionRequest, DimseRequest, EventReportRequest};
use crate::encoding::padding::without_padding;
use crate::model::ae_title::AeTitle;
use crate::model::matching::{KeyElement, KeyValue};
use crate::model::status::Status;
use crate::model::uid::is_acceptable_uid;
use crate::qr::Identifier;
use crate::scp::node_context::NodeContext;
use crate::scp::service_class::{ListedSopClass, ServiceClass, SopClasses, no_extended_negotiation};
use crate::shares::CountedPeer;
use crate::ul::pdu_io::PduReader;

/// Request Storage Commitment (PS3.4 table J.3-1).
const REQUEST_STORAGE_COMMITMENT: u16 = 1;
/// Maximum elements of a request, items included. An instance has three.
const MAX_ELEMENTS: usize = 100_000;

static COMMIT: ServiceClass = ServiceClass {
    grant: "commit",
    sop_classes: SopClasses::Listed(&[ListedSopClass::scp(uids::STORAGE_COMMITMENT_PUSH_MODEL)]),
    returned_by: None,
    extended_negotiation: no_extended_negotiation,
};

/// Storage Commitment, push model.
#[derive(Debug)]
pub(super) struct CommitmentService(pub(super) Option<Arc<Commitment>>);

impl DimseService for CommitmentService {
    fn class(&self) -> &'static ServiceClass {
        &COMMIT
    }

    fn is_provided(&self) -> bool {
        self.0.is_some()
    }

    fn begin(&self, command: &ArrivedCommand<'_>, session: &Session) -> Option<Begin> {
        let DimseRequest::Action(request) = command.request else { return None };
        Some(match CommitReceiving::begin(self.0.clone(), request, command, session) {
            Ok(receiving) if command.has_data_set && self.is_provided() => Begin::Receive(Box::new(receiving)),
            // Without a data set there is no transaction in it.
            Ok(receiving) => Begin::Respond(receiving.transaction(session.memory.peer()).0),
            Err(response) => Begin::Respond(*response),
        })
    }

    fn resume<'a>(&'a self, node: &'a NodeContext) -> Boxed<'a, ()> {
        Box::pin(async {
            if let Some(commitment) = &self.0 {
                commitment.resume(node).await;
            }
        })
    }
}

/// A request that is arriving.
struct CommitReceiving {
    commitment: Option<Arc<Commitment>>,
    context_id: u8,
    request: ActionRequest,
    data_set: ArrivingIdentifier,
}

fn response(request: &ActionRequest, status: Status) -> Response {
    Response::new(CommandField::N_ACTION_RQ, request.message_id, status)
        .with_sop_class(Some(&request.requested_sop_class_uid))
        .with_sop_instance(&request.requested_sop_instance_uid)
}

impl CommitReceiving {
    /// Begins with the command.
    ///
    /// # Errors
    /// The response to a request that is none of PS3.4 J.3.2 (statuses of PS3.7 10.1.4.1.10).
    fn begin(
        commitment: Option<Arc<Commitment>>,
        request: &ActionRequest,
        command: &ArrivedCommand<'_>,
        session: &Session,
    ) -> Result<Self, Box<Response>> {
        let refused = |status| Err(Box::new(response(request, status)));
        let context = command.context;
        if *context.class != COMMIT || request.requested_sop_class_uid != context.abstract_syntax {
            return refused(Status::NO_SUCH_SOP_CLASS);
        }
        if request.requested_sop_instance_uid != uids::STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE {
            return refused(Status::NO_SUCH_SOP_INSTANCE);
        }
        if request.action_type_id != REQUEST_STORAGE_COMMITMENT {
            return refused(Status::NO_SUCH_ACTION_TYPE);
        }
        let data_set = ArrivingIdentifier::begin(&request.requested_sop_class_uid, context, &session.memory);
        let Some(data_set) = data_set else { return refused(Status::PROCESSING_FAILURE) };
        Ok(Self { commitment, context_id: command.context_id, request: request.clone(), data_set })
    }

    /// Returns the response to the complete request, and the transaction if there is one.
    fn transaction(self, peer: &CountedPeer) -> (Response, Option<Transaction>) {
        let Self { commitment, context_id, request, data_set } = self;
        let encoding = data_set.encoding;
        let refused = |status, reason: &str| (response(&request, status).with_comment(reason), None);
        let Ok(bytes) = data_set.finish() else {
            return refused(Status::RESOURCE_LIMITATION, "too many instances in one transaction");
        };
        let understood = Identifier::decode_up_to(bytes.as_slice(), encoding, "", MAX_ELEMENTS)
            .map_err(|error| error.to_string())
            .and_then(|data_set| understood(&data_set).map_err(str::to_owned));
        let (uid, references) = match understood {
            Ok(understood) => understood,
            Err(reason) => return refused(Status::INVALID_ARGUMENT_VALUE, &reason),
        };
        match commitment.and_then(|commitment| commitment.room_for(peer, references.len())) {
            Some(room) => {
                let transaction =
                    Transaction { context_id, encoding, uid, references, peer: Arc::clone(peer), room, kept: None };
                (response(&request, Status::SUCCESS), Some(transaction))
            }
            None => {
                debug!(instances = references.len(), "a storage commitment request is refused: too many wait already");
                refused(Status::RESOURCE_LIMITATION, "too many instances wait already; ask again later")
            }
        }
    }
}

impl Operation for CommitReceiving {
    fn accept<'a>(&'a mut self, fragment: &'a [u8]) -> Boxed<'a, ()> {
        self.data_set.accept(fragment);
        Box::pin(async {})
    }

    /// Answers the N-ACTION-RQ, and begins to verify its objects.
    fn finish<'a>(
        self: Box<Self>,
        session: &'a mut Session,
        _reader: &'a mut PduReader,
    ) -> Boxed<'a, Result<Option<QueuedCommand>, End>> {
        Box::pin(async move {
            let (context_id, commitment) = (self.context_id, self.commitment.clone());
            let (mut response, mut transaction) = self.transaction(session.memory.peer());
            // A peer that can be called back gets its report also after a restart.
            if let (Some(commitment), Some(ae_title)) = (&commitment, called_back_as(session))
                && let Some(to_keep) = transaction.take()
            {
                (response, transaction) = to_keep.keep(commitment, ae_title, response).await;
            }
            session.send(context_id, &response).await?;
            if let (Some(transaction), Some(commitment)) = (transaction, commitment) {
                let report = async move {
                    let report = transaction.verify(Arc::clone(&commitment)).await;
                    Box::new(ReportOnAssociation { report, commitment }) as Box<dyn EventReport>
                };
                session.reports.prepare(report).await;
            }
            Ok(None)
        })
    }
}

/// Returns the AE title of the peer, if this node has its address and can call it back.
fn called_back_as(session: &Session) -> Option<AeTitle> {
    let ae_title = session.agreement.calling_ae_title.parse().ok()?;
    session.node.peers.destination(&ae_title).map(|_| ae_title)
}

/// A report on the association of its request.
struct ReportOnAssociation {
    report: CommitReport,
    commitment: Arc<Commitment>,
}

impl EventReport for ReportOnAssociation {
    fn context_id(&self) -> u8 {
        self.report.context_id
    }

    fn message(&self, message_id: u16) -> (EventReportRequest<'static>, Vec<u8>) {
        self.report.message_in(message_id, self.report.encoding)
    }

    fn response_timeout(&self) -> Duration {
        self.commitment.retrieve.options().response_timeout
    }

    fn answered(self: Box<Self>, status: Status, calling_ae_title: &str, node: &NodeContext) {
        match told(status) {
            Ok(()) => self.report.forget(),
            Err(error) => {
                info!(peer = %calling_ae_title, "storage commitment report not delivered: {error}");
                self.deliver_elsewhere(calling_ae_title, node);
            }
        }
    }

    fn deliver_elsewhere(self: Box<Self>, calling_ae_title: &str, node: &NodeContext) {
        let Self { report, commitment } = *self;
        // A peer without a valid AE title cannot be called back.
        if let Ok(ae_title) = calling_ae_title.parse() {
            commitment.deliver(report, Reporting::new(ae_title, node), node.shutdown.clone());
        }
    }
}

/// Returns the Transaction UID and the references. A repeated reference counts once.
fn understood(data_set: &Identifier) -> Result<(String, Vec<Reference>), &'static str> {
    let uid = uid_of(&data_set.elements, tags::TRANSACTION_UID).ok_or("no Transaction UID (0008,1195)")?.to_owned();
    let sequence = data_set.elements.iter().find(|element| element.tag == tags::REFERENCED_SOP_SEQUENCE);
    let Some(KeyElement { value: KeyValue::Items(items), .. }) = sequence else {
        return Err("no Referenced SOP Sequence (0008,1199)");
    };
    let mut seen = HashSet::with_capacity(items.len());
    let mut references: Vec<Reference> = Vec::with_capacity(items.len());
    for item in items {
        let (Some(class), Some(instance)) =
            (uid_of(item, tags::REFERENCED_SOP_CLASS_UID), uid_of(item, tags::REFERENCED_SOP_INSTANCE_UID))
        else {
            return Err("an item without SOP Class and Instance UID");
        };
        if seen.insert((class, instance)) {
            let before = references.last().map(|before| &before.sop_class_uid).filter(|before| ***before == *class);
            let sop_class_uid = before.map_or_else(|| class.into(), Arc::clone);
            references.push(Reference { sop_class_uid, sop_instance_uid: instance.into() });
        }
    }
    if references.is_empty() {
        return Err("Referenced SOP Sequence (0008,1199) is empty");
    }
    Ok((uid, references))
}

fn uid_of(item: &[KeyElement], tag: Tag) -> Option<&str> {
    match item.iter().find(|element| element.tag == tag).map(|element| &element.value) {
        // Only the UID without padding has a maximum length.
        Some(KeyValue::Text(text)) => Some(without_padding(text)).filter(|uid| is_acceptable_uid(uid)),
        _ => None,
    }
}
