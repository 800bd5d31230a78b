//! Frames objects as C-STORE-RQs in P-DATA-TF PDUs. Each buffer holds whole PDUs, so that it is
//! written to the socket as it was read.

use std::io;

use super::contexts::OutgoingContexts;
use super::retriever::Decompression;
use crate::deliver::buffer::{Buffer, PIECE_LENGTH};
use crate::deliver::error::DeliverError;
use crate::deliver::framing::{Framing, ObjectForm};
use crate::deliver::object::DataSet;
use crate::dimse::message::{MoveOriginator, StoreRequest};
use crate::dimse::pdata::{
    FRAGMENT_HEADER_LENGTH, MAX_SENT_PDU_LENGTH, data_fragment_header, fragment_limit, put_message,
};
use crate::qr::{ObjectKind, RetrievedInstance};

// Two of the longest PDUs and a command fit into a piece.
const _: () = assert!(PIECE_LENGTH >= 2 * MAX_SENT_PDU_LENGTH as usize + 4096);

/// The C-STORE-RQs of one association.
pub(super) struct StoreRequests {
    pub(super) contexts: OutgoingContexts,
    pub(super) decompression: Decompression,
    pub(super) priority: u16,
    /// The requestor of the C-MOVE, if another association asked for the objects.
    pub(super) originator: Option<MoveOriginator>,
    pub(super) peer_max_length: u32,
}

/// Returns the Message ID of the C-STORE-RQ for the object with this number. It counts from 1 to
/// 65,535 and starts again.
pub(super) fn message_id(number: usize) -> u16 {
    (number.saturating_sub(1) % usize::from(u16::MAX)) as u16 + 1
}

impl Framing for StoreRequests {
    fn choose(&self, kind: &ObjectKind) -> Result<ObjectForm, DeliverError> {
        self.contexts.choose(kind, self.decompression)
    }

    fn begin(&self, form: ObjectForm, instance: &RetrievedInstance<'_>, number: usize, out: &mut Vec<u8>) {
        let command = StoreRequest {
            message_id: message_id(number),
            affected_sop_class_uid: instance.kind.sop_class_uid.clone(),
            affected_sop_instance_uid: instance.sop_instance_uid.to_owned(),
            move_originator: self.originator.clone(),
        }
        .command_set(self.priority);
        put_message(out, form.channel, &command, None, self.peer_max_length);
    }

    fn fill(
        &self,
        form: ObjectForm,
        data_set: &mut DataSet,
        buffer: &mut Buffer,
        piece_length: usize,
    ) -> io::Result<bool> {
        let limit = fragment_limit(self.peer_max_length).min(piece_length);
        loop {
            // Only whole PDUs. Near the end of a data set, the PDU takes no more memory than it
            // needs.
            let left = data_set.left().and_then(|left| usize::try_from(left).ok()).unwrap_or(limit);
            let length = left.min(limit);
            let room = buffer.room(piece_length).saturating_sub(FRAGMENT_HEADER_LENGTH);
            if length > room && !buffer.is_empty() {
                return Ok(false);
            }
            let mut is_last = false;
            buffer.append(FRAGMENT_HEADER_LENGTH + length, |space| {
                let Some((header, fragment)) = space.split_first_chunk_mut() else { return Ok(0) };
                let filled = data_set.fill(fragment)?;
                *header = data_fragment_header(form.channel, filled.count, filled.is_last);
                is_last = filled.is_last;
                Ok(FRAGMENT_HEADER_LENGTH + filled.count)
            })?;
            if is_last {
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_begin_again_behind_the_last_and_none_is_0() {
        assert_eq!([1, 2, 65_535, 65_536, 131_070, 131_071].map(message_id), [1, 2, 65_535, 1, 65_535, 1]);
    }
}
