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
    roots: ScannedRoots,
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
            unmounted.extend(gone(self.roots.current(connection)?, &known));
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
const LOOKED_AT_SETS: usize = 64;

/// The paths that the last scans were told to scan.
#[derive(Debug, Default)]
struct ScannedRoots {
    /// The last scan that was read.
    newest: i64,
    /// The paths of scans as the index has them, each with the last scan of them, the newest first.
    sets: Vec<(i64, String)>,
    roots: BTreeSet<PathBuf>,
}

impl ScannedRoots {
    /// Reads the scans since the last call. The first call may read all of them, and so does one
    /// after a relocation.
    fn current(&mut self, connection: &Connection) -> rusqlite::Result<&BTreeSet<PathBuf>> {
        if self.have_changed(connection)? {
            *self = Self::default();
        }
        let mut statement = connection.prepare_cached("SELECT id, roots FROM scan WHERE id > ?1 ORDER BY id DESC")?;
        let mut rows = statement.query([self.newest])?;
        let mut sets = Vec::<(i64, String)>::new();
        while sets.len() < LOOKED_AT_SETS
            && let Some(row) = rows.next()?
        {
            let set = row.get_ref(1)?.as_str()?;
            if !sets.iter().any(|(_, other)| other == set) {
                sets.push((row.get(0)?, set.to_owned()));
            }
        }
        if let Some((newest, _)) = sets.first() {
            self.newest = *newest;
            self.sets.retain(|(_, former)| !sets.iter().any(|(_, set)| set == former));
            sets.append(&mut self.sets);
            sets.truncate(LOOKED_AT_SETS);
            self.roots = sets.iter().flat_map(|(_, set)| roots_of(set)).collect();
            self.sets = sets;
        }
        Ok(&self.roots)
    }

    /// Whether a scan that was read has other paths now.
    fn have_changed(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let mut statement = connection.prepare_cached("SELECT 1 FROM scan WHERE id = ?1 AND roots = ?2")?;
        for set in &self.sets {
            if !statement.exists(rusqlite::params![set.0, set.1])? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The paths of a scan. One that is no UTF-8 is not noted exactly, and so it is left out.
fn roots_of(set: &str) -> impl Iterator<Item = PathBuf> {
    let paths: Vec<String> = serde_json::from_str(set).unwrap_or_default();
    paths.into_iter().filter(|path| !path.contains(char::REPLACEMENT_CHARACTER)).map(PathBuf::from)
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
static PROBE: MountProbe = MountProbe { unanswered: Mutex::new(None) };

/// The probe of this process for scanned paths.
static ROOT_PROBE: MountProbe = MountProbe { unanswered: Mutex::new(None) };

fn not_mounted(known: Vec<PathBuf>) -> Vec<PathBuf> {
    let mounted = mounted().unwrap_or_default();
    let unnamed: Vec<PathBuf> = known.into_iter().filter(|path| !mounted.contains(path)).collect();
    if unnamed.is_empty() {
        return unnamed;
    }
    // A path that does not answer counts as not mounted.
    PROBE.not_there(unnamed.clone(), is_mount_point).unwrap_or(unnamed)
}

/// Looks at paths that may lead to another file system by a link. That may wait for a server
/// forever, and the waiting thread cannot be ended. So there is at most one such thread.
struct MountProbe {
    /// The thread that did not answer in time.
    unanswered: Mutex<Option<Receiver<Vec<PathBuf>>>>,
}

impl MountProbe {
    /// The paths that are not there. `None` if one of them does not answer.
    fn not_there(
        &self,
        paths: Vec<PathBuf>,
        is_there: impl Fn(&Path) -> bool + Send + 'static,
    ) -> Option<Vec<PathBuf>> {
        let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        if unanswered.as_ref().is_some_and(|before| matches!(before.try_recv(), Err(TryRecvError::Empty))) {
            return None;
        }
        *unanswered = None;
        let (sender, looked) = mpsc::channel();
        let started = std::thread::Builder::new().name("mounts".into()).spawn(move || {
            let found: Vec<PathBuf> = paths.into_iter().filter(|path| !is_there(path)).collect();
            // Nobody may wait any more.
            let _ = sender.send(found);
        });
        started.ok()?;
        let found = looked.recv_timeout(PATIENCE).ok();
        if found.is_none() {
            *unanswered = Some(looked);
        }
        found
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
        let look = |mounts: &mut Mounts, sql: &str| {
            connection.execute_batch(sql).unwrap();
            mounts.since = mounts.since.and_then(|since| since.checked_sub(HOLDS));
            mounts.changes(&connection).unwrap()
        };
        assert_eq!((look(&mut mounts, ""), look(&mut mounts, "")), (0, 0));
        let gone = "INSERT INTO mount_point VALUES ('/proc/no such mount')";
        assert_eq!((look(&mut mounts, gone), look(&mut mounts, "")), (1, 1));
        assert_eq!(look(&mut mounts, "DELETE FROM mount_point WHERE path <> '/proc'"), 2);
        assert_eq!(
            look(&mut mounts, r#"INSERT INTO scan VALUES (1, '["/no such root", "/proc/no such root", "/"]')"#),
            3
        );
        assert_eq!(mounts.unmounted, [Path::new("/no such root")]);
    }

    #[test]
    fn the_paths_of_scans_follow_new_scans_and_relocations() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE scan (id INTEGER PRIMARY KEY, roots TEXT NOT NULL)").unwrap();
        let mut roots = ScannedRoots::default();
        let mut after = |sql: &str| {
            connection.execute_batch(sql).unwrap();
            let found = roots.current(&connection).unwrap();
            found.iter().map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert!(after("").is_empty());
        let two = r#"INSERT INTO scan (roots) VALUES ('["/a", "/b"]'), ('["/c"]'), ('["/a", "/b"]'), ('["/\ufffd"]')"#;
        assert_eq!(after(two), ["/a", "/b", "/c"]);
        assert_eq!(after(r#"INSERT INTO scan (roots) VALUES ('["/d"]')"#), ["/a", "/b", "/c", "/d"]);
        let relocated = r#"UPDATE scan SET roots = '["/moved"]' WHERE roots = '["/c"]'"#;
        assert_eq!(after(relocated), ["/a", "/b", "/d", "/moved"]);
        // A path that was last scanned long ago makes room for others, and comes back.
        let mut many = String::new();
        for number in 0..LOOKED_AT_SETS {
            many += &format!(r#"INSERT INTO scan (roots) VALUES ('["/many/{number:02}"]');"#);
        }
        let last = after(&many);
        assert_eq!((last.len(), last[0].as_str()), (LOOKED_AT_SETS, "/many/00"));
        assert_eq!(after(r#"INSERT INTO scan (roots) VALUES ('["/d"]')"#)[..2], ["/d", "/many/01"]);
    }

    #[test]
    fn a_server_that_does_not_answer_holds_one_thread() {
        let look = MountProbe { unanswered: Mutex::new(None) };
        let path = || vec![PathBuf::from("/link")];
        let (begun, looks) = mpsc::channel();
        let (answer, server) = mpsc::channel::<()>();
        let begin = begun.clone();
        let waits = move |_: &Path| begin.send(()).is_ok() && server.recv().is_ok();
        assert_eq!(look.not_there(path(), waits), None);
        looks.recv().unwrap();
        for _ in 0..3 {
            let begin = begun.clone();
            assert_eq!(look.not_there(path(), move |_| begin.send(()).is_ok()), None);
        }
        assert!(looks.try_recv().is_err(), "another thread was begun");
        // It answers at last, and the next look starts again.
        answer.send(()).unwrap();
        drop((begun, answer));
        assert!(looks.recv().is_err());
        let is_there = std::iter::from_fn(|| Some(look.not_there(path(), |_| true)));
        assert!(is_there.take(100_000).any(|found| found == Some(Vec::new())));
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
