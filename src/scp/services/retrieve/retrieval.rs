//! A retrieval under way: its instances, its sub-operations, and the peer that asked.

use std::sync::Arc;

use super::asked::Asked;
use super::retriever::Retrieve;
use super::tally::RetrievalTally;
use crate::qr::Instances;
use crate::scp::services::service::{End, Interleaved, QueuedCommand, Session};
use crate::shares::Share;
use crate::ul::pdu_io::{IncomingPdu, ReadError};

/// A retrieval under way.
pub(super) struct Retrieval {
    pub(super) service: Arc<Retrieve>,
    pub(super) asked: Asked,
    pub(super) instances: Arc<Instances>,
    /// The memory that is counted for the instances.
    pub(super) _listed: Share,
    pub(super) tally: RetrievalTally,
    pub(super) cancelled: bool,
    /// A command that came meanwhile and has to wait.
    pub(super) queued: Option<QueuedCommand>,
}

impl Retrieval {
    /// Takes what the peer that asked sends while no message from it is due.
    pub(super) fn interleaved(
        &mut self,
        incoming: Result<IncomingPdu<'_>, ReadError>,
        session: &mut Session,
    ) -> Result<(), End> {
        match session.interleaved(incoming, self.asked.request.message_id)? {
            Interleaved::Nothing => {}
            Interleaved::Cancel => self.cancelled = true,
            Interleaved::Response(response) => return Err(End::UnexpectedResponse(response.field)),
            Interleaved::Command(command) => self.queued = Some(command),
        }
        Ok(())
    }

    /// Sends a pending response that is already encoded.
    pub(super) async fn flush_pending(&self, pending: &mut Vec<u8>, session: &mut Session) -> Result<(), End> {
        if !pending.is_empty() {
            session.writer.send(pending).await.map_err(End::Write)?;
            pending.clear();
            session.answered.count_pending(self.asked.request.field.response(), 1);
        }
        Ok(())
    }
}
