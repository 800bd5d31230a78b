//! The rows of instances: found, put in, compared, moved to another location.

use std::ffi::{OsStr, OsString};
use std::rc::Rc;

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, params};

use super::super::packing::{Packed, UidSuffix, pack_number, pack_time, uid_hash};
use super::super::schema::{has_own_column, is_packed_time};
use super::super::{PathValue, ScannedFile, path_from_sql};
use super::entities::Values;
use super::files::{File, fault_text};
use super::shelves::{Shelf, place_in_shared, shared, shared_value};
use super::{Batch, Result, to_i64};
use crate::model::attribute::AttributeId;
use crate::model::record::{Common, InstanceRecord};
use crate::model::uid::is_valid_uid;

/// An instance row that exists.
pub(super) struct Existing {
    pub(super) shelf: Rc<Shelf>,
    pub(super) suffix: UidSuffix,
    pub(super) size: i64,
    pub(super) file_name: OsString,
    pub(super) number: String,
    pub(super) diff: Option<String>,
}

impl Existing {
    /// Whether this file is its first location.
    pub(super) fn lies_at(&self, directory: i64, name: &OsStr) -> bool {
        self.shelf.directory == directory && self.file_name == name
    }
}

impl Batch<'_> {
    pub(super) fn find_instance(&mut self, uid: &str) -> Result<Option<Existing>> {
        let hash = uid_hash(uid);
        let mut candidates = Vec::new();
        if let Some(&shelf) = self.changes.lookup_hashes.get(&hash) {
            candidates.push(shelf);
            let rest = self.changes.lookups.iter().filter(|(h, s)| *h == hash && *s != shelf).map(|(_, s)| *s);
            candidates.extend(rest);
        }
        let mut rows = self.hot.shelves_of_hash.query([hash])?;
        while let Some(row) = rows.next()? {
            candidates.push(row.get(0)?);
        }
        drop(rows);
        for id in candidates {
            // A lookup may outlive its shelf; the row itself has the last word.
            let Some(shelf) = self.shelf_by_id(id)? else { continue };
            let suffix = UidSuffix::pack(uid, &shelf.uid_prefix);
            let found = self
                .hot
                .instance
                .query_row(params![id, suffix], |row| {
                    Ok((row.get(0)?, shelf.naming.unpack(row.get_ref(1)?, uid), text_of(row.get_ref(2)?), row.get(3)?))
                })
                .optional()?;
            if let Some((size, file_name, number, diff)) = found {
                return Ok(Some(Existing { shelf, suffix, size, file_name, number, diff }));
            }
        }
        Ok(None)
    }

    /// Whether the index has a file as what it is; its patient, study and series take account of it as of a new one.
    pub(super) fn is_as_indexed(&mut self, record: &InstanceRecord, file: &File<'_>) -> Result<bool> {
        let Some(existing) = self.find_instance(record.value(AttributeId::SOPInstanceUID))? else { return Ok(false) };
        let noted_faults: Option<String> = self
            .statement("SELECT faults FROM file_fault WHERE directory = ?1 AND file_name = ?2")?
            .query_row(params![file.directory, PathValue(file.name)], |row| row.get(0))
            .optional()?;
        if noted_faults.unwrap_or_default() != fault_text(record) {
            return Ok(false);
        }
        let differs = self.differs(&existing, record, file)?;
        let known_to_differ = if existing.lies_at(file.directory, file.name) {
            Some(false)
        } else {
            self.statement(
                "SELECT differs FROM copy WHERE directory = ?1 AND file_name = ?2 AND shelf = ?3 AND uid_suffix = ?4",
            )?
            .query_row(params![file.directory, PathValue(file.name), existing.shelf.id, existing.suffix], |row| {
                row.get::<_, bool>(0)
            })
            .optional()?
        };
        if known_to_differ != Some(differs) {
            return Ok(false);
        }
        if !known_to_differ.unwrap_or_default() {
            if !self.has_transfer_syntax(&existing.shelf, record)? && existing.lies_at(file.directory, file.name) {
                return Ok(false);
            }
            if existing.lies_at(file.directory, file.name) {
                self.series(record, file, Values::MostComplete)?;
            }
        }
        Ok(true)
    }

    /// Whether a record says something else than the row that is there. The pixel data are not compared, only what the
    /// index keeps and the size of the file.
    pub(super) fn differs(&mut self, existing: &Existing, record: &InstanceRecord, file: &File<'_>) -> Result<bool> {
        let sizes_comparable = self.place_of(existing.shelf.directory)? == file.place;
        if sizes_comparable && existing.size != to_i64(file.size) {
            return Ok(true);
        }
        if existing.number != record.value(AttributeId::InstanceNumber) {
            return Ok(true);
        }
        let same_series: bool = self
            .statement(
                "SELECT e.series_instance_uid = ?2 AND s.study_instance_uid = ?3 AND h.sop_class_uid = ?4 \
                 FROM shelf h JOIN study_series e ON e.id = h.series JOIN study s ON s.id = e.study WHERE h.id = ?1",
            )?
            .query_row(
                params![
                    existing.shelf.id,
                    record.value(AttributeId::SeriesInstanceUID),
                    record.value(AttributeId::StudyInstanceUID),
                    record.value(AttributeId::SOPClassUID)
                ],
                |row| row.get(0),
            )?;
        if !same_series {
            return Ok(true);
        }
        let own_are_equal: bool = self
            .statement(
                "SELECT acquisition_number IS ?3 AND acquisition_time IS ?4 AND content_time IS ?5 \
                 AND instance_creation_time IS ?6 FROM instance WHERE shelf = ?1 AND uid_suffix = ?2",
            )?
            .query_row(
                params![
                    existing.shelf.id,
                    existing.suffix,
                    own_value(record, &existing.shelf, OWN[0]),
                    own_value(record, &existing.shelf, OWN[1]),
                    own_value(record, &existing.shelf, OWN[2]),
                    own_value(record, &existing.shelf, OWN[3])
                ],
                |row| row.get(0),
            )?;
        Ok(!own_are_equal || diff_of(record, &existing.shelf) != existing.diff)
    }

    pub(super) fn has_transfer_syntax(&self, shelf: &Shelf, record: &InstanceRecord) -> Result<bool> {
        self.statement("SELECT available_transfer_syntax_uid = ?2 FROM shelf WHERE id = ?1")?
            .query_row(params![shelf.id, record.value(AttributeId::AvailableTransferSyntaxUID)], |row| row.get(0))
    }

    /// Puts a record in the place of the row that is there for the same instance.
    pub(super) fn replace_instance(
        &mut self,
        existing: &Existing,
        record: &InstanceRecord,
        file: &File<'_>,
        values: Values,
    ) -> Result<()> {
        self.remove_row(existing)?;
        let (shelf, suffix) = self.insert_instance(record, file, values, &[], false)?;
        self.statement("UPDATE copy SET shelf = ?1, uid_suffix = ?2 WHERE shelf = ?3 AND uid_suffix = ?4")?
            .execute(params![shelf, suffix, existing.shelf.id, existing.suffix])?;
        Ok(())
    }

    pub(super) fn insert_instance(
        &mut self,
        record: &InstanceRecord,
        file: &File<'_>,
        values: Values,
        following: &[&ScannedFile],
        complete: bool,
    ) -> Result<(i64, UidSuffix)> {
        let (series, study) = self.series(record, file, values)?;
        let shelf = self.shelf(record, file, series, study, following, complete)?;
        let uid = record.value(AttributeId::SOPInstanceUID);
        let suffix = UidSuffix::pack(uid, &shelf.uid_prefix);
        let own = |at: usize| own_value(record, &shelf, OWN[at]);
        let diff = Differences::diff_of(&mut self.differences, record, &shelf);
        self.hot.insert_instance.execute(params![
            shelf.id,
            suffix,
            pack_number(record.value(AttributeId::InstanceNumber)),
            to_i64(file.size),
            file.mtime_ms.saturating_sub(shelf.mtime_base),
            shelf.naming.pack(file.name, uid),
            own(0),
            own(1),
            own(2),
            own(3),
            diff,
        ])?;
        self.changes.note_lookup(uid_hash(uid), shelf.id);
        *self.changes.instances_per_shelf.entry(shelf.id).or_default() += 1;
        *self.changes.instances_per_series.entry(series).or_default() += 1;
        *self.changes.instances_per_study.entry(study).or_default() += 1;
        let uids = [uid, record.value(AttributeId::SeriesInstanceUID), record.value(AttributeId::StudyInstanceUID)];
        if !uids.into_iter().all(is_valid_uid) {
            self.note_conflict("invalid-uid", record, file)?;
        }
        Ok((shelf.id, suffix))
    }

    /// Takes an instance row away.
    pub(super) fn remove_row(&mut self, existing: &Existing) -> Result<()> {
        let shelf = &existing.shelf;
        self.statement("DELETE FROM instance WHERE shelf = ?1 AND uid_suffix = ?2")?
            .execute(params![shelf.id, existing.suffix])?;
        let study: i64 = self
            .statement("SELECT study FROM study_series WHERE id = ?1")?
            .query_row([shelf.series], |row| row.get(0))?;
        *self.changes.instances_per_shelf.entry(shelf.id).or_default() -= 1;
        *self.changes.instances_per_series.entry(shelf.series).or_default() -= 1;
        *self.changes.instances_per_study.entry(study).or_default() -= 1;
        self.changes.shrunk.insert((shelf.id, shelf.series, study));
        Ok(())
    }

    /// Makes a further location of an instance its first one; false where there is none with the same content. Those with
    /// other content are forgotten, so that the next scan reads them as what they are.
    pub(super) fn promote_copy(&mut self, existing: &Existing) -> Result<bool> {
        let copy = self
            .statement(
                "SELECT directory, file_name, size, mtime_ms FROM copy WHERE shelf = ?1 AND uid_suffix = ?2 \
                 AND NOT differs ORDER BY directory, file_name LIMIT 1",
            )?
            .query_row(params![existing.shelf.id, existing.suffix], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    path_from_sql(row.get_ref(1)?),
                    row.get::<_, i64>(2)?,
                    row.get::<_, i64>(3)?,
                ))
            })
            .optional()?;
        let Some((directory, name, size, mtime_ms)) = copy else {
            self.statement("DELETE FROM copy WHERE shelf = ?1 AND uid_suffix = ?2")?
                .execute(params![existing.shelf.id, existing.suffix])?;
            return Ok(false);
        };
        let old = Rc::clone(&existing.shelf);
        let shelf = self.sibling_shelf(&old, directory, mtime_ms)?;
        self.statement("DELETE FROM copy WHERE directory = ?1 AND file_name = ?2")?
            .execute(params![directory, PathValue(&name)])?;
        if shelf.id == old.id {
            self.statement(
                "UPDATE instance SET size = ?3, mtime = ?4, file_name = ?5 WHERE shelf = ?1 AND uid_suffix = ?2",
            )?
            .execute(params![
                shelf.id,
                existing.suffix,
                size,
                mtime_ms - shelf.mtime_base,
                PathValue(&name)
            ])?;
            return Ok(true);
        }
        self.statement(
            "INSERT INTO instance SELECT ?1, uid_suffix, instance_number, ?2, ?3, ?4, acquisition_number, \
             acquisition_time, content_time, instance_creation_time, diff \
             FROM instance WHERE shelf = ?5 AND uid_suffix = ?6",
        )?
        .execute(params![
            shelf.id,
            size,
            mtime_ms - shelf.mtime_base,
            PathValue(&name),
            old.id,
            existing.suffix
        ])?;
        self.statement("DELETE FROM instance WHERE shelf = ?1 AND uid_suffix = ?2")?
            .execute(params![old.id, existing.suffix])?;
        self.statement("UPDATE copy SET shelf = ?1 WHERE shelf = ?2 AND uid_suffix = ?3")?.execute(params![
            shelf.id,
            old.id,
            existing.suffix
        ])?;
        let mut uid = String::new();
        let suffix = match &existing.suffix {
            UidSuffix::Packed(packed) => ValueRef::Blob(packed),
            UidSuffix::Text(text) => ValueRef::Text(text.as_bytes()),
        };
        UidSuffix::unpack(suffix, &old.uid_prefix, &mut uid);
        self.changes.note_lookup(uid_hash(&uid), shelf.id);
        *self.changes.instances_per_shelf.entry(shelf.id).or_default() += 1;
        *self.changes.instances_per_shelf.entry(old.id).or_default() -= 1;
        let study: i64 = self
            .statement("SELECT study FROM study_series WHERE id = ?1")?
            .query_row([old.series], |row| row.get(0))?;
        self.changes.shrunk.insert((old.id, old.series, study));
        Ok(true)
    }
}

fn text_of(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Null | ValueRef::Real(_) => String::new(),
    }
}

/// The attributes for which an instance has a column of its own, in the order of those columns.
const OWN: [AttributeId; 4] = [
    AttributeId::AcquisitionNumber,
    AttributeId::AcquisitionTime,
    AttributeId::ContentTime,
    AttributeId::InstanceCreationTime,
];

/// What goes into the column of its own that an instance has for `id`: nothing where the shelf says the same.
fn own_value<'r>(record: &'r InstanceRecord, shelf: &Shelf, id: AttributeId) -> Option<Packed<'r>> {
    let value = record.value(id);
    if value == shared_value(shelf, id) {
        return None;
    }
    Some(if is_packed_time(id) { pack_time(value, shared_value(shelf, id)) } else { pack_number(value) })
}

/// The values of a record that differ from those of its shelf, as a JSON object, where there are any.
fn diff_of(record: &InstanceRecord, shelf: &Shelf) -> Option<String> {
    diff_among(0..shared().len(), record, shelf)
}

/// As [`diff_of`], of the attributes at these places of [`shared`], which ascend.
fn diff_among(places: impl Iterator<Item = usize>, record: &InstanceRecord, shelf: &Shelf) -> Option<String> {
    let mut diff: Option<serde_json::Map<String, serde_json::Value>> = None;
    for place in places {
        let (Some(&id), Some(shared)) = (shared().get(place), shelf.shared.get(place)) else { continue };
        let value = record.value(id);
        if value != shared && !has_own_column(id) {
            diff.get_or_insert_default().insert(id.attribute().column.to_owned(), value.into());
        }
    }
    diff.map(|diff| serde_json::Value::Object(diff).to_string())
}

/// What is known of the diffs of records that share their values: of thirty values, only the few that a record has for itself
/// have to be looked at.
pub(super) struct Differences {
    common: Common,
    shelf: Rc<Shelf>,
    /// Places of [`shared`] at which the values in common differ from those of the shelf, ascending.
    places: Vec<usize>,
}

impl Differences {
    /// As [`diff_of`].
    fn diff_of(known: &mut Option<Self>, record: &InstanceRecord, shelf: &Rc<Shelf>) -> Option<String> {
        let Some((common, own)) = record.common() else { return diff_of(record, shelf) };
        let is_known = |known: &Self| known.common.is(common) && Rc::ptr_eq(&known.shelf, shelf);
        let known = match known {
            Some(known) if is_known(known) => known,
            other => other.insert(Self {
                common: common.clone(),
                shelf: Rc::clone(shelf),
                places: (0..shared().len())
                    .filter(|&place| {
                        let (id, text) = (shared().get(place), shelf.shared.get(place));
                        id.zip(text).is_some_and(|(&id, text)| common.value(id) != text && !has_own_column(id))
                    })
                    .collect(),
            }),
        };
        let mut places: Vec<usize> = own.filter(|&id| !has_own_column(id)).filter_map(place_in_shared).collect();
        if places.is_empty() {
            return diff_among(known.places.iter().copied(), record, shelf);
        }
        places.extend(&known.places);
        places.sort_unstable();
        places.dedup();
        diff_among(places.into_iter(), record, shelf)
    }
}
