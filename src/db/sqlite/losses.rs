//! Losses of entities that stay, as questions see them (docs/adr/0061).

use rusqlite::Connection;

use super::schema::LOSSES;

/// The rows of `loss`, as SQL has them behind FROM. An index in which nothing was lost lacks the
/// table.
pub(super) fn losses(connection: &Connection) -> rusqlite::Result<&'static str> {
    const NONE: &str = "(SELECT '' AS level, 0 AS id, 0 AS change, 0 AS changed_ms WHERE false)";
    Ok(if LOSSES.are_in(connection)? { "loss" } else { NONE })
}
