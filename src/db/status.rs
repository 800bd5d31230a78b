//! What is in the index, in numbers.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::path_from_sql;

/// What is in the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexStatus {
    /// Schema version of the file.
    pub schema_version: u64,
    /// Number of patients.
    pub patients: u64,
    /// Number of studies.
    pub studies: u64,
    /// Number of series.
    pub series: u64,
    /// Number of instances.
    pub instances: u64,
    /// Further files of instances.
    pub copies: u64,
    /// Instances of which no bytes are kept.
    pub metadata_only: u64,
    /// Files that were indexed in spite of faults in them.
    pub files_with_faults: u64,
    /// Bytes of the index, write-ahead log included.
    pub size_bytes: u64,
    /// Files that could not be read, by reason, the most frequent first.
    pub failed: Vec<(String, u64)>,
    /// Files that do not belong into the index, by reason, the most frequent first.
    pub skipped: Vec<(String, u64)>,
    /// Contradictions by kind.
    pub conflicts: Vec<(String, u64)>,
    /// The last scans, the newest first.
    pub scans: Vec<ScanEntry>,
}

/// A scan that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanEntry {
    /// Its number.
    pub scan: i64,
    /// When, milliseconds since 1970 UTC.
    pub started_ms: i64,
    /// When it ended; `None` while it runs or where it was broken off.
    pub finished_ms: Option<i64>,
    /// The paths, a JSON array.
    pub roots: String,
    /// Its summary, a JSON object.
    pub summary: Option<String>,
}

/// A file that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureEntry {
    /// Where it lies.
    pub path: PathBuf,
    /// The stable word.
    pub reason: String,
    /// The reason in full.
    pub detail: String,
}

/// A contradiction in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictEntry {
    /// `study-under-two-patients`, `series-under-two-studies`, `instance-with-other-content` or `invalid-uid`.
    pub kind: String,
    /// Of the later object.
    pub study_instance_uid: String,
    /// Of the later object.
    pub series_instance_uid: String,
    /// Of the later object.
    pub sop_instance_uid: String,
    /// Where the later object lies; empty where its bytes are not kept.
    pub path: PathBuf,
}

/// Scans that [`IndexStatus::scans`] lists.
const LISTED_SCANS: i64 = 10;

pub(super) fn read(connection: &Connection, path: &Path) -> rusqlite::Result<IndexStatus> {
    // One transaction: numbers of one moment.
    let transaction = connection.unchecked_transaction()?;
    let number = |sql: &str| -> rusqlite::Result<u64> {
        connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0)).map(|n| u64::try_from(n).unwrap_or(0))
    };
    let by_word = |sql: &str| -> rusqlite::Result<Vec<(String, u64)>> {
        let mut statement = connection.prepare_cached(sql)?;
        let rows =
            statement.query_map([], |row| Ok((row.get(0)?, u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0))))?;
        rows.collect()
    };
    let status = IndexStatus {
        schema_version: number("PRAGMA user_version")?,
        patients: number("SELECT count(*) FROM patient")?,
        studies: number("SELECT count(*) FROM study")?,
        series: number("SELECT count(*) FROM study_series")?,
        instances: number("SELECT ifnull(sum(instance_count), 0) FROM study")?,
        copies: number("SELECT count(*) FROM copy")?,
        metadata_only: number(
            "SELECT ifnull(sum(h.instance_count), 0) FROM shelf h JOIN directory d ON d.id = h.directory WHERE d.place = 2",
        )?,
        files_with_faults: number("SELECT count(*) FROM file_fault")?,
        size_bytes: size_of(path),
        failed: by_word(
            "SELECT reason, count(*) FROM unindexed_file WHERE kind = 'failed' GROUP BY reason ORDER BY count(*) DESC, reason",
        )?,
        skipped: by_word(
            "SELECT reason, count(*) FROM unindexed_file WHERE kind = 'skipped' GROUP BY reason ORDER BY count(*) DESC, reason",
        )?,
        conflicts: by_word("SELECT kind, count(*) FROM conflict GROUP BY kind ORDER BY kind")?,
        scans: connection
            .prepare_cached("SELECT id, started_ms, finished_ms, roots, summary FROM scan ORDER BY id DESC LIMIT ?1")?
            .query_map([LISTED_SCANS], |row| {
                Ok(ScanEntry {
                    scan: row.get(0)?,
                    started_ms: row.get(1)?,
                    finished_ms: row.get(2)?,
                    roots: row.get(3)?,
                    summary: row.get(4)?,
                })
            })?
            .collect::<rusqlite::Result<_>>()?,
    };
    transaction.finish()?;
    Ok(status)
}

fn size_of(path: &Path) -> u64 {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    [path.as_os_str(), &log].into_iter().filter_map(|file| std::fs::metadata(file).ok()).map(|file| file.len()).sum()
}

impl super::Reader {
    /// Calls `on_failure` for each file that could not be read, ordered by path.
    ///
    /// # Errors
    /// That of SQLite.
    pub fn failures(&mut self, mut on_failure: impl FnMut(FailureEntry)) -> Result<(), super::Error> {
        let sql = "SELECT d.path, f.file_name, f.reason, f.detail FROM unindexed_file f JOIN directory d ON d.id = f.directory \
                   WHERE f.kind = 'failed' ORDER BY d.path, f.file_name";
        self.each(sql, |row| {
            on_failure(FailureEntry {
                path: PathBuf::from(path_from_sql(row.get_ref(0)?)).join(path_from_sql(row.get_ref(1)?)),
                reason: row.get(2)?,
                detail: row.get(3)?,
            });
            Ok(())
        })
    }

    /// Calls `on_conflict` for each recorded contradiction, ordered by kind.
    ///
    /// # Errors
    /// That of SQLite.
    pub fn conflicts(&mut self, mut on_conflict: impl FnMut(ConflictEntry)) -> Result<(), super::Error> {
        let sql = "SELECT c.kind, c.study_instance_uid, c.series_instance_uid, c.sop_instance_uid, d.path, c.file_name \
                   FROM conflict c JOIN directory d ON d.id = c.directory \
                   ORDER BY c.kind, c.study_instance_uid, c.series_instance_uid, c.sop_instance_uid";
        self.each(sql, |row| {
            let directory = PathBuf::from(path_from_sql(row.get_ref(4)?));
            let metadata_only = directory.as_os_str().is_empty();
            on_conflict(ConflictEntry {
                kind: row.get(0)?,
                study_instance_uid: row.get(1)?,
                series_instance_uid: row.get(2)?,
                sop_instance_uid: row.get(3)?,
                path: if metadata_only { directory } else { directory.join(path_from_sql(row.get_ref(5)?)) },
            });
            Ok(())
        })
    }

    fn each(
        &mut self,
        sql: &str,
        mut on_row: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), super::Error> {
        let mut work = || {
            let mut statement = self.connection().prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                on_row(row)?;
            }
            Ok(())
        };
        work().map_err(super::Error::from_sqlite)
    }
}
