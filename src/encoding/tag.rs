//! Tags as numbers.

use dicom_core::Tag;

/// Item (PS3.5 7.5).
pub(crate) const ITEM: u32 = 0xFFFE_E000;

/// Item Delimitation Item.
pub(crate) const ITEM_DELIMITER: u32 = 0xFFFE_E00D;

/// Sequence Delimitation Item.
pub(crate) const SEQUENCE_DELIMITER: u32 = 0xFFFE_E0DD;

/// The group of items and delimiters.
pub(crate) const DELIMITER_GROUP: u32 = 0xFFFE;

/// Specific Character Set (0008,0005).
pub(crate) const SPECIFIC_CHARACTER_SET: u32 = 0x0008_0005;

/// Pixel Representation (0028,0103).
pub(crate) const PIXEL_REPRESENTATION: u32 = 0x0028_0103;

/// Pixel Data (7FE0,0010).
pub(crate) const PIXEL_DATA: u32 = 0x7FE0_0010;

/// Undefined length: a delimiter ends the value (PS3.5 7.1.1).
pub(crate) const UNDEFINED: u32 = u32::MAX;

/// Converts a tag to a number, with the group in the upper half and the element in the lower one.
pub(crate) const fn tag_number(tag: Tag) -> u32 {
    (tag.0 as u32) << 16 | tag.1 as u32
}

/// Reads a tag of eight hexadecimal digits, as the DICOM JSON Model has it (PS3.18 F.2.2).
pub(crate) fn parse_tag(text: &str) -> Option<Tag> {
    // `from_str_radix` would take a sign in place of the first digit.
    let is_tag = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_tag { u32::from_str_radix(text, 16).ok().map(tag_of) } else { None }
}

/// Converts such a number to a tag.
pub(crate) const fn tag_of(number: u32) -> Tag {
    Tag((number >> 16) as u16, number as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_eight_hexadecimal_digits() {
        assert_eq!(parse_tag("0010002a"), Some(Tag(0x0010, 0x002A)));
        for other in ["+0100020", "-0100020", "0100020", "000100020", "0010,020", "0010002g", ""] {
            assert_eq!(parse_tag(other), None, "{other}");
        }
    }
}
