//! Settings, output and logging that every command uses.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::output::Output;
use crate::config::{Config, Flag, Sources};
use crate::db::open::is_on_server;
use crate::files::make_directory;
use crate::telemetry;

/// Outcome of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done. Exit code 0.
    Done,
    /// The command ended, but some files failed or nothing matched. Exit code 1.
    Partly,
    /// The command failed. Exit code 2.
    Failed,
    /// The exit code of a check for a supervisor.
    Graded(u8),
    /// A signal stopped the command, and its progress is saved. Exit code 130.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Partly => 1,
            Exit::Failed => 2,
            Exit::Graded(code) => code,
            Exit::Interrupted => 130,
        })
    }
}

/// Heading of the options that every command has. They come after those of the command.
const GENERAL: &str = "General options";

#[derive(Debug, Args)]
pub(super) struct Global {
    /// Settings file [default: dcmdex.toml in the current directory, if it exists]
    #[arg(long, value_name = "FILE", global = true, help_heading = GENERAL)]
    pub(super) config: Option<PathBuf>,
    /// Write more to standard error. Twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet", help_heading = GENERAL)]
    pub(super) verbose: u8,
    /// Write less: only warnings for `serve`, only errors for other commands, no progress, and no
    /// line for each file
    #[arg(short, long, global = true, help_heading = GENERAL)]
    pub(super) quiet: bool,
}

/// Default amount of log output of a command.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chattiness {
    /// A service logs one line for each association.
    Service,
    /// A command line tool logs only problems.
    Tool,
}

impl Chattiness {
    /// The log filter, if neither settings nor options set one.
    pub(super) const fn filter(self, verbose: u8, quiet: bool) -> &'static str {
        match (self, quiet, verbose) {
            (Self::Service, true, _) | (Self::Tool, false, 0) => "warn",
            (Self::Tool, true, _) => "error",
            (Self::Service, false, 0) | (Self::Tool, false, 1) => "info",
            (Self::Service, false, 1) | (Self::Tool, false, 2) => "info,dcmdex=debug",
            (Self::Service | Self::Tool, false, _) => "debug,dcmdex=trace",
        }
    }
}

/// Settings, output and log of a command.
pub(super) struct Context {
    pub(super) global: Global,
    pub(super) sources: Sources,
    pub(super) output: Output<io::StdoutLock<'static>>,
    pub(super) logging: Option<telemetry::Logging>,
}

impl Context {
    /// Says something on standard error, unless the user wants only errors there.
    pub(super) fn tell(&self, text: &str) {
        if !self.global.quiet {
            // If standard error is closed, nobody reads it.
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// Reads the settings and starts logging. The options of the command override the settings.
    pub(super) fn configure(&mut self, flags: Vec<Flag>, chattiness: Chattiness) -> anyhow::Result<Config> {
        let config = self.load(flags)?;
        let told = self.global.quiet || self.global.verbose > 0;
        let filter = if told || config.log_filter.is_empty() {
            chattiness.filter(self.global.verbose, self.global.quiet).to_owned()
        } else {
            config.log_filter.clone()
        };
        let colour = io::stderr().is_terminal() && self.wants_colour();
        let when_unread = match chattiness {
            Chattiness::Service => telemetry::WhenUnread::Drop,
            Chattiness::Tool => telemetry::WhenUnread::Wait,
        };
        let options = telemetry::Options { format: config.log_format, filter, colour, when_unread };
        self.logging = Some(telemetry::start(&options)?);
        for variable in &config.strange_variables {
            tracing::warn!(variable, "an environment variable is not a setting of dcmdex and is ignored");
        }
        Ok(config)
    }

    /// Whether the user wants colours on a terminal (<https://no-color.org>).
    pub(super) fn wants_colour(&self) -> bool {
        self.sources.variable("NO_COLOR").is_none_or(|value| value.is_empty())
    }

    /// Returns a function that reads the settings again from the same sources.
    pub(super) fn reader_of_settings(
        &self,
        config: &Config,
    ) -> anyhow::Result<impl Fn() -> Result<Config, crate::config::Error> + Send + Sync + use<>> {
        let mut sources = self.sources.clone();
        // The file counts as named from now on. If it disappears, reading fails. Otherwise the
        // defaults could admit peers that the file kept out.
        sources.file.clone_from(&config.file);
        let here = std::env::current_dir().context("cannot find the current directory")?;
        Ok(move || Config::load_again(&sources, &here))
    }

    /// Reads the settings and does not start logging.
    pub(super) fn load(&mut self, flags: Vec<Flag>) -> anyhow::Result<Config> {
        self.sources.file.clone_from(&self.global.config);
        self.sources.flags = flags;
        let here = std::env::current_dir().context("cannot find the current directory")?;
        Ok(Config::load(&self.sources, &here)?)
    }
}

/// An error and its causes in one line, each text once.
pub(super) fn in_one_line(error: &anyhow::Error) -> String {
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

/// The option that nearly every command has.
#[derive(Debug, Args)]
pub(super) struct IndexArgs {
    /// Index: file, folder or postgresql://HOST/DB [default: dcmdex-data/index.db]
    #[arg(long, value_name = "FILE")]
    pub(super) index: Option<PathBuf>,
}

impl IndexArgs {
    pub(super) fn add_to(&self, flags: &mut Flags) -> anyhow::Result<()> {
        flags.path("index", "--index", self.index.as_ref())
    }

    /// Reads the settings for a command that needs the index.
    pub(super) fn configure(&self, context: &mut Context) -> anyhow::Result<Config> {
        self.configure_with(None, context)
    }

    /// Reads the settings for a command that needs the index and the storage directory.
    pub(super) fn configure_with(&self, storage: Option<&PathBuf>, context: &mut Context) -> anyhow::Result<Config> {
        let mut flags = Flags::default();
        self.add_to(&mut flags)?;
        flags.path("storage", "--storage", storage)?;
        context.configure(flags.0, Chattiness::Tool)
    }
}

/// The options of commands that need the received objects as well.
#[derive(Debug, Args)]
pub(super) struct StorageArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Directory with the received objects [default: dcmdex-data/objects]
    #[arg(long, value_name = "DIR")]
    storage: Option<PathBuf>,
}

impl StorageArgs {
    /// Reads the settings for such a command.
    pub(super) fn configure(&self, context: &mut Context) -> anyhow::Result<Config> {
        self.index.configure_with(self.storage.as_ref(), context)
    }
}

/// Name of the directory that the defaults of index and storage directory lie in.
const DEFAULT_DIRECTORY: &str = "dcmdex-data";

/// Creates the directory for a new file, so that the defaults work in an empty directory.
///
/// Returns the directory if it is new and not the one of the defaults. It may be a typing error.
pub(super) fn make_directory_of(file: &Path) -> anyhow::Result<Option<&Path>> {
    let Some(directory) = file.parent().filter(|_| !is_on_server(file)) else { return Ok(None) };
    let is_new = !directory.as_os_str().is_empty() && !directory.exists();
    make_directory(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let is_default = directory.file_name().is_some_and(|name| name == DEFAULT_DIRECTORY);
    Ok((is_new && !is_default).then_some(directory))
}

/// Collects options of the command line as settings.
#[derive(Default)]
pub(super) struct Flags(pub(super) Vec<Flag>);

impl Flags {
    pub(super) fn text(&mut self, path: &str, flag: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.0.push(Flag { path: path.to_owned(), value: value.into(), flag });
        }
    }

    pub(super) fn path(&mut self, path: &str, flag: &'static str, value: Option<&PathBuf>) -> anyhow::Result<()> {
        let text = value.map(|value| value.to_str().with_context(|| format!("{flag}: the path is not valid UTF-8")));
        self.text(path, flag, text.transpose()?);
        Ok(())
    }
}
