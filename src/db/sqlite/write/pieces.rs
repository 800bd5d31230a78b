//! All of an index as pieces, and pieces of another index as rows.

use std::sync::Arc;

use rusqlite::{Connection, Row, params};

use super::super::schema::EXCHANGED_DISKS;
use super::super::sql_values::{path_from_sql, place_from_number, to_u64};
use super::super::status::watches;
use super::asserted_values::record_of_text;
use super::locations::record_beside;
use super::origins::last_change;
use super::rows::{File, NewInstance, Result};
use super::scans;
use super::tables::Tables;
use crate::db::arrival::{ArrivalEntry, ArrivalSource, SourceOfInstances};
use crate::db::contents::{Contents, FileKey, StoredFile, Unindexed, kind};
use crate::db::pieces::{NOTED_CONFLICTS, PieceOutlet, conflicting};
use crate::db::{Error, EventRecording, KnownLocation, Mounted, NotIndexed, Note, ScanEntry, WatchEntry};
use crate::model::clock::Clock;
use crate::model::declared::DeclaredSet;
use crate::model::location::{Location, Place};

/// Gives away an index in pieces. Declared values are not in them.
pub(in super::super) fn each_piece(
    connection: &Connection,
    outlet: &mut PieceOutlet<'_>,
) -> std::result::Result<(), Error> {
    outlet.piece.last_change = last_change(connection)?;
    let sql = "SELECT id, kind, calling_ae_title, address, scan, first_ms FROM arrival";
    each_row(connection, outlet, sql, |piece, row| {
        let (calling_ae_title, address, scan) = (row.get(2)?, row.get(3)?, row.get(4)?);
        let source = ArrivalSource { kind: row.get(1)?, calling_ae_title, address, scan };
        piece.arrival_entries.insert(row.get(0)?, ArrivalEntry { source, first_ms: row.get(5)? });
        Ok(())
    })?;
    each_row(connection, outlet, "SELECT place, path FROM directory", |piece, row| {
        piece.directories.insert((kind(place_from_number(row.get(0)?)?), path_from_sql(row.get_ref(1)?)?.into()));
        Ok(())
    })?;
    outlet.flush()?;
    instances(connection, outlet)?;
    outlet.flush()?;
    marks(connection, outlet)?;
    each_row(connection, outlet, "SELECT path FROM mount_point", |piece, row| {
        piece.mount_points.insert(path_from_sql(row.get_ref(0)?)?.into());
        Ok(())
    })?;
    if EXCHANGED_DISKS.are_in(connection)? {
        each_row(connection, outlet, "SELECT path FROM exchanged_disk", |piece, row| {
            piece.exchanged_disks.insert(path_from_sql(row.get_ref(0)?)?.into());
            Ok(())
        })?;
    }
    each_row(connection, outlet, "SELECT id, started_ms, finished_ms, roots, summary FROM scan", |piece, row| {
        let (scan, started_ms, finished_ms) = (row.get(0)?, row.get(1)?, row.get(2)?);
        piece.scans.push(ScanEntry { scan, started_ms, finished_ms, roots: row.get(3)?, summary: row.get(4)? });
        Ok(())
    })?;
    for WatchEntry { roots, state } in watches(connection)? {
        outlet.piece.watches.insert(roots, state);
    }
    each_row(connection, outlet, "SELECT id FROM index_identity", |piece, row| {
        piece.id = row.get(0)?;
        Ok(())
    })?;
    outlet.flush()
}

/// Adds something of each row to the pieces.
fn each_row(
    connection: &Connection,
    outlet: &mut PieceOutlet<'_>,
    sql: &str,
    add: impl Fn(&mut Contents, &Row<'_>) -> Result<()>,
) -> std::result::Result<(), Error> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        add(&mut outlet.piece, row)?;
        outlet.added()?;
    }
    Ok(())
}

/// The instances, those of a study one after the other.
fn instances(connection: &Connection, outlet: &mut PieceOutlet<'_>) -> std::result::Result<(), Error> {
    let declared = Arc::clone(DeclaredSet::none());
    let mut tables = Tables::new(connection, Clock::System, declared, EventRecording::Off)?;
    let sql = "SELECT h.id FROM instance_group h JOIN study_series e ON e.id = h.series ORDER BY e.study, e.id, h.id";
    let groups: Vec<i64> = connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<Result<_>>()?;
    for group in groups {
        for uid in tables.uids_of_group(group)? {
            add_instance(&mut tables, &uid, &mut outlet.piece)?;
            outlet.added()?;
        }
        if tables.cache_is_large() {
            tables.forget();
        }
    }
    Ok(())
}

fn add_instance(tables: &mut Tables<'_>, uid: &str, piece: &mut Contents) -> Result<()> {
    let Some(existing) = tables.find_instance(uid)? else { return Ok(()) };
    let record = tables.instances.record_of(&existing)?;
    let KnownLocation { location, checksum, .. } = tables.files.first_location(&existing)?;
    let arrival = existing.instance_group.arrival.unwrap_or(0);
    let first = StoredFile { location, record, checksum, differs: false, declared: String::new(), arrival };
    if first.has_object() && !tables.files.first_is_there(&existing)? {
        piece.missing.insert(first.key());
    }
    let mut held = vec![first];
    for copy in tables.copies.of(&existing)? {
        let file = copy.as_first();
        let location = Location {
            place: file.place,
            directory: tables.files.path_of(file.directory)?,
            file_name: copy.file_name.clone(),
            size: file.size,
            mtime_ms: file.mtime_ms,
        };
        let own = copy.record.as_deref().map(record_of_text).transpose()?;
        let record = own.or_else(|| held.first().map(|first| first.record.clone())).unwrap_or_default();
        let (checksum, differs) = (file.checksum, copy.differs);
        let further = StoredFile { location, record, checksum, differs, declared: String::new(), arrival: 0 };
        if copy.location().is_missing {
            piece.missing.insert(further.key());
        }
        held.push(further);
    }
    piece.instances.insert(uid.to_owned(), held);
    Ok(())
}

/// The key of a file whose place, directory and name are the first columns of a row.
fn key_of(row: &Row<'_>) -> Result<FileKey> {
    let (directory, name) = (path_from_sql(row.get_ref(1)?)?, path_from_sql(row.get_ref(2)?)?);
    Ok(FileKey::of(place_from_number(row.get(0)?)?, directory.as_ref(), &name))
}

fn marks(connection: &Connection, outlet: &mut PieceOutlet<'_>) -> std::result::Result<(), Error> {
    let from = |columns: &str, table: &str| {
        format!("SELECT d.place, d.path, t.file_name{columns} FROM {table} t JOIN directory d ON d.id = t.directory")
    };
    let sql = from(", t.size, t.mtime_ms, t.kind, t.reason, t.detail", "unindexed_file");
    each_row(connection, outlet, &sql, |piece, row| {
        let kind = NotIndexed::from_word(row.get_ref(5)?.as_str()?);
        let note = Note { kind, reason: row.get(6)?, detail: row.get(7)? };
        piece.unindexed.insert(key_of(row)?, Unindexed { size: to_u64(row.get(3)?), mtime_ms: row.get(4)?, note });
        Ok(())
    })?;
    each_row(connection, outlet, &from("", "missing_file"), |piece, row| {
        piece.missing.insert(key_of(row)?);
        Ok(())
    })?;
    each_row(connection, outlet, &from(", t.faults", "file_fault"), |piece, row| {
        piece.faults.insert(key_of(row)?, row.get(3)?);
        Ok(())
    })?;
    let uids = ", t.kind, t.study_instance_uid, t.series_instance_uid, t.sop_instance_uid";
    each_row(connection, outlet, &from(uids, "conflict"), |piece, row| {
        let word = row.get_ref(3)?.as_str()?;
        let Some(kind) = NOTED_CONFLICTS.into_iter().find(|known| *known == word) else { return Ok(()) };
        let FileKey { directory, name, .. } = key_of(row)?;
        let place = place_from_number(row.get(0)?)?;
        let location = Location { place, directory, file_name: name, size: 0, mtime_ms: 0 };
        let uid = |at| row.get_ref(at)?.as_str().map_err(rusqlite::Error::from);
        let object = conflicting(location, [uid(4)?, uid(5)?, uid(6)?]);
        piece.conflicts.insert((kind, uid(6)?.to_owned(), object.key()), object);
        Ok(())
    })
}

/// Writes a piece of another index. This index has none of its instances yet.
pub(super) fn put(tables: &mut Tables<'_>, piece: &Contents) -> Result<()> {
    tables.origins.set(SourceOfInstances::Unknown);
    if piece.last_change > 0 {
        // Who asks for what has changed since a number of the former index gets all of it.
        tables.origins.skip_changes(piece.last_change)?;
    }
    for (number, ArrivalEntry { source, first_ms }) in &piece.arrival_entries {
        let ArrivalSource { kind, calling_ae_title, address, scan } = source;
        tables
            .connection
            .prepare_cached(
                "INSERT INTO arrival (id, kind, calling_ae_title, address, scan, first_ms) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![number, kind, calling_ae_title, address, scan, first_ms])?;
    }
    for (place, path) in &piece.directories {
        tables.files.directory(place_from_number(i64::from(*place))?, path)?;
    }
    for held in piece.instances.values() {
        put_instance(tables, held)?;
    }
    put_marks(tables, piece)?;
    for path in &piece.mount_points {
        tables.files.mount_point(path, Mounted::Yes)?;
    }
    for path in &piece.exchanged_disks {
        tables.files.mount_point(path, Mounted::Exchanged)?;
    }
    for ScanEntry { scan, started_ms, finished_ms, roots, summary } in &piece.scans {
        tables
            .connection
            .prepare_cached(
                "INSERT INTO scan (id, started_ms, finished_ms, roots, summary) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![scan, started_ms, finished_ms, roots, summary])?;
    }
    piece.watches.iter().try_for_each(|(roots, state)| scans::note_watch(tables, roots, Some(state)))
}

fn put_instance(tables: &mut Tables<'_>, held: &[StoredFile]) -> Result<()> {
    let Some((first, copies)) = held.split_first() else { return Ok(()) };
    let file = file_of(tables, first)?;
    tables.origins.set_arrival((first.arrival != 0).then_some(first.arrival));
    let (group, suffix) = tables.insert_instance(&NewInstance::alone(&first.record, file))?;
    for copy in copies {
        let record = record_beside(&copy.record, &first.record);
        let file = file_of(tables, copy)?;
        tables.copies.write((group, &suffix), &file, copy.differs, record.as_deref())?;
    }
    Ok(())
}

/// The file of an object in this index.
fn file_of<'f>(tables: &mut Tables<'_>, held: &'f StoredFile) -> Result<File<'f>> {
    let Location { place, directory, file_name, size, mtime_ms } = &held.location;
    let (place, directory) = (*place, tables.files.directory(*place, directory)?);
    Ok(File { place, directory, name: file_name, size: *size, mtime_ms: *mtime_ms, checksum: held.checksum })
}

fn put_marks(tables: &mut Tables<'_>, piece: &Contents) -> Result<()> {
    fn directory(tables: &mut Tables<'_>, key: &FileKey) -> Result<i64> {
        let place = if key.is_archive { Place::Archive } else { Place::InPlace };
        tables.files.directory(place, &key.directory)
    }
    for (key, Unindexed { size, mtime_ms, note }) in &piece.unindexed {
        let (directory, place) = (directory(tables, key)?, Place::InPlace);
        let (size, mtime_ms) = (*size, *mtime_ms);
        let file = File { place, directory, name: &key.name, size, mtime_ms, checksum: None };
        tables.files.note_unindexed(&file, note.kind, &note.reason, &note.detail)?;
    }
    for key in &piece.missing {
        let directory = directory(tables, key)?;
        tables.files.note_missing(directory, &key.name)?;
    }
    for (key, faults) in &piece.faults {
        let directory = directory(tables, key)?;
        tables.files.write_faults(directory, &key.name, faults)?;
    }
    for ((kind, ..), object) in &piece.conflicts {
        let file = file_of(tables, object)?;
        tables.files.note_conflict(kind, &object.record, &file, &mut tables.changes)?;
    }
    Ok(())
}
