//! Moves removed objects to the trash, while the same instances may be received again.

use std::io;
use std::path::Path;

use crate::db::open::{Reader, WriterHandle, is_on_server};
use crate::db::{self, RemovalChanges as _, RemovalSearch as _, RemovedFile, Search as _};
use crate::model::clock::Clock;
use crate::store::{self, Objects, Trash};

/// Files between two transactions.
const PAGE: usize = 256;

/// Reason why removed objects are not in the trash.
#[derive(Debug, thiserror::Error)]
pub enum TrashError {
    /// The index cannot be asked or written.
    #[error(transparent)]
    Index(#[from] db::Error),
    /// An object cannot be moved.
    #[error("an object cannot be moved to the trash of the storage directory")]
    Object(#[from] io::Error),
    /// Objects cannot be made durable.
    #[error(transparent)]
    Flush(#[from] store::Error),
}

/// Numbers of removed objects, by their outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweptObjects {
    /// Objects that were moved to the trash, and wait there.
    pub kept: u64,
    /// Objects that were moved there, and deleted. Their removal was made without a way back.
    pub deleted: u64,
    /// Objects of these removals in the trash of other storage directories.
    pub elsewhere: u64,
}

/// Moves every removed object to the trash that is to go there. Objects of removals that are for
/// good are deleted there.
///
/// `hold` keeps other objects of an instance from getting their places, until its result is
/// dropped. An object that was received again since it was removed stays: the index names it.
///
/// `unsettled` are the objects that an arrival journal may still keep. They are made durable first,
/// because a replay passes over what is removed.
///
/// # Errors
/// If one cannot be moved. The others are, and the next call tries again.
pub fn sweep<H>(
    index: &Path,
    (storage, unsettled): (&Path, Option<&Objects>),
    writer: &WriterHandle,
    mut hold: impl FnMut(&str) -> H,
) -> Result<SweptObjects, TrashError> {
    let mut reader = Reader::open(index)?;
    // Removals are made in single files of a folder, and so is their trash.
    if reader.files().len() > 1 {
        return Ok(SweptObjects::default());
    }
    let (trash, is_shared) = (Trash::below(storage), is_on_server(index));
    let (mut swept, mut failure) = (SweptObjects::default(), None);
    let mut after: Option<RemovedFile> = None;
    loop {
        let page = reader.files_for_trash(after.as_ref(), PAGE)?;
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        unsettled.map_or(Ok(()), Objects::flush)?;
        let (mut trashed, mut received_again) = (Vec::new(), Vec::new());
        for file in page {
            let Some(path) = file.location.path() else { continue };
            if is_shared && !path.starts_with(storage) {
                // It is for the node that has it.
                continue;
            }
            let _held = hold(&file.sop_instance_uid);
            let known = reader.known_locations(&file.sop_instance_uid)?;
            if known.iter().any(|known| known.location.path().as_ref() == Some(&path)) {
                received_again.push(file);
                continue;
            }
            match trash.put(file.begun_ms, &path) {
                // Of a shared index, an object that is not here may be at the same path of another
                // machine.
                Ok(is_there) if is_there || !is_shared => trashed.push(file),
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
        }
        for file in &trashed {
            *if trash.is_for_good(file.begun_ms) { &mut swept.deleted } else { &mut swept.kept } += 1;
        }
        writer.trashed(trashed)?;
        writer.forget_removed(received_again)?;
    }
    // Also what an earlier call has moved before the process was killed.
    for begun_ms in trash.due_for_good()? {
        trash.empty(begun_ms)?;
        swept.elsewhere += writer.emptied(writer.removal_of(begun_ms)?, storage, Clock::System.now_ms())?;
    }
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(swept),
    }
}
