//! Storage Commitment on an established association (PS3.4 J.3): requests are verified in the background, and reported here as
//! long as the association is there.

use crate::scp::association::Commitments;
use crate::scp::association::commitments::Due;
use crate::scp::association::commitments::Reported;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::services::commit::{Receiving, Reporting, told};
use super::{End, Session};
use crate::dimse::command_set::{CommandField, CommandSet};
use crate::dimse::message::PeerResponse;
use crate::dimse::pdata::put_message;
use crate::model::ae_title::AeTitle;
use crate::scp::shared::Shared;

/// Transactions of one association that are verified, or wait for it, at one time. One more is answered, and what comes after it is not
/// read before one of these is done. For all associations together see [`CommitmentLimits`](crate::scp::CommitmentLimits).
const MAX_TRANSACTIONS: usize = 16;

impl Session {
    /// Answers an N-ACTION-RQ, and begins to look at its objects.
    pub(super) async fn commit(&mut self, receiving: Receiving) -> Result<(), End> {
        let context_id = receiving.context_id;
        let (mut response, mut transaction) = receiving.finish(self.services.commitment.as_deref(), self.memory.peer());
        // Whoever can be called back gets the report also after a restart.
        if let (Some(commitment), Some(ae_title)) = (self.services.commitment.clone(), self.called_back_as())
            && let Some(to_keep) = transaction.take()
        {
            (response, transaction) = to_keep.keep(&commitment, ae_title, response).await;
        }
        self.send(context_id, &response).await?;
        let (Some(transaction), Some(commitment)) = (transaction, self.services.commitment.clone()) else {
            return Ok(());
        };
        if self.commitments.verifying.len() >= MAX_TRANSACTIONS
            && let Some(Ok(report)) = self.commitments.verifying.join_next().await
        {
            // Kept as one that is ready.
            self.commitments.verifying.spawn(async { report });
        }
        self.commitments.verifying.spawn(transaction.verify(commitment));
        Ok(())
    }

    /// Does what is due about a report.
    pub(super) async fn report(
        &mut self,
        due: Option<Due>,
        shared: &Shared,
        shutdown: &CancellationToken,
    ) -> Result<(), End> {
        let Some(commitment) = self.services.commitment.clone() else { return Ok(()) };
        let report = match due {
            None => return Ok(()),
            Some(Due::Report(report)) => report,
            Some(Due::Unanswered(report)) => {
                if let Some(to) = self.reporting(shared) {
                    commitment.deliver(report, to, shutdown.clone());
                }
                return Ok(());
            }
        };
        let message_id = self.commitments.last_message_id.checked_add(1).unwrap_or(1);
        self.commitments.last_message_id = message_id;
        let (request, data_set) = report.message(message_id);
        let context_id = report.context_id;
        let deadline = Instant::now() + commitment.response_timeout();
        // Also when sending fails: then it goes out on an association of its own.
        self.commitments.reported = Some(Reported { report, message_id, deadline });
        // Not in the memory for responses, which stays: this may be megabytes.
        let mut outgoing = Vec::new();
        let max_length = self.agreement.peer_max_length;
        put_message(&mut outgoing, context_id, &request.command_set(), Some(&data_set), max_length);
        drop(data_set);
        self.writer.send(&outgoing).await.map_err(End::Write)
    }

    /// The AE title of the peer, where it has an address to be called at.
    fn called_back_as(&self) -> Option<AeTitle> {
        let ae_title = self.agreement.calling_ae_title.parse().ok()?;
        self.services.peers.destination(&ae_title).map(|_| ae_title)
    }

    /// A response outside of any operation: that to a report, or one that nobody asked for.
    pub(super) fn on_response(&mut self, command: &CommandSet, field: CommandField) -> Result<(), End> {
        let response = PeerResponse::parse(command).map_err(End::Unanswerable)?;
        let Some(response) = response.filter(|_| field == CommandField::N_EVENT_REPORT_RSP) else {
            return Err(End::UnexpectedResponse(field));
        };
        let message_id = response.message_id_being_responded_to;
        if let Some(reported) = self.commitments.reported.take_if(|reported| reported.message_id == message_id) {
            told(&response.status, &self.agreement.calling_ae_title);
            reported.report.forget();
        } else if let Some(at) = self.commitments.late.iter().position(|late| *late == message_id) {
            // Too late, but an answer: the report is on its way a second time, which does no harm (PS3.4 J.3.3).
            self.commitments.late.swap_remove(at);
        } else {
            return Err(End::UnexpectedResponse(field));
        }
        Ok(())
    }

    /// Who gets reports when this association does not do; `None`: who calls without a title cannot be called back.
    fn reporting(&self, shared: &Shared) -> Option<Reporting> {
        let ae_title = self.agreement.calling_ae_title.parse().ok()?;
        Some(shared.reporting(ae_title))
    }

    /// The association is over: what has not been reported yet goes out on another one.
    pub(super) fn hand_over_reports(&mut self, shared: &Shared, shutdown: &CancellationToken) {
        let Commitments { verifying, reported, .. } = std::mem::take(&mut self.commitments);
        let (Some(commitment), Some(to)) = (self.services.commitment.clone(), self.reporting(shared)) else { return };
        if let Some(Reported { report, .. }) = reported {
            commitment.deliver(report, to.clone(), shutdown.clone());
        }
        if verifying.is_empty() {
            return;
        }
        let (mut verifying, commitment, shutdown) = (verifying, Arc::clone(&commitment), shutdown.clone());
        tokio::spawn(async move {
            while let Some(verified) = verifying.join_next().await {
                if let Ok(report) = verified {
                    commitment.deliver(report, to.clone(), shutdown.clone());
                }
            }
        });
    }
}
