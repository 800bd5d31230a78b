//! Value multiplicities (PS3.6), as far as the matching of queries depends on them.

use dicom_core::Tag;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::StandardDataDictionary;

use super::tag::tag_number;

/// Attributes of the VRs AE, AS, AT, CS, LO, PN, SH and UC that may have several values (PS3.6,
/// column VM). The crate of the dictionary does not have this column.
const SEVERAL_VALUES: [u32; 119] = [
    0x0008_0008,
    0x0008_0054,
    0x0008_0061,
    0x0008_0094,
    0x0008_009C,
    0x0008_040F,
    0x0008_1048,
    0x0008_1050,
    0x0008_1060,
    0x0008_1070,
    0x0008_1080,
    0x0008_2132,
    0x0008_9007,
    0x0010_1000,
    0x0010_1001,
    0x0010_1050,
    0x0010_2000,
    0x0010_2110,
    0x0010_2154,
    0x0012_0063,
    0x0014_0100,
    0x0014_0107,
    0x0014_0108,
    0x0014_201A,
    0x0014_40A0,
    0x0014_40A1,
    0x0014_40A2,
    0x0016_0008,
    0x0016_000C,
    0x0016_1004,
    0x0018_0020,
    0x0018_0021,
    0x0018_0022,
    0x0018_0030,
    0x0018_1019,
    0x0018_101A,
    0x0018_1020,
    0x0018_1161,
    0x0018_1166,
    0x0018_1210,
    0x0018_1301,
    0x0018_1600,
    0x0018_1700,
    0x0018_2002,
    0x0018_2006,
    0x0018_5000,
    0x0018_5010,
    0x0018_7050,
    0x0018_9060,
    0x0018_9065,
    0x0018_9100,
    0x0018_9323,
    0x0018_9908,
    0x0018_990A,
    0x0020_0020,
    0x0020_0080,
    0x0020_1020,
    0x0020_5000,
    0x0020_5002,
    0x0028_0009,
    0x0028_000A,
    0x0028_0050,
    0x0028_0051,
    0x0028_0065,
    0x0028_0066,
    0x0028_0403,
    0x0028_0404,
    0x0028_0701,
    0x0028_0702,
    0x0028_0721,
    0x0028_1055,
    0x0028_2114,
    0x0028_6022,
    0x0028_6023,
    0x0028_7013,
    0x0028_7026,
    0x0028_9446,
    0x0032_1021,
    0x003A_0205,
    0x0040_0001,
    0x0040_0010,
    0x0040_1010,
    0x0040_1103,
    0x0040_A057,
    0x0040_A125,
    0x0042_0014,
    0x0044_0008,
    0x0054_1000,
    0x0054_1220,
    0x0054_1400,
    0x0062_0009,
    0x006A_000E,
    0x0072_0052,
    0x0072_0054,
    0x0072_005E,
    0x0072_005F,
    0x0072_0060,
    0x0072_0062,
    0x0072_0066,
    0x0072_006A,
    0x0072_006C,
    0x0072_006F,
    0x0072_0520,
    0x0072_0700,
    0x0088_0912,
    0x0400_0020,
    0x2010_00A7,
    0x2010_00A9,
    0x2200_000E,
    0x3004_0014,
    0x300A_0009,
    0x300A_000B,
    0x300A_00CC,
    0x300A_061D,
    0x300A_064F,
    0x3010_0047,
    0x3010_0048,
    0x4010_1021,
    0x4010_1029,
];

/// Whether a standard attribute of one of these VRs has one value at most.
pub(crate) fn has_one_value(tag: Tag) -> bool {
    // Repeating groups have one entry for many tags, and are retired.
    let is_single = StandardDataDictionary.by_tag(tag).is_some_and(|entry| entry.tag() == tag);
    is_single && SEVERAL_VALUES.binary_search(&tag_number(tag)).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::tag::tag_of;

    #[test]
    fn the_tags_are_in_order_and_in_the_dictionary() {
        assert!(SEVERAL_VALUES.is_sorted());
        for number in SEVERAL_VALUES {
            assert!(StandardDataDictionary.by_tag(tag_of(number)).is_some(), "{number:08X}");
        }
    }
}
