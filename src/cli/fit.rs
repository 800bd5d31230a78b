//! Checks that the index and the storage directory belong together.
//!
//! A node may start with the wrong index or an empty one, or its disk may not be mounted. It would
//! then answer as if all were well. So the storage directory holds the id of its index in `.index`.
//! If the two do not belong together, the node refuses to start and writes nothing.

use std::path::Path;

use anyhow::bail;

use crate::db::open::{Reader, WriterHandle};
use crate::db::{Admin, Arrivals, ScanLedger};
use crate::model::location::Place;
use crate::store::Objects;

/// What [`verdict`] needs to know of a storage directory and an index.
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

/// Refuses to create a new index for existing objects. Call it before the index is opened for
/// writing.
pub(super) fn refuse_new_index(index: &Path, objects: &Objects) -> anyhow::Result<()> {
    let exists = index.try_exists()?;
    if !exists && objects.has_objects()? {
        let storage = objects.root().display();
        bail!(
            "there is no index at {}, and {storage} holds objects. Restore the index from a backup, or build a new one with \
             `dcmdex rebuild`, and start the node again",
            index.display()
        );
    }
    Ok(())
}

/// Refuses an index and a storage directory that do not belong together. If they are new to each
/// other, it joins them.
pub(super) fn refuse_misfits(index: &Path, objects: &Objects, writer: &WriterHandle) -> anyhow::Result<()> {
    let mut reader = Reader::open(index)?;
    let (noted, id) = (objects.index_id()?, reader.index_id()?);
    let root = objects.root();
    let names_objects = !reader.directories_below(Place::Managed, root, root, 1)?.is_empty();
    let facts =
        Facts { noted: noted.as_deref(), id: id.as_deref(), has_objects: objects.has_objects()?, names_objects };
    let (index, storage) = (index.display(), root.display());
    match verdict(facts) {
        FitVerdict::Fits => Ok(()),
        FitVerdict::Joins(id) => {
            let id = writer.name_index(id.map(str::to_owned))?;
            Ok(objects.set_index_id(&id)?)
        }
        FitVerdict::OtherIndex => bail!(
            "the storage directory {storage} belongs to another index than {index}. Name an index and a storage directory \
             that belong together, or use an empty directory for new objects. If the index of these objects is lost, \
             `dcmdex rebuild` with a new file for the index builds it again"
        ),
        FitVerdict::Emptied => {
            let id = writer.name_index(None)?;
            bail!(
                "the index {index} names objects in {storage}, and there are none: is its disk mounted? If they are lost for \
                 good, write {id} into {storage}/.index"
            )
        }
    }
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
