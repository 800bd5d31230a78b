//! Questions of an operator to an index.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use tokio_postgres::Row;

use super::away::NodePlaces;
use super::connection::ServerConnection;
use super::contradictions::{self, ContradictingGroup};
use super::error::ServerFailure;
use super::keys::{from_column, name_from, path_from, to_u64};
use super::load;
use super::marks::{CONFLICT_COLUMNS, conflict_of};
use super::reader::PostgresReader;
use super::report;
use super::schema::POSTGRES_SCHEMA_VERSION;
use crate::db::contents::StoredFile;
use crate::db::mounts::MountLook;
use crate::db::{
    Admin, CheckReport, ConflictEntry, Error, FailureEntry, Finding, IndexStatus, NotIndexed, ScanEntry, StudyReport,
    WatchEntry,
};
use crate::model::location::Place;

/// Most scans that `status` tells.
const TOLD_SCANS: i64 = 10;

/// The checks: what they compare, and SQL for the number of the row that disagrees.
const CHECKS: [(&str, &str); 6] = [
    (
        "instances of a shelf",
        "SELECT s.id FROM shelf s LEFT JOIN (SELECT shelf, count(*) AS n, count(*) FILTER (WHERE flags & 1 <> 0) AS o \
         FROM instance GROUP BY shelf) i ON i.shelf = s.id \
         WHERE (coalesce(i.n, 0), coalesce(i.o, 0)) <> (s.instance_count, s.offline_count)",
    ),
    (
        "shelf of an instance",
        "SELECT i.shelf FROM instance i LEFT JOIN shelf s ON s.id = i.shelf WHERE s.id IS NULL GROUP BY i.shelf",
    ),
    (
        "instances of a study",
        "SELECT t.id FROM study t LEFT JOIN (SELECT study, sum(instance_count) AS n, sum(offline_count) AS o, \
         count(DISTINCT series_key) AS e FROM shelf GROUP BY study) s ON s.study = t.id \
         WHERE s.n IS NULL OR (s.n, s.o) <> (t.instance_count, t.offline_count) OR t.series_count > s.e",
    ),
    ("study of a shelf", "SELECT s.id FROM shelf s LEFT JOIN study t ON t.id = s.study WHERE t.id IS NULL"),
    (
        "patients of a study",
        "SELECT t.id FROM study t WHERE NOT EXISTS (SELECT FROM study_patient p WHERE p.study = t.id) \
         UNION SELECT p.study FROM study_patient p LEFT JOIN study t ON t.id = p.study WHERE t.id IS NULL",
    ),
    (
        "instance of a copy",
        "SELECT c.directory FROM copy c LEFT JOIN instance i ON i.uid_key = c.uid_key WHERE i.uid_key IS NULL",
    ),
];

/// Most rows that a check names.
const NAMED_ROWS: i64 = 20;

fn counts(connection: &mut ServerConnection, sql: &str) -> Result<Vec<(String, u64)>, ServerFailure> {
    let rows = connection.query(sql, &[])?;
    rows.iter().map(|row| Ok((from_column(row.try_get(0)?), to_u64(row.try_get(1)?)))).collect()
}

fn by_reason(connection: &mut ServerConnection, kind: NotIndexed) -> Result<Vec<(String, u64)>, ServerFailure> {
    let sql = format!(
        "SELECT reason, count(*) FROM file_mark WHERE mark = 'unindexed' AND kind = '{}' \
         GROUP BY reason ORDER BY count(*) DESC, reason",
        kind.as_str()
    );
    counts(connection, &sql)
}

/// The columns that [`scan_of`] reads, of all scans.
pub(super) const SCANS: &str = "SELECT id, started_ms, finished_ms, roots, summary FROM scan";

pub(super) fn scan_of(row: &Row) -> Result<ScanEntry, ServerFailure> {
    Ok(ScanEntry {
        scan: row.try_get(0)?,
        started_ms: row.try_get(1)?,
        finished_ms: row.try_get(2)?,
        roots: row.try_get(3)?,
        summary: row.try_get(4)?,
    })
}

/// One number for each patient: descriptions without an issuer mean the first issuer of their ID.
const PATIENTS: &str = "SELECT count(*) FROM (SELECT DISTINCT p.person_key, \
     CASE WHEN p.issuer = '' THEN coalesce(f.issuer, '') ELSE p.issuer END FROM study_patient p \
     LEFT JOIN (SELECT person_key, min(issuer) AS issuer FROM study_patient WHERE issuer <> '' GROUP BY person_key) f \
     ON f.person_key = p.person_key) a";

/// The number of the last change. Whatever has a lower one has ended, so a later change has a
/// higher number.
pub(super) const LAST_CHANGE: &str = "SELECT change_base + pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1 \
     FROM dcmdex_index";

pub(super) fn status(connection: &mut ServerConnection) -> Result<IndexStatus, ServerFailure> {
    let row = connection.query_one(
        "SELECT count(*), coalesce(sum(series_count), 0)::bigint, coalesce(sum(instance_count), 0)::bigint FROM study",
        &[],
    )?;
    let (studies, series, instances) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let mut number =
        |sql: &str| -> Result<u64, ServerFailure> { Ok(to_u64(connection.query_one(sql, &[])?.try_get(0)?)) };
    let patients = number(PATIENTS)?;
    let without_object = "SELECT coalesce(sum(s.instance_count), 0)::bigint FROM shelf s JOIN directory d \
                          ON d.id = s.directory WHERE d.place = 2";
    let metadata_only = number(without_object)?;
    let copies = number("SELECT count(*) FROM copy c JOIN directory d ON d.id = c.directory WHERE d.place <> 2")?;
    let missing = number("SELECT count(*) FROM file_mark WHERE mark = 'missing'")?;
    let files_with_faults = number("SELECT count(*) FROM file_mark WHERE mark = 'fault'")?;
    let last_change = number(LAST_CHANGE)?;
    let tables = "'study', 'study_patient', 'shelf', 'instance', 'copy', 'directory', 'file_mark', 'conflict', 'scan'";
    let size_bytes = number(&format!(
        "SELECT coalesce(sum(pg_total_relation_size(to_regclass(name))), 0)::bigint FROM unnest(ARRAY[{tables}]) AS name"
    ))?;
    let scans = connection.query(&format!("{SCANS} ORDER BY id DESC LIMIT $1"), &[&TOLD_SCANS])?;
    let conflicts = "SELECT kind, count(*) FROM (SELECT kind FROM conflict UNION ALL \
                     SELECT 'instance-with-other-content' FROM copy WHERE differs) c GROUP BY kind ORDER BY kind";
    let between = contradictions::between_groups(connection)?;
    let of_kind = |kind: &'static str| between.iter().filter(|found| found.kind == kind).count() as u64;
    let contradicting = contradictions::KINDS.map(|kind| (kind.to_owned(), of_kind(kind))).into_iter();
    let contradicting = contradicting.filter(|(_, count)| *count > 0);
    let conflicts: BTreeMap<String, u64> = counts(connection, conflicts)?.into_iter().chain(contradicting).collect();
    Ok(IndexStatus {
        schema_version: u64::from(POSTGRES_SCHEMA_VERSION.cast_unsigned()),
        patients,
        studies: to_u64(studies),
        series: to_u64(series),
        instances: to_u64(instances),
        copies,
        missing,
        metadata_only,
        files_with_faults,
        last_change,
        size_bytes,
        failed: by_reason(connection, NotIndexed::Failed)?,
        skipped: by_reason(connection, NotIndexed::Skipped)?,
        conflicts: conflicts.into_iter().collect(),
        scans: scans.iter().map(scan_of).collect::<Result<_, _>>()?,
    })
}

impl PostgresReader {
    fn run_checks(&mut self, checks: &[(&'static str, &str)]) -> Result<CheckReport, Error> {
        let findings = self.ask_at_once(|connection| findings(connection, checks))?;
        Ok(CheckReport { findings })
    }
}

/// Findings in all tables.
pub(super) fn all_findings(connection: &mut ServerConnection) -> Result<Vec<Finding>, ServerFailure> {
    findings(connection, &CHECKS)
}

fn findings(connection: &mut ServerConnection, checks: &[(&'static str, &str)]) -> Result<Vec<Finding>, ServerFailure> {
    let mut findings = Vec::new();
    for (check, sql) in checks {
        let rows = connection.query(&format!("{sql} LIMIT {NAMED_ROWS}"), &[])?;
        for row in &rows {
            let detail = format!("row {}", row.try_get::<_, i64>(0)?);
            findings.push(Finding { check, detail });
        }
    }
    Ok(findings)
}

impl Admin for PostgresReader {
    fn status(&mut self) -> Result<IndexStatus, Error> {
        self.ask_at_once(status)
    }

    fn last_change(&mut self) -> Result<u64, Error> {
        self.ask(|connection| Ok(to_u64(connection.query_one(LAST_CHANGE, &[])?.try_get(0)?)))
    }

    fn check(&mut self) -> Result<CheckReport, Error> {
        self.run_checks(&CHECKS)
    }

    /// The server checks itself when it starts, so nothing is read here.
    fn start_check(&mut self) -> Result<CheckReport, Error> {
        self.run_checks(&[])
    }

    fn failures(&mut self, mut on_failure: impl FnMut(FailureEntry) -> ControlFlow<()>) -> Result<(), Error> {
        let sql = "SELECT is_archive, directory, file_name, reason, detail FROM file_mark \
                   WHERE mark = 'unindexed' AND kind = 'failed' ORDER BY directory, file_name";
        let rows = self.ask(|connection| connection.query(sql, &[]))?;
        let roots = self.roots();
        let failure_of = |row: &Row| -> Result<FailureEntry, ServerFailure> {
            let place = if row.try_get(0)? { Place::Archive } else { Place::InPlace };
            let path = place.shown_path(&roots.local(&path_from(row.try_get(1)?)), &name_from(row.try_get(2)?));
            Ok(FailureEntry { path, reason: from_column(row.try_get(3)?), detail: from_column(row.try_get(4)?) })
        };
        for row in &rows {
            if on_failure(failure_of(row).map_err(|failure| failure.of(self.server()))?).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn conflicts(&mut self, mut on_conflict: impl FnMut(ConflictEntry) -> ControlFlow<()>) -> Result<(), Error> {
        let mut found: Vec<(&'static str, StoredFile)> = self.ask_at_once(|connection| {
            let rows = connection.query(&format!("SELECT {CONFLICT_COLUMNS} FROM conflict"), &[])?;
            let mut found = Vec::new();
            for row in &rows {
                found.extend(conflict_of(row)?);
            }
            let copies = load::copies(connection, "c.differs", &[])?;
            found.extend(copies.into_iter().map(|copy| ("instance-with-other-content", copy)));
            Ok(found)
        })?;
        found.sort_by_key(|(kind, object)| (*kind, object.key()));
        let roots = self.roots();
        let entry = |kind: &str, mut object: StoredFile| {
            roots.localize(&mut object.location);
            ConflictEntry::of(kind, &object)
        };
        let mut entries: Vec<ConflictEntry> = found.into_iter().map(|(kind, object)| entry(kind, object)).collect();
        entries.extend(self.ask_at_once(|connection| {
            let mut entries = Vec::new();
            for ContradictingGroup { kind, other_study, group } in contradictions::between_groups(connection)? {
                let object = contradictions::first_object(connection, &group)?;
                let named = object.map(|object| entry(kind, object));
                entries.extend(named.map(|named| ConflictEntry { other_study_instance_uid: other_study, ..named }));
            }
            Ok(entries)
        })?);
        // A caller may ask the index again, so all of it was read.
        let _ended = entries.into_iter().try_for_each(&mut on_conflict);
        Ok(())
    }

    fn watches(&mut self) -> Result<Vec<WatchEntry>, Error> {
        self.ask(|connection| {
            let rows = connection.query("SELECT roots, state FROM watch ORDER BY roots COLLATE \"C\"", &[])?;
            rows.iter().map(|row| Ok(WatchEntry { roots: row.try_get(0)?, state: row.try_get(1)? })).collect()
        })
    }

    fn studies_with_problems(&mut self, mut on_study: impl FnMut(StudyReport) -> ControlFlow<()>) -> Result<(), Error> {
        let (roots, mounts) = (self.roots(), MountLook::default());
        let places = NodePlaces { roots: &roots, mounts: &mounts };
        self.interruptibly(|connection, state| report::studies(connection, (state, places), &mut on_study))
    }

    fn index_id(&mut self) -> Result<Option<String>, Error> {
        self.ask(|connection| Ok(connection.query_one("SELECT index_id FROM dcmdex_index", &[])?.try_get(0)?))
    }
}
