//! Asserted values: what objects state of their patient, study and series where its row has another
//! value. A row can so be computed exactly when objects are corrected or go (docs/adr/0011).
//!
//! All instances of an instance group state the same. `instance_group.patient_values`,
//! `study_values` and `series_values` are NULL where that is what the row says, which is nearly
//! always so. Before a row changes, [`AssertedValues::freeze`] gives the groups that agreed with it
//! what it said until then. That happens to each group once. When the last group that agrees with a
//! row is gone, the row is computed anew from what the others state.

use rusqlite::{Connection, OptionalExtension, params};
use xxhash_rust::xxh3::xxh3_64;

use super::super::columns::stored_at;
use super::super::sql_values::JsonTexts;
use super::rows::Result;
use crate::model::attribute::{Attribute, AttributeId};
use crate::model::level::QueryRetrieveLevel;
use crate::model::record::InstanceRecord;

/// The rows of `asserted_values`. Each stands for one set of values.
#[derive(Clone, Copy)]
pub(super) struct AssertedValues<'c>(&'c Connection);

impl<'c> AssertedValues<'c> {
    pub(super) const fn new(connection: &'c Connection) -> Self {
        Self(connection)
    }

    /// The row for these values, which come in the order of [`stored_at`]. It is made if there is
    /// none.
    pub(super) fn row(self, level: QueryRetrieveLevel, values: &[impl AsRef<str>]) -> Result<i64> {
        let text = text_of_values(level, values);
        if let Some(known) = self.find(&text)? {
            return Ok(known);
        }
        self.0
            .prepare_cached("INSERT INTO asserted_values (hash, text) VALUES (?1, ?2)")?
            .execute(params![hash_of(&text), text])?;
        Ok(self.0.last_insert_rowid())
    }

    /// The row for these values, if there is one.
    pub(super) fn find_row(self, level: QueryRetrieveLevel, values: &[impl AsRef<str>]) -> Result<Option<i64>> {
        self.find(&text_of_values(level, values))
    }

    fn find(self, text: &str) -> Result<Option<i64>> {
        self.0
            .prepare_cached("SELECT id FROM asserted_values WHERE hash = ?1 AND text = ?2")?
            .query_row(params![hash_of(text), text], |row| row.get(0))
            .optional()
    }

    /// The values of a row, by column.
    pub(super) fn values(self, row: i64) -> Result<JsonTexts> {
        self.0
            .prepare_cached("SELECT text FROM asserted_values WHERE id = ?1")?
            .query_row([row], |row| Ok(JsonTexts::read(Some(row.get_ref(0)?.as_str()?))?))
    }

    /// The values of a row in the order of [`stored_at`].
    pub(super) fn in_order(self, level: QueryRetrieveLevel, row: i64) -> Result<Vec<String>> {
        let values = self.values(row)?;
        Ok(stored_at(level).iter().map(|&id| value_in(&values, id).to_owned()).collect())
    }

    /// Sets the values of a row into a record.
    pub(super) fn set_into(self, record: &mut InstanceRecord, level: QueryRetrieveLevel, row: i64) -> Result<()> {
        let values = self.values(row)?;
        for &id in stored_at(level) {
            record.set(id, value_in(&values, id));
        }
        Ok(())
    }

    /// Keeps the values of a study or series, which is about to change, for the instance groups
    /// that agreed with it.
    pub(super) fn freeze(self, level: QueryRetrieveLevel, entity: i64, values: &[String]) -> Result<()> {
        let row = self.row(level, values)?;
        let (column, own) = instance_groups_of(level);
        self.0
            .prepare_cached(&format!("UPDATE instance_group SET {column} = ?2 WHERE {column} IS NULL AND {own}"))?
            .execute([entity, row])?;
        self.drop_unused(row)
    }

    /// Drops a row to which no instance group refers.
    pub(super) fn drop_unused(self, row: i64) -> Result<()> {
        self.0
            .prepare_cached(
                "DELETE FROM asserted_values WHERE id = ?1 \
                 AND NOT EXISTS (SELECT 1 FROM instance_group WHERE patient_values = ?1) \
                 AND NOT EXISTS (SELECT 1 FROM instance_group WHERE study_values = ?1) \
                 AND NOT EXISTS (SELECT 1 FROM instance_group WHERE series_values = ?1)",
            )?
            .execute([row])?;
        Ok(())
    }
}

fn text_of_values(level: QueryRetrieveLevel, values: &[impl AsRef<str>]) -> String {
    to_text(stored_at(level).iter().copied().zip(values.iter().map(AsRef::as_ref)))
}

/// The values that are not empty, as a JSON object by column.
fn to_text<'v>(values: impl Iterator<Item = (AttributeId, &'v str)>) -> String {
    let texts = values.filter(|(_, value)| !value.is_empty());
    texts.map(|(id, value)| (id.attribute().column, value)).collect::<JsonTexts>().into_text()
}

/// The value of an attribute among those of a row.
pub(super) fn value_in(values: &JsonTexts, id: AttributeId) -> &str {
    values.get(id.attribute().column).unwrap_or("")
}

/// All that the index keeps of a record, as a text.
pub(super) fn record_text(record: &InstanceRecord) -> String {
    to_text(QueryRetrieveLevel::ALL.iter().flat_map(|&level| stored_at(level)).map(|&id| (id, record.value(id))))
}

/// The record whose [`record_text`] this is.
pub(in super::super) fn record_of_text(text: &str) -> Result<InstanceRecord> {
    let mut record = InstanceRecord::new();
    for (column, value) in JsonTexts::read(Some(text))?.iter() {
        if let Some(attribute) = Attribute::by_column(column) {
            record.set(attribute.id, value);
        }
    }
    Ok(record)
}

/// The column of `instance_group` for a study or series, and the condition for the instance groups
/// of the entity `?1`.
pub(super) const fn instance_groups_of(level: QueryRetrieveLevel) -> (&'static str, &'static str) {
    match level {
        QueryRetrieveLevel::Patient | QueryRetrieveLevel::Study => {
            ("study_values", "series IN (SELECT id FROM study_series WHERE study = ?1)")
        }
        QueryRetrieveLevel::Series | QueryRetrieveLevel::Image => ("series_values", "series = ?1"),
    }
}

fn hash_of(text: &str) -> i64 {
    i64::from_ne_bytes(xxh3_64(text.as_bytes()).to_ne_bytes())
}
