//! The packed bytes of an instance row: what its instance group does not say.
//!
//! A body begins with the SOP Instance UID and the file name. Size and time follow as differences
//! to those of the instance group, then the checksum, if there is one. The rest are values by their
//! place in [`OWN`]. Two digits of a UID, a number or a time take one byte.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::db::Error;
use crate::model::attribute::AttributeId::{self, *};
use crate::model::checksum::Checksum;

/// The attributes that instances of an instance group may have each for itself. A row keeps their
/// places, so new ones go to the end.
pub(super) const OWN: [AttributeId; 9] = [
    InstanceNumber,
    AcquisitionNumber,
    InstanceCreationDate,
    InstanceCreationTime,
    AcquisitionDate,
    AcquisitionTime,
    AcquisitionDateTime,
    ContentDate,
    ContentTime,
];

/// Contents of a row for an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InstanceBody {
    pub(super) uid: String,
    pub(super) file_name: OsString,
    pub(super) size: u64,
    pub(super) mtime_ms: i64,
    pub(super) checksum: Option<Checksum>,
    /// Places in [`OWN`] with values that are not those of the instance group.
    pub(super) own: Vec<(u8, String)>,
}

/// Values that the instance group of a row has for all of its rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyBase<'s> {
    pub(super) uid_prefix: &'s str,
    pub(super) size: i64,
    pub(super) mtime_ms: i64,
}

// How a field is packed: its first byte.
const RAW: u8 = 0;
const DIGITS: u8 = 1;
const DIGITS_AFTER_PREFIX: u8 = 2;
/// A name with the SOP Instance UID, which a zero byte stands for.
const NAME_WITH_UID: u8 = 3;

/// The characters of packed texts. The place of each is its half of a byte.
const PACKED: &[u8; 13] = b"0123456789.-+";
const PADDING: u8 = 0xF;

impl InstanceBody {
    pub(super) fn pack(&self, base: BodyBase<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        match self.uid.strip_prefix(base.uid_prefix).and_then(digits) {
            Some(packed) => push_field(&mut out, DIGITS_AFTER_PREFIX, &packed),
            None => push_text(&mut out, &self.uid),
        }
        let name = self.file_name.as_bytes();
        let uid = self.uid.as_bytes();
        let at = name.windows(uid.len().max(1)).position(|part| part == uid).filter(|_| !name.contains(&0));
        match at.and_then(|at| name.split_at_checked(at)) {
            Some((before, rest)) => {
                let after = rest.get(uid.len()..).unwrap_or_default();
                push_field(&mut out, NAME_WITH_UID, &[before, &[0], after].concat());
            }
            None => match self.file_name.to_str().and_then(digits) {
                Some(packed) => push_field(&mut out, DIGITS, &packed),
                None => push_field(&mut out, RAW, name),
            },
        }
        push_number(&mut out, super::keys::to_i64(self.size).wrapping_sub(base.size));
        push_number(&mut out, self.mtime_ms.wrapping_sub(base.mtime_ms));
        out.push(u8::from(self.checksum.is_some()));
        out.extend(self.checksum.map(Checksum::to_bytes).into_iter().flatten());
        for (place, value) in &self.own {
            out.push(*place);
            push_text(&mut out, value);
        }
        out
    }

    pub(super) fn unpack(bytes: &[u8], base: BodyBase<'_>) -> Result<Self, Error> {
        let broken = || Error::Malformed("a row of an instance cannot be read".into());
        Self::read(&mut BodyReader(bytes), base).ok_or_else(broken)
    }

    fn read(from: &mut BodyReader<'_>, base: BodyBase<'_>) -> Option<Self> {
        let uid = from.text(base.uid_prefix)?;
        let file_name = from.name(&uid)?;
        let size = super::keys::to_u64(base.size.wrapping_add(from.number()?));
        let mtime_ms = base.mtime_ms.wrapping_add(from.number()?);
        let checksum = match from.byte()? {
            0 => None,
            _ => Some(Checksum::from_bytes(*from.take(16)?.first_chunk()?)),
        };
        let mut own = Vec::new();
        while !from.0.is_empty() {
            own.push((from.byte()?, from.text("")?));
        }
        Some(Self { uid, file_name, size, mtime_ms, checksum, own })
    }
}

/// Two characters in each byte. `None` if the text has others than those of [`PACKED`].
fn digits(text: &str) -> Option<Vec<u8>> {
    let half = |byte: u8| PACKED.iter().position(|known| *known == byte).and_then(|at| u8::try_from(at).ok());
    let mut packed = Vec::with_capacity(text.len().div_ceil(2));
    for pair in text.as_bytes().chunks(2) {
        let low = pair.get(1).map_or(Some(PADDING), |byte| half(*byte))?;
        packed.push(half(*pair.first()?)? << 4 | low);
    }
    Some(packed)
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    match digits(text) {
        Some(packed) => push_field(out, DIGITS, &packed),
        None => push_field(out, RAW, text.as_bytes()),
    }
}

fn push_field(out: &mut Vec<u8>, form: u8, bytes: &[u8]) {
    push_unsigned(out, (bytes.len() as u64) << 2 | u64::from(form));
    out.extend_from_slice(bytes);
}

fn push_number(out: &mut Vec<u8>, number: i64) {
    push_unsigned(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

fn push_unsigned(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

struct BodyReader<'b>(&'b [u8]);

impl<'b> BodyReader<'b> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn unsigned(&mut self) -> Option<u64> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(number);
            }
            shift += 7;
        }
    }

    fn number(&mut self) -> Option<i64> {
        let number = self.unsigned()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn field(&mut self) -> Option<(u8, &'b [u8])> {
        let head = self.unsigned()?;
        Some(((head & 3) as u8, self.take(usize::try_from(head >> 2).ok()?)?))
    }

    fn text(&mut self, prefix: &str) -> Option<String> {
        match self.field()? {
            (DIGITS, packed) => unpack_digits(packed, ""),
            (DIGITS_AFTER_PREFIX, packed) => unpack_digits(packed, prefix),
            (RAW, bytes) => String::from_utf8(bytes.to_vec()).ok(),
            _ => None,
        }
    }

    fn name(&mut self, uid: &str) -> Option<OsString> {
        Some(match self.field()? {
            (NAME_WITH_UID, bytes) => {
                let at = bytes.iter().position(|byte| *byte == 0)?;
                let (before, after) = (bytes.get(..at)?, bytes.get(at + 1..)?);
                OsString::from_vec([before, uid.as_bytes(), after].concat())
            }
            (DIGITS, packed) => unpack_digits(packed, "")?.into(),
            (_, bytes) => OsString::from_vec(bytes.to_vec()),
        })
    }
}

fn unpack_digits(packed: &[u8], prefix: &str) -> Option<String> {
    let mut text = String::with_capacity(prefix.len() + packed.len() * 2);
    text.push_str(prefix);
    for half in packed.iter().flat_map(|byte| [byte >> 4, byte & 0xF]).filter(|half| *half != PADDING) {
        text.push(char::from(*PACKED.get(usize::from(half))?));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(uid: &str, file_name: &str) -> InstanceBody {
        let own = vec![(0, "12".to_owned()), (5, "101530.123456".to_owned())];
        InstanceBody {
            uid: uid.into(),
            file_name: file_name.into(),
            size: 524_288,
            mtime_ms: 5_000,
            checksum: None,
            own,
        }
    }

    #[test]
    fn a_usual_row_takes_few_bytes() {
        let uid = "1.2.840.113619.2.55.3.604688119.868.1234567890.123";
        let base =
            BodyBase { uid_prefix: "1.2.840.113619.2.55.3.604688119.868.1234567890.", size: 524_000, mtime_ms: 0 };
        let packed = body(uid, uid).pack(base);
        assert_eq!(InstanceBody::unpack(&packed, base).unwrap(), body(uid, uid));
        assert!(packed.len() < 25, "{}", packed.len());
    }

    #[test]
    fn a_row_that_is_cut_off_is_damage() {
        let base = BodyBase { uid_prefix: "", size: 0, mtime_ms: 0 };
        let packed = body("1.2.3", "a").pack(base);
        for length in 0..packed.len() {
            let cut = InstanceBody::unpack(&packed[..length], base);
            assert!(cut.is_err() || cut.unwrap() != body("1.2.3", "a"));
        }
    }

    proptest! {
        #[test]
        fn each_row_comes_back(
            uid in "[0-9.]{0,20}|\\PC{0,8}|a\0b", prefix in "[0-9.]{0,6}", name in prop::collection::vec(any::<u8>(), 0..12),
            with_uid in any::<bool>(), size in 0..u64::MAX / 4, mtime_ms in any::<i64>(), size_base in any::<i64>(),
            sum in prop::option::of(any::<[u8; 16]>()), own in prop::collection::vec((0..9_u8, "[0-9.+-]{0,9}|\\PC{0,5}"), 0..4)
        ) {
            let file_name = OsString::from_vec(if with_uid { [&name, uid.as_bytes()].concat() } else { name });
            let checksum = sum.map(Checksum::from_bytes);
            let body = InstanceBody { uid, file_name, size, mtime_ms, checksum, own };
            let base = BodyBase { uid_prefix: &prefix, size: size_base, mtime_ms: 77 };
            prop_assert_eq!(InstanceBody::unpack(&body.pack(base), base).unwrap(), body);
        }
    }
}
