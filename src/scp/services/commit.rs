//! Storage Commitment, push model (PS3.4 annex J): N-ACTION asks, N-EVENT-REPORT answers.
//!
//! An object is committed if the index names it, and if it is the requested instance and SOP Class.
//! It must also be readable to its last byte. It must have the checksum with which it was received.
//! Objects of our own storage are synced to the disk before. The report goes out on the same
//! association while that is open. Otherwise it goes out on a new one, to the configured peer of
//! that AE title. A request of such a peer is kept on disk before it is answered (`outbox`), so
//! that its report comes after a restart too.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::uids;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::event_reports::EventReport;
use super::incoming_identifier::ArrivingIdentifier;
use super::outbox::{KeptRequest, Outbox, Request};
use super::retrieve::retriever::Retrieve;
use super::service::{ArrivedCommand, Begin, Boxed, DimseService, End, Operation, QueuedCommand, Session};
use crate::access::peers::SharedPeers;
use crate::archive::Archives;
use crate::db::KnownLocation;
use crate::db::Search;
use crate::db::open::Reader;
use crate::deliver::object::{Identity, ObjectError, StoredObject};
use crate::dimse::command_set::CommandField;
use crate::dimse::message::{ActionRequest, DimseRequest, EventReportRequest};
use crate::dimse::{Response, Status};
use crate::encoding::data_set::DataSetWriter;
use crate::encoding::syntax::Encoding;
use crate::model::ae_title::AeTitle;
use crate::model::location::Place;
use crate::model::matching::{KeyElement, KeyValue};
use crate::model::peer::CountedAs;
use crate::model::uid::{for_log, is_acceptable_uid};
use crate::qr::Identifier;
use crate::scp::node_context::NodeContext;
use crate::scp::service_class::{ServiceClass, SopClasses, StatementRow, no_extended_negotiation};
use crate::shares::{CountedPeer, Share, Shares, Turns};
use crate::store;
use crate::telemetry::metrics;
use crate::ul::pdu_io::PduReader;
use crate::ul::requestor::{Proposal, ScuAssociation, ScuError, Waits};
use crate::ul::tls::PeerRoute;

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

/// Maximum elements of a request, items included. An instance has three.
const MAX_ELEMENTS: usize = 100_000;

/// Maximum transactions that are being verified, for all associations together. Each takes a reader
/// of the index and one of the 512 threads that the runtime has for blocking work. Others wait
/// without a thread. Too low: reports come later. Too high: all read from the same disks, and
/// receiving waits for them.
const MAX_VERIFYING: usize = 8;

/// Maximum instances of all transactions that are not reported yet, for all peers together.
/// Transactions of associations that have ended count too. An instance takes some 100 bytes (26 MB
/// in all), or 300 with the longest UIDs. A request for more is answered with a status.
const MAX_REFERENCES: usize = 1 << 18;

/// What a transaction counts in addition to its instances. So there are at most 1,024 transactions.
const COUNTS_AS_REFERENCES: usize = 256;

/// Maximum reports of all peers that wait for delivery on associations of their own. One more is
/// given up.
const MAX_WAITING_REPORTS: usize = 256;

/// Pauses between attempts to deliver a report. The last one repeats until the report is too old
/// ([`super::outbox::MAX_AGE`]).
const TRY_AGAIN_AFTER: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(60), Duration::from_secs(600), Duration::from_secs(3600)];

/// Maximum requests that are being written to disk.
const KEEPING: usize = 4;

/// Whether files of an archive that is indexed in place can be committed. Only the owner of the
/// archive keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesInPlace {
    /// They count like objects of our own storage.
    Count,
    /// They are reported as missing.
    DoNotCount,
}

/// The limits of storage commitment, for all associations together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitmentLimits {
    /// Transactions that are being verified. Others wait for their turn.
    pub verifying: usize,
    /// Instances of all transactions that are not reported yet. Each transaction counts as 256
    /// more. An N-ACTION-RQ for more is answered with Resource limitation (0213H, PS3.7 annex C).
    pub references: usize,
}

impl Default for CommitmentLimits {
    fn default() -> Self {
        Self { verifying: MAX_VERIFYING, references: MAX_REFERENCES }
    }
}

/// The storage commitment service of a node.
#[derive(Debug)]
pub struct Commitment {
    retrieve: Arc<Retrieve>,
    in_place: FilesInPlace,
    /// One turn for each transaction that is being verified.
    turns: Arc<Turns>,
    /// One for each instance of a transaction that is not reported yet.
    room: Arc<Shares>,
    /// One for each report that goes out on an association of its own.
    waiting: Arc<Shares>,
    /// The requests on disk that are not reported yet.
    outbox: Arc<Outbox>,
    /// One turn for each request that is being written to disk.
    keeping: Arc<Turns>,
}

fn room(references: usize) -> Arc<Shares> {
    Shares::new(references, 0, &metrics::COMMITMENT_REFUSED)
}

impl Commitment {
    /// Creates the service for the objects of this retrieval service.
    #[must_use]
    pub fn new(retrieve: Arc<Retrieve>, in_place: FilesInPlace) -> Self {
        let waiting = Shares::new(MAX_WAITING_REPORTS, 1, &metrics::COMMITMENT_REFUSED);
        let CommitmentLimits { verifying, references } = CommitmentLimits::default();
        let outbox = Arc::new(Outbox::beside(retrieve.delivery().readers.index()));
        let (turns, keeping) = (Turns::new(verifying), Turns::new(KEEPING));
        Self { retrieve, in_place, turns, room: room(references), waiting, outbox, keeping }
    }

    /// Replaces the limits.
    #[must_use]
    pub fn with_limits(self, limits: CommitmentLimits) -> Self {
        let CommitmentLimits { verifying, references } = limits;
        Self { turns: Turns::new(verifying), room: room(references), ..self }
    }

    /// Takes room for a transaction of this peer with so many instances, until it is dropped.
    fn room_for(&self, peer: &CountedPeer, references: usize) -> Option<Share> {
        self.room.take(peer, references.saturating_add(COUNTS_AS_REFERENCES))
    }
}

static COMMIT: ServiceClass = ServiceClass {
    grant: "commit",
    sop_classes: SopClasses::Listed(&[uids::STORAGE_COMMITMENT_PUSH_MODEL]),
    returned_by: None,
    extended_negotiation: no_extended_negotiation,
    statement: &[StatementRow { sop_class: "Storage Commitment Push Model", as_scu: "no" }],
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

/// A request that was understood.
struct Transaction {
    context_id: u8,
    encoding: Encoding,
    uid: String,
    references: Vec<Reference>,
    peer: CountedPeer,
    room: Share,
    /// Its copy on disk.
    kept: Option<Arc<KeptRequest>>,
}

struct Reference {
    /// Consecutive references with the same SOP Class share this.
    sop_class_uid: Arc<str>,
    sop_instance_uid: Box<str>,
}

/// The result of a transaction.
struct CommitReport {
    /// The presentation context of the request.
    context_id: u8,
    encoding: Encoding,
    transaction_uid: String,
    references: Arc<[Reference]>,
    /// One for each reference: success, or its Failure Reason (PS3.3 C.14.1.1).
    statuses: Vec<Status>,
    /// The peer that asked.
    peer: CountedPeer,
    /// The copy of its request on disk.
    kept: Option<Arc<KeptRequest>>,
    /// Released when nobody needs the report any more.
    _room: Share,
}

impl fmt::Debug for CommitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("committed", &self.committed().count())
            .field("failed", &self.failed().count())
            .finish()
    }
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

    fn answered(self: Box<Self>, status: Status, calling_ae_title: &str) {
        told(&status, &calling_ae_title);
        self.report.forget();
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
    let uid = uid_of(&data_set.elements, TRANSACTION_UID).ok_or("no Transaction UID (0008,1195)")?.to_owned();
    let sequence = data_set.elements.iter().find(|element| element.tag == REFERENCED_SOP_SEQUENCE);
    let Some(KeyElement { value: KeyValue::Items(items), .. }) = sequence else {
        return Err("no Referenced SOP Sequence (0008,1199)");
    };
    let mut seen = HashSet::with_capacity(items.len());
    let mut references: Vec<Reference> = Vec::with_capacity(items.len());
    for item in items {
        let (Some(class), Some(instance)) =
            (uid_of(item, REFERENCED_SOP_CLASS_UID), uid_of(item, REFERENCED_SOP_INSTANCE_UID))
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
        Some(KeyValue::Text(text)) => Some(text.trim_matches([' ', '\0'])).filter(|uid| is_acceptable_uid(uid)),
        _ => None,
    }
}

impl Transaction {
    /// Keeps the request on disk until it is reported to this AE title.
    ///
    /// # Errors
    /// The response to a request that cannot be kept.
    async fn keep(mut self, commitment: &Commitment, ae_title: AeTitle, success: Response) -> (Response, Option<Self>) {
        let turn = commitment.keeping.take(&self.peer).await;
        let references = self.references.iter();
        let references = references.map(|it| (it.sop_class_uid.to_string(), it.sop_instance_uid.to_string())).collect();
        let request = Request { ae_title, transaction_uid: self.uid.clone(), references };
        let outbox = Arc::clone(&commitment.outbox);
        let kept = spawn_blocking(move || {
            let _until_its_end = turn;
            outbox.keep(&request)
        });
        match kept.await {
            Ok(Ok(kept)) => {
                self.kept = Some(Arc::new(kept));
                (success, Some(self))
            }
            failed => {
                if let Ok(Err(error)) = failed {
                    warn!(%error, "a storage commitment request is refused: it cannot be kept beside the index");
                }
                let refused = success.with_status(Status::RESOURCE_LIMITATION);
                (refused.with_comment("the request cannot be kept; ask again later"), None)
            }
        }
    }

    /// Verifies every object, when its turn comes.
    async fn verify(self, commitment: Arc<Commitment>) -> CommitReport {
        let Self { context_id, encoding, uid, references, peer, room, kept } = self;
        let references: Arc<[Reference]> = references.into();
        // It waits before it takes a thread, so that receiving and queries keep theirs.
        let turn = commitment.turns.take(&peer).await;
        let to_verify = Arc::clone(&references);
        let verified = spawn_blocking(move || {
            // The turn lasts until the thread is free, even if nobody waits for the result any
            // more.
            let _turn = turn;
            commitment.verify_all(&to_verify)
        });
        let statuses = verified.await.unwrap_or_else(|_| vec![Status::PROCESSING_FAILURE; references.len()]);
        let report =
            CommitReport { context_id, encoding, transaction_uid: uid, references, statuses, peer, kept, _room: room };
        metrics::COMMITMENT_INSTANCES_COMMITTED.add(report.committed().count() as u64);
        metrics::COMMITMENT_INSTANCES_FAILED.add(report.failed().count() as u64);
        report
    }
}

impl Commitment {
    fn verify_all(&self, references: &[Reference]) -> Vec<Status> {
        let mut reader = self.retrieve.delivery().readers.take().ok();
        let archives = Archives::default();
        let verify = |reference| self.verify(reader.as_mut(), reference, &archives).err().unwrap_or(Status::SUCCESS);
        let statuses = references.iter().map(verify).collect();
        if let Some(reader) = reader {
            self.retrieve.delivery().readers.give_back(reader);
        }
        statuses
    }

    /// Whether an object is kept and sound. If not, the error is its Failure Reason (PS3.3
    /// C.14.1.1).
    fn verify(&self, reader: Option<&mut Reader>, reference: &Reference, archives: &Archives) -> Result<(), Status> {
        let known = reader.ok_or(Status::PROCESSING_FAILURE)?.known_locations(&reference.sop_instance_uid);
        let known = known.map_err(|error| {
            warn!(%error, "the index cannot be asked for the locations of an instance");
            Status::PROCESSING_FAILURE
        })?;
        let mut reason = Status::NO_SUCH_SOP_INSTANCE;
        for known in known.iter().filter(|known| !known.differs) {
            let counts = match known.location.place {
                Place::MetadataOnly => false,
                Place::InPlace | Place::Archive => self.in_place == FilesInPlace::Count,
                Place::Managed => true,
            };
            if !counts {
                continue;
            }
            match self.sound(known, reference, archives) {
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

    fn sound(&self, known: &KnownLocation, reference: &Reference, archives: &Archives) -> Result<(), ObjectError> {
        let identity = Identity {
            sop_instance_uid: &reference.sop_instance_uid,
            sop_class_uid: &reference.sop_class_uid,
            transfer_syntax: None,
        };
        let object = StoredObject::open(&known.location, &identity, archives)?;
        object.expecting(known.checksum, self.retrieve.delivery().verified())?.read_to_end()?;
        if known.location.place == Place::Managed {
            store::make_durable(&known.location)?;
        }
        Ok(())
    }

    /// Continues with the requests that an earlier process did not report.
    async fn resume(self: &Arc<Self>, node: &NodeContext) {
        let outbox = Arc::clone(&self.outbox);
        let Ok(left_over) = spawn_blocking(move || outbox.left_over()).await else { return };
        if !left_over.is_empty() {
            info!(requests = left_over.len(), "storage commitment requests of an earlier process are reported now");
        }
        for (kept, Request { ae_title, transaction_uid, references }) in left_over {
            let peer: CountedPeer = Arc::new(CountedAs::Title(ae_title.clone()));
            let Some(room) = self.room_for(&peer, references.len()) else {
                warn!(peer = %ae_title, "a storage commitment report waits for the next start: too many wait already");
                continue;
            };
            let reference = |(class, instance): (String, String)| Reference {
                sop_class_uid: class.into(),
                sop_instance_uid: instance.into(),
            };
            let transaction = Transaction {
                context_id: 0,
                encoding: Encoding::ImplicitLittle,
                uid: transaction_uid,
                references: references.into_iter().map(reference).collect(),
                peer,
                room,
                kept: Some(kept),
            };
            let (this, to, shutdown) = (Arc::clone(self), Reporting::new(ae_title, node), node.shutdown.clone());
            tokio::spawn(async move {
                let report = transaction.verify(Arc::clone(&this)).await;
                this.deliver(report, to, shutdown);
            });
        }
    }

    /// Delivers a report on an association of its own, in the background.
    fn deliver(self: &Arc<Self>, report: CommitReport, to: Reporting, shutdown: CancellationToken) {
        let Some(waiting) = self.waiting.take(&report.peer, 1) else {
            let again_after_restart = report.kept.is_some();
            warn!(peer = %to.ae_title, again_after_restart, "a storage commitment report is given up: too many wait already");
            return;
        };
        tokio::spawn(async move {
            let _waiting = waiting;
            let _counted = metrics::COMMITMENT_REPORTS_WAITING.hold();
            let mut attempts = TRY_AGAIN_AFTER.into_iter();
            let mut last_wait = None;
            loop {
                // The destination is looked up each time, because peers can be replaced while the
                // node runs.
                let Some(destination) = to.peers.destination(&to.ae_title) else {
                    warn!(
                        peer = %to.ae_title,
                        "a storage commitment report cannot be delivered: the association has ended, and no address of the peer \
                         is configured"
                    );
                    return report.forget();
                };
                let error = match report.send(&to, &destination).await {
                    Ok(()) => return report.forget(),
                    Err(error) => error,
                };
                // A report without a copy on disk does not wait long.
                let is_over = report.kept.as_ref().map_or(attempts.len() <= 1, |kept| kept.is_old());
                last_wait = attempts.next().or(last_wait);
                let (Some(wait), false) = (last_wait, is_over) else {
                    warn!(peer = %to.ae_title, "a storage commitment report is given up: {error}");
                    return report.forget();
                };
                info!(peer = %to.ae_title, again_after_s = wait.as_secs(), "storage commitment report not delivered: {error}");
                tokio::select! {
                    () = shutdown.cancelled() => {
                        match report.kept {
                            Some(_) => info!(peer = %to.ae_title, "a storage commitment report waits for the next start"),
                            None => warn!(peer = %to.ae_title, "a storage commitment report is given up: the node is stopping"),
                        }
                        return;
                    }
                    () = sleep(wait) => {}
                }
            }
        });
    }
}

/// The receiver of a report, and how this node calls it.
#[derive(Clone, Debug)]
struct Reporting {
    own_ae_title: AeTitle,
    ae_title: AeTitle,
    peers: SharedPeers,
    waits: Waits,
}

impl Reporting {
    fn new(ae_title: AeTitle, node: &NodeContext) -> Self {
        Self {
            own_ae_title: node.options.ae_title.clone(),
            ae_title,
            peers: node.peers.clone(),
            waits: node.options.waits(),
        }
    }
}

impl CommitReport {
    fn committed(&self) -> impl Iterator<Item = &Reference> {
        let all = self.references.iter().zip(&self.statuses);
        all.filter(|(_, status)| **status == Status::SUCCESS).map(|(reference, _)| reference)
    }

    fn failed(&self) -> impl Iterator<Item = (&Reference, Status)> {
        let all = self.references.iter().zip(&self.statuses);
        all.filter(|(_, status)| **status != Status::SUCCESS).map(|(reference, status)| (reference, *status))
    }

    /// Returns the request to send, and its data set.
    fn message_in(&self, message_id: u16, encoding: Encoding) -> (EventReportRequest<'static>, Vec<u8>) {
        let failed: Vec<_> = self.failed().collect();
        let event_type_id = if failed.is_empty() { EVENT_SUCCESSFUL } else { EVENT_FAILURES_EXIST };
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
        if !failed.is_empty() {
            writer.sequence(FAILED_SOP_SEQUENCE, &failed, |writer, (failed, reason)| {
                reference(writer, failed);
                writer.unsigned_short(FAILURE_REASON, reason.0);
            });
        }
        // PS3.4 table J.3-2: type 1C, required if there are committed references.
        if failed.len() < self.references.len() {
            writer.sequence(REFERENCED_SOP_SEQUENCE, self.committed(), reference);
        }
        (request, writer.finish())
    }

    /// Ends the report: its room is free at once, and its copy on disk is removed. If the node
    /// stops before that, the report goes out once more after the next start.
    fn forget(self) {
        let Self { kept, .. } = self;
        if let Some(kept) = kept {
            drop(spawn_blocking(move || kept.remove()));
        }
    }

    async fn send(&self, to: &Reporting, destination: &PeerRoute) -> Result<(), ScuError> {
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

/// Counts the response to a report. The peer has the report, whatever its status says.
fn told(status: &Status, peer: &dyn fmt::Display) {
    metrics::COMMITMENT_REPORTS.increment();
    if *status != Status::SUCCESS {
        info!(peer = %peer, %status, "the peer answered a storage commitment report with a status other than success");
    }
}
