//! The names of objects: in their places, and in `.incoming/` until they have one.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use crate::model::uid::is_valid_uid;
use crate::store::Error;

/// Maximum file names to try for one instance. If it has so many different data sets, something is
/// wrong elsewhere.
pub(super) const MAX_NAMES: u32 = 100;

/// A file of `.incoming/` that also has its final link. The process ended before it removed the
/// incoming link. Only the index knows whether the sender was told that the object is stored.
#[derive(Debug)]
pub(super) struct LeftOver {
    pub(super) temporary: PathBuf,
    pub(super) placed: PathBuf,
    /// All names that objects of this instance may have.
    pub(super) names: Vec<PathBuf>,
}

/// The name in `.incoming/` of an object that is about to get its place. [`placed_name`] parses it.
/// Each part has at most 64 characters.
pub(super) fn incoming_name(number: u64, study: &str, series: &str, stem: &str) -> String {
    format!("{number},{study},{series},{stem}")
}

/// Lists what a killed process left in `.incoming/`. It removes files that have no other link. It
/// skips what it cannot remove, such as a directory that somebody created there.
pub(super) fn left_over(root: &Path, incoming: &Path) -> Result<Vec<LeftOver>, Error> {
    let unusable = |source| Error::Unusable { path: incoming.to_owned(), source };
    let (mut left_over, mut stuck) = (Vec::new(), 0_u64);
    for entry in fs::read_dir(incoming).map_err(unusable)? {
        let path = entry.map_err(unusable)?.path();
        match placed_name(root, &path).map_err(unusable)? {
            Some((placed, names)) => left_over.push(LeftOver { temporary: path, placed, names }),
            None => stuck += u64::from(fs::remove_file(&path).is_err()),
        }
    }
    if stuck > 0 {
        tracing::warn!(
            entries = stuck,
            directory = %incoming.display(),
            "the node skips entries that are not half received objects or cannot be removed"
        );
    }
    Ok(left_over)
}

/// The final path of a file of `.incoming/`, if it has one, and all paths that the instance may
/// have. It parses the [`incoming_name`] and compares the inodes.
fn placed_name(root: &Path, temporary: &Path) -> io::Result<Option<(PathBuf, Vec<PathBuf>)>> {
    let metadata = fs::symlink_metadata(temporary)?;
    if metadata.nlink() < 2 {
        return Ok(None);
    }
    let name = temporary.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let [_, study, series, stem] = name.split(',').collect::<Vec<_>>()[..] else { return Ok(None) };
    let directory = root.join(study).join(series);
    // There may be gaps, left by objects that were discarded or replaced.
    let names: Vec<_> = (0..MAX_NAMES).map(|number| directory.join(file_name(stem, number))).collect();
    for path in &names {
        match fs::symlink_metadata(path) {
            Ok(other) if (other.dev(), other.ino()) == (metadata.dev(), metadata.ino()) => {
                return Ok(Some((path.clone(), names)));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The file or directory name for a UID. A UID that follows PS3.5 9.1 is its own name, since it
/// holds only digits and single full stops between them. For any other UID the name is a hash.
pub(super) fn component(uid: &str) -> String {
    if is_valid_uid(uid) { uid.to_owned() } else { format!("x{:032x}", xxh3_128(uid.as_bytes())) }
}

/// Returns what all names of objects of an instance begin with: its UID, or the hash of a UID that
/// breaks the rules. `None` if the name is that of no object.
#[must_use]
pub fn stem_of(name: &OsStr) -> Option<&str> {
    name.to_str()?.strip_suffix(".dcm")?.split('-').next()
}

/// Returns the other names that objects of the instance of this file may have.
pub fn other_names(name: &OsStr) -> impl Iterator<Item = OsString> {
    let stem = stem_of(name).unwrap_or_default().to_owned();
    (0..MAX_NAMES).map(move |number| file_name(&stem, number)).filter(move |other| other != name)
}

/// The name of the file. Further data sets of an instance get a number after a hyphen, which no UID
/// has.
pub(super) fn file_name(stem: &str, number: u32) -> OsString {
    match number {
        0 => format!("{stem}.dcm").into(),
        number => format!("{stem}-{number}.dcm").into(),
    }
}
