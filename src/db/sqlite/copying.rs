//! Whole copies of an index: how one is made while a node writes, and how one takes the place of an
//! index.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::alone;
use super::files::{self, DatabaseFiles, Log, LogRecord};
use super::frozen;
use super::open::ReadConnection;
use crate::db::Error;
use crate::files::{copy_or_share, parent_of, remove_if_there, sync_directory, with_suffix};

/// Memory for pages of the index while it is copied, in bytes. Every page is read once.
const CACHE_BYTES: u64 = 1024 * 1024;

/// Pause before the next attempt if the copy cannot begin at once.
const PAUSE: Duration = Duration::from_millis(10);

/// Longest wait for the beginning of a copy. The first process that opens an index after a crash
/// recovers its log, and keeps others out meanwhile.
const ATTEMPTS: u32 = 1000;

/// Copies the index as it is at one moment to a new file, while others write it.
///
/// All pages are copied in one step. A copy in several steps begins anew with each commit of
/// another process, so beside a busy node it never ends. The new file is not durable yet.
///
/// # Errors
/// That of opening the index, or [`Error::Copy`]. The new file may then be incomplete.
pub fn copy_index(index: &Path, to: &Path) -> Result<(), Error> {
    let failed = |source: rusqlite::Error| Error::Copy { to: to.to_owned(), source: Box::new(source) };
    let source = match frozen::check_size(index)? {
        true => ReadConnection::open_copy(index, CACHE_BYTES)?,
        false => ReadConnection::open(index, CACHE_BYTES)?,
    };
    // SQLite would leave its permissions to the umask.
    files::make(to)?;
    #[expect(clippy::disallowed_methods, reason = "the new file is a copy, and no index is opened here")]
    let mut copy = Connection::open(to).map_err(failed)?;
    // Nobody reads an incomplete copy, so it needs no journal. Its caller synchronises it once.
    copy.pragma_update(None, "journal_mode", "OFF").map_err(failed)?;
    copy.pragma_update(None, "synchronous", "OFF").map_err(failed)?;
    let backup = Backup::new(&source, &mut copy).map_err(failed)?;
    for _ in 0..ATTEMPTS {
        match backup.step(-1).map_err(failed)? {
            StepResult::Done => return Ok(()),
            _ => std::thread::sleep(PAUSE),
        }
    }
    Err(Error::Locked)
}

/// An index that no other process has open, until this is dropped.
///
/// It holds a lock on the whole database file. Every connection of SQLite holds a shared lock there
/// from its first query to its end.
#[derive(Debug)]
pub struct IndexHold {
    index: PathBuf,
    database: Option<File>,
}

impl IndexHold {
    /// Takes an index for this process alone. It is no error if there is no index, or if the file
    /// is damaged.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process has the index open.
    pub fn take(index: &Path) -> Result<Self, Error> {
        let index = fs::canonicalize(index).unwrap_or_else(|_| index.to_owned());
        if index.try_exists().map_err(|source| Error::Io { path: index.clone(), source })? {
            fold_log(&index)?;
        }
        let hold = Self { database: alone::lock(&index)?, index };
        Ok(hold)
    }

    /// Copies the index to a new file. It is not durable yet.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is no index, and those of the files.
    pub fn copy_to(&self, to: &Path) -> Result<(), Error> {
        // Another descriptor of the file would end the lock when it is closed.
        let Some(database) = self.database.as_ref() else {
            return Err(Error::Missing { path: self.index.clone() });
        };
        let copy = || -> std::io::Result<()> {
            let new = File::create_new(to)?;
            let metadata = database.metadata()?;
            new.set_permissions(metadata.permissions())?;
            if rustix::process::geteuid().is_root() {
                std::os::unix::fs::fchown(&new, Some(metadata.uid()), Some(metadata.gid()))?;
            }
            copy_or_share(database, &new)
        };
        copy().map_err(|source| Error::Io { path: to.to_owned(), source })
    }

    /// Puts a file in the place of the index, and keeps the former index under another name, with
    /// the log that it may have left. Returns that name, if there was an index.
    ///
    /// After a kill at any moment, the index is the former one or the new one. Only a former index
    /// that is damaged and has a log may be left without it. Then it cannot be opened. This
    /// function finishes the work when it is called again.
    ///
    /// # Errors
    /// If a file cannot be renamed.
    pub fn replace_with(self, new: &Path, suffix: &str) -> Result<Option<PathBuf>, Error> {
        self.set_aside(Some(new), suffix)
    }

    /// Gives the index another name, with the log that it may have left. Returns that name, if
    /// there was an index.
    ///
    /// # Errors
    /// If a file cannot be renamed.
    pub fn rename_aside(self, suffix: &str) -> Result<Option<PathBuf>, Error> {
        self.set_aside(None, suffix)
    }

    /// Another process may open the new file at once, and claims the lock file beside it. So that
    /// goes with the former index only if there is no new one.
    fn set_aside(self, new: Option<&Path>, suffix: &str) -> Result<Option<PathBuf>, Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        let aside = free_name(&self.index, suffix);
        // A log that could not be copied back belongs to the former index alone. SQLite would apply
        // it to the new one.
        for kind in ["-wal", "-shm"] {
            rename_if_there(&with_suffix(&self.index, kind), &with_suffix(&aside, kind))?;
        }
        if self.database.is_some() {
            match fs::hard_link(&self.index, &aside) {
                Ok(()) => {}
                // Without hard links there is a moment without an index.
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    fs::rename(&self.index, &aside).map_err(failed(&self.index))?;
                }
                Err(error) => return Err(failed(&aside)(error)),
            }
        }
        match new {
            Some(new) => fs::rename(new, &self.index).map_err(failed(&self.index))?,
            None => {
                rename_if_there(&with_suffix(&self.index, "-turn"), &with_suffix(&aside, "-turn"))?;
                // Without hard links it has its other name already.
                remove_if_there(&self.index).map_err(failed(&self.index))?;
            }
        }
        let directory = parent_of(&self.index);
        sync_directory(directory).map_err(failed(directory))?;
        Ok(self.database.is_some().then_some(aside))
    }
}

/// Copies the log back into the database, so that one file is the whole index. A damaged index is
/// left as it is.
fn fold_log(index: &Path) -> Result<(), Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let files = DatabaseFiles::of(index);
    #[expect(clippy::disallowed_methods, reason = "the index may be damaged or have another schema")]
    let connection = Connection::open_with_flags(index, flags);
    let fold = |connection: &Connection| {
        if !alone::take_alone(connection, &files)? {
            return Ok(1);
        }
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
    };
    let folded = connection.and_then(|connection| fold(&connection));
    match folded {
        Ok(0) => {
            LogRecord::of(index).note(Log::Spent).map_err(|source| Error::Io { path: files::lock_file(index), source })
        }
        Ok(_) => Err(Error::InUse { path: index.to_owned() }),
        Err(error) if alone::is_busy(&error) => Err(Error::InUse { path: index.to_owned() }),
        Err(_) => Ok(()),
    }
}

/// A name beside the index that no file has. A restore that was killed may have used the first one.
fn free_name(index: &Path, suffix: &str) -> PathBuf {
    let mut aside = with_suffix(index, suffix);
    let mut number = 2;
    while aside.symlink_metadata().is_ok() {
        aside = with_suffix(index, &format!("{suffix}-{number}"));
        number += 1;
    }
    aside
}

fn rename_if_there(from: &Path, to: &Path) -> Result<(), Error> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { path: from.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}
