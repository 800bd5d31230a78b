//! Further locations of instances: files that hold an instance which has its first location
//! elsewhere.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::super::packing::UidSuffix;
use super::super::sql_values::{PathValue, path_from_sql, place_from_number, place_number, to_u64};
use super::rows::{File, InstanceRow, Result, to_i64};
use crate::db::rules::{FurtherLocation, ObjectContent};
use crate::model::checksum::Checksum;
use crate::model::location::Place;
use crate::model::record::InstanceRecord;

/// A further location of an instance.
pub(super) struct FurtherFile {
    pub(super) place: Place,
    pub(super) directory: i64,
    pub(super) file_name: OsString,
    size: i64,
    mtime_ms: i64,
    pub(super) differs: bool,
    /// All that the index keeps of the object, if that is not what it keeps of the instance.
    pub(super) record: Option<String>,
    missing: bool,
    checksum: Option<Checksum>,
}

/// A further location in our own storage.
pub(super) struct OwnCopy {
    pub(super) directory: i64,
    pub(super) file_name: OsString,
    pub(super) path: PathBuf,
}

/// The instance of a further location.
pub(super) struct CopyOf {
    pub(super) instance_group: i64,
    pub(super) suffix: UidSuffix,
    pub(super) differs: bool,
}

impl FurtherFile {
    /// Record, size and checksum by which it is compared. Its object must have this record.
    pub(super) fn content<'a>(&self, record: &'a InstanceRecord) -> ObjectContent<'a> {
        ObjectContent { record, place: self.place, size: to_u64(self.size), checksum: self.checksum }
    }

    pub(super) fn location(&self) -> FurtherLocation {
        FurtherLocation { place: self.place, is_missing: self.missing, differs: self.differs }
    }

    /// The file, for when it becomes the first location.
    pub(super) fn as_first(&self) -> File<'_> {
        File {
            place: self.place,
            directory: self.directory,
            // Metadata have no file, and so no name.
            name: if self.place == Place::MetadataOnly { OsStr::new("") } else { &self.file_name },
            size: to_u64(self.size),
            mtime_ms: self.mtime_ms,
            checksum: self.checksum,
        }
    }
}

/// The rows of `copy`.
#[derive(Clone, Copy)]
pub(super) struct Copies<'c>(&'c Connection);

impl<'c> Copies<'c> {
    pub(super) const fn new(connection: &'c Connection) -> Self {
        Self(connection)
    }

    /// Returns the further locations of an instance, in the order in which they may become the
    /// first one. Files with the same content come first, then other files that exist. Files that
    /// are gone follow, and then metadata.
    pub(super) fn of(self, existing: &InstanceRow) -> Result<Vec<FurtherFile>> {
        self.0
            .prepare_cached(
                "SELECT c.directory, c.file_name, c.size, c.mtime_ms, c.differs, c.record, d.place, c.checksum, \
                 EXISTS (SELECT 1 FROM missing_file m WHERE m.directory = c.directory AND m.file_name = c.file_name) \
                 AS missing \
                 FROM copy c JOIN directory d ON d.id = c.directory \
                 WHERE c.instance_group = ?1 AND c.uid_suffix = ?2 \
                 ORDER BY d.place = ?3, missing, c.differs, d.path, c.file_name",
            )?
            .query_map(
                params![existing.instance_group.id, existing.suffix, place_number(Place::MetadataOnly)],
                |row| {
                    Ok(FurtherFile {
                        directory: row.get(0)?,
                        file_name: path_from_sql(row.get_ref(1)?)?,
                        size: row.get(2)?,
                        mtime_ms: row.get(3)?,
                        differs: row.get(4)?,
                        record: row.get(5)?,
                        place: place_from_number(row.get(6)?)?,
                        checksum: row.get::<_, Option<_>>(7)?.map(Checksum::from_bytes),
                        missing: row.get(8)?,
                    })
                },
            )?
            .collect()
    }

    /// Whether an instance has further locations.
    pub(super) fn has_any(self, existing: &InstanceRow) -> Result<bool> {
        self.0
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM copy WHERE instance_group = ?1 AND uid_suffix = ?2)")?
            .query_row(params![existing.instance_group.id, existing.suffix], |row| row.get(0))
    }

    /// Whether a further location of an instance is in our own storage.
    pub(super) fn has_own(self, existing: &InstanceRow) -> Result<bool> {
        self.0
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM copy c JOIN directory d ON d.id = c.directory \
                 WHERE c.instance_group = ?1 AND c.uid_suffix = ?2 AND d.place = ?3)",
            )?
            .query_row(params![existing.instance_group.id, existing.suffix, place_number(Place::Managed)], |row| {
                row.get(0)
            })
    }

    /// The further locations in our own storage that hold the same as the first one.
    pub(super) fn own(self, existing: &InstanceRow) -> Result<Vec<OwnCopy>> {
        self.0
            .prepare_cached(
                "SELECT c.directory, c.file_name, d.path FROM copy c JOIN directory d ON d.id = c.directory \
                 WHERE c.instance_group = ?1 AND c.uid_suffix = ?2 AND NOT c.differs AND d.place = ?3",
            )?
            .query_map(params![existing.instance_group.id, existing.suffix, place_number(Place::Managed)], |row| {
                let file_name = path_from_sql(row.get_ref(1)?)?;
                let path = Path::new(&path_from_sql(row.get_ref(2)?)?).join(&file_name);
                Ok(OwnCopy { directory: row.get(0)?, file_name, path })
            })?
            .collect()
    }

    /// The instance of which this file is a further location.
    pub(super) fn instance_at(self, directory: i64, name: &OsStr) -> Result<Option<CopyOf>> {
        self.0
            .prepare_cached(
                "SELECT instance_group, uid_suffix, differs FROM copy WHERE directory = ?1 AND file_name = ?2",
            )?
            .query_row(params![directory, PathValue(name)], |row| {
                Ok(CopyOf {
                    instance_group: row.get(0)?,
                    suffix: UidSuffix::from_sql(row.get_ref(1)?)?,
                    differs: row.get(2)?,
                })
            })
            .optional()
    }

    /// The record that is kept of a further location. `None` if there is no such location.
    pub(super) fn record_at(self, directory: i64, name: &OsStr) -> Result<Option<Option<String>>> {
        self.0
            .prepare_cached("SELECT record FROM copy WHERE directory = ?1 AND file_name = ?2")?
            .query_row(params![directory, PathValue(name)], |row| row.get(0))
            .optional()
    }

    /// Writes a further location of an instance.
    pub(super) fn write(
        self,
        (instance_group, suffix): (i64, &UidSuffix),
        file: &File<'_>,
        differs: bool,
        record: Option<&str>,
    ) -> Result<()> {
        self.0
            .prepare_cached(
                "INSERT OR REPLACE INTO copy (directory, file_name, instance_group, uid_suffix, size, mtime_ms, differs, \
                 record, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                file.directory,
                PathValue(file.name),
                instance_group,
                suffix,
                to_i64(file.size),
                file.mtime_ms,
                differs,
                record,
                file.checksum.map(Checksum::to_bytes)
            ])?;
        Ok(())
    }

    /// Gives a further location to the new row of its instance.
    pub(super) fn move_to(
        self,
        (instance_group, suffix): (i64, &UidSuffix),
        copy: &FurtherFile,
        differs: bool,
        record: Option<&str>,
    ) -> Result<()> {
        self.0
            .prepare_cached(
                "UPDATE copy SET instance_group = ?3, uid_suffix = ?4, differs = ?5, record = ?6 \
                 WHERE directory = ?1 AND file_name = ?2",
            )?
            .execute(params![copy.directory, PathValue(&copy.file_name), instance_group, suffix, differs, record])?;
        Ok(())
    }

    /// Deletes a further location. Returns the instance group that it had.
    pub(super) fn delete(self, directory: i64, name: &OsStr) -> Result<Option<i64>> {
        self.0
            .prepare_cached("DELETE FROM copy WHERE directory = ?1 AND file_name = ?2 RETURNING instance_group")?
            .query_row(params![directory, PathValue(name)], |row| row.get(0))
            .optional()
    }
}
