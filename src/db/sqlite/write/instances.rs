//! The rows of instances: found, put in, compared, moved to another location.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, params};

use super::super::columns::{UPPER, is_packed_time, shared, stored_at};
use super::super::packing::{Packed, UidSuffix, pack_number, pack_time, stored_time, uid_hash, unpack_time};
use super::super::sql_values::{PathValue, json_object, path_from_sql, place_from_number, place_number, text_of};
use super::asserted_values::{record_of_text, record_text};
use super::batch::Batch;
use super::rows::{
    DirectoryRows, File, InstanceGroup, InstanceRow, OTHER_CONTENT, Result, fault_text, shared_value, to_i64, uid_of,
};
use super::run::{Differences, Run, decides_instance_group};
use crate::db::ScannedFile;
use crate::db::rules::{ObjectContent, is_same_object, sizes_comparable};
use crate::model::attribute::AttributeId;
use crate::model::checksum::Checksum;
use crate::model::location::Place;
use crate::model::record::InstanceRecord;
use crate::model::uid::is_valid_uid;

/// A further location of an instance.
pub(super) struct FurtherFile {
    place: Place,
    directory: i64,
    file_name: OsString,
    size: i64,
    mtime_ms: i64,
    differs: bool,
    record: Option<String>,
    missing: bool,
    checksum: Option<Checksum>,
}

/// A further location in our own storage.
pub(super) struct OwnCopy {
    pub(super) directory: i64,
    pub(super) file_name: OsString,
    pub(super) path: PathBuf,
}

impl FurtherFile {
    /// Whether it is a file that is there, with the same content as the first one.
    fn holds_same(&self) -> bool {
        !self.missing && !self.differs && self.place != Place::MetadataOnly
    }

    /// What it is compared by, where its content is `record`.
    fn side<'a>(&self, record: &'a InstanceRecord) -> ObjectContent<'a> {
        ObjectContent { record, place: self.place, size: from_i64(self.size), checksum: self.checksum }
    }

    /// Whether it is a file that is gone and not needed, where its content does not differ from that of the first one.
    fn is_spare(&self, differs: bool) -> bool {
        self.missing && !differs && self.place != Place::MetadataOnly
    }
}

impl Batch<'_> {
    pub(super) fn find_instance(&mut self, uid: &str) -> Result<Option<InstanceRow>> {
        self.look_up(uid_hash(uid))?;
        for at in 0..self.lookup_cache.groups.len() {
            let Some(&id) = self.lookup_cache.groups.get(at) else { break };
            // Other UIDs have the same hash; the row itself has the last word.
            let Some(instance_group) = self.instance_group_by_id(id)? else { continue };
            let suffix = UidSuffix::pack(uid, &instance_group.uid_prefix);
            let found = self
                .prepared
                .instance
                .query_row(params![id, suffix], |row| {
                    Ok((
                        instance_group.size_base.saturating_add(row.get(0)?),
                        instance_group.naming.unpack(row.get_ref(1)?, uid)?,
                        text_of(row.get_ref(2)?)?,
                        row.get(3)?,
                        row.get::<_, Option<_>>(4)?.map(Checksum::from_bytes),
                    ))
                })
                .optional()?;
            if let Some((size, file_name, number, diff, checksum)) = found {
                return Ok(Some(InstanceRow { instance_group, suffix, size, file_name, number, diff, checksum }));
            }
        }
        Ok(None)
    }

    /// Whether the index has a file as what it is.
    pub(super) fn is_as_indexed(&mut self, record: &InstanceRecord, file: &File<'_>) -> Result<bool> {
        let Some(existing) = self.find_instance(record.value(AttributeId::SOPInstanceUID))? else { return Ok(false) };
        let noted_faults: Option<String> = self
            .statement("SELECT faults FROM file_fault WHERE directory = ?1 AND file_name = ?2")?
            .query_row(params![file.directory, PathValue(file.name)], |row| row.get(0))
            .optional()?;
        if noted_faults.unwrap_or_default() != fault_text(record) {
            return Ok(false);
        }
        let lies_there = existing.lies_at(file.directory, file.name);
        if lies_there && !self.declared.is_covered_by(&existing.instance_group.declared_set) {
            // What it says that is declared is not known.
            return Ok(false);
        }
        let first = self.record_of(&existing)?;
        let (size, content) = if lies_there {
            (existing.size, first)
        } else {
            let copies = self.copies_of(&existing)?;
            let Some(copy) = copies.iter().find(|copy| copy.directory == file.directory && copy.file_name == file.name)
            else {
                return Ok(false);
            };
            (copy.size, copy.record.as_deref().map_or(Ok(first), record_of_text)?)
        };
        Ok(size == to_i64(file.size) && is_same_object(&content, record))
    }

    /// Finds the instance groups where an instance with this hash may be.
    pub(super) fn look_up(&mut self, hash: i32) -> Result<()> {
        self.lookup_cache.hash = hash;
        let candidates = &mut self.lookup_cache.groups;
        candidates.clear();
        if self.lookup_cache.filter.as_ref().is_some_and(|filter| !filter.may_have(hash)) {
            return Ok(());
        }
        if let Some(&instance_group) = self.changes.lookup_hashes.get(&hash) {
            candidates.push(instance_group);
            let rest = self.changes.lookups.iter().filter(|(h, s)| *h == hash && *s != instance_group).map(|(_, s)| *s);
            candidates.extend(rest);
        }
        let mut rows = self.prepared.instance_groups_of_hash.query([hash])?;
        while let Some(row) = rows.next()? {
            candidates.push(row.get(0)?);
        }
        Ok(())
    }

    /// Whether a record says something else than the row that is there. The pixel data are not compared, only what the
    /// index keeps and the size of the file.
    pub(super) fn differs(&mut self, existing: &InstanceRow, record: &InstanceRecord, file: &File<'_>) -> Result<bool> {
        let first = self.record_of(existing)?;
        let place = self.place_of(existing.instance_group.directory)?;
        Ok(!is_same_object(&first, record)
            || (sizes_comparable(place, file.place) && existing.size != to_i64(file.size)))
    }

    /// All that the index keeps of an instance.
    pub(super) fn record_of(&self, existing: &InstanceRow) -> Result<InstanceRecord> {
        let mut record = InstanceRecord::new();
        let instance_group = &existing.instance_group;
        record.set(AttributeId::SOPInstanceUID, &existing.uid());
        record.set(AttributeId::InstanceNumber, &existing.number);
        let diff = json_object(existing.diff.as_deref())?;
        for (&id, shared) in shared().iter().zip(&instance_group.shared) {
            let own = diff.get(id.attribute().column).and_then(serde_json::Value::as_str);
            record.set(id, own.unwrap_or(shared));
        }
        self.statement(
            "SELECT acquisition_number, acquisition_time, content_time, instance_creation_time FROM instance \
             WHERE instance_group = ?1 AND uid_suffix = ?2",
        )?
        .query_row(params![instance_group.id, existing.suffix], |row| {
            for (at, id) in OWN.into_iter().enumerate() {
                match stored_time(row.get_ref(at)?, row.get_ref(ACQUISITION_TIME)?) {
                    ValueRef::Null => {}
                    ValueRef::Integer(packed) if is_packed_time(id) => {
                        record.set_with(id, |text| unpack_time(packed, shared_value(instance_group, id), text));
                    }
                    own => record.set(id, &text_of(own)?),
                }
            }
            Ok(())
        })?;
        let sql = "SELECT h.sop_class_uid, h.available_transfer_syntax_uid, ifnull(h.patient, s.patient), s.id, \
                   h.patient_values, h.study_values, h.series_values \
                   FROM instance_group h JOIN study_series e ON e.id = h.series JOIN study s ON s.id = e.study WHERE h.id = ?1";
        let (rows, said) = self.statement(sql)?.query_row([instance_group.id], |row| {
            record.set(AttributeId::SOPClassUID, &text_of(row.get_ref(0)?)?);
            record.set(AttributeId::AvailableTransferSyntaxUID, &text_of(row.get_ref(1)?)?);
            let said: [Option<i64>; 3] = [row.get(4)?, row.get(5)?, row.get(6)?];
            Ok(([row.get(2)?, row.get(3)?, instance_group.series], said))
        })?;
        for ((level, row), said) in UPPER.into_iter().zip(rows).zip(said) {
            match said {
                Some(said) => self.set_said(level, said, &mut record)?,
                None => {
                    let values = self.values_of(level, row, |_, _| false)?.unwrap_or_default();
                    for (&id, value) in stored_at(level).iter().zip(&values) {
                        record.set(id, value);
                    }
                }
            }
        }
        Ok(record)
    }

    /// Puts a record in the place of the row that is there for the same instance. Further locations that are gone and held
    /// the same are dropped.
    pub(super) fn replace_instance(
        &mut self,
        existing: &InstanceRow,
        record: &InstanceRecord,
        file: &File<'_>,
    ) -> Result<(i64, UidSuffix)> {
        let has_copies: bool = self
            .statement("SELECT EXISTS (SELECT 1 FROM copy WHERE instance_group = ?1 AND uid_suffix = ?2)")?
            .query_row(params![existing.instance_group.id, existing.suffix], |row| row.get(0))?;
        let was = if has_copies { Some(self.record_of(existing)?) } else { None };
        self.remove_row(existing)?;
        let arrival = self.arrival_in_place_of(existing.instance_group.arrival)?;
        let current = self.set_arrival(Some(arrival));
        let (instance_group, suffix) = self.insert_instance(record, file, &[], false)?;
        self.set_arrival(current);
        if let Some(was) = was {
            self.compare_copies(existing, &was, (instance_group, &suffix), record, file)?;
        }
        Ok((instance_group, suffix))
    }

    /// Holds the copies of an instance that was `was` against what it is now. One that is gone and held the same has moved:
    /// it would have been dropped had the instance been this one before.
    fn compare_copies(
        &mut self,
        existing: &InstanceRow,
        was: &InstanceRecord,
        (instance_group, suffix): (i64, &UidSuffix),
        record: &InstanceRecord,
        file: &File<'_>,
    ) -> Result<()> {
        let first = content_of(record, file);
        let former_place = self.place_of(existing.instance_group.directory)?;
        let former = ObjectContent {
            record: was,
            place: former_place,
            size: from_i64(existing.size),
            checksum: existing.checksum,
        };
        for copy in self.copies_of(existing)? {
            let own = copy.record.as_deref().map(record_of_text).transpose()?;
            let content = copy.side(own.as_ref().unwrap_or(was));
            // What only the bytes told is held against it as long as nothing tells otherwise.
            let by_bytes = copy.differs && !content.differs_from(&former);
            let alike = content.checksum.is_some() && content.checksum == first.checksum;
            let (differs, text) = compare(&content, &first, by_bytes && !alike);
            if copy.is_spare(differs) && file.place != Place::MetadataOnly {
                self.drop_copy(&copy)?;
                continue;
            }
            self.statement(
                "UPDATE copy SET instance_group = ?3, uid_suffix = ?4, differs = ?5, record = ?6 \
                 WHERE directory = ?1 AND file_name = ?2",
            )?
            .execute(params![
                copy.directory,
                PathValue(&copy.file_name),
                instance_group,
                suffix,
                differs,
                text
            ])?;
        }
        Ok(())
    }

    /// The further locations of an instance, those first that can take the place of the first one: files that are there and
    /// the same, then others that are there, then files that are gone, and what was received without its object last.
    fn copies_of(&self, existing: &InstanceRow) -> Result<Vec<FurtherFile>> {
        self.statement(
            "SELECT c.directory, c.file_name, c.size, c.mtime_ms, c.differs, c.record, d.place, c.checksum, \
             EXISTS (SELECT 1 FROM missing_file m WHERE m.directory = c.directory AND m.file_name = c.file_name) AS missing \
             FROM copy c JOIN directory d ON d.id = c.directory WHERE c.instance_group = ?1 AND c.uid_suffix = ?2 \
             ORDER BY d.place = ?3, missing, c.differs, d.path, c.file_name",
        )?
        .query_map(
            params![existing.instance_group.id, existing.suffix, place_number(Place::MetadataOnly)],
            |row| {
                Ok(FurtherFile {
                    directory: row.get(0)?,
                    file_name: path_from_sql(row.get_ref(1)?)?,
                    size: row.get(2)?,
                    mtime_ms: row.get(3)?,
                    differs: row.get(4)?,
                    record: row.get(5)?,
                    place: place_from_number(row.get(6)?)?,
                    checksum: row.get::<_, Option<_>>(7)?.map(Checksum::from_bytes),
                    missing: row.get(8)?,
                })
            },
        )?
        .collect()
    }

    /// Notes a further location of an instance; whether it differs from the first one, which it does where that is known
    /// from its bytes (`by_bytes`).
    pub(super) fn insert_copy(
        &mut self,
        existing: &InstanceRow,
        record: &InstanceRecord,
        file: &File<'_>,
        by_bytes: bool,
    ) -> Result<bool> {
        let first_record = self.record_of(existing)?;
        let first = ObjectContent {
            record: &first_record,
            place: self.place_of(existing.instance_group.directory)?,
            size: from_i64(existing.size),
            checksum: existing.checksum,
        };
        let (differs, mut text) = compare(&content_of(record, file), &first, by_bytes);
        if record.has_declared() && text.is_none() && self.declares_otherwise(existing, record)? {
            // What is declared is not kept of a further file. It is read again when it takes the first place.
            text = Some(record_text(record));
        }
        self.write_copy((existing.instance_group.id, &existing.suffix), file, differs, text.as_deref())?;
        Ok(differs)
    }

    /// Whether a further location is in our own storage.
    pub(super) fn has_own_copy(&self, existing: &InstanceRow) -> Result<bool> {
        self.statement(
            "SELECT EXISTS (SELECT 1 FROM copy c JOIN directory d ON d.id = c.directory \
             WHERE c.instance_group = ?1 AND c.uid_suffix = ?2 AND d.place = ?3)",
        )?
        .query_row(params![existing.instance_group.id, existing.suffix, place_number(Place::Managed)], |row| row.get(0))
    }

    /// The further locations in our own storage that hold the same as the first one.
    pub(super) fn own_copies(&self, existing: &InstanceRow) -> Result<Vec<OwnCopy>> {
        self.statement(
            "SELECT c.directory, c.file_name, d.path FROM copy c JOIN directory d ON d.id = c.directory \
             WHERE c.instance_group = ?1 AND c.uid_suffix = ?2 AND NOT c.differs AND d.place = ?3",
        )?
        .query_map(params![existing.instance_group.id, existing.suffix, place_number(Place::Managed)], |row| {
            let file_name = path_from_sql(row.get_ref(1)?)?;
            let path = Path::new(&path_from_sql(row.get_ref(2)?)?).join(&file_name);
            Ok(OwnCopy { directory: row.get(0)?, file_name, path })
        })?
        .collect()
    }

    fn write_copy(
        &mut self,
        (instance_group, suffix): (i64, &UidSuffix),
        file: &File<'_>,
        differs: bool,
        record: Option<&str>,
    ) -> Result<()> {
        self.statement(
            "INSERT OR REPLACE INTO copy (directory, file_name, instance_group, uid_suffix, size, mtime_ms, differs, record, \
             checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            file.directory,
            PathValue(file.name),
            instance_group,
            suffix,
            to_i64(file.size),
            file.mtime_ms,
            differs,
            record,
            file.checksum.map(Checksum::to_bytes)
        ])?;
        self.touch(instance_group);
        Ok(())
    }

    /// Puts a record in the place of the row that is there, whose location becomes a further one; whether that differs.
    /// It differs where that is known from its bytes (`by_bytes`).
    pub(super) fn supersede(
        &mut self,
        existing: &InstanceRow,
        record: &InstanceRecord,
        file: &File<'_>,
        by_bytes: bool,
    ) -> Result<bool> {
        let was = self.record_of(existing)?;
        let place = self.place_of(existing.instance_group.directory)?;
        let mtime_ms = self
            .statement("SELECT mtime FROM instance WHERE instance_group = ?1 AND uid_suffix = ?2")?
            .query_row(params![existing.instance_group.id, existing.suffix], |row| row.get::<_, i64>(0))?;
        let uid = OsString::from(existing.uid());
        let former = File {
            place,
            directory: existing.instance_group.directory,
            // Metadata have no file, and so no name.
            name: if place == Place::MetadataOnly { &uid } else { &existing.file_name },
            size: u64::try_from(existing.size).unwrap_or(0),
            mtime_ms: mtime_ms.saturating_add(existing.instance_group.mtime_base),
            checksum: existing.checksum,
        };
        let (instance_group, suffix) = self.replace_instance(existing, record, file)?;
        let (differs, text) = compare(&content_of(&was, &former), &content_of(record, file), by_bytes);
        self.write_copy((instance_group, &suffix), &former, differs, text.as_deref())?;
        Ok(differs)
    }

    pub(super) fn insert_instance(
        &mut self,
        record: &InstanceRecord,
        file: &File<'_>,
        following: &[&ScannedFile],
        complete: bool,
    ) -> Result<(i64, UidSuffix)> {
        let arrival = self.arrival()?;
        let (instance_group, upper_uids_are_valid) = match &mut self.run {
            Some(run) if run.instance_group.arrival == arrival && run.takes(record, file) => {
                run.instances += 1;
                (Rc::clone(&run.instance_group), run.upper_uids_are_valid)
            }
            _ => self.begin_run(record, file, following, complete)?,
        };
        let uid = record.value(AttributeId::SOPInstanceUID);
        let suffix = UidSuffix::pack(uid, &instance_group.uid_prefix);
        let [acquisition_number, acquisition_time, mut content_time, mut creation_time] =
            OWN.map(|id| own_value(record, &instance_group, id));
        if matches!(acquisition_time, Some(Packed::Number(_))) {
            for time in [&mut content_time, &mut creation_time].into_iter().filter(|time| **time == acquisition_time) {
                *time = Some(Packed::AsAcquisition);
            }
        }
        let diff = Differences::diff_of(&mut self.differences, record, &instance_group, &self.declared);
        self.prepared.insert_instance.execute(params![
            instance_group.id,
            suffix,
            pack_number(record.value(AttributeId::InstanceNumber)),
            to_i64(file.size).saturating_sub(instance_group.size_base),
            file.mtime_ms.saturating_sub(instance_group.mtime_base),
            instance_group.naming.pack(file.name, uid),
            acquisition_number,
            acquisition_time,
            content_time,
            creation_time,
            diff,
            file.checksum.map(Checksum::to_bytes),
        ])?;
        self.add_lookup(uid_hash(uid), instance_group.id)?;
        if !upper_uids_are_valid || !is_valid_uid(uid) {
            self.note_invalid_uids(record, file)?;
        }
        Ok((instance_group.id, suffix))
    }

    /// Finds the instance group of a new instance, which is counted there; and whether the UIDs of its study and series are valid.
    fn begin_run(
        &mut self,
        record: &InstanceRecord,
        file: &File<'_>,
        following: &[&ScannedFile],
        complete: bool,
    ) -> Result<(Rc<InstanceGroup>, bool)> {
        let parents = self.parent_rows(record)?;
        let instance_group = self.instance_group(record, file, &parents, following, complete)?;
        let uids = [AttributeId::SeriesInstanceUID, AttributeId::StudyInstanceUID];
        let upper_uids_are_valid = uids.into_iter().all(|id| is_valid_uid(record.value(id)));
        self.end_run();
        let common = record.common().and_then(|(common, mut own)| (!own.any(decides_instance_group)).then_some(common));
        match common.cloned() {
            Some(common) => {
                let (directory, instance_group) = (file.directory, Rc::clone(&instance_group));
                self.run = Some(Run { common, directory, parents, instance_group, upper_uids_are_valid, instances: 1 });
            }
            None => self.changes.count(instance_group.id, &parents, 1),
        }
        Ok((instance_group, upper_uids_are_valid))
    }

    /// Counts the instances of the run so far.
    pub(super) fn count_run(&mut self) {
        if let Some(run) = &mut self.run {
            self.changes.count(run.instance_group.id, &run.parents, std::mem::take(&mut run.instances));
        }
    }

    /// What comes next has its instance group looked up.
    pub(super) fn end_run(&mut self) {
        self.count_run();
        self.run = None;
    }

    pub(super) fn note_invalid_uids(&mut self, record: &InstanceRecord, file: &File<'_>) -> Result<()> {
        let uids = [AttributeId::SOPInstanceUID, AttributeId::SeriesInstanceUID, AttributeId::StudyInstanceUID];
        if !uids.into_iter().all(|id| is_valid_uid(record.value(id))) {
            self.note_conflict("invalid-uid", record, file)?;
        }
        Ok(())
    }

    /// Takes an instance row away.
    pub(super) fn remove_row(&mut self, existing: &InstanceRow) -> Result<()> {
        let instance_group = &existing.instance_group;
        self.statement("DELETE FROM instance WHERE instance_group = ?1 AND uid_suffix = ?2")?
            .execute(params![instance_group.id, existing.suffix])?;
        let study: i64 = self
            .statement("SELECT study FROM study_series WHERE id = ?1")?
            .query_row([instance_group.series], |row| row.get(0))?;
        *self.changes.instances_per_instance_group.entry(instance_group.id).or_default() -= 1;
        *self.changes.instances_per_series.entry(instance_group.series).or_default() -= 1;
        *self.changes.instances_per_study.entry(study).or_default() -= 1;
        self.changes.shrunk.insert((instance_group.id, instance_group.series, study));
        self.drop_lookup(uid_hash(&existing.uid()), instance_group.id);
        Ok(())
    }

    /// Drops the first location of an instance: another one takes its place, or the instance goes.
    pub(super) fn remove_first(&mut self, existing: &InstanceRow, rows: &mut DirectoryRows) -> Result<()> {
        if let Some(copy) = self.copies_of(existing)?.into_iter().next() {
            return self.promote(existing, copy, rows);
        }
        self.remove_row(existing)?;
        // What came in its place and was refused contradicts nothing any more.
        self.statement("DELETE FROM conflict WHERE kind = ?1 AND sop_instance_uid = ?2")?
            .execute(params![OTHER_CONTENT, existing.uid()])?;
        Ok(())
    }

    /// The instance of a row.
    pub(super) fn instance_row(&mut self, instance_group: i64, suffix: UidSuffix) -> Result<Option<InstanceRow>> {
        let Some(instance_group) = self.instance_group_by_id(instance_group)? else { return Ok(None) };
        self.find_instance(&uid_of(&instance_group, &suffix))
    }

    /// Drops further locations whose file is gone: the instance is known elsewhere with the same content.
    pub(super) fn drop_spare_copies(&mut self, existing: &InstanceRow) -> Result<()> {
        for copy in self.copies_of(existing)? {
            if copy.is_spare(copy.differs) {
                self.drop_copy(&copy)?;
            }
        }
        Ok(())
    }

    /// Drops a further location whose file is gone.
    fn drop_copy(&mut self, copy: &FurtherFile) -> Result<()> {
        self.delete_copy(copy.directory, &copy.file_name)?;
        self.forget_marks(copy.directory, &copy.file_name)?;
        self.changes.tally.moved += 1;
        Ok(())
    }

    /// Where the first location of an instance is gone: whether there is another with the same content, which takes its
    /// place then.
    pub(super) fn move_first(&mut self, existing: &InstanceRow, rows: &mut DirectoryRows) -> Result<bool> {
        let copies = self.copies_of(existing)?;
        let Some(copy) = copies.into_iter().find(FurtherFile::holds_same) else { return Ok(false) };
        self.promote(existing, copy, rows)?;
        Ok(true)
    }

    /// Makes a further location of an instance its first one, and forgets that.
    fn promote(&mut self, existing: &InstanceRow, copy: FurtherFile, rows: &mut DirectoryRows) -> Result<()> {
        let record = match &copy.record {
            Some(text) => record_of_text(text)?,
            None => {
                let mut record = self.record_of(existing)?;
                self.set_declared(existing, &mut record)?;
                record
            }
        };
        self.delete_copy(copy.directory, &copy.file_name)?;
        let file = File {
            place: copy.place,
            directory: copy.directory,
            // Metadata have no file, and so no name.
            name: if copy.place == Place::MetadataOnly { OsStr::new("") } else { &copy.file_name },
            size: u64::try_from(copy.size).unwrap_or(0),
            mtime_ms: copy.mtime_ms,
            checksum: copy.checksum,
        };
        self.replace_instance(existing, &record, &file)?;
        if rows.directory == copy.directory
            && let Some(instances) = &mut rows.instances
        {
            instances.insert(copy.file_name, existing.uid());
        }
        Ok(())
    }
}

/// The attributes for which an instance has a column of its own, in the order of those columns.
const OWN: [AttributeId; 4] = [
    AttributeId::AcquisitionNumber,
    AttributeId::AcquisitionTime,
    AttributeId::ContentTime,
    AttributeId::InstanceCreationTime,
];

/// The place of the acquisition time in [`OWN`].
const ACQUISITION_TIME: usize = 1;

/// What an object in a file is compared by.
fn content_of<'a>(record: &'a InstanceRecord, file: &File<'_>) -> ObjectContent<'a> {
    ObjectContent { record, place: file.place, size: file.size, checksum: file.checksum }
}

/// A size that a row has.
fn from_i64(size: i64) -> u64 {
    u64::try_from(size).unwrap_or(0)
}

/// What is kept of a further location: whether it differs from the first one (as is known from the bytes, or shows), and its
/// record where what the index says of the instance is not that.
fn compare(content: &ObjectContent<'_>, first: &ObjectContent<'_>, by_bytes: bool) -> (bool, Option<String>) {
    let as_first = is_same_object(content.record, first.record);
    (by_bytes || content.differs_from(first), (!as_first).then(|| record_text(content.record)))
}

/// What goes into the column of its own that an instance has for `id`: nothing where the instance group says the same.
fn own_value<'r>(record: &'r InstanceRecord, instance_group: &InstanceGroup, id: AttributeId) -> Option<Packed<'r>> {
    let value = record.value(id);
    if value == shared_value(instance_group, id) {
        return None;
    }
    Some(if is_packed_time(id) { pack_time(value, shared_value(instance_group, id)) } else { pack_number(value) })
}
