//! `dcmdex backup` copies the index while a node works, and says what it copied in a manifest.

mod bring_back;
pub(super) mod manifest;
mod objects;
mod target;

pub(super) use bring_back::{BroughtBack, bring_back};

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use self::manifest::{BackupVerdict, Manifest};
use self::objects::ObjectsInBackup;
use self::target::BackupTarget;
use super::output::Shown;
use crate::cli::Exit;
use crate::cli::audited::CommandAudit;
use crate::cli::context::{Chattiness, Context, StorageArgs};
use crate::cli::unindexed::storage_to_read;
use crate::config::Config;
use crate::db::open::{Reader, copy_index};
use crate::files::{replace, with_suffix};
use crate::model::calendar::moment_text;
use crate::model::clock::Clock;

#[derive(Debug, Args)]
#[command(after_long_help = BACKUP_HELP)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    settings: StorageArgs,
    /// How to back up received objects
    #[arg(long, value_enum, value_name = "HOW", default_value_t = ObjectsInBackup::None)]
    objects: ObjectsInBackup,
    /// Keep the N newest backups of the directory, and remove older ones
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Make DIR if it is not there. Without this, the backup fails, as its disk may not be mounted
    #[arg(long)]
    make_directory: bool,
    /// Check a backup that was made earlier, and change nothing
    #[arg(long, conflicts_with_all = ["objects", "keep", "make_directory", "storage", "index"])]
    verify: bool,
    /// Write one JSON object (docs/json.md)
    #[arg(long)]
    json: bool,
    /// Directory for backups with dated names, or a new file that ends in .db. With --verify, a
    /// backup, or a directory with backups
    #[arg(value_name = "DIR|FILE")]
    to: PathBuf,
}

const BACKUP_HELP: &str = "\
The node goes on while the index is copied. Beside the copy FILE.db stands its manifest FILE.json, with \
counts, size, checksum and settings. A backup counts once FILE.db has its name.

Received objects never change, so each is linked or copied once, into the directory objects beside the \
backups. Files that were scanned in place are not copied: the manifest lists their roots.

Examples:
  dcmdex backup /backup --keep 14
  dcmdex backup /backup --objects copy
  dcmdex backup --verify /backup/dcmdex-20261129T020000.000Z.db
  dcmdex restore /backup/dcmdex-20261129T020000.000Z.db";

pub(super) fn run(arguments: &BackupArgs, context: &mut Context) -> anyhow::Result<Exit> {
    if arguments.verify {
        return verify(arguments, context);
    }
    let config = arguments.settings.configure(context)?;
    let now_ms = Clock::System.now_ms();
    let target = BackupTarget::of(&arguments.to, arguments.make_directory, now_ms)?;
    if arguments.keep.is_some() && !target.is_dated() {
        bail!("--keep removes older backups of a directory, and {} is a file", arguments.to.display());
    }
    CommandAudit::open(&config, "backup")?.exported(&[], target.database(), None)?;
    let mut manifest = copy(&config, &target, now_ms)?;
    if arguments.objects != ObjectsInBackup::None {
        // After the index: the objects that it names are there, unless they have been removed
        // since.
        let Some(options) = config.kept_store_options() else {
            bail!("with `metadata_only` no objects are kept; hint: leave out --objects");
        };
        let storage = storage_to_read(&mut Reader::open(&config.index)?, &options.directory)?;
        let kept = objects::back_up(storage.as_deref(), &target.objects(), arguments.objects)?;
        manifest.objects = Some(kept);
    }
    target.finish(&manifest)?;
    let removed = arguments.keep.map_or(Ok(Vec::new()), |keep| target.remove_older(keep))?;
    if removed.iter().any(|old| old.had_objects) || arguments.objects != ObjectsInBackup::None {
        objects::remove_unused(&config, &target, &removed)?;
    }
    note_success(&config.index, &manifest);
    if arguments.json {
        let mut told = manifest.to_json();
        told["backup"] = target.database().to_string_lossy().into();
        told["removed"] = removed.iter().map(|old| old.database.to_string_lossy().into_owned()).collect();
        told.as_object_mut().map(|told| told.remove("settings"));
        context.output.line(told)?;
        return Ok(Exit::Done);
    }
    context.output.line(format_args!("{}: {}", Shown(target.database()), manifest.in_words()))?;
    for old in removed {
        context.output.line(format_args!("removed {}", Shown(&old.database)))?;
    }
    Ok(Exit::Done)
}

/// Copies the index under a name that does not count yet.
fn copy(config: &Config, target: &BackupTarget, now_ms: i64) -> anyhow::Result<Manifest> {
    let part = target.part();
    copy_index(&config.index, part)?;
    let file = File::open(part).with_context(|| format!("cannot open {}", part.display()))?;
    file.sync_all().with_context(|| format!("cannot synchronise {}", part.display()))?;
    let mut manifest = Manifest::of(part, config)?;
    manifest.made_ms = now_ms;
    manifest.file = target.database().file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(manifest)
}

fn verify(arguments: &BackupArgs, context: &mut Context) -> anyhow::Result<Exit> {
    // The settings say nothing about a backup, but logging follows them.
    context.configure(Vec::new(), Chattiness::Tool)?;
    let backups = match arguments.to.is_dir() {
        true => target::backups_in(&arguments.to)?,
        false => vec![arguments.to.clone()],
    };
    if backups.is_empty() {
        bail!("there is no backup in {}", arguments.to.display());
    }
    let mut exit = Exit::Done;
    for backup in backups {
        let verdict = manifest::verify(&backup)?;
        let sound = matches!(verdict, BackupVerdict::Sound(_));
        if arguments.json {
            let reason = verdict.problem();
            let told = json!({"backup": backup.to_string_lossy(), "sound": sound, "problem": reason});
            context.output.line(told)?;
        } else {
            match &verdict {
                BackupVerdict::Sound(manifest) => {
                    context.output.line(format_args!("{}: sound; {}", Shown(&backup), manifest.in_words()))?;
                }
                BackupVerdict::Refused(reason) => {
                    context.output.line(format_args!("{}: NOT SOUND: {reason}", Shown(&backup)))?;
                }
            }
        }
        if !sound {
            exit = Exit::Partly;
        }
    }
    Ok(exit)
}

/// The file beside an index that says when a backup last succeeded. A node reads it for its
/// metrics.
pub(super) fn success_file(index: &Path) -> PathBuf {
    with_suffix(index, "-backup")
}

/// Notes the success for the metrics of a node. The backup is made, so a failure is only told.
fn note_success(index: &Path, manifest: &Manifest) {
    let path = success_file(index);
    let text = json!({"made_ms": manifest.made_ms, "made": moment_text(manifest.made_ms)});
    // The node may be another user. There is nothing of a patient in it.
    let written = replace(&path, 0o644, format!("{text}\n").as_bytes());
    if let Err(error) = written {
        tracing::warn!(
            %error,
            path = %path.display(),
            "the backup is made, but this user cannot note it beside the index, so the metrics of the node do not show it"
        );
    }
}

/// When a backup of this index last succeeded, in milliseconds since 1970 UTC. `None` if none is
/// known.
pub(super) fn last_success(index: &Path) -> Option<i64> {
    let text = fs::read_to_string(success_file(index)).ok()?;
    let noted: serde_json::Value = serde_json::from_str(&text).ok()?;
    noted.get("made_ms")?.as_i64()
}
