//! Who may enter the storage directory: permissions of files and directories.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Permissions of directories at most: objects are patient data.
const DIRECTORY_MODE: u32 = 0o750;

/// Permissions of files at most.
pub(super) const FILE_MODE: u32 = 0o640;

/// Permissions of the lock file at most. A lock takes no more than a descriptor, so that nobody else may have one.
pub(super) const LOCK_MODE: u32 = 0o600;

/// Makes a directory, with all above it, whatever the umask.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// Takes away what others may do with a file or directory of ours. An earlier version left that to the umask.
pub(super) fn tighten(path: &Path) {
    let Ok(metadata) = fs::metadata(path) else { return };
    let mode = match metadata.is_dir() {
        true => DIRECTORY_MODE,
        false => LOCK_MODE,
    };
    // Set-group-ID on a directory stays: it only says whose group new files have.
    let (has, may) = (metadata.mode() & 0o7777, metadata.mode() & (mode | 0o7000));
    if metadata.uid() == rustix::process::geteuid().as_raw()
        && has != may
        && let Err(error) = fs::set_permissions(path, Permissions::from_mode(may))
    {
        tracing::warn!(%error, path = %path.display(), "others can enter the storage directory, and that cannot be changed");
    }
}
