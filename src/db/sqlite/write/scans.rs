//! What scans found: files that are new, changed, moved or gone.

use rusqlite::params;

use super::super::packing::UidSuffix;
use super::super::sql_values::PathValue;
use super::batch::Batch;
use super::origins::SourceOfInstances;
use super::rows::{DirectoryRows, File, Result, to_i64};
use crate::db::{FileOutcome, ScannedDirectory, ScannedFile};
use crate::model::attribute::AttributeId;
use crate::model::location::Place;
use crate::model::record::InstanceRecord;

impl Batch<'_> {
    pub(in super::super) fn begin_scan(&mut self, roots: &str) -> Result<i64> {
        self.statement("INSERT INTO scan (started_ms, roots) VALUES (?1, ?2)")?
            .execute(params![self.clock.now_ms(), roots])?;
        let scan = self.connection.last_insert_rowid();
        self.scan.own = Some(scan);
        self.scan.others_transactions = self.transactions_of_other_scans()?;
        self.scan.others_wrote = false;
        Ok(scan)
    }

    pub(in super::super) fn end_scan(&mut self, scan: i64, summary: &str) -> Result<()> {
        self.statement("UPDATE scan SET finished_ms = ?2, summary = ?3 WHERE id = ?1")?.execute(params![
            scan,
            self.clock.now_ms(),
            summary
        ])?;
        Ok(())
    }

    /// Takes what a scan found in a directory.
    pub(in super::super) fn scanned(&mut self, scanned: &ScannedDirectory) -> Result<()> {
        self.origin.set(self.scan.own.map_or(SourceOfInstances::Unknown, SourceOfInstances::Scan));
        let directory = self.directory(scanned.place, &scanned.directory)?;
        let mut rows = DirectoryRows::new(directory);
        if let Some(scan) = self.scan.own
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
                    if scanned_file.known || self.scan.others_wrote {
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
                    if scanned_file.known || self.scan.others_wrote {
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
