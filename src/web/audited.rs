//! What the audit trail learns of a request over HTTP.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use super::query::decode;
use super::resource::{Kind, Route};
use crate::audit::{AuditEvent, AuditOutcome, AuditRecord, AuditedQuery, AuditedStudy, Auditor, Participant};

/// Study Root Query/Retrieve Information Model - FIND, which QIDO-RS has in common with C-FIND.
const STUDY_ROOT: &str = "1.2.840.10008.5.1.4.1.2.2.1";

/// Longest text of a query that the trail keeps.
const QUERY_CHARACTERS: usize = 4096;

/// A request, before it is answered.
pub(super) struct SeenRequest {
    event: Option<(AuditEvent, &'static str)>,
    address: IpAddr,
    /// The keys of a search.
    keys: Vec<String>,
    /// Study Instance UID of the path.
    study: String,
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
        // WADO-URI has the study in its query.
        let of_query = || query.split('&').find_map(|pair| pair.strip_prefix("studyUID=")).unwrap_or_default();
        let of_path = route.map(|route| route.parameter("study")).unwrap_or_default();
        let study = if of_path.is_empty() { of_query() } else { of_path };
        Self { event, address, keys, study: decode(study).map(|uid| uid.into_owned()).unwrap_or_default() }
    }

    /// Tells the trail how it ended.
    pub(super) fn note(self, audit: &Auditor, user: String, status: StatusCode) {
        let is_denied = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let (event, service) = match self.event {
            _ if is_denied => (AuditEvent::AuthenticationFailed, "HTTP"),
            Some(event) => event,
            None => return,
        };
        let mut record = AuditRecord::new(event, service);
        record.by = Some(participant(user, self.address));
        if !status.is_success() && !status.is_redirection() {
            let is_ours = status.is_server_error();
            record.outcome = if is_ours { AuditOutcome::SeriousFailure } else { AuditOutcome::MinorFailure };
            record.reason = format!("HTTP status {}", status.as_u16());
        }
        if event == AuditEvent::Query {
            let (sop_class_uid, keys) = (STUDY_ROOT.to_owned(), self.keys);
            record.query = Some(AuditedQuery { sop_class_uid, keys, arrived: None });
        }
        if !self.study.is_empty() {
            record.studies = vec![AuditedStudy { study_instance_uid: self.study, ..AuditedStudy::default() }];
        }
        audit.note(record);
    }
}

/// Who asks over HTTP.
pub(super) fn participant(name: String, address: IpAddr) -> Participant {
    Participant { name, address: address.to_string() }
}

/// What a resource means for the trail. `None` for what shows nothing of a patient.
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
    let mut studies: BTreeMap<String, AuditedStudy> = BTreeMap::new();
    for (study, patient_id, sop_class) in objects {
        let entry = studies.entry(study).or_insert_with_key(|study| AuditedStudy {
            study_instance_uid: study.clone(),
            patient_id,
            ..AuditedStudy::default()
        });
        *entry.instances.entry(sop_class).or_default() += 1;
    }
    let mut record = AuditRecord::new(AuditEvent::Stored, "STOW-RS");
    record.by = Some(by);
    record.studies = studies.into_values().collect();
    (!record.studies.is_empty()).then_some(record)
}
