//! Checks that the index and the storage directory belong together.
//!
//! A node may start with the wrong index or an empty one, or its disk may not be mounted. It would
//! then answer as if all were well. So the storage directory holds the id of its index in `.index`.
//! If the two do not belong together, the node refuses to start and writes nothing.

use std::path::Path;

use anyhow::bail;

use crate::config::Config;
use crate::db::open::{Reader, WriterHandle, is_on_server};
use crate::db::postgres::PostgresAddress;
use crate::db::{self, Admin, Arrivals, ScanLedger, host_name};
use crate::model::location::Place;
use crate::store::{self, Objects, has_objects_in, index_id_in, storage_id_in};

/// Facts about a storage directory and an index that [`verdict`] needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Facts<'a> {
    /// The id of the index that the storage directory holds.
    noted: Option<&'a str>,
    /// The id of the index itself.
    id: Option<&'a str>,
    /// Whether the storage directory holds objects.
    has_objects: bool,
    /// Whether the index names objects in the storage directory.
    names_objects: bool,
}

/// The result of comparing the [`Facts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FitVerdict<'a> {
    /// They belong together, and the storage directory holds the id.
    Fits,
    /// They belong together from now on. The index gets this id if it has none.
    Joins(Option<&'a str>),
    /// The objects belong to another index.
    OtherIndex,
    /// The index names objects in the directory, and the directory holds none.
    Emptied,
}

fn verdict(facts: Facts<'_>) -> FitVerdict<'_> {
    let Facts { noted, id, has_objects, names_objects } = facts;
    match (noted, id) {
        (Some(noted), Some(id)) if noted == id => FitVerdict::Fits,
        // The index is a backup from a version without ids.
        (Some(noted), None) if names_objects => FitVerdict::Joins(Some(noted)),
        (Some(_), _) if has_objects || names_objects => FitVerdict::OtherIndex,
        // The storage directory comes from a version without ids.
        (None, _) if has_objects && names_objects => FitVerdict::Joins(None),
        (None, _) if has_objects => FitVerdict::OtherIndex,
        (None, _) if names_objects => FitVerdict::Emptied,
        // Nothing has been stored yet.
        (Some(_) | None, _) => FitVerdict::Joins(None),
    }
}

/// Returns what keeps a node from using this index with this storage directory. It only reads.
///
/// # Errors
/// If one of the two cannot be read.
pub(super) fn misfit(index: &Path, storage: &Path) -> anyhow::Result<Option<String>> {
    let storage = std::path::absolute(storage)?;
    let storage = storage.canonicalize().unwrap_or(storage);
    let has_objects = has_objects_in(&storage)?;
    let mut reader = match Reader::open(index) {
        Ok(reader) => reader,
        Err(db::Error::Missing { .. }) => return Ok(has_objects.then(|| no_index(index, &storage))),
        // A node brings it up to date.
        Err(db::Error::OlderSchema { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (noted, id) = (index_id_in(&storage)?, reader.index_id()?);
    let names_objects = names_objects_in(&mut reader, &storage)?;
    let facts = Facts { noted: noted.as_deref(), id: id.as_deref(), has_objects, names_objects };
    Ok(match verdict(facts) {
        FitVerdict::Fits | FitVerdict::Joins(_) => None,
        FitVerdict::OtherIndex => Some(other_index(index, &storage)),
        FitVerdict::Emptied => Some(emptied(index, &storage, id.as_deref())),
    })
}

/// Returns the options of the storage directory if it is there, and if it is not that of another
/// index than this one. The index of a scan often lies beside the objects of a node.
pub(super) fn storage_of(config: &Config, index: &Path) -> anyhow::Result<Option<store::Options>> {
    let Some(options) = config.kept_store_options().filter(|options| options.directory.is_dir()) else {
        return Ok(None);
    };
    let directory = options.directory.canonicalize()?;
    let noted = index_id_in(&directory)?;
    let mut reader = match Reader::open(index) {
        Ok(reader) => reader,
        Err(db::Error::Missing { .. }) => return Ok(Some(store::Options { directory, ..options })),
        Err(error) => return Err(error.into()),
    };
    let is_of_another = noted.is_some() && noted != reader.index_id()? && !names_objects_in(&mut reader, &directory)?;
    Ok((!is_of_another).then_some(store::Options { directory, ..options }))
}

/// Refuses to create a new index for existing objects. Call it before the index is opened for
/// writing.
pub(super) fn refuse_new_index(index: &Path, objects: &Objects) -> anyhow::Result<()> {
    if !is_on_server(index) && !index.try_exists()? && has_objects_in(objects.root())? {
        bail!(no_index(index, objects.root()));
    }
    Ok(())
}

/// Refuses an index and a storage directory that do not belong together. If they are new to each
/// other, it joins them.
pub(super) fn refuse_misfits(index: &Path, objects: &Objects, writer: &WriterHandle) -> anyhow::Result<()> {
    let root = objects.root();
    refuse_another_directory(root, writer)?;
    let mut reader = Reader::open(index)?;
    let (noted, id) = (objects.index_id()?, reader.index_id()?);
    let (has_objects, names_objects) = (has_objects_in(root)?, names_objects_in(&mut reader, root)?);
    let facts = Facts { noted: noted.as_deref(), id: id.as_deref(), has_objects, names_objects };
    match verdict(facts) {
        FitVerdict::Fits => {}
        FitVerdict::Joins(id) => {
            let id = writer.name_index(id.map(str::to_owned))?;
            objects.set_index_id(&id)?;
        }
        FitVerdict::OtherIndex => bail!(other_index(index, root)),
        FitVerdict::Emptied => {
            let id = writer.name_index(None)?;
            bail!(emptied(index, root, Some(&id)))
        }
    }
    claim(objects, writer)
}

/// Notes in a database which storage directory has its path.
fn claim(objects: &Objects, writer: &WriterHandle) -> anyhow::Result<()> {
    let noted = storage_id_in(objects.root())?;
    let id = writer.claim_storage(noted.as_deref().unwrap_or_default(), &host_name(), objects.root())?;
    match id {
        Some(id) if noted.as_deref() != Some(&id) => Ok(objects.set_storage_id(&id)?),
        Some(_) | None => Ok(()),
    }
}

/// Refuses a storage directory whose path in a database is that of another one.
pub(super) fn refuse_another_directory(storage: &Path, writer: &WriterHandle) -> anyhow::Result<()> {
    Ok(writer.check_storage(&storage_id_in(storage)?.unwrap_or_default(), storage)?)
}

fn names_objects_in(reader: &mut Reader, storage: &Path) -> Result<bool, db::Error> {
    Ok(!reader.directories_below(Place::Managed, storage, storage, 1)?.is_empty())
}

fn no_index(index: &Path, storage: &Path) -> String {
    format!(
        "there is no index at {}, and {} holds objects. Restore the index from a backup, or build a new one with `dcmdex \
         rebuild`, and start the node again",
        index.display(),
        storage.display()
    )
}

fn other_index(index: &Path, storage: &Path) -> String {
    format!(
        "the storage directory {} belongs to another index than {}. Name an index and a storage directory that belong \
         together, or use an empty directory for new objects. If the index of these objects is lost, `dcmdex rebuild` \
         with a new file for the index builds it again",
        storage.display(),
        PostgresAddress::without_roots(index).display()
    )
}

fn emptied(index: &Path, storage: &Path, id: Option<&str>) -> String {
    let (shown, storage) = (PostgresAddress::without_roots(index), storage.display());
    let index = shown.display();
    let way_out =
        id.map_or_else(String::new, |id| format!(" If they are lost for good, write {id} into {storage}/.index"));
    format!("the index {index} names objects in {storage}, and there are none: is its disk mounted?{way_out}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_and_what_does_not() {
        use FitVerdict::{Emptied, Fits, Joins, OtherIndex};
        let (a, b) = (Some("a"), Some("b"));
        for (noted, id, has_objects, names_objects, expected) in [
            // A node in use.
            (a, a, true, true, Fits),
            (a, a, false, false, Fits),
            // The operator accepted the loss of all objects.
            (a, a, false, true, Fits),
            // First starts: of both, of a new storage directory, and of a storage directory without
            // objects.
            (None, None, false, false, Joins(None)),
            (None, a, false, false, Joins(None)),
            (b, a, false, false, Joins(None)),
            (b, None, false, false, Joins(None)),
            // Both come from an older version, or only the storage directory.
            (None, None, true, true, Joins(None)),
            (None, a, true, true, Joins(None)),
            // A backup from an older version.
            (a, None, true, true, Joins(a)),
            // The objects of another index.
            (b, a, true, true, OtherIndex),
            (b, a, true, false, OtherIndex),
            (b, a, false, true, OtherIndex),
            (b, None, true, false, OtherIndex),
            (None, None, true, false, OtherIndex),
            (None, a, true, false, OtherIndex),
            // A disk that is not mounted.
            (None, a, false, true, Emptied),
            (None, None, false, true, Emptied),
        ] {
            let facts = Facts { noted, id, has_objects, names_objects };
            assert_eq!(verdict(facts), expected, "{facts:?}");
        }
    }
}
