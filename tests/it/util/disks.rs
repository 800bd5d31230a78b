//! Small disks: those that fill up, and those that have reflinks.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A small file system. It is unmounted when dropped.
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

    /// Mounts btrfs, which has reflinks, on a file. `None`, with a message, where that is not
    /// possible.
    pub(crate) fn with_reflinks() -> Option<Self> {
        const BYTES: u64 = 256 << 20;
        let (directory, image) = (TempDir::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        image.as_file().set_len(BYTES).unwrap();
        let done = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let is_made = done(Command::new("/usr/sbin/mkfs.btrfs").arg("-q").arg(image.path()));
        // The mount keeps the file when its name goes.
        if is_made && done(Command::new("mount").args(["-o", "loop"]).arg(image.path()).arg(directory.path())) {
            return Some(Self(directory));
        }
        eprintln!("SKIPPED: no btrfs can be mounted here; it needs root, btrfs-progs and loop devices");
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
