//! The life of one association, as its acceptor (PS3.8 9.2): the connection, TLS, the request and
//! its answer, and the last PDU. [`conversation`] has the messages in between.

mod conversation;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dicom_ul::pdu::{AbortRQSource, Pdu};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span};

use conversation::Conversation;

use crate::audit::{AuditEvent, AuditOutcome, AuditRecord, Auditor, Participant};
use crate::db::ReceivedFrom;
use crate::model::peer::CountedAs;
use crate::scp::negotiation::{self, Agreement, Answer, RefusedContexts};
use crate::scp::services::service::{End, Session, pdu_type};
use crate::scp::shared::NodeShared;
use crate::shares::{CountedPeer, PeerMemory, Share};
use crate::telemetry::metrics;
use crate::ul::associate::printable;
use crate::ul::certificates::handshake_failure;
use crate::ul::pdu_io::{self, IncomingPdu, PduReader, PduWriter, ReadError, Timeouts};
use crate::ul::stream::Stream;
use crate::ul::tls::{Tls, Transport};

/// Time for a peer to close the connection after its last PDU, once the node is to stop.
const CLOSE_TIMEOUT_WHEN_STOPPING: Duration = Duration::from_millis(500);

/// Length of an AE title in an A-ASSOCIATE PDU.
const AE_TITLE_LENGTH: usize = 16;

/// Serves one connection from its first byte to its last.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<Tls>>,
    shared: Arc<NodeShared>,
    connection_share: Share,
    shutdown: CancellationToken,
) {
    let id = shared.next_association_id();
    let span = info_span!("association", assoc.id = id, peer.addr = %peer, peer.ae = tracing::field::Empty);
    let served = async {
        if let Some((stream, transport)) = secured(stream, (peer, tls), &shared, &shutdown).await {
            Connection { peer, transport, shared, shutdown }.serve(stream, connection_share).await;
        }
    };
    served.instrument(span).await;
}

/// Does the TLS handshake, if the connection is one for TLS. `None` if the handshake failed or the
/// node stops.
async fn secured(
    stream: TcpStream,
    (peer, tls): (SocketAddr, Option<Arc<Tls>>),
    shared: &NodeShared,
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
        // A certificate may have expired, so this gets a line in the log. Nothing of it comes from
        // the peer.
        Ok(Err(error)) => {
            let why = handshake_failure(&error);
            if shared.log_limit.allows(peer.ip(), "TLS handshake failed") {
                info!("no association: TLS handshake failed: {why}");
            }
            audit_rejection(&shared.audit, peer, String::new(), format!("TLS handshake failed: {why}"));
        }
        Err(_) => debug!("no association: the TLS handshake was not complete in time"),
    }
    metrics::ASSOCIATIONS_FAILED.increment();
    None
}

/// Records a rejected peer in the audit trail.
fn audit_rejection(audit: &Auditor, peer: SocketAddr, name: String, reason: String) {
    if audit.is_on() {
        let mut record = AuditRecord::new(AuditEvent::AuthenticationFailed, "DICOM");
        record.by = Some(Participant { name, address: peer.ip().to_canonical().to_string() });
        (record.outcome, record.reason) = (AuditOutcome::MinorFailure, reason);
        audit.note(record);
    }
}

struct Connection {
    peer: SocketAddr,
    transport: Transport,
    shared: Arc<NodeShared>,
    shutdown: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: Stream, connection_share: Share) {
        let options = &self.shared.options;
        let (mut reader, mut writer) = pdu_io::split(stream, options.write_timeout);
        reader.count_for(PeerMemory::new(&self.shared.memory, &CountedPeer::new(CountedAs::address(self.peer.ip()))));
        let Some((agreement, accept, slot)) = self.associate(&mut reader, &mut writer).await else {
            return;
        };
        // From here on the slot of the association counts.
        drop(connection_share);
        metrics::ASSOCIATIONS_ACCEPTED.increment();
        self.log_refused_services(&agreement.refused);
        let active = metrics::ASSOCIATIONS_ACTIVE.hold();
        let begun = Instant::now();
        let memory = PeerMemory::new(&self.shared.memory, &CountedPeer::new(agreement.admission.counted_as.clone()));
        reader.count_for(memory.clone());
        let sender = ReceivedFrom {
            calling_ae_title: agreement.calling_ae_title.trim().to_owned(),
            address: Some(self.peer.ip().to_canonical()),
        };
        let node = self.shared.context(self.shutdown.clone());
        let session = Session::new(agreement, node, sender, memory, writer);
        let mut conversation =
            Conversation::new(session, Arc::clone(&self.shared.services), Arc::clone(&self.shared.associations));
        let end = match conversation.session.writer.send(&accept).await {
            Ok(()) => conversation.run(&mut reader).await,
            Err(error) => End::Write(error),
        };
        let Session { agreement, node, writer, answered, reports, received, sender, .. } = &mut conversation.session;
        if let Some(event) = received.event(sender) {
            node.audit.note(event);
        }
        reports.hand_over(&agreement.calling_ae_title, node);
        info!(
            called_ae = %printable(&agreement.called_ae_title, AE_TITLE_LENGTH),
            implementation = %agreement.peer_implementation,
            tls = matches!(self.transport, Transport::Tls(_)),
            received_bytes = reader.bytes_received(),
            sent_bytes = writer.bytes_sent(),
            elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            contexts = agreement.contexts.len(),
            contexts_not_supported = agreement.refused.not_supported,
            answered = %answered,
            "association ended: {end}",
        );
        // Before the last PDU: a peer that has it may send its next association request before this
        // task runs again.
        drop((slot, active));
        self.finish(&mut reader, writer, end.last_pdu().as_ref()).await;
    }

    /// Waits for an A-ASSOCIATE-RQ and decides on it. `None` if there is no association. The peer
    /// has been told then.
    async fn associate(&self, reader: &mut PduReader, writer: &mut PduWriter) -> Option<(Agreement, Vec<u8>, Share)> {
        let answer = match self.request(reader).await {
            Ok(answer) => answer,
            Err(end) => {
                metrics::ASSOCIATIONS_FAILED.increment();
                match &end {
                    // Somebody has configured a wrong port. Port scanners mostly send nothing.
                    End::Read(ReadError::UnknownPdu(_)) => {
                        self.log(&format!("no association: {end}"), |why| info!("{why}"));
                    }
                    end => debug!("no association: {end}"),
                }
                // PS3.8 table 9-10, Sta2: any other PDU is answered by AA-1, an A-ABORT with source
                // service user. ARTIM expiry (AA-2) and a closed connection (AA-5) are answered
                // with nothing.
                let abort = Pdu::AbortRQ { source: AbortRQSource::ServiceUser };
                let last_pdu = match end {
                    End::Read(ReadError::Silence | ReadError::SlowPdu) | End::Stopping => None,
                    ref end => end.last_pdu().map(|_| &abort),
                };
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
                audit_rejection(&self.shared.audit, self.peer, title, why);
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

    /// Logs services that the peer asked for and may not use. Without this line a missing right
    /// leaves no trace: the peer sees its contexts refused and sends nothing.
    fn log_refused_services(&self, refused: &RefusedContexts) {
        if refused.not_permitted.is_empty() {
            return;
        }
        let services: Vec<_> = refused.not_permitted.iter().copied().collect();
        let why = format!("the peer asked for services that it may not use (services): {}", services.join(", "));
        self.log(&why, |why| info!("{why}"));
    }

    /// Logs why there is no association, unless the log already has enough lines about this peer.
    fn log(&self, why: &str, line: impl FnOnce(&str)) {
        if self.shared.log_limit.allows(self.peer.ip(), why) {
            line(why);
        }
    }

    async fn request(&self, reader: &mut PduReader) -> Result<Answer, End> {
        let artim = self.shared.options.artim_timeout;
        let timeouts = Timeouts { first_byte: Some(artim), rest: artim };
        let incoming = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Err(End::Stopping),
            incoming = tokio::time::timeout(artim, reader.next(timeouts)) => incoming.map_err(|_| ReadError::SlowPdu)??,
        };
        match incoming {
            IncomingPdu::AssociateRequest(body) => {
                Ok(negotiation::answer(body, self.peer, &self.transport, &self.shared.policy))
            }
            IncomingPdu::Abort { source, reason } => Err(End::AbortedByPeer { source_code: source, reason }),
            other => Err(End::UnexpectedPdu(pdu_type(&other))),
        }
    }

    /// Sends the last PDU, if there is one, and closes the connection. After a last PDU the peer
    /// may close it first (PS3.8 9.2.3, Sta13).
    async fn finish(&self, reader: &mut PduReader, writer: &mut PduWriter, last_pdu: Option<&Pdu>) {
        // The slot of the association is free again, so this counts as a connection without one. If
        // there are too many of these, the kernel takes the last PDU at once or the peer does not
        // get it.
        let connection_share = self.shared.connection_of(self.peer.ip());
        if connection_share.is_none() {
            writer.wait_no_more();
        }
        let sent = match last_pdu {
            Some(pdu) => writer.send_pdu(pdu).await,
            None => Ok(()),
        };
        writer.close().await;
        match sent {
            Ok(()) if last_pdu.is_none() || connection_share.is_none() => {}
            Ok(()) => tokio::select! {
                () = reader.drain(self.shared.options.artim_timeout) => {}
                () = async { self.shutdown.cancelled().await; sleep(CLOSE_TIMEOUT_WHEN_STOPPING).await } => {}
            },
            Err(error) => debug!(%error, "the last PDU could not be sent"),
        }
    }
}
