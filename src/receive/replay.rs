//! After a crash, the objects of the arrival journal are stored again, before anybody can ask for
//! them ([ADR 0039](../../docs/adr/0039-arrival-journal.md)).
//!
//! The index says up to which entry it has decided. What it has decided stays so: the object is
//! written again if the index names it, and was refused, replaced or removed since if not. Each
//! later entry arrives once more, in the order of the entries. A start that is ended in the midst
//! changes nothing about that, because the journal stays as it is until all is durable.
//!
//! A power cut may take back the removal of an object that was replaced. [`Objects::recover`] does
//! not find it if the cut took the incoming link of the other object as well. So a replay removes
//! it ([`UnnamedFiles`]).

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fail::fail_point;

use super::error::ReceiveError;
use super::keep::keep_object;
use super::sink::FileSink;
use super::storage::{ReceivedObject, Storage, uids_of};
use crate::db::open::Reader;
use crate::db::{self, DuplicatePolicy, JournalEntryId, ReceivedFrom, RemovalSearch as _, RemovedFile, Search as _};
use crate::ingest::{Outcome, read_stream};
use crate::model::attribute::AttributeId;
use crate::model::checksum::Checksum;
use crate::model::location::Place;
use crate::model::peer::CountedAs;
use crate::model::record::InstanceRecord;
use crate::shares::{PeerMemory, Shares};
use crate::store::{self, ArrivalJournal, JournalEntry, JournalError, Objects, data_set_of, entries_of};
use crate::telemetry::metrics;

/// Reason why a journal could not be emptied. The next start tries again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The index cannot be asked or written.
    #[error(transparent)]
    Index(#[from] db::Error),
    /// An object cannot be written.
    #[error(transparent)]
    Object(#[from] store::Error),
    /// An object is not taken.
    #[error("an object of the arrival journal cannot be stored again")]
    Refused(#[source] ReceiveError),
}

/// Treatment of files of an instance that the index does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnnamedFiles {
    /// They stay, but for those that a power cut has torn. The index may know nothing of them yet.
    Keep,
    /// They are removed. Each new object replaces the former one, and the index says which is kept.
    Remove,
}

impl UnnamedFiles {
    /// For an index that knows all objects.
    #[must_use]
    pub fn under(duplicates: DuplicatePolicy) -> Self {
        match duplicates {
            DuplicatePolicy::Replace => Self::Remove,
            DuplicatePolicy::KeepBoth | DuplicatePolicy::KeepFirst => Self::Keep,
        }
    }
}

/// The counts of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Objects that were written again, because the index names them.
    pub written: u64,
    /// Objects that arrived again.
    pub entered: u64,
    /// Entries that the index does not need.
    pub passed_over: u64,
}

/// Stores the objects of a journal again, and makes them durable. The journal can be reset then.
///
/// # Errors
/// If an object cannot be stored. Nothing is lost then.
pub fn replay(
    storage: &Arc<Storage>,
    objects: &Arc<Objects>,
    journal: (&ArrivalJournal, &mut Reader),
    unnamed: UnnamedFiles,
) -> Result<Replayed, ReplayError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|_| ReplayError::Refused(ReceiveError::ThreadEnded))?;
    let replayed = async {
        let replayed = store_again(storage, objects, journal, unnamed).await;
        storage.under_way.ended().await;
        replayed
    };
    objects.with_all_space(|| runtime.block_on(replayed))
}

async fn store_again(
    storage: &Arc<Storage>,
    objects: &Arc<Objects>,
    (journal, reader): (&ArrivalJournal, &mut Reader),
    unnamed: UnnamedFiles,
) -> Result<Replayed, ReplayError> {
    let decided = reader.journal_decided(journal.id().to_bytes())?;
    let lost = last_entry(journal)?.saturating_sub(decided);
    if lost > 0 {
        // Somebody may have seen the numbers of the changes that are gone.
        storage.writer.skip_changes(lost)?;
    }
    let counts = Replayed::default();
    let mut replay = Replay { storage, objects, reader, journal, unnamed, for_trash: None, counts };
    for place in journal.groups() {
        let group = journal.read_group(place)?;
        for entry in entries_of(&group) {
            let damaged = || JournalError::Damaged {
                path: journal.path().to_owned(),
                detail: format!("group {} has an entry that cannot be read", place.number),
            };
            let (number, entry) = entry.ok_or_else(damaged)?;
            fail_point!(&format!("journal replay {}", journal.path().display()));
            let Outcome::Instance(record) = read_stream(entry.object, storage.wanted) else {
                return Err(damaged().into());
            };
            let checksum = Checksum::of(data_set_of(entry.object).ok_or_else(damaged)?);
            let object = EntryObject { number, entry, record, checksum };
            replay.remove_unnamed(&object, number <= decided)?;
            if number <= decided { replay.write_again(&object)? } else { replay.enter_again(object).await? }
        }
    }
    let counts = replay.counts;
    objects.flush()?;
    storage.writer.flush_log()?;
    fail_point!(&format!("journal replayed {}", journal.path().display()));
    Ok(counts)
}

/// The number of the last entry, 0 if there is none.
fn last_entry(journal: &ArrivalJournal) -> Result<u64, JournalError> {
    let Some(last) = journal.groups().last() else { return Ok(0) };
    Ok(entries_of(&journal.read_group(last)?).flatten().last().map_or(0, |(number, _)| number))
}

/// An entry with what its object says.
struct EntryObject<'a> {
    number: u64,
    entry: JournalEntry<'a>,
    record: Box<InstanceRecord>,
    checksum: Checksum,
}

/// State of a replay.
struct Replay<'a> {
    storage: &'a Arc<Storage>,
    objects: &'a Arc<Objects>,
    reader: &'a mut Reader,
    journal: &'a ArrivalJournal,
    unnamed: UnnamedFiles,
    /// Files that wait for the trash, once they were asked for.
    for_trash: Option<HashSet<PathBuf>>,
    counts: Replayed,
}

impl Replay<'_> {
    /// Removes files of the instance that the index does not name. What the journal has of them is
    /// written again after that.
    fn remove_unnamed(&mut self, object: &EntryObject<'_>, is_decided: bool) -> Result<(), ReplayError> {
        let uids = uids_of(&object.record);
        let mut paths = self.objects.paths_of(uids);
        let lying: Vec<_> = match self.unnamed {
            UnnamedFiles::Remove => paths.filter(|path| fs::symlink_metadata(path).is_ok()).collect(),
            UnnamedFiles::Keep if is_decided => Vec::new(),
            // Its own file, if it was torn.
            UnnamedFiles::Keep => {
                let own = paths.nth(object.entry.name_number as usize);
                own.into_iter().filter(|path| is_torn(path, object)).collect()
            }
        };
        if lying.is_empty() {
            return Ok(());
        }
        let known = self.reader.known_locations(uids[2])?;
        for path in lying {
            let is_named = known.iter().any(|known| known.location.path().as_ref() == Some(&path));
            if !is_named && !self.is_for_trash(&path)? {
                store::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Whether an operator has removed the instance of a file, which is to go to the trash.
    fn is_for_trash(&mut self, path: &Path) -> Result<bool, ReplayError> {
        let waiting = match self.for_trash.take() {
            Some(waiting) => waiting,
            None => files_for_trash(self.reader)?,
        };
        Ok(self.for_trash.insert(waiting).contains(path))
    }

    /// Writes the object wherever the index has it. What lies there may be whole only in the memory
    /// of the system, because a disk has failed. So it is always written.
    fn write_again(&mut self, object: &EntryObject<'_>) -> Result<(), ReplayError> {
        let uid = object.record.value(AttributeId::SOPInstanceUID);
        let mut is_named = false;
        for known in self.reader.known_locations(uid)? {
            let is_ours = known.location.place == Place::Managed && known.checksum == Some(object.checksum);
            let Some(path) = known.location.path().filter(|path| is_ours && path.starts_with(self.objects.root()))
            else {
                continue;
            };
            // Its File Meta Information is that of its first sender.
            let lying = fs::read(&path).ok().filter(|bytes| has_data_set(bytes, object.checksum));
            self.objects.restore(&path, lying.as_deref().unwrap_or(object.entry.object))?;
            is_named = true;
        }
        self.counts.written += u64::from(is_named);
        self.counts.passed_over += u64::from(!is_named);
        Ok(())
    }

    /// Lets the object arrive once more, since the index has lost what it knew of it.
    async fn enter_again(&mut self, object: EntryObject<'_>) -> Result<(), ReplayError> {
        let EntryObject { number, entry, record, checksum } = object;
        let sender = ReceivedFrom { calling_ae_title: entry.calling_ae_title.to_owned(), address: entry.address };
        let known = ReceivedObject { record, sender: Arc::new(sender), checksum: Some(checksum) };
        let peer = Arc::new(CountedAs::address([127, 0, 0, 1].into()));
        let memory = PeerMemory::new(&Shares::new(0, 0, &metrics::MEMORY_REFUSED), &peer);
        let under_way = &self.storage.under_way;
        let room = under_way.room_for(&peer).map_err(ReplayError::Refused)?;
        let number = JournalEntryId { journal: self.journal.id().to_bytes(), number };
        let file = FileSink::of_entry(self.objects, under_way, (entry.object.to_vec(), number), &memory);
        match keep_object(Arc::clone(self.storage), known, Box::new(file), room).await {
            Ok(_committed) => self.counts.entered += 1,
            // An earlier entry was kept, as the first time.
            Err(ReceiveError::Duplicate) => self.counts.passed_over += 1,
            Err(error) => return Err(ReplayError::Refused(error)),
        }
        Ok(())
    }
}

/// Files between two questions.
const PAGE: usize = 1024;

fn files_for_trash(reader: &mut Reader) -> Result<HashSet<PathBuf>, db::Error> {
    let (mut found, mut after) = (HashSet::new(), None::<RemovedFile>);
    loop {
        let page = reader.files_for_trash(after.as_ref(), PAGE)?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(last.clone());
        found.extend(page.iter().filter_map(|file| file.location.path()));
    }
}

/// Whether a power cut has left a part of an object: no bytes that differ from its own, but for
/// zeros. The object may have got no place, and the file may be that of another one.
fn is_torn(path: &Path, object: &EntryObject<'_>) -> bool {
    let is_part = |bytes: &[u8]| {
        let mut pairs = bytes.iter().zip(object.entry.object);
        bytes.len() <= object.entry.object.len() && pairs.all(|(lying, whole)| lying == whole || *lying == 0)
    };
    match fs::read(path) {
        Ok(bytes) => !has_data_set(&bytes, object.checksum) && is_part(&bytes),
        Err(_) => fs::symlink_metadata(path).is_ok(),
    }
}

fn has_data_set(file: &[u8], checksum: Checksum) -> bool {
    data_set_of(file).is_some_and(|data_set| Checksum::of(data_set) == checksum)
}
