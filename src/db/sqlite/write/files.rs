//! Directories, and what is noted of their files: why one is not indexed, its faults, its
//! conflicts, and that it is missing.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::super::schema::EXCHANGED_DISKS;
use super::super::sql_values::{PathValue, path_from_sql, place_from_number, place_number, to_u64};
use super::caches::DirectoryCache;
use super::changes::Changes;
use super::rows::{File, InstanceRow, Result, fault_text, to_i64};
use crate::db::paths::range_below;
use crate::db::{KnownLocation, Mounted, NotIndexed, Tally};
use crate::model::attribute::AttributeId;
use crate::model::clock::Clock;
use crate::model::location::{Location, Place};
use crate::model::record::InstanceRecord;
use crate::model::uid::is_valid_uid;

/// The kind of conflict in which an object has a known SOP Instance UID and other content.
pub(super) const OTHER_CONTENT: &str = "instance-with-other-content";

/// The kind of conflict in which a UID breaks PS3.5 9.1.
const INVALID_UID: &str = "invalid-uid";

/// A directory in which scans have missed files, or one missing file of it.
pub(in super::super) struct MissingIn {
    pub(super) directory: i64,
    /// The name of the file, if it is about one file alone.
    pub(super) name: Option<OsString>,
}

/// The rows of directories and of what is noted of files.
pub(super) struct Files<'c> {
    connection: &'c Connection,
    clock: Clock,
    directories: DirectoryCache,
}

impl<'c> Files<'c> {
    pub(super) fn new(connection: &'c Connection, clock: Clock) -> Self {
        Self { connection, clock, directories: DirectoryCache::default() }
    }

    pub(super) fn cache_is_large(&self) -> bool {
        self.directories.is_large()
    }

    pub(super) fn forget(&mut self) {
        self.directories.clear();
    }

    /// The row of a directory or archive file. It is made if there is none.
    pub(super) fn directory(&mut self, place: Place, path: &Path) -> Result<i64> {
        // An archive file may have replaced a directory, or the other way round. Each has a row.
        let is_archive = place == Place::Archive;
        if let Some(id) = self.directories.get(path, is_archive) {
            return Ok(id);
        }
        let found = self
            .connection
            .prepare_cached("SELECT id FROM directory WHERE path = ?1 AND (place = 3) = ?2")?
            .query_row(params![PathValue::from(path), is_archive], |row| row.get(0))
            .optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                self.connection
                    .prepare_cached("INSERT INTO directory (place, path) VALUES (?1, ?2)")?
                    .execute(params![place_number(place), PathValue::from(path)])?;
                self.connection.last_insert_rowid()
            }
        };
        self.directories.insert(path, is_archive, id);
        Ok(id)
    }

    /// The kind of place of a directory.
    pub(super) fn place_of(&self, directory: i64) -> Result<Place> {
        let place: i64 = self
            .connection
            .prepare_cached("SELECT place FROM directory WHERE id = ?1")?
            .query_row([directory], |row| row.get(0))?;
        Ok(place_from_number(place)?)
    }

    /// The path of a directory.
    pub(super) fn path_of(&self, directory: i64) -> Result<PathBuf> {
        self.connection
            .prepare_cached("SELECT path FROM directory WHERE id = ?1")?
            .query_row([directory], |row| Ok(path_from_sql(row.get_ref(0)?)?.into()))
    }

    /// The first location of an instance, with its checksum.
    pub(super) fn first_location(&self, existing: &InstanceRow) -> Result<KnownLocation> {
        let (place, directory) = self
            .connection
            .prepare_cached("SELECT place, path FROM directory WHERE id = ?1")?
            .query_row([existing.instance_group.directory], |row| Ok((row.get(0)?, path_from_sql(row.get_ref(1)?)?)))?;
        let location = Location {
            place: place_from_number(place)?,
            directory: PathBuf::from(directory),
            file_name: existing.file_name.clone(),
            size: to_u64(existing.size),
            mtime_ms: self.mtime_of(existing)?,
        };
        Ok(KnownLocation { location, checksum: existing.checksum, differs: false, corrected: None })
    }

    /// The file at the first location of an instance.
    pub(super) fn first_file<'a>(&self, existing: &'a InstanceRow, place: Place) -> Result<File<'a>> {
        Ok(File {
            place,
            directory: existing.instance_group.directory,
            name: &existing.file_name,
            size: to_u64(existing.size),
            mtime_ms: self.mtime_of(existing)?,
            checksum: existing.checksum,
        })
    }

    fn mtime_of(&self, existing: &InstanceRow) -> Result<i64> {
        let mtime: i64 = self
            .connection
            .prepare_cached("SELECT mtime FROM instance WHERE instance_group = ?1 AND uid_suffix = ?2")?
            .query_row(params![existing.instance_group.id, existing.suffix], |row| row.get(0))?;
        Ok(existing.instance_group.mtime_base.saturating_add(mtime))
    }

    /// Whether the first location of an instance is a file that no scan has missed.
    pub(super) fn first_is_there(&self, existing: &InstanceRow) -> Result<bool> {
        self.connection
            .prepare_cached(
                "SELECT place <> ?2 AND NOT EXISTS \
                 (SELECT 1 FROM missing_file m WHERE m.directory = ?1 AND m.file_name = ?3) \
                 FROM directory WHERE id = ?1",
            )?
            .query_row(
                params![
                    existing.instance_group.directory,
                    place_number(Place::MetadataOnly),
                    PathValue(&existing.file_name)
                ],
                |row| row.get(0),
            )
    }

    /// Notes what a scan has seen of the disk at a directory.
    pub(super) fn mount_point(&self, path: &Path, mounted: Mounted) -> Result<()> {
        let sql = match mounted {
            Mounted::Yes => "INSERT OR IGNORE INTO mount_point (path) VALUES (?1)",
            Mounted::NoLonger => "DELETE FROM mount_point WHERE path = ?1",
            Mounted::Exchanged => "INSERT OR IGNORE INTO exchanged_disk (path) VALUES (?1)",
            Mounted::NotExchanged => "DELETE FROM exchanged_disk WHERE path = ?1",
        };
        if matches!(mounted, Mounted::Exchanged | Mounted::NotExchanged) {
            EXCHANGED_DISKS.make(self.connection)?;
        }
        self.connection.prepare_cached(sql)?.execute([PathValue::from(path)])?;
        Ok(())
    }

    /// Gives the node's own directories at or below `from` their paths at or below `to`. Returns
    /// how many. Cached directories have to be forgotten afterwards.
    pub(super) fn storage_moved(&self, from: &Path, to: &Path) -> Result<u64> {
        /// Directories that are read at a time.
        const PAGE: i64 = 1000;
        let (mut after, mut moved) = (0, 0);
        loop {
            let mut page: Vec<(i64, PathBuf)> = Vec::new();
            let sql = "SELECT id, path FROM directory WHERE place = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
            {
                let mut statement = self.connection.prepare_cached(sql)?;
                let mut rows = statement.query(params![place_number(Place::Managed), after, PAGE])?;
                while let Some(row) = rows.next()? {
                    page.push((row.get(0)?, path_from_sql(row.get_ref(1)?)?.into()));
                }
            }
            let Some((last, _)) = page.last() else { return Ok(moved) };
            after = *last;
            for (id, path) in &page {
                let Ok(below) = path.strip_prefix(from) else { continue };
                let new = to.join(below);
                // A path is that of one directory, whatever its place. One that is known already
                // stays where it is.
                let sql = "UPDATE directory SET path = ?2 WHERE id = ?1 \
                     AND NOT EXISTS (SELECT 1 FROM directory WHERE path = ?2 AND place <> 3)";
                let changed =
                    self.connection.prepare_cached(sql)?.execute(params![id, PathValue::from(new.as_path())])?;
                moved += changed as u64;
            }
        }
    }

    /// Drops the notes on a file that is gone or whose content has changed.
    pub(super) fn forget_marks(&self, directory: i64, name: &OsStr) -> Result<()> {
        for sql in [
            "DELETE FROM unindexed_file WHERE directory = ?1 AND file_name = ?2",
            "DELETE FROM file_fault WHERE directory = ?1 AND file_name = ?2",
            "DELETE FROM conflict WHERE directory = ?1 AND file_name = ?2",
            "DELETE FROM missing_file WHERE directory = ?1 AND file_name = ?2",
        ] {
            self.connection.prepare_cached(sql)?.execute(params![directory, PathValue(name)])?;
        }
        Ok(())
    }

    /// Drops the notes on an instance that was received without its object, because there is an
    /// object now that stays.
    pub(super) fn forget_metadata(&self, uid: &str) -> Result<()> {
        for sql in [
            "DELETE FROM copy WHERE directory = (SELECT id FROM directory WHERE path = '') AND file_name = ?1",
            "DELETE FROM file_fault WHERE directory = (SELECT id FROM directory WHERE path = '') AND file_name = ?1",
            "DELETE FROM conflict WHERE directory = (SELECT id FROM directory WHERE path = '') AND file_name = '' \
             AND sop_instance_uid = ?1",
        ] {
            self.connection.prepare_cached(sql)?.execute([uid])?;
        }
        Ok(())
    }

    /// Notes why a file is not indexed.
    pub(super) fn note_unindexed(&self, file: &File<'_>, kind: NotIndexed, reason: &str, detail: &str) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO unindexed_file (directory, file_name, size, mtime_ms, kind, reason, detail) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                file.directory,
                PathValue(file.name),
                to_i64(file.size),
                file.mtime_ms,
                kind.as_str(),
                reason,
                detail
            ])?;
        Ok(())
    }

    /// Notes the faults of an object, if it has any.
    pub(super) fn note_faults(&self, record: &InstanceRecord, file: &File<'_>, tally: &mut Tally) -> Result<()> {
        if record.faults().is_empty() {
            return Ok(());
        }
        // Metadata have no file, so the UID stands for its name, as for a further location.
        let name = match file.place {
            Place::MetadataOnly => OsStr::new(record.value(AttributeId::SOPInstanceUID)),
            Place::InPlace | Place::Managed | Place::Archive => file.name,
        };
        tally.faulty += 1;
        self.write_faults(file.directory, name, &fault_text(record))
    }

    /// Writes the faults of a file.
    pub(super) fn write_faults(&self, directory: i64, name: &OsStr, faults: &str) -> Result<()> {
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO file_fault (directory, file_name, faults) VALUES (?1, ?2, ?3)")?
            .execute(params![directory, PathValue(name), faults])?;
        Ok(())
    }

    /// Whether exactly the faults of this record are noted of a file.
    pub(super) fn has_faults(&self, record: &InstanceRecord, file: &File<'_>) -> Result<bool> {
        let noted: Option<String> = self
            .connection
            .prepare_cached("SELECT faults FROM file_fault WHERE directory = ?1 AND file_name = ?2")?
            .query_row(params![file.directory, PathValue(file.name)], |row| row.get(0))
            .optional()?;
        Ok(noted.unwrap_or_default() == fault_text(record))
    }

    /// Notes that an object contradicts what is known.
    pub(super) fn note_conflict(
        &self,
        kind: &'static str,
        record: &InstanceRecord,
        file: &File<'_>,
        changes: &mut Changes,
    ) -> Result<()> {
        let noted = self
            .connection
            .prepare_cached(
                "INSERT OR IGNORE INTO conflict (kind, study_instance_uid, series_instance_uid, sop_instance_uid, \
                 directory, file_name, first_seen_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
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
        if noted > 0 {
            changes.note_conflict(kind, Some(record));
        }
        Ok(())
    }

    /// Notes a conflict if a UID of the record breaks PS3.5 9.1.
    pub(super) fn note_invalid_uids(
        &self,
        record: &InstanceRecord,
        file: &File<'_>,
        changes: &mut Changes,
    ) -> Result<()> {
        let uids = [AttributeId::SOPInstanceUID, AttributeId::SeriesInstanceUID, AttributeId::StudyInstanceUID];
        if !uids.into_iter().all(|id| is_valid_uid(record.value(id))) {
            self.note_conflict(INVALID_UID, record, file, changes)?;
        }
        Ok(())
    }

    /// Drops the conflicts of objects that were refused, because the instance that they
    /// contradicted is gone.
    pub(super) fn forget_refused(&self, uid: &str) -> Result<()> {
        self.connection
            .prepare_cached("DELETE FROM conflict WHERE kind = ?1 AND sop_instance_uid = ?2")?
            .execute(params![OTHER_CONTENT, uid])?;
        Ok(())
    }

    /// Notes that a file was gone when a scan looked.
    pub(super) fn note_missing(&self, directory: i64, name: &OsStr) -> Result<()> {
        self.connection
            .prepare_cached("INSERT OR IGNORE INTO missing_file (directory, file_name) VALUES (?1, ?2)")?
            .execute(params![directory, PathValue(name)])?;
        Ok(())
    }

    /// Notes that a file that was gone is back.
    pub(super) fn note_returned(&self, directory: i64, name: &OsStr) -> Result<()> {
        self.connection
            .prepare_cached("DELETE FROM missing_file WHERE directory = ?1 AND file_name = ?2")?
            .execute(params![directory, PathValue(name)])?;
        Ok(())
    }

    /// The directories at or below a path, and not below `except`, in which scans have missed
    /// files. If the path is that of a file, its directory with its name.
    pub(super) fn missing_below(&self, root: &Path, except: &[PathBuf]) -> Result<Vec<MissingIn>> {
        let mut found = Vec::new();
        let (from, to) = range_below(root);
        let mut statement = self.connection.prepare_cached(
            "SELECT d.id, d.path FROM (SELECT DISTINCT directory FROM missing_file) m \
             JOIN directory d ON d.id = m.directory \
             WHERE d.path = ?1 OR (CAST(d.path AS BLOB) > ?2 AND CAST(d.path AS BLOB) < ?3)",
        )?;
        let mut rows = statement.query(params![PathValue::from(root), from, to])?;
        while let Some(row) = rows.next()? {
            let path = PathBuf::from(path_from_sql(row.get_ref(1)?)?);
            if !except.iter().any(|except| path.starts_with(except)) {
                found.push(MissingIn { directory: row.get(0)?, name: None });
            }
        }
        if let (Some(parent), Some(name)) = (root.parent(), root.file_name()) {
            let directory: Option<i64> = self
                .connection
                .prepare_cached("SELECT id FROM directory WHERE path = ?1 AND place <> 3")?
                .query_row([PathValue::from(parent)], |row| row.get(0))
                .optional()?;
            found.extend(directory.map(|directory| MissingIn { directory, name: Some(name.to_owned()) }));
        }
        Ok(found)
    }

    /// Counts the files that scans have missed.
    pub(super) fn count_missing(&self, of: &MissingIn) -> Result<u64> {
        let count = self
            .connection
            .prepare_cached(
                "SELECT count(*) FROM missing_file WHERE directory = ?1 AND (?2 IS NULL OR file_name = ?2)",
            )?
            .query_row(params![of.directory, of.name.as_deref().map(PathValue)], |row| row.get(0))?;
        Ok(to_u64(count))
    }

    /// Names of files that scans have missed, at most `limit`.
    pub(super) fn missing_names(&self, of: &MissingIn, limit: usize) -> Result<Vec<OsString>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.connection
            .prepare_cached(
                "SELECT file_name FROM missing_file WHERE directory = ?1 AND (?2 IS NULL OR file_name = ?2) LIMIT ?3",
            )?
            .query_map(params![of.directory, of.name.as_deref().map(PathValue), limit], |row| {
                Ok(path_from_sql(row.get_ref(0)?)?)
            })?
            .collect()
    }
}
