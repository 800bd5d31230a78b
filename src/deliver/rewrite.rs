//! Rewrites a data set from one transfer syntax without compression to another (PS3.5 7.1, 7.3,
//! annex A), as a stream. Peers that do not accept the transfer syntax of a stored object need it.
//!
//! It keeps one unfinished element header in memory, whatever the length, the number and the
//! nesting of elements. Sequences and items get delimiters, because their new length is not known
//! when their header is written. Group lengths (retired, PS3.5 7.2) are left out for the same
//! reason. Elements of the groups 0000 and 0002 do not belong to a data set (PS3.7 6.3.1, PS3.10
//! 7.1) and are left out too. All other elements keep their values, unless they are corrected
//! ([`correcting`](super::correcting)). A private element without a VR becomes UN, and a value of
//! odd length is padded (PS3.5 7.1.1).

use std::sync::Arc;

use super::correcting::{Correcting, CorrectingError, Fate, ORIGINAL_ATTRIBUTES};
use crate::db::CorrectedValues;
use crate::encoding::header::{ElementHeader, HeaderError};
use crate::encoding::structure::StructureError;
use crate::encoding::syntax::{Encoding, NativeSyntax};
use crate::encoding::tag::{
    DELIMITER_GROUP, ITEM, ITEM_DELIMITER, PIXEL_DATA, PIXEL_REPRESENTATION, SEQUENCE_DELIMITER,
    SPECIFIC_CHARACTER_SET, UNDEFINED, tag_of,
};
use crate::encoding::vr;
use crate::ingest::limits::MAX_DEPTH;

/// The reason why a data set cannot be rewritten. The texts name tags, never values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// Pixel data are in fragments. Rewriting would have to decompress them.
    #[error("element {} is encapsulated", tag_of(*.0))]
    Encapsulated(u32),
    /// The elements cannot be told apart.
    #[error(transparent)]
    Structure(#[from] StructureError),
    /// A value cannot be corrected.
    #[error(transparent)]
    Correcting(#[from] CorrectingError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpenElementKind {
    Sequence,
    Item,
    /// Pixel data in fragments, which stay as they are.
    Fragments,
}

/// Longest value of Specific Character Set that is read, in bytes.
const MAX_CHARACTER_SET: u32 = 1024;

#[derive(Debug, Clone, Copy)]
struct OpenElement {
    kind: OpenElementKind,
    /// Position of the first byte after it. `None` if a delimiter ends it.
    end: Option<u64>,
    from: Encoding,
    to: Encoding,
}

/// Treatment of the bytes of the current value.
#[derive(Debug, Clone, Copy)]
enum ValueAction {
    None,
    /// They are copied. Words of so many bytes are reversed.
    Copy {
        left: u64,
        word: usize,
        /// The padding after a value of odd length.
        padding: Option<u8>,
    },
    Drop {
        left: u64,
    },
    /// They go to the previous values of the correction.
    Keep {
        left: u64,
        padding: Option<u8>,
    },
}

/// Rewrites one data set that arrives in pieces of any size.
#[derive(Debug)]
pub(crate) struct Rewriter {
    from: Encoding,
    to: Encoding,
    frames: Vec<OpenElement>,
    value: ValueAction,
    /// Bytes that need the following ones. They are fewer than a header and a word.
    carry: Vec<u8>,
    /// Number of bytes used.
    position: u64,
    /// Pixel Representation (0028,0103) says that samples are signed.
    signed: bool,
    /// Zeros follow the data set. Some writers fill the last sector with them.
    ended: bool,
    /// Position of the last sequence of the data set itself that has a length.
    sequence: Option<u64>,
    /// Positions of sequences that become empty.
    emptied: Vec<u64>,
    /// The correction of the data set, if it has one.
    correcting: Option<Box<Correcting>>,
    /// Pixel data in fragments are copied.
    keeps_fragments: bool,
}

enum RewriteStep {
    /// So many bytes were used.
    Used(usize),
    /// More bytes are needed.
    More,
}

impl Rewriter {
    /// Makes the rewriter of one data set.
    pub(crate) fn new(from: NativeSyntax, to: NativeSyntax) -> Self {
        Self {
            from: from.encoding(),
            to: to.encoding(),
            frames: Vec::new(),
            value: ValueAction::None,
            carry: Vec::new(),
            position: 0,
            signed: false,
            ended: false,
            sequence: None,
            emptied: Vec::new(),
            correcting: None,
            keeps_fragments: false,
        }
    }

    /// Copies pixel data in fragments. They are the same in all encodings but those with other byte
    /// order.
    pub(crate) fn keeping_fragments(self) -> Self {
        Self { keeps_fragments: true, ..self }
    }

    /// Makes the sequences at these positions empty, because they hold something other than items.
    pub(crate) fn emptying(self, emptied: Vec<u64>) -> Self {
        Self { emptied, ..self }
    }

    /// The position of the sequence that an error is in. `None` if its length does not say where it
    /// ends, and if the error is not one of what it holds.
    pub(crate) fn faulty_sequence(&self, error: RewriteError) -> Option<u64> {
        match error {
            RewriteError::Encapsulated(_)
            | RewriteError::Structure(StructureError::Truncated)
            | RewriteError::Correcting(_) => None,
            RewriteError::Structure(
                StructureError::BadVr(_)
                | StructureError::LengthPastEnd(_)
                | StructureError::Misplaced(_)
                | StructureError::TooDeep,
            ) => self.frames.first()?.end.and(self.sequence),
        }
    }

    /// Also replaces these values. Pixel data in fragments are copied then, unless the encoding
    /// changes.
    pub(crate) fn correcting(self, corrected: Option<Arc<CorrectedValues>>) -> Self {
        let correcting = corrected.map(|corrected| Box::new(Correcting::new(corrected, self.to)));
        Self { correcting, ..self }
    }

    /// Takes the next bytes, and appends the rewritten ones.
    ///
    /// # Errors
    /// See [`RewriteError`].
    pub(crate) fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), RewriteError> {
        // A header or word that began in the piece before is completed byte by byte, with at most a
        // dozen bytes.
        while !self.carry.is_empty() && !bytes.is_empty() {
            let Some((first, rest)) = bytes.split_first() else { break };
            bytes = rest;
            let mut carry = std::mem::take(&mut self.carry);
            carry.push(*first);
            let used = self.run(&carry, out)?;
            carry.drain(..used);
            self.carry = carry;
        }
        if self.carry.is_empty() {
            let used = self.run(bytes, out)?;
            self.carry.extend_from_slice(bytes.get(used..).unwrap_or_default());
        }
        Ok(())
    }

    /// Returns the number of following bytes whose value does not affect the structure. A check may
    /// skip them.
    pub(crate) fn skippable(&self) -> u64 {
        match self.value {
            ValueAction::Copy { left, .. } | ValueAction::Drop { left } if self.carry.is_empty() => left,
            ValueAction::Copy { .. } | ValueAction::Drop { .. } | ValueAction::Keep { .. } | ValueAction::None => 0,
        }
    }

    /// Skips so many of the next bytes, at most [`Self::skippable`].
    pub(crate) fn skip(&mut self, count: u64) {
        let (ValueAction::Copy { left, .. } | ValueAction::Drop { left }) = &mut self.value else { return };
        let count = count.min(*left);
        *left -= count;
        self.position += count;
    }

    /// Ends the data set.
    ///
    /// # Errors
    /// See [`RewriteError`]: it ends inside an element.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), RewriteError> {
        // The last word of a value of odd length.
        if let ValueAction::Copy { left, padding, .. } = self.value
            && left == self.carry.len() as u64
        {
            out.append(&mut self.carry);
            out.extend(padding);
            self.position += left;
            self.value = ValueAction::None;
        }
        self.close_frames(out)?;
        let left = match self.value {
            ValueAction::None => 0,
            ValueAction::Copy { left, .. } | ValueAction::Drop { left } | ValueAction::Keep { left, .. } => left,
        };
        let padding = self.ended || self.carry.iter().all(|byte| *byte == 0);
        if left != 0 || !padding || !self.frames.is_empty() {
            return Err(StructureError::Truncated.into());
        }
        if let Some(correcting) = &mut self.correcting {
            correcting.before(u32::MAX, 0, out)?;
        }
        Ok(())
    }

    /// Uses as many of `bytes` as possible, and returns how many.
    fn run(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, RewriteError> {
        let mut at = 0;
        while !self.ended {
            let rest = bytes.get(at..).unwrap_or_default();
            let step = match self.value {
                ValueAction::None => {
                    self.close_frames(out)?;
                    self.header(rest, out)?
                }
                ValueAction::Copy { left: 0, padding, .. } => {
                    out.extend(padding);
                    self.value = ValueAction::None;
                    RewriteStep::Used(0)
                }
                ValueAction::Drop { left: 0 } => {
                    self.value = ValueAction::None;
                    RewriteStep::Used(0)
                }
                ValueAction::Keep { left: 0, padding } => {
                    self.keep(padding.as_slice());
                    self.value = ValueAction::None;
                    RewriteStep::Used(0)
                }
                ValueAction::Keep { left, padding } => {
                    let step = self.pass(rest, left);
                    if let (RewriteStep::Used(count), ValueAction::Drop { left }) = (&step, self.value) {
                        self.keep(rest.get(..*count).unwrap_or_default());
                        self.value = ValueAction::Keep { left, padding };
                    }
                    step
                }
                ValueAction::Drop { left } => self.pass(rest, left),
                ValueAction::Copy { left, word, padding } => self.copy(rest, (left, word, padding), out),
            };
            match step {
                RewriteStep::Used(count) => {
                    at += count;
                    self.position += count as u64;
                }
                RewriteStep::More => return Ok(at),
            }
        }
        Ok(bytes.len())
    }

    fn pass(&mut self, rest: &[u8], left: u64) -> RewriteStep {
        if rest.is_empty() {
            return RewriteStep::More;
        }
        let count = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
        self.value = ValueAction::Drop { left: left - count as u64 };
        RewriteStep::Used(count)
    }

    /// Appends bytes to the previous values of the correction.
    fn keep(&mut self, bytes: &[u8]) {
        if let Some(correcting) = &mut self.correcting {
            correcting.push_previous(bytes);
        }
    }

    fn copy(&mut self, rest: &[u8], value: (u64, usize, Option<u8>), out: &mut Vec<u8>) -> RewriteStep {
        let (left, word, padding) = value;
        let count = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
        let whole = if count as u64 == left { count } else { count - count % word };
        if whole == 0 {
            return RewriteStep::More;
        }
        let value = rest.get(..whole).unwrap_or_default();
        if word == 1 {
            out.extend_from_slice(value);
        } else {
            let start = out.len();
            out.extend_from_slice(value);
            // An incomplete word at the end of a value of wrong length stays unchanged.
            for word in out.get_mut(start..).unwrap_or_default().chunks_exact_mut(word) {
                word.reverse();
            }
        }
        self.value = ValueAction::Copy { left: left - whole as u64, word, padding };
        RewriteStep::Used(whole)
    }

    /// Closes the items and sequences of defined length that end here.
    fn close_frames(&mut self, out: &mut Vec<u8>) -> Result<(), RewriteError> {
        while let Some(frame) = self.frames.last() {
            match frame.end {
                Some(end) if end <= self.position => {}
                Some(_) | None => break,
            }
            self.close(out);
        }
        Ok(())
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some(frame) = self.frames.pop() {
            let delimiter = match frame.kind {
                OpenElementKind::Item => ITEM_DELIMITER,
                OpenElementKind::Sequence | OpenElementKind::Fragments => SEQUENCE_DELIMITER,
            };
            frame.to.push_marker(out, delimiter, 0);
        }
    }

    fn header(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Result<RewriteStep, RewriteError> {
        let Some(start) = rest.first_chunk::<8>() else { return Ok(RewriteStep::More) };
        let top = self.frames.last().copied();
        let (from, to) = top.map_or((self.from, self.to), |frame| (frame.from, frame.to));
        let is_in_sequence = top.is_some_and(|frame| frame.kind != OpenElementKind::Item);
        if *start == [0; 8] && top.is_none() {
            self.ended = true;
            return Ok(RewriteStep::Used(0));
        }
        let mut header = match from.header(rest) {
            Ok(header) => header,
            Err(HeaderError::Incomplete) => return Ok(RewriteStep::More),
            // In a sequence there are items only, whatever the letters are.
            Err(HeaderError::BadVr(tag)) if is_in_sequence => return Err(StructureError::Misplaced(tag).into()),
            Err(HeaderError::BadVr(tag)) => return Err(StructureError::BadVr(tag).into()),
        };
        if header.tag >> 16 == DELIMITER_GROUP {
            return self.marker(header.tag, header.length, top, out);
        }
        if is_in_sequence {
            return Err(StructureError::Misplaced(header.tag).into());
        }
        if !header.explicit {
            header.vr = self.letters_in_dictionary(header.tag, header.length);
        }
        if top.is_none()
            && header.tag & 0xFFFF != 0
            && !matches!(header.tag >> 16, 0x0000 | 0x0002)
            && let Some(step) = self.correct(&header, rest, out)?
        {
            return Ok(step);
        }
        self.element(header, rest, (from, to), out)
    }

    /// Corrects an element of the data set itself. `None` if the element stays.
    fn correct(
        &mut self,
        header: &ElementHeader,
        rest: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<RewriteStep>, RewriteError> {
        let Some(correcting) = &mut self.correcting else { return Ok(None) };
        let ElementHeader { tag, vr: letters, length, size, .. } = *header;
        let left = u64::from(length);
        let mut fate = correcting.before(tag, length, out)?;
        if tag == SPECIFIC_CHARACTER_SET {
            let is_short = length <= MAX_CHARACTER_SET;
            let length = usize::try_from(length).ok().filter(|_| is_short).ok_or(CorrectingError::NotText(tag))?;
            let Some(value) = rest.get(size..size + length) else { return Ok(Some(RewriteStep::More)) };
            fate = correcting.character_set(&String::from_utf8_lossy(value), out);
        }
        let is_sequence = &letters == b"SQ";
        let is_text = !is_sequence && length != UNDEFINED;
        if (fate != Fate::Stays && !is_text) || (tag == ORIGINAL_ATTRIBUTES && !is_sequence) {
            return Err(CorrectingError::NotText(tag).into());
        }
        match fate {
            Fate::Stays => return Ok(None),
            Fate::Goes => self.value = ValueAction::Drop { left },
            Fate::Replaced => {
                correcting.note_previous(tag, letters, length);
                let padding = (length % 2 == 1).then(|| vr::padding(letters));
                self.value = ValueAction::Keep { left, padding };
            }
        }
        Ok(Some(RewriteStep::Used(size)))
    }

    /// Opens a sequence. The previous values come first in the Original Attributes Sequence.
    fn open_sequence(
        &mut self,
        tag: u32,
        end: Option<u64>,
        (from, to): (Encoding, Encoding),
        out: &mut Vec<u8>,
    ) -> Result<(), RewriteError> {
        if self.frames.is_empty()
            && tag == ORIGINAL_ATTRIBUTES
            && let Some(correcting) = &mut self.correcting
        {
            correcting.push_item(out);
        }
        self.open(OpenElementKind::Sequence, end, from, to)
    }

    /// Opens pixel data in fragments, which are copied.
    fn open_fragments(
        &mut self,
        (tag, letters, size): (u32, [u8; 2], usize),
        (from, to): (Encoding, Encoding),
        out: &mut Vec<u8>,
    ) -> Result<RewriteStep, RewriteError> {
        to.push_header(out, tag, letters, UNDEFINED);
        self.open(OpenElementKind::Fragments, None, from, to).map(|()| RewriteStep::Used(size))
    }

    fn element(
        &mut self,
        element: ElementHeader,
        rest: &[u8],
        (from, to): (Encoding, Encoding),
        out: &mut Vec<u8>,
    ) -> Result<RewriteStep, RewriteError> {
        let ElementHeader { tag, vr: letters, length, size, .. } = element;
        let start = self.position + size as u64;
        if length == UNDEFINED {
            let is_in_fragments = tag == PIXEL_DATA && self.frames.is_empty();
            // PS3.5 6.2.2: the content of UN is Implicit VR Little Endian, and stays so if the VR
            // stays UN.
            let (from, inner) = match (&letters, from.is_explicit()) {
                (b"UN", true) => (Encoding::ImplicitLittle, Encoding::ImplicitLittle),
                _ if is_in_fragments && self.keeps_fragments && from.is_big() == to.is_big() => {
                    return self.open_fragments((tag, *b"OB", size), (from, to), out);
                }
                (b"SQ", _) | (_, false) => (from, to),
                _ if self.correcting.is_some() && from == to => {
                    return self.open_fragments((tag, letters, size), (from, to), out);
                }
                _ => return Err(RewriteError::Encapsulated(tag)),
            };
            let letters = if &letters == b"UN" && inner == Encoding::ImplicitLittle && to.is_explicit() {
                *b"UN"
            } else {
                *b"SQ"
            };
            to.push_header(out, tag, letters, UNDEFINED);
            return self.open_sequence(tag, None, (from, inner), out).map(|()| RewriteStep::Used(size));
        }
        let end = start + u64::from(length);
        if self.frames.iter().rev().find_map(|frame| frame.end).is_some_and(|limit| end > limit) {
            return Err(StructureError::LengthPastEnd(tag).into());
        }
        if tag & 0xFFFF == 0 || (self.frames.is_empty() && matches!(tag >> 16, 0x0000 | 0x0002)) {
            self.value = ValueAction::Drop { left: u64::from(length) };
            return Ok(RewriteStep::Used(size));
        }
        if &letters == b"SQ" {
            if length == 0 || self.emptied.contains(&self.position) {
                // An empty Original Attributes Sequence comes with its new item, after this
                // element.
                let gets_item = self.frames.is_empty() && tag == ORIGINAL_ATTRIBUTES && self.correcting.is_some();
                if !gets_item {
                    to.push_header(out, tag, letters, 0);
                }
                self.value = ValueAction::Drop { left: u64::from(length) };
                return Ok(RewriteStep::Used(size));
            }
            if self.frames.is_empty() {
                self.sequence = Some(self.position);
            }
            to.push_header(out, tag, letters, UNDEFINED);
            return self.open_sequence(tag, Some(end), (from, to), out).map(|()| RewriteStep::Used(size));
        }
        if tag == PIXEL_REPRESENTATION && length == 2 {
            let Some(value) = rest.get(size..).and_then(<[u8]>::first_chunk::<2>) else { return Ok(RewriteStep::More) };
            self.signed = from.u16(*value) == 1;
        }
        // `UNDEFINED` was handled above, so the longest odd length is one less.
        to.push_header(out, tag, letters, length.saturating_add(length % 2));
        let padding = (length % 2 == 1).then(|| vr::padding(letters));
        let word = if from.is_big() == to.is_big() { 1 } else { vr::word_length(letters) };
        self.value = ValueAction::Copy { left: u64::from(length), word, padding };
        Ok(RewriteStep::Used(size))
    }

    fn marker(
        &mut self,
        tag: u32,
        length: u32,
        top: Option<OpenElement>,
        out: &mut Vec<u8>,
    ) -> Result<RewriteStep, RewriteError> {
        const SIZE: usize = 8;
        match (tag, top) {
            (ITEM, Some(OpenElement { kind: OpenElementKind::Sequence, from, to, end: limit })) => {
                let end = (length != UNDEFINED).then(|| self.position + SIZE as u64 + u64::from(length));
                if let (Some(end), Some(limit)) = (end, limit)
                    && end > limit
                {
                    return Err(StructureError::LengthPastEnd(tag).into());
                }
                to.push_marker(out, ITEM, UNDEFINED);
                self.open(OpenElementKind::Item, end, from, to)?;
            }
            (ITEM, Some(OpenElement { kind: OpenElementKind::Fragments, to, .. })) if length != UNDEFINED => {
                to.push_marker(out, ITEM, length);
                self.value = ValueAction::Copy { left: u64::from(length), word: 1, padding: None };
            }
            (ITEM_DELIMITER, Some(OpenElement { kind: OpenElementKind::Item, end: None, .. }))
            | (
                SEQUENCE_DELIMITER,
                Some(OpenElement { kind: OpenElementKind::Sequence | OpenElementKind::Fragments, end: None, .. }),
            ) => self.close(out),
            _ => return Err(StructureError::Misplaced(tag).into()),
        }
        Ok(RewriteStep::Used(SIZE))
    }

    fn open(
        &mut self,
        kind: OpenElementKind,
        end: Option<u64>,
        from: Encoding,
        to: Encoding,
    ) -> Result<(), RewriteError> {
        if self.frames.len() >= MAX_DEPTH {
            return Err(StructureError::TooDeep.into());
        }
        self.frames.push(OpenElement { kind, end, from, to });
        Ok(())
    }

    /// Returns the VR of an element whose header has none.
    fn letters_in_dictionary(&self, tag: u32, length: u32) -> [u8; 2] {
        vr::implicit(tag, length == UNDEFINED, self.signed).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use dicom_core::VR;
    use dicom_core::{DataElement, PrimitiveValue, Tag, dicom_value, value::DataSetSequence};
    use dicom_encoding::TransferSyntaxIndex;
    use dicom_object::InMemDicomObject;
    use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
    use proptest::prelude::*;

    use crate::model::attribute::AttributeId;

    use super::NativeSyntax::{ExplicitBig, ExplicitLittle, ImplicitLittle};
    use super::*;

    const SYNTAXES: [NativeSyntax; 3] = NativeSyntax::TARGETS;

    fn rewritten(bytes: &[u8], from: NativeSyntax, to: NativeSyntax, piece: usize) -> Result<Vec<u8>, RewriteError> {
        let (mut rewriter, mut out) = (Rewriter::new(from, to), Vec::new());
        for piece in bytes.chunks(piece) {
            rewriter.feed(piece, &mut out)?;
        }
        rewriter.finish(&mut out)?;
        Ok(out)
    }

    fn object() -> InMemDicomObject {
        let item = |text: &str| {
            InMemDicomObject::from_element_iter([
                DataElement::new(Tag(0x0008, 0x0100), VR::SH, dicom_value!(Str, text)),
                DataElement::new(Tag(0x0028, 0x0106), VR::US, dicom_value!(U16, [513])),
            ])
        };
        let nested = InMemDicomObject::from_element_iter([DataElement::new(
            Tag(0x0008, 0x1140),
            VR::SQ,
            DataSetSequence::from(vec![item("IN")]),
        )]);
        InMemDicomObject::from_element_iter([
            DataElement::new(Tag(0x0008, 0x0018), VR::UI, dicom_value!(Str, "1.2.3.4.5")),
            DataElement::new(Tag(0x0008, 0x1032), VR::SQ, DataSetSequence::from(vec![item("A"), nested, item("BC")])),
            DataElement::new(Tag(0x0008, 0x1110), VR::SQ, DataSetSequence::<InMemDicomObject>::empty()),
            DataElement::new(Tag(0x0010, 0x0010), VR::PN, dicom_value!(Str, "Doe^John")),
            DataElement::new(Tag(0x0018, 0x9087), VR::FD, dicom_value!(F64, [1.5, -2.25])),
            DataElement::new(Tag(0x0020, 0x5000), VR::AT, dicom_value!(Tags, [Tag(0x0010, 0x0020)])),
            DataElement::new(Tag(0x0028, 0x0010), VR::US, dicom_value!(U16, [2])),
            DataElement::new(Tag(0x0028, 0x0103), VR::US, dicom_value!(U16, [1])),
            DataElement::new(Tag(0x0028, 0x0106), VR::SS, dicom_value!(I16, [-5])),
            DataElement::new(Tag(0x7FE0, 0x0010), VR::OW, PrimitiveValue::U16(vec![1, 0xABCD, 3, 4].into())),
        ])
    }

    fn written(object: &InMemDicomObject, syntax: NativeSyntax) -> Vec<u8> {
        let mut bytes = Vec::new();
        object.write_dataset_with_ts(&mut bytes, TransferSyntaxRegistry.get(syntax.uid()).unwrap()).unwrap();
        bytes
    }

    fn read(bytes: &[u8], syntax: NativeSyntax) -> InMemDicomObject {
        InMemDicomObject::read_dataset_with_ts(bytes, TransferSyntaxRegistry.get(syntax.uid()).unwrap()).unwrap()
    }

    /// The library writes the same objects in the same way, so its bytes show whether two objects
    /// are equal.
    fn canonical(object: &InMemDicomObject) -> Vec<u8> {
        written(object, ExplicitLittle)
    }

    #[test]
    fn dicom_object_reads_the_same_from_what_was_rewritten() {
        for from in SYNTAXES {
            let bytes = written(&object(), from);
            for to in SYNTAXES {
                let out = rewritten(&bytes, from, to, usize::MAX).unwrap();
                let (before, after) = (read(&bytes, from), read(&out, to));
                assert!(canonical(&after) == canonical(&before), "{from:?} to {to:?}\n{after:?}\n{before:?}");
                if to.encoding().is_explicit() {
                    assert_eq!(after.element(Tag(0x0028, 0x0106)).unwrap().vr(), VR::SS, "{from:?} to {to:?}");
                }
            }
        }
    }

    #[test]
    fn pieces_of_any_size_give_the_same_bytes() {
        for from in SYNTAXES {
            let bytes = written(&object(), from);
            for to in SYNTAXES {
                let whole = rewritten(&bytes, from, to, usize::MAX).unwrap();
                for piece in [1, 2, 3, 7, 13, 64] {
                    assert!(rewritten(&bytes, from, to, piece).unwrap() == whole, "{from:?} to {to:?} by {piece}");
                }
            }
        }
    }

    fn implicit(tag: Tag, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Encoding::ImplicitLittle.push_header(
            &mut out,
            u32::from(tag.0) << 16 | u32::from(tag.1),
            *b"UN",
            value.len() as u32,
        );
        out.extend(value);
        out
    }

    #[test]
    fn private_elements_keep_every_byte_and_become_un_of_even_length() {
        let bytes = [implicit(Tag(9, 0x10), b"ACME"), implicit(Tag(9, 0x1001), b"\x01\x02\x03")].concat();
        let out = rewritten(&bytes, ImplicitLittle, ExplicitLittle, usize::MAX).unwrap();
        assert_eq!(out, b"\x09\0\x10\0LO\x04\0ACME\x09\0\x01\x10UN\0\0\x04\0\0\0\x01\x02\x03\0");
        let padded = [implicit(Tag(9, 0x10), b"ACME"), implicit(Tag(9, 0x1001), b"\x01\x02\x03\0")].concat();
        assert_eq!(rewritten(&out, ExplicitLittle, ImplicitLittle, 1).unwrap(), padded);
    }

    #[test]
    fn a_text_too_long_for_its_vr_becomes_un() {
        let bytes = implicit(Tag(0x0020, 0x4000), &[b'x'; 70_000]);
        let out = rewritten(&bytes, ImplicitLittle, ExplicitLittle, usize::MAX).unwrap();
        assert_eq!(&out[4..12], b"UN\0\0\x70\x11\x01\0");
        assert_eq!(out.len(), bytes.len() + 4);
        assert_eq!(rewritten(&out, ExplicitLittle, ImplicitLittle, usize::MAX).unwrap(), bytes);
    }

    #[test]
    fn un_of_undefined_length_stays_what_it_is() {
        let inner = implicit(Tag(0x0008, 0x0100), b"A ");
        let mut bytes = b"\x09\0\x01\x10UN\0\0\xFF\xFF\xFF\xFF".to_vec();
        Encoding::ImplicitLittle.push_marker(&mut bytes, ITEM, UNDEFINED);
        bytes.extend(&inner);
        Encoding::ImplicitLittle.push_marker(&mut bytes, ITEM_DELIMITER, 0);
        Encoding::ImplicitLittle.push_marker(&mut bytes, SEQUENCE_DELIMITER, 0);
        assert_eq!(rewritten(&bytes, ExplicitLittle, ExplicitLittle, 3).unwrap(), bytes);
        let out = rewritten(&bytes, ExplicitLittle, ImplicitLittle, 3).unwrap();
        assert_eq!(out[..8], *b"\x09\0\x01\x10\xFF\xFF\xFF\xFF");
        assert_eq!(out[8..], bytes[12..]);
    }

    #[test]
    fn every_value_gets_an_even_length() {
        let encodings = [ImplicitLittle, ExplicitLittle, ExplicitBig];
        let values: [(u32, &[u8; 2], &[u8], u8); 6] = [
            (0x0008_0018, b"UI", b"1.2.3", 0),
            (0x0008_0060, b"CS", b"M", b' '),
            (0x0010_0010, b"PN", b"A^B", b' '),
            (0x0010_4000, b"LT", b"odd", b' '),
            (0x0020_0013, b"IS", b"", b' '),
            (0x7FE0_0010, b"OW", b"\x01\x02\x03\x04\x05", 0),
        ];
        for from in encodings {
            let mut bytes = Vec::new();
            for (tag, letters, value, _) in values {
                from.encoding().push_header(&mut bytes, tag, *letters, value.len() as u32);
                bytes.extend(value);
            }
            for to in encodings {
                for piece in [1, 2, 7, usize::MAX] {
                    let out = rewritten(&bytes, from, to, piece).unwrap();
                    assert!(out.len().is_multiple_of(2));
                    let mut expected = Vec::new();
                    for (tag, letters, value, padding) in values {
                        let mut value = value.to_vec();
                        if letters == b"OW" && from.encoding().is_big() != to.encoding().is_big() {
                            value.chunks_exact_mut(2).for_each(<[u8]>::reverse);
                        }
                        if value.len() % 2 == 1 {
                            value.push(padding);
                        }
                        to.encoding().push_header(&mut expected, tag, *letters, value.len() as u32);
                        expected.extend(value);
                    }
                    assert!(out == expected, "{from:?} to {to:?} by {piece}");
                }
            }
        }
    }

    #[test]
    fn what_belongs_into_a_message_or_before_a_data_set_is_left_out() {
        let foreign = [implicit(Tag(0, 0), &[10, 0, 0, 0]), implicit(Tag(0, 0x0100), &[1, 0])].concat();
        let meta = implicit(Tag(2, 0x10), b"1.2.840.10008.1.2.4.70");
        let bytes = [foreign.clone(), meta, implicit(Tag(8, 0x60), b"CT"), foreign].concat();
        assert_eq!(rewritten(&bytes, ImplicitLittle, ExplicitLittle, 5).unwrap(), b"\x08\0\x60\0CS\x02\0CT");
    }

    #[test]
    fn group_lengths_are_left_out_and_padding_behind_the_data_set_as_well() {
        let bytes = [implicit(Tag(8, 0), &[9, 0, 0, 0]), implicit(Tag(8, 0x60), b"CT"), vec![0; 512]].concat();
        let out = rewritten(&bytes, ImplicitLittle, ExplicitLittle, 5).unwrap();
        assert_eq!(out, b"\x08\0\x60\0CS\x02\0CT");
    }

    #[test]
    fn damage_is_told() {
        let fails = |bytes: &[u8], from| rewritten(bytes, from, ExplicitLittle, usize::MAX).unwrap_err();
        let bytes = written(&object(), ImplicitLittle);
        assert_eq!(
            fails(&bytes[..bytes.len() - 1], ImplicitLittle),
            RewriteError::Structure(StructureError::Truncated)
        );
        assert_eq!(fails(&bytes[..5], ImplicitLittle), RewriteError::Structure(StructureError::Truncated));
        assert_eq!(
            fails(b"\x08\0\x18\0??\x04\x001234", ExplicitLittle),
            RewriteError::Structure(StructureError::BadVr(0x0008_0018))
        );
        let encapsulated = b"\xE0\x7F\x10\0OB\0\0\xFF\xFF\xFF\xFF";
        assert_eq!(fails(encapsulated, ExplicitLittle), RewriteError::Encapsulated(0x7FE0_0010));
        assert_eq!(
            fails(&implicit(Tag(0xFFFE, 0xE00D), b""), ImplicitLittle),
            RewriteError::Structure(StructureError::Misplaced(ITEM_DELIMITER))
        );
        let mut too_long = implicit(Tag(0x0008, 0x1032), &implicit(Tag(0xFFFE, 0xE000), &[0; 8]));
        too_long[12] = 9;
        assert_eq!(fails(&too_long, ImplicitLittle), RewriteError::Structure(StructureError::LengthPastEnd(ITEM)));
    }

    #[test]
    fn a_sequence_that_holds_no_items_can_be_made_empty() {
        let mut bytes = b"\x10\0\x02\x10SQ\0\0\x0C\0\0\0Test,Case19 ".to_vec();
        bytes.extend(b"\x10\0\x10\0PN\x04\0A^B ");
        for (to, sequence) in
            [(ExplicitBig, &b"\0\x10\x10\x02SQ\0\0\0\0\0\0"[..]), (ImplicitLittle, b"\x10\0\x02\x10\0\0\0\0")]
        {
            let (mut rewriter, mut out) = (Rewriter::new(ExplicitLittle, to), Vec::new());
            let error = rewriter.feed(&bytes, &mut out).unwrap_err();
            assert_eq!(rewriter.faulty_sequence(error), Some(0));
            assert_eq!(rewriter.faulty_sequence(RewriteError::Structure(StructureError::Truncated)), None);
            let (mut rewriter, mut out) = (Rewriter::new(ExplicitLittle, to).emptying(vec![0]), Vec::new());
            rewriter.feed(&bytes, &mut out).unwrap();
            rewriter.finish(&mut out).unwrap();
            assert_eq!(out[..sequence.len()], *sequence);
            assert!(out.ends_with(b"A^B "));
        }
        // A sequence of undefined length says nowhere where it ends.
        let mut rewriter = Rewriter::new(ExplicitLittle, ImplicitLittle);
        let error = rewriter.feed(b"\x10\0\x02\x10SQ\0\0\xFF\xFF\xFF\xFFTest,Case19 ", &mut Vec::new()).unwrap_err();
        assert_eq!(rewriter.faulty_sequence(error), None);
    }

    #[test]
    fn depth_is_limited() {
        let mut level = Vec::new();
        Encoding::ImplicitLittle.push_header(&mut level, 0x0008_1032, *b"SQ", UNDEFINED);
        Encoding::ImplicitLittle.push_marker(&mut level, ITEM, UNDEFINED);
        let deep = level.repeat(100_000);
        let error = rewritten(&deep, ImplicitLittle, ExplicitLittle, usize::MAX).unwrap_err();
        assert_eq!(error, RewriteError::Structure(StructureError::TooDeep));
    }

    #[test]
    fn a_check_that_skips_values_finds_what_a_whole_one_finds() {
        let check = |bytes: &[u8]| {
            let (mut rewriter, mut out, mut at) = (Rewriter::new(ExplicitBig, ExplicitLittle), Vec::new(), 0);
            while at < bytes.len() {
                let skippable = (rewriter.skippable() as usize).min(bytes.len() - at);
                if skippable > 0 {
                    rewriter.skip(skippable as u64);
                    at += skippable;
                } else {
                    rewriter.feed(&bytes[at..at + 1], &mut out)?;
                    at += 1;
                }
            }
            rewriter.finish(&mut out)
        };
        let bytes = written(&object(), ExplicitBig);
        for length in 0..=bytes.len() {
            let whole = rewritten(&bytes[..length], ExplicitBig, ExplicitLittle, usize::MAX);
            assert_eq!(check(&bytes[..length]), whole.map(drop), "{length} bytes");
        }
        assert_eq!(check(&bytes), Ok(()));
    }

    fn corrected(values: &[(AttributeId, &str)]) -> Option<Arc<CorrectedValues>> {
        let values = values.iter().map(|(id, value)| (*id, (*value).to_owned())).collect();
        Some(Arc::new(CorrectedValues { values, made_ms: 951_827_696_000, system: "DCMDEX".to_owned() }))
    }

    fn sent(
        bytes: &[u8],
        (from, to): (NativeSyntax, NativeSyntax),
        values: &[(AttributeId, &str)],
        piece: usize,
    ) -> Result<Vec<u8>, RewriteError> {
        let (mut rewriter, mut out) = (Rewriter::new(from, to).correcting(corrected(values)), Vec::new());
        for piece in bytes.chunks(piece) {
            rewriter.feed(piece, &mut out)?;
        }
        rewriter.finish(&mut out)?;
        Ok(out)
    }

    fn text(object: &InMemDicomObject, tag: Tag) -> String {
        object.element(tag).unwrap().to_str().unwrap().trim_end().to_owned()
    }

    const NEW: [(AttributeId, &str); 3] = [
        (AttributeId::PatientName, "Müller^Änne"),
        (AttributeId::PatientID, "NEW"),
        (AttributeId::IssuerOfPatientID, ""),
    ];

    #[test]
    fn corrected_values_go_out_with_the_previous_ones() {
        let name = Tag(0x0010, 0x0010);
        let item = |reason: &str| {
            InMemDicomObject::from_element_iter([DataElement::new(
                Tag(0x0400, 0x0565),
                VR::CS,
                dicom_value!(Str, reason),
            )])
        };
        for has_earlier in [false, true] {
            let mut object = object();
            object.put(DataElement::new(Tag(0x0008, 0x0005), VR::CS, dicom_value!(Str, "ISO_IR 100")));
            object.put(DataElement::new(Tag(0x0010, 0x0021), VR::LO, dicom_value!(Str, "HOSPITAL")));
            if has_earlier {
                let earlier = DataSetSequence::from(vec![item("COERCE")]);
                object.put(DataElement::new(Tag(0x0400, 0x0561), VR::SQ, earlier));
            }
            for from in SYNTAXES {
                let bytes = written(&object, from);
                for to in SYNTAXES {
                    let out = sent(&bytes, (from, to), &NEW, usize::MAX).unwrap();
                    for piece in [1, 2, 7, 64] {
                        assert!(sent(&bytes, (from, to), &NEW, piece).unwrap() == out, "{from:?} to {to:?} by {piece}");
                    }
                    let mut after = read(&out, to);
                    assert_eq!(text(&after, name), "Müller^Änne");
                    assert_eq!(text(&after, Tag(0x0010, 0x0020)), "NEW");
                    assert_eq!(text(&after, Tag(0x0010, 0x0021)), "");
                    let original = after.take_element(Tag(0x0400, 0x0561)).unwrap();
                    let items = original.items().unwrap();
                    assert_eq!(items.len(), 1 + usize::from(has_earlier));
                    let [date_time, system, source, reason] =
                        [0x0562, 0x0563, 0x0564, 0x0565].map(|element| text(&items[0], Tag(0x0400, element)));
                    assert_eq!(
                        [date_time.as_str(), &system, &source, &reason],
                        ["20000229123456+0000", "DCMDEX", "", "CORRECT"]
                    );
                    let previous = &items[0].element(Tag(0x0400, 0x0550)).unwrap().items().unwrap()[0];
                    assert_eq!(text(previous, name), "Doe^John");
                    assert_eq!(text(previous, Tag(0x0010, 0x0020)), "", "it was absent");
                    assert_eq!(text(previous, Tag(0x0010, 0x0021)), "HOSPITAL");
                    assert!(items.get(1).is_none_or(|item| text(item, Tag(0x0400, 0x0565)) == "COERCE"));
                    // All other elements are as they were.
                    for element in [0x0010, 0x0020, 0x0021] {
                        after.remove_element(Tag(0x0010, element));
                    }
                    let mut before = object.clone();
                    before.remove_element(Tag(0x0400, 0x0561));
                    before.remove_element(name);
                    before.remove_element(Tag(0x0010, 0x0021));
                    assert!(canonical(&after) == canonical(&before), "{from:?} to {to:?}");
                }
            }
        }
    }

    #[test]
    fn a_corrected_value_is_in_the_character_set_of_the_object() {
        let syntaxes = (ExplicitLittle, ExplicitLittle);
        let with_set = |set: &str| {
            let mut object = object();
            object.put(DataElement::new(Tag(0x0008, 0x0005), VR::CS, dicom_value!(Str, set)));
            written(&object, ExplicitLittle)
        };
        // An object without one gets Unicode, and an empty one is replaced.
        for bytes in [written(&object(), ExplicitLittle), with_set("")] {
            let after = read(&sent(&bytes, syntaxes, &NEW, 5).unwrap(), ExplicitLittle);
            assert_eq!(text(&after, Tag(0x0008, 0x0005)), "ISO_IR 192");
            assert_eq!(text(&after, Tag(0x0010, 0x0010)), "Müller^Änne");
            let item = &after.element(Tag(0x0400, 0x0561)).unwrap().items().unwrap()[0];
            let previous = &item.element(Tag(0x0400, 0x0550)).unwrap().items().unwrap()[0];
            assert_eq!(text(previous, Tag(0x0008, 0x0005)), "");
            let plain = read(&sent(&bytes, syntaxes, &NEW[1..], 5).unwrap(), ExplicitLittle);
            assert!(plain.element_opt(Tag(0x0008, 0x0005)).unwrap().is_none_or(|set| set.to_str().unwrap().is_empty()));
        }
        let greek = [(AttributeId::PatientName, "Νίκος")];
        assert_eq!(
            sent(&with_set("ISO_IR 100"), syntaxes, &greek, usize::MAX),
            Err(CorrectingError::NotEncodable(0x0010_0010).into())
        );
        assert!(sent(&with_set("ISO_IR 126"), syntaxes, &greek, usize::MAX).is_ok());
    }

    #[test]
    fn pixel_data_in_fragments_stay_as_they_are_in_a_corrected_object() {
        let fragments = b"\xE0\x7F\x10\0OB\0\0\xFF\xFF\xFF\xFF\xFE\xFF\0\xE0\0\0\0\0\xFE\xFF\0\xE0\x04\0\0\0\xFF\xD8\xFE\xFF\xFE\xFF\xDD\xE0\0\0\0\0";
        let bytes = [&b"\x10\0\x20\0LO\x04\0OLD "[..], fragments].concat();
        for piece in [1, 3, usize::MAX] {
            let out = sent(&bytes, (ExplicitLittle, ExplicitLittle), &NEW[1..2], piece).unwrap();
            assert!(out.starts_with(b"\x10\0\x20\0LO\x04\0NEW \0\x04\x61\x05SQ") && out.ends_with(fragments));
        }
        let rewritten = sent(&bytes, (ExplicitLittle, ImplicitLittle), &NEW[1..2], 3);
        assert_eq!(rewritten, Err(RewriteError::Encapsulated(0x7FE0_0010)));
    }

    #[test]
    fn an_original_attributes_sequence_that_is_made_empty_gets_its_item() {
        let bytes = [&b"\x10\0\x20\0LO\x04\0OLD "[..], b"\0\x04\x61\x05SQ\0\0\x04\0\0\0Test"].concat();
        for rest in [&b""[..], b"\xE0\x7F\x10\0OB\0\0\x02\0\0\0\x01\x02"] {
            let mut rewriter = Rewriter::new(ExplicitLittle, ExplicitLittle);
            rewriter = rewriter.correcting(corrected(&NEW[1..2])).emptying(vec![12]);
            let mut out = Vec::new();
            rewriter.feed(&[&bytes, rest].concat(), &mut out).unwrap();
            rewriter.finish(&mut out).unwrap();
            let items = read(&out, ExplicitLittle).element(Tag(0x0400, 0x0561)).unwrap().items().unwrap().len();
            assert_eq!((items, out.windows(4).filter(|four| four == b"\0\x04\x61\x05").count()), (1, 1));
        }
    }

    #[test]
    fn no_old_value_remains_in_an_object_whose_tags_are_in_disorder() {
        let old = b"\x10\0\x20\0LO\x04\0OLD ";
        let bytes = [&b"\x20\0\x13\0IS\x02\x001 "[..], old, old].concat();
        let out = sent(&bytes, (ExplicitLittle, ExplicitLittle), &NEW[1..2], 2).unwrap();
        assert!(out.starts_with(b"\x10\0\x20\0LO\x04\0NEW "));
        // It stands in the Original Attributes Sequence alone.
        let previous = out.windows(4).position(|four| four == b"\0\x04\x61\x05").unwrap();
        let olds: Vec<usize> = (0..out.len() - 2).filter(|&at| out[at..].starts_with(b"OLD")).collect();
        assert!(matches!(olds[..], [old] if old > previous), "{olds:?}");
        let sequence = b"\x10\0\x20\0SQ\0\0\0\0\0\0";
        let refused = sent(sequence, (ExplicitLittle, ExplicitLittle), &NEW[1..2], 2);
        assert_eq!(refused, Err(CorrectingError::NotText(0x0010_0020).into()));
    }

    proptest! {
        #[test]
        fn a_corrected_object_gives_the_same_in_pieces(at in 0..400_usize, value: u8, from in 0..3_usize, to in 0..3_usize, piece in 1..20_usize) {
            let mut bytes = written(&object(), SYNTAXES[from]);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            let syntaxes = (SYNTAXES[from], SYNTAXES[to]);
            prop_assert_eq!(sent(&bytes, syntaxes, &NEW, piece), sent(&bytes, syntaxes, &NEW, usize::MAX));
        }

        #[test]
        fn any_bytes_give_the_same_in_pieces(bytes in proptest::collection::vec(any::<u8>(), 0..300), from in 0..3_usize, to in 0..3_usize) {
            let whole = rewritten(&bytes, SYNTAXES[from], SYNTAXES[to], usize::MAX);
            prop_assert_eq!(rewritten(&bytes, SYNTAXES[from], SYNTAXES[to], 7), whole);
        }

        #[test]
        fn a_changed_object_gives_the_same_in_pieces(at in 0..400_usize, value: u8, from in 0..3_usize, to in 0..3_usize, piece in 1..20_usize) {
            let mut bytes = written(&object(), SYNTAXES[from]);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            let whole = rewritten(&bytes, SYNTAXES[from], SYNTAXES[to], usize::MAX);
            prop_assert_eq!(rewritten(&bytes, SYNTAXES[from], SYNTAXES[to], piece), whole);
        }
    }
}
