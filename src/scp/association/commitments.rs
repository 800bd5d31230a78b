//! The storage commitment transactions of an association.

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::scp::services::commit::Report;

/// The transactions of an association.
#[derive(Default)]
pub(super) struct Commitments {
    pub(super) verifying: JoinSet<Report>,
    /// Sent and not answered: there is one at a time.
    pub(super) reported: Option<Reported>,
    /// The Message ID of the last report.
    pub(super) last_message_id: u16,
    /// Message IDs of reports whose answers did not come in time, and may come yet.
    pub(super) late: Vec<u16>,
}

pub(super) struct Reported {
    pub(super) report: Report,
    pub(super) message_id: u16,
    /// When its answer has to be there.
    pub(super) deadline: Instant,
}

/// What is to be done about a report.
pub(super) enum Due {
    /// Its objects have been looked at: it is to be sent.
    Report(Report),
    /// The peer has not answered it in time: it goes out on another association.
    Unanswered(Report),
}

impl Commitments {
    /// What is to be done next; waits for ever while there is nothing.
    pub(super) async fn next(&mut self) -> Option<Due> {
        if let Some(reported) = &self.reported {
            // A peer that does not answer must not keep the room of its transactions for as long as it is associated.
            sleep_until(reported.deadline).await;
            let Reported { report, message_id, .. } = self.reported.take()?;
            self.late.push(message_id);
            return Some(Due::Unanswered(report));
        }
        if self.verifying.is_empty() {
            return std::future::pending().await;
        }
        // A defect of ours while verifying: there is nothing to report.
        self.verifying.join_next().await.and_then(Result::ok).map(Due::Report)
    }
}
