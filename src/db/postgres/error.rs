//! Errors of the server as errors of an index.

use tokio_postgres::error::SqlState;

use crate::db::Error;

/// Maximum number of attempts of a transaction that others make fail. Each of the others has then
/// made progress.
pub(super) const MOST_ATTEMPTS: usize = 20;

/// An error of a statement or of a connection.
#[derive(Debug)]
pub(super) enum ServerFailure {
    /// The transaction was rolled back because of another one. The same again may succeed.
    Again,
    /// The server is gone, or ends.
    Gone(String),
    /// The server is there, and does not let this user into this database.
    Refused(String),
    /// Anything else.
    Other(Error),
}

impl ServerFailure {
    /// The error for a caller.
    pub(super) fn of(self, server: &str) -> Error {
        match self {
            Self::Again => Error::Locked,
            Self::Gone(detail) => Error::ServerGone { server: server.to_owned(), detail },
            Self::Refused(detail) => Error::ServerRefuses { server: server.to_owned(), detail },
            Self::Other(error) => error,
        }
    }
}

impl From<Error> for ServerFailure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<tokio_postgres::Error> for ServerFailure {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(code) = error.code() else {
            return match error.is_closed() || source_is_io(&error) {
                true => Self::Gone(chain(&error)),
                false => Self::Other(Error::Statement(Box::new(error))),
            };
        };
        // Details of the server may quote values, so only the message is kept.
        let message = error.as_db_error().map(|said| said.message().to_owned()).unwrap_or_default();
        match *code {
            SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED | SqlState::UNIQUE_VIOLATION => {
                Self::Again
            }
            SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW
            | SqlState::TOO_MANY_CONNECTIONS
            | SqlState::CONNECTION_FAILURE
            | SqlState::CONNECTION_DOES_NOT_EXIST
            | SqlState::CONNECTION_EXCEPTION
            | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => Self::Gone(message),
            // Statements are prepared in a session, which only a pooler takes away.
            SqlState::INVALID_SQL_STATEMENT_NAME | SqlState::DUPLICATE_PSTATEMENT => Self::Other(Error::SharedSession),
            SqlState::DISK_FULL => Self::Other(Error::Full),
            SqlState::READ_ONLY_SQL_TRANSACTION => Self::Other(Error::ReadOnlyServer { detail: message }),
            SqlState::DATA_CORRUPTED | SqlState::INDEX_CORRUPTED => Self::Other(Error::Malformed(message)),
            _ => {
                let text = format!("{message} (SQLSTATE {}){}", code.code(), hint_of(code));
                Self::Other(Error::Statement(text.into()))
            }
        }
    }
}

/// The way out, where the first set-up of a database often fails.
fn hint_of(code: &SqlState) -> &'static str {
    match *code {
        SqlState::INSUFFICIENT_PRIVILEGE => {
            "; hint: make this user the owner of the database, or grant it all rights on the schema and its tables"
        }
        SqlState::INVALID_SCHEMA_NAME => "; hint: search_path of the user has to name a schema that exists",
        _ => "",
    }
}

/// The error of an attempt to connect. Most of what a server says then passes, such as that it is
/// starting.
pub(super) fn of_connecting(error: &tokio_postgres::Error) -> ServerFailure {
    let Some(said) = error.as_db_error() else { return ServerFailure::Gone(chain(error)) };
    let hint = match *said.code() {
        SqlState::INVALID_CATALOG_NAME => "; hint: make it with `createdb --owner USER DATABASE`",
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "; hint: make the user with `createuser USER`, or let it in with pg_hba.conf"
        }
        SqlState::INVALID_PASSWORD | SqlState::INSUFFICIENT_PRIVILEGE => "",
        _ => return ServerFailure::Gone(said.message().to_owned()),
    };
    ServerFailure::Refused(format!("{}{hint}", said.message()))
}

/// Whether the connection failed and not what went over it.
fn source_is_io(error: &tokio_postgres::Error) -> bool {
    use std::error::Error as _;
    error.source().is_some_and(|source| source.is::<std::io::Error>()) || error.to_string().contains("timeout")
}

/// An error with its causes. None of them quotes a value.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
