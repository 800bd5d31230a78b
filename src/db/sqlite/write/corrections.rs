//! The rules of corrections.

use rusqlite::{Connection, Row, params};

use super::super::sql_values::JsonTexts;
use super::asserted_values::AssertedValues;
use super::entities::values_of;
use super::rows::Result;
use crate::db::rules::Description;
use crate::db::{Correction, CorrectionChange};
use crate::model::attribute::{Attribute, AttributeId};
use crate::model::level::QueryRetrieveLevel::Patient;

/// Reads all rules, those that were undone included.
pub(in super::super) fn load(connection: &Connection) -> Result<Vec<Correction>> {
    // One that only an older program has written has no such table.
    let is_known: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'correction')")?
        .query_row([], |row| row.get(0))?;
    if !is_known {
        return Ok(Vec::new());
    }
    connection
        .prepare_cached("SELECT id, made_ms, system, keys, new_values, undone_ms FROM correction ORDER BY id")?
        .query_map([], |row| {
            Ok(Correction {
                number: row.get(0)?,
                made_ms: row.get(1)?,
                system: row.get(2)?,
                keys: values_in(row, 3)?,
                values: values_in(row, 4)?,
                undone_ms: row.get(5)?,
            })
        })?
        .collect()
}

fn values_in(row: &Row<'_>, at: usize) -> Result<Vec<(AttributeId, String)>> {
    let texts = JsonTexts::read(Some(row.get_ref(at)?.as_str()?))?;
    let value = |(column, value): (&str, &str)| {
        let attribute = Attribute::by_column(column).ok_or(rusqlite::types::FromSqlError::InvalidType)?;
        Ok((attribute.id, value.to_owned()))
    };
    texts.iter().map(value).collect()
}

fn text_of_values(values: &[(AttributeId, String)]) -> String {
    values.iter().map(|(id, value)| (id.attribute().column, value.as_str())).collect::<JsonTexts>().into_text()
}

/// Writes a change of the rules. Returns the number of the rule.
pub(super) fn write(connection: &Connection, change: &CorrectionChange) -> Result<i64> {
    match change {
        CorrectionChange::Make(rule) => {
            connection
                .prepare_cached(
                    "INSERT INTO correction (made_ms, system, keys, new_values, undone_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    rule.made_ms,
                    rule.system,
                    text_of_values(&rule.keys),
                    text_of_values(&rule.values),
                    rule.undone_ms
                ])?;
            Ok(connection.last_insert_rowid())
        }
        CorrectionChange::Undo { correction, undone_ms } => {
            connection
                .prepare_cached("UPDATE correction SET undone_ms = ?2 WHERE id = ?1 AND undone_ms IS NULL")?
                .execute(params![correction.number, undone_ms])?;
            Ok(correction.number)
        }
    }
}

/// Description that objects give of their patient: the row of the patient, or the asserted values.
pub(super) fn description_of(connection: &Connection, (row, values): (i64, Option<i64>)) -> Result<Description> {
    match values {
        Some(values) => AssertedValues::new(connection).in_order(Patient, values),
        None => values_of(connection, Patient, row),
    }
}
