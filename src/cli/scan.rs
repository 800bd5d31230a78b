//! `dcmdex scan` indexes the files of an archive.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::output::{Grouped, Output, Shown, put_path, terminal_width};
use super::setting_args::{HasSettings, SettingArgs};
use crate::cli::context::{Chattiness, Context, Flags, IndexArgs, make_directory_of};
use crate::cli::{Exit, suspend};
use crate::config::Config;
use crate::db;
use crate::db::open::{Reader, Writer};
use crate::db::{Admin, Arrivals, ScanLedger};
use crate::model::location::Place;
use crate::scanner::{self, FilesAhead, Hang, NotPruned, Reasons, Roots, ScanEvent, ScanTarget, Stop, Summary};

/// Time between two progress lines, if standard error is no terminal.
const PROGRESS_LINES: Duration = Duration::from_secs(10);

/// The options of `scan` in the table of settings.
#[derive(Debug)]
struct ScanCommand;

impl HasSettings for ScanCommand {
    const COMMAND: &'static str = "scan";
}

#[derive(Debug, Args)]
pub(super) struct ScanArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Write events and the summary as JSON, one object per line (docs/json.md)
    #[arg(long)]
    json: bool,
    /// Read and report, but write nothing
    #[arg(long)]
    dry_run: bool,
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
    let options = config.scanner_options();
    let roots = match Roots::find(&arguments.paths, &options) {
        Err(scanner::Error::Missing { path }) => bail!(missing(&path, &config)),
        roots => roots?,
    };
    let stop = Stop::default();
    stop_on_signals(&stop)?;

    let format = if arguments.json { ReportFormat::Json } else { ReportFormat::Text };
    let mut report = Report { format, output: &mut context.output, failure: None, verbose: context.global.verbose > 0 };
    let quiet = context.global.quiet;
    let summary = if arguments.dry_run {
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
        scan(&roots, &options, ScanTarget::DryRun { known }, &stop, &mut report, &mut progress)?
    } else {
        index(&roots, &options, &config, &stop, &mut report, quiet)?
    };
    report.summary(&summary);
    if let Some(error) = report.failure {
        return Err(anyhow::Error::from(error).context("could not write the report"));
    }
    Ok(match summary {
        Summary { interrupted: true, .. } => Exit::Interrupted,
        Summary { failed: 0, not_pruned: 0, .. } => Exit::Done,
        Summary { .. } => Exit::Partly,
    })
}

/// What to say of a path that does not exist. A disk that is not mounted is only a guess where the
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
    if let Some(made) = make_directory_of(&config.index)?
        && !quiet
    {
        // If standard error is closed, nobody reads it.
        let _ = writeln!(io::stderr().lock(), "made the directory {}", made.display());
    }
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
    handle.end_scan(scan_number, Value::Object(summary_json(&summary)).to_string())?;
    drop(handle);
    writer.close()?;
    Ok(summary)
}

/// Instances that were indexed before an attribute was declared, and the estimated time to read
/// them again.
struct Lacking {
    instances: u64,
    /// Instances whose objects are not kept.
    without_object: u64,
    /// Estimated from the rate of the last scan that read files.
    seconds: Option<f64>,
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

fn scan(
    roots: &Roots,
    options: &scanner::Options,
    target: ScanTarget<'_>,
    stop: &Stop,
    report: &mut Report<'_>,
    progress: &mut Progress,
) -> anyhow::Result<Summary> {
    let summary = scanner::scan(roots, options, target, stop, &mut |event| match event {
        ScanEvent::Progress(summary) => {
            report.progress(summary, progress.expected());
            progress.around(|| report.flush());
            progress.update(summary);
        }
        event => report.event(&event),
    });
    progress.finish();
    Ok(summary?)
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

/// The format of the report.
#[derive(Clone, Copy, Debug)]
enum ReportFormat {
    Text,
    Json,
}

/// The report on standard output. If writing it fails, the scan goes on and the error is reported
/// at the end.
struct Report<'a> {
    format: ReportFormat,
    output: &'a mut Output<io::StdoutLock<'static>>,
    failure: Option<io::Error>,
    verbose: bool,
}

impl Report<'_> {
    fn started(&mut self, roots: &Roots, index: &Path, dry_run: bool) {
        if let ReportFormat::Json = self.format {
            let paths: Vec<_> = roots
                .paths()
                .iter()
                .map(|path| {
                    let mut object = Map::new();
                    put_path(&mut object, path);
                    Value::Object(object)
                })
                .collect();
            self.line(json!({
                "event": "started",
                "version": env!("CARGO_PKG_VERSION"),
                "index": index.to_string_lossy(),
                "dry_run": dry_run,
                "paths": paths,
            }));
        }
    }

    /// Reports how many instances must be read again for declared attributes, and the estimated
    /// time.
    fn lacking(&mut self, lacking: &Lacking, quiet: bool) {
        let Lacking { instances, without_object, seconds } = *lacking;
        if instances + without_object == 0 {
            return;
        }
        match self.format {
            ReportFormat::Json => self.line(json!({
                "event": "lacking",
                "instances": instances,
                "without_object": without_object,
                "estimated_seconds": seconds.map(|seconds| (seconds * 1000.0).round() / 1000.0),
            })),
            ReportFormat::Text if quiet => {}
            ReportFormat::Text => {
                let time = seconds.map_or("the first files will show how long that takes".to_owned(), |seconds| {
                    let about = HumanDuration(Duration::from_secs_f64(seconds.clamp(0.0, 1e9)));
                    format!("at the rate of the last scan, that takes about {about}")
                });
                if instances > 0 {
                    self.line(format_args!(
                        "{} indexed instances lack declared attributes and are read again; {time}",
                        Grouped(instances)
                    ));
                }
                if without_object > 0 {
                    self.line(format_args!(
                        "{} more can never get them, because their objects are not kept (metadata only)",
                        Grouped(without_object)
                    ));
                }
            }
        }
        self.flush();
    }

    fn event(&mut self, event: &ScanEvent<'_>) {
        match self.format {
            ReportFormat::Text => self.event_as_text(event),
            ReportFormat::Json => self.event_as_json(event),
        }
    }

    fn event_as_text(&mut self, event: &ScanEvent<'_>) {
        match *event {
            ScanEvent::Failed { path, reason, detail } => {
                let more = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
                self.line(format_args!("failed: {}: {reason}{more}", Shown(path)));
            }
            ScanEvent::Skipped { path, reason, .. } if self.verbose => {
                self.line(format_args!("skipped: {}: {reason}", Shown(path)));
            }
            ScanEvent::Faults { path, faults } if self.verbose => {
                self.line(format_args!("indexed with faults: {}: {}", Shown(path), faults.join("; ")));
            }
            ScanEvent::Hangs(Hang { path, waited }) => self.line(format_args!(
                "no answer for {:.1} s, going on without it: {}",
                waited.as_secs_f64(),
                Shown(path)
            )),
            ScanEvent::NotPruned(NotPruned { path, why, files }) => self.line(format_args!(
                "kept in the index: {} missing files below {}: {}",
                Grouped(*files),
                Shown(path),
                why.in_full()
            )),
            ScanEvent::Unlisted { path } => {
                self.line(format_args!("not listed by its DICOMDIR: {}", Shown(path)));
            }
            ScanEvent::Skipped { .. } | ScanEvent::Faults { .. } | ScanEvent::Progress(_) => {}
        }
    }

    fn event_as_json(&mut self, event: &ScanEvent<'_>) {
        let mut object = Map::new();
        let mut put = |name: &str, path: &Path| {
            object.insert("event".into(), name.into());
            put_path(&mut object, path);
        };
        match *event {
            ScanEvent::Failed { path, reason, detail } | ScanEvent::Skipped { path, reason, detail } => {
                put(if let ScanEvent::Failed { .. } = event { "failed" } else { "skipped" }, path);
                object.insert("reason".into(), reason.into());
                object.insert("detail".into(), detail.into());
            }
            ScanEvent::Faults { path, faults } => {
                put("faults", path);
                object.insert("faults".into(), faults.to_vec().into());
            }
            ScanEvent::Hangs(Hang { path, waited }) => {
                put("hangs", path);
                object.insert("waited_seconds".into(), to_milliseconds(*waited).into());
            }
            ScanEvent::NotPruned(NotPruned { path, why, files }) => {
                put("not-pruned", path);
                object.insert("reason".into(), why.as_str().into());
                object.insert("detail".into(), why.in_full().into());
                object.insert("files".into(), (*files).into());
            }
            ScanEvent::Unlisted { path } => put("unlisted", path),
            ScanEvent::Progress(_) => return,
        }
        self.line(Value::Object(object));
    }

    fn progress(&mut self, summary: &Summary, expected: Option<u64>) {
        if let ReportFormat::Text = self.format {
            return;
        }
        self.line(json!({
            "event": "progress",
            "found": summary.found,
            "indexed": summary.indexed,
            "updated": summary.updated,
            "unchanged": summary.unchanged,
            "skipped": summary.skipped,
            "failed": summary.failed,
            "directories": summary.directories,
            "read_file_bytes": summary.bytes,
            "elapsed_seconds": to_milliseconds(summary.elapsed),
            "files_per_second": summary.files_per_second().round(),
            "expected": expected,
            "eta_seconds": eta(summary, expected).map(|eta| eta.as_secs()),
        }));
    }

    fn summary(&mut self, summary: &Summary) {
        match self.format {
            ReportFormat::Text => self.line(summary_text(summary)),
            ReportFormat::Json => {
                let mut object = Map::new();
                object.insert("event".into(), "summary".into());
                object.extend(summary_json(summary));
                self.line(Value::Object(object));
            }
        }
    }

    fn line(&mut self, line: impl std::fmt::Display) {
        if self.failure.is_none() {
            self.failure = self.output.line(line).err();
        }
    }

    /// Flushes the output so that readers see it.
    fn flush(&mut self) {
        if self.failure.is_none() {
            self.failure = self.output.flush().err();
        }
    }
}

fn summary_json(summary: &Summary) -> Map<String, Value> {
    let by_reason = |reasons: &Reasons| -> Value {
        reasons.iter().map(|(reason, count)| (reason.to_owned(), Value::from(count))).collect::<Map<_, _>>().into()
    };
    let Summary { found, indexed, updated, unchanged, removed, skipped, failed, missing, copies, .. } = summary;
    let object = json!({
        "found": found,
        "indexed": indexed,
        "updated": updated,
        "unchanged": unchanged,
        "reread": summary.reread,
        "removed": removed,
        "skipped": skipped,
        "failed": failed,
        "missing": missing,
        "not_pruned": summary.not_pruned,
        // For the same reason as `copies`.
        "moved": if summary.dry_run { Value::Null } else { summary.moved.into() },
        // Only the writer knows whether a file is a copy, and a dry run has none.
        "copies": if summary.dry_run { Value::Null } else { (*copies).into() },
        "conflicts": if summary.dry_run { Value::Null } else { summary.conflicts.into() },
        "with_faults": summary.faulty,
        "directories": summary.directories,
        "archives": summary.archives,
        "unlisted": summary.unlisted,
        "read_file_bytes": summary.bytes,
        "skipped_by_reason": by_reason(&summary.skipped_by_reason),
        "failed_by_reason": by_reason(&summary.failed_by_reason),
        "faults_by_reason": by_reason(&summary.faults_by_reason),
        "interrupted": summary.interrupted,
        "dry_run": summary.dry_run,
        "elapsed_seconds": to_milliseconds(summary.elapsed),
        "files_per_second": summary.files_per_second().round(),
    });
    match object {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// Total size of the files that the scan opened.
fn bytes_text(summary: &Summary) -> String {
    match summary.bytes {
        0 => "none opened".to_owned(),
        bytes => format!("{} of files opened", HumanBytes(bytes)),
    }
}

fn summary_text(summary: &Summary) -> String {
    let by_reason = |reasons: &Reasons| {
        let parts: Vec<_> = reasons.iter().map(|(reason, count)| format!("{reason} {}", Grouped(count))).collect();
        parts.join(", ")
    };
    let mut indexed = Vec::new();
    if !summary.dry_run {
        let moved = match summary.moved {
            0 => String::new(),
            moved => format!("moved {}, ", Grouped(moved)),
        };
        indexed.push(format!("copies {}, {moved}conflicts {}", Grouped(summary.copies), Grouped(summary.conflicts)));
    }
    if summary.faulty > 0 {
        indexed.push(format!("with faults {}: {}", Grouped(summary.faulty), by_reason(&summary.faults_by_reason)));
    }
    let missing = match (summary.missing, summary.not_pruned) {
        (0, _) => String::new(),
        (missing, 0) => {
            format!("{} more are gone and kept in the index; --prune deletes them from it", Grouped(missing))
        }
        (missing, _) => format!(
            "{} more are missing and kept in the index; if their disks are gone for good, --prune-emptied deletes them",
            Grouped(missing)
        ),
    };
    let reread = match summary.reread {
        0 => String::new(),
        reread => format!("{} of them read again", Grouped(reread)),
    };
    let rows = [
        ("indexed", summary.indexed, indexed.join("; ")),
        ("updated", summary.updated, String::new()),
        ("unchanged", summary.unchanged, reread),
        ("removed", summary.removed, missing),
        ("skipped", summary.skipped, by_reason(&summary.skipped_by_reason)),
        ("failed", summary.failed, by_reason(&summary.failed_by_reason)),
    ];
    let mut text = String::new();
    if summary.interrupted {
        text.push_str("interrupted; the next scan continues from here\n");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
    let rate = Grouped(summary.files_per_second() as u64);
    text.push_str(&format!(
        "found {} files in {} directories{}, {} in {:.1} s ({rate} files/s){}",
        Grouped(summary.found),
        Grouped(summary.directories),
        match summary.archives {
            0 => String::new(),
            archives => format!(" and {} archives", Grouped(archives)),
        },
        bytes_text(summary),
        summary.elapsed.as_secs_f64(),
        if summary.dry_run { "; dry run, nothing was written" } else { "" },
    ));
    for (name, count, more) in rows {
        let line = format!("\n  {name:<9} {:>13}  {more}", Grouped(count));
        text.push_str(line.trim_end_matches(' '));
    }
    if !summary.dry_run && summary.failed + summary.conflicts + summary.copies > 0 {
        text.push_str(
            "\nmore: `dcmdex status` shows the counts of the index and of failed files; `dcmdex check` lists conflicts",
        );
    }
    text
}

/// Seconds, rounded to milliseconds.
fn to_milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Estimated time for the rest, at the rate so far. The last complete scan of the same paths gives
/// the number of files. `None` if there was no such scan, or this one has found more files.
fn eta(summary: &Summary, expected: Option<u64>) -> Option<Duration> {
    let left = expected?.checked_sub(summary.found)?;
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    Duration::try_from_secs_f64(left as f64 / summary.files_per_second()).ok()
}

/// Progress on standard error: one line that changes on a terminal, single lines at intervals
/// elsewhere.
struct Progress {
    /// Expected number of files, from the last scan of the same paths.
    known: Option<u64>,
    /// The count of a first scan.
    ahead: Option<FilesAhead>,
    shown: ShownAs,
}

enum ShownAs {
    Quiet,
    Bar(ProgressBar),
    Lines { last: Duration },
}

impl Progress {
    /// `known` is the number of files of the last scan. Without it, files are counted ahead.
    fn new(quiet: bool, known: Option<u64>, roots: &Roots) -> Self {
        let shown = if quiet {
            ShownAs::Quiet
        } else if io::stderr().is_terminal() {
            ShownAs::Bar(Self::bar())
        } else {
            ShownAs::Lines { last: Duration::ZERO }
        };
        let counts = known.is_none() && !quiet;
        let ahead = counts.then(|| FilesAhead::below(roots.paths().into_iter().filter(|path| path.is_dir()).collect()));
        Self { known, ahead, shown }
    }

    fn bar() -> ProgressBar {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(200));
        // A wide message is cut where the terminal ends, so that the line never wraps.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        bar
    }

    /// Expected number of files, as far as it is known.
    fn expected(&self) -> Option<u64> {
        self.known.or_else(|| self.ahead.as_ref()?.total())
    }

    fn update(&mut self, summary: &Summary) {
        let expected = self.expected();
        match &mut self.shown {
            ShownAs::Quiet => {}
            ShownAs::Bar(bar) => {
                let width = terminal_width(&io::stderr()).unwrap_or(80);
                bar.set_message(line_within(width.saturating_sub(SPINNER_WIDTH), summary, expected));
            }
            ShownAs::Lines { last } => {
                if summary.elapsed.saturating_sub(*last) >= PROGRESS_LINES {
                    *last = summary.elapsed;
                    // If standard error is closed, the scan goes on.
                    let _unread = writeln!(io::stderr().lock(), "{}", line(summary, expected));
                }
            }
        }
    }

    /// Runs a function that may write to the terminal.
    fn around(&self, write: impl FnOnce()) {
        match &self.shown {
            ShownAs::Bar(bar) => bar.suspend(write),
            ShownAs::Quiet | ShownAs::Lines { .. } => write(),
        }
    }

    fn finish(&self) {
        if let ShownAs::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

/// Columns of the terminal before the message: the spinner and a space.
const SPINNER_WIDTH: usize = 2;

/// The whole progress line.
fn line(summary: &Summary, expected: Option<u64>) -> String {
    line_within(usize::MAX, summary, expected)
}

/// The parts of the progress line that have room, the most important ones first.
fn line_within(width: usize, summary: &Summary, expected: Option<u64>) -> String {
    let found = match expected.filter(|expected| *expected >= summary.found) {
        Some(expected) => format!("{} of about {} files", Grouped(summary.found), Grouped(expected)),
        None => format!("{} files", Grouped(summary.found)),
    };
    // Without data there is no estimate.
    let eta = match eta(summary, expected) {
        Some(eta) => format!("ETA {}", HumanDuration(eta)),
        None => "ETA unknown".to_owned(),
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
    let rate = Grouped(summary.files_per_second() as u64);
    let parts = [
        eta,
        format!("{} failed", Grouped(summary.failed)),
        format!("{rate} files/s"),
        bytes_text(summary),
        format!("after {}", HumanDuration(summary.elapsed)),
    ];
    let mut line = found;
    for part in parts {
        if line.len() + part.len() + 2 > width {
            break;
        }
        line.push_str(", ");
        line.push_str(&part);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_progress_line_has_what_there_is_room_for() {
        let summary =
            Summary { found: 12_345_678, failed: 99_999, elapsed: Duration::from_secs(5000), ..Summary::default() };
        for width in [58, 78, 98, 118, 198] {
            let line = line_within(width, &summary, Some(98_765_432));
            assert!(line.len() <= width, "{line}");
            assert!(line.starts_with("12,345,678 of about 98,765,432 files"), "{line}");
            assert!(width < 78 || line.contains("ETA"), "{line}");
        }
        let whole = line(&summary, None);
        assert!(whole.contains("12,345,678 files, ETA unknown, 99,999 failed") && whole.contains("after"), "{whole}");
    }
}
