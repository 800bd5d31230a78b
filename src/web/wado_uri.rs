//! WADO-URI (PS3.18 9): one object or one picture by query parameters, for older viewers. It
//! answers with the instance or the rendered frame of WADO-RS.

use std::collections::HashMap;
use std::sync::Arc;

use hyper::Response;
use hyper::header::ACCEPT;

use super::body::Body;
use super::forms::{DICOM, WantedSyntax};
use super::frame_source::{frame_source, no_pixels};
use super::http_state::{Call, HttpState};
use super::instances::{by_itself, not_as_wanted};
use super::negotiate::Accept;
use super::problem::Problem;
use super::query::pairs;
use super::resource::WADO_URI;
use super::wado_target::Target;
use crate::encoding::syntax::is_video;
use crate::model::uid::is_acceptable_uid;

/// Answers with an object by studyUID, seriesUID and objectUID.
pub(super) async fn answer(server: &Arc<HttpState>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let mut given: HashMap<String, String> = HashMap::new();
    for (name, value) in pairs(call.query) {
        if given.insert(name.to_string(), value.into_owned()).is_some() {
            return Err(Problem::bad_request("a parameter stands twice"));
        }
    }
    let parameter = |name: &str| given.get(name).map_or("", String::as_str);
    if !parameter("requestType").eq_ignore_ascii_case("WADO") {
        return Err(Problem::bad_request("requestType has to be WADO"));
    }
    let uid = |name: &str| {
        let uid = parameter(name);
        let is_uid = is_acceptable_uid(uid);
        if is_uid { Ok(uid.to_owned()) } else { Err(Problem::bad_request(format!("{name} is missing or no UID"))) }
    };
    // All three are required (PS3.18 9.4.1.1).
    let target = Target { study: uid("studyUID")?, series: uid("seriesUID")?, instance: uid("objectUID")? };
    // What nobody does here must not look done (PS3.18 9.4.1.2).
    if !matches!(parameter("anonymize"), "" | "no") {
        return Err(Problem::bad_request("anonymize is not supported: objects are sent as they are stored"));
    }
    if !parameter("presentationUID").is_empty() {
        return Err(Problem::bad_request("presentationUID is not supported: no presentation state is applied"));
    }
    let is_dicom = |text: &str| text.trim().split(';').next().is_some_and(|kind| matches!(kind.trim(), DICOM | "*/*"));
    let is_object = match parameter("contentType") {
        "" => is_object_unless_named(server, call, &target).await?,
        content_type => content_type.split(',').any(is_dicom),
    };
    if !is_object {
        return picture(server, call, &target, &given).await;
    }
    let wanted = match parameter("transferSyntax") {
        "" => WantedSyntax::Unnamed,
        uid => WantedSyntax::Only(uid.to_owned()),
    };
    let listed = target.instances(server, call).await?;
    let stored = listed.instances.get(0).map(|instance| instance.kind.transfer_syntax.clone()).unwrap_or_default();
    if wanted.object(&stored).is_none() {
        return Err(not_as_wanted(&[stored], 1));
    }
    by_itself(server, call, listed, wanted.into()).await
}

/// Whether the answer is the object where no contentType is named. The Accept header decides
/// (PS3.18 8.7.5). Where it leaves the choice, an image of one frame is a JPEG, and anything else
/// is the object (PS3.18 table 8.7.4-1).
async fn is_object_unless_named(server: &Arc<HttpState>, call: &Call<'_>, target: &Target) -> Result<bool, Problem> {
    if !cfg!(feature = "render") {
        return Ok(true);
    }
    let listed = target.instances(server, call).await?;
    let found = frame_source(server, &call.peer, &listed.instances, no_pixels).await;
    let is_picture = found.is_ok_and(|found| found.pixels.frames() == 1 && !is_video(&found.pixels.transfer_syntax));
    let mut offers = WADO_URI.to_vec();
    if is_picture {
        offers.rotate_left(1);
    }
    let chosen = Accept::of(call.headers.get_all(ACCEPT), "").choose(&offers);
    Ok(chosen.is_none_or(|chosen| chosen == DICOM))
}

/// Answers with a frame as a picture (PS3.18 9.4.1.2).
#[cfg(feature = "render")]
async fn picture(
    server: &Arc<HttpState>,
    call: &Call<'_>,
    target: &Target,
    given: &HashMap<String, String>,
) -> Result<Response<Body>, Problem> {
    use super::negotiate::not_acceptable;
    use super::picture::{MAX_SIDE, PictureRequest};
    use super::render::{WITH_VIDEO, send};

    let parameter = |name: &str| given.get(name).map(String::as_str);
    let accept = match parameter("contentType") {
        None | Some("") => Accept::of(call.headers.get_all(ACCEPT), ""),
        content_type => Accept::parse(content_type, ""),
    };
    accept.choose(&WITH_VIDEO).ok_or_else(|| not_acceptable(WADO_URI))?;
    if parameter("region").is_some() {
        return Err(Problem::bad_request("region is not supported; WADO-RS has it in its viewport"));
    }
    let number = match parameter("frameNumber") {
        None => 1,
        Some(text) => text.parse().map_err(|_| Problem::bad_request("frameNumber is a number from 1"))?,
    };
    // The same parameters in WADO-RS. A side that is not given has no limit.
    let side = |name| parameter(name).map_or_else(|| MAX_SIDE.to_string(), str::to_owned);
    let mut wanted = Vec::new();
    if parameter("rows").or(parameter("columns")).is_some() {
        wanted.push(format!("viewport={},{}", side("columns"), side("rows")));
    }
    match (parameter("windowCenter"), parameter("windowWidth")) {
        (None, None) => {}
        (Some(centre), Some(width)) => wanted.push(format!("window={centre},{width}")),
        (Some(_), None) | (None, Some(_)) => {
            return Err(Problem::bad_request("windowCenter and windowWidth belong together"));
        }
    }
    wanted.extend(parameter("imageQuality").map(|quality| format!("quality={quality}")));
    let wanted = PictureRequest::of(&wanted.join("&")).map_err(Problem::bad_request)?;
    send(server, call, target, (number, wanted), &accept).await
}

/// Returns status 406, because this program was built without rendering.
#[cfg(not(feature = "render"))]
async fn picture(
    _answering: &Arc<HttpState>,
    _call: &Call<'_>,
    _target: &Target,
    _given: &HashMap<String, String>,
) -> Result<Response<Body>, Problem> {
    Err(super::negotiate::not_acceptable(&[DICOM]))
}
