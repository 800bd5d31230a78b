//! The files of an index, and whether they are still those that were opened.

use std::path::{Path, PathBuf};

use super::index_path::files_of;
use crate::db::Error;
use crate::db::engine::IndexReader;
use crate::db::federated::Federation;
use crate::db::sqlite::{DatabaseFiles, note_of};

/// The files that an index was opened with: see [`DatabaseFiles`].
#[derive(Clone, Debug)]
pub struct IndexFiles {
    index: PathBuf,
    is_folder: bool,
    files: Vec<IndexFile>,
}

/// One of them.
#[derive(Clone, Debug)]
struct IndexFile {
    path: PathBuf,
    files: DatabaseFiles,
    /// File that is beside it if it is frozen, and whether it was frozen.
    note: PathBuf,
    is_frozen: bool,
}

impl IndexFile {
    fn of(path: PathBuf) -> Self {
        let (files, note) = (DatabaseFiles::of(&path), note_of(&path));
        Self { is_frozen: note.exists(), path, files, note }
    }

    /// Whether it is frozen, or not, as it was. A frozen file may be thawed, written, and frozen
    /// again, while readers have what it was.
    fn is_as_opened(&self) -> bool {
        self.note.exists() == self.is_frozen && (!self.is_frozen || self.files.check_database().is_ok())
    }
}

impl IndexFiles {
    /// Bytes of the files of an index and their write-ahead logs. A file that is missing counts as
    /// empty.
    #[must_use]
    pub fn bytes(index: &Path) -> u64 {
        files_of(index).unwrap_or_default().iter().map(|file| DatabaseFiles::bytes(file)).sum()
    }

    /// Identifies the files of this index as they are now.
    #[must_use]
    pub fn of(index: &Path) -> Self {
        let paths = files_of(index).unwrap_or_else(|_| vec![index.to_owned()]);
        let files = paths.into_iter().map(IndexFile::of).collect();
        Self { index: index.to_owned(), is_folder: index.is_dir(), files }
    }

    /// Whether the folder has the same files as then. An index of one file always has.
    #[must_use]
    pub fn are_all(&self) -> bool {
        let has_same = || files_of(&self.index).is_ok_and(|now| self.paths().eq(now.iter().map(PathBuf::as_path)));
        !self.is_folder || has_same() && self.files.iter().all(IndexFile::is_as_opened)
    }

    /// Whether a reader has opened files of just these names.
    #[must_use]
    pub fn are_those_of(&self, reader: &Federation<IndexReader>) -> bool {
        !self.is_folder || self.paths().eq(reader.files().iter().map(PathBuf::as_path))
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Checks that the same files still have these names.
    ///
    /// # Errors
    /// See [`DatabaseFiles::check`].
    pub fn check(&self) -> Result<(), Error> {
        self.files.iter().try_for_each(|file| file.files.check())
    }

    /// Checks that the databases still have their names.
    ///
    /// # Errors
    /// See [`DatabaseFiles::check_database`].
    pub fn check_database(&self) -> Result<(), Error> {
        self.files.iter().try_for_each(|file| file.files.check_database())
    }
}
