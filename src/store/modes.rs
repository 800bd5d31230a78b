//! File permissions in the storage directory.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Maximum permissions of directories. Objects are patient data.
const DIRECTORY_MODE: u32 = 0o750;

/// Maximum permissions of files.
pub(super) const FILE_MODE: u32 = 0o640;

/// Maximum permissions of the lock file. Whoever can open the file can lock it, so only the owner
/// may open it.
pub(super) const LOCK_MODE: u32 = 0o600;

/// Creates a directory and its missing parents. Whatever the umask, it has at most
/// [`DIRECTORY_MODE`].
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// Removes excess permissions from a directory or a lock file of this user. A file gets at most
/// [`LOCK_MODE`]. An earlier version left permissions to the umask.
pub(super) fn tighten(path: &Path) {
    let Ok(metadata) = fs::metadata(path) else { return };
    let mode = match metadata.is_dir() {
        true => DIRECTORY_MODE,
        false => LOCK_MODE,
    };
    // The set-group-ID bit of a directory stays. It only sets the group of new files.
    let (has, may) = (metadata.mode() & 0o7777, metadata.mode() & (mode | 0o7000));
    if metadata.uid() == rustix::process::geteuid().as_raw()
        && has != may
        && let Err(error) = fs::set_permissions(path, Permissions::from_mode(may))
    {
        tracing::warn!(%error, path = %path.display(), "cannot remove the permissions of other users from the storage directory or its lock file");
    }
}
