//! Instance groups: what instances of one series and directory say alike.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value};
use tokio_postgres::Row;

use super::body::{BodyBase, InstanceBody, OWN};
use super::error::ServerFailure;
use super::keys::{RowKey, path_from, place_from, to_i64};
use crate::db::contents::StoredFile;
use crate::db::rules;
use crate::db::view::description_of;
use crate::db::{Corrections, Error};
use crate::model::attribute::{ATTRIBUTES, Attribute, AttributeId};
use crate::model::declared::DeclaredSet;
use crate::model::level::QueryRetrieveLevel::{self, Image};
use crate::model::location::{Location, Place};
use crate::model::record::{Common, InstanceRecord};

/// The key of declared values in the text of an instance group. No column has this name.
const DECLARED: &str = "declared";

/// The place of declared values among the own values of an instance. None of [`OWN`] has it.
const OWN_DECLARED: u8 = 255;

/// An instance group with the record of its first instance.
#[derive(Clone)]
pub(super) struct GroupRow {
    /// Number of its row. 0 as long as it has none.
    pub(super) id: i64,
    pub(super) study: i64,
    pub(super) key: RowKey,
    pub(super) directory: i64,
    pub(super) place: Place,
    pub(super) path: PathBuf,
    pub(super) uid_prefix: String,
    pub(super) size_base: i64,
    pub(super) mtime_base: i64,
    pub(super) instances: i64,
    pub(super) offline: i64,
    pub(super) declared: String,
    /// See [`StoredFile::arrival`].
    pub(super) arrival: i64,
    pub(super) record: InstanceRecord,
    pub(super) common: Option<Common>,
    /// The declared attributes that its records are read and written with.
    pub(super) set: Arc<DeclaredSet>,
}

/// The columns that [`GroupRow::of_row`] reads.
pub(super) const GROUP_COLUMNS: &str = "s.id, s.study, s.shelf_key, s.directory, d.place, d.path, s.uid_prefix, \
     s.size_base, s.mtime_base, s.instance_count, s.offline_count, s.declared, s.said, s.arrival";

impl GroupRow {
    pub(super) fn of_row(row: &Row, set: &Arc<DeclaredSet>) -> Result<Self, ServerFailure> {
        let (uid_prefix, declared, said): (&str, &str, &str) = (row.try_get(6)?, row.try_get(11)?, row.try_get(12)?);
        let mut record = record_with(said, set)?;
        let common = record.share();
        Ok(Self {
            id: row.try_get(0)?,
            study: row.try_get(1)?,
            key: row.try_get(2)?,
            directory: row.try_get(3)?,
            place: place_from(row.try_get(4)?),
            path: path_from(row.try_get(5)?),
            uid_prefix: super::keys::from_column(uid_prefix),
            size_base: row.try_get(7)?,
            mtime_base: row.try_get(8)?,
            instances: row.try_get(9)?,
            offline: row.try_get(10)?,
            declared: declared.to_owned(),
            arrival: row.try_get(13)?,
            record,
            common,
            set: Arc::clone(set),
        })
    }

    /// A new instance group for a file, without instances.
    pub(super) fn for_file(file: &StoredFile, study: i64, directory: i64, set: &Arc<DeclaredSet>) -> Self {
        let uid = file.record.value(AttributeId::SOPInstanceUID);
        let uid_prefix = uid.rfind('.').and_then(|at| uid.get(..=at)).unwrap_or_default().to_owned();
        let mut record = common_record(&file.record, set);
        let common = record.share();
        Self {
            id: 0,
            study,
            key: key_of(file, directory, set),
            directory,
            place: file.location.place,
            path: file.location.directory.clone(),
            uid_prefix,
            size_base: to_i64(file.location.size),
            mtime_base: file.location.mtime_ms,
            instances: 0,
            offline: 0,
            declared: set.common_mark(&file.declared),
            arrival: file.arrival,
            record,
            common,
            set: Arc::clone(set),
        }
    }

    pub(super) fn base(&self) -> BodyBase<'_> {
        BodyBase { uid_prefix: &self.uid_prefix, size: self.size_base, mtime_ms: self.mtime_base }
    }

    /// The file that a row of this instance group is about.
    pub(super) fn file(&self, body: InstanceBody) -> Result<StoredFile, Error> {
        let InstanceBody { uid, file_name, size, mtime_ms, checksum, own } = body;
        let mut record = self.common.as_ref().map_or_else(|| self.record.clone(), InstanceRecord::like);
        record.set(AttributeId::SOPInstanceUID, &uid);
        let mut declared = String::new();
        for (place, value) in own {
            match OWN.get(usize::from(place)) {
                Some(id) => record.set(*id, &value),
                None if place == OWN_DECLARED => declared = value,
                None => {}
            }
        }
        if !self.declared.is_empty() && !self.set.is_empty() {
            self.add_declared(&mut record, &declared)?;
        }
        let location = Location { place: self.place, directory: self.path.clone(), file_name, size, mtime_ms };
        let (declared, arrival) = (self.declared.clone(), self.arrival);
        Ok(StoredFile { location, record, checksum, differs: false, declared, arrival })
    }

    /// Has it say of its patient what the rules come to.
    pub(super) fn correct(&mut self, corrections: &Corrections) {
        if corrections.is_empty() {
            return;
        }
        let said = description_of(&self.record);
        let of = (
            self.record.value(AttributeId::StudyInstanceUID).to_owned(),
            self.record.value(AttributeId::SeriesInstanceUID).to_owned(),
        );
        if let Some((now, _)) = corrections.corrected((&of.0, &of.1), &said) {
            for (id, value) in rules::patient_attributes().zip(&now) {
                self.record.set(id, value);
            }
            // Its instances have the same values.
            self.common = None;
        }
    }

    /// Contents of the row of a file of this instance group.
    pub(super) fn body(&self, file: &StoredFile) -> InstanceBody {
        let differing = (0..).zip(OWN).filter(|(_, id)| file.record.value(*id) != self.record.value(*id));
        let mut own: Vec<(u8, String)> =
            differing.map(|(place, id)| (place, file.record.value(id).to_owned())).collect();
        let declared = declared_texts(&file.record, &self.set, |level| level == Image);
        if !declared.is_empty() {
            own.push((OWN_DECLARED, Value::Object(declared).to_string()));
        }
        InstanceBody {
            uid: file.record.value(AttributeId::SOPInstanceUID).to_owned(),
            file_name: file.location.file_name.clone(),
            size: file.location.size,
            mtime_ms: file.location.mtime_ms,
            checksum: file.checksum,
            own,
        }
    }
}

impl GroupRow {
    /// Adds the declared values that instances of this instance group have alike, and those of one
    /// instance.
    fn add_declared(&self, record: &mut InstanceRecord, own: &str) -> Result<(), Error> {
        let own = match own {
            "" => Map::new(),
            own => texts_from(own)?,
        };
        record.note_declared();
        for unit in self.set.units() {
            let value = match unit.level {
                Image => text_at(&own, &unit.key)?,
                _ => self.record.declared(unit.number),
            };
            record.set_declared_with(unit.number, |text| text.push_str(value));
        }
        Ok(())
    }

    /// The values that instances of this instance group have alike, as its row has them.
    pub(super) fn said(&self) -> String {
        let mut said = texts_of(&self.record, false);
        let declared = declared_texts(&self.record, &self.set, |level| level != Image);
        if !declared.is_empty() {
            said.insert(DECLARED.to_owned(), Value::Object(declared));
        }
        Value::Object(said).to_string()
    }
}

/// The values of declared units of some levels, by the keys of the units.
fn declared_texts(
    record: &InstanceRecord,
    set: &DeclaredSet,
    is_wanted: impl Fn(QueryRetrieveLevel) -> bool,
) -> Map<String, Value> {
    let units = set.units().iter().filter(|unit| is_wanted(unit.level));
    let values = units.map(|unit| (unit.key.clone(), record.declared(unit.number)));
    values.filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key, Value::from(value))).collect()
}

/// The attributes that all instances of an instance group have alike.
fn shared() -> impl Iterator<Item = &'static Attribute> {
    let is_own = |id: AttributeId| id == AttributeId::SOPInstanceUID || OWN.contains(&id);
    ATTRIBUTES.iter().filter(move |attribute| attribute.is_stored() && !is_own(attribute.id))
}

/// The key of the instance group that a file belongs to, in its study.
pub(super) fn key_of(file: &StoredFile, directory: i64, set: &DeclaredSet) -> RowKey {
    let (directory, mark) = (directory.to_le_bytes(), set.common_mark(&file.declared));
    let mut parts: Vec<&[u8]> = vec![&directory, mark.as_bytes()];
    let arrival = file.arrival.to_le_bytes();
    if file.arrival != 0 {
        // An instance without an arrival has the key that a program of the version before makes.
        parts.push(&arrival);
    }
    for unit in set.units().iter().filter(|unit| unit.level != Image) {
        let value = file.record.declared(unit.number);
        if !value.is_empty() {
            parts.extend([unit.key.as_bytes(), value.as_bytes()]);
        }
    }
    for attribute in shared() {
        let value = file.record.value(attribute.id);
        // A column names its value, so that a new attribute changes no key.
        if !value.is_empty() {
            parts.extend([attribute.column.as_bytes(), value.as_bytes()]);
        }
    }
    RowKey::of(&parts)
}

/// The values of a record by column, as a JSON object.
pub(super) fn record_text(record: &InstanceRecord) -> String {
    Value::Object(texts_of(record, true)).to_string()
}

fn texts_of(record: &InstanceRecord, with_uid: bool) -> Map<String, Value> {
    let stored = ATTRIBUTES.iter().filter(|attribute| attribute.is_stored());
    let kept = stored.filter(|attribute| with_uid || attribute.id != AttributeId::SOPInstanceUID);
    let values = kept.map(|attribute| (attribute.column, record.value(attribute.id)));
    values
        .filter(|(_, value)| !value.is_empty())
        .map(|(column, value)| (column.to_owned(), Value::from(value)))
        .collect()
}

/// Part of the record of its first file that an instance group keeps, as it is read again.
fn common_record(of: &InstanceRecord, set: &DeclaredSet) -> InstanceRecord {
    let mut record = InstanceRecord::new();
    let kept =
        ATTRIBUTES.iter().filter(|attribute| attribute.is_stored() && attribute.id != AttributeId::SOPInstanceUID);
    for attribute in kept {
        let value = of.value(attribute.id);
        if !value.is_empty() {
            record.set(attribute.id, value);
        }
    }
    for unit in set.units().iter().filter(|unit| unit.level != Image) {
        let value = of.declared(unit.number);
        if !value.is_empty() {
            record.set_declared_with(unit.number, |text| text.push_str(value));
        }
    }
    record
}

/// The record that [`record_text`] made this of. An attribute that this program does not know is
/// passed over: a newer one may have written it.
pub(super) fn record_from(text: &str) -> Result<InstanceRecord, Error> {
    record_with(text, DeclaredSet::none())
}

/// The same with the values of declared units.
fn record_with(text: &str, set: &DeclaredSet) -> Result<InstanceRecord, Error> {
    let texts = texts_from(text)?;
    let mut record = InstanceRecord::new();
    for column in texts.keys() {
        if let Some(attribute) = Attribute::by_column(column) {
            record.set(attribute.id, text_at(&texts, column)?);
        }
    }
    match texts.get(DECLARED) {
        Some(Value::Object(declared)) => {
            for unit in set.units() {
                let value = text_at(declared, &unit.key)?;
                if !value.is_empty() {
                    record.set_declared_with(unit.number, |text| text.push_str(value));
                }
            }
        }
        Some(_) => return Err(broken()),
        None => {}
    }
    Ok(record)
}

/// Values by column or unit, from the JSON object that the database has.
fn texts_from(text: &str) -> Result<Map<String, Value>, Error> {
    serde_json::from_str(text).map_err(|_| broken())
}

/// One of these values, or nothing if it is not there.
fn text_at<'t>(texts: &'t Map<String, Value>, key: &str) -> Result<&'t str, Error> {
    texts.get(key).map_or(Ok(""), |value| value.as_str().ok_or_else(broken))
}

fn broken() -> Error {
    Error::Malformed("the values of an instance group cannot be read".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_be_read_are_an_error() {
        let record = record_from(r#"{"study_date": "20240229", "of_a_newer_program": 1}"#).unwrap();
        assert_eq!(record.value(AttributeId::StudyDate), "20240229");
        for text in ["", "[]", r#"{"study_date": "2024"#, r#"{"study_date": 20240229}"#, r#"{"declared": "none"}"#] {
            assert!(matches!(record_from(text), Err(Error::Malformed(_))), "{text}");
        }
        let own = texts_from(r#"{"0018,0050": "1.25", "0018,0088": 5}"#).unwrap();
        assert_eq!((text_at(&own, "0018,0050").unwrap(), text_at(&own, "0018,0051").unwrap()), ("1.25", ""));
        assert!(matches!(text_at(&own, "0018,0088"), Err(Error::Malformed(_))));
    }
}
