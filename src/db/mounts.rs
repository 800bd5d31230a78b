//! Whether the file systems and the directories that scans have seen are there. No file system that
//! may not answer is asked.

use std::collections::{BTreeSet, HashSet};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::Error;
use super::probe::PathProbe;

/// Time for which a look at the mounts is valid. Larger: an answer says ONLINE for a disk that was
/// just removed. Smaller: more queries read the table of mounts, which takes some 50 µs.
pub(in crate::db) const HOLDS: Duration = Duration::from_secs(2);

/// Different sets of paths of the last scans whose roots are looked at.
pub(in crate::db) const LOOKED_AT_SETS: usize = 64;

/// The name of this machine.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether a directory is there and has something in it. A disk that is not mounted leaves an empty
/// one.
#[must_use]
pub fn has_entries(directory: &Path) -> bool {
    directory.read_dir().is_ok_and(|mut entries| entries.next().is_some())
}

/// The places below these paths where a file system is mounted now, sorted.
#[must_use]
pub fn mounted_below(paths: &[PathBuf]) -> Vec<PathBuf> {
    let is_below = |place: &PathBuf| paths.iter().any(|path| place != path && place.starts_with(path));
    let mut below: Vec<PathBuf> = mounted().unwrap_or_default().into_iter().filter(is_below).collect();
    below.sort();
    below
}

/// The mounts as of a moment.
#[derive(Debug, Default)]
pub(in crate::db) struct MountLook {
    unmounted: Vec<PathBuf>,
    mounted: Vec<PathBuf>,
    since: Option<Instant>,
    /// Number of looks that found other mounts than the one before.
    changes: i64,
}

impl MountLook {
    /// Looks again if the last look is old. `read` reads what the index knows: places where scans
    /// have seen a file system mounted, and paths that the last scans were told to scan.
    pub(in crate::db) fn again<E>(
        &mut self,
        read: impl FnOnce() -> Result<(Vec<PathBuf>, BTreeSet<PathBuf>), E>,
    ) -> Result<(), E> {
        if self.since.is_some_and(|since| since.elapsed() < HOLDS) {
            return Ok(());
        }
        let (known, roots) = read()?;
        let mut unmounted = if known.is_empty() { Vec::new() } else { not_mounted(known.clone()) };
        unmounted.extend(gone(&roots, &known));
        self.changes += i64::from(self.since.is_some() && unmounted != self.unmounted);
        self.unmounted = unmounted;
        self.mounted = known.into_iter().filter(|path| !self.unmounted.contains(path)).collect();
        self.since = Some(Instant::now());
        Ok(())
    }

    /// Paths that scans have seen and that are away: places where no file system is mounted now,
    /// and scanned paths that are gone. The places where one is mounted come second.
    pub(in crate::db) fn found(&self) -> (&[PathBuf], &[PathBuf]) {
        (&self.unmounted, &self.mounted)
    }

    /// Whether a path lies where something is away.
    pub(in crate::db) fn has_away(&self, path: &Path) -> bool {
        self.unmounted.iter().filter(|away| path.starts_with(away)).any(|away| {
            let below = self.mounted.iter().filter(|mounted| mounted.starts_with(away));
            !below.into_iter().any(|mounted| path.starts_with(mounted))
        })
    }

    /// Number of changes of the mounts since the first look. An answer depends on them as on the
    /// index.
    pub(in crate::db) fn changes(&self) -> i64 {
        self.changes
    }

    /// Has the next look look again.
    #[cfg(test)]
    pub(in crate::db) fn expire(&mut self) {
        self.since = self.since.and_then(|since| since.checked_sub(HOLDS));
    }
}

/// The paths of a scan. One that is no UTF-8 is not noted exactly, and so it is left out.
///
/// # Errors
/// [`Error::Malformed`] if the text is no JSON array of texts.
pub(in crate::db) fn roots_of(set: &str) -> Result<impl Iterator<Item = PathBuf> + use<>, Error> {
    let broken = |_| Error::Malformed("the paths of a scan cannot be read".into());
    let paths: Vec<String> = serde_json::from_str(set).map_err(broken)?;
    Ok(paths.into_iter().filter(|path| !path.contains(char::REPLACEMENT_CHARACTER)).map(PathBuf::from))
}

/// The scanned paths that are gone from the file system of the machine itself. One that scans have
/// seen mounted is not asked, because the table of mounts tells more.
fn gone(roots: &BTreeSet<PathBuf>, mount_points: &[PathBuf]) -> Vec<PathBuf> {
    let is_below_mount = |root: &PathBuf| mount_points.iter().any(|mounted| root.starts_with(mounted));
    let own: Vec<PathBuf> = roots.iter().filter(|root| !is_below_mount(root)).cloned().collect();
    if own.is_empty() {
        return own;
    }
    // If one does not answer, nobody knows that another is gone.
    ROOT_PROBE.not_there(own, |path| !matches!(path.try_exists(), Ok(false))).unwrap_or_default()
}

/// The probe of this process for paths that the table of mounts does not have.
static PROBE: PathProbe = PathProbe::new();

/// The probe of this process for scanned paths.
static ROOT_PROBE: PathProbe = PathProbe::new();

fn not_mounted(known: Vec<PathBuf>) -> Vec<PathBuf> {
    let mounted = mounted().unwrap_or_default();
    let unnamed: Vec<PathBuf> = known.into_iter().filter(|path| !mounted.contains(path)).collect();
    if unnamed.is_empty() {
        return unnamed;
    }
    // A path that does not answer counts as not mounted.
    PROBE.not_there(unnamed.clone(), is_mount_point).unwrap_or(unnamed)
}

/// Returns the mount points of this process from the table of the kernel.
#[cfg(target_os = "linux")]
fn mounted() -> std::io::Result<HashSet<PathBuf>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(mount_points(&table).collect())
}

/// Returns nothing, because there is no such table here.
#[cfg(not(target_os = "linux"))]
fn mounted() -> std::io::Result<HashSet<PathBuf>> {
    Ok(HashSet::new())
}

/// Returns the fifth field of each line of proc(5) mountinfo.
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    let fields = table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    fields.map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescaped(field))))
}

/// Decodes a field. Space, tab, line feed and backslash are written as three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|it| matches!(it, b'0'..=b'7')));
        match digits {
            Some(digits) => {
                let value = digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                bytes.push(value as u8);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(target_os = "linux")]
fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    statx(CWD, path, AtFlags::empty(), StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Returns `true`, because the system cannot say. The mounts are then as scans have seen them.
#[cfg(not(target_os = "linux"))]
fn is_mount_point(_path: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_mounts_is_read_with_its_escapes() {
        let table =
            b"22 28 0:20 / /sys rw - sysfs sysfs rw\n29 1 8:1 / /mnt/my\\040disk\\134 rw - ext4 /dev/sda rw\n\nbad\n";
        assert_eq!(mount_points(table).collect::<Vec<_>>(), [Path::new("/sys"), Path::new("/mnt/my disk\\")]);
        assert_eq!(unescaped(b"a\\"), b"a\\");
        assert_eq!(unescaped(b"\\09"), b"\\09");
    }

    #[test]
    fn what_is_mounted_is_told_from_what_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/proc", &link).unwrap();
        let known = vec![PathBuf::from("/proc"), link, directory.path().to_owned(), directory.path().join("gone")];
        assert_eq!(not_mounted(known.clone()), known[2..]);
    }

    #[test]
    fn what_lies_on_a_mount_below_one_that_is_away_is_there() {
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let look = MountLook { unmounted: paths(&["/a"]), mounted: paths(&["/a/b", "/c"]), ..MountLook::default() };
        let away = ["/a", "/a/1", "/a/b", "/a/b/1", "/ab", "/c/1"].map(|path| look.has_away(Path::new(path)));
        assert_eq!(away, [true, true, false, false, false, false]);
    }
}
