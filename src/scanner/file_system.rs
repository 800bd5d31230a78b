//! Tells one file system from another.

use std::os::fd::AsFd;
use std::path::Path;

use fail::fail_point;

/// The file system of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileSystemMark {
    device: u64,
    /// Whether it is mounted at this very directory. False if the system cannot tell.
    pub(super) is_mount_point: bool,
}

impl FileSystemMark {
    /// Of an open directory. `None` if the system cannot tell.
    pub(super) fn of(directory: impl AsFd) -> Option<Self> {
        mark(directory, c"", rustix::fs::AtFlags::EMPTY_PATH)
    }

    /// Of a path. `None` if it is gone.
    pub(super) fn at(path: &Path) -> Option<Self> {
        // Tests take this file system away.
        fail_point!(&format!("file system {}", path.display()), |_| None);
        mark(rustix::fs::CWD, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
    }
}

#[cfg(target_os = "linux")]
fn mark(directory: impl AsFd, path: impl rustix::path::Arg, flags: rustix::fs::AtFlags) -> Option<FileSystemMark> {
    use rustix::fs::{StatxAttributes, StatxFlags, statx};
    let found = statx(directory, path, flags, StatxFlags::empty()).ok()?;
    Some(FileSystemMark {
        device: u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor),
        is_mount_point: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
    })
}

/// This system cannot tell mount points.
#[cfg(not(target_os = "linux"))]
fn mark(directory: impl AsFd, path: impl rustix::path::Arg, flags: rustix::fs::AtFlags) -> Option<FileSystemMark> {
    let found = match flags.contains(rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        true => rustix::fs::statat(directory, path, flags),
        false => rustix::fs::fstat(directory),
    };
    Some(FileSystemMark { device: found.ok()?.st_dev as u64, is_mount_point: false })
}
