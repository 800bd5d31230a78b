//! An index that one process has for itself.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};
use rustix::fs::FlockOperation;

use super::files::DatabaseFiles;
use crate::db::Error;

/// Whether another process keeps the database to itself.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Sets whether closing this connection leaves the log as it is, if it is the last connection.
pub(super) fn keep_log_on_close(connection: &Connection, keep: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep).map(|_| ())
}

/// Takes an index for this process alone, until the connection ends. This fails if another process
/// has it. It is false if another process has put another file in its place, whose log this is
/// then.
pub(super) fn take_alone(connection: &Connection, files: &DatabaseFiles) -> rusqlite::Result<bool> {
    connection.busy_timeout(Duration::ZERO)?;
    keep_log_on_close(connection, true)?;
    // The first access takes the database.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
    if files.check_database().is_err() {
        return Ok(false);
    }
    keep_log_on_close(connection, false)?;
    Ok(true)
}

/// Locks a database file. `None` if there is none. It is in use if another process puts another
/// file in its place meanwhile.
pub(super) fn lock(index: &Path) -> Result<Option<File>, Error> {
    let failed = |source| Error::Io { path: index.to_owned(), source };
    let files = DatabaseFiles::of(index);
    let database = match File::options().read(true).write(true).open(index) {
        Ok(database) => database,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    match rustix::fs::fcntl_lock(&database, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if files.check_database().is_ok() => Ok(Some(database)),
        Ok(()) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
            Err(Error::InUse { path: index.to_owned() })
        }
        Err(error) => Err(failed(error.into())),
    }
}
