//! Reads the part of an index that a transaction is about.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::Path;

use tokio_postgres::Row;

use super::body::InstanceBody;
use super::connection::ServerConnection;
use super::corrections;
use super::directories::{self, UnknownDirectories};
use super::error::ServerFailure;
use super::flight::SqlParameter;
use super::keys::{RowKey, checksum_of, location_of, place_number, to_column};
use super::marks::{self, FileMarks};
use super::remembered::RememberedRows;
use super::removed_rows::{REMOVED_INSTANCES, RemovedRows};
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

/// Parts of the index that a transaction looks at.
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
    /// Sources of new objects, and the time in milliseconds since 1970 UTC.
    pub(super) sources: HashSet<SourceOfInstances>,
    pub(super) now_ms: i64,
    /// Events that the transaction records.
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
    /// The studies that are locked, by UID.
    pub(super) studies: HashMap<String, LockedStudy>,
}

/// The row of a study that is locked.
#[derive(Clone, Copy)]
pub(super) struct LockedStudy {
    pub(super) id: i64,
    pub(super) revision: i64,
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

/// A subquery for the directory of a row. Without statistics, as after a first load, the server
/// would read all directories for a join. OFFSET keeps it from making a join of this.
fn directory_of(table: &str) -> String {
    format!("SELECT id, place, path FROM directory WHERE id = {table}.directory OFFSET 0")
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
        "SELECT {GROUP_COLUMNS} FROM shelf s CROSS JOIN LATERAL ({}) d WHERE {condition} = ANY($1)",
        directory_of("s")
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
    let rows = connection.query(INSTANCES, &[&keys])?;
    of_rows(connection, &rows, known)
}

/// Asks for the rows of instances by their keys.
const INSTANCES: &str = "SELECT shelf, flags, body FROM instance WHERE uid_key = ANY($1)";

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
        "SELECT {COPY_COLUMNS} FROM copy c CROSS JOIN LATERAL ({}) d WHERE c.uid_key = ANY($1) \
         ORDER BY c.uid_key, c.position",
        directory_of("c")
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

/// Locks the rows of studies in the order of their keys, and makes those that are missing.
/// PostgreSQL locks a row before it sees that it is not to be changed.
const LOCK_STUDIES: &str = "INSERT INTO study (uid_key, study_instance_uid) SELECT key, uid \
     FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS u(key, uid, at) ORDER BY at \
     ON CONFLICT (uid_key) DO UPDATE SET revision = study.revision WHERE false";

/// Asks for the studies of [`LOCK_STUDIES`].
const LOCKED_STUDIES: &str = "SELECT uid_key, id, revision FROM study WHERE uid_key = ANY($1)";

/// Asks for studies, and locks them in the same order. It makes none.
const LOCK_KNOWN_STUDIES: &str = "SELECT uid_key, id, revision FROM study WHERE uid_key = ANY($1) \
     ORDER BY uid_key FOR NO KEY UPDATE";

/// The studies of a transaction, in the order in which they are locked.
struct WantedStudies<'u> {
    keys: Vec<RowKey>,
    uids: Vec<&'u String>,
    /// Number that is remembered of each: 0 if there is none.
    ids: Vec<i64>,
    revisions: Vec<i64>,
}

impl<'u> WantedStudies<'u> {
    fn of(uids: impl Iterator<Item = &'u String>, remembered: &RememberedRows) -> Self {
        let mut by_key: Vec<(RowKey, &String)> = uids.map(|uid| (RowKey::of_uid(uid), uid)).collect();
        by_key.sort();
        let known =
            by_key.iter().map(|(_, uid)| remembered.study(uid).map_or((0, 0), |known| (known.id, known.revision)));
        let (ids, revisions) = known.unzip();
        let (keys, uids) = by_key.iter().copied().unzip();
        Self { keys, uids, ids, revisions }
    }

    /// Has the studies locked. Returns the question for their rows, which has to come next.
    fn lock(&self, connection: &mut ServerConnection) -> Result<&'static str, ServerFailure> {
        if self.ids.iter().all(|id| *id != 0) {
            return Ok(LOCK_KNOWN_STUDIES);
        }
        let texts: Vec<String> = self.uids.iter().map(|uid| to_column(uid)).collect();
        connection.later(LOCK_STUDIES, &[&self.keys, &texts])?;
        Ok(LOCKED_STUDIES)
    }

    /// Studies whose instance groups are not remembered, or that another writer may have changed.
    fn to_read(&self, remembered: &RememberedRows) -> GroupsToRead {
        let mut wanted = GroupsToRead::default();
        for (key, (id, revision)) in self.keys.iter().zip(self.ids.iter().zip(&self.revisions)) {
            if remembered.is_shared || *id == 0 {
                wanted.add(*key, *id, *revision);
            }
        }
        wanted
    }

    /// The studies by their rows. Their instance groups that are remembered come to `known`. The
    /// second ones are those that another writer has changed unexpectedly.
    fn locked(
        &self,
        rows: &[Row],
        known: &mut HashMap<i64, GroupRow>,
        remembered: &mut RememberedRows,
    ) -> Result<(HashMap<String, LockedStudy>, GroupsToRead), ServerFailure> {
        let uids: HashMap<RowKey, &String> = self.keys.iter().copied().zip(self.uids.iter().copied()).collect();
        if rows.len() < self.keys.len() {
            // One that is remembered is gone. The next attempt makes it.
            return Err(ServerFailure::Again);
        }
        let was_shared = std::mem::take(&mut remembered.is_shared);
        let (mut locked, mut others) = (HashMap::new(), GroupsToRead::default());
        for row in rows {
            let key = row.try_get(0)?;
            let Some(uid) = uids.get(&key) else { continue };
            let study = LockedStudy { id: row.try_get(1)?, revision: row.try_get(2)? };
            if let Some(former) = remembered.take_study(uid) {
                if (former.id, former.revision) == (study.id, study.revision) {
                    known.extend(former.groups.into_iter().map(|group| (group.id, group)));
                } else {
                    remembered.is_shared = true;
                    others.add(key, former.id, former.revision);
                }
            }
            locked.insert((*uid).clone(), study);
        }
        Ok((locked, if was_shared { GroupsToRead::default() } else { others }))
    }
}

/// Studies whose instance groups are read if they are not as their numbers and revisions say.
#[derive(Default)]
struct GroupsToRead {
    keys: Vec<RowKey>,
    ids: Vec<i64>,
    revisions: Vec<i64>,
}

impl GroupsToRead {
    fn add(&mut self, key: RowKey, id: i64, revision: i64) {
        self.keys.push(key);
        self.ids.push(id);
        self.revisions.push(revision);
    }

    /// Asks for them. Empty if there are none.
    fn question(&self) -> String {
        if self.keys.is_empty() {
            return String::new();
        }
        format!(
            "SELECT {GROUP_COLUMNS} FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS u(key, id, revision) \
             JOIN study t ON t.uid_key = u.key AND (t.id, t.revision) <> (u.id, u.revision) \
             JOIN shelf s ON s.study = t.id JOIN directory d ON d.id = s.directory"
        )
    }
}

/// Whether anything was removed or noted of instances and files. Of most there is nothing, and the
/// server answers one question sooner than three.
const HAS_EXCEPTIONS: &str = "SELECT EXISTS (SELECT FROM file_mark WHERE file_key = ANY($2)) \
     OR EXISTS (SELECT FROM removed_instance) AND EXISTS (SELECT FROM removed_instance WHERE uid_key = ANY($1)) \
     OR EXISTS (SELECT FROM conflict) AND (EXISTS (SELECT FROM conflict WHERE uid_key = ANY($1)) \
     OR EXISTS (SELECT FROM conflict WHERE file_key = ANY($2)))";

/// Locks the studies of a transaction, and reads what it looks at.
pub(super) fn part(
    connection: &mut ServerConnection,
    remembered: &mut RememberedRows,
    (needs, more): (&PartNeeds, &BTreeSet<String>),
) -> Result<LoadedPart, ServerFailure> {
    let directories = UnknownDirectories::make(connection, &remembered.directories, &needs.directories)?;
    let wanted = WantedStudies::of(needs.studies.union(more), remembered);
    let asked_studies = wanted.lock(connection)?;
    let uids: Vec<RowKey> = needs.uids.iter().map(|uid| RowKey::of_uid(uid)).collect();
    let file_keys: Vec<RowKey> = needs.files.union(&needs.locations).map(RowKey::of_file).collect();
    let to_read = wanted.to_read(remembered);
    let rules = corrections::rules_question(connection)?;
    // Each question sees what transactions have committed that had the lock before.
    let [studies, new_directories, groups, rows, exceptions, rules] = connection.query_all([
        (asked_studies, &[&wanted.keys]),
        (directories.question(), &[&directories.keys, &directories.places]),
        (&to_read.question(), &[&to_read.keys, &to_read.ids, &to_read.revisions]),
        (INSTANCES, &[&uids]),
        (HAS_EXCEPTIONS, &[&uids, &file_keys]),
        (rules, &[]),
    ])?;
    let has_exceptions = exceptions.first().map_or(Ok(false), |row| row.try_get(0))?;
    let [removed, marked, conflicts] = match has_exceptions {
        false => Default::default(),
        true => connection.query_all([
            (REMOVED_INSTANCES, &[&uids]),
            (&marks::of_files(), &[&file_keys]),
            (&marks::conflicts_of(), &[&uids, &file_keys]),
        ])?,
    };
    directories::note(&mut remembered.directories, &new_directories)?;
    corrections::note_rules(connection, &rules)?;
    let mut known = HashMap::new();
    let (studies, others) = wanted.locked(&studies, &mut known, remembered)?;
    let more = match others.keys.as_slice() {
        [] => Vec::new(),
        _ => connection.query(&others.question(), &[&others.keys, &others.ids, &others.revisions])?,
    };
    for row in groups.iter().chain(&more) {
        let group = GroupRow::of_row(row, &connection.declared)?;
        known.insert(group.id, group);
    }
    let mut marks = FileMarks::of_rows(&marked, &conflicts)?;
    let mut instances = of_rows(connection, &rows, known)?;
    let mut removed = RemovedRows::of_rows(connection, &uids, &removed)?;
    let mut uids = BTreeSet::new();
    if !needs.files.is_empty() {
        uids = uids_at(connection, &needs.files)?;
        uids.retain(|uid| !needs.uids.contains(uid));
        let LoadedInstances { files, rows, groups } = self::instances(connection, &uids, instances.groups)?;
        instances.groups = groups;
        instances.files.extend(files);
        instances.rows.extend(rows);
        removed.add(RemovedRows::load(connection, &uids)?);
    }
    let found = instances.files.values().flatten().map(StoredFile::key);
    let mut more: BTreeSet<FileKey> = found.chain(removed.files.keys().cloned()).chain(removed.archives()).collect();
    more.retain(|file| !needs.files.contains(file) && !needs.locations.contains(file));
    if !(uids.is_empty() && more.is_empty()) {
        marks.add_marks(marks::load(connection, &uids, &more)?);
    }
    Ok(LoadedPart { instances, marks, removed, studies })
}
