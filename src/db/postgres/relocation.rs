//! New paths for files that were moved as a whole, or that a root has been named for.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::changer::IndexChanger;
use super::connection::ServerConnection;
use super::corrections::lock_rules;
use super::error::ServerFailure;
use super::keys::{RowKey, path_from, place_number, to_u64};
use super::maintenance::move_directories;
use super::marks::{self, CONFLICT_COLUMNS, FileMarks, MARK_COLUMNS};
use super::reader::PostgresReader;
use super::roots::NamedRoots;
use super::schema;
use super::writer::PostgresWriterHandle;
use crate::db::contents::FileKey;
use crate::db::paths::{is_reserved, range_below};
use crate::db::relocation::{LISTED_PATHS, joined, moved_roots};
use crate::db::{Error, Relocation};
use crate::model::location::Place;

/// A move of all that the index has at or below a path.
#[derive(Clone, Debug)]
struct PathMove {
    /// As the index keeps it.
    from: PathBuf,
    /// As the index keeps it.
    to: PathBuf,
    /// The same paths as this node has them, by which scans are noted.
    local: (PathBuf, PathBuf),
}

/// A directory or archive file of the index.
#[derive(Clone)]
struct DirectoryRow {
    id: i64,
    place: i16,
    path: PathBuf,
}

/// Plan of a move, with the part of it that an operator wants to know.
struct PlannedMove {
    summary: Relocation,
    moving: Vec<DirectoryRow>,
    /// Directories that hold nothing but copies of what is in another one, and go.
    merged: Vec<DirectoryRow>,
}

impl NamedRoots {
    /// The move of a path of this node. A path that stays the same gets the name of its root: the
    /// index has it without one, because it was scanned before.
    fn path_move(&self, from: &Path, to: &Path) -> PathMove {
        let own = if from == to { from.to_owned() } else { self.kept(from).into_owned() };
        PathMove { from: own, to: self.kept(to).into_owned(), local: (from.to_owned(), to.to_owned()) }
    }
}

impl PostgresReader {
    /// Says what [`PostgresWriterHandle::relocate`] would do.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    pub fn plan_relocation(&mut self, from: &Path, to: &Path) -> Result<Relocation, Error> {
        let (path_move, roots) = (self.roots().path_move(from, to), self.roots());
        let mut summary = self.ask_at_once(|connection| Ok(plan(connection, &path_move)?.summary))?;
        summary.taken.iter_mut().for_each(|path| *path = roots.local(path).into_owned());
        Ok(summary)
    }
}

impl PostgresWriterHandle {
    /// Gives everything at or below `from` the same path at or below `to`: directories, archive
    /// files, mount points, and the paths of scans. Nothing is changed if [`Relocation::taken`] has
    /// paths. If both are the same path, what is kept there without a root gets the root of the
    /// path.
    ///
    /// *Durability*: the change is committed when this returns, in one transaction.
    ///
    /// # Errors
    /// [`Error::InUse`] if another program is connected: it would go on with the former paths.
    /// [`Error::WriterStopped`], or that of the transaction.
    pub(in crate::db) fn relocate(&self, from: &Path, to: &Path) -> Result<Relocation, Error> {
        let (path_move, roots) = (self.roots().path_move(from, to), std::sync::Arc::clone(self.roots()));
        let mut summary = self.change_index(move |changer, _| path_move.make(changer))?;
        summary.taken.iter_mut().for_each(|path| *path = roots.local(path).into_owned());
        Ok(summary)
    }
}

impl PathMove {
    fn make(&self, changer: &mut IndexChanger) -> Result<Relocation, ServerFailure> {
        let address = changer.address().clone();
        let done = changer.transaction(|connection, _| {
            lock_rules(connection)?;
            schema::wait_until_alone(connection, &address)?;
            let planned = plan(connection, self)?;
            if planned.summary.taken.is_empty() {
                self.apply(connection, &planned)?;
            }
            Ok(planned.summary)
        })?;
        changer.forget_rows();
        Ok(done)
    }

    /// The new path of what lies at or below the former one.
    fn new_path(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(&self.from).ok()?;
        self.has(path).then(|| joined(&self.to, below))
    }

    /// Whether it moves a path. What lies below roots is at the top of the index only by name.
    fn has(&self, path: &Path) -> bool {
        path.starts_with(&self.from) && is_reserved(path) == is_reserved(&self.from)
    }

    fn apply(&self, connection: &mut ServerConnection, planned: &PlannedMove) -> Result<(), ServerFailure> {
        let merged: Vec<i64> = planned.merged.iter().map(|directory| directory.id).collect();
        connection.execute("DELETE FROM copy WHERE directory = ANY($1)", &[&merged])?;
        connection.execute("DELETE FROM directory WHERE id = ANY($1)", &[&merged])?;
        self.move_marks(connection, &planned.merged)?;
        let kept = planned.moving.iter().filter(|directory| !merged.contains(&directory.id));
        let moves: Vec<(i64, PathBuf)> =
            kept.filter_map(|directory| Some((directory.id, self.new_path(&directory.path)?))).collect();
        move_directories(connection, &moves)?;
        for table in ["mount_point", "exchanged_disk"] {
            self.move_disks(connection, table)?;
        }
        self.move_scans(connection)
    }

    /// Gives the marks and conflicts of files their new paths. Those of merged directories go: the
    /// others have the same files.
    fn move_marks(&self, connection: &mut ServerConnection, merged: &[DirectoryRow]) -> Result<(), ServerFailure> {
        let mut before = FileMarks::default();
        let (own, (from, to)) = (self.from.as_os_str().as_encoded_bytes(), range_below(&self.from));
        let gone: Vec<&[u8]> = merged.iter().map(|directory| directory.path.as_os_str().as_encoded_bytes()).collect();
        let below = "directory = $1 OR directory > $2 AND directory < $3 OR directory = ANY($4)";
        let sql = format!("SELECT {MARK_COLUMNS} FROM file_mark WHERE {below}");
        connection.query(&sql, &[&own, &from, &to, &gone])?.iter().try_for_each(|row| before.add(row))?;
        let sql = format!("SELECT {CONFLICT_COLUMNS} FROM conflict WHERE {below}");
        for row in connection.query(&sql, &[&own, &from, &to, &gone])? {
            before.add_conflict(&row)?;
        }
        let is_merged = |key: &FileKey| {
            let is_archive = |directory: &DirectoryRow| directory.place == place_number(Place::Archive);
            merged.iter().any(|gone| gone.path == key.directory && is_archive(gone) == key.is_archive)
        };
        let after = before.moved(&|key| {
            let directory =
                if self.has(&key.directory) { self.new_path(&key.directory)? } else { key.directory.clone() };
            (!is_merged(key)).then(|| FileKey { directory, ..key.clone() })
        });
        marks::save(connection, &before, &after)
    }

    fn move_disks(&self, connection: &mut ServerConnection, table: &str) -> Result<(), ServerFailure> {
        for row in connection.query(&format!("SELECT path FROM {table}"), &[])? {
            let former = path_from(row.try_get(0)?);
            let Some(new) = self.new_path(&former) else { continue };
            let (gone, key) = (RowKey::of_path(&former), RowKey::of_path(&new));
            connection.execute(&format!("DELETE FROM {table} WHERE path_key = $1"), &[&gone])?;
            let sql = format!("INSERT INTO {table} VALUES ($1, $2) ON CONFLICT DO NOTHING");
            connection.execute(&sql, &[&key, &new.as_os_str().as_encoded_bytes()])?;
        }
        Ok(())
    }

    /// Changes the paths that scans and watches noted, as this node has them.
    fn move_scans(&self, connection: &mut ServerConnection) -> Result<(), ServerFailure> {
        let (from, to) = &self.local;
        for row in connection.query("SELECT id, roots FROM scan", &[])? {
            let id: i64 = row.try_get(0)?;
            if let Some(roots) = moved_roots(row.try_get(1)?, from, to) {
                connection.execute("UPDATE scan SET roots = $2 WHERE id = $1", &[&id, &roots])?;
            }
        }
        for row in connection.query("SELECT roots, state FROM watch", &[])? {
            let (roots, state): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
            if let Some(moved) = moved_roots(roots, from, to) {
                connection.execute("DELETE FROM watch WHERE roots = $1", &[&roots])?;
                let sql = "INSERT INTO watch VALUES ($1, $2, $3) ON CONFLICT (roots_key) DO UPDATE SET state = excluded.state";
                connection.execute(sql, &[&RowKey::of(&[moved.as_bytes()]), &moved, &state])?;
            }
        }
        Ok(())
    }
}

fn plan(connection: &mut ServerConnection, path_move: &PathMove) -> Result<PlannedMove, ServerFailure> {
    let moving = rows_below(connection, &path_move.from, |path| path_move.has(path))?;
    let ids: Vec<i64> = moving.iter().map(|directory| directory.id).collect();
    let sql = "SELECT coalesce(sum(instance_count), 0)::bigint FROM shelf WHERE directory = ANY($1)";
    let instances = to_u64(connection.query_one(sql, &[&ids])?.try_get(0)?);
    let summary = Relocation { directories: moving.len() as u64, instances, ..Relocation::default() };
    let mut planned = PlannedMove { summary, moving, merged: Vec::new() };
    // What is at the new paths, and does not move away itself.
    let is_there = |path: &Path| !path_move.has(path) && is_reserved(path) == is_reserved(&path_move.to);
    let known = rows_below(connection, &path_move.to, is_there)?;
    let archive = place_number(Place::Archive);
    let key = |path: PathBuf, place: i16| (path, place == archive);
    let coming: HashMap<(PathBuf, bool), &DirectoryRow> = planned
        .moving
        .iter()
        .filter_map(|directory| Some((key(path_move.new_path(&directory.path)?, directory.place), directory)))
        .collect();
    let meeting: Vec<(&DirectoryRow, &DirectoryRow)> =
        known.iter().filter_map(|there| Some((there, *coming.get(&key(there.path.clone(), there.place))?))).collect();
    let pairs = |of: fn(&(&DirectoryRow, &DirectoryRow)) -> (i64, i64)| meeting.iter().map(of).collect::<Vec<_>>();
    let copies = only_copies(connection, &pairs(|(there, coming)| (there.id, coming.id)))?;
    let others = only_copies(connection, &pairs(|(there, coming)| (coming.id, there.id)))?;
    let (mut merged, mut taken) = (Vec::new(), Vec::new());
    for (there, coming) in meeting {
        match (copies.contains(&there.id), others.contains(&coming.id)) {
            (true, _) => merged.push(there.clone()),
            (false, true) => merged.push(coming.clone()),
            (false, false) => taken.push(there.path.clone()),
        }
    }
    taken.truncate(LISTED_PATHS);
    planned.summary.merged = merged.len() as u64;
    (planned.summary.taken, planned.merged) = (taken, merged);
    Ok(planned)
}

/// The first directory of each pair that holds nothing but copies of instances of the second one,
/// with their content.
fn only_copies(connection: &mut ServerConnection, pairs: &[(i64, i64)]) -> Result<HashSet<i64>, ServerFailure> {
    let (directories, others): (Vec<i64>, Vec<i64>) = pairs.iter().copied().unzip();
    let sql = "SELECT t.id FROM unnest($1::bigint[], $2::bigint[]) AS t(id, other) \
               WHERE NOT EXISTS (SELECT FROM shelf WHERE directory = t.id) \
               AND NOT EXISTS (SELECT FROM copy c JOIN instance i ON i.uid_key = c.uid_key \
               JOIN shelf h ON h.id = i.shelf WHERE c.directory = t.id AND (c.differs OR h.directory <> t.other))";
    connection.query(sql, &[&directories, &others])?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// The directories and archive files at or below a path that `is_meant`.
fn rows_below(
    connection: &mut ServerConnection,
    kept: &Path,
    is_meant: impl Fn(&Path) -> bool,
) -> Result<Vec<DirectoryRow>, ServerFailure> {
    let (own, (from, to)) = (kept.as_os_str().as_encoded_bytes(), range_below(kept));
    let sql = "SELECT id, place, path FROM directory WHERE path = $1 OR path > $2 AND path < $3 ORDER BY path";
    let mut found = Vec::new();
    for row in connection.query(sql, &[&own, &from, &to])? {
        let path = path_from(row.try_get(2)?);
        if is_meant(&path) {
            found.push(DirectoryRow { id: row.try_get(0)?, place: row.try_get(1)?, path });
        }
    }
    Ok(found)
}
