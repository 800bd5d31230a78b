//! One transaction of the writer: records become rows, counters stay exact.

mod arrivals;
mod asserted_values;
mod changes;
mod files;
mod groups;
mod instances;
mod migration;
mod origin;
mod parents;
mod patients;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{CachedStatement, Connection, ErrorCode, Statement, params};

use super::open::{BUSY_TIMEOUT, WAL_AUTOCHECKPOINT_PAGES};
use super::packing::UidSuffix;
use super::sql_values::PathValue;
use super::write_priority::{self, Hurry, Turn};
use crate::db::{Error, FileOutcome, ScannedDirectory, ScannedFile, Tally};
use crate::model::attribute::AttributeId;
use crate::model::clock::Clock;
use crate::model::declared::DeclaredSet;
use crate::model::location::Place;
use crate::model::record::{Common, InstanceRecord};

pub(super) use migration::from_version_1;

use changes::{Changes, HashFilter, Lookups};
use files::{DirectoryRows, File};
use groups::{InstanceGroup, InstanceGroupKey};
use instances::{Differences, Run};
use origin::{Origins, SourceOfInstances};
use parents::Belonging;

pub(super) use origin::last_change;

/// Series, instance groups and directories that are remembered between transactions; a cache that grows past this starts anew.
/// An instance group with its values takes some 2 KB. Scans go from series to series, and associations are fewer than this.
const CACHE_ENTRIES: usize = 1024;

type Result<T> = rusqlite::Result<T>;

/// The writer's state: caches that live on between transactions, and what the current one has changed.
pub(super) struct Batch<'c> {
    connection: &'c Connection,
    turn: &'c Turn,
    /// Whether the copying back of the write-ahead log is left to another process.
    copies_log_late: bool,
    hot: Hot<'c>,
    lookups: Lookups,
    clock: Clock,
    declared: Arc<DeclaredSet>,
    data_version: i64,
    /// Where records of a series belong that were met, by Study and Series Instance UID.
    series: HashMap<u128, Vec<Belonging>>,
    instance_groups: HashMap<InstanceGroupKey, Rc<InstanceGroup>>,
    instance_groups_by_id: HashMap<i64, Rc<InstanceGroup>>,
    directories: HashMap<PathBuf, i64>,
    archives: HashMap<PathBuf, i64>,
    scratch: String,
    /// Where the last record went.
    run: Option<Run>,
    /// What the look-ups hold, where that is known without asking them.
    filter: Option<HashFilter>,
    /// Of the values that the last record shares with others: the hash of those of patient, study and series.
    upper_values: Option<(Common, u64)>,
    /// The instance group of the last record, and in what the values differ from it that the record shares with others.
    differences: Option<Differences>,
    /// The hash that was last looked up, and the instance groups where it may be.
    candidates: (i32, Vec<i64>),
    /// The scan that this writer does.
    scan: Option<i64>,
    /// Transactions of other scans, as far as known.
    others_transactions: i64,
    /// Whether another scan has written since ours began: what ours knows of files may be out of date.
    others_scan: bool,
    changes: Changes,
    /// Who brings what is being written.
    origin: Origins,
    /// Whether a defect ended a transaction: what is remembered here may be half of what it should be.
    broken: bool,
}

/// The statements that run for each instance, held ready: looking them up by their text took as long as running them.
struct Hot<'c> {
    instance_groups_of_hash: Statement<'c>,
    instance: Statement<'c>,
    insert_instance: Statement<'c>,
    insert_lookup: Statement<'c>,
}

impl<'c> Hot<'c> {
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
    pub(super) fn new(
        connection: &'c Connection,
        turn: &'c Turn,
        clock: Clock,
        declared: Arc<DeclaredSet>,
    ) -> Result<Self> {
        Ok(Self {
            connection,
            turn,
            copies_log_late: false,
            hot: Hot::new(connection)?,
            lookups: Lookups::read(connection)?,
            clock,
            declared,
            data_version: -1,
            series: HashMap::new(),
            instance_groups: HashMap::new(),
            instance_groups_by_id: HashMap::new(),
            directories: HashMap::new(),
            archives: HashMap::new(),
            scratch: String::new(),
            run: None,
            filter: None,
            upper_values: None,
            differences: None,
            candidates: (0, Vec::new()),
            scan: None,
            others_transactions: 0,
            others_scan: false,
            changes: Changes::default(),
            origin: Origins::default(),
            broken: false,
        })
    }

    /// Goes on with a scan that another batch began: what that knew of other scans is lost.
    pub(super) fn go_on_with(&mut self, scan: Option<i64>) {
        self.scan = scan;
        self.others_scan = true;
    }

    /// The scan that this writer does.
    pub(super) fn scan(&self) -> Option<i64> {
        self.scan
    }

    /// Whether a defect ended a transaction. Then it is no longer good for anything, and its connection neither.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Runs `work` in one transaction and commits it; on any error nothing of it remains. After a panic in it
    /// ([`Error::WriterPanicked`]) nothing is run any more: see [`Self::is_broken`].
    pub(super) fn run<T>(
        &mut self,
        hurry: Hurry,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> std::result::Result<T, Error> {
        if self.broken {
            return Err(Error::WriterPanicked);
        }
        // Nobody looks any more at what a panic left as it was: what is broken is thrown away.
        let Ok(result) = catch_unwind(AssertUnwindSafe(|| self.transaction(hurry, work))) else {
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
    fn begin(&self, hurry: Hurry) -> Result<()> {
        if hurry == Hurry::None {
            self.turn.give_way();
        }
        let deadline = Instant::now() + hurry.patience();
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
                    if hurry == Hurry::Waiting && asked.is_none() {
                        asked = self.turn.ask();
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
    pub(super) fn should_give_way(&self) -> bool {
        self.turn.is_asked()
    }

    /// Who is in a hurry leaves it to another process that writes too to copy the log back.
    fn share_log(&mut self, hurry: Hurry, others_write: bool) -> Result<()> {
        const LATE: u32 = 4 * WAL_AUTOCHECKPOINT_PAGES;
        let late = hurry == Hurry::Waiting && others_write;
        if std::mem::replace(&mut self.copies_log_late, late) != late {
            let pages = if late { LATE } else { WAL_AUTOCHECKPOINT_PAGES };
            self.connection.pragma_update(None, "wal_autocheckpoint", pages)?;
        }
        Ok(())
    }

    fn transaction<T>(&mut self, hurry: Hurry, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.begin(hurry)?;
        let version: i64 = self.statement("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        let others_write = version != self.data_version && self.data_version != -1;
        if self.data_version == -1 {
            self.filter = HashFilter::of(self.connection)?;
        } else if others_write {
            self.filter = None;
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
        self.share_log(hurry, others_write)?;
        self.statement("COMMIT")?.execute([])?;
        Ok(value)
    }

    fn look_for_other_scans(&mut self) -> Result<()> {
        let transactions = self.transactions_of_other_scans()?;
        // Who has not said which scan is its own may have met any.
        self.others_scan |= self.scan.is_none() || transactions != self.others_transactions;
        Ok(())
    }

    fn transactions_of_other_scans(&self) -> Result<i64> {
        self.statement("SELECT ifnull(sum(transactions), 0) FROM scan WHERE id IS NOT ?1")?
            .query_row([self.scan], |row| row.get(0))
    }

    /// What the transactions since the last call have changed.
    pub(super) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.changes.tally)
    }

    fn cache_is_large(&self) -> bool {
        self.series.len() > CACHE_ENTRIES
            || self.instance_groups_by_id.len() > CACHE_ENTRIES
            || self.directories.len() + self.archives.len() > CACHE_ENTRIES
    }

    fn forget(&mut self) {
        self.forget_belongings();
        self.instance_groups.clear();
        self.instance_groups_by_id.clear();
        self.directories.clear();
        self.archives.clear();
    }

    /// Forgets where records belong.
    fn forget_belongings(&mut self) {
        self.end_run();
        self.series.clear();
    }

    fn statement(&self, sql: &str) -> Result<CachedStatement<'c>> {
        self.connection.prepare_cached(sql)
    }

    pub(super) fn begin_scan(&mut self, roots: &str) -> Result<i64> {
        self.statement("INSERT INTO scan (started_ms, roots) VALUES (?1, ?2)")?
            .execute(params![self.clock.now_ms(), roots])?;
        let scan = self.connection.last_insert_rowid();
        self.scan = Some(scan);
        self.others_transactions = self.transactions_of_other_scans()?;
        self.others_scan = false;
        Ok(scan)
    }

    pub(super) fn end_scan(&mut self, scan: i64, summary: &str) -> Result<()> {
        self.statement("UPDATE scan SET finished_ms = ?2, summary = ?3 WHERE id = ?1")?.execute(params![
            scan,
            self.clock.now_ms(),
            summary
        ])?;
        Ok(())
    }

    /// Takes what a scan found in a directory.
    pub(super) fn scanned(&mut self, scanned: &ScannedDirectory) -> Result<()> {
        self.origin.set(self.scan.map_or(SourceOfInstances::Unknown, SourceOfInstances::Scan));
        let directory = self.directory(scanned.place, &scanned.directory)?;
        let mut rows = DirectoryRows::new(directory);
        if let Some(scan) = self.scan
            && !std::mem::replace(&mut self.changes.scanned, true)
        {
            self.statement("UPDATE scan SET transactions = transactions + 1 WHERE id = ?1")?.execute([scan])?;
        }
        for name in &scanned.vanished {
            self.changes.tally.removed += u64::from(self.remove_file(name, &mut rows)?);
        }
        for name in &scanned.returned {
            self.note_returned(name, &mut rows)?;
        }
        for name in &scanned.missing {
            self.note_missing(name, &mut rows)?;
        }
        // In the order of the instance rows: each goes to the end of the table, pages fill up, and no page is touched twice.
        let mut files: Vec<&ScannedFile> = scanned.files.iter().collect();
        files.sort_by_cached_key(|file| match &file.outcome {
            FileOutcome::Instance(record) => Some((
                record.value(AttributeId::SeriesInstanceUID),
                match UidSuffix::pack(record.value(AttributeId::SOPInstanceUID), "") {
                    UidSuffix::Packed(packed) => packed,
                    UidSuffix::Text(text) => text.into_bytes(),
                },
            )),
            FileOutcome::NotIndexed { .. } => None,
        });
        for (at, scanned_file) in files.iter().enumerate() {
            let file = File {
                place: scanned.place,
                directory,
                name: &scanned_file.file_name,
                size: scanned_file.size,
                mtime_ms: scanned_file.mtime_ms,
                checksum: None,
            };
            match &scanned_file.outcome {
                FileOutcome::Instance(record) => {
                    if scanned_file.reread {
                        if self.is_as_indexed(record, &file)? {
                            continue;
                        }
                        self.changes.tally.corrected += 1;
                    }
                    if scanned_file.known || self.others_scan {
                        // Mostly it is the same instance as before. That is one look-up; which instance a file was, in a
                        // directory of 100,000, is as many.
                        let same = self
                            .find_instance(record.value(AttributeId::SOPInstanceUID))?
                            .is_some_and(|existing| existing.lies_at(directory, file.name));
                        if !same {
                            self.remove_file(file.name, &mut rows)?;
                        }
                        self.forget_marks(directory, file.name)?;
                    }
                    let following = files.get(at + 1..).unwrap_or_default();
                    self.scanned_instance(record, &file, scanned_file.known, following, scanned.complete)?;
                    if !record.faults().is_empty() {
                        self.note_faults(record, &file)?;
                    }
                }
                FileOutcome::NotIndexed { kind, reason, detail } => {
                    if scanned_file.known || self.others_scan {
                        self.remove_file(file.name, &mut rows)?;
                    }
                    self.statement(
                        "INSERT OR REPLACE INTO unindexed_file (directory, file_name, size, mtime_ms, kind, reason, detail) \
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    )?
                    .execute(params![
                        directory,
                        PathValue(file.name),
                        to_i64(file.size),
                        file.mtime_ms,
                        kind.as_str(),
                        reason,
                        detail
                    ])?;
                }
            }
        }
        Ok(())
    }

    fn scanned_instance(
        &mut self,
        record: &InstanceRecord,
        file: &File<'_>,
        known: bool,
        following: &[&ScannedFile],
        complete: bool,
    ) -> Result<()> {
        let uid = record.value(AttributeId::SOPInstanceUID);
        let Some(existing) = self.find_instance(uid)? else {
            self.insert_instance(record, file, following, complete)?;
            if known {
                self.changes.tally.updated += 1;
            } else {
                self.changes.tally.indexed += 1;
            }
            return Ok(());
        };
        if existing.lies_at(file.directory, file.name) {
            // An object of our own is read again for what it says. What it has to be was settled when it came.
            let checksum = existing.checksum.filter(|_| file.place == Place::Managed);
            self.replace_instance(&existing, record, &File { checksum, ..*file })?;
            self.changes.tally.updated += 1;
            return Ok(());
        }
        if self.place_of(existing.instance_group.directory)? == Place::MetadataOnly {
            // Known so far without its object: this is where it lies. That it was received stays known for when the file goes.
            let differs = self.supersede(&existing, record, file, false)?;
            self.changes.tally.conflicts += u64::from(differs);
            self.changes.tally.indexed += 1;
            return Ok(());
        }
        if !self.first_is_there(&existing)? && !self.differs(&existing, record, file)? {
            self.forget_marks(existing.instance_group.directory, &existing.file_name)?;
            self.replace_instance(&existing, record, file)?;
            self.changes.tally.moved += 1;
            return Ok(());
        }
        let differs = self.insert_copy(&existing, record, file, false)?;
        self.note_invalid_uids(record, file)?;
        self.changes.tally.conflicts += u64::from(differs);
        self.changes.tally.copies += 1;
        Ok(())
    }
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
