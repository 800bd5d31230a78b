//! Writes the File Meta Information (PS3.10 7.1) of a stored object.

use crate::encoding::syntax::Encoding;
use crate::model::implementation::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME};

/// The group of the File Meta Information.
const GROUP: u32 = 0x0002;

/// Bytes before the File Meta Information: the preamble and `DICM`.
const PREFIX_LENGTH: usize = 128 + 4;

/// Bytes of the element (0002,0000), which holds the length of the rest.
const GROUP_LENGTH_ELEMENT: usize = 12;

/// Values that may differ when the same data set arrives again are padded to this length. So the
/// length of the file depends only on its data set. VR AE and VR SH both allow 16 characters, and
/// trailing spaces are not significant.
const PADDED_LENGTH: usize = 16;

/// The values of the File Meta Information.
#[derive(Clone, Copy, Debug)]
pub struct FileMeta<'a> {
    /// SOP Class UID of the C-STORE-RQ.
    pub sop_class_uid: &'a str,
    /// SOP Instance UID of the C-STORE-RQ.
    pub sop_instance_uid: &'a str,
    /// The transfer syntax of the presentation context.
    pub transfer_syntax: &'a str,
    /// The AE title of the sender. Empty if it is unknown.
    pub source_ae_title: &'a str,
}

impl FileMeta<'_> {
    /// Encodes the preamble, the prefix and the File Meta Information (PS3.10 table 7.1-1) in
    /// explicit VR little endian.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut elements = Vec::with_capacity(384);
        // File Meta Information Version.
        Encoding::ExplicitLittle.push_header(&mut elements, GROUP << 16 | 1, *b"OB", 2);
        elements.extend_from_slice(&[0, 1]);
        put(&mut elements, 0x0002, *b"UI", self.sop_class_uid, 0, 0);
        put(&mut elements, 0x0003, *b"UI", self.sop_instance_uid, 0, 0);
        put(&mut elements, 0x0010, *b"UI", self.transfer_syntax, 0, 0);
        put(&mut elements, 0x0012, *b"UI", IMPLEMENTATION_CLASS_UID, 0, 0);
        put(&mut elements, 0x0013, *b"SH", IMPLEMENTATION_VERSION_NAME, b' ', PADDED_LENGTH);
        put(&mut elements, 0x0016, *b"AE", self.source_ae_title, b' ', PADDED_LENGTH);
        let mut bytes = vec![0; 128];
        bytes.extend_from_slice(b"DICM");
        Encoding::ExplicitLittle.push_header(&mut bytes, GROUP << 16, *b"UL", 4);
        let length = u32::try_from(elements.len()).expect("every value is cut to 64 KiB");
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&elements);
        bytes
    }
}

/// Offset of the data set in a file that [`FileMeta::encode`] wrote. `None` for other files.
pub(super) fn data_set_offset(start: &[u8]) -> Option<u64> {
    let header = start.get(PREFIX_LENGTH - 4..PREFIX_LENGTH + GROUP_LENGTH_ELEMENT)?;
    let &[b'D', b'I', b'C', b'M', 2, 0, 0, 0, b'U', b'L', 4, 0, l0, l1, l2, l3] = header else { return None };
    Some((PREFIX_LENGTH + GROUP_LENGTH_ELEMENT) as u64 + u64::from(u32::from_le_bytes([l0, l1, l2, l3])))
}

/// The data set of a file that [`FileMeta::encode`] began. `None` for other files.
#[must_use]
pub fn data_set_of(file: &[u8]) -> Option<&[u8]> {
    usize::try_from(data_set_offset(file)?).ok().and_then(|offset| file.get(offset..))
}

/// Bytes at the start of a file that [`data_set_offset`] needs.
pub(super) const START_LENGTH: usize = PREFIX_LENGTH + GROUP_LENGTH_ELEMENT;

fn put(out: &mut Vec<u8>, element: u16, vr: [u8; 2], text: &str, padding: u8, min_length: usize) {
    // A UID from the network is shorter than 64 KiB. A longer value is cut, because its length
    // would not fit.
    let text = text.as_bytes();
    let text = &text[..text.len().min(usize::from(u16::MAX - 1))];
    let length = text.len().max(min_length).next_multiple_of(2);
    let tag = GROUP << 16 | u32::from(element);
    Encoding::ExplicitLittle.push_header(out, tag, vr, u32::try_from(length).expect("cut above"));
    out.extend_from_slice(text);
    out.resize(out.len() + length - text.len(), padding);
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: FileMeta<'_> = FileMeta {
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid: "1.2.3.4",
        transfer_syntax: "1.2.840.10008.1.2.1",
        source_ae_title: "SENDER",
    };

    #[test]
    fn dicom_object_reads_it_back() {
        let bytes = META.encode();
        let table = dicom_object::FileMetaTable::from_reader(&bytes[128..]).unwrap();
        assert_eq!(table.media_storage_sop_class_uid(), META.sop_class_uid);
        assert_eq!(table.media_storage_sop_instance_uid(), META.sop_instance_uid);
        assert_eq!(table.transfer_syntax(), META.transfer_syntax);
        assert_eq!(table.implementation_class_uid(), IMPLEMENTATION_CLASS_UID);
        assert_eq!(table.implementation_version_name.as_deref().map(str::trim), Some(IMPLEMENTATION_VERSION_NAME));
        assert_eq!(table.source_application_entity_title.as_deref().map(str::trim), Some("SENDER"));
    }

    #[test]
    fn its_length_depends_on_the_object_alone() {
        let other = FileMeta { source_ae_title: "A_LONGER_TITLE", ..META };
        assert_eq!(other.encode().len(), META.encode().len());
        assert_eq!(data_set_offset(&META.encode()), Some(META.encode().len() as u64));
        assert_eq!(data_set_offset(&META.encode()[..START_LENGTH]), Some(META.encode().len() as u64));
        assert_eq!(data_set_offset(&META.encode()[..START_LENGTH - 1]), None);
    }
}
