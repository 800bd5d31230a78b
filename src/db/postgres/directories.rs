//! The rows of directories.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tokio_postgres::Row;

use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::keys::{DirectoryIds, RowKey, path_from};

/// Directories whose numbers are not known. They may have no row yet.
#[derive(Default)]
pub(super) struct UnknownDirectories {
    pub(super) keys: Vec<RowKey>,
    pub(super) places: Vec<i16>,
}

/// Asks for the rows of [`UnknownDirectories`], by their keys and places.
const DIRECTORIES: &str = "SELECT id, place, path FROM directory WHERE (path_key, place) IN \
     (SELECT * FROM unnest($1::uuid[], $2::smallint[]))";

impl UnknownDirectories {
    /// Finds those of these directories that have no number yet. The next statement makes their
    /// rows.
    pub(super) fn make(
        connection: &mut ServerConnection,
        known: &DirectoryIds,
        wanted: &BTreeSet<(u8, PathBuf)>,
    ) -> Result<Self, ServerFailure> {
        let mut new: Vec<(RowKey, i16, &PathBuf)> = Vec::new();
        for (place, path) in wanted {
            let place = i16::from(*place);
            if !known.contains_key(&(place, path.clone())) {
                new.push((RowKey::of_path(path), place, path));
            }
        }
        if new.is_empty() {
            return Ok(Self::default());
        }
        new.sort();
        let keys: Vec<RowKey> = new.iter().map(|(key, ..)| *key).collect();
        let places: Vec<i16> = new.iter().map(|(_, place, _)| *place).collect();
        let paths: Vec<&[u8]> = new.iter().map(|(.., path)| path.as_os_str().as_encoded_bytes()).collect();
        connection.later(
            "INSERT INTO directory (path_key, place, path) \
             SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::bytea[]) ON CONFLICT DO NOTHING",
            &[&keys, &places, &paths],
        )?;
        Ok(Self { keys, places })
    }

    /// Asks for their rows, by their keys and places. Empty if there are none.
    pub(super) fn question(&self) -> &'static str {
        if self.keys.is_empty() { "" } else { DIRECTORIES }
    }
}

/// Notes the numbers of the rows that [`UnknownDirectories::question`] gave.
pub(super) fn note(known: &mut DirectoryIds, rows: &[Row]) -> Result<(), ServerFailure> {
    for row in rows {
        known.insert((row.try_get(1)?, path_from(row.try_get(2)?)), row.try_get(0)?);
    }
    Ok(())
}

/// Has all of these directories have rows and numbers.
pub(super) fn add(
    connection: &mut ServerConnection,
    known: &mut DirectoryIds,
    wanted: &BTreeSet<(u8, PathBuf)>,
) -> Result<(), ServerFailure> {
    let unknown = UnknownDirectories::make(connection, known, wanted)?;
    if unknown.keys.is_empty() {
        return Ok(());
    }
    note(known, &connection.query(DIRECTORIES, &[&unknown.keys, &unknown.places])?)
}
