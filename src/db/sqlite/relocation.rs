//! New paths for files that were moved as a whole, or are mounted elsewhere.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::reader::SqliteReader;
use super::schema::EXCHANGED_DISKS;
use super::sql_values::{PathValue, path_from_sql, place_number, to_u64};
use super::writer::SqliteWriterHandle;
use crate::db::paths::range_below;
use crate::db::relocation::{LISTED_PATHS, joined, moved_roots};
use crate::db::{Error, Relocation};
use crate::model::location::Place;

/// Prefix of paths between the two steps of a move below itself. No path of the index begins with
/// it, because they are all absolute.
const BETWEEN: &str = "relocating:";

impl SqliteReader {
    /// Says what [`SqliteWriterHandle::relocate`] would do.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    pub fn plan_relocation(&mut self, from: &Path, to: &Path) -> Result<Relocation, Error> {
        let transaction = self.connection.unchecked_transaction()?;
        let planned = plan(&transaction, from, to)?;
        transaction.finish()?;
        Ok(planned.summary)
    }

    /// The paths of all scans, each once.
    ///
    /// # Errors
    /// Fails with an error of the engine.
    pub fn scan_roots(&mut self) -> Result<Vec<String>, Error> {
        let sql = "SELECT DISTINCT j.value FROM scan s, json_each(s.roots) j WHERE json_valid(s.roots) ORDER BY 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl SqliteWriterHandle {
    /// Gives everything at or below `from` the same path at or below `to`: directories, archive
    /// files, mount points, and the paths of scans. Nothing is changed if [`Relocation::taken`] has
    /// paths.
    ///
    /// *Durability*: the change is committed when this returns, in one transaction.
    ///
    /// # Errors
    /// [`Error::WriterStopped`], or that of the transaction.
    pub fn relocate(&self, from: PathBuf, to: PathBuf) -> Result<Relocation, Error> {
        self.maintain(move |batch| {
            let connection = batch.connection();
            let planned = plan(connection, &from, &to)?;
            if planned.summary.taken.is_empty() {
                apply(connection, &planned, &from, &to)?;
                batch.forget_directories();
            }
            Ok(planned.summary)
        })
    }
}

/// Plan of a relocation, and the part of it that an operator wants to know.
struct PlannedRelocation {
    summary: Relocation,
    /// Directories at new paths that hold nothing but copies of what comes there.
    merged: Vec<i64>,
}

fn plan(connection: &Connection, from: &Path, to: &Path) -> rusqlite::Result<PlannedRelocation> {
    let count = |sql: &str| -> rusqlite::Result<u64> {
        let mut total = 0;
        for range in ranges(from) {
            let number: i64 = connection.prepare_cached(sql)?.query_row(range, |row| row.get(0))?;
            total += to_u64(number);
        }
        Ok(total)
    };
    let summary = Relocation {
        directories: count("SELECT count(*) FROM directory WHERE (path = ?1 OR (path > ?2 AND path < ?3))")?,
        instances: count(
            "SELECT ifnull(sum(h.instance_count), 0) FROM instance_group h JOIN directory d ON d.id = h.directory \
             WHERE (d.path = ?1 OR (d.path > ?2 AND d.path < ?3))",
        )?,
        taken: Vec::new(),
        merged: 0,
    };
    let mut planned = PlannedRelocation { summary, merged: Vec::new() };
    for (id, place, path) in rows_below(connection, to)? {
        // It moves away itself.
        if path.starts_with(from) {
            continue;
        }
        let Ok(below) = path.strip_prefix(to) else { continue };
        let former = joined(from, below);
        let coming: Option<i64> = connection
            .prepare_cached("SELECT id FROM directory WHERE path = ?1 AND (place = 3) = (?2 = 3)")?
            .query_row(params![PathValue::from(former.as_path()), place], |row| row.get(0))
            .optional()?;
        let Some(coming) = coming else { continue };
        if holds_only_copies_of(connection, id, coming)? {
            planned.merged.push(id);
        } else if planned.summary.taken.len() < LISTED_PATHS {
            planned.summary.taken.push(path);
        }
    }
    planned.summary.merged = planned.merged.len() as u64;
    Ok(planned)
}

/// Whether a directory holds nothing but copies of instances of another one, with their content.
fn holds_only_copies_of(connection: &Connection, directory: i64, other: i64) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM instance_group WHERE directory = ?1) \
             AND NOT EXISTS (SELECT 1 FROM copy c JOIN instance_group h ON h.id = c.instance_group \
             WHERE c.directory = ?1 AND (c.differs OR h.directory <> ?2))",
        )?
        .query_row([directory, other], |row| row.get(0))
}

/// The parameters of a range of paths at and below a directory, for paths that are TEXT and for
/// those that are BLOB.
fn ranges(root: &Path) -> impl Iterator<Item = [rusqlite::types::Value; 3]> {
    use rusqlite::types::Value;
    let (from, to) = range_below(root);
    let bytes = [root.as_os_str().as_bytes().to_vec(), from, to];
    let texts: Result<Vec<String>, _> = bytes.iter().map(|part| String::from_utf8(part.clone())).collect();
    let texts = texts.ok().and_then(|texts| <[String; 3]>::try_from(texts).ok());
    texts.map(|texts| texts.map(Value::Text)).into_iter().chain([bytes.map(Value::Blob)])
}

fn rows_below(connection: &Connection, root: &Path) -> rusqlite::Result<Vec<(i64, i64, PathBuf)>> {
    let mut found = Vec::new();
    let mut statement = connection
        .prepare_cached("SELECT id, place, path FROM directory WHERE (path = ?1 OR (path > ?2 AND path < ?3))")?;
    for range in ranges(root) {
        let mut rows = statement.query(range)?;
        while let Some(row) = rows.next()? {
            found.push((row.get(0)?, row.get(1)?, path_from_sql(row.get_ref(2)?)?.into()));
        }
    }
    Ok(found)
}

fn apply(connection: &Connection, planned: &PlannedRelocation, from: &Path, to: &Path) -> rusqlite::Result<()> {
    for directory in &planned.merged {
        for sql in [
            "DELETE FROM copy WHERE directory = ?1",
            "DELETE FROM unindexed_file WHERE directory = ?1",
            "DELETE FROM file_fault WHERE directory = ?1",
            "DELETE FROM missing_file WHERE directory = ?1",
            "DELETE FROM conflict WHERE directory = ?1",
            "DELETE FROM directory WHERE id = ?1",
        ] {
            connection.prepare_cached(sql)?.execute([directory])?;
        }
    }
    if to.starts_with(from) || from.starts_with(to) {
        // A path may be new for one row while another one still has it.
        move_paths(connection, from, Path::new(BETWEEN))?;
        move_paths(connection, Path::new(BETWEEN), to)?;
    } else {
        move_paths(connection, from, to)?;
    }
    move_noted_paths(connection, "mount_point", from, to)?;
    if EXCHANGED_DISKS.are_in(connection)? {
        move_noted_paths(connection, "exchanged_disk", from, to)?;
    }
    move_scans(connection, from, to)?;
    move_watches(connection, from, to)
}

/// Changes the paths of directories. Those that are no UTF-8 before or after the change are few,
/// and are changed one by one.
fn move_paths(connection: &Connection, from: &Path, to: &Path) -> rusqlite::Result<()> {
    let trimmed = |path: &Path| path.to_str().map(|text| text.trim_end_matches('/').to_owned());
    if let (Some(from_text), Some(to_text)) = (from.to_str(), to.to_str())
        && let (Some(from_stem), Some(to_stem)) = (trimmed(from), trimmed(to))
    {
        let (lower, upper) = (format!("{from_stem}/"), format!("{from_stem}0"));
        let first = i64::try_from(from_stem.chars().count()).unwrap_or(i64::MAX).saturating_add(1);
        connection
            .prepare_cached(
                "UPDATE directory SET path = CASE WHEN path = ?1 THEN ?2 ELSE ?3 || substr(path, ?4) END \
                 WHERE typeof(path) = 'text' AND (path = ?1 OR (path > ?5 AND path < ?6)) AND place <> ?7",
            )?
            .execute(params![from_text, to_text, to_stem, first, lower, upper, place_number(Place::MetadataOnly)])?;
    }
    for (id, _, path) in rows_below(connection, from)? {
        let Ok(below) = path.strip_prefix(from) else { continue };
        let new = joined(to, below);
        connection
            .prepare_cached("UPDATE directory SET path = ?2 WHERE id = ?1")?
            .execute(params![id, PathValue::from(new.as_path())])?;
    }
    Ok(())
}

/// Changes the paths of a table that has nothing else.
fn move_noted_paths(connection: &Connection, table: &str, from: &Path, to: &Path) -> rusqlite::Result<()> {
    let known: Vec<PathBuf> = connection
        .prepare_cached(&format!("SELECT path FROM {table}"))?
        .query_map([], |row| Ok(PathBuf::from(path_from_sql(row.get_ref(0)?)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for path in known {
        let Ok(below) = path.strip_prefix(from) else { continue };
        let new = joined(to, below);
        connection
            .prepare_cached(&format!("DELETE FROM {table} WHERE path = ?1"))?
            .execute([PathValue::from(path.as_path())])?;
        connection
            .prepare_cached(&format!("INSERT OR IGNORE INTO {table} (path) VALUES (?1)"))?
            .execute([PathValue::from(new.as_path())])?;
    }
    Ok(())
}

/// Changes the paths that scans noted.
fn move_scans(connection: &Connection, from: &Path, to: &Path) -> rusqlite::Result<()> {
    let scans: Vec<(i64, String)> = connection
        .prepare_cached("SELECT id, roots FROM scan")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (id, roots) in scans {
        if let Some(roots) = moved_roots(&roots, from, to) {
            connection.prepare_cached("UPDATE scan SET roots = ?2 WHERE id = ?1")?.execute(params![id, roots])?;
        }
    }
    Ok(())
}

/// Changes the paths of watches.
fn move_watches(connection: &Connection, from: &Path, to: &Path) -> rusqlite::Result<()> {
    let watches: Vec<String> = connection
        .prepare_cached("SELECT roots FROM watch")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for roots in watches {
        if let Some(moved) = moved_roots(&roots, from, to) {
            connection
                .prepare_cached("UPDATE OR REPLACE watch SET roots = ?2 WHERE roots = ?1")?
                .execute([roots, moved])?;
        }
    }
    Ok(())
}
