//! The rows of what operators removed, as a transaction reads and writes them.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Row;

use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::keys::{DirectoryIds, RowKey, checksum_of, from_column, location_of, place_number, to_column, to_i64};
use super::shelves::{record_from, record_text};
use crate::db::contents::{Contents, FileKey, FileOfRemoved, RemovedInstance, StoredFile};
use crate::db::removals::IN_TRASH;
use crate::db::{Error, RemovedFile};
use crate::model::attribute::AttributeId;
use crate::model::location::Location;
use crate::model::record::InstanceRecord;

/// Asks for what is removed of instances by their keys.
pub(super) const REMOVED_INSTANCES: &str =
    "SELECT sop_instance_uid, removal, record FROM removed_instance WHERE uid_key = ANY($1)";

/// The rows of some instances.
#[derive(Clone, Default)]
pub(super) struct RemovedRows {
    pub(super) instances: BTreeMap<String, RemovedInstance>,
    pub(super) files: BTreeMap<FileKey, FileOfRemoved>,
}

impl RemovedRows {
    /// Reads what is removed of these instances.
    pub(super) fn load(connection: &mut ServerConnection, uids: &BTreeSet<String>) -> Result<Self, ServerFailure> {
        let keys: Vec<RowKey> = uids.iter().map(|uid| RowKey::of_uid(uid)).collect();
        if keys.is_empty() {
            return Ok(Self::default());
        }
        let rows = connection.query(REMOVED_INSTANCES, &[&keys])?;
        Self::of_rows(connection, &keys, &rows)
    }

    /// Removed instances with these keys, and their files, by the rows of [`REMOVED_INSTANCES`].
    pub(super) fn of_rows(
        connection: &mut ServerConnection,
        keys: &[RowKey],
        rows: &[Row],
    ) -> Result<Self, ServerFailure> {
        let mut loaded = Self::default();
        for row in rows {
            let record = record_of(row.try_get(2)?)?;
            loaded.instances.insert(from_column(row.try_get(0)?), RemovedInstance { removal: row.try_get(1)?, record });
        }
        if loaded.instances.is_empty() {
            return Ok(loaded);
        }
        for row in connection.query(&format!("{FILES} WHERE f.uid_key = ANY($1)"), &[&keys])? {
            let removed = file_of(&row)?;
            let mut record = InstanceRecord::new();
            record.set(AttributeId::SOPInstanceUID, &removed.sop_instance_uid);
            let RemovedFile { location, checksum, differs, removal, .. } = removed;
            let file = StoredFile { location, record, checksum, differs, declared: String::new(), arrival: 0 };
            let state = i64::from(row.try_get::<_, i16>(STATE)?);
            loaded.files.insert(file.key(), FileOfRemoved { file, removal, state });
        }
        Ok(loaded)
    }

    /// Adds what is removed of other instances.
    pub(super) fn add(&mut self, other: Self) {
        self.instances.extend(other.instances);
        self.files.extend(other.files);
    }

    /// The archive files that hold removed members.
    pub(super) fn archives(&self) -> impl Iterator<Item = FileKey> {
        let archives: BTreeSet<&FileKey> = self.files.keys().filter(|key| key.is_archive).collect();
        archives.into_iter().filter_map(|key| FileKey::of_archive(&key.directory))
    }

    /// Writes what became of them.
    pub(super) fn save(
        &self,
        connection: &mut ServerConnection,
        after: &Contents,
        directories: &DirectoryIds,
    ) -> Result<(), ServerFailure> {
        let gone: Vec<RowKey> = self
            .instances
            .keys()
            .filter(|uid| !after.removed.contains_key(*uid))
            .map(|uid| RowKey::of_uid(uid))
            .collect();
        if !gone.is_empty() {
            connection.later("DELETE FROM removed_instance WHERE uid_key = ANY($1)", &[&gone])?;
        }
        let new = after
            .removed
            .iter()
            .filter(|(uid, removed)| self.instances.get(*uid).is_none_or(|known| known.removal != removed.removal));
        insert_instances(connection, &new.collect::<Vec<_>>())?;
        let gone: Vec<&FileOfRemoved> = self
            .files
            .iter()
            .filter(|(key, _)| !after.removed_files.contains_key(*key))
            .map(|(_, file)| file)
            .collect();
        delete_files(connection, &gone, directories)?;
        let is_new = |(key, file): &(&FileKey, &FileOfRemoved)| {
            self.files.get(*key).is_none_or(|known| !is_same_row(known, file))
        };
        let new: Vec<&FileOfRemoved> = after.removed_files.iter().filter(is_new).map(|(_, file)| file).collect();
        insert_files(connection, &new, directories)?;
        for (removal, count) in &after.removed_counts {
            let sql = "UPDATE removal SET instances = instances + $2 WHERE id = $1";
            connection.later(sql, &[removal, &to_i64(*count)])?;
        }
        Ok(())
    }
}

/// Whether two removed files have the same row.
fn is_same_row(one: &FileOfRemoved, other: &FileOfRemoved) -> bool {
    let row = |removed: &FileOfRemoved| {
        let StoredFile { location, checksum, differs, .. } = &removed.file;
        (removed.removal, removed.state, location.size, location.mtime_ms, *checksum, *differs)
    };
    row(one) == row(other) && one.uid() == other.uid()
}

pub(super) fn record_of(text: Option<&str>) -> Result<Option<InstanceRecord>, Error> {
    text.map(record_from).transpose()
}

fn insert_instances(
    connection: &mut ServerConnection,
    new: &[(&String, &RemovedInstance)],
) -> Result<(), ServerFailure> {
    if new.is_empty() {
        return Ok(());
    }
    let mut new: Vec<_> = new.iter().map(|(uid, removed)| (RowKey::of_uid(uid), uid, removed)).collect();
    new.sort_by_key(|(key, ..)| *key);
    let keys: Vec<RowKey> = new.iter().map(|(key, ..)| *key).collect();
    let uids: Vec<String> = new.iter().map(|(_, uid, _)| to_column(uid)).collect();
    let removals: Vec<i64> = new.iter().map(|(.., removed)| removed.removal).collect();
    let records: Vec<Option<String>> =
        new.iter().map(|(.., removed)| removed.record.as_ref().map(record_text)).collect();
    connection.later(
        "INSERT INTO removed_instance SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[]) \
         ON CONFLICT (uid_key) DO UPDATE SET removal = excluded.removal, record = excluded.record",
        &[&keys, &uids, &removals, &records],
    )?;
    Ok(())
}

/// The number of the directory of a file, and the key of its name.
fn row_of(file: &FileOfRemoved, directories: &DirectoryIds) -> Result<(i64, RowKey), ServerFailure> {
    let Location { place, directory, file_name, .. } = &file.file.location;
    let id = directories.get(&(place_number(*place), directory.clone())).copied();
    let missing = || Error::Statement("a directory of a removed file has no row".into());
    Ok((id.ok_or_else(missing)?, name_key(file_name)))
}

pub(super) fn name_key(name: &std::ffi::OsStr) -> RowKey {
    RowKey::of(&[name.as_encoded_bytes()])
}

fn delete_files(
    connection: &mut ServerConnection,
    gone: &[&FileOfRemoved],
    directories: &DirectoryIds,
) -> Result<(), ServerFailure> {
    if gone.is_empty() {
        return Ok(());
    }
    let rows: Vec<(i64, RowKey)> = gone.iter().map(|file| row_of(file, directories)).collect::<Result<_, _>>()?;
    let (ids, names): (Vec<i64>, Vec<RowKey>) = rows.into_iter().unzip();
    let sql =
        "DELETE FROM removed_file WHERE (directory, name_key) IN (SELECT * FROM unnest($1::bigint[], $2::uuid[]))";
    connection.later(sql, &[&ids, &names])
}

fn insert_files(
    connection: &mut ServerConnection,
    new: &[&FileOfRemoved],
    directories: &DirectoryIds,
) -> Result<(), ServerFailure> {
    if new.is_empty() {
        return Ok(());
    }
    let rows = new.iter().map(|file| Ok((row_of(file, directories)?, *file)));
    let mut rows: Vec<((i64, RowKey), &FileOfRemoved)> = rows.collect::<Result<_, ServerFailure>>()?;
    rows.sort_by_key(|(row, _)| *row);
    let (ids, name_keys): (Vec<i64>, Vec<RowKey>) = rows.iter().map(|(row, _)| *row).unzip();
    let names: Vec<&[u8]> = rows.iter().map(|(_, file)| file.file.location.file_name.as_encoded_bytes()).collect();
    let uid_keys: Vec<RowKey> = rows.iter().map(|(_, file)| RowKey::of_uid(file.uid())).collect();
    let uids: Vec<String> = rows.iter().map(|(_, file)| to_column(file.uid())).collect();
    let removals: Vec<i64> = rows.iter().map(|(_, file)| file.removal).collect();
    let sizes: Vec<i64> = rows.iter().map(|(_, file)| to_i64(file.file.location.size)).collect();
    let times: Vec<i64> = rows.iter().map(|(_, file)| file.file.location.mtime_ms).collect();
    let checksums: Vec<Option<Vec<u8>>> =
        rows.iter().map(|(_, file)| file.file.checksum.map(|sum| Vec::from(sum.to_bytes()))).collect();
    let differ: Vec<bool> = rows.iter().map(|(_, file)| file.file.differs).collect();
    let states: Vec<i16> = rows.iter().map(|(_, file)| file.state as i16).collect();
    connection.later(
        "INSERT INTO removed_file SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::bytea[], $4::uuid[], $5::text[], \
         $6::bigint[], $7::bigint[], $8::bigint[], $9::bytea[], $10::boolean[], $11::smallint[]) \
         ON CONFLICT (directory, name_key) DO UPDATE SET uid_key = excluded.uid_key, \
         sop_instance_uid = excluded.sop_instance_uid, removal = excluded.removal, size = excluded.size, \
         mtime_ms = excluded.mtime_ms, checksum = excluded.checksum, differs = excluded.differs, state = excluded.state",
        &[&ids, &name_keys, &names, &uid_keys, &uids, &removals, &sizes, &times, &checksums, &differ, &states],
    )?;
    Ok(())
}

/// The files of removed instances, with the columns that [`file_of`] reads.
pub(super) const FILES: &str = "SELECT f.directory, d.place, d.path, f.file_name, f.size, f.mtime_ms, f.sop_instance_uid, \
     f.removal, coalesce(r.begun_ms, 0), f.checksum, f.differs, f.state \
     FROM removed_file f JOIN directory d ON d.id = f.directory LEFT JOIN removal r ON r.id = f.removal";

/// The column of the state in [`FILES`].
const STATE: usize = 11;

pub(super) fn file_of(row: &Row) -> Result<RemovedFile, ServerFailure> {
    Ok(RemovedFile {
        directory: row.try_get(0)?,
        location: location_of(row)?,
        sop_instance_uid: from_column(row.try_get(6)?),
        removal: row.try_get(7)?,
        begun_ms: row.try_get(8)?,
        checksum: checksum_of(row, 9)?,
        differs: row.try_get(10)?,
        is_in_trash: i64::from(row.try_get::<_, i16>(STATE)?) == IN_TRASH,
    })
}
