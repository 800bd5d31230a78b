//! Objects of the storage directory get their rows again: after an index was lost, or a removal was
//! undone.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::sync::mpsc;

use crate::db::open::WriterHandle;
use crate::db::{Arrivals as _, Compared, ReceivePolicy, Received, StoreOutcome};
use crate::ingest::{Outcome, Wanted, read_file};
use crate::model::checksum::Checksum;
use crate::model::clock::unix_ms;
use crate::model::location::{Location, Place};
use crate::model::record::InstanceRecord;

/// An object that was read.
pub(super) struct ReadObject {
    pub(super) record: Box<InstanceRecord>,
    pub(super) location: Location,
    /// The checksum of its data set, if the index knew it once.
    pub(super) checksum: Option<Checksum>,
}

/// Reads an object, or says why it cannot be indexed.
pub(super) fn read(place: Place, directory: &Path, name: &OsStr, wanted: &Wanted) -> Result<ReadObject, String> {
    let in_words = |error: std::io::Error| error.to_string();
    let file = File::open(directory.join(name)).map_err(in_words)?;
    let metadata = file.metadata().map_err(in_words)?;
    let record = match read_file(&file, wanted) {
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
    let mut left: Vec<_> = found.into_iter().map(|object| (object, Compared::Nothing)).collect();
    while !left.is_empty() {
        let (done, outcomes) = mpsc::channel();
        let mut sent = Vec::new();
        for (object, compared) in left.drain(..) {
            let received = Received {
                policy: ReceivePolicy::default(),
                compared,
                checksum: object.checksum,
                ..Received::new(object.record.clone(), object.location.clone())
            };
            let done = done.clone();
            let number = sent.len();
            sent.push(Some(object));
            // The receiver is there until all have answered.
            writer.store(received, Box::new(move |stored| drop(done.send((number, stored)))));
        }
        drop(done);
        let mut again = Vec::new();
        for (number, stored) in outcomes {
            if let StoreOutcome::Identical { uncompared: Some(_) } = stored?.outcome {
                // The node keeps a second object of an instance only if the two differ.
                again.push(number);
            }
        }
        for number in again {
            if let Some(object) = sent.get_mut(number).and_then(Option::take) {
                left.push((object, Compared::FirstIsOther));
            }
        }
    }
    Ok(())
}
