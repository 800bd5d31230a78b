//! Opening the index. This is the only place that makes connections.

use std::fmt::Write as _;
use std::ops::{Deref, DerefMut};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::alone::{self, keep_log_on_close};
use super::error::is_full;
use super::files::{self, DatabaseFiles, LogRecord};
use super::frozen;
use super::limits::{BUSY_TIMEOUT, WAL_AUTOCHECKPOINT_PAGES};
use super::{functions, schema};
use crate::db::{Durability, Error, Permission};
use crate::files::parent_of;

/// Pause between attempts, in cases where SQLite itself does not wait.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Page size in bytes. Instance rows are small and read in runs: 8 KiB gave 204,000 rows/s, against
/// 150,000 with 4 KiB.
const PAGE_SIZE: u32 = 8192;

/// The purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// The connection of the writer.
    Writer { durability: Durability, cache_bytes: u64 },
    /// A connection that only asks.
    Reader { cache_bytes: u64 },
    /// A connection that asks a copy of an index, which nobody writes.
    Copy { cache_bytes: u64 },
}

/// Opens the index. A writer creates a missing index, and migrates one with an older schema.
///
/// Another process may have the index for itself, and put another file in its place. So this does
/// not wait with the file open. It opens the index again until it has the file that is at the path.
///
/// # Errors
/// Fails with [`Error::Missing`] for a reader if there is no index. Fails with
/// [`Error::NetworkFileSystem`], [`Error::NewerSchema`], [`Error::NotAnIndex`], [`Error::Damaged`],
/// [`Error::DatabaseGone`], [`Error::ForeignLog`] and [`Error::LogGone`] as they say, and otherwise
/// with the error of SQLite.
pub(super) fn open(path: &Path, access: Access) -> Result<Connection, Error> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    let may_make = matches!(access, Access::Writer { .. }) && !path.exists();
    loop {
        let way = way_to_open(path, access, may_make)?;
        if let Some(connection) = open_in(path, access, way, Instant::now() >= deadline)? {
            return Ok(connection);
        }
        std::thread::sleep(BUSY_PAUSE);
    }
}

/// Checks the files before SQLite sees them, and says how they are opened. A writer makes a missing
/// index, if it may.
fn way_to_open(path: &Path, access: Access, may_make: bool) -> Result<OpeningWay, Error> {
    let writer = matches!(access, Access::Writer { .. });
    if path.is_dir() {
        return Err(Error::IsADirectory { path: path.to_owned() });
    }
    if writer && frozen::check_size(path)? {
        return Err(Error::Frozen { path: path.to_owned() });
    }
    // This comes first, so that an index that is gone but has left its log is reported as that.
    files::refuse_misfits(path)?;
    let exists = path.try_exists().map_err(|source| Error::Io { path: path.to_owned(), source })?;
    // A writer does not make the index anew if another process takes it away meanwhile.
    if !exists && !may_make {
        return Err(Error::Missing { path: path.to_owned() });
    }
    // SQLite takes a file of one byte for an empty one, and a writer would make an index of it.
    if exists && path.metadata().is_ok_and(|found| found.len() == 1) {
        return Err(Error::NotAnIndex { path: path.to_owned() });
    }
    if writer && let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        files::make_directory(parent)?;
    }
    if !matches!(access, Access::Copy { .. }) {
        refuse_network_file_system(path)?;
    }
    let way = match access {
        Access::Writer { .. } => {
            let directory = parent_of(path);
            let is_refused = |path: &&Path| path.exists() && !is_permitted(path, Permission::Write);
            if let Some(path) = [directory, path].into_iter().find(is_refused) {
                return Err(not_permitted(path, Permission::Write));
            }
            OpeningWay::ReadWrite
        }
        Access::Reader { .. } => way_to_read(path)?,
        Access::Copy { .. } => OpeningWay::Immutable,
    };
    if writer {
        files::make(path)?;
    }
    Ok(way)
}

/// Opens the index. `None` if another process has it for itself, or puts another file in its place.
/// That is an error in the last attempt.
fn open_in(path: &Path, access: Access, way: OpeningWay, is_last: bool) -> Result<Option<Connection>, Error> {
    let writer = matches!(access, Access::Writer { .. });
    let again = |error| if is_last { Err(error) } else { Ok(None) };
    let replaced = || again(Error::Replaced { path: path.to_owned() });
    let files = DatabaseFiles::of(path);
    #[expect(clippy::disallowed_methods, reason = "this is the one place that opens the index")]
    let connection = Connection::open_with_flags(way.name(path), way.flags()).map_err(|source| name(path, source))?;
    // The last to close an index checkpoints the log and removes it. That is left to the writer,
    // which notes it: see `close`. It comes first, because the log may be that of another file.
    keep_log_on_close(&connection, true).map_err(|source| name(path, source))?;
    connection.busy_timeout(Duration::ZERO).map_err(|source| name(path, source))?;
    // Before any setting, so that the database of another program keeps its journal mode.
    let is_foreign = schema::is_foreign(&connection);
    // The first query takes a lock. Nobody puts another file in the place of a locked one.
    if files.check_database().is_err() {
        return replaced();
    }
    match is_foreign {
        Err(error) if alone::is_busy(&error) => return again(name(path, error)),
        Err(error) => return Err(name(path, error)),
        Ok(true) => {
            keep_log_on_close(&connection, false).map_err(|source| name(path, source))?;
            return Err(Error::NotAnIndex { path: path.to_owned() });
        }
        Ok(false) => {}
    }
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|source| name(path, source))?;
    if way == OpeningWay::ReadWrite {
        files::tighten(path);
    }
    if writer {
        LogRecord::of(path).claim().map_err(|source| Error::Io { path: files::lock_file(path), source })?;
    }
    configure(&connection, access).map_err(|source| name(path, source))?;
    functions::register(&connection).map_err(|source| name(path, source))?;
    schema::check(&connection, path, writer)?;
    // Only a writer that promises durable commits relies on it.
    if let Access::Writer { durability: Durability::Full, .. } = access {
        files::sync_log(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    }
    if let Access::Reader { .. } | Access::Copy { .. } = access {
        // A reader never writes, whatever its SQL says.
        connection.pragma_update(None, "query_only", true).map_err(|source| name(path, source))?;
    }
    // A file without a log is locked in its transactions only.
    if files.check_database().is_err() { replaced() } else { Ok(Some(connection)) }
}

/// Way to open the files of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OpeningWay {
    /// A reader also opens read-write, because readers need writable shared memory for the
    /// write-ahead log. query_only then keeps it from writing.
    ReadWrite,
    /// This process may not write, and there is a log. SQLite reads it through the shared memory
    /// that another process made.
    ReadOnly,
    /// This process may not write, and there is no log. The file is the whole index, and SQLite
    /// needs no file beside it. It takes no locks, so nothing may write the index meanwhile.
    Immutable,
}

impl OpeningWay {
    fn flags(self) -> OpenFlags {
        let access = match self {
            Self::ReadWrite => OpenFlags::SQLITE_OPEN_READ_WRITE,
            Self::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
            Self::Immutable => OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
        };
        access | OpenFlags::SQLITE_OPEN_NO_MUTEX
    }

    /// Name that SQLite is to open: the path, or a URI with it.
    fn name(self, path: &Path) -> PathBuf {
        if self != Self::Immutable {
            return path.to_owned();
        }
        // Two slashes at the beginning would name a host.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut uri = String::from("file:");
        for byte in path.as_os_str().as_bytes() {
            match byte {
                b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
                // Writing to a String cannot fail.
                byte => drop(write!(uri, "%{byte:02X}")),
            }
        }
        uri.push_str("?immutable=1");
        uri.into()
    }
}

/// Way in which a reader opens an index that exists.
fn way_to_read(path: &Path) -> Result<OpeningWay, Error> {
    if !is_permitted(path, Permission::Read) {
        return Err(not_permitted(path, Permission::Read));
    }
    // SQLite follows a link to the database, and puts its files beside that.
    let database = path.canonicalize().map_err(|source| Error::Io { path: path.to_owned(), source })?;
    Ok(match [&database, parent_of(&database)].iter().all(|path| is_permitted(path, Permission::Write)) {
        true => OpeningWay::ReadWrite,
        false if files::log_bytes(&database) > 0 => OpeningWay::ReadOnly,
        false => OpeningWay::Immutable,
    })
}

/// Whether this process may do this with a file or a directory. It does not open the file, because
/// closing it would drop SQLite's locks.
fn is_permitted(path: &Path, wanted: Permission) -> bool {
    let access = match wanted {
        Permission::Read => rustix::fs::Access::READ_OK,
        Permission::Write => rustix::fs::Access::WRITE_OK,
    };
    rustix::fs::accessat(rustix::fs::CWD, path, access, rustix::fs::AtFlags::EACCESS).is_ok()
}

fn not_permitted(path: &Path, wanted: Permission) -> Error {
    Error::NotPermitted { path: path.to_owned(), wanted, user: rustix::process::geteuid().as_raw() }
}

/// A connection that asks. If it is closed last and the log is not empty, it leaves the log to the
/// next writer.
pub(super) struct ReadConnection {
    connection: Connection,
    path: PathBuf,
}

impl ReadConnection {
    /// Opens an index that exists.
    pub(super) fn open(path: &Path, cache_bytes: u64) -> Result<Self, Error> {
        let connection = open(path, Access::Reader { cache_bytes })?;
        Ok(Self { connection, path: path.to_owned() })
    }

    /// Opens a copy of an index, which nobody writes. No file is made beside it.
    pub(super) fn open_copy(path: &Path, cache_bytes: u64) -> Result<Self, Error> {
        let connection = open(path, Access::Copy { cache_bytes })?;
        Ok(Self { connection, path: path.to_owned() })
    }
}

impl Deref for ReadConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for ReadConnection {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Drop for ReadConnection {
    fn drop(&mut self) {
        // A reader leaves no files behind. But the log stays if its record says that it is needed.
        // In that case a writer was killed after it had emptied the log and before it could note
        // that. The next start would report a missing log.
        if files::log_bytes(&self.path) == 0 && !files::log_is_needed(&self.path) {
            let _they_stay = keep_log_on_close(&self.connection, false);
        }
    }
}

fn configure(connection: &Connection, access: Access) -> rusqlite::Result<()> {
    // Our values are far below the default of a gigabyte.
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, 64 * 1024 * 1024)?;
    connection.set_prepared_statement_cache_capacity(256);
    // A plan must depend on the statement alone. Otherwise a statement that could use a partial
    // index is planned again for each new value, which takes longer than running it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // rarray(list): the values of a list that is bound as one parameter.
    rusqlite::vtab::array::load_module(connection)?;
    match access {
        Access::Writer { durability, cache_bytes } => {
            // The writer sorts little, and needs no file for it.
            connection.pragma_update(None, "temp_store", "MEMORY")?;
            // It takes effect only in a database that is still empty.
            connection.pragma_update(None, "page_size", PAGE_SIZE)?;
            // Readers go on while a batch is written, and a commit is one sequential append.
            keep_log(connection)?;
            set_durability(connection, durability)?;
            connection.pragma_update(None, "wal_autocheckpoint", WAL_AUTOCHECKPOINT_PAGES)?;
            connection.pragma_update(None, "foreign_keys", false)?;
            connection.pragma_update(None, "cache_size", -i64::try_from(cache_bytes / 1024).unwrap_or(i64::MAX))?;
        }
        Access::Reader { cache_bytes } | Access::Copy { cache_bytes } => {
            // A million answers may have to be sorted. What does not fit into the cache goes into a
            // file without a name in the system's temporary directory.
            connection.pragma_update(None, "temp_store", "FILE")?;
            connection.pragma_update(None, "cache_size", -i64::try_from(cache_bytes / 1024).unwrap_or(i64::MAX))?;
        }
    }
    Ok(())
}

/// Sets what a commit does. With FULL it survives a power cut: 0 of 56,760 were lost, against 4,860
/// of 931,900 with NORMAL. NORMAL is enough for a scan, because its files are still there and its
/// checkpoint is in the same transaction. It is enough for what a journal has, too.
pub(super) fn set_durability(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Os => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)
}

/// Sets the journal mode to a write-ahead log. If several processes make a new index at once, one
/// of them does it. SQLite tells the others at once that the file is busy, so they try again.
fn keep_log(connection: &Connection) -> rusqlite::Result<()> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if alone::is_busy(&error) && Instant::now() < deadline => {
                std::thread::sleep(BUSY_PAUSE);
            }
            result => return result,
        }
    }
}

fn name(path: &Path, source: rusqlite::Error) -> Error {
    if is_full(&source) {
        return Error::Full;
    }
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => Error::NotAnIndex { path: path.to_owned() },
        Some(ErrorCode::DatabaseCorrupt) => Error::Damaged { path: path.to_owned(), detail: source.to_string() },
        _ => Error::Open { path: path.to_owned(), source: Box::new(source) },
    }
}

/// Refuses a network file system. The write-ahead log needs memory shared between processes, which
/// these do not have.
#[cfg(target_os = "linux")]
fn refuse_network_file_system(path: &Path) -> Result<(), Error> {
    use crate::model::file_system::network_name;

    let existing: PathBuf = match path.parent() {
        _ if path.exists() => path.to_owned(),
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let Ok(file_system) = rustix::fs::statfs(&existing) else { return Ok(()) };
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless, reason = "the field's type differs between targets")]
    let number = file_system.f_type as i64;
    match network_name(number) {
        Some(kind) => Err(Error::NetworkFileSystem { path: path.to_owned(), kind }),
        None => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_network_file_system(_path: &Path) -> Result<(), Error> {
    Ok(())
}
