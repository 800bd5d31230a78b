//! `dcmdex remove` takes instances out of the index, and received objects to the trash. It says
//! first what it would do, and what was removed can come back.

mod chosen;
mod trash;
mod undo;

use clap::{ArgGroup, Args};
use serde_json::json;

use self::chosen::{ChosenStudy, choose};
use super::output::Grouped;
use crate::audit::AuditedStudy;
use crate::cli::Exit;
use crate::cli::audited::CommandAudit;
use crate::cli::context::{Context, StorageArgs};
use crate::config::Config;
use crate::db::open::{Reader, Writer, WriterHandle, is_on_server, only_file_of};
use crate::db::{RemovalChanges as _, RemovalSearch as _, RemovedCounts};
use crate::model::calendar::moment_text;
use crate::model::clock::Clock;
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

Files that were scanned in place are never touched. The index forgets them, and no scan and no
`dcmdex rebuild` brings them back. Received objects stay where they are, or go to the trash with --objects.
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
    if arguments.yes && !chosen.is_empty() {
        remove(arguments, &config, &chosen, context)
    } else {
        tell(arguments, &chosen, context)
    }
}

/// Says what would be removed.
fn tell(arguments: &RemovalArgs, chosen: &[ChosenStudy], context: &mut Context) -> anyhow::Result<Exit> {
    let mut counts = RemovedCounts::default();
    chosen.iter().for_each(|study| counts.add(study.counts));
    if arguments.json {
        context.output.line(in_json(None, chosen.len(), counts))?;
    } else if counts.instances == 0 {
        context.output.line("nothing matches")?;
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
            Grouped(chosen.len() as u64),
            Grouped(counts.objects),
            Grouped(counts.object_bytes),
            Grouped(counts.in_place)
        ))?;
        context.output.line("nothing was changed; --yes does it")?;
    }
    Ok(if counts.instances == 0 { Exit::Partly } else { Exit::Done })
}

fn remove(
    arguments: &RemovalArgs,
    config: &Config,
    chosen: &[ChosenStudy],
    context: &mut Context,
) -> anyhow::Result<Exit> {
    let begun_ms = Clock::System.now_ms();
    let audited = chosen.iter().map(|study| AuditedStudy {
        study_instance_uid: study.uid.clone(),
        patient_id: study.patient_id.clone(),
        ..AuditedStudy::default()
    });
    // Before it is done. A removal that then fails is noted all the same.
    CommandAudit::open(config, "remove")?.deleted(&audited.collect::<Vec<_>>())?;
    let writer = Writer::open(&config.index, config.node_writer_options())?;
    let (removal, counts) = remove_rows(arguments, chosen, begun_ms, &writer.handle())?;
    let trashed = move_objects(arguments, config, (removal, begun_ms), &writer.handle())?;
    writer.close()?;
    if arguments.json {
        context.output.line(in_json(Some(removal), chosen.len(), counts))?;
        return Ok(Exit::Done);
    }
    context.output.line(format_args!(
        "removal {removal} ({}): {} instances of {} studies are no longer in the index",
        moment_text(begun_ms),
        Grouped(counts.instances),
        Grouped(chosen.len() as u64)
    ))?;
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

/// What became of received objects.
#[derive(Clone, Copy, Debug, Default)]
struct TrashedObjects {
    /// How many this command moved to the trash. `None` if the node does it.
    moved: Option<u64>,
    /// How many other nodes have moved to theirs meanwhile, if this command deletes them for good.
    elsewhere: u64,
}

/// Moves objects to the trash if that is wanted, and deletes them if they cannot come back.
fn move_objects(
    arguments: &RemovalArgs,
    config: &Config,
    (removal, begun_ms): (i64, i64),
    writer: &WriterHandle,
) -> anyhow::Result<TrashedObjects> {
    let Some(options) = config.store_options().filter(|options| options.directory.is_dir()) else {
        return Ok(TrashedObjects::default());
    };
    let storage = options.directory.canonicalize()?;
    write_list(&storage, config, removal, begun_ms)?;
    if !arguments.objects {
        return Ok(TrashedObjects::default());
    }
    let moved = trash::sweep(config, &options, writer)?;
    if moved.is_none() || !arguments.no_undo {
        return Ok(TrashedObjects { moved, elsewhere: 0 });
    }
    Trash::below(&storage).empty(begun_ms)?;
    Ok(TrashedObjects { moved, elsewhere: writer.emptied(removal, &storage, Clock::System.now_ms())? })
}

/// Says what became of received objects.
fn tell_objects(
    arguments: &RemovalArgs,
    TrashedObjects { moved, elsewhere }: TrashedObjects,
    counts: RemovedCounts,
    context: &mut Context,
) -> anyhow::Result<()> {
    match moved {
        Some(objects) if arguments.no_undo => {
            context.output.line(format_args!("{} received objects were deleted for good", Grouped(objects)))?;
        }
        Some(objects) => {
            context.output.line(format_args!("{} received objects are in the trash", Grouped(objects)))?;
        }
        None if arguments.objects && counts.objects > 0 => {
            context.output.line(format_args!(
                "the node moves {} received objects to the trash within seconds",
                Grouped(counts.objects)
            ))?;
            if arguments.no_undo {
                context.output.line("`dcmdex remove --empty 0 --yes` deletes them for good afterwards")?;
            }
        }
        None => {}
    }
    trash::tell_elsewhere(elsewhere, context)
}

/// Writes the lists of removals that a storage directory lacks, because it was lost.
pub(super) fn write_missing_lists(config: &Config, storage: &std::path::Path) -> anyhow::Result<()> {
    let trash = Trash::below(storage);
    for removal in Reader::open(&config.index)?.removals()? {
        if removal.still_removed > 0 && !trash.has_list(removal.begun_ms) {
            write_list(storage, config, removal.id, removal.begun_ms)?;
        }
    }
    Ok(())
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

fn in_json(removal: Option<i64>, studies: usize, counts: RemovedCounts) -> serde_json::Value {
    json!({
        "event": "removed",
        "removal": removal,
        "dry_run": removal.is_none(),
        "studies": studies,
        "instances": counts.instances,
        "objects": counts.objects,
        "object_bytes": counts.object_bytes,
        "in_place": counts.in_place,
    })
}
