//! The command line. A command has the file or the directory of its name; `dcmdex config` is in
//! `configuration`.
//!
//! The other modules belong to several commands:
//!
//! - `serve` and `rebuild` check index and storage first by `directory_checks` and `storage_match`.
//!   Both empty the `arrival_journal`, and `remove` asks for it.
//! - `status` shares `health` and `watch_report` with `serve`. `rebuild` shares `reindex` with
//!   `remove`. It shares the file of `correct` with that. `unindexed` finds objects that the index
//!   lacks.
//! - All commands use `context`, `output`, `output_buffer`, `setting_args` and `suspend`. `keys`
//!   reads keys of queries, `peer_name` names of peers, `http` the access over HTTP, and `import`
//!   other nodes' settings. `audited` writes the audit trail.
//!
//! Results go to standard output, everything else to standard error. If a command fails, its
//! message says what happened, and to which file or peer. Where possible it says what to do.

mod arrival_journal;
mod audited;
mod backup;
mod check;
mod compare;
mod completions;
mod configuration;
mod context;
mod copy;
mod copy_index;
mod copy_media;
mod correct;
mod directory_checks;
mod echo;
mod events;
mod export;
mod find;
mod health;
mod http;
mod import;
mod index;
mod keys;
mod man;
mod other_programs;
mod output;
mod output_buffer;
mod peer;
mod peer_name;
mod rebuild;
mod reindex;
mod relocate;
mod remove;
mod report;
mod restore;
mod scan;
mod serve;
mod setting_args;
mod status;
mod storage_match;
mod suspend;
mod unindexed;
mod user;
mod watch_report;
mod worklist;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use clap::builder::Styles;
use clap::builder::styling::AnsiColor;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::Sources;
use crate::db;
use crate::files::parent_of;
pub use context::Exit;
use context::{Context, Global, in_one_line};
use output::Output;

/// Colours of help texts and usage errors on a terminal. clap leaves them out elsewhere, and with
/// NO_COLOR.
const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// A DICOM node that indexes: it receives, scans archives, and answers queries.
#[derive(Debug, Parser)]
#[command(name = "dcmdex", version, propagate_version = true, max_term_width = 110, arg_required_else_help = true)]
#[command(styles = STYLES)]
#[command(
    after_help = "Options that are settings can also be set in dcmdex.toml or in a variable DCMDEX_*: see `dcmdex config init`.\n\
    Exit codes: 0 done; 1 done, but some files failed or nothing matched; 2 failed; 130 interrupted, progress \
    kept."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node, which receives, indexes and answers
    Serve(serve::ServeArgs),
    /// Index the files below directories, or refresh the index
    Scan(scan::ScanArgs),
    /// Query the index as C-FIND does
    Find(find::FindArgs),
    /// Write answers as a table: CSV, NDJSON or Parquet with types
    Export(export::ExportArgs),
    /// Copy or link the objects of a query into a folder, a zip or a tar
    Copy(copy::CopyArgs),
    /// List the studies that have problems, as HTML or CSV
    Report(report::ReportArgs),
    /// Compare with a PACS, another index or a list
    Compare(compare::CompareArgs),
    /// Show the numbers of patients, studies, series, instances and files in the index
    Status(status::StatusArgs),
    /// Check that the index is consistent and agrees with the disk
    Check(check::CheckArgs),
    /// Show what the node recorded, follow it, and deal with receivers that did not take it
    Events(events::EventsArgs),
    /// Copy the index while the node works
    Backup(backup::BackupArgs),
    /// Put a backup in the place of the index
    Restore(restore::RestoreArgs),
    /// Take instances out of the index, and received objects to the trash
    Remove(remove::RemovalArgs),
    /// Correct the identifiers of a patient in answers and in objects that are sent
    Correct(correct::CorrectArgs),
    /// Give indexed files the new path of their directory
    Relocate(relocate::RelocateArgs),
    /// Index the received objects that the index lacks, after it was lost or restored
    Rebuild(rebuild::RebuildArgs),
    /// Make, freeze and list the files of an index that is a folder
    Index(index::IndexFilesArgs),
    /// Copy an index from a file to a database, or back
    CopyIndex(copy_index::CopyIndexArgs),
    /// Check that a peer answers (C-ECHO)
    Echo(echo::EchoArgs),
    /// List the peers of the settings file, add one, or check all
    Peer(peer::PeerArgs),
    /// Make a line for the users file of the HTTP server
    User(user::UserArgs),
    /// Show, add or remove items of the modality worklist
    Worklist(worklist::WorklistArgs),
    /// Show, check or write settings
    Config(configuration::ConfigArgs),
    /// Write a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Write the manual page
    Man(man::ManArgs),
}

/// Runs the program. The first argument is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let parsed = Cli::try_parse_from(&arguments).or_else(|error| match without_help_for_help(&arguments, &error) {
        Some(arguments) => Cli::try_parse_from(arguments),
        None => Err(error),
    });
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no error. A closed pipe is none
            // either.
            if let Some((typed, meant)) = single_hyphen(&arguments).filter(|_| error.use_stderr()) {
                let _ = writeln!(io::stderr().lock(), "error: `{typed}` is no option; did you mean `{meant}`?");
                return Exit::Failed;
            }
            let _ = error.print();
            return if error.use_stderr() { Exit::Failed } else { Exit::Done };
        }
    };
    let mut context = Context {
        global: cli.global,
        sources: Sources::from_process(),
        output: Output::new(io::stdout().lock()),
        logging: None,
    };
    let result = match cli.command {
        Command::Serve(arguments) => serve::run(&arguments, &mut context),
        Command::Scan(arguments) => scan::run(&arguments, &mut context),
        Command::Find(arguments) => find::run(&arguments, &mut context),
        Command::Export(arguments) => export::run(&arguments, &mut context),
        Command::Copy(arguments) => copy::run(&arguments, &mut context),
        Command::Report(arguments) => report::run(&arguments, &mut context),
        Command::Compare(arguments) => compare::run(&arguments, &mut context),
        Command::Status(arguments) => status::run(&arguments, &mut context),
        Command::Check(arguments) => check::run(&arguments, &mut context),
        Command::Events(arguments) => events::run(arguments, &mut context),
        Command::Backup(arguments) => backup::run(&arguments, &mut context),
        Command::Restore(arguments) => restore::run(&arguments, &mut context),
        Command::Remove(arguments) => remove::run(&arguments, &mut context),
        Command::Correct(arguments) => correct::run(&arguments, &mut context),
        Command::Relocate(arguments) => relocate::run(&arguments, &mut context),
        Command::Rebuild(arguments) => rebuild::run(&arguments, &mut context),
        Command::Index(arguments) => index::run(&arguments, &mut context),
        Command::CopyIndex(arguments) => copy_index::run(&arguments, &mut context),
        Command::Echo(arguments) => echo::run(&arguments, &mut context),
        Command::Peer(arguments) => peer::run(&arguments, &mut context),
        Command::User(arguments) => user::run(&arguments, &mut context),
        Command::Worklist(arguments) => worklist::run(arguments, &mut context),
        Command::Config(arguments) => configuration::run(arguments, &mut context),
        Command::Completions(arguments) => completions::run(&arguments, definition(), &mut context),
        Command::Man(arguments) => man::run(&arguments, definition(), &mut context),
    };
    let result = result.and_then(|exit| {
        context.output.flush().context("cannot write to standard output")?;
        Ok(exit)
    });
    // Log lines are written before the error.
    drop(context.logging.take());
    result.unwrap_or_else(|error| {
        // If standard error is closed too, the message is lost.
        let label = error_label(context.wants_colour());
        let _ = writeln!(io::stderr().lock(), "{label} {}{}", in_one_line(&error), hint(&error));
        Exit::Failed
    })
}

/// Hint on what to do about an error that any command may meet.
fn hint(error: &anyhow::Error) -> String {
    for cause in error.chain().filter_map(|cause| cause.downcast_ref::<db::Error>()) {
        match cause {
            db::Error::Missing { .. } => {
                return "; hint: `dcmdex scan PATH` and `dcmdex serve` make one, and --index FILE names another".into();
            }
            db::Error::Io { path, source }
                if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
                    && parent_of(path).is_dir()
                    && !path.exists() =>
            {
                return format!("; hint: no file can be made in {}", parent_of(path).display());
            }
            _ => {}
        }
    }
    String::new()
}

/// The arguments without the last one, if it asks for help on `help`, which clap refuses.
fn without_help_for_help<'a>(arguments: &'a [OsString], error: &clap::Error) -> Option<&'a [OsString]> {
    match arguments {
        [before @ .., last]
            if error.kind() == clap::error::ErrorKind::InvalidSubcommand
                && (last == "--help" || last == "-h")
                && before.last().is_some_and(|help| help == "help") =>
        {
            Some(before)
        }
        _ => None,
    }
}

/// The word before an error, in red on a terminal.
fn error_label(wants_colour: bool) -> &'static str {
    if wants_colour && io::stderr().is_terminal() { "\x1b[1;31merror:\x1b[0m" } else { "error:" }
}

/// An argument that is the name of an option with one hyphen instead of two.
fn single_hyphen(arguments: &[OsString]) -> Option<(String, String)> {
    let definition = definition();
    let command = arguments.iter().skip(1).find_map(|argument| definition.find_subcommand(argument.to_str()?));
    let options: Vec<&str> = command
        .into_iter()
        .flat_map(clap::Command::get_arguments)
        .chain(definition.get_arguments())
        .filter_map(clap::Arg::get_long)
        .collect();
    arguments.iter().skip(1).take_while(|argument| *argument != "--").find_map(|argument| {
        let typed = argument.to_str()?;
        let name = typed.strip_prefix('-')?.split('=').next()?;
        (name.len() > 1 && options.contains(&name)).then(|| (format!("-{name}"), format!("--{name}")))
    })
}

/// The definition of the command line, for completions and manual pages.
fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn causes_are_told_once() {
        let error = anyhow::anyhow!("disk full").context("x.db: disk full").context("scan failed");
        assert_eq!(in_one_line(&error), "scan failed: x.db: disk full");
    }
}
