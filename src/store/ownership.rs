//! Whose the storage directory is: the index that knows its objects, and nobody else on this machine.

use crate::store::modes::FILE_MODE;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use super::{Error, Objects};
use crate::model::uid::is_valid_uid;

/// The file that holds the id of the index.
const INDEX_ID: &str = ".index";

/// The longest id that is read.
const LONGEST_ID: u64 = 128;

impl Objects {
    /// The id of the index that knows the objects; `None` where none was noted.
    ///
    /// # Errors
    /// When the note cannot be read.
    pub fn index_id(&self) -> Result<Option<String>, Error> {
        let path = self.root().join(INDEX_ID);
        let mut id = String::new();
        match File::open(&path).and_then(|file| file.take(LONGEST_ID).read_to_string(&mut id)) {
            Ok(_) => Ok(Some(id.trim().to_owned()).filter(|id| !id.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Unusable { path, source }),
        }
    }

    /// Notes the id of the index that knows the objects.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_index_id(&self, id: &str) -> Result<(), Error> {
        let path = self.root().join(INDEX_ID);
        let write = || {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(FILE_MODE).open(&path)?;
            file.write_all(format!("{id}\n").as_bytes())?;
            file.sync_all()?;
            File::open(self.root())?.sync_all()
        };
        write().map_err(|source| Error::Unusable { path: path.clone(), source })
    }

    /// Whether there are objects, or directories that had some.
    ///
    /// # Errors
    /// When the storage directory cannot be listed.
    pub fn has_objects(&self) -> Result<bool, Error> {
        let unusable = |source| Error::Unusable { path: self.root().to_owned(), source };
        for entry in fs::read_dir(self.root()).map_err(unusable)? {
            let entry = entry.map_err(unusable)?;
            let name = entry.file_name();
            // What else may lie there: our own files, and `lost+found` at the root of a file system.
            if name.to_str().is_some_and(is_name_of_a_study) && entry.file_type().map_err(unusable)?.is_dir() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a directory has a name that we give those of studies: a UID, or the hash of what is none.
fn is_name_of_a_study(name: &str) -> bool {
    let is_hash = |name: &str| {
        name.strip_prefix('x').is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    is_valid_uid(name) || is_hash(name)
}
