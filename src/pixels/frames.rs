//! The places of the frames of an object (PS3.5 8.2, annex A.4). They are found once. Then each
//! frame is one read.

use super::codec::FrameShape;
use super::transforms::{PixelTransforms, TransformReader, first_text, number};
use crate::encoding::syntax::is_video;
use crate::encoding::walk::{Event, Input, Walk, WalkError};

/// Number of bytes that one range takes in a table, with its container.
const RANGE_BYTES: usize = 40;

/// Maximum number of fragments of one object. A slide of a microscope has 100,000 tiles.
pub(crate) const MAX_FRAGMENTS: usize = 4_000_000;

/// Maximum length of a value that is read during the walk: offset tables of [`MAX_FRAGMENTS`]
/// frames.
const MAX_TABLE: u64 = 8 * MAX_FRAGMENTS as u64;

/// Maximum Number of Frames (0028,0008) of one object.
const MAX_FRAMES: u32 = 1 << 24;

/// Elements of group 0028 that describe pixels, as far as frames need them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
    pub(crate) samples: u16,
    pub(crate) bits_allocated: u16,
    pub(crate) frames: u32,
    pub(crate) is_planar: bool,
    /// Whether two native pixels share their chrominances (YBR_FULL_422, PS3.3 C.7.6.3.1.2).
    pub(crate) is_subsampled: bool,
    /// Whether the samples are floating-point numbers.
    pub(crate) is_float: bool,
}

impl Shape {
    /// Takes the value of an element. Other elements than those of the shape change nothing.
    pub(crate) fn take(&mut self, tag: u32, value: &[u8]) {
        let short = || number(value).unwrap_or(0);
        match tag {
            0x0028_0002 => self.samples = short(),
            0x0028_0006 => self.is_planar = short() == 1,
            0x0028_0008 => self.frames = first_text(value).parse().unwrap_or(1),
            0x0028_0010 => self.rows = short(),
            0x0028_0011 => self.columns = short(),
            0x0028_0100 => self.bits_allocated = short(),
            _ => {}
        }
    }

    /// Returns the number of bits of one native frame.
    pub(crate) fn frame_bits(&self) -> u64 {
        let samples = if self.is_subsampled { 2 } else { self.samples.max(1) };
        u64::from(self.rows) * u64::from(self.columns) * u64::from(samples) * u64::from(self.bits_allocated)
    }

    /// Returns the maximum length of a compressed frame, in bytes. Compression makes noise a little
    /// longer.
    pub(crate) fn most_compressed(&self) -> u64 {
        self.frame_bits() / 8 * 2 + (64 << 10)
    }

    /// Returns the shape of one frame, for a codec.
    pub(crate) fn of_frame(&self) -> FrameShape {
        FrameShape {
            columns: u32::from(self.columns),
            rows: u32::from(self.rows),
            samples: usize::from(self.samples.max(1)),
            bits_allocated: self.bits_allocated,
            is_planar: self.is_planar,
        }
    }
}

/// A run of bytes in an object.
pub(crate) type Range = (u64, u64);

/// The place of pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Layout {
    /// One frame after the other, from this offset on. `length` is the number of bytes of all.
    Native { offset: u64, length: u64 },
    /// The fragments of each frame.
    Encapsulated(Vec<Vec<Range>>),
}

/// The pixels of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pixels {
    pub(crate) shape: Shape,
    pub(crate) transforms: PixelTransforms,
    /// The transfer syntax of the stored object.
    pub(crate) transfer_syntax: String,
    layout: Layout,
}

/// Errors of a frame that does not exist.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PixelError {
    #[error("the object has no pixel data")]
    None,
    #[error("the object has {0} frames")]
    NoSuchFrame(u32),
    #[error("what the object says of its pixels contradicts itself: {0}")]
    Contradiction(&'static str),
    #[error(transparent)]
    Walk(#[from] WalkError),
}

/// The bytes of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its runs of bytes, in order.
    pub(crate) ranges: Vec<Range>,
    /// Number of bits of the first byte that belong to the frame before. Only packed bits have
    /// some.
    pub(crate) shift: u8,
    /// Length of the frame in bytes.
    pub(crate) length: u64,
}

impl Pixels {
    /// Walks to the pixel data of an object.
    pub(crate) fn find<R: Input>(walk: &mut Walk<R>, transfer_syntax: &str) -> Result<Self, PixelError> {
        let mut shape = Shape::default();
        let mut transforms = TransformReader::default();
        let mut extended = Extended::default();
        let layout = loop {
            let event = walk.next()?;
            match event {
                Event::End => return Err(PixelError::None),
                Event::Value { tag, length, offset, .. } if walk.depth() == 0 => match tag {
                    0x0028_0002 | 0x0028_0006 | 0x0028_0008 | 0x0028_0010 | 0x0028_0011 | 0x0028_0100 => {
                        shape.take(tag, &walk.value(tag, 64)?);
                    }
                    0x7FE0_0001 => extended.offsets = numbers(&walk.value(tag, MAX_TABLE)?),
                    0x7FE0_0002 => extended.lengths = numbers(&walk.value(tag, MAX_TABLE)?),
                    0x7FE0_0008 | 0x7FE0_0009 | 0x7FE0_0010 => {
                        if matches!(tag, 0x7FE0_0008 | 0x7FE0_0009) {
                            shape.is_float = true;
                            shape.bits_allocated = if tag == 0x7FE0_0008 { 32 } else { 64 };
                        }
                        break Layout::Native { offset, length: u64::from(length) };
                    }
                    _ => transforms.take(&event, walk)?,
                },
                Event::Fragments { tag: 0x7FE0_0010, .. } if walk.depth() == 0 => {
                    // The frames of a video are in one stream.
                    let frames = if is_video(transfer_syntax) { 1 } else { shape.frames.clamp(1, MAX_FRAMES) };
                    break Layout::Encapsulated(fragments(walk, frames, &extended)?);
                }
                _ => transforms.take(&event, walk)?,
            }
        };
        let transforms = transforms.finish();
        shape.frames = shape.frames.clamp(1, MAX_FRAMES);
        let is_native = matches!(layout, Layout::Native { .. });
        shape.is_subsampled = is_native && transforms.photometric == "YBR_FULL_422" && shape.samples == 3;
        Ok(Self { shape, transforms, transfer_syntax: transfer_syntax.to_owned(), layout })
    }

    /// Returns the number of bits of one native frame.
    pub(crate) fn frame_bits(&self) -> u64 {
        self.shape.frame_bits()
    }

    /// Whether the frames are compressed.
    pub(crate) fn is_encapsulated(&self) -> bool {
        matches!(self.layout, Layout::Encapsulated(_))
    }

    /// Returns the number of frames.
    pub(crate) fn frames(&self) -> u32 {
        match &self.layout {
            Layout::Native { .. } => self.shape.frames,
            Layout::Encapsulated(frames) => u32::try_from(frames.len()).unwrap_or(u32::MAX),
        }
    }

    /// Returns one frame, counted from 1.
    pub(crate) fn frame(&self, number: u32) -> Result<Frame, PixelError> {
        let at =
            number.checked_sub(1).filter(|at| *at < self.frames()).ok_or(PixelError::NoSuchFrame(self.frames()))?;
        match &self.layout {
            Layout::Encapsulated(frames) => {
                let ranges = frames.get(at as usize).ok_or(PixelError::NoSuchFrame(self.frames()))?.clone();
                let length = ranges.iter().map(|(_, length)| length).sum();
                Ok(Frame { ranges, shift: 0, length })
            }
            Layout::Native { offset, length } => {
                let bits = self.shape.frame_bits();
                if bits == 0 {
                    return Err(PixelError::Contradiction("a frame has no pixels"));
                }
                // No element is as long as the greatest number, so the largest frames lie outside.
                let start = u64::from(at).saturating_mul(bits);
                let (first, end) = (start / 8, start.saturating_add(bits).div_ceil(8));
                if end > *length {
                    return Err(PixelError::Contradiction("the pixel data end before their last frame"));
                }
                let range = (offset + first, end - first);
                Ok(Frame { ranges: vec![range], shift: (start % 8) as u8, length: bits.div_ceil(8) })
            }
        }
    }

    /// Returns about how much memory it takes, in bytes.
    pub(crate) fn cost(&self) -> usize {
        let ranges = match &self.layout {
            Layout::Native { .. } => 1,
            Layout::Encapsulated(frames) => frames.iter().map(|frame| frame.len() + 1).sum(),
        };
        512 + ranges * RANGE_BYTES + self.transforms.cost()
    }
}

/// Moves packed bits so that the first one of a frame is the lowest of its first byte (PS3.5
/// 8.1.1). The bits of the next frame are cleared.
pub(crate) fn realigned(bytes: &[u8], shift: u8, bits: u64) -> Vec<u8> {
    let mut out: Vec<u8> = bytes
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            let next = bytes.get(at + 1).copied().unwrap_or(0);
            if shift == 0 { *byte } else { byte >> shift | next << (8 - shift) }
        })
        .take(usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX))
        .collect();
    if !bits.is_multiple_of(8)
        && let Some(last) = out.last_mut()
    {
        *last &= (1 << (bits % 8)) - 1;
    }
    out
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).filter_map(|chunk| chunk.first_chunk()).map(|bytes| u64::from_le_bytes(*bytes)).collect()
}

/// Extended Offset Table and its lengths (PS3.3 C.7.6.3.1.8).
#[derive(Default)]
struct Extended {
    offsets: Vec<u64>,
    lengths: Vec<u64>,
}

/// Finds the fragments of each frame. It uses the Extended Offset Table, the Basic one, or the
/// first bytes of each fragment.
fn fragments<R: Input>(walk: &mut Walk<R>, frames: u32, extended: &Extended) -> Result<Vec<Vec<Range>>, PixelError> {
    let frames = frames as usize;
    let mut table = Vec::new();
    let Some((_, length)) = walk.fragment()? else { return Err(PixelError::Contradiction("there are no fragments")) };
    if length > 0 {
        let bytes = walk.value(0x7FE0_0010, MAX_TABLE)?;
        let offsets = bytes.chunks_exact(4).filter_map(|chunk| chunk.first_chunk());
        table.extend(offsets.map(|bytes| u64::from(u32::from_le_bytes(*bytes))));
    }
    let mut all: Vec<(Range, [u8; 2])> = Vec::new();
    // The offset of the item of the first fragment. Offsets count from there (PS3.5 A.4).
    let mut base = None;
    while let Some((offset, length)) = walk.fragment()? {
        if all.len() == MAX_FRAGMENTS {
            return Err(PixelError::Contradiction("there are more than 4,000,000 fragments"));
        }
        base.get_or_insert(offset - 8);
        let beginning = if frames > 1 { walk.beginning(2)? } else { Vec::new() };
        let beginning = beginning.first_chunk().copied().unwrap_or_default();
        all.push(((offset, u64::from(length)), beginning));
    }
    let base = base.ok_or(PixelError::Contradiction("there are no fragments"))?;
    if frames == 1 {
        return Ok(vec![all.into_iter().map(|(range, _)| range).collect()]);
    }
    if extended.offsets.len() == frames && extended.lengths.len() == frames {
        let ranges = extended.offsets.iter().zip(&extended.lengths);
        let inside = |(offset, length): (&u64, &u64)| {
            let start = base.checked_add(*offset)?.checked_add(8)?;
            // A table that points to another place than a fragment is not used.
            let at = all.binary_search_by_key(&start, |((offset, _), _)| *offset).ok()?;
            let ((_, whole), _) = all.get(at)?;
            (*length <= *whole).then(|| vec![(start, *length)])
        };
        if let Some(found) = ranges.map(inside).collect::<Option<Vec<_>>>() {
            return Ok(found);
        }
    }
    if table.len() == frames && table.is_sorted() {
        let mut found = vec![Vec::new(); frames];
        for (range, _) in &all {
            let from_base = range.0 - 8 - base;
            let at = table.partition_point(|offset| *offset <= from_base).saturating_sub(1);
            if let Some(frame) = found.get_mut(at) {
                frame.push(*range);
            }
        }
        if found.iter().all(|frame| !frame.is_empty()) {
            return Ok(found);
        }
    }
    if all.len() == frames {
        return Ok(all.into_iter().map(|(range, _)| vec![range]).collect());
    }
    by_beginnings(&all, frames)
}

/// A JPEG, JPEG-LS or JPEG 2000 stream begins with a marker. No later fragment of the stream begins
/// with it.
fn by_beginnings(all: &[(Range, [u8; 2])], frames: usize) -> Result<Vec<Vec<Range>>, PixelError> {
    let mut found: Vec<Vec<Range>> = Vec::new();
    for (range, beginning) in all {
        if matches!(beginning, [0xFF, 0xD8 | 0x4F]) || found.is_empty() {
            found.push(Vec::new());
        }
        if let Some(frame) = found.last_mut() {
            frame.push(*range);
        }
    }
    if found.len() == frames {
        return Ok(found);
    }
    Err(PixelError::Contradiction("it cannot be told which fragments belong to which frame"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native(frames: u32, bits_allocated: u16, length: u64) -> Pixels {
        let shape = Shape { rows: 3, columns: 3, samples: 1, bits_allocated, frames, ..Shape::default() };
        Pixels {
            shape,
            transforms: PixelTransforms::default(),
            transfer_syntax: String::new(),
            layout: Layout::Native { offset: 100, length },
        }
    }

    #[test]
    fn native_frames_lie_one_behind_the_other() {
        let pixels = native(3, 16, 54);
        assert_eq!(pixels.frame(1).unwrap(), Frame { ranges: vec![(100, 18)], shift: 0, length: 18 });
        assert_eq!(pixels.frame(3).unwrap().ranges, [(136, 18)]);
        assert!(matches!(pixels.frame(0), Err(PixelError::NoSuchFrame(3))));
        assert!(matches!(pixels.frame(4), Err(PixelError::NoSuchFrame(3))));
        assert!(matches!(native(4, 16, 54).frame(4), Err(PixelError::Contradiction(_))));
        assert!(matches!(native(4, 0, 54).frame(1), Err(PixelError::Contradiction(_))));
    }

    #[test]
    fn packed_bits_begin_where_the_frame_before_ends() {
        // Three frames of nine bits: 0 to 8, 9 to 17, 18 to 26.
        let bits = native(3, 1, 4);
        let second = bits.frame(2).unwrap();
        assert_eq!((second.ranges.as_slice(), second.shift, second.length), (&[(101, 2)][..], 1, 2));
        let all: u32 = 0b101_0000_0001 << 9 | 0b1_1111_1111 | 0b111 << 18;
        let bytes = all.to_le_bytes();
        assert_eq!(realigned(&bytes[..2], 0, 9), [0xFF, 0x01]);
        assert_eq!(realigned(&bytes[1..3], 1, 9), [0x01, 0x01]);
    }

    #[test]
    fn fragments_are_told_apart_by_what_they_begin_with() {
        let (start, go_on) = ([0xFF, 0xD8], [0x12, 0x34]);
        let all = [((0, 1), start), ((9, 1), go_on), ((18, 1), start), ((27, 1), start)];
        assert_eq!(by_beginnings(&all, 3).unwrap(), [vec![(0, 1), (9, 1)], vec![(18, 1)], vec![(27, 1)]]);
        assert!(by_beginnings(&all, 2).is_err());
    }
}
