//! The sub-operations of a C-GET, on the association of the peer that asked (PS3.4 C.4.3).

use std::sync::Arc;

use tokio::time::Instant;
use tracing::warn;

use dicom_dictionary_std::tags;

use super::contexts::OutgoingContexts;
use super::framing::{StoreRequests, message_id};
use super::retrieval::Retrieval;
use super::tally::SubOperationError;
use crate::deliver::buffer::Buffer;
use crate::deliver::read_ahead::{ReadAhead, SlowSource};
use crate::deliver::sending::{Piece, Sending};
use crate::dimse::command_set::CommandField;
use crate::dimse::message::PeerResponse;
use crate::scp::services::service::{End, Interleaved, Session};
use crate::telemetry::metrics;
use crate::ul::pdu_io::{PduReader, ReadError, Timeouts};

/// Sends the objects and counts the responses.
pub(super) async fn run(retrieval: &mut Retrieval, session: &mut Session, reader: &mut PduReader) -> Result<(), End> {
    let sending = Sending {
        delivery: Arc::clone(retrieval.service.delivery()),
        instances: Arc::clone(&retrieval.instances),
        over: Vec::new(),
        only: None,
        framing: Arc::new(StoreRequests {
            contexts: OutgoingContexts::of_acceptor(&session.agreement),
            decompression: retrieval.service.options().decompression,
            priority: retrieval.asked.request.priority,
            originator: None,
            peer_max_length: session.agreement.peer_max_length,
        }),
        memory: session.memory.clone(),
    };
    let mut ahead = ReadAhead::start(sending);
    let mut pending = Vec::new();
    while !retrieval.cancelled {
        let piece = match ahead.at_hand() {
            Some(piece) => Ok(Some(piece)),
            None => {
                // There is no object that an earlier response could go out with, so it goes alone.
                retrieval.flush_pending(&mut pending, session).await?;
                next_piece(&mut ahead, retrieval, session, reader).await?
            }
        };
        match piece {
            Ok(Some(Piece::Begin { at, number, bytes, is_last })) => {
                send_first(bytes, &mut pending, &mut ahead, retrieval, session).await?;
                if !is_last {
                    send_rest(&mut ahead, session).await?;
                }
                let response = answer_to(message_id(number), retrieval, session, reader).await?;
                retrieval.tally.answered(at, response.status);
            }
            Ok(Some(Piece::Failed { at, error })) => retrieval.tally.fail(at, &error.into()),
            Ok(Some(Piece::More { .. } | Piece::Broken(_))) => return Err(End::BrokenObject),
            Ok(None) => break,
            Err(SlowSource) => {
                fail_rest(retrieval);
                break;
            }
        }
        pending.clear();
        if retrieval.tally.over() < retrieval.instances.len() {
            let so_far = retrieval.tally.so_far();
            retrieval.asked.put_pending(&mut pending, so_far, session.agreement.peer_max_length);
        }
    }
    Ok(())
}

/// Fails every sub-operation that is not over: the objects can no longer be read.
fn fail_rest(retrieval: &mut Retrieval) {
    for at in 0..retrieval.instances.len() {
        if !retrieval.tally.is_over(at) {
            retrieval.tally.fail(at, &SubOperationError::SlowSource);
        }
    }
}

/// Waits for the next piece, while it listens to the peer.
async fn next_piece(
    ahead: &mut ReadAhead,
    retrieval: &mut Retrieval,
    session: &mut Session,
    reader: &mut PduReader,
) -> Result<Result<Option<Piece>, SlowSource>, End> {
    let timeouts = Timeouts { first_byte: None, rest: session.node.options.read_timeout };
    loop {
        tokio::select! {
            biased;
            incoming = reader.next(timeouts), if retrieval.queued.is_none() => {
                retrieval.interleaved(incoming, session)?;
                if retrieval.cancelled {
                    return Ok(Ok(None));
                }
            }
            piece = ahead.next() => return Ok(piece),
        }
    }
}

/// Sends the first piece of an object, together with the pending response if there is one.
async fn send_first(
    mut bytes: Buffer,
    pending: &mut Vec<u8>,
    ahead: &mut ReadAhead,
    retrieval: &Retrieval,
    session: &mut Session,
) -> Result<(), End> {
    if !bytes.put_in_front(pending) {
        retrieval.flush_pending(pending, session).await?;
    } else if !pending.is_empty() {
        pending.clear();
        session.answered.count_pending(retrieval.asked.request.field.response(), 1);
    }
    send_piece(bytes, ahead, session).await
}

async fn send_piece(bytes: Buffer, ahead: &mut ReadAhead, session: &mut Session) -> Result<(), End> {
    session.writer.send(bytes.as_slice()).await.map_err(End::Write)?;
    metrics::SENT_DATA_SET_BYTES.add(bytes.as_slice().len() as u64);
    ahead.give_back(bytes);
    Ok(())
}

/// Sends the pieces of an object after the first.
async fn send_rest(ahead: &mut ReadAhead, session: &mut Session) -> Result<(), End> {
    loop {
        match ahead.next().await {
            Ok(Some(Piece::More { bytes, is_last })) => {
                send_piece(bytes, ahead, session).await?;
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

/// Waits for the response to a C-STORE-RQ of this node.
async fn answer_to(
    message_id: u16,
    retrieval: &mut Retrieval,
    session: &mut Session,
    reader: &mut PduReader,
) -> Result<PeerResponse, End> {
    let deadline = Instant::now() + retrieval.service.options().response_timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeouts = Timeouts { first_byte: Some(left), rest: session.node.options.read_timeout };
        let incoming = match reader.next(timeouts).await {
            Err(ReadError::Silence) => return Err(End::NoAnswer),
            incoming => incoming,
        };
        match session.interleaved(incoming, retrieval.asked.request.message_id)? {
            Interleaved::Nothing => {}
            // The sub-operation is finished first (PS3.4 C.4.3.3.1).
            Interleaved::Cancel => retrieval.cancelled = true,
            Interleaved::Response(response)
                if response.field == CommandField::C_STORE_RSP
                    && response.message_id_being_responded_to == message_id =>
            {
                return Ok(response);
            }
            Interleaved::Response(response) => return Err(End::UnexpectedResponse(response.field)),
            Interleaved::Command(command) if retrieval.queued.is_none() => retrieval.queued = Some(command),
            // Simple senders do not send a second one.
            Interleaved::Command(command) => {
                let field = command.command.unsigned_short(tags::COMMAND_FIELD).unwrap_or(0);
                return Err(End::UnexpectedRequest(CommandField(field)));
            }
        }
    }
}
