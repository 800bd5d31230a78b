//! The life of one association, as its acceptor (PS3.8 9.2): request, negotiation, messages, release or abort.

mod commitment;
mod commitments;
mod retrieval;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dicom_ul::pdu::{AbortRQServiceProviderReason as ProviderReason, AbortRQSource, Pdu};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, info_span};

use commitments::Commitments;

use super::options::Options;
use super::services::{commit, echo, find, retrieve, sop_class_not_supported, store};
use crate::access::peers::PeerService;
use crate::db::ReceivedFrom;
use crate::dimse::command_set::{CommandField, CommandSet, CommandSetError};
use crate::dimse::message::{DataSetPresence, DimseRequest, PeerResponse, RequestError, StoreRequest};
use crate::dimse::pdata::{FragmentOutcome, MessageAssembler, PDataError, Pdv, put_message};
use crate::dimse::{Response, Status};
use crate::model::peer::CountedAs;
use crate::qr::FindError;
use crate::scp::negotiation::{self, Agreement, Answer};
use crate::scp::shared::{Services, Shared};
use crate::shares::{CountedPeer, PeerMemory, Share};
use crate::telemetry::metrics;
use crate::ul::associate::{PresentationContext, printable};
use crate::ul::certificates::handshake_failure;
use crate::ul::pdu_io::{self, IncomingPdu, Patience, PduReader, PduWriter, ReadError};
use crate::ul::stream::Stream;
use crate::ul::tls::Tls;
use crate::ul::tls::Transport;

/// After the order to stop, how long a peer that has had its last PDU may take to close the connection.
const CLOSE_PATIENCE_WHEN_STOPPING: Duration = Duration::from_millis(500);

/// How often a query that is to stop is told so: SQLite hears it only while a statement runs.
const STOP_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// The longest AE title that the wire can carry.
const AE_TITLE_LENGTH: usize = 16;

/// How an association ended.
#[derive(Debug, thiserror::Error)]
enum End {
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
    #[error("aborted: {0} that nobody asked for")]
    UnexpectedResponse(CommandField),
    #[error("aborted: {0} while another request is being answered")]
    UnexpectedRequest(CommandField),
    #[error("aborted: an object could not be read to its end")]
    BrokenObject,
    #[error("aborted: no answer to a C-STORE-RQ in time")]
    NoAnswer,
}

impl End {
    /// The PDU to send, if the peer still has to be told.
    fn last_pdu(&self) -> Option<Pdu> {
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

/// What was answered on an association, for its line in the log.
#[derive(Debug, Default)]
struct Answered(BTreeMap<(u16, Status), u64>);

impl Answered {
    fn count(&mut self, response: &Response) {
        *self.0.entry((response.field().0, response.status())).or_default() += 1;
    }

    fn count_pending(&mut self, field: CommandField, answers: u64) {
        *self.0.entry((field.0, Status::PENDING)).or_default() += answers;
    }
}

impl fmt::Display for Answered {
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

/// Serves one connection from its first byte to its last.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<Tls>>,
    shared: Arc<Shared>,
    place: Share,
    shutdown: CancellationToken,
) {
    let id = shared.next_association_id();
    let span = info_span!("association", assoc.id = id, peer.addr = %peer, peer.ae = tracing::field::Empty);
    let served = async {
        if let Some((stream, transport)) = secured(stream, (peer, tls), &shared, &shutdown).await {
            Connection { peer, transport, shared, shutdown }.serve(stream, place).await;
        }
    };
    served.instrument(span).await;
}

/// The handshake of TLS, where the connection is one for TLS. `None`: there is nobody to talk to.
async fn secured(
    stream: TcpStream,
    (peer, tls): (SocketAddr, Option<Arc<Tls>>),
    shared: &Shared,
    shutdown: &CancellationToken,
) -> Option<(Stream, Transport)> {
    let Some(tls) = tls else { return Some((Stream::Plain(stream), Transport::Plain)) };
    let handshake = tokio::select! {
        biased;
        () = shutdown.cancelled() => return None,
        handshake = timeout(shared.options.artim_timeout, tls.accept(stream)) => handshake,
    };
    match handshake {
        Ok(Ok((stream, certificate))) => return Some((stream, Transport::Tls(certificate))),
        // Somebody's certificate may have expired: worth a line, without what the peer sent.
        Ok(Err(error)) => {
            if shared.log_limit.allows(peer.ip(), "TLS handshake failed") {
                info!("no association: TLS handshake failed: {}", handshake_failure(&error));
            }
        }
        Err(_) => debug!("no association: TLS handshake not complete within the time allowed"),
    }
    metrics::ASSOCIATIONS_FAILED.increment();
    None
}

struct Connection {
    peer: SocketAddr,
    transport: Transport,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: Stream, place: Share) {
        let options = &self.shared.options;
        let (mut reader, mut writer) = pdu_io::split(stream, options.write_timeout);
        reader.count_for(PeerMemory::new(&self.shared.memory, &CountedPeer::new(CountedAs::address(self.peer.ip()))));
        let Some((agreement, accept, slot)) = self.associate(&mut reader, &mut writer).await else {
            return;
        };
        // From here on the association's own slot counts.
        drop(place);
        metrics::ASSOCIATIONS_ACCEPTED.increment();
        let active = metrics::ASSOCIATIONS_ACTIVE.hold();
        let begun = Instant::now();
        let memory = PeerMemory::new(&self.shared.memory, &CountedPeer::new(agreement.admission.counted_as.clone()));
        reader.count_for(memory.clone());
        let sender = ReceivedFrom {
            calling_ae_title: agreement.calling_ae_title.trim().to_owned(),
            address: Some(self.peer.ip().to_canonical()),
        };
        let mut session = Session::new(agreement, sender, writer, self.shared.services.clone(), memory);
        let end = match session.writer.send(&accept).await {
            Ok(()) => session.converse(&mut reader, &self.shared, &self.shutdown).await,
            Err(error) => End::Write(error),
        };
        session.hand_over_reports(&self.shared, &self.shutdown);
        info!(
            called_ae = %printable(&session.agreement.called_ae_title, AE_TITLE_LENGTH),
            implementation = %session.agreement.peer_implementation,
            tls = matches!(self.transport, Transport::Tls(_)),
            received_bytes = reader.bytes_received(),
            sent_bytes = session.writer.bytes_sent(),
            elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            answered = %session.answered,
            "association ended: {end}",
        );
        // Before the last PDU: a peer that has it may be back, with its next association, before this task runs again.
        drop((slot, active));
        self.finish(&mut reader, &mut session.writer, end.last_pdu().as_ref()).await;
    }

    /// Waits for an A-ASSOCIATE-RQ and decides on it. `None`: no association, and the peer has been told.
    async fn associate(&self, reader: &mut PduReader, writer: &mut PduWriter) -> Option<(Agreement, Vec<u8>, Share)> {
        let answer = match self.request(reader).await {
            Ok(answer) => answer,
            Err(end) => {
                metrics::ASSOCIATIONS_FAILED.increment();
                debug!("no association: {end}");
                // PS3.8 table 9-10, Sta2: what is no A-ASSOCIATE-RQ is answered by AA-1, an A-ABORT with source service
                // user; ARTIM expiry by AA-2 and a closed connection by AA-5, which send nothing.
                let silent = matches!(end, End::Read(ReadError::Silence | ReadError::SlowPdu) | End::Stopping);
                let abort = Pdu::AbortRQ { source: AbortRQSource::ServiceUser };
                let last_pdu = end.last_pdu().filter(|_| !silent).map(|_| &abort);
                self.finish(reader, writer, last_pdu).await;
                return None;
            }
        };
        match answer {
            Answer::Accept(agreement, accept) => {
                let title = printable(&agreement.calling_ae_title, AE_TITLE_LENGTH);
                tracing::Span::current().record("peer.ae", title.as_str());
                let admission = &agreement.admission;
                let of_peer = admission.max_associations.unwrap_or(self.shared.options.max_associations_per_peer);
                let peer = CountedPeer::new(admission.counted_as.clone());
                if let Some(slot) = self.shared.associations.take_below(&peer, 1, of_peer) {
                    return Some((*agreement, accept, slot));
                }
                self.log("association rejected: the peer has all that it may have now", |why| {
                    info!(maximum = of_peer, "{why}");
                });
                metrics::ASSOCIATIONS_REJECTED.increment();
                self.finish(reader, writer, Some(&Pdu::AssociationRJ(negotiation::local_limit_exceeded()))).await;
            }
            Answer::Reject(rejection, titles) => {
                metrics::ASSOCIATIONS_REJECTED.increment();
                let title = printable(&titles.calling, AE_TITLE_LENGTH);
                tracing::Span::current().record("peer.ae", title.as_str());
                let called = printable(&titles.called, AE_TITLE_LENGTH);
                let why = match titles.refused {
                    Some(refused) => format!("association rejected: {refused}"),
                    None => format!("association rejected: {}", rejection.source),
                };
                self.log(&why, |why| info!(called_ae = %called, "{why}"));
                self.finish(reader, writer, Some(&Pdu::AssociationRJ(rejection))).await;
            }
            Answer::Abort(reason) => {
                metrics::ASSOCIATIONS_FAILED.increment();
                self.log(&format!("association request aborted: {reason}"), |why| info!("{why}"));
                let abort = Pdu::AbortRQ { source: AbortRQSource::ServiceUser };
                self.finish(reader, writer, Some(&abort)).await;
            }
        }
        None
    }

    /// Logs why there is no association, unless the log has enough of this peer.
    fn log(&self, why: &str, line: impl FnOnce(&str)) {
        if self.shared.log_limit.allows(self.peer.ip(), why) {
            line(why);
        }
    }

    async fn request(&self, reader: &mut PduReader) -> Result<Answer, End> {
        let artim = self.shared.options.artim_timeout;
        let patience = Patience { first_byte: Some(artim), rest: artim };
        let incoming = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Err(End::Stopping),
            incoming = tokio::time::timeout(artim, reader.next(patience)) => incoming.map_err(|_| ReadError::SlowPdu)??,
        };
        match incoming {
            IncomingPdu::AssociateRequest(body) => {
                Ok(negotiation::answer(body, self.peer, &self.transport, &self.shared.policy))
            }
            IncomingPdu::Abort { source, reason } => Err(End::AbortedByPeer { source_code: source, reason }),
            other => Err(End::UnexpectedPdu(pdu_type(&other))),
        }
    }

    /// Sends the last PDU, if there is one, and closes the connection; after a last PDU the peer may do so first (PS3.8 9.2.3,
    /// Sta13).
    async fn finish(&self, reader: &mut PduReader, writer: &mut PduWriter, last_pdu: Option<&Pdu>) {
        // Bounded like connections that have not associated yet: the association's slot is free again. When there are too many,
        // the kernel takes what is sent here at once, or the peer does not get it.
        let place = self.shared.connection_of(self.peer.ip());
        if place.is_none() {
            writer.wait_no_more();
        }
        let sent = match last_pdu {
            Some(pdu) => writer.send_pdu(pdu).await,
            None => Ok(()),
        };
        writer.close().await;
        match sent {
            Ok(()) if last_pdu.is_none() || place.is_none() => {}
            Ok(()) => tokio::select! {
                () = reader.drain(self.shared.options.artim_timeout) => {}
                () = async { self.shutdown.cancelled().await; sleep(CLOSE_PATIENCE_WHEN_STOPPING).await } => {}
            },
            Err(error) => debug!(%error, "the last PDU could not be sent"),
        }
    }
}

/// An established association.
struct Session {
    agreement: Agreement,
    /// Who sends what is received.
    sender: Arc<ReceivedFrom>,
    writer: PduWriter,
    assembler: MessageAssembler,
    /// What becomes of the data set that is arriving.
    operation: Operation,
    answered: Answered,
    /// Whether the log has a failure of ours already.
    own_failure_logged: bool,
    services: Services,
    /// The memory of its peer.
    memory: PeerMemory,
    commitments: Commitments,
    /// The response being encoded, kept for its memory.
    outgoing: Vec<u8>,
}

/// What came while a query or retrieval was being answered.
enum Meanwhile {
    /// Nothing to act on yet.
    Nothing,
    /// A C-CANCEL-RQ for it.
    Cancel,
    /// A response to a request of ours.
    Response(PeerResponse),
    /// A command that has to wait.
    Ahead(Ahead),
}

/// What a data set that is arriving is for.
enum Operation {
    /// None is expected.
    None,
    /// It is read and dropped, then its request is answered with this.
    Refuse { context_id: u8, response: Response },
    /// An instance.
    Store { context_id: u8, receiving: Box<store::Receiving> },
    /// The Identifier of a query.
    Find(Box<find::Receiving>),
    /// The Identifier of a retrieval.
    Retrieve(Box<retrieve::Receiving>),
    /// A storage commitment request.
    Commit(Box<commit::Receiving>),
}

/// A request that is complete and takes its time.
enum Begun {
    Find(Box<find::Receiving>),
    Retrieve(Box<retrieve::Receiving>),
}

/// A command that came while a query was being answered, ahead of its time: PS3.7 9.3 knows no such thing without an
/// Asynchronous Operations Window, and simple senders do it. It is served when the query has ended.
struct Ahead {
    context_id: u8,
    command: CommandSet,
    has_data_set: bool,
}

impl Session {
    fn new(
        agreement: Agreement,
        sender: ReceivedFrom,
        writer: PduWriter,
        services: Services,
        memory: PeerMemory,
    ) -> Self {
        let assembler = MessageAssembler::new();
        Self {
            agreement,
            sender: Arc::new(sender),
            writer,
            assembler,
            operation: Operation::None,
            answered: Answered::default(),
            own_failure_logged: false,
            services,
            memory,
            commitments: Commitments::default(),
            outgoing: Vec::new(),
        }
    }

    async fn converse(&mut self, reader: &mut PduReader, shared: &Shared, shutdown: &CancellationToken) -> End {
        let options = &shared.options;
        let mut stopping = pin!(shutdown.cancelled());
        loop {
            let in_message = self.assembler.in_message();
            let first_byte = Some(if in_message { options.read_timeout } else { options.idle_timeout });
            let patience = Patience { first_byte, rest: options.read_timeout };
            let incoming = tokio::select! {
                biased;
                () = &mut stopping, if !in_message => return End::Stopping,
                due = self.commitments.next(), if !in_message => {
                    match self.report(due, shared, shutdown).await {
                        Ok(()) => continue,
                        Err(end) => return end,
                    }
                }
                incoming = reader.next(patience) => incoming,
            };
            let done = match incoming {
                Ok(IncomingPdu::Pdv(pdv)) => match self.on_pdv(&pdv).await {
                    Ok(Some(Begun::Find(query))) => self.find(reader, *query, options).await,
                    Ok(Some(Begun::Retrieve(retrieval))) => self.retrieve(reader, *retrieval, shared).await,
                    Ok(None) => Ok(()),
                    Err(end) => Err(end),
                },
                // Sta6, AR-2: our user, the DIMSE layer, has nothing against it.
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

    /// Takes a fragment; returns a query or retrieval whose Identifier it completes.
    async fn on_pdv(&mut self, pdv: &Pdv<'_>) -> Result<Option<Begun>, End> {
        match self.assembler.accept(pdv)? {
            FragmentOutcome::CommandFragment => Ok(None),
            FragmentOutcome::Command { context_id, command, has_data_set } => {
                self.on_command(context_id, &command, has_data_set).await.map(|()| None)
            }
            FragmentOutcome::DataSetFragment { is_last } => self.on_data_set(pdv.fragment, is_last).await,
        }
    }

    async fn on_command(&mut self, context_id: u8, command: &CommandSet, has_data_set: bool) -> Result<(), End> {
        let context = self.agreement.contexts.get(&context_id).ok_or(End::UnknownContext(context_id))?;
        let response = match DimseRequest::parse(command) {
            Ok(DimseRequest::Echo(request)) => echo::respond(&request, context),
            Ok(DimseRequest::Store(request)) => match self.begin_store(&request, context, has_data_set) {
                Ok(receiving) => {
                    self.operation = Operation::Store { context_id, receiving: Box::new(receiving) };
                    return Ok(());
                }
                Err(response) => *response,
            },
            Ok(DimseRequest::Find(request)) => {
                let begun = find::Receiving::begin(context_id, &request, context, &self.agreement, &self.memory);
                match begun.filter(|_| self.services.find.is_some()) {
                    Some(receiving) if has_data_set => {
                        self.operation = Operation::Find(Box::new(receiving));
                        return Ok(());
                    }
                    Some(_) => find::without_identifier(&request),
                    None => {
                        let uid = &request.affected_sop_class_uid;
                        sop_class_not_supported(CommandField::C_FIND_RQ, request.message_id, uid)
                    }
                }
            }
            Ok(DimseRequest::Get(request) | DimseRequest::Move(request)) => {
                let begun = retrieve::Receiving::begin(context_id, &request, context, &self.agreement, &self.memory);
                match begun.filter(|_| self.services.retrieve.is_some()) {
                    Some(receiving) if has_data_set => {
                        self.operation = Operation::Retrieve(Box::new(receiving));
                        return Ok(());
                    }
                    Some(receiving) => receiving.asked().refusal(&FindError::MissingLevel.into()),
                    None => sop_class_not_supported(request.field, request.message_id, &request.affected_sop_class_uid),
                }
            }
            Ok(DimseRequest::Action(request)) => {
                let begun = commit::Receiving::begin(context_id, &request, context, &self.memory);
                match begun {
                    Ok(receiving) if has_data_set && self.services.commitment.is_some() => {
                        self.operation = Operation::Commit(Box::new(receiving));
                        return Ok(());
                    }
                    // Without a data set there is no transaction in it.
                    Ok(receiving) => receiving.finish(self.services.commitment.as_deref(), self.memory.peer()).0,
                    Err(response) => *response,
                }
            }
            // Its request was answered before it came.
            Ok(DimseRequest::Cancel(_)) => return Ok(()),
            Err(RequestError::Refused(response)) => *response,
            Err(RequestError::Unanswerable(error)) => return Err(End::Unanswerable(error)),
            Err(RequestError::UnexpectedResponse(field)) => return self.on_response(command, field),
        };
        if has_data_set {
            self.operation = Operation::Refuse { context_id, response };
            return Ok(());
        }
        self.send(context_id, &response).await
    }

    fn begin_store(
        &self,
        request: &StoreRequest,
        context: &PresentationContext,
        has_data_set: bool,
    ) -> Result<store::Receiving, Box<Response>> {
        let refused = |failure| Box::new(store::StoreResponse::failure(request, &failure).into_response());
        // A context that was accepted for what a C-GET brings back.
        if !self.agreement.admission.services.contains(PeerService::Store) {
            return Err(refused(store::StoreError::NotAuthorized));
        }
        let Some(storage) = &self.services.storage else {
            return Err(refused(store::StoreError::SopClassNotOfContext));
        };
        if !has_data_set {
            return Err(refused(store::StoreError::NoDataSet));
        }
        store::Receiving::begin(storage, request, context, &self.sender, &self.memory).map_err(refused)
    }

    async fn on_data_set(&mut self, fragment: &[u8], is_last: bool) -> Result<Option<Begun>, End> {
        match &mut self.operation {
            Operation::Store { receiving, .. } => receiving.accept(fragment).await,
            Operation::Find(receiving) => receiving.accept(fragment),
            Operation::Retrieve(receiving) => receiving.accept(fragment),
            Operation::Commit(receiving) => receiving.accept(fragment),
            Operation::None | Operation::Refuse { .. } => {}
        }
        if !is_last {
            return Ok(None);
        }
        match std::mem::replace(&mut self.operation, Operation::None) {
            Operation::None => {}
            Operation::Refuse { context_id, response } => self.send(context_id, &response).await?,
            Operation::Find(query) => return Ok(Some(Begun::Find(query))),
            Operation::Retrieve(retrieval) => return Ok(Some(Begun::Retrieve(retrieval))),
            Operation::Commit(receiving) => self.commit(*receiving).await?,
            Operation::Store { context_id, receiving } => {
                let (response, failure) = receiving.finish().await;
                if let Some(failure) = failure {
                    self.log(&failure, failure.is_ours());
                }
                self.send(context_id, &response.into_response()).await?;
            }
        }
        Ok(None)
    }

    /// Answers a query, while listening for a C-CANCEL-RQ and for the end of the association.
    async fn find(&mut self, reader: &mut PduReader, query: find::Receiving, options: &Options) -> Result<(), End> {
        let Some(service) = &self.services.find else { return Ok(()) };
        let mut running = query.start(service, self.agreement.peer_max_length, &self.memory);
        let patience = Patience { first_byte: None, rest: options.read_timeout };
        let mut ahead = None;
        // Not counted while the peer takes answers: this is for the index.
        let mut time_is_up = Instant::now() + options.query_time_limit;
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                incoming = reader.next(patience), if ahead.is_none() => {
                    match self.while_answering(incoming, running.message_id())? {
                        Meanwhile::Nothing => {}
                        Meanwhile::Response(response) => return Err(End::UnexpectedResponse(response.field)),
                        Meanwhile::Cancel => {
                            running.cancel();
                            stopping = true;
                        }
                        Meanwhile::Ahead(command) => ahead = Some(command),
                    }
                }
                answers = running.next() => match answers {
                    // What was on its way when the peer said to stop: it does not want it any more.
                    Some(_) if stopping => {}
                    Some(answers) => {
                        let begun = Instant::now();
                        self.writer.send(&answers.bytes).await.map_err(End::Write)?;
                        time_is_up += begun.elapsed();
                        metrics::FIND_MATCHES.add(answers.count);
                        self.answered.count_pending(CommandField::C_FIND_RSP, answers.count);
                    }
                    None => break,
                },
                () = sleep_until(time_is_up), if !stopping => {
                    running.time_out();
                    stopping = true;
                }
                () = sleep(STOP_AGAIN_AFTER), if stopping => running.stop_again(),
            }
        }
        let context_id = running.context_id;
        let (response, failure) = running.finish().await;
        if let Some(failure) = failure {
            self.log(&failure, true);
        }
        self.send(context_id, &response).await?;
        self.serve_ahead(ahead).await
    }

    /// Serves the command that came ahead of its time.
    async fn serve_ahead(&mut self, ahead: Option<Ahead>) -> Result<(), End> {
        match ahead {
            Some(Ahead { context_id, command, has_data_set }) => {
                self.on_command(context_id, &command, has_data_set).await
            }
            None => Ok(()),
        }
    }

    fn while_answering(
        &mut self,
        incoming: Result<IncomingPdu<'_>, ReadError>,
        message_id: u16,
    ) -> Result<Meanwhile, End> {
        let pdv = match incoming? {
            IncomingPdu::Pdv(pdv) => pdv,
            IncomingPdu::ReleaseRequest => return Err(End::Released),
            IncomingPdu::Abort { source, reason } => return Err(End::AbortedByPeer { source_code: source, reason }),
            other => return Err(End::UnexpectedPdu(pdu_type(&other))),
        };
        match self.assembler.accept(&pdv)? {
            FragmentOutcome::CommandFragment => Ok(Meanwhile::Nothing),
            FragmentOutcome::Command { context_id, command, has_data_set } => match DimseRequest::parse(&command) {
                Ok(DimseRequest::Cancel(cancel)) if cancel.message_id_being_responded_to == message_id => {
                    Ok(Meanwhile::Cancel)
                }
                Err(RequestError::UnexpectedResponse(CommandField::N_EVENT_REPORT_RSP)) if !has_data_set => {
                    self.on_response(&command, CommandField::N_EVENT_REPORT_RSP).map(|()| Meanwhile::Nothing)
                }
                Err(RequestError::UnexpectedResponse(_)) if !has_data_set => {
                    let response = PeerResponse::parse(&command).map_err(End::Unanswerable)?;
                    Ok(response.map_or(Meanwhile::Nothing, Meanwhile::Response))
                }
                _ => Ok(Meanwhile::Ahead(Ahead { context_id, command, has_data_set })),
            },
            // Nothing is read after a command that announces a data set, until its turn comes.
            FragmentOutcome::DataSetFragment { .. } => Err(End::Fragments(PDataError::UnexpectedDataSet)),
        }
    }

    /// Our own failures are the operator's business, once for each association: a full disk fails a thousand instances.
    fn log(&mut self, failure: &(dyn std::error::Error + 'static), is_ours: bool) {
        if is_ours && !std::mem::replace(&mut self.own_failure_logged, true) {
            error!(error = failure, "a request could not be served");
        } else {
            debug!("a request was not served: {failure}");
        }
    }

    /// Sends a response without data set, as one write.
    async fn send(&mut self, context_id: u8, response: &Response) -> Result<(), End> {
        self.send_with(context_id, response, None).await
    }

    /// Sends a response, as one write.
    async fn send_with(&mut self, context_id: u8, response: &Response, data_set: Option<&[u8]>) -> Result<(), End> {
        self.outgoing.clear();
        let presence = if data_set.is_some() { DataSetPresence::Present } else { DataSetPresence::Absent };
        let command = response.command_set(presence);
        put_message(&mut self.outgoing, context_id, &command, data_set, self.agreement.peer_max_length);
        self.writer.send(&self.outgoing).await.map_err(End::Write)?;
        self.answered.count(response);
        Ok(())
    }
}

fn pdu_type(incoming: &IncomingPdu<'_>) -> u8 {
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
