//! Units of shared scans, which workers have for a time (docs/adr/0049).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::changer::IndexChanger;
use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::held_unit::HeldUnit;
use super::keys::path_from;
use super::roots::{NamedRoots, shown_kept};
use super::writer::PostgresWriterHandle;
use crate::db::{Error, NextUnit, SharedScan};

/// Number of the lock under which a shared scan begins: "units" in ASCII.
const UNITS_LOCK: i64 = 0x75_6E69_7473;

/// Notes that a worker asks for a unit, now and then. It waits for nobody: a worker that is stopped
/// in the midst of this has the row locked.
const ASKED: &str = "UPDATE shared_scan SET asked = clock_timestamp() WHERE scan IN (SELECT scan FROM shared_scan \
     WHERE scan = $1 AND asked < clock_timestamp() - make_interval(secs => $2::float8 / 4) FOR UPDATE SKIP LOCKED)";

impl PostgresWriterHandle {
    /// See [`WriterHandle::join_shared_scan`](crate::db::open::WriterHandle::join_shared_scan).
    pub(in crate::db) fn join_shared_scan(&self, scan: SharedScan) -> Result<i64, Error> {
        let kept = |paths: Vec<PathBuf>| -> Vec<PathBuf> {
            paths.iter().map(|path| self.roots().kept(path).into_owned()).collect()
        };
        let (roots, units, mounted) = (kept(scan.roots), kept(scan.units), kept(scan.mounted));
        let scan = SharedScan { roots, units, mounted, ..scan };
        self.ask(move |state| state.begin_scan(|changer, now_ms| join(changer, &scan, now_ms)))
    }

    /// See [`WriterHandle::take_unit`](crate::db::open::WriterHandle::take_unit).
    pub(in crate::db) fn take_unit(&self, scan: i64, lease: Duration, unseen: Vec<PathBuf>) -> Result<NextUnit, Error> {
        let sight = self.sight(&unseen);
        self.ask(move |state| {
            // Units that cannot be seen here are for others.
            let elsewhere = state.work(|changer, _| elsewhere(changer, scan, &sight))?;
            let is_elsewhere = !elsewhere.is_empty();
            Ok(match state.work(|changer, _| take(changer, scan, lease, &elsewhere))? {
                Taken::Unit(held, path, is_partly) => {
                    state.changer.hold(Some(held));
                    path.map_or(NextUnit::Last { is_partly }, |path| {
                        NextUnit::Leased(sight.roots.local(&path).into_owned())
                    })
                }
                Taken::Nothing { is_left: false, is_finished: true, .. } => NextUnit::Finished,
                Taken::Nothing { is_left: false, is_finished: false, .. } => NextUnit::Replaced,
                Taken::Nothing { has_others: false, .. } if is_elsewhere => NextUnit::Elsewhere,
                Taken::Nothing { .. } => NextUnit::Wait { elsewhere: is_elsewhere },
            })
        })
    }

    /// See [`WriterHandle::leave_out_units`](crate::db::open::WriterHandle::leave_out_units).
    pub(in crate::db) fn leave_out_units(&self, scan: i64, unseen: Vec<PathBuf>) -> Result<Vec<String>, Error> {
        let sight = self.sight(&unseen);
        self.change_index(move |changer, _| leave_out(changer, scan, &sight))
    }

    fn sight(&self, unseen: &[PathBuf]) -> Sight {
        let unseen = unseen.iter().map(|path| self.roots().kept(path).into_owned()).collect();
        Sight { roots: Arc::clone(self.roots()), unseen }
    }

    /// See [`WriterHandle::unit_paths`](crate::db::open::WriterHandle::unit_paths).
    pub(in crate::db) fn unit_paths(&self, scan: i64) -> Result<Vec<PathBuf>, Error> {
        let roots = Arc::clone(self.roots());
        let kept = self.change_index(move |changer, _| paths_of(changer, scan))?;
        let units = kept.iter().filter(|path| !path.as_os_str().is_empty());
        Ok(units.map(|path| roots.local(path).into_owned()).collect())
    }

    /// See [`WriterHandle::renew_unit`](crate::db::open::WriterHandle::renew_unit).
    pub(in crate::db) fn renew_unit(&self) -> Result<(), Error> {
        // Each transaction renews it.
        self.ask(|state| state.work(|changer, _| changer.transaction(|_, _| Ok(()))))
    }

    /// See [`WriterHandle::leave_unit`](crate::db::open::WriterHandle::leave_unit).
    pub(in crate::db) fn leave_unit(&self, is_done: bool) -> Result<(), Error> {
        self.ask(move |state| {
            state.work(|changer, _| {
                let Some(held) = changer.held().cloned() else { return Ok(()) };
                let left = changer.transaction(|connection, _| held.leave(connection, is_done));
                if !matches!(left, Err(ServerFailure::Gone(_))) {
                    changer.hold(None);
                }
                left
            })
        })
    }
}

/// Units of a scan that a process can see.
struct Sight {
    roots: Arc<NamedRoots>,
    /// Kept paths of units that it has looked for and not found.
    unseen: HashSet<PathBuf>,
}

impl Sight {
    fn lacks(&self, unit: &Path) -> bool {
        !self.roots.is_there(unit) || self.unseen.contains(unit)
    }
}

/// Has a scan end without the units that cannot be seen here and that nobody has. Returns the paths
/// of those that may lack files in the index, as operators read them.
fn leave_out(changer: &mut IndexChanger, scan: i64, sight: &Sight) -> Result<Vec<String>, ServerFailure> {
    changer.hold(None);
    changer.transaction(|connection, _| {
        let sql = "SELECT id, path, is_done FROM scan_unit WHERE scan = $1 AND path <> '' \
                   AND (is_done OR expires < now()) ORDER BY id FOR UPDATE SKIP LOCKED";
        let (mut ids, mut left_out): (Vec<i64>, Vec<String>) = Default::default();
        for row in connection.query(sql, &[&scan])? {
            let (path, is_done): (PathBuf, bool) = (path_from(row.try_get(1)?), row.try_get(2)?);
            if sight.lacks(&path) {
                ids.push(row.try_get(0)?);
                left_out.extend((!is_done || sight.unseen.contains(&path)).then(|| shown_kept(&path)));
            }
        }
        connection.execute("DELETE FROM scan_unit WHERE id = ANY($1)", &[&ids])?;
        connection.execute("UPDATE shared_scan SET is_partly = true WHERE scan = $1", &[&scan])?;
        Ok(left_out)
    })
}

fn join(changer: &mut IndexChanger, scan: &SharedScan, now_ms: i64) -> Result<i64, ServerFailure> {
    let of_json = |error: serde_json::Error| Error::Statement(error.into());
    let roots: Vec<_> = scan.roots.iter().map(|path| path.to_string_lossy()).collect();
    let (roots, rules) =
        (serde_json::to_string(&roots).map_err(of_json)?, serde_json::to_string(&scan.rules).map_err(of_json)?);
    changer.transaction(|connection, _| {
        connection.execute("SELECT pg_advisory_xact_lock($1)", &[&UNITS_LOCK])?;
        let open = "SELECT u.scan, h.rules, h.asked > now() - make_interval(secs => $2) OR EXISTS (SELECT FROM scan_unit o \
                    WHERE o.scan = u.scan AND o.expires > now()) FROM scan_unit u JOIN scan s ON s.id = u.scan \
                    LEFT JOIN shared_scan h ON h.scan = u.scan \
                    WHERE s.roots = $1 AND s.finished_ms IS NULL AND NOT u.is_done ORDER BY u.scan DESC LIMIT 1";
        if let Some(row) = connection.query_opt(open, &[&roots, &scan.lease.as_secs_f64()])? {
            let (open, theirs, is_alive): (i64, Option<&str>, Option<bool>) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let differing = differing(theirs.unwrap_or(&rules), &scan.rules).map_err(of_json)?;
            if differing.is_empty() {
                add_units(connection, open, scan)?;
                return Ok(open);
            }
            if is_alive == Some(true) {
                return Err(Error::OtherRules { differing }.into());
            }
            // Its workers have gone, and nobody ends it.
            connection.execute("DELETE FROM scan_unit WHERE scan = $1", &[&open])?;
        }
        // Units of scans that nobody will ask for again.
        connection.run("DELETE FROM scan_unit u USING scan s WHERE s.id = u.scan AND s.finished_ms IS NOT NULL")?;
        connection.run("DELETE FROM shared_scan h USING scan s WHERE s.id = h.scan AND s.finished_ms IS NOT NULL")?;
        let sql = "INSERT INTO scan (started_ms, roots) VALUES ($1, $2) RETURNING id";
        let number: i64 = connection.query_one(sql, &[&now_ms, &roots])?.try_get(0)?;
        connection.execute("INSERT INTO shared_scan (scan, rules) VALUES ($1, $2)", &[&number, &rules])?;
        insert_units(connection, number, &[Path::new("")])?;
        add_units(connection, number, scan)?;
        Ok(number)
    })
}

/// The rules of others that differ from those of this process, in words.
fn differing(theirs: &str, ours: &BTreeMap<String, String>) -> Result<Vec<String>, serde_json::Error> {
    let theirs: BTreeMap<String, String> = serde_json::from_str(theirs)?;
    let names: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let shown = |rules: &BTreeMap<String, String>, name| rules.get(name).cloned().unwrap_or_else(|| "not set".into());
    let differing = names.into_iter().map(|name| (name, shown(&theirs, name), shown(ours, name)));
    let told = |(name, theirs, ours)| format!("{name} is {theirs} there and {ours} here");
    Ok(differing.filter(|(_, theirs, ours)| theirs != ours).map(told).collect())
}

/// Adds the units of a process that are no part of those that are there and have none of them as a
/// part. A file system that is mounted there is always a unit of its own.
fn add_units(connection: &mut ServerConnection, scan: i64, seen: &SharedScan) -> Result<(), ServerFailure> {
    let rows = connection.query("SELECT path FROM scan_unit WHERE scan = $1 AND path <> ''", &[&scan])?;
    let known =
        rows.iter().map(|row| Ok(path_from(row.try_get(0)?))).collect::<Result<HashSet<PathBuf>, ServerFailure>>()?;
    let above_known: HashSet<&Path> = known.iter().flat_map(|path| path.ancestors()).collect();
    let is_new =
        |unit: &&PathBuf| !above_known.contains(unit.as_path()) && !unit.ancestors().any(|above| known.contains(above));
    let mounted = seen.mounted.iter().filter(|path| !known.contains(*path));
    let new: BTreeSet<&Path> = seen.units.iter().filter(is_new).chain(mounted).map(PathBuf::as_path).collect();
    if new.is_empty() {
        return Ok(());
    }
    insert_units(connection, scan, &new.into_iter().collect::<Vec<_>>())?;
    // Whoever has all of the scan now may not see them.
    let sql = "UPDATE scan_unit SET owner = NULL, expires = '-infinity' WHERE scan = $1 AND path = '' AND NOT is_done";
    match connection.execute(sql, &[&scan])? {
        0 => Err(ServerFailure::Again),
        _ => Ok(()),
    }
}

fn insert_units(connection: &mut ServerConnection, scan: i64, paths: &[&Path]) -> Result<(), ServerFailure> {
    let paths: Vec<&[u8]> = paths.iter().map(|path| path.as_os_str().as_encoded_bytes()).collect();
    let sql = "INSERT INTO scan_unit (scan, path) SELECT $1, * FROM unnest($2::bytea[])";
    connection.execute(sql, &[&scan, &paths]).map(drop)
}

enum Taken {
    /// The path is `None` for all of the scan. The last value says whether units were left out.
    Unit(HeldUnit, Option<PathBuf>, bool),
    Nothing {
        is_left: bool,
        is_finished: bool,
        /// Whether others have some of what is left, or take it just now.
        has_others: bool,
    },
}

/// The units of a scan that cannot be seen here. The last unit reads what lies beside all others,
/// so whoever does it has to see all of them.
fn elsewhere(changer: &mut IndexChanger, scan: i64, sight: &Sight) -> Result<Vec<i64>, ServerFailure> {
    let sql = "SELECT id, path, is_done FROM scan_unit WHERE scan = $1 ORDER BY path DESC";
    let (mut ids, mut lacks_some) = (Vec::new(), false);
    for row in changer.connection()?.query(sql, &[&scan])? {
        let (path, is_done): (PathBuf, bool) = (path_from(row.try_get(1)?), row.try_get(2)?);
        let is_last = path.as_os_str().is_empty();
        let is_lacking = if is_last { lacks_some } else { sight.lacks(&path) };
        lacks_some |= is_lacking;
        if is_lacking && !is_done {
            ids.push(row.try_get(0)?);
        }
    }
    Ok(ids)
}

/// The kept paths of all units of a scan.
fn paths_of(changer: &mut IndexChanger, scan: i64) -> Result<Vec<PathBuf>, ServerFailure> {
    let rows = changer.connection()?.query("SELECT path FROM scan_unit WHERE scan = $1", &[&scan])?;
    rows.iter().map(|row| Ok(path_from(row.try_get(0)?))).collect()
}

fn take(changer: &mut IndexChanger, scan: i64, lease: Duration, elsewhere: &[i64]) -> Result<Taken, ServerFailure> {
    changer.hold(None);
    let (owner, seconds) = (changer.name().to_owned(), lease.as_secs_f64());
    changer.transaction(|connection, _| {
        connection.execute(ASKED, &[&scan, &seconds])?;
        let row = connection.query_opt(
            "UPDATE scan_unit SET owner = $2, attempt = attempt + 1, expires = clock_timestamp() + make_interval(secs => $3) \
             WHERE id = (SELECT id FROM scan_unit WHERE scan = $1 AND NOT is_done AND expires < clock_timestamp() \
             AND id <> ALL($4) AND (path <> '' OR NOT EXISTS (SELECT FROM scan_unit o WHERE o.scan = $1 \
             AND NOT o.is_done AND o.path <> '')) ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) \
             RETURNING id, attempt, path, coalesce((SELECT h.is_partly FROM shared_scan h WHERE h.scan = $1), false)",
            &[&scan, &owner, &seconds, &elsewhere],
        )?;
        let Some(row) = row else {
            let sql = "SELECT count(*) > 0, count(*) FILTER (WHERE expires >= now() OR path <> '' AND id <> ALL($2)) > 0, \
                       coalesce((SELECT finished_ms IS NOT NULL FROM scan WHERE id = $1), true) \
                       FROM scan_unit WHERE scan = $1 AND NOT is_done";
            let left = connection.query_one(sql, &[&scan, &elsewhere])?;
            let (is_left, has_others, is_finished) = (left.try_get(0)?, left.try_get(1)?, left.try_get(2)?);
            return Ok(Taken::Nothing { is_left, is_finished, has_others });
        };
        let held = HeldUnit { unit: row.try_get(0)?, attempt: row.try_get(1)?, owner: owner.clone(), lease };
        let path = Some(path_from(row.try_get(2)?)).filter(|path| !path.as_os_str().is_empty());
        Ok(Taken::Unit(held, path, row.try_get(3)?))
    })
}
