//! The page of a series: its images, one at a time.
//!
//! The page shows one image of the `rendered` resource and has links to its neighbours. With script
//! it is a viewer of the whole stack.

use std::sync::Arc;

use askama::Template;
use hyper::Response;

use super::asking::{Part, ask};
use super::document::{grouped, html};
use super::entity::Entity;
use super::study::{StudyContent, patient, study_of, title};
use crate::model::attribute::AttributeId;
use crate::model::level::QueryRetrieveLevel;
use crate::qr::encoded_uid;
use crate::web::body::Body;
use crate::web::http_state::{Call, HttpState};
use crate::web::problem::Problem;
use crate::web::query::{Scope, pairs};

const OF_SERIES: [AttributeId; 6] = [
    AttributeId::Modality,
    AttributeId::SeriesDescription,
    AttributeId::InstanceAvailability,
    AttributeId::SeriesInstanceUID,
    AttributeId::SeriesNumber,
    AttributeId::NumberOfSeriesRelatedInstances,
];

const OF_INSTANCE: [AttributeId; 3] =
    [AttributeId::SOPInstanceUID, AttributeId::InstanceAvailability, AttributeId::NumberOfFrames];

/// Image that is shown, with its frame and window.
#[derive(Clone, Debug, Default, PartialEq)]
struct View {
    /// The place of the instance in the series, from 1.
    at: u64,
    /// The frame, from 1.
    frame: u64,
    /// Centre and width, as they were typed; empty where the window of the object is meant.
    window: (String, String),
}

impl View {
    fn of(query: &str) -> Self {
        let mut view = Self { at: 1, frame: 1, ..Self::default() };
        let whole = |value: &str| value.parse().unwrap_or(1).max(1);
        let number = |value: &str| {
            let number = value.parse::<f64>().ok().filter(|number| number.is_finite());
            number.map(|number| number.to_string()).unwrap_or_default()
        };
        for (name, value) in pairs(query) {
            match name.as_ref() {
                "at" => view.at = whole(&value),
                "frame" => view.frame = whole(&value),
                "center" => view.window.0 = number(&value),
                "width" => view.window.1 = number(&value),
                _ => {}
            }
        }
        view
    }

    /// The query of the `rendered` resource, with its question mark.
    fn rendering(&self) -> String {
        match &self.window {
            (center, width) if !center.is_empty() && !width.is_empty() => format!("?window={center},{width}"),
            _ => String::new(),
        }
    }

    /// The query of this page for another image.
    fn address(&self, at: u64, frame: u64) -> String {
        let (center, width) = &self.window;
        match self.rendering().is_empty() {
            true => format!("?at={at}&frame={frame}"),
            false => format!("?at={at}&frame={frame}&center={center}&width={width}"),
        }
    }
}

#[derive(Template)]
#[template(path = "series.html")]
struct SeriesPage {
    study: String,
    series: String,
    patient: String,
    title: String,
    /// Reason why there is no image; empty where there may be one.
    why_not: &'static str,
    view: View,
    count: u64,
    frames: u64,
    instances: String,
    /// The address of the instance; empty where there is none at this place.
    instance: String,
    image: String,
    position: String,
    before: String,
    after: String,
    has_ohif: bool,
    is_at_hand: bool,
}

impl SeriesPage {
    fn new(study: &Entity, series: &Entity, instance: Option<&Entity>, mut view: View, has_ohif: bool) -> Self {
        let count = series.number(AttributeId::NumberOfSeriesRelatedInstances).max(1);
        let frames = instance.map_or(1, |instance| instance.number(AttributeId::NumberOfFrames)).max(1);
        view.at = view.at.min(count);
        view.frame = view.frame.min(frames);
        let [study_uid, series_uid] =
            [(study, AttributeId::StudyInstanceUID), (series, AttributeId::SeriesInstanceUID)]
                .map(|(entity, attribute)| encoded_uid(entity.text(attribute)));
        let is_at_hand = instance.is_some_and(Entity::is_at_hand);
        let address = instance.map(|instance| {
            let uid = encoded_uid(instance.text(AttributeId::SOPInstanceUID));
            format!("/dicom-web/studies/{study_uid}/series/{series_uid}/instances/{uid}")
        });
        let address = address.unwrap_or_default();
        let (at, frame) = (view.at, view.frame);
        let before = match (at, frame) {
            (_, 2..) => view.address(at, frame - 1),
            (2.., _) => view.address(at - 1, 1),
            _ => String::new(),
        };
        let after = match () {
            () if frame < frames => view.address(at, frame + 1),
            () if at < count => view.address(at + 1, 1),
            () => String::new(),
        };
        let image = format!("{address}/frames/{frame}/rendered{}", view.rendering());
        Self {
            why_not: why_not(StudyContent::of(series.text(AttributeId::Modality)), series.is_at_hand(), is_at_hand),
            patient: patient(study),
            title: title(series),
            position: position(at, count, frame, frames),
            instances: grouped(count),
            study: study_uid,
            series: series_uid,
            instance: address,
            view,
            count,
            frames,
            image,
            before,
            after,
            has_ohif,
            is_at_hand,
        }
    }
}

/// Describes the position in the stack. The script says the same.
fn position(at: u64, count: u64, frame: u64, frames: u64) -> String {
    let image = format!("Image {at} of {count}");
    if frames > 1 { format!("{image}, frame {frame} of {frames}") } else { image }
}

/// Returns why a series has no image to show; empty where it may have one.
fn why_not(content: StudyContent, series_is_at_hand: bool, instance_is_at_hand: bool) -> &'static str {
    match content {
        StudyContent::Document => "Objects of this modality are documents. They have no images to show here.",
        StudyContent::Waveform => "Objects of this modality are waveforms. They have no images to show here.",
        StudyContent::Shapes => {
            "Objects of this modality refer to images of other series. They have no images themselves."
        }
        // Others of the series may be there: the viewer goes to them.
        StudyContent::Images if instance_is_at_hand || series_is_at_hand => "",
        StudyContent::Images => {
            "The index has the attributes of this image, but not its object. It is kept elsewhere, or its file is gone."
        }
    }
}

/// Answers with the page of a series.
pub(in crate::web) async fn answer(server: &Arc<HttpState>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let (study, series) = (call.route.parameter("study").to_owned(), call.route.parameter("series").to_owned());
    let view = View::of(call.query);
    let at = view.at;
    let (study, series, instance) = ask(server, call, move |asking| {
        let found_study = study_of(asking, &study)?;
        let scope = Scope { level: QueryRetrieveLevel::Series, study: &study, series: &series };
        let one = Part { offset: 0, limit: 1 };
        let found_series = asking.search(&scope, "includefield=SeriesDescription", one, &OF_SERIES)?.into_iter().next();
        let count = found_series.as_ref().map_or(0, |found| found.number(AttributeId::NumberOfSeriesRelatedInstances));
        let offset = usize::try_from(at.min(count).saturating_sub(1)).unwrap_or(usize::MAX);
        let scope = Scope { level: QueryRetrieveLevel::Image, study: &study, series: &series };
        let instances = asking.search(&scope, "", Part { offset, limit: 1 }, &OF_INSTANCE)?;
        Ok((found_study, found_series, instances.into_iter().next()))
    })
    .await?;
    let (Some(study), Some(series)) = (study, series) else {
        return Err(Problem::not_found("the index knows no such series"));
    };
    html(&SeriesPage::new(&study, &series, instance.as_ref(), view, server.ohif.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_made_of_numbers() {
        let view = View::of("at=3&frame=2&center=40&width=4e2");
        assert_eq!((view.at, view.frame, view.rendering().as_str()), (3, 2, "?window=40,400"));
        assert_eq!(view.address(4, 1), "?at=4&frame=1&center=40&width=400");
        let evil = View::of("at=0&frame=x&center=%22%3E&width=inf");
        assert_eq!(evil, View { at: 1, frame: 1, ..View::default() });
        assert_eq!(evil.rendering(), "");
    }

    #[test]
    fn a_series_without_images_says_why() {
        assert!(why_not(StudyContent::Document, true, true).contains("documents"));
        assert!(why_not(StudyContent::Images, false, false).contains("not its object"));
        assert_eq!(why_not(StudyContent::Images, true, true), "");
        assert_eq!(position(2, 5, 1, 1), "Image 2 of 5");
        assert_eq!(position(1, 1, 2, 30), "Image 1 of 1, frame 2 of 30");
    }
}
