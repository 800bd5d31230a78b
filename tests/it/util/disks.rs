//! Small disks that fill up.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A small file system in memory. It is unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Small(TempDir);

impl Small {
    /// Mounts one of this size. `None`, with a message, if this user may not mount.
    pub(crate) fn mounted(bytes: usize) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let size = format!("size={bytes}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(directory.path()).output();
        if mount.is_ok_and(|mount| mount.status.success()) {
            return Some(Self(directory));
        }
        eprintln!("skipped: this user may not mount a file system");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn make_read_only(&self) {
        let done = Command::new("mount").args(["-o", "remount,ro"]).arg(self.path()).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}
