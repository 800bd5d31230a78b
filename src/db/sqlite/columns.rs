//! Columns of the attributes.

use std::sync::OnceLock;

use crate::model::attribute::{ATTRIBUTE_COUNT, ATTRIBUTES, AttributeId};
use crate::model::level::QueryRetrieveLevel;

/// The columns of `instance_group` with the values that instances share. They are all kept
/// attributes of the instance level without a place of their own.
pub(super) fn shared_columns() -> impl Iterator<Item = AttributeId> {
    ATTRIBUTES
        .iter()
        .filter(|attribute| attribute.level == QueryRetrieveLevel::Image && attribute.is_stored())
        .map(|attribute| attribute.id)
        .filter(|id| {
            !matches!(
                id,
                AttributeId::SOPInstanceUID
                    | AttributeId::InstanceNumber
                    | AttributeId::SOPClassUID
                    | AttributeId::AvailableTransferSyntaxUID
            )
        })
}

/// Whether an instance has a column of its own for a shared attribute, because it commonly differs
/// from slice to slice.
pub(super) fn has_own_column(id: AttributeId) -> bool {
    is_packed_time(id) || id == AttributeId::AcquisitionNumber
}

/// Whether the column of an instance for this attribute holds a packed time.
pub(super) fn is_packed_time(id: AttributeId) -> bool {
    matches!(id, AttributeId::AcquisitionTime | AttributeId::ContentTime | AttributeId::InstanceCreationTime)
}

/// The kept attributes of a level.
pub(super) fn stored_at(level: QueryRetrieveLevel) -> &'static [AttributeId] {
    static STORED: OnceLock<[Vec<AttributeId>; 4]> = OnceLock::new();
    let by_level = STORED.get_or_init(|| {
        QueryRetrieveLevel::ALL
            .map(|level| ATTRIBUTES.iter().filter(|a| a.level == level && a.is_stored()).map(|a| a.id).collect())
    });
    &by_level[level as usize]
}

/// The levels above the instance.
pub(super) const UPPER: [QueryRetrieveLevel; 3] =
    [QueryRetrieveLevel::Patient, QueryRetrieveLevel::Study, QueryRetrieveLevel::Series];

/// The attributes of patient, study and series that are kept.
pub(super) fn stored_above() -> &'static [AttributeId] {
    static STORED: OnceLock<Vec<AttributeId>> = OnceLock::new();
    STORED.get_or_init(|| UPPER.into_iter().flat_map(|level| stored_at(level).iter().copied()).collect())
}

pub(super) fn is_stored_above(id: AttributeId) -> bool {
    let attribute = id.attribute();
    attribute.level != QueryRetrieveLevel::Image && attribute.is_stored()
}

pub(super) const fn table_of(level: QueryRetrieveLevel) -> &'static str {
    match level {
        QueryRetrieveLevel::Patient => "patient",
        QueryRetrieveLevel::Study => "study",
        QueryRetrieveLevel::Series => "study_series",
        QueryRetrieveLevel::Image => "instance_group",
    }
}

/// All kept attributes of an entity, in the order of [`stored_at`].
pub(super) fn select_all(level: QueryRetrieveLevel) -> &'static str {
    static SQL: OnceLock<[String; 4]> = OnceLock::new();
    let all = SQL.get_or_init(|| {
        QueryRetrieveLevel::ALL.map(|level| {
            let columns: Vec<_> = stored_at(level).iter().map(|id| format!("\"{}\"", id.attribute().column)).collect();
            format!("SELECT {} FROM {} WHERE id = ?1", columns.join(", "), table_of(level))
        })
    });
    &all[level as usize]
}

pub(super) fn shared() -> &'static [AttributeId] {
    static SHARED: OnceLock<Vec<AttributeId>> = OnceLock::new();
    SHARED.get_or_init(|| shared_columns().collect())
}

pub(super) fn shared_columns_sql() -> &'static str {
    static COLUMNS: OnceLock<String> = OnceLock::new();
    COLUMNS.get_or_init(|| {
        let columns: Vec<_> = shared().iter().map(|id| format!("\"{}\"", id.attribute().column)).collect();
        columns.join(", ")
    })
}

/// The place of an attribute in [`shared`].
pub(super) fn place_in_shared(id: AttributeId) -> Option<usize> {
    static PLACES: OnceLock<[Option<usize>; ATTRIBUTE_COUNT]> = OnceLock::new();
    let places =
        PLACES.get_or_init(|| std::array::from_fn(|n| shared().iter().position(|&shared| shared as usize == n)));
    places[id as usize]
}
