//! Checks that the index of a running writer still is the file that was opened.
//!
//! If somebody removes or replaces the index of a node, SQLite writes into a file without a name.
//! That file is gone with the process. So nothing counts as stored before
//! [`IndexGuard::after_commit`] has seen that the files still have their names.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rusqlite::Connection;

use super::alone;
use super::files::{DatabaseFiles, Difference, Log, LogRecord, Seen};
use crate::db::Error;
use crate::telemetry::metrics;

/// Longest wait for readers before the log of a removed file is copied into the database.
const COPY_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the index is the file that was opened. It is shared with whoever asks how the node is.
#[derive(Clone, Debug, Default)]
pub(super) struct IndexState(Arc<AtomicBool>);

impl IndexState {
    pub(super) fn is_in_place(&self) -> bool {
        !self.0.load(Relaxed)
    }
}

/// The files of a writer, and what was reported of them.
#[derive(Debug)]
pub(super) struct IndexGuard {
    files: DatabaseFiles,
    record: LogRecord,
    state: IndexState,
    /// Whether the look after the last commit is also that before the next transaction.
    look_is_kept: Cell<bool>,
}

impl IndexGuard {
    /// Identifies the files of an index that was just opened.
    pub(super) fn of(index: &Path) -> Self {
        Self {
            files: DatabaseFiles::of(index),
            record: LogRecord::of(index),
            state: IndexState::default(),
            look_is_kept: Cell::default(),
        }
    }

    pub(super) fn files(&self) -> DatabaseFiles {
        self.files.clone()
    }

    pub(super) fn state(&self) -> IndexState {
        self.state.clone()
    }

    /// Says whether the look after the last commit is also that before the next transaction.
    ///
    /// That saves three calls of seven in each group commit of a busy node. It is right only for a
    /// transaction whose first command waited at that look and that begins at once. What changes
    /// later is found after the commit, as what changes during a transaction always is.
    pub(super) fn keep_look(&self, is_kept: bool) {
        self.look_is_kept.set(is_kept);
    }

    /// Refuses to write if the files are not those that were opened.
    pub(super) fn before_transaction(&self, connection: &Connection) -> Result<(), Error> {
        if self.look_is_kept.take() {
            return Ok(());
        }
        if let Some(difference) = self.files.difference() {
            return Err(self.tell(difference, connection));
        }
        self.found_again();
        Ok(())
    }

    /// Checks that the last commit is in files that have the names of the index.
    pub(super) fn after_commit(&self, connection: &Connection) -> Result<(), Error> {
        match self.files.observe() {
            Err(difference) => Err(self.tell(difference, connection)),
            // Nothing was written yet.
            Ok(Seen { log_bytes: 0, .. }) => Ok(()),
            Ok(Seen { changed, .. }) => {
                let noted = self.record.note(Log::Needed).and_then(|()| self.record.stay_newer_than(changed));
                noted.map_err(|source| Error::Io { path: self.record.path(), source })
            }
        }
    }

    /// Does the same while nothing is written. An operator so learns it at once, and not with the
    /// next instance.
    pub(super) fn while_idle(&self, connection: &Connection) {
        match self.files.observe() {
            Err(difference) => drop(self.tell(difference, connection)),
            Ok(Seen { log_bytes, .. }) => {
                self.found_again();
                // Another program may have emptied it with `PRAGMA wal_checkpoint(TRUNCATE)`.
                if log_bytes == 0 {
                    let _next_time = self.record.note(Log::Spent);
                }
            }
        }
    }

    /// Checks that the files are those that were opened.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.files.check()
    }

    fn found_again(&self) {
        if self.state.0.swap(false, Relaxed) {
            metrics::INDEX_REPLACED.set(0);
            tracing::info!("the index is the file again that was opened; the node goes on storing");
        }
    }

    /// Reports once what has happened, and saves what can be saved.
    fn tell(&self, difference: Difference, connection: &Connection) -> Error {
        let error = Error::Replaced { path: self.files.index().to_owned() };
        if self.state.0.swap(true, Relaxed) {
            return error;
        }
        metrics::INDEX_REPLACED.set(1);
        if difference == Difference::LogRemoved && self.copy_log(connection) {
            tracing::error!(%error, "nothing more is stored; what the removed -wal held has been copied into the index");
        } else {
            tracing::error!(%error, "nothing more is stored, and no query is answered");
        }
        error
    }

    /// Copies the log, which has lost its name, into the database, which still has its own.
    fn copy_log(&self, connection: &Connection) -> bool {
        let copied = connection
            .busy_timeout(COPY_TIMEOUT)
            .and_then(|()| copy_log(connection, "FULL"))
            .is_ok_and(|copied| copied == Copied::All);
        copied && self.record.note(Log::Spent).is_ok()
    }

    /// Ends the work of a connection. The log is checkpointed and removed, so that the index is one
    /// file. If readers are busy, it stays for the next start. Files that are not those that were
    /// opened are left alone.
    pub(super) fn close(&self, connection: Connection) -> Result<(), Error> {
        if let Err(error) = self.check() {
            // Closing would remove the log by its name, which another file has now.
            std::mem::forget(connection);
            return Err(error);
        }
        // Waiting for readers would keep all other writers out.
        let copied = connection.busy_timeout(Duration::ZERO).and_then(|()| copy_log(&connection, "TRUNCATE"));
        if copied? == Copied::All {
            self.record.note(Log::Spent).map_err(|source| Error::Io { path: self.record.path(), source })?;
            alone::keep_log_on_close(&connection, false)?;
        }
        Ok(())
    }
}

/// Part of the log that a checkpoint has copied back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copied {
    All,
    Part,
}

fn copy_log(connection: &Connection, how: &str) -> rusqlite::Result<Copied> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |row| {
        let (busy, pages, copied): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(if busy == 0 && pages == copied { Copied::All } else { Copied::Part })
    })
}
