//! Whether the file systems and the directories that scans have seen are there. No file system that
//! may not answer is asked.

use std::collections::{BTreeSet, HashSet};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::sql_values::path_from_sql;

/// How long a look at the mounts is valid. Larger: an answer says ONLINE for a disk that was just
/// removed. Smaller: more queries read the table of mounts, which takes some 50 µs.
const HOLDS: Duration = Duration::from_secs(2);

/// Longest wait for a path that the table of mounts does not have. A server that is gone does not
/// answer at all.
const PATIENCE: Duration = Duration::from_millis(500);

/// The mounts as of a moment.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    unmounted: Vec<PathBuf>,
    mounted: Vec<PathBuf>,
    since: Option<Instant>,
    /// How often a look found other mounts than the one before.
    changes: i64,
}

impl Mounts {
    /// Returns what scans have seen and is away: places where no file system is mounted now, and
    /// scanned paths that are gone. The places where one is mounted come second.
    pub(super) fn current(&mut self, connection: &Connection) -> rusqlite::Result<(&[PathBuf], &[PathBuf])> {
        if self.since.is_none_or(|since| since.elapsed() >= HOLDS) {
            let mut statement = connection.prepare_cached("SELECT path FROM mount_point ORDER BY path")?;
            let rows = statement.query_map([], |row| Ok(PathBuf::from(path_from_sql(row.get_ref(0)?)?)))?;
            let known = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            let mut unmounted = if known.is_empty() { Vec::new() } else { not_mounted(known.clone()) };
            let gone = scanned_roots(connection)?.into_iter().filter(|root| is_gone(root, &known));
            unmounted.extend(gone);
            self.changes += i64::from(self.since.is_some() && unmounted != self.unmounted);
            self.unmounted = unmounted;
            self.mounted = known.into_iter().filter(|path| !self.unmounted.contains(path)).collect();
            self.since = Some(Instant::now());
        }
        Ok((&self.unmounted, &self.mounted))
    }

    /// Looks at the mounts, and returns how often they have changed since the first look. An answer
    /// depends on them as on the index.
    pub(super) fn changes(&mut self, connection: &Connection) -> rusqlite::Result<i64> {
        self.current(connection)?;
        Ok(self.changes)
    }
}

/// Different sets of paths of the last scans whose roots are looked at.
const LOOKED_AT_SCANS: i64 = 64;

/// The paths that the last scans were told to scan.
fn scanned_roots(connection: &Connection) -> rusqlite::Result<BTreeSet<PathBuf>> {
    let sql = "SELECT roots FROM scan GROUP BY roots ORDER BY max(id) DESC LIMIT ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([LOOKED_AT_SCANS], |row| row.get::<_, String>(0))?;
    let mut roots = BTreeSet::new();
    for row in rows {
        // A path that is no UTF-8 is not noted exactly.
        let paths: Vec<String> = serde_json::from_str(&row?).unwrap_or_default();
        let exact = paths.into_iter().filter(|path| !path.contains(char::REPLACEMENT_CHARACTER));
        roots.extend(exact.map(PathBuf::from));
    }
    Ok(roots)
}

/// Whether a scanned path is gone from the file system of the machine itself. One that scans have
/// seen mounted is not asked, because a server that is gone does not answer.
fn is_gone(root: &Path, mount_points: &[PathBuf]) -> bool {
    !mount_points.iter().any(|mounted| root.starts_with(mounted)) && matches!(root.try_exists(), Ok(false))
}

/// The probe of this process for paths that the table of mounts does not have.
static PROBE: MountProbe = MountProbe { unanswered: Mutex::new(None) };

fn not_mounted(known: Vec<PathBuf>) -> Vec<PathBuf> {
    let mounted = mounted().unwrap_or_default();
    let unnamed: Vec<PathBuf> = known.into_iter().filter(|path| !mounted.contains(path)).collect();
    if unnamed.is_empty() { unnamed } else { PROBE.not_mounted(unnamed, is_mount_point) }
}

/// Looks at paths that may lead to a mount point by a link. To follow a link may wait for a server
/// forever, and the waiting thread cannot be ended. So there is at most one such thread.
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
            // A path that does not answer counts as not mounted.
            return paths;
        }
        *unanswered = None;
        let (sender, looked) = mpsc::channel();
        let to_look_at = paths.clone();
        let started = std::thread::Builder::new().name("mounts".into()).spawn(move || {
            let found: Vec<PathBuf> = to_look_at.into_iter().filter(|path| !is_mount_point(path)).collect();
            // Nobody may wait any more.
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
    fn a_look_that_finds_other_mounts_is_counted() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE scan (id, roots); CREATE TABLE mount_point (path); \
                 INSERT INTO mount_point VALUES ('/proc')",
            )
            .unwrap();
        let mut mounts = Mounts::default();
        let mut look = |sql: &str| {
            connection.execute_batch(sql).unwrap();
            mounts.since = mounts.since.and_then(|since| since.checked_sub(HOLDS));
            mounts.changes(&connection).unwrap()
        };
        assert_eq!((look(""), look("")), (0, 0));
        let gone = "INSERT INTO mount_point VALUES ('/proc/no such mount')";
        assert_eq!((look(gone), look("")), (1, 1));
        assert_eq!(look("DELETE FROM mount_point WHERE path <> '/proc'"), 2);
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
        // It answers at last, and the next look starts again.
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
