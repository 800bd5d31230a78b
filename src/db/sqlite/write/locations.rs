//! The locations of instances: which is the first one, and which are further ones.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};

use super::super::packing::UidSuffix;
use super::super::sql_values::to_u64;
use super::asserted_values::{record_of_text, record_text};
use super::copies::FurtherFile;
use super::rows::{File, InstanceRow, NewInstance, Result};
use super::tables::Tables;
use crate::db::rules::{ObjectContent, differs_from_new_first, is_same_object, sizes_comparable};
use crate::model::location::Place;
use crate::model::record::InstanceRecord;

/// The instances of a directory. They are read when somebody first asks for them.
pub(super) struct DirectoryRows {
    pub(super) directory: i64,
    /// File name to SOP Instance UID.
    instances: Option<HashMap<OsString, String>>,
}

impl DirectoryRows {
    pub(super) const fn new(directory: i64) -> Self {
        Self { directory, instances: None }
    }

    /// The instance that has its first location in this file.
    fn first_at(&mut self, tables: &mut Tables<'_>, name: &OsStr) -> Result<Option<InstanceRow>> {
        let directory = self.directory;
        let instances = match &mut self.instances {
            Some(instances) => instances,
            unread => unread.insert(tables.instances_in(directory)?),
        };
        let Some(uid) = instances.get(name) else { return Ok(None) };
        Ok(tables.find_instance(uid)?.filter(|existing| existing.lies_at(directory, name)))
    }

    fn insert(&mut self, directory: i64, name: OsString, uid: String) {
        if self.directory == directory
            && let Some(instances) = &mut self.instances
        {
            instances.insert(name, uid);
        }
    }
}

/// Content by which an object in a file is compared.
fn content_of<'a>(record: &'a InstanceRecord, file: &File<'_>) -> ObjectContent<'a> {
    ObjectContent { record, place: file.place, size: file.size, checksum: file.checksum }
}

/// Record that the index keeps for a further location. `None` if the first one has the same.
pub(super) fn record_beside(record: &InstanceRecord, first: &InstanceRecord) -> Option<String> {
    (!is_same_object(record, first)).then(|| record_text(record))
}

impl Tables<'_> {
    /// Whether a record differs from the first location of an instance. The pixel data are not
    /// compared, but what the index keeps, and the size of the file.
    pub(super) fn differs(&mut self, existing: &InstanceRow, record: &InstanceRecord, file: &File<'_>) -> Result<bool> {
        let first = self.instances.record_of(existing)?;
        let place = self.files.place_of(existing.instance_group.directory)?;
        Ok(!is_same_object(&first, record)
            || (sizes_comparable(place, file.place) && to_u64(existing.size) != file.size))
    }

    /// Whether the row of a file equals what was just read.
    pub(super) fn is_as_indexed(
        &mut self,
        existing: &InstanceRow,
        record: &InstanceRecord,
        file: &File<'_>,
    ) -> Result<bool> {
        let lies_there = existing.lies_at(file.directory, file.name);
        if lies_there && !self.groups.knows_declared(&existing.instance_group) {
            return Ok(false);
        }
        let first = self.instances.record_of(existing)?;
        if lies_there {
            return Ok(to_u64(existing.size) == file.size && is_same_object(&first, record));
        }
        let copies = self.copies.of(existing)?;
        let is_here = |copy: &&FurtherFile| copy.directory == file.directory && copy.file_name == file.name;
        let Some(copy) = copies.iter().find(is_here) else { return Ok(false) };
        let content = copy.record.as_deref().map_or(Ok(first), record_of_text)?;
        Ok(copy.content(&content).size == file.size && is_same_object(&content, record))
    }

    /// Replaces the row of an instance. Further locations that are gone and held the same are
    /// dropped.
    pub(super) fn replace_instance(
        &mut self,
        existing: &InstanceRow,
        record: &InstanceRecord,
        file: &File<'_>,
    ) -> Result<(i64, UidSuffix)> {
        let former = if self.copies.has_any(existing)? { Some(self.instances.record_of(existing)?) } else { None };
        self.delete_instance(existing)?;
        let current = self.origins.begin_replacing(existing.instance_group.arrival)?;
        let (instance_group, suffix) = self.insert_instance(&NewInstance::alone(record, *file))?;
        self.origins.end_replacing(current);
        if let Some(former) = former {
            self.compare_copies((existing, &former), (instance_group, &suffix), record, file)?;
        }
        Ok((instance_group, suffix))
    }

    /// Compares the further locations of an instance with its new first location. One that is gone
    /// and held the same has moved there.
    fn compare_copies(
        &mut self,
        (existing, was): (&InstanceRow, &InstanceRecord),
        row: (i64, &UidSuffix),
        record: &InstanceRecord,
        file: &File<'_>,
    ) -> Result<()> {
        let first = content_of(record, file);
        let former_place = self.files.place_of(existing.instance_group.directory)?;
        let former = existing.content(was, former_place);
        for mut copy in self.copies.of(existing)? {
            let own = copy.record.as_deref().map(record_of_text).transpose()?;
            let content = copy.content(own.as_ref().unwrap_or(was));
            let text = record_beside(content.record, record);
            copy.differs = differs_from_new_first(&content, copy.differs, &former, &first);
            if copy.location().is_spare() && file.place != Place::MetadataOnly {
                self.drop_spare(&copy)?;
            } else {
                self.copies.move_to(row, &copy, copy.differs, text.as_deref())?;
            }
        }
        Ok(())
    }

    /// Notes a further location of an instance. Returns whether it differs from the first one.
    /// `by_bytes`: the bytes are known to differ.
    pub(super) fn insert_copy(
        &mut self,
        existing: &InstanceRow,
        record: &InstanceRecord,
        file: &File<'_>,
        by_bytes: bool,
    ) -> Result<bool> {
        let first_record = self.instances.record_of(existing)?;
        let first = existing.content(&first_record, self.files.place_of(existing.instance_group.directory)?);
        let differs = by_bytes || content_of(record, file).differs_from(&first);
        let mut text = record_beside(record, &first_record);
        if record.has_declared() && text.is_none() && self.groups.declares_otherwise(existing, record)? {
            // Declared values of a further file are not kept. It is read again when it becomes the
            // first one.
            text = Some(record_text(record));
        }
        self.write_copy((existing.instance_group.id, &existing.suffix), file, differs, text.as_deref())?;
        Ok(differs)
    }

    fn write_copy(
        &mut self,
        row: (i64, &UidSuffix),
        file: &File<'_>,
        differs: bool,
        record: Option<&str>,
    ) -> Result<()> {
        self.copies.write(row, file, differs, record)?;
        self.origins.touch(row.0);
        Ok(())
    }

    /// Replaces the row of an instance, and keeps its location as a further one. Returns whether
    /// that differs. It does if its bytes are known to (`by_bytes`).
    pub(super) fn supersede(
        &mut self,
        existing: &InstanceRow,
        record: &InstanceRecord,
        file: &File<'_>,
        by_bytes: bool,
    ) -> Result<bool> {
        let was = self.instances.record_of(existing)?;
        let place = self.files.place_of(existing.instance_group.directory)?;
        let uid = OsString::from(existing.uid());
        let mut former = self.files.first_file(existing, place)?;
        if place == Place::MetadataOnly {
            // Metadata have no file, so the UID stands for its name.
            former.name = &uid;
        }
        let (instance_group, suffix) = self.replace_instance(existing, record, file)?;
        let (content, first) = (content_of(&was, &former), content_of(record, file));
        let differs = by_bytes || content.differs_from(&first);
        let text = record_beside(&was, record);
        self.write_copy((instance_group, &suffix), &former, differs, text.as_deref())?;
        Ok(differs)
    }

    /// Drops a file from the index: as a first location, as a further one, or as one that is not
    /// indexed. Returns whether it was a location.
    pub(super) fn remove_file(&mut self, name: &OsStr, rows: &mut DirectoryRows) -> Result<bool> {
        let directory = rows.directory;
        self.files.forget_marks(directory, name)?;
        let copy_of = self.copies.delete(directory, name)?;
        copy_of.into_iter().for_each(|group| self.origins.touch(group));
        match rows.first_at(self, name)? {
            Some(existing) => self.remove_first(&existing, rows).map(|()| true),
            None => Ok(copy_of.is_some()),
        }
    }

    /// Drops the first location of an instance. Another one becomes the first, or the instance
    /// goes.
    fn remove_first(&mut self, existing: &InstanceRow, rows: &mut DirectoryRows) -> Result<()> {
        if let Some(copy) = self.copies.of(existing)?.into_iter().next() {
            return self.promote(existing, copy, rows);
        }
        self.delete_instance(existing)?;
        self.files.forget_refused(&existing.uid())
    }

    /// Notes that a location is gone. If the instance also lies elsewhere with the same content, it
    /// has moved there, and this location is dropped.
    pub(super) fn note_missing(&mut self, name: &OsStr, rows: &mut DirectoryRows) -> Result<()> {
        let directory = rows.directory;
        let moved = match self.copies.instance_at(directory, name)? {
            Some(copy) if copy.differs => {
                self.origins.touch(copy.instance_group);
                false
            }
            Some(copy) => match self.instance_row(copy.instance_group, &copy.suffix)? {
                Some(existing) => self.files.first_is_there(&existing)?,
                None => false,
            },
            None => match rows.first_at(self, name)? {
                Some(existing) => {
                    self.origins.touch(existing.instance_group.id);
                    self.move_first(&existing, rows)?
                }
                // Somebody else has dropped it from the index.
                None => return Ok(()),
            },
        };
        if !moved {
            return self.files.note_missing(directory, name);
        }
        self.files.forget_marks(directory, name)?;
        self.copies.delete(directory, name)?;
        self.changes.tally.moved += 1;
        Ok(())
    }

    /// Notes that a location that was gone is back as it was.
    pub(super) fn note_returned(&mut self, name: &OsStr, rows: &mut DirectoryRows) -> Result<()> {
        self.files.note_returned(rows.directory, name)?;
        if let Some(existing) = rows.first_at(self, name)? {
            self.origins.touch(existing.instance_group.id);
            for copy in self.copies.of(&existing)? {
                if copy.location().is_spare() {
                    self.drop_spare(&copy)?;
                }
            }
        }
        Ok(())
    }

    /// Drops a further location whose file is gone, because the instance lies elsewhere with the
    /// same content.
    fn drop_spare(&mut self, copy: &FurtherFile) -> Result<()> {
        self.copies.delete(copy.directory, &copy.file_name)?;
        self.files.forget_marks(copy.directory, &copy.file_name)?;
        self.changes.tally.moved += 1;
        Ok(())
    }

    /// Makes a further location the first one if it has the same content. Returns whether there is
    /// one.
    fn move_first(&mut self, existing: &InstanceRow, rows: &mut DirectoryRows) -> Result<bool> {
        let copies = self.copies.of(existing)?;
        let holds_same = |copy: &FurtherFile| copy.location().can_replace_first();
        let Some(copy) = copies.into_iter().find(holds_same) else { return Ok(false) };
        self.promote(existing, copy, rows)?;
        Ok(true)
    }

    /// Makes a further location of an instance its first one, and forgets the former.
    fn promote(&mut self, existing: &InstanceRow, copy: FurtherFile, rows: &mut DirectoryRows) -> Result<()> {
        let record = match &copy.record {
            Some(text) => record_of_text(text)?,
            None => self.whole_record_of(existing)?,
        };
        self.copies.delete(copy.directory, &copy.file_name)?;
        self.replace_instance(existing, &record, &copy.as_first())?;
        rows.insert(copy.directory, copy.file_name, existing.uid());
        Ok(())
    }
}
