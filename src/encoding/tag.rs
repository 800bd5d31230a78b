//! Tags as numbers.

use dicom_core::Tag;

/// The group in the upper half, the element in the lower one.
pub(crate) fn tag_number(tag: Tag) -> u32 {
    u32::from(tag.0) << 16 | u32::from(tag.1)
}

/// The tag of such a number.
pub(crate) fn tag_of(number: u32) -> Tag {
    Tag((number >> 16) as u16, number as u16)
}
