//! The engine that the program uses. Only this file chooses it.
//!
//! The path of an index is that of an SQLite file, or that of a folder. Each file of the folder
//! whose name ends in `.db` is an index, and together they are one (docs/adr/0038). The path can
//! also be the address of a database: `postgresql://host/database` (docs/adr/0044).

mod index_files;
mod index_path;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::engine::IndexReader;
use super::federated::{Federation, RoutedFile, Router, RouterThread};
use super::postgres::{PostgresAddress, PostgresReader, PostgresWriter, PostgresWriterHandle};
use super::sqlite::{SqliteReader, SqliteWriter, SqliteWriterHandle};
use super::worklist::{
    PerformedStep, WorklistArrival, WorklistAsked, WorklistChanges, WorklistProblem, WorklistRequest, WorklistRow,
    WorklistSearch, WorklistState, WorklistWork,
};
use super::{
    Arrivals, ChangedStudy, Correction, CorrectionChange, CorrectionEffect, DeliveryChanges, DeliveryCounts, Error,
    EventChanges, EventLimits, EventProgress, EventSearch, GivenNumbers, IndexEvent, JournalEntryId, Mounted, NextUnit,
    OnStored, Received, Relocation, Removal, RemovalChanges, RemovalSearch, RemovedCounts, RemovedFile,
    ScannedDirectory, SharedScan, StudyIdentifiers, Tally, WaitingEvent,
};
use crate::model::clock::Clock;
use crate::model::declared::DeclaredSet;
use crate::model::find::FindRequest;
use crate::model::record::InstanceRecord;

pub use super::sqlite::{
    FrozenIndex, IndexHold, KeptStudies, SCHEMA_VERSION, WriterOptions, check_mergeable, checksum_of, compact, freeze,
    frozen, keep_studies, remove_index_files, take_in, thaw,
};
pub use index_files::IndexFiles;
use index_path::wants_sqlite;
pub use index_path::{
    copy_index, directory_beside, files_of, is_named_as_index, is_on_server, may_exist, only_file_of, place_in_folder,
    shown_path,
};

/// Questions to an index, of one file, of several, or in a database.
pub type Reader = Federation<IndexReader>;

impl Reader {
    /// Opens an index that exists.
    ///
    /// # Errors
    /// Fails with [`Error::Missing`] if there is none: see [`Error`].
    pub fn open(index: &Path) -> Result<Self, Error> {
        if let Some(address) = PostgresAddress::of(index)? {
            let reader = IndexReader::Postgres(Box::new(PostgresReader::open(&address)?));
            return Ok(Self::of(vec![(index.to_owned(), reader)]));
        }
        Self::of_files(files_of(index)?, SqliteReader::open)
    }

    /// Opens a copy of an index, which nobody writes. No file is made beside it.
    ///
    /// # Errors
    /// Fails as [`Self::open`] does.
    pub fn open_copy(index: &Path) -> Result<Self, Error> {
        Self::of_files(files_of(index)?, SqliteReader::open_copy)
    }

    /// Opens copies of index files, which answer as one and which nobody writes.
    ///
    /// # Errors
    /// Fails as [`Self::open`] does.
    pub fn open_copies(files: &[PathBuf]) -> Result<Self, Error> {
        Self::of_files(files.to_vec(), SqliteReader::open_copy)
    }

    fn of_files(files: Vec<PathBuf>, open: impl Fn(&Path) -> Result<SqliteReader, Error>) -> Result<Self, Error> {
        let opened = files.into_iter().map(|path| open(&path).map(|reader| (path, IndexReader::Sqlite(reader))));
        Ok(Self::of(opened.collect::<Result<_, _>>()?))
    }

    /// The only file, which has to be one of SQLite.
    fn only_sqlite(&mut self, what: &'static str) -> Result<&mut SqliteReader, Error> {
        self.only(what)?.sqlite(what)
    }

    /// Sets what is declared. Files that were read with other declarations then lack something: see
    /// `KnownFile::lacks_declared`.
    #[must_use]
    pub fn with_declared(self, declared: Arc<DeclaredSet>) -> Self {
        self.map(|reader| reader.with_declared(Arc::clone(&declared)))
    }

    /// Returns how SQLite answers a query: its statements with their plans. It is for tests and for
    /// the curious.
    ///
    /// # Errors
    /// Fails as [`Search::find`](super::Search::find) does, and if there are several files.
    pub fn explain(&mut self, request: &FindRequest) -> Result<String, Error> {
        self.only_sqlite("a plan")?.explain(request)
    }

    /// See [`SqliteReader::journal_decided`].
    ///
    /// # Errors
    /// Fails with an error of the engine, and if there are several files.
    pub fn journal_decided(&mut self, journal: [u8; 16]) -> Result<u64, Error> {
        self.only_sqlite("a journal")?.journal_decided(journal)
    }

    /// See [`SqliteReader::corrections`].
    ///
    /// # Errors
    /// Fails with an error of the engine, and if there are several files.
    pub fn corrections(&mut self) -> Result<Vec<Correction>, Error> {
        self.only("a correction")?.corrections()
    }

    /// Whether any correction holds.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    pub fn has_corrections(&mut self) -> Result<bool, Error> {
        self.any(IndexReader::has_corrections)
    }

    /// See [`SqliteReader::plan_correction`].
    ///
    /// # Errors
    /// Fails with an error of the engine, and if there are several files.
    pub fn plan_correction(&mut self, change: &CorrectionChange) -> Result<CorrectionEffect, Error> {
        self.only("a correction")?.plan_correction(change)
    }

    /// See [`SqliteReader::plan_relocation`].
    ///
    /// # Errors
    /// Fails with an error of the engine, and if there are several files.
    pub fn plan_relocation(&mut self, from: &Path, to: &Path) -> Result<Relocation, Error> {
        self.only("a relocation")?.plan_relocation(from, to)
    }

    /// The paths of all scans, each once.
    ///
    /// # Errors
    /// Fails with an error of the engine, and if there are several files.
    pub fn scan_roots(&mut self) -> Result<Vec<String>, Error> {
        self.only_sqlite("a list of scanned paths")?.scan_roots()
    }
}

/// Of several files, only one that is named alone can be asked.
impl EventSearch for Reader {
    fn events_after(&mut self, after: i64, limit: usize) -> Result<Vec<IndexEvent>, Error> {
        self.only("events")?.events_after(after, limit)
    }

    fn last_event(&mut self) -> Result<i64, Error> {
        self.only("events")?.last_event()
    }

    fn event_position(&mut self, receiver: &str) -> Result<Option<i64>, Error> {
        self.only("events")?.event_position(receiver)
    }

    fn due_events(&mut self, receiver: &str, now_ms: i64, limit: usize) -> Result<Vec<WaitingEvent>, Error> {
        self.only("events")?.due_events(receiver, now_ms, limit)
    }

    fn event_waits(&mut self, receiver: &str, study_instance_uid: &str) -> Result<bool, Error> {
        self.only("events")?.event_waits(receiver, study_instance_uid)
    }

    fn failed_events(&mut self) -> Result<Vec<WaitingEvent>, Error> {
        self.only("events")?.failed_events()
    }

    fn event_progress(&mut self) -> Result<EventProgress, Error> {
        self.only("events")?.event_progress()
    }

    fn delivery_counts(&mut self, receiver: &str) -> Result<DeliveryCounts, Error> {
        self.only("events")?.delivery_counts(receiver)
    }

    fn told_change(&mut self) -> Result<Option<u64>, Error> {
        self.only("events")?.told_change()
    }

    fn studies_changed_after(&mut self, change: u64) -> Result<Vec<ChangedStudy>, Error> {
        self.only("events")?.studies_changed_after(change)
    }

    fn identifiers_of_study(&mut self, study_instance_uid: &str) -> Result<Option<StudyIdentifiers>, Error> {
        self.only("events")?.identifiers_of_study(study_instance_uid)
    }
}

/// Of several files, only one that is named alone can be asked.
impl RemovalSearch for Reader {
    fn removals(&mut self) -> Result<Vec<Removal>, Error> {
        self.only("a list of removals")?.removals()
    }

    fn removed_among(&mut self, sop_instance_uids: Vec<String>) -> Result<HashMap<String, i64>, Error> {
        self.only("a list of removals")?.removed_among(sop_instance_uids)
    }

    fn files_for_trash(&mut self, after: Option<&RemovedFile>, limit: usize) -> Result<Vec<RemovedFile>, Error> {
        self.only("the trash")?.files_for_trash(after, limit)
    }

    fn files_of_removal(&mut self, removal: i64, after: &str, limit: usize) -> Result<Vec<RemovedFile>, Error> {
        self.only("a removal")?.files_of_removal(removal, after, limit)
    }

    fn instances_of_removal(
        &mut self,
        removal: i64,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, Option<InstanceRecord>)>, Error> {
        self.only("a removal")?.instances_of_removal(removal, after, limit)
    }
}

/// The worklist is that of the main file.
impl WorklistSearch for Reader {
    fn worklist(
        &mut self,
        request: &WorklistRequest,
        on_row: &mut dyn FnMut(WorklistRow) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.main()?.worklist(request, on_row)
    }

    fn worklist_row(&mut self, id: i64) -> Result<Option<WorklistRow>, Error> {
        self.main()?.worklist_row(id)
    }

    fn worklist_asked(&mut self) -> Result<Vec<WorklistAsked>, Error> {
        self.main()?.worklist_asked()
    }

    fn worklist_problems(&mut self) -> Result<Vec<WorklistProblem>, Error> {
        self.main()?.worklist_problems()
    }

    /// Arrivals in other files are not seen.
    fn worklist_arrivals(&mut self, unexpired_at: i64) -> Result<Vec<WorklistArrival>, Error> {
        self.main()?.worklist_arrivals(unexpired_at)
    }

    fn performed_steps(&mut self) -> Result<Vec<PerformedStep>, Error> {
        self.main()?.performed_steps()
    }

    fn worklist_counts(&mut self) -> Result<Vec<(WorklistState, u64)>, Error> {
        self.main()?.worklist_counts()
    }
}

/// The writer of an index, of one file or of several.
#[derive(Debug)]
pub struct Writer {
    handle: WriterHandle,
    files: Vec<SqliteWriter>,
    router: Option<RouterThread>,
    server: Option<PostgresWriter>,
}

/// Access to the writer for any thread.
#[derive(Clone, Debug)]
pub struct WriterHandle(OpenedIndex);

#[derive(Clone, Debug)]
enum OpenedIndex {
    File(SqliteWriterHandle),
    Folder {
        main: SqliteWriterHandle,
        /// Router of arrivals.
        router: Router<SqliteWriterHandle>,
    },
    Server {
        handle: PostgresWriterHandle,
        address: Box<PostgresAddress>,
        /// The whole address.
        index: PathBuf,
    },
}

impl Writer {
    /// Opens the index and starts the writer. An index file is created or migrated if necessary. Of
    /// a folder, each file that is not frozen gets a writer. In a database, the tables are made.
    ///
    /// # Errors
    /// Fails if the index cannot be opened for writing: see [`Error`].
    pub fn open(index: &Path, options: WriterOptions) -> Result<Self, Error> {
        if let Some(address) = PostgresAddress::of(index)? {
            let writer = PostgresWriter::open(&address, options)?;
            let handle = WriterHandle(OpenedIndex::Server {
                handle: writer.handle(),
                address: Box::new(address),
                index: index.to_owned(),
            });
            return Ok(Self { handle, files: Vec::new(), router: None, server: Some(writer) });
        }
        let paths = files_of(index)?;
        if let [path] = paths.as_slice() {
            let writer = SqliteWriter::open(path, options)?;
            let handle = WriterHandle(OpenedIndex::File(writer.handle()));
            return Ok(Self { handle, files: vec![writer], router: None, server: None });
        }
        let (mut files, mut routed) = (Vec::new(), Vec::new());
        for path in paths {
            let arrivals = match frozen(&path)? {
                Some(_) => None,
                None => {
                    let writer = SqliteWriter::open(&path, options.clone())?;
                    let handle = writer.handle();
                    files.push(writer);
                    Some(handle)
                }
            };
            routed.push(RoutedFile { reader: SqliteReader::open(&path)?, path, arrivals });
        }
        let main = routed.first().and_then(|file| file.arrivals.clone());
        let (router, thread) = Router::start(routed, options.queue_length)?;
        let Some(main) = main else { return Err(Error::Frozen { path: index.to_owned() }) };
        let handle = WriterHandle(OpenedIndex::Folder { main, router });
        Ok(Self { handle, files, router: Some(thread), server: None })
    }

    /// Returns a handle to this writer.
    #[must_use]
    pub fn handle(&self) -> WriterHandle {
        self.handle.clone()
    }

    /// Commits what is queued, checkpoints the write-ahead logs and stops.
    ///
    /// # Errors
    /// Fails with the error of a scan transaction that nobody has asked for yet, or with that of
    /// the last commit.
    pub fn close(self) -> Result<(), Error> {
        let Self { handle, files, router, server } = self;
        if let OpenedIndex::Folder { router, .. } = &handle.0 {
            router.stop();
        }
        drop(handle);
        if router.is_some_and(|thread| thread.join().is_err()) {
            return Err(Error::WriterStopped("its router panicked".into()));
        }
        server.map_or(Ok(()), PostgresWriter::close)?;
        files.into_iter().try_for_each(SqliteWriter::close)
    }
}

impl WriterHandle {
    /// The way into the only file.
    fn only(&self, what: &'static str) -> Result<&SqliteWriterHandle, Error> {
        match &self.0 {
            OpenedIndex::File(main) => Ok(main),
            OpenedIndex::Folder { router, .. } => {
                Err(Error::SeveralFiles { what, file: router.main_path().to_owned() })
            }
            OpenedIndex::Server { address, .. } => Err(wants_sqlite(what, address)),
        }
    }

    /// The index files that take changes, each with the way into it alone. The main file comes
    /// first. A database counts as one.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, Self)> {
        let of_file = |file: &SqliteWriterHandle| (file.index().to_owned(), Self(OpenedIndex::File(file.clone())));
        match &self.0 {
            OpenedIndex::File(main) => vec![of_file(main)],
            OpenedIndex::Folder { router, .. } => router.open_targets().map(of_file).collect(),
            OpenedIndex::Server { index, .. } => vec![(index.clone(), self.clone())],
        }
    }

    /// Handle that removes from the only index.
    fn removals(&self) -> Result<&dyn RemovalChanges, Error> {
        match &self.0 {
            OpenedIndex::Server { handle, .. } => Ok(handle),
            OpenedIndex::File(_) | OpenedIndex::Folder { .. } => Ok(self.only("a removal")?),
        }
    }

    /// The way into a database.
    pub(in crate::db) fn server(&self, what: &'static str) -> Result<&PostgresWriterHandle, Error> {
        match &self.0 {
            OpenedIndex::Server { handle, .. } => Ok(handle),
            OpenedIndex::File(_) | OpenedIndex::Folder { .. } => Err(Error::WantsServer { what }),
        }
    }

    /// Handle that records the events of the only index.
    fn events(&self) -> Result<&dyn EventChanges, Error> {
        match &self.0 {
            OpenedIndex::Server { handle, .. } => Ok(handle),
            OpenedIndex::File(_) | OpenedIndex::Folder { .. } => Ok(self.only("events")?),
        }
    }

    fn arrivals(&self) -> &dyn Arrivals {
        match &self.0 {
            OpenedIndex::File(main) => main,
            OpenedIndex::Folder { router, .. } => router,
            OpenedIndex::Server { handle, .. } => handle,
        }
    }

    /// Notes in a database that this storage directory has its path. `id` is what the directory has
    /// noted of itself, and empty if it has noted nothing. Returns what it is to note. `None` if
    /// the index is in files, which have one node.
    ///
    /// # Errors
    /// [`Error::StorageRefused`] if the index would take its objects for those of another
    /// directory, and that of the writer.
    pub fn claim_storage(&self, id: &str, host: &str, storage: &Path) -> Result<Option<String>, Error> {
        match &self.0 {
            OpenedIndex::Server { handle, .. } => {
                handle.claim_storage(id.to_owned(), host.to_owned(), storage).map(Some)
            }
            OpenedIndex::File(_) | OpenedIndex::Folder { .. } => Ok(None),
        }
    }

    /// Refuses a storage directory whose path another one has.
    ///
    /// # Errors
    /// As [`Self::claim_storage`].
    pub fn check_storage(&self, id: &str, storage: &Path) -> Result<(), Error> {
        match &self.0 {
            OpenedIndex::Server { handle, .. } => handle.check_storage(id.to_owned(), storage),
            OpenedIndex::File(_) | OpenedIndex::Folder { .. } => Ok(()),
        }
    }

    /// Tells the other nodes of a database of this one, until the writer ends. Returns in words
    /// what it has in common with nodes that run, and should not have. Other indexes have one node.
    ///
    /// # Errors
    /// That of the writer.
    pub fn announce(&self, ae_title: &str, host: &str, storage: Option<&Path>) -> Result<Vec<String>, Error> {
        match &self.0 {
            OpenedIndex::Server { handle, .. } => handle.announce(ae_title.to_owned(), host.to_owned(), storage),
            OpenedIndex::File(_) | OpenedIndex::Folder { .. } => Ok(Vec::new()),
        }
    }

    /// Joins the shared scan of these paths, or begins it. Returns its number.
    ///
    /// # Errors
    /// [`Error::WantsServer`] if the index is in files, [`Error::OtherRules`] if other processes
    /// scan these paths by other rules, and that of the writer.
    pub fn join_shared_scan(&self, scan: SharedScan) -> Result<i64, Error> {
        self.server("a shared scan")?.join_shared_scan(scan)
    }

    /// Takes the next unit of a shared scan for a time, which each transaction of this writer
    /// begins anew. `unseen` are units that this process cannot see. It gets none of them, and not
    /// the last unit either.
    ///
    /// # Errors
    /// As [`Self::join_shared_scan`].
    pub fn take_unit(&self, scan: i64, lease: Duration, unseen: Vec<PathBuf>) -> Result<NextUnit, Error> {
        self.server("a shared scan")?.take_unit(scan, lease, unseen)
    }

    /// Has a shared scan end without the units that this process cannot see, and that nobody has.
    /// These are `unseen`, and those below roots that it does not have. Returns in words the paths
    /// of those that may lack files in the index.
    ///
    /// # Errors
    /// As [`Self::join_shared_scan`].
    pub fn leave_out_units(&self, scan: i64, unseen: Vec<PathBuf>) -> Result<Vec<String>, Error> {
        self.server("a shared scan")?.leave_out_units(scan, unseen)
    }

    /// The paths of the units of a shared scan on this machine, done or not.
    ///
    /// # Errors
    /// As [`Self::join_shared_scan`].
    pub fn unit_paths(&self, scan: i64) -> Result<Vec<PathBuf>, Error> {
        self.server("a shared scan")?.unit_paths(scan)
    }

    /// Begins the time of the current unit anew.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if somebody else has it, and that of the writer.
    pub fn renew_unit(&self) -> Result<(), Error> {
        self.server("a shared scan")?.renew_unit()
    }

    /// Notes that the current unit is done, or gives it back.
    ///
    /// # Errors
    /// As [`Self::renew_unit`].
    pub fn leave_unit(&self, is_done: bool) -> Result<(), Error> {
        self.server("a shared scan")?.leave_unit(is_done)
    }

    /// Whether an arrival journal can go with this index. Of several files each takes its arrivals
    /// in an order of its own.
    #[must_use]
    pub fn takes_journal(&self) -> bool {
        matches!(self.0, OpenedIndex::File(_))
    }

    /// See [`SqliteWriterHandle::close_journal`].
    pub fn close_journal(&self, journal: [u8; 16]) {
        if let OpenedIndex::File(main) = &self.0 {
            main.close_journal(journal);
        }
    }

    /// See [`SqliteWriterHandle::pass_entry_over`].
    pub fn pass_entry_over(&self, entry: JournalEntryId, on_noted: impl FnOnce() + Send + 'static) {
        match &self.0 {
            OpenedIndex::File(main) => main.pass_entry_over(entry, on_noted),
            // There is no journal.
            _ => on_noted(),
        }
    }

    /// See [`SqliteWriterHandle::skip_changes`].
    ///
    /// # Errors
    /// That of the writer, and if there are several files.
    pub fn skip_changes(&self, commits: u64) -> Result<(), Error> {
        self.only("a journal")?.skip_changes(commits)
    }

    /// See [`SqliteWriterHandle::raise_numbers`]. Of several files it is the main one.
    ///
    /// # Errors
    /// That of the writer.
    pub fn raise_numbers(&self, cause: &'static str, given: GivenNumbers, now_ms: i64) -> Result<(), Error> {
        match &self.0 {
            OpenedIndex::File(main) | OpenedIndex::Folder { main, .. } => main.raise_numbers(cause, given, now_ms),
            OpenedIndex::Server { handle, .. } => handle.raise_numbers(cause, given, now_ms),
        }
    }

    /// See [`SqliteWriterHandle::flush_log`].
    ///
    /// # Errors
    /// That of the writer, and if there are several files.
    pub fn flush_log(&self) -> Result<(), Error> {
        self.only("a journal")?.flush_log()
    }

    /// See [`SqliteWriterHandle::correct`].
    ///
    /// # Errors
    /// That of the writer, and if there are several files.
    pub fn correct(&self, change: CorrectionChange) -> Result<(i64, CorrectionEffect), Error> {
        match &self.0 {
            OpenedIndex::Server { handle, .. } => handle.correct(change),
            OpenedIndex::File(_) | OpenedIndex::Folder { .. } => self.only("a correction")?.correct(change),
        }
    }

    /// See [`SqliteWriterHandle::relocate`].
    ///
    /// # Errors
    /// That of the writer, and if there are several files.
    pub fn relocate(&self, from: PathBuf, to: PathBuf) -> Result<Relocation, Error> {
        match &self.0 {
            OpenedIndex::Server { handle, .. } => handle.relocate(&from, &to),
            OpenedIndex::File(_) | OpenedIndex::Folder { .. } => self.only("a relocation")?.relocate(from, to),
        }
    }
}

impl EventChanges for WriterHandle {
    fn begin_telling(&self) -> Result<(), Error> {
        self.events()?.begin_telling()
    }

    fn tell_studies(&self, studies: Vec<ChangedStudy>, told: u64, clock: Clock) -> Result<(), Error> {
        self.events()?.tell_studies(studies, told, clock)
    }

    fn tell_damaged(&self, sop_instance_uids: Vec<String>, clock: Clock) -> Result<Vec<String>, Error> {
        self.events()?.tell_damaged(sop_instance_uids, clock)
    }

    fn keep_receivers(&self, names: Vec<String>) -> Result<u64, Error> {
        self.events()?.keep_receivers(names)
    }

    fn hold_receiver(&self, receiver: &str, holder: &str, lease: Duration) -> Result<bool, Error> {
        self.events()?.hold_receiver(receiver, holder, lease)
    }

    fn note_deliveries(&self, receiver: String, holder: &str, changes: DeliveryChanges) -> Result<bool, Error> {
        self.events()?.note_deliveries(receiver, holder, changes)
    }

    fn retry_events(
        &self,
        receiver: Option<String>,
        events: Vec<i64>,
        now_ms: i64,
        until_ms: i64,
    ) -> Result<u64, Error> {
        self.events()?.retry_events(receiver, events, now_ms, until_ms)
    }

    fn drop_events(&self, limits: EventLimits) -> Result<u64, Error> {
        self.events()?.drop_events(limits)
    }
}

impl Arrivals for WriterHandle {
    fn store(&self, received: Received, on_done: OnStored) {
        self.arrivals().store(received, on_done)
    }

    fn scanned(&self, directory: ScannedDirectory) -> Result<(), Error> {
        self.arrivals().scanned(directory)
    }

    fn begin_scan(&self, roots: String) -> Result<i64, Error> {
        self.arrivals().begin_scan(roots)
    }

    fn begin_pass(&self, roots: String, scan: Option<i64>) -> Result<i64, Error> {
        self.arrivals().begin_pass(roots, scan)
    }

    fn note_watch(&self, roots: String, state: Option<String>) -> Result<(), Error> {
        self.arrivals().note_watch(roots, state)
    }

    fn end_scan(&self, scan: i64, summary: String) -> Result<(), Error> {
        self.arrivals().end_scan(scan, summary)
    }

    fn mount_point(&self, path: PathBuf, mounted: Mounted) -> Result<(), Error> {
        self.arrivals().mount_point(path, mounted)
    }

    fn resolve_missing(&self, roots: Vec<PathBuf>, except: Vec<PathBuf>, prune: bool) -> Result<u64, Error> {
        self.arrivals().resolve_missing(roots, except, prune)
    }

    fn flush(&self) -> Result<Tally, Error> {
        self.arrivals().flush()
    }

    fn name_index(&self, id: Option<String>) -> Result<String, Error> {
        self.arrivals().name_index(id)
    }

    fn storage_moved(&self, from: PathBuf, to: PathBuf) -> Result<u64, Error> {
        self.arrivals().storage_moved(from, to)
    }

    fn index_is_in_place(&self) -> bool {
        self.arrivals().index_is_in_place()
    }
}

impl RemovalChanges for WriterHandle {
    fn begin_removal(&self, begun_ms: i64, takes_objects: bool) -> Result<i64, Error> {
        self.removals()?.begin_removal(begun_ms, takes_objects)
    }

    fn remove(&self, removal: i64, takes_objects: bool, uids: Vec<String>) -> Result<RemovedCounts, Error> {
        self.removals()?.remove(removal, takes_objects, uids)
    }

    fn note_removed(&self, removal: i64, uids: Vec<String>) -> Result<(), Error> {
        self.removals()?.note_removed(removal, uids)
    }

    fn trashed(&self, files: Vec<RemovedFile>) -> Result<(), Error> {
        self.removals()?.trashed(files)
    }

    fn forget_removed(&self, files: Vec<RemovedFile>) -> Result<(), Error> {
        self.removals()?.forget_removed(files)
    }

    fn lift_removed(&self, uids: Vec<String>) -> Result<(), Error> {
        self.removals()?.lift_removed(uids)
    }

    fn end_removal(&self, removal: i64) -> Result<(), Error> {
        self.removals()?.end_removal(removal)
    }

    fn emptied(&self, removal: i64, storage: &Path, now_ms: i64) -> Result<u64, Error> {
        self.removals()?.emptied(removal, storage, now_ms)
    }

    fn removal_of(&self, begun_ms: i64) -> Result<i64, Error> {
        self.removals()?.removal_of(begun_ms)
    }
}

/// The worklist is that of the main file.
impl WorklistChanges for WriterHandle {
    fn change_worklist(&self, work: WorklistWork) -> Result<(), Error> {
        match &self.0 {
            OpenedIndex::File(main) | OpenedIndex::Folder { main, .. } => main.change_worklist(work),
            OpenedIndex::Server { handle, .. } => handle.change_worklist(work),
        }
    }

    fn has_other_folders(&self) -> bool {
        matches!(self.0, OpenedIndex::Server { .. })
    }
}
