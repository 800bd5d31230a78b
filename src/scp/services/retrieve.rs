//! Query/Retrieve, C-GET and C-MOVE (PS3.4 C.4.2, C.4.3): an Identifier becomes a list of
//! instances, and these become C-STORE-RQs. [`crate::deliver`] reads the objects. `framing` makes
//! PDUs of them.

mod answering;
mod asked;
mod contexts;
mod framing;
mod get;
mod move_to;
mod mover;
mod retrieval;
pub(in crate::scp) mod retriever;
mod tally;

use std::sync::Arc;

use dicom_dictionary_std::uids;

use self::retriever::Retrieve;
use super::service::{ArrivedCommand, Begin, Boxed, DimseService, Session};
use crate::dimse::message::DimseRequest;
use crate::model::level::InformationModel;
use crate::qr::retrieval_negotiation;
use crate::scp::negotiation::Policy;
use crate::scp::service_class::{ListedSopClass, ServiceClass, SopClasses};

/// The Information Models of C-GET, by SOP Class.
#[expect(deprecated, reason = "Patient/Study Only is retired and still sent by old clients")]
const GET_MODELS: [(&str, InformationModel); 3] = [
    (uids::PATIENT_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_GET, InformationModel::PatientRoot),
    (uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_GET, InformationModel::StudyRoot),
    (uids::PATIENT_STUDY_ONLY_QUERY_RETRIEVE_INFORMATION_MODEL_GET, InformationModel::PatientStudyOnly),
];

/// The Information Models of C-MOVE, by SOP Class.
#[expect(deprecated, reason = "Patient/Study Only is retired and still sent by old clients")]
const MOVE_MODELS: [(&str, InformationModel); 3] = [
    (uids::PATIENT_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_MOVE, InformationModel::PatientRoot),
    (uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_MOVE, InformationModel::StudyRoot),
    (uids::PATIENT_STUDY_ONLY_QUERY_RETRIEVE_INFORMATION_MODEL_MOVE, InformationModel::PatientStudyOnly),
];

static GET: ServiceClass = ServiceClass {
    grant: "get",
    sop_classes: SopClasses::Listed(&[
        ListedSopClass::scp(GET_MODELS[0].0),
        ListedSopClass::scp(GET_MODELS[1].0),
        ListedSopClass::scp(GET_MODELS[2].0),
    ]),
    returned_by: None,
    // PS3.4 C.5.3.1
    extended_negotiation: |requested| Some(retrieval_negotiation(requested)),
};

static MOVE: ServiceClass = ServiceClass {
    grant: "move",
    sop_classes: SopClasses::Listed(&[
        ListedSopClass::scp(MOVE_MODELS[0].0),
        ListedSopClass::scp(MOVE_MODELS[1].0),
        ListedSopClass::scp(MOVE_MODELS[2].0),
    ]),
    returned_by: None,
    // PS3.4 C.5.2.1
    extended_negotiation: |requested| Some(retrieval_negotiation(requested)),
};

/// C-GET.
#[derive(Debug)]
pub(super) struct GetService(pub(super) Option<Arc<Retrieve>>);

/// C-MOVE.
#[derive(Debug)]
pub(super) struct MoveService(pub(super) Option<Arc<Retrieve>>);

impl DimseService for GetService {
    fn class(&self) -> &'static ServiceClass {
        &GET
    }

    fn is_provided(&self) -> bool {
        self.0.is_some()
    }

    fn begin(&self, command: &ArrivedCommand<'_>, session: &Session) -> Option<Begin> {
        let DimseRequest::Get(request) = command.request else { return None };
        Some(answering::begin(self.0.as_ref(), &GET_MODELS, request, command, session))
    }

    fn prepare<'a>(&'a self, policy: &'a mut Policy) -> Boxed<'a, ()> {
        Box::pin(async {
            if let Some(retrieve) = &self.0 {
                policy.held = retrieve.held_before_first_association().await;
            }
        })
    }
}

impl DimseService for MoveService {
    fn class(&self) -> &'static ServiceClass {
        &MOVE
    }

    fn is_provided(&self) -> bool {
        self.0.is_some()
    }

    fn begin(&self, command: &ArrivedCommand<'_>, session: &Session) -> Option<Begin> {
        let DimseRequest::Move(request) = command.request else { return None };
        Some(answering::begin(self.0.as_ref(), &MOVE_MODELS, request, command, session))
    }
}
