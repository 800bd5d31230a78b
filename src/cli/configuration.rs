//! `dcmdex config` shows the settings, checks them, or writes a commented example.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use crate::cli::context::{Context, in_one_line};
use crate::cli::http::{Callers, open_ohif};
use crate::cli::{Exit, directory_checks, import, other_programs, storage_match, unindexed};
use crate::config::{Admitted, Config, DEFAULT_FILE, example};
use crate::db;
use crate::db::open::{Reader, may_exist};
use crate::events::EventOptions;
use crate::files::{FILE_MODE, write_new};
use crate::model::clock::Clock;
use crate::qr;
use crate::ul::tls_check::{self, Severity};

const EXAMPLES: &str = "\
Examples:
  dcmdex config init            writes dcmdex.toml, with every setting explained
  dcmdex config check           says what is wrong, and who may do what
  dcmdex config show            the values that apply, and where each came from";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the current settings, and where each one came from
    Show,
    /// Print the query part of the DICOM conformance statement, with the declared attributes
    Conformance,
    /// Check the settings file and the environment, and list the problems
    Check,
    /// Write a file with every setting: its default, its unit, and the cost of a lower or higher
    /// value
    Init {
        /// File to write. `-` is standard output
        #[arg(default_value = DEFAULT_FILE, value_name = "FILE")]
        file: PathBuf,
    },
    /// Make a settings file from that of another node: a configuration of Orthanc, or a
    /// dcmqrscp.cfg of DCMTK. Exit code 1 if something needs the eyes of a person
    Import {
        /// The file of the other node
        #[arg(value_name = "FROM")]
        from: PathBuf,
        /// File to write [default: standard output]
        #[arg(value_name = "TO")]
        to: Option<PathBuf>,
    },
}

pub(super) fn run(arguments: ConfigArgs, context: &mut Context) -> anyhow::Result<Exit> {
    match arguments.action {
        Action::Show => show(context),
        Action::Conformance => conformance(context),
        Action::Check => check(context),
        Action::Init { file } => init(&file, context),
        Action::Import { from, to } => import::run(&from, to.as_deref(), context),
    }
}

fn show(context: &mut Context) -> anyhow::Result<Exit> {
    let config = context.load(Vec::new())?;
    let mut section = "";
    for (path, setting) in config.settings() {
        let (table, name) = path.split_once('.').unwrap_or(("", path));
        if table != section {
            section = table;
            context.output.line(format_args!("\n[{table}]"))?;
        }
        let name = if table == "peers" { toml::Value::from(name).to_string() } else { name.to_owned() };
        context.output.line(format_args!("{name} = {}  # {}", setting.value, setting.origin))?;
    }
    for (table, origin, fields) in config.entries() {
        context.output.line(format_args!("\n[[{table}]]  # {origin}"))?;
        for (name, setting) in fields {
            context.output.line(format_args!("{name} = {}  # {}", setting.value, setting.origin))?;
        }
    }
    if config.require_end {
        // So that the output can be used as a settings file.
        context.output.line("\n# end")?;
    }
    Ok(Exit::Done)
}

/// Prints the sections of docs/conformance.md that depend on the program and its configuration.
fn conformance(context: &mut Context) -> anyhow::Result<Exit> {
    let config = context.load(Vec::new())?;
    let declared = ("declared attributes", qr::conformance::declared_attributes(&config.declared));
    for (title, text) in qr::conformance::sections().into_iter().chain([declared]) {
        context.output.line(format_args!("# C-FIND: {title}\n\n{text}"))?;
    }
    Ok(Exit::Done)
}

fn check(context: &mut Context) -> anyhow::Result<Exit> {
    let config = context.load(Vec::new())?;
    // Checks certificates as a peer would, as far as possible without a network.
    let now_ms = Clock::System.now_ms();
    let of_certificates = config.tls.as_ref().map(|tls| tls_check::problems(tls, now_ms)).transpose()?;
    let of_certificates = of_certificates.unwrap_or_default();
    for problem in &of_certificates {
        let label = if problem.severity == Severity::Broken { "" } else { "warning: " };
        context.output.line(format_args!("{label}{problem}"))?;
    }
    if of_certificates.iter().any(|problem| problem.severity == Severity::Broken) {
        bail!("the settings can be read, but no peer would accept the certificate of this node");
    }
    let (in_files, of_files) = of_files(&config);
    let problems: Vec<String> = of_places(&config).into_iter().chain(in_files).collect();
    for problem in &problems {
        context.output.line(problem)?;
    }
    if !problems.is_empty() {
        bail!("the settings can be read, but a node would not start with them");
    }
    let admitted = config.admitted()?;
    let callers = config.http.enabled.then(|| Callers::of(&config)).transpose()?;
    let strays = strays(&config)?;
    let file = config.file.as_ref().map_or("no file".to_owned(), |file| file.display().to_string());
    context.output.line(format_args!("the settings are valid ({file})"))?;
    let is_new = if may_exist(&config.index) { "" } else { " (there is none; a node makes a new one)" };
    context.output.line(format_args!("index: {}{is_new}", config.shown_index().display()))?;
    context.output.line(format_args!("who may associate: {}", who(&config, admitted)))?;
    if let Some(callers) = &callers {
        context.output.line(format_args!("who may send requests over HTTP: {}", callers.in_words(&config)))?;
    }
    for warning in callers.iter().flat_map(|callers| callers.warnings(&config)).chain(of_files).chain(strays) {
        context.output.line(format_args!("warning: {warning}"))?;
    }
    for variable in &config.strange_variables {
        context.output.line(format_args!("environment variable {variable} is no setting of dcmdex and is ignored"))?;
    }
    Ok(Exit::Done)
}

/// Problems that keep a node from working with its index and its storage directory.
fn of_places(config: &Config) -> Vec<String> {
    let problems = directory_checks::problems(config);
    if !problems.is_empty() {
        return problems;
    }
    let misfit = match config.store_options() {
        Some(options) => storage_match::misfit(&config.index, &options.directory),
        None => match Reader::open(&config.index) {
            // A node makes a new index, or brings an older one up to date.
            Ok(_) | Err(db::Error::Missing { .. } | db::Error::OlderSchema { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        },
    };
    misfit.unwrap_or_else(|error| Some(in_one_line(&error))).into_iter().collect()
}

/// Problems that keep a node from using other files that its settings name, and warnings about
/// them.
fn of_files(config: &Config) -> (Vec<String>, Vec<String>) {
    let mut problems = Vec::new();
    if let Some(Err(error)) = config.audit_options().map(|options| options.check_collector()) {
        problems.push(in_one_line(&error.into()));
    }
    let events = config.event_options();
    let of_events = events.iter().flat_map(EventOptions::problems);
    problems.extend(of_events.map(|error| in_one_line(&error.into())));
    let mut warnings = other_programs::of_receivers(&config.events.receivers);
    warnings.extend(other_programs::of_worklist(config));
    match config.http.ohif.as_deref().filter(|_| config.http.enabled).map(open_ohif) {
        Some(Ok((_, warning))) => warnings.extend(warning),
        Some(Err(error)) => problems.push(in_one_line(&error)),
        None => {}
    }
    (problems, warnings)
}

/// Result of a short look at the storage directory: files that the index does not know.
fn strays(config: &Config) -> anyhow::Result<Option<String>> {
    let Some(options) = config.store_options().filter(|options| options.directory.exists()) else { return Ok(None) };
    let storage = options.directory.canonicalize()?;
    let mut reader = match Reader::open(&config.index) {
        Ok(reader) => reader,
        Err(db::Error::Missing { .. } | db::Error::OlderSchema { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let found = unindexed::count_some(&mut reader, &storage)?;
    Ok((found.objects + found.elsewhere > 0).then(|| found.in_words(&storage)))
}

/// Peers that may associate, in words.
fn who(config: &Config, admitted: Admitted) -> String {
    match (admitted, config.is_reachable_from_outside()) {
        (Admitted::Table, _) => {
            format!("the peers in the table ({})", config.peers.table.as_ref().map_or(0, BTreeMap::len))
        }
        (Admitted::Anyone, true) => format!("anyone who reaches {}", config.node.bind),
        (Admitted::Anyone, false) => "anyone on this machine".to_owned(),
    }
}

fn init(file: &Path, context: &mut Context) -> anyhow::Result<Exit> {
    if file.as_os_str() == "-" {
        context.output.bytes(example().as_bytes())?;
        return Ok(Exit::Done);
    }
    // Never overwrites a file, since it may hold settings.
    let written = write_new(file, FILE_MODE, example().as_bytes());
    if written.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::AlreadyExists) {
        bail!(
            "{0} exists and is not overwritten; hint: `dcmdex config init -` prints the settings, and another name writes \
             another file",
            file.display()
        );
    }
    written.with_context(|| format!("cannot write {}", file.display()))?;
    context.output.line(format_args!("wrote {}", file.display()))?;
    Ok(Exit::Done)
}
