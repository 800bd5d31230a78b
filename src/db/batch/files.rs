//! Directories and files, and what is noted of them: why one is not indexed, its faults, what it contradicts.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension, params};

use super::super::packing::UidSuffix;
use super::super::{Mounted, PathValue, path_from_sql, place_from_number, place_number};
use super::instances::Existing;
use super::{Batch, Result};
use crate::model::attribute::AttributeId;
use crate::model::location::Place;
use crate::model::record::InstanceRecord;

/// Faults of one file that are kept, in characters.
const MAX_FAULT_TEXT: usize = 1000;

/// A file that holds an instance, and where.
pub(super) struct File<'a> {
    pub(super) place: Place,
    pub(super) directory: i64,
    pub(super) name: &'a OsStr,
    pub(super) size: u64,
    pub(super) mtime_ms: i64,
}

/// Which instances lie in a directory, read when that is first asked.
pub(super) struct DirectoryRows {
    pub(super) directory: i64,
    /// File name to SOP Instance UID.
    pub(super) instances: Option<HashMap<OsString, String>>,
}

impl DirectoryRows {
    pub(super) const fn new(directory: i64) -> Self {
        Self { directory, instances: None }
    }
}

impl Batch<'_> {
    pub(super) fn directory(&mut self, place: Place, path: &Path) -> Result<i64> {
        if let Some(&id) = self.directories.get(path) {
            return Ok(id);
        }
        let found = self
            .statement("SELECT id FROM directory WHERE path = ?1")?
            .query_row([PathValue::from(path)], |row| row.get(0))
            .optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                self.statement("INSERT INTO directory (place, path) VALUES (?1, ?2)")?
                    .execute(params![place_number(place), PathValue::from(path)])?;
                self.connection.last_insert_rowid()
            }
        };
        self.directories.insert(path.to_owned(), id);
        Ok(id)
    }

    pub(super) fn place_of(&self, directory: i64) -> Result<Place> {
        let place: i64 =
            self.statement("SELECT place FROM directory WHERE id = ?1")?.query_row([directory], |row| row.get(0))?;
        Ok(place_from_number(place))
    }

    /// The file of an instance.
    pub(super) fn path_of(&self, existing: &Existing) -> Result<PathBuf> {
        let directory = self
            .statement("SELECT path FROM directory WHERE id = ?1")?
            .query_row([existing.shelf.directory], |row| Ok(path_from_sql(row.get_ref(0)?)))?;
        Ok(PathBuf::from(directory).join(&existing.file_name))
    }

    /// The instances whose first location is in a directory: file name to SOP Instance UID.
    fn instances_in_directory(&mut self, directory: i64) -> Result<HashMap<OsString, String>> {
        let mut statement = self.statement(
            "SELECT i.shelf, i.uid_suffix, i.file_name FROM shelf h JOIN instance i ON i.shelf = h.id WHERE h.directory = ?1",
        )?;
        let mut found = HashMap::new();
        let mut rows = statement.query([directory])?;
        while let Some(row) = rows.next()? {
            let Some(shelf) = self.shelf_by_id(row.get(0)?)? else { continue };
            let mut uid = String::new();
            UidSuffix::unpack(row.get_ref(1)?, &shelf.uid_prefix, &mut uid);
            let name = shelf.naming.unpack(row.get_ref(2)?, &uid);
            found.insert(name, uid);
        }
        Ok(found)
    }

    pub(in super::super) fn mount_point(&mut self, path: &Path, mounted: Mounted) -> Result<()> {
        let sql = match mounted {
            Mounted::Yes => "INSERT OR IGNORE INTO mount_point (path) VALUES (?1)",
            Mounted::NoLonger => "DELETE FROM mount_point WHERE path = ?1",
        };
        self.statement(sql)?.execute([PathValue::from(path)])?;
        Ok(())
    }

    /// Drops a file from the index: as first location of an instance, as further one, or as one that was not indexed.
    pub(super) fn remove_file(&mut self, name: &OsStr, rows: &mut DirectoryRows) -> Result<()> {
        let directory = rows.directory;
        self.forget_marks(directory, name)?;
        self.statement("DELETE FROM copy WHERE directory = ?1 AND file_name = ?2")?
            .execute(params![directory, PathValue(name)])?;
        let instances = match &mut rows.instances {
            Some(instances) => instances,
            unread => unread.insert(self.instances_in_directory(directory)?),
        };
        if let Some(uid) = instances.get(name)
            && let Some(existing) = self.find_instance(uid)?
            && existing.lies_at(directory, name)
            && !self.promote_copy(&existing)?
        {
            self.remove_row(&existing)?;
        }
        Ok(())
    }

    /// Drops what was noted about a file that is gone or whose content has changed.
    pub(super) fn forget_marks(&mut self, directory: i64, name: &OsStr) -> Result<()> {
        for sql in [
            "DELETE FROM unindexed_file WHERE directory = ?1 AND file_name = ?2",
            "DELETE FROM file_fault WHERE directory = ?1 AND file_name = ?2",
            "DELETE FROM conflict WHERE directory = ?1 AND file_name = ?2",
        ] {
            self.statement(sql)?.execute(params![directory, PathValue(name)])?;
        }
        Ok(())
    }

    pub(super) fn note_faults(&mut self, record: &InstanceRecord, file: &File<'_>) -> Result<()> {
        let faults = fault_text(record);
        self.statement("INSERT OR REPLACE INTO file_fault (directory, file_name, faults) VALUES (?1, ?2, ?3)")?
            .execute(params![file.directory, PathValue(file.name), faults])?;
        self.changes.tally.faulty += 1;
        Ok(())
    }

    pub(super) fn note_conflict(&mut self, kind: &str, record: &InstanceRecord, file: &File<'_>) -> Result<()> {
        let noted = self
            .statement(
                "INSERT OR IGNORE INTO conflict (kind, study_instance_uid, series_instance_uid, sop_instance_uid, directory, \
                 file_name, first_seen_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                kind,
                record.value(AttributeId::StudyInstanceUID),
                record.value(AttributeId::SeriesInstanceUID),
                record.value(AttributeId::SOPInstanceUID),
                file.directory,
                PathValue(file.name),
                self.clock.now_ms()
            ])?;
        self.changes.tally.conflicts += u64::try_from(noted).unwrap_or(0);
        Ok(())
    }
}

/// What is kept of the faults of a file.
pub(super) fn fault_text(record: &InstanceRecord) -> String {
    record.faults().join("; ").chars().take(MAX_FAULT_TEXT).collect()
}
