//! The arrival journal of the storage directory: emptied after a crash, and opened for a node.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use crate::cli::context::in_one_line;
use crate::cli::health::DiskSpace;
use crate::config::Config;
use crate::db::open::{Reader, WriterHandle};
use crate::db::{Admin as _, Durability};
use crate::ingest::Wanted;
use crate::receive::journal::Journal;
use crate::receive::replay::{Replayed, UnnamedFiles, replay};
use crate::receive::storage::Storage;
use crate::store::{ArrivalJournal, JournalError, Objects};

/// Stores what the journal holds since a crash, and empties it. An index of several files has no
/// journal, and neither has an object of it.
pub(super) fn empty(
    config: &Config,
    objects: &Arc<Objects>,
    writer: &WriterHandle,
    unnamed: UnnamedFiles,
) -> anyhow::Result<()> {
    let mut reader = Reader::open(&config.index)?;
    let path = objects.journal();
    let Some(mut journal) = ArrivalJournal::open(&path, &index_id(&mut reader)?)? else { return Ok(()) };
    if journal.groups().next().is_none() {
        return Ok(());
    }
    let storage = Arc::new(storage(config, Some(Arc::clone(objects)), writer.clone()));
    let replayed = replay(&storage, objects, (&journal, &mut reader), unnamed);
    let Replayed { written, entered, passed_over } = replayed.with_context(|| {
        format!("what the last process left in the arrival journal {} cannot be stored", path.display())
    })?;
    journal.reset()?;
    tracing::info!(
        written,
        entered,
        passed_over,
        "the last process ended while objects were in the arrival journal; they are in their places now"
    );
    Ok(())
}

/// Storage for arriving objects by the settings, without a journal.
pub(super) fn storage(config: &Config, objects: Option<Arc<Objects>>, writer: WriterHandle) -> Storage {
    let wanted = Wanted::with_declared(&config.declared);
    Storage { policy: config.receive, wanted, ..Storage::new(objects, writer) }
}

/// Opens the journal for a node, after [`empty`]. `None` where the node works without one.
pub(super) fn start(
    config: &Config,
    objects: &Arc<Objects>,
    writer: &WriterHandle,
) -> anyhow::Result<Option<Arc<Journal>>> {
    let path = objects.journal();
    let journal = config.journal;
    remove(&ArrivalJournal::unfinished(&path))?;
    if journal.bytes == 0 || config.durability != Durability::Full {
        remove(&path)?;
        return Ok(None);
    }
    if let Some(reason) = hindrance(objects, writer) {
        return do_without(config, objects, reason);
    }
    let index_id = index_id(&mut Reader::open(&config.index)?)?;
    let opened = match ArrivalJournal::open(&path, &index_id)? {
        Some(there) if there.ring_bytes() == journal.bytes => Ok(there),
        Some(_) | None if !has_room(config, objects) => {
            return do_without(config, objects, "the disk has no room for it");
        }
        Some(_) | None => ArrivalJournal::create(&path, journal.bytes, &index_id),
    };
    match opened.and_then(|file| Journal::start(file, journal.object_bytes, (objects, writer))) {
        Ok(journal) => Ok(Some(Arc::new(journal))),
        Err(error @ JournalError::Unusable { .. }) => {
            let error = in_one_line(&error.into());
            tracing::warn!(error, "there is no arrival journal; each object is made durable by itself");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Reason why a journal cannot be here, whatever the settings want.
fn hindrance(objects: &Objects, writer: &WriterHandle) -> Option<&'static str> {
    if !writer.takes_journal() {
        Some("the index is no single SQLite file")
    } else if !objects.can_flush() {
        Some("this file system or this kernel does not report which flush has failed")
    } else {
        None
    }
}

/// Whether the journal leaves as much space free as arriving objects have to. One that nobody has
/// asked for takes at most an eighth of the free space.
fn has_room(config: &Config, objects: &Objects) -> bool {
    let journal = config.journal;
    let part = if journal.is_asked_for { 1 } else { 8 };
    // Where nothing tells, the writing of the journal does.
    DiskSpace::of(objects.root(), config).is_none_or(|space| space.free > space.min_free + part * journal.bytes)
}

/// Goes on without a journal, and logs that: as a warning only for a user who has asked for one.
fn do_without(config: &Config, objects: &Objects, reason: &str) -> anyhow::Result<Option<Arc<Journal>>> {
    let directory = objects.root().display();
    if config.journal.is_asked_for {
        tracing::warn!(%directory, reason, "there is no arrival journal; each object is made durable by itself");
    } else {
        tracing::info!(%directory, reason, "there is no arrival journal; each object is made durable by itself");
    }
    remove(&objects.journal())?;
    Ok(None)
}

/// Whether a crash has left objects in the journal, as far as can be seen.
pub(super) fn is_in_use(objects: &Objects, reader: &mut Reader) -> anyhow::Result<bool> {
    let journal = ArrivalJournal::open(&objects.journal(), &index_id(reader)?);
    // Only a start of the node says what is wrong with it.
    Ok(journal.map_or(true, |journal| journal.is_some_and(|journal| journal.groups().next().is_some())))
}

fn index_id(reader: &mut Reader) -> anyhow::Result<String> {
    Ok(reader.index_id()?.unwrap_or_default())
}

/// Removes a journal that is empty and not wanted.
fn remove(path: &Path) -> anyhow::Result<()> {
    crate::store::remove(path).with_context(|| format!("cannot remove the arrival journal {}", path.display()))
}
