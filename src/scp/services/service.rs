//! The trait of a DIMSE service, and what a service sees of its association.
//!
//! A service is one file beside this one and one line in [`super::list`]. It takes the commands
//! that are its own ([`DimseService::begin`]). If a data set follows, the service gives an
//! [`Operation`] that reads it and answers. While it answers, the [`Session`] is its own: it sends,
//! and it listens for C-CANCEL and for the end of the association.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use dicom_ul::pdu::{AbortRQServiceProviderReason as ProviderReason, AbortRQSource, Pdu};
use tracing::{debug, error, info};

use super::audited::ReceivedStudies;
use super::event_reports::EventReports;
use crate::db::ReceivedFrom;
use crate::dimse::Response;
use crate::dimse::command_set::{CommandField, CommandSet, CommandSetError};
use crate::dimse::message::{DataSetPresence, DimseRequest, PeerResponse, RequestError};
use crate::dimse::pdata::{FragmentOutcome, MessageAssembler, PDataError, put_message};
use crate::model::status::{Status, StatusClass};
use crate::scp::negotiation::{Agreement, Policy, PresentationContext};
use crate::scp::node_context::NodeContext;
use crate::scp::service_class::ServiceClass;
use crate::shares::PeerMemory;
use crate::telemetry::log_limit::LogLimit;
use crate::ul::pdu_io::{IncomingPdu, PduReader, PduWriter, ReadError};

/// A future of a trait method.
pub(in crate::scp) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A DIMSE service of a node.
pub(in crate::scp) trait DimseService: fmt::Debug + Send + Sync {
    /// Its description for negotiation.
    fn class(&self) -> &'static ServiceClass;

    /// Whether this node provides it. Without that, its presentation contexts are refused. Its
    /// commands still reach it, so that it refuses them with the right status.
    fn is_provided(&self) -> bool;

    /// Begins with a command. `None` if the command is one of another service.
    fn begin(&self, command: &ArrivedCommand<'_>, session: &Session) -> Option<Begin>;

    /// Adds to the settings of negotiation, before the node listens.
    fn prepare<'a>(&'a self, _policy: &'a mut Policy) -> Boxed<'a, ()> {
        Box::pin(async {})
    }

    /// Continues what an earlier process left, when the node begins to serve.
    fn resume<'a>(&'a self, _node: &'a NodeContext) -> Boxed<'a, ()> {
        Box::pin(async {})
    }

    /// The log lines about objects that were refused, if it takes objects.
    fn log_limit(&self) -> Option<&LogLimit> {
        None
    }

    /// Waits until nothing is under way any more, after the last association.
    fn idle(&self) -> Boxed<'_, ()> {
        Box::pin(async {})
    }
}

/// A command that has arrived.
pub(in crate::scp) struct ArrivedCommand<'a> {
    pub(in crate::scp) context_id: u8,
    pub(in crate::scp) context: &'a PresentationContext,
    pub(in crate::scp) request: &'a DimseRequest,
    /// Whether a data set follows.
    pub(in crate::scp) has_data_set: bool,
}

/// Reaction of a service to a command.
pub(in crate::scp) enum Begin {
    /// It answers at once. A data set that follows is read and dropped first.
    Respond(Response),
    /// It reads the data set that follows.
    Receive(Box<dyn Operation>),
}

/// A request whose data set arrives and that is answered then.
pub(in crate::scp) trait Operation: Send {
    /// Takes the next fragment of the data set.
    fn accept<'a>(&'a mut self, fragment: &'a [u8]) -> Boxed<'a, ()>;

    /// Answers, after the last fragment.
    ///
    /// A peer may send a command while it is being answered. PS3.7 9.3 has no such thing without an
    /// Asynchronous Operations Window, but simple senders do it. Such a command is returned, and is
    /// served next.
    ///
    /// # Errors
    /// When the association ends.
    fn finish<'a>(
        self: Box<Self>,
        session: &'a mut Session,
        reader: &'a mut PduReader,
    ) -> Boxed<'a, Result<Option<QueuedCommand>, End>>;
}

/// A command that came while a request was being answered.
pub(in crate::scp) struct QueuedCommand {
    pub(in crate::scp) context_id: u8,
    pub(in crate::scp) command: CommandSet,
    pub(in crate::scp) has_data_set: bool,
}

/// Input from the peer that came while a request was being answered.
pub(in crate::scp) enum Interleaved {
    /// Nothing to act on yet.
    Nothing,
    /// A C-CANCEL-RQ for the request.
    Cancel,
    /// A response to a request of this node.
    Response(PeerResponse),
    /// A command that has to wait.
    Command(QueuedCommand),
}

/// State of an established association, as services use it.
pub(in crate::scp) struct Session {
    pub(in crate::scp) agreement: Agreement,
    pub(in crate::scp) node: NodeContext,
    /// The sender of what is received.
    pub(in crate::scp) sender: Arc<ReceivedFrom>,
    /// The memory of the peer.
    pub(in crate::scp) memory: PeerMemory,
    pub(in crate::scp) writer: PduWriter,
    pub(in crate::scp) answered: ResponseCounts,
    pub(in crate::scp) reports: EventReports,
    /// Studies that the association has brought, for the audit trail.
    pub(in crate::scp) received: ReceivedStudies,
    assembler: MessageAssembler,
    /// The log already has a failure of this node on this association.
    own_failure_logged: bool,
    /// The log has the failure that the next response tells.
    next_failure_logged: bool,
    /// The response that is being encoded. Its memory is kept.
    outgoing: Vec<u8>,
}

impl Session {
    pub(in crate::scp) fn new(
        agreement: Agreement,
        node: NodeContext,
        sender: ReceivedFrom,
        memory: PeerMemory,
        writer: PduWriter,
    ) -> Self {
        Self {
            agreement,
            node,
            sender: Arc::new(sender),
            memory,
            writer,
            answered: ResponseCounts::default(),
            reports: EventReports::default(),
            received: ReceivedStudies::default(),
            assembler: MessageAssembler::new(),
            own_failure_logged: false,
            next_failure_logged: false,
            outgoing: Vec::new(),
        }
    }

    /// The state of the message that is arriving.
    pub(in crate::scp) fn assembler(&mut self) -> &mut MessageAssembler {
        &mut self.assembler
    }

    /// Sends a response without a data set, as one write.
    pub(in crate::scp) async fn send(&mut self, context_id: u8, response: &Response) -> Result<(), End> {
        self.send_with(context_id, response, None).await
    }

    /// Sends a response, as one write.
    pub(in crate::scp) async fn send_with(
        &mut self,
        context_id: u8,
        response: &Response,
        data_set: Option<&[u8]>,
    ) -> Result<(), End> {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        outgoing.clear();
        let sent = self.send_message(&mut outgoing, context_id, response, data_set).await;
        self.outgoing = outgoing;
        sent
    }

    /// Sends a response behind messages that are encoded already, as one write.
    pub(in crate::scp) async fn send_behind(
        &mut self,
        messages: &mut Vec<u8>,
        context_id: u8,
        response: &Response,
    ) -> Result<(), End> {
        self.send_message(messages, context_id, response, None).await
    }

    async fn send_message(
        &mut self,
        outgoing: &mut Vec<u8>,
        context_id: u8,
        response: &Response,
        data_set: Option<&[u8]>,
    ) -> Result<(), End> {
        let presence = if data_set.is_some() { DataSetPresence::Present } else { DataSetPresence::Absent };
        let command = response.command_set(presence);
        put_message(outgoing, context_id, &command, data_set, self.agreement.peer_max_length);
        self.log_failed(response);
        self.writer.send(outgoing).await.map_err(End::Write)?;
        self.answered.count(response);
        Ok(())
    }

    /// Logs a request that was refused or that failed, and why. A C-STORE-RQ has a line of its own,
    /// where the object is received. An Error Comment of this node never has a value of a key.
    fn log_failed(&mut self, response: &Response) {
        let (field, status) = (response.field(), response.status());
        let is_logged = std::mem::replace(&mut self.next_failure_logged, false);
        // A retrieval of which a part failed ends with a warning.
        let is_failure = match status.class() {
            StatusClass::Failure => true,
            StatusClass::Warning => matches!(field, CommandField::C_GET_RSP | CommandField::C_MOVE_RSP),
            StatusClass::Success | StatusClass::Cancel | StatusClass::Pending => false,
        };
        if !is_failure || is_logged || field == CommandField::C_STORE_RSP {
            return;
        }
        let what =
            if status == Status::SUB_OPERATIONS_WITH_FAILURES { "was not served in full" } else { "was not served" };
        let why = response.error_comment().unwrap_or("no reason was told");
        let line = format!("{} {what} ({status}): {why}", field.request());
        if self.sender.address.is_none_or(|address| self.node.log_limit.allows(address, &line)) {
            info!(sender = %self.sender, %status, "{line}");
        }
    }

    /// Logs a failure. The operator sees the first failure of this node on each association: a full
    /// disk fails a thousand instances.
    pub(in crate::scp) fn log(&mut self, failure: &(dyn std::error::Error + 'static), is_ours: bool) {
        if is_ours && !std::mem::replace(&mut self.own_failure_logged, true) {
            error!(error = failure, "a request could not be served");
            self.next_failure_logged = true;
        } else {
            debug!("a request was not served: {failure}");
        }
    }

    /// Takes what came while the request with this Message ID is being answered.
    pub(in crate::scp) fn interleaved(
        &mut self,
        incoming: Result<IncomingPdu<'_>, ReadError>,
        message_id: u16,
    ) -> Result<Interleaved, End> {
        let pdv = match incoming? {
            IncomingPdu::Pdv(pdv) => pdv,
            IncomingPdu::ReleaseRequest => return Err(End::Released),
            IncomingPdu::Abort { source, reason } => return Err(End::AbortedByPeer { source_code: source, reason }),
            other => return Err(End::UnexpectedPdu(pdu_type(&other))),
        };
        let (context_id, command, has_data_set) = match self.assembler.accept(&pdv)? {
            FragmentOutcome::CommandFragment => return Ok(Interleaved::Nothing),
            FragmentOutcome::Command { context_id, command, has_data_set } => (context_id, command, has_data_set),
            // After a command that announces a data set nothing is read until its turn comes. A
            // C-CANCEL-RQ has none.
            FragmentOutcome::DataSetFragment { .. } => return Err(End::Fragments(PDataError::UnexpectedDataSet)),
        };
        match DimseRequest::parse(&command) {
            // One for another message comes too late or has a wrong number.
            Ok(DimseRequest::Cancel(cancel)) => {
                let is_meant = cancel.message_id_being_responded_to == message_id;
                Ok(if is_meant { Interleaved::Cancel } else { Interleaved::Nothing })
            }
            Err(RequestError::UnexpectedResponse(CommandField::N_EVENT_REPORT_RSP)) if !has_data_set => {
                self.on_response(&command, CommandField::N_EVENT_REPORT_RSP).map(|()| Interleaved::Nothing)
            }
            Err(RequestError::UnexpectedResponse(_)) if !has_data_set => {
                let response = PeerResponse::parse(&command).map_err(End::Unanswerable)?;
                Ok(response.map_or(Interleaved::Nothing, Interleaved::Response))
            }
            _ => Ok(Interleaved::Command(QueuedCommand { context_id, command, has_data_set })),
        }
    }

    /// Takes a response outside of any operation. It answers an event report, or it is unexpected.
    pub(in crate::scp) fn on_response(&mut self, command: &CommandSet, field: CommandField) -> Result<(), End> {
        let response = PeerResponse::parse(command).map_err(End::Unanswerable)?;
        let Some(response) = response.filter(|_| field == CommandField::N_EVENT_REPORT_RSP) else {
            return Err(End::UnexpectedResponse(field));
        };
        let answer = (response.message_id_being_responded_to, response.status);
        if self.reports.on_response(answer, &self.agreement.calling_ae_title, &self.node) {
            Ok(())
        } else {
            Err(End::UnexpectedResponse(field))
        }
    }
}

/// Returns the refusal of a request whose SOP Class is not that of its presentation context (PS3.7
/// 9.1.1 to 9.1.5: "Refused: SOP Class not supported").
pub(in crate::scp) fn sop_class_not_supported(request: CommandField, message_id: u16, sop_class_uid: &str) -> Response {
    Response::new(request, message_id, Status::SOP_CLASS_NOT_SUPPORTED)
        .with_sop_class(Some(sop_class_uid))
        .with_comment("not the SOP Class of this presentation context")
}

/// The number of responses of an association, for its line in the log.
#[derive(Debug, Default)]
pub(in crate::scp) struct ResponseCounts(BTreeMap<(u16, Status), u64>);

impl ResponseCounts {
    fn count(&mut self, response: &Response) {
        *self.0.entry((response.field().0, response.status())).or_default() += 1;
    }

    pub(in crate::scp) fn count_pending(&mut self, field: CommandField, answers: u64) {
        *self.0.entry((field.0, Status::PENDING)).or_default() += answers;
    }
}

impl fmt::Display for ResponseCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (index, ((field, status), count)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{count} x {} {status}", CommandField(*field))?;
        }
        Ok(())
    }
}

/// Reason why an association ended.
#[derive(Debug, thiserror::Error)]
pub(in crate::scp) enum End {
    #[error("released by the peer")]
    Released,
    #[error("aborted by the peer (source {source_code}, reason {reason})")]
    AbortedByPeer { source_code: u8, reason: u8 },
    #[error("aborted: the node is stopping")]
    Stopping,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("connection lost while sending: {0}")]
    Write(#[source] io::Error),
    #[error("aborted: PDU of type {0:02X}H was not expected")]
    UnexpectedPdu(u8),
    #[error("aborted: {0}")]
    Fragments(#[from] PDataError),
    #[error("aborted: message in presentation context {0}, which was not accepted")]
    UnknownContext(u8),
    #[error("aborted: request that cannot be answered: {0}")]
    Unanswerable(CommandSetError),
    #[error("aborted: unexpected {0}")]
    UnexpectedResponse(CommandField),
    #[error("aborted: {0} while another request is being answered")]
    UnexpectedRequest(CommandField),
    #[error("aborted: an object could not be read to its end")]
    BrokenObject,
    #[error("aborted: no answer to a C-STORE-RQ in time")]
    NoAnswer,
}

impl End {
    /// Returns the PDU to send, if the peer has to be told.
    pub(in crate::scp) fn last_pdu(&self) -> Option<Pdu> {
        let provider = |reason| Some(Pdu::AbortRQ { source: AbortRQSource::ServiceProvider(reason) });
        match self {
            Self::Released => Some(Pdu::ReleaseRP),
            Self::AbortedByPeer { .. } | Self::Write(_) => None,
            // The DIMSE layer is the user of the upper layer.
            Self::Stopping
            | Self::Unanswerable(_)
            | Self::UnexpectedResponse(_)
            | Self::UnexpectedRequest(_)
            | Self::BrokenObject
            | Self::NoAnswer => Some(Pdu::AbortRQ { source: AbortRQSource::ServiceUser }),
            Self::UnexpectedPdu(_) => provider(ProviderReason::UnexpectedPdu),
            Self::Fragments(_) | Self::UnknownContext(_) => provider(ProviderReason::InvalidPduParameter),
            Self::Read(error) => match error {
                ReadError::Closed | ReadError::ClosedInsidePdu | ReadError::Connection(_) => None,
                ReadError::Silence | ReadError::SlowPdu | ReadError::NoMemory => {
                    provider(ProviderReason::ReasonNotSpecified)
                }
                ReadError::UnknownPdu(_) => provider(ProviderReason::UnrecognizedPdu),
                ReadError::BadLength { .. } | ReadError::PData(_) => provider(ProviderReason::InvalidPduParameter),
            },
        }
    }
}

/// Returns the type of a PDU (PS3.8 9.3.1).
pub(in crate::scp) fn pdu_type(incoming: &IncomingPdu<'_>) -> u8 {
    match incoming {
        IncomingPdu::AssociateRequest(_) => 0x01,
        IncomingPdu::Pdv(_) => 0x04,
        IncomingPdu::ReleaseRequest => 0x05,
        IncomingPdu::ReleaseResponse => 0x06,
        IncomingPdu::Abort { .. } => 0x07,
        IncomingPdu::AssociateAccept(_) => 0x02,
        IncomingPdu::AssociateReject(_) => 0x03,
    }
}
