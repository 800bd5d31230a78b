//! One transaction of the writer after the other.

use std::ffi::OsStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _};

use super::super::limits::{BUSY_TIMEOUT, WAL_AUTOCHECKPOINT_PAGES};
use super::super::open::set_durability;
use super::super::write_priority::{self, Priority, PriorityLock};
use super::files::MissingIn;
use super::rows::Result;
use super::scans::{self, ScanState};
use super::tables::Tables;
use super::taking::OtherIndex;
use super::{arrivals, commit, pieces};
use crate::db::contents::Contents;
use crate::db::{
    CorrectionChange, CorrectionEffect, Durability, Error, EventRecording, KnownLocation, Mounted, Received,
    RemovedCounts, ScannedDirectory, StoreOutcome, Tally,
};
use crate::model::clock::Clock;
use crate::model::declared::DeclaredSet;

/// The tables of the index, and what begins and ends a transaction on them.
pub(in super::super) struct Batch<'c> {
    connection: &'c Connection,
    lock: &'c PriorityLock,
    /// Whether another process checkpoints the write-ahead log.
    checkpoints_late: bool,
    /// `PRAGMA data_version` of the last transaction. It changes when another process writes.
    data_version: Option<i64>,
    tables: Tables<'c>,
    scan: ScanState,
    /// Guarantee of a commit, as the writer was opened for.
    durability: Durability,
    /// Guarantee that the connection gives.
    connection_does: Durability,
    /// Whether the next transaction needs no flush.
    next_is_journaled: bool,
    /// Whether a defect ended a transaction. What is remembered may then be incomplete.
    broken: bool,
}

impl<'c> Batch<'c> {
    pub(in super::super) fn new(
        connection: &'c Connection,
        lock: &'c PriorityLock,
        clock: Clock,
        (declared, recording, durability): (Arc<DeclaredSet>, EventRecording, Durability),
    ) -> Result<Self> {
        Ok(Self {
            connection,
            lock,
            checkpoints_late: false,
            data_version: None,
            tables: Tables::new(connection, clock, declared, recording)?,
            scan: ScanState::default(),
            durability,
            connection_does: durability,
            next_is_journaled: false,
            broken: false,
        })
    }

    /// Goes on with a scan that another batch began. What that one knew of other scans is lost.
    pub(in super::super) fn go_on_with(&mut self, scan: Option<i64>) {
        self.scan = ScanState::continued(scan);
    }

    /// The scan that this writer does.
    pub(in super::super) fn scan(&self) -> Option<i64> {
        self.scan.own()
    }

    /// Whether a defect ended a transaction. Neither this batch nor its connection can be used any
    /// more.
    pub(in super::super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Runs `work` in one transaction and commits it. After an error nothing of it remains. After a
    /// panic ([`Error::WriterPanicked`]) nothing runs any more: see [`Self::is_broken`].
    pub(in super::super) fn run<T>(
        &mut self,
        priority: Priority,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> std::result::Result<T, Error> {
        if self.broken {
            return Err(Error::WriterPanicked);
        }
        // Nobody looks at what a panic left behind, because a broken batch is thrown away.
        let Ok(result) = catch_unwind(AssertUnwindSafe(|| self.transaction(priority, work))) else {
            self.broken = true;
            let _already = self.connection.execute_batch("ROLLBACK");
            return Err(Error::WriterPanicked);
        };
        if result.is_err() {
            // The first error matters. A rollback fails only if SQLite has rolled back by itself.
            let _already = self.connection.execute_batch("ROLLBACK");
            self.tables.roll_back();
            self.scan.end_transaction();
        }
        result.map_err(|error| match error.sqlite_error_code() {
            // An error before the commit leaves no doubt, but the caution does no harm.
            Some(ErrorCode::SystemIoFailure) => Error::InDoubt { committed: false, source: Box::new(error) },
            _ => Error::from(error),
        })
    }

    /// Has the next transaction commit without a flush, because a journal keeps its rows.
    pub(in super::super) fn leave_flush_to_journal(&mut self) {
        self.next_is_journaled = true;
    }

    /// Sets whether the next commit flushes the log.
    fn choose_durability(&mut self) -> Result<()> {
        let wanted = if std::mem::take(&mut self.next_is_journaled) { Durability::Os } else { self.durability };
        if wanted != self.connection_does {
            set_durability(self.connection, wanted)?;
            self.connection_does = wanted;
        }
        Ok(())
    }

    /// Begins a transaction when it is its turn.
    fn begin(&self, priority: Priority) -> Result<()> {
        if priority == Priority::None {
            self.lock.give_way();
        }
        let deadline = Instant::now() + priority.time_limit();
        // SQLite itself would pause for up to 100 ms between attempts.
        self.connection.busy_timeout(Duration::ZERO)?;
        let mut asked = None;
        loop {
            // Immediate: wait for another process now, not in the middle.
            match self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([]) {
                Err(error)
                    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < deadline =>
                {
                    if priority == Priority::Waiting && asked.is_none() {
                        asked = self.lock.ask();
                    }
                    std::thread::sleep(write_priority::PAUSE);
                }
                result => {
                    self.connection.busy_timeout(BUSY_TIMEOUT)?;
                    return result.map(|_| ());
                }
            }
        }
    }

    /// Whether a transaction that can wait should end, because another process asks for the
    /// priority lock.
    pub(in super::super) fn should_give_way(&self) -> bool {
        self.lock.is_asked()
    }

    /// Leaves the checkpoint of the log to another process that writes too, if this one must not
    /// wait.
    fn share_log(&mut self, priority: Priority, others_write: bool) -> Result<()> {
        const LATE: u32 = 4 * WAL_AUTOCHECKPOINT_PAGES;
        let late = priority == Priority::Waiting && others_write;
        if std::mem::replace(&mut self.checkpoints_late, late) != late {
            let pages = if late { LATE } else { WAL_AUTOCHECKPOINT_PAGES };
            self.connection.pragma_update(None, "wal_autocheckpoint", pages)?;
        }
        Ok(())
    }

    fn transaction<T>(&mut self, priority: Priority, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.choose_durability()?;
        self.begin(priority)?;
        let others_write = self.look_for_other_writers()?;
        let value = work(self)?;
        self.scan.end_transaction();
        commit::write_changes(&mut self.tables)?;
        self.share_log(priority, others_write)?;
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(value)
    }

    /// Clears the caches if another process has written, or if they are too large. Returns whether
    /// another process has written since the last transaction.
    fn look_for_other_writers(&mut self) -> Result<bool> {
        let version: i64 = self.connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        let before = self.data_version;
        let others_write = before.is_some_and(|before| before != version);
        if before.is_none() {
            self.tables.lookups.begin_filter()?;
        }
        if others_write {
            self.tables.lookups.end_filter();
            self.tables.origins.end_block();
            self.scan.look_for_others(&self.tables)?;
        }
        if before != Some(version) || self.tables.cache_is_large() {
            self.tables.forget();
        }
        self.data_version = Some(version);
        Ok(others_write)
    }

    /// Returns what the transactions since the last call have changed.
    pub(in super::super) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tables.changes.tally)
    }

    /// Begins a scan, and returns its number.
    pub(in super::super) fn begin_scan(&mut self, roots: &str) -> Result<i64> {
        self.scan.begin(&self.tables, roots)
    }

    /// Begins a further pass of a scan, or a new scan. Returns its number.
    pub(in super::super) fn begin_pass(&mut self, roots: &str, scan: Option<i64>) -> Result<i64> {
        self.scan.begin_pass(&self.tables, roots, scan)
    }

    /// Keeps the state of watched paths, or forgets them.
    pub(in super::super) fn note_watch(&mut self, roots: &str, state: Option<&str>) -> Result<()> {
        scans::note_watch(&self.tables, roots, state)
    }

    /// Notes the end of a scan.
    pub(in super::super) fn end_scan(&mut self, scan: i64, summary: &str) -> Result<()> {
        self.scan.end(&mut self.tables, scan, summary)
    }

    /// Takes what a scan found in a directory.
    pub(in super::super) fn scanned(&mut self, scanned: &ScannedDirectory) -> Result<()> {
        scans::scanned(&mut self.tables, &mut self.scan, scanned)
    }

    /// Takes an instance that was received. Also returns
    /// [`Stored::first`](crate::db::Stored::first).
    pub(in super::super) fn arrived(&mut self, received: &Received) -> Result<(StoreOutcome, Option<KnownLocation>)> {
        let (outcome, first) = arrivals::arrived(&mut self.tables, received)?;
        if outcome.brings_object() {
            self.tables.changes.events.note_stored(&received.record, &received.sender);
        }
        Ok((outcome, first))
    }

    /// Takes a piece of another index. The index has none of its instances.
    pub(in super::super) fn put_piece(&mut self, piece: &Contents) -> Result<()> {
        pieces::put(&mut self.tables, piece)
    }

    /// Skips this number of change numbers.
    pub(in super::super) fn skip_changes(&mut self, numbers: i64) -> Result<()> {
        self.tables.origins.skip_changes(numbers)
    }

    /// Notes whether something is mounted at a directory.
    pub(in super::super) fn mount_point(&mut self, path: &Path, mounted: Mounted) -> Result<()> {
        self.tables.files.mount_point(path, mounted)
    }

    /// The connection of the transaction, for changes that no cache of the tables knows of.
    pub(in super::super) fn connection(&self) -> &'c Connection {
        self.connection
    }

    /// Changes the rules of corrections. Returns the number of the rule, and what the change does.
    pub(in super::super) fn correct(&mut self, change: &CorrectionChange) -> Result<(i64, CorrectionEffect)> {
        self.tables.change_corrections(change)
    }

    /// Removes an instance with all its locations.
    pub(in super::super) fn remove_instance(
        &mut self,
        uid: &str,
        removal: i64,
        takes_objects: bool,
    ) -> Result<RemovedCounts> {
        self.tables.remove_instance(uid, removal, takes_objects)
    }

    /// Drops a study, and leaves no note of it.
    pub(in super::super) fn drop_study(&mut self, study_instance_uid: &str) -> Result<()> {
        self.tables.drop_study(study_instance_uid)
    }

    /// Another index file with this connection, which is only read.
    pub(in super::super) fn other<'o>(&self, connection: &'o Connection) -> Result<OtherIndex<'o>> {
        let declared = Arc::clone(self.tables.groups.declared_set());
        Ok(OtherIndex::new(Tables::new(connection, self.tables.clock, declared, EventRecording::Off)?))
    }

    /// Takes a study of another index file in.
    pub(in super::super) fn take_study(&mut self, other: &mut OtherIndex<'_>, study_instance_uid: &str) -> Result<()> {
        self.tables.take_study(other, study_instance_uid)
    }

    /// Takes in what another index file has besides studies.
    pub(in super::super) fn take_notes(&mut self, other: &mut OtherIndex<'_>) -> Result<()> {
        self.tables.take_notes(other)
    }

    /// Study and Series Instance UID of an instance. `None` if the index does not know it.
    pub(in super::super) fn parents_of(&mut self, uid: &str) -> Result<Option<(String, String)>> {
        let Some(row) = self.tables.find_instance(uid)? else { return Ok(None) };
        self.connection
            .prepare_cached(
                "SELECT s.study_instance_uid, e.series_instance_uid FROM study_series e JOIN study s ON s.id = e.study \
                 WHERE e.id = ?1",
            )?
            .query_row([row.instance_group.series], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    }

    /// Notes an instance as removed that the index does not know.
    pub(in super::super) fn note_removed(&mut self, uid: &str, removal: i64) -> Result<()> {
        match self.tables.find_instance(uid)? {
            None => self.tables.removals.insert_instance(uid, removal, None),
            Some(_) => Ok(()),
        }
    }

    /// Notes a removed file as being in the trash.
    pub(in super::super) fn note_trashed(&mut self, directory: i64, name: &OsStr) -> Result<()> {
        self.tables.removals.note_trashed(directory, name)
    }

    /// Forgets a removed file.
    pub(in super::super) fn forget_removed(&mut self, directory: i64, name: &OsStr) -> Result<()> {
        self.tables.removals.forget_file(directory, name)
    }

    /// Lets a removed instance come back.
    pub(in super::super) fn lift_removed(&mut self, uid: &str) -> Result<()> {
        self.tables.removals.lift(uid, None)
    }

    /// Forgets what is remembered of rows, since paths have changed.
    pub(in super::super) fn forget_directories(&mut self) {
        self.tables.forget();
    }

    /// Gives the node's own directories at or below `from` their paths at or below `to`.
    pub(in super::super) fn storage_moved(&mut self, from: &Path, to: &Path) -> Result<u64> {
        let moved = self.tables.files.storage_moved(from, to)?;
        self.tables.forget();
        Ok(moved)
    }

    /// Finds where scans have missed files, at or below a path and not below `except`.
    pub(in super::super) fn missing_below(&self, root: &Path, except: &[PathBuf]) -> Result<Vec<MissingIn>> {
        self.tables.files.missing_below(root, except)
    }

    /// Counts the files that scans have missed.
    pub(in super::super) fn count_missing(&self, of: &MissingIn) -> Result<u64> {
        self.tables.files.count_missing(of)
    }

    /// Drops files that scans have missed, at most `limit`. Returns how many there were.
    pub(in super::super) fn prune(&mut self, of: &MissingIn, limit: usize) -> Result<usize> {
        scans::prune(&mut self.tables, of, limit)
    }
}
