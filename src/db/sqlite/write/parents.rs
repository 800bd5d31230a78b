//! Studies and series: found or made for a record, and what its values mean for those that are there. Their patients are in
//! [`super::patients`].
//!
//! The value of an entity is the most complete one that any of its objects has (docs/adr/0008). So that it can follow when
//! objects are corrected or go, an instance group keeps what its objects say where that differs (docs/adr/0011): see
//! [`super::asserted_values`].

use std::sync::OnceLock;

use rusqlite::{OptionalExtension, params, params_from_iter};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::patients::NamedPatient;
use super::{Batch, Result};
use crate::db::rules;
use crate::model::attribute::{ATTRIBUTES, AttributeId};
use crate::model::level::QueryRetrieveLevel;
use crate::model::record::InstanceRecord;

/// Where a record belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Belonging {
    pub(super) series: i64,
    pub(super) study: i64,
    /// The patient that it names, where that is not the study's.
    pub(super) patient: Option<i64>,
    /// What it says of patient, study and series, where that is not what their rows say.
    pub(super) said: [Option<i64>; 3],
    /// A hash of all that it says of them.
    pub(super) values: u64,
}

/// Different sets of values in one series that are remembered. Real series have one, or a few.
const REMEMBERED_SETS: usize = 16;

impl Batch<'_> {
    /// The rows of the record's patient, study and series, which from now on take account of it.
    pub(super) fn belonging(&mut self, record: &InstanceRecord) -> Result<Belonging> {
        let study_uid = record.value(AttributeId::StudyInstanceUID);
        let series_uid = record.value(AttributeId::SeriesInstanceUID);
        self.scratch.clear();
        for part in [study_uid, "\0", series_uid] {
            self.scratch.push_str(part);
        }
        let key = xxh3_128(self.scratch.as_bytes());
        let values = self.hash_of_upper_values(record);
        if let Some(known) = self.series.get(&key)
            && let Some(belonging) = known.iter().find(|belonging| belonging.values == values)
        {
            return Ok(*belonging);
        }
        let (study, patient, study_values) = self.study(record)?;
        let (series, series_values) = self.series_row(record, study)?;
        let belonging = Belonging {
            series,
            study,
            patient: (patient.first != patient.own).then_some(patient.own),
            said: [patient.said, study_values, series_values],
            values,
        };
        let known = self.series.entry(key).or_default();
        if known.len() >= REMEMBERED_SETS {
            known.clear();
        }
        known.push(belonging);
        Ok(belonging)
    }

    fn hash_of_upper_values(&mut self, record: &InstanceRecord) -> u64 {
        // Slices of a series share these values as one: then they are not looked at again.
        let common = record.common().and_then(|(common, mut own)| (!own.any(is_stored_above)).then_some(common));
        if let Some((known, hash)) = &self.upper_values
            && common.is_some_and(|common| common.is(known))
        {
            return *hash;
        }
        self.scratch.clear();
        for &id in stored_above() {
            self.scratch.push_str(record.value(id));
            self.scratch.push('\0');
        }
        let hash = xxh3_64(self.scratch.as_bytes());
        if let Some(common) = common {
            self.upper_values = Some((common.clone(), hash));
        }
        hash
    }

    /// The row of the record's study, its patients, and what the record says otherwise of the study.
    fn study(&mut self, record: &InstanceRecord) -> Result<(i64, NamedPatient, Option<i64>)> {
        let found: Option<(i64, i64)> = self
            .statement("SELECT id, patient FROM study WHERE study_instance_uid = ?1")?
            .query_row([record.value(AttributeId::StudyInstanceUID)], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((row, first)) = found else {
            let patient = self.patient_of_new_study(record)?;
            let row = self.insert_entity(QueryRetrieveLevel::Study, record, ("patient", patient))?;
            return Ok((row, NamedPatient { first: patient, own: patient, said: None }, None));
        };
        let patient = self.patient_of_record(row, first, record)?;
        let (_, said) = self.merge(QueryRetrieveLevel::Study, row, record)?;
        Ok((row, patient, said))
    }

    /// The row of the record's series.
    fn series_row(&mut self, record: &InstanceRecord, study: i64) -> Result<(i64, Option<i64>)> {
        let series_uid = record.value(AttributeId::SeriesInstanceUID);
        let found: Option<i64> = self
            .statement("SELECT id FROM study_series WHERE series_instance_uid = ?1 AND study = ?2")?
            .query_row(params![series_uid, study], |row| row.get(0))
            .optional()?;
        if let Some(row) = found {
            let (changed, said) = self.merge(QueryRetrieveLevel::Series, row, record)?;
            if changed.contains(&AttributeId::Modality) || changed.contains(&AttributeId::AnatomicRegionSequence) {
                self.changes.studies_to_summarise.insert(study);
            }
            return Ok((row, said));
        }
        let elsewhere: bool = self
            .statement("SELECT EXISTS (SELECT 1 FROM study_series WHERE series_instance_uid = ?1)")?
            .query_row([series_uid], |row| row.get(0))?;
        self.changes.tally.conflicts += u64::from(elsewhere);
        *self.changes.series_per_study.entry(study).or_default() += 1;
        self.changes.studies_to_summarise.insert(study);
        Ok((self.insert_entity(QueryRetrieveLevel::Series, record, ("study", study))?, None))
    }

    /// Inserts the row of a study or series with all that the record says of it, and the row above it.
    fn insert_entity(
        &mut self,
        level: QueryRetrieveLevel,
        record: &InstanceRecord,
        (above, above_row): (&str, i64),
    ) -> Result<i64> {
        let character_set = record.value(AttributeId::SpecificCharacterSet);
        let mut columns = vec!["character_set", above];
        let mut values: Vec<&dyn rusqlite::ToSql> = vec![&character_set, &above_row];
        let texts: Vec<&str> = stored_at(level).iter().map(|&id| record.value(id)).collect();
        for (id, text) in stored_at(level).iter().zip(&texts) {
            columns.push(id.attribute().column);
            values.push(text);
        }
        let marks = vec!["?"; columns.len()].join(", ");
        self.statement(&format!("INSERT INTO {} ({}) VALUES ({marks})", table_of(level), columns.join(", ")))?
            .execute(params_from_iter(values))?;
        Ok(self.connection.last_insert_rowid())
    }

    /// Lets a study or series take account of what a record says of it. Returns the attributes that have changed, and what the record
    /// says where that is not what the row says then.
    fn merge(
        &mut self,
        level: QueryRetrieveLevel,
        row: i64,
        record: &InstanceRecord,
    ) -> Result<(Vec<AttributeId>, Option<i64>)> {
        let known = self.values_of(level, row, |id, known| record.value(id) == known)?;
        let Some(known) = known else { return Ok((Vec::new(), None)) };
        let mut values = known.clone();
        let mut is_as_said = true;
        for (value, &id) in values.iter_mut().zip(stored_at(level)) {
            let said = record.value(id);
            if rules::is_more_complete(id.attribute().vr, said, value) {
                said.clone_into(value);
            }
            is_as_said &= said == value.as_str();
        }
        let mut changed = Vec::new();
        if values != known {
            self.freeze(level, row, &known)?;
            changed = self.write_values(level, row, &known, &values)?;
            self.statement(&format!("UPDATE {} SET character_set = ?2 WHERE id = ?1", table_of(level)))?
                .execute(params![row, record.value(AttributeId::SpecificCharacterSet)])?;
        }
        if is_as_said {
            return Ok((changed, None));
        }
        let said: Vec<&str> = stored_at(level).iter().map(|&id| record.value(id)).collect();
        Ok((changed, Some(self.intern(level, &said)?)))
    }

    /// The values of an entity in the order of [`stored_at`]; `None` where `is_known` holds for each.
    pub(super) fn values_of(
        &self,
        level: QueryRetrieveLevel,
        row: i64,
        is_known: impl Fn(AttributeId, &str) -> bool,
    ) -> Result<Option<Vec<String>>> {
        let mut select = self.statement(select_all(level))?;
        let mut rows = select.query([row])?;
        let current = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let text = |at: usize| -> Result<&str> { Ok(current.get_ref(at)?.as_str()?) };
        for (at, &id) in stored_at(level).iter().enumerate() {
            if !is_known(id, text(at)?) {
                return (0..stored_at(level).len())
                    .map(|at| text(at).map(str::to_owned))
                    .collect::<Result<_>>()
                    .map(Some);
            }
        }
        Ok(None)
    }

    /// Writes those values of a study or series that have changed, and returns which they are.
    pub(super) fn write_values(
        &mut self,
        level: QueryRetrieveLevel,
        row: i64,
        known: &[String],
        values: &[String],
    ) -> Result<Vec<AttributeId>> {
        // What was remembered of this entity and of what belongs to it does not hold any more.
        self.forget_belongings();
        let mut changed = Vec::new();
        let mut columns = Vec::new();
        let mut texts: Vec<&str> = Vec::new();
        for ((&id, known), value) in stored_at(level).iter().zip(known).zip(values) {
            if known != value {
                changed.push(id);
                columns.push(id.attribute().column);
                texts.push(value);
            }
        }
        let settings: Vec<_> = columns.iter().enumerate().map(|(at, c)| format!("{c} = ?{}", at + 2)).collect();
        let parameters =
            std::iter::once(&row as &dyn rusqlite::ToSql).chain(texts.iter().map(|text| text as &dyn rusqlite::ToSql));
        self.statement(&format!("UPDATE {} SET {} WHERE id = ?1", table_of(level), settings.join(", ")))?
            .execute(params_from_iter(parameters))?;
        Ok(changed)
    }
}

/// The kept attributes of a level.
pub(super) fn stored_at(level: QueryRetrieveLevel) -> &'static [AttributeId] {
    static STORED: OnceLock<[Vec<AttributeId>; 4]> = OnceLock::new();
    let by_level = STORED.get_or_init(|| {
        QueryRetrieveLevel::ALL
            .map(|level| ATTRIBUTES.iter().filter(|a| a.level == level && a.is_stored()).map(|a| a.id).collect())
    });
    &by_level[level as usize]
}

/// The levels above the instance.
pub(super) const UPPER: [QueryRetrieveLevel; 3] =
    [QueryRetrieveLevel::Patient, QueryRetrieveLevel::Study, QueryRetrieveLevel::Series];

/// The attributes of patient, study and series that are kept.
fn stored_above() -> &'static [AttributeId] {
    static STORED: OnceLock<Vec<AttributeId>> = OnceLock::new();
    STORED.get_or_init(|| UPPER.into_iter().flat_map(|level| stored_at(level).iter().copied()).collect())
}

pub(super) fn is_stored_above(id: AttributeId) -> bool {
    let attribute = id.attribute();
    attribute.level != QueryRetrieveLevel::Image && attribute.is_stored()
}

pub(super) const fn table_of(level: QueryRetrieveLevel) -> &'static str {
    match level {
        QueryRetrieveLevel::Patient => "patient",
        QueryRetrieveLevel::Study => "study",
        QueryRetrieveLevel::Series => "study_series",
        QueryRetrieveLevel::Image => "instance_group",
    }
}

/// All kept attributes of an entity, in the order of [`stored_at`].
fn select_all(level: QueryRetrieveLevel) -> &'static str {
    static SQL: OnceLock<[String; 4]> = OnceLock::new();
    let all = SQL.get_or_init(|| {
        QueryRetrieveLevel::ALL.map(|level| {
            let columns: Vec<_> = stored_at(level).iter().map(|id| format!("\"{}\"", id.attribute().column)).collect();
            format!("SELECT {} FROM {} WHERE id = ?1", columns.join(", "), table_of(level))
        })
    });
    &all[level as usize]
}
