//! The target of a path of WADO-RS, its instances, and heads of the responses about them.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::Body;
use super::problem::Problem;
use super::query::decode;
use super::resource::SERVICE;
use super::search::warn;
use crate::audit::{AuditedStudies, AuditedStudy};
use crate::db::Search as _;
use crate::db::open::Reader;
use crate::deliver::delivery::Delivery;
use crate::model::attribute::AttributeId;
use crate::model::availability::ObjectAvailability;
use crate::model::find::{FindRequest, ReturnKey};
use crate::model::level::{InformationModel, QueryRetrieveLevel};
use crate::model::uid::is_acceptable_uid;
use crate::qr::{self, FindError, Hierarchy, Instances, RetrieveError, RetrievedInstance, encoded_uid, keys};
use crate::shares::Share;
use crate::web::http_state::{Call, HttpState};

/// The UIDs of a path.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) study: String,
    pub(super) series: String,
    pub(super) instance: String,
}

/// The instances of a target.
pub(super) struct Listed {
    pub(super) instances: Arc<Instances>,
    /// SOP Instance UIDs of instances that are not at hand, as far as the index knows.
    pub(super) unavailable: HashSet<String>,
    /// SOP Instance UIDs of instances at hand that have no accepted transfer syntax.
    pub(super) unaccepted: HashSet<String>,
    /// The share of the memory that the list takes.
    pub(super) share: Share,
}

impl Listed {
    /// Returns the instances that are at hand, as far as the index knows.
    pub(super) fn at_hand(&self) -> impl Iterator<Item = RetrievedInstance<'_>> {
        self.instances.iter_from(0).filter(|instance| !self.unavailable.contains(instance.sop_instance_uid))
    }

    /// Returns the transfer syntaxes of the instances at hand. There is at least one.
    pub(super) fn transfer_syntaxes(&self) -> Result<Vec<String>, Problem> {
        let found: BTreeSet<&String> = self.at_hand().map(|instance| &instance.kind.transfer_syntax).collect();
        if found.is_empty() {
            return Err(Problem::not_found(
                "the index knows it, and its objects are not at hand: they are kept elsewhere, or their files are gone",
            ));
        }
        Ok(found.into_iter().cloned().collect())
    }

    /// Leaves out the instances whose transfer syntaxes are not accepted.
    pub(super) fn leave_out(&mut self, is_accepted: impl Fn(&str) -> bool) {
        let refused = self.at_hand().filter(|instance| !is_accepted(&instance.kind.transfer_syntax));
        self.unaccepted = refused.map(|instance| instance.sop_instance_uid.to_owned()).collect();
    }

    /// Whether an instance is sent.
    pub(super) fn is_sent(&self, instance: &RetrievedInstance<'_>) -> bool {
        !self.unavailable.contains(instance.sop_instance_uid) && !self.unaccepted.contains(instance.sop_instance_uid)
    }

    /// Says by the status and by warnings that instances are left out (PS3.18 table 10.4.3-1).
    pub(super) fn tell_left_out(&self, response: &mut Response<Body>, call: &Call<'_>) {
        let unaccepted = "their transfer syntaxes are not accepted";
        for (of, why) in [(&self.unavailable, "their objects are not at hand"), (&self.unaccepted, unaccepted)] {
            if !of.is_empty() {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let text = format!("{} instances are left out: {why}", of.len());
                warn(response.headers_mut(), &format!("{}{SERVICE}", call.base), &text);
            }
        }
    }

    /// The studies and patients of the instances at hand, for the audit trail.
    fn studies(&self) -> Vec<AuditedStudy> {
        let mut studies = AuditedStudies::default();
        for (at, instance) in self.instances.iter_from(0).enumerate() {
            let owner = self.instances.owner(at);
            if let Some(owner) = owner.filter(|_| !self.unavailable.contains(instance.sop_instance_uid)) {
                let of = (owner.study_instance_uid.clone(), owner.patient_id.clone());
                studies.add(of, &owner.patient_name, &instance.kind.sop_class_uid);
            }
        }
        studies.into_studies()
    }
}

/// Returns a list of this instance alone.
pub(super) fn alone(instance: &RetrievedInstance<'_>) -> Arc<Instances> {
    Arc::new([(instance.sop_instance_uid.to_owned(), instance.kind.clone())].into_iter().collect())
}

impl Target {
    /// Reads the UIDs of a path.
    pub(super) fn of(call: &Call<'_>) -> Result<Self, Problem> {
        let uid = |name: &str| match call.route.parameter(name) {
            "" => Ok(String::new()),
            raw => decode(raw)
                .filter(|uid| is_acceptable_uid(uid))
                .map(std::borrow::Cow::into_owned)
                .ok_or_else(|| Problem::bad_request("a UID of the path is not valid")),
        };
        Ok(Self { study: uid("study")?, series: uid("series")?, instance: uid("instance")? })
    }

    /// Returns the query for its instances, which a C-GET makes too.
    fn question(&self) -> Result<FindRequest, RetrieveError> {
        let levels = [
            (QueryRetrieveLevel::Study, "StudyInstanceUID", &self.study),
            (QueryRetrieveLevel::Series, "SeriesInstanceUID", &self.series),
            (QueryRetrieveLevel::Image, "SOPInstanceUID", &self.instance),
        ];
        let given: Vec<_> = levels.into_iter().filter(|(.., uid)| !uid.is_empty()).collect();
        let level = given.last().map_or(QueryRetrieveLevel::Study, |(level, ..)| *level);
        let texts: Vec<_> = given.iter().map(|(_, keyword, uid)| format!("{keyword}={uid}")).collect();
        let identifier = keys::identifier(level, texts.iter().map(String::as_str))
            .map_err(|_| RetrieveError::Query(FindError::UnknownLevel))?;
        qr::parse_retrieval(InformationModel::StudyRoot, &identifier, true, Hierarchy::Lenient)
    }

    /// Returns its instances. There is at least one.
    pub(super) async fn instances(&self, server: &Arc<HttpState>, call: &Call<'_>) -> Result<Listed, Problem> {
        let delivery = server.delivery();
        let question = self.question()?;
        let asked = question.clone();
        let asked = if call.shown.is_some() { qr::with_owners(asked) } else { asked };
        let listed = delivery.instances(&call.peer, server.options.query_time_limit, move || Ok(asked)).await;
        let (instances, share) = listed?;
        if instances.is_empty() {
            let what = match (self.series.is_empty(), self.instance.is_empty()) {
                (true, true) => "study",
                (false, true) => "series",
                (_, false) => "instance",
            };
            return Err(Problem::not_found(format!("the index knows no such {what}")));
        }
        let turn = server.turn(&call.peer).await?;
        let delivery = Arc::clone(delivery);
        let unavailable = tokio::task::spawn_blocking(move || {
            let _until_its_end = turn;
            let mut reader = delivery.readers.take()?;
            let found = unavailable(&mut reader, question)?;
            delivery.readers.give_back(reader);
            Ok::<_, FindError>(found)
        });
        let unavailable = unavailable.await.map_err(|_| Problem::ours())??;
        let listed = Listed { instances: Arc::new(instances), unavailable, unaccepted: HashSet::new(), share };
        if let Some(shown) = call.shown {
            // The first list is that of the resource.
            let _ = shown.set(listed.studies());
        }
        Ok(listed)
    }
}

/// Returns the start of the URIs of the values of an instance. Only a target with a series says
/// which series the instance is in.
pub(super) fn bulk_data_base(service: &str, target: &Target, sop_instance_uid: &str) -> String {
    let uid = encoded_uid(sop_instance_uid);
    if target.series.is_empty() {
        return format!("{service}/instances/{uid}/bulkdata/");
    }
    let (study, series) = (encoded_uid(&target.study), encoded_uid(&target.series));
    format!("{service}/studies/{study}/series/{series}/instances/{uid}/bulkdata/")
}

/// Returns the instances that are not at hand, as far as the index knows.
fn unavailable(reader: &mut Reader, mut question: FindRequest) -> Result<HashSet<String>, FindError> {
    question.return_keys = [AttributeId::SOPInstanceUID, AttributeId::InstanceAvailability]
        .map(|attribute| ReturnKey { attribute, items: Vec::new() })
        .into();
    let mut found = HashSet::new();
    let answered = reader.find(&question, |answer| {
        if let (Some(uid), Some(availability)) = (answer.values.get(0), answer.values.get(1))
            && availability != ObjectAvailability::Online.as_str()
        {
            found.insert(uid.to_owned());
        }
        ControlFlow::Continue(())
    });
    answered.map_err(FindError::Index)?;
    Ok(found)
}

impl From<RetrieveError> for Problem {
    fn from(error: RetrieveError) -> Self {
        match error {
            RetrieveError::Query(error) => error.into(),
            RetrieveError::TooManyInstances(_) => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "more instances than retrieve.max_instances: ask for each series",
            ),
            RetrieveError::NoUniqueKey(_) | RetrieveError::SeveralValues(_) | RetrieveError::NoKeyOfRetrieval(_) => {
                Self::bad_request(error.to_string())
            }
        }
    }
}

impl HttpState {
    /// Returns the sender of objects.
    pub(super) fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }
}

/// Returns a response with this body and Content-Type.
pub(super) fn typed(body: Body, content_type: &str) -> Result<Response<Body>, Problem> {
    let mut response = Response::new(body);
    let content_type = HeaderValue::from_str(content_type).map_err(|_| Problem::ours())?;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}
