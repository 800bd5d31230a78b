//! WADO-URI (PS3.18 9): one object by query parameters, for viewers of an older kind. It is the instance of WADO-RS by itself.

use std::collections::HashMap;
use std::sync::Arc;

use hyper::{Response, StatusCode};

use super::body::Body;
use super::call::{Answering, Call};
use super::forms::{DICOM, Wish};
use super::instances::{by_itself, not_as_wanted};
use super::problem::Problem;
use super::query::pairs;
use super::target::Target;
use crate::model::uid::is_acceptable_uid;

/// An object by studyUID, seriesUID and objectUID.
pub(super) async fn answer(answering: &Arc<Answering>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
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
        let is_uid = is_acceptable_uid(uid) && !uid.contains(['\\', '*', '?']);
        if is_uid { Ok(uid.to_owned()) } else { Err(Problem::bad_request(format!("{name} is missing or no UID"))) }
    };
    // PS3.18 9.4.1.1: all three have to be there.
    let target = Target { study: uid("studyUID")?, series: uid("seriesUID")?, instance: uid("objectUID")? };
    // The default is image/jpeg; who asks for nothing else gets the object.
    let is_dicom =
        |text: &str| text.trim().split(';').next().is_some_and(|kind| matches!(kind.trim(), DICOM | "*/*" | ""));
    if !parameter("contentType").split(',').any(is_dicom) {
        let why = "objects can be had as application/dicom; rendered images are not made here";
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, why));
    }
    let wish = match parameter("transferSyntax") {
        "" => Wish::Unnamed,
        uid => Wish::Only(uid.to_owned()),
    };
    let listed = target.instances(answering, call).await?;
    let stored = listed.instances.get(0).map(|instance| instance.kind.transfer_syntax.clone()).unwrap_or_default();
    if wish.rewriting(&stored).is_none() {
        return Err(not_as_wanted(&[&stored]));
    }
    by_itself(answering, call, &listed, wish).await
}
