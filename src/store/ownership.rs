//! Links a storage directory to the index that knows its objects.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use super::{Error, Objects};
use crate::files::{FILE_MODE, replace};
use crate::model::location::STORAGE_ID;
use crate::model::uid::is_valid_uid;

/// The file that holds the id of the index.
const INDEX_ID: &str = ".index";

/// Maximum bytes of an id.
const LONGEST_ID: u64 = 128;

/// Returns the id of the index that knows the objects of a storage directory. `None` if no id was
/// written.
///
/// # Errors
/// If the file with the id cannot be read.
pub fn index_id_in(storage: &Path) -> Result<Option<String>, Error> {
    id_in(storage, INDEX_ID)
}

/// Returns the id of a storage directory itself. `None` if it has none yet.
///
/// # Errors
/// If the file with the id cannot be read.
pub fn storage_id_in(storage: &Path) -> Result<Option<String>, Error> {
    id_in(storage, STORAGE_ID)
}

fn id_in(storage: &Path, name: &str) -> Result<Option<String>, Error> {
    let path = storage.join(name);
    let mut id = String::new();
    match File::open(&path).and_then(|file| file.take(LONGEST_ID).read_to_string(&mut id)) {
        Ok(_) => Ok(Some(id.trim().to_owned()).filter(|id| !id.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Unusable { path, source }),
    }
}

/// Whether a storage directory holds objects, or directories that held some.
///
/// # Errors
/// If the storage directory exists and cannot be listed.
pub fn has_objects_in(storage: &Path) -> Result<bool, Error> {
    let unusable = |source| Error::Unusable { path: storage.to_owned(), source };
    let entries = match fs::read_dir(storage) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries.map_err(unusable)?,
    };
    for entry in entries {
        let entry = entry.map_err(unusable)?;
        let name = entry.file_name();
        // Other entries are the node's own files, and `lost+found` at the root of a file system.
        if name.to_str().is_some_and(is_name_of_a_study) && entry.file_type().map_err(unusable)?.is_dir() {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Objects {
    /// Like [`index_id_in`], of this storage directory.
    ///
    /// # Errors
    /// If the file with the id cannot be read.
    pub fn index_id(&self) -> Result<Option<String>, Error> {
        index_id_in(self.root())
    }

    /// Writes the id of the index that knows the objects.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set_index_id(&self, id: &str) -> Result<(), Error> {
        self.set_id(INDEX_ID, id)
    }

    /// Writes the id of the storage directory itself.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set_storage_id(&self, id: &str) -> Result<(), Error> {
        self.set_id(STORAGE_ID, id)
    }

    fn set_id(&self, name: &str, id: &str) -> Result<(), Error> {
        let path = self.root().join(name);
        // A start that is killed leaves the old id or the new one, and never none.
        replace(&path, FILE_MODE, format!("{id}\n").as_bytes())
            .map_err(|source| Error::Unusable { path: path.clone(), source })
    }
}

/// Whether a name is one that the node gives to the directory of a study: a UID, or the hash of an
/// invalid UID.
fn is_name_of_a_study(name: &str) -> bool {
    let is_hash = |name: &str| {
        name.strip_prefix('x').is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    is_valid_uid(name) || is_hash(name)
}
