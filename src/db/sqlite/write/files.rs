//! Directories and files, and what is noted of them: why one is not indexed, its faults, what it contradicts.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension, params};

use super::super::packing::UidSuffix;
use super::super::sql_values::{PathValue, path_from_sql, place_from_number, place_number, range_below};
use super::batch::Batch;
use super::rows::{DirectoryRows, File, InstanceRow, Result, fault_text};
use crate::db::{Error, KnownLocation, Mounted};
use crate::model::attribute::AttributeId;
use crate::model::location::{Location, Place};
use crate::model::record::InstanceRecord;

impl Batch<'_> {
    pub(super) fn directory(&mut self, place: Place, path: &Path) -> Result<i64> {
        // An archive file may have taken the place of a directory, or the other way round: each is known for itself.
        let is_archive = place == Place::Archive;
        if let Some(id) = self.directories.get(path, is_archive) {
            return Ok(id);
        }
        let found = self
            .statement("SELECT id FROM directory WHERE path = ?1 AND (place = 3) = ?2")?
            .query_row(params![PathValue::from(path), is_archive], |row| row.get(0))
            .optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                self.statement("INSERT INTO directory (place, path) VALUES (?1, ?2)")?
                    .execute(params![place_number(place), PathValue::from(path)])?;
                self.connection.last_insert_rowid()
            }
        };
        self.directories.insert(path, is_archive, id);
        Ok(id)
    }

    pub(super) fn place_of(&self, directory: i64) -> Result<Place> {
        let place: i64 =
            self.statement("SELECT place FROM directory WHERE id = ?1")?.query_row([directory], |row| row.get(0))?;
        Ok(place_from_number(place)?)
    }

    /// The first location of an instance.
    pub(super) fn location_of(&self, existing: &InstanceRow) -> Result<Location> {
        let (place, directory) = self
            .statement("SELECT place, path FROM directory WHERE id = ?1")?
            .query_row([existing.instance_group.directory], |row| Ok((row.get(0)?, path_from_sql(row.get_ref(1)?)?)))?;
        let mtime: i64 = self
            .statement("SELECT mtime FROM instance WHERE instance_group = ?1 AND uid_suffix = ?2")?
            .query_row(params![existing.instance_group.id, existing.suffix], |row| row.get(0))?;
        Ok(Location {
            place: place_from_number(place)?,
            directory: PathBuf::from(directory),
            file_name: existing.file_name.clone(),
            size: u64::try_from(existing.size).unwrap_or(0),
            mtime_ms: existing.instance_group.mtime_base.saturating_add(mtime),
        })
    }

    /// The same, with what else is known of it.
    pub(super) fn known_location(&self, existing: &InstanceRow) -> Result<KnownLocation> {
        let location = self.location_of(existing)?;
        Ok(KnownLocation { location, checksum: existing.checksum, differs: false })
    }

    /// The instances whose first location is in a directory: file name to SOP Instance UID.
    fn instances_in_directory(&mut self, directory: i64) -> Result<HashMap<OsString, String>> {
        let mut statement = self.statement(
            "SELECT i.instance_group, i.uid_suffix, i.file_name FROM instance_group h JOIN instance i ON i.instance_group = h.id WHERE h.directory = ?1",
        )?;
        let mut found = HashMap::new();
        let mut rows = statement.query([directory])?;
        while let Some(row) = rows.next()? {
            let Some(instance_group) = self.instance_group_by_id(row.get(0)?)? else { continue };
            let mut uid = String::new();
            UidSuffix::unpack(row.get_ref(1)?, &instance_group.uid_prefix, &mut uid);
            let name = instance_group.naming.unpack(row.get_ref(2)?, &uid)?;
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
    /// Whether it was a location of an instance.
    pub(super) fn remove_file(&mut self, name: &OsStr, rows: &mut DirectoryRows) -> Result<bool> {
        let directory = rows.directory;
        self.forget_marks(directory, name)?;
        let copy_of: Option<i64> = self
            .statement("DELETE FROM copy WHERE directory = ?1 AND file_name = ?2 RETURNING instance_group")?
            .query_row(params![directory, PathValue(name)], |row| row.get(0))
            .optional()?;
        copy_of.into_iter().for_each(|instance_group| self.touch(instance_group));
        match self.first_here(name, rows)? {
            Some(existing) => self.remove_first(&existing, rows).map(|()| true),
            None => Ok(copy_of.is_some()),
        }
    }

    /// Notes that a location of an instance is gone. Where the instance lies elsewhere as well, with the same content, it
    /// has moved there, and this location is dropped.
    pub(super) fn note_missing(&mut self, name: &OsStr, rows: &mut DirectoryRows) -> Result<()> {
        let directory = rows.directory;
        let copy: Option<(i64, UidSuffix, bool)> = self
            .statement("SELECT instance_group, uid_suffix, differs FROM copy WHERE directory = ?1 AND file_name = ?2")?
            .query_row(params![directory, PathValue(name)], |row| {
                Ok((row.get(0)?, UidSuffix::from_sql(row.get_ref(1)?), row.get(2)?))
            })
            .optional()?;
        let moved = match copy {
            Some((instance_group, _, true)) => {
                self.touch(instance_group);
                false
            }
            Some((instance_group, suffix, false)) => match self.instance_row(instance_group, suffix)? {
                Some(existing) => self.first_is_there(&existing)?,
                None => false,
            },
            None => match self.first_here(name, rows)? {
                Some(existing) => {
                    self.touch(existing.instance_group.id);
                    self.move_first(&existing, rows)?
                }
                // Not in the index any more: somebody else has dropped it.
                None => return Ok(()),
            },
        };
        if moved {
            self.forget_marks(directory, name)?;
            self.delete_copy(directory, name)?;
            self.changes.tally.moved += 1;
        } else {
            self.statement("INSERT OR IGNORE INTO missing_file (directory, file_name) VALUES (?1, ?2)")?
                .execute(params![directory, PathValue(name)])?;
        }
        Ok(())
    }

    /// Forgets that an instance was received without its object: now there is one that does not go.
    pub(super) fn forget_metadata(&self, uid: &str) -> Result<()> {
        let directory = "directory = (SELECT id FROM directory WHERE path = '')";
        for table in ["copy", "file_fault"] {
            self.statement(&format!("DELETE FROM {table} WHERE {directory} AND file_name = ?1"))?.execute([uid])?;
        }
        self.statement(&format!(
            "DELETE FROM conflict WHERE {directory} AND file_name = '' AND sop_instance_uid = ?1"
        ))?
        .execute([uid])?;
        Ok(())
    }

    /// Drops a further location, if there is one of this name.
    pub(super) fn delete_copy(&self, directory: i64, name: &OsStr) -> Result<usize> {
        self.statement("DELETE FROM copy WHERE directory = ?1 AND file_name = ?2")?
            .execute(params![directory, PathValue(name)])
    }

    /// Whether the index has a further location of this name.
    pub(super) fn is_copy(&self, directory: i64, name: &OsStr) -> Result<bool> {
        self.statement("SELECT EXISTS (SELECT 1 FROM copy WHERE directory = ?1 AND file_name = ?2)")?
            .query_row(params![directory, PathValue(name)], |row| row.get(0))
    }

    /// Notes that a location that was gone is back as it was.
    pub(super) fn note_returned(&mut self, name: &OsStr, rows: &mut DirectoryRows) -> Result<()> {
        self.statement("DELETE FROM missing_file WHERE directory = ?1 AND file_name = ?2")?
            .execute(params![rows.directory, PathValue(name)])?;
        if let Some(existing) = self.first_here(name, rows)? {
            self.touch(existing.instance_group.id);
            self.drop_spare_copies(&existing)?;
        }
        Ok(())
    }

    /// The instance whose first location this file is.
    fn first_here(&mut self, name: &OsStr, rows: &mut DirectoryRows) -> Result<Option<InstanceRow>> {
        let directory = rows.directory;
        let instances = match &mut rows.instances {
            Some(instances) => instances,
            unread => unread.insert(self.instances_in_directory(directory)?),
        };
        let Some(uid) = instances.get(name) else { return Ok(None) };
        Ok(self.find_instance(uid)?.filter(|existing| existing.lies_at(directory, name)))
    }

    /// Whether the first location of an instance is a file that no scan has missed.
    pub(super) fn first_is_there(&self, existing: &InstanceRow) -> Result<bool> {
        self.statement(
            "SELECT place <> ?2 AND NOT EXISTS (SELECT 1 FROM missing_file m WHERE m.directory = ?1 AND m.file_name = ?3) \
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

    /// The directories at or below a path, and not below `except`, in which scans have missed files; or the directory and
    /// the name of the file, where the path is that of one.
    pub(in super::super) fn missing_below(
        &self,
        root: &Path,
        except: &[PathBuf],
    ) -> std::result::Result<Vec<(i64, Option<OsString>)>, Error> {
        let find = || -> Result<Vec<(i64, Option<OsString>)>> {
            let mut found = Vec::new();
            let (from, to) = range_below(root);
            let mut statement = self.statement(
                "SELECT d.id, d.path FROM (SELECT DISTINCT directory FROM missing_file) m JOIN directory d ON d.id = m.directory \
                 WHERE d.path = ?1 OR (CAST(d.path AS BLOB) > ?2 AND CAST(d.path AS BLOB) < ?3)",
            )?;
            let mut rows = statement.query(params![PathValue::from(root), from, to])?;
            while let Some(row) = rows.next()? {
                let path = PathBuf::from(path_from_sql(row.get_ref(1)?)?);
                if !except.iter().any(|except| path.starts_with(except)) {
                    found.push((row.get(0)?, None));
                }
            }
            if let (Some(parent), Some(name)) = (root.parent(), root.file_name()) {
                let directory = self
                    .statement("SELECT id FROM directory WHERE path = ?1 AND place <> 3")?
                    .query_row([PathValue::from(parent)], |row| row.get(0))
                    .optional()?;
                found.extend(directory.map(|directory| (directory, Some(name.to_owned()))));
            }
            Ok(found)
        };
        find().map_err(Error::from)
    }

    /// How many files of a directory (or whether the one of this name) scans have missed.
    pub(in super::super) fn count_missing(
        &self,
        directory: i64,
        name: Option<&OsStr>,
    ) -> std::result::Result<u64, Error> {
        self.statement("SELECT count(*) FROM missing_file WHERE directory = ?1 AND (?2 IS NULL OR file_name = ?2)")
            .and_then(|mut count| count.query_row(params![directory, name.map(PathValue)], |row| row.get::<_, i64>(0)))
            .map(|count| u64::try_from(count).unwrap_or(0))
            .map_err(Error::from)
    }

    /// Drops files of a directory (or the one of this name) that scans have missed, `limit` of them; how many there were.
    pub(in super::super) fn prune(&mut self, directory: i64, name: Option<&OsStr>, limit: usize) -> Result<usize> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let missing: Vec<OsString> = self
            .statement(
                "SELECT file_name FROM missing_file WHERE directory = ?1 AND (?2 IS NULL OR file_name = ?2) LIMIT ?3",
            )?
            .query_map(params![directory, name.map(PathValue), limit], |row| Ok(path_from_sql(row.get_ref(0)?)?))?
            .collect::<Result<_>>()?;
        let mut rows = DirectoryRows::new(directory);
        for name in &missing {
            // Not there any more: dropped, and counted, along with one before it that held the same.
            self.changes.tally.removed += u64::from(self.remove_file(name, &mut rows)?);
        }
        Ok(missing.len())
    }

    /// Drops what was noted about a file that is gone or whose content has changed.
    pub(super) fn forget_marks(&mut self, directory: i64, name: &OsStr) -> Result<()> {
        for sql in [
            "DELETE FROM unindexed_file WHERE directory = ?1 AND file_name = ?2",
            "DELETE FROM file_fault WHERE directory = ?1 AND file_name = ?2",
            "DELETE FROM conflict WHERE directory = ?1 AND file_name = ?2",
            "DELETE FROM missing_file WHERE directory = ?1 AND file_name = ?2",
        ] {
            self.statement(sql)?.execute(params![directory, PathValue(name)])?;
        }
        Ok(())
    }

    pub(super) fn note_faults(&mut self, record: &InstanceRecord, file: &File<'_>) -> Result<()> {
        let faults = fault_text(record);
        // Metadata have no file: the UID stands for its name, as for a further location.
        let name = match file.place {
            Place::MetadataOnly => OsStr::new(record.value(AttributeId::SOPInstanceUID)),
            Place::InPlace | Place::Managed | Place::Archive => file.name,
        };
        self.statement("INSERT OR REPLACE INTO file_fault (directory, file_name, faults) VALUES (?1, ?2, ?3)")?
            .execute(params![file.directory, PathValue(name), faults])?;
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
