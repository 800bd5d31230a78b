//! Reasons why an object is not stored.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use crate::db;
use crate::store;
use crate::telemetry::metrics;

/// The reason why an object is not stored. The sender gets the text, so it names no path and no
/// value.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The announced SOP Instance UID is not a UID.
    #[error("SOP Instance UID is not a UID")]
    InvalidInstanceUid,
    /// The data set cannot be read.
    #[error("{0}")]
    NotUnderstood(String),
    /// A UID is missing without which nothing is stored.
    #[error("data set lacks a UID")]
    MissingUid(Vec<Tag>),
    /// The data set is another instance than announced.
    #[error("data set has another SOP Instance UID than announced")]
    OtherInstance,
    /// The data set has another SOP Class than announced.
    #[error("data set has another SOP Class UID than announced")]
    OtherClass,
    /// The data set belongs to another study than announced.
    #[error("data set has another Study Instance UID than announced")]
    OtherStudy,
    /// The store failed.
    #[error(transparent)]
    Object(#[from] store::Error),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] db::Error),
    /// The instance is kept with other content, and the first one stays.
    #[error("another object is kept under this SOP Instance UID")]
    Duplicate,
    /// A thread that writes objects has ended.
    #[error("a thread that writes objects has ended")]
    ThreadEnded,
    /// The peer has all the memory that it may have.
    #[error("this peer has too much under way; send it again later")]
    TooMuchAtOnce,
}

/// Party at fault for a refusal. It decides the status of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveErrorKind {
    /// This node. The sender may try again.
    OutOfResources,
    /// The data set cannot be read, or is not what was announced.
    NotUnderstood,
    /// Another object has its SOP Instance UID, or the UID is none.
    Refused,
}

impl ReceiveError {
    /// Returns who can mend it. There is no `_` arm, so that a new error gets its kind here.
    #[must_use]
    pub fn kind(&self) -> ReceiveErrorKind {
        match self {
            Self::Object(_) | Self::Index(_) | Self::ThreadEnded | Self::TooMuchAtOnce => {
                ReceiveErrorKind::OutOfResources
            }
            Self::NotUnderstood(_)
            | Self::MissingUid(_)
            | Self::OtherInstance
            | Self::OtherClass
            | Self::OtherStudy => ReceiveErrorKind::NotUnderstood,
            Self::InvalidInstanceUid | Self::Duplicate => ReceiveErrorKind::Refused,
        }
    }

    /// Returns the faulty elements.
    #[must_use]
    pub fn offending_elements(&self) -> Vec<Tag> {
        match self {
            Self::MissingUid(tags) => tags.clone(),
            Self::OtherInstance => vec![tags::SOP_INSTANCE_UID],
            Self::OtherClass => vec![tags::SOP_CLASS_UID],
            Self::OtherStudy => vec![tags::STUDY_INSTANCE_UID],
            Self::InvalidInstanceUid
            | Self::NotUnderstood(_)
            | Self::Object(_)
            | Self::Index(_)
            | Self::Duplicate
            | Self::ThreadEnded
            | Self::TooMuchAtOnce => Vec::new(),
        }
    }

    /// Returns the text for the sender. Paths and the words of the database are only for the log of
    /// this node.
    #[must_use]
    pub fn comment(&self) -> String {
        match self {
            Self::Index(db::Error::Full) => "no space left for the index".into(),
            Self::Index(db::Error::Busy) => "too many instances at once".into(),
            Self::Index(_) => "the index does not take it now".into(),
            other => other.to_string(),
        }
    }

    /// Whether the operator of this node should look. The writer reports an index that was taken
    /// away, once for all.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        let is_told_elsewhere = matches!(self, Self::TooMuchAtOnce | Self::Index(db::Error::Replaced { .. }));
        self.kind() == ReceiveErrorKind::OutOfResources && !is_told_elsewhere
    }

    pub(super) fn count(&self) {
        match self.kind() {
            ReceiveErrorKind::OutOfResources => metrics::INSTANCES_OUT_OF_RESOURCES.increment(),
            ReceiveErrorKind::NotUnderstood => metrics::INSTANCES_NOT_UNDERSTOOD.increment(),
            ReceiveErrorKind::Refused => metrics::INSTANCES_FAILED.increment(),
        }
    }
}
