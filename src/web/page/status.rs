//! The state of the index: counts, scans, and lists of what could not be indexed or contradicts
//! itself.
//!
//! The lists come from the index alone. No file of the host is opened.

use std::ops::ControlFlow;
use std::sync::Arc;

use askama::Template;
use hyper::Response;
use serde_json::Value;

use super::asking::ask;
use super::document::{Paging, grouped, html, page_number, readable};
use crate::db::{Admin as _, ConflictEntry, FailureEntry, IndexStatus, ScanEntry};
use crate::model::calendar::moment_text;
use crate::qr::{FindError, encoded_uid};
use crate::web::body::Body;
use crate::web::http_state::{Call, HttpState};
use crate::web::problem::Problem;
use crate::web::query::pairs;

/// Entries on a page of a list.
const PER_PAGE: usize = 100;

/// The last page of a list. The entries of the pages before are read and passed over.
const LAST_PAGE: usize = 10_000;

/// Results of a scan, as its page shows them.
struct ScanRow {
    started: String,
    state: String,
    paths: String,
    found: String,
    indexed: String,
    failed: String,
}

impl ScanRow {
    fn of(scan: &ScanEntry) -> Self {
        let paths: Vec<String> = serde_json::from_str(&scan.roots).unwrap_or_default();
        let summary: Value =
            scan.summary.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let number = |key: &str| summary.get(key).and_then(Value::as_u64).map(grouped).unwrap_or_default();
        let state = match scan.finished_ms {
            // The index cannot tell a scan that runs from one that was killed.
            None => "not finished".to_owned(),
            Some(_) if summary.get("interrupted") == Some(&Value::Bool(true)) => "interrupted".to_owned(),
            Some(finished) => format!("took {}", duration(finished - scan.started_ms)),
        };
        Self {
            started: moment_text(scan.started_ms),
            state,
            paths: readable(&paths.join(" ")),
            found: number("found"),
            indexed: number("indexed"),
            failed: number("failed"),
        }
    }
}

fn duration(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[derive(Template)]
#[template(path = "status.html")]
struct StatusPage {
    counts: Vec<(&'static str, String)>,
    scans: Vec<ScanRow>,
    failed: Vec<(String, String)>,
    skipped: Vec<(String, String)>,
    conflicts: Vec<(String, String)>,
}

impl StatusPage {
    fn new(status: &IndexStatus) -> Self {
        let counts = [
            ("Patients", status.patients),
            ("Studies", status.studies),
            ("Series", status.series),
            ("Instances", status.instances),
            ("Further copies", status.copies),
            ("Files that are gone", status.missing),
            ("Metadata only", status.metadata_only),
            ("Files with faults", status.files_with_faults),
            ("Size in bytes", status.size_bytes),
        ];
        let words = |words: &[(String, u64)]| {
            words.iter().map(|(word, count)| (readable(word), grouped(*count))).collect::<Vec<_>>()
        };
        Self {
            counts: counts.into_iter().map(|(label, count)| (label, grouped(count))).collect(),
            scans: status.scans.iter().map(ScanRow::of).collect(),
            failed: words(&status.failed),
            skipped: words(&status.skipped),
            conflicts: words(&status.conflicts),
        }
    }
}

/// Answers with counts and scans.
pub(in crate::web) async fn answer(server: &Arc<HttpState>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let status = ask(server, call, |asking| asking.reader.status().map_err(FindError::Index)).await?;
    html(&StatusPage::new(&status))
}

/// The entries of one page of a list, gathered while the index gives all in their order.
struct Gathering<T> {
    to_pass: usize,
    entries: Vec<T>,
}

impl<T> Gathering<T> {
    fn new(page: usize) -> Self {
        Self { to_pass: (page - 1) * PER_PAGE, entries: Vec::new() }
    }

    /// Takes an entry. One more than a page shows tells that there is another page.
    fn take(&mut self, entry: T) -> ControlFlow<()> {
        if self.to_pass > 0 {
            self.to_pass -= 1;
            return ControlFlow::Continue(());
        }
        self.entries.push(entry);
        if self.entries.len() > PER_PAGE { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn paging(&self, page: usize, path: &str) -> Paging {
        Paging::new(page, self.entries.len() > PER_PAGE && page < LAST_PAGE, |page| format!("{path}?page={page}"))
    }
}

fn page_of(call: &Call<'_>) -> usize {
    let number = pairs(call.query).find(|(name, _)| name == "page").map(|(_, value)| value.into_owned());
    page_number(&number.unwrap_or_default(), LAST_PAGE)
}

struct FailureRow {
    path: String,
    reason: String,
    detail: String,
}

impl FailureRow {
    fn of(failure: &FailureEntry) -> Self {
        Self { path: as_text(&failure.path), reason: readable(&failure.reason), detail: readable(&failure.detail) }
    }
}

/// A path as text. A backslash in it stays one.
fn as_text(path: &std::path::Path) -> String {
    path.to_string_lossy().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[derive(Template)]
#[template(path = "failures.html")]
struct FailuresPage {
    rows: Vec<FailureRow>,
    paging: Paging,
}

/// Answers with a page of the files that could not be read.
pub(in crate::web) async fn failures(server: &Arc<HttpState>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let page = page_of(call);
    let gathered = ask(server, call, move |asking| {
        let mut gathering = Gathering::new(page);
        asking.reader.failures(|failure| gathering.take(failure)).map_err(FindError::Index)?;
        Ok(gathering)
    });
    let gathered = gathered.await?;
    let rows = gathered.entries.iter().take(PER_PAGE).map(FailureRow::of).collect();
    html(&FailuresPage { rows, paging: gathered.paging(page, "/status/failures") })
}

struct ConflictRow {
    kind: &'static str,
    study: String,
    study_address: String,
    other_study: String,
    other_address: String,
    instance: String,
    path: String,
}

impl ConflictRow {
    fn of(conflict: &ConflictEntry) -> Self {
        let address = |uid: &str| match uid {
            "" => String::new(),
            uid => format!("/study/{}", encoded_uid(uid)),
        };
        Self {
            kind: meaning(&conflict.kind),
            study: readable(&conflict.study_instance_uid),
            study_address: address(&conflict.study_instance_uid),
            other_study: readable(&conflict.other_study_instance_uid),
            other_address: address(&conflict.other_study_instance_uid),
            instance: readable(&conflict.sop_instance_uid),
            path: as_text(&conflict.path),
        }
    }
}

/// Returns the meaning of a kind of conflict.
fn meaning(kind: &str) -> &'static str {
    match kind {
        "study-under-two-patients" => "One study is of two patients",
        "series-under-two-studies" => "One series is in two studies",
        "patient-id-of-two-people" => "Two people have one Patient ID",
        "instance-with-other-content" => "Two objects with different content have one SOP Instance UID",
        "invalid-uid" => "A UID is not valid",
        _ => "Another conflict",
    }
}

#[derive(Template)]
#[template(path = "conflicts.html")]
struct ConflictsPage {
    rows: Vec<ConflictRow>,
    paging: Paging,
}

/// Answers with a page of the contradictions in the archive.
pub(in crate::web) async fn conflicts(server: &Arc<HttpState>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let page = page_of(call);
    let gathered = ask(server, call, move |asking| {
        let mut gathering = Gathering::new(page);
        asking.reader.conflicts(|conflict| gathering.take(conflict)).map_err(FindError::Index)?;
        Ok(gathering)
    });
    let gathered = gathered.await?;
    let rows = gathered.entries.iter().take(PER_PAGE).map(ConflictRow::of).collect();
    html(&ConflictsPage { rows, paging: gathered.paging(page, "/status/conflicts") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_gives_its_page_and_knows_whether_there_is_another() {
        let gather = |page: usize, count: usize| {
            let mut gathering = Gathering::new(page);
            let taken = (0..count).take_while(|number| gathering.take(*number).is_continue()).count();
            (gathering.entries.first().copied(), gathering.paging(page, "/x").after, taken)
        };
        assert_eq!(gather(1, 100), (Some(0), String::new(), 100));
        assert_eq!(gather(1, 5000), (Some(0), "/x?page=2".to_owned(), 100));
        assert_eq!(gather(2, 150), (Some(100), String::new(), 150));
        assert_eq!(gather(3, 150).0, None);
    }

    #[test]
    fn durations_are_read_at_a_glance() {
        assert_eq!([-5, 59_999, 61_000, 7_260_000].map(duration), ["0 s", "59 s", "1 min 1 s", "2 h 1 min"]);
    }

    #[test]
    fn a_scan_without_an_end_is_not_finished() {
        let scan =
            ScanEntry { scan: 1, started_ms: 0, finished_ms: None, roots: "[\"/a\",\"/b\"]".into(), summary: None };
        let row = ScanRow::of(&scan);
        assert_eq!((row.state.as_str(), row.paths.as_str(), row.found.as_str()), ("not finished", "/a /b", ""));
    }
}
