//! The tables of an index, and their version.

use std::time::{Duration, Instant};

use super::address::PostgresAddress;
use super::connection::ServerConnection;
use super::error::{MOST_ATTEMPTS, ServerFailure};
use crate::db::Error;

/// Version of the tables that this program writes and reads.
pub(super) const POSTGRES_SCHEMA_VERSION: i32 = 2;

/// The version of the same tables while corrections hold. Programs that know of no corrections take
/// it for a newer schema. They would answer without them, and write the rows of studies so.
const WITH_CORRECTIONS: i32 = POSTGRES_SCHEMA_VERSION + 1;

/// Number of the lock under which tables are made and changed: "dcmdex" in ASCII.
const SCHEMA_LOCK: i64 = 0x6463_6D64_6578;

/// Time that a migration waits for other programs to end, or to wait for it.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(3);

/// Pause between two looks at them.
const PAUSE: Duration = Duration::from_millis(50);

/// The version of tables that a copy is made in. Programs that do not know of copies take it for an
/// older schema, and do not use them either.
const UNFINISHED_COPY: i32 = 0;

/// Number of the lock that a program holds while it makes a copy.
const COPY_LOCK: i64 = SCHEMA_LOCK + 1;

/// Has the numbers of changes go on above all former ones, if the server now counts transactions
/// otherwise. The tables were then restored elsewhere, or they are an older state, or those of a
/// standby that lacked some. A day with 3,000 transactions a second has 2^28.
///
/// Each timeline has a range of its own. If a server fails over and is then restored to a point
/// before that, its timeline is two higher than that of the tables.
const KEEP_NUMBERS_GROWING: &str = "UPDATE dcmdex_index SET history = n.history, change_base = CASE \
     WHEN dcmdex_index.history IS NULL THEN change_base \
     WHEN split_part(dcmdex_index.history, '/', 1) = split_part(n.history, '/', 1) THEN change_base + (greatest(1, \
     ('x' || split_part(n.history, '/', 2))::bit(32)::int::bigint \
     - ('x' || split_part(dcmdex_index.history, '/', 2))::bit(32)::int) << 28) \
     ELSE greatest(change_base, (SELECT max(change_block) FROM shelf)) + (1 << 28) END \
     FROM (SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) AS history \
     FROM pg_control_system()) n WHERE dcmdex_index.history IS DISTINCT FROM n.history";

/// Tables that came after the first version. No program of that version is in their way.
const MORE_TABLES: &str = include_str!("more.sql");

/// Makes the tables if there are none, and migrates those of an older program. Of several processes
/// that begin at once, one does it.
pub(super) fn prepare(connection: &mut ServerConnection, address: &PostgresAddress) -> Result<(), Error> {
    in_transaction(connection, address, |connection| {
        match version(connection)? {
            None => make(connection, POSTGRES_SCHEMA_VERSION)?,
            Some(1) => migrate(connection, address)?,
            Some(_) => {}
        }
        check(connection, address)?;
        make_more(connection)?;
        note_corrections(connection)?;
        keep_numbers_growing(connection)
    })
}

/// Keeps programs away that know of no corrections, as long as some hold. Those that are connected
/// go on until they connect again.
pub(super) fn note_corrections(connection: &mut ServerConnection) -> Result<(), ServerFailure> {
    let version = "CASE WHEN EXISTS (SELECT FROM correction WHERE undone_ms IS NULL) THEN $1::int ELSE $2 END";
    let sql = format!("UPDATE dcmdex_index SET schema_version = {version} WHERE schema_version <> {version}");
    connection.execute(&sql, &[&WITH_CORRECTIONS, &POSTGRES_SCHEMA_VERSION]).map(drop)
}

/// See [`KEEP_NUMBERS_GROWING`]. Each connection that writes begins with it.
pub(super) fn keep_numbers_growing(connection: &mut ServerConnection) -> Result<(), ServerFailure> {
    connection.run(KEEP_NUMBERS_GROWING)
}

/// Brings the tables to this version. A program of the version before gives its changes no numbers,
/// so none may be at work. One that connects meanwhile waits, and then meets the new version.
fn migrate(connection: &mut ServerConnection, address: &PostgresAddress) -> Result<(), ServerFailure> {
    connection.run("LOCK TABLE dcmdex_index IN ACCESS EXCLUSIVE MODE")?;
    wait_until_alone(connection, address)?;
    connection.run(include_str!("v1_to_v2.sql"))?;
    connection.run(&format!("UPDATE dcmdex_index SET schema_version = {POSTGRES_SCHEMA_VERSION}"))
}

/// Waits for a time until no other program is connected.
pub(super) fn wait_until_alone(
    connection: &mut ServerConnection,
    address: &PostgresAddress,
) -> Result<(), ServerFailure> {
    let deadline = Instant::now() + WAIT_FOR_OTHERS;
    while is_used(connection)? {
        if Instant::now() > deadline {
            return Err(Error::InUse { path: address.path() }.into());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Changes tables in one transaction. Other processes that do so wait. If those that change rows
/// are in its way, it begins again.
fn in_transaction(
    connection: &mut ServerConnection,
    address: &PostgresAddress,
    mut work: impl FnMut(&mut ServerConnection) -> Result<(), ServerFailure>,
) -> Result<(), Error> {
    let mut attempt = || {
        let done = connection
            .run("BEGIN")
            .and_then(|()| connection.execute("SELECT pg_advisory_xact_lock($1)", &[&SCHEMA_LOCK]))
            .and_then(|_| work(connection))
            .and_then(|()| connection.run("COMMIT"));
        if done.is_err() {
            // The connection may be gone, and the first error says so.
            let _gone = connection.run("ROLLBACK");
        }
        done
    };
    for _ in 1..MOST_ATTEMPTS {
        match attempt() {
            Err(ServerFailure::Again) => {}
            done => return done.map_err(|failure| failure.of(address.shown())),
        }
    }
    attempt().map_err(|failure| failure.of(address.shown()))
}

fn make(connection: &mut ServerConnection, version: i32) -> Result<(), ServerFailure> {
    // A server that ends a moment later must not come back without the tables.
    connection.run("SET LOCAL synchronous_commit = on")?;
    connection.run(include_str!("schema.sql"))?;
    connection.run(include_str!("v1_to_v2.sql"))?;
    connection.run(MORE_TABLES)?;
    connection.run(&format!("INSERT INTO dcmdex_index (schema_version) VALUES ({version})"))?;
    index_names(connection)
}

/// Makes the tables and indexes of [`MORE_TABLES`] if some are missing. An index that is there
/// locks its table all the same, so that no transaction of others could go on.
fn make_more(connection: &mut ServerConnection) -> Result<(), ServerFailure> {
    let created = |line: &'static str| {
        let named = line.strip_prefix("CREATE TABLE IF NOT EXISTS ");
        named.or_else(|| line.strip_prefix("CREATE INDEX IF NOT EXISTS "))?.split(' ').next()
    };
    let names: Vec<&str> = MORE_TABLES.lines().filter_map(created).collect();
    let sql = "SELECT count(to_regclass(name)) = count(*) FROM unnest($1::text[]) AS u(name)";
    let are_there: bool = connection.query_one(sql, &[&names])?.try_get(0)?;
    if are_there { Ok(()) } else { connection.run(MORE_TABLES) }
}

/// Prepares an empty database for a copy of another index. What a copy that was broken off has left
/// there goes.
pub(super) fn begin_copy(connection: &mut ServerConnection, address: &PostgresAddress) -> Result<(), Error> {
    let row = connection.query_one("SELECT pg_try_advisory_lock($1)", &[&COPY_LOCK]);
    let is_ours = row.and_then(|row| Ok(row.try_get::<_, bool>(0)?)).map_err(|failure| failure.of(address.shown()))?;
    if !is_ours {
        return Err(Error::InUse { path: address.path() });
    }
    in_transaction(connection, address, |connection| match version(connection)? {
        None => make(connection, UNFINISHED_COPY),
        Some(UNFINISHED_COPY) => {
            make_more(connection)?;
            connection.run(&format!("TRUNCATE {COPIED_TABLES}; UPDATE dcmdex_index SET index_id = NULL"))
        }
        // A node that connects later meets the version.
        Some(POSTGRES_SCHEMA_VERSION) if is_used(connection)? => Err(Error::InUse { path: address.path() }.into()),
        Some(POSTGRES_SCHEMA_VERSION) => {
            make_more(connection)?;
            if !is_empty(connection)? {
                return Err(Error::HasContent { path: address.path() }.into());
            }
            connection.run(&format!("UPDATE dcmdex_index SET schema_version = {UNFINISHED_COPY}"))
        }
        Some(_) => Err(Error::HasContent { path: address.path() }.into()),
    })
}

/// The tables that a copy fills.
const COPIED_TABLES: &str = "writer_slot, directory, study, study_patient, shelf, instance, copy, file_mark, conflict, \
     scan, watch, mount_point, removal, removed_instance, removed_file, arrival, \
     event, event_cursor, event_receiver, event_waiting, worklist_item, worklist_asked, worklist_problem, performed_step, correction, \
     corrected_study, loss, exchanged_disk";

/// Whether there is nothing that a copy would replace.
fn is_empty(connection: &mut ServerConnection) -> Result<bool, ServerFailure> {
    // Each writer counts its changes, of which nothing may be left.
    let tables = COPIED_TABLES.split(", ").filter(|table| *table != "writer_slot");
    let conditions: Vec<String> = tables.map(|table| format!("NOT EXISTS (SELECT FROM {table})")).collect();
    let sql = format!("SELECT index_id IS NULL AND {} FROM dcmdex_index", conditions.join(" AND "));
    Ok(connection.query_one(&sql, &[])?.try_get(0)?)
}

/// Whether another program of this name is connected to the database. Those that wait for the lock
/// of [`in_transaction`], or for the version, look at it afterwards.
fn is_used(connection: &mut ServerConnection) -> Result<bool, ServerFailure> {
    // What the server has told in this transaction is otherwise told again.
    connection.run("SELECT pg_stat_clear_snapshot()")?;
    let sql = "SELECT EXISTS (SELECT FROM pg_stat_activity a WHERE datname = current_database() \
               AND pid <> pg_backend_pid() AND application_name = current_setting('application_name') \
               AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND NOT l.granted \
               AND (l.locktype = 'advisory' OR l.relation = 'dcmdex_index'::regclass)))";
    Ok(connection.query_one(sql, &[])?.try_get(0)?)
}

/// Makes a copy an index that everybody uses.
pub(super) fn end_copy(connection: &mut ServerConnection) -> Result<(), ServerFailure> {
    connection.run(&format!("UPDATE dcmdex_index SET schema_version = {POSTGRES_SCHEMA_VERSION}"))
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
        Some(UNFINISHED_COPY) => return Err(Error::Unfinished { path }.into()),
        Some(WITH_CORRECTIONS) => return Ok(()),
        Some(version) => (version.cast_unsigned(), POSTGRES_SCHEMA_VERSION.cast_unsigned()),
    };
    Err(match found {
        found if found > known => Error::NewerSchema { path, found, known }.into(),
        found if found < known => Error::OlderSchema { path, found, known }.into(),
        _ => return Ok(()),
    })
}
