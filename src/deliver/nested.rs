//! Compressed pixels in the items of a sequence, as those of an icon (PS3.5 A.4). They are
//! decompressed with the codec of the object.

use std::io;

use dicom_core::VR;

use super::decoders::DecodingFor;
use crate::encoding::data_set::push_element;
use crate::encoding::structure::StructureError;
use crate::encoding::syntax::Encoding;
use crate::encoding::tag::{PIXEL_DATA, tag_of};
use crate::encoding::walk::{Event, Walk, WalkError};
use crate::ingest::limits::MAX_DEPTH;
use crate::pixels::codec::{Codec, CodecError};
use crate::pixels::frames::Shape;
use crate::pixels::transforms::first_text;
use crate::store::Source;

pub(super) const PHOTOMETRIC: u32 = 0x0028_0004;

/// Icon Image Sequence. It is of type 3, so it may be left out.
const ICON: u32 = 0x0088_0200;

/// Longest sequence with compressed pixels, in bytes. An icon has a few thousand.
const MAX_SEQUENCE: usize = 4 << 20;

/// Reason why pixels of an item are not decompressed.
#[derive(Debug, thiserror::Error)]
pub(super) enum NestedFailure {
    #[error(transparent)]
    Walk(#[from] WalkError),
    #[error(transparent)]
    Frame(#[from] CodecError),
}

impl From<io::Error> for NestedFailure {
    fn from(error: io::Error) -> Self {
        Self::Walk(error.into())
    }
}

/// Decompresses the pixels in a sequence that begins at `start`. Returns the sequence with
/// delimiters in place of lengths. An icon that cannot be decompressed is left out.
///
/// # Errors
/// See [`NestedFailure`].
pub(super) fn decompressed(
    mut source: Source,
    (start, encoding): (u64, Encoding),
    codec: &'static Codec,
    decoding: &DecodingFor,
) -> Result<(Source, Vec<u8>), NestedFailure> {
    source.go_to(start)?;
    let mut walk = Walk::new(source, start, encoding.is_explicit(), MAX_DEPTH);
    let begin = walk.next()?;
    let Event::Sequence { tag } = begin else {
        return Err(WalkError::from(StructureError::Misplaced(PIXEL_DATA)).into());
    };
    let mut sequence = NestedSequence { encoding, codec, decoding, out: Vec::new(), items: Vec::new() };
    begin.push_structure(encoding, &mut sequence.out);
    let bytes = match sequence.read(&mut walk) {
        Ok(()) => sequence.out,
        Err(NestedFailure::Frame(_)) if tag == ICON => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok((walk.into_input(), bytes))
}

/// A sequence that is written anew.
struct NestedSequence<'d> {
    encoding: Encoding,
    codec: &'static Codec,
    decoding: &'d DecodingFor,
    out: Vec<u8>,
    /// Pixel attributes of the items that are open.
    items: Vec<NestedImage>,
}

/// Pixel attributes of an item.
#[derive(Default)]
struct NestedImage {
    shape: Shape,
    photometric: String,
    /// Place where Photometric Interpretation was written.
    photometric_at: Option<std::ops::Range<usize>>,
}

impl NestedImage {
    fn take(&mut self, tag: u32, value: &[u8], place: std::ops::Range<usize>) {
        match tag {
            PHOTOMETRIC => (self.photometric, self.photometric_at) = (first_text(value), Some(place)),
            _ => self.shape.take(tag, value),
        }
    }
}

impl NestedSequence<'_> {
    /// Reads to the end of the sequence.
    fn read(&mut self, walk: &mut Walk<Source>) -> Result<(), NestedFailure> {
        loop {
            if self.out.len() > MAX_SEQUENCE {
                return Err(CodecError::TooLarge.into());
            }
            let event = walk.next()?;
            event.push_structure(self.encoding, &mut self.out);
            match event {
                Event::Item => self.items.push(NestedImage::default()),
                Event::ItemEnd => drop(self.items.pop()),
                Event::Sequence { .. } => {}
                Event::SequenceEnd if walk.depth() == 0 => return Ok(()),
                Event::SequenceEnd => {}
                Event::Value { tag, vr, .. } => {
                    let value = walk.value(tag, MAX_SEQUENCE as u64)?;
                    let start = self.out.len();
                    push_element(self.encoding, &mut self.out, tag_of(tag), vr, &value);
                    let place = start..self.out.len();
                    if let Some(image) = self.items.last_mut() {
                        image.take(tag, &value, place);
                    }
                }
                Event::Fragments { tag: PIXEL_DATA, .. } => self.pixels(walk)?,
                Event::Fragments { tag, .. } => return Err(WalkError::from(StructureError::Misplaced(tag)).into()),
                Event::End => return Err(WalkError::from(StructureError::Truncated).into()),
            }
        }
    }

    /// Decompresses the pixels of the innermost item. They are one frame.
    fn pixels(&mut self, walk: &mut Walk<Source>) -> Result<(), NestedFailure> {
        let mut stream = Vec::new();
        let mut is_table = true;
        while walk.fragment()?.is_some() {
            let fragment = walk.value(PIXEL_DATA, MAX_SEQUENCE as u64)?;
            // The first one is the Basic Offset Table (PS3.5 A.4).
            if !std::mem::take(&mut is_table) {
                stream.extend(fragment);
            }
            if stream.len() > MAX_SEQUENCE {
                return Err(CodecError::TooLarge.into());
            }
        }
        let image = self.items.pop().unwrap_or_default();
        let shape = image.shape.of_frame();
        self.codec.check(&shape)?;
        if image.shape.frame_bits() / 8 > MAX_SEQUENCE as u64 {
            return Err(CodecError::TooLarge.into());
        }
        let native = {
            let _until_its_end = self.decoding.decoders.blocking_turn(&self.decoding.peer);
            self.codec.decompress(&stream, &shape)?
        };
        let photometric = self.codec.photometric(&image.photometric);
        if let Some(place) = image.photometric_at.clone().filter(|_| photometric != image.photometric) {
            self.out.splice(place, short_text(self.encoding, PHOTOMETRIC, photometric));
        }
        let padding = native.len() % 2;
        self.out.extend(pixel_header(self.encoding, shape.bits_allocated, (native.len() + padding) as u64));
        self.out.extend(native);
        self.out.extend(std::iter::repeat_n(0, padding));
        self.items.push(image);
        Ok(())
    }
}

/// Returns an element of VR CS with a text of our own.
pub(super) fn short_text(encoding: Encoding, tag: u32, text: &str) -> Vec<u8> {
    let padding = text.len() % 2;
    let mut element = Vec::new();
    let length = u32::try_from(text.len() + padding).unwrap_or(0);
    encoding.push_header(&mut element, tag, VR::CS.to_bytes(), length);
    element.extend_from_slice(text.as_bytes());
    element.extend(std::iter::repeat_n(b' ', padding));
    element
}

/// Returns the header of Pixel Data (PS3.5 A.2).
pub(super) fn pixel_header(encoding: Encoding, bits_allocated: u16, length: u64) -> Vec<u8> {
    let letters = if bits_allocated > 8 { *b"OW" } else { *b"OB" };
    let mut header = Vec::new();
    // The length is at most `MAX_VALUE`.
    encoding.push_header(&mut header, PIXEL_DATA, letters, u32::try_from(length).unwrap_or(0));
    header
}
