//! What operators remove: rows go, and a note stays so that no scan brings them back.

use super::asserted_values::record_text;
use super::removals::{FOR_TRASH, STAYS};
use super::rows::{File, InstanceRow, Result};
use super::tables::Tables;
use crate::db::{NotIndexed, REMOVED, RemovedCounts};
use crate::model::location::Place;

impl Tables<'_> {
    /// Removes an instance with all its locations. Returns what was removed, or nothing if the
    /// index does not know the instance.
    pub(super) fn remove_instance(&mut self, uid: &str, removal: i64, takes_objects: bool) -> Result<RemovedCounts> {
        let mut counts = RemovedCounts::default();
        let Some(existing) = self.find_instance(uid)? else { return Ok(counts) };
        counts.instances = 1;
        let place = self.files.place_of(existing.instance_group.directory)?;
        let record = self.record_without_object(&existing, place)?;
        if place != Place::MetadataOnly {
            let first = self.files.first_file(&existing, place)?;
            self.note_removed(&first, uid, removal, false, takes_objects, &mut counts)?;
        }
        for copy in self.copies.of(&existing)? {
            let file = copy.as_first();
            self.copies.delete(copy.directory, &copy.file_name)?;
            if file.place != Place::MetadataOnly {
                self.note_removed(&file, uid, removal, copy.differs, takes_objects, &mut counts)?;
            }
        }
        self.delete_instance(&existing)?;
        self.files.forget_refused(uid)?;
        self.files.forget_metadata(uid)?;
        self.removals.insert_instance(uid, removal, record.as_deref())?;
        Ok(counts)
    }

    /// All that is known of an instance that was received without its object.
    fn record_without_object(&self, existing: &InstanceRow, place: Place) -> Result<Option<String>> {
        match place {
            Place::MetadataOnly => Ok(Some(record_text(&self.whole_record_of(existing)?))),
            Place::InPlace | Place::Managed | Place::Archive => Ok(None),
        }
    }

    fn note_removed(
        &self,
        file: &File<'_>,
        uid: &str,
        removal: i64,
        differs: bool,
        takes_objects: bool,
        counts: &mut RemovedCounts,
    ) -> Result<()> {
        let state = match file.place {
            Place::Managed => {
                counts.objects += 1;
                counts.object_bytes += file.size;
                if takes_objects { FOR_TRASH } else { STAYS }
            }
            Place::InPlace | Place::Archive | Place::MetadataOnly => {
                counts.in_place += 1;
                STAYS
            }
        };
        self.files.forget_marks(file.directory, file.name)?;
        self.files.note_unindexed(file, NotIndexed::Skipped, REMOVED, "")?;
        self.removals.insert_file(file, uid, removal, differs, state)
    }

    /// Notes a file that a scan found, and whose instance is removed.
    pub(super) fn withhold(&mut self, uid: &str, file: &File<'_>) -> Result<()> {
        let Some(removal) = self.removals.removal_of(uid)? else { return Ok(()) };
        self.files.forget_marks(file.directory, file.name)?;
        self.files.note_unindexed(file, NotIndexed::Skipped, REMOVED, "")?;
        self.removals.insert_file(file, uid, removal, false, STAYS)
    }
}
