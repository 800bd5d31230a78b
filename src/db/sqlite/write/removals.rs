//! The rows of what operators removed.

use std::cell::Cell;
use std::ffi::OsStr;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::sql_values::{PathValue, path_from_sql, place_from_number};
use super::rows::{File, Result, to_i64};
use crate::db::REMOVED;
use crate::db::removals::IN_TRASH;
use crate::model::location::Place;

/// The rows of what was removed.
pub(super) struct Removals<'c> {
    connection: &'c Connection,
    /// Whether any instance is removed. `None` if that is not known.
    any: Cell<Option<bool>>,
}

impl<'c> Removals<'c> {
    pub(super) const fn new(connection: &'c Connection) -> Self {
        Self { connection, any: Cell::new(None) }
    }

    /// Forgets what another process may have changed.
    pub(super) fn forget(&self) {
        self.any.set(None);
    }

    /// Whether an instance is removed. Without any removed instance, that costs nothing.
    pub(super) fn has(&self, uid: &str) -> Result<bool> {
        let any = match self.any.get() {
            Some(any) => any,
            None => {
                let sql = "SELECT EXISTS (SELECT 1 FROM removed_instance)";
                let any = self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
                self.any.set(Some(any));
                any
            }
        };
        if !any {
            return Ok(false);
        }
        self.connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM removed_instance WHERE sop_instance_uid = ?1)")?
            .query_row([uid], |row| row.get(0))
    }

    /// The removal of an instance.
    pub(super) fn removal_of(&self, uid: &str) -> Result<Option<i64>> {
        self.connection
            .prepare_cached("SELECT removal FROM removed_instance WHERE sop_instance_uid = ?1")?
            .query_row([uid], |row| row.get(0))
            .optional()
    }

    pub(super) fn insert_instance(&self, uid: &str, removal: i64, record: Option<&str>) -> Result<()> {
        self.any.set(Some(true));
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO removed_instance (sop_instance_uid, removal, record) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![uid, removal, record])?;
        Ok(())
    }

    pub(super) fn insert_file(
        &self,
        file: &File<'_>,
        uid: &str,
        removal: i64,
        differs: bool,
        state: i64,
    ) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO removed_file (directory, file_name, sop_instance_uid, removal, size, mtime_ms, \
                 checksum, differs, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                file.directory,
                PathValue(file.name),
                uid,
                removal,
                to_i64(file.size),
                file.mtime_ms,
                file.checksum.map(|checksum| checksum.to_bytes()),
                differs,
                state
            ])?;
        Ok(())
    }

    /// Lets an instance come back, because it was received or an operator asks for it.
    ///
    /// The next scan finds its files in place again. The file that was received, if it is known,
    /// gets its row from the caller. Other files of the node stay removed.
    pub(super) fn lift(&self, uid: &str, received: Option<(i64, &OsStr)>) -> Result<()> {
        let files: Vec<(i64, std::ffi::OsString, Place)> = self
            .connection
            .prepare_cached(
                "SELECT f.directory, f.file_name, d.place FROM removed_file f JOIN directory d ON d.id = f.directory \
                 WHERE f.sop_instance_uid = ?1 AND f.state <> ?2",
            )?
            .query_map(params![uid, IN_TRASH], |row| {
                Ok((row.get(0)?, path_from_sql(row.get_ref(1)?)?, place_from_number(row.get(2)?)?))
            })?
            .collect::<Result<_>>()?;
        for (directory, name, place) in files {
            let is_received = received == Some((directory, &name));
            match place {
                Place::Managed if !is_received => continue,
                Place::Managed | Place::InPlace | Place::Archive | Place::MetadataOnly => {}
            }
            self.forget_file(directory, &name)?;
            if place == Place::Archive {
                self.have_archive_read(directory)?;
            }
        }
        self.connection.prepare_cached("DELETE FROM removed_instance WHERE sop_instance_uid = ?1")?.execute([uid])?;
        self.any.set(None);
        Ok(())
    }

    /// Notes a file as being in the trash. Nothing lies at its path any more.
    pub(super) fn note_trashed(&self, directory: i64, name: &OsStr) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE removed_file SET state = ?3 WHERE directory = ?1 AND file_name = ?2")?
            .execute(params![directory, PathValue(name), IN_TRASH])?;
        self.connection
            .prepare_cached("DELETE FROM unindexed_file WHERE directory = ?1 AND file_name = ?2 AND reason = ?3")?
            .execute(params![directory, PathValue(name), REMOVED])?;
        Ok(())
    }

    /// Drops what is noted of a removed file.
    pub(super) fn forget_file(&self, directory: i64, name: &OsStr) -> Result<()> {
        let file = params![directory, PathValue(name)];
        self.connection
            .prepare_cached("DELETE FROM removed_file WHERE directory = ?1 AND file_name = ?2")?
            .execute(file)?;
        self.connection
            .prepare_cached("DELETE FROM unindexed_file WHERE directory = ?1 AND file_name = ?2 AND reason = ?3")?
            .execute(params![directory, PathValue(name), REMOVED])?;
        Ok(())
    }

    /// Has the next scan read an archive file again.
    fn have_archive_read(&self, archive: i64) -> Result<()> {
        self.connection
            .prepare_cached(
                "DELETE FROM unindexed_file WHERE kind = 'container' AND (directory, file_name) IN \
                 (SELECT p.id, substr(a.path, length(p.path) + 2) FROM directory a JOIN directory p \
                 ON p.path = rtrim(rtrim(a.path, replace(a.path, '/', '')), '/') AND p.place <> 3 WHERE a.id = ?1)",
            )?
            .execute([archive])?;
        Ok(())
    }
}
