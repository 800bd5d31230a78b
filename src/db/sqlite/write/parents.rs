//! Studies and series: found or made for a record, and what its values mean for those that are there. Their patients are in
//! [`super::patients`].
//!
//! The value of an entity is the most complete one that any of its objects has (docs/adr/0008). So that it can follow when
//! objects are corrected or go, an instance group keeps what its objects say where that differs (docs/adr/0011): see
//! [`super::asserted_values`].

use rusqlite::{OptionalExtension, params, params_from_iter};

use super::super::columns::{select_all, stored_at, table_of};
use super::batch::Batch;
use super::rows::{NamedPatient, ParentRows, Result};
use crate::db::rules;
use crate::model::attribute::AttributeId;
use crate::model::level::QueryRetrieveLevel;
use crate::model::record::InstanceRecord;

impl Batch<'_> {
    /// The rows of the record's patient, study and series, which from now on take account of it.
    pub(super) fn parent_rows(&mut self, record: &InstanceRecord) -> Result<ParentRows> {
        let key = self.parents.key_of(record);
        if let Some(known) = self.parents.get(key) {
            return Ok(known);
        }
        let (study, patient, study_values) = self.study(record)?;
        let (series, series_values) = self.series_row(record, study)?;
        let parents = ParentRows {
            series,
            study,
            patient: (patient.first != patient.own).then_some(patient.own),
            said: [patient.said, study_values, series_values],
            values: key.values,
        };
        self.parents.insert(key, parents);
        Ok(parents)
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
        self.forget_parents();
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
