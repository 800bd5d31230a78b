//! Removals by operators, as an SQLite file has them: see [`RemovalSearch`] and [`RemovalChanges`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::vtab::array::Array;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::reader::SqliteReader;
use super::schema::{UNDONE_REMOVALS, has_all};
use super::sql_values::{PathValue, path_from_sql, place_from_number, to_u64};
use super::write::record_of_text;
use super::writer::SqliteWriterHandle;
use crate::db::removals::{FOR_TRASH, IN_TRASH, RemovalChanges, RemovalSearch};
use crate::db::{Error, Removal, RemovedCounts, RemovedFile};
use crate::model::checksum::Checksum;
use crate::model::location::Location;
use crate::model::record::InstanceRecord;

impl SqliteReader {
    /// Whether the index has the tables of removals. One that only an older program has written has
    /// none.
    fn knows_removals(&self) -> Result<bool, Error> {
        Ok(has_all(&self.connection, &["removed_file"])?)
    }

    fn removed_files(&self, condition: &str, parameters: impl rusqlite::Params) -> Result<Vec<RemovedFile>, Error> {
        let sql = format!(
            "SELECT f.directory, f.file_name, f.sop_instance_uid, f.removal, f.size, f.mtime_ms, f.checksum, f.differs, \
             f.state, d.place, d.path, r.begun_ms FROM removed_file f JOIN directory d ON d.id = f.directory \
             JOIN removal r ON r.id = f.removal WHERE {condition}"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(parameters, |row| {
            Ok(RemovedFile {
                directory: row.get(0)?,
                location: Location {
                    place: place_from_number(row.get(9)?)?,
                    directory: PathBuf::from(path_from_sql(row.get_ref(10)?)?),
                    file_name: path_from_sql(row.get_ref(1)?)?,
                    size: to_u64(row.get(4)?),
                    mtime_ms: row.get(5)?,
                },
                sop_instance_uid: row.get(2)?,
                removal: row.get(3)?,
                begun_ms: row.get(11)?,
                checksum: row.get::<_, Option<_>>(6)?.map(Checksum::from_bytes),
                differs: row.get(7)?,
                is_in_trash: row.get::<_, i64>(8)? == IN_TRASH,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl RemovalSearch for SqliteReader {
    fn removals(&mut self) -> Result<Vec<Removal>, Error> {
        if !self.knows_removals()? {
            return Ok(Vec::new());
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT r.id, r.begun_ms, r.takes_objects, r.instances, r.emptied_ms, \
             (SELECT count(*) FROM removed_instance i WHERE i.removal = r.id), \
             (SELECT count(*) FROM removed_file f WHERE f.removal = r.id AND f.state = ?1), \
             (SELECT count(*) FROM removed_file f WHERE f.removal = r.id AND f.state = ?2) \
             FROM removal r ORDER BY r.id DESC",
        )?;
        let rows = statement.query_map([FOR_TRASH, IN_TRASH], |row| {
            Ok(Removal {
                id: row.get(0)?,
                begun_ms: row.get(1)?,
                takes_objects: row.get(2)?,
                instances: to_u64(row.get(3)?),
                emptied_ms: row.get(4)?,
                still_removed: to_u64(row.get(5)?),
                for_trash: to_u64(row.get(6)?),
                in_trash: to_u64(row.get(7)?),
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn removed_among(&mut self, sop_instance_uids: Vec<String>) -> Result<HashMap<String, i64>, Error> {
        if !self.knows_removals()? {
            return Ok(HashMap::new());
        }
        let uids = Array::new(sop_instance_uids.into_iter().map(Value::from).collect());
        let sql = "SELECT i.sop_instance_uid, r.begun_ms FROM removed_instance i JOIN removal r ON r.id = i.removal \
                   WHERE i.sop_instance_uid IN rarray(?1)";
        let mut statement = self.connection.prepare_cached(sql)?;
        let removed = statement.query_map([uids], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        Ok(removed)
    }

    fn files_for_trash(&mut self, after: Option<&RemovedFile>, limit: usize) -> Result<Vec<RemovedFile>, Error> {
        if !self.knows_removals()? {
            return Ok(Vec::new());
        }
        let (directory, name) = after.map_or((0, None), |after| (after.directory, Some(&*after.location.file_name)));
        self.removed_files(
            "f.state = 1 AND (f.directory > ?1 OR (f.directory = ?1 AND (?2 IS NULL OR f.file_name > ?2))) \
             ORDER BY f.directory, f.file_name LIMIT ?3",
            params![directory, name.map(PathValue), i64::try_from(limit).unwrap_or(i64::MAX)],
        )
    }

    fn files_of_removal(&mut self, removal: i64, after: &str, limit: usize) -> Result<Vec<RemovedFile>, Error> {
        self.removed_files(
            "f.removal = ?1 AND f.sop_instance_uid IN (SELECT DISTINCT sop_instance_uid FROM removed_file \
             WHERE removal = ?1 AND sop_instance_uid > ?2 ORDER BY sop_instance_uid LIMIT ?3) \
             ORDER BY f.sop_instance_uid, f.differs, d.place <> 1",
            params![removal, after, i64::try_from(limit).unwrap_or(i64::MAX)],
        )
    }

    fn instances_of_removal(
        &mut self,
        removal: i64,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, Option<InstanceRecord>)>, Error> {
        let mut statement = self.connection.prepare_cached(
            "SELECT sop_instance_uid, record FROM removed_instance WHERE removal = ?1 AND sop_instance_uid > ?2 \
             ORDER BY sop_instance_uid LIMIT ?3",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![removal, after, limit], |row| {
            let record: Option<String> = row.get(1)?;
            Ok((row.get(0)?, record.as_deref().map(record_of_text).transpose()?))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl RemovalChanges for SqliteWriterHandle {
    fn begin_removal(&self, begun_ms: i64, takes_objects: bool) -> Result<i64, Error> {
        self.maintain(move |batch| new_removal(batch.connection(), begun_ms, takes_objects))
    }

    fn remove(&self, removal: i64, takes_objects: bool, uids: Vec<String>) -> Result<RemovedCounts, Error> {
        self.maintain(move |batch| {
            let mut counts = RemovedCounts::default();
            for uid in &uids {
                counts.add(batch.remove_instance(uid, removal, takes_objects)?);
            }
            batch
                .connection()
                .prepare_cached("UPDATE removal SET instances = instances + ?2 WHERE id = ?1")?
                .execute(params![removal, i64::try_from(counts.instances).unwrap_or(i64::MAX)])?;
            Ok(counts)
        })
    }

    fn note_removed(&self, removal: i64, uids: Vec<String>) -> Result<(), Error> {
        self.maintain(move |batch| uids.iter().try_for_each(|uid| batch.note_removed(uid, removal)))
    }

    fn trashed(&self, files: Vec<RemovedFile>) -> Result<(), Error> {
        self.maintain(move |batch| {
            for file in &files {
                batch.note_trashed(file.directory, &file.location.file_name)?;
            }
            Ok(())
        })
    }

    fn forget_removed(&self, files: Vec<RemovedFile>) -> Result<(), Error> {
        self.maintain(move |batch| {
            for file in &files {
                batch.forget_removed(file.directory, &file.location.file_name)?;
            }
            Ok(())
        })
    }

    fn lift_removed(&self, uids: Vec<String>) -> Result<(), Error> {
        self.maintain(move |batch| uids.iter().try_for_each(|uid| batch.lift_removed(uid)))
    }

    fn end_removal(&self, removal: i64) -> Result<(), Error> {
        self.maintain(move |batch| {
            for sql in [
                "DELETE FROM removed_file WHERE removal = ?1",
                "DELETE FROM removed_instance WHERE removal = ?1",
                "DELETE FROM removal WHERE id = ?1",
            ] {
                batch.connection().prepare_cached(sql)?.execute([removal])?;
            }
            UNDONE_REMOVALS.make(batch.connection())?;
            batch
                .connection()
                .prepare_cached(
                    "INSERT INTO undone_removal (only_row, last) VALUES (0, ?1) \
                     ON CONFLICT (only_row) DO UPDATE SET last = max(last, excluded.last)",
                )?
                .execute([removal])?;
            batch.forget_directories();
            Ok(())
        })
    }

    fn emptied(&self, removal: i64, _: &Path, now_ms: i64) -> Result<u64, Error> {
        self.maintain(move |batch| {
            let connection = batch.connection();
            connection
                .prepare_cached("DELETE FROM removed_file WHERE removal = ?1 AND state = ?2")?
                .execute([removal, IN_TRASH])?;
            connection
                .prepare_cached("UPDATE removal SET emptied_ms = ?2 WHERE id = ?1")?
                .execute([removal, now_ms])?;
            Ok(0)
        })
    }

    fn removal_of(&self, begun_ms: i64) -> Result<i64, Error> {
        self.maintain(move |batch| {
            let connection = batch.connection();
            let known = connection
                .prepare_cached("SELECT id FROM removal WHERE begun_ms = ?1")?
                .query_row([begun_ms], |row| row.get(0))
                .optional()?;
            if let Some(known) = known {
                return Ok(known);
            }
            new_removal(connection, begun_ms, true)
        })
    }
}

/// Inserts a removal and returns its number, which no removal had before.
fn new_removal(connection: &Connection, begun_ms: i64, takes_objects: bool) -> rusqlite::Result<i64> {
    let undone = match UNDONE_REMOVALS.are_in(connection)? {
        true => connection.query_row("SELECT coalesce(max(last), 0) FROM undone_removal", [], |row| row.get(0))?,
        false => 0_i64,
    };
    connection
        .prepare_cached(
            "INSERT INTO removal (id, begun_ms, takes_objects) \
             SELECT max(?3, coalesce(max(id), 0)) + 1, ?1, ?2 FROM removal",
        )?
        .execute(params![begun_ms, takes_objects, undone])?;
    Ok(connection.last_insert_rowid())
}
