//! Changes as the kernel tells them (inotify). They are a hint: a look at everything finds the
//! rest.
//!
//! inotify watches single directories, and their number is limited. An archive changes at its
//! newest end. So the directories that changed last are watched, with the directories above them.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{AtFlags, CWD, statat, statfs};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::changes::{PathChanges, WhyAll};
use crate::model::file_system::silent_name;

/// Most directories that one watch has under inotify. The kernel needs about 1 KB for each, and we
/// some 300 bytes.
const MOST_DIRECTORIES: usize = 32_768;

/// Bytes of events that one read takes.
const BUFFER_BYTES: usize = 16 * 1024;

/// The limit of the system, which all processes of a user share. We take half of it at most.
const LIMIT_FILE: &str = "/proc/sys/fs/inotify/max_user_watches";

/// Returns why the kernel does not tell about changes of a directory. `None` if it does.
pub(super) fn why_silent(path: &Path) -> Option<&'static str> {
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless, reason = "the field's type differs between targets")]
    statfs(path).map_or(Some("unknown file system"), |found| silent_name(found.f_type as i64))
}

/// The events of one watch.
#[derive(Debug)]
pub(super) struct FileEvents {
    watched: Arc<Mutex<WatchedDirectories>>,
    /// Dropping it ends the thread.
    wake: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl FileEvents {
    /// Begins to listen. What changes goes to `changes`. Directories are added by [`Self::admit`].
    pub(super) fn start(bases: Vec<PathBuf>, changes: &Arc<Mutex<PathChanges>>) -> std::io::Result<Self> {
        let inotify = Arc::new(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?);
        let (woken, wake) = pipe_with(PipeFlags::CLOEXEC)?;
        let of_system = std::fs::read_to_string(LIMIT_FILE).ok().and_then(|text| text.trim().parse::<usize>().ok());
        let limit = of_system.map_or(MOST_DIRECTORIES, |limit| (limit / 2).min(MOST_DIRECTORIES));
        let watched = Arc::new(Mutex::new(WatchedDirectories::new(Arc::clone(&inotify), bases, limit)));
        let listener = Listener { inotify, woken, watched: Arc::clone(&watched), changes: Arc::clone(changes) };
        let thread = std::thread::Builder::new().name("watch events".into()).spawn(move || listener.run())?;
        Ok(Self { watched, wake: Some(wake), thread: Some(thread) })
    }

    /// Watches a directory, if it is among those that changed last. To be called before it is
    /// listed: what changes in between is then both listed and told.
    pub(super) fn admit(&self, directory: &Path) {
        lock(&self.watched).admit(directory);
    }

    /// Number of directories that are watched, and whether that is fewer than there are.
    pub(super) fn coverage(&self) -> (usize, bool) {
        let watched = lock(&self.watched);
        (watched.by_path.len(), watched.is_full)
    }
}

impl Drop for FileEvents {
    fn drop(&mut self) {
        drop(self.wake.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a defect of dcmdex ended the thread that listens for changes of files");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The directories under inotify.
#[derive(Debug)]
struct WatchedDirectories {
    inotify: Arc<OwnedFd>,
    bases: Vec<PathBuf>,
    limit: usize,
    by_number: HashMap<i32, Arc<Path>>,
    /// The number of the watch, and when something changed in or below the directory.
    by_path: HashMap<Arc<Path>, (i32, i64)>,
    /// The same by time, to find the one that changed longest ago.
    by_time: BTreeSet<(i64, Arc<Path>)>,
    /// Whether a directory was left out.
    is_full: bool,
    /// Devices below the bases whose file system tells nothing.
    silent_devices: HashMap<u64, bool>,
}

impl WatchedDirectories {
    fn new(inotify: Arc<OwnedFd>, bases: Vec<PathBuf>, limit: usize) -> Self {
        Self {
            inotify,
            bases,
            limit,
            by_number: HashMap::new(),
            by_path: HashMap::new(),
            by_time: BTreeSet::new(),
            is_full: false,
            silent_devices: HashMap::new(),
        }
    }

    /// Watches a directory and those above it, if it is among those that changed last.
    fn admit(&mut self, directory: &Path) {
        let Some(base) = self.bases.iter().find(|base| directory.starts_with(base)).cloned() else { return };
        if self.by_path.contains_key(directory) {
            return;
        }
        let Ok(stat) = statat(CWD, directory, AtFlags::SYMLINK_NOFOLLOW) else { return };
        #[expect(clippy::allow_attributes, reason = "whether the conversions do anything depends on the system")]
        #[allow(
            clippy::useless_conversion,
            clippy::unnecessary_fallible_conversions,
            clippy::unnecessary_cast,
            reason = "the types differ between systems"
        )]
        let (seconds, nanoseconds, device) = (
            i64::try_from(stat.st_mtime).unwrap_or(i64::MIN),
            i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
            stat.st_dev as u64,
        );
        if *self.silent_devices.entry(device).or_insert_with(|| why_silent(directory).is_some()) {
            return;
        }
        let changed_ms = seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000);
        self.watch(directory, changed_ms);
        for above in directory.ancestors().skip(1).take_while(|above| above.starts_with(&base)) {
            self.changed_below(above, changed_ms);
        }
    }

    /// Notes that something changed in or below a directory.
    fn changed_below(&mut self, directory: &Path, changed_ms: i64) {
        let Some((path, (number, before))) =
            self.by_path.get_key_value(directory).map(|(path, it)| (Arc::clone(path), *it))
        else {
            self.watch(directory, changed_ms);
            return;
        };
        if before < changed_ms {
            self.by_time.remove(&(before, Arc::clone(&path)));
            self.by_time.insert((changed_ms, Arc::clone(&path)));
            self.by_path.insert(path, (number, changed_ms));
        }
    }

    /// Adds a watch, perhaps in place of the directory that changed longest ago.
    fn watch(&mut self, directory: &Path, changed_ms: i64) {
        const EVENTS: WatchFlags = WatchFlags::CLOSE_WRITE
            .union(WatchFlags::CREATE)
            .union(WatchFlags::MOVED_TO)
            .union(WatchFlags::MOVED_FROM)
            .union(WatchFlags::DELETE)
            .union(WatchFlags::ONLYDIR)
            .union(WatchFlags::DONT_FOLLOW)
            .union(WatchFlags::EXCL_UNLINK);
        while self.by_path.len() >= self.limit {
            self.is_full = true;
            match self.by_time.first() {
                Some((oldest_ms, oldest)) if *oldest_ms < changed_ms => {
                    let oldest = Arc::clone(oldest);
                    self.forget(&oldest);
                }
                Some(_) | None => return,
            }
        }
        match inotify::add_watch(&*self.inotify, directory, EVENTS) {
            Ok(number) => {
                let path: Arc<Path> = directory.into();
                // A directory that was renamed keeps its number.
                if let Some(before) = self.by_number.insert(number, Arc::clone(&path))
                    && before != path
                    && let Some((_, time)) = self.by_path.remove(&before)
                {
                    self.by_time.remove(&(time, before));
                }
                self.by_path.insert(Arc::clone(&path), (number, changed_ms));
                self.by_time.insert((changed_ms, path));
            }
            Err(Errno::NOSPC | Errno::NOMEM) => {
                self.limit = self.by_path.len();
                self.is_full = true;
            }
            // It is gone by now, or cannot be read. A look at everything reports that.
            Err(_) => {}
        }
    }

    fn forget(&mut self, directory: &Arc<Path>) {
        let Some((number, time)) = self.by_path.remove(directory) else { return };
        self.by_time.remove(&(time, Arc::clone(directory)));
        self.by_number.remove(&number);
        // It fails if the directory is gone, and then there is no watch either.
        let _gone = inotify::remove_watch(&*self.inotify, number);
    }
}

/// The thread that reads the events.
struct Listener {
    inotify: Arc<OwnedFd>,
    woken: OwnedFd,
    watched: Arc<Mutex<WatchedDirectories>>,
    changes: Arc<Mutex<PathChanges>>,
}

impl Listener {
    fn run(self) {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        loop {
            let mut waits = [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(&self.woken, PollFlags::IN)];
            match poll(&mut waits, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "changes of files cannot be waited for; directories are polled");
                    return;
                }
            }
            if !waits[1].revents().is_empty() {
                return;
            }
            let mut reader = inotify::Reader::new(&*self.inotify, &mut buffer);
            while let Ok(event) = reader.next() {
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                self.take(event.wd(), event.events(), name);
            }
        }
    }

    fn take(&self, number: i32, events: ReadFlags, name: Option<&OsStr>) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            lock(&self.changes).add_all(WhyAll::Overflow);
            return;
        }
        let mut watched = lock(&self.watched);
        let Some(directory) = watched.by_number.get(&number).cloned() else { return };
        if events.intersects(ReadFlags::IGNORED | ReadFlags::UNMOUNT) {
            watched.forget(&directory);
            lock(&self.changes).add_all(WhyAll::Removed);
            return;
        }
        let Some(name) = name else { return };
        if events.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            lock(&self.changes).add_all(WhyAll::Removed);
            return;
        }
        let path = directory.join(name);
        if events.contains(ReadFlags::ISDIR) {
            // First the watch, then the look: what is made in between is seen twice.
            watched.admit(&path);
        }
        drop(watched);
        lock(&self.changes).add(path);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// A directory on a file system whose events the kernel tells, or `None`.
    fn directory() -> Option<tempfile::TempDir> {
        let directory = tempfile::tempdir().unwrap();
        why_silent(directory.path()).is_none().then_some(directory)
    }

    fn wait(changes: &Mutex<PathChanges>, what: impl Fn(&PathChanges) -> bool) {
        let begun = Instant::now();
        while !what(&lock(changes)) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", lock(changes));
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_new_file_and_a_new_directory_are_told() {
        let Some(directory) = directory() else { return };
        let base = directory.path().canonicalize().unwrap();
        let changes = Arc::new(Mutex::new(PathChanges::default()));
        let events = FileEvents::start(vec![base.clone()], &changes).unwrap();
        events.admit(&base);
        std::fs::write(base.join("a"), "x").unwrap();
        wait(&changes, |changes| changes.due(Duration::ZERO).is_some());
        std::fs::create_dir(base.join("b")).unwrap();
        wait(&changes, |_| events.coverage() == (2, false));
        std::fs::write(base.join("b/c"), "x").unwrap();
        std::fs::remove_file(base.join("a")).unwrap();
        wait(&changes, |changes| changes.all == Some(WhyAll::Removed));
        assert_eq!(lock(&changes).take(), [base.join("a"), base.join("b")]);
    }

    #[test]
    fn the_directories_that_changed_last_are_watched_with_those_above() {
        let Some(directory) = directory() else { return };
        let base = directory.path().canonicalize().unwrap();
        let changes = Arc::new(Mutex::new(PathChanges::default()));
        let events = FileEvents::start(vec![base.clone()], &changes).unwrap();
        lock(&events.watched).limit = 3;
        for (name, days) in [("2024/01", 1), ("2025/01", 2), ("2026/01", 3), ("2023/01", 0)] {
            let path = base.join(name);
            std::fs::create_dir_all(&path).unwrap();
            let time = std::time::UNIX_EPOCH + Duration::from_secs(86_400 * days);
            std::fs::File::open(&path).unwrap().set_modified(time).unwrap();
            std::fs::File::open(path.parent().unwrap()).unwrap().set_modified(time).unwrap();
        }
        std::fs::File::open(&base).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        for path in ["", "2024", "2024/01", "2025", "2025/01", "2026", "2026/01", "2023", "2023/01"] {
            events.admit(&base.join(path));
        }
        let watched = lock(&events.watched);
        let mut paths: Vec<_> = watched.by_path.keys().map(|path| path.to_path_buf()).collect();
        paths.sort();
        assert_eq!(paths, [base.clone(), base.join("2026"), base.join("2026/01")]);
        assert!(watched.is_full && watched.by_number.len() == 3 && watched.by_time.len() == 3);
    }
}
