//! The scanner reads every file below a directory and reports what became of each.
//!
//! One thread walks the directories, depth first and sorted (`walk`). It asks the file system for
//! several directories at a time (`upcoming`). A pool of threads looks at the files. It reads the
//! headers of files that are new or have changed (`read`). The caller's thread takes the results
//! *in the order of the walk* and hands them to the only writer. So thread scheduling does not
//! change the index. An interrupted scan has done the first part of the same work.
//!
//! Memory is bounded, whatever the size of the archive. The walk cuts directories into units of
//! [`UNIT_FILES`] files. [`Backlog`] limits the files that are in the queues or being read. All
//! names of a directory are in memory at once. Before its turn, only the beginning of a large
//! directory is listed.
//!
//! The pool is plain threads on a bounded channel, not rayon. The threads mostly wait for a disk or
//! a file server. So the scan wants more threads than cores, and a full queue must stop the walk.
//!
//! [`Summary::found`] counts every file, and every other entry that is not an entered directory.
//! Each of them is in exactly one of `indexed`, `updated`, `unchanged`, `skipped` and `failed`.
//! Members of an archive file (zip, tar, gzip) count as files. The archive file itself does not
//! count, unless it is damaged as a whole. Then it is one more failed file, beside the members that
//! could be read.

mod archives;
mod count;
mod depth;
mod dicomdir;
mod error;
mod file_system;
mod filter;
mod known_members;
mod listing;
mod offline;
mod options;
mod prune;
mod read;
mod report;
mod scan_roots;
mod settings;
mod settling;
mod skip;
mod stop;
mod throttle;
mod upcoming;
mod walk;
mod watchdog;
mod work;

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select, unbounded};
use xxhash_rust::xxh3::xxh3_64;

use crate::db::open::WriterHandle;
use crate::db::{self, Arrivals, Backlog, FileOutcome, NotIndexed, ScannedDirectory, ScannedFile, Search};
use crate::ingest::Wanted;
use crate::model::attribute::AttributeId;
use crate::model::location::Place;
use crate::telemetry::metrics;

pub use count::FilesAhead;
pub use depth::Jobs;
pub use dicomdir::{DicomdirFinding, check as check_dicomdir};
pub use error::Error;
pub use filter::{Filter, GlobError};
pub use offline::TapeFiles;
pub use options::{BeforeListing, OnDirectory, Options, Vanished, WalkOrder};
pub use prune::{NotPruned, Why};
pub use report::{PROGRESS_INTERVAL, Reasons, ScanEvent, Summary, to_milliseconds};

pub use settling::Settling;
pub use stop::Stop;
pub use throttle::{Rate, RateError};
pub use watchdog::{Hang, MAX_GIVEN_UP};

use known_members::KnownMembers;
use read::Pool;
use scan_roots::ScanRoots;
use settings::ReadSettings;
use throttle::Throttle;
use walk::Walked;
use watchdog::{Limit, TimedFs, Watchdog};
pub use work::UNIT_FILES;
use work::{UnitResult, WorkDirectory, WorkUnit};

/// Files that may wait in the queues, besides the files that the readers hold. With so many the
/// walk stays ahead of the readers.
const WAITING_FILES: usize = 4 * UNIT_FILES;

/// Maximum units in the queues. Each unit keeps its directory open.
const MAX_UNITS: usize = 256;

/// Time between two checks for write errors. If the index cannot be written (a full disk), the scan
/// ends at the next check, not after it has read the whole archive.
const CHECK_WRITER: Duration = Duration::from_secs(10);

/// Destination of the results of the scan.
#[derive(Debug)]
pub enum ScanTarget<'a> {
    /// Into this index, through its writer. `known` reads the same index.
    Index {
        /// Reads the files that the index already has.
        known: db::open::Reader,
        /// The writer.
        writer: &'a WriterHandle,
    },
    /// Nowhere. The scan reads and reports files. `known` is the index, if there is one.
    DryRun {
        /// Reads the files that the index already has.
        known: Option<db::open::Reader>,
    },
}

/// The paths to scan, found and absolute. See [`Roots::find`].
#[derive(Clone, Debug)]
pub struct Roots(ScanRoots);

impl Roots {
    /// Finds the paths and resolves symbolic links. So a file has one name in the index, whichever
    /// path led to it. If one path lies in another, nothing is scanned twice.
    ///
    /// # Errors
    /// [`Error::Missing`] if a path does not exist, unless `options` has
    /// [`Vanished::PruneEmptied`]. [`Error::Path`] if a path cannot be opened.
    /// [`Error::OwnStorage`] if a path lies in the storage directory.
    pub fn find(paths: &[PathBuf], options: &Options) -> Result<Self, Error> {
        ScanRoots::find(paths, options).map(Self)
    }

    /// The absolute paths, sorted, each once.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.asked_for()
    }

    /// Whether these are whole paths, and not what has changed in them.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.0.is_whole()
    }

    /// Finds what has changed in or below `bases`, without those paths that a scan of them skips.
    /// `None` if nothing is left. Globs apply to paths below the bases.
    ///
    /// # Errors
    /// [`Error::Path`] if a directory cannot be opened.
    pub fn changed(paths: &[PathBuf], bases: &[PathBuf], options: &Options) -> Result<Option<Self>, Error> {
        ScanRoots::changed(paths, bases, options).map(|found| found.map(Self))
    }
}

/// Scans the roots. It calls `on_event` on this thread. The order of the events depends only on the
/// files.
///
/// # Errors
/// If the index cannot be read or written. A file that cannot be read is never an error.
pub fn scan(
    roots: &Roots,
    options: &Options,
    target: ScanTarget<'_>,
    stop: &Stop,
    on_event: &mut dyn FnMut(ScanEvent<'_>),
) -> Result<Summary, Error> {
    let started = Instant::now();
    if let Some(settling) = &options.settling {
        settling.tidy();
    }
    let (known, writer) = match target {
        ScanTarget::Index { known, writer } => (Some(known), Some(writer)),
        ScanTarget::DryRun { known } => (known, None),
    };
    let known = known.map(|known| known.with_declared(Arc::clone(&options.declared)));
    let seen = (writer.is_none() && options.vanished == Vanished::Prune).then(HashSet::new);
    let mut collector =
        Collector { writer, options, started, told: started, on_event, seen, summary: Summary::default() };
    let threads = ScanThreads::start(roots, options, known, stop)?;
    let walked = threads.collect(&mut collector)?;
    let not_pruned = if stop.is_asked() { Vec::new() } else { collector.find_moved(walked, roots)? };
    collector.finish(roots, not_pruned, stop)
}

/// The threads of a scan: the walk, the readers and the watchdog of the readers.
struct ScanThreads {
    /// The files between the walk and the collector.
    backlog: Arc<Backlog>,
    /// The units in the order of the walk, each with its number of files and its results.
    in_order: Receiver<(usize, Receiver<UnitResult>)>,
    hangs: Receiver<Hang>,
    limit: Limit,
    walker: JoinHandle<Result<Walked, Error>>,
    /// Ends the watchdog when it is dropped.
    ended: Sender<()>,
}

impl ScanThreads {
    /// Starts all threads.
    ///
    /// They are not scoped: the scan does not wait for a thread that hangs in the file system. The
    /// walk ends when the receivers have gone. Readers and watchdog end after the walk and the
    /// scan. So an error of the scan ends all threads, and nothing waits for them.
    fn start(roots: &Roots, options: &Options, known: Option<db::open::Reader>, stop: &Stop) -> Result<Self, Error> {
        let jobs = options.jobs.first.max(1);
        let backlog = Arc::new(Backlog::new(jobs * UNIT_FILES + WAITING_FILES));
        let (work, to_read) = unbounded();
        let (order, in_order) = bounded(MAX_UNITS);
        let (told, hangs) = unbounded();
        let limit = Limit { time: options.read_timeout, stop: stop.clone(), hanging: Arc::default(), told };
        let members = known.as_ref().map(db::open::Reader::another).transpose()?;
        let settings = ReadSettings {
            stop: stop.clone(),
            full: options.full,
            read_before: Arc::clone(&options.read_before),
            throttle: Arc::new(Throttle::new(options.throttle)),
            settling: options.settling.clone(),
            tape_files: options.tape_files,
            tape_check: Arc::default(),
            wanted: Wanted::with_declared(&options.declared),
            members: Arc::new(KnownMembers::new(members)),
        };
        let pool = Pool { to_read, backlog: Arc::clone(&backlog), settings, surplus: Arc::default() };
        let mut watch = Watchdog::new(pool, limit.clone(), options.jobs);
        for _ in 0..jobs {
            watch.start_reader(None).map_err(Error::Thread)?;
        }
        let (ended, is_over) = bounded::<()>(0);
        spawn("scan watch", move || watch.run(&is_over))?;
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
        Ok(Self { backlog, in_order, hangs, limit, walker, ended })
    }

    /// Hands all results to the collector until the walk is over.
    fn collect(self, collector: &mut Collector<'_>) -> Result<Walked, Error> {
        let Self { backlog, in_order, hangs, limit, walker, ended } = self;
        let collected = collector.collect(&in_order, &backlog, &hangs);
        drop(in_order);
        backlog.close();
        let walked = walker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        drop(ended);
        let walked = collected.and(walked)?;
        limit.check()?;
        Ok(walked)
    }
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, Error> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(Error::Thread)
}

/// Takes the results in the order of the walk.
struct Collector<'a> {
    writer: Option<&'a WriterHandle>,
    options: &'a Options,
    started: Instant,
    told: Instant,
    on_event: &'a mut dyn FnMut(ScanEvent<'_>),
    /// Hashes of the SOP Instance UIDs that this scan read. Only a dry run needs them: without a
    /// writer, the index cannot tell which files have moved.
    seen: Option<HashSet<u64>>,
    summary: Summary,
}

impl Collector<'_> {
    /// Ends the account of missing files, and completes the summary. All files of the scan are in
    /// the queue of the writer by now, so the writer can tell which files have moved.
    fn finish(self, roots: &Roots, not_pruned: Vec<PathBuf>, stop: &Stop) -> Result<Summary, Error> {
        let Self { writer, options, started, mut summary, .. } = self;
        if let Some(writer) = writer {
            let prune = options.vanished != Vanished::Keep && !stop.is_asked();
            let mut roots = roots.paths();
            roots.retain(|root| !not_pruned.iter().any(|kept| root.starts_with(kept)));
            summary.missing += writer.resolve_missing(roots, not_pruned, prune)?;
            summary.add_tally(writer.flush()?);
            if options.vanished != Vanished::Keep {
                // The writer has also deleted the old locations of moved files.
                summary.removed += summary.moved;
            }
        }
        summary.interrupted = stop.is_asked();
        summary.dry_run = writer.is_none();
        summary.elapsed = started.elapsed();
        Ok(summary)
    }

    fn collect(
        &mut self,
        in_order: &Receiver<(usize, Receiver<UnitResult>)>,
        backlog: &Backlog,
        hangs: &Receiver<Hang>,
    ) -> Result<(), Error> {
        let mut checked = Instant::now();
        for (files, results) in in_order {
            loop {
                // Usually the result is already there.
                let result = match results.try_recv() {
                    Err(TryRecvError::Empty) => select! {
                        recv(results) -> result => result.ok(),
                        recv(hangs) -> hang => {
                            if let Ok(hang) = hang {
                                (self.on_event)(ScanEvent::Hangs(&hang));
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
                (self.on_event)(ScanEvent::Hangs(&hang));
            }
            if checked.elapsed() > CHECK_WRITER {
                checked = Instant::now();
                if let Some(writer) = self.writer {
                    self.summary.add_tally(writer.flush()?);
                }
            }
        }
        for hang in hangs.try_iter() {
            (self.on_event)(ScanEvent::Hangs(&hang));
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
            pending,
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
        self.summary.found += pending.len() as u64;
        self.summary.pending += pending.len() as u64;
        for name in &pending {
            (self.on_event)(ScanEvent::Pending { path: &directory.path.join(name) });
        }
        self.summary.archives += archives;
        self.summary.found += unchanged;
        self.summary.unchanged += unchanged;
        // These members are counted again, with the files below.
        replaced.into_iter().for_each(|counted| self.summary.take_back(counted));
        metrics::SCAN_FILES_UNCHANGED.add(unchanged);
        for report in &reports {
            self.summary.found += u64::from(report.kind != NotIndexed::Unlisted);
            let path = directory.shown_path(&report.name);
            self.not_indexed(&path, report.kind, &report.reason, &report.detail);
        }
        for file in &files {
            self.count_file(&directory, file);
        }
        metrics::SCAN_READ_FILE_BYTES.add(files.iter().map(|file| file.size).sum());
        let (dropped, missing) = self.sort_vanished(&directory, vanished);
        if self.told.elapsed() > PROGRESS_INTERVAL {
            self.told = Instant::now();
            self.summary.elapsed = self.started.elapsed();
            (self.on_event)(ScanEvent::Progress(&self.summary));
        }
        let Some(writer) = self.writer else { return Ok(()) };
        for (path, mounted) in mounts {
            writer.mount_point(path, mounted)?;
        }
        // Unchanged files need no write.
        if !(files.is_empty() && dropped.is_empty() && missing.is_empty() && returned.is_empty()) {
            writer.scanned(ScannedDirectory {
                place: directory.place,
                directory: directory.path.clone(),
                files,
                complete: ends_directory,
                vanished: dropped,
                missing,
                returned,
            })?;
        }
        Ok(())
    }

    /// Counts a file that was read, and reports its faults.
    fn count_file(&mut self, directory: &WorkDirectory, file: &ScannedFile) {
        // Archive files and notes about unlisted files do not count as files.
        match file.outcome {
            FileOutcome::NotIndexed { kind: NotIndexed::Container, .. } => return,
            FileOutcome::NotIndexed { kind: NotIndexed::Unlisted, .. } => {}
            FileOutcome::NotIndexed { .. } | FileOutcome::Instance(_) => self.summary.found += 1,
        }
        // The entry for a directory that cannot be opened has an empty name.
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
                    (self.on_event)(ScanEvent::Faults { path: &path, faults: record.faults() });
                }
            }
            FileOutcome::NotIndexed { kind, reason, detail } => self.not_indexed(&path, *kind, reason, detail),
        }
        self.summary.bytes += file.size;
    }

    /// Sorts entries that have vanished: those to drop now, and those that may have moved.
    fn sort_vanished(
        &mut self,
        directory: &WorkDirectory,
        vanished: Vec<(OsString, work::KnownAs)>,
    ) -> (Vec<OsString>, Vec<OsString>) {
        let (mut dropped, mut missing) = (Vec::new(), Vec::new());
        for (name, known_as) in vanished {
            match known_as {
                // Only a note is deleted, no instance.
                work::KnownAs::Noted => dropped.push(name),
                // The scan decides at its end, since the file may have moved.
                work::KnownAs::Indexed => {
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
        (dropped, missing)
    }

    /// Finds moved files below directories whose disk may not be mounted. It runs after all other
    /// files are in the index. Returns the directories below which missing files stay.
    fn find_moved(&mut self, mut walked: Walked, roots: &Roots) -> Result<Vec<PathBuf>, Error> {
        let suspects = walked.look_again(&roots.paths())?.to_vec();
        let new_doubts = walked.new_doubts().to_vec();
        let Some(mut known) = walked.known else { return Ok(Vec::new()) };
        if suspects.is_empty() && new_doubts.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(writer) = self.writer {
            self.summary.add_tally(writer.flush()?);
            for path in new_doubts {
                // Nothing of another disk is in the index, so the next scan sees the same sign.
                if !prune::has_file_there(&mut known, &path)? {
                    writer.mount_point(path, db::Mounted::NotExchanged)?;
                }
            }
        }
        let seen = self.seen.take().unwrap_or_default();
        let was_seen = |uid: &str| seen.contains(&xxh3_64(uid.as_bytes()));
        let prunes = self.options.vanished != Vanished::Keep;
        let (writer, summary) = (self.writer, &mut self.summary);
        let on_gone = &mut |place: Place, directory: &Path, gone: prune::GoneFiles| {
            match writer {
                Some(writer) => writer.scanned(ScannedDirectory {
                    vanished: gone.moved,
                    missing: gone.missing,
                    ..ScannedDirectory::new(place, directory)
                })?,
                None if prunes => summary.removed += gone.moved.len() as u64,
                None => {}
            }
            Ok(())
        };
        // A stop request does not interrupt this step.
        let left = prune::find_moved(&mut known, &suspects, &Stop::default(), &was_seen, on_gone)?;
        for not_pruned in &left {
            self.summary.missing += not_pruned.files;
            if !prunes {
                continue;
            }
            self.summary.not_pruned += not_pruned.files;
            (self.on_event)(ScanEvent::NotPruned(not_pruned));
        }
        if let Some(writer) = writer {
            let has_left = |path: &Path| left.iter().any(|not_pruned| not_pruned.path == path);
            for suspect in
                suspects.iter().filter(|suspect| suspect.why == Why::NothingKnown && !has_left(&suspect.path))
            {
                writer.mount_point(suspect.path.clone(), db::Mounted::NotExchanged)?;
            }
        }
        Ok(suspects.into_iter().map(|suspect| suspect.path).collect())
    }

    fn not_indexed(&mut self, path: &Path, kind: NotIndexed, reason: &str, detail: &str) {
        match kind {
            NotIndexed::Failed => {
                metrics::SCAN_FILES_FAILED.increment();
                self.summary.failed += 1;
                self.summary.failed_by_reason.count(reason);
                (self.on_event)(ScanEvent::Failed { path, reason, detail });
            }
            // Its members count instead.
            NotIndexed::Container => {}
            NotIndexed::Unlisted => {
                self.summary.unlisted += 1;
                (self.on_event)(ScanEvent::Unlisted { path });
            }
            NotIndexed::Skipped => {
                metrics::SCAN_FILES_SKIPPED.increment();
                self.summary.skipped += 1;
                self.summary.skipped_by_reason.count(reason);
                (self.on_event)(ScanEvent::Skipped { path, reason, detail });
            }
        }
    }
}
