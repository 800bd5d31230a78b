//! The contents of an index as plain collections, and how arrivals and scans change them.
//!
//! The index in memory is one such value. The PostgreSQL engine loads the part that a transaction
//! is about, changes it here, and writes back what differs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::db::arrival::{ArrivalEntry, SourceOfInstances};
use crate::db::event_notes::EventNotes;
use crate::db::rules::{
    ArrivingObject, Decision, FirstLocation, FoundDecision, FoundFile, FurtherLocation, KeptMetadata, KnownInstance,
    ObjectContent, differs_from_new_first, in_order_of_series, is_same_object,
};
use crate::db::{
    ConflictEntry, FileOutcome, KnownLocation, Mounted, Note, Received, Removal, ScanEntry, ScannedDirectory,
    ScannedFile, StoreOutcome, Tally,
};
use crate::model::attribute::AttributeId;
use crate::model::checksum::Checksum;
use crate::model::declared::DeclaredSet;
use crate::model::location::{Location, Place};
use crate::model::record::InstanceRecord;
use crate::model::uid::is_valid_uid;

/// The key of a file. An archive file differs from a directory of the same path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::db) struct FileKey {
    pub(in crate::db) is_archive: bool,
    pub(in crate::db) directory: PathBuf,
    pub(in crate::db) name: OsString,
}

impl FileKey {
    pub(in crate::db) fn of(place: Place, directory: &Path, name: &OsStr) -> Self {
        Self { is_archive: place == Place::Archive, directory: directory.to_owned(), name: name.to_owned() }
    }
}

/// A location of an instance, with its object.
#[derive(Clone)]
pub(in crate::db) struct StoredFile {
    pub(in crate::db) location: Location,
    pub(in crate::db) record: InstanceRecord,
    pub(in crate::db) checksum: Option<Checksum>,
    /// Whether it is known to differ from the first location.
    pub(in crate::db) differs: bool,
    /// Attributes that were declared when it was read.
    pub(in crate::db) declared: String,
    /// Of a first location: the number of the arrival of its instance. 0 if it is not known.
    pub(in crate::db) arrival: i64,
}

impl StoredFile {
    pub(in crate::db) fn key(&self) -> FileKey {
        FileKey::of(self.location.place, &self.location.directory, &self.location.file_name)
    }

    /// Whether this is the key of the file. It costs less than making the key.
    fn is_at(&self, key: &FileKey) -> bool {
        self.location.file_name == key.name
            && (self.location.place == Place::Archive) == key.is_archive
            && self.location.directory == key.directory
    }

    fn content(&self) -> ObjectContent<'_> {
        let Self { location, record, checksum, .. } = self;
        ObjectContent { record, place: location.place, size: location.size, checksum: *checksum }
    }

    pub(in crate::db) fn has_object(&self) -> bool {
        self.location.place != Place::MetadataOnly
    }
}

impl ConflictEntry {
    /// A conflict of this object.
    pub(in crate::db) fn of(kind: &str, object: &StoredFile) -> Self {
        let value = |id| object.record.value(id).to_owned();
        Self {
            kind: kind.to_owned(),
            study_instance_uid: value(AttributeId::StudyInstanceUID),
            other_study_instance_uid: String::new(),
            series_instance_uid: value(AttributeId::SeriesInstanceUID),
            sop_instance_uid: value(AttributeId::SOPInstanceUID),
            path: object.location.path().unwrap_or_default(),
        }
    }
}

/// A file that is not indexed, or an indexed file that a DICOMDIR does not list.
#[derive(Clone)]
pub(in crate::db) struct Unindexed {
    pub(in crate::db) size: u64,
    pub(in crate::db) mtime_ms: i64,
    pub(in crate::db) note: Note,
}

/// An instance that scans do not bring back.
#[derive(Clone)]
pub(in crate::db) struct RemovedInstance {
    /// Number of the removal.
    pub(in crate::db) removal: i64,
    /// All that was known of it, if no object can bring it back.
    pub(in crate::db) record: Option<InstanceRecord>,
}

/// A file of a removed instance, as it was then.
#[derive(Clone)]
pub(in crate::db) struct FileOfRemoved {
    pub(in crate::db) file: StoredFile,
    pub(in crate::db) removal: i64,
    pub(in crate::db) state: i64,
}

/// The contents of the index.
#[derive(Default)]
pub(in crate::db) struct Contents {
    /// The locations of instances by UID. The first location comes first, and there is always one.
    pub(in crate::db) instances: BTreeMap<String, Vec<StoredFile>>,
    pub(in crate::db) unindexed: BTreeMap<FileKey, Unindexed>,
    pub(in crate::db) missing: BTreeSet<FileKey>,
    pub(in crate::db) faults: BTreeMap<FileKey, String>,
    /// Conflicts that the locations do not show: kind, SOP Instance UID, and the object.
    pub(in crate::db) conflicts: BTreeMap<(&'static str, String, FileKey), StoredFile>,
    pub(in crate::db) directories: BTreeSet<(u8, PathBuf)>,
    /// Removed instances by UID.
    pub(in crate::db) removed: BTreeMap<String, RemovedInstance>,
    /// Files of instances that are removed, or were.
    pub(in crate::db) removed_files: BTreeMap<FileKey, FileOfRemoved>,
    /// Removals by number, without their counts.
    pub(in crate::db) removals: BTreeMap<i64, Removal>,
    /// The highest number of a removal that was undone.
    pub(in crate::db) undone_removal: i64,
    /// Number of instances that each removal took out.
    pub(in crate::db) removed_counts: BTreeMap<i64, u64>,
    pub(in crate::db) mount_points: BTreeSet<PathBuf>,
    pub(in crate::db) exchanged_disks: BTreeSet<PathBuf>,
    pub(in crate::db) scans: Vec<ScanEntry>,
    /// State of watched paths.
    pub(in crate::db) watches: BTreeMap<String, String>,
    pub(in crate::db) id: Option<String>,
    /// The arrival of what is being entered: see [`StoredFile::arrival`].
    pub(in crate::db) arrival: i64,
    /// The arrivals of sources, by their numbers.
    pub(in crate::db) arrivals: HashMap<SourceOfInstances, i64>,
    /// In a piece of an index: rows of arrivals by their numbers.
    pub(in crate::db) arrival_entries: BTreeMap<i64, ArrivalEntry>,
    /// In a piece of an index: the number of its last change, or 0.
    pub(in crate::db) last_change: i64,
    /// Events for programs that follow the index.
    pub(in crate::db) events: EventNotes,
    pub(in crate::db) tally: Tally,
    /// Number of changes.
    pub(in crate::db) version: i64,
}

/// The number of a kind of place, by which directories are grouped.
pub(in crate::db) fn kind(place: Place) -> u8 {
    match place {
        Place::InPlace => 0,
        Place::Managed => 1,
        Place::MetadataOnly => 2,
        Place::Archive => 3,
    }
}

/// Questions of a decision to the index.
struct FileQuestions<'c> {
    contents: &'c Contents,
    held: &'c [StoredFile],
    new: &'c StoredFile,
}

impl FirstLocation for FileQuestions<'_> {
    type Error = std::convert::Infallible;

    fn differs(&mut self) -> Result<bool, Self::Error> {
        // A checksum counts only in a decision that asks for it.
        let without = |held: &StoredFile| StoredFile { checksum: None, ..held.clone() };
        Ok(self.held.first().is_some_and(|first| without(self.new).content().differs_from(&without(first).content())))
    }

    fn first_is_there(&mut self) -> Result<bool, Self::Error> {
        Ok(self.held.first().is_some_and(|first| self.contents.is_there(first)))
    }
}

impl KnownInstance for FileQuestions<'_> {
    fn is_further(&mut self) -> Result<bool, Self::Error> {
        Ok(self.held.iter().skip(1).any(|copy| copy.key() == self.new.key()))
    }

    fn has_own(&mut self) -> Result<bool, Self::Error> {
        Ok(self.held.iter().skip(1).any(|copy| copy.location.place == Place::Managed))
    }

    fn kept_metadata(&mut self) -> Result<KeptMetadata, Self::Error> {
        let Some(kept) = self.held.iter().skip(1).find(|copy| !copy.has_object()) else {
            return Ok(KeptMetadata::Nothing);
        };
        let is_as_first = self.held.first().is_some_and(|first| is_same_object(&kept.record, &first.record));
        let is_same = !is_as_first && is_same_object(&kept.record, &self.new.record);
        Ok(if is_same { KeptMetadata::Same } else { KeptMetadata::Other })
    }
}

impl Contents {
    /// Whether an object lies where the index says, as far as scans know.
    pub(in crate::db) fn is_there(&self, held: &StoredFile) -> bool {
        held.has_object() && !self.missing.contains(&held.key())
    }

    /// Whether an instance can be retrieved from one of its locations.
    pub(in crate::db) fn is_online(&self, held: &[StoredFile]) -> bool {
        let Some((first, copies)) = held.split_first() else { return false };
        first.has_object() && (self.is_there(first) || copies.iter().any(|copy| !copy.differs && self.is_there(copy)))
    }

    /// Takes an instance that was received, for programs that follow the index too.
    pub(in crate::db) fn arrived_from(
        &mut self,
        received: &Received,
        source: &SourceOfInstances,
        declared: &DeclaredSet,
    ) -> (StoreOutcome, Option<KnownLocation>) {
        self.set_source(source);
        let arrived = self.arrived(received, declared);
        if arrived.0.brings_object() {
            self.events.note_stored(&received.record, &received.sender);
        }
        arrived
    }

    /// Says who brings what is entered from now on.
    pub(in crate::db) fn set_source(&mut self, source: &SourceOfInstances) {
        self.arrival = self.arrivals.get(source).copied().unwrap_or(0);
    }

    /// A further location, as decisions see it.
    fn further(&self, copy: &StoredFile) -> FurtherLocation {
        let is_missing = self.missing.contains(&copy.key());
        FurtherLocation { place: copy.location.place, is_missing, differs: copy.differs }
    }

    /// Gives the node's own directories at or below `from` their paths at or below `to`. Returns
    /// how many.
    pub(in crate::db) fn storage_moved(&mut self, from: &Path, to: &Path) -> u64 {
        let own = kind(Place::Managed);
        let new_path = |path: &Path| Some(to.join(path.strip_prefix(from).ok()?));
        let known: Vec<PathBuf> =
            self.directories.iter().filter(|(kind, _)| *kind == own).map(|(_, path)| path.clone()).collect();
        let moves: BTreeMap<PathBuf, PathBuf> = known
            .into_iter()
            .filter_map(|path| new_path(&path).map(|new| (path, new)))
            .filter(|(_, new)| {
                ![Place::InPlace, Place::Managed]
                    .iter()
                    .any(|place| self.directories.contains(&(kind(*place), new.clone())))
            })
            .collect();
        for (path, new) in &moves {
            self.directories.remove(&(own, path.clone()));
            self.directories.insert((own, new.clone()));
        }
        for held in self.instances.values_mut().flatten().filter(|held| held.location.place == Place::Managed) {
            if let Some(new) = moves.get(&held.location.directory) {
                held.location.directory.clone_from(new);
            }
        }
        let moved = |key: FileKey| match moves.get(&key.directory) {
            Some(new) if !key.is_archive => FileKey { directory: new.clone(), ..key },
            _ => key,
        };
        self.missing = std::mem::take(&mut self.missing).into_iter().map(moved).collect();
        moves.len() as u64
    }

    /// Takes an instance that was received.
    pub(in crate::db) fn arrived(
        &mut self,
        received: &Received,
        declared: &DeclaredSet,
    ) -> (StoreOutcome, Option<KnownLocation>) {
        let &Received { ref record, ref location, checksum, policy, compared, .. } = received;
        let arrival = self.arrival;
        let new = StoredFile { arrival, ..held((**record).clone(), location.clone(), checksum, declared) };
        self.directories.insert((kind(new.location.place), new.location.directory.clone()));
        let uid = new.record.value(AttributeId::SOPInstanceUID).to_owned();
        let Some(held) = self.instances.get(&uid).cloned() else {
            if self.removed.contains_key(&uid) {
                // Whoever sends it wants it kept.
                self.lift_removed(&uid, Some(&new));
            }
            self.note(&new);
            self.instances.insert(uid, vec![new]);
            return (StoreOutcome::New, None);
        };
        let Some(first) = held.first() else { return (StoreOutcome::New, None) };
        let arriving = ArrivingObject {
            place: new.location.place,
            checksum,
            compared,
            policy,
            first_place: first.location.place,
            first_checksum: first.checksum,
            is_first: first.key() == new.key(),
            in_first_directory: first.location.directory == new.location.directory,
        };
        let Ok(decision) = arriving.decide(&mut FileQuestions { contents: self, held: &held, new: &new });
        let first_location = arriving.names_first(decision).then(|| KnownLocation {
            location: first.location.clone(),
            checksum: first.checksum,
            differs: false,
            corrected: None,
        });
        let uncompared = first_location.as_ref().map(|first| first.location.clone());
        let outcome = match decision {
            Decision::SameFile | Decision::Known => StoreOutcome::Identical { uncompared: None },
            Decision::Undecided => StoreOutcome::Identical { uncompared },
            Decision::Complete => self.complete(&uid, new, first),
            Decision::KeepCopy { differs } => {
                self.forget_marks(&new.key());
                self.change(&uid, |held| retain_copies(held, StoredFile::has_object));
                self.note(&new);
                self.add_copy(&uid, new, differs);
                StoreOutcome::KeptCopy { differs }
            }
            Decision::KeepMetadata { differs } => self.keep_metadata(&uid, new, differs),
            Decision::Refuse => {
                self.note_conflict("instance-with-other-content", &new);
                StoreOutcome::KeptFirst
            }
            Decision::Replace => self.replace(&uid, new, first),
        };
        (outcome, first_location)
    }

    /// Gives an instance the object that it was without.
    fn complete(&mut self, uid: &str, new: StoredFile, first: &StoredFile) -> StoreOutcome {
        self.forget_marks(&first.key());
        self.change(uid, |held| held.retain(|copy| copy.has_object() && copy.key() != new.key()));
        self.note(&new);
        self.put_first(uid, new, first);
        StoreOutcome::Completed
    }

    /// Keeps metadata beside the file of the instance.
    fn keep_metadata(&mut self, uid: &str, new: StoredFile, differs: bool) -> StoreOutcome {
        let location = Location { file_name: uid.into(), ..new.location.clone() };
        self.note(&new);
        self.add_copy(uid, StoredFile { location, ..new }, differs);
        if differs { StoreOutcome::KeptCopy { differs } } else { StoreOutcome::Identical { uncompared: None } }
    }

    /// Replaces the first location. Objects of ours with the former content go with it.
    fn replace(&mut self, uid: &str, new: StoredFile, first: &StoredFile) -> StoreOutcome {
        let (own, key) = (|held: &StoredFile| held.location.place == Place::Managed && !held.differs, new.key());
        let held = self.instances.get(uid).cloned().unwrap_or_default();
        let mut gone: Vec<&StoredFile> = held.iter().skip(1).filter(|copy| own(copy)).collect();
        gone.extend((first.location.place == Place::Managed).then_some(first));
        let previous = gone.iter().filter(|held| held.key() != key).filter_map(|held| held.location.path()).collect();
        for held in &gone {
            self.forget_marks(&held.key());
        }
        self.change(uid, |held| retain_copies(held, |copy| !own(copy) && copy.has_object() && copy.key() != key));
        self.note_conflict("instance-with-other-content", &new);
        self.note(&new);
        let keeps_first = matches!(first.location.place, Place::InPlace | Place::Archive);
        self.put_first(uid, new, first);
        if keeps_first {
            self.change(uid, |held| held.insert(1, StoredFile { differs: true, ..first.clone() }));
        }
        StoreOutcome::Replaced { previous }
    }

    /// Puts an object in the place of the first location. Further files that are gone and hold the
    /// same have moved there.
    fn put_first(&mut self, uid: &str, new: StoredFile, former: &StoredFile) {
        let mut held = self.instances.remove(uid).unwrap_or_default();
        if held.first().is_some_and(|first| first.key() == former.key()) {
            held.remove(0);
        }
        for copy in &mut held {
            copy.differs = differs_from_new_first(&copy.content(), copy.differs, &former.content(), &new.content());
        }
        held.insert(0, StoredFile { differs: false, ..new });
        self.instances.insert(uid.to_owned(), held);
        if self.instances.get(uid).and_then(|held| held.first()).is_some_and(StoredFile::has_object) {
            self.drop_spare(uid);
        }
    }

    /// Drops further files of an instance that are gone and hold the same as the first one.
    fn drop_spare(&mut self, uid: &str) {
        let held = self.instances.get(uid).cloned().unwrap_or_default();
        let is_spare = |copy: &&StoredFile| self.further(copy).is_spare();
        let spare: Vec<FileKey> = held.iter().skip(1).filter(is_spare).map(StoredFile::key).collect();
        for key in spare {
            self.change(uid, |held| retain_copies(held, |copy| copy.key() != key));
            self.forget_marks(&key);
            self.tally.moved += 1;
        }
    }

    fn add_copy(&mut self, uid: &str, new: StoredFile, by_bytes: bool) -> bool {
        let held = self.instances.entry(uid.to_owned()).or_default();
        retain_copies(held, |copy| copy.key() != new.key());
        let differs = by_bytes || held.first().is_some_and(|first| new.content().differs_from(&first.content()));
        if differs {
            self.tally.conflicts += 1;
            self.events.note_conflict("instance-with-other-content", Some(&new.record));
        }
        held.push(StoredFile { differs, ..new });
        differs
    }

    fn change(&mut self, uid: &str, change: impl FnOnce(&mut Vec<StoredFile>)) {
        if let Some(held) = self.instances.get_mut(uid) {
            change(held);
        }
    }

    /// Notes the faults of an object, and a conflict if a UID breaks PS3.5 9.1.
    fn note(&mut self, new: &StoredFile) {
        let faults = new.record.faults().join("; ");
        if !faults.is_empty() {
            self.faults.insert(new.key(), faults);
            self.tally.faulty += 1;
        }
        let uids = [AttributeId::SOPInstanceUID, AttributeId::SeriesInstanceUID, AttributeId::StudyInstanceUID];
        if !uids.into_iter().all(|id| is_valid_uid(new.record.value(id))) {
            self.note_conflict("invalid-uid", new);
        }
    }

    fn note_conflict(&mut self, kind: &'static str, object: &StoredFile) {
        let uid = object.record.value(AttributeId::SOPInstanceUID).to_owned();
        let is_new = self.conflicts.insert((kind, uid, object.key()), object.clone()).is_none();
        if is_new {
            self.tally.conflicts += 1;
            self.events.note_conflict(kind, Some(&object.record));
        }
    }

    pub(in crate::db) fn forget_marks(&mut self, key: &FileKey) {
        self.unindexed.remove(key);
        self.faults.remove(key);
        self.missing.remove(key);
        self.conflicts.retain(|(_, _, of), _| of != key);
    }

    /// Drops a file. Returns whether it was a location of an instance.
    pub(in crate::db) fn remove_file(&mut self, key: &FileKey) -> bool {
        self.forget_marks(key);
        let is_here = |held: &[StoredFile]| held.iter().any(|file| file.is_at(key));
        let uids: Vec<String> =
            self.instances.iter().filter(|(_, held)| is_here(held)).map(|(uid, _)| uid.clone()).collect();
        let mut was_location = false;
        for uid in uids {
            let Some(held) = self.instances.get(&uid).cloned() else { continue };
            if held.first().is_some_and(|first| first.key() == *key) {
                was_location = true;
                if !self.promote(&uid, |_, _| true) {
                    self.instances.remove(&uid);
                    self.conflicts.retain(|(kind, of, _), _| *kind != "instance-with-other-content" || *of != uid);
                }
            } else if held.iter().any(|copy| copy.key() == *key) {
                was_location = true;
                self.change(&uid, |held| retain_copies(held, |copy| copy.key() != *key));
            }
        }
        was_location
    }

    /// Makes a further location the first one, and forgets the former. Returns whether there is one
    /// that may.
    fn promote(&mut self, uid: &str, may: impl Fn(&Self, &StoredFile) -> bool) -> bool {
        let mut held = self.instances.get(uid).cloned().unwrap_or_default();
        let rank = |copy: &StoredFile| {
            let missing = self.missing.contains(&copy.key());
            (!copy.has_object(), missing, copy.differs, copy.key())
        };
        let best = (1..held.len()).filter(|&at| may(self, &held[at])).min_by_key(|&at| rank(&held[at]));
        let Some(best) = best else { return false };
        let mut next = held.remove(best);
        if !next.has_object() {
            // Metadata have no file, and so no name.
            next.location.file_name = OsString::new();
        }
        let former = held[0].clone();
        next.arrival = former.arrival;
        self.instances.insert(uid.to_owned(), held);
        self.put_first(uid, next, &former);
        true
    }

    /// Takes what a scan found in a directory.
    pub(in crate::db) fn scanned(&mut self, scanned: &ScannedDirectory, declared: &DeclaredSet) {
        let ScannedDirectory { place, directory, files, vanished, missing, returned, .. } = scanned;
        let place = *place;
        self.directories.insert((kind(place), directory.clone()));
        let key = |name: &OsStr| FileKey::of(place, directory, name);
        for name in vanished {
            self.tally.removed += u64::from(self.remove_file(&key(name)));
        }
        for name in returned {
            self.missing.remove(&key(name));
            if let Some(uid) = self.first_at(&key(name)) {
                self.drop_spare(&uid);
            }
        }
        for name in missing {
            self.note_missing(key(name));
        }
        for file in in_order_of_series(files) {
            self.scanned_file(place, directory, file, declared);
        }
    }

    fn first_at(&self, key: &FileKey) -> Option<String> {
        let found = self.instances.iter().find(|(_, held)| held.first().is_some_and(|first| first.is_at(key)));
        found.map(|(uid, _)| uid.clone())
    }

    fn note_missing(&mut self, key: FileKey) {
        let copy = self.instances.iter().find_map(|(uid, held)| {
            let copy = held.iter().skip(1).find(|copy| copy.is_at(&key))?;
            Some((uid.clone(), !copy.differs && held.first().is_some_and(|first| self.is_there(first))))
        });
        let moved = match (copy, self.first_at(&key)) {
            (Some((_, false)), _) => false,
            (Some((uid, true)), _) => {
                self.change(&uid, |held| retain_copies(held, |copy| copy.key() != key));
                true
            }
            (None, Some(uid)) => self.promote(&uid, |contents, copy| contents.further(copy).can_replace_first()),
            (None, None) => return,
        };
        if moved {
            self.forget_marks(&key);
            self.tally.moved += 1;
        } else {
            self.missing.insert(key);
        }
    }

    fn scanned_file(&mut self, place: Place, directory: &Path, file: &ScannedFile, declared: &DeclaredSet) {
        let &ScannedFile { ref file_name, size, mtime_ms, known, reread, ref outcome } = file;
        let key = FileKey::of(place, directory, file_name);
        let record = match outcome {
            FileOutcome::Instance(record) => (**record).clone(),
            FileOutcome::NotIndexed { kind, reason, detail } => {
                if known {
                    self.remove_file(&key);
                }
                let note = Note { kind: *kind, reason: (*reason).to_owned(), detail: detail.clone() };
                self.unindexed.insert(key, Unindexed { size, mtime_ms, note });
                return;
            }
        };
        let file_name = file_name.clone();
        let location = Location { place, directory: directory.to_owned(), file_name, size, mtime_ms };
        let arrival = self.arrival;
        let new = StoredFile { arrival, ..held(record, location, None, declared) };
        if self.withhold(&new, known, reread) {
            return;
        }
        let uid = new.record.value(AttributeId::SOPInstanceUID).to_owned();
        let faults = (!new.record.faults().is_empty()).then(|| new.record.faults().join("; "));
        if reread {
            let same = |held: &StoredFile| held.key() == key && held.location.size == size;
            let known = self.instances.get(&uid).and_then(|held| held.iter().enumerate().find(|(_, held)| same(held)));
            // The declared values of a further file are not kept.
            let is_as_indexed = known.is_some_and(|(at, known)| {
                is_same_object(&known.record, &new.record) && (at > 0 || declared.is_covered_by(&known.declared))
            }) && self.faults.get(&key) == faults.as_ref();
            if is_as_indexed {
                return;
            }
            self.tally.corrected += 1;
        }
        if known {
            if self.first_at(&key).as_deref() != Some(&uid) {
                self.remove_file(&key);
            }
            self.forget_marks(&key);
        }
        self.note(&new);
        self.enter(&uid, new, known);
    }

    /// Enters the object of a file that a scan found.
    fn enter(&mut self, uid: &str, new: StoredFile, known: bool) {
        let Some(first) = self.instances.get(uid).and_then(|held| held.first()).cloned() else {
            *(if known { &mut self.tally.updated } else { &mut self.tally.indexed }) += 1;
            self.instances.insert(uid.to_owned(), vec![new]);
            return;
        };
        let found = FoundFile { is_first: first.key() == new.key(), first_place: first.location.place };
        let held = self.instances.get(uid).cloned().unwrap_or_default();
        let Ok(decision) = found.decide(&mut FileQuestions { contents: self, held: &held, new: &new });
        // A scan corrects what is known of the instance, which came when it came.
        let new = StoredFile { arrival: first.arrival, ..new };
        match decision {
            FoundDecision::Update => {
                // An object of ours is read again for its values. Its checksum was made when it
                // came.
                let checksum = first.checksum.filter(|_| new.location.place == Place::Managed);
                self.put_first(uid, StoredFile { checksum, ..new }, &first);
                self.tally.updated += 1;
            }
            FoundDecision::Complete => {
                let location = Location { file_name: uid.into(), ..first.location.clone() };
                self.put_first(uid, new, &first);
                self.add_copy(uid, StoredFile { location, ..first }, false);
                self.tally.indexed += 1;
            }
            FoundDecision::Move => {
                self.forget_marks(&first.key());
                self.put_first(uid, new, &first);
                self.tally.moved += 1;
            }
            FoundDecision::KeepCopy => {
                self.add_copy(uid, new, false);
                self.tally.copies += 1;
            }
        }
    }

    /// Notes what a scan has seen of the disk at a directory.
    pub(in crate::db) fn mount_point(&mut self, path: PathBuf, mounted: Mounted) {
        match mounted {
            Mounted::Yes => self.mount_points.insert(path),
            Mounted::NoLonger => self.mount_points.remove(&path),
            Mounted::Exchanged => self.exchanged_disks.insert(path),
            Mounted::NotExchanged => self.exchanged_disks.remove(&path),
        };
    }

    /// The missing files at or below these paths.
    pub(in crate::db) fn missing_at(&self, roots: &[PathBuf], except: &[PathBuf]) -> Vec<FileKey> {
        let of_root = |key: &FileKey| {
            let path = key.directory.join(&key.name);
            let is_excepted = except.iter().any(|except| key.directory.starts_with(except));
            roots
                .iter()
                .any(|root| (key.directory.starts_with(root) && !is_excepted) || (!key.is_archive && path == *root))
        };
        self.missing.iter().filter(|key| of_root(key)).cloned().collect()
    }

    /// Counts the missing files at or below these paths, or drops them.
    pub(in crate::db) fn resolve_missing(&mut self, roots: &[PathBuf], except: &[PathBuf], prune: bool) -> u64 {
        let found = self.missing_at(roots, except);
        if !prune {
            return found.len() as u64;
        }
        for key in found {
            // A file that has gone along with one before it is counted with that.
            if self.missing.contains(&key) {
                self.tally.removed += u64::from(self.remove_file(&key));
            }
        }
        0
    }
}

fn held(record: InstanceRecord, location: Location, checksum: Option<Checksum>, declared: &DeclaredSet) -> StoredFile {
    let declared = if record.has_declared() { declared.mark().to_owned() } else { String::new() };
    StoredFile { location, record, checksum, differs: false, declared, arrival: 0 }
}

/// Keeps the first location, and the further ones that `keep` accepts.
fn retain_copies(files: &mut Vec<StoredFile>, keep: impl Fn(&StoredFile) -> bool) {
    let mut is_first = true;
    files.retain(|held| std::mem::take(&mut is_first) || keep(held));
}
