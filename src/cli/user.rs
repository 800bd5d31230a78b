//! `dcmdex user` makes a line for the users file of the HTTP server.

use std::io::{self, IsTerminal as _, Read as _};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use crate::access::users::{Rights, line_with_password, line_with_token};
use crate::cli::Exit;
use crate::cli::context::Context;

/// Maximum bytes of a password, with its line end.
const MAX_INPUT_BYTES: u64 = 1026;

const EXAMPLES: &str = "\
Examples:
  dcmdex user anna --right read < password.txt >> users
  dcmdex user viewer --right read --token >> users
  chmod 600 users";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct UserArgs {
    /// Name of the user, or purpose of the token
    name: String,
    /// What the user may do. May be repeated
    #[arg(long, value_enum, default_values_t = [Right::Read])]
    right: Vec<Right>,
    /// Make a token for a program, and read no password from standard input
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
            .line(format!("# Token for the next line. Give it to the program, then delete this line: {token}"))?;
        line
    } else {
        line_with_password(&arguments.name, rights, &password()?)?
    };
    context.output.line(line)?;
    Ok(Exit::Done)
}

/// Reads the first line of standard input. A terminal would show the password.
fn password() -> anyhow::Result<String> {
    if io::stdin().is_terminal() {
        bail!(
            "the password must come from standard input, so that no terminal shows it\n\
             hint: read -rs PASSWORD && printf %s \"$PASSWORD\" | dcmdex user NAME >> users"
        );
    }
    let mut text = String::new();
    io::stdin().take(MAX_INPUT_BYTES).read_to_string(&mut text).context("cannot read standard input")?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
