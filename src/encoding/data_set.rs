//! Small data sets that this program writes: lists of UIDs, reports, queries.

use dicom_core::{Tag, VR};

use crate::encoding::syntax::Encoding;
use crate::encoding::tag::{ITEM, tag_number};
use crate::encoding::vr::{self, has_long_length};

/// Builds a data set with one element: a list of UIDs. If the list is too long for VR UI, the VR is
/// UN (PS3.5 6.2.2).
#[must_use]
pub fn uid_list_data_set<'a>(encoding: Encoding, tag: Tag, uids: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut value = Vec::new();
    for uid in uids {
        if !value.is_empty() {
            value.push(b'\\');
        }
        value.extend_from_slice(uid.as_bytes());
    }
    let mut out = Vec::with_capacity(value.len() + 14);
    push_element(encoding, &mut out, tag, VR::UI, &value);
    out
}

/// Appends an element. Its value is padded to even length (PS3.5 6.2). If it is too long for its
/// VR, the VR becomes UN (PS3.5 6.2.2, note 2).
pub(crate) fn push_element(encoding: Encoding, out: &mut Vec<u8>, tag: Tag, vr: VR, value: &[u8]) {
    let padded = value.len().next_multiple_of(2);
    let letters = if has_long_length(vr) || padded <= usize::from(u16::MAX) { vr.to_bytes() } else { *b"UN" };
    // Values come from the index, and the limits of reading keep them far below 4 GiB.
    encoding.push_header(out, tag_number(tag), letters, u32::try_from(padded).unwrap_or(u32::MAX));
    out.extend_from_slice(value);
    if padded > value.len() {
        out.push(vr::padding(letters));
    }
}

/// Writes a small data set, element after element in ascending order.
#[derive(Debug)]
pub struct DataSetWriter {
    encoding: Encoding,
    out: Vec<u8>,
}

impl DataSetWriter {
    /// Creates an empty data set.
    #[must_use]
    pub fn new(encoding: Encoding) -> Self {
        Self { encoding, out: Vec::new() }
    }

    /// Adds an element of VR UI or of a text VR, padded to even length (PS3.5 6.2).
    pub fn text(&mut self, tag: Tag, vr: VR, text: &str) {
        push_element(self.encoding, &mut self.out, tag, vr, text.as_bytes());
    }

    /// Adds an element of VR US.
    pub fn unsigned_short(&mut self, tag: Tag, value: u16) {
        let mut bytes = Vec::with_capacity(2);
        self.encoding.push_u16(&mut bytes, value);
        push_element(self.encoding, &mut self.out, tag, VR::US, &bytes);
    }

    /// Adds a sequence with one item for each of `items`.
    pub fn sequence<'i, T: 'i>(
        &mut self,
        tag: Tag,
        items: impl IntoIterator<Item = &'i T>,
        mut item: impl FnMut(&mut Self, &T),
    ) {
        let mut inner = Self::new(self.encoding);
        let mut content = Vec::new();
        for each in items {
            inner.out.clear();
            item(&mut inner, each);
            let length = u32::try_from(inner.out.len()).expect("an item that we write is small");
            self.encoding.push_marker(&mut content, ITEM, length);
            content.extend_from_slice(&inner.out);
        }
        push_element(self.encoding, &mut self.out, tag, VR::SQ, &content);
    }

    /// Returns the bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}
