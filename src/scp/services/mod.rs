//! One file for each DIMSE service.

pub(super) mod echo;
pub(super) mod find;
pub(super) mod store;

use crate::dimse::command_set::CommandField;
use crate::dimse::{Response, Status};

/// The refusal of a request whose SOP Class is not that of the presentation context it came in (PS3.7 9.1.1 to 9.1.5:
/// "Refused: SOP Class not supported").
pub(super) fn sop_class_not_supported(request: CommandField, message_id: u16, sop_class_uid: &str) -> Response {
    Response::new(request, message_id, Status::SOP_CLASS_NOT_SUPPORTED)
        .with_sop_class(Some(sop_class_uid))
        .with_comment("not the SOP Class of this presentation context")
}
