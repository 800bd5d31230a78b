//! Migration of an index of an earlier schema version to what the writer of this version would have
//! made.

use std::sync::Arc;

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, params};

use super::super::columns::stored_at;
use super::super::functions;
use super::changes::Recompute;
use super::commit::write_changes;
use super::patients::values_hash;
use super::rows::Result;
use super::tables::Tables;
use crate::db::EventRecording;
use crate::model::clock::Clock;
use crate::model::declared::DeclaredSet;
use crate::model::level::QueryRetrieveLevel;

/// Rows that are handled at a time, so that memory does not grow with the index.
const ROWS_AT_A_TIME: i64 = 1000;

/// The index on `patient` that [`number_descriptions`] makes. schema.sql has it, too.
const PATIENT_BY_ID: &str = "CREATE INDEX patient_by_id ON patient (patient_id, identity, issuer_of_patient_id, \
     patient_birth_date, values_hash)";

/// Gives each study of an index of version 1 the patient that its own objects name. Each study and
/// series gets the values that count now. It runs in the transaction of the migration, on tables of
/// this version.
///
/// A row of version 1 agrees with its instance groups, unless they keep other values. It stays as
/// it is if none of them does. So the time depends on the number of the others, and never on that
/// of instances.
pub(in super::super) fn from_version_1(connection: &Connection) -> Result<()> {
    functions::register(connection)?;
    number_descriptions(connection)?;
    recompute_everything(&mut Tables::new(
        connection,
        Clock::Fixed(0),
        Arc::clone(DeclaredSet::none()),
        EventRecording::Off,
    )?)
}

fn number_descriptions(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("dcm_values_hash", -1, flags, |context| {
        let values: Vec<&str> =
            (0..context.len()).map(|at| context.get_raw(at).as_str()).collect::<std::result::Result<_, _>>()?;
        Ok(values_hash(values.into_iter()))
    })?;
    let columns: Vec<_> = stored_at(QueryRetrieveLevel::Patient).iter().map(|id| id.attribute().column).collect();
    connection.execute(&format!("UPDATE patient SET values_hash = dcm_values_hash({})", columns.join(", ")), [])?;
    connection.execute_batch(PATIENT_BY_ID)
}

fn recompute_everything(tables: &mut Tables<'_>) -> Result<()> {
    in_portions(
        tables,
        "SELECT id FROM patient p WHERE id > ?1 AND EXISTS (SELECT 1 FROM patient o WHERE o.patient_id = p.patient_id \
         AND o.identity = p.identity AND o.id <> p.id) ORDER BY id LIMIT ?2",
        touch_patient,
    )?;
    in_portions(
        tables,
        "SELECT id FROM study_series e WHERE id > ?1 AND EXISTS (SELECT 1 FROM instance_group h WHERE h.series = e.id \
         AND h.series_values IS NOT NULL) ORDER BY id LIMIT ?2",
        |tables, row| {
            tables.changes.series_to_recompute.insert(row, Recompute::Always);
            Ok(())
        },
    )?;
    in_portions(
        tables,
        "SELECT id FROM study s WHERE id > ?1 AND EXISTS (SELECT 1 FROM study_series e JOIN instance_group h \
         ON h.series = e.id WHERE e.study = s.id AND (h.patient IS NOT NULL OR h.patient_values IS NOT NULL \
         OR h.study_values IS NOT NULL)) ORDER BY id LIMIT ?2",
        |tables, row| {
            tables.changes.studies_to_recompute.insert(row, Recompute::Always);
            Ok(())
        },
    )?;
    // Each value once, even if a series has several.
    in_portions(
        tables,
        "SELECT id FROM study WHERE id > ?1 AND instr(modalities_in_study, '\\') ORDER BY id LIMIT ?2",
        |tables, row| {
            tables.changes.studies_to_summarise.insert(row);
            Ok(())
        },
    )
}

/// Notes that the descriptions under the Patient ID of this one have to be compared.
fn touch_patient(tables: &mut Tables<'_>, row: i64) -> Result<()> {
    let (key, issuer) = tables
        .connection
        .prepare_cached("SELECT patient_id, identity, issuer_of_patient_id FROM patient WHERE id = ?1")?
        .query_row([row], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
    let touched = tables.changes.touched_patients.entry(key).or_default();
    touched.added.insert(row);
    touched.issuers.insert(issuer);
    Ok(())
}

/// Does something for each row that a statement finds, in the order of their numbers.
fn in_portions(tables: &mut Tables<'_>, sql: &str, each: fn(&mut Tables<'_>, i64) -> Result<()>) -> Result<()> {
    let mut last = 0;
    loop {
        let rows: Vec<i64> = tables
            .connection
            .prepare_cached(sql)?
            .query_map(params![last, ROWS_AT_A_TIME], |row| row.get(0))?
            .collect::<Result<_>>()?;
        let Some(&end) = rows.last() else { return Ok(()) };
        for row in rows {
            each(tables, row)?;
        }
        last = end;
        write_changes(tables)?;
    }
}
