//! Asking the index.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, ToSql, params};

use super::find::{self, Interrupt, Matchers};
use super::mounts::Mounts;
use super::open::Asking;
use super::packing::{Naming, UidSuffix, uid_hash};
use super::sql_values::{PathValue, path_from_sql, place_from_number, place_number, range_below};
use super::{check, status};
use crate::db::{CheckReport, Error, IndexStatus, KnownLocation, NotIndexed};
use crate::model::checksum::Checksum;
use crate::model::declared::DeclaredSet;
use crate::model::find::{FindAnswer, FindRequest};
use crate::model::location::{Location, Place};

/// Memory for pages of the index in each reader, bytes. The pages come from the page cache of the system anyway.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// A connection that asks. Each thread that asks has its own.
pub struct Reader {
    connection: Asking,
    path: PathBuf,
    matchers: Matchers,
    mounts: Mounts,
    declared: Arc<DeclaredSet>,
}

/// What the index knows of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFile {
    /// Bytes.
    pub size: u64,
    /// Modification time, milliseconds since 1970 UTC.
    pub mtime_ms: i64,
    /// Why it is not indexed; `None` for a location of an instance.
    pub note: Option<Arc<Note>>,
    /// Whether it is a location that was gone when a scan looked last.
    pub missing: bool,
    /// Whether it was read without something that is declared; see [`Reader::with_declared`].
    pub lacks_declared: bool,
}

impl KnownFile {
    /// Whether it is a location of an instance.
    #[must_use]
    pub fn is_indexed(&self) -> bool {
        self.note.is_none()
    }
}

/// A location of an instance, and what the index says lies there.
#[derive(Clone, PartialEq, Eq)]
pub struct LocatedInstance {
    /// Where.
    pub location: Location,
    /// SOP Instance UID.
    pub sop_instance_uid: String,
    /// SOP Class UID.
    pub sop_class_uid: String,
    /// The transfer syntax that it lies in.
    pub transfer_syntax: String,
    /// Whether it is a copy known to differ from the first location.
    pub differs: bool,
    /// The checksum of the data set, where the object was received.
    pub checksum: Option<Checksum>,
}

/// Why a file that was seen is not indexed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    /// Whether that is a failure or intended.
    pub kind: NotIndexed,
    /// A stable word.
    pub reason: String,
    /// The reason in full.
    pub detail: String,
}

/// What the index knows of a directory at one moment, whatever is written meanwhile.
#[derive(Debug)]
pub struct DirectorySnapshot<'r> {
    reader: &'r Reader,
    id: Option<i64>,
    _transaction: rusqlite::Transaction<'r>,
}

impl DirectorySnapshot<'_> {
    /// The files in it (not those below it).
    ///
    /// # Errors
    /// That of SQLite.
    pub fn files(self) -> Result<HashMap<OsString, KnownFile>, Error> {
        let mut known = HashMap::new();
        if let Some(id) = self.id {
            let mut insert = |name, file| {
                known.insert(name, file);
            };
            self.reader.each_file(id, &mut insert).map_err(Error::from_sqlite)?;
        }
        Ok(known)
    }
}

impl Reader {
    /// Opens an index that exists.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Missing`] where there is none.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let connection = Asking::open(path, CACHE_BYTES)?;
        let matchers = Matchers::default();
        find::register_functions(&connection, &matchers).map_err(Error::from_sqlite)?;
        let (path, mounts, declared) = (path.to_owned(), Mounts::default(), Arc::clone(DeclaredSet::none()));
        Ok(Self { connection, path, matchers, mounts, declared })
    }

    /// The same, for which files are lacking that were read with other declarations than these: see
    /// [`KnownFile::lacks_declared`].
    #[must_use]
    pub fn with_declared(self, declared: Arc<DeclaredSet>) -> Self {
        Self { declared, ..self }
    }

    /// How many instances of this kind below `root` were read without what is declared.
    ///
    /// # Errors
    /// That of SQLite.
    pub fn lacking_below(&mut self, place: Place, root: &Path) -> Result<u64, Error> {
        self.lacking(place, root, |_, count| count).map(|counts| counts.into_iter().sum()).map_err(Error::from_sqlite)
    }

    /// The directories of this kind below `root` with instances that were read without what is declared, each once.
    ///
    /// # Errors
    /// That of SQLite.
    pub fn lacking_directories(&mut self, place: Place, root: &Path) -> Result<Vec<PathBuf>, Error> {
        let mut found = self.lacking(place, root, |path, _| path).map_err(Error::from_sqlite)?;
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn lacking<T>(
        &mut self,
        place: Place,
        root: &Path,
        mut each: impl FnMut(PathBuf, u64) -> T,
    ) -> rusqlite::Result<Vec<T>> {
        let mut found = Vec::new();
        if self.declared.is_empty() {
            return Ok(found);
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT d.path, h.declared_set, sum(h.instance_count) FROM instance_group h JOIN directory d ON d.id = h.directory \
             WHERE d.place = ?1 GROUP BY h.directory, h.declared_set ORDER BY d.path",
        )?;
        let mut rows = statement.query([place_number(place)])?;
        while let Some(row) = rows.next()? {
            let path = PathBuf::from(path_from_sql(row.get_ref(0)?));
            if path.starts_with(root) && !self.declared.is_covered_by(row.get_ref(1)?.as_str().unwrap_or_default()) {
                found.push(each(path, to_u64(row.get(2)?)));
            }
        }
        Ok(found)
    }

    /// A handle by which another thread interrupts what this reader is doing.
    #[must_use]
    pub fn interrupt(&self) -> Interrupt {
        Interrupt::new(self.connection.get_interrupt_handle())
    }

    /// Answers a query: calls `on_answer` for each matching entity in a fixed order, until there are no more, the limit is
    /// reached or it says to stop. Returns how many answers there were.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when another thread asked for it, [`Error::Unsupported`] for keys that the index does not
    /// hold, or that of SQLite.
    pub fn find(
        &mut self,
        request: &FindRequest,
        on_answer: impl FnMut(FindAnswer) -> ControlFlow<()>,
    ) -> Result<u64, Error> {
        find::run(&self.connection, &self.matchers, &mut self.mounts, request, on_answer)
    }

    /// How SQLite goes about a query: its statements with their plans. For tests and the curious.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn explain(&mut self, request: &FindRequest) -> Result<String, Error> {
        find::explain(&self.connection, &self.matchers, &mut self.mounts, request)
    }

    /// What the index knows of the files in a directory (not of those below it).
    ///
    /// # Errors
    /// That of SQLite.
    pub fn directory_files(&mut self, directory: &Path) -> Result<HashMap<OsString, KnownFile>, Error> {
        self.directory_now(directory)?.files()
    }

    /// What the index knows of a directory at this moment, to be read later.
    ///
    /// # Errors
    /// That of SQLite.
    pub fn directory_now(&mut self, directory: &Path) -> Result<DirectorySnapshot<'_>, Error> {
        let transaction = self.connection.unchecked_transaction().map_err(Error::from_sqlite)?;
        // What is read first fixes the moment.
        let id = self.directory_id(directory, false).map_err(Error::from_sqlite)?;
        Ok(DirectorySnapshot { reader: self, id, _transaction: transaction })
    }

    /// Calls `on_member` for what the index knows of each member of an archive file, in no particular order.
    ///
    /// # Errors
    /// That of SQLite.
    pub fn archive_members(
        &mut self,
        archive: &Path,
        on_member: &mut dyn FnMut(OsString, KnownFile),
    ) -> Result<(), Error> {
        match self.directory_id(archive, true).map_err(Error::from_sqlite)? {
            Some(id) => self.each_file(id, on_member).map_err(Error::from_sqlite),
            None => Ok(()),
        }
    }

    /// What the index knows of an archive file without a look at each member: how many are indexed and not missing, and
    /// which are not indexed.
    ///
    /// # Errors
    /// That of SQLite.
    pub fn archive_summary(&mut self, archive: &Path) -> Result<(u64, Vec<(OsString, KnownFile)>), Error> {
        self.archive_summary_inner(archive).map_err(Error::from_sqlite)
    }

    fn archive_summary_inner(&mut self, archive: &Path) -> rusqlite::Result<(u64, Vec<(OsString, KnownFile)>)> {
        let mut notes = Vec::new();
        let Some(id) = self.directory_id(archive, true)? else { return Ok((0, notes)) };
        let indexed: i64 = self
            .connection
            .prepare_cached(
                "SELECT (SELECT ifnull(sum(instance_count), 0) FROM instance_group WHERE directory = ?1) \
                 + (SELECT count(*) FROM copy WHERE directory = ?1) \
                 - (SELECT count(*) FROM missing_file WHERE directory = ?1)",
            )?
            .query_row([id], |row| row.get(0))?;
        self.each_note(id, &mut |name, file| notes.push((name, file)))?;
        Ok((to_u64(indexed), notes))
    }

    fn directory_id(&self, path: &Path, is_archive: bool) -> rusqlite::Result<Option<i64>> {
        self.connection
            .prepare_cached("SELECT id FROM directory WHERE path = ?1 AND (place = 3) = ?2")?
            .query_row(params![PathValue::from(path), is_archive], |row| row.get(0))
            .optional()
    }

    fn each_file(&self, id: i64, on_file: &mut dyn FnMut(OsString, KnownFile)) -> rusqlite::Result<()> {
        let mut missing = HashSet::new();
        let mut names = self.connection.prepare_cached("SELECT file_name FROM missing_file WHERE directory = ?1")?;
        let mut rows = names.query([id])?;
        while let Some(row) = rows.next()? {
            missing.insert(path_from_sql(row.get_ref(0)?));
        }
        let mut instance_groups = self.connection.prepare_cached(
            "SELECT id, uid_prefix, file_prefix, file_suffix, file_digits, mtime_base, size_base, declared_set FROM instance_group \
             WHERE directory = ?1",
        )?;
        let mut instances = self
            .connection
            .prepare_cached("SELECT file_name, uid_suffix, size, mtime FROM instance WHERE instance_group = ?1")?;
        let mut instance_groups = instance_groups.query([id])?;
        let mut uid = String::new();
        while let Some(instance_group) = instance_groups.next()? {
            let (prefix, naming, mtime_base) =
                (instance_group.get_ref(1)?, naming(instance_group, 2)?, instance_group.get::<_, i64>(5)?);
            let size_base: i64 = instance_group.get(6)?;
            let lacks_declared = !self.declared.is_empty()
                && !self.declared.is_covered_by(instance_group.get_ref(7)?.as_str().unwrap_or_default());
            let mut rows = instances.query([instance_group.get::<_, i64>(0)?])?;
            while let Some(row) = rows.next()? {
                let stored = row.get_ref(0)?;
                uid.clear();
                if naming.needs_uid(stored) {
                    UidSuffix::unpack(row.get_ref(1)?, prefix.as_str().unwrap_or_default(), &mut uid);
                }
                let name = naming.unpack(stored, &uid);
                let missing = !missing.is_empty() && missing.contains(&name);
                let (size, mtime_ms) = (size_base.saturating_add(row.get(2)?), mtime_base.saturating_add(row.get(3)?));
                on_file(name, KnownFile { size: to_u64(size), mtime_ms, note: None, missing, lacks_declared });
            }
        }
        let mut copies =
            self.connection.prepare_cached("SELECT file_name, size, mtime_ms FROM copy WHERE directory = ?1")?;
        let mut rows = copies.query([id])?;
        while let Some(row) = rows.next()? {
            let name = path_from_sql(row.get_ref(0)?);
            let missing = missing.contains(&name);
            on_file(
                name,
                KnownFile {
                    size: to_u64(row.get(1)?),
                    mtime_ms: row.get(2)?,
                    note: None,
                    missing,
                    lacks_declared: false,
                },
            );
        }
        self.each_note(id, on_file)
    }

    /// Of the files in a directory, those that are not indexed, in the order of their names.
    fn each_note(&self, id: i64, on_file: &mut dyn FnMut(OsString, KnownFile)) -> rusqlite::Result<()> {
        let mut notes = self.connection.prepare_cached(
            "SELECT file_name, size, mtime_ms, kind, reason, detail FROM unindexed_file WHERE directory = ?1 ORDER BY file_name",
        )?;
        // A directory can hold 100,000 files that are not DICOM, all for one reason.
        let mut shared = HashSet::new();
        let mut rows = notes.query([id])?;
        while let Some(row) = rows.next()? {
            let kind = NotIndexed::from_sql(&row.get::<_, String>(3)?);
            let note = Arc::new(Note { kind, reason: row.get(4)?, detail: row.get(5)? });
            let note = shared.get(&note).cloned().unwrap_or_else(|| {
                shared.insert(Arc::clone(&note));
                note
            });
            let file = KnownFile {
                size: to_u64(row.get(1)?),
                mtime_ms: row.get(2)?,
                note: Some(note),
                missing: false,
                lacks_declared: false,
            };
            on_file(path_from_sql(row.get_ref(0)?), file);
        }
        Ok(())
    }

    /// Another reader of the same index, for another thread.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn another(&self) -> Result<Self, Error> {
        Ok(Self::open(&self.path)?.with_declared(Arc::clone(&self.declared)))
    }

    /// Whether some member of an archive file was read without what is declared.
    ///
    /// # Errors
    /// That of SQLite.
    pub fn archive_lacks_declared(&mut self, archive: &Path) -> Result<bool, Error> {
        if self.declared.is_empty() {
            return Ok(false);
        }
        let asked = || {
            let Some(id) = self.directory_id(archive, true)? else { return Ok(false) };
            let mut sets = self
                .connection
                .prepare_cached("SELECT DISTINCT declared_set FROM instance_group WHERE directory = ?1")?;
            let mut rows = sets.query([id])?;
            while let Some(row) = rows.next()? {
                if !self.declared.is_covered_by(row.get_ref(0)?.as_str().unwrap_or_default()) {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        asked().map_err(Error::from_sqlite)
    }

    /// The instances that have a location in a directory (not below it) or an archive file of this kind, each with its location
    /// and what it is: those first found there, then copies.
    ///
    /// # Errors
    /// That of SQLite.
    pub fn located_instances(&mut self, place: Place, directory: &Path) -> Result<Vec<LocatedInstance>, Error> {
        self.located_instances_inner(place, directory).map_err(Error::from_sqlite)
    }

    fn located_instances_inner(&self, place: Place, directory: &Path) -> rusqlite::Result<Vec<LocatedInstance>> {
        let mut found = Vec::new();
        let Some(id) = self.directory_id(directory, place == Place::Archive)? else { return Ok(found) };
        let mut first = self.connection.prepare_cached(
            "SELECT i.file_name, i.uid_suffix, h.uid_prefix, h.file_prefix, h.file_suffix, h.file_digits, \
             h.size_base + i.size, h.mtime_base + i.mtime, h.sop_class_uid, h.available_transfer_syntax_uid, 0, i.checksum \
             FROM instance_group h JOIN instance i ON i.instance_group = h.id WHERE h.directory = ?1",
        )?;
        let mut copies = self.connection.prepare_cached(
            "SELECT c.file_name, c.uid_suffix, h.uid_prefix, '', '', NULL, c.size, c.mtime_ms, \
             ifnull(c.record ->> 'sop_class_uid', h.sop_class_uid), \
             ifnull(c.record ->> 'available_transfer_syntax_uid', h.available_transfer_syntax_uid), c.differs, c.checksum \
             FROM copy c JOIN instance_group h ON h.id = c.instance_group WHERE c.directory = ?1",
        )?;
        for (statement, is_copy) in [(&mut first, false), (&mut copies, true)] {
            let mut rows = statement.query([id])?;
            while let Some(row) = rows.next()? {
                let mut uid = String::new();
                UidSuffix::unpack(row.get_ref(1)?, row.get_ref(2)?.as_str().unwrap_or_default(), &mut uid);
                let file_name = if is_copy {
                    path_from_sql(row.get_ref(0)?)
                } else {
                    naming(row, 3)?.unpack(row.get_ref(0)?, &uid)
                };
                found.push(LocatedInstance {
                    location: Location {
                        place,
                        directory: directory.to_owned(),
                        file_name,
                        size: to_u64(row.get(6)?),
                        mtime_ms: row.get(7)?,
                    },
                    sop_instance_uid: uid,
                    sop_class_uid: row.get(8)?,
                    transfer_syntax: row.get(9)?,
                    differs: row.get(10)?,
                    checksum: row.get::<_, Option<_>>(11)?.map(Checksum::from_bytes),
                });
            }
        }
        Ok(found)
    }

    /// Directories of this kind below `root` that the index knows, in a fixed order, from after `after` on and at most `limit`.
    /// Begin with `root` itself as `after`, and go on with the last of each answer until one is empty.
    ///
    /// # Errors
    /// That of SQLite.
    pub fn directories_below(
        &mut self,
        place: Place,
        root: &Path,
        after: &Path,
        limit: usize,
    ) -> Result<Vec<PathBuf>, Error> {
        // TEXT paths come before BLOB ones; ranges of each use the index on the path.
        let (from, to) = range_below(root);
        let after_text = after.to_str();
        let mut found = Vec::new();
        if let (Some(after), Ok(from), Ok(to)) = (after_text, std::str::from_utf8(&from), std::str::from_utf8(&to)) {
            self.directories_between(place, &after.max(from), &to, limit, &mut found).map_err(Error::from_sqlite)?;
        }
        if found.len() < limit {
            let after = if after_text.is_some() { &from } else { after.as_os_str().as_bytes() };
            self.directories_between(place, &after, &to, limit - found.len(), &mut found)
                .map_err(Error::from_sqlite)?;
        }
        Ok(found)
    }

    fn directories_between(
        &self,
        place: Place,
        after: &dyn ToSql,
        before: &dyn ToSql,
        limit: usize,
        found: &mut Vec<PathBuf>,
    ) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(
            "SELECT path FROM directory WHERE path > ?1 AND path < ?2 AND place = ?3 ORDER BY path LIMIT ?4",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![after, before, place_number(place), limit])?;
        while let Some(row) = rows.next()? {
            found.push(PathBuf::from(path_from_sql(row.get_ref(0)?)));
        }
        Ok(())
    }

    /// The directories at which scans have seen something mounted.
    ///
    /// # Errors
    /// That of SQLite.
    pub fn mount_points(&mut self) -> Result<BTreeSet<PathBuf>, Error> {
        let read = || -> rusqlite::Result<BTreeSet<PathBuf>> {
            let mut statement = self.connection.prepare_cached("SELECT path FROM mount_point")?;
            let rows = statement.query_map([], |row| Ok(PathBuf::from(path_from_sql(row.get_ref(0)?))))?;
            rows.collect()
        };
        read().map_err(Error::from_sqlite)
    }

    /// Every place where an instance lies, the first one first, those whose file was gone last; empty where the index does not
    /// know it. Objects that differ from the first one are left out.
    ///
    /// # Errors
    /// That of SQLite.
    pub fn locations(&mut self, sop_instance_uid: &str) -> Result<Vec<Location>, Error> {
        let known = self.known_locations(sop_instance_uid)?;
        Ok(known.into_iter().filter(|known| !known.differs).map(|known| known.location).collect())
    }

    /// The same with what else is known of each place, and with objects that differ, which come last.
    ///
    /// # Errors
    /// That of SQLite.
    pub fn known_locations(&mut self, sop_instance_uid: &str) -> Result<Vec<KnownLocation>, Error> {
        self.known_locations_inner(sop_instance_uid).map_err(Error::from_sqlite)
    }

    fn known_locations_inner(&mut self, uid: &str) -> rusqlite::Result<Vec<KnownLocation>> {
        let Some((instance_group, suffix)) = find::instance_key(&self.connection, uid, uid_hash(uid))? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        let mut first = self.connection.prepare_cached(
            "SELECT d.place, d.path, i.file_name, h.file_prefix, h.file_suffix, h.file_digits, \
             h.size_base + i.size, h.mtime_base + i.mtime, d.id, i.checksum FROM instance i \
             JOIN instance_group h ON h.id = i.instance_group \
             JOIN directory d ON d.id = h.directory WHERE i.instance_group = ?1 AND i.uid_suffix = ?2",
        )?;
        let mut rows = first.query(params![instance_group, suffix])?;
        while let Some(row) = rows.next()? {
            let file_name = naming(row, 3)?.unpack(row.get_ref(2)?, uid);
            let missing: bool = self
                .connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM missing_file WHERE directory = ?1 AND file_name = ?2)")?
                .query_row(params![row.get::<_, i64>(8)?, PathValue(&file_name)], |row| row.get(0))?;
            let location = Location {
                place: place_from_number(row.get(0)?),
                directory: path_from_sql(row.get_ref(1)?).into(),
                file_name,
                size: to_u64(row.get(6)?),
                mtime_ms: row.get(7)?,
            };
            let checksum = row.get::<_, Option<_>>(9)?.map(Checksum::from_bytes);
            found.push((missing, KnownLocation { location, checksum, differs: false }));
        }
        let mut copies = self.connection.prepare_cached(
            "SELECT d.place, d.path, c.file_name, c.size, c.mtime_ms, EXISTS (SELECT 1 FROM missing_file m \
             WHERE m.directory = d.id AND m.file_name = c.file_name), c.differs, c.checksum \
             FROM copy c JOIN directory d ON d.id = c.directory \
             WHERE c.instance_group = ?1 AND c.uid_suffix = ?2 AND d.place <> ?3 ORDER BY c.directory, c.file_name",
        )?;
        let mut rows = copies.query(params![instance_group, suffix, place_number(Place::MetadataOnly)])?;
        while let Some(row) = rows.next()? {
            let location = Location {
                place: place_from_number(row.get(0)?),
                directory: path_from_sql(row.get_ref(1)?).into(),
                file_name: path_from_sql(row.get_ref(2)?),
                size: to_u64(row.get(3)?),
                mtime_ms: row.get(4)?,
            };
            let checksum = row.get::<_, Option<_>>(7)?.map(Checksum::from_bytes);
            found.push((row.get(5)?, KnownLocation { location, checksum, differs: row.get(6)? }));
        }
        // What was gone when a scan looked may be back; it is tried last.
        found.sort_by_key(|(missing, known)| (known.differs, *missing));
        Ok(found.into_iter().map(|(_, known)| known).collect())
    }

    /// For each SOP Class the transfer syntaxes in which instances of it are held, the most frequent first: SOP Class UID and
    /// Transfer Syntax UID. Reads all instance groups: some milliseconds for a million instances.
    ///
    /// # Errors
    /// That of SQLite.
    pub fn held_transfer_syntaxes(&mut self) -> Result<Vec<(String, String)>, Error> {
        self.held_transfer_syntaxes_inner().map_err(Error::from_sqlite)
    }

    fn held_transfer_syntaxes_inner(&self) -> rusqlite::Result<Vec<(String, String)>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT sop_class_uid, available_transfer_syntax_uid FROM instance_group GROUP BY 1, 2 \
             ORDER BY 1, sum(instance_count) DESC, 2",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    }

    pub(super) fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// The name that sets this index apart from all others; `None` as long as no node has stored with it.
    ///
    /// # Errors
    /// That of SQLite.
    pub fn index_id(&mut self) -> Result<Option<String>, Error> {
        self.connection
            .query_row("SELECT id FROM index_identity", [], |row| row.get(0))
            .optional()
            .map_err(Error::from_sqlite)
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What is in the index, in numbers, with the failures and conflicts.
    ///
    /// # Errors
    /// That of SQLite.
    pub fn status(&mut self) -> Result<IndexStatus, Error> {
        status::read(&self.connection, &self.path).map_err(Error::from_sqlite)
    }

    /// Compares what the index says of itself (counters, look-ups, references, SQLite's own checks) with its rows.
    ///
    /// # Errors
    /// That of SQLite, where the file cannot even be read.
    pub fn check(&mut self) -> Result<CheckReport, Error> {
        check::run(&self.connection).map_err(Error::from_sqlite)
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The naming of an instance group whose `file_prefix`, `file_suffix` and `file_digits` are the columns from `first` on.
pub(super) fn naming(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Naming> {
    let digits: Option<i64> = row.get(first + 2)?;
    Ok(Naming {
        prefix: row.get(first)?,
        suffix: row.get(first + 1)?,
        digits: digits.and_then(|digits| usize::try_from(digits).ok()),
    })
}

fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
