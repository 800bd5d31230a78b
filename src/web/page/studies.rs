//! The search page.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use askama::Template;
use hyper::Response;

use super::asking::{Asking, Part, ask};
use super::document::{Paging, grouped, html, page_number};
use super::entity::Entity;
use crate::model::attribute::AttributeId;
use crate::model::level::QueryRetrieveLevel;
use crate::qr::{FindError, encoded_uid};
use crate::web::body::Body;
use crate::web::http_state::{Call, HttpState};
use crate::web::problem::Problem;
use crate::web::query::{Scope, pairs};

/// Studies on a page.
const PER_PAGE: usize = 100;

/// The last page. The studies of all pages before are found again for each page, so the last one
/// costs a hundred times the first.
const LAST_PAGE: usize = 100;

/// Attributes that a row of the page shows.
const SHOWN: [AttributeId; 11] = [
    AttributeId::StudyDate,
    AttributeId::StudyTime,
    AttributeId::AccessionNumber,
    AttributeId::ModalitiesInStudy,
    AttributeId::StudyDescription,
    AttributeId::PatientName,
    AttributeId::PatientID,
    AttributeId::PatientBirthDate,
    AttributeId::StudyInstanceUID,
    AttributeId::NumberOfStudyRelatedSeries,
    AttributeId::NumberOfStudyRelatedInstances,
];

/// Modalities that the form suggests. Any other can be typed.
const SUGGESTED: [&str; 14] = ["CT", "MR", "US", "CR", "DX", "MG", "NM", "PT", "XA", "RF", "RTDOSE", "SR", "SC", "OT"];

/// Input of the search form.
#[derive(Clone, Debug, Default)]
struct Typed {
    text: String,
    from: String,
    to: String,
    modality: String,
    page: usize,
}

impl Typed {
    fn of(query: &str) -> Self {
        let mut typed = Self { page: 1, ..Self::default() };
        // A form writes a space as a plus sign, and a plus sign as %2B.
        for (name, value) in pairs(&query.replace('+', "%20")) {
            let value = value.trim().to_owned();
            match name.as_ref() {
                "q" => typed.text = value,
                "from" => typed.from = value,
                "to" => typed.to = value,
                "modality" => typed.modality = value,
                "page" => typed.page = page_number(&value, LAST_PAGE),
                _ => {}
            }
        }
        typed
    }

    /// The searches that find it: by words of a name, by a Patient ID, by an accession number.
    ///
    /// An index has no query for one of several attributes, so there is one for each. Fuzzy
    /// matching finds each name that begins with the text, and those with its words in another
    /// order.
    fn queries(&self) -> Vec<String> {
        let date = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
        let mut common = String::from("includefield=StudyDescription");
        let (from, to) = (date(&self.from), date(&self.to));
        if !from.is_empty() || !to.is_empty() {
            let _ = write!(common, "&StudyDate={from}-{to}");
        }
        if !self.modality.is_empty() {
            let _ = write!(common, "&ModalitiesInStudy={}", encoded_uid(&self.modality.to_uppercase()));
        }
        if self.text.is_empty() {
            return vec![common];
        }
        let text = encoded_uid(&self.text).replace("%2A", "*").replace("%3F", "?");
        let end = if self.text.contains(['*', '?']) { "" } else { "*" };
        vec![
            format!("{common}&PatientName={text}&fuzzymatching=true"),
            format!("{common}&PatientID={text}{end}"),
            format!("{common}&AccessionNumber={text}{end}"),
        ]
    }

    /// The address of another page of the same search.
    fn address(&self, page: usize) -> String {
        let mut address = String::from("/?");
        for (name, value) in [("q", &self.text), ("from", &self.from), ("to", &self.to), ("modality", &self.modality)] {
            if !value.is_empty() {
                let _ = write!(address, "{name}={}&", encoded_uid(value));
            }
        }
        let _ = write!(address, "page={page}");
        address
    }
}

/// The studies of a page, the newest first, and one more where there are more.
fn found(asking: &mut Asking<'_>, typed: &Typed) -> Result<Vec<Entity>, FindError> {
    let scope = Scope { level: QueryRetrieveLevel::Study, study: "", series: "" };
    let before = (typed.page - 1) * PER_PAGE;
    let queries = typed.queries();
    if let [query] = queries.as_slice() {
        return asking.search(&scope, query, Part { offset: before, limit: PER_PAGE + 1 }, &SHOWN);
    }
    let mut found: Vec<Entity> = Vec::new();
    let mut known = HashSet::new();
    for query in queries {
        for study in asking.search(&scope, &query, Part { offset: 0, limit: before + PER_PAGE + 1 }, &SHOWN)? {
            if known.insert(study.text(AttributeId::StudyInstanceUID).to_owned()) {
                found.push(study);
            }
        }
    }
    let moment = |study: &Entity| {
        [AttributeId::StudyDate, AttributeId::StudyTime].map(|attribute| study.text(attribute).to_owned())
    };
    found.sort_by_cached_key(|study| std::cmp::Reverse(moment(study)));
    Ok(found.into_iter().skip(before).take(PER_PAGE + 1).collect())
}

/// A row of the page.
struct StudyRow {
    address: String,
    name: String,
    id: String,
    born: String,
    date: String,
    modalities: String,
    description: String,
    accession: String,
    series: String,
    instances: String,
}

impl StudyRow {
    fn of(study: &Entity) -> Self {
        Self {
            address: format!("/study/{}", encoded_uid(study.text(AttributeId::StudyInstanceUID))),
            name: study.name(AttributeId::PatientName),
            id: study.shown(AttributeId::PatientID),
            born: study.date(AttributeId::PatientBirthDate),
            date: study.date(AttributeId::StudyDate),
            modalities: study.shown(AttributeId::ModalitiesInStudy),
            description: study.shown(AttributeId::StudyDescription),
            accession: study.shown(AttributeId::AccessionNumber),
            series: grouped(study.number(AttributeId::NumberOfStudyRelatedSeries)),
            instances: grouped(study.number(AttributeId::NumberOfStudyRelatedInstances)),
        }
    }
}

#[derive(Template)]
#[template(path = "studies.html")]
struct StudiesPage {
    typed: Typed,
    suggested: &'static [&'static str],
    count: String,
    rows: Vec<StudyRow>,
    paging: Paging,
}

impl StudiesPage {
    fn new(typed: Typed, found: &[Entity]) -> Self {
        let rows: Vec<_> = found.iter().take(PER_PAGE).map(StudyRow::of).collect();
        let has_more = found.len() > PER_PAGE;
        let is_last = has_more && typed.page == LAST_PAGE;
        let paging = Paging::new(typed.page, has_more && !is_last, |page| typed.address(page));
        let first = (typed.page - 1) * PER_PAGE;
        let count = match (rows.len(), first) {
            (0, 0) => "No study matches.".to_owned(),
            (0, _) => "There are no more studies.".to_owned(),
            (1, 0) => "1 study.".to_owned(),
            (count, 0) if !has_more => format!("{count} studies, the newest first."),
            (count, _) => {
                let (from, to) = (grouped(first as u64 + 1), grouped((first + count) as u64));
                let more = match (is_last, has_more) {
                    (true, _) => " There are more, but this is the last page: narrow the search.",
                    (false, true) => " There are more.",
                    (false, false) => "",
                };
                format!("Studies {from} to {to}, the newest first.{more}")
            }
        };
        Self { typed, suggested: &SUGGESTED, count, rows, paging }
    }
}

/// Answers with the search page.
pub(in crate::web) async fn answer(server: &Arc<HttpState>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let typed = Typed::of(call.query);
    let wanted = typed.clone();
    let found = ask(server, call, move |asking| found(asking, &wanted)).await?;
    html(&StudiesPage::new(typed, &found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_looked_for_as_name_id_and_accession_number() {
        let typed = Typed::of("q=M%C3%BCller+A%2BB&from=2024-01-31&to=&modality=ct");
        assert_eq!(typed.text, "Müller A+B");
        let queries = typed.queries();
        assert_eq!(queries.len(), 3);
        assert!(queries.iter().all(|query| query.contains("&StudyDate=20240131-&ModalitiesInStudy=CT")));
        assert!(queries[0].ends_with("&PatientName=M%C3%BCller%20A%2BB&fuzzymatching=true"), "{}", queries[0]);
        assert!(Typed::of("q=smi*th").queries()[1].ends_with("&PatientID=smi*th"));
        assert_eq!(Typed::of("q=%26limit%3D1").queries()[1], "includefield=StudyDescription&PatientID=%26limit%3D1*");
        assert_eq!(Typed::of("").queries(), ["includefield=StudyDescription"]);
    }

    #[test]
    fn another_page_is_of_the_same_search() {
        let typed = Typed::of("q=a%26b&modality=CT&page=2");
        assert_eq!((typed.page, typed.address(3).as_str()), (2, "/?q=a%26b&modality=CT&page=3"));
        assert_eq!(Typed::of(&typed.address(7)[2..]).text, "a&b");
        assert_eq!(Typed::of("page=100000").page, LAST_PAGE);
    }

    #[test]
    fn values_of_objects_are_text_and_nothing_else() {
        let evil = "\"><script>alert(1)</script>";
        let keys = Arc::new(SHOWN.to_vec());
        let study = Entity { keys, values: std::iter::repeat_n(evil, SHOWN.len()).collect() };
        let typed = Typed { text: evil.into(), from: evil.into(), to: evil.into(), modality: evil.into(), page: 1 };
        let page = StudiesPage::new(typed, &[study]).render().unwrap();
        assert!(!page.contains("<script>") && !page.contains(evil), "{page}");
        // Four fields of the form, and all of the row but two numbers, the time and the UID, which
        // is in a link.
        assert_eq!(page.matches("alert(1)").count(), 4 + 7, "{page}");
    }
}
