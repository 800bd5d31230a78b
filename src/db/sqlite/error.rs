//! Errors of rusqlite as errors of an index.

use rusqlite::ErrorCode;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

use crate::db::Error;

impl From<rusqlite::Error> for Error {
    /// Classifies an error into the kinds that callers tell apart.
    fn from(source: rusqlite::Error) -> Self {
        if is_full(&source) {
            return Self::Full;
        }
        match source.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Self::Interrupted,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Malformed(source.to_string()),
            _ => Self::Statement(Box::new(source)),
        }
    }
}

/// Whether the disk has no room: for a page, or for the shared memory that a process makes first.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    error.sqlite_error_code() == Some(ErrorCode::DiskFull) || extended == Some(SQLITE_IOERR_SHMSIZE)
}
