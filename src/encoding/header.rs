//! Writes element headers (PS3.5 7.1, 7.5).

use super::syntax::Encoding;
use super::vr::{self, Form};

impl Encoding {
    pub(crate) fn push_u32(self, out: &mut Vec<u8>, value: u32) {
        out.extend(self.u32_bytes(value));
    }

    /// Appends a tag. It is written as two numbers.
    pub(crate) fn push_tag(self, out: &mut Vec<u8>, tag: u32) {
        self.push_u16(out, (tag >> 16) as u16);
        self.push_u16(out, tag as u16);
    }

    /// Appends an item, an item delimiter or a sequence delimiter. These never have a VR (PS3.5 7.5).
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
