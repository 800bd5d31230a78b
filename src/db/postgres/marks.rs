//! Marks of files besides their instances, and the conflicts of objects.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Row;

use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::keys::{RowKey, from_column, name_from, path_from, place_from, place_number, to_column, to_i64, to_u64};
use crate::db::contents::{Contents, FileKey, StoredFile, Unindexed};
use crate::db::pieces::{NOTED_CONFLICTS, conflicting};
use crate::db::{NotIndexed, Note};
use crate::model::attribute::AttributeId;
use crate::model::location::Location;

const UNINDEXED: &str = "unindexed";
const MISSING: &str = "missing";
const FAULT: &str = "fault";

/// The marks of some files: see [`Contents`].
#[derive(Clone, Default)]
pub(super) struct FileMarks {
    pub(super) unindexed: BTreeMap<FileKey, Unindexed>,
    pub(super) missing: BTreeSet<FileKey>,
    pub(super) faults: BTreeMap<FileKey, String>,
    pub(super) conflicts: BTreeMap<(&'static str, String, FileKey), StoredFile>,
}

/// The columns that [`FileMarks::add`] reads.
pub(super) const MARK_COLUMNS: &str = "mark, is_archive, directory, file_name, size, mtime_ms, kind, reason, detail";

/// The columns that [`conflict_of`] reads.
pub(super) const CONFLICT_COLUMNS: &str =
    "kind, place, directory, file_name, study_instance_uid, series_instance_uid, sop_instance_uid";

impl FileMarks {
    /// The marks and conflicts of some rows.
    pub(super) fn of_rows(marked: &[Row], conflicts: &[Row]) -> Result<Self, ServerFailure> {
        let mut marks = Self::default();
        marked.iter().try_for_each(|row| marks.add(row))?;
        conflicts.iter().try_for_each(|row| marks.add_conflict(row))?;
        Ok(marks)
    }

    /// Adds the marks of other files.
    pub(super) fn add_marks(&mut self, other: Self) {
        let Self { unindexed, missing, faults, conflicts } = other;
        self.unindexed.extend(unindexed);
        self.missing.extend(missing);
        self.faults.extend(faults);
        self.conflicts.extend(conflicts);
    }

    /// Adds the mark of a row.
    pub(super) fn add(&mut self, row: &Row) -> Result<(), ServerFailure> {
        let (mark, detail): (&str, &str) = (row.try_get(0)?, row.try_get(8)?);
        let directory = path_from(row.try_get(2)?);
        let key = FileKey { is_archive: row.try_get(1)?, directory, name: name_from(row.try_get(3)?) };
        match mark {
            MISSING => _ = self.missing.insert(key),
            FAULT => _ = self.faults.insert(key, from_column(detail)),
            _ => {
                let (kind, reason): (&str, &str) = (row.try_get(6)?, row.try_get(7)?);
                let (kind, reason) = (NotIndexed::from_word(kind), from_column(reason));
                let note = Note { kind, reason, detail: from_column(detail) };
                let file = Unindexed { size: to_u64(row.try_get(4)?), mtime_ms: row.try_get(5)?, note };
                self.unindexed.insert(key, file);
            }
        }
        Ok(())
    }

    /// Adds the conflict of a row.
    pub(super) fn add_conflict(&mut self, row: &Row) -> Result<(), ServerFailure> {
        if let Some((kind, object)) = conflict_of(row)? {
            let uid = object.record.value(AttributeId::SOPInstanceUID).to_owned();
            self.conflicts.insert((kind, uid, object.key()), object);
        }
        Ok(())
    }

    /// The same marks of files with other keys. Files without one have no marks any more.
    pub(super) fn moved(&self, key: &dyn Fn(&FileKey) -> Option<FileKey>) -> Self {
        let conflict = |((kind, uid, at), object): (&(&'static str, String, FileKey), &StoredFile)| {
            let at = key(at)?;
            let location = Location { directory: at.directory.clone(), ..object.location.clone() };
            Some(((*kind, uid.clone(), at), StoredFile { location, ..object.clone() }))
        };
        Self {
            unindexed: self.unindexed.iter().filter_map(|(at, file)| Some((key(at)?, file.clone()))).collect(),
            missing: self.missing.iter().filter_map(key).collect(),
            faults: self.faults.iter().filter_map(|(at, fault)| Some((key(at)?, fault.clone()))).collect(),
            conflicts: self.conflicts.iter().filter_map(conflict).collect(),
        }
    }

    pub(super) fn of(contents: &Contents) -> Self {
        let Contents { unindexed, missing, faults, conflicts, .. } = contents;
        Self {
            unindexed: unindexed.clone(),
            missing: missing.clone(),
            faults: faults.clone(),
            conflicts: conflicts.clone(),
        }
    }

    /// The rows of these marks, by file and kind of mark.
    fn rows(&self) -> BTreeMap<(&FileKey, &'static str), MarkRow<'_>> {
        let empty = MarkRow { size: 0, mtime_ms: 0, kind: "", reason: "", detail: "" };
        let unindexed = self.unindexed.iter().map(|(key, file)| {
            let Note { kind, reason, detail } = &file.note;
            let (size, mtime_ms) = (to_i64(file.size), file.mtime_ms);
            ((key, UNINDEXED), MarkRow { size, mtime_ms, kind: kind.as_str(), reason, detail })
        });
        let missing = self.missing.iter().map(|key| ((key, MISSING), empty));
        let faults = self.faults.iter().map(|(key, detail)| ((key, FAULT), MarkRow { detail, ..empty }));
        unindexed.chain(missing).chain(faults).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct MarkRow<'m> {
    size: i64,
    mtime_ms: i64,
    kind: &'m str,
    reason: &'m str,
    detail: &'m str,
}

/// The conflict of a row, with its kind. Its object has no values but its UIDs.
pub(super) fn conflict_of(row: &Row) -> Result<Option<(&'static str, StoredFile)>, ServerFailure> {
    let kind: &str = row.try_get(0)?;
    let Some(kind) = NOTED_CONFLICTS.into_iter().find(|known| *known == kind) else { return Ok(None) };
    let location = Location {
        place: place_from(row.try_get(1)?),
        directory: path_from(row.try_get(2)?),
        file_name: name_from(row.try_get(3)?),
        size: 0,
        mtime_ms: 0,
    };
    let uid = |at| Ok::<_, ServerFailure>(from_column(row.try_get(at)?));
    let (study, series, instance) = (uid(4)?, uid(5)?, uid(6)?);
    Ok(Some((kind, conflicting(location, [&study, &series, &instance]))))
}

/// Reads the marks of these files, and the conflicts of them or of these instances.
pub(super) fn load(
    connection: &mut ServerConnection,
    uids: &BTreeSet<String>,
    files: &BTreeSet<FileKey>,
) -> Result<FileMarks, ServerFailure> {
    let uids: Vec<RowKey> = uids.iter().map(|uid| RowKey::of_uid(uid)).collect();
    let files: Vec<RowKey> = files.iter().map(RowKey::of_file).collect();
    let [marked, conflicts] = connection.query_all([(&of_files(), &[&files]), (&conflicts_of(), &[&uids, &files])])?;
    FileMarks::of_rows(&marked, &conflicts)
}

/// Asks for the marks of files by their keys.
pub(super) fn of_files() -> String {
    format!("SELECT {MARK_COLUMNS} FROM file_mark WHERE file_key = ANY($1)")
}

/// Asks for the conflicts of instances and files by their keys.
pub(super) fn conflicts_of() -> String {
    format!("SELECT {CONFLICT_COLUMNS} FROM conflict WHERE uid_key = ANY($1) OR file_key = ANY($2)")
}

/// Writes what differs.
pub(super) fn save(
    connection: &mut ServerConnection,
    before: &FileMarks,
    after: &FileMarks,
) -> Result<(), ServerFailure> {
    let (known, wanted) = (before.rows(), after.rows());
    let gone: Vec<_> = known.keys().filter(|key| !wanted.contains_key(key)).collect();
    if !gone.is_empty() {
        let (keys, marks): (Vec<RowKey>, Vec<&str>) =
            gone.iter().map(|(key, mark)| (RowKey::of_file(key), *mark)).unzip();
        connection.later(
            "DELETE FROM file_mark WHERE (file_key, mark) IN (SELECT * FROM unnest($1::uuid[], $2::text[]))",
            &[&keys, &marks],
        )?;
    }
    let new: Vec<_> = wanted.iter().filter(|(key, row)| known.get(*key) != Some(*row)).collect();
    if !new.is_empty() {
        insert_marks(connection, &new)?;
    }
    save_conflicts(connection, before, after)
}

fn insert_marks(
    connection: &mut ServerConnection,
    new: &[(&(&FileKey, &'static str), &MarkRow<'_>)],
) -> Result<(), ServerFailure> {
    // One order of rows for all writers.
    let mut new: Vec<(RowKey, &FileKey, &str, &MarkRow<'_>)> =
        new.iter().map(|((key, mark), row)| (RowKey::of_file(key), *key, *mark, *row)).collect();
    new.sort_by_key(|(file_key, _, mark, _)| (*file_key, *mark));
    let column = |of: fn(&MarkRow<'_>) -> i64| new.iter().map(|(.., row)| of(row)).collect::<Vec<i64>>();
    let text = |of: fn(&MarkRow<'_>) -> String| new.iter().map(|(.., row)| of(row)).collect::<Vec<String>>();
    let keys: Vec<RowKey> = new.iter().map(|(key, ..)| *key).collect();
    let marks: Vec<&str> = new.iter().map(|(_, _, mark, _)| *mark).collect();
    let directories: Vec<RowKey> = new.iter().map(|(_, key, ..)| RowKey::of_path(&key.directory)).collect();
    let are_archives: Vec<bool> = new.iter().map(|(_, key, ..)| key.is_archive).collect();
    let paths: Vec<&[u8]> = new.iter().map(|(_, key, ..)| key.directory.as_os_str().as_encoded_bytes()).collect();
    let names: Vec<&[u8]> = new.iter().map(|(_, key, ..)| key.name.as_encoded_bytes()).collect();
    connection.later(
        "INSERT INTO file_mark SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::boolean[], $5::bytea[], \
         $6::bytea[], $7::bigint[], $8::bigint[], $9::text[], $10::text[], $11::text[]) \
         ON CONFLICT (file_key, mark) DO UPDATE SET size = excluded.size, mtime_ms = excluded.mtime_ms, \
         kind = excluded.kind, reason = excluded.reason, detail = excluded.detail",
        &[
            &keys,
            &marks,
            &directories,
            &are_archives,
            &paths,
            &names,
            &column(|row| row.size),
            &column(|row| row.mtime_ms),
            &text(|row| row.kind.to_owned()),
            &text(|row| to_column(row.reason)),
            &text(|row| to_column(row.detail)),
        ],
    )?;
    Ok(())
}

fn save_conflicts(
    connection: &mut ServerConnection,
    before: &FileMarks,
    after: &FileMarks,
) -> Result<(), ServerFailure> {
    let gone: Vec<_> = before.conflicts.keys().filter(|key| !after.conflicts.contains_key(*key)).collect();
    if !gone.is_empty() {
        let kinds: Vec<&str> = gone.iter().map(|(kind, ..)| *kind).collect();
        let uids: Vec<RowKey> = gone.iter().map(|(_, uid, _)| RowKey::of_uid(uid)).collect();
        let files: Vec<RowKey> = gone.iter().map(|(.., file)| RowKey::of_file(file)).collect();
        connection.later(
            "DELETE FROM conflict WHERE (kind, uid_key, file_key) IN \
             (SELECT * FROM unnest($1::text[], $2::uuid[], $3::uuid[]))",
            &[&kinds, &uids, &files],
        )?;
    }
    let mut new: Vec<_> = after.conflicts.iter().filter(|(key, _)| !before.conflicts.contains_key(*key)).collect();
    if new.is_empty() {
        return Ok(());
    }
    new.sort_by_key(|((kind, uid, file), _)| (RowKey::of_uid(uid), RowKey::of_file(file), *kind));
    let kinds: Vec<&str> = new.iter().map(|((kind, ..), _)| *kind).collect();
    let uids: Vec<RowKey> = new.iter().map(|((_, uid, _), _)| RowKey::of_uid(uid)).collect();
    let files: Vec<RowKey> = new.iter().map(|((.., file), _)| RowKey::of_file(file)).collect();
    let places: Vec<i16> = new.iter().map(|(_, object)| place_number(object.location.place)).collect();
    let paths: Vec<&[u8]> =
        new.iter().map(|(_, object)| object.location.directory.as_os_str().as_encoded_bytes()).collect();
    let names: Vec<&[u8]> = new.iter().map(|(_, object)| object.location.file_name.as_encoded_bytes()).collect();
    let value = |id| new.iter().map(|(_, object)| to_column(object.record.value(id))).collect::<Vec<String>>();
    connection.later(
        "INSERT INTO conflict SELECT * FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::smallint[], $5::bytea[], \
         $6::bytea[], $7::text[], $8::text[], $9::text[]) ON CONFLICT DO NOTHING",
        &[
            &kinds,
            &uids,
            &files,
            &places,
            &paths,
            &names,
            &value(AttributeId::StudyInstanceUID),
            &value(AttributeId::SeriesInstanceUID),
            &value(AttributeId::SOPInstanceUID),
        ],
    )?;
    Ok(())
}
