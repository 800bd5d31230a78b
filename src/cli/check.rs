//! `dcmdex check`: whether the index agrees with itself, and with the disk.

use std::io;
use std::path::Path;

use clap::Args;

use super::output::{Audience, Grouped, Shown};
use super::{Chattiness, Context, Exit, Flags, IndexArgs};
use crate::db::{KnownFile, Reader};
use crate::model::clock::unix_ms;
use crate::model::location::Place;

/// Directories that are looked at between two questions to the index.
const PAGE_DIRECTORIES: usize = 1000;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Look for every file that the index names, too: that it is there, with its size and time
    #[arg(long)]
    files: bool,
}

pub(super) fn run(arguments: &CheckArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let mut flags = Flags::default();
    arguments.index.add_to(&mut flags)?;
    let config = context.configure(flags.0, Chattiness::Tool)?;
    let mut reader = Reader::open(&config.index)?;
    let report = reader.check()?;
    for finding in &report.findings {
        context.output.line(format_args!("{}: {}", finding.check, finding.detail))?;
    }
    let (mut conflicts, mut written) = (0, Ok(Audience::Listening));
    reader.conflicts(|conflict| {
        conflicts += 1;
        if written.is_ok() {
            written = context.output.line(format_args!(
                "{}: {} (study {}, series {}, instance {})",
                conflict.kind,
                Shown(&conflict.path),
                conflict.study_instance_uid,
                conflict.series_instance_uid,
                conflict.sop_instance_uid
            ));
        }
    })?;
    written?;
    let mut files = Files::default();
    if arguments.files {
        look_for_files(&mut reader, &mut files, context)?;
    }
    context.output.line(format_args!(
        "the index {} itself; contradictions in the archive: {}",
        if report.findings.is_empty() { "agrees with" } else { "DISAGREES with" },
        Grouped(conflicts)
    ))?;
    if arguments.files {
        context.output.line(format_args!(
            "files: {} as the index says, {} changed, {} gone, {} not accessible",
            Grouped(files.sound),
            Grouped(files.changed),
            Grouped(files.gone),
            Grouped(files.not_accessible)
        ))?;
    }
    let sound = report.findings.is_empty() && files.changed + files.gone + files.not_accessible == 0;
    Ok(if sound { Exit::Done } else { Exit::Partly })
}

/// What became of the files that the index names, in numbers.
#[derive(Debug, Default)]
struct Files {
    sound: u64,
    changed: u64,
    gone: u64,
    not_accessible: u64,
}

fn look_for_files(reader: &mut Reader, files: &mut Files, context: &mut Context) -> anyhow::Result<()> {
    let root = Path::new("/");
    look_into(reader, root, files, context)?;
    for place in [Place::InPlace, Place::Managed] {
        let mut after = root.to_owned();
        loop {
            let page = reader.directories_below(place, root, &after, PAGE_DIRECTORIES)?;
            let Some(last) = page.last() else { break };
            after.clone_from(last);
            for directory in &page {
                look_into(reader, directory, files, context)?;
            }
        }
    }
    Ok(())
}

fn look_into(reader: &mut Reader, directory: &Path, files: &mut Files, context: &mut Context) -> anyhow::Result<()> {
    let known = reader.directory_files(directory)?;
    let mut known: Vec<_> = known.iter().filter(|(_, file)| file.is_indexed()).collect();
    known.sort_unstable_by_key(|(name, _)| *name);
    for (name, file) in known {
        let path = directory.join(name);
        let problem = match path.metadata() {
            Ok(metadata) if is_as_known(&metadata, file) => {
                files.sound += 1;
                continue;
            }
            Ok(_) => {
                files.changed += 1;
                "changed".to_owned()
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                files.gone += 1;
                "gone".to_owned()
            }
            Err(error) => {
                files.not_accessible += 1;
                format!("not accessible ({error})")
            }
        };
        context.output.line(format_args!("{problem}: {}", Shown(&path)))?;
    }
    Ok(())
}

fn is_as_known(metadata: &std::fs::Metadata, known: &KnownFile) -> bool {
    metadata.is_file()
        && metadata.len() == known.size
        && metadata.modified().is_ok_and(|time| unix_ms(time) == known.mtime_ms)
}
