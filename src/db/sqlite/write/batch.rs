//! One transaction of the writer, and what it remembers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{CachedStatement, Connection, ErrorCode, Statement};

use super::super::limits::{BUSY_TIMEOUT, WAL_AUTOCHECKPOINT_PAGES};
use super::super::write_priority::{self, Priority, PriorityLock};
use super::caches::{DirectoryCache, GroupCache, ParentCache, ScanState};
use super::changes::{Changes, HashFilter, LookupCache, Lookups};
use super::origins::Origins;
use super::rows::Result;
use super::run::{Differences, Run};
use crate::db::{Error, Tally};
use crate::model::clock::Clock;
use crate::model::declared::DeclaredSet;

/// The writer's state: caches that live on between transactions, and what the current one has changed.
pub(in super::super) struct Batch<'c> {
    pub(super) connection: &'c Connection,
    lock: &'c PriorityLock,
    /// Whether the copying back of the write-ahead log is left to another process.
    copies_log_late: bool,
    pub(super) prepared: PreparedStatements<'c>,
    pub(super) lookups: Lookups,
    pub(super) lookup_cache: LookupCache,
    pub(super) clock: Clock,
    pub(super) declared: Arc<DeclaredSet>,
    data_version: i64,
    pub(super) parents: ParentCache,
    pub(super) groups: GroupCache,
    pub(super) directories: DirectoryCache,
    /// Where the last record went.
    pub(super) run: Option<Run>,
    /// The instance group of the last record, and in what the values differ from it that the record shares with others.
    pub(super) differences: Option<Differences>,
    pub(super) scan: ScanState,
    pub(super) changes: Changes,
    /// Who brings what is being written.
    pub(super) origin: Origins,
    /// Whether a defect ended a transaction: what is remembered here may be half of what it should be.
    broken: bool,
}

/// The statements that run for each instance, held ready: looking them up by their text took as long as running them.
pub(super) struct PreparedStatements<'c> {
    pub(super) instance_groups_of_hash: Statement<'c>,
    pub(super) instance: Statement<'c>,
    pub(super) insert_instance: Statement<'c>,
    pub(super) insert_lookup: Statement<'c>,
}

impl<'c> PreparedStatements<'c> {
    fn new(connection: &'c Connection) -> Result<Self> {
        Ok(Self {
            instance_groups_of_hash: connection.prepare(
                "SELECT instance_group FROM uid_lookup WHERE hash = ?1 UNION ALL SELECT instance_group FROM uid_lookup_recent WHERE hash = ?1",
            )?,
            instance: connection.prepare(
                "SELECT size, file_name, instance_number, diff, checksum FROM instance WHERE instance_group = ?1 AND uid_suffix = ?2",
            )?,
            insert_instance: connection.prepare(
                "INSERT INTO instance (instance_group, uid_suffix, instance_number, size, mtime, file_name, acquisition_number, \
                 acquisition_time, content_time, instance_creation_time, diff, checksum) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?,
            insert_lookup: connection.prepare("INSERT OR IGNORE INTO uid_lookup_recent (hash, instance_group) VALUES (?1, ?2)")?,
        })
    }
}

impl<'c> Batch<'c> {
    pub(in super::super) fn new(
        connection: &'c Connection,
        lock: &'c PriorityLock,
        clock: Clock,
        declared: Arc<DeclaredSet>,
    ) -> Result<Self> {
        Ok(Self {
            connection,
            lock,
            copies_log_late: false,
            prepared: PreparedStatements::new(connection)?,
            lookups: Lookups::read(connection)?,
            clock,
            declared,
            data_version: -1,
            lookup_cache: LookupCache::default(),
            parents: ParentCache::default(),
            groups: GroupCache::default(),
            directories: DirectoryCache::default(),
            run: None,
            differences: None,
            scan: ScanState::default(),
            changes: Changes::default(),
            origin: Origins::default(),
            broken: false,
        })
    }

    /// Goes on with a scan that another batch began: what that knew of other scans is lost.
    pub(in super::super) fn go_on_with(&mut self, scan: Option<i64>) {
        self.scan = ScanState { own: scan, others_wrote: true, ..ScanState::default() };
    }

    /// The scan that this writer does.
    pub(in super::super) fn scan(&self) -> Option<i64> {
        self.scan.own
    }

    /// Whether a defect ended a transaction. Then it is no longer good for anything, and its connection neither.
    pub(in super::super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Runs `work` in one transaction and commits it; on any error nothing of it remains. After a panic in it
    /// ([`Error::WriterPanicked`]) nothing is run any more: see [`Self::is_broken`].
    pub(in super::super) fn run<T>(
        &mut self,
        priority: Priority,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> std::result::Result<T, Error> {
        if self.broken {
            return Err(Error::WriterPanicked);
        }
        // Nobody looks any more at what a panic left as it was: what is broken is thrown away.
        let Ok(result) = catch_unwind(AssertUnwindSafe(|| self.transaction(priority, work))) else {
            self.broken = true;
            let _already = self.connection.execute_batch("ROLLBACK");
            return Err(Error::WriterPanicked);
        };
        if result.is_err() {
            // The first error matters; a rollback fails only where SQLite has rolled back by itself.
            let _already = self.connection.execute_batch("ROLLBACK");
            self.forget();
            self.changes = Changes::default();
            self.origin.forget();
            if let Ok(lookups) = Lookups::read(self.connection) {
                self.lookups = lookups;
            }
        }
        result.map_err(|error| match error.sqlite_error_code() {
            // Of one that comes before the commit this says too much, which does no harm.
            Some(ErrorCode::SystemIoFailure) => Error::InDoubt { committed: false, source: Box::new(error) },
            _ => Error::from(error),
        })
    }

    /// Begins a transaction when it is its turn.
    fn begin(&self, priority: Priority) -> Result<()> {
        if priority == Priority::None {
            self.lock.give_way();
        }
        let deadline = Instant::now() + priority.patience();
        // SQLite itself would pause for up to 100 ms between attempts.
        self.connection.busy_timeout(Duration::ZERO)?;
        let mut asked = None;
        loop {
            // Immediate: wait for another process now, not in the middle.
            match self.statement("BEGIN IMMEDIATE")?.execute([]) {
                Err(error)
                    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
                        && Instant::now() < deadline =>
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

    /// Whether a transaction that can wait should end, because another process is in a hurry.
    pub(in super::super) fn should_give_way(&self) -> bool {
        self.lock.is_asked()
    }

    /// Who is in a hurry leaves it to another process that writes too to copy the log back.
    fn share_log(&mut self, priority: Priority, others_write: bool) -> Result<()> {
        const LATE: u32 = 4 * WAL_AUTOCHECKPOINT_PAGES;
        let late = priority == Priority::Waiting && others_write;
        if std::mem::replace(&mut self.copies_log_late, late) != late {
            let pages = if late { LATE } else { WAL_AUTOCHECKPOINT_PAGES };
            self.connection.pragma_update(None, "wal_autocheckpoint", pages)?;
        }
        Ok(())
    }

    fn transaction<T>(&mut self, priority: Priority, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.begin(priority)?;
        let version: i64 = self.statement("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        let others_write = version != self.data_version && self.data_version != -1;
        if self.data_version == -1 {
            self.lookup_cache.filter = HashFilter::of(self.connection)?;
        } else if others_write {
            self.lookup_cache.filter = None;
        }
        if version != self.data_version || self.cache_is_large() {
            if others_write {
                self.origin.end_block();
                self.look_for_other_scans()?;
            }
            self.forget();
            self.data_version = version;
        }
        let value = work(self)?;
        self.write_changes()?;
        self.share_log(priority, others_write)?;
        self.statement("COMMIT")?.execute([])?;
        Ok(value)
    }

    fn look_for_other_scans(&mut self) -> Result<()> {
        let transactions = self.transactions_of_other_scans()?;
        // Who has not said which scan is its own may have met any.
        self.scan.others_wrote |= self.scan.own.is_none() || transactions != self.scan.others_transactions;
        Ok(())
    }

    pub(super) fn transactions_of_other_scans(&self) -> Result<i64> {
        self.statement("SELECT ifnull(sum(transactions), 0) FROM scan WHERE id IS NOT ?1")?
            .query_row([self.scan.own], |row| row.get(0))
    }

    /// What the transactions since the last call have changed.
    pub(in super::super) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.changes.tally)
    }

    fn cache_is_large(&self) -> bool {
        self.parents.is_large() || self.groups.is_large() || self.directories.is_large()
    }

    pub(super) fn forget(&mut self) {
        self.forget_parents();
        self.groups.clear();
        self.directories.clear();
    }

    /// Forgets where records belong.
    pub(super) fn forget_parents(&mut self) {
        self.end_run();
        self.parents.clear();
    }

    pub(super) fn statement(&self, sql: &str) -> Result<CachedStatement<'c>> {
        self.connection.prepare_cached(sql)
    }
}
