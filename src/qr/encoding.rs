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

    /// Its UID.
    #[must_use]
    pub fn uid(self) -> &'static str {
        match self {
            Self::ImplicitLittle => uids::IMPLICIT_VR_LITTLE_ENDIAN,
            Self::ExplicitLittle => uids::EXPLICIT_VR_LITTLE_ENDIAN,
            Self::ExplicitBig => "1.2.840.10008.1.2.2",
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

/// A data set with one element: a list of UIDs. Where VR UI has no length for it, it is UN (PS3.5 6.2.2).
#[must_use]
pub fn uid_list_data_set<'a>(encoding: Encoding, tag: Tag, uids: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut value = Vec::new();
    for uid in uids {
        if !value.is_empty() {
            value.push(b'\\');
        }
        value.extend_from_slice(uid.as_bytes());
    }
    if !value.len().is_multiple_of(2) {
        value.push(0);
    }
    let mut out = Vec::with_capacity(value.len() + 12);
    push_element(encoding, &mut out, tag, VR::UI, &value);
    out
}

/// Appends an element whose value has even length.
pub(super) fn push_element(encoding: Encoding, out: &mut Vec<u8>, tag: Tag, vr: VR, value: &[u8]) {
    encoding.push_tag(out, tag);
    let length = u32::try_from(value.len()).expect("what we say of an archive's instances is far below 4 GiB");
    match (encoding.is_explicit(), u16::try_from(length)) {
        (false, _) => out.extend(encoding.u32_bytes(length)),
        (true, Ok(length)) if !has_long_length(vr) => {
            out.extend(vr.to_bytes());
            encoding.push_u16(out, length);
        }
        (true, _) => {
            out.extend(if has_long_length(vr) { vr } else { VR::UN }.to_bytes());
            out.extend([0, 0]);
            out.extend(encoding.u32_bytes(length));
        }
    }
    out.extend_from_slice(value);
}

/// Writes a small data set, element after element in ascending order.
#[derive(Debug)]
pub struct DataSetWriter {
    encoding: Encoding,
    out: Vec<u8>,
}

impl DataSetWriter {
    /// An empty one.
    #[must_use]
    pub fn new(encoding: Encoding) -> Self {
        Self { encoding, out: Vec::new() }
    }

    /// Adds an element of VR UI or of a text VR, padded to even length (PS3.5 6.2).
    pub fn text(&mut self, tag: Tag, vr: VR, text: &str) {
        let mut value = text.as_bytes().to_vec();
        if !value.len().is_multiple_of(2) {
            value.push(if vr == VR::UI { 0 } else { b' ' });
        }
        push_element(self.encoding, &mut self.out, tag, vr, &value);
    }

    /// Adds an element of VR US.
    pub fn unsigned_short(&mut self, tag: Tag, value: u16) {
        let mut bytes = Vec::with_capacity(2);
        self.encoding.push_u16(&mut bytes, value);
        push_element(self.encoding, &mut self.out, tag, VR::US, &bytes);
    }

    /// Adds a sequence, an item for each of `items`.
    pub fn sequence<'i, T: 'i>(
        &mut self,
        tag: Tag,
        items: impl IntoIterator<Item = &'i T>,
        mut item: impl FnMut(&mut Self, &T),
    ) {
        const ITEM: Tag = Tag(0xFFFE, 0xE000);
        let mut inner = Self::new(self.encoding);
        let mut content = Vec::new();
        for each in items {
            inner.out.clear();
            item(&mut inner, each);
            self.encoding.push_tag(&mut content, ITEM);
            let length = u32::try_from(inner.out.len()).expect("an item that we write is small");
            content.extend(self.encoding.u32_bytes(length));
            content.extend_from_slice(&inner.out);
        }
        push_element(self.encoding, &mut self.out, tag, VR::SQ, &content);
    }

    /// Its bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}
