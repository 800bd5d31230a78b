//! Brings what arrives to the file that has its study.
//!
//! A study that some file has goes there. A new study goes to the file with the name of its
//! institution, or with the year of its date. Any other one goes to the main file. So an operator
//! makes a rule by making a file.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::part::FederatedPart;
use crate::db::{Arrivals, Error, FileOutcome, Mounted, OnStored, Received, ScannedDirectory, ScannedFile, Tally};
use crate::model::attribute::AttributeId;
use crate::model::location::Place;
use crate::model::record::InstanceRecord;

/// Name of the main file of a folder. It holds the worklist, and what belongs to no study.
pub(in crate::db) const MAIN_FILE: &str = "main.db";

/// Studies whose file is remembered. One that is forgotten is looked up again, by then it has been
/// committed.
const REMEMBERED_STUDIES: usize = 65_536;

/// A file that takes arrivals, or only keeps what it has.
pub struct RoutedFile<A, R> {
    /// Its path.
    pub path: PathBuf,
    /// The way into it. `None` if it is frozen.
    pub arrivals: Option<A>,
    /// A reader of its own.
    pub reader: R,
}

/// Arrivals of several files. The first file is the main file.
#[derive(Clone)]
pub struct Router<A> {
    targets: Arc<[Option<A>]>,
    main: A,
    main_path: Arc<Path>,
    routes: Arc<dyn Routes>,
    waiting: Sender<Routed>,
    scan: Arc<Mutex<Option<RoutedScan>>>,
    /// Changes by scans since the last flush, as far as they are known.
    tally: Arc<Mutex<Tally>>,
}

/// The thread of a router. It ends after [`Router::stop`].
pub type RouterThread = JoinHandle<()>;

/// Task that waits for the thread that looks up studies.
enum Routed {
    Store(Received, OnStored),
    Barrier(Sender<()>),
    Stop,
}

/// The scan that is being done, with its numbers in the files that have taken something of it.
struct RoutedScan {
    scan: i64,
    roots: String,
    numbers: Vec<Option<i64>>,
}

/// Knows which file a study belongs to.
trait Routes: Send + Sync {
    /// The file of a study that was asked for lately.
    fn known(&self, study: &str) -> Option<usize>;
    /// The file of a study.
    fn find(&self, record: &InstanceRecord) -> Result<usize, Error>;
    /// For each file, the names that it knows in a directory or archive file.
    fn names(&self, place: Place, directory: &Path) -> Result<Vec<HashSet<OsString>>, Error>;
}

/// Knows by questions to the files.
struct StudyRoutes<R> {
    remembered: Mutex<RememberedStudies>,
    readers: Mutex<Vec<R>>,
    /// Whether a file takes arrivals.
    is_open: Vec<bool>,
    /// The files by what their names stand for.
    by_name: HashMap<String, usize>,
}

/// The files of the studies that were asked for lately.
#[derive(Default)]
struct RememberedStudies {
    files: HashMap<String, usize>,
    /// In the order in which they were remembered.
    order: VecDeque<String>,
}

impl<A: Arrivals + Clone + 'static> Router<A> {
    /// Makes a router, and starts its thread. At most `queue_length` received instances wait until
    /// their studies are looked up.
    ///
    /// # Errors
    /// [`Error::FrozenMain`] if the main file takes no arrivals, and if the thread cannot be
    /// started.
    pub fn start<R: FederatedPart + 'static>(
        files: Vec<RoutedFile<A, R>>,
        queue_length: usize,
    ) -> Result<(Self, RouterThread), Error> {
        let main = match files.first() {
            Some(RoutedFile { arrivals: Some(main), .. }) => main.clone(),
            first => return Err(frozen_main(first.map_or(Path::new(""), |file| &file.path))),
        };
        let main_path: Arc<Path> = files.first().map(|file| file.path.clone()).unwrap_or_default().into();
        let (mut targets, mut readers, mut by_name) = (Vec::new(), Vec::new(), HashMap::new());
        for (at, file) in files.into_iter().enumerate() {
            if let Some(stem) = file.path.file_stem().filter(|_| file.arrivals.is_some()) {
                by_name.insert(name_of(&stem.to_string_lossy()), at);
            }
            targets.push(file.arrivals);
            readers.push(file.reader);
        }
        let is_open = targets.iter().map(Option::is_some).collect();
        let (remembered, readers) = (Mutex::default(), Mutex::new(readers));
        let routes: Arc<dyn Routes> = Arc::new(StudyRoutes { remembered, readers, is_open, by_name });
        let (waiting, queue) = bounded(queue_length.max(1));
        let targets: Arc<[Option<A>]> = targets.into();
        let of_thread = (Arc::clone(&targets), Arc::clone(&routes));
        let thread = std::thread::Builder::new()
            .name("index router".into())
            .spawn(move || look_up(&queue, &of_thread.0, &*of_thread.1))
            .map_err(|source| Error::Io { path: main_path.to_path_buf(), source })?;
        Ok((Self { targets, main, main_path, routes, waiting, scan: Arc::default(), tally: Arc::default() }, thread))
    }

    /// The path of the main file.
    #[must_use]
    pub fn main_path(&self) -> &Path {
        &self.main_path
    }

    /// Ends the thread when what waits for it is handed on. After that nothing more is stored.
    pub fn stop(&self) {
        // If the thread has ended, nobody receives this.
        let _ended = self.waiting.send(Routed::Stop);
    }

    /// The ways into the files that take arrivals.
    pub(in crate::db) fn open_targets(&self) -> impl Iterator<Item = &A> {
        self.targets.iter().flatten()
    }

    /// Distributes results of a scan over the files. Entries without an instance go to the main
    /// file.
    fn parted(&self, scanned: ScannedDirectory) -> Result<Vec<ScannedDirectory>, Error> {
        let ScannedDirectory { place, directory, files, complete, vanished, missing, returned } = scanned;
        let part = || ScannedDirectory { complete, ..ScannedDirectory::new(place, &directory) };
        let mut parts: Vec<ScannedDirectory> = self.targets.iter().map(|_| part()).collect();
        let is_known = files.iter().any(|file| file.known || file.reread);
        let names = match is_known || !(vanished.is_empty() && missing.is_empty() && returned.is_empty()) {
            true => {
                // What was queued before may have given a file its names.
                self.commit_queued()?;
                self.routes.names(place, &directory)?
            }
            false => Vec::new(),
        };
        let knows = |at: usize, name: &OsString| names.get(at).is_some_and(|names| names.contains(name));
        for (at, part) in parts.iter_mut().enumerate() {
            let of_part = |all: &[OsString]| all.iter().filter(|name| knows(at, name)).cloned().collect();
            (part.vanished, part.missing, part.returned) = (of_part(&vanished), of_part(&missing), of_part(&returned));
        }
        for file in files {
            let target = self.target_of(&file)?;
            for (at, part) in parts.iter_mut().enumerate().filter(|(at, _)| *at != target) {
                // What another file had under this name is there no more.
                if knows(at, &file.file_name) {
                    part.vanished.push(file.file_name.clone());
                }
            }
            if let Some(part) = parts.get_mut(target) {
                part.files.push(ScannedFile { known: file.known && knows(target, &file.file_name), ..file });
            }
        }
        Ok(parts)
    }

    /// Waits until what was queued before is committed. What it changed is kept for the next flush.
    fn commit_queued(&self) -> Result<(), Error> {
        for target in self.open_targets() {
            let changed = target.flush()?;
            locked(&self.tally).add(changed);
        }
        Ok(())
    }

    fn target_of(&self, file: &ScannedFile) -> Result<usize, Error> {
        match &file.outcome {
            FileOutcome::Instance(record) => self.routes.find(record),
            FileOutcome::NotIndexed { .. } => Ok(0),
        }
    }

    /// Begins the scan that is being done in a further file.
    fn begin_in(&self, at: usize, target: &A) -> Result<(), Error> {
        let mut scan = locked(&self.scan);
        if let Some(RoutedScan { roots, numbers, .. }) = &mut *scan
            && let Some(number @ None) = numbers.get_mut(at)
        {
            *number = Some(target.begin_scan(roots.clone())?);
        }
        Ok(())
    }

    fn note_scan(&self, scan: i64, roots: String) -> i64 {
        let mut numbers = vec![None; self.targets.len()];
        if let Some(of_main) = numbers.first_mut() {
            *of_main = Some(scan);
        }
        *locked(&self.scan) = Some(RoutedScan { scan, roots, numbers });
        scan
    }
}

impl<A: Arrivals + Clone + 'static> Arrivals for Router<A> {
    fn store(&self, received: Received, on_done: OnStored) {
        let study = received.record.value(AttributeId::StudyInstanceUID);
        if let Some(target) = self.routes.known(study).and_then(|at| self.targets.get(at)?.as_ref()) {
            return target.store(received, on_done);
        }
        let (routed, error) = match self.waiting.try_send(Routed::Store(received, on_done)) {
            Ok(()) => return,
            Err(TrySendError::Full(routed)) => (routed, Error::Busy),
            Err(TrySendError::Disconnected(routed)) => (routed, Error::WriterStopped("its router has ended".into())),
        };
        if let Routed::Store(_, on_done) = routed {
            on_done(Err(error));
        }
    }

    fn scanned(&self, directory: ScannedDirectory) -> Result<(), Error> {
        for (at, part) in self.parted(directory)?.into_iter().enumerate() {
            let is_empty = part.files.is_empty()
                && part.vanished.is_empty()
                && part.missing.is_empty()
                && part.returned.is_empty();
            if let Some(target) = self.targets.get(at).and_then(Option::as_ref).filter(|_| !is_empty) {
                self.begin_in(at, target)?;
                target.scanned(part)?;
            }
        }
        Ok(())
    }

    fn begin_scan(&self, roots: String) -> Result<i64, Error> {
        Ok(self.note_scan(self.main.begin_scan(roots.clone())?, roots))
    }

    fn begin_pass(&self, roots: String, scan: Option<i64>) -> Result<i64, Error> {
        Ok(self.note_scan(self.main.begin_pass(roots.clone(), scan)?, roots))
    }

    fn note_watch(&self, roots: String, state: Option<String>) -> Result<(), Error> {
        self.main.note_watch(roots, state)
    }

    fn end_scan(&self, scan: i64, summary: String) -> Result<(), Error> {
        let ended = locked(&self.scan).take_if(|own| own.scan == scan);
        let numbers = ended.map(|ended| ended.numbers).unwrap_or_default();
        for (target, number) in self.targets.iter().zip(numbers).skip(1) {
            if let (Some(target), Some(number)) = (target, number) {
                target.end_scan(number, summary.clone())?;
            }
        }
        self.main.end_scan(scan, summary)
    }

    fn mount_point(&self, path: PathBuf, mounted: Mounted) -> Result<(), Error> {
        self.open_targets().try_for_each(|target| target.mount_point(path.clone(), mounted))
    }

    fn resolve_missing(&self, roots: Vec<PathBuf>, except: Vec<PathBuf>, prune: bool) -> Result<u64, Error> {
        self.open_targets().map(|target| target.resolve_missing(roots.clone(), except.clone(), prune)).sum()
    }

    fn flush(&self) -> Result<Tally, Error> {
        let (reached, barrier) = bounded(1);
        if self.waiting.send(Routed::Barrier(reached)).is_ok() {
            // If the thread has ended, nothing waits there.
            let _reached = barrier.recv();
        }
        self.commit_queued()?;
        Ok(std::mem::take(&mut *locked(&self.tally)))
    }

    fn name_index(&self, id: Option<String>) -> Result<String, Error> {
        self.main.name_index(id)
    }

    fn storage_moved(&self, from: PathBuf, to: PathBuf) -> Result<u64, Error> {
        self.open_targets().map(|target| target.storage_moved(from.clone(), to.clone())).sum()
    }

    fn index_is_in_place(&self) -> bool {
        self.open_targets().all(Arrivals::index_is_in_place)
    }
}

impl<A> std::fmt::Debug for Router<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("files", &self.targets.len()).finish_non_exhaustive()
    }
}

/// Looks up the studies of what was received, and hands it on, until there are no more routers.
fn look_up<A: Arrivals>(queue: &Receiver<Routed>, targets: &[Option<A>], routes: &dyn Routes) {
    while let Ok(routed) = queue.recv() {
        match routed {
            // Whoever waits for it may be gone.
            Routed::Barrier(reached) => drop(reached.send(())),
            Routed::Stop => return,
            Routed::Store(received, on_done) => match routes.find(&received.record) {
                Ok(at) => match targets.get(at).and_then(Option::as_ref) {
                    Some(target) => target.store(received, on_done),
                    None => on_done(Err(Error::WriterStopped("its file takes nothing".into()))),
                },
                Err(error) => on_done(Err(error)),
            },
        }
    }
}

impl<R: FederatedPart> Routes for StudyRoutes<R> {
    fn known(&self, study: &str) -> Option<usize> {
        locked(&self.remembered).files.get(study).copied()
    }

    fn find(&self, record: &InstanceRecord) -> Result<usize, Error> {
        let study = record.value(AttributeId::StudyInstanceUID);
        // Who holds the readers decides alone: no study is given to two files.
        let mut readers = locked(&self.readers);
        if let Some(at) = self.known(study) {
            return Ok(at);
        }
        let mut held = None;
        for (at, reader) in readers.iter_mut().enumerate().filter(|(at, _)| self.is_open.get(*at) == Some(&true)) {
            if reader.has_study(study)? {
                held = Some(at);
                break;
            }
        }
        // An instance that a file has in another study stays in that one, as in a single index. The
        // file counts the conflict.
        if held.is_none()
            && let Some(at) = self.holder_of(record.value(AttributeId::SOPInstanceUID), &mut readers)?
        {
            return Ok(at);
        }
        let at = held.unwrap_or_else(|| self.file_for(record));
        let mut remembered = locked(&self.remembered);
        remembered.files.insert(study.to_owned(), at);
        remembered.order.push_back(study.to_owned());
        if remembered.order.len() > REMEMBERED_STUDIES
            && let Some(oldest) = remembered.order.pop_front()
        {
            remembered.files.remove(&oldest);
        }
        Ok(at)
    }

    fn names(&self, place: Place, directory: &Path) -> Result<Vec<HashSet<OsString>>, Error> {
        let names = |reader: &mut R| {
            let mut names = HashSet::new();
            match place {
                Place::Archive => reader.archive_members(directory, &mut |name, _| {
                    names.insert(name);
                })?,
                Place::InPlace | Place::Managed | Place::MetadataOnly => {
                    names.extend(reader.directory_files(directory)?.into_keys());
                }
            }
            Ok(names)
        };
        locked(&self.readers).iter_mut().map(names).collect()
    }
}

impl<R: FederatedPart> StudyRoutes<R> {
    /// The file that takes arrivals and has this instance.
    fn holder_of(&self, sop_instance_uid: &str, readers: &mut [R]) -> Result<Option<usize>, Error> {
        for (at, reader) in readers.iter_mut().enumerate().filter(|(at, _)| self.is_open.get(*at) == Some(&true)) {
            if !reader.known_locations(sop_instance_uid)?.is_empty() {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }
}

impl<R> StudyRoutes<R> {
    /// The file for a new study.
    fn file_for(&self, record: &InstanceRecord) -> usize {
        let year = record.value(AttributeId::StudyDate).get(..4).unwrap_or_default();
        let institution = name_of(record.value(AttributeId::InstitutionName));
        let named = [&*institution, year].into_iter().filter(|name| !name.is_empty());
        named.filter_map(|name| self.by_name.get(name)).next().copied().unwrap_or(0)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says what to do if the main file takes no arrivals.
fn frozen_main(path: &Path) -> Error {
    let thaw = format!("`dcmdex index thaw {}`", path.display());
    let named = path.with_file_name(MAIN_FILE);
    let hint = match path == named {
        true => thaw,
        false => format!("`dcmdex index new {}` makes another main file, or {thaw}", named.display()),
    };
    Error::FrozenMain { path: path.to_owned(), hint }
}

/// The form of a name in which files and institutions are compared: letters and digits in lower
/// case, with hyphens between.
fn name_of(text: &str) -> String {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_by_their_letters_and_digits() {
        for (text, name) in
            [("St. Mary's", "st-mary-s"), ("st-mary-s", "st-mary-s"), ("2026", "2026"), (" É ", "é"), ("--", "")]
        {
            assert_eq!(name_of(text), name);
        }
    }
}
