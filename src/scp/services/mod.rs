//! One file for each DIMSE service.

mod arriving;
mod backlog;
pub(super) mod commit;
pub(super) mod echo;
pub(super) mod find;
pub(super) mod mover;
pub(super) mod outbox;
pub(super) mod retrieve;
pub(super) mod store;

use crate::dimse::command_set::CommandField;
use crate::dimse::{Response, Status};
use crate::model::sop_class::Service;
use crate::qr::{NegotiatedOptions, retrieval_negotiation};

/// How a SOP Class Extended Negotiation Sub-Item is answered (PS3.4 C.5.2.1.1, C.5.3.1).
pub(super) fn extended_negotiation(service: Service, requested: &[u8]) -> Option<Vec<u8>> {
    match service {
        Service::Find(_) => Some(NegotiatedOptions::answer(requested).1),
        Service::Get(_) | Service::Move(_) => Some(retrieval_negotiation(requested)),
        Service::Verification | Service::Storage | Service::Commitment => None,
    }
}

/// The refusal of a request whose SOP Class is not that of the presentation context it came in (PS3.7 9.1.1 to 9.1.5:
/// "Refused: SOP Class not supported").
pub(super) fn sop_class_not_supported(request: CommandField, message_id: u16, sop_class_uid: &str) -> Response {
    Response::new(request, message_id, Status::SOP_CLASS_NOT_SUPPORTED)
        .with_sop_class(Some(sop_class_uid))
        .with_comment("not the SOP Class of this presentation context")
}
