//! The messages of an established association, from the first command to its end.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use tracing::debug;

use crate::dimse::Response;
use crate::dimse::command_set::CommandSet;
use crate::dimse::message::{DimseRequest, RequestError, unrecognized};
use crate::dimse::pdata::{FragmentOutcome, Pdv, put_message};
use crate::scp::pace::Pace;
use crate::scp::services::event_reports::Due;
use crate::scp::services::service::{
    ArrivedCommand, Begin, DimseService, End, Operation, QueuedCommand, Session, pdu_type,
};
use crate::shares::Shares;
use crate::ul::pdu_io::{IncomingPdu, PduReader, Timeouts};

/// An association and the services that answer on it.
pub(super) struct Conversation {
    pub(super) session: Session,
    services: Arc<[Arc<dyn DimseService>]>,
    data_set: ExpectedDataSet,
    pace: Pace,
    /// All associations of the node.
    associations: Arc<Shares>,
}

/// Purpose of the data set that arrives.
enum ExpectedDataSet {
    /// None is expected.
    None,
    /// It is read and dropped. Then its request is answered with this.
    Refused { context_id: u8, response: Response },
    /// It belongs to a request of a service.
    Of(Box<dyn Operation>),
}

impl Conversation {
    pub(super) fn new(session: Session, services: Arc<[Arc<dyn DimseService>]>, associations: Arc<Shares>) -> Self {
        Self { session, services, data_set: ExpectedDataSet::None, pace: Pace::new(Instant::now()), associations }
    }

    /// Answers messages until the association ends.
    pub(super) async fn run(&mut self, reader: &mut PduReader) -> End {
        let options = Arc::clone(&self.session.node.options);
        let shutdown = self.session.node.shutdown.clone();
        let mut stopping = pin!(shutdown.cancelled());
        loop {
            let in_message = self.session.assembler().in_message();
            let first_byte = Some(if in_message { options.read_timeout } else { options.idle_timeout });
            let timeouts = Timeouts { first_byte, rest: options.read_timeout };
            let incoming = tokio::select! {
                biased;
                () = &mut stopping, if !in_message => return End::Stopping,
                due = self.session.reports.next(), if !in_message => {
                    match self.report(due).await {
                        Ok(()) => continue,
                        Err(end) => return end,
                    }
                }
                incoming = reader.next(timeouts) => incoming,
            };
            let done = match incoming {
                Ok(IncomingPdu::Pdv(pdv)) => match self.on_pdv(&pdv).await {
                    Ok(Some(operation)) => self.finish(operation, reader).await,
                    Ok(None) => Ok(()),
                    Err(end) => Err(end),
                },
                // Sta6, AR-2: our user, the DIMSE layer, agrees.
                Ok(IncomingPdu::ReleaseRequest) => Err(End::Released),
                Ok(IncomingPdu::Abort { source, reason }) => Err(End::AbortedByPeer { source_code: source, reason }),
                Ok(other) => Err(End::UnexpectedPdu(pdu_type(&other))),
                Err(error) => Err(End::Read(error)),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Takes a fragment. Returns the operation whose data set it completes.
    async fn on_pdv(&mut self, pdv: &Pdv<'_>) -> Result<Option<Box<dyn Operation>>, End> {
        match self.session.assembler().accept(pdv)? {
            FragmentOutcome::CommandFragment => Ok(None),
            FragmentOutcome::Command { context_id, command, has_data_set } => {
                self.on_command(context_id, &command, has_data_set).await.map(|()| None)
            }
            FragmentOutcome::DataSetFragment { is_last } => self.on_data_set(pdv.fragment, is_last).await,
        }
    }

    /// Takes a command. Exactly one service knows it, or the message layer refuses it.
    async fn on_command(&mut self, context_id: u8, command: &CommandSet, has_data_set: bool) -> Result<(), End> {
        let context = self.session.agreement.contexts.get(&context_id).ok_or(End::UnknownContext(context_id))?;
        let response = match DimseRequest::parse(command) {
            // The request was answered before its C-CANCEL-RQ came.
            Ok(DimseRequest::Cancel(_)) => return Ok(()),
            Ok(request) => {
                let begun = ArrivedCommand { context_id, context, request: &request, has_data_set };
                match self.services.iter().find_map(|service| service.begin(&begun, &self.session)) {
                    Some(Begin::Receive(operation)) => {
                        self.data_set = ExpectedDataSet::Of(operation);
                        return Ok(());
                    }
                    Some(Begin::Respond(response)) => response,
                    None => unrecognized(command).map_err(End::Unanswerable)?,
                }
            }
            Err(RequestError::Refused(response)) => *response,
            Err(RequestError::Unanswerable(error)) => return Err(End::Unanswerable(error)),
            Err(RequestError::UnexpectedResponse(field)) => return self.session.on_response(command, field),
        };
        if has_data_set {
            self.data_set = ExpectedDataSet::Refused { context_id, response };
            return Ok(());
        }
        if let Some(wait) = self.pace.wait(Instant::now(), self.associations.taken()) {
            let shutdown = &self.session.node.shutdown;
            // The answer is not lost when the node stops.
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.cancelled() => {}
            }
        }
        self.session.send(context_id, &response).await
    }

    async fn on_data_set(&mut self, fragment: &[u8], is_last: bool) -> Result<Option<Box<dyn Operation>>, End> {
        if let ExpectedDataSet::Of(operation) = &mut self.data_set {
            operation.accept(fragment).await;
        }
        if !is_last {
            return Ok(None);
        }
        match std::mem::replace(&mut self.data_set, ExpectedDataSet::None) {
            ExpectedDataSet::None => Ok(None),
            ExpectedDataSet::Refused { context_id, response } => {
                self.session.send(context_id, &response).await.map(|()| None)
            }
            ExpectedDataSet::Of(operation) => Ok(Some(operation)),
        }
    }

    /// Lets a service answer. Then serves the command that came meanwhile, if there is one.
    async fn finish(&mut self, operation: Box<dyn Operation>, reader: &mut PduReader) -> Result<(), End> {
        match operation.finish(&mut self.session, reader).await? {
            Some(QueuedCommand { context_id, command, has_data_set }) => {
                self.on_command(context_id, &command, has_data_set).await
            }
            None => Ok(()),
        }
    }

    /// Does what is due about an event report.
    async fn report(&mut self, due: Option<Due>) -> Result<(), End> {
        let session = &mut self.session;
        match due {
            None => Ok(()),
            Some(Due::Unanswered(report)) => {
                debug!("a report was not answered in time; it goes out on another association");
                report.deliver_elsewhere(&session.agreement.calling_ae_title, &session.node);
                Ok(())
            }
            Some(Due::Send(report)) => {
                let (context_id, request, data_set) = session.reports.send(report);
                // Not in the memory for responses, which stays: this may be megabytes.
                let mut outgoing = Vec::new();
                let max_length = session.agreement.peer_max_length;
                put_message(&mut outgoing, context_id, &request.command_set(), Some(&data_set), max_length);
                drop(data_set);
                session.writer.send(&outgoing).await.map_err(End::Write)
            }
        }
    }
}
