//! Writes what a transaction has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::keys::{DirectoryIds, RowKey, place_number, to_column, to_i64};
use super::load::{LoadedPart, flags};
use super::marks::{self, FileMarks};
use super::shelves::{Shelf, key_of, record_text};
use super::studies::{self, StudyChange, StudySummary};
use crate::db::Error;
use crate::db::contents::{Contents, StoredFile};
use crate::db::rules::is_same_object;
use crate::model::attribute::AttributeId;
use crate::model::checksum::Checksum;
use crate::model::declared::DeclaredSet;

/// Why a part could not be written.
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
struct PartChanges<'p> {
    part: &'p LoadedPart,
    set: Arc<DeclaredSet>,
    directories: &'p DirectoryIds,
    shelves: HashMap<i64, Shelf>,
    /// Numbers of the shelves by study and key.
    by_key: HashMap<(i64, RowKey), i64>,
    /// New shelves by study and key. They get their numbers when they are written.
    new_shelves: BTreeMap<(i64, RowKey), Shelf>,
    touched: BTreeSet<i64>,
    rows: Vec<NewRow>,
    gone: Vec<RowKey>,
    /// Instances whose copies are written anew.
    recopied: Vec<RowKey>,
    copies: Vec<NewCopy>,
    unlocked: BTreeSet<String>,
}

/// The row of a first file.
struct NewRow {
    shelf: (i64, RowKey),
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

/// Writes the difference between a part and what became of it.
pub(super) fn save(
    connection: &mut ServerConnection,
    part: &LoadedPart,
    after: &Contents,
    directories: &DirectoryIds,
) -> Result<(), Unsaved> {
    let mut changes = PartChanges {
        part,
        set: Arc::clone(&connection.declared),
        directories,
        by_key: part.instances.shelves.values().map(|shelf| ((shelf.study, shelf.key), shelf.id)).collect(),
        shelves: part.instances.shelves.clone(),
        new_shelves: BTreeMap::new(),
        touched: BTreeSet::new(),
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
    changes.write(connection)?;
    marks::save(connection, &part.marks, &FileMarks::of(after))?;
    part.removed.save(connection, after, directories)?;
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

impl PartChanges<'_> {
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
            let shelf = self.shelves.get_mut(&row.shelf).ok_or(ServerFailure::Again)?;
            shelf.instances -= 1;
            shelf.offline -= i64::from(row.flags & flags::OFFLINE != 0);
            self.touched.insert(row.shelf);
            self.gone.push(key);
            // The shelf of a row may be of a study that is not locked.
            let study = shelf.record.value(AttributeId::StudyInstanceUID);
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
        let Some(&study) = self.part.studies.get(study) else {
            self.unlocked.insert(study.to_owned());
            return Ok(());
        };
        let directory = self.directory(first)?;
        let shelf_key = key_of(first, directory, &self.set);
        let known = self.by_key.get(&(study, shelf_key));
        let shelf = match known.and_then(|id| self.shelves.get_mut(id)) {
            Some(shelf) => {
                self.touched.insert(shelf.id);
                shelf
            }
            None => self
                .new_shelves
                .entry((study, shelf_key))
                .or_insert_with(|| Shelf::for_file(first, study, directory, &self.set)),
        };
        shelf.instances += 1;
        shelf.offline += i64::from(flags & flags::OFFLINE != 0);
        let body = shelf.body(first).pack(shelf.base());
        self.rows.push(NewRow { shelf: (study, shelf_key), key, flags, body });
        Ok(())
    }

    fn write(mut self, connection: &mut ServerConnection) -> Result<(), ServerFailure> {
        let changed = self.write_shelves(connection)?;
        if !self.gone.is_empty() {
            connection.execute("DELETE FROM instance WHERE uid_key = ANY($1)", &[&self.gone])?;
        }
        if !self.recopied.is_empty() {
            connection.execute("DELETE FROM copy WHERE uid_key = ANY($1)", &[&self.recopied])?;
        }
        self.write_rows(connection)?;
        write_copies(connection, &mut self.copies)?;
        self.write_studies(connection, &changed)
    }

    /// Writes the shelves. Returns the studies that have gained or lost some.
    fn write_shelves(&mut self, connection: &mut ServerConnection) -> Result<BTreeSet<i64>, ServerFailure> {
        let mut changed: BTreeSet<i64> = self.new_shelves.keys().map(|(study, _)| *study).collect();
        let touched: Vec<&Shelf> = self.touched.iter().filter_map(|id| self.shelves.get(id)).collect();
        let (empty, kept): (Vec<&Shelf>, Vec<&Shelf>) = touched.into_iter().partition(|shelf| shelf.instances <= 0);
        if !kept.is_empty() {
            let number = |of: fn(&Shelf) -> i64| kept.iter().map(|shelf| of(shelf)).collect::<Vec<i64>>();
            connection.execute(
                "UPDATE shelf SET instance_count = u.instances, offline_count = u.offline, change = c.number, \
                 changed_ms = c.now_ms, change_block = c.number - c.number % 4096 FROM change_number c, \
                 unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS u(id, instances, offline) WHERE shelf.id = u.id",
                &[&number(|shelf| shelf.id), &number(|shelf| shelf.instances), &number(|shelf| shelf.offline)],
            )?;
        }
        if !empty.is_empty() {
            changed.extend(empty.iter().map(|shelf| shelf.study));
            let ids: Vec<i64> = empty.iter().map(|shelf| shelf.id).collect();
            connection.execute("DELETE FROM shelf WHERE id = ANY($1)", &[&ids])?;
            for id in ids {
                self.shelves.remove(&id);
            }
        }
        for shelf in insert_shelves(connection, std::mem::take(&mut self.new_shelves))? {
            self.by_key.insert((shelf.study, shelf.key), shelf.id);
            self.shelves.insert(shelf.id, shelf);
        }
        Ok(changed)
    }

    fn write_rows(&mut self, connection: &mut ServerConnection) -> Result<(), ServerFailure> {
        if self.rows.is_empty() {
            return Ok(());
        }
        // One order of rows for all writers.
        self.rows.sort_by_key(|row| row.key);
        let ids = self.rows.iter().map(|row| self.by_key.get(&row.shelf).copied().ok_or(ServerFailure::Again));
        let shelves: Vec<i64> = ids.collect::<Result<_, _>>()?;
        let keys: Vec<RowKey> = self.rows.iter().map(|row| row.key).collect();
        let flags: Vec<i16> = self.rows.iter().map(|row| row.flags).collect();
        let bodies: Vec<&[u8]> = self.rows.iter().map(|row| row.body.as_slice()).collect();
        connection.execute(
            "INSERT INTO instance SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::smallint[], $4::bytea[])",
            &[&shelves, &keys, &flags, &bodies],
        )?;
        Ok(())
    }

    fn write_studies(&self, connection: &mut ServerConnection, changed: &BTreeSet<i64>) -> Result<(), ServerFailure> {
        let mut of_studies: HashMap<i64, Vec<&Shelf>> = HashMap::new();
        for shelf in self.shelves.values() {
            of_studies.entry(shelf.study).or_default().push(shelf);
        }
        let (mut changes, mut empty) = (Vec::new(), Vec::new());
        for (uid, &id) in &self.part.studies {
            let Some(shelves) = of_studies.get(&id) else {
                empty.push(id);
                continue;
            };
            let is_touched = shelves.iter().any(|shelf| self.touched.contains(&shelf.id));
            if is_touched || changed.contains(&id) {
                changes.push(StudyChange {
                    id,
                    instances: shelves.iter().map(|shelf| shelf.instances).sum(),
                    offline: shelves.iter().map(|shelf| shelf.offline).sum(),
                    summary: changed
                        .contains(&id)
                        .then(|| StudySummary::of(uid, shelves.iter().copied(), &connection.corrections)),
                });
            }
        }
        studies::save(connection, &changes)?;
        studies::drop_empty(connection, &empty)
    }
}

fn insert_shelves(
    connection: &mut ServerConnection,
    new: BTreeMap<(i64, RowKey), Shelf>,
) -> Result<Vec<Shelf>, ServerFailure> {
    let new: Vec<Shelf> = new.into_values().collect();
    if new.is_empty() {
        return Ok(new);
    }
    let number = |of: fn(&Shelf) -> i64| new.iter().map(of).collect::<Vec<i64>>();
    let text = |of: fn(&Shelf) -> String| new.iter().map(of).collect::<Vec<String>>();
    let key = |of: fn(&Shelf) -> RowKey| new.iter().map(of).collect::<Vec<RowKey>>();
    let rows = connection.query(
        "INSERT INTO shelf (study, shelf_key, series_key, directory, size_base, mtime_base, instance_count, \
         offline_count, uid_prefix, declared, sop_class_uid, transfer_syntax_uid, said, arrival, change, changed_ms, change_block) \
         SELECT u.*, c.number, c.now_ms, c.number - c.number % 4096 FROM change_number c, unnest($1::bigint[], $2::uuid[], \
         $3::uuid[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::text[], $10::text[], \
         $11::text[], $12::text[], $13::text[], $14::bigint[]) u RETURNING id, study, shelf_key",
        &[
            &number(|shelf| shelf.study),
            &key(|shelf| shelf.key),
            &key(|shelf| RowKey::of_uid(shelf.record.value(AttributeId::SeriesInstanceUID))),
            &number(|shelf| shelf.directory),
            &number(|shelf| shelf.size_base),
            &number(|shelf| shelf.mtime_base),
            &number(|shelf| shelf.instances),
            &number(|shelf| shelf.offline),
            &text(|shelf| to_column(&shelf.uid_prefix)),
            &text(|shelf| shelf.declared.clone()),
            &text(|shelf| to_column(shelf.record.value(AttributeId::SOPClassUID))),
            &text(|shelf| to_column(shelf.record.value(AttributeId::AvailableTransferSyntaxUID))),
            &text(Shelf::said),
            &number(|shelf| shelf.arrival),
        ],
    )?;
    let mut ids = HashMap::new();
    for row in rows {
        ids.insert((row.try_get::<_, i64>(1)?, row.try_get::<_, RowKey>(2)?), row.try_get::<_, i64>(0)?);
    }
    let numbered = new.into_iter().map(|shelf| {
        let id = ids.get(&(shelf.study, shelf.key)).copied().ok_or(ServerFailure::Again)?;
        Ok(Shelf { id, ..shelf })
    });
    numbered.collect()
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
    connection.execute(
        "INSERT INTO copy SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::bigint[], $4::bytea[], $5::bigint[], \
         $6::bigint[], $7::bytea[], $8::boolean[], $9::text[], $10::text[])",
        &[&keys, &positions, &directories, &names, &sizes, &times, &checksums, &differ, &declared, &records],
    )?;
    Ok(())
}
