//! The command line: one file for each command.
//!
//! Results go to standard output, everything else to standard error. A command that fails says what happened, to which file
//! or peer, and where it helps what to do about it.

mod arrival;
mod check;
mod completions;
mod configuration;
mod echo;
mod find;
mod fit;
mod man;
mod notify;
mod output;
mod scan;
mod serve;
mod spooled;
mod status;
mod suspend;
mod user;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::config::{Config, Flag, Sources};
use crate::telemetry;
use output::Output;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All done: 0.
    Done,
    /// Done, but some files failed, or nothing matched: 1.
    Partly,
    /// Could not be done: 2.
    Failed,
    /// Stopped on request, with the progress kept: 130.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Partly => 1,
            Exit::Failed => 2,
            Exit::Interrupted => 130,
        })
    }
}

/// A DICOM node that indexes: it receives, scans archives, and answers queries.
#[derive(Debug, Parser)]
#[command(name = "dcmdex", version, propagate_version = true, max_term_width = 110, arg_required_else_help = true)]
#[command(
    after_help = "Every option can also stand in dcmdex.toml or in a variable DCMDEX_*: see `dcmdex config init`.\n\
    Exit codes: 0 done; 1 done, but some files failed or nothing matched; 2 could not be done; 130 interrupted, \
    progress kept."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// The file with settings [default: dcmdex.toml in the current directory, if there is one]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Say more on standard error; twice for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Say less on standard error: warnings only for `serve`, else errors only; and no progress
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node: receive, index, answer
    Serve(serve::ServeArgs),
    /// Index what lies under directories, or refresh the index
    Scan(scan::ScanArgs),
    /// Ask the index what C-FIND would ask
    Find(find::FindArgs),
    /// Show what is in the index, in numbers
    Status(status::StatusArgs),
    /// Check that the index agrees with itself, and with the disk
    Check(check::CheckArgs),
    /// Ask a peer whether it answers (C-ECHO)
    Echo(echo::EchoArgs),
    /// Make a line for the file of those who may ask over HTTP
    User(user::UserArgs),
    /// Show, check or write settings
    Config(configuration::ConfigArgs),
    /// Write a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Write the manual page
    Man(man::ManArgs),
}

/// What lines a command logs unless told otherwise.
#[derive(Clone, Copy, Debug)]
enum Chattiness {
    /// A service: one line for each association.
    Service,
    /// A tool: only what is wrong.
    Tool,
}

impl Chattiness {
    /// The filter when neither settings nor options name one.
    const fn filter(self, verbose: u8, quiet: bool) -> &'static str {
        match (self, quiet, verbose) {
            (Self::Service, true, _) | (Self::Tool, false, 0) => "warn",
            (Self::Tool, true, _) => "error",
            (Self::Service, false, 0) | (Self::Tool, false, 1) => "info",
            (Self::Service, false, 1) | (Self::Tool, false, 2) => "info,dcmdex=debug",
            (Self::Service | Self::Tool, false, _) => "debug,dcmdex=trace",
        }
    }
}

/// What every command has at hand.
struct Context {
    global: Global,
    sources: Sources,
    output: Output<io::StdoutLock<'static>>,
    logging: Option<telemetry::Logging>,
}

impl Context {
    /// Reads the settings, with the command's options above them, and starts logging.
    fn configure(&mut self, flags: Vec<Flag>, chattiness: Chattiness) -> anyhow::Result<Config> {
        let config = self.load(flags)?;
        let told = self.global.quiet || self.global.verbose > 0;
        let filter = if told || config.log_filter.is_empty() {
            chattiness.filter(self.global.verbose, self.global.quiet).to_owned()
        } else {
            config.log_filter.clone()
        };
        let colour =
            io::stderr().is_terminal() && self.sources.variable("NO_COLOR").is_none_or(|value| value.is_empty());
        let when_unread = match chattiness {
            Chattiness::Service => telemetry::WhenUnread::Drop,
            Chattiness::Tool => telemetry::WhenUnread::Wait,
        };
        let options = telemetry::Options { format: config.log_format, filter, colour, when_unread };
        self.logging = Some(telemetry::start(&options)?);
        for variable in &config.strange_variables {
            tracing::warn!(variable, "environment variable is no setting of dcmdex; ignored");
        }
        Ok(config)
    }

    /// Reads the settings again, from where they came from the last time.
    fn reader_of_settings(
        &self,
        config: &Config,
    ) -> anyhow::Result<impl Fn() -> Result<Config, crate::config::Error> + Send + Sync + use<>> {
        let mut sources = self.sources.clone();
        // Also if nobody named it: a file that is gone must not let in whom it kept out.
        sources.file.clone_from(&config.file);
        let here = std::env::current_dir().context("the current directory cannot be found")?;
        Ok(move || Config::load_again(&sources, &here))
    }

    /// Reads the settings only.
    fn load(&mut self, flags: Vec<Flag>) -> anyhow::Result<Config> {
        self.sources.file.clone_from(&self.global.config);
        self.sources.flags = flags;
        let here = std::env::current_dir().context("the current directory cannot be found")?;
        Ok(Config::load(&self.sources, &here)?)
    }
}

/// Runs the program with these arguments, the first being its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no failure; a closed pipe is the reader's business.
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
        Command::Status(arguments) => status::run(&arguments, &mut context),
        Command::Check(arguments) => check::run(&arguments, &mut context),
        Command::Echo(arguments) => echo::run(&arguments, &mut context),
        Command::User(arguments) => user::run(&arguments, &mut context),
        Command::Config(arguments) => configuration::run(arguments, &mut context),
        Command::Completions(arguments) => completions::run(&arguments, &mut context),
        Command::Man(arguments) => man::run(&arguments, &mut context),
    };
    let result = result.and_then(|exit| {
        context.output.flush().context("standard output cannot be written")?;
        Ok(exit)
    });
    // What was logged stands before the error.
    drop(context.logging.take());
    result.unwrap_or_else(|error| {
        // Nobody is left to tell when standard error is closed as well.
        let _ = writeln!(io::stderr().lock(), "error: {}", in_one_line(&error));
        Exit::Failed
    })
}

/// An error with its causes, each once.
fn in_one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// The definition of the command line, for what is derived from it.
fn definition() -> clap::Command {
    Cli::command()
}

/// The option that nearly every command has.
#[derive(Debug, Args)]
struct IndexArgs {
    /// The index file [default: dcmdex-data/index.db]
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
}

impl IndexArgs {
    fn add_to(&self, flags: &mut Flags) -> anyhow::Result<()> {
        flags.path("index", "--index", self.index.as_ref())
    }
}

/// Makes the directory in which a file is about to be made, so that the defaults work in an empty place.
fn make_directory_of(file: &Path) -> anyhow::Result<()> {
    let Some(directory) = file.parent() else { return Ok(()) };
    // Patient data lies there: not for others, whatever the umask.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(directory)
        .with_context(|| format!("{} cannot be made", directory.display()))
}

/// Options as settings of the command line.
#[derive(Default)]
struct Flags(Vec<Flag>);

impl Flags {
    fn text(&mut self, path: &str, flag: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.0.push(Flag { path: path.to_owned(), value: value.into(), flag });
        }
    }

    fn path(&mut self, path: &str, flag: &'static str, value: Option<&PathBuf>) -> anyhow::Result<()> {
        let text = value.map(|value| value.to_str().with_context(|| format!("{flag}: the path is not valid UTF-8")));
        self.text(path, flag, text.transpose()?);
        Ok(())
    }

    fn list(&mut self, path: &str, flag: &'static str, values: &[String]) {
        if !values.is_empty() {
            self.0.push(Flag { path: path.to_owned(), value: values.to_vec().into(), flag });
        }
    }

    fn integer(&mut self, path: &str, flag: &'static str, value: Option<i64>) {
        if let Some(value) = value {
            self.0.push(Flag { path: path.to_owned(), value: value.into(), flag });
        }
    }

    /// A switch sets; its absence leaves the decision to the weaker sources.
    fn switch(&mut self, path: &str, flag: &'static str, value: bool) {
        if value {
            self.0.push(Flag { path: path.to_owned(), value: true.into(), flag });
        }
    }
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
