//! `dcmdex index split` moves studies of an index file to a new one.
//!
//! Both parts are made as new files beside the index, and compared with it. Then the new part gets
//! its name, and the rest takes the place of the index. Between these two steps both files have the
//! studies. A folder answers with such studies once, so a kill at any moment changes no answer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use super::answers::AllAnswers;
use super::work::{PartInWork, check_is_writable, set_aside_suffix};
use crate::cli::Exit;
use crate::cli::context::{Chattiness, Context, Flags};
use crate::cli::keys::query::values_of_answers;
use crate::cli::output::{Grouped, Shown};
use crate::config::Config;
use crate::db::Admin as _;
use crate::db::open::{IndexHold, KeptStudies, Reader, keep_studies};
use crate::files::{parent_of, rename_without_replacing, sync_directory};
use crate::model::attribute::AttributeId;
use crate::model::level::QueryRetrieveLevel;

#[derive(Debug, Args)]
pub(super) struct SplitArgs {
    /// New index file for the studies
    #[arg(long, value_name = "NEW")]
    into: PathBuf,
    /// Do it. Without this option, the command says what it would do
    #[arg(long)]
    yes: bool,
    /// Index file that has the studies. No other process may have it open
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Which studies, as for `dcmdex find`
    #[arg(required = true, value_name = "KEY=VALUE")]
    keys: Vec<String>,
}

pub(super) fn run(arguments: &SplitArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let SplitArgs { into, yes, file, keys } = arguments;
    check_is_writable(file)?;
    if into.extension().is_none_or(|end| end != "db") {
        bail!("{}: a folder takes only files whose names end in .db for index files", Shown(into));
    }
    let mut flags = Flags::default();
    flags.path("index", "FILE", Some(file))?;
    let config = context.configure(flags.0, Chattiness::Tool)?;
    let chosen = studies_of(file, keys, &config)?;
    let studies = Reader::open(file)?.status()?.studies;
    let (count, of) = (Grouped(chosen.len() as u64), Grouped(studies));
    if chosen.is_empty() {
        context.output.line(format_args!("{}: none of {of} studies matches", Shown(file)))?;
        return Ok(Exit::Partly);
    }
    if chosen.len() as u64 == studies {
        bail!("all studies match; hint: give {} another name", Shown(file));
    }
    let is_begun = into.exists();
    if is_begun && studies_of(into, &[], &config)? != chosen {
        bail!("{} exists, and has other studies", Shown(into));
    }
    if !yes {
        let line = format!("{}: {count} of {of} studies would go to {}", Shown(file), Shown(into));
        context.output.line(line)?;
        // It is refused now and not only with --yes.
        drop(IndexHold::take(file)?);
        context.output.line("nothing was changed; --yes does it")?;
        return Ok(Exit::Done);
    }
    let aside = split(file, into, &chosen, is_begun)?;
    context.output.line(format_args!("{}: {count} of {of} studies went to {}", Shown(file), Shown(into)))?;
    context.output.line(format_args!("the former index is {}", Shown(&aside)))?;
    Ok(Exit::Done)
}

/// The studies of an index file that match the keys.
fn studies_of(file: &Path, keys: &[String], config: &Config) -> anyhow::Result<BTreeSet<String>> {
    let mut reader = Reader::open(file)?;
    let returned = [AttributeId::StudyInstanceUID];
    let found = values_of_answers(&mut reader, QueryRetrieveLevel::Study, keys, returned, config)?;
    Ok(found.into_iter().map(|[uid]| uid).collect())
}

/// Parts an index. Returns where the former one is.
fn split(file: &Path, into: &Path, studies: &BTreeSet<String>, is_begun: bool) -> anyhow::Result<PathBuf> {
    let file = file.canonicalize().with_context(|| format!("cannot find {}", file.display()))?;
    let hold = IndexHold::take(&file)?;
    let whole = PartInWork::beside(&file, ".splitting")?;
    hold.copy_to(&whole.copy)?;
    let before = AllAnswers::of(std::slice::from_ref(&whole.copy))?;
    let part = PartInWork::beside(into, ".splitting-off")?;
    if !is_begun {
        hold.copy_to(&part.copy)?;
        keep_studies(&part.copy, KeptStudies::These, studies)?;
        part.compact()?;
    }
    keep_studies(&whole.copy, KeptStudies::Others, studies)?;
    whole.compact()?;
    let taken = if is_begun { into } else { &part.compact };
    if AllAnswers::of(&[whole.compact.clone(), taken.to_owned()])? != before {
        bail!("the two parts do not answer as {} does; nothing was changed", Shown(&file));
    }
    if !is_begun {
        rename_without_replacing(&part.compact, into).with_context(|| format!("cannot make {}", into.display()))?;
        sync_directory(parent_of(into)).with_context(|| format!("cannot make {}", into.display()))?;
    }
    let aside = hold.replace_with(&whole.compact, &set_aside_suffix())?;
    aside.with_context(|| format!("{} is gone", file.display()))
}
