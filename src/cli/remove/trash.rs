//! The trash of the storage directory: what is in it, and how it is filled and emptied.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::audit::AuditEvent;
use crate::cli::audited::CommandAudit;
use crate::cli::context::Context;
use crate::cli::output::{Grouped, Shown};
use crate::cli::storage_match::refuse_another_directory;
use crate::cli::{Exit, arrival_journal};
use crate::config::Config;
use crate::db::open::{Reader, Writer, WriterHandle};
use crate::db::{Removal, RemovalChanges as _, RemovalSearch as _, RemovedFile};
use crate::model::calendar::{DAY_MS, moment_text};
use crate::model::clock::Clock;
use crate::model::location::Place;
use crate::receive::trash::{self, SweptObjects};
use crate::store::{self, Objects, Trash};

/// Moves removed objects to the trash, and deletes those that are for good. `None` if a node has
/// the storage directory: it moves them, because only it knows what is received meanwhile.
pub(super) fn sweep(
    config: &Config,
    options: &store::Options,
    writer: &WriterHandle,
) -> anyhow::Result<Option<SweptObjects>> {
    match Objects::open(options) {
        // The next start moves them, when it has stored what a crash has left in the journal.
        Ok(objects) if arrival_journal::is_in_use(&objects, &mut Reader::open(&config.index)?)? => Ok(None),
        Ok(objects) => Ok(Some(trash::sweep(&config.index, (objects.root(), None), writer, |_| ())?)),
        Err(store::Error::InUse { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Lists the removals.
pub(super) fn list(config: &Config, as_json: bool, context: &mut Context) -> anyhow::Result<Exit> {
    let removals = Reader::open(&config.index)?.removals()?;
    for removal in &removals {
        let Removal { id, begun_ms, instances, still_removed, for_trash, in_trash, emptied_ms, .. } = removal;
        if as_json {
            context.output.line(json!({
                "event": "removal",
                "removal": id,
                "begun_ms": begun_ms,
                "instances": instances,
                "still_removed": still_removed,
                "for_trash": for_trash,
                "in_trash": in_trash,
                "emptied_ms": emptied_ms,
            }))?;
            continue;
        }
        // An index that was built anew knows only those that are still removed.
        let (all, still) = (Grouped(*instances.max(still_removed)), Grouped(*still_removed));
        let mut text = format!("{id}: {}, {all} instances, {still} of them still removed", moment_text(*begun_ms));
        if *in_trash > 0 {
            text.push_str(&format!("; {} objects in the trash", Grouped(*in_trash)));
        }
        if *for_trash > 0 {
            text.push_str(&format!("; {} objects on their way to the trash", Grouped(*for_trash)));
        }
        if let Some(emptied) = emptied_ms {
            text.push_str(&format!("; objects deleted for good {}", moment_text(*emptied)));
        }
        context.output.line(text)?;
    }
    if removals.is_empty() && !as_json {
        context.output.line("nothing was removed")?;
    }
    Ok(Exit::Done)
}

/// Deletes objects in the trash for good that were removed long enough ago.
pub(super) fn empty(config: &Config, days: u32, yes: bool, context: &mut Context) -> anyhow::Result<Exit> {
    let now_ms = Clock::System.now_ms();
    let removals = Reader::open(&config.index)?.removals()?;
    let limit = now_ms.saturating_sub(i64::from(days).saturating_mul(DAY_MS));
    let old: Vec<&Removal> =
        removals.iter().filter(|removal| removal.begun_ms <= limit && removal.in_trash > 0).collect();
    let objects: u64 = old.iter().map(|removal| removal.in_trash).sum();
    if old.is_empty() {
        context.output.line("nothing in the trash is that old")?;
        return Ok(Exit::Done);
    }
    if !yes {
        context.output.line(format_args!(
            "would delete {} objects for good; nothing was changed, --yes does it",
            Grouped(objects)
        ))?;
        return Ok(Exit::Done);
    }
    let options = config.kept_store_options().context("with `metadata_only` there is no trash")?;
    let storage = options.directory.canonicalize()?;
    let writer = Writer::open(&config.index, config.node_writer_options())?;
    refuse_another_directory(&storage, &writer.handle())?;
    let audit = CommandAudit::open(config, "remove --empty")?;
    let mut elsewhere = 0;
    for removal in old {
        audit.removal(AuditEvent::Deleted, removal.id)?;
        Trash::below(&storage).empty(removal.begun_ms).context("cannot empty the trash")?;
        let left = writer.handle().emptied(removal.id, &storage, now_ms)?;
        elsewhere += left;
        let objects = removal.in_trash.saturating_sub(left);
        tracing::info!(removal = removal.id, objects, "removed objects were deleted for good");
    }
    writer.close()?;
    context
        .output
        .line(format_args!("{} objects were deleted for good", Grouped(objects.saturating_sub(elsewhere))))?;
    tell_elsewhere(elsewhere, context)?;
    Ok(Exit::Done)
}

/// Says how many objects are in the trash of other nodes. Only they can delete them.
pub(super) fn tell_elsewhere(objects: u64, context: &mut Context) -> anyhow::Result<()> {
    if objects > 0 {
        context.output.line(format_args!(
            "hint: {} objects are in the trash of another storage directory; empty that too, with --storage",
            Grouped(objects)
        ))?;
    }
    Ok(())
}

/// Whether a removed object lies below another storage directory than this one.
pub(super) fn is_elsewhere(file: &RemovedFile, storage: Option<&Path>) -> bool {
    let is_own = |path: PathBuf| storage.is_some_and(|storage| path.starts_with(storage));
    file.location.place == Place::Managed && !file.location.path().is_some_and(is_own)
}

/// Refuses a number that no removal has.
pub(super) fn known_removal(config: &Config, removal: i64) -> anyhow::Result<Removal> {
    let removals = Reader::open(&config.index)?.removals()?;
    let Some(known) = removals.into_iter().find(|known| known.id == removal) else {
        bail!("there is no removal {removal} in {}; `dcmdex remove --list` lists them", Shown(&config.shown_index()));
    };
    Ok(known)
}
