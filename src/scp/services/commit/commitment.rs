//! Verifies objects, for all associations together, and delivers reports when their association has
//! ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::report::{CommitReport, Reference, Reporting};
use crate::archive::Archives;
use crate::db::KnownLocation;
use crate::db::Search;
use crate::db::open::Reader;
use crate::deliver::object::{Identity, ObjectError, StoredObject};
use crate::dimse::Response;
use crate::encoding::syntax::Encoding;
use crate::model::ae_title::AeTitle;
use crate::model::location::Place;
use crate::model::peer::CountedAs;
use crate::model::status::Status;
use crate::model::uid::for_log;
use crate::scp::node_context::NodeContext;
use crate::scp::services::outbox::{KeptRequest, Outbox, Request};
use crate::scp::services::retrieve::retriever::Retrieve;
use crate::shares::{CountedPeer, Share, Shares, Turns};
use crate::store;
use crate::telemetry::metrics;

/// Maximum transactions that are being verified, for all associations together. Each takes a reader
/// of the index and one of the 512 threads that the runtime has for blocking work. Others wait
/// without a thread. Too low: reports come later. Too high: all read from the same disks, and
/// receiving waits for them.
const MAX_VERIFYING: usize = 8;

/// Maximum instances of all transactions that are not reported yet, for all peers together.
/// Transactions of associations that have ended count too. An instance takes some 100 bytes (26 MB
/// in all), or 300 with the longest UIDs. A request for more is answered with a status.
const MAX_REFERENCES: usize = 1 << 18;

/// Number of references that a transaction counts as, in addition to its instances. So there are at
/// most 1,024 transactions.
const COUNTS_AS_REFERENCES: usize = 256;

/// Maximum reports of all peers that wait for delivery on associations of their own. One more is
/// given up.
const MAX_WAITING_REPORTS: usize = 256;

/// Pauses between attempts to deliver a report. The last one repeats until the report is too old
/// ([`MAX_AGE`](crate::scp::services::outbox::MAX_AGE)).
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
    pub(super) retrieve: Arc<Retrieve>,
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

    /// Replaces the limits. The program has no settings for them, so this is for other programs.
    #[must_use]
    pub fn with_limits(self, limits: CommitmentLimits) -> Self {
        let CommitmentLimits { verifying, references } = limits;
        Self { turns: Turns::new(verifying), room: room(references), ..self }
    }

    /// Reserves room for a transaction of this peer with `references` instances, until the share is
    /// dropped.
    pub(super) fn room_for(&self, peer: &CountedPeer, references: usize) -> Option<Share> {
        self.room.take(peer, references.saturating_add(COUNTS_AS_REFERENCES))
    }
}

/// A request that was understood.
pub(super) struct Transaction {
    pub(super) context_id: u8,
    pub(super) encoding: Encoding,
    pub(super) uid: String,
    pub(super) references: Vec<Reference>,
    pub(super) peer: CountedPeer,
    pub(super) room: Share,
    /// Its copy on disk.
    pub(super) kept: Option<Arc<KeptRequest>>,
}

impl Transaction {
    /// Keeps the request on disk until it is reported to this AE title.
    ///
    /// # Errors
    /// The response to a request that cannot be kept.
    pub(super) async fn keep(
        mut self,
        commitment: &Commitment,
        ae_title: AeTitle,
        success: Response,
    ) -> (Response, Option<Self>) {
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
    pub(super) async fn verify(self, commitment: Arc<Commitment>) -> CommitReport {
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

/// The contents of an instance that a sender may mean, each with its copies. The first one is what
/// the index answers with. The others are those that were received beside it.
fn contents(known: &[KnownLocation]) -> Vec<Vec<&KnownLocation>> {
    let (others, first): (Vec<_>, Vec<_>) = known.iter().partition(|known| known.differs);
    let mut contents = vec![first];
    for other in others.into_iter().filter(|known| known.location.place == Place::Managed) {
        let same = contents.iter_mut().skip(1).find(|copies| copies.iter().any(|copy| copy.checksum == other.checksum));
        match same {
            Some(copies) => copies.push(other),
            None => contents.push(vec![other]),
        }
    }
    contents
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
        let mut result = Err(Status::NO_SUCH_SOP_INSTANCE);
        for copies in contents(&known) {
            let mut copies = copies.into_iter().filter(|known| self.counts(known)).peekable();
            if copies.peek().is_none() {
                continue;
            }
            match (self.one_is_sound(copies, reference, archives), result) {
                // The sender may mean any of its contents, so none of them may be lost.
                (Err(reason), _) if reason != Status::CLASS_INSTANCE_CONFLICT => return Err(reason),
                (Err(reason), Err(_)) => result = Err(reason),
                (Err(_), Ok(())) => {}
                (Ok(()), _) => result = Ok(()),
            }
        }
        result
    }

    /// Whether this place keeps objects.
    fn counts(&self, known: &KnownLocation) -> bool {
        match known.location.place {
            Place::MetadataOnly => false,
            Place::InPlace | Place::Archive => self.in_place == FilesInPlace::Count,
            Place::Managed => true,
        }
    }

    /// Whether one of these copies of a content is sound.
    fn one_is_sound<'a>(
        &self,
        copies: impl Iterator<Item = &'a KnownLocation>,
        reference: &Reference,
        archives: &Archives,
    ) -> Result<(), Status> {
        let mut reason = Status::NO_SUCH_SOP_INSTANCE;
        for known in copies {
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
            sop_class_uid: Some(&reference.sop_class_uid),
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
    pub(super) async fn resume(self: &Arc<Self>, node: &NodeContext) {
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
    pub(super) fn deliver(self: &Arc<Self>, report: CommitReport, to: Reporting, shutdown: CancellationToken) {
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
