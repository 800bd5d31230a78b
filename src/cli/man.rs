//! `dcmdex man` writes manual pages from the definition of the command line.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use clap_mangen::Man;

use crate::cli::Exit;
use crate::cli::context::Context;

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Write one page for each command into this directory. Without it, the main page goes to
    /// standard output
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub(super) fn run(arguments: &ManArgs, definition: clap::Command, context: &mut Context) -> anyhow::Result<Exit> {
    match &arguments.directory {
        Some(directory) => clap_mangen::generate_to(definition, directory)
            .with_context(|| format!("cannot write manual pages to {}", directory.display()))?,
        None => {
            let mut page = Vec::new();
            Man::new(definition).render(&mut page)?;
            context.output.bytes(&page)?;
        }
    }
    Ok(Exit::Done)
}
