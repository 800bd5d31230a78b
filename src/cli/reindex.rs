//! Objects of the storage directory get their rows again: after an index was lost, or a removal was
//! undone.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use crate::db::open::WriterHandle;
use crate::db::{self, Arrivals as _, Compared, ReceivePolicy, Received, ScannedDirectory, StoreOutcome, Stored};
use crate::ingest::{Outcome, Wanted, read_file_of_length};
use crate::model::attribute::AttributeId;
use crate::model::checksum::Checksum;
use crate::model::clock::unix_ms;
use crate::model::location::{Location, Place};
use crate::model::record::InstanceRecord;

/// Most objects that wait for the writer. Larger: more memory, some 3 KB for each. Smaller: the
/// writer commits before the next ones are there.
const SENT_OBJECTS: usize = 2048;

/// Length of a queue of the writer that has room for them.
pub(super) const QUEUE_LENGTH: usize = 2 * SENT_OBJECTS;

/// An object that was read.
pub(super) struct ReadObject {
    pub(super) record: Box<InstanceRecord>,
    pub(super) location: Location,
    /// The checksum of its data set, if the index knew it once.
    pub(super) checksum: Option<Checksum>,
}

impl ReadObject {
    pub(super) fn sop_instance_uid(&self) -> &str {
        self.record.value(AttributeId::SOPInstanceUID)
    }

    /// When the removal began that took this object away, if an operator removed it. One that came
    /// after the removal was acknowledged: it is no longer removed.
    ///
    /// `removed` has when each instance was removed. `received_again` has when objects were last
    /// received whose files lay in their places.
    pub(super) fn removed_at(
        &self,
        removed: &HashMap<String, i64>,
        received_again: &HashMap<String, i64>,
    ) -> Option<i64> {
        let begun_ms = *removed.get(self.sop_instance_uid())?;
        let again_ms = received_again.get(self.sop_instance_uid());
        let is_removed = self.location.mtime_ms < begun_ms && again_ms.is_none_or(|again_ms| *again_ms < begun_ms);
        is_removed.then_some(begun_ms)
    }
}

/// Reads an object, or says why it cannot be indexed.
pub(super) fn read(place: Place, directory: &Path, name: &OsStr, wanted: &Wanted) -> Result<ReadObject, String> {
    let in_words = |error: std::io::Error| error.to_string();
    let file = File::open(directory.join(name)).map_err(in_words)?;
    let metadata = file.metadata().map_err(in_words)?;
    let record = match read_file_of_length(&file, metadata.len(), wanted) {
        Outcome::Instance(record) => record,
        Outcome::Incomplete { .. } => return Err("it lacks a UID".to_owned()),
        Outcome::Dicomdir => return Err("it is a DICOMDIR".to_owned()),
        Outcome::NotDicom { reason } => return Err(reason.to_owned()),
        Outcome::Damaged { fault } => return Err(fault.to_string()),
        Outcome::Unreadable { error } => return Err(error.to_string()),
    };
    let location = Location {
        place,
        directory: directory.to_owned(),
        file_name: name.to_owned(),
        size: metadata.len(),
        mtime_ms: metadata.modified().map_or(0, unix_ms),
    };
    Ok(ReadObject { record, location, checksum: None })
}

/// Stores instances, and waits until all of them are committed.
pub(super) fn store(writer: &WriterHandle, found: Vec<ReadObject>) -> anyhow::Result<()> {
    settle(writer, send(writer, compared_with_nothing(found)), &mut Vec::new())
}

/// Stores batches of instances in their order, and waits until all of them are committed. Some are
/// in the queue of the writer at a time, so that it never waits for the next one. Returns the UIDs
/// of those that the index has with other content as well.
pub(super) fn store_batches(
    writer: &WriterHandle,
    batches: impl IntoIterator<Item = Vec<ReadObject>>,
) -> anyhow::Result<Vec<String>> {
    let (mut sent, mut differing) = (VecDeque::new(), Vec::new());
    let mut objects = 0;
    for found in batches {
        objects += found.len();
        while objects > SENT_OBJECTS
            && let Some((of_oldest, oldest)) = sent.pop_front()
        {
            settle(writer, oldest, &mut differing)?;
            objects -= of_oldest;
        }
        sent.push_back((found.len(), send(writer, compared_with_nothing(found))));
    }
    sent.into_iter().try_for_each(|(_, sent)| settle(writer, sent, &mut differing))?;
    Ok(differing)
}

/// Instances in the queue of the writer.
struct SentObjects {
    /// The number of each instance, with what became of it.
    outcomes: mpsc::Receiver<(usize, Result<Stored, db::Error>)>,
    objects: Vec<Option<ReadObject>>,
}

fn compared_with_nothing(found: Vec<ReadObject>) -> impl Iterator<Item = (ReadObject, Compared)> {
    found.into_iter().map(|object| (object, Compared::Nothing))
}

fn send(writer: &WriterHandle, found: impl Iterator<Item = (ReadObject, Compared)>) -> SentObjects {
    let (done, outcomes) = mpsc::channel();
    let mut objects = Vec::new();
    for (object, compared) in found {
        let received = Received {
            policy: ReceivePolicy::default(),
            compared,
            checksum: object.checksum,
            ..Received::new(object.record.clone(), object.location.clone())
        };
        let done = done.clone();
        let number = objects.len();
        objects.push(Some(object));
        // After an error nobody waits for the others.
        writer.store(received, Box::new(move |stored| drop(done.send((number, stored)))));
    }
    SentObjects { outcomes, objects }
}

/// Drops files of received objects that are gone from the index.
pub(super) fn drop_gone(writer: &WriterHandle, directory: PathBuf, vanished: Vec<OsString>) -> anyhow::Result<()> {
    let (files, missing, returned) = (Vec::new(), Vec::new(), Vec::new());
    let place = Place::Managed;
    writer.scanned(ScannedDirectory { place, directory, files, complete: false, vanished, missing, returned })?;
    Ok(())
}

/// Waits until all instances are committed. Adds the UIDs of those that the index has with other
/// content as well.
fn settle(writer: &WriterHandle, mut sent: SentObjects, differing: &mut Vec<String>) -> anyhow::Result<()> {
    loop {
        let mut again = Vec::new();
        for (number, stored) in sent.outcomes {
            let object = sent.objects.get_mut(number).and_then(Option::take);
            match stored?.outcome {
                // The node keeps a second object of an instance only if the two differ.
                StoreOutcome::Identical { uncompared: Some(_) } => again.extend(object),
                StoreOutcome::KeptCopy { differs: true } => {
                    differing.extend(object.map(|object| object.sop_instance_uid().to_owned()));
                }
                _ => {}
            }
        }
        if again.is_empty() {
            return Ok(());
        }
        sent = send(writer, again.into_iter().map(|object| (object, Compared::FirstIsOther)));
    }
}
