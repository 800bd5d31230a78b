//! Gives the object its place and the record its row. Then it removes what the index does not need.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::warn;

use super::error::ReceiveError;
use super::first::{FirstCheck, FirstObject};
use super::sink::FileSink;
use super::storage::{ReceivedObject, Storage};
use super::under_way::UnderWay;
use crate::db::{Committed, Compared, ReceivedFrom, StoreOutcome, Stored};
use crate::model::attribute::AttributeId;
use crate::model::clock::Clock;
use crate::model::location::{Location, Place};
use crate::model::record::InstanceRecord;
use crate::shares::{CountedPeer, Share};
use crate::store::{self, NameOutcome, Placed, Trash};

/// An object that is kept.
#[derive(Debug)]
pub(super) struct KeptInstance {
    pub(super) committed: Committed,
    /// Whether it is a copy that differs. Services answer with another object of the instance.
    pub(super) is_other: bool,
}

impl KeptInstance {
    fn of(outcome: &StoreOutcome, committed: Committed) -> Self {
        Self { committed, is_other: *outcome == StoreOutcome::KeptCopy { differs: true } }
    }
}

/// Gives the object its place and the record its row, and waits until both are durable.
///
/// # Errors
/// See [`ReceiveError`].
pub(super) async fn keep(
    storage: &Arc<Storage>,
    (record, sender): (Box<InstanceRecord>, Arc<ReceivedFrom>),
    file: Option<Box<FileSink>>,
    (length, peer): (u64, &CountedPeer),
) -> Result<KeptInstance, ReceiveError> {
    let Some(file) = file else {
        let _room = storage.under_way.room_for(peer)?;
        let location = metadata_only(length, storage.clock);
        let uid = record.value(AttributeId::SOPInstanceUID).to_owned();
        let known = ReceivedObject { record, sender: Arc::clone(&sender), checksum: None };
        let Stored { outcome, committed, .. } = storage.commit(known, location, Compared::Nothing).await?;
        let kept = KeptInstance::of(&outcome, committed);
        return match outcome {
            StoreOutcome::KeptFirst => {
                storage.log_conflict(&sender, &uid, KEPT_FIRST);
                Err(ReceiveError::Duplicate)
            }
            StoreOutcome::Replaced { previous } => {
                // The row dates from a time when objects were kept.
                remove(&storage.under_way, peer, move || remove_all(&previous)).await;
                Ok(kept)
            }
            StoreOutcome::New
            | StoreOutcome::Completed
            | StoreOutcome::Identical { .. }
            | StoreOutcome::KeptCopy { .. } => Ok(kept),
        };
    };
    let room = storage.under_way.room_for(peer)?;
    let checksum = Some(file.checksum.finish());
    let kept = keep_object(Arc::clone(storage), ReceivedObject { record, sender, checksum }, file, room);
    storage.under_way.tasks.spawn(kept).await.map_err(|_| ReceiveError::ThreadEnded)?
}

/// Does the work of [`keep`] for an object with a file.
pub(super) async fn keep_object(
    storage: Arc<Storage>,
    known: ReceivedObject,
    file: Box<FileSink>,
    _room: Share,
) -> Result<KeptInstance, ReceiveError> {
    let peer = Arc::clone(file.memory.peer());
    let under_way = &storage.under_way;
    let _turn = under_way.turn(known.record.value(AttributeId::SOPInstanceUID)).await;
    let again = known.clone();
    let (sender, uid) = (Arc::clone(&again.sender), again.record.value(AttributeId::SOPInstanceUID).to_owned());
    let from = (&*sender, uid.as_str());
    let (mut placed, mut stored, _until_settled) = file.keep(&storage, known).await?;
    if let Ok(Stored { first: Some(first), outcome, .. }) = &stored {
        // The index still names a file that is not ours: on somebody's disk, or in an earlier
        // storage directory.
        let (first, uid) = (first.clone(), uid.clone());
        let check = FirstCheck::at(outcome, &first);
        let (state, first) = under_way.blocking(&peer, move || (FirstObject::at(&first, &uid, check), first)).await?;
        if state != FirstObject::There {
            let gone = storage.commit(again, placed.location.clone(), Compared::FirstIsGone);
            let stored = gone.await.map_err(ReceiveError::Index);
            let is_named = stored.as_ref().is_ok_and(|stored| stored.outcome == StoreOutcome::Completed);
            let committed = apply(&storage, (&peer, from), placed, stored).await;
            if is_named && state == FirstObject::Damaged {
                warn!("an object that was damaged was received again");
                let damaged = first.location.path();
                remove(under_way, &peer, move || damaged.map_or(Ok(()), |path| store::remove(&path))).await;
            }
            return committed;
        }
    }
    if let Ok(Stored { outcome: StoreOutcome::Identical { uncompared: Some(first) }, .. }) = &stored {
        // The index has the same values for both, but names another object than the new one. The
        // bytes decide.
        let (first, ours) = (first.clone(), placed);
        let (same, ours) = under_way.blocking(&peer, move || (ours.has_same_data_set(&first), ours)).await?;
        placed = ours;
        // If the bytes cannot be compared, the values of the index decide.
        let is_same = same.is_ok_and(|same| same.unwrap_or(true));
        let compared = if is_same { Compared::FirstIsNotOther } else { Compared::FirstIsOther };
        stored = storage.commit(again, placed.location.clone(), compared).await.map_err(ReceiveError::Index);
    }
    apply(&storage, (&peer, from), placed, stored).await
}

/// Texts for the outcome of an object whose content differs from the kept one.
const KEPT_FIRST: &str = "it was refused";
const KEPT_BOTH: &str = "both are kept";
const REPLACED: &str = "it took the place of the first";

fn remove_all(paths: &[PathBuf]) -> Result<(), store::Error> {
    paths.iter().try_for_each(|path| store::remove(path))
}

fn metadata_only(length: u64, clock: Clock) -> Location {
    Location {
        place: Place::MetadataOnly,
        directory: PathBuf::new(),
        file_name: OsString::new(),
        size: length,
        mtime_ms: clock.now_ms(),
    }
}

/// Removes the object that the index does not need: the new one, or the one that it replaced.
async fn apply(
    storage: &Arc<Storage>,
    (peer, (sender, sop_instance_uid)): (&CountedPeer, (&ReceivedFrom, &str)),
    placed: Placed,
    stored: Result<Stored, ReceiveError>,
) -> Result<KeptInstance, ReceiveError> {
    let stored = match stored {
        Ok(stored) => stored,
        Err(error) => {
            if matches!(&error, ReceiveError::Index(error) if error.may_be_in_the_index()) {
                placed.leave();
            } else {
                remove(&storage.under_way, peer, move || placed.discard()).await;
            }
            return Err(error);
        }
    };
    if stored.outcome == StoreOutcome::New && placed.contents == NameOutcome::Same {
        note_received_again(storage, peer, sop_instance_uid).await?;
    }
    let kept = KeptInstance::of(&stored.outcome, stored.committed);
    match stored.outcome {
        // Nobody waits for this, because it only removes a name.
        StoreOutcome::New | StoreOutcome::Completed | StoreOutcome::KeptCopy { differs: false } => {
            storage.under_way.let_incoming_link_go(placed);
        }
        StoreOutcome::KeptCopy { differs: true } => {
            storage.log_conflict(sender, sop_instance_uid, KEPT_BOTH);
            storage.under_way.let_incoming_link_go(placed);
        }
        StoreOutcome::Identical { .. } => remove(&storage.under_way, peer, move || placed.discard()).await,
        StoreOutcome::KeptFirst => {
            remove(&storage.under_way, peer, move || placed.discard()).await;
            storage.log_conflict(sender, sop_instance_uid, KEPT_FIRST);
            return Err(ReceiveError::Duplicate);
        }
        StoreOutcome::Replaced { previous } => {
            storage.log_conflict(sender, sop_instance_uid, REPLACED);
            remove(&storage.under_way, peer, move || {
                // The new object still has its incoming link. If the process ends here, the next
                // start finishes the work.
                remove_all(&previous)?;
                drop(placed);
                Ok(())
            })
            .await;
        }
    }
    Ok(kept)
}

/// Notes that an object came again whose file was there while the index did not have it.
async fn note_received_again(storage: &Storage, peer: &CountedPeer, uid: &str) -> Result<(), ReceiveError> {
    let Some(objects) = &storage.objects else { return Ok(()) };
    let (trash, now_ms, uid) = (Trash::below(objects.root()), storage.clock.now_ms(), uid.to_owned());
    Ok(storage.under_way.blocking(peer, move || trash.note_received_again(now_ms, &uid)).await??)
}

async fn remove(
    under_way: &UnderWay,
    peer: &CountedPeer,
    remove: impl FnOnce() -> Result<(), store::Error> + Send + 'static,
) {
    match under_way.blocking(peer, remove).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "an object that is not needed could not be removed"),
        Err(_) => warn!("an object that is not needed could not be removed: its thread ended"),
    }
}
