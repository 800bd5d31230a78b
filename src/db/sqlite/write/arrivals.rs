//! Instances that were received: new ones, those that are known already, and those that contradict what is known.

use std::ffi::OsString;

use rusqlite::{OptionalExtension, params};

use super::super::sql_values::PathValue;
use super::asserted_values::record_text;
use super::files::{File, OTHER_CONTENT};
use super::instances::Existing;
use super::origin::SourceOfInstances;
use super::{Batch, Result};
use crate::db::{Compared, DuplicatePolicy, KnownLocation, KnownPolicy, ReceivePolicy, Received, StoreOutcome};
use crate::model::attribute::AttributeId;
use crate::model::location::Place;
use crate::model::record::InstanceRecord;

/// An object that was received, and the row of its instance.
struct Arriving<'a> {
    record: &'a InstanceRecord,
    file: File<'a>,
    compared: Compared,
    existing: Existing,
    /// Where the index says that it lies.
    first_place: Place,
    /// Whether the index names the very file.
    same_path: bool,
}

impl Arriving<'_> {
    /// Whether the index names no object, or none that is there: then this one takes its place.
    fn object_was_missing(&self) -> bool {
        match self.file.place {
            Place::MetadataOnly => false,
            Place::InPlace | Place::Archive => self.first_place == Place::MetadataOnly,
            Place::Managed => {
                self.first_place == Place::MetadataOnly
                    || match self.compared {
                        // Where its object should have been, there was none.
                        Compared::Nothing | Compared::Other => self.same_path,
                        Compared::FirstIsGone => !self.same_path,
                        Compared::Same | Compared::FirstIsSame | Compared::FirstIsOther => false,
                    }
            }
        }
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
        let same_path = existing.lies_at(directory, file.name);
        let arriving = Arriving { record, file, compared: *compared, existing, first_place, same_path };
        match arriving.file.place {
            _ if arriving.object_was_missing() => self.complete(&arriving).map(|outcome| (outcome, None)),
            Place::MetadataOnly => self.metadata_arrived(&arriving, policy.duplicates).map(|outcome| (outcome, None)),
            Place::InPlace | Place::Archive | Place::Managed => self.object_arrived(&arriving, *policy),
        }
    }

    /// Gives an instance the object that it was without.
    fn complete(&mut self, arriving: &Arriving<'_>) -> Result<StoreOutcome> {
        let Arriving { record, file, existing, first_place, .. } = arriving;
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

    fn object_arrived(
        &mut self,
        arriving: &Arriving<'_>,
        policy: ReceivePolicy,
    ) -> Result<(StoreOutcome, Option<KnownLocation>)> {
        let Arriving { file, existing, first_place, same_path, compared, .. } = arriving;
        let known = StoreOutcome::Identical { uncompared: None };
        if *compared == Compared::Same && (*same_path || self.is_copy(file.directory, file.name)?) {
            // The very file that the index names, as first location or as a further one.
            return Ok((known, None));
        }
        let first = match (file.place, first_place) {
            (Place::Managed, Place::InPlace | Place::Archive | Place::Managed) if !same_path => {
                Some(self.known_location(existing)?)
            }
            (Place::Managed | Place::InPlace | Place::Archive | Place::MetadataOnly, _) => None,
        };
        let Some(differs) = self.differs_from_first(arriving)? else {
            let uncompared = first.as_ref().map(|first| first.location.clone());
            return Ok((StoreOutcome::Identical { uncompared }, first));
        };
        let in_place = matches!(first_place, Place::InPlace | Place::Archive);
        let outcome = match (differs, policy.duplicates, policy.known) {
            (false, _, KnownPolicy::KeepOwn) if in_place => {
                if self.first_is_there(existing)? {
                    self.keep_copy(arriving, false)?
                } else {
                    return Ok((self.complete(arriving)?, None));
                }
            }
            (false, _, KnownPolicy::KeepOwn | KnownPolicy::TrustArchive) => known,
            (true, DuplicatePolicy::KeepBoth, _) => self.keep_copy(arriving, true)?,
            (true, DuplicatePolicy::KeepFirst, _) => self.refuse(arriving)?,
            (true, DuplicatePolicy::Replace, _) => return Ok((self.replace_first(arriving)?, None)),
        };
        Ok((outcome, first))
    }

    /// Whether an object differs from the one that the index names; `None` where only the bytes can tell.
    fn differs_from_first(&mut self, arriving: &Arriving<'_>) -> Result<Option<bool>> {
        let Arriving { record, file, existing, first_place, same_path, compared } = arriving;
        if *compared == Compared::FirstIsOther || self.differs(existing, record, file)? {
            return Ok(Some(true));
        }
        if *compared == Compared::FirstIsSame || *same_path {
            return Ok(Some(false));
        }
        if let (Some(first), Some(own)) = (existing.checksum, file.checksum) {
            return Ok(Some(first != own));
        }
        // Of names in one directory it was compared with all before its own.
        let was_compared = *first_place == Place::Managed && existing.instance_group.directory == file.directory;
        Ok(match compared {
            Compared::Other if was_compared => Some(true),
            // There is nothing to compare with.
            _ if file.place != Place::Managed || *first_place == Place::MetadataOnly => Some(false),
            _ => None,
        })
    }

    /// Keeps an object as a further location.
    fn keep_copy(&mut self, arriving: &Arriving<'_>, differs: bool) -> Result<StoreOutcome> {
        let Arriving { record, file, existing, .. } = arriving;
        self.forget_marks(file.directory, file.name)?;
        self.insert_copy(existing, record, file, differs)?;
        self.note_invalid_uids(record, file)?;
        self.note_faults_if_any(record, file)?;
        // Here is an object that does not go.
        self.forget_metadata(&existing.uid())?;
        self.changes.tally.conflicts += u64::from(differs);
        Ok(StoreOutcome::KeptCopy { differs })
    }

    fn refuse(&mut self, arriving: &Arriving<'_>) -> Result<StoreOutcome> {
        self.note_conflict(OTHER_CONTENT, arriving.record, &arriving.file)?;
        Ok(StoreOutcome::KeptFirst)
    }

    /// Takes an object, or a description without one, in place of the first.
    fn replace_first(&mut self, arriving: &Arriving<'_>) -> Result<StoreOutcome> {
        let Arriving { record, file, existing, first_place, same_path, .. } = arriving;
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
        if *first_place == Place::Managed && !same_path {
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

    /// A description of an object that is not kept.
    fn metadata_arrived(&mut self, arriving: &Arriving<'_>, policy: DuplicatePolicy) -> Result<StoreOutcome> {
        let Arriving { record, file, existing, first_place, .. } = arriving;
        let known = StoreOutcome::Identical { uncompared: None };
        let differs = self.differs_from_first(arriving)?.unwrap_or(false);
        if differs && policy == DuplicatePolicy::Replace {
            return self.replace_first(arriving);
        }
        // It is kept for when the file goes, unless there is an object that does not go. It has no file, and so no name.
        let uid = OsString::from(existing.uid());
        let received = File { name: &uid, ..*file };
        let kept: Option<Option<String>> = self
            .statement("SELECT record FROM copy WHERE directory = ?1 AND file_name = ?2")?
            .query_row(params![file.directory, PathValue(&uid)], |row| row.get(0))
            .optional()?;
        let may_be_kept = match first_place {
            Place::MetadataOnly | Place::Managed => false,
            Place::InPlace | Place::Archive => {
                (!differs || policy == DuplicatePolicy::KeepBoth) && !self.has_own_copy(existing)?
            }
        };
        match kept {
            None if may_be_kept => {
                self.insert_copy(existing, record, &received, differs)?;
                self.note_invalid_uids(record, file)?;
                self.note_faults_if_any(record, file)?;
                self.changes.tally.conflicts += u64::from(differs);
                Ok(if differs { StoreOutcome::KeptCopy { differs } } else { known })
            }
            // It has come before.
            Some(Some(text)) if text == record_text(record) => Ok(known),
            Some(_) | None if differs => self.refuse(arriving),
            Some(_) | None => Ok(known),
        }
    }

    pub(super) fn note_faults_if_any(&mut self, record: &InstanceRecord, file: &File<'_>) -> Result<()> {
        if record.faults().is_empty() { Ok(()) } else { self.note_faults(record, file) }
    }

    fn replace_with_received(&mut self, existing: &Existing, record: &InstanceRecord, file: &File<'_>) -> Result<()> {
        self.origin.renew(true);
        let replaced = self.replace_instance(existing, record, file);
        self.origin.renew(false);
        replaced.map(drop)
    }
}
