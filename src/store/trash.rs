//! Removed objects, which wait in the storage directory until somebody wants them back or nobody
//! can any more.
//!
//! The objects of a removal lie in a directory of their own, named by its time, with the paths that
//! they had. A file beside them lists what was removed, for an index that is built anew.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::Error;
use super::compare::COMPARED_AT_A_TIME;
use crate::files::{
    FILE_MODE, UnfinishedFile, make_directory, remove_if_there, rename_without_replacing, sync_directory,
};
use crate::model::calendar::moment_text;

/// Directory of the trash, below the storage directory.
const TRASH: &str = ".trash";

/// The list of what a removal removed: one UID for each line, after a line with its time.
const LIST: &str = "removed.txt";

/// Marks a removal whose objects do not wait in the trash. It holds the time of the removal.
const FOR_GOOD: &str = "for-good.txt";

/// Directory with the list of what was received again while its file lay in its place.
const AGAIN: &str = "received-again";

/// Name of that list, with a time and a UID in each line.
const AGAIN_LIST: &str = "received.txt";

/// Directory with the list of removals that were undone.
const UNDONE: &str = "undone";

/// Name of that list, with the time of a removal in each line.
const UNDONE_LIST: &str = "undone.txt";

/// Directory with the objects of a removal.
const OBJECTS: &str = "objects";

/// Longest line of a list. A UID has 64 characters.
const LONGEST_LINE: usize = 4096;

/// The trash of a storage directory.
#[derive(Clone, Debug)]
pub struct Trash {
    /// The storage directory.
    root: PathBuf,
}

impl Trash {
    /// The trash below a storage directory.
    #[must_use]
    pub fn below(storage: &Path) -> Self {
        Self { root: storage.to_owned() }
    }

    /// The directory of a removal.
    #[must_use]
    pub fn directory(&self, begun_ms: i64) -> PathBuf {
        let moment = moment_text(begun_ms).replace(['-', ':'], "").replace('Z', "");
        self.root.join(TRASH).join(format!("{moment}.{:03}Z", begun_ms.rem_euclid(1000)))
    }

    /// The directory with the objects of a removal. They have the paths there that they had below
    /// the storage directory.
    #[must_use]
    pub fn objects(&self, begun_ms: i64) -> PathBuf {
        self.directory(begun_ms).join(OBJECTS)
    }

    /// The path of an object in the trash. `None` if it does not lie in the storage directory.
    fn inside(&self, begun_ms: i64, object: &Path) -> Option<PathBuf> {
        let below = object.strip_prefix(&self.root).ok()?;
        Some(self.objects(begun_ms).join(below))
    }

    /// Moves an object to the trash. Returns whether it is there now. It is no error if it is gone.
    ///
    /// # Errors
    /// If it cannot be moved.
    pub fn put(&self, begun_ms: i64, object: &Path) -> io::Result<bool> {
        let Some(to) = self.inside(begun_ms, object) else { return Ok(false) };
        match fs::symlink_metadata(object) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return to.try_exists(),
            Err(error) => return Err(error),
        }
        if let Some(directory) = to.parent() {
            make_directory(directory)?;
        }
        move_file(object, &to)?;
        Ok(true)
    }

    /// Moves an object back to its place. Returns whether there is an object there now. What has
    /// the place already stays.
    ///
    /// # Errors
    /// If it cannot be moved.
    pub fn take_back(&self, begun_ms: i64, object: &Path) -> io::Result<bool> {
        let Some(from) = self.inside(begun_ms, object) else { return Ok(false) };
        if fs::symlink_metadata(object).is_ok() {
            if from.exists() && is_same(&from, object)? {
                // It was received again, and nobody needs it twice.
                fs::remove_file(&from)?;
            }
            return Ok(true);
        }
        match fs::symlink_metadata(&from) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        if let Some(directory) = object.parent() {
            make_directory(directory)?;
        }
        match move_without_replacing(&from, object) {
            // The node has received it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(true),
            Err(error) => Err(error),
            Ok(()) => {
                if let Some(directory) = object.parent() {
                    sync_directory(directory)?;
                }
                Ok(true)
            }
        }
    }

    /// Writes the list of what a removal removed. `each` calls its argument for each UID.
    ///
    /// # Errors
    /// If it cannot be written, or `each` fails.
    pub fn write_list<E: From<io::Error>>(
        &self,
        begun_ms: i64,
        each: impl FnOnce(&mut dyn FnMut(&str) -> io::Result<()>) -> Result<(), E>,
    ) -> Result<(), E> {
        let directory = self.directory(begun_ms);
        make_directory(&directory)?;
        let part = directory.join(format!(".{LIST}"));
        let mut list = BufWriter::new(UnfinishedFile::under(part, &directory.join(LIST), FILE_MODE)?);
        writeln!(list, "{begun_ms}")?;
        each(&mut |uid| writeln!(list, "{uid}"))?;
        Ok(list.into_inner().map_err(io::IntoInnerError::into_error)?.finish()?)
    }

    /// Whether the list of a removal was written.
    #[must_use]
    pub fn has_list(&self, begun_ms: i64) -> bool {
        self.directory(begun_ms).join(LIST).exists()
    }

    /// Reads the lists of all removals: when each began, and what it removed.
    ///
    /// # Errors
    /// If the trash cannot be read.
    pub fn read_lists(&self, mut on_uid: impl FnMut(i64, String)) -> io::Result<()> {
        for directory in self.directories()? {
            let file = match File::open(directory.join(LIST)) {
                Ok(file) => file,
                // A removal that was undone, or whose list was never written.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let mut begun_ms = None;
            for line in BufReader::new(file).lines() {
                let line = line?;
                match begun_ms {
                    None => match line.parse::<i64>() {
                        Ok(begun) => begun_ms = Some(begun),
                        Err(_) => break,
                    },
                    Some(begun) if !line.is_empty() && line.len() <= LONGEST_LINE => on_uid(begun, line),
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Notes durably that an object was received whose file lay in its place already. If it was
    /// removed before, the time of its file does not tell that it came again. Without a trash there
    /// was no removal, and nothing happens.
    ///
    /// # Errors
    /// If the note cannot be written.
    pub fn note_received_again(&self, now_ms: i64, sop_instance_uid: &str) -> Result<(), Error> {
        let noted = self.append(AGAIN, AGAIN_LIST, &format!("{now_ms} {sop_instance_uid}\n"));
        noted.map_err(Error::object("noted as received again"))
    }

    /// Adds a line to a list of the trash, durably. Without a trash nothing happens.
    fn append(&self, directory: &str, list: &str, line: &str) -> io::Result<()> {
        if !self.root.join(TRASH).try_exists()? {
            return Ok(());
        }
        let directory = self.root.join(TRASH).join(directory);
        make_directory(&directory)?;
        let mut list = OpenOptions::new().create(true).append(true).mode(FILE_MODE).open(directory.join(list))?;
        list.write_all(line.as_bytes())?;
        list.sync_all()?;
        sync_directory(&directory)?;
        sync_directory(&self.root.join(TRASH))
    }

    /// Reads when each of those objects was last received.
    ///
    /// # Errors
    /// If the list cannot be read.
    pub fn received_again(&self) -> io::Result<HashMap<String, i64>> {
        let mut again = HashMap::new();
        for line in self.lines(AGAIN, AGAIN_LIST)? {
            if let Some((at_ms, uid)) = line.split_once(' ')
                && let Ok(at_ms) = at_ms.parse::<i64>()
            {
                again.insert(uid.to_owned(), at_ms);
            }
        }
        Ok(again)
    }

    /// Reads when the removals began that were undone. An index of before does not know it.
    ///
    /// # Errors
    /// If the list cannot be read.
    pub fn undone(&self) -> io::Result<HashSet<i64>> {
        Ok(self.lines(UNDONE, UNDONE_LIST)?.iter().filter_map(|line| line.parse().ok()).collect())
    }

    /// The lines of a list of the trash.
    fn lines(&self, directory: &str, list: &str) -> io::Result<Vec<String>> {
        match File::open(self.root.join(TRASH).join(directory).join(list)) {
            Ok(file) => BufReader::new(file).lines().collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Notes durably that the objects of a removal are to be deleted, and not kept.
    ///
    /// # Errors
    /// If the note cannot be written.
    pub fn mark_for_good(&self, begun_ms: i64) -> io::Result<()> {
        let directory = self.directory(begun_ms);
        make_directory(&directory)?;
        let part = directory.join(format!(".{FOR_GOOD}"));
        let mut mark = UnfinishedFile::under(part, &directory.join(FOR_GOOD), FILE_MODE)?;
        writeln!(mark, "{begun_ms}")?;
        mark.finish()?;
        sync_directory(&self.root.join(TRASH))
    }

    /// Whether the objects of a removal are to be deleted, and not kept.
    #[must_use]
    pub fn is_for_good(&self, begun_ms: i64) -> bool {
        self.directory(begun_ms).join(FOR_GOOD).exists()
    }

    /// When the removals began whose objects are in the trash and are to be deleted.
    ///
    /// # Errors
    /// If the trash cannot be read.
    pub fn due_for_good(&self) -> io::Result<Vec<i64>> {
        let mut due = Vec::new();
        for directory in self.directories()? {
            if !directory.join(OBJECTS).exists() {
                continue;
            }
            match fs::read_to_string(directory.join(FOR_GOOD)) {
                Ok(text) => due.extend(text.trim().parse::<i64>()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(due)
    }

    /// The directories of all removals.
    fn directories(&self) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(self.root.join(TRASH)) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Deletes the objects of a removal for good. Its list stays.
    ///
    /// # Errors
    /// If one cannot be deleted.
    pub fn empty(&self, begun_ms: i64) -> io::Result<()> {
        match fs::remove_dir_all(self.objects(begun_ms)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Deletes what is left of a removal that was undone, and notes that for an index of before.
    ///
    /// # Errors
    /// If it cannot be noted, or its list cannot be deleted. Objects that could not be brought back
    /// stay.
    pub fn forget(&self, begun_ms: i64) -> io::Result<()> {
        self.append(UNDONE, UNDONE_LIST, &format!("{begun_ms}\n"))?;
        let directory = self.directory(begun_ms);
        remove_if_there(&directory.join(LIST))?;
        remove_if_there(&directory.join(FOR_GOOD))?;
        remove_empty_directories(&directory);
        Ok(())
    }
}

/// Removes a directory and those in it, as far as they hold nothing.
fn remove_empty_directories(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty_directories(&entry.path());
        }
    }
    let _holds_something = fs::remove_dir(directory);
}

/// Whether two files have the same bytes.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; COMPARED_AT_A_TIME], vec![0; COMPARED_AT_A_TIME]);
    loop {
        let read = one.read(&mut a)?;
        let (Some(a), Some(b)) = (a.get(..read), b.get_mut(..read)) else { return Ok(false) };
        other.read_exact(b)?;
        if a != b {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
    }
}

/// Moves a file, also to another file system.
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy(from, to)?;
            fs::remove_file(from)
        }
        moved => moved,
    }
}

fn move_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    match rename_without_replacing(from, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Another file system, or one without hard links.
        Err(_) => {
            copy(from, to)?;
            fs::remove_file(from)
        }
    }
}

/// Copies a file with its time. The new name appears when the copy is complete and durable.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(to.file_name().unwrap_or_default());
    let part = to.with_file_name(name);
    let mut source = File::open(from)?;
    let mut file = UnfinishedFile::under(part, to, FILE_MODE)?;
    io::copy(&mut source, &mut file)?;
    file.file().set_modified(source.metadata()?.modified()?)?;
    file.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_goes_and_comes_back_with_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let object = root.join("1.2/1.2.3/1.2.3.4.dcm");
        fs::create_dir_all(object.parent().unwrap()).unwrap();
        fs::write(&object, "object").unwrap();
        let time = fs::metadata(&object).unwrap().modified().unwrap();
        let trash = Trash::below(root);
        assert!(trash.put(0, &object).unwrap());
        assert!(trash.put(0, &object).unwrap(), "it is there already");
        assert!(!trash.put(0, &root.join("1.2/1.2.3/1.2.3.5.dcm")).unwrap(), "there is no such object");
        assert!(!object.exists());
        assert!(root.join(".trash/19700101T000000.000Z/objects/1.2/1.2.3/1.2.3.4.dcm").exists());
        assert!(trash.take_back(0, &object).unwrap());
        assert_eq!(fs::metadata(&object).unwrap().modified().unwrap(), time);
        // What is there stays.
        trash.put(0, &object).unwrap();
        fs::write(&object, "another").unwrap();
        assert!(trash.take_back(0, &object).unwrap());
        assert_eq!(fs::read_to_string(&object).unwrap(), "another");
        trash.empty(0).unwrap();
        fs::remove_file(&object).unwrap();
        assert!(!trash.take_back(0, &object).unwrap());
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let trash = Trash::below(directory.path());
        let read = || {
            let mut read = Vec::new();
            trash.read_lists(|begun, uid| read.push((begun, uid))).unwrap();
            read
        };
        assert!(read().is_empty());
        trash.write_list::<io::Error>(42, |each| ["1.2", "1.3"].iter().try_for_each(|uid| each(uid))).unwrap();
        assert_eq!(read(), [(42, "1.2".to_owned()), (42, "1.3".to_owned())]);
        assert!(trash.undone().unwrap().is_empty());
        trash.forget(42).unwrap();
        assert!(read().is_empty());
        assert_eq!(trash.undone().unwrap(), [42].into());
    }
}
