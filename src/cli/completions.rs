//! `dcmdex completions` writes completion scripts for shells.

use clap::Args;
use clap_complete::Shell;

use crate::cli::Exit;
use crate::cli::context::Context;

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(
    arguments: &CompletionsArgs,
    mut definition: clap::Command,
    context: &mut Context,
) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut definition, "dcmdex", &mut script);
    context.output.bytes(&script)?;
    Ok(Exit::Done)
}
