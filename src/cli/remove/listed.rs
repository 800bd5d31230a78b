//! Removals that an index lacks, since it was lost or is an older copy. The lists in the trash have
//! them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::Context as _;

use crate::db::open::{Reader, WriterHandle};
use crate::db::{RemovalChanges as _, RemovalSearch as _, Search as _};
use crate::model::clock::unix_ms;
use crate::model::location::Place;
use crate::store::Trash;

/// Text for an operator, after the number of instances that were removed again.
pub(in crate::cli) const REMOVED_SINCE: &str = "instances were removed after this index was saved, and are again";

/// Instances in one transaction.
const BATCH: usize = 128;

/// State of the index for an instance that a list names.
enum ListedInstance {
    /// It has none, or one that was received after the removal.
    Left,
    /// It names objects from before the removal, and they lie in their places.
    InPlace,
    /// It names an object from before the removal, which is gone.
    Gone,
}

/// Removes what the trash below a storage directory says was removed, if the index does not know
/// that. Returns how many instances it had.
pub(in crate::cli) fn remove_listed(index: &Path, storage: &Path, writer: &WriterHandle) -> anyhow::Result<u64> {
    let mut reader = Reader::open(index)?;
    let (known, trash) = (reader.removals()?, Trash::below(storage));
    let mut listed: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    let read = trash.read_lists(|begun_ms, uid| {
        if known.iter().all(|known| known.begun_ms != begun_ms) {
            listed.entry(begun_ms).or_default().push(uid);
        }
    });
    let received_again = read.and_then(|()| trash.received_again()).context("cannot read the lists in the trash")?;
    let mut instances = 0;
    for (begun_ms, uids) in listed {
        let removal = writer.removal_of(begun_ms)?;
        for uids in uids.chunks(BATCH) {
            let (mut in_place, mut gone) = (Vec::new(), Vec::new());
            for uid in uids {
                match look_up(&mut reader, uid, begun_ms, &received_again)? {
                    ListedInstance::Left => {}
                    ListedInstance::InPlace => in_place.push(uid.clone()),
                    ListedInstance::Gone => gone.push(uid.clone()),
                }
            }
            // Objects that are gone are in the trash. The next start of a node notes that.
            for (takes_objects, uids) in [(false, in_place), (true, gone)] {
                instances += writer.remove(removal, takes_objects, uids)?.instances;
            }
            writer.note_removed(removal, uids.to_vec())?;
        }
    }
    Ok(instances)
}

fn look_up(
    reader: &mut Reader,
    uid: &str,
    begun_ms: i64,
    received_again: &HashMap<String, i64>,
) -> anyhow::Result<ListedInstance> {
    let locations = reader.known_locations(uid)?;
    let managed = locations.iter().filter(|known| known.location.place == Place::Managed);
    let times: Vec<Option<i64>> = managed
        .filter_map(|known| known.location.path())
        .map(|path| path.metadata().and_then(|metadata| metadata.modified()).ok().map(unix_ms))
        .collect();
    let is_new = |at_ms: &i64| *at_ms >= begun_ms;
    let came_again = received_again.get(uid).is_some_and(is_new) || times.iter().flatten().any(is_new);
    Ok(match locations.is_empty() || came_again {
        true => ListedInstance::Left,
        false if times.contains(&None) => ListedInstance::Gone,
        false => ListedInstance::InPlace,
    })
}
