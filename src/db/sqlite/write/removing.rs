//! Removal by an operator: rows are deleted, and a note stays so that no scan adds them again.

use super::super::packing::UidSuffix;
use super::asserted_values::record_text;
use super::rows::{File, InstanceRow, Result};
use super::tables::Tables;
use crate::db::removals::{FOR_TRASH, STAYS};
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
        self.take_out(&existing, |tables, file, differs| {
            tables.note_removed(file, uid, removal, differs, takes_objects, &mut counts)
        })?;
        self.removals.insert_instance(uid, removal, record.as_deref())?;
        Ok(counts)
    }

    /// Drops a study with all that is noted of its files. Unlike a removal, it leaves no note: a
    /// scan brings the study back.
    pub(super) fn drop_study(&mut self, study_instance_uid: &str) -> Result<()> {
        for group in self.groups_of_study(study_instance_uid)? {
            for uid in self.uids_of_group(group)? {
                if let Some(existing) = self.find_instance(&uid)? {
                    self.take_out(&existing, |_, _, _| Ok(()))?;
                }
            }
        }
        Ok(())
    }

    /// The instance groups of a study, in the order in which they came.
    pub(super) fn groups_of_study(&self, study_instance_uid: &str) -> Result<Vec<i64>> {
        self.connection
            .prepare_cached(
                "SELECT h.id FROM study s JOIN study_series e ON e.study = s.id JOIN instance_group h ON h.series = e.id \
                 WHERE s.study_instance_uid = ?1 ORDER BY h.id",
            )?
            .query_map([study_instance_uid], |row| row.get(0))?
            .collect()
    }

    /// The SOP Instance UIDs of an instance group, in one order for each index.
    pub(super) fn uids_of_group(&mut self, group: i64) -> Result<Vec<String>> {
        let Some(group) = self.groups.by_id(group)? else { return Ok(Vec::new()) };
        self.connection
            .prepare_cached("SELECT uid_suffix FROM instance WHERE instance_group = ?1 ORDER BY uid_suffix")?
            .query_map([group.id], |row| {
                let mut uid = String::new();
                UidSuffix::unpack(row.get_ref(0)?, &group.uid_prefix, &mut uid)?;
                Ok(uid)
            })?
            .collect()
    }

    /// Takes an instance out of the index, with what is noted of its files. Calls `on_file` with
    /// each of them, and whether it differs from the first one.
    fn take_out(
        &mut self,
        existing: &InstanceRow,
        mut on_file: impl FnMut(&Self, &File<'_>, bool) -> Result<()>,
    ) -> Result<()> {
        let place = self.files.place_of(existing.instance_group.directory)?;
        if place != Place::MetadataOnly {
            let first = self.files.first_file(existing, place)?;
            self.files.forget_marks(first.directory, first.name)?;
            on_file(self, &first, false)?;
        }
        for copy in self.copies.of(existing)? {
            let file = copy.as_first();
            self.copies.delete(copy.directory, &copy.file_name)?;
            if file.place != Place::MetadataOnly {
                self.files.forget_marks(file.directory, file.name)?;
                on_file(self, &file, copy.differs)?;
            }
        }
        self.delete_instance(existing)?;
        let uid = existing.uid();
        self.files.forget_refused(&uid)?;
        self.files.forget_metadata(&uid)
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
