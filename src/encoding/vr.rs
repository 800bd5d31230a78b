//! Value representations, as encoded in the bytes of a data set.

use dicom_core::VR;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_dictionary_std::StandardDataDictionary;

use super::tag::{parse_tag, tag_of};

/// Form of an element header in explicit VR, decided by the two bytes of its VR field (PS3.5
/// 7.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// 16-bit length.
    Short,
    /// Two reserved bytes and a 32-bit length.
    Long,
    /// Not a VR of the Standard.
    Unknown,
}

/// Whether values of this VR are numbers in binary (PS3.5 6.2).
#[must_use]
pub(crate) const fn is_binary_number(vr: VR) -> bool {
    matches!(vr, VR::US | VR::SS | VR::UL | VR::SL | VR::UV | VR::SV | VR::FL | VR::FD)
}

/// Whether values of this VR are numbers, in binary or as text (PS3.5 6.2).
#[must_use]
pub(crate) const fn is_number(vr: VR) -> bool {
    is_binary_number(vr) || matches!(vr, VR::IS | VR::DS)
}

/// Whether the text of one value can be encoded in this VR. Only binary numbers and tags have texts
/// that cannot.
#[must_use]
pub(crate) fn can_be_encoded(vr: VR, text: &str) -> bool {
    match vr {
        VR::US => text.parse::<u16>().is_ok(),
        VR::SS => text.parse::<i16>().is_ok(),
        VR::UL => text.parse::<u32>().is_ok(),
        VR::SL => text.parse::<i32>().is_ok(),
        VR::UV => text.parse::<u64>().is_ok(),
        VR::SV => text.parse::<i64>().is_ok(),
        VR::FL | VR::FD => text.parse::<f64>().is_ok(),
        VR::AT => parse_tag(text).is_some(),
        _ => true,
    }
}

/// Whether values of this VR are text (PS3.5 6.2).
#[must_use]
pub(crate) const fn is_text(vr: VR) -> bool {
    matches!(vr, VR::AE | VR::AS | VR::CS | VR::DA | VR::DS | VR::DT | VR::IS | VR::LO | VR::LT | VR::PN)
        || matches!(vr, VR::SH | VR::ST | VR::TM | VR::UC | VR::UI | VR::UR | VR::UT)
}

const LETTERS: usize = 26;

/// The VRs with a 32-bit length.
const LONG: [(&[u8; 2], VR); 13] = [
    (b"OB", VR::OB),
    (b"OD", VR::OD),
    (b"OF", VR::OF),
    (b"OL", VR::OL),
    (b"OV", VR::OV),
    (b"OW", VR::OW),
    (b"SQ", VR::SQ),
    (b"SV", VR::SV),
    (b"UC", VR::UC),
    (b"UN", VR::UN),
    (b"UR", VR::UR),
    (b"UT", VR::UT),
    (b"UV", VR::UV),
];

/// The VRs with a 16-bit length.
const SHORT: [(&[u8; 2], VR); 21] = [
    (b"AE", VR::AE),
    (b"AS", VR::AS),
    (b"AT", VR::AT),
    (b"CS", VR::CS),
    (b"DA", VR::DA),
    (b"DS", VR::DS),
    (b"DT", VR::DT),
    (b"FL", VR::FL),
    (b"FD", VR::FD),
    (b"IS", VR::IS),
    (b"LO", VR::LO),
    (b"LT", VR::LT),
    (b"PN", VR::PN),
    (b"SH", VR::SH),
    (b"SL", VR::SL),
    (b"SS", VR::SS),
    (b"ST", VR::ST),
    (b"TM", VR::TM),
    (b"UI", VR::UI),
    (b"UL", VR::UL),
    (b"US", VR::US),
];

/// The VRs by both letters. Every element of every file is looked up here, and the library would
/// compare text.
static TABLE: [(Form, Option<VR>); LETTERS * LETTERS] = {
    let mut table = [(Form::Unknown, None); LETTERS * LETTERS];
    let mut at = 0;
    while at < SHORT.len() {
        let ([a, b], vr) = SHORT[at];
        table[(*a - b'A') as usize * LETTERS + (*b - b'A') as usize] = (Form::Short, Some(vr));
        at += 1;
    }
    at = 0;
    while at < LONG.len() {
        let ([a, b], vr) = LONG[at];
        table[(*a - b'A') as usize * LETTERS + (*b - b'A') as usize] = (Form::Long, Some(vr));
        at += 1;
    }
    table
};

#[inline]
fn row(letters: [u8; 2]) -> (Form, Option<VR>) {
    let (a, b) = (usize::from(letters[0].wrapping_sub(b'A')), usize::from(letters[1].wrapping_sub(b'A')));
    if a >= LETTERS || b >= LETTERS {
        return (Form::Unknown, None);
    }
    TABLE.get(a * LETTERS + b).copied().unwrap_or((Form::Unknown, None))
}

/// Returns the form of a header whose VR field has these bytes.
#[inline]
pub(crate) fn form(letters: [u8; 2]) -> Form {
    row(letters).0
}

/// Returns the VR that these bytes name.
#[inline]
pub(crate) fn of(letters: [u8; 2]) -> Option<VR> {
    row(letters).1
}

/// Whether a VR has a 32-bit length in explicit VR (PS3.5 7.1.2).
pub(crate) fn has_long_length(vr: VR) -> bool {
    form(vr.to_bytes()) == Form::Long
}

/// Whether values of a VR are bytes without text or number that a query could compare.
pub(crate) fn is_binary(vr: VR) -> bool {
    matches!(vr, VR::OB | VR::OD | VR::OF | VR::OL | VR::OV | VR::OW | VR::UN)
}

/// Returns the maximum length of a value in characters (PS3.5 table 6.2-1), for each component
/// group of PN. `None` for VRs without such a limit.
pub(crate) fn max_characters(vr: VR) -> Option<usize> {
    match vr {
        VR::AS => Some(4),
        VR::IS => Some(12),
        VR::AE | VR::CS | VR::SH | VR::DS => Some(16),
        VR::LO | VR::PN | VR::UI => Some(64),
        VR::ST => Some(1024),
        VR::LT => Some(10_240),
        _ => None,
    }
}

/// Returns the byte that pads a value to even length: a space for text, otherwise NUL (PS3.5 6.2).
pub(crate) fn padding(letters: [u8; 2]) -> u8 {
    if of(letters).is_some_and(|vr| vr != VR::UI && is_text(vr)) { b' ' } else { 0 }
}

/// Returns the number of bytes whose order differs between little and big endian (PS3.5 7.3).
pub(crate) fn word_length(letters: [u8; 2]) -> usize {
    match &letters {
        b"US" | b"SS" | b"OW" | b"AT" => 2,
        b"UL" | b"SL" | b"FL" | b"OF" | b"OL" => 4,
        b"FD" | b"OD" | b"SV" | b"UV" | b"OV" => 8,
        _ => 1,
    }
}

/// Whether both bytes are capital letters. Those of every VR are, even of future ones (PS3.5 6.2).
pub(crate) fn is_letters(vr: [u8; 2]) -> bool {
    vr.iter().all(u8::is_ascii_uppercase)
}

/// Returns the VR of a value, from the VRs of the header and of the dictionary.
///
/// UN and invalid VRs in the header do not count (PS3.5 6.2.2). OB and OW do not count for an
/// element that is text or a number. Another text VR does not count for text: keys are compared
/// by the dictionary, and it says what is padding.
#[inline]
pub(crate) fn effective(in_header: [u8; 2], in_dictionary: VR) -> VR {
    match &in_header {
        b"\0\0" | b"UN" | b"OB" | b"OW" => in_dictionary,
        _ => of(in_header).filter(|vr| !(is_text(*vr) && is_text(in_dictionary))).unwrap_or(in_dictionary),
    }
}

/// Returns the VR of an element in implicit VR (PS3.5 A.1). `signed` is the value of Pixel
/// Representation (0028,0103).
pub(crate) fn implicit(tag: u32, is_undefined_length: bool, signed: bool) -> VR {
    match StandardDataDictionary.by_tag(tag_of(tag)).map(|entry| entry.vr()) {
        Some(VirtualVr::Exact(vr)) => vr,
        Some(VirtualVr::Xs) if signed => VR::SS,
        Some(VirtualVr::Xs) => VR::US,
        // In implicit VR these are OW (PS3.5 A.1).
        Some(VirtualVr::Ox | VirtualVr::Px | VirtualVr::Lt) => VR::OW,
        // An element of undefined length is a sequence (PS3.5 7.5).
        None if is_undefined_length => VR::SQ,
        None | Some(_) => VR::UN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vr_of_the_library_is_in_the_table() {
        for a in b'A'..=b'Z' {
            for b in b'A'..=b'Z' {
                assert_eq!(of([a, b]), VR::from_binary([a, b]));
                assert_eq!(form([a, b]) == Form::Unknown, of([a, b]).is_none());
            }
        }
        assert_eq!(form(*b"??"), Form::Unknown);
        assert_eq!(form([0, 0]), Form::Unknown);
    }
}
