//! The files of an index: which files they are, who may read them, and whether they fit each other.
//!
//! An index is a database with a write-ahead log (`-wal`), shared memory (`-shm`) and the lock file
//! of [`PriorityLock`](super::write_priority::PriorityLock) (`-turn`) beside it. SQLite trusts any
//! log that it finds, and the log of another database destroys this one. So the lock file also
//! holds a [`LogRecord`], which says whose log it is. Every opening reads it first.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use crate::db::Error;
use crate::files::{FILE_MODE, PRIVATE_MODE, with_suffix};

/// Attempts before a log counts as missing, with the pause between them. Another process that
/// closes the index empties the log a moment before it notes that.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// The path of a file beside the index. SQLite follows a link to the database, and puts its files
/// there.
fn beside(index: &Path, suffix: &str) -> PathBuf {
    with_suffix(&fs::canonicalize(index).unwrap_or_else(|_| index.to_owned()), suffix)
}

/// The path of the lock file, which also holds the [`LogRecord`].
pub(super) fn lock_file(index: &Path) -> PathBuf {
    beside(index, "-turn")
}

/// The path of the write-ahead log.
fn log(index: &Path) -> PathBuf {
    beside(index, "-wal")
}

/// Size of the write-ahead log in bytes. 0 if there is no such file.
pub(super) fn log_bytes(index: &Path) -> u64 {
    bytes_of_log(index).unwrap_or(0)
}

/// Size of the write-ahead log in bytes. `None` if there is no such file.
fn bytes_of_log(index: &Path) -> Option<u64> {
    fs::metadata(log(index)).ok().map(|metadata| metadata.len())
}

/// Makes the log durable as it is.
///
/// A process that was killed between the write and the sync of a commit leaves a row that is seen
/// but not durable. The start of the node relies on what it sees: it keeps an object of such a row.
///
/// Another descriptor of the log does no harm. SQLite locks the database and the shared memory, but
/// not the log.
pub(super) fn sync_log(index: &Path) -> io::Result<()> {
    match File::open(log(index)) {
        Ok(log) => log.sync_data(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Device and inode number of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

/// The state of a file that has this name now.
struct FileStatus {
    id: FileId,
    bytes: u64,
    /// Time of the last write, if it was asked for.
    modified: Option<SystemTime>,
}

impl From<&Metadata> for FileStatus {
    fn from(metadata: &Metadata) -> Self {
        let id = FileId { device: metadata.dev(), inode: metadata.ino() };
        Self { id, bytes: metadata.len(), modified: metadata.modified().ok() }
    }
}

/// Reads the state of a file, and its time only if `with_time` says so.
///
/// To ask for a time is costly on Linux 6.13 and later. The next write then gives the file a time
/// of its own, and the sync after it also writes the inode. For the log that was one more write to
/// the disk in each commit.
#[cfg(target_os = "linux")]
fn status_of(path: &Path, with_time: bool) -> io::Result<FileStatus> {
    use rustix::fs::{AtFlags, CWD, StatxFlags};

    let times = if with_time { StatxFlags::MTIME } else { StatxFlags::empty() };
    match rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::SIZE | times) {
        Ok(now) => {
            let device = rustix::fs::makedev(now.stx_dev_major, now.stx_dev_minor);
            let since_1970 = u64::try_from(now.stx_mtime.tv_sec).ok().filter(|_| with_time);
            Ok(FileStatus {
                id: FileId { device, inode: now.stx_ino },
                bytes: now.stx_size,
                modified: since_1970.map(|seconds| UNIX_EPOCH + Duration::new(seconds, now.stx_mtime.tv_nsec)),
            })
        }
        // The sandbox does not know the call.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => fs::metadata(path).map(|now| FileStatus::from(&now)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn status_of(path: &Path, _with_time: bool) -> io::Result<FileStatus> {
    fs::metadata(path).map(|now| FileStatus::from(&now))
}

/// Places of the database and its log among the files of an index.
const DATABASE: usize = 0;
const LOG: usize = 1;

/// The files of an index after a commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Size of the log in bytes.
    pub(super) log_bytes: u64,
    /// Time of the last write to the database. A checkpoint writes to it, a commit does not.
    pub(super) changed: Option<SystemTime>,
}

/// The files that an index was opened with.
///
/// The files that SQLite holds open are identified by name, right after they were opened. To open
/// another descriptor of a file is no way. Closing it would drop SQLite's locks, because POSIX
/// advisory locks belong to the process.
#[derive(Clone, Debug)]
pub struct DatabaseFiles {
    /// The name by which the index was opened.
    index: PathBuf,
    /// The database, its log and its shared memory. `None` for a file that was not there.
    opened: [(PathBuf, Option<FileId>); 3],
}

/// Difference between the files of an index and those that it was opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// Only the log has lost its name. Its contents can still be copied into the database.
    LogRemoved,
    /// Anything else.
    Other,
}

impl DatabaseFiles {
    /// Bytes of an index and its write-ahead log. A file that is missing counts as empty.
    #[must_use]
    pub fn bytes(index: &Path) -> u64 {
        fs::metadata(index).map_or(0, |metadata| metadata.len()) + log_bytes(index)
    }

    /// Identifies the files of this index as they are now.
    #[must_use]
    pub fn of(index: &Path) -> Self {
        // The database keeps the name that was given, because a link may later lead elsewhere.
        let opened = [index.to_owned(), beside(index, "-wal"), beside(index, "-shm")].map(|path| {
            let id = status_of(&path, false).ok().map(|now| now.id);
            (path, id)
        });
        Self { index: index.to_owned(), opened }
    }

    /// Checks that the same files still have these names. That is three calls of `stat`, some 3 µs.
    ///
    /// # Errors
    /// Fails with [`Error::Replaced`] if one is gone or another file has its name.
    pub fn check(&self) -> Result<(), Error> {
        match self.difference() {
            None => Ok(()),
            Some(_) => Err(Error::Replaced { path: self.index.clone() }),
        }
    }

    /// Checks that the database still has its name. That is one call of `stat`.
    ///
    /// This is enough for an open connection, which keeps the log and the shared memory that it
    /// opened. A new connection needs [`DatabaseFiles::check`], because it opens them by name.
    ///
    /// # Errors
    /// Fails with [`Error::Replaced`] if it is gone or another file has its name.
    pub fn check_database(&self) -> Result<(), Error> {
        let (path, opened) = &self.opened[DATABASE];
        let now = status_of(path, false).ok().map(|now| now.id);
        if opened.is_some() && now != *opened {
            return Err(Error::Replaced { path: self.index.clone() });
        }
        Ok(())
    }

    /// The name by which the index was opened.
    pub(super) fn index(&self) -> &Path {
        &self.index
    }

    /// Difference of the files. `None` if there is none.
    pub(super) fn difference(&self) -> Option<Difference> {
        self.observe().err()
    }

    /// Reads the state of the files after a commit, if they are the same files.
    pub(super) fn observe(&self) -> Result<Seen, Difference> {
        let (mut log_bytes, mut changed) = (0, None);
        let mut same = [true; 3];
        let mut log_is_gone = false;
        for (at, (path, opened)) in self.opened.iter().enumerate() {
            // A file that was not there when the index was opened is not ours.
            let Some(opened) = opened else { continue };
            let now = status_of(path, at == DATABASE);
            same[at] = now.as_ref().is_ok_and(|now| now.id == *opened);
            if at == DATABASE {
                changed = now.ok().and_then(|now| now.modified);
            } else if at == LOG {
                log_bytes = now.as_ref().map_or(0, |now| now.bytes);
                log_is_gone = now.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
            }
        }
        match same {
            [true, true, true] => Ok(Seen { log_bytes, changed }),
            [true, false, true] if log_is_gone => Err(Difference::LogRemoved),
            _ => Err(Difference::Other),
        }
    }
}

/// The record of the lock file about the write-ahead log: its database, and whether it holds
/// commits that the database does not have yet.
///
/// It is noted before Success is answered and after the log was emptied. So a log that is gone can
/// be told from one that nobody needs. If the file cannot be written, nothing is known, and nothing
/// is refused.
#[derive(Debug)]
pub(super) struct LogRecord {
    index: PathBuf,
    file: Option<File>,
    /// When the record was last written, as far as is known. Others only make it newer.
    modified: Cell<Option<SystemTime>>,
}

/// The state of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Log {
    /// The database has all commits.
    Spent,
    /// The log holds commits.
    Needed,
}

/// Place of the state of the log in the record, and its letters.
const STATE_AT: u64 = 0;
const SPENT: u8 = b'-';
const NEEDED: u8 = b'+';

/// Longest record: the state, two numbers and the end of the line.
const RECORD_BYTES: u64 = 64;

/// Tells a database from one that later has its name: inode number, and time of birth in
/// nanoseconds. File systems give the number of a removed file to the next file.
type Birth = (u64, u128);

fn birth_of(database: &Metadata) -> Birth {
    let born = database.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    (database.ino(), born.map_or(0, |born| born.as_nanos()))
}

impl LogRecord {
    /// Opens the record of an index. The file is made if it is missing.
    pub(super) fn of(index: &Path) -> Self {
        Self { index: index.to_owned(), file: open_lock_file(index).ok(), modified: Cell::default() }
    }

    /// The path of the file.
    pub(super) fn path(&self) -> PathBuf {
        lock_file(&self.index)
    }

    /// Notes that the log belongs to the database that has the name now, before anything is written
    /// to it.
    pub(super) fn claim(&self) -> io::Result<()> {
        let Some(mut file) = self.file.as_ref() else { return Ok(()) };
        let birth = birth_of(&fs::metadata(&self.index)?);
        if read_record(&self.index).is_some_and(|(known, _)| known == birth) {
            return Ok(());
        }
        let (inode, born) = birth;
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(format!("{}{inode} {born}\n", char::from(SPENT)).as_bytes())?;
        file.sync_all()
    }

    /// Notes the state of the log, if it has changed. It is durable when this returns.
    pub(super) fn note(&self, log: Log) -> io::Result<()> {
        self.note_as_told(log)?;
        if log == Log::Spent && log_bytes(&self.index) > 0 {
            // Another process has committed since the log was emptied, and found it noted as
            // needed.
            return self.note_as_told(Log::Needed);
        }
        Ok(())
    }

    fn note_as_told(&self, log: Log) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let letter = match log {
            Log::Spent => SPENT,
            Log::Needed => NEEDED,
        };
        let mut known = [0];
        if file.read_at(&mut known, STATE_AT)? == 0 || known[0] == letter {
            // Nothing is known without a record.
            return Ok(());
        }
        file.write_all_at(&[letter], STATE_AT)?;
        file.sync_data().inspect_err(|_| {
            // The next attempt must not find it noted, because it is not.
            let _the_error_counts = file.write_all_at(&known, STATE_AT);
        })
    }

    /// Makes the record newer than the database, which was last written at this time.
    ///
    /// Another program that is the last to close the index checkpoints the log and removes it. The
    /// shell of SQLite does that after a crash. The database is then newer than the record, and
    /// nothing is lost. If somebody has removed a log that was needed, the record is newer.
    pub(super) fn stay_newer_than(&self, changed: Option<SystemTime>) -> io::Result<()> {
        let (Some(file), Some(changed)) = (&self.file, changed) else { return Ok(()) };
        // Most commits are asked here, and few checkpoints make the database newer.
        if self.modified.get().is_some_and(|modified| modified > changed) {
            return Ok(());
        }
        let modified = file.metadata()?.modified()?;
        self.modified.set(Some(modified));
        if modified > changed {
            return Ok(());
        }
        let [last_access, last_modification] = [UTIME_OMIT, UTIME_NOW].map(|tv_nsec| Timespec { tv_sec: 0, tv_nsec });
        Ok(rustix::fs::futimens(file, &Timestamps { last_access, last_modification })?)
    }
}

/// Reads the database that the log belongs to, and the state of the log. `None` if there is no
/// record.
fn read_record(index: &Path) -> Option<(Birth, Log)> {
    let mut text = String::new();
    File::open(lock_file(index)).ok()?.take(RECORD_BYTES).read_to_string(&mut text).ok()?;
    let log = match text.as_bytes().first() {
        Some(&SPENT) => Log::Spent,
        Some(&NEEDED) => Log::Needed,
        _ => return None,
    };
    let (inode, born) = text.get(1..)?.strip_suffix('\n')?.split_once(' ')?;
    Some(((inode.parse().ok()?, born.parse().ok()?), log))
}

/// Whether the database was written after the last commit. Whoever removed the log has then copied
/// it back.
fn is_newer_than_record(database: &Metadata, index: &Path) -> bool {
    let noted = fs::metadata(lock_file(index)).and_then(|record| record.modified());
    matches!((database.modified(), noted), (Ok(changed), Ok(noted)) if changed > noted)
}

/// Whether the record says that the log holds commits.
pub(super) fn log_is_needed(index: &Path) -> bool {
    matches!(read_record(index), Some((_, Log::Needed)))
}

/// The database that a log or a lock file belongs to, by its name.
pub(in crate::db) fn database_of(path: &Path) -> Option<PathBuf> {
    let name = path.as_os_str().as_bytes();
    let database = [&b"-wal"[..], b"-turn"].into_iter().find_map(|suffix| name.strip_suffix(suffix))?;
    Some(OsStr::from_bytes(database).into())
}

/// Whether a database is gone, and commits that it lacks were left to its log.
pub(in crate::db) fn is_gone_with_commits(index: &Path) -> bool {
    !index.exists() && (log_bytes(index) > 0 || log_is_needed(index))
}

/// Refuses files that do not fit each other, before SQLite sees them. SQLite would take over the
/// log of another database, and discard a log whose database is gone.
pub(super) fn refuse_misfits(index: &Path) -> Result<(), Error> {
    let io = |source| Error::Io { path: index.to_owned(), source };
    for attempt in 1.. {
        let log_bytes = log_bytes(index);
        let database = match fs::metadata(index) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io(error)),
        };
        let Some(database) = database.filter(|database| database.len() > 0) else {
            let needed = log_is_needed(index);
            if log_bytes == 0 && !needed {
                return Ok(());
            }
            // Another process may be making it now.
            if attempt == ATTEMPTS {
                return Err(Error::DatabaseGone { path: index.to_owned() });
            }
            std::thread::sleep(PAUSE);
            continue;
        };
        match read_record(index) {
            Some((birth, _)) if birth != birth_of(&database) && log_bytes > 0 => {
                return Err(Error::ForeignLog { path: index.to_owned(), log: log(index), record: lock_file(index) });
            }
            // A log that is there and empty is not gone. A process was killed after it had emptied
            // the log and before it could note that. SQLite syncs the database before it empties
            // the log.
            Some((birth, Log::Needed))
                if birth == birth_of(&database)
                    && bytes_of_log(index).is_none()
                    && !is_newer_than_record(&database, index) =>
            {
                if attempt == ATTEMPTS {
                    return Err(Error::LogGone { path: index.to_owned(), log: log(index), record: lock_file(index) });
                }
                std::thread::sleep(PAUSE);
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Makes an empty database if it is missing. SQLite gives its log and shared memory the permissions
/// of the database.
pub(super) fn make(index: &Path) -> Result<(), Error> {
    let io = |source| Error::Io { path: index.to_owned(), source };
    match OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(index) {
        // Nobody in this process has the new file open, so closing it drops no locks.
        Ok(_made) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io(error)),
    }
}

/// Makes a directory and all above it, which only this user and group can enter.
pub(super) fn make_directory(path: &Path) -> Result<(), Error> {
    crate::files::make_directory(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// Removes the permissions of others from the files of an index that are ours. An earlier version
/// left them to the umask.
pub(super) fn tighten(index: &Path) {
    let modes = [("", FILE_MODE), ("-wal", FILE_MODE), ("-shm", FILE_MODE), ("-turn", PRIVATE_MODE)];
    for (suffix, mode) in modes {
        let path = beside(index, suffix);
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let (has, may) = (metadata.mode() & 0o7777, metadata.mode() & mode);
        if metadata.uid() == rustix::process::geteuid().as_raw()
            && has != may
            && let Err(error) = fs::set_permissions(&path, fs::Permissions::from_mode(may))
        {
            tracing::warn!(%error, file = %path.display(), "cannot remove the permissions of other users from a file of the index");
        }
    }
}

/// Opens the lock file, and makes it if it is missing. If the superuser makes it, it belongs to the
/// owner of the index.
pub(super) fn open_lock_file(index: &Path) -> io::Result<File> {
    let path = lock_file(index);
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(PRIVATE_MODE).open(path)?;
    if let (Ok(database), Ok(lock)) = (fs::metadata(index), file.metadata())
        && rustix::process::geteuid().is_root()
        && lock.uid() != database.uid()
    {
        std::os::unix::fs::fchown(&file, Some(database.uid()), Some(database.gid()))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let index = directory.path().join("index.db");
        (directory, index)
    }

    #[test]
    fn files_are_the_same_until_one_is_removed_or_replaced() {
        let (_directory, index) = index();
        for suffix in ["", "-wal", "-shm"] {
            fs::write(beside(&index, suffix), "x").unwrap();
        }
        let files = DatabaseFiles::of(&index);
        assert!(files.check().is_ok());
        for (suffix, expected) in
            [("", Difference::Other), ("-wal", Difference::LogRemoved), ("-shm", Difference::Other)]
        {
            let (path, away) = (beside(&index, suffix), beside(&index, "-away"));
            fs::rename(&path, &away).unwrap();
            assert_eq!(files.difference(), Some(expected), "{suffix}");
            fs::write(&path, "x").unwrap();
            assert_eq!(files.difference(), Some(Difference::Other), "{suffix}");
            assert!(matches!(files.check(), Err(Error::Replaced { .. })));
            assert_eq!(files.check_database().is_err(), suffix.is_empty(), "{suffix}");
            fs::rename(&away, &path).unwrap();
            assert!(files.check().is_ok());
        }
    }

    #[test]
    fn a_log_fits_the_database_that_it_was_written_for() {
        let (_directory, index) = index();
        fs::write(&index, "database").unwrap();
        fs::write(log(&index), "log").unwrap();
        // Nothing is known, because an older version wrote it.
        refuse_misfits(&index).unwrap();
        let record = LogRecord::of(&index);
        record.claim().unwrap();
        record.note(Log::Needed).unwrap();
        refuse_misfits(&index).unwrap();
        fs::rename(&index, beside(&index, ".old")).unwrap();
        assert!(matches!(refuse_misfits(&index), Err(Error::DatabaseGone { .. })));
        fs::write(&index, "").unwrap();
        assert!(matches!(refuse_misfits(&index), Err(Error::DatabaseGone { .. })));
        fs::write(&index, "backup").unwrap();
        assert!(matches!(refuse_misfits(&index), Err(Error::ForeignLog { .. })));
        // The log is moved out of the way, as the message says.
        fs::rename(log(&index), beside(&index, "-wal.old")).unwrap();
        refuse_misfits(&index).unwrap();
        record.claim().unwrap();
        assert_eq!(read_record(&index).unwrap().1, Log::Spent);
    }

    #[test]
    fn a_log_that_is_needed_and_gone_is_missed_and_one_that_is_spent_is_not() {
        let (_directory, index) = index();
        fs::write(&index, "database").unwrap();
        let record = LogRecord::of(&index);
        record.claim().unwrap();
        refuse_misfits(&index).unwrap();
        record.note(Log::Needed).unwrap();
        assert!(matches!(refuse_misfits(&index), Err(Error::LogGone { .. })));
        record.note(Log::Spent).unwrap();
        refuse_misfits(&index).unwrap();
    }

    #[test]
    fn a_log_that_another_process_has_written_since_it_was_emptied_is_not_noted_as_spent() {
        let (_directory, index) = index();
        fs::write(&index, "database").unwrap();
        let record = LogRecord::of(&index);
        record.claim().unwrap();
        record.note(Log::Needed).unwrap();
        fs::write(log(&index), "a commit").unwrap();
        record.note(Log::Spent).unwrap();
        assert!(log_is_needed(&index));
        fs::remove_file(log(&index)).unwrap();
        record.note(Log::Spent).unwrap();
        assert!(!log_is_needed(&index));
    }

    #[test]
    fn a_log_that_was_emptied_by_a_process_that_was_killed_then_is_not_missed() {
        let (_directory, index) = index();
        fs::write(&index, "database").unwrap();
        let record = LogRecord::of(&index);
        record.claim().unwrap();
        record.note(Log::Needed).unwrap();
        fs::write(log(&index), "").unwrap();
        refuse_misfits(&index).unwrap();
        fs::remove_file(log(&index)).unwrap();
        assert!(matches!(refuse_misfits(&index), Err(Error::LogGone { .. })));
    }

    #[test]
    fn a_lock_file_of_an_older_version_says_nothing() {
        let (_directory, index) = index();
        fs::write(&index, "database").unwrap();
        fs::write(lock_file(&index), "").unwrap();
        let record = LogRecord::of(&index);
        record.note(Log::Needed).unwrap();
        assert_eq!(read_record(&index), None);
        refuse_misfits(&index).unwrap();
    }

    #[test]
    fn an_index_behind_a_link_counts_with_its_log() {
        let (directory, index) = index();
        fs::write(&index, "index").unwrap();
        fs::write(beside(&index, "-wal"), "log").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&index, &link).unwrap();
        assert_eq!((DatabaseFiles::bytes(&index), DatabaseFiles::bytes(&link)), (8, 8));
    }

    #[test]
    fn what_others_may_do_is_taken_away() {
        let (_directory, index) = index();
        let files = ["", "-wal", "-shm", "-turn"].map(|suffix| beside(&index, suffix));
        for file in &files {
            fs::write(file, "x").unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
        }
        tighten(&index);
        let modes = files.each_ref().map(|file| fs::metadata(file).unwrap().mode() & 0o7777);
        assert_eq!(modes, [0o640, 0o640, 0o640, 0o600]);
    }
}
