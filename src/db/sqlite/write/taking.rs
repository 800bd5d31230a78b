//! Import of another index file: instances with their files and arrivals, and the notes about them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};

use super::super::schema::EXCHANGED_DISKS;
use super::super::sql_values::{path_from_sql, place_from_number};
use super::asserted_values::record_of_text;
use super::rows::{File, InstanceRow, NewInstance, Result};
use super::tables::Tables;
use crate::db::EventRecording;
use crate::model::clock::Clock;
use crate::model::declared::DeclaredSet;
use crate::model::location::Place;
use crate::model::record::InstanceRecord;

/// Notes of files: their tables, with the columns after the directory.
const NOTES_OF_FILES: &[(&str, &str)] = &[
    ("file_fault", "file_name, faults"),
    ("missing_file", "file_name"),
    ("conflict", "file_name, kind, study_instance_uid, series_instance_uid, sop_instance_uid, first_seen_ms"),
    ("unindexed_file", "file_name, size, mtime_ms, kind, reason, detail"),
];

/// Another index file, which is only read, and the rows here that stand for its rows.
pub(in super::super) struct OtherIndex<'o> {
    tables: Tables<'o>,
    directories: HashMap<i64, (Place, i64)>,
    arrivals: HashMap<i64, i64>,
    removals: HashMap<i64, i64>,
}

impl<'o> OtherIndex<'o> {
    pub(super) fn new(tables: Tables<'o>) -> Self {
        Self { tables, directories: HashMap::new(), arrivals: HashMap::new(), removals: HashMap::new() }
    }

    fn connection(&self) -> &'o Connection {
        self.tables.connection
    }
}

/// Whether an index file has instances that were removed from another one.
pub(in super::super) fn has_removed_of(connection: &Connection, other: &Connection) -> Result<bool> {
    if !other.table_exists(None, "removed_instance")? {
        return Ok(false);
    }
    let declared = Arc::clone(DeclaredSet::none());
    let mut tables = Tables::new(connection, Clock::System, declared, EventRecording::Off)?;
    let mut removed = other.prepare("SELECT sop_instance_uid FROM removed_instance")?;
    let mut rows = removed.query([])?;
    while let Some(row) = rows.next()? {
        if tables.find_instance(row.get_ref(0)?.as_str()?)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Tables<'_> {
    /// Takes a study in. What is here already stays the first location of its instance.
    pub(super) fn take_study(&mut self, other: &mut OtherIndex<'_>, study_instance_uid: &str) -> Result<()> {
        for group in other.tables.groups_of_study(study_instance_uid)? {
            for uid in other.tables.uids_of_group(group)? {
                if let Some(existing) = other.tables.find_instance(&uid)? {
                    self.take_instance(other, &existing)?;
                }
            }
        }
        Ok(())
    }

    fn take_instance(&mut self, other: &mut OtherIndex<'_>, theirs: &InstanceRow) -> Result<()> {
        let record = other.tables.whole_record_of(theirs)?;
        let (place, directory) = self.directory_of(other, theirs.instance_group.directory)?;
        let first = File { directory, ..other.tables.files.first_file(theirs, place)? };
        let arrival = theirs.instance_group.arrival.map(|arrival| self.arrival_of(other, arrival)).transpose()?;
        self.origins.set_arrival(arrival);
        let uid = theirs.uid();
        match self.find_instance(&uid)? {
            None => drop(self.insert_instance(&NewInstance::alone(&record, first))?),
            Some(ours) => self.take_file(&ours, &record, &first, false)?,
        }
        for copy in other.tables.copies.of(theirs)? {
            let Some(ours) = self.find_instance(&uid)? else { return Ok(()) };
            let own = copy.record.as_deref().map(record_of_text).transpose()?;
            let (_, directory) = self.directory_of(other, copy.directory)?;
            let file = File { directory, name: &copy.file_name, ..copy.as_first() };
            // Only its bytes may tell that it differs. The index does not keep them.
            self.take_file(&ours, own.as_ref().unwrap_or(&record), &file, copy.differs)?;
        }
        Ok(())
    }

    /// Takes a file of an instance that is here. It may be known to differ from others of it.
    fn take_file(&mut self, ours: &InstanceRow, record: &InstanceRecord, file: &File<'_>, differs: bool) -> Result<()> {
        let is_known =
            ours.lies_at(file.directory, file.name) || self.copies.instance_at(file.directory, file.name)?.is_some();
        if is_known {
            return Ok(());
        }
        let is_without_object = |place| place == Place::MetadataOnly;
        let first_place = self.files.place_of(ours.instance_group.directory)?;
        match (is_without_object(first_place), is_without_object(file.place)) {
            (true, true) => {}
            (true, false) => drop(self.supersede(ours, record, file, differs)?),
            (false, _) => {
                let uid = std::ffi::OsString::from(ours.uid());
                let name = if is_without_object(file.place) { &uid } else { file.name };
                self.insert_copy(ours, record, &File { name, ..*file }, differs)?;
            }
        }
        Ok(())
    }

    /// The kind of a directory of the other file, and its row here.
    fn directory_of(&mut self, other: &mut OtherIndex<'_>, theirs: i64) -> Result<(Place, i64)> {
        if let Some(known) = other.directories.get(&theirs) {
            return Ok(*known);
        }
        let (place, path) = other
            .connection()
            .prepare_cached("SELECT place, path FROM directory WHERE id = ?1")?
            .query_row([theirs], |row| Ok((row.get(0)?, path_from_sql(row.get_ref(1)?)?)))?;
        let place = place_from_number(place)?;
        let ours = (place, self.files.directory(place, &PathBuf::from(path))?);
        other.directories.insert(theirs, ours);
        Ok(ours)
    }

    /// The arrival here that stands for one of the other file. Its scan comes with it.
    fn arrival_of(&self, other: &mut OtherIndex<'_>, theirs: i64) -> Result<i64> {
        if let Some(known) = other.arrivals.get(&theirs) {
            return Ok(*known);
        }
        let columns = "kind, calling_ae_title, address, first_ms";
        let (mut values, scan) = other
            .connection()
            .prepare_cached(&format!("SELECT {columns}, scan FROM arrival WHERE id = ?1"))?
            .query_row([theirs], |row| {
                Ok(((0..4).map(|at| row.get(at)).collect::<Result<Vec<Value>>>()?, row.get::<_, Option<i64>>(4)?))
            })?;
        let scan = scan.map(|scan| self.scan_of(other, scan)).transpose()?.flatten();
        values.push(scan.map_or(Value::Null, Value::Integer));
        let ours = self.row_of("arrival", &format!("{columns}, scan"), &values)?;
        other.arrivals.insert(theirs, ours);
        Ok(ours)
    }

    fn scan_of(&self, other: &OtherIndex<'_>, theirs: i64) -> Result<Option<i64>> {
        let columns = "started_ms, finished_ms, roots, summary";
        let values = other
            .connection()
            .prepare_cached(&format!("SELECT {columns} FROM scan WHERE id = ?1"))?
            .query_row([theirs], |row| (0..4).map(|at| row.get(at)).collect::<Result<Vec<Value>>>())
            .optional()?;
        values.map(|values| self.row_of("scan", columns, &values)).transpose()
    }

    /// The row of a table with these values. It is made if there is none.
    fn row_of(&self, table: &str, columns: &str, values: &[Value]) -> Result<i64> {
        let names: Vec<&str> = columns.split(", ").collect();
        let same: Vec<_> = names.iter().enumerate().map(|(at, name)| format!("{name} IS ?{}", at + 1)).collect();
        let known = self
            .connection
            .prepare_cached(&format!("SELECT id FROM {table} WHERE {}", same.join(" AND ")))?
            .query_row(params_from_iter(values), |row| row.get(0))
            .optional()?;
        if let Some(known) = known {
            return Ok(known);
        }
        let marks = vec!["?"; names.len()].join(", ");
        self.connection
            .prepare_cached(&format!("INSERT INTO {table} ({columns}) VALUES ({marks})"))?
            .execute(params_from_iter(values))?;
        Ok(self.connection.last_insert_rowid())
    }

    /// Takes in what the other file has besides studies: notes of files, mount points and removals.
    pub(super) fn take_notes(&mut self, other: &mut OtherIndex<'_>) -> Result<()> {
        for (table, columns) in NOTES_OF_FILES {
            self.take_rows(other, table, columns, |_, _, _| Ok(true))?;
        }
        self.take_paths(other, "mount_point")?;
        if EXCHANGED_DISKS.are_in(other.connection())? {
            EXCHANGED_DISKS.make(self.connection)?;
            self.take_paths(other, "exchanged_disk")?;
        }
        self.take_removals(other)
    }

    /// Takes in a table of paths.
    fn take_paths(&mut self, other: &OtherIndex<'_>, table: &str) -> Result<()> {
        let mut paths = other.connection().prepare(&format!("SELECT path FROM {table}"))?;
        let mut rows = paths.query([])?;
        let insert = format!("INSERT OR IGNORE INTO {table} (path) VALUES (?1)");
        while let Some(row) = rows.next()? {
            self.connection.prepare_cached(&insert)?.execute([row.get::<_, Value>(0)?])?;
        }
        Ok(())
    }

    /// Takes in rows that begin with a directory, if there are none for their files yet. `change`
    /// may change the values, and says whether they are taken.
    fn take_rows(
        &mut self,
        other: &mut OtherIndex<'_>,
        table: &str,
        columns: &str,
        change: impl Fn(&Self, &OtherIndex<'_>, &mut Vec<Value>) -> Result<bool>,
    ) -> Result<()> {
        let count = columns.split(", ").count() + 1;
        let marks = vec!["?"; count].join(", ");
        let insert = format!("INSERT OR IGNORE INTO {table} (directory, {columns}) VALUES ({marks})");
        let mut statement = other.connection().prepare(&format!("SELECT directory, {columns} FROM {table}"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (_, directory) = self.directory_of(other, row.get(0)?)?;
            let mut values = vec![Value::Integer(directory)];
            for at in 1..count {
                values.push(row.get(at)?);
            }
            if change(self, other, &mut values)? {
                self.connection.prepare_cached(&insert)?.execute(params_from_iter(values))?;
            }
        }
        Ok(())
    }

    /// Takes in what was removed from the other file, unless this one has the instance.
    fn take_removals(&mut self, other: &mut OtherIndex<'_>) -> Result<()> {
        let columns = "begun_ms, takes_objects, instances, emptied_ms";
        let mut statement = other.connection().prepare(&format!("SELECT id, {columns} FROM removal"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let values = (1..5).map(|at| row.get(at)).collect::<Result<Vec<Value>>>()?;
            let ours = self.row_of("removal", columns, &values)?;
            other.removals.insert(row.get(0)?, ours);
        }
        let mut statement =
            other.connection().prepare("SELECT sop_instance_uid, removal, record FROM removed_instance")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let uid: String = row.get(0)?;
            let removal = other.removals.get(&row.get(1)?).copied();
            if let (None, Some(removal)) = (self.find_instance(&uid)?, removal) {
                self.connection
                    .prepare_cached(
                        "INSERT OR IGNORE INTO removed_instance (sop_instance_uid, removal, record) VALUES (?1, ?2, ?3)",
                    )?
                    .execute(params![uid, removal, row.get::<_, Option<String>>(2)?])?;
            }
        }
        let columns = "file_name, removal, sop_instance_uid, size, mtime_ms, checksum, differs, state";
        self.take_rows(other, "removed_file", columns, |_, other, values| {
            let Some(removal) = values.get_mut(2) else { return Ok(false) };
            let Value::Integer(theirs) = *removal else { return Ok(false) };
            let ours = other.removals.get(&theirs).copied();
            *removal = ours.map_or(Value::Null, Value::Integer);
            Ok(ours.is_some())
        })
    }
}
