//! Questions to an index in an SQLite file.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::params;

use super::find::{self, Matchers};
use super::frozen;
use super::mounts::Mounts;
use super::open::ReadConnection;
use super::packing::{naming, uid_hash};
use super::sql_values::{PathValue, path_from_sql, place_from_number, place_number, to_u64};
use crate::db::{Corrections, Error, Interrupt, KnownLocation, Search};
use crate::model::checksum::Checksum;
use crate::model::declared::DeclaredSet;
use crate::model::find::{FindAnswer, FindRequest};
use crate::model::location::{Location, Place};

/// Memory for pages of the index in each reader, in bytes. A sort may take as much again. Pages
/// that are not in it come from the page cache of the system.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;

/// A connection that asks. Each thread that asks has its own.
pub struct SqliteReader {
    pub(super) connection: ReadConnection,
    pub(super) path: PathBuf,
    matchers: Matchers,
    mounts: Mounts,
    pub(super) declared: Arc<DeclaredSet>,
    /// The corrections that hold, with the version of the index that had them.
    pub(super) corrections: Option<(i64, Arc<Corrections>)>,
}

impl SqliteReader {
    /// Opens an index that exists. A frozen one is opened as a copy, without locks and files beside
    /// it.
    ///
    /// # Errors
    /// Fails with [`Error::Missing`] if there is none: see [`Error`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        if frozen::check_size(path)? {
            return Self::open_copy(path);
        }
        Self::of(ReadConnection::open(path, CACHE_BYTES)?, path)
    }

    /// Opens a copy of an index, which nobody writes. No file is made beside it.
    ///
    /// # Errors
    /// Fails as [`Self::open`] does.
    pub fn open_copy(path: &Path) -> Result<Self, Error> {
        Self::of(ReadConnection::open_copy(path, CACHE_BYTES)?, path)
    }

    fn of(connection: ReadConnection, path: &Path) -> Result<Self, Error> {
        let matchers = Matchers::default();
        find::register_functions(&connection, &matchers)?;
        let (path, mounts, declared) = (path.to_owned(), Mounts::default(), Arc::clone(DeclaredSet::none()));
        Ok(Self { connection, path, matchers, mounts, declared, corrections: None })
    }

    /// Sets what is declared. Files that were read with other declarations then lack something: see
    /// `KnownFile::lacks_declared`.
    #[must_use]
    pub fn with_declared(self, declared: Arc<DeclaredSet>) -> Self {
        Self { declared, ..self }
    }

    /// Returns how SQLite answers a query: its statements with their plans. It is for tests and for
    /// the curious.
    ///
    /// # Errors
    /// Fails as [`Search::find`] does.
    pub fn explain(&mut self, request: &FindRequest) -> Result<String, Error> {
        find::explain(&self.connection, &self.matchers, &mut self.mounts, request)
    }

    fn known_locations_inner(&mut self, uid: &str) -> rusqlite::Result<Vec<KnownLocation>> {
        let Some(key) = find::instance_key(&self.connection, uid, uid_hash(uid))? else { return Ok(Vec::new()) };
        let corrected = self.corrected_values(key.instance_group)?;
        let mut found = Vec::new();
        let mut first = self.connection.prepare_cached(
            "SELECT d.place, d.path, i.file_name, h.file_prefix, h.file_suffix, h.file_digits, \
             h.size_base + i.size, h.mtime_base + i.mtime, d.id, i.checksum FROM instance i \
             JOIN instance_group h ON h.id = i.instance_group \
             JOIN directory d ON d.id = h.directory WHERE i.instance_group = ?1 AND i.uid_suffix = ?2",
        )?;
        let mut rows = first.query(params![key.instance_group, key.suffix])?;
        while let Some(row) = rows.next()? {
            let file_name = naming(row, 3)?.unpack(row.get_ref(2)?, uid)?;
            let missing: bool = self
                .connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM missing_file WHERE directory = ?1 AND file_name = ?2)")?
                .query_row(params![row.get::<_, i64>(8)?, PathValue(&file_name)], |row| row.get(0))?;
            let location = Location {
                place: place_from_number(row.get(0)?)?,
                directory: path_from_sql(row.get_ref(1)?)?.into(),
                file_name,
                size: to_u64(row.get(6)?),
                mtime_ms: row.get(7)?,
            };
            let checksum = row.get::<_, Option<_>>(9)?.map(Checksum::from_bytes);
            let corrected = corrected.clone();
            found.push((missing, KnownLocation { location, checksum, differs: false, corrected }));
        }
        let mut copies = self.connection.prepare_cached(
            "SELECT d.place, d.path, c.file_name, c.size, c.mtime_ms, EXISTS (SELECT 1 FROM missing_file m \
             WHERE m.directory = d.id AND m.file_name = c.file_name), c.differs, c.checksum \
             FROM copy c JOIN directory d ON d.id = c.directory \
             WHERE c.instance_group = ?1 AND c.uid_suffix = ?2 AND d.place <> ?3 ORDER BY c.directory, c.file_name",
        )?;
        let mut rows = copies.query(params![key.instance_group, key.suffix, place_number(Place::MetadataOnly)])?;
        while let Some(row) = rows.next()? {
            let location = Location {
                place: place_from_number(row.get(0)?)?,
                directory: path_from_sql(row.get_ref(1)?)?.into(),
                file_name: path_from_sql(row.get_ref(2)?)?,
                size: to_u64(row.get(3)?),
                mtime_ms: row.get(4)?,
            };
            let checksum = row.get::<_, Option<_>>(7)?.map(Checksum::from_bytes);
            let (differs, corrected) = (row.get(6)?, corrected.clone());
            found.push((row.get(5)?, KnownLocation { location, checksum, differs, corrected }));
        }
        // A file that was gone when a scan looked may be back. It is tried last.
        found.sort_by_key(|(missing, known)| (known.differs, *missing));
        Ok(found.into_iter().map(|(_, known)| known).collect())
    }

    /// A number that changes when another connection has written.
    pub(super) fn data_version(&self) -> rusqlite::Result<i64> {
        self.connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
    }

    fn transfer_syntax_counts_inner(&self) -> rusqlite::Result<Vec<(String, String, u64)>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT sop_class_uid, available_transfer_syntax_uid, sum(instance_count) FROM instance_group GROUP BY 1, 2",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, to_u64(row.get(2)?))))?;
        rows.collect()
    }
}

impl Search for SqliteReader {
    fn interrupt(&self) -> Interrupt {
        let handle = self.connection.get_interrupt_handle();
        Interrupt::new(move || handle.interrupt())
    }

    fn find(
        &mut self,
        request: &FindRequest,
        on_answer: impl FnMut(FindAnswer) -> ControlFlow<()>,
    ) -> Result<u64, Error> {
        find::run(&self.connection, &self.matchers, &mut self.mounts, request, on_answer)
    }

    fn known_locations(&mut self, sop_instance_uid: &str) -> Result<Vec<KnownLocation>, Error> {
        self.known_locations_inner(sop_instance_uid).map_err(Error::from)
    }

    fn transfer_syntax_counts(&mut self) -> Result<Vec<(String, String, u64)>, Error> {
        self.transfer_syntax_counts_inner().map_err(Error::from)
    }

    fn version(&mut self) -> Result<i64, Error> {
        let changes = self.mounts.changes(&self.connection)?;
        Ok(self.data_version()? + changes)
    }

    fn another(&self) -> Result<Self, Error> {
        Ok(Self::open(&self.path)?.with_declared(Arc::clone(&self.declared)))
    }
}

impl std::fmt::Debug for SqliteReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteReader").field("path", &self.path).finish_non_exhaustive()
    }
}
