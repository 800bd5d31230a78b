//! `dcmdex completions` writes completion scripts for shells.

use clap::Args;
use clap::builder::PossibleValuesParser;
use clap_complete::Shell;

use crate::cli::Exit;
use crate::cli::context::Context;
use crate::model::attribute::ATTRIBUTES;

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
    // The script is written once, so it names the peers of the settings as they are now.
    let peers = context.load(Vec::new()).map_or_else(
        |_| Vec::new(),
        |config| config.peers.destinations.keys().map(|title| title.as_str().to_owned()).collect::<Vec<_>>(),
    );
    let keywords: Vec<&str> = ATTRIBUTES.iter().map(|attribute| attribute.keyword).collect();
    let one_of =
        |names: Vec<String>| move |argument: clap::Arg| argument.value_parser(PossibleValuesParser::new(names));
    let keys = || one_of(keywords.iter().map(|keyword| (*keyword).to_owned()).collect());
    definition = definition
        .mut_subcommand("find", |find| find.mut_arg("keys", keys()).mut_arg("columns", keys()).mut_arg("sort", keys()))
        .mut_subcommand("echo", |echo| if peers.is_empty() { echo } else { echo.mut_arg("peer", one_of(peers)) });
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut definition, "dcmdex", &mut script);
    context.output.bytes(&script)?;
    Ok(Exit::Done)
}
