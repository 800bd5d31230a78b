//! `dcmdex scan --shared`: several processes scan parts of the same paths (docs/adr/0049).

use std::borrow::Cow;
use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use serde_json::Value;

use super::pass::scan;
use super::progress::Progress;
use super::report::Report;
use crate::cli::suspend;
use crate::config::Config;
use crate::db::open::{Reader, Writer, WriterHandle};
use crate::db::{self, Arrivals as _, NextUnit};
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
    let scan = handle.join_shared_scan(roots.paths(), units(roots, options)?)?;
    report.started(roots, &config.index, false);
    let mut all = Summary::default();
    let of_units = Options { vanished: Vanished::Keep, ..options.clone() };
    let (has_told, alone, is_partly) = Default::default();
    let worker = ScanWorker { config, options, of_units, roots, handle, scan, stop, has_told, alone, is_partly };
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
    units.retain(|unit| !roots.paths().contains(unit));
    Ok(units)
}

impl ScanWorker<'_> {
    /// Does the next unit. Returns whether there may be another one.
    fn next(&self, all: &mut Summary, report: &mut Report<'_>) -> anyhow::Result<bool> {
        let next = self.handle.take_unit(self.scan, self.config.scan_lease)?;
        let unit = match next {
            NextUnit::Leased(unit) => unit,
            NextUnit::Finished => return Ok(false),
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
                    report.left_out(&self.handle.leave_out_units(self.scan)?);
                }
                return Ok(true);
            }
        };
        self.alone.set(0);
        let (options, roots) = match &unit {
            // What is gone has nothing to be scanned. The last unit finds that it is gone.
            Some(path) => {
                let paths = std::slice::from_ref(path);
                (Cow::Borrowed(&self.of_units), Roots::changed(paths, &self.roots.paths(), self.options)?)
            }
            None => (self.of_last_unit()?, Some(self.roots.clone())),
        };
        match roots.map_or_else(|| Ok(Summary::default()), |roots| self.unit(&roots, &options, report)) {
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
                if self.is_left(self.handle.end_scan(self.scan, told).and_then(|()| self.handle.leave_unit(true)))? {
                    all.add_unit(&summary.without_known());
                }
            }
            Err(scanner::Error::Index(error @ db::Error::LeaseLost)) => _ = self.is_left(Err(error))?,
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// The options of the last unit, which does not read again what the others have read.
    fn of_last_unit(&self) -> anyhow::Result<Cow<'_, Options>> {
        if !self.options.full {
            return Ok(Cow::Borrowed(self.options));
        }
        let read_before = Arc::new(self.handle.unit_paths(self.scan)?.into_iter().collect());
        Ok(Cow::Owned(Options { read_before, ..self.options.clone() }))
    }

    fn wait(&self, elsewhere: bool) {
        if elsewhere && !self.has_told.replace(true) {
            tracing::warn!(
                "parts of the scan are below roots that this machine does not have; another machine that has them has to \
                 scan them"
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
