//! A C-MOVE on the association of the peer that asked: progress out, C-CANCEL in. [`Mover`] sends
//! the objects on associations of its own.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::mover::Mover;
use super::retrieval::Retrieval;
use crate::model::ae_title::AeTitle;
use crate::scp::services::service::{End, Session};
use crate::ul::pdu_io::{PduReader, Timeouts};
use crate::ul::requestor::Waits;
use crate::ul::tls::PeerRoute;

/// Moves the objects to a destination, and tells the peer how far it is.
pub(super) async fn run(
    retrieval: &mut Retrieval,
    session: &mut Session,
    reader: &mut PduReader,
    (destination_ae_title, destination): (AeTitle, PeerRoute),
) -> Result<(), End> {
    let options = &session.node.options;
    let service = &retrieval.service;
    let mover = Mover {
        retrieve: Arc::clone(service),
        asked: retrieval.asked.clone(),
        instances: Arc::clone(&retrieval.instances),
        own_ae_title: options.ae_title.clone(),
        originator: session.agreement.calling_ae_title.clone(),
        destination_ae_title,
        destination,
        waits: Waits { response: service.options().response_timeout, ..options.waits() },
        memory: session.memory.clone(),
    };
    let timeouts = Timeouts { first_byte: None, rest: options.read_timeout };
    // Dropped with this function, also when the association with the peer is lost. Then the
    // connection to the destination is closed.
    let cancel = CancellationToken::new();
    let (progress_sender, mut progress) = watch::channel(retrieval.tally.so_far());
    let mut moving = pin!(mover.run(&cancel, &progress_sender));
    let mut pending = Vec::new();
    loop {
        tokio::select! {
            biased;
            incoming = reader.next(timeouts), if retrieval.queued.is_none() => {
                retrieval.interleaved(incoming, session)?;
                if retrieval.cancelled {
                    // The object that is being sent is finished first.
                    cancel.cancel();
                }
            }
            tally = &mut moving => {
                retrieval.tally = tally;
                return Ok(());
            }
            Ok(()) = progress.changed() => {
                let numbers = *progress.borrow_and_update();
                if numbers.remaining != Some(0) {
                    retrieval.asked.put_pending(&mut pending, numbers, session.agreement.peer_max_length);
                    retrieval.flush_pending(&mut pending, session).await?;
                }
            }
        }
    }
}
