//! Received objects of a backup go back to the storage directory, as the index of the backup knows
//! them.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::manifest::open_copy;
use super::objects::{ObjectsInBackup, add, files_in, make, synchronise};
use crate::cli::reindex::{ReadObject, read};
use crate::cli::unindexed::series_directories;
use crate::db::open::Reader;
use crate::db::{DuplicatePolicy, KnownFile, Removal, RemovalSearch as _, ScanLedger as _, Search as _};
use crate::ingest::Wanted;
use crate::model::location::Place;
use crate::store::{Trash, checksum, other_names};

/// Counts of the objects beside a backup, by outcome.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::cli) struct BroughtBack {
    /// Objects that are in the storage directory now.
    pub(in crate::cli) objects: u64,
    /// Removed ones, which wait in its trash again.
    pub(in crate::cli) in_trash: u64,
    /// Objects that nobody can bring back any more, and those in whose place others were received.
    pub(in crate::cli) left_out: u64,
    /// Objects that are not what the index of the backup says.
    pub(in crate::cli) refused: u64,
}

/// Place where an object belongs.
enum ObjectGoal {
    Storage,
    /// The trash, with the objects of the removal that began then.
    Trash(i64),
    Nowhere,
    /// It is not what the index says, for this reason.
    Refused(String),
}

/// An object of a backup.
struct BackedUpObject<'a> {
    /// The directory of its series in the backup.
    series: &'a Path,
    /// The directory where it lay.
    place: &'a Path,
    name: &'a OsStr,
    /// Entry of the object in the index of the backup.
    known: Option<&'a KnownFile>,
}

/// Finds out where objects of a backup belong.
struct ObjectSorter {
    reader: Reader,
    /// Removals that the backup knows, by when they began.
    removals: HashMap<i64, Removal>,
    /// When instances were removed, as the lists in the trash have it. An older backup does not
    /// know these removals.
    listed: HashMap<String, i64>,
    received_again: HashMap<String, i64>,
}

impl ObjectSorter {
    fn new(backup: &Path, trash: &Trash) -> anyhow::Result<Self> {
        let mut reader = open_copy(backup)?;
        let removals = reader.removals()?.into_iter().map(|removal| (removal.begun_ms, removal)).collect();
        let mut listed = HashMap::new();
        let on_uid = |begun_ms: i64, uid: String| {
            let last = listed.entry(uid).or_insert(begun_ms);
            *last = begun_ms.max(*last);
        };
        let received_again = trash.read_lists(on_uid).and_then(|()| trash.received_again());
        let received_again = received_again.context("cannot read the lists in the trash")?;
        Ok(Self { reader, removals, listed, received_again })
    }

    /// Place where an object belongs. An object that the index does not know goes to the storage
    /// directory if it cannot be read or came later. There `rebuild` looks at it.
    fn goal(&mut self, object: &BackedUpObject<'_>) -> anyhow::Result<ObjectGoal> {
        let found = match read(Place::Managed, object.series, object.name, Wanted::index()) {
            Ok(found) => found,
            Err(reason) if object.known.is_some() => return Ok(ObjectGoal::Refused(reason)),
            Err(_) => return Ok(ObjectGoal::Storage),
        };
        let uid = found.sop_instance_uid();
        let mut removed = self.reader.removed_among(vec![uid.to_owned()])?;
        if object.known.is_some() && removed.contains_key(uid) {
            // It was removed from the index alone, which knows that it lies there.
            return Ok(ObjectGoal::Storage);
        }
        if let Some(begun_ms) = self.listed.get(uid) {
            let last = removed.entry(uid.to_owned()).or_insert(*begun_ms);
            *last = (*last).max(*begun_ms);
        }
        if let Some(begun_ms) = found.removed_at(&removed, &self.received_again) {
            let waits = self.removals.get(&begun_ms).is_some_and(|removal| removal.in_trash > 0);
            return Ok(if waits { ObjectGoal::Trash(begun_ms) } else { ObjectGoal::Nowhere });
        }
        if let Some(known) = object.known {
            let difference = self.difference(object, known, &found)?;
            return Ok(difference.map_or(ObjectGoal::Storage, ObjectGoal::Refused));
        }
        let known = self.reader.known_locations(uid)?;
        let came_ms = found.location.mtime_ms;
        let is_replaced =
            known.iter().any(|known| known.location.place == Place::Managed && known.location.mtime_ms > came_ms);
        Ok(if is_replaced { ObjectGoal::Nowhere } else { ObjectGoal::Storage })
    }

    /// Difference between an object and what the index of the backup says.
    fn difference(
        &mut self,
        object: &BackedUpObject<'_>,
        known: &KnownFile,
        found: &ReadObject,
    ) -> anyhow::Result<Option<String>> {
        let size = found.location.size;
        if size != known.size {
            return Ok(Some(format!("it has {size} bytes, and the index says {}", known.size)));
        }
        let path = object.place.join(object.name);
        let all = self.reader.known_locations(found.sop_instance_uid())?;
        let Some(known) = all.into_iter().find(|known| known.location.path().as_ref() == Some(&path)) else {
            return Ok(Some("it is not the instance that the index says".to_owned()));
        };
        let Some(expected) = known.checksum else { return Ok(None) };
        Ok(match checksum(&found.location) {
            Ok(Some(computed)) if computed != expected => {
                Some("its checksum is not that of the index: it was damaged or changed".to_owned())
            }
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        })
    }
}

/// Whether another object of the instance came after the backup. It has the next free name of the
/// instance, and the index of the backup does not know it.
fn was_replaced(place: &Path, name: &OsStr, known: &HashMap<OsString, KnownFile>) -> bool {
    other_names(name).any(|other| !known.contains_key(&other) && place.join(other).exists())
}

/// Brings back the objects that the storage directory lacks. What was removed, or replaced by
/// another object, does not come between those that the index knows. `on_refused` gets the path and
/// the reason of those that are refused.
pub(in crate::cli) fn bring_back(
    backup: &Path,
    (storage, duplicates): (&Path, DuplicatePolicy),
    mut on_refused: impl FnMut(&Path, &str) -> anyhow::Result<()>,
) -> anyhow::Result<BroughtBack> {
    let from: PathBuf = backup.parent().unwrap_or(Path::new(".")).join("objects");
    if !from.is_dir() {
        bail!("there is no directory {} with objects", from.display());
    }
    make(storage)?;
    // The index names it so.
    let storage = storage.canonicalize().with_context(|| format!("cannot open {}", storage.display()))?;
    let trash = Trash::below(&storage);
    let mut sorter = ObjectSorter::new(backup, &trash)?;
    let mut brought = BroughtBack::default();
    for series in series_directories(&from).with_context(|| format!("cannot list {}", from.display()))? {
        let below = series.strip_prefix(&from).context("a directory outside of the backup")?;
        let place = storage.join(below);
        let known = sorter.reader.directory_files(&place)?;
        for (name, object) in files_in(&series)? {
            // An existing file is never replaced.
            if place.join(&name).exists() {
                continue;
            }
            if duplicates == DuplicatePolicy::Replace && was_replaced(&place, &name, &known) {
                brought.left_out += 1;
                continue;
            }
            let of_backup = BackedUpObject { series: &series, place: &place, name: &name, known: known.get(&name) };
            let (to, count) = match sorter.goal(&of_backup)? {
                ObjectGoal::Storage => (place.clone(), &mut brought.objects),
                ObjectGoal::Trash(begun_ms) => (trash.objects(begun_ms).join(below), &mut brought.in_trash),
                ObjectGoal::Nowhere => {
                    brought.left_out += 1;
                    continue;
                }
                ObjectGoal::Refused(reason) => {
                    brought.refused += 1;
                    on_refused(&series.join(&name), &reason)?;
                    continue;
                }
            };
            if to.join(&name).exists() {
                continue;
            }
            make(&to)?;
            let copied = add(&series.join(&name), &object, &to, &name, ObjectsInBackup::Copy);
            *count += u64::from(copied.with_context(|| format!("cannot write in {}", to.display()))?);
        }
    }
    synchronise(&storage)?;
    Ok(brought)
}
