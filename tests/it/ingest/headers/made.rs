//! Handmade objects, intact and damaged.

use super::*;

pub(crate) const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";
pub(crate) const IMPLICIT_LE: &str = "1.2.840.10008.1.2";
pub(crate) const EXPLICIT_BE: &str = "1.2.840.10008.1.2.2";
pub(crate) const DEFLATED: &str = "1.2.840.10008.1.2.1.99";

#[derive(Clone, Copy)]
pub(crate) struct Encoding {
    pub explicit: bool,
    pub big: bool,
}

pub(crate) const ELE: Encoding = Encoding { explicit: true, big: false };
pub(crate) const ILE: Encoding = Encoding { explicit: false, big: false };
pub(crate) const EBE: Encoding = Encoding { explicit: true, big: true };

impl Encoding {
    fn u16(self, number: u16) -> [u8; 2] {
        if self.big { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn u32(self, number: u32) -> [u8; 4] {
        if self.big { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    pub(crate) fn header(self, tag: u32, vr: &str, length: u32) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.u16((tag >> 16) as u16));
        out.extend(self.u16(tag as u16));
        if !self.explicit || tag >> 16 == 0xFFFE {
            out.extend(self.u32(length));
            return out;
        }
        out.extend(vr.as_bytes());
        if ["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"].contains(&vr) {
            out.extend([0, 0]);
            out.extend(self.u32(length));
        } else {
            out.extend(self.u16(u16::try_from(length).unwrap()));
        }
        out
    }

    pub(crate) fn element(self, tag: u32, vr: &str, value: &[u8]) -> Vec<u8> {
        let mut out = self.header(tag, vr, value.len() as u32);
        out.extend(value);
        out
    }

    /// Builds the data set: the four UIDs, then a name, with an element before and after.
    pub(crate) fn data_set(self) -> Vec<u8> {
        [
            self.element(0x0008_0005, "CS", b"ISO_IR 100"),
            self.element(0x0008_0016, "UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
            self.element(0x0008_0018, "UI", b"1.2.3.4.5.6\0"),
            self.element(0x0010_0010, "PN", b"M\xfcller^A"),
            self.element(0x0020_000D, "UI", b"1.2.3.4.5\0"),
            self.element(0x0020_000E, "UI", b"1.2.3.4.5.1\0"),
            self.element(0x0028_0010, "US", &self.u16(512)),
        ]
        .concat()
    }
}

pub(crate) const UNDEFINED: u32 = u32::MAX;

pub(crate) fn meta(transfer_syntax: &str) -> Vec<u8> {
    let mut uid = transfer_syntax.as_bytes().to_vec();
    if uid.len() % 2 == 1 {
        uid.push(0);
    }
    let rest = [ELE.element(0x0002_0001, "OB", &[0, 1]), ELE.element(0x0002_0010, "UI", &uid)].concat();
    [ELE.element(0x0002_0000, "UL", &(rest.len() as u32).to_le_bytes()), rest].concat()
}

pub(crate) fn prefix() -> Vec<u8> {
    [&[0; 128][..], b"DICM"].concat()
}

pub(crate) fn file(transfer_syntax: &str, data_set: &[u8]) -> Vec<u8> {
    [&prefix(), &meta(transfer_syntax), data_set].concat()
}

pub(crate) fn deflate(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Checks that the handmade data set is read correctly, whatever surrounds it. Returns the
/// faults.
#[track_caller]
pub(crate) fn assert_read(bytes: &[u8]) -> Vec<String> {
    let record = instance(whole(bytes));
    for (id, value) in [
        (AttributeId::SOPClassUID, "1.2.840.10008.5.1.4.1.1.2"),
        (AttributeId::SOPInstanceUID, "1.2.3.4.5.6"),
        (AttributeId::PatientName, "Müller^A"),
        (AttributeId::StudyInstanceUID, "1.2.3.4.5"),
        (AttributeId::SeriesInstanceUID, "1.2.3.4.5.1"),
        (AttributeId::Rows, "512"),
    ] {
        assert_eq!(record.value(id), value, "{id}");
    }
    faults(&record)
}
