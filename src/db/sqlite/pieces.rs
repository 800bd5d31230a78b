//! An index file as the source of a copy in another engine, and as its target.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::copying::IndexHold;
use super::reader::SqliteReader;
use super::schema;
use super::write::each_piece;
use super::writer::{SqliteWriter, WriterOptions};
use crate::db::contents::Contents;
use crate::db::pieces::{OnPiece, PieceOutlet, UNTOLD_STUDIES};
use crate::db::{Arrivals, Error, EventProgress, IndexEvent, WorklistChanges, WorklistWork};
use crate::files::{parent_of, remove_if_there, rename_without_replacing, sync_directory, with_suffix};

/// Content that an index may have: its words, its tables, and the condition for its rows.
pub(super) type SoughtRows = (&'static str, &'static str, &'static str);

/// Studies have changed that were not told.
pub(super) const CHANGED_STUDIES: &str = "EXISTS (SELECT 1 FROM instance_group h WHERE h.change > event_cursor.change)";

/// Studies have lost something that was not told.
pub(super) const STUDIES_WITH_LOSSES: &str = "loss.level = 'STUDY' AND loss.change > event_cursor.change";

/// Content that a copy in another engine lacks.
const LEFT_BEHIND: [SoughtRows; 4] = [
    (UNTOLD_STUDIES, "event_cursor", CHANGED_STUDIES),
    (UNTOLD_STUDIES, "event_cursor, loss", STUDIES_WITH_LOSSES),
    ("values of declared attributes", "instance_group", "declared_set <> ''"),
    ("corrections that were undone", "correction", "undone_ms IS NOT NULL"),
];

/// Content that a copy must not lack. Without it, queries or scans would give other results.
const REFUSED: [SoughtRows; 2] =
    [("corrections that hold", "correction", "undone_ms IS NULL"), ("removed instances", "removed_instance", "true")];

impl SqliteReader {
    /// Gives away the index in pieces, as it is at one moment. Declared values are not in them.
    pub(in crate::db) fn each_piece(&mut self, on_piece: OnPiece<'_>) -> Result<(), Error> {
        let transaction = self.connection.unchecked_transaction()?;
        each_piece(&transaction, &mut PieceOutlet::new(on_piece))?;
        Ok(transaction.finish()?)
    }

    /// Does what [`Self::each_piece`] does for a copy in another engine. Returns what that lacks at
    /// the same moment, in words.
    ///
    /// # Errors
    /// Those of [`Self::left_behind`] and [`Self::each_piece`].
    pub(in crate::db) fn give(&mut self, on_piece: OnPiece<'_>) -> Result<Vec<&'static str>, Error> {
        let transaction = self.connection.unchecked_transaction()?;
        let left_behind = self.left_behind()?;
        each_piece(&transaction, &mut PieceOutlet::new(on_piece))?;
        transaction.finish()?;
        Ok(left_behind)
    }

    /// Content that a copy in another engine lacks, in words.
    ///
    /// # Errors
    /// [`Error::NotCopied`] if answers would not be the same without it.
    pub(in crate::db) fn left_behind(&self) -> Result<Vec<&'static str>, Error> {
        if let Some(what) = self.found(&REFUSED)?.first() {
            return Err(Error::NotCopied { what });
        }
        self.found(&LEFT_BEHIND)
    }

    /// Finds those of these that the index has. An older index lacks some tables.
    pub(super) fn found(&self, sought: &[SoughtRows]) -> Result<Vec<&'static str>, Error> {
        let mut found = Vec::new();
        for (what, tables, rows) in sought {
            let names: Vec<&str> = tables.split(", ").collect();
            let sql = format!("SELECT EXISTS (SELECT 1 FROM {tables} WHERE {rows})");
            if schema::has_all(&self.connection, &names)? && self.connection.query_row(&sql, [], |row| row.get(0))? {
                found.push(*what);
            }
        }
        found.dedup();
        Ok(found)
    }
}

/// A new index file that pieces are written to. It gets its name when it is whole.
pub(in crate::db) struct SqliteCopy {
    writer: SqliteWriter,
    part: PathBuf,
    path: PathBuf,
}

impl SqliteCopy {
    /// Makes the file under another name. What a copy that was killed has left there goes.
    ///
    /// # Errors
    /// [`Error::HasContent`] if there is something at the path.
    pub(in crate::db) fn create(path: &Path, options: WriterOptions) -> Result<Self, Error> {
        if path.symlink_metadata().is_ok() {
            return Err(Error::HasContent { path: path.to_owned() });
        }
        let part = with_suffix(path, ".copying");
        remove_index_files(&part)?;
        Ok(Self { writer: SqliteWriter::open(&part, options)?, part, path: path.to_owned() })
    }

    pub(in crate::db) fn put(&self, piece: Contents) -> Result<(), Error> {
        let handle = self.writer.handle();
        let (id, piece) = (piece.id.clone(), Arc::new(piece));
        handle.maintain(move |batch| batch.put_piece(&piece))?;
        id.map_or(Ok(()), |id| handle.name_index(Some(id)).map(drop))
    }

    pub(in crate::db) fn put_events(&self, events: Vec<IndexEvent>) -> Result<(), Error> {
        self.writer.handle().put_events(events)
    }

    pub(in crate::db) fn put_progress(&self, progress: EventProgress) -> Result<(), Error> {
        self.writer.handle().put_progress(progress)
    }

    pub(in crate::db) fn change_worklist(&self, work: WorklistWork) -> Result<(), Error> {
        self.writer.handle().change_worklist(work)
    }

    /// A reader of the file as it is now.
    pub(in crate::db) fn reader(&self) -> Result<SqliteReader, Error> {
        SqliteReader::open(&self.part)
    }

    /// Gives the file its name.
    pub(in crate::db) fn finish(self) -> Result<(), Error> {
        self.writer.close()?;
        // The log has the name of the file, so nothing may be left in it.
        drop(IndexHold::take(&self.part)?);
        let failed = |source| Error::Io { path: self.path.clone(), source };
        rename_without_replacing(&self.part, &self.path).map_err(failed)?;
        sync_directory(parent_of(&self.path)).map_err(failed)?;
        remove_index_files(&self.part)
    }
}

/// Removes an index file and what is beside it.
///
/// # Errors
/// If a file is there and cannot be removed.
pub fn remove_index_files(path: &Path) -> Result<(), Error> {
    for suffix in ["", "-wal", "-shm", "-turn"] {
        let path = with_suffix(path, suffix);
        remove_if_there(&path).map_err(|source| Error::Io { path, source })?;
    }
    Ok(())
}
