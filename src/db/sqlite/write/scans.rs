//! Findings of scans: files that are new, changed, moved or gone.

use rusqlite::{OptionalExtension as _, params};

use super::event_rows::of_json;
use super::files::{MissingIn, OTHER_CONTENT};
use super::locations::DirectoryRows;
use super::rows::{File, InstanceRow, NewInstance, Result};
use super::tables::Tables;
use crate::db::arrival::SourceOfInstances;
use crate::db::event_notes::has_news;
use crate::db::rules::{FirstLocation, FoundDecision, FoundFile, in_order_of_series};
use crate::db::{FileOutcome, ScannedDirectory, ScannedFile};
use crate::model::attribute::AttributeId;
use crate::model::location::Place;
use crate::model::record::InstanceRecord;

/// The scan that this writer does, and what other scans have done meanwhile.
#[derive(Default)]
pub(super) struct ScanState {
    /// The number of the scan.
    own: Option<i64>,
    /// Whether this is a further pass of a scan.
    is_further_pass: bool,
    /// Whether it has written in this transaction.
    has_written: bool,
    /// Transactions of other scans, as far as known.
    others_transactions: i64,
    /// Whether another scan has written since ours began. Then what ours knows of files may be out
    /// of date.
    others_wrote: bool,
}

impl ScanState {
    /// A scan that another writer of this process began. It knows nothing of other scans.
    pub(super) fn continued(own: Option<i64>) -> Self {
        Self { own, others_wrote: true, ..Self::default() }
    }

    /// The number of the scan.
    pub(super) const fn own(&self) -> Option<i64> {
        self.own
    }

    /// Notes the end of a transaction.
    pub(super) fn end_transaction(&mut self) {
        self.has_written = false;
    }

    /// Begins a scan, and returns its number.
    pub(super) fn begin(&mut self, tables: &Tables<'_>, roots: &str) -> Result<i64> {
        tables
            .connection
            .prepare_cached("INSERT INTO scan (started_ms, roots) VALUES (?1, ?2)")?
            .execute(params![tables.clock.now_ms(), roots])?;
        let scan = tables.connection.last_insert_rowid();
        *self = Self { own: Some(scan), has_written: self.has_written, ..Self::default() };
        self.others_transactions = self.transactions_of_others(tables)?;
        Ok(scan)
    }

    /// Begins a further pass of a scan. A new scan begins if there is none, or if it is not known.
    pub(super) fn begin_pass(&mut self, tables: &Tables<'_>, roots: &str, scan: Option<i64>) -> Result<i64> {
        let known: Option<i64> = tables
            .connection
            .prepare_cached("SELECT id FROM scan WHERE id = ?1")?
            .query_row([scan], |row| row.get(0))
            .optional()?;
        let Some(scan) = known else { return self.begin(tables, roots) };
        *self = Self { own: Some(scan), is_further_pass: true, has_written: self.has_written, ..Self::default() };
        self.others_transactions = self.transactions_of_others(tables)?;
        Ok(scan)
    }

    /// Notes the end of a scan or pass.
    pub(super) fn end(&self, tables: &mut Tables<'_>, scan: i64, summary: &str) -> Result<()> {
        tables
            .connection
            .prepare_cached("UPDATE scan SET finished_ms = ?2, summary = ?3 WHERE id = ?1")?
            .execute(params![scan, tables.clock.now_ms(), summary])?;
        // A look each minute that finds nothing new is no event.
        if !self.is_further_pass || has_news(summary).map_err(of_json)? {
            tables.changes.events.note_scan(scan, summary);
        }
        Ok(())
    }

    /// Looks whether other scans have written.
    pub(super) fn look_for_others(&mut self, tables: &Tables<'_>) -> Result<()> {
        let transactions = self.transactions_of_others(tables)?;
        // A writer that has begun no scan may have met any.
        self.others_wrote |= self.own.is_none() || transactions != self.others_transactions;
        Ok(())
    }

    fn transactions_of_others(&self, tables: &Tables<'_>) -> Result<i64> {
        tables
            .connection
            .prepare_cached("SELECT ifnull(sum(transactions), 0) FROM scan WHERE id IS NOT ?1")?
            .query_row([self.own], |row| row.get(0))
    }

    /// Counts this transaction of the scan, once.
    fn count_transaction(&mut self, tables: &Tables<'_>) -> Result<()> {
        if let Some(scan) = self.own
            && !std::mem::replace(&mut self.has_written, true)
        {
            tables
                .connection
                .prepare_cached("UPDATE scan SET transactions = transactions + 1 WHERE id = ?1")?
                .execute([scan])?;
        }
        Ok(())
    }
}

/// Keeps the state of watched paths, or forgets them.
pub(super) fn note_watch(tables: &Tables<'_>, roots: &str, state: Option<&str>) -> Result<()> {
    let statement = match state {
        Some(_) => "INSERT OR REPLACE INTO watch (roots, state) VALUES (?1, ?2)",
        None => "DELETE FROM watch WHERE roots = ?1 AND ?2 IS NULL",
    };
    tables.connection.prepare_cached(statement)?.execute(params![roots, state])?;
    Ok(())
}

/// Takes what a scan found in a directory.
pub(super) fn scanned(tables: &mut Tables<'_>, scan: &mut ScanState, scanned: &ScannedDirectory) -> Result<()> {
    tables.origins.set(scan.own.map_or(SourceOfInstances::Unknown, SourceOfInstances::Scan));
    let directory = tables.files.directory(scanned.place, &scanned.directory)?;
    let mut rows = DirectoryRows::new(directory);
    scan.count_transaction(tables)?;
    for name in &scanned.vanished {
        let was_location = tables.remove_file(name, &mut rows)?;
        tables.changes.tally.removed += u64::from(was_location);
    }
    for name in &scanned.returned {
        tables.note_returned(name, &mut rows)?;
    }
    for name in &scanned.missing {
        tables.note_missing(name, &mut rows)?;
    }
    // Within a series, files go in the order of the rows. So each row goes to the end of the table,
    // pages fill up, and none is touched twice.
    let files = in_order_of_series(&scanned.files);
    for (at, scanned_file) in files.iter().enumerate() {
        let file = File {
            place: scanned.place,
            directory,
            name: &scanned_file.file_name,
            size: scanned_file.size,
            mtime_ms: scanned_file.mtime_ms,
            checksum: None,
        };
        let may_be_known = scanned_file.known || scan.others_wrote;
        match &scanned_file.outcome {
            FileOutcome::Instance(record) => {
                let following = files.get(at + 1..).unwrap_or_default();
                let new = NewInstance { record, file, following, is_complete: scanned.complete };
                found_instance(tables, &new, scanned_file, may_be_known, &mut rows)?;
            }
            FileOutcome::NotIndexed { kind, reason, detail } => {
                if may_be_known {
                    tables.remove_file(file.name, &mut rows)?;
                }
                tables.files.note_unindexed(&file, *kind, reason, detail)?;
            }
        }
    }
    Ok(())
}

/// Takes a file with an instance.
fn found_instance(
    tables: &mut Tables<'_>,
    new: &NewInstance<'_>,
    scanned: &ScannedFile,
    may_be_known: bool,
    rows: &mut DirectoryRows,
) -> Result<()> {
    let NewInstance { record, file, .. } = new;
    let uid = record.value(AttributeId::SOPInstanceUID);
    if tables.removals.has(uid)? {
        let was_location = may_be_known && tables.remove_file(file.name, rows)?;
        tables.withhold(uid, file)?;
        let tally = &mut tables.changes.tally;
        tally.corrected += u64::from(scanned.reread);
        *(if was_location || scanned.reread { &mut tally.withheld_updated } else { &mut tally.withheld }) += 1;
        return Ok(());
    }
    if scanned.reread {
        if is_as_indexed(tables, record, file)? {
            return Ok(());
        }
        tables.changes.tally.corrected += 1;
    }
    if may_be_known {
        // Mostly the file has the same instance as before. That is one look-up. To find out which
        // instance a file of a directory of 100,000 was takes as many.
        let same = tables.find_instance(uid)?.is_some_and(|existing| existing.lies_at(file.directory, file.name));
        if !same {
            tables.remove_file(file.name, rows)?;
        }
        tables.files.forget_marks(file.directory, file.name)?;
    }
    enter(tables, new, scanned.known)?;
    tables.files.note_faults(record, file, &mut tables.changes.tally)
}

/// Whether the row of a file and its faults equal what was just read.
fn is_as_indexed(tables: &mut Tables<'_>, record: &InstanceRecord, file: &File<'_>) -> Result<bool> {
    let Some(existing) = tables.find_instance(record.value(AttributeId::SOPInstanceUID))? else { return Ok(false) };
    Ok(tables.files.has_faults(record, file)? && tables.is_as_indexed(&existing, record, file)?)
}

/// A file that a scan found, and the row of its instance.
struct FoundInstance<'t, 'c, 'a> {
    tables: &'t mut Tables<'c>,
    new: &'a NewInstance<'a>,
    existing: &'a InstanceRow,
}

impl FirstLocation for FoundInstance<'_, '_, '_> {
    type Error = rusqlite::Error;

    fn first_is_there(&mut self) -> Result<bool> {
        self.tables.files.first_is_there(self.existing)
    }

    fn differs(&mut self) -> Result<bool> {
        self.tables.differs(self.existing, self.new.record, &self.new.file)
    }
}

/// Enters the instance of a file: finds it, decides what becomes of the file, and applies that.
fn enter(tables: &mut Tables<'_>, new: &NewInstance<'_>, is_known_file: bool) -> Result<()> {
    let NewInstance { record, file, .. } = new;
    let Some(existing) = tables.find_instance(record.value(AttributeId::SOPInstanceUID))? else {
        tables.insert_instance(new)?;
        let tally = &mut tables.changes.tally;
        *(if is_known_file { &mut tally.updated } else { &mut tally.indexed }) += 1;
        return Ok(());
    };
    let found = FoundFile {
        is_first: existing.lies_at(file.directory, file.name),
        first_place: tables.files.place_of(existing.instance_group.directory)?,
    };
    match found.decide(&mut FoundInstance { tables, new, existing: &existing })? {
        FoundDecision::Update => {
            // An object of ours is read again for its values. Its checksum was made when it came.
            let checksum = existing.checksum.filter(|_| file.place == Place::Managed);
            tables.replace_instance(&existing, record, &File { checksum, ..*file })?;
            tables.changes.tally.updated += 1;
        }
        FoundDecision::Complete => {
            // Metadata that were received alone stay as a further location. They count again if the
            // file is deleted.
            let differs = tables.supersede(&existing, record, file, false)?;
            if differs {
                tables.changes.note_conflict(OTHER_CONTENT, Some(record));
            }
            tables.changes.tally.indexed += 1;
        }
        FoundDecision::Move => {
            tables.files.forget_marks(existing.instance_group.directory, &existing.file_name)?;
            tables.replace_instance(&existing, record, file)?;
            tables.changes.tally.moved += 1;
        }
        FoundDecision::KeepCopy => {
            let differs = tables.insert_copy(&existing, record, file, false)?;
            tables.files.note_invalid_uids(record, file, &mut tables.changes)?;
            if differs {
                tables.changes.note_conflict(OTHER_CONTENT, Some(record));
            }
            tables.changes.tally.copies += 1;
        }
    }
    Ok(())
}

/// Drops files that scans have missed, at most `limit`. Returns how many there were.
pub(super) fn prune(tables: &mut Tables<'_>, of: &MissingIn, limit: usize) -> Result<usize> {
    let missing = tables.files.missing_names(of, limit)?;
    let mut rows = DirectoryRows::new(of.directory);
    for name in &missing {
        // One that has gone along with one before it is counted with that.
        let was_location = tables.remove_file(name, &mut rows)?;
        tables.changes.tally.removed += u64::from(was_location);
    }
    Ok(missing.len())
}
