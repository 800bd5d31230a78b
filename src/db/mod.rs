//! The index: what is known of every instance, behind traits.
//!
//! An engine implements up to eleven traits:
//!
//! - [`Search`], [`ScanLedger`] and [`Admin`] ask an index. [`Arrivals`] takes what was received
//!   and what scans found.
//! - [`RemovalSearch`] tells what operators removed, and [`RemovalChanges`] removes.
//! - [`EventSearch`] tells what was recorded for programs that follow the index, and
//!   [`EventChanges`] records more and what became of it.
//! - [`WorklistSearch`] asks for the worklist. [`WorklistChanges`] changes it, and hands out the
//!   tables of a transaction as [`WorklistTables`].
//!
//! [`open`] chooses the engine:
//!
//! | engine | an index is | it lacks |
//! |---|---|---|
//! | `sqlite` | one file | nothing |
//! | [`federated`] | a folder of such files, or several of them for questions | changes of several files in one transaction |
//! | [`postgres`] | a database of a server | what it refuses by name (docs/adr/0044) |
//! | [`memory`] | a value of this process, for tests | events, the worklist, and all that stands below |
//!
//! No trait has what an operator does to a whole index. These are functions of the types in
//! [`open`]:
//!
//! - corrections: `corrections` and `plan_correction` on the reader, `correct` on the writer. A
//!   database has them too;
//! - relocations: `plan_relocation` and `scan_roots` on the reader, `relocate` on the writer. A
//!   database has no `scan_roots`;
//! - copies: `copy_index` makes one of a file, `copy_to_engine` takes an index to another engine,
//!   `Reader::open_copy` opens a copy, and `IndexHold` replaces the index;
//! - splits and merges of the files of a folder;
//! - files: `IndexFiles` names and checks those of the index;
//! - `Reader::explain`, which tells how SQLite runs a query.
//!
//! The traits promise the same for each engine:
//!
//! - *Durability*: a change is durable when its call says so, and as durable as [`Durability`] was
//!   chosen. Only a committed change makes a [`Committed`].
//! - *Visibility*: a change that was committed is seen by each question that is asked afterwards,
//!   in any process. A question sees the index of one moment, whatever is written meanwhile.
//! - *Order*: one thread's changes are made in the order of its calls. Only received instances may
//!   go before what scans found and queued earlier. Answers come in the order that the method
//!   states.
//! - *Cancellation*: a question can be interrupted from another thread. A change cannot, and is
//!   made whole or not at all.
//!
//! Each method may fail with an *error of the engine*:
//!
//! - [`Error::Damaged`] or [`Error::Malformed`]: the index is damaged;
//! - [`Error::Locked`] or [`Error::Replaced`]: another process keeps the index locked, or has put
//!   another one in its place;
//! - [`Error::Io`] or [`Error::Statement`]: the file system or the engine reports an error.
//!
//! The *error of a transaction* is one of these, [`Error::Full`], or [`Error::InDoubt`]. After
//! `InDoubt` the change may be in the index or not. After the others nothing was changed.
//!
//! Decisions that do not depend on an engine are pure functions in `rules` and `plan`.

mod arrival;
mod backlog;
mod contents;
mod corrections;
mod engine;
mod error;
mod event_notes;
mod events;
pub mod federated;
mod group_rhythm;
mod leases;
pub mod memory;
mod mounts;
mod name_words;
pub mod open;
mod paths;
mod pieces;
mod plan;
pub mod postgres;
mod probe;
mod relocation;
mod removals;
mod removing;
mod report;
mod rules;
pub mod sqlite;
mod sums;
mod suspension;
pub mod transfer;
mod types;
mod view;
mod worklist;
mod worklist_columns;

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::model::find::{FindAnswer, FindRequest};
use crate::model::location::{Location, Place};

pub use backlog::Backlog;
pub use corrections::{Correction, CorrectionChange, CorrectionEffect, CorrectionError, Corrections};
pub use engine::IndexReader;
pub use error::{Error, Permission};
pub use events::{
    ChangedStudy, DeliveryChanges, DeliveryCounts, EventChanges, EventKind, EventKindError, EventLimits, EventProgress,
    EventRecording, EventSearch, GivenNumbers, IndexEvent, StudyIdentifiers, WaitingEvent,
};
pub(crate) use group_rhythm::GroupRhythm;
pub use leases::{NextUnit, SharedScan};
pub use mounts::{has_entries, host_name, mounted_below};
pub use paths::is_reserved;
pub use plan::{can_answer, can_answer_declared};
pub use removals::{RemovalChanges, RemovalSearch};
pub use report::{LISTED_AND_MISSING, StudyProblem, StudyReport, listed_and_missing};
pub use sums::{EntryHash, SetSum};
pub use suspension::Suspension;
pub use types::{
    CheckReport, Committed, Compared, ConflictEntry, CorrectedValues, DeclaredCoverage, DirectorySnapshot,
    DuplicatePolicy, Durability, FailureEntry, FileOutcome, Finding, IndexStatus, Interrupt, JournalEntryId, KnownFile,
    KnownLocation, KnownPolicy, LocatedInstance, Mounted, NotIndexed, Note, OnStored, REMOVED, ReceivePolicy, Received,
    ReceivedFrom, Relocation, Removal, RemovedCounts, RemovedFile, ScanEntry, ScannedDirectory, ScannedFile,
    StoreOutcome, Stored, Tally, WatchEntry,
};
pub use worklist::{
    PerformedStep, WorklistArrival, WorklistAsked, WorklistBy, WorklistChanges, WorklistColumn, WorklistCondition,
    WorklistProblem, WorklistRequest, WorklistRow, WorklistSearch, WorklistSource, WorklistState, WorklistTables,
    WorklistWork,
};

/// Finds entities, and the places where their objects lie.
///
/// A value of this kind serves one thread. [`Search::another`] gives one for the next thread.
pub trait Search: Sized {
    /// Answers a query. Calls `on_answer` for each matching entity, and returns how many answers it
    /// gave.
    ///
    /// *Order*: patients come by Patient ID, studies by date and time with the newest first. Series
    /// and instances come by their number within that. Two calls over the same content give the
    /// same order, so that [`FindRequest::offset`] and [`FindRequest::limit`] make pages.
    ///
    /// *Cancellation*: the query ends early when `on_answer` says to stop, or when the limit is
    /// reached. [`Search::interrupt`] ends it with [`Error::Interrupted`].
    ///
    /// # Errors
    /// [`Error::Interrupted`], [`Error::Unsupported`] for keys that the index does not hold, or
    /// that of the engine.
    fn find(
        &mut self,
        request: &FindRequest,
        on_answer: impl FnMut(FindAnswer) -> ControlFlow<()>,
    ) -> Result<u64, Error>;

    /// A handle by which another thread interrupts the question that is being answered. It does
    /// nothing while there is none.
    fn interrupt(&self) -> Interrupt;

    /// Every place where an instance lies, with what is known of each. Empty where the index does
    /// not know the instance.
    ///
    /// *Order*: the first location comes first. Files that were gone when a scan looked come after
    /// those that were there, and objects that differ from the first one come last.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn known_locations(&mut self, sop_instance_uid: &str) -> Result<Vec<KnownLocation>, Error>;

    /// The places of [`Search::known_locations`] in their order, without objects that differ from
    /// the first one.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn locations(&mut self, sop_instance_uid: &str) -> Result<Vec<Location>, Error> {
        let known = self.known_locations(sop_instance_uid)?;
        Ok(known.into_iter().filter(|known| !known.differs).map(|known| known.location).collect())
    }

    /// Pairs of SOP Class UID and Transfer Syntax UID in which instances are held.
    ///
    /// *Order*: by SOP class, and for each class the transfer syntax of most instances first.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn held_transfer_syntaxes(&mut self) -> Result<Vec<(String, String)>, Error> {
        let mut counts = self.transfer_syntax_counts()?;
        counts.sort_by(|(class, syntax, n), (other_class, other_syntax, m)| {
            (class, m, syntax).cmp(&(other_class, n, other_syntax))
        });
        Ok(counts.into_iter().map(|(class, syntax, _)| (class, syntax)).collect())
    }

    /// The pairs of [`Search::held_transfer_syntaxes`] with the number of their instances, in no
    /// particular order.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn transfer_syntax_counts(&mut self) -> Result<Vec<(String, String, u64)>, Error>;

    /// A number that grows with each change of the index by any other connection, also of this
    /// process. It also grows with each change of the mounts that answers depend on. So the same
    /// number twice means that each question in between has the same answer.
    ///
    /// The numbers of two values of this kind cannot be compared.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn version(&mut self) -> Result<i64, Error>;

    /// Asks the same index from another thread.
    ///
    /// # Errors
    /// Fails if the index can no longer be opened.
    fn another(&self) -> Result<Self, Error>;
}

/// The way into an index: what was received, and what scans found.
///
/// A value of this kind may be used by any number of threads. All changes of a process go through
/// one queue, and are made in its order. Another process may write the same index at the same time.
pub trait Arrivals: Send + Sync {
    /// Queues a received instance, and returns at once. Only an instance of a journal
    /// ([`Received::journaled`]) waits for room in the queue, so that its order is kept.
    ///
    /// `on_done` is called once, from any thread, and has to return at once. It gets the proof of
    /// commit, or the error that prevented the commit.
    ///
    /// *Durability*: when `on_done` gets a [`Stored`], the change is committed, and as durable as
    /// the writer was opened for. For an instance of an arrival journal, the journal gives the
    /// durability; the row is committed without a flush. Instances of a journal must be queued in
    /// the order of their numbers.
    ///
    /// *Visibility*: each question asked after that sees the instance.
    ///
    /// *Cancellation*: none. `on_done` gets [`Error::Busy`] when the queue is full, and
    /// [`Error::WriterStopped`] when there is no writer any more. Then nothing was queued.
    fn store(&self, received: Received, on_done: OnStored);

    /// Queues what a scan found in a directory. Waits while the queue is full.
    ///
    /// *Durability*: [`Arrivals::flush`] returns when it is committed. Records, failures and the
    /// completeness of the directory are committed together.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], also when the index is no longer the file that was opened: then
    /// there is no point in reading on. An error of the later commit comes out of
    /// [`Arrivals::flush`].
    fn scanned(&self, directory: ScannedDirectory) -> Result<(), Error>;

    /// Notes the beginning of a scan over these absolute paths, and returns its number. `roots` is
    /// a JSON array of texts.
    ///
    /// # Errors
    /// Fails with [`Error::WriterStopped`], or with the error of the transaction.
    fn begin_scan(&self, roots: String) -> Result<i64, Error>;

    /// Notes the beginning of a further pass over the paths of a scan, and returns the number of
    /// the scan. A pass each minute would otherwise add 500,000 rows of scans a year.
    /// A new scan begins where `scan` is `None` or is not known.
    ///
    /// # Errors
    /// Fails with [`Error::WriterStopped`], or with the error of the transaction.
    fn begin_pass(&self, roots: String, scan: Option<i64>) -> Result<i64, Error>;

    /// Keeps the state of watched paths, or forgets them. `roots` is the same JSON array as in
    /// [`Self::begin_scan`], and the key of the row. `state` is a JSON object that only the caller
    /// reads (`watch::WatchState`).
    ///
    /// # Errors
    /// Fails with [`Error::WriterStopped`], or with the error of the transaction.
    fn note_watch(&self, roots: String, state: Option<String>) -> Result<(), Error>;

    /// Notes the end of a scan with its summary, a JSON object. Its keys are those of `dcmdex scan
    /// --json` (docs/json.md). An engine asks it only whether something has changed. A number that
    /// is unknown changes nothing.
    ///
    /// # Errors
    /// Fails with [`Error::WriterStopped`], or with the error of the transaction.
    fn end_scan(&self, scan: i64, summary: String) -> Result<(), Error>;

    /// Queues what a scan has seen of the disk at a directory. An error of the later commit comes
    /// out of [`Arrivals::flush`].
    ///
    /// # Errors
    /// Fails with [`Error::WriterStopped`].
    fn mount_point(&self, path: PathBuf, mounted: Mounted) -> Result<(), Error>;

    /// Ends a scan's account of missing files. It counts the locations in or below `roots` that are
    /// marked as missing. It passes over those in or below `except`. With `prune` it deletes the
    /// locations from the index instead, and [`Tally::removed`] counts them.
    ///
    /// # Errors
    /// Fails with [`Error::WriterStopped`], or with the error of a transaction.
    fn resolve_missing(&self, roots: Vec<PathBuf>, except: Vec<PathBuf>, prune: bool) -> Result<u64, Error>;

    /// Waits until all that was queued before is committed. Returns what scans changed since the
    /// last call.
    ///
    /// # Errors
    /// The first error of a scan's transaction since the last call, or [`Error::WriterStopped`].
    fn flush(&self) -> Result<Tally, Error>;

    /// The name that sets this index apart from all others. An index without a name gets this one,
    /// or a random one.
    ///
    /// # Errors
    /// Fails with [`Error::WriterStopped`], or with the error of the transaction.
    fn name_index(&self, id: Option<String>) -> Result<String, Error>;

    /// Gives the directories of the node's own storage at or below `from` the same paths at or
    /// below `to`. Returns how many there were. A directory that the index already knows at its new
    /// path stays where it is.
    ///
    /// *Durability*: the change is committed when this returns.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    fn storage_moved(&self, from: PathBuf, to: PathBuf) -> Result<u64, Error>;

    /// Whether the index still is the one that was opened. While it is not, nothing is stored.
    fn index_is_in_place(&self) -> bool;
}

/// Directories that one page of [`ScanLedger::directories_below`] usually has. Larger: more memory.
/// Smaller: more queries.
pub(crate) const PAGE_DIRECTORIES: usize = 1000;

/// Ledger of all that scans have seen: the files of directories, the members of archive files, and
/// mount points.
pub trait ScanLedger: Sized {
    /// Reads the files of a directory as the index knows them at this moment, whatever is written
    /// until the snapshot is used.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn directory_now(&mut self, directory: &Path) -> Result<DirectorySnapshot<'_>, Error>;

    /// The files in a directory that the index knows, by name, without those below it.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn directory_files(&mut self, directory: &Path) -> Result<HashMap<OsString, KnownFile>, Error> {
        self.directory_now(directory)?.files()
    }

    /// Calls `on_member` for each member of an archive file that the index knows, in no particular
    /// order.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn archive_members(&mut self, archive: &Path, on_member: &mut dyn FnMut(OsString, KnownFile)) -> Result<(), Error>;

    /// Returns what the index knows of an archive file, mostly without looking at each member. This
    /// is the number of members that are indexed and not missing, and all other members.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn archive_summary(&mut self, archive: &Path) -> Result<(u64, Vec<(OsString, KnownFile)>), Error>;

    /// Whether some member of an archive file was read without a declared attribute.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn archive_is_without_declared(&mut self, archive: &Path) -> Result<bool, Error>;

    /// The number of instances of this kind of place at or below `root` that were read without a
    /// declared attribute.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn without_declared_below(&mut self, place: Place, root: &Path) -> Result<u64, Error>;

    /// Number of instances that were read without a declared attribute, and number of all
    /// instances.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn declared_coverage(&mut self) -> Result<DeclaredCoverage, Error>;

    /// The directories of this kind at or below `root` with instances that were read without a
    /// declared attribute, each once and sorted.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn directories_without_declared(&mut self, place: Place, root: &Path) -> Result<Vec<PathBuf>, Error>;

    /// The instances that have a location in a directory or an archive file of this kind, each with
    /// that location. First locations come before further ones.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn located_instances(&mut self, place: Place, directory: &Path) -> Result<Vec<LocatedInstance>, Error>;

    /// A page of the directories of this kind below `root`, sorted: those after `after`, and at
    /// most `limit`. Begin with `root` as `after`, and go on with the last of each page until one
    /// is empty.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn directories_below(
        &mut self,
        place: Place,
        root: &Path,
        after: &Path,
        limit: usize,
    ) -> Result<Vec<PathBuf>, Error>;

    /// The directories at which scans have seen a file system mounted.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn mount_points(&mut self) -> Result<BTreeSet<PathBuf>, Error>;

    /// The directories at which scans took the disk for another one than that of the files which
    /// are missing there: see [`Mounted::Exchanged`].
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn exchanged_disks(&mut self) -> Result<BTreeSet<PathBuf>, Error>;

    /// The directories of this machine that have a name in the index. Each may be a disk.
    fn named_roots(&self) -> BTreeSet<PathBuf> {
        BTreeSet::new()
    }
}

/// Questions of an operator to an index.
pub trait Admin: Sized {
    /// The contents of the index in numbers, all of one moment.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn status(&mut self) -> Result<IndexStatus, Error>;

    /// The number of the last change, or of a later one that nothing has (docs/adr/0015).
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn last_change(&mut self) -> Result<u64, Error>;

    /// Compares what the index says of itself (counters, look-ups, references) with its rows, and
    /// reads all of it for that.
    ///
    /// # Errors
    /// Fails with an error of the engine if the index cannot even be read.
    fn check(&mut self) -> Result<CheckReport, Error>;

    /// Checks a sample of the index, for two seconds at most. Damage that it meets is a finding.
    ///
    /// # Errors
    /// Fails with an error of the engine that is no damage.
    fn start_check(&mut self) -> Result<CheckReport, Error>;

    /// Calls `on_failure` for each file that could not be read, ordered by path, until there are no
    /// more or it says to stop.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn failures(&mut self, on_failure: impl FnMut(FailureEntry) -> ControlFlow<()>) -> Result<(), Error>;

    /// Calls `on_conflict` for each contradiction in the archive, ordered by kind, until there are
    /// no more or it says to stop.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn conflicts(&mut self, on_conflict: impl FnMut(ConflictEntry) -> ControlFlow<()>) -> Result<(), Error>;

    /// The watched directories, ordered by their paths. An index that never had any has none.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn watches(&mut self) -> Result<Vec<WatchEntry>, Error>;

    /// Calls `on_study` for each study with what is wrong with it, the newest first, until there
    /// are no more or it says to stop.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if this index makes no reports, or that of the engine.
    fn studies_with_problems(&mut self, on_study: impl FnMut(StudyReport) -> ControlFlow<()>) -> Result<(), Error>;

    /// The name that sets this index apart from all others. `None` as long as no node has stored
    /// with it.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    fn index_id(&mut self) -> Result<Option<String>, Error>;
}
