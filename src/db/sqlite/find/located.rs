//! Locations in the answers to a query. They come with the rows, because a look-up of each instance
//! costs three times as much as its row.

use rusqlite::{Connection, Row, params};

use super::super::packing::naming;
use super::super::sql_values::{PathValue, path_from_sql, place_from_number, to_u64};
use crate::model::location::Location;

/// The columns that [`LocationColumns`] reads.
pub(super) const LOCATION_COLUMNS: &[&str] = &[
    "d.place",
    "d.path",
    "i.file_name",
    "h.file_prefix",
    "h.file_suffix",
    "h.file_digits",
    "h.size_base + i.size",
    "h.mtime_base + i.mtime",
    "d.id",
    "dcm_uid(i.uid_suffix, h.uid_prefix)",
];

/// Reads the first location of an instance from its row.
pub(super) struct LocationColumns<'c> {
    connection: &'c Connection,
    /// The first of [`LOCATION_COLUMNS`].
    at: usize,
    /// Whether the index knows any file that was gone when a scan looked.
    some_are_missing: bool,
}

impl<'c> LocationColumns<'c> {
    pub(super) fn new(connection: &'c Connection, at: usize) -> rusqlite::Result<Self> {
        let some_are_missing =
            connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM missing_file)")?.query_row([], |row| row.get(0))?;
        Ok(Self { connection, at, some_are_missing })
    }

    /// The location. `None` if its file was gone when a scan looked: another copy may be there.
    pub(super) fn read(&self, row: &Row<'_>) -> rusqlite::Result<Option<Box<Location>>> {
        let at = self.at;
        let uid = row.get_ref(at + 9)?.as_str()?;
        let file_name = naming(row, at + 3)?.unpack(row.get_ref(at + 2)?, uid)?;
        if self.some_are_missing {
            let is_missing: bool = self
                .connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM missing_file WHERE directory = ?1 AND file_name = ?2)")?
                .query_row(params![row.get::<_, i64>(at + 8)?, PathValue(&file_name)], |row| row.get(0))?;
            if is_missing {
                return Ok(None);
            }
        }
        Ok(Some(Box::new(Location {
            place: place_from_number(row.get(at)?)?,
            directory: path_from_sql(row.get_ref(at + 1)?)?.into(),
            file_name,
            size: to_u64(row.get(at + 6)?),
            mtime_ms: row.get(at + 7)?,
        })))
    }
}
