//! C-FIND as SCU (PS3.4 C.4.1), for commands. It blocks, and has a runtime of its own.

use dicom_dictionary_std::uids;
use tokio::runtime::Runtime;

use dicom_dictionary_std::tags;

use super::requestor::{Proposal, ScuAssociation, ScuError, Waits};
use super::tls::PeerRoute;
use crate::dimse::command_set::{self, CommandField, CommandSet};
use crate::encoding::syntax::{self, Encoding};
use crate::model::ae_title::AeTitle;
use crate::model::status::Status;

/// Asks a peer by C-FIND of the Study Root Information Model. Several questions share one
/// association.
pub struct QueryScu {
    runtime: Runtime,
    own: AeTitle,
    called: AeTitle,
    route: PeerRoute,
    waits: Waits,
    association: Option<ScuAssociation>,
    message_id: u16,
}

impl QueryScu {
    /// Makes an SCU. The association comes with the first question.
    ///
    /// # Errors
    /// Fails if the runtime cannot be started.
    pub fn new(own: &AeTitle, called: &AeTitle, route: PeerRoute, waits: Waits) -> Result<Self, ScuError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ScuError::Connect)?;
        let (own, called) = (own.clone(), called.clone());
        Ok(Self { runtime, own, called, route, waits, association: None, message_id: 0 })
    }

    /// Sends a C-FIND-RQ, and calls `on_answer` with each Identifier of a pending response. Returns
    /// the status of the last response. `identifier` makes the Identifier in the encoding that the
    /// peer accepted.
    ///
    /// # Errors
    /// Fails if no last response arrives. The association is dropped then, and the next query opens
    /// another one.
    pub fn find(
        &mut self,
        identifier: impl Fn(Encoding) -> Vec<u8>,
        mut on_answer: impl FnMut(&[u8], Encoding),
    ) -> Result<Status, ScuError> {
        let association = match self.association.take() {
            Some(association) => association,
            None => {
                let proposal = Proposal {
                    abstract_syntax: uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND.to_owned(),
                    transfer_syntaxes: vec![
                        syntax::EXPLICIT_VR_LITTLE_ENDIAN.to_owned(),
                        syntax::IMPLICIT_VR_LITTLE_ENDIAN.to_owned(),
                    ],
                    as_scp: false,
                };
                let proposals = [proposal];
                let request = ScuAssociation::request(&self.own, &self.called, &self.route, &proposals, self.waits);
                self.runtime.block_on(request)?
            }
        };
        self.message_id = self.message_id.wrapping_add(1).max(1);
        let message_id = self.message_id;
        let outcome = self.runtime.block_on(async {
            let mut association = association;
            let asked = ask(&mut association, message_id, &identifier, &mut on_answer).await;
            match asked {
                Ok(status) => Ok((association, status)),
                Err(error) => {
                    association.abort().await;
                    Err(error)
                }
            }
        });
        let (association, status) = outcome?;
        self.association = Some(association);
        Ok(status)
    }
}

impl Drop for QueryScu {
    fn drop(&mut self) {
        if let Some(association) = self.association.take() {
            self.runtime.block_on(association.release());
        }
    }
}

async fn ask(
    association: &mut ScuAssociation,
    message_id: u16,
    identifier: &impl Fn(Encoding) -> Vec<u8>,
    on_answer: &mut impl FnMut(&[u8], Encoding),
) -> Result<Status, ScuError> {
    let (context_id, encoding) = match association.accepted.first() {
        Some((id, _, uid)) => (*id, Encoding::of_uid(uid).ok_or(ScuError::NothingAccepted)?),
        None => return Err(ScuError::NothingAccepted),
    };
    let mut command = CommandSet::new();
    command.set_uid(tags::AFFECTED_SOP_CLASS_UID, uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND);
    command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::C_FIND_RQ.0);
    command.set_unsigned_short(tags::MESSAGE_ID, message_id);
    command.set_unsigned_short(tags::PRIORITY, 0);
    command.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::DATA_SET_PRESENT);
    association.send_message(context_id, &command, Some(&identifier(encoding))).await?;
    loop {
        let (response, data_set) = association.response_with_data_set(CommandField::C_FIND_RSP, message_id).await?;
        let is_pending = matches!(response.status, Status::PENDING | Status::PENDING_WITHOUT_OPTIONAL_KEYS);
        if !is_pending {
            return Ok(response.status);
        }
        if let Some(data_set) = data_set {
            on_answer(&data_set, encoding);
        }
    }
}
