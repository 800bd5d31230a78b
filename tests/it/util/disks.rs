//! File systems of their own: small ones that fill up, ones that have reflinks, and ones that fail.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::peers::skipped;

/// A file system of its own. It is unmounted when dropped. Where none can be mounted, there is
/// `None`, and the test counts as skipped.
#[derive(Debug)]
pub(crate) struct Mount {
    at: PathBuf,
    /// The directory that was made for it. It is removed after the file system.
    directory: Option<TempDir>,
}

impl Mount {
    /// Mounts a file system in memory of this size, such as `3m`.
    pub(crate) fn tmpfs(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "dcmdex-test"]).arg(at);
        let mounted = succeeds(&mut mount).then(|| Self { at: at.to_owned(), directory: None });
        mounted.or_else(|| nothing("a tmpfs cannot be mounted here: root is needed"))
    }

    /// Mounts a file system in memory of this size, in a directory of its own.
    pub(crate) fn of_bytes(bytes: usize) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let mut mount = Self::tmpfs(directory.path(), &bytes.to_string())?;
        mount.directory = Some(directory);
        Some(mount)
    }

    /// Mounts btrfs, which has reflinks, on a file.
    pub(crate) fn with_reflinks() -> Option<Self> {
        let (directory, image) = (TempDir::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        // The mount keeps the file when its name goes.
        image.as_file().set_len(256 << 20).unwrap();
        let at = directory.path();
        if succeeds(Command::new("/usr/sbin/mkfs.btrfs").arg("-q").arg(image.path()))
            && succeeds(Command::new("mount").args(["-o", "loop"]).arg(image.path()).arg(at))
        {
            return Some(Self { at: at.to_owned(), directory: Some(directory) });
        }
        nothing("no btrfs can be mounted here: root, btrfs-progs and a loop device are needed")
    }

    /// Mounts an ext4 file system from a file. As usual, it becomes read-only at the first error.
    pub(crate) fn ext4(at: &Path, image: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        File::create(image).unwrap().set_len(16 << 20).unwrap();
        if succeeds(Command::new("mkfs.ext4").arg("-q").arg(image))
            && succeeds(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(image).arg(at))
        {
            return Some(Self { at: at.to_owned(), directory: None });
        }
        nothing("an ext4 file system cannot be mounted here: root, mkfs.ext4 and a loop device are needed")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    pub(crate) fn make_read_only(&self) {
        assert!(succeeds(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.at)));
    }

    /// Makes the kernel meet an error on it.
    pub(crate) fn fail(&self) {
        let source = Command::new("findmnt").args(["-no", "SOURCE"]).arg(&self.at).output().unwrap();
        let device = String::from_utf8(source.stdout).unwrap();
        let device = device.trim().rsplit('/').next().unwrap();
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "test").unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: what a failed test left open goes with it.
        succeeds(Command::new("umount").arg("-l").arg(&self.at));
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn nothing(why: &str) -> Option<Mount> {
    skipped(why);
    None
}
