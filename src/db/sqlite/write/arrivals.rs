//! Arrivals: new instances, instances that are known, and objects that contradict what is known.
//!
//! An arriving object is entered in three steps: find the row of its instance, decide what becomes
//! of the object ([`ArrivingObject::decide`]), and apply that.

use std::ffi::OsString;

use super::asserted_values::record_text;
use super::files::OTHER_CONTENT;
use super::rows::{File, InstanceRow, NewInstance, Result};
use super::tables::Tables;
use crate::db::arrival::SourceOfInstances;
use crate::db::rules::{ArrivingObject, Decision, FirstLocation, KeptMetadata, KnownInstance};
use crate::db::{KnownLocation, Received, StoreOutcome};
use crate::model::attribute::AttributeId;
use crate::model::location::Place;
use crate::model::record::InstanceRecord;

/// An object that was received, and the row of its instance.
struct ArrivedObject<'a> {
    record: &'a InstanceRecord,
    file: File<'a>,
    existing: InstanceRow,
    /// Kind of the place of the first location.
    first_place: Place,
}

/// Questions of a decision to the index.
struct RowQuestions<'t, 'c, 'a> {
    tables: &'t mut Tables<'c>,
    arrived: &'t ArrivedObject<'a>,
}

impl FirstLocation for RowQuestions<'_, '_, '_> {
    type Error = rusqlite::Error;

    fn differs(&mut self) -> Result<bool> {
        let ArrivedObject { record, file, existing, .. } = self.arrived;
        self.tables.differs(existing, record, file)
    }

    fn first_is_there(&mut self) -> Result<bool> {
        self.tables.files.first_is_there(&self.arrived.existing)
    }
}

impl KnownInstance for RowQuestions<'_, '_, '_> {
    fn is_further(&mut self) -> Result<bool> {
        let ArrivedObject { file, .. } = self.arrived;
        Ok(self.tables.copies.record_at(file.directory, file.name)?.is_some())
    }

    fn has_own(&mut self) -> Result<bool> {
        self.tables.copies.has_own(&self.arrived.existing)
    }

    fn kept_metadata(&mut self) -> Result<KeptMetadata> {
        // Metadata have no file, so the UID stands for its name.
        let uid = OsString::from(self.arrived.existing.uid());
        Ok(match self.tables.copies.record_at(self.arrived.file.directory, &uid)? {
            None => KeptMetadata::Nothing,
            Some(Some(text)) if text == record_text(self.arrived.record) => KeptMetadata::Same,
            Some(_) => KeptMetadata::Other,
        })
    }
}

/// Takes an instance that was received. Also returns [`Stored::first`](crate::db::Stored::first).
pub(super) fn arrived(tables: &mut Tables<'_>, received: &Received) -> Result<(StoreOutcome, Option<KnownLocation>)> {
    let Received { record, location, checksum, sender, policy, compared, journaled: _ } = received;
    tables.origins.set(SourceOfInstances::Received(sender.clone()));
    let directory = tables.files.directory(location.place, &location.directory)?;
    let file = File {
        place: location.place,
        directory,
        name: &location.file_name,
        size: location.size,
        mtime_ms: location.mtime_ms,
        checksum: *checksum,
    };
    let Some(existing) = tables.find_instance(record.value(AttributeId::SOPInstanceUID))? else {
        let uid = record.value(AttributeId::SOPInstanceUID);
        if tables.removals.has(uid)? {
            // Whoever sends it wants it kept.
            tables.removals.lift(uid, Some((directory, file.name)))?;
        }
        tables.insert_instance(&NewInstance::alone(record, file))?;
        tables.files.note_faults(record, &file, &mut tables.changes.tally)?;
        return Ok((StoreOutcome::New, None));
    };
    let first_place = tables.files.place_of(existing.instance_group.directory)?;
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
    let decision = arriving.decide(&mut RowQuestions { tables, arrived: &arrived })?;
    let names_first = arriving.names_first(decision);
    let first = if names_first { Some(tables.files.first_location(&arrived.existing)?) } else { None };
    let outcome = match decision {
        Decision::SameFile | Decision::Known => StoreOutcome::Identical { uncompared: None },
        Decision::Undecided => {
            StoreOutcome::Identical { uncompared: first.as_ref().map(|first| first.location.clone()) }
        }
        Decision::Complete => arrived.complete(tables)?,
        Decision::KeepCopy { differs } => arrived.keep_copy(tables, differs)?,
        Decision::KeepMetadata { differs } => arrived.keep_metadata(tables, differs)?,
        Decision::Refuse => {
            tables.files.note_conflict(OTHER_CONTENT, arrived.record, &arrived.file, &mut tables.changes)?;
            StoreOutcome::KeptFirst
        }
        Decision::Replace => arrived.replace_first(tables)?,
    };
    Ok((outcome, first))
}

impl ArrivedObject<'_> {
    /// Gives the instance the object that it was without.
    fn complete(&self, tables: &mut Tables<'_>) -> Result<StoreOutcome> {
        let Self { file, existing, first_place, .. } = self;
        match first_place {
            Place::MetadataOnly => {}
            // Before the new file is marked, because it may have the same name.
            Place::InPlace | Place::Archive | Place::Managed => {
                tables.files.forget_marks(existing.instance_group.directory, &existing.file_name)?;
            }
        }
        // It may have been a further location until now.
        tables.copies.delete(file.directory, file.name)?;
        self.replace_row(tables)?;
        tables.files.forget_metadata(&existing.uid())?;
        self.note_faults(tables)?;
        Ok(StoreOutcome::Completed)
    }

    /// Keeps the object as a further location.
    fn keep_copy(&self, tables: &mut Tables<'_>, differs: bool) -> Result<StoreOutcome> {
        let Self { record, file, existing, .. } = self;
        tables.files.forget_marks(file.directory, file.name)?;
        tables.insert_copy(existing, record, file, differs)?;
        tables.files.note_invalid_uids(record, file, &mut tables.changes)?;
        self.note_faults(tables)?;
        // This object stays, so metadata are not needed.
        tables.files.forget_metadata(&existing.uid())?;
        if differs {
            tables.changes.note_conflict(OTHER_CONTENT, Some(record));
        }
        Ok(StoreOutcome::KeptCopy { differs })
    }

    /// Replaces the first location by the object, or by a description without one.
    fn replace_first(&self, tables: &mut Tables<'_>) -> Result<StoreOutcome> {
        let Self { record, file, existing, first_place } = self;
        let mut previous = Vec::new();
        // Objects of ours with the former content go with it.
        for copy in tables.copies.own(existing)? {
            tables.copies.delete(copy.directory, &copy.file_name)?;
            tables.files.forget_marks(copy.directory, &copy.file_name)?;
            // Not the new one itself.
            if (copy.directory, copy.file_name.as_os_str()) != (file.directory, file.name) {
                previous.push(copy.path);
            }
        }
        tables.copies.delete(file.directory, file.name)?;
        if *first_place == Place::Managed && !existing.lies_at(file.directory, file.name) {
            previous.extend(tables.files.first_location(existing)?.location.path());
        }
        tables.files.forget_metadata(&existing.uid())?;
        match first_place {
            // The file is still there, and the next scan sees that it has not changed.
            Place::InPlace | Place::Archive => {
                tables.origins.renew(true);
                let superseded = tables.supersede(existing, record, file, true);
                tables.origins.renew(false);
                superseded?;
            }
            Place::Managed => {
                tables.files.forget_marks(existing.instance_group.directory, &existing.file_name)?;
                self.replace_row(tables)?;
            }
            Place::MetadataOnly => self.replace_row(tables)?,
        }
        tables.files.note_conflict(OTHER_CONTENT, record, file, &mut tables.changes)?;
        self.note_faults(tables)?;
        Ok(StoreOutcome::Replaced { previous })
    }

    /// Keeps what was received without an object beside the file of the instance.
    fn keep_metadata(&self, tables: &mut Tables<'_>, differs: bool) -> Result<StoreOutcome> {
        let Self { record, file, existing, .. } = self;
        let uid = OsString::from(existing.uid());
        tables.insert_copy(existing, record, &File { name: &uid, ..*file }, differs)?;
        tables.files.note_invalid_uids(record, file, &mut tables.changes)?;
        self.note_faults(tables)?;
        if differs {
            tables.changes.note_conflict(OTHER_CONTENT, Some(record));
        }
        Ok(if differs { StoreOutcome::KeptCopy { differs } } else { StoreOutcome::Identical { uncompared: None } })
    }

    fn note_faults(&self, tables: &mut Tables<'_>) -> Result<()> {
        tables.files.note_faults(self.record, &self.file, &mut tables.changes.tally)
    }

    /// Replaces the row of the instance, which arrives again with that.
    fn replace_row(&self, tables: &mut Tables<'_>) -> Result<()> {
        tables.origins.renew(true);
        let replaced = tables.replace_instance(&self.existing, self.record, &self.file);
        tables.origins.renew(false);
        replaced.map(drop)
    }
}
