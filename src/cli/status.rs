//! `dcmdex status` shows counts of the index.

use std::collections::BTreeSet;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};

use super::output::{Grouped, Shown};
use crate::cli::context::{Chattiness, Context, Flags, IndexArgs};
use crate::cli::{Exit, backup};
use crate::db::open::Reader;
use crate::db::{Admin, IndexStatus, ScanEntry, WatchEntry};
use crate::model::calendar::moment_text;
use crate::model::clock::Clock;
use crate::scp::pending_reports;
use crate::watch::{LookFigures, WatchState};

const EXAMPLES: &str = "\
Examples:
  dcmdex status
  dcmdex status --index archive.db --json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Write one JSON object (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &StatusArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let mut flags = Flags::default();
    arguments.index.add_to(&mut flags)?;
    let config = context.configure(flags.0, Chattiness::Tool)?;
    let status = Reader::open(&config.index)?.status()?;
    let watches = Reader::open(&config.index)?.watches()?;
    let watches: Vec<Watched> = watches.iter().map(Watched::of).collect::<anyhow::Result<_>>()?;
    let reports = pending_reports(&config.index).context("cannot list the storage commitment requests")?;
    if arguments.json {
        context.output.line(as_json(&config.index, &status, &watches, reports))?;
    } else {
        context.output.line(as_text(&config.index, &status, &watches, reports))?;
    }
    Ok(Exit::Done)
}

/// A watched directory, with its state.
struct Watched {
    paths: Vec<String>,
    state: WatchState,
}

impl Watched {
    fn of(entry: &WatchEntry) -> anyhow::Result<Self> {
        let paths =
            serde_json::from_str(&entry.roots).context("the index names a watched directory in no way known")?;
        let state =
            WatchState::from_json(&entry.state).context("the index has no readable state of a watched directory")?;
        Ok(Self { paths, state })
    }

    fn as_json(&self, now_ms: i64) -> Value {
        let Self { paths, state } = self;
        json!({
            "paths": paths,
            "by": state.by,
            "plan": state.plan,
            "events": state.events,
            "last": state.last,
            "last_success_ms": state.last_success_ms,
            "next_due_ms": state.next_due_ms,
            "overdue": state.is_overdue(now_ms),
            "slow": state.is_slow,
            "pending": state.pending,
            "indexed_since": state.indexed_since,
        })
    }

    fn as_text(&self, now_ms: i64) -> String {
        let state = &self.state;
        let paths: Vec<_> = self.paths.iter().map(|path| Shown(path.as_ref()).to_string()).collect();
        let events = if state.events.is_empty() { String::new() } else { format!(", changes by {}", state.events) };
        let mut text = format!("\n  {}: {}{events}", paths.join(", "), state.plan);
        match &state.last {
            None => text.push_str("\n    not looked at yet"),
            Some(LookFigures { error: Some(error), started_ms, .. }) => {
                text.push_str(&format!("\n    last look {} failed: {error}", moment_text(*started_ms)));
            }
            Some(last) => text.push_str(&format!(
                "\n    last look {} ({:.1} s{}): found {}, indexed {}, updated {}, removed {}, failed {}",
                moment_text(last.started_ms),
                last.elapsed_seconds,
                if last.interrupted { ", interrupted" } else { "" },
                Grouped(last.found),
                Grouped(last.indexed),
                Grouped(last.updated),
                Grouped(last.removed),
                Grouped(last.failed),
            )),
        }
        if state.indexed_since > 0 {
            text.push_str(&format!("; indexed since {}", Grouped(state.indexed_since)));
        }
        if state.is_slow {
            text.push_str("\n    it took far longer than those before");
        }
        if let Some(due) = state.next_due_ms {
            let late = if state.is_overdue(now_ms) { " (overdue: is the node running?)" } else { "" };
            text.push_str(&format!("\n    next look due {}{late}", moment_text(due)));
        }
        text
    }
}

fn as_json(index: &std::path::Path, status: &IndexStatus, watches: &[Watched], reports: u64) -> Value {
    let by_word = |words: &[(String, u64)]| -> Value {
        words.iter().map(|(word, count)| (word.clone(), Value::from(*count))).collect::<Map<_, _>>().into()
    };
    let scans: Vec<_> = status.scans.iter().map(scan_json).collect();
    let roots: BTreeSet<_> = status.scans.iter().flat_map(paths).collect();
    json!({
        "index": index.to_string_lossy(),
        "schema_version": status.schema_version,
        "size_bytes": status.size_bytes,
        "patients": status.patients,
        "studies": status.studies,
        "series": status.series,
        "instances": status.instances,
        "copies": status.copies,
        "missing": status.missing,
        "metadata_only": status.metadata_only,
        "files_with_faults": status.files_with_faults,
        "last_change": status.last_change,
        "commitment_reports_pending": reports,
        "failed": status.failed.iter().map(|(_, count)| count).sum::<u64>(),
        "skipped": status.skipped.iter().map(|(_, count)| count).sum::<u64>(),
        "conflicts": status.conflicts.iter().map(|(_, count)| count).sum::<u64>(),
        "failed_by_reason": by_word(&status.failed),
        "skipped_by_reason": by_word(&status.skipped),
        "conflicts_by_kind": by_word(&status.conflicts),
        "last_backup_ms": backup::last_success(index),
        "roots": roots,
        "watches": watches.iter().map(|watch| watch.as_json(Clock::System.now_ms())).collect::<Vec<_>>(),
        "scans": scans,
    })
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

fn as_text(index: &std::path::Path, status: &IndexStatus, watches: &[Watched], reports: u64) -> String {
    let mut text = format!("{} (schema {}, {} bytes)", Shown(index), status.schema_version, Grouped(status.size_bytes));
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
