//! Reads directories from the file system.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};

use super::WalkOrder;
use super::file_system::FileSystemMark;

/// A directory entry as the system returned it.
pub(super) struct RawEntry {
    pub(super) name: OsString,
    pub(super) kind: FileType,
    /// Time of the last change, in seconds. Only for directories, and only if the order needs it.
    pub(super) time: Option<i64>,
}

/// A directory as the system returned it.
pub(super) struct Opened {
    pub(super) handle: OwnedFd,
    pub(super) entries: Vec<RawEntry>,
    /// The error that ended reading early.
    pub(super) error: Option<io::Error>,
    /// `None` if the system cannot tell.
    pub(super) file_system: Option<FileSystemMark>,
    /// Whether it has more entries than were asked for.
    pub(super) is_cut: bool,
}

impl Opened {
    /// Reads from the file system all that the walk needs of a directory, up to so many entries.
    pub(super) fn read(path: &Path, order: WalkOrder, most: usize) -> io::Result<Self> {
        let handle = open_directory(path)?;
        let file_system = FileSystemMark::of(&handle);
        let mut entries = Vec::new();
        let (mut failure, mut is_cut) = (None, false);
        // It shares the position of the handle, from which nobody else reads. Opening it again
        // would ask the file system once more.
        for entry in Dir::new(handle.try_clone()?)? {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    failure = Some(error.into());
                    break;
                }
            };
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if entries.len() == most {
                is_cut = true;
                break;
            }
            let kind = match entry.file_type() {
                // Some file systems do not report the type here.
                FileType::Unknown => match statat(&handle, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(_) => FileType::RegularFile, // and then the reader will say what is wrong with it
                },
                kind => kind,
            };
            let wants_time = order == WalkOrder::NewestFirst && kind == FileType::Directory;
            let time = wants_time.then(|| time_of(&handle, OsStr::from_bytes(name)));
            entries.push(RawEntry { name: OsString::from_vec(name.to_vec()), kind, time });
        }
        Ok(Self { handle, entries, error: failure, file_system, is_cut })
    }
}

pub(super) fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the directory does not answer")
}

/// When an entry was last added to a directory or removed from it, in seconds. The smallest number
/// if that is unknown.
pub(super) fn time_of(parent: impl AsFd, name: &OsStr) -> i64 {
    // The type differs between systems.
    #[expect(clippy::allow_attributes, reason = "whether the conversion does anything depends on the system")]
    #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions, reason = "see above")]
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_or(i64::MIN, |stat| i64::try_from(stat.st_mtime).unwrap_or(i64::MIN))
}

pub(super) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}
