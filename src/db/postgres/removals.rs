//! Removals by operators: see [`RemovalSearch`] and [`RemovalChanges`].

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tokio_postgres::Row;

use super::changer::IndexChanger;
use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::flight::SqlParameter;
use super::keys::{RowKey, from_column, limit_of, path_from, place_number, to_u64};
use super::load::PartNeeds;
use super::reader::PostgresReader;
use super::removed_rows::{FILES, file_of, name_key, record_of};
use super::roots::NamedRoots;
use super::writer::PostgresWriterHandle;
use crate::db::contents::{Contents, FileKey};
use crate::db::removals::{FOR_TRASH, IN_TRASH, RemovalChanges, RemovalSearch};
use crate::db::{Error, REMOVED, Removal, RemovedCounts, RemovedFile};
use crate::model::location::Place;
use crate::model::record::InstanceRecord;

/// The table that tells whether the database has those of removals.
const TABLE: &str = "removed_file";

impl PostgresReader {
    fn removed_files(&mut self, condition: &str, parameters: &[SqlParameter<'_>]) -> Result<Vec<RemovedFile>, Error> {
        let (sql, roots) = (format!("{FILES} WHERE {condition}"), self.roots());
        let ask = |connection: &mut ServerConnection| {
            connection.query(&sql, parameters)?.iter().map(file_of).collect::<Result<Vec<RemovedFile>, _>>()
        };
        let mut found = self.ask_of_table(TABLE, ask)?;
        found.iter_mut().for_each(|file| roots.localize(&mut file.location));
        Ok(found)
    }
}

impl RemovalSearch for PostgresReader {
    fn removals(&mut self) -> Result<Vec<Removal>, Error> {
        let sql = "SELECT r.id, r.begun_ms, r.takes_objects, r.instances, r.emptied_ms, \
                   (SELECT count(*) FROM removed_instance i WHERE i.removal = r.id), \
                   (SELECT count(*) FROM removed_file f WHERE f.removal = r.id AND f.state = $1), \
                   (SELECT count(*) FROM removed_file f WHERE f.removal = r.id AND f.state = $2) \
                   FROM removal r ORDER BY r.id DESC";
        let removal_of = |row: &Row| -> Result<Removal, ServerFailure> {
            let (instances, still_removed) = (to_u64(row.try_get(3)?), to_u64(row.try_get(5)?));
            let (for_trash, in_trash) = (to_u64(row.try_get(6)?), to_u64(row.try_get(7)?));
            let begun = Removal::begun(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            Ok(Removal { instances, still_removed, for_trash, in_trash, emptied_ms: row.try_get(4)?, ..begun })
        };
        let states = [FOR_TRASH as i16, IN_TRASH as i16];
        self.ask_of_table(TABLE, |connection| {
            connection.query(sql, &[&states[0], &states[1]])?.iter().map(removal_of).collect()
        })
    }

    fn removed_among(&mut self, sop_instance_uids: Vec<String>) -> Result<HashMap<String, i64>, Error> {
        let keys: Vec<RowKey> = sop_instance_uids.iter().map(|uid| RowKey::of_uid(uid)).collect();
        self.ask_of_table(TABLE, |connection| {
            let sql = "SELECT i.sop_instance_uid, r.begun_ms FROM removed_instance i JOIN removal r ON r.id = i.removal \
                       WHERE i.uid_key = ANY($1)";
            let rows = connection.query(sql, &[&keys])?;
            rows.iter().map(|row| Ok((from_column(row.try_get(0)?), row.try_get(1)?))).collect()
        })
    }

    fn files_for_trash(&mut self, after: Option<&RemovedFile>, limit: usize) -> Result<Vec<RemovedFile>, Error> {
        let (directory, name) =
            after.map_or((0, name_key("".as_ref())), |after| (after.directory, name_key(&after.location.file_name)));
        self.removed_files(
            "f.state = 1 AND (f.directory, f.name_key) > ($1, $2) ORDER BY f.directory, f.name_key LIMIT $3",
            &[&directory, &name, &limit_of(limit)],
        )
    }

    fn files_of_removal(&mut self, removal: i64, after: &str, limit: usize) -> Result<Vec<RemovedFile>, Error> {
        self.removed_files(
            "f.removal = $1 AND f.uid_key IN (SELECT DISTINCT uid_key FROM removed_file \
             WHERE removal = $1 AND ($2 OR uid_key > $3) ORDER BY uid_key LIMIT $4) \
             ORDER BY f.uid_key, f.differs, d.place <> 1",
            &[&removal, &after.is_empty(), &RowKey::of_uid(after), &limit_of(limit)],
        )
    }

    fn instances_of_removal(
        &mut self,
        removal: i64,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, Option<InstanceRecord>)>, Error> {
        let sql = "SELECT sop_instance_uid, record FROM removed_instance WHERE removal = $1 \
                   AND ($2 OR uid_key > $3) ORDER BY uid_key LIMIT $4";
        let parameters: [SqlParameter<'_>; 4] = [&removal, &after.is_empty(), &RowKey::of_uid(after), &limit_of(limit)];
        self.ask_of_table(TABLE, |connection| {
            let rows = connection.query(sql, &parameters)?;
            rows.iter().map(|row| Ok((from_column(row.try_get(0)?), record_of(row.try_get(1)?)?))).collect()
        })
    }
}

/// The files as rows, and as the keys of their marks.
fn rows_of(files: &[RemovedFile], roots: &NamedRoots) -> (Vec<i64>, Vec<RowKey>, Vec<RowKey>) {
    let names = files.iter().map(|file| name_key(&file.location.file_name)).collect();
    let marks = files.iter().map(|RemovedFile { location, .. }| {
        RowKey::of_file(&FileKey::of(location.place, &roots.kept(&location.directory), &location.file_name))
    });
    (files.iter().map(|file| file.directory).collect(), names, marks.collect())
}

/// Runs a statement for the rows of files, and forgets that scans pass over them.
fn change_files(changer: &mut IndexChanger, sql: &str, files: &[RemovedFile]) -> Result<(), ServerFailure> {
    let (directories, names, marks) = rows_of(files, changer.roots());
    changer.transaction(|connection, _| {
        let sql = format!("{sql} WHERE (directory, name_key) IN (SELECT * FROM unnest($1::bigint[], $2::uuid[]))");
        connection.execute(&sql, &[&directories, &names])?;
        let sql = "DELETE FROM file_mark WHERE file_key = ANY($1) AND mark = 'unindexed' AND reason = $2";
        connection.execute(sql, &[&marks, &REMOVED]).map(drop)
    })
}

impl PostgresWriterHandle {
    /// Changes the contents of some instances in one transaction.
    fn change_instances<T: Send + 'static>(
        &self,
        uids: Vec<String>,
        change: impl Fn(&mut Contents, &str) -> T + Send + 'static,
    ) -> Result<Vec<T>, Error> {
        let needs = PartNeeds { uids: uids.iter().cloned().collect(), ..PartNeeds::default() };
        self.change_index(move |changer, _| {
            let all = |contents: &mut Contents| uids.iter().map(|uid| change(contents, uid)).collect::<Vec<T>>();
            changer.change(&needs, all).map(|(done, _)| done)
        })
    }
}

impl RemovalChanges for PostgresWriterHandle {
    fn begin_removal(&self, begun_ms: i64, takes_objects: bool) -> Result<i64, Error> {
        self.change_index(move |changer, _| {
            changer.transaction(|connection, _| begin(connection, begun_ms, takes_objects))
        })
    }

    fn remove(&self, removal: i64, takes_objects: bool, uids: Vec<String>) -> Result<RemovedCounts, Error> {
        let removed =
            self.change_instances(uids, move |contents, uid| contents.remove_instance(uid, removal, takes_objects))?;
        let mut counts = RemovedCounts::default();
        removed.into_iter().for_each(|of_instance| counts.add(of_instance));
        Ok(counts)
    }

    fn note_removed(&self, removal: i64, uids: Vec<String>) -> Result<(), Error> {
        self.change_instances(uids, move |contents, uid| contents.note_removed(uid, removal)).map(drop)
    }

    fn trashed(&self, files: Vec<RemovedFile>) -> Result<(), Error> {
        let sql = format!("UPDATE removed_file SET state = {IN_TRASH}");
        self.change_index(move |changer, _| change_files(changer, &sql, &files))
    }

    fn forget_removed(&self, files: Vec<RemovedFile>) -> Result<(), Error> {
        self.change_index(move |changer, _| change_files(changer, "DELETE FROM removed_file", &files))
    }

    fn lift_removed(&self, uids: Vec<String>) -> Result<(), Error> {
        self.change_instances(uids, |contents, uid| contents.lift_removed(uid, None)).map(drop)
    }

    fn end_removal(&self, removal: i64) -> Result<(), Error> {
        self.change_index(move |changer, _| {
            changer.transaction(|connection, _| {
                for sql in [
                    "DELETE FROM removed_file WHERE removal = $1",
                    "DELETE FROM removed_instance WHERE removal = $1",
                    "DELETE FROM removal WHERE id = $1",
                ] {
                    connection.execute(sql, &[&removal])?;
                }
                Ok(())
            })
        })
    }

    fn emptied(&self, removal: i64, storage: &Path, now_ms: i64) -> Result<u64, Error> {
        let (roots, storage) = (Arc::clone(self.roots()), storage.to_owned());
        self.change_index(move |changer, _| {
            changer.transaction(|connection, _| {
                let own = own_of_trash(connection, removal, |kept| roots.local(kept).starts_with(&storage))?;
                let sql = "DELETE FROM removed_file WHERE removal = $1 AND state = $2 AND directory = ANY($3)";
                connection.execute(sql, &[&removal, &(IN_TRASH as i16), &own])?;
                let sql = "SELECT count(*) FROM removed_file WHERE removal = $1 AND state = $2";
                let left = to_u64(connection.query_one(sql, &[&removal, &(IN_TRASH as i16)])?.try_get(0)?);
                if left == 0 {
                    let sql = "UPDATE removal SET emptied_ms = $2 WHERE id = $1";
                    connection.execute(sql, &[&removal, &now_ms])?;
                }
                Ok(left)
            })
        })
    }

    fn removal_of(&self, begun_ms: i64) -> Result<i64, Error> {
        self.change_index(move |changer, _| {
            changer.transaction(|connection, _| {
                let known = connection.query_opt("SELECT id FROM removal WHERE begun_ms = $1", &[&begun_ms])?;
                match known {
                    Some(known) => Ok(known.try_get(0)?),
                    None => begin(connection, begun_ms, true),
                }
            })
        })
    }
}

/// The directories with objects of a removal in the trash that are of this storage directory. Each
/// node has a trash of its own, and only what was in this one is gone.
fn own_of_trash(
    connection: &mut ServerConnection,
    removal: i64,
    is_below_storage: impl Fn(&Path) -> bool,
) -> Result<Vec<i64>, ServerFailure> {
    let sql = "SELECT d.id, d.place, d.path FROM directory d \
               WHERE d.id IN (SELECT directory FROM removed_file WHERE removal = $1 AND state = $2)";
    let mut own = Vec::new();
    for row in connection.query(sql, &[&removal, &(IN_TRASH as i16)])? {
        let (id, place): (i64, i16) = (row.try_get(0)?, row.try_get(1)?);
        if place != place_number(Place::Managed) || is_below_storage(&path_from(row.try_get(2)?)) {
            own.push(id);
        }
    }
    Ok(own)
}

fn begin(connection: &mut ServerConnection, begun_ms: i64, takes_objects: bool) -> Result<i64, ServerFailure> {
    let sql = "INSERT INTO removal (begun_ms, takes_objects) VALUES ($1, $2) RETURNING id";
    Ok(connection.query_one(sql, &[&begun_ms, &takes_objects])?.try_get(0)?)
}
