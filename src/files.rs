//! Files that get their name when they are whole, names that replace nothing, and the permissions
//! of new files.
//!
//! Everything that writes a file for later uses this. A reader then finds a whole file under its
//! name or none, also after a kill or a power cut.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, ioctl_ficlone, renameat_with};
use rustix::io::Errno;

/// Maximum permissions of files with patient data, whatever the umask.
pub const FILE_MODE: u32 = 0o640;

/// Maximum permissions of directories with patient data, whatever the umask.
pub const DIRECTORY_MODE: u32 = 0o750;

/// Maximum permissions of files for this user alone. Whoever can open a lock file can lock it.
pub const PRIVATE_MODE: u32 = 0o600;

/// Opens no symbolic link. One under a temporary name would lead to a file of somebody else.
const NO_FOLLOW: i32 = OFlags::NOFOLLOW.bits().cast_signed();

/// Identifies a file in one state. It differs for another file and for a changed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMark {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    /// Seconds and nanoseconds.
    pub(crate) modified: (i64, i64),
    /// Time of the last change of data or inode. No program can set it.
    pub(crate) changed: (i64, i64),
}

impl FileMark {
    /// The mark of a file.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Makes a directory and its missing parents, with at most [`DIRECTORY_MODE`].
///
/// # Errors
/// If one cannot be made.
pub fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// Makes a directory in one that exists, with at most [`DIRECTORY_MODE`].
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if the name is taken.
pub fn make_one_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(DIRECTORY_MODE).create(path)
}

/// The directory of a path: `.` for a name alone.
#[must_use]
pub fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path with `suffix` at the end of its name.
#[must_use]
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Whether nothing has this name. If the system gives no clear answer, something may have it.
#[must_use]
pub fn is_missing(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The space of a file system, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct FileSystemSpace {
    /// Space that this user may still use.
    pub free: u64,
    /// The whole file system.
    pub total: u64,
    /// Whether a file can have an inode. File systems that do not count inodes always have one.
    pub has_inode: bool,
}

impl FileSystemSpace {
    /// The space of the file system of a path.
    ///
    /// # Errors
    /// Fails if the file system does not answer.
    pub fn at(path: &Path) -> io::Result<Self> {
        let space = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
        let has_inode = space.f_files == 0 || space.f_favail > 0;
        Ok(Self { free: bytes(space.f_bavail), total: bytes(space.f_blocks), has_inode })
    }

    /// The space that must stay free: `min_free_bytes`, or this part of the file system if that is
    /// less. 20 means a twentieth.
    #[must_use]
    pub fn min_free(&self, min_free_bytes: u64, part: u64) -> u64 {
        min_free_bytes.min(self.total / part.max(1))
    }
}

/// Removes a file. It is no error if there is none.
///
/// # Errors
/// If the file cannot be removed.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Copies all bytes of a file to a new one. On a file system that can do so, both share them.
///
/// # Errors
/// If one cannot be read or the other one cannot be written.
pub fn copy_or_share(mut from: &File, mut to: &File) -> io::Result<()> {
    if ioctl_ficlone(to, from).is_err() {
        from.rewind()?;
        io::copy(&mut from, &mut to)?;
    }
    Ok(())
}

/// Makes the names in a directory durable.
///
/// # Errors
/// If the directory cannot be opened or synchronised.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Renames a file, and replaces none.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if the new name is taken.
pub fn rename_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system (NFS) does not support this flag. Creating a hard link does not replace a
        // file either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match fs::hard_link(from, to) {
            Ok(()) => fs::remove_file(from),
            // It has no hard links. Another process could take the name in between.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported)
                    && is_missing(to) =>
            {
                fs::rename(from, to)
            }
            Err(error) => Err(error),
        },
        result => result.map_err(Into::into),
    }
}

/// Opens a file for the next run to go on with, and makes it if it is missing. It stays locked
/// while it is open.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if another process has it locked.
pub fn open_locked(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(FILE_MODE).custom_flags(NO_FOLLOW);
    let file = options.open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Gives a whole file its name. It is durable when this returns.
///
/// # Errors
/// If the bytes or the name cannot be made durable.
pub fn publish(file: &File, temporary: &Path, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(temporary, path)?;
    sync_directory(parent_of(path))
}

/// Makes a file without a name in a directory, to write and read. It goes away when it is closed.
///
/// # Errors
/// If it cannot be made.
pub fn nameless_file(directory: &Path) -> io::Result<File> {
    /// Makes the name unique that the file has for a moment.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!(".dcmdex-{}-{number}.tmp", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(PRIVATE_MODE).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Writes a small file anew. A reader finds the old bytes or the new ones. If the superuser does
/// it, the file stays that of its owner.
///
/// # Errors
/// If the file cannot be written. The old one stays then.
pub fn replace(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = UnfinishedFile::under(with_suffix(path, ".new"), path, mode)?;
    if rustix::process::geteuid().is_root()
        && let Ok(former) = path.symlink_metadata()
    {
        fchown(file.file(), Some(former.uid()), Some(former.gid()))?;
    }
    file.write_all(bytes)?;
    file.finish()
}

/// Writes a small file under a name that nothing has. A reader finds all of it or no file.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if the name is taken. Nothing stays of a file that cannot be
/// written.
pub fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    if !is_missing(path) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // Another process may make the same file now.
    let temporary = with_suffix(path, &format!(".{}.partial", std::process::id()));
    let mut file = UnfinishedFile::under(temporary, path, mode)?;
    file.write_all(bytes)?;
    file.file().sync_all()?;
    file.finish_without_replacing()?;
    sync_directory(parent_of(path))
}

/// A file under a temporary name. It is removed on drop, unless it was finished.
#[derive(Debug)]
pub struct UnfinishedFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    is_finished: bool,
}

impl UnfinishedFile {
    /// Begins a file. Its temporary name is its own with `.partial` at the end. What a killed
    /// process left there is overwritten.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another process writes it now.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let temporary = with_suffix(path, ".partial");
        let file = open_locked(&temporary)?;
        let this = Self { path: path.to_owned(), temporary, file, is_finished: false };
        this.file.set_len(0)?;
        Ok(this)
    }

    /// Begins a file under this temporary name, which no other process uses.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn under(temporary: PathBuf, path: &Path, mode: u32) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(mode).custom_flags(NO_FOLLOW);
        let file = options.open(&temporary)?;
        Ok(Self { path: path.to_owned(), temporary, file, is_finished: false })
    }

    /// The name that it gets.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name. It is durable when this returns.
    ///
    /// # Errors
    /// If the bytes or the name cannot be made durable.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.is_finished = true;
        sync_directory(parent_of(&self.path))
    }

    /// Gives the file its name. The caller makes it durable, with others.
    ///
    /// # Errors
    /// If it cannot get the name.
    pub fn finish_without_flush(mut self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.path)?;
        self.is_finished = true;
        Ok(())
    }

    /// Gives the file its name, unless that is taken. The caller makes it durable, with others.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if the name is taken.
    pub fn finish_without_replacing(mut self) -> io::Result<()> {
        rename_without_replacing(&self.temporary, &self.path)?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        if !self.is_finished {
            // The error that ended the file is the one to tell.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

impl Write for UnfinishedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for UnfinishedFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_gets_its_name_when_it_is_finished() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let mut file = UnfinishedFile::create(&path).unwrap();
        file.write_all(b"one").unwrap();
        assert_eq!(names(directory.path()), ["a.partial"]);
        assert_eq!(UnfinishedFile::create(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        file.finish().unwrap();
        assert_eq!(names(directory.path()), ["a"]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777 & !FILE_MODE, 0);
        // Half of another one changes nothing.
        UnfinishedFile::create(&path).unwrap().write_all(b"two").unwrap();
        assert_eq!((names(directory.path()), fs::read(&path).unwrap()), (vec!["a".to_owned()], b"one".to_vec()));
        replace(&path, PRIVATE_MODE, b"three").unwrap();
        assert_eq!((names(directory.path()), fs::read(&path).unwrap()), (vec!["a".to_owned()], b"three".to_vec()));
    }

    #[test]
    fn a_link_under_the_temporary_name_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("a"), directory.path().join("other"));
        fs::write(&other, "of somebody else").unwrap();
        symlink(&other, with_suffix(&path, ".partial")).unwrap();
        symlink(&other, with_suffix(&path, ".new")).unwrap();
        UnfinishedFile::create(&path).unwrap_err();
        replace(&path, PRIVATE_MODE, b"x").unwrap_err();
        assert_eq!(fs::read_to_string(&other).unwrap(), "of somebody else");
    }

    #[test]
    fn a_name_that_is_taken_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::write(&from, "from").unwrap();
        fs::write(&to, "to").unwrap();
        assert_eq!(rename_without_replacing(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let mut file = UnfinishedFile::create(&to).unwrap();
        file.write_all(b"x").unwrap();
        assert_eq!(file.finish_without_replacing().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(names(directory.path()), ["from", "to"]);
        fs::remove_file(&to).unwrap();
        rename_without_replacing(&from, &to).unwrap();
        assert_eq!((names(directory.path()), fs::read_to_string(&to).unwrap()), (vec!["to".to_owned()], "from".into()));
    }

    #[test]
    fn a_name_alone_lies_in_the_current_directory() {
        assert_eq!(parent_of(Path::new("a")), Path::new("."));
        assert_eq!(parent_of(Path::new("a/b")), Path::new("a"));
    }
}
