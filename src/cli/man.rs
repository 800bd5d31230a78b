//! `dcmdex man` writes manual pages from the definition of the command line and of the settings.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Command};
use clap_mangen::Man;

use crate::cli::Exit;
use crate::cli::context::Context;
use crate::config::Key;

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Write one page for each command into this directory. Without it, the main page goes to
    /// standard output
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub(super) fn run(arguments: &ManArgs, definition: Command, context: &mut Context) -> anyhow::Result<Exit> {
    let mut definition = definition.disable_help_subcommand(true);
    definition.build();
    let Some(directory) = &arguments.directory else {
        context.output.bytes(&page(&definition)?)?;
        return Ok(Exit::Done);
    };
    let mut left = vec![&definition];
    while let Some(command) = left.pop() {
        let path = directory.join(Man::new(command.clone()).get_filename());
        std::fs::write(&path, page(command)?)
            .with_context(|| format!("cannot write the manual page {}", path.display()))?;
        left.extend(command.get_subcommands().filter(|command| !command.is_hide_set()));
    }
    Ok(Exit::Done)
}

/// Returns the page of a command: what its definition has, and what all commands have in common.
fn page(command: &Command) -> anyhow::Result<Vec<u8>> {
    let man = Man::new(command.clone()).source(concat!("dcmdex ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if command.get_after_help().is_some() || command.get_after_long_help().is_some() {
        man.render_extra_section(&mut page)?;
    }
    page.extend_from_slice(common(command.get_name()).as_bytes());
    page.extend_from_slice(exit_status(command).as_bytes());
    man.render_version_section(&mut page)?;
    Ok(page)
}

/// The files of a node, as the defaults name them.
const FILES: [(&str, &str); 4] = [
    (
        "dcmdex.toml",
        "Settings, in the current directory. --config names another file. `dcmdex config init` writes one with every \
         setting explained. The service of systemd has /etc/dcmdex/dcmdex.toml.",
    ),
    (
        "dcmdex-data/index.db",
        "The index, an SQLite file. Its changes are first in index.db-wal, with index.db-shm beside it. The three belong \
         together. Setting: index.",
    ),
    ("dcmdex-data/index.db-turn", "The lock by which a node asks a scan to give way. It is made again if it is gone."),
    (
        "dcmdex-data/objects",
        "The objects that arrived, in a directory for each study and series. No other program may write there. Setting: \
         storage.",
    ),
];

/// The exit codes of commands that have no others.
const EXIT_CODES: [(&str, &str); 4] = [
    ("0", "Done."),
    ("1", "Done, but some files failed, or nothing matched."),
    ("2", "Failed. The message on standard error says what happened, and what to do."),
    ("130", "Interrupted by a signal. The progress is kept."),
];

/// The sections that all pages have.
fn common(command: &str) -> String {
    let mut text = String::new();
    section(&mut text, "FILES");
    for (path, what) in FILES {
        entry(&mut text, path, what);
    }
    section(&mut text, "ENVIRONMENT");
    entry(
        &mut text,
        "DCMDEX_*",
        "Each setting has a variable: its name in capitals, with two underscores for the full stop. DCMDEX_PORT sets \
         port, and DCMDEX_SCAN__JOBS sets scan.jobs. A variable overrides the settings file, and an option overrides the \
         variable.",
    );
    for (key, flag) in Key::with_flag_of(command) {
        entry(&mut text, &key.variable(), &format!("As {} and the setting {}.", flag.option, key.path));
    }
    entry(&mut text, "NO_COLOR", "If it is set and not empty, nothing is written in colours.");
    text
}

/// The section on exit codes: those that the help of the command names, or those of most commands.
fn exit_status(command: &Command) -> String {
    let mut text = String::new();
    section(&mut text, "EXIT STATUS");
    let help = command.get_after_long_help().or_else(|| command.get_after_help()).map(ToString::to_string);
    match help.as_deref().and_then(|help| help.split_once("Exit codes: ")) {
        Some((_, codes)) => text.push_str(&escaped(codes)),
        None => EXIT_CODES.iter().for_each(|(code, what)| entry(&mut text, code, what)),
    }
    text.push('\n');
    text
}

fn section(text: &mut String, title: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, ".SH {title:?}");
}

/// An entry of a list: a term, and what it is.
fn entry(text: &mut String, term: &str, what: &str) {
    let _ = writeln!(text, ".TP\n\\fB{}\\fR\n{}", escaped(term), escaped(what));
}

/// Escapes text for roff: a hyphen that may be copied, and a line that is no request
/// (groff_char(7)).
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
