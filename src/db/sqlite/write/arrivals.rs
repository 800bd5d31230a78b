//! Instances that were received: new ones, those that are known already, and those that contradict what is known.

use std::ffi::OsString;

use rusqlite::{OptionalExtension, params};

use super::super::sql_values::PathValue;
use super::asserted_values::record_text;
use super::batch::Batch;
use super::origins::SourceOfInstances;
use super::rows::{File, InstanceRow, OTHER_CONTENT, Result};
use crate::db::rules::{ArrivingObject, Decision, KeptMetadata, KnownInstance};
use crate::db::{KnownLocation, Received, StoreOutcome};
use crate::model::attribute::AttributeId;
use crate::model::location::Place;
use crate::model::record::InstanceRecord;

/// An object that was received, and the row of its instance.
struct ArrivedObject<'a> {
    record: &'a InstanceRecord,
    file: File<'a>,
    existing: InstanceRow,
    /// Where the index says that it lies.
    first_place: Place,
}

/// What a decision asks of the index.
struct RowQuestions<'b, 'c, 'a> {
    batch: &'b mut Batch<'c>,
    arrived: &'b ArrivedObject<'a>,
}

impl KnownInstance for RowQuestions<'_, '_, '_> {
    type Error = rusqlite::Error;

    fn is_further(&mut self) -> Result<bool> {
        self.batch.is_copy(self.arrived.file.directory, self.arrived.file.name)
    }

    fn differs(&mut self) -> Result<bool> {
        let ArrivedObject { record, file, existing, .. } = self.arrived;
        self.batch.differs(existing, record, file)
    }

    fn first_is_there(&mut self) -> Result<bool> {
        self.batch.first_is_there(&self.arrived.existing)
    }

    fn has_own(&mut self) -> Result<bool> {
        self.batch.has_own_copy(&self.arrived.existing)
    }

    fn kept_metadata(&mut self) -> Result<KeptMetadata> {
        // It has no file, and so the UID stands for its name.
        let uid = OsString::from(self.arrived.existing.uid());
        let kept: Option<Option<String>> = self
            .batch
            .statement("SELECT record FROM copy WHERE directory = ?1 AND file_name = ?2")?
            .query_row(params![self.arrived.file.directory, PathValue(&uid)], |row| row.get(0))
            .optional()?;
        Ok(match kept {
            None => KeptMetadata::Nothing,
            Some(Some(text)) if text == record_text(self.arrived.record) => KeptMetadata::Same,
            Some(_) => KeptMetadata::Other,
        })
    }
}

impl Batch<'_> {
    /// Takes an instance that was received. With [`Stored::first`](crate::db::Stored::first).
    pub(in super::super) fn arrived(&mut self, received: &Received) -> Result<(StoreOutcome, Option<KnownLocation>)> {
        let Received { record, location, checksum, sender, policy, compared } = received;
        self.origin.set(SourceOfInstances::Received(sender.clone()));
        let directory = self.directory(location.place, &location.directory)?;
        let file = File {
            place: location.place,
            directory,
            name: &location.file_name,
            size: location.size,
            mtime_ms: location.mtime_ms,
            checksum: *checksum,
        };
        let Some(existing) = self.find_instance(record.value(AttributeId::SOPInstanceUID))? else {
            self.insert_instance(record, &file, &[], false)?;
            self.note_faults_if_any(record, &file)?;
            return Ok((StoreOutcome::New, None));
        };
        let first_place = self.place_of(existing.instance_group.directory)?;
        let arriving = ArrivingObject {
            place: file.place,
            checksum: file.checksum,
            compared: *compared,
            policy: *policy,
            first_place,
            first_checksum: existing.checksum,
            is_first: existing.lies_at(directory, file.name),
            in_first_directory: existing.instance_group.directory == directory,
        };
        let arrived = ArrivedObject { record, file, existing, first_place };
        let decision = arriving.decide(&mut RowQuestions { batch: self, arrived: &arrived })?;
        let first = if arriving.names_first(decision) { Some(self.known_location(&arrived.existing)?) } else { None };
        let outcome = self.apply(decision, &arrived, first.as_ref())?;
        Ok((outcome, first))
    }

    fn apply(
        &mut self,
        decision: Decision,
        arrived: &ArrivedObject<'_>,
        first: Option<&KnownLocation>,
    ) -> Result<StoreOutcome> {
        match decision {
            Decision::SameFile | Decision::Known => Ok(StoreOutcome::Identical { uncompared: None }),
            Decision::Undecided => {
                Ok(StoreOutcome::Identical { uncompared: first.map(|first| first.location.clone()) })
            }
            Decision::Complete => self.complete(arrived),
            Decision::KeepCopy { differs } => self.keep_copy(arrived, differs),
            Decision::KeepMetadata { differs } => self.keep_metadata(arrived, differs),
            Decision::Refuse => self.refuse(arrived),
            Decision::Replace => self.replace_first(arrived),
        }
    }

    /// Gives an instance the object that it was without.
    fn complete(&mut self, arrived: &ArrivedObject<'_>) -> Result<StoreOutcome> {
        let ArrivedObject { record, file, existing, first_place } = arrived;
        match first_place {
            Place::MetadataOnly => {}
            // Before the new one is marked: it may lie under the same name.
            Place::InPlace | Place::Archive | Place::Managed => {
                self.forget_marks(existing.instance_group.directory, &existing.file_name)?;
            }
        }
        // It may have been a further location until now.
        self.delete_copy(file.directory, file.name)?;
        self.replace_with_received(existing, record, file)?;
        self.forget_metadata(&existing.uid())?;
        self.note_faults_if_any(record, file)?;
        Ok(StoreOutcome::Completed)
    }

    /// Keeps an object as a further location.
    fn keep_copy(&mut self, arrived: &ArrivedObject<'_>, differs: bool) -> Result<StoreOutcome> {
        let ArrivedObject { record, file, existing, .. } = arrived;
        self.forget_marks(file.directory, file.name)?;
        self.insert_copy(existing, record, file, differs)?;
        self.note_invalid_uids(record, file)?;
        self.note_faults_if_any(record, file)?;
        // Here is an object that does not go.
        self.forget_metadata(&existing.uid())?;
        self.changes.tally.conflicts += u64::from(differs);
        Ok(StoreOutcome::KeptCopy { differs })
    }

    fn refuse(&mut self, arrived: &ArrivedObject<'_>) -> Result<StoreOutcome> {
        self.note_conflict(OTHER_CONTENT, arrived.record, &arrived.file)?;
        Ok(StoreOutcome::KeptFirst)
    }

    /// Takes an object, or a description without one, in place of the first.
    fn replace_first(&mut self, arrived: &ArrivedObject<'_>) -> Result<StoreOutcome> {
        let ArrivedObject { record, file, existing, first_place } = arrived;
        let mut previous = Vec::new();
        // What of the former content is our own goes with it.
        for copy in self.own_copies(existing)? {
            self.delete_copy(copy.directory, &copy.file_name)?;
            self.forget_marks(copy.directory, &copy.file_name)?;
            // Not the new one itself.
            if (copy.directory, copy.file_name.as_os_str()) != (file.directory, file.name) {
                previous.push(copy.path);
            }
        }
        self.delete_copy(file.directory, file.name)?;
        if *first_place == Place::Managed && !existing.lies_at(file.directory, file.name) {
            previous.extend(self.location_of(existing)?.path());
        }
        match first_place {
            // The file is still there, and the next scan sees that it has not changed.
            Place::InPlace | Place::Archive => {
                self.forget_metadata(&existing.uid())?;
                self.origin.renew(true);
                let superseded = self.supersede(existing, record, file, true);
                self.origin.renew(false);
                superseded?;
            }
            Place::Managed => {
                self.forget_metadata(&existing.uid())?;
                self.forget_marks(existing.instance_group.directory, &existing.file_name)?;
                self.replace_with_received(existing, record, file)?;
            }
            Place::MetadataOnly => {
                self.forget_metadata(&existing.uid())?;
                self.replace_with_received(existing, record, file)?;
            }
        }
        self.note_conflict(OTHER_CONTENT, record, file)?;
        self.note_faults_if_any(record, file)?;
        Ok(StoreOutcome::Replaced { previous })
    }

    /// Keeps what was received without an object.
    fn keep_metadata(&mut self, arrived: &ArrivedObject<'_>, differs: bool) -> Result<StoreOutcome> {
        let ArrivedObject { record, file, existing, .. } = arrived;
        let uid = OsString::from(existing.uid());
        self.insert_copy(existing, record, &File { name: &uid, ..*file }, differs)?;
        self.note_invalid_uids(record, file)?;
        self.note_faults_if_any(record, file)?;
        self.changes.tally.conflicts += u64::from(differs);
        Ok(if differs { StoreOutcome::KeptCopy { differs } } else { StoreOutcome::Identical { uncompared: None } })
    }

    pub(super) fn note_faults_if_any(&mut self, record: &InstanceRecord, file: &File<'_>) -> Result<()> {
        if record.faults().is_empty() { Ok(()) } else { self.note_faults(record, file) }
    }

    fn replace_with_received(
        &mut self,
        existing: &InstanceRow,
        record: &InstanceRecord,
        file: &File<'_>,
    ) -> Result<()> {
        self.origin.renew(true);
        let replaced = self.replace_instance(existing, record, file);
        self.origin.renew(false);
        replaced.map(drop)
    }
}
