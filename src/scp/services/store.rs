//! Storage (PS3.4 annex B): a C-STORE-RQ and its data set. [`crate::receive`] makes an object and a
//! row of the index of them. Only then is there a Success.

use std::sync::Arc;

use dicom_core::Tag;

use super::service::{ArrivedCommand, Begin, Boxed, DimseService, End, Operation, QueuedCommand, Session};
use crate::db::Committed;
use crate::dimse::Response;
use crate::dimse::command_set::CommandField;
use crate::dimse::message::{DimseRequest, StoreRequest};
use crate::model::status::Status;
use crate::receive::arriving::{Announced, Arriving};
use crate::receive::error::ReceiveError;
use crate::receive::storage::Storage;
use crate::scp::service_class::{ServiceClass, SopClasses, no_extended_negotiation};
use crate::telemetry::log_limit::LogLimit;
use crate::ul::pdu_io::PduReader;

static STORE: ServiceClass = ServiceClass {
    grant: "store",
    sop_classes: SopClasses::Storage,
    returned_by: Some("get"),
    extended_negotiation: no_extended_negotiation,
};

/// C-STORE.
#[derive(Debug)]
pub(super) struct StoreService {
    storage: Option<Arc<Storage>>,
    /// The node provides C-GET, which brings objects back in contexts of this service.
    returns: bool,
}

impl StoreService {
    pub(super) fn new(storage: Option<Arc<Storage>>, returns: bool) -> Self {
        Self { storage, returns }
    }

    fn receive(
        &self,
        request: &StoreRequest,
        command: &ArrivedCommand<'_>,
        session: &Session,
    ) -> Result<StoreReceiving, StoreError> {
        // Other services have no C-STORE (PS3.7 9.1, PS3.4 annex B).
        if *command.context.class != STORE {
            return Err(StoreError::SopClassNotOfContext);
        }
        // PS3.7 D.3.3.4.
        if session.agreement.requestor_is_no_scu.contains(&command.context.abstract_syntax) {
            return Err(StoreError::NotScu);
        }
        // The context was accepted for objects that a C-GET brings back.
        if !session.agreement.admission.services.contains(STORE.grant) {
            return Err(StoreError::NotAuthorized);
        }
        let storage = self.storage.as_ref().ok_or(StoreError::SopClassNotOfContext)?;
        if !command.has_data_set {
            return Err(StoreError::NoDataSet);
        }
        StoreReceiving::begin(storage, request, command, session)
    }
}

impl DimseService for StoreService {
    fn class(&self) -> &'static ServiceClass {
        &STORE
    }

    fn is_provided(&self) -> bool {
        self.storage.is_some() || self.returns
    }

    fn begin(&self, command: &ArrivedCommand<'_>, session: &Session) -> Option<Begin> {
        let DimseRequest::Store(request) = command.request else { return None };
        Some(match self.receive(request, command, session) {
            Ok(receiving) => Begin::Receive(Box::new(receiving)),
            Err(error) => {
                if let Some(storage) = self.storage.as_ref().filter(|_| !error.is_ours()) {
                    storage.log_refused(&session.sender, &request.affected_sop_instance_uid, &error.comment());
                }
                Begin::Respond(StoreResponse::failure(Answered::of(request), &error).into_response())
            }
        })
    }

    fn log_limit(&self) -> Option<&LogLimit> {
        self.storage.as_ref().map(|storage| storage.log_limit())
    }

    fn idle(&self) -> Boxed<'_, ()> {
        Box::pin(async {
            // An object that a peer has sent completely gets its row or is removed.
            if let Some(storage) = &self.storage {
                storage.under_way.ended().await;
            }
        })
    }
}

/// The reason why a C-STORE-RQ is refused.
#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error("not the SOP Class of this presentation context")]
    SopClassNotOfContext,
    #[error("the role of SCU was not negotiated for this SOP Class")]
    NotScu,
    #[error("this AE title may not store here")]
    NotAuthorized,
    #[error("C-STORE-RQ without a data set")]
    NoDataSet,
    #[error(transparent)]
    Receive(#[from] ReceiveError),
}

impl StoreError {
    /// Returns the status (PS3.4 table B.2-1, PS3.7 9.1.1.1.9). There is no `_` arm, so that a new
    /// error gets its status here.
    fn status(&self) -> Status {
        let error = match self {
            Self::SopClassNotOfContext | Self::NotScu => return Status::SOP_CLASS_NOT_SUPPORTED,
            Self::NotAuthorized => return Status::NOT_AUTHORIZED,
            Self::NoDataSet => return Status::CANNOT_UNDERSTAND,
            Self::Receive(error) => error,
        };
        match error {
            ReceiveError::InvalidInstanceUid => Status::INVALID_SOP_INSTANCE,
            ReceiveError::NotUnderstood(_) | ReceiveError::MissingUid(_) => Status::CANNOT_UNDERSTAND,
            ReceiveError::OtherInstance | ReceiveError::OtherClass | ReceiveError::OtherStudy => {
                Status::DATA_SET_DOES_NOT_MATCH_SOP_CLASS
            }
            // PS3.7 C.5.5: another object has the UID. The sender must not believe that this one is
            // kept.
            ReceiveError::Duplicate => Status::DUPLICATE_SOP_INSTANCE,
            // The failure is ours. The sender may try again.
            ReceiveError::Object(_)
            | ReceiveError::Index(_)
            | ReceiveError::ThreadEnded
            | ReceiveError::TooMuchAtOnce => Status::OUT_OF_RESOURCES,
        }
    }

    fn offending_elements(&self) -> Vec<Tag> {
        match self {
            Self::Receive(error) => error.offending_elements(),
            Self::SopClassNotOfContext | Self::NotScu | Self::NotAuthorized | Self::NoDataSet => Vec::new(),
        }
    }

    /// Returns the Error Comment, in the words of DIMSE.
    fn comment(&self) -> String {
        match self {
            Self::Receive(ReceiveError::InvalidInstanceUid) => "Affected SOP Instance UID is not a UID".into(),
            Self::Receive(ReceiveError::OtherInstance) => {
                "data set has another SOP Instance UID than the command".into()
            }
            Self::Receive(ReceiveError::OtherClass) => "data set has another SOP Class UID than the command".into(),
            Self::Receive(error) => error.comment(),
            other => other.to_string(),
        }
    }

    /// Whether the operator of this node should look.
    fn is_ours(&self) -> bool {
        matches!(self, Self::Receive(error) if error.is_ours())
    }
}

/// Fields of the request that a C-STORE-RSP repeats (PS3.7 table 9.3-2).
#[derive(Clone, Copy)]
struct Answered<'a> {
    message_id: u16,
    sop_class_uid: &'a str,
    sop_instance_uid: &'a str,
}

impl<'a> Answered<'a> {
    fn of(request: &'a StoreRequest) -> Self {
        Self {
            message_id: request.message_id,
            sop_class_uid: &request.affected_sop_class_uid,
            sop_instance_uid: &request.affected_sop_instance_uid,
        }
    }
}

/// Returns the statuses of this service, each with what leads to it, for the conformance statement.
pub(in crate::scp) fn statuses() -> Vec<(Status, &'static str)> {
    use ReceiveError::{Duplicate, InvalidInstanceUid, MissingUid, OtherClass, OtherInstance, TooMuchAtOnce};
    let failures: [(StoreError, &str); 10] = [
        (Duplicate.into(), "another object is kept under this SOP Instance UID, and this one is not"),
        (
            InvalidInstanceUid.into(),
            "the Affected SOP Instance UID is missing or too long, or has `*`, `?`, a backslash or a control character. \
             Other texts that are no UID are stored, and `dcmdex check` lists them",
        ),
        (StoreError::SopClassNotOfContext, "the SOP Class is not that of the presentation context"),
        (StoreError::NotScu, "the peer asked to be the SCP of this SOP Class and not its SCU"),
        (StoreError::NotAuthorized, "the peer may not store; its storage contexts were accepted only for C-GET"),
        (TooMuchAtOnce.into(), "out of resources: space, queue or disk; the sender should try again"),
        (OtherInstance.into(), "the data set has another SOP Instance than the command"),
        (OtherClass.into(), "the data set has another SOP Class than the command"),
        (StoreError::NoDataSet, "the C-STORE-RQ has no data set"),
        (MissingUid(Vec::new()).into(), "the data set cannot be read, or lacks a UID that an instance needs"),
    ];
    let mut statuses = vec![(Status::SUCCESS, "the object is kept and indexed, now or before")];
    statuses.extend(failures.map(|(error, meaning)| (error.status(), meaning)));
    statuses.push((Status::MISTYPED_ARGUMENT, "the Affected SOP Class UID is missing or malformed"));
    statuses.sort_by_key(|(status, _)| *status);
    statuses
}

/// A C-STORE-RSP. A success takes the proof of commit, so it cannot be sent early.
#[derive(Debug)]
struct StoreResponse(Response);

impl StoreResponse {
    /// Returns Success (PS3.4 B.2.3).
    fn success(request: Answered<'_>, _proof: Committed) -> Self {
        Self(Self::to(request, Status::SUCCESS))
    }

    /// Returns any other status.
    fn failure(request: Answered<'_>, error: &StoreError) -> Self {
        let response = Self::to(request, error.status())
            .with_comment(&error.comment())
            .with_offending_elements(&error.offending_elements());
        Self(response)
    }

    fn to(request: Answered<'_>, status: Status) -> Response {
        Response::new(CommandField::C_STORE_RQ, request.message_id, status)
            .with_sop_class(Some(request.sop_class_uid))
            .with_sop_instance(request.sop_instance_uid)
    }

    /// Returns the message to send.
    fn into_response(self) -> Response {
        self.0
    }
}

/// Tells the audit trail of an object.
fn note(session: &mut Session, sop_class_uid: &str, study: (String, String)) {
    if !session.node.audit.is_on() {
        return;
    }
    let event = session.received.add(&session.sender, study, sop_class_uid);
    if let Some(event) = event {
        session.node.audit.note(event);
    }
}

/// An instance that is arriving.
struct StoreReceiving {
    context_id: u8,
    message_id: u16,
    announced: Arc<Announced>,
    arriving: Arriving,
}

impl StoreReceiving {
    /// Begins with the command.
    ///
    /// # Errors
    /// When the data set need not be read.
    fn begin(
        storage: &Arc<Storage>,
        request: &StoreRequest,
        command: &ArrivedCommand<'_>,
        session: &Session,
    ) -> Result<Self, StoreError> {
        let context = command.context;
        if request.affected_sop_class_uid != context.abstract_syntax {
            return Err(StoreError::SopClassNotOfContext);
        }
        let announced = Arc::new(Announced {
            sop_class_uid: request.affected_sop_class_uid.clone(),
            sop_instance_uid: request.affected_sop_instance_uid.clone(),
            transfer_syntax: context.transfer_syntax.clone(),
            study_instance_uid: None,
        });
        let arriving = Arriving::begin(storage, Arc::clone(&announced), &session.sender, &session.memory)?;
        Ok(Self { context_id: command.context_id, message_id: request.message_id, announced, arriving })
    }
}

impl Operation for StoreReceiving {
    fn accept<'a>(&'a mut self, fragment: &'a [u8]) -> Boxed<'a, ()> {
        Box::pin(self.arriving.accept(fragment))
    }

    /// Stores the instance and answers.
    fn finish<'a>(
        self: Box<Self>,
        session: &'a mut Session,
        _reader: &'a mut PduReader,
    ) -> Boxed<'a, Result<Option<QueuedCommand>, End>> {
        Box::pin(async move {
            let Self { context_id, message_id, announced, arriving } = *self;
            let request = Answered {
                message_id,
                sop_class_uid: &announced.sop_class_uid,
                sop_instance_uid: &announced.sop_instance_uid,
            };
            let response = match arriving.finish().await {
                Ok(arrived) => {
                    note(session, &announced.sop_class_uid, (arrived.study_instance_uid, arrived.patient_id));
                    StoreResponse::success(request, arrived.committed)
                }
                Err(error) => {
                    let error = StoreError::Receive(error);
                    session.log(&error, error.is_ours());
                    StoreResponse::failure(request, &error)
                }
            };
            session.send(context_id, &response.into_response()).await.map(|()| None)
        })
    }
}
