//! The files of an index: which ones they are, who may read them, and whether they fit each other.
//!
//! An index is a database, a write-ahead log beside it (`-wal`), shared memory (`-shm`) and the lock file of
//! [`PriorityLock`](super::write_priority::PriorityLock) (`-turn`). SQLite trusts the log that it finds: a log of another database destroys this one.
//! So the lock file also holds a [`LogRecord`], which says whose log it is, and every opening asks it first.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use crate::db::Error;

/// Permissions of the files of an index at most: they hold patient data, and whoever can open a file can lock it.
const FILE_MODE: u32 = 0o640;

/// Permissions of a directory that is made for an index at most.
const DIRECTORY_MODE: u32 = 0o750;

/// Permissions of the lock file at most. A lock takes no more than a descriptor, so that nobody else may have one.
const LOCK_MODE: u32 = 0o600;

/// Attempts, and the pause between them, before a log counts as missing. Another process that closes the index empties the log
/// a moment before it notes that.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// The path of a file beside the index. SQLite follows a link to the database, and puts its files there.
fn beside(index: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(fs::canonicalize(index).unwrap_or_else(|_| index.to_owned()));
    path.push(suffix);
    path.into()
}

/// The path of the lock file, which also holds the [`LogRecord`].
pub(super) fn lock_file(index: &Path) -> PathBuf {
    beside(index, "-turn")
}

/// The write-ahead log.
fn log(index: &Path) -> PathBuf {
    beside(index, "-wal")
}

/// Bytes in the write-ahead log; none where there is no such file.
pub(super) fn log_bytes(index: &Path) -> u64 {
    bytes_of_log(index).unwrap_or(0)
}

/// The same; `None` where there is no such file.
fn bytes_of_log(index: &Path) -> Option<u64> {
    fs::metadata(log(index)).ok().map(|metadata| metadata.len())
}

/// Makes the log durable as it is. A process that was killed between a commit's write and its sync leaves a row that is seen and
/// not durable, and the start of the node relies on what it sees: an object of such a row is kept.
///
/// Another descriptor does no harm here: SQLite locks the database and the shared memory, and not the log.
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

/// What the kernel says of a file that has this name now.
struct FileStatus {
    id: FileId,
    bytes: u64,
    /// When the file was written last, where that was asked for.
    modified: Option<SystemTime>,
}

impl From<&Metadata> for FileStatus {
    fn from(metadata: &Metadata) -> Self {
        let id = FileId { device: metadata.dev(), inode: metadata.ino() };
        Self { id, bytes: metadata.len(), modified: metadata.modified().ok() }
    }
}

/// Looks at a file, and at its time only if `with_time` says so.
///
/// Asking for a time has a price (Linux 6.13 and later): the next write then gives the file a time of its own, and the sync after
/// it writes the inode as well. For the log that was one more write to the disk in each commit.
#[cfg(target_os = "linux")]
fn look_at(path: &Path, with_time: bool) -> io::Result<FileStatus> {
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
        // A sandbox that does not know the call.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => fs::metadata(path).map(|now| FileStatus::from(&now)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn look_at(path: &Path, _with_time: bool) -> io::Result<FileStatus> {
    fs::metadata(path).map(|now| FileStatus::from(&now))
}

/// Where the database and its log stand among the files of an index.
const DATABASE: usize = 0;
const LOG: usize = 1;

/// The files of an index after a commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Bytes in the log.
    pub(super) log_bytes: u64,
    /// When the database was written last: a checkpoint does that, a commit does not.
    pub(super) changed: Option<SystemTime>,
}

/// The files that an index was opened with.
///
/// What SQLite holds open is asked for by name, right after it was opened: another descriptor of the same file is no way, since
/// closing it would drop SQLite's locks (POSIX advisory locks belong to the process).
#[derive(Clone, Debug)]
pub struct IndexFiles {
    /// The name that the index was opened by.
    index: PathBuf,
    /// The database, its log and its shared memory; `None` for one that was not there.
    opened: [(PathBuf, Option<FileId>); 3],
}

/// How the files of an index differ from those that it was opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// The log alone has lost its name. Its contents can still be copied into the database.
    LogRemoved,
    /// Anything else.
    Other,
}

impl IndexFiles {
    /// The files of this index as they are now.
    #[must_use]
    pub fn of(index: &Path) -> Self {
        // The database by the name that was given: a link may come to lead elsewhere.
        let opened = [index.to_owned(), beside(index, "-wal"), beside(index, "-shm")].map(|path| {
            let id = look_at(&path, false).ok().map(|now| now.id);
            (path, id)
        });
        Self { index: index.to_owned(), opened }
    }

    /// Whether the same files still have these names. Three calls of `stat`, some 3 µs.
    ///
    /// # Errors
    /// [`Error::Replaced`] when one is gone or another file has its name.
    pub fn check(&self) -> Result<(), Error> {
        match self.difference() {
            None => Ok(()),
            Some(_) => Err(Error::Replaced { path: self.index.clone() }),
        }
    }

    /// Whether the database still has its name. One call of `stat`.
    ///
    /// This is enough for a connection that is open: it keeps the log and the shared memory that it
    /// opened. A new connection needs [`IndexFiles::check`], since it opens them by their names.
    ///
    /// # Errors
    /// [`Error::Replaced`] when it is gone or another file has its name.
    pub fn check_database(&self) -> Result<(), Error> {
        let (path, opened) = &self.opened[DATABASE];
        let now = look_at(path, false).ok().map(|now| now.id);
        if opened.is_some() && now != *opened {
            return Err(Error::Replaced { path: self.index.clone() });
        }
        Ok(())
    }

    /// The name that the index was opened by.
    pub(super) fn index(&self) -> &Path {
        &self.index
    }

    /// How they differ; `None`: they do not.
    pub(super) fn difference(&self) -> Option<Difference> {
        self.look().err()
    }

    /// What is to be known of them after a commit, if the files are the same.
    pub(super) fn look(&self) -> Result<Seen, Difference> {
        let (mut log_bytes, mut changed) = (0, None);
        let mut same = [true; 3];
        let mut log_is_gone = false;
        for (at, (path, opened)) in self.opened.iter().enumerate() {
            // A file that was not there when the index was opened is none of ours.
            let Some(opened) = opened else { continue };
            let now = look_at(path, at == DATABASE);
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

/// What the lock file says of the write-ahead log: for which database it was written, and whether it holds commits that the
/// database does not have yet.
///
/// It is noted before Success is answered and after the log was emptied, so that a log that is gone is told from one that
/// nobody needs. Nothing is known where the file cannot be written, and then nothing is refused.
#[derive(Debug)]
pub(super) struct LogRecord {
    index: PathBuf,
    file: Option<File>,
}

/// The state of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Log {
    /// The database has all that was committed.
    Spent,
    /// The log holds commits.
    Needed,
}

/// Where the state of the log stands in the record, and the letters for it.
const STATE_AT: u64 = 0;
const SPENT: u8 = b'-';
const NEEDED: u8 = b'+';

/// The longest record: the state, two numbers and the line's end.
const RECORD_BYTES: u64 = 64;

/// What sets a database apart from one that takes its name later: its inode number and its time of birth in nanoseconds.
/// File systems give the number of a file that was removed to the next one.
type Birth = (u64, u128);

fn birth_of(database: &Metadata) -> Birth {
    let born = database.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    (database.ino(), born.map_or(0, |born| born.as_nanos()))
}

impl LogRecord {
    /// The record of an index; the file is made where it is missing.
    pub(super) fn of(index: &Path) -> Self {
        Self { index: index.to_owned(), file: open_lock_file(index).ok() }
    }

    /// The file that it stands in.
    pub(super) fn path(&self) -> PathBuf {
        lock_file(&self.index)
    }

    /// Notes that the log belongs to the database that has the name now, before anything is written to it.
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

    /// Notes the state of the log, where it is another one. It is durable when this returns.
    pub(super) fn note(&self, log: Log) -> io::Result<()> {
        self.note_as_told(log)?;
        if log == Log::Spent && log_bytes(&self.index) > 0 {
            // Another process has committed since the log was emptied, and found it noted as needed.
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
            // A record that was never made says nothing.
            return Ok(());
        }
        file.write_all_at(&[letter], STATE_AT)?;
        file.sync_data().inspect_err(|_| {
            // So that the next attempt does not find it noted, which it is not.
            let _the_error_counts = file.write_all_at(&known, STATE_AT);
        })
    }

    /// Makes the record newer than the database, which was written last at this time.
    ///
    /// Another program that closes the index last copies the log back and removes it. The shell of
    /// SQLite does that after a crash. Then the database is newer than the record, and nothing is lost.
    /// Where somebody has removed a log that was needed, the record is newer.
    pub(super) fn stay_newer_than(&self, changed: Option<SystemTime>) -> io::Result<()> {
        let (Some(file), Some(changed)) = (&self.file, changed) else { return Ok(()) };
        if file.metadata()?.modified()? > changed {
            return Ok(());
        }
        let [last_access, last_modification] = [UTIME_OMIT, UTIME_NOW].map(|tv_nsec| Timespec { tv_sec: 0, tv_nsec });
        Ok(rustix::fs::futimens(file, &Timestamps { last_access, last_modification })?)
    }
}

/// The database that the log belongs to, and the state of the log; `None` where there is no record.
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

/// Whether the database was written after the last commit: whoever removed the log had copied it back.
fn is_newer_than_record(database: &Metadata, index: &Path) -> bool {
    let noted = fs::metadata(lock_file(index)).and_then(|record| record.modified());
    matches!((database.modified(), noted), (Ok(changed), Ok(noted)) if changed > noted)
}

/// Whether the record says that the log holds commits.
pub(super) fn log_is_needed(index: &Path) -> bool {
    matches!(read_record(index), Some((_, Log::Needed)))
}

/// Refuses files that do not fit each other, before SQLite sees them: it would take over a log of another database, and throw
/// away one whose database is gone.
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
            // Another process may be making it just now.
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
            // A log that is there and empty is not gone: a process was killed after it had copied the log back and emptied it,
            // and before it could note that. SQLite syncs the database before it empties the log.
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

/// Makes the database, empty, where it is missing: SQLite gives its log and shared memory the permissions of the database.
pub(super) fn make(index: &Path) -> Result<(), Error> {
    let io = |source| Error::Io { path: index.to_owned(), source };
    match OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(index) {
        // Nobody of this process has the new file open, so that closing it drops no locks.
        Ok(_made) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io(error)),
    }
}

/// Makes a directory, with all above it, that only this user and group can enter.
pub(super) fn make_directory(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(path)
        .map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// Takes away what others may do with the files of an index, where they are ours. An earlier version left that to the umask.
pub(super) fn tighten(index: &Path) {
    let modes = [("", FILE_MODE), ("-wal", FILE_MODE), ("-shm", FILE_MODE), ("-turn", LOCK_MODE)];
    for (suffix, mode) in modes {
        let path = beside(index, suffix);
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let (has, may) = (metadata.mode() & 0o7777, metadata.mode() & mode);
        if metadata.uid() == rustix::process::geteuid().as_raw()
            && has != may
            && let Err(error) = fs::set_permissions(&path, fs::Permissions::from_mode(may))
        {
            tracing::warn!(%error, file = %path.display(), "others may read a file of the index, and that cannot be changed");
        }
    }
}

/// Opens the lock file, and makes it where it is missing. One that the superuser makes belongs to the owner of the index.
pub(super) fn open_lock_file(index: &Path) -> io::Result<File> {
    let path = lock_file(index);
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(LOCK_MODE).open(path)?;
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
        let files = IndexFiles::of(&index);
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
        // Nothing is known: an older version wrote it.
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
        // The log moved out of the way, as the message says.
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
