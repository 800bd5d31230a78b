//! Opening the index: the only place that makes connections.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::{Durability, Error, functions, schema};

/// How long a connection waits for another process to finish its transaction before it gives up. Batches hold the write
/// lock for well under a second; longer means that somebody holds it by hand.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause between attempts at what SQLite does not wait for itself.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Bytes in a page. 8 KiB: instance rows are small and read in runs; measured 204,000 rows/s against 150,000 with 4 KiB.
const PAGE_SIZE: u32 = 8192;

/// Pages in the write-ahead log after which it is copied back: 32 MiB. Smaller costs a sync more often, larger makes
/// the one commit that copies slower.
pub(super) const WAL_AUTOCHECKPOINT_PAGES: u32 = 4096;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// The one connection that writes.
    Writer { durability: Durability, cache_bytes: u64 },
    /// One that only asks.
    Reader { cache_bytes: u64 },
}

/// Opens the index; a writer creates it where it is missing and brings an older schema up to date.
///
/// # Errors
/// [`Error::Missing`] for a reader where there is no index; [`Error::NetworkFileSystem`], [`Error::NewerSchema`],
/// [`Error::NotAnIndex`] and [`Error::Damaged`] as they say; [`Error::Sqlite`] for all else.
pub(super) fn open(path: &Path, access: Access) -> Result<Connection, Error> {
    let writer = matches!(access, Access::Writer { .. });
    let exists = path.try_exists().map_err(|source| Error::Io { path: path.to_owned(), source })?;
    if !exists && !writer {
        return Err(Error::Missing { path: path.to_owned() });
    }
    if writer && let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|source| Error::Io { path: parent.to_owned(), source })?;
    }
    refuse_network_file_system(path)?;

    // A reader opens read-write as well, and is then bound to asking by query_only: the shared memory of a write-ahead
    // log has to be writable even for those who read.
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if writer {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    #[expect(clippy::disallowed_methods, reason = "this is the one place that opens the index")]
    let connection = Connection::open_with_flags(path, flags).map_err(|source| name(path, source))?;
    // Before anything is set: what belongs to another program is left as it is, its journal mode included.
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|source| name(path, source))?;
    if schema::is_foreign(&connection).map_err(|source| name(path, source))? {
        return Err(Error::NotAnIndex { path: path.to_owned() });
    }
    configure(&connection, access).map_err(|source| name(path, source))?;
    functions::register(&connection).map_err(|source| name(path, source))?;
    schema::check(&connection, path, writer)?;
    if let Access::Reader { .. } = access {
        // A reader never writes, whatever its SQL says.
        connection.pragma_update(None, "query_only", true).map_err(|source| name(path, source))?;
    }
    Ok(connection)
}

fn configure(connection: &Connection, access: Access) -> rusqlite::Result<()> {
    // Long lists of UIDs are bound as one JSON parameter; nothing of ours is near the default of a gigabyte.
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, 64 * 1024 * 1024)?;
    connection.set_prepared_statement_cache_capacity(256);
    // A plan depends on the statement alone. Without this, a statement that could use a partial index is planned anew for
    // each new value, which takes longer than running it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    match access {
        Access::Writer { durability, cache_bytes } => {
            // The writer sorts little, and needs no file for it.
            connection.pragma_update(None, "temp_store", "MEMORY")?;
            // Takes effect only in a database that is still empty.
            connection.pragma_update(None, "page_size", PAGE_SIZE)?;
            // Readers go on while a batch is written, and a commit is one sequential append.
            keep_log(connection)?;
            // FULL: a commit survives a power cut (0 of 56,760 lost, against 4,860 of 931,900 with NORMAL). A scan can
            // do with NORMAL: its files are still there, and its checkpoint is in the same transaction.
            let synchronous = match durability {
                Durability::Full => "FULL",
                Durability::Normal => "NORMAL",
            };
            connection.pragma_update(None, "synchronous", synchronous)?;
            connection.pragma_update(None, "wal_autocheckpoint", WAL_AUTOCHECKPOINT_PAGES)?;
            connection.pragma_update(None, "foreign_keys", false)?;
            connection.pragma_update(None, "cache_size", -i64::try_from(cache_bytes / 1024).unwrap_or(i64::MAX))?;
        }
        Access::Reader { cache_bytes } => {
            // A million answers may have to be sorted: what does not fit into the cache goes into a file without a name in
            // the system's directory for temporary files.
            connection.pragma_update(None, "temp_store", "FILE")?;
            connection.pragma_update(None, "cache_size", -i64::try_from(cache_bytes / 1024).unwrap_or(i64::MAX))?;
        }
    }
    Ok(())
}

/// Has the database keep a write-ahead log. Of several processes that make a new index at once one does it; SQLite tells
/// the others that the file is busy without having them wait, so they try again.
fn keep_log(connection: &Connection) -> rusqlite::Result<()> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error)
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(BUSY_PAUSE);
            }
            result => return result,
        }
    }
}

fn name(path: &Path, source: rusqlite::Error) -> Error {
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => Error::NotAnIndex { path: path.to_owned() },
        Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
            Error::Damaged { path: path.to_owned(), detail: source.to_string() }
        }
        _ => Error::Open { path: path.to_owned(), source },
    }
}

/// The write-ahead log needs memory shared between processes, which network file systems do not give.
#[cfg(target_os = "linux")]
fn refuse_network_file_system(path: &Path) -> Result<(), Error> {
    const NETWORK: &[(i64, &str)] = &[
        (0x6969, "NFS"),
        (0xFF53_4D42, "CIFS"),
        (0xFE53_4D42, "SMB2"),
        (0x517B, "SMB"),
        (0x0102_1997, "9P"),
        (0x00C3_6400, "Ceph"),
        (0x0BD0_0BD0, "Lustre"),
        (0x5346_414F, "AFS"),
    ];
    let existing: PathBuf = match path.parent() {
        _ if path.exists() => path.to_owned(),
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let Ok(file_system) = rustix::fs::statfs(&existing) else { return Ok(()) };
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless, reason = "the field's type differs between targets")]
    let magic = file_system.f_type as i64 & 0xFFFF_FFFF;
    match NETWORK.iter().find(|(number, _)| *number == magic) {
        Some((_, kind)) => Err(Error::NetworkFileSystem { path: path.to_owned(), kind }),
        None => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_network_file_system(_path: &Path) -> Result<(), Error> {
    Ok(())
}
