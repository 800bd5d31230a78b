//! `dcmdex rebuild` indexes the objects of the storage directory that the index lacks. After a loss
//! of the index these are all objects. After a backup was restored, they are those that arrived
//! since.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::output::{Grouped, Shown};
use crate::cli::context::{Context, IndexArgs, make_directory_of};
use crate::cli::reindex::{QUEUE_LENGTH, ReadObject, drop_gone, read, store_batches};
use crate::cli::remove::listed::{REMOVED_SINCE, remove_listed};
use crate::cli::unindexed::RemovedInPlace;
use crate::cli::{Exit, arrival_journal, correct, directory_checks, remove, storage_match, unindexed};
use crate::config::Config;
use crate::db::open::{Reader, Writer, WriterHandle, WriterOptions};
use crate::db::{
    Admin, Arrivals, Durability, FileOutcome, GivenNumbers, KnownLocation, PAGE_DIRECTORIES, RemovalSearch as _,
    ScanLedger, ScannedDirectory, ScannedFile, Search as _,
};
use crate::files::is_missing;
use crate::ingest::Wanted;
use crate::model::clock::Clock;
use crate::model::location::{Location, Place};
use crate::receive::replay::UnnamedFiles;
use crate::store::{Objects, checksum};

/// Objects that a thread reads before it hands them over. Larger: more memory, some 3 KB for each
/// object and thread. Smaller: more hand-over between threads.
const BATCH: usize = 128;

const EXAMPLES: &str = "\
Examples:
  dcmdex rebuild                after the index was lost, or an old one restored
  dcmdex rebuild --prune        after files of received objects were removed";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RebuildArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Directory with the objects [default: dcmdex-data/objects]
    #[arg(long, value_name = "DIR")]
    storage: Option<PathBuf>,
    /// Also delete entries of received objects whose files are gone, for good
    #[arg(long)]
    prune: bool,
}

pub(super) fn run(arguments: &RebuildArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.index.configure_with(arguments.storage.as_ref(), context)?;
    let Some(options) = config.kept_store_options() else {
        bail!("with `metadata_only` no objects are kept, so there is nothing to index");
    };
    if !options.directory.is_dir() {
        bail!("there is no storage directory at {}", options.directory.display());
    }
    // It takes the lock, so that no node stores meanwhile.
    let objects = Arc::new(Objects::open(&options)?);
    make_directory_of(&config.index)?;
    let writer = Writer::open(&config.index, config.node_writer_options())?;
    join(&config, &objects, &writer.handle())?;
    directory_checks::follow_storage(&config.index, objects.root(), &writer.handle())?;
    let removed = remove_listed(&config.index, objects.root(), &writer.handle())?;
    let undone = remove::undo_again(&config, objects.root(), &writer.handle(), context)?;
    let corrections = correct::kept::bring_back(&config.index, objects.root(), &writer.handle())?;
    arrival_journal::empty(&config, &objects, &writer.handle(), UnnamedFiles::Keep)?;
    writer.close()?;
    // What a power cut takes away now is found again by the next rebuild.
    let options =
        WriterOptions { durability: Durability::Os, queue_length: QUEUE_LENGTH, ..config.node_writer_options() };
    let writer = Writer::open(&config.index, options)?;
    let counts = index_strays(&config, &objects, &writer.handle(), context)?;
    drop_replaced(&config, &writer.handle(), &counts.differing)?;
    let pruned = if arguments.prune { prune(&config, objects.root(), &writer.handle())? } else { 0 };
    writer.close()?;
    context.output.line(format_args!(
        "{} objects of {} were not in the index and are now; {} could not be indexed",
        Grouped(counts.indexed),
        Shown(objects.root()),
        Grouped(counts.failed)
    ))?;
    if corrections > 0 {
        context.output.line(format_args!("{} corrections were brought back", Grouped(corrections)))?;
    }
    if removed > 0 {
        context.output.line(format_args!("{} {REMOVED_SINCE}", Grouped(removed)))?;
    }
    if counts.removed > 0 {
        context.output.line(format_args!("{} removed objects were left out", Grouped(counts.removed)))?;
    }
    if arguments.prune {
        context.output.line(format_args!("{} entries whose objects are gone were deleted", Grouped(pruned)))?;
    }
    Ok(if counts.failed == 0 { undone } else { Exit::Partly })
}

/// Refuses the objects of another index, and a storage directory that may not be mounted. An index
/// without a name that names no objects here gets the name that the objects know.
fn join(config: &Config, objects: &Objects, writer: &WriterHandle) -> anyhow::Result<()> {
    let mut reader = Reader::open(&config.index)?;
    let root = objects.root();
    let names_objects = !reader.directories_below(Place::Managed, root, root, 1)?.is_empty();
    if reader.index_id()?.is_none() && !names_objects {
        let of_lost = objects.index_id()?;
        if of_lost.is_some() {
            let now_ms = Clock::System.now_ms();
            writer.raise_numbers("rebuild", GivenNumbers::by(now_ms), now_ms)?;
        }
        let id = writer.name_index(of_lost)?;
        objects.set_index_id(&id)?;
    }
    storage_match::refuse_misfits(&config.index, objects, writer)
}

/// Deletes the entries of objects of the node whose files are gone, where another object of the
/// instance is there. It took their place since the index was saved.
fn drop_replaced(config: &Config, writer: &WriterHandle, differing: &[String]) -> anyhow::Result<()> {
    let mut reader = Reader::open(&config.index)?;
    for uid in differing {
        for KnownLocation { location, .. } in reader.known_locations(uid)? {
            if location.place == Place::Managed && location.path().is_some_and(|path| is_missing(&path)) {
                drop_gone(writer, location.directory, vec![location.file_name])?;
            }
        }
    }
    Ok(())
}

/// Deletes the entries of received objects whose files are gone. Returns how many there were.
fn prune(config: &Config, root: &Path, writer: &WriterHandle) -> anyhow::Result<u64> {
    let mut reader = Reader::open(&config.index)?;
    let mut after = root.to_owned();
    loop {
        let page = reader.directories_below(Place::Managed, root, &after, PAGE_DIRECTORIES)?;
        let Some(last) = page.last() else { break };
        after.clone_from(last);
        for directory in page {
            let known = reader.directory_files(&directory)?;
            let vanished: Vec<OsString> = known.into_keys().filter(|name| is_missing(&directory.join(name))).collect();
            if !vanished.is_empty() {
                drop_gone(writer, directory, vanished)?;
            }
        }
    }
    Ok(writer.flush()?.removed)
}

#[derive(Default)]
struct RebuildCounts {
    indexed: u64,
    failed: u64,
    /// Objects of instances that an operator removed.
    removed: u64,
    /// UIDs of objects that the index has with other content as well.
    differing: Vec<String>,
}

/// A file that is to be read.
struct FileToRead {
    series: PathBuf,
    name: OsString,
    /// Whether the index names it, with another size or time.
    is_known: bool,
}

/// The files of a batch.
type FileBatch = Vec<FileToRead>;

/// Results of reading the files of a batch.
type ReadBatch = Vec<Result<ReadObject, String>>;

/// Lists, reads and stores at the same time. What was read is stored in the order of the list.
fn index_strays(
    config: &Config,
    objects: &Objects,
    writer: &WriterHandle,
    context: &mut Context,
) -> anyhow::Result<RebuildCounts> {
    let jobs = config.scan.jobs.first;
    let (mut known, reader) = (Reader::open(&config.index)?, Reader::open(&config.index)?);
    let wanted = Wanted::with_declared(&config.declared);
    let root = objects.root();
    let removed = &RemovedInPlace::below(root, &mut known)?;
    let series = unindexed::series_directories(root).with_context(|| format!("cannot list {}", root.display()))?;
    thread::scope(|scope| {
        let (work, to_read) = bounded::<(Arc<FileBatch>, Sender<ReadBatch>)>(jobs);
        let (order, in_order) = bounded::<(Arc<FileBatch>, Receiver<ReadBatch>)>(jobs);
        let (found, batches) = bounded(1);
        let listing = scope.spawn(move || {
            list(series, (&mut known, removed), |files| {
                let (files, (done, read)) = (Arc::new(files), bounded(1));
                // Otherwise storing has failed.
                order.send((Arc::clone(&files), read)).is_ok() && work.send((files, done)).is_ok()
            })
        });
        for _ in 0..jobs {
            let to_read = to_read.clone();
            scope.spawn(move || {
                let read_one = |file: &FileToRead| read(Place::Managed, &file.series, &file.name, wanted);
                for (files, done) in to_read {
                    // Otherwise storing has failed.
                    let _unwanted = done.send(files.iter().map(read_one).collect());
                }
            });
        }
        drop(to_read);
        let storing = scope.spawn(move || store_batches(writer, batches));
        let counts = RebuildCounts::default();
        let mut rebuild = Rebuild { reader, writer, removed, found, context, counts, received_again: Vec::new() };
        let read = in_order.into_iter().try_for_each(|(files, read)| rebuild.take(&files, read.recv()?));
        let read = read.and_then(|()| rebuild.enter_received_again());
        let counts = rebuild.counts;
        drop(rebuild.found);
        let listed = listing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let stored = storing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let differing = stored?;
        read.and(listed)?;
        Ok(RebuildCounts { differing, ..counts })
    })
}

/// Lists the files in these directories that the index lacks, or knows otherwise, until `on_batch`
/// wants no more.
fn list(
    series: impl Iterator<Item = PathBuf>,
    (known, removed): (&mut Reader, &RemovedInPlace),
    mut on_batch: impl FnMut(FileBatch) -> bool,
) -> anyhow::Result<()> {
    let mut waiting = Vec::new();
    for series in series {
        for (name, is_known) in unindexed::files_to_read(known, &series, removed)? {
            waiting.push(FileToRead { series: series.clone(), name, is_known });
            if waiting.len() == BATCH && !on_batch(std::mem::take(&mut waiting)) {
                return Ok(());
            }
        }
    }
    on_batch(waiting);
    Ok(())
}

/// Decides what becomes of objects that were read.
struct Rebuild<'a> {
    reader: Reader,
    writer: &'a WriterHandle,
    removed: &'a RemovedInPlace,
    /// Objects that came after a removal of their instances.
    received_again: Vec<ReadObject>,
    /// Objects on their way to the index.
    found: Sender<Vec<ReadObject>>,
    context: &'a mut Context,
    counts: RebuildCounts,
}

impl Rebuild<'_> {
    /// Hands over the objects of a batch to be entered.
    fn take(&mut self, files: &FileBatch, read: ReadBatch) -> anyhow::Result<()> {
        let uids = read.iter().flatten().map(|object| object.sop_instance_uid().to_owned());
        let removed = self.reader.removed_among(uids.collect())?;
        let mut found = Vec::new();
        for (FileToRead { series, name, is_known }, read) in files.iter().zip(read) {
            match read {
                Ok(object) if self.removed.has(&object, &removed) => self.leave_out(object)?,
                Ok(object) if removed.contains_key(object.sop_instance_uid()) => self.received_again.push(object),
                Ok(object) if *is_known && self.is_same_content(&object)? => {}
                Ok(object) => {
                    if *is_known {
                        // Its entry is of an object that is gone.
                        drop_gone(self.writer, series.clone(), vec![name.clone()])?;
                    }
                    found.push(object);
                }
                Err(reason) => {
                    self.counts.failed += 1;
                    let path = series.join(name);
                    self.context.output.line(format_args!("failed: {}: {reason}", Shown(&path)))?;
                }
            }
        }
        self.enter(found)
    }

    fn enter(&mut self, found: Vec<ReadObject>) -> anyhow::Result<()> {
        self.counts.indexed += found.len() as u64;
        self.found.send(found).map_err(|_| anyhow!("the objects cannot be entered"))
    }

    /// Notes the file of a removed object. It stays out when another object of the instance comes.
    fn leave_out(&mut self, object: ReadObject) -> anyhow::Result<()> {
        let Location { place, directory, file_name, size, mtime_ms } = object.location;
        let outcome = FileOutcome::Instance(object.record);
        let files = vec![ScannedFile { file_name, size, mtime_ms, known: false, reread: false, outcome }];
        self.writer.scanned(ScannedDirectory { files, ..ScannedDirectory::new(place, directory) })?;
        self.counts.removed += 1;
        Ok(())
    }

    /// Enters the objects that came after a removal. Their instances are removed until then, so
    /// that the files of the removed objects can be noted.
    fn enter_received_again(&mut self) -> anyhow::Result<()> {
        self.writer.flush()?;
        let found = std::mem::take(&mut self.received_again);
        self.enter(found)
    }

    /// Whether an object has the content that the index says of its path. Only its time is another
    /// one then, as after a copy to another disk.
    fn is_same_content(&mut self, object: &ReadObject) -> anyhow::Result<bool> {
        let path = object.location.path();
        let known = self.reader.known_locations(object.sop_instance_uid())?;
        let entry = known.into_iter().find(|known| known.location.path() == path);
        let Some(KnownLocation { location, checksum: Some(expected), .. }) = entry else { return Ok(false) };
        Ok(location.size == object.location.size && checksum(&object.location).ok().flatten() == Some(expected))
    }
}
