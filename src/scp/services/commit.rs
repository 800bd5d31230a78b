//! Storage Commitment, push model (PS3.4 annex J): N-ACTION asks, N-EVENT-REPORT answers.
//!
//! Committed is what the index names, what is there, what is the instance and SOP Class that were asked for, and what can be
//! read to its last byte; objects of our own storage are synchronised to the disk before. The report goes out on the same
//! association while that is open, else on a new one to the configured peer of that AE title.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::uids;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::arriving::ArrivingIdentifier;
use super::retrieve::Retrieve;
use crate::dimse::command_set::CommandField;
use crate::dimse::message::{ActionRequest, EventReportRequest};
use crate::dimse::{Response, Status};
use crate::ingest::{Identity, ObjectError, StoredObject};
use crate::model::ae_title::AeTitle;
use crate::model::location::{Location, Place};
use crate::model::matching::{KeyElement, KeyValue};
use crate::model::uid::{SopInstanceUid, for_log};
use crate::qr::{DataSetWriter, Encoding, Identifier, Reader};
use crate::scp::negotiation::PresentationContext;
use crate::scp::peers::{Route, SharedPeers};
use crate::scp::scu::{Proposal, ScuAssociation, ScuError, Waits};
use crate::scp::sop_class::Service;
use crate::store::{self, Archives};
use crate::telemetry::metrics;

/// Request Storage Commitment (PS3.4 table J.3-1).
const REQUEST_STORAGE_COMMITMENT: u16 = 1;
/// Storage Commitment Request Successful (PS3.4 table J.3-2).
const EVENT_SUCCESSFUL: u16 = 1;
/// Storage Commitment Request Complete - Failures Exist (PS3.4 table J.3-2).
const EVENT_FAILURES_EXIST: u16 = 2;

const TRANSACTION_UID: Tag = Tag(0x0008, 0x1195);
const FAILED_SOP_SEQUENCE: Tag = Tag(0x0008, 0x1198);
const REFERENCED_SOP_SEQUENCE: Tag = Tag(0x0008, 0x1199);
const REFERENCED_SOP_CLASS_UID: Tag = Tag(0x0008, 0x1150);
const REFERENCED_SOP_INSTANCE_UID: Tag = Tag(0x0008, 0x1155);
const FAILURE_REASON: Tag = Tag(0x0008, 0x1197);

/// Elements of a request, items counted: three for each instance.
const MAX_ELEMENTS: usize = 100_000;

/// Reports that wait for their peer at one time, on associations of their own; one more is given up.
const MAX_WAITING_REPORTS: usize = 256;

/// After a report could not be delivered, how long to wait before the next attempt.
const TRY_AGAIN_AFTER: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(60), Duration::from_secs(600)];

/// Whether files of an archive that is indexed in place can be committed: nobody but its owner keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesInPlace {
    /// As what we keep.
    Count,
    /// They are answered as missing.
    DoNotCount,
}

/// What storage commitment needs.
#[derive(Debug)]
pub struct Commitment {
    retrieve: Arc<Retrieve>,
    in_place: FilesInPlace,
    waiting: Arc<Semaphore>,
}

impl Commitment {
    /// Commits to what the index of this retrieval service names.
    #[must_use]
    pub fn new(retrieve: Arc<Retrieve>, in_place: FilesInPlace) -> Self {
        Self { retrieve, in_place, waiting: Arc::new(Semaphore::new(MAX_WAITING_REPORTS)) }
    }
}

/// A request that is arriving.
pub(in crate::scp) struct Receiving {
    pub(in crate::scp) context_id: u8,
    request: ActionRequest,
    data_set: ArrivingIdentifier,
}

/// A request that was understood.
pub(in crate::scp) struct Transaction {
    context_id: u8,
    encoding: Encoding,
    uid: String,
    references: Vec<Reference>,
}

#[derive(Clone, PartialEq, Eq)]
struct Reference {
    sop_class_uid: String,
    sop_instance_uid: String,
}

/// What became of a transaction.
#[derive(Clone)]
pub(in crate::scp) struct Report {
    /// Of the context of the request.
    pub(in crate::scp) context_id: u8,
    encoding: Encoding,
    transaction_uid: String,
    committed: Vec<Reference>,
    failed: Vec<(Reference, Status)>,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").field("committed", &self.committed.len()).field("failed", &self.failed.len()).finish()
    }
}

fn response(request: &ActionRequest, status: Status) -> Response {
    Response::new(CommandField::N_ACTION_RQ, request.message_id, status)
        .with_sop_class(Some(&request.requested_sop_class_uid))
        .with_sop_instance(&request.requested_sop_instance_uid)
}

impl Receiving {
    /// Begins with the command.
    ///
    /// # Errors
    /// The response to a request that is none of PS3.4 J.3.2 (statuses of PS3.7 10.1.4.1.10).
    pub(in crate::scp) fn begin(
        context_id: u8,
        request: &ActionRequest,
        context: &PresentationContext,
    ) -> Result<Self, Box<Response>> {
        let refused = |status| Err(Box::new(response(request, status)));
        if context.service != Service::Commitment || request.requested_sop_class_uid != context.abstract_syntax {
            return refused(Status::NO_SUCH_SOP_CLASS);
        }
        if request.requested_sop_instance_uid != uids::STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE {
            return refused(Status::NO_SUCH_SOP_INSTANCE);
        }
        if request.action_type_id != REQUEST_STORAGE_COMMITMENT {
            return refused(Status::NO_SUCH_ACTION_TYPE);
        }
        let Some(data_set) = ArrivingIdentifier::begin(&request.requested_sop_class_uid, context) else {
            return refused(Status::PROCESSING_FAILURE);
        };
        Ok(Self { context_id, request: request.clone(), data_set })
    }

    /// Takes the next fragment.
    pub(in crate::scp) fn accept(&mut self, fragment: &[u8]) {
        self.data_set.accept(fragment);
    }

    /// The request is complete: the response, and the transaction if there is one.
    pub(in crate::scp) fn finish(self) -> (Response, Option<Transaction>) {
        let Self { context_id, request, data_set } = self;
        let encoding = data_set.encoding;
        let Ok(bytes) = data_set.finish() else {
            let response = response(&request, Status::RESOURCE_LIMITATION);
            return (response.with_comment("too many instances in one transaction"), None);
        };
        let understood = Identifier::decode_up_to(&bytes, encoding, "", MAX_ELEMENTS)
            .map_err(|error| error.to_string())
            .and_then(|data_set| transaction(context_id, encoding, &data_set).map_err(str::to_owned));
        match understood {
            Ok(transaction) => (response(&request, Status::SUCCESS), Some(transaction)),
            Err(reason) => (response(&request, Status::INVALID_ARGUMENT_VALUE).with_comment(&reason), None),
        }
    }
}

fn transaction(context_id: u8, encoding: Encoding, data_set: &Identifier) -> Result<Transaction, &'static str> {
    let uid = data_set.text(TRANSACTION_UID).unwrap_or_default().to_owned();
    if SopInstanceUid::lenient(&uid).is_none() {
        return Err("no Transaction UID (0008,1195)");
    }
    let sequence = data_set.elements.iter().find(|element| element.tag == REFERENCED_SOP_SEQUENCE);
    let Some(KeyElement { value: KeyValue::Items(items), .. }) = sequence else {
        return Err("no Referenced SOP Sequence (0008,1199)");
    };
    let text = |item: &[KeyElement], tag| {
        let value = item.iter().find(|element| element.tag == tag).map(|element| &element.value);
        match value {
            Some(KeyValue::Text(text)) if SopInstanceUid::lenient(text).is_some() => Some(text.clone()),
            _ => None,
        }
    };
    let references: Option<Vec<_>> = items
        .iter()
        .map(|item| {
            Some(Reference {
                sop_class_uid: text(item, REFERENCED_SOP_CLASS_UID)?,
                sop_instance_uid: text(item, REFERENCED_SOP_INSTANCE_UID)?,
            })
        })
        .collect();
    match references {
        Some(references) if !references.is_empty() => Ok(Transaction { context_id, encoding, uid, references }),
        Some(_) => Err("Referenced SOP Sequence (0008,1199) is empty"),
        None => Err("an item without SOP Class and Instance UID"),
    }
}

impl Transaction {
    /// Looks at every object.
    pub(in crate::scp) async fn verify(self, commitment: Arc<Commitment>) -> Report {
        let Self { context_id, encoding, uid, references } = self;
        let all = references.clone();
        let verified = spawn_blocking(move || {
            let mut reader = commitment.retrieve.readers.take().ok();
            let mut report =
                Report { context_id, encoding, transaction_uid: uid, committed: Vec::new(), failed: Vec::new() };
            let archives = Archives::default();
            for reference in references {
                match commitment.verify(reader.as_mut(), &reference, &archives) {
                    Ok(()) => report.committed.push(reference),
                    Err(reason) => report.failed.push((reference, reason)),
                }
            }
            if let Some(reader) = reader {
                commitment.retrieve.readers.give_back(reader);
            }
            report
        });
        let report = verified.await.unwrap_or_else(|_| Report {
            context_id,
            encoding,
            transaction_uid: String::new(),
            committed: Vec::new(),
            failed: all.into_iter().map(|reference| (reference, Status::PROCESSING_FAILURE)).collect(),
        });
        metrics::COMMITMENT_INSTANCES_COMMITTED.add(report.committed.len() as u64);
        metrics::COMMITMENT_INSTANCES_FAILED.add(report.failed.len() as u64);
        report
    }
}

impl Commitment {
    /// Whether an object is kept and sound; else the Failure Reason (PS3.3 C.14.1.1).
    fn verify(&self, reader: Option<&mut Reader>, reference: &Reference, archives: &Archives) -> Result<(), Status> {
        let locations = reader.ok_or(Status::PROCESSING_FAILURE)?.locations(&reference.sop_instance_uid);
        let locations = locations.map_err(|error| {
            warn!(%error, "the index does not say where an instance lies");
            Status::PROCESSING_FAILURE
        })?;
        let mut reason = Status::NO_SUCH_SOP_INSTANCE;
        for location in &locations {
            let counts = match location.place {
                Place::MetadataOnly => false,
                Place::InPlace | Place::Archive => self.in_place == FilesInPlace::Count,
                Place::Managed => true,
            };
            if !counts {
                continue;
            }
            match sound(location, reference, archives) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    debug!(instance = for_log(&reference.sop_instance_uid), "an object cannot be committed: {error}");
                    reason = match error {
                        ObjectError::OtherClass => Status::CLASS_INSTANCE_CONFLICT,
                        error if error.is_gone() => reason,
                        _ => Status::PROCESSING_FAILURE,
                    };
                }
            }
        }
        Err(reason)
    }

    /// Delivers a report on an association of its own, in the background.
    pub(in crate::scp) fn deliver(self: &Arc<Self>, report: Report, to: Reporting, shutdown: CancellationToken) {
        let Ok(waiting) = Arc::clone(&self.waiting).try_acquire_owned() else {
            warn!(peer = %to.ae_title, "a storage commitment report is given up: too many wait already");
            return;
        };
        tokio::spawn(async move {
            let _waiting = waiting;
            let mut attempts = TRY_AGAIN_AFTER.into_iter();
            loop {
                // Looked up each time: the peers can be replaced while the node runs.
                let Some(destination) = to.peers.destination(&to.ae_title) else {
                    warn!(
                        peer = %to.ae_title,
                        "a storage commitment report cannot be delivered: the association has ended, and no address of the peer \
                         is configured"
                    );
                    return;
                };
                let error = match report.send(&to, &destination).await {
                    Ok(()) => return,
                    Err(error) => error,
                };
                let Some(wait) = attempts.next() else {
                    warn!(peer = %to.ae_title, "a storage commitment report is given up: {error}");
                    return;
                };
                info!(peer = %to.ae_title, again_after_s = wait.as_secs(), "storage commitment report not delivered: {error}");
                tokio::select! {
                    () = shutdown.cancelled() => {
                        warn!(peer = %to.ae_title, "a storage commitment report is given up: the node is stopping");
                        return;
                    }
                    () = sleep(wait) => {}
                }
            }
        });
    }
}

fn sound(location: &Location, reference: &Reference, archives: &Archives) -> Result<(), ObjectError> {
    let identity = Identity {
        sop_instance_uid: &reference.sop_instance_uid,
        sop_class_uid: &reference.sop_class_uid,
        transfer_syntax: None,
    };
    StoredObject::open(location, &identity, archives)?.read_to_end()?;
    if location.place == Place::Managed {
        store::make_durable(location)?;
    }
    Ok(())
}

/// Who gets a report.
#[derive(Clone, Debug)]
pub(in crate::scp) struct Reporting {
    pub(in crate::scp) own_ae_title: AeTitle,
    pub(in crate::scp) ae_title: AeTitle,
    pub(in crate::scp) peers: SharedPeers,
    pub(in crate::scp) waits: Waits,
}

impl Report {
    /// The request to send, and its data set.
    pub(in crate::scp) fn message(&self, message_id: u16) -> (EventReportRequest<'static>, Vec<u8>) {
        self.message_in(message_id, self.encoding)
    }

    fn message_in(&self, message_id: u16, encoding: Encoding) -> (EventReportRequest<'static>, Vec<u8>) {
        let event_type_id = if self.failed.is_empty() { EVENT_SUCCESSFUL } else { EVENT_FAILURES_EXIST };
        let request = EventReportRequest {
            message_id,
            affected_sop_class_uid: uids::STORAGE_COMMITMENT_PUSH_MODEL,
            affected_sop_instance_uid: uids::STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
            event_type_id,
        };
        let reference = |writer: &mut DataSetWriter, reference: &Reference| {
            writer.text(REFERENCED_SOP_CLASS_UID, VR::UI, &reference.sop_class_uid);
            writer.text(REFERENCED_SOP_INSTANCE_UID, VR::UI, &reference.sop_instance_uid);
        };
        let mut writer = DataSetWriter::new(encoding);
        writer.text(TRANSACTION_UID, VR::UI, &self.transaction_uid);
        if !self.failed.is_empty() {
            writer.sequence(FAILED_SOP_SEQUENCE, &self.failed, |writer, (failed, reason)| {
                reference(writer, failed);
                writer.unsigned_short(FAILURE_REASON, reason.0);
            });
        }
        // PS3.4 table J.3-2: type 1C, required where there are any.
        if !self.committed.is_empty() {
            writer.sequence(REFERENCED_SOP_SEQUENCE, &self.committed, reference);
        }
        (request, writer.finish())
    }

    async fn send(&self, to: &Reporting, destination: &Route) -> Result<(), ScuError> {
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
        told(&response.status, &to.ae_title);
        Ok(())
    }
}

/// What the peer says of a report: it has it, whatever it thinks of it.
pub(in crate::scp) fn told(status: &Status, peer: &dyn fmt::Display) {
    metrics::COMMITMENT_REPORTS.increment();
    if *status != Status::SUCCESS {
        info!(peer = %peer, %status, "storage commitment report answered with a status that is no success");
    }
}
