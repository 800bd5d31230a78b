//! Received objects of a backup go back to the storage directory, as the index of the backup knows
//! them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::manifest::open_copy;
use super::objects::{ObjectsInBackup, add, files_in, make, synchronise};
use crate::cli::reindex::read;
use crate::cli::unindexed::series_directories;
use crate::db::open::Reader;
use crate::db::{Removal, RemovalSearch as _, ScanLedger as _, Search as _};
use crate::ingest::Wanted;
use crate::model::location::Place;
use crate::store::Trash;

/// What became of the objects beside a backup.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::cli) struct BroughtBack {
    /// Those that are in the storage directory now.
    pub(in crate::cli) objects: u64,
    /// Removed ones, which wait in its trash again.
    pub(in crate::cli) in_trash: u64,
    /// Those that nobody can bring back any more, and those in whose place others were received.
    pub(in crate::cli) left_out: u64,
}

/// Where an object belongs.
enum ObjectGoal {
    Storage,
    /// The trash, with the objects of the removal that began then.
    Trash(i64),
    Nowhere,
}

/// Finds out where objects belong that the index of a backup does not know at their places.
struct ObjectSorter {
    reader: Reader,
    /// Removals by when they began.
    removals: HashMap<i64, Removal>,
}

impl ObjectSorter {
    fn new(backup: &Path) -> anyhow::Result<Self> {
        let mut reader = open_copy(backup)?;
        let removals = reader.removals()?.into_iter().map(|removal| (removal.begun_ms, removal)).collect();
        Ok(Self { reader, removals })
    }

    /// Where an object belongs. What cannot be read, and what came after the index was copied, goes
    /// to the storage directory: `rebuild` looks at it.
    fn goal(&mut self, series: &Path, name: &OsStr) -> anyhow::Result<ObjectGoal> {
        let Ok(object) = read(Place::Managed, series, name, Wanted::index()) else { return Ok(ObjectGoal::Storage) };
        let (uid, came_ms) = (object.sop_instance_uid().to_owned(), object.location.mtime_ms);
        if let Some(begun_ms) = self.reader.removed_among(vec![uid.clone()])?.get(&uid).copied()
            && came_ms < begun_ms
        {
            let waits = self.removals.get(&begun_ms).is_some_and(|removal| removal.in_trash > 0);
            return Ok(if waits { ObjectGoal::Trash(begun_ms) } else { ObjectGoal::Nowhere });
        }
        let known = self.reader.known_locations(&uid)?;
        let is_replaced =
            known.iter().any(|known| known.location.place == Place::Managed && known.location.mtime_ms > came_ms);
        Ok(if is_replaced { ObjectGoal::Nowhere } else { ObjectGoal::Storage })
    }
}

/// Brings back the objects that the storage directory lacks. What was removed, or replaced by
/// another object, does not come between those that the index knows.
pub(in crate::cli) fn bring_back(backup: &Path, storage: &Path) -> anyhow::Result<BroughtBack> {
    let from: PathBuf = backup.parent().unwrap_or(Path::new(".")).join("objects");
    if !from.is_dir() {
        bail!("there is no directory {} with objects", from.display());
    }
    make(storage)?;
    // The index names it so.
    let storage = storage.canonicalize().with_context(|| format!("cannot open {}", storage.display()))?;
    let (mut sorter, trash) = (ObjectSorter::new(backup)?, Trash::below(&storage));
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
            let goal = if known.contains_key(&name) { ObjectGoal::Storage } else { sorter.goal(&series, &name)? };
            let (to, count) = match goal {
                ObjectGoal::Storage => (place.clone(), &mut brought.objects),
                ObjectGoal::Trash(begun_ms) => (trash.objects(begun_ms).join(below), &mut brought.in_trash),
                ObjectGoal::Nowhere => {
                    brought.left_out += 1;
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
