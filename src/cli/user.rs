//! `dcmdex user`: a line for the file of those who may ask over HTTP.

use std::io::{self, IsTerminal as _, Read as _};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use crate::cli::Exit;
use crate::cli::context::Context;
use crate::web::Rights;
use crate::web::access::{line_with_password, line_with_token};

/// The longest password that is read, with the end of its line.
const MAX_INPUT_BYTES: u64 = 1026;

#[derive(Debug, Args)]
pub(super) struct UserArgs {
    /// The name; of a token, what it is for
    name: String,
    /// What the user may do; may be given several times
    #[arg(long, value_enum, default_values_t = [Right::Read])]
    right: Vec<Right>,
    /// Make a token for a program instead of reading a password from standard input
    #[arg(long)]
    token: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Right {
    /// Search and retrieve
    Read,
    /// Store
    Store,
}

pub(super) fn run(arguments: &UserArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let has = |right| arguments.right.contains(&right);
    let rights = Rights { read: has(Right::Read), store: has(Right::Store) };
    let line = if arguments.token {
        let (token, line) = line_with_token(&arguments.name, rights)?;
        context
            .output
            .line(format!("# The token of the next line, to be given to the program and then taken out: {token}"))?;
        line
    } else {
        line_with_password(&arguments.name, rights, &password()?)?
    };
    context.output.line(line)?;
    Ok(Exit::Done)
}

/// The first line of standard input. At a terminal it would be seen as it is typed.
fn password() -> anyhow::Result<String> {
    if io::stdin().is_terminal() {
        bail!(
            "the password comes on standard input, so that it is not shown\n\
             hint: read -rs PASSWORD && printf %s \"$PASSWORD\" | dcmdex user NAME >> users"
        );
    }
    let mut text = String::new();
    io::stdin().take(MAX_INPUT_BYTES).read_to_string(&mut text).context("standard input cannot be read")?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
