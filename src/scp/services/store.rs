//! Storage (PS3.4 annex B): a C-STORE-RQ and its data set. [`crate::receive`] makes an object and a row
//! of the index of them, and only then there is a Success.

use std::sync::Arc;

use dicom_core::Tag;

use crate::db::{Committed, ReceivedFrom};
use crate::dimse::command_set::CommandField;
use crate::dimse::message::StoreRequest;
use crate::dimse::{Response, Status};
use crate::receive::arriving::{Announced, Arriving};
use crate::receive::error::ReceiveError;
use crate::receive::storage::Storage;
use crate::shares::PeerMemory;
use crate::ul::associate::PresentationContext;

/// Why a C-STORE-RQ is refused.
#[derive(Debug, thiserror::Error)]
pub(in crate::scp) enum StoreError {
    #[error("not the SOP Class of this presentation context")]
    SopClassNotOfContext,
    #[error("this AE title may not store here")]
    NotAuthorized,
    #[error("C-STORE-RQ without a data set")]
    NoDataSet,
    #[error(transparent)]
    Receive(#[from] ReceiveError),
}

impl StoreError {
    /// Statuses of PS3.4 table B.2-1 and PS3.7 9.1.1.1.9. No `_` arm: a new error has to be given its status here.
    fn status(&self) -> Status {
        let error = match self {
            Self::SopClassNotOfContext => return Status::SOP_CLASS_NOT_SUPPORTED,
            Self::NotAuthorized => return Status::NOT_AUTHORIZED,
            Self::NoDataSet => return Status::CANNOT_UNDERSTAND,
            Self::Receive(error) => error,
        };
        match error {
            ReceiveError::InvalidInstanceUid => Status::INVALID_SOP_INSTANCE,
            ReceiveError::NotUnderstood(_) | ReceiveError::MissingUid(_) => Status::CANNOT_UNDERSTAND,
            ReceiveError::OtherInstance | ReceiveError::OtherClass | ReceiveError::OtherStudy => {
                Status::DATA_SET_DOES_NOT_MATCH_SOP_CLASS
            }
            // PS3.7 C.5.5: the UID was given to another object. The sender must not take it for kept.
            ReceiveError::Duplicate => Status::DUPLICATE_SOP_INSTANCE,
            // Ours, and not the sender's: worth another try.
            ReceiveError::Object(_)
            | ReceiveError::Index(_)
            | ReceiveError::ThreadEnded
            | ReceiveError::TooMuchAtOnce => Status::OUT_OF_RESOURCES,
        }
    }

    fn offending_elements(&self) -> Vec<Tag> {
        match self {
            Self::Receive(error) => error.offending_elements(),
            Self::SopClassNotOfContext | Self::NotAuthorized | Self::NoDataSet => Vec::new(),
        }
    }

    /// What the peer is told, in the words of DIMSE.
    fn comment(&self) -> String {
        match self {
            Self::Receive(ReceiveError::InvalidInstanceUid) => "Affected SOP Instance UID is not a UID".into(),
            Self::Receive(ReceiveError::OtherInstance) => {
                "data set has another SOP Instance UID than the command".into()
            }
            Self::Receive(ReceiveError::OtherClass) => "data set has another SOP Class UID than the command".into(),
            Self::Receive(error) => error.comment(),
            other => other.to_string(),
        }
    }

    /// Whether our operator should look.
    pub(in crate::scp) fn is_ours(&self) -> bool {
        matches!(self, Self::Receive(error) if error.is_ours())
    }
}

/// A C-STORE-RSP. A success takes the proof that the instance is committed, so it cannot be sent early.
#[derive(Debug)]
pub(in crate::scp) struct StoreResponse(Response);

impl StoreResponse {
    /// Success (PS3.4 B.2.3).
    fn success(request: &StoreRequest, _proof: Committed) -> Self {
        Self(Self::to(request, Status::SUCCESS))
    }

    /// Any other status.
    pub(in crate::scp) fn failure(request: &StoreRequest, error: &StoreError) -> Self {
        let response = Self::to(request, error.status())
            .with_comment(&error.comment())
            .with_offending_elements(&error.offending_elements());
        Self(response)
    }

    fn to(request: &StoreRequest, status: Status) -> Response {
        Response::new(CommandField::C_STORE_RQ, request.message_id, status)
            .with_sop_class(Some(&request.affected_sop_class_uid))
            .with_sop_instance(&request.affected_sop_instance_uid)
    }

    /// The message to send.
    pub(in crate::scp) fn into_response(self) -> Response {
        self.0
    }
}

/// An instance that is arriving.
pub(in crate::scp) struct Receiving {
    request: StoreRequest,
    arriving: Arriving,
}

impl Receiving {
    /// Begins with the command.
    ///
    /// # Errors
    /// When the data set need not be looked at.
    pub(in crate::scp) fn begin(
        storage: &Arc<Storage>,
        request: &StoreRequest,
        context: &PresentationContext,
        sender: &Arc<ReceivedFrom>,
        memory: &PeerMemory,
    ) -> Result<Self, StoreError> {
        if request.affected_sop_class_uid != context.abstract_syntax {
            return Err(StoreError::SopClassNotOfContext);
        }
        let announced = Announced {
            sop_class_uid: request.affected_sop_class_uid.clone(),
            sop_instance_uid: request.affected_sop_instance_uid.clone(),
            transfer_syntax: context.transfer_syntax.clone(),
            study_instance_uid: None,
        };
        let arriving = Arriving::begin(storage, announced, sender, memory)?;
        Ok(Self { request: request.clone(), arriving })
    }

    /// Takes the next fragment of the data set.
    pub(in crate::scp) async fn accept(&mut self, fragment: &[u8]) {
        self.arriving.accept(fragment).await;
    }

    /// The end of the data set: stores the instance and answers. With the error, if there was one.
    pub(in crate::scp) async fn finish(self) -> (StoreResponse, Option<StoreError>) {
        let Self { request, arriving } = self;
        match arriving.finish().await {
            Ok(arrived) => (StoreResponse::success(&request, arrived.committed), None),
            Err(error) => {
                let error = StoreError::Receive(error);
                (StoreResponse::failure(&request, &error), Some(error))
            }
        }
    }
}
