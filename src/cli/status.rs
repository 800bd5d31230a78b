//! `dcmdex status` shows counts of the index.

use std::collections::BTreeSet;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};

use super::output::{Grouped, Shown};
use crate::cli::context::{Chattiness, Context, Flags, IndexArgs, in_one_line};
use crate::cli::health::{Grade, Health};
use crate::cli::watch_report::WatchReport;
use crate::cli::{Exit, backup};
use crate::db::open::Reader;
use crate::db::postgres::PostgresAddress;
use crate::db::{Admin, IndexStatus, ScanEntry};
use crate::model::calendar::moment_text;
use crate::model::clock::Clock;
use crate::scp::pending_reports;

const EXAMPLES: &str = "\
Examples:
  dcmdex status
  dcmdex status --index archive.db --json

Exit codes: 0 done; 2 failed. With --check: 0 OK; 1 WARNING; 2 CRITICAL; 3 UNKNOWN.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Write one JSON object (docs/json.md)
    #[arg(long)]
    json: bool,
    /// Write one line for a supervisor such as Nagios or Icinga. The exit code is 0 if all is well,
    /// 1 for a warning and 2 for a critical state. It is 3 if the state cannot be found out
    #[arg(long, conflicts_with = "json")]
    check: bool,
}

pub(super) fn run(arguments: &StatusArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let mut flags = Flags::default();
    arguments.index.add_to(&mut flags)?;
    if arguments.check {
        return check(flags, context);
    }
    let config = context.configure(flags.0, Chattiness::Tool)?;
    let status = Reader::open(&config.index)?.status()?;
    let watches = Reader::open(&config.index)?.watches()?;
    let watches: Vec<WatchReport> = watches.iter().map(WatchReport::of).collect::<anyhow::Result<_>>()?;
    let reports = pending_reports(&config.index).context("cannot list the storage commitment requests")?;
    if arguments.json {
        context.output.line(as_json(&config.index, &status, &watches, reports))?;
    } else {
        context.output.line(as_text(&config.index, &status, &watches, reports))?;
    }
    Ok(Exit::Done)
}

/// Writes one line about the state of the index and its disks.
fn check(flags: Flags, context: &mut Context) -> anyhow::Result<Exit> {
    let config = match context.configure(flags.0, Chattiness::Tool) {
        Ok(config) => config,
        Err(error) => {
            context.output.line(format_args!("DCMDEX UNKNOWN - {}", in_one_line(&error).replace('\n', "; ")))?;
            return Ok(Exit::Graded(Grade::Unknown.code()));
        }
    };
    let health = Health::of(&config, Clock::System.now_ms());
    context.output.line(health.line())?;
    Ok(Exit::Graded(health.grade().code()))
}

fn as_json(index: &std::path::Path, status: &IndexStatus, watches: &[WatchReport], reports: u64) -> Value {
    let by_word = |words: &[(String, u64)]| -> Value {
        words.iter().map(|(word, count)| (word.clone(), Value::from(*count))).collect::<Map<_, _>>().into()
    };
    let scans: Vec<_> = status.scans.iter().map(scan_json).collect();
    let roots: BTreeSet<_> = status.scans.iter().flat_map(paths).collect();
    let mut whole = counts_as_json(status);
    let more = json!({
        "index": PostgresAddress::without_roots(index).to_string_lossy(),
        "schema_version": status.schema_version,
        "commitment_reports_pending": reports,
        "failed_by_reason": by_word(&status.failed),
        "skipped_by_reason": by_word(&status.skipped),
        "conflicts_by_kind": by_word(&status.conflicts),
        "last_backup_ms": backup::last_success(index),
        "roots": roots,
        "watches": watches.iter().map(|watch| watch.as_json(Clock::System.now_ms())).collect::<Vec<_>>(),
        "scans": scans,
    });
    if let Value::Object(more) = more {
        whole.extend(more);
    }
    whole.into()
}

/// The counts of an index, as `status` and the port for supervisors tell them.
pub(super) fn counts_as_json(status: &IndexStatus) -> Map<String, Value> {
    let all = |words: &[(String, u64)]| words.iter().map(|(_, count)| count).sum::<u64>();
    let counts = [
        ("size_bytes", status.size_bytes),
        ("patients", status.patients),
        ("studies", status.studies),
        ("series", status.series),
        ("instances", status.instances),
        ("copies", status.copies),
        ("missing", status.missing),
        ("metadata_only", status.metadata_only),
        ("files_with_faults", status.files_with_faults),
        ("last_change", status.last_change),
        ("failed", all(&status.failed)),
        ("skipped", all(&status.skipped)),
        ("conflicts", all(&status.conflicts)),
    ];
    counts.into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect()
}

fn scan_json(scan: &ScanEntry) -> Value {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
    json!({
        "scan": scan.scan,
        "paths": parsed(&scan.roots),
        "started_ms": scan.started_ms,
        "finished_ms": scan.finished_ms,
        "summary": scan.summary.as_deref().map_or(Value::Null, parsed),
    })
}

fn as_text(index: &std::path::Path, status: &IndexStatus, watches: &[WatchReport], reports: u64) -> String {
    let shown = PostgresAddress::without_roots(index);
    let mut text =
        format!("{} (schema {}, {} bytes)", Shown(&shown), status.schema_version, Grouped(status.size_bytes));
    let counts = [
        ("patients", status.patients),
        ("studies", status.studies),
        ("series", status.series),
        ("instances", status.instances),
        ("copies", status.copies),
        ("missing files", status.missing),
        ("metadata only", status.metadata_only),
        ("with faults", status.files_with_faults),
        ("last change", status.last_change),
    ];
    for (name, count) in counts {
        text.push_str(&format!("\n  {name:<13} {:>13}", Grouped(count)));
    }
    if reports > 0 {
        text.push_str(&format!("\nstorage commitment reports not delivered yet: {}", Grouped(reports)));
    }
    if let Some(made_ms) = backup::last_success(index) {
        text.push_str(&format!("\nlast backup  {}", moment_text(made_ms)));
    }
    for (title, words) in [
        ("files that could not be read", &status.failed),
        ("files that were skipped", &status.skipped),
        ("conflicts", &status.conflicts),
    ] {
        if !words.is_empty() {
            text.push_str(&format!("\n{title}"));
        }
        for (word, count) in words {
            text.push_str(&format!("\n  {:>13}  {word}", Grouped(*count)));
        }
    }
    if !watches.is_empty() {
        text.push_str("\nwatched directories");
    }
    for watch in watches {
        text.push_str(&watch.as_text(Clock::System.now_ms()));
    }
    if !status.scans.is_empty() {
        text.push_str("\nlast scans");
    }
    for scan in &status.scans {
        text.push_str(&format!("\n  {}  {}", moment_text(scan.started_ms), scan_text(scan)));
    }
    text
}

fn scan_text(scan: &ScanEntry) -> String {
    let summary: Option<Value> = scan.summary.as_deref().and_then(|summary| serde_json::from_str(summary).ok());
    let what = match summary {
        Some(summary) => {
            let number = |key: &str| Grouped(summary[key].as_u64().unwrap_or(0));
            let end = if summary["interrupted"] == true { "interrupted: " } else { "" };
            format!("{end}found {}, indexed {}, failed {}", number("found"), number("indexed"), number("failed"))
        }
        None => "not finished".to_owned(),
    };
    let paths: Vec<_> = paths(scan).iter().map(|path| Shown(path.as_ref()).to_string()).collect();
    format!("{}: {what}", paths.join(", "))
}

/// The paths of a scan.
fn paths(scan: &ScanEntry) -> Vec<String> {
    serde_json::from_str(&scan.roots).unwrap_or_default()
}
