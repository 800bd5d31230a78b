//! Parts that receiving needs, and the facts about an object that has arrived.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::journal::Journal;
use super::under_way::UnderWay;
use crate::db::open::WriterHandle;
use crate::db::{self, Arrivals, Compared, ReceivePolicy, Received, ReceivedFrom, Stored};
use crate::ingest::Wanted;
use crate::model::attribute::AttributeId;
use crate::model::checksum::Checksum;
use crate::model::clock::Clock;
use crate::model::location::Location;
use crate::model::record::InstanceRecord;
use crate::store::Objects;

/// Parts that receiving instances needs.
#[derive(Debug)]
pub struct Storage {
    /// The store of objects. `None` means metadata-only mode.
    pub objects: Option<Arc<Objects>>,
    /// The queue to the writer of the index.
    pub writer: WriterHandle,
    /// Policy for instances that are already known.
    pub policy: ReceivePolicy,
    /// The clock for the time of arrival.
    pub clock: Clock,
    /// The elements that are read of each object.
    pub wanted: &'static Wanted,
    /// The objects that are being stored.
    pub under_way: Arc<UnderWay>,
    /// The journal for small objects, if there is one.
    pub journal: Option<Arc<Journal>>,
}

impl Storage {
    /// Receives without a journal, by the default policy, and reads the elements of the index.
    #[must_use]
    pub fn new(objects: Option<Arc<Objects>>, writer: WriterHandle) -> Self {
        Self {
            objects,
            writer,
            policy: ReceivePolicy::default(),
            clock: Clock::System,
            wanted: Wanted::index(),
            under_way: Arc::default(),
            journal: None,
        }
    }
}

/// A complete object.
#[derive(Clone)]
pub(super) struct ReceivedObject {
    pub(super) record: Box<InstanceRecord>,
    pub(super) sender: Arc<ReceivedFrom>,
    pub(super) checksum: Option<Checksum>,
}

impl ReceivedObject {
    /// Study, Series and SOP Instance UID.
    pub(super) fn uids(&self) -> [&str; 3] {
        uids_of(&self.record)
    }

    /// Makes what the index takes of it.
    pub(super) fn into_received(self, location: Location, compared: Compared, policy: ReceivePolicy) -> Received {
        let Self { record, sender, checksum } = self;
        Received { record, location, checksum, sender, policy, compared, journaled: None }
    }
}

/// Study, Series and SOP Instance UID.
pub(super) fn uids_of(record: &InstanceRecord) -> [&str; 3] {
    [AttributeId::StudyInstanceUID, AttributeId::SeriesInstanceUID, AttributeId::SOPInstanceUID]
        .map(|id| record.value(id))
}

impl Storage {
    /// Queues the record, and waits until it is committed.
    ///
    /// # Errors
    /// Fails with the error of the index: see [`Arrivals::store`].
    pub(super) async fn commit(
        &self,
        known: ReceivedObject,
        location: Location,
        compared: Compared,
    ) -> Result<Stored, db::Error> {
        let (sender, stored) = oneshot::channel();
        let on_done = move |stored| {
            // If the association was cut off, nobody waits any more. The row is committed all the
            // same.
            let _ = sender.send(stored);
        };
        self.writer.store(known.into_received(location, compared, self.policy), Box::new(on_done));
        stored.await.unwrap_or_else(|_| Err(db::Error::WriterStopped("no answer".into())))
    }
}
