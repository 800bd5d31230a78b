//! `dcmdex status` shows counts of the index.

use std::collections::BTreeSet;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};

use super::output::{Grouped, Shown};
use crate::cli::Exit;
use crate::cli::context::{Chattiness, Context, Flags, IndexArgs};
use crate::db::open::Reader;
use crate::db::{Admin, IndexStatus, ScanEntry};
use crate::scp::pending_reports;

#[derive(Debug, Args)]
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
    let reports = pending_reports(&config.index).context("cannot list the storage commitment requests")?;
    if arguments.json {
        context.output.line(as_json(&config.index, &status, reports))?;
    } else {
        context.output.line(as_text(&config.index, &status, reports))?;
    }
    Ok(Exit::Done)
}

fn as_json(index: &std::path::Path, status: &IndexStatus, reports: u64) -> Value {
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
        "roots": roots,
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

fn as_text(index: &std::path::Path, status: &IndexStatus, reports: u64) -> String {
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
    if !status.scans.is_empty() {
        text.push_str("\nlast scans");
    }
    for scan in &status.scans {
        text.push_str(&format!("\n  {}  {}", time(scan.started_ms), scan_text(scan)));
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

/// A time in UTC, to the second (ISO 8601).
fn time(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day in the Gregorian calendar, for a number of days since 1970-01-01. Years
/// begin in March here, so that the leap day is the last of its year. An era has 400 years.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_827_696_000, "2000-02-29T12:34:56Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(time(ms), text);
        }
    }
}
