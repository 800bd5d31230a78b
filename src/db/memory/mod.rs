//! An index in memory: slow, obvious, and gone with its process.
//!
//! It answers each query by looking at every entity, as PS3.4 defines an answer. The tests compare
//! the other engines with it. It does not answer keys about arrivals, and takes every mounted disk
//! to be there.
//!
//! What it shares, and with whom:
//!
//! - the decisions (`rules`) and the matching of single values, with every engine. The matching has
//!   an oracle of its own in the tests;
//! - how arrivals and scans change an index (`contents`) and how an entity answers (`view`), with
//!   PostgreSQL. So for these two SQLite is the independent engine: random histories compare it
//!   with this one, and with PostgreSQL (docs/adr/0053).

mod removals;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::contents::{Contents, FileKey, StoredFile, kind};
use super::view::{ArchiveView, GroupView, InstanceView, StudyView, check};
use super::{
    Admin, Arrivals, CheckReport, Committed, ConflictEntry, DeclaredCoverage, DirectorySnapshot, Error, FailureEntry,
    IndexStatus, Interrupt, KnownFile, KnownLocation, LocatedInstance, Mounted, NotIndexed, OnStored, Received,
    ScanEntry, ScanLedger, ScannedDirectory, Search, Stored, StudyReport, Tally, WatchEntry,
};
use crate::model::attribute::AttributeId;
use crate::model::availability::ObjectAvailability;
use crate::model::clock::Clock;
use crate::model::declared::DeclaredSet;
use crate::model::find::{FindAnswer, FindRequest};
use crate::model::location::Place;

/// An index in memory. Clones are of the same index.
#[derive(Clone)]
pub struct MemoryIndex {
    contents: Arc<Mutex<Contents>>,
    declared: Arc<DeclaredSet>,
    clock: Clock,
    /// Whether a query is being answered, and whether it must end.
    is_asked: Arc<AtomicBool>,
    is_interrupted: Arc<AtomicBool>,
}

impl MemoryIndex {
    /// Makes an empty index for records with these declared attributes.
    #[must_use]
    pub fn new(declared: Arc<DeclaredSet>, clock: Clock) -> Self {
        let (is_asked, is_interrupted) = (Arc::default(), Arc::default());
        Self { contents: Arc::default(), declared, clock, is_asked, is_interrupted }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn to_change(&self) -> MutexGuard<'_, Contents> {
        let mut contents = self.contents();
        contents.version += 1;
        contents
    }

    /// The files of a directory or archive file.
    fn files_of(&self, contents: &Contents, is_archive: bool, directory: &Path) -> Vec<(OsString, KnownFile)> {
        let is_here = |key: &FileKey| key.is_archive == is_archive && key.directory == directory;
        let mut found = Vec::new();
        for held in contents.instances.values() {
            for (at, held) in held.iter().enumerate().filter(|(_, held)| is_here(&held.key())) {
                let file = KnownFile {
                    size: held.location.size,
                    mtime_ms: held.location.mtime_ms,
                    note: None,
                    missing: contents.missing.contains(&held.key()),
                    lacks_declared: at == 0 && self.lacks_declared(held),
                };
                found.push((held.location.file_name.clone(), file));
            }
        }
        for (key, file) in contents.unindexed.iter().filter(|(key, _)| is_here(key)) {
            let note = Some(Arc::new(file.note.clone()));
            let (size, mtime_ms) = (file.size, file.mtime_ms);
            found.push((key.name.clone(), KnownFile { size, mtime_ms, note, missing: false, lacks_declared: false }));
        }
        found
    }

    fn answers(&self, request: &FindRequest) -> Result<Vec<FindAnswer>, Error> {
        check(request)?;
        if request.arrival != Default::default() {
            return Err(Error::Unsupported("this index does not know how instances came".into()));
        }
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let rest = view_of(&self.contents()).answers(request, &|_| true)?.skip(count(request.offset));
        Ok(rest.take(request.limit.map_or(usize::MAX, count)).collect())
    }

    fn lacks_declared(&self, held: &StoredFile) -> bool {
        !self.declared.is_empty() && !self.declared.is_covered_by(&held.declared)
    }

    fn without_declared(&self, place: Place, root: &Path) -> Vec<PathBuf> {
        let contents = self.contents();
        let firsts = contents.instances.values().filter_map(|held| held.first());
        let here = firsts.filter(|held| held.location.place == place && held.location.directory.starts_with(root));
        here.filter(|held| self.lacks_declared(held)).map(|held| held.location.directory.clone()).collect()
    }
}

/// Each instance as an instance group of its own.
fn view_of(contents: &Contents) -> ArchiveView<'_> {
    let mut by_study: BTreeMap<&str, (Vec<GroupView<'_>>, Vec<InstanceView<'_>>)> = BTreeMap::new();
    for held in contents.instances.values() {
        let Some(first) = held.first() else { continue };
        let access = ObjectAvailability::of(contents.is_online(held));
        let (groups, instances) = by_study.entry(first.record.value(AttributeId::StudyInstanceUID)).or_default();
        let (record, group, location) = (&first.record, groups.len(), Some(&first.location));
        instances.push(InstanceView { record, group, access, location });
        groups.push(GroupView { record, count: 1, access, has_arrived: true, has_changed: true });
    }
    ArchiveView::whole(by_study.into_values().map(|(groups, instances)| StudyView::new(groups, instances)).collect())
}

impl Search for MemoryIndex {
    fn find(
        &mut self,
        request: &FindRequest,
        mut on_answer: impl FnMut(FindAnswer) -> ControlFlow<()>,
    ) -> Result<u64, Error> {
        self.is_interrupted.store(false, SeqCst);
        self.is_asked.store(true, SeqCst);
        let answers = self.answers(request);
        let mut answered = 0;
        let give = || {
            for answer in answers? {
                if self.is_interrupted.load(SeqCst) {
                    return Err(Error::Interrupted);
                }
                answered += 1;
                if on_answer(answer).is_break() {
                    break;
                }
            }
            Ok(())
        };
        let given = give();
        self.is_asked.store(false, SeqCst);
        given.map(|()| answered)
    }

    fn interrupt(&self) -> Interrupt {
        let (is_asked, is_interrupted) = (Arc::clone(&self.is_asked), Arc::clone(&self.is_interrupted));
        Interrupt::new(move || {
            if is_asked.load(SeqCst) {
                is_interrupted.store(true, SeqCst);
            }
        })
    }

    fn known_locations(&mut self, sop_instance_uid: &str) -> Result<Vec<KnownLocation>, Error> {
        let contents = self.contents();
        let held = contents.instances.get(sop_instance_uid).map_or([].as_slice(), Vec::as_slice);
        let (first, copies) = held.split_at(held.len().min(1));
        let mut copies: Vec<&StoredFile> = copies.iter().filter(|copy| copy.has_object()).collect();
        copies.sort_by_key(|copy| copy.key());
        let mut found: Vec<&StoredFile> = first.iter().chain(copies).collect();
        found.sort_by_key(|held| (held.differs, contents.missing.contains(&held.key())));
        let known = |held: &StoredFile| KnownLocation {
            location: held.location.clone(),
            checksum: held.checksum,
            differs: held.differs,
            corrected: None,
        };
        Ok(found.into_iter().map(known).collect())
    }

    fn transfer_syntax_counts(&mut self) -> Result<Vec<(String, String, u64)>, Error> {
        let mut counts: HashMap<(String, String), u64> = HashMap::new();
        for first in self.contents().instances.values().filter_map(|held| held.first()) {
            let value = |id| first.record.value(id).to_owned();
            let pair = (value(AttributeId::SOPClassUID), value(AttributeId::AvailableTransferSyntaxUID));
            *counts.entry(pair).or_default() += 1;
        }
        Ok(counts.into_iter().map(|((class, syntax), count)| (class, syntax, count)).collect())
    }

    fn version(&mut self) -> Result<i64, Error> {
        Ok(self.contents().version)
    }

    fn another(&self) -> Result<Self, Error> {
        Ok(Self { is_asked: Arc::default(), is_interrupted: Arc::default(), ..self.clone() })
    }
}

impl Arrivals for MemoryIndex {
    fn store(&self, received: Received, on_done: OnStored) {
        let (outcome, first) = self.to_change().arrived(&received, &self.declared);
        on_done(Ok(Stored { committed: Committed(()), outcome, first }));
    }

    fn scanned(&self, directory: ScannedDirectory) -> Result<(), Error> {
        self.to_change().scanned(&directory, &self.declared);
        Ok(())
    }

    fn begin_scan(&self, roots: String) -> Result<i64, Error> {
        let mut contents = self.to_change();
        let scan = i64::try_from(contents.scans.len()).unwrap_or(i64::MAX).saturating_add(1);
        let started_ms = self.clock.now_ms();
        contents.scans.push(ScanEntry { scan, started_ms, finished_ms: None, roots, summary: None });
        Ok(scan)
    }

    fn begin_pass(&self, roots: String, scan: Option<i64>) -> Result<i64, Error> {
        let known = scan.filter(|scan| self.contents().scans.iter().any(|entry| entry.scan == *scan));
        known.map_or_else(|| self.begin_scan(roots), Ok)
    }

    fn note_watch(&self, roots: String, state: Option<String>) -> Result<(), Error> {
        let watches = &mut self.to_change().watches;
        match state {
            Some(state) => drop(watches.insert(roots, state)),
            None => drop(watches.remove(&roots)),
        }
        Ok(())
    }

    fn end_scan(&self, scan: i64, summary: String) -> Result<(), Error> {
        if let Some(entry) = self.to_change().scans.iter_mut().find(|entry| entry.scan == scan) {
            (entry.finished_ms, entry.summary) = (Some(self.clock.now_ms()), Some(summary));
        }
        Ok(())
    }

    fn mount_point(&self, path: PathBuf, mounted: Mounted) -> Result<(), Error> {
        self.to_change().mount_point(path, mounted);
        Ok(())
    }

    fn resolve_missing(&self, roots: Vec<PathBuf>, except: Vec<PathBuf>, prune: bool) -> Result<u64, Error> {
        Ok(self.to_change().resolve_missing(&roots, &except, prune))
    }

    fn flush(&self) -> Result<Tally, Error> {
        Ok(std::mem::take(&mut self.to_change().tally))
    }

    fn name_index(&self, id: Option<String>) -> Result<String, Error> {
        let own = || format!("{:p}", Arc::as_ptr(&self.contents));
        Ok(self.to_change().id.get_or_insert_with(|| id.unwrap_or_else(own)).clone())
    }

    fn storage_moved(&self, from: PathBuf, to: PathBuf) -> Result<u64, Error> {
        Ok(self.to_change().storage_moved(&from, &to))
    }

    fn index_is_in_place(&self) -> bool {
        true
    }
}

impl ScanLedger for MemoryIndex {
    fn directory_now(&mut self, directory: &Path) -> Result<DirectorySnapshot<'_>, Error> {
        let files: HashMap<_, _> = self.files_of(&self.contents(), false, directory).into_iter().collect();
        Ok(DirectorySnapshot::new(move || Ok(files)))
    }

    fn archive_members(&mut self, archive: &Path, on_member: &mut dyn FnMut(OsString, KnownFile)) -> Result<(), Error> {
        let files = self.files_of(&self.contents(), true, archive);
        files.into_iter().for_each(|(name, file)| on_member(name, file));
        Ok(())
    }

    fn archive_summary(&mut self, archive: &Path) -> Result<(u64, Vec<(OsString, KnownFile)>), Error> {
        let files = self.files_of(&self.contents(), true, archive);
        let (indexed, others): (Vec<_>, _) =
            files.into_iter().partition(|(_, file)| file.is_indexed() && !file.missing);
        Ok((indexed.len() as u64, others))
    }

    fn archive_is_without_declared(&mut self, archive: &Path) -> Result<bool, Error> {
        Ok(self.files_of(&self.contents(), true, archive).iter().any(|(_, file)| file.lacks_declared))
    }

    fn without_declared_below(&mut self, place: Place, root: &Path) -> Result<u64, Error> {
        Ok(self.without_declared(place, root).len() as u64)
    }

    fn declared_coverage(&mut self) -> Result<DeclaredCoverage, Error> {
        let contents = self.contents();
        let first = contents.instances.values().filter_map(|held| held.first());
        let (mut lacking, mut all) = (0, 0);
        for held in first {
            all += 1;
            lacking += u64::from(!self.declared.is_covered_by(&held.declared));
        }
        Ok(DeclaredCoverage { lacking, all })
    }

    fn directories_without_declared(&mut self, place: Place, root: &Path) -> Result<Vec<PathBuf>, Error> {
        let mut found = self.without_declared(place, root);
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn located_instances(&mut self, place: Place, directory: &Path) -> Result<Vec<LocatedInstance>, Error> {
        let contents = self.contents();
        let mut found: Vec<(bool, LocatedInstance)> = Vec::new();
        for held in contents.instances.values() {
            let here = |held: &&StoredFile| {
                (held.location.place == Place::Archive) == (place == Place::Archive)
                    && held.location.directory == directory
            };
            for (at, held) in held.iter().enumerate().filter(|(_, held)| here(held)) {
                let value = |id| held.record.value(id).to_owned();
                let instance = LocatedInstance {
                    location: held.location.clone(),
                    sop_instance_uid: value(AttributeId::SOPInstanceUID),
                    sop_class_uid: value(AttributeId::SOPClassUID),
                    transfer_syntax: value(AttributeId::AvailableTransferSyntaxUID),
                    differs: held.differs,
                    checksum: held.checksum,
                };
                found.push((at > 0, instance));
            }
        }
        found.sort_by_key(|(is_copy, _)| *is_copy);
        Ok(found.into_iter().map(|(_, instance)| instance).collect())
    }

    fn directories_below(
        &mut self,
        place: Place,
        root: &Path,
        after: &Path,
        limit: usize,
    ) -> Result<Vec<PathBuf>, Error> {
        let contents = self.contents();
        let here = contents
            .directories
            .iter()
            .filter(|(of, path)| *of == kind(place) && path.starts_with(root) && path != root);
        let mut found: Vec<PathBuf> = here.map(|(_, path)| path.clone()).collect();
        found.sort_by(|one, other| one.as_os_str().cmp(other.as_os_str()));
        Ok(found.into_iter().filter(|path| path.as_os_str() > after.as_os_str()).take(limit).collect())
    }

    fn mount_points(&mut self) -> Result<BTreeSet<PathBuf>, Error> {
        Ok(self.contents().mount_points.clone())
    }

    fn exchanged_disks(&mut self) -> Result<BTreeSet<PathBuf>, Error> {
        Ok(self.contents().exchanged_disks.clone())
    }
}

impl Admin for MemoryIndex {
    /// This index is for tests, which look at single problems.
    fn studies_with_problems(&mut self, _on_study: impl FnMut(StudyReport) -> ControlFlow<()>) -> Result<(), Error> {
        Err(Error::Unsupported("this index makes no reports".into()))
    }

    /// This index does not number its changes.
    fn last_change(&mut self) -> Result<u64, Error> {
        Ok(0)
    }

    fn status(&mut self) -> Result<IndexStatus, Error> {
        let contents = self.contents();
        let firsts: Vec<&StoredFile> = contents.instances.values().filter_map(|held| held.first()).collect();
        let study = |held: &&StoredFile| held.record.value(AttributeId::StudyInstanceUID).to_owned();
        let series = |held: &&StoredFile| (study(held), held.record.value(AttributeId::SeriesInstanceUID).to_owned());
        let copies = contents.instances.values().flat_map(|held| held.iter().skip(1));
        let by_reason = |kind| {
            let mut counts: HashMap<String, u64> = HashMap::new();
            for file in contents.unindexed.values().filter(|file| file.note.kind == kind) {
                *counts.entry(file.note.reason.clone()).or_default() += 1;
            }
            let mut counts: Vec<_> = counts.into_iter().collect();
            counts.sort_by(|(one, n), (other, m)| (m, one).cmp(&(n, other)));
            counts
        };
        Ok(IndexStatus {
            patients: view_of(&contents).persons(),
            studies: firsts.iter().map(study).collect::<BTreeSet<_>>().len() as u64,
            series: firsts.iter().map(series).collect::<BTreeSet<_>>().len() as u64,
            instances: firsts.len() as u64,
            copies: copies.filter(|copy| copy.has_object()).count() as u64,
            missing: contents.missing.len() as u64,
            metadata_only: firsts.iter().filter(|first| !first.has_object()).count() as u64,
            files_with_faults: contents.faults.len() as u64,
            failed: by_reason(NotIndexed::Failed),
            skipped: by_reason(NotIndexed::Skipped),
            scans: contents.scans.iter().rev().cloned().collect(),
            ..IndexStatus::default()
        })
    }

    /// Finds nothing, because nothing is kept twice that could disagree.
    fn check(&mut self) -> Result<CheckReport, Error> {
        Ok(CheckReport::default())
    }

    fn start_check(&mut self) -> Result<CheckReport, Error> {
        self.check()
    }

    fn failures(&mut self, mut on_failure: impl FnMut(FailureEntry) -> ControlFlow<()>) -> Result<(), Error> {
        for (key, file) in self.contents().unindexed.iter().filter(|(_, file)| file.note.kind == NotIndexed::Failed) {
            let place = if key.is_archive { Place::Archive } else { Place::InPlace };
            let path = place.shown_path(&key.directory, &key.name);
            let failure = FailureEntry { path, reason: file.note.reason.clone(), detail: file.note.detail.clone() };
            if on_failure(failure).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Lists the conflicts of objects. It does not list studies under several patients, or Patient
    /// IDs of several people.
    fn conflicts(&mut self, mut on_conflict: impl FnMut(ConflictEntry) -> ControlFlow<()>) -> Result<(), Error> {
        let contents = self.contents();
        let copies = contents.instances.values().flat_map(|held| held.iter().skip(1)).filter(|copy| copy.differs);
        let of_copies = copies.map(|copy| ("instance-with-other-content", copy));
        let mut found: Vec<(&str, &StoredFile)> =
            of_copies.chain(contents.conflicts.iter().map(|((kind, _, _), object)| (*kind, object))).collect();
        found.sort_by_key(|(kind, object)| (*kind, object.key()));
        for (kind, object) in found {
            if on_conflict(ConflictEntry::of(kind, object)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn watches(&mut self) -> Result<Vec<WatchEntry>, Error> {
        let of = |(roots, state): (&String, &String)| WatchEntry { roots: roots.clone(), state: state.clone() };
        Ok(self.contents().watches.iter().map(of).collect())
    }

    fn index_id(&mut self) -> Result<Option<String>, Error> {
        Ok(self.contents().id.clone())
    }
}

impl std::fmt::Debug for MemoryIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryIndex")
    }
}
