//! Storage (PS3.4 annex B): a C-STORE-RQ and its data set become an object, a row of the index, and only then a Success.
//!
//! While fragments arrive, the head of the data set goes to the header reader and all of it to a file (or, in
//! metadata-only mode, to nothing). Memory: one batch that is being filled and one that is being written, whatever the size
//! of the object. Files are written on threads of their own; reading the header takes 2 to 3 µs, less than handing it to
//! another thread would, and is done where the fragment arrives.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dicom_core::Tag;
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::task::{JoinHandle, spawn_blocking, yield_now};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::dimse::command_set::CommandField;
use crate::dimse::message::StoreRequest;
use crate::dimse::{Response, Status};
use crate::ingest::limits::{MAX_VALUE, MAX_VALUES};
use crate::ingest::{
    Committed, Compared, HeaderParser, Identity, IndexError, KnownLocation, Need, ObjectError, Outcome, ReceivePolicy,
    Received, ReceivedFrom, StoreOutcome, Stored, StoredObject, Wanted, WriterHandle,
};
use crate::model::attribute::AttributeId;
use crate::model::checksum::{Checksum, ChecksumBuilder};
use crate::model::clock::Clock;
use crate::model::location::{Location, Place};
use crate::model::record::InstanceRecord;
use crate::model::uid::{SeriesInstanceUid, SopInstanceUid, StudyInstanceUid};
use crate::scp::negotiation::PresentationContext;
use crate::scp::shares::{Peer, PeerMemory, Share, Shares, Turns};
use crate::store::{self, Archives, Contents, FileMeta, Incoming, Objects, Placed};
use crate::telemetry::metrics;

/// Bytes of an object that are gathered before they are written. Smaller: more hops between threads. Larger: more memory,
/// of which each association may hold two, and a fragment more.
const WRITE_BATCH: usize = 256 * 1024;

/// The same where the peer has no more memory, and until an object has so many bytes. Smaller: less memory for those that get
/// stuck. Larger: fewer hops between threads.
const SMALL_BATCH: usize = 16 * 1024;

/// Bytes of the head of a data set that are read without asking: nearly all heads have less.
const UNASKED_HEAD: usize = 32 * 1024;

/// The most that the header reader holds of a data set.
const MAX_HEAD: usize = MAX_VALUES + MAX_VALUE;

/// Compressed bytes of a deflated data set that are inflated before other tasks get their turn: at deflate's best ratio of
/// 1,032, some 4 MB.
const INFLATED_AT_A_TIME: usize = 4 * 1024;

/// Threads that work on object files at a time: the runtime has 512, and queries need some of them while a disk does not answer.
const MAX_THREADS: usize = 256;

/// Objects that wait for a disk, or are being stored, at a time: as many as associations by default. They go on when their senders
/// are gone, so the limit on associations is none for them; each may hold a [`WRITE_BATCH`].
const MAX_UNDER_WAY: usize = 2_000;

/// How long stored objects keep their names in `.incoming/`, so that many of those go at a time.
const FIRST_NAMES_WAIT: Duration = Duration::from_millis(5);

const DEFLATED_TRANSFER_SYNTAXES: [&str; 2] =
    [dicom_dictionary_std::uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.4.95"];

const SOP_CLASS_UID: Tag = Tag(0x0008, 0x0016);
const SOP_INSTANCE_UID: Tag = Tag(0x0008, 0x0018);

/// What receiving instances needs.
#[derive(Debug)]
pub struct Storage {
    /// Where objects are kept; `None` is metadata-only mode.
    pub objects: Option<Arc<Objects>>,
    /// The way to the index.
    pub writer: WriterHandle,
    /// What becomes of instances that are known.
    pub policy: ReceivePolicy,
    /// Where the time of arrival comes from.
    pub clock: Clock,
    /// What is read of each object.
    pub wanted: &'static Wanted,
    /// What is being stored.
    pub under_way: Arc<UnderWay>,
}

/// What is being stored, whichever association it came by.
#[derive(Debug)]
pub struct UnderWay {
    /// Each goes on to its end when the association that it came by is gone: what has its place gets its row, or goes.
    tasks: TaskTracker,
    /// The SOP Instance UIDs among them. Of one instance one object at a time has its place, is entered and is settled: of two at
    /// once, one could find that of the other to be its own, and lose it.
    instances: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// One for each object.
    room: Arc<Shares>,
    /// Threads that work on object files.
    threads: Arc<Turns>,
    /// Objects whose rows are committed, and whose names in `.incoming/` nobody needs any more.
    first_names: Mutex<Vec<Placed>>,
}

impl Default for UnderWay {
    fn default() -> Self {
        Self {
            tasks: TaskTracker::new(),
            instances: Mutex::default(),
            room: Shares::new(MAX_UNDER_WAY, 2, &metrics::STORING_REFUSED),
            threads: Turns::new(MAX_THREADS),
            first_names: Mutex::default(),
        }
    }
}

impl UnderWay {
    /// Waits until all of it has its row, or is gone.
    pub(in crate::scp) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Room for one more object of this peer, until it is dropped.
    fn room_for(&self, peer: &Peer) -> Result<Share, Failure> {
        self.room.take(peer, 1).ok_or(Failure::Index(IndexError::Busy))
    }

    /// Waits until no other object of this instance is under way.
    async fn turn(self: &Arc<Self>, sop_instance_uid: &str) -> Turn {
        let lock = Arc::clone(self.lock_instances().entry(sop_instance_uid.to_owned()).or_default());
        let held = Some(lock.lock_owned().await);
        Turn { under_way: Arc::clone(self), sop_instance_uid: sop_instance_uid.to_owned(), held }
    }

    fn lock_instances(&self) -> MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<()>>>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs what waits for a disk on a thread for that, and waits for it.
    async fn blocking<T: Send + 'static>(
        &self,
        peer: &Peer,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        self.begin(peer, work).await.await.map_err(|_| Failure::ThreadEnded)
    }

    /// The same without waiting for its end.
    async fn begin<T: Send + 'static>(&self, peer: &Peer, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let thread = self.threads.take(peer).await;
        spawn_blocking(move || {
            let _thread = thread;
            work()
        })
    }

    /// Removes the first name of an object soon, with those of all objects that are stored meanwhile: a wake-up of another thread
    /// costs more than what it has to do for one. Should the process end before, the next start does it ([`Objects::settle`]).
    fn let_first_name_go(self: &Arc<Self>, placed: Placed) {
        let mut waiting = self.lock_first_names();
        waiting.push(placed);
        if waiting.len() > 1 {
            // Whoever came first sees to it.
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            sleep(FIRST_NAMES_WAIT).await;
            spawn_blocking(move || {
                let placed = std::mem::take(&mut *this.lock_first_names());
                drop(placed);
            });
        });
    }

    fn lock_first_names(&self) -> MutexGuard<'_, Vec<Placed>> {
        self.first_names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to give an object of an instance its place.
struct Turn {
    under_way: Arc<UnderWay>,
    sop_instance_uid: String,
    held: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut instances = self.under_way.lock_instances();
        // Only now, so that who comes next either waits for the same lock or finds none.
        self.held = None;
        if instances.get(&self.sop_instance_uid).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            instances.remove(&self.sop_instance_uid);
        }
    }
}

/// Why an instance is not stored.
#[derive(Debug, thiserror::Error)]
pub(in crate::scp) enum Failure {
    #[error("not the SOP Class of this presentation context")]
    SopClassNotOfContext,
    #[error("this AE title may not store here")]
    NotAuthorized,
    #[error("Affected SOP Instance UID is not a UID")]
    InvalidInstanceUid,
    #[error("C-STORE-RQ without a data set")]
    NoDataSet,
    #[error("{0}")]
    NotUnderstood(String),
    #[error("data set lacks a UID")]
    MissingUid(Vec<Tag>),
    #[error("data set has another SOP Instance UID than the command")]
    OtherInstance,
    #[error("data set has another SOP Class UID than the command")]
    OtherClass,
    #[error(transparent)]
    Object(#[from] store::Error),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("another object is kept under this SOP Instance UID")]
    Duplicate,
    #[error("a thread that writes objects has ended")]
    ThreadEnded,
    #[error("this peer has too much under way; send it again later")]
    TooMuchAtOnce,
}

impl Failure {
    /// Statuses of PS3.4 table B.2-1 and PS3.7 9.1.1.1.9. No `_` arm: a new failure has to be given its status here.
    fn status(&self) -> Status {
        match self {
            Self::SopClassNotOfContext => Status::SOP_CLASS_NOT_SUPPORTED,
            Self::NotAuthorized => Status::NOT_AUTHORIZED,
            Self::InvalidInstanceUid => Status::INVALID_SOP_INSTANCE,
            Self::NoDataSet | Self::NotUnderstood(_) | Self::MissingUid(_) => Status::CANNOT_UNDERSTAND,
            Self::OtherInstance | Self::OtherClass => Status::DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
            // PS3.7 C.5.5: the UID was given to another object. The sender must not take it for kept.
            Self::Duplicate => Status::DUPLICATE_SOP_INSTANCE,
            // Ours, and not the sender's: worth another try.
            Self::Object(_) | Self::Index(_) | Self::ThreadEnded | Self::TooMuchAtOnce => Status::OUT_OF_RESOURCES,
        }
    }

    fn offending_elements(&self) -> Vec<Tag> {
        match self {
            Self::MissingUid(tags) => tags.clone(),
            Self::OtherInstance => vec![SOP_INSTANCE_UID],
            Self::OtherClass => vec![SOP_CLASS_UID],
            Self::SopClassNotOfContext
            | Self::NotAuthorized
            | Self::InvalidInstanceUid
            | Self::NoDataSet
            | Self::NotUnderstood(_)
            | Self::Object(_)
            | Self::Index(_)
            | Self::Duplicate
            | Self::ThreadEnded
            | Self::TooMuchAtOnce => Vec::new(),
        }
    }

    /// What the peer is told. Paths and the words of SQLite are for our log.
    fn comment(&self) -> String {
        match self {
            Self::Index(IndexError::Full) => "no space left for the index".into(),
            Self::Index(IndexError::Busy) => "too many instances at once".into(),
            Self::Index(_) => "the index does not take it now".into(),
            other => other.to_string(),
        }
    }

    /// Whether our operator should look. An index that was taken away is told by the writer, once for all.
    pub(in crate::scp) fn is_ours(&self) -> bool {
        let is_told_elsewhere = matches!(self, Self::TooMuchAtOnce | Self::Index(IndexError::Replaced { .. }));
        self.status() == Status::OUT_OF_RESOURCES && !is_told_elsewhere
    }
}

/// A C-STORE-RSP. A success takes the proof that the instance is committed, so it cannot be sent early.
#[derive(Debug)]
pub(in crate::scp) struct StoreResponse(Response);

impl StoreResponse {
    /// Success (PS3.4 B.2.3).
    fn success(request: &StoreRequest, _proof: Committed) -> Self {
        Self(Self::to(request, Status::SUCCESS))
    }

    /// Any other status.
    pub(in crate::scp) fn failure(request: &StoreRequest, failure: &Failure) -> Self {
        let response = Self::to(request, failure.status())
            .with_comment(&failure.comment())
            .with_offending_elements(&failure.offending_elements());
        Self(response)
    }

    fn to(request: &StoreRequest, status: Status) -> Response {
        Response::new(CommandField::C_STORE_RQ, request.message_id, status)
            .with_sop_class(Some(&request.affected_sop_class_uid))
            .with_sop_instance(&request.affected_sop_instance_uid)
    }

    /// The message to send.
    pub(in crate::scp) fn into_response(self) -> Response {
        self.0
    }
}

/// An instance that is arriving.
pub(in crate::scp) struct Receiving {
    storage: Arc<Storage>,
    request: StoreRequest,
    sender: Arc<ReceivedFrom>,
    parser: HeaderParser<'static>,
    header: Header,
    sink: Sink,
    length: u64,
    memory: PeerMemory,
    /// What is counted for the header reader.
    head: Option<Share>,
    failure: Option<Failure>,
}

/// How far the header reader is.
enum Header {
    Reading,
    /// Reading, and each byte may become a thousand.
    Inflating,
    Read,
}

enum Sink {
    /// Metadata-only mode.
    Nothing,
    File(FileSink),
}

impl Receiving {
    /// Begins with the command.
    ///
    /// # Errors
    /// When the data set need not be looked at.
    pub(in crate::scp) fn begin(
        storage: &Arc<Storage>,
        request: &StoreRequest,
        context: &PresentationContext,
        sender: &Arc<ReceivedFrom>,
        memory: &PeerMemory,
    ) -> Result<Self, Failure> {
        if request.affected_sop_class_uid != context.abstract_syntax {
            return Err(Failure::SopClassNotOfContext);
        }
        if SopInstanceUid::lenient(&request.affected_sop_instance_uid).is_none() {
            return Err(Failure::InvalidInstanceUid);
        }
        let transfer_syntax = context.transfer_syntax.as_str();
        let sink = match &storage.objects {
            None => Sink::Nothing,
            Some(objects) => {
                let meta = FileMeta {
                    sop_class_uid: &request.affected_sop_class_uid,
                    sop_instance_uid: &request.affected_sop_instance_uid,
                    transfer_syntax,
                    source_ae_title: &sender.calling_ae_title,
                };
                Sink::File(FileSink::new(objects, &storage.under_way, meta.encode(), memory))
            }
        };
        let deflated = DEFLATED_TRANSFER_SYNTAXES.contains(&transfer_syntax);
        Ok(Self {
            storage: Arc::clone(storage),
            request: request.clone(),
            sender: Arc::clone(sender),
            parser: HeaderParser::for_data_set(storage.wanted, transfer_syntax),
            header: if deflated { Header::Inflating } else { Header::Reading },
            sink,
            length: 0,
            memory: memory.clone(),
            head: None,
            failure: None,
        })
    }

    /// Takes the next fragment of the data set. After a failure the rest is only counted.
    pub(in crate::scp) async fn accept(&mut self, fragment: &[u8]) {
        self.length += fragment.len() as u64;
        if self.failure.is_some() {
            return;
        }
        if let Err(failure) = self.read_header(fragment).await {
            self.failure = Some(failure);
            self.sink = Sink::Nothing;
        }
        if let Sink::File(file) = &mut self.sink
            && let Err(failure) = file.accept(fragment).await
        {
            self.failure = Some(failure);
            self.sink = Sink::Nothing;
        }
    }

    async fn read_header(&mut self, fragment: &[u8]) -> Result<(), Failure> {
        self.count_head(fragment)?;
        let need = match self.header {
            Header::Read => return Ok(()),
            Header::Reading => self.parser.feed(fragment),
            Header::Inflating => {
                let mut need = Need::More;
                for piece in fragment.chunks(INFLATED_AT_A_TIME) {
                    need = self.parser.feed(piece);
                    if need == Need::Done {
                        break;
                    }
                    yield_now().await;
                }
                need
            }
        };
        if need == Need::Done {
            self.header = Header::Read;
            // What is left of it is a record of a few kilobytes, nearly always.
            self.head = None;
        }
        Ok(())
    }

    /// Counts what the header reader may hold: no more than it was given, and no more than it keeps at all.
    fn count_head(&mut self, fragment: &[u8]) -> Result<(), Failure> {
        let may_hold = match self.header {
            Header::Read => return Ok(()),
            Header::Reading => self.length.min(MAX_HEAD as u64) as usize,
            // Each byte may become a thousand.
            Header::Inflating if self.length > (UNASKED_HEAD / 16) as u64 => MAX_HEAD,
            Header::Inflating => return Ok(()),
        };
        // The usual head is in the first fragment.
        if may_hold <= UNASKED_HEAD || self.length == fragment.len() as u64 {
            return Ok(());
        }
        let granted = match &mut self.head {
            Some(share) => share.count() >= may_hold || share.grow(may_hold - share.count()),
            none => {
                *none = self.memory.take(may_hold);
                none.is_some()
            }
        };
        if granted { Ok(()) } else { Err(Failure::TooMuchAtOnce) }
    }

    /// The end of the data set: stores the instance and answers. With the failure, if there was one.
    pub(in crate::scp) async fn finish(self) -> (StoreResponse, Option<Failure>) {
        let begun = Instant::now();
        let Self { storage, request, sender, parser, sink, length, memory, failure, .. } = self;
        metrics::RECEIVED_DATA_SET_BYTES.add(length);
        let kept = match failure {
            Some(failure) => Err(failure),
            None => keep(&storage, &request, (parser, sender), sink, (length, memory.peer())).await,
        };
        metrics::STORE_SECONDS.observe(begun.elapsed());
        match kept {
            Ok(committed) => {
                metrics::INSTANCES_STORED.increment();
                (StoreResponse::success(&request, committed), None)
            }
            Err(failure) => {
                count_failure(&failure);
                (StoreResponse::failure(&request, &failure), Some(failure))
            }
        }
    }
}

/// Gives the object its place and the record its row, and waits for both to be durable.
async fn keep(
    storage: &Arc<Storage>,
    request: &StoreRequest,
    (parser, sender): (HeaderParser<'static>, Arc<ReceivedFrom>),
    sink: Sink,
    (length, peer): (u64, &Peer),
) -> Result<Committed, Failure> {
    let record = read(request, parser)?;
    let Sink::File(file) = sink else {
        let _room = storage.under_way.room_for(peer)?;
        let location = metadata_only(length, storage.clock);
        let known = ReceivedObject { record, sender, checksum: None };
        let stored = commit(storage, known, location, Compared::Nothing).await?;
        return match stored.outcome {
            StoreOutcome::KeptFirst => Err(refused()),
            StoreOutcome::Replaced { previous } => {
                // Of a time when objects were kept.
                remove(&storage.under_way, peer, move || remove_all(&previous)).await;
                Ok(stored.committed)
            }
            StoreOutcome::New
            | StoreOutcome::Completed
            | StoreOutcome::Identical { .. }
            | StoreOutcome::KeptCopy { .. } => Ok(stored.committed),
        };
    };
    let room = storage.under_way.room_for(peer)?;
    let checksum = Some(file.checksum.finish());
    let kept = keep_object(Arc::clone(storage), ReceivedObject { record, sender, checksum }, file, room);
    storage.under_way.tasks.spawn(kept).await.map_err(|_| Failure::ThreadEnded)?
}

/// What is known of an object that has come whole.
#[derive(Clone)]
struct ReceivedObject {
    record: Box<InstanceRecord>,
    sender: Arc<ReceivedFrom>,
    checksum: Option<Checksum>,
}

impl ReceivedObject {
    fn into_received(self, location: Location, compared: Compared, policy: ReceivePolicy) -> Received {
        let Self { record, sender, checksum } = self;
        Received { record, location, checksum, sender, policy, compared }
    }
}

async fn keep_object(
    storage: Arc<Storage>,
    known: ReceivedObject,
    file: FileSink,
    _room: Share,
) -> Result<Committed, Failure> {
    let peer = Arc::clone(file.memory.peer());
    let under_way = &storage.under_way;
    let _turn = under_way.turn(known.record.value(AttributeId::SOPInstanceUID)).await;
    let again = known.clone();
    let (mut placed, mut stored) = file.keep(&storage, known).await?;
    if let Ok(Stored { first: Some(first), outcome, .. }) = &stored {
        // The index goes on naming a file that is not ours, on somebody's disk or in a storage directory of former times.
        let (first, uid) = (first.clone(), again.record.value(AttributeId::SOPInstanceUID).to_owned());
        let look = FirstLook::at(outcome, &first);
        let (state, first) = under_way.blocking(&peer, move || (FirstObject::at(&first, &uid, look), first)).await?;
        if state != FirstObject::There {
            let stored = commit(&storage, again, placed.location.clone(), Compared::FirstIsGone).await;
            let is_named = stored.as_ref().is_ok_and(|stored| stored.outcome == StoreOutcome::Completed);
            let committed = settle(&storage, &peer, placed, stored).await;
            if is_named && state == FirstObject::Damaged {
                warn!("an object that was damaged was received again");
                let damaged = first.location.path();
                remove(under_way, &peer, move || damaged.map_or(Ok(()), |path| store::remove(&path))).await;
            }
            return committed;
        }
    }
    if let Ok(Stored { outcome: StoreOutcome::Identical { uncompared: Some(first) }, .. }) = &stored {
        // Alike as far as the index knows, but it names an object under another name than ours: do the bytes agree, too?
        let (first, ours) = (first.clone(), placed);
        let (same, ours) = under_way.blocking(&peer, move || (ours.has_same_data_set(&first), ours)).await?;
        placed = ours;
        // Where the bytes cannot be held against each other, what the index knows has to do.
        let is_same = same.is_ok_and(|same| same.unwrap_or(true));
        let compared = if is_same { Compared::FirstIsSame } else { Compared::FirstIsOther };
        stored = commit(&storage, again, placed.location.clone(), compared).await;
    }
    settle(&storage, &peer, placed, stored).await
}

/// How closely the object is looked at that the index names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FirstLook {
    /// It holds the same as what has come: all of it, for the new one is going to be thrown away.
    Whole,
    /// It holds something else: whether it is there and as long as it was.
    Length,
    /// It holds something else, and both are kept: whether it is there.
    Presence,
}

impl FirstLook {
    fn at(outcome: &StoreOutcome, first: &KnownLocation) -> Self {
        match outcome {
            StoreOutcome::Identical { .. } | StoreOutcome::KeptCopy { differs: false } => Self::Whole,
            // Without a checksum it may be what has come, cut short.
            StoreOutcome::KeptCopy { differs: true } if first.checksum.is_some() => Self::Presence,
            StoreOutcome::KeptCopy { differs: true }
            | StoreOutcome::New
            | StoreOutcome::Completed
            | StoreOutcome::KeptFirst
            | StoreOutcome::Replaced { .. } => Self::Length,
        }
    }
}

/// What became of the object that the index names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FirstObject {
    /// It is this instance still.
    There,
    /// It is one of ours, and is damaged.
    Damaged,
    /// It cannot be read, or is another one: what came now is all that is left.
    Gone,
}

impl FirstObject {
    fn at(first: &KnownLocation, sop_instance_uid: &str, look: FirstLook) -> Self {
        let KnownLocation { location, checksum, .. } = first;
        if location.place == Place::Managed
            && let Some(metadata) = location.path().and_then(|path| std::fs::metadata(path).ok())
            && metadata.is_file()
        {
            match look {
                FirstLook::Presence => return Self::There,
                FirstLook::Whole | FirstLook::Length if metadata.len() != location.size => return Self::Damaged,
                FirstLook::Whole | FirstLook::Length => {}
            }
        }
        // Its class is compared along with all else that the index has of it.
        let identity = Identity { sop_instance_uid, sop_class_uid: "", transfer_syntax: None };
        match StoredObject::open(location, &identity, &Archives::default()) {
            Ok(_) | Err(ObjectError::OtherClass) => {}
            Err(_) => return Self::Gone,
        }
        let is_whole = || store::checksum(location).is_ok_and(|found| found == *checksum);
        match checksum {
            Some(_) if look == FirstLook::Whole && !is_whole() => Self::Damaged,
            _ => Self::There,
        }
    }
}

fn refused() -> Failure {
    warn!("an instance came with other content than the one that is kept, and was refused");
    Failure::Duplicate
}

fn remove_all(paths: &[PathBuf]) -> Result<(), store::Error> {
    paths.iter().try_for_each(|path| store::remove(path))
}

/// Queues the record, and waits until it is committed.
async fn commit(
    storage: &Storage,
    known: ReceivedObject,
    location: Location,
    compared: Compared,
) -> Result<Stored, IndexError> {
    let (sender, stored) = oneshot::channel();
    storage.writer.store(known.into_received(location, compared, storage.policy), move |stored| {
        // Nobody waits any more when the association was cut off; the row is committed all the same.
        let _ = sender.send(stored);
    });
    stored.await.unwrap_or_else(|_| Err(IndexError::WriterStopped("no answer".into())))
}

/// Reads the record, and holds the data set against the command.
fn read(request: &StoreRequest, parser: HeaderParser<'static>) -> Result<Box<InstanceRecord>, Failure> {
    let parsed = parser.finish();
    // A file that is damaged is indexed as far as it goes, because it is all there is. A sender has the whole object, so it
    // is told, and can send it again.
    if let Some(fault) = parsed.faults().iter().find(|fault| fault.ended_reading()) {
        return Err(Failure::NotUnderstood(fault.to_string()));
    }
    let record = match Outcome::of(parsed) {
        Outcome::Instance(record) => record,
        Outcome::Incomplete { missing } => {
            return Err(Failure::MissingUid(missing.into_iter().map(|id| id.attribute().tag).collect()));
        }
        Outcome::Dicomdir => return Err(Failure::NotUnderstood("data set is a Media Storage Directory".into())),
        Outcome::NotDicom { reason } => return Err(Failure::NotUnderstood(reason.into())),
        Outcome::Damaged { fault } => return Err(Failure::NotUnderstood(fault.to_string())),
        Outcome::Unreadable { error } => return Err(Failure::NotUnderstood(error.to_string())),
    };
    if record.value(AttributeId::SOPInstanceUID) != request.affected_sop_instance_uid {
        return Err(Failure::OtherInstance);
    }
    if record.value(AttributeId::SOPClassUID) != request.affected_sop_class_uid {
        return Err(Failure::OtherClass);
    }
    let unusable = [
        (
            AttributeId::StudyInstanceUID,
            StudyInstanceUid::lenient(record.value(AttributeId::StudyInstanceUID)).is_none(),
        ),
        (
            AttributeId::SeriesInstanceUID,
            SeriesInstanceUid::lenient(record.value(AttributeId::SeriesInstanceUID)).is_none(),
        ),
    ];
    let unusable: Vec<_> = unusable.into_iter().filter(|(_, bad)| *bad).map(|(id, _)| id.attribute().tag).collect();
    if unusable.is_empty() { Ok(record) } else { Err(Failure::MissingUid(unusable)) }
}

fn compared(contents: Contents) -> Compared {
    match contents {
        Contents::New => Compared::Nothing,
        Contents::Same => Compared::Same,
        Contents::Other => Compared::Other,
    }
}

fn metadata_only(length: u64, clock: Clock) -> Location {
    Location {
        place: Place::MetadataOnly,
        directory: PathBuf::new(),
        file_name: OsString::new(),
        size: length,
        mtime_ms: clock.now_ms(),
    }
}

/// Removes the object that the index does not need: the new one, or the one that it took the place of.
async fn settle(
    storage: &Arc<Storage>,
    peer: &Peer,
    placed: Placed,
    stored: Result<Stored, IndexError>,
) -> Result<Committed, Failure> {
    let stored = match stored {
        Ok(stored) => stored,
        Err(error) => {
            remove(&storage.under_way, peer, move || placed.discard()).await;
            return Err(Failure::Index(error));
        }
    };
    match stored.outcome {
        // Not waited for: it is only a name.
        StoreOutcome::New | StoreOutcome::Completed | StoreOutcome::KeptCopy { differs: false } => {
            storage.under_way.let_first_name_go(placed);
        }
        StoreOutcome::KeptCopy { differs: true } => {
            warn!("an instance came with other content than the one that is kept; both are kept");
            storage.under_way.let_first_name_go(placed);
        }
        StoreOutcome::Identical { .. } => remove(&storage.under_way, peer, move || placed.discard()).await,
        StoreOutcome::KeptFirst => {
            remove(&storage.under_way, peer, move || placed.discard()).await;
            return Err(refused());
        }
        StoreOutcome::Replaced { previous } => {
            warn!("an instance came with other content and took the place of the first");
            remove(&storage.under_way, peer, move || {
                // While the new one has its first name: should the process end here, the next start sees to the rest.
                remove_all(&previous)?;
                drop(placed);
                Ok(())
            })
            .await;
        }
    }
    Ok(stored.committed)
}

async fn remove(under_way: &UnderWay, peer: &Peer, remove: impl FnOnce() -> Result<(), store::Error> + Send + 'static) {
    match under_way.blocking(peer, remove).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "an object that is not needed could not be removed"),
        Err(_) => warn!("an object that is not needed could not be removed: its thread ended"),
    }
}

/// An object on its way into a file.
struct FileSink {
    objects: Arc<Objects>,
    under_way: Arc<UnderWay>,
    /// What is to be written next; at the beginning the File Meta Information.
    batch: Vec<u8>,
    /// Of the data set so far.
    checksum: ChecksumBuilder,
    memory: PeerMemory,
    /// What is counted for large batches, once they are.
    share: Option<Share>,
    writing: Writing,
}

enum Writing {
    /// Nothing yet: an object that fits one batch is written whole, by one thread, when it is complete.
    NotBegun,
    /// A thread writes a batch, and gives the memory back.
    Batch(JoinHandle<Result<(Incoming, Vec<u8>), store::Error>>),
}

impl FileSink {
    fn new(objects: &Arc<Objects>, under_way: &Arc<UnderWay>, header: Vec<u8>, memory: &PeerMemory) -> Self {
        Self {
            objects: Arc::clone(objects),
            under_way: Arc::clone(under_way),
            batch: header,
            checksum: ChecksumBuilder::default(),
            memory: memory.clone(),
            share: None,
            writing: Writing::NotBegun,
        }
    }

    async fn accept(&mut self, fragment: &[u8]) -> Result<(), Failure> {
        self.checksum.update(fragment);
        self.batch.extend_from_slice(fragment);
        if self.batch.len() < SMALL_BATCH {
            return Ok(());
        }
        if self.share.is_none() {
            // One that is being filled and one that is being written.
            self.share = self.memory.take(2 * WRITE_BATCH);
        }
        if self.share.is_some() && self.batch.len() < WRITE_BATCH {
            return Ok(());
        }
        let (incoming, memory) = self.written().await?;
        let batch = std::mem::replace(&mut self.batch, memory);
        let objects = Arc::clone(&self.objects);
        let writing = self.under_way.begin(self.memory.peer(), move || {
            let incoming = match incoming {
                None => objects.begin(&[&batch])?,
                Some(mut incoming) => {
                    incoming.write(&batch)?;
                    incoming
                }
            };
            let mut memory = batch;
            memory.clear();
            Ok((incoming, memory))
        });
        self.writing = Writing::Batch(writing.await);
        Ok(())
    }

    /// Waits for the batch that is being written.
    async fn written(&mut self) -> Result<(Option<Incoming>, Vec<u8>), Failure> {
        match std::mem::replace(&mut self.writing, Writing::NotBegun) {
            Writing::NotBegun => Ok((None, Vec::new())),
            Writing::Batch(task) => {
                let (incoming, memory) = task.await.map_err(|_| Failure::ThreadEnded)??;
                Ok((Some(incoming), memory))
            }
        }
    }

    /// Writes the rest, gives the object its place and queues the record, all on one thread; waits until the row is
    /// committed.
    async fn keep(
        mut self,
        storage: &Arc<Storage>,
        known: ReceivedObject,
    ) -> Result<(Placed, Result<Stored, IndexError>), Failure> {
        let (incoming, _memory) = self.written().await?;
        let Self { objects, under_way, batch, memory, share, .. } = self;
        let storage = Arc::clone(storage);
        let (sender, kept) = oneshot::channel();
        let writing = under_way.begin(memory.peer(), move || {
            let _until_written = share;
            let [study, series, instance] =
                [AttributeId::StudyInstanceUID, AttributeId::SeriesInstanceUID, AttributeId::SOPInstanceUID]
                    .map(|id| known.record.value(id));
            let placed = match incoming {
                None => objects.store(&[&batch], study, series, instance),
                Some(mut incoming) => incoming.write(&batch).and_then(|()| incoming.place(study, series, instance)),
            };
            match placed {
                Err(error) => {
                    let _ = sender.send(Err(error));
                }
                Ok(placed) => {
                    let (location, compared) = (placed.location.clone(), compared(placed.contents));
                    let received = known.into_received(location, compared, storage.policy);
                    storage.writer.store(received, move |stored| {
                        let _ = sender.send(Ok((placed, stored)));
                    });
                }
            }
        });
        drop(writing.await);
        Ok(kept.await.map_err(|_| Failure::ThreadEnded)??)
    }
}

fn count_failure(failure: &Failure) {
    match failure.status() {
        Status::OUT_OF_RESOURCES => metrics::INSTANCES_OUT_OF_RESOURCES.increment(),
        Status::CANNOT_UNDERSTAND | Status::DATA_SET_DOES_NOT_MATCH_SOP_CLASS => {
            metrics::INSTANCES_NOT_UNDERSTOOD.increment();
        }
        _ => metrics::INSTANCES_FAILED.increment(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> Peer {
        Arc::new(crate::scp::peers::CountedAs::address([10, 0, 0, number].into()))
    }

    #[tokio::test]
    async fn objects_whose_senders_are_gone_are_limited_all_the_same() {
        let under_way = Arc::new(UnderWay::default());
        // A disk that does not answer.
        let disk = Arc::new(tokio::sync::Semaphore::new(0));
        let mut begun = 0;
        while let Ok(room) = under_way.room_for(&peer(1)) {
            let disk = Arc::clone(&disk);
            drop(under_way.tasks.spawn(async move {
                drop(disk.acquire().await);
                drop(room);
            }));
            begun += 1;
        }
        assert_eq!(begun, MAX_UNDER_WAY / 2);
        // They are no limit for another peer.
        assert!(under_way.room_for(&peer(2)).is_ok());
        disk.close();
        under_way.ended().await;
        assert!(under_way.room_for(&peer(1)).is_ok());
    }

    #[tokio::test]
    async fn a_peer_whose_threads_do_not_come_back_leaves_some_to_others() {
        let under_way = UnderWay::default();
        let (release, disk) = std::sync::mpsc::channel::<()>();
        let disk = Arc::new(Mutex::new(disk));
        let mut threads = Vec::new();
        for _ in 0..MAX_THREADS / 2 {
            let disk = Arc::clone(&disk);
            threads.push(under_way.begin(&peer(1), move || disk.lock().map(|disk| disk.recv().is_ok()).ok()).await);
        }
        let one = peer(1);
        let waits = under_way.begin(&one, || ());
        tokio::select! {
            biased;
            _ = waits => panic!("one peer has more than half of the threads"),
            () = yield_now() => {}
        }
        assert_eq!(under_way.blocking(&peer(2), || 7).await.unwrap(), 7);
        drop(release);
        for thread in threads {
            thread.await.unwrap();
        }
    }

    #[tokio::test]
    async fn of_one_instance_one_has_the_turn_and_nothing_is_left_of_it() {
        let under_way = Arc::new(UnderWay::default());
        let first = under_way.turn("1.2.3").await;
        let other = under_way.turn("1.2.4").await;
        let this = Arc::clone(&under_way);
        let mut second = tokio::spawn(async move { this.turn("1.2.3").await });
        tokio::select! {
            biased;
            _ = &mut second => panic!("two at once"),
            () = yield_now() => {}
        }
        drop(first);
        drop(second.await.unwrap());
        drop(other);
        assert!(under_way.lock_instances().is_empty());
    }
}
