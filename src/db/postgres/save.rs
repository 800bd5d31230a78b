//! Writes what a transaction has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio_postgres::types::Type;

use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::flight::SqlParameter;
use super::keys::{DirectoryIds, RowKey, place_number, to_column, to_i64};
use super::load::{LoadedPart, LockedStudy, flags};
use super::losses::{LostGroups, series_key};
use super::marks::{self, FileMarks};
use super::remembered::{RememberedRows, RememberedStudy};
use super::shelves::{GroupRow, key_of, record_text};
use super::studies::{self, StudyChange, StudySummary};
use crate::db::Error;
use crate::db::contents::{Contents, StoredFile};
use crate::db::rules::is_same_object;
use crate::model::attribute::AttributeId;
use crate::model::checksum::Checksum;
use crate::model::declared::DeclaredSet;

/// Rows of instances from which on they are copied. That takes a round trip more, and less for each
/// row.
const COPIED_ROWS: usize = 256;

/// Reason why a part could not be written.
pub(super) enum Unsaved {
    Failure(ServerFailure),
    /// These studies have to be locked first.
    Studies(BTreeSet<String>),
}

impl<E: Into<ServerFailure>> From<E> for Unsaved {
    fn from(error: E) -> Self {
        Self::Failure(error.into())
    }
}

/// The changes of a transaction, before they are written.
struct PartChanges<'p, 'd> {
    part: &'p LoadedPart,
    set: Arc<DeclaredSet>,
    directories: &'d DirectoryIds,
    groups: HashMap<i64, GroupRow>,
    /// Numbers of the instance groups by study and key.
    by_key: HashMap<(i64, RowKey), i64>,
    /// New instance groups by study and key. They get their numbers when they are written.
    new_groups: BTreeMap<(i64, RowKey), GroupRow>,
    /// Instance groups that have changed, or are new.
    touched: BTreeSet<i64>,
    /// Studies and series of instance groups that are gone.
    emptied: Vec<(i64, RowKey)>,
    rows: Vec<NewRow>,
    gone: Vec<RowKey>,
    /// Instances whose copies are written anew.
    recopied: Vec<RowKey>,
    copies: Vec<NewCopy>,
    unlocked: BTreeSet<String>,
}

/// The row of a first file.
struct NewRow {
    group: (i64, RowKey),
    key: RowKey,
    flags: i16,
    body: Vec<u8>,
}

struct NewCopy {
    key: RowKey,
    position: i16,
    directory: i64,
    file: StoredFile,
    record: Option<String>,
}

/// Writes the difference between a part and what became of it, with the next statement that is
/// asked. Remembers the studies as they are then.
pub(super) fn save(
    connection: &mut ServerConnection,
    part: &mut LoadedPart,
    after: &Contents,
    remembered: &mut RememberedRows,
) -> Result<(), Unsaved> {
    let groups = std::mem::take(&mut part.instances.groups);
    let (part, directories) = (&*part, &remembered.directories);
    let mut changes = PartChanges {
        part,
        set: Arc::clone(&connection.declared),
        directories,
        by_key: groups.values().map(|group| ((group.study, group.key), group.id)).collect(),
        groups,
        new_groups: BTreeMap::new(),
        touched: BTreeSet::new(),
        emptied: Vec::new(),
        rows: Vec::new(),
        gone: Vec::new(),
        recopied: Vec::new(),
        copies: Vec::new(),
        unlocked: BTreeSet::new(),
    };
    let uids: BTreeSet<&String> = part.instances.files.keys().chain(after.instances.keys()).collect();
    for uid in uids {
        changes.instance(uid, after)?;
    }
    if !changes.unlocked.is_empty() {
        return Err(Unsaved::Studies(changes.unlocked));
    }
    let studies = changes.write(connection)?;
    marks::save(connection, &part.marks, &FileMarks::of(after))?;
    part.removed.save(connection, after, directories)?;
    for (uid, study) in studies {
        remembered.keep_study(uid, study);
    }
    Ok(())
}

fn flags_of(after: &Contents, uid: &str, held: &[StoredFile]) -> i16 {
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    let is_missing = held.first().is_some_and(|first| after.missing.contains(&first.key()));
    flag(!after.is_online(held), flags::OFFLINE)
        | flag(is_missing, flags::FIRST_IS_MISSING)
        | flag(uid.contains('\\'), flags::UID_IS_SEPARATED)
}

fn is_same_file(one: &StoredFile, other: &StoredFile) -> bool {
    one.location == other.location
        && (one.checksum, one.differs) == (other.checksum, other.differs)
        && (&one.declared, one.arrival) == (&other.declared, other.arrival)
        && is_same_object(&one.record, &other.record)
        && one.record.declares_as(&other.record)
}

impl<'p> PartChanges<'p, '_> {
    fn instance(&mut self, uid: &str, after: &Contents) -> Result<(), ServerFailure> {
        let before = self.part.instances.files.get(uid).map(Vec::as_slice).unwrap_or_default();
        let held = after.instances.get(uid).map(Vec::as_slice).unwrap_or_default();
        let row = self.part.instances.rows.get(uid).copied();
        let flags = flags_of(after, uid, held);
        let is_same = before.len() == held.len()
            && before.iter().zip(held).all(|(one, other)| is_same_file(one, other))
            && row.is_some_and(|row| row.flags == flags);
        if is_same {
            return Ok(());
        }
        let key = RowKey::of_uid(uid);
        if let Some(row) = row {
            let group = self.groups.get_mut(&row.group).ok_or(ServerFailure::Again)?;
            group.instances -= 1;
            group.offline -= i64::from(row.flags & flags::OFFLINE != 0);
            self.touched.insert(row.group);
            self.gone.push(key);
            // The instance group of a row may be of a study that is not locked.
            let study = group.record.value(AttributeId::StudyInstanceUID);
            if !self.part.studies.contains_key(study) {
                self.unlocked.insert(study.to_owned());
            }
        }
        if before.len() > 1 {
            self.recopied.push(key);
        }
        let Some((first, copies)) = held.split_first() else { return Ok(()) };
        self.first(key, first, flags)?;
        for (position, copy) in (0..).zip(copies) {
            let is_as_first = is_same_object(&copy.record, &first.record) && copy.record.declares_as(&first.record);
            let record = (!is_as_first).then(|| record_text(&copy.record));
            let mut file = copy.clone();
            if !is_as_first {
                // Its declared values are not kept. It is read again when it becomes the first one.
                file.declared.clear();
            }
            let directory = self.directory(copy)?;
            self.copies.push(NewCopy { key, position, directory, file, record });
        }
        Ok(())
    }

    fn directory(&self, file: &StoredFile) -> Result<i64, ServerFailure> {
        let key = (place_number(file.location.place), file.location.directory.clone());
        let missing = || Error::Statement("a directory of a file has no row".into()).into();
        self.directories.get(&key).copied().ok_or_else(missing)
    }

    fn first(&mut self, key: RowKey, first: &StoredFile, flags: i16) -> Result<(), ServerFailure> {
        let study = first.record.value(AttributeId::StudyInstanceUID);
        let Some(&LockedStudy { id: study, .. }) = self.part.studies.get(study) else {
            self.unlocked.insert(study.to_owned());
            return Ok(());
        };
        let directory = self.directory(first)?;
        let group_key = key_of(first, directory, &self.set);
        let known = self.by_key.get(&(study, group_key));
        let group = match known.and_then(|id| self.groups.get_mut(id)) {
            Some(group) => {
                self.touched.insert(group.id);
                group
            }
            None => self
                .new_groups
                .entry((study, group_key))
                .or_insert_with(|| GroupRow::for_file(first, study, directory, &self.set)),
        };
        group.instances += 1;
        group.offline += i64::from(flags & flags::OFFLINE != 0);
        let body = group.body(first).pack(group.base());
        self.rows.push(NewRow { group: (study, group_key), key, flags, body });
        Ok(())
    }

    /// Writes the rows. Returns the studies as they are then.
    fn write(mut self, connection: &mut ServerConnection) -> Result<Vec<(&'p String, RememberedStudy)>, ServerFailure> {
        let changed = self.write_groups(connection)?;
        if !self.gone.is_empty() {
            connection.later("DELETE FROM instance WHERE uid_key = ANY($1)", &[&self.gone])?;
        }
        if !self.recopied.is_empty() {
            connection.later("DELETE FROM copy WHERE uid_key = ANY($1)", &[&self.recopied])?;
        }
        self.write_rows(connection)?;
        write_copies(connection, &mut self.copies)?;
        self.write_studies(connection, &changed)
    }

    /// Writes the instance groups. Returns the studies that have gained or lost some.
    fn write_groups(&mut self, connection: &mut ServerConnection) -> Result<BTreeSet<i64>, ServerFailure> {
        let mut changed: BTreeSet<i64> = self.new_groups.keys().map(|(study, _)| *study).collect();
        let touched: Vec<&GroupRow> = self.touched.iter().filter_map(|id| self.groups.get(id)).collect();
        let (empty, kept): (Vec<&GroupRow>, Vec<&GroupRow>) =
            touched.into_iter().partition(|group| group.instances <= 0);
        if !kept.is_empty() {
            let number = |of: fn(&GroupRow) -> i64| kept.iter().map(|group| of(group)).collect::<Vec<i64>>();
            connection.later(
                "UPDATE shelf SET instance_count = u.instances, offline_count = u.offline, change = c.number, \
                 changed_ms = c.now_ms, change_block = c.number - c.number % 4096 FROM change_number c, \
                 unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS u(id, instances, offline) WHERE shelf.id = u.id",
                &[&number(|group| group.id), &number(|group| group.instances), &number(|group| group.offline)],
            )?;
        }
        if !empty.is_empty() {
            changed.extend(empty.iter().map(|group| group.study));
            self.emptied = empty.iter().map(|group| (group.study, series_key(group))).collect();
            let ids: Vec<i64> = empty.iter().map(|group| group.id).collect();
            connection.later("DELETE FROM shelf WHERE id = ANY($1)", &[&ids])?;
            for id in ids {
                self.groups.remove(&id);
            }
        }
        for group in insert_groups(connection, std::mem::take(&mut self.new_groups))? {
            self.by_key.insert((group.study, group.key), group.id);
            self.touched.insert(group.id);
            self.groups.insert(group.id, group);
        }
        Ok(changed)
    }

    fn write_rows(&mut self, connection: &mut ServerConnection) -> Result<(), ServerFailure> {
        if self.rows.is_empty() {
            return Ok(());
        }
        // One order of rows for all writers.
        self.rows.sort_by_key(|row| row.key);
        let ids = self.rows.iter().map(|row| self.by_key.get(&row.group).copied().ok_or(ServerFailure::Again));
        let groups: Vec<i64> = ids.collect::<Result<_, _>>()?;
        if groups.len() >= COPIED_ROWS {
            let rows = groups.iter().zip(&self.rows);
            let rows: Vec<[SqlParameter<'_>; 4]> =
                rows.map(|(group, row)| [group as SqlParameter<'_>, &row.key, &row.flags, &row.body]).collect();
            let sql = "COPY instance (shelf, uid_key, flags, body) FROM STDIN (FORMAT binary)";
            return connection.copy_rows(sql, &[Type::INT8, Type::UUID, Type::INT2, Type::BYTEA], &rows);
        }
        let keys: Vec<RowKey> = self.rows.iter().map(|row| row.key).collect();
        let flags: Vec<i16> = self.rows.iter().map(|row| row.flags).collect();
        let bodies: Vec<&[u8]> = self.rows.iter().map(|row| row.body.as_slice()).collect();
        connection.later(
            "INSERT INTO instance SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::smallint[], $4::bytea[])",
            &[&groups, &keys, &flags, &bodies],
        )?;
        Ok(())
    }

    fn write_studies(
        self,
        connection: &mut ServerConnection,
        changed: &BTreeSet<i64>,
    ) -> Result<Vec<(&'p String, RememberedStudy)>, ServerFailure> {
        let mut of_studies: HashMap<i64, Vec<GroupRow>> = HashMap::new();
        for group in self.groups.into_values() {
            of_studies.entry(group.study).or_default().push(group);
        }
        LostGroups::of(&self.emptied, &of_studies, &self.touched).write(connection)?;
        let (mut changes, mut empty, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for (uid, &LockedStudy { id, mut revision }) in &self.part.studies {
            let Some(groups) = of_studies.remove(&id) else {
                empty.push(id);
                continue;
            };
            let is_touched = groups.iter().any(|group| self.touched.contains(&group.id));
            if is_touched || changed.contains(&id) {
                revision += 1;
                changes.push(StudyChange {
                    id,
                    instances: groups.iter().map(|group| group.instances).sum(),
                    offline: groups.iter().map(|group| group.offline).sum(),
                    summary: changed
                        .contains(&id)
                        .then(|| StudySummary::of(uid, groups.iter(), &connection.corrections)),
                });
            }
            left.push((uid, RememberedStudy { id, revision, groups }));
        }
        studies::save(connection, &changes)?;
        studies::drop_empty(connection, &empty)?;
        Ok(left)
    }
}

fn insert_groups(
    connection: &mut ServerConnection,
    new: BTreeMap<(i64, RowKey), GroupRow>,
) -> Result<Vec<GroupRow>, ServerFailure> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let ids = connection.new_group_ids(new.len())?;
    let new: Vec<GroupRow> = new.into_values().zip(ids).map(|(group, id)| GroupRow { id, ..group }).collect();
    let number = |of: fn(&GroupRow) -> i64| new.iter().map(of).collect::<Vec<i64>>();
    let text = |of: fn(&GroupRow) -> String| new.iter().map(of).collect::<Vec<String>>();
    let key = |of: fn(&GroupRow) -> RowKey| new.iter().map(of).collect::<Vec<RowKey>>();
    connection.later(
        "INSERT INTO shelf (id, study, shelf_key, series_key, directory, size_base, mtime_base, instance_count, \
         offline_count, uid_prefix, declared, sop_class_uid, transfer_syntax_uid, said, arrival, \
         change, changed_ms, change_block) OVERRIDING SYSTEM VALUE \
         SELECT u.*, c.number, c.now_ms, c.number - c.number % 4096 FROM change_number c, unnest($1::bigint[], \
         $2::bigint[], $3::uuid[], $4::uuid[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], \
         $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[]) u",
        &[
            &number(|group| group.id),
            &number(|group| group.study),
            &key(|group| group.key),
            &key(series_key),
            &number(|group| group.directory),
            &number(|group| group.size_base),
            &number(|group| group.mtime_base),
            &number(|group| group.instances),
            &number(|group| group.offline),
            &text(|group| to_column(&group.uid_prefix)),
            &text(|group| group.declared.clone()),
            &text(|group| to_column(group.record.value(AttributeId::SOPClassUID))),
            &text(|group| to_column(group.record.value(AttributeId::AvailableTransferSyntaxUID))),
            &text(GroupRow::said),
            &number(|group| group.arrival),
        ],
    )?;
    Ok(new)
}

fn write_copies(connection: &mut ServerConnection, copies: &mut [NewCopy]) -> Result<(), ServerFailure> {
    if copies.is_empty() {
        return Ok(());
    }
    copies.sort_by_key(|copy| (copy.key, copy.position));
    let keys: Vec<RowKey> = copies.iter().map(|copy| copy.key).collect();
    let positions: Vec<i16> = copies.iter().map(|copy| copy.position).collect();
    let directories: Vec<i64> = copies.iter().map(|copy| copy.directory).collect();
    let names: Vec<&[u8]> = copies.iter().map(|copy| copy.file.location.file_name.as_encoded_bytes()).collect();
    let sizes: Vec<i64> = copies.iter().map(|copy| to_i64(copy.file.location.size)).collect();
    let times: Vec<i64> = copies.iter().map(|copy| copy.file.location.mtime_ms).collect();
    let checksums: Vec<Option<Vec<u8>>> =
        copies.iter().map(|copy| copy.file.checksum.map(Checksum::to_bytes).map(Vec::from)).collect();
    let differ: Vec<bool> = copies.iter().map(|copy| copy.file.differs).collect();
    let declared: Vec<&str> = copies.iter().map(|copy| copy.file.declared.as_str()).collect();
    let records: Vec<Option<&str>> = copies.iter().map(|copy| copy.record.as_deref()).collect();
    connection.later(
        "INSERT INTO copy SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::bigint[], $4::bytea[], $5::bigint[], \
         $6::bigint[], $7::bytea[], $8::boolean[], $9::text[], $10::text[])",
        &[&keys, &positions, &directories, &names, &sizes, &times, &checksums, &differ, &declared, &records],
    )?;
    Ok(())
}
