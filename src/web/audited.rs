//! Facts that the audit trail learns of a request over HTTP.

use std::net::IpAddr;
use std::sync::OnceLock;

use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use super::query::decode;
use super::resource::{Kind, Route};
use crate::audit::{
    AuditEvent, AuditOutcome, AuditRecord, AuditedQuery, AuditedStudies, AuditedStudy, Auditor, Participant,
};

/// Longest text of a query that the trail keeps.
const QUERY_CHARACTERS: usize = 4096;

/// The reason why somebody is turned away who claims a name.
pub(super) const WRONG_PASSWORD: &str = "wrong name or password";

/// The studies whose objects an answer is made of. It is set by whoever lists them.
pub(super) type ShownStudies = OnceLock<Vec<AuditedStudy>>;

/// A request, before it is answered.
pub(super) struct SeenRequest {
    event: Option<(AuditEvent, &'static str)>,
    address: IpAddr,
    /// The keys of a search.
    keys: Vec<String>,
    /// Path and query of a search.
    target: String,
}

impl SeenRequest {
    pub(super) fn of(head: &Parts, route: Option<&Route<'_>>, address: IpAddr) -> Self {
        let event = route.filter(|_| head.method == Method::GET).and_then(|route| event(route.resource.kind));
        let query = head.uri.query().unwrap_or_default();
        let keys = match event {
            Some((AuditEvent::Query, _)) => query
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| decode(pair).map_or_else(|| pair.to_owned(), |pair| pair.into_owned()))
                .map(|pair| pair.chars().take(QUERY_CHARACTERS).collect())
                .collect(),
            Some(_) | None => Vec::new(),
        };
        let target = match event {
            Some((AuditEvent::Query, _)) => head.uri.path_and_query().map_or("", |target| target.as_str()),
            Some(_) | None => "",
        };
        Self { event, address, keys, target: target.chars().take(QUERY_CHARACTERS).collect() }
    }

    /// Tells the trail how it ended. `shown` are the studies of the answer.
    pub(super) fn note(self, audit: &Auditor, user: String, status: StatusCode, shown: ShownStudies) {
        let is_denied = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let (event, service) = match self.event {
            _ if is_denied => (AuditEvent::AuthenticationFailed, "HTTP"),
            Some(event) => event,
            None => return,
        };
        let mut record = AuditRecord::new(event, service);
        let has_name = !user.is_empty();
        record.by = Some(participant(user, self.address));
        if !status.is_success() && !status.is_redirection() {
            let is_ours = status.is_server_error();
            record.outcome = if is_ours { AuditOutcome::SeriousFailure } else { AuditOutcome::MinorFailure };
            record.reason = match status {
                StatusCode::UNAUTHORIZED if has_name => WRONG_PASSWORD.to_owned(),
                status => format!("HTTP status {}", status.as_u16()),
            };
        }
        if event == AuditEvent::Query {
            record.query = Some(AuditedQuery { keys: self.keys, target: self.target, ..AuditedQuery::default() });
        }
        record.studies = shown.into_inner().unwrap_or_default();
        if !status.is_success() {
            // Nothing of them went out.
            record.studies.iter_mut().for_each(|study| study.instances.clear());
        }
        audit.note(record);
    }
}

/// Returns the participant who asks over HTTP.
pub(super) fn participant(name: String, address: IpAddr) -> Participant {
    Participant { name, address: address.to_string() }
}

/// Returns the event of the trail for a resource. `None` for one that shows nothing of a patient.
fn event(kind: Kind) -> Option<(AuditEvent, &'static str)> {
    match kind {
        Kind::Search(_) => Some((AuditEvent::Query, "QIDO-RS")),
        Kind::Page | Kind::PageOfStudy | Kind::PageOfSeries | Kind::PageOfFailures | Kind::PageOfConflicts => {
            Some((AuditEvent::Query, "page"))
        }
        Kind::Metadata
        | Kind::Instances
        | Kind::Frames
        | Kind::BulkData
        | Kind::AllBulkData
        | Kind::AllPixelData
        | Kind::Rendered
        | Kind::Thumbnail => Some((AuditEvent::Retrieved, "WADO-RS")),
        Kind::WadoUri => Some((AuditEvent::Retrieved, "WADO-URI")),
        Kind::Capabilities
        | Kind::PageOfIndex
        | Kind::Style
        | Kind::Script
        | Kind::Icon
        | Kind::Ohif
        | Kind::Health
        | Kind::Metrics => None,
    }
}

/// The event of what a request has stored: for each object its study, patient and SOP class.
pub(super) fn stored(by: Participant, objects: impl Iterator<Item = (String, String, String)>) -> Option<AuditRecord> {
    let mut studies = AuditedStudies::default();
    for (study, patient_id, sop_class) in objects {
        studies.add((study, patient_id), "", &sop_class);
    }
    let mut record = AuditRecord::new(AuditEvent::Stored, "STOW-RS");
    record.by = Some(by);
    record.studies = studies.into_studies();
    (!record.studies.is_empty()).then_some(record)
}
