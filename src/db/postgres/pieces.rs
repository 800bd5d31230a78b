//! A database as the source of a copy in another engine, and as its target.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_postgres::Row;

use super::address::PostgresAddress;
use super::admin;
use super::changer::IndexChanger;
use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::event_rows::{put_events, put_progress};
use super::keys::{from_column, path_from, place_from};
use super::load::{self, PartNeeds};
use super::maintenance;
use super::marks::{self, CONFLICT_COLUMNS, FileMarks, MARK_COLUMNS, conflict_of};
use super::reader::PostgresReader;
use super::roots::NamedRoots;
use super::schema;
use super::worklist::PostgresWorklist;
use crate::db::arrival::{ArrivalEntry, ArrivalSource};
use crate::db::contents::{Contents, FileKey, StoredFile, kind};
use crate::db::pieces::{OnPiece, PieceOutlet, UNTOLD_STUDIES};
use crate::db::{Error, EventProgress, IndexEvent, IndexStatus, Mounted, WorklistWork};
use crate::model::attribute::AttributeId;
use crate::model::clock::Clock;

/// Instances of instance groups that are read at once. One instance group may have more.
const READ_AT_ONCE: i64 = 4096;

/// Rows that are read at once from a cursor.
const FETCHED: usize = 1000;

impl PostgresReader {
    /// Parts that a copy in another engine lacks, in words.
    ///
    /// # Errors
    /// [`Error::NotCopied`] if answers would not be the same without it. [`Error::UnknownRoots`] if
    /// this process cannot tell where files are.
    pub(in crate::db) fn left_behind(&mut self) -> Result<Vec<&'static str>, Error> {
        let roots = self.roots();
        self.ask(|connection| left_behind(connection, &roots))
    }

    /// Gives away the index in pieces, as it is at one moment. Returns what a copy in another
    /// engine lacks then, in words.
    ///
    /// # Errors
    /// [`Error::NotCopied`] if answers would not be the same without it. [`Error::UnknownRoots`] if
    /// this process cannot tell where files are.
    pub(in crate::db) fn give(&mut self, on_piece: OnPiece<'_>) -> Result<Vec<&'static str>, Error> {
        let (server, roots) = (self.server().to_owned(), self.roots());
        let given = at_one_moment(self.connection()?, |connection| {
            let left_behind = left_behind(connection, &roots)?;
            let mut give = |piece: Contents| on_piece(roots.local_piece(&piece));
            each_piece(connection, &mut PieceOutlet::new(&mut give))?;
            Ok(left_behind)
        });
        given.map_err(|failure| failure.of(&server))
    }
}

fn left_behind(connection: &mut ServerConnection, roots: &NamedRoots) -> Result<Vec<&'static str>, ServerFailure> {
    let names = roots.unknown(roots_in_use(connection)?.into_iter());
    if !names.is_empty() {
        return Err(Error::UnknownRoots { names }.into());
    }
    let sql = "SELECT EXISTS (SELECT FROM removed_instance), EXISTS (SELECT FROM shelf WHERE declared <> '')";
    let row = connection.query_one(sql, &[])?;
    if row.try_get::<_, bool>(0)? {
        return Err(Error::NotCopied { what: "removed instances" }.into());
    }
    if connection.has_table("correction")? {
        let sql = "SELECT EXISTS (SELECT FROM correction WHERE undone_ms IS NULL)";
        if connection.query_one(sql, &[])?.try_get(0)? {
            return Err(Error::NotCopied { what: "corrections that hold" }.into());
        }
    }
    let mut left_behind = Vec::new();
    if connection.has_table("event_cursor")? {
        let lost = match connection.has_table("loss")? {
            true => "OR EXISTS (SELECT FROM event_cursor c JOIN loss l ON l.change > c.change AND l.level = 'STUDY')",
            false => "",
        };
        let sql = format!(
            "SELECT EXISTS (SELECT FROM event_cursor c JOIN shelf h ON h.change > c.change \
             AND h.change_block >= c.change - c.change % 4096) {lost}"
        );
        left_behind.extend(connection.query_one(&sql, &[])?.try_get::<_, bool>(0)?.then_some(UNTOLD_STUDIES));
    }
    left_behind.extend(row.try_get::<_, bool>(1)?.then_some("values of declared attributes"));
    Ok(left_behind)
}

/// The kept paths of the roots that files lie below.
fn roots_in_use(connection: &mut ServerConnection) -> Result<BTreeSet<PathBuf>, ServerFailure> {
    // The first component of each path, with a slash before it.
    let first = |path: &str| {
        format!(
            "substring({path} FOR coalesce(nullif(position('/'::bytea IN substring({path} FROM 2)), 0), octet_length({path})))"
        )
    };
    let of = |table: &str, path: &str| {
        format!("SELECT DISTINCT {} FROM {table} WHERE {path} >= '/@'::bytea AND {path} < '/A'::bytea", first(path))
    };
    let sql = format!("{} UNION {}", of("directory", "path"), of("file_mark", "directory"));
    connection.query(&sql, &[])?.iter().map(|row| Ok(path_from(row.try_get(0)?))).collect()
}

/// Calls `read` with the database as it is at one moment.
fn at_one_moment<T>(
    connection: &mut ServerConnection,
    read: impl FnOnce(&mut ServerConnection) -> Result<T, ServerFailure>,
) -> Result<T, ServerFailure> {
    connection.begin_reading();
    let given = read(connection);
    connection.end_reading();
    given
}

fn each_piece(connection: &mut ServerConnection, outlet: &mut PieceOutlet<'_>) -> Result<(), ServerFailure> {
    outlet.piece.last_change = connection.query_one(admin::LAST_CHANGE, &[])?.try_get(0)?;
    let sql = "SELECT id, kind, calling_ae_title, address, scan, first_ms FROM arrival";
    each_row(connection, outlet, "arrivals", sql, |piece, row| {
        let (calling_ae_title, address, scan) = (from_column(row.try_get(2)?), row.try_get(3)?, row.try_get(4)?);
        let source = ArrivalSource { kind: row.try_get(1)?, calling_ae_title, address, scan };
        piece.arrival_entries.insert(row.try_get(0)?, ArrivalEntry { source, first_ms: row.try_get(5)? });
        Ok(())
    })?;
    each_row(connection, outlet, "directory", "SELECT place, path FROM directory", |piece, row| {
        piece.directories.insert((kind(place_from(row.try_get(0)?)), path_from(row.try_get(1)?)));
        Ok(())
    })?;
    outlet.flush()?;
    instances(connection, outlet)?;
    outlet.flush()?;
    let mut files = FileMarks::default();
    each_row(connection, outlet, "marks", &format!("SELECT {MARK_COLUMNS} FROM file_mark"), |piece, row| {
        files.add(row)?;
        let FileMarks { unindexed, missing, faults, .. } = std::mem::take(&mut files);
        piece.unindexed.extend(unindexed);
        piece.missing.extend(missing);
        piece.faults.extend(faults);
        Ok(())
    })?;
    each_row(connection, outlet, "conflicts", &format!("SELECT {CONFLICT_COLUMNS} FROM conflict"), |piece, row| {
        if let Some((kind, object)) = conflict_of(row)? {
            let uid = object.record.value(AttributeId::SOPInstanceUID).to_owned();
            piece.conflicts.insert((kind, uid, object.key()), object);
        }
        Ok(())
    })?;
    each_row(connection, outlet, "mounts", "SELECT path FROM mount_point", |piece, row| {
        piece.mount_points.insert(path_from(row.try_get(0)?));
        Ok(())
    })?;
    each_row(connection, outlet, "exchanged", "SELECT path FROM exchanged_disk", |piece, row| {
        piece.exchanged_disks.insert(path_from(row.try_get(0)?));
        Ok(())
    })?;
    each_row(connection, outlet, "scans", admin::SCANS, |piece, row| {
        piece.scans.push(admin::scan_of(row)?);
        Ok(())
    })?;
    each_row(connection, outlet, "watches", "SELECT roots, state FROM watch", |piece, row| {
        piece.watches.insert(row.try_get(0)?, row.try_get(1)?);
        Ok(())
    })?;
    each_row(connection, outlet, "ids", "SELECT index_id FROM dcmdex_index", |piece, row| {
        piece.id = row.try_get(0)?;
        Ok(())
    })?;
    Ok(outlet.flush()?)
}

/// Adds something of each row to the pieces. The rows come through a cursor of this name.
fn each_row(
    connection: &mut ServerConnection,
    outlet: &mut PieceOutlet<'_>,
    cursor: &str,
    sql: &str,
    mut add: impl FnMut(&mut Contents, &Row) -> Result<(), ServerFailure>,
) -> Result<(), ServerFailure> {
    let cursor = format!("copied_{cursor}");
    connection.open_cursor(&format!("DECLARE {cursor} NO SCROLL CURSOR FOR {sql}"), &[])?;
    loop {
        let rows = connection.fetch(FETCHED, &cursor)?;
        for row in &rows {
            add(&mut outlet.piece, row)?;
            outlet.added()?;
        }
        if rows.len() < FETCHED {
            return Ok(());
        }
    }
}

/// The instances, those of a study one after the other.
fn instances(connection: &mut ServerConnection, outlet: &mut PieceOutlet<'_>) -> Result<(), ServerFailure> {
    let rows = connection.query("SELECT id, instance_count FROM shelf ORDER BY study, id", &[])?;
    let mut groups = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    loop {
        let (mut ids, mut count): (Vec<i64>, i64) = (Vec::new(), 0);
        while count < READ_AT_ONCE
            && let Some(group) = groups.next()
        {
            let (id, instances): (i64, i64) = group.map_err(|error: tokio_postgres::Error| error)?;
            ids.push(id);
            count += instances;
        }
        if ids.is_empty() {
            return Ok(());
        }
        let loaded = load::instances_of(connection, &ids)?;
        let uids: BTreeSet<String> = loaded.files.keys().cloned().collect();
        let files: BTreeSet<FileKey> = loaded.files.values().flatten().map(StoredFile::key).collect();
        let marks = marks::load(connection, &uids, &files)?;
        outlet.piece.missing.extend(marks.missing);
        for (uid, mut held) in loaded.files {
            // Declared values are not copied, so that the next scan reads the files again.
            held.iter_mut().for_each(|file| file.declared.clear());
            outlet.piece.instances.insert(uid, held);
        }
        outlet.flush()?;
    }
}

/// A database that pieces are written to. Nobody uses it before it is whole.
pub(in crate::db) struct PostgresCopy(IndexChanger);

impl PostgresCopy {
    /// Takes an empty database, or one in which a copy was broken off.
    ///
    /// # Errors
    /// [`Error::HasContent`] if there is an index.
    pub(in crate::db) fn create(address: &PostgresAddress) -> Result<Self, Error> {
        IndexChanger::for_copy(address).map(Self)
    }

    pub(in crate::db) fn put(&mut self, piece: &Contents) -> Result<(), Error> {
        let kept = self.0.roots().kept_piece(piece);
        self.write(&kept).map_err(|failure| failure.of(self.0.server()))
    }

    fn write(&mut self, piece: &Contents) -> Result<(), ServerFailure> {
        let first_study = |held: &Vec<StoredFile>| {
            held.first().map(|first| first.record.value(AttributeId::StudyInstanceUID).to_owned())
        };
        // The database was empty, and each entry comes once. So only studies are looked at, which
        // may have a part in the piece before.
        let needs = PartNeeds {
            studies: piece.instances.values().filter_map(first_study).collect(),
            directories: piece.directories.clone(),
            ..PartNeeds::default()
        };
        maintenance::put_arrivals(&mut self.0, piece)?;
        self.0.change(&needs, |contents| contents.add_piece(piece))?;
        for path in &piece.mount_points {
            maintenance::mount_point(&mut self.0, path, Mounted::Yes)?;
        }
        for path in &piece.exchanged_disks {
            maintenance::mount_point(&mut self.0, path, Mounted::Exchanged)?;
        }
        for (roots, state) in &piece.watches {
            maintenance::note_watch(&mut self.0, roots, Some(state))?;
        }
        if piece.id.is_some() {
            maintenance::name_index(&mut self.0, piece.id.as_deref())?;
        }
        maintenance::put_scans(&mut self.0, &piece.scans)
    }

    pub(in crate::db) fn put_events(&mut self, events: &[IndexEvent]) -> Result<(), Error> {
        let put = self.0.transaction(|connection, _| put_events(connection, events));
        put.map_err(|failure| failure.of(self.0.server()))
    }

    pub(in crate::db) fn put_progress(&mut self, progress: &EventProgress) -> Result<(), Error> {
        let put = self.0.transaction(|connection, _| put_progress(connection, progress));
        put.map_err(|failure| failure.of(self.0.server()))
    }

    pub(in crate::db) fn change_worklist(&mut self, work: WorklistWork) -> Result<(), Error> {
        let mut work = Some(work);
        let changed = self.0.transaction(|connection, _| {
            let mut tables = PostgresWorklist::lock(connection, Clock::System.now_ms())?;
            work.take().ok_or(ServerFailure::Again)?(&mut tables)?;
            tables.go_on_counting()
        });
        changed.map_err(|failure| failure.of(self.0.server()))
    }

    /// A reader of the database as it is now.
    pub(in crate::db) fn reader(&self) -> Result<PostgresReader, Error> {
        PostgresReader::open_copy(self.0.address())
    }

    /// Contents of the database now in numbers, and the number of findings there.
    pub(in crate::db) fn status(&mut self) -> Result<(IndexStatus, usize), Error> {
        let asked = self.0.connection().and_then(|connection| {
            // A plan for empty tables would take minutes with full ones.
            connection.run("ANALYZE")?;
            Ok((admin::status(connection)?, admin::all_findings(connection)?.len()))
        });
        asked.map_err(|failure| failure.of(self.0.server()))
    }

    /// Gives away what was written.
    pub(in crate::db) fn each_piece(&mut self, on_piece: OnPiece<'_>) -> Result<(), Error> {
        let roots = Arc::clone(self.0.roots());
        let mut give = |piece: Contents| on_piece(roots.local_piece(&piece));
        let given = self.0.connection().and_then(|connection| {
            at_one_moment(connection, |connection| each_piece(connection, &mut PieceOutlet::new(&mut give)))
        });
        given.map_err(|failure| failure.of(self.0.server()))
    }

    /// Has everybody use the database.
    pub(in crate::db) fn finish(mut self) -> Result<(), Error> {
        let ended = self.0.transaction(|connection, _| schema::end_copy(connection));
        ended.map_err(|failure| failure.of(self.0.server()))
    }
}
