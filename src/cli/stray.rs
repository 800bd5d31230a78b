//! Objects in the storage directory that the index lacks. An index that was restored from an older
//! backup lacks what came after it.

use std::ffi::OsString;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::db::open::Reader;
use crate::db::{self, ScanLedger};

/// Time that a start spends on the look. Larger: more of a large storage directory is seen, and the
/// start takes longer.
const LOOK_FOR: Duration = Duration::from_secs(2);

/// The directories of series below a storage directory, those of the studies that changed last
/// first.
pub(super) fn series_directories(root: &Path) -> io::Result<impl Iterator<Item = PathBuf> + use<>> {
    let changed = |entry: &DirEntry| entry.metadata().and_then(|metadata| metadata.modified());
    let mut studies: Vec<(SystemTime, PathBuf)> =
        directories(root)?.map(|entry| (changed(&entry).unwrap_or(SystemTime::UNIX_EPOCH), entry.path())).collect();
    studies.sort_by(|one, other| other.cmp(one));
    Ok(studies.into_iter().flat_map(|(_, study)| {
        // A study that is removed meanwhile has no series.
        directories(&study).into_iter().flatten().map(|entry| entry.path()).collect::<Vec<_>>()
    }))
}

/// The directories in a directory of objects. Names with a dot at the beginning are the node's own.
fn directories(path: &Path) -> io::Result<impl Iterator<Item = DirEntry>> {
    let is_meant = |entry: &DirEntry| {
        let name = entry.file_name();
        let is_own = name.as_encoded_bytes().first() == Some(&b'.') || name == "lost+found";
        !is_own && entry.file_type().is_ok_and(|kind| kind.is_dir())
    };
    Ok(fs::read_dir(path)?.flatten().filter(is_meant))
}

/// The files in the directory of a series that the index does not know.
///
/// # Errors
/// If the index cannot be asked.
pub(super) fn unknown_files(reader: &mut Reader, series: &Path) -> Result<Vec<OsString>, db::Error> {
    let known = reader.directory_files(series)?;
    let entries = fs::read_dir(series).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    Ok(files.map(|entry| entry.file_name()).filter(|name| !known.contains_key(name)).collect())
}

/// Counts the objects that the index lacks, for a limited time.
///
/// # Errors
/// If the index cannot be asked, or the storage directory cannot be listed.
pub(super) fn count_some(reader: &mut Reader, root: &Path) -> anyhow::Result<u64> {
    let begun = Instant::now();
    let mut lacking = 0;
    for series in series_directories(root)? {
        lacking += unknown_files(reader, &series)?.len() as u64;
        if begun.elapsed() > LOOK_FOR {
            break;
        }
    }
    Ok(lacking)
}
