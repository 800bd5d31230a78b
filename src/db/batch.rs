//! One transaction of the writer: records become rows, counters stay exact.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::OnceLock;

use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, Statement, params, params_from_iter};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::packing::{Naming, Packed, UidSuffix, pack_number, pack_time, uid_hash};
use super::schema::{has_own_column, is_packed_time, shared_columns};
use super::{
    Compared, DuplicatePolicy, Error, FileOutcome, PathValue, ScannedDirectory, ScannedFile, StoreOutcome, Tally,
    path_from_sql,
};
use crate::model::attribute::{ATTRIBUTE_COUNT, ATTRIBUTES, AttributeId};
use crate::model::clock::Clock;
use crate::model::level::QueryRetrieveLevel;
use crate::model::location::{Location, Place};
use crate::model::person_name;
use crate::model::record::InstanceRecord;
use crate::model::uid::is_valid_uid;

/// Series, shelves and directories that are remembered between transactions; a cache that grows past this starts anew.
/// A shelf with its values takes some 2 KB. Scans go from series to series, and associations are fewer than this.
const CACHE_ENTRIES: usize = 1024;

/// Faults of one file that are kept, in characters.
const MAX_FAULT_TEXT: usize = 1000;

type Result<T> = rusqlite::Result<T>;

/// The writer's state: caches that live on between transactions, and what the current one has changed.
pub(super) struct Batch<'c> {
    connection: &'c Connection,
    hot: Hot<'c>,
    lookups: Lookups,
    clock: Clock,
    data_version: i64,
    series: HashMap<u128, SeriesEntry>,
    shelves: HashMap<ShelfKey, Rc<Shelf>>,
    shelves_by_id: HashMap<i64, Rc<Shelf>>,
    directories: HashMap<PathBuf, i64>,
    scratch: String,
    changes: Changes,
}

/// The statements that run for each instance, held ready: looking them up by their text took as long as running them.
struct Hot<'c> {
    shelves_of_hash: Statement<'c>,
    instance: Statement<'c>,
    insert_instance: Statement<'c>,
    insert_lookup: Statement<'c>,
}

impl<'c> Hot<'c> {
    fn new(connection: &'c Connection) -> Result<Self> {
        Ok(Self {
            shelves_of_hash: connection.prepare(
                "SELECT shelf FROM uid_lookup WHERE hash = ?1 UNION ALL SELECT shelf FROM uid_lookup_recent WHERE hash = ?1",
            )?,
            instance: connection.prepare(
                "SELECT size, file_name, instance_number, diff FROM instance WHERE shelf = ?1 AND uid_suffix = ?2",
            )?,
            insert_instance: connection.prepare(
                "INSERT INTO instance (shelf, uid_suffix, instance_number, size, mtime, file_name, acquisition_number, \
                 acquisition_time, content_time, instance_creation_time, diff) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?,
            insert_lookup: connection.prepare("INSERT OR IGNORE INTO uid_lookup_recent (hash, shelf) VALUES (?1, ?2)")?,
        })
    }
}

/// How the look-ups are spread over their two tables. Hashes come in random order: put straight into a table of the size of
/// the archive, each would dirty a page of its own, some 2,700 pages for a transaction of 4,096 rows at 1.6 million
/// instances; with a small table in front it is some 300 (docs/adr/0009).
struct Lookups {
    /// In both tables, more or less: another process may have added some.
    all: i64,
    /// In the small one.
    recent: i64,
    /// Where the next range to move begins.
    next_hash: i64,
}

impl Lookups {
    fn read(connection: &Connection) -> Result<Self> {
        Ok(Self {
            all: connection.query_row("SELECT ifnull(sum(instance_count), 0) FROM study", [], |row| row.get(0))?,
            recent: connection.query_row("SELECT count(*) FROM uid_lookup_recent", [], |row| row.get(0))?,
            next_hash: i64::from(i32::MIN),
        })
    }

    /// The size of the small table from which it is emptied. A transaction dirties about as many of its pages as it has, and
    /// as many of the large one as lie in the range moved: the sum is least where this grows with the root of the whole.
    fn most_recent(&self) -> i64 {
        const PER_ROOT: i64 = 64;
        const LEAST: i64 = 65_536;
        (self.all.max(0).isqrt() * PER_ROOT).max(LEAST)
    }
}

/// What the transaction has changed and has yet to write: the counters, and the rows of `uid_lookup`, which go in sorted.
#[derive(Default)]
struct Changes {
    tally: Tally,
    instances_per_shelf: HashMap<i64, i64>,
    instances_per_series: HashMap<i64, i64>,
    instances_per_study: HashMap<i64, i64>,
    series_per_study: HashMap<i64, i64>,
    /// Studies whose ModalitiesInStudy and SOPClassesInStudy have to be worked out again.
    studies_to_summarise: HashSet<i64>,
    /// Shelves that may have become empty, with their series and study.
    shrunk: HashSet<(i64, i64, i64)>,
    patients_left: HashSet<i64>,
    lookups: Vec<(i32, i64)>,
    lookup_hashes: HashMap<i32, i64>,
}

impl Changes {
    fn note_lookup(&mut self, hash: i32, shelf: i64) {
        self.lookups.push((hash, shelf));
        self.lookup_hashes.entry(hash).or_insert(shelf);
    }
}

struct SeriesEntry {
    series: i64,
    study: i64,
    /// Hashes of what records said of patient, study and series that their rows take account of.
    merged: Vec<u64>,
}

/// Different sets of values in one series whose hashes are remembered. Real series have one, or a few.
const REMEMBERED_SETS: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct ShelfKey {
    series: i64,
    directory: i64,
    class_and_syntax: u64,
}

struct Shelf {
    id: i64,
    series: i64,
    directory: i64,
    uid_prefix: String,
    naming: Naming,
    mtime_base: i64,
    /// The values of [`shared`], in its order.
    shared: Vec<String>,
}

/// A file that holds an instance, and where.
struct File<'a> {
    place: Place,
    directory: i64,
    name: &'a OsStr,
    size: u64,
    mtime_ms: i64,
}

/// An instance row that exists.
struct Existing {
    shelf: Rc<Shelf>,
    suffix: UidSuffix,
    size: i64,
    file_name: OsString,
    number: String,
    diff: Option<String>,
}

impl Existing {
    /// Whether this file is its first location.
    fn lies_at(&self, directory: i64, name: &OsStr) -> bool {
        self.shelf.directory == directory && self.file_name == name
    }
}

/// Which instances lie in a directory, read when that is first asked.
struct DirectoryRows {
    directory: i64,
    /// File name to SOP Instance UID.
    instances: Option<HashMap<OsString, String>>,
}

impl DirectoryRows {
    const fn new(directory: i64) -> Self {
        Self { directory, instances: None }
    }
}

fn shared() -> &'static [AttributeId] {
    static SHARED: OnceLock<Vec<AttributeId>> = OnceLock::new();
    SHARED.get_or_init(|| shared_columns().collect())
}

fn stored_at(level: QueryRetrieveLevel) -> &'static [AttributeId] {
    static STORED: OnceLock<[Vec<AttributeId>; 4]> = OnceLock::new();
    let by_level = STORED.get_or_init(|| {
        QueryRetrieveLevel::ALL
            .map(|level| ATTRIBUTES.iter().filter(|a| a.level == level && a.is_stored()).map(|a| a.id).collect())
    });
    &by_level[level as usize]
}

/// The attributes of patient, study and series that are kept.
fn stored_above() -> &'static [AttributeId] {
    static STORED: OnceLock<Vec<AttributeId>> = OnceLock::new();
    STORED.get_or_init(|| {
        let upper = [QueryRetrieveLevel::Patient, QueryRetrieveLevel::Study, QueryRetrieveLevel::Series];
        upper.into_iter().flat_map(|level| stored_at(level).iter().copied()).collect()
    })
}

const fn table_of(level: QueryRetrieveLevel) -> &'static str {
    match level {
        QueryRetrieveLevel::Patient => "patient",
        QueryRetrieveLevel::Study => "study",
        QueryRetrieveLevel::Series => "study_series",
        QueryRetrieveLevel::Image => "shelf",
    }
}

impl<'c> Batch<'c> {
    pub(super) fn new(connection: &'c Connection, clock: Clock) -> std::result::Result<Self, Error> {
        Ok(Self {
            connection,
            hot: Hot::new(connection).map_err(Error::from_sqlite)?,
            lookups: Lookups::read(connection).map_err(Error::from_sqlite)?,
            clock,
            data_version: -1,
            series: HashMap::new(),
            shelves: HashMap::new(),
            shelves_by_id: HashMap::new(),
            directories: HashMap::new(),
            scratch: String::new(),
            changes: Changes::default(),
        })
    }

    /// Runs `work` in one transaction and commits it; on any error nothing of it remains.
    pub(super) fn run<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> std::result::Result<T, Error> {
        let result = self.transaction(work);
        if result.is_err() {
            // The first error matters; a rollback fails only where SQLite has rolled back by itself.
            let _already = self.connection.execute_batch("ROLLBACK");
            self.forget();
            self.changes = Changes::default();
            if let Ok(lookups) = Lookups::read(self.connection) {
                self.lookups = lookups;
            }
        }
        result.map_err(Error::from_sqlite)
    }

    fn transaction<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        // Immediate: wait for another process now, not in the middle.
        self.statement("BEGIN IMMEDIATE")?.execute([])?;
        let version: i64 = self.statement("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if version != self.data_version || self.cache_is_large() {
            self.forget();
            self.data_version = version;
        }
        let value = work(self)?;
        self.write_changes()?;
        self.statement("COMMIT")?.execute([])?;
        Ok(value)
    }

    /// What the transactions since the last call have changed.
    pub(super) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.changes.tally)
    }

    fn cache_is_large(&self) -> bool {
        self.series.len() > CACHE_ENTRIES
            || self.shelves_by_id.len() > CACHE_ENTRIES
            || self.directories.len() > CACHE_ENTRIES
    }

    fn forget(&mut self) {
        self.series.clear();
        self.shelves.clear();
        self.shelves_by_id.clear();
        self.directories.clear();
    }

    fn statement(&self, sql: &str) -> Result<CachedStatement<'c>> {
        self.connection.prepare_cached(sql)
    }

    pub(super) fn begin_scan(&mut self, roots: &str) -> Result<i64> {
        self.statement("INSERT INTO scan (started_ms, roots) VALUES (?1, ?2)")?
            .execute(params![self.clock.now_ms(), roots])?;
        Ok(self.connection.last_insert_rowid())
    }

    pub(super) fn end_scan(&mut self, scan: i64, summary: &str) -> Result<()> {
        self.statement("UPDATE scan SET finished_ms = ?2, summary = ?3 WHERE id = ?1")?.execute(params![
            scan,
            self.clock.now_ms(),
            summary
        ])?;
        Ok(())
    }

    /// Takes what a scan found in a directory.
    pub(super) fn scanned(&mut self, scanned: &ScannedDirectory) -> Result<()> {
        let directory = self.directory(Place::InPlace, &scanned.directory)?;
        let mut rows = DirectoryRows::new(directory);
        for name in &scanned.vanished {
            self.remove_file(name, &mut rows)?;
            self.changes.tally.removed += 1;
        }
        // In the order of the instance rows: each goes to the end of the table, pages fill up, and no page is touched twice.
        let mut files: Vec<&ScannedFile> = scanned.files.iter().collect();
        files.sort_by_cached_key(|file| match &file.outcome {
            FileOutcome::Instance(record) => Some((
                record.value(AttributeId::SeriesInstanceUID),
                match UidSuffix::pack(record.value(AttributeId::SOPInstanceUID), "") {
                    UidSuffix::Packed(packed) => packed,
                    UidSuffix::Text(text) => text.into_bytes(),
                },
            )),
            FileOutcome::NotIndexed { .. } => None,
        });
        for (at, scanned_file) in files.iter().enumerate() {
            let file = File {
                place: Place::InPlace,
                directory,
                name: &scanned_file.file_name,
                size: scanned_file.size,
                mtime_ms: scanned_file.mtime_ms,
            };
            match &scanned_file.outcome {
                FileOutcome::Instance(record) => {
                    if scanned_file.known {
                        // Mostly it is the same instance as before. That is one look-up; which instance a file was, in a
                        // directory of 100,000, is as many.
                        let same = self
                            .find_instance(record.value(AttributeId::SOPInstanceUID))?
                            .is_some_and(|existing| existing.lies_at(directory, file.name));
                        if !same {
                            self.remove_file(file.name, &mut rows)?;
                        }
                        self.forget_marks(&file)?;
                    }
                    let following = files.get(at + 1..).unwrap_or_default();
                    self.scanned_instance(record, &file, scanned_file.known, following, scanned.complete)?;
                    if !record.faults().is_empty() {
                        self.note_faults(record, &file)?;
                    }
                }
                FileOutcome::NotIndexed { kind, reason, detail } => {
                    if scanned_file.known {
                        self.remove_file(file.name, &mut rows)?;
                    }
                    self.statement(
                        "INSERT OR REPLACE INTO unindexed_file (directory, file_name, size, mtime_ms, kind, reason, detail) \
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    )?
                    .execute(params![
                        directory,
                        PathValue(file.name),
                        to_i64(file.size),
                        file.mtime_ms,
                        kind.as_str(),
                        reason,
                        detail
                    ])?;
                }
            }
        }
        Ok(())
    }

    fn scanned_instance(
        &mut self,
        record: &InstanceRecord,
        file: &File<'_>,
        known: bool,
        following: &[&ScannedFile],
        complete: bool,
    ) -> Result<()> {
        let uid = record.value(AttributeId::SOPInstanceUID);
        let Some(existing) = self.find_instance(uid)? else {
            let values = if known { Values::Overwrite } else { Values::MostComplete };
            self.insert_instance(record, file, values, following, complete)?;
            if known {
                self.changes.tally.updated += 1;
            } else {
                self.changes.tally.indexed += 1;
            }
            return Ok(());
        };
        if existing.lies_at(file.directory, file.name) {
            self.replace_instance(&existing, record, file, Values::Overwrite)?;
            self.changes.tally.updated += 1;
        } else if self.place_of(existing.shelf.directory)? == Place::MetadataOnly {
            // Known so far without its object: this is where it lies.
            self.replace_instance(&existing, record, file, Values::MostComplete)?;
            self.changes.tally.copies += 1;
        } else {
            let differs = self.differs(&existing, record, file)?;
            self.statement(
                "INSERT OR REPLACE INTO copy (directory, file_name, shelf, uid_suffix, size, mtime_ms, differs) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                file.directory,
                PathValue(file.name),
                existing.shelf.id,
                existing.suffix,
                to_i64(file.size),
                file.mtime_ms,
                differs
            ])?;
            if differs {
                self.note_conflict("instance-with-other-content", record, file)?;
            }
            self.changes.tally.copies += 1;
        }
        Ok(())
    }

    /// Takes an instance that was received. With [`super::Stored::first`].
    pub(super) fn arrived(
        &mut self,
        record: &InstanceRecord,
        location: &Location,
        policy: DuplicatePolicy,
        compared: Compared,
    ) -> Result<(StoreOutcome, Option<PathBuf>)> {
        let directory = self.directory(location.place, &location.directory)?;
        let file = File {
            place: location.place,
            directory,
            name: &location.file_name,
            size: location.size,
            mtime_ms: location.mtime_ms,
        };
        let Some(existing) = self.find_instance(record.value(AttributeId::SOPInstanceUID))? else {
            self.insert_instance(record, &file, Values::MostComplete, &[], false)?;
            if !record.faults().is_empty() {
                self.note_faults(record, &file)?;
            }
            return Ok((StoreOutcome::New, None));
        };
        let existing_place = self.place_of(existing.shelf.directory)?;
        let same_path = existing.lies_at(directory, file.name);
        let object_was_missing = match file.place {
            Place::MetadataOnly => false,
            Place::InPlace => existing_place == Place::MetadataOnly,
            // Where its object should have been, there was none. One in our own directory was not there to be missed: it
            // came at the same time.
            Place::Managed => {
                existing_place == Place::MetadataOnly
                    || (same_path && compared == Compared::Nothing)
                    || (existing.shelf.directory != directory && compared == Compared::FirstIsGone)
            }
        };
        if object_was_missing {
            self.replace_instance(&existing, record, &file, Values::MostComplete)?;
            return Ok((StoreOutcome::Completed, None));
        }
        let first = match (file.place, existing_place) {
            (Place::Managed, Place::InPlace | Place::Managed) if !same_path => Some(self.path_of(&existing)?),
            (Place::Managed | Place::InPlace | Place::MetadataOnly, _) => None,
        };
        if compared != Compared::Other && !self.differs(&existing, record, &file)? {
            // What the index keeps agrees; only the bytes can tell whether the rest does. In another transfer syntax they
            // differ whatever they say.
            let comparable = existing_place == Place::Managed || self.has_transfer_syntax(&existing.shelf, record)?;
            let uncompared = match compared {
                Compared::Nothing if comparable => first.clone(),
                Compared::Nothing | Compared::Same | Compared::Other | Compared::FirstIsGone => None,
            };
            return Ok((StoreOutcome::Identical { uncompared }, first));
        }
        self.note_conflict("instance-with-other-content", record, &file)?;
        match policy {
            DuplicatePolicy::KeepFirst => Ok((StoreOutcome::KeptFirst, first)),
            DuplicatePolicy::Replace => {
                let previous = match existing_place {
                    Place::Managed => Some(self.path_of(&existing)?),
                    Place::InPlace | Place::MetadataOnly => None,
                };
                self.replace_instance(&existing, record, &file, Values::Overwrite)?;
                Ok((StoreOutcome::Replaced { previous }, None))
            }
        }
    }

    // --- instances -------------------------------------------------------------------------------------------------

    fn find_instance(&mut self, uid: &str) -> Result<Option<Existing>> {
        let hash = uid_hash(uid);
        let mut candidates = Vec::new();
        if let Some(&shelf) = self.changes.lookup_hashes.get(&hash) {
            candidates.push(shelf);
            let rest = self.changes.lookups.iter().filter(|(h, s)| *h == hash && *s != shelf).map(|(_, s)| *s);
            candidates.extend(rest);
        }
        let mut rows = self.hot.shelves_of_hash.query([hash])?;
        while let Some(row) = rows.next()? {
            candidates.push(row.get(0)?);
        }
        drop(rows);
        for id in candidates {
            // A lookup may outlive its shelf; the row itself has the last word.
            let Some(shelf) = self.shelf_by_id(id)? else { continue };
            let suffix = UidSuffix::pack(uid, &shelf.uid_prefix);
            let found = self
                .hot
                .instance
                .query_row(params![id, suffix], |row| {
                    Ok((row.get(0)?, shelf.naming.unpack(row.get_ref(1)?, uid), text_of(row.get_ref(2)?), row.get(3)?))
                })
                .optional()?;
            if let Some((size, file_name, number, diff)) = found {
                return Ok(Some(Existing { shelf, suffix, size, file_name, number, diff }));
            }
        }
        Ok(None)
    }

    /// Whether a record says something else than the row that is there. The pixel data are not compared, only what the
    /// index keeps and the size of the file.
    fn differs(&mut self, existing: &Existing, record: &InstanceRecord, file: &File<'_>) -> Result<bool> {
        let sizes_comparable = self.place_of(existing.shelf.directory)? == file.place;
        if sizes_comparable && existing.size != to_i64(file.size) {
            return Ok(true);
        }
        if existing.number != record.value(AttributeId::InstanceNumber) {
            return Ok(true);
        }
        let same_series: bool = self
            .statement(
                "SELECT e.series_instance_uid = ?2 AND s.study_instance_uid = ?3 AND h.sop_class_uid = ?4 \
                 FROM shelf h JOIN study_series e ON e.id = h.series JOIN study s ON s.id = e.study WHERE h.id = ?1",
            )?
            .query_row(
                params![
                    existing.shelf.id,
                    record.value(AttributeId::SeriesInstanceUID),
                    record.value(AttributeId::StudyInstanceUID),
                    record.value(AttributeId::SOPClassUID)
                ],
                |row| row.get(0),
            )?;
        if !same_series {
            return Ok(true);
        }
        let own_are_equal: bool = self
            .statement(
                "SELECT acquisition_number IS ?3 AND acquisition_time IS ?4 AND content_time IS ?5 \
                 AND instance_creation_time IS ?6 FROM instance WHERE shelf = ?1 AND uid_suffix = ?2",
            )?
            .query_row(
                params![
                    existing.shelf.id,
                    existing.suffix,
                    own_value(record, &existing.shelf, OWN[0]),
                    own_value(record, &existing.shelf, OWN[1]),
                    own_value(record, &existing.shelf, OWN[2]),
                    own_value(record, &existing.shelf, OWN[3])
                ],
                |row| row.get(0),
            )?;
        Ok(!own_are_equal || diff_of(record, &existing.shelf) != existing.diff)
    }

    fn has_transfer_syntax(&self, shelf: &Shelf, record: &InstanceRecord) -> Result<bool> {
        self.statement("SELECT available_transfer_syntax_uid = ?2 FROM shelf WHERE id = ?1")?
            .query_row(params![shelf.id, record.value(AttributeId::AvailableTransferSyntaxUID)], |row| row.get(0))
    }

    /// Puts a record in the place of the row that is there for the same instance.
    fn replace_instance(
        &mut self,
        existing: &Existing,
        record: &InstanceRecord,
        file: &File<'_>,
        values: Values,
    ) -> Result<()> {
        self.remove_row(existing)?;
        let (shelf, suffix) = self.insert_instance(record, file, values, &[], false)?;
        self.statement("UPDATE copy SET shelf = ?1, uid_suffix = ?2 WHERE shelf = ?3 AND uid_suffix = ?4")?
            .execute(params![shelf, suffix, existing.shelf.id, existing.suffix])?;
        Ok(())
    }

    fn insert_instance(
        &mut self,
        record: &InstanceRecord,
        file: &File<'_>,
        values: Values,
        following: &[&ScannedFile],
        complete: bool,
    ) -> Result<(i64, UidSuffix)> {
        let (series, study) = self.series(record, file, values)?;
        let shelf = self.shelf(record, file, series, study, following, complete)?;
        let uid = record.value(AttributeId::SOPInstanceUID);
        let suffix = UidSuffix::pack(uid, &shelf.uid_prefix);
        let own = |at: usize| own_value(record, &shelf, OWN[at]);
        self.hot.insert_instance.execute(params![
            shelf.id,
            suffix,
            pack_number(record.value(AttributeId::InstanceNumber)),
            to_i64(file.size),
            file.mtime_ms.saturating_sub(shelf.mtime_base),
            shelf.naming.pack(file.name, uid),
            own(0),
            own(1),
            own(2),
            own(3),
            diff_of(record, &shelf),
        ])?;
        self.changes.note_lookup(uid_hash(uid), shelf.id);
        *self.changes.instances_per_shelf.entry(shelf.id).or_default() += 1;
        *self.changes.instances_per_series.entry(series).or_default() += 1;
        *self.changes.instances_per_study.entry(study).or_default() += 1;
        let uids = [uid, record.value(AttributeId::SeriesInstanceUID), record.value(AttributeId::StudyInstanceUID)];
        if !uids.into_iter().all(is_valid_uid) {
            self.note_conflict("invalid-uid", record, file)?;
        }
        Ok((shelf.id, suffix))
    }

    /// Takes an instance row away.
    fn remove_row(&mut self, existing: &Existing) -> Result<()> {
        let shelf = &existing.shelf;
        self.statement("DELETE FROM instance WHERE shelf = ?1 AND uid_suffix = ?2")?
            .execute(params![shelf.id, existing.suffix])?;
        let study: i64 = self
            .statement("SELECT study FROM study_series WHERE id = ?1")?
            .query_row([shelf.series], |row| row.get(0))?;
        *self.changes.instances_per_shelf.entry(shelf.id).or_default() -= 1;
        *self.changes.instances_per_series.entry(shelf.series).or_default() -= 1;
        *self.changes.instances_per_study.entry(study).or_default() -= 1;
        self.changes.shrunk.insert((shelf.id, shelf.series, study));
        Ok(())
    }

    /// Makes a further location of an instance its first one; false where there is none with the same content. Those with
    /// other content are forgotten, so that the next scan reads them as what they are.
    fn promote_copy(&mut self, existing: &Existing) -> Result<bool> {
        let copy = self
            .statement(
                "SELECT directory, file_name, size, mtime_ms FROM copy WHERE shelf = ?1 AND uid_suffix = ?2 \
                 AND NOT differs ORDER BY directory, file_name LIMIT 1",
            )?
            .query_row(params![existing.shelf.id, existing.suffix], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    path_from_sql(row.get_ref(1)?),
                    row.get::<_, i64>(2)?,
                    row.get::<_, i64>(3)?,
                ))
            })
            .optional()?;
        let Some((directory, name, size, mtime_ms)) = copy else {
            self.statement("DELETE FROM copy WHERE shelf = ?1 AND uid_suffix = ?2")?
                .execute(params![existing.shelf.id, existing.suffix])?;
            return Ok(false);
        };
        let old = Rc::clone(&existing.shelf);
        let shelf = self.sibling_shelf(&old, directory, mtime_ms)?;
        self.statement("DELETE FROM copy WHERE directory = ?1 AND file_name = ?2")?
            .execute(params![directory, PathValue(&name)])?;
        if shelf.id == old.id {
            self.statement(
                "UPDATE instance SET size = ?3, mtime = ?4, file_name = ?5 WHERE shelf = ?1 AND uid_suffix = ?2",
            )?
            .execute(params![
                shelf.id,
                existing.suffix,
                size,
                mtime_ms - shelf.mtime_base,
                PathValue(&name)
            ])?;
            return Ok(true);
        }
        self.statement(
            "INSERT INTO instance SELECT ?1, uid_suffix, instance_number, ?2, ?3, ?4, acquisition_number, \
             acquisition_time, content_time, instance_creation_time, diff \
             FROM instance WHERE shelf = ?5 AND uid_suffix = ?6",
        )?
        .execute(params![
            shelf.id,
            size,
            mtime_ms - shelf.mtime_base,
            PathValue(&name),
            old.id,
            existing.suffix
        ])?;
        self.statement("DELETE FROM instance WHERE shelf = ?1 AND uid_suffix = ?2")?
            .execute(params![old.id, existing.suffix])?;
        self.statement("UPDATE copy SET shelf = ?1 WHERE shelf = ?2 AND uid_suffix = ?3")?.execute(params![
            shelf.id,
            old.id,
            existing.suffix
        ])?;
        let mut uid = String::new();
        let suffix = match &existing.suffix {
            UidSuffix::Packed(packed) => ValueRef::Blob(packed),
            UidSuffix::Text(text) => ValueRef::Text(text.as_bytes()),
        };
        UidSuffix::unpack(suffix, &old.uid_prefix, &mut uid);
        self.changes.note_lookup(uid_hash(&uid), shelf.id);
        *self.changes.instances_per_shelf.entry(shelf.id).or_default() += 1;
        *self.changes.instances_per_shelf.entry(old.id).or_default() -= 1;
        let study: i64 = self
            .statement("SELECT study FROM study_series WHERE id = ?1")?
            .query_row([old.series], |row| row.get(0))?;
        self.changes.shrunk.insert((old.id, old.series, study));
        Ok(true)
    }

    /// The shelf for the same content as `old` in another directory: the same prefix and shared values, so that rows move
    /// over as they are.
    fn sibling_shelf(&mut self, old: &Shelf, directory: i64, mtime_ms: i64) -> Result<Rc<Shelf>> {
        let candidates: Vec<i64> = self
            .statement(
                "SELECT n.id FROM shelf n JOIN shelf o ON o.id = ?1 WHERE n.series = o.series AND n.directory = ?2 \
                 AND n.sop_class_uid = o.sop_class_uid \
                 AND n.available_transfer_syntax_uid = o.available_transfer_syntax_uid ORDER BY n.id",
            )?
            .query_map([old.id, directory], |row| row.get(0))?
            .collect::<Result<_>>()?;
        for id in candidates {
            if let Some(shelf) = self.shelf_by_id(id)?
                && shelf.uid_prefix == old.uid_prefix
                && shelf.shared == old.shared
            {
                return Ok(shelf);
            }
        }
        let columns = shared_columns_sql();
        self.statement(&format!(
            "INSERT INTO shelf (series, directory, sop_class_uid, available_transfer_syntax_uid, uid_prefix, file_prefix, \
             file_suffix, file_digits, mtime_base, {columns}) SELECT series, ?2, sop_class_uid, \
             available_transfer_syntax_uid, uid_prefix, file_prefix, file_suffix, file_digits, ?3, {columns} FROM shelf WHERE id = ?1"
        ))?
        .execute([old.id, directory, mtime_ms])?;
        let id = self.connection.last_insert_rowid();
        self.shelf_by_id(id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
    }

    fn place_of(&self, directory: i64) -> Result<Place> {
        let place: i64 =
            self.statement("SELECT place FROM directory WHERE id = ?1")?.query_row([directory], |row| row.get(0))?;
        Ok(match place {
            0 => Place::InPlace,
            1 => Place::Managed,
            _ => Place::MetadataOnly,
        })
    }

    /// The file of an instance.
    fn path_of(&self, existing: &Existing) -> Result<PathBuf> {
        let directory = self
            .statement("SELECT path FROM directory WHERE id = ?1")?
            .query_row([existing.shelf.directory], |row| Ok(path_from_sql(row.get_ref(0)?)))?;
        Ok(PathBuf::from(directory).join(&existing.file_name))
    }

    // --- files -----------------------------------------------------------------------------------------------------

    fn directory(&mut self, place: Place, path: &Path) -> Result<i64> {
        if let Some(&id) = self.directories.get(path) {
            return Ok(id);
        }
        let place = match place {
            Place::InPlace => 0,
            Place::Managed => 1,
            Place::MetadataOnly => 2,
        };
        let found = self
            .statement("SELECT id FROM directory WHERE path = ?1")?
            .query_row([PathValue::from(path)], |row| row.get(0))
            .optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                self.statement("INSERT INTO directory (place, path) VALUES (?1, ?2)")?
                    .execute(params![place, PathValue::from(path)])?;
                self.connection.last_insert_rowid()
            }
        };
        self.directories.insert(path.to_owned(), id);
        Ok(id)
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

    /// Drops a file from the index: as first location of an instance, as further one, or as one that was not indexed.
    fn remove_file(&mut self, name: &OsStr, rows: &mut DirectoryRows) -> Result<()> {
        let directory = rows.directory;
        for sql in [
            "DELETE FROM unindexed_file WHERE directory = ?1 AND file_name = ?2",
            "DELETE FROM copy WHERE directory = ?1 AND file_name = ?2",
            "DELETE FROM file_fault WHERE directory = ?1 AND file_name = ?2",
            "DELETE FROM conflict WHERE directory = ?1 AND file_name = ?2",
        ] {
            self.statement(sql)?.execute(params![directory, PathValue(name)])?;
        }
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

    /// Drops what was noted about a file whose content has changed.
    fn forget_marks(&mut self, file: &File<'_>) -> Result<()> {
        for sql in [
            "DELETE FROM unindexed_file WHERE directory = ?1 AND file_name = ?2",
            "DELETE FROM file_fault WHERE directory = ?1 AND file_name = ?2",
            "DELETE FROM conflict WHERE directory = ?1 AND file_name = ?2",
        ] {
            self.statement(sql)?.execute(params![file.directory, PathValue(file.name)])?;
        }
        Ok(())
    }

    fn note_faults(&mut self, record: &InstanceRecord, file: &File<'_>) -> Result<()> {
        let faults: String = record.faults().join("; ").chars().take(MAX_FAULT_TEXT).collect();
        self.statement("INSERT OR REPLACE INTO file_fault (directory, file_name, faults) VALUES (?1, ?2, ?3)")?
            .execute(params![file.directory, PathValue(file.name), faults])?;
        self.changes.tally.faulty += 1;
        Ok(())
    }

    fn note_conflict(&mut self, kind: &str, record: &InstanceRecord, file: &File<'_>) -> Result<()> {
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

    // --- patient, study, series ------------------------------------------------------------------------------------

    /// The rows of the record's series and study, with all that it says of them.
    fn series(&mut self, record: &InstanceRecord, file: &File<'_>, values: Values) -> Result<(i64, i64)> {
        let study_uid = record.value(AttributeId::StudyInstanceUID);
        let series_uid = record.value(AttributeId::SeriesInstanceUID);
        self.scratch.clear();
        for part in [study_uid, "\0", series_uid] {
            self.scratch.push_str(part);
        }
        let key = xxh3_128(self.scratch.as_bytes());
        let said = self.hash_of_upper_values(record);
        if let Some(entry) = self.series.get(&key)
            && values == Values::MostComplete
            && entry.merged.contains(&said)
        {
            return Ok((entry.series, entry.study));
        }
        let patient = self.patient(record, values)?;
        let (study, is_own) = self.study(record, file, patient, values)?;
        let series = self.series_row(record, file, study, values)?;
        if values == Values::Overwrite {
            // What records of other series said of this patient and study may no longer be taken account of.
            self.series.clear();
        }
        let entry = self.series.entry(key).or_insert_with(|| SeriesEntry { series, study, merged: Vec::new() });
        if entry.merged.len() >= REMEMBERED_SETS {
            entry.merged.clear();
        }
        // Where two patients share a study, each file of the further one is noted as a conflict: it never takes the short
        // way.
        if is_own {
            entry.merged.push(said);
        }
        Ok((series, study))
    }

    fn hash_of_upper_values(&mut self, record: &InstanceRecord) -> u64 {
        self.scratch.clear();
        for &id in stored_above() {
            self.scratch.push_str(record.value(id));
            self.scratch.push('\0');
        }
        xxh3_64(self.scratch.as_bytes())
    }

    /// The row of the record's patient.
    fn patient(&mut self, record: &InstanceRecord, values: Values) -> Result<i64> {
        let id = record.value(AttributeId::PatientID);
        let issuer = record.value(AttributeId::IssuerOfPatientID);
        let identity = identity_without_id(record);
        let known: Vec<(i64, String)> = self
            .statement(
                "SELECT id, issuer_of_patient_id FROM patient WHERE patient_id = ?1 AND identity = ?2 ORDER BY id",
            )?
            .query_map([id, &identity], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_>>()?;
        let same_issuer = known.iter().find(|(_, known_issuer)| known_issuer == issuer);
        // An object that does not name the issuer is taken to mean the one patient of that ID; a patient whose issuer was
        // not known so far is the one that it is named for now.
        let unnamed = known.iter().find(|(_, known_issuer)| known_issuer.is_empty());
        let row = match (same_issuer, issuer.is_empty()) {
            (Some((row, _)), _) => Some(*row),
            (None, true) => known.first().map(|(row, _)| *row),
            (None, false) => unnamed.map(|(row, _)| *row),
        };
        match row {
            Some(row) => {
                self.merge(QueryRetrieveLevel::Patient, row, record, values)?;
                Ok(row)
            }
            None => self.insert_entity(QueryRetrieveLevel::Patient, record, &[("identity", &identity)]),
        }
    }

    /// The row of the record's study, and whether that lies under its patient rather than under another.
    fn study(&mut self, record: &InstanceRecord, file: &File<'_>, patient: i64, values: Values) -> Result<(i64, bool)> {
        let found: Option<(i64, i64)> = self
            .statement("SELECT id, patient FROM study WHERE study_instance_uid = ?1")?
            .query_row([record.value(AttributeId::StudyInstanceUID)], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((row, known_patient)) = found else {
            return Ok((self.insert_entity(QueryRetrieveLevel::Study, record, &[("patient", &patient)])?, true));
        };
        let mut is_own = true;
        if known_patient != patient {
            match values {
                Values::Overwrite => self.move_study(row, known_patient, patient)?,
                Values::MostComplete => {
                    is_own = self.share_study(row, known_patient, patient)?;
                    self.note_conflict("study-under-two-patients", record, file)?;
                }
            }
        }
        self.merge(QueryRetrieveLevel::Study, row, record, values)?;
        Ok((row, is_own))
    }

    /// Keeps a study under two patients: under the one whose Patient ID sorts first, and linked to the other, whichever
    /// came first. Whether that is the other.
    fn share_study(&mut self, study: i64, known: i64, other: i64) -> Result<bool> {
        let key = |batch: &Self, patient: i64| -> Result<(String, String, String)> {
            batch
                .statement("SELECT patient_id, issuer_of_patient_id, identity FROM patient WHERE id = ?1")?
                .query_row([patient], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        };
        let other_is_first = key(self, other)? < key(self, known)?;
        let linked = if other_is_first {
            self.statement("DELETE FROM study_patient WHERE study = ?1 AND patient = ?2")?.execute([study, other])?;
            self.statement("UPDATE study SET patient = ?2 WHERE id = ?1")?.execute([study, other])?;
            // The series of the study were remembered as those of the known one.
            self.series.clear();
            known
        } else {
            other
        };
        self.statement("INSERT OR IGNORE INTO study_patient (study, patient) VALUES (?1, ?2)")?
            .execute([study, linked])?;
        Ok(other_is_first)
    }

    /// A corrected object says that its study belongs to another patient: the newest word counts for the whole study.
    fn move_study(&mut self, study: i64, from: i64, to: i64) -> Result<()> {
        self.statement("DELETE FROM study_patient WHERE study = ?1 AND patient = ?2")?.execute([study, to])?;
        self.statement("UPDATE study SET patient = ?2 WHERE id = ?1")?.execute([study, to])?;
        self.changes.patients_left.insert(from);
        Ok(())
    }

    fn series_row(&mut self, record: &InstanceRecord, file: &File<'_>, study: i64, values: Values) -> Result<i64> {
        let series_uid = record.value(AttributeId::SeriesInstanceUID);
        let found: Option<i64> = self
            .statement("SELECT id FROM study_series WHERE series_instance_uid = ?1 AND study = ?2")?
            .query_row(params![series_uid, study], |row| row.get(0))
            .optional()?;
        if let Some(row) = found {
            let changed = self.merge(QueryRetrieveLevel::Series, row, record, values)?;
            if changed.contains(&AttributeId::Modality) {
                self.changes.studies_to_summarise.insert(study);
            }
            return Ok(row);
        }
        let elsewhere: bool = self
            .statement("SELECT EXISTS (SELECT 1 FROM study_series WHERE series_instance_uid = ?1)")?
            .query_row([series_uid], |row| row.get(0))?;
        if elsewhere {
            self.note_conflict("series-under-two-studies", record, file)?;
        }
        *self.changes.series_per_study.entry(study).or_default() += 1;
        self.changes.studies_to_summarise.insert(study);
        self.insert_entity(QueryRetrieveLevel::Series, record, &[("study", &study)])
    }

    /// Inserts the row of an entity with all that the record says of it.
    fn insert_entity(
        &mut self,
        level: QueryRetrieveLevel,
        record: &InstanceRecord,
        extra: &[(&str, &dyn rusqlite::ToSql)],
    ) -> Result<i64> {
        let names = name_forms(level, record);
        let character_set = record.value(AttributeId::SpecificCharacterSet);
        let mut columns = vec!["character_set"];
        let mut values: Vec<&dyn rusqlite::ToSql> = vec![&character_set];
        for &(column, value) in extra {
            columns.push(column);
            values.push(value);
        }
        let texts: Vec<&str> = stored_at(level).iter().map(|&id| record.value(id)).collect();
        for (id, text) in stored_at(level).iter().zip(&texts) {
            columns.push(id.attribute().column);
            values.push(text);
        }
        for (column, form) in &names {
            columns.push(column);
            values.push(form);
        }
        let marks = vec!["?"; columns.len()].join(", ");
        self.statement(&format!("INSERT INTO {} ({}) VALUES ({marks})", table_of(level), columns.join(", ")))?
            .execute(params_from_iter(values))?;
        Ok(self.connection.last_insert_rowid())
    }

    /// Lets an entity take account of what a record says of it; returns the attributes that have changed.
    fn merge(
        &mut self,
        level: QueryRetrieveLevel,
        row: i64,
        record: &InstanceRecord,
        values: Values,
    ) -> Result<Vec<AttributeId>> {
        let table = table_of(level);
        let mut changed = Vec::new();
        let mut columns = Vec::new();
        let mut texts: Vec<&str> = Vec::new();
        let mut known = self.statement(select_all(level))?;
        let mut rows = known.query([row])?;
        let current = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        for (at, &id) in stored_at(level).iter().enumerate() {
            let (said, known) = (record.value(id), current.get_ref(at)?.as_str().unwrap_or_default());
            let counts = match values {
                Values::Overwrite => !said.is_empty() && said != known,
                Values::MostComplete => is_more_complete(said, known),
            };
            if counts {
                changed.push(id);
                columns.push(id.attribute().column);
                texts.push(said);
            }
        }
        drop(rows);
        if columns.is_empty() {
            return Ok(changed);
        }
        let names = name_forms(level, record);
        if changed.contains(&AttributeId::PatientName) {
            for (column, form) in &names {
                columns.push(column);
                texts.push(form);
            }
        }
        columns.push("character_set");
        texts.push(record.value(AttributeId::SpecificCharacterSet));
        let settings: Vec<_> = columns.iter().enumerate().map(|(at, c)| format!("{c} = ?{}", at + 2)).collect();
        let parameters =
            std::iter::once(&row as &dyn rusqlite::ToSql).chain(texts.iter().map(|text| text as &dyn rusqlite::ToSql));
        self.statement(&format!("UPDATE {table} SET {} WHERE id = ?1", settings.join(", ")))?
            .execute(params_from_iter(parameters))?;
        Ok(changed)
    }

    // --- shelves ---------------------------------------------------------------------------------------------------

    fn shelf(
        &mut self,
        record: &InstanceRecord,
        file: &File<'_>,
        series: i64,
        study: i64,
        following: &[&ScannedFile],
        complete: bool,
    ) -> Result<Rc<Shelf>> {
        let class = record.value(AttributeId::SOPClassUID);
        let syntax = record.value(AttributeId::AvailableTransferSyntaxUID);
        let key = ShelfKey {
            series,
            directory: file.directory,
            class_and_syntax: xxh3_64(class.as_bytes()) ^ xxh3_64(syntax.as_bytes()).rotate_left(1),
        };
        if let Some(shelf) = self.shelves.get(&key) {
            return Ok(Rc::clone(shelf));
        }
        let found: Option<i64> = self
            .statement(
                "SELECT id FROM shelf WHERE series = ?1 AND directory = ?2 AND sop_class_uid = ?3 \
                 AND available_transfer_syntax_uid = ?4 ORDER BY id LIMIT 1",
            )?
            .query_row(params![series, file.directory, class, syntax], |row| row.get(0))
            .optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                let id = self.insert_shelf(record, file, series, following, complete)?;
                self.changes.studies_to_summarise.insert(study);
                id
            }
        };
        let shelf = self.shelf_by_id(id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        self.shelves.insert(key, Rc::clone(&shelf));
        Ok(shelf)
    }

    fn insert_shelf(
        &mut self,
        record: &InstanceRecord,
        file: &File<'_>,
        series: i64,
        following: &[&ScannedFile],
        complete: bool,
    ) -> Result<i64> {
        let uid = record.value(AttributeId::SOPInstanceUID);
        let naming = Naming::of(file.name, uid);
        let file_digits = naming.digits.and_then(|digits| i64::try_from(digits).ok());
        let texts: Vec<&str> = shared().iter().map(|&id| record.value(id)).collect();
        let prefix = common_prefix(record, following, complete);
        let fixed: [&dyn rusqlite::ToSql; 9] = [
            &series,
            &file.directory,
            &record.value(AttributeId::SOPClassUID),
            &record.value(AttributeId::AvailableTransferSyntaxUID),
            &prefix,
            &naming.prefix,
            &naming.suffix,
            &file_digits,
            &file.mtime_ms,
        ];
        let marks = vec!["?"; fixed.len() + texts.len()].join(", ");
        self.statement(&format!(
            "INSERT INTO shelf (series, directory, sop_class_uid, available_transfer_syntax_uid, uid_prefix, file_prefix, \
             file_suffix, file_digits, mtime_base, {}) VALUES ({marks})",
            shared_columns_sql()
        ))?
        .execute(params_from_iter(fixed.into_iter().chain(texts.iter().map(|text| text as &dyn rusqlite::ToSql))))?;
        Ok(self.connection.last_insert_rowid())
    }

    fn shelf_by_id(&mut self, id: i64) -> Result<Option<Rc<Shelf>>> {
        if let Some(shelf) = self.shelves_by_id.get(&id) {
            return Ok(Some(Rc::clone(shelf)));
        }
        let sql = format!(
            "SELECT series, directory, uid_prefix, file_prefix, file_suffix, file_digits, mtime_base, {} FROM shelf WHERE id = ?1",
            shared_columns_sql()
        );
        let read = |row: &Row<'_>| {
            Ok(Shelf {
                id,
                series: row.get(0)?,
                directory: row.get(1)?,
                uid_prefix: row.get(2)?,
                naming: Naming {
                    prefix: row.get(3)?,
                    suffix: row.get(4)?,
                    digits: row.get::<_, Option<i64>>(5)?.and_then(|digits| usize::try_from(digits).ok()),
                },
                mtime_base: row.get(6)?,
                shared: (0..shared().len()).map(|at| row.get(7 + at)).collect::<Result<_>>()?,
            })
        };
        let Some(shelf) = self.statement(&sql)?.query_row([id], read).optional()? else { return Ok(None) };
        let shelf = Rc::new(shelf);
        self.shelves_by_id.insert(id, Rc::clone(&shelf));
        Ok(Some(shelf))
    }

    // --- the end of a transaction ----------------------------------------------------------------------------------

    fn write_changes(&mut self) -> Result<()> {
        let mut lookups = std::mem::take(&mut self.changes.lookups);
        self.changes.lookup_hashes.clear();
        // In order of the hash: neighbours go into the same page.
        lookups.sort_unstable();
        for &(hash, shelf) in &lookups {
            self.hot.insert_lookup.execute([i64::from(hash), shelf])?;
        }
        self.move_lookups(lookups.len())?;
        for (table, column, changes) in [
            ("shelf", "instance_count", &mut self.changes.instances_per_shelf),
            ("study_series", "instance_count", &mut self.changes.instances_per_series),
            ("study", "instance_count", &mut self.changes.instances_per_study),
            ("study", "series_count", &mut self.changes.series_per_study),
        ] {
            let sql = format!("UPDATE {table} SET {column} = {column} + ?2 WHERE id = ?1");
            let mut update = self.connection.prepare_cached(&sql)?;
            for (id, change) in changes.drain().filter(|(_, change)| *change != 0) {
                update.execute([id, change])?;
            }
        }
        self.remove_empty()?;
        let studies: Vec<i64> = self.changes.studies_to_summarise.drain().collect();
        for study in studies {
            self.statement(
                "UPDATE study SET modalities_in_study = ifnull((SELECT group_concat(modality, '\\') FROM \
                 (SELECT DISTINCT modality FROM study_series WHERE study = ?1 AND modality <> '' ORDER BY modality)), ''), \
                 sop_classes_in_study = ifnull((SELECT group_concat(sop_class_uid, '\\') FROM (SELECT DISTINCT h.sop_class_uid \
                 FROM study_series e JOIN shelf h ON h.series = e.id WHERE e.study = ?1 AND h.sop_class_uid <> '' \
                 ORDER BY h.sop_class_uid)), '') WHERE id = ?1",
            )?
            .execute([study])?;
        }
        Ok(())
    }

    /// Moves a range of the recent look-ups into the large table, when there are many.
    fn move_lookups(&mut self, added: usize) -> Result<()> {
        let added = i64::try_from(added).unwrap_or(i64::MAX);
        self.lookups.recent += added;
        self.lookups.all += added;
        if self.lookups.recent <= self.lookups.most_recent() {
            return Ok(());
        }
        let from = self.lookups.next_hash;
        let end: Option<i64> = self
            .statement("SELECT hash FROM uid_lookup_recent WHERE hash >= ?1 ORDER BY hash LIMIT 1 OFFSET ?2")?
            .query_row([from, added.saturating_mul(2).max(64)], |row| row.get(0))
            .optional()?;
        // Past every hash where the range is the last one; the next begins anew.
        let to = end.unwrap_or(i64::from(i32::MAX) + 1);
        self.statement(
            "INSERT OR IGNORE INTO uid_lookup SELECT hash, shelf FROM uid_lookup_recent WHERE hash >= ?1 AND hash < ?2 \
             ORDER BY hash, shelf",
        )?
        .execute([from, to])?;
        let moved =
            self.statement("DELETE FROM uid_lookup_recent WHERE hash >= ?1 AND hash < ?2")?.execute([from, to])?;
        self.lookups.recent -= i64::try_from(moved).unwrap_or(0);
        self.lookups.next_hash = end.unwrap_or(i64::from(i32::MIN));
        Ok(())
    }

    /// Drops entities that have lost their last instance.
    fn remove_empty(&mut self) -> Result<()> {
        let shrunk: Vec<_> = self.changes.shrunk.drain().collect();
        let mut dropped = false;
        for (shelf, series, study) in shrunk {
            if self.statement("DELETE FROM shelf WHERE id = ?1 AND instance_count = 0")?.execute([shelf])? == 0 {
                continue;
            }
            dropped = true;
            self.changes.studies_to_summarise.insert(study);
            if self.statement("DELETE FROM study_series WHERE id = ?1 AND instance_count = 0")?.execute([series])? > 0 {
                self.statement("UPDATE study SET series_count = series_count - 1 WHERE id = ?1")?.execute([study])?;
            }
            let patients: Vec<i64> = self
                .statement(
                    "SELECT patient FROM study WHERE id = ?1 AND instance_count = 0 \
                     UNION SELECT patient FROM study_patient WHERE study = ?1",
                )?
                .query_map([study], |row| row.get(0))?
                .collect::<Result<_>>()?;
            if self.statement("DELETE FROM study WHERE id = ?1 AND instance_count = 0")?.execute([study])? > 0 {
                self.statement("DELETE FROM study_patient WHERE study = ?1")?.execute([study])?;
                self.changes.patients_left.extend(patients);
            }
        }
        for patient in std::mem::take(&mut self.changes.patients_left) {
            let gone = self
                .statement(
                    "DELETE FROM patient WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM study WHERE patient = ?1) \
                     AND NOT EXISTS (SELECT 1 FROM study_patient WHERE patient = ?1)",
                )?
                .execute([patient])?;
            dropped |= gone > 0;
        }
        if dropped {
            self.forget();
        }
        Ok(())
    }
}

/// How the values of a record meet those that an entity has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    /// The more complete one counts, whichever came first: see [`is_more_complete`].
    MostComplete,
    /// The new one counts: its object was corrected.
    Overwrite,
}

/// Whether `said` counts before `known` where two objects disagree about their patient, study or series: the longer text,
/// of two as long the one that sorts first. Any order of arrival comes to the same.
fn is_more_complete(said: &str, known: &str) -> bool {
    said.len() > known.len() || (said.len() == known.len() && said < known)
}

/// All kept attributes of an entity, in the order of [`stored_at`].
fn select_all(level: QueryRetrieveLevel) -> &'static str {
    static SQL: OnceLock<[String; 4]> = OnceLock::new();
    let all = SQL.get_or_init(|| {
        QueryRetrieveLevel::ALL.map(|level| {
            let columns: Vec<_> = stored_at(level).iter().map(|id| format!("\"{}\"", id.attribute().column)).collect();
            format!("SELECT {} FROM {} WHERE id = ?1", columns.join(", "), table_of(level))
        })
    });
    &all[level as usize]
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn text_of(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Null | ValueRef::Real(_) => String::new(),
    }
}

fn shared_columns_sql() -> &'static str {
    static COLUMNS: OnceLock<String> = OnceLock::new();
    COLUMNS.get_or_init(|| {
        let columns: Vec<_> = shared().iter().map(|id| format!("\"{}\"", id.attribute().column)).collect();
        columns.join(", ")
    })
}

/// The attributes for which an instance has a column of its own, in the order of those columns.
const OWN: [AttributeId; 4] = [
    AttributeId::AcquisitionNumber,
    AttributeId::AcquisitionTime,
    AttributeId::ContentTime,
    AttributeId::InstanceCreationTime,
];

fn shared_value(shelf: &Shelf, id: AttributeId) -> &str {
    static PLACES: OnceLock<[Option<usize>; ATTRIBUTE_COUNT]> = OnceLock::new();
    let places =
        PLACES.get_or_init(|| std::array::from_fn(|n| shared().iter().position(|&shared| shared as usize == n)));
    places[id as usize].and_then(|at| shelf.shared.get(at)).map_or("", String::as_str)
}

/// What goes into the column of its own that an instance has for `id`: nothing where the shelf says the same.
fn own_value<'r>(record: &'r InstanceRecord, shelf: &Shelf, id: AttributeId) -> Option<Packed<'r>> {
    let value = record.value(id);
    if value == shared_value(shelf, id) {
        return None;
    }
    Some(if is_packed_time(id) { pack_time(value, shared_value(shelf, id)) } else { pack_number(value) })
}

/// The values of a record that differ from those of its shelf, as a JSON object, where there are any.
fn diff_of(record: &InstanceRecord, shelf: &Shelf) -> Option<String> {
    let mut diff: Option<serde_json::Map<String, serde_json::Value>> = None;
    for (&id, shared) in shared().iter().zip(&shelf.shared) {
        let value = record.value(id);
        if value != shared && !has_own_column(id) {
            diff.get_or_insert_default().insert(id.attribute().column.to_owned(), value.into());
        }
    }
    diff.map(|diff| serde_json::Value::Object(diff).to_string())
}

/// What the SOP Instance UIDs of a new shelf are expected to begin with: what those that come with it have in common, or,
/// where more may follow, all up to the last component.
fn common_prefix<'r>(record: &'r InstanceRecord, following: &[&ScannedFile], complete: bool) -> &'r str {
    let uid = record.value(AttributeId::SOPInstanceUID);
    // Of even length, so that suffixes sort as whole UIDs do: see `Batch::scanned`.
    let up_to_last_component = || &uid[..uid.rfind('.').map_or(0, |at| at + 1) / 2 * 2];
    if !uid.is_ascii() {
        return "";
    }
    if !complete {
        return up_to_last_component();
    }
    let series = record.value(AttributeId::SeriesInstanceUID);
    let siblings = following.iter().filter_map(|file| match &file.outcome {
        FileOutcome::Instance(other) if other.value(AttributeId::SeriesInstanceUID) == series => {
            Some(other.value(AttributeId::SOPInstanceUID))
        }
        FileOutcome::Instance(_) | FileOutcome::NotIndexed { .. } => None,
    });
    let mut length = None;
    for other in siblings {
        let common = uid.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        length = Some(length.unwrap_or(uid.len()).min(common));
    }
    length.map_or_else(up_to_last_component, |length| uid.get(..length / 2 * 2).unwrap_or(""))
}

/// What keeps patients apart who have no Patient ID: name and birth date. Empty where there is an ID.
fn identity_without_id(record: &InstanceRecord) -> String {
    if !record.value(AttributeId::PatientID).is_empty() {
        return String::new();
    }
    let [name, ideographic, phonetic] = person_name::normal_groups(record.value(AttributeId::PatientName));
    format!("{name}={ideographic}={phonetic}|{}", record.value(AttributeId::PatientBirthDate))
}

/// The columns of a patient that hold the normal form of the name, with their values.
fn name_forms(level: QueryRetrieveLevel, record: &InstanceRecord) -> Vec<(&'static str, String)> {
    if level != QueryRetrieveLevel::Patient {
        return Vec::new();
    }
    let [alphabetic, ideographic, phonetic] = person_name::normal_groups(record.value(AttributeId::PatientName));
    vec![
        ("patient_name_norm", alphabetic),
        ("patient_name_ideographic_norm", ideographic),
        ("patient_name_phonetic_norm", phonetic),
    ]
}
