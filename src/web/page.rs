//! The page: search, a study, and what the index holds. It works without script, and loads nothing from elsewhere.
//!
//! Its searches are those of QIDO-RS, so that a name is found here as it is found there.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use hyper::Response;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use tokio::task::spawn_blocking;

use super::body::Body;
use super::call::{Answering, Call};
use super::problem::Problem;
use super::query::{Scope, Search, pairs};
use super::search::Watch;
use crate::db::Admin as _;
use crate::db::open::Reader;
use crate::model::attribute::AttributeId;
use crate::model::level::QueryRetrieveLevel;
use crate::qr::{self, FindError, encoded_uid};

/// Studies on the page at most.
const SHOWN: usize = 100;

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

const POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self' blob:; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The style sheet.
pub(super) fn style() -> Response<Body> {
    asset(STYLE, "text/css; charset=utf-8")
}

/// The script.
pub(super) fn script() -> Response<Body> {
    asset(SCRIPT, "text/javascript; charset=utf-8")
}

fn asset(text: &'static str, media_type: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Text that HTML shows as it is, whatever an object has in a value.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn html(title: &str, body: &str) -> Response<Body> {
    let text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
         <link rel=\"stylesheet\" href=\"/page.css\">\n<script src=\"/page.js\" defer></script>\n</head>\n<body>\n\
         <header><h1><a href=\"/\">dcmdex</a></h1><nav><a href=\"/\">Studies</a> · <a href=\"/status\">Index</a></nav></header>\n\
         <main>\n{body}</main>\n</body>\n</html>\n",
        escaped(title)
    );
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// One entity of an answer, by attribute.
struct Row {
    keys: Arc<Vec<AttributeId>>,
    values: Vec<String>,
}

impl Row {
    fn text(&self, id: AttributeId) -> &str {
        let at = self.keys.iter().position(|key| *key == id);
        at.and_then(|at| self.values.get(at)).map_or("", String::as_str)
    }

    fn shown(&self, id: AttributeId) -> String {
        escaped(&self.text(id).replace('\\', ", "))
    }

    /// A name as people write it: the component groups one after the other, carets as spaces.
    fn name(&self, id: AttributeId) -> String {
        let groups =
            self.text(id).split('=').map(|group| group.split('^').collect::<Vec<_>>().join(" ").trim().to_owned());
        escaped(&groups.filter(|group| !group.is_empty()).collect::<Vec<_>>().join(" · "))
    }

    /// A date as in 2024-01-31.
    fn date(&self) -> String {
        let text = self.text(AttributeId::StudyDate);
        match (text.get(..4), text.get(4..6), text.get(6..8)) {
            (Some(year), Some(month), Some(day)) if text.len() == 8 => escaped(&format!("{year}-{month}-{day}")),
            _ => escaped(text),
        }
    }
}

/// The first rows of a search of QIDO-RS.
fn rows(
    reader: &mut Reader,
    answering: &Answering,
    scope: &Scope<'_>,
    query: &str,
    most: usize,
) -> Result<Vec<Row>, FindError> {
    // What nobody can mean finds nothing.
    let Ok(mut search) = Search::parse(scope, query, &answering.options.query) else { return Ok(Vec::new()) };
    search.query.request.limit = Some(most as u64);
    let keys = Arc::new(search.query.request.return_keys.iter().map(|key| key.attribute).collect::<Vec<_>>());
    let watch = Watch::start(answering.options.query_time_limit, std::future::pending());
    let mut found = Vec::new();
    qr::run(reader, &search.query, watch.begin(reader), |answer| {
        found.push(Row { keys: Arc::clone(&keys), values: answer.values });
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// What is typed into the form.
#[derive(Clone, Debug, Default)]
struct Typed {
    text: String,
    from: String,
    to: String,
    modality: String,
}

impl Typed {
    fn of(query: &str) -> Self {
        let mut typed = Self::default();
        for (name, value) in pairs(query) {
            // Forms write a space as a plus sign, and a plus sign percent-encoded: it is decoded already.
            let raw = value.into_owned();
            match name.as_ref() {
                "q" => typed.text = raw,
                "from" => typed.from = raw,
                "to" => typed.to = raw,
                "modality" => typed.modality = raw,
                _ => {}
            }
        }
        typed.text = typed.text.replace('+', " ").trim().to_owned();
        typed
    }

    /// The searches that it stands for: by the beginning of each word of a name, by an ID, by an accession number.
    fn queries(&self) -> Vec<String> {
        let date = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
        let mut common = String::from("includefield=StudyDescription");
        let (from, to) = (date(&self.from), date(&self.to));
        if !from.is_empty() || !to.is_empty() {
            let _ = write!(common, "&StudyDate={from}-{to}");
        }
        if !self.modality.is_empty() {
            let _ = write!(common, "&ModalitiesInStudy={}", encoded_uid(&self.modality));
        }
        if self.text.is_empty() {
            return vec![common];
        }
        // Wild cards are for those who know them; who types a name means its beginning, and its words in any order.
        let text = encoded_uid(&self.text);
        let end = if self.text.contains(['*', '?']) { "" } else { "*" };
        let text = text.replace("%2A", "*").replace("%3F", "?");
        vec![
            format!("{common}&PatientName={text}{end}"),
            format!("{common}&PatientName={text}&fuzzymatching=true"),
            format!("{common}&PatientID={text}{end}"),
            format!("{common}&AccessionNumber={text}{end}"),
        ]
    }
}

/// Runs a question to the index on a thread that may wait.
async fn ask<T: Send + 'static>(
    answering: &Arc<Answering>,
    call: &Call<'_>,
    question: impl FnOnce(&mut Reader, &Answering) -> Result<T, FindError> + Send + 'static,
) -> Result<T, Problem> {
    let turn = answering.turn(&call.peer).await?;
    let answering = Arc::clone(answering);
    let asked = spawn_blocking(move || {
        let _until_its_end = turn;
        let mut reader = answering.readers.take()?;
        let answer = question(&mut reader, &answering)?;
        answering.readers.give_back(reader);
        Ok::<T, FindError>(answer)
    });
    Ok(asked.await.map_err(|_| Problem::ours())??)
}

/// The search page.
pub(super) async fn search(answering: &Arc<Answering>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let typed = Typed::of(call.query);
    let wanted = typed.clone();
    let found = ask(answering, call, move |reader, answering| {
        let scope = Scope { level: QueryRetrieveLevel::Study, study: "", series: "" };
        let mut found: Vec<Row> = Vec::new();
        for query in wanted.queries() {
            for row in rows(reader, answering, &scope, &query, SHOWN + 1)? {
                let uid = row.text(AttributeId::StudyInstanceUID);
                if !found.iter().any(|known| known.text(AttributeId::StudyInstanceUID) == uid) {
                    found.push(row);
                }
            }
        }
        let moment = |row: &Row| {
            let text = |id| row.text(id).to_owned();
            (text(AttributeId::StudyDate), text(AttributeId::StudyTime))
        };
        found.sort_by_key(|row| std::cmp::Reverse(moment(row)));
        Ok(found)
    })
    .await?;
    let mut body = form(&typed);
    body.push_str("<section id=\"results\" aria-live=\"polite\">\n");
    studies(&mut body, &found);
    body.push_str("</section>\n");
    Ok(html("Studies – dcmdex", &body))
}

fn form(typed: &Typed) -> String {
    let Typed { text, from, to, modality } = typed;
    format!(
        "<form role=\"search\" action=\"/\" method=\"get\">\n\
         <label>Name, ID or accession number<input type=\"search\" name=\"q\" value=\"{}\" autofocus autocomplete=\"off\"></label>\n\
         <label>From<input type=\"date\" name=\"from\" value=\"{}\"></label>\n\
         <label>To<input type=\"date\" name=\"to\" value=\"{}\"></label>\n\
         <label>Modality<input name=\"modality\" value=\"{}\" size=\"4\" autocomplete=\"off\"></label>\n\
         <button>Search</button>\n</form>\n",
        escaped(text),
        escaped(from),
        escaped(to),
        escaped(modality)
    )
}

fn studies(out: &mut String, found: &[Row]) {
    if found.is_empty() {
        out.push_str("<p>No study matches.</p>\n");
        return;
    }
    let count = found.len().min(SHOWN);
    let more = if found.len() > SHOWN { " There are more: narrow the search." } else { "" };
    let _ = writeln!(out, "<p class=\"note\">{count} studies, the newest first.{more}</p>");
    out.push_str(
        "<div class=\"scroll\"><table>\n<thead><tr><th>Name</th><th>ID</th><th>Born</th><th>Date</th><th>Modality</th>\
         <th>Description</th><th>Accession</th><th>Series</th><th>Instances</th></tr></thead>\n<tbody>\n",
    );
    for row in found.iter().take(SHOWN) {
        let name = row.name(AttributeId::PatientName);
        let _ = writeln!(
            out,
            "<tr><td><a class=\"main\" href=\"/study/{}\">{}</a></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td class=\"wide\">{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            encoded_uid(row.text(AttributeId::StudyInstanceUID)),
            if name.is_empty() { "(no name)".to_owned() } else { name },
            row.shown(AttributeId::PatientID),
            row.shown(AttributeId::PatientBirthDate),
            row.date(),
            row.shown(AttributeId::ModalitiesInStudy),
            row.shown(AttributeId::StudyDescription),
            row.shown(AttributeId::AccessionNumber),
            row.shown(AttributeId::NumberOfStudyRelatedSeries),
            row.shown(AttributeId::NumberOfStudyRelatedInstances),
        );
    }
    out.push_str("</tbody>\n</table></div>\n");
}

/// The page of a study: from the index alone.
pub(super) async fn study(answering: &Arc<Answering>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let path = call.route.parameter("study").to_owned();
    let (found, series) = ask(answering, call, move |reader, answering| {
        let series = Scope { level: QueryRetrieveLevel::Series, study: &path, series: "" };
        let study = Scope { level: QueryRetrieveLevel::Study, study: &path, series: "" };
        Ok((
            rows(reader, answering, &study, "includefield=StudyDescription", 1)?,
            rows(reader, answering, &series, "includefield=BodyPartExamined", 10_000)?,
        ))
    })
    .await?;
    let study = found.first().ok_or_else(|| Problem::not_found("the index knows no such study"))?;
    let uid = encoded_uid(study.text(AttributeId::StudyInstanceUID));
    let mut body = format!("<h2>{}</h2>\n<dl>\n", study.name(AttributeId::PatientName));
    for (label, value) in [
        ("Patient ID", study.shown(AttributeId::PatientID)),
        ("Born", study.shown(AttributeId::PatientBirthDate)),
        ("Sex", study.shown(AttributeId::PatientSex)),
        ("Study date", study.date()),
        ("Description", study.shown(AttributeId::StudyDescription)),
        ("Accession number", study.shown(AttributeId::AccessionNumber)),
        ("Referring physician", study.name(AttributeId::ReferringPhysicianName)),
        ("Availability", study.shown(AttributeId::InstanceAvailability)),
    ] {
        if !value.is_empty() {
            let _ = writeln!(body, "<dt>{label}</dt><dd>{value}</dd>");
        }
    }
    body.push_str("</dl>\n<p>");
    if answering.ohif.is_some() {
        let _ = write!(body, "<a class=\"main\" href=\"/ohif/viewer?StudyInstanceUIDs={uid}\">Open in OHIF</a> · ");
    }
    let _ = write!(body, "<a href=\"/dicom-web/studies/{uid}/metadata\">Metadata</a> · ");
    let _ = writeln!(body, "<a href=\"/dicom-web/studies/{uid}\" download>Download (multipart)</a></p>");
    body.push_str(
        "<div class=\"scroll\"><table>\n<thead><tr><th>Number</th><th>Modality</th><th>Description</th><th>Body part</th>\
         <th>Instances</th><th>Metadata</th></tr></thead>\n<tbody>\n",
    );
    for row in &series {
        let _ = writeln!(
            body,
            "<tr><td>{}</td><td>{}</td><td class=\"wide\">{}</td><td>{}</td><td>{}</td>\
             <td><a class=\"main\" href=\"/dicom-web/studies/{uid}/series/{}/metadata\">JSON</a></td></tr>",
            row.shown(AttributeId::SeriesNumber),
            row.shown(AttributeId::Modality),
            row.shown(AttributeId::SeriesDescription),
            row.shown(AttributeId::BodyPartExamined),
            row.shown(AttributeId::NumberOfSeriesRelatedInstances),
            encoded_uid(row.text(AttributeId::SeriesInstanceUID)),
        );
    }
    body.push_str("</tbody>\n</table></div>\n");
    Ok(html("Study – dcmdex", &body))
}

/// What the index holds, and what it could not take.
pub(super) async fn status(answering: &Arc<Answering>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let status = ask(answering, call, |reader, _| reader.status().map_err(FindError::Index)).await?;
    let mut body = String::from("<h2>Index</h2>\n<dl>\n");
    for (label, count) in [
        ("Patients", status.patients),
        ("Studies", status.studies),
        ("Series", status.series),
        ("Instances", status.instances),
        ("Further copies", status.copies),
        ("Files that are gone", status.missing),
        ("Metadata only", status.metadata_only),
        ("Files with faults", status.files_with_faults),
        ("Size in bytes", status.size_bytes),
    ] {
        let _ = writeln!(body, "<dt>{label}</dt><dd>{count}</dd>");
    }
    body.push_str("</dl>\n");
    for (title, counts) in [
        ("Files that could not be read", &status.failed),
        ("Files that are no objects", &status.skipped),
        ("Conflicts", &status.conflicts),
    ] {
        let _ = writeln!(body, "<h2>{title}</h2>");
        if counts.is_empty() {
            body.push_str("<p class=\"note\">None.</p>\n");
            continue;
        }
        body.push_str("<dl>\n");
        for (reason, count) in counts {
            let _ = writeln!(body, "<dt>{}</dt><dd>{count}</dd>", escaped(reason));
        }
        body.push_str("</dl>\n");
    }
    body.push_str(
        "<p class=\"note\">The paths of files stay out of this page, because they often hold names. \
         <code>dcmdex status --failures</code> on the machine of the node lists them.</p>\n",
    );
    Ok(html("Index – dcmdex", &body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_objects_are_text_and_nothing_else() {
        assert_eq!(escaped("<b>\"A&B'\u{7}"), "&lt;b&gt;&quot;A&amp;B&#39; ");
        assert!(form(&Typed { text: "\"><script>".into(), ..Typed::default() }).contains("&quot;&gt;&lt;script&gt;"));
    }

    #[test]
    fn what_is_typed_is_looked_for_as_name_id_and_accession_number() {
        let typed = Typed::of("q=M%C3%BCller+A&from=2024-01-31&to=&modality=CT");
        assert_eq!(typed.text, "Müller A");
        let queries = typed.queries();
        assert_eq!(queries.len(), 4);
        assert!(queries.iter().all(|query| query.contains("&StudyDate=20240131-&ModalitiesInStudy=CT")));
        assert!(queries[0].ends_with("&PatientName=M%C3%BCller%20A*"), "{}", queries[0]);
        assert!(Typed::of("q=smi*th").queries()[2].ends_with("&PatientID=smi*th"));
        assert_eq!(Typed::of("q=%26limit%3D1").queries()[2], "includefield=StudyDescription&PatientID=%26limit%3D1*");
        assert_eq!(Typed::of("").queries(), ["includefield=StudyDescription"]);
    }
}
