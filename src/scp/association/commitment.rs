//! Storage Commitment on an established association (PS3.4 J.3): requests are verified in the background, and reported here as
//! long as the association is there.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::listener::Shared;
use super::super::services::commit::{Receiving, Report, Reporting, told};
use super::{End, Session};
use crate::dimse::command_set::{CommandField, CommandSet};
use crate::dimse::message::PeerResponse;
use crate::dimse::pdata::put_message;

/// Transactions of one association that are verified, or wait for it, at one time. One more is answered, and what comes after it is not
/// read before one of these is done. For all associations together see [`CommitmentLimits`](crate::scp::CommitmentLimits).
const MAX_TRANSACTIONS: usize = 16;

/// The Message ID of our N-EVENT-REPORT-RQs: there is one at a time.
const REPORT_MESSAGE_ID: u16 = 1;

/// The transactions of an association.
#[derive(Default)]
pub(super) struct Commitments {
    verifying: JoinSet<Report>,
    /// Sent and not answered.
    reported: Option<Report>,
}

impl Commitments {
    /// The next transaction whose objects have been looked at; waits for ever while there is none, and while the peer has not
    /// answered the report before.
    pub(super) async fn next(&mut self) -> Option<Report> {
        if self.reported.is_some() || self.verifying.is_empty() {
            return std::future::pending().await;
        }
        // A defect of ours while verifying: there is nothing to report.
        self.verifying.join_next().await.and_then(Result::ok)
    }
}

impl Session {
    /// Answers an N-ACTION-RQ, and begins to look at its objects.
    pub(super) async fn commit(&mut self, receiving: Receiving) -> Result<(), End> {
        let context_id = receiving.context_id;
        let (response, transaction) = receiving.finish(self.services.commitment.as_deref());
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

    /// Sends a report.
    pub(super) async fn report(&mut self, report: Option<Report>) -> Result<(), End> {
        let Some(report) = report else { return Ok(()) };
        let (request, data_set) = report.message(REPORT_MESSAGE_ID);
        let context_id = report.context_id;
        // Also when sending fails: then it goes out on an association of its own.
        self.commitments.reported = Some(report);
        // Not in the memory for responses, which stays: this may be megabytes.
        let mut outgoing = Vec::new();
        let max_length = self.agreement.peer_max_length;
        put_message(&mut outgoing, context_id, &request.command_set(), Some(&data_set), max_length);
        drop(data_set);
        self.writer.send(&outgoing).await.map_err(End::Write)
    }

    /// A response outside of any operation: that to a report, or one that nobody asked for.
    pub(super) fn on_response(&mut self, command: &CommandSet, field: CommandField) -> Result<(), End> {
        let response = PeerResponse::parse(command).map_err(End::Unanswerable)?;
        match response {
            Some(response)
                if field == CommandField::N_EVENT_REPORT_RSP
                    && response.message_id_being_responded_to == REPORT_MESSAGE_ID
                    && self.commitments.reported.take().is_some() =>
            {
                told(&response.status, &self.agreement.calling_ae_title);
                Ok(())
            }
            _ => Err(End::UnexpectedResponse(field)),
        }
    }

    /// The association is over: what has not been reported yet goes out on another one.
    pub(super) fn hand_over_reports(&mut self, shared: &Shared, shutdown: &CancellationToken) {
        let Commitments { verifying, reported } = std::mem::take(&mut self.commitments);
        let Some(commitment) = self.services.commitment.clone() else { return };
        // Who calls without a title cannot be called back.
        let Ok(ae_title) = self.agreement.calling_ae_title.parse() else { return };
        let options = &shared.options;
        let to = Reporting {
            own_ae_title: options.ae_title.clone(),
            ae_title,
            peers: self.services.peers.clone(),
            waits: options.waits(),
        };
        if let Some(report) = reported {
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
