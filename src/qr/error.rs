//! Errors of a query, and the status of each (PS3.4 C.4.1.1.4).

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::identifier::IdentifierError;
use crate::db;
use crate::model::level::{InformationModel, QueryRetrieveLevel};
use crate::model::matching::MatchingError;
use crate::model::status::Status;

/// Reason why a query has no answers, or no more. The message never contains a value of the query.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The bytes are not a valid data set.
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
    /// Query/Retrieve Level (0008,0052) is absent or empty.
    #[error("Query/Retrieve Level (0008,0052) is missing")]
    MissingLevel,
    /// Query/Retrieve Level (0008,0052) is not a level of PS3.4 C.4.1.1.3.1.
    #[error("Query/Retrieve Level (0008,0052) is not a known level")]
    UnknownLevel,
    /// The Information Model does not have the level.
    #[error("{} has no level {}", model_name(*.model), .level)]
    LevelNotInModel {
        /// Requested level.
        level: QueryRetrieveLevel,
        /// Information Model of the query.
        model: InformationModel,
    },
    /// A hierarchical query does not have exactly one value for the unique key of a level above
    /// (PS3.4 C.4.1.2.1).
    #[error("a hierarchical query needs exactly one value for {0}")]
    UniqueKeyAbove(Tag),
    /// A hierarchical query has a key of another level (PS3.4 C.4.1.2.1).
    #[error("{0} is not a key of this level in a hierarchical query")]
    KeyOfOtherLevel(Tag),
    /// The value of a key is not valid for its VR.
    #[error("key {0}: {1}")]
    InvalidKey(Tag, MatchingError),
    /// There are more answers than the configured limit.
    #[error("more than {0} matches; these are the first")]
    TooManyMatches(u64),
    /// A Repository Query reached the limit of answers, and a later one can go on (PS3.4 C.6.4).
    #[error("the limit of answers is reached; ask on with the last key")]
    ResponseLimit,
    /// Prior Record Key (0008,041C) of a Repository Query is no key of a record.
    #[error("Prior Record Key (0008,041C) is not a key of a record")]
    InvalidPriorRecordKey,
    /// The query exceeded its time limit.
    #[error("the query took longer than its time limit")]
    TimeLimit,
    /// The peer sent C-CANCEL or closed the association.
    #[error("cancelled")]
    Cancelled,
    /// The peer uses all the memory that it may have, or all the disk space for its waiting
    /// answers.
    #[error("this peer has too much under way; ask again later")]
    NoRoom,
    /// Answers that waited for a slow peer could not be read back.
    #[error("answers that were kept for the peer cannot be read")]
    AnswersLost,
    /// The index could not answer.
    #[error("the index could not answer")]
    Index(#[source] db::Error),
}

/// Contents of a failed C-FIND-RSP (PS3.7 9.3.2.2, annex C).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Status (0000,0900).
    pub status: Status,
    /// Offending Element (0000,0901). It may be empty.
    pub offending_elements: Vec<Tag>,
    /// Error Comment (0000,0902): at most 64 ASCII characters, without values of the query.
    pub comment: String,
}

/// Maximum length of Error Comment (VR LO), in characters.
const MAX_COMMENT_LENGTH: usize = 64;

impl FindError {
    /// Whether the operator of this node should act. If the index was replaced, its writer reports
    /// it once for all, so this is false.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Index(error) if !matches!(error, db::Error::Replaced { .. }))
    }

    /// Returns the response for this error. There is no `_` arm, so that each new error gets its
    /// status here.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let (status, offending_elements) = match self {
            // PS3.4 table C.4-1, Cxxx: "Unable to process".
            Self::Identifier(error) => (Status::UNREADABLE_IDENTIFIER, error.offending_element().into_iter().collect()),
            // PS3.4 table C.4-1, A900: "Identifier does not match SOP Class", with Offending
            // Element.
            Self::MissingLevel | Self::UnknownLevel | Self::LevelNotInModel { .. } => {
                (Status::IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, vec![tags::QUERY_RETRIEVE_LEVEL])
            }
            Self::UniqueKeyAbove(tag) | Self::KeyOfOtherLevel(tag) | Self::InvalidKey(tag, _) => {
                (Status::IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, vec![*tag])
            }
            // PS3.4 C.6.4.4: the Warning of a Repository Query, and the Failure of an invalid key.
            Self::ResponseLimit => (Status::RESPONSE_LIMIT_REACHED, Vec::new()),
            Self::InvalidPriorRecordKey => (Status::INVALID_PRIOR_RECORD_KEY, vec![Tag(0x0008, 0x041C)]),
            // PS3.4 table C.4-1, A700: "Refused: Out of Resources".
            Self::TooManyMatches(_) | Self::TimeLimit | Self::NoRoom => (Status::OUT_OF_RESOURCES, Vec::new()),
            // PS3.4 table C.4-1, FE00: "Matching terminated due to Cancel request".
            Self::Cancelled => (Status::CANCEL, Vec::new()),
            // PS3.4 table C.4-1, Cxxx: "Unable to process".
            Self::Index(_) | Self::AnswersLost => (Status::INDEX_FAILED, Vec::new()),
        };
        let comment: String = self.to_string().chars().take(MAX_COMMENT_LENGTH).collect();
        Failure { status, offending_elements, comment }
    }
}

impl IdentifierError {
    fn offending_element(self) -> Option<Tag> {
        match self {
            Self::CutOff(tag) | Self::InvalidVr(tag) | Self::Misplaced(tag) => Some(tag),
            Self::TooLong | Self::TooManyElements | Self::TooManyValues | Self::TooDeep | Self::Incomplete => None,
        }
    }
}

fn model_name(model: InformationModel) -> &'static str {
    match model {
        InformationModel::PatientRoot => "Patient Root",
        InformationModel::StudyRoot => "Study Root",
        InformationModel::PatientStudyOnly => "Patient/Study Only",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_fit_into_an_error_comment() {
        use dicom_core::VR;
        let errors = [
            FindError::Identifier(IdentifierError::TooDeep),
            FindError::Identifier(IdentifierError::TooManyElements),
            FindError::MissingLevel,
            FindError::UnknownLevel,
            FindError::LevelNotInModel {
                level: QueryRetrieveLevel::Patient,
                model: InformationModel::PatientStudyOnly,
            },
            FindError::UniqueKeyAbove(Tag(0x0020, 0x000D)),
            FindError::KeyOfOtherLevel(Tag(0x0010, 0x0010)),
            FindError::InvalidKey(Tag(0x0010, 0x0010), MatchingError::SeveralItems),
            FindError::InvalidKey(Tag(0x0010, 0x0010), MatchingError::InvalidRange(VR::DA)),
            FindError::TooManyMatches(u64::MAX),
            FindError::ResponseLimit,
            FindError::InvalidPriorRecordKey,
            FindError::TimeLimit,
            FindError::Cancelled,
            FindError::NoRoom,
            FindError::AnswersLost,
            FindError::Index(db::Error::Interrupted),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(text.is_ascii() && text.len() <= MAX_COMMENT_LENGTH, "{text}");
            assert_eq!(error.failure().comment, text);
        }
    }

    // PS3.4 table C.4-1.
    #[test]
    fn a_level_that_is_none_is_an_identifier_that_does_not_match() {
        let failure = FindError::MissingLevel.failure();
        assert_eq!(
            (failure.status, failure.offending_elements),
            (Status::IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, vec![Tag(0x0008, 0x0052)])
        );
    }
}
