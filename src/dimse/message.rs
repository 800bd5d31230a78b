//! Typed requests and responses (PS3.7 9.3).

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::command_set::{self, CommandField, CommandSet, CommandSetError};
use crate::model::status::Status;

/// Maximum length of an Error Comment (VR LO), in characters (PS3.5 table 6.2-1).
pub const MAX_ERROR_COMMENT_LENGTH: usize = 64;

/// A request from a peer.
///
/// A new request gets a variant here and an arm in [`DimseRequest::parse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DimseRequest {
    /// C-ECHO-RQ.
    Echo(EchoRequest),
    /// C-STORE-RQ.
    Store(StoreRequest),
    /// C-FIND-RQ.
    Find(CFindRequest),
    /// C-GET-RQ.
    Get(RetrieveRequest),
    /// C-MOVE-RQ.
    Move(RetrieveRequest),
    /// N-ACTION-RQ.
    Action(ActionRequest),
    /// N-CREATE-RQ.
    Create(InstanceRequest),
    /// N-SET-RQ.
    Set(InstanceRequest),
    /// C-CANCEL-RQ. It has no response of its own (PS3.7 9.3.2.3).
    Cancel(CancelRequest),
}

/// C-ECHO-RQ (PS3.7 table 9.3-12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EchoRequest {
    /// Message ID (0000,0110).
    pub message_id: u16,
    /// Affected SOP Class UID (0000,0002).
    pub affected_sop_class_uid: String,
}

/// C-STORE-RQ (PS3.7 table 9.3-1).
#[derive(Clone, PartialEq, Eq)]
pub struct StoreRequest {
    /// Message ID (0000,0110).
    pub message_id: u16,
    /// Affected SOP Class UID (0000,0002).
    pub affected_sop_class_uid: String,
    /// Affected SOP Instance UID (0000,1000), as the peer gave it.
    pub affected_sop_instance_uid: String,
    /// The C-MOVE to which this sub-operation belongs.
    pub move_originator: Option<MoveOriginator>,
}

/// Move Originator Application Entity Title (0000,1030) and Message ID (0000,1031).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveOriginator {
    /// The AE title of the C-MOVE SCU, as the peer gave it.
    pub ae_title: String,
    /// The Message ID of the C-MOVE-RQ.
    pub message_id: Option<u16>,
}

/// C-FIND-RQ (PS3.7 table 9.3-3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CFindRequest {
    /// Message ID (0000,0110).
    pub message_id: u16,
    /// Affected SOP Class UID (0000,0002).
    pub affected_sop_class_uid: String,
}

/// C-GET-RQ (PS3.7 table 9.3-6) or C-MOVE-RQ (PS3.7 table 9.3-9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrieveRequest {
    /// Command Field: C-GET-RQ or C-MOVE-RQ.
    pub field: CommandField,
    /// Message ID (0000,0110).
    pub message_id: u16,
    /// Affected SOP Class UID (0000,0002).
    pub affected_sop_class_uid: String,
    /// Priority (0000,0700). The sub-operations have the same. It is medium if it is absent.
    pub priority: u16,
    /// Move Destination (0000,0600), as the peer gave it. `None` for C-GET, and if it is absent or
    /// not a text.
    pub move_destination: Option<String>,
}

/// N-ACTION-RQ (PS3.7 table 10.3-7).
#[derive(Clone, PartialEq, Eq)]
pub struct ActionRequest {
    /// Message ID (0000,0110).
    pub message_id: u16,
    /// Requested SOP Class UID (0000,0003).
    pub requested_sop_class_uid: String,
    /// Requested SOP Instance UID (0000,1001), as the peer gave it.
    pub requested_sop_instance_uid: String,
    /// Action Type ID (0000,1008).
    pub action_type_id: u16,
}

/// N-CREATE-RQ (PS3.7 table 10.3-9) or N-SET-RQ (PS3.7 table 10.3-5).
#[derive(Clone, PartialEq, Eq)]
pub struct InstanceRequest {
    /// Message ID (0000,0110).
    pub message_id: u16,
    /// Affected or Requested SOP Class UID.
    pub sop_class_uid: String,
    /// Affected or Requested SOP Instance UID, as the peer gave it. Empty if it is absent.
    pub sop_instance_uid: String,
}

/// Without the SOP Instance UID, which must not appear in a log above debug level.
impl std::fmt::Debug for InstanceRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstanceRequest")
            .field("message_id", &self.message_id)
            .field("sop_class_uid", &self.sop_class_uid)
            .finish_non_exhaustive()
    }
}

/// Without the SOP Instance UID, which must not appear in a log above debug level.
impl std::fmt::Debug for ActionRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActionRequest")
            .field("message_id", &self.message_id)
            .field("requested_sop_class_uid", &self.requested_sop_class_uid)
            .field("action_type_id", &self.action_type_id)
            .finish_non_exhaustive()
    }
}

/// C-CANCEL-RQ (PS3.7 table 9.3-5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelRequest {
    /// Message ID Being Responded To (0000,0120): the request to cancel.
    pub message_id_being_responded_to: u16,
}

/// The reason why a command set is not a request that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// No response can be built, because the peer does not say what to respond to. The association
    /// cannot go on.
    Unanswerable(CommandSetError),
    /// An unexpected response.
    UnexpectedResponse(CommandField),
    /// The request is refused with this response, and the association goes on.
    Refused(Box<Response>),
}

impl DimseRequest {
    /// Reads a request from its command set.
    ///
    /// # Errors
    /// When the command is not a request, or not one that is served
    /// ([`Status::UNRECOGNIZED_OPERATION`]). When it lacks a field that PS3.7 9.3 requires
    /// ([`Status::MISTYPED_ARGUMENT`] or [`Status::INVALID_SOP_INSTANCE`]).
    pub fn parse(command: &CommandSet) -> Result<Self, RequestError> {
        let field = CommandField(command.unsigned_short(tags::COMMAND_FIELD).map_err(RequestError::Unanswerable)?);
        if field.is_response() {
            return Err(RequestError::UnexpectedResponse(field));
        }
        if field == CommandField::C_CANCEL_RQ {
            let message_id_being_responded_to =
                command.unsigned_short(tags::MESSAGE_ID_BEING_RESPONDED_TO).map_err(RequestError::Unanswerable)?;
            return Ok(Self::Cancel(CancelRequest { message_id_being_responded_to }));
        }
        let message_id = command.unsigned_short(tags::MESSAGE_ID).map_err(RequestError::Unanswerable)?;
        match field {
            CommandField::C_ECHO_RQ => {
                let affected_sop_class_uid = sop_class(command, field, message_id)?;
                Ok(Self::Echo(EchoRequest { message_id, affected_sop_class_uid }))
            }
            CommandField::C_FIND_RQ => {
                let affected_sop_class_uid = sop_class(command, field, message_id)?;
                Ok(Self::Find(CFindRequest { message_id, affected_sop_class_uid }))
            }
            CommandField::C_STORE_RQ => Ok(Self::Store(StoreRequest::parse(command, message_id)?)),
            CommandField::C_GET_RQ => Ok(Self::Get(RetrieveRequest::parse(command, field, message_id)?)),
            CommandField::C_MOVE_RQ => Ok(Self::Move(RetrieveRequest::parse(command, field, message_id)?)),
            CommandField::N_ACTION_RQ => Ok(Self::Action(ActionRequest::parse(command, message_id)?)),
            CommandField::N_CREATE_RQ => {
                let uids = (tags::AFFECTED_SOP_CLASS_UID, tags::AFFECTED_SOP_INSTANCE_UID);
                Ok(Self::Create(InstanceRequest::parse(command, field, message_id, uids)?))
            }
            CommandField::N_SET_RQ => {
                let uids = (tags::REQUESTED_SOP_CLASS_UID, tags::REQUESTED_SOP_INSTANCE_UID);
                Ok(Self::Set(InstanceRequest::parse(command, field, message_id, uids)?))
            }
            _ => match unrecognized(command) {
                Ok(response) => Err(RequestError::Refused(Box::new(response))),
                Err(error) => Err(RequestError::Unanswerable(error)),
            },
        }
    }
}

/// Returns the response to a request that no service answers ([`Status::UNRECOGNIZED_OPERATION`]).
///
/// # Errors
/// When the command does not say what to respond to.
pub fn unrecognized(command: &CommandSet) -> Result<Response, CommandSetError> {
    let field = CommandField(command.unsigned_short(tags::COMMAND_FIELD)?);
    let message_id = command.unsigned_short(tags::MESSAGE_ID)?;
    let response = Response::new(field, message_id, Status::UNRECOGNIZED_OPERATION);
    Ok(response.with_sop_class(requested_sop_class(command)))
}

impl StoreRequest {
    fn parse(command: &CommandSet, message_id: u16) -> Result<Self, RequestError> {
        let field = CommandField::C_STORE_RQ;
        let affected_sop_class_uid = sop_class(command, field, message_id)?;
        let affected_sop_instance_uid = command
            .text(tags::AFFECTED_SOP_INSTANCE_UID)
            .map_err(|error| refused(field, message_id, Status::INVALID_SOP_INSTANCE, &error))?
            .to_owned();
        // The originator is only for the log. A faulty one must not fail the instance.
        let move_originator =
            command.optional_text(tags::MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE).ok().flatten().map(|title| {
                let message_id = command.optional_unsigned_short(tags::MOVE_ORIGINATOR_MESSAGE_ID).ok().flatten();
                MoveOriginator { ae_title: title.to_owned(), message_id }
            });
        Ok(Self { message_id, affected_sop_class_uid, affected_sop_instance_uid, move_originator })
    }
}

impl StoreRequest {
    /// Encodes it as a command set that announces a data set.
    #[must_use]
    pub fn command_set(&self, priority: u16) -> CommandSet {
        let mut command = CommandSet::new();
        command.set_uid(tags::AFFECTED_SOP_CLASS_UID, &self.affected_sop_class_uid);
        command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::C_STORE_RQ.0);
        command.set_unsigned_short(tags::MESSAGE_ID, self.message_id);
        command.set_unsigned_short(tags::PRIORITY, priority);
        command.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::DATA_SET_PRESENT);
        command.set_uid(tags::AFFECTED_SOP_INSTANCE_UID, &self.affected_sop_instance_uid);
        if let Some(originator) = &self.move_originator {
            command.set_text(tags::MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE, &originator.ae_title);
            if let Some(message_id) = originator.message_id {
                command.set_unsigned_short(tags::MOVE_ORIGINATOR_MESSAGE_ID, message_id);
            }
        }
        command
    }
}

impl EchoRequest {
    /// Encodes it as a command set.
    #[must_use]
    pub fn command_set(&self) -> CommandSet {
        let mut command = CommandSet::new();
        command.set_uid(tags::AFFECTED_SOP_CLASS_UID, &self.affected_sop_class_uid);
        command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::C_ECHO_RQ.0);
        command.set_unsigned_short(tags::MESSAGE_ID, self.message_id);
        command.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::NO_DATA_SET);
        command
    }
}

impl RetrieveRequest {
    fn parse(command: &CommandSet, field: CommandField, message_id: u16) -> Result<Self, RequestError> {
        Ok(Self {
            field,
            message_id,
            affected_sop_class_uid: sop_class(command, field, message_id)?,
            // A faulty priority must not fail the retrieval.
            priority: command.optional_unsigned_short(tags::PRIORITY).ok().flatten().unwrap_or(0),
            move_destination: command.optional_text(tags::MOVE_DESTINATION).ok().flatten().map(str::to_owned),
        })
    }
}

impl InstanceRequest {
    fn parse(
        command: &CommandSet,
        field: CommandField,
        message_id: u16,
        (class, instance): (Tag, Tag),
    ) -> Result<Self, RequestError> {
        let sop_class_uid = command.text(class).map(str::to_owned);
        let sop_class_uid =
            sop_class_uid.map_err(|error| refused(field, message_id, Status::MISTYPED_ARGUMENT, &error))?;
        let sop_instance_uid = command.optional_text(instance).ok().flatten().unwrap_or_default().to_owned();
        Ok(Self { message_id, sop_class_uid, sop_instance_uid })
    }
}

impl ActionRequest {
    fn parse(command: &CommandSet, message_id: u16) -> Result<Self, RequestError> {
        let field = CommandField::N_ACTION_RQ;
        let mistyped = |error| refused(field, message_id, Status::MISTYPED_ARGUMENT, &error);
        Ok(Self {
            message_id,
            requested_sop_class_uid: command
                .text(tags::REQUESTED_SOP_CLASS_UID)
                .map(str::to_owned)
                .map_err(mistyped)?,
            requested_sop_instance_uid: command
                .text(tags::REQUESTED_SOP_INSTANCE_UID)
                .map(str::to_owned)
                .map_err(mistyped)?,
            action_type_id: command.unsigned_short(tags::ACTION_TYPE_ID).map_err(mistyped)?,
        })
    }
}

/// N-EVENT-REPORT-RQ (PS3.7 table 10.3-1), with a data set to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventReportRequest<'a> {
    /// Message ID (0000,0110).
    pub message_id: u16,
    /// Affected SOP Class UID (0000,0002).
    pub affected_sop_class_uid: &'a str,
    /// Affected SOP Instance UID (0000,1000).
    pub affected_sop_instance_uid: &'a str,
    /// Event Type ID (0000,1002).
    pub event_type_id: u16,
}

impl EventReportRequest<'_> {
    /// Encodes it as a command set.
    #[must_use]
    pub fn command_set(&self) -> CommandSet {
        let mut command = CommandSet::new();
        command.set_uid(tags::AFFECTED_SOP_CLASS_UID, self.affected_sop_class_uid);
        command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::N_EVENT_REPORT_RQ.0);
        command.set_unsigned_short(tags::MESSAGE_ID, self.message_id);
        command.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::DATA_SET_PRESENT);
        command.set_uid(tags::AFFECTED_SOP_INSTANCE_UID, self.affected_sop_instance_uid);
        command.set_unsigned_short(tags::EVENT_TYPE_ID, self.event_type_id);
        command
    }
}

/// The answer of a peer to a request of this node: the fields that all responses have (PS3.7 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerResponse {
    /// The Command Field of the response.
    pub field: CommandField,
    /// Message ID Being Responded To (0000,0120).
    pub message_id_being_responded_to: u16,
    /// Status (0000,0900).
    pub status: Status,
}

impl PeerResponse {
    /// Reads a response from its command set. `None` for a request.
    ///
    /// # Errors
    /// When a field is missing or mistyped.
    pub fn parse(command: &CommandSet) -> Result<Option<Self>, CommandSetError> {
        let field = CommandField(command.unsigned_short(tags::COMMAND_FIELD)?);
        if !field.is_response() {
            return Ok(None);
        }
        Ok(Some(Self {
            field,
            message_id_being_responded_to: command.unsigned_short(tags::MESSAGE_ID_BEING_RESPONDED_TO)?,
            status: Status(command.unsigned_short(tags::STATUS)?),
        }))
    }
}

/// The numbers of sub-operations in a C-GET-RSP or C-MOVE-RSP (PS3.7 tables 9.3-7 and 9.3-10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubOperations {
    /// Number of Remaining Sub-operations: in pending and cancel responses only.
    pub remaining: Option<usize>,
    /// Number of Completed Sub-operations.
    pub completed: usize,
    /// Number of Failed Sub-operations.
    pub failed: usize,
    /// Number of Warning Sub-operations.
    pub warning: usize,
}

/// Without the SOP Instance UID, which must not appear in a log above debug level.
impl std::fmt::Debug for StoreRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreRequest")
            .field("message_id", &self.message_id)
            .field("affected_sop_class_uid", &self.affected_sop_class_uid)
            .field("move_originator", &self.move_originator)
            .finish_non_exhaustive()
    }
}

fn sop_class(command: &CommandSet, field: CommandField, message_id: u16) -> Result<String, RequestError> {
    command
        .text(tags::AFFECTED_SOP_CLASS_UID)
        .map(str::to_owned)
        .map_err(|error| refused(field, message_id, Status::MISTYPED_ARGUMENT, &error))
}

fn requested_sop_class(command: &CommandSet) -> Option<&str> {
    [tags::AFFECTED_SOP_CLASS_UID, tags::REQUESTED_SOP_CLASS_UID]
        .into_iter()
        .find_map(|tag| command.optional_text(tag).ok().flatten())
}

fn refused(field: CommandField, message_id: u16, status: Status, error: &CommandSetError) -> RequestError {
    RequestError::Refused(Box::new(Response::new(field, message_id, status).with_comment(&error.to_string())))
}

/// A response: the fields that all responses have (PS3.7 9.3), and those of a status (PS3.7 annex
/// C).
///
/// Only `scp::services::store` builds a success of C-STORE, from the proof of commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    field: CommandField,
    message_id_being_responded_to: u16,
    affected_sop_class_uid: Option<String>,
    affected_sop_instance_uid: Option<String>,
    status: Status,
    error_comment: Option<String>,
    error_id: Option<u16>,
    offending_elements: Vec<Tag>,
    sub_operations: Option<SubOperations>,
}

impl Response {
    /// Creates a response to the request with this Command Field and Message ID.
    #[must_use]
    pub fn new(request: CommandField, message_id: u16, status: Status) -> Self {
        Self {
            field: request.response(),
            message_id_being_responded_to: message_id,
            affected_sop_class_uid: None,
            affected_sop_instance_uid: None,
            status,
            error_comment: None,
            error_id: None,
            offending_elements: Vec::new(),
            sub_operations: None,
        }
    }

    /// Replaces the status.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Adds the numbers of sub-operations.
    #[must_use]
    pub fn with_sub_operations(mut self, sub_operations: SubOperations) -> Self {
        self.sub_operations = Some(sub_operations);
        self
    }

    /// Adds the SOP Class, if it is known and fits into a command.
    #[must_use]
    pub fn with_sop_class(mut self, uid: Option<&str>) -> Self {
        self.affected_sop_class_uid = uid.map(str::to_owned);
        self
    }

    /// Adds the SOP Instance.
    #[must_use]
    pub fn with_sop_instance(mut self, uid: &str) -> Self {
        self.affected_sop_instance_uid = Some(uid.to_owned());
        self
    }

    /// Adds an Error Comment (0000,0902). It is cut to [`MAX_ERROR_COMMENT_LENGTH`]. Characters
    /// that VR LO does not allow in the default repertoire become `?`. It must not have patient
    /// data.
    #[must_use]
    pub fn with_comment(mut self, comment: &str) -> Self {
        let allowed = |c: char| if (c.is_ascii_graphic() && c != '\\') || c == ' ' { c } else { '?' };
        let comment: String = comment.chars().take(MAX_ERROR_COMMENT_LENGTH).map(allowed).collect();
        self.error_comment = (!comment.is_empty()).then_some(comment);
        self
    }

    /// Adds an Error ID (0000,0903) that the service class defines.
    #[must_use]
    pub fn with_error_id(mut self, id: u16) -> Self {
        self.error_id = Some(id);
        self
    }

    /// Adds the elements in which the error was found (0000,0901).
    #[must_use]
    pub fn with_offending_elements(mut self, tags: &[Tag]) -> Self {
        self.offending_elements = tags.to_vec();
        self
    }

    /// Returns the status.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// Returns the Command Field of the response.
    #[must_use]
    pub fn field(&self) -> CommandField {
        self.field
    }

    /// Returns the Error Comment, if there is one.
    #[must_use]
    pub fn error_comment(&self) -> Option<&str> {
        self.error_comment.as_deref()
    }

    /// Encodes it as a command set. Command Data Set Type says whether a data set follows.
    #[must_use]
    pub fn command_set(&self, data_set: DataSetPresence) -> CommandSet {
        let mut command = CommandSet::new();
        if let Some(uid) = &self.affected_sop_class_uid {
            command.set_uid(tags::AFFECTED_SOP_CLASS_UID, uid);
        }
        command.set_unsigned_short(tags::COMMAND_FIELD, self.field.0);
        command.set_unsigned_short(tags::MESSAGE_ID_BEING_RESPONDED_TO, self.message_id_being_responded_to);
        let data_set_type = match data_set {
            DataSetPresence::Absent => command_set::NO_DATA_SET,
            DataSetPresence::Present => command_set::DATA_SET_PRESENT,
        };
        command.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, data_set_type);
        command.set_unsigned_short(tags::STATUS, self.status.0);
        if !self.offending_elements.is_empty() {
            command.set_tags(tags::OFFENDING_ELEMENT, &self.offending_elements);
        }
        if let Some(comment) = &self.error_comment {
            command.set_text(tags::ERROR_COMMENT, comment);
        }
        if let Some(id) = self.error_id {
            command.set_unsigned_short(tags::ERROR_ID, id);
        }
        if let Some(uid) = &self.affected_sop_instance_uid {
            command.set_uid(tags::AFFECTED_SOP_INSTANCE_UID, uid);
        }
        if let Some(numbers) = &self.sub_operations {
            // VR US ends at 65,535. Higher numbers are sent as 65,535.
            let mut set = |tag, number| {
                command.set_unsigned_short(tag, u16::try_from(number).unwrap_or(u16::MAX));
            };
            if let Some(remaining) = numbers.remaining {
                set(tags::NUMBER_OF_REMAINING_SUBOPERATIONS, remaining);
            }
            set(tags::NUMBER_OF_COMPLETED_SUBOPERATIONS, numbers.completed);
            set(tags::NUMBER_OF_FAILED_SUBOPERATIONS, numbers.failed);
            set(tags::NUMBER_OF_WARNING_SUBOPERATIONS, numbers.warning);
        }
        command
    }
}

/// Whether a data set follows the command (PS3.7 E.1, Command Data Set Type).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSetPresence {
    /// No data set follows.
    Absent,
    /// A data set follows.
    Present,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store_command() -> CommandSet {
        let mut command = CommandSet::new();
        command.set_uid(tags::AFFECTED_SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.2");
        command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::C_STORE_RQ.0);
        command.set_unsigned_short(tags::MESSAGE_ID, 7);
        command.set_unsigned_short(tags::PRIORITY, 0);
        command.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::DATA_SET_PRESENT);
        command.set_uid(tags::AFFECTED_SOP_INSTANCE_UID, "1.2.3");
        command.set_text(tags::MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE, "MOVER");
        command.set_unsigned_short(tags::MOVE_ORIGINATOR_MESSAGE_ID, 9);
        command
    }

    fn refusal(command: &CommandSet) -> Response {
        match DimseRequest::parse(command) {
            Err(RequestError::Refused(response)) => *response,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_store_request_is_read_with_its_move_originator() {
        assert_eq!(
            DimseRequest::parse(&store_command()),
            Ok(DimseRequest::Store(StoreRequest {
                message_id: 7,
                affected_sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
                affected_sop_instance_uid: "1.2.3".into(),
                move_originator: Some(MoveOriginator { ae_title: "MOVER".into(), message_id: Some(9) }),
            }))
        );
    }

    #[test]
    fn a_missing_field_is_refused_by_its_own_status() {
        let mut command = store_command();
        command.set_uid(tags::AFFECTED_SOP_INSTANCE_UID, "");
        assert_eq!(refusal(&command).status(), Status::INVALID_SOP_INSTANCE);
        let mut command = store_command();
        command.set_uid(tags::AFFECTED_SOP_CLASS_UID, "");
        let response = refusal(&command);
        assert_eq!(response.status(), Status::MISTYPED_ARGUMENT);
        assert!(response.error_comment().unwrap().contains("(0000,0002)"), "{response:?}");
    }

    #[test]
    fn an_unknown_command_is_an_unrecognized_operation_with_the_matching_response_field() {
        let mut command = store_command();
        // N-DELETE-RQ.
        command.set_unsigned_short(tags::COMMAND_FIELD, 0x0150);
        let response = refusal(&command);
        assert_eq!(response.status(), Status::UNRECOGNIZED_OPERATION);
        assert_eq!(response.field(), CommandField(0x8150));
    }

    #[test]
    fn without_message_id_or_as_a_response_nothing_can_be_answered() {
        let mut command = CommandSet::new();
        command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::C_ECHO_RQ.0);
        assert_eq!(
            DimseRequest::parse(&command),
            Err(RequestError::Unanswerable(CommandSetError::Missing { tag: tags::MESSAGE_ID }))
        );
        command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::C_STORE_RSP.0);
        assert_eq!(DimseRequest::parse(&command), Err(RequestError::UnexpectedResponse(CommandField::C_STORE_RSP)));
    }

    #[test]
    fn a_cancel_names_the_request_it_is_about() {
        let mut command = CommandSet::new();
        command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::C_CANCEL_RQ.0);
        command.set_unsigned_short(tags::MESSAGE_ID_BEING_RESPONDED_TO, 3);
        assert_eq!(
            DimseRequest::parse(&command),
            Ok(DimseRequest::Cancel(CancelRequest { message_id_being_responded_to: 3 }))
        );
    }

    #[test]
    fn a_response_has_the_fields_of_its_table_and_a_comment_that_fits() {
        let response = Response::new(CommandField::C_FIND_RQ, 5, Status::IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS)
            .with_sop_class(Some("1.2.840.10008.5.1.4.1.2.2.1"))
            .with_offending_elements(&[Tag(0x0008, 0x0052)])
            .with_comment(&format!("bad\\level\u{e4}\n{}", "x".repeat(100)));
        let mut bytes = Vec::new();
        response.command_set(DataSetPresence::Absent).encode(&mut bytes);
        let read = CommandSet::decode(&bytes).unwrap();
        assert_eq!(read.unsigned_short(tags::COMMAND_FIELD), Ok(0x8020));
        assert_eq!(read.unsigned_short(tags::MESSAGE_ID_BEING_RESPONDED_TO), Ok(5));
        assert_eq!(read.unsigned_short(tags::STATUS), Ok(0xA900));
        assert_eq!(read.has_data_set(), Ok(false));
        assert_eq!(read.value(tags::OFFENDING_ELEMENT), Some(&[8, 0, 0x52, 0][..]));
        let comment = read.text(tags::ERROR_COMMENT).unwrap();
        assert_eq!(comment.len(), MAX_ERROR_COMMENT_LENGTH);
        assert!(comment.starts_with("bad?level??xxx"), "{comment}");
    }
}
