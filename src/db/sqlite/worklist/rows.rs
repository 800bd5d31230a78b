//! Rows of the worklist, as SQL has them.

use rusqlite::Row;
use rusqlite::types::FromSqlError;

use crate::db::worklist_columns::{ITEM, source_of, state_of};
use crate::db::{PerformedStep, WorklistColumn, WorklistRow, WorklistSource, WorklistState};

pub(super) fn state(number: i64) -> rusqlite::Result<WorklistState> {
    state_of(number).ok_or_else(|| FromSqlError::OutOfRange(number).into())
}

pub(super) fn source(number: i64) -> rusqlite::Result<WorklistSource> {
    source_of(number).ok_or_else(|| FromSqlError::OutOfRange(number).into())
}

fn texts(json: &str) -> rusqlite::Result<Vec<String>> {
    serde_json::from_str(json).map_err(|error| FromSqlError::Other(Box::new(error)).into())
}

/// Reads an item.
pub(super) fn row(row: &Row<'_>) -> rusqlite::Result<WorklistRow> {
    let mut values: [String; WorklistColumn::ALL.len()] = Default::default();
    for (at, value) in values.iter_mut().enumerate() {
        *value = row.get(1 + at)?;
    }
    Ok(WorklistRow {
        id: row.get(0)?,
        values,
        item: row.get(ITEM)?,
        character_set: row.get(ITEM + 1)?,
        order_key: row.get(ITEM + 2)?,
        source: source(row.get(ITEM + 3)?)?,
        origin: row.get(ITEM + 4)?,
        generated: texts(row.get_ref(ITEM + 5)?.as_str()?)?,
        warnings: texts(row.get_ref(ITEM + 6)?.as_str()?)?,
        state: state(row.get(ITEM + 7)?)?,
        received_ms: row.get(ITEM + 8)?,
        changed_ms: row.get(ITEM + 9)?,
        expires_ms: row.get(ITEM + 10)?,
        message_time: row.get(ITEM + 11)?,
    })
}

/// Reads a performed step.
pub(super) fn performed_step(row: &Row<'_>) -> rusqlite::Result<PerformedStep> {
    Ok(PerformedStep {
        sop_instance_uid: row.get(0)?,
        status: row.get(1)?,
        station_ae_title: row.get(2)?,
        attributes: row.get(3)?,
        sender: row.get(4)?,
        created_ms: row.get(5)?,
        changed_ms: row.get(6)?,
    })
}
