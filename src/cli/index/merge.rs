//! `dcmdex index merge` takes all that other index files have into one.
//!
//! The merged index is made as a new file beside that one, and compared with the answers of both.
//! Then it takes the place of the one, and the other file gets another name. Between these two
//! steps both have the studies. A folder answers with such studies once, so a kill at any moment
//! changes no answer.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use super::answers::AllAnswers;
use super::work::{PartInWork, check_is_writable, set_aside_suffix};
use crate::cli::Exit;
use crate::cli::context::{Chattiness, Context};
use crate::cli::output::{Grouped, Shown};
use crate::config::Config;
use crate::db::Admin as _;
use crate::db::open::{IndexHold, Reader, check_mergeable, place_in_folder, take_in};

#[derive(Debug, Args)]
pub(super) struct MergeArgs {
    /// Index file that takes the others in. No other process may have any of them open
    #[arg(long, value_name = "FILE")]
    into: PathBuf,
    /// Do it. Without this option, the command says what it would do
    #[arg(long)]
    yes: bool,
    /// Index files that go into it
    #[arg(required = true, value_name = "OTHER")]
    others: Vec<PathBuf>,
}

pub(super) fn run(arguments: &MergeArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let MergeArgs { into, yes, others } = arguments;
    let config = context.configure(Vec::new(), Chattiness::Tool)?;
    check_is_writable(into)?;
    let of_into = into.canonicalize().with_context(|| format!("cannot find {}", into.display()))?;
    for other in others {
        check_is_writable(other)?;
        if other.canonicalize().is_ok_and(|other| other == of_into) {
            bail!("{} cannot go into itself", Shown(other));
        }
    }
    // Nothing is begun that would be refused. It is asked again when nobody can write the files.
    for other in others {
        check(into, other, [into, other], &config)?;
    }
    for other in others {
        let studies = Grouped(Reader::open(other)?.status()?.studies);
        if *yes {
            let (aside, left) = merge(into, other, &config)?;
            context.output.line(format_args!("{}: {studies} studies went to {}", Shown(other), Shown(into)))?;
            context.output.line(format_args!("the former files are {} and {}", Shown(&aside[0]), Shown(&aside[1])))?;
            for what in left {
                context.output.line(format_args!("{} keeps for itself: {what}", Shown(&aside[1])))?;
            }
        } else {
            context.output.line(format_args!("{}: {studies} studies would go to {}", Shown(other), Shown(into)))?;
        }
    }
    if !yes {
        context.output.line("nothing was changed; --yes does it")?;
    }
    Ok(Exit::Done)
}

/// Refuses to merge two files, or copies of them, if something would be lost. Returns what the
/// other one keeps for itself.
fn check(
    into: &Path,
    other: &Path,
    [into_now, other_now]: [&Path; 2],
    config: &Config,
) -> anyhow::Result<Vec<&'static str>> {
    check_mergeable(into_now, other_now, &config.scan_writer_options())
        .with_context(|| format!("cannot take {} into {}; nothing was changed", other.display(), into.display()))
}

/// Merges two index files. Returns where both are afterwards, as they were, and what the other one
/// keeps for itself.
fn merge(into: &Path, other: &Path, config: &Config) -> anyhow::Result<([PathBuf; 2], Vec<&'static str>)> {
    let real = |path: &Path| path.canonicalize().with_context(|| format!("cannot find {}", path.display()));
    let (file, file_of_other) = (real(into)?, real(other)?);
    let (hold, hold_other) = (IndexHold::take(&file)?, IndexHold::take(&file_of_other)?);
    let (merged, taken) = (PartInWork::beside(&file, ".merging")?, PartInWork::beside(&file_of_other, ".merging")?);
    hold.copy_to(&merged.copy)?;
    hold_other.copy_to(&taken.copy)?;
    let left = check(into, other, [&merged.copy, &taken.copy], config)?;
    // A folder asks its files in this order, and the first one that has a study gives its values.
    let mut both = [(into, &merged.copy), (other, &taken.copy)];
    both.sort_by_key(|(path, _)| place_in_folder(path));
    let before = AllAnswers::of(&both.map(|(_, copy)| copy.clone()))?;
    take_in(&merged.copy, &taken.copy, config.scan_writer_options())
        .with_context(|| format!("cannot take in {}", other.display()))?;
    merged.compact()?;
    if AllAnswers::of(std::slice::from_ref(&merged.compact))? != before {
        bail!("one index cannot answer as {} and {} do together; nothing was changed", Shown(into), Shown(other));
    }
    let suffix = set_aside_suffix();
    let is_gone = |path: &Path| format!("{} is gone", path.display());
    let aside = hold.replace_with(&merged.compact, &suffix)?.with_context(|| is_gone(into))?;
    // A link that leads nowhere would be an error of the folder, so it goes first.
    if other.is_symlink() {
        fs::remove_file(other).with_context(|| format!("cannot remove the link {}", other.display()))?;
    }
    let aside_other = hold_other.rename_aside(&suffix)?.with_context(|| is_gone(other))?;
    Ok(([aside, aside_other], left))
}
