//! File permissions in the storage directory.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::files::{DIRECTORY_MODE, PRIVATE_MODE};

/// Removes excess permissions from a directory or a lock file of this user. A file gets at most
/// [`PRIVATE_MODE`]. An earlier version left permissions to the umask.
pub(super) fn tighten(path: &Path) {
    let Ok(metadata) = fs::metadata(path) else { return };
    let mode = match metadata.is_dir() {
        true => DIRECTORY_MODE,
        false => PRIVATE_MODE,
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
