//! `dcmdex index split` moves studies of an index file to a new one.
//!
//! Both parts are made as new files beside the index, and compared with it. Then the new part gets
//! its name, and the rest takes the place of the index. Between these two steps both files have the
//! studies. A folder answers with such studies once, so a kill at any moment changes no answer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

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
use crate::db::open::{IndexHold, KeptStudies, Reader, checksum_of, is_named_as_index, keep_studies};
use crate::files::{FILE_MODE, parent_of, rename_without_replacing, replace, sync_directory, with_suffix};
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
    check_is_beside(file, into)?;
    let is_begun = into.exists();
    if is_begun && studies_of(into, &[], &config)? != chosen {
        bail!("{} exists, and has other studies", Shown(into));
    }
    if !yes {
        let line = format!("{}: {count} of {of} studies would go to {}", Shown(file), Shown(into));
        context.output.line(line)?;
        context.output.line(answers_after(file))?;
        // It is refused now and not only with --yes.
        drop(IndexHold::take(file)?);
        context.output.line("nothing was changed; --yes does it")?;
        return Ok(Exit::Done);
    }
    let aside = split(file, into, &chosen, is_begun)?;
    context.output.line(format_args!("{}: {count} of {of} studies went to {}", Shown(file), Shown(into)))?;
    context.output.line(answers_after(file))?;
    context.output.line(format_args!("the former index is {}", Shown(&aside)))?;
    Ok(Exit::Done)
}

/// Message about the index that answers with all studies afterwards.
fn answers_after(file: &Path) -> String {
    format!("the folder {} answers with both files, and {} with the rest only", Shown(parent_of(file)), Shown(file))
}

/// Refuses a name for the new file under which the folder of the other one would not answer with
/// it.
fn check_is_beside(file: &Path, into: &Path) -> anyhow::Result<()> {
    let folder = |path: &Path| parent_of(path).canonicalize();
    if folder(file)? != folder(into).with_context(|| format!("there is no folder for {}", into.display()))? {
        bail!("{} is not in the folder of {}, which would not answer with it", Shown(into), Shown(file));
    }
    match [file, into].into_iter().find(|path| !is_named_as_index(path)) {
        Some(path) => bail!("a folder answers with files that end in .db only, and not with {}", Shown(path)),
        None => Ok(()),
    }
}

/// The checksums of an index that is split and of its new part. They are noted until the split is
/// finished. So a command that finishes it drops nothing that one of the two has learned since.
fn note_of_split(whole: &Path, part: &Path) -> io::Result<String> {
    Ok(format!("{:?} {:?}\n", checksum_of(whole)?, checksum_of(part)?))
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
    let part = PartInWork::beside(into, ".splitting-off")?;
    let note = with_suffix(&file, ".split-note");
    // It is held until the end, so that nobody writes it meanwhile.
    let made = is_begun.then(|| IndexHold::take(into)).transpose()?;
    match &made {
        Some(made) => {
            made.copy_to(&part.compact)?;
            if fs::read_to_string(&note).ok() != Some(note_of_split(&whole.copy, &part.compact)?) {
                bail!(
                    "{1} exists, and {0} or {1} has changed since; hint: `dcmdex index merge --into {0} {1}`",
                    Shown(&file),
                    Shown(into)
                );
            }
        }
        None => {
            hold.copy_to(&part.copy)?;
            keep_studies(&part.copy, KeptStudies::These, studies)?;
            part.compact()?;
            let text = note_of_split(&whole.copy, &part.compact)?;
            replace(&note, FILE_MODE, text.as_bytes())?;
        }
    }
    let before = AllAnswers::of(std::slice::from_ref(&whole.copy))?;
    keep_studies(&whole.copy, KeptStudies::Others, studies)?;
    whole.compact()?;
    if AllAnswers::of(&[whole.compact.clone(), part.compact.clone()])? != before {
        bail!("the two parts do not answer as {} does; nothing was changed", Shown(&file));
    }
    if made.is_none() {
        rename_without_replacing(&part.compact, into).with_context(|| format!("cannot make {}", into.display()))?;
        sync_directory(parent_of(into)).with_context(|| format!("cannot make {}", into.display()))?;
    }
    let aside = hold.replace_with(&whole.compact, &set_aside_suffix())?;
    let _it_fits_no_file_now = fs::remove_file(&note);
    aside.with_context(|| format!("{} is gone", file.display()))
}
