//! `dcmdex scan` indexes the files of an archive.

mod follow;
mod pass;
mod progress;
mod report;
mod shared;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::context::{Chattiness, Context, Flags, IndexArgs, make_directory_of};
use crate::cli::setting_args::{HasSettings, SettingArgs};
use crate::cli::{Exit, suspend};
use crate::config::Config;
use crate::db;
use crate::db::open::{Reader, Writer};
use crate::db::{Admin, Arrivals, ScanLedger};
use crate::model::location::Place;
use crate::scanner::{self, Roots, ScanTarget, Stop, Summary};
use crate::watch::Interval;
use pass::scan;
use progress::Progress;
use report::{FilesTold, Lacking, Report, ReportFormat};

/// The options of `scan` in the table of settings.
#[derive(Debug)]
struct ScanCommand;

impl HasSettings for ScanCommand {
    const COMMAND: &'static str = "scan";
}

const EXAMPLES: &str = "\
Examples:
  dcmdex scan --index archive.db /mnt/disk1 /mnt/disk2
  dcmdex scan --index archive.db --dry-run /mnt/disk1       what it would do
  dcmdex scan --index archive.db --throttle 20MB/s /mnt     beside other users of the disk
  dcmdex scan --index archive.db --prune /mnt/disk1         and forget files that are gone
  dcmdex scan --index archive.db --follow /mnt/disk1        and look again every minute
  dcmdex scan --index postgresql://db1/archive --shared /mnt/disk1      on several machines at once";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ScanArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Write events and the summary as JSON, one object per line (docs/json.md)
    #[arg(long)]
    json: bool,
    /// Read and report, but write nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on after the scan: look again at intervals, and early at what the system reports as
    /// changed
    #[arg(long, conflicts_with = "dry_run")]
    follow: bool,
    /// With --follow: time between two looks, as in 30s, 15m, 2h or 1d
    #[arg(long, value_name = "TIME", default_value = "1m", requires = "follow")]
    every: Interval,
    /// Scan together with all processes that name the same paths. The index is a database
    #[arg(long, conflicts_with_all = ["dry_run", "follow"])]
    shared: bool,
    #[command(flatten)]
    settings: SettingArgs<ScanCommand>,
    /// Directories to scan with everything below them, or files
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(super) fn run(arguments: &ScanArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let mut flags = Flags::default();
    arguments.index.add_to(&mut flags)?;
    flags.0.extend(arguments.settings.flags());
    let config = context.configure(flags.0, Chattiness::Tool)?;
    let options = config.scan.clone();
    let roots = match Roots::find(&arguments.paths, &options) {
        Err(scanner::Error::Missing { path }) => bail!(missing(&path, &config)),
        roots => roots?,
    };
    let stop = Stop::default();
    stop_on_signals(&stop)?;

    let format = if arguments.json { ReportFormat::Json } else { ReportFormat::Text };
    let quiet = context.global.quiet;
    let files = match (quiet, context.global.verbose) {
        (true, _) => FilesTold::None,
        (false, 0) => FilesTold::Failed,
        (false, _) => FilesTold::All,
    };
    let mut report = Report { format, output: &mut context.output, failure: None, files };
    if arguments.follow {
        prepare(&config, quiet)?;
        report.started(&roots, &config.index, false);
        // The paths themselves, not what they lead to now: another disk may be mounted there later.
        let absolute = arguments.paths.iter().map(std::path::absolute).collect::<io::Result<Vec<_>>>()?;
        return follow::follow((absolute, arguments.every), options, &config, &stop, &mut report);
    }
    let (summary, is_partly) = if arguments.shared {
        shared::scan_with_others(&roots, &options, &config, &stop, &mut report)?
    } else if arguments.dry_run {
        let mut known = match Reader::open(&config.index) {
            Ok(known) => Some(known),
            Err(db::Error::Missing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let expected = known.as_mut().map_or(Ok(None), |known| last_found(known, &json_paths(&roots)))?;
        let mut progress = Progress::new(quiet, expected, &roots);
        report.started(&roots, &config.index, true);
        if let Some(known) = &mut known {
            report.lacking(&lacking(known, &roots, &config)?, quiet);
        }
        (scan(&roots, &options, ScanTarget::DryRun { known }, &stop, &mut report, &mut progress)?, false)
    } else {
        (index(&roots, &options, &config, &stop, &mut report, quiet)?, false)
    };
    report.summary(&summary);
    if let Some(error) = report.failure {
        return Err(anyhow::Error::from(error).context("could not write the report"));
    }
    Ok(match summary {
        Summary { interrupted: true, .. } => Exit::Interrupted,
        Summary { failed: 0, not_pruned: 0, .. } if !is_partly => Exit::Done,
        Summary { .. } => Exit::Partly,
    })
}

/// Message about a path that does not exist. A disk that is not mounted is only a guess where the
/// index knows files below the path.
fn missing(path: &Path, config: &Config) -> String {
    let what = format!("cannot scan {}: it does not exist", path.display());
    let below = || {
        let absolute = std::path::absolute(path).ok()?;
        let mut reader = Reader::open(&config.index).ok()?;
        let mut knows = |place| reader.directories_below(place, &absolute, &absolute, 1).is_ok_and(|it| !it.is_empty());
        let is_known = knows(Place::InPlace) || knows(Place::Archive);
        Some(is_known || reader.directory_files(&absolute).is_ok_and(|files| !files.is_empty()))
    };
    match below() {
        Some(true) => format!(
            "{what}, and the index knows files below it; hint: check that its disk is mounted. If it is gone for good, \
             --prune-emptied deletes its files from the index"
        ),
        Some(false) | None => what,
    }
}

/// Scans and writes to the index.
fn index(
    roots: &Roots,
    options: &scanner::Options,
    config: &Config,
    stop: &Stop,
    report: &mut Report<'_>,
    quiet: bool,
) -> anyhow::Result<Summary> {
    prepare(config, quiet)?;
    let writer_options = config.scan_writer_options();
    suspend::commit_before_stopping(&writer_options.suspension)?;
    let writer = Writer::open(&config.index, writer_options)?;
    let handle = writer.handle();
    let mut known = Reader::open(&config.index)?;
    let paths = json_paths(roots);
    let mut progress = Progress::new(quiet, last_found(&mut known, &paths)?, roots);
    report.started(roots, &config.index, false);
    report.lacking(&lacking(&mut known, roots, config)?, quiet);
    let scan_number = handle.begin_scan(paths)?;
    let summary = scan(roots, options, ScanTarget::Index { known, writer: &handle }, stop, report, &mut progress)?;
    handle.end_scan(scan_number, Value::Object(summary.to_json()).to_string())?;
    drop(handle);
    writer.close()?;
    Ok(summary)
}

/// Makes the directory of the index.
fn prepare(config: &Config, quiet: bool) -> anyhow::Result<()> {
    if let Some(made) = make_directory_of(&config.index)?
        && !quiet
    {
        // If standard error is closed, nobody reads it.
        let _ = writeln!(io::stderr().lock(), "made the directory {}", made.display());
    }
    Ok(())
}

fn lacking(known: &mut Reader, roots: &Roots, config: &Config) -> anyhow::Result<Lacking> {
    let mut lacking = Lacking { instances: 0, without_object: 0, seconds: None };
    if config.declared.is_empty() {
        return Ok(lacking);
    }
    let mut reader = Reader::open(&config.index)?.with_declared(Arc::clone(&config.declared));
    for path in roots.paths() {
        lacking.instances += reader.without_declared_below(Place::InPlace, &path)?
            + reader.without_declared_below(Place::Archive, &path)?;
    }
    lacking.instances += reader.without_declared_below(Place::Managed, Path::new(""))?;
    lacking.without_object = reader.without_declared_below(Place::MetadataOnly, Path::new(""))?;
    let read_rate = |summary: &Value| {
        let read = summary["indexed"].as_u64()? + summary["updated"].as_u64()?;
        let found = summary["found"].as_u64()?;
        let seconds = summary["elapsed_seconds"].as_f64().filter(|seconds| *seconds > 0.0)?;
        // If a scan found most files unchanged, it says nothing about the rate of reading.
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        (read > 0 && read * 2 >= found).then(|| read as f64 / seconds)
    };
    let scans = known.status()?.scans;
    let rate = scans
        .iter()
        .filter_map(|scan| serde_json::from_str::<Value>(scan.summary.as_deref()?).ok())
        .find_map(|summary| read_rate(&summary));
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let seconds = rate.map(|rate| lacking.instances as f64 / rate);
    Ok(Lacking { seconds, ..lacking })
}

/// The first signal requests a stop. The second one ends the process at once. The index is
/// consistent at any moment.
fn stop_on_signals(stop: &Stop) -> anyhow::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the first signal finds the flag unset and only sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.flag())
            .and_then(|_| signal_hook::flag::register(signal, stop.flag()))
            .context("cannot handle signals")?;
    }
    Ok(())
}

fn json_paths(roots: &Roots) -> String {
    let paths: Vec<_> = roots.paths().iter().map(|path| Value::from(path.to_string_lossy())).collect();
    Value::Array(paths).to_string()
}

/// Number of files that the last complete scan of the same paths found. The estimate uses it.
fn last_found(known: &mut Reader, paths: &str) -> anyhow::Result<Option<u64>> {
    let scans = known.status()?.scans;
    let last = scans.iter().filter(|scan| scan.roots == paths).find_map(|scan| scan.summary.as_deref());
    let summary: Option<Value> = last.and_then(|summary| serde_json::from_str(summary).ok());
    Ok(summary.filter(|summary| summary["interrupted"] == false).and_then(|summary| summary["found"].as_u64()))
}
