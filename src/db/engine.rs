//! The engine of one index, as the program has chosen it.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::federated::{DescribedPatient, FederatedPart};
use super::postgres::PostgresReader;
use super::sqlite::SqliteReader;
use super::worklist::{
    PerformedStep, WorklistArrival, WorklistAsked, WorklistProblem, WorklistRequest, WorklistRow, WorklistSearch,
    WorklistState,
};
use super::{
    Admin, ChangedStudy, CheckReport, ConflictEntry, Correction, CorrectionChange, CorrectionEffect, DeclaredCoverage,
    DeliveryCounts, DirectorySnapshot, Error, EventProgress, EventSearch, FailureEntry, IndexEvent, IndexStatus,
    Interrupt, KnownFile, KnownLocation, LocatedInstance, Relocation, Removal, RemovalSearch, RemovedFile, ScanLedger,
    Search, StudyIdentifiers, StudyReport, WaitingEvent, WatchEntry,
};
use crate::model::declared::DeclaredSet;
use crate::model::find::{FindAnswer, FindRequest};
use crate::model::location::Place;
use crate::model::record::InstanceRecord;

/// A reader of an index.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are of SQLite, and a thread has few")]
pub enum IndexReader {
    /// In a file.
    Sqlite(SqliteReader),
    /// In a database of a server.
    Postgres(Box<PostgresReader>),
}

/// Asks whichever engine it is.
macro_rules! ask {
    ($index:expr, $reader:ident => $question:expr) => {
        match $index {
            IndexReader::Sqlite($reader) => $question,
            IndexReader::Postgres($reader) => $question,
        }
    };
}

impl IndexReader {
    /// Sets what is declared.
    #[must_use]
    pub fn with_declared(self, declared: Arc<DeclaredSet>) -> Self {
        match self {
            Self::Sqlite(reader) => Self::Sqlite(reader.with_declared(declared)),
            Self::Postgres(reader) => Self::Postgres(Box::new(reader.with_declared(declared))),
        }
    }

    /// The reader of a file, for what only SQLite has.
    ///
    /// # Errors
    /// [`Error::WantsSqlite`] if the index is in a database.
    pub fn sqlite(&mut self, what: &'static str) -> Result<&mut SqliteReader, Error> {
        match self {
            Self::Sqlite(reader) => Ok(reader),
            Self::Postgres(reader) => Err(Error::WantsSqlite { what, server: reader.server().to_owned() }),
        }
    }

    /// All corrections in the order of their numbers, those that were undone included.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    pub fn corrections(&mut self) -> Result<Vec<Correction>, Error> {
        ask!(self, reader => reader.corrections())
    }

    /// Whether any correction holds.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    pub fn has_corrections(&mut self) -> Result<bool, Error> {
        ask!(self, reader => reader.has_corrections())
    }

    /// Says what a change of paths would do.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    pub fn plan_relocation(&mut self, from: &Path, to: &Path) -> Result<Relocation, Error> {
        ask!(self, reader => reader.plan_relocation(from, to))
    }

    /// Says what a change of the corrections would do.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    pub fn plan_correction(&mut self, change: &CorrectionChange) -> Result<CorrectionEffect, Error> {
        ask!(self, reader => reader.plan_correction(change))
    }
}

impl Search for IndexReader {
    fn find(
        &mut self,
        request: &FindRequest,
        on_answer: impl FnMut(FindAnswer) -> ControlFlow<()>,
    ) -> Result<u64, Error> {
        ask!(self, reader => reader.find(request, on_answer))
    }

    fn interrupt(&self) -> Interrupt {
        ask!(self, reader => reader.interrupt())
    }

    fn known_locations(&mut self, sop_instance_uid: &str) -> Result<Vec<KnownLocation>, Error> {
        ask!(self, reader => reader.known_locations(sop_instance_uid))
    }

    fn transfer_syntax_counts(&mut self) -> Result<Vec<(String, String, u64)>, Error> {
        ask!(self, reader => reader.transfer_syntax_counts())
    }

    fn version(&mut self) -> Result<i64, Error> {
        ask!(self, reader => reader.version())
    }

    fn another(&self) -> Result<Self, Error> {
        Ok(match self {
            Self::Sqlite(reader) => Self::Sqlite(reader.another()?),
            Self::Postgres(reader) => Self::Postgres(Box::new(reader.another()?)),
        })
    }
}

impl ScanLedger for IndexReader {
    fn directory_now(&mut self, directory: &Path) -> Result<DirectorySnapshot<'_>, Error> {
        ask!(self, reader => reader.directory_now(directory))
    }

    fn archive_members(&mut self, archive: &Path, on_member: &mut dyn FnMut(OsString, KnownFile)) -> Result<(), Error> {
        ask!(self, reader => reader.archive_members(archive, on_member))
    }

    fn archive_summary(&mut self, archive: &Path) -> Result<(u64, Vec<(OsString, KnownFile)>), Error> {
        ask!(self, reader => reader.archive_summary(archive))
    }

    fn archive_is_without_declared(&mut self, archive: &Path) -> Result<bool, Error> {
        ask!(self, reader => reader.archive_is_without_declared(archive))
    }

    fn without_declared_below(&mut self, place: Place, root: &Path) -> Result<u64, Error> {
        ask!(self, reader => reader.without_declared_below(place, root))
    }

    fn declared_coverage(&mut self) -> Result<DeclaredCoverage, Error> {
        ask!(self, reader => reader.declared_coverage())
    }

    fn directories_without_declared(&mut self, place: Place, root: &Path) -> Result<Vec<PathBuf>, Error> {
        ask!(self, reader => reader.directories_without_declared(place, root))
    }

    fn located_instances(&mut self, place: Place, directory: &Path) -> Result<Vec<LocatedInstance>, Error> {
        ask!(self, reader => reader.located_instances(place, directory))
    }

    fn directories_below(
        &mut self,
        place: Place,
        root: &Path,
        after: &Path,
        limit: usize,
    ) -> Result<Vec<PathBuf>, Error> {
        ask!(self, reader => reader.directories_below(place, root, after, limit))
    }

    fn mount_points(&mut self) -> Result<BTreeSet<PathBuf>, Error> {
        ask!(self, reader => reader.mount_points())
    }

    fn exchanged_disks(&mut self) -> Result<BTreeSet<PathBuf>, Error> {
        ask!(self, reader => reader.exchanged_disks())
    }

    fn named_roots(&self) -> BTreeSet<PathBuf> {
        ask!(self, reader => reader.named_roots())
    }
}

impl Admin for IndexReader {
    fn status(&mut self) -> Result<IndexStatus, Error> {
        ask!(self, reader => reader.status())
    }

    fn last_change(&mut self) -> Result<u64, Error> {
        ask!(self, reader => reader.last_change())
    }

    fn check(&mut self) -> Result<CheckReport, Error> {
        ask!(self, reader => reader.check())
    }

    fn start_check(&mut self) -> Result<CheckReport, Error> {
        ask!(self, reader => reader.start_check())
    }

    fn failures(&mut self, on_failure: impl FnMut(FailureEntry) -> ControlFlow<()>) -> Result<(), Error> {
        ask!(self, reader => reader.failures(on_failure))
    }

    fn conflicts(&mut self, on_conflict: impl FnMut(ConflictEntry) -> ControlFlow<()>) -> Result<(), Error> {
        ask!(self, reader => reader.conflicts(on_conflict))
    }

    fn watches(&mut self) -> Result<Vec<WatchEntry>, Error> {
        ask!(self, reader => reader.watches())
    }

    fn studies_with_problems(&mut self, on_study: impl FnMut(StudyReport) -> ControlFlow<()>) -> Result<(), Error> {
        ask!(self, reader => reader.studies_with_problems(on_study))
    }

    fn index_id(&mut self) -> Result<Option<String>, Error> {
        ask!(self, reader => reader.index_id())
    }
}

impl RemovalSearch for IndexReader {
    fn removals(&mut self) -> Result<Vec<Removal>, Error> {
        ask!(self, reader => reader.removals())
    }

    fn removed_among(&mut self, sop_instance_uids: Vec<String>) -> Result<HashMap<String, i64>, Error> {
        ask!(self, reader => reader.removed_among(sop_instance_uids))
    }

    fn files_for_trash(&mut self, after: Option<&RemovedFile>, limit: usize) -> Result<Vec<RemovedFile>, Error> {
        ask!(self, reader => reader.files_for_trash(after, limit))
    }

    fn files_of_removal(&mut self, removal: i64, after: &str, limit: usize) -> Result<Vec<RemovedFile>, Error> {
        ask!(self, reader => reader.files_of_removal(removal, after, limit))
    }

    fn instances_of_removal(
        &mut self,
        removal: i64,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, Option<InstanceRecord>)>, Error> {
        ask!(self, reader => reader.instances_of_removal(removal, after, limit))
    }
}

impl EventSearch for IndexReader {
    fn events_after(&mut self, after: i64, limit: usize) -> Result<Vec<IndexEvent>, Error> {
        ask!(self, reader => reader.events_after(after, limit))
    }

    fn last_event(&mut self) -> Result<i64, Error> {
        ask!(self, reader => reader.last_event())
    }

    fn event_position(&mut self, receiver: &str) -> Result<Option<i64>, Error> {
        ask!(self, reader => reader.event_position(receiver))
    }

    fn due_events(&mut self, receiver: &str, now_ms: i64, limit: usize) -> Result<Vec<WaitingEvent>, Error> {
        ask!(self, reader => reader.due_events(receiver, now_ms, limit))
    }

    fn event_waits(&mut self, receiver: &str, study_instance_uid: &str) -> Result<bool, Error> {
        ask!(self, reader => reader.event_waits(receiver, study_instance_uid))
    }

    fn failed_events(&mut self) -> Result<Vec<WaitingEvent>, Error> {
        ask!(self, reader => reader.failed_events())
    }

    fn event_progress(&mut self) -> Result<EventProgress, Error> {
        ask!(self, reader => reader.event_progress())
    }

    fn delivery_counts(&mut self, receiver: &str) -> Result<DeliveryCounts, Error> {
        ask!(self, reader => reader.delivery_counts(receiver))
    }

    fn told_change(&mut self) -> Result<Option<u64>, Error> {
        ask!(self, reader => reader.told_change())
    }

    fn studies_changed_after(&mut self, change: u64) -> Result<Vec<ChangedStudy>, Error> {
        ask!(self, reader => reader.studies_changed_after(change))
    }

    fn identifiers_of_study(&mut self, study_instance_uid: &str) -> Result<Option<StudyIdentifiers>, Error> {
        ask!(self, reader => reader.identifiers_of_study(study_instance_uid))
    }
}

impl WorklistSearch for IndexReader {
    fn worklist(
        &mut self,
        request: &WorklistRequest,
        on_row: &mut dyn FnMut(WorklistRow) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        ask!(self, reader => reader.worklist(request, on_row))
    }

    fn worklist_row(&mut self, id: i64) -> Result<Option<WorklistRow>, Error> {
        ask!(self, reader => reader.worklist_row(id))
    }

    fn worklist_asked(&mut self) -> Result<Vec<WorklistAsked>, Error> {
        ask!(self, reader => reader.worklist_asked())
    }

    fn worklist_problems(&mut self) -> Result<Vec<WorklistProblem>, Error> {
        ask!(self, reader => reader.worklist_problems())
    }

    fn worklist_arrivals(&mut self, unexpired_at: i64) -> Result<Vec<WorklistArrival>, Error> {
        ask!(self, reader => reader.worklist_arrivals(unexpired_at))
    }

    fn performed_steps(&mut self) -> Result<Vec<PerformedStep>, Error> {
        ask!(self, reader => reader.performed_steps())
    }

    fn worklist_counts(&mut self) -> Result<Vec<(WorklistState, u64)>, Error> {
        ask!(self, reader => reader.worklist_counts())
    }
}

/// A database is never one of several files.
impl FederatedPart for IndexReader {
    fn each_study(&mut self, after: Option<i64>, on_study: &mut dyn FnMut(i64, &str)) -> Result<(), Error> {
        self.sqlite("a folder")?.each_study(after, on_study)
    }

    fn study_at(&mut self, row: i64) -> Result<Option<String>, Error> {
        self.sqlite("a folder")?.study_at(row)
    }

    fn last_study(&mut self) -> Result<Option<(i64, String)>, Error> {
        self.sqlite("a folder")?.last_study()
    }

    fn has_study(&mut self, study_instance_uid: &str) -> Result<bool, Error> {
        self.sqlite("a folder")?.has_study(study_instance_uid)
    }

    fn each_described(&mut self, on_patient: &mut dyn FnMut(DescribedPatient) -> ControlFlow<()>) -> Result<(), Error> {
        self.sqlite("a folder")?.each_described(on_patient)
    }

    fn study_of_description(&mut self, row: i64) -> Result<Option<String>, Error> {
        self.sqlite("a folder")?.study_of_description(row)
    }

    fn each_series(&mut self, on_series: &mut dyn FnMut(String, i64) -> ControlFlow<()>) -> Result<(), Error> {
        self.sqlite("a folder")?.each_series(on_series)
    }
}
