//! The paths that a scan starts from, and the node's own files that it must skip.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use super::dicomdir;
use super::skip;
use super::{Error, Options, Vanished};
use crate::db::is_reserved;

/// The roots of a scan. All paths are absolute and without symbolic links.
#[derive(Clone, Debug)]
pub(super) struct ScanRoots {
    /// Directories to scan.
    pub(super) directories: BTreeSet<PathBuf>,
    /// Files to scan, by their directory.
    pub(super) files: BTreeMap<PathBuf, BTreeSet<OsString>>,
    /// Paths that the caller named and that do not exist.
    pub(super) missing: BTreeSet<PathBuf>,
    /// The directory of the index, and the names of the index files in it.
    own_files: Option<(PathBuf, Vec<OsString>)>,
    /// The storage directory.
    own_storage: Option<PathBuf>,
    /// Directories that the roots are parts of. Globs apply to paths below them.
    bases: Vec<PathBuf>,
}

impl ScanRoots {
    pub(super) fn find(paths: &[PathBuf], options: &Options) -> Result<Self, Error> {
        let mut roots = Self {
            directories: BTreeSet::new(),
            files: BTreeMap::new(),
            missing: BTreeSet::new(),
            own_files: index_files(&options.index),
            own_storage: options.storage.canonicalize().ok(),
            bases: Vec::new(),
        };
        for path in paths {
            let failed = |source| Error::Path { path: path.clone(), source };
            let found = match path.canonicalize() {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if options.vanished != Vanished::PruneEmptied {
                        return Err(Error::Missing { path: path.clone() });
                    }
                    let missing = as_if_there(path).map_err(failed)?;
                    if is_reserved(&missing) {
                        return Err(Error::Reserved { path: path.clone() });
                    }
                    roots.missing.insert(missing);
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            if is_reserved(&found) {
                return Err(Error::Reserved { path: path.clone() });
            }
            // A DICOMDIR means its whole folder, because the folder may hold files that it does not
            // list.
            let found = match (found.file_name(), found.parent()) {
                (Some(name), Some(folder)) if dicomdir::is_named_so(name) && found.is_file() => folder.to_owned(),
                _ => found,
            };
            if roots.own_storage.as_ref().is_some_and(|own| found.starts_with(own)) {
                return Err(Error::OwnStorage { path: path.clone() });
            }
            match (found.is_dir(), found.parent(), found.file_name()) {
                (false, Some(parent), Some(name)) => {
                    let is_own = |(directory, names): &(PathBuf, Vec<OsString>)| {
                        directory == parent && names.iter().any(|own| own == name)
                    };
                    if roots.own_files.as_ref().is_some_and(is_own) {
                        return Err(Error::OwnIndex { path: path.clone() });
                    }
                    roots.files.entry(parent.to_owned()).or_default().insert(name.to_owned());
                }
                _ => {
                    // If a root cannot be listed, the scan fails. Elsewhere, such a directory is
                    // only one failed entry.
                    found.read_dir().map_err(failed)?;
                    roots.directories.insert(found);
                }
            }
        }
        Ok(roots)
    }

    /// Finds what has changed in or below `bases`. Paths that are gone or excluded are left out.
    pub(super) fn changed(paths: &[PathBuf], bases: &[PathBuf], options: &Options) -> Result<Option<Self>, Error> {
        let bases: Vec<PathBuf> = bases.iter().filter_map(|base| base.canonicalize().ok()).collect();
        let own = Self::find(&[], options)?;
        let wanted: Vec<PathBuf> = paths.iter().filter(|path| own.is_wanted(path, &bases, options)).cloned().collect();
        let roots = Self { bases, ..Self::find(&wanted, options)? };
        Ok((!wanted.is_empty()).then_some(roots))
    }

    /// Whether a scan of the bases looks at a path.
    fn is_wanted(&self, path: &Path, bases: &[PathBuf], options: &Options) -> bool {
        let (Ok(found), Some(parent), Some(name)) = (path.symlink_metadata(), path.parent(), path.file_name()) else {
            return false;
        };
        let Some(base) = bases.iter().find(|base| path.starts_with(base)) else { return false };
        let inside = |path: &Path| path.strip_prefix(base).map(Path::to_owned).unwrap_or_default();
        if self.own_storage.as_ref().is_some_and(|own| path.starts_with(own)) || self.is_own_file(parent, name) {
            return false;
        }
        // A link to a directory is not followed, and one that is broken is reported by a full scan.
        let is_link = found.is_symlink();
        if is_link && !path.is_file() {
            return false;
        }
        match found.is_dir() {
            true => skip::directory(name).is_none() && !options.filter.excludes_directory(&inside(path)),
            false => {
                let standing = options.filter.directory(&inside(parent));
                skip::file(name).is_none() && !options.filter.excludes_file(standing, &inside(path))
            }
        }
    }

    /// Whether these are whole paths, and not what has changed in them.
    pub(super) fn is_whole(&self) -> bool {
        self.bases.is_empty()
    }

    /// The directory below which globs apply to the paths of a root.
    pub(super) fn base_of<'a>(&'a self, root: &'a Path) -> &'a Path {
        self.bases.iter().find(|base| root.starts_with(base)).map_or(root, PathBuf::as_path)
    }

    /// The directories to visit, sorted, each once.
    pub(super) fn roots_in_order(&self) -> BTreeSet<&Path> {
        self.directories.iter().map(PathBuf::as_path).chain(self.files.keys().map(PathBuf::as_path)).collect()
    }

    /// All paths that the caller named, sorted.
    pub(super) fn asked_for(&self) -> Vec<PathBuf> {
        let files = self.files.iter().flat_map(|(parent, names)| names.iter().map(|name| parent.join(name)));
        let mut all: Vec<_> = self.directories.iter().chain(&self.missing).cloned().chain(files).collect();
        all.sort();
        all
    }

    /// Whether a file in `directory` belongs to the index.
    pub(super) fn is_own_file(&self, directory: &Path, name: &OsStr) -> bool {
        match &self.own_files {
            Some((own, names)) => own == directory && names.iter().any(|own| own == name),
            None => false,
        }
    }

    /// Whether a directory is the storage directory of the node.
    pub(super) fn is_own_storage(&self, directory: &Path) -> bool {
        self.own_storage.as_deref() == Some(directory)
    }

    /// Whether a directory is itself a root. The walk scans it on its own.
    pub(super) fn is_root_directory(&self, directory: &Path) -> bool {
        // Most scans have one root.
        self.directories.len() > 1 && self.directories.contains(directory)
    }

    /// The names in `directory` that are roots themselves. The walk scans them on their own.
    pub(super) fn root_files(&self, directory: &Path) -> Option<&BTreeSet<OsString>> {
        self.files.get(directory)
    }
}

/// The absolute path of something that does not exist. Symbolic links are resolved in the part of
/// the path that exists.
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
