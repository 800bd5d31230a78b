//! Which roots are scanned, and which of them are ours and are not.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use super::dicomdir;
use super::{Error, Options, Vanished};

/// The roots of a scan, all absolute and without symbolic links.
#[derive(Clone, Debug)]
pub(super) struct ScanRoots {
    /// Directories to scan.
    pub(super) directories: BTreeSet<PathBuf>,
    /// Files to scan, by the directory that they lie in.
    pub(super) files: BTreeMap<PathBuf, BTreeSet<OsString>>,
    /// What was asked for and is not there.
    pub(super) missing: BTreeSet<PathBuf>,
    /// The directory of the index, and the names of the index files in it.
    own_files: Option<(PathBuf, Vec<OsString>)>,
    /// The storage directory.
    own_storage: Option<PathBuf>,
}

impl ScanRoots {
    pub(super) fn find(paths: &[PathBuf], options: &Options) -> Result<Self, Error> {
        let mut roots = Self {
            directories: BTreeSet::new(),
            files: BTreeMap::new(),
            missing: BTreeSet::new(),
            own_files: index_files(&options.index),
            own_storage: options.storage.canonicalize().ok(),
        };
        for path in paths {
            let failed = |source| Error::Path { path: path.clone(), source };
            let found = match path.canonicalize() {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if options.vanished != Vanished::PruneEmptied {
                        return Err(Error::Missing { path: path.clone() });
                    }
                    roots.missing.insert(as_if_there(path).map_err(failed)?);
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            // A DICOMDIR stands for its folder: what it lists is not all that matters there.
            let found = match (found.file_name(), found.parent()) {
                (Some(name), Some(folder)) if dicomdir::is_named_so(name) && found.is_file() => folder.to_owned(),
                _ => found,
            };
            if roots.own_storage.as_ref().is_some_and(|own| found.starts_with(own)) {
                return Err(Error::OwnStorage { path: path.clone() });
            }
            match (found.is_dir(), found.parent(), found.file_name()) {
                (false, Some(parent), Some(name)) => {
                    roots.files.entry(parent.to_owned()).or_default().insert(name.to_owned());
                }
                _ => {
                    // A root that cannot be listed is no failed directory in an archive: nothing can be done at all.
                    found.read_dir().map_err(failed)?;
                    roots.directories.insert(found);
                }
            }
        }
        Ok(roots)
    }

    /// The directories to look into, sorted, each once.
    pub(super) fn roots_in_order(&self) -> BTreeSet<&Path> {
        self.directories.iter().map(PathBuf::as_path).chain(self.files.keys().map(PathBuf::as_path)).collect()
    }

    /// Everything that was asked for, sorted.
    pub(super) fn asked_for(&self) -> Vec<PathBuf> {
        let files = self.files.iter().flat_map(|(parent, names)| names.iter().map(|name| parent.join(name)));
        let mut all: Vec<_> = self.directories.iter().chain(&self.missing).cloned().chain(files).collect();
        all.sort();
        all
    }

    /// Whether a file that the walk meets in `directory` is ours.
    pub(super) fn is_own_file(&self, directory: &Path, name: &OsStr) -> bool {
        match &self.own_files {
            Some((own, names)) => own == directory && names.iter().any(|own| own == name),
            None => false,
        }
    }

    /// Whether a directory that the walk meets is the node's storage.
    pub(super) fn is_own_storage(&self, directory: &Path) -> bool {
        self.own_storage.as_deref() == Some(directory)
    }

    /// Whether something that the walk meets is a root itself, and gets its own turn.
    pub(super) fn is_root_directory(&self, directory: &Path) -> bool {
        // Nearly every scan has one root.
        self.directories.len() > 1 && self.directories.contains(directory)
    }

    /// The names in `directory` that were asked for as files, and get their own turn.
    pub(super) fn root_files(&self, directory: &Path) -> Option<&BTreeSet<OsString>> {
        self.files.get(directory)
    }
}

/// The absolute path of something that is not there: what there is above it, without links, and the rest as given.
fn as_if_there(path: &Path) -> io::Result<PathBuf> {
    let whole = std::path::absolute(path)?;
    for above in whole.ancestors() {
        if let (Ok(found), Ok(rest)) = (above.canonicalize(), whole.strip_prefix(above)) {
            return Ok(found.join(rest));
        }
    }
    Ok(whole)
}

fn index_files(index: &Path) -> Option<(PathBuf, Vec<OsString>)> {
    let name = index.file_name()?;
    let directory = index.parent()?.canonicalize().ok()?;
    let names = ["", "-wal", "-shm", "-journal", "-turn"]
        .iter()
        .map(|suffix| {
            let mut own = name.to_owned();
            own.push(suffix);
            own
        })
        .collect();
    Some((directory, names))
}
