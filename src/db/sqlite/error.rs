//! Errors of rusqlite as errors of an index.

use rusqlite::ErrorCode;

use crate::db::Error;

impl From<rusqlite::Error> for Error {
    /// Classifies an error into the kinds that callers tell apart.
    fn from(source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Self::Interrupted,
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Malformed(source.to_string()),
            _ => Self::Statement(Box::new(source)),
        }
    }
}
