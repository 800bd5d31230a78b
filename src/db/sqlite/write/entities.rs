//! The values of patients, studies and series as their rows have them.

use rusqlite::Connection;

use super::super::columns::{select_all, stored_at};
use super::rows::Result;
use crate::model::attribute::AttributeId;
use crate::model::level::QueryRetrieveLevel;

/// Reads the values of an entity in the order of [`stored_at`].
pub(super) fn values_of(connection: &Connection, level: QueryRetrieveLevel, row: i64) -> Result<Vec<String>> {
    Ok(values_unless(connection, level, row, |_, _| false)?.unwrap_or_default())
}

/// Reads the values of an entity, unless `is_known` holds for each of them. Then nothing is copied.
pub(super) fn values_unless(
    connection: &Connection,
    level: QueryRetrieveLevel,
    row: i64,
    is_known: impl Fn(AttributeId, &str) -> bool,
) -> Result<Option<Vec<String>>> {
    let mut select = connection.prepare_cached(select_all(level))?;
    let mut rows = select.query([row])?;
    let current = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let text = |at: usize| -> Result<&str> { Ok(current.get_ref(at)?.as_str()?) };
    for (at, &id) in stored_at(level).iter().enumerate() {
        if !is_known(id, text(at)?) {
            let texts = (0..stored_at(level).len()).map(|at| text(at).map(str::to_owned));
            return texts.collect::<Result<_>>().map(Some);
        }
    }
    Ok(None)
}
