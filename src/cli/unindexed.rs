//! Objects in the storage directory that the index lacks. An index that was restored from an older
//! backup lacks what came after it.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};

use crate::cli::reindex::{ReadObject, read};
use crate::db::open::Reader;
use crate::db::{self, KnownFile, REMOVED, RemovalSearch as _, ScanLedger};
use crate::ingest::Wanted;
use crate::model::clock::{Clock, unix_ms};
use crate::model::location::Place;
use crate::store::{Trash, stem_of};

/// Time that a start spends on the look. Larger: more of a large storage directory is seen, and the
/// start takes longer.
const SEARCH_TIME: Duration = Duration::from_secs(2);

/// Age up to which an object without a row may still be arriving, in milliseconds.
const ARRIVING_MS: i64 = 60_000;

/// Wait for the rows of objects that are arriving.
const ARRIVAL_WAIT: Duration = Duration::from_secs(1);

/// The absolute path of the storage directory. `None` if it is not there, and the index names no
/// object in it: then nothing was received yet.
///
/// # Errors
/// If it cannot be opened, or the index names objects in it.
pub(super) fn storage_to_read(reader: &mut Reader, storage: &Path) -> anyhow::Result<Option<PathBuf>> {
    match storage.canonicalize() {
        Ok(storage) => Ok(Some(storage)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let all = Path::new("/");
            if !reader.directories_below(Place::Managed, all, all, 1)?.is_empty() {
                bail!(
                    "there is no storage directory at {}, and the index names received objects: is its disk mounted? \
                     hint: --storage DIR names another one",
                    storage.display()
                );
            }
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("cannot open {}", storage.display())),
    }
}

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

/// The files in the directory of a series.
fn files_in(series: &Path) -> impl Iterator<Item = DirEntry> {
    let entries = fs::read_dir(series).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
}

/// The files in the directory of a series that the index does not know.
///
/// # Errors
/// If the index cannot be asked.
pub(super) fn unknown_files(reader: &mut Reader, series: &Path) -> Result<Vec<OsString>, db::Error> {
    let known = reader.directory_files(series)?;
    Ok(files_in(series).map(|entry| entry.file_name()).filter(|name| !known.contains_key(name)).collect())
}

/// The files in the directory of a series that a rebuild reads, with whether the index names them.
/// Those are files that the index lacks, and files with another size or time than it says. Where an
/// object replaces another, a third one may get the name of the first.
///
/// # Errors
/// If the index cannot be asked.
pub(super) fn files_to_read(
    reader: &mut Reader,
    series: &Path,
    removed: &RemovedInPlace,
) -> Result<Vec<(OsString, bool)>, db::Error> {
    let known = reader.directory_files(series)?;
    let is_as_known = |entry: &DirEntry, known: &KnownFile| {
        entry.metadata().is_ok_and(|now| (now.len(), now.modified().map_or(0, unix_ms)) == (known.size, known.mtime_ms))
    };
    let to_read = files_in(series).filter_map(|entry| match known.get(&entry.file_name()) {
        None => Some((entry.file_name(), false)),
        Some(known) if known.note.is_some() => {
            let name = entry.file_name();
            removed.may_be_received_again(known, &name).then_some((name, false))
        }
        Some(known) => (!is_as_known(&entry, known)).then(|| (entry.file_name(), true)),
    });
    Ok(to_read.collect())
}

/// Facts from index and trash about removed objects that lie in their places.
pub(super) struct RemovedInPlace {
    /// Whether there was any removal. Without one, no object is read.
    any: bool,
    received_again: HashMap<String, i64>,
    undone: HashSet<i64>,
}

impl RemovedInPlace {
    /// Reads the lists of the trash of a storage directory.
    ///
    /// # Errors
    /// If one cannot be read, or the index cannot be asked.
    pub(super) fn below(storage: &Path, reader: &mut Reader) -> anyhow::Result<Self> {
        // Removals are made in single files of a folder.
        let any = reader.files().len() <= 1 && !reader.removals()?.is_empty();
        let trash = Trash::below(storage);
        let read = || io::Result::Ok(Self { any, received_again: trash.received_again()?, undone: trash.undone()? });
        read().context("cannot read the lists in the trash")
    }

    /// Whether an operator removed an object. `removed` has when instances were removed.
    pub(super) fn has(&self, object: &ReadObject, removed: &HashMap<String, i64>) -> bool {
        object.removed_at(removed, &self.received_again).is_some_and(|begun_ms| !self.undone.contains(&begun_ms))
    }

    /// Whether the object of a removed file may have been received again after the index was saved.
    fn may_be_received_again(&self, known: &KnownFile, name: &OsStr) -> bool {
        let is_removed = known.note.as_ref().is_some_and(|note| note.reason == REMOVED);
        // The name of a UID that breaks the rules is a hash.
        is_removed && stem_of(name).is_some_and(|uid| self.received_again.contains_key(uid) || uid.starts_with('x'))
    }

    /// Drops the files whose objects are removed. An index that was restored knows removed
    /// instances, and not the files of those that it never had.
    fn drop_from(&self, names: &mut Vec<OsString>, reader: &mut Reader, series: &Path) -> Result<(), db::Error> {
        if !self.any || names.is_empty() {
            return Ok(());
        }
        let objects = names.iter().map(|name| read(Place::Managed, series, name, Wanted::index()).ok());
        let objects: Vec<Option<ReadObject>> = objects.collect();
        let uids = objects.iter().flatten().map(|object| object.sop_instance_uid().to_owned()).collect();
        let removed = reader.removed_among(uids)?;
        let mut objects = objects.into_iter();
        names.retain(|_| !objects.next().flatten().is_some_and(|object| self.has(&object, &removed)));
        Ok(())
    }
}

/// Like [`unknown_files`], without objects that are arriving, and without removed ones.
///
/// # Errors
/// If the index cannot be asked.
pub(super) fn unknown_for_good(
    reader: &mut Reader,
    series: &Path,
    removed: &RemovedInPlace,
) -> Result<Vec<OsString>, db::Error> {
    let mut unknown = unknown_after_arrivals(reader, series)?;
    if !removed.received_again.is_empty() {
        let known = reader.directory_files(series)?.into_iter();
        let again = known.filter(|(name, known)| removed.may_be_received_again(known, name));
        unknown.extend(again.map(|(name, _)| name).filter(|name| series.join(name).exists()));
    }
    removed.drop_from(&mut unknown, reader, series)?;
    Ok(unknown)
}

fn unknown_after_arrivals(reader: &mut Reader, series: &Path) -> Result<Vec<OsString>, db::Error> {
    let unknown = unknown_files(reader, series)?;
    // A node that runs gives an object its place before its row.
    let is_new = |name: &OsString| {
        let age = series.join(name).metadata().and_then(|metadata| metadata.modified());
        age.is_ok_and(|modified| Clock::System.now_ms().saturating_sub(unix_ms(modified)) < ARRIVING_MS)
    };
    if !unknown.iter().any(is_new) {
        return Ok(unknown);
    }
    std::thread::sleep(ARRIVAL_WAIT);
    unknown_files(reader, series)
}

/// Findings of a look at a storage directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Strays {
    /// Files where objects lie, which the index does not know.
    pub(super) objects: u64,
    /// Files and directories where the node puts nothing.
    pub(super) elsewhere: u64,
}

impl Strays {
    /// For an operator, with the way out.
    pub(super) fn in_words(self, storage: &Path) -> String {
        let storage = storage.display();
        let mut parts = Vec::new();
        if self.objects > 0 {
            parts.push(format!(
                "the index lacks {} files in {storage}; hint: `dcmdex check --orphans` lists them, and `dcmdex rebuild` \
                 indexes those that are objects",
                self.objects
            ));
        }
        if self.elsewhere > 0 {
            parts.push(format!(
                "{} entries of {storage} are none of the node; hint: move them elsewhere",
                self.elsewhere
            ));
        }
        parts.join("; ")
    }
}

/// Counts the objects that the index lacks, and other files, for a limited time.
///
/// # Errors
/// If the index cannot be asked, or the storage directory cannot be listed.
pub(super) fn count_some(reader: &mut Reader, root: &Path) -> anyhow::Result<Strays> {
    let begun = Instant::now();
    let mut found = Strays::default();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_own = name.as_encoded_bytes().first() == Some(&b'.') || name == "lost+found";
        found.elsewhere += u64::from(!is_own && !entry.file_type()?.is_dir());
        if begun.elapsed() > SEARCH_TIME {
            return Ok(found);
        }
    }
    let removed = RemovedInPlace::below(root, reader)?;
    for series in series_directories(root)? {
        found.objects += unknown_for_good(reader, &series, &removed)?.len() as u64;
        if begun.elapsed() > SEARCH_TIME {
            break;
        }
    }
    Ok(found)
}
