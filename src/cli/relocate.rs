//! `dcmdex relocate` gives indexed files the new path of their directory, without reading one.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use super::output::{Grouped, Shown};
use crate::cli::Exit;
use crate::cli::audited::CommandAudit;
use crate::cli::context::{Context, IndexArgs};
use crate::db::Relocation;
use crate::db::open::{Reader, Writer};

#[derive(Debug, Args)]
pub(super) struct RelocateArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Say what would be changed, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Change the index although there is no directory NEW on this machine
    #[arg(long)]
    unseen: bool,
    /// The path that the index knows, of a directory or an archive file
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// Its path now
    #[arg(value_name = "NEW")]
    new: PathBuf,
}

pub(super) fn run(arguments: &RelocateArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.index.configure(context)?;
    // OLD may no longer exist, so no link in it can be followed.
    let (old, new) = (absolute(&arguments.old)?, absolute(&arguments.new)?);
    let new = new.canonicalize().unwrap_or(new);
    // What was scanned before its root had a name gets that name.
    let gets_root = config.roots.iter().any(|(_, root)| new.starts_with(root));
    if old == new && !gets_root {
        bail!("OLD and NEW are the same path");
    }
    if !arguments.unseen && !new.exists() {
        bail!(
            "there is nothing at {}: is its disk mounted? hint: --unseen, if it is not on this machine",
            new.display()
        );
    }
    let planned = Reader::open(&config.index)?.plan_relocation(&old, &new)?;
    refuse_taken(&planned)?;
    if planned.directories == 0 {
        bail!("the index knows nothing at or below {}", old.display());
    }
    if arguments.dry_run {
        tell(context, &planned, "would get", &new)?;
        return Ok(Exit::Done);
    }
    let paths = [format!("old={}", old.display()), format!("new={}", new.display())];
    CommandAudit::open(&config, "relocate")?.maintained(&paths)?;
    let writer = Writer::open(&config.index, config.scan_writer_options())?;
    let done = writer.handle().relocate(old, new.clone())?;
    writer.close()?;
    // Another process may have written meanwhile.
    refuse_taken(&done)?;
    tell(context, &done, "got", &new)?;
    Ok(Exit::Done)
}

fn tell(context: &mut Context, done: &Relocation, verb: &str, new: &Path) -> anyhow::Result<()> {
    let Relocation { directories, instances, merged, .. } = done;
    let (directories, instances) = (Grouped(*directories), Grouped(*instances));
    context.output.line(format_args!(
        "{directories} directories with the first files of {instances} instances {verb} a path at {}",
        Shown(new)
    ))?;
    if *merged > 0 {
        context.output.line(format_args!(
            "of these, {} were known there already as copies with the same content",
            Grouped(*merged)
        ))?;
    }
    Ok(())
}

fn refuse_taken(done: &Relocation) -> anyhow::Result<()> {
    let Some(first) = done.taken.first() else { return Ok(()) };
    bail!(
        "the index knows other files at {} and perhaps elsewhere below NEW, and nothing was changed; `dcmdex scan --prune` \
         drops what is gone",
        Shown(first)
    )
}

/// An absolute path without `.` and `..`, as the index has it.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path).with_context(|| format!("{} is no path", path.display()))?;
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(AsRef::<OsStr>::as_ref(&other)),
        }
    }
    Ok(clean)
}
