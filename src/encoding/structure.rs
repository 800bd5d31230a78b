//! Faults of the structure of a data set.

use super::tag::tag_of;

/// Reason why the elements of a data set cannot be told apart (PS3.5 7). The texts name tags, never
/// values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StructureError {
    /// A VR is missing.
    #[error("element {} has no valid VR", tag_of(*.0))]
    BadVr(u32),
    /// A value ends after the end of its container.
    #[error("element {} exceeds its data set, item or sequence", tag_of(*.0))]
    LengthPastEnd(u32),
    /// A sequence has something other than an item, or a delimiter has nothing to end.
    #[error("{} is not allowed at this position", tag_of(*.0))]
    Misplaced(u32),
    /// Sequences are nested too deep.
    #[error("sequences are nested too deep")]
    TooDeep,
    /// The bytes end inside an element, an item or a sequence.
    #[error("the data set is truncated")]
    Truncated,
}
