//! Writes an arriving object to a file.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::error::ReceiveError;
use super::storage::{ReceivedObject, Storage};
use super::under_way::UnderWay;
use crate::db::{self, Arrivals, Compared, Stored};
use crate::model::attribute::AttributeId;
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
}

enum WriteState {
    /// Nothing is written yet. An object that fits one batch is written by one thread when it is
    /// complete.
    NotBegun,
    /// A thread writes a batch, and then returns its memory.
    Batch(JoinHandle<Result<(Incoming, Vec<u8>), store::Error>>),
}

impl FileSink {
    pub(super) fn new(objects: &Arc<Objects>, under_way: &Arc<UnderWay>, header: Vec<u8>, memory: &PeerMemory) -> Self {
        Self {
            objects: Arc::clone(objects),
            under_way: Arc::clone(under_way),
            batch: header,
            checksum: ChecksumBuilder::default(),
            memory: memory.clone(),
            share: None,
            writing: WriteState::NotBegun,
        }
    }

    pub(super) async fn accept(&mut self, fragment: &[u8]) -> Result<(), ReceiveError> {
        self.checksum.update(fragment);
        self.batch.extend_from_slice(fragment);
        if self.batch.len() < SMALL_BATCH {
            return Ok(());
        }
        if self.share.is_none() {
            // One batch is being filled, and one is being written.
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
        self.writing = WriteState::Batch(writing.await);
        Ok(())
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
    /// until the row is committed.
    pub(super) async fn keep(
        mut self,
        storage: &Arc<Storage>,
        known: ReceivedObject,
    ) -> Result<(Placed, Result<Stored, db::Error>), ReceiveError> {
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
                    let on_done = move |stored| {
                        let _ = sender.send(Ok((placed, stored)));
                    };
                    storage.writer.store(received, Box::new(on_done));
                }
            }
        });
        drop(writing.await);
        Ok(kept.await.map_err(|_| ReceiveError::ThreadEnded)??)
    }
}

fn compared(contents: NameOutcome) -> Compared {
    match contents {
        NameOutcome::New => Compared::Nothing,
        NameOutcome::Same => Compared::Same,
        NameOutcome::Other => Compared::Other,
    }
}
