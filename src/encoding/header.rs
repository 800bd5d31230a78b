//! The only reader and writer of element headers (PS3.5 7.1, 7.5).
//!
//! [`read_plain`] reads a header that is exactly as PS3.5 has it. A scan spends most of its time
//! there. [`read`] also accepts reserved bytes that are not zero, and says what is wrong with any
//! other header. Only the tokenizer guesses what damaged bytes mean.

use super::syntax::Encoding;
use super::tag::DELIMITER_GROUP;
use super::vr::{self, Form};

/// Maximum length of an element header.
pub(crate) const LONGEST_HEADER: usize = 12;

/// The header of an element, an item or a delimiter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ElementHeader {
    pub(crate) tag: u32,
    /// The letters of the VR. Zeros if the header has none.
    pub(crate) vr: [u8; 2],
    pub(crate) length: u32,
    /// Size of the header: 8 or 12 bytes.
    pub(crate) size: usize,
    /// The header has a VR field. Items and delimiters have none (PS3.5 7.5), and neither has an
    /// element in implicit VR.
    pub(crate) explicit: bool,
}

/// The reason why bytes are not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// More bytes are needed, [`LONGEST_HEADER`] at most.
    Incomplete,
    /// The element with this tag has no VR of the Standard.
    BadVr(u32),
}

/// Reads the header at the start of `bytes`, if it is complete and exactly as PS3.5 7.1 has it.
///
/// It is inlined with constants, because every element of every scanned file passes here.
#[inline(always)]
pub(crate) fn read_plain<const EXPLICIT: bool, const BIG: bool>(bytes: &[u8]) -> Option<ElementHeader> {
    let start = bytes.first_chunk::<8>()?;
    let [g0, g1, e0, e1, v0, v1, l0, l1] = *start;
    let (group, element) = if BIG {
        (u16::from_be_bytes([g0, g1]), u16::from_be_bytes([e0, e1]))
    } else {
        (u16::from_le_bytes([g0, g1]), u16::from_le_bytes([e0, e1]))
    };
    let tag = u32::from(group) << 16 | u32::from(element);
    let word = [v0, v1, l0, l1];
    if !EXPLICIT || u32::from(group) == DELIMITER_GROUP {
        let length = if BIG { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) };
        return Some(ElementHeader { tag, vr: [0, 0], length, size: 8, explicit: false });
    }
    let vr = [v0, v1];
    match vr::form(vr) {
        Form::Short => {
            let length = if BIG { u16::from_be_bytes([l0, l1]) } else { u16::from_le_bytes([l0, l1]) };
            Some(ElementHeader { tag, vr, length: u32::from(length), size: 8, explicit: true })
        }
        Form::Long if [l0, l1] == [0, 0] => {
            let word = bytes.get(8..12)?.first_chunk::<4>()?;
            let length = if BIG { u32::from_be_bytes(*word) } else { u32::from_le_bytes(*word) };
            Some(ElementHeader { tag, vr, length, size: 12, explicit: true })
        }
        Form::Long | Form::Unknown => None,
    }
}

/// Works as [`read_plain`], for an encoding that is known only at run time. `explicit` means that
/// headers name the VR, and `big_endian` that numbers are big endian.
#[inline]
pub(crate) fn read_plain_in(explicit: bool, big_endian: bool, bytes: &[u8]) -> Option<ElementHeader> {
    match (explicit, big_endian) {
        (true, false) => read_plain::<true, false>(bytes),
        (false, false) => read_plain::<false, false>(bytes),
        (true, true) => read_plain::<true, true>(bytes),
        (false, true) => read_plain::<false, true>(bytes),
    }
}

/// Reads the header at the start of `bytes`. Reserved bytes that are not zero are ignored. See
/// [`read_plain_in`] for `explicit` and `big_endian`.
///
/// # Errors
/// See [`HeaderError`].
pub(crate) fn read(explicit: bool, big_endian: bool, bytes: &[u8]) -> Result<ElementHeader, HeaderError> {
    match read_plain_in(explicit, big_endian, bytes) {
        Some(header) => Ok(header),
        None => read_other(big_endian, bytes),
    }
}

/// Reads a header in explicit VR that is incomplete or not plain.
#[cold]
fn read_other(big_endian: bool, bytes: &[u8]) -> Result<ElementHeader, HeaderError> {
    let start = bytes.first_chunk::<8>().ok_or(HeaderError::Incomplete)?;
    let (tag, vr) = (tag_at(start, big_endian), [start[4], start[5]]);
    if vr::form(vr) != Form::Long {
        return Err(HeaderError::BadVr(tag));
    }
    let [.., a, b, c, d] = *bytes.first_chunk::<LONGEST_HEADER>().ok_or(HeaderError::Incomplete)?;
    let length = u32_of([a, b, c, d], big_endian);
    Ok(ElementHeader { tag, vr, length, size: LONGEST_HEADER, explicit: true })
}

/// Returns the tag at the start of a header.
pub(crate) fn tag_at(start: &[u8; 8], big_endian: bool) -> u32 {
    let [g0, g1, e0, e1, ..] = *start;
    if big_endian { u32::from_be_bytes([g0, g1, e0, e1]) } else { u32::from_be_bytes([g1, g0, e1, e0]) }
}

/// Returns the number in a field of four bytes.
pub(crate) fn u32_of(bytes: [u8; 4], big_endian: bool) -> u32 {
    if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}

impl Encoding {
    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub(crate) fn header(self, bytes: &[u8]) -> Result<ElementHeader, HeaderError> {
        read(self.is_explicit(), self.is_big(), bytes)
    }

    /// Appends a number in this byte order.
    pub(crate) fn push_u32(self, out: &mut Vec<u8>, value: u32) {
        out.extend(self.u32_bytes(value));
    }

    /// Appends a tag. It is written as two numbers.
    pub(crate) fn push_tag(self, out: &mut Vec<u8>, tag: u32) {
        self.push_u16(out, (tag >> 16) as u16);
        self.push_u16(out, tag as u16);
    }

    /// Appends an item, an item delimiter or a sequence delimiter. These never have a VR (PS3.5
    /// 7.5).
    pub(crate) fn push_marker(self, out: &mut Vec<u8>, tag: u32, length: u32) {
        self.push_tag(out, tag);
        self.push_u32(out, length);
    }

    /// Appends the header of an element. If the value is too long for its VR, the VR becomes UN
    /// (PS3.5 6.2.2).
    pub(crate) fn push_header(self, out: &mut Vec<u8>, tag: u32, letters: [u8; 2], length: u32) {
        self.push_tag(out, tag);
        if !self.is_explicit() {
            self.push_u32(out, length);
            return;
        }
        match (vr::form(letters), u16::try_from(length)) {
            (Form::Short, Ok(length)) => {
                out.extend_from_slice(&letters);
                self.push_u16(out, length);
            }
            (form, _) => {
                out.extend_from_slice(if form == Form::Long { &letters } else { b"UN" });
                out.extend_from_slice(&[0, 0]);
                self.push_u32(out, length);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::tag::{ITEM, SEQUENCE_DELIMITER, UNDEFINED};

    #[test]
    fn what_is_written_is_read() {
        let headers = [
            (0x0008_0005, *b"CS", 10),
            (0x7FE0_0010, *b"OW", 1 << 20),
            (0x0008_1140, *b"SQ", UNDEFINED),
            (0x0010_0010, *b"PN", 0xFFFF),
        ];
        for encoding in Encoding::ALL {
            for (tag, vr, length) in headers {
                let mut bytes = Vec::new();
                encoding.push_header(&mut bytes, tag, vr, length);
                let header = encoding.header(&bytes).unwrap();
                let in_header = if encoding.is_explicit() { vr } else { [0, 0] };
                assert_eq!((header.tag, header.vr, header.length), (tag, in_header, length), "{encoding:?}");
                assert_eq!((header.size, header.explicit), (bytes.len(), encoding.is_explicit()));
                for cut in 0..bytes.len() {
                    assert_eq!(encoding.header(&bytes[..cut]).unwrap_err(), HeaderError::Incomplete, "{cut}");
                }
            }
            for (tag, length) in [(ITEM, UNDEFINED), (SEQUENCE_DELIMITER, 0)] {
                let mut bytes = Vec::new();
                encoding.push_marker(&mut bytes, tag, length);
                let header = encoding.header(&bytes).unwrap();
                assert_eq!((header.tag, header.length, header.size, header.explicit), (tag, length, 8, false));
            }
        }
    }

    #[test]
    fn reserved_bytes_are_ignored_and_other_letters_are_no_vr() {
        let header = Encoding::ExplicitLittle.header(b"\x08\0\x40\x11SQ\x01\x02\x04\0\0\0").unwrap();
        assert_eq!((header.tag, header.length, header.size), (0x0008_1140, 4, 12));
        let bad = Encoding::ExplicitBig.header(b"\0\x08\0\x05??\0\x02").unwrap_err();
        assert_eq!(bad, HeaderError::BadVr(0x0008_0005));
    }
}
