//! Rows of events (docs/adr/0042).

use rusqlite::{Connection, params};

use super::rows::Result;
use super::tables::Tables;
use crate::db::event_notes::NewEvent;

/// Writes the events of a transaction with the number of its change, or 0 if nothing else has
/// changed.
pub(super) fn write_events(tables: &mut Tables<'_>) -> Result<()> {
    let change = tables.origins.change_so_far();
    let events = tables.changes.events.take().map_err(of_json)?;
    insert_events(tables.connection, (change, tables.clock.now_ms()), &events)
}

/// Inserts events with the number of their change and the time.
pub(in super::super) fn insert_events(
    connection: &Connection,
    (change, now_ms): (i64, i64),
    events: &[NewEvent],
) -> Result<()> {
    for NewEvent { kind, study_instance_uid, content } in events {
        connection
            .prepare_cached(
                "INSERT INTO event (at_ms, kind, study_instance_uid, change, content) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![now_ms, kind.as_str(), study_instance_uid, change, content])?;
    }
    Ok(())
}

/// An error of JSON as one of the index.
pub(super) fn of_json(error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(error.into())
}
