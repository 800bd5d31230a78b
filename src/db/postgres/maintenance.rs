//! Changes that are not about single instances: scans, mount points, missing files, the storage.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::changer::IndexChanger;
use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::event_rows::{ToldChange, insert_events};
use super::keys::{RowKey, path_from, place_number, to_column};
use super::load::PartNeeds;
use super::marks::{self, FileMarks, MARK_COLUMNS};
use crate::db::arrival::{ArrivalEntry, ArrivalSource};
use crate::db::contents::{Contents, FileKey};
use crate::db::event_notes::NewEvent;
use crate::db::relocation::joined;
use crate::db::{Mounted, ScanEntry, Tally};
use crate::model::location::Place;

/// Missing files that one transaction drops.
const PRUNED_AT_ONCE: usize = 500;

pub(super) fn begin_scan(changer: &mut IndexChanger, roots: &str, now_ms: i64) -> Result<i64, ServerFailure> {
    changer.transaction(|connection, _| {
        let sql = "INSERT INTO scan (started_ms, roots) VALUES ($1, $2) RETURNING id";
        Ok(connection.query_one(sql, &[&now_ms, &roots])?.try_get(0)?)
    })
}

pub(super) fn begin_pass(
    changer: &mut IndexChanger,
    roots: &str,
    scan: Option<i64>,
    now_ms: i64,
) -> Result<i64, ServerFailure> {
    let known = changer.transaction(|connection, _| {
        let row = connection.query_opt("SELECT id FROM scan WHERE id = $1", &[&scan])?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    })?;
    known.map_or_else(|| begin_scan(changer, roots, now_ms), Ok)
}

/// Writes the scans of another index, with their numbers.
pub(super) fn put_scans(changer: &mut IndexChanger, scans: &[ScanEntry]) -> Result<(), ServerFailure> {
    if scans.is_empty() {
        return Ok(());
    }
    changer.transaction(|connection, _| {
        for ScanEntry { scan, started_ms, finished_ms, roots, summary } in scans {
            connection.execute(
                "INSERT INTO scan (id, started_ms, finished_ms, roots, summary) OVERRIDING SYSTEM VALUE \
                 VALUES ($1, $2, $3, $4, $5)",
                &[scan, started_ms, finished_ms, roots, summary],
            )?;
        }
        connection.run("SELECT setval(pg_get_serial_sequence('scan', 'id'), max(id)) FROM scan")
    })
}

/// Writes the arrivals of another index, with their numbers. The numbers of changes go on above
/// those of that index. So a question for what has changed since one of them gets all of it.
pub(super) fn put_arrivals(changer: &mut IndexChanger, piece: &Contents) -> Result<(), ServerFailure> {
    if piece.last_change == 0 && piece.arrival_entries.is_empty() {
        return Ok(());
    }
    changer.transaction(|connection, _| {
        let sql = "UPDATE dcmdex_index SET change_base = greatest(change_base, $1)";
        connection.execute(sql, &[&piece.last_change])?;
        for (number, ArrivalEntry { source, first_ms }) in &piece.arrival_entries {
            let ArrivalSource { kind, calling_ae_title, address, scan } = source;
            connection.execute(
                "INSERT INTO arrival (id, kind, calling_ae_title, address, scan, first_ms) OVERRIDING SYSTEM VALUE \
                 VALUES ($1, $2, $3, $4, $5, $6)",
                &[number, kind, &to_column(calling_ae_title), address, scan, first_ms],
            )?;
        }
        connection
            .run("SELECT setval(pg_get_serial_sequence('arrival', 'id'), max(id)) FROM arrival HAVING count(*) > 0")
    })
}

/// Notes the end of a scan with its summary and the events that tell of it. The unit of a shared
/// scan that the writer has is done with it.
pub(super) fn end_scan(
    changer: &mut IndexChanger,
    scan: i64,
    (summary, events): (&str, &[NewEvent]),
    now_ms: i64,
) -> Result<(), ServerFailure> {
    let held = changer.held().cloned();
    changer.transaction(|connection, _| {
        let sql = "UPDATE scan SET finished_ms = $2, summary = $3 WHERE id = $1";
        connection.execute(sql, &[&scan, &now_ms, &summary])?;
        insert_events(connection, events, &ToldChange::None, now_ms)?;
        held.as_ref().map_or(Ok(()), |held| held.leave(connection, true))
    })?;
    changer.hold(None);
    Ok(())
}

pub(super) fn note_watch(changer: &mut IndexChanger, roots: &str, state: Option<&str>) -> Result<(), ServerFailure> {
    let key = RowKey::of(&[roots.as_bytes()]);
    changer.transaction(|connection, _| match state {
        Some(state) => {
            let sql =
                "INSERT INTO watch VALUES ($1, $2, $3) ON CONFLICT (roots_key) DO UPDATE SET state = excluded.state";
            connection.execute(sql, &[&key, &roots, &state]).map(drop)
        }
        None => connection.execute("DELETE FROM watch WHERE roots_key = $1", &[&key]).map(drop),
    })
}

pub(super) fn mount_point(changer: &mut IndexChanger, path: &Path, mounted: Mounted) -> Result<(), ServerFailure> {
    let (key, bytes) = (RowKey::of_path(path), path.as_os_str().as_encoded_bytes());
    let (table, is_so) = match mounted {
        Mounted::Yes => ("mount_point", true),
        Mounted::NoLonger => ("mount_point", false),
        Mounted::Exchanged => ("exchanged_disk", true),
        Mounted::NotExchanged => ("exchanged_disk", false),
    };
    changer.transaction(|connection, _| match is_so {
        true => {
            let sql = format!("INSERT INTO {table} VALUES ($1, $2) ON CONFLICT DO NOTHING");
            connection.execute(&sql, &[&key, &bytes]).map(drop)
        }
        false => connection.execute(&format!("DELETE FROM {table} WHERE path_key = $1"), &[&key]).map(drop),
    })
}

pub(super) fn name_index(changer: &mut IndexChanger, id: Option<&str>) -> Result<String, ServerFailure> {
    changer.transaction(|connection, _| {
        let sql =
            "UPDATE dcmdex_index SET index_id = coalesce(index_id, $1, gen_random_uuid()::text) RETURNING index_id";
        Ok(connection.query_one(sql, &[&id])?.try_get(0)?)
    })
}

/// The end of a scan's account of missing files.
pub(super) struct MissingMarks {
    pub(super) roots: Vec<PathBuf>,
    pub(super) except: Vec<PathBuf>,
    pub(super) prune: bool,
}

impl MissingMarks {
    /// Counts the files, or drops them. Returns how many are left, and what was dropped.
    pub(super) fn resolve(&self, changer: &mut IndexChanger) -> Result<(u64, Tally), ServerFailure> {
        let Self { roots, except, prune } = self;
        let sql = format!("SELECT {MARK_COLUMNS} FROM file_mark WHERE mark = 'missing'");
        let missing = changer.transaction(|connection, _| {
            let mut marks = FileMarks::default();
            connection.query(&sql, &[])?.iter().try_for_each(|row| marks.add(row))?;
            Ok(marks.missing)
        })?;
        let mut found = Contents { missing, ..Contents::default() }.missing_at(roots, except);
        if !prune {
            return Ok((found.len() as u64, Tally::default()));
        }
        let mut tally = Tally::default();
        while !found.is_empty() {
            let rest = found.split_off(found.len().min(PRUNED_AT_ONCE));
            let files: BTreeSet<FileKey> = std::mem::replace(&mut found, rest).into_iter().collect();
            let needs = PartNeeds { files, ..PartNeeds::default() };
            let (_, contents) = changer.change(&needs, |contents| contents.resolve_missing(roots, except, true))?;
            tally.add(contents.tally);
        }
        Ok((0, tally))
    }
}

/// Gives the directories of the node's own storage their paths below `to`. Returns how many.
pub(super) fn storage_moved(changer: &mut IndexChanger, from: &Path, to: &Path) -> Result<u64, ServerFailure> {
    let moved = changer.transaction(|connection, _| {
        let mut moves: Vec<(i64, PathBuf, PathBuf)> = Vec::new();
        let sql = "SELECT id, path FROM directory WHERE place = $1";
        for row in connection.query(sql, &[&place_number(Place::Managed)])? {
            let path = path_from(row.try_get(1)?);
            if let Ok(rest) = path.strip_prefix(from) {
                let new = joined(to, rest);
                moves.push((row.try_get(0)?, path, new));
            }
        }
        let taken = taken_paths(connection, &moves)?;
        moves.retain(|(_, _, new)| !taken.contains(new));
        move_marks(connection, &moves)?;
        let moves: Vec<(i64, PathBuf)> = moves.into_iter().map(|(id, _, new)| (id, new)).collect();
        move_directories(connection, &moves)?;
        // Other nodes that remember instance groups read them again.
        let ids: Vec<i64> = moves.iter().map(|(id, _)| *id).collect();
        connection.later(
            "WITH moved AS (SELECT id FROM study WHERE id IN (SELECT study FROM shelf WHERE directory = ANY($1)) \
             ORDER BY uid_key FOR NO KEY UPDATE) \
             UPDATE study SET revision = revision + 1 FROM moved WHERE study.id = moved.id",
            &[&ids],
        )?;
        Ok(moves.len() as u64)
    })?;
    changer.forget_rows();
    Ok(moved)
}

/// The new paths at which the index knows a directory already.
fn taken_paths(
    connection: &mut ServerConnection,
    moves: &[(i64, PathBuf, PathBuf)],
) -> Result<BTreeSet<PathBuf>, ServerFailure> {
    let keys: Vec<RowKey> = moves.iter().map(|(.., new)| RowKey::of_path(new)).collect();
    let places = [place_number(Place::InPlace), place_number(Place::Managed)];
    let sql = "SELECT path FROM directory WHERE path_key = ANY($1) AND place = ANY($2)";
    let rows = connection.query(sql, &[&keys, &places.as_slice()])?;
    rows.iter().map(|row| Ok(path_from(row.try_get(0)?))).collect()
}

/// Gives directories new paths.
pub(super) fn move_directories(
    connection: &mut ServerConnection,
    moves: &[(i64, PathBuf)],
) -> Result<(), ServerFailure> {
    let ids: Vec<i64> = moves.iter().map(|(id, _)| *id).collect();
    let keys: Vec<RowKey> = moves.iter().map(|(_, new)| RowKey::of_path(new)).collect();
    let paths: Vec<&[u8]> = moves.iter().map(|(_, new)| new.as_os_str().as_encoded_bytes()).collect();
    // A path may be new for one row while another one still has it.
    connection.execute("UPDATE directory SET path_key = gen_random_uuid() WHERE id = ANY($1)", &[&ids])?;
    connection.execute(
        "UPDATE directory SET path_key = u.key, path = u.path \
         FROM unnest($1::bigint[], $2::uuid[], $3::bytea[]) AS u(id, key, path) WHERE directory.id = u.id",
        &[&ids, &keys, &paths],
    )?;
    Ok(())
}

/// Gives the marks of files the new paths of their directories.
fn move_marks(connection: &mut ServerConnection, moves: &[(i64, PathBuf, PathBuf)]) -> Result<(), ServerFailure> {
    let old: Vec<RowKey> = moves.iter().map(|(_, old, _)| RowKey::of_path(old)).collect();
    let mut before = FileMarks::default();
    let sql = format!("SELECT {MARK_COLUMNS} FROM file_mark WHERE directory_key = ANY($1) AND NOT is_archive");
    connection.query(&sql, &[&old])?.iter().try_for_each(|row| before.add(row))?;
    let new: HashMap<&Path, &Path> = moves.iter().map(|(_, old, new)| (&**old, &**new)).collect();
    let after = before.moved(&|key| {
        let directory = new.get(&*key.directory).map_or_else(|| key.directory.clone(), |new| new.to_path_buf());
        Some(FileKey { directory, ..key.clone() })
    });
    marks::save(connection, &before, &after)
}
