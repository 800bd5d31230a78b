//! What lies under a directory: walk, read what is new or changed, hand it to the index, and account for every entry.
//!
//! One thread lists directories, depth first and sorted (`walk`); a pool of threads looks at the files and
//! reads the headers of those that the index does not know as they are (`read`); the caller's thread takes the results *in
//! the order of the walk* and hands them to the one writer. So the index does not depend on how threads were scheduled, and
//! a scan that is broken off has done a beginning of the same work.
//!
//! Memory is bounded, whatever the size of the archive: directories are cut into units of [`UNIT_FILES`] files, and only so
//! many files are under way at a time ([`Backlog`]). The names in one directory are held at once.
//!
//! The pool is plain threads on a bounded channel, not rayon: what is wanted is depth for a disk or a file server, more
//! threads than cores that mostly wait, and back-pressure on the walk.
//!
//! What is counted: [`Summary::found`] is every directory entry that had to be accounted for, which is every file and
//! whatever else is not a directory that was entered. Each of them is in exactly one of `indexed`, `updated`, `unchanged`,
//! `skipped` and `failed`. Members of an archive file (zip, tar, gzip) count as files; the archive file itself does not, unless
//! something is wrong with it as a whole: then it is one more that failed, beside the members that could be read.

mod archives;
mod dicomdir;
mod error;
mod filter;
mod known_members;
mod options;
mod prune;
mod read;
mod report;
mod scan_roots;
mod settings;
mod skip;
mod stop;
mod throttle;
mod walk;
mod watch;
mod work;

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded, select, unbounded};
use xxhash_rust::xxh3::xxh3_64;

use crate::db::open::WriterHandle;
use crate::db::{self, Arrivals, Backlog, FileOutcome, NotIndexed, ScannedDirectory, Search};
use crate::ingest::Wanted;
use crate::model::attribute::AttributeId;
use crate::model::location::Place;
use crate::telemetry::metrics;

pub use dicomdir::{Finding, check as check_dicomdir};
pub use error::Error;
pub use filter::{Filter, GlobError};
pub use options::{OnName, Options, Order, Probe, Vanished};
pub use prune::{NotPruned, Why};
pub use report::{Event, PROGRESS_INTERVAL, Reasons, Summary};

pub use stop::Stop;
pub use throttle::{Rate, RateError};
pub use watch::{Hang, MAX_GIVEN_UP};

use known_members::KnownMembers;
use read::Pool;
use scan_roots::ScanRoots;
use settings::ReadSettings;
use throttle::Throttle;
use walk::Walked;
use watch::{Limit, TimedFs, Watch};
pub use work::UNIT_FILES;
use work::{UnitResult, WorkUnit};

/// Files that may wait beside those that are being read, and have been read: enough for the walk to stay ahead.
const WAITING_FILES: usize = 12 * UNIT_FILES;

/// Units under way: each holds its directory open.
const MAX_UNITS: usize = 256;

/// How often the writer is asked whether all went well. An index that cannot be written (a full disk) ends the scan then,
/// not when the archive has been read to its end.
const CHECK_WRITER: Duration = Duration::from_secs(10);

/// Where the results go.
#[derive(Debug)]
pub enum Target<'a> {
    /// To this index, through its writer. `known` reads the same index.
    Index {
        /// What is known already.
        known: db::open::Reader,
        /// The writer.
        writer: &'a WriterHandle,
    },
    /// Nowhere: files are read and reported. `known` is the index, where there is one.
    DryRun {
        /// What is known already.
        known: Option<db::open::Reader>,
    },
}

/// Paths to scan, found and made absolute; see [`Roots::find`].
#[derive(Clone, Debug)]
pub struct Roots(ScanRoots);

impl Roots {
    /// Finds the paths. Symbolic links in them are resolved, so that an archive has one name in the index however it was
    /// reached; of paths that lie in each other nothing is scanned twice.
    ///
    /// # Errors
    /// [`Error::Missing`] for one that is not there (none with [`Vanished::PruneEmptied`]), [`Error::Path`] for one that
    /// cannot be entered, [`Error::OwnStorage`] for one in the storage directory.
    pub fn find(paths: &[PathBuf], options: &Options) -> Result<Self, Error> {
        ScanRoots::find(paths, options).map(Self)
    }

    /// The paths, absolute, sorted, each once.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.asked_for()
    }
}

/// Scans. `on_event` is called on this thread, in an order that depends on the files only.
///
/// # Errors
/// When the index cannot be read or written. What files do is never an error.
pub fn scan(
    roots: &Roots,
    options: &Options,
    target: Target<'_>,
    stop: &Stop,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Summary, Error> {
    let started = Instant::now();
    let (known, writer) = match target {
        Target::Index { known, writer } => (Some(known), Some(writer)),
        Target::DryRun { known } => (known, None),
    };
    let known = known.map(|known| known.with_declared(Arc::clone(&options.declared)));
    let seen = (writer.is_none() && options.vanished == Vanished::Prune).then(HashSet::new);
    let mut collector =
        Collector { writer, options, started, told: started, on_event, seen, summary: Summary::default() };
    let jobs = options.jobs.max(1);
    let backlog = Arc::new(Backlog::new(jobs * UNIT_FILES + WAITING_FILES));
    let (work, to_read) = unbounded();
    let (order, in_order) = bounded(MAX_UNITS);
    let (told, hangs) = unbounded();
    let limit = Limit { time: options.read_timeout, stop: stop.clone(), given_up: Arc::new(AtomicUsize::new(0)), told };
    let throttle = Arc::new(Throttle::new(options.throttle));
    let wanted = Wanted::with_declared(&options.declared);
    let members = known.as_ref().map(db::open::Reader::another).transpose()?;
    let settings = ReadSettings {
        stop: stop.clone(),
        full: options.full,
        throttle,
        probe: options.probe.clone(),
        wanted,
        members: Arc::new(KnownMembers::new(members)),
    };
    let pool = Pool { to_read, settings };
    // Threads of their own, not scoped ones: what hangs in the file system is left behind.
    let mut watch = Watch::new(pool, limit.clone());
    for _ in 0..jobs {
        watch.start_reader(None).map_err(Error::Thread)?;
    }
    let (ended, is_over) = bounded::<()>(0);
    spawn("scan watch", move || watch.run(&is_over))?;
    // The walk ends when the collector is gone, and readers and watch end when the walk and this function have: so an error here
    // takes all threads with it, without waiting.
    let (scan_roots, walk_options, walk_stop, timed_fs) =
        (roots.0.clone(), options.clone(), stop.clone(), TimedFs::new(limit.clone()));
    let begun = Arc::clone(&backlog);
    let walker = spawn("scan walk", move || {
        let mut send = |unit: WorkUnit| {
            let (sender, results) = bounded(1);
            let files = unit.entries.len();
            begun.begin(files);
            order.send((files, results)).is_ok() && work.send((unit, sender)).is_ok()
        };
        walk::walk(&scan_roots, &walk_options, known, &walk_stop, timed_fs, &mut send)
    })?;
    let collected = collector.collect(&in_order, &backlog, &hangs);
    drop(in_order);
    backlog.close();
    let walked = walker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    drop(ended);
    let walked = collected.and(walked)?;
    limit.check()?;
    let not_pruned = if stop.is_asked() { Vec::new() } else { collector.find_moved(walked)? };
    let mut summary = collector.summary;
    if let Some(writer) = writer {
        // All that was found is in the index by now, so that what has moved is known there.
        let prune = options.vanished != Vanished::Keep && !stop.is_asked();
        summary.missing += writer.settle_missing(roots.paths(), not_pruned, prune)?;
        summary.add_tally(writer.flush()?);
        if options.vanished != Vanished::Keep {
            // These places are dropped as well.
            summary.removed += summary.moved;
        }
    }
    summary.interrupted = stop.is_asked();
    summary.dry_run = writer.is_none();
    summary.elapsed = started.elapsed();
    Ok(summary)
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, Error> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(Error::Thread)
}

/// Takes results in the order of the walk.
struct Collector<'a> {
    writer: Option<&'a WriterHandle>,
    options: &'a Options,
    started: Instant,
    told: Instant,
    on_event: &'a mut dyn FnMut(Event<'_>),
    /// Hashes of the SOP Instance UIDs that were new, where there is no index to say afterwards what has moved.
    seen: Option<HashSet<u64>>,
    summary: Summary,
}

impl Collector<'_> {
    fn collect(
        &mut self,
        in_order: &Receiver<(usize, Receiver<UnitResult>)>,
        backlog: &Backlog,
        hangs: &Receiver<Hang>,
    ) -> Result<(), Error> {
        let mut checked = Instant::now();
        for (files, results) in in_order {
            loop {
                // Mostly it is there.
                let result = match results.try_recv() {
                    Err(TryRecvError::Empty) => select! {
                        recv(results) -> result => result.ok(),
                        recv(hangs) -> hang => {
                            if let Ok(hang) = hang {
                                (self.on_event)(Event::Hangs(&hang));
                            }
                            continue;
                        }
                    },
                    result => result.ok(),
                };
                match result {
                    Some(result) => self.take(result)?,
                    None => break,
                }
            }
            backlog.end(files);
            for hang in hangs.try_iter() {
                (self.on_event)(Event::Hangs(&hang));
            }
            if checked.elapsed() > CHECK_WRITER {
                checked = Instant::now();
                if let Some(writer) = self.writer {
                    self.summary.add_tally(writer.flush()?);
                }
            }
        }
        for hang in hangs.try_iter() {
            (self.on_event)(Event::Hangs(&hang));
        }
        Ok(())
    }

    fn take(&mut self, result: UnitResult) -> Result<(), Error> {
        let UnitResult {
            directory,
            unchanged,
            reports,
            files,
            vanished,
            returned,
            mounts,
            begins_directory,
            ends_directory,
            archives,
            replaced,
        } = result;
        if begins_directory {
            self.summary.directories += 1;
            metrics::SCAN_DIRECTORIES.increment();
        }
        self.summary.archives += archives;
        self.summary.found += unchanged;
        self.summary.unchanged += unchanged;
        // They are among the files below.
        replaced.into_iter().for_each(|counted| self.summary.take_back(counted));
        metrics::SCAN_FILES_UNCHANGED.add(unchanged);
        for report in &reports {
            self.summary.found += u64::from(report.kind != NotIndexed::Unlisted);
            let path = directory.shown_path(&report.name);
            self.not_indexed(&path, report.kind, &report.reason, &report.detail);
        }
        for file in &files {
            // What stands beside files that count does not.
            match file.outcome {
                FileOutcome::NotIndexed { kind: NotIndexed::Container, .. } => continue,
                FileOutcome::NotIndexed { kind: NotIndexed::Unlisted, .. } => {}
                FileOutcome::NotIndexed { .. } | FileOutcome::Instance(_) => self.summary.found += 1,
            }
            // The mark of a directory that cannot be entered has no name of its own.
            let path = directory.shown_path(&file.file_name);
            match &file.outcome {
                FileOutcome::Instance(record) => {
                    let was_indexed =
                        file.known && directory.known.get(&file.file_name).is_some_and(db::KnownFile::is_indexed);
                    if file.reread {
                        self.summary.unchanged += 1;
                        self.summary.reread += 1;
                    } else {
                        *if was_indexed { &mut self.summary.updated } else { &mut self.summary.indexed } += 1;
                    }
                    metrics::SCAN_FILES_READ.increment();
                    if let Some(seen) = &mut self.seen {
                        seen.insert(xxh3_64(record.value(AttributeId::SOPInstanceUID).as_bytes()));
                    }
                    if !record.faults().is_empty() {
                        self.summary.add_faults(record.faults());
                        (self.on_event)(Event::Faults { path: &path, faults: record.faults() });
                    }
                }
                FileOutcome::NotIndexed { kind, reason, detail } => self.not_indexed(&path, *kind, reason, detail),
            }
            self.summary.bytes += file.size;
        }
        metrics::SCAN_READ_FILE_BYTES.add(files.iter().map(|file| file.size).sum());
        let (mut dropped, mut missing) = (Vec::new(), Vec::new());
        for (name, mark) in vanished {
            match mark {
                // Nothing is lost with a note about a file that is gone.
                work::Known::Noted => dropped.push(name),
                // What becomes of them is known at the end: they may have moved.
                work::Known::Indexed => {
                    if self.writer.is_none() {
                        *match self.options.vanished {
                            Vanished::Prune | Vanished::PruneEmptied => &mut self.summary.removed,
                            Vanished::Keep => &mut self.summary.missing,
                        } += 1;
                    }
                    if !directory.known.get(&name).is_some_and(|known| known.missing) {
                        missing.push(name);
                    }
                }
            }
        }
        if self.told.elapsed() > PROGRESS_INTERVAL {
            self.told = Instant::now();
            self.summary.elapsed = self.started.elapsed();
            (self.on_event)(Event::Progress(&self.summary));
        }
        if let Some(writer) = self.writer {
            for (path, mounted) in mounts {
                writer.mount_point(path, mounted)?;
            }
        }
        match self.writer {
            // What has not changed needs no writing.
            Some(writer) if !(files.is_empty() && dropped.is_empty() && missing.is_empty() && returned.is_empty()) => {
                writer.scanned(ScannedDirectory {
                    place: directory.place,
                    directory: directory.path.clone(),
                    files,
                    complete: ends_directory,
                    vanished: dropped,
                    missing,
                    returned,
                })?
            }
            _ => {}
        }
        Ok(())
    }

    /// What is missing in directories that look as if their disk were not mounted, now that all else is known. Returns those
    /// directories.
    fn find_moved(&mut self, walked: Walked) -> Result<Vec<PathBuf>, Error> {
        let Walked { known: Some(mut known), suspects } = walked else { return Ok(Vec::new()) };
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(writer) = self.writer {
            self.summary.add_tally(writer.flush()?);
        }
        let seen = self.seen.take().unwrap_or_default();
        let was_seen = |uid: &str| seen.contains(&xxh3_64(uid.as_bytes()));
        let (writer, summary) = (self.writer, &mut self.summary);
        let moved = &mut |place: Place, directory: &Path, vanished: Vec<OsString>| {
            match writer {
                Some(writer) => writer.scanned(ScannedDirectory {
                    place,
                    directory: directory.to_owned(),
                    files: Vec::new(),
                    complete: false,
                    vanished,
                    missing: Vec::new(),
                    returned: Vec::new(),
                })?,
                None => summary.removed += vanished.len() as u64,
            }
            Ok(())
        };
        // A stop in between leaves the rest to the next scan.
        let left = prune::find_moved(&mut known, &suspects, &Stop::default(), &was_seen, moved)?;
        for not_pruned in &left {
            self.summary.missing += not_pruned.files;
            self.summary.not_pruned += not_pruned.files;
            (self.on_event)(Event::NotPruned(not_pruned));
        }
        Ok(left.into_iter().map(|not_pruned| not_pruned.path).collect())
    }

    fn not_indexed(&mut self, path: &Path, kind: NotIndexed, reason: &str, detail: &str) {
        match kind {
            NotIndexed::Failed => {
                metrics::SCAN_FILES_FAILED.increment();
                self.summary.failed += 1;
                self.summary.failed_by_reason.count(reason);
                (self.on_event)(Event::Failed { path, reason, detail });
            }
            // It is accounted for by its members.
            NotIndexed::Container => {}
            NotIndexed::Unlisted => {
                self.summary.unlisted += 1;
                (self.on_event)(Event::Unlisted { path });
            }
            NotIndexed::Skipped => {
                metrics::SCAN_FILES_SKIPPED.increment();
                self.summary.skipped += 1;
                self.summary.skipped_by_reason.count(reason);
                (self.on_event)(Event::Skipped { path, reason, detail });
            }
        }
    }
}
