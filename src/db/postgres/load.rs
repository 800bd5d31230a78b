//! Reads the part of an index that a transaction is about.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::Path;

use tokio_postgres::Row;

use super::body::InstanceBody;
use super::connection::{ServerConnection, SqlParameter};
use super::error::ServerFailure;
use super::keys::{RowKey, checksum_of, location_of, place_number};
use super::marks::{self, FileMarks};
use super::removed_rows::RemovedRows;
use super::shelves::{GROUP_COLUMNS, GroupRow, record_from};
use crate::db::EventRecording;
use crate::db::arrival::SourceOfInstances;
use crate::db::contents::{Contents, FileKey, StoredFile};
use crate::model::attribute::AttributeId;
use crate::model::location::Place;

/// Bits of `instance.flags`.
pub(super) mod flags {
    pub(in crate::db::postgres) const OFFLINE: i16 = 1;
    pub(in crate::db::postgres) const FIRST_IS_MISSING: i16 = 2;
    pub(in crate::db::postgres) const UID_IS_SEPARATED: i16 = 4;
}

/// What a transaction looks at.
#[derive(Default)]
pub(super) struct PartNeeds {
    /// SOP Instance UIDs.
    pub(super) uids: BTreeSet<String>,
    /// Files, whatever instances they are of.
    pub(super) files: BTreeSet<FileKey>,
    /// Files that are of these instances only, or of none.
    pub(super) locations: BTreeSet<FileKey>,
    /// Studies that new objects belong to.
    pub(super) studies: BTreeSet<String>,
    /// Directories that have to be there.
    pub(super) directories: BTreeSet<(u8, std::path::PathBuf)>,
    /// Who brings new objects, and when in milliseconds since 1970 UTC.
    pub(super) sources: HashSet<SourceOfInstances>,
    pub(super) now_ms: i64,
    /// Which events the transaction records.
    pub(super) recording: EventRecording,
}

/// A row of an instance as it was read.
#[derive(Clone, Copy)]
pub(super) struct KnownRow {
    pub(super) group: i64,
    pub(super) flags: i16,
}

/// Instances with their rows.
#[derive(Default)]
pub(super) struct LoadedInstances {
    pub(super) files: BTreeMap<String, Vec<StoredFile>>,
    pub(super) rows: HashMap<String, KnownRow>,
    pub(super) groups: HashMap<i64, GroupRow>,
}

/// The part of an index, before it is changed.
pub(super) struct LoadedPart {
    pub(super) instances: LoadedInstances,
    pub(super) marks: FileMarks,
    pub(super) removed: RemovedRows,
    /// Number of each study that is locked, by UID.
    pub(super) studies: HashMap<String, i64>,
}

impl LoadedPart {
    /// The part as contents that can be changed.
    pub(super) fn contents(&self) -> Contents {
        let FileMarks { unindexed, missing, faults, conflicts } = self.marks.clone();
        let instances = self.instances.files.clone();
        let RemovedRows { instances: removed, files: removed_files } = self.removed.clone();
        let files = Contents { removed, removed_files, ..Contents::default() };
        Contents { instances, unindexed, missing, faults, conflicts, ..files }
    }
}

/// Reads instance groups by a condition on `s`.
pub(super) fn groups(
    connection: &mut ServerConnection,
    condition: &str,
    ids: &[i64],
) -> Result<Vec<GroupRow>, ServerFailure> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT {GROUP_COLUMNS} FROM shelf s JOIN directory d ON d.id = s.directory WHERE {condition} = ANY($1)"
    );
    let rows = connection.query(&sql, &[&ids])?;
    rows.iter().map(|row| GroupRow::of_row(row, &connection.declared)).collect()
}

/// The same by their numbers.
fn groups_by_id(
    connection: &mut ServerConnection,
    condition: &str,
    ids: &[i64],
) -> Result<HashMap<i64, GroupRow>, ServerFailure> {
    Ok(groups(connection, condition, ids)?.into_iter().map(|group| (group.id, group)).collect())
}

/// Reads instances with all of their files. `known` has instance groups that need not be read
/// again.
pub(super) fn instances(
    connection: &mut ServerConnection,
    uids: &BTreeSet<String>,
    known: HashMap<i64, GroupRow>,
) -> Result<LoadedInstances, ServerFailure> {
    let keys: Vec<RowKey> = uids.iter().map(|uid| RowKey::of_uid(uid)).collect();
    if keys.is_empty() {
        return Ok(LoadedInstances { groups: known, ..LoadedInstances::default() });
    }
    let rows = connection.query("SELECT shelf, flags, body FROM instance WHERE uid_key = ANY($1)", &[&keys])?;
    of_rows(connection, &rows, known)
}

/// Reads the instances of some instance groups, with all of their files.
pub(super) fn instances_of(
    connection: &mut ServerConnection,
    group_ids: &[i64],
) -> Result<LoadedInstances, ServerFailure> {
    let sql = "SELECT shelf, flags, body FROM instance WHERE shelf = ANY($1)";
    let rows = connection.query(sql, &[&group_ids])?;
    of_rows(connection, &rows, HashMap::new())
}

fn of_rows(
    connection: &mut ServerConnection,
    rows: &[Row],
    known: HashMap<i64, GroupRow>,
) -> Result<LoadedInstances, ServerFailure> {
    let mut loaded = LoadedInstances { groups: known, ..LoadedInstances::default() };
    let mut others = BTreeSet::new();
    for row in rows {
        let group: i64 = row.try_get(0)?;
        if !loaded.groups.contains_key(&group) {
            others.insert(group);
        }
    }
    let others: Vec<i64> = others.into_iter().collect();
    loaded.groups.extend(groups_by_id(connection, "s.id", &others)?);
    let mut by_key = HashMap::new();
    for row in rows {
        let id: i64 = row.try_get(0)?;
        let group = loaded.groups.get(&id).ok_or(ServerFailure::Again)?;
        let file = group.file(InstanceBody::unpack(row.try_get(2)?, group.base())?)?;
        let uid = file.record.value(AttributeId::SOPInstanceUID).to_owned();
        by_key.insert(RowKey::of_uid(&uid), uid.clone());
        loaded.rows.insert(uid.clone(), KnownRow { group: id, flags: row.try_get(1)? });
        loaded.files.insert(uid, vec![file]);
    }
    if !by_key.is_empty() {
        add_copies(connection, &by_key, &mut loaded.files)?;
    }
    Ok(loaded)
}

fn add_copies(
    connection: &mut ServerConnection,
    by_key: &HashMap<RowKey, String>,
    files: &mut BTreeMap<String, Vec<StoredFile>>,
) -> Result<(), ServerFailure> {
    let keys: Vec<RowKey> = by_key.keys().copied().collect();
    let sql = format!(
        "SELECT {COPY_COLUMNS} FROM copy c JOIN directory d ON d.id = c.directory WHERE c.uid_key = ANY($1) \
         ORDER BY c.uid_key, c.position"
    );
    for row in connection.query(&sql, &[&keys])? {
        let held = by_key.get(&row.try_get(0)?).and_then(|uid| files.get_mut(uid));
        let Some(held) = held else { continue };
        let Some(first) = held.first() else { continue };
        let copy = copy_of(&row, first)?;
        held.push(copy);
    }
    Ok(())
}

/// The columns that [`copy_of`] reads.
const COPY_COLUMNS: &str =
    "c.uid_key, d.place, d.path, c.file_name, c.size, c.mtime_ms, c.checksum, c.differs, c.declared, c.record";

fn copy_of(row: &Row, first: &StoredFile) -> Result<StoredFile, ServerFailure> {
    let record = match row.try_get::<_, Option<&str>>(9)? {
        Some(text) => record_from(text)?,
        None => first.record.clone(),
    };
    Ok(StoredFile {
        location: location_of(row)?,
        record,
        checksum: checksum_of(row, 6)?,
        differs: row.try_get(7)?,
        declared: row.try_get(8)?,
        arrival: 0,
    })
}

/// Copies that fulfil a condition on `c` or `d`.
pub(super) fn copies(
    connection: &mut ServerConnection,
    condition: &str,
    parameters: &[SqlParameter<'_>],
) -> Result<Vec<StoredFile>, ServerFailure> {
    let sql = format!(
        "SELECT {COPY_COLUMNS}, i.shelf, i.body FROM directory d JOIN copy c ON c.directory = d.id \
         JOIN instance i ON i.uid_key = c.uid_key WHERE {condition}"
    );
    let rows = connection.query(&sql, parameters)?;
    let ids = rows.iter().map(|row| row.try_get(10)).collect::<Result<BTreeSet<i64>, _>>()?;
    let ids: Vec<i64> = ids.into_iter().collect();
    let groups = groups_by_id(connection, "s.id", &ids)?;
    let mut found = Vec::new();
    for row in &rows {
        let Some(group) = groups.get(&row.try_get(10)?) else { continue };
        found.push(copy_of(row, &group.file(InstanceBody::unpack(row.try_get(11)?, group.base())?)?)?);
    }
    Ok(found)
}

/// A condition on `d`: the directory or archive file of [`RowKey::of_path`], the number of
/// [`Place::Archive`], and whether it is one.
pub(super) const IN_DIRECTORY: &str = "d.path_key = $1 AND (d.place = $2) = $3";

/// The copies in a directory or archive file.
pub(super) fn copies_in(
    connection: &mut ServerConnection,
    is_archive: bool,
    directory: &Path,
) -> Result<Vec<StoredFile>, ServerFailure> {
    let archive = place_number(Place::Archive);
    copies(connection, IN_DIRECTORY, &[&RowKey::of_path(directory), &archive, &is_archive])
}

/// The instances that have one of these files.
pub(super) fn uids_at(
    connection: &mut ServerConnection,
    files: &BTreeSet<FileKey>,
) -> Result<BTreeSet<String>, ServerFailure> {
    let mut by_directory: BTreeMap<(bool, &Path), BTreeSet<&OsString>> = BTreeMap::new();
    for key in files {
        by_directory.entry((key.is_archive, &key.directory)).or_default().insert(&key.name);
    }
    let mut found = BTreeSet::new();
    for ((is_archive, directory), names) in by_directory {
        each_instance_in(connection, is_archive, directory, &mut |file, _| {
            if names.contains(&file.location.file_name) {
                found.insert(file.record.value(AttributeId::SOPInstanceUID).to_owned());
            }
        })?;
        let copies = copies_in(connection, is_archive, directory)?;
        let named = copies.into_iter().filter(|copy| names.contains(&copy.location.file_name));
        found.extend(named.map(|copy| copy.record.value(AttributeId::SOPInstanceUID).to_owned()));
    }
    Ok(found)
}

/// Calls `on_file` for each first file in a directory or archive file, with the flags of its row.
pub(super) fn each_instance_in(
    connection: &mut ServerConnection,
    is_archive: bool,
    directory: &Path,
    on_file: &mut dyn FnMut(StoredFile, i16),
) -> Result<(), ServerFailure> {
    let archive = place_number(Place::Archive);
    let sql = format!("SELECT s.id FROM directory d JOIN shelf s ON s.directory = d.id WHERE {IN_DIRECTORY}");
    let rows = connection.query(&sql, &[&RowKey::of_path(directory), &archive, &is_archive])?;
    let ids = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
    let groups = groups_by_id(connection, "s.id", &ids)?;
    if groups.is_empty() {
        return Ok(());
    }
    for row in connection.query("SELECT shelf, flags, body FROM instance WHERE shelf = ANY($1)", &[&ids])? {
        let Some(group) = groups.get(&row.try_get(0)?) else { continue };
        on_file(group.file(InstanceBody::unpack(row.try_get(2)?, group.base())?)?, row.try_get(1)?);
    }
    Ok(())
}

/// Reads what a transaction looks at. The studies are locked already.
pub(super) fn part(
    connection: &mut ServerConnection,
    needs: &PartNeeds,
    studies: HashMap<String, i64>,
) -> Result<LoadedPart, ServerFailure> {
    let ids: Vec<i64> = studies.values().copied().collect();
    let known = groups_by_id(connection, "s.study", &ids)?;
    let mut uids = needs.uids.clone();
    if !needs.files.is_empty() {
        uids.extend(uids_at(connection, &needs.files)?);
    }
    let instances = instances(connection, &uids, known)?;
    let mut files: BTreeSet<FileKey> = needs.files.union(&needs.locations).cloned().collect();
    files.extend(instances.files.values().flatten().map(StoredFile::key));
    let removed = RemovedRows::load(connection, &uids)?;
    files.extend(removed.files.keys().cloned().chain(removed.archives()));
    let marks = marks::load(connection, &uids, &files)?;
    Ok(LoadedPart { instances, marks, removed, studies })
}
