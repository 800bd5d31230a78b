//! Ledger of all that scans have seen, as the index has it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{OptionalExtension, ToSql, params};

use super::packing::{UidSuffix, naming};
use super::reader::SqliteReader;
use super::schema::EXCHANGED_DISKS;
use super::sql_values::{PathValue, path_from_sql, place_number, to_u64};
use crate::db::paths::range_below;
use crate::db::{DeclaredCoverage, DirectorySnapshot, Error, KnownFile, LocatedInstance, NotIndexed, Note, ScanLedger};
use crate::model::checksum::Checksum;
use crate::model::location::{Location, Place};

impl ScanLedger for SqliteReader {
    fn directory_now(&mut self, directory: &Path) -> Result<DirectorySnapshot<'_>, Error> {
        let transaction = self.connection.unchecked_transaction()?;
        // The first read fixes the moment.
        let id = self.directory_id(directory, false)?;
        let reader = &*self;
        Ok(DirectorySnapshot::new(move || {
            let mut known = HashMap::new();
            if let Some(id) = id {
                let mut insert = |name, file| {
                    known.insert(name, file);
                };
                reader.each_file(id, &mut insert)?;
            }
            drop(transaction);
            Ok(known)
        }))
    }

    fn archive_members(&mut self, archive: &Path, on_member: &mut dyn FnMut(OsString, KnownFile)) -> Result<(), Error> {
        match self.directory_id(archive, true)? {
            Some(id) => self.each_file(id, on_member).map_err(Error::from),
            None => Ok(()),
        }
    }

    fn archive_summary(&mut self, archive: &Path) -> Result<(u64, Vec<(OsString, KnownFile)>), Error> {
        self.archive_summary_inner(archive).map_err(Error::from)
    }

    fn archive_is_without_declared(&mut self, archive: &Path) -> Result<bool, Error> {
        if self.declared.is_empty() {
            return Ok(false);
        }
        let Some(id) = self.directory_id(archive, true)? else { return Ok(false) };
        let mut sets =
            self.connection.prepare_cached("SELECT DISTINCT declared_set FROM instance_group WHERE directory = ?1")?;
        let mut rows = sets.query([id])?;
        while let Some(row) = rows.next()? {
            if !self.declared.is_covered_by(&row.get::<_, String>(0)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn without_declared_below(&mut self, place: Place, root: &Path) -> Result<u64, Error> {
        self.lacking(place, root, |_, count| count).map(|counts| counts.into_iter().sum()).map_err(Error::from)
    }

    fn declared_coverage(&mut self) -> Result<DeclaredCoverage, Error> {
        let mut statement =
            self.connection.prepare_cached("SELECT declared_set, instance_count FROM instance_group")?;
        let mut rows = statement.query([])?;
        let mut coverage = DeclaredCoverage::default();
        while let Some(row) = rows.next()? {
            let instances = to_u64(row.get(1)?);
            coverage.all += instances;
            let mark = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            if !self.declared.is_covered_by(mark) {
                coverage.lacking += instances;
            }
        }
        Ok(coverage)
    }

    fn directories_without_declared(&mut self, place: Place, root: &Path) -> Result<Vec<PathBuf>, Error> {
        let mut found = self.lacking(place, root, |path, _| path)?;
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn located_instances(&mut self, place: Place, directory: &Path) -> Result<Vec<LocatedInstance>, Error> {
        self.located_instances_inner(place, directory).map_err(Error::from)
    }

    fn directories_below(
        &mut self,
        place: Place,
        root: &Path,
        after: &Path,
        limit: usize,
    ) -> Result<Vec<PathBuf>, Error> {
        // TEXT paths come before BLOB paths. A range of each kind uses the index on the path.
        let (from, to) = range_below(root);
        let after_text = after.to_str();
        let mut found = Vec::new();
        if let (Some(after), Ok(from), Ok(to)) = (after_text, std::str::from_utf8(&from), std::str::from_utf8(&to)) {
            self.directories_between(place, &after.max(from), &to, limit, &mut found)?;
        }
        if found.len() < limit {
            let after = if after_text.is_some() { &from } else { after.as_os_str().as_bytes() };
            self.directories_between(place, &after, &to, limit - found.len(), &mut found)?;
        }
        Ok(found)
    }

    fn mount_points(&mut self) -> Result<BTreeSet<PathBuf>, Error> {
        Ok(self.noted_paths("SELECT path FROM mount_point")?)
    }

    fn exchanged_disks(&mut self) -> Result<BTreeSet<PathBuf>, Error> {
        match EXCHANGED_DISKS.are_in(&self.connection)? {
            true => Ok(self.noted_paths("SELECT path FROM exchanged_disk")?),
            false => Ok(BTreeSet::new()),
        }
    }
}

impl SqliteReader {
    fn noted_paths(&self, sql: &str) -> rusqlite::Result<BTreeSet<PathBuf>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| Ok(PathBuf::from(path_from_sql(row.get_ref(0)?)?)))?;
        rows.collect()
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
            let path = PathBuf::from(path_from_sql(row.get_ref(0)?)?);
            if path.starts_with(root) && !self.declared.is_covered_by(row.get_ref(1)?.as_str()?) {
                found.push(each(path, to_u64(row.get(2)?)));
            }
        }
        Ok(found)
    }

    fn archive_summary_inner(&mut self, archive: &Path) -> rusqlite::Result<(u64, Vec<(OsString, KnownFile)>)> {
        let mut others = Vec::new();
        let Some(id) = self.directory_id(archive, true)? else { return Ok((0, others)) };
        let (all, missing): (i64, i64) = self
            .connection
            .prepare_cached(
                "SELECT (SELECT ifnull(sum(instance_count), 0) FROM instance_group WHERE directory = ?1) \
                 + (SELECT count(*) FROM copy WHERE directory = ?1), \
                 (SELECT count(*) FROM missing_file WHERE directory = ?1)",
            )?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if missing > 0 {
            self.each_file(id, &mut |name, file| {
                if file.missing || !file.is_indexed() {
                    others.push((name, file));
                }
            })?;
        } else {
            self.each_note(id, &mut |name, file| others.push((name, file)))?;
        }
        Ok((to_u64(all - missing), others))
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
            missing.insert(path_from_sql(row.get_ref(0)?)?);
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
            let lacks_declared =
                !self.declared.is_empty() && !self.declared.is_covered_by(instance_group.get_ref(7)?.as_str()?);
            let mut rows = instances.query([instance_group.get::<_, i64>(0)?])?;
            while let Some(row) = rows.next()? {
                let stored = row.get_ref(0)?;
                uid.clear();
                if naming.needs_uid(stored) {
                    UidSuffix::unpack(row.get_ref(1)?, prefix.as_str()?, &mut uid)?;
                }
                let name = naming.unpack(stored, &uid)?;
                let missing = !missing.is_empty() && missing.contains(&name);
                let (size, mtime_ms) = (size_base.saturating_add(row.get(2)?), mtime_base.saturating_add(row.get(3)?));
                on_file(name, KnownFile { size: to_u64(size), mtime_ms, note: None, missing, lacks_declared });
            }
        }
        let mut copies =
            self.connection.prepare_cached("SELECT file_name, size, mtime_ms FROM copy WHERE directory = ?1")?;
        let mut rows = copies.query([id])?;
        while let Some(row) = rows.next()? {
            let name = path_from_sql(row.get_ref(0)?)?;
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

    /// Calls `on_file` for each file of a directory that is not indexed, in the order of names.
    fn each_note(&self, id: i64, on_file: &mut dyn FnMut(OsString, KnownFile)) -> rusqlite::Result<()> {
        let mut notes = self.connection.prepare_cached(
            "SELECT file_name, size, mtime_ms, kind, reason, detail FROM unindexed_file WHERE directory = ?1 ORDER BY file_name",
        )?;
        // A directory can hold 100,000 files that are not DICOM, all for one reason.
        let mut shared = HashSet::new();
        let mut rows = notes.query([id])?;
        while let Some(row) = rows.next()? {
            let kind = NotIndexed::from_word(&row.get::<_, String>(3)?);
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
            on_file(path_from_sql(row.get_ref(0)?)?, file);
        }
        Ok(())
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
                UidSuffix::unpack(row.get_ref(1)?, row.get_ref(2)?.as_str()?, &mut uid)?;
                let file_name = if is_copy {
                    path_from_sql(row.get_ref(0)?)?
                } else {
                    naming(row, 3)?.unpack(row.get_ref(0)?, &uid)?
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
            found.push(PathBuf::from(path_from_sql(row.get_ref(0)?)?));
        }
        Ok(())
    }
}
