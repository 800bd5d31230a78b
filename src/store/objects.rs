//! The storage directory: receives, places, recovers and removes objects.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::compare::{COMPARED_AT_A_TIME, DataSetReader, FromStart, same_data_set};
use super::directories::Directories;
use super::names::{LeftOver, MAX_NAMES, component, file_name, incoming_name, left_over};
use super::temporary::Temporary;
use crate::archive::Object;
use crate::archive::{ArchiveProblem, Archives};
use crate::files::{FILE_MODE, PRIVATE_MODE, UnfinishedFile, make_directory, parent_of, remove_if_there};
use crate::model::checksum::{Checksum, ChecksumBuilder};
use crate::model::clock::unix_ms;
use crate::model::location::{Location, Place};
use crate::store::modes::tighten;
use crate::store::whole::WholeFlush;
use crate::store::{Error, FreeSpace};

/// Directory for objects that are still arriving, below the storage directory.
const INCOMING: &str = ".incoming";

/// The arrival journal, below the storage directory.
const JOURNAL: &str = ".journal";

/// File below the storage directory. The process that uses the directory holds a lock on it.
const LOCK: &str = ".lock";

/// Maximum share of the file system to keep free, as a divisor. 20 means a twentieth.
pub const PART_FREE: u64 = 20;

/// Maximum series directories that are remembered as durable. Each takes some 200 bytes.
const REMEMBERED_DIRECTORIES: usize = 4096;

/// Without this, opening a FIFO would block until a writer comes. It does not affect regular files.
const O_NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// Parts of an object that must be durable before it counts as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// The data and the name. They survive a power cut.
    Disk,
    /// Nothing. Objects survive the end of this process, not that of the system.
    None,
}

/// Settings of the storage directory.
#[derive(Clone, Debug)]
pub struct Options {
    /// The storage directory. It is created if it does not exist.
    pub directory: PathBuf,
    /// Parts of an object that must be durable before it counts as stored.
    pub sync: Sync,
    /// Bytes to keep free, at most a twentieth of the file system. With less free space the node
    /// refuses objects. Otherwise the disk would be full for all programs, and for the index too.
    pub min_free_bytes: u64,
    /// The directory of the index. Its disk must keep the same space free, because the index needs
    /// room for the row of each object.
    pub beside: Option<PathBuf>,
}

impl Options {
    /// Default settings for a directory, with durable objects.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, sync: Sync::Disk, min_free_bytes: 256 * 1024 * 1024, beside: None }
    }
}

/// The storage directory, locked by this process and open for new objects.
#[derive(Debug)]
pub struct Objects {
    /// Absolute path.
    root: PathBuf,
    sync: Sync,
    next_incoming: AtomicU64,
    directories: Directories,
    /// Files that a killed process left with two links.
    left_over: Mutex<Vec<LeftOver>>,
    free_space: FreeSpace,
    /// The free space on the disk of the index.
    beside: Option<FreeSpace>,
    /// Whether room that is to stay free may be used.
    uses_all_space: AtomicBool,
    /// Directories of series that were made.
    made: Mutex<HashMap<PathBuf, MadeDirectory>>,
    /// Files that could neither be made durable nor removed. After a failed fsync the kernel
    /// reports success for later calls. So such files are remembered and never count as stored.
    tainted: Mutex<HashSet<PathBuf>>,
    /// Flushes the file system of the storage directory.
    whole: WholeFlush,
    /// Device number of that file system.
    device: u64,
    /// Holds the lock until it is dropped.
    _lock: File,
    /// Path of the lock.
    lock_path: PathBuf,
    /// Inode of the lock.
    lock_inode: u64,
}

/// State of a directory of a series that was made.
#[derive(Clone, Copy, Debug, Default)]
struct MadeDirectory {
    /// Whether its name is durable.
    is_durable: bool,
    /// Whether it was last found on the file system of the storage directory.
    is_near: bool,
}

/// An object that is arriving. If it is dropped before [`Self::place`], its file is removed.
#[derive(Debug)]
pub struct Incoming {
    objects: Arc<Objects>,
    /// Makes its name in `.incoming/` unique.
    number: u64,
    /// Parts that must be durable before it counts as stored.
    sync: Sync,
    temporary: Temporary,
    file: File,
}

/// Relation of an object to the object that already has its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameOutcome {
    /// No object has the name.
    New,
    /// The data set is the same, byte for byte. The location is that of the old object.
    Same,
    /// The data set differs. The new object lies beside the old one, under another name.
    Other,
}

/// The counts of [`Objects::recover`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Objects in the index. They were kept.
    pub kept: usize,
    /// Objects that are not in the index. They were removed. Their senders were never told of
    /// success and will send them again.
    pub removed: usize,
}

/// An object in its place, durable as [`Options::sync`] says.
///
/// While this value exists, the object also has its incoming link. If the process ends before the
/// index has the row, the next start finds the object by that link. So drop this value when the row
/// is committed, or soon after.
#[derive(Debug)]
pub struct Placed {
    /// Its location.
    pub location: Location,
    /// Relation to the object that had its name before.
    pub contents: NameOutcome,
    /// Number of its name among the names of its instance.
    pub name_number: u32,
    path: PathBuf,
    temporary: Option<Temporary>,
}

impl Placed {
    /// Whether the file at `other` holds the same data set, byte for byte. `None` if that file does
    /// not begin with our File Meta Information.
    ///
    /// # Errors
    /// If one of the two cannot be read.
    pub fn has_same_data_set(&self, other: &Location) -> Result<Option<bool>, Error> {
        let Some(other) = open(other)? else { return Ok(None) };
        let compare = || {
            let ours = File::open(&self.path)?;
            let length = ours.metadata()?.len();
            same_data_set(DataSetReader::of(ours, Some(length))?, other)
        };
        compare().map_err(Error::object("compared"))
    }

    /// Removes the object, because the index did not take it or does not need it. An older object
    /// with the same data set stays.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn discard(self) -> Result<(), Error> {
        match self.contents {
            NameOutcome::New | NameOutcome::Other => fs::remove_file(&self.path).map_err(Error::object("removed")),
            NameOutcome::Same => Ok(()),
        }
    }

    /// Keeps the object with both links, because nobody knows whether the index has it. The next
    /// start asks the index ([`Objects::recover`]).
    pub fn leave(mut self) {
        if let Some(temporary) = &mut self.temporary {
            temporary.0 = None;
        }
    }
}

/// Opens the object at a location for reading from start to end. `None` if the index keeps no bytes
/// for it. Its length is known at once for a file, and for a member of an archive that states it.
///
/// This follows symbolic links, since an archive scanned in place may be full of them. The target
/// must be a regular file: a FIFO in its place would block the reader for ever.
///
/// # Errors
/// If the file does not exist or cannot be read.
pub fn open(location: &Location) -> Result<Option<Object>, Error> {
    open_through(location, &Archives::default())
}

/// Like [`open`], for several objects of one archive.
pub(super) fn open_through(location: &Location, archives: &Archives) -> Result<Option<Object>, Error> {
    let Some(path) = location.file() else { return Ok(None) };
    let member = (location.place == Place::Archive).then_some(&location.file_name);
    let open = || match (open_file(&path)?, member) {
        (file, None) => Object::of_file(file),
        (file, Some(member)) => archives.open(file, member).map_err(ArchiveProblem::into_io),
    };
    open().map(Some).map_err(Error::object("opened"))
}

/// Computes the checksum of the data set of a managed object. `None` if the file does not begin
/// with our File Meta Information.
///
/// # Errors
/// If the file does not exist or cannot be read.
pub fn checksum(location: &Location) -> Result<Option<Checksum>, Error> {
    let Some(object) = open(location)? else { return Ok(None) };
    let read = || {
        let length = object.length();
        let Some(mut data_set) = DataSetReader::of(object, length)? else { return Ok(None) };
        let (mut checksum, mut buffer) = (ChecksumBuilder::default(), vec![0; COMPARED_AT_A_TIME]);
        loop {
            match data_set.read(&mut buffer)? {
                [] => return Ok(Some(checksum.finish())),
                bytes => checksum.update(bytes),
            }
        }
    };
    read().map_err(Error::object("read"))
}

/// Opens a regular file for reading.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Makes the object at a location survive a power cut, with its data and its name.
/// [`Options::sync`] does not matter here.
///
/// # Errors
/// If the file does not exist or cannot be synchronised.
pub fn make_durable(location: &Location) -> Result<(), Error> {
    let file = match location.place {
        Place::InPlace | Place::Managed => File::open(location.directory.join(&location.file_name)),
        // The node has no file for these, or only somebody else's archive.
        Place::MetadataOnly | Place::Archive => return Ok(()),
    };
    let file = file.map_err(Error::object("opened"))?;
    let directory = File::open(&location.directory).map_err(Error::object("synchronised"))?;
    file.sync_data().and_then(|()| directory.sync_all()).map_err(Error::object("synchronised"))
}

/// Removes an object that the index no longer names. It is no error if the file is already gone.
///
/// # Errors
/// If the file cannot be removed.
pub fn remove(path: &Path) -> Result<(), Error> {
    remove_if_there(path).map_err(Error::object("removed"))
}

impl Objects {
    /// Opens the storage directory. It creates the directory if needed, locks it against other
    /// processes, and removes half received objects of a killed process.
    ///
    /// # Errors
    /// If another process uses the directory, or it cannot be used.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Unusable { path, source }
        };
        make_directory(&options.directory).map_err(unusable(&options.directory))?;
        // An absolute path, because the index stores it. The next process may have another current
        // directory.
        let root = options.directory.canonicalize().map_err(unusable(&options.directory))?;
        let lock_path = root.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(PRIVATE_MODE).open(&lock_path);
        let lock = lock.map_err(unusable(&lock_path))?;
        let incoming = root.join(INCOMING);
        [&root, &lock_path, &incoming].into_iter().for_each(|path| tighten(path));
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { path: root }),
            Err(TryLockError::Error(source)) => return Err(Error::Unusable { path: lock_path, source }),
        }
        make_directory(&incoming).map_err(unusable(&incoming))?;
        let left_over = left_over(&root, &incoming)?;
        let free_space = FreeSpace::new(&root, options.min_free_bytes, PART_FREE);
        let of_lock = lock.metadata().map_err(unusable(&lock_path))?;
        Ok(Self {
            root,
            sync: options.sync,
            next_incoming: AtomicU64::new(0),
            directories: Directories::default(),
            left_over: Mutex::new(left_over),
            free_space,
            beside: options.beside.as_deref().map(|beside| FreeSpace::new(beside, options.min_free_bytes, PART_FREE)),
            uses_all_space: AtomicBool::new(false),
            made: Mutex::new(HashMap::new()),
            tainted: Mutex::new(HashSet::new()),
            whole: WholeFlush::of(lock.try_clone().map_err(unusable(&lock_path))?),
            device: of_lock.dev(),
            _lock: lock,
            lock_inode: of_lock.ino(),
            lock_path,
        })
    }

    /// Recovers after a crash. It keeps an object that the index names and removes one that it does
    /// not. It also removes the file that a kept object replaced. `is_indexed` gets the open file
    /// and its path.
    ///
    /// Only objects that were arriving or had just been stored are checked. So this takes no time,
    /// whatever the size of the archive. Call it before objects arrive.
    ///
    /// # Errors
    /// If a file cannot be removed. The next start tries again.
    pub fn recover(&self, mut is_indexed: impl FnMut(&File, &Path) -> bool) -> Result<Recovered, Error> {
        let left_over = std::mem::take(&mut *self.left_over.lock().unwrap_or_else(PoisonError::into_inner));
        let mut recovered = Recovered::default();
        for LeftOver { temporary, placed, names } in left_over {
            let file = match File::open(&placed) {
                Ok(file) => Some(file),
                // Another object of the instance replaced it, and that one stays.
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(Error::object("opened")(error)),
            };
            if file.is_some_and(|file| is_indexed(&file, &placed)) {
                recovered.kept += 1;
                // The files that it replaced.
                for other in names.into_iter().filter(|other| *other != placed) {
                    match File::open(&other) {
                        Ok(file) if !is_indexed(&file, &other) => super::remove(&other)?,
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            return Err(Error::object("opened")(error));
                        }
                        Ok(_) | Err(_) => {}
                    }
                }
            } else {
                super::remove(&placed)?;
                recovered.removed += 1;
            }
            // The incoming link goes last. After a crash before this line, the next start finds the
            // same state.
            super::remove(&temporary)?;
        }
        Ok(recovered)
    }

    /// The absolute path of the storage directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the path still leads to the directory that was opened. Its disk may have been
    /// unmounted, or somebody may have moved it.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        match fs::metadata(&self.lock_path) {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.lock_inode) => true,
            // Some network file systems change the numbers of a file. It is ours if it is locked.
            Ok(_) => {
                File::open(&self.lock_path).is_ok_and(|found| matches!(found.try_lock(), Err(TryLockError::WouldBlock)))
            }
            Err(_) => false,
        }
    }

    /// The path of the arrival journal.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.root.join(JOURNAL)
    }

    /// Whether [`Self::flush`] can be trusted here.
    #[must_use]
    pub fn can_flush(&self) -> bool {
        self.whole.is_reliable()
    }

    /// Makes all objects durable that [`Self::store_for_journal`] and [`Self::restore`] have
    /// placed.
    ///
    /// # Errors
    /// If one of them may not be durable. All later calls fail then.
    pub fn flush(&self) -> Result<(), Error> {
        self.whole.flush().map_err(Error::object("synchronised"))
    }

    /// All paths that objects of an instance may have, by the UIDs of their data sets. They come by
    /// [`Placed::name_number`].
    pub fn paths_of(&self, [study, series, instance]: [&str; 3]) -> impl Iterator<Item = PathBuf> + use<> {
        let (directory, stem) = (self.root.join(component(study)).join(component(series)), component(instance));
        (0..MAX_NAMES).map(move |number| directory.join(file_name(&stem, number)))
    }

    /// Writes an object again at its path, since a power cut may have torn it. [`Self::flush`]
    /// makes it durable.
    ///
    /// Room that is to stay free may be used: the object was acknowledged.
    ///
    /// # Errors
    /// If the file cannot be written. What was there stays then.
    pub fn restore(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        make_directory(parent_of(path)).map_err(Error::object("given a directory"))?;
        let temporary = self.root.join(INCOMING).join("restored.part");
        let written = UnfinishedFile::under(temporary, path, FILE_MODE).and_then(|restored| {
            restored.file().write_all(bytes)?;
            restored.finish_without_flush()
        });
        written.map_err(Error::object("written"))
    }

    /// Creates an object with its first bytes: preamble and File Meta Information
    /// ([`super::FileMeta`]), and the first part of the data set.
    ///
    /// # Errors
    /// If there is not enough space, or the file cannot be written.
    pub fn begin(self: &Arc<Self>, first: &[&[u8]]) -> Result<Incoming, Error> {
        self.begin_as(|number| format!("{number}.part"), first, self.sync)
    }

    /// Stores an object whose bytes and UIDs are all known. It does the work of [`Self::begin`] and
    /// [`Incoming::place`], and saves one rename.
    ///
    /// # Errors
    /// Those of the two functions. The object is then lost.
    pub fn store(
        self: &Arc<Self>,
        bytes: &[&[u8]],
        study: &str,
        series: &str,
        instance: &str,
    ) -> Result<Placed, Error> {
        self.store_with(bytes, [study, series, instance], self.sync)
    }

    /// Does the same for an object that a journal makes durable. The object keeps its incoming link
    /// until the index has its row, and [`Self::flush`] makes it durable in its place.
    ///
    /// # Errors
    /// Those of [`Self::store`].
    pub fn store_for_journal(
        self: &Arc<Self>,
        bytes: &[u8],
        study: &str,
        series: &str,
        instance: &str,
    ) -> Result<Placed, Error> {
        self.store_with(&[bytes], [study, series, instance], Sync::None)
    }

    /// Whether the directory of a series was made, and [`Self::flush`] reaches it. This asks no
    /// disk.
    #[must_use]
    pub fn knows_directory(&self, study: &str, series: &str) -> bool {
        let path = self.root.join(component(study)).join(component(series));
        self.lock_made().get(&path).is_some_and(|made| made.is_near)
    }

    /// Whether no file has the first of the names of an instance. [`Placed::name_number`] of its
    /// next object is 0 then, unless another program takes that name.
    #[must_use]
    pub fn has_first_name_free(&self, [study, series, instance]: [&str; 3]) -> bool {
        let directory = self.root.join(component(study)).join(component(series));
        let found = fs::symlink_metadata(directory.join(file_name(&component(instance), 0)));
        found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    fn store_with(self: &Arc<Self>, bytes: &[&[u8]], uids: [&str; 3], sync: Sync) -> Result<Placed, Error> {
        let [study, series, instance] = uids;
        let incoming = |number| incoming_name(number, &component(study), &component(series), &component(instance));
        self.begin_as(incoming, bytes, sync)?.place(study, series, instance)
    }

    fn begin_as(
        self: &Arc<Self>,
        name: impl Fn(u64) -> String,
        first: &[&[u8]],
        sync: Sync,
    ) -> Result<Incoming, Error> {
        self.check_space()?;
        let (number, path, file) = loop {
            let number = self.next_incoming.fetch_add(1, Ordering::Relaxed);
            let path = self.root.join(INCOMING).join(name(number));
            // Objects are patient data. Whatever the umask, only this user and group can read them.
            match OpenOptions::new().write(true).read(true).create_new(true).mode(FILE_MODE).open(&path) {
                Ok(file) => break (number, path, file),
                // A name that the start could not remove. Try the next one.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::object("begun")(error)),
            }
        };
        let temporary = Temporary(Some(path));
        // After this, the file gets its place in the directory that was opened, or none.
        if !self.is_in_place() {
            return Err(Error::NotInPlace);
        }
        let mut incoming = Incoming { objects: Arc::clone(self), number, sync, temporary, file };
        for bytes in first {
            incoming.write(bytes)?;
        }
        Ok(incoming)
    }

    /// Runs work that may use the room that is to stay free, because all of its objects were
    /// acknowledged.
    pub fn with_all_space<T>(&self, work: impl FnOnce() -> T) -> T {
        self.uses_all_space.store(true, Ordering::Relaxed);
        let done = work();
        self.uses_all_space.store(false, Ordering::Relaxed);
        done
    }

    /// Refuses what arrives while no more space is free than must stay free.
    ///
    /// # Errors
    /// [`Error::NoSpace`] and [`Error::NoSpaceForIndex`], and if the space cannot be asked for.
    pub(crate) fn check_space(&self) -> Result<(), Error> {
        if self.uses_all_space.load(Ordering::Relaxed) {
            return Ok(());
        }
        let has_space = |space: &FreeSpace| space.take(0).map_err(Error::object("begun"));
        if !has_space(&self.free_space)? {
            return Err(Error::NoSpace);
        }
        match &self.beside {
            Some(beside) if !has_space(beside)? => Err(Error::NoSpaceForIndex),
            Some(_) | None => Ok(()),
        }
    }

    /// Creates the directory of a series and makes its name durable.
    fn series_directory(&self, study: &str, series: &str, sync: Sync) -> io::Result<PathBuf> {
        let study = self.root.join(component(study));
        let series = study.join(component(series));
        if self.lock_made().get(&series).is_some_and(|made| made.is_durable || sync == Sync::None) {
            return Ok(series);
        }
        make_directory(&series)?;
        if sync == Sync::Disk {
            // This also runs if both directories exist. Another thread may not have synchronised
            // them yet, or their process was killed before it did.
            self.directories.synchronise(&study)?;
            self.directories.synchronise(&self.root)?;
        }
        self.remember(&series, sync == Sync::Disk);
        Ok(series)
    }

    fn remember(&self, directory: &Path, is_durable: bool) {
        let mut made = self.lock_made();
        if made.len() >= REMEMBERED_DIRECTORIES {
            made.clear();
        }
        made.entry(directory.to_owned()).or_default().is_durable |= is_durable;
    }

    fn note_near(&self, directory: &Path, is_near: bool) {
        if let Some(made) = self.lock_made().get_mut(directory) {
            made.is_near = is_near;
        }
    }

    fn lock_made(&self) -> MutexGuard<'_, HashMap<PathBuf, MadeDirectory>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_tainted(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.tainted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_tainted(&self, path: &Path) -> bool {
        self.lock_tainted().contains(path)
    }

    /// Removes a file that never became durable, so that a new object can take its name.
    fn remove_tainted(&self, path: &Path) -> Result<(), Error> {
        remove(path)?;
        self.lock_tainted().remove(path);
        Ok(())
    }

    fn forget(&self, directory: &Path) {
        self.lock_made().remove(directory);
    }
}

impl Incoming {
    /// Appends bytes.
    ///
    /// # Errors
    /// If there is not enough space, or the bytes cannot be written. The object is then lost.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.objects.check_space()?;
        self.file.write_all(bytes).map_err(Error::object("written"))
    }

    /// Gives the object its place under the UIDs of its data set, and makes data and name durable.
    /// For one instance, only one object at a time may do this, until the index has it or
    /// [`Placed::discard`] removed it. Otherwise the next object could take the first one's file
    /// for its own.
    ///
    /// The final link comes before the fsync, so that one wait for the journal of the file system
    /// covers both data and name. Until this function returns, the name promises nothing. After a
    /// power cut in between, [`Objects::recover`] removes a half written file.
    ///
    /// # Errors
    /// If a step fails. The object is then lost.
    pub fn place(mut self, study: &str, series: &str, instance: &str) -> Result<Placed, Error> {
        let make = |this: &Self| {
            this.objects.series_directory(study, series, this.sync).map_err(Error::object("given a directory"))
        };
        let mut directory = make(&self)?;
        if self.sync != self.objects.sync {
            let is_elsewhere = self.is_elsewhere(&directory)?;
            self.objects.note_near(&directory, !is_elsewhere);
            if is_elsewhere {
                // A flush of the file system of the storage directory would not reach it.
                self.sync = self.objects.sync;
                directory = make(&self)?;
            }
        }
        let stem = component(instance);
        self.temporary
            .say_where(&incoming_name(self.number, &component(study), &component(series), &stem))
            .map_err(Error::object("given its name"))?;
        let mut contents = NameOutcome::New;
        let mut number = 0;
        for _ in 0..MAX_NAMES {
            let file_name = file_name(&stem, number);
            let path = directory.join(&file_name);
            match self.give_name(&path) {
                Ok(()) => return self.placed(&directory, (file_name, number), contents),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.objects.is_tainted(&path) => {
                    self.objects.remove_tainted(&path)?;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match self.has_same_data_set(&path) {
                    Ok(true) => return self.same(&directory, (file_name, number)),
                    Ok(false) => {
                        contents = NameOutcome::Other;
                        number += 1;
                    }
                    // The file was removed since, so its name is free.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(Error::object("compared")(error)),
                },
                // Somebody removed the directory since it was created.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.objects.forget(&directory);
                    directory = make(&self)?;
                }
                Err(error) => return Err(Error::object("given its name")(error)),
            }
        }
        Err(Error::object("given its name")(io::ErrorKind::AlreadyExists.into()))
    }

    /// Whether a directory lies on another file system than the storage directory: somebody mounted
    /// one there, or put a link there.
    fn is_elsewhere(&self, directory: &Path) -> Result<bool, Error> {
        match fs::metadata(directory) {
            Ok(metadata) => Ok(metadata.dev() != self.objects.device),
            // It was removed since it was made, and is made again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::object("given a directory")(error)),
        }
    }

    /// Adds the final link. It fails if the name exists.
    fn give_name(&mut self, path: &Path) -> io::Result<()> {
        use rustix::fs::{AtFlags, CWD, linkat};
        use rustix::io::Errno;
        let Some(from) = &self.temporary.0 else { return Err(io::ErrorKind::NotFound.into()) };
        match linkat(CWD, from, CWD, path, AtFlags::empty()) {
            // The file system has no hard links, so the rename below removes the incoming link.
            // Data must be durable before that, because nothing would mark a half written object.
            Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::MLINK | Errno::INVAL) => {
                if self.objects.sync == Sync::Disk {
                    self.file.sync_data()?;
                }
                self.temporary.rename(path)
            }
            result => result.map_err(Into::into),
        }
    }

    fn placed(
        self,
        directory: &Path,
        (name, name_number): (OsString, u32),
        contents: NameOutcome,
    ) -> Result<Placed, Error> {
        let Self { objects, sync, temporary, file, .. } = self;
        let path = directory.join(&name);
        // `sync_all` and not `sync_data`: the journal entry of the inode also makes the name
        // durable.
        let durable = match sync {
            Sync::Disk => file.sync_all().and_then(|()| objects.directories.synchronise(directory)),
            Sync::None => Ok(()),
        };
        let finished = durable.map_err(Error::object("synchronised")).and_then(|()| location(&file, directory, name));
        match finished {
            Ok(location) => Ok(Placed { location, contents, name_number, path, temporary: Some(temporary) }),
            Err(error) => {
                // The object may not survive, so it must not count as stored.
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(%error, "an object that could not be made durable could not be removed either");
                    objects.lock_tainted().insert(path);
                }
                Err(error)
            }
        }
    }

    /// Uses the old object with the same data set. It makes the old object as durable as a new one,
    /// since a killed process may have left it.
    fn same(self, directory: &Path, (file_name, name_number): (OsString, u32)) -> Result<Placed, Error> {
        let path = directory.join(&file_name);
        let file = File::open(&path).map_err(Error::object("opened"))?;
        if self.sync == Sync::Disk {
            let durable = file.sync_data().and_then(|()| self.objects.directories.synchronise(directory));
            durable.map_err(Error::object("synchronised"))?;
        }
        Ok(Placed {
            location: location(&file, directory, file_name)?,
            contents: NameOutcome::Same,
            name_number,
            path,
            temporary: None,
        })
    }

    fn has_same_data_set(&self, path: &Path) -> io::Result<bool> {
        let other = Object::of_file(open_file(path)?)?;
        let length = self.file.metadata()?.len();
        Ok(same_data_set(DataSetReader::of(FromStart { file: &self.file, offset: 0 }, Some(length))?, other)?
            == Some(true))
    }
}

fn location(file: &File, directory: &Path, file_name: OsString) -> Result<Location, Error> {
    let metadata = file.metadata().map_err(Error::object("inspected"))?;
    let mtime_ms = metadata.modified().map(unix_ms).map_err(Error::object("inspected"))?;
    Ok(Location { place: Place::Managed, directory: directory.to_owned(), file_name, size: metadata.len(), mtime_ms })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use tempfile::TempDir;

    use super::*;
    use crate::store::FileMeta;

    fn open(directory: &TempDir) -> Arc<Objects> {
        Arc::new(Objects::open(&Options::new(directory.path().to_owned())).unwrap())
    }

    fn header(source_ae_title: &str) -> Vec<u8> {
        let meta = FileMeta {
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.7",
            sop_instance_uid: "1.2.3",
            transfer_syntax: "1.2.840.10008.1.2",
            source_ae_title,
        };
        meta.encode()
    }

    fn stored(objects: &Arc<Objects>, data_set: &[u8]) -> Placed {
        objects.begin(&[&header("A"), data_set]).unwrap().place("1.1", "1.2", "1.3").unwrap()
    }

    fn files(directory: &TempDir) -> Vec<String> {
        let mut found = Vec::new();
        let mut left = vec![directory.path().to_owned()];
        while let Some(next) = left.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    left.push(entry.path());
                } else if entry.file_name() != LOCK {
                    found.push(entry.path().strip_prefix(directory.path()).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn an_object_lies_under_its_uids_with_its_bytes_as_received() {
        let directory = TempDir::new().unwrap();
        let objects = open(&directory);
        let mut incoming = objects.begin(&[&header("A"), b"data "]).unwrap();
        assert_eq!(files(&directory), [".incoming/0.part"]);
        incoming.write(b"set").unwrap();
        let placed = incoming.place("1.1", "1.2", "1.3").unwrap();
        assert_eq!(placed.contents, NameOutcome::New);
        assert_eq!(files(&directory), [".incoming/0,1.1,1.2,1.3", "1.1/1.2/1.3.dcm"]);
        let bytes = fs::read(placed.location.path().unwrap()).unwrap();
        assert_eq!(bytes, [header("A").as_slice(), b"data set"].concat());
        assert_eq!(placed.location.size, bytes.len() as u64);
        drop(placed);
        assert_eq!(files(&directory), ["1.1/1.2/1.3.dcm"]);
    }

    #[test]
    fn what_a_location_names_can_be_opened_if_it_is_a_file() {
        let directory = TempDir::new().unwrap();
        let objects = open(&directory);
        let mut location = stored(&objects, b"data").location;
        let mut bytes = Vec::new();
        super::open(&location).unwrap().unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [header("A").as_slice(), b"data"].concat());

        location.file_name = "gone".into();
        assert!(matches!(super::open(&location), Err(Error::Object { step: "opened", .. })));
        location.file_name = "pipe".into();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            location.path().unwrap(),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(matches!(super::open(&location), Err(Error::Object { step: "opened", .. })));
        location.place = Place::MetadataOnly;
        assert!(super::open(&location).unwrap().is_none());
    }

    #[test]
    fn the_same_data_set_again_changes_nothing_whoever_sends_it() {
        let directory = TempDir::new().unwrap();
        let objects = open(&directory);
        let data_set = vec![7; 3 * COMPARED_AT_A_TIME];
        let first = stored(&objects, &data_set);
        let again = objects.begin(&[&header("B"), &data_set]).unwrap().place("1.1", "1.2", "1.3").unwrap();
        assert_eq!(again.contents, NameOutcome::Same);
        assert_eq!(again.location, first.location);
        drop(first);
        again.discard().unwrap();
        assert_eq!(files(&directory), ["1.1/1.2/1.3.dcm"]);
    }

    #[test]
    fn another_data_set_lies_beside_the_first_until_it_is_discarded() {
        let directory = TempDir::new().unwrap();
        let objects = open(&directory);
        drop(stored(&objects, b"first"));
        let other = stored(&objects, b"other");
        assert_eq!(other.contents, NameOutcome::Other);
        assert_eq!(files(&directory), [".incoming/1,1.1,1.2,1.3", "1.1/1.2/1.3-1.dcm", "1.1/1.2/1.3.dcm"]);
        assert_eq!(stored(&objects, b"other").contents, NameOutcome::Same);
        other.discard().unwrap();
        assert_eq!(files(&directory), ["1.1/1.2/1.3.dcm"]);
    }

    #[test]
    fn what_could_not_be_made_durable_is_not_found_to_be_there() {
        let directory = TempDir::new().unwrap();
        let objects = open(&directory);
        let path = stored(&objects, b"data set").location.path().unwrap();
        // Simulates a failed fsync and a failed removal.
        objects.lock_tainted().insert(path);
        let again = stored(&objects, b"data set");
        assert_eq!(again.contents, NameOutcome::New);
        drop(again);
        assert_eq!(stored(&objects, b"data set").contents, NameOutcome::Same);
        assert_eq!(files(&directory), ["1.1/1.2/1.3.dcm"]);
    }

    #[test]
    fn an_object_that_is_not_finished_leaves_no_file() {
        let directory = TempDir::new().unwrap();
        let objects = open(&directory);
        drop(objects.begin(&[b"half"]).unwrap());
        assert_eq!(files(&directory), [""; 0]);
    }

    #[test]
    fn two_processes_cannot_store_in_one_directory() {
        let directory = TempDir::new().unwrap();
        let objects = open(&directory);
        let options = Options::new(directory.path().to_owned());
        assert!(matches!(Objects::open(&options), Err(Error::InUse { .. })));
        drop(objects);
        Objects::open(&options).unwrap();
    }

    #[test]
    fn the_next_start_removes_what_a_killed_process_left() {
        let directory = TempDir::new().unwrap();
        drop(open(&directory));
        fs::write(directory.path().join(INCOMING).join("9.part"), b"killed").unwrap();
        let _objects = open(&directory);
        assert_eq!(files(&directory), [""; 0]);
    }

    #[test]
    fn what_was_placed_when_the_process_was_killed_stays_only_if_it_is_indexed() {
        let directory = TempDir::new().unwrap();
        let objects = open(&directory);
        let place =
            |instance: &str, bytes: &[u8]| objects.begin(&[bytes]).unwrap().place("1.1", "..", instance).unwrap();
        // The index names the object that came later.
        drop(place("1.5", b"not indexed"));
        let left = [
            place("1.3", b"indexed"),
            place("1.3", b"another"),
            place("1.4", b"not indexed"),
            place("1.5", b"in its place"),
        ];
        // A killed process runs no destructors.
        std::mem::forget(left);
        objects._lock.unlock().unwrap();
        let objects = Objects::open(&Options::new(directory.path().to_owned())).unwrap();
        let recovered = objects.recover(|mut file, path| {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, fs::read(path).unwrap());
            bytes != b"not indexed"
        });
        assert_eq!(recovered.unwrap(), Recovered { kept: 3, removed: 1 });
        let series = component("..");
        assert_eq!(files(&directory), ["1.3-1", "1.3", "1.5-1"].map(|name| format!("1.1/{series}/{name}.dcm")));
        assert_eq!(objects.recover(|_, _| false).unwrap(), Recovered::default());
    }

    #[test]
    fn of_several_contents_that_were_being_stored_those_that_are_not_indexed_go() {
        const CONTENTS: [&[u8]; 3] = [b"not indexed", b"indexed", b"not indexed either"];
        let directory = TempDir::new().unwrap();
        let objects = open(&directory);
        // The file system lists files in its own order.
        for instance in 0..8 {
            for content in CONTENTS {
                let uid = format!("1.3.{instance}");
                std::mem::forget(objects.begin(&[content]).unwrap().place("1.1", "1.2", &uid).unwrap());
            }
        }
        objects._lock.unlock().unwrap();
        let objects = Objects::open(&Options::new(directory.path().to_owned())).unwrap();
        let recovered = objects.recover(|mut file, _| {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            bytes == CONTENTS[1]
        });
        assert_eq!(recovered.unwrap(), Recovered { kept: 8, removed: 16 });
        let expected: Vec<_> = (0..8).map(|instance| format!("1.1/1.2/1.3.{instance}-1.dcm")).collect();
        assert_eq!(files(&directory), expected);
    }

    #[test]
    fn no_uid_leads_out_of_the_storage_directory() {
        let parent = TempDir::new().unwrap();
        let options = Options::new(parent.path().join("storage"));
        let objects = Arc::new(Objects::open(&options).unwrap());
        let long = "1".repeat(200);
        let slashes = "a/b";
        for uid in ["..", "../../x", "/abs", "a\0b", slashes, "", "CON", "1.2. ", "1.2.\n", ".incoming", &long] {
            let placed = objects.begin(&[&header("A"), uid.as_bytes()]).unwrap().place(uid, uid, uid).unwrap();
            let path = placed.location.path().unwrap();
            let inside: Vec<_> = path.strip_prefix(objects.root()).unwrap().iter().collect();
            assert_eq!(inside.len(), 3, "{path:?}");
            assert!(inside.iter().all(|part| part.to_str().unwrap().starts_with('x')), "{path:?}");
        }
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn without_enough_space_nothing_is_begun() {
        let directory = TempDir::new().unwrap();
        let mut objects = Objects::open(&Options::new(directory.path().to_owned())).unwrap();
        objects.free_space = FreeSpace::new(directory.path(), u64::MAX, 1);
        assert!(matches!(Arc::new(objects).begin(&[b"x"]), Err(Error::NoSpace)));
        assert_eq!(files(&directory), [""; 0]);
    }

    #[test]
    fn an_object_ends_where_the_space_does() {
        let directory = TempDir::new().unwrap();
        let objects = open(&directory);
        let mut incoming = objects.begin(&[&header("A"), b"data "]).unwrap();
        objects.free_space.use_up();
        assert!(matches!(incoming.write(b"set"), Err(Error::NoSpace)));
        drop(incoming);
        assert!(files(&directory).is_empty());
    }

    #[test]
    fn a_series_directory_that_was_removed_is_made_again() {
        let directory = TempDir::new().unwrap();
        let objects = open(&directory);
        drop(stored(&objects, b"first"));
        fs::remove_dir_all(directory.path().join("1.1")).unwrap();
        assert_eq!(stored(&objects, b"first").contents, NameOutcome::New);
        assert_eq!(files(&directory), ["1.1/1.2/1.3.dcm"]);
    }
}
