//! N-EVENT-REPORT requests of this node on an association that a peer opened (PS3.7 10.1.1).
//!
//! A report is made in the background. It goes out when no message is under way. One report at a
//! time waits for its response. Some reports are not answered in time, or are left when the
//! association ends. They are sent on associations of their own.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::dimse::message::EventReportRequest;
use crate::model::status::Status;
use crate::scp::node_context::NodeContext;

/// Maximum reports of one association that are being made. Larger: one peer keeps more threads
/// busy. Smaller: it waits sooner.
const MAX_IN_PREPARATION: usize = 16;

/// A report that is ready.
pub(in crate::scp) trait EventReport: Send {
    /// The presentation context of the request that it answers.
    fn context_id(&self) -> u8;

    /// The request and its data set.
    fn message(&self, message_id: u16) -> (EventReportRequest<'static>, Vec<u8>);

    /// The time for the peer to answer.
    fn response_timeout(&self) -> Duration;

    /// The peer has answered.
    fn answered(self: Box<Self>, status: Status, calling_ae_title: &str, node: &NodeContext);

    /// The peer has not answered on this association, or the association is over.
    fn deliver_elsewhere(self: Box<Self>, calling_ae_title: &str, node: &NodeContext);
}

/// The reports of one association.
#[derive(Default)]
pub(in crate::scp) struct EventReports {
    in_preparation: JoinSet<Box<dyn EventReport>>,
    /// The report that waits for its response.
    sent: Option<SentReport>,
    last_message_id: u16,
    /// Message IDs of reports that were not answered in time. The answer may still come.
    late: Vec<u16>,
}

struct SentReport {
    report: Box<dyn EventReport>,
    message_id: u16,
    deadline: Instant,
}

/// Action that is due for a report.
pub(in crate::scp) enum Due {
    /// It is ready to be sent.
    Send(Box<dyn EventReport>),
    /// The peer has not answered it in time.
    Unanswered(Box<dyn EventReport>),
}

impl EventReports {
    /// Makes a report in the background. If too many are being made, waits for one of them.
    pub(in crate::scp) async fn prepare(
        &mut self,
        report: impl Future<Output = Box<dyn EventReport>> + Send + 'static,
    ) {
        if self.in_preparation.len() >= MAX_IN_PREPARATION
            && let Some(Ok(ready)) = self.in_preparation.join_next().await
        {
            // It stays in the set, as one that is ready.
            self.in_preparation.spawn(async { ready });
        }
        self.in_preparation.spawn(report);
    }

    /// Returns what is to be done next. Waits forever if there is nothing. Nothing is lost if the
    /// future is dropped before it is ready.
    pub(in crate::scp) async fn next(&mut self) -> Option<Due> {
        if let Some(sent) = &self.sent {
            // A peer that does not answer must not block its other reports while it is associated.
            sleep_until(sent.deadline).await;
            let SentReport { report, message_id, .. } = self.sent.take()?;
            self.late.push(message_id);
            return Some(Due::Unanswered(report));
        }
        if self.in_preparation.is_empty() {
            return std::future::pending().await;
        }
        // A task that panicked has nothing to report.
        self.in_preparation.join_next().await.and_then(Result::ok).map(Due::Send)
    }

    /// Takes a report that is about to be sent. Returns its context, request and data set.
    pub(in crate::scp) fn send(&mut self, report: Box<dyn EventReport>) -> (u8, EventReportRequest<'static>, Vec<u8>) {
        let message_id = self.last_message_id.checked_add(1).unwrap_or(1);
        self.last_message_id = message_id;
        let (request, data_set) = report.message(message_id);
        let context_id = report.context_id();
        let deadline = Instant::now() + report.response_timeout();
        // It is kept even if sending fails. Then it goes out on an association of its own.
        self.sent = Some(SentReport { report, message_id, deadline });
        (context_id, request, data_set)
    }

    /// Takes an N-EVENT-REPORT-RSP. Returns whether it answers a report of this association.
    pub(in crate::scp) fn on_response(
        &mut self,
        (message_id, status): (u16, Status),
        calling_ae_title: &str,
        node: &NodeContext,
    ) -> bool {
        if let Some(sent) = self.sent.take_if(|sent| sent.message_id == message_id) {
            sent.report.answered(status, calling_ae_title, node);
        } else if let Some(at) = self.late.iter().position(|late| *late == message_id) {
            // The report is already on its way a second time, which does no harm (PS3.4 J.3.3).
            self.late.swap_remove(at);
        } else {
            return false;
        }
        true
    }

    /// The association is over. What is not reported yet goes out elsewhere.
    pub(in crate::scp) fn hand_over(&mut self, calling_ae_title: &str, node: &NodeContext) {
        let Self { mut in_preparation, sent, .. } = std::mem::take(self);
        if let Some(SentReport { report, .. }) = sent {
            report.deliver_elsewhere(calling_ae_title, node);
        }
        if in_preparation.is_empty() {
            return;
        }
        let (calling_ae_title, node) = (calling_ae_title.to_owned(), node.clone());
        tokio::spawn(async move {
            while let Some(made) = in_preparation.join_next().await {
                if let Ok(report) = made {
                    report.deliver_elsewhere(&calling_ae_title, &node);
                }
            }
        });
    }
}
