//! Value representations as they stand in the bytes of a data set.

use dicom_core::VR;

/// How an element header with these two bytes goes on (PS3.5 7.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// 16-bit length.
    Short,
    /// Two reserved bytes and a 32-bit length.
    Long,
    /// Not a VR of the Standard.
    Unknown,
}

const LETTERS: usize = 26;

const LONG: [&[u8; 2]; 13] =
    [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"];

const SHORT: [&[u8; 2]; 21] = [
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
    b"ST", b"TM", b"UI", b"UL", b"US",
];

static FORMS: [Form; LETTERS * LETTERS] = {
    let mut table = [Form::Unknown; LETTERS * LETTERS];
    let mut at = 0;
    while at < SHORT.len() {
        table[(SHORT[at][0] - b'A') as usize * LETTERS + (SHORT[at][1] - b'A') as usize] = Form::Short;
        at += 1;
    }
    at = 0;
    while at < LONG.len() {
        table[(LONG[at][0] - b'A') as usize * LETTERS + (LONG[at][1] - b'A') as usize] = Form::Long;
        at += 1;
    }
    table
};

/// The form of a header whose VR field holds these bytes.
#[inline]
pub(super) fn form(vr: [u8; 2]) -> Form {
    let (a, b) = (usize::from(vr[0].wrapping_sub(b'A')), usize::from(vr[1].wrapping_sub(b'A')));
    if a < LETTERS && b < LETTERS {
        FORMS.get(a * LETTERS + b).copied().unwrap_or(Form::Unknown)
    } else {
        Form::Unknown
    }
}

/// Whether both bytes are capital letters, as those of every VR, also of future ones, are (PS3.5 6.2).
pub(super) fn is_letters(vr: [u8; 2]) -> bool {
    vr.iter().all(u8::is_ascii_uppercase)
}

/// The VR that applies to a value, from what the header says and what the dictionary says: UN, and what is no VR at
/// all, tell nothing (PS3.5 6.2.2); nor does OB or OW on an element that is text or a number.
pub(super) fn effective(in_header: [u8; 2], in_dictionary: VR) -> VR {
    match &in_header {
        b"\0\0" | b"UN" | b"OB" | b"OW" => in_dictionary,
        _ => VR::from_binary(in_header).unwrap_or(in_dictionary),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vr_of_the_library_has_a_form() {
        for a in b'A'..=b'Z' {
            for b in b'A'..=b'Z' {
                let known = VR::from_binary([a, b]).is_some();
                assert_eq!(form([a, b]) != Form::Unknown, known, "{}{}", a as char, b as char);
            }
        }
        assert_eq!(form(*b"??"), Form::Unknown);
        assert_eq!(form([0, 0]), Form::Unknown);
    }
}
