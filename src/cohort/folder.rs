//! Files of a cohort in a folder: links, clones and copies, made whole and never over another file.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::ioctl_ficlone;

use super::Error;
use super::manifest::uid_key;
use super::names::path_key;
use crate::archive::Archives;
use crate::files::{FILE_MODE, UnfinishedFile, make_one_directory};
use crate::model::checksum::{Checksum, ChecksumBuilder};
use crate::model::location::{Location, Place};
use crate::store::{Source, change_of};

/// Directories that are known to exist. Each takes some 100 bytes.
const REMEMBERED_DIRECTORIES: usize = 10_000;

/// Numbers that are tried for one name.
const MAX_NUMBER: u32 = 100_000;

/// Name of a copy while it is made. No template makes it, since no part of a path begins with a
/// dot. The lock of the manifest keeps other copies out of the folder.
const TEMPORARY: &str = ".dcmdex-copy.partial";

/// Bytes that are copied at once.
const COPIED_AT_ONCE: usize = 256 * 1024;

/// Way in which a file of the destination comes from its source. `dcmdex copy` shows these texts as
/// help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Placing {
    /// A second name of the same file, on the same file system.
    HardLink,
    /// A name that leads to the source.
    SymbolicLink,
    /// A copy that shares its blocks with the source (Btrfs, XFS).
    Reflink,
    /// A copy.
    Copy,
}

impl Placing {
    /// The word in the manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HardLink => "hard-link",
            Self::SymbolicLink => "symbolic-link",
            Self::Reflink => "reflink",
            Self::Copy => "copy",
        }
    }
}

/// Opens the bytes that are placed in place of those of a file. The error is in words.
pub type OpenReplacement<'a> = &'a dyn Fn(&Archives) -> Result<Box<dyn Read>, String>;

/// Result of placing an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedFile {
    /// The path in the destination.
    pub file: PathBuf,
    /// Way in which the file came there. `None` if it was there from an earlier run.
    pub how: Option<Placing>,
    /// The number in its name. 1 if it has none.
    pub number: u32,
}

/// The object of an instance, as the index knows it.
#[derive(Clone, Copy)]
pub struct CopiedObject<'a> {
    /// Its location.
    pub location: &'a Location,
    /// The checksum of its data set, if it was received.
    pub checksum: Option<Checksum>,
    /// Opens its bytes, if they are not those that lie there.
    pub replacement: Option<OpenReplacement<'a>>,
}

impl CopiedObject<'_> {
    /// Opens the bytes. Also returns their number, if it is known. Refuses an object that is no
    /// longer what the index knows.
    pub(super) fn open(self, archives: &Archives) -> Result<(Box<dyn Read>, Option<u64>), Error> {
        let Some(open) = self.replacement else {
            let source = self.open_as_known(archives)?;
            let left = source.left();
            return Ok((Box::new(source), left));
        };
        if self.checksum.is_some() {
            self.open_as_known(archives)?;
        }
        open(archives).map(|bytes| (bytes, None)).map_err(Error::Object)
    }

    fn open_as_known(self, archives: &Archives) -> Result<Source, Error> {
        let mut source = match Source::open(self.location, archives) {
            Ok(Some(source)) => source,
            Ok(None) => return Err(Error::Object("only its metadata are kept".to_owned())),
            Err(error) => return Err(Error::Object(in_words(&error))),
        };
        as_known(source.is_not_as_known())?;
        if let Some(expected) = self.checksum {
            let found = checksum_of(&mut source).map_err(|error| Error::Object(error.to_string()))?;
            if found.is_some_and(|found| found != expected) {
                return Err(Error::Object("it is damaged: its bytes are not those that were received".to_owned()));
            }
            source.go_to(0).map_err(|error| Error::Object(error.to_string()))?;
        }
        Ok(source)
    }
}

/// The checksum of what was received. `None` if the file does not begin as the node writes it.
fn checksum_of(source: &mut Source) -> io::Result<Option<Checksum>> {
    if source.go_behind_our_meta()?.is_none() {
        return Ok(None);
    }
    let (mut checksum, mut buffer) = (ChecksumBuilder::default(), vec![0; COPIED_AT_ONCE]);
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(Some(checksum.finish())),
            read => checksum.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

/// A folder that files of a cohort are placed in.
pub struct CohortFolder {
    root: PathBuf,
    placing: Placing,
    /// The number of each path that is taken, and that of its instance.
    taken: HashMap<u128, u64>,
    directories: HashSet<PathBuf>,
    archives: Archives,
}

impl CohortFolder {
    /// Places files below `root`, which exists. `earlier` is what earlier runs have made.
    #[must_use]
    pub fn new(root: &Path, placing: Placing, earlier: HashMap<u128, u64>) -> Self {
        let (directories, archives) = (HashSet::new(), Archives::default());
        Self { root: root.to_owned(), placing, taken: earlier, directories, archives }
    }

    /// Whether files become links to their sources. Members of archives are copied all the same.
    #[must_use]
    pub const fn is_of_links(&self) -> bool {
        matches!(self.placing, Placing::HardLink | Placing::SymbolicLink)
    }

    /// Places the object of an instance under the first of its names that is free. `name` makes the
    /// name with a number. The name with the number 1 is the one that was asked for. What is copied
    /// must have the checksum that the index has for it. For a link nothing is read.
    ///
    /// # Errors
    /// [`Error::Object`] if the source cannot be read. Any other error is one of the destination.
    pub fn place(
        &mut self,
        name: &dyn Fn(u32) -> PathBuf,
        sop_instance_uid: &str,
        object: CopiedObject<'_>,
    ) -> Result<PlacedFile, Error> {
        let uid = uid_key(sop_instance_uid);
        for number in 1..MAX_NUMBER {
            let file = name(number);
            let key = path_key(&file);
            match self.taken.get(&key) {
                Some(known) if *known == uid && self.root.join(&file).symlink_metadata().is_ok() => {
                    return Ok(PlacedFile { file, how: None, number });
                }
                Some(known) if *known != uid => continue,
                Some(_) | None => {}
            }
            self.make_directories(&file)?;
            if let Some(how) = self.make(&self.root.join(&file), object)? {
                self.taken.insert(key, uid);
                return Ok(PlacedFile { file, how: Some(how), number });
            }
            // A file that is none of ours has the name.
        }
        Err(Error::Write { path: self.root.join(name(1)), source: io::Error::other("too many files have this name") })
    }

    fn make_directories(&mut self, file: &Path) -> Result<(), Error> {
        let Some(directory) = file.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
        if self.directories.contains(directory) {
            return Ok(());
        }
        // A part that is a symbolic link could lead out of the folder.
        let mut path = self.root.clone();
        for part in directory.components() {
            path.push(part);
            match make_one_directory(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let is_directory = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
                    if !is_directory {
                        let source = io::ErrorKind::NotADirectory.into();
                        return Err(Error::Write { path, source });
                    }
                }
                made => made.map_err(|source| Error::Write { path: path.clone(), source })?,
            }
        }
        if self.directories.len() == REMEMBERED_DIRECTORIES {
            self.directories.clear();
        }
        self.directories.insert(directory.to_owned());
        Ok(())
    }

    /// Makes a file. `None` if another file has the name.
    fn make(&self, file: &Path, object: CopiedObject<'_>) -> Result<Option<Placing>, Error> {
        let location = object.location;
        let placing = match location.place {
            Place::MetadataOnly => return Err(Error::Object("only its metadata are kept".to_owned())),
            // A member has no file of its own.
            Place::Archive => Placing::Copy,
            Place::InPlace | Place::Managed if object.replacement.is_some() => Placing::Copy,
            Place::InPlace | Place::Managed => self.placing,
        };
        if matches!(placing, Placing::Reflink | Placing::Copy) {
            return self.copy(file, object, placing);
        }
        let source = location.directory.join(&location.file_name);
        check_unchanged(&source, location)?;
        let linked = match placing {
            Placing::SymbolicLink => std::os::unix::fs::symlink(&source, file),
            _ => fs::hard_link(&source, file),
        };
        match linked {
            Ok(()) => Ok(Some(placing)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(is_link_to(file, &source, placing).then_some(placing))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(Error::Object("it is gone".to_owned()))
            }
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Err(Error::Link {
                path: file.to_owned(),
                hint: "it lies on another file system; hint: --by symbolic-link or --by copy",
                source: error,
            }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Error::Link {
                path: file.to_owned(),
                hint: "the system refuses links to files of others; hint: --by symbolic-link or --by copy",
                source: error,
            }),
            Err(source) => Err(Error::Write { path: file.to_owned(), source }),
        }
    }

    /// Copies the bytes under a temporary name, and renames them.
    fn copy(&self, file: &Path, object: CopiedObject<'_>, placing: Placing) -> Result<Option<Placing>, Error> {
        let location = object.location;
        let failed = |source: io::Error| Error::Write { path: file.to_owned(), source };
        if file.symlink_metadata().is_ok() {
            return Ok(self.has_the_bytes(file, object)?.then_some(placing));
        }
        let (mut source, _) = object.open(&self.archives)?;
        let mut into = UnfinishedFile::under(file.with_file_name(TEMPORARY), file, FILE_MODE).map_err(failed)?;
        let mut placed = Placing::Copy;
        if placing == Placing::Reflink && location.place != Place::Archive {
            let from = File::open(location.directory.join(&location.file_name)).map_err(gone)?;
            ioctl_ficlone(into.file(), &from).map_err(|error| Error::Link {
                path: file.to_owned(),
                hint: "this file system has no reflinks between the two; hint: --by copy",
                source: error.into(),
            })?;
            placed = Placing::Reflink;
        } else {
            copy_bytes(&mut source, &mut into).map_err(|error| match error {
                CopyError::Read(error) => Error::Object(error.to_string()),
                CopyError::Write(error) => failed(error),
            })?;
        }
        // The end of the manifest makes all files durable.
        match into.finish_without_replacing() {
            Ok(()) => Ok(Some(placed)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Whether a file has the bytes of an object: a run that was killed made it.
    fn has_the_bytes(&self, file: &Path, object: CopiedObject<'_>) -> Result<bool, Error> {
        let location = object.location;
        let Ok(metadata) = file.symlink_metadata() else { return Ok(false) };
        let has_length = location.place != Place::Archive && object.replacement.is_none();
        if !metadata.is_file() || (has_length && metadata.len() != location.size) {
            return Ok(false);
        }
        let (mut source, _) = object.open(&self.archives)?;
        let mut there =
            io::BufReader::new(File::open(file).map_err(|source| Error::Write { path: file.to_owned(), source })?);
        let (mut one, mut other) = (vec![0; COPIED_AT_ONCE], vec![0; COPIED_AT_ONCE]);
        loop {
            let count = source.read(&mut one).map_err(|error| Error::Object(error.to_string()))?;
            let part = other.get_mut(..count.max(1)).unwrap_or_default();
            if count == 0 {
                return Ok(there.read(part).is_ok_and(|rest| rest == 0));
            }
            if there.read_exact(part).is_err() || one.get(..count) != Some(&*part) {
                return Ok(false);
            }
        }
    }
}

/// Refuses a file that is no longer the one that the index knows.
fn check_unchanged(source: &Path, location: &Location) -> Result<(), Error> {
    as_known(change_of(location, &fs::metadata(source).map_err(gone)?))
}

fn as_known(change: Option<&'static str>) -> Result<(), Error> {
    match change {
        None => Ok(()),
        Some(_) => Err(Error::Object("it has changed since it was indexed; hint: scan again".to_owned())),
    }
}

fn gone(error: io::Error) -> Error {
    Error::Object(match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "it is gone".to_owned(),
        _ => error.to_string(),
    })
}

fn in_words(error: &crate::store::Error) -> String {
    match error {
        crate::store::Error::Object { source, .. } => match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "it is gone".to_owned(),
            _ => source.to_string(),
        },
        error => error.to_string(),
    }
}

fn is_link_to(file: &Path, source: &Path, placing: Placing) -> bool {
    match placing {
        Placing::SymbolicLink => fs::read_link(file).is_ok_and(|target| target == source),
        Placing::HardLink => match (file.symlink_metadata(), source.symlink_metadata()) {
            (Ok(one), Ok(other)) => one.dev() == other.dev() && one.ino() == other.ino(),
            _ => false,
        },
        Placing::Reflink | Placing::Copy => false,
    }
}

/// Side of a copy that failed.
pub(super) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

pub(super) fn copy_bytes(from: &mut impl Read, into: &mut impl io::Write) -> Result<u64, CopyError> {
    let mut buffer = vec![0; COPIED_AT_ONCE];
    let mut copied = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return into.flush().map(|()| copied).map_err(CopyError::Write),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        into.write_all(buffer.get(..count).unwrap_or_default()).map_err(CopyError::Write)?;
        copied += count as u64;
    }
}
