//! What objects say of their patient, study and series: kept where it is not what those rows say, so that they can follow
//! exactly when objects are corrected or go (docs/adr/0011).
//!
//! All instances of an instance group say the same. `instance_group.patient_values`, `study_values` and `series_values` are NULL where that is what
//! the row says, which is nearly always so. Before a row changes, the instance groups that agree with it get what it said until
//! then ([`Batch::freeze`]): that happens to each instance group once. When the last instance group that agrees with a row is gone, the row is
//! worked out anew from what the others say ([`Batch::recompute`], [`Batch::recompute_patients_of`]).

use rusqlite::{OptionalExtension, params};
use xxhash_rust::xxh3::xxh3_64;

use super::super::columns::stored_at;
use super::super::sql_values::json_object;
use super::batch::Batch;
use super::changes::Recompute;
use super::rows::Result;
use crate::db::rules;
use crate::model::attribute::{Attribute, AttributeId};
use crate::model::level::QueryRetrieveLevel;
use crate::model::record::InstanceRecord;

/// A JSON object of those values that are not empty, by column.
fn to_text<'v>(values: impl Iterator<Item = (AttributeId, &'v str)>) -> String {
    let object: serde_json::Map<_, _> = values
        .filter(|(_, value)| !value.is_empty())
        .map(|(id, value)| (id.attribute().column.to_owned(), value.into()))
        .collect();
    serde_json::Value::Object(object).to_string()
}

/// The values that [`to_text`] wrote.
fn from_text(text: &str) -> Result<serde_json::Map<String, serde_json::Value>> {
    json_object(Some(text))
}

fn value_in(values: &serde_json::Map<String, serde_json::Value>, id: AttributeId) -> &str {
    values.get(id.attribute().column).and_then(serde_json::Value::as_str).unwrap_or_default()
}

/// All that is kept of a record.
pub(super) fn record_text(record: &InstanceRecord) -> String {
    to_text(QueryRetrieveLevel::ALL.iter().flat_map(|&level| stored_at(level)).map(|&id| (id, record.value(id))))
}

/// The record of which [`record_text`] is this.
pub(super) fn record_of_text(text: &str) -> Result<InstanceRecord> {
    let mut record = InstanceRecord::new();
    for (column, value) in from_text(text)? {
        if let (Some(attribute), Some(value)) = (Attribute::by_column(&column), value.as_str()) {
            record.set(attribute.id, value);
        }
    }
    Ok(record)
}

/// The column of `instance_group` for a study or series, and which instance groups belong to the entity `?1`.
const fn instance_groups_of(level: QueryRetrieveLevel) -> (&'static str, &'static str) {
    match level {
        QueryRetrieveLevel::Patient | QueryRetrieveLevel::Study => {
            ("study_values", "series IN (SELECT id FROM study_series WHERE study = ?1)")
        }
        QueryRetrieveLevel::Series | QueryRetrieveLevel::Image => ("series_values", "series = ?1"),
    }
}

impl Batch<'_> {
    /// The row of `asserted_values` for these values in the order of [`stored_at`].
    pub(super) fn intern(&self, level: QueryRetrieveLevel, values: &[impl AsRef<str>]) -> Result<i64> {
        let text = to_text(stored_at(level).iter().copied().zip(values.iter().map(AsRef::as_ref)));
        if let Some(known) = self.said(&text)? {
            return Ok(known);
        }
        self.statement("INSERT INTO asserted_values (hash, text) VALUES (?1, ?2)")?
            .execute(params![hash_of(&text), text])?;
        Ok(self.connection.last_insert_rowid())
    }

    fn said(&self, text: &str) -> Result<Option<i64>> {
        self.statement("SELECT id FROM asserted_values WHERE hash = ?1 AND text = ?2")?
            .query_row(params![hash_of(text), text], |row| row.get(0))
            .optional()
    }

    /// Sets what an instance group says into a record.
    pub(super) fn set_said(&self, level: QueryRetrieveLevel, said: i64, record: &mut InstanceRecord) -> Result<()> {
        let values = self.said_values(said)?;
        for &id in stored_at(level) {
            record.set(id, value_in(&values, id));
        }
        Ok(())
    }

    fn said_values(&self, said: i64) -> Result<serde_json::Map<String, serde_json::Value>> {
        self.statement("SELECT text FROM asserted_values WHERE id = ?1")?
            .query_row([said], |row| from_text(row.get_ref(0)?.as_str()?))
    }

    /// Before a study or series changes: the instance groups that agreed with it keep what they say.
    pub(super) fn freeze(&self, level: QueryRetrieveLevel, row: i64, values: &[String]) -> Result<()> {
        let said = self.intern(level, values)?;
        let (column, own) = instance_groups_of(level);
        self.statement(&format!("UPDATE instance_group SET {column} = ?2 WHERE {column} IS NULL AND {own}"))?
            .execute([row, said])?;
        self.drop_unused(said)
    }

    /// Drops a row of `asserted_values` that no instance group refers to.
    pub(super) fn drop_unused(&self, said: i64) -> Result<()> {
        self.statement(
            "DELETE FROM asserted_values WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM instance_group WHERE patient_values = ?1) \
             AND NOT EXISTS (SELECT 1 FROM instance_group WHERE study_values = ?1) \
             AND NOT EXISTS (SELECT 1 FROM instance_group WHERE series_values = ?1)",
        )?
        .execute([said])?;
        Ok(())
    }

    /// What an instance group says, in the order of [`stored_at`].
    pub(super) fn said_in_order(&self, level: QueryRetrieveLevel, said: i64) -> Result<Vec<String>> {
        let values = self.said_values(said)?;
        Ok(stored_at(level).iter().map(|&id| value_in(&values, id).to_owned()).collect())
    }

    /// Works out anew what a study or series says.
    pub(super) fn recompute(&mut self, level: QueryRetrieveLevel, row: i64, recompute: Recompute) -> Result<()> {
        let (column, own) = instance_groups_of(level);
        // While an instance group agrees with the row, the others are less complete.
        let some_agree: bool = self
            .statement(&format!("SELECT EXISTS (SELECT 1 FROM instance_group WHERE {own} AND {column} IS NULL)"))?
            .query_row([row], |found| found.get(0))?;
        if some_agree && recompute == Recompute::IfLeft {
            return Ok(());
        }
        let said: Vec<i64> = self
            .statement(&format!("SELECT DISTINCT {column} FROM instance_group WHERE {own} AND {column} IS NOT NULL"))?
            .query_map([row], |found| found.get(0))?
            .collect::<Result<_>>()?;
        if said.is_empty() {
            return Ok(());
        }
        let Some(known) = self.values_of(level, row, |_, _| false)? else { return Ok(()) };
        let mut values = if some_agree { known.clone() } else { vec![String::new(); known.len()] };
        for &said in &said {
            let said = self.said_values(said)?;
            for (value, &id) in values.iter_mut().zip(stored_at(level)) {
                if rules::is_more_complete(id.attribute().vr, value_in(&said, id), value) {
                    value_in(&said, id).clone_into(value);
                }
            }
        }
        if values != known {
            if some_agree {
                self.freeze(level, row, &known)?;
            }
            let changed = self.write_values(level, row, &known, &values)?;
            if changed.contains(&AttributeId::Modality) || changed.contains(&AttributeId::AnatomicRegionSequence) {
                let study = self
                    .statement("SELECT study FROM study_series WHERE id = ?1")?
                    .query_row([row], |found| found.get(0))?;
                self.changes.studies_to_summarise.insert(study);
            }
        }
        // Those that say the same as the row now.
        let text = to_text(stored_at(level).iter().copied().zip(values.iter().map(String::as_str)));
        if let Some(same) = self.said(&text)? {
            self.statement(&format!("UPDATE instance_group SET {column} = NULL WHERE {column} = ?2 AND {own}"))?
                .execute([row, same])?;
            self.drop_unused(same)?;
            self.forget_parents();
        }
        Ok(())
    }
}

fn hash_of(text: &str) -> i64 {
    i64::from_ne_bytes(xxh3_64(text.as_bytes()).to_ne_bytes())
}
