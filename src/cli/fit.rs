//! Whether the index and the storage directory belong together.
//!
//! A node that starts with another index, an empty one or the directory below a disk that is not mounted would answer as if all
//! were well. So the storage directory has the id of its index in `.index`, and what does not fit is refused, with nothing written.

use std::path::Path;

use anyhow::bail;

use crate::db::open::{Reader, WriterHandle};
use crate::db::{Admin, Arrivals, ScanLedger};
use crate::model::location::Place;
use crate::store::Objects;

/// What is known of a storage directory and an index, for [`verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Facts<'a> {
    /// The id of the index in the storage directory.
    noted: Option<&'a str>,
    /// The id that the index has.
    id: Option<&'a str>,
    /// Whether there are objects in the storage directory.
    has_objects: bool,
    /// Whether the index names objects that lie there.
    names_objects: bool,
}

/// What follows from [`Facts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict<'a> {
    /// They belong together, and the storage directory says so.
    Fits,
    /// They belong together from now on; the index gets this id if it has none.
    Joins(Option<&'a str>),
    /// The objects are those of another index.
    OtherIndex,
    /// The index names objects there, and there are none.
    Emptied,
}

fn verdict(facts: Facts<'_>) -> Verdict<'_> {
    let Facts { noted, id, has_objects, names_objects } = facts;
    match (noted, id) {
        (Some(noted), Some(id)) if noted == id => Verdict::Fits,
        // A backup of the index from before it had an id.
        (Some(noted), None) if names_objects => Verdict::Joins(Some(noted)),
        (Some(_), _) if has_objects || names_objects => Verdict::OtherIndex,
        // A storage directory of an older version has no note.
        (None, _) if has_objects && names_objects => Verdict::Joins(None),
        (None, _) if has_objects => Verdict::OtherIndex,
        (None, _) if names_objects => Verdict::Emptied,
        // Nothing has been stored yet.
        (Some(_) | None, _) => Verdict::Joins(None),
    }
}

/// Refuses to make a new index for objects that are there. To be called before the index is opened for writing.
pub(super) fn refuse_new_index(index: &Path, objects: &Objects) -> anyhow::Result<()> {
    let exists = index.try_exists()?;
    if !exists && objects.has_objects()? {
        let storage = objects.root().display();
        bail!(
            "there is no index at {}, and {storage} holds objects: restore the index from a backup; or rename {storage}, index \
             it under its new name with `dcmdex scan`, and start the node again",
            index.display()
        );
    }
    Ok(())
}

/// Refuses an index and a storage directory that do not belong together; joins them where they are new to each other.
pub(super) fn refuse_misfits(index: &Path, objects: &Objects, writer: &WriterHandle) -> anyhow::Result<()> {
    let mut reader = Reader::open(index)?;
    let (noted, id) = (objects.index_id()?, reader.index_id()?);
    let root = objects.root();
    let names_objects = !reader.directories_below(Place::Managed, root, root, 1)?.is_empty();
    let facts =
        Facts { noted: noted.as_deref(), id: id.as_deref(), has_objects: objects.has_objects()?, names_objects };
    let (index, storage) = (index.display(), root.display());
    match verdict(facts) {
        Verdict::Fits => Ok(()),
        Verdict::Joins(id) => {
            let id = writer.name_index(id.map(str::to_owned))?;
            Ok(objects.set_index_id(&id)?)
        }
        Verdict::OtherIndex => bail!(
            "the storage directory {storage} belongs to another index than {index}: name the index and the storage directory \
             that belong together, or take an empty directory for new objects; objects whose index is lost can be renamed \
             and indexed under their new name with `dcmdex scan`"
        ),
        Verdict::Emptied => {
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
        use Verdict::{Emptied, Fits, Joins, OtherIndex};
        let (a, b) = (Some("a"), Some("b"));
        for (noted, id, has_objects, names_objects, expected) in [
            // At work.
            (a, a, true, true, Fits),
            (a, a, false, false, Fits),
            // Objects that were given up.
            (a, a, false, true, Fits),
            // First starts: of both, of a new storage directory, of a storage directory that nobody stored in.
            (None, None, false, false, Joins(None)),
            (None, a, false, false, Joins(None)),
            (b, a, false, false, Joins(None)),
            (b, None, false, false, Joins(None)),
            // Both of an older version; the storage directory of one.
            (None, None, true, true, Joins(None)),
            (None, a, true, true, Joins(None)),
            // A backup of an older version.
            (a, None, true, true, Joins(a)),
            // Foreign ones, and new ones.
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
