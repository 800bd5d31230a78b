//! The contents of an index in numbers.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, params};

use super::files::DatabaseFiles;
use super::packing::{UidSuffix, naming};
use super::sql_values::{path_from_sql, place_from_number};
use super::write::last_change;
use crate::db::{ConflictEntry, FailureEntry, IndexStatus, ScanEntry, WatchEntry};

/// Scans that [`IndexStatus::scans`] lists.
const LISTED_SCANS: i64 = 10;

/// Counts the conflicts in the archive. Most of them follow from the rows, and so end with what
/// made them.
const COUNT_CONFLICTS: &str = "SELECT 'study-under-two-patients' AS kind, count(*) AS n FROM study_patient \
     UNION ALL SELECT 'patient-id-of-two-people', count(*) FROM two_people \
     UNION ALL SELECT 'series-under-two-studies', ifnull(sum(n - 1), 0) FROM \
     (SELECT count(*) AS n FROM study_series GROUP BY series_instance_uid HAVING n > 1) \
     UNION ALL SELECT 'instance-with-other-content', count(*) FROM copy WHERE differs \
     UNION ALL SELECT kind, count(*) FROM conflict GROUP BY kind";

/// The column of [`LIST_CONFLICTS`] with the other study, in queries that have one.
const OTHER_STUDY: usize = 7;

/// Lists each conflict: UIDs of study and series, instance group, suffix of an instance, directory
/// and name of its file. Without an instance group, its UID stands in place of the suffix. If the
/// name is NULL, it is that of the instance.
const LIST_CONFLICTS: &[(&str, &str)] = &[
    (
        "instance-with-other-content",
        "SELECT s.study_instance_uid, e.series_instance_uid, c.instance_group, c.uid_suffix, d.path, c.file_name, d.place \
         FROM copy c JOIN instance_group h ON h.id = c.instance_group JOIN study_series e ON e.id = h.series JOIN study s ON s.id = e.study \
         JOIN directory d ON d.id = c.directory WHERE c.differs ORDER BY d.path, c.file_name",
    ),
    (
        "instance-with-other-content",
        "SELECT c.study_instance_uid, c.series_instance_uid, NULL, c.sop_instance_uid, d.path, c.file_name, d.place \
         FROM conflict c JOIN directory d ON d.id = c.directory WHERE c.kind = 'instance-with-other-content' \
         ORDER BY d.path, c.file_name",
    ),
    (
        "invalid-uid",
        "SELECT c.study_instance_uid, c.series_instance_uid, NULL, c.sop_instance_uid, d.path, c.file_name, d.place \
         FROM conflict c JOIN directory d ON d.id = c.directory WHERE c.kind = 'invalid-uid' ORDER BY d.path, c.file_name",
    ),
    (
        "series-under-two-studies",
        "SELECT s.study_instance_uid, e.series_instance_uid, h.id, NULL, d.path, NULL, d.place FROM study_series e \
         JOIN study s ON s.id = e.study \
         JOIN instance_group h ON h.id = (SELECT min(id) FROM instance_group WHERE series = e.id) JOIN directory d ON d.id = h.directory \
         WHERE EXISTS (SELECT 1 FROM study_series o JOIN study os ON os.id = o.study \
         WHERE o.series_instance_uid = e.series_instance_uid AND os.study_instance_uid < s.study_instance_uid) \
         ORDER BY e.series_instance_uid, s.study_instance_uid",
    ),
    (
        "study-under-two-patients",
        "SELECT s.study_instance_uid, e.series_instance_uid, h.id, NULL, d.path, NULL, d.place FROM study_patient sp \
         JOIN study s ON s.id = sp.study JOIN instance_group h ON h.id = (SELECT min(a.id) FROM study_series b \
         JOIN instance_group a ON a.series = b.id WHERE b.study = sp.study AND a.patient = sp.patient) \
         JOIN study_series e ON e.id = h.series JOIN directory d ON d.id = h.directory \
         JOIN patient p ON p.id = sp.patient \
         ORDER BY s.study_instance_uid, p.patient_id, p.identity, p.issuer_of_patient_id",
    ),
    (
        "patient-id-of-two-people",
        "WITH found AS (SELECT t.patient_id, t.issuer_of_patient_id, t.other, \
         (SELECT min(study_instance_uid) FROM study WHERE patient = t.one OR id IN \
         (SELECT study FROM study_patient WHERE patient = t.one)) AS first_uid, \
         (SELECT min(study_instance_uid) FROM study WHERE patient = t.other OR id IN \
         (SELECT study FROM study_patient WHERE patient = t.other)) AS second_uid FROM two_people t) \
         SELECT s.study_instance_uid, e.series_instance_uid, h.id, NULL, d.path, NULL, d.place, f.first_uid FROM found f \
         JOIN study s ON s.study_instance_uid = f.second_uid JOIN instance_group h ON h.id = (SELECT min(a.id) \
         FROM study_series b JOIN instance_group a ON a.series = b.id \
         WHERE b.study = s.id AND ifnull(a.patient, s.patient) = f.other) \
         JOIN study_series e ON e.id = h.series JOIN directory d ON d.id = h.directory \
         ORDER BY f.patient_id, f.issuer_of_patient_id",
    ),
];

pub(super) fn read(connection: &Connection, path: &Path) -> rusqlite::Result<IndexStatus> {
    // One transaction has the numbers of one moment.
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
        // Several descriptions may be of one person.
        patients: number(
            "SELECT (SELECT count(*) FROM patient) - (SELECT count(*) - count(DISTINCT person) FROM patient \
             WHERE person IS NOT NULL)",
        )?,
        studies: number("SELECT count(*) FROM study")?,
        series: number("SELECT count(*) FROM study_series")?,
        instances: number("SELECT ifnull(sum(instance_count), 0) FROM study")?,
        // Metadata without an object are no file.
        copies: number(
            "SELECT (SELECT count(*) FROM copy) - (SELECT count(*) FROM copy WHERE directory = (SELECT id FROM directory WHERE path = ''))",
        )?,
        missing: number("SELECT count(*) FROM missing_file")?,
        metadata_only: number(
            "SELECT ifnull(sum(h.instance_count), 0) FROM instance_group h JOIN directory d ON d.id = h.directory WHERE d.place = 2",
        )?,
        files_with_faults: number("SELECT count(*) FROM file_fault")?,
        last_change: u64::try_from(last_change(connection)?).unwrap_or(0),
        size_bytes: DatabaseFiles::bytes(path),
        failed: by_word(
            "SELECT reason, count(*) FROM unindexed_file WHERE kind = 'failed' GROUP BY reason ORDER BY count(*) DESC, reason",
        )?,
        skipped: by_word(
            "SELECT reason, count(*) FROM unindexed_file WHERE kind = 'skipped' GROUP BY reason ORDER BY count(*) DESC, reason",
        )?,
        conflicts: by_word(&format!(
            "SELECT kind, sum(n) FROM ({COUNT_CONFLICTS}) WHERE n > 0 GROUP BY kind ORDER BY kind"
        ))?,
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

/// The watched directories. An index that never had any lacks the table.
pub(super) fn watches(connection: &Connection) -> rusqlite::Result<Vec<WatchEntry>> {
    if !connection.table_exists(None, "watch")? {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare_cached("SELECT roots, state FROM watch ORDER BY roots")?;
    let rows = statement.query_map([], |row| Ok(WatchEntry { roots: row.get(0)?, state: row.get(1)? }))?;
    rows.collect()
}

/// Calls `on_failure` for each file that could not be read, until it says to stop.
pub(super) fn failures(
    connection: &Connection,
    on_failure: &mut dyn FnMut(FailureEntry) -> ControlFlow<()>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT d.path, f.file_name, f.reason, f.detail, d.place FROM unindexed_file f JOIN directory d ON d.id = f.directory \
         WHERE f.kind = 'failed' ORDER BY d.path, f.file_name",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let failure = FailureEntry {
            path: place_from_number(row.get(4)?)?
                .shown_path(path_from_sql(row.get_ref(0)?)?.as_ref(), &path_from_sql(row.get_ref(1)?)?),
            reason: row.get(2)?,
            detail: row.get(3)?,
        };
        if on_failure(failure).is_break() {
            break;
        }
    }
    Ok(())
}

/// Calls `on_conflict` for each contradiction, until it says to stop.
pub(super) fn conflicts(
    connection: &Connection,
    on_conflict: &mut dyn FnMut(ConflictEntry) -> ControlFlow<()>,
) -> rusqlite::Result<()> {
    for (kind, sql) in LIST_CONFLICTS {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut entry = ConflictEntry {
                kind: (*kind).to_owned(),
                study_instance_uid: row.get(0)?,
                other_study_instance_uid: match row.as_ref().column_count() > OTHER_STUDY {
                    true => row.get(OTHER_STUDY)?,
                    false => String::new(),
                },
                series_instance_uid: row.get(1)?,
                sop_instance_uid: String::new(),
                path: PathBuf::new(),
            };
            // One of the instances of the group is named.
            let instance_group: Option<i64> = row.get(2)?;
            if let Some(instance_group) = instance_group {
                name_first_of(connection, instance_group, row.get_ref(3)?, &mut entry)?;
            } else {
                entry.sop_instance_uid = row.get(3)?;
            }
            let directory = PathBuf::from(path_from_sql(row.get_ref(4)?)?);
            if let ValueRef::Null = row.get_ref(5)? {
                // The name of an instance at its first location is known by now.
            } else {
                entry.path = PathBuf::from(path_from_sql(row.get_ref(5)?)?);
            }
            // An object that is not kept has no path.
            entry.path = match directory.as_os_str().is_empty() {
                true => PathBuf::new(),
                false => place_from_number(row.get(6)?)?.shown_path(&directory, entry.path.as_os_str()),
            };
            if on_conflict(entry).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The UID and the file name of an instance of a group: the one with this suffix, or any.
fn name_first_of(
    connection: &Connection,
    instance_group: i64,
    suffix: ValueRef<'_>,
    entry: &mut ConflictEntry,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "SELECT i.uid_suffix, h.uid_prefix, i.file_name, h.file_prefix, h.file_suffix, h.file_digits \
         FROM instance_group h JOIN instance i ON i.instance_group = h.id WHERE h.id = ?1 \
         AND i.uid_suffix = ifnull(?2, (SELECT min(uid_suffix) FROM instance WHERE instance_group = ?1))",
    )?;
    let mut rows = statement.query(params![instance_group, ToSqlOutput::Borrowed(suffix)])?;
    if let Some(row) = rows.next()? {
        let prefix = row.get_ref(1)?.as_str()?;
        UidSuffix::unpack(row.get_ref(0)?, prefix, &mut entry.sop_instance_uid)?;
        entry.path = naming(row, 3)?.unpack(row.get_ref(2)?, &entry.sop_instance_uid)?.into();
    }
    Ok(())
}
