//! Frozen indexes: files that nobody writes any more, for cold years and network storage.
//!
//! A frozen index is one compact file without a log. Beside it stands `FILE-frozen` with its size
//! and its checksum. As long as that is there, the index is opened read-only and immutable: SQLite
//! takes no locks and makes no files.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use fail::fail_point;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use super::files::{self, DatabaseFiles, Log, LogRecord};
use super::{alone, functions, schema};
use crate::db::Error;
use crate::files::{
    FILE_MODE, UnfinishedFile, copy_or_share, parent_of, remove_if_there, replace, sync_directory, with_suffix,
};
use crate::model::checksum::{Checksum, ChecksumBuilder};

/// Bytes that are read at a time for a checksum.
const PIECE: usize = 1024 * 1024;

/// Content of the `-frozen` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenIndex {
    /// Size of the file in bytes.
    pub size: u64,
    /// Checksum of the file (xxh3-128).
    pub checksum: Checksum,
    /// When it was frozen, in milliseconds since 1970 UTC.
    pub frozen_ms: i64,
}

/// The file that says that an index is frozen. It lies beside the index itself, if the name is a
/// link.
pub(in crate::db) fn note_of(given: &Path) -> PathBuf {
    let index = fs::canonicalize(given);
    with_suffix(index.as_deref().unwrap_or(given), "-frozen")
}

/// Whether an index is frozen. It must have the size that it had then.
///
/// # Errors
/// [`Error::NotAsFrozen`], and that of its note.
pub(super) fn check_size(index: &Path) -> Result<bool, Error> {
    let Some(noted) = frozen(index)? else { return Ok(false) };
    match fs::metadata(index) {
        Ok(now) if now.len() != noted.size => Err(Error::NotAsFrozen { path: index.to_owned() }),
        // A missing file is told by who opens it.
        _ => Ok(true),
    }
}

/// Reads the `-frozen` file. `None` if the index is not frozen.
///
/// # Errors
/// If the note cannot be read.
pub fn frozen(index: &Path) -> Result<Option<FrozenIndex>, Error> {
    let path = note_of(index);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { path, source }),
    };
    let noted: Option<Value> = serde_json::from_str(&text).ok();
    let read = |noted: Value| {
        let checksum = u128::from_str_radix(noted["xxh3_128"].as_str()?, 16).ok()?;
        let checksum = Checksum::from_bytes(checksum.to_be_bytes());
        Some(FrozenIndex { size: noted["size"].as_u64()?, checksum, frozen_ms: noted["frozen_ms"].as_i64()? })
    };
    match noted.and_then(read) {
        Some(frozen) => Ok(Some(frozen)),
        None => Err(Error::Io { path, source: io::ErrorKind::InvalidData.into() }),
    }
}

/// Makes an index one compact file that is only read from now on.
///
/// No other process may have it open. After a kill at any moment the former file or the new one has
/// the name of the index, and both hold the same.
///
/// # Errors
/// [`Error::InUse`] if another process has the index open, and those of its files.
pub fn freeze(index: &Path, now_ms: i64) -> Result<FrozenIndex, Error> {
    if let Some(frozen) = frozen(index)? {
        return Ok(frozen);
    }
    let index = &fs::canonicalize(index).map_err(|_| Error::Missing { path: index.to_owned() })?;
    files::refuse_misfits(index)?;
    let new = with_suffix(index, ".freezing");
    let connection = write_compact(index, &new)?;
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    let (size, checksum) = checksum_of(&new).map_err(io(&new))?;
    let frozen = FrozenIndex { size, checksum, frozen_ms: now_ms };
    // Who waits for the former file must not write the new one before it has its note.
    let new_file = alone::lock(&new)?;
    // Tests end the work at these two places.
    fail_point!(&format!("freeze written {}", index.display()), |_| Err(Error::Locked));
    fs::rename(&new, index).map_err(io(index))?;
    fail_point!(&format!("freeze renamed {}", index.display()), |_| Err(Error::Locked));
    write_note(index, &frozen).map_err(io(&note_of(index)))?;
    drop(connection);
    for suffix in ["-wal", "-shm", "-turn"] {
        remove(&with_suffix(index, suffix))?;
    }
    drop(new_file);
    Ok(frozen)
}

/// Writes an index that no other process has open to a new file, without what is free in it. The
/// new file is on the disk afterwards.
///
/// # Errors
/// [`Error::InUse`] if another process has the index open, and those of its files.
pub fn compact(index: &Path, new: &Path) -> Result<(), Error> {
    write_compact(index, new).map(drop)
}

/// Does what [`compact`] does, and keeps the index for this process alone while the connection
/// lives.
fn write_compact(index: &Path, new: &Path) -> Result<Connection, Error> {
    remove(new)?;
    let connection = take(index)?;
    // SQLite fills an empty file, and would make one that others can read.
    files::make(new)?;
    let failed = |source: rusqlite::Error| Error::Open { path: index.to_owned(), source: Box::new(source) };
    connection.execute("VACUUM INTO ?1", [path_text(new)?]).map_err(failed)?;
    let written = || -> io::Result<()> {
        fs::set_permissions(new, fs::metadata(index)?.permissions())?;
        File::open(new)?.sync_all()
    };
    written().map_err(|source| Error::Io { path: new.to_owned(), source })?;
    Ok(connection)
}

/// Lets an index be written again.
///
/// Who has it open takes no locks, and would find pages of two moments once it is written. So a
/// copy gets its name, and those keep the file that they have opened.
///
/// # Errors
/// If it cannot be copied, or its note cannot be removed. It is frozen then.
pub fn thaw(index: &Path) -> Result<(), Error> {
    let index = &fs::canonicalize(index).map_err(|_| Error::Missing { path: index.to_owned() })?;
    replace_by_copy(index).map_err(|source| Error::Io { path: index.clone(), source })?;
    // A test ends the work here.
    fail_point!(&format!("thaw renamed {}", index.display()), |_| Err(Error::Locked));
    remove(&note_of(index))?;
    sync_directory(parent_of(index)).map_err(|source| Error::Io { path: index.clone(), source })
}

fn replace_by_copy(index: &Path) -> io::Result<()> {
    let from = File::open(index)?;
    let permissions = from.metadata()?.permissions();
    let copy = UnfinishedFile::under(with_suffix(index, ".thawing"), index, FILE_MODE)?;
    copy.file().set_permissions(permissions)?;
    copy_or_share(&from, copy.file())?;
    copy.finish()
}

/// Opens an index for this process alone, with all of its log in the database.
fn take(index: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let files = DatabaseFiles::of(index);
    let open = || {
        #[expect(
            clippy::disallowed_methods,
            reason = "the index changes its journal mode, and is not written otherwise"
        )]
        let connection = Connection::open_with_flags(index, flags)?;
        functions::register(&connection)?;
        if !alone::take_alone(&connection, &files)? {
            return Ok((connection, false));
        }
        let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        let mode: String = connection.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
        Ok((connection, busy == 0 && mode == "delete"))
    };
    let in_use = || Error::InUse { path: index.to_owned() };
    let (connection, is_alone) = open().map_err(|error: rusqlite::Error| match alone::is_busy(&error) {
        true => in_use(),
        false => Error::Open { path: index.to_owned(), source: Box::new(error) },
    })?;
    if !is_alone {
        return Err(in_use());
    }
    schema::check(&connection, index, false)?;
    LogRecord::of(index).note(Log::Spent).map_err(|source| Error::Io { path: files::lock_file(index), source })?;
    Ok(connection)
}

fn path_text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::Io { path: path.to_owned(), source: io::ErrorKind::InvalidInput.into() })
}

fn write_note(index: &Path, frozen: &FrozenIndex) -> io::Result<()> {
    let text = json!({
        "size": frozen.size,
        "xxh3_128": format!("{:?}", frozen.checksum),
        "frozen_ms": frozen.frozen_ms,
    });
    replace(&note_of(index), FILE_MODE, format!("{text}\n").as_bytes())
}

fn remove(path: &Path) -> Result<(), Error> {
    remove_if_there(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// Size and checksum of a file.
///
/// # Errors
/// If it cannot be read.
pub fn checksum_of(path: &Path) -> io::Result<(u64, Checksum)> {
    let mut file = File::open(path)?;
    let (mut builder, mut buffer, mut size) = (ChecksumBuilder::default(), vec![0; PIECE], 0);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, builder.finish())),
            Ok(read) => {
                builder.update(buffer.get(..read).unwrap_or_default());
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
