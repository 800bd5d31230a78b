//! The responses to a C-GET-RQ or C-MOVE-RQ (PS3.7 9.3.3, 9.3.4).

use dicom_dictionary_std::tags;

use super::tally::{Ending, RemainingCount, RetrievalTally};
use crate::dimse::Response;
use crate::dimse::message::{DataSetPresence, RetrieveRequest, SubOperations};
use crate::dimse::pdata::put_message;
use crate::encoding::data_set::uid_list_data_set;
use crate::encoding::syntax::Encoding;
use crate::model::status::Status;
use crate::qr::{Instances, RetrieveError};

/// A retrieval that a peer asked for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) context_id: u8,
    pub(super) request: RetrieveRequest,
    /// The encoding of its presentation context.
    pub(super) encoding: Encoding,
}

impl Asked {
    /// Returns a response (PS3.7 tables 9.3-7 and 9.3-10).
    pub(super) fn response(&self, status: Status) -> Response {
        Response::new(self.request.field, self.request.message_id, status)
            .with_sop_class(Some(&self.request.affected_sop_class_uid))
    }

    /// Returns the refusal of a retrieval that cannot begin.
    pub(super) fn refusal(&self, error: &RetrieveError) -> Response {
        let failure = error.failure();
        self.response(failure.status)
            .with_comment(&failure.comment)
            .with_offending_elements(&failure.offending_elements)
    }

    /// Appends an encoded pending response.
    pub(super) fn put_pending(&self, out: &mut Vec<u8>, numbers: SubOperations, peer_max_length: u32) {
        let response = self.response(Status::PENDING).with_sub_operations(numbers);
        put_message(out, self.context_id, &response.command_set(DataSetPresence::Absent), None, peer_max_length);
    }

    /// Returns the last response. If sub-operations failed, it has an Identifier (PS3.4
    /// C.4.2.1.4.2, C.4.3.1.3.2).
    pub(super) fn last_response(
        &self,
        tally: &RetrievalTally,
        instances: &Instances,
        ending: Ending,
    ) -> (Response, Option<Vec<u8>>) {
        let (status, going) = match ending {
            Ending::Cancelled => (Status::CANCEL, RemainingCount::On),
            Ending::Complete => (tally.status(), RemainingCount::Ended),
        };
        let response = self.response(status).with_sub_operations(tally.numbers(going)).with_comment(&tally.comment());
        let uids = tally.failed().iter().filter_map(|at| instances.get(*at)).map(|instance| instance.sop_instance_uid);
        let identifier = (!tally.failed().is_empty()).then(|| self.failed_list(uids));
        (response, identifier)
    }

    fn failed_list<'i>(&self, uids: impl Iterator<Item = &'i str>) -> Vec<u8> {
        uid_list_data_set(self.encoding, tags::FAILED_SOP_INSTANCE_UID_LIST, uids)
    }
}
