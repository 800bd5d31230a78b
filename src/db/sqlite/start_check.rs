//! A short check of an index before a node opens its port: whether it can be read, and whether a
//! sample of it is consistent.
//!
//! `dcmdex check` reads all of the index, which takes minutes at 16 million instances. This check
//! takes a sample, for at most [`LONGEST`]. A small index is checked as a whole.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::check;
use crate::db::{CheckReport, Error, Finding};

/// Longest time of the check. Larger: a node on a slow disk is away for longer after a restart.
/// Smaller: the check sees less there.
const LONGEST: Duration = Duration::from_secs(2);

/// Most pages of an index that is checked as a whole: 8 MiB, some 100,000 instances.
const SMALL_PAGES: i64 = 1024;

/// Instance groups of the sample, each with its series and study. A group takes some ten pages.
const SAMPLED_GROUPS: usize = 128;

/// Instances of each sampled group that are looked up by UID.
const SAMPLED_INSTANCES: u32 = 4;

/// Steps of SQLite's machine between two checks of the clock, some 100 µs.
const STEPS_BETWEEN_CHECKS: i32 = 10_000;

/// Rules for a sampled instance group, each with a query that returns a row if it is broken.
const OF_GROUP: &[(&str, &str)] = &[
    (
        "instances per instance_group",
        "SELECT printf('instance_group %d says %d, has %d', id, instance_count, n) FROM (SELECT h.id, h.instance_count, \
         (SELECT count(*) FROM instance i WHERE i.instance_group = h.id) AS n FROM instance_group h WHERE h.id = ?1) \
         WHERE n <> instance_count",
    ),
    (
        "instances per series",
        "SELECT printf('series %d says %d, has %d', id, instance_count, n) FROM (SELECT e.id, e.instance_count, \
         (SELECT ifnull(sum(g.instance_count), 0) FROM instance_group g WHERE g.series = e.id) AS n \
         FROM instance_group h JOIN study_series e ON e.id = h.series WHERE h.id = ?1) WHERE n <> instance_count",
    ),
    (
        "series and instances per study",
        "SELECT printf('study %d says %d in %d, has %d in %d', id, instance_count, series_count, n, m) FROM (SELECT s.id, \
         s.instance_count, s.series_count, (SELECT ifnull(sum(o.instance_count), 0) FROM study_series o WHERE o.study = s.id) \
         AS n, (SELECT count(*) FROM study_series o WHERE o.study = s.id) AS m FROM instance_group h \
         JOIN study_series e ON e.id = h.series JOIN study s ON s.id = e.study WHERE h.id = ?1) \
         WHERE n <> instance_count OR m <> series_count",
    ),
    (
        "references",
        "SELECT printf('instance_group %d', h.id) FROM instance_group h WHERE h.id = ?1 AND (NOT EXISTS \
         (SELECT 1 FROM directory WHERE id = h.directory) OR NOT EXISTS (SELECT 1 FROM study_series e JOIN study s \
         ON s.id = e.study JOIN patient p ON p.id = s.patient WHERE e.id = h.series))",
    ),
];

/// The same for some of its instances.
const LOOK_UPS: (&str, &str) = (
    "look-up by SOP Instance UID",
    "SELECT printf('an instance of instance_group %d', ?1) FROM (SELECT dcm_uid_hash(dcm_uid(i.uid_suffix, h.uid_prefix)) \
     AS hash FROM instance_group h JOIN instance i ON i.instance_group = h.id WHERE h.id = ?1 LIMIT ?2) s \
     WHERE NOT EXISTS (SELECT 1 FROM uid_lookup u WHERE u.hash = s.hash AND u.instance_group = ?1) \
     AND NOT EXISTS (SELECT 1 FROM uid_lookup_recent u WHERE u.hash = s.hash AND u.instance_group = ?1)",
);

/// Checks a sample of the index for a short time. Damage that SQLite meets is a finding, too.
pub(super) fn run(connection: &mut Connection) -> Result<CheckReport, Error> {
    let deadline = Instant::now() + LONGEST;
    connection.progress_handler(STEPS_BETWEEN_CHECKS, Some(move || Instant::now() >= deadline))?;
    let mut report = CheckReport::default();
    let result = run_checks(connection, &mut report);
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match result.map_err(Error::from) {
        Ok(()) => Ok(report),
        // As far as it came, nothing is wrong.
        Err(Error::Interrupted) => Ok(report),
        Err(Error::Malformed(detail)) => {
            report.findings.push(Finding { check: "sqlite integrity", detail });
            Ok(report)
        }
        Err(error) => Err(error),
    }
}

fn run_checks(connection: &Connection, report: &mut CheckReport) -> rusqlite::Result<()> {
    let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    if pages <= SMALL_PAGES {
        *report = check::run(connection)?;
        return Ok(());
    }
    let transaction = connection.unchecked_transaction()?;
    let last: Option<i64> = connection.query_row("SELECT max(id) FROM instance_group", [], |row| row.get(0))?;
    let Some(last) = last else { return transaction.finish() };
    for _ in 0..SAMPLED_GROUPS {
        let group = connection
            .query_row(
                "SELECT id FROM instance_group WHERE id >= 1 + abs(random() % max(?1, 1)) ORDER BY id LIMIT 1",
                [last],
                |row| row.get(0),
            )
            .optional()?;
        let Some(group): Option<i64> = group else { continue };
        for &(check, sql) in OF_GROUP {
            let found = connection.prepare_cached(sql)?.query_row([group], |row| row.get(0)).optional()?;
            report.findings.extend(found.map(|detail| Finding { check, detail }));
        }
        let (check, sql) = LOOK_UPS;
        let found = connection
            .prepare_cached(sql)?
            .query_row(params![group, SAMPLED_INSTANCES], |row| row.get(0))
            .optional()?;
        report.findings.extend(found.map(|detail| Finding { check, detail }));
    }
    transaction.finish()
}
