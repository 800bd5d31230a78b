//! `dcmdex scan --shared`: several processes scan parts of the same paths (docs/adr/0049).

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::bail;
use serde_json::Value;

use super::pass::scan;
use super::progress::Progress;
use super::report::Report;
use crate::cli::suspend;
use crate::config::Config;
use crate::db::open::{Reader, Writer, WriterHandle};
use crate::db::{self, Arrivals as _, NextUnit, SharedScan, has_entries, mounted_below};
use crate::scanner::{self, Options, Roots, ScanTarget, Stop, Summary, Vanished};

/// Units above which directories are not split further. Larger: less is done twice after a kill.
/// Smaller: fewer directories are listed before the scan begins.
const ENOUGH_UNITS: usize = 64;

/// Depth to which directories are split.
const MOST_LEVELS: usize = 3;

/// Pause before the next attempt if others have all units that are left.
const PAUSE: Duration = Duration::from_millis(500);

/// Renewals in the time of a lease.
const RENEWALS: u32 = 3;

/// A worker of a shared scan.
struct ScanWorker<'w> {
    config: &'w Config,
    options: &'w Options,
    /// For units that are not the last one, which alone knows what has moved to another unit.
    of_units: Options,
    roots: &'w Roots,
    handle: WriterHandle,
    scan: i64,
    stop: &'w Stop,
    /// Units that this machine cannot see.
    unseen: RefCell<Vec<PathBuf>>,
    /// Whether it was told that others have to scan some parts.
    has_told: Cell<bool>,
    /// Attempts one after the other that found parts for others only, and no others.
    alone: Cell<u32>,
    /// Whether parts were left out.
    is_partly: Cell<bool>,
}

/// Scans with all others that name the same paths, until nothing is left. Returns what this process
/// found, and whether parts were left out.
pub(super) fn scan_with_others(
    roots: &Roots,
    options: &Options,
    config: &Config,
    stop: &Stop,
    report: &mut Report<'_>,
) -> anyhow::Result<(Summary, bool)> {
    let writer_options = config.scan_writer_options();
    suspend::commit_before_stopping(&writer_options.suspension)?;
    let writer = Writer::open(&config.index, writer_options)?;
    let handle = writer.handle();
    let scan = handle.join_shared_scan(SharedScan {
        roots: roots.paths(),
        units: units(roots, options)?,
        mounted: mounted(roots, options, config)?,
        rules: config.scan_rules(),
        lease: config.scan_lease,
    })?;
    report.started(roots, &config.index, false);
    let mut all = Summary::default();
    let of_units = Options { vanished: Vanished::Keep, ..options.clone() };
    let (unseen, has_told, alone, is_partly) = Default::default();
    let worker =
        ScanWorker { config, options, of_units, roots, handle, scan, stop, unseen, has_told, alone, is_partly };
    while !stop.is_asked() && worker.next(&mut all, report)? {}
    all.interrupted |= stop.is_asked();
    let is_partly = worker.is_partly.get();
    drop(worker);
    writer.close()?;
    Ok((all, is_partly))
}

/// Directories that are scanned on their own: those below the roots, split until there are enough.
fn units(roots: &Roots, options: &Options) -> Result<Vec<PathBuf>, scanner::Error> {
    let mut units = roots.paths();
    for _ in 0..MOST_LEVELS {
        let mut next = Vec::new();
        for path in &units {
            let entries = path.read_dir().into_iter().flatten().flatten();
            let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let below: Vec<PathBuf> = directories.map(|entry| entry.path()).collect();
            match Roots::changed(&below, &roots.paths(), options)? {
                Some(wanted) => next.extend(wanted.paths()),
                None => next.push(path.clone()),
            }
        }
        units = next;
        if units.len() >= ENOUGH_UNITS {
            break;
        }
    }
    // Files beside directories are left to the last unit, and so is a tree without directories.
    units.retain(|unit| !roots.paths().contains(unit) && has_entries(unit));
    Ok(units)
}

/// A unit as something to scan. `None` if it cannot be seen here: it is gone, nobody may list it,
/// or it is empty as if its disk were not mounted.
fn seen(unit: &Path, roots: &[PathBuf], options: &Options) -> Result<Option<Roots>, scanner::Error> {
    if !has_entries(unit) {
        return Ok(None);
    }
    match Roots::changed(&[unit.to_owned()], roots, options) {
        // It is gone since.
        Err(scanner::Error::Path { .. } | scanner::Error::Missing { .. }) => Ok(None),
        seen => seen,
    }
}

/// Places where another machine may see nothing of what this one has. These are mounted file
/// systems and named roots, also roots whose disk may be missing here.
fn mounted(roots: &Roots, options: &Options, config: &Config) -> Result<Vec<PathBuf>, scanner::Error> {
    let paths = roots.paths();
    let mut places = Vec::new();
    for place in mounted_below(&paths) {
        places.extend(seen(&place, &paths, options)?.map(|_| place));
    }
    for (_, root) in config.roots.iter().filter(|(_, root)| !paths.contains(root)) {
        places.extend(Roots::changed(std::slice::from_ref(root), &paths, options)?.map(|_| root.clone()));
    }
    Ok(places)
}

impl ScanWorker<'_> {
    /// Does the next unit. Returns whether there may be another one.
    fn next(&self, all: &mut Summary, report: &mut Report<'_>) -> anyhow::Result<bool> {
        let next = self.handle.take_unit(self.scan, self.config.scan_lease, self.unseen.borrow().clone())?;
        let (unit, is_partly) = match next {
            NextUnit::Leased(unit) => (Some(unit), false),
            NextUnit::Last { is_partly } => (None, is_partly),
            NextUnit::Finished => return Ok(false),
            NextUnit::Replaced => bail!(
                "another process has begun this scan anew, because this one was stopped for too long; hint: scan again"
            ),
            NextUnit::Wait { elsewhere } => {
                self.alone.set(0);
                self.wait(elsewhere);
                return Ok(true);
            }
            NextUnit::Elsewhere => {
                self.alone.set(self.alone.get() + 1);
                // A worker that has just begun or was killed gets the time of a lease.
                if PAUSE * self.alone.get() < self.config.scan_lease {
                    self.wait(true);
                } else {
                    self.is_partly.set(true);
                    report.left_out(&self.handle.leave_out_units(self.scan, self.unseen.take())?);
                }
                return Ok(true);
            }
        };
        self.alone.set(0);
        let Some(roots) = self.seen(unit.as_deref())? else {
            self.is_left(self.handle.leave_unit(false))?;
            return Ok(true);
        };
        let options = if unit.is_some() { Cow::Borrowed(&self.of_units) } else { self.of_last_unit(is_partly)? };
        match self.unit(&roots, &options, report) {
            Ok(summary) if summary.interrupted => _ = self.is_left(self.handle.leave_unit(false))?,
            Ok(summary) if unit.is_some() => {
                if self.is_left(self.handle.leave_unit(true))? {
                    // The last unit counts all files that are missing.
                    all.add_unit(&Summary { missing: 0, ..summary });
                }
            }
            Ok(summary) => {
                // It has seen all files, so its numbers are those of the scan.
                let told = Value::Object(summary.to_json()).to_string();
                if self.is_left(self.handle.end_scan(self.scan, told))? {
                    all.add_unit(&summary.without_known());
                }
            }
            Err(scanner::Error::Index(error @ db::Error::LeaseLost)) => _ = self.is_left(Err(error))?,
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// Roots to scan for a unit, or for the last one. `None` if this machine does not see all of
    /// it, so that another one has to do it.
    fn seen(&self, unit: Option<&Path>) -> anyhow::Result<Option<Roots>> {
        let roots = self.roots.paths();
        let Some(unit) = unit else {
            let is_unseen = |unit: &PathBuf| seen(unit, &roots, self.options).map(|seen| seen.is_none());
            let mut unseen = Vec::new();
            for unit in self.handle.unit_paths(self.scan)? {
                if is_unseen(&unit)? {
                    unseen.push(unit);
                }
            }
            let sees_all = unseen.is_empty();
            self.unseen.borrow_mut().extend(unseen);
            return Ok(sees_all.then(|| self.roots.clone()));
        };
        let seen = seen(unit, &roots, self.options)?;
        if seen.is_none() {
            self.unseen.borrow_mut().push(unit.to_owned());
        }
        Ok(seen)
    }

    /// The options of the last unit, which does not read again what the others have read. If units
    /// were left out, what this machine does not see may be there for another one.
    fn of_last_unit(&self, is_partly: bool) -> anyhow::Result<Cow<'_, Options>> {
        let mut options = Cow::Borrowed(if is_partly { &self.of_units } else { self.options });
        if self.options.full {
            options.to_mut().read_before = Arc::new(self.handle.unit_paths(self.scan)?.into_iter().collect());
        }
        Ok(options)
    }

    fn wait(&self, elsewhere: bool) {
        if elsewhere && !self.has_told.replace(true) {
            tracing::warn!(
                "this machine does not see all parts of the scan; another machine that sees them has to scan them"
            );
        }
        std::thread::park_timeout(PAUSE);
    }

    /// Scans a unit, and keeps it meanwhile.
    fn unit(&self, roots: &Roots, options: &Options, report: &mut Report<'_>) -> Result<Summary, scanner::Error> {
        let known = Reader::open(&self.config.index)?;
        let mut progress = Progress::new(true, None, roots);
        let (handle, pause) = (self.handle.clone(), self.config.scan_lease / RENEWALS);
        std::thread::scope(|scope| {
            let (over, is_over) = mpsc::channel::<()>();
            scope.spawn(move || {
                while is_over.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                    // If another worker has it, the next transaction says so.
                    let _renewed = handle.renew_unit();
                }
            });
            let target = ScanTarget::Index { known, writer: &self.handle };
            let scanned = scan(roots, options, target, self.stop, report, &mut progress);
            drop(over);
            scanned
        })
    }

    /// Whether this worker still had the unit.
    fn is_left(&self, left: Result<(), db::Error>) -> anyhow::Result<bool> {
        match left {
            Ok(()) => Ok(true),
            Err(db::Error::LeaseLost) => {
                // What was queued for the unit is refused, too.
                while let Err(db::Error::LeaseLost) = self.handle.flush() {}
                tracing::warn!("another worker has taken a part of the scan, because this one was too slow");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}
