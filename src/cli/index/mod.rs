//! `dcmdex index` makes, freezes, parts and lists the files of an index that is a folder.

mod answers;
mod merge;
mod split;
mod work;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use self::merge::MergeArgs;
use self::split::SplitArgs;
use super::backup::manifest::counts_in_words;
use super::output::{Grouped, Shown};
use crate::cli::Exit;
use crate::cli::context::{Chattiness, Context, IndexArgs};
use crate::db::open::{Reader, Writer, checksum_of, files_of, freeze, frozen, is_on_server, thaw};
use crate::db::{Admin as _, IndexStatus};
use crate::model::calendar::moment_text;
use crate::model::clock::Clock;

const EXAMPLES: &str = "\
A frozen index is one compact file without a log. Nobody writes it, so it may lie on network storage and \
on a disk that is mounted read-only. FILE-frozen beside it says that it is frozen, with size and checksum.

Examples:
  dcmdex index new archive/main.db archive/2026.db archive/st-mary-s.db
  dcmdex index list --index archive/
  dcmdex index freeze archive/2019.db archive/2020.db
  dcmdex index verify archive/2019.db
  dcmdex index thaw archive/2019.db
  dcmdex index split archive/main.db --into archive/2020.db StudyDate=2020 --yes
  dcmdex index merge --into archive/main.db archive/2020.db --yes";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct IndexFilesArgs {
    #[command(subcommand)]
    action: IndexFilesAction,
}

#[derive(Debug, Subcommand)]
enum IndexFilesAction {
    /// Make new index files. In a folder, a file takes new studies of the institution or of the
    /// year that it is named for
    New(IndexFileNames),
    /// Make index files compact, and only readable from now on. No other process may have them open
    Freeze(IndexFileNames),
    /// Let frozen index files be written again
    Thaw(IndexFileNames),
    /// Compare frozen index files with their checksums
    Verify(IndexFileNames),
    /// Move studies of an index file to a new one
    Split(SplitArgs),
    /// Take all that other index files have into one
    Merge(MergeArgs),
    /// List the files of an index with their numbers
    List(ListedIndex),
}

#[derive(Debug, Args)]
struct IndexFileNames {
    /// Index files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct ListedIndex {
    #[command(flatten)]
    index: IndexArgs,
    /// Write one JSON object for each file (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &IndexFilesArgs, context: &mut Context) -> anyhow::Result<Exit> {
    match &arguments.action {
        IndexFilesAction::List(arguments) => list(arguments, context),
        IndexFilesAction::Merge(arguments) => merge::run(arguments, context),
        IndexFilesAction::Split(arguments) => split::run(arguments, context),
        IndexFilesAction::New(names) => {
            let config = context.configure(Vec::new(), Chattiness::Tool)?;
            for index in &names.files {
                must_be_file(index)?;
                if index.exists() {
                    bail!("{} exists", Shown(index));
                }
                Writer::open(index, config.scan_writer_options())?.close()?;
                context.output.line(format_args!("{}: a new index", Shown(index)))?;
            }
            Ok(Exit::Done)
        }
        IndexFilesAction::Freeze(names) => each(names, context, |index, context| {
            let before = std::fs::metadata(index).map_or(0, |metadata| metadata.len());
            let frozen = freeze(index, Clock::System.now_ms())?;
            let (before, after) = (Grouped(before), Grouped(frozen.size));
            context.output.line(format_args!("{}: frozen, {after} bytes of {before}", Shown(index)))?;
            Ok(Exit::Done)
        }),
        IndexFilesAction::Thaw(names) => each(names, context, |index, context| {
            if frozen(index)?.is_none() {
                bail!("{} is not frozen", Shown(index));
            }
            thaw(index)?;
            context.output.line(format_args!("{}: thawed", Shown(index)))?;
            Ok(Exit::Done)
        }),
        IndexFilesAction::Verify(names) => each(names, context, verify),
    }
}

/// Refuses an index in PostgreSQL, which has no files.
fn must_be_file(index: &Path) -> anyhow::Result<()> {
    if is_on_server(index) {
        bail!("`dcmdex index` is about index files, and {} is in PostgreSQL", Shown(index));
    }
    Ok(())
}

/// Does this with each file. The exit code is that of the worst.
fn each(
    names: &IndexFileNames,
    context: &mut Context,
    work: impl Fn(&Path, &mut Context) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    context.configure(Vec::new(), Chattiness::Tool)?;
    let mut exit = Exit::Done;
    for index in &names.files {
        must_be_file(index)?;
        if !index.is_file() {
            bail!("there is no index file {}", Shown(index));
        }
        if work(index, context)? != Exit::Done {
            exit = Exit::Partly;
        }
    }
    Ok(exit)
}

fn verify(index: &Path, context: &mut Context) -> anyhow::Result<Exit> {
    let Some(noted) = frozen(index)? else { bail!("{} is not frozen", Shown(index)) };
    let now = checksum_of(index).with_context(|| format!("cannot read {}", index.display()))?;
    let is_same = now == (noted.size, noted.checksum);
    let verdict = if is_same { "sound" } else { "NOT SOUND: it was damaged or changed after it was frozen" };
    context.output.line(format_args!("{}: {verdict}; frozen {}", Shown(index), moment_text(noted.frozen_ms)))?;
    Ok(if is_same { Exit::Done } else { Exit::Partly })
}

fn list(arguments: &ListedIndex, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.index.configure(context)?;
    must_be_file(&config.index)?;
    for file in files_of(&config.index)? {
        let IndexStatus { patients, studies, series, instances, size_bytes, .. } = Reader::open(&file)?.status()?;
        let frozen = frozen(&file)?;
        if arguments.json {
            context.output.line(json!({
                "index": file.to_string_lossy(),
                "patients": patients,
                "studies": studies,
                "series": series,
                "instances": instances,
                "size_bytes": size_bytes,
                "frozen": frozen.map(|frozen| moment_text(frozen.frozen_ms)),
            }))?;
            continue;
        }
        let counts = counts_in_words(patients, studies, series, instances);
        let state = frozen.map_or_else(String::new, |frozen| format!("; frozen {}", moment_text(frozen.frozen_ms)));
        context.output.line(format_args!("{}: {counts}, {} bytes{state}", Shown(&file), Grouped(size_bytes)))?;
    }
    Ok(Exit::Done)
}
