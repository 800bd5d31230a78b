//! `dcmdex rebuild` indexes the objects of the storage directory that the index lacks. After a loss
//! of the index these are all objects. After a backup was restored, they are those that arrived
//! since.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use anyhow::{Context as _, bail};
use clap::Args;
use rayon::prelude::*;

use super::output::{Grouped, Shown};
use crate::cli::context::{Chattiness, Context, Flags, IndexArgs, make_directory_of};
use crate::cli::{Exit, fit, places, stray};
use crate::config::Config;
use crate::db::open::{Reader, Writer, WriterHandle};
use crate::db::{Admin, Arrivals, Compared, ReceivePolicy, Received, ScanLedger, ScannedDirectory, StoreOutcome};
use crate::ingest::{Outcome, Wanted, read_file};
use crate::model::clock::unix_ms;
use crate::model::location::{Location, Place};
use crate::model::record::InstanceRecord;
use crate::store::Objects;

/// Objects that wait for the writer at a time.
const BATCH: usize = 64;

/// Directories of the index that one query returns.
const PAGE_DIRECTORIES: usize = 1000;

#[derive(Debug, Args)]
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
    let mut flags = Flags::default();
    arguments.index.add_to(&mut flags)?;
    flags.path("storage", "--storage", arguments.storage.as_ref())?;
    let config = context.configure(flags.0, Chattiness::Tool)?;
    let Some(options) = config.store_options() else {
        bail!("with `metadata_only` no objects are kept, so there is nothing to index");
    };
    if !options.directory.is_dir() {
        bail!("there is no storage directory at {}", options.directory.display());
    }
    // It takes the lock, so that no node stores meanwhile.
    let objects = Objects::open(&options)?;
    make_directory_of(&config.index)?;
    let writer = Writer::open(&config.index, config.node_writer_options())?;
    join(&config, &objects, &writer.handle())?;
    places::follow_storage(&config.index, objects.root(), &writer.handle())?;
    let counts = index_strays(&config, &objects, &writer.handle(), context)?;
    let pruned = if arguments.prune { prune(&config, objects.root(), &writer.handle())? } else { 0 };
    writer.close()?;
    context.output.line(format_args!(
        "{} objects of {} were not in the index and are now; {} could not be indexed",
        Grouped(counts.indexed),
        Shown(objects.root()),
        Grouped(counts.failed)
    ))?;
    if arguments.prune {
        context.output.line(format_args!("{} entries whose objects are gone were deleted", Grouped(pruned)))?;
    }
    Ok(if counts.failed == 0 { Exit::Done } else { Exit::Partly })
}

/// Refuses the objects of another index, and a storage directory that may not be mounted. An index
/// without a name that names no objects here gets the name that the objects know.
fn join(config: &Config, objects: &Objects, writer: &WriterHandle) -> anyhow::Result<()> {
    let mut reader = Reader::open(&config.index)?;
    let root = objects.root();
    let names_objects = !reader.directories_below(Place::Managed, root, root, 1)?.is_empty();
    if reader.index_id()?.is_none() && !names_objects {
        let id = writer.name_index(objects.index_id()?)?;
        objects.set_index_id(&id)?;
    }
    fit::refuse_misfits(&config.index, objects, writer)
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
            let is_gone = |name: &OsString| {
                let found = directory.join(name).symlink_metadata();
                found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
            };
            let known = reader.directory_files(&directory)?;
            let vanished: Vec<OsString> = known.into_keys().filter(|name| is_gone(name)).collect();
            if !vanished.is_empty() {
                writer.scanned(ScannedDirectory {
                    place: Place::Managed,
                    directory,
                    files: Vec::new(),
                    complete: false,
                    vanished,
                    missing: Vec::new(),
                    returned: Vec::new(),
                })?;
            }
        }
    }
    Ok(writer.flush()?.removed)
}

#[derive(Default)]
struct RebuildCounts {
    indexed: u64,
    failed: u64,
}

fn index_strays(
    config: &Config,
    objects: &Objects,
    writer: &WriterHandle,
    context: &mut Context,
) -> anyhow::Result<RebuildCounts> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(config.scan_jobs).build();
    let pool = pool.context("cannot start threads to read objects")?;
    let wanted = Wanted::with_declared(&config.declared);
    let mut reader = Reader::open(&config.index)?;
    let mut counts = RebuildCounts::default();
    let root = objects.root();
    let listed = stray::series_directories(root).with_context(|| format!("cannot list {}", root.display()))?;
    for series in listed {
        let names = stray::unknown_files(&mut reader, &series)?;
        for names in names.chunks(BATCH) {
            let read: Vec<_> = pool.install(|| names.par_iter().map(|name| read(&series, name, wanted)).collect());
            let mut found = Vec::new();
            for (name, outcome) in names.iter().zip(read) {
                match outcome {
                    Ok(instance) => found.push(instance),
                    Err(reason) => {
                        counts.failed += 1;
                        let path = series.join(name);
                        context.output.line(format_args!("failed: {}: {reason}", Shown(&path)))?;
                    }
                }
            }
            counts.indexed += found.len() as u64;
            store(writer, found)?;
        }
    }
    Ok(counts)
}

/// Reads an object, or says why it cannot be indexed.
fn read(series: &Path, name: &OsString, wanted: &Wanted) -> Result<(Box<InstanceRecord>, Location), String> {
    let in_words = |error: std::io::Error| error.to_string();
    let file = File::open(series.join(name)).map_err(in_words)?;
    let metadata = file.metadata().map_err(in_words)?;
    let record = match read_file(&file, wanted) {
        Outcome::Instance(record) => record,
        Outcome::Incomplete { .. } => return Err("it lacks a UID".to_owned()),
        Outcome::Dicomdir => return Err("it is a DICOMDIR".to_owned()),
        Outcome::NotDicom { reason } => return Err(reason.to_owned()),
        Outcome::Damaged { fault } => return Err(fault.to_string()),
        Outcome::Unreadable { error } => return Err(error.to_string()),
    };
    let location = Location {
        place: Place::Managed,
        directory: series.to_owned(),
        file_name: name.clone(),
        size: metadata.len(),
        mtime_ms: metadata.modified().map_or(0, unix_ms),
    };
    Ok((record, location))
}

/// Stores instances, and waits until all of them are committed.
fn store(writer: &WriterHandle, found: Vec<(Box<InstanceRecord>, Location)>) -> anyhow::Result<()> {
    let mut left: Vec<_> = found.into_iter().map(|(record, location)| (record, location, Compared::Nothing)).collect();
    while !left.is_empty() {
        let (done, outcomes) = mpsc::channel();
        let mut sent = Vec::new();
        for (record, location, compared) in left.drain(..) {
            let received = Received {
                policy: ReceivePolicy::default(),
                compared,
                ..Received::new(record.clone(), location.clone())
            };
            let done = done.clone();
            let number = sent.len();
            sent.push((record, location));
            // The receiver is there until all have answered.
            writer.store(received, Box::new(move |stored| drop(done.send((number, stored)))));
        }
        drop(done);
        let mut again = Vec::new();
        for (number, stored) in outcomes {
            if let StoreOutcome::Identical { uncompared: Some(_) } = stored?.outcome {
                // The node keeps a second object of an instance only if the two differ.
                again.push(number);
            }
        }
        for number in again {
            if let Some((record, location)) = sent.get(number) {
                left.push((record.clone(), location.clone(), Compared::FirstIsOther));
            }
        }
    }
    Ok(())
}
