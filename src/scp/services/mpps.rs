//! Modality Performed Procedure Step (PS3.4 F.7), N-CREATE and N-SET.

use std::sync::Arc;

use dicom_dictionary_std::uids;
use tokio::task::spawn_blocking;

use super::incoming_identifier::ArrivingIdentifier;
use super::service::{ArrivedCommand, Begin, Boxed, DimseService, End, Operation, QueuedCommand, Session};
use super::worklist::Worklist;
use crate::dimse::Response;
use crate::dimse::command_set::CommandField;
use crate::dimse::message::DimseRequest;
use crate::model::clock::Clock;
use crate::model::status::Status;
use crate::model::uid::is_valid_uid;
use crate::qr::Identifier;
use crate::scp::service_class::{ListedSopClass, ServiceClass, SopClasses, no_extended_negotiation};
use crate::telemetry::metrics;
use crate::ul::pdu_io::PduReader;
use crate::worklist::{StepRefusal, WorklistItem, create_step, new_step_uid, set_step};

/// Maximum number of elements of a performed step. One lists all images, so it may be long.
const MAX_ELEMENTS: usize = 200_000;

/// Error ID of a step that is completed or discontinued (PS3.4 table F.7.2-2).
const MAY_NO_LONGER_BE_UPDATED: u16 = 0xA710;

static MPPS: ServiceClass = ServiceClass {
    grant: "mpps",
    sop_classes: SopClasses::Listed(&[ListedSopClass::scp(uids::MODALITY_PERFORMED_PROCEDURE_STEP)]),
    returned_by: None,
    extended_negotiation: no_extended_negotiation,
};

/// N-CREATE and N-SET of performed steps.
#[derive(Debug)]
pub(super) struct MppsService(pub(super) Option<Arc<Worklist>>);

/// Change that a request makes to the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepChange {
    Create,
    Set,
}

impl StepChange {
    fn field(self) -> CommandField {
        match self {
            Self::Create => CommandField::N_CREATE_RQ,
            Self::Set => CommandField::N_SET_RQ,
        }
    }
}

impl DimseService for MppsService {
    fn class(&self) -> &'static ServiceClass {
        &MPPS
    }

    fn is_provided(&self) -> bool {
        self.0.is_some()
    }

    fn begin(&self, command: &ArrivedCommand<'_>, session: &Session) -> Option<Begin> {
        let (change, request) = match command.request {
            DimseRequest::Create(request) => (StepChange::Create, request),
            DimseRequest::Set(request) => (StepChange::Set, request),
            _ => return None,
        };
        let mut answer = StepAnswer {
            change,
            message_id: request.message_id,
            sop_class_uid: request.sop_class_uid.clone(),
            sop_instance_uid: request.sop_instance_uid.clone(),
        };
        if change == StepChange::Create && answer.sop_instance_uid.is_empty() {
            // PS3.7 10.1.5.1.4: "if omitted, the performing DIMSE-service-user shall assign a
            // value".
            let Some(uid) = new_step_uid() else {
                return Some(Begin::Respond(answer.response(Status::PROCESSING_FAILURE)));
            };
            answer.sop_instance_uid = uid;
        }
        let refused = |status| Some(Begin::Respond(answer.response(status)));
        // An operation that was not agreed on for the context is an unrecognized one (PS3.7,
        // 0211H).
        let worklist = self.0.as_ref().filter(|_| *command.context.class == MPPS)?;
        if request.sop_class_uid != command.context.abstract_syntax {
            return refused(Status::NO_SUCH_SOP_CLASS);
        }
        if !is_valid_uid(&answer.sop_instance_uid) {
            return refused(Status::INVALID_SOP_INSTANCE);
        }
        if !command.has_data_set {
            return refused(Status::MISSING_ATTRIBUTE);
        }
        let Some(data_set) = ArrivingIdentifier::begin(&request.sop_class_uid, command.context, &session.memory) else {
            return refused(Status::PROCESSING_FAILURE);
        };
        let worklist = Arc::clone(worklist);
        Some(Begin::Receive(Box::new(StepReceiving { worklist, context_id: command.context_id, answer, data_set })))
    }
}

/// The parts of the response.
#[derive(Clone, Debug)]
struct StepAnswer {
    change: StepChange,
    message_id: u16,
    sop_class_uid: String,
    sop_instance_uid: String,
}

impl StepAnswer {
    fn response(&self, status: Status) -> Response {
        Response::new(self.change.field(), self.message_id, status)
            .with_sop_class(Some(&self.sop_class_uid))
            .with_sop_instance(&self.sop_instance_uid)
    }

    fn refusal(&self, refusal: StepRefusal) -> Response {
        let response = match refusal {
            StepRefusal::Duplicate => self.response(Status::DUPLICATE_SOP_INSTANCE),
            StepRefusal::Unknown => self.response(Status::NO_SUCH_SOP_INSTANCE),
            StepRefusal::Final => self.response(Status::PROCESSING_FAILURE).with_error_id(MAY_NO_LONGER_BE_UPDATED),
            StepRefusal::NoStatus => self.response(Status::MISSING_ATTRIBUTE),
            StepRefusal::EmptyStatus => self.response(Status::MISSING_ATTRIBUTE_VALUE),
            StepRefusal::Status => self.response(Status::INVALID_ATTRIBUTE_VALUE),
        };
        response.with_comment(&refusal.to_string())
    }
}

/// A performed step that is arriving.
struct StepReceiving {
    worklist: Arc<Worklist>,
    context_id: u8,
    answer: StepAnswer,
    data_set: ArrivingIdentifier,
}

impl Operation for StepReceiving {
    fn accept<'a>(&'a mut self, fragment: &'a [u8]) -> Boxed<'a, ()> {
        self.data_set.accept(fragment);
        Box::pin(async {})
    }

    fn finish<'a>(
        self: Box<Self>,
        session: &'a mut Session,
        _reader: &'a mut PduReader,
    ) -> Boxed<'a, Result<Option<QueuedCommand>, End>> {
        Box::pin(async move {
            let sender = session.agreement.calling_ae_title.to_string();
            let (context_id, answer) = (self.context_id, self.answer.clone());
            let changed = spawn_blocking(move || self.change(&sender)).await;
            let response = changed.unwrap_or_else(|_| answer.response(Status::PROCESSING_FAILURE));
            if response.status() == Status::SUCCESS {
                metrics::PERFORMED_STEPS_ACCEPTED.increment();
            } else {
                metrics::PERFORMED_STEPS_REFUSED.increment();
            }
            session.send(context_id, &response).await?;
            Ok(None)
        })
    }
}

impl StepReceiving {
    /// Changes the step, on a thread that may block. Returns the response, which comes after the
    /// commit.
    fn change(self, sender: &str) -> Response {
        let Self { worklist, answer, data_set, .. } = self;
        let encoding = data_set.encoding;
        let Ok(bytes) = data_set.finish() else {
            return answer.response(Status::RESOURCE_LIMITATION).with_comment("the data set is too long");
        };
        let attributes = match Identifier::decode_up_to(bytes.as_slice(), encoding, "", MAX_ELEMENTS) {
            Ok(identifier) => WorklistItem::new(identifier.elements, identifier.character_set),
            Err(error) => return answer.response(Status::INVALID_ATTRIBUTE_VALUE).with_comment(&error.to_string()),
        };
        let now_ms = Clock::System.now_ms();
        let (uid, sender, change) = (answer.sop_instance_uid.clone(), sender.to_owned(), answer.change);
        let changed = worklist.intake().change(move |tables| match change {
            StepChange::Create => create_step(tables, &uid, &attributes, &sender, now_ms),
            StepChange::Set => set_step(tables, &uid, &attributes, now_ms),
        });
        match changed {
            Ok(Ok(())) => answer.response(Status::SUCCESS),
            Ok(Err(refusal)) => answer.refusal(refusal),
            Err(error) => {
                tracing::error!(%error, "the index did not take a performed procedure step");
                answer.response(Status::PROCESSING_FAILURE).with_comment("the index did not take it")
            }
        }
    }
}
