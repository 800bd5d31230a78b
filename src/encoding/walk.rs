//! Walks over all elements of a data set in little endian (PS3.5 chapter 7), one header after the
//! other.
//!
//! It has no recursion. It takes memory for a value only if the caller requests the value. Other
//! values are skipped, by seeking if the input can seek.

use std::io::{self, ErrorKind, Read};

use dicom_core::VR;

use super::header::{ElementHeader, HeaderError, LONGEST_HEADER};
use super::structure::StructureError;
use super::syntax::Encoding;
use super::tag::{DELIMITER_GROUP, ITEM, ITEM_DELIMITER, PIXEL_REPRESENTATION, SEQUENCE_DELIMITER, UNDEFINED, tag_of};
use super::vr;

/// Bytes of one read.
const READ: usize = 64 << 10;

/// An input whose bytes can be skipped.
pub(crate) trait Input: Read {
    /// Skips `count` bytes. Returns how many there were, which are fewer only at the end.
    ///
    /// # Errors
    /// Fails if the bytes cannot be skipped.
    fn skip(&mut self, count: u64) -> io::Result<u64>;
}

/// Reason why a walk ends early. The message names tags, never values.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WalkError {
    #[error("the object cannot be read")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Structure(#[from] StructureError),
    #[error("element {} is longer than the limit of one element", tag_of(*.0))]
    TooLong(u32),
}

/// The next part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// An element with a value of this length that begins at `offset`.
    Value { tag: u32, vr: VR, length: u32, offset: u64 },
    /// A sequence. Its items follow.
    Sequence { tag: u32 },
    /// An item begins.
    Item,
    /// The innermost item ends.
    ItemEnd,
    /// The innermost sequence ends.
    SequenceEnd,
    /// An element whose value is in fragments: see [`Walk::fragment`]. The first one begins at
    /// `offset`.
    Fragments { tag: u32, vr: VR, offset: u64 },
    /// The end of the data set.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WalkKind {
    Sequence,
    Item,
}

#[derive(Clone, Copy, Debug)]
struct WalkFrame {
    kind: WalkKind,
    /// Offset of its end. `None` if a delimiter ends it.
    end: Option<u64>,
    explicit: bool,
}

impl Event {
    /// Appends the beginning or end of a sequence or item, with delimiters in place of lengths.
    /// Appends nothing for values.
    pub(crate) fn push_structure(&self, encoding: Encoding, out: &mut Vec<u8>) {
        match *self {
            Self::Sequence { tag } => encoding.push_header(out, tag, VR::SQ.to_bytes(), UNDEFINED),
            Self::Item => encoding.push_marker(out, ITEM, UNDEFINED),
            Self::ItemEnd => encoding.push_marker(out, ITEM_DELIMITER, 0),
            Self::SequenceEnd => encoding.push_marker(out, SEQUENCE_DELIMITER, 0),
            Self::Value { .. } | Self::Fragments { .. } | Self::End => {}
        }
    }
}

/// A walk over one data set.
pub(crate) struct Walk<R> {
    input: R,
    buffer: Vec<u8>,
    /// Start of the unused part of the buffer.
    start: usize,
    /// Offset of the first unused byte.
    position: u64,
    /// Offset of the header that was read last.
    element_start: u64,
    explicit: bool,
    frames: Vec<WalkFrame>,
    max_depth: usize,
    signed: bool,
    /// Number of bytes of the current value that were not requested.
    unread: u64,
    /// Number of bytes that were to be skipped and were not there.
    lacking: u64,
    in_fragments: bool,
    /// Sequences that are stored as UN are opened.
    opens_unknown: bool,
    ended: bool,
}

impl<R: Input> Walk<R> {
    /// Creates a walk that begins at the data set. Offsets count from `offset`.
    pub(crate) fn new(input: R, offset: u64, explicit: bool, max_depth: usize) -> Self {
        Self {
            input,
            buffer: Vec::new(),
            start: 0,
            position: offset,
            element_start: offset,
            explicit,
            frames: Vec::new(),
            max_depth,
            signed: false,
            unread: 0,
            lacking: 0,
            in_fragments: false,
            opens_unknown: false,
            ended: false,
        }
    }

    /// Opens sequences of the dictionary that are stored as UN from now on (PS3.5 6.2.2). Otherwise
    /// those of defined length are values.
    pub(crate) fn open_unknown_sequences(&mut self) {
        self.opens_unknown = true;
    }

    /// Returns the input. The walk reads ahead, so the position of the input has no meaning.
    pub(crate) fn into_input(self) -> R {
        self.input
    }

    /// Returns the offset of the element, item or delimiter whose event came last. An item or
    /// sequence of defined length ends without one.
    pub(crate) fn element_start(&self) -> u64 {
        self.element_start
    }

    /// Whether the input ended inside a value that was skipped. One byte may lack: some writers
    /// forget the padding of the last value.
    pub(crate) fn is_cut(&self) -> bool {
        self.lacking > 1
    }

    /// Returns the nesting depth in sequences and items.
    pub(crate) fn depth(&self) -> usize {
        self.frames.len()
    }

    /// Returns the next event. A value that was not read is skipped.
    ///
    /// # Errors
    /// See [`WalkError`].
    pub(crate) fn next(&mut self) -> Result<Event, WalkError> {
        self.pass_value()?;
        if self.in_fragments {
            while self.fragment()?.is_some() {}
        }
        if self.ended {
            return Ok(Event::End);
        }
        if let Some(frame) = self.frames.last()
            && frame.end.is_some_and(|end| end <= self.position)
        {
            return Ok(self.close());
        }
        let explicit = self.frames.last().map_or(self.explicit, |frame| frame.explicit);
        let available = self.fill(LONGEST_HEADER)?;
        if available == 0 && self.frames.is_empty() {
            self.ended = true;
            return Ok(Event::End);
        }
        // Some writers fill the last sector with zeros.
        if self.peek() == Some([0; 8]) && self.frames.is_empty() {
            self.ended = true;
            return Ok(Event::End);
        }
        let is_in_sequence = self.frames.last().is_some_and(|frame| frame.kind == WalkKind::Sequence);
        let encoding = if explicit { Encoding::ExplicitLittle } else { Encoding::ImplicitLittle };
        let header = match encoding.header(self.buffer.get(self.start..).unwrap_or_default()) {
            Ok(header) => header,
            Err(HeaderError::Incomplete) => return Err(StructureError::Truncated.into()),
            // In a sequence there are items only, whatever the letters are.
            Err(HeaderError::BadVr(tag)) if is_in_sequence => return Err(StructureError::Misplaced(tag).into()),
            Err(HeaderError::BadVr(tag)) => return Err(StructureError::BadVr(tag).into()),
        };
        self.element_start = self.position;
        self.advance(header.size);
        if header.tag >> 16 == DELIMITER_GROUP {
            return self.marker(header.tag, header.length);
        }
        if is_in_sequence {
            return Err(StructureError::Misplaced(header.tag).into());
        }
        self.element(header, explicit)
    }

    fn element(&mut self, header: ElementHeader, explicit: bool) -> Result<Event, WalkError> {
        let ElementHeader { tag, length, .. } = header;
        let vr =
            if header.explicit { vr::of(header.vr) } else { Some(vr::implicit(tag, length == UNDEFINED, self.signed)) };
        let vr = vr.unwrap_or(VR::UN);
        if length == UNDEFINED {
            return match vr {
                VR::SQ => self.open(WalkKind::Sequence, None, explicit).map(|()| Event::Sequence { tag }),
                // The content of UN is in implicit VR (PS3.5 6.2.2).
                VR::UN => self.open(WalkKind::Sequence, None, false).map(|()| Event::Sequence { tag }),
                _ => {
                    self.in_fragments = true;
                    Ok(Event::Fragments { tag, vr, offset: self.position })
                }
            };
        }
        let end = self.position + u64::from(length);
        if self.frames.iter().rev().find_map(|frame| frame.end).is_some_and(|limit| end > limit) {
            return Err(StructureError::LengthPastEnd(tag).into());
        }
        let is_unknown_sequence = vr == VR::UN && header.explicit && self.is_unknown_sequence(tag, length)?;
        if vr == VR::SQ || is_unknown_sequence {
            self.open(WalkKind::Sequence, Some(end), explicit && !is_unknown_sequence)?;
            return Ok(Event::Sequence { tag });
        }
        self.unread = u64::from(length);
        if tag == PIXEL_REPRESENTATION && length >= 2 && self.frames.is_empty() {
            self.fill(2)?;
            self.signed = self.peek::<2>().is_some_and(|bytes| u16::from_le_bytes(bytes) == 1);
        }
        Ok(Event::Value { tag, vr, length, offset: self.position })
    }

    /// Whether the value of UN that follows is to be opened. Its items are in implicit VR (PS3.5
    /// 6.2.2). Some writers put items in explicit VR there, which stay a value.
    fn is_unknown_sequence(&mut self, tag: u32, length: u32) -> Result<bool, WalkError> {
        if !self.opens_unknown || vr::implicit(tag, false, false) != VR::SQ {
            return Ok(false);
        }
        self.fill(14)?;
        let begins_with_item = length >= 8 && self.peek::<4>() == Some([0xFE, 0xFF, 0x00, 0xE0]);
        let is_explicit = length >= 14 && self.peek::<14>().is_some_and(|[.., a, b]| vr::is_letters([a, b]));
        Ok(length == 0 || begins_with_item && !is_explicit)
    }

    fn marker(&mut self, tag: u32, length: u32) -> Result<Event, WalkError> {
        let top = self.frames.last().copied();
        match (tag, top) {
            (ITEM, Some(WalkFrame { kind: WalkKind::Sequence, explicit, .. })) => {
                let end = (length != UNDEFINED).then(|| self.position + u64::from(length));
                let limit = self.frames.iter().rev().find_map(|frame| frame.end);
                if end.zip(limit).is_some_and(|(end, limit)| end > limit) {
                    return Err(StructureError::LengthPastEnd(tag).into());
                }
                self.open(WalkKind::Item, end, explicit)?;
                Ok(Event::Item)
            }
            (ITEM_DELIMITER, Some(WalkFrame { kind: WalkKind::Item, .. }))
            | (SEQUENCE_DELIMITER, Some(WalkFrame { kind: WalkKind::Sequence, .. })) => Ok(self.close()),
            _ => Err(StructureError::Misplaced(tag).into()),
        }
    }

    fn open(&mut self, kind: WalkKind, end: Option<u64>, explicit: bool) -> Result<(), WalkError> {
        if self.frames.len() >= self.max_depth {
            return Err(StructureError::TooDeep.into());
        }
        self.frames.push(WalkFrame { kind, end, explicit });
        Ok(())
    }

    fn close(&mut self) -> Event {
        match self.frames.pop().map(|frame| frame.kind) {
            Some(WalkKind::Item) => Event::ItemEnd,
            Some(WalkKind::Sequence) => Event::SequenceEnd,
            None => Event::End,
        }
    }

    /// Returns the offset and length of the next fragment after [`Event::Fragments`]. `None` after
    /// the last one.
    ///
    /// The first fragment is the Basic Offset Table (PS3.5 A.4).
    ///
    /// # Errors
    /// [`StructureError::Misplaced`] if something else stands among the fragments, or as
    /// [`Self::next`].
    pub(crate) fn fragment(&mut self) -> Result<Option<(u64, u32)>, WalkError> {
        self.pass_value()?;
        if !self.in_fragments {
            return Ok(None);
        }
        self.fill(8)?;
        // Fragments and their delimiter have no VR (PS3.5 A.4).
        let header = Encoding::ImplicitLittle.header(self.buffer.get(self.start..).unwrap_or_default());
        let ElementHeader { tag, length, size, .. } = header.map_err(|_| StructureError::Truncated)?;
        self.advance(size);
        match tag {
            ITEM if length != UNDEFINED => {
                self.unread = u64::from(length);
                Ok(Some((self.position, length)))
            }
            SEQUENCE_DELIMITER => {
                self.in_fragments = false;
                Ok(None)
            }
            other => Err(StructureError::Misplaced(other).into()),
        }
    }

    /// Returns the places of all fragments after [`Event::Fragments`], without the Basic Offset
    /// Table.
    ///
    /// # Errors
    /// [`WalkError::TooLong`] if there are more than `limit`, or as [`Self::next`].
    pub(crate) fn fragments(&mut self, tag: u32, limit: usize) -> Result<Vec<(u64, u64)>, WalkError> {
        let mut places = Vec::new();
        self.fragment()?;
        while let Some((offset, length)) = self.fragment()? {
            if places.len() == limit {
                return Err(WalkError::TooLong(tag));
            }
            places.push((offset, u64::from(length)));
        }
        Ok(places)
    }

    /// Returns the current value or fragment.
    ///
    /// # Errors
    /// [`WalkError::TooLong`] if it is longer than `limit`, or as [`Self::next`].
    pub(crate) fn value(&mut self, tag: u32, limit: u64) -> Result<Vec<u8>, WalkError> {
        if self.unread > limit {
            return Err(WalkError::TooLong(tag));
        }
        self.read(self.unread)
    }

    /// Returns the first bytes of the current value or fragment. The rest is skipped.
    ///
    /// # Errors
    /// Fails as [`Self::next`] does.
    pub(crate) fn beginning(&mut self, count: u64) -> Result<Vec<u8>, WalkError> {
        self.read(self.unread.min(count))
    }

    fn read(&mut self, count: u64) -> Result<Vec<u8>, WalkError> {
        let count = usize::try_from(count).map_err(|_| StructureError::Truncated)?;
        let mut value = Vec::with_capacity(count.min(READ));
        let here = self.buffer.get(self.start..).unwrap_or_default();
        let here = here.get(..count).unwrap_or(here).to_vec();
        self.advance(here.len());
        value.extend(here);
        // Memory grows with the bytes that arrive, not with the declared length.
        while value.len() < count {
            let step = (count - value.len()).min(READ);
            let from = value.len();
            value.resize(from + step, 0);
            let read = loop {
                match self.input.read(value.get_mut(from..).unwrap_or_default()) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    read => break read?,
                }
            };
            value.truncate(from + read);
            self.position += read as u64;
            if read == 0 {
                return Err(StructureError::Truncated.into());
            }
        }
        self.unread -= count as u64;
        Ok(value)
    }

    fn pass_value(&mut self) -> Result<(), WalkError> {
        let here = self.buffer.len() - self.start;
        let in_buffer = usize::try_from(self.unread).map_or(here, |unread| unread.min(here));
        self.advance(in_buffer);
        let left = self.unread - in_buffer as u64;
        if left > 0 {
            self.lacking += left - self.input.skip(left)?.min(left);
            self.position += left;
        }
        self.unread = 0;
        Ok(())
    }

    /// Fills the buffer with at least `count` bytes, unless the input ends before. Returns the
    /// number of bytes.
    fn fill(&mut self, count: usize) -> Result<usize, WalkError> {
        while self.buffer.len() - self.start < count {
            self.buffer.drain(..self.start);
            self.start = 0;
            let from = self.buffer.len();
            self.buffer.resize(from + READ, 0);
            let read = self.input.read(self.buffer.get_mut(from..).unwrap_or_default());
            match read {
                Ok(read) => {
                    self.buffer.truncate(from + read);
                    if read == 0 {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => self.buffer.truncate(from),
                Err(error) => {
                    self.buffer.truncate(from);
                    return Err(error.into());
                }
            }
        }
        Ok(self.buffer.len() - self.start)
    }

    fn peek<const N: usize>(&self) -> Option<[u8; N]> {
        self.buffer.get(self.start..)?.first_chunk().copied()
    }

    fn advance(&mut self, count: usize) {
        self.start += count;
        self.position += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that arrive in small pieces and can be skipped.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(self.1).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    impl Input for Pieces<'_> {
        fn skip(&mut self, count: u64) -> io::Result<u64> {
            let count = (count as usize).min(self.0.len());
            self.0 = &self.0[count..];
            Ok(count as u64)
        }
    }

    fn events(bytes: &[u8], explicit: bool) -> Vec<Result<Event, String>> {
        let mut all = Vec::new();
        for piece in [1, 7, 1 << 20] {
            let mut walk = Walk::new(Pieces(bytes, piece), 100, explicit, 6);
            let mut found = Vec::new();
            loop {
                let event = walk.next().map_err(|error| error.to_string());
                let is_last = matches!(event, Ok(Event::End) | Err(_));
                found.push(event);
                if is_last {
                    break;
                }
            }
            assert!(all.is_empty() || all == found, "in pieces of {piece}");
            all = found;
        }
        all
    }

    #[test]
    fn elements_sequences_and_fragments_are_met_in_their_order() {
        let mut bytes = b"\x10\0\x20\0LO\x02\0P1".to_vec();
        bytes.extend(b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\x0a\0\0\0\x08\0\x50\x11UI\x02\x001\0");
        bytes.extend(b"\xfe\xff\xdd\xe0\0\0\0\0");
        bytes.extend(b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\0\0\0\0\xfe\xff\0\xe0\x02\0\0\0ab\xfe\xff\xdd\xe0\0\0\0\0");
        let found: Vec<_> = events(&bytes, true).into_iter().map(Result::unwrap).collect();
        let expected = [
            Event::Value { tag: 0x0010_0020, vr: VR::LO, length: 2, offset: 108 },
            Event::Sequence { tag: 0x0008_1140 },
            Event::Item,
            Event::Value { tag: 0x0008_1150, vr: VR::UI, length: 2, offset: 138 },
            Event::ItemEnd,
            Event::SequenceEnd,
            Event::Fragments { tag: 0x7FE0_0010, vr: VR::OB, offset: 160 },
            Event::End,
        ];
        assert_eq!(found, expected);
        let mut walk = Walk::new(Pieces(&bytes, 3), 0, true, 6);
        while !matches!(walk.next().unwrap(), Event::Fragments { .. }) {}
        assert_eq!(walk.fragment().unwrap(), Some((68, 0)));
        assert_eq!(walk.fragment().unwrap(), Some((76, 2)));
        assert_eq!(walk.value(0, 10).unwrap(), b"ab");
        assert_eq!(walk.fragment().unwrap(), None);
        assert_eq!(walk.next().unwrap(), Event::End);
    }

    // PS3.5 6.2.2.
    #[test]
    fn sequences_of_the_dictionary_that_are_stored_as_unknown_are_opened_on_request() {
        let of = |items: &[u8]| {
            let mut bytes = b"\x08\0\x32\x10UN\0\0".to_vec();
            bytes.extend((items.len() as u32).to_le_bytes());
            bytes.extend(items);
            let mut walk = Walk::new(Pieces(&bytes, 5), 0, true, 6);
            walk.open_unknown_sequences();
            let events = std::iter::from_fn(|| walk.next().ok().filter(|event| *event != Event::End));
            events.collect::<Vec<_>>()
        };
        let opened = of(b"\xfe\xff\0\xe0\x0a\0\0\0\x08\0\0\x01\x02\0\0\0C1");
        assert_eq!(opened.len(), 5, "{opened:?}");
        assert_eq!(opened[2], Event::Value { tag: 0x0008_0100, vr: VR::SH, length: 2, offset: 28 });
        assert_eq!(of(b"").len(), 2);
        assert_eq!(of(b"\xfe\xff\0\xe0\0\0\0\0").len(), 4);
        // Explicit VR, and something else.
        assert_eq!(of(b"\xfe\xff\0\xe0\x0a\0\0\0\x08\0\0\x01SH\x02\0C1").len(), 1);
        assert_eq!(of(b"abcdefghijklmnop").len(), 1);
    }

    #[test]
    fn implicit_elements_get_their_vr_from_the_dictionary() {
        let bytes = b"\x28\0\x03\x01\x02\0\0\0\x01\0\x28\0\x06\x01\x02\0\0\0\xff\xff\x09\0\x01\x10\x02\0\0\0xy";
        let found: Vec<_> = events(bytes, false).into_iter().map(Result::unwrap).collect();
        let vrs = found.iter().filter_map(|event| match event {
            Event::Value { vr, .. } => Some(*vr),
            _ => None,
        });
        assert_eq!(vrs.collect::<Vec<_>>(), [VR::US, VR::SS, VR::UN]);
    }

    #[test]
    fn what_is_damaged_ends_the_walk() {
        for (bytes, explicit) in [
            (&b"\x10\0\x20\0??\x02\0P1"[..], true),
            (b"\x10\0\x20\0LO", true),
            (b"\xfe\xff\x0d\xe0\0\0\0\0", true),
            (b"\x08\0\x40\x11SQ\0\0\x04\0\0\0\xfe\xff\0\xe0\xff\xff\0\0", true),
            (b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\x10\0\x20\0LO\x02\0P1", true),
            (&b"\x08\0\x40\x11\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff".repeat(4), false),
        ] {
            assert!(events(bytes, explicit).last().unwrap().is_err(), "{bytes:?}");
        }
        let mut walk = Walk::new(Pieces(b"\x10\0\x20\0LO\xff\x7fP1", 3), 0, true, 6);
        walk.next().unwrap();
        assert!(matches!(walk.value(0x0010_0020, 10), Err(WalkError::TooLong(_))));
        assert!(matches!(walk.value(0x0010_0020, 1 << 20), Err(WalkError::Structure(StructureError::Truncated))));
    }
}
