//! The page of a report: one HTML file without script and without anything from elsewhere.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write as _};
use std::path::Path;

use super::totals::ReportTotals;
use crate::cli::output::Grouped;
use crate::db::{IndexStatus, StudyProblem, StudyReport};
use crate::export::destination::TableDestination;
use crate::files::{nameless_file, parent_of};
use crate::model::calendar::moment_text;
use crate::model::clock::Clock;

/// Width of the pictures.
const WIDTH: u64 = 760;

/// Height of a bar with its gap.
const BAR: u64 = 24;

/// Years that the picture of years shows. Older ones are in the first bar.
const SHOWN_YEARS: usize = 40;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#1b1f24;background:#fff}\
h1{font-size:1.6rem;margin-bottom:0}h2{font-size:1.15rem;margin-top:2.2rem}.muted{color:#59636e}\
.totals{display:flex;flex-wrap:wrap;gap:1rem;margin:1.4rem 0}.totals div{border:1px solid #d1d9e0;border-radius:8px;padding:.7rem 1.1rem}\
.totals b{display:block;font-size:1.5rem;font-variant-numeric:tabular-nums}\
table{border-collapse:collapse;width:100%;font-size:13px}th,td{text-align:left;padding:.35rem .5rem;border-bottom:1px solid #e4e8ec;vertical-align:top}\
th{position:sticky;top:0;background:#f6f8fa}td.n{text-align:right;font-variant-numeric:tabular-nums}td.uid{font-size:11px;word-break:break-all;color:#59636e}\
td span{display:inline-block;background:#fff1e5;border-radius:4px;padding:0 .4rem;margin:0 .2rem .2rem 0;white-space:nowrap}td span.grave{background:#ffebe9}\
svg text{font:12px system-ui,sans-serif;fill:currentColor}.bar{fill:#0969da}.part{fill:#cf222e}.all{fill:#afb8c1}\
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}.muted,td.uid{color:#9198a1}th{background:#161b22}\
th,td,.totals div{border-color:#30363d}td span{background:#3d2a12}td span.grave{background:#4c1a1d}.all{fill:#484f58}}\
@media print{th{position:static}tr{break-inside:avoid}body{margin:0}}";

/// A page that is being written. Its rows wait in a file without a name, because the totals stand
/// above them.
pub(super) struct ReportPage {
    destination: TableDestination<'static>,
    rows: BufWriter<File>,
}

impl ReportPage {
    pub(super) fn begin(path: &Path) -> anyhow::Result<Self> {
        let destination = TableDestination::file(path)?;
        let rows = BufWriter::with_capacity(256 * 1024, nameless_file(parent_of(path))?);
        Ok(Self { destination, rows })
    }

    /// Adds a study.
    pub(super) fn row(&mut self, study: &StudyReport) -> io::Result<()> {
        let mut line = String::with_capacity(512);
        line.push_str("<tr>");
        for text in
            [&study.study_date, &study.patient_id, &study.patient_name, &study.accession_number, &study.modalities]
        {
            let _ = write!(line, "<td>{}</td>", Html(&text.replace('\\', ", ")));
        }
        let _ = write!(line, "<td>{}</td>", Html(&study.study_description));
        let _ = write!(line, "<td class=n>{}</td><td>", Grouped(study.instances));
        for (problem, count) in &study.problems {
            let class = if is_grave(*problem) { " class=grave" } else { "" };
            let _ = write!(line, "<span{class}>{}", problem.as_str());
            if *count > 1 {
                let _ = write!(line, " × {}", Grouped(*count));
            }
            line.push_str("</span>");
        }
        let _ = writeln!(line, "</td><td class=uid>{}</td></tr>", Html(&study.study_instance_uid));
        self.rows.write_all(line.as_bytes())
    }

    /// Writes the totals, the pictures and the rows, and gives the page its name.
    pub(super) fn finish(mut self, totals: &ReportTotals, status: &IndexStatus) -> anyhow::Result<()> {
        self.destination.write(head(totals, status).as_bytes())?;
        self.rows.flush()?;
        let mut rows = self.rows.into_inner().map_err(io::IntoInnerError::into_error)?;
        rows.rewind()?;
        io::copy(&mut rows, &mut self.destination)?;
        self.destination.write(b"</tbody></table>\n</body></html>\n")?;
        Ok(self.destination.finish()?)
    }
}

/// Problems that may lead to the wrong patient or the wrong image.
const fn is_grave(problem: StudyProblem) -> bool {
    matches!(
        problem,
        StudyProblem::OtherContent
            | StudyProblem::SeveralPatients
            | StudyProblem::TwoPeople
            | StudyProblem::SeriesInTwoStudies
            | StudyProblem::NoPatientId
            | StudyProblem::Truncated
            | StudyProblem::Missing
            | StudyProblem::ListedAndMissing
    )
}

fn head(totals: &ReportTotals, status: &IndexStatus) -> String {
    let mut page = String::new();
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>Archive report</title><style>{STYLE}</style></head><body>\n\
         <h1>Archive report</h1><p class=muted>{} by dcmdex {}, change {}</p>\n<div class=totals>",
        moment_text(Clock::System.now_ms()),
        env!("CARGO_PKG_VERSION"),
        status.last_change
    );
    let failed: u64 = status.failed.iter().map(|(_, count)| count).sum();
    for (count, what) in [
        (totals.with_problems, "studies need work"),
        (totals.studies, "studies"),
        (status.patients, "patients"),
        (status.series, "series"),
        (totals.instances, "instances"),
        (failed, "files could not be read"),
        (status.missing, "files are missing"),
        (status.copies, "further copies"),
    ] {
        let _ = write!(page, "<div><b>{}</b>{what}</div>", Grouped(count));
    }
    page.push_str("</div>\n<h2>Studies by problem</h2>\n");
    problems_picture(&mut page, totals);
    page.push_str("<h2>Studies by year, and those that need work</h2>\n");
    years_picture(&mut page, totals);
    if !status.failed.is_empty() {
        page.push_str("<h2>Files that could not be read</h2>\n<table><tbody>");
        for (reason, count) in &status.failed {
            let _ = write!(page, "<tr><td>{}</td><td class=n>{}</td></tr>", Html(reason), Grouped(*count));
        }
        page.push_str("</tbody></table>\n");
    }
    page.push_str(
        "<h2>Studies that need work</h2>\n<table><thead><tr><th>Date<th>Patient ID<th>Name<th>Accession<th>Modalities\
         <th>Description<th>Instances<th>Problems<th>Study Instance UID</tr></thead><tbody>\n",
    );
    page
}

fn problems_picture(page: &mut String, totals: &ReportTotals) {
    let most = totals.by_problem.values().map(|(studies, _)| *studies).max().unwrap_or(0).max(1);
    let height = BAR * totals.by_problem.len() as u64 + 4;
    let _ = write!(
        page,
        "<svg width={WIDTH} height={height} viewBox=\"0 0 {WIDTH} {height}\" role=img aria-label=\"Studies by problem\">"
    );
    for (line, (problem, (studies, _))) in totals.by_problem.iter().enumerate() {
        let y = BAR * line as u64;
        let width = (studies * (WIDTH - 330) / most).max(1);
        let class = if is_grave(*problem) { "part" } else { "bar" };
        let _ = write!(
            page,
            "<text x=0 y={}>{}</text><rect class={class} x=230 y={y} width={width} height=16 rx=2 /><text x={} y={}>{}</text>",
            y + 13,
            problem.as_str(),
            236 + width,
            y + 13,
            Grouped(*studies)
        );
    }
    page.push_str("</svg>\n");
}

fn years_picture(page: &mut String, totals: &ReportTotals) {
    let skipped = totals.by_year.len().saturating_sub(SHOWN_YEARS);
    let mut years: Vec<(String, (u64, u64))> = Vec::new();
    for (at, (year, (all, part))) in totals.by_year.iter().enumerate() {
        match years.first_mut() {
            Some((first, sums)) if at <= skipped && skipped > 0 => {
                *first = format!("–{year}");
                *sums = (sums.0 + all, sums.1 + part);
            }
            _ => years.push((year.clone(), (*all, *part))),
        }
    }
    let most = years.iter().map(|(_, (all, _))| *all).max().unwrap_or(0).max(1);
    let height = BAR * years.len() as u64 + 4;
    let _ = write!(
        page,
        "<svg width={WIDTH} height={height} viewBox=\"0 0 {WIDTH} {height}\" role=img aria-label=\"Studies by year\">"
    );
    for (line, (year, (all, part))) in years.iter().enumerate() {
        let y = BAR * line as u64;
        let width = |count: u64| if count == 0 { 0 } else { (count * (WIDTH - 220) / most).max(1) };
        let _ = write!(
            page,
            "<text x=0 y={}>{}</text><rect class=all x=60 y={y} width={} height=16 rx=2 /><rect class=part x=60 y={y} width={} height=16 rx=2 />\
             <text x={} y={}>{} / {}</text>",
            y + 13,
            Html(year),
            width(*all),
            width(*part),
            66 + width(*all),
            y + 13,
            Grouped(*part),
            Grouped(*all)
        );
    }
    page.push_str("</svg>\n");
}

/// A text in HTML. Values of DICOM may hold anything.
struct Html<'t>(&'t str);

impl fmt::Display for Html<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Control characters have no place in HTML.
                letter if letter.is_control() => f.write_char('\u{fffd}')?,
                letter => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}
