//! Writes an arriving object to a file.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::error::ReceiveError;
use super::journal::{Journal, JournalHold, JournalRoom, Journaling, OnJournaled};
use super::storage::{ReceivedObject, Storage};
use super::under_way::UnderWay;
use crate::db::{self, Arrivals, Compared, JournalEntryId, Received, ReceivedFrom, Stored};
use crate::model::checksum::ChecksumBuilder;
use crate::shares::{PeerMemory, Share};
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

/// Way in which an object becomes durable.
enum DurableBy {
    /// Its file, its directory and the log of the index are flushed.
    Itself,
    /// The journal has room for it.
    Journal(Arc<Journal>, JournalRoom),
    /// The journal has it, as this entry.
    Entry(JournalEntryId),
}

impl DurableBy {
    fn of(storage: &Storage, object: &[u8], sender: &ReceivedFrom) -> Self {
        match storage.journal.as_ref().and_then(|journal| Some((journal, journal.room_for(object.len(), sender)?))) {
            Some((journal, room)) => Self::Journal(Arc::clone(journal), room),
            None => Self::Itself,
        }
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

    /// Writes the rest, gives the object its place and queues the record, all on one thread. Waits
    /// until the object is durable and the row is committed.
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
        let storage = Arc::clone(storage);
        let (done, kept) = oneshot::channel();
        let writing = under_way.begin(memory.peer(), move || {
            let by = match (entry, &incoming) {
                (Some(entry), _) => DurableBy::Entry(entry),
                (None, None) => DurableBy::of(&storage, &batch, &known.sender),
                (None, Some(_)) => DurableBy::Itself,
            };
            let [study, series, instance] = known.uids();
            let placed = match (incoming, &by) {
                (Some(mut incoming), _) => {
                    incoming.write(&batch).and_then(|()| incoming.place(study, series, instance))
                }
                (None, DurableBy::Itself) => objects.store(&[&batch], study, series, instance),
                (None, DurableBy::Journal(..) | DurableBy::Entry(_)) => {
                    objects.store_for_journal(&batch, study, series, instance)
                }
            };
            match placed {
                Ok(placed) => PlacedObject { placed, known, storage, done }.make_durable(by, batch, share),
                Err(error) => drop(done.send(Err(error))),
            }
        });
        drop(writing.await);
        Ok(kept.await.map_err(|_| ReceiveError::ThreadEnded)??)
    }
}

/// An object in its place, on its way to the index.
struct PlacedObject {
    placed: Placed,
    known: ReceivedObject,
    storage: Arc<Storage>,
    done: oneshot::Sender<Result<KeptObject, store::Error>>,
}

impl PlacedObject {
    /// Makes it durable if it is not yet, and queues its record.
    fn make_durable(self, by: DurableBy, object: Vec<u8>, share: Option<Share>) {
        match by {
            DurableBy::Itself => self.enter(None, None),
            DurableBy::Entry(entry) => self.enter(Some(entry), None),
            DurableBy::Journal(journal, room) => {
                let (name_number, sender) = (self.placed.name_number, Arc::clone(&self.known.sender));
                let on_journaled: OnJournaled = Box::new(move |journaled| {
                    let _until_written = share;
                    match journaled {
                        Ok((entry, hold)) => self.enter(Some(entry), Some(hold)),
                        Err(error) => drop(self.done.send(Ok((self.placed, Err(error.into()), None)))),
                    }
                });
                journal.append(Journaling { name_number, sender, object, room, on_journaled });
            }
        }
    }

    fn enter(self, journaled: Option<JournalEntryId>, hold: Option<JournalHold>) {
        let Self { placed, known, storage, done } = self;
        let (location, compared) = (placed.location.clone(), compared(placed.contents));
        let received = Received { journaled, ..known.into_received(location, compared, storage.policy) };
        let on_done = move |stored: Result<Stored, db::Error>| {
            let _ = done.send(Ok((placed, stored.map_err(Into::into), hold)));
        };
        storage.writer.store(received, Box::new(on_done));
    }
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
