//! `dcmdex remove` takes instances out of the index, and received objects to the trash. It says
//! first what it would do, and what was removed can come back.

mod chosen;
pub(in crate::cli) mod listed;
mod trash;
mod undo;

use anyhow::Context as _;
use clap::{ArgGroup, Args};
use serde_json::json;

use self::chosen::{ChosenStudy, RemovalChoice, choose};
use super::output::Grouped;
use crate::audit::AuditedStudy;
use crate::cli::Exit;
use crate::cli::audited::CommandAudit;
use crate::cli::context::{Context, StorageArgs};
use crate::cli::storage_match::storage_of;
use crate::config::Config;
use crate::db::open::{Reader, Writer, WriterHandle, is_on_server, only_file_of};
use crate::db::{RemovalChanges as _, RemovalSearch as _, RemovedCounts};
use crate::model::calendar::moment_text;
use crate::model::clock::Clock;
use crate::receive::trash::SweptObjects;
use crate::store::Trash;

/// Instances in one transaction, at least. A study is never divided. Larger: a node waits longer
/// for its turn. Smaller: more transactions.
const BATCH: usize = 2000;

#[derive(Debug, Args)]
#[command(after_long_help = REMOVE_HELP)]
#[command(group(ArgGroup::new("work").required(true).args(["keys", "list", "undo", "empty"]).multiple(false)))]
pub(super) struct RemovalArgs {
    #[command(flatten)]
    settings: StorageArgs,
    /// Also move received objects to the trash of the storage directory
    #[arg(long, requires = "keys")]
    objects: bool,
    /// Remove whole studies, the oldest first, until SIZE is free on the disk of the received
    /// objects (200G is 200 GiB). Needs --objects and --no-undo
    #[arg(long, value_name = "SIZE", value_parser = chosen::size, requires = "objects", requires = "no_undo")]
    until_free: Option<u64>,
    /// Delete the objects for good, instead of keeping them in the trash
    #[arg(long, requires = "objects")]
    no_undo: bool,
    /// Do it. Without this option, the command says what it would do
    #[arg(long)]
    yes: bool,
    /// List what was removed
    #[arg(long)]
    list: bool,
    /// Bring back what the removal with this number took away
    #[arg(long, value_name = "N")]
    undo: Option<i64>,
    /// Delete objects in the trash for good if they were removed more than DAYS days ago
    #[arg(long, value_name = "DAYS")]
    empty: Option<u32>,
    /// Write one JSON object per line (docs/json.md)
    #[arg(long)]
    json: bool,
    /// What to remove, as for `dcmdex find`
    #[arg(value_name = "KEY=VALUE")]
    keys: Vec<String>,
}

const REMOVE_HELP: &str = "\
Keys and values are those of `dcmdex find`. All instances that match are removed, each study in one piece.

Files that were scanned in place are never touched. The index forgets them, and no scan and no \
`dcmdex rebuild` brings them back. Received objects stay where they are, or go to the trash with --objects. \
An instance that is received again is stored as a new one.

Examples:
  dcmdex remove StudyInstanceUID=1.2.3                          what would be removed
  dcmdex remove StudyInstanceUID=1.2.3 --objects --yes          does it
  dcmdex remove --list                                          the removals with their numbers
  dcmdex remove --undo 7 --yes                                  brings all of number 7 back
  dcmdex remove --empty 7 --yes                                 frees the disk of the trash
  dcmdex remove StudyDate=..today-10y Modality=US --objects     what a rule of age would remove
  dcmdex remove StudyDate=..today-1y --objects --no-undo --until-free 200G --yes";

pub(super) fn run(arguments: &RemovalArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.settings.configure(context)?;
    if arguments.list {
        return trash::list(&config, arguments.json, context);
    }
    if let Some(removal) = arguments.undo {
        return undo::run(&config, removal, arguments.yes, context);
    }
    if let Some(days) = arguments.empty {
        return trash::empty(&config, days, arguments.yes, context);
    }
    if !is_on_server(&config.index) {
        // What would be refused is not promised either.
        only_file_of(&config.index, "a removal")?;
    }
    let chosen = choose(&arguments.keys, arguments.until_free, &config)?;
    match (arguments.yes, chosen.studies.is_empty()) {
        (true, false) => remove(arguments, &config, &chosen, context),
        (true, true) if arguments.objects && finish(arguments, &config, context)? => Ok(Exit::Done),
        _ => tell(arguments, &chosen, context),
    }
}

/// Keys and options of the command, as the audit trail has them.
fn keys_of(arguments: &RemovalArgs) -> Vec<String> {
    let options = [("--objects", arguments.objects), ("--no-undo", arguments.no_undo)];
    let options = options.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name.to_owned());
    let until_free = arguments.until_free.map(|bytes| format!("--until-free {bytes}"));
    arguments.keys.iter().cloned().chain(options).chain(until_free).collect()
}

/// Says what would be removed.
fn tell(arguments: &RemovalArgs, chosen: &RemovalChoice, context: &mut Context) -> anyhow::Result<Exit> {
    let mut counts = RemovedCounts::default();
    chosen.studies.iter().for_each(|study| counts.add(study.counts));
    if arguments.json {
        context.output.line(in_json(None, chosen, counts))?;
    } else if chosen.is_enough_free {
        context.output.line("enough is free: nothing has to go")?;
    } else if counts.instances == 0 {
        context.output.line("nothing matches")?;
        tell_held(chosen, context)?;
    } else {
        let objects = match (arguments.objects, arguments.no_undo) {
            (false, _) => "stay where they are",
            (true, false) => "go to the trash",
            (true, true) => "are DELETED FOR GOOD",
        };
        context.output.line(format_args!(
            "would remove {} instances of {} studies: {} received objects of {} bytes, which {objects}, and {} files in place, \
             which stay as they are",
            Grouped(counts.instances),
            Grouped(chosen.studies.len() as u64),
            Grouped(counts.objects),
            Grouped(counts.object_bytes),
            Grouped(counts.in_place)
        ))?;
        tell_held(chosen, context)?;
        context.output.line("nothing was changed; --yes does it")?;
    }
    Ok(if counts.instances > 0 || chosen.is_enough_free { Exit::Done } else { Exit::Partly })
}

/// Says which studies a rule of free space leaves out.
fn tell_held(chosen: &RemovalChoice, context: &mut Context) -> anyhow::Result<()> {
    if chosen.held > 0 {
        context.output.line(format_args!(
            "{} studies are left out: their objects have other names, as in a backup by hard links, so deleting them frees \
             nothing",
            Grouped(chosen.held as u64)
        ))?;
    }
    Ok(())
}

fn remove(
    arguments: &RemovalArgs,
    config: &Config,
    chosen: &RemovalChoice,
    context: &mut Context,
) -> anyhow::Result<Exit> {
    let begun_ms = Clock::System.now_ms();
    let studies = &chosen.studies;
    let audited = studies.iter().map(|study| AuditedStudy {
        study_instance_uid: study.uid.clone(),
        patient_id: study.patient_id.clone(),
        ..AuditedStudy::default()
    });
    // Before it is done. A removal that then fails is noted all the same.
    CommandAudit::open(config, "remove")?.deleted(keys_of(arguments), &audited.collect::<Vec<_>>())?;
    let writer = Writer::open(&config.index, config.node_writer_options())?;
    if arguments.no_undo
        && let Some(storage) = storage_of(config, &config.index)?
    {
        // Whoever goes on after a kill so learns that nobody wants the objects back.
        Trash::below(&storage.directory).mark_for_good(begun_ms).context("cannot write to the trash")?;
    }
    let (removal, counts) = remove_rows(arguments, studies, begun_ms, &writer.handle())?;
    let trashed = move_objects(arguments, config, (removal, begun_ms), &writer.handle())?;
    writer.close()?;
    if arguments.json {
        context.output.line(in_json(Some(removal), chosen, counts))?;
        return Ok(Exit::Done);
    }
    context.output.line(format_args!(
        "removal {removal} ({}): {} instances of {} studies are no longer in the index",
        moment_text(begun_ms),
        Grouped(counts.instances),
        Grouped(studies.len() as u64)
    ))?;
    tell_held(chosen, context)?;
    tell_objects(arguments, trashed, counts, context)?;
    if !arguments.no_undo {
        context.output.line(format_args!("`dcmdex remove --undo {removal} --yes` brings them back"))?;
    }
    Ok(Exit::Done)
}

/// Takes the instances out of the index. Returns the number of the removal.
fn remove_rows(
    arguments: &RemovalArgs,
    chosen: &[ChosenStudy],
    begun_ms: i64,
    writer: &WriterHandle,
) -> anyhow::Result<(i64, RemovedCounts)> {
    let removal = writer.begin_removal(begun_ms, arguments.objects)?;
    let mut counts = RemovedCounts::default();
    let mut batch = Vec::new();
    for study in chosen {
        batch.extend_from_slice(&study.instances);
        if batch.len() >= BATCH {
            counts.add(writer.remove(removal, arguments.objects, std::mem::take(&mut batch))?);
        }
    }
    counts.add(writer.remove(removal, arguments.objects, batch)?);
    tracing::info!(
        removal,
        studies = chosen.len(),
        instances = counts.instances,
        objects = arguments.objects,
        "instances were removed"
    );
    Ok((removal, counts))
}

/// Moves objects to the trash if that is wanted, and deletes them if they cannot come back. `None`
/// if the node does it.
fn move_objects(
    arguments: &RemovalArgs,
    config: &Config,
    (removal, begun_ms): (i64, i64),
    writer: &WriterHandle,
) -> anyhow::Result<Option<SweptObjects>> {
    let Some(options) = storage_of(config, &config.index)? else { return Ok(Some(SweptObjects::default())) };
    write_list(&options.directory, config, removal, begun_ms)?;
    if arguments.objects { trash::sweep(config, &options, writer) } else { Ok(Some(SweptObjects::default())) }
}

/// Ends the removals that were killed before all of their objects were in the trash, or deleted.
/// Returns whether there were any.
fn finish(arguments: &RemovalArgs, config: &Config, context: &mut Context) -> anyhow::Result<bool> {
    let Some(options) = storage_of(config, &config.index)? else { return Ok(false) };
    let writer = Writer::open(&config.index, config.node_writer_options())?;
    let swept = trash::sweep(config, &options, &writer.handle())?;
    writer.close()?;
    let Some(swept) = swept else {
        let is_complete = Reader::open(&config.index)?.files_for_trash(None, 1)?.is_empty();
        if is_complete || arguments.json {
            return Ok(false);
        }
        context.output.line("nothing matches; an earlier removal is not complete: the node ends it while it runs")?;
        return Ok(true);
    };
    if swept == SweptObjects::default() || arguments.json {
        return Ok(false);
    }
    context.output.line("nothing matches; an earlier removal was not complete, and is now")?;
    tell_swept(swept, context)?;
    Ok(true)
}

/// Says what became of received objects.
fn tell_objects(
    arguments: &RemovalArgs,
    swept: Option<SweptObjects>,
    counts: RemovedCounts,
    context: &mut Context,
) -> anyhow::Result<()> {
    match swept {
        Some(swept) if arguments.objects => tell_swept(swept, context),
        None if counts.objects > 0 => {
            let how = if arguments.no_undo { "deletes" } else { "moves" };
            let whereto = if arguments.no_undo { "for good" } else { "to the trash" };
            context.output.line(format_args!(
                "the node {how} {} received objects {whereto} within seconds",
                Grouped(counts.objects)
            ))?;
            Ok(())
        }
        Some(_) | None => Ok(()),
    }
}

fn tell_swept(SweptObjects { kept, deleted, elsewhere }: SweptObjects, context: &mut Context) -> anyhow::Result<()> {
    if deleted > 0 {
        context.output.line(format_args!("{} received objects were deleted for good", Grouped(deleted)))?;
    }
    if kept > 0 || deleted == 0 {
        context.output.line(format_args!("{} received objects are in the trash", Grouped(kept)))?;
    }
    trash::tell_elsewhere(elsewhere, context)
}

/// Writes the lists of removals that a storage directory lacks, because it was lost.
pub(super) fn write_missing_lists(config: &Config, storage: &std::path::Path) -> anyhow::Result<()> {
    let trash = Trash::below(storage);
    let undone = trash.undone().context("cannot read which removals were undone")?;
    for removal in Reader::open(&config.index)?.removals()? {
        if removal.still_removed > 0 && !trash.has_list(removal.begun_ms) && !undone.contains(&removal.begun_ms) {
            write_list(storage, config, removal.id, removal.begun_ms)?;
        }
    }
    Ok(())
}

/// Undoes the removals of an index that were undone after it was saved. Returns whether all objects
/// came back.
pub(super) fn undo_again(
    config: &Config,
    storage: &std::path::Path,
    writer: &WriterHandle,
    context: &mut Context,
) -> anyhow::Result<Exit> {
    let undone = Trash::below(storage).undone().context("cannot read which removals were undone")?;
    let mut done = Exit::Done;
    for removal in Reader::open(&config.index)?.removals()? {
        if undone.contains(&removal.begun_ms)
            && undo::repeat(config, &removal, (storage, writer), context)? != Exit::Done
        {
            done = Exit::Partly;
        }
    }
    Ok(done)
}

/// Writes what was removed beside the trash, for an index that is built anew.
pub(super) fn write_list(
    storage: &std::path::Path,
    config: &Config,
    removal: i64,
    begun_ms: i64,
) -> anyhow::Result<()> {
    /// Instances that one query returns.
    const PAGE: usize = 1000;
    let mut reader = Reader::open(&config.index)?;
    Trash::below(storage).write_list::<anyhow::Error>(begun_ms, |each| {
        let mut after = String::new();
        loop {
            let page = reader.instances_of_removal(removal, &after, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after.clone_from(last);
            for (uid, _) in &page {
                each(uid)?;
            }
        }
    })
}

fn in_json(removal: Option<i64>, chosen: &RemovalChoice, counts: RemovedCounts) -> serde_json::Value {
    json!({
        "event": "removed",
        "removal": removal,
        "dry_run": removal.is_none(),
        "studies": chosen.studies.len(),
        "studies_held": chosen.held,
        "instances": counts.instances,
        "objects": counts.objects,
        "object_bytes": counts.object_bytes,
        "in_place": counts.in_place,
    })
}
