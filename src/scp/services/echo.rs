//! Verification (PS3.4 annex A).

use crate::dimse::command_set::CommandField;
use crate::dimse::message::EchoRequest;
use crate::dimse::{Response, Status};
use crate::model::sop_class::Service;
use crate::scp::services::sop_class_not_supported;
use crate::telemetry::metrics;
use crate::ul::associate::PresentationContext;

/// Answers a C-ECHO-RQ.
pub(in crate::scp) fn respond(request: &EchoRequest, context: &PresentationContext) -> Response {
    let uid = &request.affected_sop_class_uid;
    if context.service != Service::Verification || *uid != context.abstract_syntax {
        return sop_class_not_supported(CommandField::C_ECHO_RQ, request.message_id, uid);
    }
    metrics::ECHO_REQUESTS.increment();
    Response::new(CommandField::C_ECHO_RQ, request.message_id, Status::SUCCESS).with_sop_class(Some(uid))
}
