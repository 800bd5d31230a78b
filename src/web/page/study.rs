//! The page of a study: its series with thumbnails, from the index alone.

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

/// Series on a page. Few studies have as many.
const PER_PAGE: usize = 200;

/// The last page. A study of more series is shown in part, and the page says so.
const LAST_PAGE: usize = 1_000;

const OF_STUDY: [AttributeId; 12] = [
    AttributeId::StudyDate,
    AttributeId::StudyTime,
    AttributeId::AccessionNumber,
    AttributeId::InstanceAvailability,
    AttributeId::ReferringPhysicianName,
    AttributeId::StudyDescription,
    AttributeId::PatientName,
    AttributeId::PatientID,
    AttributeId::PatientBirthDate,
    AttributeId::PatientSex,
    AttributeId::StudyInstanceUID,
    AttributeId::NumberOfStudyRelatedSeries,
];

const OF_SERIES: [AttributeId; 7] = [
    AttributeId::Modality,
    AttributeId::SeriesDescription,
    AttributeId::BodyPartExamined,
    AttributeId::InstanceAvailability,
    AttributeId::SeriesInstanceUID,
    AttributeId::SeriesNumber,
    AttributeId::NumberOfSeriesRelatedInstances,
];

/// Usual content of a modality (PS3.3 C.7.3.1.1.1), which chooses the icon where there is no
/// thumbnail. A modality that is not listed has images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StudyContent {
    Images,
    Document,
    Waveform,
    /// Contours, plans and other objects that refer to images.
    Shapes,
}

impl StudyContent {
    pub(super) fn of(modality: &str) -> Self {
        match modality {
            "SR" | "DOC" | "KO" | "PR" | "PLAN" | "RTRECORD" | "RTPLAN" => Self::Document,
            "ECG" | "EPS" | "HD" | "AU" | "RESP" | "EEG" | "EMG" | "EOG" => Self::Waveform,
            "RTSTRUCT" | "REG" | "FID" | "M3D" => Self::Shapes,
            _ => Self::Images,
        }
    }
}

/// A series in the list.
struct SeriesCard {
    address: String,
    /// The address of its thumbnail; empty where there can be none.
    thumbnail: String,
    content: StudyContent,
    title: String,
    details: String,
    is_at_hand: bool,
}

impl SeriesCard {
    fn of(study: &str, series: &Entity) -> Self {
        let uid = encoded_uid(series.text(AttributeId::SeriesInstanceUID));
        let content = StudyContent::of(series.text(AttributeId::Modality));
        let is_at_hand = series.is_at_hand();
        let thumbnail = if is_at_hand && content == StudyContent::Images {
            format!("/dicom-web/studies/{study}/series/{uid}/thumbnail")
        } else {
            String::new()
        };
        let count = series.number(AttributeId::NumberOfSeriesRelatedInstances);
        let instances = if count == 1 { "1 instance".to_owned() } else { format!("{} instances", grouped(count)) };
        let details = [series.shown(AttributeId::BodyPartExamined), instances];
        Self {
            address: format!("/study/{study}/series/{uid}"),
            thumbnail,
            content,
            title: title(series),
            details: details.into_iter().filter(|detail| !detail.is_empty()).collect::<Vec<_>>().join(" · "),
            is_at_hand,
        }
    }
}

/// Returns the title of a series: number, modality and description.
pub(super) fn title(series: &Entity) -> String {
    let parts = [AttributeId::SeriesNumber, AttributeId::Modality, AttributeId::SeriesDescription];
    let parts = parts.map(|attribute| series.shown(attribute));
    let title = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" · ");
    if title.is_empty() { "Series without a description".to_owned() } else { title }
}

/// The name of the patient of a study.
pub(super) fn patient(study: &Entity) -> String {
    let name = study.name(AttributeId::PatientName);
    if name.is_empty() { "(no name)".to_owned() } else { name }
}

#[derive(Template)]
#[template(path = "study.html")]
struct StudyPage {
    uid: String,
    patient: String,
    facts: Vec<(&'static str, String)>,
    is_at_hand: bool,
    has_ohif: bool,
    count: String,
    series: Vec<SeriesCard>,
    paging: Paging,
}

impl StudyPage {
    fn new(study: &Entity, series: &[Entity], page: usize, has_ohif: bool) -> Self {
        let uid = encoded_uid(study.text(AttributeId::StudyInstanceUID));
        let facts = [
            ("Patient ID", study.shown(AttributeId::PatientID)),
            ("Born", study.date(AttributeId::PatientBirthDate)),
            ("Sex", study.shown(AttributeId::PatientSex)),
            ("Study date", study.date(AttributeId::StudyDate)),
            ("Description", study.shown(AttributeId::StudyDescription)),
            ("Accession number", study.shown(AttributeId::AccessionNumber)),
            ("Referring physician", study.name(AttributeId::ReferringPhysicianName)),
        ];
        let count = study.number(AttributeId::NumberOfStudyRelatedSeries);
        let has_more = series.len() > PER_PAGE && page < LAST_PAGE;
        Self {
            patient: patient(study),
            facts: facts.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
            is_at_hand: study.is_at_hand(),
            has_ohif,
            count: if count == 1 { "1 series".to_owned() } else { format!("{} series", grouped(count)) },
            series: series.iter().take(PER_PAGE).map(|series| SeriesCard::of(&uid, series)).collect(),
            paging: Paging::new(page, has_more, |page| format!("/study/{uid}?page={page}")),
            uid,
        }
    }
}

/// The attributes of a study for a page; `None` where the index knows none.
pub(super) fn study_of(asking: &mut Asking<'_>, study: &str) -> Result<Option<Entity>, FindError> {
    let scope = Scope { level: QueryRetrieveLevel::Study, study, series: "" };
    let found = asking.search(&scope, "includefield=StudyDescription", Part { offset: 0, limit: 1 }, &OF_STUDY)?;
    Ok(found.into_iter().next())
}

/// Answers with the page of a study.
pub(in crate::web) async fn answer(server: &Arc<HttpState>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let uid = call.route.parameter("study").to_owned();
    let number = pairs(call.query).find(|(name, _)| name == "page").map(|(_, value)| value.into_owned());
    let page = page_number(&number.unwrap_or_default(), LAST_PAGE);
    let (study, series) = ask(server, call, move |asking| {
        let scope = Scope { level: QueryRetrieveLevel::Series, study: &uid, series: "" };
        let part = Part { offset: (page - 1) * PER_PAGE, limit: PER_PAGE + 1 };
        let study = study_of(asking, &uid)?;
        Ok((study, asking.search(&scope, "includefield=BodyPartExamined", part, &OF_SERIES)?))
    })
    .await?;
    let study = study.ok_or_else(|| Problem::not_found("the index knows no such study"))?;
    html(&StudyPage::new(&study, &series, page, server.ohif.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_icon_stands_for_what_has_no_image() {
        assert_eq!(StudyContent::of("CT"), StudyContent::Images);
        assert_eq!(StudyContent::of("SR"), StudyContent::Document);
        assert_eq!(StudyContent::of("ECG"), StudyContent::Waveform);
        assert_eq!(StudyContent::of("RTSTRUCT"), StudyContent::Shapes);
        // What nobody knows may have images.
        assert_eq!(StudyContent::of(""), StudyContent::Images);
    }
}
