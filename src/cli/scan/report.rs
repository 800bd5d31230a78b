//! The report of a scan on standard output, as text or as JSON.

use std::io;
use std::path::Path;
use std::time::Duration;

use indicatif::{HumanBytes, HumanDuration};
use serde_json::{Map, Value, json};

use crate::cli::output::{Grouped, Output, Shown, put_path};
use crate::db::postgres::PostgresAddress;
use crate::scanner::{Hang, NotPruned, Reasons, Roots, ScanEvent, Summary, to_milliseconds};

/// Instances that were indexed before an attribute was declared, and the estimated time to read
/// them again.
pub(super) struct Lacking {
    pub(super) instances: u64,
    /// Instances whose objects are not kept.
    pub(super) without_object: u64,
    /// Estimated from the rate of the last scan that read files.
    pub(super) seconds: Option<f64>,
}

/// The format of the report.
#[derive(Clone, Copy, Debug)]
pub(super) enum ReportFormat {
    Text,
    Json,
}

/// Files that have a line in a report for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FilesTold {
    None,
    Failed,
    All,
}

/// The report on standard output. If writing it fails, the scan goes on and the error is reported
/// at the end.
pub(super) struct Report<'a> {
    pub(super) format: ReportFormat,
    pub(super) output: &'a mut Output<io::StdoutLock<'static>>,
    pub(super) failure: Option<io::Error>,
    pub(super) files: FilesTold,
}

impl Report<'_> {
    pub(super) fn started(&mut self, roots: &Roots, index: &Path, dry_run: bool) {
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
                "index": PostgresAddress::without_roots(index).to_string_lossy(),
                "dry_run": dry_run,
                "paths": paths,
            }));
        }
    }

    /// Reports how many instances must be read again for declared attributes, and the estimated
    /// time.
    pub(super) fn lacking(&mut self, lacking: &Lacking, quiet: bool) {
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

    pub(super) fn event(&mut self, event: &ScanEvent<'_>) {
        match self.format {
            ReportFormat::Text => self.event_as_text(event),
            ReportFormat::Json => self.event_as_json(event),
        }
    }

    pub(super) fn event_as_text(&mut self, event: &ScanEvent<'_>) {
        match *event {
            ScanEvent::Failed { .. } | ScanEvent::Unlisted { .. } if self.files == FilesTold::None => {}
            ScanEvent::Failed { path, reason, detail } => {
                let more = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
                self.line(format_args!("failed: {}: {reason}{more}", Shown(path)));
            }
            ScanEvent::Skipped { path, reason, .. } if self.files == FilesTold::All => {
                self.line(format_args!("skipped: {}: {reason}", Shown(path)));
            }
            ScanEvent::Faults { path, faults } if self.files == FilesTold::All => {
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
            ScanEvent::Skipped { .. }
            | ScanEvent::Faults { .. }
            | ScanEvent::Pending { .. }
            | ScanEvent::Progress(_) => {}
        }
    }

    pub(super) fn event_as_json(&mut self, event: &ScanEvent<'_>) {
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
            ScanEvent::Pending { path } => put("pending", path),
            ScanEvent::Progress(_) => return,
        }
        self.line(Value::Object(object));
    }

    pub(super) fn progress(&mut self, summary: &Summary, expected: Option<u64>) {
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

    /// Tells of parts of a shared scan that nobody has scanned.
    pub(super) fn left_out(&mut self, parts: &[String]) {
        for part in parts {
            match self.format {
                ReportFormat::Json => self.line(json!({ "event": "left-out", "part": part })),
                ReportFormat::Text => self.line(format_args!(
                    "not scanned: {part}: this machine does not see it, or it is empty here, and no other one scans it"
                )),
            }
        }
    }

    pub(super) fn summary(&mut self, summary: &Summary) {
        match self.format {
            ReportFormat::Text => self.line(summary_text(summary)),
            ReportFormat::Json => {
                let mut object = Map::new();
                object.insert("event".into(), "summary".into());
                object.extend(summary.to_json());
                self.line(Value::Object(object));
            }
        }
    }

    pub(super) fn line(&mut self, line: impl std::fmt::Display) {
        if self.failure.is_none() {
            self.failure = self.output.line(line).err();
        }
    }

    /// Flushes the output so that readers see it.
    pub(super) fn flush(&mut self) {
        if self.failure.is_none() {
            self.failure = self.output.flush().err();
        }
    }
}

/// Total size of the files that the scan opened.
pub(super) fn bytes_text(summary: &Summary) -> String {
    match summary.bytes {
        0 => "none opened".to_owned(),
        bytes => format!("{} of files opened", HumanBytes(bytes)),
    }
}

/// Writes the summary for people.
pub(super) fn summary_text(summary: &Summary) -> String {
    let mut text = String::new();
    if summary.interrupted {
        text.push_str("interrupted; the next scan continues from here\n");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
    let rate = Grouped(summary.files_per_second() as u64);
    text.push_str(&format!(
        "found {} in {}{}, {} in {:.1} s ({rate} files/s){}",
        counted(summary.found, "file", "files"),
        counted(summary.directories, "directory", "directories"),
        match summary.archives {
            0 => String::new(),
            archives => format!(" and {}", counted(archives, "archive", "archives")),
        },
        bytes_text(summary),
        summary.elapsed.as_secs_f64(),
        if summary.dry_run { "; dry run, nothing was written" } else { "" },
    ));
    for (name, count, more) in summary_rows(summary) {
        let line = format!("\n  {name:<9} {:>13}  {more}", Grouped(count));
        text.push_str(line.trim_end_matches(' '));
    }
    if summary.pending > 0 {
        text.push_str(&format!("\n  pending   {:>13}  may still be written", Grouped(summary.pending)));
    }
    if summary.skipped_by_reason.iter().any(|(reason, _)| reason == "offline") {
        text.push_str("\nfiles that are offline lie on tape; --recall reads them and calls them back");
    }
    if !summary.dry_run && summary.failed + summary.conflicts + summary.copies > 0 {
        text.push_str(
            "\nmore: `dcmdex status` shows the counts of the index and of failed files; `dcmdex check` lists conflicts; the \
             view failed_files names failed files (docs/cookbook.md)",
        );
    }
    text
}

/// Returns the rows of the summary: name, count, and more about it.
fn summary_rows(summary: &Summary) -> [(&'static str, u64, String); 6] {
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
    [
        ("indexed", summary.indexed, indexed.join("; ")),
        ("updated", summary.updated, String::new()),
        ("unchanged", summary.unchanged, reread),
        ("removed", summary.removed, missing),
        ("skipped", summary.skipped, by_reason(&summary.skipped_by_reason)),
        ("failed", summary.failed, by_reason(&summary.failed_by_reason)),
    ]
}

/// A number with its noun.
fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", Grouped(number), if number == 1 { one } else { many })
}

/// Estimated time for the rest, at the rate so far. The last complete scan of the same paths gives
/// the number of files. `None` if there was no such scan, or this one has found more files.
pub(super) fn eta(summary: &Summary, expected: Option<u64>) -> Option<Duration> {
    let left = expected?.checked_sub(summary.found)?;
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    Duration::try_from_secs_f64(left as f64 / summary.files_per_second()).ok()
}
