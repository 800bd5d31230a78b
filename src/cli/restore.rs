//! `dcmdex restore` puts a backup in the place of the index, and keeps the former index.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use super::backup::manifest::{self, BackupVerdict, Manifest, counts_in_words};
use super::output::{Grouped, Shown};
use crate::cli::Exit;
use crate::cli::audited::CommandAudit;
use crate::cli::backup::{self, BroughtBack};
use crate::cli::context::{Context, IndexArgs, make_directory_of};
use crate::cli::correct::kept;
use crate::cli::remove;
use crate::cli::remove::listed::{REMOVED_SINCE, remove_listed};
use crate::cli::storage_match::storage_of;
use crate::config::Config;
use crate::db::open::{IndexHold, Reader, Writer, only_file_of};
use crate::db::{Admin as _, EventSearch as _, GivenNumbers, IndexStatus};
use crate::files::{FILE_MODE, parent_of, remove_if_there, with_suffix};
use crate::model::calendar::moment_text;
use crate::model::clock::Clock;

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Directory for received objects [default: dcmdex-data/objects]
    #[arg(long, value_name = "DIR")]
    storage: Option<PathBuf>,
    /// Also copy the objects beside the backup that the storage directory lacks
    #[arg(long)]
    objects: bool,
    /// Do it. Without this option, the command says what it would do
    #[arg(long)]
    yes: bool,
    /// The backup
    #[arg(value_name = "FILE")]
    backup: PathBuf,
}

pub(super) fn run(arguments: &RestoreArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.index.configure_with(arguments.storage.as_ref(), context)?;
    let index = only_file_of(&config.index, "a restore")?;
    let backup = &arguments.backup;
    let manifest = match manifest::verify(backup)? {
        BackupVerdict::Sound(manifest) => manifest,
        BackupVerdict::Refused(reason) => bail!("the backup {} is refused: {reason}", backup.display()),
    };
    let given = say_what_it_does(context, &index, backup, &manifest)?;
    let storage = config.kept_store_options().map(|options| options.directory);
    if let Some(options) = storage_of(&config, backup)? {
        say_what_was_corrected(context, backup, &options.directory)?;
    }
    if !arguments.yes {
        // It is refused now and not only with --yes.
        drop(IndexHold::take(&index)?);
        context.output.line("nothing was changed; --yes does it")?;
        return Ok(Exit::Done);
    }
    CommandAudit::open(&config, "restore")?
        .maintained(&[format!("backup={}", std::path::absolute(backup)?.display())])?;
    make_directory_of(&index)?;
    let new = copy_beside(&index, backup, &manifest)?;
    let mut refused = 0;
    if arguments.objects {
        let Some(storage) = &storage else {
            bail!("with `metadata_only` no objects are kept; hint: leave out --objects");
        };
        let brought = backup::bring_back(backup, (storage, config.receive.duplicates), |path, reason| {
            context.output.line(format_args!("refused: {}: {reason}", Shown(path)))?;
            Ok(())
        })?;
        refused = brought.refused;
        say_what_was_brought_back(context, brought)?;
    }
    let (corrections, removed) = prepare(&new, &config, given)?;
    if removed > 0 {
        context.output.line(format_args!("{} {REMOVED_SINCE}", Grouped(removed)))?;
    }
    if corrections > 0 {
        context.output.line(format_args!("{} corrections were brought back", Grouped(corrections)))?;
    }
    let moment = moment_text(Clock::System.now_ms()).replace(['-', ':'], "");
    let aside = IndexHold::take(&index)?.replace_with(&new.0, &format!(".before-{moment}"))?;
    if let Some(storage) = storage.filter(|_| arguments.objects) {
        remove::write_missing_lists(&config, &storage.canonicalize()?)?;
    }
    let status = Reader::open(&index)?.status()?;
    let counts = counts_in_words(status.patients, status.studies, status.series, status.instances);
    context.output.line(format_args!("{} has {counts}", Shown(&index)))?;
    if let Some(aside) = aside {
        context.output.line(format_args!("the former index is {}", Shown(&aside)))?;
    }
    Ok(if refused == 0 { Exit::Done } else { Exit::Partly })
}

fn say_what_was_brought_back(context: &mut Context, brought: BroughtBack) -> anyhow::Result<()> {
    let BroughtBack { objects, in_trash, left_out, refused } = brought;
    context.output.line(format_args!("{} objects were brought back", Grouped(objects)))?;
    for (count, became) in [
        (in_trash, "removed objects are in the trash again"),
        (left_out, "objects were left out: they were removed, or others took their places"),
        (refused, "objects were refused: they are not what the index says"),
    ] {
        if count > 0 {
            context.output.line(format_args!("{} {became}", Grouped(count)))?;
        }
    }
    Ok(())
}

/// Returns the numbers that must not be given again.
fn say_what_it_does(
    context: &mut Context,
    index: &Path,
    backup: &Path,
    manifest: &Manifest,
) -> anyhow::Result<GivenNumbers> {
    let mut given = GivenNumbers::by(Clock::System.now_ms());
    let output = &mut context.output;
    output.line(format_args!("backup:  {}: {}", Shown(backup), manifest.in_words()))?;
    // The reader is closed before the index is locked.
    let now = match index.try_exists()? {
        true => Some(Reader::open(index).and_then(|mut reader| Ok((reader.status()?, reader.last_event()?)))),
        false => None,
    };
    match now {
        None => output.line(format_args!("present: there is no index at {}", Shown(index)))?,
        Some(Err(error)) => {
            output.line(format_args!("present: {}: it cannot be read ({error}), and is kept", Shown(index)))?
        }
        Some(Ok((status, last_event))) => {
            given = GivenNumbers::after(status.last_change, last_event);
            let IndexStatus { patients, studies, series, instances, last_change, .. } = status;
            let counts = counts_in_words(patients, studies, series, instances);
            output.line(format_args!("present: {}: {counts}; it is kept under another name", Shown(index)))?;
            let lost = last_change.saturating_sub(manifest.last_change);
            if lost == 0 {
                output.line("lost:    nothing")?;
                return Ok(given);
            }
            output.line(format_args!(
                "lost:    what has changed since {} (change {} to {last_change}: {} numbers). `dcmdex rebuild` indexes \
                 received objects that came since, and `dcmdex scan` what lies in place",
                moment_text(manifest.made_ms()),
                manifest.last_change,
                Grouped(lost)
            ))?
        }
    };
    Ok(given)
}

/// Says which corrections lie beside the received objects, and the backup lacks them.
fn say_what_was_corrected(context: &mut Context, backup: &Path, storage: &Path) -> anyhow::Result<()> {
    let lacking = kept::lacking(&mut manifest::open_copy(backup)?, storage)?.len();
    if lacking > 0 {
        context.output.line(format_args!(
            "kept:    {} corrections that were made or undone since; they lie beside the received objects",
            Grouped(lacking as u64)
        ))?;
    }
    Ok(())
}

/// Makes the corrections in the new index that it lacks, and raises its numbers. So it never
/// answers without them. Returns how many corrections there were.
fn prepare(new: &NewIndex, config: &Config, given: GivenNumbers) -> anyhow::Result<(u64, u64)> {
    let writer = Writer::open(&new.0, config.node_writer_options())?;
    writer.handle().raise_numbers("restore", given, Clock::System.now_ms())?;
    let (mut made, mut removed) = (0, 0);
    if let Some(options) = storage_of(config, &new.0)? {
        made = kept::bring_back(&new.0, &options.directory, &writer.handle())?;
        removed = remove_listed(&new.0, &options.directory, &writer.handle())?;
    }
    writer.close()?;
    // What its log holds has to be in the file, which alone gets another name.
    drop(IndexHold::take(&new.0)?);
    Ok((made, removed))
}

/// A file that is removed, unless it has been renamed, with those that a writer makes beside it.
struct NewIndex(PathBuf);

impl NewIndex {
    fn clear(&self) -> io::Result<()> {
        ["", "-wal", "-shm", "-turn"].iter().try_for_each(|suffix| remove_if_there(&with_suffix(&self.0, suffix)))
    }
}

impl Drop for NewIndex {
    fn drop(&mut self) {
        let _renamed = self.clear();
    }
}

/// Copies the backup beside the index, and checks the copy as it will be used.
fn copy_beside(index: &Path, backup: &Path, manifest: &Manifest) -> anyhow::Result<NewIndex> {
    let index = index.canonicalize().unwrap_or_else(|_| index.to_owned());
    let new = NewIndex(with_suffix(&index, ".restoring"));
    let copy = || -> io::Result<()> {
        // A killed restore may have left it.
        new.clear()?;
        let mut file = OpenOptions::new().create_new(true).write(true).mode(FILE_MODE).open(&new.0)?;
        io::copy(&mut File::open(backup)?, &mut file)?;
        if rustix::process::geteuid().is_root() {
            // The node must be able to write it.
            let like = fs::metadata(&index).or_else(|_| fs::metadata(parent_of(&index)))?;
            std::os::unix::fs::fchown(&file, Some(like.uid()), Some(like.gid()))?;
        }
        file.sync_all()
    };
    copy().with_context(|| format!("cannot copy {} to {}", backup.display(), new.0.display()))?;
    // The index in the backup was checked. The same bytes hold the same index.
    if !manifest.describes(&new.0)? {
        bail!("the copy {} is not what was read from {}", new.0.display(), backup.display());
    }
    Ok(new)
}
