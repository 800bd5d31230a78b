//! How the data sets of queries are written: the transfer syntaxes without codecs (PS3.5 annex A).

use dicom_core::{Tag, VR};
use dicom_dictionary_std::uids;

/// A transfer syntax of an Identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Implicit VR Little Endian (PS3.5 A.1).
    ImplicitLittle,
    /// Explicit VR Little Endian (PS3.5 A.2).
    ExplicitLittle,
    /// Explicit VR Big Endian (PS3.5 A.3, retired in 2006; old viewers still propose it).
    ExplicitBig,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ImplicitLittle, Self::ExplicitLittle, Self::ExplicitBig];

    /// The transfer syntax with this UID; `None` for any other than these three.
    #[must_use]
    pub fn of_uid(uid: &str) -> Option<Self> {
        match uid.trim_end_matches(['\0', ' ']) {
            uids::IMPLICIT_VR_LITTLE_ENDIAN => Some(Self::ImplicitLittle),
            uids::EXPLICIT_VR_LITTLE_ENDIAN => Some(Self::ExplicitLittle),
            "1.2.840.10008.1.2.2" => Some(Self::ExplicitBig),
            _ => None,
        }
    }

    pub(super) fn is_big(self) -> bool {
        self == Self::ExplicitBig
    }

    pub(super) fn is_explicit(self) -> bool {
        self != Self::ImplicitLittle
    }

    pub(super) fn u16(self, bytes: [u8; 2]) -> u16 {
        if self.is_big() { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    pub(super) fn u32(self, bytes: [u8; 4]) -> u32 {
        if self.is_big() { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    pub(super) fn push_u16(self, out: &mut Vec<u8>, value: u16) {
        out.extend(if self.is_big() { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    pub(super) fn u32_bytes(self, value: u32) -> [u8; 4] {
        if self.is_big() { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub(super) fn push_tag(self, out: &mut Vec<u8>, tag: Tag) {
        self.push_u16(out, tag.group());
        self.push_u16(out, tag.element());
    }
}

/// Whether a VR has a 32-bit length in explicit VR (PS3.5 7.1.2).
pub(super) fn has_long_length(vr: VR) -> bool {
    matches!(
        vr,
        VR::OB
            | VR::OD
            | VR::OF
            | VR::OL
            | VR::OV
            | VR::OW
            | VR::SQ
            | VR::SV
            | VR::UC
            | VR::UN
            | VR::UR
            | VR::UT
            | VR::UV
    )
}
