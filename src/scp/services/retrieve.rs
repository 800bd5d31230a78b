//! Query/Retrieve, C-GET and C-MOVE (PS3.4 C.4.2, C.4.3): an Identifier becomes a list of instances, and these become
//! C-STORE-RQs with the data sets as they lie, ready to be sent.
//!
//! Objects are opened one after the other, and read into buffers that hold whole PDUs, so that what was read is written to the
//! socket as it is. The reading runs ahead of the peer by few buffers ([`ReadAhead`]): the next object is at hand when the
//! response to the last one comes. Memory: a handful of buffers, whatever the size of the objects.
//! What was received is held against its checksum on the way; its last fragment is not sent when it is damaged.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use super::arriving::ArrivingIdentifier;
use super::read_ahead::{Outgoing, ReadAhead};
use super::readers::Readers;
use crate::db::Search;
use crate::dimse::command_set::CommandField;
use crate::dimse::message::{DataSetPresence, MoveOriginator, RetrieveRequest, StoreRequest, SubOperations};
use crate::dimse::pdata::{
    FRAGMENT_HEADER_LENGTH, MAX_SENT_PDU_LENGTH, data_fragment_header, fragment_limit, put_message,
};
use crate::dimse::status::StatusClass;
use crate::dimse::{Response, Status};
use crate::ingest::{DataSet, Identity, KnownLocation, NativeSyntax, ObjectError, StoredObject};
use crate::model::level::InformationModel;
use crate::model::location::Place;
use crate::model::uid::for_log;
use crate::qr::{
    self, Encoding, FindError, Hierarchy, Identifier, Instances, ObjectKind, Reader, RetrieveError, RetrievedInstance,
};
use crate::scp::negotiation::{Agreement, HeldSyntaxes, PresentationContext};
use crate::scp::sop_class::Service;
use crate::shares::{Peer, PeerMemory, Share, Shares, Turns};
use crate::store::{Archives, Verified, Wanted};
use crate::telemetry::metrics;

/// Bytes of PDUs that are read at a time: two of the longest, and a command. Larger saves system calls; a retrieval holds
/// five of them.
pub(super) const PIECE_LENGTH: usize = 2 * MAX_SENT_PDU_LENGTH as usize + 4096;

/// Threads that read objects for peers, at one time. More wait for their turn. Larger: more of the threads that the runtime has
/// for all that blocks may wait for a slow disk. Smaller: disks that answer many at once wait for us.
const READING_THREADS: usize = 64;

/// Instances of all retrievals that go on, in all, or twice those of one where that is more: a peer may have half. Each takes
/// some 70 bytes.
const MAX_LISTED: usize = 1 << 20;

/// Instances whose places are looked up before their turn, where the order in which they lie in an archive counts: they are
/// read in two passes of it at most, and some 500 bytes are kept of each.
const LOOK_AHEAD: usize = 4096;

/// Room before a piece for a pending response, which then goes out in the same write.
pub(in crate::scp) const HEADROOM: usize = 512;

/// How long the list of held transfer syntaxes holds good.
const HELD_HOLDS: Duration = Duration::from_secs(60);

/// How long a node waits for that list before it begins to listen. It is there at once but in huge archives, where the
/// first associations do without.
const HELD_PATIENCE: Duration = Duration::from_secs(2);

/// Failed SOP Instance UID List.
const FAILED_SOP_INSTANCE_UID_LIST: dicom_core::Tag = dicom_core::Tag(0x0008, 0x0058);

/// What can be set about retrievals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What becomes of retrievals that break PS3.4 C.4.2.2.1; see [`Hierarchy`].
    pub hierarchy: Hierarchy,
    /// The Specific Character Set of requests that name none.
    pub assumed_character_set: String,
    /// Instances of one retrieval; more are refused with A701. Each takes some 70 bytes while it lasts.
    pub max_instances: usize,
    /// Time for a peer to answer a C-STORE-RQ of ours once it has all of it.
    pub response_timeout: Duration,
    /// Time for the file system to give the next bytes of an object.
    pub source_timeout: Duration,
    /// How long an object that was held against its checksum counts as sound while its file is untouched.
    pub verification_holds: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hierarchy: Hierarchy::Lenient,
            assumed_character_set: String::new(),
            max_instances: 200_000,
            response_timeout: Duration::from_secs(60),
            source_timeout: Duration::from_secs(60),
            verification_holds: crate::store::DEFAULT_HOLDS,
        }
    }
}

/// What retrievals need.
#[derive(Debug)]
pub struct Retrieve {
    pub(super) readers: Readers,
    /// Threads that read objects.
    pub(super) threads: Arc<Turns>,
    /// One for each instance of a retrieval that goes on.
    listed: Arc<Shares>,
    options: Options,
    verified: Arc<Verified>,
    held: HeldSyntaxes,
    /// When the list of held transfer syntaxes was last asked for.
    held_since: Mutex<Option<Instant>>,
}

impl Retrieve {
    /// Sends what this index names.
    #[must_use]
    pub fn new(index: PathBuf, options: Options) -> Self {
        let (held, held_since) = (HeldSyntaxes::default(), Mutex::new(None));
        let listed = MAX_LISTED.max(options.max_instances.saturating_mul(2));
        let listed = Shares::new(listed, 0, &metrics::RETRIEVALS_REFUSED_A_SHARE);
        let verified = Arc::new(Verified::new(options.verification_holds));
        let (readers, threads) = (Readers::new(index), Turns::new(READING_THREADS));
        Self { readers, threads, listed, options, verified, held, held_since }
    }

    /// What is known of the objects that were held against their checksums.
    #[must_use]
    pub fn verified(&self) -> &Arc<Verified> {
        &self.verified
    }

    /// What can be set.
    pub(in crate::scp) fn options(&self) -> &Options {
        &self.options
    }

    /// The transfer syntaxes that are held; waits a little for the list, so that the first association has it.
    pub(in crate::scp) async fn held_before_first_association(self: &Arc<Self>) -> HeldSyntaxes {
        if let Some(asking) = self.refresh_held()
            && tokio::time::timeout(HELD_PATIENCE, asking).await.is_err()
        {
            debug!("the list of held transfer syntaxes is not there yet");
        }
        self.held.clone()
    }

    /// Asks for the list again, in the background, if it is old.
    pub(in crate::scp) fn refresh_held(self: &Arc<Self>) -> Option<tokio::task::JoinHandle<()>> {
        let mut since = self.held_since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_some_and(|since| since.elapsed() < HELD_HOLDS) {
            return None;
        }
        *since = Some(Instant::now());
        let this = Arc::clone(self);
        Some(spawn_blocking(move || {
            let Ok(mut reader) = this.readers.take() else { return };
            match reader.held_transfer_syntaxes() {
                Ok(rows) => {
                    let mut held: HashMap<String, Vec<String>> = HashMap::new();
                    for (class, transfer_syntax) in rows {
                        held.entry(class).or_default().push(transfer_syntax);
                    }
                    this.held.replace(held);
                    this.readers.give_back(reader);
                }
                Err(error) => warn!(%error, "the index does not say which transfer syntaxes it holds"),
            }
        }))
    }
}

/// An Identifier that is arriving.
pub(in crate::scp) struct Receiving {
    asked: Asked,
    model: InformationModel,
    relational: bool,
    identifier: ArrivingIdentifier,
}

/// A retrieval that was asked for.
#[derive(Clone, Debug)]
pub(in crate::scp) struct Asked {
    pub(in crate::scp) context_id: u8,
    pub(in crate::scp) request: RetrieveRequest,
    encoding: Encoding,
}

impl Receiving {
    /// Begins with the command; `None` when its SOP Class is not that of the context.
    pub(in crate::scp) fn begin(
        context_id: u8,
        request: &RetrieveRequest,
        context: &PresentationContext,
        agreement: &Agreement,
        memory: &PeerMemory,
    ) -> Option<Self> {
        let model = match (context.service, request.field) {
            (Service::Get(model), CommandField::C_GET_RQ) | (Service::Move(model), CommandField::C_MOVE_RQ) => model,
            _ => return None,
        };
        let identifier = ArrivingIdentifier::begin(&request.affected_sop_class_uid, context, memory)?;
        let relational = agreement.extended(context.service).is_some_and(|bytes| bytes.first() == Some(&1));
        let asked = Asked { context_id, request: request.clone(), encoding: identifier.encoding };
        Some(Self { asked, model, relational, identifier })
    }

    /// Takes the next fragment of the Identifier.
    pub(in crate::scp) fn accept(&mut self, fragment: &[u8]) {
        self.identifier.accept(fragment);
    }

    /// What was asked for.
    pub(in crate::scp) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// The Identifier is complete: which instances these are, found within `time_limit`; with what is counted for the list.
    pub(in crate::scp) async fn instances(
        self,
        retrieve: &Arc<Retrieve>,
        peer: &Peer,
        time_limit: Duration,
    ) -> (Asked, Result<(Instances, Share), RetrieveError>) {
        let (asked, instances) = self.list(retrieve, peer, time_limit).await;
        let counted = instances.and_then(|instances| {
            let share = retrieve.listed.take(peer, instances.len());
            share.map(|share| (instances, share)).ok_or(RetrieveError::Query(FindError::NoRoom))
        });
        (asked, counted)
    }

    async fn list(
        self,
        retrieve: &Arc<Retrieve>,
        peer: &Peer,
        time_limit: Duration,
    ) -> (Asked, Result<Instances, RetrieveError>) {
        let Self { asked, model, relational, identifier } = self;
        let (retrieve, encoding) = (Arc::clone(retrieve), asked.encoding);
        let (interrupt_sender, interrupt) = tokio::sync::oneshot::channel();
        let turns = retrieve.readers.turns();
        let Ok(turn) = tokio::time::timeout(time_limit, turns.take(peer)).await else {
            return (asked, Err(RetrieveError::Query(FindError::TimeLimit)));
        };
        let mut asking = spawn_blocking(move || {
            let _until_its_end = turn;
            let options = retrieve.options();
            let bytes = identifier.finish()?;
            let identifier = Identifier::decode(bytes.as_slice(), encoding, &options.assumed_character_set)
                .map_err(FindError::Identifier)?;
            let question = qr::parse_retrieval(model, &identifier, relational, options.hierarchy)?;
            let mut reader = retrieve.readers.take()?;
            // Nobody takes it when the time is up already.
            let _ = interrupt_sender.send(reader.interrupt());
            let instances = qr::instances(&mut reader, &question, options.max_instances)?;
            retrieve.readers.give_back(reader);
            Ok(instances)
        });
        let found = match tokio::time::timeout(time_limit, &mut asking).await {
            Ok(found) => found,
            Err(_) => {
                if let Ok(interrupt) = interrupt.await {
                    interrupt.interrupt();
                }
                asking.await
            }
        };
        let ended = RetrieveError::Query(FindError::TimeLimit);
        (asked, found.unwrap_or(Err(ended)))
    }
}

impl Asked {
    /// A response that says how far the sub-operations are (PS3.7 tables 9.3-7 and 9.3-10).
    pub(in crate::scp) fn response(&self, status: Status) -> Response {
        Response::new(self.request.field, self.request.message_id, status)
            .with_sop_class(Some(&self.request.affected_sop_class_uid))
    }

    /// The refusal of a retrieval that cannot begin.
    pub(in crate::scp) fn refusal(&self, error: &RetrieveError) -> Response {
        let failure = error.failure();
        self.response(Status(failure.status))
            .with_comment(&failure.comment)
            .with_offending_elements(&failure.offending_elements)
    }

    /// Appends a pending response as it is sent.
    pub(in crate::scp) fn put_pending(&self, out: &mut Vec<u8>, numbers: SubOperations, peer_max_length: u32) {
        let response = self.response(Status::PENDING).with_sub_operations(numbers);
        put_message(out, self.context_id, &response.command_set(DataSetPresence::Absent), None, peer_max_length);
    }

    /// The last response, and its Identifier where some sub-operations failed (PS3.4 C.4.2.1.4.2, C.4.3.1.3.2).
    pub(in crate::scp) fn last_response(
        &self,
        tally: &Tally,
        instances: &Instances,
        ending: Ending,
    ) -> (Response, Option<Vec<u8>>) {
        let (status, going) = match ending {
            Ending::Cancelled => (Status::CANCEL, Going::On),
            Ending::Complete => (tally.status(), Going::Ended),
        };
        let response = self.response(status).with_sub_operations(tally.numbers(going)).with_comment(&tally.comment());
        let uids = tally.failed.iter().filter_map(|at| instances.get(*at)).map(|instance| instance.sop_instance_uid);
        let identifier = (!tally.failed.is_empty()).then(|| self.failed_list(uids));
        (response, identifier)
    }

    fn failed_list<'i>(&self, uids: impl Iterator<Item = &'i str>) -> Vec<u8> {
        qr::uid_list_data_set(self.encoding, FAILED_SOP_INSTANCE_UID_LIST, uids)
    }
}

/// How a retrieval ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scp) enum Ending {
    /// Each sub-operation was tried.
    Complete,
    /// The peer said C-CANCEL.
    Cancelled,
}

/// Whether the number of remaining sub-operations has a meaning (PS3.7 9.3.3.2, 9.3.4.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Going {
    On,
    Ended,
}

/// How far a retrieval is.
#[derive(Clone, Debug)]
pub(in crate::scp) struct Tally {
    total: usize,
    completed: usize,
    warning: usize,
    /// Which ones failed.
    failed: Vec<usize>,
    /// Why the first of them did.
    first_failure: Option<String>,
    /// Failed because an object could not be had though the index names it.
    missing: usize,
    /// Which ones are over.
    over: Vec<bool>,
}

impl Tally {
    pub(in crate::scp) fn new(total: usize) -> Self {
        Self {
            total,
            completed: 0,
            warning: 0,
            failed: Vec::new(),
            first_failure: None,
            missing: 0,
            over: vec![false; total],
        }
    }

    /// Sub-operations that are over.
    pub(in crate::scp) fn over(&self) -> usize {
        self.completed + self.warning + self.failed.len()
    }

    /// Whether a sub-operation is over: they need not end in the order of the instances.
    pub(in crate::scp) fn is_over(&self, at: usize) -> bool {
        self.over.get(at).copied().unwrap_or(false)
    }

    /// Those that are over.
    pub(in crate::scp) fn all_over(&self) -> Vec<bool> {
        self.over.clone()
    }

    fn end(&mut self, at: usize) {
        if let Some(over) = self.over.get_mut(at) {
            *over = true;
        }
    }

    /// Sub-operations that left an object at the peer.
    pub(in crate::scp) fn arrived(&self) -> usize {
        self.completed + self.warning
    }

    /// A sub-operation was answered.
    pub(in crate::scp) fn answered(&mut self, at: usize, status: Status) {
        self.end(at);
        match status.class() {
            StatusClass::Success => {
                metrics::SUB_OPERATIONS_DONE.increment();
                self.completed += 1;
            }
            StatusClass::Warning => {
                metrics::SUB_OPERATIONS_DONE.increment();
                self.warning += 1;
            }
            StatusClass::Failure | StatusClass::Cancel | StatusClass::Pending => {
                self.fail(at, &Failure::Refused(status))
            }
        }
    }

    /// A sub-operation failed.
    pub(in crate::scp) fn fail(&mut self, at: usize, failure: &Failure) {
        debug!("a sub-operation failed: {failure}");
        metrics::SUB_OPERATIONS_FAILED.increment();
        self.end(at);
        self.missing += usize::from(matches!(failure, Failure::Object(_)));
        self.failed.push(at);
        if self.first_failure.is_none() {
            self.first_failure = Some(failure.to_string());
        }
    }

    /// How many objects could not be had though the index names them.
    pub(in crate::scp) fn missing(&self) -> usize {
        self.missing
    }

    /// The numbers of a pending response.
    pub(in crate::scp) fn so_far(&self) -> SubOperations {
        self.numbers(Going::On)
    }

    fn numbers(&self, going: Going) -> SubOperations {
        SubOperations {
            remaining: (going == Going::On).then(|| self.total.saturating_sub(self.over())),
            completed: self.completed,
            failed: self.failed.len(),
            warning: self.warning,
        }
    }

    /// PS3.4 C.4.2.3.1 and C.4.3.3.1: Success when all succeeded, a failure when all failed, a warning otherwise.
    fn status(&self) -> Status {
        match (self.arrived(), self.failed.len(), self.warning) {
            (_, 0, 0) => Status::SUCCESS,
            (0, _, _) => Status::UNABLE_TO_PERFORM_SUB_OPERATIONS,
            _ => Status::SUB_OPERATIONS_WITH_FAILURES,
        }
    }

    fn comment(&self) -> String {
        self.first_failure.clone().unwrap_or_default()
    }
}

/// Why a sub-operation failed. The texts end in Error Comments: no paths, no values.
#[derive(Debug, thiserror::Error)]
pub(in crate::scp) enum Failure {
    #[error(transparent)]
    Object(ObjectError),
    #[error("no presentation context for its SOP Class and transfer syntax")]
    NotAccepted,
    #[error("the index could not be asked where it lies")]
    Index,
    #[error("the peer answered {0}")]
    Refused(Status),
    #[error("an object could not be read in time")]
    SlowSource,
    #[error("{0}")]
    Destination(String),
}

/// The presentation contexts in which objects may be sent.
#[derive(Clone, Debug, Default)]
pub(in crate::scp) struct OutgoingContexts(HashMap<String, Vec<(u8, String)>>);

impl OutgoingContexts {
    /// Those of an association in which the requestor is SCP of storage classes.
    pub(in crate::scp) fn of_acceptor(agreement: &Agreement) -> Self {
        let storage = |context: &PresentationContext| {
            context.service == Service::Storage && agreement.requestor_is_scp.contains(&context.abstract_syntax)
        };
        let accepted = agreement.contexts.iter().filter(|(_, context)| storage(context));
        accepted.map(|(id, context)| (*id, &context.abstract_syntax, &context.transfer_syntax)).collect()
    }

    /// The context for an object of this kind, and what it has to be rewritten to for that.
    fn choose(&self, kind: &ObjectKind) -> Result<(u8, Option<NativeSyntax>), Failure> {
        let accepted = self.0.get(&kind.sop_class_uid).ok_or(Failure::NotAccepted)?;
        let find = |uid: &str| accepted.iter().find(|(_, transfer_syntax)| transfer_syntax == uid).map(|(id, _)| *id);
        if let Some(id) = find(&kind.transfer_syntax) {
            return Ok((id, None));
        }
        // Pixel data are never transcoded.
        NativeSyntax::of_uid(&kind.transfer_syntax).ok_or(Failure::NotAccepted)?;
        NativeSyntax::TARGETS
            .into_iter()
            .find_map(|target| find(target.uid()).map(|id| (id, Some(target))))
            .ok_or(Failure::NotAccepted)
    }
}

impl<'a> FromIterator<(u8, &'a String, &'a String)> for OutgoingContexts {
    fn from_iter<I: IntoIterator<Item = (u8, &'a String, &'a String)>>(contexts: I) -> Self {
        let mut by_class: HashMap<String, Vec<(u8, String)>> = HashMap::new();
        for (id, abstract_syntax, transfer_syntax) in contexts {
            by_class.entry(abstract_syntax.clone()).or_default().push((id, transfer_syntax.clone()));
        }
        Self(by_class)
    }
}

/// The kinds of objects in a list of instances, each with the number of instances.
pub(in crate::scp) fn kinds(instances: &Instances) -> BTreeMap<&ObjectKind, usize> {
    let mut kinds = BTreeMap::new();
    for instance in instances.iter_from(0) {
        *kinds.entry(instance.kind).or_default() += 1;
    }
    kinds
}

/// Whether objects of a kind are sent.
pub(in crate::scp) type Only = Arc<dyn Fn(&ObjectKind) -> bool + Send + Sync>;

/// What is to be sent, and how.
pub(in crate::scp) struct Sending {
    pub(in crate::scp) retrieve: Arc<Retrieve>,
    pub(in crate::scp) instances: Arc<Instances>,
    /// Those that are over already, by their places in the list; none where it is shorter.
    pub(in crate::scp) over: Vec<bool>,
    /// Which kinds to send; `None`: all.
    pub(in crate::scp) only: Option<Only>,
    pub(in crate::scp) contexts: OutgoingContexts,
    pub(in crate::scp) priority: u16,
    /// Who asked, where that is another association.
    pub(in crate::scp) originator: Option<MoveOriginator>,
    pub(in crate::scp) peer_max_length: u32,
    /// The memory of the peer that asked.
    pub(in crate::scp) memory: PeerMemory,
}

/// What comes next.
pub(in crate::scp) enum Piece {
    /// The beginning of a C-STORE-RQ: its command, and data.
    Begin { at: usize, message_id: u16, bytes: Buffer, is_last: bool },
    /// More data of it.
    More { bytes: Buffer, is_last: bool },
    /// It cannot be read to its end.
    Broken(io::Error),
    /// A sub-operation that failed before it began.
    Failed { at: usize, failure: Failure },
}

/// Whole PDUs, with room for others before them.
#[derive(Default)]
pub(in crate::scp) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(super) fn reset(&mut self) {
        (self.start, self.end) = (HEADROOM, HEADROOM);
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.end + bytes.len();
        self.make_room(end);
        if let Some(place) = self.bytes.get_mut(self.end..end) {
            place.copy_from_slice(bytes);
        }
        self.end = end;
    }

    fn make_room(&mut self, end: usize) {
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
    }

    /// Puts bytes in front, if there is room for them.
    #[must_use]
    pub(in crate::scp) fn put_in_front(&mut self, bytes: &[u8]) -> bool {
        let Some(start) = self.start.checked_sub(bytes.len()) else { return false };
        let Some(place) = self.bytes.get_mut(start..self.start) else { return false };
        place.copy_from_slice(bytes);
        self.start = start;
        true
    }

    /// What is to be written.
    pub(in crate::scp) fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.as_slice().len()).finish()
    }
}

/// An object of which the beginning is out.
pub(super) struct Unfinished {
    pub(super) data_set: DataSet,
    pub(super) context_id: u8,
}

impl Sending {
    /// Begins to read.
    pub(in crate::scp) fn start(self) -> ReadAhead {
        ReadAhead::start(self)
    }

    /// Opens the object, at the first of its locations where it can be read, and reads its first bytes.
    pub(super) fn begin(
        &self,
        reader: Option<&mut Reader>,
        archives: &Archives,
        instance: &RetrievedInstance<'_>,
        message_id: u16,
        (out, piece_length): (&mut Outgoing, usize),
    ) -> Result<(Buffer, Option<Unfinished>), Failure> {
        let (context_id, rewrite) = self.contexts.choose(instance.kind)?;
        let known = reader.ok_or(Failure::Index)?.known_locations(instance.sop_instance_uid).map_err(|error| {
            warn!(%error, "the index does not say where an instance lies");
            Failure::Index
        })?;
        let command = StoreRequest {
            message_id,
            affected_sop_class_uid: instance.kind.sop_class_uid.clone(),
            affected_sop_instance_uid: instance.sop_instance_uid.to_owned(),
            move_originator: self.originator.clone(),
        }
        .command_set(self.priority);
        let mut bytes = out.buffer();
        let mut encoded = Vec::with_capacity(256);
        put_message(&mut encoded, context_id, &command, None, self.peer_max_length);
        let mut failure = None;
        for known in known.iter().filter(|known| !known.differs) {
            let opened = self.open(known, instance, rewrite, archives).and_then(|mut data_set| {
                bytes.reset();
                bytes.put(&encoded);
                let is_last =
                    self.fill(&mut data_set, context_id, &mut bytes, piece_length).map_err(ObjectError::Read)?;
                Ok((data_set, is_last))
            });
            match opened {
                Ok((_, true)) => return Ok((bytes, None)),
                Ok((data_set, false)) => return Ok((bytes, Some(Unfinished { data_set, context_id }))),
                Err(error) => {
                    let instance = for_log(instance.sop_instance_uid);
                    debug!(instance, place = ?known.location.place, "an object cannot be had from where the index says: {error}");
                    // Of several reasons the one that says most: that of the first place where something should lie.
                    if failure.is_none() || matches!(failure, Some(ObjectError::NotKept)) {
                        failure = Some(error);
                    }
                }
            }
        }
        // None: dropped from the index since it was asked.
        Err(failure.map_or(Failure::Object(ObjectError::NotKept), Failure::Object))
    }

    fn open(
        &self,
        known: &KnownLocation,
        instance: &RetrievedInstance<'_>,
        rewrite: Option<NativeSyntax>,
        archives: &Archives,
    ) -> Result<DataSet, ObjectError> {
        let identity = Identity {
            sop_instance_uid: instance.sop_instance_uid,
            sop_class_uid: &instance.kind.sop_class_uid,
            transfer_syntax: Some(&instance.kind.transfer_syntax),
        };
        let object = StoredObject::open(&known.location, &identity, archives)?;
        let object = object.expecting(known.checksum, &self.retrieve.verified)?;
        match rewrite {
            None => object.as_stored(),
            Some(to) => object.rewritten(to),
        }
    }

    /// Fills a buffer with PDUs of so many bytes together; whether that was the end of the data set.
    pub(super) fn fill(
        &self,
        data_set: &mut DataSet,
        context_id: u8,
        buffer: &mut Buffer,
        piece_length: usize,
    ) -> io::Result<bool> {
        let limit = fragment_limit(self.peer_max_length).min(piece_length);
        loop {
            let start = buffer.end + FRAGMENT_HEADER_LENGTH;
            // Whole PDUs only; of a data set whose end is near, no more memory than it needs.
            let left = data_set.left().and_then(|left| usize::try_from(left).ok()).unwrap_or(limit);
            let room =
                (HEADROOM + piece_length).saturating_sub(start).max(if buffer.end == buffer.start { limit } else { 0 });
            let length = left.min(limit);
            if length > room && buffer.end > buffer.start {
                return Ok(false);
            }
            buffer.make_room(start + length);
            let filled = data_set.fill(buffer.bytes.get_mut(start..start + length).unwrap_or_default())?;
            let header = data_fragment_header(context_id, filled.count, filled.is_last);
            if let Some(place) = buffer.bytes.get_mut(buffer.end..start) {
                place.copy_from_slice(&header);
            }
            buffer.end = start + filled.count;
            if filled.is_last {
                return Ok(true);
            }
        }
    }
}

/// In which order instances are sent: that of the list, but for members of an archive whose bytes can only be had in their
/// order. The order of sub-operations is free (PS3.4 C.4.2.3.1, C.4.3.3.1).
pub(super) struct Order {
    sending: Arc<Sending>,
    over: Vec<bool>,
    /// The first one that may still be to be sent.
    next: usize,
    /// The one before.
    last: Option<usize>,
    /// Up to where it is known which members of the archive at hand are wanted.
    looked_up: usize,
    members: HashMap<OsString, usize>,
    wanted: Wanted,
}

impl Order {
    pub(super) fn new(sending: &Arc<Sending>) -> Self {
        let mut over = sending.over.clone();
        over.resize(sending.instances.len(), false);
        let (members, wanted) = (HashMap::new(), Wanted::default());
        Self { sending: Arc::clone(sending), over, next: 0, last: None, looked_up: 0, members, wanted }
    }

    pub(super) fn next(&mut self, archives: &Archives, reader: Option<&mut Reader>) -> Option<usize> {
        let at = match self.next_member(archives, reader) {
            Some(at) => at,
            None => {
                self.next = (self.next..self.over.len()).find(|&at| self.is_to_send(at))?;
                self.next
            }
        };
        self.last = Some(at);
        if let Some(over) = self.over.get_mut(at) {
            *over = true;
        }
        Some(at)
    }

    fn is_to_send(&self, at: usize) -> bool {
        let is_over = self.over.get(at).copied().unwrap_or(true);
        let only = self.sending.only.as_ref();
        !is_over && self.sending.instances.get(at).is_some_and(|instance| only.is_none_or(|only| only(instance.kind)))
    }

    /// The next one in the archive at hand, where its members lie in an order.
    fn next_member(&mut self, archives: &Archives, reader: Option<&mut Reader>) -> Option<usize> {
        if self.members.is_empty() && archives.have_an_order() && self.next >= self.looked_up {
            self.look_up(reader?)?;
        }
        let member = archives.next_of(&self.wanted);
        let at = member.and_then(|member| {
            self.wanted.remove(&member);
            self.members.remove(&member)
        });
        if at.is_none() {
            // None of them is where the index says: each is looked for by itself.
            self.members.clear();
            self.wanted = Wanted::default();
        }
        at
    }

    /// Which of the next instances lie in the archive of the one before.
    fn look_up(&mut self, reader: &mut Reader) -> Option<()> {
        let mut member = |at: usize| {
            let instance = self.sending.instances.get(at)?;
            let locations = reader.locations(instance.sop_instance_uid).ok()?;
            locations.into_iter().next().filter(|location| location.place == Place::Archive)
        };
        let archive = member(self.last?)?.directory;
        let end = self.over.len().min(self.next.saturating_add(LOOK_AHEAD));
        for at in self.next..end {
            if self.is_to_send(at)
                && let Some(location) = member(at)
                && location.directory == archive
            {
                self.wanted.add(&location.file_name);
                self.members.insert(location.file_name, at);
            }
        }
        self.looked_up = end;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::peer::CountedAs;

    #[test]
    fn a_list_that_is_as_long_as_one_may_be_has_room() {
        for max_instances in [200_000, 3_000_000] {
            let retrieve = Retrieve::new("/nowhere".into(), Options { max_instances, ..Options::default() });
            let peer: Peer = Arc::new(CountedAs::address([10, 0, 0, 1].into()));
            assert!(retrieve.listed.take(&peer, max_instances).is_some(), "{max_instances}");
        }
    }
}
