//! Studies and series: found or made for a record, and what its values mean for rows that are
//! there.
//!
//! A value of an entity is the most complete one that any of its objects has (docs/adr/0008). An
//! instance group keeps what its objects state where that differs (docs/adr/0011). So the value can
//! follow when objects are corrected or removed. See [`super::asserted_values`].

use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use super::super::columns::{stored_at, table_of};
use super::asserted_values::{AssertedValues, instance_groups_of, value_in};
use super::caches::ParentCache;
use super::changes::{Changes, Recompute};
use super::entities::{values_of, values_unless};
use super::patients::Patients;
use super::rows::{NamedPatient, ParentRows, Result};
use crate::db::rules;
use crate::model::attribute::AttributeId;
use crate::model::level::QueryRetrieveLevel;
use crate::model::record::InstanceRecord;

/// The kind of conflict in which objects of one series name two studies.
const SERIES_UNDER_TWO_STUDIES: &str = "series-under-two-studies";

/// The rows of studies and series.
pub(super) struct Parents<'c> {
    connection: &'c Connection,
    asserted: AssertedValues<'c>,
    pub(super) patients: Patients<'c>,
    cache: ParentCache,
}

impl<'c> Parents<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self {
            connection,
            asserted: AssertedValues::new(connection),
            patients: Patients::new(connection),
            cache: ParentCache::default(),
        }
    }

    pub(super) fn cache_is_large(&self) -> bool {
        self.cache.is_large()
    }

    /// Forgets where records belong.
    pub(super) fn forget(&mut self) {
        self.cache.clear();
    }

    /// Finds or makes the rows of the record's patient, study and series, and merges its values
    /// into them.
    ///
    /// Sets [`Changes::parents_changed`] if rows have changed. Nothing else that is remembered of
    /// parents holds then.
    pub(super) fn rows(&mut self, record: &InstanceRecord, changes: &mut Changes) -> Result<ParentRows> {
        let key = self.cache.key_of(record);
        if let Some(known) = self.cache.get(key) {
            return Ok(known);
        }
        let (study, patient, study_values) = self.study(record, changes)?;
        let (series, series_values) = self.series(record, study, changes)?;
        let parents = ParentRows {
            series,
            study,
            patient: (patient.first != patient.own).then_some(patient.own),
            said: [patient.said, study_values, series_values],
            values: key.values,
        };
        if changes.parents_changed {
            self.cache.clear();
        }
        self.cache.insert(key, parents);
        Ok(parents)
    }

    /// The row of the record's study, its patients, and the asserted values of the study.
    fn study(&self, record: &InstanceRecord, changes: &mut Changes) -> Result<(i64, NamedPatient, Option<i64>)> {
        let found: Option<(i64, i64)> = self
            .connection
            .prepare_cached("SELECT id, patient FROM study WHERE study_instance_uid = ?1")?
            .query_row([record.value(AttributeId::StudyInstanceUID)], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((row, first)) = found else {
            let patient = self.patients.of_new_study(record, changes)?;
            let row = self.insert(QueryRetrieveLevel::Study, record, ("patient", patient.own))?;
            return Ok((row, patient, None));
        };
        let patient = self.patients.of_record(row, first, record, changes)?;
        let said = self.merge(QueryRetrieveLevel::Study, row, record, changes)?.said;
        Ok((row, patient, said))
    }

    /// The row of the record's series, and its asserted values.
    fn series(&self, record: &InstanceRecord, study: i64, changes: &mut Changes) -> Result<(i64, Option<i64>)> {
        let series_uid = record.value(AttributeId::SeriesInstanceUID);
        let found: Option<i64> = self
            .connection
            .prepare_cached("SELECT id FROM study_series WHERE series_instance_uid = ?1 AND study = ?2")?
            .query_row(params![series_uid, study], |row| row.get(0))
            .optional()?;
        if let Some(row) = found {
            let merged = self.merge(QueryRetrieveLevel::Series, row, record, changes)?;
            if is_summarised(&merged.changed) {
                changes.studies_to_summarise.insert(study);
            }
            return Ok((row, merged.said));
        }
        let elsewhere: bool = self
            .connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM study_series WHERE series_instance_uid = ?1)")?
            .query_row([series_uid], |row| row.get(0))?;
        if elsewhere {
            changes.note_conflict(SERIES_UNDER_TWO_STUDIES, Some(record));
        }
        changes.counts.add_series(study);
        changes.studies_to_summarise.insert(study);
        Ok((self.insert(QueryRetrieveLevel::Series, record, ("study", study))?, None))
    }

    /// Inserts a study or series with all that the record states of it, and the row above it.
    fn insert(
        &self,
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
        self.connection
            .prepare_cached(&format!("INSERT INTO {} ({}) VALUES ({marks})", table_of(level), columns.join(", ")))?
            .execute(params_from_iter(values))?;
        Ok(self.connection.last_insert_rowid())
    }

    /// Merges what a record states of a study or series into its row.
    fn merge(
        &self,
        level: QueryRetrieveLevel,
        row: i64,
        record: &InstanceRecord,
        changes: &mut Changes,
    ) -> Result<MergedValues> {
        let known = values_unless(self.connection, level, row, |id, known| record.value(id) == known)?;
        let Some(known) = known else { return Ok(MergedValues::default()) };
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
            self.asserted.freeze(level, row, &known)?;
            changed = self.write(level, row, (&known, &values), changes)?;
            self.connection
                .prepare_cached(&format!("UPDATE {} SET character_set = ?2 WHERE id = ?1", table_of(level)))?
                .execute(params![row, record.value(AttributeId::SpecificCharacterSet)])?;
        }
        if is_as_said {
            return Ok(MergedValues { changed, said: None });
        }
        let said: Vec<&str> = stored_at(level).iter().map(|&id| record.value(id)).collect();
        Ok(MergedValues { changed, said: Some(self.asserted.row(level, &said)?) })
    }

    /// Writes the values of a study or series that have changed. Returns which they are.
    fn write(
        &self,
        level: QueryRetrieveLevel,
        row: i64,
        (known, values): (&[String], &[String]),
        changes: &mut Changes,
    ) -> Result<Vec<AttributeId>> {
        changes.parents_changed = true;
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
        self.connection
            .prepare_cached(&format!("UPDATE {} SET {} WHERE id = ?1", table_of(level), settings.join(", ")))?
            .execute(params_from_iter(parameters))?;
        Ok(changed)
    }

    /// Computes anew all that [`Changes`] names: series, studies, and the patients of studies.
    pub(super) fn recompute_all(&self, changes: &mut Changes) -> Result<()> {
        for (series, recompute) in std::mem::take(&mut changes.series_to_recompute) {
            self.recompute(QueryRetrieveLevel::Series, series, recompute, changes)?;
        }
        for (study, recompute) in std::mem::take(&mut changes.studies_to_recompute) {
            self.patients.recompute_of_study(study, recompute, changes)?;
            self.recompute(QueryRetrieveLevel::Study, study, recompute, changes)?;
        }
        Ok(())
    }

    /// Computes the values of a study or series anew.
    fn recompute(
        &self,
        level: QueryRetrieveLevel,
        row: i64,
        recompute: Recompute,
        changes: &mut Changes,
    ) -> Result<()> {
        let (column, own) = instance_groups_of(level);
        // While an instance group agrees with the row, the others are less complete.
        let some_agree: bool = self
            .connection
            .prepare_cached(&format!("SELECT EXISTS (SELECT 1 FROM instance_group WHERE {own} AND {column} IS NULL)"))?
            .query_row([row], |found| found.get(0))?;
        if some_agree && recompute == Recompute::IfLeft {
            return Ok(());
        }
        let said: Vec<i64> = self
            .connection
            .prepare_cached(&format!(
                "SELECT DISTINCT {column} FROM instance_group WHERE {own} AND {column} IS NOT NULL"
            ))?
            .query_map([row], |found| found.get(0))?
            .collect::<Result<_>>()?;
        if said.is_empty() {
            return Ok(());
        }
        let known = values_of(self.connection, level, row)?;
        let mut values = if some_agree { known.clone() } else { vec![String::new(); known.len()] };
        for &said in &said {
            let said = self.asserted.values(said)?;
            for (value, &id) in values.iter_mut().zip(stored_at(level)) {
                if rules::is_more_complete(id.attribute().vr, value_in(&said, id), value) {
                    value_in(&said, id).clone_into(value);
                }
            }
        }
        if values != known {
            if some_agree {
                self.asserted.freeze(level, row, &known)?;
            }
            let changed = self.write(level, row, (&known, &values), changes)?;
            if level == QueryRetrieveLevel::Series && is_summarised(&changed) {
                let study = self
                    .connection
                    .prepare_cached("SELECT study FROM study_series WHERE id = ?1")?
                    .query_row([row], |found| found.get(0))?;
                changes.studies_to_summarise.insert(study);
            }
        }
        self.forget_agreed(level, row, &values, changes)
    }

    /// Sets the asserted values of the instance groups that agree with their row now to NULL.
    fn forget_agreed(
        &self,
        level: QueryRetrieveLevel,
        row: i64,
        values: &[String],
        changes: &mut Changes,
    ) -> Result<()> {
        let (column, own) = instance_groups_of(level);
        if let Some(same) = self.asserted.find_row(level, values)? {
            self.connection
                .prepare_cached(&format!("UPDATE instance_group SET {column} = NULL WHERE {column} = ?2 AND {own}"))?
                .execute([row, same])?;
            self.asserted.drop_unused(same)?;
            changes.parents_changed = true;
        }
        Ok(())
    }
}

/// Result of a merge.
#[derive(Default)]
struct MergedValues {
    /// Attributes whose value in the row has changed.
    changed: Vec<AttributeId>,
    /// The asserted values of the record, if it does not agree with the row.
    said: Option<i64>,
}

/// Whether the row of the study has a summary of one of these attributes of its series.
fn is_summarised(changed: &[AttributeId]) -> bool {
    changed.contains(&AttributeId::Modality) || changed.contains(&AttributeId::AnatomicRegionSequence)
}
