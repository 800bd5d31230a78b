//! Verification (PS3.4 annex A).

use dicom_dictionary_std::uids;

use super::service::{ArrivedCommand, Begin, DimseService, Session, sop_class_not_supported};
use crate::dimse::Response;
use crate::dimse::command_set::CommandField;
use crate::dimse::message::DimseRequest;
use crate::model::status::Status;
use crate::scp::service_class::{ListedSopClass, ServiceClass, SopClasses, no_extended_negotiation};
use crate::telemetry::metrics;

static ECHO: ServiceClass = ServiceClass {
    grant: "echo",
    sop_classes: SopClasses::Listed(&[ListedSopClass { uid: uids::VERIFICATION, as_scu: "yes, by `dcmdex echo`" }]),
    returned_by: None,
    extended_negotiation: no_extended_negotiation,
};

/// C-ECHO. Every acceptor has to provide it (PS3.4 A.4).
#[derive(Debug)]
pub(super) struct Echo;

impl DimseService for Echo {
    fn class(&self) -> &'static ServiceClass {
        &ECHO
    }

    fn is_provided(&self) -> bool {
        true
    }

    fn begin(&self, command: &ArrivedCommand<'_>, _session: &Session) -> Option<Begin> {
        let DimseRequest::Echo(request) = command.request else { return None };
        let (context, uid) = (command.context, &request.affected_sop_class_uid);
        if *context.class != ECHO || *uid != context.abstract_syntax {
            return Some(Begin::Respond(sop_class_not_supported(CommandField::C_ECHO_RQ, request.message_id, uid)));
        }
        metrics::ECHO_REQUESTS.increment();
        let response = Response::new(CommandField::C_ECHO_RQ, request.message_id, Status::SUCCESS);
        Some(Begin::Respond(response.with_sop_class(Some(uid))))
    }
}
