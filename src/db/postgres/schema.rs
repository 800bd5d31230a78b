//! The tables of an index, and their version.

use super::address::PostgresAddress;
use super::connection::ServerConnection;
use super::error::ServerFailure;
use crate::db::Error;

/// Version of the tables that this program writes and reads.
pub(super) const POSTGRES_SCHEMA_VERSION: i32 = 1;

/// Number of the lock under which tables are made and changed: "dcmdex" in ASCII.
const SCHEMA_LOCK: i64 = 0x6463_6D64_6578;

/// Makes the tables if there are none. Of several processes that begin at once, one makes them.
pub(super) fn prepare(connection: &mut ServerConnection, address: &PostgresAddress) -> Result<(), Error> {
    let prepared = connection
        .run("BEGIN")
        .and_then(|()| make(connection, address))
        .and_then(|()| connection.run("COMMIT"))
        .map_err(|failure| failure.of(address.shown()));
    if prepared.is_err() {
        // The connection may be gone, and the first error says so.
        let _gone = connection.run("ROLLBACK");
    }
    prepared
}

fn make(connection: &mut ServerConnection, address: &PostgresAddress) -> Result<(), ServerFailure> {
    connection.execute("SELECT pg_advisory_xact_lock($1)", &[&SCHEMA_LOCK])?;
    if version(connection)?.is_none() {
        connection.run(include_str!("schema.sql"))?;
        connection.run(&format!("INSERT INTO dcmdex_index (schema_version) VALUES ({POSTGRES_SCHEMA_VERSION})"))?;
        index_names(connection)?;
    }
    check(connection, address)
}

/// Makes the index for parts of names. A server without the extension answers them more slowly.
fn index_names(connection: &mut ServerConnection) -> Result<(), ServerFailure> {
    connection.run("SAVEPOINT names")?;
    let made = connection.run(
        "CREATE EXTENSION IF NOT EXISTS pg_trgm; \
         CREATE INDEX study_patient_by_name ON study_patient USING gin (name gin_trgm_ops)",
    );
    match made {
        Err(ServerFailure::Other(error)) => {
            tracing::warn!(%error, "parts of names are not indexed; hint: install the extension pg_trgm");
            connection.run("ROLLBACK TO names")
        }
        made => made,
    }
}

/// Version of the tables. `None` if there are none.
fn version(connection: &mut ServerConnection) -> Result<Option<i32>, ServerFailure> {
    let row = connection.query_one("SELECT to_regclass('dcmdex_index') IS NOT NULL", &[])?;
    if !row.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let row = connection.query_opt("SELECT schema_version FROM dcmdex_index", &[])?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Checks that this program knows the tables.
pub(super) fn check(connection: &mut ServerConnection, address: &PostgresAddress) -> Result<(), ServerFailure> {
    let path = address.path();
    let (found, known) = match version(connection)? {
        None => return Err(Error::Missing { path }.into()),
        Some(version) => (version.cast_unsigned(), POSTGRES_SCHEMA_VERSION.cast_unsigned()),
    };
    Err(match found {
        found if found > known => Error::NewerSchema { path, found, known }.into(),
        found if found < known => Error::OlderSchema { path, found, known }.into(),
        _ => return Ok(()),
    })
}
