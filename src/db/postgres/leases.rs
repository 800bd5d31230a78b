//! Units of shared scans, which workers have for a time (docs/adr/0049).

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::changer::IndexChanger;
use super::error::ServerFailure;
use super::held_unit::HeldUnit;
use super::keys::path_from;
use super::roots::{NamedRoots, shown_kept};
use super::writer::PostgresWriterHandle;
use crate::db::{Error, NextUnit};

/// Number of the lock under which a shared scan begins: "units" in ASCII.
const UNITS_LOCK: i64 = 0x75_6E69_7473;

impl PostgresWriterHandle {
    /// See [`WriterHandle::join_shared_scan`](crate::db::open::WriterHandle::join_shared_scan).
    pub(in crate::db) fn join_shared_scan(&self, roots: Vec<PathBuf>, units: Vec<PathBuf>) -> Result<i64, Error> {
        let kept = |paths: Vec<PathBuf>| -> Vec<PathBuf> {
            paths.iter().map(|path| self.roots().kept(path).into_owned()).collect()
        };
        let (roots, units) = (kept(roots), kept(units));
        let names: Vec<_> = roots.iter().map(|path| path.to_string_lossy()).collect();
        let names = serde_json::Value::from(names).to_string();
        self.ask(move |state| state.begin_scan(|changer, now_ms| join(changer, &names, &units, now_ms)))
    }

    /// See [`WriterHandle::take_unit`](crate::db::open::WriterHandle::take_unit).
    pub(in crate::db) fn take_unit(&self, scan: i64, lease: Duration) -> Result<NextUnit, Error> {
        let roots = std::sync::Arc::clone(self.roots());
        self.ask(move |state| {
            // Units of roots that are not here are for others.
            let mut elsewhere = Vec::new();
            loop {
                let (held, path) = match state.work(|changer, _| take(changer, scan, lease, &elsewhere))? {
                    Taken::Unit(held, path) => (held, path),
                    Taken::Nothing { is_left: false, .. } => return Ok(NextUnit::Finished),
                    Taken::Nothing { is_left: true, has_others } => {
                        let is_elsewhere = !elsewhere.is_empty();
                        return Ok(match has_others || !is_elsewhere {
                            true => NextUnit::Wait { elsewhere: is_elsewhere },
                            false => NextUnit::Elsewhere,
                        });
                    }
                };
                // The last unit reads what lies beside all others.
                let needed = match &path {
                    Some(path) => vec![path.clone()],
                    None => state.work(|changer, _| paths_of(changer, scan))?,
                };
                if needed.iter().all(|path| roots.is_there(path)) {
                    state.changer.hold(Some(held));
                    return Ok(NextUnit::Leased(path.map(|path| roots.local(&path).into_owned())));
                }
                elsewhere.push(held.unit);
                state.work(|changer, _| changer.transaction(|connection, _| held.leave(connection, false)))?;
            }
        })
    }

    /// See [`WriterHandle::leave_out_units`](crate::db::open::WriterHandle::leave_out_units).
    pub(in crate::db) fn leave_out_units(&self, scan: i64) -> Result<Vec<String>, Error> {
        let roots = std::sync::Arc::clone(self.roots());
        self.change_index(move |changer, _| leave_out(changer, scan, &roots))
    }

    /// See [`WriterHandle::unit_paths`](crate::db::open::WriterHandle::unit_paths).
    pub(in crate::db) fn unit_paths(&self, scan: i64) -> Result<Vec<PathBuf>, Error> {
        let roots = std::sync::Arc::clone(self.roots());
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

/// Has a scan end without the units of roots that are not here and that nobody has. Returns the
/// paths of those that are not done, as operators read them.
fn leave_out(changer: &mut IndexChanger, scan: i64, roots: &NamedRoots) -> Result<Vec<String>, ServerFailure> {
    changer.hold(None);
    changer.transaction(|connection, _| {
        let sql = "SELECT id, path, is_done FROM scan_unit WHERE scan = $1 AND path <> '' \
                   AND (is_done OR expires < now()) ORDER BY id FOR UPDATE SKIP LOCKED";
        let (mut ids, mut left_out): (Vec<i64>, Vec<String>) = Default::default();
        for row in connection.query(sql, &[&scan])? {
            let (path, is_done): (PathBuf, bool) = (path_from(row.try_get(1)?), row.try_get(2)?);
            if !roots.is_there(&path) {
                ids.push(row.try_get(0)?);
                left_out.extend((!is_done).then(|| shown_kept(&path)));
            }
        }
        connection.execute("DELETE FROM scan_unit WHERE id = ANY($1)", &[&ids])?;
        Ok(left_out)
    })
}

fn join(changer: &mut IndexChanger, roots: &str, units: &[PathBuf], now_ms: i64) -> Result<i64, ServerFailure> {
    changer.transaction(|connection, _| {
        connection.execute("SELECT pg_advisory_xact_lock($1)", &[&UNITS_LOCK])?;
        let open = "SELECT scan FROM scan_unit u JOIN scan s ON s.id = u.scan WHERE s.roots = $1 AND NOT u.is_done \
                    ORDER BY scan DESC LIMIT 1";
        if let Some(row) = connection.query_opt(open, &[&roots])? {
            return Ok(row.try_get(0)?);
        }
        // Units of scans that nobody will ask for again.
        connection.run("DELETE FROM scan_unit u USING scan s WHERE s.id = u.scan AND s.finished_ms IS NOT NULL")?;
        let sql = "INSERT INTO scan (started_ms, roots) VALUES ($1, $2) RETURNING id";
        let scan: i64 = connection.query_one(sql, &[&now_ms, &roots])?.try_get(0)?;
        let all = units.iter().map(PathBuf::as_path).chain([Path::new("")]);
        let paths: Vec<&[u8]> = all.map(|path| path.as_os_str().as_encoded_bytes()).collect();
        let sql = "INSERT INTO scan_unit (scan, path) SELECT $1, * FROM unnest($2::bytea[])";
        connection.execute(sql, &[&scan, &paths])?;
        Ok(scan)
    })
}

enum Taken {
    /// The path is `None` for all of the scan.
    Unit(HeldUnit, Option<PathBuf>),
    Nothing {
        is_left: bool,
        /// Whether others have some of what is left, or take it just now.
        has_others: bool,
    },
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
        let row = connection.query_opt(
            "UPDATE scan_unit SET owner = $2, attempt = attempt + 1, expires = clock_timestamp() + make_interval(secs => $3) \
             WHERE id = (SELECT id FROM scan_unit WHERE scan = $1 AND NOT is_done AND expires < clock_timestamp() \
             AND id <> ALL($4) AND (path <> '' OR NOT EXISTS (SELECT FROM scan_unit o WHERE o.scan = $1 \
             AND NOT o.is_done AND o.path <> '')) ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) \
             RETURNING id, attempt, path",
            &[&scan, &owner, &seconds, &elsewhere],
        )?;
        let Some(row) = row else {
            let sql = "SELECT count(*) > 0, count(*) FILTER (WHERE expires >= now() OR path <> '' AND id <> ALL($2)) > 0 \
                       FROM scan_unit WHERE scan = $1 AND NOT is_done";
            let left = connection.query_one(sql, &[&scan, &elsewhere])?;
            return Ok(Taken::Nothing { is_left: left.try_get(0)?, has_others: left.try_get(1)? });
        };
        let held = HeldUnit { unit: row.try_get(0)?, attempt: row.try_get(1)?, owner: owner.clone(), lease };
        Ok(Taken::Unit(held, Some(path_from(row.try_get(2)?)).filter(|path| !path.as_os_str().is_empty())))
    })
}
