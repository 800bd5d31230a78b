//! `dcmdex copy-index` copies an index from one engine to another.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::backup::manifest::counts_in_words;
use super::output::Shown;
use crate::cli::Exit;
use crate::cli::audited::CommandAudit;
use crate::cli::context::{Chattiness, Context, make_directory_of};
use crate::db::IndexStatus;
use crate::db::open::{is_on_server, shown_path};
use crate::db::transfer::{CopiedIndex, copy_to_engine};

const EXAMPLES: &str = "\
The copy is read again and compared before it counts. Until then every command refuses it. If the command \
was killed, run it again. It does not copy objects: they stay where they are.

Examples:
  dcmdex copy-index index.db 'postgresql://dcmdex@db1/archive'
  dcmdex copy-index 'postgresql://dcmdex@db1/archive' index.db";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CopyIndexArgs {
    /// Write one JSON object (docs/json.md)
    #[arg(long)]
    json: bool,
    /// The index: a file, or the address of a database
    #[arg(value_name = "FROM")]
    from: PathBuf,
    /// The copy: a new file, or the address of an empty database. One of both is a database
    #[arg(value_name = "TO")]
    to: PathBuf,
}

pub(super) fn run(arguments: &CopyIndexArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let CopyIndexArgs { json, from, to } = arguments;
    let config = context.configure(Vec::new(), Chattiness::Tool)?;
    if !is_on_server(from) && !is_on_server(to) {
        bail!("FROM and TO are both files; hint: `dcmdex backup` copies a file");
    }
    if !is_on_server(to) {
        make_directory_of(to)?;
    }
    let shown = shown_path(to)?;
    CommandAudit::open(&config, "copy-index")?.exported(&[], &shown, None)?;
    let options = config.scan_writer_options();
    let CopiedIndex { status, left_behind } =
        copy_to_engine(&config.with_roots(from), &config.with_roots(to), options)?;
    let IndexStatus { patients, studies, series, instances, .. } = status;
    if *json {
        context.output.line(json!({
            "patients": patients, "studies": studies, "series": series, "instances": instances,
            "left_behind": left_behind,
        }))?;
        return Ok(Exit::Done);
    }
    let counts = counts_in_words(patients, studies, series, instances);
    context.output.line(format_args!("{}: {counts}; read again, and the same", Shown(&shown)))?;
    if !left_behind.is_empty() {
        context.output.line(format_args!("the copy does not have: {}", left_behind.join(", ")))?;
    }
    Ok(Exit::Done)
}
