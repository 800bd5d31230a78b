//! Whether the file systems are mounted that scans have seen, without asking one that may not answer.

use std::collections::HashSet;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::sql_values::path_from_sql;

/// How long a look at what is mounted holds good. Longer: an answer says ONLINE of a disk that was just taken away. Shorter: more
/// queries read the table of mounts, which takes some 50 µs.
const HOLDS: Duration = Duration::from_secs(2);

/// How long a path may take that the table of mounts does not name. A server that is gone does not answer at all.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is mounted, as of a moment.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    unmounted: Vec<PathBuf>,
    mounted: Vec<PathBuf>,
    since: Option<Instant>,
}

impl Mounts {
    /// Of the places where scans have seen a file system: those where none is mounted now, and those where one is.
    pub(super) fn look(&mut self, connection: &Connection) -> rusqlite::Result<(&[PathBuf], &[PathBuf])> {
        if self.since.is_none_or(|since| since.elapsed() >= HOLDS) {
            let mut statement = connection.prepare_cached("SELECT path FROM mount_point ORDER BY path")?;
            let rows = statement.query_map([], |row| Ok(PathBuf::from(path_from_sql(row.get_ref(0)?)?)))?;
            let known = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            self.unmounted = if known.is_empty() { Vec::new() } else { not_mounted(known.clone()) };
            self.mounted = known.into_iter().filter(|path| !self.unmounted.contains(path)).collect();
            self.since = Some(Instant::now());
        }
        Ok((&self.unmounted, &self.mounted))
    }
}

/// The look of all readers of this process at paths that the table of mounts does not name.
static LOOK: MountProbe = MountProbe { unanswered: Mutex::new(None) };

fn not_mounted(known: Vec<PathBuf>) -> Vec<PathBuf> {
    let mounted = mounted().unwrap_or_default();
    let unnamed: Vec<PathBuf> = known.into_iter().filter(|path| !mounted.contains(path)).collect();
    if unnamed.is_empty() { unnamed } else { LOOK.not_mounted(unnamed, is_mount_point) }
}

/// A path may lead to a mount point by a link. To follow it may wait for a server for ever, and no thread that does can be
/// ended: so there is one at a time.
struct MountProbe {
    /// The thread that did not answer in time.
    unanswered: Mutex<Option<Receiver<Vec<PathBuf>>>>,
}

impl MountProbe {
    fn not_mounted(
        &self,
        paths: Vec<PathBuf>,
        is_mount_point: impl Fn(&Path) -> bool + Send + 'static,
    ) -> Vec<PathBuf> {
        let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        if unanswered.as_ref().is_some_and(|before| matches!(before.try_recv(), Err(TryRecvError::Empty))) {
            // What does not answer is as good as not there.
            return paths;
        }
        *unanswered = None;
        let (sender, looked) = mpsc::channel();
        let to_look_at = paths.clone();
        let started = std::thread::Builder::new().name("mounts".into()).spawn(move || {
            let found: Vec<PathBuf> = to_look_at.into_iter().filter(|path| !is_mount_point(path)).collect();
            // Nobody waits any more.
            let _ = sender.send(found);
        });
        if started.is_err() {
            return paths;
        }
        looked.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            *unanswered = Some(looked);
            paths
        })
    }
}

/// The mount points of this process, from the kernel's table.
#[cfg(target_os = "linux")]
fn mounted() -> std::io::Result<HashSet<PathBuf>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(mount_points(&table).collect())
}

/// See above.
#[cfg(not(target_os = "linux"))]
fn mounted() -> std::io::Result<HashSet<PathBuf>> {
    Ok(HashSet::new())
}

/// The fifth field of each line of proc(5) mountinfo.
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    let fields = table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    fields.map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescaped(field))))
}

/// Space, tab, line feed and backslash stand as three octal digits.
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

/// See above. Where the system cannot say, it is as the scans have seen it.
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
    fn a_server_that_does_not_answer_holds_one_thread() {
        let look = MountProbe { unanswered: Mutex::new(None) };
        let path = || vec![PathBuf::from("/link")];
        let (begun, looks) = mpsc::channel();
        let (answer, server) = mpsc::channel::<()>();
        let begin = begun.clone();
        let waits = move |_: &Path| begin.send(()).is_ok() && server.recv().is_ok();
        assert_eq!(look.not_mounted(path(), waits), path());
        looks.recv().unwrap();
        for _ in 0..3 {
            let begin = begun.clone();
            assert_eq!(look.not_mounted(path(), move |_| begin.send(()).is_ok()), path());
        }
        assert!(looks.try_recv().is_err(), "another thread was begun");
        // It answers at last, and the next look is a new one.
        answer.send(()).unwrap();
        drop((begun, answer));
        assert!(looks.recv().is_err());
        let is_there = std::iter::from_fn(|| Some(look.not_mounted(path(), |_| true)));
        assert!(is_there.take(100_000).any(|found| found.is_empty()));
    }

    #[test]
    fn what_is_mounted_is_told_from_what_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/proc", &link).unwrap();
        let known = vec![PathBuf::from("/proc"), link, directory.path().to_owned(), directory.path().join("gone")];
        assert_eq!(not_mounted(known.clone()), known[2..]);
    }
}
