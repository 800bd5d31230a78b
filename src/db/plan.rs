//! How a query is answered, as far as that depends on the query alone.

use crate::model::attribute::{Attribute, AttributeId, Source};
use crate::model::declared::Unit;
use crate::model::find::MatchingKey;
use crate::model::level::QueryRetrieveLevel::{self, Series, Study};
use crate::model::matching::Narrowing;

/// Whether an answer at `level` can carry the attribute; its own level and those below it, and a study can carry what its
/// series say.
#[must_use]
pub fn can_answer(attribute: &Attribute, level: QueryRetrieveLevel) -> bool {
    attribute.level <= level
        || is_computed_everywhere(attribute.id)
        || (level == Study && attribute.level == Series && attribute.source == Source::DataSet)
}

/// Whether an answer at `level` can carry a declared attribute; as [`can_answer`].
#[must_use]
pub fn can_answer_declared(unit: &Unit, level: QueryRetrieveLevel) -> bool {
    unit.level <= level || (level == Study && unit.level == Series)
}

pub(in crate::db) fn names_uids(key: &MatchingKey) -> bool {
    matches!(key.matching.narrowing(), Narrowing::Equals(_))
}

/// Whether a key gives the values of an attribute that few entities share.
pub(in crate::db) fn names_few(key: &MatchingKey) -> bool {
    let is_indexed = matches!(
        key.attribute,
        AttributeId::PatientID
            | AttributeId::AccessionNumber
            | AttributeId::StudyInstanceUID
            | AttributeId::SeriesInstanceUID
            | AttributeId::SOPInstanceUID
    );
    is_indexed && matches!(key.matching.narrowing(), Narrowing::Equals(values) if !values.iter().any(String::is_empty))
}

/// Whether a key names series or instances by their UIDs.
pub(in crate::db) fn is_selective_below_study(key: &MatchingKey) -> bool {
    matches!(key.attribute, AttributeId::SeriesInstanceUID | AttributeId::SOPInstanceUID) && names_uids(key)
}

pub(in crate::db) fn is_computed_everywhere(id: AttributeId) -> bool {
    matches!(id, AttributeId::InstanceAvailability | AttributeId::RetrieveAETitle)
}
