//! Writes an arriving object to a file.

use std::sync::Arc;

use crossbeam_channel::bounded;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::error::ReceiveError;
use super::journal::{Journal, JournalHold, JournalRoom, Journaling, ObjectPlacing, OnJournaled, PlaceBefore};
use super::storage::{ReceivedObject, Storage};
use super::under_way::UnderWay;
use crate::db::{self, Arrivals, Compared, JournalEntryId, Received, ReceivedFrom, Stored};
use crate::model::checksum::ChecksumBuilder;
use crate::shares::{CountedPeer, PeerMemory, Share};
use crate::store::{self, Incoming, NameOutcome, Objects, Placed};

/// Bytes of an object that are gathered before they are written. Larger: more memory, since each
/// association may hold two of these and a fragment. Smaller: more changes between threads.
const WRITE_BATCH: usize = 256 * 1024;

/// The same limit for a peer without memory left, and until an object has so many bytes. Larger:
/// fewer changes between threads. Smaller: less memory for objects that stall.
const SMALL_BATCH: usize = 16 * 1024;

/// An arriving object and its file.
pub(super) struct FileSink {
    objects: Arc<Objects>,
    under_way: Arc<UnderWay>,
    /// The bytes to write next. At first they are the File Meta Information.
    batch: Vec<u8>,
    /// Checksum of the data set so far.
    pub(super) checksum: ChecksumBuilder,
    pub(super) memory: PeerMemory,
    /// The memory that is counted for large batches.
    share: Option<Share>,
    writing: WriteState,
    /// Bytes up to which the object stays in memory, because the journal takes it as a whole.
    whole_up_to: usize,
    /// Its entry, if it comes out of the journal.
    entry: Option<JournalEntryId>,
}

/// The journal, and its room for an object.
struct RoomInJournal(Arc<Journal>, JournalRoom);

impl RoomInJournal {
    /// `None` if the object becomes durable by itself.
    fn of(storage: &Storage, object: &[u8], sender: &ReceivedFrom) -> Option<Self> {
        let journal = storage.journal.as_ref()?;
        Some(Self(Arc::clone(journal), journal.room_for(object.len(), sender)?))
    }
}

/// Result for an object. The group of its entry stays in the journal until this is dropped.
pub(super) type KeptObject = (Placed, Result<Stored, ReceiveError>, Option<JournalHold>);

enum WriteState {
    /// Nothing is written yet. An object that fits one batch is written by one thread when it is
    /// complete.
    NotBegun,
    /// A thread writes a batch, and then returns its memory.
    Batch(JoinHandle<Result<(Incoming, Vec<u8>), store::Error>>),
}

impl FileSink {
    /// Makes the file of an object that begins with `header`. `memory` counts for its peer.
    pub(super) fn new(objects: &Arc<Objects>, under_way: &Arc<UnderWay>, header: Vec<u8>, memory: &PeerMemory) -> Self {
        Self {
            objects: Arc::clone(objects),
            under_way: Arc::clone(under_way),
            batch: header,
            checksum: ChecksumBuilder::default(),
            memory: memory.clone(),
            share: None,
            writing: WriteState::NotBegun,
            whole_up_to: WRITE_BATCH,
            entry: None,
        }
    }

    /// Keeps an object in memory that this journal may take.
    pub(super) fn for_journal(self, journal: Option<&Arc<Journal>>) -> Self {
        let largest = journal.map_or(0, |journal| journal.largest_object());
        Self { whole_up_to: WRITE_BATCH.max(largest), ..self }
    }

    /// Takes a whole object out of the journal.
    pub(super) fn of_entry(
        objects: &Arc<Objects>,
        under_way: &Arc<UnderWay>,
        (object, entry): (Vec<u8>, JournalEntryId),
        memory: &PeerMemory,
    ) -> Self {
        Self { entry: Some(entry), ..Self::new(objects, under_way, object, memory) }
    }

    /// Takes a fragment of the data set. Waits while the disk is slower than the peer.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub(super) async fn accept(&mut self, fragment: &[u8]) -> Result<(), ReceiveError> {
        self.checksum.update(fragment);
        self.batch.extend_from_slice(fragment);
        if self.batch.len() < SMALL_BATCH || self.may_gather() {
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
        self.writing = WriteState::Batch(writing.await);
        Ok(())
    }

    /// Whether more of the object is gathered before it is written. What it holds grows with it, so
    /// that many small objects of one peer stay in memory at a time.
    fn may_gather(&mut self) -> bool {
        let fits = match self.writing {
            WriteState::NotBegun => self.batch.len() <= self.whole_up_to,
            WriteState::Batch(_) => self.batch.len() < WRITE_BATCH,
        };
        // The vector may have room for as much again, or one more batch is being written.
        fits && self.holds((2 * self.batch.len()).next_power_of_two())
    }

    /// Whether so much memory is counted for the object, after taking what is missing.
    fn holds(&mut self, bytes: usize) -> bool {
        match &mut self.share {
            Some(share) => share.count() >= bytes || share.grow(bytes - share.count()),
            none => {
                *none = self.memory.take(bytes);
                none.is_some()
            }
        }
    }

    /// Waits for the batch that is being written.
    async fn written(&mut self) -> Result<(Option<Incoming>, Vec<u8>), ReceiveError> {
        match std::mem::replace(&mut self.writing, WriteState::NotBegun) {
            WriteState::NotBegun => Ok((None, Vec::new())),
            WriteState::Batch(task) => {
                let (incoming, memory) = task.await.map_err(|_| ReceiveError::ThreadEnded)??;
                Ok((Some(incoming), memory))
            }
        }
    }

    /// Writes the rest, gives the object its place and queues the record. Waits until the object is
    /// durable and its row is committed.
    ///
    /// # Errors
    /// Fails if the file cannot be written. An error of the row is in the returned value.
    pub(super) async fn keep(
        mut self,
        storage: &Arc<Storage>,
        known: ReceivedObject,
    ) -> Result<KeptObject, ReceiveError> {
        let (incoming, _memory) = self.written().await?;
        let Self { objects, under_way, batch, memory, share, entry, .. } = self;
        let (done, kept) = oneshot::channel();
        let keeping = Keeping { objects, known, storage: Arc::clone(storage), done };
        let journal = match (&incoming, entry) {
            (None, None) => RoomInJournal::of(storage, &batch, &keeping.known.sender),
            (Some(_), _) | (_, Some(_)) => None,
        };
        let writing = match journal {
            Some(room) if keeping.knows_directory() => {
                keeping.journal_and_place(room, (batch, share), memory.peer());
                return Ok(kept.await.map_err(|_| ReceiveError::ThreadEnded)??);
            }
            Some(room) => under_way.begin(memory.peer(), move || keeping.place_and_journal(room, (batch, share))).await,
            None => {
                let keep = move || match (incoming, entry) {
                    (Some(incoming), _) => keeping.complete(incoming, &batch),
                    (None, Some(entry)) => keeping.store_entry(entry, &batch),
                    (None, None) => keeping.store(&batch),
                };
                under_way.begin(memory.peer(), keep).await
            }
        };
        drop(writing.await);
        Ok(kept.await.map_err(|_| ReceiveError::ThreadEnded)??)
    }
}

/// An object on its way to its place and to the index.
struct Keeping {
    objects: Arc<Objects>,
    known: ReceivedObject,
    storage: Arc<Storage>,
    done: oneshot::Sender<Result<KeptObject, store::Error>>,
}

impl Keeping {
    /// Writes the last bytes of an object that has a file, and gives it its place.
    fn complete(self, mut incoming: Incoming, rest: &[u8]) {
        let [study, series, instance] = self.known.uids();
        match incoming.write(rest).and_then(|()| incoming.place(study, series, instance)) {
            Ok(placed) => self.enter(placed, None),
            Err(error) => self.fail(error),
        }
    }

    /// Stores a whole object that becomes durable by itself.
    fn store(self, object: &[u8]) {
        let [study, series, instance] = self.known.uids();
        match self.objects.store(&[object], study, series, instance) {
            Ok(placed) => self.enter(placed, None),
            Err(error) => self.fail(error),
        }
    }

    /// Stores an object that the journal has.
    fn store_entry(self, entry: JournalEntryId, object: &[u8]) {
        let [study, series, instance] = self.known.uids();
        match self.objects.store_for_journal(object, study, series, instance) {
            Ok(placed) => self.enter(placed, Some((entry, None))),
            Err(error) => self.fail(error),
        }
    }

    fn knows_directory(&self) -> bool {
        let [study, series, _] = self.known.uids();
        self.objects.knows_directory(study, series)
    }

    /// Gives an object its place, and then to the journal. `share` is the memory that is counted
    /// for it.
    fn place_and_journal(self, room: RoomInJournal, object: (Vec<u8>, Option<Share>)) {
        let RoomInJournal(journal, room) = room;
        let (placing, journaling) = self.journaling(room, object);
        journal.append_placed(placing, journaling);
    }

    /// Gives an object to the journal, which gives it its place. If its first name is taken, a
    /// thread of its peer does that first.
    fn journal_and_place(self, room: RoomInJournal, object: (Vec<u8>, Option<Share>), peer: &CountedPeer) {
        let RoomInJournal(journal, room) = room;
        let (under_way, peer, runtime) = (Arc::clone(&self.storage.under_way), Arc::clone(peer), Handle::current());
        let to_append = Arc::clone(&journal);
        let place_before: PlaceBefore = Box::new(move |placing, journaling| {
            drop(runtime.spawn(async move {
                drop(under_way.begin(&peer, move || to_append.append_placed(placing, journaling)).await);
            }));
        });
        let (placing, journaling) = self.journaling(room, object);
        journal.append((placing, place_before), journaling);
    }

    fn journaling(self, room: JournalRoom, (object, share): (Vec<u8>, Option<Share>)) -> (ObjectPlacing, Journaling) {
        let (objects, sender, object) = (Arc::clone(&self.objects), Arc::clone(&self.known.sender), Arc::new(object));
        let (to_journal, placed) = bounded(1);
        let uids = self.known.uids().map(str::to_owned);
        let placing = ObjectPlacing { objects, uids, object: Arc::clone(&object), to_journal };
        let on_journaled: OnJournaled = Box::new(move |entry| {
            let _until_written = share;
            // Without an answer it got no place.
            let placed = placed.recv().unwrap_or_else(|_| Err(not_placed()));
            self.enter_journaled(placed, entry);
        });
        (placing, Journaling { name_number: 0, sender, object, room, on_journaled })
    }

    /// Takes an object to the index that has its place and its entry.
    fn enter_journaled(
        self,
        placed: Result<Placed, store::Error>,
        entry: Result<(JournalEntryId, JournalHold), store::Error>,
    ) {
        match (placed, entry) {
            (Ok(placed), Ok((entry, hold))) => self.enter(placed, Some((entry, Some(hold)))),
            (Ok(placed), Err(error)) => drop(self.done.send(Ok((placed, Err(error.into()), None)))),
            (Err(error), Ok((entry, hold))) => {
                let writer = self.storage.writer.clone();
                writer.pass_entry_over(entry, move || {
                    drop(hold);
                    self.fail(error);
                });
            }
            (Err(_), Err(error)) => self.fail(error),
        }
    }

    /// Queues the record of an object that has its place.
    fn enter(self, placed: Placed, journaled: Option<(JournalEntryId, Option<JournalHold>)>) {
        let Self { known, storage, done, .. } = self;
        let (location, compared) = (placed.location.clone(), compared(placed.contents));
        let (journaled, hold) = journaled.unzip();
        let received = Received { journaled, ..known.into_received(location, compared, storage.policy) };
        let on_done = move |stored: Result<Stored, db::Error>| {
            let _ = done.send(Ok((placed, stored.map_err(Into::into), hold.flatten())));
        };
        storage.writer.store(received, Box::new(on_done));
    }

    fn fail(self, error: store::Error) {
        drop(self.done.send(Err(error)));
    }
}

/// Stands for an object that a defect, or the end of the journal, has kept from its place.
fn not_placed() -> store::Error {
    store::Error::Object { step: "written", source: std::io::ErrorKind::BrokenPipe.into() }
}

fn compared(contents: NameOutcome) -> Compared {
    match contents {
        NameOutcome::New => Compared::Nothing,
        NameOutcome::Same => Compared::Same,
        NameOutcome::Other => Compared::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::peer::CountedAs;
    use crate::shares::{MEMORY_BYTES, Shares};
    use crate::store::Options;
    use crate::telemetry::metrics;

    // An object that is written before it is complete does not go into the journal, and is flushed
    // by itself. The senders of a load balancer are one peer.
    #[tokio::test]
    async fn hundreds_of_small_objects_of_one_peer_stay_in_memory_until_they_are_complete() {
        let directory = tempfile::tempdir().unwrap();
        let objects = Arc::new(Objects::open(&Options::new(directory.path().join("objects"))).unwrap());
        let (under_way, peer) = (Arc::new(UnderWay::default()), Arc::new(CountedAs::address([10, 0, 0, 1].into())));
        let memory = PeerMemory::new(&Shares::new(MEMORY_BYTES, 0, &metrics::MEMORY_REFUSED), &peer);
        let mut arriving = Vec::new();
        for _ in 0..200 {
            let mut sink = FileSink::new(&objects, &under_way, vec![0; 400], &memory);
            for fragment in vec![0; 30_000].chunks(4_000) {
                sink.accept(fragment).await.unwrap();
            }
            arriving.push(sink);
        }
        assert!(arriving.iter().all(|sink| matches!(sink.writing, WriteState::NotBegun)));
    }

    // Without memory an object is written in small batches, and with little of it in larger ones.
    #[tokio::test]
    async fn a_peer_without_memory_left_has_its_object_written_as_it_comes() {
        let directory = tempfile::tempdir().unwrap();
        let objects = Arc::new(Objects::open(&Options::new(directory.path().join("objects"))).unwrap());
        let (under_way, peer) = (Arc::new(UnderWay::default()), Arc::new(CountedAs::address([10, 0, 0, 1].into())));
        for (memory, held) in [(0, 4_000 + SMALL_BATCH), (256 << 10, 4_000 + (64 << 10))] {
            let memory = PeerMemory::new(&Shares::new(memory, 0, &metrics::MEMORY_REFUSED), &peer);
            let mut sink = FileSink::new(&objects, &under_way, Vec::new(), &memory);
            for fragment in vec![0; 600_000].chunks(4_000) {
                sink.accept(fragment).await.unwrap();
                assert!(sink.batch.len() < held, "{} of {held}", sink.batch.len());
            }
            assert!(matches!(sink.writing, WriteState::Batch(_)));
        }
    }
}
