//! C-GET and C-MOVE on an established association (PS3.4 C.4.2, C.4.3).

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::super::services::mover::Mover;
use super::super::services::retrieve::contexts::OutgoingContexts;
use super::super::services::retrieve::framing::{StoreRequests, message_id};
use super::super::services::retrieve::tally::{Ending, SubOperationError, Tally};
use super::super::services::retrieve::{Asked, Receiving, Retrieve};
use super::{Ahead, End, Meanwhile, Session};
use crate::deliver::read_ahead::{ReadAhead, SlowSource};
use crate::deliver::sending::{Piece, Sending};
use crate::dimse::Status;
use crate::dimse::command_set::CommandField;
use crate::dimse::message::PeerResponse;
use crate::model::ae_title::AeTitle;
use crate::qr::Instances;
use crate::scp::shared::Shared;
use crate::shares::Share;
use crate::telemetry::metrics;
use crate::ul::pdu_io::{IncomingPdu, Patience, PduReader, ReadError};
use crate::ul::requestor::Waits;
use crate::ul::tls::PeerRoute;

/// A retrieval that goes on.
struct Going {
    asked: Asked,
    instances: Arc<Instances>,
    /// What is counted for them.
    _listed: Share,
    tally: Tally,
    cancelled: bool,
    /// A command that came meanwhile, and has to wait.
    ahead: Option<Ahead>,
}

impl Session {
    /// Answers a C-GET or C-MOVE, from its Identifier to its last response.
    pub(super) async fn retrieve(
        &mut self,
        reader: &mut PduReader,
        retrieval: Receiving,
        shared: &Shared,
    ) -> Result<(), End> {
        let Some(service) = self.services.retrieve.clone() else { return Ok(()) };
        let begun = Instant::now();
        let (asked, instances) =
            retrieval.instances(&service, self.memory.peer(), shared.options.query_time_limit).await;
        let (instances, listed) = match instances {
            Ok((instances, listed)) => (Arc::new(instances), listed),
            Err(error) => {
                metrics::RETRIEVALS_REFUSED.increment();
                let response = asked.refusal(&error);
                self.log(&error, error.is_ours());
                return self.send(asked.context_id, &response).await;
            }
        };
        let tally = Tally::new(instances.len());
        let mut going = Going { asked, instances, _listed: listed, tally, cancelled: false, ahead: None };
        match going.asked.request.field {
            CommandField::C_GET_RQ => self.get(reader, &service, &mut going, shared).await?,
            _ => match self.destination(&going.asked) {
                Some((title, destination)) => {
                    self.move_to(reader, &service, &mut going, shared, (title, destination)).await?;
                }
                None => {
                    metrics::RETRIEVALS_REFUSED.increment();
                    let response = going.asked.response(Status::MOVE_DESTINATION_UNKNOWN);
                    return self.send(going.asked.context_id, &response.with_comment("unknown Move Destination")).await;
                }
            },
        }
        let ending = if going.cancelled { Ending::Cancelled } else { Ending::Complete };
        self.end_retrieval(&going, ending).await?;
        metrics::RETRIEVE_SECONDS.observe(begun.elapsed());
        self.serve_ahead(going.ahead).await
    }

    async fn end_retrieval(&mut self, going: &Going, ending: Ending) -> Result<(), End> {
        let Going { asked, instances, tally, .. } = going;
        match ending {
            Ending::Complete => metrics::RETRIEVALS_COMPLETE.increment(),
            Ending::Cancelled => metrics::RETRIEVALS_CANCELLED.increment(),
        }
        if tally.missing() > 0 {
            warn!(
                objects = tally.missing(),
                "objects that the index names could not be read; see `dcmdex check --files`"
            );
        }
        let (response, identifier) = asked.last_response(tally, instances, ending);
        self.send_with(asked.context_id, &response, identifier.as_deref()).await
    }

    /// The sub-operations of a C-GET, on this association.
    async fn get(
        &mut self,
        reader: &mut PduReader,
        service: &Arc<Retrieve>,
        going: &mut Going,
        shared: &Shared,
    ) -> Result<(), End> {
        let sending = Sending {
            delivery: Arc::clone(service.delivery()),
            instances: Arc::clone(&going.instances),
            over: Vec::new(),
            only: None,
            framing: Arc::new(StoreRequests {
                contexts: OutgoingContexts::of_acceptor(&self.agreement),
                priority: going.asked.request.priority,
                originator: None,
                peer_max_length: self.agreement.peer_max_length,
            }),
            memory: self.memory.clone(),
        };
        let mut ahead = ReadAhead::start(sending);
        let mut pending = Vec::new();
        while !going.cancelled {
            let piece = match ahead.at_hand() {
                Some(piece) => Ok(Some(piece)),
                None => {
                    // Nothing to send an earlier response along with: now is the time.
                    self.flush_pending(&mut pending, going).await?;
                    self.next_piece(reader, &mut ahead, going, shared).await?
                }
            };
            match piece {
                Ok(Some(Piece::Begin { at, number, mut bytes, is_last })) => {
                    if !bytes.put_in_front(&pending) {
                        self.flush_pending(&mut pending, going).await?;
                    } else if !pending.is_empty() {
                        pending.clear();
                        self.answered.count_pending(going.asked.request.field.response(), 1);
                    }
                    self.writer.send(bytes.as_slice()).await.map_err(End::Write)?;
                    metrics::SENT_DATA_SET_BYTES.add(bytes.as_slice().len() as u64);
                    ahead.give_back(bytes);
                    if !is_last {
                        self.send_rest(&mut ahead).await?;
                    }
                    let response = self.answer_to(reader, message_id(number), going, service, shared).await?;
                    going.tally.answered(at, response.status);
                }
                Ok(Some(Piece::Failed { at, error })) => going.tally.fail(at, &error.into()),
                Ok(Some(Piece::More { .. } | Piece::Broken(_))) => return Err(End::BrokenObject),
                Ok(None) => break,
                Err(SlowSource) => {
                    for at in 0..going.instances.len() {
                        if !going.tally.is_over(at) {
                            going.tally.fail(at, &SubOperationError::SlowSource);
                        }
                    }
                    break;
                }
            }
            pending.clear();
            if going.tally.over() < going.instances.len() {
                going.asked.put_pending(&mut pending, going.tally.so_far(), self.agreement.peer_max_length);
            }
        }
        Ok(())
    }

    /// Where a C-MOVE is to go; `None`: the destination is not one that we know (PS3.4 table C.4-2, A801).
    fn destination(&self, asked: &Asked) -> Option<(AeTitle, PeerRoute)> {
        let title: AeTitle = asked.request.move_destination.as_deref()?.parse().ok()?;
        let destination = self.services.peers.destination(&title)?;
        Some((title, destination))
    }

    /// The sub-operations of a C-MOVE, on associations of their own.
    async fn move_to(
        &mut self,
        reader: &mut PduReader,
        service: &Arc<Retrieve>,
        going: &mut Going,
        shared: &Shared,
        (destination_ae_title, destination): (AeTitle, PeerRoute),
    ) -> Result<(), End> {
        let options = &shared.options;
        let mover = Mover {
            retrieve: Arc::clone(service),
            asked: going.asked.clone(),
            instances: Arc::clone(&going.instances),
            own_ae_title: options.ae_title.clone(),
            originator: self.agreement.calling_ae_title.clone(),
            destination_ae_title,
            destination,
            waits: Waits { response: service.options().response_timeout, ..options.waits() },
            memory: self.memory.clone(),
        };
        // Dropped with this function, also when the peer that asked is gone: then the destination's connection is closed.
        let cancel = CancellationToken::new();
        let (progress_sender, mut progress) = watch::channel(going.tally.so_far());
        let mut moving = pin!(mover.run(&cancel, &progress_sender));
        let patience = Patience { first_byte: None, rest: options.read_timeout };
        let mut pending = Vec::new();
        loop {
            tokio::select! {
                biased;
                incoming = reader.next(patience), if going.ahead.is_none() => {
                    self.meanwhile(incoming, going)?;
                    if going.cancelled {
                        // What is being sent is finished first.
                        cancel.cancel();
                    }
                }
                tally = &mut moving => {
                    going.tally = tally;
                    // A cancel that came after the last sub-operation changes nothing.
                    going.cancelled &= going.tally.over() < going.instances.len();
                    return Ok(());
                }
                Ok(()) = progress.changed() => {
                    let numbers = *progress.borrow_and_update();
                    if numbers.remaining != Some(0) {
                        going.asked.put_pending(&mut pending, numbers, self.agreement.peer_max_length);
                        self.flush_pending(&mut pending, going).await?;
                    }
                }
            }
        }
    }

    async fn flush_pending(&mut self, pending: &mut Vec<u8>, going: &Going) -> Result<(), End> {
        if !pending.is_empty() {
            self.writer.send(pending).await.map_err(End::Write)?;
            pending.clear();
            self.answered.count_pending(going.asked.request.field.response(), 1);
        }
        Ok(())
    }

    /// Takes what the peer that asked says while nothing of it is expected.
    fn meanwhile(&mut self, incoming: Result<IncomingPdu<'_>, ReadError>, going: &mut Going) -> Result<(), End> {
        match self.while_answering(incoming, going.asked.request.message_id)? {
            Meanwhile::Nothing => {}
            Meanwhile::Cancel => going.cancelled = true,
            Meanwhile::Response(response) => return Err(End::UnexpectedResponse(response.field)),
            Meanwhile::Ahead(command) => going.ahead = Some(command),
        }
        Ok(())
    }

    /// Waits for the next piece, while listening.
    async fn next_piece(
        &mut self,
        reader: &mut PduReader,
        ahead: &mut ReadAhead,
        going: &mut Going,
        shared: &Shared,
    ) -> Result<Result<Option<Piece>, SlowSource>, End> {
        let patience = Patience { first_byte: None, rest: shared.options.read_timeout };
        loop {
            tokio::select! {
                biased;
                incoming = reader.next(patience), if going.ahead.is_none() => {
                    self.meanwhile(incoming, going)?;
                    if going.cancelled {
                        return Ok(Ok(None));
                    }
                }
                piece = ahead.next() => return Ok(piece),
            }
        }
    }

    /// Sends what an object has besides its first piece.
    async fn send_rest(&mut self, ahead: &mut ReadAhead) -> Result<(), End> {
        loop {
            match ahead.next().await {
                Ok(Some(Piece::More { bytes, is_last })) => {
                    self.writer.send(bytes.as_slice()).await.map_err(End::Write)?;
                    metrics::SENT_DATA_SET_BYTES.add(bytes.as_slice().len() as u64);
                    ahead.give_back(bytes);
                    if is_last {
                        return Ok(());
                    }
                }
                Ok(Some(Piece::Broken(error))) => {
                    warn!(%error, "an object could not be read to its end; the association has to end for that");
                    return Err(End::BrokenObject);
                }
                // In the middle of a message there is no other way to say that it will not end.
                Ok(Some(Piece::Begin { .. } | Piece::Failed { .. }) | None) | Err(SlowSource) => {
                    return Err(End::BrokenObject);
                }
            }
        }
    }

    /// Waits for the response to a C-STORE-RQ of ours.
    async fn answer_to(
        &mut self,
        reader: &mut PduReader,
        message_id: u16,
        going: &mut Going,
        service: &Retrieve,
        shared: &Shared,
    ) -> Result<PeerResponse, End> {
        let response_timeout = service.options().response_timeout;
        let deadline = Instant::now() + response_timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let patience = Patience { first_byte: Some(left), rest: shared.options.read_timeout };
            let incoming = match reader.next(patience).await {
                Err(ReadError::Silence) => return Err(End::NoAnswer),
                incoming => incoming,
            };
            match self.while_answering(incoming, going.asked.request.message_id)? {
                Meanwhile::Nothing => {}
                // The sub-operation is finished first (PS3.4 C.4.3.3.1).
                Meanwhile::Cancel => going.cancelled = true,
                Meanwhile::Response(response)
                    if response.field == CommandField::C_STORE_RSP
                        && response.message_id_being_responded_to == message_id =>
                {
                    return Ok(response);
                }
                Meanwhile::Response(response) => return Err(End::UnexpectedResponse(response.field)),
                Meanwhile::Ahead(command) if going.ahead.is_none() => going.ahead = Some(command),
                // A second one is past what simple senders do.
                Meanwhile::Ahead(command) => {
                    let field = command.command.unsigned_short(crate::dimse::command_set::COMMAND_FIELD).unwrap_or(0);
                    return Err(End::UnexpectedRequest(CommandField(field)));
                }
            }
        }
    }
}
