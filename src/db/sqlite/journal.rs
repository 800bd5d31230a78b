//! Knowledge of the index about the arrival journal of its node (docs/adr/0039).
//!
//! The row of an object is committed after the journal has the object, and without a flush of the
//! write-ahead log. A power cut may take the last of these commits away again. The number of the
//! last entry whose commit is there tells a start which objects to enter once more.

use rusqlite::OptionalExtension as _;

use super::files;
use super::limits::CHANGES_IN_BLOCK;
use super::reader::SqliteReader;
use super::schema::has_all;
use super::sql_values::to_u64;
use super::writer::SqliteWriterHandle;
use crate::db::{Error, JournalEntryId};

impl SqliteReader {
    /// The last entry of a journal that the index has decided on, 0 if there is none.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    pub fn journal_decided(&mut self, journal: [u8; 16]) -> Result<u64, Error> {
        if !has_all(&self.connection, &["arrival_journal"])? {
            return Ok(0);
        }
        let sql = "SELECT decided FROM arrival_journal WHERE journal = ?1";
        let decided = self.connection.query_row(sql, [journal], |row| row.get(0)).optional()?;
        Ok(decided.map_or(0, to_u64))
    }
}

impl SqliteWriterHandle {
    /// Notes that no entry of a journal is to be entered once more, whatever its number. The note
    /// is committed with the next instance, so that none that follows can be replaced by an older
    /// one.
    pub fn close_journal(&self, journal: [u8; 16]) {
        self.note_refused(JournalEntryId { journal, number: u64::MAX }, None);
    }

    /// Notes that an entry was refused, and is not to be entered once more. Call it in the order of
    /// the entries. `on_noted` is called when a power cut cannot take the note away. If it cannot
    /// be committed, it comes with the next commit, and `on_noted` is called at once.
    pub fn pass_entry_over(&self, entry: JournalEntryId, on_noted: impl FnOnce() + Send + 'static) {
        self.note_refused(entry, Some(Box::new(on_noted)));
    }

    /// Leaves out change numbers, because a power cut took commits away that somebody may have
    /// seen. Each of `commits` may have had the first number of a block.
    ///
    /// # Errors
    /// That of the writer.
    pub fn skip_changes(&self, commits: u64) -> Result<(), Error> {
        let numbers = i64::try_from(commits).unwrap_or(i64::MAX).saturating_add(1).saturating_mul(CHANGES_IN_BLOCK);
        self.maintain(move |batch| batch.skip_changes(numbers))
    }

    /// Makes every commit so far survive a power cut.
    ///
    /// # Errors
    /// [`Error::Replaced`] if the index is no longer the one that was opened, and [`Error::Io`].
    pub fn flush_log(&self) -> Result<(), Error> {
        let index = self.files().index().to_owned();
        // The log is opened by its name, which must be that of the log that was written.
        self.files().check()?;
        files::sync_log(&index).map_err(|source| Error::Io { path: index, source })?;
        self.files().check()
    }
}
