//! Target of the path of an index: a file, a folder of files, or a database.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::db::Error;
use crate::db::federated::MAIN_FILE;
use crate::db::postgres::{PostgresAddress, is_address};
use crate::db::sqlite;
use crate::files::parent_of;

/// The files of an index: the path itself, or the index files of a folder with the main file first.
/// An index in a database has none here.
///
/// # Errors
/// [`Error::IsADirectory`] if the folder has no index file.
pub fn files_of(index: &Path) -> Result<Vec<PathBuf>, Error> {
    if is_on_server(index) {
        return Ok(Vec::new());
    }
    if !index.is_dir() {
        return Ok(vec![index.to_owned()]);
    }
    let failed = |source| Error::Io { path: index.to_owned(), source };
    let (mut files, mut left_over) = (Vec::new(), BTreeSet::new());
    for entry in index.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if is_named_as_index(&path) {
            // A link that leads nowhere is there too: its disk is not mounted.
            if path.is_file() || (path.is_symlink() && !path.exists()) {
                files.push(path);
            }
        } else if let Some(database) = sqlite::database_of(&path).filter(|database| is_named_as_index(database)) {
            left_over.insert(database);
        }
    }
    // Whoever opens it hears that it is gone. Its log has what was acknowledged.
    files.extend(left_over.into_iter().filter(|path| !path.is_symlink() && sqlite::is_gone_with_commits(path)));
    files.sort_by_key(|path| place_in_folder(path));
    if files.is_empty() {
        return Err(Error::IsADirectory { path: index.to_owned() });
    }
    Ok(files)
}

/// Sort key of the files of a folder. The first one that has a study answers with its values.
#[must_use]
pub fn place_in_folder(file: &Path) -> (bool, PathBuf) {
    (file.file_name() != Some(OsStr::new(MAIN_FILE)), file.to_owned())
}

/// Whether a folder takes a file of this name for an index.
#[must_use]
pub fn is_named_as_index(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("db"))
}

pub(super) fn wants_sqlite(what: &'static str, address: &PostgresAddress) -> Error {
    Error::WantsSqlite { what, server: address.shown().to_owned() }
}

/// Whether an index is in a database, so that no file of it is on this machine.
#[must_use]
pub fn is_on_server(index: &Path) -> bool {
    index.to_str().is_some_and(is_address)
}

/// The path of an index as people are shown it. An address has no user and no parameters then.
///
/// # Errors
/// [`Error::Address`] if an address cannot be used.
pub fn shown_path(index: &Path) -> Result<PathBuf, Error> {
    Ok(PostgresAddress::of(index)?.map_or_else(|| index.to_owned(), |address| address.path()))
}

/// Whether an index exists, as far as this machine can tell.
#[must_use]
pub fn may_exist(index: &Path) -> bool {
    is_on_server(index) || index.exists()
}

/// The directory for files that a node needs beside its index.
#[must_use]
pub fn directory_beside(index: &Path) -> PathBuf {
    if !is_on_server(index) {
        return parent_of(index).to_owned();
    }
    // systemd makes this directory for a service with `StateDirectory=`.
    #[expect(clippy::disallowed_methods, reason = "where a service keeps its files is no setting of the program")]
    let of_service = std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
    of_service.unwrap_or_else(std::env::temp_dir)
}

/// The only file of an index.
///
/// # Errors
/// [`Error::SeveralFiles`] if there are several, and that of [`files_of`].
pub fn only_file_of(index: &Path, what: &'static str) -> Result<PathBuf, Error> {
    if let Some(address) = PostgresAddress::of(index)? {
        return Err(wants_sqlite(what, &address));
    }
    let mut files = files_of(index)?;
    match files.len() {
        1 => Ok(files.remove(0)),
        _ => Err(Error::SeveralFiles { what, file: files.remove(0) }),
    }
}

/// Copies an index of one file as it is at one moment, while others write it.
///
/// # Errors
/// See [`sqlite::copy_index`], and if there are several files.
pub fn copy_index(index: &Path, to: &Path) -> Result<(), Error> {
    sqlite::copy_index(&only_file_of(index, "a backup")?, to)
}
