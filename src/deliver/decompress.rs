//! An object with compressed frames, read as a data set without compression (PS3.5 8.2, A.4).
//!
//! All frames are decompressed once before the first byte goes out. So a frame that cannot be
//! decompressed never breaks an object off. The first frames are kept in memory meanwhile. The
//! others are decompressed again when their time comes.

use std::io::{self, ErrorKind, Read};

use super::decoders::DecodingFor;
use super::nested::{self, NestedFailure, PHOTOMETRIC, pixel_header, short_text};
use crate::encoding::structure::StructureError;
use crate::encoding::syntax::Encoding;
use crate::encoding::tag::PIXEL_DATA;
use crate::encoding::walk::{Event, Walk, WalkError};
use crate::ingest::limits::MAX_DEPTH;
use crate::pixels::codec::{Codec, CodecError, FrameShape, Loss};
use crate::pixels::frames::{Frame, PixelError, Pixels, Range};
use crate::pixels::transforms::first_text;
use crate::shares::Share;
use crate::store::Source;
use crate::telemetry::metrics;

/// Longest value of one element (PS3.5 7.1.1). It must be even.
const MAX_VALUE: u64 = 0xFFFF_FFFE;

/// Native frames of one object that are kept, in bytes. Larger: more memory for each retrieval.
/// Smaller: more frames are decompressed twice.
const KEPT_BYTES: u64 = 32 << 20;

/// Length of a delimiter.
const DELIMITER: u64 = 8;

const LOSSY_IMAGE_COMPRESSION: u32 = 0x0028_2110;

/// Reason why an object is not decompressed. The message contains no values of the object.
#[derive(Debug, thiserror::Error)]
pub enum DecompressError {
    /// The object cannot be read.
    #[error("the object cannot be read")]
    Read(#[from] io::Error),
    /// A frame is not decompressed.
    #[error(transparent)]
    Frame(#[from] CodecError),
    /// Values of the object about its pixels make no sense.
    #[error("{0}")]
    Pixels(String),
    /// Pixel Data cannot be so long without compression.
    #[error("the native pixel data would exceed 4 GiB")]
    TooLong,
    /// All memory for frames is in use.
    #[error("many frames are being decompressed")]
    NoMemory,
    /// The receiver is gone.
    #[error("nobody waits for it any more")]
    GivenUp,
}

impl From<NestedFailure> for DecompressError {
    fn from(failure: NestedFailure) -> Self {
        match failure {
            NestedFailure::Walk(error) => PixelError::Walk(error).into(),
            NestedFailure::Frame(error) => Self::Frame(error),
        }
    }
}

impl From<PixelError> for DecompressError {
    fn from(error: PixelError) -> Self {
        match error {
            PixelError::Walk(WalkError::Read(error)) => Self::Read(error),
            PixelError::None | PixelError::NoSuchFrame(_) | PixelError::Contradiction(_) | PixelError::Walk(_) => {
                Self::Pixels(error.to_string())
            }
        }
    }
}

/// A part of a decompressed object.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ObjectPart {
    /// These bytes of the stored object.
    Copy(Range),
    /// The stored object from here to its end.
    Rest(u64),
    /// Bytes that replace others.
    Bytes(Vec<u8>),
    /// All frames.
    Frames,
    /// A sequence that begins here, whose items have compressed pixels. Bytes replace it before
    /// anything is read.
    Nested(u64),
}

/// A data set without compression, made of a compressed object in the same encoding of elements.
///
/// It differs from the stored one in Pixel Data, and lacks offset tables, which only compressed
/// frames have. Photometric Interpretation differs too if a transform of the compression was
/// undone. Lossy Image Compression says `01` if the compression may have lost something.
#[derive(Debug)]
pub(super) struct DecompressedObject {
    stored: StoredBytes,
    parts: Vec<ObjectPart>,
    frames: Frames,
    /// The current part, and how many of its bytes were read.
    part: usize,
    done: u64,
}

impl DecompressedObject {
    /// Finds the frames of an object whose data set begins at `offset`, and decompresses all.
    ///
    /// # Errors
    /// See [`DecompressError`].
    pub(super) fn open(
        mut source: Source,
        (offset, encoding): (u64, Encoding),
        transfer_syntax: &str,
        decoding: DecodingFor,
    ) -> Result<Self, DecompressError> {
        let codec = Codec::of(transfer_syntax).ok_or(CodecError::NoDecoder)?;
        source.go_to(offset)?;
        let mut walk = Walk::new(source, offset, encoding.is_explicit(), MAX_DEPTH);
        let pixels = match Pixels::find(&mut walk, transfer_syntax) {
            Ok(pixels) if pixels.is_encapsulated() => Some(pixels),
            // Objects without compressed frames go out as they lie.
            Ok(_) | Err(PixelError::None) => None,
            Err(error) => return Err(error.into()),
        };
        let mut source = walk.into_input();
        source.go_to(offset)?;
        let frames = Frames::new(codec, pixels.as_ref(), decoding)?;
        let mut walk = Walk::new(source, offset, encoding.is_explicit(), MAX_DEPTH);
        let parts = parts(&mut walk, (offset, encoding), pixels.as_ref().map(|pixels| (codec, pixels)), &frames);
        let mut source = walk.into_input();
        let mut parts = match parts {
            Err(error) if pixels.is_some() => return Err(PixelError::Walk(error).into()),
            // What is not compressed goes out as it lies.
            Err(_) => vec![ObjectPart::Rest(offset)],
            Ok(parts) => parts,
        };
        for part in &mut parts {
            if let ObjectPart::Nested(start) = part {
                let bytes;
                (source, bytes) = nested::decompressed(source, (*start, encoding), codec, &frames.decoding)?;
                *part = ObjectPart::Bytes(bytes);
            }
        }
        let mut this = Self { stored: StoredBytes { source, position: None }, parts, frames, part: 0, done: 0 };
        this.frames.decompress_all(&mut this.stored)?;
        metrics::OBJECTS_DECOMPRESSED.increment();
        Ok(this)
    }

    /// Goes back to the start.
    pub(super) fn rewind(&mut self) {
        (self.part, self.done) = (0, 0);
    }

    /// Skips up to so many bytes of the current part. Returns how many.
    pub(super) fn skip(&mut self, count: u64) -> u64 {
        let length = match self.parts.get(self.part) {
            Some(ObjectPart::Copy((_, length))) => *length,
            Some(ObjectPart::Frames) => self.frames.length(),
            Some(ObjectPart::Bytes(_) | ObjectPart::Rest(_) | ObjectPart::Nested(_)) | None => 0,
        };
        let passed = length.saturating_sub(self.done).min(count);
        self.done += passed;
        passed
    }
}

impl Read for DecompressedObject {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(part) = self.parts.get(self.part).filter(|_| !buffer.is_empty()) {
            let done = self.done;
            let count = match part {
                ObjectPart::Copy((offset, length)) => {
                    let left = first_of(buffer, length.saturating_sub(done));
                    match self.stored.read(offset + done, left)? {
                        0 if !left.is_empty() => return Err(ErrorKind::UnexpectedEof.into()),
                        count => count,
                    }
                }
                ObjectPart::Rest(offset) => self.stored.read(offset + done, buffer)?,
                ObjectPart::Bytes(bytes) => copied(bytes, done, buffer),
                ObjectPart::Frames => self.frames.read(done, &mut self.stored, buffer)?,
                ObjectPart::Nested(_) => 0,
            };
            if count > 0 {
                self.done += count as u64;
                return Ok(count);
            }
            self.part += 1;
            self.done = 0;
        }
        Ok(0)
    }
}

/// Returns the first bytes of a buffer, at most so many.
fn first_of(buffer: &mut [u8], most: u64) -> &mut [u8] {
    let count = usize::try_from(most).map_or(buffer.len(), |most| most.min(buffer.len()));
    buffer.get_mut(..count).unwrap_or_default()
}

/// Copies bytes from an offset on. Returns how many.
fn copied(bytes: &[u8], offset: u64, buffer: &mut [u8]) -> usize {
    let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
    let to = first_of(buffer, rest.len() as u64);
    to.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    to.len()
}

/// The bytes of the stored object.
#[derive(Debug)]
struct StoredBytes {
    source: Source,
    /// Position of the source. `None` if it is not known.
    position: Option<u64>,
}

impl StoredBytes {
    /// Reads bytes from an offset on. Returns how many.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position != Some(offset) {
            self.position = None;
            self.source.go_to(offset)?;
        }
        let read = self.source.read(buffer);
        self.position = read.as_ref().ok().map(|count| offset + *count as u64);
        read
    }

    /// Returns the bytes of a compressed frame.
    fn stream(&mut self, frame: &Frame) -> io::Result<Vec<u8>> {
        let mut stream = Vec::new();
        for (offset, length) in &frame.ranges {
            let start = stream.len();
            stream.resize(start + usize::try_from(*length).map_err(|_| ErrorKind::OutOfMemory)?, 0);
            let mut at = start;
            while let Some(rest) = stream.get_mut(at..).filter(|rest| !rest.is_empty()) {
                match self.read(offset + (at - start) as u64, rest) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(count) => at += count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(stream)
    }
}

/// The frames of an object.
#[derive(Debug)]
struct Frames {
    codec: &'static Codec,
    shape: FrameShape,
    /// Length of one native frame, in bytes.
    frame_length: u64,
    places: Vec<Frame>,
    /// The first frames, decompressed. They have at most `most_kept` bytes.
    kept: Vec<Vec<u8>>,
    most_kept: u64,
    /// The frame after those that was decompressed last, and its number from 0.
    current: (usize, Vec<u8>),
    decoding: DecodingFor,
    /// Memory for the frames.
    _memory: Option<Share>,
}

impl Frames {
    fn new(codec: &'static Codec, pixels: Option<&Pixels>, decoding: DecodingFor) -> Result<Self, DecompressError> {
        let shape = pixels.map(|pixels| pixels.shape).unwrap_or_default();
        let mut frames = Self {
            codec,
            shape: shape.of_frame(),
            frame_length: pixels.map_or(0, |pixels| pixels.frame_bits().div_ceil(8)),
            places: Vec::new(),
            kept: Vec::new(),
            most_kept: 0,
            current: (usize::MAX, Vec::new()),
            decoding,
            _memory: None,
        };
        let Some(pixels) = pixels else { return Ok(frames) };
        codec.check(&frames.shape)?;
        // Native frames of bits follow each other without padding (PS3.5 8.1.1).
        if pixels.frames() > 1 && !pixels.frame_bits().is_multiple_of(8) {
            return Err(CodecError::Unsupported("frames whose last byte is not full").into());
        }
        let places: Result<_, PixelError> = (1..=pixels.frames()).map(|number| pixels.frame(number)).collect();
        frames.places = places?;
        let longest = frames.places.iter().map(|frame| frame.length).max().unwrap_or(0);
        if longest > shape.most_compressed() {
            return Err(CodecError::Damaged.into());
        }
        if frames.length() > MAX_VALUE {
            return Err(DecompressError::TooLong);
        }
        // If there is no memory to keep several frames, they are decompressed twice.
        for most_kept in [frames.length().min(KEPT_BYTES).max(frames.frame_length), frames.frame_length] {
            let current = if most_kept < frames.length() { frames.frame_length } else { 0 };
            let memory = frames.decoding.decoders.memory(&frames.decoding.peer, most_kept + current + longest);
            if memory.is_some() {
                return Ok(Self { most_kept, _memory: memory, ..frames });
            }
        }
        Err(DecompressError::NoMemory)
    }

    /// Returns the length of all native frames, in bytes.
    fn length(&self) -> u64 {
        self.frame_length * self.places.len() as u64
    }

    /// Decompresses all frames, and keeps the first ones.
    fn decompress_all(&mut self, stored: &mut StoredBytes) -> Result<(), DecompressError> {
        for number in 0..self.places.len() {
            if self.decoding.progress.is_given_up() {
                return Err(DecompressError::GivenUp);
            }
            let native = self.decompress(number, stored)?;
            if (number as u64 + 1) * self.frame_length <= self.most_kept {
                self.kept.push(native);
            }
            self.decoding.progress.frame_is_done();
        }
        Ok(())
    }

    fn decompress(&self, number: usize, stored: &mut StoredBytes) -> Result<Vec<u8>, DecompressError> {
        let frame = self.places.get(number).ok_or(CodecError::Damaged)?;
        let stream = stored.stream(frame)?;
        let _until_its_end = self.decoding.decoders.blocking_turn(&self.decoding.peer);
        Ok(self.codec.decompress(&stream, &self.shape)?)
    }

    /// Reads native samples from an offset on. Returns how many bytes.
    fn read(&mut self, offset: u64, stored: &mut StoredBytes, buffer: &mut [u8]) -> io::Result<usize> {
        if offset >= self.length() {
            return Ok(0);
        }
        let number = usize::try_from(offset / self.frame_length).map_err(|_| ErrorKind::OutOfMemory)?;
        if number >= self.kept.len() && self.current.0 != number {
            self.current = (usize::MAX, Vec::new());
            // Each frame was decompressed before, so the file has changed since.
            self.current = (number, self.decompress(number, stored).map_err(io::Error::other)?);
        }
        let native = self.kept.get(number).unwrap_or(&self.current.1);
        Ok(copied(native, offset % self.frame_length, buffer))
    }
}

/// Parts of an object so far.
struct PartList {
    encoding: Encoding,
    parts: Vec<ObjectPart>,
    /// Everything before this offset is in a part.
    done: u64,
    /// Whether the object must still state that its pixels have lost something.
    states_no_loss: bool,
}

impl PartList {
    /// Copies everything up to `start`, and puts these bytes in place of what goes on to `end`.
    fn replace(&mut self, (start, end): Range, bytes: Vec<u8>) {
        self.parts.push(ObjectPart::Copy((self.done, start.saturating_sub(self.done))));
        self.parts.push(ObjectPart::Bytes(bytes));
        self.done = end;
    }

    /// Replaces a value of the data set that says how its pixels are compressed. `whole` is the
    /// element.
    fn replace_value(
        &mut self,
        walk: &mut Walk<Source>,
        tag: u32,
        whole: Range,
        (codec, pixels): (&Codec, &Pixels),
    ) -> Result<(), WalkError> {
        let photometric = pixels.transforms.photometric.as_str();
        match tag {
            LOSSY_IMAGE_COMPRESSION => {
                let stated = first_text(&walk.beginning(64)?);
                if std::mem::take(&mut self.states_no_loss) && !codec.loss.is_stated_by(&stated) {
                    self.replace(whole, short_text(self.encoding, tag, "01"));
                }
            }
            PHOTOMETRIC if codec.photometric(photometric) != photometric => {
                self.replace(whole, short_text(self.encoding, tag, codec.photometric(photometric)));
            }
            // Group lengths of groups that change, and offset tables.
            0x0028_0000 | 0x7FE0_0000..=0x7FE0_0003 => self.replace(whole, Vec::new()),
            _ => {}
        }
        Ok(())
    }
}

/// Divides an object into parts that are copied and parts that are replaced. `compressed` is
/// nothing for an object whose own pixels are not compressed.
fn parts(
    walk: &mut Walk<Source>,
    (offset, encoding): (u64, Encoding),
    compressed: Option<(&Codec, &Pixels)>,
    frames: &Frames,
) -> Result<Vec<ObjectPart>, WalkError> {
    let states_no_loss = compressed.is_some_and(|(codec, _)| codec.loss != Loss::None);
    let mut list = PartList { encoding, parts: Vec::new(), done: offset, states_no_loss };
    let mut nested = NestedPixels::default();
    loop {
        let event = walk.next()?;
        let start = walk.element_start();
        let tag = match event {
            Event::Value { tag, .. } | Event::Fragments { tag, .. } if walk.depth() == 0 => tag,
            Event::Sequence { tag } if walk.depth() == 1 => tag,
            Event::End if compressed.is_some() => return Err(StructureError::Misplaced(PIXEL_DATA).into()),
            Event::End => {
                if !nested.end(u64::MAX, &mut list) {
                    list.parts.push(ObjectPart::Rest(list.done));
                }
                return Ok(list.parts);
            }
            Event::Fragments { .. } => {
                nested.are_compressed = true;
                continue;
            }
            _ => continue,
        };
        nested.end(start, &mut list);
        if tag > LOSSY_IMAGE_COMPRESSION && std::mem::take(&mut list.states_no_loss) {
            list.replace((start, start), short_text(encoding, LOSSY_IMAGE_COMPRESSION, "01"));
        }
        match event {
            Event::Sequence { .. } => nested.start = Some(start),
            Event::Value { length, offset, .. } => {
                if let Some(compressed) = compressed {
                    list.replace_value(walk, tag, (start, offset + u64::from(length)), compressed)?;
                }
            }
            Event::Fragments { tag: PIXEL_DATA, offset, .. } if compressed.is_some() => {
                let mut end = offset;
                while let Some((fragment, length)) = walk.fragment()? {
                    end = fragment + u64::from(length);
                }
                let length = frames.length();
                let header = pixel_header(encoding, frames.shape.bits_allocated, length + length % 2);
                list.replace((start, end + DELIMITER), header);
                list.parts.push(ObjectPart::Frames);
                list.parts.push(ObjectPart::Bytes(vec![0; (length % 2) as usize]));
                list.parts.push(ObjectPart::Rest(list.done));
                return Ok(list.parts);
            }
            _ => {}
        }
    }
}

/// The last sequence of the data set itself.
#[derive(Default)]
struct NestedPixels {
    start: Option<u64>,
    /// Whether items of it have pixels in fragments.
    are_compressed: bool,
}

impl NestedPixels {
    /// Ends the sequence where the next element begins. Returns whether it is replaced.
    fn end(&mut self, end: u64, list: &mut PartList) -> bool {
        let are_compressed = std::mem::take(&mut self.are_compressed);
        let Some(start) = self.start.take().filter(|_| are_compressed) else { return false };
        list.parts.push(ObjectPart::Copy((list.done, start.saturating_sub(list.done))));
        list.parts.push(ObjectPart::Nested(start));
        list.done = end;
        true
    }
}
